//! Splits `tokenizer.json` into the vocabulary and the added tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::added_tokens::{AddedToken, AddedTokens};
use super::token_bytes::{ByteEncoding, TokenBytes};

pub(super) struct TokenizerDefinition {
    /// The tokenizer without its added tokens, so that no text can become one.
    pub(super) plain: Arc<Tokenizer>,
    /// The same for text in the middle of a sentence, if `plain` would put a space before it.
    pub(super) continuing: Option<Arc<Tokenizer>>,
    pub(super) added: AddedTokens,
    pub(super) pieces: TokenBytes,
    /// Whether decoding removes the space that encoding puts first.
    pub(super) drops_first_space: bool,
}

impl TokenizerDefinition {
    /// # Errors
    /// One sentence without its subject, the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let malformed = |e: serde_json::Error| format!("is not a tokenizer: {e}; take the file from the model's publisher");
        Self::new(serde_json::from_slice(bytes).map_err(malformed)?)
    }

    /// Takes the JSON of `tokenizer.json`.
    ///
    /// # Errors
    /// One sentence without its subject, the file.
    pub(super) fn new(mut file: Value) -> Result<Self, String> {
        let publisher = "take the file from the model's publisher";
        let malformed = |e: &dyn std::fmt::Display| format!("is not a tokenizer: {e}; {publisher}");
        let added: Vec<AddedToken> = serde_json::from_value(file["added_tokens"].take()).map_err(|e| malformed(&e))?;
        let kind = file["model"]["type"].as_str().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(format!("has a vocabulary of type {kind}, and generators need BPE; use a model with a BPE tokenizer"));
        }
        let spelling = spelling(&file)?;
        let drops_first_space = mentions(&file["decoder"], "Strip")
            || (mentions(&file["decoder"], "Metaspace") && file["decoder"]["prepend_scheme"] != "never");
        remove(&mut file["model"], &added);
        let vocabulary: BTreeMap<String, u32> =
            serde_json::from_value(file["model"]["vocab"].clone()).map_err(|e| malformed(&e))?;
        // The template adds special tokens, and the caller applies limits.
        for part in ["truncation", "padding", "post_processor"] {
            file[part] = Value::Null;
        }
        file["added_tokens"] = json!([]);
        let build = |file: &Value| Tokenizer::from_bytes(file.to_string()).map(Arc::new).map_err(|e| malformed(&e));
        let plain = build(&file)?;
        let continuing = if without_first_space(&mut file) { Some(build(&file)?) } else { None };
        let added = AddedTokens::new(added);
        let pieces = TokenBytes::new(&vocabulary, &added, spelling);
        Ok(Self { plain, continuing, added, pieces, drops_first_space })
    }
}

fn spelling(file: &Value) -> Result<ByteEncoding, String> {
    if mentions(&file["decoder"], "ByteLevel") || mentions(&file["pre_tokenizer"], "ByteLevel") {
        Ok(ByteEncoding::ByteLevel)
    } else if mentions(&file["decoder"], "ByteFallback") || mentions(&file["decoder"], "Metaspace") {
        Ok(ByteEncoding::SentencePiece)
    } else {
        Err("does not say how its tokens spell bytes; use a tokenizer with a byte-level or sentencepiece decoder".into())
    }
}

/// Whether `part`, or one of its members if it is a sequence, is of type `kind`.
fn mentions(part: &Value, kind: &str) -> bool {
    let members = ["decoders", "pretokenizers", "normalizers"].iter().filter_map(|name| part[name].as_array()).flatten();
    part["type"] == kind || members.into_iter().any(|member| mentions(member, kind))
}

/// Removes the added tokens from the vocabulary, where some publishers list them again, and the merges that lead to them.
///
/// The unknown token stays, because the model needs it. A word that is only spelled like an added token stays too: in a byte-level
/// vocabulary, `§` is one byte.
fn remove(model: &mut Value, added: &[AddedToken]) {
    let unknown = model["unk_token"].as_str().map(str::to_owned);
    let again = |token: &&AddedToken| model["vocab"][&token.content] == token.id && Some(&token.content) != unknown.as_ref();
    let names: BTreeSet<&str> = added.iter().filter(again).map(|token| &*token.content).collect();
    if let Some(vocabulary) = model["vocab"].as_object_mut() {
        vocabulary.retain(|name, _| !names.contains(&**name));
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            let merged = match merge {
                Value::String(pair) => pair.replacen(' ', "", 1),
                pair => [&pair[0], &pair[1]].into_iter().filter_map(Value::as_str).collect(),
            };
            !names.contains(&*merged)
        });
    }
}

/// Removes what puts a space before the text. Returns false if there is nothing of the kind.
fn without_first_space(file: &mut Value) -> bool {
    fn clean(part: &mut Value) -> bool {
        let mut changed = false;
        for list in ["pretokenizers", "normalizers"] {
            let Some(members) = part.get_mut(list).and_then(Value::as_array_mut) else { continue };
            let before = members.len();
            members.retain(|member| member["type"] != "Prepend");
            changed |= members.len() < before;
            for member in members {
                changed |= clean(member);
            }
        }
        if part["type"] == "Prepend" {
            *part = Value::Null;
            return true;
        }
        if part["type"] == "Metaspace" && part["prepend_scheme"] != "never" {
            part["prepend_scheme"] = "never".into();
            if let Some(settings) = part.as_object_mut() {
                settings.remove("add_prefix_space");
            }
            return true;
        }
        if part["type"] == "ByteLevel" && part["add_prefix_space"] == true {
            part["add_prefix_space"] = false.into();
            return true;
        }
        changed
    }
    let normalizer = clean(&mut file["normalizer"]);
    clean(&mut file["pre_tokenizer"]) || normalizer
}
