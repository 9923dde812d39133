//! Inserts vectors with one statement and in binary form. As text a vector is three times as long, and parsing it costs more than
//! storing it.
//!
//! `COPY` would take three round trips instead of one, and 40 ms more with sqlx 0.9.0: sqlx sends the end of the data in a packet
//! of its own and leaves Nagle's algorithm on, so that this packet waits for the server's delayed acknowledgement
//! (<https://github.com/transact-rs/sqlx/issues/4335>).

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, PgConnection, Postgres, Type};

use super::ResultRow;

/// Inserts the vectors of `results`. The table must have none of these documents and tasks.
pub(super) async fn insert(connection: &mut PgConnection, pipeline: &str, results: &[&ResultRow]) -> sqlx::Result<()> {
    let rows: Vec<_> = results
        .iter()
        .filter_map(|result| Some((result, result.embedding.as_ref()?)))
        .flat_map(|(result, (set, chunks))| chunks.iter().enumerate().map(move |(place, chunk)| (*result, *set, place, chunk)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let documents: Vec<&str> = rows.iter().map(|(result, ..)| result.document_id.as_str()).collect();
    let tasks: Vec<&str> = rows.iter().map(|(result, ..)| result.task.as_str()).collect();
    let sets: Vec<i32> = rows.iter().map(|(_, set, ..)| *set).collect();
    let places: Vec<i32> = rows.iter().map(|(_, _, place, _)| *place as i32).collect();
    let starts: Vec<i32> = rows.iter().map(|(.., chunk)| chunk.span.start as i32).collect();
    let ends: Vec<i32> = rows.iter().map(|(.., chunk)| chunk.span.end as i32).collect();
    let tokens: Vec<i32> = rows.iter().map(|(.., chunk)| chunk.tokens as i32).collect();
    let vectors: Vec<Vector<'_>> = rows.iter().map(|(.., chunk)| Vector(&chunk.vector)).collect();
    sqlx::query!(
        "INSERT INTO embeddings (pipeline, document_id, task, set_id, chunk, span_start, span_end, tokens, vector)
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::integer[], $5::integer[], $6::integer[], $7::integer[], $8::integer[],
                                  $9::vector[])",
        pipeline,
        &documents as &[&str],
        &tasks as &[&str],
        &sets,
        &places,
        &starts,
        &ends,
        &tokens,
        &vectors as &[Vector<'_>]
    )
    .execute(connection)
    .await
    .map(drop)
}

/// A vector in pgvector's binary form.
struct Vector<'a>(&'a [f32]);

impl Type<Postgres> for Vector<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("vector")
    }
}

impl PgHasArrayType for Vector<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("vector")
    }
}

impl Encode<'_, Postgres> for Vector<'_> {
    /// Writes the dimension, an unused word, then the components, all big-endian:
    /// <https://github.com/pgvector/pgvector/blob/v0.8.1/src/vector.c>, `vector_recv`.
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let components = self.0;
        buffer.reserve(2 * size_of::<i16>() + size_of_val(components));
        buffer.extend_from_slice(&i16::try_from(components.len())?.to_be_bytes());
        buffer.extend_from_slice(&0_i16.to_be_bytes());
        buffer.extend(components.iter().flat_map(|component| component.to_be_bytes()));
        Ok(IsNull::No)
    }
}
