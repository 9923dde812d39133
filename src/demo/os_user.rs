//! The operating-system account that runs the private Postgres, which refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{User, geteuid};

/// The account that a child process runs as.
#[derive(Debug, Clone)]
pub struct OsUser {
    /// None for our own account.
    other: Option<OtherUser>,
}

#[derive(Debug, Clone)]
struct OtherUser {
    user: u32,
    group: u32,
}

/// An account that owns no files.
const UNPRIVILEGED: &str = "nobody";

impl OsUser {
    /// The account of this process.
    pub fn own() -> Self {
        Self { other: None }
    }

    /// Our own account, or `nobody` if we are root.
    ///
    /// # Errors
    /// If we are root and the system has no account `nobody`.
    pub fn unprivileged() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::own());
        }
        let user = User::from_name(UNPRIVILEGED).ok().flatten().with_context(|| {
            format!("PostgreSQL does not run as root and there is no account {UNPRIVILEGED}; run the command as an ordinary user")
        })?;
        Ok(Self { other: Some(OtherUser { user: user.uid.as_raw(), group: user.gid.as_raw() }) })
    }

    /// The account's name, for messages.
    pub fn name(&self) -> &'static str {
        if self.other.is_some() { UNPRIVILEGED } else { "ours" }
    }

    /// Makes the command run as this account.
    pub fn apply(&self, command: &mut Command) {
        if let Some(other) = &self.other {
            command.uid(other.user).gid(other.group);
        }
    }

    /// Makes this account the owner of one file or folder.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn own_path(&self, path: &Path) -> Result<()> {
        let Some(other) = &self.other else { return Ok(()) };
        chown(path, Some(other.user), Some(other.group))
            .with_context(|| format!("cannot make account {UNPRIVILEGED} the owner of {}", path.display()))
    }

    /// Whether this account can reach `folder`, which must exist.
    pub fn can_enter(&self, folder: &Path) -> bool {
        let Some(other) = &self.other else { return true };
        let Ok(folder) = folder.canonicalize() else { return false };
        folder.ancestors().all(|above| {
            let Ok(metadata) = fs::metadata(above) else { return false };
            metadata.mode() & 0o001 != 0 || (metadata.uid() == other.user && metadata.mode() & 0o100 != 0)
        })
    }
}
