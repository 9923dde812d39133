//! The engine's rows against candle's own models on the same weights.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use candle_transformers::models::xlm_roberta::{XLMRobertaForSequenceClassification, XLMRobertaModel};

use super::fixture::{Tiny, assert_close, bert, classify, encode, texts, vector, xlm_roberta};
use crate::{Chunking, Prediction};

/// The token ids that the engine makes of a text.
fn ids(model: &Tiny, max_tokens: usize, text: &str) -> Tensor {
    let chunks = model.tokens(max_tokens).chunks(text, Chunking::Truncate).unwrap();
    Tensor::new(&*chunks[0].ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
}

fn rows(hidden: Tensor) -> Vec<Vec<f32>> {
    hidden.squeeze(0).unwrap().to_vec2().unwrap()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

fn mean(rows: Vec<Vec<f32>>) -> Vec<f32> {
    let sum = rows.iter().fold(vec![0.0; rows[0].len()], |sum, row| sum.iter().zip(row).map(|(a, b)| a + b).collect());
    unit(sum)
}

fn builder(model: &Tiny) -> VarBuilder<'static> {
    let weights = model.weights().into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap())).collect();
    VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)
}

fn bert_vector(model: &Tiny, text: &str) -> Vec<f32> {
    let reference = BertModel::load(builder(model), &serde_json::from_value(model.config()).unwrap()).unwrap();
    let ids = ids(model, 66, text);
    mean(rows(reference.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap()))
}

async fn assert_bert_agrees(model: Tiny) {
    let (engine, texts) = (model.engine(), texts());
    let answers = engine.run(texts.iter().map(|text| encode(&[text], Chunking::Truncate)).collect()).await.unwrap();
    for (text, answer) in texts.iter().zip(&answers) {
        assert_close(text, &vector(answer), &bert_vector(&model, text), 2e-6);
    }
}

#[tokio::test]
async fn bert_agrees_with_candles_model() {
    assert_bert_agrees(bert()).await;
}

#[tokio::test]
async fn bert_with_wide_heads_agrees_with_candles_model() {
    assert_bert_agrees(Tiny { hidden: 96, heads: 3, ..bert() }).await;
    assert_bert_agrees(Tiny { hidden: 80, heads: 2, ..bert() }).await;
}

#[tokio::test]
async fn prefixed_sharded_and_half_precision_weights_are_read_alike() {
    assert_bert_agrees(Tiny { prefix: "bert.", shards: 3, ..bert() }).await;
    assert_bert_agrees(Tiny { dtype: DType::F16, ..bert() }).await;
    assert_bert_agrees(Tiny { dtype: DType::BF16, ..bert() }).await;
}

#[tokio::test]
async fn xlm_roberta_agrees_with_candles_model() {
    let (model, texts) = (xlm_roberta(), texts());
    let reference = XLMRobertaModel::new(&serde_json::from_value(model.config()).unwrap(), builder(&model)).unwrap();
    let answers = model.engine().run(texts.iter().map(|text| encode(&[text], Chunking::Truncate)).collect()).await.unwrap();
    for (text, answer) in texts.iter().zip(&answers) {
        let ids = ids(&model, 64, text);
        let (ones, zeros) = (ids.ones_like().unwrap(), ids.zeros_like().unwrap());
        let hidden = rows(reference.forward(&ids, &ones, &zeros, None, None, None).unwrap());
        assert_close(text, &vector(answer), &unit(hidden[0].clone()), 2e-6);
    }
}

#[tokio::test]
async fn xlm_roberta_classifier_agrees_with_candles_model() {
    let model = Tiny { classes: Some(3), prefix: "roberta.", ..xlm_roberta() };
    let reference =
        XLMRobertaForSequenceClassification::new(3, &serde_json::from_value(model.config()).unwrap(), builder(&model)).unwrap();
    let engine = model.engine();
    assert_eq!(engine.model("tiny").unwrap().labels, ["class 0", "class 1", "class 2"]);
    let text = "the mill grinds corn";
    let ids = ids(&model, 64, text);
    let (ones, zeros) = (ids.ones_like().unwrap(), ids.zeros_like().unwrap());
    let expected: Vec<f32> = reference.forward(&ids, &ones, &zeros).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
    let answers = engine.run(vec![classify(text)]).await.unwrap();
    let Prediction::Logits(logits) = &answers[0].as_ref().unwrap().prediction else { panic!("a classifier answers with logits") };
    assert_close("logits", logits, &expected, 1e-5);
}

#[tokio::test]
async fn bert_classifier_reads_the_pooler_then_the_classes() {
    let model = Tiny { classes: Some(2), prefix: "bert.", ..bert() };
    let (reference, text) = (builder(&model), "the mill");
    let encoder = BertModel::load(reference.pp("bert"), &serde_json::from_value(model.config()).unwrap()).unwrap();
    let ids = ids(&model, 66, text);
    let first = encoder.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap().narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let dense = candle_nn::linear(32, 32, reference.pp("bert.pooler.dense")).unwrap();
    let classes = candle_nn::linear(32, 2, reference.pp("classifier")).unwrap();
    let pooled = first.apply(&dense).unwrap().tanh().unwrap();
    let expected: Vec<f32> = pooled.apply(&classes).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
    let answers = model.engine().run(vec![classify(text)]).await.unwrap();
    let Prediction::Logits(logits) = &answers[0].as_ref().unwrap().prediction else { panic!("a classifier answers with logits") };
    assert_close("logits", logits, &expected, 1e-5);
}
