//! The quality of search: `TIDEMILL_BENCH=1 TIDEMILL_DATA=folder cargo test --test it search_quality`. Each prints one JSON object
//! and fails where a figure misses its limit. The folder holds `ag_news.jsonl` (`id`, `title`, `text`) and `grimm_tales.jsonl`
//! (`id`, `abstract`, `text`), which are not part of the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tidemill::config::{DatabaseConfig, EngineConfig, ModelConfig};
use tidemill::demo::download;
use tidemill::engine::{Chunking, EncodedText, Engine, Prediction, Request, TextKind, Work};
use tidemill::outcome::EmbeddingSet;
use tidemill::pipeline::definition::Definition;
use tidemill::search::{Mode, SearchRequest, Searcher};
use tidemill::store::{Fusion, QueryVector, SearchFilter, SearchQuery, Store};

use crate::harness::postgres;
use crate::harness::trial::{Needs, trial};

/// The tests, where `TIDEMILL_BENCH` is set.
pub fn trials() -> Vec<Trial> {
    if std::env::var_os("TIDEMILL_BENCH").is_none() {
        return Vec::new();
    }
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(1800));
    vec![
        trial!(alone, a_title_finds_its_article),
        trial!(alone, an_abstract_finds_its_tale),
        trial!(alone, an_index_of_a_hundred_thousand_vectors),
    ]
}

/// Rows of a file in the folder that `TIDEMILL_DATA` names.
fn rows(name: &str) -> Vec<Value> {
    let folder: PathBuf =
        std::env::var_os("TIDEMILL_DATA").expect("TIDEMILL_DATA names no folder; set it to one that holds the data").into();
    let path = folder.join(name);
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{} cannot be read: {e}; see this file's head", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{row} has no `{field}`"))
}

/// Documents of one pipeline, and the service's own search over them.
struct SearchSetup {
    searcher: Searcher,
    _database: postgres::Database,
}

/// Encodes and stores the documents.
async fn setup(documents: &[(String, String)]) -> SearchSetup {
    let folder = download::sentence_encoder(&|message| eprintln!("{message}")).unwrap();
    let models = BTreeMap::from([("minilm".to_owned(), ModelConfig::local(folder))]);
    let engine = Engine::start(&EngineConfig::default(), &models).unwrap();
    let file = "version: 1\nname: library\nsource: { topic: t }\ntasks: { vector: { embed: { model: minilm } } }\n";
    let definition = Definition::parse(Path::new("library.yaml"), file).unwrap();
    let database = postgres::database().await;
    let info = engine.model("minilm").unwrap();
    let set = EmbeddingSet { model: "minilm".into(), revision: info.revision.clone(), dimension: info.dimension };
    let set = database.store.embedding_set(&set).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    for part in documents.chunks(200) {
        let texts = part.iter().map(|(_, text)| text.as_str().into()).collect();
        let work = Work::Encode { texts, chunking: Chunking::Split { tokens: 254, overlap: 32 }, kind: TextKind::Plain };
        let answer = engine.run(vec![Request { model: "minilm".into(), work }]).await.unwrap().remove(0).unwrap();
        let Prediction::Vectors(vectors) = answer.prediction else { panic!("an encoder gives vectors") };
        for (document, vectors) in part.iter().zip(vectors) {
            insert(&mut connection, set, document, &vectors).await;
        }
    }
    postgres::execute(&database.url, "ANALYZE").await;
    SearchSetup { searcher: Searcher::new(database.store.clone(), engine, [&definition]), _database: database }
}

async fn insert(connection: &mut PgConnection, set: i32, (id, text): &(String, String), vectors: &EncodedText) {
    sqlx::query("INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id) VALUES ('library', $1, 1, false, $2, '{}', gen_random_uuid())")
        .bind(id)
        .bind(text)
        .execute(&mut *connection)
        .await
        .unwrap();
    for (number, chunk) in vectors.chunks.iter().enumerate() {
        sqlx::query(
            "INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
             VALUES ($1, 'library', $2, 'vector', $3, $4, $5, 1, $6::real[]::vector)",
        )
        .bind(set)
        .bind(id)
        .bind(number as i32)
        .bind(chunk.span.start as i32)
        .bind(chunk.span.end as i32)
        .bind(chunk.vector.to_vec())
        .execute(&mut *connection)
        .await
        .unwrap();
    }
}

impl SearchSetup {
    /// The ranks of the queries' documents, for those that are among the first `limit` hits.
    async fn places(&self, questions: &[(String, String)], mode: Mode, limit: usize) -> Vec<usize> {
        let found = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let ask = async || {
            while let Some((id, query)) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                let question = SearchRequest { query: query.clone(), mode, limit: Some(limit), ..SearchRequest::default() };
                let hits = self.searcher.search(&question).await.unwrap().hits;
                let place = hits.iter().position(|hit| hit.document_id == *id);
                found.lock().unwrap().extend(place.map(|place| place + 1));
            }
        };
        futures::future::join_all((0..4).map(|_| ask())).await;
        found.into_inner().unwrap()
    }
}

