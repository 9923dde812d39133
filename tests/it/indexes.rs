//! The index of an embedding set, which is built once the set is large.

use std::time::Duration;

use libtest_mimic::Trial;
use sqlx::{Connection, PgConnection};
use tidemill::outcome::EmbeddingSet;
use tidemill::store::SearchFilter;

use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka, postgres};
use crate::search::{add_crowd, setup};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, a_vector_space_is_indexed_once_it_is_large),
        trial!(Needs::KAFKA, a_service_indexes_what_has_become_large),
    ]
}

/// None where the set has no index.
async fn index_is_valid(connection: &mut PgConnection, set: i32) -> Option<bool> {
    sqlx::query_scalar("SELECT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('embeddings_set_' || $1))")
        .bind(set)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn a_service_indexes_what_has_become_large() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let set = EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: 3 };
    let id = stream.store.embedding_set(&set).await.unwrap();
    add_crowd(&stream.database_url, id).await;
    let mut connection = PgConnection::connect(&stream.database_url).await.unwrap();
    assert_eq!(index_is_valid(&mut connection, id).await, None);
    let _worker = stream.worker("");
    eventually("the index is built", Duration::from_secs(60), async || {
        let mut connection = PgConnection::connect(&stream.database_url).await.unwrap();
        index_is_valid(&mut connection, id).await == Some(true)
    })
    .await;
}

async fn a_vector_space_is_indexed_once_it_is_large() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;
    let store = &setup.store;
    let id = store.embedding_set(&setup.set).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let nothing: [i32; 0] = [];
    assert_eq!(store.index_embedding_sets().await.unwrap(), nothing);
    assert_eq!(index_is_valid(&mut connection, id).await, None, "a small space is compared whole and has no index");

    add_crowd(&database.url, id).await;
    // Another process holds this lock while it builds an index.
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(x'74696465696e6478'::bigint)").execute(&mut other).await.unwrap();
    assert_eq!(store.index_embedding_sets().await.unwrap(), nothing, "two build at a time");
    other.close().await.unwrap();
    let (limit, query) = (Duration::from_secs(20), setup.question(None, Some([1.0, 0.0, 0.0]), SearchFilter::default(), 10));
    eventually("the index is built", limit, async || store.index_embedding_sets().await.unwrap() == [id]).await;
    assert_eq!(store.index_embedding_sets().await.unwrap(), nothing, "it is built once");
    assert_eq!(index_is_valid(&mut connection, id).await, Some(true));
    assert_eq!(setup.page(&query).await.hits.len(), 10);
    eventually("a search has read the index", limit, async || {
        let scans =
            "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes WHERE indexrelname ~ '^embeddings_set_[0-9]'";
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar::<_, i64>(scans).fetch_one(&mut connection).await.unwrap() > 0
    })
    .await;

    // A process that is killed while it builds leaves an invalid index.
    let killed = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('embeddings_set_' || $1)";
    sqlx::query(killed).bind(id).execute(&mut connection).await.unwrap();
    assert_eq!(store.index_embedding_sets().await.unwrap(), [id]);
    assert_eq!(index_is_valid(&mut connection, id).await, Some(true), "what was half built is built anew");

    // pgvector cannot index vectors of so many dimensions.
    let wide = EmbeddingSet { model: "wide".into(), revision: "r".into(), dimension: 2_001 };
    let wide = store.embedding_set(&wide).await.unwrap();
    let moved = sqlx::query("UPDATE embeddings SET set_id = $1").bind(wide).execute(&mut connection).await.unwrap();
    assert!(moved.rows_affected() > 12_000);
    assert_eq!(store.index_embedding_sets().await.unwrap(), nothing);
}
