//! Writes the grammar of answers that quote: JSON of a schema whose strings are spans of a text, and whose numbers and dates are
//! those of a given list.
//!
//! A span is a run of neighbouring chunks of the text, such as words, so no answer can contain a word that the text lacks. The
//! grammar library builds the suffix automaton of the chunks (Blumer et al. 1985), and the grammar is written in its dialect of Lark.
//!
//! | in the schema | in the answer |
//! |---|---|
//! | `enum`, `const`, booleans, `null` | as given |
//! | a string or number | what the caller allows for it: spans, or listed values |
//! | an optional property without any allowed value | left out |
//! | a list whose items have no allowed value | empty |
//! | `additionalProperties` with a schema and without `properties` | an object whose keys are spans |
//! | keywords that combine or negate schemas | refused by name |

mod spans;
mod writer;

use serde::Serialize;
use serde_json::{Map, Value};

use self::writer::GrammarWriter;

/// Ends a passage inside the list of chunks. No answer contains it, because JSON strings contain no control characters.
pub const PASSAGE_END: &str = "\u{1}";

/// The type of a value that is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafType {
    String,
    Number,
    Integer,
}

/// What a string or number of an answer may be.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafValues {
    /// Spans of the text with at most this number of characters.
    Spans { most: Option<u64> },
    /// One of these values; none if the list is empty.
    Listed(Vec<Value>),
}

/// The grammar of the answers about one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpanGrammar {
    lark: String,
}

/// Why there is no grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanGrammarError {
    /// The schema is at fault, whatever the text. The message names the part of the schema.
    #[error("{0}")]
    Unsupported(String),
    /// The text has no value for a property that the schema requires, named by its JSON Pointer.
    #[error("the document has no value for `{0}`")]
    NoValue(String),
}

impl SpanGrammar {
    /// The grammar of `schema` over a text in `chunks`, of which [`PASSAGE_END`] separates passages that no span crosses. `leaf` tells
    /// which values a string or number with the given keywords may have.
    ///
    /// # Errors
    /// [`SpanGrammarError`].
    pub fn new(
        schema: &Value,
        chunks: &[&str],
        leaf: &dyn Fn(&Map<String, Value>, LeafType) -> LeafValues,
    ) -> Result<Self, SpanGrammarError> {
        let lark = GrammarWriter::new(schema, chunks, leaf).grammar()?;
        Ok(Self { lark })
    }

    /// The grammar in the library's dialect of Lark.
    pub(crate) fn lark(&self) -> &str {
        &self.lark
    }
}
