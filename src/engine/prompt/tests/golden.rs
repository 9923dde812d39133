//! Compares with the results of Hugging Face's own libraries for the same folders, texts and conversations.

use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use serde::Deserialize;
use serde_json::Value;

use super::fixture::{controls, message, spelled};
use crate::folder::ModelFolder;
use crate::prompt::{ChatTokenizer, IncrementalText, TokenLimits, encoding};
use crate::request::{Message, Role};

const MODELS: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];
const LIMITS: TokenLimits = TokenLimits { vocabulary: 512, context: 512 };

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators").join(name)
}

fn load(model: &str) -> ChatTokenizer {
    ChatTokenizer::load(&mut ModelFolder::open(model, &place(model)).unwrap(), LIMITS).unwrap()
}

fn golden<T: for<'a> Deserialize<'a>>(name: &str, model: &str) -> Vec<T> {
    let text = std::fs::read_to_string(place("golden").join(name)).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all[model].take()).unwrap()
}

#[derive(Deserialize)]
struct TextCase {
    text: String,
    bare_ids: Vec<u32>,
    ids_as_text: Vec<u32>,
    byte_offsets_as_text: Vec<(usize, usize)>,
}

#[derive(Deserialize)]
struct ChatCase {
    name: String,
    messages: Vec<ChatMessage>,
    arguments: serde_json::Map<String, Value>,
    prompt: String,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: String,
}

impl ChatCase {
    fn thinking(&self) -> Option<bool> {
        self.arguments.get("enable_thinking").and_then(Value::as_bool)
    }

    fn messages(&self) -> Vec<Message> {
        let role = |name: &str| [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.as_str() == name);
        self.messages.iter().map(|m| message(role(&m.role).unwrap(), &m.content)).collect()
    }
}

#[test]
fn texts_have_the_ids_of_the_tokenizers_library() {
    for model in MODELS {
        let chat = load(model);
        let definition = &chat.definition;
        let cases: Vec<TextCase> = golden("tokenizers.json", model);
        assert!(cases.len() > 20);
        for TextCase { text, bare_ids, ids_as_text, byte_offsets_as_text } in cases {
            let trusted = encoding::encode(&definition.plain, &text, &definition.added.find(&text)).unwrap();
            assert_eq!(trusted, bare_ids, "{model}: {text:?} with added tokens");
            assert_eq!(encoding::encode(&definition.plain, &text, &[]).unwrap(), ids_as_text, "{model}: {text:?} as text");
            assert_eq!(chat.count(&text).unwrap(), ids_as_text.len(), "{model}: {text:?}");
            if let (Some(first), Some(last)) = (byte_offsets_as_text.first(), byte_offsets_as_text.last()) {
                let whole = chat.split(&text, 400, 0).unwrap();
                assert!(whole[0].start <= first.0 && whole[0].end >= last.1, "{model}: {text:?} {whole:?}");
            }
        }
    }
}

#[test]
fn texts_come_back_from_their_tokens() {
    for model in MODELS {
        let chat = load(model);
        for case in golden::<TextCase>("tokenizers.json", model) {
            let mut back = chat.incremental_text();
            let ids = encoding::encode(&chat.definition.plain, &case.text, &[]).unwrap();
            ids.iter().for_each(|id| back.push(chat.piece(*id)));
            let expected: String = match model {
                "llama" => case.text.clone(),
                // A sentencepiece vocabulary cannot distinguish a space from its mark.
                "mistral" => case.text.replace('▁', " "),
                _ => unicode_normalization::UnicodeNormalization::nfc(&*case.text).collect(),
            };
            assert_eq!(back.into_text(), expected, "{model}");
        }
    }
}

#[test]
fn conversations_are_rendered_byte_for_byte_as_hugging_face_does() {
    for model in MODELS {
        let chat = load(model);
        let cases: Vec<ChatCase> = golden("chat.json", model);
        assert!(cases.len() >= 8);
        for case in &cases {
            assert_eq!(chat.render(&case.messages(), case.thinking()).unwrap(), case.prompt, "{model}: {}", case.name);
        }
    }
}

