//! Positions in partitions, and what it means for one to advance.
//!
//! A delta is half open and starts where the last one ended, whatever offsets the records between them have:
//!
//! | records in the log | position before | delta | position after |
//! |---|---|---|---|
//! | 5 6 7 | 5 | 5..8 | 8 |
//! | 7 9 (6 and 8 compacted away) | 6 | 6..10 | 10 |
//! | none yet | 8 | none: an empty delta is never committed | 8 |

use std::fmt;

use crate::record::Partition;

/// The right to commit for a partition, as given out by the ledger. It ends when someone else claims the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionClaim {
    /// The partition.
    pub partition: Partition,
    /// The fence: commits under an older epoch match no row.
    pub epoch: i64,
    /// Where to start reading.
    pub next_offset: i64,
}

/// The offsets that one micro-batch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointDelta {
    /// The partition.
    pub partition: Partition,
    /// The epoch under which the records were read.
    pub epoch: i64,
    /// The position before.
    pub from: i64,
    /// The position after; always greater than `from`.
    pub to: i64,
}

impl fmt::Display for CheckpointDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{} (epoch {})", self.partition, self.from, self.to, self.epoch)
    }
}
