//! `tidemill bench`: measures the model host alone and a whole pipeline.
//!
//! | figure | measured on |
//! |---|---|
//! | `engine` | the task graph over the pipeline's micro-batches, as many at a time as in the pipeline; no broker, database or file |
//! | `pipeline` | from the first record sent to the last one committed: in-process broker, a new private Postgres, Parquet files |
//! | `stages` | the pipeline's batches; quantiles are interpolated within the metric's buckets, as Prometheus does |
//!
//! | option | measures | file |
//! |---|---|---|
//! | `--generator` | decoding, and the effect of batching, a shared prefix and a schema | `generator.rs` |
//! | `--budgets` | whether the token budget that a start chooses is as good as the best fixed one | `token_budgets.rs` |
//! | `--requests` | one model on given requests | `requests.rs` |
//! | `--output` | a run from Parquet to Parquet, without a database | `parquet_run.rs` |
//!
//! `tests/bench/gpu.py` measures a GPU with these.

mod generator;
mod memory;
mod parquet_run;
mod random_model;
mod requests;
mod token_budgets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use prometheus::core::Collector;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::args::OutputArgs;
use super::tuned_engine;
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::demo::input::InputReader;
use crate::demo::{DemoSession, PARTITIONS};
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder, Document};
use crate::failure::Transient;
use crate::jobs::needs;
use crate::metrics::{METRICS, peak_resident_bytes};
use crate::outcome::Outcome;
use crate::pipeline::BATCHES_AT_A_TIME;
use crate::pipeline::definition::Definition;
use crate::pipeline::graph::{Graph, NoKnownResults};
use crate::record::{Partition, Record, RecordLocation};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("measured").required(true).args(["pipeline", "generator", "requests", "budgets"])))]
pub struct BenchArgs {
    /// The pipeline file
    #[arg(long, value_name = "FILE", requires = "input")]
    pipeline: Option<PathBuf>,
    /// The documents, .jsonl or .parquet
    #[arg(long, value_name = "FILE", requires = "pipeline")]
    input: Option<PathBuf>,
    /// Measure a run from a .parquet file to Parquet files in this folder instead, without a broker and a database
    #[arg(long, value_name = "DIR", requires = "pipeline")]
    output: Option<PathBuf>,
    /// Measure the decoder instead, on models with random weights: rates, ratios, the read bandwidth of memory, and the share of
    /// it that decoding one row uses
    #[arg(long)]
    generator: bool,
    /// With --generator: use a small model for every figure, for a quick look
    #[arg(long, requires = "generator")]
    small: bool,
    /// Measure an encoder with several token budgets instead, and with the one that a start would choose
    #[arg(long, requires = "model")]
    budgets: bool,
    /// Measure one model on the requests of this file instead, one JSON object per line
    #[arg(long, value_name = "FILE", requires = "model")]
    requests: Option<PathBuf>,
    /// With --requests: the file for the answers of the last round, one JSON object per line
    #[arg(long, value_name = "FILE", requires = "requests")]
    answers: Option<PathBuf>,
    /// With --requests: how many times all of them are run
    #[arg(long, value_name = "NUMBER", requires = "requests", default_value_t = 3)]
    rounds: usize,
    /// A model folder or GGUF file; with --generator it replaces random weights in the shape of Qwen2.5-0.5B; with --budgets it
    /// is the name of a configured model
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["small", "pipeline"])]
    model: Option<PathBuf>,
    /// With --generator: also decode behind a prefix of this many tokens that all rows share
    #[arg(long, value_name = "TOKENS", requires = "generator")]
    prefix: Option<usize>,
    /// The folder in which a temporary folder for the measurement is created
    #[arg(long, value_name = "DIR", default_value = ".tidemill")]
    data_dir: PathBuf,
    #[command(flatten)]
    report: OutputArgs,
}

