//! Whether a pipeline may run: the ledger says, and a running pipeline asks it every second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::failure::Transient;
use crate::health::Health;
use crate::metrics::METRICS;
use crate::store::{PipelineStop, Store};

/// How often the ledger is asked.
const LOOK: Duration = Duration::from_secs(1);
/// The class of a stop by hand in the metric, beside those of dead letters.
const BY_HAND: &str = "by_hand";

/// The valve of one pipeline.
#[derive(Debug, Clone)]
pub struct StopGate {
    pipeline: Arc<str>,
    store: Store,
    health: Health,
}

impl StopGate {
    /// The valve of the pipeline; whoever waits at it keeps `health` informed.
    pub fn new(pipeline: Arc<str>, store: Store, health: Health) -> Self {
        Self { pipeline, store, health }
    }

    /// Waits until the pipeline may run.
    pub async fn opened(&self) {
        let mut class: Option<String> = None;
        loop {
            match self.look().await {
                Ok(None) => break,
                Ok(Some(stop)) => {
                    let now = stop.class.clone().unwrap_or_else(|| BY_HAND.to_owned());
                    if class.as_ref() != Some(&now) {
                        self.clear(class.replace(now.clone()));
                        METRICS.pipeline_stopped.with_label_values(&[&*self.pipeline, &now]).set(1);
                        tracing::warn!(pipeline = %self.pipeline, reason = stop.reason, "the pipeline is stopped");
                    }
                    self.health.stopped(&self.pipeline, stop.reason);
                }
                Err(failure) => self.health.blame(&failure),
            }
            sleep(LOOK).await;
        }
        if class.is_some() {
            tracing::info!(pipeline = %self.pipeline, "the pipeline is resumed");
        }
        self.clear(class);
        self.health.running(&self.pipeline);
    }

    /// Waits until the pipeline must not run any more.
    pub async fn closed(&self) {
        loop {
            sleep(LOOK).await;
            // The walk itself reports a database that is down.
            if let Ok(Some(_)) = self.look().await {
                return;
            }
        }
    }

    async fn look(&self) -> Result<Option<PipelineStop>, Transient> {
        self.store.pipeline_stop(&self.pipeline).await
    }

    fn clear(&self, class: Option<String>) {
        if let Some(class) = class {
            // It is there: it was set when the class was learnt.
            let _ = METRICS.pipeline_stopped.remove_label_values(&[&*self.pipeline, &class]);
        }
    }
}
