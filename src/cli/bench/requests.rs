//! Runs the requests of a file on one model, and measures how fast.
//!
//! Each line is a JSON object of one of these kinds; `messages` are objects with `role` and `content`.
//!
//! | line | result |
//! |---|---|
//! | `{"encode": "…"}` | the vector of a text, which is cut off at the model's window |
//! | `{"classify": "…"}` | the logits of a classifier |
//! | `{"score": {"messages": […], "answers": […]}}` | the logarithm of the probability of each answer |
//! | `{"generate": {"messages": […], "max_tokens": 64, "schema": {…}}}` | what the model writes with greedy decoding; `schema` is optional |
//!
//! The lines go to the model host in calls of [`CALL_REQUESTS`], several at a time, like the micro-batches of a pipeline. All
//! prompts of a round are one group, so that their common prefix is read once, and each round reads it again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, iter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{EngineConfig, ModelConfig};
use crate::engine::{
    Answer, Chunking, Engine, EngineStats, Finish, Generate, Message, Prediction, Prompt, Request, Role, Sampling, Schema, Score,
    TextKind, Work,
};
use crate::metrics::peak_resident_bytes;

/// The model under test.
const MODEL: &str = "bench";
/// Requests in a call: a micro-batch or two of short documents.
const CALL_REQUESTS: usize = 256;
/// Calls at a time for each core, which tokenizes one while others wait for the device.
const CALLS_PER_CORE: usize = 2;

