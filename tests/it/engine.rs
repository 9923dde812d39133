//! The model host against numbers that other programs computed. The scripts that computed them are next to the fixtures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidemill::config::{EngineConfig, ModelConfig};
use tidemill::demo::download;
use tidemill::engine::{Answer, Chunking, Engine, ModelKind, Prediction, Request, TextKind, Work};

use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, sentence_encoder_equals_sentence_transformers),
        trial!(Needs::NOTHING, sharded_xlm_roberta_equals_transformers),
        trial!(Needs::NOTHING, bert_classifier_equals_transformers => classifier("tiny-bert-classifier")),
        trial!(Needs::NOTHING, xlm_roberta_classifier_equals_transformers => classifier("tiny-xlm-roberta-classifier")),
    ]
}

const NAME: &str = "model";

#[derive(Deserialize)]
struct Golden {
    max_tokens: usize,
    cases: Vec<VectorCase>,
}

#[derive(Deserialize)]
struct VectorCase {
    text: String,
    ids: Vec<u32>,
    byte_spans: Option<Vec<(usize, usize)>>,
    #[serde(alias = "mean_pooled_normalized")]
    vector: Vec<f32>,
}

#[derive(Deserialize)]
struct LogitsCase {
    text: String,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn golden<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixtures().join("golden").join(file)).unwrap()).unwrap()
}

fn cases<T: DeserializeOwned>(model: &str) -> Vec<T> {
    let mut tiny: serde_json::Value = golden("tiny.json");
    serde_json::from_value(tiny[model].take()).unwrap()
}

fn start(path: PathBuf) -> Engine {
    Engine::start(&EngineConfig::default(), &BTreeMap::from([(NAME.to_owned(), ModelConfig::local(path))])).unwrap()
}

async fn answers(engine: &Engine, works: impl Iterator<Item = Work>) -> Vec<Answer> {
    let requests = works.map(|work| Request { model: NAME.into(), work }).collect();
    engine.run(requests).await.unwrap().into_iter().map(Result::unwrap).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Checks vectors, token counts and, where the golden file has them, spans of all cases.
async fn assert_vectors(engine: &Engine, cases: &[VectorCase]) {
    let encode = |case: &VectorCase| Work::Encode {
        texts: vec![case.text.as_str().into()],
        chunking: Chunking::Truncate,
        kind: TextKind::Plain,
    };
    for (case, answer) in cases.iter().zip(answers(engine, cases.iter().map(encode)).await) {
        let Prediction::Vectors(texts) = answer.prediction else { panic!("an encoder answers with vectors") };
        let chunk = &texts[0].chunks[0];
        let similarity = cosine(&chunk.vector, &case.vector);
        assert!(similarity >= 0.9999, "{:?}: cosine {similarity} to the golden vector", case.text);
        assert_eq!(chunk.tokens as usize, case.ids.len(), "tokens of {:?}", case.text);
        if let Some(spans) = &case.byte_spans {
            let words: Vec<_> = spans.iter().filter(|(start, end)| start < end).collect();
            let (first, last) = (words.first().unwrap().0, words.last().unwrap().1);
            assert!(
                chunk.span.start <= first && last <= chunk.span.end,
                "{:?}: span {:?} misses {first}..{last}",
                case.text,
                chunk.span
            );
        }
    }
}

async fn sentence_encoder_equals_sentence_transformers() {
    let golden: Golden = golden("minilm.json");
    let folder = download::sentence_encoder(&|message| eprintln!("{message}")).unwrap();
    let engine = start(folder);
    let model = engine.model(NAME).unwrap();
    assert_eq!((model.kind, model.dimension, model.max_tokens), (ModelKind::Encoder, 384, golden.max_tokens));
    assert!(golden.cases.len() >= 10, "the file must have at least ten texts, and has {}", golden.cases.len());
    assert_vectors(&engine, &golden.cases).await;
}

async fn sharded_xlm_roberta_equals_transformers() {
    let engine = start(fixtures().join("models/tiny-xlm-roberta"));
    assert_vectors(&engine, &cases("tiny-xlm-roberta")).await;
}

async fn classifier(name: &str) {
    let engine = start(fixtures().join("models").join(name));
    let cases: Vec<LogitsCase> = cases(name);
    let model = engine.model(NAME).unwrap();
    assert_eq!((model.kind, model.labels.len()), (ModelKind::Classifier, cases[0].logits.len()));
    let works = cases.iter().map(|case| Work::Classify { text: case.text.as_str().into() });
    for (case, answer) in cases.iter().zip(answers(&engine, works).await) {
        let Prediction::Logits(logits) = answer.prediction else { panic!("a classifier answers with logits") };
        assert_eq!(answer.tokens as usize, case.ids.len(), "tokens of {:?}", case.text);
        for (class, (got, expected)) in logits.iter().zip(&case.logits).enumerate() {
            assert!((got - expected).abs() < 1e-4, "{:?}, class {class}: expected {expected}, got {got}", case.text);
        }
    }
}
