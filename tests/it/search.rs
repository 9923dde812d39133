//! Search against a real Postgres with pgvector.

use libtest_mimic::Trial;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tidemill::config::DatabaseConfig;
use tidemill::outcome::EmbeddingSet;
use tidemill::store::{QueryVector, SearchFilter, SearchHit, SearchQuery, Store};

use crate::harness::postgres;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![trial("search::finds_what_was_asked_for_and_nothing_else", Needs::NOTHING, finds_what_was_asked_for)]
}

/// A pipeline of a few notes, and one note of another pipeline.
struct Library {
    store: Store,
    set: EmbeddingSet,
}

/// Fills the empty database at `url`.
async fn library(url: &str) -> Library {
    let store = Store::connect(&DatabaseConfig { url: Some(url.to_owned()), ..DatabaseConfig::default() }).unwrap();
    store.migrate().await.unwrap();
    let set = EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: 3 };
    let id = store.embedding_set(&set).await.unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    for (name, text, metadata, label, vector) in [
        ("tomato", "Tomatoes want sun and water. Prune the side shoots.", json!({"shelf": "b", "price": 3}), "garden", "[0,1,0]"),
        ("kettle", "A kettle boils water in two minutes.", json!({"shelf": "a", "tags": ["steel", "red"]}), "kitchen", "[0,0,1]"),
        ("rake", "The rake gathers leaves.", json!({"shelf": "b"}), "garden", "[0,0.6,0.8]"),
        ("korean", "토마토는 햇빛이 필요하다", json!({}), "garden", "[-1,0,0]"),
    ] {
        insert(&mut connection, id, "notes", name, text).await;
        let labels = json!({"labels": [label]});
        sqlx::query("UPDATE documents SET metadata = $2 WHERE id = $1")
            .bind(name)
            .bind(metadata)
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO results (pipeline, document_id, task, kind, version, label, confidence, text, fields, fingerprint, tokens, device_micros, batch_id)
             VALUES ('notes', $1, 'topic', 'classify', 1, $2, 0.9, NULL, $3, '', 1, 1, gen_random_uuid()),
                    ('notes', $1, 'summary', 'summarize', 1, NULL, NULL, 'in short: ' || $1, '{}', '', 1, 1, gen_random_uuid())",
        )
        .bind(name)
        .bind(label)
        .bind(labels)
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query("UPDATE embeddings SET vector = $2::text::vector WHERE document_id = $1")
            .bind(name)
            .bind(vector)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    insert(&mut connection, id, "other", "elsewhere", "Tomatoes of another pipeline.").await;
    insert(&mut connection, id, "notes", "gone", "Leaves, water and tomatoes, long deleted.").await;
    sqlx::raw_sql("UPDATE documents SET deleted = true WHERE id = 'gone'; DELETE FROM embeddings WHERE document_id = 'gone'")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    Library { store, set }
}

