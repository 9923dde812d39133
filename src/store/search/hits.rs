//! Loads the content of hits: passage, labels, summary, metadata and highlights.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use sqlx::types::Json;

use super::text_query::TextQuery;
use super::vectors::{SpansByDocument, VectorSpace};
use super::{HitLabel, Passage, RankedDocument, SearchHit, SearchQuery, highlight};

pub(super) async fn load(
    query: &SearchQuery,
    space: Option<&VectorSpace<'_>>,
    text_query: Option<&TextQuery>,
    ranked: Vec<RankedDocument>,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<SearchHit>> {
    let ids: Vec<String> = ranked.iter().map(|ranked| ranked.id.clone()).collect();
    let mut spans: SpansByDocument = ranked.iter().filter_map(|ranked| Some((ranked.id.clone(), ranked.chunk?))).collect();
    let unknown: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !spans.contains_key(*id)).collect();
    if let Some(space) = space.filter(|_| !unknown.is_empty()) {
        spans.extend(space.best_chunks(&query.pipeline, &unknown, &mut *connection).await?);
    }
    // If the chunk is known, only its bytes are read; otherwise the part of the text that is indexed for words.
    let starts: Vec<Option<i32>> = ids.iter().map(|id| spans.get(id).map(|span| span.start as i32)).collect();
    let lengths: Vec<Option<i32>> = ids.iter().map(|id| spans.get(id).map(|span| (span.end - span.start) as i32)).collect();
    let rows = sqlx::query!(
        r#"SELECT d.id, d.metadata,
                  coalesce(substring(convert_to(d.text, 'UTF8') FROM h.start + 1 FOR h.length),
                           convert_to(left(d.text, 100000), 'UTF8')) AS "text!",
                  (SELECT jsonb_object_agg(r.task, jsonb_build_object(
                       'label', r.label, 'confidence', r.confidence, 'labels', coalesce(r.fields -> 'labels', '[]')))
                   FROM results r WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'classify'
                  ) AS "labels: Json<BTreeMap<String, HitLabel>>",
                  (SELECT r.text FROM results r
                   WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'summarize'
                   ORDER BY r.task LIMIT 1) AS summary
           FROM unnest($2::text[], $3::integer[], $4::integer[]) AS h (id, start, length)
           JOIN documents d ON d.pipeline = $1 AND d.id = h.id"#,
        query.pipeline,
        &ids,
        &starts as &[Option<i32>],
        &lengths as &[Option<i32>]
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut hits = Vec::with_capacity(ranked.len());
    for RankedDocument { id, score, explanation, .. } in ranked {
        let Some(row) = rows.remove(&id) else { continue };
        let text = String::from_utf8_lossy(&row.text);
        let chunk = match spans.get(&id) {
            Some(span) => Passage { start: span.start, end: span.start + row.text.len(), text: text.into_owned() },
            None => text_query.map_or_else(|| beginning(&text), |text_query| text_query.passage(&text)),
        };
        let labels = row.labels.map(|labels| labels.0).unwrap_or_default();
        let (summary, metadata) = (row.summary, row.metadata);
        hits.push(SearchHit { document_id: id, score, chunk, labels, summary, metadata, highlights: Vec::new(), explanation });
    }
    if let Some(text_query) = text_query {
        highlight::highlight(text_query, &mut hits, connection).await?;
    }
    Ok(hits)
}

/// The passage of a document that was found neither by a chunk nor by its words: the beginning of its text.
fn beginning(text: &str) -> Passage {
    const BYTES: usize = 800;
    let end = text.floor_char_boundary(BYTES);
    Passage { text: text[..end].to_owned(), start: 0, end }
}
