//! Questions answered from the documents, and from nothing else.
//!
//! | step | and where it fails |
//! |---|---|
//! | the passages nearest to the question, by both lists | nothing near enough: not found, and no model is asked |
//! | a generator writes sentences, each with the passages that say it | it finds none: not found |
//! | each sentence is held against the passages that it names | a citation that does not hold is dropped, and with the last one the sentence |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Mode, SearchConfig, SearchError, SearchRequest, SearchResult, Searcher, checked_text};
use crate::did_you_mean::suggestion;
use crate::engine::ModelKind;
use crate::failure::Failure;
use crate::pipeline::definition::AnswerSettings;
use crate::task::{AnswerGenerator, Dropped, GroundedAnswer, Sentence};

/// A question about a pipeline's documents.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// What is asked.
    pub question: String,
    /// The pipeline; may be left out where there is one.
    pub pipeline: Option<String>,
    /// A generator of the configuration, instead of the one that the pipeline names.
    pub model: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AnswerResponse {
    /// The pipeline that was asked.
    pub pipeline: String,
    /// The question.
    pub question: String,
    /// Whether the documents answer it.
    pub found: bool,
    /// The answer, sentence by sentence.
    pub sentences: Vec<Sentence>,
    /// What the model said and no passage does.
    pub dropped: Vec<Dropped>,
    /// Why there is no answer, where there is none.
    pub reason: Option<String>,
    /// The passages that were found, by their numbers.
    pub passages: Vec<CitedPassage>,
    /// The model that was asked, where one was.
    pub model: Option<String>,
    /// The version of the prompt.
    pub prompt_version: Option<String>,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Tokens that it wrote.
    pub generated_tokens: u32,
    /// Device time in milliseconds.
    pub device_milliseconds: f64,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CitedPassage {
    /// Its number, from 1.
    pub number: usize,
    /// The document.
    pub document_id: String,
    /// The passage's first byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// What it says.
    pub text: String,
    /// The cosine of the angle between it and the question, where vectors were compared.
    pub similarity: Option<f64>,
}

/// The models that a question may name. A server behind one may be another tenant's, under that tenant's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelChoice {
    /// Only those that the pipeline's file names. Callers over HTTP have this choice.
    Named,
    /// All of the configuration. The command line has this choice.
    All,
}

impl Searcher {
    /// Answers the question from the documents.
    ///
    /// # Errors
    /// Where the question cannot be understood, or the database or a model is out of order.
    pub async fn answer(&self, asked: &AnswerRequest, choice: ModelChoice) -> Result<AnswerResponse, SearchError> {
        let (name, pipeline) = self.pipeline(asked.pipeline.as_deref())?;
        let text = checked_text(&asked.question).map_err(|error| match error {
            SearchError::Invalid(message) => SearchError::Invalid(message.replace("`query`", "`question`")),
            other => other,
        })?;
        let answers = self.way((name, pipeline), asked.model.as_deref(), choice)?;
        let prompt = answers.prompt.as_ref().map(|prompt| pipeline.base_dir.join(prompt));
        let answering = AnswerGenerator::new(&self.engine, &answers.model, prompt.as_deref())
            .map_err(|e| SearchError::Invalid(format!("{e:#}")))?;
        let question = SearchRequest {
            query: text.to_owned(),
            pipeline: Some(name.to_owned()),
            mode: Mode::Hybrid,
            limit: Some(answers.passages),
            ..SearchRequest::default()
        };
        let hits = self.search(&question).await?.hits;
        let passages: Vec<CitedPassage> = hits.iter().enumerate().map(|(index, hit)| CitedPassage::of(index + 1, hit)).collect();
        let mut answered = AnswerResponse {
            pipeline: name.to_owned(),
            question: text.to_owned(),
            found: false,
            sentences: Vec::new(),
            dropped: Vec::new(),
            reason: weakness(&hits, answers.min_similarity),
            passages,
            model: None,
            prompt_version: None,
            tokens: 0,
            generated_tokens: 0,
            device_milliseconds: 0.0,
        };
        if answered.reason.is_some() {
            return Ok(answered);
        }
        let texts: Vec<&str> = answered.passages.iter().map(|passage| passage.text.as_str()).collect();
        let request = answering.request(text, &texts).map_err(|poison| SearchError::Invalid(poison.reason))?;
        let failed = |failure: Failure| match failure {
            Failure::Poison(poison) => {
                SearchError::Invalid(format!("model `{}` cannot answer: {}", answers.model, poison.reason))
            }
            Failure::Transient(transient) => transient.into(),
        };
        let answer = self.engine.run(vec![request]).await?.pop().ok_or_else(|| self.silent())?.map_err(failed)?;
        answered.model = Some(answers.model.clone());
        answered.prompt_version = Some(answering.version().version());
        (answered.tokens, answered.generated_tokens) = (answer.tokens, answer.generated);
        answered.device_milliseconds = answer.device_micros as f64 / 1_000.0;
        let (claims, _) = answering.interpret(answer.prediction).map_err(failed)?;
        let held = GroundedAnswer::of(claims, &texts);
        answered.found = !held.sentences.is_empty();
        answered.reason = held.empty_reason().map(str::to_owned);
        (answered.sentences, answered.dropped) = (held.sentences, held.dropped);
        Ok(answered)
    }

