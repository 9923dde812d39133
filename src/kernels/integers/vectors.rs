//! Products in whole numbers in vectors of 512 bits (AVX512-VNNI): four products of each of sixteen outputs at a time, of weights of 8 bits
//! without a sign and half of the bits of the inputs.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi16,
    _mm512_xor_si512,
};
use std::mem::transmute;

use super::{ByteLine, IntegerBlock, PANEL, PanelLayout, QUADS, QuantizedStep, ROWS, STEP, StepScale};
use crate::processor::{self, Level};

/// How many lines ahead weights are prefetched. The processor's own prefetcher starts anew with each page.
const AHEAD: usize = 32;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    processor::allows(Level::Avx512)
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(available(), "vectors of whole numbers on a processor without them");
    let layout = block.weights.layout;
    // SAFETY: the processor has the instructions, as asserted.
    unsafe {
        match (layout.nibbles, layout.group) {
            (true, _) => add_up::<NIBBLES>(block, rows, sums),
            (false, STEP) => add_up::<BYTES>(block, rows, sums),
            (false, _) => add_up::<SHORT>(block, rows, sums),
        }
    }
}

/// Values of four bits in groups of 32.
const NIBBLES: usize = 0;
/// Values of a byte in groups of 32.
const BYTES: usize = 1;
/// Values of a byte in groups of 16.
const SHORT: usize = 2;

/// Writes the sums of `rows` rows, which do not depend on how many there are.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_up<const FORM: usize>(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    let layout = block.weights.layout;
    let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
    let mut steps = block.inputs.chunks_exact(block.lanes).zip(block.scales.chunks_exact(block.lanes));
    for span in block.weights.lines.chunks_exact(layout.span()) {
        let scales = PanelScales::of_span(span, layout);
        for (lines, (inputs, places)) in span[layout.before()..].chunks_exact(layout.step()).zip(&mut steps) {
            let (values, small) = lines.split_at(layout.values());
            let scales = scales.of_step(small, layout);
            let mut row = 0;
            while row < rows {
                let (inputs, places, totals) = (&inputs[row..], &places[row..], &mut totals[row..rows]);
                row += match totals.len() {
                    1 => add_step::<FORM, 1>(values, inputs, places, &scales, totals),
                    2 => add_step::<FORM, 2>(values, inputs, places, &scales, totals),
                    3 => add_step::<FORM, 3>(values, inputs, places, &scales, totals),
                    _ => add_step::<FORM, 4>(values, inputs, places, &scales, totals),
                };
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals).take(rows) {
        // SAFETY: both are of one size, and all bits are values.
        *sums = unsafe { transmute::<[__m512; 2], [f32; PANEL]>(totals) };
    }
}

/// The scales of 32 outputs for each group, and their offsets.
#[derive(Clone, Copy)]
struct PanelScales {
    groups: [[__m512; 2]; 2],
    offsets: Option<[__m512; 2]>,
}

impl PanelScales {
    /// The scales of a span, without their factors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn of_span(lines: &[ByteLine], layout: PanelLayout) -> Self {
        Self { groups: [halves(&lines[0]); 2], offsets: if layout.offsets { Some(halves(&lines[1])) } else { None } }
    }

    /// The scales of a step of the span, with the factors in its last line, if it has any.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn of_step(mut self, small: &[ByteLine], layout: PanelLayout) -> Self {
        let [line, ..] = small else { return self };
        prefetch(line);
        let small = line.0.as_chunks().0;
        if layout.factors {
            self.groups[0] = times(self.groups[0], small[0]);
            self.groups[1] = times(self.groups[1], small[1]);
        }
        if let Some(offsets) = &mut self.offsets
            && layout.offset_factors
        {
            *offsets = times(*offsets, small[1]);
        }
        self
    }
}

/// Adds the products of a step to the sums of `N` rows and returns `N`. Four rows have enough products under way to keep the processor
/// busy.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_step<const FORM: usize, const N: usize>(
    values: &[ByteLine],
    inputs: &[QuantizedStep],
    places: &[StepScale],
    scales: &PanelScales,
    totals: &mut [[__m512; 2]],
) -> usize {
    let (inputs, places): (&[QuantizedStep; N], &[StepScale; N]) = (first(inputs), first(places));
    for group in 0..if FORM == SHORT { 2 } else { 1 } {
        let lifts = places.each_ref().map(|place| match FORM {
            NIBBLES => 0,
            BYTES => place.lifts[2],
            _ => place.lifts[group],
        });
        let dots = match (FORM, group) {
            (NIBBLES, _) => nibbles(first(values), inputs),
            (SHORT, 0) => bytes::<0, { QUADS / 2 }, N>(first(values), inputs, lifts),
            (SHORT, _) => bytes::<{ QUADS / 2 }, QUADS, N>(first(values), inputs, lifts),
            _ => bytes::<0, QUADS, N>(first(values), inputs, lifts),
        };
        for ((totals, dots), place) in totals.iter_mut().zip(dots).zip(places) {
            let place = _mm512_set1_ps(place.scale);
            for ((total, dot), scale) in totals.iter_mut().zip(dots).zip(scales.groups[group]) {
                *total = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale), place, *total);
            }
        }
    }
    if let Some(offsets) = scales.offsets {
        for (totals, place) in totals.iter_mut().zip(places) {
            let whole = _mm512_set1_ps(place.whole);
            totals.iter_mut().zip(offsets).for_each(|(total, offset)| *total = _mm512_fmadd_ps(offset, whole, *total));
        }
    }
    N
}

