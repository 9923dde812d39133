//! Programs and schemas that the checks need. They are found on this machine, or fetched once and kept with the other downloads.

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
/// A program that extracts only the needed files from the archive.
const UNPACK: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as files:
    files.extractall(sys.argv[2], [name for name in files.namelist() if '/kubernetes-json-schema/' in name])
";

/// `promtool` of the PATH, or else of Debian's package, whose contents the package manager verifies.
///
/// # Errors
/// Where it is not on this machine and cannot be fetched.
pub fn promtool() -> Result<PathBuf> {
    const PROGRAM: &str = "usr/bin/promtool";
    if runs(Path::new("promtool")) {
        return Ok("promtool".into());
    }
    let folder = fetched(("prometheus-tools", PROGRAM), |partial| {
        apt(partial, &["download", "prometheus"])
            .context("promtool is not on the PATH and Debian's package cannot be fetched; install prometheus")
    })?;
    Ok(folder.join(PROGRAM))
}

/// A browser: the program, and the folders of libraries that this machine lacks. It is the one that `CHROME` names, one on the
/// PATH, or else the one of Debian's packages.
///
/// # Errors
/// Where it is not on this machine and cannot be fetched.
pub fn chromium() -> Result<(PathBuf, Vec<PathBuf>)> {
    const PROGRAM: &str = "usr/lib/chromium/chromium";
    if let Some(named) = std::env::var_os("CHROME").filter(|named| !named.is_empty()).map(PathBuf::from) {
        ensure!(runs(&named), "CHROME is {}, which does not run", named.display());
        return Ok((named, Vec::new()));
    }
    // A wrapper that would first install the browser does not print its version.
    if let Some(here) = ["chromium", "google-chrome", "google-chrome-stable"].iter().find_map(|name| on_path(name)) {
        return Ok((here, Vec::new()));
    }
    let folder = fetched(("chromium", PROGRAM), |partial| {
        // An installed package is fetched nevertheless, because its program may be missing.
        let wanted = [
            "install",
            "--yes",
            "--no-install-recommends",
            "--reinstall",
            "--download-only",
            "chromium",
            "chromium-common",
            "fonts-nanum",
        ];
        apt(partial, &wanted).context("no browser is on the PATH and Debian's package of Chromium (125 MB) cannot be fetched")
    })?;
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    Ok((folder.join(PROGRAM), vec![libraries.join("pulseaudio"), libraries]))
}

/// Whether the program is there and prints its version.
pub fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The program of that name on the PATH, if it runs.
fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|program| runs(program))
}

/// Downloads packages by Debian's package manager, which verifies them, and unpacks them into the folder.
fn apt(folder: &Path, arguments: &[&str]) -> Result<()> {
    let (lists, cache) = (folder.join("lists"), folder.join("cache"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    let ask = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        // Package lists of our own need no root, and are not outdated as those of the machine may be.
        apt.arg("-o")
            .arg(format!("Dir::State::lists={}", lists.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", cache.display()));
        apt.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true", "--quiet"]).args(arguments);
        // `download` writes to the current folder, `install` to the cache.
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

/// The strict schema of a kind in a version of Kubernetes, such as `1.34.0`; none where Kubernetes' schemas do not cover the kind.
pub fn schema(version: &str, kind: &str, api_version: &str) -> Option<Value> {
    let folder = schemas().unwrap_or_else(|error| panic!("{error:#}"));
    let folder = folder.join(format!("v{version}-local-strict"));
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

/// The folder of Kubernetes' schemas.
///
/// # Errors
/// Where it is not on this machine and cannot be fetched.
pub fn schemas() -> Result<PathBuf> {
    const SCHEMAS: &str = "kubernetes_validate/kubernetes-json-schema";
    Ok(fetched((SCHEMAS_FOLDER, SCHEMAS), fetch_schemas)?.join(SCHEMAS))
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

/// The folder `name` of the cache. Where it lacks `proof`, a file or folder that a complete one has, `fetch` fills it.
///
/// # Errors
/// Where it cannot be fetched, or lacks the proof afterwards.
pub fn fetched((name, proof): (&str, &str), fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    fetched_into(&cache::folder()?, (name, proof), fetch)
}

fn fetched_into(cache: &Path, (name, proof): (&str, &str), fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = cache.join(name);
    if folder.join(proof).exists() {
        return Ok(folder);
    }
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?;
    if folder.join(proof).exists() {
        return Ok(folder);
    }
    eprintln!("fetching {name} into {}", cache.display());
    let partial = cache.join(format!("{name}.partial"));
    for left in [&partial, &folder] {
        if left.exists() {
            fs::remove_dir_all(left)?;
        }
    }
    fs::create_dir(&partial)?;
    fetch(&partial)?;
    ensure!(partial.join(proof).exists(), "the download of {name} lacks {proof}");
    fs::rename(&partial, &folder)?;
    Ok(folder)
}

/// An incomplete folder of the cache is fetched again, and one that is still incomplete afterwards is an error.
pub async fn a_tool_is_fetched_again_until_it_is_there() {
    let cache = tempfile::tempdir().unwrap();
    fs::create_dir(cache.path().join("tool")).unwrap();
    let error = fetched_into(cache.path(), ("tool", "bin/tool"), |_| Ok(())).unwrap_err().to_string();
    assert_eq!(error, "the download of tool lacks bin/tool");
    let fill = |partial: &Path| {
        fs::create_dir(partial.join("bin"))?;
        Ok(fs::write(partial.join("bin/tool"), "")?)
    };
    let folder = fetched_into(cache.path(), ("tool", "bin/tool"), fill).unwrap();
    assert!(folder.join("bin/tool").exists());
    fetched_into(cache.path(), ("tool", "bin/tool"), |_| panic!("it is there")).unwrap();
}

/// Runs the program and returns its stdout and stderr.
///
/// # Errors
/// Where it cannot be started or does not end with 0; the error has its output.
pub fn run(mut program: Command) -> Result<String> {
    let output = match program.output() {
        Ok(output) => output,
        Err(error) => bail!("cannot run {}: {error}", program.get_program().display()),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{} ends with {}:\n{said}", program.get_program().display(), output.status);
    Ok(said)
}
