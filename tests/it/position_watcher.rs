//! Reads all positions during a test: none may ever fall. It also measures how long they did not move.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemill::store::{PositionRow, Store};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often positions are read.
const LOOK: Duration = Duration::from_millis(100);

/// Reads positions until it is dropped.
pub struct PositionWatcher {
    seen: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Next offset and epoch.
    last: HashMap<(String, String, i32), (i64, i64)>,
    falls: Vec<String>,
    /// When a position was seen to have moved.
    moves: Vec<Instant>,
}

impl PositionWatcher {
    /// Starts to read every position of the ledger.
    pub fn start(store: Store) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let looking = tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    // Some tests make the ledger unavailable for a while.
                    if let Ok(Ok(rows)) = timeout(Duration::from_secs(2), store.list_positions(None)).await {
                        lock(&seen).look(rows);
                    }
                    sleep(LOOK).await;
                }
            }
        });
        Self { seen, looking }
    }

    /// Fails where a position or an epoch was seen to fall, or none was ever seen.
    pub fn assert_nothing_fell(&self) {
        let seen = lock(&self.seen);
        assert!(seen.falls.is_empty(), "{}", seen.falls.join("; "));
        assert!(!seen.last.is_empty(), "no position was ever seen");
    }

    /// The longest time since `since` in which no position was seen to move.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let seen = lock(&self.seen);
        let moves: Vec<Instant> = std::iter::once(since).chain(seen.moves.iter().copied().filter(|at| *at > since)).collect();
        assert!(moves.len() > 2, "positions hardly ever moved");
        moves.windows(2).map(|pair| pair[1] - pair[0]).max().expect("there are several moves")
    }
}

impl Seen {
    fn look(&mut self, rows: Vec<PositionRow>) {
        let mut moved = false;
        for row in rows {
            let now = (row.next_offset, row.epoch);
            let place = format!("{} {}[{}]", row.pipeline, row.topic, row.partition);
            let before = self.last.insert((row.pipeline, row.topic, row.partition), now).unwrap_or((row.seed_offset, 0));
            moved |= now.0 > before.0;
            if now.0 < before.0 || now.1 < before.1 {
                self.falls.push(format!("{place}: offset and epoch went from {before:?} to {now:?}"));
            }
        }
        if moved {
            self.moves.push(Instant::now());
        }
    }
}

impl Drop for PositionWatcher {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
