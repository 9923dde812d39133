//! Turns rows of a Parquet file into records. The payload of a record is a JSON object of the columns.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::columns::{Columns, RequestedColumns, check_time};
use super::file_problem::FileProblem;
use super::json_values::{JsonForm, object};
use super::reader::{ReadFailure, VersionedReader};
use super::{Archive, ArchiveError, ArchiveFile, FileLayout};
use crate::document::{look_up, microseconds};
use crate::record::{Partition, Record, RecordLocation};
use crate::source::{Delivery, InFlight};
use crate::store::UnitFault;

/// A range of rows of one file, with its partition in the ledger.
#[derive(Debug, Clone)]
pub struct RowRange {
    /// The file, as planned.
    pub file: ArchiveFile,
    /// The partition that represents the range.
    pub partition: Partition,
    pub from: i64,
    /// The end of the range (exclusive).
    pub to: i64,
    /// The rows to read, in ascending order. `None` reads all.
    pub wanted: Option<Vec<i64>>,
    /// The time span to read. `None` reads all.
    pub window: Option<TimeWindow>,
    /// The columns that the pipeline reads.
    pub needs: RequestedColumns,
}

/// A time span. Rows outside of it are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeWindow {
    /// The column with the time: a date, a timestamp, or a text with one of them.
    pub column: String,
    /// The start, in microseconds since the Unix epoch.
    pub since: i64,
    /// The end (exclusive), in microseconds since the Unix epoch.
    pub until: i64,
}

impl TimeWindow {
    /// Whether the row is in the span. A row with an unreadable time counts as inside, so that processing it reports the problem.
    fn contains(&self, payload: &[u8]) -> bool {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(payload) else { return true };
        let time = look_up(&fields, &self.column).and_then(Value::as_str).and_then(microseconds);
        time.is_none_or(|time| (self.since..self.until).contains(&time))
    }
}

/// The names of the top-level columns.
fn column_names(metadata: &ParquetMetaData) -> Vec<String> {
    let root = metadata.file_metadata().schema_descr().root_schema();
    root.get_fields().iter().map(|field| field.name().to_owned()).collect()
}

/// Rows decoded at a time: few enough to limit the memory of wide rows, enough for columnar decoding to be efficient.
const ROWS: usize = 128;
/// Rows decoded at a time if they may be huge. Each may have a page of its own, which stays in memory as long as the row.
const FEW_ROWS: usize = 8;
/// Row groups up to this size are read with the normal batch size.
const SMALL_BYTES: i64 = 256 << 20;
/// Most rows of a file. Without a limit, a footer of a few bytes could create more job units than can be stored.
const MOST_ROWS: i64 = i32::MAX as i64;
/// Largest accepted uncompressed size of a row group. A larger one would not fit into memory besides the models.
const ROW_GROUP_BYTES: i64 = 4 << 30;
/// How often a waiting reader checks whether it can continue.
const WAIT: Duration = Duration::from_millis(25);

impl Archive {
    /// Reads the layout of the file.
    ///
    /// # Errors
    /// If the file has changed since it was listed, is not Parquet, lacks a column, or is temporarily unavailable.
    pub async fn layout(&self, file: &ArchiveFile, needs: &RequestedColumns) -> Result<FileLayout, ArchiveError> {
        self.check_readable(file).await?;
        let mut reader = VersionedReader::new(self, file)?;
        let failure = reader.failure();
        let work = async {
            let metadata = reader.get_metadata(None).await?;
            let row_groups = row_groups(&metadata)?;
            let columns = column_names(&metadata);
            Columns::of(metadata, needs)?;
            Ok(FileLayout { row_groups, columns })
        };
        self.guarded(file, &failure, work).await
    }

