//! Runs one pipeline for as long as the process lives, and waits through stops and halts until an operator ends them.
//!
//! A pipeline is stopped manually, or because too many of its records became dead letters. It then leaves its consumer group until
//! it is resumed.
//!
//! A pipeline is halted when its topic no longer contains its position. It then leaves its group and waits until an operator says
//! where to go on. The process keeps running: its other pipelines are not affected, and a restarted process would be halted again.
//! `/readyz` and `tidemill_halted` report the halt until a gap is recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::health::Health;
use crate::pipeline::{self, HaltError, PipelineRuntime, StopGate};
use crate::source::{KafkaSource, KafkaSourceConfig};
use crate::store::Store;

/// How often the ledger is asked whether an operator recorded a gap.
const POLL: Duration = Duration::from_secs(2);

pub(super) struct PipelineSupervisor {
    pub(super) runtime: Arc<PipelineRuntime>,
    pub(super) source: KafkaSourceConfig,
    pub(super) store: Store,
    pub(super) health: Health,
    pub(super) drain: Duration,
}

/// What ended one membership in the consumer group. Absent where it ended by an error, or where a partition worker found the
/// pipeline stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    /// An operator moved a position.
    Gap,
    /// The pipeline was stopped.
    Stop,
}

impl PipelineSupervisor {
    /// Runs until `shutdown` resolves.
    ///
    /// # Errors
    /// Where the process cannot go on with the pipeline.
    pub(super) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(shutdown);
        let pipeline = self.source.pipeline.clone();
        let stop_gate = StopGate::new(pipeline.clone(), self.store.clone(), self.health.clone());
        loop {
            let opened = async {
                stop_gate.wait_until_open().await;
                self.gaps().await
            };
            let gaps = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                gaps = opened => gaps,
            };
            let (source, events) = KafkaSource::start(self.source.clone(), self.store.clone(), self.health.clone())?;
            self.health.clear_halt(&pipeline);
            let mut end = None;
            let ended = async {
                end = Some(tokio::select! {
                    () = &mut shutdown => End::Shutdown,
                    () = self.gap(gaps) => End::Gap,
                    () = stop_gate.wait_until_closed() => End::Stop,
                });
            };
            match pipeline::run(self.runtime.clone(), source, events, ended, self.drain).await {
                Ok(()) if end == Some(End::Shutdown) => return Ok(()),
                Ok(()) if end == Some(End::Gap) => {
                    tracing::info!(%pipeline, "an operator moved a position: reading restarts there");
                }
                Ok(()) => {}
                Err(error) => {
                    let Some(halt) = error.downcast_ref::<HaltError>() else { return Err(error) };
                    self.health.halt(&pipeline, &halt.reason);
                    tokio::select! {
                        () = self.gap(gaps) => {}
                        () = &mut shutdown => return Ok(()),
                    }
                }
            }
        }
    }

    /// The number of gaps recorded for the topic. Asks the ledger until it answers.
    async fn gaps(&self) -> i64 {
        loop {
            match self.store.count_gaps(&self.source.pipeline, &self.source.topic).await {
                Ok(gaps) => return gaps,
                Err(failure) => self.health.blame(&failure),
            }
            sleep(POLL).await;
        }
    }

    /// Resolves when the number of gaps is no longer `known`.
    async fn gap(&self, known: i64) {
        loop {
            sleep(POLL).await;
            if self.gaps().await != known {
                return;
            }
        }
    }
}
