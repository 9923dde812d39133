//! A pipeline as jobs use it: its works with the priority of backfills, and what it reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::METRICS;
use crate::pipeline::Works;
use crate::pipeline::definition::Definition;
use crate::source::Needs;
use crate::template::{Prints, Template};

/// A pipeline as jobs use it.
pub struct Station {
    /// The pipeline.
    pub definition: Definition,
    /// Its works; what they ask of models stands behind live work.
    pub works: Arc<Works>,
    /// Columns that it reads.
    pub needs: Needs,
    live_is_late: AtomicBool,
}

impl Station {
    /// Makes the pipeline ready for jobs.
    pub fn new(definition: Definition, works: Arc<Works>) -> Self {
        let needs = needs(&definition);
        Self { definition, works, needs, live_is_late: AtomicBool::new(false) }
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

fn needs(definition: &Definition) -> Needs {
    let document = &definition.source.document;
    // The definition was checked with this very template.
    let template = Template::new(document.text.as_deref().unwrap_or("{{ text }}"), Prints::Strings, usize::MAX);
    let text: BTreeSet<String> = template.map(|template| template.variables().iter().cloned().collect()).unwrap_or_default();
    Needs { id: document.id.clone().unwrap_or_else(|| "id".to_owned()), version: document.version.clone(), text }
}
