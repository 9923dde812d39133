//! Tasks: what a pipeline computes for a document. A task has no side effects: it states what a model must do and turns the model's
//! answer into an output.
//!
//! To add a kind, add a file here with its parameters and its [`Task`], and one line in `kinds!`.

mod abstractive;
mod answer;
mod answer_generator;
mod answer_object;
pub mod calibration;
mod checks;
mod claim_judge;
mod claims;
mod classify;
mod compose;
mod context_budget;
mod descriptions;
mod embed;
mod evidence;
mod extract;
mod folded_text;
mod for_each;
mod grounding;
mod interact;
mod json_spans;
mod label_scorer;
mod labels;
pub mod linear_head;
mod ordered_map;
mod prompt_file;
mod quotations;
mod render;
mod retrieve;
mod score;
mod sentences;
mod statements;
mod summarize;
mod task_prompt;
mod template_context;
pub mod training;
mod units;
mod words;
mod write;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

pub use answer::AnswerSpec;
pub use answer_generator::{AnswerGenerator, ClaimedSentence, MOST_PASSAGES};
pub use checks::{CheckedFields, Checks};
pub use claim_judge::{Grounding, GroundingRules};
pub use classify::ClassifySpec;
pub use compose::{ComposeSpec, Composer};
pub use embed::{ChunkSpec, EmbedSpec};
pub use extract::ExtractSpec;
pub use folded_text::folded;
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
use crate::engine::{Completion, Engine, ModelInfo, Prediction, Request};
use crate::failure::{Failure, FailureClass, Poison, Transient};
use crate::outcome::Output;
use crate::prompt::PromptVersion;

/// One task of a pipeline, ready to process documents.
pub trait Task: Send + Sync {
    /// The kind as written in pipeline files.
    fn kind(&self) -> &'static str;

    /// All parameters that affect the output, except the model's revision. They are part of the fingerprint of each result.
    fn signature(&self) -> &[u8];

    /// Loads what the task needs from its model before it can interpret answers. Tasks whose model runs on a server do this here
    /// and not when they are built, because the server may be down at that time. Called before each round of requests.
    fn initialize<'a>(&'a self, _engine: &'a Engine) -> BoxFuture<'a, Result<(), Transient>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What the model must do for `document`, or the output itself if no model is needed.
    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure>;

    /// Turns the answers to the last requests, in request order, into the output or into further requests. Tasks that send no requests
    /// keep this default, which is an error.
    fn interpret(
        &self,
        _document: &Document,
        _upstream: &TemplateContext,
        _predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        Err(Failure::poison(FailureClass::Model, "a model answered a task that needs no model"))
    }

    /// Like [`interpret`](Self::interpret), after further requests. `earlier` holds the predictions of the rounds before, the first
    /// round first. A request that failed is an error among `answers`; by default, so is the output.
    fn interpret_again(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        _earlier: &[Vec<Prediction>],
        answers: Vec<Result<Prediction, Poison>>,
    ) -> Result<TaskStep, Failure> {
        self.interpret(document, upstream, answers.into_iter().collect::<Result<_, Poison>>()?)
    }

    /// What decides the output besides the signature, the first requests and the text. It is part of the fingerprint of each
    /// result.
    fn further_inputs(&self, _document: &Document, _upstream: &TemplateContext) -> Vec<u8> {
        Vec::new()
    }

    /// The prompt that produces the output, if there is one.
    fn prompt(&self) -> Option<&PromptVersion> {
        None
    }
}

/// What a task does next.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskStep {
    /// Ask a model; there is at least one request.
    Ask(Vec<Request>),
    /// Search stored documents; the passages found are the output.
    Find(PassageQuery),
    /// Finished with this output.
    Ready(Output),
}

/// A search for passages in stored documents.
#[derive(Debug, Clone, PartialEq)]
pub struct PassageQuery {
    /// The pipeline whose documents are searched.
    pub pipeline: String,
    pub query: String,
    /// The embedding task whose vectors are compared, and its model. `None` searches by words only.
    pub embedding: Option<(String, String)>,
    /// Maximum number of passages.
    pub limit: usize,
    /// Minimum similarity of a passage that does not contain all words of the query.
    pub min_similarity: Option<f64>,
}

