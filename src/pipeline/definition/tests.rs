use std::time::Duration;

use super::*;
use crate::document::Format;
use crate::failure::{FailureClass, Tolerance};
use crate::pipeline::example::{Expectation, TaskExpectation};

mod copy;
mod leads;
mod recommendations;

const HEAD: &str = "version: 1\nname: test\nsource: { topic: docs }\n";

fn parse(text: &str) -> Result<Definition, DefinitionError> {
    Definition::parse(Path::new("p.yaml"), text)
}

#[track_caller]
fn refused(text: &str, says: &str) {
    match parse(text) {
        Ok(_) => panic!("a wrong file was accepted, which should say: {says}\n{text}"),
        Err(error) => assert!(error.to_string().contains(says), "expected to read `{says}` in:\n{error}"),
    }
}

fn with_tasks(tasks: &str) -> String {
    format!("{HEAD}tasks:\n{tasks}")
}

#[test]
fn a_whole_file_is_read() {
    let definition = parse(
        r#"
version: 1
name: product-catalogue
source:
  topic: documents.products
  start: latest
  format: json
  id: sku
  version: updated_at
  text: "{{ title }}\n\n{{ description }}"
  metadata: [brand, price]
  max_bytes: 2000000
tasks:
  vector:  { embed: { model: minilm, chunk: { tokens: 256, overlap: 32 } } }
  short:   { render: { template: "{{ note.text }}: {{ document.id }}" }, when: "vector.chunks == 1" }
  note:    { render: { template: "{{ document.fields.title }}" }, needs: [vector] }
sinks:
  postgres: {}
  parquet: { dataset: results }
  topic: { name: results.products }
  dead_letters: { name: dead.products }
budget: { max_wait: 250ms, max_tokens: 1000, max_records: 10 }
stop_at: { dead_share: 0.05, window: 500 }
examples:
  - name: a good one
    document: { sku: 1, title: a }
    expect: { note: { text: a }, vector: skipped }
  - raw: "{"
    expect: { dead_letter: malformed_json }
"#,
    )
    .unwrap();
    assert_eq!(&*definition.name, "product-catalogue");
    assert_eq!(definition.source.start, Start::Latest);
    assert_eq!(definition.source.document.format, Format::Json);
    assert_eq!(definition.source.document.metadata, ["brand", "price"]);
    assert_eq!(definition.budget, Budget { max_wait: Duration::from_millis(250), max_tokens: 1000, max_records: 10 });
    assert_eq!(definition.tolerance, Tolerance { share: 0.05, window: 500 });
    assert_eq!(definition.models(), ["minilm"]);
    let levels: Vec<(&str, usize)> = definition.tasks.iter().map(|task| (&*task.name, task.level)).collect();
    assert_eq!(levels, [("vector", 0), ("short", 2), ("note", 1)]);
    assert_eq!(definition.tasks[1].needs, ["note".into()]);
    assert_eq!(definition.tasks[1].watches, ["vector".into()]);
    assert_eq!(definition.sinks.dead_letters, Some(TopicSink { name: "dead.products".into() }));
    assert_eq!(definition.examples[1].expect, Expectation::DeadLetter(FailureClass::MalformedJson));
    let Expectation::Tasks(tasks) = &definition.examples[0].expect else { panic!("the example expects a dead letter") };
    assert_eq!(tasks[1], ("vector".into(), TaskExpectation::Skipped));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
    refused(&format!("{HEAD}taks:\n  a: {{}}\n"), "p.yaml:4:1: unknown key `taks`; did you mean `tasks`?");
    refused(&with_tasks("  v:\n    embed:\n      modle: minilm\n"), "p.yaml:7:7: unknown key `modle`; did you mean `model`?");
    refused(
        &with_tasks("  v: { digest: { model: m } }"),
        "p.yaml:5:8: unknown task kind or key `digest`; known are `classify`, `embed`, `summarize`, `render`, `extract`, `write`",
    );
    refused(
        "version: 1\nname: x\nsource: { topic: t, formt: json }\ntasks: {}",
        "p.yaml:3:21: unknown key `formt`; did you mean `format`?",
    );
}

