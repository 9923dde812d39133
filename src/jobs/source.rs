//! What a unit reads, and how it comes to the walk as records.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Duration, sleep};

use super::job_pipeline::JobPipeline;
use crate::document::Format;
use crate::record::{Partition, Record, RecordLocation};
use crate::source::{Archive, ArchiveError, ArchiveFile, Delivery, InFlight, RowRange, TimeWindow};
use crate::store::{Store, UnitFault, UnitRow};

/// What a unit reads, as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum UnitSource {
    /// Rows of a file.
    Rows {
        /// The dataset.
        dataset: String,
        /// The file, as it was planned.
        file: ArchiveFile,
        /// Which rows of the unit's range; all, where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wanted: Option<Vec<i64>>,
        /// The first microsecond that is wanted, by the version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<i64>,
        /// One past the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
        /// What is measured on them, in place of a commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        measured: Option<EvaluationTarget>,
    },
    /// Documents of the ledger, to be run again.
    Documents(Vec<String>),
    /// Documents of the ledger, to be deleted.
    Deletes {
        /// Their ids.
        documents: Vec<String>,
        /// The version of the deletes, where arrival is the version: when the job was asked for.
        at_ms: i64,
    },
}

/// A task, and the column that holds what is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvaluationTarget {
    /// The task.
    pub task: String,
    /// The column.
    pub expected: String,
}

/// How a unit's records go out.
pub(super) struct RecordSender<'a> {
    /// To the lane.
    pub records: UnboundedSender<Delivery>,
    /// Counts their bytes.
    pub in_flight: InFlight,
    /// Whether live work goes before.
    pub yields: &'a (dyn Fn() -> bool + Sync),
}

/// Documents looked up at a time.
const PAGE: usize = 200;
/// How often a reader that must wait looks whether it still must.
const WAIT: Duration = Duration::from_millis(25);

impl UnitSource {
    /// What the unit reads.
    ///
    /// # Errors
    /// Where the ledger holds something else than this version of the program writes.
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

    /// What is measured on it, where something is.
    pub(super) fn measured(&self) -> Option<EvaluationTarget> {
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

/// The partition that stands for the unit in the ledger.
pub(super) fn partition(unit: &UnitRow) -> Partition {
    Partition { topic: unit.topic.as_str().into(), number: unit.ordinal }
}

/// Delivers the unit's records from row `from` on.
///
/// # Errors
/// Where the source can never be read as it was planned, or cannot be read for now.
pub(super) async fn deliver(
    (store, archive): (&Store, Option<&Archive>),
    job_pipeline: &JobPipeline,
    (unit, from): (&UnitRow, i64),
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
        (UnitSource::Documents(ids), _) => documents(store, job_pipeline, (unit, from, ids), sender).await,
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

/// Documents as they came in. One that was deleted meanwhile is left out.
async fn documents(
    store: &Store,
    job_pipeline: &JobPipeline,
    (unit, from, ids): (&UnitRow, i64, &[String]),
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
                        "its fields were not kept, so that it cannot be run again; send it anew"
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

/// False where nobody takes records any more.
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
