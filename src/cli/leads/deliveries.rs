//! `tidemill leads deliveries`.

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::Table;
use serde_json::json;
use uuid::Uuid;

use super::super::database::time;
use crate::cli::terminal;
use crate::leads::LeadService;
use crate::store::Store;

/// Which deliveries to list, or which one to send again.
#[derive(Debug, Args)]
pub(super) struct DeliveriesArgs {
    /// Only of this pipeline
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = ["waiting", "delivered", "refused", "given_up"])]
    state: Option<String>,
    /// Most deliveries
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Send this one again, which was refused or given up, under the id that it has
    #[arg(long, value_name = "ID", conflicts_with_all = ["pipeline", "state", "limit"])]
    resend: Option<Uuid>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Lists deliveries, the latest first, or sends one again.
pub(super) async fn run(book: &LeadService, store: &Store, args: DeliveriesArgs) -> Result<()> {
    if let Some(id) = args.resend {
        if !store.resend_delivery(id).await? {
            bail!("no delivery {id} was refused or given up; list them with `tidemill leads deliveries`");
        }
        match args.json {
            true => say!("{}", json!({ "resent": id })),
            false => say!("{id} is sent again by the next process that knows its webhook"),
        }
        return Ok(());
    }
    let deliveries = book.deliveries(args.pipeline.as_deref(), args.state.as_deref(), args.limit.into()).await?;
    if args.json {
        say!("{}", json!({ "deliveries": deliveries }));
        return Ok(());
    }
    if deliveries.is_empty() {
        say!("no deliveries");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["id", "document", "crossing", "webhook", "state", "attempts", "last answer", "next attempt"]);
    for delivery in &deliveries {
        table.add_row([
            delivery.id.clone(),
            terminal::name(&delivery.document_id),
            delivery.crossing.to_string(),
            delivery.webhook.clone(),
            delivery.state.clone(),
            delivery.attempts.to_string(),
            terminal::name(delivery.reason.as_deref().unwrap_or_default()),
            delivery.next_at_ms.map(time).unwrap_or_default(),
        ]);
    }
    say!("{table}");
    Ok(())
}
