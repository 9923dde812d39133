//! Weighs answers by what a server tells of one answer.
//!
//! A server cannot be asked for the probability of a given answer, only for an answer with the alternatives to each of its tokens. So it is
//! made to choose, and each answer's probability is read off the tokens up to where it parts from the chosen one, times that of the
//! alternatives there that go its way. What follows the parting is taken for certain, so an answer that was not chosen comes out a little
//! too probable; one that no alternative leads to gets [`FLOOR`]. Without alternatives the choice is all there is: it gets nearly
//! everything, and the others [`FLOOR`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::reply::{Reply, ReplyToken};

/// The least that an answer gets: the logarithm of one in a million.
const FLOOR: f64 = -13.815_510_557_964_274;

/// The score of an answer of which a server tells nothing.
pub const LEAST_SCORE: f32 = FLOOR as f32;

const FIELD: &str = "label";

/// The schema of the choice.
pub(super) fn schema(answers: &[Arc<str>]) -> Value {
    json!({
        "type": "object", "properties": {FIELD: {"type": "string", "enum": answers}}, "required": [FIELD],
        "additionalProperties": false,
    })
}

/// Tokens that the choice may take: no token is shorter than a byte.
pub(super) fn max_tokens(answers: &[Arc<str>]) -> usize {
    let longest = answers.iter().map(|answer| json!({FIELD: answer}).to_string().len()).max().unwrap_or(0);
    // White space is free in JSON, and some servers write it.
    longest + 16
}

/// The logarithm of each answer's probability; none where the reply is no choice.
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

/// The answer that was chosen, and how it stands in the text.
struct ChosenAnswer {
    answer: Arc<str>,
    /// The byte at which it begins, where it can be told.
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
        // A server that ignores schemas lets the model answer with the label alone, which is as good.
        let bare = text.trim();
        Some(Self { answer: find(bare)?, start: Some(text.len() - text.trim_start().len()), quoted: false })
    }

    /// The text had `answer` been chosen, up to where that is certain.
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

/// The logarithm of the probability that the tokens write `wanted`, as far as they tell.
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
