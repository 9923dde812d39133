//! Splits a job into units of about a minute of work each. Units are small enough that repeating one, or letting one wait behind
//! live records, does not matter, and large enough that publishing them costs next to nothing.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::evaluate::is_comparable;
use super::job_pipeline::JobPipeline;
use super::source::{EvaluationTarget, UnitSource};
use super::spec::{JobKind, JobSpec, Rows};
use crate::did_you_mean::suggestion;
use crate::document::Format;
use crate::failure::Transient;
use crate::outcome::Lineage;
use crate::source::{Archive, ArchiveError, ArchiveFile};
use crate::store::{NewUnit, Store, UnitFault};
use crate::task::TaskSpec;

/// Why a job cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The job is wrong as it is.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// Rows of a unit while the pipeline's throughput is unknown.
const ROWS: i64 = 2_000;
/// The fewest rows of a unit.
const FEWEST: i64 = 100;
/// The most rows of a unit, whose numbers are held in memory.
const MOST: i64 = 100_000;
/// Documents of a unit that reads them from the ledger. Their ids are stored in the unit's row.
const IDS: usize = 500;

/// Plans the jobs of one pipeline.
pub(super) struct Planner<'a> {
    pub store: &'a Store,
    pub job_pipeline: &'a JobPipeline,
    pub archive: Option<&'a Archive>,
    /// The planned seconds of a unit.
    pub unit_seconds: u64,
    /// When the job was created.
    pub created_ms: i64,
}

/// The units of a job.
#[derive(Debug, Default)]
pub(super) struct JobPlan {
    pub units: Vec<NewUnit>,
    /// Ids of units that will fail because their files cannot be opened, and why.
    pub faults: Vec<(String, UnitFault)>,
}

