//! Tests of the decoder: on random models against plain loops, and on the golden models of `tests/fixtures/generators`.

pub(in crate::engine) mod fixture;
pub(in crate::engine) mod golden;
mod loading;
mod metamorphic;
mod plain;
mod reference;
