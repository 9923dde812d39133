//! Reads a server's response: chat completions in the format of OpenAI.
//!
//! | finish reason | what follows |
//! |---|---|
//! | a known reason for a normal end, or none | the answer is complete |
//! | a known reason for a token limit, or none with all tokens used | the answer is truncated |
//! | a filter, a refusal, a tool call | a dead letter |
//! | `abort`, `error` or any other | the answer is not usable, and is requested again |

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;

use super::chat_request::ChatRequest;
use super::lenient_json::parse;
use super::reasoning::{ReasoningFault, after_reasoning, json_in_fence};
use super::refusal::{Refusal, error_in, shortened};
use crate::completion::{Finish, GeneratedToken};
use tidemill_base::failure::{FailureClass, Poison};

/// Where servers put a model's reasoning.
const THOUGHTS: [&str; 2] = ["reasoning_content", "reasoning"];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    /// The complete text, including reasoning and fences.
    whole: String,
    /// The place of the answer in `whole`.
    answer: Range<usize>,
    pub(super) finish: Finish,
    /// The tokens of `whole`; empty if the server does not report them.
    pub(super) tokens: Vec<ReplyToken>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) completion_tokens: Option<u32>,
}

/// One token as the server reports it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ReplyToken {
    token: String,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    pub(super) logprob: Option<f32>,
    #[serde(default, rename = "top_logprobs")]
    pub(super) alternatives: Option<Vec<ReplyToken>>,
}

impl ReplyToken {
    /// The bytes of the token. Without a `bytes` field it is the text, which is wrong for a token that ends inside a character.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.token.as_bytes())
    }
}

/// Why a response with a good status is not an answer.
#[derive(Debug, Clone)]
pub(super) enum UnusableReply {
    /// It is not a chat completion, or not a complete one.
    NotACompletion(String),
    /// The model or its filter refuses this document.
    Refused(Poison),
    /// The body has an error, whatever else it has.
    Error(Refusal),
}

impl Reply {
    /// Reads the body of a response with a good status.
    pub(super) fn read(body: &[u8], question: &ChatRequest<'_>) -> Result<Self, UnusableReply> {
        let foreign = |reason: &str| UnusableReply::NotACompletion(reason.into());
        let (value, is_mended) = parse(body).ok_or_else(|| foreign("answers with something that is not a chat completion"))?;
        let value = value.get(0).unwrap_or(&value);
        if error_in(value).is_some() {
            return Err(UnusableReply::Error(Refusal::of(value)));
        }
        let choices = value.get("choices").and_then(Value::as_array);
        let Some(choice) = choices.ok_or_else(|| foreign("answers with something that is not a chat completion"))?.first() else {
            return Err(foreign("answers with a chat completion without a choice"));
        };
        if error_in(choice).is_some() {
            return Err(UnusableReply::Error(Refusal::of(choice)));
        }
        let message = choice.get("message").filter(|message| message.is_object());
        let message = message.ok_or_else(|| foreign("answers with a chat completion without a message"))?;
        let MessageContent { text: whole, refusal } = MessageContent::of(message);
        if let Some(words) = refusal {
            return Err(refused(format!("the server's model refuses: {}", shortened(&words))));
        }
        let count = |name: &str| {
            let count = value.get("usage").and_then(|usage| usage.get(name)).and_then(Value::as_u64);
            count.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
        };
        let completion_tokens = count("completion_tokens");
        let finish = match choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default() {
            "" if completion_tokens.is_some_and(|tokens| tokens as usize >= question.max_tokens) => Finish::Length,
            reason => finish(reason)?,
        };
        // Not every server sends this, and the forms differ. If it cannot be read, it counts as missing.
        let tokens = choice.get("logprobs").and_then(|all| all.get("content"));
        let mut tokens: Vec<ReplyToken> = tokens.and_then(|tokens| Vec::deserialize(tokens).ok()).unwrap_or_default();
        // A token with probability zero makes the other probabilities unreliable.
        if is_mended && tokens.iter().any(|token| token.logprob.is_none()) {
            tokens.clear();
        }
        let mut reply =
            Self { answer: 0..whole.len(), whole, finish, tokens, prompt_tokens: count("prompt_tokens"), completion_tokens };
        reply.narrow(question)?;
        if reply.text().trim().is_empty() {
            return Err(UnusableReply::Refused(reply.nothing(message, question.max_tokens)));
        }
        Ok(reply)
    }

