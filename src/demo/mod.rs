//! The main job on embedded defaults: a broker in this process, a Postgres of its own, sample documents.

pub mod account;
mod cluster;
mod command;
pub mod download;
pub mod environment;
pub mod input;
pub mod postgres;
mod report;
mod stream;
pub mod supervised;

pub use command::{DemoArgs, Session, run};
pub use report::Report;
pub use stream::PARTITIONS;
