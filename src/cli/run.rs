//! `tidemill run`.

use anyhow::Result;
use clap::Args;
use tokio::sync::watch;

use crate::app::{App, stop_signal};
use crate::config::{Config, DatabaseConfig, Flag};
use crate::pipeline::definition::Definition;
use crate::server::{self, Authenticator};
use crate::store::Store;

/// Connections for tokens. What is asked is kept for seconds, so that few are ever busy.
const GATE_CONNECTIONS: u32 = 2;

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
    // Its own few connections: callers are to be known however busy those of the walk are.
    let ledger = Store::connect(&DatabaseConfig { max_connections: Some(GATE_CONNECTIONS), ..config.database.clone() })?;
    let has_tokens = async || {
        // Before its first start the ledger has no table of them.
        ledger.migrate().await?;
        Ok(ledger.has_tokens().await?)
    };
    let listener = server::bind(&config.server, has_tokens).await?;
    let auth = Authenticator::new(&config.server, Some(ledger));
    let (stop, stopped) = watch::channel(false);
    // From here on, for the first process of a container only gets the signals that it listens for.
    tokio::spawn(async move {
        if let Err(error) = stop_signal().await {
            tracing::error!(%error, "cannot listen for signals");
        }
        stop.send_replace(true);
    });
    let mut told = stopped.clone();
    let app = tokio::select! {
        app = server::serve_during_startup(&listener, &auth, App::build(config, definitions)) => app??,
        // Nothing has been read yet, so there is nothing to drain.
        _ = told.wait_for(|told| *told) => return Ok(()),
    };
    app.run(listener, auth, stopped).await
}
