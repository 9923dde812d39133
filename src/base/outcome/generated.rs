//! What generators make: typed fields with their evidence, and texts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Output, Span};

/// How sure the model was of what it wrote, from the probabilities of the tokens, before any was ruled out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// The geometric mean of the tokens' probabilities.
    pub mean: f32,
    /// The least of the tokens' probabilities.
    pub minimum: f32,
}

/// An object whose fields were taken out of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// The object, valid under its schema.
    pub fields: Map<String, Value>,
    /// What is known about each value in it that is no list and no object, in the order of the answer.
    pub leaves: Vec<ExtractedValue>,
}

/// One value of an [`Extraction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtractedValue {
    /// Where the value stands in the object, as a JSON Pointer (`/features/0`).
    pub path: String,
    /// How sure the model was; absent where a server does not tell, or where the schema left no choice at all.
    pub confidence: Option<Confidence>,
    /// Whether the document says it. Absent where that is no question: null, booleans, empty strings, and values that the schema
    /// lists (`enum`, `const`) are judgements about the document, not words of it.
    pub grounded: Option<bool>,
    /// Where the document says it; there exactly if `grounded` is true.
    pub evidence: Option<Evidence>,
}

/// Where a document says a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The place in the document's text as it came.
    #[serde(flatten)]
    pub span: Span,
    /// How alike text and value are.
    #[serde(rename = "match")]
    pub likeness: MatchKind,
}

/// How alike a value and its evidence are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchKind {
    /// The same characters.
    Exact,
    /// The same under compatibility normalization, case folding and collapsed white space; for a number, another way to write it.
    Normalized,
    /// A few characters differ, none of them a digit.
    Fuzzy,
}

/// What a model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenText {
    /// The text; compact JSON where the prompt has a schema.
    pub text: String,
    /// The object that the text is, where the prompt has a schema.
    pub fields: Option<Map<String, Value>>,
    /// How sure the model was, over all its tokens.
    pub confidence: Option<Confidence>,
    /// Whether the model would have gone on, but for `max_tokens`.
    pub truncated: bool,
}

/// How a summary was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SummaryMode {
    /// Of sentences of the text.
    #[default]
    Extractive,
    /// In words of its own.
    Abstractive,
}

impl Confidence {
    /// Over tokens with these logarithms of probabilities; none where there are none.
    pub fn of(log_probabilities: impl IntoIterator<Item = f32>) -> Option<Self> {
        let (mut count, mut sum, mut least) = (0u32, 0.0f64, 0.0f32);
        for log_probability in log_probabilities {
            count += 1;
            sum += f64::from(log_probability);
            least = least.min(log_probability);
        }
        (count > 0).then(|| Self { mean: (sum / f64::from(count)).exp() as f32, minimum: least.exp() })
    }
}

impl Extraction {
    /// The mean confidence of the value that the model was least sure of.
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

    /// The object with something about each value in its place.
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
        ];
        view.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(view)
    }

    /// See [`Output::fields`].
    pub(super) fn stored(&self) -> Value {
        json!({ "fields": self.fields, "confidence": self.confidence, "truncated": self.truncated })
    }

    /// See [`Output::restore`].
    pub(super) fn restore(text: String, stored: Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Stored {
            fields: Option<Map<String, Value>>,
            confidence: Option<Confidence>,
            truncated: bool,
        }
        let Stored { fields, confidence, truncated } = serde_json::from_value(stored).ok()?;
        // The database forgets the order of keys; the text has it.
        let fields = match fields {
            Some(_) => Some(serde_json::from_str(&text).ok()?),
            None => None,
        };
        Some(Self { text, fields, confidence, truncated })
    }
}

/// Items in the column of details: each as its own kind, text and details.
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
