//! `tidemill leads deliveries`.

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::Table;
use serde_json::json;
use uuid::Uuid;

use crate::cli::args::OutputArgs;
use crate::cli::database::time;
use crate::leads::LeadService;
use crate::store::Store;
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub(super) struct DeliveriesArgs {
    /// Only deliveries of this pipeline
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Only deliveries in this state
    #[arg(long, value_name = "STATE", value_parser = ["waiting", "delivered", "refused", "given_up"])]
    state: Option<String>,
    /// The most deliveries
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Resend this delivery, which was refused or given up, with the same id
    #[arg(long, value_name = "ID", conflicts_with_all = ["pipeline", "state", "limit"])]
    resend: Option<Uuid>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists deliveries, the latest first, or resends one.
pub(super) async fn run(service: &LeadService, store: &Store, args: DeliveriesArgs) -> Result<()> {
    if let Some(id) = args.resend {
        if !store.resend_delivery(id).await? {
            bail!("there is no refused or given up delivery {id}; `tidemill leads deliveries` lists them");
        }
        match args.output.json {
            true => say!("{}", json!({ "resent": id })),
            false => say!("a running service that has the webhook configured will resend {id}"),
        }
        return Ok(());
    }
    let deliveries = service.deliveries(args.pipeline.as_deref(), args.state.as_deref(), args.limit.into()).await?;
    if args.output.json {
        say!("{}", json!({ "deliveries": deliveries }));
        return Ok(());
    }
    if deliveries.is_empty() {
        say!("no deliveries");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["id", "document", "crossing", "webhook", "state", "attempts", "last response", "next attempt"]);
    for delivery in &deliveries {
        table.add_row([
            delivery.id.clone(),
            escaped_line(&delivery.document_id),
            delivery.crossing.to_string(),
            delivery.webhook.clone(),
            delivery.state.clone(),
            delivery.attempts.to_string(),
            escaped_line(delivery.reason.as_deref().unwrap_or_default()),
            delivery.next_at_ms.map(time).unwrap_or_default(),
        ]);
    }
    say!("{table}");
    Ok(())
}
