//! Settings of the HTTP server: address, tokens and limits.

use std::path::PathBuf;

use serde::Deserialize;

/// The settings of the HTTP server.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port. Without any token it must be a loopback address.
    pub listen: String,
    /// The operator's token, which may do everything. Never printed.
    pub token: Option<String>,
    /// A file with the operator's token.
    pub token_file: Option<PathBuf>,
    /// A token for Prometheus, which may read `/metrics` and nothing else. Never printed.
    pub metrics_token: Option<String>,
    /// A file with the token for Prometheus.
    pub metrics_token_file: Option<PathBuf>,
    pub limits: ServerLimitsConfig,
}

/// Limits of callers, so that no caller keeps the server busy alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimitsConfig {
    /// The largest number of open connections.
    pub connections: usize,
    /// The largest number of open connections of one address. Behind a proxy every caller has the proxy's address.
    pub connections_per_address: usize,
    /// How long the headers of a request may take. An idle connection is closed after the same time.
    pub header_seconds: u64,
    /// How long a request may take from its headers to the answer, including a slow body.
    pub request_seconds: u64,
    /// How long a caller may stop reading its answer.
    pub stall_seconds: u64,
    /// Requests per second of one token, or of one address without a token.
    pub requests_per_second: u32,
    /// How many requests may come at once after a pause.
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
    /// A message for the first setting that is 0, with which no request could be served.
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
        Some(format!("`server.limits.{name}` is 0, with which no request could be served; write 1 or more"))
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
