//! What the sources state, in the form in which claims are looked up.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Number;

use super::absolutes::{Meaning, meanings};
use super::function_words::is_foreign;
use super::names::names;
use super::numbers::{NumberWords, StatedNumber, numbers};
use super::polarity::{Denial, denials, denied_part};
use super::sentence_words::{Break, Word, words};
use super::stems::{is_compared, is_korean, is_stuttered, stem};
use crate::task::folded_text::{FoldedText, folded};
use crate::task::units;

/// Fewest letters of a Latin word that may be a part of a longer one.
const LEAST_PART: usize = 4;

/// Letters in which words of a language without a list of function words must agree.
const LOOSE: usize = 5;

/// Letters at the beginning that a word and one derived from it share, and most letters after these.
const DERIVED: usize = 7;
const MOST_ENDING: usize = 3;

/// Most words of a clause on each side of a number.
const CLAUSE: usize = 24;

/// Most numbers that are compared, those of a table of a thousand rows and more.
const MOST_NUMBERS: usize = 20_000;

/// Most clauses before one that may say what it is about.
const CLAUSES_BEFORE: usize = 3;

/// Words that say which size a number is, each row with one meaning.
const ATTRIBUTES: &[&str] = &[
    "length long longer 길이",
    "width wide broad wider 너비 폭 가로",
    "height tall high taller 높이 세로",
    "depth deep 깊이",
    "thickness thick 두께",
    "weight weighs weigh weighing weighed 무게",
    "diameter across 지름",
    "capacity holds hold volume 용량",
    "price cost costs 가격",
];

/// All sources of a text.
#[derive(Debug, Default)]
pub(super) struct SourceIndex {
    /// All texts, folded and separated by line breaks.
    folded: String,
    /// Every word of every text, folded.
    tokens: HashSet<String>,
    /// The tokens without spaces between them.
    squeezed: String,
    stems: HashSet<String>,
    /// Stems that occur where nothing denies them.
    affirmed: HashSet<String>,
    /// Stems that a negation may govern.
    denied: HashSet<String>,
    denials: Vec<Denial>,
    meanings: Vec<Meaning>,
    numbers: Vec<(StatedNumber, BTreeSet<String>)>,
    /// Numbers of fields, which have no unit.
    fields: Vec<f64>,
    /// Names, each with those that follow it directly.
    names: BTreeMap<String, BTreeSet<String>>,
    /// Stems of words that may be used although no source states anything with them.
    allowed: HashSet<String>,
    words_allowed: String,
    is_foreign: OnceCell<bool>,
}

impl SourceIndex {
    pub(super) fn add_text(&mut self, text: &str) {
        let words = words(text);
        let text_folded = FoldedText::of(text);
        let clauses = Clauses::of(text, &words);
        for number in numbers(text_folded.text(), NumberWords::All).into_iter().take(MOST_NUMBERS - self.numbers.len()) {
            let place = text_folded.original(number.place.clone());
            self.numbers.push((number, clauses.around(place.start)));
        }
        let denials = denials(&words);
        let narrow = |denial: &Denial| denial.broad.iter().copied().take(denial.narrow.len()).collect::<Vec<_>>();
        let denied: BTreeSet<usize> = denials.iter().flat_map(narrow).collect();
        for (at, word) in words.iter().enumerate() {
            self.tokens.insert(word.folded.clone());
            self.squeezed.push_str(&word.folded);
            self.stems.extend(word.stems.iter().cloned());
            if !denied.contains(&at) {
                self.affirmed.extend(word.stems.iter().cloned());
            }
            self.denied.extend(denied_part(&word.folded).into_iter().flatten());
        }
        self.squeezed.push('\n');
        for denial in &denials {
            self.denied.extend(denial.narrow.iter().flatten().cloned());
            self.denied.extend(denial.broad.iter().flat_map(|index| words[*index].stems.iter().cloned()));
        }
        self.denials.extend(denials);
        self.meanings.extend(meanings(&words));
        self.add_names(text);
        self.folded.push_str(text_folded.text());
        self.folded.push('\n');
    }

