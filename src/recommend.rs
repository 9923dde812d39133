//! Recommendations: documents for a document, for a user, or for a user who is not known yet.
//!
//! | request | candidates | order |
//! |---|---|---|
//! | a document | its nearest neighbours | by similarity, diversified |
//! | a user | the nearest neighbours of the user's likes | by nearness to likes less nearness to dislikes, diversified |
//! | an unknown user, or nothing | documents that many people liked recently | by the number of people and how recently |
//!
//! Each liked document is a seed of its own. The mean of all likes would lie between a user's interests, where no document is that
//! they like. Documents that the user has seen and the document of the request are never recommended. Every hit has its reasons.

mod diversity;
mod evaluation;
mod popularity;
mod profile;
mod response;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::access::Tenant;
use crate::did_you_mean;
use crate::failure::Transient;
use crate::pipeline::definition::{Definition, RecommendationSettings};
use crate::store::{DocumentSummary, HitLabel, NeighbourQuery, Neighbourhood, Reader, SearchFilter, Store};
use popularity::PopularDocument;
use profile::UserProfile;
use response::shared_labels;

pub use evaluation::{Evaluation, EvaluationSettings, Holdout, RankingMetrics};
pub use response::{Reason, RecommendError, RecommendRequest, RecommendResponse, Recommendation};

/// The maximum number of documents in a response.
pub const MAX_LIMIT: usize = 100;

/// How many documents a response has if the caller sets no limit.
pub const DEFAULT_LIMIT: usize = 10;

/// The maximum length of an id in bytes.
const MAX_ID_BYTES: usize = 1_024;

/// How many interactions of a user are read, the latest: they give both what the user likes and what the user has seen.
const USER_INTERACTIONS: i64 = 1_000;

/// How many interactions of all people are read, the latest: they give what is popular. A busy shop has as many in an hour and a
/// quiet one in a year; reading them takes some 30 ms.
const LATEST_INTERACTIONS: i64 = 20_000;

/// How long popular documents are cached.
const CACHE_TTL: Duration = Duration::from_secs(10);

/// Recommends documents of some pipelines. Clones share everything.
#[derive(Debug, Clone)]
pub struct Recommender {
    reader: Reader,
    pipelines: Arc<BTreeMap<String, RecommendConfig>>,
    /// The popular documents of each pipeline.
    popular: Arc<Mutex<HashMap<String, CachedPopularity>>>,
}

/// Popular documents, and when they were computed.
type CachedPopularity = (Instant, Arc<Vec<PopularDocument>>);

/// What recommendations need of a pipeline.
#[derive(Debug, Clone)]
struct RecommendConfig {
    name: String,
    tenant: String,
    /// The embedding task whose vectors are compared.
    vector: Option<String>,
    /// The classification tasks whose labels are reasons.
    reasons: Vec<String>,
    settings: RecommendationSettings,
}

