//! Claims of a written text that its sources do not support.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Span;

/// A claim of a written text that nothing supports among what the text was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnsupportedClaim {
    pub kind: ClaimKind,
    /// A JSON Pointer to the string with the claim; empty where the output is plain text.
    pub path: String,
    /// The claim, in the words of the text.
    pub says: String,
    /// The sentence with the claim, in bytes of the string.
    pub sentence: Span,
    /// A sentence for people.
    pub message: String,
}

/// The kind of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClaimKind {
    /// A number with its unit.
    Number,
    /// A word with capitals, or a person.
    Name,
    /// It denies what the sources do not deny, or the reverse.
    Negation,
    /// A superlative, or a word that allows no exception.
    Absolute,
    /// A word that no source has, in a sentence with more such words than the task allows.
    Novel,
}
