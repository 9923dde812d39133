//! Encodes search queries as vectors, to compare them with the vectors of documents.

use crate::engine::{Chunking, Engine, Prediction, Request, TextKind, Work};
use crate::failure::{Component, Failure, FailureClass, Poison, Transient};
use crate::outcome::{Cost, EmbeddingSet};
use crate::store::QueryVector;

/// A text to search for by its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub text: &'a str,
    /// The `embed` task whose vectors it is compared with.
    pub task: &'a str,
    /// The model of that task.
    pub model: &'a str,
}

/// A query's vector and its cost.
pub type EncodedQuery = Result<(QueryVector, Cost), Poison>;

/// The vectors of the queries, in order.
///
/// # Errors
/// Where a model is unavailable; then no query is encoded.
pub async fn vectors(engine: &Engine, queries: &[Query<'_>]) -> Result<Vec<EncodedQuery>, Transient> {
    let mut requests = Vec::with_capacity(queries.len());
    let mut sets = Vec::with_capacity(queries.len());
    for Query { text, model, .. } in queries {
        let info = engine.model(model).ok_or_else(|| broken(format!("model `{model}` is not loaded")))?;
        sets.push(EmbeddingSet { model: (*model).to_owned(), revision: info.revision.clone(), dimension: info.dimension });
        let work = Work::Encode { texts: vec![(*text).into()], chunking: Chunking::Truncate, kind: TextKind::Query };
        requests.push(Request { model: (*model).into(), work });
    }
    let mut answers = engine.run(requests).await?.into_iter();
    let mut vectors = Vec::with_capacity(queries.len());
    for (Query { text, task, model }, set) in queries.iter().zip(sets) {
        let answer = match answers.next().ok_or_else(|| broken(format!("model `{model}` did not answer")))? {
            Ok(answer) => answer,
            Err(Failure::Poison(poison)) => {
                vectors.push(Err(poison));
                continue;
            }
            Err(Failure::Transient(transient)) => return Err(transient),
        };
        let cost = Cost { tokens: answer.tokens, generated: answer.generated, device_micros: answer.device_micros };
        let chunk = match answer.prediction {
            Prediction::Vectors(texts) => texts.into_iter().next().and_then(|text| text.chunks.into_iter().next()),
            _ => None,
        };
        vectors.push(match chunk {
            Some(chunk) => {
                let (task, words) = ((*task).to_owned(), (*text).to_owned());
                Ok((QueryVector { set, task, vector: chunk.vector.to_vec(), words }, cost))
            }
            None => {
                let reason = format!("model `{model}` did not return a vector of the query");
                Err(Poison { class: FailureClass::Model, reason })
            }
        });
    }
    Ok(vectors)
}

fn broken(reason: String) -> Transient {
    Transient::new(Component::Model, reason)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::config::{EngineConfig, ModelConfig};
    use crate::document::Document;
    use crate::task::{self, EmbedSpec, TaskSpec, TaskStep, TemplateContext};

    /// The vector of a text that has its prompt already.
    async fn plain(engine: &Engine, text: &str) -> Vec<f32> {
        let work = Work::Encode { texts: vec![text.into()], chunking: Chunking::Truncate, kind: TextKind::Plain };
        let answer = engine.run(vec![Request { model: "plain".into(), work }]).await.unwrap().remove(0).unwrap();
        let Prediction::Vectors(texts) = answer.prediction else { panic!("no vectors") };
        texts[0].chunks[0].vector.to_vec()
    }

    #[tokio::test]
    async fn queries_and_documents_have_the_prompts_that_their_model_wants() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-xlm-roberta");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for file in std::fs::read_dir(&fixture).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        std::fs::copy(fixture.join("1_Pooling/config.json"), folder.path().join("1_Pooling/config.json")).unwrap();
        let prompts = json!({"prompts": {"query": "query: ", "document": "passage: "}}).to_string();
        std::fs::write(folder.path().join("config_sentence_transformers.json"), prompts).unwrap();
        let models = [("plain", fixture.as_path()), ("asks", folder.path())];
        let models: BTreeMap<String, ModelConfig> =
            models.into_iter().map(|(name, path)| (name.to_owned(), ModelConfig::local(path))).collect();
        let engine = Engine::start(&EngineConfig::default(), &models).unwrap();

        let queries = [Query { text: "bread and money", task: "near", model: "asks" }];
        let (found, _) = vectors(&engine, &queries).await.unwrap().remove(0).unwrap();
        let near = |left: &[f32], right: &[f32]| left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-5);
        assert!(near(&found.vector, &plain(&engine, "query: bread and money").await));

        let spec = TaskSpec::Embed(EmbedSpec { model: "asks".into(), chunk: None });
        let task = task::build("near", &spec, &engine, Path::new("")).await.unwrap();
        let text = Arc::from("bread and money");
        let document = Document { id: "d".into(), version: 1, text, metadata: Default::default(), fields: Default::default() };
        let Ok(TaskStep::Ask(requests)) = task.prepare(&document, &TemplateContext::default()) else {
            panic!("nothing is asked")
        };
        let answer = engine.run(requests).await.unwrap().remove(0).unwrap();
        let Prediction::Vectors(texts) = answer.prediction else { panic!("no vectors") };
        assert!(near(&texts[0].chunks[0].vector, &plain(&engine, "passage: bread and money").await));
    }
}
