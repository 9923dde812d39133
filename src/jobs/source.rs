//! What a unit reads, and how its rows or documents are delivered to the pipeline as records.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Duration, sleep};

use super::job_pipeline::JobPipeline;
use crate::document::Format;
use crate::record::{Partition, Record, RecordLocation};
use crate::source::{Archive, ArchiveError, ArchiveFile, Delivery, InFlight, RowRange, TimeWindow};
use crate::store::{Store, UnitFault, UnitRow};

/// What a unit reads, as the ledger stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum UnitSource {
    /// Rows of a file.
    Rows {
        dataset: String,
        /// The file in the version that was planned.
        file: ArchiveFile,
        /// The rows of the unit's range that are read; all where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wanted: Option<Vec<i64>>,
        /// Rows before this time are left out, in Unix microseconds of the document version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<i64>,
        /// Rows from this time on are left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
        /// The task to evaluate on the rows, without committing anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        measured: Option<EvaluationTarget>,
    },
    /// Ids of documents in the ledger, to be processed again.
    Documents(Vec<String>),
    /// Documents in the ledger, to be deleted.
    Deletes {
        documents: Vec<String>,
        /// When the job was created, which is the version of the deletes where the pipeline takes the arrival time as version.
        at_ms: i64,
    },
}

/// The task to evaluate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvaluationTarget {
    pub task: String,
    /// The column with the expected outputs.
    pub expected: String,
}

/// Sends a unit's records to the pipeline.
pub(super) struct RecordSender<'a> {
    pub records: UnboundedSender<Delivery>,
    pub in_flight: InFlight,
    /// Whether live records go first.
    pub yields: &'a (dyn Fn() -> bool + Sync),
}

/// Documents looked up at a time.
const PAGE: usize = 200;
/// How often a waiting reader checks whether it may go on.
const WAIT: Duration = Duration::from_millis(25);

impl UnitSource {
    /// What the unit reads.
    ///
    /// # Errors
    /// Where another version of the program planned the unit.
    pub(super) fn of(unit: &UnitRow) -> Result<Self, UnitFault> {
        serde_json::from_value(unit.source.clone()).map_err(|error| UnitFault {
            class: "unknown_unit",
            reason: format!(
                "the unit was planned by another version of the program and cannot be read ({error}); submit the job anew"
            ),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The evaluation of the unit, if it is part of one.
    pub(super) fn evaluation(&self) -> Option<EvaluationTarget> {
        match self {
            Self::Rows { measured, .. } => measured.clone(),
            Self::Documents(_) | Self::Deletes { .. } => None,
        }
    }

    /// The rows of a file as the archive reads them, from row `from` on.
    pub(super) fn row_range(&self, unit: &UnitRow, job_pipeline: &JobPipeline, from: i64) -> Option<RowRange> {
        let Self::Rows { file, wanted, since, until, .. } = self else { return None };
        let column = job_pipeline.definition.source.document.version.clone();
        let window = match (since, until, column) {
            (None, None, _) | (_, _, None) => None,
            (since, until, Some(column)) => {
                Some(TimeWindow { column, since: since.unwrap_or(i64::MIN), until: until.unwrap_or(i64::MAX) })
            }
        };
        Some(RowRange {
            file: file.clone(),
            partition: partition(unit),
            from,
            to: unit.to_row,
            wanted: wanted.clone(),
            window,
            needs: job_pipeline.needs.clone(),
        })
    }
}

/// The partition under which the ledger holds the unit's position.
pub(super) fn partition(unit: &UnitRow) -> Partition {
    Partition { topic: unit.topic.as_str().into(), number: unit.ordinal }
}

/// Delivers the unit's records from row `from` on.
///
/// # Errors
/// Where the source cannot be read as it was planned, or is unavailable.
pub(super) async fn deliver(
    store: &Store,
    archive: Option<&Archive>,
    job_pipeline: &JobPipeline,
    unit: &UnitRow,
    from: i64,
    sender: RecordSender<'_>,
) -> Result<(), ArchiveError> {
    let source = UnitSource::of(unit)?;
    match (&source, archive) {
        (UnitSource::Rows { .. }, Some(archive)) => match source.row_range(unit, job_pipeline, from) {
            Some(range) => archive.deliver(&range, &sender.records, &sender.in_flight, sender.yields).await,
            None => Ok(()),
        },
        (UnitSource::Rows { dataset, .. }, None) => Err(UnitFault {
            class: "unknown_dataset",
            reason: format!("this process knows no dataset `{dataset}`; add [datasets.{dataset}] to its configuration"),
        }
        .into()),
        (UnitSource::Documents(ids), _) => documents(store, job_pipeline, unit, from, ids, sender).await,
        (UnitSource::Deletes { documents, at_ms }, _) => {
            for (offset, id) in (0..).zip(documents).filter(|(offset, _)| *offset >= from) {
                let place = RecordLocation { partition: partition(unit), offset };
                let (timestamp_ms, key) = (Some(*at_ms), Some(id.clone().into()));
                let record = Record { place, timestamp_ms, key, payload: None, headers: Vec::new() };
                if !send(record, &sender).await {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Sends documents as they first arrived. Documents that have been deleted since are left out.
async fn documents(
    store: &Store,
    job_pipeline: &JobPipeline,
    unit: &UnitRow,
    from: i64,
    ids: &[String],
    sender: RecordSender<'_>,
) -> Result<(), ArchiveError> {
    let pipeline = &*job_pipeline.definition.name;
    let is_text = job_pipeline.definition.source.document.format == Format::Text;
    for (page, ids) in (0_i64..).zip(ids.chunks(PAGE)) {
        let base = page * PAGE as i64;
        if base + (ids.len() as i64) <= from {
            continue;
        }
        let mut stored = store.document_sources(pipeline, ids).await?;
        for (offset, id) in (base..).zip(ids).filter(|(offset, _)| *offset >= from) {
            let Some(document) = stored.remove(id) else { continue };
            let (key, payload) = match (is_text, document.source) {
                (true, _) => (Some(id.clone().into()), document.text.into()),
                (false, Some(source)) => (None, source.to_string().into()),
                (false, None) => {
                    tracing::warn!(
                        unit = unit.id,
                        document = id,
                        "the document's fields are not stored, so it cannot be processed again; send it again"
                    );
                    continue;
                }
            };
            let place = RecordLocation { partition: partition(unit), offset };
            let record = Record { place, timestamp_ms: Some(document.version), key, payload: Some(payload), headers: Vec::new() };
            if !send(record, &sender).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// False where the receiver is gone.
async fn send(record: Record, sender: &RecordSender<'_>) -> bool {
    while sender.in_flight.is_full() || (sender.yields)() {
        if sender.records.is_closed() {
            return false;
        }
        sleep(WAIT).await;
    }
    let guard = sender.in_flight.track(&record);
    sender.records.send(Delivery { record, guard }).is_ok()
}
