//! `tidemill run`.

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::config::{Config, Flag};
use crate::pipeline::definition::Definition;
use crate::server;

/// Consume every pipeline, or those named, until SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run only these pipelines
    #[arg(long = "pipeline", value_name = "NAME")]
    pipelines: Vec<String>,
    /// Where to serve HTTP
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

impl RunArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.clone().map(|value| Flag { name: "--listen", setting: "server.listen", value });
        listen.into_iter().collect()
    }
}

/// Runs the service.
pub async fn run(config: Config, args: RunArgs) -> Result<()> {
    let definitions = Definition::load_all(&config.pipelines, &args.pipelines)?;
    let listener = server::bind(&config.server).await?;
    let app = App::build(config, definitions).await?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        stop.send_replace(true);
    });
    app.run(listener, stopped).await
}
