//! The `recommendations` section, and interactions with other pipelines.

use std::time::Duration;

use super::*;

fn parse(section: &str) -> Result<Definition, String> {
    let text = format!(
        "version: 1\nname: p\nsource: {{ topic: t }}\ntasks:\n  topic: {{ classify: {{ model: m, labels: {{ a: x, b: y }} }} }}\n  \
         vector: {{ embed: {{ model: m }} }}\n{section}"
    );
    Definition::parse(Path::new("p.yaml"), &text).map_err(|error| error.to_string())
}

#[test]
fn weights_are_numbers_or_steps_from_a_neutral_value() {
    let section = "recommendations:\n  vector: vector\n  weights: { view: 1, rating: { neutral: 3, steps: 2, each: 2 } }\n  half_life: 2w\n";
    let found = parse(section).unwrap().recommendations.unwrap();
    assert_eq!(found.weight("view", Some(9.0)), 1.0);
    assert_eq!((found.weight("rating", Some(5.0)), found.weight("rating", Some(1.0))), (4.0, -4.0));
    assert_eq!((found.weight("rating", Some(1e308)), found.weight("rating", Some(-1e308))), (4.0, -4.0));
    assert_eq!((found.weight("rating", None), found.weight("other", None)), (0.0, 0.0));
    assert_eq!(found.half_life, Duration::from_secs(14 * 86_400));
    assert_eq!(RecommendationSettings::default().weight("anything", None), 1.0);
}

#[test]
fn each_fault_is_named_with_its_line_and_its_mend() {
    let cases = [
        ("{ vector: vektor }", "names `vektor`, which is no `embed` task; did you mean `vector`?"),
        ("{ vector: topic }", "which is no `embed` task"),
        ("{ reasons: [vector] }", "which is no `classify` task; known are `topic`"),
        ("{ half_life: 0s }", "is `0s`: write a duration above zero"),
        ("{ half_life: soon }", "is `soon`: write a duration"),
        ("{ diversity: 1.5 }", "is 1.5: write a number from 0"),
        ("{ weights: { view: 1e9 } }", "weights.view` is 1000000000: write at most 1000000"),
        ("{ weights: { rating: { neutral: 3, steps: 0, each: 1 } } }", "has 0 steps: write a number above 0"),
        ("{ weigths: { view: 1 } }", "unknown key `weigths`; did you mean `weights`?"),
        ("{ weights: { view: much } }", "a weight is a number"),
        ("{ weights: { rating: { neutral: 3 } } }", "a weight is a number"),
    ];
    for (section, says) in cases {
        let error = parse(&format!("recommendations: {section}\n")).unwrap_err();
        assert!(error.starts_with("p.yaml:7:") && error.contains(says), "{section}: {error}");
    }
}

#[test]
fn an_interaction_with_a_pipeline_that_is_not_there_is_named_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, tenant: &str, task: &str| {
        let text = format!("version: 1\nname: {name}\ntenant: {tenant}\nsource: {{ topic: {name} }}\ntasks:\n  it: {task}\n");
        std::fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
    };
    let interact = |with: &str| format!("{{ interact: {{ with: {with}, user: u, document: d, kind: view }} }}");
    let problems = || match Definition::load_all(folder.path(), &[]) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.into_iter().map(|problem| problem.message).collect::<Vec<String>>(),
    };
    write("shop", "default", "{ render: { template: x } }");
    write("clicks", "default", &interact("shop"));
    assert_eq!(problems(), [""; 0]);
    write("clicks", "default", &interact("shopp"));
    assert_eq!(problems(), ["task `it` interacts with `shopp`, which is not a pipeline; did you mean `shop`?"]);
    write("clicks", "acme", &interact("shop"));
    assert_eq!(problems(), ["task `it` interacts with `shop`, which is not a pipeline; there are none"], "another tenant's");
}
