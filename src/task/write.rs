//! `write`: text that a model writes from a prompt file, the document and the outputs of other tasks.
//!
//! With `strict`, the strings of the answer are spans of the document, as in `extract`. Otherwise, what the model writes must be supported by what the prompt was made from (`claims.rs`, `claim_judge.rs`):
//!
//! | the text | the output |
//! |---|---|
//! | has no unsupported claim | the text |
//! | has some | the model is asked once more and told what is wrong; its second answer where that has none |
//! | has some again, without a schema | the sentences that are supported, if there are any |
//! | otherwise, with a `fallback` that renders and is supported | what the fallback renders |
//! | otherwise | the text with fewer unsupported claims, and these claims under `unsupported`, for a person to decide |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer_object::{object, refuse_nul};
use super::claim_judge::{ClaimJudge, Grounding, with_reasons};
use super::claims::Sources;
use super::extract::StrictRules;
use super::for_each::{ITEM_NAMES, ItemPrompt, ItemPromptSpec, ItemScope};
use super::prompt_file::{PromptFile, SchemaSource};
use super::sentences::sentences;
use super::task_prompt::generator;
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Engine, Finish, Prediction, SpanGrammar};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::{Confidence, Output, UnsupportedClaim, WrittenText};
use crate::prompt::PromptVersion;
use crate::template::{PrintMode, Template};

/// Part of every fingerprint. Increase it when the same answer leads to another output.
const ALGORITHM: u32 = 2;

/// The version of tasks whose claims are not judged.
const UNJUDGED: u32 = 1;

/// Default of `grounding.novel_words`: one word of five may be the writer's own.
const NOVEL_WORDS: f64 = 0.2;

/// The longest text that a fallback can render, in bytes.
const MAX_FALLBACK: usize = 1 << 20;

/// Parameters of `write`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteSpec {
    /// Name of the generator in the configuration.
    pub model: String,
    /// The prompt file, relative to the pipeline file.
    pub prompt: PathBuf,
    /// JSON Schema of the answer, for a prompt file without one: a path relative to the pipeline file, or the schema itself.
    #[serde(default)]
    pub schema: Option<SchemaSource>,
    /// Most tokens of an answer; overrides the limit in the prompt file.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// An expression for a list. The task then runs once for each `item` of the list.
    #[serde(default)]
    pub for_each: Option<String>,
    /// Whether the strings and numbers of the answer can only be those of the document. Needs a schema.
    #[serde(default)]
    pub strict: bool,
    /// Whether and how the claims of the text are judged.
    #[serde(default)]
    pub grounding: Grounding,
    /// A template that takes the place of a text with unsupported claims. With a schema it renders the object as JSON.
    #[serde(default)]
    pub fallback: Option<String>,
}

#[derive(Debug)]
struct Write {
    signature: Vec<u8>,
    prompt: ItemPrompt,
    /// The rules of a strict task.
    strict: Option<StrictRules>,
    judge: Option<ClaimJudge>,
    fallback: Option<Template>,
}

