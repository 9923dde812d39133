//! Layer normalisation together with the addition that precedes it, and vectors of length 1.

use multiversion::multiversion;

use super::attention::{LANES, reduce};
use super::tiles::Tiles;

/// Scale and shift of one layer normalisation.
pub struct LayerNorm {
    /// One factor for each component.
    pub scale: Vec<f32>,
    /// Added after the factor, one value for each component.
    pub shift: Vec<f32>,
    /// Added to the variance, to avoid a division by zero.
    pub epsilon: f32,
}

impl LayerNorm {
    /// `residual = norm(residual + rows + bias)`, row by row.
    pub fn add(&self, residual: &mut [f32], rows: &[f32], bias: &[f32]) {
        add_norm(residual, rows, bias, self);
    }

    /// As [`LayerNorm::add`]. Rounds the results to `rounded` as well.
    pub fn add_rounded(&self, residual: &mut [f32], rows: &[f32], bias: &[f32], rounded: &mut Tiles) {
        let width = bias.len();
        for (row, (residual, values)) in residual.chunks_exact_mut(width).zip(rows.chunks_exact(width)).enumerate() {
            self.add(residual, values, bias);
            rounded.round(row, residual);
        }
    }

    /// `rows = norm(rows)`, row by row.
    pub fn apply(&self, rows: &mut [f32]) {
        norm(rows, self);
    }
}

/// Adds up in many partial sums. With a single one each addition would wait for the one before.
#[inline(always)]
pub(super) fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [[0.0_f32; LANES]; 2];
    let (chunks, rest) = values.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        for (lane, value) in lanes.as_flattened_mut().iter_mut().zip(chunk) {
            *lane += f(*value);
        }
    }
    let [mut sum, other] = lanes;
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
    reduce(sum, |a, b| a + b) + rest.iter().map(|value| f(*value)).sum::<f32>()
}

#[inline(always)]
fn norm_row(row: &mut [f32], layer: &LayerNorm) {
    let width = row.len() as f32;
    let mean = sum_of(row, |x| x) / width;
    // Two passes: the difference of squares would lose all precision of f32 where the mean is large.
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) / width;
    let factor = 1.0 / (variance + layer.epsilon).sqrt();
    for ((value, scale), shift) in row.iter_mut().zip(&layer.scale).zip(&layer.shift) {
        *value = (*value - mean) * factor * scale + shift;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_norm(residual: &mut [f32], rows: &[f32], bias: &[f32], layer: &LayerNorm) {
    let width = bias.len();
    for (residual, row) in residual.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
        for ((value, row), bias) in residual.iter_mut().zip(row).zip(bias) {
            *value += row + bias;
        }
        norm_row(residual, layer);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn norm(rows: &mut [f32], layer: &LayerNorm) {
    for row in rows.chunks_exact_mut(layer.scale.len()) {
        norm_row(row, layer);
    }
}

/// Scales a vector to length 1. A vector of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let length = sum_of(vector, |x| x * x).sqrt();
    if length > 0.0 {
        for value in vector {
            *value /= length;
        }
    }
}
