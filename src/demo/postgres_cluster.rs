//! The files of the private Postgres: where they are, and how they are created.
//!
//! | the data folder | its cluster |
//! |---|---|
//! | can be entered by the account that runs Postgres | `<data-dir>/postgres` |
//! | cannot (a folder that only root can enter) | in the cache, named by the hash of the data folder's path; `<data-dir>/postgres` links to it |
//!
//! A cluster in the cache belongs to its link: if the link is gone, the data folder was deleted, and the cluster is deleted as
//! well.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::download::cache_folder_for;
use super::os_user::OsUser;

/// The major version whose files the installed Postgres reads.
const MAJOR: &str = "18";
/// The superuser of the cluster. Only this process knows its password.
pub(super) const SUPERUSER: &str = "tidemill";

/// The files of one private Postgres.
#[derive(Debug)]
pub(super) struct PostgresCluster {
    pub folder: PathBuf,
    pub password: String,
}

/// What is needed to create a cluster.
pub(super) struct ClusterSetup<'a> {
    /// The folder with `bin/`.
    pub installation: &'a Path,
    pub account: &'a OsUser,
    /// Whether files are forced to disk.
    pub durable: bool,
    /// Is called with a line about anything that takes long.
    pub tell: &'a dyn Fn(&str),
}

impl PostgresCluster {
    /// The cluster of `data_dir`, created if there is none. The caller holds the folder's lock.
    pub(super) fn open(data_dir: &Path, setup: &ClusterSetup<'_>) -> Result<Self> {
        let link = data_dir.join("postgres");
        let folder = cluster_folder(data_dir, &link, setup.account)?;
        let password_file = password_file(data_dir);
        match fs::read_to_string(folder.join("PG_VERSION")) {
            Ok(version) if version.trim() == MAJOR => {
                let password = fs::read_to_string(&password_file).with_context(|| {
                    format!("cannot read {}, which has the password of the database {}", password_file.display(), link.display())
                })?;
                Ok(Self { folder, password })
            }
            Ok(version) => bail!(
                "{} was written by PostgreSQL {}, and this is {MAJOR}; name another --data-dir, or move that folder away",
                link.display(),
                version.trim()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (setup.tell)(&format!("creating a database in {}", link.display()));
                let password = uuid::Uuid::new_v4().simple().to_string();
                write_secret(&password_file, &password)?;
                create(&folder, &password, setup)?;
                Ok(Self { folder, password })
            }
            Err(error) => Err(error).with_context(|| format!("cannot read the database folder {}", folder.display())),
        }
    }
}

/// The file that holds the superuser's password.
pub fn password_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres.password")
}

fn cluster_folder(data_dir: &Path, link: &Path, account: &OsUser) -> Result<PathBuf> {
    if account.can_enter(data_dir) && !link.is_symlink() {
        return Ok(link.to_owned());
    }
    let clusters = cache_folder_for(account)?.join("clusters");
    fs::create_dir_all(&clusters).with_context(|| format!("cannot create {}", clusters.display()))?;
    fs::set_permissions(&clusters, fs::Permissions::from_mode(0o755))?;
    if let Ok(target) = fs::read_link(link) {
        if target.exists() {
            return Ok(target);
        }
        fs::remove_file(link).with_context(|| format!("cannot remove the dangling link {}", link.display()))?;
    }
    remove_orphans(&clusters);
    let hash = blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    let folder = clusters.join(&hash[..16]);
    remove(&folder).with_context(|| format!("cannot remove {}, left by a data folder that was deleted", folder.display()))?;
    let owner = folder.with_extension("owner");
    fs::write(&owner, data_dir.as_os_str().as_encoded_bytes()).with_context(|| format!("cannot write {}", owner.display()))?;
    symlink(&folder, link).with_context(|| format!("cannot create the link {}", link.display()))?;
    Ok(folder)
}

/// Removes the clusters of data folders that were deleted. If one cannot be removed, the next start tries again.
fn remove_orphans(clusters: &Path) {
    let Ok(entries) = fs::read_dir(clusters) else { return };
    for owner in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "owner")) {
        let Ok(data_dir) = fs::read_to_string(&owner) else { continue };
        let folder = owner.with_extension("");
        let is_gone = matches!(fs::symlink_metadata(&data_dir), Err(error) if error.kind() == ErrorKind::NotFound);
        if !is_gone || folder.join("postmaster.pid").exists() {
            continue;
        }
        if let Err(error) = remove(&folder).and_then(|()| fs::remove_file(&owner)) {
            tracing::debug!(folder = %folder.display(), %error, "cannot remove the cluster of a deleted data folder");
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates the cluster beside its final folder and moves it there, so that an interrupted attempt leaves no partial one.
fn create(folder: &Path, password: &str, setup: &ClusterSetup<'_>) -> Result<()> {
    let fresh = folder.with_extension("new");
    remove(&fresh).with_context(|| format!("cannot remove {}, left by an interrupted start", fresh.display()))?;
    fs::create_dir(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700))?;
    setup.account.own_path(&fresh)?;
    // The other account must read the password, so it owns this file, which exists only during initdb.
    let secret = folder.with_extension("initdb");
    write_secret(&secret, password)?;
    setup.account.own_path(&secret)?;

    let mut initdb = Command::new(setup.installation.join("bin/initdb"));
    initdb.arg("--pgdata").arg(&fresh).arg("--pwfile").arg(&secret).args(["--username", SUPERUSER]);
    initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    initdb.args(["--locale=C", "--data-checksums", "--no-instructions"]);
    if !setup.durable {
        initdb.arg("--no-sync");
    }
    setup.account.apply(initdb.current_dir("/"));
    let output = initdb.output().with_context(|| format!("cannot run {}", initdb.get_program().display()));
    fs::remove_file(&secret).with_context(|| format!("cannot remove {}", secret.display()))?;
    let output = output?;
    if !output.status.success() {
        bail!("initdb cannot create a database in {}: {}", folder.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&fresh, folder).with_context(|| format!("cannot move the new database to {}", folder.display()))
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    // An existing file would keep its mode, which may be wider.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))
    .and_then(|mut file: File| file.write_all(secret.as_bytes()))
    .with_context(|| format!("cannot write {}", path.display()))
}
