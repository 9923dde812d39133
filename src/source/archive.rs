//! Reads the Parquet files of a dataset for backfills. A range of rows of a file is a partition, and the row number is the offset.
//!
//! | problem | error class |
//! |---|---|
//! | a key outside the dataset | `refused_key`, before anything is opened |
//! | a broken link, a file without read permission, a name that is not UTF-8 | `unreadable_file` |
//! | the file changed since it was listed | `source_changed`; every read is conditional on the version |
//! | a column that the pipeline needs is missing or has another type | `schema_mismatch` |
//! | a valid file that is encrypted, uses another codec, or has pages that do not fit into memory | `unsupported_file` |
//! | the file is not Parquet, is damaged or is hostile | `corrupt_file`; a panic of the decoder is caught |
//! | the disk or the service does not answer | transient; the read is retried |

mod columns;
mod file_problem;
mod footer;
mod json_values;
mod pages;
mod reader;
mod rows;
mod thrift;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, DatasetConfig};
use crate::failure::{Component, Transient};
use crate::store::UnitFault;

pub use columns::RequestedColumns;
pub use rows::{RowRange, TimeWindow};
pub use walk::{WalkError, find_files};

/// The Parquet files of a dataset: a local folder or an S3 bucket.
#[derive(Debug, Clone)]
pub struct Archive {
    name: String,
    files: Arc<dyn ObjectStore>,
    /// The folder with its canonical path, if the dataset is local.
    local: Option<(Arc<LocalFileSystem>, PathBuf)>,
}

/// A file of a dataset, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveFile {
    /// The key, relative to the dataset.
    pub key: String,
    pub bytes: u64,
    /// Identifies the content. It changes with the content.
    pub version: String,
    /// Time of the last change, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// Row groups and columns of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayout {
    /// Number of rows of each row group.
    pub row_groups: Vec<i64>,
    /// Names of the top-level columns.
    pub columns: Vec<String>,
}

