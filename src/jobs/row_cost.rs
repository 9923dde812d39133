//! The expected cost of rows, from the outcomes of sampled rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::document::{Document, look_up};
use crate::outcome::{Cost, Outcome};
use crate::pipeline::RecordOutcome;
use crate::pipeline::definition::Definition;
use crate::template::Condition;

/// The expected cost and outcome of one sampled row.
#[derive(Debug, Clone, Default)]
pub(super) struct RowCost {
    /// 1 if it is a record, 0 if it is left out because of its time.
    pub counts: f64,
    /// 1 if it contains a document.
    pub document: f64,
    /// Tokens read, tokens written, microseconds of device time.
    pub cost: [f64; 3],
    pub wall: f64,
    /// The share of its tasks whose outputs are reused.
    pub reused: f64,
    /// The share of its tasks that become dead letters.
    pub dead: f64,
    pub dead_letters: BTreeMap<&'static str, f64>,
}

/// A sampled row after its evaluation.
pub(super) struct EvaluatedRow {
    /// The index of its unit.
    pub unit: usize,
    pub outcome: RecordOutcome,
    /// Its share of the seconds that its batch took.
    pub wall: f64,
}

/// A hash of everything that the outputs of a document depend on.
pub(super) type ContentHash = [u8; 32];

/// Hashes what a pipeline reads of documents.
pub(super) struct ContentHasher {
    /// Paths that tasks and conditions read.
    paths: BTreeSet<String>,
}

impl EvaluatedRow {
    /// The document of the row.
    pub(super) fn document(&self) -> Option<&Document> {
        match &self.outcome {
            RecordOutcome::Document(document, _) => Some(document),
            _ => None,
        }
    }
}

impl ContentHasher {
    /// A hasher of everything that the tasks and conditions of the pipeline read.
    pub(super) fn new(definition: &Definition) -> Self {
        let mut paths = BTreeSet::new();
        for task in &definition.tasks {
            paths.extend(task.spec.reads(definition.base_dir()));
            let condition = task.when.as_deref().and_then(|when| Condition::new(when).ok());
            paths.extend(condition.iter().flat_map(|condition| condition.variables()).cloned());
        }
        Self { paths }
    }

