//! Chooses the next token.

use super::traits::TokenMask;
use crate::request::Sampling;
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_kernels::log_sum_exp;

/// Candidates that are sorted at first for `top_p`. If they are not enough, more are sorted.
const ORDERED: usize = 256;

/// A token, and the natural logarithm of its probability before masking and sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SampledToken {
    pub(super) id: u32,
    pub(super) log_probability: f32,
}

/// Chooses the token at `position` of a completion among those allowed. The result depends on the arguments alone.
pub(super) fn choose(
    logits: &[f32],
    allowed: Option<&TokenMask>,
    sampling: &Sampling,
    position: usize,
) -> Result<SampledToken, Poison> {
    let normaliser = normaliser(logits)?;
    let id = match sampling.temperature > 0.0 {
        false => likeliest(logits, allowed),
        true => draw(candidates(logits, allowed), sampling, position),
    };
    let id = id.ok_or_else(|| Poison {
        class: FailureClass::Schema,
        reason: "no token of the model can continue the answer under the schema; use a model whose vocabulary covers it".into(),
    })?;
    Ok(SampledToken { id, log_probability: logits[id as usize] - normaliser })
}

/// The number to subtract from a logit to get the logarithm of its probability.
pub(super) fn normaliser(logits: &[f32]) -> Result<f32, Poison> {
    let sum = log_sum_exp(logits);
    if sum.is_finite() {
        return Ok(sum);
    }
    Err(Poison { class: FailureClass::Model, reason: "the model's answer holds a value that is not a number".into() })
}

/// The token with the largest logit; the first if there are several.
fn likeliest(logits: &[f32], allowed: Option<&TokenMask>) -> Option<u32> {
    let free = first_of_largest(logits)?;
    let Some(mask) = allowed else { return Some(free as u32) };
    if free < mask.len() && mask.get(free) {
        return Some(free as u32);
    }
    let mut best: Option<(usize, f32)> = None;
    mask.iter_set_entries(|id| {
        if let Some(logit) = logits.get(id)
            && best.is_none_or(|(_, largest)| *logit > largest)
        {
            best = Some((id, *logit));
        }
    });
    best.map(|(id, _)| id as u32)
}

/// The index of the first largest value. It compares by blocks and lanes, because comparing value by value would take longer than
/// computing the sum of all exponentials.
fn first_of_largest(values: &[f32]) -> Option<usize> {
    const LANES: usize = 16;
    const BLOCK: usize = 64 * LANES;
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut best: Option<(usize, f32)> = None;
    for (index, block) in values.chunks(BLOCK).enumerate() {
        let (chunks, rest) = block.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = larger(*lane, *value);
            }
        }
        let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
        if best.is_none_or(|(_, so_far)| largest > so_far) {
            best = Some((index * BLOCK, largest));
        }
    }
    let (start, largest) = best?;
    values[start..].iter().position(|value| *value == largest).map(|place| start + place)
}

fn candidates(logits: &[f32], allowed: Option<&TokenMask>) -> Vec<(u32, f32)> {
    let Some(mask) = allowed else { return (0..).zip(logits.iter().copied()).collect() };
    let mut found = Vec::new();
    mask.iter_set_entries(|id| {
        if let Some(logit) = logits.get(id) {
            found.push((id as u32, *logit));
        }
    });
    found
}

/// Draws one of the candidates: applies the temperature, then keeps the `top_k` most probable, then the fewest whose probabilities
/// sum to `top_p`.
fn draw(mut candidates: Vec<(u32, f32)>, sampling: &Sampling, position: usize) -> Option<u32> {
    if sampling.top_k > 0 && sampling.top_k < candidates.len() {
        order(&mut candidates, sampling.top_k);
        candidates.truncate(sampling.top_k);
    }
    let largest = candidates.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - largest) / f64::from(sampling.temperature)).exp();
    let mut total: f64 = candidates.iter().map(|(_, logit)| weight(*logit)).sum();
    if sampling.top_p < 1.0 {
        let enough = f64::from(sampling.top_p.max(0.0)) * total;
        let mut ordered = ORDERED;
        let (kept, sum) = loop {
            order(&mut candidates, ordered);
            let mut sum = 0.0;
            let mut kept = 0;
            for (_, logit) in candidates.iter().take(ordered) {
                sum += weight(*logit);
                kept += 1;
                if sum >= enough {
                    break;
                }
            }
            if sum >= enough || ordered >= candidates.len() {
                break (kept, sum);
            }
            ordered *= 8;
        };
        candidates.truncate(kept);
        total = sum;
    }
    let mut rest = uniform(sampling.seed, position) * total;
    for (id, logit) in &candidates {
        rest -= weight(*logit);
        if rest < 0.0 {
            return Some(*id);
        }
    }
    candidates.last().map(|(id, _)| *id)
}

