//! Where results go besides the ledger's own tables.

mod parquet;
mod topics;

pub use parquet::{Dataset, ParquetRow};
pub use topics::Relay;
