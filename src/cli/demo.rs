//! `tidemill demo`: from records to search results, with nothing to set up.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::app::stop_signal;
use crate::config::Config;
use crate::demo::DemoSession;
use crate::demo::defaults::samples;
use crate::pipeline::definition::Definition;

/// Run a pipeline over a file on embedded defaults: an in-process Kafka broker, a private PostgreSQL, a small model
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The pipeline file
    #[arg(long, value_name = "FILE", default_value = "pipelines/products.yaml")]
    pipeline: PathBuf,
    /// The documents, .jsonl or .parquet; by default the samples beside the pipeline file
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The folder for private data: the database and Parquet files
    #[arg(long, value_name = "DIR", default_value = ".tidemill")]
    data_dir: PathBuf,
    /// Keep the HTTP API up until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// The address to serve HTTP at
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Runs the demo and prints its report.
pub async fn run(mut config: Config, args: DemoArgs) -> Result<()> {
    config.data_dir = args.data_dir;
    config.server.listen = args.listen;
    let definition = Definition::load(&args.pipeline)?;
    let input = args.input.unwrap_or_else(|| samples(&definition));
    let session = DemoSession::start(config, definition, &input).await?;
    say!("{}", session.report.to_string().trim_end());
    if args.json {
        say!("{}", serde_json::to_string(&session.report)?);
    }
    if args.serve {
        eprintln!("serving {} until Ctrl-C", session.report.http);
        stop_signal().await?;
    }
    session.stop().await
}
