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

/// Rows that a piece of a panel is multiplied with while it is in the first cache.
const BLOCK_ROWS: usize = 64;

/// Rows of a small block, whose sums are set to zero in no time: a decoder's step may have a single row.
const FEW_ROWS: usize = 8;

/// Inputs of a piece: 16 KiB of weights in f32, which leaves half of a first cache to the rows.
const PIECE_INPUTS: usize = 128;

/// Weights of 32 outputs.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a> {
    /// The outputs of one input lie together; those of the next input begin `step` values further on.
    F32 { values: &'a [f32], step: usize },
    /// The upper halves of f32, two inputs side by side: two lines for each pair of inputs.
    Bf16(&'a [Bf16Line]),
}

#[derive(Clone, Copy)]
pub(super) struct PanelInput<'a> {
    pub(super) values: &'a [f32],
    /// From one row to the next.
    pub(super) step: usize,
    pub(super) rows: usize,
    /// Inputs of a row.
    pub(super) depth: usize,
}

impl<'a> PanelInput<'a> {
    /// The inputs of `rows` rows, `depth` inputs of each, from the row `row` and the input `input` on.
    fn part(self, row: usize, rows: usize, input: usize, depth: usize) -> Self {
        Self { values: &self.values[row * self.step + input..], rows, depth, ..self }
    }

    /// The inputs of each of the `R` rows.
    #[inline(always)]
    fn slices<const R: usize>(&self) -> [&'a [f32]; R] {
        std::array::from_fn(|row| &self.values[row * self.step..][..self.depth])
    }
}

/// A matrix that several threads write, each to a rectangle of its own.
#[derive(Clone, Copy)]
pub(super) struct SharedMatrix<'a, T = f32> {
    values: *mut T,
    length: usize,
    step: usize,
    _borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `SharedMatrix` is only written through the unsafe method below, whose callers promise that no other thread uses the same
// rectangle.
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
    /// While the slice lives, nothing else may read or write these values.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, row: usize, column: usize, count: usize) -> &mut [T] {
        let start = row * self.step + column;
        assert!(column + count <= self.step && start + count <= self.length, "a rectangle reaches past its matrix");
        // SAFETY: inside the allocation, as just asserted; not aliased, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(start), count) }
    }
}

/// Calls `store` with the sums of each row's products with the panel, row by row.
///
/// A row's sums are added up input after input, so that they are the same bits whatever rows are multiplied beside it.
#[inline]
pub(super) fn multiply_panel(input: PanelInput<'_>, panel: Panel<'_>, store: impl FnMut(usize, &[f32; PANEL])) {
    if input.rows == 0 {
        return;
    }
    assert!((input.rows - 1) * input.step + input.depth <= input.values.len(), "rows reach past the inputs");
    let enough = match panel {
        Panel::F32 { values, step } => input.depth == 0 || (input.depth - 1) * step + PANEL <= values.len(),
        Panel::Bf16(lines) => input.depth.div_ceil(2) * 2 <= lines.len(),
    };
    assert!(enough, "{} inputs reach past the panel's weights", input.depth);
    match input.rows {
        ..=FEW_ROWS => multiply_blocks::<FEW_ROWS>(input, panel, store),
        _ => multiply_blocks::<BLOCK_ROWS>(input, panel, store),
    }
}

#[inline]
fn multiply_blocks<const ROWS: usize>(input: PanelInput<'_>, panel: Panel<'_>, mut store: impl FnMut(usize, &[f32; PANEL])) {
    let mut sums = [[0.0_f32; PANEL]; BLOCK_ROWS];
    for first in (0..input.rows).step_by(ROWS) {
        let sums = &mut sums[..ROWS.min(input.rows - first)];
        let rows = sums.len();
        sums.fill([0.0; PANEL]);
        add_up(input.part(first, rows, 0, input.depth), panel, sums);
        sums.iter().enumerate().for_each(|(row, sums)| store(first + row, sums));
    }
}

/// Adds the products of each row to its sums.
fn add_up(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::avx512_available() {
        return vectors::add_up(input, panel, sums);
    }
    add_up_anywhere(input, panel, sums);
}

