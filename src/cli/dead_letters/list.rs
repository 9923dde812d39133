//! `tidemill dead-letters list`.

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::filter::DeadLetterFilterArgs;
use super::time;
use crate::cli::args::OutputArgs;
use crate::store::{DeadLetterSummary, Store};

/// The most characters of a reason in the table; `show` prints all of it.
const REASON_CHARACTERS: usize = 80;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Only dead letters that were replayed
    #[arg(long, conflicts_with = "waiting")]
    replayed: bool,
    /// Only dead letters that were not replayed
    #[arg(long)]
    waiting: bool,
    /// The most dead letters
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists dead letters, the latest first, and counts all that the filter chooses.
pub async fn run(store: &Store, args: ListArgs) -> Result<()> {
    let mut filter = args.filter.filter(&[], Timestamp::now())?;
    filter.replayed = (args.replayed || args.waiting).then_some(args.replayed);
    let dead_letters = store.reader(None).dead_letters(&filter, args.limit.into()).await?;
    let counts = store.reader(None).dead_letter_counts(&filter).await?;
    if args.output.json {
        let objects: Vec<Value> = dead_letters.iter().map(object).collect();
        let counts: Vec<Value> = counts
            .iter()
            .map(|(pipeline, class, count)| json!({ "pipeline": pipeline, "class": class, "letters": count }))
            .collect();
        say!("{}", json!({ "letters": objects, "counts": counts }));
        return Ok(());
    }
    if dead_letters.is_empty() {
        say!("no dead letters");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["id", "written", "pipeline", "task", "class", "record", "replayed", "reason"]);
    for dead_letter in &dead_letters {
        table.add_row([
            dead_letter.id.to_string(),
            time(dead_letter.created_ms),
            dead_letter.pipeline.clone(),
            dead_letter.task.clone(),
            dead_letter.class.clone(),
            format!("{}[{}]@{}", dead_letter.topic, dead_letter.partition, dead_letter.record_offset),
            dead_letter.replayed_ms.map(time).unwrap_or_default(),
            dead_letter.reason.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(REASON_CHARACTERS).collect(),
        ]);
    }
    say!("{table}");
    for (pipeline, class, count) in counts {
        say!("{pipeline}: {count} of class {class}");
    }
    Ok(())
}

/// A dead letter as `--json` prints it.
pub(super) fn object(dead_letter: &DeadLetterSummary) -> Value {
    json!({
        "id": dead_letter.id,
        "pipeline": dead_letter.pipeline,
        "topic": dead_letter.topic,
        "partition": dead_letter.partition,
        "offset": dead_letter.record_offset,
        "task": (!dead_letter.task.is_empty()).then_some(&dead_letter.task),
        "document_id": dead_letter.document_id,
        "class": dead_letter.class,
        "reason": dead_letter.reason,
        "attempts": dead_letter.attempts,
        "replays": dead_letter.replays,
        "replayed_at": dead_letter.replayed_ms.map(time),
        "created_at": time(dead_letter.created_ms),
    })
}
