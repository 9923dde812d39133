//! A pipeline made ready to run: task graph, evaluator and committer, put together once.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::committer::Committer;
use super::definition::{Budget, Definition};
use super::evaluator::Evaluator;
use super::graph::Graph;
use super::isolation::Isolation;
use super::passages::StoredDocuments;
use crate::config::ConfigError;
use crate::engine::Engine;
use crate::health::Health;
use crate::sink::Dataset;
use crate::source::Registry;
use crate::store::{Enrollment, Store};

/// What the lanes of a pipeline share.
pub struct PipelineRuntime {
    /// Makes fates of records.
    pub evaluator: Evaluator,
    /// Commits them.
    pub committer: Committer,
    /// When a batch is full.
    pub budget: Budget,
    /// Told what is out of order.
    pub health: Health,
    /// How long one evaluation may take before the model host counts as wedged.
    pub watchdog: Duration,
    /// Shared by all pipelines of the process.
    pub isolation: Isolation,
    /// The model host.
    pub engine: Engine,
    /// Set once anything of the process is wedged; shared by all its pipelines.
    pub wedged: Arc<AtomicBool>,
}

/// What a pipeline is made ready with.
#[derive(Clone)]
pub struct Dependencies {
    /// The model host.
    pub engine: Engine,
    /// The ledger.
    pub store: Store,
    /// Where the schemas of Avro records come from, if anywhere.
    pub registry: Option<Registry>,
    /// Where Parquet files go, if anywhere.
    pub dataset: Option<Dataset>,
    /// Told what is out of order.
    pub health: Health,
    /// How long one evaluation may take.
    pub watchdog: Duration,
    /// What the pipelines of the process share about records that are tried alone.
    pub isolation: Isolation,
    /// Set once anything of the process is wedged.
    pub wedged: Arc<AtomicBool>,
}

impl Dependencies {
    /// What a process has that runs one pipeline and no service: no registry, no dataset, and nobody who looks at its health.
    pub fn alone(engine: Engine, store: Store, watchdog: Duration) -> Self {
        let (health, isolation, wedged) = (Health::new(), Isolation::default(), Arc::default());
        Self { engine, store, registry: None, dataset: None, health, watchdog, isolation, wedged }
    }
}

impl PipelineRuntime {
    /// Makes the pipeline ready.
    ///
    /// # Errors
    /// Where a model, a template or the source does not fit, or the ledger knows the pipeline as another tenant's.
    pub async fn new(definition: &Definition, dependencies: Dependencies) -> anyhow::Result<Arc<Self>> {
        let Dependencies { engine, store, registry, dataset, health, watchdog, isolation, wedged } = dependencies;
        enroll(definition, &store).await?;
        let documents = StoredDocuments::new(store.pipeline_reader(definition.tenant.clone()), engine.clone());
        let graph = Graph::build(definition, &engine).await?.with_passage_search(Arc::new(documents));
        let evaluator = Evaluator::new(definition, graph, store.clone())?.with_registry(registry);
        let committer = Committer {
            pipeline: definition.name.clone(),
            tasks: evaluator.graph().tasks().cloned().collect(),
            lineages: evaluator.graph().lineages(),
            prompts: evaluator.graph().prompts().cloned().collect(),
            prompts_kept: OnceCell::new(),
            store,
            dataset,
            results_topic: definition.sinks.topic.as_ref().map(|topic| topic.name.clone()),
            dead_letter_topic: definition.sinks.dead_letters.as_ref().map(|topic| topic.name.clone()),
            health: health.clone(),
            catalogue: definition.copy.clone(),
            tolerance: definition.tolerance,
            wary: AtomicBool::new(true),
            leads: definition.leads.clone(),
            embedding_sets: Mutex::new(HashMap::new()),
        };
        let budget = definition.budget.clone();
        Ok(Arc::new(Self { evaluator, committer, budget, health, watchdog, isolation, engine, wedged }))
    }
}

/// Says whose the pipeline is before it makes anything. Another tenant than before is refused: one wrong word in a file would show
/// everything that was made for one tenant to another.
async fn enroll(definition: &Definition, store: &Store) -> anyhow::Result<()> {
    let (name, tenant) = (&definition.name, &definition.tenant);
    match store.enroll_pipeline(name, tenant).await? {
        Enrollment::Yes => Ok(()),
        Enrollment::Another(known) => Err(ConfigError(format!(
            "{}: the pipeline is tenant `{tenant}`'s here, and what it has made so far is tenant `{known}`'s; mend `tenant`, or hand all of it \
             over with `tidemill pipelines assign {name} --tenant {tenant}`",
            definition.path.display()
        ))
        .into()),
    }
}
