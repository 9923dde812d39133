//! How a product is shared among threads.

use std::ops::Range;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::{Activations, Parallelism};
use crate::panel::PANEL;

/// Tasks for each thread, so that a late thread delays the others little.
const TASKS_PER_THREAD: usize = 4;

/// How a product is cut into tasks: blocks of rows times shares of panels.
pub(super) struct TaskGrid {
    parallelism: Parallelism,
    rows: usize,
    block: usize,
    panels: usize,
    /// Parts that the panels are divided into, of about the same size: a short last part would leave a thread without work.
    shares: usize,
}

impl TaskGrid {
    /// Blocks of at most `block` rows, and as few shares of the panels as keep all threads busy.
    pub(super) fn new(input: &Activations<'_>, block: usize, outputs: usize) -> Self {
        let (rows, parallelism, panels) = (input.rows(), input.parallelism, outputs.div_ceil(PANEL));
        let shares = match parallelism {
            Parallelism::Pool => (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(rows.div_ceil(block).max(1)),
            Parallelism::CallingThread => 1,
        };
        Self { parallelism, rows, block, panels, shares: shares.clamp(1, panels.max(1)) }
    }

    /// Calls `task` with the rows and the panels of each task.
    pub(super) fn run(&self, task: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let shares = self.shares;
        let tasks = 0..self.rows.div_ceil(self.block) * shares;
        let run = |index| {
            let (first, share) = (index / shares * self.block, index % shares);
            task(first..self.rows.min(first + self.block), share * self.panels / shares..(share + 1) * self.panels / shares);
        };
        match self.parallelism {
            Parallelism::Pool => tasks.into_par_iter().with_max_len(1).for_each(run),
            Parallelism::CallingThread => tasks.for_each(run),
        }
    }
}
