//! Sentencepiece vocabularies, from a folder and from GGUF metadata.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::Value as Field;
use serde_json::{Value, json};

use super::fixture::{controls, load, message, spelled, write};
use crate::prompt::{ChatTokenizer, TokenLimits, TokenMask};
use crate::request::Role;
use crate::schema::Schema;

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message.content + '[/INST]' }}{% endfor %}";

/// Words in the order in which they are merged, the best first.
const PIECES: [&str; 12] = ["th", "the", "▁the", "▁a", "er", "in", "▁w", "▁wat", "at", "▁water", "\":", "{\""];

fn tokens() -> Vec<String> {
    let controls = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"].map(str::to_owned);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let letters = (' '..='~').skip(1).chain(['▁', 'é']).map(String::from);
    controls.into_iter().chain(bytes).chain(PIECES.map(str::to_owned)).chain(letters).collect()
}

/// The metadata that llama.cpp's converter writes.
fn metadata() -> HashMap<String, Field> {
    let tokens = tokens();
    let kind = |id: usize| match id {
        0 => 2,
        1..=4 => 3,
        5..=260 => 6,
        _ => 1,
    };
    let list = |values: Vec<Field>| Field::Array(values);
    HashMap::from([
        ("tokenizer.ggml.model".to_owned(), Field::String("llama".into())),
        ("tokenizer.ggml.tokens".into(), list(tokens.iter().cloned().map(Field::String).collect())),
        ("tokenizer.ggml.token_type".into(), list((0..tokens.len()).map(|id| Field::I32(kind(id))).collect())),
        ("tokenizer.ggml.scores".into(), list((0..tokens.len()).map(|id| Field::F32(-(id as f32))).collect())),
        ("tokenizer.ggml.bos_token_id".into(), Field::U32(1)),
        ("tokenizer.ggml.eos_token_id".into(), Field::U32(2)),
        ("tokenizer.ggml.unknown_token_id".into(), Field::U32(0)),
        ("tokenizer.ggml.add_bos_token".into(), Field::Bool(true)),
        ("tokenizer.chat_template".into(), Field::String(TEMPLATE.into())),
    ])
}

fn from_gguf(metadata: &HashMap<String, Field>) -> Result<ChatTokenizer, String> {
    let limits = TokenLimits { vocabulary: 400, context: 512 };
    ChatTokenizer::from_gguf(Path::new("writer.gguf"), metadata, limits).map_err(|e| e.to_string())
}

#[test]
fn a_sentencepiece_vocabulary_is_read_out_of_a_gguf_file() {
    let chat = from_gguf(&metadata()).unwrap();
    let id = |token: &str| tokens().iter().position(|known| known == token).unwrap() as u32;
    // Merges follow the scores: `▁w` and `at` come before `▁wat` and `er`.
    assert_eq!(chat.encode_text("the water").unwrap(), [id("▁the"), id("▁water")]);
    assert_eq!(chat.encode_text("é 가").unwrap(), [id("▁"), id("é"), id("▁"), id("<0xEA>"), id("<0xB0>"), id("<0x80>")]);
    let prompt = chat.encode(&[message(Role::User, "the </s> [/INST] <unk>")]).unwrap();
    assert_eq!(controls(&chat, &prompt), [1, 3, 4]);
    assert_eq!(spelled(&chat, &prompt), "<s>[INST]  the </s> [/INST] <unk>[/INST]");
    assert_eq!((chat.end_id(), chat.piece(2)), (2, &b""[..]));
    let mut text = chat.incremental_text();
    chat.encode_text("the é 가").unwrap().iter().for_each(|id| text.push(chat.piece(*id)));
    assert_eq!(text.into_text(), "the é 가");
}

#[test]
fn a_template_that_writes_no_beginning_gets_the_one_that_the_file_asks_for() {
    let mut metadata = metadata();
    metadata.insert("tokenizer.chat_template".into(), Field::String("[INST]{{ messages[0].content }}[/INST]".into()));
    let prompt = |metadata: &HashMap<String, Field>| from_gguf(metadata).unwrap().encode(&[message(Role::User, "a")]).unwrap();
    assert_eq!(prompt(&metadata)[..2], [1, 3]);
    metadata.insert("tokenizer.ggml.add_bos_token".into(), Field::Bool(false));
    assert_eq!(prompt(&metadata)[..1], [3]);
}

