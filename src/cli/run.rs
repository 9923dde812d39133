//! `tidemill run`.

use anyhow::Result;
use clap::Args;
use tokio::sync::watch;

use crate::app::{App, told_to_stop};
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
    tokio::spawn(async move {
        if let Err(error) = told_to_stop().await {
            tracing::error!(%error, "cannot listen for signals");
        }
        stop.send_replace(true);
    });
    app.run(listener, stopped).await
}
