//! Scores: numbers that are the sum of several parts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The sum of parts, limited to the range from 0 to `maximum`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub value: f64,
    pub maximum: f64,
    /// In the order of the pipeline file.
    pub parts: Vec<ScorePart>,
}

/// One part of a [`Score`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorePart {
    pub name: String,
    /// What the part adds, rounded to hundredths.
    pub value: f64,
    /// The expression that gave the value.
    pub formula: String,
}

impl Score {
    /// The score of these parts. Each part is rounded to hundredths first, so that the shown parts add up to the shown score.
    pub fn of(parts: impl IntoIterator<Item = (String, f64, String)>, maximum: f64) -> Self {
        let mut sum = 0.0;
        let parts = parts
            .into_iter()
            .map(|(name, value, formula)| {
                let hundredths = (value * 100.0).round();
                sum += hundredths;
                ScorePart { name, value: hundredths / 100.0, formula }
            })
            .collect();
        Self { value: (sum / 100.0).clamp(0.0, maximum), maximum, parts }
    }

    /// See [`Output::view`](super::Output::view).
    pub(super) fn view(&self) -> Value {
        let parts: Map<String, Value> = self.parts.iter().map(|part| (part.name.clone(), json!(part.value))).collect();
        json!({ "value": self.value, "maximum": self.maximum, "parts": parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(values: &[f64]) -> f64 {
        Score::of(values.iter().map(|value| ("p".to_owned(), *value, "f".to_owned())), 100.0).value
    }

    #[test]
    fn parts_add_up_as_people_add_them() {
        assert_eq!(score(&[0.1, 0.2]), 0.3, "0.1 + 0.2 of binary numbers is another");
        assert_eq!(score(&[33.333, 33.333, 33.333]), 99.99);
        assert_eq!(score(&[]), 0.0);
    }

    #[test]
    fn the_sum_stays_within_its_bounds() {
        assert_eq!((score(&[80.0, 40.0]), score(&[10.0, -40.0])), (100.0, 0.0));
    }
}
