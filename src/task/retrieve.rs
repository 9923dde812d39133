//! `retrieve`: finds the passages of other documents that are most similar to a query, as input for later tasks.
//!
//! The result depends on the documents stored at that time. The search runs again for every version of a document, and the passages
//! are stored with the result, so that it shows which passages later tasks used.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer_generator::MOST_PASSAGES;
use super::{PassageQuery, Task, TaskStep, TemplateContext, encoder};
use crate::document::Document;
use crate::engine::Engine;
use crate::failure::{Failure, FailureClass};
use crate::outcome::Output;
use crate::template::{PrintMode, Template, TemplateError};

/// The longest query in bytes, the same limit as in search.
const MAX_QUERY: usize = 8 << 10;

const DEFAULT_LIMIT: usize = 5;

/// Parameters of `retrieve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrieveSpec {
    /// The pipeline whose documents are searched. It belongs to the same tenant.
    pub pipeline: String,
    /// The search text, a template that can read `document` and other tasks by name.
    pub query: String,
    /// The embedding task of that pipeline. Without it, the search uses words only.
    #[serde(default)]
    pub vector: Option<String>,
    /// The model of the embedding task.
    #[serde(default)]
    pub model: Option<String>,
    /// Most passages to return.
    #[serde(default = "default_limit")]
    pub limit: usize,
    /// Leaves out passages with a lower similarity, unless they contain all words of the query.
    #[serde(default)]
    pub min_similarity: Option<f64>,
}

fn default_limit() -> usize {
    DEFAULT_LIMIT
}

struct Retrieve {
    signature: Vec<u8>,
    query: Template,
    spec: RetrieveSpec,
}

impl RetrieveSpec {
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(super) fn problems(&self, _base_dir: &Path) -> Vec<String> {
        let mut problems: Vec<String> =
            self.compile().err().map(|error| format!("has a bad `query`: {error}")).into_iter().collect();
        if !(1..=MOST_PASSAGES).contains(&self.limit) {
            problems.push(format!("has a `limit` of {}: write 1 to {MOST_PASSAGES} passages", self.limit));
        }
        if self.vector.is_some() != self.model.is_some() {
            problems.push("has only one of `vector` and `model`: set the embedding task and its model, or neither".into());
        }
        match self.min_similarity {
            Some(least) if !(-1.0..=1.0).contains(&least) => {
                problems.push(format!("has a `min_similarity` of {least}: write a number from -1 to 1"));
            }
            Some(_) if self.vector.is_none() => {
                problems.push("has a `min_similarity`, but compares no vectors: set `vector` and `model`".into());
            }
            _ => {}
        }
        problems
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        self.compile().map(|template| template.variables().to_vec()).unwrap_or_default()
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, _base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        if let Some(model) = &self.model {
            encoder(engine, model, "retrieve")?;
        }
        let query = self.compile().map_err(|error| anyhow::anyhow!("task `{name}` has a bad `query`: {error}"))?;
        Ok(Arc::new(Retrieve { signature: serde_json::to_vec(&("retrieve", self))?, query, spec: self.clone() }))
    }

    fn compile(&self) -> Result<Template, TemplateError> {
        Template::new(&self.query, PrintMode::Scalars, MAX_QUERY)
    }
}

impl Task for Retrieve {
    fn kind(&self) -> &'static str {
        "retrieve"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let query = self.query.render(&upstream.context())?;
        let query = query.trim();
        if query.is_empty() {
            return Ok(TaskStep::Ready(Output::Passages(Vec::new())));
        }
        if query.contains('\0') {
            return Err(Failure::poison(
                FailureClass::NulCharacter,
                "the query contains U+0000, which stored text cannot contain",
            ));
        }
        let RetrieveSpec { pipeline, vector, model, limit, min_similarity, .. } = self.spec.clone();
        let embedding = vector.zip(model);
        Ok(TaskStep::Find(PassageQuery { pipeline, query: query.to_owned(), embedding, limit, min_similarity }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: &str) -> Vec<String> {
        serde_saphyr::from_str::<RetrieveSpec>(spec).unwrap().problems(Path::new("."))
    }

    #[test]
    fn what_cannot_be_looked_for_is_said() {
        assert_eq!(problems("{ pipeline: notes, query: '{{ document.text }}' }"), [""; 0]);
        let wrong = problems("{ pipeline: notes, query: '{{ document.text', vector: v, limit: 17, min_similarity: 2 }");
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        let wordy = problems("{ pipeline: notes, query: x, min_similarity: 0.3 }");
        assert_eq!(wordy, ["has a `min_similarity`, but compares no vectors: set `vector` and `model`"]);
    }
}
