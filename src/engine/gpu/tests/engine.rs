//! The whole engine on tensors: what the configuration says of devices, and the same answers as on the CPU's own kernels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::fixture::cpu;
use crate::gpu::Accelerator;
use crate::tests::fixture::bert;
use crate::{
    Answer, BatchTuning, Chunking, Engine, Generate, Message, Prediction, Prompt, Request, Role, Sampling, Score, TextKind, Work,
};
use tidemill_base::config::{ComputeDevice, EngineConfig, ModelConfig};
use tidemill_base::failure::Failure;

fn prompt(text: &str) -> Prompt {
    Prompt { messages: vec![Message { role: Role::User, content: text.into() }], group: "task".into() }
}

/// An encoder and a generator, asked for all that they can do.
async fn answers(accelerator: Option<Accelerator>) -> Vec<Result<Answer, Failure>> {
    let encoder = bert().write();
    let writer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators/qwen2");
    let models = BTreeMap::from([
        ("encoder".to_owned(), ModelConfig::local(encoder.path())),
        ("writer".to_owned(), ModelConfig::local(&writer)),
    ]);
    let config = EngineConfig { threads: Some(2), ..EngineConfig::default() };
    let engine = Engine::start_on(vec![accelerator], &config, &models, &BatchTuning::default()).unwrap();
    let mut requests = Vec::new();
    for i in 0..12 {
        let text = format!("the mill {} grinds", "corn ".repeat(i * 5 % 13));
        let texts = vec![text.as_str().into()];
        let work = Work::Encode { texts, chunking: Chunking::Split { tokens: 16, overlap: 4 }, kind: TextKind::Plain };
        requests.push(Request { model: "encoder".into(), work });
        let ask = Generate {
            prompt: prompt(&text),
            max_tokens: 24,
            sampling: Sampling::default(),
            stop: Vec::new(),
            schema: None,
            spans: None,
        };
        requests.push(Request { model: "writer".into(), work: Work::Generate(ask) });
        let answers = ["garden", "kitchen", "a"].map(Arc::from).into();
        requests.push(Request { model: "writer".into(), work: Work::Score(Score { prompt: prompt(&text), answers }) });
    }
    engine.run(requests).await.unwrap()
}

#[tokio::test]
async fn answers_are_those_of_the_cpu_s_kernels() {
    let (plain, tensors) = (answers(None).await, answers(Some(cpu())).await);
    let close = |what: &str, a: &[f32], b: &[f32], tolerance: f32| {
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && worst < tolerance, "{what}: off by {worst}");
    };
    for (index, (plain, tensors)) in plain.iter().zip(&tensors).enumerate() {
        let (plain, tensors) = (plain.as_ref().unwrap(), tensors.as_ref().unwrap());
        assert_eq!((plain.tokens, plain.generated), (tensors.tokens, tensors.generated), "request {index}");
        match (&plain.prediction, &tensors.prediction) {
            (Prediction::Vectors(plain), Prediction::Vectors(tensors)) => {
                for (a, b) in plain[0].chunks.iter().zip(&tensors[0].chunks) {
                    close("a vector", &a.vector, &b.vector, 1e-5);
                }
            }
            (Prediction::Completion(plain), Prediction::Completion(tensors)) => {
                assert_eq!((&plain.text, plain.finish), (&tensors.text, tensors.finish), "request {index}");
            }
            (Prediction::Scores(plain), Prediction::Scores(tensors)) => close("scores", plain, tensors, 1e-3),
            (plain, tensors) => panic!("request {index}: {plain:?} and {tensors:?}"),
        }
    }
}

#[test]
fn the_cpu_needs_no_accelerator() {
    assert!(Accelerator::open(ComputeDevice::Cpu).unwrap().is_none());
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_binary_without_cuda_says_what_to_build() {
    let config = EngineConfig { device: ComputeDevice::Cuda(1).into(), ..EngineConfig::default() };
    let error = Engine::start(&config, &BTreeMap::new()).unwrap_err().to_string();
    for part in ["cuda:1", "without CUDA", "deploy/build-cuda.sh", "engine.device"] {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}
