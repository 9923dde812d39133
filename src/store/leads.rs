//! Leads, written in the transaction of the batch that scored them.
//!
//! | step | what | whom it concerns |
//! |---|---|---|
//! | 1 | look at the leads as they were | documents whose version won |
//! | 2 | delete those that left | deleted documents, and those without a score |
//! | 3 | upsert those that are not exactly as before | the others |
//! | 4 | insert a delivery | leads that were below the threshold, or not there, and reach it now |
//! | 5 | count the documents of each company anew, and tell what they are | companies that a changed lead belongs to, or did |
//!
//! The rows of documents are locked by then, so that two batches with one document see each other's lead. Companies come last, in
//! the order of their keys, so that two batches never wait for each other in a ring.

mod accounts;
mod deliveries;
mod read;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Submission;
use tidemill_base::outcome::Fingerprint;

pub use accounts::LeadAccount;
pub use deliveries::{DeliveryAttempt, DeliveryOutcome, LeadDelivery, WaitingDelivery};
pub use read::{LeadDocument, LeadFilter, LeadOrder, LeadPageEnd, StoredLead};

/// What a batch makes of its documents' leads.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadSubmission {
    /// Leads as they are now.
    pub rows: Vec<LeadRow>,
    /// Documents that are no leads.
    pub gone: Vec<String>,
    /// The score from which on a lead is told of.
    pub threshold: f64,
    /// Who is told.
    pub webhook: Option<String>,
    /// Where each company's documents are told together.
    pub accounts: Option<AccountTopic>,
}

/// A lead.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadRow {
    /// The document.
    pub document_id: String,
    /// Its version.
    pub version: i64,
    /// Tells its text from others.
    pub content: Vec<u8>,
    /// The score.
    pub score: f64,
    /// The most that it can be.
    pub maximum: f64,
    /// The score's parts, a JSON list.
    pub parts: String,
    /// The company, as the document writes it.
    pub company: Option<String>,
    /// By what the company's documents are gathered.
    pub account: Option<String>,
    /// The person.
    pub person: Option<String>,
    /// How far it is.
    pub stage: Option<String>,
    /// What the person is after.
    pub intent: Option<String>,
}

/// Where each company's documents are told together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountTopic {
    /// The topic.
    pub topic: String,
    /// How many documents, the newest ones.
    pub newest: i64,
    /// Characters of each.
    pub characters: i32,
}

/// A lead as it was.
struct Before {
    version: i64,
    content: Vec<u8>,
    score: f64,
    maximum: f64,
    parts: Value,
    names: [Option<String>; 5],
    above: bool,
}

impl LeadRow {
    fn names(&self) -> [Option<String>; 5] {
        [&self.company, &self.account, &self.person, &self.stage, &self.intent].map(Clone::clone)
    }
}

