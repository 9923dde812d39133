//! Products in tile registers (AMX): eight registers of sixteen rows of 64 bytes.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

use crate::cache_line::Bf16Line;
use crate::matrix_unit::{PREFETCH_LINES, Sums};
use crate::processor::{self, Level};
use crate::tiles::{TILE_ROWS, TileBlock};

/// Whether this processor has tile registers and the system lets this process use them.
pub(super) fn available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| processor::allows(Level::Amx) && has_tiles() && may_use_tiles());
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

/// A process must ask Linux for tile registers before it uses them.
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

/// All registers have sixteen rows. Setting shapes anew would cost more than computing rows that a block lacks.
static SHAPES: Shapes = {
    let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        (shapes.row_bytes[register], shapes.rows[register]) = (64, TILE_ROWS as u8);
        register += 1;
    }
    shapes
};

/// Tells that the calling thread's registers have the shapes that [`Ready::multiply`] needs.
pub(super) struct Ready(());

impl Ready {
    /// Sets the shapes.
    ///
    /// # Panics
    /// If the processor has no tile registers.
    pub(super) fn new() -> Self {
        assert!(available(), "tile registers on a processor without them");
        // SAFETY: the processor has tile registers, as asserted, and the shapes are valid.
        unsafe { asm!("ldtilecfg [{shapes}]", shapes = in(reg) &raw const SHAPES, options(nostack, readonly, preserves_flags)) };
        Self(())
    }

    /// Writes the products of `block` to `sums`.
    #[inline]
    pub(super) fn multiply(&self, block: TileBlock<'_>, sums: &mut Sums) {
        const { assert!(PREFETCH_LINES == 4, "the lines below") };
        let TileBlock { inputs, group, step, rows, weights, steps, ahead } = block;
        let above = inputs.as_ptr();
        // SAFETY: the registers have their shapes, because `self` exists. All loads lie inside `inputs` and `weights`, as `Tiles::block` has
        // checked: a tile is 1 KiB long, a step of the panel 2 KiB. The stores lie inside `sums`. A prefetch reads nothing, wherever it
        // points. The compiler itself never uses the registers.
        unsafe {
            if rows <= TILE_ROWS {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{weights} + {long}*1]",
                    "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                    "tileloaddt1 tmm6, [{inputs} + {short}*1]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "prefetcht1 [{ahead}]",
                    "prefetcht1 [{ahead} + 64]",
                    "prefetcht1 [{ahead} + 128]",
                    "prefetcht1 [{ahead} + 192]",
                    "add {ahead}, 256",
                    "add {weights}, 2048",
                    "add {inputs}, {step}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {long}*1], tmm0",
                    "tilestored [{sums} + {long}*1 + 64], tmm1",
                    weights = inout(reg) weights.as_ptr() => _,
                    inputs = inout(reg) above => _,
                    ahead = inout(reg) ahead.as_ptr() => _,
                    step = in(reg) step * size_of::<Bf16Line>(),
                    sums = in(reg) sums.0.as_mut_ptr(),
                    steps = inout(reg) steps => _,
                    long = in(reg) 128_usize,
                    short = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{weights} + {long}*1]",
                    "tileloaddt1 tmm6, [{inputs} + {short}*1]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "tileloaddt1 tmm7, [{below} + {short}*1]",
                    "tdpbf16ps tmm2, tmm7, tmm4",
                    "tdpbf16ps tmm3, tmm7, tmm5",
                    "prefetcht1 [{ahead}]",
                    "prefetcht1 [{ahead} + 64]",
                    "prefetcht1 [{ahead} + 128]",
                    "prefetcht1 [{ahead} + 192]",
                    "add {ahead}, 256",
                    "add {weights}, 2048",
                    "add {inputs}, {step}",
                    "add {below}, {step}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {long}*1], tmm0",
                    "tilestored [{sums} + {long}*1 + 64], tmm1",
                    "tilestored [{second} + {long}*1], tmm2",
                    "tilestored [{second} + {long}*1 + 64], tmm3",
                    weights = inout(reg) weights.as_ptr() => _,
                    inputs = inout(reg) above => _,
                    ahead = inout(reg) ahead.as_ptr() => _,
                    below = inout(reg) above.wrapping_add(group) => _,
                    step = in(reg) step * size_of::<Bf16Line>(),
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

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: the processor has tile registers, because `self` was made. Without the release every switch of threads would save them.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
