//! What can be done with a document. A task is pure: it says what a model must do, and makes an output of the answer.
//!
//! To add a kind: a file here with its parameters and its [`Task`], and one line in `kinds!`.

mod abstractive;
mod answer;
mod answer_generator;
pub mod calibration;
mod checks;
mod classify;
mod compose;
mod context_budget;
mod descriptions;
mod embed;
mod evidence;
mod extract;
mod for_each;
mod grounding;
mod interact;
mod json_spans;
mod label_scorer;
mod labels;
pub mod linear_head;
mod prompt_file;
mod render;
mod retrieve;
mod score;
mod sentences;
mod summarize;
mod task_prompt;
mod template_context;
pub mod training;
mod write;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

pub use answer::AnswerSpec;
pub use answer_generator::{AnswerGenerator, ClaimedSentence, MOST_PASSAGES};
pub use checks::{CheckedFields, Checks, folded};
pub use classify::ClassifySpec;
pub use compose::{ComposeSpec, Composer};
pub use context_budget::Splitter;
pub use embed::{ChunkSpec, EmbedSpec};
pub use extract::ExtractSpec;
pub use grounding::{Dropped, GroundedAnswer, Sentence};
pub use interact::InteractSpec;
pub use labels::Labels;
pub use prompt_file::SchemaSource;
pub use render::RenderSpec;
pub use retrieve::RetrieveSpec;
pub use score::ScoreSpec;
pub use summarize::SummarizeSpec;
pub use template_context::TemplateContext;
pub use write::WriteSpec;

use crate::document::Document;
use crate::engine::{Engine, ModelInfo, Prediction, Request};
use crate::failure::{Failure, FailureClass, Transient};
use crate::outcome::Output;
use crate::prompt::PromptVersion;

/// One task of a pipeline, ready for documents.
pub trait Task: Send + Sync {
    /// The kind, as pipeline files name it.
    fn kind(&self) -> &'static str;

    /// Every parameter that decides the output, save the model's revision; part of each result's fingerprint.
    fn signature(&self) -> &[u8];

    /// Learns what the task must know of its model before the first answer is interpreted, where only a server can tell: it may be down
    /// when the task is built. Called before each round of requests.
    fn initialize<'a>(&'a self, _engine: &'a Engine) -> BoxFuture<'a, Result<(), Transient>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What the model must do for `document`, or the output itself where no model is needed.
    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure>;

    /// What follows from the answers to the last requests, in their order: the output, or further requests.
    fn interpret(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure>;

    /// The prompt that the output comes from, where there is one.
    fn prompt(&self) -> Option<&PromptVersion> {
        None
    }
}

/// What a task needs for its output.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskStep {
    /// The answers of a model, at least one.
    Ask(Vec<Request>),
    /// Passages of stored documents, which are the output.
    Find(PassageQuery),
    /// Nothing more.
    Ready(Output),
}

/// Passages to look for among stored documents.
#[derive(Debug, Clone, PartialEq)]
pub struct PassageQuery {
    /// The pipeline whose documents they are of.
    pub pipeline: String,
    /// What they should be about.
    pub query: String,
    /// The embedding task whose vectors are compared, and its model; only words are where there is none.
    pub embedding: Option<(String, String)>,
    /// Most passages.
    pub limit: usize,
    /// The least similarity of a passage that does not have all words of the query.
    pub min_similarity: Option<f64>,
}

