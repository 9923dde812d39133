//! Scores answers by the token probabilities of a single answer.
//!
//! A server cannot report the probability of a given answer, only that of its own answer with alternatives to each token. So the
//! model is made to choose one of the answers. Each answer's probability is the product over the tokens up to where it diverges
//! from the chosen one, times the probability of the alternatives there that match it. Everything after that point is taken as
//! certain, so answers that were not chosen come out slightly too probable. An answer that no alternative matches gets [`FLOOR`].
//! Without alternatives, the chosen answer gets nearly all the probability, and the others [`FLOOR`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::reply::{Reply, ReplyToken};

/// The lowest score of an answer: the natural logarithm of one in a million.
const FLOOR: f64 = -13.815_510_557_964_274;

/// The score of an answer about which a server reports nothing.
pub const LEAST_SCORE: f32 = FLOOR as f32;

const FIELD: &str = "label";

/// The schema of the choice.
pub(super) fn schema(answers: &[Arc<str>]) -> Value {
    json!({
        "type": "object", "properties": {FIELD: {"type": "string", "enum": answers}}, "required": [FIELD],
        "additionalProperties": false,
    })
}

/// An upper bound for the tokens of the choice: no token is shorter than a byte.
pub(super) fn max_tokens(answers: &[Arc<str>]) -> usize {
    let longest = answers.iter().map(|answer| json!({FIELD: answer}).to_string().len()).max().unwrap_or(0);
    // Some servers write white space in JSON.
    longest + 16
}

/// The natural logarithm of each answer's probability; none if the reply is not one of the answers.
pub(super) fn read(reply: &Reply, answers: &[Arc<str>]) -> Option<Vec<f32>> {
    let choice = ChosenAnswer::read(reply.text(), answers)?;
    let places = reply.places();
    let told = places.iter().any(|(_, token)| token.alternatives.as_ref().is_some_and(|all| !all.is_empty()));
    if let (Some(start), true) = (choice.start, told) {
        let path: Vec<_> = places.into_iter().filter(|(place, _)| place.end > start).collect();
        let written = |answer: &str| choice.written(&reply.text()[..start], answer);
        return Some(answers.iter().map(|answer| log_probability(&path, &written(answer)).max(FLOOR) as f32).collect());
    }
    let others = answers.iter().filter(|answer| **answer != choice.answer).count();
    let rest = (1.0 - others as f64 * FLOOR.exp()).max(FLOOR.exp()).ln();
    Some(answers.iter().map(|answer| if *answer == choice.answer { rest as f32 } else { FLOOR as f32 }).collect())
}

/// The chosen answer, and its place in the text.
struct ChosenAnswer {
    answer: Arc<str>,
    /// The byte where it starts, if that can be found.
    start: Option<usize>,
    quoted: bool,
}

impl ChosenAnswer {
    fn read(text: &str, answers: &[Arc<str>]) -> Option<Self> {
        let find = |chosen: &str| answers.iter().find(|answer| &***answer == chosen).cloned();
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            let answer = find(value.get(FIELD)?.as_str()?)?;
            let written = json!(answer).to_string();
            let colon = text.find(&format!("\"{FIELD}\"")).map(|at| at + FIELD.len() + 2);
            let start = colon.and_then(|colon| text[colon..].find(&written).map(|at| colon + at + 1));
            return Some(Self { answer, start, quoted: true });
        }
        // If the server ignores schemas, the model may answer with the label alone, which is just as good.
        let bare = text.trim();
        Some(Self { answer: find(bare)?, start: Some(text.len() - text.trim_start().len()), quoted: false })
    }

    /// The text that would have been written for `answer`, as far as it is certain.
    fn written(&self, before: &str, answer: &str) -> Vec<u8> {
        let mut text = before.as_bytes().to_vec();
        if self.quoted {
            text.extend_from_slice(&json!(answer).to_string().as_bytes()[1..]);
        } else {
            text.extend_from_slice(answer.as_bytes());
        }
        text
    }
}

/// The natural logarithm of the probability that the tokens write `wanted`, as far as they show it.
fn log_probability(path: &[(std::ops::Range<usize>, &ReplyToken)], wanted: &[u8]) -> f64 {
    let mut sum = 0.0;
    for (place, token) in path {
        let Some(rest) = wanted.get(place.start..).filter(|rest| !rest.is_empty()) else { break };
        let leads = |token: &ReplyToken| {
            let bytes = token.bytes();
            !bytes.is_empty() && (rest.starts_with(bytes) || bytes.starts_with(rest))
        };
        if leads(token) {
            sum += f64::from(token.logprob.unwrap_or(0.0));
            continue;
        }
        let alternatives = token.alternatives.iter().flatten().filter(|token| leads(token));
        let probability: f64 = alternatives.filter_map(|token| token.logprob).map(|value| f64::from(value).exp()).sum();
        return if probability > 0.0 { sum + probability.ln() } else { FLOOR };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::reply;
    use super::*;

    fn answers() -> Vec<Arc<str>> {
        ["garden", "games", "a \"b\""].map(Arc::from).to_vec()
    }

    fn token(text: &str, probability: f64, alternatives: &[(&str, f64)]) -> Value {
        let all = alternatives.iter().copied().chain([(text, probability)]);
        let all: Vec<Value> = all.map(|(text, p)| json!({"token": text, "logprob": p.ln()})).collect();
        json!({"token": text, "logprob": probability.ln(), "top_logprobs": all})
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(found.exp()) - expected).abs() < 1e-6, "{found:?} is not the logarithm of {expected}");
        }
    }

    #[test]
    fn answers_part_where_their_tokens_do() {
        let tokens = json!([
            token("{\"label\":\"", 0.01, &[]),
            token("ga", 0.9, &[("a", 0.06), ("a ", 0.02)]),
            token("rden", 0.75, &[("mes", 0.25)]),
            token("\"}", 1.0, &[]),
        ]);
        let scores = read(&reply("{\"label\":\"garden\"}", tokens), &answers()).unwrap();
        close(&scores, &[0.9 * 0.75, 0.9 * 0.25, 0.08]);
    }

    #[test]
    fn an_answer_that_nothing_leads_to_gets_the_floor() {
        let tokens = json!([token("{\"label\": \"games", 0.5, &[("{\"label\": \"x", 0.5)]), token("\"}", 0.8, &[])]);
        let scores = read(&reply("{\"label\": \"games\"}", tokens), &answers()).unwrap();
        close(&scores, &[1e-6, 0.4, 1e-6]);
    }

    #[test]
    fn without_alternatives_the_choice_gets_nearly_everything() {
        for text in ["{\"label\": \"a \\\"b\\\"\"}", " a \"b\"\n"] {
            let scores = read(&reply(text, Value::Null), &answers()).unwrap();
            close(&scores, &[1e-6, 1e-6, 1.0 - 2e-6]);
        }
    }

    #[test]
    fn what_is_no_choice_is_none() {
        for text in ["{\"label\": \"kitchen\"}", "{}", "garden, I think", "{\"label\": 3}"] {
            assert_eq!(read(&reply(text, Value::Null), &answers()), None, "{text}");
        }
    }
}
