//! One pipeline for as long as the process lives, through stops and halts that an operator ends.
//!
//! A pipeline that is stopped, by hand or because too many of its records died, leaves its group until it is resumed.
//!
//! A pipeline whose position is not in its topic any more can go on only where an operator says. It leaves its group and waits,
//! and the process stays: the other pipelines have nothing to do with it, and a new process would only find the same and be
//! restarted again and again. `/readyz` and `tidemill_halted` say it until a gap is recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::health::Health;
use crate::pipeline::{self, HaltError, PipelineRuntime, StopGate};
use crate::source::{KafkaSource, KafkaSourceConfig};
use crate::store::Store;

/// How often the ledger is asked whether an operator made a gap.
const LOOK: Duration = Duration::from_secs(2);

/// What one pipeline runs on.
pub(super) struct PipelineSupervisor {
    pub(super) runtime: Arc<PipelineRuntime>,
    pub(super) source: KafkaSourceConfig,
    pub(super) store: Store,
    pub(super) health: Health,
    pub(super) drain: Duration,
}

/// How one stay in the group ended, if neither by a fault nor by a lane that found the pipeline stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    /// The positions are not what they were.
    Gap,
    /// The pipeline is stopped.
    Stop,
}

impl PipelineSupervisor {
    /// Runs until `shutdown` resolves.
    ///
    /// # Errors
    /// Where the pipeline cannot go on in this process.
    pub(super) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(shutdown);
        let pipeline = self.source.pipeline.clone();
        let stop_gate = StopGate::new(pipeline.clone(), self.store.clone(), self.health.clone());
        loop {
            let opened = async {
                stop_gate.opened().await;
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
                    () = stop_gate.closed() => End::Stop,
                });
            };
            match pipeline::run(self.runtime.clone(), source, events, ended, self.drain).await {
                Ok(()) if end == Some(End::Shutdown) => return Ok(()),
                Ok(()) if end == Some(End::Gap) => {
                    tracing::info!(%pipeline, "an operator moved a position: reading starts anew");
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

    /// The gaps in the topic, however long the ledger takes to answer.
    async fn gaps(&self) -> i64 {
        loop {
            match self.store.count_gaps(&self.source.pipeline, &self.source.topic).await {
                Ok(gaps) => return gaps,
                Err(failure) => self.health.blame(&failure),
            }
            sleep(LOOK).await;
        }
    }

    /// Resolves when there are not `known` gaps any more.
    async fn gap(&self, known: i64) {
        loop {
            sleep(LOOK).await;
            if self.gaps().await != known {
                return;
            }
        }
    }
}
