//! Reads bytes of a file for the Parquet decoder. Each read is conditional on the version of the file that was listed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::columns::Columns;
use super::footer::check_depth;
use super::pages::PageSizes;
use super::{Archive, ArchiveError, ArchiveFile};
use crate::store::UnitFault;

/// Most uncompressed bytes of the largest pages of all columns that are read: a thousand rows of 128 KB, which is what a writer
/// puts into a page before it checks its size.
const PAGE_BYTES: u64 = 128 << 20;

/// Most values of a list per row, on average. The longest vectors have fewer.
const ROW_VALUES: u64 = 1 << 16;
/// Additional values allowed per row group.
const GROUP_VALUES: u64 = 1 << 20;

/// Reads one version of a file.
#[derive(Debug)]
pub(super) struct VersionedReader {
    archive: Archive,
    location: Key,
    file: ArchiveFile,
    /// Why the last read failed, because the error type of the decoder cannot carry it.
    failure: Arc<Mutex<Option<ArchiveError>>>,
    /// The column chunks that are read, by their first byte.
    chunks: HashMap<u64, ColumnChunk>,
    /// The sum of the largest pages of each row group so far, in bytes.
    largest: Mutex<HashMap<usize, u64>>,
}

/// A column chunk: one column of a row group.
#[derive(Debug)]
struct ColumnChunk {
    group: usize,
    column: String,
    bytes: Range<u64>,
    /// Number of rows of the row group.
    rows: u64,
    /// Uncompressed size according to the footer.
    unpacked: u64,
}

/// Bytes read from the end of a file at first. Most footers are shorter.
const PREFETCH: u64 = 64 << 10;
/// Bytes of the footer length and the format marker at the end of a file.
const TAIL: u64 = 8;

impl VersionedReader {
    pub(super) fn new(archive: &Archive, file: &ArchiveFile) -> std::result::Result<Self, ArchiveError> {
        let location = archive.location(&file.key)?;
        Ok(Self {
            archive: archive.clone(),
            location,
            file: file.clone(),
            failure: Arc::default(),
            chunks: HashMap::new(),
            largest: Mutex::default(),
        })
    }

    /// From now on, checks the pages of these columns before the decoder reads them.
    pub(super) fn check_pages_of(&mut self, columns: &Columns, groups: &[usize]) {
        for &group in groups {
            let rows = columns.metadata.metadata().row_groups().get(group).map_or(0, |group| group.num_rows());
            for (_, column) in columns.read(group) {
                let (start, length) = column.byte_range();
                let chunk = ColumnChunk {
                    group,
                    column: column.column_path().string(),
                    bytes: start..start.saturating_add(length),
                    rows: u64::try_from(rows).unwrap_or(0),
                    unpacked: u64::try_from(column.uncompressed_size()).unwrap_or(0).max(length),
                };
                self.chunks.insert(start, chunk);
            }
        }
    }

    /// Refuses pages that would not fit into memory besides the models, and chunks that are larger than the footer says.
    fn check_pages(&self, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let Some(chunk) = self.chunks.get(&range.start).filter(|chunk| chunk.bytes == *range) else {
            // The decoder would decompress it without a check.
            let message = format!("bytes {}..{} are not a column that is read", range.start, range.end);
            return Err(ParquetError::General(message));
        };
        let pages =
            PageSizes::of(bytes).map_err(|reason| ParquetError::General(format!("column `{}`: {reason}", chunk.column)))?;
        if pages.sum() > chunk.unpacked.saturating_mul(2) {
            let (column, sum, declared) = (&chunk.column, pages.sum(), chunk.unpacked);
            return Err(ParquetError::General(format!(
                "column `{column}` has pages of {sum} bytes, but the footer says {declared}"
            )));
        }
        if pages.values() > chunk.rows.saturating_mul(ROW_VALUES).saturating_add(GROUP_VALUES) {
            let (column, values, rows) = (&chunk.column, pages.values(), chunk.rows);
            return Err(self.unsupported(format!(
                "column `{column}` has {values} values in {rows} rows, but at most {ROW_VALUES} per row are allowed; split the lists"
            )));
        }
        let mut largest = self.largest.lock().unwrap_or_else(PoisonError::into_inner);
        let together = largest.entry(chunk.group).or_default();
        *together += pages.bytes();
        if *together <= PAGE_BYTES {
            return Ok(());
        }
        Err(self.unsupported(format!(
            "a page of column `{}` has {} uncompressed bytes, but the largest pages of a row group may have {PAGE_BYTES} in total; \
             write the file again with smaller pages",
            chunk.column,
            pages.bytes(),
        )))
    }

    fn unsupported(&self, why: String) -> ParquetError {
        let reason = format!("`{}` of dataset `{}`: {why}", self.file.key, self.archive.name);
        let fault = UnitFault { class: "unsupported_file", reason };
        let message = fault.to_string();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.into());
        ParquetError::General(message)
    }

    /// A handle that returns, after an error of the decoder, the failed read that caused it.
    pub(super) fn failure(&self) -> ReadFailure {
        ReadFailure(self.failure.clone())
    }

    /// The bytes of the footer, which precedes its length and the format marker at the end.
    async fn footer(&self) -> Result<Bytes> {
        let size = self.file.bytes;
        if size < TAIL {
            return Err(ParquetError::EOF(format!("a file of {size} bytes has no footer")));
        }
        let end = self.read(size.saturating_sub(PREFETCH)..size).await?;
        let (before, tail) = end.split_at(end.len().saturating_sub(TAIL as usize));
        let (length, mark) = tail.split_at(4);
        match mark {
            b"PAR1" => {}
            b"PARE" => return Err(ParquetError::General("its footer is encrypted".into())),
            _ => return Err(ParquetError::General("it does not end with the marker of a Parquet file".into())),
        }
        let length = length.try_into().map_or(0, |length| u64::from(u32::from_le_bytes(length)));
        let Some(start) = size.checked_sub(TAIL + length) else {
            return Err(ParquetError::EOF(format!("a file of {size} bytes has no footer of {length}")));
        };
        match before.len().checked_sub(length as usize) {
            Some(at) => Ok(end.slice(at..before.len())),
            None => self.read(start..size - TAIL).await,
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        // A hostile footer can contain arbitrary ranges.
        if range.start > range.end || range.end > self.file.bytes {
            let message = format!("bytes {}..{} of a file of {}", range.start, range.end, self.file.bytes);
            return Err(ParquetError::General(message));
        }
        let result = match self.read_if_same(range.clone()).await {
            Ok(bytes) => {
                self.check_pages(&range, &bytes)?;
                return Ok(bytes);
            }
            Err(error) => self.archive.failed(&self.file.key, &error),
        };
        let message = result.to_string();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        Err(ParquetError::General(message))
    }

    async fn read_if_same(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        let options =
            GetOptions::new().with_range(Some(GetRange::Bounded(range))).with_if_match(Some(self.file.version.as_str()));
        self.archive.files.get_opts(&self.location, options).await?.bytes().await
    }
}

/// Holds the reason of a failed read.
#[derive(Debug, Clone)]
pub(super) struct ReadFailure(Arc<Mutex<Option<ArchiveError>>>);

impl ReadFailure {
    pub(super) fn take(&self) -> Option<ArchiveError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AsyncFileReader for VersionedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.read(range).await }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, _options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.footer().await?;
            check_depth(&footer).map_err(ParquetError::General)?;
            ParquetMetaDataReader::decode_metadata(&footer).map(Arc::new)
        }
        .boxed()
    }
}
