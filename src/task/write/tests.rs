use std::fs;

use serde_json::json;

use super::*;
use crate::engine::{Completion, Work};
use crate::task::task_prompt::{PromptSettings, TaskPrompt};
use crate::task::tests::{completed, document, generator_info, poison};

/// A task with a prompt file of this text, without a judge of its claims.
fn task(prompt: &str, for_each: Option<&str>) -> Write {
    built(prompt, WriteSpec { for_each: for_each.map(str::to_owned), ..spec("p.md") })
}

/// The task of these parameters, whose prompt file `p.md` has this text.
fn built(prompt: &str, spec: WriteSpec) -> Write {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.md"), prompt).unwrap();
    assert_eq!(spec.problems(folder.path()), [""; 0]);
    let file = spec.read(folder.path()).unwrap();
    let strict = spec.strict_rules(&file).unwrap();
    let prompt = TaskPrompt::new(file, PromptSettings::new("seo", &generator_info())).unwrap();
    spec.assemble(strict, ItemPrompt::new(prompt, spec.for_each.as_deref()).unwrap(), spec.reads(folder.path())).unwrap()
}

fn spec(prompt: &str) -> WriteSpec {
    WriteSpec {
        model: "writer".into(),
        prompt: prompt.into(),
        schema: None,
        max_tokens: None,
        for_each: None,
        strict: false,
        grounding: Grounding::Off,
        fallback: None,
    }
}

fn upstream(document: &Document) -> TemplateContext {
    let mut upstream = TemplateContext::of(document, None);
    let facts = crate::outcome::Extraction {
        fields: json!({"price": 3, "features": ["light", "strong"], "name": "bowl", "none": []}).as_object().unwrap().clone(),
        leaves: Vec::new(),
    };
    upstream.insert(&"facts".into(), &Output::Extraction(facts));
    upstream
}

fn messages(task: &Write) -> Result<Vec<String>, Failure> {
    let document = document("A bowl.");
    match task.prepare(&document, &upstream(&document))? {
        TaskStep::Ask(requests) => Ok(requests
            .iter()
            .map(|request| match &request.work {
                Work::Generate(generate) => generate.prompt.messages[generate.prompt.messages.len() - 1].content.to_string(),
                other => panic!("expected a completion request, got {other:?}"),
            })
            .collect()),
        other => panic!("expected requests, got {other:?}"),
    }
}

fn interpreted(task: &Write, predictions: Vec<Prediction>) -> Result<Output, Failure> {
    match task.interpret(&document("A bowl."), &TemplateContext::default(), predictions)? {
        TaskStep::Ready(output) => Ok(output),
        other => panic!("expected an output, got {other:?}"),
    }
}

const OBJECT: &str = "---
name: seo
model: { max_tokens: 20 }
schema: { type: object, properties: { title: { type: string, maxLength: 10 }, body: { type: string } }, required: [title] }
---
x";

