//! The error of a wrong setting.

/// A setting that cannot be used. The message names the setting and says how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
