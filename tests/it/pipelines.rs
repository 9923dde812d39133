//! Pipelines with real models: the shipped pipelines with the sentence encoder, and every kind of task with tiny checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidemill::config::{Config, EngineConfig, ModelConfig};
use tidemill::demo::defaults::with_models;
use tidemill::document::avro::Schemas;
use tidemill::document::{DecodedRecord, Decoder, Document};
use tidemill::engine::Engine;
use tidemill::failure::Poison;
use tidemill::outcome::{ComputedOutput, Outcome, Output, ReusedOutput};
use tidemill::pipeline::check::check;
use tidemill::pipeline::definition::Definition;
use tidemill::pipeline::graph::{Graph, NoKnownResults};
use tidemill::pipeline::train::{TrainOptions, train_head};
use tidemill::record::{Partition, Record, RecordLocation};
use tokio::sync::OnceCell;

use crate::harness::trial::{Needs, trial};

/// The encoder may have to be fetched first, on a busy machine.
const WITH_ENCODER: Needs = Needs::NOTHING.within(Duration::from_secs(300));

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, every_kind_of_task_works_on_one_document),
        trial!(Needs::NOTHING, a_model_that_does_not_fit_its_task_is_refused_at_start),
        trial!(Needs::NOTHING, each_sample_record_becomes_what_its_truth_says),
        trial!(WITH_ENCODER, the_examples_of_shipped_pipelines_come_true),
        trial!(WITH_ENCODER, an_example_that_does_not_come_true_is_named),
        trial!(WITH_ENCODER, products_are_classified_by_descriptions_and_by_a_trained_head),
    ]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tiny() -> Engine {
    let model = |name: &str| ModelConfig::local(root().join("tests/fixtures/models").join(name));
    let models = [("encoder", model("tiny-xlm-roberta")), ("classifier", model("tiny-bert-classifier"))];
    let models: BTreeMap<_, _> = models.into_iter().map(|(name, model)| (name.to_owned(), model)).collect();
    Engine::start(&EngineConfig { threads: Some(1), ..EngineConfig::default() }, &models).unwrap()
}

async fn encoder() -> &'static Engine {
    static ENGINE: OnceCell<Engine> = OnceCell::const_new();
    ENGINE
        .get_or_init(|| async {
            let mut config = Config::default();
            with_models(&mut config).await.unwrap();
            tokio::task::spawn_blocking(move || Engine::start(&config.engine, &config.models).unwrap()).await.unwrap()
        })
        .await
}

fn definition(tasks: &str) -> Definition {
    let text = format!("version: 1\nname: test\nsource: {{ topic: docs }}\ntasks:\n{tasks}");
    Definition::parse(Path::new("p.yaml"), &text).unwrap()
}

fn shipped(name: &str) -> Definition {
    Definition::load(root().join("pipelines").join(name)).unwrap()
}

fn decode(definition: &Definition, offset: usize, line: &str) -> Result<Document, Poison> {
    let place = RecordLocation { partition: Partition { topic: "samples".into(), number: 0 }, offset: offset as i64 };
    let record = Record { place, timestamp_ms: Some(0), key: None, payload: Some(line.to_owned().into()), headers: Vec::new() };
    match Decoder::new(&definition.source.document.in_json()).unwrap().decode(&record, &Schemas::none())? {
        DecodedRecord::Document(document) => Ok(document),
        DecodedRecord::Tombstone { id, .. } => panic!("a payload was taken for the delete of {id}"),
    }
}

fn product(outcome: &Outcome) -> &ComputedOutput {
    match outcome {
        Outcome::Computed(product) | Outcome::Reused(ReusedOutput::Copied(product)) => product,
        other => panic!("there is no output, but {other:?}"),
    }
}

