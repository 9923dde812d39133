//! The models of `tests/fixtures/generators` against what transformers computed with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::fixture::{assert_close, load, read, read_at_once, to_f64};
use crate::decoder::{BLOCK_TOKENS, Decoder, StepRow, WantedLogits};

pub(crate) const PROMPTS: [&str; 3] = ["short", "mixed", "long"];

pub(crate) fn generators() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators")
}

pub(crate) struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub(crate) fn of(model: &str) -> Self {
        let path = generators().join(format!("golden/{model}.safetensors"));
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<u32> {
        self.0[name].to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect()
    }

    pub(crate) fn rows(&self, name: &str) -> Vec<Vec<f32>> {
        self.0[name].to_vec2().unwrap()
    }

    /// Those of `rows` that golden values were kept of.
    pub(crate) fn kept(&self, prompt: &str, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        self.integers(&format!("{prompt}.positions")).iter().map(|position| rows[*position as usize].clone()).collect()
    }
}

/// The folder or file of a golden model, and its adapter where it has one.
pub(crate) fn place(model: &str) -> (PathBuf, Option<PathBuf>) {
    match model {
        "qwen2-lora" => (generators().join("qwen2"), Some(generators().join(model))),
        model if model.contains("-q") => (generators().join(format!("{model}.gguf")), None),
        model => (generators().join(model), None),
    }
}

fn decoder(model: &str) -> Decoder {
    let (path, adapter) = place(model);
    load(&path, adapter.as_deref()).unwrap()
}

fn greedy(decoder: &Decoder, ids: &[u32], count: usize) -> Vec<u32> {
    let blocks: Vec<u32> = (0..(ids.len() + count).div_ceil(BLOCK_TOKENS) as u32).rev().collect();
    let mut cache = decoder.cache(blocks.len()).unwrap();
    let (mut past, mut fresh, mut chosen) = (0, ids.to_vec(), Vec::new());
    while chosen.len() < count {
        let row = StepRow { ids: &fresh, past, blocks: &blocks, wanted: WantedLogits::Last };
        let logits = decoder.forward(&mut cache, &[row]).unwrap();
        let best = logits.row_ref(0).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
        past += fresh.len();
        fresh = vec![best];
        chosen.push(best);
    }
    chosen
}

#[test]
fn logits_and_states_agree_with_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora"] {
        let (decoder, golden) = (decoder(model), Golden::of(model));
        for prompt in PROMPTS {
            let ids = golden.integers(&format!("{prompt}.ids"));
            let expected = to_f64(&golden.rows(&format!("{prompt}.logits")));
            let what = format!("{model}, {prompt}");
            assert_close(&what, &golden.kept(prompt, &read_at_once(&decoder, &ids)), &expected, 1e-4);
            let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
            let row = StepRow { ids: &ids, past: 0, blocks: &blocks, wanted: WantedLogits::All };
            let states = decoder.states(&mut decoder.cache(blocks.len()).unwrap(), &[row]);
            let states: Vec<Vec<f32>> = states.chunks_exact(decoder.shape().hidden).map(<[f32]>::to_vec).collect();
            let expected = to_f64(&golden.rows(&format!("{prompt}.hidden")));
            assert_close(&format!("states of {what}"), &golden.kept(prompt, &states), &expected, 1e-4);
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora"] {
        let (decoder, golden) = (decoder(model), Golden::of(model));
        for prompt in PROMPTS {
            let ids = golden.integers(&format!("{prompt}.ids"));
            assert_eq!(greedy(&decoder, &ids, 64), golden.integers(&format!("{prompt}.greedy")), "{model}, {prompt}");
        }
    }
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn quantized_files_give_what_their_weights_give() {
    for model in ["llama-q8_0", "qwen2-q8_0", "llama-q4_k_m"] {
        let (decoder, golden) = (decoder(model), Golden::of(model));
        for prompt in PROMPTS {
            let ids = golden.integers(&format!("{prompt}.ids"));
            let expected = to_f64(&golden.rows(&format!("{prompt}.logits")));
            let got = golden.kept(prompt, &read_at_once(&decoder, &ids));
            assert_close(&format!("{model}, {prompt}"), &got, &expected, 1e-4);
            assert_eq!(greedy(&decoder, &ids, 64), golden.integers(&format!("{prompt}.greedy")), "{model}, {prompt}");
        }
    }
}

#[test]
fn quantized_files_stay_close_to_the_weights_they_were_made_of() {
    for (file, folder) in [("llama-q8_0", "llama"), ("qwen2-q8_0", "qwen2")] {
        let (decoder, golden) = (decoder(file), Golden::of(folder));
        for prompt in PROMPTS {
            let ids = golden.integers(&format!("{prompt}.ids"));
            let got = golden.kept(prompt, &read_at_once(&decoder, &ids)).concat();
            let cosine = cosine(&got, &golden.rows(&format!("{prompt}.logits")).concat());
            assert!(cosine >= 0.999, "{file}, {prompt}: cosine {cosine} with the logits of the original");
        }
    }
}

#[test]
fn golden_models_are_read_alike_in_chunks_of_any_size() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0", "llama-q4_k_m"] {
        let (decoder, golden) = (decoder(model), Golden::of(model));
        let ids = golden.integers("long.ids");
        let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
        let whole = to_f64(&read_at_once(&decoder, &ids));
        for chunk in [1, 7, 32] {
            let logits = read(&decoder, &mut decoder.cache(blocks.len()).unwrap(), &ids, chunk, &blocks);
            assert_close(&format!("{model} in chunks of {chunk}"), &logits, &whole, 0.0);
        }
    }
}
