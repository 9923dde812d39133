//! Queries as vectors, which documents' vectors are compared with.

use crate::engine::{Chunking, Engine, Prediction, Request, TextKind, Work};
use crate::failure::{Component, Failure, FailureClass, Poison, Transient};
use crate::outcome::{Cost, EmbeddingSet};
use crate::store::QueryVector;

/// A text to look for by its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The text.
    pub text: &'a str,
    /// The task whose vectors it is compared with.
    pub task: &'a str,
    /// The model of that task.
    pub model: &'a str,
}

/// A query's vector with what it took.
pub type Encoded = Result<(QueryVector, Cost), Poison>;

/// The vectors of the queries, in order.
///
/// # Errors
/// Where a model is out of order, and nothing came of any query.
pub async fn vectors(engine: &Engine, queries: &[Query<'_>]) -> Result<Vec<Encoded>, Transient> {
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
                let reason = format!("model `{model}` made no vector of the query");
                Err(Poison { class: FailureClass::Model, reason })
            }
        });
    }
    Ok(vectors)
}

fn broken(reason: String) -> Transient {
    Transient::new(Component::Model, reason)
}
