//! Adapts requests to the parameters that a server accepts.
//!
//! Not every server accepts every parameter. If a refusal names a parameter that the request has, the parameter is left out or
//! replaced. Once a request without it has been accepted, this stays so for the server, and a warning is logged once. If the
//! refusal stays the same without the parameter, it was not about it. The answer is validated here in any case.
//!
//! | parameter | replacement |
//! |---|---|
//! | `top_logprobs` | 5 alternatives, then none: the chosen label gets nearly all the probability |
//! | `logprobs` | nothing: answers have no confidence |
//! | `top_p`, `top_k`, `temperature`, `seed` | nothing: the server uses its own |
//! | `stop` | nothing: answers are cut here |
//! | `response_format` | the schema without `strict`, then `json_object`, then nothing; the last two with the schema in the prompt |
//! | `max_tokens` | `max_completion_tokens` |
//! | system messages | the same text at the start of the user's message |

use serde_json::Value;

use super::refusal::Refusal;

/// The number of alternatives to request for each token when scoring answers: the usual maximum of servers, then fewer.
const ALTERNATIVES: [u8; 2] = [20, 5];

/// One row of the table.
struct ParameterFallback {
    /// The parameter's key in the request body.
    key: &'static str,
    /// The names that servers use for it, in lower case.
    names: &'static [&'static str],
    /// The replacement after each further refusal, for the log.
    steps: &'static [&'static str],
}

const PARAMETERS: [ParameterFallback; 10] = [
    ParameterFallback {
        key: "top_logprobs",
        names: &["top_logprobs", "logprobs", "toplogprobs"],
        steps: &["requesting 5 alternatives to each token", "requesting no alternatives to tokens"],
    },
    ParameterFallback {
        key: "logprobs",
        names: &["logprobs", "logprob", "log_probs", "log probabilities", "responselogprobs"],
        steps: &["answers have no confidence"],
    },
    ParameterFallback { key: "top_p", names: &["top_p", "topp"], steps: &["left out"] },
    ParameterFallback { key: "top_k", names: &["top_k", "topk"], steps: &["left out"] },
    ParameterFallback { key: "temperature", names: &["temperature"], steps: &["left out"] },
    ParameterFallback { key: "seed", names: &["seed"], steps: &["left out"] },
    ParameterFallback { key: "stop", names: &["stop", "stop_sequences"], steps: &["left out; answers are cut here"] },
    ParameterFallback {
        key: "response_format",
        names: &["response_format", "json_schema", "json_object", "strict", "structured output", "structured outputs"],
        steps: &[
            "requesting without `strict`",
            "requesting `json_object`, with the schema in the prompt",
            "left out, with the schema in the prompt",
        ],
    },
    ParameterFallback {
        key: "max_tokens",
        names: &["max_tokens", "max_completion_tokens"],
        steps: &["replaced by `max_completion_tokens`"],
    },
    ParameterFallback {
        key: "messages",
        names: &[
            "system role",
            "system message",
            "system messages",
            "system prompt",
            "developer instruction",
            "roles must alternate",
        ],
        steps: &["system messages are moved to the start of the user's message"],
    },
];

/// How a schema is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaFormat {
    /// As a schema, strict or not.
    Schema { strict: bool },
    /// As any JSON object, with the schema in the prompt.
    Object,
    /// Only in the prompt.
    PromptOnly,
}

/// For each row of the table, how many replacements have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dialect([u8; PARAMETERS.len()]);

impl Dialect {
    fn level(self, key: &str) -> u8 {
        PARAMETERS.iter().position(|part| part.key == key).map_or(0, |place| self.0[place])
    }

    /// Whether the parameter is still sent unchanged.
    pub(super) fn has(self, key: &str) -> bool {
        self.level(key) == 0
    }

    /// The number of alternatives to request for each token.
    pub(super) fn alternatives(self) -> Option<u8> {
        ALTERNATIVES.get(usize::from(self.level("top_logprobs"))).copied()
    }

    pub(super) fn format(self) -> SchemaFormat {
        match self.level("response_format") {
            level @ (0 | 1) => SchemaFormat::Schema { strict: level == 0 },
            2 => SchemaFormat::Object,
            _ => SchemaFormat::PromptOnly,
        }
    }

    /// The dialects to try after a refusal of `body`, the closest first. Each replaces one more parameter that the refusal names
    /// and `body` has.
    pub(super) fn leaner(self, refusal: &Refusal, body: &Value) -> Vec<Self> {
        let named = named(refusal);
        let candidates = PARAMETERS.iter().enumerate().filter(|(place, part)| named.contains(place) && part.is_in(body));
        let levels =
            candidates.flat_map(|(place, part)| (self.0[place] + 1..=part.steps.len() as u8).map(move |level| (place, level)));
        let leaner = |(place, level)| {
            let mut leaner = self;
            leaner.0[place] = level;
            leaner
        };
        levels.map(leaner).collect()
    }

    /// The dialect with the replacements of both.
    pub(super) fn common(mut self, other: Self) -> Self {
        for (level, other) in self.0.iter_mut().zip(other.0) {
            *level = other.max(*level);
        }
        self
    }

    /// The parameters that this dialect replaces and `before` did not, with their replacements.
    pub(super) fn changes_since(self, before: Self) -> impl Iterator<Item = (&'static str, &'static str)> {
        // Alternatives are part of the probabilities, so they are not reported separately.
        let is_new = move |place: &usize| {
            self.0[*place] > before.0[*place] && (PARAMETERS[*place].key != "top_logprobs" || self.has("logprobs"))
        };
        (0..PARAMETERS.len())
            .filter(is_new)
            .filter_map(move |place| Some((PARAMETERS[place].key, *PARAMETERS[place].steps.get(usize::from(self.0[place]) - 1)?)))
    }
}