    fn add_names(&mut self, text: &str) {
        let all = names(text);
        for (index, place) in all.iter().enumerate() {
            let followers = self.names.entry(folded(&text[place.clone()])).or_default();
            let next = all.get(index + 1).filter(|next| &text[place.end..next.start] == " ");
            followers.extend(next.map(|next| folded(&text[next.clone()])));
        }
    }

    pub(super) fn add_number(&mut self, number: &Number) {
        self.fields.extend(number.as_f64());
        self.folded.push_str(&number.to_string());
        self.folded.push('\n');
    }

    pub(super) fn add_words(&mut self, text: &str) {
        for word in words(text) {
            self.allowed.extend(word.stems);
        }
        self.words_allowed.push_str(&folded(text));
        self.words_allowed.push('\n');
    }

    /// Whether a source states the number, and no other number of the same kind fits the words around it better.
    pub(super) fn states(&self, claim: &StatedNumber, around: &BTreeSet<String>) -> bool {
        if self.field_states(claim) {
            return true;
        }
        let (supporting, others): (Vec<_>, Vec<_>) = self.numbers.iter().partition(|(number, _)| number.supports(claim));
        if supporting.is_empty() {
            return claim.unit.is_none() && self.states_part(claim);
        }
        let shared = |context: &BTreeSet<String>| context.intersection(around).count();
        let best = supporting.iter().map(|(_, context)| shared(context)).max().unwrap_or(0);
        let is_told_apart = around.len() >= 2 || around.iter().any(|word| word.starts_with('#'));
        // Another number has all the words around the claim, and names no size that the claim leaves out.
        let is_of_another = others.iter().any(|(number, context)| {
            let sizes = context.iter().filter(|word| word.starts_with('#'));
            number.rivals(claim) && shared(context) == around.len() && sizes.clone().all(|size| around.contains(size))
        });
        !(is_told_apart && best < around.len() && is_of_another)
    }

    fn field_states(&self, claim: &StatedNumber) -> bool {
        let Some(value) = claim.value else { return false };
        let fits = match &claim.unit {
            None => true,
            Some(unit) if unit.is_counter() => true,
            Some(unit) if unit.is_money() => {
                let named = |unit: &units::Unit| units::names_currency(&self.folded, unit);
                named(unit) || !units::currencies().any(|unit| named(&unit))
            }
            Some(_) => false,
        };
        fits && self.fields.contains(&value)
    }

