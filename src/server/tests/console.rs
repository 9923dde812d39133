//! The console's files need no token; the API that it uses does.

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use serde_json::Value;

use super::running;

#[tokio::test]
async fn the_console_is_there_without_a_token_and_is_fetched_again_only_where_it_has_changed() {
    let server = running(Some("s3cret")).await;
    let page = server.get("/").await;
    assert_eq!(page.status(), StatusCode::OK);
    let header = |name| page.headers()[&name].to_str().unwrap().to_owned();
    assert_eq!((header(CONTENT_TYPE), header(CACHE_CONTROL)), ("text/html; charset=utf-8".into(), "no-cache".into()));
    assert!(header(CONTENT_SECURITY_POLICY).contains("default-src 'self'"));
    let tag = header(ETAG);
    let text = page.text().await.unwrap();
    for path in text.split('"').filter(|path| path.starts_with("/console/")) {
        assert_eq!(server.get(path).await.status(), StatusCode::OK, "the first page loads {path}");
    }
    let again = server.client.get(format!("{}/console/app.js", server.url)).header(IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let missing = server.get("/console/../mod.rs").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.get("/v1/pipelines").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn letters_are_asked_for_in_words_that_there_are() {
    let server = running(None).await;
    for (query, says) in [
        ("clas=template", "unknown parameter `clas`; did you mean `class`?"),
        ("class=malformed-json", "did you mean `malformed_json`?"),
        ("limit=0", "give a number from 1 to 1000"),
        ("pipeline=%00", "U+0000"),
    ] {
        let refused = server.get(&format!("/v1/dead-letters?{query}")).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem: Value = refused.json().await.unwrap();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "expected `{says}` in {problem}");
    }
    for (body, says) in [("{}", "which dead letters"), (r#"{"id": [1]}"#, "unknown field `id`"), ("[1]", "which dead letters")] {
        let sent = server.client.post(format!("{}/v1/dead-letters/replay", server.url));
        let sent = sent.header("content-type", "application/json").body(body);
        let problem: Value = sent.send().await.unwrap().json().await.unwrap();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "expected `{says}` in {problem}");
    }
}
