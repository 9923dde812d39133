//! Products of bf16 weights in the tile registers (AMX) that newer x86 servers have: sixteen times the work of vector registers.
//!
//! The unit multiplies bf16 by bf16 and adds up in f32. Inputs are f32, so each is taken as the sum of two bf16 numbers, which
//! leaves a relative error of 2⁻¹⁷ at most; the weights are what the checkpoint holds. A row's sums are the same bits whatever rows
//! are multiplied beside it.
//!
//! ```text
//! inputs     16 rows × 32 inputs: the rows' upper terms in one tile, the lower terms in the next
//! weights    a panel as it is: 16 pairs of inputs × 16 outputs, twice
//! sums       up to 32 rows × 32 outputs in four tiles
//! ```

use std::ops::Range;

use multiversion::multiversion;

use super::panel::PANEL;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Inputs that one step takes; panels are padded to whole steps with zeros.
pub(super) const STEP: usize = 32;

/// Rows that one pass over a panel serves.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// Steps that a block of rows is taken through at once: with more, the block would not stay in the second cache.
const STEPS_AT_ONCE: usize = 32;

/// Values of the tiles of one step: upper and lower terms.
const STEP_VALUES: usize = 2 * TILE_ROWS * STEP;

/// Inputs as tiles: sixteen rows after sixteen rows, step after step.
pub(super) struct Tiles {
    values: Vec<u16>,
    /// Values of sixteen rows.
    group: usize,
}

impl Tiles {
    /// Room for `rows` rows of `depth` inputs.
    pub(super) fn new(rows: usize, depth: usize) -> Self {
        let group = depth.div_ceil(STEP) * STEP_VALUES;
        Self { values: vec![0; rows.div_ceil(TILE_ROWS) * group], group }
    }

    /// The inputs of a row in ranges of steps that rows are taken through at once.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let steps = self.group / STEP_VALUES;
        // As even as may be: a short last range would spend its time on moving sums.
        let size = steps.div_ceil(steps.div_ceil(STEPS_AT_ONCE).max(1)).max(1);
        (0..steps).step_by(size).map(move |first| first..steps.min(first + size))
    }

    /// The places of sixteen rows each, for [`split`].
    pub(super) fn groups(&mut self) -> std::slice::ChunksExactMut<'_, u16> {
        self.values.chunks_exact_mut(self.group)
    }
}

/// Writes up to sixteen rows of `depth` inputs to their tiles.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma"))]
pub(super) fn split(rows: &[f32], depth: usize, group: &mut [u16]) {
    for (row, inputs) in rows.chunks_exact(depth).enumerate() {
        for (inputs, tiles) in inputs.chunks(STEP).zip(group.chunks_exact_mut(STEP_VALUES)) {
            let (upper, lower) = tiles.split_at_mut(TILE_ROWS * STEP);
            let (upper, lower) = (&mut upper[row * STEP..][..STEP], &mut lower[row * STEP..][..STEP]);
            for ((x, upper), lower) in inputs.iter().zip(upper).zip(lower) {
                let high = rounded(*x);
                *upper = (high.to_bits() >> 16) as u16;
                *lower = (rounded(*x - high).to_bits() >> 16) as u16;
            }
        }
    }
}

/// The nearest number with eight significant bits, ties to even.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Sums of up to 32 rows with one panel.
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[f32; PANEL]; BLOCK_ROWS]);

impl Default for Sums {
    fn default() -> Self {
        Self([[0.0; PANEL]; BLOCK_ROWS])
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use amx::{available, multiply_tiles};

/// Whether this processor has the unit.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn available() -> bool {
    false
}

/// Never called where there is no such unit.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn multiply_tiles(_: &Tiles, _: Range<usize>, _: &Range<usize>, _: &[u16], _: &mut Sums) {
    unreachable!("products in tiles on a processor without them")
}

#[cfg(target_arch = "x86_64")]
mod amx {
    #![allow(unsafe_code)]

    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::ops::Range;
    use std::sync::LazyLock;

    use super::{BLOCK_ROWS, STEP, STEP_VALUES, Sums, TILE_ROWS, Tiles};
    use crate::engine::kernels::panel::PANEL;

