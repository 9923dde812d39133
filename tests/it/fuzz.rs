//! Readers of bytes that strangers write, under damaged and hostile input: none may panic, hang, or take memory without bound.
//!
//! Each target runs in a process of its own, this binary in another role, whose memory the system limits, so that a length that is
//! believed ends the process instead of the machine. Inputs are valid seeds with mutations ([`mutations`]), the same for the same
//! seed. A failing input is kept in `target/tmp`.
//!
//! `TIDEMILL_FUZZ_SEED=7 TIDEMILL_FUZZ_SECONDS=600 cargo test --test it fuzz` looks elsewhere, and longer.

mod files;
mod models;
mod mutations;
mod texts;

use std::fs;
use std::panic;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use proptest::strategy::{Just, Strategy};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::task::spawn_blocking;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};
use mutations::Input;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let needs = Needs::NOTHING.within(seconds() * 2 + SETUP * 2);
    vec![
        trial!(needs, json_and_text_records => survives("json_and_text_records")),
        trial!(needs, avro_records_and_schemas => survives("avro_records_and_schemas")),
        trial!(needs, registry_answers => survives("registry_answers")),
        trial!(needs, pipeline_files => survives("pipeline_files")),
        trial!(needs, jobs_and_search_filters => survives("jobs_and_search_filters")),
        trial!(needs, parquet_files => survives("parquet_files")),
        trial!(needs, linear_heads => survives("linear_heads")),
        trial!(needs, gguf_files => survives("gguf_files")),
        trial!(needs, model_folders => survives("model_folders")),
        trial!(needs, json_schemas => survives("json_schemas")),
        trial!(needs, a_reader_that_panics_or_takes_memory_without_bound_is_found),
    ]
}

/// Set for a process of this binary that is to run a target: its name.
const ROLE: &str = "TIDEMILL_TEST_FUZZ";

/// Inputs of one target in an ordinary run.
const CASES: u32 = 2_000;

/// The time after which an ordinary run of one target is over, however few of its inputs were tried.
const SECONDS: u64 = 6;

/// The longest that one input may take, on a machine that is busy with other tests.
const CASE: Duration = Duration::from_secs(10);

/// What a target may need before its first input, and the last input.
const SETUP: Duration = Duration::from_secs(45);

/// The address space of a target's process. Inputs are a few hundred kilobytes, and no reader of one needs more.
const MEMORY_KIB: usize = 3 << 19;

/// The time for making a failing input smaller.
const SHRINKING: Duration = Duration::from_secs(15);

/// Panics of this process, those that were caught among them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn seed() -> u64 {
    std::env::var("TIDEMILL_FUZZ_SEED").map_or(0, |text| text.parse().expect("TIDEMILL_FUZZ_SEED is a number"))
}

fn seconds() -> Duration {
    let seconds = std::env::var("TIDEMILL_FUZZ_SECONDS").ok();
    Duration::from_secs(seconds.map_or(SECONDS, |text| text.parse().expect("TIDEMILL_FUZZ_SECONDS is a number")))
}

/// Runs the target, which must end well.
async fn survives(target: &'static str) {
    match outcome(target).await {
        Ok(said) => eprint!("{said}"),
        Err(failure) => panic!("{failure}"),
    }
}

/// Checks the targets that fail on purpose.
async fn a_reader_that_panics_or_takes_memory_without_bound_is_found() {
    for (target, says) in [("panics", "a thread panicked over it"), ("takes_memory", "memory allocation of")] {
        let failure = outcome(target).await.expect_err("the target fails on purpose");
        assert!(failure.contains(says), "{target} is not reported as `{says}`:\n{failure}");
    }
}

/// Runs the target in a process of its own: what it prints, or why it failed.
async fn outcome(target: &'static str) -> Result<String, String> {
    let folder = open_folder();
    let output = spawn_blocking({
        let folder = folder.path().to_owned();
        move || start(target, &folder)
    });
    let output = output.await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() {
        return Ok(said);
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}-{}", seed()));
    fs::copy(folder.path().join(INPUT), &kept).ok();
    Err(format!(
        "fuzz target {target} with seed {} ended with {} (a signal 6 or a status 134 is memory, 124 and 137 are time); its last input is {}:\n{said}",
        seed(),
        output.status,
        kept.display()
    ))
}

/// The file in a target's folder that holds the input it is at.
const INPUT: &str = "input";

