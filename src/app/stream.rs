//! One pipeline for as long as the process lives, through halts that an operator ends.
//!
//! A pipeline whose position is not in its topic any more can go on only where an operator says. It leaves its group and waits,
//! and the process stays: the other pipelines have nothing to do with it, and a new process would only find the same and be
//! restarted again and again. `/readyz` and `tidemill_halted` say it until a gap is recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::health::Health;
use crate::pipeline::{self, Halt, Works};
use crate::source::{KafkaSource, KafkaSourceConfig};
use crate::store::Store;

/// How often the ledger is asked whether an operator made a gap.
const LOOK: Duration = Duration::from_secs(2);

/// What one pipeline runs on.
pub(super) struct Stream {
    pub(super) works: Arc<Works>,
    pub(super) source: KafkaSourceConfig,
    pub(super) store: Store,
    pub(super) health: Health,
    pub(super) drain: Duration,
}

/// How one stay in the group ended, if not by a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    /// The positions are not what they were.
    Gap,
}

impl Stream {
    /// Runs until `shutdown` resolves.
    ///
    /// # Errors
    /// Where the pipeline cannot go on in this process.
    pub(super) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(shutdown);
        let pipeline = self.source.pipeline.clone();
        loop {
            let gaps = tokio::select! {
                gaps = self.gaps() => gaps,
                () = &mut shutdown => return Ok(()),
            };
            let (source, events) = KafkaSource::start(self.source.clone(), self.store.clone(), self.health.clone())?;
            self.health.runs(&pipeline);
            let mut end = End::Shutdown;
            let ended = async {
                tokio::select! {
                    () = &mut shutdown => {}
                    () = self.gap(gaps) => end = End::Gap,
                }
            };
            match pipeline::run(self.works.clone(), source, events, ended, self.drain).await {
                Ok(()) if end == End::Shutdown => return Ok(()),
                Ok(()) => tracing::info!(%pipeline, "an operator moved a position: reading starts anew"),
                Err(error) => {
                    let Some(halt) = error.downcast_ref::<Halt>() else { return Err(error) };
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
            match self.store.gaps(&self.source.pipeline, &self.source.topic).await {
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
