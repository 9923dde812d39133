//! `tidemill explain`.

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::{Database, time};
use crate::config::{Config, ConfigError};
use crate::explain::{DocumentExplanation, ExplainError, ExplainedOutput, Explainer, PastOutput};
use crate::store::BatchSource;
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The document's id
    id: String,
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// Prints where the outputs for the document come from.
pub async fn run(mut config: Config, args: ExplainArgs) -> Result<()> {
    let (definitions, name) = args.pipeline.load(&config)?;
    let price = config.jobs.price_per_device_hour;
    let database = Database::open(&mut config).await?;
    let explained = Explainer::new(database.store.clone(), &definitions, price).explain(name.as_deref(), &args.id).await;
    database.close().await?;
    let explained = explained.map_err(|error| match error {
        ExplainError::Invalid(message) => ConfigError(message).into(),
        other => anyhow::Error::from(other),
    })?;
    match args.output.json {
        true => say!("{}", json!(explained)),
        false => print(&explained),
    }
    Ok(())
}

fn print(explained: &DocumentExplanation) {
    let DocumentExplanation { pipeline, document_id, document, outputs, dead_letters, history } = explained;
    let document_id = escaped_line(document_id);
    match document {
        Some(document) => {
            let state = if document.deleted { "deleted" } else { "stored" };
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
        None => say!("{pipeline} has no document {document_id}"),
    }
    for output in outputs {
        describe(output);
    }
    for dead_letter in dead_letters {
        let task = if dead_letter.task.is_empty() { String::new() } else { format!(" of task {}", dead_letter.task) };
        let location = format!("{} {}/{}", dead_letter.topic, dead_letter.partition, dead_letter.offset);
        say!("dead letter {}{task}, {}, {location}: {}", dead_letter.id, time(dead_letter.created_at_ms), dead_letter.reason);
    }
    if !history.outputs.is_empty() {
        let mut table = Table::new();
        table.set_header(["when", "task", "version", "output", "model", "prompt", "record", "tokens", "device"]);
        for past in &history.outputs {
            table.add_row(row(past));
        }
        say!("{table}");
    }
    say!("{} of {} files were read", history.files_read, history.files);
    for sentence in history.faults.iter().chain(&history.unknown) {
        say!("  {sentence}");
    }
}

fn describe(output: &ExplainedOutput) {
    let ExplainedOutput { facts, device_milliseconds, cost, record } = output;
    let computed = &facts.computed;
    let output = computed.label.as_deref().or(computed.text.as_deref()).map(short).unwrap_or_default();
    let confidence = computed.confidence.map(|confidence| format!(" ({confidence:.2})")).unwrap_or_default();
    let reused = if facts.reused == Some(true) { ", reused from an earlier computation" } else { "" };
    say!("{} ({}): {output}{confidence}", computed.task, computed.kind);
    if let Some(model) = &computed.model {
        let revision = computed.model_revision.as_deref().map(beginning).unwrap_or_default();
        let name = facts.prompt.as_deref().unwrap_or("prompt");
        let prompt =
            computed.prompt_version.as_deref().map(|version| format!(", {name} {}", beginning(version))).unwrap_or_default();
        say!("  by {model} {revision}{prompt}{reused}");
    }
    let cost = cost.map(|cost| format!(", cost {cost:.6}")).unwrap_or_default();
    let (read, written) = (computed.tokens, computed.generated_tokens);
    say!(
        "  {read} tokens read, {written} written, {device_milliseconds:.1} ms of device time{cost}, written {}",
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

/// The first digits of a hash, enough to tell it from others.
fn beginning(hash: &str) -> &str {
    &hash[..hash.floor_char_boundary(12)]
}

/// At most one line of the text.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 80;
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    let end = if text.chars().count() > CHARACTERS { "…" } else { "" };
    format!("{flat}{end}")
}
