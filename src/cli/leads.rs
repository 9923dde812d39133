//! `tidemill leads`.

mod deliveries;
mod show;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::Table;
use futures::TryStreamExt;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs};
use super::database::{Database, time};
use super::definitions;
use crate::config::{Config, ConfigError};
use crate::leads::{LeadError, LeadQuery, LeadService, LeadSummary};
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub struct LeadsArgs {
    #[command(subcommand)]
    command: LeadsCommand,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

#[derive(Debug, Subcommand)]
enum LeadsCommand {
    /// List leads, by default the highest score first
    List(ListArgs),
    /// Show everything about one lead: the parts of its score, facts with their evidence, drafts and deliveries
    Show(show::ShowArgs),
    /// Write all leads as CSV, to stdout or to a file
    Export(ExportArgs),
    /// List deliveries of leads to webhooks, or resend one that failed
    Deliveries(deliveries::DeliveriesArgs),
}

#[derive(Debug, Args)]
struct LeadFilterArgs {
    /// The pipeline; needed only if several make leads
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// The order: score (highest first), -updated (latest first) or updated (earliest first)
    #[arg(long, value_name = "ORDER", default_value = "score")]
    sort: String,
    /// Only leads with at least this score
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f64>,
    /// Only leads of this company; spellings of its name count as one
    #[arg(long, value_name = "NAME")]
    company: Option<String>,
    /// Only leads in this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: LeadFilterArgs,
    /// The most leads
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: i64,
    /// The next page, after the one that printed this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    filter: LeadFilterArgs,
    /// The file to write; by default stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl LeadFilterArgs {
    fn query(self) -> LeadQuery {
        let Self { pipeline, sort, min_score, company, stage } = self;
        LeadQuery { pipeline, sort: Some(sort), min_score, company, stage, ..LeadQuery::default() }
    }
}

/// Runs `tidemill leads`.
pub async fn run(mut config: Config, args: LeadsArgs) -> Result<()> {
    let definitions = definitions(&config, None)?;
    let database = Database::open(&mut config).await?;
    let service = LeadService::new(database.store.clone(), &definitions);
    let done = match args.command {
        LeadsCommand::List(args) => list(&service, args).await,
        LeadsCommand::Show(args) => show::run(&service, args).await,
        LeadsCommand::Export(args) => export(&service, args).await,
        LeadsCommand::Deliveries(args) => deliveries::run(&service, &database.store, args).await,
    };
    database.close().await?;
    done
}

/// An invalid query is a usage error.
fn usage(error: LeadError) -> anyhow::Error {
    match error {
        LeadError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

async fn list(service: &LeadService, args: ListArgs) -> Result<()> {
    let question = LeadQuery { limit: Some(args.limit), cursor: args.cursor, ..args.filter.query() };
    let page = service.list(&question).await.map_err(usage)?;
    if args.output.json {
        say!("{}", json!(page));
        return Ok(());
    }
    if page.leads.is_empty() {
        say!("no leads");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["score", "parts", "document", "company", "person", "stage", "intent", "changed"]);
    for lead in &page.leads {
        table.add_row([
            format!("{}{}", lead.score, if lead.above { " *" } else { "" }),
            parts(lead),
            escaped_line(&lead.document_id),
            escaped_line(lead.company.as_deref().unwrap_or_default()),
            escaped_line(lead.person.as_deref().unwrap_or_default()),
            escaped_line(lead.stage.as_deref().unwrap_or_default()),
            escaped_line(lead.intent.as_deref().unwrap_or_default()),
            time(lead.updated_at_ms),
        ]);
    }
    say!("{table}");
    say!("* the score reaches the threshold of {}", page.threshold);
    if let Some(next) = page.next {
        say!("more leads: --cursor {next}");
    }
    Ok(())
}

async fn export(service: &LeadService, args: ExportArgs) -> Result<()> {
    let rows = service.export(&args.filter.query()).map_err(usage)?;
    let mut output: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
        None => Box::new(std::io::stdout()),
    };
    let mut rows = std::pin::pin!(rows);
    while let Some(text) = rows.try_next().await? {
        output.write_all(text.as_bytes()).context("cannot write the leads")?;
    }
    output.flush().context("cannot write the leads")
}

/// The parts of the score, without those that are 0.
fn parts(lead: &LeadSummary) -> String {
    let parts = lead.parts.iter().filter(|part| part.value != 0.0);
    parts.map(|part| format!("{} {}", part.name, part.value)).collect::<Vec<_>>().join(", ")
}
