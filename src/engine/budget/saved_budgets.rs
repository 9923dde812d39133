//! Measured budgets, saved between starts: a small file for each model and kind of device.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a measurement is valid for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetKey {
    /// The hash of the model's files.
    model: String,
    device: String,
    version: String,
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct SavedBudget {
    #[serde(flatten)]
    key: BudgetKey,
    batch_tokens: usize,
}

/// The same version with assertions compiled in is slower, so it counts as another version.
const VERSION: &str =
    if cfg!(debug_assertions) { concat!(env!("CARGO_PKG_VERSION"), "+assertions") } else { env!("CARGO_PKG_VERSION") };

impl BudgetKey {
    /// The key for this model revision on this kind of device, with this version of the program.
    pub(super) fn new(revision: &str, device: &str) -> Self {
        Self { model: revision.to_owned(), device: device.to_owned(), version: VERSION.to_owned() }
    }

    /// The path of its file.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let place = blake3::hash(format!("{}\n{}", self.device, self.version).as_bytes()).to_hex();
        folder.join("batch-tokens").join(format!("{}-{}.json", self.model, &place[..16]))
    }

    /// The saved budget, if it is one of `candidates`. Any other content is logged and later overwritten.
    pub(super) fn load(&self, folder: &Path, candidates: &[usize]) -> Option<usize> {
        let path = self.path(folder);
        let useless = |reason: &str| {
            tracing::warn!(path = %path.display(), reason, "a saved token budget cannot be used and is ignored");
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                useless(&error.to_string());
                return None;
            }
        };
        match serde_json::from_slice::<SavedBudget>(&bytes) {
            Err(error) => useless(&error.to_string()),
            Ok(saved) if saved.key != *self => useless("it belongs to another model, device or version"),
            Ok(saved) if !candidates.contains(&saved.batch_tokens) => useless("it is none of the budgets that are measured"),
            Ok(saved) => return Some(saved.batch_tokens),
        }
        None
    }

    /// Saves a budget. A failure is logged, and the next start measures again.
    pub(super) fn save(&self, folder: &Path, batch_tokens: usize) {
        let path = self.path(folder);
        if let Err(error) = self.write(&path, batch_tokens) {
            tracing::warn!(
                path = %path.display(),
                %error,
                "cannot save a measured token budget, so the next start measures again; make TIDEMILL_CACHE_DIR writable"
            );
        }
    }

    /// Writes a temporary file and renames it, so that a concurrent reader finds either the old or the new content.
    fn write(&self, path: &Path, batch_tokens: usize) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let text = serde_json::to_vec_pretty(&SavedBudget { key: self.clone(), batch_tokens })?;
        let beside = folder.join(format!(".{}", Uuid::new_v4().simple()));
        let moved = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
        if moved.is_err() {
            // The returned error is the one from above.
            let _ = fs::remove_file(&beside);
        }
        moved
    }
}
