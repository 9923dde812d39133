use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::pipeline::definition::Definition;

const TASKS: &str = "version: 1\nname: shop\nsource: { topic: docs }\ntasks:\n  page:\n    compose:\n      \
     schema: { type: object, properties: { title: { type: string }, slug: { type: string } } }\n      \
     object: '{\"title\": {{ document.text | tojson }}}'\n  line: { render: { template: x } }\n";

fn with(copy: &str) -> Result<Definition, String> {
    Definition::parse(Path::new("p.yaml"), &format!("{TASKS}copy: {copy}\n")).map_err(|error| error.to_string())
}

fn catalogue(copy: &str) -> CopySettings {
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
        ("{ task: pge, url: 'https://a/' }", "`copy.task` is `pge`, which is no task; did you mean `page`?"),
        ("{ task: line, url: 'https://a/' }", "which is a `render` task: name a `compose` task"),
        (
            "{ task: page, url: 'https://a/{{ copy.slag }}' }",
            "`copy.url` reads `copy.slag`, which task `page` does not make; did you mean `slug`?",
        ),
        ("{ task: page, url: 'https://a/{{ page.slug }}' }", "`copy.url` reads `page.slug`, which is not there"),
        ("{ task: page, url: 'https://a/{{ document.titel }}' }", "`copy.url` reads `document.titel`, which no document has"),
        ("{ task: page, url: 'https://a/{{ ' }", "`copy.url` is no template"),
        (
            "{ task: page, url: 'https://a/', unique: [titel] }",
            "`copy.unique` has `titel`, which is no field of task `page`; did you mean `title`?",
        ),
        ("{ task: page, url: 'https://a/', sitemap: '{{ copy.slug }}' }", "`copy.sitemap` reads `copy.slug`, which is not there"),
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
    let catalogue = catalogue("{ task: page, url: 'https://{{ document.fields.host }}/p/{{ copy.slug }}', unique: [title] }");
    assert_eq!(catalogue.publish, PublishMode::Review, "nothing is published unless somebody says so");
    let draft = catalogue
        .draft(&document(json!({"host": "a.example"})), &composed(json!({"title": "Oak  Board", "slug": "참나무 도마"})));
    assert_eq!(draft.url.as_deref(), Some("https://a.example/p/%EC%B0%B8%EB%82%98%EB%AC%B4%20%EB%8F%84%EB%A7%88"));
    assert_eq!(draft.reasons, []);
    let other =
        catalogue.draft(&document(json!({"host": "b.example"})), &composed(json!({"title": "ＯＡＫ board ", "slug": "x"})));
    assert_eq!((&draft.keys[0], draft.keys.len()), (&other.keys[0], 2), "the same title to a reader");
    assert_ne!(draft.keys[1], other.keys[1]);
    let untitled = catalogue.draft(&document(json!({"host": "b.example"})), &composed(json!({"title": " ", "slug": "x"})));
    assert_eq!(untitled.keys.len(), 1, "two pages without a title do not share one");
}

#[test]
fn what_is_no_address_is_a_reason_and_not_a_failure() {
    let catalogue = catalogue("{ task: page, url: '{{ document.fields.url }}' }");
    let long = format!("https://a.example/{}", "x".repeat(2_048));
    for (fields, says) in [
        (json!({}), "absent"),
        (json!({"url": "javascript:alert(1)"}), "no address of the web"),
        (json!({"url": "ftp://a.example/x"}), "no address of the web"),
        (json!({"url": "/relative"}), "no address"),
        (json!({"url": "https://me:secret@a.example/"}), "a user's name"),
        (json!({"url": long}), "2048"),
    ] {
        let draft = catalogue.draft(&document(fields.clone()), &composed(json!({"title": "t"})));
        assert_eq!(draft.url, None, "{fields}");
        assert_eq!(draft.reasons.len(), 1, "{fields}");
        let reason = &draft.reasons[0];
        assert!(reason.check == Check::Url && reason.message.contains(says), "expected `{says}` in {reason:?}");
        assert!(!reason.message.contains("secret"), "{reason:?}");
    }
}

#[test]
fn sitemaps_lie_where_the_file_says() {
    let catalogue_with = catalogue("{ task: page, url: 'https://a/', sitemap: 'https://a.example/map-{{ page }}.xml' }");
    assert_eq!(catalogue_with.sitemap(2).unwrap(), "https://a.example/map-2.xml");
    assert!(catalogue("{ task: page, url: 'https://a/' }").sitemap(1).unwrap_err().contains("`copy.sitemap`"));
}
