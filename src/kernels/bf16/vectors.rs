//! Vector registers that round to bf16: AVX512-BF16.

#![allow(unsafe_code)]

use std::arch::x86_64::{__m512, __m512bh, _mm512_cvtne2ps_pbh, _mm512_loadu_ps};
use std::mem::transmute;

use crate::cache_line::{Bf16Line, LINE_PAIRS};

/// Whether this processor has the instructions.
pub(crate) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// See [`super::rounded`]. None where the processor has no such instruction.
#[inline]
pub(super) fn rounded(values: &[f32; 2 * LINE_PAIRS]) -> Option<Bf16Line> {
    // SAFETY: the processor has the instructions, as just seen.
    available().then(|| unsafe { round(load(values)) })
}

/// The two vectors of a line's values.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(values: &[f32; 2 * LINE_PAIRS]) -> [__m512; 2] {
    const { assert!(LINE_PAIRS == 16) };
    // SAFETY: both halves lie inside the array.
    unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))] }
}

/// Rounds two vectors to one line.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn round([left, right]: [__m512; 2]) -> Bf16Line {
    // SAFETY: both are of one size, and all bits are values.
    unsafe { transmute::<__m512bh, Bf16Line>(_mm512_cvtne2ps_pbh(right, left)) }
}