async fn every_kind_of_task_works_on_one_document() {
    let definition = definition(
        "  about:  { classify: { model: encoder, labels: { mill: a mill by the water, sea: a ship at sea } } }
  some:   { classify: { model: encoder, multi: true, labels: { mill: [a mill, a wheel], sea: a ship } } }
  mood:   { classify: { model: classifier } }
  gist:   { summarize: { model: encoder, sentences: 1 }, when: 'document.tokens > 3' }
  never:  { summarize: { model: encoder }, when: 'document.tokens > 100000' }
  whole:  { embed: { model: encoder } }
  vector: { embed: { model: encoder, chunk: { tokens: 12, overlap: 4 } } }
  line:   { render: { template: '{{ mood.label }}/{{ gist.text }}/{{ vector.chunks }}' } }",
    );
    let engine = tiny();
    let graph = Graph::build(&definition, &engine).await.unwrap();
    let text = "The mill turns slowly by the water. The ship goes to sea at night. 물레방아가 물가에서 천천히 돌아갑니다.";
    let document = decode(&definition, 0, &json!({"id": 1, "text": text}).to_string()).unwrap();
    let outcomes = graph.evaluate(std::slice::from_ref(&document), &NoKnownResults).await.unwrap().remove(0);

    for (name, count) in [(0, 2), (1, 2), (2, 3)] {
        let Output::Classification(found) = &product(&outcomes[name]).output else { panic!("no classification") };
        assert_eq!(found.scores.len(), count);
        assert!(found.scores.iter().all(|score| (0.0..=1.0).contains(&score.probability)), "{found:?}");
    }
    let Output::Summary(summary) = &product(&outcomes[3]).output else { panic!("no summary") };
    assert_eq!(summary.spans.len(), 1);
    assert_eq!(summary.text, text[summary.spans[0].start..summary.spans[0].end]);
    assert!(matches!(outcomes[4], Outcome::Skipped(_)), "a text of few tokens passed `document.tokens > 100000`");
    assert_eq!(product(&outcomes[5]).cost.tokens, 0, "the text that `about` had encoded was encoded again for `whole`");
    let Output::Embedding(embedding) = &product(&outcomes[6]).output else { panic!("no vectors") };
    assert!(embedding.chunks.len() > 1 && embedding.chunks.iter().all(|chunk| chunk.tokens <= 14), "{embedding:?}");
    for pair in embedding.chunks.windows(2) {
        assert!(
            pair[1].span.start < pair[0].span.end,
            "neighbouring chunks share nothing: {:?} {:?}",
            pair[0].span,
            pair[1].span
        );
    }
    let line = product(&outcomes[7]).output.text().unwrap();
    let mood = product(&outcomes[2]).output.label().unwrap();
    assert_eq!(line, format!("{mood}/{}/{}", summary.text, embedding.chunks.len()));
}

async fn a_model_that_does_not_fit_its_task_is_refused_at_start() {
    let engine = tiny();
    for (task, says) in [
        ("{ embed: { model: classifier } }", "model `classifier` is a classifier, but `embed` needs a sentence encoder"),
        ("{ summarize: { model: classifier } }", "`summarize` needs a sentence encoder"),
        ("{ classify: { model: encoder } }", "has no labels, and model `encoder` is an encoder, which defines none"),
        ("{ classify: { model: classifier, head: h.safetensors } }", "a classifier with its own labels: remove `head`"),
        ("{ classify: { model: encoder, head: nowhere/h.safetensors } }", "train it with `tidemill train-head`"),
        ("{ classify: { model: classifier, labels: { a: x, b: y } } }", "has no class `a`; its classes are calm, lively, stormy"),
        ("{ embed: { model: encoder, chunk: { tokens: 100000 } } }", "reduce `chunk.tokens`"),
        ("{ embed: { model: encodr } }", "unknown model `encodr`"),
    ] {
        match Graph::build(&definition(&format!("  t: {task}")), &engine).await {
            Ok(_) => panic!("{task} was accepted, which should say: {says}"),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.starts_with("p.yaml:5:6: task `t`: ") && error.contains(says), "expected `{says}` in: {error}");
            }
        }
    }
}

fn truth() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("tests/fixtures/products_truth.json")).unwrap()).unwrap()
}

fn sample_lines() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("pipelines/samples/products.jsonl")).unwrap();
    text.lines().map(str::to_owned).collect()
}

async fn each_sample_record_becomes_what_its_truth_says() {
    let (definition, truth) = (shipped("products.yaml"), truth());
    let lines = sample_lines();
    assert_eq!(json!(lines.len()), truth["records"]);
    let dead: Vec<Value> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| decode(&definition, index, line).err().map(|poison| (index, poison)))
        .map(|(index, poison)| json!({"line": index + 1, "class": poison.class.as_str()}))
        .collect();
    assert_eq!(json!(dead), truth["dead_letters"]);
}

