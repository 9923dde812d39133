//! Recommendations: interactions that count once, documents near others, and documents that people use next.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tidemill::outcome::EmbeddingSet;
use tidemill::pipeline::definition::Definition;
use tidemill::recommend::{Reason, RecommendError, RecommendRequest, Recommendation, Recommender};
use tidemill::store::{FilterCondition, FilterPlace, FilterTest, SearchFilter, Store};
use tokio::task::spawn_blocking;

use crate::harness::free_port;
use crate::harness::kafka::NewRecord;
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka, open_folder, postgres};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(420));
    vec![
        trial!(Needs::KAFKA, events_count_once_through_crashes_and_repeats_until_they_are_withdrawn),
        trial!(Needs::NOTHING, documents_are_chosen_by_likeness_taste_and_difference_with_reasons),
        trial!(Needs::NOTHING, a_crowd_of_documents_hides_none_that_is_near),
        trial!(Needs::NOTHING, no_question_about_interactions_reads_them_all),
        trial!(alone, what_people_came_to_next_is_foretold_better_than_by_popularity),
    ]
}

const CLICKS: &str = "clicks";

fn clicks(topic: &str) -> String {
    format!(
        "version: 1\nname: {CLICKS}\n\
         source: {{ topic: {topic}, id: event, text: \"{{{{ event }}}}\" }}\n\
         tasks:\n  deed:\n    interact:\n      with: echo\n      user: \"{{{{ document.fields.user }}}}\"\n      \
               document: \"{{{{ document.fields.item }}}}\"\n      kind: view\n      at: \"{{{{ document.fields.at }}}}\"\n\
         budget: {{ max_wait: 50ms, max_records: 20 }}\n"
    )
}

fn event(user: usize, item: usize) -> NewRecord {
    event_of(user, item, item)
}

/// An interaction of the user with the document `item`, whose id names the document `named`.
fn event_of(user: usize, named: usize, item: usize) -> NewRecord {
    let id = format!("e-{user}-{named}");
    let payload = json!({"event": id, "user": format!("u{user}"), "item": format!("d{item}"), "at": "2026-03-01T12:00:00Z"});
    NewRecord { partition: None, key: id.into_bytes(), payload: Some(payload.to_string().into_bytes()) }
}