    pub(super) fn text(&self) -> &str {
        &self.whole[self.answer.clone()]
    }

    /// Removes what is not part of the answer: reasoning, fences, and everything from a stop text on.
    fn narrow(&mut self, question: &ChatRequest<'_>) -> Result<(), UnusableReply> {
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if question.schema.is_some() && is_json(self.text()) {
            return Ok(());
        }
        self.answer = match (after_reasoning(&self.whole), self.finish) {
            (Ok(answer), _) => answer,
            (Err(ReasoningFault::Unclosed), Finish::Length) => self.whole.len()..self.whole.len(),
            (Err(ReasoningFault::Unclosed), Finish::Stop) => {
                return Err(refused("the server's model answers with unfinished reasoning and nothing else".into()));
            }
            // The schema rejects what is not an object, and a second answer may be one.
            (Err(ReasoningFault::InsideText), _) if question.schema.is_some() => 0..self.whole.len(),
            (Err(ReasoningFault::InsideText), _) => {
                let reason = "the answer cannot be separated from the model's reasoning inside it; have the server return reasoning separately, or turn reasoning off there";
                return Err(refused(reason.into()));
            }
        };
        if question.schema.is_some() && !is_json(self.text()) {
            if let Some(inside) = json_in_fence(self.text()) {
                self.answer = self.answer.start + inside.start..self.answer.start + inside.end;
            }
            return Ok(());
        }
        let ends = question.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| self.text().find(&**stop));
        if let Some(end) = ends.min() {
            self.answer.end = self.answer.start + end;
            self.finish = Finish::Stop;
        }
        Ok(())
    }

    /// Why there is no text.
    fn nothing(&self, message: &Value, max_tokens: usize) -> Poison {
        if self.finish == Finish::Length {
            let reason = format!(
                "the answer reached max_tokens ({max_tokens}) before it began, because the server's model reasons first; raise max_tokens"
            );
            return Poison { class: FailureClass::Truncated, reason };
        }
        let elsewhere = THOUGHTS.iter().find(|name| message[**name].as_str().is_some_and(|text| !text.trim().is_empty()));
        let reason = match elsewhere {
            Some(name) => format!(
                "the server's model answers with an empty `content`, but `{name}` has a text; correct how the server separates reasoning from answers"
            ),
            None => "the server's model answers without text: `content` is empty".to_owned(),
        };
        Poison { class: FailureClass::Model, reason }
    }

    /// The place of each token in the answer. Empty if the tokens do not match the text: no probability is better than a wrong one.
    pub(super) fn places(&self) -> Vec<(Range<usize>, &ReplyToken)> {
        let text = self.whole.as_bytes();
        let mut places = Vec::with_capacity(self.tokens.len());
        let mut start = 0;
        for token in &self.tokens {
            let rest = &text[start..];
            // The remaining tokens are those that end a turn.
            if rest.is_empty() {
                break;
            }
            let bytes = token.bytes();
            let taken = if rest.starts_with(bytes) {
                bytes.len()
            } else if bytes.starts_with(rest) {
                // A stop text has cut the last token.
                rest.len()
            } else {
                return Vec::new();
            };
            places.push((start..start + taken, token));
            start += taken;
        }
        if start < text.len() {
            return Vec::new();
        }
        let Range { start, end } = self.answer;
        let within = |(place, token): (Range<usize>, _)| (place.start.max(start) - start..place.end.min(end) - start, token);
        places.into_iter().filter(|(place, _)| place.start < end && place.end > start).map(within).collect()
    }

    /// The tokens of the completion.
    pub(super) fn generated(&self) -> Vec<GeneratedToken> {
        let token = |(place, token): (Range<usize>, &ReplyToken)| GeneratedToken {
            end: place.end,
            log_probability: token.logprob.filter(|value| value.is_finite()),
        };
        self.places().into_iter().map(token).collect()
    }
}

/// The text of a message, or the refusal in it.
struct MessageContent {
    text: String,
    refusal: Option<String>,
}

impl MessageContent {
    /// Reads the text, or joins those parts that are text. Reasoning is in other parts.
    fn of(message: &Value) -> Self {
        let text_of = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut refusal = text_of(message, "refusal");
        let text = match message.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                refusal = refusal.or_else(|| parts.iter().find_map(|part| text_of(part, "refusal")));
                let is_text = |part: &&Value| matches!(part["type"].as_str(), None | Some("text" | "output_text"));
                let text = |part: &Value| part.as_str().map(str::to_owned).or_else(|| text_of(part, "text"));
                parts.iter().filter(is_text).filter_map(text).collect()
            }
            _ => String::new(),
        };
        Self { text, refusal: refusal.filter(|words| !words.is_empty()) }
    }
}

