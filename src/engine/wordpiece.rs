//! A faster BERT tokenizer for plain words.
//!
//! The tokenizers library takes five passes over a text and maps every character through all of them, because normalising accents,
//! Han characters and the like may move characters. A word of printable ASCII moves nothing, so here it is lower-cased and looked
//! up directly. The text between such words goes to the library, in whole words, so that tokens and places are the same.

use std::collections::HashMap;
use std::ops::Range;

use tokenizers::models::ModelWrapper;
use tokenizers::{Model, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// The vocabulary of a tokenizer of the BERT family.
pub(super) struct WordPieceTokenizer {
    /// Tokens that start a word.
    first: HashMap<Box<[u8]>, u32>,
    /// Tokens that continue a word, without their continuation prefix.
    further: HashMap<Box<[u8]>, u32>,
    unknown: u32,
    lowercase: bool,
    /// A word with more bytes than this is unknown.
    longest: usize,
    /// Tokens that are matched before words are split. A text that contains one goes to the library.
    added: Vec<String>,
}

/// A token, and its place in the text.
pub(super) type Piece = (u32, Range<usize>);

impl WordPieceTokenizer {
    /// The vocabulary, if the tokenizer is of this family.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else { return None };
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else { return None };
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else { return None };
        let added = tokenizer.get_added_tokens_decoder();
        // A token that is matched in normalised text can be written in several ways.
        if !normalizer.clean_text || added.values().any(|token| token.normalized) {
            return None;
        }
        let (mut first, mut further) = (HashMap::new(), HashMap::new());
        let vocabulary = model.get_vocab();
        for (token, id) in &vocabulary {
            if let Some(rest) = token.strip_prefix(&*model.continuing_subword_prefix) {
                further.insert(rest.as_bytes().into(), *id);
            }
            first.insert(token.as_bytes().into(), *id);
        }
        Some(Self {
            first,
            further,
            unknown: *vocabulary.get(&model.unk_token)?,
            lowercase: normalizer.lowercase,
            longest: model.max_input_chars_per_word,
            added: added.into_values().map(|token| token.content).collect(),
        })
    }

    /// The tokens of the text, in order.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<Piece>, tokenizers::Error> {
        if self.added.iter().any(|token| text.contains(&**token)) {
            return by_library(tokenizer, text);
        }
        let odd_words = |range: Range<usize>, pieces: &mut Vec<Piece>| {
            let moved = |(id, place): Piece| (id, range.start + place.start..range.start + place.end);
            pieces.extend(by_library(tokenizer, &text[range.clone()])?.into_iter().map(moved));
            Ok::<_, tokenizers::Error>(())
        };
        let (mut pieces, mut lower) = (Vec::with_capacity(text.len() / 4), Vec::new());
        // The start of a run of words that are not plain. The library tokenizes the run at once.
        let mut odd = None;
        for word in words(text) {
            let bytes = &text.as_bytes()[word.clone()];
            if !bytes.iter().all(u8::is_ascii_graphic) {
                odd.get_or_insert(word.start);
                continue;
            }
            if let Some(start) = odd.take() {
                odd_words(start..word.start, &mut pieces)?;
            }
            lower.clear();
            lower.extend_from_slice(bytes);
            if self.lowercase {
                lower.make_ascii_lowercase();
            }
            self.split(&lower, word.start, &mut pieces);
        }
        if let Some(start) = odd {
            odd_words(start..text.len(), &mut pieces)?;
        }
        Ok(pieces)
    }

    /// Each punctuation character is a word of its own.
    fn split(&self, word: &[u8], start: usize, pieces: &mut Vec<Piece>) {
        let mut from = 0;
        while from < word.len() {
            let letters = word[from..].iter().take_while(|byte| !byte.is_ascii_punctuation()).count();
            let to = from + letters.max(1);
            self.look_up(&word[from..to], start + from, pieces);
            from = to;
        }
    }

    /// Takes the longest matching token repeatedly. If nothing matches, the whole word is unknown.
    fn look_up(&self, word: &[u8], start: usize, pieces: &mut Vec<Piece>) {
        let known = pieces.len();
        let mut from = 0;
        while from < word.len() {
            let tokens = if from == 0 { &self.first } else { &self.further };
            let longest = (from + 1..=word.len()).rev().find_map(|to| Some((*tokens.get(&word[from..to])?, to)));
            let Some((id, to)) = longest.filter(|_| word.len() <= self.longest) else {
                pieces.truncate(known);
                pieces.push((self.unknown, start..start + word.len()));
                return;
            };
            pieces.push((id, start + from..start + to));
            from = to;
        }
    }
}

/// The words between white space. Other control characters do not separate words: the tokenizer drops them, which joins the
/// characters around them.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let bytes = text.as_bytes();
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end + bytes[end..].iter().position(|byte| !is_space(byte))?;
        end = bytes[start..].iter().position(is_space).map_or(bytes.len(), |length| start + length);
        Some(start..end)
    })
}

/// The tokens of the text as the library computes them.
pub(super) fn by_library(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Piece>, tokenizers::Error> {
    let encoding = tokenizer.encode(text, false)?;
    let places = encoding.get_offsets().iter().map(|(from, to)| *from..*to);
    Ok(encoding.get_ids().iter().copied().zip(places).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "../../tests/fixtures/models/tiny-bert-classifier/tokenizer.json";

    static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
        let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)).unwrap();
        let cased = file.replace("\"lowercase\": true", "\"lowercase\": false");
        assert_ne!(file, cased);
        [file, cased].map(|file| Tokenizer::from_bytes(file).unwrap())
    });

    #[track_caller]
    fn assert_as_the_library(text: &str) {
        for tokenizer in &*TOKENIZERS {
            let words = WordPieceTokenizer::of(tokenizer).unwrap();
            assert_eq!(words.encode(tokenizer, text).unwrap(), by_library(tokenizer, text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn plain_words_give_the_tokens_of_the_library() {
        for text in
            ["", " \n", "Water falls, 12 times.", "wednesdayel tablehen", "the##and [x] $1", "questions\tmolino\r\nquickly"]
        {
            assert_as_the_library(text);
        }
        assert_as_the_library(&"a".repeat(100));
        assert_as_the_library(&"a".repeat(101));
    }

    #[test]
    fn a_tokenizer_of_another_family_has_no_shorter_way() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny-xlm-roberta/tokenizer.json");
        assert!(WordPieceTokenizer::of(&Tokenizer::from_file(file).unwrap()).is_none());
    }

    /// Text fragments that combine words, accents, scripts, control characters and names of special tokens.
    const PARTS: &str = "a|The|water|ing|Zz|12| |  |\n|\t|\r\n|\u{b}|\0|\u{1}|\u{7f}|\u{85}|\u{a0}|\u{3000}|\u{301}|\u{200d}|\u{fe0f}|é|É|ß|İ|\
                         水|물이|ちると|.|,|#|##|[|]|[CLS]|[MASK]|[PAD|“|—|$|~|😀|\u{fffd}|\u{ad}|\u{2028}|ﬁ|Σ";

    fn part() -> impl Strategy<Value = &'static str> {
        prop::sample::select(PARTS.split('|').collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn any_text_gives_the_tokens_of_the_library(parts in prop::collection::vec(part(), 0..16)) {
            assert_as_the_library(&parts.concat());
        }
    }
}
