//! A stream to break: a topic, a database, a folder of configuration and worker processes, and the counts that must agree at the
//! end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::store::Store;

use crate::harness::kafka::{Client, NewRecord};
use crate::harness::worker::{TEST_VARIABLES, Worker};
use crate::harness::{eventually, open_folder, postgres};
use crate::position_watcher::PositionWatcher;

/// The pipeline that streams run: two tasks without a model, the second on the output of the first.
pub const PIPELINE: &str = "echo";

/// How many tasks the pipeline has.
pub const TASKS: i64 = 2;

/// A topic, a ledger, and the folder that workers run in.
pub struct TestStream {
    pub client: Client,
    /// The topic of documents.
    pub topic: String,
    /// The topic of results.
    pub results: String,
    pub store: Store,
    /// The ledger's address.
    pub database_url: String,
    /// The ledger's address for workers: that of a proxy where one is in between.
    pub route_to_database: String,
    /// The broker's address for workers.
    pub route_to_broker: String,
    /// Further sections of the configuration.
    pub settings: String,
    /// Reads the positions all the time.
    pub positions: PositionWatcher,
    folder: TempDir,
}

impl TestStream {
    /// A stream on the shared Postgres.
    pub async fn new(client: Client, partitions: i32) -> Self {
        let database = postgres::database().await;
        Self::on(client, partitions, (database.store, database.url)).await
    }

    /// A stream on another Postgres.
    pub async fn on(client: Client, partitions: i32, (store, database_url): (Store, String)) -> Self {
        let topic = client.topic("documents", partitions).await;
        let results = client.topic("results", 1).await;
        let stream = Self {
            positions: PositionWatcher::start(store.clone()),
            route_to_database: database_url.clone(),
            route_to_broker: client.brokers.clone(),
            settings: String::new(),
            folder: open_folder(),
            client,
            topic,
            results,
            store,
            database_url,
        };
        let pipelines = stream.path("pipelines");
        std::fs::create_dir(&pipelines).unwrap();
        std::fs::write(pipelines.join("echo.yaml"), stream.pipeline()).unwrap();
        stream.configure(&stream.path("data"));
        stream
    }

    fn pipeline(&self) -> String {
        let Self { topic, results, .. } = self;
        format!(
            "version: 1\nname: {PIPELINE}\n\
             source: {{ topic: {topic}, id: id, text: \"{{{{ text }}}}\" }}\n\
             tasks:\n  \
               first: {{ render: {{ template: \"{{{{ document.text }}}}!\" }} }}\n  \
               second: {{ render: {{ template: \"{{{{ first.text }}}}?\" }} }}\n\
             sinks:\n  postgres: {{}}\n  parquet: {{ dataset: results }}\n  topic: {{ name: {results} }}\n\
             budget: {{ max_wait: 50ms, max_records: 50 }}\n"
        )
    }

    /// Replaces the pipeline file.
    pub fn write_pipeline(&self, text: &str) {
        std::fs::write(self.path("pipelines").join("echo.yaml"), text).unwrap();
    }