    /// Whether a number is part of a list or a date of a source, or a claimed date consists of such parts.
    fn states_part(&self, claim: &StatedNumber) -> bool {
        let find = |value: f64| crate::task::evidence::number::find(&self.folded, value).is_some();
        match claim.value {
            Some(value) => find(value),
            None if self.folded.contains(&claim.digits) => true,
            None => {
                let mut parts = claim.digits.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok());
                parts.all(find)
            }
        }
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        let name = folded(name);
        let has = |text: &str| super::has_word(text, name.trim());
        has(&self.folded) || has(&self.words_allowed) || self.stems.contains(&stem(&name)) || self.allowed.contains(&stem(&name))
    }

    pub(super) fn has_person(&self, name: &str) -> bool {
        self.folded.contains(&folded(name)) || self.words_allowed.contains(&folded(name))
    }

    /// Whether the sources have both names, but the first one is always followed by another.
    pub(super) fn splits_names(&self, first: &str, second: &str) -> bool {
        let (first, second) = (folded(first), folded(second));
        let followed = |one: &str, other: &str| self.names.get(one).is_some_and(|followers| followers.contains(other));
        let has_other = self.names.get(&first).is_some_and(|followers| !followers.is_empty());
        has_other && self.names.contains_key(&second) && !followed(&first, &second) && !followed(&second, &first)
    }

    /// Whether a source denies one of these words, or denies anything where there are none.
    pub(super) fn denies(&self, words: &[&[String]]) -> bool {
        let mut stems = words.iter().copied().flatten().peekable();
        if stems.peek().is_none() {
            return !self.denials.is_empty();
        }
        stems.any(|stem| self.denied.contains(stem))
    }

    /// Whether the sources have a word with this stem.
    pub(super) fn has_stem(&self, stem: &str) -> bool {
        self.stems.contains(stem)
    }

    pub(super) fn has_token(&self, token: &str) -> bool {
        self.tokens.contains(token)
    }

    /// Whether the sources affirm `part`, such as `breakable`, and have no word for its denial.
    pub(super) fn affirms_only(&self, word: &[String], part: &[String]) -> bool {
        let has = |stems: &[String], set: &HashSet<String>| stems.iter().any(|stem| set.contains(stem));
        !has(word, &self.stems) && !has(part, &self.denied) && has(part, &self.affirmed)
    }

    /// Words of a sentence that the sources only deny, as indexes.
    pub(super) fn denied_words(&self, affirmed: &[(usize, &Word)]) -> Vec<usize> {
        let says = |stems: &[String]| affirmed.iter().find(|(_, word)| word.stems.iter().any(|stem| stems.contains(stem)));
        let only_denied = |stems: &[String]| !stems.iter().any(|stem| self.affirmed.contains(stem));
        let mut found = Vec::new();
        for denial in self.denials.iter().filter(|denial| !denial.narrow.is_empty()) {
            let needed = denial.narrow.iter().all(|stems| says(stems).is_some());
            let denied = denial.narrow.iter().find(|stems| only_denied(stems)).filter(|_| needed);
            if let Some((at, _)) = denied.and_then(|stems| says(stems))
                && !found.contains(at)
            {
                found.push(*at);
            }
        }
        let undone = affirmed.iter().filter(|(_, word)| {
            let is_whole = word.stems.iter().any(|stem| self.stems.contains(stem));
            !is_whole && word.stems.iter().any(|stem| self.denied.contains(stem))
        });
        found.extend(undone.map(|(at, _)| *at));
        found
    }

    pub(super) fn means(&self, meaning: &Meaning) -> bool {
        self.meanings.contains(meaning)
    }

    /// Whether the sources have the word in some form, or as a part of a word.
    pub(super) fn knows(&self, word: &Word) -> bool {
        if is_korean(&word.folded) {
            let mut compared = word.stems.iter().filter(|stem| is_compared(stem));
            if compared.any(|stem| self.stems.contains(stem) || self.allowed.contains(stem)) {
                return true;
            }
            let part = |stem: &String| self.tokens.iter().any(|token| token.starts_with(stem) || token.ends_with(stem));
            let is_long = |stem: &&String| stem.chars().count() >= 3;
            let is_short = !is_compared(&word.folded);
            let mut compared = word.stems.iter().filter(|stem| is_compared(stem));
            return is_short || compared.any(part) || word.stems.iter().filter(is_long).any(|stem| self.squeezed.contains(stem));
        }
        if word.stems.iter().any(|stem| self.stems.contains(stem) || self.allowed.contains(stem)) {
            return true;
        }
        let name = word.folded.as_str();
        let is_part = |token: &String| token.starts_with(name) && self.has_rest(&token[name.len()..]) || token.ends_with(name);
        if name.len() >= LEAST_PART && (self.tokens.iter().any(is_part) || self.is_compound(name)) {
            return true;
        }
        if !is_stuttered(name) && self.tokens.iter().any(|token| is_derived(name, token)) {
            return true;
        }
        let agrees = |token: &String| token.chars().take(LOOSE).eq(name.chars().take(LOOSE));
        self.is_foreign() && (name.chars().count() < LOOSE || self.tokens.iter().any(agrees))
    }

    fn has_rest(&self, rest: &str) -> bool {
        rest.len() >= 3 && rest.chars().all(char::is_alphabetic)
    }

    /// Whether the word consists of two words of the sources: `breadboard` of `bread board`.
    fn is_compound(&self, name: &str) -> bool {
        let has = |part: &str| self.tokens.contains(part) || self.stems.contains(&stem(part));
        let cuts = name.char_indices().map(|(at, _)| at).filter(|at| *at >= 3 && name.len() - at >= 3);
        cuts.into_iter().any(|at| has(&name[..at]) && has(&name[at..]))
    }

    /// Whether the sources are mostly in a language other than English and Korean.
    pub(super) fn is_foreign(&self) -> bool {
        *self.is_foreign.get_or_init(|| is_foreign(self.tokens.iter().map(String::as_str)))
    }
}

