//! `tidemill train-head`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::args::OutputArgs;
use super::{definitions, engine};
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::pipeline::train::{TrainOptions, train_head};

#[derive(Debug, Args)]
pub struct TrainHeadArgs {
    /// The pipeline, by its name or its file
    #[arg(long, value_name = "PIPELINE")]
    pipeline: String,
    /// The `classify` task
    #[arg(long, value_name = "TASK")]
    task: String,
    /// The labelled rows: one JSON object per line, with the source's fields and the label
    #[arg(long, value_name = "FILE")]
    examples: PathBuf,
    /// The field with the label; for a task with `multi`, a list of labels
    #[arg(long, value_name = "FIELD", default_value = "label")]
    label_field: String,
    /// The file to write; by default the one that the task names
    #[arg(long = "output", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Trains a linear head on vectors of the encoder, and prints how it does on rows that it was not trained on.
pub async fn run(mut config: Config, args: TrainHeadArgs) -> Result<()> {
    let definitions = definitions(&config, Some(&args.pipeline))?;
    with_models(&mut config).await?;
    let engine = engine(config, &definitions).await?;
    let TrainHeadArgs { task, examples, label_field, file, output, .. } = args;
    for definition in &definitions {
        let options = TrainOptions {
            task: task.clone(),
            examples: examples.clone(),
            label_field: label_field.clone(),
            output: file.clone(),
        };
        let report = train_head(definition, &engine, &options).await?;
        if output.json {
            say!("{}", json!(report));
            continue;
        }
        let quality = &report.quality;
        say!("{}: version {}, labels {}", report.output.display(), report.version, report.labels.join(", "));
        say!(
            "trained on {} rows; {:.1} % of {} held-out rows are right, calibration error {:.3} (before temperature scaling {:.3})",
            quality.training_examples,
            quality.accuracy * 100.0,
            quality.held_out_examples,
            quality.calibration_error_after,
            quality.calibration_error_before
        );
        if let Some(reason) = &report.first_skipped {
            say!("{} of {} rows were left out; the first: {reason}", report.skipped, report.rows);
        }
    }
    Ok(())
}
