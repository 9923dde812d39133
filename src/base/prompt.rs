//! Prompts are code: each wording with its parameters is a version of its own, and every result names the one it came from.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// One wording of a prompt, with everything that goes with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptVersion {
    /// The prompt's name, which its versions share.
    pub name: Arc<str>,
    /// What the model is told about itself, where anything.
    pub system: Option<String>,
    /// The template of the message.
    pub body: String,
    /// The parameters of the model.
    pub parameters: Value,
    /// The JSON Schema of the answer, where it has one.
    pub schema: Option<Value>,
}

impl PromptVersion {
    /// The version: a BLAKE3 hash over the content, in hexadecimal. Equal content is the same version wherever it is used.
    pub fn version(&self) -> String {
        // An object's keys keep the order of the file, which decides the order of an answer's fields.
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