#[test]
fn prompts_have_the_ids_of_the_rendered_text_where_no_message_names_a_control_token() {
    for model in MODELS {
        let chat = load(model);
        // For the reasoning family, only prompts with reasoning turned off.
        let thinks = model == "qwen3";
        let cases: Vec<ChatCase> = golden("chat.json", model);
        for case in cases.iter().filter(|case| case.thinking().is_some() == thinks) {
            let ids = chat.encode(&case.messages()).unwrap();
            let added = &chat.definition.added;
            if case.messages.iter().all(|m| added.find(&m.content).is_empty()) {
                let expected = encoding::encode(&chat.definition.plain, &case.prompt, &added.find(&case.prompt)).unwrap();
                assert_eq!(ids, expected, "{model}: {}", case.name);
            } else {
                let words = "by the river";
                assert!(spelled(&chat, &ids).contains(words), "{model}: {}", case.name);
            }
        }
    }
}

#[test]
fn no_text_of_the_awkward_ones_forges_a_control_token() {
    for model in MODELS {
        let chat = load(model);
        let encoded = |content: &str| chat.encode(&[message(Role::User, content)]).unwrap();
        let harmless = controls(&chat, &encoded("x"));
        for case in golden::<TextCase>("tokenizers.json", model) {
            assert_eq!(controls(&chat, &encoded(&case.text)), harmless, "{model}: {:?}", case.text);
        }
    }
}

#[test]
fn a_turn_ends_with_the_family_s_own_token() {
    for (model, end) in MODELS.into_iter().zip(["<|eot_id|>", "</s>", "<|im_end|>", "<|im_end|>"]) {
        let chat = load(model);
        assert_eq!(spelled(&chat, &[chat.end_id()]), end);
        assert!(chat.end_ids().contains(&chat.end_id()));
    }
}

#[test]
fn a_gguf_file_s_own_vocabulary_encodes_as_the_folder_it_was_made_of() {
    for (file, model) in [("llama-q8_0.gguf", "llama"), ("qwen2-q8_0.gguf", "qwen2")] {
        let path = place(file);
        let content = Content::read(&mut std::fs::File::open(&path).unwrap()).unwrap();
        let (gguf, folder) = (ChatTokenizer::from_gguf(&path, &content.metadata, LIMITS).unwrap(), load(model));
        for case in golden::<TextCase>("tokenizers.json", model) {
            assert_eq!(gguf.encode_text(&case.text).unwrap(), folder.encode_text(&case.text).unwrap(), "{file}: {:?}", case.text);
        }
        for case in golden::<ChatCase>("chat.json", model).iter().filter(|case| case.arguments.is_empty()) {
            assert_eq!(gguf.render(&case.messages(), None).unwrap(), case.prompt, "{file}: {}", case.name);
            assert_eq!(gguf.encode(&case.messages()).unwrap(), folder.encode(&case.messages()).unwrap(), "{file}: {}", case.name);
        }
        assert_eq!(gguf.end_id(), folder.end_id());
        assert!((0..512).all(|id| gguf.piece(id) == folder.piece(id)), "{file}: pieces");
    }
}

#[test]
fn half_characters_are_never_shown_while_an_answer_grows() {
    for model in MODELS {
        let chat = load(model);
        let text = "물이 🫖 é";
        let mut growing = IncrementalText::default();
        for id in encoding::encode(&chat.definition.plain, text, &[]).unwrap() {
            growing.push(chat.piece(id));
            assert!(!growing.text().contains(char::REPLACEMENT_CHARACTER), "{model}: {:?}", growing.text());
            assert!(text.starts_with(growing.text().trim_start()), "{model}: {:?}", growing.text());
        }
    }
}
