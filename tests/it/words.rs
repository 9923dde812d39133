//! Search by words on a real Postgres: which spellings are one word, how many documents contain each, and how documents are ranked.

use libtest_mimic::Trial;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidemill::config::DatabaseConfig;
use tidemill::engine::Engine;
use tidemill::pipeline::definition::Definition;
use tidemill::search::{FilterClause, Mode, SearchError, SearchRequest, Searcher};
use tidemill::store::{Fusion, SearchFilter, SearchQuery, Store};

use crate::harness::trial::{Needs, trial};
use crate::harness::{open_folder, postgres};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, parts_of_part_numbers_and_addresses_are_found),
        trial!(Needs::NOTHING, forms_of_letters_make_no_difference),
        trial!(Needs::NOTHING, rare_words_and_short_documents_count_more),
        trial!(Needs::NOTHING, the_best_are_found_without_looking_at_every_frequent_word),
        trial!(Needs::NOTHING, counts_follow_documents_and_commits_do_not_wait_for_each_other),
        trial!(Needs::NOTHING, documents_from_before_are_counted),
        trial!(Needs::NOTHING, a_filter_value_that_no_document_can_have_is_refused),
        trial!(Needs::NOTHING, a_record_that_died_is_one_letter_however_many_tasks_it_has),
    ]
}

const INSERT: &str = "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id) VALUES ('p', $1, 1, false, $2, '{}', gen_random_uuid())";

async fn filled(documents: &[(&str, &str)]) -> postgres::Database {
    let database = postgres::database().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    for (id, text) in documents {
        sqlx::query(INSERT).bind(id).bind(text).execute(&mut connection).await.unwrap();
    }
    database
}

async fn scored(store: &Store, words: &str, limit: usize) -> Vec<(String, f64)> {
    let query = SearchQuery {
        pipeline: "p".into(),
        words: Some(words.into()),
        vector: None,
        fusion: Fusion::default(),
        offset: 0,
        limit,
        filter: SearchFilter::default(),
        facets: Vec::new(),
    };
    store.search(query).await.unwrap().hits.into_iter().map(|hit| (hit.document_id, hit.score)).collect()
}

async fn ids(store: &Store, words: &str) -> Vec<String> {
    scored(store, words, 10).await.into_iter().map(|(id, _)| id).collect()
}

async fn parts_of_part_numbers_and_addresses_are_found() {
    let database = filled(&[
        ("lamp", "Brass lamp EL-4105 with a switch."),
        ("cve", "The update closes CVE-2026-2332 in the gateway."),
        ("camera", "Recorder DS-7604NI-E1/4P for four cameras."),
        ("mail", "Write to orders@lamps.example or see https://lamps.example/p/el-9000?x=1."),
        ("page", "<p class=\"note\">A <b>bold</b> and/or italic word</p>"),
        ("other", "A clay pot."),
    ])
    .await;
    for (words, expected) in [
        ("EL-4105", "lamp"),
        ("EL 4105", "lamp"),
        ("4105", "lamp"),
        ("brass - switch", "lamp"),
        ("2332", "cve"),
        ("2026-2332", "cve"),
        ("DS-7604", "camera"),
        ("DS 7604NI", "camera"),
        ("7604", "camera"),
        ("lamps.example", "mail"),
        ("orders", "mail"),
        ("el-9000", "mail"),
        ("italic", "page"),
        ("or-italic", "page"),
    ] {
        let found = ids(&database.store, words).await;
        assert_eq!(found.first().map(String::as_str), Some(expected), "{words}: {found:?}");
        assert!(!found.contains(&"other".to_owned()), "{words}: {found:?}");
    }
    assert_eq!(ids(&database.store, "lamp -EL-4105").await, ["mail"], "an excluded phrase is excluded as a whole");
    assert_eq!(ids(&database.store, "note").await, [""; 0], "a tag is no text");
}

