//! `tidemill answer`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs, PipelineArgs};
use super::database::Database;
use super::{engine, search};
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::search::{AnswerRequest, AnswerResponse, ModelChoice, Searcher};

#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The question
    question: String,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The generator, instead of the one that the pipeline names under `answers`
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// Answers the question and prints each sentence with the passages that it cites.
pub async fn run(mut config: Config, args: AnswerArgs) -> Result<()> {
    let (definitions, pipeline) = args.pipeline.load(&config)?;
    let request = AnswerRequest { question: args.question, pipeline, model: args.model };
    let database = Database::open_or_create(&mut config).await?;
    with_models(&mut config).await?;
    let engine = engine(config, &definitions).await?;
    let response = Searcher::new(database.store.clone(), engine, &definitions).answer(&request, ModelChoice::All).await;
    database.close().await?;
    let response = response.map_err(search::usage)?;
    match args.output.json {
        true => say!("{}", json!(response)),
        false => print(&response),
    }
    Ok(())
}

fn print(response: &AnswerResponse) {
    if let Some(reason) = &response.reason {
        say!("{reason}");
    }
    for sentence in &response.sentences {
        let numbers: Vec<String> = sentence.citations.iter().map(|number| format!("[{number}]")).collect();
        say!("{} {}", search::one_line(&sentence.text), numbers.join(""));
    }
    let is_cited = |number: usize| response.sentences.iter().any(|sentence| sentence.citations.contains(&number));
    for passage in response.passages.iter().filter(|passage| is_cited(passage.number)) {
        let text = search::one_line(&passage.text);
        say!("[{}] {} bytes {}..{}: {text}", passage.number, passage.document_id, passage.start, passage.end);
    }
    for dropped in &response.dropped {
        say!("left out ({}): {}", dropped.reason, search::one_line(&dropped.text));
    }
}
