//! Decoders: as transformers, as plain loops, and the same however tokens are cut and whatever is read beside them.

use std::sync::Arc;

use candle_core::DType;

use super::fixture::{assert_golden, assert_golden_continuations, assert_near_golden, cpu, random, read, read_at_once};
use crate::decode::{Decode, DecoderWeights};
use crate::decoder::tests::fixture::{FAMILIES, Random, assert_close, ids, random as of_family, to_f64};
use crate::decoder::{Logits, StepRow, WantedLogits};
use crate::gpu::cache::GpuKvCache;
use crate::gpu::memory_retry::out_of_memory;
use crate::gpu::{Accelerator, GpuDecoder};

/// Products of other shapes add up in another order.
const ROUNDING: f64 = 1e-5;

#[test]
fn logits_and_states_agree_with_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0", "qwen2-q8_0", "llama-q4_k_m"] {
        assert_golden(model, &cpu(), 1e-4);
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0", "qwen2-q8_0", "llama-q4_k_m"] {
        assert_golden_continuations(model, &cpu());
    }
}

#[test]
fn bf16_stays_close_to_transformers() {
    for model in ["llama", "mistral", "qwen2", "qwen3", "qwen2-lora", "llama-q8_0"] {
        assert_near_golden(model, &Accelerator::on_cpu(DType::BF16), 0.99);
    }
}

#[test]
fn every_family_agrees_with_plain_loops() {
    let ids = ids(75, 3, 90);
    for family in FAMILIES {
        for dtype in [DType::F32, DType::BF16] {
            let model = Random { dtype, ..of_family(family) };
            assert_close(family, &read_at_once(&random(&model, &cpu()), &ids), &model.plain(&ids), 1e-5);
        }
    }
}

#[test]
fn chunks_of_any_size_agree() {
    let ids = ids(75, 5, 90);
    for family in FAMILIES {
        let decoder = random(&of_family(family), &cpu());
        let whole = to_f64(&read_at_once(&decoder, &ids));
        for chunk in [1, 7, 32, 74] {
            // Blocks in no order, so that a block's number says nothing about its place.
            let logits = read(&mut *decoder.clone().open(5).unwrap(), &ids, chunk, &[4, 0, 2]);
            assert_close(&format!("{family} in chunks of {chunk}"), &logits, &whole, ROUNDING);
        }
    }
}

#[test]
fn rows_read_together_agree_with_rows_read_alone() {
    let sequences: Vec<Vec<u32>> =
        [1, 2, 31, 32, 33, 64, 65, 90, 5, 17].iter().enumerate().map(|(seed, count)| ids(*count, seed as u64, 90)).collect();
    let blocks = |i: usize| -> Vec<u32> { (0..3).map(|block| (block * sequences.len() + i) as u32).collect() };
    let tables: Vec<Vec<u32>> = (0..sequences.len()).map(blocks).collect();
    for family in FAMILIES {
        let decoder = random(&of_family(family), &cpu());
        let alone: Vec<Vec<f32>> = sequences.iter().map(|ids| read_at_once(&decoder, ids).pop().unwrap()).collect();
        let mut together = decoder.clone().open(3 * sequences.len()).unwrap();
        let halves = sequences.iter().zip(&tables).map(|(ids, blocks)| {
            let ids = &ids[..ids.len() / 2];
            StepRow { ids, past: 0, blocks, wanted: WantedLogits::None }
        });
        let halves: Vec<StepRow<'_>> = halves.filter(|row| !row.ids.is_empty()).collect();
        assert_eq!(together.forward(&halves).unwrap().rows(), 0, "nobody wanted logits");
        let rest = sequences.iter().zip(&tables).map(|(ids, blocks)| {
            let past = ids.len() / 2;
            StepRow { ids: &ids[past..], past, blocks, wanted: WantedLogits::Last }
        });
        let logits = together.forward(&rest.collect::<Vec<_>>()).unwrap();
        let rows: Vec<Vec<f32>> = (0..sequences.len()).map(|row| logits.row_ref(row).to_vec()).collect();
        assert_close(family, &rows, &to_f64(&alone), ROUNDING);
    }
}

#[test]
fn rows_that_share_a_prefix_agree_with_full_reading() {
    let decoder = random(&of_family("mistral"), &cpu());
    let prefix = ids(50, 1, 90);
    let endings: Vec<Vec<u32>> = (2..5).map(|seed| ids(9 + seed as usize, seed, 90)).collect();
    let mut resident = decoder.clone().open(10).unwrap();
    let row = StepRow { ids: &prefix, past: 0, blocks: &[7, 3], wanted: WantedLogits::None };
    resident.forward(&[row]).unwrap();
    // The first block is shared; the second, which is half full, is copied for each row, one from another's copy.
    let tables = [[7, 0], [7, 9], [7, 5]];
    for (from, to) in [(3, 0), (3, 9), (9, 5)] {
        resident.copy_block(from, to);
    }
    let rows: Vec<StepRow<'_>> = endings
        .iter()
        .zip(&tables)
        .map(|(ids, blocks)| StepRow { ids, past: prefix.len(), blocks, wanted: WantedLogits::Last })
        .collect();
    let logits = resident.forward(&rows).unwrap();
    for (i, ending) in endings.iter().enumerate() {
        let full = read_at_once(&decoder, &[prefix.clone(), ending.clone()].concat()).pop().unwrap();
        assert_close(&format!("ending {i}"), &[logits.row_ref(i).to_vec()], &to_f64(&[full]), ROUNDING);
    }
}

