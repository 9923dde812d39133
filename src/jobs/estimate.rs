//! Predicts the cost of a job before it runs.
//!
//! Some rows of the job, chosen at random from all of its files, are evaluated with their models, and nothing is committed. Their
//! cost is extrapolated to all rows; `interval.rs` computes the confidence intervals.
//!
//! | the row's document | the row's expected cost |
//! |---|---|
//! | occurs in no other row of the job | what the evaluation cost |
//! | occurs in `m` rows of the job | the `m`-th part, because one of them is computed and the others are reused |
//! | has results in the ledger | nothing, because they are reused |
//!
//! Jobs of kind `evaluate` reuse nothing, neither from the ledger nor from other rows, so that each row costs what its evaluation
//! cost.
//!
//! A sample cannot show how often a document occurs, so the job's rows are read to count that, without calling a model: all of them
//! up to [`READ`]; of larger jobs only some units, from which the counts are extrapolated. The predicted time is that of evaluation
//! on this machine, one batch after the other. Writing the results takes further time, and a fleet divides the time among its
//! processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use futures::future::join;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::interval::{Bootstrap, ConfidenceInterval, FigureRange};
use super::job_pipeline::JobPipeline;
use super::plan::{PlanError, Planner, choose, take_below};
use super::row_cost::{ContentHash, ContentHasher, EvaluatedRow, RowCost, device_micros, row_costs};
use super::source::{RecordSender, UnitSource, deliver};
use super::spec::{JobKind, JobSpec};
use crate::checkpoint::PartitionClaim;
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder};
use crate::metrics::METRICS;
use crate::pipeline::Batcher;
use crate::record::Partition;
use crate::source::{Archive, ArchiveError, Delivery, InFlight};
use crate::store::{NewUnit, Store, UnitFault, UnitRow};

/// Predicts the cost of jobs of one pipeline.
pub struct Estimator<'a> {
    /// The ledger, which is only read.
    pub store: &'a Store,
    pub job_pipeline: &'a JobPipeline,
    /// The job's dataset, if it has one.
    pub archive: Option<&'a Archive>,
    /// The planned seconds of a unit.
    pub unit_seconds: u64,
    pub price_per_device_hour: Option<f64>,
}

/// Which rows are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    pub size: usize,
    /// Seeds the choice of rows and the bootstrap.
    pub seed: u64,
}

/// The predicted cost of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    pub job: String,
    pub pipeline: String,
    pub units: usize,
    pub rows: i64,
    /// Files that cannot be read, and why. The prediction leaves them out.
    pub faults: Vec<String>,
    /// Rows that were evaluated.
    pub sampled: usize,
    pub seed: u64,
    /// The share of the rows that was read to count equal documents.
    pub read_share: f64,
    /// Rows with a document.
    pub documents: ConfidenceInterval,
    /// Tokens that models read.
    pub tokens: ConfidenceInterval,
    /// Tokens that models write.
    pub generated_tokens: ConfidenceInterval,
    pub device_seconds: ConfidenceInterval,
    /// The time of the evaluation on this machine.
    pub wall_seconds: ConfidenceInterval,
    /// The price of the device time, where an hour has a price.
    pub cost: Option<ConfidenceInterval>,
    /// The share of task outputs that are reused.
    pub reused_share: ConfidenceInterval,
    /// The share of task outputs that become dead letters.
    pub dead_share: ConfidenceInterval,
    pub dead_letters: ConfidenceInterval,
    /// Dead letters of each class that occurs in the sample.
    pub dead_letters_by_class: BTreeMap<&'static str, ConfidenceInterval>,
    pub limits: Vec<LimitEstimate>,
}

/// A limit of the job, and how much of the job it cuts off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LimitEstimate {
    /// `budget` or `deadline`.
    pub limit: &'static str,
    /// The allowed seconds: device time for a budget, time from now for a deadline.
    pub allows_seconds: f64,
    /// The seconds that the whole job needs.
    pub needs_seconds: ConfidenceInterval,
    /// Documents that are not processed when the limit is reached.
    pub documents_left: ConfidenceInterval,
}

