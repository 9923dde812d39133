//! Reads YAML files strictly, with a readable message for unknown keys and wrong types.

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use crate::did_you_mean::suggestion;

/// Why a YAML text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Line and column, both from 1, if known.
    pub place: Option<(u64, u64)>,
    /// One sentence that says what is wrong and how to fix it.
    pub message: String,
    /// For an unknown key: every key that is allowed in its place.
    pub known: Vec<&'static str>,
}

/// Parses `text`. Only `true` and `false` are booleans. Unknown keys are refused if `T` denies them.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    // In YAML 1.1, a label `yes` or a field name `on` would be a boolean.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(&error))
}

fn explain(error: &Error) -> YamlError {
    let error = error.without_snippet();
    let place = error.location().filter(|at| at.line() > 0).map(|at| (at.line(), at.column()));
    let mut known = Vec::new();
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            known.clone_from(expected);
            format!("unknown key `{field}`; {}", suggestion(field, expected.iter().copied()))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown value `{variant}`; {}", suggestion(variant, expected.iter().copied()))
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` occurs twice"),
        other => {
            // The parser's message ends with the location, which `place` has already.
            let text = other.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().to_owned()
        }
    };
    YamlError { place, message, known }
}