async fn forms_of_letters_make_no_difference() {
    let documents = [
        ("composed", "Bäckerei Müller, Straße 5"),
        ("decomposed", "Ba\u{308}ckerei Mu\u{308}ller, Cafe\u{301}"),
        ("ligature", "The \u{FB01}nancial o\u{FB03}ce"),
        ("soft", "Eine Kaffee\u{AD}maschine"),
        ("wide", "ＫＥＴＴＬＥ model"),
        ("joined", "a zero\u{200B}width kettle"),
        ("quoted", "She said “splendid” – and left."),
        ("other", "A clay pot."),
    ];
    let database = filled(&documents).await;
    for (words, expected) in [
        ("Müller", vec!["composed", "decomposed"]),
        ("Mu\u{308}ller", vec!["composed", "decomposed"]),
        ("Café", vec!["decomposed"]),
        ("financial office", vec!["ligature"]),
        ("Kaffeemaschine", vec!["soft"]),
        ("Kaffee\u{AD}maschine", vec!["soft"]),
        ("kettle", vec!["joined", "wide"]),
        ("zerowidth", vec!["joined"]),
        ("splendid", vec!["quoted"]),
        ("“splendid”", vec!["quoted"]),
    ] {
        let mut found = ids(&database.store, words).await;
        found.sort();
        assert_eq!(found, expected, "{words}");
    }
    let query = SearchQuery {
        pipeline: "p".into(),
        words: Some("Müller Kaffeemaschine".into()),
        vector: None,
        fusion: Fusion::default(),
        offset: 0,
        limit: 10,
        filter: SearchFilter::default(),
        facets: Vec::new(),
    };
    for hit in database.store.search(query).await.unwrap().hits {
        let marked: Vec<_> = hit.highlights.iter().map(|span| &hit.chunk.text[span.start..span.end]).collect();
        assert_eq!(marked.len(), 1, "{}: {marked:?}", hit.document_id);
        assert!(["Müller", "Mu\u{308}ller", "Kaffee\u{AD}maschine"].contains(&marked[0]), "{marked:?}");
    }
}

/// Checks the scores against the formula.
async fn rare_words_and_short_documents_count_more() {
    let database = filled(&[
        ("a", "merger talks"),
        ("b", "merger talks today after long talks"),
        ("c", "talks today"),
        ("d", "talks talks talks"),
        ("e", "garden"),
    ])
    .await;
    let found = scored(&database.store, "merger talks", 10).await;
    let order: Vec<_> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(
        order,
        ["a", "b", "d", "c"],
        "the rare word counts most, the short document next, further occurrences less and less"
    );
    // Stems: a 2, b 5 (`after` is a stop word), c 2, d 3, e 1; 13 words in 5 documents.
    let (mean, rarity) = (13.0 / 5.0, |held: f64| (1.0 + (5.0 - held + 0.5) / (held + 0.5)).ln());
    let part = |held: f64, times: f64, length: f64| rarity(held) * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean));
    for (id, expected) in [
        ("a", part(2.0, 1.0, 2.0) + part(4.0, 1.0, 2.0)),
        ("b", part(2.0, 1.0, 5.0) + part(4.0, 2.0, 5.0)),
        ("c", part(4.0, 1.0, 2.0)),
        ("d", part(4.0, 3.0, 3.0)),
    ] {
        let (_, score) = found.iter().find(|(found, _)| found == id).unwrap();
        assert!((score - expected).abs() < 1e-9, "{id}: {score} is not {expected}");
    }
    // A word that occurs more often than the count can hold has the largest count.
    postgres::execute(&database.url, "UPDATE documents SET text = repeat('talks ', 300) WHERE id = 'd'").await;
    assert_eq!(ids(&database.store, "talks").await[0], "d");
}

/// With many documents that contain frequent words, the order is the same as when every document is scored.
async fn the_best_are_found_without_looking_at_every_frequent_word() {
    let database = postgres::database().await;
    postgres::execute(
        &database.url,
        "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
         SELECT 'p', 'd' || n, 1, false,
                concat_ws(' ', 'the market', CASE WHEN n % 2 = 0 THEN 'rises' END, CASE WHEN n % 7 = 0 THEN 'copper copper' END,
                          CASE WHEN n % 50 = 3 THEN 'zinc' END, CASE WHEN n % 900 = 5 THEN 'vanadium' END, repeat('filler ', n % 11)),
                '{}', gen_random_uuid() FROM generate_series(1, 6000) AS n",
    )
    .await;
    for words in ["vanadium zinc copper rises market", "rises market", "zinc vanadium", "copper zinc market"] {
        let first = scored(&database.store, words, 50).await;
        // A page that reaches to the last document scores all of them.
        let all = scored(&database.store, &format!("{words} or nothing or {}", words.replace(' ', " or ")), 50).await;
        assert_eq!(first.len(), 50);
        let scores = |found: &[(String, f64)]| found.iter().map(|(_, score)| (score * 1e9) as i64).collect::<Vec<_>>();
        assert_eq!(scores(&first), scores(&all), "{words}");
    }
}

/// The audit's complaints about counts.
async fn miscounted(store: &Store) -> Vec<String> {
    store.audit().await.unwrap().into_iter().filter(|violation| violation.contains("are counted for the word")).collect()
}

