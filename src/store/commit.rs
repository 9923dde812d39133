//! The one transaction that commits a micro-batch.
//!
//! | step | statement | when it fails |
//! |---|---|---|
//! | 1 | compare and set the position under the epoch, unless the pipeline is stopped | fenced: another worker owns the partition; drop the batch. Stopped: drop it, too |
//! | 2 | insert the batch and its usage | |
//! | 3 | upsert documents; the greater version wins, and a delete wins over its own version | the results of documents that lose are not written |
//! | 4 | check that the results that the batch found unchanged still are | stale: evaluate the batch again |
//! | 5 | results, vectors, interactions, copy, dead letters, outbox, leads | |
//! | 6 | make the staged file live | swept: stage it again |
//! | 7 | count the dead letters among the last records | too many: the batch commits, and the pipeline is stopped |
//!
//! Every statement writes its rows in the order of document ids, so that commits of two partitions cannot deadlock.

use std::collections::HashSet;

use serde_json::Value;
use sqlx::{Acquire, PgConnection};
use uuid::Uuid;

use super::pipeline_states::{self, PipelineStop, RecentFaults};
use super::submission::{BatchRow, DocumentRow, Event, ResultRow, Submission, UsageRow};
use super::{StagedFile, Store, WithDeadline, copy, embeddings, interactions, leads, unavailable};
use tidemill_base::failure::Transient;

/// What a successful commit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOutcome {
    /// Documents of the batch that were not written, because a newer version was committed in the meantime.
    pub superseded: usize,
    /// Whether the pipeline's last records include dead letters, so that the next commit has to count them again.
    pub faults: bool,
    /// Why this commit stopped the pipeline, if it did.
    pub stop: Option<PipelineStop>,
}

/// Why a batch was not committed. Nothing of it is visible in any case.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Another claim on the partition came later, or the position is not where the batch starts.
    #[error("another worker owns the partition now")]
    Fenced,
    /// The pipeline is stopped; its positions do not move until it is resumed.
    #[error("the pipeline is stopped")]
    Stopped,
    /// A result that was to be kept has changed since it was looked up.
    #[error("a result changed between look-up and commit")]
    Stale,
    /// The staged file was marked for deletion before it could go live.
    #[error("the staged file was deleted before the commit")]
    Swept,
    /// The database is unavailable, or ended the transaction. The commit may have gone through if it was in progress.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl Store {
    /// Commits the batch, all or nothing. Run it in a task that nobody cancels.
    ///
    /// # Errors
    /// See [`CommitError`]. After [`CommitError::Unavailable`], [`Store::is_committed`] says whether the batch was committed.
    pub async fn commit(&self, submission: &Submission) -> Result<CommitOutcome, CommitError> {
        // A transaction that timed out here may still run on the server. It holds the lock on the position's row, so that the next
        // attempt waits until it has ended.
        self.connected(async |connection| commit(connection, submission).await).await
    }

    /// Whether the batch was committed: for a commit whose reply was lost.
    pub async fn is_committed(&self, batch_id: Uuid) -> Result<bool, Transient> {
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM batches WHERE id = $1) AS "committed!""#, batch_id)
            .fetch_one(&self.pool)
            .with_deadline(self.deadline)
            .await
    }
}

async fn commit(connection: &mut PgConnection, submission: &Submission) -> Result<CommitOutcome, CommitError> {
    let mut transaction = connection.begin().await.map_err(unavailable)?;
    advance(&mut transaction, &submission.batch).await?;
    let superseded = write(&mut transaction, submission).await?;
    let recent = match submission.tolerance {
        Some(tolerance) => {
            pipeline_states::check_tolerance(&mut transaction, submission, tolerance).await.map_err(unavailable)?
        }
        None => RecentFaults::default(),
    };
    tidemill_base::failpoint!("commit-before-commit", |_| std::process::abort());
    transaction.commit().await.map_err(unavailable)?;
    tidemill_base::failpoint!("commit-after-commit", |_| std::process::abort());
    tidemill_base::failpoint!("commit-reply-lost", |_| {
        let reason = "the reply to the commit was lost".to_owned();
        Err(CommitError::Unavailable(Transient::new(tidemill_base::failure::Component::Database, reason)))
    });
    Ok(CommitOutcome { superseded, faults: recent.faults, stop: recent.stop })
}

