//! A pipeline as jobs use it: its works with the priority of backfills, and what it reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::METRICS;
use crate::pipeline::definition::Definition;
use crate::pipeline::{Dependencies, PipelineRuntime};
use crate::source::RequestedColumns;
use crate::template::{PrintMode, Template};

/// A pipeline as jobs use it.
pub struct JobPipeline {
    /// The pipeline.
    pub definition: Definition,
    /// Its works; what they ask of models stands behind live work.
    pub runtime: Arc<PipelineRuntime>,
    /// Columns that it reads.
    pub needs: RequestedColumns,
    live_is_late: AtomicBool,
}

impl JobPipeline {
    /// Makes the pipeline ready for jobs. Their rows are JSON objects, whatever the stream's records are.
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

    /// Whether backfills wait, because the live records of this process are too far behind.
    pub fn yields(&self) -> bool {
        self.live_is_late.load(Ordering::Relaxed)
    }

    /// Looks how far the live records are behind.
    pub fn look(&self) {
        let late = METRICS.lag_of(&self.definition.name) > self.definition.backfill.yield_at_lag;
        if self.live_is_late.swap(late, Ordering::Relaxed) != late {
            tracing::info!(pipeline = %self.definition.name, late, "live records decide over backfills");
        }
    }
}

/// What the pipeline reads of a row.
pub fn needs(definition: &Definition) -> RequestedColumns {
    let document = &definition.source.document;
    // The definition was checked with this very template.
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
