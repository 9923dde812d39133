//! The `copy` section, and the copy that it makes.

use serde_json::{Map, Value, json};

use super::*;
use crate::document::Document;
use crate::outcome::{Check, ComposedObject};
use crate::pipeline::copy::PublishMode;

const TASKS: &str = "version: 1\nname: shop\nsource: { topic: docs }\ntasks:\n  page:\n    compose:\n      \
     schema: { type: object, properties: { title: { type: string }, slug: { type: string } } }\n      \
     object: '{\"title\": {{ document.text | tojson }}}'\n  line: { render: { template: x } }\n";

fn with(copy: &str) -> Result<Definition, String> {
    Definition::parse(Path::new("p.yaml"), &format!("{TASKS}copy: {copy}\n")).map_err(|error| error.to_string())
}

fn section(copy: &str) -> CopySettings {
    with(copy).unwrap().copy.unwrap()
}

fn document(fields: Value) -> Document {
    let fields = fields.as_object().unwrap().clone();
    Document { id: "d1".into(), version: 3, text: Arc::from("text"), metadata: Map::new(), fields }
}

fn composed(fields: Value) -> ComposedObject {
    let fields = fields.as_object().unwrap().clone();
    ComposedObject { text: json!(fields).to_string(), fields, reasons: Vec::new(), traces: Vec::new() }
}

#[test]
fn a_wrong_section_is_refused_with_its_place() {
    for (section, says) in [
        ("{ task: pge, url: 'https://a/' }", "`copy.task` is `pge`, which is not a task; did you mean `page`?"),
        ("{ task: line, url: 'https://a/' }", "which is a `render` task: name a `compose` task"),
        (
            "{ task: page, url: 'https://a/{{ copy.slag }}' }",
            "`copy.url` reads `copy.slag`, a field that task `page` does not have; did you mean `slug`?",
        ),
        ("{ task: page, url: 'https://a/{{ page.slug }}' }", "`copy.url` reads `page.slug`, which does not exist here"),
        ("{ task: page, url: 'https://a/{{ document.titel }}' }", "`copy.url` reads `document.titel`, which no document has"),
        ("{ task: page, url: 'https://a/{{ ' }", "`copy.url` is not a template"),
        (
            "{ task: page, url: 'https://a/', unique: [titel] }",
            "`copy.unique` has `titel`, which is not a field of task `page`; did you mean `title`?",
        ),
        (
            "{ task: page, url: 'https://a/', sitemap: '{{ copy.slug }}' }",
            "`copy.sitemap` reads `copy.slug`, which does not exist here",
        ),
        ("{ task: page, url: 'https://a/', publish: always }", "unknown value `always`"),
        ("{ task: page, urll: 'https://a/' }", "unknown key `urll`; did you mean `url`?"),
    ] {
        let refused = with(section).unwrap_err();
        assert!(refused.contains(says), "expected `{says}` in:\n{refused}");
        assert!(refused.starts_with("p.yaml:10:"), "{refused}");
    }
}

#[test]
fn a_draft_has_an_address_in_ascii_and_keys_that_fold() {
    let settings = section("{ task: page, url: 'https://{{ document.fields.host }}/p/{{ copy.slug }}', unique: [title] }");
    assert_eq!(settings.publish, PublishMode::Review, "nothing is published unless somebody says so");
    let draft =
        settings.draft(&document(json!({"host": "a.example"})), &composed(json!({"title": "Oak  Board", "slug": "참나무 도마"})));
    assert_eq!(draft.url.as_deref(), Some("https://a.example/p/%EC%B0%B8%EB%82%98%EB%AC%B4%20%EB%8F%84%EB%A7%88"));
    assert_eq!(draft.reasons, []);
    let other =
        settings.draft(&document(json!({"host": "b.example"})), &composed(json!({"title": "ＯＡＫ board ", "slug": "x"})));
    assert_eq!((&draft.keys[0], draft.keys.len()), (&other.keys[0], 2), "the same title to a reader");
    assert_ne!(draft.keys[1], other.keys[1]);
    let untitled = settings.draft(&document(json!({"host": "b.example"})), &composed(json!({"title": " ", "slug": "x"})));
    assert_eq!(untitled.keys.len(), 1, "two pages without a title do not share one");
}

#[test]
fn what_is_no_address_is_a_reason_and_not_a_failure() {
    let settings = section("{ task: page, url: '{{ document.fields.url }}' }");
    let long = format!("https://a.example/{}", "x".repeat(2_048));
    for (fields, says) in [
        (json!({}), "absent"),
        (json!({"url": "javascript:alert(1)"}), "not an http or https address"),
        (json!({"url": "ftp://a.example/x"}), "not an http or https address"),
        (json!({"url": "/relative"}), "not an address"),
        (json!({"url": "https://me:secret@a.example/"}), "a user name"),
        (json!({"url": long}), "2048"),
    ] {
        let draft = settings.draft(&document(fields.clone()), &composed(json!({"title": "t"})));
        assert_eq!(draft.url, None, "{fields}");
        assert_eq!(draft.reasons.len(), 1, "{fields}");
        let reason = &draft.reasons[0];
        assert!(reason.check == Check::Url && reason.message.contains(says), "expected `{says}` in {reason:?}");
        assert!(!reason.message.contains("secret"), "{reason:?}");
    }
}

#[test]
fn sitemaps_lie_where_the_file_says() {
    let settings = section("{ task: page, url: 'https://a/', sitemap: 'https://a.example/map-{{ page }}.xml' }");
    assert_eq!(settings.sitemap(2).unwrap(), "https://a.example/map-2.xml");
    assert!(section("{ task: page, url: 'https://a/' }").sitemap(1).unwrap_err().contains("`copy.sitemap`"));
}
