//! What a source hands over: bytes with their place in the stream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One entry of a partition, not yet looked into.
///
/// The payload is detached from the client library's buffers, so that holding a record never holds a fetch.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where the record stands.
    pub place: Place,
    /// Milliseconds since the Unix epoch, where the source knows.
    pub timestamp_ms: Option<i64>,
    /// The partitioning key.
    pub key: Option<Bytes>,
    /// The body; `None` is a delete (tombstone) for the document that `key` names.
    pub payload: Option<Bytes>,
    /// Headers in the order they were sent; names and values are whatever the producer wrote.
    pub headers: Vec<Header>,
}

/// One header of a record. Values may be absent and need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The header's name.
    pub name: String,
    /// The header's value; Kafka allows null.
    pub value: Option<Bytes>,
}

/// A partition of a topic; for a backfill, a file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub number: i32,
}

/// The place of one record: topic, partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: Partition,
    /// The offset within the partition.
    pub offset: i64,
}

impl Record {
    /// Bytes that holding this record costs: payload, key and headers, plus a fixed share for the structure itself.
    pub fn weight(&self) -> usize {
        const STRUCTURE: usize = 256;
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        STRUCTURE + headers + self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}
