//! Reduces requests to the distinct work they need, and assembles answers from the results.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::error::panic_text;
use super::generation::TokenizedRequest;
use super::model::{EncoderModel, GeneratorModel, Model, ModelRuntime};
use super::model_info::ModelKind;
use super::queued_sequence::EncoderRow;
use super::request::{Answer, Chunking, EncodedChunk, EncodedText, Prediction, Request, TextKind, Work};
use super::text_tokenizer::TextChunk;
use tidemill_base::failure::{Failure, FailureClass, Poison};

/// The distinct work of a call, and where each answer comes from.
#[derive(Default)]
pub(super) struct CallPlan {
    /// For encoders: each distinct sequence, with its model's index in the engine's list.
    pub(super) sequences: Vec<(usize, Arc<[u32]>)>,
    /// For generators: each distinct request, with its model's index.
    pub(super) jobs: Vec<(usize, TokenizedRequest)>,
    /// For servers: each distinct request, with its model's index.
    pub(super) remote: Vec<(usize, Request)>,
    answers: Vec<Result<AnswerSource, Failure>>,
}

/// Where an answer comes from.
enum AnswerSource {
    Encoded(EncodingPlan),
    Generated(SharedResult),
    Remote(SharedResult),
}

/// The result of a generator or server, shared by all equal requests of the call.
#[derive(Clone, Copy)]
struct SharedResult {
    /// The index of the work in the plan.
    place: usize,
    /// Whether this is the first request that uses the result. Only that one is charged for tokens and time.
    is_first_use: bool,
}

struct EncodingPlan {
    texts: Vec<Vec<ChunkSource>>,
    classify: bool,
}

struct ChunkSource {
    chunk: TextChunk,
    /// The index in [`CallPlan::sequences`].
    sequence: usize,
    /// Whether this is the first chunk that uses the sequence. Only that one is charged for tokens and time.
    is_first_use: bool,
}

/// The work that is already in the plan, with its index.
#[derive(Default)]
struct SeenWork {
    sequences: HashMap<(usize, Arc<[u32]>), usize>,
    shared: HashMap<(usize, String), SharedResult>,
}

impl CallPlan {
    /// Tokenizes the requests. Long texts take long, so never call this on an async thread.
    pub(super) fn make(models: &[Model], requests: &[Request]) -> Self {
        let mut plan = Self::default();
        let mut seen = SeenWork::default();
        for request in requests {
            let answer = plan.add(models, request, &mut seen);
            plan.answers.push(answer);
        }
        plan
    }

    fn add(&mut self, models: &[Model], request: &Request, seen: &mut SeenWork) -> Result<AnswerSource, Failure> {
        let index = models
            .iter()
            .position(|model| model.info.name == request.model)
            .ok_or_else(|| refuse(format!("there is no model {:?}; name one of the configuration's models", request.model)))?;
        let model = &models[index];
        if let ModelRuntime::Encoder(encoder_model) = &model.runtime {
            let texts = tokenize(model, encoder_model, request)?;
            return Ok(AnswerSource::Encoded(self.encode(index, texts, request, seen)));
        }
        // The work without the group, which does not affect the answer.
        let key = (index, serde_json::to_string(&request.work).map_err(|e| refuse(format!("the request cannot be read: {e}")))?);
        let shared = match seen.shared.get(&key) {
            Some(shared) => SharedResult { is_first_use: false, ..*shared },
            None => {
                let place = match &model.runtime {
                    ModelRuntime::Generator(generator) => {
                        self.jobs.push((index, prepare(model, generator, request)?));
                        self.jobs.len() - 1
                    }
                    ModelRuntime::Remote(_) | ModelRuntime::Encoder(_) => {
                        self.remote.push((index, request.clone()));
                        self.remote.len() - 1
                    }
                };
                let shared = SharedResult { place, is_first_use: true };
                seen.shared.insert(key, shared);
                shared
            }
        };
        Ok(if matches!(model.runtime, ModelRuntime::Remote(_)) {
            AnswerSource::Remote(shared)
        } else {
            AnswerSource::Generated(shared)
        })
    }

    fn encode(&mut self, model: usize, texts: Vec<Vec<TextChunk>>, request: &Request, seen: &mut SeenWork) -> EncodingPlan {
        let mut place = |chunk: TextChunk| {
            let key = (model, chunk.ids.clone());
            let next = self.sequences.len();
            let sequence = *seen.sequences.entry(key.clone()).or_insert(next);
            if sequence == next {
                self.sequences.push(key);
            }
            ChunkSource { chunk, sequence, is_first_use: sequence == next }
        };
        let texts = texts.into_iter().map(|chunks| chunks.into_iter().map(&mut place).collect()).collect();
        EncodingPlan { texts, classify: matches!(request.work, Work::Classify { .. }) }
    }
}

/// The results of a plan's work, in its order.
pub(super) struct WorkResults {
    pub(super) rows: Vec<Result<EncoderRow, Poison>>,
    pub(super) generated: Vec<Result<Answer, Failure>>,
    pub(super) remote: Vec<Result<Answer, Failure>>,
}

