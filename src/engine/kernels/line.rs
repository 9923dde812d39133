//! Lines of the first cache.

/// What begins with a line, or is one. Loads of whole lines that begin elsewhere touch two of them, and take tile registers six times as long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// Sixteen pairs of bf16, the first of a pair in the lower half.
pub(super) type Line = Aligned<[u32; PAIRS]>;

/// Pairs of a line.
pub(super) const PAIRS: usize = 16;
