//! The folder of what this machine has fetched and measured, kept outside any clone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder where every account of the machine can enter.
pub const SHARED: &str = "/var/cache/tidemill";

/// Where downloads are kept: `$TIDEMILL_CACHE_DIR`, else `$XDG_CACHE_HOME/tidemill`, else `~/.cache/tidemill`; for root, whose
/// home no other account can enter, `/var/cache/tidemill`.
///
/// # Errors
/// Where the folder can neither be found nor made.
pub fn folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match (variable("TIDEMILL_CACHE_DIR"), variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(folder), _, _) => folder,
        (None, Some(caches), _) => caches.join("tidemill"),
        (None, None, _) if nix::unistd::geteuid().is_root() => PathBuf::from(SHARED),
        (None, None, Some(home)) => home.join(".cache/tidemill"),
        (None, None, None) => bail!("no folder for downloads is known: set TIDEMILL_CACHE_DIR to one"),
    };
    let folder = std::path::absolute(&folder).with_context(|| format!("cannot use {} for downloads", folder.display()))?;
    make_folder(&folder)?;
    Ok(folder)
}

/// Makes a folder of downloads, and those above it, open to all accounts.
///
/// # Errors
/// Where it cannot be made; the message says what to do.
pub fn make_folder(folder: &Path) -> Result<()> {
    // The process's own mask keeps others out of what it makes.
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    let made = fs::create_dir_all(folder);
    let opened = || missing.iter().try_for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)));
    made.and_then(|()| opened()).with_context(|| {
        format!("cannot make the folder {} for downloads: set TIDEMILL_CACHE_DIR to one that can be written", folder.display())
    })
}
