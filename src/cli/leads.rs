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

use super::database::{Database, time};
use super::definitions;
use crate::cli::terminal;
use crate::config::{Config, ConfigError, Flag};
use crate::leads::{LeadError, LeadQuery, LeadService, LeadSummary};

/// Which leads, and what to do with them.
#[derive(Debug, Args)]
pub struct LeadsArgs {
    #[command(subcommand)]
    command: LeadsCommand,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What can be done with leads.
#[derive(Debug, Subcommand)]
enum LeadsCommand {
    /// The leads, the highest score first
    List(ListArgs),
    /// Everything about one lead: the score's parts, facts with their evidence, drafts, and who was told
    Show(show::ShowArgs),
    /// All leads as CSV, on stdout or into a file
    Export(ExportArgs),
    /// Who was told that a lead came up to the threshold, and sending it again where that failed
    Deliveries(deliveries::DeliveriesArgs),
}

/// Which leads are meant.
#[derive(Debug, Args)]
struct LeadFilterArgs {
    /// The pipeline; may be left out where there is one that makes leads
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// The order: score, -updated or updated
    #[arg(long, value_name = "ORDER", default_value = "score")]
    sort: String,
    /// Only with at least this score
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f64>,
    /// Only of this company, however its name is written
    #[arg(long, value_name = "NAME")]
    company: Option<String>,
    /// Only in this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
}

/// Which leads to list, and how.
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    which: LeadFilterArgs,
    /// Most leads
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: i64,
    /// The `next` of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Which leads to export, and where to.
#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    which: LeadFilterArgs,
    /// The file; stdout unless told
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl LeadsArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

impl LeadFilterArgs {
    fn question(self) -> LeadQuery {
        let Self { pipeline, sort, min_score, company, stage } = self;
        LeadQuery { pipeline, sort: Some(sort), min_score, company, stage, ..LeadQuery::default() }
    }
}

/// Runs the command.
pub async fn run(mut config: Config, args: LeadsArgs) -> Result<()> {
    let definitions = definitions(&config, None)?;
    let ledger = Database::open(&mut config).await?;
    let book = LeadService::new(ledger.store.clone(), &definitions);
    let done = match args.command {
        LeadsCommand::List(args) => list(&book, args).await,
        LeadsCommand::Show(args) => show::run(&book, args).await,
        LeadsCommand::Export(args) => export(&book, args).await,
        LeadsCommand::Deliveries(args) => deliveries::run(&book, &ledger.store, args).await,
    };
    ledger.close().await?;
    done
}

/// What a caller asked wrongly is a fault of the usage.
fn fault(error: LeadError) -> anyhow::Error {
    match error {
        LeadError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

async fn list(book: &LeadService, args: ListArgs) -> Result<()> {
    let question = LeadQuery { limit: Some(args.limit), cursor: args.cursor, ..args.which.question() };
    let page = book.list(&question).await.map_err(fault)?;
    if args.json {
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
            terminal::name(&lead.document_id),
            terminal::name(lead.company.as_deref().unwrap_or_default()),
            terminal::name(lead.person.as_deref().unwrap_or_default()),
            terminal::name(lead.stage.as_deref().unwrap_or_default()),
            terminal::name(lead.intent.as_deref().unwrap_or_default()),
            time(lead.updated_at_ms),
        ]);
    }
    say!("{table}");
    say!("* from {} on a lead is told of", page.threshold);
    if let Some(next) = page.next {
        say!("there may be more: --cursor {next}");
    }
    Ok(())
}

async fn export(book: &LeadService, args: ExportArgs) -> Result<()> {
    let rows = book.export(&args.which.question()).map_err(fault)?;
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

/// What adds up to the score, without what adds nothing.
fn parts(lead: &LeadSummary) -> String {
    let parts = lead.parts.iter().filter(|part| part.value != 0.0);
    parts.map(|part| format!("{} {}", part.name, part.value)).collect::<Vec<_>>().join(", ")
}
