//! Confidence intervals of figures that are measured on a sample.
//!
//! A figure is the mean over the sampled rows, times the number of all rows. Its 95 % interval is that of the bootstrap: of
//! [`RESAMPLES`] samples drawn from the sample with replacement, the means between the 2.5th and the 97.5th percentile. The
//! interval is narrowed by `√(1 − n/N)`, the correction for a finite population, because a sample of all rows leaves no
//! uncertainty.
//!
//! Where all rows of the sample have the same figure, the bootstrap gives an interval of width zero. For shares, a bound is used
//! instead: with the same confidence, what occurs in none of `n` rows has a share of at most `3.7/n`, the solution of `(1 − p)ⁿ =
//! 2.5 %`. The same holds for what occurs in all of them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// The number of samples drawn from the sample.
pub const RESAMPLES: usize = 2_000;
/// The fraction of the resampled means beyond each bound.
const TAIL: f64 = 0.025;

/// A predicted figure with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ConfidenceInterval {
    pub expected: f64,
    pub low: f64,
    pub high: f64,
}

/// Samples drawn from a sample of rows. The same draws are used for all figures, so that figures of a row stay together.
#[derive(Debug)]
pub(super) struct Bootstrap {
    draws: Vec<Vec<u32>>,
    sampled: usize,
    total: f64,
}

/// The possible values of one row's figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FigureRange {
    /// Anything from 0 on.
    Amount,
    Share,
}

impl ConfidenceInterval {
    /// The interval in another unit of measurement.
    pub fn times(self, factor: f64) -> Self {
        Self { expected: self.expected * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Whether the figure lies within the interval.
    pub fn holds(&self, figure: f64) -> bool {
        (self.low..=self.high).contains(&figure)
    }
}

impl Bootstrap {
    /// Draws for `sampled` rows of `total`, which the seed determines.
    pub(super) fn new(sampled: usize, total: i64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let draw = |random: &mut StdRng| (0..sampled).map(|_| random.random_range(0..sampled as u32)).collect();
        let draws = (0..RESAMPLES).map(|_| draw(&mut random)).collect();
        Self { draws, sampled, total: total as f64 }
    }

    /// The predicted sum over all rows.
    pub(super) fn sum(&self, figures: &[f64], range: FigureRange) -> ConfidenceInterval {
        self.ratio(figures, &vec![1.0; figures.len()], range).times(self.total)
    }

    /// The weighted mean: the sum of `figures`, which are multiplied by their weights already, divided by the sum of `weights`.
    pub(super) fn ratio(&self, figures: &[f64], weights: &[f64], range: FigureRange) -> ConfidenceInterval {
        if self.sampled == 0 || figures.len() != self.sampled || weights.len() != self.sampled {
            return ConfidenceInterval::default();
        }
        let of = |rows: &mut dyn Iterator<Item = usize>| {
            let (sum, weight) = rows.fold((0.0, 0.0), |(sum, weight), row| (sum + figures[row], weight + weights[row]));
            if weight > 0.0 { sum / weight } else { 0.0 }
        };
        let expected = of(&mut (0..self.sampled));
        let mut drawn: Vec<f64> = self.draws.iter().map(|draw| of(&mut draw.iter().map(|&row| row as usize))).collect();
        drawn.sort_by(f64::total_cmp);
        let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
        let narrowing = (1.0 - self.sampled as f64 / self.total).max(0.0).sqrt();
        let mut low = expected - (expected - at(TAIL)) * narrowing;
        let mut high = expected + (at(1.0 - TAIL) - expected) * narrowing;
        if range == FigureRange::Share {
            let counted = weights.iter().filter(|weight| **weight > 0.0).count().max(1);
            let unseen = (1.0 - TAIL.powf(1.0 / counted as f64)) * narrowing;
            let all = |value: f64| figures.iter().zip(weights).all(|(figure, weight)| *figure == value * weight);
            if all(0.0) {
                high = high.max(unseen);
            }
            if all(1.0) {
                low = low.min(1.0 - unseen);
            }
        }
        ConfidenceInterval { expected, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::plan::choose;

    /// How many of the intervals of 200 samples contain the true value.
    fn coverage(population: &[f64], sampled: usize, range: FigureRange) -> usize {
        let truth = population.iter().sum::<f64>();
        let is_within = |seed: &u64| {
            let rows = choose(population.len() as i64, sampled, *seed);
            let figures: Vec<f64> = rows.iter().map(|row| population[*row as usize]).collect();
            Bootstrap::new(sampled, population.len() as i64, *seed).sum(&figures, range).holds(truth)
        };
        (0..200).filter(is_within).count()
    }

    #[test]
    fn the_truth_lies_within_about_as_often_as_is_said() {
        let rare: Vec<f64> = (0..5_000).map(|row| f64::from(row % 25 == 0)).collect();
        let even: Vec<f64> = (0..5_000).map(|row| f64::from(row % 5 < 2)).collect();
        let skewed: Vec<f64> = (0..5_000).map(|row| f64::from(row % 97 + 1).ln() * 100.0 / f64::from(row % 7 + 1)).collect();
        for (name, population, range) in
            [("rare", rare, FigureRange::Share), ("even", even, FigureRange::Share), ("skewed", skewed, FigureRange::Amount)]
        {
            let within = coverage(&population, 200, range);
            assert!(within >= 180, "{name}: {within} of 200 intervals contain the true value, 190 are expected");
            assert!(within < 200, "{name}: every interval contains the true value: they are too wide");
        }
    }

    #[test]
    fn a_sample_of_everything_leaves_nothing_to_guess() {
        let figures = [1.0, 0.0, 0.0, 1.0];
        let predicted = Bootstrap::new(4, 4, 1).sum(&figures, FigureRange::Share);
        assert_eq!(predicted, ConfidenceInterval { expected: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(coverage(&[0.0; 50], 50, FigureRange::Share), 200);
    }

    #[test]
    fn what_was_not_seen_may_still_be_there() {
        let predicted = Bootstrap::new(200, 100_000, 1).ratio(&[0.0; 200], &[1.0; 200], FigureRange::Share);
        assert!(predicted.low == 0.0 && (0.017..0.0185).contains(&predicted.high), "{predicted:?}");
        let predicted = Bootstrap::new(200, 100_000, 1).ratio(&[1.0; 200], &[1.0; 200], FigureRange::Share);
        assert!(predicted.high == 1.0 && (0.9815..0.983).contains(&predicted.low), "{predicted:?}");
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let figures: Vec<f64> = (0..50).map(f64::from).collect();
        let say = |seed| Bootstrap::new(50, 500, seed).sum(&figures, FigureRange::Amount);
        assert_eq!(say(7), say(7));
        assert_ne!(say(7), say(8));
    }
}
