//! What a command stands on where nothing is configured: the same encoder and the same private Postgres as `demo`.

use anyhow::{Context, Result};

use crate::config::{Config, ModelConfig};
use crate::demo::download;
use crate::demo::postgres::{PostgresOptions, PrivatePostgres};
use crate::engine::Engine;

/// The model that every configuration has, whether it names it or not.
pub const BUILT_IN_MODEL: &str = "minilm";

/// Loads the models of the configuration that are among `wanted`; the built-in one is downloaded where no path is given for it.
pub async fn engine(mut config: Config, wanted: &[&str]) -> Result<Engine> {
    config.models.retain(|name, _| wanted.contains(&name.as_str()));
    let built_in = wanted.contains(&BUILT_IN_MODEL) && !config.models.contains_key(BUILT_IN_MODEL);
    blocking(move || {
        if built_in {
            config.models.insert(BUILT_IN_MODEL.into(), ModelConfig { path: download::sentence_encoder(&tell)? });
        }
        Ok(Engine::start(&config.engine, &config.models)?)
    })
    .await
}

/// Points the configuration at the private Postgres of the data folder where it names no database. Keep what is returned: the
/// database ends with it.
pub async fn database(config: &mut Config) -> Result<Option<PrivatePostgres>> {
    if config.database.url.is_some() {
        return Ok(None);
    }
    let options = PostgresOptions { data_dir: config.data_dir.clone(), port: None, durable: true };
    let postgres = blocking(move || PrivatePostgres::start(&options, &tell)).await?;
    config.database.url = Some(postgres.url().to_owned());
    Ok(Some(postgres))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread panicked")?
}

fn tell(progress: &str) {
    tracing::info!("{progress}");
}
