//! Recommendations: documents for somebody who looks at a document, for somebody who has liked others, or for somebody new.
//!
//! | asked for | candidates | order |
//! |---|---|---|
//! | a document | those near it | how alike they are, and unlike each other |
//! | a user | those near each of the documents that they like most | how many of their likes lie around, and dislikes do not; unlike each other |
//! | a user of whom too little is known, or nobody | what many people liked of late | by how many and how lately |
//!
//! Each interest is a seed of its own: the mean of what somebody likes lies between their interests, where nothing is that they
//! like. What they have seen is never recommended, nor is the document that was asked for. Every hit says why it is one.

mod diversity;
mod evaluation;
mod popularity;
mod profile;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::Tenant;
use crate::did_you_mean;
use crate::failure::Transient;
use crate::pipeline::definition::{Definition, RecommendationSettings};
use crate::store::{DocumentSummary, HitLabel, NeighbourQuery, Reader, SearchFilter, Store};
use popularity::Popular;
use profile::UserProfile;

pub use evaluation::{Evaluation, EvaluationSettings, Holdout, RankingMetrics};

/// Most documents of one answer.
pub const MAX_LIMIT: usize = 100;

/// Documents of an answer unless told.
pub const DEFAULT_LIMIT: usize = 10;

/// The longest id or name that is looked for.
const MOST_BYTES: usize = 1_024;

/// What somebody did, as far back as it is looked at: both for what they like and for what they have seen.
const DEEDS: i64 = 1_000;

/// What all people did, as far back as it makes something popular. A busy shop has as much in an hour and a quiet one in a year,
/// and reading it takes some 30 ms.
const LATEST_DEEDS: i64 = 20_000;

/// How long what is popular is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// Recommends documents of some pipelines. Clones share everything.
#[derive(Debug, Clone)]
pub struct Recommender {
    reader: Reader,
    pipelines: Arc<BTreeMap<String, RecommendConfig>>,
    /// What is popular in each pipeline, and when that was found out.
    popular: Arc<Mutex<HashMap<String, Known>>>,
}

/// What is popular, and when that was found out.
type Known = (Instant, Arc<Vec<Popular>>);

/// What must be known of a pipeline.
#[derive(Debug, Clone)]
struct RecommendConfig {
    tenant: String,
    vector: Option<String>,
    reasons: Vec<String>,
    terms: RecommendationSettings,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct RecommendRequest {
    /// Where; may be left out where there is one pipeline.
    pub pipeline: Option<String>,
    /// Documents like this one.
    pub document: Option<String>,
    /// For this user, or without what this user has seen where a document is named, too.
    pub user: Option<String>,
    /// Most hits; 10 unless told.
    pub limit: Option<usize>,
    /// What every hit must fulfil.
    pub filter: SearchFilter,
}

/// What is recommended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RecommendResponse {
    /// The pipeline.
    pub pipeline: String,
    /// The documents, in the order in which to show them.
    pub hits: Vec<Recommendation>,
}

/// A document, and why.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    /// The document.
    pub document_id: String,
    /// How well it fits, before differences among the hits count; comparable among hits of one answer whose first reasons are of one kind.
    pub score: f64,
    /// Why it is recommended, what decided first.
    pub reasons: Vec<Reason>,
    /// What each classification task said.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, where a task made one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
}

/// Why a document is recommended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = RecommendationReason)]
pub enum Reason {
    /// It is like the document that was asked for.
    Similar {
        /// That document.
        document: String,
        /// The cosine of their vectors, -1 to 1.
        similarity: f64,
    },
    /// It is like a document that the user liked: the nearest of those.
    Liked {
        /// That document.
        document: String,
        /// The cosine of their vectors, -1 to 1.
        similarity: f64,
    },
    /// It shares a label with the document of the reason before.
    Label {
        /// The classification task.
        task: String,
        /// The label.
        label: String,
    },
    /// Many people liked it of late.
    Popular {
        /// How many, of the latest interactions.
        people: usize,
    },
}

/// Why there are no recommendations.
#[derive(Debug, thiserror::Error)]
pub enum RecommendError {
    /// The wish is at fault: one sentence with the mend.
    #[error("{0}")]
    Invalid(String),
    /// There is no such document.
    #[error("pipeline `{pipeline}` has no document `{id}`")]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// The id that was asked for.
        id: String,
    },
    /// The database is out of order for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// A hit that nobody has described yet.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    document: String,
    score: f64,
    reason: Reason,
}

