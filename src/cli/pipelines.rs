//! `tidemill pipelines`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::database::{Database, caller, time};
use crate::access::is_tenant;
use crate::config::{Config, ConfigError};
use crate::did_you_mean::suggestion;
use crate::pipeline::definition::Definition;
use crate::store::{PipelineState, Store};

#[derive(Debug, Subcommand)]
pub enum PipelinesCommand {
    /// List pipelines, and why some are stopped
    List(OutputArgs),
    /// Stop a pipeline on every worker; batches under way are dropped, and run again when it is resumed
    Stop(StopArgs),
    /// Resume a stopped pipeline at its position
    Resume(ResumeArgs),
    /// Assign a pipeline and all its results to another tenant
    Assign(AssignArgs),
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// The pipeline
    name: String,
    /// The reason, which `/readyz` and `list` show
    #[arg(long, value_name = "TEXT", default_value = "stopped by hand")]
    reason: String,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The pipeline
    name: String,
}

#[derive(Debug, Args)]
pub struct AssignArgs {
    /// The pipeline
    name: String,
    /// The tenant
    #[arg(long, value_name = "TENANT")]
    tenant: String,
}

/// Runs `tidemill pipelines`.
pub async fn run(mut config: Config, command: PipelinesCommand) -> Result<()> {
    let database = Database::open(&mut config).await?;
    let done = carry_out(&config, &database.store, command).await;
    database.close().await?;
    done
}

async fn carry_out(config: &Config, store: &Store, command: PipelinesCommand) -> Result<()> {
    let pipelines = pipelines(config, store).await?;
    match command {
        PipelinesCommand::List(args) => list(&pipelines, args.json),
        PipelinesCommand::Stop(StopArgs { name, reason }) => {
            require(&pipelines, &name)?;
            let reason = format!("{}; resume it with `tidemill pipelines resume {name}`", reason.replace('\0', ""));
            match store.stop_pipeline(&name, &reason, &caller()).await? {
                true => say!("{name} is stopped"),
                false => say!("{name} was stopped already"),
            }
        }
        PipelinesCommand::Resume(ResumeArgs { name }) => {
            require(&pipelines, &name)?;
            match store.resume_pipeline(&name, &caller()).await? {
                true => say!("{name} is resumed; running workers continue it within seconds"),
                false => say!("{name} was not stopped"),
            }
        }
        PipelinesCommand::Assign(args) => assign(store, &args).await?,
    }
    Ok(())
}

async fn assign(store: &Store, AssignArgs { name, tenant }: &AssignArgs) -> Result<()> {
    if !is_tenant(tenant) {
        let message = format!("--tenant {tenant:?} is not a tenant name: use lower-case letters, digits and `-`, a letter first");
        return Err(ConfigError(message).into());
    }
    let known = store.tenants().await?;
    match known.iter().find(|(known, _)| known == name) {
        Some((_, owner)) if owner == tenant => say!("{name} already belongs to tenant {tenant}"),
        Some(_) => {
            let before = store.assign_pipeline(name, tenant).await?.unwrap_or_default();
            say!("{name} now belongs to tenant {tenant} instead of {before}; write `tenant: {tenant}` into its file");
        }
        None => {
            let near = suggestion(name, known.iter().map(|(name, _)| name.as_str()));
            return Err(ConfigError(format!("no pipeline named `{name}` has run; {near}")).into());
        }
    }
    Ok(())
}

/// The pipelines in the database and those of the folder, by name. A pipeline can be stopped even if files of the folder are
/// invalid.
async fn pipelines(config: &Config, store: &Store) -> Result<BTreeMap<String, Option<PipelineState>>> {
    let states = store.pipeline_states().await?.into_iter().map(|state| (state.pipeline.clone(), Some(state)));
    let definitions = Definition::load_all(&config.pipelines, &[]).unwrap_or_else(|error| {
        tracing::warn!(%error, "the pipeline folder cannot be read; only pipelines that have run are known");
        Vec::new()
    });
    let mut pipelines: BTreeMap<String, Option<PipelineState>> =
        definitions.into_iter().map(|definition| (definition.name.to_string(), None)).collect();
    pipelines.extend(states);
    Ok(pipelines)
}

fn require(pipelines: &BTreeMap<String, Option<PipelineState>>, name: &str) -> Result<()> {
    if pipelines.contains_key(name) {
        return Ok(());
    }
    let near = suggestion(name, pipelines.keys().map(String::as_str));
    Err(ConfigError(format!("no pipeline is named `{name}`; {near}")).into())
}

fn list(pipelines: &BTreeMap<String, Option<PipelineState>>, as_json: bool) {
    if as_json {
        let pipelines: Vec<Value> = pipelines
            .iter()
            .map(|(name, state)| {
                let stop = state.as_ref().and_then(|state| state.stop.as_ref());
                json!({
                    "name": name,
                    "state": state_name(state.as_ref()),
                    "class": stop.and_then(|stop| stop.class.as_ref()),
                    "reason": stop.map(|stop| &stop.reason),
                    "since": state.as_ref().and_then(|state| state.since_ms).map(time),
                    "by": state.as_ref().and_then(|state| state.by.as_ref()),
                    "records": state.as_ref().map_or(0, |state| state.records),
                    "dead_letters": state.as_ref().map_or(0, |state| state.dead_letters),
                })
            })
            .collect();
        say!("{}", json!({ "pipelines": pipelines }));
        return;
    }
    let mut table = Table::new();
    table.set_header(["pipeline", "state", "since", "by", "records", "dead letters"]);
    for (name, state) in pipelines {
        let of = |text: fn(&PipelineState) -> Option<String>| state.as_ref().and_then(text).unwrap_or_default();
        table.add_row([
            name.clone(),
            state_name(state.as_ref()).to_owned(),
            of(|state| state.since_ms.map(time)),
            of(|state| state.by.clone()),
            of(|state| Some(state.records.to_string())),
            of(|state| Some(state.dead_letters.to_string())),
        ]);
    }
    say!("{table}");
    for (name, state) in pipelines {
        if let Some(stop) = state.as_ref().and_then(|state| state.stop.as_ref()) {
            say!("{name} is stopped: {}", stop.reason);
        }
    }
}

/// Whether workers may run the pipeline. Whether they do right now is not in the database.
fn state_name(state: Option<&PipelineState>) -> &'static str {
    match state {
        None => "new",
        Some(PipelineState { stop: Some(_), .. }) => "stopped",
        Some(_) => "open",
    }
}
