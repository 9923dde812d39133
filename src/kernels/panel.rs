//! Products with panels: the weights of 32 outputs, input after input, so that the widest loads run along the outputs.
//!
//! ```text
//! f32    input 0: w0 w1 … w31   input 1: w0 w1 … w31   …
//! bf16   inputs 0, 1: w0 w0' w1 w1' … w31 w31'   inputs 2, 3: …      (a dash marks the second input)
//! ```

#[cfg(target_arch = "x86_64")]
mod vectors;

use multiversion::multiversion;

use super::cache_line::Bf16Line;

/// Outputs of a panel.
pub const PANEL: usize = 32;

/// Rows that one pass over a panel serves: as many as keep their sums in registers.
const ROWS: usize = 8;

/// Weights of 32 outputs.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a> {
    /// The outputs of an input lie together; the next input's `step` further on.
    F32 {
        /// The weights.
        values: &'a [f32],
        /// From one input to the next.
        step: usize,
    },
    /// The upper halves of f32, two inputs side by side: two lines a pair.
    Bf16(&'a [Bf16Line]),
}

/// Rows of inputs.
#[derive(Clone, Copy)]
pub(super) struct PanelInput<'a> {
    pub(super) values: &'a [f32],
    /// From one row to the next.
    pub(super) step: usize,
    pub(super) rows: usize,
    /// Inputs of a row.
    pub(super) depth: usize,
}

/// A matrix that several threads fill, each a rectangle of its own.
#[derive(Clone, Copy)]
pub(super) struct SharedMatrix<'a, T = f32> {
    values: *mut T,
    length: usize,
    step: usize,
    _borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `SharedMatrix` is only written through the unsafe methods below, whose callers promise rectangles that no other thread touches.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for SharedMatrix<'_, T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for SharedMatrix<'_, T> {}

impl<'a, T> SharedMatrix<'a, T> {
    /// Rows of `step` values.
    pub(super) fn new(values: &'a mut [T], step: usize) -> Self {
        Self { values: values.as_mut_ptr(), length: values.len(), step, _borrowed: std::marker::PhantomData }
    }

    /// `count` values of a row from `column` on.
    ///
    /// # Safety
    /// While the slice lives, nothing else may touch these values.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, row: usize, column: usize, count: usize) -> &mut [T] {
        let start = row * self.step + column;
        assert!(column + count <= self.step && start + count <= self.length, "a rectangle reaches past its matrix");
        // SAFETY: inside the allocation, as just asserted; not aliased, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(start), count) }
    }
}

/// Hands the sums of each row's products with the panel to `store`.
#[inline]
pub(super) fn multiply_panel(input: PanelInput<'_>, panel: Panel<'_>, mut store: impl FnMut(usize, &[f32; PANEL])) {
    if input.rows == 0 {
        return;
    }
    assert!((input.rows - 1) * input.step + input.depth <= input.values.len(), "rows reach past the inputs");
    let enough = match panel {
        Panel::F32 { values, step } => input.depth == 0 || (input.depth - 1) * step + PANEL <= values.len(),
        Panel::Bf16(lines) => input.depth.div_ceil(2) * 2 <= lines.len(),
    };
    assert!(enough, "{} inputs reach past the panel's weights", input.depth);
    let mut sums = [[0.0_f32; PANEL]; ROWS];
    for first in (0..input.rows).step_by(ROWS) {
        let rows = ROWS.min(input.rows - first);
        add_up(PanelInput { values: &input.values[first * input.step..], rows, ..input }, panel, &mut sums);
        sums[..rows].iter().enumerate().for_each(|(row, sums)| store(first + row, sums));
    }
}

/// The sums of up to [`ROWS`] rows.
fn add_up(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::avx512_available() {
        return vectors::add_up(input, panel, sums);
    }
    add_up_anywhere(input, panel, sums);
}

/// [`add_up`] for every processor.
fn add_up_anywhere(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    match panel {
        Panel::F32 { values, step } => add_up_wide(input, values, step, sums),
        Panel::Bf16(lines) => {
            // Widened a few inputs at a time, which stay in the first cache.
            const INPUTS: usize = 64;
            let mut wide = [0.0_f32; INPUTS * PANEL];
            let mut part = [[0.0_f32; PANEL]; ROWS];
            sums.iter_mut().for_each(|row| row.fill(0.0));
            for first in (0..input.depth).step_by(INPUTS) {
                let depth = INPUTS.min(input.depth - first);
                widen(&lines[first..][..depth.next_multiple_of(2)], &mut wide);
                add_up_wide(PanelInput { values: &input.values[first..], depth, ..input }, &wide, PANEL, &mut part);
                for (sum, part) in sums.iter_mut().zip(&part) {
                    sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                }
            }
        }
    }
}

