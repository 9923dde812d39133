//! Downloads one file of a hub. A download is resumed where it stopped, and verified before it gets its final name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::{Hub, HubFile, Listing};
use tidemill_base::http;
use tidemill_base::http::retry::{StatusClass, retry_after};

/// Receives the number of bytes that have arrived, and the total if it is known.
pub(super) type ProgressCallback<'a> = dyn Fn(u64, Option<u64>) + Sync + 'a;

/// The outcome of one request.
enum FetchOutcome {
    Done,
    Retry { reason: String, requested_wait: Option<Duration> },
}

impl Hub {
    /// Downloads the file into `partial`. Bytes that `partial` already has are kept.
    pub(super) async fn fetch(
        &self,
        listing: &Listing,
        file: &HubFile,
        partial: &Path,
        progress: &ProgressCallback<'_>,
    ) -> Result<()> {
        let what = format!("{} of {}", file.name, listing.id);
        let mut attempt = 0;
        let mut before = length(partial).await;
        loop {
            if before > 0 && file.size == Some(before) {
                return Ok(());
            }
            let outcome = self.attempt(listing, file, partial, progress).await.with_context(|| format!("cannot get {what}"))?;
            let FetchOutcome::Retry { reason, requested_wait } = outcome else { return Ok(()) };
            let now = length(partial).await;
            // An attempt that received anything resets the count, so that a large file gets through an unreliable connection.
            attempt = if now > before { 1 } else { attempt + 1 };
            before = now;
            self.pause(attempt, requested_wait, &what, &reason).await?;
        }
    }

    async fn attempt(
        &self,
        listing: &Listing,
        file: &HubFile,
        partial: &Path,
        progress: &ProgressCallback<'_>,
    ) -> Result<FetchOutcome> {
        let mut have = length(partial).await;
        if file.size.is_some_and(|size| have > size) {
            remove(partial).await?;
            have = 0;
        }
        let parts: Vec<&str> = ["resolve", &listing.commit].into_iter().chain(file.name.split('/')).collect();
        // A compressed body would have another length than the file.
        let mut request = self.get(self.url(&[], &listing.id, &parts)).header(ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let again = |reason: String| Ok(FetchOutcome::Retry { reason, requested_wait: None });
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return again(http::reason(&e)),
        };
        let status = response.status();
        match StatusClass::of(status) {
            StatusClass::Answer => {}
            StatusClass::Again => {
                let requested_wait = retry_after(response.headers(), jiff::Timestamp::now());
                return Ok(FetchOutcome::Retry { reason: format!("it answers {status}"), requested_wait });
            }
            // The bytes on disk do not belong to the hub's file.
            StatusClass::Request if status == StatusCode::RANGE_NOT_SATISFIABLE && have > 0 => {
                remove(partial).await?;
                return again("the part on disk does not belong to the hub's file".into());
            }
            StatusClass::Settings | StatusClass::Request => bail!(self.refused(status, &file.name)),
        }
        if status == StatusCode::PARTIAL_CONTENT && !continues(&response, have) {
            remove(partial).await?;
            return again("it sends another part than was requested".into());
        }
        let append = status == StatusCode::PARTIAL_CONTENT;
        receive(response, partial, if append { have } else { 0 }, file.size, progress).await
    }
}

/// Whether the answer starts where the bytes on disk end.
fn continues(response: &Response, have: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")).and_then(|range| range.split('-').next());
    start.and_then(|start| start.parse().ok()) == Some(have)
}

/// Appends the body to the first `have` bytes of the file.
async fn receive(
    mut response: Response,
    partial: &Path,
    have: u64,
    size: Option<u64>,
    progress: &ProgressCallback<'_>,
) -> Result<FetchOutcome> {
    let unwritable = || format!("cannot write {}", partial.display());
    let mut file = open(partial, have).await.with_context(unwritable)?;
    let total = size.or_else(|| response.content_length().map(|rest| have + rest));
    let mut written = have;
    let outcome = loop {
        progress(written, total);
        match response.chunk().await {
            Ok(Some(chunk)) => {
                written += chunk.len() as u64;
                if size.is_some_and(|size| written > size) {
                    break Err(anyhow::anyhow!(
                        "the hub sends more than the {} bytes that it announced",
                        size.unwrap_or_default()
                    ));
                }
                file.write_all(&chunk).await.with_context(unwritable)?;
            }
            Ok(None) if total.is_some_and(|total| written < total) => {
                break Ok(FetchOutcome::Retry { reason: format!("the answer ends after {written} bytes"), requested_wait: None });
            }
            Ok(None) => break Ok(FetchOutcome::Done),
            Err(e) => break Ok(FetchOutcome::Retry { reason: http::reason(&e), requested_wait: None }),
        }
    };
    // What has arrived counts in the next attempt.
    file.flush().await.with_context(unwritable)?;
    file.sync_all().await.with_context(unwritable)?;
    if outcome.is_err() {
        remove(partial).await?;
    }
    outcome
}

async fn open(partial: &Path, have: u64) -> std::io::Result<File> {
    if have > 0 {
        return OpenOptions::new().append(true).open(partial).await;
    }
    File::create(partial).await
}

async fn length(path: &Path) -> u64 {
    fs::metadata(path).await.map_or(0, |found| found.len())
}

async fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}
