//! A private PostgreSQL 18: its files are in the data folder, it listens on loopback only, and it ends with this process.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::child_process::{ChildOptions, ChildProcess};
use super::download;
use super::os_user::OsUser;
use super::postgres_cluster::{ClusterSetup, PostgresCluster, SUPERUSER};

/// How to start the private Postgres.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub data_dir: PathBuf,
    /// By default any free port.
    pub port: Option<u16>,
    /// Whether commits survive a power cut. Only tests do without.
    pub durable: bool,
}

/// A running Postgres. Dropping the value stops it.
pub struct PrivatePostgres {
    url: String,
    port: u16,
    child: ChildProcess,
    /// Held while the data folder is in use.
    _lock: File,
}

const DATABASE: &str = "tidemill";
/// How long a start may take, with recovery after a crash.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a shutdown may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a Postgres whose parent process was killed may take to end.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(30);
/// Starts to attempt, because another process may take the free port before Postgres does.
const START_ATTEMPTS: usize = 3;

impl PrivatePostgres {
    /// Starts Postgres, after downloading it and creating its files if necessary. Blocks; `tell` is called with a line about
    /// anything that takes long.
    ///
    /// # Errors
    /// If another process uses the folder, another major version wrote it, or Postgres does not start; the message says why and
    /// what to do.
    pub fn start(options: &PostgresOptions, tell: &dyn Fn(&str)) -> Result<Self> {
        let data_dir = &options.data_dir;
        fs::create_dir_all(data_dir).with_context(|| format!("cannot create the data folder {}", data_dir.display()))?;
        let data_dir = &data_dir.canonicalize().with_context(|| format!("cannot find the data folder {}", data_dir.display()))?;
        let lock = lock(data_dir)?;
        let account = OsUser::unprivileged()?;
        let installation = download::postgres(&account, tell)?;
        let setup = ClusterSetup { installation: &installation, account: &account, durable: options.durable, tell };
        let cluster = PostgresCluster::open(data_dir, &setup)?;
        wait_for_predecessor(&cluster.folder)?;
        let log = data_dir.join("postgres.log");
        for attempt in 1.. {
            let port = match options.port {
                Some(port) => port,
                None => free_port()?,
            };
            let mut child = ChildProcess::start(ChildOptions {
                program: &command(&installation, &cluster.folder, port, options.durable),
                // Fast shutdown, which ends sessions instead of waiting for them.
                end_signal: "INT",
                account: &account,
                log: File::create(&log).with_context(|| format!("cannot write {}", log.display()))?,
            })?;
            match wait_until_ready(&mut child, &cluster.folder) {
                Ok(()) => {
                    create_database(&installation, &cluster, port)?;
                    let url = format!("postgres://{SUPERUSER}:{}@127.0.0.1:{port}/{DATABASE}", cluster.password);
                    return Ok(Self { url, port, child, _lock: lock });
                }
                Err(reason) if attempt >= START_ATTEMPTS => {
                    bail!("the private PostgreSQL does not start: {reason}{}; its log is {}", last_log_line(&log), log.display())
                }
                Err(reason) => tracing::debug!(reason, attempt, "the private PostgreSQL did not start"),
            }
            // The last processes of an earlier Postgres may still hold its shared memory.
            sleep(Duration::from_secs(1));
        }
        bail!("the private PostgreSQL does not start")
    }

    /// `postgres://user:password@host:port/name`. It must never be printed.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops Postgres and ends its sessions. Blocks. Dropping the value does the same.
    pub fn stop(mut self) {
        self.child.stop(STOP_TIMEOUT);
    }

    /// Kills Postgres, as a crash would.
    pub fn kill(mut self) {
        self.child.kill();
    }
}

fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}; name another --data-dir", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another tidemill; wait for its end, or name another --data-dir", data_dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn command(installation: &Path, cluster: &Path, port: u16, durable: bool) -> Command {
    let mut command = Command::new(installation.join("bin/postgres"));
    command.current_dir("/").arg("-D").arg(cluster).arg("-p").arg(port.to_string());
    let settings = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=100",
        "shared_buffers=128MB",
        "max_wal_size=1GB",
        // Containers have 64 MB of shared memory, less than a parallel index build needs.
        "dynamic_shared_memory_type=mmap",
        "max_parallel_maintenance_workers=0",
        "max_parallel_workers_per_gather=0",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    if !durable {
        command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    }
    command
}

/// Waits for an earlier Postgres in the same folder. It may still run if its parent was killed a moment ago; its supervisor then
/// ends it.
fn wait_for_predecessor(cluster: &Path) -> Result<()> {
    let deadline = Instant::now() + PREDECESSOR_TIMEOUT;
    while let Some(process) = predecessor(cluster) {
        if Instant::now() > deadline {
            bail!("PostgreSQL still runs on {} as process {process}; end it, or name another --data-dir", cluster.display());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn predecessor(cluster: &Path) -> Option<u32> {
    let file = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let process: u32 = file.lines().next()?.trim().parse().ok()?;
    let folder = fs::read_link(format!("/proc/{process}/cwd")).ok()?;
    (folder == cluster.canonicalize().ok()?).then_some(process)
}

/// Waits until Postgres has written `ready` into the eighth line of `postmaster.pid`.
fn wait_until_ready(child: &mut ChildProcess, cluster: &Path) -> Result<(), String> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.ended().map_err(|e| e.to_string())? {
            return Err(format!("it ended with {status}"));
        }
        let file = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
        if file.lines().nth(7).is_some_and(|state| state.trim() == "ready") && predecessor(cluster).is_some() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("not ready after {} s", START_TIMEOUT.as_secs()));
        }
        sleep(Duration::from_millis(20));
    }
}

fn create_database(installation: &Path, cluster: &PostgresCluster, port: u16) -> Result<()> {
    let output = Command::new(installation.join("bin/createdb"))
        .args(["--host=127.0.0.1", "--username", SUPERUSER, "--no-password", "--port"])
        .args([&port.to_string(), DATABASE])
        .env("PGPASSWORD", &cluster.password)
        .output()
        .context("cannot run createdb of the private PostgreSQL")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !stderr.contains("already exists") {
        bail!("cannot create the database {DATABASE} in {}: {}", cluster.folder.display(), stderr.trim());
    }
    Ok(())
}

/// A free port of the loopback interface.
///
/// # Errors
/// If the system has none.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn last_log_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let fatal = text.lines().rfind(|line| line.contains("FATAL") || line.contains("PANIC")).or(text.lines().last());
    fatal.map(|line| format!(" ({})", line.trim())).unwrap_or_default()
}
