//! A sequence on its way through an encoder, and what comes back.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use tidemill_base::failure::Poison;

/// A sequence and who waits for its row.
#[cfg_attr(test, derive(Clone))]
pub(super) struct QueuedSequence {
    /// Token ids, special tokens included.
    pub(super) ids: Arc<[u32]>,
    /// The sequence's place in its call.
    pub(super) index: usize,
    /// Where the row goes, or why there is none.
    pub(super) reply: UnboundedSender<(usize, Result<EncoderRow, Poison>)>,
    /// Room in the queue, given back when the last sequence of a [`SequenceGroup`] is done.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// One sequence's result and its share of the device's time.
#[derive(Debug, Clone)]
pub(super) struct EncoderRow {
    pub(super) values: Arc<[f32]>,
    pub(super) device_micros: u64,
}
