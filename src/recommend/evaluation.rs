//! Offline evaluation: how well recommendations predict what people liked next, compared with popular documents.
//!
//! For each person, the documents that they came to last are held out, with every interaction from then on. The recommendations
//! that [`Recommender::recommend`] makes from the remaining interactions are compared with the documents that were held out. So are
//! the popular documents of the remaining interactions of all people: recommendations that are not better than those are not worth
//! their vectors.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::popularity::{PopularDocument, popular};
use super::profile::UserProfile;
use super::{Candidate, RecommendError, Recommender, filled};
use crate::pipeline::definition::RecommendationSettings;
use crate::store::{InteractionEvent, SearchFilter};

/// How many interactions are read, the latest: some 30 MB.
const MAX_INTERACTIONS: i64 = 200_000;

/// The maximum number of documents in a list.
const MAX_K: usize = 100;

/// The settings of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluationSettings {
    /// How many documents are recommended to each person.
    pub k: usize,
    /// What is held out.
    pub holdout: Holdout,
    /// The maximum number of people; of more, a random sample is taken.
    pub users: usize,
    /// The seed of the sample.
    pub seed: u64,
}

/// What is held out of each person's documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Holdout {
    Last,
    /// This share of the documents, the last ones.
    Share(f64),
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub pipeline: String,
    /// How many documents were recommended to each person.
    pub k: usize,
    /// How many interactions were read.
    pub interactions: usize,
    /// The number of people for whom documents could be held out.
    pub users: usize,
    /// The number of documents held out, over all people.
    pub held_out: usize,
    /// The number of documents that could be recommended.
    pub catalogue: i64,
    /// The quality of the recommendations.
    pub recommended: RankingMetrics,
    /// The quality of lists of popular documents.
    pub popular: RankingMetrics,
}

/// The quality of lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RankingMetrics {
    /// How many held-out documents were in the list of their person.
    pub hits: usize,
    /// The share of a person's held-out documents that were in the list, as the mean over people.
    pub recall: f64,
    /// How many different documents were in any list.
    pub documents: usize,
    /// Their share of the documents that could be recommended.
    pub coverage: f64,
}

/// A person's interactions before the documents that are held out, and those documents.
#[derive(Debug, Clone, PartialEq)]
struct SplitHistory {
    before: Vec<InteractionEvent>,
    held_out: HashSet<String>,
}

#[derive(Debug, Default)]
struct RankingTally {
    hits: usize,
    recalls: f64,
    documents: HashSet<String>,
}

impl Recommender {
    /// Evaluates recommendations of a pipeline on its interactions.
    ///
    /// # Errors
    /// See [`RecommendError`]. Also if no document can be held out for anybody.
    pub async fn evaluate(&self, pipeline: Option<&str>, settings: &EvaluationSettings) -> Result<Evaluation, RecommendError> {
        let config = self.config(pipeline)?;
        let name = &config.name;
        settings.check()?;
        let task = config.embedding_task()?;
        let events = self.reader.latest_interactions(name, &config.tenant, MAX_INTERACTIONS).await?;
        let interactions = events.len();
        let (mut histories, others) = split_all(events, settings.holdout, &config.settings);
        if histories.is_empty() {
            let message =
                format!("nobody has liked two documents of pipeline `{name}` one after the other, so none can be held out");
            return Err(RecommendError::Invalid(message));
        }
        let known = histories.iter().flat_map(|history| history.before.iter().cloned()).chain(others);
        let known: Vec<InteractionEvent> = known.collect();
        let all = SearchFilter::default();
        let best = self.matching(name, &popular(&known, &config.settings), &all).await?;
        histories.shuffle(&mut StdRng::seed_from_u64(settings.seed));
        histories.truncate(settings.users);
        let (mut recommended, mut by_popularity) = (RankingTally::default(), RankingTally::default());
        for history in &histories {
            let profile = UserProfile::of(&history.before, &config.settings);
            let candidates = self.for_profile(config, &profile, settings.k, &all).await?.unwrap_or_default();
            let seen: HashSet<String> = profile.seen.iter().cloned().collect();
            recommended.count(&filled(candidates, &best, &seen, settings.k), history);
            by_popularity.count(&only_popular(&best, &seen, settings.k), history);
        }
        let catalogue = self.reader.count_embedded(name, task).await?;
        Ok(Evaluation {
            pipeline: name.clone(),
            k: settings.k,
            interactions,
            users: histories.len(),
            held_out: histories.iter().map(|history| history.held_out.len()).sum(),
            catalogue,
            recommended: recommended.metrics(histories.len(), catalogue),
            popular: by_popularity.metrics(histories.len(), catalogue),
        })
    }
}

impl EvaluationSettings {
    fn check(&self) -> Result<(), RecommendError> {
        let fault = match self {
            Self { k, .. } if !(1..=MAX_K).contains(k) => format!("`k` is {k}; give a number from 1 to {MAX_K}"),
            Self { users: 0, .. } => "`users` is 0; give at least 1".to_owned(),
            Self { holdout: Holdout::Share(share), .. } if !(*share > 0.0 && *share < 1.0) => {
                format!("the share to hold out is {share}; give a number between 0 and 1, or `last`")
            }
            _ => return Ok(()),
        };
        Err(RecommendError::Invalid(fault))
    }
}

impl RankingTally {
    fn count(&mut self, list: &[Candidate], history: &SplitHistory) {
        let hits = list.iter().filter(|candidate| history.held_out.contains(&candidate.document)).count();
        self.hits += hits;
        self.recalls += hits as f64 / history.held_out.len() as f64;
        self.documents.extend(list.iter().map(|candidate| candidate.document.clone()));
    }