/// Writes what the submission says of leads, of documents whose version won.
pub(super) async fn write(
    connection: &mut PgConnection,
    submission: &Submission,
    accepted: &HashSet<String>,
) -> sqlx::Result<()> {
    let pipeline = submission.batch.pipeline.as_str();
    let deleted = submission.documents.iter().filter(|document| document.content.is_none()).map(|document| &document.id);
    let left = submission.leads.iter().flat_map(|leads| &leads.gone);
    let mut gone: Vec<&str> = deleted.chain(left).filter(|id| accepted.contains(*id)).map(String::as_str).collect();
    gone.sort_unstable();
    let rows = submission.leads.iter().flat_map(|leads| &leads.rows);
    let mut rows: Vec<&LeadRow> = rows.filter(|row| accepted.contains(&row.document_id)).collect();
    rows.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    let ids: Vec<&str> = rows.iter().map(|row| row.document_id.as_str()).chain(gone.iter().copied()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let before = before(connection, pipeline, &ids).await?;
    // Of a pipeline whose file no longer speaks of leads, deleted documents still leave.
    sqlx::query!("DELETE FROM leads WHERE pipeline = $1 AND document_id = ANY($2)", pipeline, &gone as &[&str])
        .execute(&mut *connection)
        .await?;
    let Some(leads) = &submission.leads else { return Ok(()) };
    rows.retain(|row| before.get(&row.document_id).is_none_or(|before| !before.is(row, leads.threshold)));
    upsert(connection, pipeline, leads.threshold, &rows).await?;
    let crossed = |row: &&&LeadRow| row.score >= leads.threshold && !before.get(&row.document_id).is_some_and(|b| b.above);
    let crossed: Vec<&LeadRow> = rows.iter().filter(crossed).copied().collect();
    if let Some(webhook) = &leads.webhook {
        announce(connection, (pipeline, webhook, leads.threshold), &crossed).await?;
    }
    let mut touched: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for id in rows.iter().map(|row| row.document_id.as_str()).chain(gone) {
        if let Some(account) = before.get(id).and_then(|before| before.names[1].as_deref()) {
            touched.entry(account).or_default();
        }
    }
    for row in &rows {
        if let Some(account) = &row.account {
            touched.insert(account, row.company.as_deref());
        }
    }
    accounts::touch(connection, pipeline, &touched, leads.accounts.as_ref()).await
}

impl Before {
    /// Whether the row says nothing new.
    fn is(&self, row: &LeadRow, threshold: f64) -> bool {
        let parts = || serde_json::from_str::<Value>(&row.parts).is_ok_and(|parts| parts == self.parts);
        (self.version, &self.content, self.score, self.maximum) == (row.version, &row.content, row.score, row.maximum)
            && self.above == (row.score >= threshold)
            && self.names == row.names()
            && parts()
    }
}

async fn before(connection: &mut PgConnection, pipeline: &str, ids: &[&str]) -> sqlx::Result<HashMap<String, Before>> {
    let rows = sqlx::query!(
        "SELECT document_id, version, content, score, maximum, parts, company, account, person, stage, intent, above
         FROM leads WHERE pipeline = $1 AND document_id = ANY($2)",
        pipeline,
        ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let before = Before {
            version: row.version,
            content: row.content,
            score: row.score,
            maximum: row.maximum,
            parts: row.parts,
            names: [row.company, row.account, row.person, row.stage, row.intent],
            above: row.above,
        };
        found.insert(row.document_id, before);
    }
    Ok(found)
}

async fn upsert(connection: &mut PgConnection, pipeline: &str, threshold: f64, rows: &[&LeadRow]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let texts = |field: fn(&LeadRow) -> Option<&str>| rows.iter().map(|row| field(row)).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO leads AS l (pipeline, document_id, version, content, score, maximum, parts, company, account, person, stage, intent,
                                 above)
         SELECT $1, document_id, version, content, score, maximum, parts::jsonb, company, account, person, stage, intent, score >= $2
         FROM unnest($3::text[], $4::bigint[], $5::bytea[], $6::double precision[], $7::double precision[], $8::text[], $9::text[],
                     $10::text[], $11::text[], $12::text[], $13::text[])
              AS n (document_id, version, content, score, maximum, parts, company, account, person, stage, intent)
         ON CONFLICT (pipeline, document_id) DO UPDATE
         SET version = excluded.version, content = excluded.content, score = excluded.score, maximum = excluded.maximum,
             parts = excluded.parts, company = excluded.company, account = excluded.account, person = excluded.person,
             stage = excluded.stage, intent = excluded.intent, above = excluded.above, updated_at = now()",
        pipeline,
        threshold,
        &rows.iter().map(|row| row.document_id.as_str()).collect::<Vec<_>>() as &[&str],
        &rows.iter().map(|row| row.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.content.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &rows.iter().map(|row| row.score).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.maximum).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.parts.as_str()).collect::<Vec<_>>() as &[&str],
        &texts(|row| row.company.as_deref()) as &[Option<&str>],
        &texts(|row| row.account.as_deref()) as &[Option<&str>],
        &texts(|row| row.person.as_deref()) as &[Option<&str>],
        &texts(|row| row.stage.as_deref()) as &[Option<&str>],
        &texts(|row| row.intent.as_deref()) as &[Option<&str>]
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Puts down whom to tell of the leads that came up to the threshold. The number of the crossing makes the id: a lead that falls
/// below and rises again is news once more, and a record that is read again is not.
async fn announce(
    connection: &mut PgConnection,
    (pipeline, webhook, threshold): (&str, &str, f64),
    crossed: &[&LeadRow],
) -> sqlx::Result<()> {
    if crossed.is_empty() {
        return Ok(());
    }
    let documents: Vec<&str> = crossed.iter().map(|row| row.document_id.as_str()).collect();
    let earlier = sqlx::query!(
        r#"SELECT document_id, max(crossing) AS "crossing!" FROM deliveries
           WHERE pipeline = $1 AND document_id = ANY($2) GROUP BY document_id"#,
        pipeline,
        &documents as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    let earlier: HashMap<String, i32> = earlier.into_iter().map(|row| (row.document_id, row.crossing)).collect();
    let crossings: Vec<i32> = documents.iter().map(|id| earlier.get(*id).copied().unwrap_or(0) + 1).collect();
    let ids: Vec<Uuid> = documents.iter().zip(&crossings).map(|(id, crossing)| delivery_id(pipeline, id, *crossing)).collect();
    let bodies: Vec<String> =
        crossed.iter().zip(&crossings).map(|(row, crossing)| body(pipeline, row, *crossing, threshold)).collect();
    sqlx::query!(
        "INSERT INTO deliveries (id, pipeline, document_id, crossing, webhook, body)
         SELECT id, $1, document_id, crossing, $2, body
         FROM unnest($3::uuid[], $4::text[], $5::integer[], $6::text[]) AS n (id, document_id, crossing, body)
         ON CONFLICT DO NOTHING",
        pipeline,
        webhook,
        &ids,
        &documents as &[&str],
        &crossings,
        &bodies
    )
    .execute(connection)
    .await
    .map(drop)
}

fn delivery_id(pipeline: &str, document_id: &str, crossing: i32) -> Uuid {
    let Fingerprint(hash) =
        Fingerprint::of([b"delivery".as_slice(), pipeline.as_bytes(), document_id.as_bytes(), &crossing.to_le_bytes()]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What the receiver is told. The text of the document is not in it: whoever may read that asks for it.
fn body(pipeline: &str, row: &LeadRow, crossing: i32, threshold: f64) -> String {
    let parts: Value = serde_json::from_str(&row.parts).unwrap_or_default();
    let part = |part: &Value| Some((part.get("name")?.as_str()?.to_owned(), part.get("value")?.clone()));
    let parts: serde_json::Map<String, Value> = parts.as_array().into_iter().flatten().filter_map(part).collect();
    let told = json!({
        "type": "lead.crossed",
        "timestamp": jiff::Timestamp::now().to_string(),
        "data": {
            "pipeline": pipeline,
            "document_id": row.document_id,
            "version": row.version,
            "crossing": crossing,
            "threshold": threshold,
            "score": row.score,
            "maximum": row.maximum,
            "parts": parts,
            "company": row.company,
            "account": row.account,
            "person": row.person,
            "stage": row.stage,
            "intent": row.intent,
        },
    });
    told.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_has_one_id_for_ever_and_no_other_has_it() {
        let id = delivery_id("sales", "d-1", 1);
        assert_eq!(id, delivery_id("sales", "d-1", 1));
        assert_eq!(id.get_version_num(), 8);
        for other in [delivery_id("sales", "d-1", 2), delivery_id("sale", "sd-1", 1), delivery_id("sales", "d-11", 1)] {
            assert_ne!(id, other);
        }
    }
}
