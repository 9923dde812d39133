//! Converts the vocabulary and the chat template of a GGUF file to the form of `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};

use candle_core::quantized::gguf_file::Value as Field;
use serde_json::{Map, Value, json};

use super::chat_settings::ChatSettings;

/// The metadata of a GGUF file.
pub(super) struct GgufMetadata<'a>(pub(super) &'a HashMap<String, Field>);

/// Values of `tokenizer.ggml.token_type`.
mod kind {
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
}

/// A token with its type.
struct GgufToken<'a> {
    id: usize,
    text: &'a str,
    kind: i64,
}

impl GgufMetadata<'_> {
    /// The content of an equivalent `tokenizer.json`.
    ///
    /// # Errors
    /// One sentence without its subject, the file.
    pub(super) fn definition(&self) -> Result<Value, String> {
        let tokens = self.tokens()?;
        let listed = |token: &&GgufToken<'_>| ![kind::CONTROL, kind::USER_DEFINED, kind::UNUSED].contains(&token.kind);
        let vocabulary: Map<String, Value> =
            tokens.iter().filter(listed).map(|token| (token.text.to_owned(), token.id.into())).collect();
        let added: Vec<Value> = tokens
            .iter()
            .filter(|token| [kind::CONTROL, kind::USER_DEFINED].contains(&token.kind))
            .map(|token| json!({"id": token.id, "content": token.text, "special": token.kind == kind::CONTROL}))
            .collect();
        let parts = match self.text("tokenizer.ggml.model")? {
            "gpt2" => self.byte_level(vocabulary)?,
            "llama" => self.sentence(vocabulary, &tokens)?,
            other => {
                return Err(format!(
                    "has a vocabulary of kind {other:?}, and only \"gpt2\" and \"llama\" are supported; use the Hugging Face folder"
                ));
            }
        };
        let mut file = json!({"version": "1.0", "added_tokens": added});
        for (name, part) in ["normalizer", "pre_tokenizer", "decoder", "model"].into_iter().zip(parts) {
            file[name] = part;
        }
        Ok(file)
    }

    /// The template and the special tokens.
    ///
    /// # Errors
    /// One sentence without its subject, the file.
    pub(super) fn settings(&self) -> Result<ChatSettings, String> {
        let template = self.text("tokenizer.chat_template").map_err(|_| {
            "has no chat template (tokenizer.chat_template); use a model that is trained to follow instructions".to_owned()
        })?;
        let tokens = self.tokens()?;
        let id = |name: &str| Some(self.0.get(&format!("tokenizer.ggml.{name}_token_id"))?.to_u64().ok()? as u32);
        let names = [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")];
        let special = |(name, called): (&str, &str)| Some((called.to_owned(), tokens.get(id(name)? as usize)?.text.to_owned()));
        let specials: BTreeMap<String, String> = names.into_iter().filter_map(special).collect();
        let begins = self.0.get("tokenizer.ggml.add_bos_token").is_some_and(|field| field.to_bool().unwrap_or(false));
        Ok(ChatSettings {
            template: template.to_owned(),
            specials,
            ends: ["eos", "eot", "eom"].into_iter().filter_map(id).collect(),
            begin: id("bos").filter(|_| begins),
        })
    }

    fn tokens(&self) -> Result<Vec<GgufToken<'_>>, String> {
        let texts = self.list("tokenizer.ggml.tokens")?;
        let kinds = self.list("tokenizer.ggml.token_type").unwrap_or_default();
        texts
            .iter()
            .enumerate()
            .map(|(id, text)| {
                let text =
                    text.to_string().map_err(|_| format!("has a token {id} that is not a text; convert the model again"))?;
                Ok(GgufToken { id, text, kind: kinds.get(id).and_then(integer).unwrap_or(1) })
            })
            .collect()
    }

    /// The normalizer, pre-tokenizer, decoder and model of a byte-level vocabulary (GPT-2).
    fn byte_level(&self, vocabulary: Map<String, Value>) -> Result<[Value; 4], String> {
        let merges: Vec<&str> =
            self.list("tokenizer.ggml.merges")?.iter().filter_map(|merge| Some(merge.to_string().ok()?.as_str())).collect();
        let named = self.text("tokenizer.ggml.pre").unwrap_or("default");
        let Some(cut) = WordSplitRules::named(named) else {
            return Err(format!(
                "splits text into words by the rules {named:?} (tokenizer.ggml.pre), which are not supported; use the Hugging Face folder"
            ));
        };
        let splits = cut
            .patterns
            .iter()
            .map(|pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}));
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let normalizer = if cut.composes { json!({"type": "NFC"}) } else { Value::Null };
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": cut.takes_whole_words, "vocab": vocabulary, "merges": merges,
        });
        let pre_tokenizers: Vec<Value> = splits.chain([bytes.clone()]).collect();
        Ok([normalizer, json!({"type": "Sequence", "pretokenizers": pre_tokenizers}), bytes, model])
    }

    /// The normalizer, pre-tokenizer, decoder and model of a sentencepiece vocabulary.
    fn sentence(&self, vocabulary: Map<String, Value>, tokens: &[GgufToken<'_>]) -> Result<[Value; 4], String> {
        let scores = self.list("tokenizer.ggml.scores")?;
        let prefix = self.0.get("tokenizer.ggml.add_space_prefix").is_none_or(|field| field.to_bool().unwrap_or(true));
        let mut merges = Vec::new();
        for token in tokens.iter().filter(|token| vocabulary.contains_key(token.text)) {
            let score = scores.get(token.id).and_then(|score| score.to_f32().ok()).unwrap_or(0.0);
            for (cut, _) in token.text.char_indices().skip(1) {
                let (left, right) = token.text.split_at(cut);
                if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                    merges.push((score, left, right));
                }
            }
        }
        // A merge into a token with a higher score is applied earlier.
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (b.1.len(), b.2.len()).cmp(&(a.1.len(), a.2.len()))));
        let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let first = prefix.then(|| json!({"type": "Prepend", "prepend": "▁"}));
        let normalizers: Vec<Value> = first.into_iter().chain([space]).collect();
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let unknown = tokens.iter().find(|token| token.kind == kind::UNKNOWN).map(|token| token.text);
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        });
        let sequence = |list: &str, members: Vec<Value>| json!({"type": "Sequence", list: members});
        Ok([sequence("normalizers", normalizers), Value::Null, sequence("decoders", decoders), model])
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        self.0.get(key).and_then(|field| field.to_string().ok()).map(String::as_str).ok_or_else(|| lacks(key))
    }

    fn list(&self, key: &str) -> Result<&[Field], String> {
        self.0.get(key).and_then(|field| field.to_vec().ok()).map(Vec::as_slice).ok_or_else(|| lacks(key))
    }
}

