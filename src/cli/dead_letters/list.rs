//! `tidemill dead-letters list`.

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::filter::DeadLetterFilterArgs;
use super::time;
use crate::store::{DeadLetterSummary, Store};

/// Characters of a reason in the table; `show` has all of it.
const REASON: usize = 80;

/// Which letters to list, and how.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Only letters that were sent again
    #[arg(long, conflicts_with = "waiting")]
    replayed: bool,
    /// Only letters that were not sent again
    #[arg(long)]
    waiting: bool,
    /// Most letters
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Lists letters, the latest first, and counts all that are meant.
pub async fn run(store: &Store, args: ListArgs) -> Result<()> {
    let mut filter = args.filter.filter(&[], Timestamp::now())?;
    filter.replayed = (args.replayed || args.waiting).then_some(args.replayed);
    let letters = store.reader(None).dead_letters(&filter, args.limit.into()).await?;
    let counts = store.reader(None).dead_letter_counts(&filter).await?;
    if args.json {
        let letters: Vec<Value> = letters.iter().map(object).collect();
        let counts: Vec<Value> = counts
            .iter()
            .map(|(pipeline, class, letters)| json!({ "pipeline": pipeline, "class": class, "letters": letters }))
            .collect();
        say!("{}", json!({ "letters": letters, "counts": counts }));
        return Ok(());
    }
    if letters.is_empty() {
        say!("no dead letters");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["id", "written", "pipeline", "task", "class", "record", "replayed", "reason"]);
    for letter in &letters {
        table.add_row([
            letter.id.to_string(),
            time(letter.created_ms),
            letter.pipeline.clone(),
            letter.task.clone(),
            letter.class.clone(),
            format!("{}[{}]@{}", letter.topic, letter.partition, letter.record_offset),
            letter.replayed_ms.map(time).unwrap_or_default(),
            letter.reason.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(REASON).collect(),
        ]);
    }
    say!("{table}");
    for (pipeline, class, letters) in counts {
        say!("{pipeline}: {letters} of class {class}");
    }
    Ok(())
}

/// A letter as `--json` shows it.
pub(super) fn object(letter: &DeadLetterSummary) -> Value {
    json!({
        "id": letter.id,
        "pipeline": letter.pipeline,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.record_offset,
        "task": (!letter.task.is_empty()).then_some(&letter.task),
        "document_id": letter.document_id,
        "class": letter.class,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "replayed_at": letter.replayed_ms.map(time),
        "created_at": time(letter.created_ms),
    })
}
