//! The fates of a batch become rows: pure bookkeeping, in one place, so that `in = ok + reused + skipped + dead` can be read off.
//!
//! | fate or outcome | counts as | row | Parquet | results topic |
//! |---|---|---|---|---|
//! | computed | ok | written | yes | event |
//! | reused, copied from elsewhere | reused | written | yes | event |
//! | reused, unchanged | reused | stays | no | no |
//! | skipped | skipped | an older version's goes | no | no |
//! | dead | dead | an older version's goes | no | dead-letter topic |
//! | record superseded | skipped, each task | stays | no | no |
//! | record deletes | ok, each task | goes | no | event that says so |
//! | record cannot be decoded, or ends the process | dead, each task | stays | no | dead-letter topic |

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::batcher::MicroBatch;
use super::copy::{CopySettings, PublishMode};
use super::evaluator::RecordOutcome;
use super::leads::LeadSettings;
use super::versions;
use crate::document::{Document, hold_nul};
use crate::failure::Poison;
use crate::outcome::{ComputedOutput, EmbeddingSet, Interaction, Lineage, Outcome, Output, ReusedOutput};
use crate::record::{PLACE, Record};
use crate::sink::ParquetRow;
use crate::store::{
    BatchRow, CopySubmission, DeadLetterRow, DocumentContent, DocumentRow, Event, ResultRow, Submission, UsageRow,
};

/// What the rows of a batch depend on besides its fates.
#[derive(Debug)]
pub struct SubmissionBuilder<'a> {
    /// The pipeline.
    pub pipeline: &'a str,
    /// The names of its tasks, in the order of outcomes.
    pub tasks: &'a [Arc<str>],
    /// Where the outputs of each come from.
    pub lineages: &'a [Lineage],
    /// The topic of results, if any.
    pub results_topic: Option<&'a str>,
    /// The topic of dead letters, if any.
    pub dead_letter_topic: Option<&'a str>,
    /// What makes copy of the outputs of a task, if anything.
    pub catalogue: Option<&'a CopySettings>,
    /// The ids of the vector spaces that occur.
    pub embedding_sets: &'a HashMap<Arc<EmbeddingSet>, i32>,
    /// How documents become leads, if they do.
    pub leads: Option<&'a LeadSettings>,
}

/// The vector spaces that occur in `record_outcomes`.
pub fn embedding_sets(record_outcomes: &[RecordOutcome]) -> impl Iterator<Item = &Arc<EmbeddingSet>> {
    written(record_outcomes).filter_map(|(_, _, _, product)| match &product.output {
        Output::Embedding(embedding) => Some(&embedding.set),
        _ => None,
    })
}

/// The rows of the batch's Parquet file: an embedding has one a chunk, any other output one.
pub fn parquet_rows<'a>(
    batch: &'a MicroBatch,
    record_outcomes: &'a [RecordOutcome],
    tasks: &'a [Arc<str>],
    lineages: &'a [Lineage],
) -> Vec<ParquetRow<'a>> {
    let mut rows = Vec::new();
    for (index, document, task, product) in written(record_outcomes) {
        let record = &batch.records[index];
        let row = ParquetRow {
            document_id: &document.id,
            version: document.version,
            task: &tasks[task],
            output: &product.output,
            chunk: None,
            fingerprint: product.fingerprint,
            cost: product.cost,
            lineage: &lineages[task],
            place: &record.place,
            timestamp_ms: record.timestamp_ms,
        };
        match &product.output {
            Output::Embedding(embedding) => {
                rows.extend(embedding.chunks.iter().enumerate().map(|chunk| ParquetRow { chunk: Some(chunk), ..row.clone() }));
            }
            _ => rows.push(row),
        }
    }
    rows
}

/// Outputs to write: record, document, task and product.
fn written(record_outcomes: &[RecordOutcome]) -> impl Iterator<Item = (usize, &Document, usize, &ComputedOutput)> {
    record_outcomes.iter().enumerate().flat_map(|(index, record_outcome)| {
        let (document, outcomes) = match record_outcome {
            RecordOutcome::Document(document, outcomes) => (Some(document), outcomes.as_slice()),
            _ => (None, [].as_slice()),
        };
        outcomes.iter().enumerate().filter_map(move |(task, outcome)| match outcome {
            Outcome::Computed(product) | Outcome::Reused(ReusedOutput::Copied(product)) => {
                Some((index, document?, task, product))
            }
            _ => None,
        })
    })
}