/// Pairs of inputs to one input after the other.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn widen(lines: &[Bf16Line], wide: &mut [f32]) {
    for (pair, rows) in lines.as_chunks::<2>().0.iter().zip(wide.chunks_exact_mut(2 * PANEL)) {
        let (even, odd) = rows.split_at_mut(PANEL);
        for ((weights, even), odd) in pair.iter().flat_map(|line| line.0).zip(even).zip(odd) {
            *even = f32::from_bits(weights << 16);
            *odd = f32::from_bits(weights & 0xffff_0000);
        }
    }
}

/// The sums with weights in f32.
fn add_up_wide(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::avx2_available() {
        return vectors::add_up_narrow(input, (values, step), sums);
    }
    add_up_plainly(input, values, step, sums);
}

/// [`add_up_wide`] in plain loops.
#[multiversion(targets("aarch64+neon"))]
fn add_up_plainly(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    const TOGETHER: usize = 16;
    for (row, sums) in sums[..input.rows].iter_mut().enumerate() {
        let inputs = &input.values[row * input.step..][..input.depth];
        for (part, sums) in sums.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
            let mut total = [0.0_f32; TOGETHER];
            for (x, weights) in inputs.iter().zip(values[part * TOGETHER..].chunks(step)) {
                for (total, weight) in total.iter_mut().zip(weights) {
                    *total += x * weight;
                }
            }
            *sums = total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache_line::{CacheAligned, LINE_PAIRS};

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn assert_agrees(
        half: bool,
        rows: usize,
        depth: usize,
        add_up: impl Fn(PanelInput<'_>, Panel<'_>, &mut [[f32; PANEL]; ROWS]),
    ) {
        let (x, mut weights) = (numbers(rows * (depth + 3), 1), numbers((depth + 1) * PANEL, 2));
        if half {
            weights.iter_mut().for_each(|w| *w = f32::from_bits(w.to_bits() & 0xffff_0000));
        }
        let upper = |input: usize, output: usize| weights[input * PANEL + output].to_bits() >> 16;
        let line = |line: usize| {
            let (input, first) = (line / 2 * 2, line % 2 * LINE_PAIRS);
            CacheAligned(std::array::from_fn(|i| upper(input, first + i) | upper(input + 1, first + i) << 16))
        };
        let lines: Vec<Bf16Line> = (0..depth.div_ceil(2) * 2).map(line).collect();
        let panel = if half { Panel::Bf16(&lines) } else { Panel::F32 { values: &weights, step: PANEL } };
        let mut sums = [[f32::NAN; PANEL]; ROWS];
        add_up(PanelInput { values: &x, step: depth + 3, rows, depth }, panel, &mut sums);
        for row in 0..rows {
            for output in 0..PANEL {
                let exact: f64 =
                    (0..depth).map(|i| f64::from(x[row * (depth + 3) + i]) * f64::from(weights[i * PANEL + output])).sum();
                let got = f64::from(sums[row][output]);
                assert!((got - exact).abs() < 1e-5, "row {row} of {rows}, output {output}, {depth} inputs: {got} for {exact}");
            }
        }
    }

    #[test]
    fn sums_of_a_panel_agree_with_plain_loops_whatever_the_rows_and_inputs() {
        for rows in 1..=ROWS {
            for depth in [1, 2, 7, 64, 65, 131] {
                assert_agrees(false, rows, depth, add_up);
                assert_agrees(true, rows, depth, add_up);
                assert_agrees(false, rows, depth, add_up_anywhere);
                assert_agrees(true, rows, depth, add_up_anywhere);
                assert_agrees(false, rows, depth, |input, panel, sums| {
                    let Panel::F32 { values, step } = panel else { unreachable!("f32 was asked for") };
                    add_up_plainly(input, values, step, sums);
                });
            }
        }
    }

    #[test]
    fn every_row_of_many_is_handed_over_once_and_in_order() {
        let (x, weights) = (numbers(19 * 3, 3), vec![2.0; 3 * PANEL]);
        let mut seen = Vec::new();
        multiply_panel(
            PanelInput { values: &x, step: 3, rows: 19, depth: 3 },
            Panel::F32 { values: &weights, step: PANEL },
            |row, sums| {
                let expected = 2.0 * x[row * 3..][..3].iter().sum::<f32>();
                assert!(sums.iter().all(|sum| (sum - expected).abs() < 1e-6), "row {row}: {} for {expected}", sums[0]);
                seen.push(row);
            },
        );
        assert_eq!(seen, (0..19).collect::<Vec<_>>());
    }
}