impl ParameterFallback {
    fn is_in(&self, body: &Value) -> bool {
        match (self.key, body.get(self.key)) {
            ("messages", Some(messages)) => {
                messages.as_array().is_some_and(|all| all.iter().any(|message| message["role"] == "system"))
            }
            (_, value) => value.is_some(),
        }
    }
}

/// The rows that a refusal refers to: by its parameter field, otherwise by its message.
fn named(refusal: &Refusal) -> Vec<usize> {
    let words = refusal.message.to_lowercase();
    let by = |is_named: &dyn Fn(&ParameterFallback) -> bool| {
        (0..PARAMETERS.len()).filter(|place| is_named(&PARAMETERS[*place])).collect::<Vec<_>>()
    };
    if let Some(parameter) = refusal.parameter.as_deref().map(str::to_lowercase) {
        let root = parameter.strip_prefix("body.").unwrap_or(&parameter);
        let root = root.split(['.', '[']).next().unwrap_or(root);
        if matches!(root, "messages" | "prompt" | "input") {
            return by(&|part| part.key == "messages" && parameter.ends_with("role") && has_word(&words, "system"));
        }
        let named = by(&|part| part.key == root || part.names.contains(&root));
        if !named.is_empty() {
            return named;
        }
    }
    by(&|part| part.names.iter().any(|name| has_word(&words, name)))
}

/// Whether `name` occurs in `words` as a whole word.
fn has_word(words: &str, name: &str) -> bool {
    let belongs = |c: char| c.is_alphanumeric() || c == '_';
    words.match_indices(name).any(|(at, _)| !words[..at].ends_with(belongs) && !words[at + name.len()..].starts_with(belongs))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({
            "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "max_tokens": 9,
            "temperature": 0, "top_p": 0.5, "top_k": 3, "seed": 0, "stop": ["x"], "response_format": {}, "logprobs": true, "top_logprobs": 20,
        })
    }

    fn tried(message: &str, parameter: Option<&str>, body: &Value) -> Vec<&'static str> {
        let error = json!({"error": {"message": message, "param": parameter}});
        let leaner = Dialect::default().leaner(&Refusal::of(&error), body);
        let mut tried: Vec<_> =
            leaner.into_iter().flat_map(|leaner| leaner.changes_since(Dialect::default())).map(|(key, _)| key).collect();
        tried.dedup();
        tried
    }

    #[test]
    fn what_a_server_names_is_tried_without() {
        for (message, parameter, expected) in [
            ("'temperature' takes nothing but its default", Some("temperature"), &["temperature"][..]),
            ("only one of temperature and top_p may be given to this model", None, &["top_p", "temperature"]),
            ("this model gives no logprobs to you", None, &["top_logprobs", "logprobs"]),
            ("Requested sample logprobs of 20, which is greater than max allowed: 5", None, &["top_logprobs", "logprobs"]),
            ("Use 'max_completion_tokens' instead.", Some("max_tokens"), &["max_tokens"]),
            ("that response_format type cannot be had at present", None, &["response_format"]),
            ("Unknown name \"seed\": Cannot find field.", None, &["seed"]),
            ("Extra inputs", Some("seed"), &["seed"]),
            ("Unrecognized request argument supplied: top_k", None, &["top_k"]),
            ("Unsupported parameter: 'stop'", Some("stop"), &["stop"]),
            ("Invalid schema", Some("response_format.json_schema"), &["response_format"]),
            ("System role not supported", None, &["messages"]),
            ("'messages[0].role' does not support 'system' with this model", Some("messages[0].role"), &["messages"]),
        ] {
            assert_eq!(tried(message, parameter, &body()), expected, "{message}");
        }
    }

    #[test]
    fn words_of_a_document_and_what_was_not_sent_are_no_parameters() {
        for message in ["This content is restricted", "the catalogue of seeds", "unstoppable", "seed_of_doubt", "x"] {
            assert_eq!(tried(message, None, &body()), [""; 0], "{message}");
        }
        assert_eq!(tried("stop about the seed", Some("messages[1].content"), &body()), [""; 0]);
        let bare = json!({"messages": [{"role": "user", "content": "u"}], "max_completion_tokens": 9});
        for message in
            ["no seed, no strict, no logprobs", "max_tokens or max_completion_tokens is too large", "system role not supported"]
        {
            assert_eq!(tried(message, None, &bare), [""; 0], "{message}");
        }
    }

    #[test]
    fn parts_are_replaced_step_by_step() {
        let refusal = |name: &str| Refusal::of(&json!({"error": format!("no {name}")}));
        let formats: Vec<_> =
            Dialect::default().leaner(&refusal("response_format"), &body()).into_iter().map(Dialect::format).collect();
        assert_eq!(formats, [SchemaFormat::Schema { strict: false }, SchemaFormat::Object, SchemaFormat::PromptOnly]);
        let fewer = Dialect::default().leaner(&refusal("top_logprobs"), &body());
        assert_eq!(fewer.iter().map(|dialect| dialect.alternatives()).collect::<Vec<_>>(), [Some(5), None]);
        assert_eq!(fewer[1].leaner(&refusal("top_logprobs"), &body()), [], "there is nothing left to replace");
        let both = fewer[0].common(Dialect::default().leaner(&refusal("seed"), &body())[0]);
        assert_eq!(both.changes_since(Dialect::default()).map(|(key, _)| key).collect::<Vec<_>>(), ["top_logprobs", "seed"]);
    }
}
