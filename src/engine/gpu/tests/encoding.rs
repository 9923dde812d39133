//! Encoders: the same rows as from the CPU's own kernels.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use super::fixture::cpu;
use crate::batch::TokenBatch;
use crate::decoder::tests::golden::cosine;
use crate::encoder::{Encode, Encoder};
use crate::folder::ModelFolder;
use crate::gpu::memory_retry::out_of_memory;
use crate::gpu::{Accelerator, GpuEncoder};
use crate::queued_sequence::QueuedSequence;
use crate::sentence_transformers::read_settings;
use crate::tests::fixture::{Tiny, bert, xlm_roberta};

/// Sequences of every length up to `longest`, and some of them more than once.
pub(super) fn batch(longest: usize, vocabulary: u32) -> TokenBatch {
    let (reply, _) = unbounded_channel();
    let permit = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
    let lengths = (1..=longest).chain([3, 3, longest, 17.min(longest)]);
    let waiting = lengths.enumerate().map(|(index, length)| {
        let ids = (0..length).map(|i| ((i * 31 + index * 17 + 7) as u32) % vocabulary).collect();
        QueuedSequence { ids, index, reply: reply.clone(), permit: permit.clone() }
    });
    TokenBatch::pack(0, waiting.collect())
}

/// The encoder of a folder on the CPU's kernels, and in tensors.
pub(super) fn both(path: &Path, accelerator: &Accelerator) -> (Encoder, GpuEncoder) {
    let mut folder = ModelFolder::open("tiny", path).unwrap();
    let (config, family) = folder.shape().unwrap();
    let pooling = if config.classifies() { None } else { Some(read_settings(&mut folder).unwrap().pooling) };
    let plain = Encoder::load(&mut folder, &config, family, pooling).unwrap();
    (plain, GpuEncoder::load(&mut folder, &config, family, pooling, accelerator).unwrap())
}

/// Fails where a row points elsewhere than the one of the CPU's own kernels.
#[track_caller]
pub(super) fn assert_alike(what: &str, path: &Path, accelerator: &Accelerator, least: f64) {
    let (plain, tensors) = both(path, accelerator);
    assert_eq!(plain.dimension(), tensors.dimension(), "{what}: components");
    let batch = batch(60, 60);
    let rows = plain.encode(&batch).unwrap().into_iter().zip(tensors.encode(&batch).unwrap());
    for (index, (expected, got)) in rows.enumerate() {
        let (expected, got) = (expected.unwrap(), got.unwrap());
        assert_eq!(expected.len(), got.len(), "{what}: row {index}");
        let cosine = cosine(&got, &expected);
        assert!(cosine >= least, "{what}: cosine {cosine} of row {index}");
    }
}

/// Encoders of both families with each kind of output.
pub(super) fn models() -> Vec<(&'static str, Tiny)> {
    vec![
        ("the mean", bert()),
        ("the first", xlm_roberta()),
        ("wide heads", Tiny { hidden: 96, heads: 3, ..bert() }),
        ("bert's classes", Tiny { classes: Some(3), prefix: "bert.", ..bert() }),
        ("roberta's classes", Tiny { classes: Some(3), prefix: "roberta.", ..xlm_roberta() }),
    ]
}

#[test]
fn rows_are_those_of_the_cpu_s_kernels() {
    for (what, model) in models() {
        assert_alike(what, model.write().path(), &cpu(), 0.99999);
    }
}

#[test]
fn rows_of_stored_models_are_those_of_the_cpu_s_kernels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    for model in ["tiny-bert-classifier", "tiny-xlm-roberta", "tiny-xlm-roberta-classifier"] {
        assert_alike(model, &folder.join(model), &cpu(), 0.99999);
    }
}

#[test]
fn bf16_stays_close() {
    for (what, model) in models() {
        assert_alike(what, model.write().path(), &Accelerator::on_cpu(DType::BF16), 0.99);
    }
}

#[test]
fn a_batch_gives_what_its_sequences_give_alone() {
    let model = bert().write();
    let (_, encoder) = both(model.path(), &cpu());
    let together = batch(40, 60);
    let rows = encoder.encode(&together).unwrap();
    for (waiting, row) in together.waiting.iter().zip(rows) {
        let alone = TokenBatch::pack(0, vec![waiting.clone()]);
        let alone = encoder.encode(&alone).unwrap().remove(0).unwrap();
        let worst = row.unwrap().iter().zip(alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "a sequence of {} tokens differs by {worst}", waiting.ids.len());
    }
}

#[test]
fn a_batch_that_is_too_much_for_the_memory_is_computed_in_pieces() {
    const LIMIT: usize = 50;
    let model = bert().write();
    let (_, encoder) = both(model.path(), &cpu());
    let whole = batch(60, 60);
    let mut attempts = 0;
    let rows = encoder.encode_with(&whole, |sequences| {
        attempts += 1;
        // Late in the pass, when all of its memory has been taken.
        let rows = encoder.run(sequences)?;
        if sequences.iter().map(|ids| ids.len()).sum::<usize>() > LIMIT { Err(out_of_memory()) } else { Ok(rows) }
    });
    let rows = rows.unwrap();
    assert_eq!(rows.len(), whole.waiting.len());
    assert!(attempts > whole.tokens() / LIMIT, "{} tokens went through in {attempts} attempts", whole.tokens());
    for ((waiting, row), alone) in whole.waiting.iter().zip(rows).zip(encoder.encode(&whole).unwrap()) {
        let tokens = waiting.ids.len();
        match row {
            Ok(row) => {
                assert!(tokens <= LIMIT, "{tokens} tokens fit into a memory of {LIMIT}");
                let worst = row.iter().zip(alone.unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "a sequence of {tokens} tokens differs by {worst}");
            }
            Err(poison) => {
                assert!(tokens > LIMIT, "{tokens} tokens are refused by a memory of {LIMIT}");
                assert!(poison.reason.contains(&format!("a sequence of {tokens} tokens alone")), "{}", poison.reason);
            }
        }
    }
}

#[test]
#[should_panic(expected = "a sequence longer than 66 positions")]
fn what_would_be_read_past_a_table_stops_the_device() {
    let model = bert().write();
    let (_, encoder) = both(model.path(), &cpu());
    let _ = encoder.encode(&batch(67, 60));
}
