//! Products in whole numbers in vectors of 256 bits (AVX2): two products of each of eight outputs at a time, both in 16 bits.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi16,
    _mm256_srai_epi16, _mm256_srli_epi16,
};
use std::mem::transmute;

use super::layout::{ByteLine, widen};
use super::{IntegerBlock, PANEL, QUAD, QUADS, QuantizedStep, ROWS, STEP};

/// Outputs of a vector.
const LANES: usize = 8;

/// The inputs of a step: of four, the first and third in one number, the second and fourth in another.
type Pairs = [[u32; 2]; QUADS];

/// The weights of eight outputs with the same.
type StepWeights = [[__m256i; 2]; QUADS];

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(available(), "vectors of whole numbers on a processor without them");
    // SAFETY: the processor has the instructions, as asserted.
    unsafe { add_up(block, rows, sums) }
}

/// The sums of `rows` rows, which do not depend on how many there are.
#[target_feature(enable = "avx2,fma")]
fn add_up(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    let layout = block.weights.layout;
    let mut totals = [[_mm256_setzero_ps(); PANEL / LANES]; ROWS];
    let mut pairs = [[[0; 2]; QUADS]; ROWS];
    let mut steps = block.inputs.chunks_exact(block.lanes).zip(block.scales.chunks_exact(block.lanes));
    for span in block.weights.lines.chunks_exact(layout.span()) {
        for (lines, (inputs, places)) in span[layout.before()..].chunks_exact(layout.step()).zip(&mut steps) {
            let pairs = &mut pairs[..rows];
            pairs.iter_mut().zip(inputs).for_each(|(pairs, inputs)| *pairs = in_pairs(inputs));
            let (values, small) = lines.split_at(layout.values());
            let small = |second: usize| &small[0].0.as_chunks().0[second];
            let mut scales = [[_mm256_setzero_ps(); PANEL / LANES]; 2];
            for (group, scales) in scales.iter_mut().enumerate().take(STEP / layout.group) {
                *scales = vectors(widen(&span[0], layout.factors.then(|| small(group))));
            }
            let offsets = layout.offsets.then(|| vectors(widen(&span[1], layout.offset_factors.then(|| small(1)))));
            for part in 0..PANEL / LANES {
                let weights = unpack(values, layout.nibbles, part);
                for ((inputs, place), totals) in pairs.iter().zip(places).zip(&mut totals) {
                    let total = &mut totals[part];
                    let groups = weights.chunks_exact(layout.group / QUAD).zip(inputs.chunks_exact(layout.group / QUAD));
                    for ((weights, inputs), scales) in groups.zip(&scales) {
                        let mut dot = _mm256_setzero_si256();
                        for (weights, inputs) in weights.as_flattened().iter().zip(inputs.as_flattened()) {
                            let x = _mm256_set1_epi32(inputs.cast_signed());
                            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(*weights, x));
                        }
                        let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scales[part]);
                        *total = _mm256_fmadd_ps(dot, _mm256_set1_ps(place.scale), *total);
                    }
                    if let Some(offsets) = &offsets {
                        *total = _mm256_fmadd_ps(offsets[part], _mm256_set1_ps(place.whole), *total);
                    }
                }
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals).take(rows) {
        // SAFETY: both are of one size, and all bits are values.
        *sums = unsafe { transmute::<[__m256; PANEL / LANES], [f32; PANEL]>(totals) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn in_pairs(inputs: &QuantizedStep) -> Pairs {
    let value = |input: usize| u32::from(inputs.value(input).cast_unsigned());
    let pair = |first: usize| value(first) | value(first + 2) << 16;
    std::array::from_fn(|quad| [pair(QUAD * quad), pair(QUAD * quad + 1)])
}

/// The weights of a step with the outputs `part`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn unpack(lines: &[ByteLine], nibbles: bool, part: usize) -> StepWeights {
    let mut weights = [[_mm256_setzero_si256(); 2]; QUADS];
    let lines = &lines[lines.len() / 2 * (part / 2)..][..lines.len() / 2];
    // SAFETY: both are of one size, and all bits are values.
    let vector = |line: &ByteLine| unsafe { transmute::<[u8; 32], __m256i>(line.0.as_chunks().0[part % 2]) };
    if nibbles {
        let lowest = _mm256_set1_epi16(15);
        for (line, weights) in lines.iter().zip(weights.as_chunks_mut::<2>().0) {
            let all = vector(line);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(all), lowest);
            let third = _mm256_and_si256(_mm256_srli_epi16::<8>(all), lowest);
            *weights = [[_mm256_and_si256(all, lowest), third], [second, _mm256_srli_epi16::<12>(all)]];
        }
    } else {
        for (line, weights) in lines.iter().zip(&mut weights) {
            let all = vector(line);
            *weights = [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(all)), _mm256_srai_epi16::<8>(all)];
        }
    }
    weights
}

#[inline(always)]
fn vectors(numbers: [f32; PANEL]) -> [__m256; PANEL / LANES] {
    // SAFETY: as above.
    unsafe { transmute::<[f32; PANEL], [__m256; PANEL / LANES]>(numbers) }
}