#[test]
fn a_wrong_type_or_value_is_named_with_its_place() {
    refused(
        "version: 1\nname: x\nsource: { topic: t, format: avo }\ntasks: {}",
        "p.yaml:3:29: unknown value `avo`; did you mean `avro`?",
    );
    refused(&with_tasks("  v: { embed: { model: m, chunk: { tokens: many } } }"), "p.yaml:5:44:");
    refused(&with_tasks("  v: [1]"), "p.yaml:5:6:");
    refused(
        "version: 2\nname: x\nsource: { topic: t }\ntasks: { a: { render: { template: x } } }",
        "p.yaml:1:10: version 2 is unknown",
    );
    refused("name: x\nsource: { topic: t }\ntasks: {}", "the key `version` is missing");
    refused("version: 1\nname: x\nname: y\n", "p.yaml:3:1: the key `name` occurs twice");
    refused("version: 1\nname: [", "p.yaml:");
    refused("", "");
}

#[test]
fn what_stops_a_pipeline_is_bounded() {
    let with = |stop_at: &str| format!("{HEAD}stop_at: {stop_at}\ntasks: {{ a: {{ render: {{ template: x }} }} }}");
    let tolerance = |stop_at: &str| parse(&with(stop_at)).unwrap().tolerance;
    assert_eq!(tolerance("{}"), Tolerance { share: 0.2, window: 1000 });
    assert_eq!(tolerance("{ dead_share: 1 }"), Tolerance { share: 1.0, window: 1000 });
    for share in ["0", "-0.1", "1.01", ".nan"] {
        refused(&with(&format!("{{ dead_share: {share} }}")), "p.yaml:4:10: `stop_at.dead_share` is");
    }
    refused(&with("{ window: 0 }"), "p.yaml:4:10: `stop_at.window` is 0");
    refused(&with("{ window: 1000000 }"), "`stop_at.window` is 1000000");
    refused(&with("{ dead_shar: 0.1 }"), "unknown key `dead_shar`; did you mean `dead_share`?");
}

#[test]
fn names_have_a_form() {
    refused(
        "version: 1\nname: No Good\nsource: { topic: t }\ntasks: { a: { render: { template: x } } }",
        "p.yaml:2:7: `No Good` is not a pipeline name",
    );
    for name in ["Upper", "1a", "a-b", "document", "dead_letter", "'a b'"] {
        refused(&with_tasks(&format!("  {name}: {{ render: {{ template: x }} }}")), "is not a task name");
    }
    refused(&with_tasks("  a: { render: { template: x } }\n  a: { render: { template: y } }"), "`a`");
}

#[test]
fn a_task_has_exactly_one_kind() {
    refused(
        &with_tasks("  a: { when: 'true' }"),
        "task `a` has no kind: write one of classify, embed, summarize, render, extract, write, retrieve, answer, interact, compose, score",
    );
    refused(&with_tasks("  a: { render: { template: x }, embed: { model: m } }"), "is both `embed` and `render`");
    refused(&format!("{HEAD}tasks: {{}}"), "the pipeline has no tasks");
}

#[test]
fn cycles_are_named() {
    let tasks = "  a: { render: { template: '{{ b.text }}' } }\n  b: { render: { template: x }, needs: [c] }\n  c: { render: { template: x }, when: a is defined }";
    refused(&with_tasks(tasks), "tasks wait for each other: ");
    for edge in ["a needs b", "b needs c", "c needs a"] {
        let text = parse(&with_tasks(tasks)).unwrap_err().to_string();
        assert!(text.contains(edge), "`{text}` does not say `{edge}`");
    }
    refused(&with_tasks("  a: { render: { template: x }, needs: [a] }"), "a needs a");
}

#[test]
fn unknown_names_are_found_wherever_they_stand() {
    refused(
        &with_tasks("  topic: { render: { template: x } }\n  b: { render: { template: x }, needs: [topik] }"),
        "task `b` needs `topik`, which is not a task; did you mean `topic`?",
    );
    refused(&with_tasks("  b: { render: { template: '{{ nothing.text }}' } }"), "the template of task `b` reads `nothing`");
    refused(&with_tasks("  b: { render: { template: x }, when: nothing }"), "the condition of task `b` reads `nothing`");
    refused(
        &with_tasks("  b: { render: { template: '{{ document.title }}' } }"),
        "`document.title`, which no document has; known are `id`, `text`, `version`",
    );
    refused(
        &with_tasks("  b: { render: { template: x }, when: 'document.tokens > 5' }"),
        "no task has a model to count tokens with",
    );
}

