//! A pipeline as jobs run it: with the priority of backfills, and with the columns that it reads of a file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::METRICS;
use crate::pipeline::definition::Definition;
use crate::pipeline::{Dependencies, PipelineRuntime};
use crate::source::RequestedColumns;
use crate::template::{PrintMode, Template};

/// A pipeline as jobs run it.
pub struct JobPipeline {
    pub definition: Definition,
    /// Its model requests have a lower priority than those of live records.
    pub runtime: Arc<PipelineRuntime>,
    /// The columns that it reads.
    pub needs: RequestedColumns,
    live_is_late: AtomicBool,
}

impl JobPipeline {
    /// Builds the pipeline for jobs, whose rows are JSON objects, whatever the format of the stream.
    ///
    /// # Errors
    /// Where a model, a template or the source does not fit.
    pub async fn new(definition: &Definition, dependencies: Dependencies) -> anyhow::Result<Self> {
        let mut definition = definition.clone();
        definition.source.document = definition.source.document.in_json();
        let runtime = PipelineRuntime::new(&definition, dependencies).await?;
        let needs = needs(&definition);
        Ok(Self { definition, runtime, needs, live_is_late: AtomicBool::new(false) })
    }

    /// Whether backfills wait because this process lags too far behind its live topic.
    pub fn yields(&self) -> bool {
        self.live_is_late.load(Ordering::Relaxed)
    }

    /// Compares the lag of the live topic with the pipeline's limit.
    pub fn check_live_lag(&self) {
        let late = METRICS.lag_of(&self.definition.name) > self.definition.backfill.yield_at_lag;
        if self.live_is_late.swap(late, Ordering::Relaxed) != late {
            tracing::info!(pipeline = %self.definition.name, late, "the lag of live records has changed whether backfills wait");
        }
    }
}

/// The columns that the pipeline reads of a row.
pub fn needs(definition: &Definition) -> RequestedColumns {
    let document = &definition.source.document;
    // The template compiles: the definition was checked with it.
    let template = Template::new(document.text.as_deref().unwrap_or("{{ text }}"), PrintMode::Strings, usize::MAX);
    let (mut text, mut optional) = (BTreeSet::new(), BTreeSet::new());
    if let Ok(template) = template {
        text.extend(template.variables().iter().cloned());
        optional.extend(text.iter().filter(|name| template.is_optional(name)).cloned());
    }
    RequestedColumns {
        id: document.id.clone().unwrap_or_else(|| "id".to_owned()),
        version: document.version.clone(),
        text,
        optional,
        metadata: document.metadata.iter().cloned().collect(),
        deleted: document.delete.as_ref().and_then(|delete| delete.id.clone()),
    }
}
