//! How to reach Kafka, and what to show it.
//!
//! | `protocol` | the connection | who we are |
//! |---|---|---|
//! | `plaintext` | open | nobody asks |
//! | `ssl` | TLS | nobody asks, or a certificate of ours says it |
//! | `sasl_plaintext` | open: only within a network that is trusted | `username` and a password |
//! | `sasl_ssl` | TLS | `username` and a password |

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use super::secret::SecretSource;

/// Where Kafka is.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port[,host:port…]`.
    pub brokers: String,
    /// How the connection is secured.
    pub security: KafkaSecurityConfig,
    /// Further librdkafka settings. Those that the ledger's guarantees rest on cannot be changed.
    pub settings: BTreeMap<String, String>,
}

/// How the connection to Kafka is secured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurityConfig {
    /// `plaintext` unless told.
    pub protocol: Option<SecurityProtocol>,
    /// How the password is proved.
    pub mechanism: Option<SaslMechanism>,
    /// Who we are.
    pub username: Option<String>,
    /// The variable of the environment that holds the password.
    pub password_env: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The authorities that may have signed the brokers' certificates, in PEM; those of the system unless told.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    pub key_file: Option<PathBuf>,
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// By TLS.
    Ssl,
    /// By a password alone.
    SaslPlaintext,
    /// By a password within TLS.
    SaslSsl,
}

/// How a password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    /// It is sent.
    #[serde(rename = "plain")]
    Plain,
    /// It is proved by SHA-256, and never sent.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// It is proved by SHA-512, and never sent.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl SecurityProtocol {
    /// Whether the connection is encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether a password is asked for.
    pub fn has_password(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// The name as the file and librdkafka write it.
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
    /// The name as librdkafka writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaConfig {
    /// The settings of librdkafka that the security asks for. Reads the password and looks at the files.
    ///
    /// # Errors
    /// One sentence where a setting contradicts another, or something is missing. The password is never shown.
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
            // The OpenSSL that is built in knows no folder of authorities: it must be told to look where systems have one.
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

    /// Whether the settings go together; no file is read.
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
        if let Some(twice) = self.settings.keys().find(|name| is_ours(name)) {
            let reason =
                format!("`kafka.settings` sets `{twice}` and `kafka.security` says it, too; remove it from the settings");
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

/// Whether a setting of librdkafka is one that the security says.
fn is_ours(name: &str) -> bool {
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

/// The path of a file that can be read: librdkafka's own sentence would not name the setting.
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
