//! Checks the answer of a model against the passages that it cites.
//!
//! A citation counts if the passage shares words with the sentence. A sentence is dropped if no citation counts, or if it claims
//! a number, a name, a negation or a superlative that the cited passages do not support (`claims.rs`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;
use utoipa::ToSchema;

use super::ClaimedSentence;
use super::claims::Sources;
use crate::outcome::{ClaimKind, UnsupportedClaim};

/// The share of the words of a sentence that a passage must contain to count as its source. It is below 1 because a model
/// rephrases.
const SHARE: f64 = 0.4;

/// The share of novel words that a sentence may have. The words are compared with each passage already.
const ANY_WORDS: f64 = 1.0;

/// A sentence that the documents support.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// Numbers of the passages that support it.
    pub citations: Vec<usize>,
}

/// A sentence or a citation that a passage does not support.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// The sentence.
    pub text: String,
    /// The number of the dropped citation. `None` if the sentence was dropped for another reason.
    pub citation: Option<usize>,
    /// Why it was dropped.
    pub reason: String,
}

/// The answer of a model after the check.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroundedAnswer {
    /// The sentences that the passages support.
    pub sentences: Vec<Sentence>,
    /// The sentences and citations that they do not support.
    pub dropped: Vec<Dropped>,
}

impl GroundedAnswer {
    /// Keeps the sentences that the passages support. The number of a passage is its position, from 1.
    pub fn of(sentences: Vec<ClaimedSentence>, passages: &[&str]) -> Self {
        let mut answer = Self::default();
        for sentence in sentences {
            answer.add(sentence, passages);
        }
        answer
    }

    /// Why there is no answer, if there is none.
    pub fn empty_reason(&self) -> Option<&'static str> {
        match (self.sentences.is_empty(), self.dropped.is_empty()) {
            (false, _) => None,
            (true, true) => Some("not found in the documents: the passages do not answer it"),
            (true, false) => Some("not found in the documents: no passage supports what the model wrote"),
        }
    }

    fn add(&mut self, sentence: ClaimedSentence, passages: &[&str]) {
        let words = content(&sentence.text);
        let mut citations = Vec::new();
        let mut dropped = Vec::new();
        for number in sentence.passages {
            let drop = |reason: String| Dropped { text: sentence.text.clone(), citation: Some(number), reason };
            let Some(passage) = number.checked_sub(1).and_then(|index| passages.get(index)) else {
                dropped.push(drop(format!("there is no passage {number}")));
                continue;
            };
            let passage_words = content(passage);
            let shared = words.iter().filter(|word| passage_words.contains(*word)).count();
            match shared > 0 && shared as f64 >= words.len() as f64 * SHARE {
                true if citations.contains(&number) => {}
                true => citations.push(number),
                false => dropped.push(drop(format!("passage {number} contains {shared} of its {} words", words.len()))),
            }
        }
        if citations.is_empty() && dropped.is_empty() {
            dropped.push(Dropped { text: sentence.text.clone(), citation: None, reason: "it cites no passage".into() });
        }
        // Other words can have the same meaning, another number cannot.
        let mut sources = Sources::default();
        citations.iter().for_each(|number| sources.add_text(passages[number - 1]));
        let claims = sources.unsupported(&without_marks(&sentence.text), ANY_WORDS);
        if let Some(claim) = claims.into_iter().next().filter(|_| !citations.is_empty()) {
            let reason = reason(&claim);
            dropped.push(Dropped { text: sentence.text.clone(), citation: None, reason });
            citations.clear();
        }
        self.dropped.extend(dropped);
        if !citations.is_empty() {
            self.sentences.push(Sentence { text: sentence.text, citations });
        }
    }
}

fn reason(claim: &UnsupportedClaim) -> String {
    let says = &claim.says;
    match claim.kind {
        ClaimKind::Number => format!("it claims the number \"{says}\", which no cited passage says"),
        ClaimKind::Name => format!("it has the name \"{says}\", which no cited passage has"),
        ClaimKind::Negation => format!("it says \"{says}\", and the cited passages say the reverse or nothing of it"),
        ClaimKind::Absolute => format!("it says \"{says}\", and no cited passage goes as far"),
        ClaimKind::Novel => format!("it has the word \"{says}\", which no cited passage has"),
    }
}

/// The text without marks such as `[1]` or `[2, 3]`, with which models cite passages.
fn without_marks(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some(start) = rest.find('[') {
        let mark = rest[start + 1..].find(']').map(|end| &rest[start..start + end + 2]);
        let is_mark = |mark: &&str| mark.chars().all(|c| c.is_ascii_digit() || matches!(c, '[' | ']' | ',' | ' '));
        let end = start + mark.filter(is_mark).map_or(1, str::len);
        kept.push_str(&rest[..start]);
        kept.push(if end == start + 1 { '[' } else { ' ' });
        rest = &rest[end..];
    }
    kept + rest
}