/// About how many rows are read to count equal documents, which takes about a minute.
pub const READ: i64 = 200_000;
/// Bytes of rows that are read ahead.
const AHEAD: usize = 8 << 20;

impl Estimator<'_> {
    /// Evaluates the sample and predicts the whole job.
    ///
    /// # Errors
    /// Where the job cannot be planned, or the ledger, the dataset or a model is unavailable.
    pub async fn estimate(&self, spec: &JobSpec, sampling: Sampling) -> Result<Estimate, PlanError> {
        if matches!(spec.kind, JobKind::Delete { .. }) {
            return Err(PlanError::Refused("a job of kind delete calls no model, so there is nothing to predict".into()));
        }
        let budget = spec.budget_micros(self.price_per_device_hour).map_err(|e| PlanError::Refused(e.0))?;
        let now = Timestamp::now();
        let planner = Planner {
            store: self.store,
            job_pipeline: self.job_pipeline,
            archive: self.archive,
            unit_seconds: self.unit_seconds,
            created_ms: now.as_millisecond(),
        };
        let plan = planner.plan(spec).await?;
        let units = plan.units.len();
        let is_readable = |unit: &NewUnit| !plan.faults.iter().any(|(id, _)| *id == unit.id);
        let readable: Vec<UnitRow> =
            plan.units.iter().filter(|unit| is_readable(unit)).zip(0..).map(|(unit, n)| self.row(spec, unit, n)).collect();
        let counts: Vec<i64> = plan.units.iter().filter(|unit| is_readable(unit)).map(|unit| unit.rows).collect();
        let mut faults: Vec<String> = plan.faults.iter().map(|(_, fault)| fault.to_string()).collect();
        let rows: i64 = counts.iter().sum();
        let chosen = choose(rows, sampling.size, sampling.seed);
        let sampled = chosen.len();
        let parts = spread(&readable, &counts, chosen)?;
        let afresh = matches!(spec.kind, JobKind::Evaluate { .. });
        let evaluated = self.run(&readable, parts, afresh, &mut faults).await?;
        let contents = ContentHasher::new(&self.job_pipeline.definition);
        let (copies, read_share) = match afresh {
            true => (HashMap::new(), 0.0),
            false => self.copies(&readable, &counts, &evaluated, &contents, sampling.seed).await?,
        };
        let costs = row_costs(&evaluated, &copies, &contents, sampled);
        let bootstrap = Bootstrap::new(sampled, rows, sampling.seed);
        let column = |figure: fn(&RowCost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
        let weights = column(|row| row.counts);
        let documents = bootstrap.sum(&column(|row| row.document), FigureRange::Share);
        let device_seconds = bootstrap.sum(&column(|row| row.cost[2] / 1e6), FigureRange::Amount);
        let wall_seconds = bootstrap.sum(&column(|row| row.wall), FigureRange::Amount);
        let classes: BTreeSet<&'static str> = costs.iter().flat_map(|row| row.dead_letters.keys().copied()).collect();
        let of_class = |class: &'static str| {
            let figures: Vec<f64> = costs.iter().map(|row| row.dead_letters.get(class).copied().unwrap_or(0.0)).collect();
            (class, bootstrap.sum(&figures, FigureRange::Amount))
        };
        let limit =
            |limit, allows: Option<f64>, needs: ConfidenceInterval| Some(LimitEstimate::of(limit, allows?, needs, documents));
        let until_deadline = spec.deadline.map(|end| (end.as_millisecond() - now.as_millisecond()).max(0) as f64 / 1e3);
        let limits = [
            limit("budget", budget.map(|micros| micros as f64 / 1e6), device_seconds),
            limit("deadline", until_deadline, wall_seconds),
        ];
        Ok(Estimate {
            job: spec.id.clone(),
            pipeline: spec.pipeline.clone(),
            units,
            rows,
            faults,
            sampled,
            seed: sampling.seed,
            read_share,
            documents,
            tokens: bootstrap.sum(&column(|row| row.cost[0]), FigureRange::Amount),
            generated_tokens: bootstrap.sum(&column(|row| row.cost[1]), FigureRange::Amount),
            device_seconds,
            wall_seconds,
            cost: self.price_per_device_hour.map(|price| device_seconds.times(price / 3600.0)),
            reused_share: bootstrap.ratio(&column(|row| row.reused), &weights, FigureRange::Share),
            dead_share: bootstrap.ratio(&column(|row| row.dead), &weights, FigureRange::Share),
            dead_letters: bootstrap.sum(&column(|row| row.dead_letters.values().sum()), FigureRange::Share),
            dead_letters_by_class: classes.into_iter().map(of_class).collect(),
            limits: limits.into_iter().flatten().collect(),
        })
    }

    /// The planned unit as the ledger would store it.
    fn row(&self, spec: &JobSpec, unit: &NewUnit, ordinal: i32) -> UnitRow {
        UnitRow {
            id: unit.id.clone(),
            job_id: spec.id.clone(),
            pipeline: spec.pipeline.clone(),
            ordinal,
            topic: "plan".into(),
            source: unit.source.clone(),
            from_row: unit.from_row,
            to_row: unit.to_row,
            waits: true,
        }
    }

    /// Evaluates the chosen rows of each unit, in batches like those of the pipeline. Rows that are left out because of their time
    /// are missing in the result.
    async fn run(
        &self,
        units: &[UnitRow],
        parts: Vec<(usize, UnitRow)>,
        afresh: bool,
        faults: &mut Vec<String>,
    ) -> Result<Vec<EvaluatedRow>, PlanError> {
        let (records, receiver) = unbounded_channel();
        let mut places = HashMap::new();
        for (unit, part) in &parts {
            places.insert(units[*unit].ordinal, *unit);
            let (sender, mut delivered) = unbounded_channel();
            // The sample is small enough to be held in memory as a whole.
            match self.read(part, sender, usize::MAX).await {
                Ok(()) => {}
                Err(ArchiveError::Fault(fault)) => faults.push(fault.to_string()),
                Err(ArchiveError::Unavailable(failure)) => return Err(failure.into()),
            }
            while let Ok(delivery) = delivered.try_recv() {
                // The receiver lives in this function.
                let _ = records.send(delivery);
            }
        }
        drop(records);
        let claim = PartitionClaim { partition: Partition { topic: "plan".into(), number: 0 }, epoch: 0, next_offset: 0 };
        let mut batcher = Batcher::new(claim, receiver, self.job_pipeline.definition.budget.clone(), None);
        let mut evaluated = Vec::new();
        while let Some(batch) = batcher.next(false).await {
            let started = Instant::now();
            let evaluator = &self.job_pipeline.runtime.evaluator;
            let outcomes = match afresh {
                true => evaluator.evaluate_afresh(&batch.records).await?,
                false => evaluator.evaluate(&batch).await?,
            };
            let elapsed = started.elapsed().as_secs_f64();
            // The time of the batch is divided by device time, plus a microsecond a row for rows without any.
            let shares: Vec<f64> = outcomes.iter().map(|outcome| 1.0 + device_micros(outcome)).collect();
            let sum: f64 = shares.iter().sum();
            for ((outcome, share), record) in outcomes.into_iter().zip(shares).zip(&batch.records) {
                let unit = places.get(&record.place.partition.number).copied().unwrap_or_default();
                evaluated.push(EvaluatedRow { unit, outcome, wall: elapsed * share / sum });
            }
        }
        Ok(evaluated)
    }

    async fn read(
        &self,
        unit: &UnitRow,
        records: tokio::sync::mpsc::UnboundedSender<Delivery>,
        ahead: usize,
    ) -> Result<(), ArchiveError> {
        let in_flight = InFlight::new(ahead, METRICS.in_flight_bytes.with_label_values(&["@plan"]));
        let sender = RecordSender { records, in_flight, yields: &|| false };
        deliver(self.store, self.archive, self.job_pipeline, unit, unit.from_row, sender).await
    }

    /// How many rows of the job have the content of each sampled document, and the share of the rows that was read to count that.
    async fn copies(
        &self,
        units: &[UnitRow],
        counts: &[i64],
        evaluated: &[EvaluatedRow],
        contents: &ContentHasher,
        seed: u64,
    ) -> Result<(HashMap<ContentHash, f64>, f64), PlanError> {
        let decoder = Decoder::new(&self.job_pipeline.definition.source.document);
        let decoder = decoder.map_err(|e| PlanError::Refused(format!("{e:#}")))?;
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        let (mut read, mut rows) = (vec![false; units.len()], 0);
        for unit in order {
            if rows < READ {
                read[unit] = true;
                rows += counts[unit];
            }
        }
        let documents = || evaluated.iter().filter_map(|row| Some((row.unit, row.document()?)));
        let mut found: HashMap<ContentHash, u64> = documents().map(|(_, document)| (contents.of(document), 0)).collect();
        for (unit, _) in units.iter().zip(&read).filter(|(_, read)| **read) {
            let (sender, receiver) = unbounded_channel();
            let count = count(receiver, &decoder, contents, &mut found);
            match join(self.read(unit, sender, AHEAD), count).await.0 {
                // Other problems of the file are reported when the job runs.
                Ok(()) | Err(ArchiveError::Fault(UnitFault { .. })) => {}
                Err(ArchiveError::Unavailable(failure)) => return Err(failure.into()),
            }
        }
        let total: i64 = counts.iter().sum();
        let share = if total == 0 { 1.0 } else { (rows as f64 / total as f64).min(1.0) };
        let mut copies = HashMap::new();
        for (unit, document) in documents() {
            let content = contents.of(document);
            let others = found.get(&content).copied().unwrap_or(0).saturating_sub(u64::from(read[unit])) as f64;
            copies.entry(content).or_insert(1.0 + others / share);
        }
        Ok((copies, share))
    }
}

