//! Postgres for tests: one server, and for each test a database of its own, copied from one that is migrated once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tidemill::config::DatabaseConfig;
use tidemill::demo::postgres::{PostgresOptions, PrivatePostgres};
use tidemill::store::Store;

/// The server that tests share; none before the first test that needs it and after the last test.
static SHARED: Mutex<Option<Server>> = Mutex::new(None);

/// A Postgres server in a folder of its own. It can be stopped and started on the same port.
pub struct Server {
    running: Option<PrivatePostgres>,
    options: PostgresOptions,
    url: String,
    folder: TempDir,
}

/// A migrated database that one test has for itself.
pub struct Database {
    /// The address, `postgres://user:password@host:port/name`.
    pub url: String,
    /// The ledger in it.
    pub store: Store,
}

impl Server {
    /// Starts a server that nobody shares. Blocks.
    pub fn start() -> Self {
        let folder = super::open_folder();
        let options = PostgresOptions { data_dir: folder.path().to_owned(), port: None, durable: false };
        let running = PrivatePostgres::start(&options, &|line| eprintln!("{line}")).unwrap_or_else(|e| panic!("{e:#}"));
        let options = PostgresOptions { port: Some(running.port()), ..options };
        Self { url: running.url().to_owned(), running: Some(running), options, folder }
    }

    /// Stops the server and keeps its files. Blocks.
    pub fn stop(&mut self) {
        self.running.take().expect("the server is stopped already").stop();
    }

    /// Kills the server as a crash would, and keeps its files. Blocks.
    pub fn kill(&mut self) {
        self.running.take().expect("the server is stopped already").kill();
    }

    /// Starts it again on the same port. Blocks.
    pub fn resume(&mut self) {
        let running = PrivatePostgres::start(&self.options, &|line| eprintln!("{line}")).unwrap_or_else(|e| panic!("{e:#}"));
        self.running = Some(running);
    }

    /// Sends the signal to every process of the server. After `SIGSTOP` connections stay open and nothing answers until `SIGCONT`.
    pub fn signal(&self, signal: Signal) {
        let list = std::fs::read_to_string(self.cluster().join("postmaster.pid")).expect("the server has said its process id");
        let postmaster: i32 =
            list.lines().next().and_then(|line| line.parse().ok()).expect("a process id stands in the first line");
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        // The postmaster comes first, so that it starts no further processes meanwhile.
        for process in std::iter::once(postmaster).chain(children) {
            kill(Pid::from_raw(process), signal).ok();
        }
    }

    fn cluster(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.folder.path()).expect("the server's folder is there").flatten();
        let cluster = folders.map(|entry| entry.path()).find(|path| path.join("postmaster.pid").exists());
        cluster.expect("the server runs")
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.options.port.expect("was set at the start")
    }

    /// The URL of the server's first database, which is empty.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a database of this server.
    fn url_of(&self, database: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').expect("a database URL ends with a name");
        format!("{server}/{database}")
    }
}

/// The database that others are copied from.
const TEMPLATE: &str = "migrated";

/// A fresh, migrated database on the shared server.
pub async fn database() -> Database {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let url = tokio::task::spawn_blocking(move || {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = shared.is_none();
        let server = shared.get_or_insert_with(Server::start);
        // Postgres copies a database only while nobody else copies it: the lock is held until the copy is done.
        tokio::runtime::Handle::current().block_on(async {
            if is_first {
                execute(server.url(), &format!("CREATE DATABASE {TEMPLATE}")).await;
                let store = open(&server.url_of(TEMPLATE));
                store.migrate().await.unwrap_or_else(|e| panic!("{e:#}"));
                store.close().await;
            }
            execute(server.url(), &format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
            server.url_of(&name)
        })
    })
    .await
    .unwrap();
    Database { store: open(&url), url }
}

/// Runs one statement, which comes from the test and not from outside.
pub async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap_or_else(|e| panic!("cannot reach the test's Postgres: {e}"));
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
    outcome.unwrap_or_else(|e| panic!("{statement}: {e}"));
    connection.close().await.ok();
}

/// The single number that a query returns. The query comes from the test and not from outside.
pub async fn count(url: &str, query: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap_or_else(|e| panic!("cannot reach the test's Postgres: {e}"));
    let number = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await;
    connection.close().await.ok();
    number.unwrap_or_else(|e| panic!("{query}: {e}"))
}

fn open(url: &str) -> Store {
    let config = DatabaseConfig { url: Some(url.to_owned()), ..DatabaseConfig::default() };
    Store::connect(&config).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Stops the shared server.
pub fn shut_down() {
    // Nobody opens its files again, and an orderly stop would write everything to disk first.
    if let Some(mut server) = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        server.kill();
    }
}

/// The address of a demo's database, password included, from the demo's report in JSON.
pub fn database_of(report: &serde_json::Value) -> String {
    let file = report["database_password_file"].as_str().unwrap();
    let mut url = reqwest::Url::parse(report["database_url"].as_str().unwrap()).unwrap();
    assert_eq!(url.password(), None, "a password is printed");
    url.set_password(Some(&std::fs::read_to_string(file).unwrap())).unwrap();
    url.into()
}