/// Why a file or folder of a dataset cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A permanent problem of the file.
    #[error(transparent)]
    Fault(#[from] UnitFault),
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl FileLayout {
    /// Number of rows of the file.
    pub fn rows(&self) -> i64 {
        self.row_groups.iter().sum()
    }
}

impl Archive {
    /// Opens the dataset `name`.
    ///
    /// # Errors
    /// If the configuration is invalid or the folder does not exist.
    pub fn open(name: &str, config: &DatasetConfig) -> Result<Self, ConfigError> {
        let refuse = |reason: String| ConfigError(format!("dataset `{name}`: {reason}"));
        match &config.url {
            Some(url) => Self::bucket(name, url, config).map_err(refuse),
            None => {
                let path = &config.path;
                let folder = path.canonicalize().map_err(|e| {
                    refuse(format!("cannot find its folder {}: {e}; create it or correct `path`", path.display()))
                })?;
                let files = LocalFileSystem::new_with_prefix(&folder)
                    .map(Arc::new)
                    .map_err(|e| refuse(format!("cannot read {}: {e}", folder.display())))?;
                Ok(Self { name: name.to_owned(), files: files.clone(), local: Some((files, folder)) })
            }
        }
    }

    fn bucket(name: &str, url: &str, config: &DatasetConfig) -> Result<Self, String> {
        if !config.path.as_os_str().is_empty() {
            return Err("`path` and `url` are both set; remove one".into());
        }
        let rest = url.strip_prefix("s3://").ok_or("`url` must be of the form s3://bucket/prefix")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut builder =
            AmazonS3Builder::new().with_bucket_name(bucket).with_region(config.region.as_deref().unwrap_or("us-east-1"));
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let secret = |variable: &str| std::env::var(variable).map_err(|_| format!("the variable {variable} is not set"));
        builder = match (&config.access_key_env, &config.secret_key_env) {
            (Some(access), Some(key)) => builder.with_access_key_id(secret(access)?).with_secret_access_key(secret(key)?),
            (None, None) => builder.with_skip_signature(true),
            _ => return Err("`access_key_env` and `secret_key_env` go together; set both or none".into()),
        };
        // A second installation fails and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bucket = builder.build().map_err(|e| format!("cannot be used as configured: {e}"))?;
        let prefix = Key::parse(prefix).map_err(|e| format!("`url` has no usable prefix: {e}"))?;
        Ok(Self { name: name.to_owned(), files: Arc::new(PrefixStore::new(bucket, prefix)), local: None })
    }

    /// Name of the dataset in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Parquet files whose keys begin with `prefix`, sorted by key. Hidden files and folders are skipped, as by [`find_files`].
    ///
    /// # Errors
    /// If the prefix or a link leads outside the dataset, or the dataset cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ArchiveFile>, ArchiveError> {
        check_key(prefix)?;
        // A prefix may end within a name, but the interface lists whole folders only.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let under = Key::parse(folder).map_err(|e| self.refused(prefix, &e.to_string()))?;
        if !folder.is_empty() {
            self.check_place(&under)?;
        }
        let mut files = match &self.local {
            Some((_, root)) => self.list_folder(root, folder).await?,
            None => {
                let listed: Vec<ObjectMeta> =
                    self.files.list(Some(&under)).try_collect().await.map_err(|error| self.unavailable(prefix, &error))?;
                let below = |meta: &ObjectMeta| meta.location.as_ref().get(under.as_ref().len()..).unwrap_or_default().to_owned();
                let is_data = |meta: &&ObjectMeta| !below(meta).split('/').any(walk::is_hidden);
                listed.iter().filter(is_data).map(archive_file).collect()
            }
        };
        files.retain(|file| file.key.starts_with(prefix) && file.key.ends_with(".parquet"));
        files.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(files)
    }

    /// All files below the folder, including those that cannot be read. Each of those fails separately when it is read.
    async fn list_folder(&self, root: &Path, folder: &str) -> Result<Vec<ArchiveFile>, ArchiveError> {
        if !root.join(folder).is_dir() {
            return Ok(Vec::new());
        }
        let (root, within) = (root.to_owned(), PathBuf::from(folder));
        let found = tokio::task::spawn_blocking(move || find_files(&root, &within, "**/*.parquet")).await;
        let found =
            found.map_err(|error| self.storage_failure(folder, &error))?.map_err(|error| self.storage_failure(folder, &error))?;
        let mut files = Vec::with_capacity(found.keys.len());
        for key in found.keys {
            files.push(match self.file(&key).await {
                Ok(file) => file,
                Err(ArchiveError::Fault(_)) => ArchiveFile::unreadable(key),
                Err(error) => return Err(error),
            });
        }
        Ok(files)
    }

    /// The current state of the file.
    ///
    /// # Errors
    /// If the file is missing (`source_changed`), its key is outside the dataset, or it cannot be accessed.
    pub async fn file(&self, key: &str) -> Result<ArchiveFile, ArchiveError> {
        let location = self.location(key)?;
        let meta = self.files.head(&location).await.map_err(|error| self.failed(key, &error))?;
        Ok(archive_file(&meta))
    }

    /// Returns the problem of a file that could not be accessed when it was listed.
    async fn check_readable(&self, file: &ArchiveFile) -> Result<(), ArchiveError> {
        if file.version != UNREADABLE {
            return Ok(());
        }
        self.file(&file.key).await?;
        Err(self.changed(&file.key).into())
    }

    fn location(&self, key: &str) -> Result<Key, UnitFault> {
        check_key(key)?;
        let location = Key::parse(key).map_err(|e| self.refused(key, &e.to_string()))?;
        self.check_place(&location)?;
        Ok(location)
    }

    /// Resolves the links of a local path and checks that the file is below the folder.
    fn check_place(&self, location: &Key) -> Result<(), UnitFault> {
        let Some((files, folder)) = &self.local else { return Ok(()) };
        let path = files.path_to_filesystem(location).map_err(|e| self.refused(location.as_ref(), &e.to_string()))?;
        match path.canonicalize() {
            Ok(place) if !place.starts_with(folder) => {
                Err(self.refused(location.as_ref(), "a link leads outside the dataset; remove the link"))
            }
            // A missing file is reported when it is opened.
            _ => Ok(()),
        }
    }

    fn refused(&self, key: &str, reason: &str) -> UnitFault {
        UnitFault { class: "refused_key", reason: format!("`{key}` of dataset `{}` is refused: {reason}", self.name) }
    }

    fn unavailable(&self, key: &str, error: &object_store::Error) -> Transient {
        self.storage_failure(key, error)
    }

    fn storage_failure(&self, key: &str, error: &dyn std::error::Error) -> Transient {
        let reason = format!("cannot read `{key}` of dataset `{}`: {error}", self.name);
        Transient::new(Component::Storage, reason)
    }

    fn changed(&self, key: &str) -> UnitFault {
        let reason = format!("`{key}` of dataset `{}` is not the planned file any more: it was changed or removed", self.name);
        UnitFault { class: "source_changed", reason }
    }

    fn failed(&self, key: &str, error: &object_store::Error) -> ArchiveError {
        let unreadable = |reason: String| {
            let reason = format!("`{key}` of dataset `{}` cannot be read: {reason}", self.name);
            UnitFault { class: "unreadable_file", reason }.into()
        };
        // These problems of local files last until somebody fixes them.
        let permanent = self.local.as_ref().and_then(|_| permanent_kind(error));
        let is_link = self.local.as_ref().is_some_and(|(_, folder)| folder.join(key).is_symlink());
        match error {
            object_store::Error::NotFound { .. } if is_link => unreadable("it is a broken link; remove it".into()),
            object_store::Error::NotFound { .. } if self.local.is_some() && key.contains(char::REPLACEMENT_CHARACTER) => {
                unreadable("its name is not UTF-8; rename it".into())
            }
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => self.changed(key).into(),
            error => match permanent {
                Some(kind) => unreadable(format!("{kind}; give this user read permission, or exclude it")),
                None => self.unavailable(key, error).into(),
            },
        }
    }
}

