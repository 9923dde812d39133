//! Request bodies.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::did_you_mean::suggestion;

/// Reads a JSON object that may have these keys. `what` names the object in messages.
///
/// # Errors
/// Where the body is no JSON object, has another key, or a value of the wrong type.
pub fn read_object<T: DeserializeOwned>(body: &[u8], keys: &[&str], what: &str) -> Result<T, ApiError> {
    let object: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is not a JSON object: {e}")))?;
    if let Some(key) = object.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown key `{key}`; {}", suggestion(key, keys.iter().copied()))));
    }
    // From the bytes and not from the object, so that messages give line and column.
    serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is not a valid {what}: {e}")))
}