impl SubmissionBuilder<'_> {
    /// Everything that the batch makes true, save the file.
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
            copy: self.catalogue.map(|catalogue| CopySubmission {
                task: catalogue.task.to_string(),
                is_automatic: catalogue.publish == PublishMode::Automatic,
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
                RecordOutcome::Superseded | RecordOutcome::Outlived { .. } => {
                    submission.usage.iter_mut().for_each(|u| u.skipped += 1)
                }
                RecordOutcome::Deleted { id, version, any } => {
                    submission.usage.iter_mut().for_each(|u| u.ok += 1);
                    submission.documents.push(DocumentRow {
                        id: id.to_string(),
                        version: *version,
                        wins: *any,
                        revives: false,
                        content: None,
                    });
                    for task in self.tasks {
                        self.deletion_event(&mut submission, record, id, task);
                    }
                }
                RecordOutcome::Document(document, outcomes) => {
                    let source = (!hold_nul(&document.fields)).then(|| written_out(&document.fields));
                    let metadata = written_out(&document.metadata);
                    let content = DocumentContent { text: document.text.clone(), metadata, source };
                    submission.documents.push(DocumentRow {
                        id: document.id.to_string(),
                        version: Some(document.version),
                        wins: false,
                        revives: versions::revives(record),
                        content: Some(content),
                    });
                    self.copy(&mut submission, document, outcomes);
                    if let (Some(leads), Some(submitted)) = (self.leads, &mut submission.leads) {
                        leads.add(document, (self.tasks, outcomes), submitted);
                    }
                    for (task, outcome) in outcomes.iter().enumerate() {
                        self.unit(&mut submission, record, (document, task), outcome);
                    }
                }
            }
        }
        submission.dead_letters.iter_mut().for_each(|letter| letter.attempts = batch.attempts);
        submission
    }

    /// The copy of a document, whether it was made now or stood before: what checks say of it may have changed since.
    fn copy(&self, submission: &mut Submission, document: &Document, outcomes: &[Outcome]) {
        let (Some(catalogue), Some(copy)) = (self.catalogue, &mut submission.copy) else { return };
        let outcome = self.tasks.iter().position(|task| *task == catalogue.task).and_then(|task| outcomes.get(task));
        let output = match outcome {
            Some(Outcome::Computed(product)) => Some(&product.output),
            Some(Outcome::Reused(reuse)) => reuse.output(),
            Some(Outcome::Skipped(_) | Outcome::Dead(_)) | None => None,
        };
        if let Some(Output::ComposedObject(composed)) = output {
            copy.rows.push(catalogue.row(document, composed));
        }
    }

    fn unit(&self, submission: &mut Submission, record: &Record, (document, task): (&Document, usize), outcome: &Outcome) {
        let key = || (document.id.to_string(), self.tasks[task].to_string());
        let usage = &mut submission.usage[task];
        match outcome {
            Outcome::Computed(product) => {
                usage.ok += 1;
                usage.tokens += i64::from(product.cost.tokens);
                usage.generated_tokens += i64::from(product.cost.generated);
                usage.device_micros += product.cost.device_micros as i64;
                self.result(submission, record, (document, task), product);
            }
            Outcome::Reused(ReusedOutput::Copied(product)) => {
                usage.reused += 1;
                self.result(submission, record, (document, task), product);
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

    fn result(
        &self,
        submission: &mut Submission,
        record: &Record,
        (document, task): (&Document, usize),
        product: &ComputedOutput,
    ) {
        let output = &product.output;
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
            fingerprint: product.fingerprint,
            cost: product.cost,
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

    fn dead_letter(&self, submission: &mut Submission, record: &Record, unit: Option<(&str, &str)>, poison: &Poison) {
        let (document_id, task) = unit.unzip();
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
            // A reason may quote the record, which may hold what Postgres cannot store.
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

/// What somebody did, at the record's time where the event tells none. A producer may give a record any number for a time.
fn interaction(output: &Output, record: &Record) -> Option<Interaction> {
    let Output::Interaction(interaction) = output else { return None };
    let of_the_record = record.timestamp_ms.filter(|at| Interaction::TIMES.contains(at));
    Some(Interaction { at_ms: interaction.at_ms.or(of_the_record), ..interaction.clone() })
}

/// An object as JSON. Keys and values of JSON can always be written.
fn written_out(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

/// Documents' events share a key per task, so that a compacted topic keeps the latest of each.
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
