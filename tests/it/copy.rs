//! Copy, from Kafka record to approved page: reasons, decisions, versions, exports, and what tenants see.

mod shop;
mod tenants;

use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::shop::{Product, Shop};
use crate::harness::eventually;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let patient = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(patient, it_waits_with_its_reasons_until_people_decide),
        trial!(patient, what_a_person_wrote_outlives_what_is_generated_again),
        trial!(patient, of_one_title_committed_by_two_workers_at_once_exactly_one_is_published),
        trial!(Needs::KAFKA, more_pages_than_a_sitemap_holds_are_several_with_an_index),
        trial!(Needs::NOTHING, tenants::a_tenant_neither_sees_nor_touches_anothers),
    ]
}

async fn it_waits_with_its_reasons_until_people_decide() {
    let shop = Shop::open("review", 1).await;
    let (_worker, address) = shop.serve().await;
    shop.send(&[
        Product::new("d1", "Oak board", "An oak board, 40 cm long."),
        Product::new("d2", "Pine board", "The best board there is."),
        Product::new("d3", "Elm board", "A board of SOME kg."),
        Product::new("d4", "OAK  board", "Another one."),
        Product::new("d5", "=SUM(A1) board", "Made for </script> & all."),
        Product::new("d6", "A title that is far longer than any page of this shop may have", "A board."),
    ])
    .await;
    shop.committed(6).await;

    let (status, queue) = shop.get(&address, "/v1/copy").await;
    assert_eq!(
        (status, &queue["in_review"], queue["copies"].as_array().map(Vec::len)),
        (StatusCode::OK, &json!(6), Some(6)),
        "{queue}"
    );
    let checks = |version: &Value| -> Vec<String> {
        let reasons = version["reasons"].as_array().unwrap().iter();
        reasons.map(|reason| format!("{} {} {}", reason["check"], reason["path"], reason["says"]).replace('"', "")).collect()
    };
    let said: Vec<Vec<String>> = queue["copies"].as_array().unwrap().iter().map(checks).collect();
    let expected: [&[&str]; 6] = [
        &[],
        &["banned /body best"],
        &["grounded /body 9 kg"],
        &["unique /title OAK  board"],
        &[],
        &["schema /title /properties/title/maxLength"],
    ];
    assert_eq!(said, expected.map(|reasons| reasons.iter().map(|reason| (*reason).to_owned()).collect::<Vec<_>>()));
    assert!(queue["copies"][3]["reasons"][0]["message"].as_str().unwrap().contains("`d1`"), "{queue}");

    // The pages of the list together are the same list.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, page) = shop.get(&address, &format!("/v1/copy?limit=4{cursor}")).await;
        paged.extend(page["copies"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(paged), queue["copies"]);

    let (_, shown) = shop.get(&address, "/v1/copy/d1?pipeline=echo").await;
    let trace = &shown["current"]["traces"][0];
    let (start, end) = (trace["start"].as_u64().unwrap() as usize, trace["end"].as_u64().unwrap() as usize);
    assert_eq!(&shown["source"]["text"].as_str().unwrap()[start..end], "An oak board, 40 cm long.", "{trace}");
    assert_eq!(shown["published"], Value::Null);
    assert_eq!(shop.urls(&address).await, [""; 0], "nothing is published before anybody has said so");

    let approve = async |id: &str, body: Value| shop.post(&address, &format!("/v1/copy/{id}/approve"), body).await;
    let (status, approved) = approve("d1", json!({"version": 1})).await;
    assert_eq!(
        (status, &approved["state"], &approved["decided_by"]),
        (StatusCode::OK, &json!("approved"), &json!("anybody")),
        "{approved}"
    );
    assert_eq!(shop.urls(&address).await, ["https://shop.example/p/d1"]);
    for (id, body, says) in [
        ("d1", json!({"version": 1}), "it is approved"),
        ("d2", json!({"version": 1}), "name `banned` in `despite`"),
        ("d2", json!({"version": 1, "despite": ["grounded"]}), "name `banned` in `despite`"),
        ("d4", json!({"version": 1}), "the page of document `d1` has the same `title`"),
        ("d4", json!({"version": 1, "despite": ["unique"]}), "the page of document `d1` has the same `title`"),
        ("d6", json!({"version": 1, "despite": ["schema"]}), "this version cannot be published"),
    ] {
        let (status, refused) = approve(id, body.clone()).await;
        assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{id} {body}: {refused}");
        assert!(refused["detail"].as_str().unwrap().contains(says), "expected `{says}` in {refused}");
    }
    for (path, body) in
        [("none/approve", json!({"version": 1})), ("d1/approve", json!({"version": 7})), ("d1/reject", json!({"version": 7}))]
    {
        let (status, refused) = shop.post(&address, &format!("/v1/copy/{path}"), body).await;
        assert_eq!((status, &refused["code"]), (StatusCode::NOT_FOUND, &json!("unknown_document")), "{path}: {refused}");
    }
    for body in
        [json!({}), json!({"version": "1"}), json!({"version": 1, "despit": []}), json!({"version": 1, "despite": ["luck"]})]
    {
        assert_eq!(approve("d2", body.clone()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    let (_, overruled) = approve("d2", json!({"version": 1, "despite": ["banned"], "note": "It is the name."})).await;
    assert_eq!((&overruled["state"], &overruled["note"]), (&json!("approved"), &json!("It is the name.")));
    assert_eq!(checks(&overruled), ["banned /body best"], "what was overruled stays on record");

    // Of two editors of one version, one comes second and is refused.
    let reject = json!({"version": 1, "note": "no"});
    let (one, other) = tokio::join!(
        approve("d5", json!({"version": 1})),
        shop.post(
            &address,
            "/v1/copy/d5/edit",
            json!({
                "version": 1, "content": {"title": "=SUM(A1) board", "body": "A board.", "slug": "d5"}
            })
        )
    );
    let statuses = [one.0, other.0];
    assert!(statuses.contains(&StatusCode::OK), "{one:?} {other:?}");
    assert_eq!(shop.post(&address, "/v1/copy/d3/reject", reject.clone()).await.1["state"], "rejected");
    assert_eq!(shop.post(&address, "/v1/copy/d3/reject", reject).await.0, StatusCode::CONFLICT);
    assert_eq!(approve("d3", json!({"version": 1, "despite": ["grounded"]})).await.0, StatusCode::CONFLICT);
    // Either the edit was refused, or it came after the approval and waits. What was edited or approved is approved now.
    let (_, five) = shop.get(&address, "/v1/copy/d5").await;
    if five["current"]["state"] == "review" {
        let version = five["current"]["version"].clone();
        assert_eq!(approve("d5", json!({"version": version})).await.0, StatusCode::OK);
    }

    // An edit must follow the schema, is checked like generated copy, and replaces the version that waited.
    let edit = async |body: Value| shop.post(&address, "/v1/copy/d4/edit", body).await;
    let content = |title: &str| json!({"title": title, "body": "Another one.", "slug": "d4"});
    let (status, refused) = edit(json!({"version": 1, "content": {"title": "x"}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("violates the schema"), "{refused}");
    assert_eq!(
        edit(json!({"version": 1, "content": content("OAK  board")})).await.0,
        StatusCode::BAD_REQUEST,
        "nothing was changed"
    );
    let (_, edited) = edit(json!({"version": 1, "content": content("The best oak board")})).await;
    assert_eq!(
        (&edited["version"], &edited["origin"], &edited["state"]),
        (&json!(2), &json!("edited"), &json!("review")),
        "{edited}"
    );
    assert_eq!(checks(&edited), ["banned /title best"]);
    let (status, late) = edit(json!({"version": 1, "content": content("Mine")})).await;
    assert_eq!(status, StatusCode::CONFLICT, "the second editor is refused: {late}");
    assert_eq!(approve("d4", json!({"version": 1})).await.0, StatusCode::CONFLICT);
    let (_, edited) = edit(json!({"version": 2, "content": content("Second oak board")})).await;
    assert_eq!((checks(&edited), approve("d4", json!({"version": 3})).await.0), (Vec::new(), StatusCode::OK));

    let urls = ["d1", "d2", "d4", "d5"].map(|id| format!("https://shop.example/p/{id}"));
    assert_eq!(shop.urls(&address).await, urls);
    shop.exports_hold(&address, &["d1", "d2", "d4", "d5"]).await;
    let (_, published) = shop.get(&address, "/v1/copy?state=approved").await;
    assert_eq!(published["copies"].as_array().map(Vec::len), Some(4), "{published}");
    for (path, says) in [
        ("/v1/copy?state=reviw", "did you mean `review`?"),
        ("/v1/copy?cursor=zz", "not from this service"),
        ("/v1/copy?limit=0", "1 to 500"),
        ("/v1/copy?pipeline=ecko", "did you mean `echo`?"),
        ("/v1/exports/copy?format=xls", "is not an export format"),
        ("/v1/sitemap.xml?file=2", "there is no sitemap 2"),
    ] {
        let (status, refused) = shop.get(&address, path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {refused}");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(says)), "expected `{says}` in {refused}");
    }
    // A page that is withdrawn disappears from every export.
    assert_eq!(shop.post(&address, "/v1/copy/d2/reject", json!({"version": 1})).await.0, StatusCode::OK);
    assert_eq!(shop.urls(&address).await, [urls[0].as_str(), &urls[2], &urls[3]]);
    shop.stream.audit("at the end").await;
}

async fn what_a_person_wrote_outlives_what_is_generated_again() {
    let shop = Shop::open("review", 1).await;
    let (_worker, address) = shop.serve().await;
    let send = async |body: &str| shop.send(&[Product::new("d1", "Oak board", body)]).await;
    let versions = async || -> Vec<String> {
        let (_, shown) = shop.get(&address, "/v1/copy/d1").await;
        let versions = shown["versions"].as_array().unwrap().iter();
        versions.map(|v| format!("{} {} {}", v["version"], v["origin"], v["state"]).replace('"', "")).collect()
    };
    send("A board.").await;
    shop.committed(1).await;
    send("A board.").await;
    shop.committed(2).await;
    assert_eq!(versions().await, ["1 generated review"], "the same again is no version");
    send("Another board.").await;
    shop.committed(3).await;
    assert_eq!(versions().await, ["2 generated review", "1 generated superseded"]);

    let content = json!({"title": "Oak board by hand", "body": "An oak board.", "slug": "oak"});
    let edit = ["copy", "edit", "d1", "--version", "2", "--content", "edit.json", "--note", "warmer"];
    std::fs::write(shop.stream.path("edit.json"), content.to_string()).unwrap();
    let edited = shop.stream.answer(&edit);
    assert_eq!((&edited["version"], &edited["origin"], &edited["note"]), (&json!(3), &json!("edited"), &json!("warmer")));
    assert!(edited["created_by"].as_str().unwrap().contains('@'), "{edited}");
    assert_eq!(shop.stream.answer(&["copy", "list"])["copies"][0]["version"], 3);
    assert_eq!(shop.stream.answer(&["copy", "approve", "d1", "--version", "3"])["state"], "approved");
    assert_eq!(shop.urls(&address).await, ["https://shop.example/p/oak"]);

    send("A third board, 7 kg.").await;
    shop.committed(4).await;
    assert_eq!(versions().await, ["4 generated review", "3 edited approved", "2 generated superseded", "1 generated superseded"]);
    let (_, shown) = shop.get(&address, "/v1/copy/d1").await;
    assert_eq!((&shown["published"]["content"], &shown["current"]["version"]), (&content, &json!(4)), "{shown}");
    assert_eq!(shop.urls(&address).await, ["https://shop.example/p/oak"], "the page is as it was");
    let table = shop.stream.command(&["copy", "show", "d1"]);
    assert!(table.contains("Oak board by hand") && table.contains("superseded"), "{table}");

    // Copy that was refused does not come back when the same is generated again; other copy does.
    let (_, refused) = shop.post(&address, "/v1/copy/d1/reject", json!({"version": 4})).await;
    assert_eq!(refused["state"], "rejected");
    send("A third board, 7 kg.").await;
    shop.committed(5).await;
    assert_eq!(versions().await.len(), 4);
    send("A fourth board.").await;
    shop.committed(6).await;
    assert_eq!(versions().await[0], "5 generated review");

    // A deleted document disappears from every export, and starts from the beginning when it comes back.
    shop.delete("d1").await;
    shop.committed(7).await;
    let states: Vec<String> = versions().await.into_iter().filter(|version| version.ends_with("withdrawn")).collect();
    assert_eq!(states, ["5 generated withdrawn", "3 edited withdrawn"]);
    assert_eq!(shop.urls(&address).await, [""; 0]);
    shop.exports_hold(&address, &[]).await;
    let (status, refused) = shop.post(&address, "/v1/copy/d1/approve", json!({"version": 5})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    send("A fourth board.").await;
    shop.committed(8).await;
    assert_eq!(versions().await[0], "6 generated review", "the same words, of a document that is there again");
    shop.stream.audit("at the end").await;
}

async fn of_one_title_committed_by_two_workers_at_once_exactly_one_is_published() {
    const PAIRS: usize = 25;
    let shop = Shop::open("automatic", 2).await;
    let (_one, address) = shop.serve().await;
    let (_other, _) = shop.serve().await;
    eventually("each worker has a partition", Duration::from_secs(60), || async { shop.owners().await == 2 }).await;
    let pair = |n: usize| ["a", "b"].map(|side| Product::new(&format!("{side}{n}"), &format!("Board {n}"), "A board."));
    let products: Vec<Product> = (0..PAIRS).flat_map(pair).collect();
    shop.send_by_side(&products).await;
    shop.committed(2 * PAIRS as i64).await;

    let (_, published) = shop.get(&address, "/v1/copy?state=approved&limit=500").await;
    let mut titles: Vec<&str> =
        published["copies"].as_array().unwrap().iter().map(|copy| copy["content"]["title"].as_str().unwrap()).collect();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(
        (titles.len(), published["copies"].as_array().unwrap().len()),
        (PAIRS, PAIRS),
        "of each title exactly one: {published}"
    );
    let (_, queue) = shop.get(&address, "/v1/copy?limit=500").await;
    let waiting = queue["copies"].as_array().unwrap();
    assert_eq!(waiting.len(), PAIRS);
    for copy in waiting {
        assert_eq!(
            (&copy["reasons"][0]["check"], copy["reasons"].as_array().map(Vec::len)),
            (&json!("unique"), Some(1)),
            "{copy}"
        );
    }

    // When a title becomes free, the version that waits for it is published.
    let loser = waiting[0]["document_id"].as_str().unwrap().to_owned();
    let winner = format!("{}{}", if loser.starts_with('a') { "b" } else { "a" }, &loser[1..]);
    shop.delete(&winner).await;
    shop.committed(2 * PAIRS as i64 + 1).await;
    let (_, shown) = shop.get(&address, &format!("/v1/copy/{loser}")).await;
    assert_eq!((&shown["current"]["reasons"], &shown["current"]["state"]), (&json!([]), &json!("review")), "{shown}");
    shop.send(&[Product::new(&loser, &format!("Board {}", &loser[1..]), "A board.")]).await;
    shop.committed(2 * PAIRS as i64 + 2).await;
    let (_, shown) = shop.get(&address, &format!("/v1/copy/{loser}")).await;
    assert_eq!((&shown["published"]["version"], &shown["published"]["decided_by"]), (&json!(1), &Value::Null), "{shown}");

    // Copy that fails a check waits although the pipeline publishes by itself; so does every version after a person's decision.
    shop.send(&[Product::new("bad", "The best", "A board.")]).await;
    shop.committed(2 * PAIRS as i64 + 3).await;
    let (_, shown) = shop.get(&address, "/v1/copy/bad").await;
    assert_eq!((&shown["current"]["state"], &shown["published"]), (&json!("review"), &Value::Null), "{shown}");
    assert_eq!(shop.post(&address, "/v1/copy/bad/reject", json!({"version": 1})).await.0, StatusCode::OK);
    shop.send(&[Product::new("bad", "Good", "A board.")]).await;
    shop.committed(2 * PAIRS as i64 + 4).await;
    let (_, shown) = shop.get(&address, "/v1/copy/bad").await;
    assert_eq!((&shown["current"]["state"], &shown["current"]["version"]), (&json!("review"), &json!(2)), "{shown}");
    shop.stream.audit("at the end").await;
}

async fn more_pages_than_a_sitemap_holds_are_several_with_an_index() {
    let shop = Shop::open("review", 1).await;
    shop.publish_many(20_001).await;
    let files = shop.stream.answer(&["copy", "sitemap", "--output", "map"]);
    let names: Vec<&str> =
        files["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["sitemap-1.xml", "sitemap-2.xml", "sitemap.xml"]);
    let read = |name: &str| std::fs::read_to_string(shop.stream.path("map").join(name)).unwrap();
    assert_eq!([read("sitemap-1.xml").matches("<loc>").count(), read("sitemap-2.xml").matches("<loc>").count()], [20_000, 1]);
    let index = read("sitemap.xml");
    assert!(index.contains("<sitemapindex") && index.contains("<loc>https://shop.example/map-2.xml</loc>"), "{index}");
    let exported = shop.stream.answer(&["copy", "export", "--format", "parquet", "--output", "copy.parquet"]);
    assert!(exported["bytes"].as_u64().unwrap() > 0, "{exported}");
    assert_eq!(shop::parquet_ids(&std::fs::read(shop.stream.path("copy.parquet")).unwrap()).len(), 20_001);
}
