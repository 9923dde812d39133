//! Tiny models with seeded random weights, written as Hugging Face folders.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::folder::ModelFolder;
use crate::text_tokenizer::TextTokenizer;
use crate::tokenizer_settings::TokenizerSettings;
use crate::{Answer, BatchTuning, Chunking, Engine, EngineError, Prediction, Request, TextKind, Work};
use tidemill_base::config::{EngineConfig, ModelConfig};
use tidemill_base::failure::Failure;

/// The name under which tests load a tiny model.
pub(crate) const NAME: &str = "tiny";

/// What a tiny model is like.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) model_type: &'static str,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) classes: Option<usize>,
    pub(crate) shards: usize,
    pub(crate) dtype: DType,
    pub(crate) prefix: &'static str,
    pub(crate) pooling: &'static str,
}

pub(crate) const INNER: usize = 72;
pub(crate) const LAYERS: usize = 2;
pub(crate) const POSITIONS: usize = 66;

pub(crate) fn bert() -> Tiny {
    Tiny { model_type: "bert", hidden: 32, heads: 4, classes: None, shards: 1, dtype: DType::F32, prefix: "", pooling: "mean" }
}

pub(crate) fn xlm_roberta() -> Tiny {
    Tiny { model_type: "xlm-roberta", pooling: "cls", ..bert() }
}

impl Tiny {
    fn is_bert(&self) -> bool {
        self.model_type == "bert"
    }

    pub(crate) fn vocabulary(&self) -> Vec<String> {
        let mut words: Vec<String> =
            if self.is_bert() { vec!["[PAD]", "[UNK]", "[CLS]", "[SEP]"] } else { vec!["<s>", "<pad>", "</s>", "<unk>", "▁"] }
                .into_iter()
                .map(String::from)
                .collect();
        let jamo = ('\u{1100}'..='\u{1112}').chain('\u{1161}'..='\u{1175}').chain('\u{11a8}'..='\u{11c2}');
        for letter in ('a'..='z').chain(jamo) {
            words.push(letter.to_string());
            if self.is_bert() {
                words.push(format!("##{letter}"));
            }
        }
        words.extend([".", ",", "!", "the", "mill"].map(String::from));
        words.extend(["한", "국", "é", "▁the"].map(String::from));
        words
    }

