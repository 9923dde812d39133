//! Prometheus' rules: its own tool reads and tests them, and the runbook explains each alert.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::tools::{promtool, run};
use super::{at, document, list, path, text, word};
use crate::harness::{open_folder, postgres};

/// The rules of the file, of every group.
pub fn rules() -> Vec<Value> {
    let groups = document("deploy/prometheus/rules.yml");
    list(at(&groups, "/groups")).iter().flat_map(|group| list(at(group, "/rules")).to_vec()).collect()
}

pub async fn promtool_accepts_rules_and_configuration() {
    let mut check = Command::new(promtool().unwrap());
    check.args(["check", "rules"]).arg(path("deploy/prometheus/rules.yml"));
    run(check).unwrap_or_else(|e| panic!("{e:#}"));
    // In the container the token is mounted; here it is next to the files.
    let folder = open_folder();
    let token = folder.path().join("metrics-token");
    std::fs::write(&token, "t").unwrap();
    let config = text("deploy/prometheus/prometheus.yml");
    let mounted = "/run/secrets/metrics-token";
    assert!(config.contains(mounted), "Prometheus scrapes without the token that is its own");
    std::fs::write(folder.path().join("prometheus.yml"), config.replace(mounted, &token.display().to_string())).unwrap();
    std::fs::copy(path("deploy/prometheus/rules.yml"), folder.path().join("rules.yml")).unwrap();
    let mut check = Command::new(promtool().unwrap());
    check.args(["check", "config"]).arg(folder.path().join("prometheus.yml"));
    run(check).unwrap_or_else(|e| panic!("{e:#}"));
}

pub async fn every_alert_fires_when_it_should_and_not_before() {
    let mut test = Command::new(promtool().unwrap());
    test.args(["test", "rules"]).args(tests()).current_dir(path("deploy/prometheus/tests"));
    let said = run(test).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(said.matches("SUCCESS").count(), tests().len(), "promtool did not run every file: {said}");
}

/// The names of the test files.
fn tests() -> Vec<String> {
    let entries = std::fs::read_dir(path("deploy/prometheus/tests")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub async fn every_alert_has_a_test_and_a_section_of_the_runbook() {
    let rules = rules();
    let alerts: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    let recorded: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    assert!(alerts.len() > 15 && recorded.len() > 8, "too few rules were found: {alerts:?} {recorded:?}");

    let runbook = text("deploy/runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, sections, "alerts and sections of the runbook are the same");
    for section in runbook.split("\n## ").skip(1) {
        let places: Vec<_> = ["**Means.**", "**Look at.**", "**Do.**"].iter().map(|part| section.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "a section of the runbook lacks a part: {section}");
    }
    for rule in rules.iter().filter(|rule| rule["alert"].is_string()) {
        let alert = word(&rule["alert"]);
        let address = word(at(rule, "/annotations/runbook_url"));
        assert_eq!(address, format!("deploy/runbook.md#{}", alert.to_lowercase()), "of {alert}");
        assert!(
            ["page", "ticket"].contains(&word(at(rule, "/labels/severity"))),
            "the severity of {alert} is neither page nor ticket"
        );
    }

    let (mut quiet, mut firing, mut computed) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for file in tests() {
        let cases = document(&format!("deploy/prometheus/tests/{file}"));
        for case in list(at(&cases, "/tests")) {
            for check in list(&case["alert_rule_test"]) {
                let seen = if list(&check["exp_alerts"]).is_empty() { &mut quiet } else { &mut firing };
                seen.insert(word(&check["alertname"]).to_owned());
            }
            for check in list(&case["promql_expr_test"]) {
                computed.push_str(word(&check["expr"]));
                computed.push('\n');
            }
        }
    }
    let alerts: BTreeSet<String> = alerts.into_iter().map(str::to_owned).collect();
    assert_eq!(alerts, firing, "each alert fires in a test");
    assert_eq!(alerts, quiet, "each alert keeps quiet in a test");
    let untested: Vec<_> = recorded.into_iter().filter(|name| !computed.contains(name)).collect();
    assert_eq!(untested, [""; 0], "recording rules without a test");
}

pub async fn the_queries_of_the_runbook_run() {
    let runbook = text("deploy/runbook.md");
    let queries: Vec<&str> = runbook.split('`').filter(|part| part.starts_with("SELECT ")).collect();
    assert!(queries.len() >= 2, "the runbook shows hardly any query: {queries:?}");
    let database = postgres::database().await;
    for query in queries {
        postgres::execute(&database.url, query).await;
    }
}
