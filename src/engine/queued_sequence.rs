//! A sequence on its way through an encoder, and its result.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use tidemill_base::failure::Poison;

/// A sequence and the channel that its caller waits on.
#[cfg_attr(test, derive(Clone))]
pub(super) struct QueuedSequence {
    /// Token ids, including special tokens.
    pub(super) ids: Arc<[u32]>,
    /// The sequence's index in its call.
    pub(super) index: usize,
    /// Receives the result, or the reason why there is none.
    pub(super) reply: UnboundedSender<(usize, Result<EncoderRow, Poison>)>,
    /// Capacity of the queue, released when the last sequence of a `SequenceGroup` is done.
    #[expect(dead_code, reason = "dropping it releases the capacity")]
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// One sequence's result and its share of the device's time.
#[derive(Debug, Clone)]
pub(super) struct EncoderRow {
    pub(super) values: Arc<[f32]>,
    pub(super) device_micros: u64,
}
