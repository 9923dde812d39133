//! Why a model could not be loaded: one sentence with the file and the mend.

use std::path::PathBuf;

use tidemill_base::config::ConfigError;

/// A model folder or engine setting that does not work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The folder is not there.
    #[error("model {model}: the folder {} does not exist; set models.{model}.path to a Hugging Face model folder", path.display())]
    NoFolder {
        /// The model's name in the configuration.
        model: String,
        /// The folder.
        path: PathBuf,
    },
    /// A file that every model folder has is not there.
    #[error("{} does not exist; copy the whole model folder, {fix}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What the file is for or where it comes from.
        fix: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there and is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the mend.
        reason: String,
    },
    /// A setting that cannot be used.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A device that cannot be used, or that failed.
    #[error("{device}: {reason}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// What is wrong, and the mend.
        reason: String,
    },
    /// The environment names no level of the processor.
    #[error("{0}")]
    Processor(String),
    /// The operating system gives no thread.
    #[error("cannot start the engine's threads: {0}; lower engine.threads or raise the process limit")]
    NoThreads(String),
}

/// What candle says, without the backtrace that it appends where `RUST_BACKTRACE` is set.
pub(super) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl EngineError {
    /// A file that is not what it should be.
    pub(super) fn invalid(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}
