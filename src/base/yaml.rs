//! YAML that people write: read strictly, with a sentence for every key or type that is not.

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use crate::did_you_mean::suggestion;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Line and column, both from 1, where the fault has a place.
    pub place: Option<(u64, u64)>,
    /// One sentence: the thing and the mend.
    pub message: String,
    /// Every key that could stand where an unknown one does.
    pub known: Vec<&'static str>,
}

/// Reads `text`.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    // `yes` for a label or `on` for a field name must stay the word it is; keys have one spelling.
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
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` stands twice"),
        other => {
            // The place is given once, in our own form.
            let text = other.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().to_owned()
        }
    };
    YamlError { place, message, known }
}
