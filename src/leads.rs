//! Leads: documents with a score, the reasons for the score, drafted replies, deliveries, and the companies that leads belong to.
//!
//! | request | response |
//! |---|---|
//! | a list, page by page | the rows of leads, ordered by score or by time |
//! | one lead | its row, its document's text, and the outputs of the pipeline's tasks with their evidence in the text |
//! | a company | its leads, and the summaries by the pipeline that reads the topic of companies |

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
use view::{as_text, facts, label, summary};

pub use view::{AccountView, LeadFact, LeadLabel, LeadPage, LeadPart, LeadSummary, LeadText, LeadView};

/// How many leads a page has if the caller sets no limit.
pub const DEFAULT_LIMIT: i64 = 50;

/// The maximum number of leads in a page.
pub const MAX_LIMIT: i64 = 500;

/// How many leads are shown with their company.
const COMPANY_LEADS: i64 = 50;

/// How many deliveries are shown with a lead.
const SHOWN_DELIVERIES: i64 = 20;

/// The orders of a list, as requests name them.
pub const ORDERS: [&str; 4] = ["score", "-score", "updated", "-updated"];

/// The leads of some pipelines. Clones share everything.
#[derive(Debug, Clone)]
pub struct LeadService {
    store: Store,
    reader: Reader,
    pipelines: Arc<BTreeMap<String, LeadPipeline>>,
}

/// What is kept of a pipeline whose documents are leads.
#[derive(Debug, Clone)]
struct LeadPipeline {
    tenant: Arc<str>,
    settings: LeadSettings,
    /// The names of the score's parts, in the order of the file.
    parts: Vec<String>,
    /// The pipeline of the same tenant that reads the topic of companies, if there is one.
    account_pipeline: Option<String>,
}

/// Which leads to list, and in which order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeadQuery {
    /// The pipeline; may be omitted if only one has leads.
    pub pipeline: Option<String>,
    /// The order, one of [`ORDERS`]; the default is the highest score first.
    pub sort: Option<String>,
    /// Only leads with at least this score.
    pub min_score: Option<f64>,
    /// Only leads of this company, in any spelling.
    pub company: Option<String>,
    /// Only leads in this stage.
    pub stage: Option<String>,
    /// The maximum number of leads; the default is [`DEFAULT_LIMIT`].
    pub limit: Option<i64>,
    /// The `next` of the previous page.
    pub cursor: Option<String>,
}

