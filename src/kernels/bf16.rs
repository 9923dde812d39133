//! Rounding f32 to bf16: to the nearest number with eight significant bits, ties to even.

#[cfg(target_arch = "x86_64")]
pub(super) mod vectors;

use super::cache_line::{Bf16Line, CacheAligned, LINE_PAIRS};

/// Two values for each pair of the line.
#[inline]
pub(super) fn rounded(values: &[f32; 2 * LINE_PAIRS]) -> Bf16Line {
    #[cfg(target_arch = "x86_64")]
    if let Some(line) = vectors::rounded(values) {
        return line;
    }
    CacheAligned(std::array::from_fn(|pair| {
        u32::from(nearest(values[2 * pair])) | u32::from(nearest(values[2 * pair + 1])) << 16
    }))
}

/// The upper half of the nearest number.
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
