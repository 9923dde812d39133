//! Search on a real Postgres with pgvector.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tidemill::config::DatabaseConfig;
use tidemill::outcome::EmbeddingSet;
use tidemill::store::{
    Comparison, Facet, FilterCondition, FilterPlace, FilterTest, Fusion, QueryVector, SearchFilter, SearchHit, SearchPage,
    SearchQuery, Store,
};

use crate::harness::postgres;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, finds_what_was_asked_for_and_nothing_else),
        trial!(Needs::NOTHING, korean_is_found_beside_english_whatever_particle_follows),
        trial!(Needs::NOTHING, filters_compare_numbers_texts_and_times),
        trial!(Needs::NOTHING, a_selective_filter_starves_no_vector_search),
        trial!(Needs::NOTHING, pages_tile_the_answer_and_facets_count_all_of_it),
    ]
}

/// A pipeline of a few notes, and one note of another pipeline.
pub struct SearchSetup {
    pub store: Store,
    pub set: EmbeddingSet,
}

/// Inserts these notes into the empty database at `url`.
pub async fn setup(url: &str) -> SearchSetup {
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
    SearchSetup { store, set }
}

/// Adds a crowd of notes nearer to `[1, 0, 0]` than all others, large enough that the embedding set is indexed.
async fn crowd(url: &str, setup: &SearchSetup) {
    let id = setup.store.embedding_set(&setup.set).await.unwrap();
    add_crowd(url, id).await;
    assert_eq!(setup.store.index_embedding_sets().await.unwrap(), [id]);
}

/// Inserts twelve thousand documents with a vector each.
pub async fn add_crowd(url: &str, id: i32) {
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

/// Inserts a document with one chunk for each sentence, all with the same vector.
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

impl SearchSetup {
    /// A query of the notes.
    pub fn question(&self, words: Option<&str>, vector: Option<[f32; 3]>, filter: SearchFilter, limit: usize) -> SearchQuery {
        let (set, task) = (self.set.clone(), "vector".to_owned());
        let vector = vector.map(|v| QueryVector { set, task, vector: v.to_vec(), words: String::new() });
        let words = words.map(str::to_owned);
        SearchQuery {
            pipeline: "notes".into(),
            words,
            vector,
            fusion: Fusion::default(),
            offset: 0,
            limit,
            filter,
            facets: Vec::new(),
        }
    }

    /// The page that answers the query.
    pub async fn page(&self, query: &SearchQuery) -> SearchPage {
        self.store.search(query.clone()).await.unwrap()
    }

    async fn hits(&self, words: Option<&str>, vector: Option<[f32; 3]>, filter: SearchFilter, limit: usize) -> Vec<SearchHit> {
        self.page(&self.question(words, vector, filter, limit)).await.hits
    }

    async fn by_words(&self, words: &str) -> Vec<String> {
        ids(&self.hits(Some(words), None, SearchFilter::default(), 5).await)
    }
}

fn ids(hits: &[SearchHit]) -> Vec<String> {
    hits.iter().map(|hit| hit.document_id.clone()).collect()
}

fn only(place: FilterPlace, test: FilterTest) -> SearchFilter {
    SearchFilter { conditions: vec![FilterCondition { place, test }] }
}

fn labelled(label: &str) -> SearchFilter {
    only(FilterPlace::Label("topic".into()), FilterTest::OneOf(vec![json!(label)]))
}

fn metadata(path: &[&str], test: FilterTest) -> SearchFilter {
    only(FilterPlace::Metadata(path.iter().map(|step| (*step).to_owned()).collect()), test)
}

/// Everything about search that needs a database; the same notes serve all of it.
async fn finds_what_was_asked_for_and_nothing_else() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;

    let kettle = &setup.hits(None, Some([0.0, 0.0, 1.0]), SearchFilter::default(), 1).await[0];
    assert_eq!((kettle.document_id.as_str(), kettle.summary.as_deref()), ("kettle", Some("in short: kettle")));
    assert_eq!(kettle.labels["topic"].label.as_deref(), Some("kitchen"));
    assert_eq!((kettle.chunk.start, kettle.chunk.end), (0, 36));
    assert_eq!(kettle.chunk.text, "A kettle boils water in two minutes.");

    assert_eq!(setup.by_words("watering").await, ["kettle", "tomato"].map(String::from), "words are stemmed");
    assert_eq!(setup.by_words("how do I prune a tomato plant").await, ["tomato"], "a question need not match every word");
    assert_eq!(setup.by_words("water -kettle").await, ["tomato"], "the operator works");
    assert_eq!(setup.by_words("토마토").await, ["korean"], "a word is found that goes on with a particle");
    for nonsense in ["'; DROP TABLE documents; --", "\\' :* & | ! ( ) <->", "the of and", "%s {{ 7*7 }} $1"] {
        setup.by_words(nonsense).await;
    }
    assert_eq!(setup.by_words("leaves").await, ["rake"], "the tables are as they were");

    let one_of = |field, values: Vec<Value>| metadata(&[field], FilterTest::OneOf(values));
    let both = SearchFilter {
        conditions: [labelled("garden"), one_of("shelf", vec![json!("a")])].into_iter().flat_map(|f| f.conditions).collect(),
    };
    let cases = [
        (one_of("shelf", vec![json!("b")]), vec!["rake", "tomato"]),
        (one_of("price", vec![json!("3"), json!(3)]), vec!["tomato"]),
        (one_of("tags", vec![json!("red")]), vec!["kettle"]),
        (one_of("shelf", vec![json!("z")]), vec![]),
        (one_of("shelf", vec![]), vec![]),
        (both, vec![]),
    ];
    for (filter, expected) in cases {
        for (words, vector) in [(Some("water leaves"), None), (None, Some([1.0, 0.0, 0.0]))] {
            let mut found = ids(&setup.hits(words, vector, filter.clone(), 5).await);
            found.sort();
            assert_eq!(found, expected, "words {words:?}, vector {vector:?}, filter {filter:?}");
        }
    }

    let fused = setup.hits(Some("boil water"), Some([0.0, 0.0, 1.0]), SearchFilter::default(), 2).await;
    assert_eq!(fused[0].document_id, "kettle");
    let (vector, text) = (fused[0].explanation.vector.as_ref().unwrap(), fused[0].explanation.text.as_ref().unwrap());
    assert_eq!((vector.rank, text.rank, text.all_words), (1, 1, Some(true)));
    assert!((vector.score - 1.0).abs() < 1e-6, "the score is not the similarity: {vector:?}");
    assert!((fused[0].score - 1.0).abs() < 1e-9, "the best of both lists: {}", fused[0].score);
    assert!((vector.adds + text.adds - fused[0].score).abs() < 1e-9, "the explanation adds up");
    let marked = |hit: &SearchHit| -> Vec<String> {
        let inside = |at: usize| at - hit.chunk.start;
        hit.highlights.iter().map(|span| hit.chunk.text[inside(span.start)..inside(span.end)].to_owned()).collect()
    };
    assert_eq!(marked(&fused[0]), ["boils", "water"], "words are marked by their stems");

    // A graph index may miss a vector far from all others. Without a filter only documents in the crowd are checked.
    crowd(&database.url, &setup).await;
    // 12,000 documents are nearer to the query than the few that pass the filter.
    let hits = setup.hits(None, Some([1.0, 0.0, 0.0]), labelled("garden"), 3).await;
    assert_eq!(ids(&hits), ["rake", "tomato", "korean"].map(String::from), "a narrow filter starves the vector search");
    let unfiltered = setup.hits(None, Some([1.0, 0.0, 0.0]), SearchFilter::default(), 10).await;
    assert_eq!(unfiltered.len(), 10);
    assert!(unfiltered.iter().all(|hit| hit.document_id.starts_with("crowd-") && hit.score > 0.99), "{unfiltered:?}");
}