pub(super) async fn advance(connection: &mut PgConnection, batch: &BatchRow) -> Result<(), CommitError> {
    let delta = &batch.delta;
    let advanced = sqlx::query!(
        "WITH finished AS (
             DELETE FROM attempts WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND record_offset < $6
         )
         UPDATE positions SET next_offset = $6, updated_at = now()
         WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND epoch = $4 AND next_offset = $5
           AND NOT EXISTS (SELECT FROM pipeline_states s WHERE s.pipeline = $1 AND s.state = 'stopped')",
        batch.pipeline,
        &delta.partition.topic,
        delta.partition.number,
        delta.epoch,
        delta.from,
        delta.to
    )
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    tidemill_base::failpoint!("commit-after-position", |_| std::process::abort());
    match advanced.rows_affected() {
        1 => Ok(()),
        _ if pipeline_states::is_stopped(connection, &batch.pipeline).await.map_err(unavailable)? => Err(CommitError::Stopped),
        _ => Err(CommitError::Fenced),
    }
}

pub(super) async fn write(connection: &mut PgConnection, submission: &Submission) -> Result<usize, CommitError> {
    insert_batch(connection, submission).await.map_err(unavailable)?;
    let accepted = upsert_documents(connection, submission).await.map_err(unavailable)?;
    if !still_unchanged(connection, submission, &accepted).await.map_err(unavailable)? {
        return Err(CommitError::Stale);
    }
    let results: Vec<&ResultRow> = submission.results.iter().filter(|r| accepted.contains(&r.document_id)).collect();
    remove_outputs(connection, submission, &results, &accepted).await.map_err(unavailable)?;
    upsert_results(connection, submission, &results).await.map_err(unavailable)?;
    embeddings::insert(connection, &submission.batch.pipeline, &results).await.map_err(unavailable)?;
    interactions::write(connection, &submission.batch.pipeline, &results).await.map_err(unavailable)?;
    copy::write(connection, submission, &accepted).await.map_err(unavailable)?;
    tidemill_base::failpoint!("commit-after-results", |_| std::process::abort());
    insert_dead_letters(connection, submission).await.map_err(unavailable)?;
    insert_events(connection, submission, &accepted).await.map_err(unavailable)?;
    leads::write(connection, submission, &accepted).await.map_err(unavailable)?;
    if let Some(file) = &submission.file {
        publish_file(connection, file).await?;
    }
    Ok(submission.documents.len() - accepted.len())
}

