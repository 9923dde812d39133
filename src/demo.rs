//! Embedded defaults: a Kafka broker in this process, a private Postgres, a small encoder, and runs over sample documents.

pub mod child_process;
pub mod defaults;
pub mod download;
mod embedded_broker;
pub mod input;
pub mod os_user;
pub mod postgres;
mod postgres_cluster;
mod report;
mod session;

pub use embedded_broker::PARTITIONS;
pub use report::DemoReport;
pub use session::DemoSession;