fn lacks(key: &str) -> String {
    format!("has no {key}; convert the model again with its tokenizer, or use the Hugging Face folder")
}

fn integer(field: &Field) -> Option<i64> {
    match field {
        Field::I32(value) => Some((*value).into()),
        field => field.to_u64().ok().and_then(|value| value.try_into().ok()),
    }
}

/// How a byte-level vocabulary splits text into words. Merges stay within a word.
struct WordSplitRules {
    patterns: &'static [&'static str],
    /// Whether characters are composed (NFC) first.
    composes: bool,
    /// Whether a word that is a token is taken without applying merges.
    takes_whole_words: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl WordSplitRules {
    fn named(name: &str) -> Option<Self> {
        let (patterns, composes, takes_whole_words): (&[&str], bool, bool) = match name {
            "gpt-2" => (&[GPT2], false, false),
            "qwen2" | "deepseek-r1-qwen" => (&[QWEN2], true, false),
            "llama-bpe" | "llama3" | "llama-v3" => (&[LLAMA3], false, true),
            "smollm" => (&[r"\p{N}", GPT2], false, false),
            "tekken" => (&[TEKKEN], false, true),
            "default" => (&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false, false),
            _ => return None,
        };
        Some(Self { patterns, composes, takes_whole_words })
    }
}
