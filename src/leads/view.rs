//! Leads and companies as the API and the command line show them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::outcome::{ExtractedValue, Extraction, Span};
use crate::store::{LeadDelivery, OutputDetails, StoredLead};

/// A page of leads.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadPage {
    pub pipeline: String,
    /// Leads with at least this score are delivered to the webhook.
    pub threshold: f64,
    pub leads: Vec<LeadSummary>,
    /// The cursor of the next page, if there may be one.
    pub next: Option<String>,
}

/// A lead in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadSummary {
    pub document_id: String,
    pub score: f64,
    /// The maximum of the score.
    pub maximum: f64,
    /// The terms of the score, in the order of the pipeline's file.
    pub parts: Vec<LeadPart>,
    /// The company, as the document writes it.
    pub company: Option<String>,
    /// The company's key, by which its documents are grouped; `/v1/accounts/{key}` shows the company.
    pub account: Option<String>,
    /// The person.
    pub person: Option<String>,
    /// The stage of the purchase.
    pub stage: Option<String>,
    /// What the person wants.
    pub intent: Option<String>,
    /// Whether the score reaches the threshold.
    pub above: bool,
    /// The last change, in Unix milliseconds.
    pub updated_at_ms: i64,
}

/// A term of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadPart {
    pub name: String,
    /// What the term adds to the score.
    pub value: f64,
    /// The expression that computes the term.
    pub formula: String,
}

/// A lead with all details.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadView {
    pub pipeline: String,
    #[serde(flatten)]
    pub summary: LeadSummary,
    /// Leads with at least this score are delivered to the webhook.
    pub threshold: f64,
    /// The document's text.
    pub text: String,
    /// The document's metadata.
    pub metadata: Value,
    /// The results of classification tasks.
    pub labels: Vec<LeadLabel>,
    /// The results of extraction tasks, with their evidence in the text.
    pub facts: Vec<LeadFact>,
    /// Drafted replies.
    pub drafts: Vec<LeadText>,
    /// Deliveries to the webhook, the latest first.
    pub deliveries: Vec<LeadDelivery>,
    /// The company.
    pub about: Option<AccountView>,
}

/// The result of a classification task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadLabel {
    pub task: String,
    pub label: String,
    /// The model's confidence, 0 to 1.
    pub confidence: Option<f32>,
}

/// An extracted value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadFact {
    pub task: String,
    /// The JSON Pointer of the value in the extracted object.
    pub path: String,
    /// The value; null if the document does not state it.
    pub value: Value,
    /// The model's confidence, 0 to 1.
    pub confidence: Option<f32>,
    /// Whether the document states the value, if that was checked.
    pub grounded: Option<bool>,
    /// Where the document states it, in bytes of the text.
    pub evidence: Option<Span>,
}

/// A text that a task wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadText {
    pub task: String,
    pub text: String,
    /// The model that wrote it, unless it comes from a template.
    pub model: Option<String>,
}

/// A company.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// The pipeline whose leads belong to the company.
    pub pipeline: String,
    /// The key by which documents are grouped.
    pub key: String,
    /// The company's name, as its newest document writes it.
    pub name: String,
    /// The number of documents.
    pub documents: i64,
    /// The last change of a document, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// Summaries of all documents together.
    pub summaries: Vec<LeadText>,
    /// When the summaries were written, in Unix milliseconds.
    pub summarized_at_ms: Option<i64>,
    /// The company's leads, the highest score first.
    pub leads: Vec<LeadSummary>,
}

/// The lead as a list shows it.
pub(super) fn summary(lead: StoredLead) -> LeadSummary {
    LeadSummary {
        document_id: lead.document_id,
        score: lead.score,
        maximum: lead.maximum,
        parts: serde_json::from_value(lead.parts).unwrap_or_default(),
        company: lead.company,
        account: lead.account,
        person: lead.person,
        stage: lead.stage,
        intent: lead.intent,
        above: lead.above,
        updated_at_ms: lead.updated_at_us / 1_000,
    }
}

/// The output, if it is a label.
pub(super) fn label(output: &OutputDetails) -> Option<LeadLabel> {
    let label = output.computed.label.clone()?;
    Some(LeadLabel { task: output.computed.task.clone(), label, confidence: output.computed.confidence })
}

/// The output, if it is a text.
pub(super) fn as_text(output: &OutputDetails) -> Option<LeadText> {
    let text = output.computed.text.clone()?;
    Some(LeadText { task: output.computed.task.clone(), text, model: output.computed.model.clone() })
}

/// The values of the output, if it is an extraction.
pub(super) fn facts(output: &OutputDetails) -> Vec<LeadFact> {
    let extraction = match output.computed.kind.as_str() {
        "extract" => serde_json::from_value::<Extraction>(output.details.clone()).ok(),
        _ => None,
    };
    let Some(Extraction { fields, leaves }) = extraction else { return Vec::new() };
    let fields = Value::Object(Map::from_iter(fields));
    let fact = |leaf: ExtractedValue| LeadFact {
        task: output.computed.task.clone(),
        value: fields.pointer(&leaf.path).cloned().unwrap_or_default(),
        confidence: leaf.confidence.map(|confidence| confidence.mean),
        grounded: leaf.grounded,
        evidence: leaf.evidence.map(|evidence| evidence.span),
        path: leaf.path,
    };
    leaves.into_iter().map(fact).collect()
}
