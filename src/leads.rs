//! Leads: which documents promise most and why, what was drafted for them, who was told, and what is known of each company.
//!
//! | asked | answered by |
//! |---|---|
//! | a list, page by page | the rows of leads, in the order of their scores or of time |
//! | one lead | its row, its document's text, and the outputs of the pipeline's tasks with the places in the text that say them |
//! | a company | its leads, and what the pipeline that reads the topic of companies has made of them |

mod cursor;
mod export;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::Tenant;
use crate::did_you_mean::{self, suggestion};
use crate::failure::Transient;
use crate::pipeline::definition::Definition;
use crate::pipeline::leads::{LeadSettings, company};
use crate::store::{LeadDelivery, LeadFilter, LeadOrder, Reader, Store};
use crate::task::TaskSpec;
use view::{as_text, facts, glance, label};

pub use view::{AccountView, LeadDocument, LeadFact, LeadLabel, LeadPage, LeadPart, LeadSummary, LeadView};

/// Leads of a page unless told.
pub const DEFAULT_LIMIT: i64 = 50;

/// Leads of a page at most.
pub const MAX_LIMIT: i64 = 500;

/// Leads that are shown with their company.
const OF_COMPANY: i64 = 50;

/// Deliveries that are shown with a lead.
const DELIVERIES: i64 = 20;

/// The orders of a list, as callers write them.
pub const ORDERS: [&str; 4] = ["score", "-score", "updated", "-updated"];

/// The leads of some pipelines. Clones share everything.
#[derive(Debug, Clone)]
pub struct LeadService {
    store: Store,
    reader: Reader,
    pipelines: Arc<BTreeMap<String, LeadPipeline>>,
}

/// A pipeline whose documents are leads.
#[derive(Debug, Clone)]
struct LeadPipeline {
    tenant: Arc<str>,
    leads: LeadSettings,
    /// The names of the score's parts, in order.
    parts: Vec<String>,
    /// The pipeline of the same tenant that reads the topic of companies.
    summaries: Option<String>,
}

