//! Checks how deep the columns of a file are nested before the decoder reads them. The decoder is recursive, and a stack overflow
//! would end the process.

use super::thrift::{ThriftError, ThriftReader};

/// Most levels. A list takes two, and a document has at most 127.
const DEEPEST: usize = 256;

/// Checks the schema in a footer.
///
/// # Errors
/// If the schema is nested too deep or cannot be read.
pub(super) fn check_depth(footer: &[u8]) -> Result<(), String> {
    match depth(footer) {
        Ok(depth) if depth <= DEEPEST => Ok(()),
        Ok(_) => Err(format!("its columns are nested deeper than {DEEPEST} levels")),
        Err(_) => Err("its footer cannot be read".into()),
    }
}

/// The depth of the schema. Stops one level after the limit.
fn depth(footer: &[u8]) -> Result<usize, ThriftError> {
    let (mut footer, mut id) = (ThriftReader { rest: footer }, 0);
    while let Some(kind) = footer.field(&mut id)? {
        if (id, kind) != (2, 9) {
            footer.skip(kind)?;
            continue;
        }
        let (count, kind) = footer.list()?;
        if kind != 12 {
            return Err(ThriftError::Malformed);
        }
        // Elements come in depth-first order. `open` has the number of remaining children of each open level.
        let (mut open, mut deepest): (Vec<i64>, _) = (Vec::new(), 0);
        for _ in 0..count {
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = children(&mut footer)?;
            if children > 0 {
                open.push(children);
                deepest = open.len().max(deepest);
            }
            if deepest > DEEPEST {
                return Ok(deepest);
            }
            while open.last().is_some_and(|left| *left <= 0) {
                open.pop();
            }
        }
        return Ok(deepest);
    }
    // The decoder rejects a file without a schema.
    Ok(0)
}

fn children(footer: &mut ThriftReader<'_>) -> Result<i64, ThriftError> {
    let (mut children, mut id) = (0, 0);
    while let Some(kind) = footer.field(&mut id)? {
        match (id, kind) {
            (5, 5) => children = footer.integer()?,
            _ => footer.skip(kind)?,
        }
    }
    Ok(children)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An element of a schema: its name and its number of children.
    fn element(children: u8) -> Vec<u8> {
        [&[0x48, 1, b's'][..], if children > 0 { &[0x15, 2][..] } else { &[][..] }, &[0]].concat()
    }

    /// A footer with `levels` nested elements.
    pub(in crate::source::archive) fn nested(levels: usize) -> Vec<u8> {
        let count = levels as u64 + 1;
        let varint = [count as u8 & 0x7f | 0x80, (count >> 7) as u8 & 0x7f | 0x80, (count >> 14) as u8];
        [&[0x15, 2, 0x19, 0xfc][..], &varint, &element(1).repeat(levels), &element(0), &[0x16, 0, 0x19, 0x0c, 0]].concat()
    }

    #[test]
    fn columns_are_counted_down_and_not_along() {
        assert_eq!(depth(&nested(3)).unwrap(), 3);
        assert!(check_depth(&nested(DEEPEST)).is_ok());
        assert!(check_depth(&nested(100_000)).unwrap_err().contains("nested deeper than 256 levels"));
        // A root with two children, each of which has one child.
        let wide = [&[0x29, 0x5c, 0x48, 1, b'r', 0x15, 4, 0][..], &[element(1), element(0)].concat().repeat(2), &[0]].concat();
        assert_eq!(depth(&wide).unwrap(), 2);
        assert!(check_depth(&nested(3)[..9]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_footer_or_not(footer: Vec<u8>) {
            let _ = check_depth(&footer);
        }
    }
}
