//! What integration tests share: a broker, a database, worker processes, and tests with a time limit.

pub mod kafka;
pub mod parent_process;
pub mod postgres;
pub mod proxy;
pub mod readiness;
pub mod registry;
pub mod secured;
pub mod tests;
pub mod trial;
pub mod worker;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Stops the shared servers. Where this process is killed before, their supervisors stop them.
pub fn shut_down() {
    kafka::shut_down();
    postgres::shut_down();
}

/// A folder that any account may enter: Postgres does not run as root.
pub fn open_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("tidemill-it-").permissions(permissions).tempdir().expect("cannot make a temporary folder")
}

/// A port that nothing listens on. It is below the range for outgoing connections, so that none of these takes it before the
/// server that it is for listens.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at the same time begin at different ports.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    let candidate = || FIRST + ((u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT)) as u16;
    std::iter::repeat_with(candidate)
        .take(COUNT.into())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("no port is free between 15000 and 30000")
}

/// Waits until `holds` is true, and fails with `what` where it is not within `limit`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, limit: Duration, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The end of a log, for the message of a failing test.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
