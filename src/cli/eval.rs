//! `tidemill eval`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::database::Database;
use super::definitions;
use super::recommend::usage;
use crate::config::{Config, Flag};
use crate::recommend::{Evaluation, EvaluationSettings, Holdout, RankingMetrics, Recommender};

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Hold out what people came to last, and see whether it is recommended to them by the rest; beside what is merely popular
    Recommendations(RecommendationsArgs),
}

/// How recommendations are tried.
#[derive(Debug, Args)]
pub struct RecommendationsArgs {
    /// The pipeline whose documents are recommended: its name or its file; may be left out where there is one
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Documents to recommend to each
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// What to hold out of each user's documents: `last`, or the last share of them, such as 0.2
    #[arg(long, value_name = "WHAT", default_value = "last", value_parser = holdout)]
    holdout: Holdout,
    /// Users at most; a sample where there are more
    #[arg(long, value_name = "N", default_value_t = 500)]
    users: usize,
    /// Draws the sample; the same seed draws the same one
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl EvalCommand {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let Self::Recommendations(RecommendationsArgs { data_dir, .. }) = self;
        let folder = data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Measures and prints.
pub async fn run(mut config: Config, command: EvalCommand) -> Result<()> {
    let EvalCommand::Recommendations(args) = command;
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let ledger = Database::open(&mut config).await?;
    let trial = EvaluationSettings { k: args.k, holdout: args.holdout, users: args.users, seed: args.seed };
    let evaluation = Recommender::new(&ledger.store, &definitions).evaluate(name.as_deref(), &trial).await;
    ledger.close().await?;
    let evaluation = evaluation.map_err(usage)?;
    match args.json {
        true => say!("{}", json!(evaluation)),
        false => print(&evaluation),
    }
    Ok(())
}

fn print(evaluation: &Evaluation) {
    let Evaluation { pipeline, k, interactions, users, held_out, catalogue, recommended, popular } = evaluation;
    say!("{held_out} documents of {users} users were held out, of {interactions} interactions with {pipeline}");
    let mut table = Table::new();
    table.set_header([
        "".to_owned(),
        format!("recall@{k}"),
        "hits".into(),
        "coverage".into(),
        format!("documents of {catalogue}"),
    ]);
    for (name, RankingMetrics { hits, recall, documents, coverage }) in [("recommended", recommended), ("popular", popular)] {
        let row = [name.to_owned(), format!("{recall:.3}"), hits.to_string(), format!("{coverage:.3}"), documents.to_string()];
        table.add_row(row);
    }
    say!("{table}");
}

fn holdout(text: &str) -> Result<Holdout, String> {
    match text {
        "last" => Ok(Holdout::Last),
        text => text.parse().map(Holdout::Share).map_err(|_| "write `last`, or a share such as 0.2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_or_a_share_is_held_out() {
        assert_eq!(holdout("last"), Ok(Holdout::Last));
        assert_eq!(holdout("0.25"), Ok(Holdout::Share(0.25)));
        assert!(holdout("first").unwrap_err().contains("write `last`"));
    }
}