async fn events_count_once_through_crashes_and_repeats_until_they_are_withdrawn() {
    const PEOPLE: usize = 20;
    const ITEMS: usize = 10;
    let stream = TestStream::new(kafka::shared().await, 2).await;
    let topic = stream.client.topic("interactions", 2).await;
    std::fs::write(stream.path("pipelines").join("clicks.yaml"), clicks(&topic)).unwrap();
    stream.send(0..ITEMS).await;
    // All people but `2n` have seen the document `d<n>`.
    let pairs: Vec<(usize, usize)> = (0..PEOPLE)
        .flat_map(|user| (0..ITEMS).map(move |item| (user, item)))
        .filter(|(user, item)| user + 2 * item < PEOPLE)
        .collect();
    let mut sent: Vec<NewRecord> = pairs.iter().map(|(user, item)| event(*user, *item)).collect();
    sent.extend(pairs.iter().step_by(3).map(|(user, item)| event(*user, *item)));
    let (events, mut records) = (pairs.len() as i64, sent.len() as i64);
    stream.client.send(&topic, sent).await;
    let committed = async || -> i64 {
        let positions = stream.store.positions(CLICKS, &topic).await.unwrap_or_default();
        positions.iter().map(|(_, next)| next).sum()
    };
    let mut worker = stream.worker("commit-before-commit=sleep(400)");
    eventually("the first events are committed", Duration::from_secs(60), || async { committed().await > 0 }).await;
    worker.kill();
    assert!(committed().await < records, "the kill came too late to tell anything");

    let address = format!("127.0.0.1:{}", free_port());
    let _worker = stream.worker_at(&address, "");
    eventually("all events are committed", Duration::from_secs(60), || async { committed().await == records }).await;
    stream.drained(ITEMS as i64, Duration::from_secs(60)).await;
    let count = async |condition: &str| {
        postgres::count(&stream.database_url, &format!("SELECT count(*) FROM interactions WHERE {condition}")).await
    };
    assert_eq!(count("true").await, events, "each event counts once, however often it was delivered");
    assert_eq!(count("at = '2026-03-01T12:00:00Z' AND target = 'echo'").await, events);
    stream.audit("after the crash").await;

    let client = reqwest::Client::new();
    let get = async |query: &str| {
        let response = client.get(format!("http://{address}/v1/recommendations?{query}")).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    let ids = |answer: &Value| -> Vec<String> {
        let hits = answer["hits"].as_array().unwrap_or_else(|| panic!("no hits: {answer}"));
        hits.iter().map(|hit| hit["document_id"].as_str().unwrap().to_owned()).collect()
    };
    let (status, popular) = get("pipeline=echo&user=newcomer").await;
    assert_eq!(status, StatusCode::OK, "{popular}");
    assert_eq!(ids(&popular), (0..ITEMS).map(|item| format!("d{item}")).collect::<Vec<_>>(), "the most popular first");
    assert_eq!(popular["hits"][1]["reasons"], json!([{"kind": "popular", "people": PEOPLE - 2}]));
    assert_eq!(ids(&get("pipeline=echo&user=u3").await.1), ["d9"], "what they have seen is left out");
    assert_eq!(
        stream.answer(&["recommend", "--pipeline", "echo", "--user", "newcomer"]),
        popular,
        "HTTP and the command line say the same"
    );
    assert_eq!(ids(&get("pipeline=echo&limit=2&filter=document.id+in+d4,d7").await.1), ["d4", "d7"]);
    for (query, says) in [
        ("pipeline=echo&document=d1", "makes no vectors"),
        ("pipeline=ecko", "did you mean `echo`?"),
        ("pipeline=echo&filter=brnd=x", "has nothing named `brnd`"),
        ("pipeline=echo&user=", "`user` has 0 bytes"),
    ] {
        let (status, refused) = get(query).await;
        assert!(status == StatusCode::BAD_REQUEST && refused["detail"].as_str().unwrap().contains(says), "{query}: {refused}");
    }

    // One person withdraws all interactions, and one interaction is replaced.
    let withdrawn = (0..ITEMS).map(|item| NewRecord { payload: None, ..event(0, item) });
    let changes: Vec<NewRecord> = withdrawn.chain([event_of(1, 0, 9)]).collect();
    records += changes.len() as i64;
    stream.client.send(&topic, changes).await;
    eventually("the changes are committed", Duration::from_secs(60), || async { committed().await == records }).await;
    assert_eq!(count("true").await, events - ITEMS as i64);
    assert_eq!(count("user_id = 'u0'").await, 0, "what was withdrawn is gone");
    assert_eq!((count("document_id = 'e-1-0'").await, count("document_id = 'e-1-0' AND item = 'd9'").await), (1, 1));
    assert_eq!(ids(&get("pipeline=echo&user=u0").await.1).len(), ITEMS, "who took everything back is new again");
    stream.audit("after the withdrawal").await;
}

/// Documents in three departments, whose vectors lie along three axes, and interactions with them.
struct RecommendSetup {
    store: Store,
    url: String,
}

/// Id, department and vector of each document.
fn places() -> impl Iterator<Item = (String, &'static str, [f32; 3])> {
    (0..6).flat_map(|n| {
        let off = 0.1 * n as f32;
        let of = |department: &'static str, place| (format!("{}{n}", &department[..1]), department, place);
        [of("garden", [1.0, off, 0.0]), of("kitchen", [0.0, 1.0, off]), of("toys", [off, 0.0, 1.0])]
    })
}

impl RecommendSetup {
    async fn new() -> Self {
        let postgres::Database { url, store } = postgres::database().await;
        let set = store.embedding_set(&EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: 3 }).await.unwrap();
        for name in ["shelf", CLICKS] {
            store.enroll_pipeline(name, "default").await.unwrap();
        }
        let setup = Self { store, url };
        for (id, department, [x, y, z]) in places() {
            setup
                .run(&format!(
                    "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
                     VALUES ('shelf', '{id}', 1, false, 'text', '{{}}', gen_random_uuid());
                     INSERT INTO results (pipeline, document_id, task, kind, version, label, confidence, fields, fingerprint, tokens, device_micros, batch_id)
                     VALUES ('shelf', '{id}', 'topic', 'classify', 1, '{department}', 0.9, '{{\"labels\": [\"{department}\"]}}', '', 1, 1, gen_random_uuid());
                     INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
                     VALUES ({set}, 'shelf', '{id}', 'vector', 0, 0, 4, 1, '[{x},{y},{z}]')"
                ))
                .await;
        }
        setup.run("INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
                   VALUES ('shelf', 'bare', 1, false, 'text', '{}', gen_random_uuid()), ('shelf', 'gone', 2, true, '', '{}', gen_random_uuid())").await;
        setup
    }

    async fn run(&self, statements: &str) {
        postgres::execute(&self.url, statements).await;
    }

    /// Inserts an interaction with a document so many hours ago.
    async fn deed(&self, user: &str, item: &str, (kind, value): (&str, Option<f64>), hours: i32) {
        let value = value.map_or_else(|| "NULL".to_owned(), |value| value.to_string());
        self.run(&format!(
            "WITH event AS (
                 INSERT INTO results (pipeline, document_id, task, kind, version, fields, fingerprint, tokens, device_micros, batch_id)
                 VALUES ('{CLICKS}', gen_random_uuid()::text, 'deed', 'interact', 1, '{{}}', '', 0, 0, gen_random_uuid()) RETURNING document_id)
             INSERT INTO interactions (pipeline, document_id, task, target, item, user_id, kind, value, at)
             SELECT '{CLICKS}', document_id, 'deed', 'shelf', '{item}', '{user}', '{kind}', {value}, now() - interval '{hours} hours' FROM event"
        ))
        .await;
    }

    fn recommender(&self, diversity: f64) -> Recommender {
        let text = format!(
            "version: 1\nname: shelf\nsource: {{ topic: t }}\ntasks:\n  \
               topic: {{ classify: {{ model: m, labels: {{ garden: x, kitchen: y, toys: z }} }} }}\n  \
               vector: {{ embed: {{ model: m }} }}\n\
             recommendations:\n  weights: {{ view: 1, purchase: 5, rating: {{ neutral: 3, steps: 2, each: 2 }} }}\n  diversity: {diversity}\n"
        );
        Recommender::new(&self.store, [&Definition::parse(Path::new("shelf.yaml"), &text).unwrap()])
    }
}

