//! Profiles of users: what they like, from their interactions.
//!
//! The pipeline gives a weight to each kind of interaction; it halves after each half-life. A document with a positive sum of
//! weights is a like, one with a negative sum a dislike.
//!
//! The score of a document is the density of likes around it, minus that of dislikes: each adds its weight, which falls off
//! exponentially with distance. A plain sum of similarities would equal the similarity to the sum of all likes, even if no like is
//! near it.

use std::collections::{HashMap, HashSet};

use crate::pipeline::definition::RecommendationSettings;
use crate::store::InteractionEvent;

/// How many likes and how many dislikes a profile keeps. Each like is a search, and further ones change little.
const MAX_LIKES: usize = 12;

/// The loss of cosine similarity by which a like's weight falls by a factor of e. With sentence encoders, related products have a
/// similarity of 0.4 to 0.7 and unrelated ones less than 0.2; this value separates them by a factor of ten.
const FALL_OFF: f64 = 0.2;

/// What a user likes, dislikes and has seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserProfile {
    /// Liked documents with their weights, the heaviest first.
    pub likes: Vec<(String, f64)>,
    /// Disliked documents with the absolute values of their weights, the heaviest first.
    pub dislikes: Vec<(String, f64)>,
    /// Every document of an interaction.
    pub seen: Vec<String>,
}

impl UserProfile {
    /// The profile of the user with these interactions.
    pub fn of(events: &[InteractionEvent], settings: &RecommendationSettings) -> Self {
        let weights = weights_of(events, settings);
        let seen = {
            let mut known = HashSet::new();
            events.iter().filter(|event| known.insert(&event.document)).map(|event| event.document.clone()).collect()
        };
        let strongest = |sign: f64| {
            // The logarithm: a tenth view says less than the first.
            let weighted = weights.iter().map(|(id, weight)| ((*id).to_owned(), (sign * weight).max(0.0).ln_1p()));
            let mut weighted: Vec<(String, f64)> = weighted.filter(|(_, weight)| *weight > 0.0).collect();
            weighted.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            weighted.truncate(MAX_LIKES);
            weighted
        };
        Self { likes: strongest(1.0), dislikes: strongest(-1.0), seen }
    }

    /// Every document with a positive weight.
    pub fn likes_among(events: &[InteractionEvent], settings: &RecommendationSettings) -> Vec<String> {
        weights_of(events, settings).into_iter().filter(|(_, weight)| *weight > 0.0).map(|(id, _)| id.to_owned()).collect()
    }

    /// How well a document with this vector fits, at most 1. `vectors` are those of likes and dislikes.
    pub fn score(&self, vector: &[f32], vectors: &HashMap<String, Vec<f32>>) -> f64 {
        let density = |weighted: &[(String, f64)]| -> f64 {
            let near = weighted
                .iter()
                .filter_map(|(id, weight)| Some(weight * ((cosine(vector, vectors.get(id)?) - 1.0) / FALL_OFF).exp()));
            near.sum()
        };
        let total: f64 = self.likes.iter().filter(|(id, _)| vectors.contains_key(id)).map(|(_, weight)| weight).sum();
        (density(&self.likes) - density(&self.dislikes)) / total.max(f64::MIN_POSITIVE)
    }

    /// The like that is nearest to a document with this vector, and their similarity.
    pub fn nearest(&self, vector: &[f32], vectors: &HashMap<String, Vec<f32>>) -> Option<(&str, f64)> {
        let similarities = self.likes.iter().filter_map(|(id, _)| Some((id.as_str(), cosine(vector, vectors.get(id)?))));
        // Of equally near likes the heaviest, which comes first.
        similarities.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// The sum of weights of each document.
fn weights_of<'a>(events: &'a [InteractionEvent], settings: &RecommendationSettings) -> HashMap<&'a str, f64> {
    let latest = events.iter().map(|event| event.at_ms).max().unwrap_or_default();
    let mut weights: HashMap<&str, f64> = HashMap::new();
    for event in events {
        *weights.entry(&event.document).or_default() += decayed(event, latest, settings);
    }
    weights
}

/// The weight of the interaction at the time of the latest one. The choice of that time changes no order; with this one, no weight
/// underflows.
pub fn decayed(event: &InteractionEvent, latest_ms: i64, settings: &RecommendationSettings) -> f64 {
    let age = latest_ms.saturating_sub(event.at_ms).max(0) as f64 / 1_000.0;
    settings.weight(&event.kind, event.value) * (-age / settings.half_life.as_secs_f64()).exp2()
}

