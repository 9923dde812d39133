use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Map, json};

use super::*;
use crate::config::EngineConfig;

fn document(id: &str, text: &str) -> Document {
    let mut fields = Map::new();
    if !text.is_empty() {
        fields.insert("title".into(), json!(text));
    }
    Document { id: id.into(), version: 1, text: text.into(), metadata: Map::new(), fields }
}

async fn graph(tasks: &str) -> Graph {
    let text = format!("version: 1\nname: test\nsource: {{ topic: docs }}\ntasks:\n{tasks}");
    let definition = Definition::parse(Path::new("p.yaml"), &text).unwrap();
    let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
    Graph::build(&definition, &engine).await.unwrap()
}

async fn evaluate(tasks: &str, documents: &[Document]) -> Vec<Vec<String>> {
    shown(graph(tasks).await.evaluate(documents, &NoKnownResults).await.unwrap())
}

fn shown(outcomes: Vec<Vec<Outcome>>) -> Vec<Vec<String>> {
    let show = |outcome: &Outcome| match outcome {
        Outcome::Computed(computed) => format!("computed {}", computed.output.text().unwrap_or_default()),
        Outcome::Reused(ReusedOutput::Copied(computed)) => format!("copied {}", computed.output.text().unwrap_or_default()),
        Outcome::Reused(ReusedOutput::Unchanged { .. }) => "unchanged".into(),
        Outcome::Skipped(skip) => format!("skipped {}", skip.as_str()),
        Outcome::Dead(poison) => format!("dead {}", poison.class),
    };
    outcomes.iter().map(|row| row.iter().map(show).collect()).collect()
}

#[tokio::test]
async fn outcomes_stand_in_the_order_of_the_file_whatever_the_order_of_work() {
    let tasks = "
  last:  { render: { template: '{{ first.text }}!' } }
  first: { render: { template: '{{ document.text }}' } }";
    assert_eq!(
        evaluate(tasks, &[document("1", "a"), document("2", "b")]).await,
        [["computed a!", "computed a"], ["computed b!", "computed b"]]
    );
}

#[tokio::test]
async fn a_false_condition_skips_a_task_and_what_needs_it() {
    let tasks = "
  a: { render: { template: '{{ document.text }}' }, when: 'document.characters > 1' }
  b: { render: { template: 'b' }, needs: [a] }
  c: { render: { template: '{{ a.text }}' } }
  d: { render: { template: 'd' }, when: 'a.text == document.text' }
  e: { render: { template: 'e' }, when: 'a is not defined' }";
    assert_eq!(
        evaluate(tasks, &[document("1", "x")]).await,
        [["skipped condition", "skipped upstream", "skipped upstream", "skipped upstream", "computed e"]]
    );
    assert_eq!(
        evaluate(tasks, &[document("1", "xy")]).await,
        [["computed xy", "computed b", "computed xy", "computed d", "skipped condition"]]
    );
}

#[tokio::test]
async fn a_template_that_fails_is_a_dead_letter_of_its_document_only() {
    let tasks = "
  a: { render: { template: '{{ document.fields.title }}' } }
  b: { render: { template: 'b' }, needs: [a] }
  c: { render: { template: 'c' }, when: document.fields.title }";
    assert_eq!(
        evaluate(tasks, &[document("1", ""), document("2", "x")]).await,
        [["dead missing_field", "skipped upstream", "dead missing_field"], ["computed x", "computed b", "computed c"]]
    );
}

#[tokio::test]
async fn what_a_document_says_is_never_rendered_again() {
    let tasks = "
  a: { render: { template: '{{ document.text }}' } }
  b: { render: { template: '{{ a.text }}' } }";
    let text = "{{ document.id }}{% for x in y %}";
    assert_eq!(evaluate(tasks, &[document("1", text)]).await, [[format!("computed {text}"), format!("computed {text}")]]);
}

#[tokio::test]
async fn equal_work_of_one_batch_is_done_once() {
    let tasks = "  a: { render: { template: '{{ document.text }}' } }";
    let documents = [document("1", "same"), document("2", "other"), document("3", "same")];
    assert_eq!(evaluate(tasks, &documents).await, [["computed same"], ["computed other"], ["copied same"]]);
}