/// The sums of products with weights of four bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibbles<const N: usize>(lines: &[ByteLine; QUADS], inputs: &[QuantizedStep; N]) -> [[__m512i; 2]; N] {
    let lowest = _mm512_set1_epi8(15);
    let mut dots = Dots::new([0; N]);
    for i in 0..QUADS / 2 {
        let both = [fetch(&lines[i]), fetch(&lines[QUADS / 2 + i])];
        dots.add(both.map(|both| _mm512_and_si512(both, lowest)), inputs, 2 * i);
        dots.add(both.map(|both| _mm512_and_si512(_mm512_srli_epi16::<4>(both), lowest)), inputs, 2 * i + 1);
    }
    dots.whole()
}

/// The sums of products of the quads from `FROM` up to `TO` with weights of a byte. 128 is added to each weight, so that none is negative;
/// each row's `lift` subtracts what this adds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bytes<const FROM: usize, const TO: usize, const N: usize>(
    lines: &[ByteLine; 2 * QUADS],
    inputs: &[QuantizedStep; N],
    lifts: [i32; N],
) -> [[__m512i; 2]; N] {
    let sign = _mm512_set1_epi8(-128);
    let mut dots = Dots::new(lifts);
    for i in FROM..TO {
        let weights = [fetch(&lines[i]), fetch(&lines[QUADS + i])];
        dots.add(weights.map(|weights| _mm512_xor_si512(weights, sign)), inputs, i);
    }
    dots.whole()
}

/// Sums of products with the high inputs of each row and with the low ones.
struct Dots<const N: usize> {
    high: [[__m512i; 2]; N],
    low: [[__m512i; 2]; N],
}

impl<const N: usize> Dots<N> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn new(low: [i32; N]) -> Self {
        Self { high: [[_mm512_setzero_si512(); 2]; N], low: low.map(|low| [_mm512_set1_epi32(low); 2]) }
    }

    /// Adds the products of one quad.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add(&mut self, weights: [__m512i; 2], inputs: &[QuantizedStep; N], quad: usize) {
        for ((inputs, high), low) in inputs.iter().zip(&mut self.high).zip(&mut self.low) {
            let x = [inputs.high[quad], inputs.low[quad]].map(|x| _mm512_set1_epi32(x.cast_signed()));
            for half in 0..2 {
                high[half] = _mm512_dpbusd_epi32(high[half], weights[half], x[0]);
                low[half] = _mm512_dpbusd_epi32(low[half], weights[half], x[1]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn whole(mut self) -> [[__m512i; 2]; N] {
        for (low, high) in self.low.iter_mut().zip(self.high) {
            low.iter_mut().zip(high).for_each(|(low, high)| *low = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), *low));
        }
        self.low
    }
}

/// 32 numbers of f16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn halves(line: &ByteLine) -> [__m512; 2] {
    prefetch(line);
    // SAFETY: both are of one size, and all bits are values.
    unsafe { transmute::<[u8; 64], [__m256i; 2]>(line.0) }.map(|halves| _mm512_cvtph_ps(halves))
}

/// 32 numbers times their factors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn times(large: [__m512; 2], small: [u8; PANEL]) -> [__m512; 2] {
    // SAFETY: as above.
    let [first, second] =
        unsafe { transmute::<[u8; PANEL], [__m128i; 2]>(small) }.map(|factors| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(factors)));
    [_mm512_mul_ps(large[0], first), _mm512_mul_ps(large[1], second)]
}

/// The first `N` of a slice that has at least as many.
#[inline(always)]
fn first<T, const N: usize>(all: &[T]) -> &[T; N] {
    all.first_chunk().expect("a step holds all that belongs to it")
}

/// A line of values.
#[inline(always)]
fn fetch(line: &ByteLine) -> __m512i {
    prefetch(line);
    // SAFETY: both are of one size, and all bits are values.
    unsafe { transmute::<[u8; 64], __m512i>(line.0) }
}

/// Prefetches the weights that come [`AHEAD`] lines after `line`.
#[inline(always)]
fn prefetch(line: &ByteLine) {
    // SAFETY: every x86-64 processor has the instruction, and a prefetch reads nothing, wherever it points.
    unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *line).wrapping_add(AHEAD).cast()) };
}
