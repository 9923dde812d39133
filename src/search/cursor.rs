//! Where a page ends: a place in the order of one question's answer. It says nothing to others, and fits no other question.

use super::SearchError;

/// Deeper than the candidates go.
const FARTHEST: u32 = 1 << 20;

/// The digits of an offset.
const OFFSET: usize = 8;

/// The digits that tell the question.
const HASH: usize = 24;

/// The cursor behind `offset` hits of the question that these parts make up.
pub(super) fn write(offset: usize, question: &[u8]) -> String {
    format!("{offset:08x}{}", digest(question))
}

/// How many hits earlier pages had.
pub(super) fn read(cursor: &str, question: &[u8]) -> Result<usize, SearchError> {
    let unreadable = || SearchError::Invalid("`cursor` is none of this service's; take it from `next` of the page before".into());
    if cursor.len() != OFFSET + HASH || !cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unreadable());
    }
    let (offset, hash) = cursor.split_at(OFFSET);
    let offset = u32::from_str_radix(offset, 16).ok().filter(|offset| *offset <= FARTHEST).ok_or_else(unreadable)?;
    if hash != digest(question) {
        let message = "`cursor` belongs to another question; ask the same as on the page before, or leave the cursor out";
        return Err(SearchError::Invalid(message.into()));
    }
    Ok(offset as usize)
}

fn digest(question: &[u8]) -> String {
    blake3::hash(question).to_hex()[..HASH].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_its_question_alone() {
        let cursor = write(30, b"shoes");
        assert_eq!(read(&cursor, b"shoes").unwrap(), 30);
        assert!(read(&cursor, b"boots").unwrap_err().to_string().contains("another question"));
        for broken in ["", "x", "zzzzzzzz", &cursor[1..], &format!("ffffffff{}", &cursor[8..]), "é".repeat(16).as_str()] {
            assert!(read(broken, b"shoes").unwrap_err().to_string().contains("none of this service's"), "{broken}");
        }
    }
}
