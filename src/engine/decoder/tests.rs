//! Tests of the decoder: on random models against plain loops, and on the golden models of `tests/fixtures/generators`.

pub(crate) mod fixture;
pub(crate) mod golden;
mod loading;
mod metamorphic;
mod plain;
mod reference;
