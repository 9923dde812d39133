//! The same on a GPU, by `cargo test --features cuda`, or `cuda,flash-attn` where its kernels are to be tested as well. Fails where there is
//! no GPU, since it would say nothing then.

use candle_core::{DType, Tensor};

use super::encoding::{self, models};
use super::fixture::{assert_golden, assert_golden_continuations, assert_near_golden, random, read, read_at_once};
use crate::decode::DecoderWeights;
use crate::decoder::tests::fixture::{FAMILIES, Random, assert_close, ids, random as of_family, to_f64};
use crate::decoder::tests::golden::cosine;
use crate::gpu::Accelerator;
use crate::gpu::memory_retry::within_memory;
use tidemill_base::config::ComputeDevice;

fn gpu(dtype: DType) -> Accelerator {
    let opened = Accelerator::open(ComputeDevice::Cuda(0));
    let accelerator = opened.unwrap_or_else(|e| panic!("these tests need a GPU: {e}")).expect("a GPU is an accelerator");
    accelerator.with_dtype(dtype)
}

#[test]
fn logits_and_states_in_f32_agree_with_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0", "llama-q4_k_m"] {
        assert_golden(model, &gpu(DType::F32), 1e-4);
    }
}

#[test]
fn greedy_continuations_in_f32_are_those_of_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3"] {
        assert_golden_continuations(model, &gpu(DType::F32));
    }
}

#[test]
fn bf16_stays_close_to_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0"] {
        assert_near_golden(model, &gpu(DType::BF16), 0.99);
    }
}

#[test]
fn chunks_of_any_size_stay_close_in_bf16() {
    let ids = ids(75, 5, 90);
    for family in FAMILIES {
        let decoder = random(&of_family(family), &gpu(DType::BF16));
        let whole = read_at_once(&decoder, &ids);
        for chunk in [1, 7, 32, 74] {
            let logits = read(&mut *decoder.clone().open(5).unwrap(), &ids, chunk, &[4, 0, 2]);
            for (row, (got, expected)) in logits.iter().zip(&whole).enumerate() {
                let cosine = cosine(got, expected);
                assert!(cosine >= 0.99, "{family} in chunks of {chunk}: cosine {cosine} of row {row}");
            }
        }
    }
}

#[test]
fn heads_of_every_width_with_a_kernel_stay_close_to_plain_loops() {
    let ids = ids(75, 3, 90);
    for (family, width) in FAMILIES.into_iter().flat_map(|family| [32, 64, 128].map(|width| (family, width))) {
        let mut model = Random { dtype: DType::BF16, ..of_family(family) };
        model.config["head_dim"] = width.into();
        let expected = model.plain(&ids);
        let exact = read_at_once(&random(&model, &gpu(DType::F32)), &ids);
        assert_close(&format!("{family}, {width}"), &exact, &expected, 1e-4);
        let coarse = read_at_once(&random(&model, &gpu(DType::BF16)), &ids);
        for (row, (got, expected)) in to_f64(&coarse).iter().zip(&expected).enumerate() {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine = dot(got, expected) / (dot(got, got) * dot(expected, expected)).sqrt();
            assert!(cosine >= 0.99, "{family}, {width}: cosine {cosine} of row {row}");
        }
    }
}

#[test]
fn encoders_agree_with_the_cpu_s_kernels() {
    for (what, model) in models() {
        let folder = model.write();
        encoding::assert_alike(what, folder.path(), &gpu(DType::F32), 0.99999);
        encoding::assert_alike(what, folder.path(), &gpu(DType::BF16), 0.99);
    }
}

#[test]
fn memory_that_runs_out_is_told_from_other_failures() {
    let accelerator = gpu(DType::F32);
    let free = accelerator.free_bytes().expect("a GPU says what is free");
    let error = Tensor::zeros(free, DType::F32, &accelerator.device).expect_err("four times the memory that is free");
    let pieces = within_memory(
        &[0],
        || accelerator.tidy(),
        |_| -> candle_core::Result<Tensor> { Tensor::zeros(free, DType::F32, &accelerator.device) },
    );
    assert!(pieces.unwrap()[0].outcome.is_none(), "{error} is taken for another failure");
    Tensor::zeros(1 << 20, DType::F32, &accelerator.device).expect("the device goes on");
}
