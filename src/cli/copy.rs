//! `tidemill copy`: what pages say of documents, and what people decide on it. The ledger is all it needs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::Table;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use super::database::{Database, caller, time};
use super::{definitions, terminal};
use crate::config::{Config, ConfigError, Flag};
use crate::copy::{CopyError, CopyService, CopyView, DecisionRequest, ExportFormat, MAX_COPIES, PAGES_PER_SITEMAP};
use crate::did_you_mean::suggestion;
use crate::outcome::{Check, CheckFailure};
use crate::store::{CopyState, CopyVersion};

/// What about copy.
#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(subcommand)]
    command: CopyCommand,
    /// The catalogue: its pipeline's name or file; may be left out where there is one
    #[arg(long, global = true, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One JSON object on the last line of stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CopyCommand {
    /// What waits to be decided, or stands in another state
    List(ListArgs),
    /// The copy of a document: what it says, what speaks against it, where its facts come from, and every version
    Show(ShowArgs),
    /// Put a version on its page
    Approve(ApproveArgs),
    /// Refuse a version, or take a page down
    Reject(DecideArgs),
    /// Write a version anew, from a file of JSON; it waits to be approved
    Edit(EditArgs),
    /// Write what is on the pages into a file
    Export(ExportArgs),
    /// Write the sitemap of the pages: one file, or several with an index
    Sitemap(SitemapArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// In this state
    #[arg(long, value_enum, default_value = "review")]
    state: CopyState,
    /// Most versions, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=MAX_COPIES))]
    limit: i64,
    /// The page behind the one that ended with this cursor
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
    /// The version that you have seen
    #[arg(long, value_name = "N")]
    version: i32,
    /// What you say of it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    #[command(flatten)]
    decision: DecideArgs,
    /// A check that speaks against it and is overruled: banned, claims, quoted, grounded, unique; may be given more than once
    #[arg(long, value_name = "CHECK")]
    despite: Vec<String>,
}