    /// The hash of the text and of everything else that is read of a document: equal where the outputs are equal.
    pub(super) fn of(&self, document: &Document) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(document.text.as_bytes());
        let value = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
        for path in &self.paths {
            let read = match path.strip_prefix("document.") {
                // The output of another task, which depends on what that task reads.
                None if path != "document" => continue,
                Some("text" | "tokens" | "characters") => continue,
                Some("version") => document.version.to_string(),
                Some("id") => document.id.to_string(),
                Some(path) if path.starts_with("metadata.") => value(look_up(&document.metadata, &path["metadata.".len()..])),
                Some(path) if path.starts_with("fields.") => value(look_up(&document.fields, &path["fields.".len()..])),
                Some("metadata") => Value::Object(document.metadata.clone()).to_string(),
                None | Some(_) => format!("{} {}", document.id, Value::Object(document.fields.clone())),
            };
            add(read.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// The expected cost of each of `sampled` rows. Rows that are left out are not among the evaluated ones, and cost nothing. `copies`
/// is the number of rows of the job with each content.
pub(super) fn row_costs(
    evaluated: &[EvaluatedRow],
    copies: &HashMap<ContentHash, f64>,
    contents: &ContentHasher,
    sampled: usize,
) -> Vec<RowCost> {
    // Of sampled rows with equal content, the first one was computed, and the others reused its outputs.
    let mut computed: HashMap<ContentHash, &EvaluatedRow> = HashMap::new();
    for row in evaluated {
        if let Some(document) = row.document() {
            computed.entry(contents.of(document)).or_insert(row);
        }
    }
    let of_row = |row: &EvaluatedRow| match row.document() {
        Some(document) => {
            let content = contents.of(document);
            let first = computed.get(&content).copied().unwrap_or(row);
            of_document(first, copies.get(&content).copied().unwrap_or(1.0))
        }
        None => {
            let mut cost = RowCost { counts: 1.0, wall: row.wall, ..RowCost::default() };
            if let RecordOutcome::Dead(poison) = &row.outcome {
                cost.dead = 1.0;
                cost.dead_letters.insert(poison.class.as_str(), 1.0);
            }
            cost
        }
    };
    let mut costs: Vec<RowCost> = evaluated.iter().map(of_row).collect();
    costs.resize(sampled.max(costs.len()), RowCost::default());
    costs
}

/// The expected cost of one of `copies` rows with equal content. One of them, at random, is computed; the others are reused.
fn of_document(computed: &EvaluatedRow, copies: f64) -> RowCost {
    let mut cost = RowCost { counts: 1.0, document: 1.0, wall: computed.wall / copies, ..RowCost::default() };
    let RecordOutcome::Document(_, outcomes) = &computed.outcome else { return cost };
    let share = 1.0 / outcomes.len().max(1) as f64;
    for outcome in outcomes {
        match outcome {
            Outcome::Computed(computed) => {
                let Cost { tokens, generated, device_micros } = computed.cost;
                let amounts = [f64::from(tokens), f64::from(generated), device_micros as f64];
                cost.cost.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount / copies);
                cost.reused += share * (1.0 - 1.0 / copies);
            }
            Outcome::Reused(_) => cost.reused += share,
            Outcome::Skipped(_) => {}
            Outcome::Dead(poison) => {
                cost.dead += share;
                *cost.dead_letters.entry(poison.class.as_str()).or_default() += 1.0;
            }
        }
    }
    cost
}

/// The device time that was spent on the record.
pub(super) fn device_micros(outcome: &RecordOutcome) -> f64 {
    let RecordOutcome::Document(_, outcomes) = outcome else { return 0.0 };
    let of = |outcome: &Outcome| if let Outcome::Computed(computed) = outcome { computed.cost.device_micros as f64 } else { 0.0 };
    outcomes.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, json};

    use super::*;
    use crate::outcome::{ComputedOutput, Fingerprint, Output, ReusedOutput};

    fn document(id: &str, text: &str, language: &str) -> Document {
        let metadata: Map<String, Value> = [("language".to_owned(), json!(language))].into_iter().collect();
        Document { id: id.into(), version: 1, text: text.into(), metadata, fields: Map::new() }
    }

    fn contents(tasks: &str) -> ContentHasher {
        let text = format!("version: 1\nname: p\nsource: {{ topic: t, metadata: [language] }}\ntasks:\n{tasks}");
        ContentHasher::new(&Definition::parse(Path::new("p.yaml"), &text).unwrap())
    }

    #[test]
    fn documents_are_alike_where_everything_that_is_read_of_them_is() {
        let plain = contents("  a: { render: { template: \"{{ document.text }}\" } }\n");
        assert_eq!(plain.of(&document("x", "t", "en")), plain.of(&document("y", "t", "de")));
        assert_ne!(plain.of(&document("x", "t", "en")), plain.of(&document("x", "u", "en")));
        let by_language = contents("  a: { render: { template: x }, when: \"document.metadata.language == 'en'\" }\n");
        assert_eq!(by_language.of(&document("x", "t", "en")), by_language.of(&document("y", "t", "en")));
        assert_ne!(by_language.of(&document("x", "t", "en")), by_language.of(&document("x", "t", "de")));
        let by_id = contents("  a: { render: { template: \"{{ document.id }}\" } }\n");
        assert_ne!(by_id.of(&document("x", "t", "en")), by_id.of(&document("y", "t", "en")));
    }

    #[test]
    fn of_alike_documents_each_takes_its_part() {
        let cost = Cost { tokens: 12, generated: 6, device_micros: 900 };
        let computed = ComputedOutput { output: Output::Text("x".into()), fingerprint: Fingerprint([0; 32]), cost };
        let copied = Outcome::Reused(ReusedOutput::Copied(ComputedOutput { cost: Cost::default(), ..computed.clone() }));
        let row = |id: &str, outcome: Outcome| EvaluatedRow {
            unit: 0,
            outcome: RecordOutcome::Document(document(id, "t", "en"), vec![outcome]),
            wall: 3.0,
        };
        let contents = contents("  a: { render: { template: x } }\n");
        let rows = [row("x", Outcome::Computed(computed)), row("y", copied)];
        let copies = HashMap::from([(contents.of(&document("x", "t", "en")), 3.0)]);
        let costs = row_costs(&rows, &copies, &contents, 3);
        assert_eq!(costs.len(), 3, "a row that is left out counts among the sampled");
        for cost in &costs[..2] {
            assert_eq!((cost.cost, cost.wall, cost.document), ([4.0, 2.0, 300.0], 1.0, 1.0));
            assert!((cost.reused - 2.0 / 3.0).abs() < 1e-9, "{cost:?}");
        }
        assert_eq!((costs[2].counts, costs[2].document), (0.0, 0.0));
    }
}
