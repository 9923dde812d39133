//! This binary in another role: a parent process that a test kills, to see that its child process ends too.

use std::fs::File;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tidemill::demo::child_process::{ChildOptions, ChildProcess};
use tidemill::demo::os_user::OsUser;

/// This variable makes a process of this binary such a parent. Its value is the file into which it writes its child's process id.
pub const ROLE: &str = "TIDEMILL_TEST_PARENT";

/// Runs as such a parent where the variable is set; none where it is not.
pub fn role() -> Option<ExitCode> {
    let report = std::env::var_os(ROLE)?;
    let mut program = Command::new("sleep");
    program.arg("600");
    let log = File::create("/dev/null").unwrap();
    let supervision = ChildOptions { program: &program, end_signal: "TERM", account: &OsUser::own(), log };
    let mut child = ChildProcess::start(supervision).unwrap();
    std::fs::write(report, child.process().unwrap().to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(600));
    Some(ExitCode::FAILURE)
}