#[test]
fn document_metadata_and_upstream_outputs_are_in_scope() {
    let task = task(
        "---\nname: seo\n---\n{{ document.text }} {{ document.metadata.brand }} {{ facts.price }} {{ facts.fields.features | tojson }}\n",
        None,
    );
    assert_eq!(messages(&task).unwrap(), [r#"A bowl. Hazel 3 ["light","strong"]"#]);
}

#[test]
fn text_is_trimmed_and_has_the_confidence_of_all_its_tokens() {
    let task = task("---\nname: seo\n---\nx", None);
    let pieces = [(" Buy", Some(0.5f32.ln())), (" now\n", Some(0.125f32.ln()))];
    let Output::WrittenText(written) = interpreted(&task, vec![completed(&pieces)]).unwrap() else {
        panic!("nothing is written")
    };
    assert_eq!((written.text.as_str(), &written.fields), ("Buy now", &None));
    let confidence = written.confidence.unwrap();
    assert!((confidence.mean - 0.25).abs() < 1e-6 && (confidence.minimum - 0.125).abs() < 1e-6, "{confidence:?}");
}

#[test]
fn a_text_that_was_cut_off_says_so() {
    let task = task("---\nname: seo\n---\nx", None);
    let completion = Completion { text: "Buy now, and".into(), tokens: Vec::new(), finish: Finish::Length };
    let output = interpreted(&task, vec![Prediction::Completion(completion)]).unwrap();
    assert_eq!(output.view()["truncated"], true);
}

#[test]
fn what_cannot_be_stored_and_what_is_nothing_is_poison() {
    let task = task("---\nname: seo\n---\nx", None);
    let class = |text: &str| poison(interpreted(&task, vec![completed(&[(text, None)])]).unwrap_err()).class;
    assert_eq!(class("a\0b"), FailureClass::NulCharacter);
    assert_eq!(class(" \n"), FailureClass::Model);
    assert_eq!(poison(interpreted(&task, Vec::new()).unwrap_err()).class, FailureClass::Model);
}

#[test]
fn a_prompt_with_a_schema_gives_an_object_within_its_limits() {
    let task = task(OBJECT, None);
    let answer = "{ \"title\": \"Bowl\", \"body\": \"b\" }";
    let Output::WrittenText(written) = interpreted(&task, vec![completed(&[(answer, None)])]).unwrap() else { panic!("no text") };
    assert_eq!(written.text, r#"{"title":"Bowl","body":"b"}"#);
    assert_eq!(written.fields.unwrap()["title"], "Bowl");
    let class = |text: &str, finish| {
        let completion = Completion { text: text.into(), tokens: Vec::new(), finish };
        poison(interpreted(&task, vec![Prediction::Completion(completion)]).unwrap_err())
    };
    assert_eq!(class(r#"{"title":"far too long a title"}"#, Finish::Stop).class, FailureClass::Schema);
    let truncated = class(r#"{"title":"Bo"#, Finish::Length);
    assert_eq!(truncated.class, FailureClass::Truncated);
    assert!(truncated.reason.contains("max_tokens (20)"), "{}", truncated.reason);
    assert_eq!(class("{\"title\":\"a\",\"b\\u0000\":1}", Finish::Stop).class, FailureClass::NulCharacter);
}

#[test]
fn each_item_of_a_list_is_a_request_and_an_output() {
    let task = task("---\nname: seo\n---\n{{ index }}: {{ item }} {{ facts.name }}", Some("facts.features"));
    assert_eq!(messages(&task).unwrap(), ["0: light bowl", "1: strong bowl"]);
    let answers = ["one", "two"].map(|text| completed(&[(text, None)]));
    let Output::Items(items) = interpreted(&task, answers.into()).unwrap() else { panic!("no items") };
    assert_eq!(items.iter().map(|item| item.text().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
    let one = vec![completed(&[("one", None)])];
    assert!(matches!(interpreted(&task, one).unwrap(), Output::Items(items) if items.len() == 1), "one item is a list too");
    let bad = ["one", " "].map(|text| completed(&[(text, None)]));
    assert!(poison(interpreted(&task, bad.into()).unwrap_err()).reason.starts_with("item 1: "));
}

#[test]
fn a_list_without_items_is_ready_and_what_is_no_list_is_poison() {
    let prepared = |for_each: &str| {
        let document = document("A bowl.");
        task("---\nname: seo\n---\n{{ item }}", Some(for_each)).prepare(&document, &upstream(&document))
    };
    assert_eq!(prepared("facts.none").unwrap(), TaskStep::Ready(Output::Items(Vec::new())));
    assert_eq!(poison(prepared("facts.name").unwrap_err()).class, FailureClass::WrongType);
    assert_eq!(poison(prepared("facts.fields.colours").unwrap_err()).class, FailureClass::MissingField);
    assert_eq!(poison(prepared("range(101)").unwrap_err()).class, FailureClass::TooLarge);
    assert!(matches!(prepared("range(100)").unwrap(), TaskStep::Ask(requests) if requests.len() == 100));
}

#[test]
fn the_names_read_are_those_of_template_and_list_save_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "---\nname: seo\n---\n{{ item }} {{ index }} {{ schema }} {{ topic.label }} {{ document.text }}";
    fs::write(folder.path().join("p.md"), prompt).unwrap();
    let looping = WriteSpec { for_each: Some("facts.fields.features".into()), ..spec("p.md") };
    assert_eq!(looping.reads(folder.path()), ["topic.label", "document.text", "facts.fields.features"]);
    assert_eq!(spec("p.md").reads(folder.path()), ["item", "index", "topic.label", "document.text"]);
}

#[test]
fn a_strict_answer_is_held_to_spans_of_the_document() {
    let schema = "schema: { type: object, properties: { title: { type: string } }, required: [title] }";
    let prompt = format!("---\nname: seo\n{schema}\n---\n{{{{ document.text }}}}");
    let strict = built(&prompt, WriteSpec { strict: true, ..spec("p.md") });
    let document = document("Oak board");
    let TaskStep::Ask(requests) = strict.prepare(&document, &upstream(&document)).unwrap() else { panic!("no request") };
    let crate::engine::Work::Generate(generate) = &requests[0].work else { panic!("no completion is asked for") };
    assert!(generate.spans.is_some(), "the answer is free");
    let free = built(&prompt, spec("p.md"));
    assert_ne!(strict.signature, free.signature);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.md"), "---\nname: seo\n---\n{{ document.text }}").unwrap();
    let problems = WriteSpec { strict: true, ..spec("p.md") }.problems(folder.path()).join("; ");
    assert!(problems.contains("`strict: true` without a `schema`"), "{problems}");
}

#[test]
fn any_edit_is_another_version() {
    let version = |prompt: &str| task(prompt, None).prompt.version().version();
    let base = "---\nname: seo\nsystem: s\n---\nx";
    assert_eq!(version(base), version("---\nname: seo\nsystem: s\n# a comment is no change\n---\n\nx\n"));
    for other in [
        "---\nname: seo2\nsystem: s\n---\nx",
        "---\nname: seo\nsystem: t\n---\nx",
        "---\nname: seo\nsystem: s\n---\nx.",
        "---\nname: seo\nsystem: s\nmodel: { seed: 1 }\n---\nx",
        "---\nname: seo\nsystem: s\nmodel: { max_tokens: 7 }\n---\nx",
        "---\nname: seo\nsystem: s\nschema: { type: object }\n---\nx",
    ] {
        assert_ne!(version(base), version(other), "{other}");
    }
}

#[test]
fn an_answer_that_fills_the_context_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.md"), "---\nname: seo\nmodel: { max_tokens: 512 }\n---\nx").unwrap();
    let file = spec("p.md").read(folder.path()).unwrap();
    let error = TaskPrompt::new(file, PromptSettings::new("seo", &generator_info())).unwrap_err().to_string();
    assert!(error.contains("leave no space for a prompt in the context of 512 tokens of model `writer`"), "{error}");
}

mod grounding;
