//! `summarize` with `mode: abstractive`: a generator writes the summary in its own words.
//!
//! | the text | rounds |
//! |---|---|
//! | fits into the context together with the prompt | one request |
//! | is longer | each piece is summarized; the summaries are joined into as few groups as fit and summarized again, until one is left |
//!
//! Every round renders the same prompt, with the piece or the joined summaries as the document text.
//!
//! The last summary must be supported by the text and by what else the prompt reads (`claims.rs`). If it is not, the model is
//! asked once more and told what is wrong. If that does not help, the first sentences of the text are the summary, which is then
//! extractive.

use std::path::{Path, PathBuf};

use minijinja::Value;
use serde_json::{Map, json};

use super::answer_object::refuse_nul;
use super::claim_judge::{ClaimJudge, Grounding, with_reasons};
use super::context_budget::ContextBudget;
use super::prompt_file::PromptFile;
use super::sentences::sentences;
use super::task_prompt::{PromptSettings, TaskPrompt, generator, names_read};
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Engine, Finish, Prediction};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::{Confidence, Output, Span, Summary, SummaryMode, UnsupportedClaim};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same text gets another summary.
const ALGORITHM: u32 = 2;

/// The version of tasks whose claims are not judged.
const UNJUDGED: u32 = 1;

/// Default of `grounding.novel_words`. It is higher than for `write`, because a summary says things in fewer and other words.
const NOVEL_WORDS: f64 = 0.35;

/// Fewest words of a sentence that may stand for the text. A shorter one is a heading or an exclamation.
const LEAST_WORDS: usize = 4;

/// Default limit of a summary in tokens: about five sentences.
const DEFAULT_MAX_TOKENS: usize = 192;

/// Most pieces of one document. They take at most eight rounds, which bounds the model time of one document.
const MOST_PIECES: usize = 128;

/// Sentences among which those are looked for that stand for the text.
const CONSIDERED: usize = 256;

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
    pub grounding: &'a Grounding,
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
    judge: Option<ClaimJudge>,
    /// Sentences of the text that stand for a summary without support.
    sentences: usize,
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
        problems.extend(self.grounding.problems(&self.reads(base_dir)));
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
        let prompt = TaskPrompt::new(file, settings)?;
        self.assemble(prompt, ContextBudget::of(engine, model)?, self.reads(base_dir))
    }

    /// The task with this prompt, which reads these names.
    fn assemble(self, prompt: TaskPrompt, budget: ContextBudget, reads: Vec<String>) -> anyhow::Result<Abstractive> {
        // The built-in prompt has no names, and its words are about summaries.
        let version = &prompt.version;
        let words = match self.prompt {
            Some(_) => format!("{}\n{}", version.system.as_deref().unwrap_or_default(), version.body),
            None => String::new(),
        };
        let judge = self.grounding.judge(NOVEL_WORDS, reads, words);
        let signature = match &judge {
            Some(judge) => {
                let judged = (judge.signature(), self.sentences);
                serde_json::to_vec(&("summarize", "abstractive", ALGORITHM, version.version(), judged))?
            }
            None => serde_json::to_vec(&("summarize", "abstractive", UNJUDGED, version.version()))?,
        };
        Ok(Abstractive { signature, prompt, budget, judge, sentences: self.sentences })
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
        let piece = |span: &Span| {
            let outside = || Failure::poison(FailureClass::Model, "the engine returned a piece outside the text");
            text.get(span.start..span.end).ok_or_else(outside)
        };
        let pieces: Vec<&str> = pieces.iter().map(piece).collect::<Result<_, _>>()?;
        self.ask(upstream, pieces)
    }

    fn further_inputs(&self, document: &Document, upstream: &TemplateContext) -> Vec<u8> {
        let values = self.judge.as_ref().map(|judge| judge.values(document, upstream)).unwrap_or_default();
        if values.is_empty() { Vec::new() } else { serde_json::to_vec(&values).unwrap_or_default() }
    }

    fn interpret(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        self.next(document, upstream, None, predictions)
    }

    fn interpret_again(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        earlier: &[Vec<Prediction>],
        answers: Vec<Result<Prediction, Poison>>,
    ) -> Result<TaskStep, Failure> {
        let before = earlier.last().map(Vec::as_slice).unwrap_or_default();
        // A round with one answer has a summary of the whole text. What follows it is the second try.
        if let [first] = before {
            return self.second(document, upstream, first, answers);
        }
        self.next(document, upstream, Some(before), answers.into_iter().collect::<Result<_, Poison>>()?)
    }
}

