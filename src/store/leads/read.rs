//! Leads, page by page, and each as it is.

use serde_json::Value;

use super::super::{InTime, Reader};
use tidemill_base::failure::Transient;

/// A lead as the ledger has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLead {
    /// The document.
    pub document_id: String,
    /// Its version.
    pub version: i64,
    /// The score.
    pub score: f64,
    /// The most that it can be.
    pub maximum: f64,
    /// Its parts: a list of name, value and formula.
    pub parts: Value,
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
    /// Whether its score reached the threshold of its time.
    pub above: bool,
    /// When it last changed, in Unix microseconds.
    pub updated_at_us: i64,
}

/// What a lead is a lead by.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadDocument {
    /// The document's text.
    pub text: String,
    /// The document's metadata.
    pub metadata: Value,
}

/// Which leads are meant; everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeadFilter {
    /// With at least this score.
    pub min_score: Option<f64>,
    /// Of this company.
    pub account: Option<String>,
    /// In this stage.
    pub stage: Option<String>,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadOrder {
    /// The highest score first.
    Score,
    /// What changed last first.
    Latest,
    /// What changed longest ago first.
    Earliest,
}

/// Where a page ends.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadPageEnd {
    /// The score of its last lead, or when that changed, in Unix microseconds.
    pub value: f64,
    /// The last lead's document, which tells equal ones apart.
    pub document_id: String,
}

/// The page behind a place, by the order's comparison and its columns.
macro_rules! page {
    ($behind:literal, $order:literal, $asked:expr) => {{
        let (pipeline, filter, place, limit): (&str, &LeadFilter, &LeadPageEnd, i64) = $asked;
        sqlx::query_as!(
            StoredLead,
            r#"SELECT document_id, version, score, maximum, parts, company, account, person, stage, intent, above,
                      (extract(epoch FROM updated_at) * 1000000)::bigint AS "updated_at_us!"
               FROM leads
               WHERE pipeline = $1 AND "#
                + $behind
                + " AND ($4::double precision IS NULL OR score >= $4) AND ($5::text IS NULL OR account = $5)
                    AND ($6::text IS NULL OR stage = $6) ORDER BY "
                + $order
                + " LIMIT $7",
            pipeline,
            place.value,
            place.document_id,
            filter.min_score,
            filter.account,
            filter.stage,
            limit
        )
    }};
}

impl LeadOrder {
    /// Before every lead.
    pub fn start(self) -> LeadPageEnd {
        let value = match self {
            Self::Score | Self::Latest => f64::INFINITY,
            Self::Earliest => f64::NEG_INFINITY,
        };
        LeadPageEnd { value, document_id: String::new() }
    }

    /// Where a page ends whose last lead this is.
    pub fn place(self, last: &StoredLead) -> LeadPageEnd {
        let value = match self {
            Self::Score => last.score,
            // Microseconds since 1970 are whole numbers far below 2^53.
            Self::Latest | Self::Earliest => last.updated_at_us as f64,
        };
        LeadPageEnd { value, document_id: last.document_id.clone() }
    }
}

impl Reader {
    /// The leads behind `place` in that order, at most `limit`.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn leads(
        &self,
        pipeline: &str,
        filter: &LeadFilter,
        (order, place): (LeadOrder, &LeadPageEnd),
        limit: i64,
    ) -> Result<Vec<StoredLead>, Transient> {
        let mut view = self.view().await?;
        let asked = (pipeline, filter, place, limit);
        let found = match order {
            LeadOrder::Score => {
                let page =
                    page!("(score, document_id) < ($2::double precision, $3::text)", "score DESC, document_id DESC", asked);
                page.fetch_all(view.connection()).in_time(self.deadline()).await?
            }
            LeadOrder::Latest => {
                let page = page!(
                    "(updated_at, document_id) < (CASE WHEN $2::double precision = 'Infinity' THEN 'infinity'::timestamptz
                                                  ELSE timestamptz 'epoch' + $2 * interval '1 microsecond' END, $3::text)",
                    "updated_at DESC, document_id DESC",
                    asked
                );
                page.fetch_all(view.connection()).in_time(self.deadline()).await?
            }
            LeadOrder::Earliest => {
                let page = page!(
                    "(updated_at, document_id) > (CASE WHEN $2::double precision = '-Infinity' THEN '-infinity'::timestamptz
                                                  ELSE timestamptz 'epoch' + $2 * interval '1 microsecond' END, $3::text)",
                    "updated_at, document_id",
                    asked
                );
                page.fetch_all(view.connection()).in_time(self.deadline()).await?
            }
        };
        view.end(self.deadline()).await?;
        Ok(found)
    }

    /// The lead that a document is, with the document's text.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn lead(&self, pipeline: &str, document_id: &str) -> Result<Option<(StoredLead, LeadDocument)>, Transient> {
        let mut view = self.view().await?;
        let row = sqlx::query!(
            r#"SELECT l.document_id, l.version, l.score, l.maximum, l.parts, l.company, l.account, l.person, l.stage, l.intent, l.above,
                      (extract(epoch FROM l.updated_at) * 1000000)::bigint AS "updated_at_us!", d.text, d.metadata
               FROM leads l JOIN documents d ON d.pipeline = l.pipeline AND d.id = l.document_id
               WHERE l.pipeline = $1 AND l.document_id = $2"#,
            pipeline,
            document_id
        )
        .fetch_optional(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let described = row.map(|row| {
            let lead = StoredLead {
                document_id: row.document_id,
                version: row.version,
                score: row.score,
                maximum: row.maximum,
                parts: row.parts,
                company: row.company,
                account: row.account,
                person: row.person,
                stage: row.stage,
                intent: row.intent,
                above: row.above,
                updated_at_us: row.updated_at_us,
            };
            (lead, LeadDocument { text: row.text, metadata: row.metadata })
        });
        Ok(described)
    }
}
