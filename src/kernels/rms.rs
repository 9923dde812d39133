//! Normalisation by the root of the mean square, of whole rows or of each head.

use multiversion::multiversion;

use super::norm::sum_of;

/// Scale of one normalisation.
pub struct RmsNorm {
    /// One factor for each component.
    pub scale: Vec<f32>,
    /// Added to the mean square, to avoid a division by zero.
    pub epsilon: f32,
}

impl RmsNorm {
    /// `output = norm(rows)`, row by row; a row is as wide as the scale.
    pub fn apply(&self, rows: &[f32], output: &mut [f32]) {
        output.copy_from_slice(rows);
        normalize_rows(output, &self.scale, self.epsilon);
    }

    /// `rows = norm(rows)`.
    pub fn apply_in_place(&self, rows: &mut [f32]) {
        normalize_rows(rows, &self.scale, self.epsilon);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn normalize_rows(rows: &mut [f32], scale: &[f32], epsilon: f32) {
    for row in rows.chunks_exact_mut(scale.len()) {
        let factor = 1.0 / (sum_of(row, |x| x * x) / scale.len() as f32 + epsilon).sqrt();
        for (value, scale) in row.iter_mut().zip(scale) {
            *value *= factor * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_with_a_mean_square_of_one_times_the_scale() {
        let norm = RmsNorm { scale: (0..70).map(|i| 1.0 + i as f32 / 70.0).collect(), epsilon: 1e-5 };
        let rows: Vec<f32> = (0..210).map(|i| (i * 29 % 31) as f32 - 15.0).collect();
        let mut output = vec![0.0; 210];
        norm.apply(&rows, &mut output);
        for (i, got) in output.iter().enumerate() {
            let row = &rows[i / 70 * 70..][..70];
            let mean = row.iter().map(|x| f64::from(x * x)).sum::<f64>() / 70.0;
            let expected = f64::from(rows[i]) / (mean + 1e-5).sqrt() * f64::from(norm.scale[i % 70]);
            assert!((f64::from(*got) - expected).abs() < 1e-5, "component {i}: expected {expected}, got {got}");
        }
    }
}
