//! `tidemill outbox`.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Map, Value, json};

use super::database::{Database, time};
use crate::config::{Config, ConfigError};
use crate::store::{ParkedEvent, ParkedEventFilter, Store};

/// Characters of a reason in the table; `--json` has all of it.
const REASON: usize = 400;

/// What can be done with the outbox.
#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// Events that are parked, because their topic could not take them, and how many wait for each topic
    List(ListArgs),
    /// Send parked events again, once what kept them out is mended
    Resend(ResendArgs),
    /// Give parked events up for good
    Drop(DropArgs),
}

/// What to list, and how.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only events for this topic
    #[arg(long)]
    topic: Option<String>,
    /// Most events
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Which events are meant.
#[derive(Debug, Args)]
struct ParkedFilterArgs {
    /// These events, as `list` numbers them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Every parked event for this topic
    #[arg(long)]
    topic: Option<String>,
    /// Every parked event
    #[arg(long, conflicts_with_all = ["ids", "topic"])]
    all: bool,
}

/// Which events to send again.
#[derive(Debug, Args)]
pub struct ResendArgs {
    #[command(flatten)]
    which: ParkedFilterArgs,
    /// Also those behind which a later event of the same topic and key went out: consumers that take the last for the newest then see
    /// the older one
    #[arg(long)]
    out_of_order: bool,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Which events to give up.
#[derive(Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    which: ParkedFilterArgs,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(mut config: Config, command: OutboxCommand) -> Result<()> {
    let ledger = Database::open(&mut config).await?;
    let done = match command {
        OutboxCommand::List(args) => list(&ledger.store, args).await,
        OutboxCommand::Resend(args) => resend(&ledger.store, args).await,
        OutboxCommand::Drop(args) => give_up(&ledger.store, args).await,
    };
    ledger.close().await?;
    done
}

impl ParkedFilterArgs {
    fn filter(self) -> Result<ParkedEventFilter> {
        if self.ids.is_empty() && self.topic.is_none() && !self.all {
            return Err(ConfigError("which events? name their ids, --topic, or --all".into()).into());
        }
        Ok(ParkedEventFilter { ids: self.ids, topic: self.topic })
    }
}

async fn list(store: &Store, args: ListArgs) -> Result<()> {
    let filter = ParkedEventFilter { ids: Vec::new(), topic: args.topic };
    let parked = store.reader(None).parked_events(&filter, args.limit.into()).await?;
    let waiting = store.waiting_events().await?;
    if args.json {
        let waiting: Map<String, Value> = waiting.into_iter().map(|(topic, events)| (topic, events.into())).collect();
        say!("{}", json!({ "parked": parked.iter().map(object).collect::<Vec<_>>(), "waiting": waiting }));
        return Ok(());
    }
    if parked.is_empty() {
        say!("no event is parked");
    } else {
        let mut table = Table::new();
        table.set_header(["id", "parked", "pipeline", "topic", "key", "bytes", "state", "reason"]);
        for event in &parked {
            table.add_row([
                event.id.to_string(),
                time(event.parked_ms),
                event.pipeline.clone().unwrap_or_default(),
                event.topic.clone(),
                event.key.clone().unwrap_or_default(),
                event.payload_bytes.to_string(),
                state(event).to_owned(),
                event.reason.chars().take(REASON).collect(),
            ]);
        }
        say!("{table}");
    }
    for (topic, events) in waiting {
        say!("{topic}: {events} events wait");
    }
    Ok(())
}

async fn resend(store: &Store, args: ResendArgs) -> Result<()> {
    let resent = store.resend_parked(&args.which.filter()?, args.out_of_order).await?;
    if args.json {
        say!("{}", json!({ "events": resent.events, "overtaken": resent.overtaken }));
        return Ok(());
    }
    say!("sends {} events again, as soon as a worker runs", resent.events);
    if resent.overtaken > 0 {
        let left = resent.overtaken;
        say!(
            "leaves {left} events: a later one of the same topic and key went out since; drop them, or send them with --out-of-order"
        );
    }
    Ok(())
}

async fn give_up(store: &Store, args: DropArgs) -> Result<()> {
    let events = store.drop_parked(&args.which.filter()?).await?;
    match args.json {
        true => say!("{}", json!({ "events": events })),
        false => say!("gave {events} events up"),
    }
    Ok(())
}

fn state(event: &ParkedEvent) -> &'static str {
    match (event.resend, event.overtaken) {
        (true, _) => "to be sent again",
        (false, true) => "overtaken",
        (false, false) => "parked",
    }
}

fn object(event: &ParkedEvent) -> Value {
    json!({
        "id": event.id,
        "pipeline": event.pipeline,
        "topic": event.topic,
        "key": event.key,
        "payload_bytes": event.payload_bytes,
        "state": state(event),
        "reason": event.reason,
        "parked_at": time(event.parked_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_meant_only_where_that_is_said() {
        let which = |ids: &[i64], topic: Option<&str>, all| {
            ParkedFilterArgs { ids: ids.to_vec(), topic: topic.map(str::to_owned), all }.filter()
        };
        assert!(which(&[], None, false).is_err());
        assert_eq!(which(&[], None, true).unwrap(), ParkedEventFilter::default());
        assert_eq!(which(&[3], Some("t"), false).unwrap(), ParkedEventFilter { ids: vec![3], topic: Some("t".into()) });
    }
}
