//! Answers that were paid for in calls that came to nothing because of a neighbour: they are not asked for again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::request::{Answer, Request};
use tidemill_base::failure::{Failure, Poison};

/// Answers that are kept at most: more than the documents of the batches that are under way at a time.
const ENTRIES_MAX: usize = 4096;

/// What a request came to.
type CachedOutcome = Result<Answer, Poison>;

/// The answers of calls that have not ended well, by request.
#[derive(Debug, Default)]
pub(crate) struct AnswerCache(Mutex<CacheEntries>);

#[derive(Debug, Default)]
struct CacheEntries {
    by_request: HashMap<blake3::Hash, CachedOutcome>,
    /// The oldest first.
    order: VecDeque<blake3::Hash>,
}

impl AnswerCache {
    fn answers(&self) -> MutexGuard<'_, CacheEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request came to before.
    pub(crate) fn get(&self, request: &Request) -> Option<Result<Answer, Failure>> {
        let kept = self.answers().by_request.get(&digest(request)?).cloned()?;
        Some(kept.map_err(Failure::Poison))
    }

    /// Keeps what the request came to, until its call ends well.
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

    /// Forgets the request: its call has ended well.
    pub(crate) fn forget(&self, request: &Request) {
        let Some(digest) = digest(request) else { return };
        let mut answers = self.answers();
        if answers.by_request.remove(&digest).is_some() {
            answers.order.retain(|other| *other != digest);
        }
    }
}

fn digest(request: &Request) -> Option<blake3::Hash> {
    // The work without who asks, which is all that decides the answer.
    serde_json::to_vec(&request.work).ok().map(|work| blake3::hash(&work))
}
