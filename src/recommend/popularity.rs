//! What many people liked of late.

use std::collections::{BTreeMap, HashMap};

use super::profile::decayed;
use crate::pipeline::definition::RecommendationSettings;
use crate::store::InteractionEvent;

/// Documents of which it is known that they are popular.
const MOST: usize = 500;

/// A document that people like.
#[derive(Debug, Clone, PartialEq)]
pub struct Popular {
    /// The document.
    pub document: String,
    /// How popular it is; the most popular one has 1.
    pub score: f64,
    /// How many people liked it.
    pub people: usize,
}

/// The documents that people liked, the most popular first. Each person counts once for a document, by what weighs most of what
/// they did with it: nobody makes a thing popular alone.
pub fn popular(deeds: &[InteractionEvent], terms: &RecommendationSettings) -> Vec<Popular> {
    let latest = deeds.iter().map(|deed| deed.at_ms).max().unwrap_or_default();
    // In an order of its own, so that sums are the same to the last bit however often they are made.
    let mut strongest: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for deed in deeds {
        let strongest = strongest.entry((&deed.document, &deed.user)).or_default();
        *strongest = strongest.max(decayed(deed, latest, terms));
    }
    let mut sums: HashMap<&str, (f64, usize)> = HashMap::new();
    for ((document, _), weight) in strongest.into_iter().filter(|(_, weight)| *weight > 0.0) {
        let (sum, people) = sums.entry(document).or_default();
        *sum += weight;
        *people += 1;
    }
    let mut popular: Vec<Popular> =
        sums.into_iter().map(|(document, (score, people))| Popular { document: document.to_owned(), score, people }).collect();
    popular.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.document.cmp(&b.document)));
    popular.truncate(MOST);
    let best = popular.first().map_or(1.0, |first| first.score);
    popular.iter_mut().for_each(|popular| popular.score /= best);
    popular
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::definition::InteractionWeight;

    fn deed(user: &str, document: &str, kind: &str, day: i64) -> InteractionEvent {
        InteractionEvent { user: user.into(), document: document.into(), kind: kind.into(), value: None, at_ms: day * 86_400_000 }
    }

    fn order(deeds: &[InteractionEvent]) -> Vec<String> {
        let weights =
            [("view".to_owned(), InteractionWeight::Fixed(1.0)), ("return".to_owned(), InteractionWeight::Fixed(-2.0))].into();
        let terms = RecommendationSettings { weights, ..RecommendationSettings::default() };
        popular(deeds, &terms).into_iter().map(|popular| popular.document).collect()
    }

    #[test]
    fn many_people_count_more_than_one_who_comes_often() {
        let mut deeds = vec![deed("a", "two", "view", 9), deed("b", "two", "view", 9)];
        deeds.extend((0..100).map(|_| deed("c", "often", "view", 9)));
        assert_eq!(order(&deeds), ["two", "often"]);
    }

    #[test]
    fn what_was_popular_long_ago_gives_way() {
        let old = ["a", "b", "c"].map(|user| deed(user, "old", "view", 0));
        assert_eq!(order(&[&old[..], &[deed("d", "new", "view", 90)]].concat()), ["new", "old"]);
        assert_eq!(order(&[&old[..], &[deed("d", "new", "view", 20)]].concat()), ["old", "new"]);
    }

    #[test]
    fn what_nobody_liked_is_not_popular() {
        assert_eq!(order(&[deed("a", "bad", "return", 9)]), [""; 0]);
        assert_eq!(order(&[]), [""; 0]);
    }
}
