//! Diversification by maximal marginal relevance: documents that fit and differ from each other.
//!
//! Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR
//! 1998: the next document is the one with the greatest `(1 - d) * score - d * similarity to the most similar of those chosen`.

use super::profile::cosine;

/// Chooses at most `limit` candidates and returns their indexes in the order of choice. A candidate is a score of at most 1 and a
/// vector.
pub fn choose(candidates: &[(f64, &[f32])], limit: usize, diversity: f64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut nearest = vec![f64::NEG_INFINITY; candidates.len()];
    let mut chosen = Vec::with_capacity(limit.min(candidates.len()));
    while chosen.len() < limit {
        let value = |index: usize| {
            let similarity = if chosen.is_empty() { 0.0 } else { nearest[index] };
            (1.0 - diversity) * candidates[index].0 - diversity * similarity
        };
        // Of equal values the earlier candidate.
        let best = left.iter().enumerate().max_by(|(_, a), (_, b)| value(**a).total_cmp(&value(**b)).then(b.cmp(a)));
        let Some((at, _)) = best else { break };
        let next = left.remove(at);
        for &index in &left {
            nearest[index] = nearest[index].max(cosine(candidates[next].1, candidates[index].1));
        }
        chosen.push(next);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_twin_of_the_best_gives_way_to_something_else() {
        let (best, twin, other) = ([1.0, 0.0], [1.0, 0.01], [0.6, 0.8]);
        let candidates: [(f64, &[f32]); 3] = [(0.9, &best), (0.89, &twin), (0.7, &other)];
        assert_eq!(choose(&candidates, 2, 0.5), [0, 2]);
        assert_eq!(choose(&candidates, 2, 0.0), [0, 1], "by score alone");
        assert_eq!(choose(&candidates, 3, 0.5), [0, 2, 1], "the similar one comes later");
    }

    fn candidates() -> impl Strategy<Value = Vec<(f64, Vec<f32>)>> {
        prop::collection::vec((-1.0f64..1.0, prop::collection::vec(-1.0f32..1.0, 3)), 0..25)
    }

    proptest! {
        #[test]
        fn nothing_is_chosen_twice_and_the_first_is_the_best(given in candidates(), limit in 0usize..30, diversity in 0.0f64..0.99) {
            let borrowed: Vec<(f64, &[f32])> = given.iter().map(|(score, place)| (*score, place.as_slice())).collect();
            let chosen = choose(&borrowed, limit, diversity);
            prop_assert_eq!(chosen.len(), limit.min(given.len()));
            let distinct: std::collections::HashSet<_> = chosen.iter().collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            if let Some(first) = chosen.first() {
                prop_assert!(given.iter().all(|(score, _)| *score <= given[*first].0));
            }
        }

        #[test]
        fn without_diversity_the_order_is_that_of_the_scores(given in candidates()) {
            let borrowed: Vec<(f64, &[f32])> = given.iter().map(|(score, place)| (*score, place.as_slice())).collect();
            let scores: Vec<f64> = choose(&borrowed, given.len(), 0.0).into_iter().map(|index| given[index].0).collect();
            prop_assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]));
        }

        #[test]
        fn a_shorter_list_is_the_beginning_of_a_longer_one(given in candidates(), diversity in 0.0f64..1.0) {
            let borrowed: Vec<(f64, &[f32])> = given.iter().map(|(score, place)| (*score, place.as_slice())).collect();
            let long = choose(&borrowed, given.len(), diversity);
            prop_assert_eq!(choose(&borrowed, 3, diversity), &long[..long.len().min(3)]);
        }
    }
}
