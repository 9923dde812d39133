//! Fuses the list by vectors and the list by words into one.
//!
//! | method | a rank in the list by vectors adds | a rank in the list by words adds |
//! |---|---|---|
//! | scores | 0.6 times the similarity, scaled so that the list's best is 1 and its last is 0 | 0.4 times the score, scaled so that the list's best is 1 |
//! | reciprocal ranks | 1 / (60 + rank) | the same; a quarter of it if the document lacks some of the words |
//!
//! A document gets nothing from a list that it is not in. A document with vectors of another space cannot be in the list by
//! vectors: its rank in the list by words counts for both lists.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Candidate, Explanation, ListRank, RankedDocument};

/// How the lists by vectors and by words are fused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// By scores on one scale: 0.4 words, 0.6 vectors.
    #[default]
    Scores,
    /// By reciprocal ranks: only the ranks count, not the scores.
    Rrf,
}

/// The weight of words in a fusion by scores. Measured with 3,800 news articles, searching the texts by their titles: every weight
/// from 0.3 to 0.5 finds the same number within a third of a percent.
const WORDS: f64 = 0.4;

/// The usual constant of reciprocal rank fusion. It dampens the first ranks, so that no single list decides the result.
const RANKS: f64 = 60.0;

/// The weight of a document with only some of the words in a fusion by ranks. A list of such documents is long and mostly wrong.
const SOME_WORDS: f64 = 0.25;

/// The parameters of a fusion, besides the two lists.
pub(super) struct FusionInput<'a> {
    pub fusion: Fusion,
    /// Whether the search is by both. Otherwise it is by vectors, and the list by words has only documents of other spaces.
    pub both: bool,
    /// Documents whose vectors are of another space.
    pub elsewhere: &'a HashSet<String>,
}

impl FusionInput<'_> {
    /// The union of both lists, the best first. Documents with equal scores are in the order of ids.
    pub(super) fn fuse(&self, by_vector: Vec<Candidate>, by_words: Vec<Candidate>) -> Vec<RankedDocument> {
        let scale = |list: &[Candidate], least: f64| {
            let most = list.iter().map(|candidate| candidate.score).fold(f64::NEG_INFINITY, f64::max);
            move |score: f64| if most > least { (score - least) / (most - least) } else { 1.0 }
        };
        let last = by_vector.iter().map(|candidate| candidate.score).fold(f64::INFINITY, f64::min);
        let (of_vector, of_words) = (scale(&by_vector, last), scale(&by_words, 0.0));
        let vectors = |rank: usize, candidate: &Candidate| match self.fusion {
            Fusion::Scores => of_vector(candidate.score) * if self.both { 1.0 - WORDS } else { 1.0 },
            Fusion::Rrf => 1.0 / (RANKS + rank as f64),
        };
        let words = |rank: usize, candidate: &Candidate| {
            let is_elsewhere = self.elsewhere.contains(&candidate.id);
            match self.fusion {
                Fusion::Scores => of_words(candidate.score) * if is_elsewhere || !self.both { 1.0 } else { WORDS },
                Fusion::Rrf => {
                    let own = if candidate.all_words { 1.0 } else { SOME_WORDS };
                    let weight = match (is_elsewhere, self.both) {
                        (true, true) => 1.0 + own,
                        (true, false) => 1.0,
                        (false, _) => own,
                    };
                    weight / (RANKS + rank as f64)
                }
            }
        };
        union(by_vector, by_words, vectors, words)
    }
}

/// The result of a search with one list: the list with its own scores. The other list is empty.
pub(super) fn unfused(by_vector: Vec<Candidate>, by_words: Vec<Candidate>) -> Vec<RankedDocument> {
    let own = |_: usize, candidate: &Candidate| candidate.score;
    union(by_vector, by_words, own, own)
}