#[test]
fn bad_templates_and_numbers_are_found_before_any_record() {
    refused(&with_tasks("  b: { render: { template: '{{ x' } }"), "task `b` has a bad template");
    refused(&with_tasks("  b: { render: { template: x }, when: '1 +' }"), "the condition of task `b` cannot be read");
    refused(
        "version: 1\nname: x\nsource: { topic: t, text: '{{ a | nofilter }}' }\ntasks: { a: { render: { template: x } } }",
        "unknown filter `nofilter`",
    );
    refused(
        &with_tasks("  v: { embed: { model: m, chunk: { tokens: 32, overlap: 32 } } }"),
        "make `overlap` smaller than `tokens`",
    );
    refused(&with_tasks("  v: { embed: { model: m, chunk: { tokens: 0 } } }"), "chunks of 0 tokens");
    for (budget, says) in [
        ("max_wait: 0ms", "is zero"),
        ("max_wait: soon", "write a duration"),
        ("max_wait: -1s", "write a duration"),
        ("max_tokens: 0", "`budget.max_tokens` is 0"),
    ] {
        refused(&format!("{HEAD}tasks: {{ a: {{ render: {{ template: x }} }} }}\nbudget: {{ {budget} }}"), says);
    }
}

#[test]
fn examples_are_checked_against_the_tasks() {
    let example = |example: &str| format!("{HEAD}tasks: {{ a: {{ render: {{ template: x }} }} }}\nexamples:\n  - {example}");
    refused(&example("{ document: {}, raw: x, expect: { a: skipped } }"), "either `document` or `raw`");
    refused(&example("{ document: {}, expect: { b: skipped } }"), "`b`, which is not a task");
    refused(&example("{ document: {}, expect: { dead_letter: missing } }"), "`missing` is not a class of dead letters");
    refused(&example("{ document: {}, expect: { a: skiped } }"), "`skiped` is not an expectation");
    refused(&example("{ document: {}, expect: { a: { lable: x } } }"), "unknown key `lable`; did you mean `label`?");
    refused(&example("{ document: {}, expect: {} }"), "the example expects nothing");
}

/// What a pipeline beside these files says of its tasks.
fn beside(files: &[(&str, &str)], tasks: &str) -> Result<Definition, DefinitionError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Definition::parse(&folder.path().join("p.yaml"), &with_tasks(tasks))
}

const SEO: (&str, &str) = ("seo.md", "---\nname: seo\n---\n{{ facts.price }} {{ document.text[:200] }} {{ topic.text[:9] }}");

#[test]
fn a_task_runs_after_those_that_its_prompt_and_its_list_read() {
    let tasks = "  seo: { write: { model: m, prompt: seo.md } }
  each: { write: { model: m, prompt: each.md, for_each: 'facts.features[:3]' } }
  facts: { extract: { model: m, schema: { type: object } } }
  topic: { render: { template: x } }";
    let each = ("each.md", "---\nname: each\n---\n{{ item }} {{ index }}");
    let definition = beside(&[SEO, each], tasks).unwrap();
    let needs = |index: usize| definition.tasks[index].needs.iter().map(|need| &**need).collect::<Vec<_>>();
    assert_eq!((needs(0), definition.tasks[0].level), (vec!["facts", "topic"], 1));
    assert_eq!((needs(1), definition.tasks[1].level), (vec!["facts"], 1));
}

