//! A deleted document stays deleted, even where a commit comes after the delete whose record was read before it.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use sqlx::{Connection, PgConnection, Row};
use tidemill::checkpoint::CheckpointDelta;
use tidemill::record::Partition;
use tidemill::store::{BatchRow, DocumentContent, DocumentRow, Store, Submission};
use uuid::Uuid;

use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, only_a_later_record_brings_back_a_document_in_the_version_of_its_delete),
        trial!(Needs::NOTHING, a_delete_of_any_version_stands_over_a_newer_one_that_commits_beside_it),
    ]
}

const PIPELINE: &str = "notes";

/// A document of that version and text; a delete where there is no text.
fn document(version: Option<i64>, text: Option<&str>) -> DocumentRow {
    DocumentRow {
        id: "a".into(),
        version,
        wins: version.is_none(),
        revives: false,
        content: text.map(|text| DocumentContent { text: text.into(), metadata: "{}".into(), source: None }),
    }
}

/// Commits the document as the next batch of a partition of its own, and returns whether it was left out.
async fn commit(store: &Store, document: DocumentRow) -> bool {
    let partition = Partition { topic: Arc::from(Uuid::now_v7().to_string()), number: 0 };
    store.claim(PIPELINE, &partition, "test").await.unwrap();
    let (from, to) = (0, 1);
    let delta = CheckpointDelta { partition, epoch: 1, from, to };
    let submission = Submission {
        batch: BatchRow { id: Uuid::now_v7(), pipeline: PIPELINE.into(), delta, records: 1, parquet_rows: 0 },
        usage: Vec::new(),
        documents: vec![document],
        results: Vec::new(),
        unchanged: Vec::new(),
        removed: Vec::new(),
        dead_letters: Vec::new(),
        events: Vec::new(),
        file: None,
        copy: None,
        tolerance: None,
        leads: None,
    };
    store.commit(&submission).await.unwrap().superseded == 1
}

async fn stored(url: &str) -> (i64, bool, String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let row =
        sqlx::query("SELECT version, deleted, text FROM documents WHERE id = 'a'").fetch_one(&mut connection).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

async fn only_a_later_record_brings_back_a_document_in_the_version_of_its_delete() {
    let database = postgres::database().await;
    let (store, url) = (&database.store, &database.url);
    assert!(!commit(store, document(Some(5), Some("as it was"))).await);
    assert!(!commit(store, document(None, None)).await);
    assert_eq!(stored(url).await, (5, true, String::new()), "a delete that names no version ends the one that is there");

    assert!(commit(store, document(Some(5), Some("read before the delete"))).await, "what a job read before came back");
    assert_eq!(stored(url).await, (5, true, String::new()));
    let later = DocumentRow { revives: true, ..document(Some(5), Some("sent after the delete")) };
    assert!(!commit(store, later).await, "a record that came after the delete is lost");
    assert_eq!(stored(url).await, (5, false, "sent after the delete".to_owned()));
    assert!(!commit(store, document(Some(5), Some("run again"))).await, "what is not deleted can be run again");
    assert!(!commit(store, document(Some(5), None)).await, "a delete of that version ends it");
    assert!(!commit(store, document(Some(6), Some("newer"))).await, "a newer version was left out");
    assert!(commit(store, document(Some(5), None)).await, "a delete of an older version is no delete of this one");
    assert_eq!(stored(url).await, (6, false, "newer".to_owned()));
}

async fn a_delete_of_any_version_stands_over_a_newer_one_that_commits_beside_it() {
    let database = postgres::database().await;
    let (store, url) = (&database.store, &database.url);
    commit(store, document(Some(5), Some("as it was"))).await;
    // Another transaction has written a newer version and holds the row's lock.
    let mut other = PgConnection::connect(url).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("UPDATE documents SET version = 6, text = 'newer' WHERE id = 'a'").execute(&mut *transaction).await.unwrap();
    let delete = tokio::spawn({
        let store = store.clone();
        async move { commit(&store, document(None, None)).await }
    });
    eventually("the delete waits for the row", Duration::from_secs(20), || async {
        postgres::count(
            url,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
            == 1
    })
    .await;
    transaction.commit().await.unwrap();
    assert!(!delete.await.unwrap(), "the delete is lost");
    assert_eq!(stored(url).await, (6, true, String::new()), "the newer version stands over a delete of any version");
}
