//! Tenants that try to reach each other's rows.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tidemill::access::Scope;
use tidemill::outcome::{EmbeddingSet, Fingerprint};
use tidemill::store::{Enrollment, Fusion, JobFilter, LeadFilter, LeadOrder, ListRank, QueryVector, SearchFilter, SearchQuery};

use super::test_service::{TENANTS, TestService, tenant};
use crate::harness::{eventually, postgres};

/// Tables with rows of tenants.
const TABLES: [&str; 14] = [
    "pipelines",
    "documents",
    "results",
    "embeddings",
    "interactions",
    "dead_letters",
    "parked_events",
    "jobs",
    "units",
    "batches",
    "usage",
    "leads",
    "accounts",
    "deliveries",
];

/// Fails where an answer contains something of the other tenant's rows. What the caller sent may be repeated.
fn assert_silent(answer: &Value, when: &str) {
    let text = answer.to_string();
    for word in ["plan of globex", "globex-1", "globex-archive", "reembed"] {
        assert!(!text.contains(word), "{when}: the answer contains {word}: {text}");
    }
}

pub async fn a_tenant_sees_its_own_rows_and_no_others() {
    let service = TestService::new().await;
    let acme = service.token(Some("acme"), &[Scope::Admin]).await;
    let everybody = service.token(None, &[Scope::Admin]).await;
    let search = |pipeline: &str| json!({ "query": "secret plan", "pipeline": pipeline });

    let (status, found) = service.ask(Some(&acme), "/v1/search", Some(&json!({ "query": "secret plan" }))).await;
    assert_eq!(
        (status.as_u16(), &found["pipeline"], &found["hits"][0]["document_id"]),
        (200, &json!("acme-notes"), &json!("acme-1"))
    );
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(1), "{found}");
    let (status, there) = service.ask(Some(&acme), "/v1/search", Some(&search("globex-notes"))).await;
    let (_, nowhere) = service.ask(Some(&acme), "/v1/search", Some(&search("globey-notes"))).await;
    assert_eq!(status, 400, "{there}");
    let same = there["detail"].as_str().unwrap().replace("globex", "globey");
    assert_eq!(same, nowhere["detail"].as_str().unwrap(), "a pipeline of another tenant is as unknown as none at all");
    assert_silent(&there, "a search in the other's pipeline");
    let (_, found) = service.ask(Some(&everybody), "/v1/search", Some(&search("globex-notes"))).await;
    assert_eq!(found["hits"][0]["document_id"], "globex-1", "a token without a tenant sees all: {found}");

    let (_, list) = service.ask(Some(&acme), "/v1/jobs", None).await;
    let ids = |list: &Value| list["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&list), ["acme-job"]);
    assert_eq!(ids(&service.ask(Some(&acme), "/v1/jobs?pipeline=globex-notes", None).await.1), [""; 0]);
    assert_eq!(ids(&service.ask(Some(&everybody), "/v1/jobs", None).await.1).len(), 2);
    assert_eq!(service.ask(Some(&acme), "/v1/jobs/acme-job", None).await.0, 200);
    for (path, body) in [("", None), ("/cancel", Some(json!({}))), ("/retry", Some(json!({})))] {
        let (status, refused) = service.ask(Some(&acme), &format!("/v1/jobs/globex-job{path}"), body.as_ref()).await;
        assert_eq!((status.as_u16(), &refused["code"]), (404, &json!("unknown_job")), "{path}: {refused}");
        assert_silent(&refused, path);
    }
    assert_eq!(
        service.count("SELECT count(*) FROM jobs WHERE id = 'globex:globex-job' AND state = 'queued'").await,
        1,
        "nobody called it off"
    );

    let job = |id: &str, pipeline: &str, more: Value| {
        let mut job = json!({ "version": 1, "id": id, "pipeline": pipeline });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    let attempts = [
        job("a", "globex-notes", json!({ "kind": "delete", "documents": ["globex-1"] })),
        job("b", "globex-notes", json!({ "kind": "rerun" })),
        job("c", "acme-notes", json!({ "kind": "backfill", "dataset": "globex-archive" })),
        job("d", "acme-notes", json!({ "kind": "evaluate", "dataset": "globex-archive", "task": "copy", "expected": "x" })),
    ];
    for attempt in attempts {
        let (status, refused) = service.ask(Some(&acme), "/v1/jobs", Some(&attempt)).await;
        assert_eq!(status, 400, "{attempt}: {refused}");
        let unknown = refused.to_string().replace("globex-archive", "").replace("did you mean", "");
        assert_silent(&json!(unknown), "a job for the other tenant");
    }
    assert_eq!(service.count("SELECT count(*) FROM jobs").await, 2);
    // Ids of jobs are per tenant: this one may use an id of the other's, and learns nothing about it.
    let same_id = |pipeline: &str| job("globex-job", pipeline, json!({ "kind": "rerun" }));
    let (status, asked) = service.ask(Some(&acme), "/v1/jobs", Some(&same_id("acme-notes"))).await;
    assert_eq!((status.as_u16(), &asked["id"], &asked["pipeline"]), (201, &json!("globex-job"), &json!("acme-notes")), "{asked}");
    assert_eq!(
        service.ask(Some(&acme), "/v1/jobs", Some(&same_id("acme-notes"))).await.0,
        200,
        "the same words are the same job"
    );
    let (status, refused) =
        service.ask(Some(&acme), "/v1/jobs", Some(&job("acme-job", "acme-notes", json!({ "kind": "rerun" })))).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("conflict")), "its own id stands for another job: {refused}");
    let (_, cancelled) = service.ask(Some(&acme), "/v1/jobs/globex-job/cancel", Some(&json!({}))).await;
    assert_eq!((&cancelled["id"], &cancelled["pipeline"]), (&json!("globex-job"), &json!("acme-notes")), "{cancelled}");
    assert_eq!(service.count("SELECT count(*) FROM jobs WHERE id = 'globex:globex-job' AND state = 'queued'").await, 1);
    let (status, seen) = service.ask(Some(&everybody), "/v1/jobs/globex:globex-job", None).await;
    assert_eq!(
        (status.as_u16(), &seen["pipeline"]),
        (200, &json!("globex-notes")),
        "whoever sees all tenants sees whose it is: {seen}"
    );
    let own = job("own", "acme-notes", json!({ "kind": "backfill", "dataset": "acme-archive" }));
    assert_eq!(service.ask(Some(&acme), "/v1/jobs", Some(&own)).await.0, 201, "a tenant may submit a job for its own pipeline");

    let (status, refused) = service.ask(Some(&acme), "/metrics", None).await;
    assert_eq!((status.as_u16(), &refused["code"]), (403, &json!("forbidden")), "metrics name everybody's pipelines");
}

