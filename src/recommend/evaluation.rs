//! How well recommendations foretell what people turned to next, beside what is merely popular.
//!
//! Of each person what they came to last is held out, with everything that they did from then on. What is recommended by the rest,
//! as [`Recommender::recommend`] would, is compared with it. So is what is popular by the rest of all: whatever does not beat
//! that is not worth its vectors.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::popularity::{Popular, popular};
use super::profile::UserProfile;
use super::{Candidate, RecommendError, Recommender, filled};
use crate::pipeline::definition::RecommendationSettings;
use crate::store::{InteractionEvent, SearchFilter};

/// Interactions that are looked at, the latest: some 30 MB.
const MOST_DEEDS: i64 = 200_000;

/// Documents of a list at most.
const MOST_K: usize = 100;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluationSettings {
    /// Documents that are recommended to each.
    pub k: usize,
    /// What is held out.
    pub holdout: Holdout,
    /// People at most; a sample where there are more.
    pub users: usize,
    /// Draws the sample.
    pub seed: u64,
}

/// What is held out of each person's documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Holdout {
    /// The last one.
    Last,
    /// The last of them, this share.
    Share(f64),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The pipeline.
    pub pipeline: String,
    /// Documents that were recommended to each.
    pub k: usize,
    /// Interactions that were looked at.
    pub interactions: usize,
    /// People of whom something could be held out.
    pub users: usize,
    /// Documents that were held out, each person's counted for itself.
    pub held_out: usize,
    /// Documents that could be recommended.
    pub catalogue: i64,
    /// How the recommendations did.
    pub recommended: RankingMetrics,
    /// How what is popular did.
    pub popular: RankingMetrics,
}

/// How lists did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RankingMetrics {
    /// Documents held out that were in their person's list.
    pub hits: usize,
    /// Their share of those held out, the mean over people.
    pub recall: f64,
    /// Documents that were in anybody's list.
    pub documents: usize,
    /// Their share of the catalogue.
    pub coverage: f64,
}

/// One person's history, cut in two.
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
    /// Tries it on what people did with the pipeline's documents.
    ///
    /// # Errors
    /// Where there is no such pipeline, nothing can be held out, or the database is out of order.
    pub async fn evaluate(&self, pipeline: Option<&str>, trial: &EvaluationSettings) -> Result<Evaluation, RecommendError> {
        let (name, shelf) = self.shelf(pipeline)?;
        trial.checked()?;
        let Some(task) = &shelf.vector else {
            let message = format!("pipeline `{name}` makes no vectors to compare documents by; add an `embed` task");
            return Err(RecommendError::Invalid(message));
        };
        let deeds = self.reader.latest_interactions(name, &shelf.tenant, MOST_DEEDS).await?;
        let interactions = deeds.len();
        let (mut cuts, others) = cut_all(deeds, trial.holdout, &shelf.terms);
        if cuts.is_empty() {
            let message =
                format!("nobody has liked two documents of pipeline `{name}` one after the other: nothing can be held out");
            return Err(RecommendError::Invalid(message));
        }
        let known: Vec<InteractionEvent> = cuts.iter().flat_map(|cut| cut.before.iter().cloned()).chain(others).collect();
        let all = SearchFilter::default();
        let best = self.passing(name, &popular(&known, &shelf.terms), &all).await?;
        cuts.shuffle(&mut StdRng::seed_from_u64(trial.seed));
        cuts.truncate(trial.users);
        let (mut recommended, mut by_popularity) = (RankingTally::default(), RankingTally::default());
        for cut in &cuts {
            let taste = UserProfile::of(&cut.before, &shelf.terms);
            let picks = self.after((name, shelf), &taste, trial.k, &all).await?.unwrap_or_default();
            let seen: HashSet<String> = taste.seen.iter().cloned().collect();
            recommended.count(&filled(picks, &best, &seen, trial.k), cut);
            by_popularity.count(&only_popular(&best, &seen, trial.k), cut);
        }
        let catalogue = self.reader.count_embedded(name, task).await?;
        Ok(Evaluation {
            pipeline: name.to_owned(),
            k: trial.k,
            interactions,
            users: cuts.len(),
            held_out: cuts.iter().map(|cut| cut.held_out.len()).sum(),
            catalogue,
            recommended: recommended.measures(cuts.len(), catalogue),
            popular: by_popularity.measures(cuts.len(), catalogue),
        })
    }
}

impl EvaluationSettings {
    fn checked(&self) -> Result<(), RecommendError> {
        let fault = match self {
            Self { k, .. } if !(1..=MOST_K).contains(k) => format!("`k` is {k}; recommend 1 to {MOST_K} documents"),
            Self { users: 0, .. } => "`users` is 0; ask for at least one".to_owned(),
            Self { holdout: Holdout::Share(share), .. } if !(*share > 0.0 && *share < 1.0) => {
                format!("the share to hold out is {share}; write one between 0 and 1, or `last`")
            }
            _ => return Ok(()),
        };
        Err(RecommendError::Invalid(fault))
    }
}

impl RankingTally {
    fn count(&mut self, list: &[Candidate], cut: &SplitHistory) {
        let hits = list.iter().filter(|pick| cut.held_out.contains(&pick.document)).count();
        self.hits += hits;
        self.recalls += hits as f64 / cut.held_out.len() as f64;
        self.documents.extend(list.iter().map(|pick| pick.document.clone()));
    }

    fn measures(&self, people: usize, catalogue: i64) -> RankingMetrics {
        let documents = self.documents.len();
        RankingMetrics {
            hits: self.hits,
            recall: self.recalls / people.max(1) as f64,
            documents,
            coverage: documents as f64 / catalogue.max(1) as f64,
        }
    }
}

