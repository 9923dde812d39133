//! A folder's settings for tokenizing a text: its maximum length and how its characters are normalised.
//!
//! Some keys of `tokenizer_config.json` override `tokenizer.json`, as in transformers, and `sentence_bert_config.json` overrides
//! both, as in sentence-transformers.
//!
//! | file | key | here |
//! |---|---|---|
//! | `tokenizer_config.json` | `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` | for tokenizers of BERT's class, override `tokenizer.json` |
//! | | `add_prefix_space` | for RoBERTa's class, overrides `tokenizer.json` |
//! | | `split_special_tokens` | special tokens in a text are plain text |
//! | | `model_max_length` | the limit, unless the file below has one |
//! | | `added_tokens_decoder` | must be in `tokenizer.json` |
//! | | `truncation_side` | `left` is refused |
//! | `sentence_bert_config.json` | `max_seq_length` | the limit |
//! | | `do_lower_case` | the text is lower-cased first |
//! | | `processor_kwargs`, `tokenizer_args` | like keys of `tokenizer_config.json`; others are refused |
//! | | the rest | refused if it changes a vector |

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer, TruncationDirection};

use super::error::EngineError;
use super::folder::{EncoderConfig, ModelFolder};

const TOKENIZER: &str = "tokenizer_config.json";

