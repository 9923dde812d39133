//! Generated copy of documents: its versions, the checks that they fail, and the decisions of people.
//!
//! Versions in review and published versions are checked again whenever they are shown and when they are approved, because the
//! document and the pipeline's file may have changed since the version was written.
//!
//! | a version | can be approved |
//! |---|---|
//! | breaks the schema, has no address, or has a value that must be unique and another page has | never |
//! | fails another check | if the person names the check; the decision records it |
//! | passes every check | always |

mod cursor;
mod error;
mod export;
mod sitemap;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::Stream;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::error::decision_error;
use crate::access::Tenant;
use crate::did_you_mean;
use crate::document::Document;
use crate::failure::{Failure, Transient};
use crate::outcome::{Check, CheckFailure};
use crate::pipeline::copy::CopySettings;
use crate::pipeline::definition::Definition;
use crate::store::{
    CopyApproval, CopyDecision, CopyDecisionError, CopyDraft, CopyEdit, CopyFilter, CopyState, CopyVersion, CopyVersionKey,
    Reader, Store,
};

pub use error::CopyError;
pub use export::{ExportFormat, script_json};
pub use sitemap::PAGES_PER_SITEMAP;

/// The maximum number of versions in a list.
pub const MAX_COPIES: i64 = 500;

/// How often a decision is tried if its document changes at the same time.
const MAX_ATTEMPTS: usize = 3;

/// The maximum length of a note in characters.
const MAX_NOTE_CHARACTERS: usize = 2_000;

/// The copy of a process's pipelines. Clones share everything.
#[derive(Debug, Clone)]
pub struct CopyService {
    store: Store,
    reader: Reader,
    pipelines: Arc<BTreeMap<String, CopyPipeline>>,
}

#[derive(Debug, Clone)]
struct CopyPipeline {
    name: String,
    tenant: Arc<str>,
    settings: CopySettings,
}

/// A page of versions in one state.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Copies)]
pub struct CopyList {
    /// The versions, ordered by pipeline and document.
    pub copies: Vec<CopyVersion>,
    /// The number of versions in review, over all pages of the list.
    pub in_review: i64,
    /// The cursor of the next page, if there may be one.
    pub next: Option<String>,
}

/// The copy of a document, with everything that a decision requires.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Copy)]
pub struct CopyView {
    pub pipeline: String,
    pub document_id: String,
    /// The document; absent if it was deleted.
    pub source: Option<CopySource>,
    /// The version to decide on: the latest in review, or else the published one.
    pub current: Option<CopyVersion>,
    /// The published version.
    pub published: Option<CopyVersion>,
    /// Each field of the published version that is JSON-LD, as JSON that is safe inside a script element.
    pub markup: Map<String, Value>,
    /// Every version, the latest first. Versions in review and the published one have the results of checks made now.
    pub versions: Vec<CopyVersion>,
    /// The JSON Schema of the content.
    pub schema: Value,
}

/// The document that copy is made from.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CopySource {
    /// The version of the document.
    pub version: i64,
    /// The text, to which the byte ranges of traces refer.
    pub text: String,
    /// The fields, which traces name.
    pub fields: Map<String, Value>,
}

/// A decision of a person.
#[derive(Debug, Clone, Default)]
pub struct DecisionRequest {
    /// The pipeline; may be omitted if only one makes copy.
    pub pipeline: Option<String>,
    pub document_id: String,
    /// The version that the person has seen.
    pub version: i32,
    pub by: String,
    pub note: Option<String>,
}

