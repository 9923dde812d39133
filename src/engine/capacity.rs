//! How much may wait for the devices, and who fills it.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

use super::request::Priority;

/// How many tokens may wait. Each priority has room of its own, or what goes first would wait for a place behind what does not.
pub(super) struct TokenCapacity {
    live: Arc<Semaphore>,
    backfill: Arc<Semaphore>,
    capacity: usize,
}

impl TokenCapacity {
    /// Room for so many tokens of each priority.
    pub(super) fn new(tokens: usize) -> Self {
        let capacity = tokens.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let semaphore = || Arc::new(Semaphore::new(capacity));
        Self { live: semaphore(), backfill: semaphore(), capacity }
    }

    /// Waits for room for so many tokens; for all there is, where they are more.
    pub(super) async fn take(&self, priority: Priority, tokens: usize) -> Option<OwnedSemaphorePermit> {
        let permits = tokens.min(self.capacity) as u32;
        let semaphore = match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        };
        semaphore.clone().acquire_many_owned(permits).await.ok()
    }

    /// Tokens that could come in now, of those that go first.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.live.available_permits()
    }
}

/// Calls with much to do for an encoder fill the queue one after the other. If they did so side by side, all of them would end when the
/// last one does: what waits for one would wait for all, and then much would be there to commit and nothing to compute.
pub(super) struct FairQueue(Vec<[Mutex<()>; 2]>);

impl FairQueue {
    /// For so many models.
    pub(super) fn new(models: usize) -> Self {
        Self((0..models).map(|_| Default::default()).collect())
    }

    /// Waits until those that came earlier have queued all they have for the model.
    pub(super) async fn wait(&self, priority: Priority, model: usize) -> MutexGuard<'_, ()> {
        let place = match priority {
            Priority::Live => 0,
            Priority::Backfill => 1,
        };
        self.0[model][place].lock().await
    }
}
