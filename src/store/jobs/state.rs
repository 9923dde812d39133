//! The state of a job. Every change of it writes the job's event in the same transaction.

use sqlx::PgConnection;
use uuid::Uuid;

use super::JobState;

/// Moves the job to state `to` and writes the event. Returns false where the job is in none of the states `from`.
pub(super) async fn move_job(
    connection: &mut PgConnection,
    id: &str,
    from: &[JobState],
    to: JobState,
    reason: Option<&str>,
    events: &str,
) -> sqlx::Result<bool> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let moved = sqlx::query!(
        "UPDATE jobs SET state = $2, reason = CASE $2 WHEN 'succeeded' THEN $3 ELSE coalesce($3, reason) END, updated_at = now(),
                         started_at = CASE WHEN $2 = 'running' THEN coalesce(started_at, now()) ELSE started_at END,
                         finished_at = CASE WHEN $4 THEN now() END
         WHERE id = $1 AND state = ANY($5)",
        id,
        to.as_str(),
        reason,
        to.is_final(),
        &from as &[&str]
    )
    .execute(&mut *connection)
    .await?
    .rows_affected()
        > 0;
    if moved {
        insert_event(connection, id, events).await?;
    }
    Ok(moved)
}

/// Writes an event with the current state of the job.
pub(super) async fn insert_event(connection: &mut PgConnection, id: &str, events: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO outbox (pipeline, event_id, topic, key, payload, headers)
         SELECT pipeline, $1, $2, convert_to(id, 'UTF8'),
                convert_to(jsonb_build_object(
                    'version', 1, 'job', id, 'kind', kind, 'pipeline', pipeline, 'state', state, 'stopping', stopping, 'reason', reason,
                    'at', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))::text, 'UTF8'),
                '{}'::jsonb
         FROM jobs WHERE id = $3",
        Uuid::now_v7(),
        events,
        id
    )
    .execute(connection)
    .await
    .map(drop)
}