    /// Delivers the selected rows of the range, then returns. Waits while `in_flight` is full and while `yields` returns true.
    /// Returns early without an error if the receiver is closed.
    ///
    /// # Errors
    /// See [`Archive::layout`]. Rows delivered before an error are valid.
    pub async fn deliver(
        &self,
        range: &RowRange,
        records: &UnboundedSender<Delivery>,
        in_flight: &InFlight,
        yields: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ArchiveError> {
        self.check_readable(&range.file).await?;
        let mut reader = VersionedReader::new(self, &range.file)?;
        let failure = reader.failure();
        let work = async {
            let metadata = reader.get_metadata(None).await?;
            let groups = row_groups(&metadata)?;
            let columns = Columns::of(metadata, &range.needs)?;
            if let Some(window) = &range.window {
                check_time(columns.metadata.schema(), &window.column).map_err(FileProblem::Schema)?;
            }
            let (chosen, base) = covering(&groups, range.from, range.to);
            let rows = wanted(range);
            let selection = selection(&rows, base, chosen.iter().map(|&group| groups[group]).sum());
            let batch = rows_at_a_time(&columns, &chosen);
            reader.check_pages_of(&columns, &chosen);
            let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, columns.metadata)
                .with_projection(columns.mask)
                .with_row_groups(chosen)
                .with_row_selection(selection)
                .with_batch_size(batch)
                .build()?;
            RowSender { range, records, in_flight, yields }.send_all(stream, &columns.fields, &rows).await
        };
        self.guarded(&range.file, &failure, work).await
    }

    /// Runs `work` and classifies its error as a fault of the file or as unavailable. A panic of the decoder is a fault of the
    /// file.
    async fn guarded<T>(
        &self,
        file: &ArchiveFile,
        failure: &ReadFailure,
        work: impl Future<Output = Result<T, FileProblem>>,
    ) -> Result<T, ArchiveError> {
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        let (class, reason) = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(trouble)) => {
                if let Some(error) = failure.take() {
                    return Err(error);
                }
                match trouble {
                    FileProblem::Schema(reason) => ("schema_mismatch", reason),
                    FileProblem::Unsupported(reason) => ("unsupported_file", reason),
                    // A feature that the decoder lacks does not mean that the file is damaged.
                    FileProblem::Decoder(error @ ParquetError::NYI(_)) => {
                        ("unsupported_file", format!("it uses a feature that is not supported: {error}"))
                    }
                    FileProblem::Decoder(error) if error.to_string().contains("encrypt") => {
                        ("unsupported_file", "it is encrypted, and encrypted files are not supported".to_owned())
                    }
                    FileProblem::Decoder(error) => ("corrupt_file", format!("it cannot be decoded: {error}")),
                }
            }
            Err(_) => ("corrupt_file", "the Parquet decoder failed on it".to_owned()),
        };
        let reason = format!("`{}` of dataset `{}`: {reason}", file.key, self.name);
        Err(UnitFault { class, reason }.into())
    }
}

/// The number of rows of each row group, after checks of the footer.
fn row_groups(metadata: &Arc<ParquetMetaData>) -> Result<Vec<i64>, ParquetError> {
    let mut rows = Vec::with_capacity(metadata.num_row_groups());
    for group in metadata.row_groups() {
        let (count, bytes) = (group.num_rows(), group.total_byte_size());
        if count < 0 || !(0..=ROW_GROUP_BYTES).contains(&bytes) {
            return Err(ParquetError::General(format!("a row group of {count} rows and {bytes} bytes")));
        }
        for column in group.columns() {
            if column.uncompressed_size() < 0 || column.uncompressed_size() > ROW_GROUP_BYTES || column.num_values() < 0 {
                return Err(ParquetError::General(format!("a column chunk of {} bytes", column.uncompressed_size())));
            }
        }
        rows.push(count);
    }
    let sum = rows.iter().try_fold(0_i64, |sum, rows| sum.checked_add(*rows));
    match sum {
        Some(sum) if sum > MOST_ROWS => {
            Err(ParquetError::General(format!("a file of {sum} rows; at most {MOST_ROWS} are supported")))
        }
        Some(sum) if sum == metadata.file_metadata().num_rows() => Ok(rows),
        _ => Err(ParquetError::General("the row groups do not add up to the file's rows".into())),
    }
}

