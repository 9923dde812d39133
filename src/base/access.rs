//! Tokens of the HTTP API: their scopes and secrets.
//!
//! | scope | may |
//! |---|---|
//! | `read` | search, read jobs and metrics |
//! | `submit` | submit, cancel and retry jobs |
//! | `review` | decide on copy and other things that wait for a person |
//! | `admin` | everything |
//!
//! A token is shown once, as `tm_<id>_<secret>`. The ledger stores the id and a hash of the secret. The secret has 256 random bits,
//! so that it cannot be guessed and a fast hash is enough.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use blake3::Hash;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::Serialize;

/// A scope of a token: what its holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Search, read jobs and metrics
    Read,
    /// Submit, cancel and retry jobs
    Submit,
    /// Decide on what waits for a person
    Review,
    /// Everything
    Admin,
}

impl Scope {
    /// In the order of this enum.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Review, Self::Admin];

    /// The name in the ledger, on the command line and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Review => "review",
            Self::Admin => "admin",
        }
    }

    /// The inverse of [`Scope::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The prefix of a token, by which secret scanners recognize it.
const PREFIX: &str = "tm_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// A new token, with its secret and the hash that is stored.
pub struct NewSecret {
    /// The public part, which names the token in the ledger and in lists.
    pub id: String,
    /// The hash of the secret, which the ledger stores.
    pub hash: Hash,
    /// The whole token. It is shown once.
    pub token: String,
}

impl NewSecret {
    /// Makes a random token.
    ///
    /// # Errors
    /// Where the operating system provides no random bytes.
    pub fn draw() -> anyhow::Result<Self> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| anyhow::anyhow!("the operating system provides no random bytes: {error}"))?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        let (id, secret) = (hexadecimal(id), hexadecimal(secret));
        Ok(Self { hash: blake3::hash(secret.as_bytes()), token: format!("{PREFIX}{id}_{secret}"), id })
    }
}

/// The id and the hash of the secret of a caller's token; none where it does not have the form of a token.
pub fn read_token(carried: &str) -> Option<(&str, Hash)> {
    let (id, secret) = carried.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hexadecimal = |text: &str, bytes: usize| text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_hexdigit());
    let well_formed = is_hexadecimal(id, ID_BYTES) && is_hexadecimal(secret, SECRET_BYTES);
    well_formed.then(|| (id, blake3::hash(secret.as_bytes())))
}

/// Whether the name is valid for a tenant: a letter, then letters, digits and `-`, in lower case, at most 63 characters.
pub fn is_tenant(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

/// The tenant of a caller. Its pipelines are those whose files name it, except those that the ledger has moved to another tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub name: Arc<str>,
    /// Pipelines that belong to other tenants according to the ledger. A pipeline may have been moved after this process read its
    /// file.
    pub of_others: Arc<HashSet<String>>,
}

impl Tenant {
    /// Those of the pipelines that the tenant owns. `named` gives the tenant that a pipeline's file names.
    pub fn select<T: Clone>(&self, pipelines: &BTreeMap<String, T>, named: impl Fn(&T) -> &str) -> BTreeMap<String, T> {
        let own = pipelines.iter().filter(|(name, pipeline)| self.owns(name, named(pipeline)));
        own.map(|(name, pipeline)| (name.clone(), pipeline.clone())).collect()
    }

    /// Whether the pipeline belongs to this tenant; the pipeline's file names the tenant `named`.
    pub fn owns(&self, pipeline: &str, named: &str) -> bool {
        *named == *self.name && !self.of_others.contains(pipeline)
    }
}

impl From<&str> for Tenant {
    /// A tenant without pipelines that were moved to others.
    fn from(name: &str) -> Self {
        Self { name: name.into(), of_others: Arc::default() }
    }
}

/// The tenant of pipelines whose files name none.
pub const DEFAULT_TENANT: &str = "default";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_itself_and_hashes_to_what_the_ledger_keeps() {
        let (one, other) = (NewSecret::draw().unwrap(), NewSecret::draw().unwrap());
        assert_eq!(read_token(&one.token), Some((one.id.as_str(), one.hash)));
        assert_ne!(one.token, other.token);
        assert!(!one.token.contains(one.hash.to_hex().as_str()), "the hash must not be the secret");
    }

    #[test]
    fn what_is_no_token_of_a_ledger_is_not_looked_up() {
        let token = NewSecret::draw().unwrap().token;
        let long = format!("{token}0");
        for carried in
            ["", "tm_", "s3cret", "tm_00_11", &token[1..], &long, &token.replace("tm_", "tm_'"), &token.replace('_', " ")]
        {
            assert_eq!(read_token(carried), None, "for {carried:?}");
        }
    }

    #[test]
    fn tenants_have_plain_names() {
        assert!(is_tenant("acme") && is_tenant("a-1"));
        for name in ["", "Acme", "1a", "a b", "a'; DROP ROLE x; --", "a\0", "에이", &"a".repeat(64)] {
            assert!(!is_tenant(name), "for {name:?}");
        }
    }
}
