//! `deploy/`, as far as it can be checked without a container engine or a cluster: rules and dashboards name metrics that exist,
//! alerts fire when they should, Kubernetes accepts the manifests, and all of it agrees with the code.

mod images;
mod kustomize;
mod loading;
mod manifests;
mod metrics;
mod pod;
mod rules;
pub mod tools;

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use tidemill::config::Config;
use tidemill::pipeline::definition::Definition;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // Download what they need on the first run.
    let fetching = Needs::NOTHING.within(Duration::from_secs(300));
    let promtool = fetching.using(|| tools::promtool().map(drop));
    let schemas = fetching.using(|| tools::schemas().map(drop));
    vec![
        trial!(promtool, rules::promtool_accepts_rules_and_configuration),
        trial!(promtool, rules::every_alert_fires_when_it_should_and_not_before),
        trial!(Needs::NOTHING, rules::every_alert_has_a_test_and_a_section_of_the_runbook),
        trial!(Needs::NOTHING, rules::the_queries_of_the_runbook_run),
        trial!(Needs::NOTHING, metrics::rules_and_dashboards_name_what_is_measured),
        trial!(Needs::NOTHING, metrics::a_metric_or_label_that_does_not_exist_is_found),
        trial!(Needs::NOTHING, tools::a_tool_is_fetched_again_until_it_is_there),
        trial!(schemas, manifests::kubernetes_takes_the_manifests),
        trial!(schemas, manifests::a_manifest_with_a_fault_is_found),
        trial!(Needs::NOTHING, manifests::manifests_agree_with_the_code),
        trial!(Needs::NOTHING, manifests::scaling_looks_at_the_topics_of_the_pipelines),
        trial!(Needs::KAFKA, pod::a_worker_runs_among_the_variables_of_a_kubelet),
        trial!(fetching, images::the_image_is_built_from_what_is_there),
        trial!(Needs::NOTHING, images::compose_agrees_with_the_image_and_the_pipelines),
        trial!(Needs::NOTHING, images::secrets_are_made_once),
        trial!(Needs::NOTHING, loading::a_process_that_loads_answers_and_can_be_stopped),
    ]
}

/// A path in the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// The documents of a YAML text.
fn documents(name: &str, text: &str) -> Vec<Value> {
    let parse = |document: &str| serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.split("\n---\n").map(parse).collect()
}

/// The only document of a YAML file.
fn document(name: &str) -> Value {
    let [document] = documents(name, &text(name)).try_into().unwrap_or_else(|_| panic!("{name} is not one document"));
    document
}

/// The value at a JSON pointer, such as `/spec/replicas`, which must be there.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("there is no {pointer} in {value}"))
}

/// The entries of a list; none where the value is no list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The configuration of a deployment as the process reads it, with the files of `secrets` for the mounted ones and the repository's
/// pipelines for the image's.
fn configuration(toml: &str, secrets: &str) -> (Config, Vec<Definition>) {
    let folder = open_folder();
    let secrets_here = folder.path().join("secrets");
    std::fs::create_dir(&secrets_here).unwrap();
    std::fs::write(secrets_here.join("database-url"), "postgres://u:p@h/d").unwrap();
    std::fs::write(secrets_here.join("token"), "t".repeat(32)).unwrap();
    std::fs::write(secrets_here.join("metrics-token"), "m".repeat(32)).unwrap();
    let local = toml
        .replace(secrets, &secrets_here.display().to_string())
        .replace("/usr/share/tidemill/pipelines", &path("pipelines").display().to_string());
    let file = folder.path().join("tidemill.toml");
    std::fs::write(&file, local).unwrap();
    let config = Config::layered(Some(&file), [], &[]).unwrap_or_else(|e| panic!("{e}"));
    let secrets_read = [&config.server.token, &config.server.metrics_token, &config.database.url].map(Option::is_some);
    assert_eq!(secrets_read, [true; 3], "the secrets are not read from {secrets}");
    let definitions = Definition::load_all(&config.pipelines, &[]).unwrap_or_else(|e| panic!("{e}"));
    let problems: Vec<String> = definitions.iter().flat_map(|d| d.validate(&config)).map(|p| p.to_string()).collect();
    assert_eq!(problems, [""; 0], "the configuration lacks what the pipelines name");
    (config, definitions)
}
