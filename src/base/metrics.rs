//! Every metric of the process. The help texts are those on `/metrics`.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The metrics of this process. They are registered on first use.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Seconds from half a millisecond to about a minute.
const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A metric with its labels, as alert rules and dashboards refer to it.
#[derive(Debug, Clone, Copy)]
pub struct MetricFamily {
    /// The name on `/metrics`.
    pub name: &'static str,
    /// The Rust type, such as `IntGaugeVec`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($field:ident: $type:ident = $name:literal, $help:literal $(, [$($label:literal),*])?;)*) => {
        /// The metrics, one field each.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// Every metric, for the test that alert rules and dashboards name only metrics that exist.
            pub const FAMILIES: &[MetricFamily] =
                &[$(MetricFamily { name: $name, kind: stringify!($type), labels: &[$($($label),*)?] }),*];

            fn new() -> Self {
                let registry = Registry::new();
                $(let $field = metrics!(@new $type, $name, $help $(, [$($label),*])?);
                registry.register(Box::new($field.clone())).expect("metric names are distinct");)*
                #[cfg(target_os = "linux")]
                registry
                    .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
                    .expect("process metrics are registered once");
                Self { registry, $($field,)* }
            }
        }
    };
    (@new Histogram, $name:literal, $help:literal) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets(LATENCY_BUCKETS.to_vec())).expect("valid histogram")
    };
    (@new HistogramVec, $name:literal, $help:literal, [$($label:literal),*]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(LATENCY_BUCKETS.to_vec()), &[$($label),*]).expect("valid histogram")
    };
    (@new $type:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        $type::new(Opts::new($name, $help), &[$($label),*]).expect("valid metric")
    };
    (@new $type:ident, $name:literal, $help:literal) => {
        $type::new($name, $help).expect("valid metric")
    };
}