async fn korean_is_found_beside_english_whatever_particle_follows() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let set = setup.store.embedding_set(&setup.set).await.unwrap();
    for (id, text) in [
        ("가", "방울토마토가 익었다. The tomato plants were watered twice."),
        ("나", "갤럭시S24는 어제 running 중에 껐다"),
        ("다", "정원에서 물을 준다"),
        ("라", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} 문서"),
        ("마", "東京都に住んでいます"),
    ] {
        insert(&mut connection, set, "notes", id, text).await;
    }
    connection.close().await.unwrap();
    let found = async |words: &str| -> Vec<String> {
        let mut ids = setup.by_words(words).await;
        ids.sort();
        ids
    };
    for words in [
        "토마토",
        "토마토는",
        "토마토가",
        "토마토에서",
        "토마토를",
        "\"토마토\"",
        "\u{1110}\u{1169}\u{1106}\u{1161}\u{1110}\u{1169}",
    ] {
        assert_eq!(found(words).await, ["korean", "가"], "{words}");
    }
    assert_eq!(found("watering 토마토를").await, ["kettle", "korean", "tomato", "가"], "any of the words, where few have all");
    let first = &setup.hits(Some("watering 토마토를"), None, SearchFilter::default(), 5).await[0];
    assert_eq!(first.document_id, "가", "the one with both comes first: English is stemmed beside Korean");
    let text = |span: &tidemill::outcome::Span| &first.chunk.text[span.start - first.chunk.start..span.end - first.chunk.start];
    assert_eq!(first.highlights.iter().map(text).collect::<Vec<_>>(), ["토마토", "watered"]);
    assert_eq!(found("S24").await, ["나"], "what is written together with Hangul is a word of its own");
    assert_eq!(found("갤럭시").await, ["나"]);
    assert_eq!(found("물").await, ["다"], "a word of one character, whatever follows it");
    assert_eq!(found("물은").await, ["다"]);
    assert_eq!(found("한글").await, ["라"], "decomposed characters are the same");
    assert_eq!(found("東京").await, ["마"]);
    assert_eq!(found("토마토 -방울").await, ["korean"], "the operator works");
    assert_eq!(found("\"햇빛이 필요하다\"").await, ["korean"], "a phrase across words");
    assert_eq!(found("\"필요하다 햇빛이\"").await, [""; 0]);
    assert_eq!(found("고구마").await, [""; 0]);
}