fn like(document: &str) -> RecommendRequest {
    RecommendRequest { document: Some(document.into()), limit: Some(5), ..RecommendRequest::default() }
}

fn of(user: &str) -> RecommendRequest {
    RecommendRequest { user: Some(user.into()), limit: Some(8), ..RecommendRequest::default() }
}

async fn hits(recommender: &Recommender, wish: &RecommendRequest) -> Vec<Recommendation> {
    recommender.recommend(wish).await.unwrap_or_else(|error| panic!("{wish:?}: {error}")).hits
}

fn ids(hits: &[Recommendation]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document_id.as_str()).collect()
}

async fn documents_are_chosen_by_likeness_taste_and_difference_with_reasons() {
    let setup = RecommendSetup::new().await;
    let alike = setup.recommender(0.0);

    let found = hits(&alike, &like("g0")).await;
    assert_eq!(ids(&found), ["g1", "g2", "g3", "g4", "g5"], "the nearest first, and not the document itself");
    assert!((found[0].score - 1.0 / 1.01_f64.sqrt()).abs() < 1e-6, "{}", found[0].score);
    let similar = Reason::Similar { document: "g0".into(), similarity: found[0].score };
    assert_eq!(found[0].reasons, [similar, Reason::Label { task: "topic".into(), label: "garden".into() }]);
    let varied = hits(&setup.recommender(0.7), &like("g0")).await;
    assert!(varied[0].document_id == "g1" && !varied[1].document_id.starts_with('g'), "{:?}", ids(&varied));
    let kitchen = FilterCondition { place: FilterPlace::Label("topic".into()), test: FilterTest::OneOf(vec![json!("kitchen")]) };
    let filter = SearchFilter { conditions: vec![kitchen] };
    let filtered = hits(&alike, &RecommendRequest { filter: filter.clone(), ..like("g0") }).await;
    assert!(filtered.len() == 5 && filtered.iter().all(|hit| hit.document_id.starts_with('k')), "{:?}", ids(&filtered));

    assert_eq!(hits(&alike, &of("new")).await.len(), 0, "nobody has liked anything yet");
    setup.deed("cook", "k0", ("purchase", None), 3).await;
    setup.deed("cook", "g0", ("rating", Some(1.0)), 2).await;
    setup.deed("cook", "t3", ("wink", None), 1).await;
    let found = hits(&alike, &of("cook")).await;
    assert_eq!(ids(&found)[..5], ["k1", "k2", "k3", "k4", "k5"], "after the taste");
    assert!(!ids(&found).contains(&"k0") && !ids(&found).contains(&"t3"), "seen, and whatever it was: {:?}", ids(&found));
    assert!(!ids(&found)[5..].iter().any(|id| id.starts_with('g')), "next to what they disliked: {:?}", ids(&found));
    assert!(matches!(&found[0].reasons[0], Reason::Liked { document, .. } if document == "k0"), "{:?}", found[0].reasons);

    setup.deed("both", "g0", ("purchase", None), 1).await;
    setup.deed("both", "t0", ("view", None), 1).await;
    let found = hits(&setup.recommender(0.3), &of("both")).await;
    let of_department = |letter: char| found.iter().filter(|hit| hit.document_id.starts_with(letter)).count();
    assert!(of_department('g') >= 2 && of_department('t') >= 2, "each interest has its share: {:?}", ids(&found));
    assert_eq!(
        ids(&hits(&alike, &RecommendRequest { user: Some("both".into()), ..like("g1") }).await)[0],
        "g2",
        "without what they have seen"
    );

    // Weeks later newer interactions outweigh the first.
    setup.deed("changed", "g0", ("purchase", None), 24 * 200).await;
    setup.deed("changed", "t0", ("purchase", None), 1).await;
    assert_eq!(ids(&hits(&alike, &of("changed")).await)[0], "t1");

    for user in ["a", "b", "c"] {
        setup.deed(user, "bare", ("view", None), 5).await;
    }
    setup.deed("a", "gone", ("purchase", None), 1).await;
    let fresh = setup.recommender(0.0);
    let popular = hits(&fresh, &of("new")).await;
    assert_eq!(popular[0].reasons, [Reason::Popular { people: 2 }], "two bought {}", popular[0].document_id);
    assert!(ids(&popular).contains(&"bare") && !ids(&popular).contains(&"gone"), "{:?}", ids(&popular));
    assert!(popular.windows(2).all(|pair| pair[0].score >= pair[1].score), "{popular:?}");
    let without_vectors = hits(&fresh, &like("bare")).await;
    assert!(matches!(without_vectors[0].reasons[..], [Reason::Popular { .. }]) && !ids(&without_vectors).contains(&"bare"));
    let few = hits(&fresh, &RecommendRequest { filter, ..of("new") }).await;
    assert_eq!(ids(&few), ["k0"], "popular ones pass the filter, too");

    for id in ["nothing", "gone", "'; DROP TABLE interactions; --"] {
        let refused = fresh.recommend(&like(id)).await.unwrap_err();
        assert!(matches!(refused, RecommendError::Unknown { .. }), "{refused}");
    }
}

