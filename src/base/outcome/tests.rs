use super::*;

fn extraction() -> Extraction {
    let confidence = Confidence { mean: 0.1, minimum: 0.03 };
    let evidence = Evidence { span: Span { start: 3, end: 7 }, likeness: MatchKind::Normalized };
    let leaf = |path: &str, grounded| ExtractedValue {
        path: path.into(),
        confidence: Some(confidence),
        grounded,
        evidence: (grounded == Some(true)).then_some(evidence),
    };
    Extraction {
        fields: json!({"price": 49.5, "grounded": "no", "features": ["a", "b"]}).as_object().unwrap().clone(),
        leaves: vec![
            leaf("/price", Some(true)),
            leaf("/grounded", Some(false)),
            leaf("/features/0", None),
            ExtractedValue { confidence: None, ..leaf("/features/1", Some(false)) },
        ],
    }
}

fn written() -> WrittenText {
    let confidence = Some(Confidence { mean: 0.7, minimum: 0.2 });
    let fields = json!({"title": "T", "slug": "t", "text": 3}).as_object().cloned();
    WrittenText { text: r#"{"title":"T","slug":"t","text":3}"#.into(), fields, confidence, ..WrittenText::default() }
}

fn claim() -> UnsupportedClaim {
    let sentence = Span { start: 0, end: 3 };
    UnsupportedClaim { kind: ClaimKind::Number, path: "/title".into(), says: "45 cm".into(), sentence, message: "m".into() }
}

/// What the database gives back: keys in an order of its own.
fn through_the_database(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let sorted: std::collections::BTreeMap<_, _> =
                fields.into_iter().map(|(name, value)| (name, through_the_database(value))).collect();
            json!(sorted)
        }
        Value::Array(items) => items.into_iter().map(through_the_database).collect(),
        other => serde_json::from_str(&other.to_string()).unwrap(),
    }
}

fn outputs() -> Vec<Output> {
    let plain = WrittenText { text: "a\nb".into(), fields: None, confidence: None, truncated: true, ..WrittenText::default() };
    let marked = WrittenText { unsupported: vec![claim()], removed: vec![claim(), claim()], ..written() };
    let summary = Summary {
        text: "s".into(),
        spans: Vec::new(),
        mode: SummaryMode::Abstractive,
        confidence: Some(Confidence { mean: 0.25, minimum: 0.125 }),
        removed: Vec::new(),
    };
    let fallen_back = Summary { removed: vec![claim()], ..Summary::default() };
    let extractive = Summary { text: "s".into(), spans: vec![Span { start: 1, end: 2 }], ..Summary::default() };
    vec![
        Output::Extraction(extraction()),
        Output::WrittenText(written()),
        Output::WrittenText(plain.clone()),
        Output::WrittenText(marked),
        Output::Summary(summary),
        Output::Summary(fallen_back),
        Output::Summary(extractive),
        Output::Items(Vec::new()),
        Output::Items(vec![Output::WrittenText(written()), Output::Extraction(extraction()), Output::WrittenText(plain)]),
        Output::Text("t".into()),
        Output::Interaction(Interaction {
            with: "products".into(),
            user: "u".into(),
            document: "d".into(),
            kind: "rating".into(),
            value: Some(4.5),
            at_ms: Some(1),
        }),
    ]
}

#[test]
fn what_was_stored_is_restored() {
    for output in outputs() {
        let stored = through_the_database(output.fields());
        let restored = Output::restore(output.kind(), output.text().map(str::to_owned), stored, Vec::new());
        assert_eq!(restored.as_ref(), Some(&output));
        assert_eq!(restored.map(|restored| restored.view()), Some(output.view()), "templates would see something else");
    }
}

#[test]
fn an_object_keeps_the_order_of_its_fields() {
    let output = Output::WrittenText(written());
    let restored = Output::restore("write", output.text().map(str::to_owned), through_the_database(output.fields()), Vec::new());
    let Some(Output::WrittenText(WrittenText { fields: Some(fields), .. })) = restored else { panic!("no object: {restored:?}") };
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["title", "slug", "text"]);
}

#[test]
fn summaries_of_the_time_before_modes_are_extractive() {
    let old = Output::restore("summarize", Some("s".into()), json!({"spans": [{"start": 1, "end": 2}]}), Vec::new());
    assert!(matches!(old, Some(Output::Summary(Summary { mode: SummaryMode::Extractive, .. }))), "{old:?}");
}

#[test]
fn texts_of_the_time_before_claims_were_judged_have_none() {
    let stored = json!({"fields": null, "confidence": null, "truncated": false});
    let old = Output::restore("write", Some("a".into()), stored, Vec::new());
    assert_eq!(old, Some(Output::WrittenText(WrittenText { text: "a".into(), ..WrittenText::default() })));
}

#[test]
fn parts_that_are_no_output_are_computed_anew() {
    for (kind, text, fields) in [
        ("extract", None, json!({"fields": []})),
        ("write", None, json!({"fields": null, "confidence": null, "truncated": false})),
        ("write", Some("no object"), json!({"fields": {}, "confidence": null, "truncated": false})),
        ("items", None, json!({"items": [{"kind": "strange", "text": null, "fields": {}}]})),
        ("strange", None, json!({})),
    ] {
        assert_eq!(Output::restore(kind, text.map(str::to_owned), fields, Vec::new()), None, "{kind}");
    }
}

#[test]
fn fields_are_seen_by_their_own_names_where_these_are_free() {
    let view = Output::Extraction(extraction()).view();
    assert_eq!(view["price"], 49.5);
    assert_eq!(view["fields"]["price"], 49.5);
    assert_eq!(view["grounded"], json!({"price": true, "grounded": false, "features": [null, false]}));
    assert_eq!(view["evidence"]["price"], json!({"start": 3, "end": 7, "match": "normalized"}));
    assert_eq!(view["evidence"]["grounded"], Value::Null);
    assert!((view["confidence"].as_f64().unwrap() - 0.1).abs() < 1e-6);
    let view = Output::WrittenText(written()).view();
    assert_eq!((&view["title"], &view["fields"]["text"]), (&json!("T"), &json!(3)));
    assert_eq!(view["text"], r#"{"title":"T","slug":"t","text":3}"#);
}

#[test]
fn the_least_sure_part_counts() {
    let sure = |mean| Output::WrittenText(WrittenText { confidence: Some(Confidence { mean, minimum: 0.0 }), ..written() });
    assert_eq!(Output::Items(vec![sure(0.9), sure(0.4), sure(0.6)]).confidence(), Some(0.4));
    assert_eq!(Output::Items(Vec::new()).confidence(), None);
    assert_eq!(Confidence::of([]), None);
    let three = Confidence::of([0.0, 0.5f32.ln(), 0.25f32.ln()]).unwrap();
    assert!((three.mean - 0.5).abs() < 1e-6 && (three.minimum - 0.25).abs() < 1e-6, "{three:?}");
}
