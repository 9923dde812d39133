//! The built `tidemill` as a process of its own, which a test can freeze, continue and kill.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidemill::demo::child_process::{ChildOptions, ChildProcess};
use tidemill::demo::os_user::OsUser;

/// A running `tidemill`. It is killed when this value is dropped, and when the test process ends.
pub struct Worker {
    child: ChildProcess,
    id: Pid,
    log: PathBuf,
    _folder: TempDir,
}

/// Variables that are for the tests. They are not handed on: `tidemill` would refuse them as unknown settings.
pub const TEST_VARIABLES: &[&str] =
    &["TIDEMILL_SOAK", "TIDEMILL_SOAK_SEED", "TIDEMILL_BENCH", "TIDEMILL_DATA", "TIDEMILL_FUZZ_SEED", "TIDEMILL_FUZZ_SECONDS"];

impl Worker {
    /// Starts `tidemill` with the arguments and environment, in `folder`.
    pub fn start<A: AsRef<OsStr>>(folder: &std::path::Path, arguments: &[A], environment: &[(&str, &str)]) -> Self {
        let logs = super::open_folder();
        let log = logs.path().join("log");
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        program.args(arguments).envs(environment.iter().copied()).current_dir(folder);
        for name in TEST_VARIABLES {
            program.env_remove(name);
        }
        let mut child = ChildProcess::start(ChildOptions {
            program: &program,
            end_signal: "KILL",
            account: &OsUser::own(),
            log: File::create(&log).unwrap(),
        })
        .unwrap();
        let id = Pid::from_raw(child.process().expect("tidemill cannot be started").cast_signed());
        Self { child, id, log, _folder: logs }
    }

    /// Its process id.
    pub fn process(&self) -> i32 {
        self.id.as_raw()
    }

    /// Sends the process a signal; nothing happens where it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(self.id, signal).ok();
    }

    /// Kills it without a chance to clean up, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10));
    }

    /// Waits for the process to end, and fails where it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "tidemill did not end within {} s:\n{}", limit.as_secs(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How the process ended; none while it runs. A signal N shows as exit code 128 + N.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.ended().unwrap()
    }

    /// The memory of the process in KiB, as the system reports it: `VmRSS` is what it holds, `VmHWM` the most that it ever held.
    pub fn memory(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        super::tail(&self.log)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of tidemill, process {} ---\n{}\n---", self.id, self.log());
        }
    }
}
