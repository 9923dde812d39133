//! `tidemill leads show`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::{parts, usage};
use crate::cli::args::OutputArgs;
use crate::cli::database::time;
use crate::leads::{AccountView, LeadFact, LeadService, LeadView};
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The document's id
    id: String,
    /// The pipeline; needed only if several make leads
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows everything about the lead.
pub(super) async fn run(service: &LeadService, args: ShowArgs) -> Result<()> {
    let lead = service.lead(args.pipeline.as_deref(), &args.id).await.map_err(usage)?;
    match args.output.json {
        true => say!("{}", json!(lead)),
        false => print(&lead),
    }
    Ok(())
}

fn print(lead: &LeadView) {
    let LeadView { pipeline, summary, threshold, labels, facts, drafts, deliveries, about, .. } = lead;
    let side = if summary.above { "reaches" } else { "is below" };
    say!(
        "{} of {pipeline}: {} of {}, which {side} the threshold of {threshold}",
        escaped_line(&summary.document_id),
        summary.score,
        summary.maximum
    );
    say!("  {}", parts(summary));
    for (what, name) in [("company", &summary.company), ("person", &summary.person)] {
        if let Some(name) = name {
            say!("{what}: {}", escaped_line(name));
        }
    }
    for label in labels {
        let confidence = label.confidence.map(|confidence| format!(" ({confidence:.2})")).unwrap_or_default();
        say!("{}: {}{confidence}", label.task, escaped_line(&label.label));
    }
    for fact in facts.iter().filter(|fact| !fact.value.is_null()) {
        say!("{}{}: {}{}", fact.task, escaped_line(&fact.path), escaped_line(&value_text(&fact.value)), evidence(fact));
    }
    for draft in drafts {
        let model = draft.model.as_deref().map(|model| format!(", by {model}")).unwrap_or_default();
        say!("--- {}{model}", draft.task);
        draft.text.lines().for_each(|line| say!("{}", escaped_line(line)));
    }
    for delivery in deliveries {
        let reason = delivery.reason.as_deref().map(|reason| format!(": {}", escaped_line(reason))).unwrap_or_default();
        say!(
            "webhook {}, crossing {}: {} after {} attempts, {}{reason}",
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
    say!("--- {}: {} documents, last changed {}", escaped_line(&about.name), about.documents, time(about.updated_at_ms));
    for summary in &about.summaries {
        summary.text.lines().for_each(|line| say!("{}", escaped_line(line)));
    }
}

fn value_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn evidence(fact: &LeadFact) -> String {
    match (fact.grounded, fact.evidence) {
        (Some(false), _) => " (not stated in the document)".to_owned(),
        (_, Some(span)) => format!(" (bytes {} to {})", span.start, span.end),
        _ => String::new(),
    }
}
