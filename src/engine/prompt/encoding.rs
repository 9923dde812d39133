//! Encodes text to token ids. The caller decides which parts are control tokens.

use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString};
use tokenizers::{Model, Normalizer, PreTokenizer, Tokenizer};

use super::added_tokens::FoundToken;

/// The ids of `text`, in which `found` are already tokens. The rest is encoded by `plain`, which has no added tokens, with the same
/// steps as in the tokenizers library, so that each piece knows whether it starts the text.
pub(super) fn encode(plain: &Tokenizer, text: &str, found: &[FoundToken]) -> Result<Vec<u32>, tokenizers::Error> {
    let mut pieces = PreTokenizedString::from(text);
    pieces.split(|_, whole| {
        let mut parts = Vec::with_capacity(2 * found.len() + 1);
        let mut part = |from: usize, to: usize, id: Option<u32>| {
            if from == to {
                return Ok(());
            }
            let slice = whole
                .slice(tokenizers::tokenizer::normalizer::Range::Original(from..to))
                .ok_or_else(|| format!("bytes {from} to {to} are not whole characters"))?;
            let token = id.map(|id| vec![tokenizers::Token::new(id, slice.get().to_owned(), (0, to - from))]);
            parts.push((slice, token));
            Ok::<_, tokenizers::Error>(())
        };
        let mut read = 0;
        for FoundToken { id, range } in found {
            part(read, range.start, None)?;
            part(range.start, range.end, Some(*id))?;
            read = range.end;
        }
        part(read, text.len(), None)?;
        Ok(parts)
    })?;
    if let Some(normalizer) = plain.get_normalizer() {
        pieces.normalize(|piece| normalizer.normalize(piece))?;
    }
    if let Some(pre_tokenizer) = plain.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    pieces.tokenize(|piece| plain.get_model().tokenize(piece.get()))?;
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(splits.iter().filter_map(|split| split.2.as_ref()).flatten().map(|token| token.id).collect())
}

/// The ids of `text` after a control token.
pub(super) fn encode_after(plain: &Tokenizer, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
    let before = FoundToken { id: u32::MAX, range: 0..1 };
    let ids = encode(plain, &format!("\n{text}"), std::slice::from_ref(&before))?;
    Ok(ids[1..].to_vec())
}
