//! `tidemill recommend`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::database::Database;
use super::{definitions, engine, terminal};
use crate::config::{Config, ConfigError, Flag};
use crate::recommend::{DEFAULT_LIMIT, Reason, RecommendError, RecommendRequest, Recommendation, Recommender};
use crate::search::{FilterClause, SearchError, Searcher};

/// Like what, or for whom.
#[derive(Debug, Args)]
pub struct RecommendArgs {
    /// Documents like this one
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// For this user, who is shown nothing twice; without a document and a user, what is popular
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The pipeline: its name or its file; may be left out where there is one
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Most documents, 1 to 100
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Only documents of which this holds: `topic=Sports`, `facts.price<50`, `brand missing`; all given must hold
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl RecommendArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Recommends and prints what, and why.
pub async fn run(mut config: Config, args: RecommendArgs) -> Result<()> {
    let conditions =
        args.filter.iter().map(|line| FilterClause::line(line)).collect::<Result<Vec<_>, _>>().map_err(unsearchable)?;
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let ledger = Database::open(&mut config).await?;
    let searcher = Searcher::new(ledger.store.clone(), engine(config, &[]).await?, &definitions);
    let filter = searcher.filter(name.as_deref(), &conditions).await;
    let recommended = match filter {
        Ok(filter) => {
            let wish =
                RecommendRequest { pipeline: name, document: args.document, user: args.user, limit: Some(args.limit), filter };
            Recommender::new(&ledger.store, &definitions).recommend(&wish).await.map_err(usage)
        }
        Err(error) => Err(unsearchable(error)),
    };
    ledger.close().await?;
    let recommended = recommended?;
    if args.json {
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

/// A wish at fault is the caller's to mend.
pub fn usage(error: RecommendError) -> anyhow::Error {
    match error {
        RecommendError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

fn unsearchable(error: SearchError) -> anyhow::Error {
    match error {
        SearchError::Invalid(message) => ConfigError(message).into(),
        SearchError::Unavailable(transient) => transient.into(),
    }
}

fn print(rank: usize, hit: &Recommendation) {
    let title = hit.metadata["title"].as_str().unwrap_or_default();
    say!("{rank:>3}. {}  score {:.4}  {title}", terminal::name(&hit.document_id), hit.score);
    let reasons: Vec<String> = hit.reasons.iter().map(said).collect();
    say!("     {}", reasons.join("; "));
}

fn said(reason: &Reason) -> String {
    match reason {
        Reason::Similar { document, similarity } => format!("like {document} ({similarity:.2})"),
        Reason::Liked { document, similarity } => format!("like {document}, which they liked ({similarity:.2})"),
        Reason::Label { task, label } => format!("{task} {label}, too"),
        Reason::Popular { people } => format!("popular: {people} people liked it of late"),
    }
}