impl Planner<'_> {
    /// The units of the job; none where there is nothing to do.
    pub(super) async fn units(&self, spec: &JobSpec) -> Result<Vec<NewUnit>, PlanError> {
        self.plan(spec).await.map(|plan| plan.units)
    }

    /// The units of the job, including those that will fail.
    pub(super) async fn plan(&self, spec: &JobSpec) -> Result<JobPlan, PlanError> {
        let units = match &spec.kind {
            JobKind::Backfill(rows) => return self.rows(&spec.id, rows, None).await,
            JobKind::Evaluate { rows, task, expected } => {
                self.check_task(task)?;
                self.check_comparable(task)?;
                let target = EvaluationTarget { task: task.clone(), expected: expected.clone() };
                return self.rows(&spec.id, rows, Some(target)).await;
            }
            JobKind::Rerun { tasks } => {
                for task in tasks {
                    self.check_task(task)?;
                }
                self.outdated(&spec.id, |task, _| tasks.is_empty() || tasks.iter().any(|t| t == task)).await?
            }
            JobKind::Reembed => self.outdated(&spec.id, |_, spec| matches!(spec, TaskSpec::Embed(_))).await?,
            JobKind::Delete { documents } => {
                let units =
                    documents.chunks(IDS).map(|ids| UnitSource::Deletes { documents: ids.to_vec(), at_ms: self.created_ms });
                units.zip(0..).map(|(source, number)| whole(&spec.id, source, number)).collect()
            }
        };
        Ok(JobPlan { units, faults: Vec::new() })
    }

    fn check_task(&self, task: &str) -> Result<(), PlanError> {
        let known = || self.job_pipeline.definition.tasks.iter().map(|task| &*task.name);
        if known().any(|known| known == task) {
            return Ok(());
        }
        let (name, near) = (&self.job_pipeline.definition.name, suggestion(task, known()));
        Err(PlanError::Refused(format!("pipeline `{name}` has no task `{task}`; {near}")))
    }

    /// Refuses to evaluate a task whose outputs cannot be compared with a column, before any model is called.
    fn check_comparable(&self, task: &str) -> Result<(), PlanError> {
        let spec = self.job_pipeline.definition.tasks.iter().find(|known| &*known.name == task).map(|known| &known.spec);
        let Some(spec) = spec.filter(|spec| !is_comparable(spec)) else { return Ok(()) };
        Err(PlanError::Refused(format!(
            "the outputs of task `{task}` (kind `{}`) cannot be compared with a column: `evaluate` compares one label or one text \
             a document; name a `classify` task, or a `render` task with a single field",
            spec.kind()
        )))
    }

    async fn rows(&self, job: &str, rows: &Rows, target: Option<EvaluationTarget>) -> Result<JobPlan, PlanError> {
        let Some(archive) = self.archive else {
            return Err(PlanError::Refused(format!("dataset `{}` is not configured", rows.dataset)));
        };
        if self.job_pipeline.definition.source.document.format == Format::Text {
            let name = &self.job_pipeline.definition.name;
            let message = format!(
                "pipeline `{name}` reads plain text, but rows are objects; use a pipeline with a source of format json or avro"
            );
            return Err(PlanError::Refused(message));
        }
        let files = archive.list(&rows.prefix).await.map_err(refused)?;
        if files.is_empty() {
            let message = format!("dataset `{}` has no Parquet file whose key starts with `{}`", rows.dataset, rows.prefix);
            return Err(PlanError::Refused(message));
        }
        self.of_files(job, rows, target.as_ref(), archive, files).await
    }

    /// Units for the wanted rows of the files. With a `target`, its task is evaluated on them.
    pub(super) async fn of_files(
        &self,
        job: &str,
        rows: &Rows,
        target: Option<&EvaluationTarget>,
        archive: &Archive,
        files: Vec<ArchiveFile>,
    ) -> Result<JobPlan, PlanError> {
        let has_versions = self.job_pipeline.definition.source.document.version.is_some();
        let (since, until) = (rows.since.map(|t| t.as_microsecond()), rows.until.map(|t| t.as_microsecond()));
        let by_file = |file: &ArchiveFile| {
            let time = file.modified_ms * 1000;
            has_versions || (since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until))
        };
        let most = self.rows_of_a_unit().await?;
        let (mut ranges, mut faults) = (Vec::new(), Vec::new());
        let mut columns: BTreeSet<String> = BTreeSet::new();
        for file in files.into_iter().filter(by_file) {
            match archive.layout(&file, &self.job_pipeline.needs).await {
                Ok(shape) => {
                    ranges.extend(cut(&shape.row_groups, most).into_iter().map(|range| (file.clone(), range)));
                    columns.extend(shape.columns);
                }
                // The file becomes a unit that fails, so that the job reports it like any other failure.
                Err(ArchiveError::Fault(fault)) => {
                    tracing::warn!(job, key = file.key, %fault, "a file cannot be planned");
                    faults.push((unit_id(job, &[&file.key, &file.version], 0, 1), fault));
                    ranges.push((file, (0, 1)));
                }
                Err(ArchiveError::Unavailable(failure)) => return Err(failure.into()),
            }
        }
        if let Some(target) = target {
            check_column(&target.expected, &columns, &rows.dataset)?;
        }
        let total: i64 = ranges.iter().map(|(_, (from, to))| to - from).sum();
        let mut chosen = rows.sample.map(|size| choose(total, size, rows.seed));
        let (mut units, mut before) = (Vec::new(), 0);
        for (file, (from, to)) in ranges {
            let wanted = chosen.as_mut().map(|chosen| take_below(chosen, before + to - from, before - from));
            before += to - from;
            let count = wanted.as_ref().map_or(to - from, |wanted| wanted.len() as i64);
            if count == 0 {
                continue;
            }
            let id = unit_id(job, &[&file.key, &file.version], from, to);
            let window = if has_versions { (since, until) } else { (None, None) };
            let source = UnitSource::Rows {
                dataset: rows.dataset.clone(),
                file,
                wanted,
                since: window.0,
                until: window.1,
                measured: target.cloned(),
            };
            units.push(NewUnit { id, source: source.to_json(), from_row: from, to_row: to, rows: count });
        }
        Ok(JobPlan { units, faults })
    }

    /// The rows of a unit, by the pipeline's recent throughput.
    async fn rows_of_a_unit(&self) -> Result<i64, Transient> {
        let (records, micros) = self.store.recent_throughput(&self.job_pipeline.definition.name).await?;
        if records == 0 || micros == 0 {
            return Ok(ROWS);
        }
        let each = micros as f64 / records as f64;
        Ok(((self.unit_seconds as f64 * 1e6 / each) as i64).clamp(FEWEST, MOST))
    }

    async fn outdated(&self, job: &str, wanted: impl Fn(&str, &TaskSpec) -> bool) -> Result<Vec<NewUnit>, PlanError> {
        let graph = self.job_pipeline.runtime.evaluator.graph();
        let lineages = graph.lineages();
        let (mut tasks, mut wanted_lineages): (Vec<String>, Vec<Lineage>) = (Vec::new(), Vec::new());
        for (name, lineage) in graph.tasks().zip(lineages) {
            let definition = self.job_pipeline.definition.tasks.iter().find(|task| task.name == *name);
            if definition.is_some_and(|task| wanted(name, &task.spec)) {
                tasks.push(name.to_string());
                wanted_lineages.push(lineage);
            }
        }
        if tasks.is_empty() {
            return Err(PlanError::Refused(format!("pipeline `{}` has no `embed` task", self.job_pipeline.definition.name)));
        }
        let (mut units, mut after) = (Vec::new(), String::new());
        loop {
            let name = &self.job_pipeline.definition.name;
            let ids = self.store.outdated_documents(name, &tasks, &wanted_lineages, &after, IDS as i64).await?;
            let Some(last) = ids.last() else { return Ok(units) };
            after = last.clone();
            units.push(whole(job, UnitSource::Documents(ids), units.len()));
        }
    }
}

/// Checks that some file has the column of expected outputs, before any model is called. Unreadable files have no known columns.
fn check_column(expected: &str, columns: &BTreeSet<String>, dataset: &str) -> Result<(), PlanError> {
    let mut roots = std::iter::once(expected).chain(expected.match_indices('.').map(|(dot, _)| &expected[..dot]));
    if columns.is_empty() || roots.any(|root| columns.contains(root)) {
        return Ok(());
    }
    let near = suggestion(expected, columns.iter().map(String::as_str));
    Err(PlanError::Refused(format!("no file of dataset `{dataset}` has a column `{expected}`, which `expected` names; {near}")))
}

