//! Models from strangers: GGUF files, folders of safetensors and JSON, adapters; and schemas that answers must follow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tidemill::config::{EngineConfig, ModelConfig};
use tidemill::engine::{
    Chunking, Engine, EngineError, Generate, Message, ModelKind, Prompt, Request, Role, Sampling, Schema, TextKind, Work,
};
use tokio::runtime::{Builder, Runtime};

use super::Session;
use super::files::safetensors;
use super::mutations::{Input, Seed, damaged, edited, edited_text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NAME: &str = "model";

fn fixtures() -> PathBuf {
    Path::new(ROOT).join("tests/fixtures")
}

/// A model host with one model on one thread.
fn start(model: ModelConfig) -> Result<Engine, EngineError> {
    let config = EngineConfig { threads: Some(1), ..EngineConfig::default() };
    Engine::start(&config, &BTreeMap::from([(NAME.to_owned(), model)]))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Has the model do a little of what it is for. What it answers may be anything.
fn use_once(runtime: &Runtime, engine: &Engine, schema: Option<Arc<Schema>>) {
    let text: Arc<str> = "a few words".into();
    let work = match engine.model(NAME).unwrap().kind {
        ModelKind::Encoder => {
            Work::Encode { texts: vec![text], chunking: Chunking::Split { tokens: 8, overlap: 2 }, kind: TextKind::Plain }
        }
        ModelKind::Classifier => Work::Classify { text },
        ModelKind::Generator => Work::Generate(Generate {
            prompt: Prompt { messages: vec![Message { role: Role::User, content: text }], group: "fuzz".into() },
            max_tokens: 12,
            sampling: Sampling::default(),
            stop: Vec::new(),
            schema,
            spans: None,
        }),
    };
    drop(runtime.block_on(engine.run(vec![Request { model: NAME.into(), work }])));
}

pub fn gguf_files(session: &mut Session) {
    /// Metadata and the places of tensors; a part of the file's start.
    const HEAD: usize = 60_000;
    let mut seeds = Vec::new();
    for name in ["llama-q8_0", "qwen2-q8_0", "llama-q4_k_m"] {
        let bytes = fs::read(fixtures().join("generators").join(name).with_extension("gguf")).unwrap();
        fs::write("model.gguf", &bytes).unwrap();
        start(ModelConfig::local("model.gguf")).unwrap_or_else(|error| panic!("the seed {name} is refused: {error}"));
        // Numbers of the head are few beside its texts, and many of them stand at its start.
        seeds.push(Seed::new(name, bytes.clone()).within(0..1_500));
        seeds.push(Seed::new(name, bytes).within(0..HEAD));
    }
    let runtime = runtime();
    let words = &["general.alignment", "llama.block_count", "token_embd.weight", "blk.0.attn_q.weight", "tokenizer.ggml.tokens"];
    session.explore(&damaged(seeds, words), |input| {
        fs::write("model.gguf", &input.bytes).unwrap();
        if let Ok(engine) = start(ModelConfig::local("model.gguf")) {
            use_once(&runtime, &engine, None);
        }
        Ok(())
    });
}

/// Models of the fixtures, and the adapter that one is loaded with.
const FOLDERS: [(&str, Option<&str>); 6] = [
    ("models/tiny-bert-classifier", None),
    ("models/tiny-xlm-roberta", None),
    ("generators/llama", None),
    ("generators/mistral", None),
    ("generators/qwen3", None),
    ("generators/qwen2", Some("generators/qwen2-lora")),
];

/// Names that configurations, headers and indexes use.
const KEYS: &[&str] = &[
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "weight_map",
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "model_type",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_scaling",
    "rope_theta",
    "max_position_embeddings",
    "sliding_window",
    "eos_token_id",
    "chat_template",
    "vocab",
    "merges",
    "added_tokens",
    "pre_tokenizer",
    "normalizer",
    "{{ messages }}",
    "{% for m in messages %}",
];

/// Strategies for the damage of a file of a model: of its JSON, of a safetensors header, or of bytes.
fn damage_of(subject: &str, bytes: Vec<u8>) -> BoxedStrategy<Input> {
    if subject.ends_with(".safetensors") {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let data = bytes[8 + length..].to_vec();
        let seed = Seed::new(subject, bytes).within(0..8 + length);
        let headers = edited(vec![(subject.to_owned(), header)], KEYS)
            .prop_map(move |(subject, header)| Input { subject, bytes: safetensors(&header.to_string(), &data) });
        return prop_oneof![headers, damaged(vec![seed], &["[", "{\"a\":"])].boxed();
    }
    let document = serde_json::from_slice(&bytes).unwrap();
    prop_oneof![
        3 => edited_text(vec![(subject.to_owned(), document)], KEYS),
        1 => damaged(vec![Seed::new(subject, bytes)], &["[", "{\"a\":", "1e999"]),
    ]
    .boxed()
}

/// Copies a folder of files, and of folders of files; the paths of the copies.
fn copy(from: &Path, to: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut copies = Vec::new();
    for path in entries {
        let copy_to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copies.extend(copy(&path, &copy_to));
        } else {
            fs::copy(&path, &copy_to).unwrap();
            copies.push(copy_to);
        }
    }
    copies
}

pub fn model_folders(session: &mut Session) {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (model, adapter) in FOLDERS {
        let folders = [Some(model), adapter].into_iter().flatten();
        let copies = folders.flat_map(|folder| copy(&fixtures().join(folder), Path::new(folder)));
        files.extend(copies.map(|path| (path.display().to_string(), fs::read(&path).unwrap())));
        start(config_of(model)).unwrap_or_else(|error| panic!("the seed {model} is refused: {error}"));
    }
    let damageable = files.iter().filter(|(path, _)| path.ends_with(".json") || path.ends_with(".safetensors"));
    let inputs: Vec<BoxedStrategy<Input>> = damageable.map(|(path, bytes)| damage_of(path, bytes.clone())).collect();
    let runtime = runtime();
    session.explore(&proptest::strategy::Union::new(inputs), |input| {
        let is_in = |path: &str, folder: &str| path.starts_with(&format!("{folder}/"));
        let of = |path: &str, (model, adapter): &(&str, Option<&str>)| {
            is_in(path, model) || adapter.is_some_and(|adapter| is_in(path, adapter))
        };
        let folder = FOLDERS.iter().find(|folder| of(&input.subject, folder)).unwrap();
        // The input before may have left damage behind.
        for (path, whole) in files.iter().filter(|(path, _)| of(path, folder)) {
            fs::write(path, if *path == input.subject { &input.bytes } else { whole }).unwrap();
        }
        if let Ok(engine) = start(config_of(folder.0)) {
            use_once(&runtime, &engine, None);
        }
        Ok(())
    });
}

fn config_of(model: &str) -> ModelConfig {
    let adapter = FOLDERS.iter().find_map(|(name, adapter)| adapter.filter(|_| *name == model));
    ModelConfig { adapter: adapter.map(PathBuf::from), ..ModelConfig::local(model) }
}

/// Keywords of schemas, those that grow without bound among them.
const KEYWORDS: &[&str] = &[
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "$ref",
    "$defs",
    "#/properties/a",
    "#",
    "object",
    "array",
    "string",
    "number",
    "integer",
    "(a|a)*b{1000}",
    "[\\s\\S]{0,9999}",
    "date-time",
];

pub fn json_schemas(session: &mut Session) {
    // The grammar's library panics over some schemas; that is caught and refuses the schema.
    session.tolerates_caught_panics = true;
    let folder = Path::new(ROOT).join("pipelines/schemas");
    let mut schemas: Vec<(String, Value)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()))
        .collect();
    schemas.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!schemas.is_empty(), "there are no schemas");
    schemas.push((
        "keywords".into(),
        serde_json::json!({
            "type": "object", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}}}},
            "properties": {
                "a": {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "^[a-z]{1,9}$"}, {"type": "null"}]}, "minItems": 1, "maxItems": 4},
                "b": {"type": "number", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 0.5},
                "c": {"enum": ["x", 1, null]}, "d": {"allOf": [{"$ref": "#/$defs/node"}, {"required": ["v"]}]},
                "e": {"type": "string", "format": "date-time", "maxLength": 40}
            },
            "required": ["a", "b"], "additionalProperties": false
        }),
    ));
    let engine = start(ModelConfig::local(fixtures().join("generators/llama"))).unwrap();
    let runtime = runtime();
    session.explore(&edited_text(schemas, KEYWORDS), |input| {
        let Ok(schema) = serde_json::from_slice(&input.bytes).map_err(|_| ()).and_then(|value| Schema::new(value).map_err(drop))
        else {
            return Ok(());
        };
        let schema = Arc::new(schema);
        if engine.check_schema(NAME, &schema, 64).is_ok() {
            use_once(&runtime, &engine, Some(schema));
        }
        Ok(())
    });
}
