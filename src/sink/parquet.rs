//! Writes results as Parquet files. Each micro-batch has one file, which is complete and synced to disk before the commit that
//! makes it part of the dataset.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
    TimestampMillisecondBuilder, UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use crate::checkpoint::CheckpointDelta;
use crate::failure::{Component, Transient};
use crate::outcome::{Cost, EmbeddedChunk, Fingerprint, Lineage, Output};
use crate::record::RecordLocation;
use crate::store::StagedFile;

/// A folder to which pipelines write Parquet files.
#[derive(Debug, Clone)]
pub struct Dataset {
    name: String,
    folder: PathBuf,
}

/// One row: an output, or one chunk of an embedding, with its lineage.
#[derive(Debug, Clone)]
pub struct ParquetRow<'a> {
    pub document_id: &'a str,
    pub version: i64,
    pub task: &'a str,
    pub output: &'a Output,
    /// The number and data of the chunk, if the output is an embedding.
    pub chunk: Option<(usize, &'a EmbeddedChunk)>,
    pub fingerprint: Fingerprint,
    /// The cost of the whole output, not of one chunk.
    pub cost: Cost,
    /// Model and prompt that produced the output.
    pub lineage: &'a Lineage,
    /// Topic, partition and offset of the record.
    pub place: &'a RecordLocation,
    pub timestamp_ms: Option<i64>,
}

impl Dataset {
    /// Opens the dataset `name` in `folder`. Creates the folder if it is missing.
    ///
    /// # Errors
    /// If files cannot be created in the folder.
    pub fn open(name: &str, folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let probe = folder.join(format!(".tidemill-probe-{}", Uuid::new_v4()));
        File::create_new(&probe)?;
        std::fs::remove_file(&probe)?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned() })
    }

    /// Name of the dataset in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Free bytes on the disk, if the system reports them.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        Some(disk.blocks_available() as u64 * disk.fragment_size() as u64)
    }

    /// A path for the file of a batch. It contains a random id, so no other attempt uses it.
    pub fn path(&self, pipeline: &str, delta: &CheckpointDelta) -> PathBuf {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let file = format!(
            "{}-{}-{}-{}-{}.parquet",
            delta.partition.topic,
            delta.partition.number,
            delta.from,
            delta.to,
            Uuid::new_v4().simple()
        );
        self.folder.join(pipeline).join(format!("date={date}")).join(file)
    }

    /// Writes `rows` to a new file at `path` and syncs it to disk.
    ///
    /// # Errors
    /// If the disk is full or not writable. A partial file is removed.
    pub fn write(&self, path: &Path, batch_id: Uuid, rows: &[ParquetRow<'_>]) -> Result<StagedFile, Transient> {
        let bytes = encode(batch_id, rows).map_err(|e| storage_failure(path, &e))?;
        let written = write_synced(path, &bytes);
        if let Err(error) = written {
            // A partial file is useless, and on a full disk its space is needed.
            let _ = std::fs::remove_file(path);
            return Err(storage_failure(path, &error));
        }
        Ok(StagedFile {
            path: path.display().to_string(),
            rows: rows.len() as i64,
            bytes: bytes.len() as i64,
            blake3: *blake3::hash(&bytes).as_bytes(),
        })
    }

    /// Deletes a file. A missing file is not an error.
    ///
    /// # Errors
    /// If the file cannot be deleted.
    pub fn delete(&self, path: &Path) -> Result<(), Transient> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage_failure(path, &error)),
            _ => Ok(()),
        }
    }
}