/// With this many documents the index is read, and it must be read past documents that are seen or filtered out.
async fn a_crowd_of_documents_hides_none_that_is_near() {
    let setup = RecommendSetup::new().await;
    let set = setup.store.embedding_set(&EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: 3 }).await.unwrap();
    setup
        .run(&format!(
            "INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
             SELECT 'shelf', 'crowd-' || n, 1, false, 'text', '{{}}', gen_random_uuid() FROM generate_series(1, 12000) AS n;
             INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
             SELECT {set}, 'shelf', 'crowd-' || n, 'vector', 0, 0, 4, 1, ('[' || 0.5 + random() || ',0,' || 0.3 + random() || ']')::vector
             FROM generate_series(1, 12000) AS n;
             ANALYZE"
        ))
        .await;
    let recommender = setup.recommender(0.0);
    let garden = FilterCondition { place: FilterPlace::Label("topic".into()), test: FilterTest::OneOf(vec![json!("garden")]) };
    let filtered =
        hits(&recommender, &RecommendRequest { filter: SearchFilter { conditions: vec![garden] }, ..like("t0") }).await;
    assert_eq!(filtered.len(), 5, "a narrow filter starves nothing: {:?}", ids(&filtered));
    assert!(filtered.iter().all(|hit| hit.document_id.starts_with('g')));
    let near = hits(&recommender, &like("crowd-1")).await;
    assert!(near.len() == 5 && near.iter().all(|hit| hit.score > 0.999), "{near:?}");
    for hit in &near {
        setup.deed("busy", &hit.document_id, ("view", None), 1).await;
    }
    let further = hits(&recommender, &RecommendRequest { user: Some("busy".into()), ..like("crowd-1") }).await;
    assert!(further.len() == 5 && further.iter().all(|hit| !ids(&near).contains(&hit.document_id.as_str())), "{further:?}");
    let taste = hits(&recommender, &of("busy")).await;
    assert!(taste.len() == 8 && taste.iter().all(|hit| hit.score > 0.9), "{taste:?}");
}

