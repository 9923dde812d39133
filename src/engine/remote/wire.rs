//! What goes to a server and what comes back: chat completions as OpenAI defined them and everyone speaks them.

use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::request::{Finish, GeneratedToken, Message, Sampling};
use tidemill_base::failure::{FailureClass, Poison};

/// Alternatives to each token that are asked for when answers are weighed: the most that servers commonly give.
const ALTERNATIVES: u8 = 20;

/// Characters of a server's own words that are passed on. They may quote the document.
const QUOTED: usize = 200;

/// One question to a server, in our words.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) messages: &'a [Message],
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) stop: &'a [String],
    pub(super) schema: Option<&'a Value>,
    /// Whether the alternatives to each token matter.
    pub(super) alternatives: bool,
}

/// What a server is spoken to with. Not every server takes every parameter: what one refuses by name is left out from then on, where the
/// answer is judged without it anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Log-probabilities of tokens; without them answers have no confidence of their own.
    log_probabilities: bool,
    /// The seed; without it the server draws as it likes.
    seed: bool,
    /// That the schema holds strictly. Some servers take only part of JSON Schema so; every answer is judged here in any case.
    strict: bool,
    /// The limit under its first name, `max_tokens`, which nearly all know; newer models of its inventor insist on
    /// `max_completion_tokens`.
    first_name_of_limit: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { log_probabilities: true, seed: true, strict: true, first_name_of_limit: true }
    }
}

impl Dialect {
    /// The dialect without what the server refused; none where that is nothing that can be left out.
    pub(super) fn without(self, refusal: &Refusal) -> Option<Self> {
        let words = refusal.message.to_lowercase();
        let unknown = ["unsupported", "not support", "unrecognized", "unknown", "not permitted", "not allowed"];
        let refuses = |parameter: &str| {
            refusal.parameter.as_deref().is_some_and(|named| named.starts_with(parameter))
                || words.contains(parameter) && unknown.iter().any(|word| words.contains(word))
        };
        if self.first_name_of_limit && words.contains("max_completion_tokens") {
            Some(Self { first_name_of_limit: false, ..self })
        } else if self.log_probabilities && (refuses("logprobs") || refuses("top_logprobs")) {
            Some(Self { log_probabilities: false, ..self })
        } else if self.seed && refuses("seed") {
            Some(Self { seed: false, ..self })
        } else if self.strict && (refuses("response_format") || refuses("strict")) {
            Some(Self { strict: false, ..self })
        } else {
            None
        }
    }

    /// What both can do.
    pub(super) fn common(self, other: Self) -> Self {
        Self {
            log_probabilities: self.log_probabilities && other.log_probabilities,
            seed: self.seed && other.seed,
            strict: self.strict && other.strict,
            first_name_of_limit: self.first_name_of_limit && other.first_name_of_limit,
        }
    }
}

impl Question<'_> {
    /// The body of the call.
    pub(super) fn body(&self, server_model: &str, dialect: Dialect) -> Value {
        #[derive(Serialize)]
        struct Said<'a> {
            role: &'static str,
            content: &'a str,
        }
        let messages: Vec<Said<'_>> = self.messages.iter().map(|m| Said { role: m.role.as_str(), content: &m.content }).collect();
        let Sampling { temperature, top_p, top_k, seed } = self.sampling;
        let limit = if dialect.first_name_of_limit { "max_tokens" } else { "max_completion_tokens" };
        let mut body = json!({
            "model": server_model, "messages": messages, limit: self.max_tokens, "temperature": temperature, "top_p": top_p,
        });
        if top_k > 0 {
            body["top_k"] = json!(top_k);
        }
        if dialect.seed {
            // Servers read a signed number.
            body["seed"] = json!(seed & i64::MAX as u64);
        }
        if !self.stop.is_empty() {
            body["stop"] = json!(self.stop);
        }
        if let Some(schema) = self.schema {
            let strict = dialect.strict;
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}});
        }
        if dialect.log_probabilities {
            body["logprobs"] = json!(true);
            if self.alternatives {
                body["top_logprobs"] = json!(ALTERNATIVES);
            }
        }
        body
    }
}

/// A server's answer, in our words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) finish: Finish,
    /// The tokens of the text; empty where the server does not tell.
    pub(super) tokens: Vec<Token>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) completion_tokens: Option<u32>,
}

/// One token as a server tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Token {
    token: String,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    pub(super) logprob: Option<f32>,
    #[serde(default, rename = "top_logprobs")]
    pub(super) alternatives: Option<Vec<Token>>,
}

impl Token {
    /// What the token stands for. A server that gives no bytes gives text, which is wrong where a token ends inside a character.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.token.as_bytes())
    }
}

