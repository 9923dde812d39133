//! `tidemill explain`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use serde_json::json;

use super::database::{Database, time};
use super::{definitions, terminal};
use crate::config::{Config, ConfigError, Flag};
use crate::explain::{DocumentExplanation, ExplainError, ExplainedOutput, Explainer, PastOutput};
use crate::store::BatchSource;

/// Which document.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The document's id
    id: String,
    /// The pipeline: its name or its file; may be left out where there is one
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ExplainArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Explains the document.
pub async fn run(mut config: Config, args: ExplainArgs) -> Result<()> {
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let price = config.jobs.price_per_device_hour;
    let ledger = Database::open(&mut config).await?;
    let explained = Explainer::new(ledger.store.clone(), &definitions, price).explain(name.as_deref(), &args.id).await;
    ledger.close().await?;
    let explained = explained.map_err(|error| match error {
        ExplainError::Invalid(message) => ConfigError(message).into(),
        other => anyhow::Error::from(other),
    })?;
    match args.json {
        true => say!("{}", json!(explained)),
        false => print(&explained),
    }
    Ok(())
}

fn print(explained: &DocumentExplanation) {
    let DocumentExplanation { pipeline, document_id, document, outputs, dead_letters, history } = explained;
    let document_id = terminal::name(document_id);
    match document {
        Some(document) => {
            let state = if document.deleted { "deleted" } else { "there" };
            let written = time(document.updated_at_ms);
            say!(
                "{document_id} of {pipeline} is {state}: version {}, {} bytes, written {written}",
                document.version,
                document.text.len()
            );
            if let Some(source) = &document.source {
                say!("  from {}", origin(source));
            }
        }
        None => say!("{document_id} of {pipeline} is no document"),
    }
    for output in outputs {
        describe(output);
    }
    for letter in dead_letters {
        let task = if letter.task.is_empty() { String::new() } else { format!(" of task {}", letter.task) };
        let place = format!("{} {}/{}", letter.topic, letter.partition, letter.offset);
        say!("dead letter {}{task}, {}, {place}: {}", letter.id, time(letter.created_at_ms), letter.reason);
    }
    if !history.outputs.is_empty() {
        let mut table = Table::new();
        table.set_header(["when", "task", "version", "said", "model", "prompt", "record", "tokens", "device"]);
        for past in &history.outputs {
            table.add_row(row(past));
        }
        say!("{table}");
    }
    say!("{} of {} files were looked into", history.files_read, history.files);
    for sentence in history.faults.iter().chain(&history.unknown) {
        say!("  {sentence}");
    }
}

fn describe(output: &ExplainedOutput) {
    let ExplainedOutput { facts, device_milliseconds, cost, record } = output;
    let computed = &facts.computed;
    let said = computed.label.as_deref().or(computed.text.as_deref()).map(short).unwrap_or_default();
    let sure = computed.confidence.map(|confidence| format!(" ({confidence:.2})")).unwrap_or_default();
    let reused = if facts.reused == Some(true) { ", taken over from an earlier computation" } else { "" };
    say!("{} ({}): {said}{sure}", computed.task, computed.kind);
    if let Some(model) = &computed.model {
        let revision = computed.model_revision.as_deref().map(beginning).unwrap_or_default();
        let name = facts.prompt.as_deref().unwrap_or("prompt");
        let prompt =
            computed.prompt_version.as_deref().map(|version| format!(", {name} {}", beginning(version))).unwrap_or_default();
        say!("  by {model} {revision}{prompt}{reused}");
    }
    let cost = cost.map(|cost| format!(", which cost {cost:.6}")).unwrap_or_default();
    let (read, wrote) = (computed.tokens, computed.generated_tokens);
    say!(
        "  {read} tokens read, {wrote} written, {device_milliseconds:.1} ms of device time{cost}, written {}",
        time(facts.updated_at_ms)
    );
    match (record, &facts.source) {
        (Some(record), _) => say!("  from {} partition {}, offset {}", record.topic, record.partition, record.offset),
        (None, Some(source)) => say!("  from {}", origin(source)),
        (None, None) => {}
    }
}

fn row(past: &PastOutput) -> [String; 9] {
    let computed = &past.computed;
    [
        time(past.processed_at_ms),
        computed.task.clone(),
        computed.version.to_string(),
        computed.label.as_deref().or(computed.text.as_deref()).map(short).unwrap_or_default(),
        computed.model.clone().unwrap_or_default(),
        computed.prompt_version.as_deref().map(beginning).unwrap_or_default().to_owned(),
        format!("{} {}/{}", past.topic, past.partition, past.offset),
        format!("{} + {}", computed.tokens, computed.generated_tokens),
        format!("{:.1} ms", computed.device_micros as f64 / 1_000.0),
    ]
}

fn origin(source: &BatchSource) -> String {
    let BatchSource { topic, partition, from_offset, to_offset, committed_at_ms, .. } = source;
    format!("{topic} partition {partition}, one of the offsets {from_offset}..{to_offset}, committed {}", time(*committed_at_ms))
}

/// Of a hash as much as tells it from others.
fn beginning(hash: &str) -> &str {
    &hash[..hash.floor_char_boundary(12)]
}

/// On one line, and no more than fits it.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 80;
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    let end = if text.chars().count() > CHARACTERS { "…" } else { "" };
    format!("{flat}{end}")
}
