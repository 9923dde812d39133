//! Outputs of generative models: typed fields with evidence, and texts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Output, Span, UnsupportedClaim};

/// The model's confidence in what it wrote, from the probabilities of the tokens before the schema ruled any out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// The geometric mean of the tokens' probabilities.
    pub mean: f32,
    /// The lowest of the tokens' probabilities.
    pub minimum: f32,
}

/// An object with fields that a model found in a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// The object, valid under its schema.
    pub fields: Map<String, Value>,
    /// One entry for each value in it that is not a list or an object, in the order of the answer.
    pub leaves: Vec<ExtractedValue>,
}

/// One value of an [`Extraction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtractedValue {
    /// A JSON Pointer to the value in the object, such as `/features/0`.
    pub path: String,
    /// The model's confidence. None where the model's server does not report probabilities, or the schema left no choice.
    pub confidence: Option<Confidence>,
    /// Whether the value is in the document. None for values that need not be: null, booleans, empty strings, and values that the
    /// schema lists (`enum`, `const`) are judgements about the document and not words of it.
    pub grounded: Option<bool>,
    /// Where the value is in the document, if `grounded` is true.
    pub evidence: Option<Evidence>,
}

/// Where a value is in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The range of the document's original text.
    #[serde(flatten)]
    pub span: Span,
    /// How the text and the value match.
    #[serde(rename = "match")]
    pub likeness: MatchKind,
}

/// How a value and its evidence match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchKind {
    Exact,
    /// The same after compatibility normalization, case folding and collapsing of white space; for a number, another notation.
    Normalized,
    /// A few characters differ, but no digit.
    Fuzzy,
}

/// A text that a model wrote.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenText {
    /// The text; compact JSON if the prompt has a schema.
    pub text: String,
    /// The parsed object, if the prompt has a schema.
    pub fields: Option<Map<String, Value>>,
    /// The model's confidence over all tokens.
    pub confidence: Option<Confidence>,
    /// Whether `max_tokens` ended the text before the model did.
    pub truncated: bool,
    /// Claims of the text that its sources do not support. A text with such claims needs a person's review.
    pub unsupported: Vec<UnsupportedClaim>,
    /// Claims that the model made without support and that were taken out of the text.
    pub removed: Vec<UnsupportedClaim>,
}

/// How a summary was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SummaryMode {
    /// It consists of sentences of the text.
    #[default]
    Extractive,
    /// A model wrote it in its own words.
    Abstractive,
}

impl Confidence {
    /// The confidence over tokens with these log probabilities; none without tokens.
    pub fn of(log_probabilities: impl IntoIterator<Item = f32>) -> Option<Self> {
        let (mut count, mut sum, mut lowest) = (0u32, 0.0f64, 0.0f32);
        for log_probability in log_probabilities {
            count += 1;
            sum += f64::from(log_probability);
            lowest = lowest.min(log_probability);
        }
        (count > 0).then(|| Self { mean: (sum / f64::from(count)).exp() as f32, minimum: lowest.exp() })
    }
}

impl Extraction {
    /// The lowest of the values' mean confidences.
    pub fn confidence(&self) -> Option<f32> {
        self.leaves.iter().filter_map(|leaf| leaf.confidence).map(|confidence| confidence.mean).reduce(f32::min)
    }

    /// See [`Output::view`].
    pub(super) fn view(&self) -> Value {
        let grounded = self.mirror(|leaf| json!(leaf.grounded));
        let evidence = self.mirror(|leaf| json!(leaf.evidence));
        let mut view = self.fields.clone();
        let own = [
            ("confidence", json!(self.confidence())),
            ("fields", json!(self.fields)),
            ("grounded", grounded),
            ("evidence", evidence),
        ];
        view.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(view)
    }

    /// A copy of the object in which each value is replaced by something about it.
    fn mirror(&self, about: impl Fn(&ExtractedValue) -> Value) -> Value {
        let mut mirror = Value::Object(self.fields.clone());
        for leaf in &self.leaves {
            if let Some(place) = mirror.pointer_mut(&leaf.path) {
                *place = about(leaf);
            }
        }
        mirror
    }
}

impl WrittenText {
    /// See [`Output::view`].
    pub(super) fn view(&self) -> Value {
        let mut view = self.fields.clone().unwrap_or_default();
        let confidence = self.confidence.map(|confidence| confidence.mean);
        let own = [
            ("text", json!(self.text)),
            ("confidence", json!(confidence)),
            ("fields", json!(self.fields)),
            ("truncated", json!(self.truncated)),
            ("unsupported", json!(self.unsupported)),
        ];
        view.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(view)
    }

    /// See [`Output::fields`].
    pub(super) fn stored(&self) -> Value {
        let mut stored = json!({ "fields": self.fields, "confidence": self.confidence, "truncated": self.truncated });
        for (name, claims) in [("unsupported", &self.unsupported), ("removed", &self.removed)] {
            if !claims.is_empty() {
                stored[name] = json!(claims);
            }
        }
        stored
    }

    /// See [`Output::restore`].
    pub(super) fn restore(text: String, stored: Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Stored {
            fields: Option<Map<String, Value>>,
            confidence: Option<Confidence>,
            truncated: bool,
            #[serde(default)]
            unsupported: Vec<UnsupportedClaim>,
            #[serde(default)]
            removed: Vec<UnsupportedClaim>,
        }
        let Stored { fields, confidence, truncated, unsupported, removed } = serde_json::from_value(stored).ok()?;
        // The `jsonb` column does not keep the order of keys; the text does.
        let fields = match fields {
            Some(_) => Some(serde_json::from_str(&text).ok()?),
            None => None,
        };
        Some(Self { text, fields, confidence, truncated, unsupported, removed })
    }
}

/// The stored form of items: the kind, text and details of each.
pub(super) fn store_items(items: &[Output]) -> Value {
    let item = |item: &Output| json!({ "kind": item.kind(), "text": item.text(), "fields": item.fields() });
    json!({ "items": items.iter().map(item).collect::<Vec<_>>() })
}

/// The inverse of [`store_items`].
pub(super) fn restore_items(stored: Value) -> Option<Vec<Output>> {
    #[derive(Deserialize)]
    struct Stored {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        kind: String,
        text: Option<String>,
        fields: Value,
    }
    let Stored { items } = serde_json::from_value(stored).ok()?;
    items.into_iter().map(|item| Output::restore(&item.kind, item.text, item.fields, Vec::new())).collect()
}