    fn tokenizer(&self) -> Value {
        let words = self.vocabulary();
        let special = |id: usize| json!({ "id": id, "content": words[id], "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
        let (first, last) = if self.is_bert() { (2, 3) } else { (0, 2) };
        let token = |id: usize| json!({ "SpecialToken": { "id": words[id], "type_id": 0 } });
        let entry = |id: usize| json!({ "id": words[id], "ids": [id], "tokens": [words[id]] });
        let text = |name: &str, kind: usize| json!({ "Sequence": { "id": name, "type_id": kind } });
        let template = json!({
            "type": "TemplateProcessing",
            "single": [token(first), text("A", 0), token(last)],
            "pair": [token(first), text("A", 0), token(last), text("B", 1), token(last)],
            "special_tokens": { words[first].as_str(): entry(first), words[last].as_str(): entry(last) },
        });
        let (normalizer, splitter, model) = if self.is_bert() {
            let vocabulary: BTreeMap<&str, usize> = words.iter().enumerate().map(|(id, word)| (word.as_str(), id)).collect();
            (
                json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true }),
                json!({ "type": "BertPreTokenizer" }),
                json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary }),
            )
        } else {
            let vocabulary: Vec<_> =
                words.iter().enumerate().map(|(id, word)| (word, if id < 4 { 0.0 } else { -2.0 - id as f64 / 100.0 })).collect();
            (
                json!({ "type": "NFKC" }),
                json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }),
                json!({ "type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": false }),
            )
        };
        // Publishers leave such limits in the file; they are not the model's.
        let truncation = json!({ "max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right" });
        json!({
            "version": "1.0", "truncation": truncation, "padding": null, "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
            "normalizer": normalizer, "pre_tokenizer": splitter, "post_processor": template, "decoder": null, "model": model,
        })
    }

    pub(crate) fn config(&self) -> Value {
        let head = if self.classes.is_some() { "ForSequenceClassification" } else { "Model" };
        let class = if self.is_bert() { "Bert" } else { "XLMRoberta" };
        let labels: BTreeMap<String, String> =
            (0..self.classes.unwrap_or(0)).map(|i| (i.to_string(), format!("class {i}"))).collect();
        json!({
            "model_type": self.model_type, "architectures": [format!("{class}{head}")], "vocab_size": self.vocabulary().len(),
            "hidden_size": self.hidden, "num_hidden_layers": LAYERS, "num_attention_heads": self.heads, "intermediate_size": INNER,
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
            "pad_token_id": usize::from(!self.is_bert()), "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1, "id2label": labels,
        })
    }

    /// The weights by name, the same for the same model.
    pub(crate) fn weights(&self) -> HashMap<String, Tensor> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut tensors = HashMap::new();
        let (hidden, prefix) = (self.hidden, self.prefix);
        let mut put = |name: String, shape: &[usize], around: f32| {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| around + rng.random_range(-0.3..0.3)).collect();
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(self.dtype).unwrap();
            tensors.insert(name, tensor);
        };
        let mut linear = |name: String, outputs: usize, inputs: usize| {
            put(format!("{name}.weight"), &[outputs, inputs], 0.0);
            put(format!("{name}.bias"), &[outputs], 0.0);
        };
        for i in 0..LAYERS {
            let layer = format!("{prefix}encoder.layer.{i}");
            for part in ["query", "key", "value"] {
                linear(format!("{layer}.attention.self.{part}"), hidden, hidden);
            }
            linear(format!("{layer}.attention.output.dense"), hidden, hidden);
            linear(format!("{layer}.intermediate.dense"), INNER, hidden);
            linear(format!("{layer}.output.dense"), hidden, INNER);
        }
        if let Some(classes) = self.classes {
            if self.is_bert() {
                linear(format!("{prefix}pooler.dense"), hidden, hidden);
                linear("classifier".into(), classes, hidden);
            } else {
                linear("classifier.dense".into(), hidden, hidden);
                linear("classifier.out_proj".into(), classes, hidden);
            }
        }
        put(format!("{prefix}embeddings.word_embeddings.weight"), &[self.vocabulary().len(), hidden], 0.0);
        put(format!("{prefix}embeddings.position_embeddings.weight"), &[POSITIONS, hidden], 0.0);
        put(format!("{prefix}embeddings.token_type_embeddings.weight"), &[2, hidden], 0.0);
        let norms = (0..LAYERS).flat_map(|i| ["attention.output", "output"].map(|part| format!("encoder.layer.{i}.{part}")));
        for norm in norms.chain(["embeddings".into()]) {
            put(format!("{prefix}{norm}.LayerNorm.weight"), &[hidden], 1.0);
            put(format!("{prefix}{norm}.LayerNorm.bias"), &[hidden], 0.0);
        }
        tensors
    }

    /// Writes the model folder.
    pub(crate) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write_to(folder.path());
        folder
    }

    fn write_to(&self, folder: &Path) {
        write_json(&folder.join("config.json"), &self.config());
        write_json(&folder.join("tokenizer.json"), &self.tokenizer());
        std::fs::create_dir(folder.join("1_Pooling")).unwrap();
        let pooling =
            json!({ "pooling_mode_cls_token": self.pooling == "cls", "pooling_mode_mean_tokens": self.pooling == "mean" });
        write_json(&folder.join("1_Pooling/config.json"), &pooling);
        let weights = self.weights();
        if self.shards == 1 {
            return candle_core::safetensors::save(&weights, folder.join("model.safetensors")).unwrap();
        }
        let mut shards = vec![HashMap::new(); self.shards];
        let mut map = BTreeMap::new();
        for (i, (name, tensor)) in weights.into_iter().enumerate() {
            let shard = i % self.shards;
            map.insert(name.clone(), shard_name(shard));
            shards[shard].insert(name, tensor);
        }
        for (i, shard) in shards.iter().enumerate() {
            candle_core::safetensors::save(shard, folder.join(shard_name(i))).unwrap();
        }
        write_json(&folder.join("model.safetensors.index.json"), &json!({ "metadata": {}, "weight_map": map }));
    }

    /// The model's tokenizer, for sequences of so many tokens.
    pub(crate) fn tokens(&self, max_tokens: usize) -> TextTokenizer {
        let folder = self.write();
        let mut folder = ModelFolder::open(NAME, folder.path()).unwrap();
        let (shape, _) = folder.shape().unwrap();
        let settings = TokenizerSettings::read(&mut folder, &shape).unwrap();
        TextTokenizer::load(&mut folder, &settings, self.vocabulary().len(), max_tokens).unwrap()
    }

    /// Writes the model and starts an engine on it.
    pub(crate) fn engine(&self) -> Engine {
        start(self.write().path()).unwrap()
    }
}