async fn insert_batch(connection: &mut PgConnection, submission: &Submission) -> sqlx::Result<()> {
    let (batch, usage) = (&submission.batch, &submission.usage);
    let sum = |count: fn(&UsageRow) -> i32| usage.iter().map(count).sum::<i32>();
    let (ok, reused, skipped, dead) = (sum(|u| u.ok), sum(|u| u.reused), sum(|u| u.skipped), sum(|u| u.dead));
    sqlx::query!(
        "INSERT INTO batches (id, pipeline, topic, partition, from_offset, to_offset, epoch, records,
                              units_in, units_ok, units_reused, units_skipped, units_dead, parquet_rows)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        batch.id,
        batch.pipeline,
        &batch.delta.partition.topic,
        batch.delta.partition.number,
        batch.delta.from,
        batch.delta.to,
        batch.delta.epoch,
        batch.records,
        batch.records * usage.len() as i32,
        ok,
        reused,
        skipped,
        dead,
        batch.parquet_rows
    )
    .execute(&mut *connection)
    .await?;
    let tasks: Vec<&str> = usage.iter().map(|u| u.task.as_str()).collect();
    let column = |count: fn(&UsageRow) -> i32| usage.iter().map(count).collect::<Vec<_>>();
    let wide = |count: fn(&UsageRow) -> i64| usage.iter().map(count).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO usage (batch_id, pipeline, task, ok, reused, skipped, dead, tokens, device_micros, generated_tokens)
         SELECT $1, $2, * FROM unnest($3::text[], $4::integer[], $5::integer[], $6::integer[], $7::integer[], $8::bigint[],
                                      $9::bigint[], $10::bigint[])",
        batch.id,
        batch.pipeline,
        &tasks as &[&str],
        &column(|u| u.ok),
        &column(|u| u.reused),
        &column(|u| u.skipped),
        &column(|u| u.dead),
        &wide(|u| u.tokens),
        &wide(|u| u.device_micros),
        &wide(|u| u.generated_tokens)
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Writes the documents and returns the ids of those that won over the stored version.
async fn upsert_documents(connection: &mut PgConnection, submission: &Submission) -> sqlx::Result<HashSet<String>> {
    let mut documents: Vec<&DocumentRow> = submission.documents.iter().collect();
    documents.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<&str> = documents.iter().map(|d| d.id.as_str()).collect();
    let versions: Vec<Option<i64>> = documents.iter().map(|d| d.version).collect();
    let named =
        |holds: fn(&DocumentRow) -> bool| documents.iter().filter(|d| holds(d)).map(|d| d.id.as_str()).collect::<Vec<_>>();
    let (wins, revives) = (named(|d| d.wins), named(|d| d.revives));
    let deleted: Vec<bool> = documents.iter().map(|d| d.content.is_none()).collect();
    let texts: Vec<&str> = documents.iter().map(|d| d.content.as_ref().map_or("", |c| &*c.text)).collect();
    let metadata: Vec<&str> = documents.iter().map(|d| d.content.as_ref().map_or("{}", |c| c.metadata.as_str())).collect();
    let sources: Vec<Option<&str>> = documents.iter().map(|d| d.content.as_ref()?.source.as_deref()).collect();
    // The stored version is compared under its row lock, because it may have changed since the batch was evaluated. A row of `wins`
    // keeps the stored version number. A delete of an unknown document gets the smallest number, below any that a later document
    // has. A delete keeps a document of its own version out, unless the document's record came after the delete (`revives`).
    let accepted = sqlx::query_scalar!(
        "INSERT INTO documents AS d (pipeline, id, version, deleted, text, metadata, source, batch_id)
         SELECT $1, id, coalesce(version, -9223372036854775808), deleted, text, metadata::jsonb, source::jsonb, $2
         FROM unnest($3::text[], $4::bigint[], $6::boolean[], $7::text[], $8::text[], $9::text[])
              AS n (id, version, deleted, text, metadata, source)
         ON CONFLICT (pipeline, id) DO UPDATE
         SET version = greatest(excluded.version, d.version), deleted = excluded.deleted, text = excluded.text,
             metadata = excluded.metadata, source = excluded.source, batch_id = excluded.batch_id, updated_at = now()
         WHERE excluded.version > d.version OR d.id = ANY($5::text[])
            OR (excluded.version = d.version AND (excluded.deleted OR NOT d.deleted OR d.id = ANY($10::text[])))
         RETURNING id",
        submission.batch.pipeline,
        submission.batch.id,
        &ids as &[&str],
        &versions as &[Option<i64>],
        &wins as &[&str],
        &deleted,
        &texts as &[&str],
        &metadata as &[&str],
        &sources as &[Option<&str>],
        &revives as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(accepted.into_iter().collect())
}

async fn still_unchanged(
    connection: &mut PgConnection,
    submission: &Submission,
    accepted: &HashSet<String>,
) -> sqlx::Result<bool> {
    let results: Vec<_> = submission.unchanged.iter().filter(|u| accepted.contains(&u.0)).collect();
    if results.is_empty() {
        return Ok(true);
    }
    let ids: Vec<&str> = results.iter().map(|u| u.0.as_str()).collect();
    let tasks: Vec<&str> = results.iter().map(|u| u.1.as_str()).collect();
    let fingerprints: Vec<&[u8]> = results.iter().map(|u| u.2.0.as_slice()).collect();
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM unnest($2::text[], $3::text[], $4::bytea[]) AS u (document_id, task, fingerprint)
               WHERE u.fingerprint IS DISTINCT FROM (
                   SELECT r.fingerprint FROM results r
                   WHERE r.pipeline = $1 AND r.document_id = u.document_id AND r.task = u.task)
           ) AS "unchanged!""#,
        submission.batch.pipeline,
        &ids as &[&str],
        &tasks as &[&str],
        &fingerprints as &[&[u8]]
    )
    .fetch_one(connection)
    .await
}

