//! `tidemill leads show`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::super::database::time;
use super::{fault, parts};
use crate::cli::terminal;
use crate::leads::{AccountView, LeadFact, LeadService, LeadView};

/// Which lead to show, and how.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The document's id
    id: String,
    /// The pipeline; may be left out where there is one that makes leads
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Shows everything about the lead.
pub(super) async fn run(book: &LeadService, args: ShowArgs) -> Result<()> {
    let lead = book.lead(args.pipeline.as_deref(), &args.id).await.map_err(fault)?;
    match args.json {
        true => say!("{}", json!(lead)),
        false => print(&lead),
    }
    Ok(())
}

fn print(lead: &LeadView) {
    let LeadView { pipeline, summary, threshold, labels, facts, drafts, deliveries, about, .. } = lead;
    let side = if summary.above { "reaches" } else { "stays below" };
    say!(
        "{} of {pipeline}: {} of {}, which {side} {threshold}",
        terminal::name(&summary.document_id),
        summary.score,
        summary.maximum
    );
    say!("  {}", parts(summary));
    for (what, name) in [("company", &summary.company), ("person", &summary.person)] {
        if let Some(name) = name {
            say!("{what}: {}", terminal::name(name));
        }
    }
    for label in labels {
        let sure = label.confidence.map(|confidence| format!(" ({confidence:.2})")).unwrap_or_default();
        say!("{}: {}{sure}", label.task, terminal::name(&label.label));
    }
    for fact in facts.iter().filter(|fact| !fact.value.is_null()) {
        say!("{}{}: {}{}", fact.task, terminal::name(&fact.path), terminal::name(&said(&fact.value)), evidence(fact));
    }
    for draft in drafts {
        let model = draft.model.as_deref().map(|model| format!(", by {model}")).unwrap_or_default();
        say!("--- {}{model}", draft.task);
        draft.text.lines().for_each(|line| say!("{}", terminal::name(line)));
    }
    for delivery in deliveries {
        let reason = delivery.reason.as_deref().map(|reason| format!(": {}", terminal::name(reason))).unwrap_or_default();
        say!(
            "told {} of crossing {}: {} after {} attempts, {}{reason}",
            delivery.webhook,
            delivery.crossing,
            delivery.state,
            delivery.attempts,
            time(delivery.updated_at_ms)
        );
    }
    if let Some(about) = about {
        company(about);
    }
}

fn company(about: &AccountView) {
    say!("--- {}: {} documents, last changed {}", terminal::name(&about.name), about.documents, time(about.updated_at_ms));
    for summary in &about.summaries {
        summary.text.lines().for_each(|line| say!("{}", terminal::name(line)));
    }
}

fn said(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn evidence(fact: &LeadFact) -> String {
    match (fact.grounded, fact.evidence) {
        (Some(false), _) => " (the document does not say it)".to_owned(),
        (_, Some(span)) => format!(" (bytes {} to {})", span.start, span.end),
        _ => String::new(),
    }
}
