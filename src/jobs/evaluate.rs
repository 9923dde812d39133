//! Measures how often a task is right: evaluates labelled rows without committing anything, and compares the outputs with a column.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::job_pipeline::JobPipeline;
use super::source::EvaluationTarget;
use crate::document::{Document, look_up};
use crate::failure::Transient;
use crate::outcome::{Outcome, Output};
use crate::pipeline::RecordOutcome;
use crate::record::Record;
use crate::source::Delivery;
use crate::task::TaskSpec;

/// The counts of a unit. Those of all units add up to the counts of the job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EvaluationCounts {
    rows: u64,
    /// Rows without a value in the column.
    unlabelled: u64,
    /// Rows without an output of the task, because it was skipped or failed.
    silent: u64,
    /// For each expected value, how often the task gave which value. The ledger stores it under this name.
    said: BTreeMap<String, BTreeMap<String, u64>>,
    device_micros: u64,
}

impl EvaluationCounts {
    /// Adds the counts of another unit.
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.unlabelled += other.unlabelled;
        self.silent += other.silent;
        self.device_micros += other.device_micros;
        for (expected, said) in other.said {
            let mine = self.said.entry(expected).or_default();
            for (word, count) in said {
                *mine.entry(word).or_default() += count;
            }
        }
    }

    /// Why the figures have no meaning, if they have none.
    pub(super) fn emptiness(&self, column: &str) -> Option<String> {
        let is_empty = self.rows > 0 && self.unlabelled == self.rows;
        is_empty.then(|| format!("column `{column}` is empty in all {} rows, so nothing could be compared", self.rows))
    }

    /// The figures: accuracy over the labelled rows, where rows without an output count as wrong; precision, recall and F1 of each
    /// value; and the mean of F1.
    pub(super) fn report(&self) -> Value {
        let total = |said: &BTreeMap<String, u64>| said.values().sum::<u64>();
        let hits = |value: &str| self.said.get(value).and_then(|said| said.get(value)).copied().unwrap_or(0);
        let right: u64 = self.said.keys().map(|value| hits(value)).sum();
        let labelled = self.rows - self.unlabelled;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let mut values = serde_json::Map::new();
        let mut scores = Vec::new();
        for (value, said) in &self.said {
            let given: u64 = self.said.values().filter_map(|said| said.get(value)).sum();
            let (precision, recall) = (share(hits(value), given), share(hits(value), total(said)));
            let f1 = match (precision, recall) {
                (Some(p), Some(r)) if p + r > 0.0 => 2.0 * p * r / (p + r),
                _ => 0.0,
            };
            scores.push(f1);
            values.insert(
                value.clone(),
                json!({ "rows": total(said), "precision": precision, "recall": recall, "f1": f1, "said": said }),
            );
        }
        json!({
            "rows": self.rows,
            "labelled": labelled,
            "without_output": self.silent,
            "right": right,
            "accuracy": share(right, labelled),
            "macro_f1": (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64),
            "values": values,
            "device_seconds": self.device_micros as f64 / 1e6,
        })
    }
}

/// The counts of all units of a job.
pub(super) fn sum(reports: Vec<Value>) -> EvaluationCounts {
    let mut sum = EvaluationCounts::default();
    for counts in reports.into_iter().filter_map(|report| serde_json::from_value(report).ok()) {
        sum.add(counts);
    }
    sum
}

/// Evaluates the unit's records as they arrive, and counts.
///
/// # Errors
/// Where the model host or the ledger is unavailable.
pub(super) async fn measure(
    job_pipeline: &JobPipeline,
    target: &EvaluationTarget,
    mut records: UnboundedReceiver<Delivery>,
) -> Result<EvaluationCounts, Transient> {
    let mut counts = EvaluationCounts::default();
    loop {
        let mut batch = Vec::new();
        let mut bytes = 0;
        // The guards live as long as the batch, so that no more is read in the meantime than may be in flight.
        let mut guards = Vec::new();
        while !job_pipeline.runtime.budget.is_spent(batch.len(), bytes) {
            let Some(Delivery { record, guard }) = records.recv().await else { break };
            bytes += record.payload.as_ref().map_or(0, |payload| payload.len());
            batch.push(record);
            guards.push(guard);
        }
        if batch.is_empty() {
            return Ok(counts);
        }
        counts.add(evaluate(job_pipeline, target, &batch).await?);
    }
}

