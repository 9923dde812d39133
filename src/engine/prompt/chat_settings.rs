//! Reads a model folder's chat settings: the template, the names of special tokens, and the tokens that end an answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::definition::TokenizerDefinition;
use crate::error::EngineError;
use crate::folder::ModelFolder;

#[derive(Debug)]
pub(super) struct ChatSettings {
    pub(super) template: String,
    /// The special tokens that templates can refer to.
    pub(super) specials: BTreeMap<String, String>,
    /// The ids in `eos_token_id`.
    pub(super) ends: Vec<u32>,
    /// The token that starts every prompt, if the template does not write it.
    pub(super) begin: Option<u32>,
}

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";

/// Tokens that end a turn in the supported families. Some folders name only the token that ends a text.
const ENDS_OF_TURNS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>"];

impl ChatSettings {
    pub(super) fn read(folder: &mut ModelFolder) -> Result<Self, EngineError> {
        let tokenizer: Value = folder.read_json(TOKENIZER)?.unwrap_or_default();
        let generation: Option<Value> = folder.read_json(GENERATION)?;
        let ends = match generation {
            Some(generation) => ids(&generation["eos_token_id"]),
            None => ids(&folder.read_json::<Value>("config.json")?.unwrap_or_default()["eos_token_id"]),
        };
        let template = match folder.read_optional(TEMPLATE)? {
            Some(bytes) => String::from_utf8(bytes)
                .map_err(|e| EngineError::invalid(folder.join(TEMPLATE), format!("is not UTF-8: {e}; write it as UTF-8")))?,
            None => default_template(&tokenizer["chat_template"]).ok_or_else(|| {
                let reason = format!("has no default chat_template, and there is no {TEMPLATE} beside it; use a model that is trained to follow instructions");
                EngineError::invalid(folder.join(TOKENIZER), reason)
            })?,
        };
        Ok(Self { template, specials: specials(&tokenizer), ends, begin: None })
    }

    /// All ids that end an answer, those from `eos_token_id` first.
    pub(super) fn end_ids(&self, definition: &TokenizerDefinition, vocabulary: usize) -> Vec<u32> {
        let named = self.specials.get("eos_token").map(String::as_str).into_iter().chain(ENDS_OF_TURNS);
        let of_special = |name: &str| definition.added.iter().find(|token| token.content == name && token.special).map(|t| t.id);
        let mut ids = Vec::new();
        for id in self.ends.iter().copied().chain(named.filter_map(of_special)) {
            if (id as usize) < vocabulary && !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let one = value.as_u64().into_iter();
    let several = value.as_array().into_iter().flatten().filter_map(Value::as_u64);
    one.chain(several).filter_map(|id| u32::try_from(id).ok()).collect()
}

/// The only template, or the one named `default`.
fn default_template(value: &Value) -> Option<String> {
    let named = || value.as_array()?.iter().find(|entry| entry["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named).map(str::to_owned)
}

/// All `…_token` entries of the settings. The value is a string, or an object with a `content`.
fn specials(tokenizer: &Value) -> BTreeMap<String, String> {
    let entries = tokenizer.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    entries
        .filter_map(|(name, value)| Some((name.clone(), value.as_str().or_else(|| value["content"].as_str())?.to_owned())))
        .collect()
}
