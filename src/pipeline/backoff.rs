//! Pauses between attempts while a component is unavailable.

use std::time::Duration;

use tokio::time::sleep;

use crate::failure::Transient;
use crate::health::Health;
use crate::metrics::METRICS;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses that double from 100 ms to 5 s.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// Reports the failure to metrics and health, then waits.
    pub async fn after(&mut self, failure: &Transient, health: &Health) {
        METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
        health.blame(failure);
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}
