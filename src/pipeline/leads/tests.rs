use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::outcome::{ComputedOutput, ExtractedValue, Extraction, Fingerprint, Score, SkipReason};

fn computed(output: Output) -> Outcome {
    Outcome::Computed(ComputedOutput { output, fingerprint: Fingerprint([0; 32]), cost: Default::default() })
}

fn facts(company: &str, grounded: bool) -> Outcome {
    let value = ExtractedValue { path: "/company".into(), confidence: None, grounded: Some(grounded), evidence: None };
    let fields = json!({ "company": company }).as_object().cloned().unwrap_or_default();
    computed(Output::Extraction(Extraction { fields, leaves: vec![value] }))
}

fn added(outcomes: &[Outcome]) -> LeadSubmission {
    let leads = LeadSettings {
        company: FieldPaths(vec!["facts.company".into(), "document.metadata.company".into()]),
        ..crate::yaml::read("{ score: score, threshold: 70 }").expect("the section can be read")
    };
    let metadata = json!({ "company": " Acme \n Inc. " }).as_object().cloned().unwrap_or_default();
    let document = Document { id: "d".into(), version: 3, text: "text".into(), metadata, fields: Map::new() };
    let tasks: Vec<Arc<str>> = vec!["facts".into(), "score".into()];
    let mut submission = leads.submission();
    leads.add(&document, &tasks, outcomes, &mut submission);
    submission
}

#[test]
fn a_company_that_the_document_does_not_say_is_looked_for_elsewhere() {
    let score = || computed(Output::Score(Score::of([("a".to_owned(), 7.0, "7".to_owned())], 100.0)));
    let company = |outcomes: &[Outcome]| {
        let row = added(outcomes).rows.remove(0);
        (row.company.unwrap_or_default(), row.account.unwrap_or_default())
    };
    assert_eq!(company(&[facts("Hanbit Ltd", true), score()]), ("Hanbit Ltd".into(), "hanbit".into()));
    assert_eq!(company(&[facts("Hanbit Ltd", false), score()]), ("Acme Inc.".into(), "acme".into()), "it was made up");
    assert_eq!(company(&[Outcome::Skipped(SkipReason::Condition), score()]), ("Acme Inc.".into(), "acme".into()));
}

#[test]
fn a_document_without_a_score_is_no_lead() {
    let none = added(&[facts("Hanbit", true), Outcome::Skipped(SkipReason::Upstream)]);
    assert_eq!((none.rows.len(), none.gone), (0, vec!["d".to_owned()]));
}
