//! Facets: how many of the matching documents have each label or value.
//!
//! A document matches if it passes the filter and, in a search by words, holds any of them, or all that the query's operators
//! require. A vector does not restrict which documents match, because every document has some similarity to it.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use utoipa::ToSchema;

use super::SearchQuery;
use super::text_query::TextQuery;

/// How many values of a facet are listed.
const VALUES: i64 = 20;

/// What to count documents by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facet {
    /// The labels of a classification task.
    Label(String),
    /// The values of a metadata field. If a value is a list, each of its items counts.
    Metadata(String),
}

/// The counts of one facet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FacetCounts {
    /// The most frequent values, in the order of counts, then of values.
    pub values: Vec<FacetValue>,
    /// How many further values there are.
    pub more: i64,
    /// Matching documents without a value.
    pub without: i64,
}

/// A value and the number of documents with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FacetValue {
    /// The label, or the value as text.
    pub value: String,
    /// Matching documents with this value.
    pub documents: i64,
}

pub(super) async fn count(
    query: &SearchQuery,
    words: Option<&TextQuery>,
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
        // Where no document has a value, one row without a value still has the number of documents.
        if let Some(value) = row.try_get("value")? {
            values.push(FacetValue { value, documents: row.try_get("documents")? });
        }
    }
    Ok(FacetCounts { more: kinds - values.len() as i64, values, without })
}
