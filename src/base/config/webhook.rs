//! Webhooks: the receivers of leads, and the secrets that requests are signed with.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;

use super::ConfigError;
use super::address::AddressSetting;
use super::secret::SecretSource;

/// A receiver of webhooks, as the configuration names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    pub url: Option<String>,
    /// The environment variable with the secret: `whsec_` and 24 to 64 random bytes in base64.
    pub secret_env: Option<String>,
    /// A file with the secret.
    pub secret_file: Option<PathBuf>,
    /// How long one request may take.
    pub timeout_seconds: u64,
    /// How often a delivery is attempted.
    pub attempts: u32,
    /// The wait after the first attempt. It doubles after each further attempt.
    pub first_wait_seconds: f64,
    /// The longest wait, even if the receiver asks for a longer one.
    pub longest_wait_seconds: f64,
}

/// A receiver with its secret.
#[derive(Clone)]
pub struct WebhookTarget {
    pub url: Url,
    /// The key that requests are signed with. Never printed.
    pub secret: Vec<u8>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How often a delivery is attempted.
    pub attempts: u32,
    /// The wait after the first attempt.
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

/// The prefix of a secret, by the Standard Webhooks specification.
const PREFIX: &str = "whsec_";

/// The allowed lengths of a secret, by the same specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The longest wait that can be configured: 30 days, in seconds.
const MONTH: f64 = 30.0 * 86_400.0;

impl Default for WebhookConfig {
    /// Fifteen attempts with waits that double from 5 seconds to 4 hours. A delivery survives an outage of half a day.
    fn default() -> Self {
        Self {
            url: None,
            secret_env: None,
            secret_file: None,
            timeout_seconds: 10,
            attempts: 15,
            first_wait_seconds: 5.0,
            longest_wait_seconds: 14_400.0,
        }
    }
}

impl WebhookConfig {
    /// The receiver with its secret, which is read now.
    ///
    /// # Errors
    /// Where a setting is missing or invalid.
    pub fn place(&self, name: &str) -> Result<WebhookTarget, ConfigError> {
        self.place_with(name, |variable| std::env::var(variable).ok())
    }

    fn place_with(&self, name: &str, environment: impl Fn(&str) -> Option<String>) -> Result<WebhookTarget, ConfigError> {
        let url = self.check(name)?;
        let setting = format!("webhooks.{name}.secret");
        let secret = self.secret(&setting).read(environment)?.unwrap_or_default();
        let bytes = secret.trim().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let Some(secret) = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len())) else {
            return Err(ConfigError(format!(
                "`{setting}` is not a valid secret: write `{PREFIX}` followed by 24 to 64 random bytes in base64, such as the output of `openssl rand -base64 32`"
            )));
        };
        Ok(WebhookTarget {
            url,
            secret,
            timeout: Duration::from_secs(self.timeout_seconds),
            attempts: self.attempts,
            first_wait: Duration::from_secs_f64(self.first_wait_seconds),
            longest_wait: Duration::from_secs_f64(self.longest_wait_seconds),
        })
    }

    /// Checks the settings without reading the secret. Returns the address.
    pub(super) fn check(&self, name: &str) -> Result<Url, ConfigError> {
        let refuse = |reason: &str| Err(ConfigError(format!("`webhooks.{name}.{reason}")));
        let Some(url) = &self.url else { return refuse("url` is missing; set it to the receiver's address") };
        let address = AddressSetting {
            setting: &format!("webhooks.{name}.url"),
            example: "https://crm.example/hooks/leads",
            secret: &format!("set `webhooks.{name}.secret_env`; requests are signed with it"),
        };
        let url = address.read(url)?;
        if !self.secret(&format!("webhooks.{name}.secret")).check()? {
            return refuse("secret_env` is missing; name the variable that holds the secret, or a file in `secret_file`");
        }
        for (setting, value) in [("timeout_seconds", self.timeout_seconds), ("attempts", u64::from(self.attempts))] {
            if !(1..=1_000).contains(&value) {
                return refuse(&format!("{setting}` is {value}; write 1 to 1000"));
            }
        }
        let waits = [("first_wait_seconds", self.first_wait_seconds), ("longest_wait_seconds", self.longest_wait_seconds)];
        for (setting, value) in waits {
            if !(value > 0.0 && value <= MONTH) {
                return refuse(&format!("{setting}` is {value}; write a number above 0 and up to {MONTH}"));
            }
        }
        Ok(url)
    }

    fn secret<'a>(&'a self, setting: &'a str) -> SecretSource<'a> {
        SecretSource { setting, variable: self.secret_env.as_deref(), file: self.secret_file.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> WebhookConfig {
        WebhookConfig {
            url: Some("https://crm.example/hooks".into()),
            secret_env: Some("CRM_SECRET".into()),
            ..WebhookConfig::default()
        }
    }

    fn read(secret: &str) -> Result<Vec<u8>, String> {
        let place = webhook().place_with("crm", |variable| (variable == "CRM_SECRET").then(|| secret.to_owned()));
        place.map(|place| place.secret).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_what_the_specification_says() {
        assert_eq!(read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().len(), 24);
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_7777", "whsec_???", "whsec_"] {
            let refused = read(wrong).unwrap_err();
            assert!(refused.starts_with("`webhooks.crm.secret` is not a valid secret") && !refused.contains("7777"), "{refused}");
        }
        assert!(read("").unwrap_err().contains("the variable CRM_SECRET"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_setting_and_the_mend() {
        for (config, expected) in [
            (WebhookConfig { url: None, ..webhook() }, "`webhooks.crm.url` is missing"),
            (WebhookConfig { url: Some("crm:1".into()), ..webhook() }, "http:// or https://"),
            (WebhookConfig { url: Some("https://u:77777@crm".into()), ..webhook() }, "contains a user or a password"),
            (WebhookConfig { secret_env: None, ..webhook() }, "`webhooks.crm.secret_env` is missing"),
            (WebhookConfig { secret_file: Some("f".into()), ..webhook() }, "are both set"),
            (WebhookConfig { attempts: 0, ..webhook() }, "`webhooks.crm.attempts` is 0"),
            (WebhookConfig { first_wait_seconds: f64::NAN, ..webhook() }, "`webhooks.crm.first_wait_seconds` is NaN"),
            (WebhookConfig { longest_wait_seconds: 1e9, ..webhook() }, "up to 2592000"),
        ] {
            let error = config.check("crm").unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("77777"), "{error}");
        }
    }
}
