mod decoding;

use serde_json::json;

use super::*;
use crate::engine::Work;
use crate::outcome::{Evidence, MatchKind, Span};
use crate::task::task_prompt::{PromptSettings, TaskPrompt};
use crate::task::tests::{completed, document, generator_info, poison};

fn schema() -> SchemaSource {
    SchemaSource::Inline(json!({
        "type": "object",
        "properties": {
            "product": {"type": ["string", "null"], "maxLength": 40},
            "price": {"type": ["number", "null"]},
            "size": {"enum": ["S", "M", null]},
            "new": {"type": "boolean"},
            "features": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 4},
        },
        "required": ["product"],
        "additionalProperties": false,
    }))
}

fn task(spec: &ExtractSpec) -> Extract {
    let (file, schema) = spec.read(Path::new("")).unwrap();
    let model = generator_info();
    let settings = PromptSettings { max_tokens: spec.max_tokens, ..PromptSettings::new("facts", &model) };
    let prompt = ItemPrompt::new(TaskPrompt::new(file, settings).unwrap(), spec.for_each.as_deref()).unwrap();
    spec.assemble(prompt, schema).unwrap()
}

fn spec() -> ExtractSpec {
    ExtractSpec {
        model: "writer".into(),
        schema: Some(schema()),
        prompt: None,
        strict: false,
        min_confidence: None,
        max_tokens: None,
        for_each: None,
    }
}

const TEXT: &str = "Oak bowl\n\nA bowl of solid oak for 1,299.00 Euro. 물에 강합니다.";

fn extracted(task: &Extract, pieces: &[(&str, Option<f32>)]) -> Result<Extraction, Failure> {
    match task.interpret(&document(TEXT), &TemplateContext::default(), vec![completed(pieces)])? {
        TaskStep::Ready(Output::Extraction(extraction)) => Ok(extraction),
        other => panic!("no extraction, but {other:?}"),
    }
}

fn whole(answer: &str) -> Result<Extraction, Failure> {
    extracted(&task(&spec()), &[(answer, None)])
}

