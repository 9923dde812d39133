//! `tidemill models pull`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Result;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::pulled_models;
use crate::cli::args::OutputArgs;
use crate::config::{Config, ConfigError};
use crate::engine::hub::{self, ENDPOINT, Hub, ModelSource, PullOptions, PulledModel};
use crate::terminal::escaped;

#[derive(Debug, Args)]
pub struct PullArgs {
    /// A model of the hub as OWNER/MODEL or OWNER/MODEL@REVISION, a model folder on disk, or a GGUF file
    #[arg(value_name = "MODEL")]
    source: String,
    /// The folder to write to; by default models/NAME in the data folder
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The name that pipelines use; by default derived from the model
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take the one GGUF file whose name matches, such as `q8_0` or `*-q4_k_m.gguf`
    #[arg(long, value_name = "PATTERN")]
    gguf: Option<String>,
    /// The address of the hub. HF_TOKEN holds the token for private and gated models
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL", default_value = ENDPOINT)]
    endpoint: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Pulls the model and prints the lines for the configuration.
pub async fn run(config: Config, args: PullArgs) -> Result<()> {
    let source = ModelSource::parse(&args.source)?;
    let name = args.name.unwrap_or_else(|| source.name());
    if name != hub::name_for(&name) {
        let message = format!("--name {name:?} cannot be part of a variable's name; write {:?}", hub::name_for(&name));
        return Err(ConfigError(message).into());
    }
    let endpoint = if args.endpoint.is_empty() { ENDPOINT } else { &args.endpoint };
    let hub = Hub::new(endpoint, std::env::var("HF_TOKEN").ok().as_deref())?;
    let folder = args.to.unwrap_or_else(|| pulled_models(&config).join(&name));
    let bar = DownloadProgress::default();
    let progress = |file: &str, done: u64, total: Option<u64>| bar.show(file, done, total);
    let pull = PullOptions { source: &source, folder: &folder, gguf: args.gguf.as_deref(), progress: &progress };
    let pulled = hub::pull(&hub, pull).await?;
    bar.end();
    let setting = setting(&name, &pulled);
    let manifest = &pulled.manifest;
    if args.output.json {
        say!(
            "{}",
            json!({
                "name": name, "path": pulled.path, "source": manifest.source, "revision": manifest.revision,
                "files": manifest.files.len(), "kept": pulled.kept, "bytes": manifest.bytes(), "setting": setting,
            })
        );
        return Ok(());
    }
    let revision = manifest.revision.as_deref().map(|revision| format!(" at {revision}")).unwrap_or_default();
    say!(
        "{} files, {}, {} of them kept from before, from {}{revision}",
        manifest.files.len(),
        HumanBytes(manifest.bytes()),
        pulled.kept,
        manifest.source
    );
    say!("to use it, add this to tidemill.toml:\n\n{setting}");
    Ok(())
}

/// The lines of `tidemill.toml`.
fn setting(name: &str, pulled: &PulledModel) -> String {
    let has = |file: &str| pulled.manifest.files.iter().any(|known| known.name == file);
    let path = toml::Value::String(pulled.path.display().to_string());
    if has("adapter_config.json") && !has("config.json") {
        return format!("[models.{name}]\npath = \"…\"   # the model that the adapter was trained on\nadapter = {path}");
    }
    format!("[models.{name}]\npath = {path}")
}

/// Progress on stderr: a bar on a terminal, else a line for each file.
#[derive(Default)]
struct DownloadProgress {
    shown: Mutex<Option<(String, ProgressBar)>>,
}

impl DownloadProgress {
    fn show(&self, file: &str, done: u64, total: Option<u64>) {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(name, _)| name != file) {
            if let Some((_, last)) = shown.take() {
                last.finish_and_clear();
            }
            if !std::io::stderr().is_terminal() {
                eprintln!("{}", escaped(file));
            }
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
            let style = ProgressStyle::with_template("{msg} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(file.to_owned());
            *shown = Some((file.to_owned(), bar));
        }
        if let Some((_, bar)) = &*shown {
            bar.set_position(done);
        }
    }

    fn end(&self) {
        if let Some((_, last)) = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            last.finish_and_clear();
        }
    }
}
