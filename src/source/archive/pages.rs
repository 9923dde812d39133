//! How large the pages of a column are when unpacked, before anything is unpacked: a few bytes may stand for gigabytes.
//!
//! Each page has a header of its own, a struct in Thrift's compact protocol, of which three fields are read here. Headers and not the
//! footer are asked, since the decoder allocates what they say.

/// The largest pages of one column of a row group, in bytes when unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Largest {
    dictionary: u64,
    data: u64,
    sum: u64,
}

/// The page of a dictionary, among the types of pages.
const DICTIONARY: i64 = 2;
/// How deep structs of a header may be nested: the format has three levels.
const DEPTH: usize = 8;

impl Largest {
    /// Of the pages that `chunk` holds. One that is cut off is left to the decoder, which has no more of it.
    ///
    /// # Errors
    /// Where a header is none.
    pub(super) fn of(chunk: &[u8]) -> Result<Self, &'static str> {
        let (mut largest, mut rest) = (Self::default(), chunk);
        while !rest.is_empty() {
            let mut header = Thrift { rest };
            let page = match header.page() {
                Ok(page) => page,
                Err(Fault::Ends) => break,
                Err(Fault::Malformed) => return Err("a page's header cannot be read"),
            };
            let (Ok(packed), Ok(unpacked)) = (usize::try_from(page.packed), u64::try_from(page.unpacked)) else {
                return Err("a page's header says a negative size");
            };
            let side = if page.kind == DICTIONARY { &mut largest.dictionary } else { &mut largest.data };
            *side = unpacked.max(*side);
            largest.sum = largest.sum.saturating_add(unpacked);
            rest = header.rest.get(packed..).unwrap_or_default();
        }
        Ok(largest)
    }

    /// All pages together.
    pub(super) fn sum(self) -> u64 {
        self.sum
    }

    /// What the decoder holds at a time: the dictionary and one page.
    pub(super) fn bytes(self) -> u64 {
        self.dictionary + self.data
    }
}

#[derive(Debug, Default)]
struct Page {
    kind: i64,
    unpacked: i64,
    packed: i64,
}

#[derive(Debug)]
enum Fault {
    Ends,
    Malformed,
}

/// What is left of a struct in the compact protocol.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn page(&mut self) -> Result<Page, Fault> {
        let (mut page, mut id) = (Page::default(), 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, 5) => page.kind = self.integer()?,
                (2, 5) => page.unpacked = self.integer()?,
                (3, 5) => page.packed = self.integer()?,
                (1..=3, _) => return Err(Fault::Malformed),
                _ => self.skip(kind, DEPTH)?,
            }
        }
        Ok(page)
    }

    /// The type of the next field, whose number goes to `id`; none at the end of the struct.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>, Fault> {
        let first = self.byte()?;
        if first == 0 {
            return Ok(None);
        }
        *id = match first >> 4 {
            0 => self.integer()?,
            step => id.saturating_add(step.into()),
        };
        Ok(Some(first & 0xf))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        let below = depth.checked_sub(1).ok_or(Fault::Malformed)?;
        match kind {
            // A boolean is the type of its field.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let first = self.byte()?;
                let count = if first >> 4 == 0xf { self.varint()? } else { (first >> 4).into() };
                for _ in 0..count {
                    // In a list, a boolean takes a byte.
                    self.skip(if matches!(first & 0xf, 1 | 2) { 3 } else { first & 0xf }, below)?;
                }
                Ok(())
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, below)?;
                }
                Ok(())
            }
            _ => Err(Fault::Malformed),
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or(Fault::Ends)?;
        self.rest = rest;
        Ok(*first)
    }

    fn bytes(&mut self, length: u64) -> Result<(), Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::Malformed)?;
        self.rest = self.rest.get(length..).ok_or(Fault::Ends)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut bits = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(bits);
            }
        }
        Err(Fault::Malformed)
    }

    fn integer(&mut self) -> Result<i64, Fault> {
        let bits = self.varint()?;
        Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header as a writer makes it: type, sizes unpacked and packed, a checksum, and the struct of its type.
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
        assert_eq!(Largest::of(&chunk).unwrap(), Largest { dictionary: 4_000, data: 600_000_000, sum: 600_004_075 });
        assert_eq!(Largest::of(&chunk).unwrap().bytes(), 600_004_000);
        assert_eq!(Largest::of(&chunk[..90]).unwrap().data, 70, "what is cut off is the decoder's to tell");
        assert_eq!(Largest::of(&[]).unwrap(), Largest::default());
        for bad in [&[0x15, 0, 0x15, 1, 0x15, 2, 0][..], &[0x16, 0][..], &[0x4d, 1, 1][..], &[0x1c; 40][..]] {
            assert!(Largest::of(bad).is_err(), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end_or_refused(chunk: Vec<u8>) {
            let _ = Largest::of(&chunk);
        }
    }
}