/// Moves the `count` most probable candidates to the front, in order. Equal ones are ordered by id.
fn order(candidates: &mut [(u32, f32)], count: usize) {
    let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, likelier);
    }
    let count = count.min(candidates.len());
    candidates[..count].sort_unstable_by(likelier);
}

/// A number in [0, 1) that depends only on the seed and the position, so that an interrupted completion can be continued anywhere.
fn uniform(seed: u64, position: usize) -> f64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..].copy_from_slice(&(position as u64).to_le_bytes());
    let hash = blake3::hash(&bytes);
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    // As many bits as the fraction of an f64 has.
    (u64::from_le_bytes(*first) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(top_k: usize, top_p: f32) -> Sampling {
        Sampling { temperature: 1.0, top_p, top_k, seed: 7 }
    }

    fn mask(size: usize, ids: &[u32]) -> TokenMask {
        let mut mask = TokenMask::alloc(size);
        ids.iter().for_each(|id| mask.allow_token(*id));
        mask
    }

    /// The frequency of each token in 20,000 draws.
    fn frequencies(logits: &[f32], allowed: Option<&TokenMask>, sampling: &Sampling) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for position in 0..20_000 {
            counts[choose(logits, allowed, sampling, position).unwrap().id as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn assert_near(got: &[f64], expected: &[f64]) {
        for (id, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((got - expected).abs() < 0.015, "token {id}: expected {expected:.3}, drawn {got:.3}");
        }
    }

    #[test]
    fn greedy_takes_the_likeliest_that_is_allowed_and_reports_its_probability_before_masking() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let free = choose(&logits, None, &Sampling::default(), 0).unwrap();
        let sum = logits.iter().map(|x: &f32| x.exp()).sum::<f32>().ln();
        assert_eq!(free.id, 1, "the first of two equals");
        assert!((free.log_probability - (3.0 - sum)).abs() < 1e-5);
        let bound = choose(&logits, Some(&mask(4, &[0, 3])), &Sampling::default(), 0).unwrap();
        assert_eq!(bound.id, 3);
        assert!((bound.log_probability - (2.0 - sum)).abs() < 1e-5);
    }

    #[test]
    fn the_first_of_the_largest_is_found_wherever_it_stands() {
        for size in [1, 15, 16, 1023, 1024, 1025, 5000] {
            for place in [0, size / 3, size - 1] {
                let mut values: Vec<f32> = (0..size).map(|i| -1.0 - (i % 7) as f32).collect();
                values[place..].iter_mut().step_by(700).for_each(|value| *value = -0.5);
                assert_eq!(first_of_largest(&values), Some(place), "{size} values");
            }
        }
        assert_eq!(first_of_largest(&[f32::NEG_INFINITY; 3]), Some(0));
        assert_eq!(first_of_largest(&[]), None);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.1_f32.ln(), 0.2_f32.ln(), 0.3_f32.ln(), 0.4_f32.ln()];
        assert_near(&frequencies(&logits, None, &sampled(0, 1.0)), &[0.1, 0.2, 0.3, 0.4]);
        assert_near(&frequencies(&logits, None, &sampled(2, 1.0)), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        assert_near(&frequencies(&logits, None, &sampled(0, 0.65)), &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        assert_near(&frequencies(&logits, None, &sampled(0, 0.75)), &[0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        assert_near(&frequencies(&logits, None, &sampled(0, 0.0)), &[0.0, 0.0, 0.0, 1.0]);
        assert_near(&frequencies(&logits, Some(&mask(4, &[0, 1])), &sampled(0, 1.0)), &[1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0]);
        let hot = Sampling { temperature: 0.5, ..sampled(0, 1.0) };
        assert_near(&frequencies(&logits, None, &hot), &[1.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0, 16.0 / 30.0]);
    }

    #[test]
    fn a_nucleus_wider_than_the_first_candidates_is_found() {
        let logits = vec![0.0; 4096];
        let counts = frequencies(&logits, None, &sampled(0, 0.5));
        assert_eq!(counts.iter().filter(|count| **count > 0.0).count(), counts[..2048].iter().filter(|c| **c > 0.0).count());
        assert!(counts[1900..2048].iter().any(|count| *count > 0.0), "the far end of the nucleus is never drawn");
    }

    #[test]
    fn a_value_that_is_no_number_is_a_failure_of_the_model() {
        let failure = choose(&[0.0, f32::NAN], None, &Sampling::default(), 0).unwrap_err();
        assert_eq!(failure.class, FailureClass::Model);
        let stuck = choose(&[0.0, 1.0], Some(&mask(2, &[])), &Sampling::default(), 0).unwrap_err();
        assert_eq!(stuck.class, FailureClass::Schema);
    }
}
