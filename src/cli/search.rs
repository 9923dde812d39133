//! `tidemill search`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::Database;
use super::engine;
use crate::config::{Config, ConfigError};
use crate::demo::defaults::with_models;
use crate::search::{DEFAULT_LIMIT, FilterClause, Mode, SearchError, SearchRequest, SearchResult, Searcher};
use crate::store::Fusion;
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for
    query: String,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// By meaning, by words or by both
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// How mode `hybrid` combines both lists: by scores, or by reciprocal ranks
    #[arg(long, value_enum, default_value_t)]
    fusion: Fusion,
    /// The most hits, 1 to 100
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Only documents that fulfil this condition: `topic=Sports`, `facts.price<50`, `brand in Acme,Umbra`, `brand missing`; may
    /// be given more than once, and then all must hold
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// Count all matching documents by a classification task or a metadata field; may be given more than once
    #[arg(long, value_name = "NAME")]
    facet: Vec<String>,
    /// The next page, after the one that printed this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// Searches and prints the hits.
pub async fn run(mut config: Config, args: SearchArgs) -> Result<()> {
    let filter = args.filter.iter().map(|line| FilterClause::line(line)).collect::<Result<_, _>>().map_err(usage)?;
    let (definitions, pipeline) = args.pipeline.load(&config)?;
    let question = SearchRequest {
        query: args.query,
        pipeline,
        mode: args.mode,
        fusion: args.fusion,
        limit: Some(args.limit),
        filter,
        facets: args.facet,
        cursor: args.cursor,
    };
    let database = Database::open_or_create(&mut config).await?;
    let engine = match args.mode {
        Mode::Text => engine(config, &[]).await?,
        Mode::Vector | Mode::Hybrid => {
            with_models(&mut config).await?;
            engine(config, &definitions).await?
        }
    };
    let found = Searcher::new(database.store.clone(), engine, &definitions).search(&question).await;
    database.close().await?;
    let findings = found.map_err(usage)?;
    if args.output.json {
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
        let more = if counts.more > 0 { format!(", and {} more values", counts.more) } else { String::new() };
        let without = if counts.without > 0 { format!("; {} without a value", counts.without) } else { String::new() };
        say!("{name}: {}{more}{without}", values.join(", "));
    }
    if let Some(next) = &findings.next {
        say!("more documents: --cursor {next}");
    }
    Ok(())
}

/// An invalid question is a usage error.
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
    say!("{rank:>3}. {}  score {:.4}  {}", escaped_line(&hit.document_id), hit.score, labels.join(", "));
    if let Some(summary) = &hit.summary {
        say!("     {}", one_line(summary));
    }
    say!("     bytes {}..{}: {}", hit.chunk.start, hit.chunk.end, one_line(&hit.snippet.text));
}

/// The beginning of the text, short enough for a line or two of a terminal, with spaces for control characters and line breaks.
pub fn one_line(text: &str) -> String {
    const CHARACTERS: usize = 160;
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    let end = if text.chars().count() > CHARACTERS { "…" } else { "" };
    format!("{}{end}", flat.split_whitespace().collect::<Vec<_>>().join(" "))
}
