//! The cache folder for downloads and measurements of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The cache folder of root. Other accounts can read it.
pub const SHARED: &str = "/var/cache/tidemill";

/// The cache folder, which is created if it does not exist: `$TIDEMILL_CACHE_DIR`, else `$XDG_CACHE_HOME/tidemill`, else
/// `~/.cache/tidemill`, or `/var/cache/tidemill` for root, whose home other accounts cannot read.
///
/// # Errors
/// Where no folder is known, or it cannot be created.
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

/// Creates a cache folder and its missing parents, readable for all accounts.
///
/// # Errors
/// Where it cannot be created; the message says what to do.
pub fn make_folder(folder: &Path) -> Result<()> {
    // Permissions are set explicitly, because the process's umask may exclude other accounts.
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    let made = fs::create_dir_all(folder);
    let opened = || missing.iter().try_for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)));
    made.and_then(|()| opened()).with_context(|| {
        format!("cannot create the folder {} for downloads: set TIDEMILL_CACHE_DIR to a writable one", folder.display())
    })
}
