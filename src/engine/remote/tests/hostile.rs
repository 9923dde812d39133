//! Replies of a server that is broken or hostile: whatever its bytes are, they are read or refused.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::super::chat_request::ChatRequest;
use super::super::refusal::Refusal;
use super::super::reply::Reply;
use super::super::scores;
use super::*;

/// What models and servers put around and into answers.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<|channel|>",
        "<|message|>",
        "```json\n",
        "```",
        "{\"price\":",
        "3}",
        "\"",
        "\\",
        "\u{fffd}",
        "가",
        "\u{1f468}",
        "\n\n",
        "1",
        "refuse",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!("-inf"))
    ];
    let token = (fragment(), number.clone(), prop::option::of(prop::collection::vec(any::<u8>(), 0..4))).prop_map(
        |(token, logprob, bytes)| json!({"token": token, "logprob": logprob, "bytes": bytes, "top_logprobs": [{"token": token}]}),
    );
    let reason = prop::sample::select(vec!["stop", "length", "", "content_filter", "error", "tool_calls"]);
    (prop::collection::vec(fragment(), 0..8), prop::collection::vec(token, 0..4), reason, number).prop_map(
        |(parts, tokens, reason, count)| {
            let mut body = completion(&parts.concat());
            body["choices"][0]["logprobs"] = json!({"content": tokens});
            body["choices"][0]["finish_reason"] = json!(reason);
            body["usage"]["completion_tokens"] = count;
            body.to_string().into_bytes()
        },
    )
}

/// A body with some bytes replaced, removed or cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), prop::option::of(any::<u8>()), 0_usize..4);
    (body(), prop::collection::vec(change, 0..4)).prop_map(|(mut body, changes)| {
        for (at, byte, kind) in changes {
            let at = at.index(body.len().max(1)).min(body.len());
            match (byte, kind) {
                (_, 0) => body.truncate(at),
                (Some(byte), _) if at < body.len() => body[at] = byte,
                _ if at < body.len() => drop(body.remove(at)),
                _ => {}
            }
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_reply_is_read_or_refused(body in prop_oneof![body(), damaged(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let schema = json!({"type": "object"});
        for schema in [None, Some(&schema)] {
            let stop = ["\n\n".to_owned()];
            let question = ChatRequest {
                messages: &[], max_tokens: 5, sampling: Sampling::default(), stop: &stop, schema, alternatives: true,
            };
            if let Ok(reply) = Reply::read(&body, &question) {
                prop_assert!(!reply.text().trim().is_empty(), "an empty answer counts as one");
                let text = reply.text().len();
                prop_assert!(reply.generated().iter().all(|token| token.end <= text), "a token ends outside the text");
                let found = scores::read(&reply, &["1".into(), "refuse".into()]);
                prop_assert!(found.is_none_or(|found| found.iter().all(|score| !score.is_nan())), "a score is no number");
            }
        }
        prop_assert!(!Refusal::read(&body, Some(KEY)).quoted().contains(KEY), "the key is shown");
    }
}
