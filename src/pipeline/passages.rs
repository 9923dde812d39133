//! Searches passages of stored documents, for `retrieve` tasks.

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};

use super::definition::Definition;
use super::definition_error::{DefinitionProblem, suggestion};
use super::query::{self, Query};
use crate::engine::Engine;
use crate::failure::{Poison, Transient};
use crate::outcome::{Cost, RetrievedPassage, Span};
use crate::store::{Fusion, QueryVector, Reader, SearchFilter, SearchHit, SearchQuery};
use crate::task::{PassageQuery, RetrieveSpec, TaskSpec};

/// Searches that one batch runs at a time.
const AT_ONCE: usize = 4;

/// Finds passages of stored documents for a query.
pub trait PassageSearch: Send + Sync {
    /// One answer for each of `queries`, in order. An error means that nothing came of it and the whole call is to be tried again.
    fn find<'a>(&'a self, queries: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>>;
}

/// The passages of one query, and their cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundPassages {
    /// The most similar first.
    pub passages: Vec<RetrievedPassage>,
    /// What encoding the query cost.
    pub cost: Cost,
}

/// Has no documents, so that nothing is found.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPassages;

impl PassageSearch for NoPassages {
    fn find<'a>(&'a self, queries: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>> {
        Box::pin(std::future::ready(Ok(vec![Ok(FoundPassages::default()); queries.len()])))
    }
}

/// A query's vector and its cost; absent where the search does not compare vectors.
type EncodedQuery = Result<Option<(QueryVector, Cost)>, Poison>;

/// The documents in the ledger that one tenant may read.
#[derive(Debug, Clone)]
pub struct StoredDocuments {
    reader: Reader,
    engine: Engine,
}

impl StoredDocuments {
    /// Searches what `reader` may read.
    pub fn new(reader: Reader, engine: Engine) -> Self {
        Self { reader, engine }
    }

    async fn passages(&self, query: &PassageQuery, vector: Option<QueryVector>) -> Result<Vec<RetrievedPassage>, Transient> {
        let search = SearchQuery {
            pipeline: query.pipeline.clone(),
            words: Some(query.query.clone()),
            vector,
            fusion: Fusion::default(),
            offset: 0,
            limit: query.limit,
            filter: SearchFilter::default(),
            facets: Vec::new(),
        };
        let hits = self.reader.search(search).await?.hits;
        Ok(hits.into_iter().filter(|hit| is_near(hit, query.min_similarity)).map(passage).collect())
    }

    /// The vector and its cost for each query that compares vectors.
    async fn vectors(&self, queries: &[PassageQuery]) -> Result<Vec<EncodedQuery>, Transient> {
        let mut texts = Vec::with_capacity(queries.len());
        for query in queries {
            texts.extend(query.embedding.as_ref().map(|(task, model)| Query { text: &query.query, task, model }));
        }
        let mut vectors = query::vectors(&self.engine, &texts).await?.into_iter();
        let own = |query: &PassageQuery| query.embedding.as_ref().and_then(|_| vectors.next()).transpose();
        Ok(queries.iter().map(own).collect())
    }
}

impl PassageSearch for StoredDocuments {
    fn find<'a>(&'a self, queries: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>> {
        Box::pin(async move {
            let vectors = self.vectors(queries).await?;
            let find = |(query, vector): (&'a PassageQuery, EncodedQuery)| async move {
                let (vector, cost) = match vector {
                    Ok(vector) => vector.unzip(),
                    Err(poison) => return Ok(Err(poison)),
                };
                let passages = self.passages(query, vector).await?;
                Ok(Ok(FoundPassages { passages, cost: cost.unwrap_or_default() }))
            };
            let searches: Vec<_> = queries.iter().zip(vectors).map(find).collect();
            stream::iter(searches).buffered(AT_ONCE).try_collect().await
        })
    }
}

