//! Companies: how many documents each has, and the event with its newest documents.
//!
//! The event holds copies of the newest documents as the transaction sees them, so that a consumer needs no further query, and a
//! replay has the same content. Its version grows with every change of the company's documents, under the lock of the company's
//! row: of two events the one with the greater version is newer. A company without documents gets an event without payload.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::submission::AccountTopic;
use super::super::{Reader, WithDeadline};
use tidemill_base::failure::Transient;

/// How many bytes of metadata a document may have in an event. Larger metadata is left out.
const METADATA: i32 = 4_000;

/// A company of a pipeline's leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadAccount {
    /// The company's normalized name.
    pub key: String,
    /// The company's name as its newest document writes it.
    pub name: String,
    /// How many documents belong to it.
    pub documents: i64,
    /// When they last changed, in Unix milliseconds.
    pub updated_at_ms: i64,
}

/// Counts the companies' documents again and writes the events. `companies` holds each company's key, with a name where the company
/// may be new.
pub(super) async fn update(
    connection: &mut PgConnection,
    pipeline: &str,
    companies: &BTreeMap<&str, Option<&str>>,
    topic: Option<&AccountTopic>,
) -> sqlx::Result<()> {
    if companies.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = companies.keys().copied().collect();
    let names: Vec<Option<&str>> = companies.values().copied().collect();
    // Locks the companies' rows in the order of the keys. The next statement sees what other batches committed before.
    sqlx::query!(
        "INSERT INTO accounts AS a (pipeline, key, name)
         SELECT $1, key, coalesce(name, key) FROM unnest($2::text[], $3::text[]) AS n (key, name)
         ON CONFLICT (pipeline, key) DO UPDATE SET version = a.version + 1, updated_at = now()",
        pipeline,
        &keys as &[&str],
        &names as &[Option<&str>]
    )
    .execute(&mut *connection)
    .await?;
    let accounts = sqlx::query!(
        r#"UPDATE accounts a SET documents = n.documents, name = coalesce(n.name, a.name)
           FROM (SELECT k.key,
                        (SELECT count(*) FROM leads l WHERE l.pipeline = $1 AND l.account = k.key) AS documents,
                        (SELECT l.company FROM leads l WHERE l.pipeline = $1 AND l.account = k.key
                         ORDER BY l.version DESC, l.document_id DESC LIMIT 1) AS name
                 FROM unnest($2::text[]) AS k (key)) AS n
           WHERE a.pipeline = $1 AND a.key = n.key
           RETURNING a.key AS "key!", a.name AS "name!", a.version AS "version!", a.documents AS "documents!""#,
        pipeline,
        &keys as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(topic) = topic else { return Ok(()) };
    let mut newest = newest(connection, pipeline, &keys, topic).await?;
    let (mut event_keys, mut payloads) = (Vec::new(), Vec::new());
    for account in accounts {
        let event = json!({
            "account": account.key,
            "pipeline": pipeline,
            "name": account.name,
            "version": account.version,
            "documents": account.documents,
            "newest": newest.remove(&account.key).unwrap_or_default(),
        });
        payloads.push((account.documents > 0).then(|| event.to_string().into_bytes()));
        event_keys.push(account.key.into_bytes());
    }
    let ids: Vec<Uuid> = event_keys.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query!(
        "INSERT INTO outbox (pipeline, event_id, topic, key, payload, headers)
         SELECT $5, id, $1, key, payload, '{}' FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS n (id, key, payload)",
        topic.topic,
        &ids,
        &event_keys,
        &payloads as &[Option<Vec<u8>>],
        pipeline
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The newest documents of each company, the newest first.
async fn newest(
    connection: &mut PgConnection,
    pipeline: &str,
    keys: &[&str],
    topic: &AccountTopic,
) -> sqlx::Result<HashMap<String, Vec<Value>>> {
    let rows = sqlx::query!(
        r#"SELECT k.key AS "key!", n.document_id AS "document_id!", n.version AS "version!", n.text AS "text!", n.metadata AS "metadata!",
                  n.score AS "score!", n.person AS "person?", n.stage AS "stage?", n.intent AS "intent?"
           FROM unnest($2::text[]) AS k (key)
           CROSS JOIN LATERAL (
               SELECT l.document_id, l.version, left(d.text, $4) AS text, l.score, l.person, l.stage, l.intent,
                      CASE WHEN octet_length(d.metadata::text) <= $5 THEN d.metadata ELSE '{}' END AS metadata
               FROM leads l JOIN documents d ON d.pipeline = l.pipeline AND d.id = l.document_id
               WHERE l.pipeline = $1 AND l.account = k.key
               ORDER BY l.version DESC, l.document_id DESC LIMIT $3) AS n
           ORDER BY k.key, n.version DESC, n.document_id DESC"#,
        pipeline,
        keys as &[&str],
        topic.newest,
        topic.characters,
        METADATA
    )
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<String, Vec<Value>> = HashMap::new();
    for row in rows {
        let document = json!({
            "id": row.document_id, "version": row.version, "text": row.text, "metadata": row.metadata, "score": row.score,
            "person": row.person, "stage": row.stage, "intent": row.intent,
        });
        found.entry(row.key).or_default().push(document);
    }
    Ok(found)
}

impl Reader {
    /// The company; none where no document ever belonged to it.
    pub async fn account(&self, pipeline: &str, key: &str) -> Result<Option<LeadAccount>, Transient> {
        let mut view = self.view().await?;
        let account = sqlx::query_as!(
            LeadAccount,
            r#"SELECT key, name, documents, (extract(epoch FROM updated_at) * 1000)::bigint AS "updated_at_ms!"
               FROM accounts WHERE pipeline = $1 AND key = $2"#,
            pipeline,
            key
        )
        .fetch_optional(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(account)
    }
}
