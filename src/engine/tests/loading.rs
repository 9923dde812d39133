//! Broken model folders: one sentence with the file and the fix.

use std::fs;

use serde_json::{Value, json};

use super::fixture::{Tiny, bert, shard_name, start, write_json};

/// The error that a folder gives after `spoil` had its way with it.
fn error(model: Tiny, spoil: impl FnOnce(&std::path::Path)) -> String {
    let folder = model.write();
    spoil(folder.path());
    let error = start(folder.path()).expect_err("a broken model folder must not load").to_string();
    assert!(!error.contains('\n') && !error.ends_with('.'), "one sentence, got: {error}");
    error
}

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}

fn edit(path: &std::path::Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    write_json(path, &value);
}

#[test]
fn missing_folder_is_named_with_its_setting() {
    let error = start("/nowhere/model".as_ref()).unwrap_err().to_string();
    assert_says(&error, &["/nowhere/model", "models.tiny.path"]);
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let error = error(bert(), |folder| fs::remove_file(folder.join(file)).unwrap());
        assert_says(&error, &[file, "does not exist"]);
    }
    let shard = shard_name(1);
    assert_says(&error(Tiny { shards: 2, ..bert() }, |folder| fs::remove_file(folder.join(&shard)).unwrap()), &[&shard]);
}

#[test]
fn malformed_files_are_named_with_the_reason() {
    for file in ["config.json", "tokenizer.json", "1_Pooling/config.json"] {
        let error = error(bert(), |folder| fs::write(folder.join(file), "{ \"model_type\": ").unwrap());
        assert_says(&error, &[file, "line 1"]);
    }
    assert_says(&error(bert(), |folder| fs::write(folder.join("config.json"), "{}").unwrap()), &["config.json", "model_type"]);
}

#[test]
fn unsupported_models_are_refused_by_name() {
    let config = |key: &'static str, value: Value| {
        error(bert(), move |folder| edit(&folder.join("config.json"), |config| config[key] = value))
    };
    assert_says(&config("model_type", json!("gpt2")), &["config.json", "gpt2", "bert"]);
    assert_says(&config("hidden_act", json!("gelu_new")), &["config.json", "gelu_new"]);
    assert_says(&config("position_embedding_type", json!("relative_key")), &["config.json", "relative_key"]);
    assert_says(&config("num_attention_heads", json!(5)), &["config.json", "5 heads"]);
    let dense = json!([{ "type": "sentence_transformers.models.Transformer" }, { "type": "sentence_transformers.models.Dense" }]);
    assert_says(&error(bert(), |folder| write_json(&folder.join("modules.json"), &dense)), &["modules.json", "Dense"]);
    let max = json!({ "pooling_mode_max_tokens": true });
    assert_says(&error(bert(), |folder| write_json(&folder.join("1_Pooling/config.json"), &max)), &["1_Pooling", "pooling_mode"]);
}