/// Whether two words differ in their last letters only, as `photography` and `photographs` do.
fn is_derived(one: &str, other: &str) -> bool {
    let shared: usize = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    shared >= DERIVED && one.len() - shared <= MOST_ENDING && other.len() - shared <= MOST_ENDING
}

/// The clauses of a text.
pub(super) struct Clauses<'a> {
    words: &'a [Word],
    /// The number of the clause of each word.
    numbers: Vec<usize>,
    /// What each word says.
    said: Vec<Option<String>>,
}

impl<'a> Clauses<'a> {
    pub(super) fn of(text: &str, words: &'a [Word]) -> Self {
        let mut clause = 0;
        let mut numbers = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let joins = matches!(word.folded.as_str(), "and" | "but" | "or" | "while" | "whereas" | "그리고" | "하지만");
            let follows = at.checked_sub(1).is_some_and(|before| {
                let before = words[before].folded.as_str();
                is_korean(before) && before.ends_with(['고', '며'])
            });
            clause += usize::from(word.before >= Break::Comma || joins || follows);
            numbers.push(clause);
        }
        let said = words.iter().map(|word| said(&text[word.place.clone()], word)).collect();
        Self { words, numbers, said }
    }

    /// What the words say in the clause with the number at byte `at`. Words for sizes have one form each, which starts with `#`. A
    /// clause without any other word, as in `weighs 3 kg and costs 29 EUR`, is about what the clauses before it in the sentence are
    /// about.
    pub(super) fn around(&self, at: usize) -> BTreeSet<String> {
        let index = self.words.partition_point(|word| word.place.end <= at).min(self.words.len().saturating_sub(1));
        let Some(clause) = self.numbers.get(index) else { return BTreeSet::new() };
        let mut first = self.numbers.partition_point(|other| other < clause).max(index.saturating_sub(CLAUSE));
        let end = self.numbers.partition_point(|other| other <= clause).min(index + CLAUSE);
        let is_size = |word: &String| word.starts_with('#');
        let mut found: BTreeSet<String> = self.said[first..end].iter().flatten().cloned().collect();
        for _ in 0..CLAUSES_BEFORE {
            if first == 0 || self.words[first].before == Break::Sentence || !found.iter().all(is_size) {
                break;
            }
            let before = self.numbers.partition_point(|other| other < &self.numbers[first - 1]).max(first.saturating_sub(CLAUSE));
            found.extend(self.said[before..first].iter().flatten().filter(|word| !is_size(word)).cloned());
            first = before;
        }
        found
    }
}

fn said(original: &str, word: &Word) -> Option<String> {
    let bare = word.stems.iter().map(String::as_str).chain([word.folded.as_str()]);
    let mut bare = bare.chain(word.folded.strip_suffix(['는', '은', '이', '가']));
    let row = bare.find_map(|form| ATTRIBUTES.iter().position(|row| row.split(' ').any(|known| known == form)));
    if let Some(row) = row {
        return Some(format!("#{row}"));
    }
    // A model A and a model B are told apart by a letter.
    if original.chars().count() == 1 && original.starts_with(char::is_uppercase) {
        return Some(original.to_owned());
    }
    let is_unit = units::after(&word.folded, 0).is_some_and(|(_, end)| end == word.folded.len());
    let has_number = word.folded.contains(char::is_numeric) || is_unit;
    (!has_number && word.is_content).then(|| word.stems.last().cloned()).flatten()
}
