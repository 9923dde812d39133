//! Apache Kafka for tests: one process that is broker and controller. Maven fetches its jars, which are pinned by hash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;
use tidemill::cache;
use tidemill::demo::child_process::{ChildOptions, ChildProcess};
use tidemill::demo::os_user::OsUser;

use super::free_port;

/// What Maven resolves, and the hash of each file.
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/kafka/pom.xml");
const HASHES: &str = include_str!("../kafka/jars.sha256");
/// The plugin that copies the resolved files.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// A start takes at most ten seconds on a busy machine with two cores. The download of 45 MB is not part of it.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(15);

static SHARED: Mutex<Option<Broker>> = Mutex::new(None);

/// What a broker has besides the listener without authentication.
#[derive(Debug, Default)]
pub struct Extras {
    /// Listeners by name, which is also their protocol, with their ports.
    pub listeners: Vec<(&'static str, u16)>,
    /// A listener's port, and the port of the proxy in front of it, which the broker advertises.
    pub proxied: Option<(u16, u16)>,
    /// Further properties, a line each.
    pub properties: String,
    /// Further arguments of the command that formats its storage.
    pub format: Vec<String>,
}

/// A running broker. It can be stopped and resumed on the same port with its data.
pub struct Broker {
    port: u16,
    folder: TempDir,
    jars: PathBuf,
    running: Option<ChildProcess>,
}

/// One record for a topic.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The partition; the key decides where there is none.
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    /// The payload; none is a delete.
    pub payload: Option<Vec<u8>>,
}

/// Why Kafka cannot run on this machine; none where it can.
pub fn availability() -> &'static Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON.get_or_init(|| {
        let missing = |program: &str, flag: &str| {
            let found = Command::new(program).arg(flag).output().is_ok_and(|output| output.status.success());
            (!found).then(|| format!("Kafka needs `{program}`, which is not on the PATH (install Java 17 and Maven)"))
        };
        missing("java", "-version").or_else(|| missing("mvn", "--version"))
    })
}

/// A client of the broker that tests share, which is started when first needed.
pub async fn shared() -> Client {
    let start = || {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_none() {
            *shared = Some(Broker::start());
        }
        shared.as_ref().map(Broker::client).expect("was just started")
    };
    tokio::task::spawn_blocking(start).await.unwrap_or_else(|e| panic!("the shared Kafka does not start: {e}"))
}