impl LimitEstimate {
    fn of(limit: &'static str, allows: f64, needs: ConfidenceInterval, documents: ConfidenceInterval) -> Self {
        let left = |documents: f64, needs: f64| if needs > allows { documents * (1.0 - allows / needs) } else { 0.0 };
        let documents_left = ConfidenceInterval {
            expected: left(documents.expected, needs.expected),
            low: left(documents.low, needs.low),
            high: left(documents.high, needs.high),
        };
        Self { limit, allows_seconds: allows, needs_seconds: needs, documents_left }
    }
}

/// For each unit with chosen rows, its index and a unit with only these rows. `chosen` numbers the rows of all units together, the
/// greatest first.
fn spread(units: &[UnitRow], counts: &[i64], mut chosen: Vec<i64>) -> Result<Vec<(usize, UnitRow)>, PlanError> {
    let (mut parts, mut before) = (Vec::new(), 0);
    for (index, (unit, count)) in units.iter().zip(counts).enumerate() {
        let rows = take_below(&mut chosen, before + count, before);
        before += count;
        if rows.is_empty() {
            continue;
        }
        let mut part = unit.clone();
        let mut source = UnitSource::of(unit).map_err(|fault| PlanError::Refused(fault.reason))?;
        match &mut source {
            UnitSource::Rows { wanted, .. } => {
                let of =
                    |row: &i64| wanted.as_ref().map_or(Some(unit.from_row + row), |wanted| wanted.get(*row as usize).copied());
                *wanted = Some(rows.iter().filter_map(of).collect());
            }
            UnitSource::Documents(documents) | UnitSource::Deletes { documents, .. } => {
                *documents = rows.iter().filter_map(|row| documents.get(*row as usize).cloned()).collect();
                part.to_row = documents.len() as i64;
            }
        }
        part.source = source.to_json();
        parts.push((index, part));
    }
    Ok(parts)
}

async fn count(
    mut records: UnboundedReceiver<Delivery>,
    decoder: &Decoder,
    contents: &ContentHasher,
    found: &mut HashMap<ContentHash, u64>,
) {
    while let Some(Delivery { record, guard }) = records.recv().await {
        if let Ok(DecodedRecord::Document(document)) = decoder.decode(&record, &Schemas::none())
            && let Some(count) = found.get_mut(&contents.of(&document))
        {
            *count += 1;
        }
        drop(guard);
    }
}