#[derive(Debug, Args)]
struct EditArgs {
    #[command(flatten)]
    decision: DecideArgs,
    /// A file with the whole content as it should be, a JSON object; `-` is stdin
    #[arg(long, value_name = "FILE")]
    content: PathBuf,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Comma-separated values, or Parquet
    #[arg(long, value_enum, default_value = "csv")]
    format: ExportFormat,
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct SitemapArgs {
    /// The folder to write to: `sitemap.xml`, and where there are more than 20,000 pages `sitemap-1.xml` and so on, which it names
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl CopyArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Asks the editors' desk.
pub async fn run(mut config: Config, args: CopyArgs) -> Result<()> {
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    // The name stands in the file where a file was given.
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let ledger = Database::open(&mut config).await?;
    let desk = CopyService::new(ledger.store.clone(), &definitions);
    let done = ask(&desk, name, args.command, args.json).await;
    ledger.close().await?;
    done.map_err(|error| match error.downcast::<CopyError>() {
        Ok(CopyError::Invalid(message)) => ConfigError(message).into(),
        Ok(other) => other.into(),
        Err(error) => error,
    })
}

async fn ask(desk: &CopyService, pipeline: Option<String>, command: CopyCommand, as_json: bool) -> Result<()> {
    let verdict = |decision: DecideArgs| DecisionRequest {
        pipeline: pipeline.clone(),
        document_id: decision.document,
        version: decision.version,
        by: caller(),
        note: decision.note,
    };
    let name = pipeline.as_deref();
    match command {
        CopyCommand::List(args) => {
            let queue = desk.list(name, args.state, args.limit, args.cursor.as_deref()).await?;
            if as_json {
                say!("{}", json!(queue));
                return Ok(());
            }
            list(&queue.copies, args.state);
            say!("{} wait for a person", queue.in_review);
            if let Some(next) = queue.next {
                say!("further ones: --cursor {next}");
            }
        }
        CopyCommand::Show(args) => {
            let view = desk.show(name, &args.document).await?;
            match as_json {
                true => say!("{}", json!(view)),
                false => show(&view),
            }
        }
        CopyCommand::Approve(args) => {
            let despite = args.despite.iter().map(|word| check(word)).collect::<Result<Vec<Check>>>()?;
            tell(&desk.approve(verdict(args.decision), &despite).await?, as_json);
        }
        CopyCommand::Reject(args) => tell(&desk.reject(verdict(args)).await?, as_json),
        CopyCommand::Edit(args) => {
            let content = content(&args.content)?;
            tell(&desk.edit(verdict(args.decision), content).await?, as_json);
        }
        CopyCommand::Export(args) => export(desk, name, &args, as_json).await?,
        CopyCommand::Sitemap(args) => sitemap(desk, name, &args, as_json).await?,
    }
    Ok(())
}

fn check(word: &str) -> Result<Check> {
    let known = Check::ALL.into_iter().filter(|check| check.may_be_overruled());
    let found = known.clone().find(|check| check.as_str() == word);
    found.ok_or_else(|| {
        let near = suggestion(word, known.map(Check::as_str).collect::<Vec<_>>());
        ConfigError(format!("--despite `{word}` is no check that can be overruled; {near}")).into()
    })
}

fn content(file: &Path) -> Result<Map<String, Value>> {
    let read = || match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = read().map_err(|error| ConfigError(format!("--content {}: {error}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| ConfigError(format!("--content {}: the content is no JSON object: {error}", file.display())).into())
}

async fn export(desk: &CopyService, pipeline: Option<&str>, args: &ExportArgs, as_json: bool) -> Result<()> {
    let cannot = || format!("cannot write {}", args.output.display());
    let mut pieces = Box::pin(desk.export(pipeline, args.format)?);
    let mut file = std::fs::File::create_new(&args.output).with_context(cannot)?;
    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        file.write_all(&piece).with_context(cannot)?;
        bytes += piece.len();
    }
    file.sync_all().with_context(cannot)?;
    match as_json {
        true => say!("{}", json!({ "file": args.output, "bytes": bytes })),
        false => say!("{}: {bytes} bytes", args.output.display()),
    }
    Ok(())
}

async fn sitemap(desk: &CopyService, pipeline: Option<&str>, args: &SitemapArgs, as_json: bool) -> Result<()> {
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make the folder {}", args.output.display()))?;
    let mut files = Vec::new();
    let mut write = |name: String, xml: &str| {
        let path = args.output.join(name);
        // Whoever serves the folder must never see half a file.
        let partial = path.with_extension("xml.partial");
        std::fs::write(&partial, xml)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
        Ok::<_, anyhow::Error>(())
    };
    let first = desk.sitemap(pipeline, None).await?;
    let count = if first.contains("<sitemapindex") { first.matches("<sitemap>").count() } else { 0 };
    for number in 1..=count {
        // Pages may have gone since the index was made, and the last file with them.
        match desk.sitemap(pipeline, Some(number as i64)).await {
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
        say!("nothing is in state {}", state.as_str());
        return;
    }
    let mut table = Table::new();
    table.set_header(["catalogue", "document", "version", "by", "says", "against it", "since"]);
    for copy in copies {
        table.add_row([
            copy.pipeline.clone(),
            terminal::name(&copy.document_id),
            copy.version.to_string(),
            copy.created_by.clone().unwrap_or_else(|| "the pipeline".into()),
            headline(&copy.content),
            against(&copy.reasons),
            time(copy.decided_ms.unwrap_or(copy.created_ms)),
        ]);
    }
    say!("{table}");
}

fn show(view: &CopyView) {
    say!("{} of {}", terminal::name(&view.document_id), view.pipeline);
    if let Some(current) = &view.current {
        say!("version {} is in state {}:", current.version, current.state.as_str());
        for (name, value) in &current.content {
            match value {
                Value::String(text) => say!("  {name}: {}", terminal::name(text)),
                other => say!("  {name}: {other}"),
            }
        }
        for reason in &current.reasons {
            say!("  {}: {}", reason.check, terminal::name(&reason.message));
        }
        for trace in &current.traces {
            say!("  {} says {}, from {}", &trace.path[1..], terminal::name(&trace.says), json!(trace.from));
        }
    }
    let mut table = Table::new();
    table.set_header(["version", "state", "by", "says", "came", "decided", "by", "note"]);
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

fn tell(version: &CopyVersion, as_json: bool) {
    let CopyVersion { document_id, version: number, state, url, .. } = version;
    match as_json {
        true => say!("{}", json!(version)),
        false => say!(
            "{}: version {number} is in state {}{}",
            terminal::name(document_id),
            state.as_str(),
            url.as_ref().map(|url| format!(", {url}")).unwrap_or_default()
        ),
    }
}

/// The first text of an object, which is its title in most.
fn headline(content: &Map<String, Value>) -> String {
    content.values().find_map(Value::as_str).map(terminal::name).unwrap_or_default()
}

fn against(reasons: &[CheckFailure]) -> String {
    reasons.iter().map(|reason| terminal::name(&reason.message)).collect::<Vec<_>>().join("; ")
}