impl CopyService {
    /// The copy of those of the pipelines that make any.
    pub fn new<'a>(store: Store, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let pipeline = |definition: &Definition| {
            let (name, tenant) = (definition.name.to_string(), definition.tenant.clone());
            definition.copy.clone().map(|settings| (name.clone(), CopyPipeline { name, tenant, settings }))
        };
        Self { reader: store.reader(None), store, pipelines: Arc::new(definitions.into_iter().filter_map(pipeline).collect()) }
    }

    /// The same service with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let pipelines = Arc::new(tenant.select(&self.pipelines, |pipeline| &pipeline.tenant));
        Self { reader: self.reader.of(tenant.name.clone()), pipelines, ..self.clone() }
    }

    /// Versions in a state, of one pipeline or of all, after the cursor.
    ///
    /// # Errors
    /// If the pipeline makes no copy, or the cursor is not valid.
    pub async fn list(
        &self,
        pipeline: Option<&str>,
        state: CopyState,
        limit: i64,
        cursor: Option<&str>,
    ) -> Result<CopyList, CopyError> {
        let pipelines: Vec<String> = match pipeline {
            Some(_) => vec![self.pipeline(pipeline)?.name.clone()],
            None => self.pipelines.keys().cloned().collect(),
        };
        let after = cursor.map(cursor::read).transpose()?;
        let limit = limit.clamp(1, MAX_COPIES);
        let mut copies = Vec::new();
        for pipeline in pipelines.iter().filter(|pipeline| after.as_ref().is_none_or(|after| **pipeline >= after.pipeline)) {
            let left = limit - copies.len() as i64;
            let after = after.as_ref().filter(|after| after.pipeline == *pipeline);
            let after = after.map(|after| (after.document_id.clone(), after.version));
            let filter = CopyFilter { pipeline: pipeline.clone(), state, after, limit: left };
            copies.extend(self.reader.copy_versions(&filter).await?);
            if copies.len() as i64 == limit {
                break;
            }
        }
        self.note_duplicates(copies.iter_mut()).await?;
        let next = copies.last().filter(|_| copies.len() as i64 == limit).map(cursor::write);
        Ok(CopyList { copies, in_review: self.reader.copy_in_review(&pipelines).await?, next })
    }

    /// The copy of a document.
    ///
    /// # Errors
    /// If the pipeline makes no copy, or the document has none.
    pub async fn show(&self, pipeline: Option<&str>, document_id: &str) -> Result<CopyView, CopyError> {
        let pipeline = self.pipeline(pipeline)?;
        let mut versions = self.versions(pipeline, document_id).await?;
        let document = self.reader.current_document(&pipeline.name, document_id).await?;
        let is_current = |version: &CopyVersion| matches!(version.state, CopyState::Review | CopyState::Approved);
        if let Some(document) = &document {
            for version in versions.iter_mut().filter(|version| is_current(version)) {
                let draft = pipeline.checked_draft(document, version.content.clone())?;
                (version.reasons, version.traces, version.document_version) = (draft.reasons, draft.traces, document.version);
            }
        }
        self.note_duplicates(versions.iter_mut().filter(|version| is_current(version))).await?;
        let in_state = |state| versions.iter().find(|version| version.state == state).cloned();
        let published = in_state(CopyState::Approved);
        let current = in_state(CopyState::Review).or_else(|| published.clone());
        let markup = published.iter().flat_map(|version| &version.content).filter(|(_, value)| value.get("@context").is_some());
        Ok(CopyView {
            pipeline: pipeline.name.clone(),
            document_id: document_id.to_owned(),
            markup: markup.map(|(name, value)| (name.clone(), script_json(value).into())).collect(),
            source: document.map(|document| CopySource {
                version: document.version,
                text: document.text.to_string(),
                fields: if document.fields.is_empty() { document.metadata } else { document.fields },
            }),
            current,
            published,
            versions,
            schema: pipeline.settings.composer.schema().clone(),
        })
    }

    /// Publishes a version, and overrules these checks.
    ///
    /// # Errors
    /// See [`CopyError`]; after an error nothing has changed.
    pub async fn approve(&self, request: DecisionRequest, despite: &[Check]) -> Result<CopyVersion, CopyError> {
        let (pipeline, decision) = self.decision(request)?;
        for _ in 0..MAX_ATTEMPTS {
            let version = self.version_to_decide(pipeline, &decision).await?;
            if version.state != CopyState::Review {
                return Err(decision_error(CopyDecisionError::Decided(version.state), &decision));
            }
            let document = self.document(pipeline, &decision).await?;
            let draft = pipeline.checked_draft(&document, version.content)?;
            let never: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !reason.check.may_be_overruled()).collect();
            if !never.is_empty() {
                return Err(CopyError::Conflict(format!("this version cannot be published: {}; edit it", sentences(&never))));
            }
            let against: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !despite.contains(&reason.check)).collect();
            if !against.is_empty() {
                let mut checks: Vec<Check> = against.iter().map(|reason| reason.check).collect();
                checks.sort_unstable();
                checks.dedup();
                let names = checks.iter().map(|check| format!("`{check}`")).collect::<Vec<_>>().join(", ");
                let message =
                    format!("this version fails checks: {}; edit it, or name {names} in `despite`", sentences(&against));
                return Err(CopyError::Conflict(message));
            }
            let approval =
                CopyApproval { decision: decision.clone(), draft, document_version: document.version, despite: despite.to_vec() };
            match self.store.approve_copy(&approval).await {
                Err(CopyDecisionError::Moved) => {}
                done => return done.map_err(|refused| decision_error(refused, &decision)),
            }
        }
        Err(decision_error(CopyDecisionError::Moved, &decision))
    }

    /// Rejects a version in review, or withdraws the published one from its page.
    ///
    /// # Errors
    /// See [`CopyError`]; after an error nothing has changed.
    pub async fn reject(&self, request: DecisionRequest) -> Result<CopyVersion, CopyError> {
        let (pipeline, decision) = self.decision(request)?;
        self.version_to_decide(pipeline, &decision).await?;
        self.store.reject_copy(&decision).await.map_err(|refused| decision_error(refused, &decision))
    }

    /// Adds a version with content that a person edited. It waits for approval.
    ///
    /// # Errors
    /// See [`CopyError`]; after an error nothing has changed.
    pub async fn edit(&self, request: DecisionRequest, content: Map<String, Value>) -> Result<CopyVersion, CopyError> {
        let (pipeline, decision) = self.decision(request)?;
        for _ in 0..MAX_ATTEMPTS {
            let version = self.version_to_decide(pipeline, &decision).await?;
            if version.content == content {
                return Err(CopyError::Invalid("the content is unchanged; change it, or approve the version".into()));
            }
            let document = self.document(pipeline, &decision).await?;
            let draft = pipeline.checked_draft(&document, content.clone())?;
            let wrong: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !reason.check.may_be_overruled()).collect();
            if !wrong.is_empty() {
                return Err(CopyError::Invalid(format!("this content cannot be published: {}", sentences(&wrong))));
            }
            let task = pipeline.settings.task.to_string();
            let edit = CopyEdit { decision: decision.clone(), task, draft, document_version: document.version };
            match self.store.edit_copy(&edit).await {
                Err(CopyDecisionError::Moved) => {}
                done => return done.map_err(|refused| decision_error(refused, &decision)),
            }
        }
        Err(decision_error(CopyDecisionError::Moved, &decision))
    }

    /// The published copy of a pipeline, as the parts of a file.
    ///
    /// # Errors
    /// If the pipeline makes no copy.
    pub fn export(
        &self,
        pipeline: Option<&str>,
        format: ExportFormat,
    ) -> Result<impl Stream<Item = Result<Bytes, Transient>> + Send + 'static + use<>, CopyError> {
        let pipeline = self.pipeline(pipeline)?;
        let fields = pipeline.settings.composer.schema().get("properties").and_then(Value::as_object);
        let fields = fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        Ok(export::export(self.reader.clone(), pipeline.name.clone(), fields, format))
    }

    /// The sitemap of a pipeline's published pages: the file with that number, from 1. Without a number it is the only file, or the
    /// index of several.
    ///
    /// # Errors
    /// If the pipeline makes no copy, there is no such file, or there are several and the pipeline's file does not give their
    /// address.
    pub async fn sitemap(&self, pipeline: Option<&str>, file: Option<i64>) -> Result<String, CopyError> {
        let pipeline = self.pipeline(pipeline)?;
        let (pages, changed_ms) = self.reader.count_published(&pipeline.name).await?;
        let files = ((pages + PAGES_PER_SITEMAP - 1) / PAGES_PER_SITEMAP).max(1);
        let file = match file {
            Some(file) if !(1..=files).contains(&file) => {
                return Err(CopyError::Invalid(format!("there is no sitemap {file}; the sitemaps are 1 to {files}")));
            }
            None if files > 1 => {
                let addresses: Result<Vec<String>, String> = (1..=files).map(|file| pipeline.settings.sitemap(file)).collect();
                return Ok(sitemap::index(&addresses.map_err(CopyError::Invalid)?, changed_ms));
            }
            file => file.unwrap_or(1),
        };
        let pages = self.reader.published_pages(&pipeline.name, (file - 1) * PAGES_PER_SITEMAP, PAGES_PER_SITEMAP).await?;
        Ok(sitemap::pages(&pages))
    }

    fn pipeline(&self, name: Option<&str>) -> Result<&CopyPipeline, CopyError> {
        if self.pipelines.is_empty() {
            return Err(CopyError::Invalid("no pipeline makes copy; add a section `copy` to a pipeline's file".into()));
        }
        did_you_mean::pipeline(&self.pipelines, name, " that makes copy")
            .map(|(_, pipeline)| pipeline)
            .map_err(CopyError::Invalid)
    }

    fn decision(&self, request: DecisionRequest) -> Result<(&CopyPipeline, CopyDecision), CopyError> {
        let pipeline = self.pipeline(request.pipeline.as_deref())?;
        let DecisionRequest { document_id, version, by, note, .. } = request;
        if document_id.contains('\0')
            || note.as_ref().is_some_and(|note| note.contains('\0') || note.chars().count() > MAX_NOTE_CHARACTERS)
        {
            return Err(CopyError::Invalid(format!(
                "a note has at most {MAX_NOTE_CHARACTERS} characters, and no value may contain U+0000"
            )));
        }
        Ok((pipeline, CopyDecision { pipeline: pipeline.name.clone(), document_id, version, by, note }))
    }

    async fn versions(&self, pipeline: &CopyPipeline, document_id: &str) -> Result<Vec<CopyVersion>, CopyError> {
        let unknown = || CopyError::Unknown {
            pipeline: pipeline.name.clone(),
            document_id: document_id.chars().take(200).collect(),
            version: None,
        };
        if document_id.contains('\0') {
            return Err(unknown());
        }
        let versions = self.reader.copy_history(&pipeline.name, document_id).await?;
        if versions.is_empty() { Err(unknown()) } else { Ok(versions) }
    }

    /// The version of the decision. It is read with the caller's permissions, so that nobody decides on a version that they cannot
    /// see.
    async fn version_to_decide(&self, pipeline: &CopyPipeline, decision: &CopyDecision) -> Result<CopyVersion, CopyError> {
        let versions = self.versions(pipeline, &decision.document_id).await?;
        let version = versions.into_iter().find(|version| version.version == decision.version);
        version.ok_or_else(|| decision_error(CopyDecisionError::Unknown, decision))
    }

    async fn document(&self, pipeline: &CopyPipeline, decision: &CopyDecision) -> Result<Document, CopyError> {
        let document = self.reader.current_document(&pipeline.name, &decision.document_id).await?;
        document.ok_or_else(|| CopyError::Conflict(format!("document `{}` has been deleted", decision.document_id)))
    }

    /// Adds the failed checks that need the database: values that another document has, too.
    async fn note_duplicates<'a>(&self, versions: impl Iterator<Item = &'a mut CopyVersion>) -> Result<(), Transient> {
        let mut versions: Vec<&mut CopyVersion> = versions.collect();
        let key = |version: &CopyVersion| CopyVersionKey {
            pipeline: version.pipeline.clone(),
            document_id: version.document_id.clone(),
            version: version.version,
        };
        let keys: Vec<CopyVersionKey> = versions.iter().map(|version| key(version)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        for (at, field, other) in self.reader.copy_duplicates(&keys).await? {
            let Some(index) = keys.iter().position(|key| *key == at) else { continue };
            let version = &mut versions[index];
            let says = match version.content.get(&field) {
                Some(Value::String(text)) => text.clone(),
                _ => version.url.clone().unwrap_or_default(),
            };
            let message = format!("document `{other}` has the same `{field}`");
            version.reasons.push(CheckFailure { check: Check::Unique, path: format!("/{field}"), says, message });
        }
        Ok(())
    }
}

impl CopyPipeline {
    /// Checks content against the document as it is now.
    fn checked_draft(&self, document: &Document, content: Map<String, Value>) -> Result<CopyDraft, CopyError> {
        let composed = self.settings.composer.compose(document, Value::Object(content)).map_err(|failure| match failure {
            Failure::Poison(poison) => CopyError::Invalid(poison.reason),
            Failure::Transient(transient) => CopyError::Unavailable(transient),
        })?;
        Ok(self.settings.draft(document, &composed))
    }
}

fn sentences(reasons: &[&CheckFailure]) -> String {
    reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ")
}
