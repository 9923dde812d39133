//! Measures a run from Parquet to Parquet without a database.
//!
//! | as in a backfill | without |
//! |---|---|
//! | rows are read and cut into micro-batches, in as many ranges at a time as units | positions, epochs, versions: each row is a document |
//! | the task graph and the model host evaluate several batches of a range at a time | reuse of earlier results, passages of other documents |
//! | each batch becomes a Parquet file with lineage, written whole and synced | the commit of rows, vectors, dead letters and events |

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, unfold};
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::{check_configured, engine};
use crate::checkpoint::PartitionClaim;
use crate::config::{Config, DatasetConfig};
use crate::demo::defaults::with_models;
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder};
use crate::failure::Transient;
use crate::jobs::{INPUT, InputFiles, needs};
use crate::metrics::{METRICS, peak_resident_bytes};
use crate::outcome::{Lineage, Outcome};
use crate::pipeline::definition::Definition;
use crate::pipeline::graph::{Graph, NoKnownResults};
use crate::pipeline::{BATCHES_AT_A_TIME, Batcher, MicroBatch, RecordOutcome, parquet_rows};
use crate::record::Partition;
use crate::sink::Dataset;
use crate::source::{Archive, InFlight, RowRange};

/// What every batch needs.
struct ParquetRun {
    definition: Definition,
    decoder: Decoder,
    graph: Graph,
    tasks: Vec<Arc<str>>,
    lineages: Vec<Lineage>,
    output: Dataset,
    in_flight_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    records: u64,
    dead: u64,
    files: u64,
    rows: i64,
    bytes: i64,
}

/// Runs the pipeline over the rows of `input` and writes the results to `output`.
pub(super) async fn measure(mut config: Config, pipeline: &Path, input: &Path, output: &Path) -> Result<Value> {
    let mut definition = Definition::load(pipeline)?;
    definition.source.document = definition.source.document.in_json();
    if !definition.models().is_empty() {
        with_models(&mut config).await?;
    }
    check_configured(&config, &definition, Some(output))?;
    let input = InputFiles::find(&[input.display().to_string()])?;
    let archive = Archive::open(INPUT, &DatasetConfig::local(&input.folder))?;
    let engine = engine(config.clone(), std::slice::from_ref(&definition)).await?;
    let graph = Graph::build(&definition, &engine).await?;
    let run = Arc::new(ParquetRun {
        decoder: Decoder::new(&definition.source.document)?,
        tasks: graph.tasks().cloned().collect(),
        lineages: graph.lineages(),
        graph,
        output: Dataset::open("output", output).with_context(|| format!("cannot write to {}", output.display()))?,
        in_flight_bytes: config.limits.in_flight_bytes,
        definition,
    });
    let (before, started) = (engine.stats(), Instant::now());
    let mut counts = Counts::default();
    for key in &input.keys {
        let ranges = ranges(&archive, key, &run.definition, config.jobs.units_at_a_time.max(1)).await?;
        let mut range_tasks = JoinSet::new();
        for range in ranges {
            range_tasks.spawn(run.clone().run_range(archive.clone(), range));
        }
        while let Some(counted) = range_tasks.join_next().await {
            counts.add(counted??);
        }
    }
    let (after, seconds) = (engine.stats(), started.elapsed().as_secs_f64());
    ensure!(counts.records > 0, "the input has no rows");
    Ok(json!({
        "documents": counts.records,
        "documents_per_second": counts.records as f64 / seconds,
        "dead": counts.dead,
        "files": counts.files,
        "rows_written": counts.rows,
        "bytes_written": counts.bytes,
        "tokens": after.tokens - before.tokens,
        "tokens_per_second": (after.tokens - before.tokens) as f64 / seconds,
        "device": config.engine.device.to_string(),
        "device_busy_share": (after.busy - before.busy).as_secs_f64() / seconds,
        "elapsed_seconds": seconds,
        "ledger": false,
        "peak_rss_bytes": peak_resident_bytes(),
    }))
}