/// [`add_up`] for every processor.
fn add_up_anywhere(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]]) {
    match panel {
        Panel::F32 { values, step } => {
            for (first, depth) in pieces(input.depth, PIECE_INPUTS) {
                add_up_f32(input.part(0, input.rows, first, depth), &values[first * step..], step, sums);
            }
        }
        Panel::Bf16(lines) => {
            // Converted a few inputs at a time, which stay in the first cache.
            const INPUTS: usize = 64;
            let mut converted = [0.0_f32; INPUTS * PANEL];
            for (first, depth) in pieces(input.depth, INPUTS) {
                to_f32(&lines[first..][..depth.next_multiple_of(2)], &mut converted);
                add_up_f32(input.part(0, input.rows, first, depth), &converted, PANEL, sums);
            }
        }
    }
}

/// The beginnings and lengths of the pieces of `depth` inputs.
fn pieces(depth: usize, inputs: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..depth).step_by(inputs).map(move |first| (first, inputs.min(depth - first)))
}

/// Pairs of inputs in bf16 to one input after the other in f32.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn to_f32(lines: &[Bf16Line], converted: &mut [f32]) {
    for (pair, rows) in lines.as_chunks::<2>().0.iter().zip(converted.chunks_exact_mut(2 * PANEL)) {
        let (even, odd) = rows.split_at_mut(PANEL);
        for ((weights, even), odd) in pair.iter().flat_map(|line| line.0).zip(even).zip(odd) {
            *even = f32::from_bits(weights << 16);
            *odd = f32::from_bits(weights & 0xffff_0000);
        }
    }
}

/// [`add_up`] with weights in f32.
fn add_up_f32(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::avx2_available() {
        return vectors::add_up_avx2(input, values, step, sums);
    }
    add_up_plainly(input, values, step, sums);
}

/// [`add_up_f32`] in plain loops.
#[multiversion(targets("aarch64+neon"))]
fn add_up_plainly(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]]) {
    const TOGETHER: usize = 16;
    for (row, sums) in sums.iter_mut().enumerate() {
        let inputs = &input.values[row * input.step..][..input.depth];
        for (half, sums) in sums.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
            let mut total = *sums;
            for (x, weights) in inputs.iter().zip(values[half * TOGETHER..].chunks(step)) {
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

    fn assert_agrees(half: bool, rows: usize, depth: usize, add_up: impl Fn(PanelInput<'_>, Panel<'_>, &mut [[f32; PANEL]])) {
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
        let mut sums = vec![[0.0; PANEL]; rows];
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
        for rows in (1..=9).chain([13, 47, BLOCK_ROWS]) {
            for depth in [1, 2, 7, 64, 65, 131, 300] {
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
        let (x, weights) = (numbers(119 * 3, 3), vec![2.0; 3 * PANEL]);
        let mut seen = Vec::new();
        multiply_panel(
            PanelInput { values: &x, step: 3, rows: 119, depth: 3 },
            Panel::F32 { values: &weights, step: PANEL },
            |row, sums| {
                let expected = 2.0 * x[row * 3..][..3].iter().sum::<f32>();
                assert!(sums.iter().all(|sum| (sum - expected).abs() < 1e-6), "row {row}: {} for {expected}", sums[0]);
                seen.push(row);
            },
        );
        assert_eq!(seen, (0..119).collect::<Vec<_>>());
    }
    #[test]
    #[should_panic(expected = "rows reach past the inputs")]
    fn product_past_the_end_of_a_slice_is_refused() {
        let (x, weights) = (vec![1.0; 10], vec![1.0; 2 * PANEL]);
        let input = PanelInput { values: &x, step: 9, rows: 2, depth: 2 };
        multiply_panel(input, Panel::F32 { values: &weights, step: PANEL }, |_, _| {});
    }

    #[test]
    #[should_panic(expected = "2 inputs reach past the panel's weights")]
    fn weights_of_fewer_inputs_are_refused() {
        let (x, weights) = (vec![1.0; 4], vec![1.0; 2 * PANEL - 1]);
        let input = PanelInput { values: &x, step: 2, rows: 2, depth: 2 };
        multiply_panel(input, Panel::F32 { values: &weights, step: PANEL }, |_, _| {});
    }
}
