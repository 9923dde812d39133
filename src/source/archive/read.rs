//! Bytes of a file for the Parquet decoder, each read on condition that the file is still the one that was listed.

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

use super::{Archive, ArchiveError, ArchiveFile};

/// Reads one version of a file.
#[derive(Debug)]
pub(super) struct Conditional {
    archive: Archive,
    location: Key,
    file: ArchiveFile,
    /// Why the last read failed: the decoder's own error has no room for it.
    failure: Arc<Mutex<Option<ArchiveError>>>,
}

impl Conditional {
    pub(super) fn new(archive: &Archive, file: &ArchiveFile) -> std::result::Result<Self, ArchiveError> {
        let location = archive.location(&file.key)?;
        Ok(Self { archive: archive.clone(), location, file: file.clone(), failure: Arc::default() })
    }

    /// Tells after an error whether reading was to blame for it, and how.
    pub(super) fn failure(&self) -> Failure {
        Failure(self.failure.clone())
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        // A hostile footer names ranges of its own making.
        if range.start > range.end || range.end > self.file.bytes {
            let message = format!("bytes {}..{} of a file of {}", range.start, range.end, self.file.bytes);
            return Err(ParquetError::General(message));
        }
        let result = match self.read_if_same(range).await {
            Ok(bytes) => return Ok(bytes),
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

/// Where the reason of a failed read is kept.
#[derive(Debug, Clone)]
pub(super) struct Failure(Arc<Mutex<Option<ArchiveError>>>);

impl Failure {
    pub(super) fn take(&self) -> Option<ArchiveError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl AsyncFileReader for Conditional {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.read(range).await }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let bytes = self.file.bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(64 << 10));
            reader.load_and_finish(self, bytes).await.map(Arc::new)
        }
        .boxed()
    }
}