    /// Runs another command, which must succeed, and returns its stdout.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        program.args(arguments).args(["--config", "tidemill.toml"]).current_dir(self.folder.path());
        let output = program.env("TIDEMILL_DATABASE__URL", &self.database_url).output().unwrap();
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "tidemill {} ends with {}:\n{said}\n{told}", arguments.join(" "), output.status);
        said.into_owned()
    }

    /// Runs another command with `--json`, and returns the JSON object on its last line.
    pub fn answer(&self, arguments: &[&str]) -> Value {
        let said = self.command(&[arguments, &["--json"]].concat());
        serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|e| panic!("{said} is no JSON: {e}"))
    }

    /// Writes the configuration, with the dataset in `data`.
    pub fn configure(&self, data: &Path) {
        let config = format!(
            "pipelines = \"pipelines\"\n[kafka]\nbrokers = \"{}\"\n[kafka.settings]\n\
             \"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"\n\"topic.metadata.refresh.interval.ms\" = \"3000\"\n\
             [datasets.results]\npath = \"{}\"\n{}",
            self.route_to_broker,
            data.display(),
            self.settings
        );
        std::fs::write(self.path("tidemill.toml"), config).unwrap();
    }

    /// Rewrites a file of the workers' folder.
    pub fn amend(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.path(name);
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// A path in the workers' folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a worker, with failpoints set as in `FAILPOINTS`.
    pub fn worker(&self, failpoints: &str) -> Worker {
        self.worker_at("127.0.0.1:0", failpoints)
    }

    /// Starts a worker whose HTTP address is known.
    pub fn worker_at(&self, listen: &str, failpoints: &str) -> Worker {
        self.worker_with(listen, &[("FAILPOINTS", failpoints)])
    }

    /// Starts a worker with further environment variables.
    pub fn worker_with(&self, listen: &str, variables: &[(&str, &str)]) -> Worker {
        let environment = [&[("TIDEMILL_DATABASE__URL", self.route_to_database.as_str())], variables].concat();
        Worker::start(self.folder.path(), &["run", "--config", "tidemill.toml", "--listen", listen], &environment)
    }

    /// Sends the documents of the range, one version of each.
    pub async fn send(&self, range: std::ops::Range<usize>) {
        let record = |n: usize| NewRecord {
            partition: None,
            key: format!("d{n}").into_bytes(),
            payload: Some(format!(r#"{{"id":"d{n}","text":"text {n}"}}"#).into_bytes()),
        };
        self.client.send(&self.topic, range.map(record).collect()).await;
    }

    /// How many records the ledger has committed.
    pub async fn committed(&self) -> i64 {
        self.store.positions(PIPELINE, &self.topic).await.map(|p| p.iter().map(|(_, next)| next).sum()).unwrap_or(-1)
    }

    /// How often workers have claimed a partition so far.
    pub async fn claims(&self) -> i64 {
        postgres::count(&self.database_url, "SELECT coalesce(sum(epoch), 0)::bigint FROM positions").await
    }

    /// Runs `tidemill` with the arguments: whether it succeeded, and its stderr and stdout.
    pub async fn tidemill(&self, arguments: &[&str]) -> (bool, String) {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
        program.args(arguments).args(["--config", "tidemill.toml"]).current_dir(self.folder.path());
        for name in TEST_VARIABLES {
            program.env_remove(name);
        }
        let output = program.env("TIDEMILL_DATABASE__URL", &self.route_to_database).output().await.unwrap();
        let said = [output.stderr, output.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }

    /// Waits until the ledger has committed `records` records and published all events.
    pub async fn drained(&self, records: i64, limit: Duration) {
        eventually(&format!("{records} records are committed"), limit, || async { self.committed().await == records }).await;
        eventually("the outbox is empty", Duration::from_secs(30), || async {
            postgres::count(&self.database_url, "SELECT count(*) FROM outbox").await == 0
        })
        .await;
    }

    /// Checks that the ledger's invariants hold: its counts agree, and nothing unfinished is visible.
    pub async fn audit(&self, when: &str) {
        let violations = self.store.audit().await.unwrap();
        assert!(violations.is_empty(), "{when}: {}", violations.join("; "));
    }

    /// Checks that `documents`, sent once each, and `redelivered` repetitions of them were processed exactly once everywhere.
    pub async fn assert_exactly_once(&self, documents: i64, redelivered: i64) {
        self.assert_exactly_once_except(documents, redelivered, 0).await;
    }

    /// Checks the same where `dead` further records became dead letters as a whole.
    pub async fn assert_exactly_once_except(&self, documents: i64, redelivered: i64, dead: i64) {
        let count = |query: &'static str| postgres::count(&self.database_url, query);
        self.audit("at the end").await;
        self.positions.assert_nothing_fell();
        let units = count("SELECT coalesce(sum(units_in), 0)::bigint FROM batches").await;
        let parts =
            count("SELECT coalesce(sum(units_ok + units_reused + units_skipped + units_dead), 0)::bigint FROM batches").await;
        let expected = (documents + redelivered + dead) * TASKS;
        assert_eq!((units, parts), (expected, expected), "produced × tasks = in = ok + reused + skipped + dead");
        assert_eq!(count("SELECT count(*) FROM results").await, documents * TASKS, "distinct keys = rows");
        assert_eq!(count("SELECT count(*) FROM documents").await, documents, "distinct documents = rows");
        assert_eq!(count("SELECT count(*) FROM dead_letters").await, dead, "no other record became a dead letter");
        let ok = count("SELECT sum(units_ok)::bigint FROM batches").await;
        let (rows, keys) = self.parquet().await;
        assert_eq!(rows, ok as usize, "live Parquet rows = units computed");
        assert_eq!(keys, (documents * TASKS) as usize, "live Parquet files hold every (document, task)");
        let events = self.events().await;
        assert_eq!(events.len(), ok as usize, "the results topic, deduplicated by event id = units computed");
        assert_eq!(last_events(&events), self.results_kept().await, "the last event of each key = its row in Postgres");
        self.assert_swept().await;
    }

    /// Document, task and fingerprint of every row.
    async fn results_kept(&self) -> BTreeSet<[String; 3]> {
        use sqlx::{Connection, PgConnection, Row};
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        let rows = sqlx::query("SELECT document_id, task, encode(fingerprint, 'hex') FROM results");
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect()
    }

    /// Deletes files that never became live, as the service does but at once; then the files on disk are exactly the live ones.
    async fn assert_swept(&self) {
        let condemned = self.store.condemn_files("results", 0.0).await.unwrap();
        for path in &condemned {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{path} cannot be deleted: {error}"),
                _ => {}
            }
        }
        self.store.forget_files(&condemned).await.unwrap();
        let config: toml::Table = std::fs::read_to_string(self.path("tidemill.toml")).unwrap().parse().unwrap();
        let mut on_disk = Vec::new();
        files(Path::new(config["datasets"]["results"]["path"].as_str().unwrap()), &mut on_disk);
        let mut live = paths_of_live_files(&self.database_url).await;
        on_disk.sort();
        live.sort();
        assert_eq!(on_disk, live, "after the sweep, the files on the disk are the live ones");
    }

    /// Rows and distinct (document, task) pairs of the live files, read from the disk.
    async fn parquet(&self) -> (usize, usize) {
        let paths = paths_of_live_files(&self.database_url).await;
        let (mut rows, mut keys) = (0, HashSet::new());
        for path in paths {
            let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("live file {path} cannot be opened: {e}"));
            for row in SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap() {
                let row = row.unwrap();
                rows += 1;
                keys.insert((row.get_string(0).unwrap().clone(), row.get_string(2).unwrap().clone()));
            }
        }
        (rows, keys.len())
    }

    /// The events of the results topic by their ids.
    pub async fn events(&self) -> BTreeMap<String, Value> {
        read_topic(&self.client, &self.results).await
    }
}

/// Document, task and fingerprint of the last event of each key; events are in the order of their ids.
fn last_events(events: &BTreeMap<String, Value>) -> BTreeSet<[String; 3]> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let last: BTreeMap<_, _> =
        events.values().map(|e| ((word(e, "document_id"), word(e, "task")), word(e, "fingerprint"))).collect();
    last.into_iter().map(|((document, task), fingerprint)| [document, task, fingerprint]).collect()
}