async fn filters_compare_numbers_texts_and_times() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let facts =
        |price: Value, made: &str| json!({"fields": {"price": price, "made": made, "parts": ["lid", "cord"]}, "leaves": []});
    for (id, details) in
        [("tomato", facts(json!(3), "2025-02-28T23:30:00Z")), ("kettle", facts(json!(49.5), "2025-03-01T00:30:00+09:00"))]
    {
        sqlx::query(
            "INSERT INTO results (pipeline, document_id, task, kind, version, confidence, fields, fingerprint, tokens, device_micros, batch_id)
             VALUES ('notes', $1, 'facts', 'extract', 1, 0.5, $2, '', 1, 1, gen_random_uuid())",
        )
        .bind(id)
        .bind(details)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    sqlx::raw_sql(
        r#"UPDATE documents SET metadata = '{"price": "cheap", "size": {"width": 9}}' WHERE id = 'rake';
           UPDATE documents SET updated_at = '2020-01-01' WHERE id = 'korean'"#,
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();

    let fact = |field: &str, test| only(FilterPlace::Output("facts".into(), vec!["fields".into(), field.into()]), test);
    let number = |comparison, value: f64| FilterTest::Compared(comparison, json!(value));
    let time = |comparison, value: &str| FilterTest::ComparedInTime(comparison, value.to_owned());
    let texts = |values: &[&str]| values.iter().map(|value| json!(value)).collect::<Vec<_>>();
    use Comparison::{AtLeast, AtMost, Greater, Less};
    for (filter, expected) in [
        (fact("price", number(Less, 49.5)), vec!["tomato"]),
        (fact("price", number(AtMost, 49.5)), vec!["kettle", "tomato"]),
        (fact("price", number(Greater, 49.5)), vec![]),
        (fact("price", FilterTest::NoneOf(vec![json!(3)])), vec!["kettle", "korean", "rake"]),
        (fact("price", FilterTest::Exists(true)), vec!["kettle", "tomato"]),
        (fact("price", FilterTest::Exists(false)), vec!["korean", "rake"]),
        (fact("parts", FilterTest::OneOf(texts(&["lid"]))), vec!["kettle", "tomato"]),
        (fact("made", time(Less, "2025-03-01")), vec!["kettle", "tomato"]),
        (fact("made", time(AtLeast, "2025-02-28T20:00:00+01:00")), vec!["tomato"]),
        // A text is neither smaller nor larger than a number or a date.
        (metadata(&["price"], number(AtLeast, 0.0)), vec!["tomato"]),
        (metadata(&["shelf"], time(AtLeast, "1970-01-01")), vec![]),
        (metadata(&["shelf"], FilterTest::Compared(Greater, json!("a"))), vec!["tomato"]),
        (metadata(&["size", "width"], FilterTest::OneOf(vec![json!(9)])), vec!["rake"]),
        (metadata(&["size", "width"], number(Less, 9.5)), vec!["rake"]),
        (only(FilterPlace::Label("topic".into()), FilterTest::NoneOf(texts(&["garden"]))), vec!["kettle"]),
        (
            only(FilterPlace::Label("topic".into()), FilterTest::OneOf(texts(&["garden", "kitchen"]))),
            vec!["kettle", "korean", "rake", "tomato"],
        ),
        (only(FilterPlace::Confidence("topic".into()), number(Less, 0.5)), vec![]),
        (only(FilterPlace::Text("summary".into()), FilterTest::OneOf(texts(&["in short: rake"]))), vec!["rake"]),
        (only(FilterPlace::Id, FilterTest::OneOf(texts(&["rake", "'; DROP TABLE documents; --"]))), vec!["rake"]),
        (only(FilterPlace::UpdatedAt, time(Less, "2021-01-01T00:00:00Z")), vec!["korean"]),
    ] {
        let mut found = ids(&setup.hits(None, Some([1.0, 0.0, 0.0]), filter.clone(), 10).await);
        found.sort();
        assert_eq!(found, expected, "{filter:?}");
        let mut found = ids(&setup.hits(Some("tomato OR water OR leaves OR 토마토"), None, filter.clone(), 10).await);
        found.sort();
        assert_eq!(found, expected, "by words, {filter:?}");
    }
}

/// One document in a hundred passes the filter, so that nearly all that an index reads first do not.
async fn a_selective_filter_starves_no_vector_search() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;
    crowd(&database.url, &setup).await;
    postgres::execute(
        &database.url,
        "UPDATE documents SET metadata = jsonb_build_object('share', substring(id FROM 7)::integer % 100) WHERE id LIKE 'crowd-%'",
    )
    .await;
    for (turn, share) in [7, 42, 99].into_iter().enumerate() {
        let filter = metadata(&["share"], FilterTest::Compared(Comparison::AtMost, json!(share)));
        let narrow = metadata(&["share"], FilterTest::OneOf(vec![json!(share)]));
        for filter in [narrow, filter] {
            let angle = turn as f32;
            let towards = [angle.cos(), angle.sin(), 0.3];
            let found = ids(&setup.hits(None, Some(towards), filter.clone(), 10).await);
            let exact =
                exact(&database.url, towards, share, filter.conditions[0].test == FilterTest::OneOf(vec![json!(share)])).await;
            let held = exact.iter().filter(|id| found.contains(id)).count();
            assert!(held >= 9, "{held} of the 10 nearest are found with {filter:?}: {found:?} and not {exact:?}");
        }
    }
}

