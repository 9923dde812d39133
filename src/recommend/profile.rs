//! What somebody likes, from what they did.
//!
//! An interaction weighs what the pipeline says of its kind, half of that after each half-life. What weighs above nothing in all is
//! a like, what weighs below is a dislike.
//!
//! A document is scored by how densely likes lie around it, less how densely dislikes do: each adds its weight, falling off
//! exponentially with distance. A plain sum of similarities would be the similarity to the sum of all likes, whatever lies there.

use std::collections::{HashMap, HashSet};

use crate::pipeline::definition::RecommendationSettings;
use crate::store::InteractionEvent;

/// Likes and dislikes that are looked around: more say little, and each is a search.
const INTERESTS: usize = 12;

/// How fast a like's weight falls off: by e for so much less of cosine. Sentence encoders put kindred products at 0.4 to 0.7 and
/// others below 0.2, which this keeps apart by a factor of ten.
const BREADTH: f64 = 0.2;

/// What somebody likes, dislikes and has seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserProfile {
    /// Documents with their weights, the heaviest first.
    pub likes: Vec<(String, f64)>,
    /// The same of dislikes, with what they weigh against.
    pub dislikes: Vec<(String, f64)>,
    /// All that they did anything with.
    pub seen: Vec<String>,
}

impl UserProfile {
    /// The taste of whoever did this.
    pub fn of(deeds: &[InteractionEvent], terms: &RecommendationSettings) -> Self {
        let weights = weighed(deeds, terms);
        let seen = {
            let mut known = HashSet::new();
            deeds.iter().filter(|deed| known.insert(&deed.document)).map(|deed| deed.document.clone()).collect()
        };
        let strongest = |sign: f64| {
            // The tenth view says less than the first.
            let weighed = weights.iter().map(|(id, weight)| ((*id).to_owned(), (sign * weight).max(0.0).ln_1p()));
            let mut weighed: Vec<(String, f64)> = weighed.filter(|(_, weight)| *weight > 0.0).collect();
            weighed.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            weighed.truncate(INTERESTS);
            weighed
        };
        Self { likes: strongest(1.0), dislikes: strongest(-1.0), seen }
    }

    /// Every document that weighs above nothing, whatever it weighs.
    pub fn likes_among(deeds: &[InteractionEvent], terms: &RecommendationSettings) -> Vec<String> {
        weighed(deeds, terms).into_iter().filter(|(_, weight)| *weight > 0.0).map(|(id, _)| id.to_owned()).collect()
    }

    /// How well what lies there fits, at most 1; `known` is where likes and dislikes lie.
    pub fn score(&self, place: &[f32], known: &HashMap<String, Vec<f32>>) -> f64 {
        let density = |weighed: &[(String, f64)]| -> f64 {
            let near =
                weighed.iter().filter_map(|(id, weight)| Some(weight * ((cosine(place, known.get(id)?) - 1.0) / BREADTH).exp()));
            near.sum()
        };
        let whole: f64 = self.likes.iter().filter(|(id, _)| known.contains_key(id)).map(|(_, weight)| weight).sum();
        (density(&self.likes) - density(&self.dislikes)) / whole.max(f64::MIN_POSITIVE)
    }

    /// The like that is nearest to what lies there, and how alike they are.
    pub fn nearest(&self, place: &[f32], known: &HashMap<String, Vec<f32>>) -> Option<(&str, f64)> {
        let alike = self.likes.iter().filter_map(|(id, _)| Some((id.as_str(), cosine(place, known.get(id)?))));
        // Of equals the heavier, which comes first.
        alike.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// What each document weighs in all.
fn weighed<'a>(deeds: &'a [InteractionEvent], terms: &RecommendationSettings) -> HashMap<&'a str, f64> {
    let latest = deeds.iter().map(|deed| deed.at_ms).max().unwrap_or_default();
    let mut weights: HashMap<&str, f64> = HashMap::new();
    for deed in deeds {
        *weights.entry(&deed.document).or_default() += decayed(deed, latest, terms);
    }
    weights
}

/// What the interaction weighs when the latest happened. Which moment is taken changes no order, and from this one none underflows.
pub fn decayed(deed: &InteractionEvent, latest_ms: i64, terms: &RecommendationSettings) -> f64 {
    let age = latest_ms.saturating_sub(deed.at_ms).max(0) as f64 / 1_000.0;
    terms.weight(&deed.kind, deed.value) * (-age / terms.half_life.as_secs_f64()).exp2()
}

