//! Leads: scores, webhooks that are delivered once, companies that follow their documents, and lists for people.

mod receiver;
mod shipped;

use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::receiver::{Answer, Receiver, SECRET};
use crate::harness::free_port;
use crate::harness::kafka::NewRecord;
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::KAFKA, a_crossing_is_told_under_one_id_whatever_the_receiver_and_the_worker_do),
        trial!(Needs::KAFKA, a_receiver_that_wants_no_more_or_never_answers_is_left_alone_and_the_state_says_so),
        trial!(Needs::KAFKA, an_account_follows_its_documents_and_goes_with_the_last),
        trial!(
            Needs::NOTHING.within(Duration::from_secs(300)),
            shipped::a_server_behind_the_writers_name_extracts_drafts_and_sums_up
        ),
        trial!(Needs::KAFKA, lists_are_sorted_filtered_paged_and_exported),
    ]
}

const LIMIT: Duration = Duration::from_secs(60);

/// A stream whose documents are leads.
struct LeadSetup {
    stream: TestStream,
    /// The topic of companies.
    accounts: String,
    address: String,
    client: reqwest::Client,
}

impl LeadSetup {
    /// A stream with further lines of the configuration and of the section `leads`.
    async fn new(settings: &str, leads: &str) -> Self {
        let mut stream = TestStream::new(kafka::shared().await, 1).await;
        let accounts = stream.client.topic("accounts", 1).await;
        stream.settings = settings.to_owned();
        stream.configure(&stream.path("data"));
        std::fs::write(stream.path("crm.secret"), SECRET).unwrap();
        let topic = &stream.topic;
        stream.write_pipeline(&format!(
            "version: 1\nname: echo\n\
             source: {{ topic: {topic}, id: id, text: \"{{{{ text }}}}\", metadata: [company, person, stage] }}\n\
             tasks:\n  \
               score: {{ score: {{ parts: {{ base: document.fields.base, urgent: \"5 if 'now' in document.text else 0\" }} }} }}\n  \
               reply: {{ render: {{ template: \"Dear {{{{ document.metadata.person | default('customer') }}}}\" }} }}\n\
             leads:\n  score: score\n  company: document.metadata.company\n  person: document.metadata.person\n  \
               stage: document.metadata.stage\n  drafts: [reply]\n  threshold: 70\n{leads}\
             sinks: {{ parquet: {{ dataset: results }} }}\nbudget: {{ max_wait: 50ms, max_records: 50 }}\n",
        ));
        let address = format!("127.0.0.1:{}", free_port());
        Self { stream, accounts, address, client: reqwest::Client::new() }
    }

    /// Adds the pipeline that reads the topic of companies.
    fn with_accounts(self) -> Self {
        let topic = &self.accounts;
        let text = format!(
            "version: 1\nname: accounts\n\
             source: {{ topic: {topic}, id: account, version: version, \
                        text: \"{{% for found in newest %}}{{{{ found.text }}}};{{% endfor %}}\" }}\n\
             tasks: {{ summary: {{ render: {{ template: \"{{{{ document.fields.name }}}}: {{{{ document.text }}}}\" }} }} }}\n\
             budget: {{ max_wait: 50ms }}\n"
        );
        std::fs::write(self.stream.path("pipelines").join("accounts.yaml"), text).unwrap();
        self
    }

