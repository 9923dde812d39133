//! Converts raw scores into calibrated probabilities.

/// Number of bins of the calibration error, as in the literature on temperature scaling.
const BINS: usize = 15;

/// How a classifier converts scores into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFunction {
    /// Exactly one label applies: the probabilities add up to 1.
    Softmax,
    /// Any number of labels applies: each has an independent probability.
    Sigmoid,
}

impl LinkFunction {
    /// The link function for a task with this `multi`.
    pub fn of(multi: bool) -> Self {
        if multi { Self::Sigmoid } else { Self::Softmax }
    }

    /// The probabilities of `scores`. A higher `temperature` makes them more even.
    pub fn probabilities(self, scores: &[f32], temperature: f32) -> Vec<f32> {
        match self {
            Self::Sigmoid => scores.iter().map(|score| 1.0 / (1.0 + (-score / temperature).exp())).collect(),
            Self::Softmax => {
                let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let powers: Vec<f32> = scores.iter().map(|score| ((score - highest) / temperature).exp()).collect();
                let sum: f32 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            }
        }
    }
}

/// The scores of one example, and for each label whether it is correct.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredExample {
    /// One score per label.
    pub scores: Vec<f32>,
    /// Whether each label is correct.
    pub truth: Vec<bool>,
}

/// The mean negative log likelihood of the correct labels.
pub fn negative_log_likelihood(examples: &[ScoredExample], link: LinkFunction, temperature: f32) -> f64 {
    let sum: f64 = examples.iter().map(|example| loss(example, link, temperature)).sum();
    sum / examples.len().max(1) as f64
}

fn loss(example: &ScoredExample, link: LinkFunction, temperature: f32) -> f64 {
    let probabilities = link.probabilities(&example.scores, temperature);
    let surprise = |(probability, truth): (&f32, &bool)| {
        // The floor keeps a single example with a probability of 0 from dominating the mean.
        let floor = |p: f32| -f64::from(p.max(1e-12)).ln();
        match (link, truth) {
            (_, true) => floor(*probability),
            (LinkFunction::Sigmoid, false) => floor(1.0 - probability),
            (LinkFunction::Softmax, false) => 0.0,
        }
    };
    probabilities.iter().zip(&example.truth).map(surprise).sum()
}

/// The temperature that minimizes the negative log likelihood of `examples`.
pub fn fit_temperature(examples: &[ScoredExample], link: LinkFunction) -> f32 {
    // The loss is convex in 1/T, so it has one minimum on the logarithmic scale too. Golden-section search finds it.
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.02f64.ln(), 50f64.ln());
    let at = |x: f64| negative_log_likelihood(examples, link, x.exp() as f32);
    for _ in 0..40 {
        let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
        if at(left) <= at(right) { high = right } else { low = left }
    }
    ((low + high) / 2.0).exp() as f32
}

/// The expected difference of confidence and accuracy over bins of equal width: of the most likely label under
/// [`LinkFunction::Softmax`], of every label under [`LinkFunction::Sigmoid`].
pub fn expected_calibration_error(examples: &[ScoredExample], link: LinkFunction, temperature: f32) -> f64 {
    let mut bins = [(0.0f64, 0.0f64, 0usize); BINS];
    let mut add = |probability: f32, right: bool| {
        let bin = ((f64::from(probability) * BINS as f64) as usize).min(BINS - 1);
        bins[bin].0 += f64::from(probability);
        bins[bin].1 += f64::from(u8::from(right));
        bins[bin].2 += 1;
    };
    for example in examples {
        let probabilities = link.probabilities(&example.scores, temperature);
        match link {
            LinkFunction::Sigmoid => probabilities.iter().zip(&example.truth).for_each(|(p, right)| add(*p, *right)),
            LinkFunction::Softmax => {
                if let Some(best) = highest(&probabilities) {
                    add(probabilities[best], example.truth[best]);
                }
            }
        }
    }
    let total: usize = bins.iter().map(|bin| bin.2).sum();
    bins.iter().map(|(confidence, right, _)| (confidence - right).abs()).sum::<f64>() / total.max(1) as f64
}

/// The index of the highest value; the first one of equal values.
pub fn highest(values: &[f32]) -> Option<usize> {
    let mut best = None;
    for (index, value) in values.iter().enumerate() {
        if best.is_none_or(|best: usize| *value > values[best]) {
            best = Some(index);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 examples. The first label is correct in `share` of them and always has a score `score` above the second.
    fn confident(score: f32, share: usize) -> Vec<ScoredExample> {
        let example = |right: bool| ScoredExample { scores: vec![score, 0.0], truth: vec![right, !right] };
        (0..100).map(|i| example(i < share)).collect()
    }

    #[test]
    fn probabilities_survive_huge_scores() {
        assert_eq!(LinkFunction::Softmax.probabilities(&[1000.0, -1000.0], 0.01), [1.0, 0.0]);
        assert_eq!(LinkFunction::Sigmoid.probabilities(&[1000.0, -1000.0], 0.01), [1.0, 0.0]);
        assert_eq!(LinkFunction::Softmax.probabilities(&[3.0, 3.0, 3.0, 3.0], 1.0), [0.25; 4]);
    }

    #[test]
    fn temperature_brings_confidence_to_accuracy() {
        let examples = confident(10.0, 75);
        let temperature = fit_temperature(&examples, LinkFunction::Softmax);
        let confidence = LinkFunction::Softmax.probabilities(&[10.0, 0.0], temperature)[0];
        assert!((confidence - 0.75).abs() < 0.005, "three of four are correct, but the confidence is {confidence}");
        let before = expected_calibration_error(&examples, LinkFunction::Softmax, 1.0);
        let after = expected_calibration_error(&examples, LinkFunction::Softmax, temperature);
        assert!(before > 0.2 && after < 0.01, "the calibration error went from {before} to {after}");
    }

    #[test]
    fn perfect_answers_make_the_temperature_low_but_finite() {
        let temperature = fit_temperature(&confident(1.0, 100), LinkFunction::Softmax);
        assert!((0.01..0.2).contains(&temperature), "{temperature}");
    }

    #[test]
    fn independent_labels_are_calibrated_each() {
        let examples: Vec<ScoredExample> =
            (0..100).map(|i| ScoredExample { scores: vec![4.0, -4.0], truth: vec![i % 10 != 0, i % 10 == 0] }).collect();
        let temperature = fit_temperature(&examples, LinkFunction::Sigmoid);
        let probabilities = LinkFunction::Sigmoid.probabilities(&[4.0, -4.0], temperature);
        assert!((probabilities[0] - 0.9).abs() < 0.01 && (probabilities[1] - 0.1).abs() < 0.01, "{probabilities:?}");
        assert!(expected_calibration_error(&examples, LinkFunction::Sigmoid, temperature) < 0.01);
    }
}