    /// By which model and prompt.
    fn way(
        &self,
        (pipeline, known): (&str, &SearchConfig),
        model: Option<&str>,
        choice: ModelChoice,
    ) -> Result<AnswerSettings, SearchError> {
        let is_open = |name: &str| choice == ModelChoice::All || known.models.iter().any(|model| model == name);
        let generators = || {
            let all = self.engine.models().filter(|info| info.kind == ModelKind::Generator).map(|info| &*info.name);
            all.filter(|name| is_open(name))
        };
        match (known.answers.as_ref(), model) {
            (_, Some(model)) if !generators().any(|name| name == model) => {
                let known: Vec<&str> = generators().collect();
                let mend = suggestion(model, known);
                let whose =
                    if choice == ModelChoice::All { "there is no".into() } else { format!("pipeline `{pipeline}` names no") };
                Err(SearchError::Invalid(format!("{whose} generator `{model}`; {mend}")))
            }
            (Some(written), model) => Ok(AnswerSettings { model: model.unwrap_or(&written.model).to_owned(), ..written.clone() }),
            (None, Some(model)) => Ok(AnswerSettings::by(model)),
            (None, None) => Err(SearchError::Invalid(format!(
                "pipeline `{pipeline}` does not say who answers; name a `model`, or write `answers: {{ model: … }}` into its file"
            ))),
        }
    }
}

impl CitedPassage {
    fn of(number: usize, hit: &SearchResult) -> Self {
        let similarity = hit.explanation.vector.as_ref().map(|standing| standing.score);
        let SearchResult { document_id, chunk, .. } = hit;
        Self {
            number,
            document_id: document_id.clone(),
            start: chunk.start,
            end: chunk.end,
            text: chunk.text.clone(),
            similarity,
        }
    }
}

/// Why the passages are too far from the question for anybody to answer it, where they are.
fn weakness(hits: &[SearchResult], least: f64) -> Option<String> {
    if hits.is_empty() {
        return Some("not found in the documents: none holds a word of the question".into());
    }
    let standing = |hit: &SearchResult| hit.explanation.clone();
    let has_all_words = hits.iter().any(|hit| standing(hit).text.is_some_and(|text| text.all_words == Some(true)));
    let nearest = hits.iter().filter_map(|hit| standing(hit).vector).map(|vector| vector.score).reduce(f64::max);
    match nearest {
        _ if has_all_words => None,
        Some(nearest) if nearest >= least => None,
        Some(nearest) => Some(format!(
            "not found in the documents: the nearest passage has a similarity of {nearest:.2}, and {least:.2} is the least"
        )),
        None => {
            Some("not found in the documents: none holds all words of the question, and there are no vectors to compare".into())
        }
    }
}
