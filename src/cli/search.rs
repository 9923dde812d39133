//! `tidemill search`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{definitions, engine, store, terminal};
use crate::config::{Config, ConfigError, Flag};
use crate::demo::defaults::{with_database, with_models};
use crate::search::{DEFAULT_LIMIT, FilterClause, Mode, SearchError, SearchRequest, SearchResult, Searcher};
use crate::store::Fusion;

/// What to search for, and where.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for
    query: String,
    /// The pipeline whose documents are searched: its name or its file
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// By meaning, by words or by both
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// How both lists become one in mode `hybrid`: by scores, or by reciprocal ranks
    #[arg(long, value_enum, default_value_t)]
    fusion: Fusion,
    /// Most hits, 1 to 100
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Only documents of which this holds: `topic=Sports`, `facts.price<50`, `brand in Acme,Umbra`, `brand missing`; all given must hold
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// Count the whole match by a classification task or a metadata field; may be given more than once
    #[arg(long, value_name = "NAME")]
    facet: Vec<String>,
    /// The page behind the one that ended with this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// The folder of private data; its Postgres is searched where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl SearchArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Searches and prints the hits.
pub async fn run(mut config: Config, args: SearchArgs) -> Result<()> {
    let filter = args.filter.iter().map(|line| FilterClause::line(line)).collect::<Result<_, _>>().map_err(usage)?;
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    // The name stands in the file where a file was given.
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let question = SearchRequest {
        query: args.query,
        pipeline: name,
        mode: args.mode,
        fusion: args.fusion,
        limit: Some(args.limit),
        filter,
        facets: args.facet,
        cursor: args.cursor,
    };
    let postgres = with_database(&mut config).await?;
    let store = store(&config)?;
    store.migrate().await?;
    let engine = match args.mode {
        Mode::Text => engine(config, &[]).await?,
        Mode::Vector | Mode::Hybrid => {
            with_models(&mut config).await?;
            engine(config, &definitions).await?
        }
    };
    let found = Searcher::new(store.clone(), engine, &definitions).search(&question).await;
    store.close().await;
    if let Some(postgres) = postgres {
        tokio::task::spawn_blocking(move || postgres.stop()).await?;
    }
    let findings = found.map_err(usage)?;
    if args.json {
        say!("{}", json!(findings));
        return Ok(());
    }
    if findings.hits.is_empty() {
        say!("nothing found in pipeline {}", findings.pipeline);
    }
    for (index, hit) in findings.hits.iter().enumerate() {
        print(index + 1, hit);
    }
    for (name, counts) in &findings.facets {
        let values: Vec<String> =
            counts.values.iter().map(|value| format!("{} {}", one_line(&value.value), value.documents)).collect();
        let more = if counts.more > 0 { format!(", and {} further", counts.more) } else { String::new() };
        let without = if counts.without > 0 { format!("; {} without", counts.without) } else { String::new() };
        say!("{name}: {}{more}{without}", values.join(", "));
    }
    if let Some(next) = &findings.next {
        say!("further documents: --cursor {next}");
    }
    Ok(())
}

/// A question at fault is the caller's to mend.
pub fn usage(error: SearchError) -> anyhow::Error {
    match error {
        SearchError::Invalid(message) => ConfigError(message).into(),
        SearchError::Unavailable(transient) => transient.into(),
    }
}

fn print(rank: usize, hit: &SearchResult) {
    let labels: Vec<String> = hit
        .labels
        .iter()
        .filter_map(|(task, given)| Some(format!("{task} {} ({:.2})", given.label.as_ref()?, given.confidence?)))
        .collect();
    say!("{rank:>3}. {}  score {:.4}  {}", terminal::name(&hit.document_id), hit.score, labels.join(", "));
    if let Some(summary) = &hit.summary {
        say!("     {}", one_line(summary));
    }
    say!("     bytes {}..{}: {}", hit.chunk.start, hit.chunk.end, one_line(&hit.snippet.text));
}

/// At most as much as fits a line or two of a terminal, with control characters and line breaks gone.
pub fn one_line(text: &str) -> String {
    const CHARACTERS: usize = 160;
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    let end = if text.chars().count() > CHARACTERS { "…" } else { "" };
    format!("{}{end}", flat.split_whitespace().collect::<Vec<_>>().join(" "))
}
