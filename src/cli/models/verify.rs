//! `tidemill models verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::{folder_of, unnamed};
use crate::config::{Config, ConfigError, ModelConfig, ModelLocation};
use crate::did_you_mean::suggestion;
use crate::engine::Engine;
use crate::engine::hub::{MANIFEST, Manifest, inspect};

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Models by their names in the configuration or among the pulled ones; all of them unless told
    names: Vec<String>,
    /// Load each model wholly, too
    #[arg(long)]
    load: bool,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// What was found of one model.
struct ModelCheck {
    name: String,
    /// The folder or file, or the address of the server.
    origin: String,
    /// Files that were compared; none where there is no manifest.
    compared: Option<usize>,
    /// What is wrong.
    problems: Vec<String>,
    /// That there was nothing to verify.
    behind_server: bool,
}

/// Reads the files again and compares, reads settings, tokenizer and headers, and with `--load` everything.
///
/// # Errors
/// Where a model is not what it was.
pub async fn run(config: Config, args: VerifyArgs) -> Result<()> {
    let mut models: BTreeMap<String, ModelConfig> = config.models.clone();
    for model in unnamed(&config)? {
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
                let mut finding = verified(name, model)?;
                if args.load && finding.problems.is_empty() && !finding.behind_server {
                    finding.problems.extend(load(name, model).err().map(|e| e.to_string()));
                }
                Ok(finding)
            })
            .collect::<Result<Vec<_>>>()
    };
    let findings = tokio::task::spawn_blocking(verify).await.context("a thread panicked")??;
    report(&findings, args.json);
    let broken: Vec<&str> = findings.iter().filter(|f| !f.problems.is_empty()).map(|f| f.name.as_str()).collect();
    if !broken.is_empty() {
        bail!("not as they should be: {}; pull them again", broken.join(", "));
    }
    Ok(())
}

fn verified(name: &str, model: &ModelConfig) -> Result<ModelCheck> {
    let place = model.place(name)?;
    let (path, folder) = match (&place, folder_of(&place)) {
        (ModelLocation::Local(path), Some(folder)) => (path.to_path_buf(), folder),
        (ModelLocation::Server(server), _) => return Ok(ModelCheck::of_server(name, server.base_url.to_string())),
        (ModelLocation::Local(path), None) => (path.to_path_buf(), PathBuf::new()),
    };
    let mut finding = ModelCheck {
        name: name.to_owned(),
        origin: path.display().to_string(),
        compared: None,
        problems: Vec::new(),
        behind_server: false,
    };
    finding.compare(&folder)?;
    finding.problems.extend(inspect(&path).err().map(|e| format!("{e:#}")));
    if let Some(adapter) = &model.adapter {
        finding.compare(adapter)?;
        finding.problems.extend(inspect(adapter).err().map(|e| format!("{e:#}")));
    }
    Ok(finding)
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
            (true, ..) => "behind a server, nothing here to verify".into(),
            (_, Some(files), true) => format!("{files} files are what they were"),
            (_, None, true) => format!("readable; there is no {MANIFEST} to compare with: `tidemill models pull` makes one"),
            (_, _, false) => self.problems.join("; "),
        }
    }
}

fn report(findings: &[ModelCheck], as_json: bool) {
    if as_json {
        let told: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name, "origin": finding.origin, "files": finding.compared, "problems": finding.problems,
                    "server": finding.behind_server,
                })
            })
            .collect();
        say!("{}", json!({ "models": told }));
        return;
    }
    if findings.is_empty() {
        say!("no model is configured or pulled; `tidemill models pull` brings one");
    }
    for finding in findings {
        say!("{}: {}", finding.name, finding.state());
    }
}
