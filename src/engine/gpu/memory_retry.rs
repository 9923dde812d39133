//! Retries after a device has run out of memory.
//!
//! | after | next attempt |
//! |---|---|
//! | the first failure | all rows once more, after the memory of the failed attempt is free again |
//! | the second failure | each half of the rows alone, and the halves of a half that fails |
//! | a failure of a single row | none: the row is refused, and the others go on |
//!
//! Any other failure ends the step, and with it the device.

use std::ops::Range;

use candle_core::{Error, Result};

use crate::error::first_line;

/// The outcome of some of the rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartialResult<T> {
    pub(super) rows: Range<usize>,
    /// The result of these rows together; none for a single row that needs too much memory.
    pub(super) outcome: Option<T>,
}

/// Computes all rows at once, or in pieces if the memory is too small. The pieces are in order and hold every row. `tidy` frees the memory
/// of a failed attempt. `compute` must tolerate a repetition after a failure at any point.
pub(super) fn within_memory<R, T>(
    rows: &[R],
    mut tidy: impl FnMut() -> Result<()>,
    mut compute: impl FnMut(&[R]) -> Result<T>,
) -> Result<Vec<PartialResult<T>>> {
    let mut attempt = |range: Range<usize>| match compute(&rows[range]) {
        Ok(done) => Ok(Some(done)),
        Err(error) if is_out_of_memory(&error) => {
            tracing::warn!(error = first_line(&error), "the device is out of memory");
            tidy().map(|()| None)
        }
        Err(error) => Err(error),
    };
    let all = 0..rows.len();
    let mut pieces = Vec::new();
    if let Some(done) = attempt(all.clone())? {
        pieces.push(PartialResult { rows: all, outcome: Some(done) });
        return Ok(pieces);
    }
    // A stack with the next range on top, so that the pieces are in order.
    let mut open = vec![all];
    while let Some(range) = open.pop() {
        match attempt(range.clone())? {
            None if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                open.extend([middle..range.end, range.start..middle]);
            }
            outcome => pieces.push(PartialResult { rows: range, outcome }),
        }
    }
    Ok(pieces)
}

/// Whether the device had too little memory. candle only passes on the driver's error as text.
fn is_out_of_memory(error: &Error) -> bool {
    let text = format!("{error:?}");
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"].iter().any(|code| text.contains(code))
}

#[cfg(test)]
pub(super) fn out_of_memory() -> Error {
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Driver(&'static str);
    Error::Cuda(Box::new(Driver("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"))).bt().context("matmul")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes the sum of rows whose sizes fit into `memory`; counts attempts and tidyings.
    fn sums(rows: &[usize], memory: usize) -> (Vec<PartialResult<usize>>, Vec<usize>, usize) {
        let (mut attempts, mut tidied) = (Vec::new(), 0);
        let tidy = || {
            tidied += 1;
            Ok(())
        };
        let pieces = within_memory(rows, tidy, |rows| {
            attempts.push(rows.len());
            let sum: usize = rows.iter().sum();
            if sum > memory { Err(out_of_memory()) } else { Ok(sum) }
        });
        (pieces.unwrap(), attempts, tidied)
    }

    fn piece(rows: Range<usize>, outcome: Option<usize>) -> PartialResult<usize> {
        PartialResult { rows, outcome }
    }

    #[test]
    fn rows_that_fit_are_computed_at_once() {
        assert_eq!(sums(&[1, 2, 3], 6), (vec![piece(0..3, Some(6))], vec![3], 0));
    }

    #[test]
    fn rows_that_do_not_fit_together_are_tried_again_and_then_in_halves() {
        let (pieces, attempts, tidied) = sums(&[4, 4, 4, 1, 1], 8);
        assert_eq!(pieces, [piece(0..2, Some(8)), piece(2..5, Some(6))]);
        assert_eq!((attempts, tidied), (vec![5, 5, 2, 3], 2));
    }

    #[test]
    fn one_row_that_does_not_fit_alone_is_refused_alone() {
        let (pieces, ..) = sums(&[1, 9, 1, 1], 3);
        assert_eq!(pieces, [piece(0..1, Some(1)), piece(1..2, None), piece(2..4, Some(2))]);
        assert_eq!(sums(&[9], 3), (vec![piece(0..1, None)], vec![1, 1], 2));
    }

    #[test]
    fn memory_that_is_free_again_is_used() {
        let mut first = true;
        let pieces = within_memory(
            &[1, 2],
            || Ok(()),
            |rows| {
                if std::mem::take(&mut first) { Err(out_of_memory()) } else { Ok(rows.len()) }
            },
        );
        assert_eq!(pieces.unwrap(), [piece(0..2, Some(2))]);
    }

    #[test]
    fn any_other_failure_is_passed_on() {
        let failed = within_memory(&[1, 2], || Ok(()), |_| -> Result<()> { Err(Error::Msg("an illegal access".into())) });
        assert!(failed.unwrap_err().to_string().contains("an illegal access"));
        assert!(!is_out_of_memory(&Error::UnwrapNone));
    }
}
