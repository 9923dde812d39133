//! Decoders in tensors, and how they read.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;

use crate::decode::{Decode, DecoderWeights};
use crate::decoder::tests::fixture::{Random, assert_close, to_f64};
use crate::decoder::tests::golden::{self, Golden, PROMPTS, cosine};
use crate::decoder::{BLOCK_TOKENS, StepRow, WantedLogits};
use crate::folder::ModelFolder;
use crate::gpu::cache::GpuKvCache;
use crate::gpu::{Accelerator, GpuDecoder};

/// Where the tests compute: exactly enough to be compared with other implementations.
pub(super) fn cpu() -> Accelerator {
    Accelerator::on_cpu(DType::F32)
}

/// One of the models that transformers has computed with.
fn golden(model: &str, accelerator: &Accelerator) -> Arc<GpuDecoder> {
    let (path, adapter) = golden::place(model);
    load(&path, adapter.as_deref(), accelerator)
}

/// A model of random weights.
pub(super) fn random(model: &Random, accelerator: &Accelerator) -> Arc<GpuDecoder> {
    load(model.write().path(), None, accelerator)
}

fn load(path: &Path, adapter: Option<&Path>, accelerator: &Accelerator) -> Arc<GpuDecoder> {
    Arc::new(GpuDecoder::load(&mut ModelFolder::open("tiny", path).unwrap(), adapter, accelerator).unwrap())
}

/// The logits after each token, read in chunks of `chunk` tokens through the blocks `blocks`.
pub(super) fn read(decoder: &mut dyn Decode, ids: &[u32], chunk: usize, blocks: &[u32]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    for (i, part) in ids.chunks(chunk).enumerate() {
        let row = StepRow { ids: part, past: i * chunk, blocks, wanted: WantedLogits::All };
        let step = decoder.forward(&[row]).unwrap();
        logits.extend((0..step.rows()).map(|row| step.row_ref(row).to_vec()));
    }
    logits
}

/// The logits after each token, read at once.
pub(super) fn read_at_once(decoder: &Arc<GpuDecoder>, ids: &[u32]) -> Vec<Vec<f32>> {
    let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
    read(&mut *decoder.clone().open(blocks.len()).unwrap(), ids, ids.len(), &blocks)
}

/// The `count` likeliest tokens after `ids`, each after those before it.
fn greedy(decoder: &Arc<GpuDecoder>, ids: &[u32], count: usize) -> Vec<u32> {
    let blocks: Vec<u32> = (0..(ids.len() + count).div_ceil(BLOCK_TOKENS) as u32).rev().collect();
    let mut decoder = decoder.clone().open(blocks.len()).unwrap();
    let (mut past, mut fresh, mut chosen) = (0, ids.to_vec(), Vec::new());
    while chosen.len() < count {
        let row = StepRow { ids: &fresh, past, blocks: &blocks, wanted: WantedLogits::Last };
        let logits = decoder.forward(&[row]).unwrap();
        let best = logits.row_ref(0).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
        past += fresh.len();
        fresh = vec![best];
        chosen.push(best);
    }
    chosen
}

/// Fails where the logits of a golden model, or its vectors after the last norm, are off by more than `tolerance` of the largest.
#[track_caller]
pub(super) fn assert_golden(model: &str, accelerator: &Accelerator, tolerance: f64) {
    let (decoder, golden) = (golden(model, accelerator), Golden::of(model));
    for prompt in PROMPTS {
        let ids = golden.integers(&format!("{prompt}.ids"));
        let what = format!("{model}, {prompt}");
        let expected = to_f64(&golden.rows(&format!("{prompt}.logits")));
        assert_close(&what, &golden.kept(prompt, &read_at_once(&decoder, &ids)), &expected, tolerance);
        // Quantized files have golden logits alone.
        if model.contains("-q") {
            continue;
        }
        let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
        let row = StepRow { ids: &ids, past: 0, blocks: &blocks, wanted: WantedLogits::All };
        let mut cache = GpuKvCache::new(accelerator, decoder.shape(), blocks.len()).unwrap();
        let states: Vec<Vec<f32>> =
            decoder.states(&mut cache, &[row]).unwrap().unwrap().to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        let expected = to_f64(&golden.rows(&format!("{prompt}.hidden")));
        assert_close(&format!("states of {what}"), &golden.kept(prompt, &states), &expected, tolerance);
    }
}

/// Fails where the likeliest tokens after a golden prompt are others than those of transformers.
#[track_caller]
pub(super) fn assert_golden_continuations(model: &str, accelerator: &Accelerator) {
    let (decoder, golden) = (golden(model, accelerator), Golden::of(model));
    for prompt in PROMPTS {
        let ids = golden.integers(&format!("{prompt}.ids"));
        assert_eq!(greedy(&decoder, &ids, 64), golden.integers(&format!("{prompt}.greedy")), "{model}, {prompt}");
    }
}

/// Fails where a golden model's logits point elsewhere: what coarser numbers give must still lie close.
#[track_caller]
pub(super) fn assert_near_golden(model: &str, accelerator: &Accelerator, least: f64) {
    let (decoder, golden) = (golden(model, accelerator), Golden::of(model));
    for prompt in PROMPTS {
        let got = golden.kept(prompt, &read_at_once(&decoder, &golden.integers(&format!("{prompt}.ids"))));
        for (row, expected) in got.iter().zip(golden.rows(&format!("{prompt}.logits"))) {
            let cosine = cosine(row, &expected);
            assert!(cosine >= least, "{model}, {prompt}: cosine {cosine} with the golden logits");
        }
    }
}
