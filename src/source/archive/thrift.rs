//! The part of the Thrift compact protocol that is needed to check a file before its decoder reads it.

/// Most levels of nested structs. Those of Parquet have a few.
const DEPTH: usize = 16;

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) enum ThriftError {
    /// The bytes end too early.
    Ends,
    /// The bytes are not a valid struct.
    Malformed,
}

/// Reads a struct in the compact protocol. `rest` are the unread bytes.
pub(super) struct ThriftReader<'a> {
    pub(super) rest: &'a [u8],
}

impl ThriftReader<'_> {
    /// The type of the next field; its number is stored in `id`. `None` at the end of the struct.
    pub(super) fn field(&mut self, id: &mut i64) -> Result<Option<u8>, ThriftError> {
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

    /// Skips a value of this type.
    pub(super) fn skip(&mut self, kind: u8) -> Result<(), ThriftError> {
        self.skip_within(kind, DEPTH)
    }

    fn skip_within(&mut self, kind: u8, depth: usize) -> Result<(), ThriftError> {
        let below = depth.checked_sub(1).ok_or(ThriftError::Malformed)?;
        match kind {
            // The field type already contains the value of a boolean.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let (count, kind) = self.list()?;
                for _ in 0..count {
                    // In a list, a boolean is one byte.
                    self.skip_within(if matches!(kind, 1 | 2) { 3 } else { kind }, below)?;
                }
                Ok(())
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip_within(kind, below)?;
                }
                Ok(())
            }
            _ => Err(ThriftError::Malformed),
        }
    }

    /// The number of items of a list and their type.
    pub(super) fn list(&mut self) -> Result<(u64, u8), ThriftError> {
        let first = self.byte()?;
        let count = if first >> 4 == 0xf { self.varint()? } else { (first >> 4).into() };
        Ok((count, first & 0xf))
    }

    fn byte(&mut self) -> Result<u8, ThriftError> {
        let (first, rest) = self.rest.split_first().ok_or(ThriftError::Ends)?;
        self.rest = rest;
        Ok(*first)
    }

    fn bytes(&mut self, length: u64) -> Result<(), ThriftError> {
        let length = usize::try_from(length).map_err(|_| ThriftError::Malformed)?;
        self.rest = self.rest.get(length..).ok_or(ThriftError::Ends)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut bits = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(bits);
            }
        }
        Err(ThriftError::Malformed)
    }

    /// An integer of any width.
    pub(super) fn integer(&mut self) -> Result<i64, ThriftError> {
        let bits = self.varint()?;
        Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }
}