/// Which leads a caller wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeadQuery {
    /// Of which pipeline; may be left out where there is one.
    pub pipeline: Option<String>,
    /// In which order, one of [`ORDERS`]; the highest score first unless told.
    pub sort: Option<String>,
    /// With at least this score.
    pub min_score: Option<f64>,
    /// Of this company, however it is written.
    pub company: Option<String>,
    /// In this stage.
    pub stage: Option<String>,
    /// At most so many; [`DEFAULT_LIMIT`] unless told.
    pub limit: Option<i64>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The question is at fault: one sentence with the mend.
    #[error("{0}")]
    Invalid(String),
    /// There is no such lead.
    #[error("pipeline `{pipeline}` has no lead `{id}`")]
    UnknownLead {
        /// The pipeline.
        pipeline: String,
        /// The document that was asked for.
        id: String,
    },
    /// There is no such company.
    #[error("pipeline `{pipeline}` has no account `{key}`")]
    UnknownAccount {
        /// The pipeline.
        pipeline: String,
        /// The company that was asked for.
        key: String,
    },
    /// The database is out of order for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl LeadService {
    /// The leads of those pipelines that make any.
    pub fn new<'a>(store: Store, definitions: impl IntoIterator<Item = &'a Definition> + Clone) -> Self {
        let entry = |definition: &Definition| {
            let leads = definition.leads.clone()?;
            let parts = definition.tasks.iter().find_map(|task| match &task.spec {
                TaskSpec::Score(spec) if *task.name == *leads.score => Some(spec.names().map(str::to_owned).collect()),
                _ => None,
            });
            let reads = |other: &&Definition| {
                leads.accounts.as_ref().is_some_and(|accounts| accounts.topic == other.source.topic)
                    && other.tenant == definition.tenant
            };
            let summaries = definitions.clone().into_iter().find(reads).map(|other| other.name.to_string());
            let tenant = definition.tenant.clone();
            Some((definition.name.to_string(), LeadPipeline { tenant, leads, parts: parts.unwrap_or_default(), summaries }))
        };
        let pipelines = Arc::new(definitions.clone().into_iter().filter_map(entry).collect());
        Self { reader: store.reader(None), store, pipelines }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.pipelines.iter().filter(|(name, entry)| tenant.owns(name, &entry.tenant));
        let pipelines = Arc::new(theirs.map(|(name, entry)| (name.clone(), entry.clone())).collect());
        Self { store: self.store.clone(), reader: self.reader.of(tenant.name.clone()), pipelines }
    }

    /// A page of leads.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn list(&self, question: &LeadQuery) -> Result<LeadPage, LeadError> {
        let (pipeline, entry) = self.pipeline(question.pipeline.as_deref())?;
        let order = order(question.sort.as_deref())?;
        let filter = filter(question)?;
        let limit = question.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(LeadError::Invalid(format!("`limit` is {limit}: write 1 to {MAX_LIMIT}")));
        }
        let digest = cursor::digest(pipeline, order, &filter);
        let place = question.cursor.as_deref().map(|text| cursor::read(text, &digest)).transpose()?;
        let place = place.unwrap_or_else(|| order.start());
        let found = self.reader.leads(pipeline, &filter, order, &place, limit).await?;
        let last = found.last().filter(|_| found.len() as i64 == limit);
        let next = last.map(|last| cursor::write(&order.place(last), &digest));
        let leads = found.into_iter().map(glance).collect();
        Ok(LeadPage { pipeline: pipeline.to_owned(), threshold: entry.leads.threshold, leads, next })
    }

    /// Everything about the lead that a document is.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn lead(&self, pipeline: Option<&str>, id: &str) -> Result<LeadView, LeadError> {
        let (pipeline, entry) = self.pipeline(pipeline)?;
        let unknown = || LeadError::UnknownLead { pipeline: pipeline.to_owned(), id: id.to_owned() };
        // No name holds it, and the database refuses it.
        let found = if id.contains('\0') { None } else { self.reader.lead(pipeline, id).await? };
        let (lead, text) = found.ok_or_else(unknown)?;
        let outputs = self.store.document_outputs(pipeline, id).await?;
        let deliveries = self.reader.deliveries(Some(pipeline), Some(id), None, DELIVERIES).await?;
        let about = match &lead.account {
            Some(key) => self.about(pipeline, entry, key).await?,
            None => None,
        };
        let draft = |name: &String| outputs.iter().find(|output| output.computed.task == *name).and_then(as_text);
        Ok(LeadView {
            pipeline: pipeline.to_owned(),
            threshold: entry.leads.threshold,
            text: text.text,
            metadata: text.metadata,
            labels: outputs.iter().filter_map(label).collect(),
            facts: outputs.iter().flat_map(facts).collect(),
            drafts: entry.leads.drafts.iter().filter_map(draft).collect(),
            deliveries,
            about,
            glance: glance(lead),
        })
    }

    /// Everything about a company: its key, or its name however it is written.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn account(&self, pipeline: Option<&str>, name: &str) -> Result<AccountView, LeadError> {
        let (pipeline, entry) = self.pipeline(pipeline)?;
        let key = company::key(name).filter(|key| !key.contains('\0')).unwrap_or_default();
        let about = self.about(pipeline, entry, &key).await?;
        about.ok_or_else(|| LeadError::UnknownAccount { pipeline: pipeline.to_owned(), key: name.to_owned() })
    }

    /// The latest deliveries, of one pipeline and in one state as far as that is said.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn deliveries(
        &self,
        pipeline: Option<&str>,
        state: Option<&str>,
        limit: i64,
    ) -> Result<Vec<LeadDelivery>, Transient> {
        self.reader.deliveries(pipeline, None, state, limit).await
    }

    /// The company, where a document belongs to it. One whose documents have all left is told to nobody.
    async fn about(&self, pipeline: &str, entry: &LeadPipeline, key: &str) -> Result<Option<AccountView>, LeadError> {
        let account = self.reader.account(pipeline, key).await?;
        let Some(account) = account.filter(|account| account.documents > 0) else { return Ok(None) };
        let filter = LeadFilter { account: Some(key.to_owned()), ..LeadFilter::default() };
        let order = LeadOrder::Score;
        let leads = self.reader.leads(pipeline, &filter, order, &order.start(), OF_COMPANY).await?;
        let outputs = match &entry.summaries {
            Some(summaries) => self.store.document_outputs(summaries, key).await?,
            None => Vec::new(),
        };
        Ok(Some(AccountView {
            pipeline: pipeline.to_owned(),
            key: account.key,
            name: account.name,
            documents: account.documents,
            updated_at_ms: account.updated_at_ms,
            summarized_at_ms: outputs.iter().map(|output| output.updated_at_ms).max(),
            summaries: outputs.iter().filter_map(as_text).collect(),
            leads: leads.into_iter().map(glance).collect(),
        }))
    }

    fn pipeline(&self, name: Option<&str>) -> Result<(&str, &LeadPipeline), LeadError> {
        did_you_mean::pipeline(&self.pipelines, name, " that makes leads").map_err(LeadError::Invalid)
    }
}

fn order(sort: Option<&str>) -> Result<LeadOrder, LeadError> {
    match sort {
        // Nobody looks for the worst leads: with and without the sign the best come first.
        None | Some("score" | "-score") => Ok(LeadOrder::Score),
        Some("-updated") => Ok(LeadOrder::Latest),
        Some("updated") => Ok(LeadOrder::Earliest),
        Some(other) => Err(LeadError::Invalid(format!("`sort` is `{other}`; {}", suggestion(other, ORDERS)))),
    }
}

fn filter(question: &LeadQuery) -> Result<LeadFilter, LeadError> {
    let texts = [("company", &question.company), ("stage", &question.stage)];
    if let Some((name, _)) = texts.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0'))) {
        return Err(LeadError::Invalid(format!("`{name}` holds U+0000, which no name does")));
    }
    if question.min_score.is_some_and(|score| !score.is_finite()) {
        return Err(LeadError::Invalid("`min_score` is no finite number".into()));
    }
    let account = question.company.as_deref().map(|name| {
        company::key(name).ok_or_else(|| LeadError::Invalid("`company` names none: write a name with a letter or a digit".into()))
    });
    Ok(LeadFilter { min_score: question.min_score, account: account.transpose()?, stage: question.stage.clone() })
}
