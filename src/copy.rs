//! The editors' desk: what pages say of documents, what speaks against it, and what people decide.
//!
//! Whatever waits or is published is gone over again when it is looked at and when it is approved: the document may have changed since
//! it was written, and the pipeline's file, too.
//!
//! | approved is | if |
//! |---|---|
//! | never | it breaks the schema, has no address, or another page has a value that must be unique |
//! | all the same, and on record | a check speaks against it that the person names |
//! | otherwise | nothing speaks against it |

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

use self::error::refusal;
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

/// Versions that one list holds at most.
pub const MAX_COPIES: i64 = 500;

/// Times that a version is gone over while its document changes under the hands of whoever decides.
const ATTEMPTS: usize = 3;

/// Letters of a note.
const NOTE: usize = 2_000;

/// Shows and decides for the catalogues of one process. Clones share it.
#[derive(Debug, Clone)]
pub struct CopyService {
    store: Store,
    reader: Reader,
    catalogues: Arc<BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    pipeline: String,
    tenant: Arc<str>,
    catalogue: CopySettings,
}

/// Versions in one state.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Copies)]
pub struct CopyList {
    /// The versions, by pipeline and document.
    pub copies: Vec<CopyVersion>,
    /// How many wait for a person, over all pages.
    pub in_review: i64,
    /// The cursor of the next page.
    pub next: Option<String>,
}

/// The copy of a document with everything that a person needs to decide.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Copy)]
pub struct CopyView {
    /// The pipeline.
    pub pipeline: String,
    /// The document.
    pub document_id: String,
    /// What the document says; absent where it was deleted.
    pub source: Option<CopySource>,
    /// The version to decide on: the latest that waits, or else what is published.
    pub current: Option<CopyVersion>,
    /// What is on the page.
    pub published: Option<CopyVersion>,
    /// What is on the page of each object in it that is markup, as JSON that may stand in a script element.
    pub markup: Map<String, Value>,
    /// Every version, the latest first. What waits or is published is as checks see it now.
    pub versions: Vec<CopyVersion>,
    /// The JSON Schema that the content keeps to.
    pub schema: Value,
}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CopySource {
    /// Its version.
    pub version: i64,
    /// Its text, into which traces point.
    pub text: String,
    /// Its fields, which traces name.
    pub fields: Map<String, Value>,
}

/// What somebody decides on.
#[derive(Debug, Clone, Default)]
pub struct DecisionRequest {
    /// The pipeline; may be left out where there is one catalogue.
    pub pipeline: Option<String>,
    /// The document.
    pub document_id: String,
    /// The version that they have seen.
    pub version: i32,
    /// Who they are.
    pub by: String,
    /// What they say of it.
    pub note: Option<String>,
}

