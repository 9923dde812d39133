//! The generator's tasks on a real decoder with random weights: what it writes is noise, but noise of the right shape.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Map;

use super::*;
use crate::config::{EngineConfig, ModelConfig};
use crate::outcome::{Output, SummaryMode};

const FACTS: &str = "---
name: facts
model: { max_tokens: 120 }
schema:
  type: object
  properties:
    name: { type: string, minLength: 1, maxLength: 8 }
    size: { enum: [S, M] }
    features: { type: array, items: { type: string, maxLength: 4 }, minItems: 2, maxItems: 2 }
  required: [name, size, features]
  additionalProperties: false
---
facts: {{ document.text }}";

const LINE: &str = "---
name: line
model: { max_tokens: 60 }
schema: { type: object, properties: { line: { type: string, maxLength: 6 } }, required: [line], additionalProperties: false }
---
{{ index }}: {{ item }} of {{ facts.name }}";

const GIST: &str = "---\nname: gist\nmodel: { max_tokens: 24 }\n---\ngist: {{ document.text }}";

const TOPIC: &str = "---\nname: topic\n---\ntopic: {{ document.text }}";

const TASKS: &str = "
  facts: { extract: { model: writer, prompt: facts.md, strict: false } }
  lines: { write: { model: writer, prompt: line.md, for_each: 'facts.features' } }
  topic: { classify: { model: writer, prompt: topic.md, labels: { garden: plants, kitchen: cooking } } }
  gist: { summarize: { model: writer, mode: abstractive, prompt: gist.md, grounding: off } }
  small: { render: { template: '{{ facts.size }} {{ lines.count }}' }, when: \"topic.confidence > 0\" }";

async fn graph(tasks: &str, files: &[(&str, &str)]) -> anyhow::Result<Graph> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text)?;
    }
    let text = format!("version: 1\nname: test\nsource: {{ topic: docs }}\ntasks:\n{tasks}");
    let definition = Definition::parse(&folder.path().join("p.yaml"), &text)?;
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generators/qwen3");
    let models = BTreeMap::from([("writer".to_owned(), ModelConfig::local(model))]);
    let engine = Engine::start(&EngineConfig { threads: Some(1), ..EngineConfig::default() }, &models)?;
    Graph::build(&definition, &engine).await
}

fn document(id: &str, text: &str) -> Document {
    Document { id: id.into(), version: 1, text: text.into(), metadata: Map::new(), fields: Map::new() }
}

fn output(outcome: &Outcome) -> &Output {
    match outcome {
        Outcome::Computed(computed) => &computed.output,
        other => panic!("nothing was computed: {other:?}"),
    }
}

#[tokio::test]
async fn every_task_of_the_generator_works_on_one_document() {
    let files = [("facts.md", FACTS), ("line.md", LINE), ("gist.md", GIST), ("topic.md", TOPIC)];
    let graph = graph(TASKS, &files).await.unwrap();
    let long = "The mill turns slowly by the water. ".repeat(40);
    let documents = [document("1", "A small bowl of oak."), document("2", &long[..300]), document("3", &long)];
    let rows = graph.evaluate(&documents, &NoKnownResults).await.unwrap();
    for row in &rows[..2] {
        let Output::Extraction(facts) = output(&row[0]) else { panic!("no extraction: {row:?}") };
        assert_eq!(facts.fields.keys().collect::<Vec<_>>(), ["name", "size", "features"]);
        assert_eq!(facts.leaves.len(), 4);
        assert!(facts.leaves[0].confidence.is_some_and(|c| c.minimum <= c.mean && c.mean <= 1.0), "{facts:?}");
        assert_eq!((facts.leaves[1].grounded, facts.leaves[0].grounded.is_some()), (None, true));
        let Output::Items(lines) = output(&row[1]) else { panic!("no items: {row:?}") };
        assert_eq!(lines.len(), 2);
        let marked = |line: &Output| matches!(line, Output::WrittenText(text) if !text.unsupported.is_empty());
        assert!(lines.iter().any(marked), "noise counts as supported by the document: {lines:?}");
        let Output::Classification(topic) = output(&row[2]) else { panic!("no classification: {row:?}") };
        let sum: f32 = topic.scores.iter().map(|score| score.probability).sum();
        assert!((sum - 1.0).abs() < 1e-5 && topic.labels.len() == 1, "{topic:?}");
        let small = output(&row[4]).text().unwrap();
        assert_eq!(small, format!("{} 2", facts.fields["size"].as_str().unwrap()));
    }
    let Outcome::Dead(poison) = &rows[2][0] else { panic!("a prompt longer than the context was answered") };
    assert_eq!(poison.class, FailureClass::TooLong, "{poison}");
    assert!(matches!(output(&rows[2][2]), Output::Classification(_)), "of a long text the beginning is labelled");
    let Outcome::Computed(gist) = &rows[2][3] else { panic!("a long text was not summarized: {:?}", rows[2][3]) };
    let Output::Summary(summary) = &gist.output else { panic!("no summary: {gist:?}") };
    assert_eq!((summary.mode, summary.spans.len()), (SummaryMode::Abstractive, 0));
    assert!(gist.cost.generated > 24, "one summary of {} tokens stands for the pieces of a long text", gist.cost.generated);
    let again = graph.evaluate(&documents, &NoKnownResults).await.unwrap();
    assert_eq!(format!("{:?}", output(&again[0][0])), format!("{:?}", output(&rows[0][0])), "the same question, another answer");
}

