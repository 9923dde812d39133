//! Judges a written text sentence by sentence against its sources: what it was made from.
//!
//! | claim | is supported where a source has |
//! |---|---|
//! | number | the same number in any notation and in units that convert exactly, and no other number that fits the clause better |
//! | name | the same word; and, of two names in a row, the same row |
//! | negation | a negation of the same words. What the sources only deny may not be affirmed |
//! | superlative, absolute word | the same word, or one of the same meaning |
//! | any other word | the same word in another form, or a compound of it. A share of novel words is allowed in each sentence |
//!
//! Nothing is understood: a text that combines the words of its sources into something else passes. A sentence of a source that
//! gives a model instructions supports nothing.

mod absolutes;
mod function_words;
mod instructions;
mod names;
mod numbers;
mod polarity;
mod sentence_words;
mod source_index;
mod stems;

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value};

use self::sentence_words::{Break, Word, words};
use self::source_index::{Clauses, SourceIndex};
use super::evidence::is_choice;
use super::folded_text::FoldedText;
use super::json_spans::escaped_key;
use super::sentences::sentences;
use super::words as folded_words;
use crate::outcome::{ClaimKind, Span, UnsupportedClaim};

pub(super) use self::names::names;
pub(super) use self::numbers::{NumberWords, StatedNumber, numbers};

/// What a text may state, and how many words of its own it may have.
#[derive(Debug, Default)]
pub(super) struct Sources {
    index: SourceIndex,
}

impl Sources {
    /// Adds a text whose statements support claims.
    pub(super) fn add_text(&mut self, text: &str) {
        self.index.add_text(&instructions::without(text));
    }

    /// Adds the strings, numbers and field names of a value.
    pub(super) fn add_value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add_text(text),
            Value::Number(number) => self.index.add_number(number),
            Value::Array(items) => items.iter().for_each(|item| self.add_value(item)),
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.index.add_words(name);
                    self.add_value(inner);
                }
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    /// Adds a text, such as a prompt, whose words and names may be used. It states nothing.
    pub(super) fn add_words(&mut self, text: &str) {
        self.index.add_words(text);
    }

    /// The claims of `text` that are not supported, in text order. Of the words of a sentence that state something, at most the
    /// share `novel_words` may be unknown to the sources.
    pub(super) fn unsupported(&self, text: &str, novel_words: f64) -> Vec<UnsupportedClaim> {
        let mut found = Vec::new();
        let names = self.unsupported_names(text);
        for span in sentences(text, usize::MAX) {
            let sentence = Sentence::new(text, span);
            let mut claims = self.unsupported_numbers(&sentence);
            let inside = |name: &&Range<usize>| span.start <= name.start && name.start < span.end;
            claims.extend(names.iter().filter(inside).map(|name| sentence.claim(ClaimKind::Name, name.clone())));
            claims.extend(self.unsupported_negations(&sentence));
            claims.extend(self.unsupported_absolutes(&sentence));
            let mut novel = self.novel_words(&sentence);
            novel.retain(|place| claims.iter().all(|claim| !claim.covers(place)));
            let content = sentence.words.iter().filter(|word| word.is_content).count();
            if novel.len() as f64 > novel_words * content as f64 {
                claims.extend(novel.into_iter().map(|place| sentence.claim(ClaimKind::Novel, place)));
            }
            claims.sort_by_key(|claim| claim.place.start);
            found.extend(claims.into_iter().map(|claim| claim.told(text, span)));
        }
        found
    }

    /// The unsupported claims in the strings of an object, except those that the schema lists.
    pub(super) fn unsupported_in(&self, fields: &Map<String, Value>, schema: &Value, novel_words: f64) -> Vec<UnsupportedClaim> {
        let mut found = Vec::new();
        for (name, value) in fields {
            self.walk(&format!("/{}", escaped_key(name)), value, schema, &mut |path, text| {
                let claims = self.unsupported(text, novel_words).into_iter();
                found.extend(claims.map(|claim| UnsupportedClaim { path: path.to_owned(), ..claim }));
            });
        }
        found
    }

    fn walk(&self, path: &str, value: &Value, schema: &Value, judge: &mut dyn FnMut(&str, &str)) {
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.walk(&format!("{path}/{}", escaped_key(name)), inner, schema, judge);
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    self.walk(&format!("{path}/{index}"), inner, schema, judge);
                }
            }
            Value::String(text) if !is_choice(schema, path, value) => judge(path, text),
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    fn unsupported_numbers(&self, sentence: &Sentence<'_>) -> Vec<Claim> {
        let folded = FoldedText::of(sentence.text);
        let clauses = Clauses::of(sentence.text, &sentence.words);
        let mut found = Vec::new();
        for number in numbers(folded.text(), NumberWords::Certain) {
            let place = folded.original(number.place.clone());
            let around = clauses.around(place.start);
            if !self.index.states(&number, &around) {
                found.push(sentence.claim(ClaimKind::Number, sentence.start + place.start..sentence.start + place.end));
            }
        }
        let unsaid = |at: &usize| sentence.words[*at].stems.iter().all(|stem| !self.index.has_stem(stem));
        let rates = (1..sentence.words.len()).filter(|at| is_rate(&sentence.words, *at)).filter(unsaid);
        found.extend(rates.map(|at| sentence.claim_of_words(ClaimKind::Number, at - 1, at)));
        found
    }

    fn unsupported_names(&self, text: &str) -> Vec<Range<usize>> {
        let all = names(text);
        let mut found = Vec::new();
        for (index, place) in all.iter().enumerate() {
            let name = &text[place.clone()];
            let has_mark = name.chars().any(char::is_numeric) || name.chars().filter(|letter| letter.is_uppercase()).count() > 1;
            if self.index.is_foreign() && !has_mark {
                continue;
            }
            let before = index.checked_sub(1).map(|index| &all[index]).filter(|before| &text[before.end..place.start] == " ");
            let is_split = before.is_some_and(|before| self.index.splits_names(&text[before.clone()], name));
            if is_split || !self.index.has_name(name) {
                found.push(place.clone());
            }
        }
        let persons = names::korean_names(text).into_iter();
        found.extend(persons.filter(|place| !self.index.has_person(&text[place.clone()])));
        found
    }

    fn unsupported_negations(&self, sentence: &Sentence<'_>) -> Vec<Claim> {
        let words = &sentence.words;
        let denials = polarity::denials(words);
        let mut found = Vec::new();
        let mut denied: BTreeSet<usize> = BTreeSet::new();
        for denial in &denials {
            denied.extend(&denial.broad);
            if !self.index.denies(&denial.compared(words)) {
                let near = denial.broad.first().map_or(denial.at, |near| *near);
                found.push(sentence.claim_of_words(ClaimKind::Negation, denial.at.min(near), denial.at.max(near)));
            }
        }
        for (at, word) in words.iter().enumerate().filter(|(_, word)| word.is_deniable()) {
            let turned = polarity::denied_part(&word.folded).is_some_and(|part| self.index.affirms_only(&word.stems, &part));
            if turned {
                found.push(sentence.claim_of_words(ClaimKind::Negation, at, at));
            }
        }
        let affirmed: Vec<(usize, &Word)> =
            words.iter().enumerate().filter(|(at, word)| word.is_deniable() && !denied.contains(at)).collect();
        for at in self.index.denied_words(&affirmed) {
            if !polarity::is_guarded(words, at, |guard| self.index.has_token(guard)) {
                found.push(sentence.claim_of_words(ClaimKind::Negation, at, at));
            }
        }
        found
    }

    fn unsupported_absolutes(&self, sentence: &Sentence<'_>) -> Vec<Claim> {
        let claimed = absolutes::claimed(&sentence.words).into_iter().filter(|(_, meaning)| !self.index.means(meaning));
        claimed.map(|(at, _)| sentence.claim_of_words(ClaimKind::Absolute, at, at)).collect()
    }

    fn novel_words(&self, sentence: &Sentence<'_>) -> Vec<Range<usize>> {
        let folded = FoldedText::of(sentence.text);
        let numbers = numbers(folded.text(), NumberWords::All).into_iter().map(|number| folded.original(number.place));
        let numbers: Vec<Span> = numbers.collect();
        let is_number = |word: &Word| numbers.iter().any(|number| number.start < word.place.end && word.place.start < number.end);
        let novel = sentence.words.iter().filter(|word| word.is_content && !is_number(word) && !self.index.knows(word));
        novel.map(|word| sentence.start + word.place.start..sentence.start + word.place.end).collect()
    }
}

