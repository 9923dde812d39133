//! Types that all of Tidemill shares: records and documents, outcomes and failures, configuration, templates, metrics.

pub mod access;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod did_you_mean;
pub mod document;
pub mod failpoint;
pub mod failure;
pub mod health;
pub mod http;
pub mod metrics;
pub mod outcome;
pub mod prompt;
pub mod record;
pub mod template;
pub mod terminal;
pub mod yaml;