/// Searches for each title among the texts of all articles, without and with titles; `pipelines/news.yaml` has them with titles.
/// Some titles share neither words nor meaning with their texts: without titles, the first ten of both lists together hold 0.90 of
/// the articles.
async fn a_title_finds_its_article() {
    let articles = rows("ag_news.jsonl");
    let questions: Vec<_> = articles.iter().map(|row| (text(row, "id").to_owned(), text(row, "title").to_owned())).collect();
    let id = |row: &Value| text(row, "id").to_owned();
    let bare: Vec<_> = articles.iter().map(|row| (id(row), text(row, "text").to_owned())).collect();
    let (alone, means) = recall_of_news(&questions, &bare).await;
    let whole: Vec<_> =
        articles.iter().map(|row| (id(row), format!("{}\n\n{}", text(row, "title"), text(row, "text")))).collect();
    let (titled, _) = recall_of_news(&questions, &whole).await;
    let recall = json!({ "texts": alone, "titles_and_texts": titled });
    println!(
        "{}",
        json!({ "figure": "news", "articles": articles.len(), "questions": questions.len(), "recall_at_10": recall,
                            "mean_reciprocal_rank_of_texts": means })
    );
    assert!(alone["vector"] >= 0.85, "vectors find {:.3} of the articles, and must find 0.85", alone["vector"]);
    assert!(alone["text"] >= 0.78, "words find {:.3} of the articles, and must find 0.78", alone["text"]);
    assert!(means["hybrid"] >= means["vector"] + 0.03, "both lists rank no better than vectors alone: {means:?}");
    assert!(alone["hybrid"] >= alone["vector"], "both lists find fewer than vectors alone: {alone:?}");
    assert!(titled["hybrid"] >= 0.93, "both lists find {:.3} of the articles, and must find 0.93", titled["hybrid"]);
}

type Figures = BTreeMap<&'static str, f64>;

/// The share of the queries that find their document among the first ten, and the mean reciprocal rank there.
async fn recall_of_news(questions: &[(String, String)], documents: &[(String, String)]) -> (Figures, Figures) {
    let setup = setup(documents).await;
    let (mut recall, mut means) = (Figures::new(), Figures::new());
    for (name, mode) in [("vector", Mode::Vector), ("text", Mode::Text), ("hybrid", Mode::Hybrid)] {
        let places = setup.places(questions, mode, 10).await;
        recall.insert(name, places.len() as f64 / questions.len() as f64);
        means.insert(name, places.iter().map(|place| 1.0 / *place as f64).sum::<f64>() / questions.len() as f64);
    }
    (recall, means)
}

async fn an_abstract_finds_its_tale() {
    let tales = rows("grimm_tales.jsonl");
    let documents: Vec<_> = tales.iter().map(|row| (text(row, "id").to_owned(), text(row, "text").to_owned())).collect();
    let questions: Vec<_> = tales.iter().map(|row| (text(row, "id").to_owned(), text(row, "abstract").to_owned())).collect();
    let setup = setup(&documents).await;
    let found = setup.places(&questions, Mode::Hybrid, 3).await.len();
    println!("{}", json!({ "figure": "tales", "tales": tales.len(), "found_in_first_3": found }));
    assert!(found * 27 >= 24 * tales.len(), "{found} of {} tales are found, and must be 24 of 27", tales.len());
}

const VECTORS: usize = 100_000;
const DIMENSION: usize = 384;
const CLIENTS: usize = 8;

/// Random vectors in clusters of all sizes, as those of documents are.
struct VectorClusters {
    centres: Vec<Vec<f32>>,
    random: StdRng,
}

impl VectorClusters {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(7);
        let centres = (0..500).map(|_| (0..DIMENSION).map(|_| random.random::<f32>() - 0.5).collect()).collect();
        Self { centres, random: StdRng::seed_from_u64(seed) }
    }

    fn vector(&mut self) -> Vec<f32> {
        let share: f32 = self.random.random();
        let centre = &self.centres[((share * share) * self.centres.len() as f32) as usize % self.centres.len()];
        centre.iter().map(|at| at + 0.8 * (self.random.random::<f32>() - 0.5)).collect()
    }
}

fn spelled(vector: &[f32]) -> String {
    format!("[{}]", vector.iter().map(|at| format!("{at:.5}")).collect::<Vec<_>>().join(","))
}

