//! The board: which pipelines there are, what they did of late, and what they could not do. What people look at, over HTTP.

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

/// Letters that one list holds at most, and one replay takes.
pub const MAX_DEAD_LETTERS: i64 = 1_000;

/// Bytes of a payload that are shown.
const MAX_PAYLOAD_BYTES: i32 = 64 << 10;

/// Times that a record is sent again before that takes the command line, which can be told to go on.
const MAX_REPLAYS: i32 = 3;

/// Shows the pipelines of one process. Clones share it.
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

/// What a pipeline is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PipelinePlan {
    /// Its name.
    pub name: String,
    /// The topic that it reads.
    pub topic: String,
    /// Its tasks, in the order of the file.
    pub tasks: Vec<TaskPlan>,
    /// Where results go besides the ledger.
    pub sinks: Vec<SinkPlan>,
}

/// A task of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskPlan {
    /// Its name.
    pub name: String,
    /// What it does, as pipeline files call it.
    pub kind: String,
    /// The model that it asks, where it asks one.
    pub model: Option<String>,
    /// Tasks whose output it reads.
    pub needs: Vec<String>,
    /// Tasks that only its condition reads.
    pub watches: Vec<String>,
    /// The condition.
    pub when: Option<String>,
    /// How many tasks run one after the other before it.
    pub level: usize,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SinkPlan {
    /// `postgres`, `parquet`, `topic`, `dead_letters`, `accounts` (a topic of companies) or `webhook`.
    pub kind: String,
    /// The dataset, the topic or the receiver; the ledger has no name.
    pub name: Option<String>,
}

/// A pipeline, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PipelineView {
    /// What it is made of.
    #[serde(flatten)]
    pub plan: PipelinePlan,
    /// Whether it is stopped.
    pub stopped: bool,
    /// Why, where it is.
    pub reason: Option<String>,
    /// What it committed in the last 24 hours.
    pub today: LastDayTotals,
}

/// What a pipeline committed in the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct LastDayTotals {
    /// Records.
    pub records: i64,
    /// (record, task) units computed.
    pub ok: i64,
    /// Units taken over from earlier computations.
    pub reused: i64,
    /// Units rightly not done.
    pub skipped: i64,
    /// Dead letters: one a record where the record is at fault, one a task where a task could not be done; without those that were
    /// purged since.
    pub dead_letters: i64,
    /// Tokens that models read.
    pub tokens: i64,
    /// Tokens that models wrote.
    pub generated_tokens: i64,
    /// Device time.
    pub device_seconds: f64,
    /// What that cost, where an hour has a price.
    pub cost: Option<f64>,
}

/// Letters of one class in one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterCount {
    /// The pipeline.
    pub pipeline: String,
    /// The class of fault.
    pub class: String,
    /// How many there are.
    pub letters: i64,
}

/// A letter with everything that can be shown of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterView {
    /// Everything but the record.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// The record's timestamp, in Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The record's key; what is no UTF-8 is replaced.
    pub key: Option<String>,
    /// The record's headers; what is no UTF-8 is replaced.
    pub headers: BTreeMap<String, Option<String>>,
    /// The beginning of the record's payload; what is no UTF-8 is replaced.
    pub payload: Option<String>,
    /// Bytes of the whole payload.
    pub payload_bytes: i64,
}

impl Dashboard {
    /// The board of these pipelines.
    pub fn new(store: Store, definitions: &[Definition], price_per_device_hour: Option<f64>) -> Self {
        let entry = |definition: &Definition| OwnedPipeline { tenant: definition.tenant.clone(), plan: plan(definition) };
        let pipelines = Arc::new(definitions.iter().map(entry).collect());
        Self { reader: store.reader(None), store, pipelines, price_per_device_hour }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.pipelines.iter().filter(|entry| tenant.owns(&entry.plan.name, &entry.tenant)).cloned().collect();
        Self { reader: self.reader.of(tenant.name.clone()), pipelines: Arc::new(theirs), ..self.clone() }
    }

    /// What an hour of a device costs, where the operator has said so.
    pub fn price_per_device_hour(&self) -> Option<f64> {
        self.price_per_device_hour
    }

    /// The pipelines of this process, and how they do.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn pipelines(&self) -> Result<Vec<PipelineView>, Transient> {
        let figures: HashMap<String, DailyCounts> =
            self.reader.last_day().await?.into_iter().map(|day| (day.pipeline.clone(), day)).collect();
        let stops: HashMap<String, _> = self.store.stopped_pipelines().await?.into_iter().collect();
        let view = |entry: &OwnedPipeline| {
            let stop = stops.get(&entry.plan.name);
            PipelineView {
                plan: entry.plan.clone(),
                stopped: stop.is_some(),
                reason: stop.map(|stop| stop.reason.clone()),
                today: figures.get(&entry.plan.name).map(|day| self.today(day)).unwrap_or_default(),
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

    /// The latest letters that the filter lets through, and how many there are of each class.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn letters(
        &self,
        filter: &DeadLetterFilter,
        limit: i64,
    ) -> Result<(Vec<DeadLetterCount>, Vec<DeadLetterSummary>), Transient> {
        let counts = self.reader.dead_letter_counts(filter).await?;
        let counts = counts.into_iter().map(|(pipeline, class, letters)| DeadLetterCount { pipeline, class, letters }).collect();
        Ok((counts, self.reader.dead_letters(filter, limit.clamp(1, MAX_DEAD_LETTERS)).await?))
    }

    /// A letter; `None` where there is none, or it is another's.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn letter(&self, id: i64) -> Result<Option<DeadLetterView>, Transient> {
        Ok(self.reader.dead_letter(id, MAX_PAYLOAD_BYTES).await?.map(DeadLetterView::from))
    }

    /// The latest events that their topic could not take.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn parked_events(&self) -> Result<Vec<ParkedEvent>, Transient> {
        self.reader.parked_events(&ParkedEventFilter::default(), MAX_DEAD_LETTERS).await
    }

    /// Sends the records of the letters again that the filter lets through and that were not sent yet, the latest
    /// [`MAX_DEAD_LETTERS`] of them. Those of pipelines that this process does not have stay.
    ///
    /// # Errors
    /// Where the database is unavailable; nothing is sent then.
    pub async fn replay(&self, filter: DeadLetterFilter) -> Result<ReplaySummary, Transient> {
        let waiting = DeadLetterFilter { replayed: Some(false), ..filter };
        // Chosen with the eyes of whoever asks, who may not touch what he cannot see.
        let ids: Vec<i64> =
            self.reader.dead_letters(&waiting, MAX_DEAD_LETTERS).await?.into_iter().map(|letter| letter.id).collect();
        if ids.is_empty() {
            return Ok(ReplaySummary::default());
        }
        let topics = self.pipelines.iter().map(|entry| (entry.plan.name.clone(), entry.plan.topic.clone())).collect();
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
