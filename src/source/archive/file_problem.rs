//! The permanent problems of a Parquet file.

use parquet::errors::ParquetError;

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum FileProblem {
    /// A column does not match what the pipeline needs.
    Schema(String),
    /// The file is valid but not supported.
    Unsupported(String),
    Decoder(ParquetError),
}

impl From<ParquetError> for FileProblem {
    fn from(error: ParquetError) -> Self {
        Self::Decoder(error)
    }
}