#[test]
fn truncated_weights_are_refused() {
    let error = error(bert(), |folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert_says(&error, &["model.safetensors", "whole safetensors", "fetch it again"]);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let tensor = "encoder.layer.1.output.dense.weight";
    let respoil = |spoil: fn(&mut std::collections::HashMap<String, candle_core::Tensor>)| {
        error(bert(), move |folder| {
            let mut weights = bert().weights();
            spoil(&mut weights);
            candle_core::safetensors::save(&weights, folder.join("model.safetensors")).unwrap();
        })
    };
    let missing = respoil(|weights| drop(weights.remove("encoder.layer.1.output.dense.weight")));
    assert_says(&missing, &["model.safetensors", "lacks", tensor]);
    let misshapen = respoil(|weights| {
        let tensor = weights.get_mut("encoder.layer.1.output.dense.weight").unwrap();
        *tensor = tensor.t().unwrap().contiguous().unwrap();
    });
    assert_says(&misshapen, &["model.safetensors", tensor, "[72, 32]", "[32, 72]"]);
    let foreign = respoil(|weights| drop(weights.remove("embeddings.word_embeddings.weight")));
    assert_says(&foreign, &["model.safetensors", "word_embeddings", "config.json"]);
}

/// Adds tensors of zeros to the weights of a folder.
fn add(folder: &std::path::Path, names: &[&str]) {
    let mut weights = bert().weights();
    let zeros = candle_core::Tensor::zeros(4, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    weights.extend(names.iter().map(|name| ((*name).to_owned(), zeros.clone())));
    candle_core::safetensors::save(&weights, folder.join("model.safetensors")).unwrap();
}

#[test]
fn tensors_that_nothing_reads_are_refused() {
    for name in ["encoder.layer.0.adapter.dense.weight", "embeddings.projection.weight", "head.weight"] {
        let error = error(bert(), |folder| add(folder, &[name]));
        assert_says(&error, &["model.safetensors", name, "config.json does not account for", "from the same model"]);
    }
    let shards = Tiny { shards: 2, ..bert() };
    let error = error(shards, |folder| edit(&folder.join("config.json"), |config| config["num_hidden_layers"] = json!(1)));
    assert_says(&error, &["model-0000", "encoder.layer.1.", "config.json does not account for"]);
}

#[test]
fn layers_beyond_those_of_the_configuration_are_refused() {
    let error = error(bert(), |folder| edit(&folder.join("config.json"), |config| config["num_hidden_layers"] = json!(1)));
    assert_says(&error, &["model.safetensors", "encoder.layer.1.attention", "config.json does not account for"]);
}

#[test]
fn parts_for_other_tasks_and_counters_are_left_out() {
    let folder = bert().write();
    let leftovers =
        ["embeddings.position_ids", "pooler.dense.weight", "cls.predictions.bias", "lm_head.bias", "classifier.weight"];
    add(folder.path(), &leftovers);
    start(folder.path()).unwrap();
}

#[test]
fn tokenizer_of_another_model_is_refused() {
    let error = error(bert(), |folder| edit(&folder.join("config.json"), |config| config["vocab_size"] = json!(20)));
    assert_says(&error, &["tokenizer.json", "20 word vectors", "from the same model"]);
}

#[test]
fn revision_changes_with_any_file_and_with_nothing_else() {
    let revision = |spoil: &dyn Fn(&std::path::Path)| {
        let folder = bert().write();
        spoil(folder.path());
        start(folder.path()).unwrap().model("tiny").unwrap().revision.clone()
    };
    let plain = revision(&|_| {});
    assert_eq!(plain, revision(&|folder| fs::write(folder.join("README.md"), "read me").unwrap()), "a file that decides nothing");
    assert_ne!(
        plain,
        revision(&|folder| write_json(&folder.join("sentence_bert_config.json"), &json!({ "max_seq_length": 16 })))
    );
    assert_ne!(plain, revision(&|folder| edit(&folder.join("config.json"), |config| config["layer_norm_eps"] = json!(1e-5))));
}

#[test]
fn input_limit_is_the_smallest_that_the_folder_states() {
    let limit = |model: Tiny, settings: &[(&str, Value)]| {
        let folder = model.write();
        settings.iter().for_each(|(name, value)| write_json(&folder.path().join(name), value));
        start(folder.path()).unwrap().model("tiny").unwrap().max_tokens
    };
    assert_eq!(limit(bert(), &[]), 66);
    assert_eq!(limit(super::fixture::xlm_roberta(), &[]), 64, "two positions belong to padding");
    assert_eq!(limit(bert(), &[("sentence_bert_config.json", json!({ "max_seq_length": 12 }))]), 12);
    assert_eq!(limit(bert(), &[("tokenizer_config.json", json!({ "model_max_length": 1e30 }))]), 66);
    assert_eq!(limit(bert(), &[("tokenizer_config.json", json!({ "model_max_length": 20 }))]), 20);
}