async fn evaluate(
    job_pipeline: &JobPipeline,
    target: &EvaluationTarget,
    records: &[Record],
) -> Result<EvaluationCounts, Transient> {
    let evaluator = &job_pipeline.runtime.evaluator;
    let task = evaluator.graph().tasks().position(|task| **task == *target.task);
    let mut counts = EvaluationCounts { rows: records.len() as u64, ..EvaluationCounts::default() };
    for record_outcome in evaluator.evaluate_afresh(records).await? {
        let RecordOutcome::Document(document, outcomes) = record_outcome else {
            counts.silent += 1;
            continue;
        };
        for outcome in &outcomes {
            if let Outcome::Computed(computed) = outcome {
                counts.device_micros += computed.cost.device_micros;
            }
        }
        let Some(expected) = expected(&document, &target.expected) else {
            counts.unlabelled += 1;
            continue;
        };
        let output = task.and_then(|task| outcomes.get(task)).and_then(output);
        match output.and_then(answer) {
            Some(answer) => *counts.said.entry(expected).or_default().entry(answer).or_default() += 1,
            None => {
                counts.silent += 1;
                counts.said.entry(expected).or_default();
            }
        }
    }
    Ok(counts)
}

fn expected(document: &Document, column: &str) -> Option<String> {
    match look_up(&document.fields, column)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn output(outcome: &Outcome) -> Option<&Output> {
    match outcome {
        Outcome::Computed(computed) => Some(&computed.output),
        Outcome::Reused(reuse) => reuse.output(),
        Outcome::Skipped(_) | Outcome::Dead(_) => None,
    }
}

/// Whether the task's outputs have one label or one text to compare with a column. Lists and objects do not.
pub(super) fn is_comparable(spec: &TaskSpec) -> bool {
    match spec {
        TaskSpec::Classify(_) | TaskSpec::Summarize(_) | TaskSpec::Render(_) | TaskSpec::Answer(_) | TaskSpec::Compose(_) => true,
        TaskSpec::Write(spec) => spec.for_each.is_none(),
        TaskSpec::Extract(_) | TaskSpec::Embed(_) | TaskSpec::Retrieve(_) | TaskSpec::Interact(_) | TaskSpec::Score(_) => false,
    }
}

/// The value to compare: the first label, or else the text.
fn answer(output: &Output) -> Option<String> {
    output.label().or(output.text()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskEntry;

    fn counts(said: &[(&str, &str, u64)], silent: u64) -> EvaluationCounts {
        let mut counts = EvaluationCounts { silent, rows: silent, ..EvaluationCounts::default() };
        for (expected, given, count) in said {
            counts.rows += count;
            *counts.said.entry((*expected).to_owned()).or_default().entry((*given).to_owned()).or_default() += count;
        }
        counts
    }

    #[test]
    fn the_figures_are_those_of_the_counts() {
        let report = counts(&[("a", "a", 6), ("a", "b", 2), ("b", "b", 1), ("b", "a", 1)], 2).report();
        assert_eq!((report["rows"].as_u64(), report["right"].as_u64()), (Some(12), Some(7)));
        assert_eq!(report["accuracy"].as_f64(), Some(7.0 / 12.0));
        assert_eq!(report["values"]["a"]["precision"].as_f64(), Some(6.0 / 7.0));
        assert_eq!(report["values"]["a"]["recall"].as_f64(), Some(6.0 / 8.0));
        assert_eq!(report["values"]["b"]["f1"].as_f64(), Some(2.0 * (1.0 / 3.0) * 0.5 / (1.0 / 3.0 + 0.5)));
    }

    #[test]
    fn only_labels_and_texts_can_be_compared_with_a_column() {
        let entry = |kind: &str, spec: Value| serde_json::from_value::<TaskEntry>(json!({ kind: spec })).unwrap();
        let write = |spec: Value| is_comparable(&TaskSpec::Write(entry("write", spec).write.unwrap()));
        assert!(write(json!({ "model": "m", "prompt": "p.md" })));
        assert!(!write(json!({ "model": "m", "prompt": "p.md", "for_each": "facts.list" })), "a list has no text of its own");
        assert!(is_comparable(&TaskSpec::Render(entry("render", json!({ "template": "x" })).render.unwrap())));
        assert!(!is_comparable(&TaskSpec::Extract(entry("extract", json!({ "model": "m" })).extract.unwrap())));
        assert!(!is_comparable(&TaskSpec::Score(entry("score", json!({ "parts": { "all": "80" } })).score.unwrap())));
    }

    #[test]
    fn counts_of_units_add_up() {
        let mut sum = counts(&[("a", "a", 1)], 0);
        sum.add(counts(&[("a", "a", 2), ("b", "a", 1)], 1));
        assert_eq!(sum, counts(&[("a", "a", 3), ("b", "a", 1)], 1));
        assert_eq!(EvaluationCounts::default().report()["accuracy"], Value::Null);
        assert_eq!(sum.emptiness("said"), None);
        let nothing = EvaluationCounts { rows: 3, unlabelled: 3, ..EvaluationCounts::default() }.emptiness("said");
        assert_eq!(nothing.as_deref(), Some("column `said` is empty in all 3 rows, so nothing could be compared"));
    }
}
