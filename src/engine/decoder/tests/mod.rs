//! Tests of the decoder on tiny random models.
