//! Where results go besides the ledger's own tables.

mod parquet;
mod topics;
mod webhooks;

pub use parquet::{Dataset, ParquetRow};
pub use topics::Relay;
pub use webhooks::WebhookSender;
