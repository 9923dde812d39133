//! Finds the place in a document that states a value.
//!
//! | tried in this order | finds |
//! |---|---|
//! | exact | the same characters |
//! | normalized | the same text under NFKC, case folding, collapsed white space, plain quotes and dashes; a number in any notation |
//! | fuzzy | a text in which at most a fifth of the characters differ; no digit and no number word may differ |
//!
//! Of several occurrences, the first separate word is taken, otherwise the first at the start of a word, otherwise the first. An
//! occurrence inside a number does not count, and neither does one of fewer than four ASCII characters inside a word.

pub(super) mod date;
mod fuzzy;
pub(super) mod number;
mod number_words;
pub(super) mod quantity;

use std::cell::{Cell, OnceCell};
use std::ops::Range;

use serde_json::{Number, Value};

use super::folded_text::FoldedText;
use super::json_spans::unescaped_key;
use crate::outcome::{Evidence, MatchKind, Span};

/// Most steps of fuzzy search per document: a few hundredths of a second.
const FUZZY_STEPS: usize = 1 << 24;

/// Most occurrences that are compared; then the best so far is taken.
const MOST_OCCURRENCES: usize = 10_000;

/// Finds evidence in one document.
pub(super) struct EvidenceFinder<'a> {
    text: &'a str,
    folded: OnceCell<FoldedText>,
    steps: Cell<usize>,
}

impl<'a> EvidenceFinder<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, folded: OnceCell::new(), steps: Cell::new(FUZZY_STEPS) }
    }

    /// The place where the text states `value`.
    pub(super) fn string(&self, value: &str) -> Option<Evidence> {
        let value = value.trim();
        if value.is_empty() {
            return None;
        }
        if let Some(place) = best(self.text, value) {
            return Some(Evidence { span: Span { start: place.start, end: place.end }, likeness: MatchKind::Exact });
        }
        let folded = self.folded();
        let wanted = FoldedText::of(value);
        let wanted = wanted.text().trim();
        if wanted.is_empty() {
            return None;
        }
        if let Some(place) = best(folded.text(), wanted) {
            return Some(Evidence { span: folded.original(place), likeness: MatchKind::Normalized });
        }
        if let Some(number) = number::written(wanted).and_then(|number| self.number_as(number, wanted)) {
            return Some(number);
        }
        let mut steps = self.steps.get();
        let place = fuzzy::find(folded.letters(), wanted, &mut steps);
        self.steps.set(steps);
        let place = place.filter(|place| says_numbers_of(wanted, folded.part(place.clone())));
        place.map(|place| Evidence { span: folded.original_letters(place), likeness: MatchKind::Fuzzy })
    }

    /// The place where the text states `number`, in any notation.
    pub(super) fn number(&self, number: &Number) -> Option<Evidence> {
        self.number_as(number.as_f64()?, &number.to_string())
    }

    fn number_as(&self, number: f64, digits: &str) -> Option<Evidence> {
        let folded = self.folded();
        let span = folded.original(number::find(folded.text(), number)?);
        let likeness = if self.text.get(span.start..span.end) == Some(digits) { MatchKind::Exact } else { MatchKind::Normalized };
        Some(Evidence { span, likeness })
    }

    pub(super) fn folded(&self) -> &FoldedText {
        self.folded.get_or_init(|| FoldedText::of(self.text))
    }
}

/// Whether the folded `text` contains every number that `wanted` contains.
fn says_numbers_of(wanted: &str, text: &str) -> bool {
    number::all(wanted).into_iter().all(|(_, value)| value.is_none_or(|value| number::find(text, value).is_some()))
}

/// The best occurrence of `wanted`.
fn best(text: &str, wanted: &str) -> Option<Range<usize>> {
    let mut found: Option<(WordFit, Range<usize>)> = None;
    for (start, _) in text.match_indices(wanted).take(MOST_OCCURRENCES) {
        let place = start..start + wanted.len();
        let Some(fit) = WordFit::of(text, &place) else { continue };
        if found.as_ref().is_none_or(|(best, _)| fit > *best) {
            if fit == WordFit::Word {
                return Some(place);
            }
            found = Some((fit, place));
        }
    }
    found.map(|(_, place)| place)
}

/// How well an occurrence matches word boundaries. Later variants are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WordFit {
    Inside,
    Beginning,
    Word,
}

impl WordFit {
    fn of(text: &str, place: &Range<usize>) -> Option<Self> {
        let (before, inside, after) = (&text[..place.start], &text[place.clone()], &text[place.end..]);
        let first = inside.chars().next()?;
        let last = inside.chars().next_back()?;
        if first.is_numeric() && continues_number(before.chars().rev()) || last.is_numeric() && continues_number(after.chars()) {
            return None;
        }
        let open = |neighbour: Option<char>, own: char| !(own.is_alphanumeric() && neighbour.is_some_and(char::is_alphanumeric));
        let fit = match (open(before.chars().next_back(), first), open(after.chars().next(), last)) {
            (true, true) => Self::Word,
            (true, false) => Self::Beginning,
            (false, _) => Self::Inside,
        };
        let short = inside.chars().take(4).count() < 4 && inside.is_ascii();
        (fit == Self::Word || !short).then_some(fit)
    }
}

/// Whether a number continues in these characters: with a digit, or with a mark and a digit.
fn continues_number(mut onwards: impl Iterator<Item = char>) -> bool {
    match onwards.next() {
        Some(c) if c.is_numeric() => true,
        Some('.' | ',') => onwards.next().is_some_and(char::is_numeric),
        _ => false,
    }
}

/// Whether the schema lists `value` for `path`. Such a value is a choice and not a quotation.
pub(super) fn is_choice(schema: &Value, path: &str, value: &Value) -> bool {
    schemas_at(schema, path).into_iter().any(|schema| {
        let listed = schema.get("enum").and_then(Value::as_array).is_some_and(|values| values.contains(value));
        listed || schema.get("const") == Some(value)
    })
}

/// Most nested subschemas; more mean a cycle of references.
const MOST_NESTING: usize = 64;

/// Every part of the schema that speaks of the value at the JSON Pointer `path`.
pub(super) fn schemas_at<'a>(schema: &'a Value, path: &str) -> Vec<&'a Value> {
    let steps: Vec<String> = path.split('/').skip(1).map(unescaped_key).collect();
    let mut found = Vec::new();
    collect_schemas(schema, schema, &steps, 0, &mut found);
    found
}

fn collect_schemas<'a>(root: &'a Value, schema: &'a Value, steps: &[String], depth: usize, found: &mut Vec<&'a Value>) {
    if depth > MOST_NESTING {
        return;
    }
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|name| root.pointer(name.strip_prefix('#')?));
    let parts = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    for part in referred.into_iter().chain(parts) {
        collect_schemas(root, part, steps, depth + 1, found);
    }
    let Some((step, rest)) = steps.split_first() else {
        found.push(schema);
        return;
    };
    let inner = match schema.get("properties").and_then(|properties| properties.get(step)) {
        Some(property) => Some(property),
        None => {
            let fixed = step.parse().ok().and_then(|index: usize| schema.get("prefixItems")?.get(index));
            fixed.or_else(|| schema.get("items")).or_else(|| schema.get("additionalProperties"))
        }
    };
    if let Some(inner) = inner {
        collect_schemas(root, inner, rest, depth + 1, found);
    }
}

#[cfg(test)]
mod tests;
