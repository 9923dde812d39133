//! The HTTP server: where it listens, who may ask, and how much.

use std::path::PathBuf;

use serde::Deserialize;

/// The HTTP server.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port; loopback unless a token is set or the ledger holds some.
    pub listen: String,
    /// The operator's token, which may do everything. Never printed.
    pub token: Option<String>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// A token for Prometheus: it opens `/metrics` and nothing else. Never printed.
    pub metrics_token: Option<String>,
    /// A file that holds it.
    pub metrics_token_file: Option<PathBuf>,
    /// What callers may take of the server.
    pub limits: ServerLimitsConfig,
}

/// What callers may take of the server, so that none takes it from the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimitsConfig {
    /// Connections that are open at a time.
    pub connections: usize,
    /// How many of them one address may hold. Behind a proxy every caller has the proxy's address.
    pub connections_per_address: usize,
    /// Seconds within which a request's headers must be there; a connection on which nothing is asked ends after as long.
    pub header_seconds: u64,
    /// Seconds from the headers to the answer, however slowly a body arrives.
    pub request_seconds: u64,
    /// Seconds for which a caller may take nothing of its answer.
    pub stall_seconds: u64,
    /// Requests a second, of a token, or of an address that carries none.
    pub requests_per_second: u32,
    /// Requests that may come at once after a pause.
    pub burst: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            token: None,
            token_file: None,
            metrics_token: None,
            metrics_token_file: None,
            limits: ServerLimitsConfig::default(),
        }
    }
}

impl Default for ServerLimitsConfig {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 128,
            header_seconds: 10,
            request_seconds: 30,
            stall_seconds: 30,
            requests_per_second: 100,
            burst: 200,
        }
    }
}

impl ServerLimitsConfig {
    /// The first setting with which nobody could be served, as a sentence.
    pub fn fault(&self) -> Option<String> {
        let settings = [
            ("connections", self.connections as u64),
            ("connections_per_address", self.connections_per_address as u64),
            ("header_seconds", self.header_seconds),
            ("request_seconds", self.request_seconds),
            ("stall_seconds", self.stall_seconds),
            ("requests_per_second", u64::from(self.requests_per_second)),
            ("burst", u64::from(self.burst)),
        ];
        let (name, _) = settings.into_iter().find(|(_, value)| *value == 0)?;
        Some(format!("`server.limits.{name}` is 0, with which nobody could be served; write 1 or more"))
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden = |token: &Option<String>| token.as_ref().map(|_| "<secret>");
        f.debug_struct("ServerConfig")
            .field("listen", &self.listen)
            .field("token", &hidden(&self.token))
            .field("metrics_token", &hidden(&self.metrics_token))
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
