//! Dead letters: looked at, sent again, thrown away.
//!
//! A replay writes the outbox and the mark on the letter in one transaction, so that a letter is sent once however often it is
//! asked for. It goes to the topic that the pipeline reads now; the topic in the letter says where the record came from, no more.
//!
//! | letter | a replay |
//! |---|---|
//! | not replayed yet | sends its record, once for all letters of the record, and marks them |
//! | replayed already | leaves it; where the record died again, that is another letter |
//! | of a record that was sent again too often | refuses it |
//! | of a pipeline that nobody knows any more | refuses it |

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::{Acquire, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InTime, Reader, Store, unavailable};
use tidemill_base::failure::Transient;
use tidemill_base::record::{REPLAY_COUNT, REPLAY_OF};

/// Which letters are meant; everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// These letters; all where it is empty.
    pub ids: Vec<i64>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this task; empty for letters of whole records.
    pub task: Option<String>,
    /// Written at this Unix millisecond or later.
    pub since_ms: Option<i64>,
    /// Replayed, or not.
    pub replayed: Option<bool>,
}

/// A letter without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterSummary {
    /// The letter.
    pub id: i64,
    /// Its pipeline.
    pub pipeline: String,
    /// The topic that the record came from.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record's offset there.
    pub record_offset: i64,
    /// The task; empty where the record as a whole is at fault.
    pub task: String,
    /// The document, where the record could be decoded.
    pub document_id: Option<String>,
    /// The class of fault.
    pub class: String,
    /// The sentence that says what is wrong.
    pub reason: String,
    /// How often the record was tried.
    pub attempts: i32,
    /// How often it had been sent again by the time it died.
    pub replays: i32,
    /// When it was sent again since, in Unix milliseconds.
    pub replayed_ms: Option<i64>,
    /// When it was written, in Unix milliseconds.
    pub created_ms: i64,
}

/// A letter with everything that is known of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Everything but the bytes.
    pub summary: DeadLetterSummary,
    /// The record's timestamp.
    pub timestamp_ms: Option<i64>,
    /// The batch that it was committed with.
    pub batch_id: Uuid,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Names and values of the record's headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The beginning of the record's payload.
    pub payload: Option<Vec<u8>>,
    /// Bytes of the whole payload.
    pub payload_bytes: i64,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReplaySummary {
    /// Records sent again.
    pub records: usize,
    /// Letters marked as replayed: several where several tasks failed on one record.
    pub letters: u64,
    /// Letters that stay because their record was sent again too often.
    pub exhausted: usize,
    /// Letters that stay because nobody knows their pipeline, by its name.
    pub unknown: BTreeMap<String, usize>,
}

/// A query of the letters that the filter lets through: what stands before that condition and after it, which may use `$7` and on.
macro_rules! letters {
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
    /// Whether every letter is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Reader {
    /// The latest letters, at most `limit`.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn dead_letters(&self, filter: &DeadLetterFilter, limit: i64) -> Result<Vec<DeadLetterSummary>, Transient> {
        let mut view = self.view().await?;
        let letters = letters!(query_as!(
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
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(letters)
    }

    /// How many letters there are by pipeline and class, the most frequent first.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn dead_letter_counts(&self, filter: &DeadLetterFilter) -> Result<Vec<(String, String, i64)>, Transient> {
        let mut view = self.view().await?;
        let rows = letters!(query!(
            r#"SELECT pipeline, class, count(*) AS "letters!" FROM dead_letters"#,
            filter,
            "GROUP BY pipeline, class ORDER BY 3 DESC, 1, 2"
        ))
        .fetch_all(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(rows.into_iter().map(|row| (row.pipeline, row.class, row.letters)).collect())
    }

    /// The letter, with at most `bytes` of its payload.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline())
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
    /// Sends the records of the letters again, each to the topic that `topics` has for its pipeline, unless they were sent again
    /// `most` times before. Letters that are replayed already are not meant. A dry run does all of it and takes it back.
    ///
    /// # Errors
    /// Where the database is unavailable; nothing is sent then.
    pub async fn replay(
        &self,
        filter: &DeadLetterFilter,
        topics: &HashMap<String, String>,
        most: i32,
        dry_run: bool,
    ) -> Result<ReplaySummary, Transient> {
        let waiting = DeadLetterFilter { replayed: Some(false), ..filter.clone() };
        self.connected(async |connection| {
            let mut transaction = connection.begin().await.map_err(unavailable)?;
            let replayed = replay(&mut transaction, &waiting, topics, most).await.map_err(unavailable)?;
            let end = if dry_run { transaction.rollback().await } else { transaction.commit().await };
            end.map_err(unavailable)?;
            Ok(replayed)
        })
        .await
    }

    /// Throws the letters away and says how many they were. What their batches count stays. A dry run only counts.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn purge_dead_letters(&self, filter: &DeadLetterFilter, dry_run: bool) -> Result<i64, Transient> {
        if dry_run {
            return Ok(self.reader(None).dead_letter_counts(filter).await?.iter().map(|(_, _, letters)| letters).sum());
        }
        let purged = letters!(query!("DELETE FROM dead_letters", filter, ""));
        let purged = purged.execute(&self.pool).in_time(self.deadline).await?;
        Ok(purged.rows_affected() as i64)
    }
}

/// Sends the records of the letters again that the filter lets through, to the topics of their pipelines.
async fn replay(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
    topics: &HashMap<String, String>,
    most: i32,
) -> sqlx::Result<ReplaySummary> {
    let letters = letters!(query!(
        "SELECT id, pipeline, topic, partition, record_offset, replays FROM dead_letters",
        filter,
        "ORDER BY id FOR UPDATE"
    ));
    let letters = letters.fetch_all(&mut *connection).await?;
    let mut replayed = ReplaySummary::default();
    let mut records = BTreeMap::new();
    for letter in letters {
        match topics.get(&letter.pipeline) {
            None => *replayed.unknown.entry(letter.pipeline).or_default() += 1,
            Some(_) if letter.replays >= most => replayed.exhausted += 1,
            Some(topic) => {
                let record = (letter.pipeline, letter.topic, letter.partition, letter.record_offset);
                records.entry(record).or_insert((letter.id, topic.as_str()));
            }
        }
    }
    // In the order of the letters, which is that of the records of each partition.
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