/// A document to recommend, without its labels and metadata.
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

    /// The same recommender with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let pipelines = Arc::new(tenant.select(&self.pipelines, |config| &config.tenant));
        Self { reader: self.reader.of(tenant.name.clone()), pipelines, popular: self.popular.clone() }
    }

    /// The recommended documents, the best first.
    ///
    /// # Errors
    /// See [`RecommendError`].
    pub async fn recommend(&self, request: &RecommendRequest) -> Result<RecommendResponse, RecommendError> {
        let config = self.config(request.pipeline.as_deref())?;
        let limit = request.limit();
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(RecommendError::Invalid(format!("`limit` is {limit}; give a number from 1 to {MAX_LIMIT}")));
        }
        for (what, id) in [("document", &request.document), ("user", &request.user)] {
            id.as_deref().map_or(Ok(()), |id| check_id(what, id))?;
        }
        let interactions = match &request.user {
            Some(user) => self.reader.interactions_of(&config.name, &config.tenant, user, USER_INTERACTIONS).await?,
            None => Vec::new(),
        };
        let profile = UserProfile::of(&interactions, &config.settings);
        let candidates = match &request.document {
            Some(document) => self.similar(config, document, &profile.seen, request).await?,
            None => self.for_profile(config, &profile, limit, &request.filter).await?,
        };
        let candidates = match candidates {
            Some(candidates) if request.document.is_some() || candidates.len() >= limit => candidates,
            candidates => {
                let popular = self.popular(config).await?;
                let popular = self.matching(&config.name, &popular, &request.filter).await?;
                let excluded = request.document.iter().chain(&profile.seen).cloned().collect();
                filled(candidates.unwrap_or_default(), &popular, &excluded, limit)
            }
        };
        let hits = self.described(config, candidates).await?;
        Ok(RecommendResponse { pipeline: config.name.clone(), hits })
    }

    fn config(&self, pipeline: Option<&str>) -> Result<&RecommendConfig, RecommendError> {
        let found = did_you_mean::pipeline(&self.pipelines, pipeline, "").map_err(RecommendError::Invalid)?;
        Ok(found.1)
    }

    /// Documents that are similar to this one; none if it has no vectors.
    async fn similar(
        &self,
        config: &RecommendConfig,
        document: &str,
        seen: &[String],
        request: &RecommendRequest,
    ) -> Result<Option<Vec<Candidate>>, RecommendError> {
        let (task, limit) = (config.embedding_task()?, request.limit());
        let seeds = vec![document.to_owned()];
        if self.reader.document_summaries(&config.name, &seeds).await?.is_empty() {
            return Err(RecommendError::Unknown { pipeline: config.name.clone(), id: document.to_owned() });
        }
        let query = NeighbourQuery {
            pipeline: config.name.clone(),
            task: task.to_owned(),
            seeds,
            compared: Vec::new(),
            excluded: seen.to_vec(),
            filter: request.filter.clone(),
            depth: (5 * limit).clamp(50, 200),
        };
        let found = self.reader.neighbours(query).await?;
        let Some(vector) = found.known.get(document) else { return Ok(None) };
        let scores: Vec<f64> = found.neighbours.iter().map(|(_, other)| profile::cosine(vector, other)).collect();
        let candidate = |index: usize| Candidate {
            document: found.neighbours[index].0.clone(),
            score: scores[index],
            reason: Reason::Similar { document: document.to_owned(), similarity: scores[index] },
        };
        Ok(Some(config.diversified(&found, &scores, limit).into_iter().map(candidate).collect()))
    }

    /// Documents that fit the profile; none if the profile has no likes.
    async fn for_profile(
        &self,
        config: &RecommendConfig,
        profile: &UserProfile,
        limit: usize,
        filter: &SearchFilter,
    ) -> Result<Option<Vec<Candidate>>, Transient> {
        let Some(task) = config.vector.as_ref().filter(|_| !profile.likes.is_empty()) else { return Ok(None) };
        let names = |weighted: &[(String, f64)]| weighted.iter().map(|(id, _)| id.clone()).collect();
        let query = NeighbourQuery {
            pipeline: config.name.clone(),
            task: task.clone(),
            seeds: names(&profile.likes),
            compared: names(&profile.dislikes),
            excluded: profile.seen.clone(),
            filter: filter.clone(),
            depth: (3 * limit).clamp(30, 100),
        };
        let found = self.reader.neighbours(query).await?;
        let scores: Vec<f64> = found.neighbours.iter().map(|(_, vector)| profile.score(vector, &found.known)).collect();
        // Diversity weighs scores against similarities, so both must be at most 1.
        let best = scores.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let scaled: Vec<f64> = scores.iter().map(|score| score / best).collect();
        let candidate = |index: usize| {
            let (id, vector) = &found.neighbours[index];
            let (liked, similarity) = profile.nearest(vector, &found.known)?;
            let reason = Reason::Liked { document: liked.to_owned(), similarity };
            Some(Candidate { document: id.clone(), score: scores[index], reason })
        };
        Ok(Some(config.diversified(&found, &scaled, limit).into_iter().filter_map(candidate).collect()))
    }

    /// The popular documents of the pipeline, the most popular first.
    async fn popular(&self, config: &RecommendConfig) -> Result<Arc<Vec<PopularDocument>>, Transient> {
        if let Some((computed_at, popular)) = self.popular.lock().unwrap_or_else(PoisonError::into_inner).get(&config.name)
            && computed_at.elapsed() < CACHE_TTL
        {
            return Ok(popular.clone());
        }
        let interactions = self.reader.latest_interactions(&config.name, &config.tenant, LATEST_INTERACTIONS).await?;
        let popular = Arc::new(popularity::popular(&interactions, &config.settings));
        let cached = (Instant::now(), popular.clone());
        self.popular.lock().unwrap_or_else(PoisonError::into_inner).insert(config.name.clone(), cached);
        Ok(popular)
    }

    /// Those of the documents that exist and match the filter.
    async fn matching(
        &self,
        pipeline: &str,
        popular: &[PopularDocument],
        filter: &SearchFilter,
    ) -> Result<Vec<PopularDocument>, Transient> {
        let ids: Vec<String> = popular.iter().map(|popular| popular.document.clone()).collect();
        let matching: HashSet<String> = self.reader.passing(pipeline, &ids, filter).await?.into_iter().collect();
        Ok(popular.iter().filter(|popular| matching.contains(&popular.document)).cloned().collect())
    }

    async fn described(&self, config: &RecommendConfig, candidates: Vec<Candidate>) -> Result<Vec<Recommendation>, Transient> {
        let references = candidates.iter().filter_map(|candidate| candidate.reason.document().map(str::to_owned));
        let ids: HashSet<String> = candidates.iter().map(|candidate| candidate.document.clone()).chain(references).collect();
        let mut summaries = self.reader.document_summaries(&config.name, &ids.into_iter().collect::<Vec<_>>()).await?;
        let all_labels: HashMap<String, BTreeMap<String, HitLabel>> =
            summaries.values().map(|document| (document.id.clone(), document.labels.clone())).collect();
        let described = candidates.into_iter().filter_map(|Candidate { document, score, reason }| {
            let DocumentSummary { id, metadata, labels, summary } = summaries.remove(&document)?;
            let reference = reason.document().and_then(|reference| all_labels.get(reference));
            let shared = reference.into_iter().flat_map(|reference| shared_labels(&config.reasons, &labels, reference));
            let reasons = std::iter::once(reason.clone()).chain(shared).collect();
            Some(Recommendation { document_id: id, score, reasons, labels, summary, metadata })
        });
        Ok(described.collect())
    }
}