#[test]
fn faults_of_prompts_and_schemas_are_found_before_any_record() {
    #[track_caller]
    fn says(files: &[(&str, &str)], tasks: &str, says: &str) {
        let error = beside(files, tasks).unwrap_err().to_string();
        assert!(error.contains(says), "expected to read `{says}` in:\n{error}");
    }
    let write = "  seo: { write: { model: m, prompt: seo.md } }";
    says(&[], write, "p.yaml:5:8: task `seo` has a bad prompt: ");
    says(&[], write, "seo.md: no such file");
    says(&[("seo.md", "---\nname: a\nstop: x\n---\nx")], write, "seo.md:3:1: unknown key `stop`");
    says(&[("seo.md", "---\nname: a\n---\n{{ item }}")], write, "the template of task `seo` reads `item`, which is not a task");
    says(&[SEO], write, "reads `facts`, which is not a task");
    says(&[], "  a: { extract: { model: m } }", "task `a` has no `schema`");
    says(
        &[],
        "  a: { extract: { model: m, schema: { type: object, properties: 3 } } }",
        "task `a` has a bad schema: the schema is not valid",
    );
    says(
        &[("s.json", "{\n\"type\": 3\n")],
        "  a: { extract: { model: m, schema: s.json } }",
        "s.json:3:0: the schema is not valid JSON",
    );
    says(&[], "  a: { summarize: { model: m, max_tokens: 9 } }", "add `mode: abstractive`");
    says(&[], "  a: { summarize: { model: m, mode: abstract } }", "unknown value `abstract`; did you mean `abstractive`?");
    says(&[], "  a: { summarize: { model: m, mode: abstractive, diversity: 0.5 } }", "remove it or `mode: abstractive`");
    says(&[], "  a: { classify: { model: m, prompt: nowhere.md, labels: { a: x, b: y } } }", "nowhere.md: no such file");
}

#[test]
fn several_faults_are_reported_at_once() {
    let error = parse("version: 1\nname: BAD\nsource: { topic: '' }\ntasks: { a: { render: { template: '{{' } } }").unwrap_err();
    assert!(error.problems.len() >= 3, "only {} faults were found:\n{error}", error.problems.len());
}

#[test]
fn models_and_datasets_must_be_configured() {
    let text = with_tasks("  v: { embed: { model: minlm } }\nsinks: { parquet: { dataset: result } }");
    let definition = parse(&text).unwrap();
    let mut config = Config::default();
    config.models.insert("minilm".into(), crate::config::ModelConfig::local("m"));
    config.datasets.insert("results".into(), crate::config::DatasetConfig::local("d"));
    let problems: Vec<String> = definition.validate(&config).iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "p.yaml:5:6: task `v` names model `minlm`, which is not configured; did you mean `minilm`?",
            "p.yaml:6:30: the Parquet sink names dataset `result`, which is not configured; did you mean `results`?"
        ]
    );
}

#[test]
fn a_source_of_avro_needs_a_registry() {
    let text = "version: 1\nname: x\nsource: { topic: t, format: avro, id: sku }\ntasks: { a: { render: { template: x } } }";
    let definition = parse(text).unwrap();
    let mut config = Config::default();
    let problems: Vec<String> = definition.validate(&config).iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["p.yaml: the source is Avro, but no schema registry is configured; set `schema_registry.url`"]);
    config.schema_registry.url = Some("http://127.0.0.1:8081".into());
    assert!(definition.validate(&config).is_empty());
}

#[test]
fn a_missing_file_is_one_sentence() {
    let error = Definition::load("/nowhere/p.yaml").unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/p.yaml: no such file");
}

#[test]
fn what_would_make_every_document_the_same_or_feed_on_itself_is_refused() {
    let refused = |source: &str, sinks: &str| {
        let text =
            format!("version: 1\nname: a\nsource: {source}\ntasks: {{ t: {{ render: {{ template: x }} }} }}\nsinks: {sinks}\n");
        Definition::parse(Path::new("a.yaml"), &text).unwrap_err().to_string()
    };
    let same = refused("{ topic: t, text: name }", "{}");
    assert!(same.contains("`text` is `name`, which names no field") && same.contains("write a field as `{{ name }}`"), "{same}");
    for sink in ["topic", "dead_letters"] {
        let circle = refused("{ topic: t }", &format!("{{ {sink}: {{ name: t }} }}"));
        assert!(circle.contains(&format!("`sinks.{sink}` is the topic `t`, which the pipeline also reads")), "{circle}");
    }
}