/// Finds every Parquet file below the folder.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path if path.extension().is_some_and(|extension| extension == "parquet") => found.push(path.display().to_string()),
            _ => {}
        }
    }
}

/// The events of a topic with one partition, by their ids. Ids are in the order in which events were made.
pub async fn read_topic(client: &Client, topic: &str) -> BTreeMap<String, Value> {
    let (config, topic) = (client.config(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_events(config, &topic)).await.unwrap()
}

/// Reads the topic's only partition from its start to its end.
fn read_events(mut config: ClientConfig, topic: &str) -> BTreeMap<String, Value> {
    let consumer: BaseConsumer = config.set("group.id", "none").create().unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(20)).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(low)).unwrap();
    consumer.assign(&list).unwrap();
    let mut events = BTreeMap::new();
    let mut next = low;
    while next < high {
        let message = consumer.poll(Duration::from_secs(20)).expect("the results topic ends early").unwrap();
        let id = message.headers().unwrap().iter().find(|header| header.key == "event-id").expect("an event has an id");
        let id = String::from_utf8(id.value.unwrap().to_vec()).unwrap();
        events.insert(id, serde_json::from_slice(message.payload().unwrap()).unwrap());
        next = message.offset() + 1;
    }
    events
}

async fn paths_of_live_files(url: &str) -> Vec<String> {
    use sqlx::{Connection, PgConnection};
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT path FROM parquet_files WHERE state = 'live'").fetch_all(&mut connection).await.unwrap()
}
