//! Addresses of servers. They are printed, so they must not contain secrets.

use reqwest::Url;

use super::ConfigError;

/// A setting whose value is an address.
pub(super) struct AddressSetting<'a> {
    /// The name of the setting, such as `models.writer.base_url`.
    pub(super) setting: &'a str,
    /// A valid address, for messages.
    pub(super) example: &'a str,
    /// Where to put a secret instead, for messages.
    pub(super) secret: &'a str,
}

impl AddressSetting<'_> {
    /// Parses the address. Messages show neither the text nor the parser's message, because the text may contain a password.
    pub(super) fn read(&self, text: &str) -> Result<Url, ConfigError> {
        let Self { setting, example, secret } = self;
        let refuse = |reason: String| Err(ConfigError(format!("`{setting}` {reason}")));
        let Ok(url) = Url::parse(text.trim_end_matches('/')) else {
            return refuse(format!("is not an address; write it like {example:?}"));
        };
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return refuse("must begin with http:// or https://".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(format!("contains a user or a password; {secret}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse(format!("contains a `?` or a `#`; end it before that, as in {example:?}"));
        }
        Ok(url)
    }
}
