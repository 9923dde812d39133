//! How many documents of the whole match there are under each label or value.
//!
//! The match is every document that passes the filter and, where words count, holds them: any of them, or as the operators say. A
//! vector is near to everything in some degree, so that it narrows nothing.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use utoipa::ToSchema;

use super::SearchQuery;
use super::words::Wording;

/// Values of a facet that are told apart; the rest are counted together.
const VALUES: i64 = 20;

/// What documents are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facet {
    /// The labels of a classification task.
    Label(String),
    /// The values of a field of the metadata; each item of a list.
    Metadata(String),
}

/// The counts of one facet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FacetCounts {
    /// The most frequent values, then by value.
    pub values: Vec<FacetValue>,
    /// Further values, which are not listed.
    pub more: i64,
    /// Documents of the match that have no value here.
    pub without: i64,
}

/// A value and how many documents have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FacetValue {
    /// The label, or the value as text.
    pub value: String,
    /// Documents of the match that have it.
    pub documents: i64,
}

pub(super) async fn count(
    query: &SearchQuery,
    words: Option<&Wording>,
    facet: &Facet,
    connection: &mut PgConnection,
) -> sqlx::Result<FacetCounts> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new("WITH matched AS MATERIALIZED (SELECT d.id, ");
    match facet {
        Facet::Label(task) => sql
            .push(
                "(SELECT coalesce(r.fields -> 'labels', to_jsonb(r.label)) FROM results r
                  WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.task = ",
            )
            .push_bind(task.clone())
            .push(")"),
        Facet::Metadata(field) => sql.push("d.metadata -> ").push_bind(field.clone()).push("::text"),
    };
    sql.push(" AS found FROM documents d WHERE NOT d.deleted AND d.pipeline = ").push_bind(query.pipeline.clone());
    if let Some(words) = words {
        sql.push(" AND d.search @@ ").push_bind(words.widest().to_owned()).push("::text::tsquery");
    }
    query.filter.push(&mut sql);
    sql.push(
        "), counted AS (
             SELECT item.value #>> '{}' AS value, count(DISTINCT m.id) AS documents
             FROM matched m, jsonb_path_query(m.found, '$[*] ? (@ != null)') AS item (value)
             GROUP BY 1)
         SELECT value, documents,
                (SELECT count(*) FROM counted) AS kinds,
                (SELECT count(*) FROM matched WHERE NOT coalesce(jsonb_path_exists(found, '$[*] ? (@ != null)'), false)) AS without
         FROM (VALUES (1)) AS always LEFT JOIN counted ON true
         ORDER BY documents DESC NULLS LAST, value LIMIT ",
    )
    .push_bind(VALUES);
    let rows = sql.build().persistent(false).fetch_all(connection).await?;
    let (mut values, mut kinds, mut without) = (Vec::new(), 0, 0);
    for row in &rows {
        (kinds, without) = (row.try_get("kinds")?, row.try_get("without")?);
        // A match of which nothing has a value still says how many documents that are.
        if let Some(value) = row.try_get("value")? {
            values.push(FacetValue { value, documents: row.try_get("documents")? });
        }
    }
    Ok(FacetCounts { more: kinds - values.len() as i64, values, without })
}
