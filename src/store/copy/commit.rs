//! Writes the copy of a batch, in the batch's transaction.
//!
//! | generated content | stored version | result |
//! |---|---|---|
//! | same as the last generated version | in review | that version is kept with the new results of the checks |
//! | same | approved; a check fails that did not, or the address changed | a new version, in review |
//! | same | approved otherwise | that version is kept with the new results of the checks |
//! | same | rejected or superseded | none: a person has decided on it |
//! | different | a person wrote or rejected the last version, or edited one that is in review or approved | a new version, in review; the edited versions stay as they are |
//! | different | none, or generated | a new version: approved if the pipeline publishes by itself and every check passes, in review otherwise |

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sqlx::PgConnection;

use super::super::submission::{CopyRow, CopySubmission, Submission};
use super::{UniqueKey, insert_keys, lock_publishing, renew_keys};
use tidemill_base::outcome::CheckFailure;

/// The stored versions of one document's copy.
#[derive(Debug, Default)]
struct StoredCopy {
    /// The number of the last version; 0 where there is none.
    last_version: i32,
    /// The last version that a task generated.
    generated: Option<GeneratedVersion>,
    /// Whether a person wrote or rejected the last version, or wrote one that is in review or approved.
    is_a_persons: bool,
}

#[derive(Debug)]
struct GeneratedVersion {
    version: i32,
    state: String,
    fingerprint: Vec<u8>,
    reasons: Value,
    url: Option<String>,
}

/// How a row is stored.
enum Action {
    Nothing,
    /// The version of this number keeps its content and gets the new results of the checks.
    Recheck(i32),
    /// A new version of this number is inserted.
    Insert(i32),
}