impl RecommendConfig {
    fn of(definition: &Definition) -> Self {
        let of_kind =
            |kind| definition.tasks.iter().filter(move |task| task.spec.kind() == kind).map(|task| task.name.to_string());
        let settings = definition.recommendations.clone().unwrap_or_default();
        Self {
            name: definition.name.to_string(),
            tenant: definition.tenant.to_string(),
            vector: settings.vector.clone().or_else(|| of_kind("embed").next()),
            reasons: settings.reasons.clone().unwrap_or_else(|| of_kind("classify").collect()),
            settings,
        }
    }

    fn embedding_task(&self) -> Result<&str, RecommendError> {
        self.vector.as_deref().ok_or_else(|| {
            let name = &self.name;
            RecommendError::Invalid(format!("pipeline `{name}` makes no vectors to compare documents by; add an `embed` task"))
        })
    }

    /// The indexes of at most `limit` neighbours, in the order to show them.
    fn diversified(&self, found: &Neighbourhood, scores: &[f64], limit: usize) -> Vec<usize> {
        let candidates: Vec<_> =
            scores.iter().zip(&found.neighbours).map(|(score, (_, vector))| (*score, vector.as_slice())).collect();
        diversity::choose(&candidates, limit, self.settings.diversity)
    }
}

/// The candidates, filled up to `limit` with popular documents that are neither candidates nor excluded.
fn filled(
    mut candidates: Vec<Candidate>,
    popular: &[PopularDocument],
    excluded: &HashSet<String>,
    limit: usize,
) -> Vec<Candidate> {
    let taken: HashSet<String> = candidates.iter().map(|candidate| candidate.document.clone()).collect();
    let missing = limit.saturating_sub(candidates.len());
    let further = popular.iter().filter(|popular| !taken.contains(&popular.document) && !excluded.contains(&popular.document));
    candidates.extend(further.take(missing).map(|popular| Candidate {
        document: popular.document.clone(),
        score: popular.score,
        reason: Reason::Popular { people: popular.people },
    }));
    candidates
}

fn check_id(what: &str, id: &str) -> Result<(), RecommendError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        let length = id.len();
        return Err(RecommendError::Invalid(format!("`{what}` has {length} bytes; an id has 1 to {MAX_ID_BYTES}")));
    }
    if id.contains('\0') {
        return Err(RecommendError::Invalid(format!("`{what}` contains U+0000, which no id can; remove it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_popular_fills_the_room_that_is_left_and_repeats_nothing() {
        let candidate = |id: &str| Candidate { document: id.into(), score: 1.0, reason: Reason::Popular { people: 0 } };
        let popular = |id: &str| PopularDocument { document: id.into(), score: 0.5, people: 3 };
        let ids = |candidates: Vec<Candidate>| candidates.into_iter().map(|one| one.document).collect::<Vec<_>>();
        let all = [popular("a"), popular("b"), popular("c"), popular("d")];
        let excluded = HashSet::from(["b".to_owned()]);
        assert_eq!(ids(filled(vec![candidate("a")], &all, &excluded, 3)), ["a", "c", "d"]);
        assert_eq!(ids(filled(vec![candidate("x"), candidate("y")], &all, &excluded, 2)), ["x", "y"]);
        assert_eq!(ids(filled(Vec::new(), &all, &HashSet::new(), 10)), ["a", "b", "c", "d"]);
    }

    #[test]
    fn an_id_that_none_can_be_is_refused() {
        assert!(check_id("user", "").is_err() && check_id("user", "a\0").is_err());
        assert!(check_id("user", &"x".repeat(2_000)).is_err());
        assert!(check_id("user", "'; DROP TABLE interactions; --").is_ok());
    }
}