impl WriteSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let strict = self.read(base_dir).and_then(|file| self.strict_rules(&file));
        let mut problems: Vec<String> = strict.err().into_iter().chain(self.item_prompt().problems()).collect();
        problems.extend(self.grounding.problems(&self.item_prompt().reads(base_dir)));
        match self.compile_fallback() {
            Err(problem) => problems.push(problem),
            Ok(Some(_)) if self.grounding == Grounding::Off => {
                problems.push("has a `fallback`, which `grounding: off` never needs: remove one of the two".into());
            }
            Ok(_) => {}
        }
        problems
    }

    pub(super) fn reads(&self, base_dir: &Path) -> Vec<String> {
        let mut names = self.item_prompt().reads(base_dir);
        let own = |name: &&String| self.for_each.is_none() || !ITEM_NAMES.contains(&crate::template::root(name));
        if let Ok(Some(fallback)) = self.compile_fallback() {
            names.extend(fallback.variables().iter().filter(own).cloned());
        }
        names
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let model = generator(engine, &self.model, "write")?;
        let file = self.read(base_dir).map_err(anyhow::Error::msg)?;
        let strict = self.strict_rules(&file).map_err(anyhow::Error::msg)?;
        Ok(Arc::new(self.assemble(strict, self.item_prompt().build(name, engine, model, file)?, self.reads(base_dir))?))
    }

    /// The task with this prompt, which reads these names.
    fn assemble(&self, strict: Option<StrictRules>, prompt: ItemPrompt, reads: Vec<String>) -> anyhow::Result<Write> {
        let version = prompt.version();
        let words = [version.system.as_deref(), Some(&*version.body), self.for_each.as_deref(), self.fallback.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join("\n");
        let judge = self.grounding.judge(NOVEL_WORDS, reads, words);
        let signature = match &judge {
            Some(judge) if self.strict => {
                let judged = (judge.signature(), &self.fallback);
                serde_json::to_vec(&("write", ALGORITHM, "strict", version.version(), &self.for_each, judged))?
            }
            Some(judge) => {
                let judged = (judge.signature(), &self.fallback);
                serde_json::to_vec(&("write", ALGORITHM, version.version(), &self.for_each, judged))?
            }
            None if self.strict => serde_json::to_vec(&("write", UNJUDGED, "strict", version.version(), &self.for_each))?,
            None => serde_json::to_vec(&("write", UNJUDGED, version.version(), &self.for_each))?,
        };
        let fallback = self.compile_fallback().map_err(anyhow::Error::msg)?;
        Ok(Write { signature, prompt, strict, judge, fallback })
    }

    fn strict_rules(&self, file: &PromptFile) -> Result<Option<StrictRules>, String> {
        match (self.strict, &file.schema) {
            (false, _) => Ok(None),
            (true, Some(schema)) => StrictRules::new(schema).map(Some),
            (true, None) => Err("has `strict: true` without a `schema`: plain text cannot be quoted from the document".into()),
        }
    }

    fn compile_fallback(&self) -> Result<Option<Template>, String> {
        let compiled = self.fallback.as_deref().map(|source| Template::new(source, PrintMode::Scalars, MAX_FALLBACK));
        compiled.transpose().map_err(|error| format!("has a bad `fallback`: {error}"))
    }

    fn item_prompt(&self) -> ItemPromptSpec<'_> {
        ItemPromptSpec { prompt: Some(&self.prompt), max_tokens: self.max_tokens, for_each: self.for_each.as_deref() }
    }

    pub(super) fn read(&self, base_dir: &Path) -> Result<PromptFile, String> {
        let file = PromptFile::read(&base_dir.join(&self.prompt)).map_err(|fault| format!("has a bad prompt: {fault}"))?;
        file.with_schema(self.schema.as_ref(), base_dir)
    }
}

impl Task for Write {
    fn kind(&self) -> &'static str {
        "write"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prompt(&self) -> Option<&PromptVersion> {
        Some(self.prompt.version())
    }

    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        self.prompt.prepare(upstream, self.spans(document)?.as_ref())
    }

    fn further_inputs(&self, document: &Document, upstream: &TemplateContext) -> Vec<u8> {
        let Some(judge) = &self.judge else { return Vec::new() };
        let shown = self.fallback.as_ref().and_then(|fallback| fallback.render(&upstream.context()).ok());
        serde_json::to_vec(&(judge.values(document, upstream), shown)).unwrap_or_default()
    }

    fn interpret(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let texts = self.prompt.each(predictions, |prediction| self.written(prediction))?;
        let Some(judge) = &self.judge else { return self.ready(texts) };
        let sources = judge.sources(document, upstream);
        let judged = self.judged(judge, &sources, texts);
        if judged.iter().all(|(_, claims)| claims.is_empty()) {
            return self.ready(judged.into_iter().map(|(text, _)| text));
        }
        let spans = self.spans(document)?;
        let mut requests = Vec::new();
        for ((_, claims), scope) in judged.iter().zip(self.prompt.scopes(upstream)?).filter(|((_, claims), _)| !claims.is_empty())
        {
            let prompt = with_reasons(self.prompt.prompt.render(upstream, scope)?, claims);
            requests.push(self.prompt.prompt.request_quoting(prompt, spans.clone()));
        }
        Ok(TaskStep::Ask(requests))
    }

    fn interpret_again(
        &self,
        document: &Document,
        upstream: &TemplateContext,
        earlier: &[Vec<Prediction>],
        answers: Vec<Result<Prediction, Poison>>,
    ) -> Result<TaskStep, Failure> {
        let first = earlier.first().cloned().unwrap_or_default();
        let firsts = self.prompt.each(first, |prediction| self.written(prediction))?;
        let Some(judge) = &self.judge else { return self.ready(firsts) };
        let sources = judge.sources(document, upstream);
        let mut answers = answers.into_iter();
        let mut texts = Vec::with_capacity(firsts.len());
        let scopes = self.prompt.scopes(upstream)?;
        for ((text, claims), scope) in self.judged(judge, &sources, firsts).into_iter().zip(scopes) {
            if claims.is_empty() {
                texts.push(text);
                continue;
            }
            // The second answer may be unusable, or its prompt longer than the context. Then the first one counts.
            let again = answers.next().and_then(Result::ok).and_then(|prediction| self.written(prediction).ok());
            let again = again.map(|text| self.judged(judge, &sources, vec![text])).unwrap_or_default();
            let (text, claims) =
                again.into_iter().next().filter(|(_, others)| others.len() <= claims.len()).unwrap_or((text, claims));
            texts.push(self.settled(judge, &sources, upstream, scope, (text, claims)));
        }
        self.ready(texts)
    }
}

