//! What a model says, held against the passages that it says it from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;
use utoipa::ToSchema;

use super::ClaimedSentence;
use super::evidence::folded::FoldedText;
use super::evidence::number;

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
pub struct GroundedAnswer {
    /// What the passages say.
    pub sentences: Vec<Sentence>,
    /// What they don't.
    pub dropped: Vec<Dropped>,
}

impl GroundedAnswer {
    /// Keeps of the claims what the passages say. A passage's number is its place, from 1.
    pub fn of(claims: Vec<ClaimedSentence>, passages: &[&str]) -> Self {
        let mut held = Self::default();
        for claim in claims {
            held.add(claim, passages);
        }
        held
    }

    /// Why there is no answer, where there is none.
    pub fn empty_reason(&self) -> Option<&'static str> {
        match (self.sentences.is_empty(), self.dropped.is_empty()) {
            (false, _) => None,
            (true, true) => Some("not found in the documents: the passages do not answer it"),
            (true, false) => Some("not found in the documents: no passage says what the model said"),
        }
    }

    fn add(&mut self, claim: ClaimedSentence, passages: &[&str]) {
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
        // A sentence in other words is one; a sentence with another number is another sentence.
        let cited: Vec<FoldedText> = citations.iter().map(|number| FoldedText::of(passages[number - 1])).collect();
        if let Some(number) = invented(&claim.text, &cited).filter(|_| !citations.is_empty()) {
            let reason = format!("it says {number}, which no passage that it names does");
            lost.push(Dropped { text: claim.text.clone(), citation: None, reason });
            citations.clear();
        }
        self.dropped.extend(lost);
        if !citations.is_empty() {
            self.sentences.push(Sentence { text: claim.text, citations });
        }
    }
}

/// The first number of a text that none of the passages says, as it is written.
fn invented(text: &str, passages: &[FoldedText]) -> Option<String> {
    let folded = FoldedText::of(&without_marks(text));
    let says = |digits: &str, value: Option<f64>| {
        passages.iter().any(|passage| {
            let passage = passage.text();
            value.is_some_and(|value| number::find(passage, value).is_some()) || value.is_none() && passage.contains(digits)
        })
    };
    // What is no number as a whole (a date, a list) is looked at in parts.
    let in_parts = |digits: &str| {
        let mut parts = digits.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok());
        parts.all(|value| says("", Some(value)))
    };
    let numbers = number::claimed(folded.text()).into_iter();
    let found = numbers.map(|(place, value)| (&folded.text()[place], value));
    let invented = |(digits, value): &(&str, Option<f64>)| !(says(digits, *value) || value.is_none() && in_parts(digits));
    found.into_iter().find(invented).map(|(digits, _)| digits.to_owned())
}

/// The text without marks such as `[1]` or `[2, 3]`, by which models name passages.
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
        let held = GroundedAnswer::of(vec![ClaimedSentence { text: text.into(), passages: passages.to_vec() }], &known);
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
    fn a_sentence_with_a_number_that_no_passage_says_is_dropped() {
        let boils = |time: &str| held(&format!("The kettle boils water in {time} and switches itself off."), &[1]);
        for time in ["two minutes", "2 minutes", "two minutes [1]", "2 minutes [1, 2]"] {
            let (sentences, dropped) = boils(time);
            assert_eq!((sentences.len(), dropped.len()), (1, 0), "{time}: {dropped:?}");
        }
        for (time, said) in
            [("nine minutes", "nine"), ("9 minutes", "9"), ("2 minutes and 30 seconds", "30"), ("2.5 minutes", "2.5")]
        {
            let (sentences, dropped) = boils(time);
            assert!(sentences.is_empty(), "{time}");
            assert_eq!(dropped[0].reason, format!("it says {said}, which no passage that it names does"));
            assert_eq!(dropped[0].citation, None);
        }
        let (sentences, _) = held("토마토는 하루에 햇빛이 여섯 시간 필요하다.", &[2]);
        assert!(sentences.is_empty(), "the passage tells of no hours");
    }

    #[test]
    fn numbers_may_come_from_all_the_passages_that_a_sentence_names() {
        let known = ["The kettle weighs 3 kg and is made of steel.", "The steel kettle was made on 2026.01.05 in Norway."];
        let claim = |text: &str| {
            GroundedAnswer::of(vec![ClaimedSentence { text: text.into(), passages: vec![1, 2] }], &known).sentences.len()
        };
        assert_eq!(claim("The steel kettle weighs three kg and was made on 2026.01.05."), 1);
        assert_eq!(claim("The steel kettle weighs 3 kg and was made in 2026."), 1);
        assert_eq!(claim("The steel kettle weighs 4 kg and was made in 2026."), 0);
        assert_eq!(claim("The steel kettle weighs 3 kg and was made on 2025.01.05."), 0);
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