/// Records the lookups, and knows the given results.
#[derive(Default)]
struct Memory {
    asked: Mutex<Vec<WantedResult>>,
    products: Mutex<HashMap<Fingerprint, ComputedOutput>>,
    short: bool,
    forgetful: bool,
}

impl KnownResults for Memory {
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>> {
        self.asked.lock().unwrap().extend(wanted.iter().cloned());
        let products = self.products.lock().unwrap();
        let answer = |wanted: &WantedResult| {
            let computed = products.get(&wanted.fingerprint)?;
            let output = (wanted.output && !self.forgetful).then(|| computed.output.clone());
            Some(ReusedOutput::Unchanged { fingerprint: wanted.fingerprint, output })
        };
        let mut found: Vec<_> = wanted.iter().map(answer).collect();
        found.truncate(found.len() - usize::from(self.short));
        Box::pin(std::future::ready(Ok(found)))
    }
}

#[tokio::test]
async fn known_results_are_reused_and_feed_the_tasks_after_them() {
    let graph =
        graph("  a: { render: { template: '{{ document.text }}' } }\n  b: { render: { template: '{{ a.text }}?' } }").await;
    let documents = [document("1", "x")];
    let memory = Memory::default();
    let first = graph.evaluate(&documents, &memory).await.unwrap();
    let Outcome::Computed(computed) = &first[0][0] else { panic!("the first evaluation reused something") };
    memory.products.lock().unwrap().insert(computed.fingerprint, computed.clone());
    assert_eq!(shown(graph.evaluate(&documents, &memory).await.unwrap()), [["unchanged", "computed x?"]]);
    let asked = memory.asked.lock().unwrap();
    let names: Vec<&str> = asked.iter().map(|wanted| &*wanted.task).collect();
    assert_eq!(names, ["a", "b", "a", "b"]);
    assert_eq!(asked[0], asked[2]);
    assert_eq!((asked[0].output, asked[1].output), (true, false), "only `a` is read by another task");
    assert!(asked.iter().all(|wanted| wanted.made), "a template's text is at hand before anything is looked up");
}

#[tokio::test]
async fn a_known_row_needs_not_bring_the_output_that_is_at_hand() {
    let graph =
        graph("  a: { render: { template: '{{ document.text }}' } }\n  b: { render: { template: '{{ a.text }}?' } }").await;
    let documents = [document("1", "x")];
    let memory = Memory { forgetful: true, ..Memory::default() };
    let first = graph.evaluate(&documents, &memory).await.unwrap();
    let Outcome::Computed(computed) = &first[0][0] else { panic!("the first evaluation reused something") };
    memory.products.lock().unwrap().insert(computed.fingerprint, computed.clone());
    assert_eq!(shown(graph.evaluate(&documents, &memory).await.unwrap()), [["unchanged", "computed x?"]]);
}

#[tokio::test]
async fn a_lookup_that_answers_too_little_stops_the_batch() {
    let graph = graph("  a: { render: { template: '{{ document.text }}' } }").await;
    let memory = Memory { short: true, ..Memory::default() };
    let error = graph.evaluate(&[document("1", "x"), document("2", "y")], &memory).await.unwrap_err();
    assert_eq!(error.to_string(), "database: 2 results were looked up, but 1 answers came back");
}

#[tokio::test]
async fn a_model_that_is_not_loaded_is_named_before_any_document() {
    let text = "version: 1\nname: test\nsource: { topic: docs }\ntasks:\n  v: { embed: { model: minilm } }";
    let definition = Definition::parse(Path::new("p.yaml"), text).unwrap();
    let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
    let error = Graph::build(&definition, &engine).await.err().expect("a graph was built without its model");
    assert_eq!(format!("{error:#}"), "p.yaml:5:6: task `v`: unknown model `minilm`; none is configured");
}

#[test]
fn evaluation_may_move_between_threads() {
    fn movable<T: Send>(_: impl FnOnce(&'static Graph, &'static [Document]) -> T) {}
    movable(|graph, documents| graph.evaluate(documents, &NoKnownResults));
}
