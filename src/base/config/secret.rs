//! Secrets, which come from environment variables or files and are read where they are used.

use std::path::Path;

use super::ConfigError;

/// Where a secret comes from: a variable, a file, or neither. [`SecretSource::check`] refuses both.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecretSource<'a> {
    /// The name of the setting without its suffix, such as `kafka.security.password`.
    pub(super) setting: &'a str,
    /// The value of `…_env`.
    pub(super) variable: Option<&'a str>,
    /// The value of `…_file`.
    pub(super) file: Option<&'a Path>,
}

impl SecretSource<'_> {
    /// Whether a source is set.
    ///
    /// # Errors
    /// Where both are set, or the name of the variable is empty.
    pub(super) fn check(&self) -> Result<bool, ConfigError> {
        let Self { setting, variable, file } = self;
        match (variable, file) {
            (Some(_), Some(_)) => Err(ConfigError(format!("`{setting}_env` and `{setting}_file` are both set; remove one"))),
            (Some(variable), None) if variable.trim().is_empty() => {
                Err(ConfigError(format!("`{setting}_env` is empty; name the variable that holds the secret, or remove it")))
            }
            (variable, file) => Ok(variable.is_some() || file.is_some()),
        }
    }

    /// Reads the secret; `environment` looks up a variable. None where no source is set.
    pub(super) fn read(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Option<String>, ConfigError> {
        let Self { setting, variable, file } = self;
        if let Some(variable) = variable {
            let secret = environment(variable).filter(|secret| !secret.trim().is_empty());
            let missing = || ConfigError(format!("the variable {variable}, which `{setting}_env` names, is not set; set it"));
            return secret.map(Some).ok_or_else(missing);
        }
        file.map(|file| read(setting, file)).transpose()
    }
}

/// Reads the secret from the file that `<setting>_file` names, without surrounding white space.
pub(super) fn read(setting: &str, path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        ConfigError(format!("cannot read {shown}, which `{setting}_file` names: {e}; mount it or correct the path"))
    })?;
    match text.trim() {
        "" => Err(ConfigError(format!("{shown}, which `{setting}_file` names, is empty; write the secret into it"))),
        secret => Ok(secret.to_owned()),
    }
}
