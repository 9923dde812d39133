//! `tidemill outbox`.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Map, Value, json};

use super::args::OutputArgs;
use super::database::{Database, time};
use crate::config::{Config, ConfigError};
use crate::store::{ParkedEvent, ParkedEventFilter, Store};

/// The most characters of a reason in the table; `--json` has all of it.
const REASON_CHARACTERS: usize = 400;

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// List parked events, which their topic refused, and how many events wait for each topic
    List(ListArgs),
    /// Resend parked events, after the cause is fixed
    Resend(ResendArgs),
    /// Delete parked events
    Drop(DropArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only events for this topic
    #[arg(long)]
    topic: Option<String>,
    /// The most events
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct ParkedFilterArgs {
    /// The ids of events, as `list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Every parked event for this topic
    #[arg(long)]
    topic: Option<String>,
    /// Every parked event
    #[arg(long, conflicts_with_all = ["ids", "topic"])]
    all: bool,
}

#[derive(Debug, Args)]
pub struct ResendArgs {
    #[command(flatten)]
    filter: ParkedFilterArgs,
    /// Also resend events that a later event of the same topic and key has overtaken; consumers that take the last event for the
    /// newest then see the older one
    #[arg(long)]
    out_of_order: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    filter: ParkedFilterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `tidemill outbox`.
pub async fn run(mut config: Config, command: OutboxCommand) -> Result<()> {
    let database = Database::open(&mut config).await?;
    let done = match command {
        OutboxCommand::List(args) => list(&database.store, args).await,
        OutboxCommand::Resend(args) => resend(&database.store, args).await,
        OutboxCommand::Drop(args) => drop_events(&database.store, args).await,
    };
    database.close().await?;
    done
}

impl ParkedFilterArgs {
    fn filter(self) -> Result<ParkedEventFilter> {
        if self.ids.is_empty() && self.topic.is_none() && !self.all {
            return Err(ConfigError("no events are named; give their ids, --topic or --all".into()).into());
        }
        Ok(ParkedEventFilter { ids: self.ids, topic: self.topic })
    }
}

async fn list(store: &Store, args: ListArgs) -> Result<()> {
    let filter = ParkedEventFilter { ids: Vec::new(), topic: args.topic };
    let parked = store.reader(None).parked_events(&filter, args.limit.into()).await?;
    let waiting = store.waiting_events().await?;
    if args.output.json {
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
                event.reason.chars().take(REASON_CHARACTERS).collect(),
            ]);
        }
        say!("{table}");
    }
    for (topic, events) in waiting {
        say!("{topic}: {events} events wait to be published");
    }
    Ok(())
}

async fn resend(store: &Store, args: ResendArgs) -> Result<()> {
    let resent = store.resend_parked(&args.filter.filter()?, args.out_of_order).await?;
    if args.output.json {
        say!("{}", json!({ "events": resent.events, "overtaken": resent.overtaken }));
        return Ok(());
    }
    say!("{} events will be published again by a running worker", resent.events);
    if resent.overtaken > 0 {
        say!(
            "{} events stay parked: a later event of the same topic and key was published; drop them, or resend with --out-of-order",
            resent.overtaken
        );
    }
    Ok(())
}

async fn drop_events(store: &Store, args: DropArgs) -> Result<()> {
    let events = store.drop_parked(&args.filter.filter()?).await?;
    match args.output.json {
        true => say!("{}", json!({ "events": events })),
        false => say!("{events} events dropped"),
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