pub async fn a_tenant_sees_its_own_board_and_documents() {
    let service = TestService::new().await;
    let acme = service.token(Some("acme"), &[Scope::Read, Scope::Submit]).await;
    let everybody = service.token(None, &[Scope::Read]).await;
    let ask = async |path: &str| service.ask(Some(&acme), path, None).await;

    let (_, shown) = ask("/v1/pipelines").await;
    assert_eq!(shown["pipelines"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!((&shown["pipelines"][0]["name"], &shown["pipelines"][0]["today"]["records"]), (&json!("acme-notes"), &json!(1)));
    assert_silent(&shown, "the pipelines");
    let (_, all) = service.ask(Some(&everybody), "/v1/pipelines", None).await;
    assert_eq!(all["pipelines"].as_array().map(Vec::len), Some(2), "{all}");

    let (_, letters) = ask("/v1/dead-letters").await;
    assert_eq!(letters["counts"], json!([{ "pipeline": "acme-notes", "class": "poison", "letters": 1 }]));
    assert_eq!(letters["letters"].as_array().map(Vec::len), Some(1), "{letters}");
    let (_, all) = service.ask(Some(&everybody), "/v1/dead-letters?pipeline=globex-notes", None).await;
    let other = all["letters"][0]["id"].as_i64().expect("the other tenant has a dead letter too");
    let (status, refused) = ask(&format!("/v1/dead-letters/{other}")).await;
    assert_eq!((status.as_u16(), &refused["code"]), (404, &json!("unknown_letter")), "{refused}");
    for which in [json!({ "ids": [other] }), json!({ "pipeline": "globex-notes" })] {
        let (status, sent) = service.ask(Some(&acme), "/v1/dead-letters/replay", Some(&which)).await;
        assert_eq!((status.as_u16(), &sent["records"], &sent["unknown"]), (200, &json!(0), &json!({})), "{which}: {sent}");
    }
    let (_, sent) = service.ask(Some(&acme), "/v1/dead-letters/replay", Some(&json!({ "class": "poison" }))).await;
    assert_eq!(sent["code"], "invalid_request", "there is no such class: {sent}");
    let own = letters["letters"][0]["id"].clone();
    let (_, sent) = service.ask(Some(&acme), "/v1/dead-letters/replay", Some(&json!({ "ids": [own, other] }))).await;
    assert_eq!(sent["records"], 1, "one of the two is its own: {sent}");
    assert_eq!(service.count("SELECT count(*) FROM outbox WHERE topic = 'acme'").await, 1);

    let (_, parked) = ask("/v1/parked-events").await;
    assert_eq!(parked["events"].as_array().map(Vec::len), Some(1), "{parked}");
    assert_silent(&parked, "the parked events");

    let (status, explained) = ask("/v1/documents/acme-1").await;
    assert_eq!((status.as_u16(), &explained["outputs"][0]["task"]), (200, &json!("copy")), "{explained}");
    for path in
        ["/v1/documents/globex-1", "/v1/documents/globex-1?pipeline=acme-notes", "/v1/documents/globex-1?pipeline=globex-notes"]
    {
        let (status, refused) = ask(path).await;
        assert!(status.is_client_error() && refused["outputs"].is_null(), "{path}: {refused}");
    }
    let question = json!({ "question": "What is the plan?", "pipeline": "globex-notes" });
    let (status, refused) = service.ask(Some(&acme), "/v1/answer", Some(&question)).await;
    assert_eq!(status, 400, "{refused}");
    assert_silent(&refused, "an answer from the other's documents");
}

pub async fn a_tenant_is_recommended_its_own_documents_by_its_own_people() {
    let service = TestService::new().await;
    let acme = service.token(Some("acme"), &[Scope::Read]).await;
    let everybody = service.token(None, &[Scope::Read]).await;
    // The other tenant forges interactions with a document of this one.
    let forged = "WITH event AS (
            INSERT INTO results (pipeline, document_id, task, kind, version, fields, fingerprint, tokens, device_micros, batch_id)
            VALUES ('globex-notes', 'forged', 'deed', 'interact', 1, '{}', '', 0, 0, gen_random_uuid())
            RETURNING pipeline, document_id, task)
        INSERT INTO interactions (pipeline, document_id, task, target, item, user_id, kind, at)
        SELECT pipeline, document_id, task, 'acme-notes', 'acme-1', 'forged', 'view', now() FROM event";
    postgres::execute(&service.database_url, forged).await;
    for token in [&acme, &everybody] {
        let (_, found) = service.ask(Some(token), "/v1/recommendations?pipeline=acme-notes", None).await;
        assert_eq!(found["hits"][0]["reasons"], json!([{ "kind": "popular", "people": 1 }]), "{found}");
        assert_eq!(found["hits"].as_array().map(Vec::len), Some(1), "{found}");
        // For this tenant the user is new: nothing of the forged interactions counts as seen.
        let (_, found) = service.ask(Some(token), "/v1/recommendations?pipeline=acme-notes&user=forged", None).await;
        assert_eq!(found["hits"][0]["document_id"], "acme-1", "{found}");
        let (_, found) = service.ask(Some(token), "/v1/recommendations?pipeline=acme-notes&user=somebody", None).await;
        assert_eq!(found["hits"], json!([]), "a known user has seen the only document: {found}");
    }
    for query in ["pipeline=globex-notes", "pipeline=globex-notes&user=somebody", "pipeline=globex-notes&document=globex-1"] {
        let (status, refused) = service.ask(Some(&acme), &format!("/v1/recommendations?{query}"), None).await;
        assert_eq!(status, 400, "{query}: {refused}");
        assert_silent(&json!(refused.to_string().replace("globex-notes", "")), query);
    }
    let (_, found) = service.ask(Some(&everybody), "/v1/recommendations?pipeline=globex-notes", None).await;
    assert_eq!(found["hits"][0]["document_id"], "globex-1", "a token without a tenant sees all: {found}");
    // Without the service's own filter.
    let reader = service.store.reader(tenant("acme"));
    assert_eq!(reader.interactions_of("globex-notes", "globex", "somebody", 10).await.unwrap(), []);
    assert_eq!(reader.latest_interactions("globex-notes", "globex", 10).await.unwrap(), []);
    let everything = SearchFilter::default();
    assert!(reader.document_summaries("globex-notes", &["globex-1".into()]).await.unwrap().is_empty());
    assert_eq!(reader.passing("globex-notes", &["globex-1".into()], &everything).await.unwrap(), [""; 0]);
    assert_eq!(service.store.reader(None).latest_interactions("globex-notes", "globex", 10).await.unwrap().len(), 1);
}

pub async fn a_tenant_sees_its_own_leads() {
    let service = TestService::new().await;
    let acme = service.token(Some("acme"), &[Scope::Read]).await;
    let everybody = service.token(None, &[Scope::Read]).await;
    let ask = async |path: &str| service.ask(Some(&acme), path, None).await;

    let (status, page) = ask("/v1/leads").await;
    assert_eq!(
        (status.as_u16(), &page["pipeline"], &page["leads"][0]["document_id"]),
        (200, &json!("acme-notes"), &json!("acme-1"))
    );
    assert_eq!(page["leads"].as_array().map(Vec::len), Some(1), "{page}");
    let (_, lead) = ask("/v1/leads/acme-1").await;
    assert_eq!((&lead["deliveries"][0]["document_id"], &lead["about"]["key"]), (&json!("acme-1"), &json!("acme notes")));
    assert_eq!(ask("/v1/accounts/ACME-notes").await.1["leads"][0]["document_id"], "acme-1");
    assert_silent(&lead, "a lead");
    let (_, export) = ask("/v1/leads/export").await;
    assert!(export.as_str().unwrap().contains("acme-1"), "{export}");
    assert_silent(&export, "the export");
    for path in [
        "/v1/leads?pipeline=globex-notes",
        "/v1/leads/globex-1",
        "/v1/leads/globex-1?pipeline=acme-notes",
        "/v1/leads/globex-1?pipeline=globex-notes",
        "/v1/leads/export?pipeline=globex-notes",
        "/v1/accounts/globex-notes",
        "/v1/accounts/globex-notes?pipeline=globex-notes",
    ] {
        let (status, refused) = ask(path).await;
        assert!(status.is_client_error() && refused["leads"].is_null(), "{path}: {refused}");
        assert!(!refused.to_string().contains("plan of globex"), "{path}: {refused}");
    }
    let (_, all) = service.ask(Some(&everybody), "/v1/leads?pipeline=globex-notes", None).await;
    assert_eq!(all["leads"][0]["document_id"], "globex-1", "a token without a tenant sees all: {all}");

    // Without the service's own filter: each query names the other tenant's rows.
    let reader = service.store.reader(tenant("acme"));
    let (filter, order) = (LeadFilter::default(), LeadOrder::Score);
    let leads = async |pipeline: &str| reader.leads(pipeline, &filter, order, &order.start(), 10).await.unwrap().len();
    assert_eq!((leads("acme-notes").await, leads("globex-notes").await), (1, 0));
    assert!(reader.lead("globex-notes", "globex-1").await.unwrap().is_none());
    assert!(reader.account("globex-notes", "globex notes").await.unwrap().is_none());
    assert_eq!(reader.deliveries(None, None, None, 10).await.unwrap().len(), 1);
}

pub async fn the_policies_hold_where_the_service_does_not_ask() {
    let service = TestService::new().await;
    for table in TABLES {
        let all = service.count(&format!("SELECT count(*) FROM {table}")).await;
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(all, 2, "{table} holds a row of each tenant");
        for name in TENANTS {
            assert_eq!(service.as_reader(Some(name), &count).await, Ok(1), "{table} as {name}");
        }
        // A tenant's name is only ever a value, and where none is set no rows are visible.
        for name in [None, Some(""), Some("nobody"), Some("acme' OR '1'='1"), Some("acme'; RESET ROLE; --"), Some("%")] {
            assert_eq!(service.as_reader(name, &count).await, Ok(0), "{table} as {name:?}");
        }
        for statement in [
            format!("WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT count(*) FROM gone"),
            format!("WITH locked AS (SELECT FROM {table} FOR UPDATE) SELECT count(*) FROM locked"),
        ] {
            let refused = service.as_reader(Some("acme"), &statement).await.unwrap_err();
            assert!(refused.contains("permission denied"), "{statement}: {refused}");
        }
    }
    for closed in ["tokens", "positions", "outbox", "parquet_files", "prompts", "schedules"] {
        let refused = service.as_reader(Some("acme"), &format!("SELECT count(*) FROM {closed}")).await.unwrap_err();
        assert!(refused.contains("permission denied"), "{closed}: {refused}");
    }
    let join =
        "SELECT count(*) FROM documents d JOIN results r ON r.document_id = d.id WHERE d.pipeline = 'globex-notes' OR true";
    assert_eq!(service.as_reader(Some("acme"), join).await, Ok(1), "whatever a query asks for");

    // Without the service's own filter: each query names the other tenant's rows.
    let reader = service.store.reader(tenant("acme"));
    let set = EmbeddingSet { model: "m".into(), revision: "r".into(), dimension: 3 };
    let vector = Some(QueryVector { set, task: "vector".into(), vector: vec![1.0, 0.0, 0.0], words: String::new() });
    let query = |pipeline: &str| SearchQuery {
        pipeline: pipeline.into(),
        words: Some("plan".into()),
        vector: vector.clone(),
        fusion: Fusion::default(),
        offset: 0,
        limit: 10,
        filter: SearchFilter::default(),
        facets: Vec::new(),
    };
    let hit = &reader.search(query("acme-notes")).await.unwrap().hits[0];
    let rank = |standing: &Option<ListRank>| standing.as_ref().map(|standing| standing.rank);
    let ranks = (rank(&hit.explanation.vector), rank(&hit.explanation.text));
    assert_eq!((hit.document_id.as_str(), ranks), ("acme-1", (Some(1), Some(1))));
    assert!(reader.search(query("globex-notes")).await.unwrap().hits.is_empty(), "the other's documents leave the database");
    assert_eq!(service.store.search(query("globex-notes")).await.unwrap().hits.len(), 1, "the service itself sees it");
    let theirs = service.store.job("globex:globex-job").await.unwrap().expect("the service sees every job");
    assert_eq!(reader.job("globex:globex-job").await.unwrap(), None);
    assert_eq!(reader.job_progress(&theirs).await.unwrap().units, 0);
    let filter = JobFilter { limit: 10, ..JobFilter::default() };
    assert_eq!(reader.jobs(&filter).await.unwrap().len(), 1);

    // A caller that disconnects halfway leaves no connection with its tenant set, nor one whose restriction is gone.
    for _ in 0..40 {
        let (reader, filter) = (reader.clone(), filter.clone());
        let asked = tokio::spawn(async move { reader.jobs(&filter).await });
        tokio::time::sleep(std::time::Duration::from_micros(300)).await;
        asked.abort();
    }
    for _ in 0..20 {
        assert_eq!(service.store.reader(None).jobs(&filter).await.unwrap().len(), 2);
        assert_eq!(reader.jobs(&filter).await.unwrap().len(), 1);
    }
}

pub async fn a_pipeline_changes_its_tenant_only_by_an_order() {
    let service = TestService::new().await;
    assert_eq!(service.store.enroll_pipeline("acme-notes", "acme").await.unwrap(), Enrollment::Yes, "as before");
    let refused = service.store.enroll_pipeline("acme-notes", "globex").await.unwrap();
    assert_eq!(refused, Enrollment::Another("acme".into()), "a word in a file hands nothing over");
    assert_eq!(service.as_reader(Some("globex"), "SELECT count(*) FROM documents").await, Ok(1));
    assert_eq!(service.store.assign_pipeline("acme-notes", "globex").await.unwrap().as_deref(), Some("acme"));
    assert_eq!(service.as_reader(Some("globex"), "SELECT count(*) FROM documents").await, Ok(2), "an order does");
    assert_eq!(service.as_reader(Some("acme"), "SELECT count(*) FROM documents").await, Ok(0));
    assert_eq!(service.store.assign_pipeline("nothing", "globex").await.unwrap(), None);
}

pub async fn a_pipeline_that_is_handed_over_is_closed_to_its_old_tenant_within_seconds() {
    let service = TestService::new().await;
    let acme = service.token(Some("acme"), &[Scope::Admin]).await;
    let facets = json!({ "query": "plan", "pipeline": "acme-notes", "facets": ["note"] });
    let delete = json!({ "version": 1, "id": "d", "kind": "delete", "pipeline": "acme-notes", "documents": ["acme-1"] });
    let requests = [
        ("/v1/documents/acme-1?pipeline=acme-notes", None),
        ("/v1/search", Some(&facets)),
        ("/v1/recommendations?pipeline=acme-notes", None),
        ("/v1/leads?pipeline=acme-notes", None),
        ("/v1/accounts/acme%20notes?pipeline=acme-notes", None),
        ("/v1/jobs", Some(&delete)),
    ];
    for (path, body) in requests {
        let (status, answer) = service.ask(Some(&acme), path, body).await;
        assert!(status.is_success(), "{path}: {answer}");
    }
    service.store.assign_pipeline("acme-notes", "globex").await.unwrap();
    let at_once = json!({ "version": 1, "id": "c", "kind": "delete", "pipeline": "acme-notes", "documents": ["acme-1"] });
    let (status, refused) = service.ask(Some(&acme), "/v1/jobs", Some(&at_once)).await;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (400, &json!("invalid_request")),
        "changes are refused until the handover is known: {refused}"
    );
    assert_eq!(service.count("SELECT count(*) FROM jobs WHERE id LIKE '%:c'").await, 0);
    eventually("the service learns of it", Duration::from_secs(10), async || {
        service.ask(Some(&acme), "/v1/search", Some(&facets)).await.0.is_client_error()
    })
    .await;
    let again = json!({ "version": 1, "id": "e", "kind": "delete", "pipeline": "acme-notes", "documents": ["acme-1"] });
    for (path, body) in requests.into_iter().filter(|(path, _)| *path != "/v1/jobs").chain([("/v1/jobs", Some(&again))]) {
        let (status, refused) = service.ask(Some(&acme), path, body).await;
        assert!(status.is_client_error(), "{path}: {refused}");
        assert!(!refused.to_string().contains("plan of acme"), "{path}: {refused}");
    }
    assert_eq!(service.ask(Some(&acme), "/v1/pipelines", None).await.1["pipelines"], json!([]));
    assert_eq!(service.count("SELECT count(*) FROM jobs WHERE id LIKE '%:e'").await, 0, "a refused request changes nothing");
}

