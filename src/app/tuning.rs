//! Where measured token budgets are kept between starts.

use std::path::PathBuf;

use crate::cache;

/// The folder of what this machine has fetched and measured; none where there is no such folder, and then each start measures.
pub fn folder() -> Option<PathBuf> {
    let found = cache::folder();
    if let Err(error) = &found {
        tracing::info!(reason = format!("{error:#}"), "measured token budgets are not kept");
    }
    found.ok()
}
