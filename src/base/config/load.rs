//! Merges the layers of configuration into one [`Config`]. A message about a wrong setting names the layer and how to fix it.
//!
//! | layer, weakest first | base of relative paths | text is converted to a number |
//! |---|---|---|
//! | defaults | the current folder | |
//! | the file | the file's folder | never: TOML has types |
//! | `TIDEMILL_*` variables, with `__` between levels | the current folder | if the setting is a number |
//! | flags | the current folder | if the setting is a number |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, ConfigError, secret};
use crate::did_you_mean::suggestion;

/// The file that is read if none is given.
pub const DEFAULT_FILE: &str = "tidemill.toml";

/// `TIDEMILL_*` variables that are not settings: the command line, the kernels and the tests read them.
const NOT_SETTINGS: &[&str] = &[
    "TIDEMILL_CONFIG",
    "TIDEMILL_LOG",
    "TIDEMILL_LOG_FORMAT",
    "TIDEMILL_UMASK",
    "TIDEMILL_CACHE_DIR",
    "TIDEMILL_CPU",
    "TIDEMILL_REQUIRE_KAFKA",
    "TIDEMILL_REQUIRE_TOOLS",
];

/// Names of settings, at any level, whose value is a path.
const PATHS: &[&str] = &[
    "data_dir",
    "pipelines",
    "path",
    "adapter",
    "url_file",
    "token_file",
    "metrics_token_file",
    "password_file",
    "secret_file",
    "ca_file",
    "certificate_file",
    "key_file",
];

/// Names of settings, at any level, whose value messages must not show.
const SECRETS: &[&str] = &["url", "token", "metrics_token", "settings"];

/// A command-line flag that overrides a setting.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, such as `--listen`.
    pub name: &'static str,
    /// The setting, such as `server.listen`.
    pub setting: &'static str,
    pub value: String,
}

impl Config {
    /// Loads the configuration of this process: `file`, or `tidemill.toml` if it exists, then the environment, then `flags`.
    ///
    /// # Errors
    /// Where a setting is wrong. The message names the setting, the layer, and what to write instead. It never shows secrets.
    pub fn load(file: Option<&Path>, flags: &[Flag]) -> Result<Self, ConfigError> {
        let mut config = Self::load_without_secrets(file, flags)?;
        config.read_secrets()?;
        Ok(config)
    }

    /// [`Config::load`] without reading the files of tokens and of the database's URL. For commands that do not need them and may
    /// run where they are not mounted.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_secrets(file: Option<&Path>, flags: &[Flag]) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let mut environment = Vec::new();
        for (name, value) in variables {
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if name.starts_with(PREFIX) => return Err(ConfigError(format!("variable {name} is not UTF-8"))),
                Err(_) => {}
            }
        }
        Self::merged(file, environment, flags)
    }

    /// [`Config::load`] with the given file and environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn layered(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::merged(file, environment, flags)?;
        config.read_secrets()?;
        Ok(config)
    }

    fn merged(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut layers = Vec::new();
        if let Some(path) = file {
            layers.push(Layer::file(path)?);
        }
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if is_service_link(key, &value) {
                tracing::info!(variable = name, "ignored: Kubernetes sets this variable for a service; it is not a setting");
            } else if !NOT_SETTINGS.contains(&name.as_str()) {
                layers.push(Layer::text(format!("variable {name}"), key.to_lowercase().replace("__", "."), &value));
            }
        }
        for flag in flags {
            layers.push(Layer::text(format!("flag {}", flag.name), flag.setting.to_owned(), &flag.value));
        }
        let config = extract(layers)?;
        for (name, model) in &config.models {
            model.place(name)?;
        }
        let connections = [
            ("max_connections", config.database.max_connections),
            ("question_connections", config.database.question_connections),
        ];
        if let Some((name, _)) = connections.iter().find(|(_, count)| *count == Some(0)) {
            return Err(ConfigError(format!("`database.{name}` is 0; write 1 or more")));
        }
        if let Some(fault) = config.server.limits.fault() {
            return Err(ConfigError(fault));
        }
        config.kafka.check()?;
        config.schema_registry.check()?;
        for (name, webhook) in &config.webhooks {
            webhook.check(name)?;
        }
        Ok(config)
    }

    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let (database, server) = (&mut self.database, &mut self.server);
        let secrets = [
            ("database.url", &mut database.url, database.url_file.take()),
            ("server.token", &mut server.token, server.token_file.take()),
            ("server.metrics_token", &mut server.metrics_token, server.metrics_token_file.take()),
        ];
        for (name, secret, file) in secrets {
            *secret = direct_or_filed(name, secret.take(), file.as_deref())?;
        }
        for (name, token) in [("token", &server.token), ("metrics_token", &server.metrics_token)] {
            if let Some(length) = token.as_ref().map(String::len).filter(|length| *length < LEAST_TOKEN) {
                return Err(ConfigError(format!(
                    "`server.{name}` has {length} bytes and could be guessed; use at least {LEAST_TOKEN}, such as the output of `openssl rand -hex 32`"
                )));
            }
        }
        if server.token.is_some() && server.token == server.metrics_token {
            let message = "`server.token` and `server.metrics_token` are the same; give Prometheus a token of its own";
            return Err(ConfigError(message.into()));
        }
        Ok(())
    }
}

const PREFIX: &str = "TIDEMILL_";

/// The shortest configured token in bytes. As hexadecimal digits this is 64 bits.
const LEAST_TOKEN: usize = 16;