/// A shop has millions of interactions.
async fn no_question_about_interactions_reads_them_all() {
    let setup = RecommendSetup::new().await;
    setup
        .run(&format!(
            "INSERT INTO results (pipeline, document_id, task, kind, version, fields, fingerprint, tokens, device_micros, batch_id)
             SELECT '{CLICKS}', n::text, 'deed', 'interact', 1, '{{}}', '', 0, 0, gen_random_uuid() FROM generate_series(1, 60000) AS n;
             INSERT INTO interactions (pipeline, document_id, task, target, item, user_id, kind, at)
             SELECT '{CLICKS}', n::text, 'deed', 'shelf', 'd' || n % 1000, 'u' || n % 3000, 'view', now() - n * interval '1 minute'
             FROM generate_series(1, 60000) AS n;
             ANALYZE"
        ))
        .await;
    let mut connection = PgConnection::connect(&setup.url).await.unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx")).unwrap() {
        let cached: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let query = cached["query"].as_str().unwrap();
        if !query.contains("FROM interactions") {
            continue;
        }
        let plan = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN (GENERIC_PLAN) {query}"))).fetch_all(&mut connection).await;
        let plan = plan.unwrap_or_else(|error| panic!("{query}: {error}"));
        let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan on interactions"), "{query}\nreads every interaction:\n{plan}");
        checked += 1;
    }
    assert_eq!(checked, 2, "of one person, and of all");
}

/// The shipped pipeline with only the tasks that recommendations use: labels and vectors.
fn without_writing(shipped: &str) -> String {
    let (labels, rest) = shipped.split_once("  summary:\n").expect("the shipped pipeline summarizes after it labels");
    let (_, sinks) = rest.split_once("\nsinks:\n").expect("tasks end where sinks begin");
    let (sinks, _) = sinks.split_once("\nsearches:\n").expect("searches and examples follow");
    let sinks = sinks.lines().filter(|line| !line.starts_with("answers:")).collect::<Vec<_>>().join("\n");
    format!("{labels}  vector:\n    embed: {{ model: minilm }}\nsinks:\n{sinks}\n")
}

/// The shipped sample with the shipped encoder.
async fn what_people_came_to_next_is_foretold_better_than_by_popularity() {
    let folder = open_folder();
    let pipelines = folder.path().join("pipelines");
    std::fs::create_dir_all(pipelines.join("samples")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for name in ["products-interactions.yaml", "samples/products-interactions.jsonl", "samples/products.jsonl"] {
        std::fs::copy(shipped.join(name), pipelines.join(name)).unwrap();
    }
    std::fs::write(
        pipelines.join("products.yaml"),
        without_writing(&std::fs::read_to_string(shipped.join("products.yaml")).unwrap()),
    )
    .unwrap();
    let data = folder.path().join("data").display().to_string();
    let root = folder.path().to_owned();
    let tidemill = async |arguments: &[&str]| -> Value {
        let mut program = Command::new("timeout");
        program.args(["--kill-after=5", "300", env!("CARGO_BIN_EXE_tidemill")]).args(arguments).args([
            "--json",
            "--data-dir",
            &data,
        ]);
        program.current_dir(&root);
        let output = spawn_blocking(move || program.output().unwrap()).await.unwrap();
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "tidemill {} ends with {}:\n{told}", arguments.join(" "), output.status);
        serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|e| panic!("{said} is no JSON: {e}"))
    };
    tidemill(&["demo"]).await;
    let evaluate = ["eval", "recommendations", "--pipeline", "products", "--k", "10"];
    let measured = tidemill(&evaluate).await;
    eprintln!("{measured}");
    assert_eq!(measured["interactions"], 487, "each event of the sample once: {measured}");
    let recall = |whose: &str| measured[whose]["recall"].as_f64().unwrap();
    assert!(measured["users"].as_i64().unwrap() > 30, "{measured}");
    assert!(recall("recommended") > 1.3 * recall("popular"), "no better than what is popular: {measured}");
    let coverage = |whose: &str| measured[whose]["coverage"].as_f64().unwrap();
    assert!(coverage("recommended") > 2.0 * coverage("popular"), "everybody is shown the same: {measured}");
    assert_eq!(tidemill(&evaluate).await, measured, "the same again");
    let share = tidemill(&[&evaluate[..], &["--holdout", "0.3", "--users", "20"]].concat()).await;
    assert!(share["users"] == 20 && share["held_out"].as_i64().unwrap() > 20, "{share}");

    let found = tidemill(&["recommend", "--pipeline", "products", "--document", "GD-1001", "--limit", "5"]).await;
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 5, "{found}");
    assert!(hits.iter().all(|hit| hit["document_id"] != "GD-1001"), "{found}");
    let garden = json!({"kind": "label", "task": "topic", "label": "garden"});
    assert!(hits.iter().any(|hit| hit["reasons"][1] == garden), "a garden tool is like garden tools: {found}");
    let found = tidemill(&["recommend", "--pipeline", "products", "--user", "en-01"]).await;
    assert!(found["hits"].as_array().unwrap().iter().all(|hit| hit["reasons"][0]["kind"] == "liked"), "{found}");
}
