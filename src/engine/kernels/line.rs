//! Lines of the first cache.

/// Sixteen pairs of bf16, the first of a pair in the lower half. Loads of whole lines that begin elsewhere touch two, and take tile
/// registers six times as long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; Line::PAIRS]);

impl Line {
    /// Pairs of a line.
    pub(super) const PAIRS: usize = 16;
}