impl Abstractive {
    /// The output, or the next requests. `before` is the round before, if there was one.
    fn next(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        before: Option<&[Prediction]>,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let summaries = written(&predictions)?;
        // Several summaries belong to pieces. A single one belongs to the whole text.
        let [(text, confidence)] = summaries.as_slice() else {
            let joined = self.joined(upstream, &summaries)?;
            return self.ask(upstream, joined.iter().map(String::as_str));
        };
        let claims = self.unsupported(document, upstream, text);
        if claims.is_empty() {
            return Ok(TaskStep::Ready(abstractive(text.clone(), *confidence)));
        }
        let joined = before.map(|before| self.joined(upstream, &written(before)?)).transpose()?;
        let asked = joined.as_ref().and_then(|joined| joined.first()).map_or(&*document.text, String::as_str);
        let prompt = with_reasons(self.prompt.render(&upstream.with_text(asked), Vec::new())?, &claims);
        Ok(TaskStep::Ask(vec![self.prompt.request(prompt)]))
    }

    /// The output after the second try: its answer, or sentences of the text.
    fn second(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        first: &Prediction,
        answers: Vec<Result<Prediction, Poison>>,
    ) -> Result<TaskStep, Failure> {
        // The second answer may be unusable, or its prompt longer than the context.
        let again = answers.into_iter().next().and_then(Result::ok).and_then(|prediction| written(&[prediction]).ok());
        let again = again.and_then(|mut summaries| summaries.pop());
        let (text, confidence) = match again {
            Some(summary) => summary,
            None => written(std::slice::from_ref(first))?.swap_remove(0),
        };
        let claims = self.unsupported(document, upstream, &text);
        if claims.is_empty() {
            return Ok(TaskStep::Ready(abstractive(text, confidence)));
        }
        let spans = leading(&document.text, self.sentences);
        if spans.is_empty() {
            let reason = format!("the model wrote a summary that the text does not support: {}", claims[0].message);
            return Err(Failure::poison(FailureClass::Ungrounded, reason));
        }
        let texts: Vec<&str> = spans.iter().map(|span| &document.text[span.start..span.end]).collect();
        let text = texts.join(" ");
        Ok(TaskStep::Ready(Output::Summary(Summary { text, spans, removed: claims, ..Summary::default() })))
    }

    fn unsupported(&self, document: &Document, upstream: &TemplateContext, text: &str) -> Vec<UnsupportedClaim> {
        let claims = |judge: &ClaimJudge| judge.sources(document, upstream).unsupported(text, judge.novel_words);
        self.judge.as_ref().map(claims).unwrap_or_default()
    }

    /// The texts of the next round: summaries joined into as few groups as fit.
    fn joined(&self, upstream: &TemplateContext, summaries: &[WrittenSummary]) -> Result<Vec<String>, Failure> {
        let available = self.tokens_for_joining(upstream)?;
        let texts: Vec<&str> = summaries.iter().map(|(text, _)| text.as_str()).collect();
        let tokens = texts.iter().map(|text| self.budget.count(text)).collect::<Result<Vec<_>, _>>()?;
        let mut rest = texts.as_slice();
        let mut joined = Vec::new();
        for size in groups(&tokens, available) {
            let (group, others) = rest.split_at(size);
            joined.push(group.join(JOINT));
            rest = others;
        }
        Ok(joined)
    }
}

/// A summary with the model's confidence in it.
type WrittenSummary = (String, Option<Confidence>);

fn written(predictions: &[Prediction]) -> Result<Vec<WrittenSummary>, Failure> {
    let mut summaries = Vec::with_capacity(predictions.len());
    for prediction in predictions {
        let completion = completion(prediction.clone())?;
        let text = completion.text.trim();
        refuse_nul("the summary", text)?;
        if text.is_empty() {
            return Err(Failure::poison(FailureClass::Model, "the model wrote an empty summary"));
        }
        let confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
        summaries.push((whole(text, completion.finish).to_owned(), confidence));
    }
    Ok(summaries)
}

fn abstractive(text: String, confidence: Option<Confidence>) -> Output {
    Output::Summary(Summary { text, mode: SummaryMode::Abstractive, confidence, ..Summary::default() })
}

/// The first `count` sentences of the text that are whole; of a text without any, its first sentence.
fn leading(text: &str, count: usize) -> Vec<Span> {
    let all = sentences(text, CONSIDERED);
    let is_whole = |span: &&Span| {
        let sentence = &text[span.start..span.end];
        let has_words = sentence.split_whitespace().count() >= LEAST_WORDS;
        has_words && sentence.trim_end_matches(['"', '\'', '”', '’', ')']).ends_with(['.', '!', '?', '…', '。', '！', '？'])
    };
    let whole: Vec<Span> = all.iter().filter(is_whole).copied().take(count).collect();
    if whole.is_empty() { all.into_iter().take(1).collect() } else { whole }
}

/// The text up to its last complete sentence, if the answer was truncated and has one.
fn whole(text: &str, finish: Finish) -> &str {
    if finish == Finish::Stop {
        return text;
    }
    match sentences(text, usize::MAX).split_last() {
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
