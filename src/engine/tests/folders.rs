//! What the files beside a model's weights say of its vectors: read as sentence-transformers and transformers read them, or refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{NAME, Tiny, assert_close, bert, classify, encode, start, vector, write_json, xlm_roberta};
use crate::{Answer, Chunking, Engine, Prediction, Request, TextKind, Work};
use tidemill_base::failure::{Failure, FailureClass};

/// A model's folder with these files written over its own.
fn folder(model: &Tiny, files: &[(&str, Value)]) -> TempDir {
    let folder = model.write();
    for (name, value) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_json(&path, value);
    }
    folder
}

fn engine(model: &Tiny, files: &[(&str, Value)]) -> Engine {
    start(folder(model, files).path()).unwrap()
}

#[track_caller]
fn refused(model: &Tiny, files: &[(&str, Value)], parts: &[&str]) {
    let error = start(folder(model, files).path()).expect_err("the folder must not load").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "expected {parts:?} in: {error}");
}

fn config(model: &Tiny, change: impl FnOnce(&mut Value)) -> (&'static str, Value) {
    let mut config = model.config();
    change(&mut config);
    ("config.json", config)
}

fn modules(pooling: &str, transformer: &str, kinds: &[&str]) -> (&'static str, Value) {
    let path = |kind: &str| match kind {
        "Transformer" => transformer.to_owned(),
        "Pooling" => pooling.to_owned(),
        other => format!("2_{other}"),
    };
    let module = |kind: &&str| json!({"path": path(kind), "type": format!("sentence_transformers.models.{kind}")});
    ("modules.json", kinds.iter().map(module).collect())
}

const KINDS: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

async fn ask(engine: &Engine, text: &str, chunking: Chunking, kind: TextKind) -> Result<Answer, Failure> {
    let work = Work::Encode { texts: vec![Arc::from(text)], chunking, kind };
    engine.run(vec![Request { model: NAME.into(), work }]).await.unwrap().remove(0)
}

async fn encoded(engine: &Engine, text: &str) -> Vec<f32> {
    vector(&ask(engine, text, Chunking::Truncate, TextKind::Plain).await)
}

fn differ(left: &[f32], right: &[f32]) -> bool {
    left.iter().zip(right).any(|(left, right)| (left - right).abs() > 1e-3)
}

#[test]
fn an_architecture_that_is_not_there_is_refused_by_its_name() {
    for (config, named) in [
        (json!({"model_type": "distilbert", "dim": 32, "n_layers": 2}), "distilbert"),
        (json!({"model_type": "t5", "d_model": 32}), "t5"),
        (json!({"model_type": "nomic_bert", "n_embd": 32}), "nomic_bert"),
        (json!({"model_type": "qwen3_vl", "text_config": {"hidden_size": 32}}), "qwen3_vl"),
    ] {
        refused(&bert(), &[("config.json", config)], &["config.json", named, "is not supported"]);
    }
    let (_, broken) = config(&bert(), |config| drop(config.as_object_mut().unwrap().remove("hidden_size")));
    refused(&bert(), &[("config.json", broken)], &["hidden_size", "publisher"]);
}

#[test]
fn a_sentence_encoder_on_a_decoder_is_called_one() {
    let files = [("config.json", json!({"model_type": "qwen3"})), modules("1_Pooling", "", &KINDS)];
    refused(&bert(), &files, &["modules.json", "a sentence encoder of a qwen3 decoder"]);
}

