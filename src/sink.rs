//! Destinations of results outside the ledger database: Parquet files, Kafka topics and webhooks.

mod parquet;
mod topics;
mod webhooks;

pub use parquet::{Dataset, ParquetRow};
pub use topics::Relay;
pub use webhooks::WebhookSender;