/// Adds a crowd of notes that lies nearer to `[1, 0, 0]` than any other, large enough that the index is used.
async fn crowd(url: &str, library: &Library) {
    let id = library.store.embedding_set(&library.set).await.unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
         SELECT 'notes', 'crowd-' || n, 1, false, 'filler', '{{}}', gen_random_uuid() FROM generate_series(1, 12000) AS n;
         INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
         SELECT {id}, 'notes', 'crowd-' || n, 'vector', 0, 0, 6, 1, ('[' || 0.2 + random() || ',' || random() - 0.5 || ',' || random() - 0.5 || ']')::vector
         FROM generate_series(1, 12000) AS n;
         ANALYZE"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

/// A document with one chunk a sentence; the vector is given to all of them.
async fn insert(connection: &mut PgConnection, set: i32, pipeline: &str, id: &str, text: &str) {
    sqlx::query("INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id) VALUES ($1, $2, 1, false, $3, '{}', gen_random_uuid())")
        .bind(pipeline)
        .bind(id)
        .bind(text)
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut start = 0;
    for (chunk, sentence) in text.split_inclusive(". ").enumerate() {
        let end = start + sentence.len();
        sqlx::query("INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector) VALUES ($1, $2, $3, 'vector', $4, $5, $6, 5, '[0,1,0]')")
            .bind(set)
            .bind(pipeline)
            .bind(id)
            .bind(chunk as i32)
            .bind(start as i32)
            .bind(end as i32)
            .execute(&mut *connection)
            .await
            .unwrap();
        start = end;
    }
}

impl Library {
    async fn hits(&self, words: Option<&str>, vector: Option<[f32; 3]>, filter: SearchFilter, limit: usize) -> Vec<SearchHit> {
        let vector = vector.map(|v| QueryVector {
            set: self.set.clone(),
            task: "vector".into(),
            vector: v.to_vec(),
            words: String::new(),
        });
        let query = SearchQuery { pipeline: "notes".into(), words: words.map(str::to_owned), vector, limit, filter };
        self.store.search(query).await.unwrap()
    }

    async fn by_words(&self, words: &str) -> Vec<String> {
        ids(&self.hits(Some(words), None, SearchFilter::default(), 5).await)
    }
}

fn ids(hits: &[SearchHit]) -> Vec<String> {
    hits.iter().map(|hit| hit.document_id.clone()).collect()
}

fn labelled(label: &str) -> SearchFilter {
    SearchFilter { labels: vec![("topic".into(), label.into())], metadata: Vec::new() }
}

/// Everything about search that needs a database; one library serves all.
async fn finds_what_was_asked_for() {
    let database = postgres::database().await;
    let library = library(&database.url).await;

    let kettle = &library.hits(None, Some([0.0, 0.0, 1.0]), SearchFilter::default(), 1).await[0];
    assert_eq!((kettle.document_id.as_str(), kettle.summary.as_deref()), ("kettle", Some("in short: kettle")));
    assert_eq!(kettle.labels["topic"].label.as_deref(), Some("kitchen"));
    assert_eq!((kettle.chunk.start, kettle.chunk.end), (0, 36));
    assert_eq!(kettle.chunk.text, "A kettle boils water in two minutes.");

    assert_eq!(library.by_words("watering").await, ["kettle", "tomato"].map(String::from), "words are stemmed");
    assert_eq!(library.by_words("how do I prune a tomato plant").await, ["tomato"], "a question is not AND-ed to nothing");
    assert_eq!(library.by_words("water -kettle").await, ["tomato"], "an operator is meant");
    assert_eq!(library.by_words("토마토").await, ["korean"], "a word is found that goes on with a particle");
    for nonsense in ["'; DROP TABLE documents; --", "\\' :* & | ! ( ) <->", "the of and", "%s {{ 7*7 }} $1"] {
        library.by_words(nonsense).await;
    }
    assert_eq!(library.by_words("leaves").await, ["rake"], "the tables are as they were");

    let metadata = |alternatives| SearchFilter { labels: Vec::new(), metadata: vec![alternatives] };
    let cases = [
        (metadata(vec![json!({"shelf": "b"})]), vec!["rake", "tomato"]),
        (metadata(vec![json!({"price": "3"}), json!({"price": 3})]), vec!["tomato"]),
        (metadata(vec![json!({"tags": "red"}), json!({"tags": ["red"]})]), vec!["kettle"]),
        (metadata(vec![json!({"shelf": "z"})]), vec![]),
        (SearchFilter { metadata: vec![vec![json!({"shelf": "a"})]], ..labelled("garden") }, vec![]),
    ];
    for (filter, expected) in cases {
        for (words, vector) in [(Some("water leaves"), None), (None, Some([1.0, 0.0, 0.0]))] {
            let mut found = ids(&library.hits(words, vector, filter.clone(), 5).await);
            found.sort();
            assert_eq!(found, expected, "words {words:?}, vector {vector:?}, filter {filter:?}");
        }
    }

    let fused = library.hits(Some("boil water"), Some([0.0, 0.0, 1.0]), SearchFilter::default(), 2).await;
    assert_eq!(fused[0].document_id, "kettle");
    assert_eq!((fused[0].ranks.vector, fused[0].ranks.text), (Some(1), Some(1)));
    assert!((fused[0].score - 2.0 / 61.0).abs() < 1e-9, "{}", fused[0].score);

    // A graph index may lose a vector that lies far from all others, so only what lies in the crowd is asserted without a filter.
    crowd(&database.url, &library).await;
    // 12,000 documents lie between the query and the few that pass the filter.
    let hits = library.hits(None, Some([1.0, 0.0, 0.0]), labelled("garden"), 3).await;
    assert_eq!(ids(&hits), ["rake", "tomato", "korean"].map(String::from), "a narrow filter starves the vector search");
    let unfiltered = library.hits(None, Some([1.0, 0.0, 0.0]), SearchFilter::default(), 10).await;
    assert_eq!(unfiltered.len(), 10);
    assert!(unfiltered.iter().all(|hit| hit.document_id.starts_with("crowd-") && hit.score > 0.99), "{unfiltered:?}");
}