pub(super) struct RequestOptions<'a> {
    /// A model folder or GGUF file.
    pub(super) model: &'a Path,
    /// The file with the requests.
    pub(super) requests: &'a Path,
    /// The file for the answers of the last round.
    pub(super) answers: Option<&'a Path>,
    /// How many times all requests are run.
    pub(super) rounds: usize,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequestLine {
    Encode(String),
    Classify(String),
    Score(ScoreLine),
    Generate(GenerateLine),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreLine {
    messages: Vec<MessageLine>,
    answers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateLine {
    messages: Vec<MessageLine>,
    max_tokens: usize,
    schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageLine {
    role: RoleLine,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleLine {
    System,
    User,
    Assistant,
}

struct RoundStats {
    seconds: f64,
    before: EngineStats,
    after: EngineStats,
    answers: Vec<Answer>,
}

/// Runs the requests in rounds and reports each round.
pub(super) async fn measure(config: &EngineConfig, options: RequestOptions<'_>) -> Result<Value> {
    let path = options.requests;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the requests {}", path.display()))?;
    let works = read(&text).with_context(|| path.display().to_string())?;
    ensure!(!works.is_empty(), "{} has no requests; write one per line", path.display());
    let started = Instant::now();
    let (engine_config, models) = (config.clone(), [(MODEL.to_owned(), ModelConfig::local(options.model))].into());
    let engine = tokio::task::spawn_blocking(move || Engine::start(&engine_config, &models)).await??;
    let load_seconds = started.elapsed().as_secs_f64();
    let mut reports = Vec::new();
    let mut last = Vec::new();
    for number in 0..options.rounds.max(1) {
        let round = run(&engine, &works, number).await?;
        reports.push(round.to_json());
        last = round.answers;
    }
    if let Some(path) = options.answers {
        write(path, &last).with_context(|| format!("cannot write the answers to {}", path.display()))?;
    }
    let info = engine.model(MODEL).context("the model that was loaded is gone")?;
    Ok(json!({
        "model": { "kind": info.kind.as_str(), "architecture": info.architecture, "revision": info.revision },
        "device": config.device.to_string(),
        "requests": works.len(),
        "load_seconds": load_seconds,
        "rounds": reports,
        "peak_rss_bytes": peak_resident_bytes(),
    }))
}

/// The work of each line. Equal schemas are compiled once.
fn read(text: &str) -> Result<Vec<Work>> {
    let mut schemas: HashMap<String, Arc<Schema>> = HashMap::new();
    let mut works = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let line: RequestLine = serde_json::from_str(line).with_context(|| format!("line {number} is not a request"))?;
        works.push(line.into_work(&mut schemas).with_context(|| format!("line {number}"))?);
    }
    Ok(works)
}

impl RequestLine {
    fn into_work(self, schemas: &mut HashMap<String, Arc<Schema>>) -> Result<Work> {
        Ok(match self {
            Self::Encode(text) => Work::Encode { texts: vec![text.into()], chunking: Chunking::Truncate, kind: TextKind::Plain },
            Self::Classify(text) => Work::Classify { text: text.into() },
            Self::Score(line) => {
                let answers = line.answers.into_iter().map(Arc::from).collect();
                Work::Score(Score { prompt: prompt(line.messages), answers })
            }
            Self::Generate(line) => {
                let schema = match line.schema {
                    None => None,
                    Some(value) => Some(match schemas.get(&value.to_string()) {
                        Some(known) => known.clone(),
                        None => {
                            let key = value.to_string();
                            let schema = Schema::new(value).map(Arc::new).map_err(anyhow::Error::msg)?;
                            schemas.entry(key).or_insert(schema).clone()
                        }
                    }),
                };
                let (prompt, max_tokens) = (prompt(line.messages), line.max_tokens);
                Work::Generate(Generate {
                    prompt,
                    max_tokens,
                    sampling: Sampling::default(),
                    stop: Vec::new(),
                    schema,
                    spans: None,
                })
            }
        })
    }
}

fn prompt(messages: Vec<MessageLine>) -> Prompt {
    let message = |line: MessageLine| Message { role: line.role.into(), content: line.content.into() };
    Prompt { messages: messages.into_iter().map(message).collect(), group: "".into() }
}

impl From<RoleLine> for Role {
    fn from(role: RoleLine) -> Self {
        match role {
            RoleLine::System => Self::System,
            RoleLine::User => Self::User,
            RoleLine::Assistant => Self::Assistant,
        }
    }
}

async fn run(engine: &Engine, works: &[Work], number: usize) -> Result<RoundStats> {
    let group: Arc<str> = format!("round-{number}").into();
    let request = |work: &Work| {
        let mut work = work.clone();
        match &mut work {
            Work::Score(Score { prompt, .. }) | Work::Generate(Generate { prompt, .. }) => prompt.group = group.clone(),
            Work::Encode { .. } | Work::Classify { .. } => {}
        }
        Request { model: MODEL.into(), work }
    };
    let calls: Vec<Vec<Request>> = works.chunks(CALL_REQUESTS).map(|part| part.iter().map(request).collect()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (before, started) = (engine.stats(), Instant::now());
    // Each call is a task of its own, so that results are collected on all cores.
    let call = |requests: Vec<Request>| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.run(requests).await })
    };
    let mut answered = iter(calls).map(call).buffered(CALLS_PER_CORE * cores);
    let mut answers = Vec::with_capacity(works.len());
    while let Some(call) = answered.next().await {
        for answer in call?? {
            let number = answers.len() + 1;
            answers.push(answer.with_context(|| format!("request {number} has no answer"))?);
        }
    }
    Ok(RoundStats { seconds: started.elapsed().as_secs_f64(), before, after: engine.stats(), answers })
}

impl RoundStats {
    fn to_json(&self) -> Value {
        let Self { seconds, before, after, answers } = self;
        let busy = (after.busy - before.busy).as_secs_f64();
        json!({
            "seconds": seconds,
            "documents_per_second": answers.len() as f64 / seconds,
            "tokens": after.tokens - before.tokens,
            "prompt_tokens": after.prompt_tokens - before.prompt_tokens,
            "generated_tokens": after.generated_tokens - before.generated_tokens,
            "prefix_tokens_saved": after.prefix_tokens_saved - before.prefix_tokens_saved,
            "batches": after.batches - before.batches,
            "steps": after.steps - before.steps,
            "device_busy_share": busy / seconds,
        })
    }
}

fn write(path: &Path, answers: &[Answer]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for answer in answers {
        writeln!(file, "{}", answer_line(answer))?;
    }
    file.flush()
}

/// The answer as a line. `tokens` counts those that the model read, without a prefix that another request had read before.
fn answer_line(answer: &Answer) -> Value {
    let mut line = match &answer.prediction {
        Prediction::Vectors(texts) => {
            json!({ "vector": texts.iter().flat_map(|text| &text.chunks).map(|chunk| &*chunk.vector).collect::<Vec<_>>().concat() })
        }
        Prediction::Logits(logits) => json!({ "logits": logits }),
        Prediction::Scores(scores) => json!({ "scores": scores }),
        Prediction::Completion(completion) => json!({
            "text": completion.text,
            "ends": completion.tokens.iter().map(|token| token.end).collect::<Vec<_>>(),
            "log_probabilities": completion.tokens.iter().map(|token| token.log_probability).collect::<Vec<_>>(),
            "finish": match completion.finish { Finish::Stop => "stop", Finish::Length => "length" },
        }),
    };
    line["tokens"] = answer.tokens.into();
    line["generated"] = answer.generated.into();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_becomes_the_work_it_names() {
        let text = r#"
            {"encode": "a mill"}
            {"classify": "a mill"}

            {"score": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "answers": ["a", "b"]}}
            {"generate": {"messages": [{"role": "user", "content": "u"}], "max_tokens": 7, "schema": {"type": "object"}}}
            {"generate": {"messages": [{"role": "user", "content": "v"}], "max_tokens": 7, "schema": {"type": "object"}}}"#;
        let works = read(text).unwrap();
        assert_eq!(works[0], Work::Encode { texts: vec!["a mill".into()], chunking: Chunking::Truncate, kind: TextKind::Plain });
        assert_eq!(works[1], Work::Classify { text: "a mill".into() });
        let Work::Score(score) = &works[2] else { panic!("{:?}", works[2]) };
        assert_eq!((score.prompt.messages[0].role, &*score.answers[1]), (Role::System, "b"));
        let (Work::Generate(one), Work::Generate(other)) = (&works[3], &works[4]) else { panic!("{works:?}") };
        assert_eq!((one.max_tokens, one.sampling), (7, Sampling::default()));
        let (Some(one), Some(other)) = (&one.schema, &other.schema) else { panic!("{works:?}") };
        assert!(Arc::ptr_eq(one, other), "the same schema is compiled once");
    }

    #[test]
    fn a_line_that_is_no_request_is_named() {
        for (line, expected) in [
            (r#"{"embed": "a mill"}"#, "line 2 is not a request"),
            (r#"{"generate": {"messages": [], "max_token": 7}}"#, "line 2 is not a request"),
            (r#"{"generate": {"messages": [], "max_tokens": 7, "schema": {"type": "string"}}}"#, "line 2"),
        ] {
            let error = read(&format!("{{\"encode\": \"a\"}}\n{line}")).unwrap_err();
            assert!(format!("{error:#}").starts_with(expected), "{error:#}");
        }
    }
}
