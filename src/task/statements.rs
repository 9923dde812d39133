//! What the output of an earlier task states, for texts that are written from it.
//!
//! | output | states |
//! |---|---|
//! | extraction | the values that stand in the document |
//! | summary, rendered text, passages | its text |
//! | written text, composed object | its text or fields, unless a claim is unsupported or a check failed |
//!
//! Everything else is a judgement of a model: labels, choices of a schema, values that the document does not have. It supports a
//! claim only where the pipeline lists the task under `grounding.facts`.

use serde_json::{Value, json};

use crate::outcome::{Extraction, Output, UnsupportedClaim};

/// The statements and judgements of one output.
#[derive(Debug, Clone, Default)]
pub(super) struct Statements {
    pub facts: Vec<Value>,
    pub judgements: Vec<Value>,
    /// Claims of its text that nothing supports.
    pub unsupported: Vec<UnsupportedClaim>,
}

impl Statements {
    pub(super) fn of(output: &Output) -> Self {
        let mut statements = Self::default();
        statements.add(output);
        statements
    }

    fn add(&mut self, output: &Output) {
        match output {
            Output::Classification(classification) => self.judgements.push(json!(classification.labels)),
            Output::Summary(summary) => self.facts.push(json!(summary.text)),
            Output::Text(text) => self.facts.push(json!(text)),
            Output::Extraction(extraction) => self.add_extraction(extraction),
            Output::WrittenText(written) => {
                let value = written.fields.as_ref().map_or_else(|| json!(written.text), |fields| json!(fields));
                let supported = written.unsupported.is_empty();
                if supported { &mut self.facts } else { &mut self.judgements }.push(value);
                self.unsupported.extend(written.unsupported.iter().cloned());
            }
            Output::ComposedObject(composed) => {
                let passed = composed.reasons.is_empty();
                if passed { &mut self.facts } else { &mut self.judgements }.push(json!(composed.fields));
            }
            Output::Score(score) => self.judgements.push(json!(score.value)),
            Output::Items(items) => items.iter().for_each(|item| self.add(item)),
            Output::Passages(passages) => self.facts.extend(passages.iter().map(|passage| json!(passage.text))),
            Output::Embedding(_) | Output::Interaction(_) => {}
        }
    }

    fn add_extraction(&mut self, extraction: &Extraction) {
        let fields = Value::Object(extraction.fields.clone());
        for leaf in &extraction.leaves {
            let Some(value) = fields.pointer(&leaf.path) else { continue };
            let name = leaf.path.split('/').rfind(|step| step.parse::<usize>().is_err()).unwrap_or_default();
            let named = json!({ name: value });
            if leaf.grounded == Some(true) { &mut self.facts } else { &mut self.judgements }.push(named);
        }
    }
}
