//! `tidemill eval`.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::Database;
use super::recommend::usage;
use crate::config::Config;
use crate::recommend::{Evaluation, EvaluationSettings, Holdout, RankingMetrics, Recommender};

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Hide the documents that users came to last, and measure how often they are recommended, and how often they are just popular
    Recommendations(RecommendationsArgs),
}

#[derive(Debug, Args)]
pub struct RecommendationsArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The number of documents to recommend to each user
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// What to hide of each user's documents: `last`, or the last share of them, such as 0.2
    #[arg(long, value_name = "WHAT", default_value = "last", value_parser = holdout)]
    holdout: Holdout,
    /// The most users; a sample if there are more
    #[arg(long, value_name = "N", default_value_t = 500)]
    users: usize,
    /// The seed of the sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

impl EvalCommand {
    /// The flags for the data folder, which every evaluation has.
    pub fn data_dir(&self) -> &DataDirArgs {
        let Self::Recommendations(args) = self;
        &args.data_dir
    }
}

/// Measures and prints the figures.
pub async fn run(mut config: Config, command: EvalCommand) -> Result<()> {
    let EvalCommand::Recommendations(args) = command;
    let (definitions, name) = args.pipeline.load(&config)?;
    let database = Database::open(&mut config).await?;
    let trial = EvaluationSettings { k: args.k, holdout: args.holdout, users: args.users, seed: args.seed };
    let evaluation = Recommender::new(&database.store, &definitions).evaluate(name.as_deref(), &trial).await;
    database.close().await?;
    let evaluation = evaluation.map_err(usage)?;
    match args.output.json {
        true => say!("{}", json!(evaluation)),
        false => print(&evaluation),
    }
    Ok(())
}

fn print(evaluation: &Evaluation) {
    let Evaluation { pipeline, k, interactions, users, held_out, catalogue, recommended, popular } = evaluation;
    say!("{held_out} documents of {users} users were hidden, of {interactions} interactions with {pipeline}");
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
