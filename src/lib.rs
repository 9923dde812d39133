//! Tidemill: language-model tasks over data streams, in micro-batches, each record exactly once.
//!
//! # The walk of one record
//!
//! | # | type | born in | meaning |
//! |---|---|---|---|
//! | 1 | [`record::Record`] | [`source`] | bytes with their place: topic, partition, offset |
//! | 2 | [`document::Document`] | [`document`] | decoded and identified: id, version, text, metadata |
//! | 3 | `MicroBatch` | [`pipeline`] | one partition's next records and the [`checkpoint::CheckpointDelta`] they cover |
//! | 4 | [`engine::Request`] | [`task`] `prepare` | what a model must do |
//! | 5 | `TokenBatch` | [`engine`] | tokens of many requests, packed without padding, cut by a budget |
//! | 6 | [`engine::Prediction`] | [`engine`] | vectors or logits |
//! | 7 | [`outcome::Output`] | [`task`] `interpret` | labels, fields, summary, embedding or text |
//! | 8 | [`outcome::Outcome`] | [`pipeline`] | an output, a reuse, a skip or a dead letter: one for each record and task |
//! | 9 | [`store::StagedFile`] | [`sink`] | durable and invisible |
//! | 10 | [`store::Submission`] | [`pipeline`] | one Postgres transaction makes the batch true and moves the position |
//! | 11 | a commit to Kafka, events on topics | [`source`], [`sink`] | hints and news, after the fact |
//!
//! # The house
//!
//! A file imports from lower floors only, and rooms on one floor do not know each other; a test reads every import.
//!
//! | floor | rooms |
//! |---|---|
//! | 6 | [`app`] builds and runs everything, [`cli`] a file a command, [`demo`] embedded broker and Postgres |
//! | 5 | [`server`] HTTP, a file an endpoint |
//! | 4 | [`dashboard`] what people see of pipelines, [`copy`] copy that people decide on, [`jobs`] work beside the streams, [`search`] questions to hits, [`recommend`] what somebody may like next, [`leads`] who promises most and why, [`explain`] where an output comes from |
//! | 3 | [`pipeline`] definition, task graph, batcher, lanes, committer |
//! | 2 | [`source`] records in, [`task`] what to ask and what it means, [`sink`] files and topics out |
//! | 1 | [`engine`] the model host, [`store`] every line of SQL, [`broker`] the door to Kafka |
//! | 0 | the words all share: [`access`], [`record`], [`document`], [`outcome`], [`checkpoint`], [`failure`], [`health`], [`config`], [`metrics`], [`template`], [`prompt`], [`did_you_mean`], [`yaml`], [`http`], [`cache`]; below [`engine`] alone the arithmetic of `kernels` |
//!
//! `src/kernels`, `src/base`, `src/engine` and `src/store` are packages of their own, handed on below by the names of their rooms.
//!
//! # To add, touch only
//!
//! | | |
//! |---|---|
//! | a pipeline | a file in `pipelines/` |
//! | a task kind | `task/<kind>.rs` and one line in `task/mod.rs` |
//! | a model architecture | one file in `engine/` and one arm where `config.json` is read |
//! | a source or sink | `source/<name>.rs` or `sink/<name>.rs` and one arm |
//! | an endpoint | `server/<name>.rs`, one route, one query in `store/` |
//! | a command | `cli/<name>.rs` and one variant in `cli.rs` |

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
    record, template, yaml,
};
pub use tidemill_engine as engine;
pub use tidemill_store as store;