/// The words that carry meaning, judged by their length. For scripts without spaces these are pairs of characters. Words are cut to
/// their first letters, so that different endings still match.
fn content(text: &str) -> BTreeSet<String> {
    const LETTERS: usize = 5;
    let lower = text.to_lowercase();
    let mut found = BTreeSet::new();
    for word in lower.unicode_words() {
        let characters: Vec<char> = word.chars().collect();
        let is_spaced = word.is_ascii() || characters.iter().all(|c| !is_syllable(*c));
        match (is_spaced, characters.len()) {
            (true, 0..=3) if !word.chars().any(|c| c.is_ascii_digit()) => {}
            (true, _) => drop(found.insert(characters.iter().take(LETTERS).collect())),
            (false, 1) => drop(found.insert(word.to_owned())),
            (false, _) => found.extend(characters.windows(2).map(String::from_iter)),
        }
    }
    found
}

/// Whether `c` is Hangul, a Chinese character or Kana.
fn is_syllable(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11FF}' | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, passages: &[usize]) -> (Vec<Sentence>, Vec<Dropped>) {
        let known = ["The kettle boils water in two minutes and switches itself off.", "토마토는 햇빛이 많이 필요하다."];
        let answer = GroundedAnswer::of(vec![ClaimedSentence { text: text.into(), passages: passages.to_vec() }], &known);
        (answer.sentences, answer.dropped)
    }

    #[test]
    fn a_sentence_stays_with_the_citations_that_hold() {
        let (sentences, dropped) = answer("The kettle boils its water within minutes.", &[1, 2, 7, 1]);
        assert_eq!(sentences, [Sentence { text: "The kettle boils its water within minutes.".into(), citations: vec![1] }]);
        assert_eq!(dropped.iter().map(|d| d.citation).collect::<Vec<_>>(), [Some(2), Some(7)]);
        assert_eq!(dropped[1].reason, "there is no passage 7");
        let (sentences, _) = answer("토마토에는 햇빛이 필요해요.", &[2]);
        assert_eq!(sentences.len(), 1, "particles and endings do not matter");
    }

    #[test]
    fn a_sentence_with_a_number_that_no_passage_says_is_dropped() {
        let boils = |time: &str| answer(&format!("The kettle boils water in {time} and switches itself off."), &[1]);
        for time in ["two minutes", "2 minutes", "two minutes [1]", "2 minutes [1, 2]"] {
            let (sentences, dropped) = boils(time);
            assert_eq!((sentences.len(), dropped.len()), (1, 0), "{time}: {dropped:?}");
        }
        for (time, words) in [
            ("nine minutes", "nine minutes"),
            ("9 minutes", "9 minutes"),
            ("2 minutes and 30 seconds", "2 minutes and 30 seconds"),
            ("2.5 minutes", "2.5 minutes"),
            ("two hours", "two hours"),
        ] {
            let (sentences, dropped) = boils(time);
            assert!(sentences.is_empty(), "{time}");
            assert_eq!(dropped[0].reason, format!("it claims the number \"{words}\", which no cited passage says"));
            assert_eq!(dropped[0].citation, None);
        }
        let (sentences, _) = answer("토마토는 하루에 햇빛이 여섯 시간 필요하다.", &[2]);
        assert!(sentences.is_empty(), "the passage mentions no hours");
    }

    #[test]
    fn a_sentence_that_turns_its_passage_round_is_dropped() {
        for (text, passages, says) in [
            ("The kettle does not switch itself off.", [1], "does not switch"),
            ("The Bosch kettle boils water in two minutes.", [1], "Bosch"),
            ("The kettle always boils water in two minutes.", [1], "always"),
            ("토마토는 햇빛이 필요하지 않다.", [2], "필요하지 않다"),
        ] {
            let (sentences, dropped) = answer(text, &passages);
            assert!(sentences.is_empty(), "{text}");
            let parts = says.split(' ').next_back().unwrap_or_default();
            assert!(dropped[0].reason.contains(parts), "{text}: {dropped:?}");
        }
    }

    #[test]
    fn numbers_may_come_from_all_the_passages_that_a_sentence_names() {
        let known = ["The kettle weighs 3 kg and is made of steel.", "The steel kettle was made on 2026.01.05 in Norway."];
        let sentence = |text: &str| {
            GroundedAnswer::of(vec![ClaimedSentence { text: text.into(), passages: vec![1, 2] }], &known).sentences.len()
        };
        assert_eq!(sentence("The steel kettle weighs three kg and was made on 2026.01.05."), 1);
        assert_eq!(sentence("The steel kettle weighs 3 kg and was made in 2026."), 1);
        assert_eq!(sentence("The steel kettle weighs 4 kg and was made in 2026."), 0);
        assert_eq!(sentence("The steel kettle weighs 3 kg and was made on 2025.01.05."), 0);
    }

    #[test]
    fn what_no_passage_says_is_dropped_and_said() {
        for (text, passages) in [
            ("Elephants remember everything forever.", vec![1]),
            ("The kettle boils water.", vec![]),
            ("", vec![1]),
            ("The kettle boils.", vec![0]),
        ] {
            let (sentences, dropped) = answer(text, &passages);
            assert_eq!((sentences.len(), dropped.len()), (0, 1), "{text} {passages:?}");
        }
    }
}
