//! Queries of leads: page by page, and one by one.

use serde_json::Value;

use super::super::{Reader, WithDeadline};
use tidemill_base::failure::Transient;

/// A row of `leads`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLead {
    pub document_id: String,
    pub version: i64,
    pub score: f64,
    /// The highest score that the pipeline gave then.
    pub maximum: f64,
    /// The parts of the score: a list of objects with name, value and formula.
    pub parts: Value,
    /// The company's name as the document writes it.
    pub company: Option<String>,
    /// The company's normalized name.
    pub account: Option<String>,
    pub person: Option<String>,
    pub stage: Option<String>,
    /// What the person wants.
    pub intent: Option<String>,
    /// Whether the score reached the threshold of that time.
    pub above: bool,
    /// When the lead last changed, in Unix microseconds.
    pub updated_at_us: i64,
}

/// The text and metadata of a lead's document.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadDocument {
    pub text: String,
    pub metadata: Value,
}

/// Which leads to list. A lead must match every field that is set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeadFilter {
    pub min_score: Option<f64>,
    /// The company's normalized name.
    pub account: Option<String>,
    pub stage: Option<String>,
}

/// The order of a list of leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadOrder {
    /// The highest score first.
    Score,
    /// The latest change first.
    Latest,
    /// The earliest change first.
    Earliest,
}

/// The end of a page, after which the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadPageEnd {
    /// The score of the page's last lead, or the time of its last change in Unix microseconds, depending on the order.
    pub value: f64,
    /// The last lead's document, which decides between leads with equal values.
    pub document_id: String,
}

/// A [`StoredLead`] of a row with its columns.
macro_rules! stored_lead {
    ($row:expr) => {
        StoredLead {
            document_id: $row.document_id,
            version: $row.version,
            score: $row.score,
            maximum: $row.maximum,
            parts: $row.parts,
            company: $row.company,
            account: $row.account,
            person: $row.person,
            stage: $row.stage,
            intent: $row.intent,
            above: $row.above,
            updated_at_us: $row.updated_at_us,
        }
    };
}

/// The page after `$place`. `$after` compares a row with it, `$order` holds the columns to sort by.
macro_rules! page {
    ($after:literal, $order:literal, $pipeline:expr, $filter:expr, $place:expr, $limit:expr) => {
        sqlx::query!(
            r#"SELECT document_id, version, score, maximum, parts, company, account, person, stage, intent, above,
                      (extract(epoch FROM updated_at) * 1000000)::bigint AS "updated_at_us!"
               FROM leads
               WHERE pipeline = $1 AND "#
                + $after
                + " AND ($4::double precision IS NULL OR score >= $4) AND ($5::text IS NULL OR account = $5)
                    AND ($6::text IS NULL OR stage = $6) ORDER BY "
                + $order
                + " LIMIT $7",
            $pipeline,
            $place.value,
            $place.document_id,
            $filter.min_score,
            $filter.account,
            $filter.stage,
            $limit
        )
        .map(|row| stored_lead!(row))
    };
}

impl LeadOrder {
    /// The place before the first lead.
    pub fn start(self) -> LeadPageEnd {
        let value = match self {
            Self::Score | Self::Latest => f64::INFINITY,
            Self::Earliest => f64::NEG_INFINITY,
        };
        LeadPageEnd { value, document_id: String::new() }
    }

    /// The end of a page with this last lead.
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
    /// The leads after `place` in that order, at most `limit`.
    pub async fn leads(
        &self,
        pipeline: &str,
        filter: &LeadFilter,
        order: LeadOrder,
        place: &LeadPageEnd,
        limit: i64,
    ) -> Result<Vec<StoredLead>, Transient> {
        let mut view = self.view().await?;
        let found = match order {
            LeadOrder::Score => {
                let page = page!(
                    "(score, document_id) < ($2::double precision, $3::text)",
                    "score DESC, document_id DESC",
                    pipeline,
                    filter,
                    place,
                    limit
                );
                page.fetch_all(view.connection()).with_deadline(self.deadline()).await?
            }
            LeadOrder::Latest => {
                let page = page!(
                    "(updated_at, document_id) < (CASE WHEN $2::double precision = 'Infinity' THEN 'infinity'::timestamptz
                                                  ELSE timestamptz 'epoch' + $2 * interval '1 microsecond' END, $3::text)",
                    "updated_at DESC, document_id DESC",
                    pipeline,
                    filter,
                    place,
                    limit
                );
                page.fetch_all(view.connection()).with_deadline(self.deadline()).await?
            }
            LeadOrder::Earliest => {
                let page = page!(
                    "(updated_at, document_id) > (CASE WHEN $2::double precision = '-Infinity' THEN '-infinity'::timestamptz
                                                  ELSE timestamptz 'epoch' + $2 * interval '1 microsecond' END, $3::text)",
                    "updated_at, document_id",
                    pipeline,
                    filter,
                    place,
                    limit
                );
                page.fetch_all(view.connection()).with_deadline(self.deadline()).await?
            }
        };
        view.end(self.deadline()).await?;
        Ok(found)
    }

    /// The lead of one document, with the document's text.
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
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(row.map(|row| (stored_lead!(row), LeadDocument { text: row.text, metadata: row.metadata })))
    }
}