/// Writes the copy of the batch's documents, except those that were not `accepted` because a newer version is stored.
pub(crate) async fn write(
    connection: &mut PgConnection,
    submission: &Submission,
    accepted: &HashSet<String>,
) -> sqlx::Result<()> {
    let pipeline = &submission.batch.pipeline;
    let deleted = submission.deleted_ids(accepted);
    if !deleted.is_empty() {
        withdraw(connection, pipeline, &deleted, &["review", "approved"]).await?;
    }
    let Some(copy) = &submission.copy else { return Ok(()) };
    let without_copy = submission.removed.iter().filter(|(id, task)| *task == copy.task && accepted.contains(id));
    let without_copy: Vec<&str> = without_copy.map(|(id, _)| id.as_str()).collect();
    if !without_copy.is_empty() {
        // The document still exists, so its page stays. Versions in review are of an older version of the document.
        withdraw(connection, pipeline, &without_copy, &["review"]).await?;
    }
    let mut rows: Vec<&CopyRow> = copy.rows.iter().filter(|row| accepted.contains(&row.document_id)).collect();
    rows.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    if rows.is_empty() {
        return Ok(());
    }
    let stored = stored_copy(connection, pipeline, &rows).await?;
    let none = StoredCopy::default();
    let of = |row: &CopyRow| stored.get(&row.document_id).unwrap_or(&none);
    let (mut rechecked, mut new) = (Vec::new(), Vec::new());
    for row in rows {
        match action(row, of(row)) {
            Action::Nothing => {}
            Action::Recheck(version) => rechecked.push((row, version)),
            Action::Insert(version) => new.push((row, version)),
        }
    }
    recheck(connection, pipeline, &rechecked).await?;
    if !new.is_empty() {
        insert(connection, submission, copy, &new).await?;
        let keys = new.iter().flat_map(|(row, version)| UniqueKey::of(&row.document_id, *version, &row.draft));
        insert_keys(connection, pipeline, &keys.collect::<Vec<_>>(), false).await?;
        supersede(connection, pipeline, &new).await?;
    }
    if copy.is_automatic {
        let is_in_review = |row: &CopyRow| of(row).generated.as_ref().is_some_and(|generated| generated.state == "review");
        let in_review = rechecked.into_iter().filter(|(row, _)| is_in_review(row));
        let candidates = new.into_iter().chain(in_review);
        let candidates = candidates.filter(|(row, _)| row.draft.reasons.is_empty() && !of(row).is_a_persons);
        publish(connection, pipeline, &candidates.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The table at the top of this file.
fn action(row: &CopyRow, stored: &StoredCopy) -> Action {
    let next = stored.last_version + 1;
    let Some(generated) = &stored.generated else { return Action::Insert(next) };
    let is_same = generated.fingerprint == row.draft.fingerprint() && generated.state != "withdrawn";
    match generated.state.as_str() {
        _ if !is_same => Action::Insert(next),
        "review" => Action::Recheck(generated.version),
        "approved" if generated.url != row.draft.url || has_new_failure(row, &generated.reasons) => Action::Insert(next),
        "approved" => Action::Recheck(generated.version),
        _ => Action::Nothing,
    }
}

/// Whether a check fails that did not fail before.
fn has_new_failure(row: &CopyRow, before: &Value) -> bool {
    let before: Vec<CheckFailure> = serde_json::from_value(before.clone()).unwrap_or_default();
    let is_old = |failure: &CheckFailure| {
        before.iter().any(|old| (old.check, &old.path, &old.says) == (failure.check, &failure.path, &failure.says))
    };
    row.draft.reasons.iter().any(|failure| !is_old(failure))
}

/// The stored copy of the rows' documents, by document id.
async fn stored_copy(
    connection: &mut PgConnection,
    pipeline: &str,
    rows: &[&CopyRow],
) -> sqlx::Result<HashMap<String, StoredCopy>> {
    let ids: Vec<&str> = rows.iter().map(|row| row.document_id.as_str()).collect();
    let mut all: HashMap<String, StoredCopy> = HashMap::new();
    let latest = sqlx::query!(
        r#"SELECT v.document_id, v.version,
                  v.origin = 'edited' OR v.state = 'rejected'
                  OR EXISTS (SELECT FROM copy_versions e WHERE e.pipeline = $1 AND e.document_id = v.document_id
                             AND e.origin = 'edited' AND e.state IN ('review', 'approved')) AS "is_a_persons!"
           FROM (SELECT DISTINCT ON (document_id) * FROM copy_versions WHERE pipeline = $1 AND document_id = ANY($2)
                 ORDER BY document_id, version DESC) v"#,
        pipeline,
        &ids as &[&str]
    );
    for row in latest.fetch_all(&mut *connection).await? {
        let stored = StoredCopy { last_version: row.version, generated: None, is_a_persons: row.is_a_persons };
        all.insert(row.document_id, stored);
    }
    let generated = sqlx::query!(
        "SELECT DISTINCT ON (document_id) document_id, version, state, fingerprint, reasons, url
         FROM copy_versions WHERE pipeline = $1 AND document_id = ANY($2) AND origin = 'generated'
         ORDER BY document_id, version DESC",
        pipeline,
        &ids as &[&str]
    );
    for row in generated.fetch_all(connection).await? {
        let generated = GeneratedVersion {
            version: row.version,
            state: row.state,
            fingerprint: row.fingerprint,
            reasons: row.reasons,
            url: row.url,
        };
        all.entry(row.document_id).or_default().generated = Some(generated);
    }
    Ok(all)
}

/// Withdraws versions in one of the `states`, and frees their keys.
async fn withdraw(connection: &mut PgConnection, pipeline: &str, ids: &[&str], states: &[&str]) -> sqlx::Result<()> {
    // A version that a person wrote stays in review while its document exists.
    let only_generated = states.len() == 1;
    sqlx::query!(
        "WITH gone AS (
             UPDATE copy_versions SET state = 'withdrawn', decided_at = now(), decided_by = NULL
             WHERE pipeline = $1 AND document_id = ANY($2) AND state = ANY($3) AND (origin = 'generated' OR NOT $4)
             RETURNING document_id, version)
         DELETE FROM copy_keys k USING gone g
         WHERE k.pipeline = $1 AND k.document_id = g.document_id AND k.version = g.version",
        pipeline,
        ids as &[&str],
        states as &[&str],
        only_generated
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Stores the new results of the checks of versions that keep their content.
async fn recheck(connection: &mut PgConnection, pipeline: &str, rows: &[(&CopyRow, i32)]) -> sqlx::Result<()> {
    for (row, version) in rows {
        let draft = &row.draft;
        let changed = sqlx::query!(
            r#"UPDATE copy_versions SET reasons = $4, traces = $5, document_version = $6, url = coalesce($7, url)
               WHERE pipeline = $1 AND document_id = $2 AND version = $3
                 AND (reasons, traces, document_version) IS DISTINCT FROM ($4, $5, $6)
               RETURNING state = 'approved' AS "is_published!""#,
            pipeline,
            row.document_id,
            version,
            draft.reasons_json(),
            draft.traces_json(),
            row.document_version,
            draft.url
        );
        let Some(changed) = changed.fetch_optional(&mut *connection).await? else { continue };
        if changed.is_published {
            continue;
        }
        // The pipeline file may name other unique fields now, and the address may have changed.
        renew_keys(connection, pipeline, &row.document_id, *version, draft).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut PgConnection,
    submission: &Submission,
    copy: &CopySubmission,
    rows: &[(&CopyRow, i32)],
) -> sqlx::Result<()> {
    let fingerprints: Vec<[u8; 32]> = rows.iter().map(|(row, _)| row.draft.fingerprint()).collect();
    sqlx::query!(
        "INSERT INTO copy_versions (pipeline, task, batch_id, origin, state, document_id, version, document_version, content, url,
                                    reasons, traces, fingerprint)
         SELECT $1, $2, $3, 'generated', 'review', *
         FROM unnest($4::text[], $5::integer[], $6::bigint[], $7::text[], $8::text[], $9::jsonb[], $10::jsonb[], $11::bytea[])",
        submission.batch.pipeline,
        copy.task,
        submission.batch.id,
        &column(rows, |row| row.document_id.as_str()) as &[&str],
        &rows.iter().map(|(_, version)| *version).collect::<Vec<_>>(),
        &column(rows, |row| row.document_version),
        &column(rows, |row| row.draft.content.as_str()) as &[&str],
        &column(rows, |row| row.draft.url.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.draft.reasons_json()),
        &column(rows, |row| row.draft.traces_json()),
        &fingerprints.iter().map(|fingerprint| fingerprint.as_slice()).collect::<Vec<_>>() as &[&[u8]]
    )
    .execute(connection)
    .await
    .map(drop)
}

fn column<'a, T>(rows: &[(&'a CopyRow, i32)], field: impl Fn(&'a CopyRow) -> T) -> Vec<T> {
    rows.iter().map(|(row, _)| field(row)).collect()
}

/// Supersedes earlier generated versions in review.
async fn supersede(connection: &mut PgConnection, pipeline: &str, rows: &[(&CopyRow, i32)]) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH old AS (
             UPDATE copy_versions v SET state = 'superseded', decided_at = now(), decided_by = NULL
             FROM unnest($2::text[], $3::integer[]) AS n (document_id, version)
             WHERE v.pipeline = $1 AND v.document_id = n.document_id AND v.version < n.version
               AND v.origin = 'generated' AND v.state = 'review'
             RETURNING v.document_id, v.version)
         DELETE FROM copy_keys k USING old o
         WHERE k.pipeline = $1 AND k.document_id = o.document_id AND k.version = o.version",
        pipeline,
        &column(rows, |row| row.document_id.as_str()) as &[&str],
        &rows.iter().map(|(_, version)| *version).collect::<Vec<_>>()
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Publishes those candidates whose unique values no other document has.
async fn publish(connection: &mut PgConnection, pipeline: &str, candidates: &[(&CopyRow, i32)]) -> sqlx::Result<()> {
    if candidates.is_empty() {
        return Ok(());
    }
    lock_publishing(connection, pipeline).await?;
    let clean = sqlx::query!(
        r#"SELECT c.document_id AS "document_id!", c.version AS "version!"
           FROM unnest($2::text[], $3::integer[]) AS c (document_id, version)
           WHERE NOT EXISTS (
               SELECT FROM copy_keys k
               JOIN copy_keys o ON o.pipeline = k.pipeline AND o.field = k.field AND o.value = k.value AND o.document_id <> k.document_id
               WHERE k.pipeline = $1 AND k.document_id = c.document_id AND k.version = c.version
                 AND (o.published OR o.arrival < k.arrival))"#,
        pipeline,
        &column(candidates, |row| row.document_id.as_str()) as &[&str],
        &candidates.iter().map(|(_, version)| *version).collect::<Vec<_>>()
    );
    let clean = clean.fetch_all(&mut *connection).await?;
    let (ids, versions): (Vec<String>, Vec<i32>) = clean.into_iter().map(|row| (row.document_id, row.version)).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH old AS (
             UPDATE copy_versions SET state = 'superseded' WHERE pipeline = $1 AND document_id = ANY($2) AND state = 'approved'
             RETURNING document_id, version)
         DELETE FROM copy_keys k USING old o
         WHERE k.pipeline = $1 AND k.document_id = o.document_id AND k.version = o.version",
        pipeline,
        &ids
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE copy_versions v SET state = 'approved', decided_at = now() FROM unnest($2::text[], $3::integer[]) AS c (document_id, version)
         WHERE v.pipeline = $1 AND v.document_id = c.document_id AND v.version = c.version",
        pipeline,
        &ids,
        &versions
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE copy_keys k SET published = true FROM unnest($2::text[], $3::integer[]) AS c (document_id, version)
         WHERE k.pipeline = $1 AND k.document_id = c.document_id AND k.version = c.version",
        pipeline,
        &ids,
        &versions
    )
    .execute(connection)
    .await
    .map(drop)
}
