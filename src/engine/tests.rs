//! Tests of the model host on tiny random models.

mod chunking;
mod devices;
pub(super) mod fixture;
mod folders;
mod generating;
mod levels;
mod loading;
mod quoting;
mod reference;
pub(super) mod server;
mod serving;