/// The cosine of the angle between two vectors; 0 if one has length 0.
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

    fn settings() -> RecommendationSettings {
        let rating = InteractionWeight::ByValue(ValueWeight { neutral: 3.0, steps: 2.0, each: 2.0 });
        let weights = [("view", InteractionWeight::Fixed(1.0)), ("purchase", InteractionWeight::Fixed(5.0)), ("rating", rating)];
        RecommendationSettings {
            weights: weights.map(|(kind, weight)| (kind.to_owned(), weight)).into(),
            ..RecommendationSettings::default()
        }
    }

    fn event(document: &str, kind: &str, value: Option<f64>, day: i64) -> InteractionEvent {
        InteractionEvent { user: "u".into(), document: document.into(), kind: kind.into(), value, at_ms: day * DAY }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn an_interaction_weighs_half_after_each_half_life() {
        let weight = |day| decayed(&event("a", "purchase", None, day), 60 * DAY, &settings());
        assert!(close(weight(60), 5.0) && close(weight(30), 2.5) && close(weight(0), 1.25), "{} {}", weight(30), weight(0));
        assert!(close(weight(90), 5.0), "what lies ahead weighs no more than now");
    }

    #[test]
    fn ratings_below_the_neutral_one_are_dislikes_and_all_of_it_is_seen() {
        let events = [
            event("good", "rating", Some(5.0), 9),
            event("good", "view", None, 9),
            event("bad", "rating", Some(1.0), 9),
            event("bad", "view", None, 9),
            event("so", "rating", Some(3.0), 9),
            event("odd", "wink", None, 9),
        ];
        let profile = UserProfile::of(&events, &settings());
        assert_eq!(profile.likes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["good"]);
        assert!(close(profile.likes[0].1, 5.0_f64.ln_1p()), "{profile:?}");
        assert_eq!(profile.dislikes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["bad"]);
        assert_eq!(profile.seen, ["good", "bad", "so", "odd"]);
        assert_eq!(UserProfile::of(&[], &settings()), UserProfile::default());
    }

    #[test]
    fn a_document_near_one_of_two_interests_beats_one_between_them() {
        let profile = UserProfile { likes: vec![("x".into(), 1.0), ("y".into(), 1.0)], ..UserProfile::default() };
        let known = HashMap::from([("x".to_owned(), vec![1.0, 0.0]), ("y".to_owned(), vec![0.0, 1.0])]);
        let (near, between) = (vec![0.98, 0.2], vec![0.7, 0.7]);
        assert!(profile.score(&near, &known) > profile.score(&between, &known));
        assert!(cosine(&[1.0, 1.0], &between) > cosine(&[1.0, 1.0], &near), "the mean would have it the other way round");
        assert_eq!(profile.nearest(&near, &known).map(|(id, _)| id), Some("x"));
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
            let events = |shift: i64| -> Vec<InteractionEvent> {
                let kinds = ["view", "purchase"];
                days.iter().map(|(day, id, kind)| event(&format!("d{id}"), kinds[*kind], None, day + shift)).collect()
            };
            let ids = |profile: UserProfile| profile.likes.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
            prop_assert_eq!(ids(UserProfile::of(&events(0), &settings())), ids(UserProfile::of(&events(later), &settings())));
        }

        #[test]
        fn scores_are_at_most_one_and_best_on_the_only_like(angle in 0.0f32..6.2) {
            let profile = UserProfile { likes: vec![("x".into(), 3.0)], ..UserProfile::default() };
            let known = HashMap::from([("x".to_owned(), vec![1.0, 0.0])]);
            let score = profile.score(&[angle.cos(), angle.sin()], &known);
            prop_assert!(score > 0.0 && score <= profile.score(&[1.0, 0.0], &known) + 1e-9);
            prop_assert!(close(profile.score(&[2.0, 0.0], &known), 1.0));
        }
    }

    #[test]
    fn without_weights_every_kind_weighs_one() {
        let settings = RecommendationSettings { weights: BTreeMap::new(), ..RecommendationSettings::default() };
        assert!(close(UserProfile::of(&[event("a", "anything", None, 1)], &settings).likes[0].1, 2.0_f64.ln()));
    }
}
