//! Pulls a model into a folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::digest::{FileDigest, digest};
use super::file_selection::select_files;
use super::manifest::{Manifest, ManifestFile};
use super::{Hub, HubFile, Listing, MANIFEST, ModelSource};

/// Keeps two commands from using the same folder at once.
const LOCK: &str = ".tidemill-lock";

/// What to pull, and where to.
pub struct PullOptions<'a> {
    pub source: &'a ModelSource,
    /// The target folder; created if it does not exist. It must be empty, or filled by an earlier pull.
    pub folder: &'a Path,
    /// Pull the GGUF file whose name matches this pattern, instead of the model's folder.
    pub gguf: Option<&'a str>,
    /// Receives for each file the number of bytes that have arrived, and the total if it is known.
    pub progress: &'a (dyn Fn(&str, u64, Option<u64>) + Sync),
}

/// The result of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledModel {
    /// The value for `models.NAME.path`: the folder, or the GGUF file in it.
    pub path: PathBuf,
    pub manifest: Manifest,
    /// Files that were already there.
    pub kept: usize,
}

/// Pulls the model file by file. Files that are already there and intact are kept.
///
/// # Errors
/// If the hub or the disk fails, a file differs from what the hub reports, or the folder was not filled by a pull. Files that have
/// arrived stay, and count in the next attempt.
pub async fn pull(hub: &Hub, pull: PullOptions<'_>) -> Result<PulledModel> {
    let folder = pull.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let lock = File::create(folder.join(LOCK)).with_context(|| format!("cannot write into {}", folder.display()))?;
    if lock.try_lock().is_err() {
        bail!("another command is pulling into {}; wait for it, or choose another folder with --to", folder.display());
    }
    let outcome = locked(hub, &pull).await;
    // No command waits for the lock, so removing its file is safe.
    fs::remove_file(folder.join(LOCK)).with_context(|| format!("cannot remove {}", folder.join(LOCK).display()))?;
    outcome
}

async fn locked(hub: &Hub, pull: &PullOptions<'_>) -> Result<PulledModel> {
    let old = Manifest::read(pull.folder)?;
    let in_place = matches!(pull.source, ModelSource::Folder(from) if same(from, pull.folder));
    if old.is_none() && !in_place {
        refuse_foreign_folder(pull.folder)?;
    }
    match pull.source {
        ModelSource::Hub { id, revision } => from_hub(hub, pull, &hub.listing(id, revision).await?, old).await,
        ModelSource::Folder(from) => {
            let names = names_below(from)?;
            let names = select_files(&from.display().to_string(), names.iter().map(String::as_str), pull.gguf)?;
            from_disk(pull, from, names, old)
        }
        ModelSource::File(from) => {
            let name = from.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            from_disk(pull, from.parent().unwrap_or(Path::new("")), vec![name], old)
        }
    }
}

async fn from_hub(hub: &Hub, pull: &PullOptions<'_>, listing: &Listing, old: Option<Manifest>) -> Result<PulledModel> {
    let names = select_files(&listing.id, listing.files.iter().map(|file| file.name.as_str()), pull.gguf)?;
    let mut manifest = Manifest::new(listing.id.clone(), Some(listing.commit.clone()));
    let is_this = |old: &Manifest| old.source == manifest.source && old.revision == manifest.revision;
    let same_commit = old.as_ref().is_some_and(is_this);
    remove_others(pull.folder, old.as_ref(), &names)?;
    manifest.files = old.filter(|_| same_commit).map(|old| old.files).unwrap_or_default();
    // Marks the folder as ours, and as incomplete.
    manifest.write(pull.folder)?;
    let mut kept = 0;
    for name in &names {
        if manifest.files.iter().any(|known| known.name == *name && known.damage(pull.folder).is_none()) {
            kept += 1;
            continue;
        }
        let file = listing.files.iter().find(|file| file.name == *name).context("selected names are in the listing")?;
        let found = one_from_hub(hub, pull, listing, file).await?;
        manifest.files.retain(|known| known.name != *name);
        manifest.files.push(ManifestFile { name: name.clone(), size: found.size, blake3: found.blake3 });
        // A file that has arrived must count even if the next one fails.
        manifest.write(pull.folder)?;
    }
    manifest.files.retain(|file| names.contains(&file.name));
    manifest.files.sort_by(|one, other| one.name.cmp(&other.name));
    finish(pull, manifest, kept)
}

