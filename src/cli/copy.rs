//! `tidemill copy`: lists page copy and records what people decide on it. It needs the database only.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::Table;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::{Database, caller, time};
use crate::config::{Config, ConfigError};
use crate::copy::{CopyError, CopyService, CopyView, DecisionRequest, ExportFormat, MAX_COPIES, PAGES_PER_SITEMAP};
use crate::did_you_mean::suggestion;
use crate::outcome::{Check, CheckFailure};
use crate::store::{CopyState, CopyVersion};
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(subcommand)]
    command: CopyCommand,
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum CopyCommand {
    /// List versions that wait for a decision, or that are in another state
    List(ListArgs),
    /// Show a document's copy: the text, the checks that it fails, where its facts come from, and every version
    Show(ShowArgs),
    /// Publish a version on its page
    Approve(ApproveArgs),
    /// Reject a version, or take a page down
    Reject(DecideArgs),
    /// Add an edited version from a JSON file; it waits for approval
    Edit(EditArgs),
    /// Write the published copy to a file
    Export(ExportArgs),
    /// Write the sitemap of the pages: one file, or several with an index
    Sitemap(SitemapArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only versions in this state
    #[arg(long, value_enum, default_value = "review")]
    state: CopyState,
    /// The most versions, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=MAX_COPIES))]
    limit: i64,
    /// The next page, after the one that printed this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The document's id
    document: String,
}

#[derive(Debug, Args)]
struct DecideArgs {
    /// The document's id
    document: String,
    /// The version that you looked at
    #[arg(long, value_name = "N")]
    version: i32,
    /// A note to store with the decision
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    #[command(flatten)]
    decision: DecideArgs,
    /// A failed check to overrule: banned, claims, quoted, grounded or unique; may be given more than once
    #[arg(long, value_name = "CHECK")]
    despite: Vec<String>,
}

#[derive(Debug, Args)]
struct EditArgs {
    #[command(flatten)]
    decision: DecideArgs,
    /// The file with the whole new content, a JSON object; `-` is stdin
    #[arg(long, value_name = "FILE")]
    content: PathBuf,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// CSV or Parquet
    #[arg(long, value_enum, default_value = "csv")]
    format: ExportFormat,
    /// The file to write; it must not exist
    #[arg(long = "output", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct SitemapArgs {
    /// The folder to write to: `sitemap.xml`, and for more than 20,000 pages `sitemap-1.xml` and so on, which it lists
    #[arg(long = "output", value_name = "DIR")]
    folder: PathBuf,
}

/// Runs `tidemill copy`.
pub async fn run(mut config: Config, args: CopyArgs) -> Result<()> {
    let (definitions, name) = args.pipeline.load(&config)?;
    let database = Database::open(&mut config).await?;
    let service = CopyService::new(database.store.clone(), &definitions);
    let done = carry_out(&service, name, args.command, args.output.json).await;
    database.close().await?;
    done.map_err(|error| match error.downcast::<CopyError>() {
        Ok(CopyError::Invalid(message)) => ConfigError(message).into(),
        Ok(other) => other.into(),
        Err(error) => error,
    })
}

async fn carry_out(service: &CopyService, pipeline: Option<String>, command: CopyCommand, as_json: bool) -> Result<()> {
    let request = |decision: DecideArgs| DecisionRequest {
        pipeline: pipeline.clone(),
        document_id: decision.document,
        version: decision.version,
        by: caller(),
        note: decision.note,
    };
    let name = pipeline.as_deref();
    match command {
        CopyCommand::List(args) => {
            let queue = service.list(name, args.state, args.limit, args.cursor.as_deref()).await?;
            if as_json {
                say!("{}", json!(queue));
                return Ok(());
            }
            list(&queue.copies, args.state);
            say!("{} versions wait for a decision", queue.in_review);
            if let Some(next) = queue.next {
                say!("more versions: --cursor {next}");
            }
        }
        CopyCommand::Show(args) => {
            let view = service.show(name, &args.document).await?;
            match as_json {
                true => say!("{}", json!(view)),
                false => show(&view),
            }
        }
        CopyCommand::Approve(args) => {
            let overruled = args.despite.iter().map(|word| overrulable(word)).collect::<Result<Vec<Check>>>()?;
            print_decided(&service.approve(request(args.decision), &overruled).await?, as_json);
        }
        CopyCommand::Reject(args) => print_decided(&service.reject(request(args)).await?, as_json),
        CopyCommand::Edit(args) => {
            let content = content(&args.content)?;
            print_decided(&service.edit(request(args.decision), content).await?, as_json);
        }
        CopyCommand::Export(args) => export(service, name, &args, as_json).await?,
        CopyCommand::Sitemap(args) => sitemap(service, name, &args, as_json).await?,
    }
    Ok(())
}

fn overrulable(word: &str) -> Result<Check> {
    let known = Check::ALL.into_iter().filter(|check| check.may_be_overruled());
    let found = known.clone().find(|check| check.as_str() == word);
    found.ok_or_else(|| {
        let near = suggestion(word, known.map(Check::as_str).collect::<Vec<_>>());
        ConfigError(format!("--despite `{word}` is not a check that can be overruled; {near}")).into()
    })
}

fn content(file: &Path) -> Result<Map<String, Value>> {
    let read = || match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = read().map_err(|error| ConfigError(format!("--content {}: {error}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| ConfigError(format!("--content {}: the content is not a JSON object: {error}", file.display())).into())
}

async fn export(service: &CopyService, pipeline: Option<&str>, args: &ExportArgs, as_json: bool) -> Result<()> {
    let cannot = || format!("cannot write {}", args.file.display());
    let mut pieces = Box::pin(service.export(pipeline, args.format)?);
    let mut file = std::fs::File::create_new(&args.file).with_context(cannot)?;
    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        file.write_all(&piece).with_context(cannot)?;
        bytes += piece.len();
    }
    file.sync_all().with_context(cannot)?;
    match as_json {
        true => say!("{}", json!({ "file": args.file, "bytes": bytes })),
        false => say!("{}: {bytes} bytes", args.file.display()),
    }
    Ok(())
}

async fn sitemap(service: &CopyService, pipeline: Option<&str>, args: &SitemapArgs, as_json: bool) -> Result<()> {
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot create the folder {}", args.folder.display()))?;
    let mut files = Vec::new();
    let mut write = |name: String, xml: &str| {
        let path = args.folder.join(name);
        // A web server that serves the folder must never see half a file.
        let partial = path.with_extension("xml.partial");
        std::fs::write(&partial, xml)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
        Ok::<_, anyhow::Error>(())
    };
    let first = service.sitemap(pipeline, None).await?;
    let count = if first.contains("<sitemapindex") { first.matches("<sitemap>").count() } else { 0 };
    for number in 1..=count {
        // Pages may have been removed since the index was written, and the last file with them.
        match service.sitemap(pipeline, Some(number as i64)).await {
            Ok(xml) => write(format!("sitemap-{number}.xml"), &xml)?,
            Err(CopyError::Invalid(_)) if number > 1 => break,
            Err(error) => return Err(error.into()),
        }
    }
    write("sitemap.xml".into(), &first)?;
    match as_json {
        true => say!("{}", json!({ "files": files, "pages_per_file": PAGES_PER_SITEMAP })),
        false => files.iter().for_each(|file| say!("{}", file.display())),
    }
    Ok(())
}

fn list(copies: &[CopyVersion], state: CopyState) {
    if copies.is_empty() {
        say!("no version is in state {}", state.as_str());
        return;
    }
    let mut table = Table::new();
    table.set_header(["pipeline", "document", "version", "by", "title", "failed checks", "since"]);
    for copy in copies {
        table.add_row([
            copy.pipeline.clone(),
            escaped_line(&copy.document_id),
            copy.version.to_string(),
            copy.created_by.clone().unwrap_or_else(|| "the pipeline".into()),
            headline(&copy.content),
            failed_checks(&copy.reasons),
            time(copy.decided_ms.unwrap_or(copy.created_ms)),
        ]);
    }
    say!("{table}");
}

fn show(view: &CopyView) {
    say!("{} of {}", escaped_line(&view.document_id), view.pipeline);
    if let Some(current) = &view.current {
        say!("version {} is in state {}:", current.version, current.state.as_str());
        for (name, value) in &current.content {
            match value {
                Value::String(text) => say!("  {name}: {}", escaped_line(text)),
                other => say!("  {name}: {other}"),
            }
        }
        for reason in &current.reasons {
            say!("  {}: {}", reason.check, escaped_line(&reason.message));
        }
        for trace in &current.traces {
            say!("  {} says {}, from {}", &trace.path[1..], escaped_line(&trace.says), json!(trace.from));
        }
    }
    let mut table = Table::new();
    table.set_header(["version", "state", "created by", "title", "created", "decided", "decided by", "note"]);
    for version in &view.versions {
        table.add_row([
            version.version.to_string(),
            version.state.as_str().to_owned(),
            version.created_by.clone().unwrap_or_else(|| "the pipeline".into()),
            headline(&version.content),
            time(version.created_ms),
            version.decided_ms.map(time).unwrap_or_default(),
            version.decided_by.clone().unwrap_or_default(),
            version.note.clone().unwrap_or_default(),
        ]);
    }
    say!("{table}");
}

fn print_decided(version: &CopyVersion, as_json: bool) {
    let CopyVersion { document_id, version: number, state, url, .. } = version;
    match as_json {
        true => say!("{}", json!(version)),
        false => say!(
            "{}: version {number} is in state {}{}",
            escaped_line(document_id),
            state.as_str(),
            url.as_ref().map(|url| format!(", {url}")).unwrap_or_default()
        ),
    }
}

/// The first text of an object, which is usually its title.
fn headline(content: &Map<String, Value>) -> String {
    content.values().find_map(Value::as_str).map(escaped_line).unwrap_or_default()
}

fn failed_checks(reasons: &[CheckFailure]) -> String {
    reasons.iter().map(|reason| escaped_line(&reason.message)).collect::<Vec<_>>().join("; ")
}