pub async fn no_tenant_takes_over_what_another_has_computed() {
    let service = TestService::new().await;
    let print = Fingerprint([7; 32]);
    let mark =
        "UPDATE results SET fingerprint = decode(repeat('07', 32), 'hex'), text = 'the plan' WHERE pipeline = 'acme-notes'";
    postgres::execute(&service.database_url, mark).await;
    let known = async |pipeline: &str| service.store.outputs(pipeline, &[print]).await.unwrap().len();
    assert_eq!((known("acme-notes").await, known("globex-notes").await), (1, 0), "reuse would reveal what another tenant has");
    service.store.enroll_pipeline("acme-others", "acme").await.unwrap();
    assert_eq!(known("acme-others").await, 1, "within a tenant outputs are reused");
}

/// However many requests wait for the database, the pipelines still get their connections.
pub async fn questions_leave_the_walk_its_connections() {
    const ASKED_AT_ONCE: usize = 12;
    let service = TestService::new().await;
    let token = service.token(Some("acme"), &[Scope::Admin]).await;
    let (status, _) = service.ask(Some(&token), "/v1/pipelines", None).await;
    assert_eq!(status, 200, "the token is known before the crowd comes");
    // The lock makes every search wait.
    let mut blocker = PgConnection::connect(&service.database_url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE documents IN ACCESS EXCLUSIVE MODE").execute(&mut blocker).await.unwrap();
    let question = json!({ "query": "secret plan", "pipeline": "acme-notes" });
    let mut crowd: Vec<_> =
        (0..ASKED_AT_ONCE).map(|_| Box::pin(service.ask(Some(&token), "/v1/search", Some(&question)))).collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let all = futures::future::join_all(crowd.iter_mut());
    let blocked = eventually("searches wait for the table", Duration::from_secs(20), async || service.count(waiting).await >= 6);
    let served = async {
        blocked.await;
        service.store.ping().await.expect("/readyz asks by another connection");
        service.store.enroll_pipeline("acme-more", "acme").await.expect("the walk writes by another connection");
        let (status, refused) = service.ask(Some(&token), "/v1/jobs", None).await;
        assert!(status == 503 || status == 200, "a further request is answered or refused: {refused}");
        sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    };
    let (answers, ()) = tokio::join!(all, served);
    let found = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(found >= 6, "requests that had a connection are answered: {answers:?}");
    for (status, refused) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((status.as_u16(), &refused["code"]), (503, &json!("unavailable")), "{refused}");
    }
}
