//! Reads a document's outputs of all times from the Parquet files of its pipeline.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::OutputSummary;

/// The columns that are read. Vectors are most of a file, and are not needed here.
const COLUMNS: [&str; 17] = [
    "document_id",
    "version",
    "task",
    "kind",
    "label",
    "confidence",
    "text",
    "chunk",
    "tokens",
    "generated_tokens",
    "device_micros",
    "model",
    "model_revision",
    "prompt",
    "topic",
    "partition",
    "offset",
];

/// The column with the time when a row was written. It has a type of its own and is read separately.
const PROCESSED_AT: &str = "processed_at";

/// The maximum number of outputs of a document.
pub(super) const MAX_OUTPUTS: usize = 200;

/// An output, when it was computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PastOutput {
    #[serde(flatten)]
    pub computed: OutputSummary,
    /// The topic of the record, or of the job's unit.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// When it was computed, in Unix milliseconds.
    pub processed_at_ms: i64,
    /// The path of the file; over HTTP only its name.
    pub file: String,
}

/// The outputs of the document in the file, an embedding as one. A file whose statistics exclude the document is not read further.
pub(super) fn read(path: &str, document: &str, deadline: Instant) -> Result<Vec<PastOutput>> {
    let file = File::open(Path::new(path)).map_err(|error| ParquetError::External(Box::new(error)))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let metadata = builder.metadata().clone();
    let groups: Vec<usize> = (0..metadata.num_row_groups()).filter(|group| may_hold(&metadata, *group, document)).collect();
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let schema = builder.parquet_schema();
    let own = ProjectionMask::columns(schema, ["document_id"]);
    let wanted = ProjectionMask::columns(schema, COLUMNS.into_iter().chain([PROCESSED_AT]));
    let document = document.to_owned();
    let is_wanted = ArrowPredicateFn::new(own, move |batch: RecordBatch| {
        let ids = batch.column(0).as_string::<i32>();
        Ok(BooleanArray::from_iter(ids.iter().map(|id| Some(id == Some(document.as_str())))))
    });
    let rows = builder.with_row_groups(groups).with_row_filter(RowFilter::new(vec![Box::new(is_wanted)])).with_projection(wanted);
    let mut found: Vec<PastOutput> = Vec::new();
    for batch in rows.build()? {
        append(&batch?, path, &mut found)?;
        if found.len() > MAX_OUTPUTS || Instant::now() > deadline {
            break;
        }
    }
    Ok(found)
}

/// Whether the document may be in the row group, by the least and the greatest id in its statistics.
fn may_hold(metadata: &parquet::file::metadata::ParquetMetaData, group: usize, document: &str) -> bool {
    let columns = metadata.row_group(group).columns();
    let ids = columns.iter().find(|column| column.column_path().string() == "document_id");
    match ids.and_then(|ids| ids.statistics()) {
        Some(Statistics::ByteArray(range)) => {
            // Truncated bounds are still bounds: a truncated maximum is rounded up.
            range.min_opt().is_none_or(|least| least.data() <= document.as_bytes())
                && range.max_opt().is_none_or(|greatest| greatest.data() >= document.as_bytes())
        }
        _ => true,
    }
}

fn append(batch: &RecordBatch, path: &str, found: &mut Vec<PastOutput>) -> Result<()> {
    let column =
        |name: &str| batch.column_by_name(name).ok_or_else(|| ParquetError::General(format!("{path} has no column `{name}`")));
    let wrong = |name: &str| ParquetError::General(format!("the column `{name}` of {path} has another type"));
    let text = |name: &'static str| column(name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
    let (task, kind, label, words) = (text("task")?, text("kind")?, text("label")?, text("text")?);
    let (model, revision, prompt, topic) = (text("model")?, text("model_revision")?, text("prompt")?, text("topic")?);
    let long = |name: &'static str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(name));
    let (version, device, offset) = (long("version")?, long("device_micros")?, long("offset")?);
    let short = |name: &'static str| column(name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| wrong(name));
    let (chunk, partition) = (short("chunk")?, short("partition")?);
    let count = |name: &'static str| column(name)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong(name));
    let (tokens, generated) = (count("tokens")?, count("generated_tokens")?);
    let confidence = column("confidence")?.as_primitive_opt::<Float32Type>().ok_or_else(|| wrong("confidence"))?;
    let processed = column(PROCESSED_AT)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong(PROCESSED_AT))?;
    debug_assert!(matches!(processed.data_type(), arrow::datatypes::DataType::Timestamp(TimeUnit::Microsecond, _)));
    for row in 0..batch.num_rows() {
        let value = |column: &arrow::array::StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
        // Each further chunk of an embedding repeats the device time of the whole, so only its tokens are added.
        if chunk.is_valid(row)
            && chunk.value(row) > 0
            && let Some(first) = found.iter_mut().rev().find(|past| {
                past.computed.task == task.value(row)
                    && past.offset == offset.value(row)
                    && past.partition == partition.value(row)
            })
        {
            first.computed.tokens += i64::from(tokens.value(row));
            continue;
        }
        found.push(PastOutput {
            computed: OutputSummary {
                task: task.value(row).to_owned(),
                kind: kind.value(row).to_owned(),
                version: version.value(row),
                label: value(label),
                confidence: confidence.is_valid(row).then(|| confidence.value(row)),
                text: value(words),
                model: value(model),
                model_revision: value(revision),
                prompt_version: value(prompt),
                tokens: tokens.value(row).into(),
                generated_tokens: generated.value(row).into(),
                device_micros: device.value(row),
            },
            topic: topic.value(row).to_owned(),
            partition: partition.value(row),
            offset: offset.value(row),
            processed_at_ms: processed.value(row).div_euclid(1_000),
            file: path.to_owned(),
        });
    }
    Ok(())
}
