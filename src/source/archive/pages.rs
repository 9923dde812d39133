//! Determines the uncompressed size of the pages of a column before anything is decompressed, because a few bytes can expand to
//! gigabytes.
//!
//! Each page has a header, of which four fields are read here. The headers are used and not the footer, because the decoder
//! allocates what the headers say.

use super::thrift::{ThriftError, ThriftReader};

/// Uncompressed sizes of the pages of one column chunk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PageSizes {
    dictionary: u64,
    data: u64,
    sum: u64,
    values: u64,
}

/// The page type of dictionary pages.
const DICTIONARY: i64 = 2;

impl PageSizes {
    /// The sizes of the pages in `chunk`. A truncated page is left to the decoder.
    ///
    /// # Errors
    /// If a header is invalid.
    pub(super) fn of(chunk: &[u8]) -> Result<Self, &'static str> {
        let (mut largest, mut rest) = (Self::default(), chunk);
        while !rest.is_empty() {
            let mut header = ThriftReader { rest };
            let page = match page(&mut header) {
                Ok(page) => page,
                Err(ThriftError::Ends) => break,
                Err(ThriftError::Malformed) => return Err("a page's header cannot be read"),
            };
            let (Ok(packed), Ok(unpacked)) = (usize::try_from(page.packed), u64::try_from(page.unpacked)) else {
                return Err("a page's header has a negative size");
            };
            let side = if page.kind == DICTIONARY { &mut largest.dictionary } else { &mut largest.data };
            *side = unpacked.max(*side);
            largest.sum = largest.sum.saturating_add(unpacked);
            if page.kind != DICTIONARY {
                largest.values = largest.values.saturating_add(u64::try_from(page.values).unwrap_or(u64::MAX));
            }
            rest = header.rest.get(packed..).unwrap_or_default();
        }
        Ok(largest)
    }

    /// The sum over all pages.
    pub(super) fn sum(self) -> u64 {
        self.sum
    }

    /// The number of values in all pages. It can be large although equal values take no space in the file.
    pub(super) fn values(self) -> u64 {
        self.values
    }

    /// Most bytes that the decoder holds at a time: the dictionary and one page.
    pub(super) fn bytes(self) -> u64 {
        self.dictionary + self.data
    }
}

#[derive(Debug, Default)]
struct Page {
    kind: i64,
    unpacked: i64,
    packed: i64,
    values: i64,
}

fn page(header: &mut ThriftReader<'_>) -> Result<Page, ThriftError> {
    let (mut page, mut id) = (Page::default(), 0);
    while let Some(kind) = header.field(&mut id)? {
        match (id, kind) {
            (1, 5) => page.kind = header.integer()?,
            (2, 5) => page.unpacked = header.integer()?,
            (3, 5) => page.packed = header.integer()?,
            (1..=3, _) => return Err(ThriftError::Malformed),
            // The header of a data page, version 1 or 2.
            (5 | 8, 12) => page.values = values(header)?,
            _ => header.skip(kind)?,
        }
    }
    Ok(page)
}

/// The first field of a data page header.
fn values(header: &mut ThriftReader<'_>) -> Result<i64, ThriftError> {
    let (mut values, mut id) = (0, 0);
    while let Some(kind) = header.field(&mut id)? {
        match (id, kind) {
            (1, 5) => values = header.integer()?,
            _ => header.skip(kind)?,
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page with a header as a writer creates it: type, uncompressed and compressed size, a checksum, and the struct of its type.
    fn page(kind: u8, unpacked: u32, packed: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, kind << 1, 0x15];
        let varint = |bytes: &mut Vec<u8>, number: u32| {
            let mut rest = u64::from(number) << 1;
            while rest > 0x7f {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        };
        varint(&mut bytes, unpacked);
        bytes.push(0x15);
        varint(&mut bytes, packed.len() as u32);
        // Checksum; then field 5 with an integer, and statistics with text and a boolean.
        bytes.extend([0x15, 2, 0x1c, 0x15, 6, 0x4c, 0x18, 2, b'a', b'b', 0x11, 0, 0, 0]);
        bytes.extend(packed);
        bytes
    }

    #[test]
    fn the_largest_pages_are_those_that_the_headers_tell() {
        let chunk = [page(2, 4_000, &[7; 30]), page(0, 70, &[1; 70]), page(3, 600_000_000, &[0; 9]), page(0, 5, &[])].concat();
        assert_eq!(
            PageSizes::of(&chunk).unwrap(),
            PageSizes { dictionary: 4_000, data: 600_000_000, sum: 600_004_075, values: 9 }
        );
        assert_eq!(PageSizes::of(&chunk).unwrap().bytes(), 600_004_000);
        assert_eq!(PageSizes::of(&chunk[..90]).unwrap().data, 70, "a truncated page is left to the decoder");
        assert_eq!(PageSizes::of(&[]).unwrap(), PageSizes::default());
        for bad in [&[0x15, 0, 0x15, 1, 0x15, 2, 0][..], &[0x16, 0][..], &[0x4d, 1, 1][..], &[0x1c; 40][..]] {
            assert!(PageSizes::of(bad).is_err(), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end_or_refused(chunk: Vec<u8>) {
            let _ = PageSizes::of(&chunk);
        }
    }
}
