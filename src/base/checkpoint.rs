//! Claims on partitions, and the offsets that a commit covers.
//!
//! A delta is a half-open range of offsets. It starts where the last one ended, even if the log has gaps:
//!
//! | records in the log | position before | delta | position after |
//! |---|---|---|---|
//! | 5 6 7 | 5 | 5..8 | 8 |
//! | 7 9 (compaction removed 6 and 8) | 6 | 6..10 | 10 |
//! | none yet | 8 | none: an empty delta is never committed | 8 |

use std::fmt;

use crate::record::Partition;

/// The right to commit offsets of a partition, which the ledger grants. It ends when another worker claims the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionClaim {
    pub partition: Partition,
    /// The fencing token: a commit with an older epoch is refused.
    pub epoch: i64,
    /// The offset at which to start reading.
    pub next_offset: i64,
}

/// The offsets that one micro-batch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointDelta {
    pub partition: Partition,
    /// The epoch of the claim under which the records were read.
    pub epoch: i64,
    /// The position before the commit.
    pub from: i64,
    /// The position after the commit; always greater than `from`.
    pub to: i64,
}

impl fmt::Display for CheckpointDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{} (epoch {})", self.partition, self.from, self.to, self.epoch)
    }
}
