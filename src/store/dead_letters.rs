//! Dead letters: listed, replayed, purged.
//!
//! A replay writes the record to the outbox and marks the dead letter in one transaction, so that each dead letter is replayed
//! once. The record goes to the topic that the pipeline reads now, which may be another than the one it came from.
//!
//! | dead letter | a replay |
//! |---|---|
//! | not replayed yet | sends its record, once for all dead letters of the record, and marks them |
//! | replayed already | ignores it; if the record fails again, that is a new dead letter |
//! | of a record that was replayed too often | refuses it |
//! | of a pipeline that is not configured | refuses it |

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::{Acquire, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Reader, Store, WithDeadline, unavailable};
use tidemill_base::failure::Transient;
use tidemill_base::record::{REPLAY_COUNT, REPLAY_OF};

/// Which dead letters to select. A dead letter must match every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Empty for all ids.
    pub ids: Vec<i64>,
    pub pipeline: Option<String>,
    pub class: Option<String>,
    /// An empty string selects dead letters of whole records.
    pub task: Option<String>,
    /// Written at this Unix millisecond or later.
    pub since_ms: Option<i64>,
    /// Whether it has been replayed.
    pub replayed: Option<bool>,
}

/// A dead letter without the record's key, headers and payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterSummary {
    /// The dead letter.
    pub id: i64,
    /// The pipeline.
    pub pipeline: String,
    /// The topic that the record came from.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub record_offset: i64,
    /// The task that failed; empty where the whole record failed.
    pub task: String,
    /// The document; null where the record could not be decoded.
    pub document_id: Option<String>,
    /// The class of fault.
    pub class: String,
    /// One sentence that says what is wrong.
    pub reason: String,
    /// How often the record was tried.
    pub attempts: i32,
    /// How often the record had been replayed before it failed.
    pub replays: i32,
    /// When the dead letter was replayed, in Unix milliseconds.
    pub replayed_ms: Option<i64>,
    /// When it was written, in Unix milliseconds.
    pub created_ms: i64,
}

/// A dead letter with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub summary: DeadLetterSummary,
    pub timestamp_ms: Option<i64>,
    /// The batch that it was committed with.
    pub batch_id: Uuid,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The beginning of the record's payload.
    pub payload: Option<Vec<u8>>,
    /// The size of the whole payload in bytes.
    pub payload_bytes: i64,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReplaySummary {
    /// Records that are sent again.
    pub records: usize,
    /// Dead letters that are marked as replayed. A record on which several tasks failed has several.
    pub letters: u64,
    /// Dead letters that stay, because their record was replayed too often.
    pub exhausted: usize,
    /// Dead letters that stay, because their pipeline is not configured, by the pipeline's name.
    pub unknown: BTreeMap<String, usize>,
}

/// A statement over the dead letters that match a filter, made of the parts before and after the condition. The part after it may
/// use `$7` and further parameters.
macro_rules! dead_letters {
    ($make:ident!($($row:ident,)? $before:literal, $filter:expr, $after:literal $(, $argument:expr)*)) => {
        sqlx::$make!(
            $($row,)?
            $before
                + " WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR pipeline = $2)
                      AND ($3::text IS NULL OR class = $3) AND ($4::text IS NULL OR task = $4)
                      AND ($5::bigint IS NULL OR created_at >= to_timestamp($5 / 1000.0))
                      AND ($6::boolean IS NULL OR (replayed_at IS NOT NULL) = $6) "
                + $after,
            &$filter.ids,
            $filter.pipeline.as_deref(),
            $filter.class.as_deref(),
            $filter.task.as_deref(),
            $filter.since_ms,
            $filter.replayed
            $(, $argument)*
        )
    };
}

impl DeadLetterFilter {
    /// Whether the filter selects every dead letter.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Reader {
    /// The latest dead letters, at most `limit`.
    pub async fn dead_letters(&self, filter: &DeadLetterFilter, limit: i64) -> Result<Vec<DeadLetterSummary>, Transient> {
        let mut view = self.view().await?;
        let dead_letters = dead_letters!(query_as!(
            DeadLetterSummary,
            r#"SELECT id, pipeline, topic, partition, record_offset, task, document_id, class, reason, attempts, replays,
                      (extract(epoch FROM replayed_at) * 1000)::bigint AS replayed_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!"
               FROM dead_letters"#,
            filter,
            "ORDER BY id DESC LIMIT $7",
            limit
        ))
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(dead_letters)
    }

    /// How many dead letters there are by pipeline and class, the most frequent first.
    pub async fn dead_letter_counts(&self, filter: &DeadLetterFilter) -> Result<Vec<(String, String, i64)>, Transient> {
        let mut view = self.view().await?;
        let rows = dead_letters!(query!(
            r#"SELECT pipeline, class, count(*) AS "letters!" FROM dead_letters"#,
            filter,
            "GROUP BY pipeline, class ORDER BY 3 DESC, 1, 2"
        ))
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(rows.into_iter().map(|row| (row.pipeline, row.class, row.letters)).collect())
    }

