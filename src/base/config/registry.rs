//! The registry of Avro schemas.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::ConfigError;
use super::address::AddressSetting;
use super::secret::SecretSource;

/// A registry with Confluent's API, for pipelines whose source has the format `avro`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaRegistryConfig {
    /// The registry's address, without `/schemas`.
    pub url: Option<String>,
    /// The user, if the registry requires one. Some vendors call it the key.
    pub username: Option<String>,
    /// The environment variable with the password. Some vendors call it the secret.
    pub password_env: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// How long one call may take. The default is 10.
    pub timeout_seconds: Option<u64>,
}

/// The address of a registry and the credentials for it.
pub struct RegistryConnection {
    /// Without a slash at the end.
    pub url: Url,
    /// User and password; none where the registry requires none. Never printed.
    pub credentials: Option<(String, String)>,
    /// How long one call may take.
    pub timeout: Duration,
}

/// The default of `timeout_seconds`: a registry answers from its memory.
const TIMEOUT_SECONDS: u64 = 10;

impl SchemaRegistryConfig {
    /// The registry; none where none is configured. Reads the password.
    ///
    /// # Errors
    /// Where settings contradict each other, or one is missing.
    pub fn place(&self) -> Result<Option<RegistryConnection>, ConfigError> {
        self.place_with(|variable| std::env::var(variable).ok())
    }

    fn place_with(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Option<RegistryConnection>, ConfigError> {
        let Some(url) = self.check()? else { return Ok(None) };
        let credentials = match (&self.username, self.password().read(environment)?) {
            (Some(username), Some(password)) => Some((username.clone(), password)),
            _ => None,
        };
        let timeout = Duration::from_secs(self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS));
        Ok(Some(RegistryConnection { url, credentials, timeout }))
    }

    /// Checks that the settings are consistent, without reading the password. Returns the address.
    pub(super) fn check(&self) -> Result<Option<Url>, ConfigError> {
        let refuse = |reason: &str| Err(ConfigError(format!("`schema_registry.{reason}")));
        let has_password = self.password().check()?;
        let Some(url) = &self.url else {
            if self.username.is_some() || has_password || self.timeout_seconds.is_some() {
                return refuse("url` is missing; set it to the registry's address");
            }
            return Ok(None);
        };
        let address = AddressSetting {
            setting: "schema_registry.url",
            example: "https://registry.example:8081",
            secret: "set `schema_registry.username` and `schema_registry.password_env`",
        };
        let url = address.read(url)?;
        match (&self.username, has_password) {
            (Some(name), _) if name.trim().is_empty() => return refuse("username` is empty; set it, or remove it"),
            (Some(_), false) => return refuse("username` is set; name its password in `password_env` or `password_file`"),
            (None, true) => return refuse("username` is missing; set it to the user that the password belongs to"),
            _ => {}
        }
        if self.timeout_seconds == Some(0) {
            return refuse("timeout_seconds` is 0; allow at least one second");
        }
        Ok(Some(url))
    }

    fn password(&self) -> SecretSource<'_> {
        SecretSource {
            setting: "schema_registry.password",
            variable: self.password_env.as_deref(),
            file: self.password_file.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> SchemaRegistryConfig {
        SchemaRegistryConfig { url: Some("https://registry.example/".into()), ..SchemaRegistryConfig::default() }
    }

    #[test]
    fn credentials_are_a_name_and_a_secret_from_elsewhere() {
        assert!(SchemaRegistryConfig::default().place().unwrap().is_none());
        let open = registry().place().unwrap().unwrap();
        assert_eq!((open.url.as_str(), open.credentials, open.timeout.as_secs()), ("https://registry.example/", None, 10));
        let closed =
            SchemaRegistryConfig { username: Some("key".into()), password_env: Some("REGISTRY_SECRET".into()), ..registry() };
        let place = closed.place_with(|variable| (variable == "REGISTRY_SECRET").then(|| "77777".to_owned())).unwrap().unwrap();
        assert_eq!(place.credentials, Some(("key".into(), "77777".into())));
        let missing = closed.place_with(|_| None).err().unwrap().to_string();
        assert_eq!(missing, "the variable REGISTRY_SECRET, which `schema_registry.password_env` names, is not set; set it");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_setting_and_the_mend() {
        let user = || Some("key".to_owned());
        let cases = [
            (SchemaRegistryConfig { username: user(), ..Default::default() }, "`schema_registry.url` is missing"),
            (SchemaRegistryConfig { username: user(), ..registry() }, "name its password"),
            (SchemaRegistryConfig { password_env: Some("X".into()), ..registry() }, "`schema_registry.username` is missing"),
            (SchemaRegistryConfig { username: Some(" ".into()), password_env: Some("X".into()), ..registry() }, "is empty"),
            (SchemaRegistryConfig { password_env: Some(String::new()), ..registry() }, "name the variable"),
            (
                SchemaRegistryConfig { password_env: Some("X".into()), password_file: Some("f".into()), ..registry() },
                "`schema_registry.password_env` and `schema_registry.password_file` are both set",
            ),
            (SchemaRegistryConfig { timeout_seconds: Some(0), ..registry() }, "at least one second"),
            (SchemaRegistryConfig { url: Some("registry:8081".into()), ..Default::default() }, "http:// or https://"),
            (
                SchemaRegistryConfig { url: Some("https://u:77777@r".into()), ..Default::default() },
                "contains a user or a password",
            ),
        ];
        for (config, expected) in cases {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("77777"), "{error}");
        }
    }
}
