//! How sure a figure is that was measured on a sample.
//!
//! A figure is the mean over the sampled rows, times the rows that there are. Its interval of 95 % is the bootstrap's: of
//! [`RESAMPLES`] samples drawn from the sample with replacement, the means between the 2.5th and the 97.5th percentile. It is drawn
//! in by `√(1 − n/N)`, because a sample of all rows leaves nothing to guess. Where every row of the sample says the same, resampling
//! it says nothing; what was not seen in `n` rows has then, with the same confidence, a share of at most `3.7/n` (the solution of
//! `(1 − p)ⁿ = 2.5 %`), and so has what was not seen missing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// Samples drawn from the sample.
pub const RESAMPLES: usize = 2_000;
/// What is left out at each end.
const TAIL: f64 = 0.025;

/// A figure, and between which bounds it lies with 95 % confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ConfidenceInterval {
    /// The best guess.
    pub expected: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// Samples drawn from a sample of rows, to be used for every figure of theirs: what goes together stays together.
#[derive(Debug)]
pub(super) struct Bootstrap {
    draws: Vec<Vec<u32>>,
    sampled: usize,
    total: f64,
}

/// What a figure of one row can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FigureRange {
    /// Anything from 0 on.
    Amount,
    /// 0 to 1.
    Share,
}

impl ConfidenceInterval {
    /// The same in another unit.
    pub fn times(self, factor: f64) -> Self {
        Self { expected: self.expected * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Whether the figure lies within.
    pub fn holds(&self, figure: f64) -> bool {
        (self.low..=self.high).contains(&figure)
    }
}

impl Bootstrap {
    /// Draws, as the seed decides, for `sampled` rows of `total`.
    pub(super) fn new(sampled: usize, total: i64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let draw = |random: &mut StdRng| (0..sampled).map(|_| random.random_range(0..sampled as u32)).collect();
        let draws = (0..RESAMPLES).map(|_| draw(&mut random)).collect();
        Self { draws, sampled, total: total as f64 }
    }

    /// The sum over all rows.
    pub(super) fn sum(&self, figures: &[f64], range: FigureRange) -> ConfidenceInterval {
        self.ratio(figures, &vec![1.0; figures.len()], range).times(self.total)
    }

    /// The mean of the rows' figures, where a row counts as much as its weight says: what is above the line holds the weight already.
    pub(super) fn ratio(&self, figures: &[f64], weights: &[f64], range: FigureRange) -> ConfidenceInterval {
        if self.sampled == 0 || figures.len() != self.sampled || weights.len() != self.sampled {
            return ConfidenceInterval::default();
        }
        let of = |rows: &mut dyn Iterator<Item = usize>| {
            let (above, below) = rows.fold((0.0, 0.0), |(above, below), row| (above + figures[row], below + weights[row]));
            if below > 0.0 { above / below } else { 0.0 }
        };
        let expected = of(&mut (0..self.sampled));
        let mut drawn: Vec<f64> = self.draws.iter().map(|draw| of(&mut draw.iter().map(|&row| row as usize))).collect();
        drawn.sort_by(f64::total_cmp);
        let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
        let drawn_in = (1.0 - self.sampled as f64 / self.total).max(0.0).sqrt();
        let mut low = expected - (expected - at(TAIL)) * drawn_in;
        let mut high = expected + (at(1.0 - TAIL) - expected) * drawn_in;
        if range == FigureRange::Share {
            let counted = weights.iter().filter(|weight| **weight > 0.0).count().max(1);
            let unseen = (1.0 - TAIL.powf(1.0 / counted as f64)) * drawn_in;
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

    /// How often of 200 samples the truth lies within what is said of them.
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
            assert!(within >= 180, "{name}: {within} of 200 intervals hold the truth, where 190 are promised");
            assert!(within < 200, "{name}: every interval holds the truth: they are wider than they say");
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