/// The rows of the file in `count` ranges of about the same length.
async fn ranges(archive: &Archive, key: &str, definition: &Definition, count: usize) -> Result<Vec<RowRange>> {
    let needs = needs(definition);
    let file = archive.file(key).await?;
    let rows = archive.layout(&file, &needs).await?.rows();
    let bound = |index: usize| rows * index as i64 / count as i64;
    let range = |index: usize| RowRange {
        file: file.clone(),
        partition: Partition { topic: definition.source.topic.as_str().into(), number: index as i32 },
        from: bound(index),
        to: bound(index + 1),
        wanted: None,
        window: None,
        needs: needs.clone(),
    };
    Ok((0..count).map(range).filter(|range| range.from < range.to).collect())
}

impl ParquetRun {
    /// Reads the range ahead of the batches under way, as a unit of a backfill does.
    async fn run_range(self: Arc<Self>, archive: Archive, range: RowRange) -> Result<Counts> {
        let budget = self.definition.budget.clone();
        let gauge = METRICS.in_flight_bytes.with_label_values(&["@units"]);
        let in_flight = InFlight::new(self.in_flight_bytes, gauge).with_limit(budget.of(BATCHES_AT_A_TIME + 1));
        let (records, receiver) = unbounded_channel();
        let claim = PartitionClaim { partition: range.partition.clone(), epoch: 0, next_offset: range.from };
        let reader = tokio::spawn(async move { archive.deliver(&range, &records, &in_flight, &|| false).await });
        let batches = unfold(Batcher::new(claim, receiver, budget, None), async |mut batcher| {
            let batch = batcher.next(false).await?;
            Some((batch, batcher))
        });
        let run_batch = |batch: MicroBatch| tokio::spawn(self.clone().run_batch(batch));
        let mut done = std::pin::pin!(batches.map(run_batch).buffered(BATCHES_AT_A_TIME));
        let mut counts = Counts::default();
        while let Some(counted) = done.next().await {
            counts.add(counted??);
        }
        reader.await??;
        Ok(counts)
    }

    /// Evaluates a batch and writes its file.
    async fn run_batch(self: Arc<Self>, batch: MicroBatch) -> Result<Counts, Transient> {
        let record_outcomes = self.record_outcomes(&batch).await?;
        let rows = parquet_rows(&batch, &record_outcomes, &self.tasks, &self.lineages);
        let mut counts = Counts { records: record_outcomes.len() as u64, dead: dead(&record_outcomes), ..Counts::default() };
        if !rows.is_empty() {
            let path = self.output.path(&self.definition.name, &batch.delta);
            let file = tokio::task::block_in_place(|| self.output.write(&path, Uuid::now_v7(), &rows))?;
            counts.add(Counts { files: 1, rows: file.rows, bytes: file.bytes, ..Counts::default() });
        }
        Ok(counts)
    }

    async fn record_outcomes(&self, batch: &MicroBatch) -> Result<Vec<RecordOutcome>, Transient> {
        let mut record_outcomes = Vec::with_capacity(batch.records.len());
        let (mut places, mut documents) = (Vec::new(), Vec::new());
        for (place, record) in batch.records.iter().enumerate() {
            record_outcomes.push(match self.decoder.decode(record, &Schemas::none()) {
                Ok(DecodedRecord::Document(document)) => {
                    places.push(place);
                    documents.push(document);
                    RecordOutcome::Superseded
                }
                Ok(DecodedRecord::Tombstone { id, version }) => {
                    RecordOutcome::Deleted { id, version, any_version: version.is_none() }
                }
                Err(poison) => RecordOutcome::Dead(poison),
            });
        }
        let outcomes = self.graph.evaluate(&documents, &NoKnownResults).await?;
        for ((place, document), outcomes) in places.into_iter().zip(documents).zip(outcomes) {
            record_outcomes[place] = RecordOutcome::Document(document, outcomes);
        }
        Ok(record_outcomes)
    }
}

/// The number of records and outputs that would be dead letters.
fn dead(record_outcomes: &[RecordOutcome]) -> u64 {
    let count = |record_outcome: &RecordOutcome| match record_outcome {
        RecordOutcome::Dead(_) => 1,
        RecordOutcome::Document(_, outcomes) => outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Dead(_))).count(),
        RecordOutcome::Superseded | RecordOutcome::SupersededDelete { .. } | RecordOutcome::Deleted { .. } => 0,
    };
    record_outcomes.iter().map(count).sum::<usize>() as u64
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.dead += other.dead;
        self.files += other.files;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}
