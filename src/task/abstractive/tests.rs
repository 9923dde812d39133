use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::{Completion, Work};
use crate::outcome::Span;
use crate::task::claim_judge::DEFAULT;
use crate::task::context_budget::TokenSplitter;
use crate::task::tests::{completed, document, generator_info, poison};

/// Each word is a token.
struct Words;

impl TokenSplitter for Words {
    fn count(&self, text: &str) -> Result<usize, Failure> {
        Ok(text.split_whitespace().count())
    }

    fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
        let words: Vec<Span> = text.split_whitespace().map(|w| Span { start: start(w), end: start(w) + w.len() }).collect();
        let mut spans = Vec::new();
        let mut first = 0;
        loop {
            let end = (first + tokens).min(words.len());
            spans.push(Span { start: words[first].start, end: words[end - 1].end });
            if end == words.len() {
                return Ok(spans);
            }
            first = end - overlap;
        }
    }
}

fn spec() -> AbstractiveSpec<'static> {
    AbstractiveSpec { grounding: &DEFAULT, model: "writer", sentences: 2, max_tokens: Some(20), prompt: None }
}

/// The same task, without a judge of its claims.
fn unjudged(context: usize) -> Abstractive {
    Abstractive { judge: None, ..task(context) }
}

/// A task with a model whose context has `context` words, including the built-in prompt, its answer and the margin.
fn task(context: usize) -> Abstractive {
    let model = crate::engine::ModelInfo { max_tokens: context, ..generator_info() };
    let setting = PromptSettings {
        max_tokens: Some(20),
        parameters: Map::from_iter([("sentences".to_owned(), json!(2))]),
        constants: vec![("sentences", Value::from(2))],
        ..PromptSettings::new("gist", &model)
    };
    let prompt = TaskPrompt::new(spec().read(Path::new("")).unwrap(), setting).unwrap();
    spec().assemble(prompt, ContextBudget::new(Arc::new(Words), context), vec!["document.text".into()]).unwrap()
}

fn numbered(words: usize) -> String {
    (0..words).map(|n| format!("w{n} ")).collect()
}

fn asked(prepared: Result<TaskStep, Failure>) -> Vec<String> {
    match prepared {
        Ok(TaskStep::Ask(requests)) => requests
            .iter()
            .map(|request| match &request.work {
                Work::Generate(generate) => generate.prompt.messages[1].content.to_string(),
                other => panic!("expected a completion request, got {other:?}"),
            })
            .collect(),
        other => panic!("expected requests, got {other:?}"),
    }
}

fn prepared(task: &Abstractive, text: &str) -> Result<TaskStep, Failure> {
    let document = document(text);
    task.prepare(&document, &TemplateContext::of(&document, None))
}

fn answered(task: &Abstractive, text: &str, answers: &[&str]) -> Result<TaskStep, Failure> {
    let document = document(text);
    let predictions = answers.iter().map(|answer| completed(&[(answer, Some(0.5f32.ln()))])).collect();
    task.interpret(&document, &TemplateContext::of(&document, None), predictions)
}

fn summary(prepared: Result<TaskStep, Failure>) -> Summary {
    match prepared {
        Ok(TaskStep::Ready(Output::Summary(summary))) => summary,
        other => panic!("no summary: {other:?}"),
    }
}

#[test]
fn a_text_that_fits_is_asked_about_once() {
    let task = task(400);
    let asked = asked(prepared(&task, "A mill by the water."));
    assert_eq!(asked, ["Summarize the following text in at most 2 sentences.\n\nA mill by the water."]);
    let summary = summary(answered(&task, "A mill by the water.", &[" A mill. \n"]));
    assert_eq!((summary.text.as_str(), summary.mode), ("A mill.", SummaryMode::Abstractive));
    assert!(summary.spans.is_empty());
    assert!((summary.confidence.unwrap().mean - 0.5).abs() < 1e-6);
}