/// Why leads cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The request is not valid: a sentence that says how to fix it.
    #[error("{0}")]
    Invalid(String),
    /// There is no such lead.
    #[error("pipeline `{pipeline}` has no lead `{id}`")]
    UnknownLead { pipeline: String, id: String },
    /// There is no such company.
    #[error("pipeline `{pipeline}` has no account `{key}`")]
    UnknownAccount { pipeline: String, key: String },
    /// A component is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl LeadService {
    /// The leads of those of the pipelines that make any.
    pub fn new<'a>(store: Store, definitions: impl IntoIterator<Item = &'a Definition> + Clone) -> Self {
        let pipeline = |definition: &Definition| {
            let settings = definition.leads.clone()?;
            let parts = definition.tasks.iter().find_map(|task| match &task.spec {
                TaskSpec::Score(spec) if *task.name == *settings.score => Some(spec.names().map(str::to_owned).collect()),
                _ => None,
            });
            let reads = |other: &&Definition| {
                settings.accounts.as_ref().is_some_and(|accounts| accounts.topic == other.source.topic)
                    && other.tenant == definition.tenant
            };
            let account_pipeline = definitions.clone().into_iter().find(reads).map(|other| other.name.to_string());
            let tenant = definition.tenant.clone();
            Some((
                definition.name.to_string(),
                LeadPipeline { tenant, settings, parts: parts.unwrap_or_default(), account_pipeline },
            ))
        };
        let pipelines = Arc::new(definitions.clone().into_iter().filter_map(pipeline).collect());
        Self { reader: store.reader(None), store, pipelines }
    }

    /// The same service with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let pipelines = Arc::new(tenant.select(&self.pipelines, |pipeline| &pipeline.tenant));
        Self { store: self.store.clone(), reader: self.reader.of(tenant.name.clone()), pipelines }
    }

    /// A page of leads.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn list(&self, query: &LeadQuery) -> Result<LeadPage, LeadError> {
        let (name, pipeline) = self.pipeline(query.pipeline.as_deref())?;
        let order = order(query.sort.as_deref())?;
        let filter = filter(query)?;
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(LeadError::Invalid(format!("`limit` is {limit}; give a number from 1 to {MAX_LIMIT}")));
        }
        let digest = cursor::digest(name, order, &filter);
        let page_end = query.cursor.as_deref().map(|text| cursor::read(text, &digest)).transpose()?;
        let page_end = page_end.unwrap_or_else(|| order.start());
        let found = self.reader.leads(name, &filter, order, &page_end, limit).await?;
        let last = found.last().filter(|_| found.len() as i64 == limit);
        let next = last.map(|last| cursor::write(&order.place(last), &digest));
        let leads = found.into_iter().map(summary).collect();
        Ok(LeadPage { pipeline: name.to_owned(), threshold: pipeline.settings.threshold, leads, next })
    }

    /// One lead with all details, by its document's id.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn lead(&self, pipeline: Option<&str>, id: &str) -> Result<LeadView, LeadError> {
        let (name, pipeline) = self.pipeline(pipeline)?;
        let unknown = || LeadError::UnknownLead { pipeline: name.to_owned(), id: id.to_owned() };
        // No id contains U+0000, and the database refuses it as a value.
        let found = if id.contains('\0') { None } else { self.reader.lead(name, id).await? };
        let (lead, text) = found.ok_or_else(unknown)?;
        let outputs = self.store.document_outputs(name, id).await?;
        let deliveries = self.reader.deliveries(Some(name), Some(id), None, SHOWN_DELIVERIES).await?;
        let about = match &lead.account {
            Some(key) => self.account_view(name, pipeline, key).await?,
            None => None,
        };
        let draft = |name: &String| outputs.iter().find(|output| output.computed.task == *name).and_then(as_text);
        Ok(LeadView {
            pipeline: name.to_owned(),
            threshold: pipeline.settings.threshold,
            text: text.text,
            metadata: text.metadata,
            labels: outputs.iter().filter_map(label).collect(),
            facts: outputs.iter().flat_map(facts).collect(),
            drafts: pipeline.settings.drafts.iter().filter_map(draft).collect(),
            deliveries,
            about,
            summary: summary(lead),
        })
    }

    /// One company with its leads, by its key or by its name in any spelling.
    ///
    /// # Errors
    /// See [`LeadError`].
    pub async fn account(&self, pipeline: Option<&str>, company_name: &str) -> Result<AccountView, LeadError> {
        let (name, pipeline) = self.pipeline(pipeline)?;
        let key = company::key(company_name).filter(|key| !key.contains('\0')).unwrap_or_default();
        let about = self.account_view(name, pipeline, &key).await?;
        about.ok_or_else(|| LeadError::UnknownAccount { pipeline: name.to_owned(), key: company_name.to_owned() })
    }

    /// The latest deliveries, of all pipelines or of one, in all states or in one.
    ///
    /// # Errors
    /// If the database is unavailable.
    pub async fn deliveries(
        &self,
        pipeline: Option<&str>,
        state: Option<&str>,
        limit: i64,
    ) -> Result<Vec<LeadDelivery>, Transient> {
        self.reader.deliveries(pipeline, None, state, limit).await
    }

    /// The company, if any document belongs to it. A company without documents is not shown.
    async fn account_view(&self, name: &str, pipeline: &LeadPipeline, key: &str) -> Result<Option<AccountView>, LeadError> {
        let account = self.reader.account(name, key).await?;
        let Some(account) = account.filter(|account| account.documents > 0) else { return Ok(None) };
        let filter = LeadFilter { account: Some(key.to_owned()), ..LeadFilter::default() };
        let order = LeadOrder::Score;
        let leads = self.reader.leads(name, &filter, order, &order.start(), COMPANY_LEADS).await?;
        let outputs = match &pipeline.account_pipeline {
            Some(account_pipeline) => self.store.document_outputs(account_pipeline, key).await?,
            None => Vec::new(),
        };
        Ok(Some(AccountView {
            pipeline: name.to_owned(),
            key: account.key,
            name: account.name,
            documents: account.documents,
            updated_at_ms: account.updated_at_ms,
            summarized_at_ms: outputs.iter().map(|output| output.updated_at_ms).max(),
            summaries: outputs.iter().filter_map(as_text).collect(),
            leads: leads.into_iter().map(summary).collect(),
        }))
    }

    fn pipeline(&self, name: Option<&str>) -> Result<(&str, &LeadPipeline), LeadError> {
        did_you_mean::pipeline(&self.pipelines, name, " that makes leads").map_err(LeadError::Invalid)
    }
}

fn order(sort: Option<&str>) -> Result<LeadOrder, LeadError> {
    match sort {
        // The worst leads are of no use, so the highest score comes first with and without the sign.
        None | Some("score" | "-score") => Ok(LeadOrder::Score),
        Some("-updated") => Ok(LeadOrder::Latest),
        Some("updated") => Ok(LeadOrder::Earliest),
        Some(other) => Err(LeadError::Invalid(format!("`sort` is `{other}`; {}", suggestion(other, ORDERS)))),
    }
}

fn filter(query: &LeadQuery) -> Result<LeadFilter, LeadError> {
    let texts = [("company", &query.company), ("stage", &query.stage)];
    if let Some((name, _)) = texts.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0'))) {
        return Err(LeadError::Invalid(format!("`{name}` contains U+0000, which no name can")));
    }
    if query.min_score.is_some_and(|score| !score.is_finite()) {
        return Err(LeadError::Invalid("`min_score` is not a finite number".into()));
    }
    let account = query.company.as_deref().map(|name| {
        company::key(name).ok_or_else(|| LeadError::Invalid("`company` has no letter and no digit; give a name".into()))
    });
    Ok(LeadFilter { min_score: query.min_score, account: account.transpose()?, stage: query.stage.clone() })
}
