//! The address of a server, which must not hold a secret: addresses are printed.

use reqwest::Url;

use super::ConfigError;

/// A setting that holds an address.
pub(super) struct Address<'a> {
    /// The setting, `models.writer.base_url`.
    pub(super) setting: &'a str,
    /// An address as it should be.
    pub(super) example: &'a str,
    /// Where a secret goes instead.
    pub(super) secret: &'a str,
}

impl Address<'_> {
    /// Reads what the setting says. Neither that nor the parser's words are shown: someone may have written a password into it.
    pub(super) fn read(&self, text: &str) -> Result<Url, ConfigError> {
        let Self { setting, example, secret } = self;
        let refuse = |reason: String| Err(ConfigError(format!("`{setting}` {reason}")));
        let Ok(url) = Url::parse(text.trim_end_matches('/')) else {
            return refuse(format!("is no address; write it like {example:?}"));
        };
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return refuse("must begin with http:// or https://".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(format!("holds a user or a password; {secret}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse(format!("holds a `?` or a `#`; end it before that, as in {example:?}"));
        }
        Ok(url)
    }
}
