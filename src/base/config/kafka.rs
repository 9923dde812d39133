//! The connection to Kafka.
//!
//! | `protocol` | encryption | authentication |
//! |---|---|---|
//! | `plaintext` | none | none |
//! | `ssl` | TLS | none, or a client certificate |
//! | `sasl_plaintext` | none: only for trusted networks | `username` and a password |
//! | `sasl_ssl` | TLS | `username` and a password |

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use super::secret::SecretSource;

/// The connection to Kafka.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port[,host:port…]`.
    pub brokers: String,
    pub security: KafkaSecurityConfig,
    /// Further librdkafka settings. Settings that exactly-once processing depends on cannot be changed.
    pub settings: BTreeMap<String, String>,
}

/// Encryption and authentication of the connection to Kafka.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurityConfig {
    /// The default is `plaintext`.
    pub protocol: Option<SecurityProtocol>,
    pub mechanism: Option<SaslMechanism>,
    pub username: Option<String>,
    /// The environment variable with the password.
    pub password_env: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities of the brokers. The default is the authorities of the system.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client certificate.
    pub certificate_file: Option<PathBuf>,
    /// A PEM file with the key of the client certificate.
    pub key_file: Option<PathBuf>,
}

/// Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// Kafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    /// The password itself is sent.
    #[serde(rename = "plain")]
    Plain,
    /// A challenge-response with SHA-256; the password is not sent.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// A challenge-response with SHA-512; the password is not sent.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl SecurityProtocol {
    /// Whether the connection is encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether the client authenticates with a password.
    pub fn has_password(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// The name in the file and in librdkafka's settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

impl SaslMechanism {
    /// The name in librdkafka's settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaConfig {
    /// The librdkafka settings for `security`. Reads the password, and checks that the files can be read.
    ///
    /// # Errors
    /// Where settings contradict each other, or one is missing. The message never shows the password.
    pub fn security_settings(&self) -> Result<Vec<(&'static str, String)>, ConfigError> {
        self.security_settings_with(|variable| std::env::var(variable).ok())
    }

    fn security_settings_with(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<(&'static str, String)>, ConfigError> {
        self.check()?;
        let security = &self.security;
        let Some(protocol) = security.protocol else { return Ok(Vec::new()) };
        let mut settings = vec![("security.protocol", protocol.as_str().to_owned())];
        if let (Some(mechanism), Some(username)) = (security.mechanism, &security.username) {
            settings.push(("sasl.mechanisms", mechanism.as_str().to_owned()));
            settings.push(("sasl.username", username.clone()));
            settings.extend(security.password().read(environment)?.map(|password| ("sasl.password", password)));
        }
        if protocol.has_tls() {
            let ca = security.ca_file.as_deref().map(|file| pem("ca_file", file)).transpose()?;
            // The built-in OpenSSL has no default folder of authorities. `probe` makes librdkafka look in the usual folders.
            settings.push(("ssl.ca.location", ca.unwrap_or_else(|| "probe".into())));
        }
        for (file, setting, name) in [
            (&security.certificate_file, "certificate_file", "ssl.certificate.location"),
            (&security.key_file, "key_file", "ssl.key.location"),
        ] {
            if let Some(file) = file {
                settings.push((name, pem(setting, file)?));
            }
        }
        Ok(settings)
    }

    /// Checks that the settings are consistent, without reading files.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let security = &self.security;
        let refuse = |reason: String| Err(ConfigError(format!("`kafka.security.{reason}")));
        let has_password = security.password().check()?;
        let of_passwords = [
            ("mechanism", security.mechanism.is_some()),
            ("username", security.username.is_some()),
            ("password_env", security.password_env.is_some()),
            ("password_file", security.password_file.is_some()),
        ];
        let of_tls = [
            ("ca_file", security.ca_file.is_some()),
            ("certificate_file", security.certificate_file.is_some()),
            ("key_file", security.key_file.is_some()),
        ];
        let first = |settings: &[(&'static str, bool)]| settings.iter().find(|(_, set)| *set).map(|(name, _)| *name);
        let Some(protocol) = security.protocol else {
            return match first(&[of_passwords.as_slice(), &of_tls].concat()) {
                Some(setting) => {
                    refuse(format!("protocol` is missing, but `{setting}` is set; set it to ssl, sasl_plaintext or sasl_ssl"))
                }
                None => Ok(()),
            };
        };
        if let Some(twice) = self.settings.keys().find(|name| is_set_by_security(name)) {
            let reason =
                format!("`kafka.settings` sets `{twice}`, which `kafka.security` sets, too; remove it from `kafka.settings`");
            return Err(ConfigError(reason));
        }
        let name = protocol.as_str();
        if let Some(setting) = first(&of_tls).filter(|_| !protocol.has_tls()) {
            return refuse(format!("{setting}` is for TLS, and the protocol is {name}; set `protocol` to ssl or sasl_ssl"));
        }
        match (&security.certificate_file, &security.key_file) {
            (Some(_), None) => return refuse("certificate_file` is set without `key_file`; set both, or none".into()),
            (None, Some(_)) => return refuse("key_file` is set without `certificate_file`; set both, or none".into()),
            _ => {}
        }
        if !protocol.has_password() {
            return match first(&of_passwords) {
                Some(setting) => refuse(format!(
                    "{setting}` is for a password, and the protocol is {name}; set `protocol` to sasl_plaintext or sasl_ssl"
                )),
                None => Ok(()),
            };
        }
        if security.mechanism.is_none() {
            return refuse(format!("mechanism` is missing for {name}; set it to plain, scram-sha-256 or scram-sha-512"));
        }
        if security.username.as_deref().is_none_or(|username| username.trim().is_empty()) {
            return refuse(format!("username` is missing for {name}; set it"));
        }
        match has_password {
            true => Ok(()),
            false => refuse(format!(
                "password_env` is missing for {name}; name the variable of the password, or its file in `password_file`"
            )),
        }
    }
}

impl KafkaSecurityConfig {
    fn password(&self) -> SecretSource<'_> {
        SecretSource {
            setting: "kafka.security.password",
            variable: self.password_env.as_deref(),
            file: self.password_file.as_deref(),
        }
    }
}

/// Whether `kafka.security` sets this librdkafka setting.
fn is_set_by_security(name: &str) -> bool {
    matches!(
        name,
        "security.protocol"
            | "sasl.mechanism"
            | "sasl.mechanisms"
            | "sasl.username"
            | "sasl.password"
            | "ssl.ca.location"
            | "ssl.certificate.location"
            | "ssl.key.location"
    )
}

/// The path of a readable file. It is checked here, because librdkafka's message would not name our setting.
fn pem(setting: &str, path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    match std::fs::File::open(path) {
        Ok(_) => Ok(path.to_string_lossy().into_owned()),
        Err(error) => Err(ConfigError(format!(
            "cannot read {shown}, which `kafka.security.{setting}` names: {error}; mount it or correct the path"
        ))),
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<&String> = self.settings.keys().collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("security", &self.security)
            .field("settings", &settings)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scram() -> KafkaSecurityConfig {
        KafkaSecurityConfig {
            protocol: Some(SecurityProtocol::SaslSsl),
            mechanism: Some(SaslMechanism::ScramSha256),
            username: Some("tidemill".into()),
            password_env: Some("KAFKA_PASSWORD".into()),
            ..KafkaSecurityConfig::default()
        }
    }

    fn config(security: KafkaSecurityConfig) -> KafkaConfig {
        KafkaConfig { security, ..KafkaConfig::default() }
    }

    fn settings(security: KafkaSecurityConfig) -> Result<Vec<(&'static str, String)>, ConfigError> {
        config(security).security_settings_with(|variable| (variable == "KAFKA_PASSWORD").then(|| "77777".to_owned()))
    }

    #[test]
    fn security_becomes_settings_of_the_client() {
        assert_eq!(settings(KafkaSecurityConfig::default()), Ok(vec![]));
        let pairs = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let expected: Vec<_> = pairs(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-256"),
            ("sasl.username", "tidemill"),
            ("sasl.password", "77777"),
            ("ssl.ca.location", "probe"),
        ]);
        assert_eq!(settings(scram()), Ok(expected));
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            std::fs::write(folder.path().join(name), "pem").unwrap();
            Some(folder.path().join(name))
        };
        let mutual = KafkaSecurityConfig {
            protocol: Some(SecurityProtocol::Ssl),
            ca_file: file("ca"),
            certificate_file: file("certificate"),
            key_file: file("key"),
            ..KafkaSecurityConfig::default()
        };
        let names: Vec<_> = settings(mutual).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["security.protocol", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_setting_and_the_mend() {
        use SecurityProtocol::{Plaintext, SaslPlaintext, Ssl};
        let cases = [
            (KafkaSecurityConfig { protocol: None, ..scram() }, "`kafka.security.protocol` is missing"),
            (KafkaSecurityConfig { protocol: Some(Ssl), ..scram() }, "`kafka.security.mechanism` is for a password"),
            (KafkaSecurityConfig { protocol: Some(Plaintext), ..scram() }, "the protocol is plaintext"),
            (KafkaSecurityConfig { mechanism: None, ..scram() }, "set it to plain, scram-sha-256 or scram-sha-512"),
            (KafkaSecurityConfig { username: Some(" ".into()), ..scram() }, "`kafka.security.username` is missing"),
            (KafkaSecurityConfig { password_env: None, ..scram() }, "`kafka.security.password_env` is missing"),
            (KafkaSecurityConfig { password_file: Some("f".into()), ..scram() }, "are both set"),
            (KafkaSecurityConfig { password_env: Some("OTHER".into()), ..scram() }, "the variable OTHER, which"),
            (
                KafkaSecurityConfig { protocol: Some(SaslPlaintext), ca_file: Some("ca".into()), ..scram() },
                "`kafka.security.ca_file` is for TLS",
            ),
            (KafkaSecurityConfig { ca_file: Some("/nowhere/ca".into()), ..scram() }, "cannot read /nowhere/ca"),
            (KafkaSecurityConfig { key_file: Some("k".into()), ..scram() }, "without `certificate_file`"),
        ];
        for (security, expected) in cases {
            let error = settings(security).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let twice = KafkaConfig { settings: BTreeMap::from([("sasl.password".into(), "77777".into())]), ..config(scram()) };
        let error = twice.check().unwrap_err().to_string();
        assert!(error.contains("`kafka.settings` sets `sasl.password`") && !error.contains("77777"), "{error}");
        assert!(!format!("{twice:?}").contains("77777"), "Debug shows the password");
    }
}
