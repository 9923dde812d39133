//! What people see of pipelines over HTTP: their graphs, their last 24 hours, their dead letters and their parked events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Tenant;
use crate::failure::Transient;
use crate::pipeline::definition::{Definition, TaskDefinition};
use crate::store::{
    DailyCounts, DeadLetter, DeadLetterFilter, DeadLetterSummary, ParkedEvent, ParkedEventFilter, Reader, ReplaySummary, Store,
};

/// The maximum number of dead letters in one list, and of records in one replay.
pub const MAX_DEAD_LETTERS: i64 = 1_000;

/// How many bytes of a payload are shown.
const MAX_PAYLOAD_BYTES: i32 = 64 << 10;

/// How often a record is replayed from here. The command line can replay it more often.
const MAX_REPLAYS: i32 = 3;

/// The pipelines of one process. Clones share everything. Every method fails if the database is unavailable.
#[derive(Debug, Clone)]
pub struct Dashboard {
    store: Store,
    reader: Reader,
    pipelines: Arc<Vec<OwnedPipeline>>,
    price_per_device_hour: Option<f64>,
}

#[derive(Debug, Clone)]
struct OwnedPipeline {
    tenant: Arc<str>,
    plan: PipelinePlan,
}

/// The parts of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PipelinePlan {
    /// The pipeline's name.
    pub name: String,
    /// The topic that the pipeline reads.
    pub topic: String,
    /// The tasks, in the order of the pipeline's file.
    pub tasks: Vec<TaskPlan>,
    /// The sinks; the database is always the first.
    pub sinks: Vec<SinkPlan>,
}

/// A task of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskPlan {
    /// The task's name.
    pub name: String,
    /// The kind of task, as pipeline files name it.
    pub kind: String,
    /// The model that the task uses, if it uses one.
    pub model: Option<String>,
    /// The tasks whose output this task reads.
    pub needs: Vec<String>,
    /// The tasks that only the condition of this task reads.
    pub watches: Vec<String>,
    /// The condition, if there is one.
    pub when: Option<String>,
    /// The number of tasks that must run before this one, one after the other.
    pub level: usize,
}

/// A sink of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SinkPlan {
    /// `postgres`, `parquet`, `topic`, `dead_letters`, `accounts` (a topic of companies) or `webhook`.
    pub kind: String,
    /// The name of the dataset, the topic or the webhook; `postgres` has none.
    pub name: Option<String>,
}

/// A pipeline with its state and its last 24 hours.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PipelineView {
    #[serde(flatten)]
    pub plan: PipelinePlan,
    /// Whether the pipeline is stopped.
    pub stopped: bool,
    /// Why it is stopped.
    pub reason: Option<String>,
    /// What it committed in the last 24 hours.
    pub today: LastDayTotals,
}

/// What a pipeline committed in the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct LastDayTotals {
    /// Records.
    pub records: i64,
    /// Outputs that were computed: one a record and task.
    pub ok: i64,
    /// Outputs that were reused from earlier computations.
    pub reused: i64,
    /// Tasks of records that were skipped, because a condition did not hold.
    pub skipped: i64,
    /// Dead letters that still exist: one a record if the record is at fault, one a record and task if a task failed.
    pub dead_letters: i64,
    /// Tokens that models read.
    pub tokens: i64,
    /// Tokens that models generated.
    pub generated_tokens: i64,
    /// Device time.
    pub device_seconds: f64,
    /// The cost of the device time, if a price is configured.
    pub cost: Option<f64>,
}

/// The number of dead letters of one class in one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterCount {
    pub pipeline: String,
    /// The failure class.
    pub class: String,
    /// The number of dead letters.
    pub letters: i64,
}

/// A dead letter with its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterView {
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// The record's timestamp, in Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The record's key, with replacement characters for bytes that are not UTF-8.
    pub key: Option<String>,
    /// The record's headers, with replacement characters for bytes that are not UTF-8.
    pub headers: BTreeMap<String, Option<String>>,
    /// The first 64 KiB of the record's payload, with replacement characters for bytes that are not UTF-8.
    pub payload: Option<String>,
    /// The size of the whole payload in bytes.
    pub payload_bytes: i64,
}

impl Dashboard {
    /// The dashboard of these pipelines.
    pub fn new(store: Store, definitions: &[Definition], price_per_device_hour: Option<f64>) -> Self {
        let owned = |definition: &Definition| OwnedPipeline { tenant: definition.tenant.clone(), plan: plan(definition) };
        let pipelines = Arc::new(definitions.iter().map(owned).collect());
        Self { reader: store.reader(None), store, pipelines, price_per_device_hour }
    }

