//! `tidemill positions`.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::args::OutputArgs;
use super::store;
use crate::broker::BrokerSettings;
use crate::config::{Config, ConfigError};
use crate::record::Partition;
use crate::source;
use crate::store::{PositionRow, PositionSkip, PositionSkipError};

#[derive(Debug, Subcommand)]
pub enum PositionsCommand {
    /// List the positions of pipelines in each partition
    List(ListArgs),
    /// Skip records that the topic no longer has; the database keeps a row about the gap
    Skip(SkipArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only positions of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct SkipArgs {
    /// The pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// The partition
    #[arg(long, value_name = "N")]
    partition: i32,
    /// Where to continue: an offset, or `earliest` for the oldest record that the broker still has
    #[arg(long, value_name = "OFFSET")]
    to: SkipTarget,
    /// The reason, which is stored with the gap
    #[arg(long)]
    reason: String,
    /// Who skips them, which is stored with the gap
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SkipTarget {
    Earliest,
    Offset(i64),
}

impl std::str::FromStr for SkipTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("earliest", _) => Ok(Self::Earliest),
            (_, Ok(offset)) if offset >= 0 => Ok(Self::Offset(offset)),
            _ => Err("neither an offset nor `earliest`".into()),
        }
    }
}

/// Runs `tidemill positions`.
pub async fn run(config: Config, command: PositionsCommand) -> Result<()> {
    match command {
        PositionsCommand::List(args) => list(&config, args).await,
        PositionsCommand::Skip(args) => skip(&config, args).await,
    }
}

async fn list(config: &Config, args: ListArgs) -> Result<()> {
    let store = store(config)?;
    store.migrate().await?;
    let rows = store.list_positions(args.pipeline.as_deref()).await?;
    store.close().await;
    if args.output.json {
        let positions: Vec<_> = rows.iter().map(object).collect();
        say!("{}", json!({ "positions": positions }));
        return Ok(());
    }
    if rows.is_empty() {
        say!("no pipeline has a position yet");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["pipeline", "topic", "partition", "first", "next", "skipped", "epoch", "owner", "updated"]);
    for row in rows {
        let numbers = [row.seed_offset, row.next_offset, row.given_up, row.epoch].map(|number| number.to_string());
        let mut cells = vec![row.pipeline, row.topic, row.partition.to_string()];
        cells.extend(numbers);
        cells.extend([row.owner.unwrap_or_else(|| "none".into()), row.updated_at]);
        table.add_row(cells);
    }
    say!("{table}");
    Ok(())
}

fn object(row: &PositionRow) -> serde_json::Value {
    json!({
        "pipeline": row.pipeline, "topic": row.topic, "partition": row.partition, "seed_offset": row.seed_offset,
        "next_offset": row.next_offset, "given_up": row.given_up, "epoch": row.epoch, "owner": row.owner,
        "updated_at": row.updated_at,
    })
}

async fn skip(config: &Config, args: SkipArgs) -> Result<()> {
    if args.reason.trim().is_empty() {
        return Err(ConfigError("--reason is empty; say why the records are skipped".into()).into());
    }
    let store = store(config)?;
    store.migrate().await?;
    let partition = Partition { topic: args.topic.as_str().into(), number: args.partition };
    let (access, looked_at) = (BrokerSettings::new(&config.kafka)?, partition.clone());
    let (low, high) = tokio::task::spawn_blocking(move || source::watermarks(&access, &looked_at))
        .await?
        .with_context(|| format!("cannot look up the ends of {partition}"))?;
    let to = match args.to {
        SkipTarget::Earliest => low,
        SkipTarget::Offset(offset) if offset > high => {
            return Err(ConfigError(format!("--to {offset} is after the end of {partition}, which is {high}")).into());
        }
        SkipTarget::Offset(offset) => offset,
    };
    let skip = PositionSkip { pipeline: &args.pipeline, partition: &partition, to, reason: args.reason.trim(), by: &args.by };
    let skipped = store.skip_offsets(skip).await;
    store.close().await;
    let gap = skipped.map_err(|error| match error {
        PositionSkipError::Unavailable(transient) => anyhow::Error::from(transient),
        refusal => ConfigError(format!("pipeline {}, {partition}: {refusal}", args.pipeline)).into(),
    })?;
    if args.output.json {
        say!("{}", json!({ "from_offset": gap.from, "to_offset": gap.to, "epoch": gap.epoch }));
    } else {
        say!("{partition}: offsets {}..{} are skipped; pipeline {} continues at {to}", gap.from, gap.to, args.pipeline);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_offset_or_the_earliest() {
        assert_eq!("earliest".parse(), Ok(SkipTarget::Earliest));
        assert_eq!("17".parse(), Ok(SkipTarget::Offset(17)));
        for wrong in ["", "-1", "latest", "1.5", "99999999999999999999"] {
            assert!(wrong.parse::<SkipTarget>().is_err(), "{wrong} was accepted as a target");
        }
    }
}
