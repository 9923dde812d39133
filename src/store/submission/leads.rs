//! The leads that a batch scored.

/// The changes of leads that a batch makes.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadSubmission {
    /// The leads that the batch scored.
    pub rows: Vec<LeadRow>,
    /// Documents without a score; their leads are deleted.
    pub gone: Vec<String>,
    /// A lead whose score reaches this is sent to the webhook.
    pub threshold: f64,
    /// The name of the webhook that receives leads, if any.
    pub webhook: Option<String>,
    /// The topic that receives an event for each company, if any.
    pub accounts: Option<AccountTopic>,
}

/// A document with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadRow {
    pub document_id: String,
    pub version: i64,
    /// The beginning of the hash of the document's text.
    pub content: Vec<u8>,
    pub score: f64,
    /// The highest score that the pipeline gives.
    pub maximum: f64,
    /// The parts of the score, as a JSON list of objects with name, value and formula.
    pub parts: String,
    /// The company's name as the document writes it.
    pub company: Option<String>,
    /// The company's normalized name; documents with the same one belong together.
    pub account: Option<String>,
    pub person: Option<String>,
    pub stage: Option<String>,
    /// What the person wants.
    pub intent: Option<String>,
}

/// The topic that receives an event for each company with its newest documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountTopic {
    pub topic: String,
    /// How many of the newest documents an event holds.
    pub newest: i64,
    /// How many characters of each document's text it holds.
    pub characters: i32,
}