async fn counts_follow_documents_and_commits_do_not_wait_for_each_other() {
    let database = filled(&[("a", "tin and copper"), ("b", "copper copper"), ("c", "zinc")]).await;
    assert_eq!(miscounted(&database.store).await, [""; 0]);
    let mut one = PgConnection::connect(&database.url).await.unwrap();
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    // A commit that had to wait for the other's row would fail.
    for connection in [&mut one, &mut other] {
        sqlx::raw_sql("SET lock_timeout = '2s'; BEGIN").execute(&mut *connection).await.unwrap();
    }
    for turn in ["d", "e"] {
        for (connection, number) in [(&mut one, 1), (&mut other, 2)] {
            let id = format!("{turn}{number}");
            sqlx::query(INSERT).bind(id).bind("copper and zinc in tin").execute(&mut *connection).await.unwrap();
        }
    }
    sqlx::raw_sql("UPDATE documents SET text = 'tin' WHERE id = 'a'").execute(&mut one).await.unwrap();
    sqlx::raw_sql("UPDATE documents SET deleted = true, text = '' WHERE id = 'b'").execute(&mut other).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(miscounted(&database.store).await, [""; 0], "one is committed and the other is not");
    sqlx::raw_sql("COMMIT").execute(&mut one).await.unwrap();
    assert_eq!(miscounted(&database.store).await, [""; 0]);
    for change in [
        "UPDATE documents SET metadata = '{\"shelf\": 1}'",
        "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
         VALUES ('p', 'a', 2, false, 'lead', '{}', gen_random_uuid()), ('p', 'g', 1, false, 'lead', '{}', gen_random_uuid()),
                ('q', 'a', 1, false, 'lead', '{}', gen_random_uuid())
         ON CONFLICT (pipeline, id) DO UPDATE SET text = excluded.text",
        "DELETE FROM documents WHERE pipeline = 'p' AND id IN ('a', 'c')",
        "BEGIN; DELETE FROM documents; ROLLBACK",
    ] {
        postgres::execute(&database.url, change).await;
        assert_eq!(miscounted(&database.store).await, [""; 0], "after {change}");
    }
    postgres::execute(&database.url, "DELETE FROM documents WHERE pipeline = 'p'").await;
    // This also works while another transaction writes; its words are counted the next time.
    sqlx::raw_sql("BEGIN; SET lock_timeout = '2s'").execute(&mut one).await.unwrap();
    sqlx::query(INSERT).bind("h").bind("lead in zinc").execute(&mut one).await.unwrap();
    database.store.gather_word_counts(1).await.unwrap();
    sqlx::raw_sql("DELETE FROM documents WHERE id = 'h'; COMMIT").execute(&mut one).await.unwrap();
    assert_eq!(miscounted(&database.store).await, [""; 0]);
    database.store.gather_word_counts(1).await.unwrap();
    assert_eq!(miscounted(&database.store).await, [""; 0]);
    let words = "SELECT count(*) FROM word_counts WHERE pipeline = 'p'";
    assert_eq!(postgres::count(&database.url, words).await, 0, "a word that no document holds leaves nothing");
    assert_eq!(postgres::count(&database.url, "SELECT sum(documents)::bigint FROM word_counts WHERE word = 'lead'").await, 1);
}

async fn documents_from_before_are_counted() {
    let database = postgres::database().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let schema = "CREATE SCHEMA earlier; SET search_path = earlier, public";
    sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().flatten().collect();
    files.sort_by_key(|file| file.file_name());
    for file in files.iter().filter(|file| file.path().extension().is_some_and(|extension| extension == "sql")) {
        if file.file_name().to_string_lossy().starts_with("0016") {
            sqlx::raw_sql(
                "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
                 SELECT 'p', 'd' || n, 1, n % 10 = 0, CASE WHEN n % 10 = 0 THEN '' ELSE 'Lamp EL-' || n END, '{}', gen_random_uuid()
                 FROM generate_series(1, 50) AS n",
            )
            .execute(&mut connection)
            .await
            .unwrap();
        }
        let statements = std::fs::read_to_string(file.path()).unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {statements}; COMMIT"))).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{}: {error}", file.path().display()));
    }
    drop(connection);
    let url = format!("{}?options=-c%20search_path%3Dearlier%2Cpublic", database.url);
    let store = Store::connect(&DatabaseConfig { url: Some(url), ..DatabaseConfig::default() }).unwrap();
    assert_eq!(miscounted(&store).await, [""; 0]);
    assert_eq!(ids(&store, "17").await, ["d17"]);
    store.close().await;
}

