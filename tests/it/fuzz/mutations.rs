//! Inputs made of valid ones: bits flipped, parts removed and repeated, numbers and lengths replaced by extreme ones.

use std::fmt;
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

/// What a reader is given.
#[derive(Clone)]
pub struct Input {
    /// Which of the seeds it was made of.
    pub subject: String,
    /// What is read.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.bytes[..self.bytes.len().min(400)];
        write!(f, "{} bytes of {}: {}", self.bytes.len(), self.subject, start.escape_ascii())
    }
}

/// A valid input, and the part of it that is worth damaging.
#[derive(Debug, Clone)]
pub struct Seed {
    subject: String,
    bytes: Vec<u8>,
    part: Range<usize>,
}

impl Seed {
    /// A seed to be damaged anywhere.
    pub fn new(subject: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { subject: subject.into(), part: 0..bytes.len(), bytes }
    }

    /// The same, to be damaged in that part.
    pub fn within(self, part: Range<usize>) -> Self {
        let end = part.end.min(self.bytes.len());
        Self { part: part.start.min(end)..end, ..self }
    }
}

/// One change of bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    CutOff(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, Vec<u8>),
    /// A number over what is there.
    Overwrite(Index, Vec<u8>),
}

/// Numbers at which lengths, counts and offsets go wrong.
fn extreme() -> impl Strategy<Value = u64> {
    let bits = (0_u32..64, -1_i64..=1).prop_map(|(bit, off)| (1_u64 << bit).wrapping_add_signed(off));
    prop_oneof![Just(0), Just(u64::MAX), Just(i64::MAX as u64), bits, 0_u64..300]
}

/// The number as files have it: of one, two, four or eight bytes in either order, or of as many as it needs by seven bits.
fn spelled() -> impl Strategy<Value = Vec<u8>> {
    (extreme(), prop::sample::select(vec![1_usize, 2, 4, 8]), 0..3).prop_map(|(number, width, kind)| match kind {
        0 => number.to_le_bytes()[..width].to_vec(),
        1 => number.to_be_bytes()[8 - width..].to_vec(),
        _ => varint(number),
    })
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn mutation(words: &'static [&'static str]) -> impl Strategy<Value = Mutation> {
    let inserted = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        spelled(),
        prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        (any::<u8>(), 1_usize..2_000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop_oneof![
        2 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => any::<Index>().prop_map(Mutation::CutOff),
        1 => (any::<Index>(), 1_usize..200).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (any::<Index>(), 1_usize..200).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        2 => (any::<Index>(), inserted).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        4 => (any::<Index>(), spelled()).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, part: &Range<usize>) {
        let part = part.start.min(bytes.len())..part.end.min(bytes.len());
        if part.is_empty() {
            return;
        }
        let place = |at: &Index| part.start + at.index(part.len());
        match self {
            Self::Flip(at, bit) => bytes[place(at)] ^= 1 << bit,
            Self::Set(at, byte) => bytes[place(at)] = *byte,
            Self::CutOff(at) => bytes.truncate(place(at)),
            Self::Remove(at, count) => drop(bytes.drain(place(at)..(place(at) + count).min(bytes.len()))),
            Self::Repeat(at, count) => {
                let again = bytes[place(at)..(place(at) + count).min(bytes.len())].to_vec();
                let at = place(at);
                bytes.splice(at..at, again);
            }
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Overwrite(at, number) => {
                let (at, length) = (place(at), bytes.len());
                bytes.splice(at..(at + number.len()).min(length), number.iter().copied());
            }
        }
    }
}

/// Seeds with a few changes each. Some inserts are of `words`, at least one of which is needed.
pub fn damaged(seeds: Vec<Seed>, words: &'static [&'static str]) -> impl Strategy<Value = Input> {
    (prop::sample::select(seeds), prop::collection::vec(mutation(words), 1..5)).prop_map(|(seed, mutations)| {
        let Seed { subject, mut bytes, part } = seed;
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes, &part));
        Input { subject, bytes }
    })
}

/// One change of a JSON document. The index chooses among all values in it.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, Value),
    Remove(Index),
    Rename(Index, String),
    /// Puts the value into so many arrays.
    Bury(Index, usize),
    /// Puts one value in the place of another.
    Copy(Index, Index),
    /// Damages a text.
    Spoil(Index, Mutation),
}

