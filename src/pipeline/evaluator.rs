//! Evaluates a micro-batch: one outcome for each of its records.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::batch::MicroBatch;
use super::definition::Definition;
use super::graph::{Graph, KnownResults, NoKnownResults, WantedResult};
use super::record_outcome::RecordOutcome;
use super::versions::{sort_out, withhold};
use crate::document::avro::Schemas;
use crate::document::{DecodedRecord, Decoder, Document};
use crate::failure::{Component, Poison, Transient};
use crate::outcome::{ComputedOutput, Cost, Fingerprint, ReusedOutput};
use crate::record::Record;
use crate::source::Registry;
use crate::store::{Store, StoredVersion};

/// Decodes records, resolves versions and runs the task graph.
pub struct Evaluator {
    pipeline: Arc<str>,
    decoder: Decoder,
    graph: Graph,
    store: Store,
    registry: Option<Registry>,
}

impl Evaluator {
    /// # Errors
    /// Where the source's templates do not compile.
    pub fn new(definition: &Definition, graph: Graph, store: Store) -> anyhow::Result<Self> {
        let decoder = Decoder::new(&definition.source.document)?;
        Ok(Self { pipeline: definition.name.clone(), decoder, graph, store, registry: None })
    }

    /// Uses the registry for the schemas that records name.
    pub fn with_registry(self, registry: Option<Registry>) -> Self {
        Self { registry, ..self }
    }

    /// The task graph of the pipeline.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The outcome of each record of the batch, in order.
    ///
    /// # Errors
    /// Where the ledger, the model host or the registry is unavailable. The batch is then to be evaluated again as a whole.
    pub async fn evaluate(&self, batch: &MicroBatch) -> Result<Vec<RecordOutcome>, Transient> {
        tidemill_base::failpoint!("evaluate-lethal", batch.records.iter().any(|r| r.key.as_deref() == Some(b"lethal")), |_| {
            std::process::abort()
        });
        let schemas = self.schemas(&batch.records).await?;
        let decode = |record| self.decoder.decode(record, &schemas);
        let decoded: Vec<Result<DecodedRecord, Poison>> = batch.records.iter().map(decode).collect();
        let ids: Vec<String> = decoded.iter().flatten().map(|decoded| id(decoded).to_string()).collect();
        let known = self.store.versions(&self.pipeline, &ids).await?;
        let ledger = Ledger { pipeline: &self.pipeline, store: &self.store, known: &known };
        let mut record_outcomes = sort_out(decoded, &known);
        withhold(&batch.records, &mut record_outcomes, &known);
        self.run(record_outcomes, &ledger).await
    }

    /// The outcome of each record as if the ledger were empty: nothing is superseded by it, and no result is reused.
    ///
    /// # Errors
    /// Where the model host or the schema registry is unavailable.
    pub async fn evaluate_afresh(&self, records: &[Record]) -> Result<Vec<RecordOutcome>, Transient> {
        let schemas = self.schemas(records).await?;
        let decoded = records.iter().map(|record| self.decoder.decode(record, &schemas)).collect();
        self.run(sort_out(decoded, &HashMap::new()), &NoKnownResults).await
    }

    /// Runs the task graph on the documents among `record_outcomes`.
    async fn run(
        &self,
        mut record_outcomes: Vec<RecordOutcome>,
        known: &dyn KnownResults,
    ) -> Result<Vec<RecordOutcome>, Transient> {
        let (indices, documents) = take_documents(&mut record_outcomes);
        let outcomes = self.graph.evaluate(&documents, known).await?;
        for ((index, document), outcomes) in indices.into_iter().zip(documents).zip(outcomes) {
            record_outcomes[index] = RecordOutcome::Document(document, outcomes);
        }
        Ok(record_outcomes)
    }

    async fn schemas(&self, records: &[Record]) -> Result<Schemas, Transient> {
        let ids = self.decoder.schema_ids(records);
        match &self.registry {
            _ if ids.is_empty() => Ok(Schemas::none()),
            Some(registry) => registry.schemas(&ids).await,
            None => {
                let reason = "records name schemas, but no schema registry is configured; set `schema_registry.url`".to_owned();
                Err(Transient::new(Component::Registry, reason))
            }
        }
    }
}

/// Takes the documents out of `record_outcomes`, with their indices. Their places hold a placeholder until they are put back.
fn take_documents(record_outcomes: &mut [RecordOutcome]) -> (Vec<usize>, Vec<Document>) {
    let taken = record_outcomes
        .iter_mut()
        .enumerate()
        .filter(|(_, record_outcome)| matches!(record_outcome, RecordOutcome::Document(..)));
    let taken = taken.filter_map(|(index, record_outcome)| match std::mem::replace(record_outcome, RecordOutcome::Superseded) {
        RecordOutcome::Document(document, _) => Some((index, document)),
        _ => None,
    });
    taken.unzip()
}

fn id(decoded: &DecodedRecord) -> &Arc<str> {
    match decoded {
        DecodedRecord::Document(document) => &document.id,
        DecodedRecord::Tombstone { id, .. } => id,
    }
}

/// The results in the ledger, as the task graph looks them up.
struct Ledger<'a> {
    pipeline: &'a str,
    store: &'a Store,
    known: &'a HashMap<String, StoredVersion>,
}

impl KnownResults for Ledger<'_> {
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>> {
        Box::pin(self.find(wanted))
    }
}

impl Ledger<'_> {
    async fn find(&self, wanted: &[WantedResult]) -> Result<Vec<Option<ReusedOutput>>, Transient> {
        let unchanged = self.unchanged(wanted).await?;
        let missing = wanted.iter().zip(&unchanged).filter(|(w, unchanged)| !w.made && (w.output || !**unchanged));
        let fingerprints: Vec<Fingerprint> = missing.map(|(w, _)| w.fingerprint).collect();
        let outputs = match fingerprints.is_empty() {
            true => HashMap::new(),
            false => self.store.outputs(self.pipeline, &fingerprints).await?,
        };
        let answer = |(wanted, unchanged): (&WantedResult, bool)| {
            let fingerprint = wanted.fingerprint;
            let found = outputs.get(&fingerprint);
            match (unchanged, found) {
                // The row has been deleted since, together with the output that a later task reads.
                (true, None) if wanted.output && !wanted.made => None,
                (true, found) => Some(ReusedOutput::Unchanged { fingerprint, output: found.map(|(output, _)| output.clone()) }),
                (false, found) => found.map(|(output, tokens)| {
                    let cost = Cost { tokens: *tokens, ..Cost::default() };
                    ReusedOutput::Copied(ComputedOutput { output: output.clone(), fingerprint, cost })
                }),
            }
        };
        Ok(wanted.iter().zip(unchanged).map(answer).collect())
    }

    /// For each of `wanted`, whether its row holds the result already. Documents that the ledger does not know are not looked up.
    async fn unchanged(&self, wanted: &[WantedResult]) -> Result<Vec<bool>, Transient> {
        let has_rows = |wanted: &WantedResult| self.known.get(&*wanted.document_id).is_some_and(|known| !known.deleted);
        let rows: Vec<_> = wanted
            .iter()
            .filter(|wanted| has_rows(wanted))
            .map(|wanted| (wanted.document_id.to_string(), wanted.task.to_string(), wanted.fingerprint))
            .collect();
        if rows.is_empty() {
            return Ok(vec![false; wanted.len()]);
        }
        let mut found = self.store.unchanged(self.pipeline, &rows).await?.into_iter();
        Ok(wanted.iter().map(|wanted| has_rows(wanted) && found.next().unwrap_or(false)).collect())
    }
}
