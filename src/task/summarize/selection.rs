//! Selects sentences by maximal marginal relevance (Carbonell and Goldstein, 1998): again and again the one that is most relevant
//! and least like those that were selected before.
//!
//! The relevance is the cosine with the centroid of the text (Radev and others, 2004), with these changes. Their sizes are round
//! numbers, chosen where the agreement with people's abstracts of tales (ROUGE-L; Lin, 2004) hardly depends on them.
//!
//! | a sentence | |
//! |---|---|
//! | is the first | gains [`FIRST`], because it says who or what the text is about |
//! | is early | gains up to [`LEAD`] |
//! | is longer or shorter than usual | loses [`LENGTH`] times the square of the logarithm of the ratio |
//! | is quoted speech | loses [`QUOTED`], and counts little for the centroid: it seldom says what happens |
//! | begins with a pronoun or a joining word, and the sentence before it is not selected | loses [`ORPHAN`] or [`JOINED`] |
//! | is a heading, or part of a quotation | loses [`INCOMPLETE`] and is taken where others run out |

use std::sync::Arc;

use super::coherence::Opening;
use super::traits::Traits;

/// Bonus of the first complete sentence.
const FIRST: f32 = 0.5;

/// Bonus of the first sentence over the last. A clearly closer sentence still wins.
const LEAD: f32 = 0.1;

/// Penalty of a sentence that is longer or shorter than [`USUAL`] by a factor of e.
const LENGTH: f32 = 0.2;

/// Letters of a sentence without a penalty for its length: about nine English words.
const USUAL: f32 = 40.0;

/// Penalty of a sentence that is a quotation.
const QUOTED: f32 = 0.2;

/// Least weight of a sentence in the centroid. A text of quotations alone has a centroid, too.
const LEAST_WEIGHT: f32 = 0.1;

/// Penalty of a pronoun without its antecedent.
const ORPHAN: f32 = 0.5;

/// Penalty of a joining word without the sentence that it joins to.
const JOINED: f32 = 0.1;

/// Penalty of a heading and of a part of a quotation, larger than closeness and position can outweigh.
const INCOMPLETE: f32 = 2.0;

/// The indexes of the `count` best sentences, in text order.
pub(super) fn choose(vectors: &[Arc<[f32]>], traits: &[Traits], count: usize, diversity: f32) -> Vec<usize> {
    let relevance = relevance(vectors, traits);
    let first = traits.iter().position(|traits| traits.complete).unwrap_or(0);
    let mut repetition = vec![0.0f32; vectors.len()];
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    while chosen.len() < count.min(vectors.len()) {
        let worth = |index: usize| {
            let follows = index <= first || chosen.contains(&(index - 1));
            let gap = if follows { 0.0 } else { gap(traits[index].opening) };
            (1.0 - diversity) * (relevance[index] - gap) - diversity * repetition[index]
        };
        let mut best: Option<(usize, f32)> = None;
        for index in (0..vectors.len()).filter(|index| !chosen.contains(index)) {
            let worth = worth(index);
            if best.is_none_or(|(_, most)| worth > most) {
                best = Some((index, worth));
            }
        }
        let Some((best, _)) = best else { break };
        chosen.push(best);
        for (repetition, vector) in repetition.iter_mut().zip(vectors) {
            *repetition = repetition.max(cosine(vector, &vectors[best]));
        }
    }
    chosen.sort_unstable();
    chosen
}

fn gap(opening: Opening) -> f32 {
    match opening {
        Opening::Independent => 0.0,
        Opening::Joined => JOINED,
        Opening::Pronoun => ORPHAN,
    }
}

fn relevance(vectors: &[Arc<[f32]>], traits: &[Traits]) -> Vec<f32> {
    let centroid = centroid(vectors, traits);
    let last = vectors.len().saturating_sub(1).max(1) as f32;
    let first = traits.iter().position(|traits| traits.complete);
    let of = |(index, (vector, traits)): (usize, (&Arc<[f32]>, &Traits))| {
        let ratio = (traits.letters.max(1) as f32 / USUAL).ln();
        let mut relevance = cosine(vector, &centroid) + LEAD * (1.0 - index as f32 / last);
        relevance -= LENGTH * ratio * ratio + QUOTED * traits.quoted;
        if first == Some(index) {
            relevance += FIRST;
        }
        if !traits.complete {
            relevance -= INCOMPLETE;
        }
        relevance
    };
    vectors.iter().zip(traits).enumerate().map(of).collect()
}

fn centroid(vectors: &[Arc<[f32]>], traits: &[Traits]) -> Vec<f32> {
    let mut sum = vec![0.0; vectors.first().map_or(0, |vector| vector.len())];
    for (vector, traits) in vectors.iter().zip(traits) {
        let weight = (1.0 - traits.quoted).max(LEAST_WEIGHT);
        sum.iter_mut().zip(vector.iter()).for_each(|(s, x)| *s += weight * x);
    }
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    // Vectors that cancel out have no centre. Then position, length and diversity decide.
    if length > 0.0 {
        sum.iter_mut().for_each(|x| *x /= length);
    }
    sum
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Traits = Traits { letters: 40, quoted: 0.0, complete: true, opening: Opening::Independent };

    fn equal(count: usize) -> Vec<Arc<[f32]>> {
        (0..count).map(|_| Arc::from([1.0f32, 0.0])).collect()
    }

    /// What is chosen of five equal sentences of which the third is different.
    fn chosen(third: Traits, count: usize) -> Vec<usize> {
        let mut traits = vec![PLAIN; 5];
        traits[2] = third;
        choose(&equal(5), &traits, count, 0.0)
    }

    #[test]
    fn the_lead_decides_between_equals() {
        assert_eq!(chosen(PLAIN, 2), [0, 1]);
        assert_eq!(choose(&equal(5), &vec![PLAIN; 5], 9, 0.5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_incomplete_sentence_is_taken_only_where_others_run_out() {
        let heading = Traits { complete: false, ..PLAIN };
        let traits = [heading.clone(), PLAIN, PLAIN];
        assert_eq!(choose(&equal(3), &traits, 2, 0.3), [1, 2]);
        assert_eq!(choose(&equal(3), &traits, 3, 0.3), [0, 1, 2]);
        assert_eq!(chosen(heading, 4), [0, 1, 3, 4]);
    }

    #[test]
    fn quoted_very_short_and_very_long_sentences_come_last() {
        for worse in [Traits { quoted: 1.0, ..PLAIN }, Traits { letters: 4, ..PLAIN }, Traits { letters: 400, ..PLAIN }] {
            assert_eq!(chosen(worse.clone(), 4), [0, 1, 3, 4], "{worse:?}");
        }
    }

    #[test]
    fn a_pronoun_is_taken_only_after_the_sentence_before_it() {
        let pronoun = Traits { opening: Opening::Pronoun, ..PLAIN };
        let joined = Traits { opening: Opening::Joined, ..PLAIN };
        for needs in [pronoun.clone(), joined] {
            assert_eq!(chosen(needs.clone(), 3), [0, 1, 2], "{needs:?}");
            // The second is far from the others and is not taken, so the third has lost its antecedent.
            let mut vectors = equal(5);
            vectors[1] = Arc::from([0.0, 1.0]);
            assert_eq!(choose(&vectors, &[PLAIN, PLAIN, needs.clone(), PLAIN, PLAIN], 3, 0.0), [0, 3, 4], "{needs:?}");
        }
        assert_eq!(choose(&equal(2), &[pronoun, PLAIN], 1, 0.0), [0], "the first sentence has nothing before it");
    }
}
