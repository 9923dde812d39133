//! Selects the files of a model that are used here. A repository often has several copies of the weights in other formats.

use anyhow::{Result, bail};

use crate::tokenizer_settings::SENTENCE_CONFIGS;

/// Small files that influence the model's answers, and its licence. All that exist are taken.
const SMALL_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// The index of weights in several files.
const WEIGHT_INDEX: &str = "model.safetensors.index.json";

/// Weights in one file, of a model or of an adapter.
const WEIGHT_FILES: &[&str] = &["model.safetensors", "adapter_model.safetensors"];

/// The names to download, in order; with `gguf`, the GGUF file whose name matches the pattern instead.
///
/// # Errors
/// If `what` has no usable weights.
pub(super) fn select_files<'a>(what: &str, names: impl Iterator<Item = &'a str>, gguf: Option<&str>) -> Result<Vec<String>> {
    let mut names: Vec<&str> = names.filter(|name| is_inside(name)).collect();
    names.sort_unstable();
    if let Some(pattern) = gguf {
        return quantized(what, &names, pattern);
    }
    let is_weights = |name: &str| {
        let (place, file) = placed(name);
        if !place.is_none_or(|place| place.ends_with("_Transformer")) {
            return false;
        }
        let index = place.map_or(WEIGHT_INDEX.to_owned(), |place| format!("{place}/{WEIGHT_INDEX}"));
        let has_index = names.contains(&index.as_str());
        let part = file.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
        WEIGHT_FILES.contains(&file) && !(has_index && file == WEIGHT_FILES[0])
            || has_index && (file == WEIGHT_INDEX || part.is_some())
    };
    let is_small = |name: &str| match placed(name) {
        (None, file) => SMALL_FILES.contains(&file) || SENTENCE_CONFIGS.contains(&file),
        (Some(place), file) if place.ends_with("_Transformer") => SMALL_FILES.contains(&file) || SENTENCE_CONFIGS.contains(&file),
        (Some(_), file) => file == "config.json",
    };
    let weights = names.iter().filter(|name| is_weights(name)).count();
    if weights == 0 {
        let others = names.iter().any(|name| name.ends_with(".gguf"));
        let fix = if others { "it has GGUF files: choose one with --gguf" } else { "choose a model that has them" };
        bail!("{what} has no weights as model.safetensors; {fix}");
    }
    Ok(names.iter().filter(|name| is_weights(name) || is_small(name)).map(|name| (*name).to_owned()).collect())
}

fn quantized(what: &str, names: &[&str], pattern: &str) -> Result<Vec<String>> {
    let all: Vec<&str> = names.iter().copied().filter(|name| name.to_ascii_lowercase().ends_with(".gguf")).collect();
    let found: Vec<String> = all.iter().filter(|name| fits(name, pattern)).map(|name| (*name).to_owned()).collect();
    if let [_] = found.as_slice() {
        return Ok(found);
    }
    let listed = |names: Vec<&str>| names.join(", ");
    match found.is_empty() {
        true if all.is_empty() => bail!("{what} has no GGUF file; leave --gguf out, or choose a model that has one"),
        true => bail!("no GGUF file of {what} matches {pattern:?}; there are {}", listed(all)),
        false => {
            let found = found.iter().map(String::as_str).collect();
            bail!("several GGUF files of {what} match {pattern:?}: {}; choose one", listed(found))
        }
    }
}

/// Whether the name matches the pattern. `*` matches anything; a pattern without it matches any part of the name. Case does not
/// matter.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return name.contains(&pattern) };
    let Some(mut rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The module folder of a file, as sentence-transformers numbers them (`1_Pooling`), and the file's own name. Files of other
/// folders are not used; they keep their whole path as name.
fn placed(name: &str) -> (Option<&str>, &str) {
    let numbered = |place: &&str| {
        let (number, kind) = place.split_once('_').unwrap_or((place, ""));
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !kind.is_empty() && !kind.contains('/')
    };
    match name.split_once('/').filter(|(place, _)| numbered(place)) {
        Some((place, file)) => (Some(place), file),
        None => (None, name),
    }
}

/// Whether a name from outside stays inside the folder.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && !name.contains('\\') && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], gguf: Option<&str>) -> Result<Vec<String>, String> {
        select_files("owner/model", names.iter().copied(), gguf).map_err(|e| e.to_string())
    }

    fn names(names: &[&str]) -> Result<Vec<String>, String> {
        Ok(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn only_what_is_used_is_taken() {
        let all = ["config.json", "model.safetensors", "pytorch_model.bin", "README.md", "onnx/model.onnx", "tokenizer.json"];
        assert_eq!(of(&all, None), names(&["config.json", "model.safetensors", "tokenizer.json"]));
        let shards = [
            "model-00002-of-00002.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "model.safetensors",
            "consolidated.safetensors",
            "1_Pooling/config.json",
        ];
        let expected = [
            "1_Pooling/config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(of(&shards, None), names(&expected));
        assert_eq!(of(&["adapter_model.safetensors", "adapter_config.json"], None).unwrap().len(), 2);
    }

    #[test]
    fn folders_of_modules_are_taken_wherever_they_lie() {
        let all = [
            "modules.json",
            "config_sentence_transformers.json",
            "sentence_xlm-roberta_config.json",
            "2_Pooling/config.json",
            "0_Transformer/config.json",
            "0_Transformer/tokenizer.json",
            "0_Transformer/sentence_bert_config.json",
            "0_Transformer/model.safetensors",
            "0_Transformer/pytorch_model.bin",
            "onnx/config.json",
            "2_Dense/model.safetensors",
        ];
        let taken = of(&all, None).unwrap();
        let left: Vec<&&str> = all.iter().filter(|name| !taken.contains(&(**name).to_owned())).collect();
        assert_eq!(left, [&"0_Transformer/pytorch_model.bin", &"onnx/config.json", &"2_Dense/model.safetensors"]);
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_not_taken() {
        let all = ["../config.json", "/etc/model.safetensors", "model.safetensors", "a/../x.gguf", "..\\x.gguf"];
        assert_eq!(of(&all, None), names(&["model.safetensors"]));
        assert!(of(&all, Some("x")).unwrap_err().contains("no GGUF file"));
    }

    #[test]
    fn a_pattern_names_one_gguf_file() {
        let all = ["m-q4_k_m.gguf", "m-q8_0.gguf", "config.json"];
        assert_eq!(of(&all, Some("Q8_0")), names(&["m-q8_0.gguf"]));
        assert_eq!(of(&all, Some("m-*_m.gguf")), names(&["m-q4_k_m.gguf"]));
        assert!(
            of(&all, Some("q*")).unwrap_err().contains("matches \"q*\"; there are m-q4_k_m.gguf, m-q8_0.gguf"),
            "starts with q"
        );
        assert!(of(&all, Some("*")).unwrap_err().contains("several GGUF files"));
        assert!(of(&all, None).unwrap_err().contains("choose one with --gguf"));
        assert!(of(&["config.json"], None).unwrap_err().contains("choose a model that has them"));
    }
}
