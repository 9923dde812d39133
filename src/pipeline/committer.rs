//! A batch with its fates becomes a committed batch: stage the file, commit, and try again for as long as the world is to blame.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio::time::sleep;
use uuid::Uuid;

use super::batcher::MicroBatch;
use super::copy::CopySettings;
use super::evaluator::RecordOutcome;
use super::leads::LeadSettings;
use super::submission::{self, SubmissionBuilder};
use crate::failure::{Component, Tolerance, Transient};
use crate::health::Health;
use crate::metrics::METRICS;
use crate::outcome::{EmbeddingSet, Lineage};
use crate::prompt::PromptVersion;
use crate::sink::Dataset;
use crate::store::{CommitError, StagedFile, Store, Submission};

/// Commits the batches of one pipeline.
pub struct Committer {
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// The names of its tasks, in the order of outcomes.
    pub tasks: Vec<Arc<str>>,
    /// The ledger.
    pub store: Store,
    /// Where Parquet files go, if anywhere.
    pub dataset: Option<Dataset>,
    /// The topic of results, if any.
    pub results_topic: Option<String>,
    /// The topic of dead letters, if any.
    pub dead_letter_topic: Option<String>,
    /// Where the outputs of each task come from.
    pub lineages: Vec<Lineage>,
    /// The prompts among that.
    pub prompts: Vec<PromptVersion>,
    /// Set once they are kept, which is before the first result that names one.
    pub prompts_kept: OnceCell<()>,
    /// Told what is out of order.
    pub health: Health,
    /// How many dead letters the pipeline bears.
    pub tolerance: Tolerance,
    /// What makes copy of the outputs of a task, if anything.
    pub catalogue: Option<CopySettings>,
    /// Whether commits without dead letters count those of the last records, too: while there are any, and until it is known.
    pub wary: AtomicBool,
    /// How documents become leads, if they do.
    pub leads: Option<LeadSettings>,
    /// Ids of vector spaces met so far.
    pub embedding_sets: Mutex<HashMap<Arc<EmbeddingSet>, i32>>,
}

/// Why a batch was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitRefusal {
    /// Someone else owns the partition: the batch is theirs to do.
    Fenced,
    /// The pipeline is stopped: the batch is read again once it is resumed.
    Stopped,
    /// What was to be kept has changed: evaluate the batch again.
    Stale,
}

/// The pause after a first failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// Pauses that grow while something stays out of order.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_BACKOFF)
    }
}

impl Backoff {
    /// Reports the failure and waits.
    pub async fn after(&mut self, failure: &Transient, health: &Health) {
        METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
        health.blame(failure);
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LAST_BACKOFF);
    }
}

impl Committer {
    /// Commits the batch, however long that takes. To be run in a task that nobody cancels.
    ///
    /// # Errors
    /// Where the batch must not be committed as it is.
    pub async fn commit(&self, batch: &MicroBatch, record_outcomes: &[RecordOutcome]) -> Result<(), CommitRefusal> {
        tidemill_base::failpoint!("commit-before-stage", |_| std::process::abort());
        let started = Instant::now();
        let id = Uuid::now_v7();
        let mut staged = None;
        let mut backoff = Backoff::default();
        let submission = loop {
            match self.attempt(id, batch, record_outcomes, &mut staged).await {
                Ok(submission) => break submission,
                Err(CommitError::Fenced) => {
                    METRICS.fenced.with_label_values(&[&self.pipeline]).inc();
                    return Err(CommitRefusal::Fenced);
                }
                Err(CommitError::Stopped) => return Err(CommitRefusal::Stopped),
                Err(CommitError::Stale) => return Err(CommitRefusal::Stale),
                Err(CommitError::Swept) => staged = None,
                Err(CommitError::Unavailable(failure)) => {
                    tracing::warn!(pipeline = %self.pipeline, delta = %batch.delta, %failure, "the commit is tried again");
                    backoff.after(&failure, &self.health).await;
                }
            }
        };
        tidemill_base::failpoint!("commit-after-ledger", |_| std::process::abort());
        self.health.up(Component::Database);
        METRICS.commit_seconds.with_label_values(&[&self.pipeline]).observe(started.elapsed().as_secs_f64());
        self.count(&submission);
        Ok(())
    }

