//! A pipeline that is ready to run: task graph, evaluator and committer, built once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::batch_budget::Budget;
use super::committer::Committer;
use super::definition::Definition;
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

/// What the partition workers of a pipeline share.
pub struct PipelineRuntime {
    pub evaluator: Evaluator,
    pub committer: Committer,
    pub budget: Budget,
    /// Is told which components are unavailable.
    pub health: Health,
    /// How long one evaluation may take before the process counts as wedged.
    pub watchdog: Duration,
    /// Shared by all pipelines of the process.
    pub isolation: Isolation,
    pub engine: Engine,
    /// Set once a part of the process is wedged; shared by all its pipelines.
    pub wedged: Arc<AtomicBool>,
}

/// What a pipeline runtime is built from.
#[derive(Clone)]
pub struct Dependencies {
    pub engine: Engine,
    pub store: Store,
    /// Where the schemas of Avro records come from, if anywhere.
    pub registry: Option<Registry>,
    /// Where Parquet files are written, if anywhere.
    pub dataset: Option<Dataset>,
    /// Is told which components are unavailable.
    pub health: Health,
    /// How long one evaluation may take.
    pub watchdog: Duration,
    /// Shared by all pipelines of the process.
    pub isolation: Isolation,
    /// Set once a part of the process is wedged; shared by all its pipelines.
    pub wedged: Arc<AtomicBool>,
}

impl Dependencies {
    /// For a process that runs one pipeline without the service: no registry, no dataset, and a health state that nobody reads.
    pub fn alone(engine: Engine, store: Store, watchdog: Duration) -> Self {
        let (health, isolation, wedged) = (Health::new(), Isolation::default(), Arc::default());
        Self { engine, store, registry: None, dataset: None, health, watchdog, isolation, wedged }
    }
}

impl PipelineRuntime {
    /// Builds the task graph and everything around it.
    ///
    /// # Errors
    /// Where a model, a template or the source does not fit, or the pipeline belongs to another tenant in the ledger.
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
            copy: definition.copy.clone(),
            tolerance: definition.tolerance,
            checks_tolerance: AtomicBool::new(true),
            leads: definition.leads.clone(),
            embedding_sets: Mutex::new(HashMap::new()),
        };
        let budget = definition.budget.clone();
        Ok(Arc::new(Self { evaluator, committer, budget, health, watchdog, isolation, engine, wedged }))
    }

    /// Whether neither the process nor the model host is wedged or broken. Only then is it known that no record under way is at
    /// fault.
    pub fn is_sound(&self) -> bool {
        !self.wedged.load(Ordering::Relaxed) && self.engine.health().is_ok()
    }
}

/// Records the pipeline's tenant in the ledger before the pipeline writes anything. A tenant other than the recorded one is
/// refused: otherwise one wrong word in a file would show one tenant's data to another.
async fn enroll(definition: &Definition, store: &Store) -> anyhow::Result<()> {
    let (name, tenant) = (&definition.name, &definition.tenant);
    match store.enroll_pipeline(name, tenant).await? {
        Enrollment::Yes => Ok(()),
        Enrollment::Another(known) => Err(ConfigError(format!(
            "{}: the pipeline file names tenant `{tenant}`, but the pipeline's data belongs to tenant `{known}`; fix `tenant`, or \
             move the data with `tidemill pipelines assign {name} --tenant {tenant}`",
            definition.path.display()
        ))
        .into()),
    }
}
