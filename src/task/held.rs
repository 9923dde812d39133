//! What a model says, held against the passages that it says it from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;
use utoipa::ToSchema;

use super::Claim;

/// The share of a sentence's words that a passage must have to count as saying it. A sentence says things in other words, too.
const SHARE: f64 = 0.4;

/// A sentence that the documents say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// Where they say it: numbers of passages.
    pub citations: Vec<usize>,
}

/// A sentence, or a citation of one, that did not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// The sentence.
    pub text: String,
    /// The number that it named, where only the citation was dropped or was the reason.
    pub citation: Option<usize>,
    /// Why.
    pub reason: String,
}

/// What is left of a model's claims.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// What the passages say.
    pub sentences: Vec<Sentence>,
    /// What they don't.
    pub dropped: Vec<Dropped>,
}

impl Held {
    /// Keeps of the claims what the passages say. A passage's number is its place, from 1.
    pub fn of(claims: Vec<Claim>, passages: &[&str]) -> Self {
        let mut held = Self::default();
        for claim in claims {
            held.add(claim, passages);
        }
        held
    }

    /// Why there is no answer, where there is none.
    pub fn emptiness(&self) -> Option<&'static str> {
        match (self.sentences.is_empty(), self.dropped.is_empty()) {
            (false, _) => None,
            (true, true) => Some("not found in the documents: the passages do not answer it"),
            (true, false) => Some("not found in the documents: no passage says what the model said"),
        }
    }

    fn add(&mut self, claim: Claim, passages: &[&str]) {
        let said = content(&claim.text);
        let mut citations = Vec::new();
        let mut lost = Vec::new();
        for number in claim.passages {
            let drop = |reason: String| Dropped { text: claim.text.clone(), citation: Some(number), reason };
            let Some(passage) = number.checked_sub(1).and_then(|index| passages.get(index)) else {
                lost.push(drop(format!("there is no passage {number}")));
                continue;
            };
            let there = content(passage);
            let shared = said.iter().filter(|word| there.contains(*word)).count();
            match shared > 0 && shared as f64 >= said.len() as f64 * SHARE {
                true if citations.contains(&number) => {}
                true => citations.push(number),
                false => lost.push(drop(format!("passage {number} has {shared} of its {} words", said.len()))),
            }
        }
        if citations.is_empty() && lost.is_empty() {
            lost.push(Dropped { text: claim.text.clone(), citation: None, reason: "it names no passage".into() });
        }
        self.dropped.extend(lost);
        if !citations.is_empty() {
            self.sentences.push(Sentence { text: claim.text, citations });
        }
    }
}

/// The words that carry meaning, as far as their length tells; of scripts without spaces the pairs of characters. Words are cut to
/// their first letters, so that endings do not tell them apart.
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

/// Hangul, Chinese characters and Kana.
fn is_syllable(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11FF}' | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, passages: &[usize]) -> (Vec<Sentence>, Vec<Dropped>) {
        let known = ["The kettle boils water in two minutes and switches itself off.", "토마토는 햇빛이 많이 필요하다."];
        let held = Held::of(vec![Claim { text: text.into(), passages: passages.to_vec() }], &known);
        (held.sentences, held.dropped)
    }

    #[test]
    fn a_sentence_stays_with_the_citations_that_hold() {
        let (sentences, dropped) = held("The kettle boils its water within minutes.", &[1, 2, 7, 1]);
        assert_eq!(sentences, [Sentence { text: "The kettle boils its water within minutes.".into(), citations: vec![1] }]);
        assert_eq!(dropped.iter().map(|d| d.citation).collect::<Vec<_>>(), [Some(2), Some(7)]);
        assert_eq!(dropped[1].reason, "there is no passage 7");
        let (sentences, _) = held("토마토에는 햇빛이 필요해요.", &[2]);
        assert_eq!(sentences.len(), 1, "particles and endings do not matter");
    }

    #[test]
    fn what_no_passage_says_is_dropped_and_said() {
        for (text, passages) in [
            ("Elephants remember everything forever.", vec![1]),
            ("The kettle boils water.", vec![]),
            ("", vec![1]),
            ("The kettle boils.", vec![0]),
        ] {
            let (sentences, dropped) = held(text, &passages);
            assert_eq!((sentences.len(), dropped.len()), (0, 1), "{text} {passages:?}");
        }
    }
}
