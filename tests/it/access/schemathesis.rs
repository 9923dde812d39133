//! Schemathesis reads the API's description and sends requests that follow it and requests that do not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tidemill::access::Scope;
use tokio::task::spawn_blocking;

use super::test_service::TestService;
use crate::deploy::tools::{fetched, run};
use crate::harness::open_folder;

/// Every package in its version.
const PACKAGES: &str = include_str!("schemathesis.txt");
const FOLDER: &str = "schemathesis-4.32.5";
/// How many seconds it sends requests for.
const SECONDS: &str = "45";
/// Its scripts contain the path of the folder that it was first installed in; this starts it from any folder.
const START: &str = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
/// No answer is a server error, and every answer follows the description.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

pub async fn schemathesis_finds_no_fault_of_the_server() {
    let service = TestService::with(|config| {
        // It sends requests as fast as it can.
        (config.limits.requests_per_second, config.limits.burst) = (100_000, 100_000);
    })
    .await;
    let token = service.token(None, &[Scope::Admin]).await;
    let folder = open_folder();
    let (url, report) = (format!("{}/openapi.json", service.url), folder.path().to_owned());
    let said = spawn_blocking(move || {
        let mut program = Command::new(program().unwrap());
        program.args(["-c", START, "run", &url, "--checks", CHECKS, "--max-time", SECONDS, "--workers", "2", "--seed", "1"]);
        program.args([
            "--phases",
            "examples,coverage,fuzzing",
            "--generation-database",
            "none",
            "--no-color",
            "--continue-on-failure",
        ]);
        program.args(["--header", &format!("Authorization: Bearer {token}"), "--suppress-health-check", "all"]);
        program.current_dir(report);
        run(program).unwrap_or_else(|error| panic!("{error:#}"))
    })
    .await
    .unwrap();
    assert!(!said.contains("No test cases"), "it tried nothing:\n{said}");
    // It leaves out the operation that returns the description.
    let operations = tidemill::server::description().matches("operationId").count() - 1;
    assert!(said.contains(&format!("Tested: {operations}\n")), "it left operations out:\n{said}");
    // Nothing that it sent was executed: the tables are there and the documents unchanged.
    assert_eq!(service.count("SELECT count(*) FROM documents WHERE NOT deleted").await, 2);
}

/// The Python interpreter that has Schemathesis installed.
///
/// # Errors
/// Where the packages cannot be fetched.
pub fn program() -> Result<PathBuf> {
    const PYTHON: &str = "bin/python";
    Ok(fetched((FOLDER, PYTHON), fetch)?.join(PYTHON))
}

fn fetch(partial: &Path) -> Result<()> {
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(partial);
    run(make).context("cannot make an environment for schemathesis; install python3-venv")?;
    let requirements: PathBuf = partial.join("requirements.txt");
    std::fs::write(&requirements, PACKAGES)?;
    let mut pip = Command::new(partial.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--only-binary=:all:",
    ]);
    pip.arg("--requirement").arg(&requirements);
    run(pip).context("cannot fetch schemathesis (14 MB); check the network and the index that pip is set to")?;
    Ok(())
}