/// The only prediction, for tasks that ask once.
fn only(predictions: Vec<Prediction>) -> Result<Prediction, Failure> {
    let [prediction] = <[_; 1]>::try_from(predictions).map_err(|all| {
        Failure::poison(FailureClass::Model, format!("the model was asked once, but gave {} answers", all.len()))
    })?;
    Ok(prediction)
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $variant:ident($spec:ty),)*) => {
        /// The parameters of one task.
        #[derive(Debug, Clone, PartialEq)]
        pub enum TaskSpec { $($(#[$doc])* $variant($spec),)* }

        /// A task as it stands in a pipeline file: one kind with its parameters, and when it applies.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct TaskEntry {
            $($(#[$doc])* pub $kind: Option<$spec>,)*
            /// A condition on the document and on the outputs of other tasks.
            pub when: Option<String>,
            /// Tasks whose output must be there before this one.
            pub needs: Vec<String>,
        }

        impl TaskSpec {
            /// The kinds that exist.
            pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

            /// The kind, as pipeline files name it.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($kind),)* }
            }

            /// The model that the task asks.
            pub fn model(&self) -> Option<&str> {
                match self { $(Self::$variant(spec) => spec.model(),)* }
            }

            /// What is wrong with the parameters and the files that they name, as far as they alone can tell. Paths are relative
            /// to `base_dir`.
            pub fn problems(&self, base_dir: &Path) -> Vec<String> {
                match self { $(Self::$variant(spec) => spec.problems(base_dir),)* }
            }

            /// The names that the task's templates read: `document.…` and other tasks. Paths are relative to `base_dir`.
            pub fn reads(&self, base_dir: &Path) -> Vec<String> {
                match self { $(Self::$variant(spec) => spec.reads(base_dir),)* }
            }
        }

        impl TaskEntry {
            /// The kind that the entry names.
            pub fn spec(self) -> Result<TaskSpec, String> {
                let mut found: Vec<TaskSpec> = Vec::new();
                $(found.extend(self.$kind.map(TaskSpec::$variant));)*
                let known = TaskSpec::KINDS.join(", ");
                match (found.pop(), found.pop()) {
                    (Some(spec), None) => Ok(spec),
                    (Some(one), Some(other)) => {
                        Err(format!("is both `{}` and `{}`: make two tasks of it", other.kind(), one.kind()))
                    }
                    (None, _) => Err(format!("says no kind: write one of {known} with its parameters")),
                }
            }
        }

        /// Makes the task of `spec` ready. Label descriptions are encoded here, once; paths are relative to `base_dir`.
        pub async fn build(name: &str, spec: &TaskSpec, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
            match spec { $(TaskSpec::$variant(spec) => spec.build(name, engine, base_dir).await,)* }
        }
    };
}

kinds! {
    /// Labels.
    classify: Classify(ClassifySpec),
    /// Vectors.
    embed: Embed(EmbedSpec),
    /// The sentences that say most.
    summarize: Summarize(SummarizeSpec),
    /// Text made by a template.
    render: Render(RenderSpec),
    /// Typed fields with their evidence.
    extract: Extract(ExtractSpec),
    /// Text that a model writes after a prompt.
    write: Write(WriteSpec),
    /// Passages of other documents.
    retrieve: Retrieve(RetrieveSpec),
    /// A question answered from such passages.
    answer: Answer(AnswerSpec),
    /// What somebody did with a document.
    interact: Interact(InteractSpec),
    /// An object that a template puts together, gone over by checks.
    compose: Compose(ComposeSpec),
    /// A number with the parts that it is the sum of.
    score: Score(ScoreSpec),
}

impl TaskSpec {
    /// Tasks that the task's own template reads, but whose output need not be there.
    pub fn optional(&self) -> &[String] {
        match self {
            Self::Compose(spec) => &spec.optional,
            _ => &[],
        }
    }

    /// The fields that the task's objects may have by their schema, in its order; none where there is no schema. Paths are relative
    /// to `base_dir`.
    pub fn fields(&self, base_dir: &Path) -> Vec<String> {
        self.properties(base_dir).into_iter().map(|(name, _)| name).collect()
    }

    /// The values that the output can have, where they are given: labels under the empty name, and by the name of a field what its
    /// schema lets it or its items be. Paths are relative to `base_dir`.
    pub fn choices(&self, base_dir: &Path) -> Vec<(String, Vec<String>)> {
        if let Self::Classify(spec) = self {
            let labels = spec.labels.iter().map(|labels| labels.0.iter().map(|(label, _)| label.clone()).collect());
            return labels.map(|labels: Vec<String>| (String::new(), labels)).collect();
        }
        let spelled = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let choices = |(name, schema): (String, Value)| {
            let given = schema.get("enum").or_else(|| schema.get("items")?.get("enum"))?.as_array()?;
            Some((name, given.iter().map(spelled).collect()))
        };
        self.properties(base_dir).into_iter().filter_map(choices).collect()
    }

    fn properties(&self, base_dir: &Path) -> Vec<(String, Value)> {
        let schema = match self {
            Self::Extract(spec) => spec.read(base_dir).ok().map(|(_, schema)| schema),
            Self::Write(spec) => spec.read(base_dir).ok().and_then(|file| file.schema),
            Self::Compose(spec) => spec.schema(base_dir).ok(),
            _ => None,
        };
        let properties = schema.as_ref().and_then(|schema| schema.value().get("properties")?.as_object());
        let owned = |(name, schema): (&String, &Value)| (name.clone(), schema.clone());
        properties.into_iter().flatten().map(owned).collect()
    }
}

fn model<'a>(engine: &'a Engine, name: &str) -> anyhow::Result<&'a ModelInfo> {
    engine.model(name).ok_or_else(|| {
        let known: Vec<&str> = engine.models().map(|model| &*model.name).collect();
        let known = if known.is_empty() { "none is configured".to_owned() } else { format!("known: {}", known.join(", ")) };
        anyhow::anyhow!("unknown model `{name}`; {known}")
    })
}

fn encoder<'a>(engine: &'a Engine, name: &str, kind: &str) -> anyhow::Result<&'a ModelInfo> {
    let model = model(engine, name)?;
    if model.kind != crate::engine::ModelKind::Encoder {
        anyhow::bail!("model `{name}` is a {}, but `{kind}` needs a sentence encoder: name another model", model.kind.as_str());
    }
    Ok(model)
}

#[cfg(test)]
mod tests;
