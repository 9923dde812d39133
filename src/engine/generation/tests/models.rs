//! The scheduler over tiny random models of every family, with what Hugging Face writes as the measure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use tokio::sync::mpsc::unbounded_channel;

use super::fake::{Answers, answer};
use crate::engine::decoder::{Decoder, KvCache};
use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::generation::ports::{BLOCK_TOKENS, Decode, Logits, StepRow, Vocabulary, Wanted};
use crate::engine::generation::sampler::normaliser;
use crate::engine::generation::scheduler::{Limits, Scheduler};
use crate::engine::generation::sequence::{Job, Task, Weighing, Writing};
use crate::engine::prompt::GrowingText;
use crate::engine::request::{Answer, Prediction, Priority, Sampling};

const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];
const PROMPTS: [&str; 3] = ["short", "mixed", "long"];

struct Tiny {
    decoder: Arc<Decoder>,
    golden: HashMap<String, Tensor>,
}

struct Resident {
    decoder: Arc<Decoder>,
    cache: KvCache,
}

impl Decode for Resident {
    fn blocks(&self) -> usize {
        self.cache.blocks()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        self.decoder.forward(&mut self.cache, rows)
    }
}

/// Ids written out as numbers, none of which ends a turn: so the golden answers were made.
struct Numbers(Vec<String>);

impl Vocabulary for Numbers {
    fn piece(&self, id: u32) -> &[u8] {
        self.0[id as usize].as_bytes()
    }

    fn ends(&self, _: u32) -> bool {
        false
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generators")
}

impl Tiny {
    fn load(family: &str) -> Self {
        let decoder = Decoder::load(&mut Folder::open(family, &fixtures().join(family)).unwrap(), None).unwrap();
        let golden = fixtures().join(format!("golden/{family}.safetensors"));
        Self { decoder: Arc::new(decoder), golden: candle_core::safetensors::load(golden, &Device::Cpu).unwrap() }
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.golden[name].to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect()
    }