/// The cosine of the angle between two vectors; 0 where one has no length.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::definition::{InteractionWeight, ValueWeight};

    const DAY: i64 = 86_400_000;

    fn terms() -> RecommendationSettings {
        let rating = InteractionWeight::ByValue(ValueWeight { neutral: 3.0, steps: 2.0, each: 2.0 });
        let weights = [("view", InteractionWeight::Fixed(1.0)), ("purchase", InteractionWeight::Fixed(5.0)), ("rating", rating)];
        RecommendationSettings {
            weights: weights.map(|(kind, weight)| (kind.to_owned(), weight)).into(),
            ..RecommendationSettings::default()
        }
    }

    fn deed(document: &str, kind: &str, value: Option<f64>, day: i64) -> InteractionEvent {
        InteractionEvent { user: "u".into(), document: document.into(), kind: kind.into(), value, at_ms: day * DAY }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn an_interaction_weighs_half_after_each_half_life() {
        let weight = |day| decayed(&deed("a", "purchase", None, day), 60 * DAY, &terms());
        assert!(close(weight(60), 5.0) && close(weight(30), 2.5) && close(weight(0), 1.25), "{} {}", weight(30), weight(0));
        assert!(close(weight(90), 5.0), "what lies ahead weighs no more than now");
    }

    #[test]
    fn ratings_below_the_neutral_one_are_dislikes_and_all_of_it_is_seen() {
        let deeds = [
            deed("good", "rating", Some(5.0), 9),
            deed("good", "view", None, 9),
            deed("bad", "rating", Some(1.0), 9),
            deed("bad", "view", None, 9),
            deed("so", "rating", Some(3.0), 9),
            deed("odd", "wink", None, 9),
        ];
        let taste = UserProfile::of(&deeds, &terms());
        assert_eq!(taste.likes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["good"]);
        assert!(close(taste.likes[0].1, 5.0_f64.ln_1p()), "{taste:?}");
        assert_eq!(taste.dislikes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["bad"]);
        assert_eq!(taste.seen, ["good", "bad", "so", "odd"]);
        assert_eq!(UserProfile::of(&[], &terms()), UserProfile::default());
    }

    #[test]
    fn a_document_near_one_of_two_interests_beats_one_between_them() {
        let taste = UserProfile { likes: vec![("x".into(), 1.0), ("y".into(), 1.0)], ..UserProfile::default() };
        let known = HashMap::from([("x".to_owned(), vec![1.0, 0.0]), ("y".to_owned(), vec![0.0, 1.0])]);
        let (near, between) = (vec![0.98, 0.2], vec![0.7, 0.7]);
        assert!(taste.score(&near, &known) > taste.score(&between, &known));
        assert!(cosine(&[1.0, 1.0], &between) > cosine(&[1.0, 1.0], &near), "the mean would have it the other way round");
        assert_eq!(taste.nearest(&near, &known).map(|(id, _)| id), Some("x"));
    }

    #[test]
    fn what_lies_by_a_dislike_is_pushed_down() {
        let likes = vec![("x".to_owned(), 1.0)];
        let known = HashMap::from([("x".to_owned(), vec![1.0, 0.0]), ("no".to_owned(), vec![0.8, 0.6])]);
        let place = [0.9, 0.43];
        let without = UserProfile { likes: likes.clone(), ..UserProfile::default() }.score(&place, &known);
        let with = UserProfile { likes, dislikes: vec![("no".into(), 1.0)], ..UserProfile::default() }.score(&place, &known);
        assert!(with < without && with < 0.0, "{with} {without}");
    }

    proptest! {
        #[test]
        fn no_order_depends_on_when_it_is_asked(days in prop::collection::vec((0i64..4_000, 0usize..6, 0usize..2), 1..40), later in 0i64..4_000) {
            let deeds = |shift: i64| -> Vec<InteractionEvent> {
                let kinds = ["view", "purchase"];
                days.iter().map(|(day, id, kind)| deed(&format!("d{id}"), kinds[*kind], None, day + shift)).collect()
            };
            let ids = |taste: UserProfile| taste.likes.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
            prop_assert_eq!(ids(UserProfile::of(&deeds(0), &terms())), ids(UserProfile::of(&deeds(later), &terms())));
        }

        #[test]
        fn scores_are_at_most_one_and_best_on_the_only_like(angle in 0.0f32..6.2) {
            let taste = UserProfile { likes: vec![("x".into(), 3.0)], ..UserProfile::default() };
            let known = HashMap::from([("x".to_owned(), vec![1.0, 0.0])]);
            let score = taste.score(&[angle.cos(), angle.sin()], &known);
            prop_assert!(score > 0.0 && score <= taste.score(&[1.0, 0.0], &known) + 1e-9);
            prop_assert!(close(taste.score(&[2.0, 0.0], &known), 1.0));
        }
    }

    #[test]
    fn without_weights_every_kind_weighs_one() {
        let terms = RecommendationSettings { weights: BTreeMap::new(), ..RecommendationSettings::default() };
        assert!(close(UserProfile::of(&[deed("a", "anything", None, 1)], &terms).likes[0].1, 2.0_f64.ln()));
    }
}