#[tokio::test]
async fn a_summary_of_noise_gives_way_to_sentences_of_the_text() {
    let judged = "  gist: { summarize: { model: writer, mode: abstractive, prompt: gist.md } }";
    let graph = graph(judged, &[("gist.md", GIST)]).await.unwrap();
    let document = document("1", "The mill turns. It stands by the water of the village.");
    let rows = graph.evaluate(&[document], &NoKnownResults).await.unwrap();
    let Outcome::Computed(gist) = &rows[0][0] else { panic!("no summary: {rows:?}") };
    let Output::Summary(summary) = &gist.output else { panic!("no summary: {gist:?}") };
    assert_eq!((summary.text.as_str(), summary.mode), ("It stands by the water of the village.", SummaryMode::Extractive));
    assert!(!summary.removed.is_empty());
    assert!(gist.cost.generated > 24, "{} tokens were written in two tries of 24", gist.cost.generated);
}

/// Reports every row as unchanged, without its output.
struct RowsOnly;

impl KnownResults for RowsOnly {
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>> {
        let answer = |wanted: &WantedResult| Some(ReusedOutput::Unchanged { fingerprint: wanted.fingerprint, output: None });
        Box::pin(std::future::ready(Ok(wanted.iter().map(answer).collect())))
    }
}

#[tokio::test]
async fn a_known_row_without_the_output_that_others_read_is_computed_again() {
    let graph = graph(TASKS, &[("facts.md", FACTS), ("line.md", LINE), ("gist.md", GIST), ("topic.md", TOPIC)]).await.unwrap();
    let rows = graph.evaluate(&[document("1", "A small bowl of oak.")], &RowsOnly).await.unwrap();
    assert!(matches!(output(&rows[0][0]), Output::Extraction(_)), "`lines` reads the facts");
    assert!(matches!(&rows[0][3], Outcome::Reused(ReusedOutput::Unchanged { output: None, .. })), "nobody reads the gist");
}

#[tokio::test]
async fn results_name_their_model_and_their_prompt() {
    let files = [("facts.md", FACTS), ("line.md", LINE), ("gist.md", GIST), ("topic.md", TOPIC)];
    let graph = graph(TASKS, &files).await.unwrap();
    let names: Vec<&str> = graph.prompts().map(|prompt| &*prompt.name).collect();
    assert_eq!(names, ["facts", "line", "topic", "gist"]);
    for (lineage, prompt) in graph.lineages().iter().zip(graph.prompts()) {
        assert_eq!(lineage.model.as_deref(), Some("writer"));
        assert_eq!(lineage.prompt.as_deref(), Some(prompt.version().as_str()));
    }
    assert_eq!(graph.lineages()[4], Lineage::default());
}

#[tokio::test]
async fn what_a_generator_cannot_do_is_refused_at_start() {
    for (task, says) in [
        ("{ embed: { model: writer } }", "is a generator, but `embed` needs a sentence encoder"),
        ("{ classify: { model: writer } }", "is a generator, which defines none: set `labels`"),
        ("{ classify: { model: writer, multi: true, labels: { a: x, b: y } } }", "a generator chooses one label"),
        ("{ classify: { model: writer, head: h.safetensors } }", "remove `head`"),
        ("{ write: { model: writer, prompt: gist.md, max_tokens: 512 } }", "leave no space for a prompt"),
        ("{ extract: { model: writer, prompt: facts.md, max_tokens: 8 } }", "raise max_tokens"),
    ] {
        let files = [("facts.md", FACTS), ("gist.md", GIST)];
        match graph(&format!("  t: {task}"), &files).await {
            Ok(_) => panic!("{task} was accepted, which should say: {says}"),
            Err(error) => assert!(format!("{error:#}").contains(says), "expected `{says}` in: {error:#}"),
        }
    }
}

#[tokio::test]
async fn a_strict_extraction_lets_nothing_of_its_own_through() {
    let tasks = "  facts: { extract: { model: writer, prompt: facts.md } }";
    let graph = graph(tasks, &[("facts.md", FACTS)]).await.unwrap();
    let text = "A small bowl of oak.";
    let rows = graph.evaluate(&[document("1", text)], &NoKnownResults).await.unwrap();
    let Output::Extraction(facts) = output(&rows[0][0]) else { panic!("no extraction: {rows:?}") };
    let quoted: Vec<&str> = [&facts.fields["name"], &facts.fields["features"][0], &facts.fields["features"][1]]
        .into_iter()
        .map(|value| value.as_str().unwrap())
        .collect();
    assert!(quoted.iter().all(|quoted| text.contains(quoted)), "noise was taken for what the document says: {quoted:?}");
    assert!(facts.leaves.iter().all(|leaf| leaf.grounded != Some(false)), "{facts:?}");
}
