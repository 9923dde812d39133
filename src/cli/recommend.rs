//! `tidemill recommend`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::Database;
use super::engine;
use super::search::usage as search_usage;
use crate::config::{Config, ConfigError};
use crate::recommend::{DEFAULT_LIMIT, Reason, RecommendError, RecommendRequest, Recommendation, Recommender};
use crate::search::{FilterClause, Searcher};
use crate::terminal::escaped_line;

#[derive(Debug, Args)]
pub struct RecommendArgs {
    /// Recommend documents like this one
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// Recommend documents for this user, without those that they have seen; without --document and --user, popular ones
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The most documents, 1 to 100
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Only documents that fulfil this condition: `topic=Sports`, `facts.price<50`, `brand missing`; may be given more than once,
    /// and then all must hold
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// Prints recommended documents with their reasons.
pub async fn run(mut config: Config, args: RecommendArgs) -> Result<()> {
    let conditions =
        args.filter.iter().map(|line| FilterClause::line(line)).collect::<Result<Vec<_>, _>>().map_err(search_usage)?;
    let (definitions, name) = args.pipeline.load(&config)?;
    let database = Database::open(&mut config).await?;
    let searcher = Searcher::new(database.store.clone(), engine(config, &[]).await?, &definitions);
    let filter = searcher.filter(name.as_deref(), &conditions).await;
    let recommended = match filter {
        Ok(filter) => {
            let request =
                RecommendRequest { pipeline: name, document: args.document, user: args.user, limit: Some(args.limit), filter };
            Recommender::new(&database.store, &definitions).recommend(&request).await.map_err(usage)
        }
        Err(error) => Err(search_usage(error)),
    };
    database.close().await?;
    let recommended = recommended?;
    if args.output.json {
        say!("{}", json!(recommended));
        return Ok(());
    }
    if recommended.hits.is_empty() {
        say!("nothing to recommend in pipeline {}", recommended.pipeline);
    }
    for (index, hit) in recommended.hits.iter().enumerate() {
        print(index + 1, hit);
    }
    Ok(())
}

/// An invalid request is a usage error.
pub fn usage(error: RecommendError) -> anyhow::Error {
    match error {
        RecommendError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

fn print(rank: usize, hit: &Recommendation) {
    let title = hit.metadata["title"].as_str().unwrap_or_default();
    say!("{rank:>3}. {}  score {:.4}  {title}", escaped_line(&hit.document_id), hit.score);
    let reasons: Vec<String> = hit.reasons.iter().map(reason_text).collect();
    say!("     {}", reasons.join("; "));
}

fn reason_text(reason: &Reason) -> String {
    match reason {
        Reason::Similar { document, similarity } => format!("like {document} ({similarity:.2})"),
        Reason::Liked { document, similarity } => format!("like {document}, which they liked ({similarity:.2})"),
        Reason::Label { task, label } => format!("also {task} {label}"),
        Reason::Popular { people } => format!("popular: {people} people liked it recently"),
    }
}
