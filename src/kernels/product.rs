//! Matrix products: the one door to the `gemm` crate, and the one unsafe block of the engine.

/// A matrix inside a slice: element (i, j) lies at `i * row_step + j * column_step`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_step: usize,
    pub(super) column_step: usize,
}

/// Where a product goes: rows of consecutive values, `row_step` apart.
pub(super) struct Rows<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) row_step: usize,
}

impl Matrix<'_> {
    fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_step: self.column_step, column_step: self.row_step, ..self }
    }

    /// One past the last value that the matrix touches.
    fn end(&self) -> usize {
        match (self.rows, self.columns) {
            (0, _) | (_, 0) => 0,
            (rows, columns) => (rows - 1) * self.row_step + (columns - 1) * self.column_step + 1,
        }
    }
}

/// `output = scale * left * right`, on the calling thread.
pub(super) fn multiply(left: Matrix<'_>, right: Matrix<'_>, scale: f32, output: Rows<'_>) {
    let (rows, columns) = (left.rows, right.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert_eq!(left.columns, right.rows, "inner sizes of a product");
    assert!(left.end() <= left.values.len() && right.end() <= right.values.len(), "a matrix reaches past its values");
    assert!(columns <= output.row_step || rows == 1, "rows of the output overlap");
    assert!((rows - 1) * output.row_step + columns <= output.values.len(), "the output reaches past its values");
    let left_steps = (left.column_step as isize, left.row_step as isize);
    let right_steps = (right.column_step as isize, right.row_step as isize);
    // SAFETY: every element that the sizes and steps name lies inside its slice, as asserted above; `output` is borrowed mutably, so it
    // overlaps neither operand, and its rows do not overlap one another.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            left.columns,
            output.values.as_mut_ptr(),
            1,
            output.row_step as isize,
            false,
            left.values.as_ptr(),
            left_steps.0,
            left_steps.1,
            right.values.as_ptr(),
            right_steps.0,
            right_steps.1,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` consecutive values, `step` apart.
    pub(super) fn rows(values: &'a [f32], rows: usize, columns: usize, step: usize) -> Self {
        Self { values, rows, columns, row_step: step, column_step: 1 }
    }

    /// The transpose of rows of `columns` consecutive values, `step` apart.
    pub(super) fn columns(values: &'a [f32], rows: usize, columns: usize, step: usize) -> Self {
        Self::rows(values, rows, columns, step).transposed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_of_strided_matrices_agrees_with_plain_loops() {
        let values: Vec<f32> = (0..200).map(|i| (i * 37 % 23) as f32 - 11.0).collect();
        let (left, right) = (Matrix::rows(&values, 5, 7, 9), Matrix::columns(&values[60..], 6, 7, 11));
        let mut output = vec![f32::NAN; 5 * 8];
        multiply(left, right, 0.5, Rows { values: &mut output, row_step: 8 });
        for i in 0..5 {
            for j in 0..6 {
                let expected: f32 = (0..7).map(|k| values[i * 9 + k] * values[60 + j * 11 + k]).sum::<f32>() * 0.5;
                assert!(
                    (output[i * 8 + j] - expected).abs() < 1e-3,
                    "({i}, {j}): expected {expected}, got {}",
                    output[i * 8 + j]
                );
            }
            assert!(output[i * 8 + 6].is_nan(), "row {i} was written past its end");
        }
    }

    #[test]
    #[should_panic(expected = "reaches past its values")]
    fn product_past_the_end_of_a_slice_is_refused() {
        let values = [1.0; 10];
        let mut output = [0.0; 4];
        multiply(Matrix::rows(&values, 2, 2, 9), Matrix::rows(&values, 2, 2, 2), 1.0, Rows { values: &mut output, row_step: 2 });
    }
}
