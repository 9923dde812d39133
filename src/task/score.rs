//! `score`: computes a number as the sum of named parts. Each part is an expression over the document and other tasks. It needs no
//! model.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::ordered_map::entries;
use super::{Task, TaskStep, TemplateContext};
use crate::document::Document;
use crate::engine::Engine;
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::{Output, Score};
use crate::template::Formula;

/// Part of every fingerprint. Increase it when the same formulas lead to another output.
const ALGORITHM: u32 = 1;

/// Most parts of one score, because people read them side by side.
const MOST_PARTS: usize = 32;

/// The largest absolute value of a part. Up to it, values are exact in hundredths.
const LARGEST: f64 = 1e9;

/// Parameters of `score`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSpec {
    /// The parts by name: expressions such as `40 if intent.label == 'buying' else 0`.
    pub parts: ScoreParts,
    /// The maximum of the score. The minimum is 0.
    #[serde(default = "ScoreSpec::usual_maximum")]
    pub maximum: f64,
}

/// Names and expressions, in the order of the pipeline file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScoreParts(pub Vec<(String, String)>);

#[derive(Debug)]
struct ScoreTask {
    signature: Vec<u8>,
    parts: Vec<(String, Formula)>,
    maximum: f64,
}

impl ScoreSpec {
    fn usual_maximum() -> f64 {
        100.0
    }

    /// The names of the parts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn model(&self) -> Option<&str> {
        None
    }

    pub(super) fn problems(&self, _base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        if self.parts.0.is_empty() || self.parts.0.len() > MOST_PARTS {
            problems.push(format!("has {} `parts`: write 1 to {MOST_PARTS}", self.parts.0.len()));
        }
        if !(self.maximum > 0.0 && self.maximum <= LARGEST) {
            problems.push(format!("has `maximum: {}`: write a number above 0 and up to {LARGEST}", self.maximum));
        }
        for (name, formula) in &self.parts.0 {
            let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 63 || !name.chars().all(is_part) {
                problems.push(format!("has a part `{name}`: use lower-case letters, digits and `_`, starting with a letter"));
            }
            if let Err(error) = Formula::new(formula) {
                problems.push(format!("has a bad part `{name}`: {error}"));
            }
        }
        problems
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        let formulas = self.parts.0.iter().filter_map(|(_, formula)| Formula::new(formula).ok());
        formulas.flat_map(|formula| formula.variables().to_vec()).collect()
    }

    pub(super) async fn build(&self, name: &str, _engine: &Engine, _base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let formula = |(part, source): &(String, String)| match Formula::new(source) {
            Ok(formula) => Ok((part.clone(), formula)),
            Err(error) => Err(anyhow::anyhow!("task `{name}` has a bad part `{part}`: {error}")),
        };
        let parts = self.parts.0.iter().map(formula).collect::<anyhow::Result<_>>()?;
        Ok(Arc::new(ScoreTask { signature: serde_json::to_vec(&("score", ALGORITHM, self))?, parts, maximum: self.maximum }))
    }
}

impl Task for ScoreTask {
    fn kind(&self) -> &'static str {
        "score"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let values = upstream.context();
        let mut parts = Vec::with_capacity(self.parts.len());
        for (name, formula) in &self.parts {
            let named = |poison: Poison| Poison { reason: format!("part `{name}`: {}", poison.reason), ..poison };
            let value = formula.number(&values).map_err(named)?;
            if value.abs() > LARGEST {
                let reason = format!("part `{name}`: `{}` gives {value}, which is beyond {LARGEST}", formula.source());
                return Err(Failure::poison(FailureClass::WrongType, reason));
            }
            parts.push((name.clone(), value, formula.source().to_owned()));
        }
        Ok(TaskStep::Ready(Output::Score(Score::of(parts, self.maximum))))
    }
}

impl<'de> Deserialize<'de> for ScoreParts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        entries(deserializer, "part", "a map from the name of a part to its expression").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Map;

    use super::*;
    use crate::config::EngineConfig;
    use crate::outcome::{Classification, LabelScore};

    fn spec(text: &str) -> ScoreSpec {
        crate::yaml::read(text).expect("the test's own parameters can be read")
    }

    async fn scored(text: &str) -> Result<Score, Failure> {
        let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).expect("an engine without models starts");
        let task = spec(text).build("score", &engine, Path::new("")).await.expect("the test's own parameters are sound");
        let (metadata, fields) = (Map::new(), Map::new());
        let document = Document { id: "d".into(), version: 1, text: "five".into(), metadata, fields };
        let mut upstream = TemplateContext::of(&document, None);
        let scores = vec![LabelScore { label: "buying".into(), probability: 0.5 }];
        upstream.insert(&"intent".into(), &Output::Classification(Classification { labels: vec!["buying".into()], scores }));
        match task.prepare(&document, &upstream)? {
            TaskStep::Ready(Output::Score(score)) => Ok(score),
            other => panic!("no score: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_score_is_the_sum_of_its_parts_in_the_order_of_the_file() {
        let score = scored(
            "parts: { length: document.characters, intent: \"40 * intent.confidence if intent.label == 'buying' else 0\" }",
        );
        let score = score.await.unwrap();
        let parts: Vec<_> = score.parts.iter().map(|part| (part.name.as_str(), part.value)).collect();
        assert_eq!((score.value, parts), (24.0, vec![("length", 4.0), ("intent", 20.0)]));
        let output = Output::Score(score);
        assert_eq!(Output::restore(output.kind(), None, output.fields(), Vec::new()), Some(output));
    }

    #[tokio::test]
    async fn a_part_that_is_no_number_is_poison_that_names_it() {
        let refused = scored("parts: { first: '1', second: intent.label }").await.unwrap_err().to_string();
        assert!(refused.starts_with("wrong_type: part `second`: `intent.label` is a string"), "{refused}");
        let refused = scored("parts: { huge: '10 ** 12' }").await.unwrap_err().to_string();
        assert!(refused.contains("part `huge`"), "{refused}");
    }

    #[test]
    fn what_cannot_be_a_score_is_said_before_any_document() {
        let problems = |text: &str| spec(text).problems(Path::new("")).join("; ");
        assert_eq!(problems("parts: { a: '1' }"), "");
        assert!(problems("parts: {}").contains("has 0 `parts`"));
        assert!(problems("{ parts: { a: '1' }, maximum: 0 }").contains("`maximum: 0`"));
        assert!(problems("parts: { A-b: '1' }").contains("part `A-b`"));
        assert!(problems("parts: { a: '1 +' }").contains("bad part `a`"));
        assert!(problems("parts: { a: 'x | nothing' }").contains("unknown filter `nothing`"));
        assert!(
            crate::yaml::read::<ScoreSpec>("parts: { a: '1' }\nmaxmum: 3")
                .unwrap_err()
                .message
                .contains("did you mean `maximum`")
        );
        assert_eq!(spec("parts: { b: '1', a: document.characters }").reads(Path::new("")), ["document.characters"]);
    }
}
