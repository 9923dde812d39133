//! Rotary position embedding: the angles by which queries and keys are rotated.

/// The frequency of each pair of components.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RotaryEmbedding {
    frequencies: Vec<f32>,
}

/// Cosines and sines for the positions of one step.
pub(crate) struct RotaryAngles {
    /// A row of `head_width / 2` values for each token.
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

impl RotaryEmbedding {
    /// Frequencies that fall from 1 to `1 / theta` over a head.
    pub(super) fn new(theta: f64, head_width: usize) -> Self {
        let frequency = |pair: usize| (1.0 / theta.powf((2 * pair) as f64 / head_width as f64)) as f32;
        Self { frequencies: (0..head_width / 2).map(frequency).collect() }
    }

    /// Llama 3's scaling to longer contexts: frequencies whose wave is longer than the original context are divided by `factor`, short
    /// waves stay, and those between are interpolated.
    pub(super) fn stretched(self, factor: f64, low: f64, high: f64, original: f64) -> Self {
        let stretch = |frequency: &f32| {
            let frequency = f64::from(*frequency);
            let wave = 2.0 * std::f64::consts::PI / frequency;
            if wave > original / low {
                return (frequency / factor) as f32;
            }
            if wave < original / high {
                return frequency as f32;
            }
            let smooth = (original / wave - low) / (high - low);
            ((1.0 - smooth) * frequency / factor + smooth * frequency) as f32
        };
        Self { frequencies: self.frequencies.iter().map(stretch).collect() }
    }

    /// Divides each frequency by its factor: so GGUF files store a scaled rotation.
    pub(super) fn divided(self, factors: &[f32]) -> Self {
        Self { frequencies: self.frequencies.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect() }
    }

    /// The angles at `positions`.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = usize>) -> RotaryAngles {
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in &self.frequencies {
                // Rounded to f32 before the cosine, as the models were trained.
                let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
                cosines.push(cosine as f32);
                sines.push(sine as f32);
            }
        }
        RotaryAngles { cosines, sines }
    }
}
