//! `tidemill migrate`.

use anyhow::Result;

use crate::config::Config;

/// Applies the migrations to the configured database.
pub async fn run(config: &Config) -> Result<()> {
    super::store(config)?.migrate().await
}