fn union(
    by_vector: Vec<Candidate>,
    by_words: Vec<Candidate>,
    vectors: impl Fn(usize, &Candidate) -> f64,
    words: impl Fn(usize, &Candidate) -> f64,
) -> Vec<RankedDocument> {
    let mut union: BTreeMap<String, RankedDocument> = BTreeMap::new();
    for (is_vector, list) in [(true, by_vector), (false, by_words)] {
        for (index, candidate) in list.into_iter().enumerate() {
            let rank = index + 1;
            let adds = if is_vector { vectors(rank, &candidate) } else { words(rank, &candidate) };
            let Candidate { id, score, all_words, chunk } = candidate;
            let empty = || RankedDocument { id: id.clone(), score: 0.0, explanation: Explanation::default(), chunk: None };
            let ranked = union.entry(id.clone()).or_insert_with(empty);
            ranked.score += adds;
            ranked.chunk = ranked.chunk.or(chunk);
            match is_vector {
                true => ranked.explanation.vector = Some(ListRank { rank, score, adds, all_words: None }),
                false => ranked.explanation.text = Some(ListRank { rank, score, adds, all_words: Some(all_words) }),
            }
        }
    }
    let mut ranked: Vec<_> = union.into_values().collect();
    // The sort is stable: documents with equal scores stay in the order of their ids.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(scores: &[(&str, f64)], all_words: bool) -> Vec<Candidate> {
        scores.iter().map(|(id, score)| Candidate { id: (*id).to_owned(), score: *score, all_words, chunk: None }).collect()
    }

    fn fused(fusion: Fusion, by_vector: Vec<Candidate>, by_words: Vec<Candidate>, elsewhere: &[&str]) -> Vec<RankedDocument> {
        let elsewhere = elsewhere.iter().map(|id| (*id).to_owned()).collect();
        FusionInput { fusion, both: true, elsewhere: &elsewhere }.fuse(by_vector, by_words)
    }

    fn ids(ranked: &[RankedDocument]) -> Vec<&str> {
        ranked.iter().map(|ranked| ranked.id.as_str()).collect()
    }

    #[test]
    fn scores_count_on_one_scale_and_by_their_weight() {
        let by_vector = list(&[("a", 0.9), ("b", 0.68), ("c", 0.5)], false);
        let ranked = fused(Fusion::Scores, by_vector, list(&[("d", 12.0), ("b", 9.0)], false), &[]);
        let found: Vec<_> = ranked.iter().map(|ranked| (ranked.id.as_str(), (ranked.score * 100.0).round() / 100.0)).collect();
        assert_eq!(found, [("a", 0.6), ("b", 0.57), ("d", 0.4), ("c", 0.0)], "b: 0.6 of 0.45 and 0.4 of three quarters");
        let Explanation { vector: Some(vector), text: Some(text) } = &ranked[1].explanation else { panic!("b is in both lists") };
        assert_eq!((vector.rank, text.rank, text.score), (2, 2, 9.0));
        assert!((vector.adds + text.adds - ranked[1].score).abs() < 1e-12, "the explanation adds up");
    }

    #[test]
    fn a_clear_winner_of_one_list_is_not_beaten_by_the_seconds_of_both() {
        let by_vector = || list(&[("a", 0.9), ("b", 0.31), ("c", 0.3)], false);
        let by_words = || list(&[("d", 3.0), ("b", 0.3)], true);
        assert_eq!(ids(&fused(Fusion::Scores, by_vector(), by_words(), &[]))[0], "a");
        assert_eq!(ids(&fused(Fusion::Rrf, by_vector(), by_words(), &[]))[0], "b", "places alone do not tell by how much");
    }

    #[test]
    fn by_ranks_some_of_the_words_count_less_than_all() {
        let ranked = fused(Fusion::Rrf, list(&[("a", 0.5), ("b", 0.5)], false), list(&[("c", 0.5)], false), &[]);
        assert_eq!(ids(&ranked), ["a", "b", "c"]);
        assert!((ranked[2].score - SOME_WORDS / 61.0).abs() < 1e-12);
    }

    #[test]
    fn by_ranks_a_document_in_both_lists_beats_the_first_of_one() {
        let by_words = list(&[("c", 0.5), ("b", 0.5)], true);
        let ranked = fused(Fusion::Rrf, list(&[("a", 0.5), ("b", 0.5)], false), by_words, &[]);
        assert_eq!(ids(&ranked), ["b", "a", "c"], "b is second in both lists, a and c tie");
        assert!((ranked[0].score - 2.0 / 62.0).abs() < 1e-12);
    }

    #[test]
    fn a_document_of_another_space_is_not_beaten_for_having_no_place_among_the_vectors() {
        for fusion in [Fusion::Scores, Fusion::Rrf] {
            let (by_vector, by_words) =
                (|| list(&[("a", 0.9), ("b", 0.2)], false), || list(&[("old", 5.0), ("a", 4.0), ("b", 1.0)], true));
            assert_eq!(ids(&fused(fusion, by_vector(), by_words(), &["old"])), ["old", "a", "b"]);
            assert_ne!(ids(&fused(fusion, by_vector(), by_words(), &[]))[0], "old", "without that it would be");
        }
    }
}
