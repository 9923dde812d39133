//! Cursors: the position of a page's last lead in the order of the list. A cursor is valid only for the query that it was made for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::LeadError;
use crate::store::{LeadFilter, LeadOrder, LeadPageEnd};

/// The maximum length of a cursor: a document's id of maximum length, in JSON and base64.
const MAX_LENGTH: usize = 16_384;

pub(super) fn digest(pipeline: &str, order: LeadOrder, filter: &LeadFilter) -> String {
    let LeadFilter { min_score, account, stage } = filter;
    let query = json!([pipeline, format!("{order:?}"), min_score.map(f64::to_bits), account, stage]);
    blake3::hash(query.to_string().as_bytes()).to_hex()[..24].to_owned()
}

/// The cursor after a page.
pub(super) fn write(end: &LeadPageEnd, digest: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!([end.value.to_bits(), end.document_id, digest]).to_string())
}

/// The end of the page before the cursor.
pub(super) fn read(cursor: &str, digest: &str) -> Result<LeadPageEnd, LeadError> {
    let unreadable = || LeadError::Invalid("`cursor` is not from this service; take it from `next` of the previous page".into());
    let bytes = Some(cursor).filter(|cursor| cursor.len() <= MAX_LENGTH).and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok());
    let (bits, document_id, query): (u64, String, String) =
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(unreadable)?;
    let value = f64::from_bits(bits);
    if !value.is_finite() || document_id.contains('\0') {
        return Err(unreadable());
    }
    if query != digest {
        let message = "`cursor` is for another query; repeat the query of the previous page, or omit the cursor";
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
        let end = LeadPageEnd { value: 0.1 + 0.2, document_id: "문서/1".into() };
        let cursor = write(&end, &own);
        assert_eq!(read(&cursor, &own).unwrap(), end);
        for other in [
            digest("sale", LeadOrder::Score, &filter),
            digest("sales", LeadOrder::Latest, &filter),
            digest("sales", LeadOrder::Score, &LeadFilter::default()),
        ] {
            assert!(read(&cursor, &other).unwrap_err().to_string().contains("another query"));
        }
        let infinite = write(&LeadPageEnd { value: f64::INFINITY, ..end }, &own);
        for broken in ["", "x", "W10", &cursor[1..], infinite.as_str(), "é"] {
            assert!(read(broken, &own).unwrap_err().to_string().contains("not from this service"), "{broken}");
        }
    }
}