    async fn attempt(
        &self,
        id: Uuid,
        batch: &MicroBatch,
        record_outcomes: &[RecordOutcome],
        staged: &mut Option<StagedFile>,
    ) -> Result<Submission, CommitError> {
        let sets = self.embedding_sets(record_outcomes).await?;
        self.prompts_kept.get_or_try_init(|| self.store.keep_prompts(&self.prompts)).await?;
        let ledgering = SubmissionBuilder {
            pipeline: &self.pipeline,
            tasks: &self.tasks,
            lineages: &self.lineages,
            results_topic: self.results_topic.as_deref(),
            dead_letter_topic: self.dead_letter_topic.as_deref(),
            catalogue: self.catalogue.as_ref(),
            embedding_sets: &sets,
            leads: self.leads.as_ref(),
        };
        let mut submission = ledgering.submission(id, batch, record_outcomes);
        if staged.is_none() {
            *staged = self.stage(id, batch, record_outcomes).await?;
        }
        submission.batch.parquet_rows = staged.as_ref().map_or(0, |file| file.rows as i32);
        submission.file = staged.clone();
        let counts = !submission.dead_letters.is_empty() || self.wary.load(Ordering::Relaxed);
        submission.tolerance = counts.then_some(self.tolerance);
        match self.store.commit(&submission).await {
            Ok(ledgered) => {
                if ledgered.superseded > 0 {
                    tracing::debug!(delta = %batch.delta, documents = ledgered.superseded, "newer versions were committed meanwhile");
                }
                if counts {
                    self.wary.store(ledgered.faults, Ordering::Relaxed);
                }
                if let Some(stop) = ledgered.stop {
                    tracing::error!(pipeline = %self.pipeline, reason = stop.reason, "the pipeline stops");
                }
                Ok(submission)
            }
            // The reply may have been lost, not the commit: by the fence alone, our own success looks like another's.
            Err(error @ (CommitError::Unavailable(_) | CommitError::Fenced | CommitError::Stopped)) => {
                match self.store.is_committed(id).await? {
                    true => Ok(submission),
                    false => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn stage(
        &self,
        id: Uuid,
        batch: &MicroBatch,
        record_outcomes: &[RecordOutcome],
    ) -> Result<Option<StagedFile>, Transient> {
        let Some(dataset) = &self.dataset else { return Ok(None) };
        let rows = submission::parquet_rows(batch, record_outcomes, &self.tasks, &self.lineages);
        if rows.is_empty() {
            return Ok(None);
        }
        let path = dataset.path(&self.pipeline, &batch.delta);
        self.store.announce_file(&path.display().to_string(), dataset.name(), &self.pipeline, id).await?;
        tidemill_base::failpoint!("commit-after-announce", |_| std::process::abort());
        // Encoding and syncing take milliseconds to tens of them, which other tasks of this thread must not wait for.
        let file = tokio::task::block_in_place(|| dataset.write(&path, id, &rows))?;
        self.health.up(Component::Storage);
        tidemill_base::failpoint!("commit-after-stage", |_| std::process::abort());
        Ok(Some(file))
    }

    async fn embedding_sets(&self, record_outcomes: &[RecordOutcome]) -> Result<HashMap<Arc<EmbeddingSet>, i32>, Transient> {
        let mut sets = self.embedding_sets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for set in submission::embedding_sets(record_outcomes) {
            if !sets.contains_key(set) {
                let id = self.store.embedding_set(set).await?;
                sets.insert(set.clone(), id);
                self.embedding_sets.lock().unwrap_or_else(PoisonError::into_inner).insert(set.clone(), id);
            }
        }
        Ok(sets)
    }

    fn count(&self, submission: &Submission) {
        let pipeline = &*self.pipeline;
        METRICS.batches.with_label_values(&[pipeline]).inc();
        for usage in &submission.usage {
            for (outcome, count) in [("ok", usage.ok), ("reused", usage.reused), ("skipped", usage.skipped), ("dead", usage.dead)]
            {
                METRICS.units.with_label_values(&[pipeline, outcome]).inc_by(count as u64);
            }
        }
        for letter in &submission.dead_letters {
            METRICS.dead_letters.with_label_values(&[pipeline, letter.class]).inc();
        }
        let partition = &submission.batch.delta.partition;
        METRICS
            .last_progress
            .with_label_values(&[pipeline, &partition.topic, &partition.number.to_string()])
            .set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
    }
}