    /// The dead letter with at most `bytes` of its payload.
    pub async fn dead_letter(&self, id: i64, bytes: i32) -> Result<Option<DeadLetter>, Transient> {
        let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
        let Some(summary) = self.dead_letters(&filter, 1).await?.pop() else { return Ok(None) };
        let mut view = self.view().await?;
        let row = sqlx::query!(
            r#"SELECT timestamp_ms, batch_id, record_key, header_names, header_values AS "header_values: Vec<Option<Vec<u8>>>",
                      substring(payload FOR $2) AS payload, coalesce(octet_length(payload), 0)::bigint AS "payload_bytes!"
               FROM dead_letters WHERE id = $1"#,
            id,
            bytes
        )
        .fetch_optional(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(row.map(|row| DeadLetter {
            summary,
            timestamp_ms: row.timestamp_ms,
            batch_id: row.batch_id,
            key: row.record_key,
            headers: row.header_names.into_iter().zip(row.header_values).collect(),
            payload: row.payload,
            payload_bytes: row.payload_bytes,
        }))
    }
}

impl Store {
    /// Sends the records of the dead letters again, each to its pipeline's topic in `topics`, unless they were replayed
    /// `max_replays` times before. Dead letters that are replayed already are ignored. A dry run does all of it and rolls it back.
    /// Where the database is unavailable, nothing is sent.
    pub async fn replay(
        &self,
        filter: &DeadLetterFilter,
        topics: &HashMap<String, String>,
        max_replays: i32,
        dry_run: bool,
    ) -> Result<ReplaySummary, Transient> {
        let waiting = DeadLetterFilter { replayed: Some(false), ..filter.clone() };
        self.connected(async |connection| {
            let mut transaction = connection.begin().await.map_err(unavailable)?;
            let replayed = replay(&mut transaction, &waiting, topics, max_replays).await.map_err(unavailable)?;
            let end = if dry_run { transaction.rollback().await } else { transaction.commit().await };
            end.map_err(unavailable)?;
            Ok(replayed)
        })
        .await
    }

    /// Deletes the dead letters and returns how many they were. The counts of their batches stay. A dry run only counts.
    pub async fn purge_dead_letters(&self, filter: &DeadLetterFilter, dry_run: bool) -> Result<i64, Transient> {
        if dry_run {
            return Ok(self.reader(None).dead_letter_counts(filter).await?.iter().map(|(_, _, letters)| letters).sum());
        }
        let purged = dead_letters!(query!("DELETE FROM dead_letters", filter, ""));
        let purged = purged.execute(&self.pool).with_deadline(self.deadline).await?;
        Ok(purged.rows_affected() as i64)
    }
}

/// See [`Store::replay`].
async fn replay(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
    topics: &HashMap<String, String>,
    max_replays: i32,
) -> sqlx::Result<ReplaySummary> {
    let dead_letters = dead_letters!(query!(
        "SELECT id, pipeline, topic, partition, record_offset, replays FROM dead_letters",
        filter,
        "ORDER BY id FOR UPDATE"
    ));
    let dead_letters = dead_letters.fetch_all(&mut *connection).await?;
    let mut replayed = ReplaySummary::default();
    let mut records = BTreeMap::new();
    for dead in dead_letters {
        match topics.get(&dead.pipeline) {
            None => *replayed.unknown.entry(dead.pipeline).or_default() += 1,
            Some(_) if dead.replays >= max_replays => replayed.exhausted += 1,
            Some(topic) => {
                let record = (dead.pipeline, dead.topic, dead.partition, dead.record_offset);
                records.entry(record).or_insert((dead.id, topic.as_str()));
            }
        }
    }
    // In the order of dead letters, which keeps the order of the records of each partition.
    let mut chosen: Vec<(i64, &str)> = records.into_values().collect();
    chosen.sort_unstable();
    replayed.records = chosen.len();
    let (ids, topics): (Vec<i64>, Vec<&str>) = chosen.into_iter().unzip();
    let events: Vec<Uuid> = ids.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query!(
        "INSERT INTO outbox (pipeline, event_id, topic, key, keyless, payload, headers, header_names, header_values, timestamp_ms,
                             partition)
         SELECT l.pipeline, r.event_id, r.topic, coalesce(l.record_key, ''), l.record_key IS NULL, l.payload, '{}',
                h.names || ARRAY[$4::text, $5::text],
                h.contents || ARRAY[convert_to((l.replays + 1)::text, 'UTF8'), convert_to(l.id::text, 'UTF8')],
                l.timestamp_ms, CASE WHEN l.topic = r.topic THEN l.partition END
         FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS r (id, event_id, topic)
         JOIN dead_letters l ON l.id = r.id
         CROSS JOIN LATERAL (
             SELECT coalesce(array_agg(name ORDER BY place), '{}') AS names,
                    coalesce(array_agg(content ORDER BY place), '{}') AS contents
             FROM unnest(l.header_names, l.header_values) WITH ORDINALITY AS u (name, content, place)
             WHERE name NOT IN ($4, $5)
         ) h
         ORDER BY r.id",
        &ids,
        &events,
        &topics as &[&str],
        REPLAY_COUNT,
        REPLAY_OF
    )
    .execute(&mut *connection)
    .await?;
    let marked = sqlx::query!(
        "UPDATE dead_letters l SET replayed_at = now() FROM dead_letters sent
         WHERE sent.id = ANY($1) AND l.replayed_at IS NULL
           AND (l.pipeline, l.topic, l.partition, l.record_offset) =
               (sent.pipeline, sent.topic, sent.partition, sent.record_offset)",
        &ids
    )
    .execute(&mut *connection)
    .await?;
    replayed.letters = marked.rows_affected();
    Ok(replayed)
}
