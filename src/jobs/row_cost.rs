//! What sampled rows came to, as figures.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::document::{Document, look_up};
use crate::outcome::{Cost, Outcome};
use crate::pipeline::RecordOutcome;
use crate::pipeline::definition::Definition;
use crate::template::Condition;

/// What one sampled row came to, and is expected to take.
#[derive(Debug, Clone, Default)]
pub(super) struct RowCost {
    /// Whether it is a record at all: rows of another time are none.
    pub counts: f64,
    /// Whether it brings a document.
    pub document: f64,
    /// Tokens read, tokens written, microseconds of device time.
    pub cost: [f64; 3],
    /// Seconds.
    pub wall: f64,
    /// The share of its tasks that is reused.
    pub reused: f64,
    /// The share of its tasks that is dead.
    pub dead: f64,
    /// Dead letters by class.
    pub letters: BTreeMap<&'static str, f64>,
}

/// A sampled row after its evaluation.
pub(super) struct EvaluatedRow {
    /// Which of the units it is of.
    pub unit: usize,
    /// What became of it.
    pub record_outcome: RecordOutcome,
    /// Its part of the time that its batch took.
    pub wall: f64,
}

/// Names what the outputs of a document depend on.
pub(super) type ContentHash = [u8; 32];

/// What a pipeline reads of documents.
pub(super) struct ContentHasher {
    paths: BTreeSet<String>,
}

impl EvaluatedRow {
    /// The document that the row brings.
    pub(super) fn document(&self) -> Option<&Document> {
        match &self.record_outcome {
            RecordOutcome::Document(document, _) => Some(document),
            _ => None,
        }
    }
}

impl ContentHasher {
    /// Everything that the tasks and conditions of the pipeline read.
    pub(super) fn new(definition: &Definition) -> Self {
        let mut paths = BTreeSet::new();
        for task in &definition.tasks {
            paths.extend(task.spec.reads(definition.base_dir()));
            let condition = task.when.as_deref().and_then(|when| Condition::new(when).ok());
            paths.extend(condition.iter().flat_map(|condition| condition.variables()).cloned());
        }
        Self { paths }
    }

    /// Equal where outputs are: of the text, and of all else that is read of a document.
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
                // Another task's output, which depends on what that one reads.
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

/// What each of `sampled` rows is expected to take. Rows that are no records are not among the evaluated, and take nothing.
pub(super) fn facts(
    evaluated: &[EvaluatedRow],
    copies: &HashMap<ContentHash, f64>,
    contents: &ContentHasher,
    sampled: usize,
) -> Vec<RowCost> {
    // Of rows that bring the same, the first one in the sample was computed, and the others took it over.
    let mut leaders: HashMap<ContentHash, &EvaluatedRow> = HashMap::new();
    for row in evaluated {
        if let Some(document) = row.document() {
            leaders.entry(contents.of(document)).or_insert(row);
        }
    }
    let of_row = |row: &EvaluatedRow| match row.document() {
        Some(document) => {
            let content = contents.of(document);
            let leader = leaders.get(&content).copied().unwrap_or(row);
            of_document(leader, copies.get(&content).copied().unwrap_or(1.0))
        }
        None => {
            let mut facts = RowCost { counts: 1.0, wall: row.wall, ..RowCost::default() };
            if let RecordOutcome::Dead(poison) = &row.record_outcome {
                facts.dead = 1.0;
                facts.letters.insert(poison.class.as_str(), 1.0);
            }
            facts
        }
    };
    let mut facts: Vec<RowCost> = evaluated.iter().map(of_row).collect();
    facts.resize(sampled.max(facts.len()), RowCost::default());
    facts
}

/// One of `copies` rows that bring the same: one of them is computed, and which one is chance.
fn of_document(leader: &EvaluatedRow, copies: f64) -> RowCost {
    let mut facts = RowCost { counts: 1.0, document: 1.0, wall: leader.wall / copies, ..RowCost::default() };
    let RecordOutcome::Document(_, outcomes) = &leader.record_outcome else { return facts };
    let share = 1.0 / outcomes.len().max(1) as f64;
    for outcome in outcomes {
        match outcome {
            Outcome::Computed(product) => {
                let Cost { tokens, generated, device_micros } = product.cost;
                let amounts = [f64::from(tokens), f64::from(generated), device_micros as f64];
                facts.cost.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount / copies);
                facts.reused += share * (1.0 - 1.0 / copies);
            }
            Outcome::Reused(_) => facts.reused += share,
            Outcome::Skipped(_) => {}
            Outcome::Dead(poison) => {
                facts.dead += share;
                *facts.letters.entry(poison.class.as_str()).or_default() += 1.0;
            }
        }
    }
    facts
}

/// Device time of what was computed for the row.
pub(super) fn device_micros(record_outcome: &RecordOutcome) -> f64 {
    let RecordOutcome::Document(_, outcomes) = record_outcome else { return 0.0 };
    let of = |outcome: &Outcome| if let Outcome::Computed(product) = outcome { product.cost.device_micros as f64 } else { 0.0 };
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
        let product = ComputedOutput { output: Output::Text("x".into()), fingerprint: Fingerprint([0; 32]), cost };
        let copied = Outcome::Reused(ReusedOutput::Copied(ComputedOutput { cost: Cost::default(), ..product.clone() }));
        let row = |id: &str, outcome: Outcome| EvaluatedRow {
            unit: 0,
            record_outcome: RecordOutcome::Document(document(id, "t", "en"), vec![outcome]),
            wall: 3.0,
        };
        let contents = contents("  a: { render: { template: x } }\n");
        let rows = [row("x", Outcome::Computed(product)), row("y", copied)];
        let copies = HashMap::from([(contents.of(&document("x", "t", "en")), 3.0)]);
        let facts = facts(&rows, &copies, &contents, 3);
        assert_eq!(facts.len(), 3, "a row that is no record counts among the sampled");
        for facts in &facts[..2] {
            assert_eq!((facts.cost, facts.wall, facts.document), ([4.0, 2.0, 300.0], 1.0, 1.0));
            assert!((facts.reused - 2.0 / 3.0).abs() < 1e-9, "{facts:?}");
        }
        assert_eq!((facts[2].counts, facts[2].document), (0.0, 0.0));
    }
}
