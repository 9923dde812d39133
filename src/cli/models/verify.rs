//! `tidemill models verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::{folder_of, unconfigured};
use crate::cli::args::OutputArgs;
use crate::config::{Config, ConfigError, ModelConfig, ModelLocation};
use crate::did_you_mean::suggestion;
use crate::engine::Engine;
use crate::engine::hub::{MANIFEST, Manifest, inspect};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Names of configured or pulled models; by default all
    names: Vec<String>,
    /// Also load each model
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result of verifying one model.
struct ModelCheck {
    name: String,
    /// The folder or file, or the address of the server.
    origin: String,
    /// The number of files that were compared; none if the model has no manifest.
    compared: Option<usize>,
    problems: Vec<String>,
    /// The model is behind a server, so there is nothing to verify.
    behind_server: bool,
}

/// Compares the files with the manifest, reads settings, tokenizer and headers, and with `--load` loads the model.
///
/// # Errors
/// If a model has changed or cannot be read.
pub async fn run(config: Config, args: VerifyArgs) -> Result<()> {
    let mut models: BTreeMap<String, ModelConfig> = config.models.clone();
    for model in unconfigured(&config)? {
        let quantized = model.manifest.files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".gguf"));
        let path = quantized.map_or(model.folder.clone(), |file| model.folder.join(&file.name));
        models.entry(model.name).or_insert_with(|| ModelConfig::local(path));
    }
    for name in &args.names {
        if !models.contains_key(name) {
            let hint = suggestion(name, models.keys().map(String::as_str));
            return Err(ConfigError(format!("there is no model {name:?}, neither configured nor pulled; {hint}")).into());
        }
    }
    models.retain(|name, _| args.names.is_empty() || args.names.contains(name));
    let engine = config.engine.clone();
    let verify = move || {
        let load = |name: &str, model: &ModelConfig| {
            Engine::start(&engine, &BTreeMap::from([(name.to_owned(), model.clone())])).map(drop)
        };
        models
            .iter()
            .map(|(name, model)| {
                let mut check = check_model(name, model)?;
                if args.load && check.problems.is_empty() && !check.behind_server {
                    check.problems.extend(load(name, model).err().map(|e| e.to_string()));
                }
                Ok(check)
            })
            .collect::<Result<Vec<_>>>()
    };
    let checks = tokio::task::spawn_blocking(verify).await.context("a thread panicked")??;
    report(&checks, args.output.json);
    let broken: Vec<&str> = checks.iter().filter(|f| !f.problems.is_empty()).map(|f| f.name.as_str()).collect();
    if !broken.is_empty() {
        bail!("not usable as they are: {}; the lines above say why", broken.join(", "));
    }
    Ok(())
}

fn check_model(name: &str, model: &ModelConfig) -> Result<ModelCheck> {
    let place = model.place(name)?;
    let (path, folder) = match (&place, folder_of(&place)) {
        (ModelLocation::Local(path), Some(folder)) => (path.to_path_buf(), folder),
        (ModelLocation::Server(server), _) => return Ok(ModelCheck::of_server(name, server.base_url.to_string())),
        (ModelLocation::Local(path), None) => (path.to_path_buf(), PathBuf::new()),
    };
    let mut check = ModelCheck {
        name: name.to_owned(),
        origin: path.display().to_string(),
        compared: None,
        problems: Vec::new(),
        behind_server: false,
    };
    check.compare(&folder)?;
    check.problems.extend(inspect(&path).err().map(|e| format!("{e:#}")));
    if let Some(adapter) = &model.adapter {
        check.compare(adapter)?;
        check.problems.extend(inspect(adapter).err().map(|e| format!("{e:#}")));
    }
    Ok(check)
}

impl ModelCheck {
    fn of_server(name: &str, origin: String) -> Self {
        Self { name: name.to_owned(), origin, compared: None, problems: Vec::new(), behind_server: true }
    }

    fn compare(&mut self, folder: &Path) -> Result<()> {
        let Some(manifest) = Manifest::read(folder)? else { return Ok(()) };
        if !manifest.complete {
            self.problems.push(format!("{} was pulled in part", folder.display()));
        }
        self.problems.extend(manifest.damaged_files(folder).iter().map(ToString::to_string));
        self.compared = Some(self.compared.unwrap_or(0) + manifest.files.len());
        Ok(())
    }

    fn state(&self) -> String {
        match (self.behind_server, self.compared, self.problems.is_empty()) {
            (true, ..) => "behind a server, so there is nothing to verify".into(),
            (_, Some(files), true) => format!("{files} files are unchanged"),
            (_, None, true) => format!("readable; there is no {MANIFEST} to compare with, which `tidemill models pull` writes"),
            (_, _, false) => self.problems.join("; "),
        }
    }
}

fn report(checks: &[ModelCheck], as_json: bool) {
    if as_json {
        let objects: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name, "origin": check.origin, "files": check.compared, "problems": check.problems,
                    "server": check.behind_server,
                })
            })
            .collect();
        say!("{}", json!({ "models": objects }));
        return;
    }
    if checks.is_empty() {
        say!("no model is configured or pulled; `tidemill models pull` downloads one");
    }
    for check in checks {
        say!("{}: {}", check.name, check.state());
    }
}
