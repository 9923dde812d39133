//! Tidemill.
pub mod checkpoint;
pub mod config;
pub mod demo;
pub mod document;
pub mod engine;
pub mod failure;
pub mod health;
pub mod metrics;
pub mod nearest;
pub mod outcome;
pub mod pipeline;
pub mod record;
pub mod server;
pub mod sink;
pub mod source;
pub mod store;
pub mod task;