async fn the_examples_of_shipped_pipelines_come_true() {
    let engine = encoder().await;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root().join("pipelines")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(files.len() >= 2, "the pipelines are not where they should be: {files:?}");
    for file in files {
        let definition = Definition::load(&file).unwrap();
        assert!(!definition.examples.is_empty(), "{} has no examples", file.display());
        let problems: Vec<String> = check(&definition, engine).await.iter().map(ToString::to_string).collect();
        assert_eq!(problems, [""; 0]);
    }
}

async fn an_example_that_does_not_come_true_is_named() {
    let text = std::fs::read_to_string(root().join("pipelines/news.yaml")).unwrap();
    let wrong = text.replace("label: Sports, min_confidence: 0.7", "label: Business, min_confidence: 0.7");
    assert_ne!(wrong, text, "the example about sports is gone from news.yaml");
    let definition = Definition::parse(Path::new("news.yaml"), &wrong).unwrap();
    let problems = check(&definition, encoder().await).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let sentence = problems[0].to_string();
    assert!(sentence.contains("example `a match report`: task `topic`: expected label `Business`, found `Sports`"), "{sentence}");
}

async fn products_are_classified_by_descriptions_and_by_a_trained_head() {
    let engine = encoder().await;
    let lines = sample_lines();
    let plain = shipped("products.yaml");
    let only_topic =
        Definition { tasks: plain.tasks.iter().filter(|task| &*task.name == "topic").cloned().collect(), ..plain.clone() };
    let truth = english(&truth());
    let mut documents: Vec<Document> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Ok(document) = decode(&plain, index, line) else { continue };
        if truth.contains_key(&*document.id) && !documents.iter().any(|known| known.id == document.id) {
            documents.push(document);
        }
    }
    assert!(documents.len() > 50, "only {} English samples were found", documents.len());

    let by_descriptions = right(&Graph::build(&only_topic, engine).await.unwrap(), &documents, &truth).await;
    assert!(by_descriptions * 10 >= documents.len() * 9, "by descriptions {by_descriptions} of {} are right", documents.len());

    let folder = tempfile::tempdir().unwrap();
    let examples = folder.path().join("labelled.jsonl");
    let row = |document: &Document| {
        let mut fields = document.fields.clone();
        fields.insert("department".into(), json!(truth[&*document.id]));
        Value::Object(fields).to_string()
    };
    std::fs::write(&examples, documents.iter().map(row).collect::<Vec<_>>().join("\n")).unwrap();
    let output = folder.path().join("heads/topic.safetensors");
    let options = TrainOptions { task: "topic".into(), examples, label_field: "department".into(), output: Some(output.clone()) };
    let report = train_head(&only_topic, engine, &options).await.unwrap();
    assert_eq!((report.rows, report.skipped, report.labels.len()), (documents.len(), 0, 6));
    assert!(report.quality.accuracy > 0.6, "of the held-out products only {} are right", report.quality.accuracy);

    let text = "version: 1\nname: test\nsource: { topic: docs, id: sku, text: '{{ title }} {{ description }}' }\n\
         tasks: { topic: { classify: { model: minilm, head: heads/topic.safetensors } } }";
    let with_head = Definition::parse(&folder.path().join("p.yaml"), text).unwrap();
    let by_head = right(&Graph::build(&with_head, engine).await.unwrap(), &documents, &truth).await;
    assert!(by_head * 10 >= documents.len() * 9, "by the trained head {by_head} of {} are right", documents.len());
}

/// The expected department of each English sample.
fn english(truth: &Value) -> BTreeMap<String, String> {
    let categories = truth["categories"].as_object().unwrap();
    let skus = |languages: &Value| -> Vec<String> { serde_json::from_value(languages["en"].clone()).unwrap() };
    categories.iter().flat_map(|(name, languages)| skus(languages).into_iter().map(|sku| (sku, name.clone()))).collect()
}

async fn right(graph: &Graph, documents: &[Document], truth: &BTreeMap<String, String>) -> usize {
    let outcomes = graph.evaluate(documents, &NoKnownResults).await.unwrap();
    let label = |outcomes: &[Outcome]| product(&outcomes[0]).output.label().map(str::to_owned);
    documents.iter().zip(&outcomes).filter(|(document, outcomes)| label(outcomes).as_ref() == truth.get(&*document.id)).count()
}
