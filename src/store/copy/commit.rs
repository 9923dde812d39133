//! Copy that comes with a batch, in the batch's transaction.
//!
//! | what is generated | and of the document there is | becomes |
//! |---|---|---|
//! | the same as before | that version, in review | that version with what checks say now |
//! | the same as before | that version, approved, and a check speaks that did not | a new version, in review |
//! | the same as before | that version, rejected or superseded | nothing: a person has decided on it |
//! | something else | whatever a person wrote or rejected last | a new version, in review; what people wrote stays as it is |
//! | something else | nothing, or what was generated | a new version: approved where the catalogue publishes by itself and nothing speaks against it, in review otherwise |

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sqlx::PgConnection;

use super::super::Submission;
use super::{CopyRow, CopySubmission, insert_keys, lock_catalogue, renew_keys};
use tidemill_base::outcome::CheckFailure;

/// What is known of a document's copy before the batch.
#[derive(Debug, Default)]
struct Known {
    /// The greatest number.
    version: i32,
    /// The latest that was generated.
    generated: Option<Generated>,
    /// Whether a person wrote or rejected the last one, or wrote one that still stands.
    is_a_persons: bool,
}

#[derive(Debug)]
struct Generated {
    version: i32,
    state: String,
    fingerprint: Vec<u8>,
    reasons: Value,
    url: Option<String>,
}

/// What becomes of a row.
enum Course {
    Nothing,
    /// The version of that number is checked anew and stays as it is.
    Again(i32),
    /// A new version of that number.
    New(i32),
}

/// Writes what the batch says of copy. Of documents that did not win nothing is written.
pub(crate) async fn write(
    connection: &mut PgConnection,
    submission: &Submission,
    accepted: &HashSet<String>,
) -> sqlx::Result<()> {
    let pipeline = &submission.batch.pipeline;
    let deleted: Vec<&str> =
        submission.documents.iter().filter(|d| d.content.is_none() && accepted.contains(&d.id)).map(|d| d.id.as_str()).collect();
    if !deleted.is_empty() {
        withdraw(connection, pipeline, &deleted, &["review", "approved"]).await?;
    }
    let Some(copy) = &submission.copy else { return Ok(()) };
    let gone = submission.removed.iter().filter(|(id, task)| *task == copy.task && accepted.contains(id));
    let gone: Vec<&str> = gone.map(|(id, _)| id.as_str()).collect();
    if !gone.is_empty() {
        // The page of a product that still exists stays; what waited was made of another version of it.
        withdraw(connection, pipeline, &gone, &["review"]).await?;
    }
    let mut rows: Vec<&CopyRow> = copy.rows.iter().filter(|row| accepted.contains(&row.document_id)).collect();
    rows.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    if rows.is_empty() {
        return Ok(());
    }
    let known = known(connection, pipeline, &rows).await?;
    let nothing = Known::default();
    let of = |row: &CopyRow| known.get(&row.document_id).unwrap_or(&nothing);
    let courses: Vec<(&CopyRow, Course)> = rows.into_iter().map(|row| (row, course(row, of(row)))).collect();
    let again: Vec<(&CopyRow, i32)> = courses
        .iter()
        .filter_map(|(row, course)| if let Course::Again(version) = course { Some((*row, *version)) } else { None })
        .collect();
    let new: Vec<(&CopyRow, i32)> = courses
        .iter()
        .filter_map(|(row, course)| if let Course::New(version) = course { Some((*row, *version)) } else { None })
        .collect();
    check_again(connection, pipeline, &again).await?;
    if !new.is_empty() {
        insert(connection, submission, copy, &new).await?;
        insert_keys(connection, pipeline, &keys(&new), false).await?;
        supersede(connection, pipeline, &new).await?;
    }
    if copy.is_automatic {
        let is_waiting = |row: &CopyRow| of(row).generated.as_ref().is_some_and(|generated| generated.state == "review");
        let waiting = again.into_iter().filter(|(row, _)| is_waiting(row));
        let candidates = new.into_iter().chain(waiting).filter(|(row, _)| row.draft.reasons.is_empty() && !of(row).is_a_persons);
        publish(connection, pipeline, &candidates.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

fn course(row: &CopyRow, known: &Known) -> Course {
    let Some(generated) = &known.generated else { return Course::New(known.version + 1) };
    let is_same = generated.fingerprint == row.draft.fingerprint() && generated.state != "withdrawn";
    match generated.state.as_str() {
        _ if !is_same => Course::New(known.version + 1),
        "review" => Course::Again(generated.version),
        "approved" if generated.url != row.draft.url || says_more(row, &generated.reasons) => Course::New(known.version + 1),
        "approved" => Course::Again(generated.version),
        _ => Course::Nothing,
    }
}

/// Whether a check speaks that did not speak before.
fn says_more(row: &CopyRow, before: &Value) -> bool {
    let before: Vec<CheckFailure> = serde_json::from_value(before.clone()).unwrap_or_default();
    let was_said = |reason: &CheckFailure| {
        before.iter().any(|old| (old.check, &old.path, &old.says) == (reason.check, &reason.path, &reason.says))
    };
    row.draft.reasons.iter().any(|reason| !was_said(reason))
}

fn keys<'a>(rows: &[(&'a CopyRow, i32)]) -> Vec<(&'a str, i32, &'a str, &'a [u8])> {
    let of = |(row, version): &(&'a CopyRow, i32)| {
        let (row, version) = (*row, *version);
        row.draft.keys.iter().map(move |(field, value)| (row.document_id.as_str(), version, field.as_str(), value.as_slice()))
    };
    rows.iter().flat_map(of).collect()
}