impl CopyService {
    /// The desk of these pipelines, as far as they are catalogues.
    pub fn new<'a>(store: Store, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let entry = |definition: &Definition| {
            let (pipeline, tenant) = (definition.name.to_string(), definition.tenant.clone());
            definition.copy.clone().map(|catalogue| (pipeline.clone(), Entry { pipeline, tenant, catalogue }))
        };
        Self { reader: store.reader(None), store, catalogues: Arc::new(definitions.into_iter().filter_map(entry).collect()) }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.catalogues.iter().filter(|(name, entry)| tenant.owns(name, &entry.tenant));
        let theirs = theirs.map(|(name, entry)| (name.clone(), entry.clone())).collect();
        Self { reader: self.reader.of(tenant.name.clone()), catalogues: Arc::new(theirs), ..self.clone() }
    }

    /// Versions in a state, of one catalogue or of all, behind the cursor.
    ///
    /// # Errors
    /// Where there is no such catalogue, the cursor is none, or the database is unavailable.
    pub async fn list(
        &self,
        pipeline: Option<&str>,
        state: CopyState,
        limit: i64,
        behind: Option<&str>,
    ) -> Result<CopyList, CopyError> {
        let pipelines: Vec<String> = match pipeline {
            Some(_) => vec![self.entry(pipeline)?.pipeline.clone()],
            None => self.catalogues.keys().cloned().collect(),
        };
        let after = behind.map(cursor::read).transpose()?;
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

    /// Everything about the copy of a document.
    ///
    /// # Errors
    /// Where there is no such catalogue, no copy, or the database is unavailable.
    pub async fn show(&self, pipeline: Option<&str>, document_id: &str) -> Result<CopyView, CopyError> {
        let entry = self.entry(pipeline)?;
        let mut versions = self.versions(entry, document_id).await?;
        let document = self.reader.current_document(&entry.pipeline, document_id).await?;
        let stands = |version: &CopyVersion| matches!(version.state, CopyState::Review | CopyState::Approved);
        if let Some(document) = &document {
            for version in versions.iter_mut().filter(|version| stands(version)) {
                let draft = entry.checked_draft(document, version.content.clone())?;
                (version.reasons, version.traces, version.document_version) = (draft.reasons, draft.traces, document.version);
            }
        }
        self.note_duplicates(versions.iter_mut().filter(|version| stands(version))).await?;
        let in_state = |state| versions.iter().find(|version| version.state == state).cloned();
        let published = in_state(CopyState::Approved);
        let current = in_state(CopyState::Review).or_else(|| published.clone());
        let markup = published.iter().flat_map(|version| &version.content).filter(|(_, value)| value.get("@context").is_some());
        Ok(CopyView {
            pipeline: entry.pipeline.clone(),
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
            schema: entry.catalogue.composer.schema().clone(),
        })
    }

    /// Puts a version on its page, although these checks speak against it.
    ///
    /// # Errors
    /// See [`CopyError`]; nothing has changed then.
    pub async fn approve(&self, verdict: DecisionRequest, despite: &[Check]) -> Result<CopyVersion, CopyError> {
        let (entry, decision) = self.decision(verdict)?;
        for _ in 0..ATTEMPTS {
            let version = self.version_to_decide(entry, &decision).await?;
            if version.state != CopyState::Review {
                return Err(refusal(CopyDecisionError::Decided(version.state), &decision));
            }
            let document = self.document(entry, &decision).await?;
            let draft = entry.checked_draft(&document, version.content)?;
            let never: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !reason.check.may_be_overruled()).collect();
            if !never.is_empty() {
                return Err(CopyError::Conflict(format!("it cannot be published as it is: {}; edit it", sentences(&never))));
            }
            let against: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !despite.contains(&reason.check)).collect();
            if !against.is_empty() {
                let mut checks: Vec<Check> = against.iter().map(|reason| reason.check).collect();
                checks.sort_unstable();
                checks.dedup();
                let names = checks.iter().map(|check| format!("`{check}`")).collect::<Vec<_>>().join(", ");
                let message =
                    format!("checks speak against it: {}; edit it, or name {names} under `despite`", sentences(&against));
                return Err(CopyError::Conflict(message));
            }
            let approval =
                CopyApproval { decision: decision.clone(), draft, document_version: document.version, despite: despite.to_vec() };
            match self.store.approve_copy(&approval).await {
                Err(CopyDecisionError::Moved) => {}
                done => return done.map_err(|refused| refusal(refused, &decision)),
            }
        }
        Err(refusal(CopyDecisionError::Moved, &decision))
    }

    /// Says no to a version. One that is published leaves its page.
    ///
    /// # Errors
    /// See [`CopyError`]; nothing has changed then.
    pub async fn reject(&self, verdict: DecisionRequest) -> Result<CopyVersion, CopyError> {
        let (entry, decision) = self.decision(verdict)?;
        self.version_to_decide(entry, &decision).await?;
        self.store.reject_copy(&decision).await.map_err(|refused| refusal(refused, &decision))
    }

    /// Adds a version with what somebody wrote instead. It waits to be approved.
    ///
    /// # Errors
    /// See [`CopyError`]; nothing has changed then.
    pub async fn edit(&self, verdict: DecisionRequest, content: Map<String, Value>) -> Result<CopyVersion, CopyError> {
        let (entry, decision) = self.decision(verdict)?;
        for _ in 0..ATTEMPTS {
            let version = self.version_to_decide(entry, &decision).await?;
            if version.content == content {
                return Err(CopyError::Invalid("the content is as it was; change something, or approve it".into()));
            }
            let document = self.document(entry, &decision).await?;
            let draft = entry.checked_draft(&document, content.clone())?;
            let wrong: Vec<&CheckFailure> = draft.reasons.iter().filter(|reason| !reason.check.may_be_overruled()).collect();
            if !wrong.is_empty() {
                return Err(CopyError::Invalid(format!("that cannot be published: {}", sentences(&wrong))));
            }
            let task = entry.catalogue.task.to_string();
            let edit = CopyEdit { decision: decision.clone(), task, draft, document_version: document.version };
            match self.store.edit_copy(&edit).await {
                Err(CopyDecisionError::Moved) => {}
                done => return done.map_err(|refused| refusal(refused, &decision)),
            }
        }
        Err(refusal(CopyDecisionError::Moved, &decision))
    }

    /// What is on the pages of a catalogue, in pieces of a file.
    ///
    /// # Errors
    /// Where there is no such catalogue.
    pub fn export(
        &self,
        pipeline: Option<&str>,
        format: ExportFormat,
    ) -> Result<impl Stream<Item = Result<Bytes, Transient>> + Send + 'static + use<>, CopyError> {
        let entry = self.entry(pipeline)?;
        let fields = entry.catalogue.composer.schema().get("properties").and_then(Value::as_object);
        let fields = fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        Ok(export::export(self.reader.clone(), entry.pipeline.clone(), fields, format))
    }

    /// The sitemap of a catalogue's pages: the file of that number, from 1, or without one the only file or the index of all.
    ///
    /// # Errors
    /// Where there is no such catalogue or file, the pipeline's file does not say where sitemaps lie and there are several, or the
    /// database is unavailable.
    pub async fn sitemap(&self, pipeline: Option<&str>, file: Option<i64>) -> Result<String, CopyError> {
        let entry = self.entry(pipeline)?;
        let (pages, changed_ms) = self.reader.count_published(&entry.pipeline).await?;
        let files = ((pages + PAGES_PER_SITEMAP - 1) / PAGES_PER_SITEMAP).max(1);
        let file = match file {
            Some(file) if !(1..=files).contains(&file) => {
                return Err(CopyError::Invalid(format!("there is no sitemap {file}; there are {files}")));
            }
            None if files > 1 => {
                let addresses: Result<Vec<String>, String> = (1..=files).map(|file| entry.catalogue.sitemap(file)).collect();
                return Ok(sitemap::index(&addresses.map_err(CopyError::Invalid)?, changed_ms));
            }
            file => file.unwrap_or(1),
        };
        let pages = self.reader.published_pages(&entry.pipeline, (file - 1) * PAGES_PER_SITEMAP, PAGES_PER_SITEMAP).await?;
        Ok(sitemap::pages(&pages))
    }

    fn entry(&self, pipeline: Option<&str>) -> Result<&Entry, CopyError> {
        if self.catalogues.is_empty() {
            let mend = "a section `copy` in its file makes one";
            return Err(CopyError::Invalid(format!("no pipeline here is a catalogue; {mend}")));
        }
        did_you_mean::pipeline(&self.catalogues, pipeline, " that is a catalogue")
            .map(|(_, entry)| entry)
            .map_err(CopyError::Invalid)
    }

    fn decision(&self, verdict: DecisionRequest) -> Result<(&Entry, CopyDecision), CopyError> {
        let entry = self.entry(verdict.pipeline.as_deref())?;
        let DecisionRequest { document_id, version, by, note, .. } = verdict;
        if document_id.contains('\0') || note.as_ref().is_some_and(|note| note.contains('\0') || note.chars().count() > NOTE) {
            return Err(CopyError::Invalid(format!("a note has at most {NOTE} letters, and nothing holds U+0000")));
        }
        Ok((entry, CopyDecision { pipeline: entry.pipeline.clone(), document_id, version, by, note }))
    }

    async fn versions(&self, entry: &Entry, document_id: &str) -> Result<Vec<CopyVersion>, CopyError> {
        let unknown = || CopyError::Unknown {
            pipeline: entry.pipeline.clone(),
            document_id: document_id.chars().take(200).collect(),
            version: None,
        };
        if document_id.contains('\0') {
            return Err(unknown());
        }
        let versions = self.reader.copy_history(&entry.pipeline, document_id).await?;
        if versions.is_empty() { Err(unknown()) } else { Ok(versions) }
    }

    /// The version that is decided on, seen with the eyes of whoever decides, who may not touch what he cannot see.
    async fn version_to_decide(&self, entry: &Entry, decision: &CopyDecision) -> Result<CopyVersion, CopyError> {
        let versions = self.versions(entry, &decision.document_id).await?;
        let version = versions.into_iter().find(|version| version.version == decision.version);
        version.ok_or_else(|| refusal(CopyDecisionError::Unknown, decision))
    }

    async fn document(&self, entry: &Entry, decision: &CopyDecision) -> Result<Document, CopyError> {
        let document = self.reader.current_document(&entry.pipeline, &decision.document_id).await?;
        document.ok_or_else(|| CopyError::Conflict(format!("document `{}` is deleted", decision.document_id)))
    }

    /// Adds what only the ledger knows: that another document has the same.
    async fn note_duplicates<'a>(&self, versions: impl Iterator<Item = &'a mut CopyVersion>) -> Result<(), Transient> {
        let mut versions: Vec<&mut CopyVersion> = versions.collect();
        let place = |version: &CopyVersion| CopyVersionKey {
            pipeline: version.pipeline.clone(),
            document_id: version.document_id.clone(),
            version: version.version,
        };
        let places: Vec<CopyVersionKey> = versions.iter().map(|version| place(version)).collect();
        if places.is_empty() {
            return Ok(());
        }
        for (at, field, other) in self.reader.copy_duplicates(&places).await? {
            let Some(index) = places.iter().position(|place| *place == at) else { continue };
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

impl Entry {
    fn checked_draft(&self, document: &Document, content: Map<String, Value>) -> Result<CopyDraft, CopyError> {
        let composed = self.catalogue.composer.compose(document, Value::Object(content)).map_err(|failure| match failure {
            Failure::Poison(poison) => CopyError::Invalid(poison.reason),
            Failure::Transient(transient) => CopyError::Unavailable(transient),
        })?;
        Ok(self.catalogue.draft(document, &composed))
    }
}

fn sentences(reasons: &[&CheckFailure]) -> String {
    reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ")
}