/// Stops the shared broker.
pub fn shut_down() {
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Broker {
    /// Starts a broker that nobody shares. Blocks.
    pub fn start() -> Self {
        Self::start_with(&Extras::default())
    }

    /// Starts a broker with more than the listener without authentication. Blocks.
    pub fn start_with(extras: &Extras) -> Self {
        Self::try_start(extras).unwrap_or_else(|e| panic!("Kafka cannot be started: {e:#}"))
    }

    /// Starts a broker that also listens on the port `behind` and advertises the port `proxy` for that listener. Blocks.
    pub fn start_behind(behind: u16, proxy: u16) -> Self {
        Self::start_with(&Extras { proxied: Some((behind, proxy)), ..Extras::default() })
    }

    fn try_start(extras: &Extras) -> Result<Self> {
        let jars = jars()?;
        let folder = super::open_folder();
        let (port, controller) = (free_port(), free_port());
        let data = folder.path().join("data");
        fs::write(folder.path().join("server.properties"), properties(port, controller, &data, extras))?;
        fs::write(folder.path().join("log4j2.properties"), LOGGING)?;
        let mut broker = Self { port, folder, jars, running: None };
        let mut format = broker.java("kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", "dGlkZW1pbGwtdGVzdHMwMA", "--config"]).arg(broker.path("server.properties"));
        format.args(&extras.format);
        let output = format.output().context("cannot run java")?;
        ensure!(output.status.success(), "its storage cannot be formatted: {}", String::from_utf8_lossy(&output.stdout));
        broker.launch()?;
        Ok(broker)
    }

    /// Stops the broker and keeps its data. Blocks.
    pub fn stop(&mut self) {
        self.running.take().expect("the broker is stopped already").stop(STOP);
    }

    /// Starts it again on the same port. Blocks.
    pub fn resume(&mut self) {
        self.launch().unwrap_or_else(|e| panic!("Kafka cannot be started again: {e:#}"));
    }

    /// What a test needs to use it.
    pub fn client(&self) -> Client {
        Client { brokers: format!("127.0.0.1:{}", self.port), data: self.path("data") }
    }

    fn launch(&mut self) -> Result<()> {
        let mut program = self.java("kafka.Kafka");
        program.arg(self.path("server.properties"));
        let log = self.path("kafka.log");
        let mut child = ChildProcess::start(ChildOptions {
            program: &program,
            // An orderly stop takes ten seconds, and a broker that disappears is the harder case.
            end_signal: "KILL",
            account: &OsUser::own(),
            log: File::create(&log)?,
        })?;
        let deadline = Instant::now() + START;
        while !self.client().answers() {
            if let Some(status) = child.ended()? {
                bail!("it ended with {status}:\n{}", super::tail(&log));
            }
            ensure!(Instant::now() < deadline, "no answer within {} s:\n{}", START.as_secs(), super::tail(&log));
        }
        self.running = Some(child);
        Ok(())
    }

    /// Java with settings for a small and quick start.
    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        java.arg(format!("-Dlog4j2.configurationFile={}", self.path("log4j2.properties").display()));
        java.arg("-cp").arg(self.jars.join("*")).arg(class);
        java.current_dir(self.folder.path());
        java
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What a test needs to use a broker.
#[derive(Debug, Clone)]
pub struct Client {
    /// The bootstrap server, `host:port`.
    pub brokers: String,
    /// Where the broker keeps its logs.
    data: PathBuf,
}

impl Client {
    /// Makes a topic whose name no other test has.
    pub async fn topic(&self, stem: &str, partitions: i32) -> String {
        let name = Self::name(stem);
        self.make(NewTopic::new(&name, partitions, TopicReplication::Fixed(1))).await;
        name
    }

    /// Makes a topic of one partition that takes batches of at most `bytes`.
    pub async fn topic_with_limit(&self, stem: &str, bytes: usize) -> String {
        let (name, bytes) = (Self::name(stem), bytes.to_string());
        self.make(NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", &bytes)).await;
        name
    }

    /// Makes a topic with exactly this name.
    pub async fn topic_named(&self, name: &str) {
        self.make(NewTopic::new(name, 1, TopicReplication::Fixed(1))).await;
    }

    /// Sets the largest batch that the topic takes, in bytes.
    pub async fn allow(&self, topic: &str, bytes: usize) {
        let bytes = bytes.to_string();
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let outcome = self.admin().alter_configs([&change], &AdminOptions::new()).await.unwrap();
        outcome.into_iter().for_each(|topic| drop(topic.unwrap_or_else(|(name, code)| panic!("topic {name:?}: {code}"))));
    }

    /// A name that no other test has.
    pub fn name(stem: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    async fn make(&self, topic: NewTopic<'_>) {
        let outcome = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        outcome.into_iter().for_each(|topic| drop(topic.unwrap_or_else(|(name, code)| panic!("topic {name}: {code}"))));
    }

    /// Gives the topic more partitions.
    pub async fn widen(&self, topic: &str, partitions: usize) {
        let outcome =
            self.admin().create_partitions([&NewPartitions::new(topic, partitions)], &AdminOptions::new()).await.unwrap();
        outcome.into_iter().for_each(|topic| drop(topic.unwrap_or_else(|(name, code)| panic!("topic {name}: {code}"))));
    }

    /// Deletes the partition's records before `offset`, as a too short retention does.
    pub async fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        self.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    /// Deletes the topic and makes it anew under its name.
    pub async fn recreate(&self, topic: &str, partitions: i32) {
        let outcome = self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        outcome.into_iter().for_each(|topic| drop(topic.unwrap_or_else(|(name, code)| panic!("topic {name}: {code}"))));
        let anew = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        super::eventually("the topic is made anew", Duration::from_secs(20), || async {
            let outcome = self.admin().create_topics([&anew], &AdminOptions::new()).await.unwrap();
            outcome.into_iter().all(|topic| topic.is_ok())
        })
        .await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Sends the records and waits until the broker has acknowledged all of them.
    pub async fn send(&self, topic: &str, records: Vec<NewRecord>) {
        self.send_with(topic, records, &[]).await;
    }

    /// [`Self::send`] with more settings of the producer.
    pub async fn send_with(&self, topic: &str, records: Vec<NewRecord>, settings: &[(&str, &str)]) {
        let (mut config, topic) = (self.config(), topic.to_owned());
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let send = move || {
            let producer: BaseProducer = config.clone().set("message.max.bytes", "25000000").create().unwrap();
            for record in records {
                let mut next = BaseRecord::to(&topic).key(&record.key);
                next.partition = record.partition;
                next.payload = record.payload.as_deref();
                while let Err((error, back)) = producer.send(next) {
                    let is_full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
                    assert!(is_full, "cannot send a record: {error}");
                    producer.poll(Duration::from_millis(50));
                    next = back;
                }
            }
            producer.flush(Duration::from_secs(60)).unwrap();
        };
        tokio::task::spawn_blocking(send).await.unwrap();
    }

    /// The bytes of the first log segment of a partition, as the broker keeps them.
    pub fn segment(&self, topic: &str, partition: i32) -> Vec<u8> {
        fs::read(self.data.join(format!("{topic}-{partition}")).join("00000000000000000000.log")).unwrap()
    }

    /// A configuration that points at this broker.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("log_level", "2");
        config
    }

    fn answers(&self) -> bool {
        let consumer: Result<BaseConsumer, _> = self.config().create();
        consumer.is_ok_and(|c| c.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|m| !m.brokers().is_empty()))
    }
}

/// The folder of jars, fetched once and kept with the other downloads.
fn jars() -> Result<PathBuf> {
    let cache = cache::folder()?;
    let version = blake3::hash(HASHES.as_bytes()).to_hex();
    let folder = cache.join(format!("kafka-{}", &version[..12]));
    if folder.exists() {
        return Ok(folder);
    }
    let lock = File::create(cache.join("kafka.lock"))?;
    lock.lock()?;
    if folder.exists() {
        return Ok(folder);
    }
    eprintln!("fetching Kafka (45 MB) into {}", cache.display());
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--strict-checksums", "--file", POM, COPY, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .output()
        .context("cannot run mvn")?;
    ensure!(output.status.success(), "Maven cannot fetch it: {}", String::from_utf8_lossy(&output.stdout).trim());
    verify(&partial)?;
    fs::rename(&partial, &folder)?;
    Ok(folder)
}

/// Checks that the folder holds the pinned files, by content, and no others.
fn verify(folder: &Path) -> Result<()> {
    let list = folder.join("jars.sha256");
    fs::write(&list, HASHES)?;
    let output = Command::new("sha256sum").args(["--check", "--strict", "--quiet"]).arg(&list).current_dir(folder).output()?;
    ensure!(
        output.status.success(),
        "what Maven fetched is not what tests/it/kafka/jars.sha256 pins: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    fs::remove_file(&list)?;
    let (found, pinned) = (fs::read_dir(folder)?.count(), HASHES.lines().count());
    ensure!(found == pinned, "Maven fetched {found} files where tests/it/kafka/jars.sha256 pins {pinned}");
    Ok(())
}

const LOGGING: &str = "
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";

fn properties(port: u16, controller: u16, data: &Path, extras: &Extras) -> String {
    let more = |part: fn(&str, u16) -> String| extras.listeners.iter().map(|(name, port)| part(name, *port)).collect::<String>();
    let listeners = more(|name, port| format!(",{name}://127.0.0.1:{port}"));
    let protocols = more(|name, _| format!(",{name}:{name}"));
    let (proxied, advertised) = extras.proxied.map_or_else(Default::default, |(behind, proxy)| {
        (format!(",PROXIED://127.0.0.1:{behind}"), format!(",PROXIED://127.0.0.1:{proxy}"))
    });
    let plain = if extras.proxied.is_some() { ",PROXIED:PLAINTEXT" } else { "" };
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}{proxied}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}{plain}
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=25000000
num.network.threads=2
num.io.threads=2
log.cleaner.threads=1
{}",
        data.display(),
        extras.properties
    )
}