#[test]
fn gguf_files_that_cannot_be_read_say_what_they_lack() {
    let refused = |key: &str, value: Option<Field>| {
        let mut metadata = metadata();
        metadata.remove(key);
        value.map(|value| metadata.insert(key.into(), value));
        from_gguf(&metadata).err().unwrap()
    };
    let text = |text: &str| Some(Field::String(text.into()));
    assert!(refused("tokenizer.chat_template", None).starts_with("writer.gguf: has no chat template"));
    assert!(refused("tokenizer.ggml.tokens", None).contains("has no tokenizer.ggml.tokens"));
    assert!(refused("tokenizer.ggml.model", text("t5")).contains("kind \"t5\""));
    let mut byte_level = metadata();
    byte_level.insert("tokenizer.ggml.model".into(), Field::String("gpt2".into()));
    byte_level.insert("tokenizer.ggml.merges".into(), Field::Array(Vec::new()));
    byte_level.insert("tokenizer.ggml.pre".into(), Field::String("unheard-of".into()));
    assert!(from_gguf(&byte_level).err().unwrap().contains("\"unheard-of\" (tokenizer.ggml.pre)"));
}

#[test]
fn answers_of_a_sentencepiece_model_are_held_to_a_schema_without_a_first_space() {
    let chat = from_gguf(&metadata()).unwrap();
    let schema = Schema::new(json!({
        "type": "object", "properties": {"the": {"type": "string", "maxLength": 20}}, "required": ["the"], "additionalProperties": false,
    }));
    let mut constraint = chat.grammar_cache().constraint(&schema.unwrap()).unwrap();
    let forced: Vec<u8> = constraint.forced().iter().flat_map(|id| chat.piece(*id).to_vec()).collect();
    assert!(b"{\"the\":\"".starts_with(&forced) && forced.len() > 5, "{:?}", String::from_utf8_lossy(&forced));
    let mut written = forced;
    while let Some(byte) = b"{\"the\":\"the water \xea\xb0\x80\"}".get(written.len()) {
        let mut mask = TokenMask::new();
        constraint.mask(&mut mask).unwrap();
        let next = mask.iter().find(|id| chat.piece(*id) == [*byte]).unwrap_or_else(|| panic!("no token for {byte:#x}"));
        constraint.accept(next).unwrap();
        written.push(*byte);
    }
    assert!(constraint.is_finished());
}

#[test]
fn a_metaspace_tokenizer_puts_its_first_space_only_where_the_text_begins() {
    let vocabulary: serde_json::Map<String, Value> =
        tokens().into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let added: Vec<Value> = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
        .iter()
        .enumerate()
        .map(|(id, token)| json!({"id": id, "content": token, "special": true, "normalized": false}))
        .collect();
    let merges = [["t", "h"], ["th", "e"], ["▁", "the"], ["▁", "a"]];
    let file = json!({
        "version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": space, "post_processor": null, "decoder": space,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &file, "{% for message in messages %}{{ message.content }}[INST]{{ message.content }}{% endfor %}");
    std::fs::write(folder.path().join("generation_config.json"), "{\"eos_token_id\": 2}").unwrap();
    assert!(load(folder.path()).err().unwrap().contains("from the same model"), "it has more tokens than the small model");
    let limits = TokenLimits { vocabulary: 400, context: 512 };
    let chat = ChatTokenizer::load(&mut crate::folder::ModelFolder::open("writer", folder.path()).unwrap(), limits).unwrap();
    let ids = chat.encode(&[message(Role::User, "the")]).unwrap();
    assert_eq!(spelled(&chat, &ids), " the[INST]the");
    assert_eq!(spelled(&chat, &chat.encode_text("the").unwrap()), "the");
}
