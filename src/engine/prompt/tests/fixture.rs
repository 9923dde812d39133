//! A small tokenizer like Qwen's, and conversations.

use std::path::Path;

use serde_json::{Value, json};

use crate::folder::ModelFolder;
use crate::prompt::{ChatTokenizer, TokenLimits};
use crate::request::{Message, Role};

pub(super) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// GPT-2's alphabet in the order of bytes, computed like in OpenAI's code.
pub(super) fn alphabet() -> Vec<char> {
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}

pub(super) const MERGES: [(&str, &str); 16] = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("Ġ", "a"),
    ("e", "r"),
    ("{", "\""),
    ("\"", ":"),
    ("\":", "\""),
    ("\"", ","),
    ("\",", "\""),
    ("\"", "}"),
    ("1", "2"),
    ("Ġ", "Ġ"),
    ("Ã", "©"),
    ("ê", "°"),
    ("n", "u"),
];

/// The content of `tokenizer.json`.
pub(super) fn tokenizer() -> Value {
    let letters = alphabet().into_iter().map(String::from);
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let vocabulary: serde_json::Map<String, Value> =
        letters.chain(merged).enumerate().map(|(id, token)| (token, id.into())).collect();
    let first = vocabulary.len();
    let added: Vec<Value> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "[INST]", "[/INST]", "§", "endofturn"]
            .iter()
            .enumerate()
            .map(|(index, content)| {
                json!({
                    "id": first + index, "content": content, "special": !content.contains("think"), "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false,
                })
            })
            .collect();
    let merges: Vec<String> = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": merges,
        },
    })
}

/// Writes a model folder without weights.
pub(super) fn write(folder: &Path, tokenizer: &Value, template: &str) {
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({"chat_template": template, "bos_token": null, "eos_token": "<|im_end|>"});
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

pub(super) fn load(folder: &Path) -> Result<ChatTokenizer, String> {
    // More rows than tokens, as real models have.
    let limits = TokenLimits { vocabulary: 320, context: 4096 };
    ChatTokenizer::load(&mut ModelFolder::open("writer", folder).unwrap(), limits).map_err(|e| e.to_string())
}

pub(super) fn with_template(template: &str) -> Result<ChatTokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &tokenizer(), template);
    load(folder.path())
}

pub(super) fn chat() -> ChatTokenizer {
    with_template(CHATML).unwrap()
}

pub(super) fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.into() }
}

/// The text of the tokens, with control tokens by their names.
pub(super) fn spelled(chat: &ChatTokenizer, ids: &[u32]) -> String {
    let mut bytes = Vec::new();
    for id in ids {
        match chat.definition.added.iter().find(|token| token.id == *id) {
            Some(token) => bytes.extend_from_slice(token.content.as_bytes()),
            None => bytes.extend_from_slice(chat.piece(*id)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The control tokens among `ids`, in order.
pub(super) fn controls(chat: &ChatTokenizer, ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|id| chat.definition.added.iter().any(|token| token.id == *id)).collect()
}