/// A decoder with a cache that can be looked into.
fn with_cache(family: &str, blocks: usize) -> (Arc<GpuDecoder>, GpuKvCache) {
    let decoder = random(&of_family(family), &cpu());
    let cache = GpuKvCache::new(&decoder.accelerator, decoder.shape(), blocks).unwrap();
    (decoder, cache)
}

#[test]
fn what_another_sequence_left_in_a_block_is_never_seen() {
    let (decoder, mut cache) = with_cache("qwen2", 2);
    let ids = ids(40, 9, 90);
    let fresh = to_f64(&read_at_once(&decoder, &ids));
    for layer in 0..decoder.shape().layers {
        let store = cache.layer(layer);
        for tensor in [&store.keys, &store.values] {
            let noise = tensor.zeros_like().unwrap().affine(0.0, f64::NAN).unwrap();
            tensor.slice_set(&noise, 0, 0).unwrap();
        }
    }
    let mut logits = Vec::new();
    for (i, part) in ids.chunks(7).enumerate() {
        let row = StepRow { ids: part, past: i * 7, blocks: &[0, 1], wanted: WantedLogits::All };
        let step = decoder.forward(&mut cache, &[row]).unwrap();
        logits.extend((0..step.rows()).map(|row| step.row_ref(row).to_vec()));
    }
    assert_close("over not-a-number", &logits, &fresh, ROUNDING);
}

/// Reads `rows` on a device that has memory for so many tokens of a step.
fn read_within(tokens: usize, decoder: &GpuDecoder, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> (Logits, usize) {
    let mut attempts = 0;
    let logits = decoder.forward_with(rows, |rows| {
        attempts += 1;
        // Late in the pass, when the keys and values of the new tokens are in the cache already.
        let logits = decoder.logits(cache, rows)?;
        if rows.iter().map(|row| row.ids.len()).sum::<usize>() > tokens { Err(out_of_memory()) } else { Ok(logits) }
    });
    (logits.unwrap(), attempts)
}

#[test]
fn a_step_that_is_too_much_for_the_memory_is_computed_in_pieces() {
    let (decoder, mut cache) = with_cache("llama", 12);
    let sequences: Vec<Vec<u32>> = (0..4).map(|seed| ids(10 + seed as usize, seed, 90)).collect();
    let tables: Vec<[u32; 1]> = (0..4).map(|i| [i]).collect();
    let rows: Vec<StepRow<'_>> =
        sequences.iter().zip(&tables).map(|(ids, blocks)| StepRow { ids, past: 0, blocks, wanted: WantedLogits::Last }).collect();
    let (logits, attempts) = read_within(25, &decoder, &mut cache, &rows);
    assert_eq!((attempts, logits.rows(), logits.refused()), (4, 4, &[][..]), "twice all of it, then its halves");
    for (i, ids) in sequences.iter().enumerate() {
        let alone = read_at_once(&decoder, ids).pop().unwrap();
        assert_close(&format!("row {i}"), &[logits.row_ref(i).to_vec()], &to_f64(&[alone]), ROUNDING);
    }
}

#[test]
fn a_row_that_is_too_much_alone_is_refused_and_the_others_are_read() {
    let (decoder, mut cache) = with_cache("qwen3", 12);
    let sequences = [ids(5, 1, 90), ids(30, 2, 90), ids(6, 3, 90)];
    let tables = [[0], [1], [2]];
    let wanted = [WantedLogits::Last, WantedLogits::All, WantedLogits::Last];
    let rows: Vec<StepRow<'_>> =
        (0..3).map(|i| StepRow { ids: &sequences[i], past: 0, blocks: &tables[i], wanted: wanted[i] }).collect();
    let (logits, _) = read_within(12, &decoder, &mut cache, &rows);
    assert_eq!((logits.refused(), logits.rows()), (&[1][..], 32));
    for (row, ids) in [(0, &sequences[0]), (31, &sequences[2])] {
        let alone = read_at_once(&decoder, ids).pop().unwrap();
        assert_close(&format!("row {row}"), &[logits.row_ref(row).to_vec()], &to_f64(&[alone]), ROUNDING);
    }
    assert!(logits.row_ref(1).iter().all(|logit| logit.is_nan()), "a refused row has no logits that could be taken for some");
}

#[test]
fn weights_and_blocks_are_counted_in_the_device_s_numbers() {
    let model = of_family("llama");
    let wide = random(&model, &cpu());
    let half = random(&model, &Accelerator::on_cpu(DType::BF16));
    assert_eq!((wide.bytes(), wide.block_bytes()), (2 * half.bytes(), 2 * half.block_bytes()));
    // 3 layers, 2 heads of 10 components, keys and values, 32 tokens, 4 bytes.
    assert_eq!(wide.block_bytes(), 3 * 2 * 10 * 2 * 32 * 4);
}