impl Recommender {
    /// Recommends documents of these pipelines.
    pub fn new<'a>(store: &Store, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let pipelines = definitions.into_iter().map(|definition| (definition.name.to_string(), RecommendConfig::of(definition)));
        Self { reader: store.reader(None), pipelines: Arc::new(pipelines.collect()), popular: Arc::default() }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.pipelines.iter().filter(|(name, shelf)| tenant.owns(name, &shelf.tenant));
        let pipelines = theirs.map(|(name, shelf)| (name.clone(), shelf.clone())).collect();
        Self { reader: self.reader.of(tenant.name.clone()), pipelines: Arc::new(pipelines), popular: self.popular.clone() }
    }

    /// The documents to show, the first first.
    ///
    /// # Errors
    /// Where the wish cannot be understood, names a document that is not there, or the database is out of order.
    pub async fn recommend(&self, wish: &RecommendRequest) -> Result<RecommendResponse, RecommendError> {
        let (name, shelf) = self.shelf(wish.pipeline.as_deref())?;
        let limit = wish.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(RecommendError::Invalid(format!("`limit` is {limit}; ask for 1 to {MAX_LIMIT} documents")));
        }
        for (what, id) in [("document", &wish.document), ("user", &wish.user)] {
            id.as_deref().map_or(Ok(()), |id| checked(what, id))?;
        }
        let deeds = match &wish.user {
            Some(user) => self.reader.interactions_of(name, &shelf.tenant, user, DEEDS).await?,
            None => Vec::new(),
        };
        let taste = UserProfile::of(&deeds, &shelf.terms);
        let picks = match &wish.document {
            Some(document) => self.around((name, shelf), document, (&taste, limit), &wish.filter).await?,
            None => self.after((name, shelf), &taste, limit, &wish.filter).await?,
        };
        let picks = match picks {
            Some(picks) if wish.document.is_some() || picks.len() >= limit => picks,
            picks => {
                let popular = self.popular((name, shelf)).await?;
                let popular = self.passing(name, &popular, &wish.filter).await?;
                let not = wish.document.iter().chain(&taste.seen).cloned().collect();
                filled(picks.unwrap_or_default(), &popular, &not, limit)
            }
        };
        let hits = self.described((name, shelf), picks).await?;
        Ok(RecommendResponse { pipeline: name.to_owned(), hits })
    }

    fn shelf(&self, name: Option<&str>) -> Result<(&str, &RecommendConfig), RecommendError> {
        did_you_mean::pipeline(&self.pipelines, name, "").map_err(RecommendError::Invalid)
    }

    /// Documents like this one; none where it has no vectors.
    async fn around(
        &self,
        (name, shelf): (&str, &RecommendConfig),
        document: &str,
        (taste, limit): (&UserProfile, usize),
        filter: &SearchFilter,
    ) -> Result<Option<Vec<Candidate>>, RecommendError> {
        let Some(task) = &shelf.vector else {
            let message = format!("pipeline `{name}` makes no vectors to compare documents by; add an `embed` task");
            return Err(RecommendError::Invalid(message));
        };
        let seeds = vec![document.to_owned()];
        if self.reader.document_summaries(name, &seeds).await?.is_empty() {
            return Err(RecommendError::Unknown { pipeline: name.to_owned(), id: document.to_owned() });
        }
        let depth = (5 * limit).clamp(50, 200);
        let query = NeighbourQuery {
            pipeline: name.to_owned(),
            task: task.clone(),
            seeds,
            compared: Vec::new(),
            excluded: taste.seen.clone(),
            filter: filter.clone(),
            depth,
        };
        let found = self.reader.neighbours(query).await?;
        let Some(place) = found.known.get(document) else { return Ok(None) };
        let scored = found.neighbours.iter().map(|(_, other)| profile::cosine(place, other)).collect::<Vec<_>>();
        let candidates: Vec<_> =
            scored.iter().zip(&found.neighbours).map(|(score, (_, place))| (*score, place.as_slice())).collect();
        let chosen = diversity::choose(&candidates, limit, shelf.terms.diversity);
        let pick = |index: usize| Candidate {
            document: found.neighbours[index].0.clone(),
            score: scored[index],
            reason: Reason::Similar { document: document.to_owned(), similarity: scored[index] },
        };
        Ok(Some(chosen.into_iter().map(pick).collect()))
    }

    /// Documents after the taste; none where it says nothing.
    async fn after(
        &self,
        (name, shelf): (&str, &RecommendConfig),
        taste: &UserProfile,
        limit: usize,
        filter: &SearchFilter,
    ) -> Result<Option<Vec<Candidate>>, Transient> {
        let Some(task) = shelf.vector.as_ref().filter(|_| !taste.likes.is_empty()) else { return Ok(None) };
        let names = |weighed: &[(String, f64)]| weighed.iter().map(|(id, _)| id.clone()).collect();
        let query = NeighbourQuery {
            pipeline: name.to_owned(),
            task: task.clone(),
            seeds: names(&taste.likes),
            compared: names(&taste.dislikes),
            excluded: taste.seen.clone(),
            filter: filter.clone(),
            depth: (3 * limit).clamp(30, 100),
        };
        let found = self.reader.neighbours(query).await?;
        let scored: Vec<f64> = found.neighbours.iter().map(|(_, place)| taste.score(place, &found.known)).collect();
        // Both sides of the bargain between likeness and difference are at most 1.
        let best = scored.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let candidates: Vec<_> =
            scored.iter().zip(&found.neighbours).map(|(score, (_, place))| (score / best, place.as_slice())).collect();
        let chosen = diversity::choose(&candidates, limit, shelf.terms.diversity);
        let pick = |index: usize| {
            let (id, place) = &found.neighbours[index];
            let (liked, similarity) = taste.nearest(place, &found.known)?;
            let reason = Reason::Liked { document: liked.to_owned(), similarity };
            Some(Candidate { document: id.clone(), score: scored[index], reason })
        };
        Ok(Some(chosen.into_iter().filter_map(pick).collect()))
    }

    /// What is popular in the pipeline, the most popular first.
    async fn popular(&self, (name, shelf): (&str, &RecommendConfig)) -> Result<Arc<Vec<Popular>>, Transient> {
        if let Some((found_at, popular)) = self.popular.lock().unwrap_or_else(PoisonError::into_inner).get(name)
            && found_at.elapsed() < BELIEVED
        {
            return Ok(popular.clone());
        }
        let deeds = self.reader.latest_interactions(name, &shelf.tenant, LATEST_DEEDS).await?;
        let popular = Arc::new(popularity::popular(&deeds, &shelf.terms));
        let known = (Instant::now(), popular.clone());
        self.popular.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), known);
        Ok(popular)
    }

    /// Those that are there and pass the filter.
    async fn passing(&self, name: &str, popular: &[Popular], filter: &SearchFilter) -> Result<Vec<Popular>, Transient> {
        let ids: Vec<String> = popular.iter().map(|popular| popular.document.clone()).collect();
        let there: HashSet<String> = self.reader.passing(name, &ids, filter).await?.into_iter().collect();
        Ok(popular.iter().filter(|popular| there.contains(&popular.document)).cloned().collect())
    }

    async fn described(
        &self,
        (name, shelf): (&str, &RecommendConfig),
        picks: Vec<Candidate>,
    ) -> Result<Vec<Recommendation>, Transient> {
        let anchors = picks.iter().filter_map(|pick| pick.reason.document().map(str::to_owned));
        let ids: HashSet<String> = picks.iter().map(|pick| pick.document.clone()).chain(anchors).collect();
        let mut shown = self.reader.document_summaries(name, &ids.into_iter().collect::<Vec<_>>()).await?;
        let labels: HashMap<String, BTreeMap<String, HitLabel>> =
            shown.values().map(|shown| (shown.id.clone(), shown.labels.clone())).collect();
        let described = picks.into_iter().filter_map(|Candidate { document, score, reason }| {
            let DocumentSummary { id, metadata, labels: own, summary } = shown.remove(&document)?;
            let anchor = reason.document().and_then(|anchor| labels.get(anchor));
            let shared = anchor.into_iter().flat_map(|anchor| shared_labels(&shelf.reasons, &own, anchor));
            let reasons = std::iter::once(reason.clone()).chain(shared).collect();
            Some(Recommendation { document_id: id, score, reasons, labels: own, summary, metadata })
        });
        Ok(described.collect())
    }
}

