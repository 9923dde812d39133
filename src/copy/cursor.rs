//! Cursors: the last version of a page, in the order of the list.

use super::CopyError;
use crate::store::{CopyVersion, CopyVersionKey};

/// The cursor after a version.
pub(super) fn write(version: &CopyVersion) -> String {
    let key = serde_json::json!([version.pipeline, version.document_id, version.version]).to_string();
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The version that a cursor names.
pub(super) fn read(cursor: &str) -> Result<CopyVersionKey, CopyError> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = cursor.as_bytes().chunks(2).map(byte).collect();
    let key = bytes.and_then(|bytes| serde_json::from_slice::<(String, String, i32)>(&bytes).ok());
    let key = key.filter(|(pipeline, document_id, _)| !pipeline.contains('\0') && !document_id.contains('\0'));
    let (pipeline, document_id, version) = key.ok_or_else(|| {
        CopyError::Invalid("`cursor` is not from this service; take it from `next` of the previous page".into())
    })?;
    Ok(CopyVersionKey { pipeline, document_id, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_place_and_nothing_else_is_one() {
        let key = CopyVersionKey { pipeline: "shop".into(), document_id: "세트 1/2".into(), version: 3 };
        let written: String =
            serde_json::json!(["shop", "세트 1/2", 3]).to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(read(&written).unwrap(), key);
        for broken in ["", "x", "é", "5b5d", &written[2..], "5b22005c7530303030222c2278222c315d"] {
            assert!(read(broken).unwrap_err().to_string().contains("is not from this service"), "{broken}");
        }
    }
}
