//! Records as a source reads them: bytes with their location in the stream.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

/// One entry of a partition, not decoded.
///
/// The payload is copied out of the client library's buffers, so that keeping a record does not keep a whole fetch in memory.
#[derive(Debug, Clone)]
pub struct Record {
    pub place: RecordLocation,
    /// Unix milliseconds; none where the source does not know the time.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Bytes>,
    /// None is a delete (tombstone) of the document that the key names.
    pub payload: Option<Bytes>,
    /// In the order in which the producer wrote them.
    pub headers: Vec<Header>,
}

/// One header of a record. The producer may write any name and value; a value may be null and need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Option<Bytes>,
}

/// A partition of a topic; for a job, one of its units.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub topic: Arc<str>,
    pub number: i32,
}

/// Topic, partition and offset of one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordLocation {
    pub partition: Partition,
    pub offset: i64,
}

/// The header with the number of times that a record was replayed as a dead letter.
pub const REPLAY_COUNT: &str = "tidemill-replay-count";
/// The header with the id of the dead letter that a record was replayed from.
pub const REPLAY_OF: &str = "tidemill-replay-of";
/// The header of a dead letter's event with the location of its record.
pub const PLACE: &str = "tidemill-place";

impl Record {
    /// How often the record was replayed as a dead letter. Any producer may have written the header: a value that is not a count is
    /// 0.
    pub fn replays(&self) -> i32 {
        let header = self.headers.iter().rev().find(|header| header.name == REPLAY_COUNT);
        let text = header.and_then(|header| std::str::from_utf8(header.value.as_ref()?).ok());
        text.and_then(|text| text.parse().ok()).filter(|count| (0..i32::MAX).contains(count)).unwrap_or(0)
    }

    /// The approximate memory of the record in bytes: payload, key and headers, plus a fixed amount for the structure itself.
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

impl fmt::Display for RecordLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// The text is not of the form that [`RecordLocation`] is displayed in, `topic[partition]@offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRecordLocation;

impl FromStr for RecordLocation {
    type Err = InvalidRecordLocation;

    fn from_str(text: &str) -> Result<Self, InvalidRecordLocation> {
        let (partition, offset) = text.rsplit_once('@').ok_or(InvalidRecordLocation)?;
        let (topic, number) = partition.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')).ok_or(InvalidRecordLocation)?;
        let partition = Partition { topic: topic.into(), number: number.parse().map_err(|_| InvalidRecordLocation)? };
        Ok(Self { partition, offset: offset.parse().map_err(|_| InvalidRecordLocation)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (topic, number, offset) in [("documents.v1", 0, 0), ("job:a@b[1]", 7, i64::MAX), ("", 3, 12)] {
            let place = RecordLocation { partition: Partition { topic: topic.into(), number }, offset };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in ["", "t", "t@1", "t[0]", "t[x]@1", "t[0]@x", "t[0@1"] {
            assert_eq!(wrong.parse::<RecordLocation>(), Err(InvalidRecordLocation), "{wrong:?}");
        }
    }

    fn replays(values: &[Option<&'static [u8]>]) -> i32 {
        let header = |value: &Option<&'static [u8]>| Header { name: REPLAY_COUNT.into(), value: value.map(Bytes::from_static) };
        let place = RecordLocation { partition: Partition { topic: "t".into(), number: 0 }, offset: 0 };
        let headers = values.iter().map(header).collect();
        Record { place, timestamp_ms: None, key: None, payload: None, headers }.replays()
    }

    #[test]
    fn replays_are_counted_by_a_header_that_anyone_may_have_written() {
        assert_eq!(replays(&[]), 0);
        assert_eq!(replays(&[Some(b"1"), Some(b"2")]), 2, "the last one counts");
        for odd in [b"".as_slice(), b"-1", b"many", b"\xff", b"99999999999", b"2147483647"] {
            assert_eq!(replays(&[Some(odd)]), 0, "{odd:?} is no count");
        }
        assert_eq!(replays(&[None]), 0);
    }
}
