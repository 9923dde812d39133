//! Jobs that are read, and what is refused.

use super::*;

fn error(text: &str) -> String {
    JobSpec::parse(text.as_bytes(), None).unwrap_err().0
}

#[test]
fn a_job_is_read_and_written_alike() {
    for text in [
        r#"{"version":1,"id":"a","kind":"backfill","pipeline":"news","dataset":"archive","prefix":"2025/","since":"2025-03-01T00:00:00Z","until":"2025-04-01T00:00:00Z","sample":10,"seed":7,"priority":3,"deadline":"2026-01-01T06:00:00Z","budget":{"device_seconds":600.0}}"#,
        r#"{"version":1,"id":"b","kind":"rerun","pipeline":"news","tasks":["topic"]}"#,
        r#"{"version":1,"id":"c","kind":"reembed","pipeline":"news"}"#,
        r#"{"version":1,"id":"d","kind":"evaluate","pipeline":"news","dataset":"archive","task":"topic","expected":"label","budget":{"cost":2.5}}"#,
        r#"{"version":1,"id":"e","kind":"delete","pipeline":"news","documents":["x","y"]}"#,
    ] {
        let spec = JobSpec::parse(text.as_bytes(), None).unwrap();
        assert_eq!(spec.to_json(), serde_json::from_str::<Value>(text).unwrap());
    }
}

#[test]
fn what_is_no_job_is_refused_with_the_key_and_the_mend() {
    let cases = [
        ("[]", "a job is a JSON object"),
        (r#"{"version":1,"id":"a","kind":"backfil","pipeline":"p"}"#, "did you mean `backfill`"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","datset":"d"}"#, "did you mean `dataset`"),
        (r#"{"version":1,"id":"a","kind":"delete","pipeline":"p","prefix":"x"}"#, "unknown key `prefix` of a job of kind delete"),
        (r#"{"version":2,"id":"a","kind":"reembed","pipeline":"p"}"#, "`version` is 2"),
        (r#"{"version":1,"kind":"reembed","pipeline":"p"}"#, "`id` is missing"),
        (r#"{"version":1,"id":"a b","kind":"reembed","pipeline":"p"}"#, "`id` is \"a b\""),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p"}"#, "`dataset` is missing"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","prefix":"../x"}"#, "holds `.` or `..`"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","prefix":"/etc"}"#, "absolute"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","prefix":"s3://b"}"#, "absolute"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","sample":0}"#, "`sample` is 0"),
        (r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","since":"soon"}"#, "`since` is \"soon\""),
        (r#"{"version":1,"id":"a","kind":"rerun","pipeline":"p","deadline":"-009998-01-01"}"#, "which is before 1970"),
        (
            r#"{"version":1,"id":"a","kind":"backfill","pipeline":"p","dataset":"d","since":"2025-02-01","until":"2025-01-01"}"#,
            "not before",
        ),
        (r#"{"version":1,"id":"a","kind":"delete","pipeline":"p","documents":[]}"#, "`documents` holds 0 ids"),
        (r#"{"version":1,"id":"a","kind":"reembed","pipeline":"p","budget":{"device_seconds":-1}}"#, "`budget` is -1"),
        (r#"{"version":1,"id":"a","kind":"reembed","pipeline":"p","budget":{"euros":1}}"#, "the job is wrong"),
    ];
    for (text, expected) in cases {
        assert!(error(text).contains(expected), "{text}: {}", error(text));
    }
}

#[test]
fn no_string_of_a_job_holds_a_control_character() {
    for (kind, key, value) in [
        ("rerun", "tasks", r#"["topic", "\u0000"]"#),
        ("evaluate", "task", r#""\u0000""#),
        ("evaluate", "expected", r#""a\u001bb""#),
        ("evaluate", "dataset", r#""d\u0000""#),
        ("backfill", "prefix", r#""a\nb""#),
        ("reembed", "pipeline", r#""p\u0000""#),
        ("delete", "documents", r#"["a\u0000"]"#),
    ] {
        let text = format!(r#"{{"version":1,"id":"a","kind":"{kind}","{key}":{value}}}"#);
        assert!(
            error(&text).starts_with(&format!("`{key}` is ")) && error(&text).contains("which contains U+00"),
            "{text}: {}",
            error(&text)
        );
    }
    let escaped = r#"{"version":1,"id":"a","kind":"delete","pipeline":"p","documents":["x\u001b]0;y"]}"#;
    assert!(JobSpec::parse(escaped.as_bytes(), None).is_ok(), "a document with such an id can be deleted");
}

#[test]
fn ids_of_schedules_are_refused_from_callers_and_read_from_the_ledger() {
    let text = r#"{"version":1,"id":"news.nightly@20261121T030000Z","kind":"reembed","pipeline":"news"}"#;
    assert!(JobSpec::parse_request(text.as_bytes(), None).unwrap_err().0.contains("reserved for schedules"));
    let nameless = r#"{"version":1,"kind":"reembed","pipeline":"news"}"#;
    assert!(
        JobSpec::parse_request(nameless.as_bytes(), Some("news.nightly@20261121T030000Z")).is_err(),
        "a header gives the id, too"
    );
    assert!(JobSpec::parse(text.as_bytes(), None).is_ok());
}

#[test]
fn money_becomes_device_time_at_the_configured_price() {
    let text = r#"{"version":1,"id":"a","kind":"reembed","pipeline":"p","budget":{"cost":2}}"#;
    let spec = JobSpec::parse(text.as_bytes(), None).unwrap();
    assert_eq!(spec.budget_micros(Some(4.0)), Ok(Some(1_800_000_000)));
    assert!(spec.budget_micros(None).unwrap_err().0.contains("price_per_device_hour"));
}

#[test]
fn a_budget_keeps_each_microsecond() {
    for micros in [1, 249, 7_982, 600_000_000] {
        let seconds = micros as f64 / 1e6;
        let text = format!(r#"{{"version":1,"id":"a","kind":"reembed","pipeline":"p","budget":{{"device_seconds":{seconds}}}}}"#);
        let spec = JobSpec::parse(text.as_bytes(), None).unwrap();
        assert_eq!(spec.budget_micros(None), Ok(Some(micros)), "{text}");
    }
}

#[test]
fn each_tenant_has_ids_of_its_own() {
    let text = r#"{"version":1,"id":"nightly","kind":"reembed","pipeline":"p"}"#;
    let spec = JobSpec::parse(text.as_bytes(), None).unwrap();
    let [acme, globex, default] = ["acme", "globex", "default"].map(|tenant| spec.to_new(tenant, None, None).unwrap());
    assert_eq!((acme.id.as_str(), globex.id.as_str(), default.id.as_str()), ("acme:nightly", "globex:nightly", "nightly"));
    assert_eq!(acme.spec, globex.spec, "the words stay those of the caller");
    let forged = text.replace("nightly", "globex:nightly");
    assert!(JobSpec::parse(forged.as_bytes(), None).is_err(), "no caller writes another tenant's id");
}