#[test]
fn what_would_make_other_vectors_is_refused() {
    for (key, value) in [
        ("is_decoder", json!(true)),
        ("auto_map", json!({"AutoModel": "own--code.Model"})),
        ("pruned_heads", json!({"0": [1]})),
        ("quantization_config", json!({"quant_method": "bitsandbytes"})),
        ("pad_token_id", json!(usize::MAX)),
    ] {
        refused(&bert(), &[config(&bert(), |config| config[key] = value)], &["config.json", key]);
    }
    let regression = Tiny { classes: Some(2), ..bert() };
    let file = config(&regression, |config| config["problem_type"] = json!("regression"));
    refused(&regression, &[file], &["problem_type \"regression\""]);
    let left = json!({"truncation_side": "left"});
    refused(&bert(), &[("tokenizer_config.json", left)], &["tokenizer.json", "truncation_side"]);
    let japanese = json!({"tokenizer_class": "BertJapaneseTokenizer"});
    refused(&bert(), &[("tokenizer_config.json", japanese)], &["BertJapaneseTokenizer"]);
    let added = json!({"added_tokens_decoder": {"900": {"content": "[NEW]"}}});
    refused(&bert(), &[("tokenizer_config.json", added)], &["tokenizer.json", "\"[NEW]\"", "tokenizer_config.json"]);
    let elsewhere = json!({"tokenizer_name_or_path": "other"});
    refused(&bert(), &[("sentence_bert_config.json", elsewhere)], &["sentence_bert_config.json", "tokenizer_name_or_path"]);
    for (settings, named) in [(json!({"similarity_fn_name": "dot"}), "\"dot\""), (json!({"truncate_dim": 8}), "truncate_dim")] {
        let files = [modules("1_Pooling", "", &KINDS[..2]), ("config_sentence_transformers.json", settings)];
        refused(&bert(), &files, &["config_sentence_transformers.json", named]);
    }
}

#[tokio::test]
async fn pooling_is_read_where_the_modules_say_and_as_the_library_writes_it() {
    let mean = encoded(&bert().engine(), "the mill").await;
    let first = encoded(&Tiny { pooling: "cls", ..bert() }.engine(), "the mill").await;
    assert!(differ(&mean, &first));
    let moved = [modules("2_Pooling", "", &KINDS), ("2_Pooling/config.json", json!({"pooling_mode_cls_token": true}))];
    assert_close("moved", &encoded(&engine(&bert(), &moved), "the mill").await, &first, 1e-6);
    let word = [modules("1_Pooling", "", &KINDS), ("1_Pooling/config.json", json!({"pooling_mode": "cls"}))];
    assert_close("one word", &encoded(&engine(&bert(), &word), "the mill").await, &first, 1e-6);
    refused(&bert(), &[modules("3_Pooling", "", &KINDS)], &["modules.json", "3_Pooling", "does not exist"]);
    refused(&bert(), &[modules("../1_Pooling", "", &KINDS)], &["modules.json", "../1_Pooling"]);
    refused(&bert(), &[modules("1_Pooling", "", &["Transformer"])], &["modules.json", "lists Transformer"]);
}

#[tokio::test]
async fn a_model_in_a_folder_of_its_own_loads() {
    let plain = bert().engine();
    let old = folder(&bert(), &[]);
    let inner = old.path().join("0_Transformer");
    fs::create_dir(&inner).unwrap();
    for file in ["tokenizer.json", "model.safetensors"] {
        fs::rename(old.path().join(file), inner.join(file)).unwrap();
    }
    write_json(&inner.join("config.json"), &bert().config());
    write_json(&inner.join("sentence_bert_config.json"), &json!({"max_seq_length": 20}));
    write_json(&old.path().join("config.json"), &json!({"__version__": "0.4.1"}));
    let (name, list) = modules("1_Pooling", "0_Transformer", &KINDS[..2]);
    write_json(&old.path().join(name), &list);
    crate::hub::inspect(old.path()).unwrap();
    let engine = start(old.path()).unwrap();
    assert_eq!(engine.model(NAME).unwrap().max_tokens, 20);
    assert_close("inner", &encoded(&engine, "the mill").await, &encoded(&plain, "the mill").await, 1e-6);
    fs::remove_dir_all(&inner).unwrap();
    let error = start(old.path()).unwrap_err().to_string();
    assert!(error.contains("modules.json") && error.contains("0_Transformer"), "{error}");
}