    fn metrics(&self, people: usize, catalogue: i64) -> RankingMetrics {
        let documents = self.documents.len();
        RankingMetrics {
            hits: self.hits,
            recall: self.recalls / people.max(1) as f64,
            documents,
            coverage: documents as f64 / catalogue.max(1) as f64,
        }
    }
}

fn only_popular(best: &[PopularDocument], seen: &HashSet<String>, k: usize) -> Vec<Candidate> {
    filled(Vec::new(), best, seen, k)
}

/// The histories of all people for whom documents can be held out, ordered by user, and the interactions of the others.
fn split_all(
    events: Vec<InteractionEvent>,
    holdout: Holdout,
    settings: &RecommendationSettings,
) -> (Vec<SplitHistory>, Vec<InteractionEvent>) {
    let mut people: BTreeMap<String, Vec<InteractionEvent>> = BTreeMap::new();
    for event in events {
        people.entry(event.user.clone()).or_default().push(event);
    }
    let (mut histories, mut others) = (Vec::new(), Vec::new());
    for mut history in people.into_values() {
        history.sort_by(|a, b| a.at_ms.cmp(&b.at_ms).then_with(|| a.document.cmp(&b.document)));
        match split(&history, holdout, settings) {
            Some(history) => histories.push(history),
            None => others.append(&mut history),
        }
    }
    (histories, others)
}

/// A person's interactions until they first came to the documents that are held out: the last ones that they came to and liked.
fn split(history: &[InteractionEvent], holdout: Holdout, settings: &RecommendationSettings) -> Option<SplitHistory> {
    let mut firsts: HashMap<&str, i64> = HashMap::new();
    for event in history {
        firsts.entry(&event.document).or_insert(event.at_ms);
    }
    let mut liked: Vec<(i64, String)> = UserProfile::likes_among(history, settings)
        .into_iter()
        .map(|id| (firsts.get(id.as_str()).copied().unwrap_or_default(), id))
        .collect();
    liked.sort();
    let held = match holdout {
        Holdout::Last => 1,
        Holdout::Share(share) => (liked.len() as f64 * share).ceil() as usize,
    };
    let (since, _) = *liked.get(liked.len().checked_sub(held)?)?;
    let before: Vec<InteractionEvent> = history.iter().filter(|event| event.at_ms < since).cloned().collect();
    let seen: HashSet<&str> = before.iter().map(|event| event.document.as_str()).collect();
    let held_out =
        liked.iter().filter(|(first, id)| *first >= since && !seen.contains(id.as_str())).map(|(_, id)| id.clone()).collect();
    (!UserProfile::of(&before, settings).likes.is_empty()).then_some(SplitHistory { before, held_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: &str, document: &str, at_ms: i64) -> InteractionEvent {
        InteractionEvent { user: user.into(), document: document.into(), kind: "view".into(), value: None, at_ms }
    }

    fn held(history: &[InteractionEvent], holdout: Holdout) -> Option<(Vec<String>, Vec<String>)> {
        let SplitHistory { before, held_out } = split(history, holdout, &RecommendationSettings::default())?;
        let mut held_out: Vec<String> = held_out.into_iter().collect();
        held_out.sort();
        Some((before.into_iter().map(|event| event.document).collect(), held_out))
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_they_came_to_last_is_held_out_with_all_that_follows() {
        let history = [event("u", "a", 1), event("u", "b", 2), event("u", "c", 3), event("u", "a", 4), event("u", "c", 5)];
        assert_eq!(held(&history, Holdout::Last), Some((words(&["a", "b"]), words(&["c"]))));
        assert_eq!(held(&history, Holdout::Share(0.5)), Some((words(&["a"]), words(&["b", "c"]))));
    }

    #[test]
    fn whoever_liked_one_thing_alone_or_all_at_once_tells_nothing() {
        assert_eq!(held(&[event("u", "a", 1), event("u", "a", 2)], Holdout::Last), None);
        assert_eq!(held(&[event("u", "a", 1), event("u", "b", 1)], Holdout::Last), None);
        assert_eq!(held(&[], Holdout::Last), None);
        let (histories, others) = split_all(
            vec![event("u", "a", 1), event("v", "a", 1), event("v", "b", 2)],
            Holdout::Last,
            &RecommendationSettings::default(),
        );
        assert_eq!((histories.len(), others.len()), (1, 1));
    }

    #[test]
    fn recall_is_the_mean_over_people_and_coverage_the_share_of_the_catalogue() {
        let history = |ids: &[&str]| SplitHistory { before: Vec::new(), held_out: words(ids).into_iter().collect() };
        let popular = |id: &str| PopularDocument { document: id.into(), score: 1.0, people: 1 };
        let list = only_popular(&[popular("a"), popular("b")], &HashSet::new(), 10);
        let mut tally = RankingTally::default();
        tally.count(&list, &history(&["a", "x"]));
        tally.count(&list, &history(&["x"]));
        let expected = RankingMetrics { hits: 1, recall: 0.25, documents: 2, coverage: 0.2 };
        assert_eq!(tally.metrics(2, 10), expected);
    }

    #[test]
    fn a_trial_of_nothing_is_refused() {
        let settings = EvaluationSettings { k: 10, holdout: Holdout::Last, users: 5, seed: 1 };
        assert!(settings.check().is_ok());
        for (wrong, says) in [
            (EvaluationSettings { k: 0, ..settings }, "`k` is 0"),
            (EvaluationSettings { users: 0, ..settings }, "`users` is 0"),
            (EvaluationSettings { holdout: Holdout::Share(1.0), ..settings }, "the share to hold out is 1"),
            (EvaluationSettings { holdout: Holdout::Share(f64::NAN), ..settings }, "the share to hold out is NaN"),
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains(says), "{wrong:?}");
        }
    }
}
