use serde_json::Map;

use super::*;
use crate::engine::{EncodedChunk, EncodedText};
use crate::outcome::Span;

fn model(kind: ModelKind, labels: &[&str]) -> ModelInfo {
    ModelInfo {
        name: "m".into(),
        origin: "models/m".into(),
        kind,
        architecture: "bert".into(),
        revision: "r1".into(),
        dimension: 2,
        max_tokens: 256,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        several_labels: false,
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels(pairs.iter().map(|(label, text)| ((*label).to_owned(), vec![(*text).to_owned()])).collect())
}

fn spec(pairs: &[(&str, &str)]) -> ClassifySpec {
    ClassifySpec { model: "m".into(), labels: Some(labels(pairs)), ..ClassifySpec::default() }
}

fn zero_shot(spec: &ClassifySpec) -> Classify {
    let vectors = vec![vec![Arc::from([1.0f32, 0.0])], vec![Arc::from([0.0f32, 1.0])]];
    let labels = spec.labels.clone().unwrap();
    spec.with_descriptions(&model(ModelKind::Encoder, &[]), &labels, DescriptionVectors::new(vectors).unwrap()).unwrap()
}

fn head() -> LinearHead {
    LinearHead {
        labels: vec!["x".into(), "y".into()],
        multi: false,
        model: "m".into(),
        revision: "r1".into(),
        dimension: 2,
        temperature: 0.5,
        weight: vec![1.0, 0.0, 0.0, 1.0],
        bias: vec![0.0, 0.0],
    }
}

fn vector(vector: [f32; 2]) -> Prediction {
    let chunk = EncodedChunk { span: Span { start: 0, end: 1 }, tokens: 3, vector: Arc::from(vector) };
    Prediction::Vectors(vec![EncodedText { chunks: vec![chunk] }])
}

fn document() -> Document {
    Document { id: "1".into(), version: 1, text: "t".into(), metadata: Map::new(), fields: Map::new() }
}

fn classified(task: &Classify, prediction: Prediction) -> Classification {
    match task.interpret(&document(), &TemplateContext::default(), vec![prediction]) {
        Ok(TaskStep::Ready(Output::Classification(classification))) => classification,
        other => panic!("no classification: {other:?}"),
    }
}

const XY: &[(&str, &str)] = &[("x", "to the right"), ("y", "upwards")];

#[test]
fn the_nearest_description_gives_the_label_and_the_probabilities_sum_to_one() {
    let result = classified(&zero_shot(&spec(XY)), vector([0.6, 0.8]));
    assert_eq!(result.labels, ["y"]);
    let scores: Vec<&str> = result.scores.iter().map(|score| score.label.as_str()).collect();
    assert_eq!(scores, ["x", "y"], "scores are in the order of the task");
    let sum: f32 = result.scores.iter().map(|score| score.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6, "the probabilities sum to {sum}");
    assert!((result.scores[1].probability - 1.0 / (1.0 + (-0.2f32 / 0.04).exp())).abs() < 1e-6, "{result:?}");
}

#[test]
fn a_threshold_withholds_an_unsure_label() {
    let unsure = ClassifySpec { threshold: Some(0.9), temperature: Some(1.0), ..spec(XY) };
    let result = classified(&zero_shot(&unsure), vector([0.6, 0.8]));
    assert!(result.labels.is_empty(), "{result:?}");
    assert_eq!(result.scores.len(), 2);
}

#[test]
fn several_labels_come_most_probable_first_or_not_at_all() {
    let multi = zero_shot(&ClassifySpec { multi: true, ..spec(XY) });
    assert_eq!(classified(&multi, vector([0.6, 0.8])).labels, ["y", "x"]);
    assert_eq!(classified(&multi, vector([-0.6, -0.8])).labels, [""; 0]);
    assert_eq!(classified(&multi, vector([0.9, -0.4])).labels, ["x"]);
}

#[test]
fn a_head_classifies_with_its_own_labels_and_temperature() {
    let with_head = ClassifySpec { model: "m".into(), head: Some("h".into()), ..ClassifySpec::default() };
    let task = with_head.with_head(&model(ModelKind::Encoder, &[]), head(), "v1").unwrap();
    let result = classified(&task, vector([1.0, 0.0]));
    assert_eq!(result.labels, ["x"]);
    assert!((result.scores[0].probability - 1.0 / (1.0 + (-2.0f32).exp())).abs() < 1e-6, "{result:?}");
}

#[test]
fn a_head_that_does_not_fit_is_refused_with_a_mend() {
    let encoder = model(ModelKind::Encoder, &[]);
    let plain = ClassifySpec { model: "m".into(), head: Some("h".into()), ..ClassifySpec::default() };
    let says = |spec: &ClassifySpec, head: LinearHead| spec.with_head(&encoder, head, "v").unwrap_err().to_string();
    assert!(
        says(&plain, LinearHead { revision: "r2".into(), ..head() })
            .contains("was trained on revision r2 of model `m`, but the loaded one is r1")
    );
    assert!(says(&plain, LinearHead { dimension: 1, weight: vec![1.0, 2.0], ..head() }).contains("vectors of 1 components"));
    assert!(says(&plain, LinearHead { multi: true, ..head() }).contains("`multi: true`"));
    let other = ClassifySpec { labels: Some(labels(&[("x", "a"), ("z", "b")])), ..plain };
    assert!(says(&other, head()).contains("labels x, z, but the head was trained on x, y"));
}

#[test]
fn a_checkpoint_brings_its_labels_and_they_can_be_renamed() {
    let checkpoint = model(ModelKind::Classifier, &["LABEL_0", "LABEL_1"]);
    let own = ClassifySpec { model: "m".into(), ..ClassifySpec::default() }.with_checkpoint(&checkpoint).unwrap();
    assert_eq!(classified(&own, Prediction::Logits(vec![0.0, 2.0])).labels, ["LABEL_1"]);
    let renamed = spec(&[("LABEL_1", "good"), ("LABEL_0", "bad")]).with_checkpoint(&checkpoint).unwrap();
    assert_eq!(classified(&renamed, Prediction::Logits(vec![0.0, 2.0])).labels, ["good"]);
    let says = |pairs: &[(&str, &str)]| spec(pairs).with_checkpoint(&checkpoint).unwrap_err().to_string();
    assert!(
        says(&[("LABEL_7", "good"), ("LABEL_0", "bad")]).contains("has no class `LABEL_7`; its classes are LABEL_0, LABEL_1")
    );
    assert!(says(&[("LABEL_0", "same"), ("LABEL_1", "same")]).contains("the same name"));
}

#[test]
fn answers_that_do_not_fit_are_dead_letters() {
    let task = zero_shot(&spec(XY));
    let checkpoint = spec(&[("a", "A"), ("b", "B")]).with_checkpoint(&model(ModelKind::Classifier, &["a", "b"])).unwrap();
    let cases = [
        (&task, vector([f32::NAN, 0.0])),
        (&task, Prediction::Vectors(Vec::new())),
        (&task, Prediction::Logits(vec![1.0, 2.0])),
        (&checkpoint, Prediction::Logits(vec![1.0])),
        (&checkpoint, vector([1.0, 0.0])),
    ];
    for (task, prediction) in cases {
        let failure = task
            .interpret(&document(), &TemplateContext::default(), vec![prediction.clone()])
            .expect_err("an answer that does not fit was taken");
        assert!(matches!(&failure, Failure::Poison(poison) if poison.class == FailureClass::Model), "{prediction:?}: {failure}");
    }
}

#[test]
fn whatever_decides_the_output_is_in_the_signature() {
    let base = spec(XY);
    let signature = |spec: &ClassifySpec| zero_shot(spec).signature;
    let reworded = spec(&[("x", "rightwards"), ("y", "upwards")]);
    for other in [
        reworded,
        ClassifySpec { temperature: Some(0.1), ..base.clone() },
        ClassifySpec { multi: true, ..base.clone() },
        ClassifySpec { threshold: Some(0.2), ..base.clone() },
    ] {
        assert_ne!(signature(&other), signature(&base), "{other:?} gives other results under the same signature");
    }
    assert_eq!(signature(&base), signature(&base.clone()));
    let encoder = model(ModelKind::Encoder, &[]);
    let at = |path: &str, version: &str| {
        let spec = ClassifySpec { model: "m".into(), head: Some(path.into()), ..ClassifySpec::default() };
        spec.with_head(&encoder, head(), version).unwrap().signature
    };
    assert_ne!(at("h", "v1"), at("h", "v2"), "another head gives other results under the same signature");
    assert_eq!(at("h", "v1"), at("moved/h", "v1"), "the path of the head does not matter");
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let says = |spec: ClassifySpec| spec.problems(Path::new("")).join("; ");
    assert!(says(spec(&[])).contains("has no labels"));
    assert!(says(spec(&[("only", "one")])).contains("has one label, `only`"));
    assert!(says(spec(&[("a", "x"), ("b", " ")])).contains("label `b` without a description"));
    assert!(says(ClassifySpec { temperature: Some(0.0), ..spec(XY) }).contains("`temperature`"));
    assert!(says(ClassifySpec { threshold: Some(1.5), ..spec(XY) }).contains("`threshold`"));
    assert!(
        says(ClassifySpec { head: Some("h".into()), temperature: Some(1.0), ..spec(XY) })
            .contains("both `temperature` and `head`")
    );
    assert_eq!(says(spec(XY)), "");
}

fn by_generator(spec: &ClassifySpec, prior: Vec<f32>) -> Classify {
    let (model, labels) = (crate::task::tests::generator_info(), spec.labels.clone().unwrap());
    let names = labels.0.iter().map(|(label, _)| label.as_str().into()).collect();
    let prompt = crate::task::label_scorer::task_prompt("topic", &model, &labels, None).unwrap();
    let budget = crate::task::context_budget::ContextBudget::new(Arc::new(crate::task::label_scorer::tests::Bytes), 512);
    spec.with_generator(&model, &labels, LabelScorer::new(prompt, names, prior, budget).unwrap()).unwrap()
}

#[test]
fn a_generator_gives_the_label_that_the_document_speaks_for() {
    let task = by_generator(&spec(XY), vec![-0.5, -3.0]);
    let result = classified(&task, Prediction::Scores(vec![-1.0, -2.0]));
    assert_eq!(result.labels, ["y"], "`x` is more likely, but less than without a document");
    let expected = 1.0 / (1.0 + (-1.5f32).exp());
    assert!((result.scores[1].probability - expected).abs() < 1e-6, "{result:?}");
    let flat = by_generator(&ClassifySpec { temperature: Some(3.0), threshold: Some(0.9), ..spec(XY) }, vec![-0.5, -3.0]);
    let result = classified(&flat, Prediction::Scores(vec![-1.0, -2.0]));
    assert!(result.labels.is_empty(), "a label below the threshold was assigned");
    assert!((result.scores[1].probability - 1.0 / (1.0 + (-0.5f32).exp())).abs() < 1e-6, "{result:?}");
    assert_eq!(Task::prompt(&task).map(|prompt| &*prompt.name), Some("built-in/classify"));
}

#[test]
fn scores_that_do_not_fit_the_labels_are_dead_letters() {
    let task = by_generator(&spec(XY), vec![-0.5, -3.0]);
    for bad in
        [Prediction::Scores(vec![-1.0]), Prediction::Scores(vec![-1.0, f32::NEG_INFINITY]), Prediction::Logits(vec![1.0, 2.0])]
    {
        let failure = task.interpret(&document(), &TemplateContext::default(), vec![bad]).unwrap_err();
        assert!(matches!(&failure, Failure::Poison(poison) if poison.class == FailureClass::Model), "{failure}");
    }
}

#[test]
fn a_checkpoint_of_several_labels_is_not_read_as_one_of_one() {
    let several = ModelInfo { several_labels: true, ..model(ModelKind::Classifier, &["a", "b"]) };
    let one = ClassifySpec { model: "m".into(), ..ClassifySpec::default() };
    let error = one.with_checkpoint(&several).unwrap_err().to_string();
    assert!(error.contains("model `m`") && error.contains("set `multi: true`"), "{error}");
    let multi = ClassifySpec { multi: true, ..one }.with_checkpoint(&several).unwrap();
    let result = classified(&multi, Prediction::Logits(vec![1.0, 2.0]));
    assert_eq!(result.labels, ["b", "a"]);
    assert!((result.scores[1].probability - 1.0 / (1.0 + (-2.0f32).exp())).abs() < 1e-6, "{result:?}");
}
