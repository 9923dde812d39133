//! Child processes that end with this process, however it ends.
//!
//! A small shell is between the two: it starts the child and reads a pipe from this process. The pipe closes when the value is
//! dropped, when this process exits, and when it is killed; the shell then sends the child a signal.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::os_user::OsUser;

/// `read` is built into the shell, so no other process holds the pipe. A shell redirects the standard input of background
/// commands, hence the detour over descriptor 3.
const SHELL: &str = r#"
signal=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ while read -r line <&3; do :; done; kill -s "$signal" "$child" 2>/dev/null; } &
watch=$!
exec 3<&-
wait "$child"; status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

/// How to start a child process.
pub struct ChildOptions<'a> {
    /// The program and its arguments, environment and folder.
    pub program: &'a Command,
    /// The signal that asks it to end, `INT` or `TERM`.
    pub end_signal: &'static str,
    /// The account that runs it.
    pub account: &'a OsUser,
    /// The file for its output.
    pub log: File,
}

/// A running child process, killed when this is dropped.
pub struct ChildProcess {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl ChildProcess {
    /// Starts the program.
    ///
    /// # Errors
    /// If there is no shell, or the system refuses another process.
    pub fn start(options: ChildOptions<'_>) -> Result<Self> {
        let ChildOptions { program, end_signal, account, log } = options;
        let mut shell = Command::new("sh");
        shell.args(["-c", SHELL, "sh", end_signal]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = program.get_current_dir() {
            shell.current_dir(folder);
        }
        account.apply(&mut shell);
        // In a process group of its own, or Ctrl-C would reach the child while it is still needed.
        shell.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut shell = shell.spawn().with_context(|| format!("cannot start {}", program.get_program().display()))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// The exit status of the child, if it has ended.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.shell.try_wait().context("cannot ask for the state of a child process")
    }

    /// The child's process id; none if it ended before it could be read.
    pub fn process(&mut self) -> Option<u32> {
        let shell = self.shell.id();
        // The child is the shell's first child, which appears a moment after the shell.
        let children = format!("/proc/{shell}/task/{shell}/children");
        loop {
            let list = fs::read_to_string(&children).unwrap_or_default();
            if let Some(first) = list.split_whitespace().next() {
                return first.parse().ok();
            }
            if !matches!(self.shell.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Signals the child to end, and kills it after `timeout`. Blocks.
    pub fn stop(&mut self, timeout: Duration) {
        drop(self.pipe.take());
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if !matches!(self.shell.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Kills the child process at once.
    pub fn kill(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.shell.id().cast_signed());
        if nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).is_err() {
            tracing::debug!(%group, "the process group had already ended");
        }
        if let Err(error) = self.shell.wait() {
            tracing::debug!(%error, "the supervising shell had already been waited for");
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if matches!(self.shell.try_wait(), Ok(None)) {
            self.stop(Duration::from_secs(10));
        }
    }
}
