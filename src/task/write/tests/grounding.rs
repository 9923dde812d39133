//! What becomes of texts whose claims the source does not support.

use super::*;
use crate::outcome::{ClaimKind, Classification, ExtractedValue, Extraction, LabelScore};
use crate::task::GroundingRules;

const SOURCE: &str = "An oak bowl. It holds 45 litres. Not suitable for the dishwasher.";

const FREE: &str = "---\nname: copy\n---\n{{ document.text }}";

fn judged() -> WriteSpec {
    WriteSpec { grounding: Grounding::default(), ..spec("p.md") }
}

fn with_fallback(fallback: &str) -> WriteSpec {
    WriteSpec { fallback: Some(fallback.into()), ..judged() }
}

fn answer(text: &str) -> Prediction {
    completed(&[(text, Some(0.5f32.ln()))])
}

/// The next step after a first answer.
fn first(task: &Write, text: &str) -> TaskStep {
    let document = document(SOURCE);
    task.interpret(&document, &TemplateContext::of(&document, None), vec![answer(text)]).unwrap()
}

/// The output after a first answer without support, and a second one.
fn second(task: &Write, first: &str, second: Result<&str, Poison>) -> WrittenText {
    let document = document(SOURCE);
    let context = TemplateContext::of(&document, None);
    match task.interpret_again(&document, &context, &[vec![answer(first)]], vec![second.map(answer)]).unwrap() {
        TaskStep::Ready(Output::WrittenText(written)) => written,
        other => panic!("expected a text, got {other:?}"),
    }
}

fn says(claims: &[UnsupportedClaim]) -> Vec<&str> {
    claims.iter().map(|claim| claim.says.as_str()).collect()
}

#[test]
fn a_supported_text_is_the_output_at_once() {
    let task = built(FREE, judged());
    assert!(
        matches!(first(&task, "An oak bowl of 45 l."), TaskStep::Ready(Output::WrittenText(text)) if text.unsupported.is_empty())
    );
}

#[test]
fn a_text_without_support_is_asked_for_again_with_the_reasons() {
    let task = built(FREE, judged());
    let TaskStep::Ask(requests) = first(&task, "An oak bowl of 45 cm. The best bowl.") else { panic!("the text was accepted") };
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    let Work::Generate(generate) = &request.work else { panic!("{request:?}") };
    let content = &generate.prompt.messages[generate.prompt.messages.len() - 1].content;
    let expected = format!(
        "{SOURCE}\n\nAn earlier answer was refused:\n- the number \"45 cm\" is not what the source says\n- \"best\" is a superlative \
         or an absolute word that the source does not use\nAnswer again, and say only what the source says."
    );
    assert_eq!(&**content, expected);
    let written = second(&task, "An oak bowl of 45 cm.", Ok("An oak bowl of 45 litres."));
    assert_eq!((written.text.as_str(), written.unsupported.len(), written.removed.len()), ("An oak bowl of 45 litres.", 0, 0));
}

#[test]
fn sentences_without_support_are_left_out_after_the_second_answer() {
    let task = built(FREE, judged());
    let written = second(&task, "A bowl of 45 cm.", Ok("An oak bowl. It holds 45 cm.\n\nNot suitable for the dishwasher."));
    assert_eq!(written.text, "An oak bowl.\n\nNot suitable for the dishwasher.");
    assert_eq!((says(&written.removed), written.unsupported.len()), (vec!["45 cm"], 0));
    assert!(written.confidence.is_some());
}

#[test]
fn a_second_answer_that_cannot_be_used_leaves_the_first() {
    let too_long = Poison { class: FailureClass::TooLong, reason: "too long".into() };
    for bad in [Err(too_long), Ok(" "), Ok("a\0b"), Ok("The best, the finest, the only bowl of 7 kg.")] {
        let written = second(&built(FREE, judged()), "A bowl of 45 cm.", bad);
        assert_eq!((written.text.as_str(), says(&written.unsupported)), ("A bowl of 45 cm.", vec!["45 cm"]));
    }
}

#[test]
fn a_fallback_takes_the_place_of_a_text_of_which_nothing_is_left() {
    let task = built(FREE, with_fallback("Bowl: {{ document.text }}"));
    let written = second(&task, "A bowl of 45 cm.", Ok("A bowl of 46 cm."));
    assert_eq!((written.text, says(&written.removed), written.confidence), (format!("Bowl: {SOURCE}"), vec!["46 cm"], None));
    for bad in ["The best bowl of {{ document.id }} kg.", "{{ document.metadata.colour }}", " "] {
        let written = second(&built(FREE, with_fallback(bad)), "A bowl of 45 cm.", Ok("A bowl of 46 cm."));
        assert_eq!((written.text.as_str(), written.removed.len()), ("A bowl of 46 cm.", 0), "{bad}");
        assert_eq!(says(&written.unsupported), ["46 cm"], "{bad}");
    }
}

const TITLE: &str = "---
name: seo
schema:
  type: object
  properties: { title: { type: string }, kind: { enum: [kitchen, outdoor] } }
  required: [title]
  additionalProperties: false
---
{{ document.text }}";