/// A sentence of the text that is judged.
struct Sentence<'a> {
    start: usize,
    text: &'a str,
    words: Vec<Word>,
}

impl<'a> Sentence<'a> {
    fn new(text: &'a str, span: Span) -> Self {
        let text = &text[span.start..span.end];
        Self { start: span.start, text, words: words(text) }
    }

    fn claim(&self, kind: ClaimKind, place: Range<usize>) -> Claim {
        Claim { kind, place }
    }

    fn claim_of_words(&self, kind: ClaimKind, first: usize, last: usize) -> Claim {
        Claim { kind, place: self.start + self.words[first].place.start..self.start + self.words[last].place.end }
    }
}

/// An unsupported claim with its bytes in the whole text.
#[derive(Debug)]
struct Claim {
    kind: ClaimKind,
    place: Range<usize>,
}

impl Claim {
    fn covers(&self, place: &Range<usize>) -> bool {
        self.place.start < place.end && place.start < self.place.end
    }

    fn told(self, text: &str, sentence: Span) -> UnsupportedClaim {
        let says = text[self.place].to_owned();
        let message = match self.kind {
            ClaimKind::Number => format!("the number \"{says}\" is not what the source says"),
            ClaimKind::Name => format!("the name \"{says}\" is not in the source"),
            ClaimKind::Negation => format!("\"{says}\" is the reverse of what the source says, or more than it says"),
            ClaimKind::Absolute => format!("\"{says}\" is a superlative or an absolute word that the source does not use"),
            ClaimKind::Novel => format!("the word \"{says}\" is not in the source"),
        };
        UnsupportedClaim { kind: self.kind, path: String::new(), says, sentence, message }
    }
}

/// Whether the word at `at` ends a rate, such as `twice a day`.
fn is_rate(words: &[Word], at: usize) -> bool {
    let is_of_each = matches!(words[at - 1].folded.as_str(), "a" | "an" | "per" | "each" | "every" | "매");
    is_of_each && words[at].before == Break::Space && crate::task::units::is_time(&words[at].folded)
}

/// Whether the folded text has the folded word.
fn has_word(text: &str, word: &str) -> bool {
    folded_words::find(text, word).is_some()
}

#[cfg(test)]
mod tests;