/// Whether a hit has at least the required similarity, or contains all words of the query.
fn is_near(hit: &SearchHit, least: Option<f64>) -> bool {
    let has_all_words = hit.explanation.text.as_ref().is_some_and(|text| text.all_words == Some(true));
    let similarity = hit.explanation.vector.as_ref().map(|vector| vector.score);
    least.is_none_or(|least| has_all_words || similarity.is_some_and(|similarity| similarity >= least))
}

fn passage(hit: SearchHit) -> RetrievedPassage {
    RetrievedPassage {
        document_id: hit.document_id,
        span: Span { start: hit.chunk.start, end: hit.chunk.end },
        text: hit.chunk.text,
        similarity: hit.explanation.vector.map(|vector| vector.score),
    }
}

/// Problems of `retrieve` tasks whose pipeline, task or model does not exist, which one pipeline file alone cannot tell.
pub fn problems(definitions: &[Definition]) -> Vec<DefinitionProblem> {
    let mut problems = Vec::new();
    for definition in definitions {
        for task in &definition.tasks {
            if let TaskSpec::Retrieve(spec) = &task.spec
                && let Err(problem) = check(spec, definition, definitions)
            {
                let message = format!("task `{}` searches passages {problem}", task.name);
                problems.push(DefinitionProblem::new(&definition.path, Some(task.place), message));
            }
        }
    }
    problems
}

fn check(spec: &RetrieveSpec, definition: &Definition, all: &[Definition]) -> Result<(), String> {
    let name = &spec.pipeline;
    let known = all.iter().filter(|other| other.tenant == definition.tenant);
    let Some(other) = known.clone().find(|other| *other.name == **name) else {
        let near = suggestion(name, known.map(|other| &*other.name));
        return Err(format!("of pipeline `{name}`, which tenant `{}` does not have{near}", definition.tenant));
    };
    let Some((vector, model)) = spec.vector.as_ref().zip(spec.model.as_ref()) else { return Ok(()) };
    let of_kind = other.tasks.iter().filter(|task| task.spec.kind() == "embed");
    match of_kind.clone().find(|task| *task.name == **vector) {
        None => {
            let near = suggestion(vector, of_kind.map(|task| &*task.name));
            Err(format!("by `{vector}`, which is not an embedding task of pipeline `{name}`{near}"))
        }
        Some(task) if task.spec.model() != Some(model) => {
            let other_model = task.spec.model().unwrap_or_default();
            Err(format!("with model `{model}`, but `{vector}` of pipeline `{name}` uses `{other_model}`: name that model"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found_problems(task: &str) -> Vec<String> {
        let parse = |name: &str, tenant: &str, tasks: &str| {
            let file = format!("version: 1\nname: {name}\n{tenant}source: {{ topic: {name} }}\ntasks:\n{tasks}");
            Definition::parse(Path::new("p.yaml"), &file).unwrap()
        };
        let notes = parse("notes", "", "  vector: { embed: { model: minilm } }\n");
        let foreign = parse("secrets", "tenant: other\n", "  vector: { embed: { model: minilm } }\n");
        let asking = parse("questions", "", &format!("  found: {{ retrieve: {task} }}\n"));
        problems(&[notes, foreign, asking]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn passages_of_what_is_not_there_are_told_before_anything_runs() {
        assert_eq!(found_problems("{ pipeline: notes, query: x, vector: vector, model: minilm }"), [""; 0]);
        let wrong = [
            ("{ pipeline: note, query: x }", "of pipeline `note`, which tenant `default` does not have; did you mean `notes`?"),
            ("{ pipeline: secrets, query: x }", "of pipeline `secrets`, which tenant `default` does not have"),
            (
                "{ pipeline: notes, query: x, vector: vectors, model: minilm }",
                "by `vectors`, which is not an embedding task of pipeline `notes`; did you mean `vector`?",
            ),
            (
                "{ pipeline: notes, query: x, vector: vector, model: other }",
                "with model `other`, but `vector` of pipeline `notes` uses `minilm`: name that model",
            ),
        ];
        for (task, expected) in wrong {
            let found = found_problems(task);
            assert_eq!(found.len(), 1, "{task}: {found:?}");
            assert!(found[0].contains(expected), "{task}: {}", found[0]);
        }
    }
}
