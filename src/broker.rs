//! Connection settings for the Kafka brokers, and the record of why the brokers refuse a client. All Kafka clients of the process
//! use both.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{ConfigError, KafkaConfig, SaslMechanism};

/// Connection settings of the brokers. The debug output shows no values, because some are secrets.
#[derive(Clone)]
pub struct BrokerSettings {
    brokers: Arc<str>,
    settings: Arc<[(String, String)]>,
}

impl BrokerSettings {
    /// Reads the configuration and its secrets.
    ///
    /// # Errors
    /// If settings contradict each other, a secret or a file is missing, or this build lacks a required feature.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        let security = config.security_settings()?;
        let features = ClientConfig::new().create_native_config().and_then(|native| native.get("builtin.features"));
        let features = features.map_err(|error| ConfigError(format!("librdkafka does not report its features: {error}")))?;
        check_features(&features, config)?;
        let given = config.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
        let settings = given.chain(security.into_iter().map(|(name, value)| (name.to_owned(), value))).collect();
        Ok(Self { brokers: config.brokers.as_str().into(), settings })
    }

    /// `host:port[,host:port…]`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Adds the configured settings to `client`. They override settings that the caller made before. Settings that the caller
    /// makes afterwards override the configuration.
    pub fn apply(&self, client: &mut ClientConfig) {
        for (name, value) in self.settings.iter() {
            client.set(name, value);
        }
        client.set("bootstrap.servers", &*self.brokers);
    }
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerSettings").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// Checks that librdkafka has the features that the configuration needs. `features` is the list that librdkafka reports.
fn check_features(features: &str, config: &KafkaConfig) -> Result<(), ConfigError> {
    let security = &config.security;
    let Some(protocol) = security.protocol else { return Ok(()) };
    let has = |feature: &str| features.split(',').any(|built| built.trim() == feature);
    let lacks = |setting: &str, value: &str| {
        let explanation = "is not built into this binary; build it with `cargo build --release --features kafka-tls`";
        Err(ConfigError(format!("`kafka.security.{setting}` is {value}, which {explanation}")))
    };
    if protocol.has_tls() && !has("ssl") {
        return lacks("protocol", protocol.as_str());
    }
    match security.mechanism {
        Some(SaslMechanism::Plain) if !has("sasl_plain") => lacks("mechanism", "plain"),
        Some(mechanism @ (SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512)) if !has("sasl_scram") => {
            lacks("mechanism", &mechanism.as_str().to_lowercase())
        }
        _ => Ok(()),
    }
}

/// The last reason why the brokers refused a client. Clones share it.
///
/// A client retries without end, and most of its errors are temporary: a broker restarts, the network fails. A wrong password or an
/// untrusted certificate is permanent, and without this record it would only appear as brokers that cannot be reached.
#[derive(Debug, Clone, Default)]
pub struct BrokerRefusal(Arc<Mutex<Option<String>>>);

impl BrokerRefusal {
    /// Stores the error if it is a refusal. Only the first one is logged, because the client repeats it every few seconds.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        if let Some(reason) = refusal_reason(error, reason) {
            self.set(reason);
        }
    }

    /// Notes why the brokers refuse the client.
    pub fn set(&self, reason: String) {
        let mut known = self.lock();
        if known.is_none() {
            tracing::warn!(reason, "the brokers refuse the client");
        }
        *known = Some(reason);
    }

    /// Removes the reason after a broker has accepted the client.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// The reason, for `/readyz`.
    pub fn reason(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the error is a refusal, which [`BrokerRefusal::note`] reports.
pub fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL))
}

fn refusal_reason(error: &KafkaError, reason: &str) -> Option<String> {
    is_refusal(error).then(|| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::SSL) => {
            format!("TLS failed: {reason}; correct `kafka.security.ca_file`, or the address in `kafka.brokers`")
        }
        _ => format!("authentication failed: {reason}; correct `kafka.security.username`, its password or `mechanism`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KafkaSecurityConfig, SecurityProtocol};

    fn secured(protocol: SecurityProtocol, mechanism: Option<SaslMechanism>) -> KafkaConfig {
        let security = KafkaSecurityConfig { protocol: Some(protocol), mechanism, ..KafkaSecurityConfig::default() };
        KafkaConfig { security, ..KafkaConfig::default() }
    }

    #[test]
    fn what_is_not_built_in_is_refused_with_the_feature_that_brings_it() {
        use SecurityProtocol::{SaslPlaintext, SaslSsl, Ssl};
        let plain_build = "gzip,snappy,sasl,regex,lz4,sasl_plain,plugins,zstd,http";
        let whole_build = "gzip,snappy,ssl,sasl,regex,lz4,sasl_plain,sasl_scram,plugins,zstd,sasl_oauthbearer,http,oidc";
        for (protocol, mechanism, names) in [
            (Ssl, None, "`kafka.security.protocol` is ssl"),
            (SaslSsl, Some(SaslMechanism::Plain), "`kafka.security.protocol` is sasl_ssl"),
            (SaslPlaintext, Some(SaslMechanism::ScramSha512), "`kafka.security.mechanism` is scram-sha-512"),
        ] {
            let config = secured(protocol, mechanism);
            let error = check_features(plain_build, &config).unwrap_err().to_string();
            assert!(error.contains(names) && error.contains("--features kafka-tls"), "{error}");
            assert_eq!(check_features(whole_build, &config), Ok(()));
        }
        assert_eq!(check_features(plain_build, &secured(SaslPlaintext, Some(SaslMechanism::Plain))), Ok(()));
        assert_eq!(check_features("", &KafkaConfig::default()), Ok(()));
    }

    #[test]
    fn the_librdkafka_of_the_tests_says_what_it_can_do() {
        let native = ClientConfig::new().create_native_config().unwrap();
        let features = native.get("builtin.features").unwrap();
        assert_eq!(check_features(&features, &secured(SecurityProtocol::SaslPlaintext, Some(SaslMechanism::Plain))), Ok(()));
        let scram = check_features(&features, &secured(SecurityProtocol::SaslSsl, Some(SaslMechanism::ScramSha256)));
        assert_eq!(scram.is_ok(), cfg!(feature = "kafka-tls"), "{features}");
    }

    #[test]
    fn only_what_does_not_pass_is_a_refusal() {
        let refusal = BrokerRefusal::default();
        refusal.note(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "connection refused");
        refusal.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(refusal.reason(), None);
        refusal.note(&KafkaError::Global(RDKafkaErrorCode::Authentication), "invalid credentials");
        let reason = refusal.clone().reason().unwrap();
        assert!(reason.starts_with("authentication failed: invalid credentials; correct"), "{reason}");
        refusal.clear();
        assert_eq!(refusal.reason(), None);
    }

    #[test]
    fn printing_an_access_shows_no_secret() {
        let mut config = KafkaConfig { brokers: "b:1".into(), ..KafkaConfig::default() };
        config.settings.insert("ssl.key.password".into(), "77777".into());
        let settings = BrokerSettings::new(&config).unwrap();
        assert!(!format!("{settings:?}").contains("77777"));
        let mut client = ClientConfig::new();
        settings.apply(&mut client);
        assert_eq!((client.get("ssl.key.password"), client.get("bootstrap.servers")), (Some("77777"), Some("b:1")));
    }
}
