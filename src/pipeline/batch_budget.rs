//! When a micro-batch is full.

use std::time::Duration;

use crate::source::InFlightLimit;

/// The limits of a micro-batch; the first one reached closes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How long the first record may wait for further ones. Evaluation may start earlier, at half of it, when nothing else is under
    /// way.
    pub max_wait: Duration,
    /// Tokens of text, estimated from its bytes.
    pub max_tokens: usize,
    pub max_records: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { max_wait: Duration::from_millis(500), max_tokens: 16_384, max_records: 512 }
    }
}

/// Bytes of payload counted as one token before anything is tokenized. English has four to five bytes a token; scripts with more
/// bytes a character also have more tokens.
const BYTES_PER_TOKEN: usize = 4;

impl Budget {
    /// What `batches` full batches hold.
    pub fn of(&self, batches: usize) -> InFlightLimit {
        let bytes = self.max_tokens.saturating_mul(BYTES_PER_TOKEN);
        InFlightLimit { records: self.max_records.saturating_mul(batches), bytes: bytes.saturating_mul(batches) }
    }

    /// Whether this many records with this many bytes of payload fill a batch.
    pub fn is_spent(&self, records: usize, bytes: usize) -> bool {
        records >= self.max_records || bytes / BYTES_PER_TOKEN >= self.max_tokens
    }
}
