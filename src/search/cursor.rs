//! Cursors: the number of hits on earlier pages, and a hash of the request. A cursor is valid only for the request that it was made
//! for.

use super::SearchError;

/// The maximum offset: more than any search has candidates.
const MAX_OFFSET: u32 = 1 << 20;

/// The number of hexadecimal digits of the offset.
const OFFSET_DIGITS: usize = 8;

/// The number of hexadecimal digits of the hash.
const HASH_DIGITS: usize = 24;

/// The cursor after `offset` hits of a request.
pub(super) fn write(offset: usize, request: &[u8]) -> String {
    format!("{offset:08x}{}", digest(request))
}

/// The number of hits on earlier pages.
pub(super) fn read(cursor: &str, request: &[u8]) -> Result<usize, SearchError> {
    let unreadable =
        || SearchError::Invalid("`cursor` is not from this service; take it from `next` of the previous page".into());
    if cursor.len() != OFFSET_DIGITS + HASH_DIGITS || !cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unreadable());
    }
    let (offset, hash) = cursor.split_at(OFFSET_DIGITS);
    let offset = u32::from_str_radix(offset, 16).ok().filter(|offset| *offset <= MAX_OFFSET).ok_or_else(unreadable)?;
    if hash != digest(request) {
        let message = "`cursor` is for another query; repeat the request of the previous page, or omit the cursor";
        return Err(SearchError::Invalid(message.into()));
    }
    Ok(offset as usize)
}

fn digest(request: &[u8]) -> String {
    blake3::hash(request).to_hex()[..HASH_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_its_question_alone() {
        let cursor = write(30, b"shoes");
        assert_eq!(read(&cursor, b"shoes").unwrap(), 30);
        assert!(read(&cursor, b"boots").unwrap_err().to_string().contains("another query"));
        for broken in ["", "x", "zzzzzzzz", &cursor[1..], &format!("ffffffff{}", &cursor[8..]), "é".repeat(16).as_str()] {
            assert!(read(broken, b"shoes").unwrap_err().to_string().contains("not from this service"), "{broken}");
        }
    }
}
