//! Summaries of stories with the real encoder.
//!
//! `TIDEMILL_BENCH=1 TIDEMILL_DATA=folder cargo test --test it summaries` also measures how far they agree with people's abstracts. The
//! folder holds `grimm_tales.jsonl` (`id`, `abstract`, `text`), which is not part of the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::{Map, json};
use tidemill::config::{EngineConfig, ModelConfig};
use tidemill::demo::download;
use tidemill::document::Document;
use tidemill::engine::Engine;
use tidemill::outcome::{Outcome, Output, Summary};
use tidemill::pipeline::definition::Definition;
use tidemill::pipeline::graph::{Graph, NoKnownResults};

use crate::harness::trial::{Needs, trial};

/// Sentences of the summaries that are measured.
const MEASURED: usize = 3;

/// The tests, and the measurement where `TIDEMILL_BENCH` is set.
pub fn trials() -> Vec<Trial> {
    // The encoder may have to be fetched first, on a busy machine.
    let with_encoder = Needs::NOTHING.within(Duration::from_secs(300));
    let mut trials = vec![trial!(with_encoder, summaries_of_stories_keep_quotations_whole_and_pronouns_with_their_antecedents)];
    if std::env::var_os("TIDEMILL_BENCH").is_some() {
        let alone = Needs::NOTHING.alone().within(Duration::from_secs(900));
        trials.push(trial!(alone, summaries_agree_with_abstracts_more_than_the_lead_does));
    }
    trials
}

/// A line of the fixture: a story as a reader divides it.
#[derive(Deserialize)]
struct Tale {
    id: String,
    sentences: Vec<String>,
    /// Which sentences begin with a pronoun whose antecedent is in the sentence before.
    needs: Vec<usize>,
}

/// A line of `grimm_tales.jsonl`.
#[derive(Deserialize)]
struct AbstractedTale {
    id: String,
    #[serde(rename = "abstract")]
    reference: String,
    text: String,
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{} cannot be read: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn engine() -> Engine {
    let folder = download::sentence_encoder(&|message| eprintln!("{message}")).unwrap();
    let models = BTreeMap::from([("minilm".to_owned(), ModelConfig::local(folder))]);
    Engine::start(&EngineConfig::default(), &models).unwrap()
}

async fn summaries(engine: &Engine, sentences: usize, texts: &[(&str, &str)]) -> Vec<Summary> {
    let task = json!({ "summarize": { "model": "minilm", "sentences": sentences } });
    let file = json!({ "version": 1, "name": "tales", "source": { "topic": "t" }, "tasks": { "gist": task } });
    let definition = Definition::parse(Path::new("tales.yaml"), &file.to_string()).unwrap();
    let graph = Graph::build(&definition, engine).await.unwrap();
    let document = |(id, text): &(&str, &str)| Document {
        id: (*id).into(),
        version: 1,
        text: (*text).into(),
        metadata: Map::new(),
        fields: Map::new(),
    };
    let documents: Vec<_> = texts.iter().map(document).collect();
    let outcomes = graph.evaluate(&documents, &NoKnownResults).await.unwrap();
    let summary = |outcomes: Vec<Outcome>| match outcomes.into_iter().next() {
        Some(Outcome::Computed(computed)) => match computed.output {
            Output::Summary(summary) => summary,
            other => panic!("`summarize` gave {other:?}"),
        },
        other => panic!("there is no summary, but {other:?}"),
    };
    outcomes.into_iter().map(summary).collect()
}

async fn summaries_of_stories_keep_quotations_whole_and_pronouns_with_their_antecedents() {
    let fixture: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/tales.jsonl"].iter().collect();
    let tales: Vec<Tale> = lines(&fixture);
    let texts: Vec<String> = tales.iter().map(|tale| tale.sentences.join(" ")).collect();
    let texts: Vec<(&str, &str)> = tales.iter().zip(&texts).map(|(tale, text)| (tale.id.as_str(), text.as_str())).collect();
    let engine = engine();
    for count in 1..=6 {
        let summaries = summaries(&engine, count, &texts).await;
        for ((tale, (_, text)), summary) in tales.iter().zip(&texts).zip(summaries) {
            assert_eq!(summary.spans.len(), count, "sentences of {}", tale.id);
            let place = |sentence: &str| tale.sentences.iter().position(|known| known == sentence);
            let cut: Vec<&str> = summary.spans.iter().map(|span| &text[span.start..span.end]).collect();
            let places: Vec<usize> = cut
                .iter()
                .map(|sentence| place(sentence).unwrap_or_else(|| panic!("{}: {sentence:?} is no sentence", tale.id)))
                .collect();
            for needing in tale.needs.iter().filter(|needing| places.contains(needing)) {
                assert!(places.contains(&(needing - 1)), "{}: nothing says who is meant in {}", tale.id, summary.text);
            }
            assert_eq!(places[0], 0, "{}: the summary does not begin with who it is about: {}", tale.id, summary.text);
        }
    }
}

/// Compares with the first sentences, which are hard to beat, by ROUGE-L (Lin, 2004) without stemming. The line that it prints
/// holds the summaries, so that other measures can be computed from it.
async fn summaries_agree_with_abstracts_more_than_the_lead_does() {
    let folder: PathBuf =
        std::env::var_os("TIDEMILL_DATA").expect("TIDEMILL_DATA names no folder; set it to one that holds the data").into();
    let tales: Vec<AbstractedTale> = lines(&folder.join("grimm_tales.jsonl"));
    let texts: Vec<(&str, &str)> = tales.iter().map(|tale| (tale.id.as_str(), tale.text.as_str())).collect();
    let engine = engine();
    let chosen = summaries(&engine, MEASURED, &texts).await;
    let mut rows = Vec::new();
    let (mut ours, mut leads) = (0.0, 0.0);
    for (tale, summary) in tales.iter().zip(&chosen) {
        // As many sentences as are considered is the whole text, with the same boundaries.
        let all = &summaries(&engine, 256, &[(&tale.id, &tale.text)]).await[0].spans;
        let lead: Vec<&str> = all.iter().take(MEASURED).map(|span| &tale.text[span.start..span.end]).collect();
        let (own, first) = (rouge_l(&tale.reference, &summary.text), rouge_l(&tale.reference, &lead.join(" ")));
        ours += own / tales.len() as f64;
        leads += first / tales.len() as f64;
        rows.push(json!({ "id": tale.id, "rouge_l": own, "lead": first, "summary": summary.text }));
    }
    println!("{}", json!({ "tales": tales.len(), "sentences": MEASURED, "rouge_l": ours, "lead": leads, "rows": rows }));
    assert!(ours > leads, "the summaries agree with the abstracts at {ours:.4}, the first sentences at {leads:.4}");
}

/// The harmonic mean of precision and recall of the longest common subsequence of words.
fn rouge_l(reference: &str, summary: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
        parts.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let (reference, summary) = (words(reference), words(summary));
    let mut lengths = vec![0usize; summary.len() + 1];
    for word in &reference {
        let mut diagonal = 0;
        for (index, other) in summary.iter().enumerate() {
            let above = lengths[index + 1];
            lengths[index + 1] = if word == other { diagonal + 1 } else { above.max(lengths[index]) };
            diagonal = above;
        }
    }
    2.0 * lengths[summary.len()] as f64 / (reference.len() + summary.len()).max(1) as f64
}
