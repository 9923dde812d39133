//! The main job on embedded defaults: a broker in this process, a Postgres of its own, sample documents.

pub mod account;
mod cluster;
pub mod download;
pub mod postgres;
pub mod supervised;
