//! Answers to questions, from the documents of a pipeline only.
//!
//! | step | if it fails |
//! |---|---|
//! | find the nearest passages, by meaning and by words | none is near enough: not found, and no model is called |
//! | a generator writes sentences, each with the passages that support it | it writes none: not found |
//! | check each sentence against the passages that it cites | citations and sentences without support are dropped |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Mode, SearchConfig, SearchError, SearchRequest, SearchResult, Searcher, checked_query};
use crate::did_you_mean::suggestion;
use crate::engine::ModelKind;
use crate::failure::Failure;
use crate::pipeline::definition::AnswerSettings;
use crate::task::{AnswerGenerator, Dropped, GroundedAnswer, Sentence};

/// A question about a pipeline's documents.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    pub question: String,
    /// The pipeline; may be omitted if there is only one.
    pub pipeline: Option<String>,
    /// The generator to use instead of the pipeline's.
    pub model: Option<String>,
}

/// An answer, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AnswerResponse {
    pub pipeline: String,
    pub question: String,
    /// Whether the documents answer it.
    pub found: bool,
    /// The sentences of the answer.
    pub sentences: Vec<Sentence>,
    /// Sentences and citations of the model without support in the passages.
    pub dropped: Vec<Dropped>,
    /// Why there is no answer.
    pub reason: Option<String>,
    /// The passages that were found, by number.
    pub passages: Vec<CitedPassage>,
    /// The model that was called, if one was.
    pub model: Option<String>,
    /// The version of the prompt.
    pub prompt_version: Option<String>,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Tokens that the model generated.
    pub generated_tokens: u32,
    /// Device time in milliseconds.
    pub device_milliseconds: f64,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CitedPassage {
    /// The number of the passage, from 1.
    pub number: usize,
    pub document_id: String,
    /// The position of its first byte in the document's text.
    pub start: usize,
    /// The position after its last byte.
    pub end: usize,
    pub text: String,
    /// The cosine similarity to the question, if vectors were compared.
    pub similarity: Option<f64>,
}

/// Which models a request may name. A model may be a server that another tenant pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelChoice {
    /// Only models that the pipeline's file names. Requests over HTTP are limited to these.
    Named,
    /// All models of the configuration. The command line may use these.
    All,
}

impl Searcher {
    /// Answers a question from the documents.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn answer(&self, request: &AnswerRequest, choice: ModelChoice) -> Result<AnswerResponse, SearchError> {
        let pipeline = self.pipeline(request.pipeline.as_deref())?;
        let text = checked_query(&request.question).map_err(|error| match error {
            SearchError::Invalid(message) => SearchError::Invalid(message.replace("`query`", "`question`")),
            other => other,
        })?;
        let settings = self.settings(pipeline, request.model.as_deref(), choice)?;
        let prompt = settings.prompt.as_ref().map(|prompt| pipeline.base_dir.join(prompt));
        let generator = AnswerGenerator::new(&self.engine, &settings.model, prompt.as_deref())
            .map_err(|e| SearchError::Invalid(format!("{e:#}")))?;
        let search = SearchRequest {
            query: text.to_owned(),
            pipeline: Some(pipeline.name.clone()),
            mode: Mode::Hybrid,
            limit: Some(settings.passages),
            ..SearchRequest::default()
        };
        let hits = self.search(&search).await?.hits;
        let passages: Vec<CitedPassage> = hits.iter().enumerate().map(|(index, hit)| CitedPassage::of(index + 1, hit)).collect();
        let mut response = AnswerResponse {
            pipeline: pipeline.name.clone(),
            question: text.to_owned(),
            found: false,
            sentences: Vec::new(),
            dropped: Vec::new(),
            reason: weak_match(&hits, settings.min_similarity),
            passages,
            model: None,
            prompt_version: None,
            tokens: 0,
            generated_tokens: 0,
            device_milliseconds: 0.0,
        };
        if response.reason.is_some() {
            return Ok(response);
        }
        let texts: Vec<&str> = response.passages.iter().map(|passage| passage.text.as_str()).collect();
        let request = generator.request(text, &texts).map_err(|poison| SearchError::Invalid(poison.reason))?;
        let failed = |failure: Failure| match failure {
            Failure::Poison(poison) => {
                SearchError::Invalid(format!("model `{}` cannot answer: {}", settings.model, poison.reason))
            }
            Failure::Transient(transient) => transient.into(),
        };
        let answer = self.engine.run(vec![request]).await?.pop().ok_or_else(|| self.no_response())?.map_err(failed)?;
        response.model = Some(settings.model.clone());
        response.prompt_version = Some(generator.version().version());
        (response.tokens, response.generated_tokens) = (answer.tokens, answer.generated);
        response.device_milliseconds = answer.device_micros as f64 / 1_000.0;
        let (claims, _) = generator.interpret(answer.prediction).map_err(failed)?;
        let grounded = GroundedAnswer::of(claims, &texts);
        response.found = !grounded.sentences.is_empty();
        response.reason = grounded.empty_reason().map(str::to_owned);
        (response.sentences, response.dropped) = (grounded.sentences, grounded.dropped);
        Ok(response)
    }

    /// The model, the prompt and the limits of the answer.
    fn settings(&self, pipeline: &SearchConfig, model: Option<&str>, choice: ModelChoice) -> Result<AnswerSettings, SearchError> {
        let is_allowed = |name: &str| choice == ModelChoice::All || pipeline.models.iter().any(|model| model == name);
        let generators = || {
            let all = self.engine.models().filter(|info| info.kind == ModelKind::Generator).map(|info| &*info.name);
            all.filter(|name| is_allowed(name))
        };
        match (pipeline.answers.as_ref(), model) {
            (_, Some(model)) if !generators().any(|name| name == model) => {
                let known: Vec<&str> = generators().collect();
                let near = suggestion(model, known);
                let message = match choice {
                    ModelChoice::All => format!("there is no generator `{model}`; {near}"),
                    ModelChoice::Named => format!("pipeline `{}` names no generator `{model}`; {near}", pipeline.name),
                };
                Err(SearchError::Invalid(message))
            }
            (Some(settings), model) => {
                Ok(AnswerSettings { model: model.unwrap_or(&settings.model).to_owned(), ..settings.clone() })
            }
            (None, Some(model)) => Ok(AnswerSettings::by(model)),
            (None, None) => Err(SearchError::Invalid(format!(
                "pipeline `{}` has no model for answers; give `model`, or write `answers: {{ model: … }}` into its file",
                pipeline.name
            ))),
        }
    }
}

impl CitedPassage {
    fn of(number: usize, hit: &SearchResult) -> Self {
        let similarity = hit.explanation.vector.as_ref().map(|ranked| ranked.score);
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

/// Why the passages are too far from the question to answer it, if they are.
fn weak_match(hits: &[SearchResult], least: f64) -> Option<String> {
    if hits.is_empty() {
        return Some("not found in the documents: none has a word of the question".into());
    }
    let has_all_words = hits.iter().any(|hit| hit.explanation.text.as_ref().is_some_and(|text| text.all_words == Some(true)));
    let nearest = hits.iter().filter_map(|hit| hit.explanation.vector.as_ref()).map(|vector| vector.score).reduce(f64::max);
    match nearest {
        _ if has_all_words => None,
        Some(nearest) if nearest >= least => None,
        Some(nearest) => Some(format!(
            "not found in the documents: the nearest passage has a similarity of {nearest:.2}, but {least:.2} is required"
        )),
        None => {
            Some("not found in the documents: none has all words of the question, and there are no vectors to compare".into())
        }
    }
}
