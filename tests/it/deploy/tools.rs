//! Programs and schemas that the checks need: found here, or fetched once and kept with the other downloads.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tidemill::cache;

/// The package of Kubernetes' schemas, pinned by hash. Only its files are used.
const SCHEMAS: &str =
    "kubernetes-validate==1.37.0 --hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";
const SCHEMAS_FOLDER: &str = "kubernetes-validate-1.37.0";
/// Takes out of the archive what is needed of it.
const UNPACK: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as files:
    files.extractall(sys.argv[2], [name for name in files.namelist() if '/kubernetes-json-schema/' in name])
";

/// `promtool`: that of the PATH, or else the one of Debian's package, whose contents the package manager verifies.
pub fn promtool() -> PathBuf {
    let installed = Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if installed {
        return "promtool".into();
    }
    let folder = fetched("prometheus-tools", |partial| {
        apt(partial, &["download", "prometheus"])
            .context("promtool is not on the PATH and Debian's package cannot be fetched; install prometheus")
    });
    folder.join("usr/bin/promtool")
}

/// A browser of Debian's packages, with the libraries that this machine lacks: the program, and where those are.
pub fn chromium() -> (PathBuf, Vec<PathBuf>) {
    let folder = fetched("chromium", |partial| {
        let wanted = ["install", "--yes", "--no-install-recommends", "--download-only", "chromium", "fonts-nanum"];
        apt(partial, &wanted).context("Debian's package of Chromium (125 MB) cannot be fetched")
    });
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    (folder.join("usr/lib/chromium/chromium"), vec![libraries.join("pulseaudio"), libraries])
}

/// Has Debian's package manager download packages, and unpacks them into the folder. It verifies what it downloads.
fn apt(folder: &Path, arguments: &[&str]) -> Result<()> {
    let (lists, cache) = (folder.join("lists"), folder.join("cache"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    let ask = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        // Lists of our own, which need neither root nor that somebody has updated those of the machine.
        apt.arg("-o")
            .arg(format!("Dir::State::lists={}", lists.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", cache.display()));
        apt.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true", "--quiet"]).args(arguments);
        // What is downloaded alone goes to the current folder, what is to be installed to the cache.
        apt.current_dir(cache.join("archives"));
        run(apt).map(drop)
    };
    ask(&["update"])?;
    ask(arguments)?;
    for archive in fs::read_dir(cache.join("archives"))? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg");
            unpack.arg("--extract").arg(&archive).arg(folder);
            run(unpack)?;
        }
    }
    fs::remove_dir_all(lists)?;
    fs::remove_dir_all(cache)?;
    Ok(())
}

/// The strict schema of a kind in a version of Kubernetes, as in `1.34.0`; none where it is not Kubernetes' own.
pub fn schema(version: &str, kind: &str, api_version: &str) -> Option<Value> {
    let folder = fetched(SCHEMAS_FOLDER, fetch_schemas);
    let folder = folder.join(format!("kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"));
    assert!(folder.exists(), "there are no schemas of Kubernetes {version}");
    // `policy/v1` and `networking.k8s.io/v1` are named `policy-v1` and `networking-v1`.
    let (group, number) = api_version.split_once('/').unwrap_or(("", api_version));
    let group = group.split('.').next().filter(|group| !group.is_empty()).map(|group| format!("-{group}")).unwrap_or_default();
    let file = folder.join(format!("{}{group}-{number}.json", kind.to_lowercase()));
    let read = |path: &Path| fs::read_to_string(path).map(|text| text.replace("/api/_definitions.json#", "#"));
    let mut schema: Value = serde_json::from_str(&read(&file).ok()?).unwrap();
    let mut shared: Value = serde_json::from_str(&read(&folder.join("_definitions.json")).unwrap()).unwrap();
    schema["$defs"] = shared["$defs"].take();
    Some(schema)
}

fn fetch_schemas(partial: &Path) -> Result<()> {
    let requirements = partial.join("requirements.txt");
    fs::write(&requirements, SCHEMAS)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--dest")
        .arg(partial);
    run(pip).context("cannot fetch the schemas of Kubernetes (22 MB); check the network and the index that pip is set to")?;
    let archive = with_extension(partial, "whl")?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).arg(&archive).arg(partial);
    run(unpack)?;
    fs::remove_file(archive)?;
    Ok(())
}

/// The only such file of the folder.
fn with_extension(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let found = files.find(|path| path.extension().is_some_and(|e| e == extension));
    found.with_context(|| format!("the download reported success and left no .{extension} in {}", folder.display()))
}

/// The folder of the cache that `fetch` fills where it is not there yet.
pub fn fetched(name: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> PathBuf {
    try_fetched(name, fetch).unwrap_or_else(|error| panic!("{error:#}"))
}

fn try_fetched(name: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache::folder()?;
    let folder = cache.join(name);
    if folder.exists() {
        return Ok(folder);
    }
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?;
    if folder.exists() {
        return Ok(folder);
    }
    eprintln!("fetching {name} into {}", cache.display());
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    fetch(&partial)?;
    fs::rename(&partial, &folder)?;
    Ok(folder)
}

/// Runs the program and gives back what it wrote to stdout and stderr.
///
/// # Errors
/// Where it cannot be started or does not end with 0; with what it wrote.
pub fn run(mut program: Command) -> Result<String> {
    let output = match program.output() {
        Ok(output) => output,
        Err(error) => bail!("cannot run {}: {error}", program.get_program().display()),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{} ends with {}:\n{said}", program.get_program().display(), output.status);
    Ok(said)
}
