//! Values that begin on a cache line of 64 bytes.

/// A value that begins on a cache line. A load of 64 bytes that begins elsewhere touches two lines, and takes tile registers six times as
/// long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct CacheAligned<T>(pub(super) T);

/// Sixteen pairs of bf16. The first of a pair is in the lower half.
pub(super) type Bf16Line = CacheAligned<[u32; LINE_PAIRS]>;

/// Pairs of a line.
pub(super) const LINE_PAIRS: usize = 16;

/// The first `length` values of a buffer, from a cache line on. The buffer grows if it is too small.
pub fn aligned_slice(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    let spare = size_of::<Bf16Line>() / size_of::<f32>();
    if buffer.len() < length + spare {
        buffer.resize(length + spare, 0.0);
    }
    let start = buffer.as_ptr().align_offset(size_of::<Bf16Line>()).min(spare);
    &mut buffer[start..][..length]
}