    /// Whether this processor has the unit and the system lets this process use it.
    pub(in super::super) fn available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_tiles() && may_use_tiles());
        *AVAILABLE
    }

    fn has_tiles() -> bool {
        // AMX-BF16 and AMX-TILE.
        const BITS: u32 = 1 << 22 | 1 << 24;
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 processor has the instruction.
        let leaf = unsafe { if __cpuid(0).eax < 7 { None } else { Some(__cpuid_count(7, 0).edx) } };
        std::arch::is_x86_feature_detected!("avx512f") && leaf.is_some_and(|bits| bits & BITS == BITS)
    }

    /// Linux saves the large registers of a process only after it has been asked to.
    #[cfg(target_os = "linux")]
    fn may_use_tiles() -> bool {
        use nix::libc::{SYS_arch_prctl, c_ulong, syscall};
        const REQUEST_PERMISSION: c_ulong = 0x1023;
        const TILE_DATA: c_ulong = 18;
        // SAFETY: asks for a permission and touches no memory.
        unsafe { syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn may_use_tiles() -> bool {
        false
    }

    /// The shapes of the eight tile registers.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Shapes {
        /// Tiles 0, 1 and 6 have the rows of the first half, 2, 3 and 7 those of the second, 4 and 5 hold weights.
        fn of(first: usize, second: usize) -> Self {
            let (first, second, all) = (first as u8, second.max(1) as u8, TILE_ROWS as u8);
            let mut shapes = Self { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
            shapes.row_bytes[..8].fill(64);
            shapes.rows[..8].copy_from_slice(&[first, first, second, second, all, all, first, second]);
            shapes
        }
    }

    /// Writes to `sums` the products of `rows` with the panel `weights`, as far as the steps in `range` go.
    pub(in super::super) fn multiply_tiles(
        inputs: &Tiles,
        rows: Range<usize>,
        range: &Range<usize>,
        weights: &[u16],
        sums: &mut Sums,
    ) {
        let (first, rows, steps) = (rows.start, rows.len(), range.len());
        let halves = rows.div_ceil(TILE_ROWS);
        let group = first / TILE_ROWS;
        assert!(
            available() && first.is_multiple_of(TILE_ROWS) && (1..=BLOCK_ROWS).contains(&rows),
            "{rows} rows from {first} on"
        );
        assert!(steps > 0 && range.end * STEP_VALUES <= inputs.group, "steps {range:?} reach past the inputs of a row");
        assert!((group + halves) * inputs.group <= inputs.values.len(), "rows reach past the tiles");
        assert!(range.end * STEP * PANEL <= weights.len(), "steps {range:?} reach past the panel");
        let weights = &weights[range.start * STEP * PANEL..];
        let start = group * inputs.group + range.start * STEP_VALUES;
        let shapes = Shapes::of(rows.min(TILE_ROWS), rows.saturating_sub(TILE_ROWS));
        let upper = inputs.values[start..].as_ptr();
        // SAFETY: the processor has the unit, as asserted. All loads lie inside `inputs` and `weights`, as asserted: a step of a row
        // group is 2 KiB long, of the panel too. The stores lie inside `sums`. The registers are given back at the end, and the
        // compiler itself never uses them.
        unsafe {
            if halves == 1 {
                asm!(
                    "ldtilecfg [{shapes}]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{weights} + {long}*1]",
                    "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                    "tileloadd tmm6, [{upper} + {short}*1]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "tileloadd tmm6, [{upper} + {short}*1 + 1024]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "add {weights}, 2048",
                    "add {upper}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {long}*1], tmm0",
                    "tilestored [{sums} + {long}*1 + 64], tmm1",
                    "tilerelease",
                    shapes = in(reg) &raw const shapes,
                    weights = inout(reg) weights.as_ptr() => _,
                    upper = inout(reg) upper => _,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    steps = inout(reg) steps => _,
                    long = in(reg) 128_usize,
                    short = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            } else {
                asm!(
                    "ldtilecfg [{shapes}]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{weights} + {long}*1]",
                    "tileloadd tmm6, [{upper} + {short}*1]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "tileloadd tmm7, [{below} + {short}*1]",
                    "tdpbf16ps tmm2, tmm7, tmm4",
                    "tdpbf16ps tmm3, tmm7, tmm5",
                    "tileloadd tmm6, [{upper} + {short}*1 + 1024]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "tileloadd tmm7, [{below} + {short}*1 + 1024]",
                    "tdpbf16ps tmm2, tmm7, tmm4",
                    "tdpbf16ps tmm3, tmm7, tmm5",
                    "add {weights}, 2048",
                    "add {upper}, 2048",
                    "add {below}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {long}*1], tmm0",
                    "tilestored [{sums} + {long}*1 + 64], tmm1",
                    "tilestored [{second} + {long}*1], tmm2",
                    "tilestored [{second} + {long}*1 + 64], tmm3",
                    "tilerelease",
                    shapes = in(reg) &raw const shapes,
                    weights = inout(reg) weights.as_ptr() => _,
                    upper = inout(reg) upper => _,
                    below = inout(reg) upper.wrapping_add(inputs.group) => _,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    second = in(reg) sums.0[TILE_ROWS..].as_mut_ptr(),
                    steps = inout(reg) steps => _,
                    long = in(reg) 128_usize,
                    short = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_terms_hold_an_input_to_seventeen_bits() {
        let rows: Vec<f32> = (0..3 * 40).map(|i| (i * 7919 % 1009) as f32 / 97.0 - 5.0).collect();
        let mut tiles = Tiles::new(3, 40);
        split(&rows, 40, tiles.groups().next().unwrap());
        for (i, x) in rows.iter().enumerate() {
            let (row, input) = (i / 40, i % 40);
            let place = input / STEP * STEP_VALUES + row * STEP + input % STEP;
            let term = |place: usize| f32::from_bits(u32::from(tiles.values[place]) << 16);
            let error = (term(place) + term(place + TILE_ROWS * STEP) - x).abs();
            assert!(error <= x.abs() / 131_072.0, "input {input} of row {row}: {x} is off by {error:e}");
        }
    }
}