impl RecommendConfig {
    fn of(definition: &Definition) -> Self {
        let of_kind =
            |kind| definition.tasks.iter().filter(move |task| task.spec.kind() == kind).map(|task| task.name.to_string());
        let terms = definition.recommendations.clone().unwrap_or_default();
        Self {
            tenant: definition.tenant.to_string(),
            vector: terms.vector.clone().or_else(|| of_kind("embed").next()),
            reasons: terms.reasons.clone().unwrap_or_else(|| of_kind("classify").collect()),
            terms,
        }
    }
}

impl Reason {
    /// The document that the reason names.
    fn document(&self) -> Option<&str> {
        match self {
            Self::Similar { document, .. } | Self::Liked { document, .. } => Some(document),
            Self::Label { .. } | Self::Popular { .. } => None,
        }
    }
}

/// A label of each task that both have.
fn shared_labels(tasks: &[String], own: &BTreeMap<String, HitLabel>, other: &BTreeMap<String, HitLabel>) -> Vec<Reason> {
    let shared = tasks.iter().filter_map(|task| {
        let (own, other) = (own.get(task)?, other.get(task)?);
        let label = own.labels.iter().find(|label| other.labels.contains(label))?;
        Some(Reason::Label { task: task.clone(), label: label.clone() })
    });
    shared.collect()
}