/// Whether the variable is one of those that Kubernetes sets for every service of a namespace. For services called `tidemill` or
/// `tidemill-…` they have the same prefix as our settings.
fn is_service_link(key: &str, value: &str) -> bool {
    let words: Vec<&str> = key.split('_').collect();
    let is_address = value.split_once("://").is_some_and(|(protocol, _)| ["tcp", "udp", "sctp"].contains(&protocol));
    let is_port = |at: usize| {
        let [port, number, protocol] = [0, 1, 2].map(|next| words.get(at + next).copied().unwrap_or_default());
        let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        port == "PORT" && is_number && ["TCP", "UDP", "SCTP"].contains(&protocol)
    };
    words.ends_with(&["SERVICE", "HOST"])
        || words.windows(2).any(|pair| pair == ["SERVICE", "PORT"])
        || words.last() == Some(&"PORT") && is_address
        || (0..words.len()).any(is_port)
}

/// One source of settings. Each variable and each flag is a layer of its own, so that an error can name it.
#[derive(Clone)]
struct Layer {
    place: String,
    settings: Dict,
    /// For a variable or flag: its setting, and whether its text has been converted already.
    text: Option<(String, bool)>,
}

impl Layer {
    fn file(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigError(format!("cannot read configuration file {shown}: {e}; name an existing one with --config"))
        })?;
        // The parser's own display quotes the line, which may contain a secret.
        let mut table: toml::Table = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            ConfigError(format!("{shown}, line {line}: {}", e.message().lines().next().unwrap_or("not TOML")))
        })?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        anchor(&mut table, &folder);
        let value = Value::serialize(&table).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
        Ok(Self { place: shown.to_string(), settings: value.into_dict().unwrap_or_default(), text: None })
    }

    fn text(place: String, setting: String, value: &str) -> Self {
        let settings = nested(&setting, Value::from(value));
        Self { place, settings, text: Some((setting, false)) }
    }

    /// Converts the layer's text to a number or boolean. Returns false where it is neither, or was converted before.
    fn convert(&mut self) -> bool {
        let Some((setting, converted)) = &mut self.text else { return false };
        if std::mem::replace(converted, true) {
            return false;
        }
        let whole = Value::from(self.settings.clone());
        let Some(text) = whole.find_ref(setting).and_then(Value::as_str) else { return false };
        let typed = match (text.trim().parse::<u64>(), text.trim().parse::<bool>()) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(truth)) => Value::from(truth),
            _ => return false,
        };
        self.settings = nested(setting, typed);
        true
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

/// Extracts the configuration. The text of a variable or flag is converted only if its setting requires another type, so that a
/// token `0042` stays as it is.
fn extract(mut layers: Vec<Layer>) -> Result<Config, ConfigError> {
    loop {
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
        let Err(error) = figment.extract::<Config>() else { return figment.extract().map_err(|e| message(&e)) };
        let place = error.metadata.as_ref().map(|m| m.name.to_string());
        let layer = layers.iter_mut().find(|layer| Some(&layer.place) == place.as_ref());
        let is_text = matches!(&error.kind, Kind::InvalidType(Actual::Str(_), _));
        if !(is_text && layer.is_some_and(Layer::convert)) {
            return Err(message(&error));
        }
    }
}

fn message(error: &figment::Error) -> ConfigError {
    let setting = error.path.join(".");
    let place = error.metadata.as_ref().map_or("configuration".into(), |m| m.name.to_string());
    let is_secret = error.path.iter().any(|key| SECRETS.contains(&key.as_str()));
    ConfigError(match &error.kind {
        Kind::UnknownField(key, known) => {
            // Depending on the level, the path ends with the unknown key or just before it.
            let above: Vec<_> = error.path.iter().map(String::as_str).filter(|part| part != key).collect();
            let within = if above.is_empty() { String::new() } else { format!(" in `{}`", above.join(".")) };
            format!("{place}: unknown setting `{key}`{within}; {}", suggestion(key, known.iter().copied()))
        }
        Kind::MissingField(key) => format!("{place}: `{setting}` lacks `{key}`; set it"),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if is_secret => {
            format!("{place}: `{setting}` must be {expected}")
        }
        kind => format!("{place}: `{setting}`: {kind}"),
    })
}

fn direct_or_filed(name: &str, value: Option<String>, file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let Some(path) = file else { return Ok(value) };
    if value.is_some() {
        return Err(ConfigError(format!("`{name}` and `{name}_file` are both set; remove one")));
    }
    secret::read(name, path).map(Some)
}

fn nested(setting: &str, value: Value) -> Dict {
    let (key, rest) = setting.split_once('.').map_or((setting, None), |(key, rest)| (key, Some(rest)));
    let value = rest.map_or_else(|| value.clone(), |rest| Value::from(nested(rest, value.clone())));
    BTreeMap::from([(key.to_owned(), value)])
}

/// Makes the relative paths of a file start from the file's folder.
fn anchor(table: &mut toml::Table, folder: &Path) {
    for (key, value) in table.iter_mut() {
        match value {
            toml::Value::String(text) if PATHS.contains(&key.as_str()) => {
                let path: PathBuf = folder.join(&*text);
                *text = path.to_string_lossy().into_owned();
            }
            // librdkafka's settings are its own: none of them is a path of ours.
            toml::Value::Table(inner) if key != "settings" => anchor(inner, folder),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