metrics! {
    records: IntCounterVec = "tidemill_records_total", "Records taken from the source.", ["pipeline"];
    batches: IntCounterVec = "tidemill_batches_total", "Micro-batches committed.", ["pipeline"];
    units: IntCounterVec = "tidemill_units_total", "Committed task records (pairs of a record and a task), by outcome: ok, reused, skipped or dead.", ["pipeline", "outcome"];
    dead_letters: IntCounterVec = "tidemill_dead_letters_total", "Dead letters committed, by class of fault.", ["pipeline", "class"];
    isolated: IntGaugeVec = "tidemill_isolated_partitions", "Partitions whose records are evaluated in small batches or alone, because the last owner died while it evaluated some of them.", ["pipeline"];
    pipeline_stopped: IntGaugeVec = "tidemill_pipeline_stopped", "1 for a pipeline that is stopped. The class is that of the dead letters of which there were too many, or by_hand.", ["pipeline", "class"];
    fenced: IntCounterVec = "tidemill_fenced_total", "Batches dropped because another worker has claimed the partition since.", ["pipeline"];
    commit_seconds: HistogramVec = "tidemill_commit_seconds", "Time from staging a batch to the end of its commit.", ["pipeline"];
    batch_seconds: HistogramVec = "tidemill_batch_seconds", "Time that a micro-batch spends in each stage of a pipeline. A batch that is evaluated in parts while it fills counts once for each part.", ["pipeline", "stage"];
    in_flight_bytes: IntGaugeVec = "tidemill_in_flight_bytes", "Bytes of records read and not yet committed.", ["pipeline"];
    lag: IntGaugeVec = "tidemill_lag_records", "Offsets between the committed position in the ledger and the end of the partition.", ["pipeline", "topic", "partition"];
    last_progress: GaugeVec = "tidemill_last_progress_timestamp_seconds", "Unix time at which the partition's position last advanced.", ["pipeline", "topic", "partition"];
    outbox: IntGauge = "tidemill_outbox_rows", "Events committed and not yet published.";
    outbox_parked: IntGaugeVec = "tidemill_outbox_parked_rows", "Events that their topic refused for their content, and that wait for an operator.", ["topic"];
    topic_blocked: IntGaugeVec = "tidemill_topic_blocked", "1 for a topic that takes no events at present.", ["topic"];
    published: IntCounterVec = "tidemill_published_total", "Events published from the outbox, by topic.", ["topic"];
    published_bare: IntCounterVec = "tidemill_published_without_payload_total", "Dead letters published without their payload, which was too large for their topic.", ["topic"];
    deliveries: IntCounterVec = "tidemill_webhook_deliveries_total", "Webhook requests, by outcome: delivered, retried, refused or given_up.", ["webhook", "outcome"];
    deliveries_waiting: IntGaugeVec = "tidemill_webhook_deliveries_waiting", "Deliveries that wait for their next attempt.", ["webhook"];
    retries: IntCounterVec = "tidemill_retries_total", "Operations repeated because a component was unavailable.", ["component"];
    halted: IntGaugeVec = "tidemill_halted", "Whether a pipeline waits for an operator: 1 or 0.", ["pipeline"];
    ready: IntGaugeVec = "tidemill_ready", "Whether a component is available: 1 or 0.", ["component"];
    tokens: IntCounterVec = "tidemill_tokens_total", "Tokens run through a model.", ["model"];
    padding: IntCounterVec = "tidemill_padding_tokens_total", "Padding tokens run through a model.", ["model"];
    device_busy: CounterVec = "tidemill_device_busy_seconds_total", "Time a device spent computing.", ["device"];
    queue_depth: IntGauge = "tidemill_engine_queue_tokens", "Tokens waiting for a device.";
    engine_seconds: Histogram = "tidemill_engine_batch_seconds", "Device time of one token batch.";
    device_idle: CounterVec = "tidemill_device_idle_seconds_total", "Time that a device did not compute, by cause: no_work, tokenizing, forming (a batch was being formed) or answering (answers were being returned). Busy and idle time add up to all time.", ["device", "cause"];
    engine_batch_tokens: IntGaugeVec = "tidemill_engine_batch_tokens", "Largest number of tokens in one batch of an encoder, as configured or measured.", ["model", "device"];
    step_seconds: HistogramVec = "tidemill_generator_step_seconds", "Time of one step of a generative model.", ["model"];
    generator_rows: IntGaugeVec = "tidemill_generator_rows", "Sequences that a generative model is reading or writing.", ["model"];
    generator_waiting: IntGaugeVec = "tidemill_generator_waiting", "Sequences that wait for a generative model.", ["model"];
    kv_blocks: IntGaugeVec = "tidemill_kv_blocks", "Blocks of the KV cache in use.", ["model"];
    preemptions: IntCounterVec = "tidemill_preemptions_total", "Sequences that were removed from the KV cache to make space and read again later.", ["model"];
    prompt_tokens: IntCounterVec = "tidemill_prompt_tokens_total", "Prompt tokens that generative models read, without those taken from the prefix cache.", ["model"];
    prefix_tokens_saved: IntCounterVec = "tidemill_prefix_tokens_saved_total", "Prompt tokens taken from the prefix cache.", ["model"];
    generated_tokens: IntCounterVec = "tidemill_generated_tokens_total", "Tokens that generative models wrote.", ["model"];
    http_requests: IntCounterVec = "tidemill_http_requests_total", "HTTP requests answered, by route and status.", ["route", "status"];
    http_seconds: HistogramVec = "tidemill_http_request_seconds", "Time to answer an HTTP request, by route.", ["route"];
    http_connections: IntGauge = "tidemill_http_connections", "Open HTTP connections.";
    http_connections_refused: IntCounter = "tidemill_http_connections_refused_total", "HTTP connections refused because too many were open, in all or from one address.";
    http_limited: IntCounter = "tidemill_http_requests_limited_total", "HTTP requests refused because their token or address exceeded the rate limit.";
    peak_memory: Gauge = "tidemill_peak_resident_memory_bytes", "Largest resident memory of the process so far.";
    jobs: IntGaugeVec = "tidemill_jobs", "Jobs that have not ended, by state. Only the process that coordinates the fleet's jobs reports them.", ["state"];
    units_ended: IntCounterVec = "tidemill_job_units_total", "Units of jobs that ended in this process, by outcome: done, failed or stopped.", ["pipeline", "end"];
    schedule_firings: IntCounterVec = "tidemill_schedule_firings_total", "Times of schedules decided by this process, by outcome: fired, skipped, missed or refused.", ["schedule", "outcome"];
    searches: IntCounter = "tidemill_searches_total", "Searches answered, over HTTP or on the command line.";
    loading: IntGauge = "tidemill_loading", "Whether the process is loading its models and reads no records yet: 1 or 0.";
    memory_limit: Gauge = "tidemill_memory_limit_bytes", "Memory that the process may use: the limit of its control group, or else the machine's memory.";
    dataset_free: GaugeVec = "tidemill_dataset_free_bytes", "Free space on the disk that a dataset is written to.", ["dataset"];
}

impl Metrics {
    /// The total lag of this process's partitions of the pipeline, in records.
    pub fn lag_of(&self, pipeline: &str) -> i64 {
        let of_pipeline = |metric: &Metric| metric.get_label().iter().any(|l| l.name() == "pipeline" && l.value() == pipeline);
        let families = self.lag.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        metrics.filter(|metric| of_pipeline(metric)).map(|metric| metric.get_gauge().get_value() as i64).sum()
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        if let Some(bytes) = peak_resident_bytes() {
            self.peak_memory.set(bytes as f64);
        }
        if let Some(bytes) = memory_limit_bytes() {
            self.memory_limit.set(bytes as f64);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|e| format!("# cannot encode metrics: {e}\n"))
    }
}

/// The largest resident memory of this process so far (`VmHWM`); none on systems other than Linux.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmHWM:")
}

/// The most memory that this process may use: the limit of its control group, or the machine's memory where there is none.
/// A container sees its own control group at the root.
fn memory_limit_bytes() -> Option<u64> {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // Without a limit the file has the word `max`, or a number greater than any machine's memory.
    let limit = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let all = std::fs::read_to_string("/proc/meminfo").ok();
    let all = all.as_deref().and_then(|text| kibibytes(text, "MemTotal:"));
    limit.into_iter().chain(all).min()
}

/// The value of a line such as `VmHWM:     1024 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
