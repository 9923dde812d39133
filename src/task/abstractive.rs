//! `summarize` with `mode: abstractive`: a generator writes the summary in its own words.
//!
//! | the text | rounds |
//! |---|---|
//! | fits into the context together with the prompt | one request |
//! | is longer | each piece is summarized; the summaries are joined into as few groups as fit and summarized again, until one is left |
//!
//! Every round renders the same prompt, with the piece or the joined summaries as the document text.

use std::path::{Path, PathBuf};

use minijinja::Value;
use serde_json::{Map, json};

use super::context_budget::ContextBudget;
use super::prompt_file::PromptFile;
use super::task_prompt::{PromptSettings, TaskPrompt, generator, names_read};
use super::write::refuse_nul;
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Engine, Finish, Prediction};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Confidence, Output, Summary, SummaryMode};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same text gets another summary.
const ALGORITHM: u32 = 1;

/// Default limit of a summary in tokens: about five sentences.
const DEFAULT_MAX_TOKENS: usize = 192;

/// Most pieces of one document. They take at most eight rounds, which bounds the model time of one document.
const MOST_PIECES: usize = 128;

/// Tokens that neighbouring pieces share, so that a sentence at a boundary is complete in one of them.
const OVERLAP: usize = 32;

/// The separator between joined summaries, and its number of tokens.
const JOINT: &str = "\n\n";
const JOINT_TOKENS: usize = 2;

const SYSTEM: &str = "You summarize texts. Write plain prose in the language of the text, without an introduction. \
Say only what the text says.";

const BODY: &str = "Summarize the following text in at most {{ sentences }} {{ 'sentence' if sentences == 1 else 'sentences' }}.

{{ document.text }}";

/// The parameters of `summarize` for an abstractive summary.
#[derive(Debug, Clone, Copy)]
pub(super) struct AbstractiveSpec<'a> {
    pub model: &'a str,
    pub sentences: usize,
    pub max_tokens: Option<usize>,
    pub prompt: Option<&'a PathBuf>,
}

#[derive(Debug)]
pub(super) struct Abstractive {
    signature: Vec<u8>,
    prompt: TaskPrompt,
    budget: ContextBudget,
}

impl AbstractiveSpec<'_> {
    pub(super) fn problems(self, base_dir: &Path) -> Vec<String> {
        let mut problems: Vec<String> = self.read(base_dir).err().into_iter().collect();
        if problems.is_empty() && !self.reads(base_dir).iter().any(|name| name == "document.text" || name == "document") {
            problems.push("has a prompt that does not read `document.text`, which contains the pieces of a long text".into());
        }
        problems.extend(
            (self.max_tokens == Some(0))
                .then(|| "has `max_tokens: 0`, which allows summaries of 0 tokens: write a positive number".into()),
        );
        problems
    }

    pub(super) fn reads(self, base_dir: &Path) -> Vec<String> {
        match self.prompt {
            Some(prompt) => names_read(&base_dir.join(prompt), &["sentences"]).unwrap_or_default(),
            None => vec!["document.text".into()],
        }
    }

    pub(super) fn build(self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Abstractive> {
        let model = generator(engine, self.model, "summarize` with `mode: abstractive")?;
        let file = self.read(base_dir).map_err(anyhow::Error::msg)?;
        let settings = PromptSettings {
            max_tokens: self.max_tokens,
            default_max_tokens: DEFAULT_MAX_TOKENS,
            parameters: Map::from_iter([("sentences".to_owned(), json!(self.sentences))]),
            constants: vec![("sentences", Value::from(self.sentences))],
            ..PromptSettings::new(name, model)
        };
        Abstractive::new(TaskPrompt::new(file, settings)?, ContextBudget::of(engine, model)?)
    }

    fn read(self, base_dir: &Path) -> Result<PromptFile, String> {
        let Some(prompt) = self.prompt else {
            return Ok(PromptFile::built_in("built-in/summarize", SYSTEM, BODY));
        };
        let file = PromptFile::read(&base_dir.join(prompt)).map_err(|fault| format!("has a bad prompt: {fault}"))?;
        match file.schema {
            Some(_) => Err(format!("has a prompt with a schema, `{}`, but a summary is plain text: use `write`", file.name)),
            None => Ok(file),
        }
    }
}

impl Abstractive {
    fn new(prompt: TaskPrompt, budget: ContextBudget) -> anyhow::Result<Self> {
        let signature = serde_json::to_vec(&("summarize", "abstractive", ALGORITHM, prompt.version.version()))?;
        Ok(Self { signature, prompt, budget })
    }