/// Interprets a finish reason.
fn finish(reason: &str) -> Result<Finish, UnusableReply> {
    match reason.to_lowercase().as_str() {
        // Some servers send none.
        "" | "stop" | "eos" | "eos_token" | "end" | "end_turn" | "end_of_turn" | "stop_sequence" | "stop_token" | "complete"
        | "completed" | "done" => Ok(Finish::Stop),
        "length"
        | "max_length"
        | "model_length"
        | "context_length"
        | "max_tokens"
        | "max_new_tokens"
        | "max_output_tokens"
        | "max_completion_tokens"
        | "token_limit"
        | "model_context_window_exceeded" => Ok(Finish::Length),
        "content_filter" | "content_filtered" => Err(refused("the server's content filter stopped the answer".into())),
        "safety"
        | "recitation"
        | "blocklist"
        | "prohibited_content"
        | "spii"
        | "refusal"
        | "sensitive"
        | "guardrail_intervened"
        | "error_toxic" => Err(refused(format!("the server refuses to finish the answer: {}", shortened(reason)))),
        "tool_calls" | "function_call" | "tool_call" | "tool_use" => {
            Err(refused("the server's model calls a tool instead of answering".into()))
        }
        _ => Err(UnusableReply::NotACompletion(format!(
            "ends its answer with the finish reason {:?}, and it may not be complete",
            shortened(reason)
        ))),
    }
}

