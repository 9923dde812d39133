//! Random decoders against plain loops on the same weights.

use candle_core::DType;

use super::fixture::{FAMILIES, Random, assert_close, ids, random, read_at_once};

fn assert_agrees(what: &str, model: &Random) {
    let ids = ids(75, 3, 90);
    assert_close(what, &read_at_once(&model.decoder(), &ids), &model.plain(&ids), 1e-5);
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

/// Matrices this large are multiplied in bf16 where the processor can, inputs included.
#[test]
fn a_wide_model_in_half_precision_says_what_the_exact_one_says() {
    let mut model = Random { dtype: DType::BF16, ..random("qwen3") };
    for (size, value) in [("hidden_size", 336), ("intermediate_size", 480)] {
        model.config[size] = value.into();
    }
    let ids = ids(40, 3, 90);
    for (row, (got, expected)) in read_at_once(&model.decoder(), &ids).iter().zip(model.plain(&ids)).enumerate() {
        let product = |a: &dyn Fn(usize) -> f64, b: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| a(i) * b(i)).sum::<f64>();
        let (got, exact) = (|i: usize| f64::from(got[i]), |i: usize| expected[i]);
        let cosine = product(&got, &exact) / (product(&got, &got) * product(&exact, &exact)).sqrt();
        assert!(cosine >= 0.9995, "row {row}: cosine {cosine}");
    }
}
