//! The description of the API and the router have the same operations.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::{Value, json};

use super::super::auth::RequiredAccess;
use super::super::error::ProblemCode;
use super::super::{Authenticator, description, routes};
use super::{loopback, running};

fn described() -> Value {
    serde_json::from_str(description()).expect("the description is JSON")
}

/// Every operation of the description, by method and path.
fn operations(description: &Value) -> BTreeMap<(String, String), Value> {
    let paths = description["paths"].as_object().expect("there are paths");
    let methods = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("a path has methods");
        methods.iter().map(move |(method, operation)| ((method.to_uppercase(), path.clone()), operation.clone()))
    });
    methods.collect()
}

#[test]
fn what_is_served_is_described_with_its_scope_and_the_other_way_round() {
    let description = described();
    assert_eq!(description["openapi"], "3.1.0");
    let routes = routes(&Authenticator::new(&loopback(), None));
    let served: BTreeMap<(String, String), Value> = routes
        .routes()
        .iter()
        .map(|(method, path, need)| {
            let security = match need {
                RequiredAccess::Probe | RequiredAccess::Public => Value::Null,
                RequiredAccess::Scope(scope) => json!([{ "token": [scope.as_str()] }]),
                RequiredAccess::Metrics => json!([{ "token": ["read"] }]),
            };
            ((method.to_string(), (*path).to_owned()), security)
        })
        .collect();
    let operations = operations(&description);
    let described = operations.iter().map(|(key, operation)| (key.clone(), operation["security"].clone())).collect();
    assert_eq!(served, described, "left: the router, right: the description");
    assert!(routes.routes().iter().any(|(method, _, _)| method == Method::POST));
    let names: BTreeSet<&str> = operations.values().filter_map(|operation| operation["operationId"].as_str()).collect();
    assert_eq!(names.len(), operations.len(), "generated clients call an operation by its name: {names:?}");
    for (key, operation) in &operations {
        let problem = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{key:?} has no error response");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{key:?} has no summary");
    }
}

#[test]
fn every_code_is_described() {
    let description = described();
    let words: BTreeSet<&str> = ProblemCode::ALL.into_iter().map(|code| code.meaning().0).collect();
    assert_eq!(words.len(), ProblemCode::ALL.len(), "a code is listed twice");
    let written: BTreeSet<&str> =
        description["components"]["schemas"]["Code"]["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(words, written);
    let table = description["info"]["description"].as_str().unwrap();
    for code in ProblemCode::ALL {
        let (word, status, _) = code.meaning();
        assert!(table.contains(&format!("| `{word}` | {} |", status.as_u16())), "{word} is not in the table of {table}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_headers_for_browsers() {
    let server = running(Some("s3cret")).await;
    for path in ["/healthz", "/openapi.json", "/nothing", "/v1/jobs"] {
        let response = server.get(path).await;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(header("content-security-policy").starts_with("default-src 'self'"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(!header("content-security-policy").contains("unsafe-inline"), "{path}");
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"), "{path}");
        let expected = if response.status().is_success() { "application/json" } else { "application/problem+json" };
        assert_eq!(header("content-type"), expected, "{path}");
    }
}
