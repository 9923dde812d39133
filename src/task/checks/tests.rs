use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::outcome::Provenance;

fn document() -> Document {
    let fields = json!({
        "sku": "KT-1", "title": "Oak bread board", "brand": "Hazel & Sons", "price": 29.5, "currency": "EUR",
        "sizes": [{"length": "40 cm"}], "description": "Made of solid oak. Measures 40 x 25 cm. 방수 코팅, 무게 1.2 kg.",
    });
    let text = "Oak bread board\n\nMade of solid oak. Measures 40 x 25 cm. 방수 코팅, 무게 1.2 kg.";
    let fields = fields.as_object().unwrap().clone();
    Document { id: "KT-1".into(), version: 1, text: Arc::from(text), metadata: Map::new(), fields }
}

fn run_checks(checks: Value, object: Value) -> (Vec<CheckFailure>, Vec<FactTrace>) {
    run_checks_under(json!({"type": "object"}), checks, object)
}

fn run_checks_under(schema: Value, checks: Value, object: Value) -> (Vec<CheckFailure>, Vec<FactTrace>) {
    let checks: Checks = serde_json::from_value(checks).unwrap();
    checks.run(&document(), object.as_object().unwrap(), &schema)
}

/// Check, path and text of each reason.
fn said(checks: Value, object: Value) -> Vec<String> {
    run_checks(checks, object).0.iter().map(|reason| format!("{} {} {}", reason.check, reason.path, reason.says)).collect()
}

#[test]
fn banned_words_are_found_wherever_they_stand() {
    let checks = json!({"banned": ["best", "최고", "free shipping"]});
    let object =
        json!({"title": "The BEST board", "faq": [{"answer": "국내 최고의 도마"}], "note": "Free\u{a0}Shipping", "x": "bestow"});
    assert_eq!(said(checks, object), ["banned /title BEST", "banned /faq/0/answer 최고", "banned /note Free\u{a0}Shipping"]);
    let (reasons, _) = run_checks(json!({"banned": ["best"]}), json!({"title": "best"}));
    assert_eq!(reasons[0].message, "`title` contains \"best\", which the pipeline bans");
}

#[test]
fn a_claim_stands_only_where_the_source_makes_it() {
    let checks = json!({"claims": ["waterproof", "방수", "solid oak"]});
    let object = json!({"a": "A waterproof board", "b": "방수가 되는 도마", "c": "of Solid Oak"});
    let (reasons, traces) = run_checks(checks, object);
    let words: Vec<&str> = reasons.iter().map(|reason| reason.says.as_str()).collect();
    assert_eq!(words, ["waterproof"]);
    let found: Vec<String> = traces.iter().map(|trace| place(trace, &document().text)).collect();
    assert_eq!(found, ["방수", "solid oak"]);
}

/// The field, or the part of the text.
fn place(trace: &FactTrace, text: &str) -> String {
    match &trace.from {
        Provenance::Field { field } => format!("field {field}"),
        Provenance::Text { start, end, .. } => text[*start..*end].to_owned(),
    }
}

#[test]
fn a_quoted_value_is_a_field_or_stands_in_the_text() {
    let object = json!({"markup": {
        "name": "Oak bread board", "brand": {"name": "hazel & sons"}, "price": 29.5, "priceText": "29.50", "size": "40 x 25 cm",
        "length": "40 cm", "material": "leather", "weight": "1.3 kg", "none": null, "yes": true, "empty": "",
    }});
    let (reasons, traces) = run_checks(json!({"quoted": ["markup"]}), object);
    let wrong: Vec<&str> = reasons.iter().map(|reason| reason.path.as_str()).collect();
    assert_eq!(wrong, ["/markup/material", "/markup/weight"]);
    assert_eq!(reasons[0].message, "`markup/material` is \"leather\", which is neither a field of the source nor in its text");
    let text = document().text;
    let found: Vec<(String, String)> = traces.iter().map(|trace| (trace.path.clone(), place(trace, &text))).collect();
    let expected = [
        ("/markup/name", "field title"),
        ("/markup/brand/name", "field brand"),
        ("/markup/price", "field price"),
        ("/markup/priceText", "field price"),
        ("/markup/size", "40 x 25 cm"),
        ("/markup/length", "field sizes.0.length"),
    ];
    assert_eq!(found, expected.map(|(path, from)| (path.to_owned(), from.to_owned())));
}