fn storage_failure(path: &Path, error: &dyn std::fmt::Display) -> Transient {
    Transient::new(Component::Storage, format!("cannot write {}: {error}", path.display()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    tidemill_base::failpoint!("parquet-write", |_| Err(io::Error::from(io::ErrorKind::StorageFull)));
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // The directory entry is durable only after the folder is synced.
    File::open(folder)?.sync_all()
}

/// The columns, in order. Readers of the dataset depend on names and types: only add columns, never change them.
pub(super) fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("document_id", false),
        Field::new("version", DataType::Int64, false),
        text("task", false),
        text("kind", false),
        text("label", true),
        Field::new("confidence", DataType::Float32, true),
        text("text", true),
        text("fields", false),
        Field::new("chunk", DataType::Int32, true),
        Field::new("span_start", DataType::Int64, true),
        Field::new("span_end", DataType::Int64, true),
        Field::new("embedding", DataType::List(Arc::new(Field::new("item", DataType::Float32, true))), true),
        text("embedding_model", true),
        text("embedding_revision", true),
        Field::new("tokens", DataType::UInt32, false),
        Field::new("generated_tokens", DataType::UInt32, false),
        Field::new("device_micros", DataType::Int64, false),
        text("model", true),
        text("model_revision", true),
        text("prompt", true),
        text("fingerprint", false),
        text("batch_id", false),
        text("topic", false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("record_timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("processed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

fn encode(batch_id: Uuid, rows: &[ParquetRow<'_>]) -> parquet::errors::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Vectors rarely repeat, so a dictionary would be built and then discarded as too large.
        .set_column_dictionary_enabled("embedding.list.item".into(), false)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema(), Some(properties))?;
    writer.write(&columns(batch_id, rows)?)?;
    writer.close()?;
    Ok(bytes)
}

fn columns(batch_id: Uuid, rows: &[ParquetRow<'_>]) -> parquet::errors::Result<RecordBatch> {
    let batch_id = batch_id.to_string();
    let processed_at = jiff::Timestamp::now().as_microsecond();
    let columns: Vec<ArrayRef> = vec![
        text(rows, |r| Some(r.document_id)),
        int64(rows, |r| Some(r.version)),
        text(rows, |r| Some(r.task)),
        text(rows, |r| Some(r.output.kind())),
        text(rows, |r| r.output.label()),
        float32(rows, |r| r.output.confidence()),
        text(rows, |r| r.output.text()),
        text(rows, |r| Some(r.output.fields().to_string())),
        int32(rows, |r| r.chunk.map(|(number, _)| number as i32)),
        int64(rows, |r| r.chunk.map(|(_, chunk)| chunk.span.start as i64)),
        int64(rows, |r| r.chunk.map(|(_, chunk)| chunk.span.end as i64)),
        embeddings(rows),
        text(rows, |r| embedding_set(r.output).map(|set| set.model.as_str())),
        text(rows, |r| embedding_set(r.output).map(|set| set.revision.as_str())),
        uint32(rows, |r| r.chunk.map_or(r.cost.tokens, |(_, chunk)| chunk.tokens)),
        uint32(rows, |r| r.cost.generated),
        int64(rows, |r| Some(r.cost.device_micros as i64)),
        text(rows, |r| r.lineage.model.as_deref()),
        text(rows, |r| r.lineage.revision.as_deref()),
        text(rows, |r| r.lineage.prompt.as_deref()),
        text(rows, |r| Some(blake3::Hash::from_bytes(r.fingerprint.0).to_hex())),
        text(rows, |_| Some(batch_id.as_str())),
        text(rows, |r| Some(&*r.place.partition.topic)),
        int32(rows, |r| Some(r.place.partition.number)),
        int64(rows, |r| Some(r.place.offset)),
        record_timestamps(rows),
        processed_timestamps(rows, processed_at),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn embedding_set(output: &Output) -> Option<&crate::outcome::EmbeddingSet> {
    match output {
        Output::Embedding(embedding) => Some(&embedding.set),
        _ => None,
    }
}

fn text<'a, T: AsRef<str>>(rows: &'a [ParquetRow<'a>], field: impl Fn(&'a ParquetRow<'a>) -> Option<T>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    rows.iter().for_each(|row| builder.append_option(field(row)));
    Arc::new(builder.finish())
}

macro_rules! numbers {
    ($($name:ident: $type:ty = $builder:ty;)*) => {
        $(fn $name<'a, T: Into<Option<$type>>>(rows: &'a [ParquetRow<'a>], field: impl Fn(&'a ParquetRow<'a>) -> T) -> ArrayRef {
            let mut builder = <$builder>::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_option(field(row).into()));
            Arc::new(builder.finish())
        })*
    };
}

numbers! {
    int32: i32 = Int32Builder;
    int64: i64 = Int64Builder;
    uint32: u32 = UInt32Builder;
    float32: f32 = Float32Builder;
}

fn embeddings(rows: &[ParquetRow<'_>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float32Builder::new());
    for row in rows {
        if let Some((_, chunk)) = row.chunk {
            builder.values().append_slice(&chunk.vector);
        }
        builder.append(row.chunk.is_some());
    }
    Arc::new(builder.finish())
}

fn record_timestamps(rows: &[ParquetRow<'_>]) -> ArrayRef {
    let mut builder = TimestampMillisecondBuilder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_option(row.timestamp_ms));
    Arc::new(builder.finish().with_timezone("UTC"))
}

fn processed_timestamps(rows: &[ParquetRow<'_>], processed_at: i64) -> ArrayRef {
    let mut builder = TimestampMicrosecondBuilder::with_capacity(rows.len());
    rows.iter().for_each(|_| builder.append_value(processed_at));
    Arc::new(builder.finish().with_timezone("UTC"))
}