#[tokio::test]
async fn prompts_stand_before_texts_as_the_library_puts_them() {
    let prompts = json!({"prompts": {"passage": "the mill ", "query": "corn "}, "default_prompt_name": "passage"});
    for model in [bert(), xlm_roberta()] {
        let plain = model.engine();
        let list = modules("1_Pooling", "", &KINDS);
        let asks = engine(&model, &[list.clone(), ("config_sentence_transformers.json", prompts.clone())]);
        for (kind, prompt) in [(TextKind::Plain, "the mill "), (TextKind::Document, "the mill "), (TextKind::Query, "corn ")] {
            let asked = vector(&ask(&asks, "grinds, é 한", Chunking::Truncate, kind).await);
            let whole = encoded(&plain, &format!("{prompt}grinds, é 한")).await;
            assert_close("prompted", &asked, &whole, 1e-6);
        }
        let revision = |engine: &Engine| engine.model(NAME).unwrap().revision.clone();
        let without = engine(&model, std::slice::from_ref(&list));
        let silent = engine(&model, &[list, ("config_sentence_transformers.json", json!({"prompts": {"query": ""}}))]);
        assert_eq!(revision(&without), revision(&silent), "a file without prompts changes no vector");
        assert_ne!(revision(&without), revision(&asks));
        let is_blank = async |engine: &Engine| match ask(engine, " \n", Chunking::Truncate, TextKind::Document).await {
            Err(Failure::Poison(poison)) => poison.class == FailureClass::EmptyText,
            _ => false,
        };
        assert_eq!(is_blank(&asks).await, is_blank(&plain).await, "a prompt is no text");
        // The other tokenizer here has a token for white space.
        assert_eq!(is_blank(&asks).await, model.model_type == "bert");
    }
}

#[tokio::test]
async fn every_chunk_has_the_prompt_and_none_of_it_is_in_a_span() {
    let prompts = json!({"prompts": {"document": "the mill "}});
    let files = [modules("1_Pooling", "", &KINDS), ("config_sentence_transformers.json", prompts)];
    let (plain, asks) = (bert().engine(), engine(&bert(), &files));
    let text = "  corn, the mill grinds corn. 한국 é the mill grinds!  ";
    let chunking = Chunking::Split { tokens: 6, overlap: 2 };
    let chunks = |answer: Result<Answer, Failure>| match answer.unwrap().prediction {
        Prediction::Vectors(texts) => texts.into_iter().next().unwrap().chunks,
        other => panic!("expected vectors, got {other:?}"),
    };
    let found = chunks(ask(&asks, text, chunking, TextKind::Document).await);
    let bare = chunks(ask(&plain, text, chunking, TextKind::Document).await);
    assert!(found.len() > 2 && found.len() == bare.len());
    for (chunk, bare) in found.iter().zip(&bare) {
        assert_eq!(chunk.span, bare.span);
        let part = &text[chunk.span.start..chunk.span.end];
        assert_close(part, &chunk.vector, &encoded(&plain, &format!("the mill {part}")).await, 1e-6);
    }
    let whole = chunks(ask(&asks, text, Chunking::Truncate, TextKind::Document).await);
    assert_eq!(&text[whole[0].span.start..whole[0].span.end], text.trim());
    let long = json!({"prompts": {"document": "the ".repeat(80)}});
    let files = [modules("1_Pooling", "", &KINDS), ("config_sentence_transformers.json", long)];
    refused(&bert(), &files, &["config_sentence_transformers.json", "no text fits"]);
    let apart = [
        modules("1_Pooling", "", &KINDS),
        ("1_Pooling/config.json", json!({"pooling_mode": "mean", "include_prompt": false})),
        ("config_sentence_transformers.json", json!({"prompts": {"document": "the "}})),
    ];
    refused(&bert(), &apart, &["1_Pooling", "include_prompt"]);
}

