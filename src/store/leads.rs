//! Leads, written in the transaction of the batch that scored them.
//!
//! | step | what | of which |
//! |---|---|---|
//! | 1 | read the stored leads | documents whose version was accepted |
//! | 2 | delete the lead | deleted documents, and those without a score |
//! | 3 | upsert the lead, if anything in it changed | the other documents |
//! | 4 | insert a webhook delivery | leads that reach the threshold now, and did not before |
//! | 5 | count the company's documents again, and publish an event with the newest of them | companies of changed leads, before and after |
//!
//! The rows of documents are locked before, so that two batches with the same document see each other's lead. Companies are locked
//! last, in the order of their keys, so that two batches cannot deadlock.

mod accounts;
mod deliveries;
mod read;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::submission::{LeadRow, Submission};
use tidemill_base::outcome::Fingerprint;

pub use accounts::LeadAccount;
pub use deliveries::{DeliveryAttempt, DeliveryOutcome, LeadDelivery, WaitingDelivery};
pub use read::{LeadDocument, LeadFilter, LeadOrder, LeadPageEnd, StoredLead};

/// A lead as it was stored before the batch.
struct Previous {
    lead: LeadRow,
    /// Whether the score reached the threshold of that time.
    above: bool,
}

/// Writes the leads of the submission, for documents whose version was accepted.
pub(super) async fn write(
    connection: &mut PgConnection,
    submission: &Submission,
    accepted: &HashSet<String>,
) -> sqlx::Result<()> {
    let pipeline = submission.batch.pipeline.as_str();
    let without_score = submission.leads.iter().flat_map(|leads| &leads.gone).filter(|id| accepted.contains(*id));
    let mut gone = submission.deleted_ids(accepted);
    gone.extend(without_score.map(String::as_str));
    gone.sort_unstable();
    let rows = submission.leads.iter().flat_map(|leads| &leads.rows);
    let mut rows: Vec<&LeadRow> = rows.filter(|row| accepted.contains(&row.document_id)).collect();
    rows.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    let ids: Vec<&str> = rows.iter().map(|row| row.document_id.as_str()).chain(gone.iter().copied()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let previous = previous(connection, pipeline, &ids).await?;
    // Leads of deleted documents are deleted even if the pipeline file has no section for leads any more.
    sqlx::query!("DELETE FROM leads WHERE pipeline = $1 AND document_id = ANY($2)", pipeline, &gone as &[&str])
        .execute(&mut *connection)
        .await?;
    let Some(leads) = &submission.leads else { return Ok(()) };
    rows.retain(|row| previous.get(&row.document_id).is_none_or(|previous| !previous.equals(row, leads.threshold)));
    upsert(connection, pipeline, leads.threshold, &rows).await?;
    let was_above = |row: &LeadRow| previous.get(&row.document_id).is_some_and(|previous| previous.above);
    let crossed = rows.iter().filter(|row| row.score >= leads.threshold && !was_above(row));
    let crossed: Vec<&LeadRow> = crossed.copied().collect();
    if let Some(webhook) = &leads.webhook {
        insert_deliveries(connection, pipeline, webhook, leads.threshold, &crossed).await?;
    }
    // The companies whose documents changed, each with its name where the batch brings one.
    let mut companies: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for id in rows.iter().map(|row| row.document_id.as_str()).chain(gone) {
        if let Some(account) = previous.get(id).and_then(|previous| previous.lead.account.as_deref()) {
            companies.entry(account).or_default();
        }
    }
    for row in &rows {
        if let Some(account) = &row.account {
            companies.insert(account, row.company.as_deref());
        }
    }
    accounts::update(connection, pipeline, &companies, leads.accounts.as_ref()).await
}

impl Previous {
    /// Whether the row is exactly what is stored. The parts are compared as JSON, whose keys the database reorders.
    fn equals(&self, row: &LeadRow, threshold: f64) -> bool {
        let parts = |row: &LeadRow| serde_json::from_str::<Value>(&row.parts).ok();
        self.above == (row.score >= threshold)
            && parts(&self.lead) == parts(row)
            && self.lead == LeadRow { parts: self.lead.parts.clone(), ..row.clone() }
    }
}

async fn previous(connection: &mut PgConnection, pipeline: &str, ids: &[&str]) -> sqlx::Result<HashMap<String, Previous>> {
    let rows = sqlx::query!(
        "SELECT document_id, version, content, score, maximum, parts, company, account, person, stage, intent, above
         FROM leads WHERE pipeline = $1 AND document_id = ANY($2)",
        pipeline,
        ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let previous = rows.into_iter().map(|row| Previous {
        lead: LeadRow {
            document_id: row.document_id,
            version: row.version,
            content: row.content,
            score: row.score,
            maximum: row.maximum,
            parts: row.parts.to_string(),
            company: row.company,
            account: row.account,
            person: row.person,
            stage: row.stage,
            intent: row.intent,
        },
        above: row.above,
    });
    Ok(previous.map(|previous| (previous.lead.document_id.clone(), previous)).collect())
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

/// Inserts a delivery for each lead that reached the threshold. The delivery's id is made of the document and the number of the
/// crossing: a lead that falls below the threshold and reaches it again is delivered again, and a record that is read twice is not.
async fn insert_deliveries(
    connection: &mut PgConnection,
    pipeline: &str,
    webhook: &str,
    threshold: f64,
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

/// The body that the receiver gets. It holds no text of the document: a receiver that may read the text queries the API for it.
fn body(pipeline: &str, row: &LeadRow, crossing: i32, threshold: f64) -> String {
    let parts: Value = serde_json::from_str(&row.parts).unwrap_or_default();
    let part = |part: &Value| Some((part.get("name")?.as_str()?.to_owned(), part.get("value")?.clone()));
    let parts: serde_json::Map<String, Value> = parts.as_array().into_iter().flatten().filter_map(part).collect();
    let body = json!({
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
    body.to_string()
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
