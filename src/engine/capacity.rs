//! Limits how much may wait for the devices.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

use super::request::Priority;

/// How many tokens may wait. Each priority has a capacity of its own, so that live work never waits for capacity that backfill
/// holds.
pub(super) struct TokenCapacity {
    live: Arc<Semaphore>,
    backfill: Arc<Semaphore>,
    capacity: usize,
}

impl TokenCapacity {
    /// A capacity of this many tokens for each priority.
    pub(super) fn new(tokens: usize) -> Self {
        let capacity = tokens.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let semaphore = || Arc::new(Semaphore::new(capacity));
        Self { live: semaphore(), backfill: semaphore(), capacity }
    }

    /// Waits for this many tokens to be free, or for the whole capacity if they are more.
    pub(super) async fn take(&self, priority: Priority, tokens: usize) -> Option<OwnedSemaphorePermit> {
        let permits = tokens.min(self.capacity) as u32;
        let semaphore = match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        };
        semaphore.clone().acquire_many_owned(permits).await.ok()
    }

    /// Free tokens of live priority.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.live.available_permits()
    }
}

/// Lets large calls to an encoder fill the queue one after the other. Side by side, all of them would finish together at the very
/// end: every caller would wait for all calls, and the device would idle while all callers commit at once.
pub(super) struct FairQueue(Vec<[Mutex<()>; 2]>);

impl FairQueue {
    pub(super) fn new(models: usize) -> Self {
        Self((0..models).map(|_| Default::default()).collect())
    }

    /// Waits until all earlier calls of this priority have queued their sequences for the model.
    pub(super) async fn wait(&self, priority: Priority, model: usize) -> MutexGuard<'_, ()> {
        let place = match priority {
            Priority::Live => 0,
            Priority::Backfill => 1,
        };
        self.0[model][place].lock().await
    }
}
