//! The sources that a model can be pulled from: the hub, or the disk.

use std::path::{Path, PathBuf};

use tidemill_base::config::ConfigError;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// `owner/model` on the hub, at a branch, a tag or a commit.
    Hub {
        id: String,
        /// `main` by default.
        revision: String,
    },
    Folder(PathBuf),
    File(PathBuf),
}

impl ModelSource {
    /// Parses `owner/model`, `owner/model@revision`, or the path of an existing folder or file.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.is_file() {
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
                return Ok(Self::File(path.to_owned()));
            }
            return Err(ConfigError(format!("{text} is a file, but not a GGUF file; give the model's folder")));
        }
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let is_word = |word: &str| {
            !word.is_empty()
                && !word.starts_with('.')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        match id.split('/').collect::<Vec<_>>().as_slice() {
            [owner, model] if is_word(owner) && is_word(model) && !revision.is_empty() => {
                Ok(Self::Hub { id: id.to_owned(), revision: revision.to_owned() })
            }
            _ => Err(ConfigError(format!(
                "{text:?} is neither an existing folder nor a model of the hub; write owner/model, or owner/model@revision"
            ))),
        }
    }

    /// A name for the model in the configuration.
    pub fn name(&self) -> String {
        let last = match self {
            Self::Hub { id, .. } => id.rsplit('/').next().unwrap_or_default().to_owned(),
            Self::Folder(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        name_for(&last)
    }
}

/// Turns `text` into a name that needs no quotes in TOML and can be part of an environment variable's name.
pub fn name_for(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "model".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_model_of_the_hub_or_something_that_is_here() {
        let hub = |id: &str, revision: &str| Ok(ModelSource::Hub { id: id.into(), revision: revision.into() });
        assert_eq!(ModelSource::parse("Qwen/Qwen2.5-0.5B-Instruct"), hub("Qwen/Qwen2.5-0.5B-Instruct", "main"));
        assert_eq!(ModelSource::parse("owner/model@refs/pr/3"), hub("owner/model", "refs/pr/3"));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ModelSource::parse(folder.path().to_str().unwrap()), Ok(ModelSource::Folder(folder.path().into())));
        for text in ["model", "./models/absent", "../x/y", "owner/model@", "a/b/c", "owner/mo del", "https://hub/owner/model"] {
            assert!(ModelSource::parse(text).unwrap_err().to_string().contains("write owner/model"), "{text}");
        }
    }

    #[test]
    fn names_can_stand_in_toml_without_quotes() {
        assert_eq!(ModelSource::parse("Qwen/Qwen2.5-0.5B-Instruct").unwrap().name(), "qwen2-5-0-5b-instruct");
        assert_eq!([name_for("..."), name_for("Modèle_1")], ["model", "mod-le_1"]);
    }
}
