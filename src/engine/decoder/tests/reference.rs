//! Random decoders against plain loops on the same weights.

use candle_core::DType;

use super::fixture::{FAMILIES, Random, assert_close, ids, random, read_at_once};

fn assert_agrees(what: &str, model: &Random) {
    let ids = ids(75, 3, 90);
    // Where the processor multiplies bf16 in tiles, inputs are rounded to bf16, too.
    let tolerance = if model.dtype == DType::BF16 { 2e-2 } else { 1e-5 };
    assert_close(what, &read_at_once(&model.decoder(), &ids), &model.plain(&ids), tolerance);
}

#[test]
fn every_family_agrees_with_plain_loops() {
    for family in FAMILIES {
        assert_agrees(family, &random(family));
    }
}

#[test]
fn half_precision_on_disk_is_read_without_loss() {
    for dtype in [DType::BF16, DType::F16] {
        assert_agrees(dtype.as_str(), &Random { dtype, ..random("qwen2") });
    }
}

#[test]
fn sharded_checkpoint_is_read_as_one() {
    assert_agrees("two shards", &Random { shards: 2, ..random("llama") });
}
