use std::sync::Arc;

use serde_json::json;

use super::super::definition::Definition;
use super::*;
use crate::outcome::{ComputedOutput, ExtractedValue, Extraction, Fingerprint, Score, SkipReason};

const TASKS: &str = "version: 1\nname: sales\nsource: { topic: t, metadata: [company] }\ntasks:\n  \
    note: { render: { template: x } }\n  score: { score: { parts: { length: document.characters } } }\n";

fn problems(section: &str) -> String {
    match Definition::parse(Path::new("sales.yaml"), &format!("{TASKS}{section}\n")) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_section_that_names_what_there_is_not_is_refused_with_its_place_and_the_mend() {
    assert_eq!(problems("leads: { score: score, threshold: 70, company: document.metadata.company }"), "");
    for (section, says) in [
        (
            "leads: { score: scor, threshold: 70 }",
            "sales.yaml:7:8: `leads.score` names `scor`, which is no task; did you mean `score`?",
        ),
        ("leads: { score: note, threshold: 70 }", "which is no score but `render`"),
        ("leads: { score: score, threshold: 101 }", "`leads.threshold` is 101: write a number above 0 and up to 100"),
        ("leads: { score: score, threshold: 70, company: note }", "which names no value"),
        ("leads: { score: score, threshold: 70, company: facts.company }", "but `facts` is no task"),
        ("leads: { score: score, threshold: 70, company: document.text }", "but only `document.metadata.…`"),
        ("leads: { score: score, threshold: 70, drafts: [replay] }", "`leads.drafts` names `replay`"),
        ("leads: { score: score, threshold: 70, accounts: { topic: a } }", "`leads.company` says no place"),
        (
            "leads: { score: score, threshold: 70, company: document.fields.c, accounts: { topic: a, newest: 1000, characters: 1000 } }",
            "characters in all are the most",
        ),
        ("leads: { score: score, treshold: 70 }", "unknown key `treshold`; did you mean `threshold`?"),
    ] {
        let found = problems(section);
        assert!(found.contains(says), "{section}: expected `{says}` in: {found}");
    }
}

#[test]
fn a_schema_knows_which_fields_a_lead_can_be_made_of() {
    let facts = "  facts: { extract: { model: m, schema: { type: object, properties: { company: { type: string } } } } }\n";
    let text = |place: &str| format!("{TASKS}{facts}leads: {{ score: score, threshold: 70, company: {place} }}\n");
    let parse = |place: &str| Definition::parse(Path::new("sales.yaml"), &text(place));
    assert!(parse("facts.company").is_ok() && parse("facts.fields.company").is_ok());
    let refused = parse("facts.compny").unwrap_err().to_string();
    assert!(refused.contains("the schema of `facts` has no `compny`; did you mean `company`?"), "{refused}");
}

fn product(output: Output) -> Outcome {
    Outcome::Computed(ComputedOutput { output, fingerprint: Fingerprint([0; 32]), cost: Default::default() })
}

fn facts(company: &str, grounded: bool) -> Outcome {
    let leaf = ExtractedValue { path: "/company".into(), confidence: None, grounded: Some(grounded), evidence: None };
    let fields = json!({ "company": company }).as_object().cloned().unwrap_or_default();
    product(Output::Extraction(Extraction { fields, leaves: vec![leaf] }))
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
    leads.add(&document, (&tasks, outcomes), &mut submission);
    submission
}

#[test]
fn a_company_that_the_document_does_not_say_is_looked_for_elsewhere() {
    let score = || product(Output::Score(Score::of([("a".to_owned(), 7.0, "7".to_owned())], 100.0)));
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
