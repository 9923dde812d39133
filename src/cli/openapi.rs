//! `tidemill openapi`.

use crate::server;

/// Prints what `GET /openapi.json` serves.
pub fn run() {
    say!("{}", server::description());
}
