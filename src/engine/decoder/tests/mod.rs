//! Tests of the decoder: on random models against plain loops, and on the golden models of `tests/fixtures/generators`.

mod fixture;
mod metamorphic;
mod plain;
mod reference;
