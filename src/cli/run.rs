//! `tidemill run`.

use anyhow::Result;
use clap::Args;
use tokio::sync::watch;

use crate::app::{App, stop_signal};
use crate::config::{Config, DatabaseConfig, Flag};
use crate::pipeline::definition::Definition;
use crate::server::{self, Authenticator};
use crate::store::Store;

/// Connections for looking up tokens. Answers are cached for seconds, so few are busy at a time.
const TOKEN_CONNECTIONS: u32 = 2;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run only these pipelines
    #[arg(long = "pipeline", value_name = "NAME")]
    pipelines: Vec<String>,
    /// The address to serve HTTP at
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

impl RunArgs {
    /// The settings that the command line overrides.
    pub fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.clone().map(|value| Flag { name: "--listen", setting: "server.listen", value });
        listen.into_iter().collect()
    }
}

/// Runs the service until it is stopped.
pub async fn run(config: Config, args: RunArgs) -> Result<()> {
    let definitions = Definition::load_all(&config.pipelines, &args.pipelines)?;
    // A few connections of its own, so that callers are identified however busy those of the pipelines are.
    let store = Store::connect(&DatabaseConfig { max_connections: Some(TOKEN_CONNECTIONS), ..config.database.clone() })?;
    let has_tokens = async || {
        // Before the first start the database has no table of tokens.
        store.migrate().await?;
        Ok(store.has_tokens().await?)
    };
    let listener = server::bind(&config.server, has_tokens).await?;
    let auth = Authenticator::new(&config.server, Some(store));
    let (stop, stopped) = watch::channel(false);
    // Listen from here on: the first process of a container gets only the signals that it listens for.
    tokio::spawn(async move {
        if let Err(error) = stop_signal().await {
            tracing::error!(%error, "cannot listen for signals");
        }
        stop.send_replace(true);
    });
    let mut stopped_early = stopped.clone();
    let app = tokio::select! {
        app = server::serve_during_startup(&listener, &auth, App::build(config, definitions)) => app??,
        // Nothing has been read yet, so there is nothing to drain.
        _ = stopped_early.wait_for(|stopped| *stopped) => return Ok(()),
    };
    app.run(listener, auth, stopped).await
}
