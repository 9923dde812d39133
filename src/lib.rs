#![doc = include_str!("README.md")]

pub mod app;
pub mod broker;
pub mod cli;
pub mod copy;
pub mod dashboard;
pub mod demo;
pub mod explain;
pub mod jobs;
pub mod leads;
pub mod pipeline;
pub mod recommend;
pub mod search;
pub mod server;
pub mod sink;
pub mod source;
pub mod task;

pub use tidemill_base::{
    access, cache, checkpoint, config, did_you_mean, document, failpoint, failure, health, http, metrics, outcome, prompt,
    record, template, terminal, yaml,
};
pub use tidemill_engine as engine;
pub use tidemill_store as store;
