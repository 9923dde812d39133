//! A model of the configuration: on local disk or behind a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::ConfigError;
use super::address::AddressSetting;

/// A model: on local disk (`path`) or behind a server (`base_url`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A Hugging Face model folder, or a GGUF file.
    pub path: Option<PathBuf>,
    /// A PEFT folder with a LoRA adapter that is merged into the weights.
    pub adapter: Option<PathBuf>,
    /// The longest sequence in tokens. The default is the model's own limit. Required for a model behind a server.
    pub context: Option<usize>,
    /// The address of an OpenAI-compatible server, up to and including `/v1`.
    pub base_url: Option<String>,
    /// The model's name on the server.
    pub server_model: Option<String>,
    /// The environment variable with the server's API key.
    pub api_key_env: Option<String>,
    /// How many calls to the server are made at the same time. The default is 8.
    pub concurrency: Option<usize>,
    /// How long one call may take. The default is 60.
    pub timeout_seconds: Option<u64>,
}

/// The location of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation<'a> {
    Local(&'a Path),
    Server(ModelServer<'a>),
}

/// A model behind an OpenAI-compatible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelServer<'a> {
    /// The server's address, without a slash at its end.
    pub base_url: Url,
    /// The model's name on the server.
    pub server_model: &'a str,
    /// The longest sequence in tokens.
    pub context: usize,
    /// The environment variable with the API key; none where the server needs none.
    pub key_variable: Option<&'a str>,
    /// How many calls are made at the same time.
    pub concurrency: usize,
    /// How long one call may take.
    pub timeout: Duration,
}

/// The default of `concurrency`: enough for a server that batches requests, and below the usual rate limits of vendors.
const CONCURRENCY: usize = 8;

/// The default of `timeout_seconds`: enough for several hundred tokens from a slow server.
const TIMEOUT_SECONDS: u64 = 60;

impl ModelConfig {
    /// A model folder or file on local disk.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// The location of the model that pipelines call `name`.
    ///
    /// # Errors
    /// Where settings contradict each other, or one is missing.
    pub fn place(&self, name: &str) -> Result<ModelLocation<'_>, ConfigError> {
        match (&self.path, &self.base_url) {
            (Some(path), None) => self.local_place(name, path),
            (None, Some(address)) => self.server_place(name, address).map(ModelLocation::Server),
            (Some(_), Some(_)) => {
                Err(ConfigError(format!("`models.{name}.path` and `models.{name}.base_url` are both set; remove one")))
            }
            (None, None) => Err(ConfigError(format!(
                "`models.{name}` does not say where the model is; set `path` to a folder or `base_url` to a server"
            ))),
        }
    }

    fn local_place<'a>(&'a self, name: &str, path: &'a Path) -> Result<ModelLocation<'a>, ConfigError> {
        let of_servers = [
            ("server_model", self.server_model.is_some()),
            ("api_key_env", self.api_key_env.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("timeout_seconds", self.timeout_seconds.is_some()),
        ];
        match of_servers.iter().find(|(_, set)| *set) {
            Some((setting, _)) => Err(ConfigError(format!(
                "`models.{name}.{setting}` is for models behind a server and `path` names one on disk; remove one of the two"
            ))),
            None => Ok(ModelLocation::Local(path)),
        }
    }

    fn server_place(&self, name: &str, address: &str) -> Result<ModelServer<'_>, ConfigError> {
        let refuse = |reason: &str| Err(ConfigError(format!("`models.{name}.{reason}")));
        if self.adapter.is_some() {
            return refuse("adapter` is merged into weights on disk and `base_url` names a server; let the server load it");
        }
        let setting = format!("models.{name}.base_url");
        let base_url = AddressSetting {
            setting: &setting,
            example: "http://127.0.0.1:8000/v1",
            secret: "put the key into a variable and name that in `api_key_env`",
        };
        let base_url = base_url.read(address)?;
        let Some(server_model) = self.server_model.as_deref().filter(|model| !model.trim().is_empty()) else {
            return refuse("server_model` is missing; set it to what the server calls the model");
        };
        let Some(context) = self.context.filter(|context| *context > 0) else {
            return refuse("context` is missing; set it to the longest sequence that the server's model takes, in tokens");
        };
        if self.api_key_env.as_deref().is_some_and(|variable| variable.trim().is_empty()) {
            return refuse("api_key_env` is empty; name the variable that holds the key, or remove it");
        }
        if self.concurrency == Some(0) {
            return refuse("concurrency` is 0; allow at least one call at a time");
        }
        if self.timeout_seconds == Some(0) {
            return refuse("timeout_seconds` is 0; allow at least one second");
        }
        Ok(ModelServer {
            base_url,
            server_model,
            context,
            key_variable: self.api_key_env.as_deref(),
            concurrency: self.concurrency.unwrap_or(CONCURRENCY),
            timeout: Duration::from_secs(self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ModelConfig {
        ModelConfig {
            base_url: Some("https://models.example/v1/".into()),
            server_model: Some("small".into()),
            context: Some(4096),
            ..ModelConfig::default()
        }
    }

    #[test]
    fn a_server_needs_an_address_a_model_and_a_context() {
        let config = server();
        let Ok(ModelLocation::Server(place)) = config.place("writer") else { panic!("{:?}", config.place("writer")) };
        assert_eq!((place.base_url.as_str(), place.server_model, place.context), ("https://models.example/v1", "small", 4096));
        assert_eq!((place.key_variable, place.concurrency, place.timeout), (None, 8, Duration::from_secs(60)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_setting_and_the_mend() {
        let cases = [
            (ModelConfig::default(), "does not say where the model is"),
            (ModelConfig { path: Some("m".into()), ..server() }, "`models.writer.base_url` are both set"),
            (
                ModelConfig { path: Some("m".into()), concurrency: Some(2), ..ModelConfig::default() },
                "`models.writer.concurrency`",
            ),
            (ModelConfig { adapter: Some("lora".into()), ..server() }, "let the server load it"),
            (ModelConfig { base_url: Some("models.example".into()), ..server() }, "is not an address"),
            (ModelConfig { base_url: Some("ftp://models.example".into()), ..server() }, "http:// or https://"),
            (ModelConfig { base_url: Some("https://models.example/v1?key=77777".into()), ..server() }, "contains a `?`"),
            (ModelConfig { server_model: None, ..server() }, "`models.writer.server_model` is missing"),
            (ModelConfig { context: None, ..server() }, "`models.writer.context` is missing"),
            (ModelConfig { api_key_env: Some(" ".into()), ..server() }, "`models.writer.api_key_env` is empty"),
            (ModelConfig { concurrency: Some(0), ..server() }, "at least one call"),
            (ModelConfig { timeout_seconds: Some(0), ..server() }, "at least one second"),
        ];
        for (config, expected) in cases {
            let error = config.place("writer").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for address in ["https://user:77777@models.example/v1", "https://user:77777@"] {
            let error = ModelConfig { base_url: Some(address.into()), ..server() }.place("writer").unwrap_err().to_string();
            assert!(!error.contains("77777"), "{error}");
        }
    }
}