/// A text with its unsupported claims.
type JudgedText = (WrittenText, Vec<UnsupportedClaim>);

impl Write {
    /// The grammar of a strict answer about the document.
    fn spans(&self, document: &Document) -> Result<Option<Arc<SpanGrammar>>, Failure> {
        let (Some(rules), Some(schema)) = (&self.strict, &self.prompt.prompt.schema) else { return Ok(None) };
        rules.grammar(schema, &document.text).map(Some)
    }

    fn ready(&self, texts: impl IntoIterator<Item = WrittenText>) -> Result<TaskStep, Failure> {
        Ok(TaskStep::Ready(self.prompt.output(texts.into_iter().map(Output::WrittenText).collect())?))
    }

    fn judged(&self, judge: &ClaimJudge, sources: &Sources, texts: Vec<WrittenText>) -> Vec<JudgedText> {
        let schema = self.prompt.prompt.schema.as_ref().map(|schema| schema.value());
        let claims = |text: &WrittenText| match (&text.fields, schema) {
            (Some(fields), Some(schema)) => sources.unsupported_in(fields, schema, judge.novel_words),
            _ => sources.unsupported(&text.text, judge.novel_words),
        };
        texts.into_iter().map(|text| (claims(&text), text)).map(|(claims, text)| (text, claims)).collect()
    }

    /// The output where the second answer has unsupported claims as well: see the table at the top of this file.
    fn settled(
        &self,
        judge: &ClaimJudge,
        sources: &Sources,
        upstream: &TemplateContext,
        scope: ItemScope,
        (text, claims): JudgedText,
    ) -> WrittenText {
        if claims.is_empty() {
            return text;
        }
        if let Some(kept) = without_sentences(&text.text, &claims).filter(|_| text.fields.is_none()) {
            return WrittenText { text: kept, removed: claims, ..text };
        }
        let fallback = self.fallback(upstream, scope).map(|text| self.judged(judge, sources, vec![text]));
        match fallback.into_iter().flatten().next() {
            Some((fallback, wrong)) if wrong.is_empty() => WrittenText { removed: claims, ..fallback },
            _ => WrittenText { unsupported: claims, ..text },
        }
    }

    /// What the fallback renders, where it renders something that the schema allows.
    fn fallback(&self, upstream: &TemplateContext, scope: ItemScope) -> Option<WrittenText> {
        let text = self.fallback.as_ref()?.render(&upstream.context_with(scope)).ok()?;
        let text = text.trim();
        if text.is_empty() || refuse_nul("the fallback", text).is_err() {
            return None;
        }
        let Some(schema) = &self.prompt.prompt.schema else {
            return Some(WrittenText { text: text.to_owned(), ..WrittenText::default() });
        };
        let value = serde_json::from_str(text).ok().filter(|value| schema.faults(value).is_empty())?;
        let fields = object(value).ok()?;
        let text = serde_json::to_string(&fields).ok()?;
        Some(WrittenText { text, fields: Some(fields), ..WrittenText::default() })
    }

    fn written(&self, prediction: Prediction) -> Result<WrittenText, Failure> {
        let completion = completion(prediction)?;
        let confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
        let Some(schema) = &self.prompt.prompt.schema else {
            let text = completion.text.trim();
            if text.is_empty() {
                return Err(Failure::poison(FailureClass::Model, "the model wrote nothing"));
            }
            refuse_nul("the text", text)?;
            let truncated = completion.finish == Finish::Length;
            return Ok(WrittenText { text: text.to_owned(), confidence, truncated, ..WrittenText::default() });
        };
        let fields = object(schema.judge(&completion, self.prompt.prompt.max_tokens)?)?;
        let text = serde_json::to_string(&fields).map_err(|e| Failure::poison(FailureClass::Schema, e.to_string()))?;
        Ok(WrittenText { text, fields: Some(fields), confidence, ..WrittenText::default() })
    }
}

/// The text without the sentences that contain the claims; none where no sentence is left.
fn without_sentences(text: &str, claims: &[UnsupportedClaim]) -> Option<String> {
    let mut kept = String::new();
    let mut end = 0;
    for span in sentences(text, usize::MAX) {
        let gap = &text[end..span.start];
        end = span.end;
        if claims.iter().any(|claim| claim.sentence == span) {
            continue;
        }
        if !kept.is_empty() {
            kept.push_str(if gap.contains('\n') { gap } else { " " });
        }
        kept.push_str(&text[span.start..span.end]);
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests;