/// The names that the file of sentence-transformers has had, in the order in which they are tried.
pub(super) const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Classes that read the three keys of BERT.
const BERT_CLASSES: [&str; 10] =
    ["Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "LayoutLM", "Lxmert", "MobileBert", "RoFormer", "SqueezeBert"];

/// Classes that do not read `tokenizer.json`.
const CLASSES_WITHOUT_TOKENIZER_JSON: [&str; 3] = ["BertJapanese", "Bertweet", "Phobert"];

/// Arguments that change how files are found or computed, and never a vector.
const IGNORED_ARGUMENTS: [&str; 16] = [
    "trust_remote_code",
    "use_fast",
    "padding_side",
    "revision",
    "token",
    "cache_dir",
    "local_files_only",
    "subfolder",
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "use_safetensors",
    "low_cpu_mem_usage",
    "device_map",
    "add_pooling_layer",
    "use_cache",
];

pub(super) struct TokenizerSettings {
    /// The tokenizer's class, without the suffix `Tokenizer` and what follows.
    class: String,
    told: Option<usize>,
    lowercases: bool,
    keys: TokenizerConfig,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    // A float, because publishers write 1e30 for "no limit".
    model_max_length: Option<f64>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    split_special_tokens: Option<bool>,
    truncation_side: Option<String>,
    tokenizer_class: Option<String>,
    added_tokens_decoder: Option<Map<String, Value>>,
}

impl TokenizerSettings {
    /// Reads the settings for a model of this configuration.
    ///
    /// # Errors
    /// If a file asks for something unsupported.
    pub(super) fn read(folder: &mut ModelFolder, shape: &EncoderConfig) -> Result<Self, EngineError> {
        let mut sentence = Map::new();
        let mut file = SENTENCE_CONFIGS[0];
        for name in SENTENCE_CONFIGS {
            if let Some(found) = folder.read_json::<Map<String, Value>>(name)?.filter(|found| !found.is_empty()) {
                (sentence, file) = (found, name);
                break;
            }
        }
        let mut tokenizer: Map<String, Value> = folder.read_json(TOKENIZER)?.unwrap_or_default();
        let arguments = arguments(&sentence).map_err(|reason| EngineError::invalid(folder.join(file), reason))?;
        let told = match arguments.get("model_max_length").or_else(|| sentence.get("max_seq_length")) {
            None | Some(Value::Null) => None,
            Some(length) => Some(length.as_f64().filter(|length| *length >= 0.0).ok_or_else(|| {
                let reason =
                    format!("max_seq_length {length} is not a number of tokens; take the file from the model's publisher");
                EngineError::invalid(folder.join(file), reason)
            })? as usize),
        };
        let lowercases = sentence.get("do_lower_case") == Some(&Value::Bool(true));
        tokenizer.extend(arguments);
        let invalid = |reason: String| EngineError::invalid(folder.join(TOKENIZER), reason);
        let keys: TokenizerConfig = serde_json::from_value(Value::Object(tokenizer)).map_err(|e| {
            invalid(format!("cannot be read as a model's {TOKENIZER}: {e}; take the file from the model's publisher"))
        })?;
        let usual = match shape.model_type.as_str() {
            "roberta" => "Roberta",
            "xlm-roberta" => "XLMRoberta",
            _ => "Bert",
        };
        let class = keys.tokenizer_class.as_ref().or(shape.tokenizer_class.as_ref()).map_or(usual, String::as_str);
        let class = class.split_once("Tokenizer").map_or(class, |(class, _)| class).to_owned();
        if CLASSES_WITHOUT_TOKENIZER_JSON.contains(&class.as_str()) {
            return Err(invalid(format!(
                "tokenizer_class {class}Tokenizer does not read tokenizer.json, so its tokens would be different; use a model with a fast tokenizer"
            )));
        }
        Ok(Self { class, told, lowercases, keys })
    }

    /// The maximum length of a sequence, including special tokens, for a model with `table` positions.
    ///
    /// The limit of sentence-transformers overrides the tokenizer's, whether it is larger or smaller.
    pub(super) fn max_tokens(&self, folder: &mut ModelFolder, table: usize) -> usize {
        let limit = self.keys.model_max_length.map(|length| length as usize);
        if let (Some(told), Some(limit)) = (self.told, limit)
            && limit < told.min(table)
        {
            // The hash already covers both files. It must also differ from revisions of this program that used the smaller limit.
            folder.count("limit", b"max_seq_length over model_max_length");
        }
        table.min(self.told.or(limit).unwrap_or(usize::MAX))
    }

    /// Whether every token must have type 0.
    pub(super) fn has_types(&self) -> bool {
        BERT_CLASSES.contains(&self.class.as_str())
    }

    /// Applies the settings that override `tokenizer.json`. Returns what has changed, in a text that stays the same between
    /// versions because it is hashed.
    ///
    /// # Errors
    /// One sentence without its subject, `tokenizer.json`.
    pub(super) fn apply(&self, tokenizer: &mut Tokenizer) -> Result<String, String> {
        let mut changed = Vec::new();
        let left = tokenizer.get_truncation().is_some_and(|cut| matches!(cut.direction, TruncationDirection::Left));
        if self.keys.truncation_side.as_deref().map_or(left, |side| side == "left") {
            return Err("keeps the end of a text that is too long (truncation_side \"left\"), which is not supported; use a model that keeps the beginning".into());
        }
        for (id, token) in self.keys.added_tokens_decoder.iter().flatten() {
            let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
            if tokenizer.token_to_id(content).is_none() {
                return Err(format!(
                    "has no token {content:?}, which {TOKENIZER} adds as {id}; take both files from the model's publisher"
                ));
            }
        }
        if BERT_CLASSES.contains(&self.class.as_str())
            && let Some(NormalizerWrapper::BertNormalizer(found)) = tokenizer.get_normalizer()
        {
            let mut wanted = *found;
            wanted.lowercase = self.keys.do_lower_case.unwrap_or(true);
            wanted.strip_accents = self.keys.strip_accents;
            wanted.handle_chinese_chars = self.keys.tokenize_chinese_chars.unwrap_or(true);
            let told = |normalizer: &tokenizers::normalizers::BertNormalizer| {
                (normalizer.lowercase, normalizer.strip_accents, normalizer.handle_chinese_chars)
            };
            if told(&wanted) != told(found) {
                changed.push(format!("normalizer {:?}", told(&wanted)));
                tokenizer.with_normalizer(Some(wanted)).map_err(|e| format!("has a normalizer that cannot be changed: {e}"))?;
            }
        }
        let spaced = self.keys.add_prefix_space.unwrap_or(false);
        if self.class == "Roberta"
            && let Some(PreTokenizerWrapper::ByteLevel(found)) = tokenizer.get_pre_tokenizer()
            && found.add_prefix_space != spaced
        {
            let mut wanted = *found;
            wanted.add_prefix_space = spaced;
            changed.push(format!("add_prefix_space {spaced}"));
            tokenizer.with_pre_tokenizer(Some(wanted));
        }
        if self.lowercases && !has_lowercase(tokenizer.get_normalizer()) {
            let found = tokenizer.get_normalizer().cloned();
            let already = matches!(&found, Some(NormalizerWrapper::BertNormalizer(normalizer)) if normalizer.lowercase);
            if !already {
                let mut all = vec![NormalizerWrapper::Lowercase(Lowercase)];
                all.extend(found);
                let together = NormalizerWrapper::Sequence(Sequence::new(all));
                tokenizer.with_normalizer(Some(together)).map_err(|e| format!("has a normalizer that cannot be changed: {e}"))?;
                changed.push("lowercase".into());
            }
        }
        if self.keys.split_special_tokens == Some(true) {
            tokenizer.set_encode_special_tokens(true);
            changed.push("split_special_tokens".into());
        }
        Ok(changed.join(", "))
    }
}

fn has_lowercase(normalizer: Option<&NormalizerWrapper>) -> bool {
    match normalizer {
        Some(NormalizerWrapper::Lowercase(_)) => true,
        Some(NormalizerWrapper::Sequence(all)) => all.as_ref().iter().any(|one| matches!(one, NormalizerWrapper::Lowercase(_))),
        _ => false,
    }
}

/// The tokenizer arguments in the file of sentence-transformers.
///
/// # Errors
/// One sentence without its subject, the file, if it asks for something unsupported.
fn arguments(sentence: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let unsupported = |key: &str, value: &Value| {
        Err(format!("{key} {value} is not supported; use a model with the standard Transformer module, or remove the key"))
    };
    let object = |key: &str| sentence.get(key).and_then(Value::as_object).into_iter().flatten();
    for group in ["model_args", "model_kwargs", "config_args", "config_kwargs"] {
        let changes = |(key, value): &(&String, &Value)| !IGNORED_ARGUMENTS.contains(&key.as_str()) && !value.is_null();
        if let Some((key, value)) = object(group).find(changes) {
            return unsupported(&format!("{group}.{key}"), value);
        }
    }
    for key in ["tokenizer_name_or_path", "query_length", "document_length", "query_expansion"] {
        if let Some(value) = sentence.get(key).filter(|value| !value.is_null()) {
            return unsupported(key, value);
        }
    }
    let usual = [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")];
    for (key, usual) in usual {
        if let Some(value) = sentence.get(key).filter(|value| !value.is_null() && *value != usual) {
            return unsupported(key, value);
        }
    }
    for (kind, way) in object("modality_config") {
        if kind != "text" || way["method"] != "forward" || way["method_output_name"] != "last_hidden_state" {
            return unsupported(&format!("modality_config.{kind}"), way);
        }
    }
    for (kind, settings) in object("processing_kwargs") {
        let harmless = |key: &String| ["padding", "return_tensors"].contains(&key.as_str());
        if settings.as_object().is_none_or(|settings| !settings.keys().all(harmless)) {
            return unsupported(&format!("processing_kwargs.{kind}"), settings);
        }
    }
    const READ: [&str; 6] = [
        "model_max_length",
        "do_lower_case",
        "strip_accents",
        "tokenize_chinese_chars",
        "add_prefix_space",
        "split_special_tokens",
    ];
    let mut given = Map::new();
    for group in ["tokenizer_args", "processor_kwargs"] {
        for (key, value) in object(group) {
            match key.as_str() {
                key if READ.contains(&key) => drop(given.insert(key.to_owned(), value.clone())),
                key if IGNORED_ARGUMENTS.contains(&key) => {}
                key => return unsupported(&format!("{group}.{key}"), value),
            }
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_change_a_vector_is_read_or_named() {
        let given = |sentence: Value| arguments(sentence.as_object().unwrap());
        let usual = json!({
            "max_seq_length": 64, "do_lower_case": false, "transformer_task": "feature-extraction", "unpad_inputs": null,
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings", "model_kwargs": {"attn_implementation": "sdpa"}, "query_length": null,
        });
        assert_eq!(given(usual), Ok(Map::new()));
        let lengths = given(json!({"tokenizer_args": {"model_max_length": 12, "use_fast": true}})).unwrap();
        assert_eq!(Value::Object(lengths), json!({"model_max_length": 12}));
        for (sentence, named) in [
            (json!({"config_args": {"num_hidden_layers": 2}}), "config_args.num_hidden_layers"),
            (json!({"tokenizer_args": {"truncation_side": "left"}}), "tokenizer_args.truncation_side"),
            (json!({"tokenizer_name_or_path": "other"}), "tokenizer_name_or_path"),
            (json!({"transformer_task": "fill-mask"}), "transformer_task"),
            (json!({"modality_config": {"message": {}}}), "modality_config.message"),
            (json!({"processing_kwargs": {"text": {"max_length": 9}}}), "processing_kwargs.text"),
            (json!({"document_length": 9}), "document_length"),
        ] {
            assert!(given(sentence.clone()).unwrap_err().starts_with(named), "{sentence}");
        }
    }
}