fn rows_at_a_time(columns: &Columns, groups: &[usize]) -> usize {
    let of = |group: &usize| columns.read(*group).map(|(_, column)| column.uncompressed_size()).sum::<i64>();
    if groups.iter().map(of).max().unwrap_or(0) > SMALL_BYTES { FEW_ROWS } else { ROWS }
}

/// The row groups that contain the rows `from..to`, and the number of their first row.
fn covering(groups: &[i64], from: i64, to: i64) -> (Vec<usize>, i64) {
    let (mut start, mut chosen, mut base) = (0, Vec::new(), from);
    for (index, rows) in groups.iter().enumerate() {
        if start < to && start + rows > from && *rows > 0 {
            if chosen.is_empty() {
                base = start;
            }
            chosen.push(index);
        }
        start += rows;
    }
    (chosen, base)
}

fn wanted(range: &RowRange) -> Vec<i64> {
    match &range.wanted {
        Some(rows) => rows.iter().copied().filter(|row| (range.from..range.to).contains(row)).collect(),
        None => (range.from..range.to).collect(),
    }
}

/// The selection of `rows` among `total` rows that start with row `base`.
fn selection(rows: &[i64], base: i64, total: i64) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut at = base;
    for &row in rows.iter().filter(|row| (base..base + total).contains(*row)) {
        if row > at {
            selectors.push(RowSelector::skip((row - at) as usize));
        }
        match selectors.last_mut() {
            Some(last) if !last.skip => last.row_count += 1,
            _ => selectors.push(RowSelector::select(1)),
        }
        at = row + 1;
    }
    if at < base + total {
        selectors.push(RowSelector::skip((base + total - at) as usize));
    }
    RowSelection::from(selectors)
}

/// Sends the rows of one range.
struct RowSender<'a> {
    range: &'a RowRange,
    records: &'a UnboundedSender<Delivery>,
    in_flight: &'a InFlight,
    yields: &'a (dyn Fn() -> bool + Sync),
}

impl RowSender<'_> {
    /// Sends the rows with these numbers, in order, from a stream that contains exactly them.
    async fn send_all(
        &self,
        mut stream: ParquetRecordBatchStream<VersionedReader>,
        fields: &[(String, JsonForm)],
        rows: &[i64],
    ) -> Result<(), FileProblem> {
        let mut numbers = rows.iter();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                let Some(&offset) = numbers.next() else {
                    return Err(FileProblem::Decoder(ParquetError::General("it contains more rows than its footer says".into())));
                };
                if !self.send(offset, payload(&batch, fields, row)).await {
                    return Ok(());
                }
            }
        }
        match numbers.len() {
            0 => Ok(()),
            missing => Err(FileProblem::Decoder(ParquetError::General(format!("it ends {missing} rows before its footer says")))),
        }
    }

    /// Sends one row if it is in the time span. Waits until there is capacity. Returns false if the receiver is closed.
    async fn send(&self, offset: i64, payload: Bytes) -> bool {
        if self.range.window.as_ref().is_some_and(|window| !window.contains(&payload)) {
            return true;
        }
        while self.in_flight.is_full() || (self.yields)() {
            if self.records.is_closed() {
                return false;
            }
            sleep(WAIT).await;
        }
        let record = Record {
            place: RecordLocation { partition: self.range.partition.clone(), offset },
            timestamp_ms: Some(self.range.file.modified_ms),
            key: None,
            payload: Some(payload),
            headers: Vec::new(),
        };
        let guard = self.in_flight.track(&record);
        self.records.send(Delivery { record, guard }).is_ok()
    }
}

fn payload(batch: &RecordBatch, fields: &[(String, JsonForm)], row: usize) -> Bytes {
    let mut bytes = Vec::new();
    object(batch.columns(), fields, row, &mut bytes);
    bytes.into()
}