/// Why an answer with a good status is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Unusable {
    /// It is not what a server of this kind sends.
    Foreign(&'static str),
    /// The model or what guards it says no to this document.
    Refused(Poison),
}

impl Reply {
    /// Reads the body of a good answer.
    pub(super) fn read(body: &[u8]) -> Result<Self, Unusable> {
        #[derive(Deserialize)]
        struct ChatCompletion {
            choices: Vec<Choice>,
            #[serde(default)]
            usage: Value,
        }
        #[derive(Deserialize)]
        struct Choice {
            message: Said,
            #[serde(default)]
            finish_reason: Option<String>,
            #[serde(default)]
            logprobs: Value,
        }
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            content: Option<String>,
            #[serde(default)]
            refusal: Option<String>,
        }
        let completion: ChatCompletion =
            serde_json::from_slice(body).map_err(|_| Unusable::Foreign("answers with something that is no chat completion"))?;
        let Some(choice) = completion.choices.into_iter().next() else {
            return Err(Unusable::Foreign("answers with a chat completion without a choice"));
        };
        let refused = |reason: String| Unusable::Refused(Poison { class: FailureClass::Model, reason });
        if let Some(words) = choice.message.refusal.filter(|words| !words.is_empty()) {
            return Err(refused(format!("the server's model refuses: {}", shortened(&words))));
        }
        let finish = match choice.finish_reason.as_deref() {
            Some("length") => Finish::Length,
            Some("content_filter") => return Err(refused("the server's content filter stopped the answer".into())),
            Some("tool_calls" | "function_call") => {
                return Err(refused("the server's model calls a tool instead of answering".into()));
            }
            // Servers have many words for a turn that ended; some send none.
            _ => Finish::Stop,
        };
        let text = match (choice.message.content, finish) {
            (Some(text), _) => text,
            // A model that thinks first may spend the whole limit on it.
            (None, Finish::Length) => String::new(),
            (None, Finish::Stop) => return Err(refused("the server's model answers without text".into())),
        };
        // Neither is part of every server's answer, and shapes differ: what cannot be read is as good as absent.
        let tokens = choice.logprobs.get("content").and_then(|tokens| Vec::deserialize(tokens).ok()).unwrap_or_default();
        let count = |name: &str| completion.usage.get(name).and_then(Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self { text, finish, tokens, prompt_tokens: count("prompt_tokens"), completion_tokens: count("completion_tokens") })
    }

    /// Where each token stands in the text. Empty where the tokens are not those of the text: no probability is better than a wrong one.
    pub(super) fn places(&self) -> Vec<(std::ops::Range<usize>, &Token)> {
        let text = self.text.as_bytes();
        let mut places = Vec::with_capacity(self.tokens.len());
        let mut start = 0;
        for token in &self.tokens {
            let rest = &text[start..];
            // What follows are the tokens that end a turn.
            if rest.is_empty() {
                break;
            }
            let bytes = token.bytes();
            let taken = if rest.starts_with(bytes) {
                bytes.len()
            } else if bytes.starts_with(rest) {
                // A stop text cut the last token short.
                rest.len()
            } else {
                return Vec::new();
            };
            places.push((start..start + taken, token));
            start += taken;
        }
        if start == text.len() { places } else { Vec::new() }
    }

    /// The tokens of a completion.
    pub(super) fn generated(&self) -> Vec<GeneratedToken> {
        let token = |(place, token): (std::ops::Range<usize>, &Token)| GeneratedToken {
            end: place.end,
            log_probability: token.logprob.filter(|value| value.is_finite()),
        };
        self.places().into_iter().map(token).collect()
    }
}

/// What a server says about a request that it does not take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Refusal {
    message: String,
    parameter: Option<String>,
    code: Option<String>,
}

impl Refusal {
    /// Reads the body of an answer with a bad status, in the shapes that servers send: `{"error": {"message", "param", "code"}}`,
    /// `{"error": "…"}`, `{"message": "…"}`, `{"detail": …}`.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(&value);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let detail = error.get("detail");
        let first = detail.and_then(|detail| detail.get(0));
        let message = text(Some(error))
            .or_else(|| text(error.get("message")))
            .or_else(|| text(detail))
            .or_else(|| text(first.and_then(|first| first.get("msg"))));
        let place = first.and_then(|first| first.get("loc")).and_then(Value::as_array).and_then(|place| place.last());
        Self {
            message: message.unwrap_or_default(),
            parameter: text(error.get("param")).or_else(|| text(place)),
            code: text(error.get("code")).or_else(|| text(error.get("type"))),
        }
    }

    /// The dead letter for a request that was refused with `status`. `secret` is kept out of it.
    pub(super) fn poison(&self, status: StatusCode, secret: Option<&str>) -> Poison {
        let mut message = self.message.clone();
        if let Some(secret) = secret {
            message = message.replace(secret, "…");
        }
        let words = message.to_lowercase();
        let too_long = self.code.as_deref().is_some_and(|code| code.contains("context_length") || code.contains("context_size"))
            || ["context length", "context size", "context window"].iter().any(|sign| words.contains(sign));
        let said = if message.is_empty() { String::new() } else { format!(": {}", shortened(&message)) };
        if too_long {
            return Poison {
                class: FailureClass::TooLong,
                reason: format!("the prompt is longer than the server's model takes{said}"),
            };
        }
        Poison { class: FailureClass::Model, reason: format!("the server refuses the request with {status}{said}") }
    }
}