    async fn worker(&self, failpoints: &str) -> Worker {
        let worker = self.stream.worker_at(&self.address, failpoints);
        eventually("the worker serves", LIMIT, || async {
            self.client
                .get(format!("http://{}/v1/pipelines", self.address))
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        worker
    }

    async fn send(&self, documents: &[Value]) {
        let record = |document: &Value| NewRecord {
            partition: None,
            key: document["id"].as_str().unwrap().as_bytes().to_vec(),
            payload: Some(document.to_string().into_bytes()),
        };
        self.stream.client.send(&self.stream.topic, documents.iter().map(record).collect()).await;
    }

    async fn delete(&self, id: &str) {
        let record = NewRecord { partition: None, key: id.as_bytes().to_vec(), payload: None };
        self.stream.client.send(&self.stream.topic, vec![record]).await;
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn count(&self, query: &str) -> i64 {
        postgres::count(&self.stream.database_url, query).await
    }

    /// Waits until so many deliveries are in the state.
    async fn settled(&self, state: &str, count: i64) {
        let query = format!("SELECT count(*) FROM deliveries WHERE state = '{state}'");
        eventually(&format!("{count} deliveries are {state}"), LIMIT, || async { self.count(&query).await == count }).await;
    }
}

fn document(id: &str, base: i64, text: &str) -> Value {
    json!({ "id": id, "base": base, "text": text })
}

fn of(id: &str, company: &str, text: &str) -> Value {
    json!({ "id": id, "base": 10, "text": text, "company": company })
}

fn webhook(receiver: &Receiver, more: &str) -> String {
    let url = receiver.url();
    format!(
        "[webhooks.crm]\nurl = \"{url}\"\nsecret_file = \"crm.secret\"\ntimeout_seconds = 1\nfirst_wait_seconds = 0.2\nlongest_wait_seconds = 2\n{more}"
    )
}

async fn a_crossing_is_told_under_one_id_whatever_the_receiver_and_the_worker_do() {
    let script = [Answer::Status(500), Answer::RetryAfter(1), Answer::Hang, Answer::Redirect];
    let receiver = Receiver::start(script).await;
    let setup = LeadSetup::new(&webhook(&receiver, ""), "  webhook: crm\n").await;

    // The worker is killed right after its first commit. The commit is complete, so that the batch is never repeated.
    let mut doomed = setup.stream.worker("commit-after-commit=return");
    setup
        .send(&[
            document("hot", 90, "call me"),
            document("cold", 10, "hello"),
            document("even", 65, "now"),
            document("near", 69, "soon"),
        ])
        .await;
    tokio::task::block_in_place(|| doomed.wait(LIMIT));
    // The worker is killed after the receiver's third answer and before it is recorded: the delivery is sent again with the same
    // id.
    let mut doomed = setup.stream.worker("delivery-before-settle=2*off->return");
    tokio::task::block_in_place(|| doomed.wait(LIMIT));
    let _worker = setup.worker("").await;
    setup.settled("delivered", 2).await;

    let calls = receiver.calls();
    let about = |id: &str| calls.iter().filter(|call| call.body["data"]["document_id"] == id).collect::<Vec<_>>();
    for id in ["hot", "even"] {
        let mut ids: Vec<&str> = about(id).iter().map(|call| call.id.as_str()).collect();
        assert!(!ids.is_empty(), "{id} was delivered to nobody");
        ids.dedup();
        assert_eq!(ids.len(), 1, "{id} was delivered under {ids:?}");
    }
    assert!(calls.len() >= 6, "four refusals and two deliveries make at least six calls: {}", calls.len());
    assert!(about("cold").is_empty() && about("near").is_empty(), "a score below the threshold causes no delivery");
    assert!(calls.iter().all(|call| call.path == "/hook"), "a redirect was followed");
    for call in &calls {
        receiver::verify(call);
    }
    let told = &about("even")[0].body;
    assert_eq!(
        (&told["type"], &told["data"]["score"], &told["data"]["crossing"]),
        (&json!("lead.crossed"), &json!(70.0), &json!(1))
    );
    assert_eq!(told["data"]["parts"], json!({ "base": 65.0, "urgent": 5.0 }), "the parts add up to the score");

    // The same records again cause no delivery; neither does a score that changes but stays above the threshold.
    let before = calls.len();
    setup.send(&[document("hot", 90, "call me"), document("even", 65, "now"), document("hot", 95, "call me")]).await;
    setup.stream.drained(7, LIMIT).await;
    assert_eq!(setup.count("SELECT count(*) FROM deliveries").await, 2);
    // A score that falls causes no delivery, and one that rises above the threshold again does.
    setup.send(&[document("hot", 5, "never mind")]).await;
    setup.stream.drained(8, LIMIT).await;
    setup.send(&[document("hot", 80, "call me after all")]).await;
    setup.settled("delivered", 3).await;
    let calls = receiver.calls();
    assert_eq!(calls.len(), before + 1, "one call more");
    let last = calls.last().unwrap();
    assert_eq!(
        (&last.body["data"]["crossing"], last.id == about_id(&calls, "hot")),
        (&json!(2), false),
        "it is a delivery of its own"
    );

    let (_, lead) = setup.get("/v1/leads/hot").await;
    let deliveries: Vec<_> =
        lead["deliveries"].as_array().unwrap().iter().map(|each| (&each["crossing"], &each["state"])).collect();
    assert_eq!(deliveries, [(&json!(2), &json!("delivered")), (&json!(1), &json!("delivered"))]);
    setup.stream.audit("after two workers died").await;
}

/// The id of the lead's first delivery.
fn about_id(calls: &[receiver::Call], id: &str) -> String {
    calls.iter().find(|call| call.body["data"]["document_id"] == id).unwrap().id.clone()
}

async fn a_receiver_that_wants_no_more_or_never_answers_is_left_alone_and_the_state_says_so() {
    let receiver = Receiver::start([Answer::Status(410)]).await;
    receiver.then(Answer::Status(503));
    let setup = LeadSetup::new(&webhook(&receiver, "attempts = 3\n"), "  webhook: crm\n").await;
    let _worker = setup.worker("").await;
    setup.send(&[document("gone", 80, "first")]).await;
    setup.settled("refused", 1).await;
    assert_eq!(receiver.calls().len(), 1, "410 ends a delivery at once");

    setup.send(&[document("lost", 80, "second")]).await;
    setup.settled("given_up", 1).await;
    let (_, lead) = setup.get("/v1/leads/lost").await;
    let delivery = &lead["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["attempts"], &delivery["status"]), (&json!("given_up"), &json!(3), &json!(503)));
    assert!(delivery["reason"].as_str().unwrap().contains("503"), "{delivery}");
    let metrics = setup.get("/metrics").await.1;
    assert!(
        metrics.as_str().unwrap().contains("tidemill_webhook_deliveries_total{outcome=\"given_up\",webhook=\"crm\"} 1"),
        "{metrics}"
    );

    let listed = setup.stream.answer(&["leads", "deliveries", "--state", "given_up"]);
    let id = listed["deliveries"][0]["id"].as_str().unwrap().to_owned();
    receiver.then(Answer::Status(204));
    assert_eq!(setup.stream.answer(&["leads", "deliveries", "--resend", &id])["resent"], id.as_str());
    setup.settled("delivered", 1).await;
    assert_eq!(receiver.calls().last().unwrap().id, id, "under the id that it had");
    let (again, said) = setup.stream.tidemill(&["leads", "deliveries", "--resend", &id]).await;
    assert!(!again && said.contains("there is no refused or given up delivery"), "{said}");
}

async fn an_account_follows_its_documents_and_goes_with_the_last() {
    let setup = LeadSetup::new("", "  accounts: { topic: ACCOUNTS, newest: 2, characters: 5 }\n").await.with_accounts();
    setup.stream.amend("pipelines/echo.yaml", |text| text.replace("ACCOUNTS", &setup.accounts));
    let _worker = setup.worker("").await;
    let summary =
        async |key: &str| setup.get(&format!("/v1/accounts/{key}?pipeline=echo")).await.1["summaries"][0]["text"].clone();
    let says = async |key: &str, text: &str| {
        eventually(&format!("the text of {key} is {text}"), LIMIT, || async { summary(key).await == text }).await;
    };
    setup.send(&[of("a1", "Acme Inc.", "first letter"), of("h1", "㈜한빛식품", "견적을 부탁드립니다")]).await;
    says("acme", "Acme Inc.: first;").await;
    says("한빛식품", "㈜한빛식품: 견적을 부;").await;
    // Another spelling of the name is the same company. Of three documents its text has the two newest.
    setup.send(&[of("a2", "ACME,  inc", "second")]).await;
    says("acme", "ACME, inc: secon;first;").await;
    setup.send(&[of("a3", "acme", "third")]).await;
    says("acme", "acme: third;secon;").await;
    let (_, account) = setup.get("/v1/accounts/Acme%20GmbH?pipeline=echo").await;
    assert_eq!((&account["key"], &account["documents"]), (&json!("acme"), &json!(3)), "asked for by any of its names: {account}");
    assert_eq!(account["leads"].as_array().map(Vec::len), Some(3));

    let version = "SELECT version FROM accounts WHERE key = 'acme'";
    let before = setup.count(version).await;
    setup.delete("a3").await;
    says("acme", "ACME, inc: secon;first;").await;
    assert_eq!(setup.count(version).await, before + 1, "one change, one version");
    // A document whose company changes leaves the first company and joins the second.
    setup.send(&[of("a2", "한빛식품 주식회사", "moved")]).await;
    says("acme", "Acme Inc.: first;").await;
    says("한빛식품", "한빛식품 주식회사: moved;견적을 부;").await;
    setup.delete("a1").await;
    eventually("a company without documents is deleted", LIMIT, || async {
        setup.get("/v1/accounts/acme?pipeline=echo").await.0 == StatusCode::NOT_FOUND
    })
    .await;
    let deleted = "SELECT count(*) FROM documents WHERE pipeline = 'accounts' AND id = 'acme' AND deleted";
    eventually("its summary is gone, too", LIMIT, || async { setup.count(deleted).await == 1 }).await;
    assert_eq!(setup.count("SELECT count(*) FROM results WHERE pipeline = 'accounts' AND document_id = 'acme'").await, 0);
    // The company comes back with a version that is greater than all before.
    setup.send(&[of("a4", "Acme", "back")]).await;
    says("acme", "Acme: back;").await;
    setup.stream.audit("after documents moved").await;
}

async fn lists_are_sorted_filtered_paged_and_exported() {
    let setup = LeadSetup::new("", "").await;
    let _worker = setup.worker("").await;
    let people = ["Ada", "=HYPERLINK(\"http://x\")", "한지우", "Lee, \"Jo\"", "Max"];
    let lead = |(n, person): (usize, &&str)| {
        let stage = if n.is_multiple_of(2) { "new" } else { "deciding" };
        json!({ "id": format!("d{n}"), "base": 10 * n, "text": "now", "company": format!("Firm {} Ltd", n / 2), "person": person, "stage": stage })
    };
    setup.send(&people.iter().enumerate().map(lead).collect::<Vec<_>>()).await;
    setup.send(&[json!({ "id": "broken", "text": "no base", "company": "Firm 0" })]).await;
    setup.stream.drained(6, LIMIT).await;
    let ids = |page: &Value| -> Vec<String> {
        page["leads"].as_array().unwrap().iter().map(|lead| lead["document_id"].as_str().unwrap().to_owned()).collect()
    };
    let ask = async |query: &str| setup.get(&format!("/v1/leads?{query}")).await;

    let (status, page) = ask("").await;
    assert_eq!((status, ids(&page)), (StatusCode::OK, ["d4", "d3", "d2", "d1", "d0"].map(str::to_owned).to_vec()), "{page}");
    assert_eq!(page["leads"][0]["score"], 45.0);
    let parts: Vec<_> =
        page["leads"][0]["parts"].as_array().unwrap().iter().map(|part| (&part["name"], &part["value"])).collect();
    assert_eq!(parts, [(&json!("base"), &json!(40.0)), (&json!("urgent"), &json!(5.0))], "in the order of the file");
    assert_eq!(setup.count("SELECT count(*) FROM dead_letters WHERE task = 'score' AND class = 'missing_field'").await, 1);
    for (query, expected) in [
        ("sort=-score&min_score=25", vec!["d4", "d3", "d2"]),
        ("company=FIRM%201", vec!["d3", "d2"]),
        ("stage=deciding", vec!["d3", "d1"]),
        ("stage=nowhere", vec![]),
        ("sort=-updated&company=firm+0+gmbh", vec!["d1", "d0"]),
        ("sort=updated&company=firm+0", vec!["d0", "d1"]),
    ] {
        assert_eq!(ids(&ask(query).await.1), expected, "{query}");
    }
    for sort in ["score", "-updated", "updated"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        for _ in 0..4 {
            let (_, page) = ask(&format!("sort={sort}&limit=2&cursor={cursor}")).await;
            seen.extend(ids(&page));
            match page["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        let whole = ids(&ask(&format!("sort={sort}")).await.1);
        assert_eq!(seen, whole, "pages by {sort} together are the whole list");
    }
    for (query, says) in [
        ("sort=scor", "did you mean `score`?"),
        ("scor=1", "unknown parameter `scor`"),
        ("pipeline=ecko", "did you mean `echo`?"),
        ("cursor=abc", "not from this service"),
        ("limit=0", "give a number from 1 to 500"),
        ("min_score=NaN", "give a number"),
        ("stage=%00", "U+0000"),
        ("company=---", "no letter and no digit"),
    ] {
        let (status, refused) = ask(query).await;
        assert!(status == StatusCode::BAD_REQUEST && refused["detail"].as_str().unwrap().contains(says), "{query}: {refused}");
    }

    let (_, lead) = setup.get("/v1/leads/d2").await;
    assert_eq!(
        (&lead["person"], &lead["text"], &lead["drafts"][0]["text"]),
        (&json!("한지우"), &json!("now"), &json!("Dear 한지우"))
    );
    assert_eq!((&lead["about"]["key"], &lead["about"]["documents"]), (&json!("firm 1"), &json!(2)));
    assert_eq!(lead, setup.stream.answer(&["leads", "show", "d2"]), "HTTP and the command line say the same");
    for path in ["/v1/leads/none", "/v1/leads/broken", "/v1/accounts/nobody", "/v1/leads/%00"] {
        assert_eq!(setup.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }

    let export = setup.client.get(format!("http://{}/v1/leads/export?sort=updated", setup.address)).send().await.unwrap();
    assert_eq!(export.headers()["content-type"], "text/csv; charset=utf-8");
    // Read as bytes, because the client's text decoder removes the byte order mark.
    let text = String::from_utf8(export.bytes().await.unwrap().to_vec()).unwrap();
    assert!(text.starts_with('\u{feff}'), "a spreadsheet would take this for another encoding");
    let (found, said) = setup.stream.tidemill(&["leads", "export", "--sort", "updated", "--output", "leads.csv"]).await;
    assert!(found, "{said}");
    assert_eq!(std::fs::read_to_string(setup.stream.path("leads.csv")).unwrap(), text, "both doors write the same");
    let rows = receiver::python(
        "import csv, io, json, sys\nprint(json.dumps(list(csv.DictReader(io.StringIO(sys.stdin.read(), newline='')))))",
        &text,
    );
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    let of: Vec<&Value> = rows.iter().map(|row| &row["person"]).collect();
    assert_eq!(of, ["Ada", "'=HYPERLINK(\"http://x\")", "한지우", "Lee, \"Jo\"", "Max"], "no formula, and every letter");
    assert_eq!((&rows[4]["part:base"], &rows[4]["part:urgent"], &rows[4]["score"]), (&json!("40"), &json!("5"), &json!("45")));
    assert_eq!(setup.get("/v1/leads/export?limit=3").await.0, StatusCode::BAD_REQUEST);

    let table = setup.stream.command(&["leads", "list", "--min-score", "40"]);
    assert!(table.contains("Max") && table.contains("base 40, urgent 5") && !table.contains("Ada"), "{table}");
    setup.delete("d4").await;
    setup.stream.drained(7, LIMIT).await;
    assert_eq!(setup.get("/v1/leads/d4").await.0, StatusCode::NOT_FOUND, "a deleted document is no lead");
}
