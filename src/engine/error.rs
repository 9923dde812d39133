//! Errors of loading models: one sentence with the file and the fix.

use std::path::PathBuf;

use tidemill_base::config::ConfigError;

/// A model folder or an engine setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("model {model}: the folder {} does not exist; set models.{model}.path to a Hugging Face model folder", path.display())]
    NoFolder { model: String, path: PathBuf },
    /// A file that every model folder has is missing.
    #[error("{} does not exist; copy the whole model folder: {fix}", path.display())]
    NoFile {
        path: PathBuf,
        /// What the file is for or where it comes from.
        fix: &'static str,
    },
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A file has unusable content.
    #[error("{}: {reason}", path.display())]
    Invalid {
        path: PathBuf,
        /// What is wrong, and how to fix it.
        reason: String,
    },
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A device cannot be used, or has failed.
    #[error("{device}: {reason}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// What is wrong, and how to fix it.
        reason: String,
    },
    /// `TIDEMILL_CPU` is set to an unknown level of instructions.
    #[error("{0}")]
    Processor(String),
    /// The operating system refuses to start a thread.
    #[error("cannot start the engine's threads: {0}; lower engine.threads or raise the process limit")]
    NoThreads(String),
}

/// Candle's message without the backtrace that it appends if `RUST_BACKTRACE` is set.
pub(super) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl EngineError {
    pub(super) fn invalid(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}