#[test]
fn a_long_text_is_summarized_piece_by_piece_without_a_gap() {
    let task = task(200);
    let text = numbered(1000);
    let pieces = asked(prepared(&task, &text));
    assert!(pieces.len() > 5, "{} pieces", pieces.len());
    let mut expected = 0;
    for piece in &pieces {
        let words: Vec<usize> = piece.split_whitespace().filter_map(|word| word.strip_prefix('w')?.parse().ok()).collect();
        assert!(words[0] <= expected, "words {expected} to {} are in no piece", words[0]);
        expected = words[words.len() - 1] + 1;
        assert!(piece.split_whitespace().count() + 20 <= 200, "a prompt does not fit the context with its answer");
    }
    assert_eq!(expected, 1000);
}

#[test]
fn summaries_are_joined_until_one_is_left() {
    let task = unjudged(200);
    let text = numbered(1000);
    let mut count = asked(prepared(&task, &text)).len();
    let answer = numbered(20);
    for round in 1..12 {
        let answers = vec![answer.trim(); count];
        match answered(&task, &text, &answers) {
            Ok(TaskStep::Ready(Output::Summary(_))) => {
                assert!(round > 2, "pieces were joined in {round} rounds");
                return;
            }
            next => {
                let next = asked(next);
                assert!(next.len() * 2 <= count + 1, "{count} summaries became {} texts", next.len());
                assert!(next.iter().all(|prompt| prompt.split_whitespace().count() + 20 <= 200), "{next:?}");
                count = next.len();
            }
        }
    }
    panic!("no summary after twelve rounds");
}

#[test]
fn summaries_are_joined_in_order() {
    let joined = asked(answered(&task(200), &numbered(500), &["First part.", "Second part."]));
    assert_eq!(joined.len(), 1);
    assert!(joined[0].ends_with("\n\nFirst part.\n\nSecond part."), "{}", joined[0]);
}

#[test]
fn what_asks_too_much_of_the_model_is_a_dead_letter() {
    let fault = poison(prepared(&task(200), &numbered(40_000)).unwrap_err());
    assert_eq!(fault.class, FailureClass::TooLong);
    assert!(fault.reason.contains("at most 128 are summarized"), "{}", fault.reason);
    let fault = poison(prepared(&task(100), &numbered(500)).unwrap_err());
    assert_eq!(fault.class, FailureClass::TooLong);
    assert!(fault.reason.contains("reduce `max_tokens`"), "{}", fault.reason);
    assert_eq!(poison(answered(&task(200), "text", &[" "]).unwrap_err()).class, FailureClass::Model);
    assert_eq!(poison(answered(&task(200), "text", &["a\0"]).unwrap_err()).class, FailureClass::NulCharacter);
}

const MILL: &str =
    "The old mill\n\nThe mill of the village turns slowly by the water. It was built in 1820 of oak. Nobody lives there.";

/// What the task does with a second answer, after a first one.
fn answered_again(first: &str, second: Result<&str, Poison>) -> Summary {
    let document = document(MILL);
    let context = TemplateContext::of(&document, None);
    let completed = |answer: &str| completed(&[(answer, Some(0.5f32.ln()))]);
    let earlier = [vec![completed(first)]];
    summary(task(400).interpret_again(&document, &context, &earlier, vec![second.map(completed)]))
}

#[test]
fn a_summary_without_support_is_asked_for_again_with_the_reason() {
    let asked = asked(answered(&task(400), MILL, &["The mill was built in 1920 of oak."]));
    assert_eq!(asked.len(), 1);
    let end = "Nobody lives there.\n\nAn earlier answer was refused:\n- the number \"1920\" is not what the source says\n\
               Answer again, and say only what the source says.";
    assert!(asked[0].ends_with(end), "{}", asked[0]);
    let second = answered_again("The mill was built in 1920.", Ok("The mill was built in 1820."));
    assert_eq!(
        (second.text.as_str(), second.mode, second.removed.len()),
        ("The mill was built in 1820.", SummaryMode::Abstractive, 0)
    );
}