/// Removes the outputs of older versions: all of a deleted document, those that the new version does not have, and vectors that are
/// about to be rewritten.
async fn remove_outputs(
    connection: &mut PgConnection,
    submission: &Submission,
    results: &[&ResultRow],
    accepted: &HashSet<String>,
) -> sqlx::Result<()> {
    let pipeline = &submission.batch.pipeline;
    let deleted = submission.deleted_ids(accepted);
    if !deleted.is_empty() {
        sqlx::query!("DELETE FROM embeddings WHERE pipeline = $1 AND document_id = ANY($2)", pipeline, &deleted as &[&str])
            .execute(&mut *connection)
            .await?;
        sqlx::query!("DELETE FROM results WHERE pipeline = $1 AND document_id = ANY($2)", pipeline, &deleted as &[&str])
            .execute(&mut *connection)
            .await?;
    }
    let removed = submission.removed.iter().filter(|u| accepted.contains(&u.0)).map(|u| (u.0.as_str(), u.1.as_str()));
    let (ids, tasks): (Vec<&str>, Vec<&str>) = removed.clone().unzip();
    if !ids.is_empty() {
        sqlx::query!(
            "DELETE FROM results r USING unnest($2::text[], $3::text[]) AS u (document_id, task)
             WHERE r.pipeline = $1 AND r.document_id = u.document_id AND r.task = u.task",
            pipeline,
            &ids as &[&str],
            &tasks as &[&str]
        )
        .execute(&mut *connection)
        .await?;
    }
    let rewritten = results.iter().filter(|r| r.embedding.is_some()).map(|r| (r.document_id.as_str(), r.task.as_str()));
    let (ids, tasks): (Vec<&str>, Vec<&str>) = removed.chain(rewritten).unzip();
    if !ids.is_empty() {
        sqlx::query!(
            "DELETE FROM embeddings e USING unnest($2::text[], $3::text[]) AS u (document_id, task)
             WHERE e.pipeline = $1 AND e.document_id = u.document_id AND e.task = u.task",
            pipeline,
            &ids as &[&str],
            &tasks as &[&str]
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn upsert_results(connection: &mut PgConnection, submission: &Submission, results: &[&ResultRow]) -> sqlx::Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO results (pipeline, batch_id, document_id, task, kind, version, label, confidence, text, fields,
                              fingerprint, tokens, device_micros, generated_tokens, model,
                              model_revision, prompt)
         SELECT $1, $2, document_id, task, kind, version, label, confidence, text, fields::jsonb, fingerprint, tokens,
                device_micros, generated_tokens, model, model_revision, prompt
         FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::real[], $9::text[], $10::text[],
                     $11::bytea[], $12::integer[], $13::bigint[], $14::integer[], $15::text[], $16::text[], $17::text[])
              AS n (document_id, task, kind, version, label, confidence, text, fields, fingerprint, tokens, device_micros,
                    generated_tokens, model, model_revision, prompt)
         ON CONFLICT (pipeline, document_id, task) DO UPDATE
         SET batch_id = excluded.batch_id, kind = excluded.kind, version = excluded.version, label = excluded.label,
             confidence = excluded.confidence, text = excluded.text, fields = excluded.fields,
             fingerprint = excluded.fingerprint, tokens = excluded.tokens, device_micros = excluded.device_micros,
             generated_tokens = excluded.generated_tokens, model = excluded.model,
             model_revision = excluded.model_revision, prompt = excluded.prompt,
             updated_at = now()",
        submission.batch.pipeline,
        submission.batch.id,
        &column(results, |r| r.document_id.as_str()) as &[&str],
        &column(results, |r| r.task.as_str()) as &[&str],
        &column(results, |r| r.kind) as &[&str],
        &column(results, |r| r.version),
        &column(results, |r| r.label.as_deref()) as &[Option<&str>],
        &column(results, |r| r.confidence) as &[Option<f32>],
        &column(results, |r| r.text.as_deref()) as &[Option<&str>],
        &column(results, |r| r.fields.as_str()) as &[&str],
        &column(results, |r| r.fingerprint.0.as_slice()) as &[&[u8]],
        &column(results, |r| r.cost.tokens as i32),
        &column(results, |r| r.cost.device_micros as i64),
        &column(results, |r| r.cost.generated as i32),
        &column(results, |r| r.lineage.model.as_deref()) as &[Option<&str>],
        &column(results, |r| r.lineage.revision.as_deref()) as &[Option<&str>],
        &column(results, |r| r.lineage.prompt.as_deref()) as &[Option<&str>]
    )
    .execute(connection)
    .await
    .map(drop)
}

