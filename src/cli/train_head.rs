//! `tidemill train-head`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{definitions, engine};
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::pipeline::train::{TrainOptions, train_head};

/// What to train, and from what.
#[derive(Debug, Args)]
pub struct TrainHeadArgs {
    /// The pipeline: its name or its file
    #[arg(long, value_name = "PIPELINE")]
    pipeline: String,
    /// The `classify` task
    #[arg(long, value_name = "TASK")]
    task: String,
    /// Labelled rows: one JSON object a line, with the source's fields and the label
    #[arg(long, value_name = "FILE")]
    examples: PathBuf,
    /// The field that holds the label; for a multi-label task a list of labels
    #[arg(long, value_name = "FIELD", default_value = "label")]
    label_field: String,
    /// Where to write the head; where the task looks for it unless told
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Trains a linear head over frozen vectors and says how it does on rows that it has not seen.
pub async fn run(mut config: Config, args: TrainHeadArgs) -> Result<()> {
    let definitions = definitions(&config, Some(&args.pipeline))?;
    with_models(&mut config).await?;
    let engine = engine(config, &definitions).await?;
    let TrainHeadArgs { task, examples, label_field, output, json, .. } = args;
    for definition in &definitions {
        let options = TrainOptions {
            task: task.clone(),
            examples: examples.clone(),
            label_field: label_field.clone(),
            output: output.clone(),
        };
        let report = train_head(definition, &engine, &options).await?;
        if json {
            say!("{}", json!(report));
            continue;
        }
        let quality = &report.quality;
        say!("{}: version {}, labels {}", report.output.display(), report.version, report.labels.join(", "));
        say!(
            "trained on {} rows; of {} held out {:.1} % are right, calibration error {:.3} (before temperature scaling {:.3})",
            quality.training_examples,
            quality.held_out_examples,
            quality.accuracy * 100.0,
            quality.calibration_error_after,
            quality.calibration_error_before
        );
        if let Some(reason) = &report.first_skipped {
            say!("left out {} of {} rows; the first: {reason}", report.skipped, report.rows);
        }
    }
    Ok(())
}
