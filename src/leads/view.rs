//! What is told of leads, as programs read it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::outcome::{ExtractedValue, Extraction, Span};
use crate::store::{LeadDelivery, OutputDetails, StoredLead};

/// A page of leads.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadPage {
    /// The pipeline.
    pub pipeline: String,
    /// The score from which on a lead is told of.
    pub threshold: f64,
    /// The leads.
    pub leads: Vec<LeadSummary>,
    /// Asks for the next page, where there may be one.
    pub next: Option<String>,
}

/// A lead in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadSummary {
    /// The document.
    pub document_id: String,
    /// The score.
    pub score: f64,
    /// The most that it can be.
    pub maximum: f64,
    /// What it is the sum of, in the order of the pipeline file.
    pub parts: Vec<LeadPart>,
    /// The company, as the document writes it.
    pub company: Option<String>,
    /// By what the company's documents are gathered; `/v1/accounts/{key}` tells about it.
    pub account: Option<String>,
    /// The person.
    pub person: Option<String>,
    /// How far it is.
    pub stage: Option<String>,
    /// What the person is after.
    pub intent: Option<String>,
    /// Whether the score reaches the threshold.
    pub above: bool,
    /// When it last changed, in Unix milliseconds.
    pub updated_at_ms: i64,
}

/// A part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadPart {
    /// Its name.
    pub name: String,
    /// What it adds.
    pub value: f64,
    /// The expression that it comes from.
    pub formula: String,
}

/// Everything about a lead.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeadView {
    /// The pipeline.
    pub pipeline: String,
    /// As in a list.
    #[serde(flatten)]
    pub glance: LeadSummary,
    /// The score from which on a lead is told of.
    pub threshold: f64,
    /// The document's text.
    pub text: String,
    /// The document's metadata.
    pub metadata: Value,
    /// What classifications say.
    pub labels: Vec<LeadLabel>,
    /// What extractions found, and where the text says it.
    pub facts: Vec<LeadFact>,
    /// Drafts of answers.
    pub drafts: Vec<LeadDocument>,
    /// Who was told that the lead came up to the threshold, the latest first.
    pub deliveries: Vec<LeadDelivery>,
    /// The company.
    pub about: Option<AccountView>,
}

/// What a classification says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadLabel {
    /// The task.
    pub task: String,
    /// The label.
    pub label: String,
    /// How sure the model was.
    pub confidence: Option<f32>,
}

/// A value of an extraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadFact {
    /// The task.
    pub task: String,
    /// Where the value stands in the extraction, as a JSON Pointer.
    pub path: String,
    /// The value; null where the document does not say it.
    pub value: Value,
    /// How sure the model was.
    pub confidence: Option<f32>,
    /// Whether the document says it, where that is a question.
    pub grounded: Option<bool>,
    /// Where, in bytes of the text.
    pub evidence: Option<Span>,
}

/// A text that a task made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeadDocument {
    /// The task.
    pub task: String,
    /// The text.
    pub text: String,
    /// The model that wrote it, where one did.
    pub model: Option<String>,
}

/// A company.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// The pipeline whose leads belong to it.
    pub pipeline: String,
    /// By what its documents are gathered.
    pub key: String,
    /// Its name, as its newest document writes it.
    pub name: String,
    /// Documents that belong to it.
    pub documents: i64,
    /// When they last changed, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// What was written about all of them together.
    pub summaries: Vec<LeadDocument>,
    /// When that was, in Unix milliseconds.
    pub summarized_at_ms: Option<i64>,
    /// Its leads, the highest score first.
    pub leads: Vec<LeadSummary>,
}

/// The lead in a list.
pub(super) fn glance(lead: StoredLead) -> LeadSummary {
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

/// What the output says, where it is a label.
pub(super) fn label(output: &OutputDetails) -> Option<LeadLabel> {
    let label = output.computed.label.clone()?;
    Some(LeadLabel { task: output.computed.task.clone(), label, confidence: output.computed.confidence })
}

/// What the output says, where it is a text.
pub(super) fn as_text(output: &OutputDetails) -> Option<LeadDocument> {
    let text = output.computed.text.clone()?;
    Some(LeadDocument { task: output.computed.task.clone(), text, model: output.computed.model.clone() })
}

/// What the output found, where it is an extraction.
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
