//! Helpers for the tests of several tasks: a generator, documents and answers.

use serde_json::{Map, json};

use crate::document::Document;
use crate::engine::{Completion, Finish, GeneratedToken, ModelInfo, ModelKind, Prediction};
use crate::failure::{Failure, Poison};

pub(super) fn generator_info() -> ModelInfo {
    ModelInfo {
        name: "writer".into(),
        origin: "models/writer".into(),
        kind: ModelKind::Generator,
        architecture: "qwen3".into(),
        revision: "r1".into(),
        dimension: 8,
        max_tokens: 512,
        labels: Vec::new(),
        several_labels: false,
    }
}

pub(super) fn document(text: &str) -> Document {
    let metadata = json!({"brand": "Hazel"}).as_object().unwrap().clone();
    Document { id: "1".into(), version: 1, text: text.into(), metadata, fields: Map::new() }
}

/// A completion of these pieces, each a token with its log probability. If no piece has one, it is the completion of a server that
/// does not report log probabilities.
pub(super) fn completed(pieces: &[(&str, Option<f32>)]) -> Prediction {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for (piece, log_probability) in pieces {
        text.push_str(piece);
        tokens.push(GeneratedToken { end: text.len(), log_probability: *log_probability });
    }
    if pieces.iter().all(|(_, log_probability)| log_probability.is_none()) {
        tokens.clear();
    }
    Prediction::Completion(Completion { text, tokens, finish: Finish::Stop })
}

pub(super) fn poison(failure: Failure) -> Poison {
    match failure {
        Failure::Poison(poison) => poison,
        Failure::Transient(transient) => panic!("expected a poison failure, got {transient}"),
    }
}
