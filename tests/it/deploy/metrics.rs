//! Checks that rules and dashboards name metrics and labels that exist. Expressions are read only as far as names and labels need
//! it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidemill::metrics::{METRICS, Metrics};

use super::rules::rules;
use super::{at, list, text, word};

/// Labels that the scraper adds to every series.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// Words after which a list of labels follows.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words of the query language that are not metrics.
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "inf"];

/// The labels of every series that exists, by its name.
type Known = BTreeMap<String, BTreeSet<String>>;

pub async fn rules_and_dashboards_name_what_is_measured() {
    let known = known();
    let mut faults = Vec::new();
    for (place, expression) in expressions() {
        faults.extend(unknown(&expression, &known).into_iter().map(|fault| format!("{place}: {fault}")));
    }
    assert!(faults.is_empty(), "in rules and dashboards:\n  {}", faults.join("\n  "));
}

pub async fn a_metric_or_label_that_does_not_exist_is_found() {
    let known = known();
    let cases = [
        ("sum(rate(tidemill_record_total[5m]))", "`tidemill_record_total` is not exported"),
        ("tidemill_records_total{topic=\"x\"}", "`tidemill_records_total` has no label `topic`"),
        ("sum by (model) (tidemill_records_total)", "no metric beside it has the label `model`"),
        ("rate(tidemill_commit_seconds[5m])", "`tidemill_commit_seconds` is not exported"),
        ("tidemill:no_such_rule:sum", "`tidemill:no_such_rule:sum` is not exported"),
        ("process_no_such_thing", "`process_no_such_thing` is not exported"),
    ];
    for (expression, fault) in cases {
        assert_eq!(unknown(expression, &known), [fault], "for {expression}");
    }
    let sound =
        "histogram_quantile(0.95, sum by (pipeline, le) (rate(tidemill_commit_seconds_bucket{pipeline=~\"a|b\"}[5m]))) > 1e9";
    assert_eq!(unknown(sound, &known), [""; 0]);
}

/// Every expression and where it was found.
fn expressions() -> Vec<(String, String)> {
    let name = |rule: &Value| rule["alert"].as_str().or(rule["record"].as_str()).expect("a rule has a name").to_owned();
    let mut found: Vec<_> = rules().iter().map(|rule| (name(rule), word(&rule["expr"]).to_owned())).collect();
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/dashboards/tidemill.json")).unwrap();
    let panels = list(at(&dashboard, "/panels"));
    for panel in panels {
        let title = word(&panel["title"]);
        let targets = list(&panel["targets"]);
        assert!(word(&panel["type"]) == "row" || !targets.is_empty(), "panel {title} shows nothing");
        assert!(
            targets.is_empty() || word(at(panel, "/datasource/uid")) == "${datasource}",
            "panel {title} has a data source of its own"
        );
        found.extend(targets.iter().map(|target| (title.to_owned(), word(&target["expr"]).to_owned())));
    }
    assert!(panels.len() > 20 && found.len() > 60, "too few panels and expressions were found");
    for variable in list(at(&dashboard, "/templating/list")).iter().filter(|variable| variable["type"] == "query") {
        let query = word(at(variable, "/query/query"));
        let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = arguments.and_then(|both| both.split_once(", ")).expect("a variable lists the values of a label");
        found.push((format!("variable {}", word(&variable["name"])), format!("sum by ({label}) ({metric})")));
    }
    found
}

/// The series that the process exports, that rules record, and that Prometheus adds.
fn known() -> Known {
    let set = |labels: &[&str]| labels.iter().chain(&OF_THE_TARGET).map(|label| (*label).to_owned()).collect::<BTreeSet<_>>();
    let mut known = Known::from([("up".to_owned(), set(&[]))]);
    for family in Metrics::FAMILIES {
        if family.kind.starts_with("Histogram") {
            let bucket: Vec<&str> = family.labels.iter().copied().chain(["le"]).collect();
            known.insert(format!("{}_bucket", family.name), set(&bucket));
            known.insert(format!("{}_sum", family.name), set(family.labels));
            known.insert(format!("{}_count", family.name), set(family.labels));
        } else {
            known.insert(family.name.to_owned(), set(family.labels));
        }
    }
    // The library provides the metrics of the process itself.
    let rendered = METRICS.render();
    let of_the_process = rendered.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    known.extend(of_the_process.filter(|name| name.starts_with("process_")).map(|name| (name.to_owned(), set(&[]))));
    for rule in rules() {
        if let Some(name) = rule["record"].as_str() {
            // The series that a rule records has the labels that its expression groups by.
            let labels = read(word(&rule["expr"])).grouped;
            known.insert(name.to_owned(), labels.into_iter().collect());
        }
    }
    known
}

/// The names in an expression.
#[derive(Default)]
struct Names {
    /// Metrics, each with the labels of its selector.
    metrics: Vec<(String, Vec<String>)>,
    /// Labels of grouping and matching clauses.
    grouped: Vec<String>,
}

fn unknown(expression: &str, known: &Known) -> Vec<String> {
    let names = read(expression);
    let mut faults = Vec::new();
    if names.metrics.is_empty() {
        faults.push(format!("`{expression}` names no metric"));
    }
    let mut beside = BTreeSet::new();
    for (metric, labels) in &names.metrics {
        let Some(has) = known.get(metric) else {
            faults.push(format!("`{metric}` is not exported"));
            continue;
        };
        beside.extend(has.clone());
        faults.extend(
            labels.iter().filter(|label| !has.contains(*label)).map(|label| format!("`{metric}` has no label `{label}`")),
        );
    }
    if faults.is_empty() {
        let strangers = names.grouped.iter().filter(|label| !beside.contains(*label));
        faults.extend(strangers.map(|label| format!("no metric beside it has the label `{label}`")));
    }
    faults
}

fn read(expression: &str) -> Names {
    let tokens = tokens(expression);
    let (mut names, mut at) = (Names::default(), 0);
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    // In a selector the labels are the names before one of these signs, up to the closing bracket.
    let labels = |from: usize, close: &str, followed: &[&str]| {
        let end = (from..tokens.len()).find(|at| token(*at) == close).expect("a bracket is closed");
        let found = (from..end).filter(|at| is_name(token(*at)) && followed.contains(&token(at + 1)));
        (found.map(|at| token(at).to_owned()).collect::<Vec<_>>(), end)
    };
    while at < tokens.len() {
        let current = token(at);
        if GROUPING.contains(&current) && token(at + 1) == "(" {
            let (found, end) = labels(at + 2, ")", &[",", ")"]);
            names.grouped.extend(found);
            at = end;
        } else if is_name(current)
            && !["(", "by", "without"].contains(&token(at + 1))
            && !WORDS.contains(&current.to_lowercase().as_str())
        {
            let (selected, end) = match token(at + 1) {
                "{" => labels(at + 2, "}", &["=", "=~", "!=", "!~"]),
                _ => (Vec::new(), at),
            };
            names.metrics.push((current.to_owned(), selected));
            at = end;
        }
        at += 1;
    }
    names
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Names, comparisons and single characters; texts, numbers and durations left out.
fn tokens(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
        let length = match first {
            '"' => rest[1..].find('"').expect("a text is closed") + 2,
            '[' => rest.find(']').expect("a range is closed") + 1,
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            '=' | '!' => rest.find(|c| !"=!~".contains(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let token = &rest[..length];
        if !first.is_whitespace() && !first.is_ascii_digit() && !"\"[".contains(first) {
            found.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    found
}
