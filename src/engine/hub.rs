//! Copies models from the Hugging Face hub or from disk into a local folder: only the files that are used here, each verified.
//!
//! ```text
//! listing (names, sizes, SHA-256) ─ select ─ each file: .partial ─ verified ─ renamed ─ manifest (names, sizes, BLAKE3)
//! ```
//!
//! An interrupted download continues where it stopped. The manifest is kept beside the files, so that they can be verified again at
//! any time.

mod digest;
mod fetch;
mod file_selection;
mod inspect;
mod manifest;
mod pull;
mod source;

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;

use tidemill_base::config::ConfigError;
use tidemill_base::http;
use tidemill_base::http::retry::{RetryPolicy, StatusClass};

pub use inspect::inspect;
pub use manifest::{DamagedFile, MANIFEST, Manifest};
pub use pull::{PullOptions, PulledModel, pull};
pub use source::{ModelSource, name_for};

/// The public Hugging Face hub.
pub const ENDPOINT: &str = "https://huggingface.co";

/// The longest pause while the hub sends a file.
const SILENCE: Duration = Duration::from_secs(30);

/// The maximum number of redirects of one request.
const REDIRECTS: usize = 5;

/// A model hub that speaks the API of Hugging Face.
pub struct Hub {
    endpoint: Url,
    client: Client,
    token: Option<HeaderValue>,
    patience: RetryPolicy,
}

/// The hub's files of one model at one commit.
#[derive(Debug)]
struct Listing {
    id: String,
    commit: String,
    files: Vec<HubFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HubFile {
    name: String,
    /// In bytes, if the hub reports it.
    size: Option<u64>,
    /// In hexadecimal, if the hub reports it; it does for all large files.
    sha256: Option<String>,
}

impl Hub {
    /// The hub at `endpoint`. A `token` gives access to private and gated models.
    ///
    /// # Errors
    /// If the address is not valid, or the token has characters that an HTTP header cannot have.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self> {
        let parsed = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && !url.cannot_be_a_base());
        let no_address =
            || ConfigError(format!("the hub's address is not a URL; set HF_ENDPOINT to an address like {ENDPOINT:?}"));
        let endpoint = parsed.ok_or_else(no_address)?;
        let token = token.map(str::trim).filter(|token| !token.is_empty()).map(|token| {
            let mut header = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| ConfigError("HF_TOKEN has characters that no token has; set it to the hub's token".into()))?;
            header.set_sensitive(true);
            Ok::<_, ConfigError>(header)
        });
        let shape = |builder: reqwest::ClientBuilder| builder.read_timeout(SILENCE).redirect(redirect_policy());
        let client = http::client(&endpoint, shape).context("cannot prepare connections to the hub")?;
        // There is no overall deadline, because a large model may take any time.
        let patience = RetryPolicy { total: Duration::MAX, ..RetryPolicy::new(SILENCE) };
        Ok(Self { endpoint, client, token: token.transpose()?, patience })
    }

    /// Lists the files of the model `id` at `revision`: a branch, a tag or a commit.
    async fn listing(&self, id: &str, revision: &str) -> Result<Listing> {
        #[derive(Deserialize)]
        struct ModelResponse {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            sha256: Option<String>,
            size: Option<u64>,
        }
        let mut url = self.url(&["api", "models"], id, &["revision", revision]);
        // Without this the answer has no sizes and no hashes.
        url.set_query(Some("blobs=true"));
        let what = format!("{id} at {revision}");
        let mut attempt = 0;
        let found: ModelResponse = loop {
            attempt += 1;
            let reason = match self.get(url.clone()).send().await {
                Err(e) => http::reason(&e),
                Ok(response) => match StatusClass::of(response.status()) {
                    StatusClass::Answer => match response.json().await {
                        Ok(found) => break found,
                        Err(e) if e.is_decode() => {
                            bail!("{}: the answer for {what} is not that of a model hub; check HF_ENDPOINT", self.endpoint)
                        }
                        Err(e) => http::reason(&e),
                    },
                    StatusClass::Again => format!("it answers {}", response.status()),
                    StatusClass::Settings | StatusClass::Request => bail!(self.refused(response.status(), &what)),
                },
            };
            self.pause(attempt, None, &what, &reason).await?;
        };
        let file = |sibling: Sibling| {
            let (large_size, sha256) = sibling.lfs.map_or((None, None), |lfs| (lfs.size, lfs.sha256));
            HubFile { name: sibling.rfilename, size: large_size.or(sibling.size), sha256 }
        };
        Ok(Listing { id: id.to_owned(), commit: found.sha, files: found.siblings.into_iter().map(file).collect() })
    }

    fn get(&self, url: Url) -> RequestBuilder {
        let request = self.client.get(url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// A URL below the hub's address. The parts are escaped.
    fn url(&self, before: &[&str], id: &str, after: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(before).extend(id.split('/')).extend(after);
        }
        url
    }

    /// Waits before the next attempt, or fails if there have been enough.
    async fn pause(&self, attempt: u32, requested_wait: Option<Duration>, what: &str, reason: &str) -> Result<()> {
        let wait = self.patience.wait(attempt, requested_wait).filter(|_| attempt < self.patience.attempts);
        let Some(wait) = wait else {
            bail!("cannot get {what} from {} ({attempt} attempts): {reason}; run the command again to continue", self.endpoint);
        };
        tracing::info!(attempt, reason, "retrying the request to the hub");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn refused(&self, status: reqwest::StatusCode, what: &str) -> String {
        let fix = match (status.as_u16(), &self.token) {
            (401 | 403, None) => {
                "it does not exist, or needs a token: check the name, and set HF_TOKEN if the model is private or gated"
            }
            (401 | 403, Some(_)) => "HF_TOKEN does not allow it: accept the model's terms on the hub, or use another token",
            (404, _) => "it does not exist: check the name and the revision",
            _ => "check HF_ENDPOINT and the name",
        };
        format!("{} answers {status} for {what}; {fix}", self.endpoint)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// The hub redirects downloads of large files to other hosts. The client does not send the token to them. Redirects from TLS to
/// plain HTTP are refused.
fn redirect_policy() -> Policy {
    Policy::custom(|attempt| {
        let from_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS || from_tls && attempt.url().scheme() != "https" {
            attempt.stop()
        } else {
            attempt.follow()
        }
    })
}