#[test]
fn sentences_of_the_text_stand_for_a_summary_that_is_wrong_twice() {
    let poison = Poison { class: FailureClass::TooLong, reason: "the prompt is too long".into() };
    for second in [Ok("The best mill of all, built in 1820."), Ok("\0"), Err(poison)] {
        let summary = answered_again("The mill was built in 1920.", second);
        assert_eq!(summary.text, "The mill of the village turns slowly by the water. It was built in 1820 of oak.");
        let cut: Vec<&str> = summary.spans.iter().map(|span| &MILL[span.start..span.end]).collect();
        assert_eq!((cut.join(" "), summary.mode), (summary.text.clone(), SummaryMode::Extractive));
        assert!(!summary.removed.is_empty() && summary.confidence.is_none(), "{summary:?}");
    }
}

#[test]
fn a_summary_of_pieces_is_judged_by_the_whole_text_and_asked_again_of_its_parts() {
    let task = task(200);
    let text = format!("{MILL} {}", numbered(500));
    let document = document(&text);
    let context = TemplateContext::of(&document, None);
    let answers = |texts: &[&str]| texts.iter().map(|text| completed(&[(text, None)])).collect::<Vec<_>>();
    let pieces = answers(&["The mill turns slowly.", "It was built in 1820."]);
    let judged = |text: &str| {
        task.interpret_again(&document, &context, std::slice::from_ref(&pieces), answers(&[text]).into_iter().map(Ok).collect())
    };
    assert_eq!(summary(judged("The mill was built in 1820.")).text, "The mill was built in 1820.");
    let again = asked(judged("The mill was built in 1830."));
    assert!(again[0].contains("\n\nThe mill turns slowly.\n\nIt was built in 1820.\n\nAn earlier answer"), "{}", again[0]);
}

#[test]
fn without_grounding_a_summary_is_what_the_model_wrote() {
    let summary = summary(answered(&unjudged(400), MILL, &["The best mill since 1920."]));
    assert_eq!(summary.text, "The best mill since 1920.");
    assert_ne!(task(400).signature(), spec_off().signature());
}

fn spec_off() -> Abstractive {
    let prompt = task(400).prompt;
    let off = AbstractiveSpec { grounding: &Grounding::Off, ..spec() };
    off.assemble(prompt, ContextBudget::new(Arc::new(Words), 400), Vec::new()).unwrap()
}

#[test]
fn a_summary_that_was_cut_off_ends_with_its_last_whole_sentence() {
    let cut = |text: &str| {
        let completion = Completion { text: text.into(), tokens: Vec::new(), finish: Finish::Length };
        let document = document("text");
        summary(unjudged(200).interpret(
            &document,
            &TemplateContext::of(&document, None),
            vec![Prediction::Completion(completion)],
        ))
        .text
    };
    assert_eq!(cut("The mill turns. The wheel goes rou"), "The mill turns.");
    assert_eq!(cut("The mill turns slo"), "The mill turns slo");
}

#[test]
fn what_is_wrong_with_the_parameters_is_said_before_any_document() {
    let folder = tempfile::tempdir().unwrap();
    let problems = |text: &str| {
        let path = folder.path().join("p.md");
        std::fs::write(&path, text).unwrap();
        AbstractiveSpec { prompt: Some(&path), ..spec() }.problems(folder.path()).join("; ")
    };
    assert_eq!(problems("---\nname: a\n---\n{{ document.text }} {{ sentences }}"), "");
    assert!(problems("---\nname: a\n---\n{{ document.id }}").contains("does not read `document.text`"));
    assert!(problems("---\nname: a\nschema: { type: object }\n---\n{{ document.text }}").contains("a prompt with a schema, `a`"));
    assert!(problems("no front matter").contains("p.md:1: a prompt file begins"));
    assert!(AbstractiveSpec { max_tokens: Some(0), ..spec() }.problems(Path::new("")).join("").contains("0 tokens"));
}

proptest! {
    #[test]
    fn groups_keep_all_and_never_grow(tokens in prop::collection::vec(1usize..30, 2..200), available in 62usize..400) {
        let groups = groups(&tokens, available);
        prop_assert_eq!(groups.iter().sum::<usize>(), tokens.len());
        prop_assert!(groups.len() * 2 <= tokens.len() + 1);
        let mut rest = tokens.as_slice();
        for size in groups {
            let (group, others) = rest.split_at(size);
            prop_assert!(group.iter().sum::<usize>() + JOINT_TOKENS * (size - 1) <= available);
            rest = others;
        }
    }
}
