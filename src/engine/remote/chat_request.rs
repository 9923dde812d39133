//! The body of a request: chat completions in the format of OpenAI.

use serde_json::{Value, json};

use super::dialect::{Dialect, SchemaFormat};
use super::escaping::escape_control_tokens;
use crate::request::{Message, Role, Sampling};

/// One request to a server.
#[derive(Debug, Clone)]
pub(super) struct ChatRequest<'a> {
    pub(super) messages: &'a [Message],
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) stop: &'a [String],
    pub(super) schema: Option<&'a Value>,
    /// Whether the alternatives to each token are needed.
    pub(super) alternatives: bool,
}

impl ChatRequest<'_> {
    /// The JSON body of the call.
    pub(super) fn body(&self, server_model: &str, dialect: Dialect) -> Value {
        let Sampling { temperature, top_p, top_k, seed } = self.sampling;
        let limit = if dialect.has("max_tokens") { "max_tokens" } else { "max_completion_tokens" };
        let mut body = json!({"model": server_model, "messages": self.messages(dialect), limit: self.max_tokens});
        if dialect.has("temperature") {
            body["temperature"] = json!(temperature);
        }
        // By default every server draws from all tokens.
        if top_p < 1.0 && dialect.has("top_p") {
            body["top_p"] = json!(top_p);
        }
        if top_k > 0 && dialect.has("top_k") {
            body["top_k"] = json!(top_k);
        }
        if dialect.has("seed") {
            // Servers read it as a signed number.
            body["seed"] = json!(seed & i64::MAX as u64);
        }
        if !self.stop.is_empty() && dialect.has("stop") {
            body["stop"] = json!(self.stop);
        }
        if let Some(schema) = self.schema {
            match dialect.format() {
                SchemaFormat::Schema { strict } => {
                    let named = json!({"name": "answer", "schema": schema, "strict": strict});
                    body["response_format"] = json!({"type": "json_schema", "json_schema": named});
                }
                SchemaFormat::Object => body["response_format"] = json!({"type": "json_object"}),
                SchemaFormat::PromptOnly => {}
            }
        }
        if dialect.has("logprobs") {
            body["logprobs"] = json!(true);
            if let Some(alternatives) = dialect.alternatives().filter(|_| self.alternatives) {
                body["top_logprobs"] = json!(alternatives);
            }
        }
        body
    }

    /// The messages, with control tokens in their content escaped.
    fn messages(&self, dialect: Dialect) -> Vec<Value> {
        let mut said: Vec<(Role, String)> = Vec::with_capacity(self.messages.len());
        for message in self.messages {
            let content = escape_control_tokens(&message.content).into_owned();
            match said.last_mut() {
                Some((role @ Role::System, before)) if !dialect.has("messages") => {
                    *role = message.role;
                    before.push_str("\n\n");
                    before.push_str(&content);
                }
                _ => said.push((message.role, content)),
            }
        }
        if let (Some(schema), SchemaFormat::Object | SchemaFormat::PromptOnly, Some((_, first))) =
            (self.schema, dialect.format(), said.first_mut())
        {
            first.push_str(&format!(
                "\n\nAnswer with one JSON object that is valid under this JSON Schema, and with nothing else:\n{schema}"
            ));
        }
        if let Some((role @ Role::System, _)) = said.last_mut().filter(|_| !dialect.has("messages")) {
            *role = Role::User;
        }
        said.into_iter().map(|(role, content)| json!({"role": role.as_str(), "content": content})).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::refusal::Refusal;
    use super::*;

    fn body(schema: Option<&Value>, refused: &[&str]) -> Value {
        let said = |role, content: &str| Message { role, content: content.into() };
        let messages = [said(Role::System, "You label."), said(Role::User, "A spade.</s>")];
        let question = ChatRequest {
            messages: &messages,
            max_tokens: 9,
            sampling: Sampling::default(),
            stop: &[],
            schema,
            alternatives: true,
        };
        let mut dialect = Dialect::default();
        for name in refused {
            let refusal = Refusal::of(&json!({"error": format!("no {name}")}));
            dialect = dialect.leaner(&refusal, &question.body("m", dialect))[0];
        }
        question.body("m", dialect)
    }

    #[test]
    fn a_system_message_that_is_refused_begins_the_users() {
        let said = |refused: &[&str]| body(None, refused)["messages"].clone();
        let (system, user) =
            (json!({"role": "system", "content": "You label."}), json!({"role": "user", "content": "A spade.< /s>"}));
        assert_eq!(said(&[]), json!([system, user]));
        assert_eq!(said(&["system role"]), json!([{"role": "user", "content": "You label.\n\nA spade.< /s>"}]));
    }

    #[test]
    fn a_schema_that_is_refused_stands_in_the_prompt() {
        let schema = json!({"type": "object"});
        let twice = body(Some(&schema), &["response_format", "response_format"]);
        assert_eq!(twice["response_format"], json!({"type": "json_object"}));
        let thrice = body(Some(&schema), &["response_format"; 3]);
        assert!(thrice.get("response_format").is_none());
        for body in [twice, thrice] {
            let first = body["messages"][0]["content"].as_str().unwrap().to_owned();
            assert!(first.contains("JSON Schema") && first.ends_with("{\"type\":\"object\"}"), "{first}");
        }
    }

    #[test]
    fn what_is_refused_is_not_sent_and_what_nobody_asked_for_neither() {
        let keys = |refused: &[&str]| -> Vec<String> {
            let body = body(None, refused);
            body.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        assert_eq!(keys(&[]), ["logprobs", "max_tokens", "messages", "model", "seed", "temperature", "top_logprobs"]);
        let refused = ["top_logprobs", "top_logprobs", "logprobs", "seed", "temperature", "max_tokens"];
        assert_eq!(keys(&refused), ["max_completion_tokens", "messages", "model"]);
    }
}
