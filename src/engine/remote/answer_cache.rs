//! Caches answers of calls that failed as a whole because of another request in the call. They have been paid for and are not
//! requested again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::request::{Answer, Request};
use tidemill_base::failure::{Failure, Poison};

/// The maximum number of cached answers: more than the documents of all batches in progress.
const ENTRIES_MAX: usize = 4096;

/// The outcome of a request.
type CachedOutcome = Result<Answer, Poison>;

/// The outcomes of requests whose call has not succeeded, by request.
#[derive(Debug, Default)]
pub(crate) struct AnswerCache(Mutex<CacheEntries>);

#[derive(Debug, Default)]
struct CacheEntries {
    by_request: HashMap<blake3::Hash, CachedOutcome>,
    order: VecDeque<blake3::Hash>,
}

impl AnswerCache {
    fn answers(&self) -> MutexGuard<'_, CacheEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached outcome of the request.
    pub(crate) fn get(&self, request: &Request) -> Option<Result<Answer, Failure>> {
        let kept = self.answers().by_request.get(&digest(request)?).cloned()?;
        Some(kept.map_err(Failure::Poison))
    }

    /// Caches the outcome of the request until its call succeeds.
    pub(crate) fn keep(&self, request: &Request, outcome: CachedOutcome) {
        let Some(digest) = digest(request) else { return };
        let mut answers = self.answers();
        if answers.by_request.insert(digest, outcome).is_none() {
            answers.order.push_back(digest);
        }
        while answers.by_request.len() > ENTRIES_MAX {
            let Some(oldest) = answers.order.pop_front() else { break };
            answers.by_request.remove(&oldest);
        }
    }

    /// Removes the request, because its call has succeeded.
    pub(crate) fn forget(&self, request: &Request) {
        let Some(digest) = digest(request) else { return };
        let mut answers = self.answers();
        if answers.by_request.remove(&digest).is_some() {
            answers.order.retain(|other| *other != digest);
        }
    }
}

fn digest(request: &Request) -> Option<blake3::Hash> {
    // The work without the group, which does not affect the answer.
    serde_json::to_vec(&request.work).ok().map(|work| blake3::hash(&work))
}