#[test]
fn what_is_nearly_said_is_not_quoted() {
    assert_eq!(said(json!({"quoted": "all"}), json!({"brand": "Hazel & Son"})), ["quoted /brand Hazel & Son"]);
}

#[test]
fn what_the_schema_lists_is_a_choice() {
    let schema = json!({"type": "object", "properties": {"kind": {"const": "Best product"}, "name": {"type": "string"}}});
    let checks = json!({"quoted": "all", "banned": ["best"]});
    let (reasons, _) = run_checks_under(schema, checks, json!({"kind": "Best product", "name": "Oak bread board"}));
    assert_eq!(reasons, []);
}

#[test]
fn numbers_and_names_in_sentences_must_be_the_sources() {
    let good = json!({
        "title": "Oak bread board | 40 x 25 cm",
        "description": "An oak board by Hazel & Sons, 25cm wide and 40 cm long. It weighs 1.2kg and costs 29.50 EUR.",
        "korean": "가로 40 cm, 무게 1.2kg 도마",
    });
    let (reasons, traces) = run_checks(json!({"grounded": "all"}), good);
    assert_eq!(reasons, []);
    assert!(traces.iter().any(|trace| trace.says == "1.2kg" && place(trace, &document().text) == "1.2 kg"), "{traces:?}");
    assert!(traces.iter().any(|trace| trace.says == "29.50 EUR" && place(trace, "") == "field price"), "{traces:?}");
    let bad = json!({
        "title": "An oak board of 41 cm",
        "description": "Weighs 1.2 g. Made in Norway for 40 kg.",
        "faq": [{"answer": "무게는 2 kg입니다."}],
    });
    let expected = [
        "grounded /title 41 cm",
        "grounded /description 1.2 g",
        "grounded /description Norway",
        "grounded /description 40 kg",
        "grounded /faq/0/answer 2 kg",
    ];
    assert_eq!(said(json!({"grounded": "all"}), bad.clone()), expected);
    assert_eq!(said(json!({"grounded": ["title"]}), bad), expected[..1]);
}

#[test]
fn a_price_is_no_length() {
    let cheap = json!({"title": "A board of 29.5 cm"});
    assert_eq!(said(json!({"grounded": "all"}), cheap), ["grounded /title 29.5 cm"]);
    assert_eq!(said(json!({"grounded": "all"}), json!({"title": "A board for 29.5"})), [""; 0]);
}

#[test]
fn fields_that_no_schema_has_are_refused() {
    let checks: Checks = serde_json::from_value(json!({"quoted": ["markup"], "grounded": ["titel"], "banned": [" "]})).unwrap();
    let problems = checks.problems(&["title".to_owned(), "markup".to_owned()]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("`checks.grounded` with `titel`") && problems[0].contains("did you mean `title`?"),
        "{problems:?}"
    );
    assert!(problems[1].contains("`checks.banned`"), "{problems:?}");
    assert!(serde_json::from_value::<Checks>(json!({"grounded": "some"})).unwrap_err().to_string().contains("write `all`"));
}

#[test]
fn fields_under_supported_are_judged_claim_by_claim() {
    let object = json!({
        "good": "An oak bread board by Hazel & Sons. It weighs 1.2 kg, costs 29.5 EUR and is 400 mm long.",
        "bad": "The best board, without oak, for camping and travel.",
        "other": "The best board.",
    });
    let failed = said(json!({"supported": ["good", "bad"]}), object);
    let expected = ["supported /bad best", "supported /bad without oak", "supported /bad camping", "supported /bad travel"];
    assert_eq!(failed, expected);
}

/// How many texts of the table of attacks the checks of numbers and names let pass that compositions had before claims were judged.
#[test]
fn checks_of_numbers_and_names_alone_let_many_attacks_pass() {
    let mut passed = 0;
    for line in include_str!("../claims/tests/cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text: Arc<str> = case["source"].as_str().unwrap().into();
        let document = Document { id: "1".into(), version: 1, text, metadata: Map::new(), fields: Map::new() };
        let checks: Checks = serde_json::from_value(json!({"grounded": "all"})).unwrap();
        for attack in case["attacks"].as_array().unwrap() {
            let object = json!({"text": attack});
            let (failures, _) = checks.run(&document, object.as_object().unwrap(), &json!({}));
            passed += usize::from(failures.is_empty());
        }
    }
    assert_eq!(passed, 64, "of 100");
}