fn start(target: &str, folder: &Path) -> Output {
    let limit = (seconds() + SETUP).as_secs();
    let script = format!("ulimit -v {MEMORY_KIB} && exec timeout --kill-after=5 {limit} \"$0\"");
    let mut program = Command::new("sh");
    program.args(["-c", &script]).arg(std::env::current_exe().unwrap()).current_dir(folder).env(ROLE, target);
    // Each thread's arena would reserve 64 MiB of the address space; a backtrace of a shrinking failure only takes time.
    program.env("MALLOC_ARENA_MAX", "2").env("RUST_BACKTRACE", "0");
    program.output().unwrap()
}

/// Runs the target that this process is to run, where it is to run one.
pub fn role() -> Option<ExitCode> {
    let target = std::env::var(ROLE).ok()?;
    panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    // As in `main`, for the targets that call a server.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // With a stack as threads of the service have it.
    let explored = std::thread::spawn(move || {
        let mut session = Session::new();
        match target.as_str() {
            "json_and_text_records" => texts::json_and_text_records(&mut session),
            "avro_records_and_schemas" => texts::avro_records_and_schemas(&mut session),
            "registry_answers" => texts::registry_answers(&mut session),
            "pipeline_files" => texts::pipeline_files(&mut session),
            "jobs_and_search_filters" => texts::jobs_and_search_filters(&mut session),
            "parquet_files" => files::parquet_files(&mut session),
            "linear_heads" => files::linear_heads(&mut session),
            "gguf_files" => models::gguf_files(&mut session),
            "model_folders" => models::model_folders(&mut session),
            "json_schemas" => models::json_schemas(&mut session),
            "panics" => fails(&mut session, || drop(std::thread::spawn(|| panic!("on purpose")).join())),
            "takes_memory" => fails(&mut session, || drop(std::hint::black_box(vec![1_u8; MEMORY_KIB << 10]))),
            other => panic!("{other} is no target"),
        }
        session.report(&target)
    });
    match explored.join() {
        Ok(Ok(line)) => {
            println!("{line}");
            Some(ExitCode::SUCCESS)
        }
        Ok(Err(failure)) => {
            println!("{failure}");
            Some(ExitCode::FAILURE)
        }
        Err(panic) => {
            println!("the target itself failed: {}", crate::harness::trial::panic_text(panic.as_ref()));
            Some(ExitCode::FAILURE)
        }
    }
}

/// A target that fails at its first input.
fn fails(session: &mut Session, fault: impl Fn()) {
    session.explore(&Just(Input { subject: "anything".into(), bytes: vec![0] }), |_| {
        fault();
        Ok(())
    });
}

/// One run of a target.
struct Session {
    runner: TestRunner,
    begun: Instant,
    tried: u32,
    failure: Option<String>,
    /// Whether the code under test catches panics of a library on purpose, and makes errors of them.
    tolerates_caught_panics: bool,
}

impl Session {
    fn new() -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed().to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config { failure_persistence: None, max_shrink_time: SHRINKING.as_millis() as u32, ..Config::default() };
        let runner = TestRunner::new_with_rng(config, rng);
        Self { runner, begun: Instant::now(), tried: 0, failure: None, tolerates_caught_panics: false }
    }

    /// Tries inputs until time or number are reached, or one fails.
    fn explore(&mut self, inputs: &impl Strategy<Value = Input>, property: impl Fn(&Input) -> Result<(), TestCaseError>) {
        while self.failure.is_none() && self.begun.elapsed() < seconds() && (self.tried < CASES || seconds().as_secs() > SECONDS)
        {
            let tolerates = self.tolerates_caught_panics;
            let tree = inputs.new_tree(&mut self.runner).expect("an input can be made");
            let outcome = self.runner.run_one(tree, |input| {
                fs::write(INPUT, &input.bytes).expect("the input can be kept");
                let (before, begun) = (PANICS.load(Ordering::Relaxed), Instant::now());
                property(&input)?;
                let (panics, took) = (PANICS.load(Ordering::Relaxed) - before, begun.elapsed());
                if panics > 0 && !tolerates {
                    return Err(TestCaseError::fail("a thread panicked over it"));
                }
                if took > CASE {
                    return Err(TestCaseError::fail(format!("it took {took:?}")));
                }
                Ok(())
            });
            self.tried += 1;
            self.failure = outcome.err().map(|failure| failure.to_string());
        }
    }

    fn report(self, target: &str) -> Result<String, String> {
        let said = format!("fuzz target {target}: {} inputs of seed {} in {:.1?}", self.tried, seed(), self.begun.elapsed());
        match self.failure {
            Some(failure) => Err(format!("{said}; the last one failed: {failure}")),
            None => Ok(said),
        }
    }
}
