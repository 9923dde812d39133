//! The `recommendations` section of a pipeline file: the weights of interactions, and how documents are chosen by them.
//!
//! ```yaml
//! recommendations:
//!   vector: vector                           # default: the first `embed` task
//!   weights:                                 # default: each interaction weighs 1
//!     view: 1
//!     purchase: 5
//!     rating: { neutral: 3, steps: 2, each: 2 }   # five stars weigh 4, one star weighs -4
//!   half_life: 30d
//!   diversity: 0.2
//!   reasons: [topic]                         # default: every `classify` task
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::definition_error::suggestion;
use super::task_definition::TaskDefinition;

/// The greatest weight, and the greatest number in one.
const MOST: f64 = 1e6;

/// The default `half_life`: 30 days.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The weights of interactions, and how documents are chosen by them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecommendationSettings {
    /// The `embed` task whose vectors compare documents; by default the first one.
    pub vector: Option<String>,
    /// The weight of each kind of interaction. A kind that is missing here weighs 0, but its document counts as seen. Without any
    /// entry every kind weighs 1.
    pub weights: BTreeMap<String, InteractionWeight>,
    /// The time after which an interaction weighs half.
    #[serde(deserialize_with = "duration")]
    pub half_life: Duration,
    /// From 0, which chooses by similarity alone, to 1, which chooses by difference alone.
    pub diversity: f64,
    /// `classify` tasks whose labels are given as reasons; by default all.
    pub reasons: Option<Vec<String>>,
}

/// The weight of a kind of interaction.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a weight is a number, or `{ neutral: …, steps: …, each: … }` for kinds with a value")]
pub enum InteractionWeight {
    /// The same for every interaction.
    Fixed(f64),
    /// By the distance of the interaction's value from a neutral one.
    ByValue(ValueWeight),
}

/// The weight of an interaction with a value, such as a rating.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueWeight {
    /// The value that is neither good nor bad. Interactions without a value have it.
    pub neutral: f64,
    /// The most steps above or below the neutral value that count, so that no single value outweighs all others.
    pub steps: f64,
    /// The weight of one step above the neutral value; a step below has the negative weight.
    pub each: f64,
}

impl Default for RecommendationSettings {
    fn default() -> Self {
        Self { vector: None, weights: BTreeMap::new(), half_life: MONTH, diversity: 0.2, reasons: None }
    }
}

impl InteractionWeight {
    /// The weight of an interaction with this value; negative for dislike.
    pub fn of(self, value: Option<f64>) -> f64 {
        match self {
            Self::Fixed(weight) => weight,
            Self::ByValue(ValueWeight { neutral, steps, each }) => {
                value.map_or(0.0, |value| (value - neutral).clamp(-steps, steps) * each)
            }
        }
    }

    fn problem(self) -> Option<String> {
        match self {
            Self::Fixed(weight) if weight.abs() > MOST => Some(format!("is {weight}: write at most {MOST}")),
            Self::ByValue(ValueWeight { steps, .. }) if !(steps > 0.0 && steps <= MOST) => {
                Some(format!("has {steps} steps: write a number above 0 and up to {MOST}"))
            }
            Self::ByValue(ValueWeight { each, .. }) if each.abs() > MOST => {
                Some(format!("has steps of {each}: write at most {MOST}"))
            }
            _ => None,
        }
    }
}

impl RecommendationSettings {
    /// The weight of an interaction of the kind with this value.
    pub fn weight(&self, kind: &str, value: Option<f64>) -> f64 {
        match self.weights.get(kind) {
            Some(weight) => weight.of(value),
            None if self.weights.is_empty() => 1.0,
            None => 0.0,
        }
    }

    /// What is wrong with the section, one sentence each.
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
            problems.push("`recommendations` compares vectors, but the pipeline has no `embed` task: add one".into());
        }
        for (kind, weight) in &self.weights {
            problems.extend(weight.problem().map(|problem| format!("`recommendations.weights.{kind}` {problem}")));
        }
        if !(0.0..=1.0).contains(&self.diversity) {
            let number = self.diversity;
            problems.push(format!(
                "`recommendations.diversity` is {number}: write a number from 0, which chooses by similarity alone, to 1"
            ));
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