async fn one_from_hub(hub: &Hub, pull: &PullOptions<'_>, listing: &Listing, file: &HubFile) -> Result<FileDigest> {
    let target = pull.folder.join(&file.name);
    // The hash is part of the name, so that a partial file is never continued with other content.
    let content = file.sha256.as_deref().unwrap_or(&listing.commit);
    let partial = pull.folder.join(format!("{}.{}.partial", file.name, content.get(..12).unwrap_or(content)));
    make_parent(&target)?;
    hub.fetch(listing, file, &partial, &|done, total| (pull.progress)(&file.name, done, total)).await?;
    let (path, with_sha256) = (partial.clone(), file.sha256.is_some());
    let found = tokio::task::spawn_blocking(move || digest(&path, with_sha256)).await??;
    let is_right = file.size.is_none_or(|size| size == found.size)
        && file.sha256.as_deref().is_none_or(|expected| found.sha256.as_deref() == Some(&expected.to_ascii_lowercase()));
    if !is_right {
        fs::remove_file(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        bail!(
            "{} of {} arrived with other content than the hub reports, and was removed; run the command again",
            file.name,
            listing.id
        );
    }
    fs::rename(&partial, &target).with_context(|| format!("cannot move the download to {}", target.display()))?;
    Ok(found)
}

fn from_disk(pull: &PullOptions<'_>, from: &Path, names: Vec<String>, old: Option<Manifest>) -> Result<PulledModel> {
    let from = from.canonicalize().with_context(|| format!("cannot find {}", from.display()))?;
    let mut manifest = Manifest::new(from.display().to_string(), None);
    let in_place = same(&from, pull.folder);
    if !in_place {
        remove_others(pull.folder, old.as_ref(), &names)?;
    }
    // Marks the folder as ours, and as incomplete.
    manifest.write(pull.folder)?;
    for name in names {
        let (source, target) = (from.join(&name), pull.folder.join(&name));
        if !in_place {
            let partial = pull.folder.join(format!("{name}.partial"));
            make_parent(&target)?;
            let copied = fs::copy(&source, &partial).and_then(|_| File::open(&partial)?.sync_all());
            copied
                .and_then(|()| fs::rename(&partial, &target))
                .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
        }
        let found = digest(&target, false)?;
        (pull.progress)(&name, found.size, Some(found.size));
        manifest.files.push(ManifestFile { name, size: found.size, blake3: found.blake3 });
    }
    finish(pull, manifest, 0)
}

fn finish(pull: &PullOptions<'_>, mut manifest: Manifest, kept: usize) -> Result<PulledModel> {
    manifest.complete = true;
    manifest.write(pull.folder)?;
    let folder = pull.folder.canonicalize().with_context(|| format!("cannot find {}", pull.folder.display()))?;
    let quantized = manifest.files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".gguf"));
    let path = quantized.map_or(folder.clone(), |file| folder.join(&file.name));
    Ok(PulledModel { path, manifest, kept })
}

/// Removes files of an earlier pull that this one does not have. They would be read as part of the model.
fn remove_others(folder: &Path, old: Option<&Manifest>, names: &[String]) -> Result<()> {
    for left in old.iter().flat_map(|old| &old.files).filter(|file| !names.contains(&file.name)) {
        let path = folder.join(&left.name);
        if path.exists() {
            fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}, which is no longer part of the model", path.display()))?;
        }
    }
    Ok(())
}

/// Refuses a folder with content that no pull has put there.
fn refuse_foreign_folder(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let foreign = entries.filter_map(Result::ok).map(|entry| entry.file_name()).find(|name| name.to_str() != Some(LOCK));
    if let Some(foreign) = foreign {
        bail!(
            "{} has {} and no {MANIFEST}, so it was not filled by a pull; choose an empty folder with --to",
            folder.display(),
            foreign.display()
        );
    }
    Ok(())
}

/// The files of the folder and of its direct subfolders.
fn names_below(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let unreadable = |folder: &Path| format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(|| unreadable(folder))? {
        let entry = entry.with_context(|| unreadable(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().is_dir() {
            names.push(name);
            continue;
        }
        for inner in fs::read_dir(entry.path()).with_context(|| unreadable(&entry.path()))?.filter_map(Result::ok) {
            names.push(format!("{name}/{}", inner.file_name().to_string_lossy()));
        }
    }
    Ok(names)
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create the folder {}", parent.display()))
}

fn same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().is_some_and(|one| other.canonicalize().ok() == Some(one))
}