pub(crate) fn shard_name(shard: usize) -> String {
    format!("model-{shard:05}.safetensors")
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Starts an engine on the model in `folder`.
pub(crate) fn start(folder: &Path) -> Result<Engine, EngineError> {
    start_with(folder, EngineConfig { threads: Some(2), ..EngineConfig::default() })
}

pub(crate) fn start_with(folder: &Path, config: EngineConfig) -> Result<Engine, EngineError> {
    Engine::start(&config, &BTreeMap::from([(NAME.to_owned(), ModelConfig::local(folder))]))
}

/// Starts an engine that may do what `tuning` says.
pub(crate) fn start_tuned(folder: &Path, config: &EngineConfig, tuning: &BatchTuning) -> Engine {
    Engine::start_with(config, &BTreeMap::from([(NAME.to_owned(), ModelConfig::local(folder))]), tuning).unwrap()
}

/// The vectors of whole texts, a request each.
pub(crate) async fn vectors(engine: &Engine, texts: &[String]) -> Vec<Vec<f32>> {
    let requests = texts.iter().map(|text| encode(&[text], Chunking::Truncate)).collect();
    engine.run(requests).await.unwrap().iter().map(vector).collect()
}

pub(crate) fn encode(texts: &[&str], chunking: Chunking) -> Request {
    let texts = texts.iter().map(|text| Arc::from(*text)).collect();
    Request { model: NAME.into(), work: Work::Encode { texts, chunking, kind: TextKind::Plain } }
}

pub(crate) fn classify(text: &str) -> Request {
    Request { model: NAME.into(), work: Work::Classify { text: text.into() } }
}

/// The vector of the only chunk of the only text.
pub(crate) fn vector(answer: &Result<Answer, Failure>) -> Vec<f32> {
    match &answer.as_ref().unwrap().prediction {
        Prediction::Vectors(texts) => texts[0].chunks[0].vector.to_vec(),
        other => panic!("expected vectors, got {other:?}"),
    }
}

/// Fails where two rows differ by more than rounding.
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: components");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: expected at most {tolerance:e} between the vectors, found {worst:e}");
}

/// Texts of many lengths in several scripts.
pub(crate) fn texts() -> Vec<String> {
    let mut texts: Vec<String> =
        (1..40).map(|i| format!("the mill{} grinds, {}!", "e".repeat(i % 5), "corn ".repeat(i % 17))).collect();
    texts.extend(
        ["한국어 문장", "e\u{301}te\u{301} 🙂 the", "x", "쌀을 빻는다. the mill", "zzz\u{200d}\u{fe0f}"].map(String::from),
    );
    texts
}