#[test]
fn an_object_without_support_gives_way_to_a_fallback_of_its_schema() {
    let bad = r#"{"title": "A bowl of 45 cm", "kind": "outdoor"}"#;
    let task = built(TITLE, with_fallback(r#"{"title": {{ document.text | within(12) | tojson }}}"#));
    let written = second(&task, bad, Ok(bad));
    assert_eq!(written.text, r#"{"title":"An oak…"}"#);
    assert_eq!((written.removed[0].path.as_str(), written.removed[0].kind), ("/title", ClaimKind::Number));
    for fallback in ["{\"name\": 1}", "no object", r#"{"title": "The finest bowl"}"#] {
        let written = second(&built(TITLE, with_fallback(fallback)), bad, Ok(bad));
        assert_eq!(written.fields.unwrap()["title"], "A bowl of 45 cm", "{fallback}");
        assert_eq!((says(&written.unsupported), written.removed.len()), (vec!["45 cm"], 0), "{fallback}");
    }
    let marked = Output::WrittenText(second(&built(TITLE, judged()), bad, Ok("no json")));
    assert_eq!(marked.view()["unsupported"][0]["message"], "the number \"45 cm\" is not what the source says");
    assert_eq!(marked.fields()["unsupported"][0]["kind"], "number");
}

#[test]
fn only_items_without_support_are_asked_for_again() {
    let spec = WriteSpec { for_each: Some("range(3)".into()), ..judged() };
    let task = built("---\nname: copy\n---\n{{ item }} {{ document.text }}", spec);
    let document = document(SOURCE);
    let context = TemplateContext::of(&document, None);
    let answers = ["An oak bowl.", "A bowl of 45 cm.", "It holds 45 l."].map(answer);
    let TaskStep::Ask(requests) = task.interpret(&document, &context, answers.to_vec()).unwrap() else { panic!("accepted") };
    let Work::Generate(generate) = &requests[0].work else { panic!("{requests:?}") };
    assert!(requests.len() == 1 && generate.prompt.messages[0].content.starts_with("1 An oak bowl."), "{generate:?}");
    let step = task.interpret_again(&document, &context, &[answers.to_vec()], vec![Ok(answer("Bowl of oak."))]).unwrap();
    let TaskStep::Ready(Output::Items(items)) = step else { panic!("{step:?}") };
    let texts: Vec<&str> = items.iter().filter_map(Output::text).collect();
    assert_eq!(texts, ["An oak bowl.", "Bowl of oak.", "It holds 45 l."]);
}

fn classified(label: &str) -> Output {
    let scores = vec![LabelScore { label: label.into(), probability: 0.9 }];
    Output::Classification(Classification { labels: vec![label.into()], scores })
}

#[test]
fn labels_and_values_without_evidence_are_facts_only_where_the_pipeline_says_so() {
    let prompt = "---\nname: copy\n---\n{{ document.text }} {{ topic.label }} {{ facts.fields | tojson }}";
    let document = document("An oak bowl.");
    let mut context = TemplateContext::of(&document, None);
    context.insert(&"topic".into(), &classified("outdoor"));
    let leaf = |path: &str, grounded| ExtractedValue { path: path.into(), confidence: None, grounded, evidence: None };
    let fields = json!({"material": "walnut", "weight": "2 kg"}).as_object().unwrap().clone();
    let leaves = vec![leaf("/material", Some(true)), leaf("/weight", Some(false))];
    context.insert(&"facts".into(), &Output::Extraction(Extraction { fields, leaves }));
    let accepted = |facts: &[&str], text: &str| {
        let rules = GroundingRules { novel_words: Some(0.0), facts: facts.iter().map(|fact| (*fact).to_owned()).collect() };
        let task = built(prompt, WriteSpec { grounding: Grounding::On(rules), ..spec("p.md") });
        matches!(task.interpret(&document, &context, vec![answer(text)]).unwrap(), TaskStep::Ready(_))
    };
    assert!(accepted(&[], "Oak bowl, walnut"));
    assert!(!accepted(&[], "Oak bowl | outdoor") && accepted(&["topic"], "Oak bowl | outdoor"));
    assert!(!accepted(&["topic"], "Oak bowl of 2 kg") && accepted(&["facts"], "Oak bowl of 2 kg"));
}

#[test]
fn what_decides_the_judgement_is_part_of_the_fingerprint() {
    let document = document(SOURCE);
    let context = TemplateContext::of(&document, None);
    let reading = "---\nname: copy\n---\n{{ document.text }} {{ document.metadata.brand }}";
    assert_eq!(built(reading, spec("p.md")).further_inputs(&document, &context), b"");
    let inputs = |spec: WriteSpec| String::from_utf8(built(reading, spec).further_inputs(&document, &context)).unwrap();
    assert_eq!(inputs(judged()), r#"[["Hazel"],null]"#);
    assert_eq!(
        inputs(with_fallback("{{ document.id }}")),
        r#"[["1","Hazel"],"1"]"#.replace(r#"["1","Hazel"]"#, r#"["Hazel","1"]"#)
    );
    let rules = GroundingRules { novel_words: Some(0.1), facts: Vec::new() };
    let other = built(reading, WriteSpec { grounding: Grounding::On(rules), ..spec("p.md") });
    assert_ne!(built(reading, judged()).signature(), other.signature());
    assert_ne!(built(reading, judged()).signature(), built(reading, spec("p.md")).signature());
}

#[test]
fn what_is_wrong_with_the_keys_is_said_before_any_document() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.md"), FREE).unwrap();
    let problems = |spec: WriteSpec| spec.problems(folder.path()).join("; ");
    assert_eq!(problems(with_fallback("{{ facts.fields.name }}")), "");
    assert_eq!(with_fallback("{{ facts.fields.name }}").reads(folder.path()), ["document.text", "facts.fields.name"]);
    assert!(problems(with_fallback("{{ facts.")).contains("has a bad `fallback`"));
    assert!(problems(WriteSpec { grounding: Grounding::Off, ..with_fallback("x") }).contains("never needs"));
    let rules = GroundingRules { novel_words: None, facts: vec!["topic".into()] };
    assert!(
        problems(WriteSpec { grounding: Grounding::On(rules), ..spec("p.md") }).contains("a task that its prompt does not read")
    );
}