/// Values that a reader may not expect.
fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        extreme().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            json!(0.1),
            json!(-1),
            json!(1e308),
            json!(5e-324),
            json!(null),
            json!(true),
            json!([]),
            json!({})
        ]),
        prop::sample::select(vec!["", "\0", "\u{feff}", "-1", "1e999", "../../x", "/", "{{", "(a+)+$", "2025-02-30", "NaN"])
            .prop_map(Value::from),
        (1_usize..20_000).prop_map(|count| Value::from("a".repeat(count))),
        (1_usize..300).prop_map(|count| Value::from(vec![json!(1); count])),
    ]
}

fn edit(keys: &'static [&'static str]) -> impl Strategy<Value = Edit> {
    let name = prop_oneof![prop::sample::select(keys).prop_map(str::to_owned), ".{0,4}"];
    prop_oneof![
        4 => (any::<Index>(), odd_value()).prop_map(|(at, value)| Edit::Replace(at, value)),
        1 => any::<Index>().prop_map(Edit::Remove),
        2 => (any::<Index>(), name).prop_map(|(at, name)| Edit::Rename(at, name)),
        1 => (any::<Index>(), 1_usize..150).prop_map(|(at, depth)| Edit::Bury(at, depth)),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Copy(from, to)),
        2 => (any::<Index>(), mutation(keys)).prop_map(|(at, mutation)| Edit::Spoil(at, mutation)),
    ]
}

impl Edit {
    fn apply(&self, document: &mut Value) {
        let places = places(document);
        let at = |index: &Index| places[index.index(places.len())].clone();
        match self {
            Self::Replace(to, value) => set(document, &at(to), |_| value.clone()),
            Self::Remove(index) => change_parent(document, &at(index), |fields, key| drop(fields.remove(key))),
            Self::Rename(index, name) => change_parent(document, &at(index), |fields, key| {
                let value = fields.remove(key).unwrap_or_default();
                fields.insert(name.clone(), value);
            }),
            Self::Bury(index, depth) => set(document, &at(index), |value| (0..*depth).fold(value, |inner, _| json!([inner]))),
            Self::Copy(from, to) => {
                let value = document.pointer(&at(from)).cloned().unwrap_or_default();
                set(document, &at(to), |_| value);
            }
            Self::Spoil(index, mutation) => set(document, &at(index), |value| match value {
                Value::String(text) => {
                    let mut bytes = text.into_bytes();
                    let part = 0..bytes.len();
                    mutation.apply(&mut bytes, &part);
                    Value::from(String::from_utf8_lossy(&bytes).into_owned())
                }
                other => other,
            }),
        }
    }
}

fn set(document: &mut Value, place: &str, change: impl FnOnce(Value) -> Value) {
    if let Some(value) = document.pointer_mut(place) {
        *value = change(value.take());
    }
}

fn change_parent(document: &mut Value, place: &str, change: impl FnOnce(&mut Map<String, Value>, &str)) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    if let Some(Value::Object(fields)) = document.pointer_mut(parent) {
        change(fields, &key.replace("~1", "/").replace("~0", "~"));
    }
}

/// The pointers of all values of a document, itself first.
fn places(document: &Value) -> Vec<String> {
    /// More are not told apart: vocabularies of tokenizers have thousands.
    const MOST: usize = 4_000;
    let mut found = vec![String::new()];
    let mut at = 0;
    while at < found.len() && found.len() < MOST {
        let place = found[at].clone();
        match document.pointer(&place) {
            Some(Value::Object(fields)) => {
                found.extend(fields.keys().map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))));
            }
            Some(Value::Array(items)) => found.extend((0..items.len()).map(|index| format!("{place}/{index}"))),
            _ => {}
        }
        at += 1;
    }
    found
}

/// Documents with a few changes each. Some fields are renamed to `keys`, at least one of which is needed.
pub fn edited(documents: Vec<(String, Value)>, keys: &'static [&'static str]) -> impl Strategy<Value = (String, Value)> {
    (prop::sample::select(documents), prop::collection::vec(edit(keys), 1..5)).prop_map(|((subject, mut document), edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut document));
        (subject, document)
    })
}

/// [`edited`] documents as text.
pub fn edited_text(documents: Vec<(String, Value)>, keys: &'static [&'static str]) -> impl Strategy<Value = Input> {
    edited(documents, keys).prop_map(|(subject, document)| Input { subject, bytes: document.to_string().into_bytes() })
}
