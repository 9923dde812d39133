//! Vectors enter by binary `COPY`: as text a vector is three times as long, and parsing it costs more than storing it.

use sqlx::PgConnection;

use super::ResultRow;

/// Signature, no flags, no extension: <https://www.postgresql.org/docs/current/sql-copy.html>.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Writes the vectors of `results`, of which there must be none in the table.
pub(super) async fn embeddings(connection: &mut PgConnection, pipeline: &str, results: &[&ResultRow]) -> sqlx::Result<()> {
    let mut buffer = HEADER.to_vec();
    for result in results {
        let Some((set_id, chunks)) = &result.embedding else { continue };
        for (number, chunk) in chunks.iter().enumerate() {
            buffer.extend_from_slice(&9_i16.to_be_bytes());
            integer(&mut buffer, *set_id);
            field(&mut buffer, pipeline.as_bytes());
            field(&mut buffer, result.document_id.as_bytes());
            field(&mut buffer, result.task.as_bytes());
            integer(&mut buffer, number as i32);
            integer(&mut buffer, chunk.span.start as i32);
            integer(&mut buffer, chunk.span.end as i32);
            integer(&mut buffer, chunk.tokens as i32);
            vector(&mut buffer, &chunk.vector);
        }
    }
    if buffer.len() == HEADER.len() {
        return Ok(());
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    let mut copy = connection
        .copy_in_raw(
            "COPY embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
             FROM STDIN (FORMAT binary)",
        )
        .await?;
    copy.send(buffer).await?;
    copy.finish().await.map(drop)
}

fn field(buffer: &mut Vec<u8>, bytes: &[u8]) {
    integer_raw(buffer, bytes.len() as i32);
    buffer.extend_from_slice(bytes);
}

fn integer(buffer: &mut Vec<u8>, value: i32) {
    integer_raw(buffer, 4);
    integer_raw(buffer, value);
}

fn integer_raw(buffer: &mut Vec<u8>, value: i32) {
    buffer.extend_from_slice(&value.to_be_bytes());
}

/// pgvector's binary form: the dimension, an unused word, then the components, all big-endian.
fn vector(buffer: &mut Vec<u8>, components: &[f32]) {
    integer_raw(buffer, 4 + 4 * components.len() as i32);
    buffer.extend_from_slice(&(components.len() as i16).to_be_bytes());
    buffer.extend_from_slice(&0_i16.to_be_bytes());
    for component in components {
        buffer.extend_from_slice(&component.to_be_bytes());
    }
}
