//! A server's error message about a request that it refuses.

use reqwest::StatusCode;
use serde_json::Value;

use tidemill_base::failure::{FailureClass, Poison};

/// The number of characters of a server's message to quote. It may contain parts of the document.
const QUOTED: usize = 200;

/// A server's error message, with the parameter and the code it names.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) parameter: Option<String>,
    code: Option<String>,
}

impl Refusal {
    /// Reads an error body in the forms that servers use: `{"error": {"message", "param", "code"}}`, `{"error": "…"}`, `{"message":
    /// "…"}`, `{"detail": …}`, any of them in a list, or plain text. `secret` is removed from the message.
    pub(super) fn read(body: &[u8], secret: Option<&str>) -> Self {
        let refusal = match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::of(&value),
            Err(_) => Self { message: plain(body), ..Self::default() },
        };
        refusal.without(secret)
    }

    /// The refusal with `secret` removed.
    pub(super) fn without(self, secret: Option<&str>) -> Self {
        let message = secret.map(|secret| self.message.replace(secret, "…"));
        Self { message: message.unwrap_or(self.message), ..self }
    }

    /// Reads an error value.
    pub(super) fn of(value: &Value) -> Self {
        let value = value.get(0).unwrap_or(value);
        let error = error_in(value).unwrap_or(value);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let detail = error.get("detail");
        let first = detail.and_then(|detail| detail.get(0));
        let message = text(Some(error))
            .or_else(|| text(error.get("message")))
            .or_else(|| text(detail))
            .or_else(|| text(first.and_then(|first| first.get("msg"))));
        let place = first.and_then(|first| first.get("loc")).and_then(Value::as_array).and_then(|place| place.last());
        let code = |name: &str| match error.get(name) {
            Some(Value::Number(number)) => Some(number.to_string()),
            other => text(other),
        };
        let nothing = |parameter: &String| !matches!(&**parameter, "None" | "null");
        Self {
            message: message.unwrap_or_default(),
            parameter: text(error.get("param")).filter(nothing).or_else(|| text(place)),
            code: code("code").or_else(|| code("type")),
        }
    }

    /// The code as an HTTP status, if it is an error status.
    pub(super) fn status(&self) -> Option<StatusCode> {
        let status = StatusCode::from_bytes(self.code.as_deref()?.as_bytes()).ok()?;
        (status.is_client_error() || status.is_server_error()).then_some(status)
    }

    /// Whether the code says that the server is overloaded.
    pub(super) fn is_of_load(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default().to_lowercase();
        ["rate_limit", "overloaded", "unavailable"].iter().any(|sign| code.contains(sign))
    }

    /// Whether the code is about the content of the request, and not about its form.
    pub(super) fn is_of_content(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default().to_lowercase();
        ["content_policy", "content_filter", "moderation", "data_inspection"].iter().any(|sign| code.contains(sign))
    }

    /// Whether the prompt is longer than the model accepts, or than a quota would ever allow at once.
    pub(super) fn is_of_length(&self) -> bool {
        let words = self.message.to_lowercase();
        let code = self.code.as_deref().unwrap_or_default();
        ["context_length", "context_size"].iter().any(|sign| code.contains(sign))
            || ["context length", "context size", "context window", "request too large"].iter().any(|sign| words.contains(sign))
    }

    /// Whether both messages are equal except for words with digits, which may identify the request.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        fn words(message: &str) -> impl Iterator<Item = &str> {
            message.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        }
        self.parameter == other.parameter && words(&self.message).eq(words(&other.message))
    }

    /// The server's message after a colon; empty if there is none.
    pub(super) fn quoted(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(": {}", shortened(&self.message)) }
    }

    /// The failure of a request that was refused with `status`.
    pub(super) fn poison(&self, status: StatusCode) -> Poison {
        let said = self.quoted();
        if self.is_of_length() || status == StatusCode::PAYLOAD_TOO_LARGE {
            let reason = format!("the prompt is longer than the server's model accepts{said}");
            return Poison { class: FailureClass::TooLong, reason };
        }
        Poison { class: FailureClass::Model, reason: format!("the server refuses the request with {status}{said}") }
    }
}

/// The error inside a body or a choice, if there is one.
pub(super) fn error_in(value: &Value) -> Option<&Value> {
    value.get("error").filter(|error| match error {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    })
}

/// A body that is not JSON, if it is plain text and not an HTML page.
fn plain(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if text.starts_with('<') { String::new() } else { text.to_owned() }
}

/// The start of a server's message, on one line.
pub(super) fn shortened(words: &str) -> String {
    let clean = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.clone().take(QUOTED).collect();
    if clean.count() > QUOTED {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(message: &str, code: Value) -> Refusal {
        Refusal::read(json!({"error": {"message": message, "code": code}}).to_string().as_bytes(), Some("sk-77777"))
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        for body in [
            json!({"error": {"message": "no such thing", "param": "seed", "code": "x"}}),
            json!({"error": "no such thing"}),
            json!({"object": "error", "message": "no such thing"}),
            json!({"detail": "no such thing"}),
            json!({"detail": [{"loc": ["body", "seed"], "msg": "no such thing"}]}),
            json!([{"error": {"message": "no such thing", "code": 400}}]),
        ] {
            assert_eq!(Refusal::of(&body).message, "no such thing", "{body}");
        }
        assert_eq!(Refusal::read(b"<html>", None).message, "");
        assert_eq!(Refusal::read(b"no such thing\n", None).message, "no such thing");
        assert_eq!(Refusal::of(&json!({"error": {"message": "a", "param": "None"}})).parameter, None);
    }

    #[test]
    fn a_refusal_names_its_class_and_no_secret() {
        let poison = |message: &str, code| refusal(message, code).poison(StatusCode::BAD_REQUEST);
        assert_eq!(poison("This model's maximum context length is 4096", json!(null)).class, FailureClass::TooLong);
        assert_eq!(poison("too much", json!("context_length_exceeded")).class, FailureClass::TooLong);
        let other = poison(&format!("bad\u{0} key sk-77777{}", "x".repeat(999)), json!(null));
        assert_eq!(other.class, FailureClass::Model);
        assert!(!other.reason.contains("77777") && !other.reason.contains('\0') && other.reason.len() < 300, "{}", other.reason);
    }

    #[test]
    fn a_code_tells_who_is_meant() {
        assert_eq!(refusal("a", json!(403)).status(), Some(StatusCode::FORBIDDEN));
        assert_eq!(refusal("a", json!("429")).status(), Some(StatusCode::TOO_MANY_REQUESTS));
        for code in [json!("invalid_request_error"), json!(null), json!(200), json!(7)] {
            assert_eq!(refusal("a", code).status(), None);
        }
        assert!(refusal("a", json!("content_policy_violation")).is_of_content() && !refusal("a", json!("x")).is_of_content());
        assert!(refusal("a", json!("rate_limit_exceeded")).is_of_load());
    }

    #[test]
    fn the_number_of_a_request_makes_no_other_refusal() {
        let like = |one: &str, other: &str| refusal(one, json!(null)).is_like(&refusal(other, json!(null)));
        assert!(like("no seed (request 3f2a)", "no seed (request 77b1)"));
        assert!(!like("no seed", "no logprobs"));
    }
}