async fn known(connection: &mut PgConnection, pipeline: &str, rows: &[&CopyRow]) -> sqlx::Result<HashMap<String, Known>> {
    let ids: Vec<&str> = rows.iter().map(|row| row.document_id.as_str()).collect();
    let mut all: HashMap<String, Known> = HashMap::new();
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
        all.insert(row.document_id, Known { version: row.version, generated: None, is_a_persons: row.is_a_persons });
    }
    let generated = sqlx::query!(
        "SELECT DISTINCT ON (document_id) document_id, version, state, fingerprint, reasons, url
         FROM copy_versions WHERE pipeline = $1 AND document_id = ANY($2) AND origin = 'generated'
         ORDER BY document_id, version DESC",
        pipeline,
        &ids as &[&str]
    );
    for row in generated.fetch_all(connection).await? {
        let generated = Generated {
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

async fn withdraw(connection: &mut PgConnection, pipeline: &str, ids: &[&str], states: &[&str]) -> sqlx::Result<()> {
    // What a person wrote waits on where only the pipeline has nothing more to say.
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

/// Takes over what checks say now of versions whose content stays.
async fn check_again(connection: &mut PgConnection, pipeline: &str, rows: &[(&CopyRow, i32)]) -> sqlx::Result<()> {
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
        // The file may name other fields now, and the address may have changed.
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
        &fingerprints.iter().map(|print| print.as_slice()).collect::<Vec<_>>() as &[&[u8]]
    )
    .execute(connection)
    .await
    .map(drop)
}

fn column<'a, T>(rows: &[(&'a CopyRow, i32)], field: impl Fn(&'a CopyRow) -> T) -> Vec<T> {
    rows.iter().map(|(row, _)| field(row)).collect()
}

/// What was generated before and waits, waits for nothing any more.
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

/// Publishes those of the candidates whose values nobody else has.
async fn publish(connection: &mut PgConnection, pipeline: &str, candidates: &[(&CopyRow, i32)]) -> sqlx::Result<()> {
    if candidates.is_empty() {
        return Ok(());
    }
    lock_catalogue(connection, pipeline).await?;
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