async fn a_filter_value_that_no_document_can_have_is_refused() {
    let folder = open_folder();
    let file = "version: 1\nname: p\nsource: { topic: p, metadata: [price, made, name] }\n\
                tasks: { topic: { classify: { model: m, labels: { outdoor: out, indoor: in } } } }\n";
    let definition = Definition::parse(&folder.path().join("p.yaml"), file).unwrap();
    let database = filled(&[("a", "A tent"), ("b", "A lamp")]).await;
    postgres::execute(
        &database.url,
        "UPDATE documents SET metadata = '{\"price\": 30, \"made\": \"2025-03-01\", \"name\": [\"tent\"]}' WHERE id = 'a';
         INSERT INTO results (pipeline, document_id, task, kind, version, label, confidence, fields, fingerprint, tokens, device_micros, batch_id)
         VALUES ('p', 'a', 'topic', 'classify', 1, 'outdoor', 0.9, '{\"labels\": [\"outdoor\"]}', '', 1, 1, gen_random_uuid()),
                ('p', 'b', 'topic', 'classify', 1, 'garage', 0.9, '{\"labels\": [\"garage\"]}', '', 1, 1, gen_random_uuid())",
    )
    .await;
    let engine = Engine::start(&tidemill::config::EngineConfig::default(), &std::collections::BTreeMap::new()).unwrap();
    let searcher = Searcher::new(database.store.clone(), engine, [&definition]);
    let ask = async |line: &str| {
        let filter = vec![FilterClause::line(line).unwrap()];
        let question = SearchRequest { query: "tent lamp".into(), mode: Mode::Text, filter, ..SearchRequest::default() };
        match searcher.search(&question).await {
            Ok(found) => Ok(found.hits.len()),
            Err(SearchError::Invalid(message)) => Err(message),
            Err(other) => panic!("{line}: {other}"),
        }
    };
    for (line, hits) in [
        ("topic=outdoor", 1),
        ("topic=indoor", 0),
        ("topic in outdoor,indoor", 1),
        ("topic=garage", 1),
        ("price<50", 1),
        ("price>=50", 0),
        ("made<2026-01-01", 1),
        ("name<z", 1),
        ("name=rake", 0),
        ("topic.confidence>0.5", 2),
        ("document.updated_at>2020-01-01", 2),
    ] {
        assert_eq!(ask(line).await, Ok(hits), "{line}");
    }
    for (line, expected) in [
        ("topic=outdor", "the filter `topic` names `outdor`, which is not a value of `topic`; did you mean `outdoor`?"),
        ("topic!=outdor", "did you mean `outdoor`?"),
        ("topic in indoor,outdor", "did you mean `outdoor`?"),
        (
            "price<abc",
            "the filter `price` compares with `abc`, but `price` has no texts, only numbers; give one of those, as in `price<50`",
        ),
        ("price<2025-01-01", "`price` has no dates or times, only numbers"),
        ("name>5", "`name` has no numbers, only texts"),
        ("topic.confidence>high", "`topic.confidence` has no texts, only numbers"),
    ] {
        let refused = ask(line).await.unwrap_err();
        assert!(refused.contains(expected), "{line}: {refused}");
    }
}

async fn a_record_that_died_is_one_letter_however_many_tasks_it_has() {
    let database = postgres::database().await;
    postgres::execute(
        &database.url,
        "WITH b AS (
             INSERT INTO batches (id, pipeline, topic, partition, from_offset, to_offset, epoch, records, units_in, units_ok, units_reused,
                                  units_skipped, units_dead, parquet_rows)
             VALUES (gen_random_uuid(), 'p', 't', 0, 0, 4, 1, 4, 24, 17, 0, 0, 7, 0) RETURNING id, pipeline, topic, partition)
         INSERT INTO dead_letters (pipeline, topic, partition, record_offset, task, class, reason, header_names, header_values, batch_id)
         SELECT pipeline, topic, partition, n, CASE n WHEN 2 THEN 'one' ELSE '' END, 'invalid_json', 'no JSON', '{}', '{}', id
         FROM b, generate_series(1, 2) AS n",
    )
    .await;
    let days = database.store.reader(None).last_day().await.unwrap();
    let told: Vec<_> = days.iter().map(|day| (day.records, day.dead_letters, day.work.dead)).collect();
    assert_eq!(json!(told), json!([(4, 2, 7)]), "of one record six tasks have nothing, of another one task");
}