    /// The same dashboard with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let own = self.pipelines.iter().filter(|pipeline| tenant.owns(&pipeline.plan.name, &pipeline.tenant)).cloned().collect();
        Self { reader: self.reader.of(tenant.name.clone()), pipelines: Arc::new(own), ..self.clone() }
    }

    /// The price of a device hour, if one is configured.
    pub fn price_per_device_hour(&self) -> Option<f64> {
        self.price_per_device_hour
    }

    /// The pipelines of this process, with their states and their last 24 hours.
    pub async fn pipelines(&self) -> Result<Vec<PipelineView>, Transient> {
        let counts: HashMap<String, DailyCounts> =
            self.reader.last_day().await?.into_iter().map(|day| (day.pipeline.clone(), day)).collect();
        let stops: HashMap<String, _> = self.store.stopped_pipelines().await?.into_iter().collect();
        let view = |pipeline: &OwnedPipeline| {
            let stop = stops.get(&pipeline.plan.name);
            PipelineView {
                plan: pipeline.plan.clone(),
                stopped: stop.is_some(),
                reason: stop.map(|stop| stop.reason.clone()),
                today: counts.get(&pipeline.plan.name).map(|day| self.today(day)).unwrap_or_default(),
            }
        };
        Ok(self.pipelines.iter().map(view).collect())
    }

    fn today(&self, day: &DailyCounts) -> LastDayTotals {
        let work = &day.work;
        let device_seconds = work.device_micros as f64 / 1e6;
        LastDayTotals {
            records: day.records,
            ok: work.ok,
            reused: work.reused,
            skipped: work.skipped,
            dead_letters: day.dead_letters,
            tokens: work.tokens,
            generated_tokens: work.generated_tokens,
            device_seconds,
            cost: self.price_per_device_hour.map(|price| device_seconds / 3600.0 * price),
        }
    }

    /// The latest dead letters that match the filter, and the number of each class.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: i64,
    ) -> Result<(Vec<DeadLetterCount>, Vec<DeadLetterSummary>), Transient> {
        let counts = self.reader.dead_letter_counts(filter).await?;
        let counts = counts.into_iter().map(|(pipeline, class, letters)| DeadLetterCount { pipeline, class, letters }).collect();
        Ok((counts, self.reader.dead_letters(filter, limit.clamp(1, MAX_DEAD_LETTERS)).await?))
    }

    /// A dead letter; none if it does not exist or belongs to another tenant.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetterView>, Transient> {
        Ok(self.reader.dead_letter(id, MAX_PAYLOAD_BYTES).await?.map(DeadLetterView::from))
    }

    /// The latest events that their topic refused.
    pub async fn parked_events(&self) -> Result<Vec<ParkedEvent>, Transient> {
        self.reader.parked_events(&ParkedEventFilter::default(), MAX_DEAD_LETTERS).await
    }

    /// Replays the records of the latest dead letters that match the filter and were not replayed yet, at most
    /// [`MAX_DEAD_LETTERS`]. Dead letters of pipelines that this process does not have are left alone. If the database is
    /// unavailable, nothing is replayed.
    pub async fn replay(&self, filter: DeadLetterFilter) -> Result<ReplaySummary, Transient> {
        let waiting = DeadLetterFilter { replayed: Some(false), ..filter };
        // Chosen with the caller's permissions, so that nobody replays dead letters that they cannot see.
        let ids: Vec<i64> =
            self.reader.dead_letters(&waiting, MAX_DEAD_LETTERS).await?.into_iter().map(|letter| letter.id).collect();
        if ids.is_empty() {
            return Ok(ReplaySummary::default());
        }
        let topics = self.pipelines.iter().map(|pipeline| (pipeline.plan.name.clone(), pipeline.plan.topic.clone())).collect();
        self.store.replay(&DeadLetterFilter { ids, ..DeadLetterFilter::default() }, &topics, MAX_REPLAYS, false).await
    }
}

fn plan(definition: &Definition) -> PipelinePlan {
    let (sinks, leads) = (&definition.sinks, definition.leads.as_ref());
    let sink = |kind: &str, name: Option<String>| SinkPlan { kind: kind.to_owned(), name };
    let named = [
        sinks.parquet.as_ref().map(|parquet| sink("parquet", Some(parquet.dataset.value.clone()))),
        sinks.topic.as_ref().map(|topic| sink("topic", Some(topic.name.clone()))),
        sinks.dead_letters.as_ref().map(|topic| sink("dead_letters", Some(topic.name.clone()))),
        leads.and_then(|leads| leads.accounts.as_ref()).map(|accounts| sink("accounts", Some(accounts.topic.clone()))),
        leads.and_then(|leads| leads.webhook.clone()).map(|name| sink("webhook", Some(name))),
    ];
    PipelinePlan {
        name: definition.name.to_string(),
        topic: definition.source.topic.clone(),
        tasks: definition.tasks.iter().map(task).collect(),
        sinks: std::iter::once(sink("postgres", None)).chain(named.into_iter().flatten()).collect(),
    }
}

fn task(task: &TaskDefinition) -> TaskPlan {
    let names = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect();
    TaskPlan {
        name: task.name.to_string(),
        kind: task.spec.kind().to_owned(),
        model: task.spec.model().map(str::to_owned),
        needs: names(&task.needs),
        watches: names(&task.watches),
        when: task.when.clone(),
        level: task.level,
    }
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            summary: letter.summary,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key.map(text),
            headers: letter.headers.into_iter().map(|(name, value)| (name, value.map(text))).collect(),
            payload: letter.payload.map(text),
            payload_bytes: letter.payload_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_plan_of_a_pipeline_is_that_of_its_file() {
        let text = "version: 1\nname: notes\nsource: { topic: t }\ntasks:\n  a: { render: { template: x } }\n  \
                    b: { render: { template: '{{ a.text }}' }, when: \"document.characters > 3\" }\n\
                    sinks: { parquet: { dataset: results }, dead_letters: { name: dead } }\n";
        let plan = plan(&Definition::parse(Path::new("notes.yaml"), text).unwrap());
        assert_eq!((plan.name.as_str(), plan.topic.as_str()), ("notes", "t"));
        let levels: Vec<_> = plan.tasks.iter().map(|task| (task.name.as_str(), task.level, task.needs.clone())).collect();
        assert_eq!(levels, [("a", 0, vec![]), ("b", 1, vec!["a".to_owned()])]);
        assert_eq!(plan.tasks[1].when.as_deref(), Some("document.characters > 3"));
        let sinks: Vec<_> = plan.sinks.iter().map(|sink| (sink.kind.as_str(), sink.name.as_deref())).collect();
        assert_eq!(sinks, [("postgres", None), ("parquet", Some("results")), ("dead_letters", Some("dead"))]);
    }
}