/// The picks and, as far as there is room, what is popular and neither among them nor among those that are not wanted.
fn filled(mut picks: Vec<Candidate>, popular: &[Popular], not: &HashSet<String>, limit: usize) -> Vec<Candidate> {
    let taken: HashSet<String> = picks.iter().map(|pick| pick.document.clone()).collect();
    let room = limit.saturating_sub(picks.len());
    let fresh = popular.iter().filter(|popular| !taken.contains(&popular.document) && !not.contains(&popular.document));
    picks.extend(fresh.take(room).map(|popular| Candidate {
        document: popular.document.clone(),
        score: popular.score,
        reason: Reason::Popular { people: popular.people },
    }));
    picks
}

fn checked(what: &str, id: &str) -> Result<(), RecommendError> {
    if id.is_empty() || id.len() > MOST_BYTES {
        let length = id.len();
        return Err(RecommendError::Invalid(format!("`{what}` has {length} bytes; an id has 1 to {MOST_BYTES}")));
    }
    if id.contains('\0') {
        return Err(RecommendError::Invalid(format!("`{what}` holds U+0000, which no id does; remove it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_popular_fills_the_room_that_is_left_and_repeats_nothing() {
        let pick = |id: &str| Candidate { document: id.into(), score: 1.0, reason: Reason::Popular { people: 0 } };
        let popular = |id: &str| Popular { document: id.into(), score: 0.5, people: 3 };
        let ids = |picks: Vec<Candidate>| picks.into_iter().map(|pick| pick.document).collect::<Vec<_>>();
        let known = [popular("a"), popular("b"), popular("c"), popular("d")];
        let not = HashSet::from(["b".to_owned()]);
        assert_eq!(ids(filled(vec![pick("a")], &known, &not, 3)), ["a", "c", "d"]);
        assert_eq!(ids(filled(vec![pick("x"), pick("y")], &known, &not, 2)), ["x", "y"]);
        assert_eq!(ids(filled(Vec::new(), &known, &HashSet::new(), 10)), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_label_is_a_reason_where_both_documents_have_it() {
        let labels = |label: &str| {
            let given = HitLabel { label: Some(label.into()), confidence: Some(0.9), labels: vec![label.into()] };
            BTreeMap::from([("topic".to_owned(), given)])
        };
        let tasks = ["topic".to_owned(), "tone".to_owned()];
        let garden = Reason::Label { task: "topic".into(), label: "garden".into() };
        assert_eq!(shared_labels(&tasks, &labels("garden"), &labels("garden")), [garden]);
        assert_eq!(shared_labels(&tasks, &labels("garden"), &labels("toys")), []);
        assert_eq!(shared_labels(&[], &labels("garden"), &labels("garden")), []);
    }

    #[test]
    fn reasons_are_told_apart_by_their_kind() {
        let reason = Reason::Liked { document: "d".into(), similarity: 0.5 };
        assert_eq!(serde_json::json!(reason), serde_json::json!({"kind": "liked", "document": "d", "similarity": 0.5}));
    }

    #[test]
    fn an_id_that_none_can_be_is_refused() {
        assert!(checked("user", "").is_err() && checked("user", "a\0").is_err() && checked("user", &"x".repeat(2_000)).is_err());
        assert!(checked("user", "'; DROP TABLE interactions; --").is_ok());
    }
}
