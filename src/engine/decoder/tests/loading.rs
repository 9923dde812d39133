//! Decoders that cannot be loaded: one sentence with the file, what is wrong and the fix.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{Random, load, random, read_at_once, write_json};
use crate::decoder::{Decoder, DecoderShape};
use crate::error::EngineError;
use crate::folder::ModelFolder;

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    assert!(!error.contains('\n') && !error.ends_with('.'), "one sentence, got: {error}");
    for part in parts {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}

fn error(model: &Random, adapter: Option<&Path>) -> String {
    load(model.write().path(), adapter).err().expect("a broken model must not load").to_string()
}

/// The error of a model whose config.json says something else.
fn error_with(family: &str, key: &str, value: Value) -> String {
    let mut model = random(family);
    let folder = model.write();
    model.config[key] = value;
    write_json(&folder, "config.json", &model.config);
    load(folder.path(), None).err().unwrap_or_else(|| panic!("{key} must not load")).to_string()
}

#[test]
fn unsupported_models_are_refused_by_name() {
    // Its file would lack what a decoder's must have; the name comes first.
    let folder = random("llama").write();
    write_json(&folder, "config.json", &json!({ "model_type": "mamba" }));
    let error = load(folder.path(), None).err().unwrap().to_string();
    assert_says(&error, &["config.json", "mamba", "use a llama"]);
    let cases = [
        ("llama", "hidden_act", json!("gelu"), "gelu"),
        ("llama", "rope_scaling", json!({ "type": "linear", "factor": 2.0 }), "linear"),
        ("qwen2", "rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 }), "yarn"),
        ("llama", "rope_scaling", json!({ "rope_type": "llama3", "factor": 4.0 }), "low_freq_factor"),
        ("qwen3", "partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("qwen2", "quantization_config", json!({ "quant_method": "gptq" }), "gptq"),
        ("mistral", "num_key_value_heads", json!(4), "6 query heads"),
        ("mistral", "sliding_window", json!(0), "sliding_window"),
        ("qwen2", "layer_types", json!(["linear_attention", "full_attention", "full_attention"]), "linear_attention"),
        ("qwen2", "layer_types", json!(["full_attention"]), "1 layers of 3"),
    ];
    for (family, key, value, part) in cases {
        assert_says(&error_with(family, key, value), &["config.json", part]);
    }
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    assert_says(&error_with("llama", "intermediate_size", json!(72)), &["mlp.gate_proj.weight", "[70, 48]", "[72, 48]"]);
    assert_says(&error_with("llama", "num_hidden_layers", json!(4)), &["lacks", "model.layers.3"]);
    assert_says(&error_with("llama", "num_hidden_layers", json!(2)), &["model.layers.2", "does not account for"]);
    assert_says(&error_with("llama", "attention_bias", json!(false)), &["_proj.bias", "does not account for"]);
}

/// The outcome of loading a tied decoder whose file holds more tensors than the decoder has.
fn load_with(names: &[&str]) -> Result<Decoder, EngineError> {
    let folder = random("qwen2").write();
    let path = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    tensors.extend(names.iter().map(|name| ((*name).to_owned(), Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap())));
    candle_core::safetensors::save(&tensors, path).unwrap();
    load(folder.path(), None)
}

#[test]
fn tensors_that_nothing_reads_are_refused_unless_they_follow_from_the_configuration() {
    for name in ["model.layers.0.mlp.shared.weight", "score.weight", "model.layers.0.self_attn.q_norm.weight"] {
        let error = load_with(&[name]).err().unwrap_or_else(|| panic!("{name} must be refused")).to_string();
        assert_says(&error, &["model.safetensors", name, "config.json does not account for", "from the same model"]);
    }
    load_with(&["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]).unwrap();
}

#[test]
fn truncated_weights_are_refused() {
    let folder = random("qwen3").write();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [4, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = load(folder.path(), None).err().expect("a truncated file must not load").to_string();
        assert_says(&error, &["model.safetensors", "not a whole safetensors file"]);
    }
}

/// A PEFT folder that changes `module` by matrices of these shapes.
fn adapter(module: &str, a: [usize; 2], b: [usize; 2], config: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_json(&folder, "adapter_config.json", config);
    let tensor = |shape: [usize; 2]| Tensor::full(0.125_f32, &shape, &Device::Cpu).unwrap().contiguous().unwrap();
    let name = |part: &str| format!("base_model.model.model.layers.0.{module}.{part}.weight");
    let tensors = HashMap::from([(name("lora_A"), tensor(a)), (name("lora_B"), tensor(b))]);
    candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors")).unwrap();
    folder
}

fn lora() -> Value {
    json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["v_proj"], "modules_to_save": null })
}

#[test]
fn adapters_of_another_base_model_are_refused() {
    let model = random("llama");
    let wide = adapter("self_attn.v_proj", [2, 64], [20, 2], &lora());
    assert_says(&error(&model, Some(wide.path())), &["adapter_model.safetensors", "v_proj", "another base model"]);
    let strange = adapter("self_attn.qkv_proj", [2, 48], [20, 2], &lora());
    assert_says(&error(&model, Some(strange.path())), &["qkv_proj", "another base model"]);
    assert_says(&error(&model, Some("/nowhere/adapter".as_ref())), &["/nowhere/adapter", "does not exist"]);
}

#[test]
fn adapters_that_change_more_than_is_merged_are_refused() {
    for (key, value) in
        [("bias", json!("all")), ("use_dora", json!(true)), ("modules_to_save", json!(["lm_head"])), ("peft_type", json!("IA3"))]
    {
        let mut config = lora();
        config[key] = value;
        let folder = adapter("self_attn.v_proj", [2, 48], [20, 2], &config);
        assert_says(&error(&random("llama"), Some(folder.path())), &["adapter_config.json", key, "is not supported"]);
    }
}

#[test]
fn adapter_changes_answers_by_its_scale_and_counts_towards_the_revision() {
    let folder = random("llama").write();
    let load = |adapter: Option<&Path>| {
        let mut folder = ModelFolder::open("tiny", folder.path()).unwrap();
        let decoder = Decoder::load(&mut folder, adapter).unwrap();
        (read_at_once(&decoder, &[1, 2, 3]), folder.revision())
    };
    let (alone, revision) = load(None);
    let mut seen = vec![revision];
    let mut last = alone;
    for (rslora, alpha) in [(false, 4), (true, 4), (false, 8)] {
        let config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": alpha, "use_rslora": rslora });
        let adapter = adapter("self_attn.v_proj", [2, 48], [20, 2], &config);
        let (changed, revision) = load(Some(adapter.path()));
        assert_ne!(changed, last, "rslora {rslora}, alpha {alpha}: the same logits as before");
        assert!(!seen.contains(&revision), "rslora {rslora}, alpha {alpha}: the same revision as before");
        seen.push(revision);
        last = changed;
    }
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_made_of_them() {
    for (key, value) in [
        ("num_hidden_layers", json!(1_u64 << 40)),
        ("head_dim", json!(1_u64 << 60)),
        ("hidden_size", json!(1_u64 << 62)),
        ("intermediate_size", json!(1_u64 << 62)),
        ("num_attention_heads", json!(1_u64 << 62)),
        ("vocab_size", json!(1_u64 << 62)),
    ] {
        for family in ["llama", "mistral", "qwen3"] {
            assert_says(&error_with(family, key, value.clone()), &["config.json", key, "no model has more"]);
        }
    }
}

#[test]
fn a_gguf_file_is_not_believed_beyond_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let generators = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators");
    let bytes = std::fs::read(generators.join("llama-q8_0.gguf")).unwrap();
    let with = |key: &str, value: u32| {
        let mut bytes = bytes.clone();
        let at = bytes.windows(key.len()).position(|part| part == key.as_bytes()).unwrap() + key.len();
        assert_eq!(bytes[at..at + 4], 4_u32.to_le_bytes(), "{key} is no u32");
        bytes[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        load(&path, None).err().unwrap_or_else(|| panic!("{key} {value} must not load")).to_string()
    };
    for (key, value, named) in [
        ("llama.block_count", u32::MAX, "no model has more"),
        ("llama.block_count", 9_000, "does not hold as many layers"),
        ("llama.embedding_length", u32::MAX, "no model has more"),
        ("llama.embedding_length", 1 << 20, "token_embd.weight has"),
        ("llama.attention.head_count", 1, "blk.0.attn_q.weight has"),
        ("llama.feed_forward_length", u32::MAX, "no model has more"),
    ] {
        assert_says(&with(key, value), &["model.gguf", key.split('.').next().unwrap(), named]);
    }
}

#[test]
fn both_names_of_a_rope_scaling_are_one_where_they_agree() {
    let scaled = |rope: Value| {
        let mut config = random("llama").config;
        for (key, value) in rope.as_object().unwrap() {
            config[key] = value.clone();
        }
        DecoderShape::parse(config.to_string().as_bytes(), Path::new("config.json")).map_err(|e| e.to_string())
    };
    let with = |kind: Value| {
        let mut rope =
            json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
        rope.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        rope
    };
    let newer = scaled(json!({"rope_scaling": with(json!({"rope_type": "llama3"}))})).unwrap();
    let plain = scaled(json!({"rope_scaling": null})).unwrap();
    assert!(newer != plain, "the scaling changes nothing");
    let both = with(json!({"rope_type": "llama3", "type": "llama3"}));
    for rope in [
        json!({"rope_scaling": with(json!({"type": "llama3"}))}),
        json!({"rope_scaling": both}),
        json!({"rope_parameters": both}),
        json!({"rope_parameters": both, "rope_scaling": both}),
    ] {
        assert!(scaled(rope.clone()).unwrap() == newer, "{rope}");
    }
    let parts = |rope: Value, parts: &[&str]| assert_says(&scaled(rope).unwrap_err(), parts);
    parts(
        json!({"rope_scaling": with(json!({"rope_type": "llama3", "type": "default"}))}),
        &["rope_type \"llama3\"", "type \"default\""],
    );
    parts(json!({"rope_scaling": both, "rope_parameters": {"rope_type": "default"}}), &["rope_parameters and rope_scaling"]);
    parts(json!({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 500000.0}}), &["rope_theta is 10000", "500000"]);
    parts(json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}), &["by kind of layer"]);
}

#[test]
fn broken_gguf_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, b"GGUF\x03\x00\x00\x00").unwrap();
    assert_says(&load(&path, None).err().unwrap().to_string(), &["model.gguf", "cannot be read as a GGUF file"]);
    let generators = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators");
    let bytes = std::fs::read(generators.join("llama-q8_0.gguf")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
    assert_says(&load(&path, None).err().unwrap().to_string(), &["model.gguf", "fetch the file again"]);
    let adapter = generators.join("qwen2-lora");
    let error = load(&generators.join("qwen2-q8_0.gguf"), Some(&adapter)).err().unwrap().to_string();
    assert_says(&error, &["qwen2-lora", "cannot be merged into a GGUF file"]);
}
