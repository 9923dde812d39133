//! Turns the outcomes of a batch into the rows of its transaction. All counting happens here, so that the code shows that
//! `in = ok + reused + skipped + dead`.
//!
//! | outcome | counts as | row | Parquet | events |
//! |---|---|---|---|---|
//! | computed | ok | written | yes | result |
//! | reused, copied from another row | reused | written | yes | result |
//! | reused, unchanged | reused | unchanged | no | none |
//! | skipped | skipped | removed | no | none |
//! | dead | dead | removed | no | dead letter |
//! | record superseded | skipped, for each task | unchanged | no | none |
//! | record deletes a document | ok, for each task | removed | no | deletion |
//! | record cannot be decoded, or ends the process | dead, for each task | unchanged | no | dead letter |

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::batch::MicroBatch;
use super::copy::{CopySettings, PublishMode};
use super::leads::LeadSettings;
use super::record_outcome::RecordOutcome;
use super::versions;
use crate::document::{Document, hold_nul};
use crate::failure::Poison;
use crate::outcome::{ComputedOutput, EmbeddingSet, Interaction, Lineage, Outcome, Output, ReusedOutput};
use crate::record::{PLACE, Record};
use crate::sink::ParquetRow;
use crate::store::{
    BatchRow, CopySubmission, DeadLetterRow, DocumentContent, DocumentRow, Event, ResultRow, Submission, UsageRow,
};

/// Builds the rows of a batch from the outcomes of its records.
#[derive(Debug)]
pub struct SubmissionBuilder<'a> {
    pub pipeline: &'a str,
    /// The names of its tasks, in the order of outcomes.
    pub tasks: &'a [Arc<str>],
    /// Model and prompt of each task's outputs.
    pub lineages: &'a [Lineage],
    pub results_topic: Option<&'a str>,
    pub dead_letter_topic: Option<&'a str>,
    pub copy: Option<&'a CopySettings>,
    /// The ids of the vector spaces that occur.
    pub embedding_sets: &'a HashMap<Arc<EmbeddingSet>, i32>,
    pub leads: Option<&'a LeadSettings>,
}

/// The vector spaces that occur in `record_outcomes`.
pub fn embedding_sets(record_outcomes: &[RecordOutcome]) -> impl Iterator<Item = &Arc<EmbeddingSet>> {
    written(record_outcomes).filter_map(|(_, _, _, computed)| match &computed.output {
        Output::Embedding(embedding) => Some(&embedding.set),
        _ => None,
    })
}

/// The rows of the batch's Parquet file: one for each chunk of an embedding, one for any other output.
pub fn parquet_rows<'a>(
    batch: &'a MicroBatch,
    record_outcomes: &'a [RecordOutcome],
    tasks: &'a [Arc<str>],
    lineages: &'a [Lineage],
) -> Vec<ParquetRow<'a>> {
    let mut rows = Vec::new();
    for (index, document, task, computed) in written(record_outcomes) {
        let record = &batch.records[index];
        let row = ParquetRow {
            document_id: &document.id,
            version: document.version,
            task: &tasks[task],
            output: &computed.output,
            chunk: None,
            fingerprint: computed.fingerprint,
            cost: computed.cost,
            lineage: &lineages[task],
            place: &record.place,
            timestamp_ms: record.timestamp_ms,
        };
        match &computed.output {
            Output::Embedding(embedding) => {
                rows.extend(embedding.chunks.iter().enumerate().map(|chunk| ParquetRow { chunk: Some(chunk), ..row.clone() }));
            }
            _ => rows.push(row),
        }
    }
    rows
}

/// The outputs to write: index of the record, document, index of the task, output.
fn written(record_outcomes: &[RecordOutcome]) -> impl Iterator<Item = (usize, &Document, usize, &ComputedOutput)> {
    record_outcomes.iter().enumerate().flat_map(|(index, record_outcome)| {
        let (document, outcomes) = match record_outcome {
            RecordOutcome::Document(document, outcomes) => (Some(document), outcomes.as_slice()),
            _ => (None, [].as_slice()),
        };
        outcomes.iter().enumerate().filter_map(move |(task, outcome)| match outcome {
            Outcome::Computed(computed) | Outcome::Reused(ReusedOutput::Copied(computed)) => {
                Some((index, document?, task, computed))
            }
            _ => None,
        })
    })
}