#[tokio::test]
async fn letters_become_what_the_settings_over_the_tokenizer_say() {
    let tells_case = async |files: &[(&str, Value)]| {
        let engine = engine(&bert(), files);
        differ(&encoded(&engine, "THE Mill").await, &encoded(&engine, "the mill").await)
    };
    assert!(!tells_case(&[]).await, "the file says so");
    let settings =
        |class: &str, lower: Value| [("tokenizer_config.json", json!({"tokenizer_class": class, "do_lower_case": lower}))];
    assert!(tells_case(&settings("BertTokenizer", json!(false))).await);
    assert!(!tells_case(&settings("BertTokenizerFast", json!(true))).await);
    assert!(!tells_case(&settings("PreTrainedTokenizerFast", json!(false))).await, "another class does not read it");
    let cased = |class: &str| {
        let folder = folder(&bert(), &[("tokenizer_config.json", json!({"tokenizer_class": class}))]);
        let path = folder.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        file["normalizer"]["lowercase"] = json!(false);
        write_json(&path, &file);
        folder
    };
    let tells = async |folder: &Path| {
        let engine = start(folder).unwrap();
        differ(&encoded(&engine, "THE Mill").await, &encoded(&engine, "the mill").await)
    };
    assert!(!tells(cased("BertTokenizer").path()).await, "the class makes letters small unless it is told not to");
    let file = cased("PreTrainedTokenizerFast");
    assert!(tells(file.path()).await);
    write_json(&file.path().join("sentence_bert_config.json"), &json!({"do_lower_case": true}));
    assert!(!tells(file.path()).await, "the library makes them small first");
    let revision = |files: &[(&str, Value)]| engine(&bert(), files).model(NAME).unwrap().revision.clone();
    assert_ne!(revision(&settings("BertTokenizer", json!(false))), revision(&settings("BertTokenizer", json!(true))));
}

#[test]
fn the_librarys_limit_goes_over_the_tokenizers() {
    let limit = |files: &[(&str, Value)]| engine(&bert(), files).model(NAME).unwrap().max_tokens;
    let (narrow, wide) = (("tokenizer_config.json", json!({"model_max_length": 16})), json!({"max_seq_length": 64}));
    assert_eq!(limit(&[narrow.clone(), ("sentence_bert_config.json", wide.clone())]), 64);
    assert_eq!(limit(&[narrow.clone(), ("sentence_roberta_config.json", wide)]), 64, "the file has had several names");
    assert_eq!(limit(&[narrow, ("sentence_bert_config.json", json!({"max_seq_length": null}))]), 16);
    assert_eq!(limit(&[("sentence_bert_config.json", json!({"max_seq_length": 500}))]), 66, "as many as there are positions");
}

#[tokio::test]
async fn classes_are_named_by_numbers_and_told_apart_or_not() {
    let model = Tiny { classes: Some(2), ..bert() };
    let numbered = config(&model, |config| {
        config["id2label"] = json!({"0": 0, "1": "one"});
        config["problem_type"] = json!("multi_label_classification");
    });
    let engine = engine(&model, &[numbered]);
    let info = engine.model(NAME).unwrap();
    assert_eq!(info.labels, ["0", "one"]);
    assert!(info.several_labels);
    assert!(engine.run(vec![classify("the mill")]).await.unwrap()[0].is_ok());
    assert!(!model.engine().model(NAME).unwrap().several_labels);
    let more = config(&model, |config| config["id2label"] = json!({"0": "a", "1": "b", "2": "c"}));
    refused(&model, &[more], &["config.json", "names 3 classes", "have 2"]);
}

#[tokio::test]
async fn a_blank_text_beside_others_ends_nothing_where_no_special_tokens_are_added() {
    let folder = folder(&bert(), &[]);
    let path = folder.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    file["post_processor"] = Value::Null;
    write_json(&path, &file);
    let engine = start(folder.path()).unwrap();
    for texts in [&[" \n"][..], &["the mill", "\u{200d}"], &["", "the mill"]] {
        let answer = engine.run(vec![encode(texts, Chunking::Truncate)]).await.unwrap().remove(0);
        let Err(Failure::Poison(poison)) = answer else { panic!("{texts:?}: {answer:?}") };
        assert_eq!(poison.class, FailureClass::EmptyText);
    }
    assert!(encoded(&engine, "the mill").await.iter().all(|value| value.is_finite()), "the engine goes on");
    let special = bert().engine().run(vec![encode(&["the mill", " "], Chunking::Truncate)]).await.unwrap().remove(0);
    assert!(special.is_ok(), "special tokens alone have a vector");
}