/// The beginning of what a server says, on one line.
fn shortened(words: &str) -> String {
    let clean = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.clone().take(QUOTED).collect();
    if clean.count() > QUOTED {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str, tokens: Value) -> Reply {
        let body = json!({"choices": [{"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": tokens}}]});
        Reply::read(body.to_string().as_bytes()).unwrap()
    }

    fn ends(reply: &Reply) -> Vec<(usize, Option<f32>)> {
        reply.generated().iter().map(|token| (token.end, token.log_probability)).collect()
    }

    #[test]
    fn tokens_are_placed_by_their_bytes_even_inside_characters() {
        let tokens = json!([
            {"token": "Tee ", "logprob": -0.5, "bytes": [84, 101, 101, 32]},
            {"token": "\\xe2\\x98", "logprob": -1.5, "bytes": [0xe2, 0x98]},
            {"token": "\\x95", "logprob": null, "bytes": [0x95]},
            {"token": "<|im_end|>", "logprob": -0.1, "bytes": null},
        ]);
        assert_eq!(ends(&reply("Tee ☕", tokens)), [(4, Some(-0.5)), (6, Some(-1.5)), (7, None)]);
    }

    #[test]
    fn a_stop_text_cuts_the_last_token() {
        let tokens = json!([{"token": "one", "logprob": -0.5}, {"token": ".\n", "logprob": -0.25}]);
        assert_eq!(ends(&reply("one.", tokens)), [(3, Some(-0.5)), (4, Some(-0.25))]);
    }

    #[test]
    fn tokens_of_another_text_are_not_believed() {
        for tokens in
            [json!([{"token": "two", "logprob": 0}]), json!([{"token": "on", "logprob": 0}]), json!("none"), json!(null)]
        {
            assert_eq!(ends(&reply("one", tokens.clone())), [], "{tokens}");
        }
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        for body in [
            json!({"error": {"message": "no such thing", "param": "seed", "code": "x"}}),
            json!({"error": "no such thing"}),
            json!({"object": "error", "message": "no such thing"}),
            json!({"detail": "no such thing"}),
            json!({"detail": [{"loc": ["body", "seed"], "msg": "no such thing"}]}),
        ] {
            assert_eq!(Refusal::read(body.to_string().as_bytes()).message, "no such thing", "{body}");
        }
        assert_eq!(Refusal::read(b"<html>"), Refusal::default());
    }

    #[test]
    fn what_a_server_refuses_by_name_is_left_out() {
        let after = |message: &str, param: Option<&str>| {
            let refusal = Refusal { message: message.into(), parameter: param.map(str::to_owned), code: None };
            Dialect::default().without(&refusal)
        };
        let all = Dialect::default();
        let limit = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert_eq!(after(limit, Some("max_tokens")), Some(Dialect { first_name_of_limit: false, ..all }));
        assert_eq!(after("logprobs is not supported", None), Some(Dialect { log_probabilities: false, ..all }));
        assert_eq!(after("Extra inputs", Some("seed")), Some(Dialect { seed: false, ..all }));
        assert_eq!(after("Invalid schema", Some("response_format")), Some(Dialect { strict: false, ..all }));
        assert_eq!(after("cannot read \"a packet of seed\"", None), None, "a document's words are no parameter");
        assert_eq!(after("temperature is not supported", Some("temperature")), None, "it decides the answer");
    }

    #[test]
    fn a_refusal_names_its_class_and_no_secret() {
        let refusal = |message: &str, code: Option<&str>| {
            let refusal = Refusal { message: message.into(), parameter: None, code: code.map(str::to_owned) };
            refusal.poison(StatusCode::BAD_REQUEST, Some("sk-77777"))
        };
        assert_eq!(refusal("This model's maximum context length is 4096", None).class, FailureClass::TooLong);
        assert_eq!(refusal("too much", Some("context_length_exceeded")).class, FailureClass::TooLong);
        let other = refusal(&format!("bad\u{0} key sk-77777{}", "x".repeat(999)), None);
        assert_eq!(other.class, FailureClass::Model);
        assert!(!other.reason.contains("77777") && !other.reason.contains('\0') && other.reason.len() < 300, "{}", other.reason);
    }
}