#[test]
fn the_prompt_shows_schema_and_document() {
    let task = task(&spec());
    let document = document(TEXT);
    let Ok(TaskStep::Ask(requests)) = task.prepare(&document, &TemplateContext::of(&document, None)) else {
        panic!("expected a request")
    };
    let [Work::Generate(generate)] = requests.iter().map(|request| &request.work).collect::<Vec<_>>()[..] else {
        panic!("expected one completion request, got {requests:?}")
    };
    assert_eq!(generate.prompt.messages.len(), 2);
    assert!(generate.prompt.messages[1].content.contains(r#""maxLength":40"#), "the schema is not shown");
    assert!(generate.prompt.messages[1].content.ends_with(TEXT), "the document does not come last");
    assert_eq!(generate.schema.as_ref().unwrap(), &task.schema);
    assert!(generate.prompt.group.starts_with("facts/"));
}

#[test]
fn each_value_has_its_evidence_in_bytes_of_the_document() {
    let found = whole(r#"{"product":"OAK bowl","price":1299,"size":"M","new":true,"features":["solid oak","물에 강"]}"#).unwrap();
    let text = |path: &str| {
        let leaf = found.leaves.iter().find(|leaf| leaf.path == path).unwrap();
        assert_eq!(leaf.grounded.unwrap_or(false), leaf.evidence.is_some());
        (leaf.evidence.map(|evidence| &TEXT[evidence.span.start..evidence.span.end]), leaf.grounded)
    };
    assert_eq!(text("/product"), (Some("Oak bowl"), Some(true)));
    assert_eq!(text("/price"), (Some("1,299.00"), Some(true)));
    assert_eq!(text("/features/0"), (Some("solid oak"), Some(true)));
    assert_eq!(text("/features/1"), (Some("물에 강"), Some(true)));
    assert_eq!(text("/size"), (None, None), "a choice needs no evidence");
    assert_eq!(text("/new"), (None, None));
    let paths: Vec<&str> = found.leaves.iter().map(|leaf| leaf.path.as_str()).collect();
    assert_eq!(paths, ["/product", "/price", "/size", "/new", "/features/0", "/features/1"]);
}

#[test]
fn what_the_document_does_not_say_is_not_grounded() {
    let found = whole(r#"{"product":"Walnut plate","price":7}"#).unwrap();
    assert!(found.leaves.iter().all(|leaf| leaf.grounded == Some(false) && leaf.evidence.is_none()), "{found:?}");
    let silent = whole(r#"{"product":null,"price":null}"#).unwrap();
    assert!(silent.leaves.iter().all(|leaf| leaf.grounded.is_none()), "{silent:?}");
}

#[test]
fn a_strict_task_leaves_out_what_the_document_does_not_say() {
    let strict = task(&ExtractSpec { strict: true, ..spec() });
    let left = |answer: &str| {
        let found = extracted(&strict, &[(answer, None)]).unwrap();
        let paths: Vec<String> = found.leaves.iter().map(|leaf| leaf.path.clone()).collect();
        (Value::Object(found.fields), paths)
    };
    let answer = r#"{"product":"Oak bowl","price":29.99,"features":["dishwasher safe","solid oak","solid elm"]}"#;
    let (fields, paths) = left(answer);
    assert_eq!(fields, json!({"product": "Oak bowl", "price": null, "features": ["solid oak"]}));
    assert_eq!(paths, ["/product", "/price", "/features/0"]);
    let (fields, _) = left(r#"{"product":"oak bowl","price":1299,"size":"S","features":[]}"#);
    assert_eq!(fields["size"], "S", "a choice needs no evidence");
    assert_eq!(left(r#"{"product":"oak bawl"}"#).0, json!({"product": null}), "a near miss is none");
}

#[test]
fn a_strict_task_refuses_what_the_document_does_not_say_if_the_schema_requires_it() {
    let properties = json!({"product": {"type": "string"}, "price": {"type": "number"}});
    let schema = json!({"type": "object", "properties": properties, "required": ["product", "price"]});
    let strict = task(&ExtractSpec { schema: Some(SchemaSource::Inline(schema)), strict: true, ..spec() });
    let fault = poison(extracted(&strict, &[(r#"{"product":"Elm bowl","price":1299}"#, None)]).unwrap_err());
    assert_eq!(fault.class, FailureClass::Ungrounded);
    assert!(
        fault.reason.contains("field `/product` of the answer is \"Elm bowl\", which the document does not contain"),
        "{fault}"
    );
    let document = document("Oak bowl");
    let fault = poison(strict.prepare(&document, &TemplateContext::of(&document, None)).unwrap_err());
    assert_eq!(fault.class, FailureClass::Ungrounded);
    assert!(fault.reason.contains("the document has no value for `/price`"), "{fault}");
}

#[test]
fn a_value_below_the_least_confidence_is_left_out() {
    let half = Some(0.5f32.ln());
    let pieces = [
        (r#"{"product":"#, None),
        (r#""Oak bowl""#, half),
        (r#","price":"#, None),
        ("1299", Some(0.0)),
        (r#","features":["#, None),
        (r#""solid oak""#, half),
        (r#","oak""#, Some(-0.1)),
        ("]}", None),
    ];
    let fields = |least: Value| {
        let min_confidence = Some(serde_json::from_value(least).unwrap());
        Value::Object(extracted(&task(&ExtractSpec { min_confidence, ..spec() }), &pieces).unwrap().fields)
    };
    assert_eq!(fields(json!(0.4)), json!({"product": "Oak bowl", "price": 1299, "features": ["solid oak", "oak"]}));
    assert_eq!(fields(json!(0.6)), json!({"product": null, "price": 1299, "features": ["oak"]}));
    assert_eq!(fields(json!({"product": 0.6})), json!({"product": null, "price": 1299, "features": ["solid oak", "oak"]}));
}

#[test]
fn numbers_convert_into_the_unit_of_their_field() {
    let unit = |unit: &str, of: &str| json!({"type": [of, "null"], "unit": unit});
    let properties = json!({
        "capacity": unit("ml", "number"), "size": unit("cm", "string"), "due": {"type": ["string", "null"], "format": "date"},
        "pieces": {"type": ["integer", "null"]},
    });
    let schema = json!({"type": "object", "properties": properties});
    let strict = task(&ExtractSpec { schema: Some(SchemaSource::Inline(schema)), strict: true, ..spec() });
    let text = "Holds 1.5 litres, 40 x 25 cm. Due 5 January 2026.";
    let answer = r#"{"capacity":1500,"size":"40 x 25 cm","due":"2026-01-05","pieces":3}"#;
    let found = strict.interpret(&document(text), &TemplateContext::default(), vec![completed(&[(answer, None)])]).unwrap();
    let TaskStep::Ready(Output::Extraction(found)) = found else { panic!("no extraction") };
    assert_eq!(
        Value::Object(found.fields),
        json!({"capacity": 1500, "size": "40 x 25 cm", "due": "2026-01-05", "pieces": null}).clone()
    );
    let quotes: Vec<Option<&str>> =
        found.leaves.iter().map(|leaf| leaf.evidence.map(|evidence| &text[evidence.span.start..evidence.span.end])).collect();
    assert_eq!(quotes, [Some("1.5 litres"), Some("40 x 25 cm"), Some("5 January 2026"), None]);
}

#[test]
fn confidence_belongs_to_the_tokens_that_wrote_the_value() {
    let half = Some(0.5f32.ln());
    let quarter = Some(0.25f32.ln());
    let pieces = [
        (r#"{"product":"#, None),
        (r#""Oak"#, half),
        (r#" bowl","#, quarter),
        (r#""price""#, None),
        (":", None),
        ("12", half),
        ("99", half),
        (r#","size":"M"}"#, None),
    ];
    let found = extracted(&task(&spec()), &pieces).unwrap();
    let confidence = |index: usize| found.leaves[index].confidence;
    let close = |found: Option<Confidence>, mean: f32, minimum: f32| {
        let found = found.unwrap();
        assert!((found.mean - mean).abs() < 1e-6 && (found.minimum - minimum).abs() < 1e-6, "{found:?}");
    };
    close(confidence(0), 0.125f32.sqrt(), 0.25);
    close(confidence(1), 0.5, 0.5);
    assert_eq!(confidence(2), None, "tokens forced by the schema have no confidence");
    assert!((found.confidence().unwrap() - 0.125f32.sqrt()).abs() < 1e-6, "the field with the lowest confidence counts");
    assert_eq!(whole(r#"{"product":"Oak"}"#).unwrap().confidence(), None, "a server without log probabilities");
}

#[test]
fn answers_that_are_no_such_object_are_dead_letters() {
    let class = |answer: &str| poison(whole(answer).unwrap_err()).class;
    assert_eq!(class(r#"{"price":3}"#), FailureClass::Schema);
    assert_eq!(class("Sure!"), FailureClass::Schema);
    assert_eq!(class("{\"product\":\"a\\u0000b\"}"), FailureClass::NulCharacter);
    let odd = task(&spec()).interpret(&document(TEXT), &TemplateContext::default(), vec![Prediction::Scores(vec![0.0])]);
    assert_eq!(poison(odd.unwrap_err()).class, FailureClass::Model);
}

#[test]
fn of_a_name_that_stands_twice_the_last_value_counts() {
    let found = whole(r#"{"product":"Walnut","price":1299,"product":"Oak"}"#).unwrap();
    let expected = Evidence { span: Span { start: 0, end: 3 }, likeness: MatchKind::Exact };
    let product = found.leaves.iter().filter(|leaf| leaf.path == "/product").collect::<Vec<_>>();
    assert_eq!(product.len(), 1);
    assert_eq!(product[0].evidence, Some(expected));
}

#[test]
fn any_change_of_prompt_or_schema_is_another_version() {
    let version = |spec: &ExtractSpec| task(spec).prompt.version().version();
    let base = version(&spec());
    assert_eq!(base, version(&spec()));
    assert_ne!(base, version(&ExtractSpec { max_tokens: Some(9), ..spec() }));
    let other = SchemaSource::Inline(json!({"type": "object", "properties": {"product": {"type": "string"}}}));
    assert_ne!(base, version(&ExtractSpec { schema: Some(other), ..spec() }));
    assert_ne!(task(&spec()).signature, task(&ExtractSpec { strict: true, ..spec() }).signature);
}

#[test]
fn what_is_wrong_with_the_parameters_is_said_before_any_document() {
    let problems = |spec: ExtractSpec| spec.problems(Path::new("")).join("; ");
    assert_eq!(problems(spec()), "");
    assert!(problems(ExtractSpec { schema: None, ..spec() }).contains("has no `schema`"));
    let strict = |property: Value| {
        let schema = SchemaSource::Inline(json!({"type": "object", "properties": {"a": property}}));
        problems(ExtractSpec { schema: Some(schema), strict: true, ..spec() })
    };
    assert!(strict(json!({"oneOf": [{"type": "string"}]})).contains("the keyword `oneOf` is not supported, at `/a`"));
    assert!(strict(json!({"type": "number", "unit": "litrs"})).contains("`litrs`, which is not known; did you mean `litres`?"));
    let least = |least: Value| problems(ExtractSpec { min_confidence: Some(serde_json::from_value(least).unwrap()), ..spec() });
    assert!(least(json!(2)).contains("write a number from 0 to 1"));
    assert!(least(json!({"prize": 0.5})).contains("did you mean `price`?"));
    assert!(problems(ExtractSpec { max_tokens: Some(0), ..spec() }).contains("0 tokens"));
    assert!(
        problems(ExtractSpec { prompt: Some("nowhere.md".into()), ..spec() })
            .contains("has a bad prompt: nowhere.md: no such file")
    );
    assert!(problems(ExtractSpec { for_each: Some("facts.features".into()), ..spec() }).contains("no `prompt`"));
    assert!(
        problems(ExtractSpec { schema: Some(SchemaSource::File("s.json".into())), ..spec() })
            .contains("has a bad schema: s.json: no such file")
    );
}
