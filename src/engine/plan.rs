//! From requests to the distinct sequences they need, and from rows back to answers.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::batch::Row;
use super::device::panic_text;
use super::model::{Model, ModelKind};
use super::request::{Answer, Chunking, EncodedChunk, EncodedText, Prediction, Request, Work};
use super::tokens::TextChunk;
use crate::failure::{Failure, FailureClass};

/// The distinct sequences of a call and how its answers are put together from their rows.
pub(super) struct Plan {
    /// Each sequence once, with its model's place in the engine's list.
    pub(super) sequences: Vec<(usize, Arc<[u32]>)>,
    answers: Vec<Result<PlannedAnswer, Failure>>,
}

struct PlannedAnswer {
    texts: Vec<Vec<PlannedChunk>>,
    classify: bool,
}

struct PlannedChunk {
    chunk: TextChunk,
    /// The place in [`Plan::sequences`].
    sequence: usize,
    /// Whether this is the first use of the sequence, the one that pays for it.
    pays: bool,
}

impl Plan {
    /// Tokenizes the requests. Runs for as long as the texts are long, so never on an async thread.
    pub(super) fn make(models: &[Model], requests: &[Request]) -> Self {
        let mut known: HashMap<(usize, Arc<[u32]>), usize> = HashMap::new();
        let mut sequences = Vec::new();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(tokenize(models, request).map(|(model, texts)| {
                let place = |chunk: TextChunk| {
                    let key = (model, chunk.ids.clone());
                    let next = sequences.len();
                    let sequence = *known.entry(key.clone()).or_insert(next);
                    if sequence == next {
                        sequences.push(key);
                    }
                    PlannedChunk { chunk, sequence, pays: sequence == next }
                };
                let mut place = place;
                let texts = texts.into_iter().map(|chunks| chunks.into_iter().map(&mut place).collect()).collect();
                PlannedAnswer { texts, classify: matches!(request.work, Work::Classify { .. }) }
            }));
        }
        Self { sequences, answers }
    }

    /// Puts the answers together; `rows` are those of [`Plan::sequences`], in order.
    pub(super) fn finish(self, rows: &[Row]) -> Vec<Result<Answer, Failure>> {
        self.answers.into_iter().map(|answer| answer.and_then(|answer| answer.finish(rows))).collect()
    }
}

impl PlannedAnswer {
    fn finish(self, rows: &[Row]) -> Result<Answer, Failure> {
        let (mut tokens, mut device_micros) = (0, 0);
        let mut texts = Vec::with_capacity(self.texts.len());
        for text in self.texts {
            let mut chunks = Vec::with_capacity(text.len());
            for PlannedChunk { chunk, sequence, pays } in text {
                let row = &rows[sequence];
                if !row.values.iter().all(|value| value.is_finite()) {
                    return Err(Failure::poison(FailureClass::Model, "the model's answer holds a value that is no number"));
                }
                let count = chunk.ids.len() as u32;
                if pays {
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

fn tokenize(models: &[Model], request: &Request) -> Result<(usize, Vec<Vec<TextChunk>>), Failure> {
    let refuse = |reason: String| Failure::poison(FailureClass::Model, reason);
    let index = models.iter().position(|model| model.info.name == request.model);
    let Some(index) = index else {
        return Err(refuse(format!("there is no model {:?}; name one of the configuration's models", request.model)));
    };
    let model = &models[index];
    let (texts, chunking) = match (&request.work, model.info.kind) {
        (Work::Encode { texts, chunking }, ModelKind::Encoder) => (texts.as_slice(), *chunking),
        (Work::Classify { text }, ModelKind::Classifier) => (std::slice::from_ref(text), Chunking::Truncate),
        (_, kind) => {
            let reason = format!(
                "model {:?} is of kind {} and cannot do this; use a model of the other kind",
                request.model,
                kind.as_str()
            );
            return Err(refuse(reason));
        }
    };
    if texts.is_empty() {
        return Err(Failure::poison(FailureClass::EmptyText, "there is no text to encode"));
    }
    // The tokenizer is not ours: what it cannot digest must not stop the stream.
    let tokenized = catch_unwind(AssertUnwindSafe(|| {
        texts.iter().map(|text| model.tokenizer.chunks(text, chunking)).collect::<Result<Vec<_>, _>>()
    }));
    let chunks = match tokenized {
        Ok(Ok(chunks)) => chunks,
        Ok(Err(e)) => return Err(refuse(format!("the text cannot be tokenized: {e}"))),
        Err(panic) => return Err(refuse(format!("the text cannot be tokenized: {}", panic_text(&*panic)))),
    };
    let special = model.tokenizer.special();
    if chunks.iter().flatten().all(|chunk| chunk.ids.len() <= special) {
        let reason = "the text holds nothing that the model reads, only white space or control characters";
        return Err(Failure::poison(FailureClass::EmptyText, reason));
    }
    Ok((index, chunks))
}