/// Assembles the answers of a plan after its work has been handed out.
pub(super) struct AnswerAssembler(Vec<Result<AnswerSource, Failure>>);

impl CallPlan {
    /// Splits off the assembler, so that the plan's work can be moved elsewhere.
    pub(super) fn take_assembler(&mut self) -> AnswerAssembler {
        AnswerAssembler(std::mem::take(&mut self.answers))
    }
}

impl AnswerAssembler {
    /// One answer or failure for each request, in order.
    pub(super) fn finish(self, results: &WorkResults) -> Vec<Result<Answer, Failure>> {
        let finish = |planned| match planned {
            AnswerSource::Encoded(answer) => answer.finish(&results.rows),
            AnswerSource::Generated(shared) => shared.finish(&results.generated),
            AnswerSource::Remote(shared) => shared.finish(&results.remote),
        };
        self.0.into_iter().map(|answer| answer.and_then(finish)).collect()
    }
}

impl SharedResult {
    fn finish(self, results: &[Result<Answer, Failure>]) -> Result<Answer, Failure> {
        let answer = results[self.place].clone()?;
        if self.is_first_use {
            return Ok(answer);
        }
        Ok(Answer { tokens: 0, generated: 0, device_micros: 0, ..answer })
    }
}

impl EncodingPlan {
    fn finish(self, rows: &[Result<EncoderRow, Poison>]) -> Result<Answer, Failure> {
        let (mut tokens, mut device_micros) = (0, 0);
        let mut texts = Vec::with_capacity(self.texts.len());
        for text in self.texts {
            let mut chunks = Vec::with_capacity(text.len());
            for ChunkSource { chunk, sequence, is_first_use } in text {
                let row = rows[sequence].as_ref().map_err(Poison::clone)?;
                if !row.values.iter().all(|value| value.is_finite()) {
                    return Err(Failure::poison(FailureClass::Model, "the model's answer holds a value that is not a number"));
                }
                let count = chunk.ids.len() as u32;
                if is_first_use {
                    tokens += count;
                    device_micros += row.device_micros;
                }
                chunks.push(EncodedChunk { span: chunk.span, tokens: count, vector: row.values.clone() });
            }
            texts.push(EncodedText { chunks });
        }
        let prediction = match texts.first().and_then(|text| text.chunks.first()) {
            Some(chunk) if self.classify => Prediction::Logits(chunk.vector.to_vec()),
            _ => Prediction::Vectors(texts),
        };
        Ok(Answer { prediction, tokens, generated: 0, device_micros })
    }
}

fn refuse(reason: String) -> Failure {
    Failure::poison(FailureClass::Model, reason)
}

/// The failure of a request that this kind of model cannot do.
fn mismatch(model: &Model) -> Failure {
    let (name, kind) = (&model.info.name, model.info.kind.as_str());
    refuse(format!("model {name:?} is of kind {kind} and cannot do this; use a model of the other kind"))
}

/// Runs a tokenizer, which is a foreign library: a panic on an unexpected text must not stop the stream.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| format!("the text cannot be tokenized: {}", panic_text(&*panic));
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| refuse(panicked(panic)))
}

fn prepare(model: &Model, generator: &GeneratorModel, request: &Request) -> Result<TokenizedRequest, Failure> {
    let context = model.info.max_tokens;
    match &request.work {
        Work::Generate(ask) => guarded(|| TokenizedRequest::generate(generator, context, ask))?,
        Work::Score(ask) => guarded(|| TokenizedRequest::score(generator, context, ask))?,
        Work::Encode { .. } | Work::Classify { .. } => Err(mismatch(model)),
    }
}

fn tokenize(model: &Model, encoder_model: &EncoderModel, request: &Request) -> Result<Vec<Vec<TextChunk>>, Failure> {
    let (texts, chunking, kind) = match (&request.work, model.info.kind) {
        (Work::Encode { texts, chunking, kind }, ModelKind::Encoder) => (texts.as_slice(), *chunking, *kind),
        (Work::Classify { text }, ModelKind::Classifier) => (std::slice::from_ref(text), Chunking::Truncate, TextKind::Plain),
        _ => return Err(mismatch(model)),
    };
    if texts.is_empty() {
        return Err(Failure::poison(FailureClass::EmptyText, "there is no text to encode"));
    }
    let chunk = || texts.iter().map(|text| encoder_model.tokenizer.prompted(text, chunking, kind)).collect::<Result<Vec<_>, _>>();
    let chunks = guarded(chunk)?.map_err(|e| refuse(format!("the text cannot be tokenized: {e}")))?;
    // A sequence without any token has no vector.
    let empty = chunks.iter().flatten().any(|chunk| chunk.ids.is_empty());
    if empty || !chunks.iter().flatten().any(|chunk| chunk.has_text) {
        let reason = match texts.len() {
            1 => "the text has no tokens: it consists of white space or control characters",
            _ => "one of the texts has no tokens, and its tokenizer adds no special tokens",
        };
        return Err(Failure::poison(FailureClass::EmptyText, reason));
    }
    Ok(chunks)
}
