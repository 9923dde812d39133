//! `tidemill openapi`.

use crate::server;

/// Prints the description of the HTTP API, as `GET /openapi.json` serves it.
pub fn run() {
    say!("{}", server::description());
}
