//! Documents that many people liked recently.

use std::collections::{BTreeMap, HashMap};

use super::profile::decayed;
use crate::pipeline::definition::RecommendationSettings;
use crate::store::InteractionEvent;

/// How many popular documents are kept.
const MAX_POPULAR: usize = 500;

/// A document that people liked.
#[derive(Debug, Clone, PartialEq)]
pub struct PopularDocument {
    pub document: String,
    /// The popularity; 1 for the most popular document.
    pub score: f64,
    /// The number of people who liked it.
    pub people: usize,
}

/// The documents that people liked, the most popular first. A person counts once for a document, with their heaviest interaction,
/// so that nobody makes a document popular alone.
pub fn popular(events: &[InteractionEvent], settings: &RecommendationSettings) -> Vec<PopularDocument> {
    let latest = events.iter().map(|event| event.at_ms).max().unwrap_or_default();
    // A sorted map, so that sums are added in the same order every time and are the same to the last bit.
    let mut heaviest: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for event in events {
        let weight = heaviest.entry((&event.document, &event.user)).or_default();
        *weight = weight.max(decayed(event, latest, settings));
    }
    let mut sums: HashMap<&str, (f64, usize)> = HashMap::new();
    for ((document, _), weight) in heaviest.into_iter().filter(|(_, weight)| *weight > 0.0) {
        let (sum, people) = sums.entry(document).or_default();
        *sum += weight;
        *people += 1;
    }
    let mut popular: Vec<PopularDocument> = sums
        .into_iter()
        .map(|(document, (score, people))| PopularDocument { document: document.to_owned(), score, people })
        .collect();
    popular.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.document.cmp(&b.document)));
    popular.truncate(MAX_POPULAR);
    let best = popular.first().map_or(1.0, |first| first.score);
    popular.iter_mut().for_each(|popular| popular.score /= best);
    popular
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::definition::InteractionWeight;

    fn event(user: &str, document: &str, kind: &str, day: i64) -> InteractionEvent {
        InteractionEvent { user: user.into(), document: document.into(), kind: kind.into(), value: None, at_ms: day * 86_400_000 }
    }

    fn order(events: &[InteractionEvent]) -> Vec<String> {
        let weights =
            [("view".to_owned(), InteractionWeight::Fixed(1.0)), ("return".to_owned(), InteractionWeight::Fixed(-2.0))].into();
        let settings = RecommendationSettings { weights, ..RecommendationSettings::default() };
        popular(events, &settings).into_iter().map(|popular| popular.document).collect()
    }

    #[test]
    fn many_people_count_more_than_one_who_comes_often() {
        let mut events = vec![event("a", "two", "view", 9), event("b", "two", "view", 9)];
        events.extend((0..100).map(|_| event("c", "often", "view", 9)));
        assert_eq!(order(&events), ["two", "often"]);
    }

    #[test]
    fn what_was_popular_long_ago_gives_way() {
        let old = ["a", "b", "c"].map(|user| event(user, "old", "view", 0));
        assert_eq!(order(&[&old[..], &[event("d", "new", "view", 90)]].concat()), ["new", "old"]);
        assert_eq!(order(&[&old[..], &[event("d", "new", "view", 20)]].concat()), ["old", "new"]);
    }

    #[test]
    fn what_nobody_liked_is_not_popular() {
        assert_eq!(order(&[event("a", "bad", "return", 9)]), [""; 0]);
        assert_eq!(order(&[]), [""; 0]);
    }
}