fn refused(reason: String) -> UnusableReply {
    UnusableReply::Refused(Poison { class: FailureClass::Model, reason })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::Sampling;

    pub(in crate::remote) fn question<'a>(schema: Option<&'a Value>, stop: &'a [String]) -> ChatRequest<'a> {
        ChatRequest { messages: &[], max_tokens: 9, sampling: Sampling::default(), stop, schema, alternatives: false }
    }

    pub(in crate::remote) fn reply(text: &str, tokens: Value) -> Reply {
        let body = json!({"choices": [{"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": tokens}}]});
        Reply::read(body.to_string().as_bytes(), &question(None, &[])).unwrap()
    }

    fn read(content: Value, finish: Value, schema: Option<&Value>) -> Result<(String, Finish), UnusableReply> {
        let body = json!({"choices": [{"message": {"content": content}, "finish_reason": finish}]});
        Reply::read(body.to_string().as_bytes(), &question(schema, &["\n#".into()]))
            .map(|reply| (reply.text().to_owned(), reply.finish))
    }

    fn poison(result: Result<(String, Finish), UnusableReply>) -> Poison {
        match result {
            Err(UnusableReply::Refused(poison)) => poison,
            other => panic!("{other:?} is not poison"),
        }
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
    fn tokens_of_thoughts_are_none_of_the_answer() {
        let tokens = json!([{"token": "<think>", "logprob": -4}, {"token": "a</think>", "logprob": -4}, {"token": "\nA", "logprob": -0.5},
            {"token": " cup", "logprob": -0.25}]);
        let reply = reply("<think>a</think>\nA cup", tokens);
        assert_eq!((reply.text(), ends(&reply)), ("A cup", vec![(1, Some(-0.5)), (5, Some(-0.25))]));
    }

    #[test]
    fn only_what_ended_by_itself_is_whole() {
        let read = |reason: Value| read(json!("A kettle of st"), reason, None);
        for reason in [json!("stop"), json!("STOP"), json!("end_turn"), json!("eos"), json!(null)] {
            assert_eq!(read(reason.clone()).unwrap().1, Finish::Stop, "{reason}");
        }
        for reason in ["length", "model_length", "max_tokens", "MAX_TOKENS"] {
            assert_eq!(read(json!(reason)).unwrap().1, Finish::Length, "{reason}");
        }
        for reason in ["SAFETY", "content_filter", "RECITATION", "tool_calls"] {
            assert_eq!(poison(read(json!(reason))).class, FailureClass::Model, "{reason}");
        }
        for reason in ["abort", "error", "cancelled", "insufficient_system_resource", "who knows"] {
            assert!(matches!(read(json!(reason)), Err(UnusableReply::NotACompletion(why)) if why.contains(reason)), "{reason}");
        }
    }

    #[test]
    fn without_a_reason_an_answer_of_all_its_tokens_is_cut_off() {
        let body = json!({"choices": [{"message": {"content": "A"}}], "usage": {"completion_tokens": 9}}).to_string();
        assert_eq!(Reply::read(body.as_bytes(), &question(None, &[])).unwrap().finish, Finish::Length);
    }

    #[test]
    fn parts_of_text_are_the_answer() {
        let thought = json!({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]});
        let parts = json!([thought, {"type": "text", "text": "A kettle"}, {"type": "text", "text": " of steel."}]);
        assert_eq!(read(parts, json!("stop"), None).unwrap().0, "A kettle of steel.");
        assert!(poison(read(json!([thought]), json!("stop"), None)).reason.contains("`content` is empty"));
        let refused = json!([{"type": "refusal", "refusal": "I will not"}]);
        assert!(poison(read(refused, json!("stop"), None)).reason.contains("I will not"));
    }

    #[test]
    fn thoughts_never_become_an_answer() {
        assert_eq!(read(json!("<think>Hm.</think>\n\nA kettle."), json!("stop"), None).unwrap().0, "A kettle.");
        let open = poison(read(json!("<think>I am still"), json!("length"), None));
        assert!(open.class == FailureClass::Truncated && open.reason.contains("max_tokens (9)"), "{open}");
        for text in ["<think>I am still", "A kettle. <think>Hm.</think>"] {
            assert_eq!(poison(read(json!(text), json!("stop"), None)).class, FailureClass::Model, "{text}");
        }
        let body = json!({"choices": [{"message": {"content": "", "reasoning_content": "A kettle."}, "finish_reason": "stop"}]});
        let Err(UnusableReply::Refused(poison)) = Reply::read(body.to_string().as_bytes(), &question(None, &[])) else {
            panic!("a reply")
        };
        assert!(poison.reason.contains("empty `content`") && poison.reason.contains("`reasoning_content`"), "{poison}");
    }

    #[test]
    fn an_object_stands_behind_thoughts_and_in_fences() {
        let schema = json!({"type": "object"});
        for text in ["{\"a\":1}", "<think>{</think>{\"a\":1}", "Here it is:\n```json\n{\"a\":1}\n```"] {
            assert_eq!(read(json!(text), json!("stop"), Some(&schema)).unwrap().0, "{\"a\":1}");
        }
        let marked = json!("{\"a\":\"</think> <think>\"}");
        assert_eq!(
            read(marked.clone(), json!("stop"), Some(&schema)).unwrap().0,
            marked.as_str().unwrap(),
            "a complete object is the answer"
        );
    }

    #[test]
    fn answers_are_cut_here_where_the_server_does_not() {
        assert_eq!(read(json!("one\n# two"), json!("length"), None).unwrap(), ("one".into(), Finish::Stop));
    }

    #[test]
    fn numbers_that_are_no_json_take_the_confidence_and_not_the_answer() {
        let body = |logprob: &str| {
            format!(
                r#"{{"choices": [{{"message": {{"content": "a \"NaN\" Infinity"}}, "finish_reason": "stop", "logprobs": {{"content": [
                    {{"token": "a \"NaN\" ", "logprob": -0.5, "top_logprobs": [{{"token": "b", "logprob": -Infinity}}]}},
                    {{"token": "Infinity", "logprob": {logprob}}}]}}}}]}}"#
            )
        };
        let read = |logprob: &str| Reply::read(body(logprob).as_bytes(), &question(None, &[])).unwrap();
        assert_eq!((read("-0.25").text(), ends(&read("-0.25")).len()), ("a \"NaN\" Infinity", 2));
        assert_eq!((read("-Infinity").text(), ends(&read("-Infinity"))), ("a \"NaN\" Infinity", vec![]));
    }

    #[test]
    fn an_error_counts_more_than_what_stands_beside_it() {
        for body in [
            json!({"error": {"message": "no", "code": 429}}),
            json!([{"error": {"message": "no", "code": 429}}]),
            json!({"error": {"message": "no", "code": 429}, "choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]}),
            json!({"choices": [{"message": {"content": "A"}, "finish_reason": "stop", "error": {"message": "no", "code": 429}}]}),
        ] {
            let read = Reply::read(body.to_string().as_bytes(), &question(None, &[]));
            assert!(matches!(read, Err(UnusableReply::Error(refusal)) if refusal.status().is_some()), "{body}");
        }
    }
}
