//! Who may do what: the scopes of a token, and the secret that it is.
//!
//! | scope | may |
//! |---|---|
//! | `read` | search, look at jobs, read metrics |
//! | `submit` | ask for jobs, call them off, try them again |
//! | `review` | decide on what waits for a person |
//! | `admin` | all of it |
//!
//! A token is shown once, as `tm_<id>_<secret>`. The ledger keeps the id and a hash: the secret is 256 bits of chance, which nobody
//! guesses and no slow hash need protect.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use blake3::Hash;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::Serialize;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Search, look at jobs, read metrics
    Read,
    /// Ask for jobs, call them off, try them again
    Submit,
    /// Decide on what waits for a person
    Review,
    /// All of it
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Review, Self::Admin];

    /// The word for it in the ledger, on the command line and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Review => "review",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a token begins with, by which scanners of repositories can know one.
const PREFIX: &str = "tm_";
/// Bytes of the part that names the token.
const ID_BYTES: usize = 6;
/// Bytes of the part that nobody else knows.
const SECRET_BYTES: usize = 32;

/// A new token, known to nobody yet.
pub struct NewSecret {
    /// Names it in the ledger and in lists.
    pub id: String,
    /// What the ledger keeps.
    pub hash: Hash,
    /// What its holder keeps. It cannot be shown again.
    pub token: String,
}

impl NewSecret {
    /// Draws one.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn draw() -> anyhow::Result<Self> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        let (id, secret) = (hexadecimal(id), hexadecimal(secret));
        Ok(Self { hash: blake3::hash(secret.as_bytes()), token: format!("{PREFIX}{id}_{secret}"), id })
    }
}

/// The id and the hashed secret of what a caller carries; none where it is no token of a ledger.
pub fn read_token(carried: &str) -> Option<(&str, Hash)> {
    let (id, secret) = carried.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hexadecimal = |text: &str, bytes: usize| text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_hexdigit());
    let well_formed = is_hexadecimal(id, ID_BYTES) && is_hexadecimal(secret, SECRET_BYTES);
    well_formed.then(|| (id, blake3::hash(secret.as_bytes())))
}

/// Whether a tenant may be called so: a letter, then letters, digits and `-`, all of them lower case, at most 63.
pub fn is_tenant(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

/// A tenant whose caller asks: its pipelines are those whose files name it, save what the ledger knows as another's by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: Arc<str>,
    /// Pipelines that the ledger knows as another tenant's. A process that has read their files before learns of it only here.
    pub of_others: Arc<HashSet<String>>,
}

impl Tenant {
    /// Those of the pipelines that the tenant owns. `named` gives the tenant that a pipeline's file names.
    pub fn select<T: Clone>(&self, pipelines: &BTreeMap<String, T>, named: impl Fn(&T) -> &str) -> BTreeMap<String, T> {
        let own = pipelines.iter().filter(|(name, pipeline)| self.owns(name, named(pipeline)));
        own.map(|(name, pipeline)| (name.clone(), pipeline.clone())).collect()
    }

    /// Whether the pipeline is its own, where the pipeline's file names the tenant `named`.
    pub fn owns(&self, pipeline: &str, named: &str) -> bool {
        *named == *self.name && !self.of_others.contains(pipeline)
    }
}

impl From<&str> for Tenant {
    /// One of which the ledger says nothing.
    fn from(name: &str) -> Self {
        Self { name: name.into(), of_others: Arc::default() }
    }
}

/// The tenant of pipelines that name none.
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