    /// One request per text.
    fn ask<'a>(&self, upstream: &TemplateContext, texts: impl IntoIterator<Item = &'a str>) -> Result<TaskStep, Failure> {
        let mut requests = Vec::new();
        for text in texts {
            let prompt = self.prompt.render(&upstream.with_text(text), Vec::new())?;
            requests.push(self.prompt.request(prompt));
        }
        Ok(TaskStep::Ask(requests))
    }

    /// Tokens of text that fit. Fails if two summaries do not fit, because then a round would not reduce their number.
    fn tokens_for_joining(&self, upstream: &TemplateContext) -> Result<usize, Failure> {
        let available = self.budget.tokens(&self.prompt, upstream)?;
        let least = 2 * self.prompt.max_tokens + JOINT_TOKENS;
        if available < least {
            let reason = format!(
                "the text is longer than the context, and the prompt leaves {available} tokens for it, fewer than the {least} of two \
                 summaries: reduce `max_tokens` or use a model with a longer context"
            );
            return Err(Failure::poison(FailureClass::TooLong, reason));
        }
        Ok(available)
    }
}

impl Task for Abstractive {
    fn kind(&self) -> &'static str {
        "summarize"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prompt(&self) -> Option<&PromptVersion> {
        Some(&self.prompt.version)
    }

    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let text = &document.text;
        if self.budget.fits(text, self.budget.tokens(&self.prompt, upstream)?)? {
            return self.ask(upstream, [&**text]);
        }
        let available = self.tokens_for_joining(upstream)?;
        let pieces = self.budget.split(text, available, OVERLAP.min(available / 4))?;
        if pieces.len() > MOST_PIECES {
            let reason = format!(
                "the text has {} pieces of {available} tokens, but at most {MOST_PIECES} are summarized: use a model with a longer \
                 context, or skip such documents with `when`",
                pieces.len()
            );
            return Err(Failure::poison(FailureClass::TooLong, reason));
        }
        let piece = |span: &crate::outcome::Span| {
            let outside = || Failure::poison(FailureClass::Model, "the engine returned a piece outside the text");
            text.get(span.start..span.end).ok_or_else(outside)
        };
        let pieces: Vec<&str> = pieces.iter().map(piece).collect::<Result<_, _>>()?;
        self.ask(upstream, pieces)
    }

    fn interpret(
        &self,
        _document: &Document,
        upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let mut summaries = Vec::with_capacity(predictions.len());
        let mut confidence = None;
        for prediction in predictions {
            let completion = completion(prediction)?;
            let text = completion.text.trim();
            refuse_nul("the summary", text)?;
            if text.is_empty() {
                return Err(Failure::poison(FailureClass::Model, "the model wrote an empty summary"));
            }
            confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
            summaries.push(whole(text, completion.finish).to_owned());
        }
        // Several summaries belong to pieces. A single one belongs to the whole text.
        if let [text] = summaries.as_slice() {
            let summary = Summary { text: text.clone(), spans: Vec::new(), mode: SummaryMode::Abstractive, confidence };
            return Ok(TaskStep::Ready(Output::Summary(summary)));
        }
        let available = self.tokens_for_joining(upstream)?;
        let tokens = summaries.iter().map(|text| self.budget.count(text)).collect::<Result<Vec<_>, _>>()?;
        let mut rest = summaries.as_slice();
        let mut joined = Vec::new();
        for size in groups(&tokens, available) {
            let (group, others) = rest.split_at(size);
            joined.push(group.join(JOINT));
            rest = others;
        }
        self.ask(upstream, joined.iter().map(String::as_str))
    }
}

/// The text up to its last complete sentence, if the answer was truncated and has one.
fn whole(text: &str, finish: Finish) -> &str {
    if finish == Finish::Stop {
        return text;
    }
    let sentences = super::sentences::sentences(text, usize::MAX);
    match sentences.split_last() {
        Some((last, [.., _])) => text[..last.start].trim_end(),
        _ => text,
    }
}

/// How many summaries, in order, are joined into each text of the next round: as many as fit, but at least two if another follows.
/// So each round leaves at most half of them.
fn groups(tokens: &[usize], available: usize) -> Vec<usize> {
    let mut groups = Vec::new();
    let (mut size, mut filled) = (0, 0);
    for count in tokens {
        let more = count + if size == 0 { 0 } else { JOINT_TOKENS };
        if size >= 2 && filled + more > available {
            groups.push(size);
            (size, filled) = (1, *count);
        } else {
            (size, filled) = (size + 1, filled + more);
        }
    }
    if size > 0 {
        groups.push(size);
    }
    groups
}

#[cfg(test)]
mod tests;