/// A unit of all documents of its source.
fn whole(job: &str, source: UnitSource, number: usize) -> NewUnit {
    let rows = match &source {
        UnitSource::Documents(ids) | UnitSource::Deletes { documents: ids, .. } => ids.len() as i64,
        UnitSource::Rows { .. } => 0,
    };
    let id = unit_id(job, &[&number.to_string()], 0, rows);
    NewUnit { id, source: source.to_json(), from_row: 0, to_row: rows, rows }
}

fn unit_id(job: &str, source: &[&str], from: i64, to: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [job].iter().chain(source) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&from.to_le_bytes());
    hasher.update(&to.to_le_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Ranges of at most `most` rows. Small row groups share a range, and a large row group is cut into several.
fn cut(groups: &[i64], most: i64) -> Vec<(i64, i64)> {
    let (mut ranges, mut from, mut to) = (Vec::new(), 0, 0);
    for &rows in groups {
        if to > from && to - from + rows > most {
            ranges.push((from, to));
            from = to;
        }
        let end = to + rows;
        while end - from > most {
            ranges.push((from, from + most));
            from += most;
        }
        to = end;
    }
    if to > from {
        ranges.push((from, to));
    }
    ranges
}

/// A random choice of `size` numbers below `total`, the greatest first. The same seed gives the same choice.
pub(super) fn choose(total: i64, size: usize, seed: u64) -> Vec<i64> {
    let total = total.max(0) as usize;
    let chosen = sample(&mut StdRng::seed_from_u64(seed), total, size.min(total));
    let mut chosen: Vec<i64> = chosen.into_iter().map(|row| row as i64).collect();
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    chosen
}

/// Removes the numbers below `limit` from the end, and returns them with `offset` subtracted, as row numbers of their file.
pub(super) fn take_below(chosen: &mut Vec<i64>, limit: i64, offset: i64) -> Vec<i64> {
    let mut taken = Vec::new();
    while chosen.last().is_some_and(|row| *row < limit) {
        taken.extend(chosen.pop().map(|row| row - offset));
    }
    taken
}

fn refused(error: ArchiveError) -> PlanError {
    match error {
        ArchiveError::Fault(fault) => PlanError::Refused(fault.reason),
        ArchiveError::Unavailable(failure) => PlanError::Unavailable(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_no_file_has_is_refused_by_its_name() {
        let columns = BTreeSet::from(["label".to_owned(), "about".to_owned()]);
        for expected in ["label", "about.topic", "about.topic.name"] {
            assert!(check_column(expected, &columns, "d").is_ok(), "{expected}");
        }
        let refused = check_column("labl", &columns, "d").unwrap_err().to_string();
        assert_eq!(refused, "no file of dataset `d` has a column `labl`, which `expected` names; did you mean `label`?");
        assert!(check_column("topic.about", &columns, "d").is_err());
        assert!(check_column("labl", &BTreeSet::new(), "d").is_ok(), "no file could be read, which is said of each");
    }

    #[test]
    fn ranges_tile_the_rows_and_stay_within_a_unit() {
        assert_eq!(cut(&[10, 10, 10], 25), [(0, 20), (20, 30)]);
        assert_eq!(cut(&[100], 40), [(0, 40), (40, 80), (80, 100)]);
        assert_eq!(cut(&[5, 100, 5], 40), [(0, 5), (5, 45), (45, 85), (85, 110)]);
        assert_eq!(cut(&[0, 0], 40), []);
        for groups in [vec![1, 2, 3, 500, 7], vec![40, 40, 40], vec![41], vec![0, 39, 2, 0, 80]] {
            let ranges = cut(&groups, 40);
            let mut next = 0;
            for (from, to) in ranges {
                assert!(from == next && to > from && to - from <= 40, "{from}..{to} of {groups:?}");
                next = to;
            }
            assert_eq!(next, groups.iter().sum::<i64>());
        }
    }

    #[test]
    fn a_sample_is_decided_by_its_seed_and_spread_over_the_units() {
        let mut chosen = choose(1_000, 100, 7);
        assert_eq!(chosen, choose(1_000, 100, 7));
        assert_ne!(chosen, choose(1_000, 100, 8));
        let first = take_below(&mut chosen, 500, 0);
        let second = take_below(&mut chosen, 1_000, 500);
        assert_eq!(first.len() + second.len(), 100);
        assert!(first.is_sorted() && second.is_sorted() && first.iter().chain(&second).all(|row| (0..500).contains(row)));
        assert_eq!(choose(5, 100, 1).len(), 5, "no more than there are");
    }

    #[test]
    fn a_units_id_depends_on_everything_that_it_reads() {
        let id = unit_id("job", &["key", "version"], 0, 10);
        for other in [
            unit_id("job2", &["key", "version"], 0, 10),
            unit_id("job", &["keyv", "ersion"], 0, 10),
            unit_id("job", &["key", "version"], 0, 11),
        ] {
            assert_ne!(id, other);
        }
    }
}
