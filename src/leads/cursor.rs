//! Where a page of leads ends: the last lead's place in the order. It fits no other question.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::LeadError;
use crate::store::{LeadFilter, LeadOrder, LeadPageEnd};

/// The longest cursor: a document's id of the longest, in JSON and base64.
const LONGEST: usize = 16_384;

/// What tells one question from others.
pub(super) fn digest(pipeline: &str, order: LeadOrder, filter: &LeadFilter) -> String {
    let LeadFilter { min_score, account, stage } = filter;
    let question = json!([pipeline, format!("{order:?}"), min_score.map(f64::to_bits), account, stage]);
    blake3::hash(question.to_string().as_bytes()).to_hex()[..24].to_owned()
}

/// The cursor of a page that ends at the place.
pub(super) fn write(place: &LeadPageEnd, digest: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!([place.value.to_bits(), place.document_id, digest]).to_string())
}

/// The place behind which the page begins.
pub(super) fn read(cursor: &str, digest: &str) -> Result<LeadPageEnd, LeadError> {
    let unreadable = || LeadError::Invalid("`cursor` is none of this service's; take it from `next` of the page before".into());
    let bytes = Some(cursor).filter(|cursor| cursor.len() <= LONGEST).and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok());
    let (bits, document_id, question): (u64, String, String) =
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(unreadable)?;
    let value = f64::from_bits(bits);
    if !value.is_finite() || document_id.contains('\0') {
        return Err(unreadable());
    }
    if question != digest {
        let message = "`cursor` belongs to another question; ask the same as on the page before, or leave the cursor out";
        return Err(LeadError::Invalid(message.into()));
    }
    Ok(LeadPageEnd { value, document_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_its_question_alone_and_keeps_every_digit() {
        let filter = LeadFilter { min_score: Some(0.1), ..LeadFilter::default() };
        let own = digest("sales", LeadOrder::Score, &filter);
        let place = LeadPageEnd { value: 0.1 + 0.2, document_id: "문서/1".into() };
        let cursor = write(&place, &own);
        assert_eq!(read(&cursor, &own).unwrap(), place);
        for other in [
            digest("sale", LeadOrder::Score, &filter),
            digest("sales", LeadOrder::Latest, &filter),
            digest("sales", LeadOrder::Score, &LeadFilter::default()),
        ] {
            assert!(read(&cursor, &other).unwrap_err().to_string().contains("another question"));
        }
        let infinite = write(&LeadPageEnd { value: f64::INFINITY, ..place }, &own);
        for broken in ["", "x", "W10", &cursor[1..], infinite.as_str(), "é"] {
            assert!(read(broken, &own).unwrap_err().to_string().contains("none of this service's"), "{broken}");
        }
    }
}