impl ArchiveFile {
    /// A file that could not be accessed. Reading it returns the reason.
    pub fn unreadable(key: String) -> Self {
        Self { key, bytes: 0, version: UNREADABLE.to_owned(), modified_ms: 0 }
    }
}

/// The version of a file that could not be accessed.
const UNREADABLE: &str = "unreadable";

/// The kind of a file system error, if it is permanent.
fn permanent_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind()).filter(|kind| matches!(kind, PermissionDenied | IsADirectory | NotADirectory));
        }
        cause = error.source();
    }
    None
}

fn archive_file(meta: &ObjectMeta) -> ArchiveFile {
    let version = meta.e_tag.clone().unwrap_or_else(|| format!("{}-{}", meta.last_modified.timestamp_micros(), meta.size));
    ArchiveFile { key: meta.location.to_string(), bytes: meta.size, version, modified_ms: meta.last_modified.timestamp_millis() }
}

/// Checks that a key is relative and has no `.` or `..`.
///
/// # Errors
/// A fault of class `refused_key`.
pub fn check_key(key: &str) -> Result<(), UnitFault> {
    let reason = if key.starts_with('/') || key.contains("://") {
        "it is absolute; write it relative to the dataset"
    } else if key.split('/').any(|part| part == ".." || part == ".") {
        "it holds `.` or `..`; remove them"
    } else if key.contains(['\\', '\0', '\n']) {
        "it contains a character that is not allowed in keys"
    } else {
        return Ok(());
    };
    Err(UnitFault { class: "refused_key", reason: format!("the key `{}` is refused: {reason}", key.escape_debug()) })
}

#[cfg(test)]
mod tests;
