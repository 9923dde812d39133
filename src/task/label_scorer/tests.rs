use crate::engine::Role;
use crate::outcome::Span;
use crate::task::context_budget::TokenSplitter;
use crate::task::tests::{document, generator_info};

use super::*;

fn labels() -> Labels {
    Labels(vec![
        ("garden".into(), vec!["plants".into(), "{{ tools }} for them".into()]),
        ("kitchen".into(), vec!["cooking".into()]),
    ])
}

/// Each byte is a token.
pub(in crate::task) struct Bytes;

impl TokenSplitter for Bytes {
    fn count(&self, text: &str) -> Result<usize, Failure> {
        Ok(text.len())
    }

    fn split(&self, text: &str, tokens: usize, _overlap: usize) -> Result<Vec<Span>, Failure> {
        Ok(vec![Span { start: 0, end: tokens.min(text.len()) }])
    }
}

fn answers(prior: Vec<f32>) -> anyhow::Result<LabelScorer> {
    let prompt = task_prompt("topic", &generator_info(), &labels(), None).unwrap();
    LabelScorer::new(prompt, ["garden".into(), "kitchen".into()].into(), prior, ContextBudget::new(Arc::new(Bytes), 512))
}

fn asked(answers: &LabelScorer, text: &str) -> Score {
    let document = document(text);
    match answers.work(text, &TemplateContext::of(&document, None)) {
        Ok(Work::Score(score)) => score,
        other => panic!("expected a scoring request, got {other:?}"),
    }
}

#[test]
fn the_prompt_shows_labels_with_their_meaning_and_the_document_after_them() {
    let score = asked(&answers(vec![-1.0, -2.0]).unwrap(), "A spade.");
    let content = &score.prompt.messages[1].content;
    assert!(content.contains("- garden: plants; {{ tools }} for them\n- kitchen: cooking\n"), "{content}");
    assert!(content.find("kitchen: cooking") < content.find("A spade."), "{content}");
    assert_eq!(score.prompt.messages[0].role, Role::System);
    assert_eq!(score.answers.iter().map(|answer| &**answer).collect::<Vec<_>>(), ["garden", "kitchen"]);
}

#[test]
fn what_the_model_prefers_of_itself_is_subtracted() {
    let answers = answers(vec![-0.5, -3.0]).unwrap();
    assert_eq!(
        answers.corrected(&[-1.0, -2.0]).unwrap(),
        [-0.5, 1.0],
        "the more likely answer is not the one that the document supports"
    );
}

fn behind_a_server(prior: Option<Vec<f32>>) -> LabelScorer {
    let answers = answers(vec![0.0, 0.0]).unwrap();
    let request =
        Request { model: "clerk".into(), work: score(answers.task_prompt.render_without_content().unwrap(), &answers.answers) };
    LabelScorer {
        prior: OnceCell::new_with(prior),
        pending_prior: Some(PendingPrior { task: "topic".into(), request }),
        ..answers
    }
}

#[test]
fn what_a_server_does_not_tell_of_is_not_subtracted() {
    let corrected = |prior: [f32; 2], scores: [f32; 2]| behind_a_server(Some(prior.to_vec())).corrected(&scores).unwrap();
    assert_eq!(corrected([-0.5, -3.0], [-1.0, -2.0]), [-0.5, 1.0]);
    let chosen = [-0.1, LEAST_SCORE];
    assert_eq!(corrected([-0.1, LEAST_SCORE], chosen), chosen, "the chosen label stays ahead of one without a reported score");
    assert_eq!(corrected([-0.1, -13.0], chosen), [0.0, LEAST_SCORE]);
    assert!(behind_a_server(None).corrected(&chosen).is_err(), "there is no default before the server has answered");
}

#[test]
fn a_label_that_the_model_cannot_give_is_refused_at_start() {
    let error = answers(vec![-1.0, f32::NEG_INFINITY]).unwrap_err().to_string();
    assert_eq!(error, "the model cannot give the answer `kitchen` at all: choose another name for the label");
    assert!(answers(vec![-1.0]).is_err());
}

#[test]
fn of_a_text_longer_than_the_context_the_beginning_is_weighed() {
    let answers = answers(vec![-1.0, -2.0]).unwrap();
    let text = "ab ".repeat(1000);
    let score = asked(&answers, &text);
    let length: usize = score.prompt.messages.iter().map(|message| message.content.len()).sum();
    assert!(length < 512 && length > 300, "the prompt has {length} tokens of 512");
    assert!(score.prompt.messages[1].content.contains("ab ab ab"));
    assert!(asked(&answers, "short").prompt.messages[1].content.contains("\nshort\n"), "a short text is complete");
}

#[test]
fn a_document_that_says_nothing_stands_for_every_name_of_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.md");
    let prompt = |body: &str| {
        std::fs::write(&path, format!("---\nname: topic\n---\n{body}")).unwrap();
        task_prompt("topic", &generator_info(), &labels(), Some(&path)).unwrap().render_without_content()
    };
    let rendered =
        prompt("{{ document.text }} {{ document.metadata.brand }} {{ facts.fields.a }} {{ labels | length }}").unwrap();
    assert_eq!(&*rendered.messages[0].content, "N/A N/A N/A 2");
    assert!(prompt("{{ document.text }}{{ facts.price + 1 }}").is_err());
}

#[test]
fn labels_and_prompt_decide_the_version() {
    let version = |labels: &Labels| task_prompt("topic", &generator_info(), labels, None).unwrap().version.version();
    let mut other = labels();
    other.0[1].1 = vec!["cooking and baking".into()];
    assert_eq!(version(&labels()), version(&labels()));
    assert_ne!(version(&labels()), version(&other));
}

#[test]
fn a_prompt_without_the_text_or_with_a_schema_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.md");
    let problem = |text: &str| {
        std::fs::write(&path, text).unwrap();
        LabelScorer::problem(&path).unwrap_or_default()
    };
    assert_eq!(problem("---\nname: a\n---\n{{ document.text }} {{ labels | tojson }}"), "");
    assert!(problem("---\nname: a\n---\n{{ document.id }}").contains("does not read `document.text`"));
    assert!(problem("---\nname: a\nschema: { type: object }\n---\n{{ document.text }}").contains("with a schema"));
    assert!(problem("").contains("a prompt file begins"));
}