fn only_popular(best: &[Popular], seen: &HashSet<String>, k: usize) -> Vec<Candidate> {
    filled(Vec::new(), best, seen, k)
}

/// Everybody's history cut in two, in the order of their names, and what those did of whom nothing can be held out.
fn cut_all(
    deeds: Vec<InteractionEvent>,
    holdout: Holdout,
    terms: &RecommendationSettings,
) -> (Vec<SplitHistory>, Vec<InteractionEvent>) {
    let mut people: BTreeMap<String, Vec<InteractionEvent>> = BTreeMap::new();
    for deed in deeds {
        people.entry(deed.user.clone()).or_default().push(deed);
    }
    let (mut cuts, mut others) = (Vec::new(), Vec::new());
    for mut history in people.into_values() {
        history.sort_by(|a, b| a.at_ms.cmp(&b.at_ms).then_with(|| a.document.cmp(&b.document)));
        match cut(&history, holdout, terms) {
            Some(cut) => cuts.push(cut),
            None => others.append(&mut history),
        }
    }
    (cuts, others)
}

/// The history until they came to the documents that are held out: the last ones that they came to and liked.
fn cut(history: &[InteractionEvent], holdout: Holdout, terms: &RecommendationSettings) -> Option<SplitHistory> {
    let mut firsts: HashMap<&str, i64> = HashMap::new();
    for deed in history {
        firsts.entry(&deed.document).or_insert(deed.at_ms);
    }
    let mut liked: Vec<(i64, String)> = UserProfile::likes_among(history, terms)
        .into_iter()
        .map(|id| (firsts.get(id.as_str()).copied().unwrap_or_default(), id))
        .collect();
    liked.sort();
    let held = match holdout {
        Holdout::Last => 1,
        Holdout::Share(share) => (liked.len() as f64 * share).ceil() as usize,
    };
    let (since, _) = *liked.get(liked.len().checked_sub(held)?)?;
    let before: Vec<InteractionEvent> = history.iter().filter(|deed| deed.at_ms < since).cloned().collect();
    let seen: HashSet<&str> = before.iter().map(|deed| deed.document.as_str()).collect();
    let held_out =
        liked.iter().filter(|(first, id)| *first >= since && !seen.contains(id.as_str())).map(|(_, id)| id.clone()).collect();
    (!UserProfile::of(&before, terms).likes.is_empty()).then_some(SplitHistory { before, held_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(user: &str, document: &str, at_ms: i64) -> InteractionEvent {
        InteractionEvent { user: user.into(), document: document.into(), kind: "view".into(), value: None, at_ms }
    }

    fn held(history: &[InteractionEvent], holdout: Holdout) -> Option<(Vec<String>, Vec<String>)> {
        let SplitHistory { before, held_out } = cut(history, holdout, &RecommendationSettings::default())?;
        let mut held_out: Vec<String> = held_out.into_iter().collect();
        held_out.sort();
        Some((before.into_iter().map(|deed| deed.document).collect(), held_out))
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_they_came_to_last_is_held_out_with_all_that_follows() {
        let history = [deed("u", "a", 1), deed("u", "b", 2), deed("u", "c", 3), deed("u", "a", 4), deed("u", "c", 5)];
        assert_eq!(held(&history, Holdout::Last), Some((words(&["a", "b"]), words(&["c"]))));
        assert_eq!(held(&history, Holdout::Share(0.5)), Some((words(&["a"]), words(&["b", "c"]))));
    }

    #[test]
    fn whoever_liked_one_thing_alone_or_all_at_once_tells_nothing() {
        assert_eq!(held(&[deed("u", "a", 1), deed("u", "a", 2)], Holdout::Last), None);
        assert_eq!(held(&[deed("u", "a", 1), deed("u", "b", 1)], Holdout::Last), None);
        assert_eq!(held(&[], Holdout::Last), None);
        let (cuts, others) = cut_all(
            vec![deed("u", "a", 1), deed("v", "a", 1), deed("v", "b", 2)],
            Holdout::Last,
            &RecommendationSettings::default(),
        );
        assert_eq!((cuts.len(), others.len()), (1, 1));
    }

    #[test]
    fn recall_is_the_mean_over_people_and_coverage_the_share_of_the_catalogue() {
        let cut = |ids: &[&str]| SplitHistory { before: Vec::new(), held_out: words(ids).into_iter().collect() };
        let popular = |id: &str| Popular { document: id.into(), score: 1.0, people: 1 };
        let list = only_popular(&[popular("a"), popular("b")], &HashSet::new(), 10);
        let mut tally = RankingTally::default();
        tally.count(&list, &cut(&["a", "x"]));
        tally.count(&list, &cut(&["x"]));
        let expected = RankingMetrics { hits: 1, recall: 0.25, documents: 2, coverage: 0.2 };
        assert_eq!(tally.measures(2, 10), expected);
    }

    #[test]
    fn a_trial_of_nothing_is_refused() {
        let trial = EvaluationSettings { k: 10, holdout: Holdout::Last, users: 5, seed: 1 };
        assert!(trial.checked().is_ok());
        for (wrong, says) in [
            (EvaluationSettings { k: 0, ..trial }, "`k` is 0"),
            (EvaluationSettings { users: 0, ..trial }, "`users` is 0"),
            (EvaluationSettings { holdout: Holdout::Share(1.0), ..trial }, "the share to hold out is 1"),
            (EvaluationSettings { holdout: Holdout::Share(f64::NAN), ..trial }, "the share to hold out is NaN"),
        ] {
            assert!(wrong.checked().unwrap_err().to_string().contains(says), "{wrong:?}");
        }
    }
}
