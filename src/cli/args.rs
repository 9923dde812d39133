//! Arguments that several commands share.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::definitions;
use crate::config::{Config, Flag};
use crate::pipeline::definition::Definition;

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Print one JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataDirArgs {
    /// The folder of private data; its Postgres is used if no database is configured
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    /// The settings that the command line overrides.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

// Not a doc comment: clap would take it for the description of the command.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline, by its name or its file; needed only if there are several
    #[arg(long, global = true, value_name = "PIPELINE")]
    pipeline: Option<String>,
}

impl PipelineArgs {
    /// The definitions to look at: the pipeline that was named, or all of the configured folder. Also its name, if one was named; a
    /// file is asked for its name.
    pub fn load(&self, config: &Config) -> Result<(Vec<Definition>, Option<String>)> {
        let definitions = definitions(config, self.pipeline.as_deref())?;
        let name = self.pipeline.as_ref().and(definitions.first()).map(|definition| definition.name.to_string());
        Ok((definitions, name))
    }
}
