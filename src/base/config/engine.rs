//! Settings of the model engine.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::device::ComputeDevices;

/// The engine, which runs the models.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// The devices that models run on: `cpu`, `cuda`, or `cuda:1` for the second GPU; or a list of these, which share the work.
    pub device: ComputeDevices,
    /// Threads of the CPU device, or of all CPU devices together. The default is the number of cores.
    pub threads: Option<usize>,
    /// The largest number of tokens in one batch of an encoder. By default, or with `"auto"`, it is measured for each model.
    #[serde(deserialize_with = "batch_tokens")]
    pub batch_tokens: Option<usize>,
    /// Memory for the KV cache of each generative model, in MiB. The default is 1024, or on a GPU half of the memory that is free
    /// after models are loaded.
    pub kv_cache_mib: Option<usize>,
    /// The largest number of tokens in one step of a generative model, of prompts and of sequences that are written. The default is
    /// 512, or 2048 on a GPU.
    pub step_tokens: Option<usize>,
}

/// A number of tokens, or none for `"auto"`. An environment variable has the number as text.
fn batch_tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    struct TokensVisitor;

    impl Visitor<'_> for TokensVisitor {
        type Value = Option<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of tokens, 1 or more, or \"auto\"")
        }

        fn visit_u64<E: Error>(self, tokens: u64) -> Result<Self::Value, E> {
            let usable = usize::try_from(tokens).ok().filter(|tokens| *tokens > 0);
            usable.map(Some).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(tokens), &self))
        }

        fn visit_i64<E: Error>(self, tokens: i64) -> Result<Self::Value, E> {
            let tokens = u64::try_from(tokens).map_err(|_| E::invalid_value(Unexpected::Signed(tokens), &self))?;
            self.visit_u64(tokens)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.trim().parse() {
                Ok(tokens) => self.visit_u64(tokens),
                Err(_) if text == "auto" => Ok(None),
                Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }

    deserializer.deserialize_any(TokensVisitor)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    fn by_variable(value: &str) -> Result<Option<usize>, ConfigError> {
        let variable = ("TIDEMILL_ENGINE__BATCH_TOKENS".to_owned(), value.to_owned());
        Config::layered(None, [variable], &[]).map(|config| config.engine.batch_tokens)
    }

    fn by_file(value: &str) -> Result<Option<usize>, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidemill.toml");
        std::fs::write(&path, format!("[engine]\nbatch_tokens = {value}\n")).unwrap();
        Config::layered(Some(&path), [], &[]).map(|config| config.engine.batch_tokens)
    }

    #[test]
    fn a_budget_is_a_number_or_left_to_measurement() {
        assert_eq!(Config::default().engine.batch_tokens, None);
        for (text, tokens) in [("4096", Some(4096)), ("auto", None)] {
            assert_eq!(by_variable(text), Ok(tokens), "{text}");
        }
        for (text, tokens) in [("4096", Some(4096)), ("\"auto\"", None)] {
            assert_eq!(by_file(text), Ok(tokens), "{text}");
        }
    }

    #[test]
    fn what_is_no_budget_is_refused_with_what_would_be() {
        for error in [by_variable("much"), by_variable("0"), by_file("0"), by_file("-1"), by_file("\"Auto\"")] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("`engine.batch_tokens`") && error.contains("\"auto\""), "{error}");
        }
    }
}
