use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

/// A source with texts that a model led astray would write, and texts that say what the source says.
#[derive(Deserialize)]
struct Case {
    source: String,
    attacks: Vec<String>,
    honest: Vec<String>,
}

const CASES: &str = include_str!("tests/cases.jsonl");

/// The share of novel words that `write` allows.
const NOVEL_WORDS: f64 = 0.2;

fn cases() -> Vec<Case> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn judged(source: &str, text: &str, novel_words: f64) -> Vec<UnsupportedClaim> {
    let mut sources = Sources::default();
    sources.add_text(source);
    sources.unsupported(text, novel_words)
}

/// Kind and words of each claim, with no word allowed that the source lacks.
fn said(source: &str, text: &str) -> Vec<String> {
    judged(source, text, 0.0).iter().map(|claim| format!("{:?} {}", claim.kind, claim.says)).collect()
}

#[test]
fn few_attacks_pass_and_few_honest_texts_are_objected_to() {
    let (mut passed, mut objected) = (Vec::new(), Vec::new());
    let (mut attacks, mut honest) = (0, 0);
    for case in cases() {
        attacks += case.attacks.len();
        honest += case.honest.len();
        passed.extend(case.attacks.into_iter().filter(|text| judged(&case.source, text, NOVEL_WORDS).is_empty()));
        let claims = |text: String| {
            let claims = judged(&case.source, &text, NOVEL_WORDS);
            let says: Vec<_> = claims.iter().map(|claim| format!("{:?} {}", claim.kind, claim.says)).collect();
            (!says.is_empty()).then(|| format!("{text} -- {says:?}"))
        };
        objected.extend(case.honest.into_iter().filter_map(claims));
    }
    assert_eq!((attacks, honest), (100, 100));
    assert!(passed.len() <= 5, "{} of 100 attacks pass: {passed:#?}", passed.len());
    assert!(objected.len() <= 3, "{} of 100 honest texts are objected to: {objected:#?}", objected.len());
}