impl SubmissionBuilder<'_> {
    /// Everything that the batch commits, except the Parquet file.
    pub fn submission(&self, id: Uuid, batch: &MicroBatch, record_outcomes: &[RecordOutcome]) -> Submission {
        let batch_row = BatchRow {
            id,
            pipeline: self.pipeline.to_owned(),
            delta: batch.delta.clone(),
            records: record_outcomes.len() as i32,
            parquet_rows: 0,
        };
        let usage = self.tasks.iter().map(|task| UsageRow { task: task.to_string(), ..UsageRow::default() }).collect();
        let mut submission = Submission {
            batch: batch_row,
            usage,
            documents: Vec::new(),
            results: Vec::new(),
            unchanged: Vec::new(),
            removed: Vec::new(),
            dead_letters: Vec::new(),
            events: Vec::new(),
            file: None,
            copy: self.copy.map(|copy| CopySubmission {
                task: copy.task.to_string(),
                is_automatic: copy.publish == PublishMode::Automatic,
                rows: Vec::new(),
            }),
            tolerance: None,
            leads: self.leads.map(LeadSettings::submission),
        };
        for (record, record_outcome) in batch.records.iter().zip(record_outcomes) {
            match record_outcome {
                RecordOutcome::Dead(poison) => {
                    submission.usage.iter_mut().for_each(|u| u.dead += 1);
                    self.dead_letter(&mut submission, record, None, poison);
                }
                RecordOutcome::Superseded | RecordOutcome::SupersededDelete { .. } => {
                    submission.usage.iter_mut().for_each(|u| u.skipped += 1)
                }
                RecordOutcome::Deleted { id, version, any_version } => {
                    submission.usage.iter_mut().for_each(|u| u.ok += 1);
                    submission.documents.push(DocumentRow {
                        id: id.to_string(),
                        version: *version,
                        wins: *any_version,
                        revives: false,
                        content: None,
                    });
                    for task in self.tasks {
                        self.deletion_event(&mut submission, record, id, task);
                    }
                }
                RecordOutcome::Document(document, outcomes) => {
                    let source = (!hold_nul(&document.fields)).then(|| json_text(&document.fields));
                    let metadata = json_text(&document.metadata);
                    let content = DocumentContent { text: document.text.clone(), metadata, source };
                    submission.documents.push(DocumentRow {
                        id: document.id.to_string(),
                        version: Some(document.version),
                        wins: false,
                        revives: versions::revives(record),
                        content: Some(content),
                    });
                    self.add_copy(&mut submission, document, outcomes);
                    if let (Some(leads), Some(submitted)) = (self.leads, &mut submission.leads) {
                        leads.add(document, self.tasks, outcomes, submitted);
                    }
                    for (task, outcome) in outcomes.iter().enumerate() {
                        self.add_outcome(&mut submission, record, document, task, outcome);
                    }
                }
            }
        }
        submission.dead_letters.iter_mut().for_each(|dead_letter| dead_letter.attempts = batch.attempts);
        submission
    }

    /// Adds the copy of a document, also where it is reused, because the checks on it may have changed since.
    fn add_copy(&self, submission: &mut Submission, document: &Document, outcomes: &[Outcome]) {
        let (Some(settings), Some(copy)) = (self.copy, &mut submission.copy) else { return };
        let outcome = self.tasks.iter().position(|task| *task == settings.task).and_then(|task| outcomes.get(task));
        let output = match outcome {
            Some(Outcome::Computed(computed)) => Some(&computed.output),
            Some(Outcome::Reused(reuse)) => reuse.output(),
            Some(Outcome::Skipped(_) | Outcome::Dead(_)) | None => None,
        };
        if let Some(Output::ComposedObject(composed)) = output {
            copy.rows.push(settings.row(document, composed));
        }
    }

    /// Counts the outcome of one task on one document, and adds its row and events.
    fn add_outcome(&self, submission: &mut Submission, record: &Record, document: &Document, task: usize, outcome: &Outcome) {
        let key = || (document.id.to_string(), self.tasks[task].to_string());
        let usage = &mut submission.usage[task];
        match outcome {
            Outcome::Computed(computed) => {
                usage.ok += 1;
                usage.tokens += i64::from(computed.cost.tokens);
                usage.generated_tokens += i64::from(computed.cost.generated);
                usage.device_micros += computed.cost.device_micros as i64;
                self.add_result(submission, record, document, task, computed);
            }
            Outcome::Reused(ReusedOutput::Copied(computed)) => {
                usage.reused += 1;
                self.add_result(submission, record, document, task, computed);
            }
            Outcome::Reused(ReusedOutput::Unchanged { fingerprint, .. }) => {
                usage.reused += 1;
                let (document, task) = key();
                submission.unchanged.push((document, task, *fingerprint));
            }
            Outcome::Skipped(_) => {
                usage.skipped += 1;
                submission.removed.push(key());
            }
            Outcome::Dead(poison) => {
                usage.dead += 1;
                submission.removed.push(key());
                self.dead_letter(submission, record, Some((&document.id, &self.tasks[task])), poison);
            }
        }
    }

    fn add_result(
        &self,
        submission: &mut Submission,
        record: &Record,
        document: &Document,
        task: usize,
        computed: &ComputedOutput,
    ) {
        let output = &computed.output;
        let embedding = match output {
            Output::Embedding(embedding) => self.embedding_sets.get(&embedding.set).map(|set| (*set, embedding.chunks.clone())),
            _ => None,
        };
        let fields = output.fields();
        let row = ResultRow {
            document_id: document.id.to_string(),
            task: self.tasks[task].to_string(),
            kind: output.kind(),
            version: document.version,
            label: output.label().map(str::to_owned),
            confidence: output.confidence(),
            text: output.text().map(str::to_owned),
            fields: fields.to_string(),
            fingerprint: computed.fingerprint,
            cost: computed.cost,
            lineage: self.lineages[task].clone(),
            embedding,
            interaction: interaction(output, record),
        };
        if let Some(topic) = self.results_topic {
            let body = json!({
                "pipeline": self.pipeline,
                "document_id": row.document_id,
                "version": row.version,
                "task": row.task,
                "kind": row.kind,
                "label": row.label,
                "confidence": row.confidence,
                "text": row.text,
                "fields": fields,
                "fingerprint": blake3::Hash::from_bytes(row.fingerprint.0).to_hex().as_str(),
                "tokens": row.cost.tokens,
                "generated_tokens": row.cost.generated,
                "device_micros": row.cost.device_micros,
                "model": row.lineage.model,
                "model_revision": row.lineage.revision,
                "prompt": row.lineage.prompt,
                "batch_id": submission.batch.id,
                "source": source(record),
            });
            submission.events.push(event(topic, &document.id, &row.task, &body));
        }
        submission.results.push(row);
    }

    fn deletion_event(&self, submission: &mut Submission, record: &Record, id: &str, task: &str) {
        let Some(topic) = self.results_topic else { return };
        let body = json!({
            "pipeline": self.pipeline,
            "document_id": id,
            "task": task,
            "deleted": true,
            "batch_id": submission.batch.id,
            "source": source(record),
        });
        submission.events.push(event(topic, id, task, &body));
    }

    /// Adds the dead letter of a record, or of one task on its document.
    fn dead_letter(
        &self,
        submission: &mut Submission,
        record: &Record,
        document_and_task: Option<(&str, &str)>,
        poison: &Poison,
    ) {
        let (document_id, task) = document_and_task.unzip();
        if let Some(topic) = self.dead_letter_topic {
            let mut headers = json!({
                "tidemill-pipeline": self.pipeline,
                "tidemill-class": poison.class.as_str(),
                "tidemill-reason": poison.reason.replace('\0', "\u{fffd}"),
            });
            headers[PLACE] = record.place.to_string().into();
            if let Some(task) = task {
                headers["tidemill-task"] = task.into();
            }
            submission.events.push(Event {
                event_id: Uuid::now_v7(),
                topic: topic.to_owned(),
                key: record.key.as_ref().map(|key| key.to_vec()).unwrap_or_default(),
                payload: record.payload.as_ref().map(|payload| payload.to_vec()),
                headers,
                document_id: None,
            });
        }
        submission.dead_letters.push(DeadLetterRow {
            offset: record.place.offset,
            task: task.unwrap_or_default().to_owned(),
            document_id: document_id.map(str::to_owned),
            class: poison.class.as_str(),
            // A reason may quote the record, and Postgres cannot store U+0000.
            reason: poison.reason.replace('\0', "\u{fffd}"),
            key: record.key.as_ref().map(|key| key.to_vec()),
            payload: record.payload.as_ref().map(|payload| payload.to_vec()),
            header_names: record.headers.iter().map(|h| h.name.clone()).collect(),
            header_values: record.headers.iter().map(|h| h.value.as_ref().map(|value| value.to_vec())).collect(),
            timestamp_ms: record.timestamp_ms,
            attempts: 1,
            replays: record.replays(),
        });
    }
}

/// The interaction, at the record's time where the event has none. A producer may give a record any number as its time, so only
/// plausible times count.
fn interaction(output: &Output, record: &Record) -> Option<Interaction> {
    let Output::Interaction(interaction) = output else { return None };
    let record_time = record.timestamp_ms.filter(|at| Interaction::TIMES.contains(at));
    Some(Interaction { at_ms: interaction.at_ms.or(record_time), ..interaction.clone() })
}

/// The object as JSON text. Writing cannot fail: the object came from JSON.
fn json_text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

/// The events of one document and task share a key, so that a compacted topic keeps the latest.
fn event(topic: &str, document_id: &str, task: &str, body: &Value) -> Event {
    Event {
        event_id: Uuid::now_v7(),
        topic: topic.to_owned(),
        key: format!("{document_id}/{task}").into_bytes(),
        payload: Some(body.to_string().into_bytes()),
        headers: json!({}),
        document_id: Some(document_id.to_owned()),
    }
}

fn source(record: &Record) -> Value {
    let place = &record.place;
    json!({
        "topic": place.partition.topic,
        "partition": place.partition.number,
        "offset": place.offset,
        "timestamp_ms": record.timestamp_ms,
    })
}
