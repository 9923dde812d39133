//! `tidemill answer`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{definitions, engine, search, store};
use crate::config::{Config, Flag};
use crate::demo::defaults::{with_database, with_models};
use crate::search::{AnswerRequest, AnswerResponse, ModelChoice, Searcher};

/// What to answer, and from which documents.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The question
    question: String,
    /// The pipeline whose documents are read: its name or its file; may be left out where there is one
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// The generator, instead of the one that the pipeline names under `answers`
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// The folder of private data; its Postgres is read where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl AnswerArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Answers the question and prints the sentences with what they cite.
pub async fn run(mut config: Config, args: AnswerArgs) -> Result<()> {
    let definitions = definitions(&config, args.pipeline.as_deref())?;
    let name = args.pipeline.and(definitions.first()).map(|definition| definition.name.to_string());
    let asked = AnswerRequest { question: args.question, pipeline: name, model: args.model };
    let postgres = with_database(&mut config).await?;
    let store = store(&config)?;
    store.migrate().await?;
    with_models(&mut config).await?;
    let engine = engine(config, &definitions).await?;
    let answered = Searcher::new(store.clone(), engine, &definitions).answer(&asked, ModelChoice::All).await;
    store.close().await;
    if let Some(postgres) = postgres {
        tokio::task::spawn_blocking(move || postgres.stop()).await?;
    }
    let answered = answered.map_err(search::usage)?;
    match args.json {
        true => say!("{}", json!(answered)),
        false => print(&answered),
    }
    Ok(())
}

fn print(answered: &AnswerResponse) {
    if let Some(reason) = &answered.reason {
        say!("{reason}");
    }
    for sentence in &answered.sentences {
        let numbers: Vec<String> = sentence.citations.iter().map(|number| format!("[{number}]")).collect();
        say!("{} {}", search::one_line(&sentence.text), numbers.join(""));
    }
    let is_cited = |number: usize| answered.sentences.iter().any(|sentence| sentence.citations.contains(&number));
    for passage in answered.passages.iter().filter(|passage| is_cited(passage.number)) {
        let text = search::one_line(&passage.text);
        say!("[{}] {} bytes {}..{}: {text}", passage.number, passage.document_id, passage.start, passage.end);
    }
    for dropped in &answered.dropped {
        say!("left out, since {}: {}", dropped.reason, search::one_line(&dropped.text));
    }
}
