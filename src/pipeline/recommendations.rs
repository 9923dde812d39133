//! `recommendations`: what interactions with a pipeline's documents weigh, and how others are chosen by them.
//!
//! ```yaml
//! recommendations:
//!   vector: vector                           # the first `embed` task unless told
//!   weights:                                 # without any, each interaction weighs 1
//!     view: 1
//!     purchase: 5
//!     rating: { neutral: 3, steps: 2, each: 2 }   # five stars weigh 4, one star weighs -4
//!   half_life: 30d
//!   diversity: 0.2
//!   reasons: [topic]                         # every `classify` task unless told
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::definition::TaskDefinition;
use super::definition_error::suggestion;

/// What a weight, and a number in one, may be at most.
const MOST: f64 = 1e6;

/// How long it takes until an interaction weighs half, unless told.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// What interactions weigh, and how documents are chosen by them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecommendationSettings {
    /// The embedding task by which documents are near each other; the first unless told.
    pub vector: Option<String>,
    /// What each kind weighs. One that is not here weighs nothing, but its document counts as seen; without any, each weighs 1.
    pub weights: BTreeMap<String, InteractionWeight>,
    /// How long it takes until an interaction weighs half.
    #[serde(deserialize_with = "duration")]
    pub half_life: Duration,
    /// From 0, likeness alone, to 1, difference alone.
    pub diversity: f64,
    /// Classification tasks whose labels are told as reasons; all unless told.
    pub reasons: Option<Vec<String>>,
}

/// What an interaction of a kind weighs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a weight is a number, or `{ neutral: …, steps: …, each: … }` for kinds with a value")]
pub enum InteractionWeight {
    /// Always the same.
    Fixed(f64),
    /// By how far its value is from the neutral one.
    ValueWeight(ValueWeight),
}

/// What an interaction with a value weighs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueWeight {
    /// The value that says neither good nor bad, and that counts where there is none.
    pub neutral: f64,
    /// How many steps above or below it count at most. Whoever sends a value of a million must not outweigh all others.
    pub steps: f64,
    /// What each step above it weighs, and each step below takes away.
    pub each: f64,
}

impl Default for RecommendationSettings {
    fn default() -> Self {
        Self { vector: None, weights: BTreeMap::new(), half_life: MONTH, diversity: 0.2, reasons: None }
    }
}

impl InteractionWeight {
    /// What an interaction with this value weighs; below zero where it tells of dislike.
    pub fn of(self, value: Option<f64>) -> f64 {
        match self {
            Self::Fixed(weight) => weight,
            Self::ValueWeight(ValueWeight { neutral, steps, each }) => {
                value.map_or(0.0, |value| (value - neutral).clamp(-steps, steps) * each)
            }
        }
    }

    fn problem(self) -> Option<String> {
        match self {
            Self::Fixed(weight) if weight.abs() > MOST => Some(format!("is {weight}: write at most {MOST}")),
            Self::ValueWeight(ValueWeight { steps, .. }) if !(steps > 0.0 && steps <= MOST) => {
                Some(format!("has {steps} steps: write a number above 0 and up to {MOST}"))
            }
            Self::ValueWeight(ValueWeight { each, .. }) if each.abs() > MOST => {
                Some(format!("has steps of {each}: write at most {MOST}"))
            }
            _ => None,
        }
    }
}

impl RecommendationSettings {
    /// What an interaction of the kind with this value weighs.
    pub fn weight(&self, kind: &str, value: Option<f64>) -> f64 {
        match self.weights.get(kind) {
            Some(weight) => weight.of(value),
            None if self.weights.is_empty() => 1.0,
            None => 0.0,
        }
    }

    /// What is wrong with them, a sentence each.
    pub(super) fn problems(&self, tasks: &[TaskDefinition]) -> Vec<String> {
        let mut problems = Vec::new();
        let of_kind = |kind: &'static str| tasks.iter().filter(move |task| task.spec.kind() == kind).map(|task| &*task.name);
        let mut named = |key: &str, name: &str, kind: &'static str| {
            if !of_kind(kind).any(|known| known == name) {
                let near = suggestion(name, of_kind(kind));
                problems.push(format!("`recommendations.{key}` names `{name}`, which is no `{kind}` task{near}"));
            }
        };
        self.vector.iter().for_each(|name| named("vector", name, "embed"));
        self.reasons.iter().flatten().for_each(|name| named("reasons", name, "classify"));
        if self.vector.is_none() && of_kind("embed").next().is_none() {
            problems.push("`recommendations` compares vectors, but no task makes any: add an `embed` task".into());
        }
        for (kind, weight) in &self.weights {
            problems.extend(weight.problem().map(|problem| format!("`recommendations.weights.{kind}` {problem}")));
        }
        if !(0.0..=1.0).contains(&self.diversity) {
            let number = self.diversity;
            problems.push(format!("`recommendations.diversity` is {number}: write 0, which asks for likeness alone, to 1"));
        }
        problems
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parsed(&text).ok_or_else(|| {
        let message = format!("`recommendations.half_life` is `{text}`: write a duration above zero such as `30d` or `12h`");
        D::Error::custom(message)
    })
}

fn parsed(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::definition::Definition;
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
            ("{ diversity: 1.5 }", "is 1.5: write 0"),
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
        assert_eq!(problems(), ["task `it` interacts with `shopp`, which is no pipeline; did you mean `shop`?"]);
        write("clicks", "acme", &interact("shop"));
        assert_eq!(problems(), ["task `it` interacts with `shop`, which is no pipeline; there are none"], "another tenant's");
    }
}