    fn scheduler(&self, blocks: usize, rows: usize, step_tokens: usize) -> Scheduler<Resident> {
        let cache = self.decoder.cache(blocks).unwrap();
        let numbers = (0..self.decoder.shape().vocabulary).map(|id| format!("{id} ")).collect();
        let resident = Resident { decoder: self.decoder.clone(), cache };
        Scheduler::new(resident, Arc::new(Numbers(numbers)), Limits { rows, step_tokens })
    }
}

fn submit(scheduler: &mut Scheduler<Resident>, group: &str, prompt: &[u32], task: Task) -> Answers {
    let (reply, answers) = unbounded_channel();
    let (group, prompt) = (group.into(), prompt.to_vec().into());
    scheduler.submit(Job { group, priority: Priority::Live, prompt, task, index: 0, reply, room: None });
    answers
}

fn write(max_tokens: usize, sampling: Sampling) -> Task {
    Task::Write(Writing::new(max_tokens, sampling, &[], None, GrowingText::default()))
}

fn run(scheduler: &mut Scheduler<Resident>) {
    while !scheduler.is_idle() {
        scheduler.step().unwrap();
    }
}

/// The ids of an answer, and the logarithms of their probabilities.
fn written(answer: &Answer) -> (Vec<u32>, Vec<f32>) {
    let Prediction::Completion(completion) = &answer.prediction else { panic!("a completion was expected") };
    let ids = completion.text.split_whitespace().map(|id| id.parse().unwrap()).collect();
    (ids, completion.tokens.iter().map(|token| token.log_probability.unwrap()).collect())
}

fn assert_alike(what: &str, got: &Answer, expected: &Answer) {
    let ((got, likely), (expected, as_likely)) = (written(got), written(expected));
    assert_eq!(got, expected, "{what}");
    for (one, other) in likely.iter().zip(&as_likely) {
        assert!((one - other).abs() < 2e-4, "{what}: the logarithm of a probability is {one} and not {other}");
    }
}

#[test]
fn greedy_answers_are_those_of_hugging_face_however_they_are_scheduled() {
    for family in FAMILIES {
        let tiny = Tiny::load(family);
        let mut preemptions = 0;
        // The last has memory for about one of the three.
        for (blocks, rows, step_tokens) in [(64, 8, 512), (64, 8, 7), (64, 1, 64), (9, 8, 33)] {
            let mut scheduler = tiny.scheduler(blocks, rows, step_tokens);
            let waiting = PROMPTS
                .map(|name| submit(&mut scheduler, "task", &tiny.ids(&format!("{name}.ids")), write(64, Sampling::default())));
            run(&mut scheduler);
            for (name, mut waiting) in PROMPTS.into_iter().zip(waiting) {
                let (got, _) = written(&answer(&mut waiting));
                let case = format!("{family}, {name}, {blocks} blocks, {rows} rows, {step_tokens} tokens a step");
                assert_eq!(got, tiny.ids(&format!("{name}.greedy")), "{case}");
            }
            preemptions += scheduler.take_counts().preemptions;
        }
        assert!(preemptions > 0, "{family}: nothing was interrupted");
    }
}

#[test]
fn prefixes_batches_and_interruptions_change_nothing() {
    for family in FAMILIES {
        let tiny = Tiny::load(family);
        let long = tiny.ids("long.ids");
        let drawn = |seed| Sampling { temperature: 0.9, top_p: 0.95, top_k: 0, seed };
        let asks: Vec<(Vec<u32>, Sampling)> = (0..9_u32)
            .map(|i| {
                let own = long.iter().rev().skip(i as usize).take(5 + 7 * i as usize).copied();
                let prompt = long[..75].iter().copied().chain(own).collect();
                (prompt, if i % 2 == 0 { Sampling::default() } else { drawn(u64::from(i)) })
            })
            .collect();
        let alone: Vec<Answer> = asks
            .iter()
            .map(|(prompt, sampling)| {
                let mut scheduler = tiny.scheduler(32, 1, 512);
                let mut waiting = submit(&mut scheduler, "alone", prompt, write(40, *sampling));
                run(&mut scheduler);
                answer(&mut waiting)
            })
            .collect();
        for (blocks, step_tokens) in [(128, 512), (128, 11), (10, 64)] {
            let mut scheduler = tiny.scheduler(blocks, 16, step_tokens);
            let mut waiting: Vec<_> =
                asks.iter().map(|(prompt, sampling)| submit(&mut scheduler, "task", prompt, write(40, *sampling))).collect();
            run(&mut scheduler);
            for (alone, waiting) in alone.iter().zip(&mut waiting) {
                assert_alike(&format!("{family}, {blocks} blocks, {step_tokens} tokens a step"), &answer(waiting), alone);
            }
            let counts = scheduler.take_counts();
            assert!(counts.prefix_tokens_saved >= 75, "{family}: the prefix was not kept");
            assert_eq!(counts.preemptions > 0, blocks == 10, "{family}: {} interruptions", counts.preemptions);
        }
    }
}

#[test]
fn scores_are_the_sums_that_one_pass_over_each_answer_gives() {
    for family in FAMILIES {
        let tiny = Tiny::load(family);
        for length in [31, 32, 33, 50] {
            let prompt = &tiny.ids("mixed.ids")[..length];
            let answers: Vec<Arc<[u32]>> = (1..=6).map(|i| tiny.ids("long.ids")[i..3 * i].into()).collect();
            let mut scheduler = tiny.scheduler(16, 8, 16);
            let mut waiting = submit(&mut scheduler, "task", prompt, Task::Weigh(Weighing::new(answers.clone())));
            run(&mut scheduler);
            let Prediction::Scores(scores) = answer(&mut waiting).prediction else { panic!("scores were expected") };
            for (ids, score) in answers.iter().zip(scores) {
                let expected = exact(&tiny.decoder, prompt, ids);
                let tolerance = 1e-3 * ids.len() as f32;
                assert!((score - expected).abs() < tolerance, "{family}, {length}: expected {expected}, got {score}");
            }
        }
    }
}

/// The logarithm of the probability of `ids` after `prompt`, by one pass over both.
fn exact(decoder: &Decoder, prompt: &[u32], ids: &[u32]) -> f32 {
    let whole = [prompt, ids].concat();
    let blocks: Vec<u32> = (0..whole.len().div_ceil(BLOCK_TOKENS) as u32).collect();
    let mut cache = decoder.cache(blocks.len()).unwrap();
    let row = StepRow { ids: &whole, past: 0, blocks: &blocks, wanted: Wanted::All };
    let logits = decoder.forward(&mut cache, &[row]).unwrap();
    (prompt.len()..whole.len())
        .map(|place| {
            let row = logits.row_ref(place - 1);
            row[whole[place] as usize] - normaliser(row).unwrap()
        })
        .sum()
}