/// The only prediction, for tasks that send one request.
fn only(predictions: Vec<Prediction>) -> Result<Prediction, Failure> {
    let [prediction] = <[_; 1]>::try_from(predictions).map_err(|all| {
        Failure::poison(FailureClass::Model, format!("the model got one request, but gave {} answers", all.len()))
    })?;
    Ok(prediction)
}

fn completion(prediction: Prediction) -> Result<Completion, Failure> {
    match prediction {
        Prediction::Completion(completion) => Ok(completion),
        _ => Err(Failure::poison(FailureClass::Model, "the model did not answer with a completion")),
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $variant:ident($spec:ty),)*) => {
        /// The parameters of one task, by kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum TaskSpec { $($(#[$doc])* $variant($spec),)* }

        /// A task as written in a pipeline file: one kind with its parameters, and when it applies.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct TaskEntry {
            $($(#[$doc])* pub $kind: Option<$spec>,)*
            /// A condition on the document and on the outputs of other tasks.
            pub when: Option<String>,
            /// Tasks that must have an output before this one runs.
            pub needs: Vec<String>,
        }

        impl TaskSpec {
            /// The names of all kinds.
            pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

            /// The kind, as pipeline files name it.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($kind),)* }
            }

            /// The model that the task uses.
            pub fn model(&self) -> Option<&str> {
                match self { $(Self::$variant(spec) => spec.model(),)* }
            }

            /// Problems in the parameters and in the files that they name, found without the rest of the pipeline. Paths are
            /// relative to `base_dir`.
            pub fn problems(&self, base_dir: &Path) -> Vec<String> {
                match self { $(Self::$variant(spec) => spec.problems(base_dir),)* }
            }

            /// The names that the templates of the task read: `document.…` and other tasks. Paths are relative to `base_dir`.
            pub fn reads(&self, base_dir: &Path) -> Vec<String> {
                match self { $(Self::$variant(spec) => spec.reads(base_dir),)* }
            }
        }

        impl TaskEntry {
            /// The kind and parameters of the entry.
            pub fn spec(self) -> Result<TaskSpec, String> {
                let mut found: Vec<TaskSpec> = Vec::new();
                $(found.extend(self.$kind.map(TaskSpec::$variant));)*
                let known = TaskSpec::KINDS.join(", ");
                match (found.pop(), found.pop()) {
                    (Some(spec), None) => Ok(spec),
                    (Some(one), Some(other)) => {
                        Err(format!("is both `{}` and `{}`: write them as two tasks", other.kind(), one.kind()))
                    }
                    (None, _) => Err(format!("has no kind: write one of {known} with its parameters")),
                }
            }
        }

        /// Builds the task of `spec`. Label descriptions are encoded here, once. Paths are relative to `base_dir`.
        pub async fn build(name: &str, spec: &TaskSpec, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
            match spec { $(TaskSpec::$variant(spec) => spec.build(name, engine, base_dir).await,)* }
        }
    };
}

kinds! {
    classify: Classify(ClassifySpec),
    /// Embeds text as vectors.
    embed: Embed(EmbedSpec),
    summarize: Summarize(SummarizeSpec),
    /// Renders a text template.
    render: Render(RenderSpec),
    /// Extracts typed fields with evidence.
    extract: Extract(ExtractSpec),
    /// Writes text with a model and a prompt.
    write: Write(WriteSpec),
    /// Retrieves passages of other documents.
    retrieve: Retrieve(RetrieveSpec),
    /// Answers a question from retrieved passages.
    answer: Answer(AnswerSpec),
    /// Records what a user did with a document.
    interact: Interact(InteractSpec),
    /// Composes an object with a template and checks it.
    compose: Compose(ComposeSpec),
    /// Computes a number as the sum of named parts.
    score: Score(ScoreSpec),
}

impl TaskSpec {
    /// Tasks that the template reads but that may have no output.
    pub fn optional(&self) -> &[String] {
        match self {
            Self::Compose(spec) => &spec.optional,
            _ => &[],
        }
    }

    /// The fields that the schema of the task's objects allows, in schema order. Empty without a schema. Paths are relative to
    /// `base_dir`.
    pub fn fields(&self, base_dir: &Path) -> Vec<String> {
        self.properties(base_dir).into_iter().map(|(name, _)| name).collect()
    }

    /// The values that the output can have, where they are listed: labels under the empty name, and for each field with an `enum`
    /// the values that it or its items can have. Paths are relative to `base_dir`.
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
