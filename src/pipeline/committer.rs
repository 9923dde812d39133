//! Commits an evaluated batch: stages its Parquet file, commits to the ledger, and retries while a component is unavailable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::OnceCell;
use uuid::Uuid;

use super::backoff::Backoff;
use super::batch::MicroBatch;
use super::copy::CopySettings;
use super::leads::LeadSettings;
use super::record_outcome::RecordOutcome;
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
    pub pipeline: Arc<str>,
    /// The names of its tasks, in the order of outcomes.
    pub tasks: Vec<Arc<str>>,
    pub store: Store,
    /// Where Parquet files are written, if anywhere.
    pub dataset: Option<Dataset>,
    pub results_topic: Option<String>,
    pub dead_letter_topic: Option<String>,
    /// Model and prompt of each task's outputs.
    pub lineages: Vec<Lineage>,
    /// The prompts among the lineages.
    pub prompts: Vec<PromptVersion>,
    /// Set once the prompts are stored, which happens before the first result that names one.
    pub prompts_kept: OnceCell<()>,
    /// Is told which components are unavailable.
    pub health: Health,
    /// How many dead letters the pipeline tolerates before it stops.
    pub tolerance: Tolerance,
    pub copy: Option<CopySettings>,
    /// Whether a commit without dead letters still checks the tolerance: true until known otherwise, and while recent records have
    /// dead letters.
    pub checks_tolerance: AtomicBool,
    pub leads: Option<LeadSettings>,
    /// Ids of the vector spaces met so far.
    pub embedding_sets: Mutex<HashMap<Arc<EmbeddingSet>, i32>>,
}

/// Why a batch is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitRefusal {
    /// Another process owns the partition and processes its records.
    Fenced,
    /// The pipeline is stopped; the batch is read again once it is resumed.
    Stopped,
    /// A result that the batch relies on has changed; the batch must be evaluated again.
    Stale,
}

impl Committer {
    /// Commits the batch, however long that takes. Must run in a task that is never cancelled.
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
                    tracing::warn!(pipeline = %self.pipeline, delta = %batch.delta, %failure, "the commit is retried");
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
        let builder = SubmissionBuilder {
            pipeline: &self.pipeline,
            tasks: &self.tasks,
            lineages: &self.lineages,
            results_topic: self.results_topic.as_deref(),
            dead_letter_topic: self.dead_letter_topic.as_deref(),
            copy: self.copy.as_ref(),
            embedding_sets: &sets,
            leads: self.leads.as_ref(),
        };
        let mut submission = builder.submission(id, batch, record_outcomes);
        if staged.is_none() {
            *staged = self.stage(id, batch, record_outcomes).await?;
        }
        submission.batch.parquet_rows = staged.as_ref().map_or(0, |file| file.rows as i32);
        submission.file = staged.clone();
        let checks = !submission.dead_letters.is_empty() || self.checks_tolerance.load(Ordering::Relaxed);
        submission.tolerance = checks.then_some(self.tolerance);
        match self.store.commit(&submission).await {
            Ok(committed) => {
                if committed.superseded > 0 {
                    tracing::debug!(delta = %batch.delta, documents = committed.superseded, "newer versions were committed first");
                }
                if checks {
                    self.checks_tolerance.store(committed.faults, Ordering::Relaxed);
                }
                if let Some(stop) = committed.stop {
                    tracing::error!(pipeline = %self.pipeline, reason = stop.reason, "the pipeline stops");
                }
                Ok(submission)
            }
            // The commit may have succeeded and only its reply been lost. The fence alone cannot tell that from another owner's
            // commit.
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
        // Encoding and syncing take up to tens of milliseconds, for which other tasks of this thread must not wait.
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
        for dead_letter in &submission.dead_letters {
            METRICS.dead_letters.with_label_values(&[pipeline, dead_letter.class]).inc();
        }
        let partition = &submission.batch.delta.partition;
        METRICS
            .last_progress
            .with_label_values(&[pipeline, &partition.topic, &partition.number.to_string()])
            .set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
    }
}