/// The ten nearest documents, found by comparing all.
async fn exact(url: &str, [x, y, z]: [f32; 3], share: i32, equal: bool) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sign = if equal { "=" } else { "<=" };
    let sql = format!(
        "SELECT d.id FROM documents d JOIN embeddings e ON e.document_id = d.id AND e.pipeline = d.pipeline
         WHERE (d.metadata ->> 'share')::integer {sign} {share} ORDER BY (e.vector <=> '[{x},{y},{z}]'::vector) + 0, d.id LIMIT 10"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
}

async fn pages_tile_the_answer_and_facets_count_all_of_it() {
    let database = postgres::database().await;
    let setup = setup(&database.url).await;
    crowd(&database.url, &setup).await;
    postgres::execute(
        &database.url,
        "UPDATE documents SET text = 'filler tomato ' || id, metadata = jsonb_build_object('tags', ARRAY['even', 'all'])
         WHERE id LIKE 'crowd-%' AND substring(id FROM 7)::integer % 40 = 0",
    )
    .await;
    let facets = vec![Facet::Label("topic".into()), Facet::Metadata("tags".into())];
    let question = setup.question(Some("tomato water"), Some([1.0, 0.2, 0.0]), SearchFilter::default(), 37);
    let documents = postgres::count(&database.url, "SELECT count(*) FROM documents WHERE NOT deleted").await;
    let (mut seen, mut page) = (Vec::new(), 0);
    loop {
        let query = SearchQuery { offset: page * 37, facets: facets.clone(), ..question.clone() };
        let answer = setup.page(&query).await;
        assert!(answer.more || answer.hits.len() <= 37);
        seen.extend(ids(&answer.hits));
        assert_eq!(setup.page(&query).await, answer, "the same page again is the same");
        let labels: Vec<_> = answer.facets[0].values.iter().map(|value| (value.value.as_str(), value.documents)).collect();
        // Every document has a rank in the list by vector.
        assert_eq!(labels, [("garden", 3), ("kitchen", 1)], "of all that can be found, whichever page is shown");
        assert_eq!(
            (answer.facets[0].more, answer.facets[0].without),
            (0, documents - 5),
            "one has no label, though its task ran"
        );
        let tags: Vec<_> = answer.facets[1].values.iter().map(|value| (value.value.as_str(), value.documents)).collect();
        assert_eq!(tags[..2], [("all", 300), ("even", 300)]);
        page += 1;
        if !answer.more {
            break;
        }
    }
    let by_words = SearchQuery { vector: None, facets: facets.clone(), ..question.clone() };
    let answer = setup.page(&by_words).await;
    let labels: Vec<_> = answer.facets[0].values.iter().map(|value| (value.value.as_str(), value.documents)).collect();
    assert_eq!(labels, [("garden", 1), ("kitchen", 1)], "by words, of those that hold one");
    assert_eq!((answer.facets[0].more, answer.facets[0].without), (0, 300));
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "no hit comes twice");
    assert!(seen.len() > 1_000, "pages go on behind the first candidates: {}", seen.len());
    let in_one = SearchQuery { limit: seen.len(), ..question };
    assert_eq!(ids(&setup.page(&in_one).await.hits), seen, "none is skipped, and the size of a page changes no order");
    let nothing = setup.question(Some("zeppelin"), None, SearchFilter::default(), 5);
    let nothing = setup.page(&SearchQuery { facets, ..nothing }).await;
    assert_eq!((nothing.hits.len(), nothing.facets[0].values.len(), nothing.facets[0].without), (0, 0, 0));
}