#[derive(Debug, Clone, Copy)]
struct Throughput {
    documents: u64,
    tokens: u64,
    seconds: f64,
}

/// Runs the measurements and prints their figures.
pub async fn run(config: Config, args: BenchArgs) -> Result<()> {
    // A new folder, because results in the database of an earlier run would be reused.
    let folder = args.data_dir.join(format!("bench-{}", Uuid::new_v4().simple()));
    let report = measure(config, &args, &folder).await;
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let report = report?;
    if args.report.json {
        say!("{report}");
    } else {
        say!("{report:#}");
    }
    Ok(())
}

async fn measure(mut config: Config, args: &BenchArgs, folder: &Path) -> Result<Value> {
    match (&args.pipeline, &args.input, &args.requests, &args.model) {
        (Some(pipeline), Some(input), ..) => match &args.output {
            Some(output) => parquet_run::measure(config, pipeline, input, output).await,
            None => pipeline_and_engine(config, pipeline, input, folder).await,
        },
        (_, _, Some(requests), Some(model)) => {
            let (answers, rounds) = (args.answers.as_deref(), args.rounds);
            requests::measure(&config.engine, requests::RequestOptions { model, requests, answers, rounds }).await
        }
        (_, _, _, Some(model)) if args.budgets => {
            with_models(&mut config).await?;
            token_budgets::measure(&config, &model.to_string_lossy(), token_budgets::THOROUGH).await
        }
        (_, _, _, given) => {
            let models = generator::GeneratorOptions {
                temporary: folder,
                small: args.small,
                given: given.as_deref(),
                prefix: args.prefix,
            };
            generator::measure(&config.engine, models).await
        }
    }
}

async fn pipeline_and_engine(mut config: Config, pipeline: &Path, input: &Path, folder: &Path) -> Result<Value> {
    let definition = Definition::load(pipeline)?;
    with_models(&mut config).await?;
    let (alone, padding_share) = engine_alone(&config, &definition, input).await?;
    let whole = whole_pipeline(config, definition, input, folder).await?;
    Ok(json!({
        "engine": alone.to_json(),
        "pipeline": whole.to_json(),
        "pipeline_share": whole.documents_per_second() / alone.documents_per_second(),
        "padding_share": padding_share,
        "stages": stages(),
        "peak_rss_bytes": peak_resident_bytes(),
    }))
}

async fn engine_alone(config: &Config, definition: &Definition, path: &Path) -> Result<(Throughput, f64)> {
    let engine = tuned_engine(config.clone(), std::slice::from_ref(definition)).await?;
    let graph = Arc::new(Graph::build(definition, &engine).await?);
    let mut batches = DocumentBatches::open(definition, path).await?;
    let before = engine.stats();
    let started = Instant::now();
    let mut running: JoinSet<Result<Vec<Vec<Outcome>>, Transient>> = JoinSet::new();
    let mut documents = 0;
    while let Some(batch) = batches.next().await? {
        documents += batch.len() as u64;
        while running.len() >= BATCHES_AT_A_TIME * PARTITIONS as usize {
            running.join_next().await.transpose()?.transpose()?;
        }
        let graph = graph.clone();
        running.spawn(async move { graph.evaluate(&batch, &NoKnownResults).await });
    }
    while let Some(evaluated) = running.join_next().await {
        evaluated??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = engine.stats();
    let (tokens, padding) = (after.tokens - before.tokens, after.padding - before.padding);
    let share = if tokens == 0 { 0.0 } else { padding as f64 / tokens as f64 };
    Ok((Throughput { documents, tokens, seconds }, share))
}

async fn whole_pipeline(mut config: Config, definition: Definition, path: &Path, folder: &Path) -> Result<Throughput> {
    config.data_dir = folder.to_owned();
    // A measurement must not write to a configured database or dataset.
    config.database = Default::default();
    config.datasets = BTreeMap::new();
    config.server.listen = "127.0.0.1:0".into();
    let session = DemoSession::start(config, definition, path).await?;
    let report = &session.report;
    let rate = Throughput {
        documents: report.documents.max(0) as u64,
        tokens: report.tokens.max(0) as u64,
        seconds: report.elapsed_seconds,
    };
    session.stop().await?;
    Ok(rate)
}

impl Throughput {
    fn documents_per_second(&self) -> f64 {
        self.documents as f64 / self.seconds
    }

    fn to_json(self) -> Value {
        json!({
            "documents_per_second": self.documents_per_second(),
            "tokens_per_second": self.tokens as f64 / self.seconds,
            "documents": self.documents,
            "tokens": self.tokens,
            "elapsed_seconds": self.seconds,
        })
    }
}

/// The valid documents of a file, in the batches that the pipeline would form.
struct DocumentBatches<'a> {
    records: InputReader,
    decoder: Decoder,
    definition: &'a Definition,
    offset: i64,
}

