//! The `answers` section of a pipeline file: how questions about its documents are answered.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::task::{AnswerGenerator, MOST_PASSAGES};

/// How questions about the documents are answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSettings {
    /// The generator's name in the configuration.
    pub model: String,
    /// A prompt file, relative to the pipeline file, instead of the built-in prompt.
    #[serde(default)]
    pub prompt: Option<PathBuf>,
    /// How many passages the model is given.
    #[serde(default = "AnswerSettings::default_passages")]
    pub passages: usize,
    /// The least similarity of a passage to the question, from 0 to 1, for there to be an answer. Passages of documents that hold
    /// all words of the question are exempt.
    #[serde(default = "AnswerSettings::default_similarity")]
    pub min_similarity: f64,
}

impl AnswerSettings {
    /// The default settings with this model.
    pub fn by(model: &str) -> Self {
        let (passages, min_similarity) = (Self::default_passages(), Self::default_similarity());
        Self { model: model.to_owned(), prompt: None, passages, min_similarity }
    }

    fn default_passages() -> usize {
        6
    }

    fn default_similarity() -> f64 {
        0.3
    }

    /// What is wrong with the section, one sentence each. Paths are relative to `base_dir`.
    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(prompt) = &self.prompt {
            let found = AnswerGenerator::problems(&base_dir.join(prompt));
            problems.extend(found.into_iter().map(|problem| format!("`answers` has {problem}")));
        }
        if !(1..=MOST_PASSAGES).contains(&self.passages) {
            problems.push(format!("`answers.passages` is {}: write 1 to {MOST_PASSAGES}", self.passages));
        }
        if !(0.0..=1.0).contains(&self.min_similarity) {
            problems.push(format!(
                "`answers.min_similarity` is {}: write a number from 0, which accepts any passage, to 1",
                self.min_similarity
            ));
        }
        problems
    }
}
