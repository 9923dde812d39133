//! Versions of prompts. Any change of a prompt's text or parameters makes a new version, and every result names its version.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// One version of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptVersion {
    /// The prompt's name, which all its versions share.
    pub name: Arc<str>,
    pub system: Option<String>,
    /// The template of the user's message.
    pub body: String,
    /// Parameters of the generation, such as `max_tokens`.
    pub parameters: Value,
    /// The JSON Schema of the answer.
    pub schema: Option<Value>,
}

impl PromptVersion {
    /// The BLAKE3 hash of the content, in hexadecimal. Equal content has the same version, whichever pipeline uses it.
    pub fn version(&self) -> String {
        // The keys of the schema keep the order of the file, which is also the order of an answer's fields.
        let content = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&content).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_change_makes_another_version() {
        let prompt = PromptVersion {
            name: "seo".into(),
            system: None,
            body: "Write copy for {{ document.text }}".into(),
            parameters: json!({"max_tokens": 64}),
            schema: Some(json!({"type": "object", "properties": {"title": {}, "slug": {}}})),
        };
        let others = [
            PromptVersion { system: Some("You are an editor.".into()), ..prompt.clone() },
            PromptVersion { body: "Write copy for {{ document.text }}.".into(), ..prompt.clone() },
            PromptVersion { parameters: json!({"max_tokens": 65}), ..prompt.clone() },
            PromptVersion { schema: Some(json!({"type": "object", "properties": {"slug": {}, "title": {}}})), ..prompt.clone() },
        ];
        assert_eq!(prompt.version(), prompt.clone().version());
        for other in others {
            assert_ne!(prompt.version(), other.version(), "{other:?}");
        }
    }
}