impl<'a> DocumentBatches<'a> {
    async fn open(definition: &'a Definition, path: &Path) -> Result<Self> {
        let spec = &definition.source.document;
        let records = InputReader::open(path, &needs(definition)).await?;
        Ok(Self { records, decoder: Decoder::new(&spec.in_json())?, definition, offset: 0 })
    }

    async fn next(&mut self) -> Result<Option<Vec<Document>>> {
        let (mut documents, mut records, mut bytes) = (Vec::new(), 0, 0);
        while let Some(input) = self.records.next().await? {
            records += 1;
            bytes += input.payload.len();
            let partition = Partition { topic: self.definition.source.topic.as_str().into(), number: 0 };
            let record = Record {
                place: RecordLocation { partition, offset: self.offset },
                timestamp_ms: None,
                key: input.key.map(Into::into),
                payload: Some(input.payload.into()),
                headers: Vec::new(),
            };
            self.offset += 1;
            if let Ok(DecodedRecord::Document(document)) = self.decoder.decode(&record, &Schemas::none()) {
                documents.push(document);
            }
            if self.definition.budget.is_spent(records, bytes) {
                break;
            }
        }
        Ok((records > 0).then_some(documents))
    }
}

/// For each stage, the time that half and 99 % of the batches spent in it at most.
fn stages() -> Value {
    let mut stages = Map::new();
    for metric in METRICS.batch_seconds.collect().iter().flat_map(|family| family.get_metric()) {
        let Some(stage) = metric.get_label().iter().find(|label| label.name() == "stage") else { continue };
        let histogram = metric.get_histogram();
        let buckets: Vec<(f64, u64)> =
            histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        let count = histogram.get_sample_count();
        let quantile = |share| quantile(&buckets, count, share);
        let figures = json!({ "batches": count, "p50_seconds": quantile(0.5), "p99_seconds": quantile(0.99) });
        stages.insert(stage.value().to_owned(), figures);
    }
    Value::Object(stages)
}

/// The value below which a share of the observations is, if they are spread evenly within a bucket. Beyond the last bucket, its
/// bound.
fn quantile(buckets: &[(f64, u64)], count: u64, share: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let rank = share * count as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (bound, cumulative) in buckets {
        if *cumulative as f64 >= rank && *cumulative > below {
            return Some(lower + (bound - lower) * (rank - below as f64) / (cumulative - below) as f64);
        }
        (lower, below) = (*bound, *cumulative);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let buckets = [(1.0, 0), (2.0, 50), (4.0, 100), (8.0, 100)];
        assert_eq!(quantile(&buckets, 100, 0.5), Some(2.0));
        assert_eq!(quantile(&buckets, 100, 0.75), Some(3.0));
        assert_eq!(quantile(&buckets, 0, 0.5), None, "nothing was observed");
        assert_eq!(quantile(&[(1.0, 0)], 3, 0.5), Some(1.0), "beyond the last bucket its bound is all that is known");
    }
}
