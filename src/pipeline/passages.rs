//! Passages of stored documents, for tasks that write from them.

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

/// Searches that one batch has under way at a time. The batches of other partitions have theirs.
const AT_ONCE: usize = 4;

/// Finds passages.
pub trait PassageSearch: Send + Sync {
    /// One answer for each of `seeks`, in order. An error means that nothing came of it and the whole call is to be tried again.
    fn find<'a>(&'a self, seeks: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>>;
}

/// What was found, and what it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundPassages {
    /// The passages, the nearest first.
    pub passages: Vec<RetrievedPassage>,
    /// What the query's vector took.
    pub cost: Cost,
}

/// Has no documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPassages;

impl PassageSearch for NoPassages {
    fn find<'a>(&'a self, seeks: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>> {
        Box::pin(std::future::ready(Ok(vec![Ok(FoundPassages::default()); seeks.len()])))
    }
}

/// A query's vector with what it took, where vectors are compared.
type EncodedQuery = Result<Option<(QueryVector, Cost)>, Poison>;

/// The documents of the ledger, as one tenant sees them.
#[derive(Debug, Clone)]
pub struct StoredDocuments {
    reader: Reader,
    engine: Engine,
}

impl StoredDocuments {
    /// What `reader` may read.
    pub fn new(reader: Reader, engine: Engine) -> Self {
        Self { reader, engine }
    }

    async fn passages(&self, seek: &PassageQuery, vector: Option<QueryVector>) -> Result<Vec<RetrievedPassage>, Transient> {
        let query = SearchQuery {
            pipeline: seek.pipeline.clone(),
            words: Some(seek.query.clone()),
            vector,
            fusion: Fusion::default(),
            offset: 0,
            limit: seek.limit,
            filter: SearchFilter::default(),
            facets: Vec::new(),
        };
        let hits = self.reader.search(query).await?.hits;
        Ok(hits.into_iter().filter(|hit| is_near(hit, seek.min_similarity)).map(passage).collect())
    }

    /// The vectors of the queries that are compared by any; each with what it took.
    async fn vectors(&self, seeks: &[PassageQuery]) -> Result<Vec<EncodedQuery>, Transient> {
        let mut queries = Vec::with_capacity(seeks.len());
        for seek in seeks {
            queries.extend(seek.embedding.as_ref().map(|(task, model)| Query { text: &seek.query, task, model }));
        }
        let mut vectors = query::vectors(&self.engine, &queries).await?.into_iter();
        let own = |seek: &PassageQuery| seek.embedding.as_ref().and_then(|_| vectors.next()).transpose();
        Ok(seeks.iter().map(own).collect())
    }
}

impl PassageSearch for StoredDocuments {
    fn find<'a>(&'a self, seeks: &'a [PassageQuery]) -> BoxFuture<'a, Result<Vec<Result<FoundPassages, Poison>>, Transient>> {
        Box::pin(async move {
            let vectors = self.vectors(seeks).await?;
            let find = |(seek, vector): (&'a PassageQuery, EncodedQuery)| async move {
                let (vector, cost) = match vector {
                    Ok(vector) => vector.unzip(),
                    Err(poison) => return Ok(Err(poison)),
                };
                let passages = self.passages(seek, vector).await?;
                Ok(Ok(FoundPassages { passages, cost: cost.unwrap_or_default() }))
            };
            let searches: Vec<_> = seeks.iter().zip(vectors).map(find).collect();
            stream::iter(searches).buffered(AT_ONCE).try_collect().await
        })
    }
}

/// Whether a hit is as like the query as it must be, or has all its words.
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

/// Tasks that look for passages where there is no such pipeline, task or model. A file alone cannot tell.
pub fn problems(definitions: &[Definition]) -> Vec<DefinitionProblem> {
    let mut problems = Vec::new();
    for definition in definitions {
        for task in &definition.tasks {
            if let TaskSpec::Retrieve(spec) = &task.spec
                && let Err(problem) = fits(spec, definition, definitions)
            {
                let told = format!("task `{}` looks for passages {problem}", task.name);
                problems.push(DefinitionProblem::new(&definition.path, Some(task.place), told));
            }
        }
    }
    problems
}

fn fits(spec: &RetrieveSpec, definition: &Definition, all: &[Definition]) -> Result<(), String> {
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
            Err(format!("by `{vector}`, which is no embedding task of pipeline `{name}`{near}"))
        }
        Some(task) if task.spec.model() != Some(model) => {
            let theirs = task.spec.model().unwrap_or_default();
            Err(format!("with model `{model}`, but `{vector}` of pipeline `{name}` has the vectors of `{theirs}`: name that one"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn told(task: &str) -> Vec<String> {
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
        assert_eq!(told("{ pipeline: notes, query: x, vector: vector, model: minilm }"), [""; 0]);
        let wrong = [
            ("{ pipeline: note, query: x }", "of pipeline `note`, which tenant `default` does not have; did you mean `notes`?"),
            ("{ pipeline: secrets, query: x }", "of pipeline `secrets`, which tenant `default` does not have"),
            (
                "{ pipeline: notes, query: x, vector: vectors, model: minilm }",
                "by `vectors`, which is no embedding task of pipeline `notes`; did you mean `vector`?",
            ),
            (
                "{ pipeline: notes, query: x, vector: vector, model: other }",
                "with model `other`, but `vector` of pipeline `notes` has the vectors of `minilm`: name that one",
            ),
        ];
        for (task, expected) in wrong {
            let found = told(task);
            assert_eq!(found.len(), 1, "{task}: {found:?}");
            assert!(found[0].contains(expected), "{task}: {}", found[0]);
        }
    }
}
