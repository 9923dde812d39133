//! `tidemill migrate`.

use anyhow::Result;

use crate::config::Config;

/// Brings the schema of the configured database up to date.
pub async fn run(config: &Config) -> Result<()> {
    super::store(config)?.migrate().await
}
