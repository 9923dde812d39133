//! Schemathesis reads the description of the API and sends what fits it and what does not.

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
/// Seconds for which it tries.
const SECONDS: &str = "45";
/// Its scripts name the folder that it was first put into; this starts it wherever it is.
const START: &str = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
/// No fault of the server, and every answer is one that the description speaks of.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

pub async fn schemathesis_finds_no_fault_of_the_server() {
    let service = TestService::with(|config| {
        // It asks as often as it can.
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
    // It does not ask for the description again that it has just read.
    let operations = tidemill::server::description().matches("operationId").count() - 1;
    assert!(said.contains(&format!("Tested: {operations}\n")), "it left operations out:\n{said}");
    // What it sent was more than text nowhere: the tables are there and the documents untouched.
    assert_eq!(service.count("SELECT count(*) FROM documents WHERE NOT deleted").await, 2);
}

/// The Python that has it.
///
/// # Errors
/// Where it cannot be fetched.
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