fn column<'a, T>(results: &[&'a ResultRow], field: impl Fn(&'a ResultRow) -> T) -> Vec<T> {
    results.iter().map(|r| field(r)).collect()
}

/// Inserts one row at a time: dead letters are few, and `unnest` cannot split an array of arrays, which their headers are.
async fn insert_dead_letters(connection: &mut PgConnection, submission: &Submission) -> sqlx::Result<()> {
    let (batch, partition) = (&submission.batch, &submission.batch.delta.partition);
    for dead_letter in &submission.dead_letters {
        sqlx::query!(
            "INSERT INTO dead_letters (pipeline, topic, partition, record_offset, task, document_id, class, reason,
                                       record_key, payload, header_names, header_values, timestamp_ms, batch_id, attempts,
                                       replays)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            batch.pipeline,
            &partition.topic,
            partition.number,
            dead_letter.offset,
            dead_letter.task,
            dead_letter.document_id,
            dead_letter.class,
            dead_letter.reason,
            dead_letter.key,
            dead_letter.payload,
            &dead_letter.header_names,
            &dead_letter.header_values as &[Option<Vec<u8>>],
            dead_letter.timestamp_ms,
            batch.id,
            dead_letter.attempts,
            dead_letter.replays
        )
        .execute(&mut *connection)
        .await?;
    }
    if !submission.dead_letters.is_empty() {
        pipeline_states::insert_faults(connection, submission).await?;
    }
    Ok(())
}

async fn insert_events(connection: &mut PgConnection, submission: &Submission, accepted: &HashSet<String>) -> sqlx::Result<()> {
    let events: Vec<&Event> =
        submission.events.iter().filter(|e| e.document_id.as_ref().is_none_or(|id| accepted.contains(id))).collect();
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|e| e.event_id).collect();
    let topics: Vec<&str> = events.iter().map(|e| e.topic.as_str()).collect();
    let keys: Vec<&[u8]> = events.iter().map(|e| e.key.as_slice()).collect();
    let payloads: Vec<Option<&[u8]>> = events.iter().map(|e| e.payload.as_deref()).collect();
    let headers: Vec<Value> = events.iter().map(|e| e.headers.clone()).collect();
    sqlx::query!(
        "INSERT INTO outbox (pipeline, event_id, topic, key, payload, headers)
         SELECT $6, * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::jsonb[])",
        &ids,
        &topics as &[&str],
        &keys as &[&[u8]],
        &payloads as &[Option<&[u8]>],
        &headers,
        submission.batch.pipeline
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn publish_file(connection: &mut PgConnection, file: &StagedFile) -> Result<(), CommitError> {
    let live = sqlx::query!(
        "UPDATE parquet_files SET state = 'live', rows = $2, bytes = $3, blake3 = $4 WHERE path = $1 AND state = 'staged'",
        file.path,
        i32::try_from(file.rows).unwrap_or(i32::MAX),
        file.bytes,
        &file.blake3[..]
    )
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if live.rows_affected() == 1 { Ok(()) } else { Err(CommitError::Swept) }
}
