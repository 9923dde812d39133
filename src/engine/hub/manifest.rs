//! The list of a folder's files with their hashes, kept in the folder.

use std::fmt;
use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::digest::digest;

/// The manifest's file name in the model's folder.
pub const MANIFEST: &str = "tidemill-manifest.json";

const VERSION: u32 = 1;

/// The files of a model's folder, as they were when it was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// `owner/model`, or the folder or file it was copied from.
    pub source: String,
    /// The hub's commit; none for a copy from disk.
    pub revision: Option<String>,
    /// Whether all files have been pulled.
    pub complete: bool,
    pub files: Vec<ManifestFile>,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// The path inside the folder, with `/` as separator.
    pub name: String,
    pub size: u64,
    pub blake3: String,
}

/// A file that differs from the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// The path inside the folder.
    pub name: String,
    pub reason: String,
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.reason)
    }
}

impl Manifest {
    pub(super) fn new(source: String, revision: Option<String>) -> Self {
        Self { version: VERSION, source, revision, complete: false, files: Vec::new() }
    }

    /// The manifest of the folder, if it has one.
    ///
    /// # Errors
    /// If it cannot be read, or has a path that leads out of the folder.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let unusable = || format!("{} is not a manifest; remove it and pull the model again", path.display());
        let manifest: Self = serde_json::from_slice(&bytes).with_context(unusable)?;
        let is_inside =
            |name: &str| !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if manifest.version != VERSION || !manifest.files.iter().all(|file| is_inside(&file.name)) {
            bail!(unusable());
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest atomically.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let (path, partial) = (folder.join(MANIFEST), folder.join(format!("{MANIFEST}.partial")));
        let text = serde_json::to_string_pretty(self).context("a manifest is JSON")?;
        let written = fs::write(&partial, text + "\n").and_then(|()| fs::rename(&partial, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads every file again. Returns those that differ from the manifest. Blocks.
    pub fn damaged_files(&self, folder: &Path) -> Vec<DamagedFile> {
        self.files.iter().filter_map(|file| file.damage(folder)).collect()
    }

    /// The total size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl ManifestFile {
    /// How the file in the folder differs from the manifest, if it does.
    pub(super) fn damage(&self, folder: &Path) -> Option<DamagedFile> {
        let path = folder.join(&self.name);
        let reason = match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "is missing".into(),
            Err(e) => format!("cannot be read: {e}"),
            Ok(found) if found.len() != self.size => format!("has {} bytes and had {}", found.len(), self.size),
            Ok(_) => match digest(&path, false) {
                Err(e) => format!("cannot be read: {e:#}"),
                Ok(found) if found.blake3 != self.blake3 => "has other content than when it was pulled".into(),
                Ok(_) => return None,
            },
        };
        Some(DamagedFile { name: self.name.clone(), reason })
    }
}
