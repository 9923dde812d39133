//! The `leads` section.

use super::*;

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
            "sales.yaml:7:8: `leads.score` names `scor`, which is not a task; did you mean `score`?",
        ),
        ("leads: { score: note, threshold: 70 }", "which is not a score but `render`"),
        ("leads: { score: score, threshold: 101 }", "`leads.threshold` is 101: write a number above 0 and up to 100"),
        ("leads: { score: score, threshold: 70, company: note }", "which is not a path to a value"),
        ("leads: { score: score, threshold: 70, company: facts.company }", "but `facts` is not a task"),
        ("leads: { score: score, threshold: 70, company: document.text }", "but of a document only `document.metadata.…`"),
        ("leads: { score: score, threshold: 70, drafts: [replay] }", "`leads.drafts` names `replay`"),
        ("leads: { score: score, threshold: 70, accounts: { topic: a } }", "`leads.company` has no path"),
        (
            "leads: { score: score, threshold: 70, company: document.fields.c, accounts: { topic: a, newest: 1000, characters: 1000 } }",
            "characters in all are allowed",
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
