//! The scheduler with tiny random models of every family, on this machine's cores and with candle's tensors, compared with the
//! output of Hugging Face transformers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use tokio::sync::mpsc::unbounded_channel;

use super::fake_decoder::{AnswerReceiver, answer};
use crate::decoder::Decoder;
use crate::folder::ModelFolder;
use crate::generation::sampler::normaliser;
use crate::generation::scheduler::{Scheduler, SchedulerLimits};
use crate::generation::sequence::{CompletionState, GenerationJob, GenerationTask, ScoringState};
use crate::generation::traits::{BLOCK_TOKENS, Decode, DecoderWeights, StepRow, Vocabulary, WantedLogits};
use crate::gpu::{Accelerator, GpuDecoder};
use crate::prompt::IncrementalText;
use crate::request::{Answer, Prediction, Priority, Sampling};

const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];
/// The longest first: it takes memory from the others as it grows.
const PROMPTS: [&str; 3] = ["long", "short", "mixed"];

#[derive(Debug, Clone, Copy)]
enum ComputeWith {
    Cores,
    Gpu,
}

const ALL_COMPUTE: [ComputeWith; 2] = [ComputeWith::Cores, ComputeWith::Gpu];

struct TinyModel {
    decoder: Arc<dyn DecoderWeights>,
    golden: HashMap<String, Tensor>,
}

/// Writes ids as numbers, none of which ends a turn, in the same way as the golden answers were made.
struct NumberVocabulary(Vec<String>);

impl Vocabulary for NumberVocabulary {
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators")
}

impl TinyModel {
    fn load(family: &str, on: ComputeWith) -> Self {
        let mut folder = ModelFolder::open(family, &fixtures().join(family)).unwrap();
        let decoder: Arc<dyn DecoderWeights> = match on {
            ComputeWith::Cores => Arc::new(Decoder::load(&mut folder, None).unwrap()),
            ComputeWith::Gpu => Arc::new(GpuDecoder::load(&mut folder, None, &Accelerator::on_cpu(DType::F32)).unwrap()),
        };
        let golden = fixtures().join(format!("golden/{family}.safetensors"));
        Self { decoder, golden: candle_core::safetensors::load(golden, &Device::Cpu).unwrap() }
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.golden[name].to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect()
    }

    fn scheduler(&self, blocks: usize, rows: usize, step_tokens: usize) -> Scheduler<Box<dyn Decode>> {
        let decoder = self.decoder.clone().open(blocks).unwrap();
        let numbers = (0..self.decoder.shape().vocabulary).map(|id| format!("{id} ")).collect();
        Scheduler::new(decoder, Arc::new(NumberVocabulary(numbers)), SchedulerLimits { rows, step_tokens })
    }
}

fn submit(scheduler: &mut Scheduler<Box<dyn Decode>>, group: &str, prompt: &[u32], task: GenerationTask) -> AnswerReceiver {
    let (reply, answers) = unbounded_channel();
    let (group, prompt) = (group.into(), prompt.to_vec().into());
    scheduler.submit(GenerationJob { group, priority: Priority::Live, prompt, task, index: 0, reply, permit: None });
    answers
}

fn write(max_tokens: usize, sampling: Sampling) -> GenerationTask {
    GenerationTask::Complete(CompletionState::new(max_tokens, sampling, &[], None, IncrementalText::default()))
}

fn run(scheduler: &mut Scheduler<Box<dyn Decode>>) {
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
    for (family, on) in FAMILIES.into_iter().flat_map(|family| ALL_COMPUTE.map(|on| (family, on))) {
        let tiny = TinyModel::load(family, on);
        let mut preemptions = 0;
        // The last one has memory for about one of the three prompts.
        for (blocks, rows, step_tokens) in [(64, 8, 512), (64, 8, 7), (64, 1, 64), (9, 8, 33)] {
            let mut scheduler = tiny.scheduler(blocks, rows, step_tokens);
            let waiting = PROMPTS
                .map(|name| submit(&mut scheduler, "task", &tiny.ids(&format!("{name}.ids")), write(64, Sampling::default())));
            run(&mut scheduler);
            for (name, mut waiting) in PROMPTS.into_iter().zip(waiting) {
                let (got, _) = written(&answer(&mut waiting));
                let case = format!("{family}, {on:?}, {name}, {blocks} blocks, {rows} rows, {step_tokens} tokens a step");
                assert_eq!(got, tiny.ids(&format!("{name}.greedy")), "{case}");
            }
            preemptions += scheduler.take_counts().preemptions;
        }
        assert!(preemptions > 0, "{family}, {on:?}: nothing was preempted");
    }
}

#[test]
fn prefixes_batches_and_interruptions_change_nothing() {
    for (family, on) in FAMILIES.into_iter().flat_map(|family| ALL_COMPUTE.map(|on| (family, on))) {
        let tiny = TinyModel::load(family, on);
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
                assert_alike(&format!("{family}, {on:?}, {blocks} blocks, {step_tokens} tokens a step"), &answer(waiting), alone);
            }
            let counts = scheduler.take_counts();
            assert!(counts.prefix_tokens_saved >= 75, "{family}, {on:?}: the prefix was not kept");
            assert_eq!(counts.preemptions > 0, blocks == 10, "{family}, {on:?}: {} preemptions", counts.preemptions);
        }
    }
}

#[test]
fn scores_are_the_sums_that_one_pass_over_each_answer_gives() {
    for (family, on) in FAMILIES.into_iter().flat_map(|family| ALL_COMPUTE.map(|on| (family, on))) {
        let tiny = TinyModel::load(family, on);
        for length in [31, 32, 33, 50] {
            let prompt = &tiny.ids("mixed.ids")[..length];
            let answers: Vec<Arc<[u32]>> = (1..=6).map(|i| tiny.ids("long.ids")[i..3 * i].into()).collect();
            let mut scheduler = tiny.scheduler(16, 8, 16);
            let mut waiting = submit(&mut scheduler, "task", prompt, GenerationTask::Score(ScoringState::new(answers.clone())));
            run(&mut scheduler);
            let Prediction::Scores(scores) = answer(&mut waiting).prediction else { panic!("scores were expected") };
            for (ids, score) in answers.iter().zip(scores) {
                let expected = exact(&tiny.decoder, prompt, ids);
                let tolerance = 1e-3 * ids.len() as f32;
                assert!((score - expected).abs() < tolerance, "{family}, {on:?}, {length}: expected {expected}, got {score}");
            }
        }
    }
}

/// The logarithm of the probability of `ids` after `prompt`, from one forward pass over both.
fn exact(decoder: &Arc<dyn DecoderWeights>, prompt: &[u32], ids: &[u32]) -> f32 {
    let whole = [prompt, ids].concat();
    let blocks: Vec<u32> = (0..whole.len().div_ceil(BLOCK_TOKENS) as u32).collect();
    let mut decoder = decoder.clone().open(blocks.len()).unwrap();
    let row = StepRow { ids: &whole, past: 0, blocks: &blocks, wanted: WantedLogits::All };
    let logits = decoder.forward(&[row]).unwrap();
    (prompt.len()..whole.len())
        .map(|place| {
            let row = logits.row_ref(place - 1);
            row[whole[place] as usize] - normaliser(row).unwrap()
        })
        .sum()
}
