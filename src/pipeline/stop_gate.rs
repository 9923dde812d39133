//! The stop gate of a pipeline: the ledger records whether the pipeline is stopped, and the gate reads that every second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::failure::Transient;
use crate::health::Health;
use crate::metrics::METRICS;
use crate::store::{PipelineStop, Store};

/// How often the ledger is read.
const POLL: Duration = Duration::from_secs(1);
/// The metric's `class` of a manual stop. Other stops have the class of their dead letters.
const BY_HAND: &str = "by_hand";

/// Waits for the stops and resumptions of one pipeline.
#[derive(Debug, Clone)]
pub struct StopGate {
    pipeline: Arc<str>,
    store: Store,
    health: Health,
}

impl StopGate {
    /// The gate of `pipeline`, which reports to `health`.
    pub fn new(pipeline: Arc<str>, store: Store, health: Health) -> Self {
        Self { pipeline, store, health }
    }

    /// Waits until the pipeline may run.
    pub async fn wait_until_open(&self) {
        let mut class: Option<String> = None;
        loop {
            match self.stop().await {
                Ok(None) => break,
                Ok(Some(stop)) => {
                    let current = stop.class.clone().unwrap_or_else(|| BY_HAND.to_owned());
                    if class.as_ref() != Some(&current) {
                        self.clear(class.replace(current.clone()));
                        METRICS.pipeline_stopped.with_label_values(&[&*self.pipeline, &current]).set(1);
                        tracing::warn!(pipeline = %self.pipeline, reason = stop.reason, "the pipeline is stopped");
                    }
                    self.health.stopped(&self.pipeline, stop.reason);
                }
                Err(failure) => self.health.blame(&failure),
            }
            sleep(POLL).await;
        }
        if class.is_some() {
            tracing::info!(pipeline = %self.pipeline, "the pipeline is resumed");
        }
        self.clear(class);
        self.health.running(&self.pipeline);
    }

    /// Waits until the pipeline must stop.
    pub async fn wait_until_closed(&self) {
        loop {
            sleep(POLL).await;
            // The running pipeline itself reports a database that is unavailable.
            if let Ok(Some(_)) = self.stop().await {
                return;
            }
        }
    }

    async fn stop(&self) -> Result<Option<PipelineStop>, Transient> {
        self.store.pipeline_stop(&self.pipeline).await
    }

    fn clear(&self, class: Option<String>) {
        if let Some(class) = class {
            // The label exists: it was set when the gate closed with this class.
            let _ = METRICS.pipeline_stopped.remove_label_values(&[&*self.pipeline, &class]);
        }
    }
}