/// Stores `count` documents with a vector each.
async fn store(connection: &mut PgConnection, set: i32, prefix: &str, vectors: &[String]) {
    let ids: Vec<String> = (0..vectors.len()).map(|n| format!("{prefix}-{n}")).collect();
    sqlx::query(
        "WITH given AS (SELECT * FROM unnest($1::text[], $2::text[]) AS g (id, vector)),
              d AS (INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
                    SELECT 'library', id, 1, false, 'A short text about ' || id || ', as documents are.', '{}', gen_random_uuid() FROM given)
         INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
         SELECT $3, 'library', id, 'vector', 0, 0, 10, 1, vector::vector FROM given",
    )
    .bind(&ids)
    .bind(vectors)
    .bind(set)
    .execute(connection)
    .await
    .unwrap();
}

async fn an_index_of_a_hundred_thousand_vectors() {
    let database = postgres::database().await;
    let set = EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: DIMENSION };
    let id = database.store.embedding_set(&set).await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let mut clusters = VectorClusters::new(1);
    for part in 0..VECTORS / 1_000 {
        let vectors: Vec<String> = (0..1_000).map(|_| spelled(&clusters.vector())).collect();
        store(&mut connection, id, &format!("v{part}"), &vectors).await;
    }
    // The default is too small to build so large an index in memory. New connections have enough.
    let memory =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET maintenance_work_mem = ''512MB''', current_database()); END $$";
    postgres::execute(&database.url, memory).await;
    let builder = Store::connect(&DatabaseConfig { url: Some(database.url.clone()), ..DatabaseConfig::default() }).unwrap();
    assert_eq!(builder.index_embedding_sets().await.unwrap(), [id]);
    postgres::execute(&database.url, "ANALYZE").await;

    let mut clusters = VectorClusters::new(2);
    let questions: Vec<Vec<f32>> = (0..200).map(|_| clusters.vector()).collect();
    let recall = recall(&mut connection, &database.store, &set, &questions).await;
    let (latencies, written) = race(&database, &set, id, &questions).await;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    let (median, late) = (at(0.5), at(0.99));
    println!(
        "{}",
        json!({ "figure": "index", "vectors": VECTORS, "recall_at_10": recall, "clients": CLIENTS, "searches": latencies.len(),
                "p50_ms": median, "p99_ms": late, "documents_written_meanwhile": written })
    );
    assert!(recall >= 0.98, "the index finds {recall:.3} of what an exact search does, and must find 0.98");
    assert!(late < 50.0, "p99 is {late:.1} ms, and must be below 50");
}

fn query(set: &EmbeddingSet, vector: &[f32]) -> SearchQuery {
    let vector = Some(QueryVector { set: set.clone(), task: "vector".into(), vector: vector.to_vec(), words: String::new() });
    let (filter, facets) = (SearchFilter::default(), Vec::new());
    SearchQuery {
        pipeline: "library".into(),
        words: None,
        vector,
        fusion: Fusion::default(),
        offset: 0,
        limit: 10,
        filter,
        facets,
    }
}

/// The share of the ten truly nearest documents that a search finds.
async fn recall(connection: &mut PgConnection, store: &Store, set: &EmbeddingSet, questions: &[Vec<f32>]) -> f64 {
    let mut found = 0;
    for vector in questions {
        let exact: Vec<String> =
            sqlx::query_scalar("SELECT document_id FROM embeddings ORDER BY (vector <=> $1::text::vector) + 0 LIMIT 10")
                .bind(spelled(vector))
                .fetch_all(&mut *connection)
                .await
                .unwrap();
        let hits = store.search(query(set, vector)).await.unwrap().hits;
        found += exact.iter().filter(|id| hits.iter().any(|hit| hit.document_id == **id)).count();
    }
    found as f64 / (questions.len() * 10) as f64
}

/// The durations of searches while documents are written, sorted, and the number of documents that were written.
async fn race(database: &postgres::Database, set: &EmbeddingSet, id: i32, questions: &[Vec<f32>]) -> (Vec<Duration>, usize) {
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (url, over) = (database.url.clone(), over.clone());
        async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let (mut clusters, mut written) = (VectorClusters::new(3), 0);
            while !over.load(Ordering::Relaxed) {
                let vectors: Vec<String> = (0..10).map(|_| spelled(&clusters.vector())).collect();
                store(&mut connection, id, &format!("w{written}"), &vectors).await;
                written += vectors.len();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            written
        }
    });
    let client = async |number: usize| {
        let (mut taken, mut random) = (Vec::new(), StdRng::seed_from_u64(number as u64));
        for turn in 0..100 {
            let began = Instant::now();
            let page = database.store.search(query(set, &questions[(number * 31 + turn) % questions.len()])).await.unwrap();
            taken.push(began.elapsed());
            assert_eq!(page.hits.len(), 10);
            // People read what they find, for different times.
            tokio::time::sleep(Duration::from_millis(random.random_range(50..150))).await;
        }
        taken
    };
    let mut latencies = futures::future::join_all((0..CLIENTS).map(client)).await.concat();
    over.store(true, Ordering::Relaxed);
    latencies.sort();
    (latencies, writer.await.unwrap())
}
