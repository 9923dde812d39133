//! Tile registers: eight of sixteen rows of 64 bytes.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

use super::{Block, Sums, TILE_ROWS};
use crate::engine::kernels::processor::{self, Level};

/// Whether this processor has the unit and the system lets this process use it.
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

/// Writes the products of `block` to `sums`.
pub(super) fn multiply(block: Block<'_>, sums: &mut Sums) {
    let Block { inputs, group, rows, weights, steps } = block;
    assert!(available(), "tile registers on a processor without them");
    let shapes = Shapes::of(rows.min(TILE_ROWS), rows.saturating_sub(TILE_ROWS));
    let above = inputs.as_ptr();
    // SAFETY: the processor has the unit, as asserted. All loads lie inside `inputs` and `weights`, as the block's
    // maker has checked: a step of sixteen rows is 1 KiB long, of the panel 2 KiB. The stores lie inside `sums`. The registers are given back at the end, and the
    // compiler itself never uses them.
    unsafe {
        if rows <= TILE_ROWS {
            asm!(
                "ldtilecfg [{shapes}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{weights} + {long}*1]",
                "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                "tileloadd tmm6, [{inputs} + {short}*1]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "add {weights}, 2048",
                "add {inputs}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {long}*1], tmm0",
                "tilestored [{sums} + {long}*1 + 64], tmm1",
                "tilerelease",
                shapes = in(reg) &raw const shapes,
                weights = inout(reg) weights.as_ptr() => _,
                inputs = inout(reg) above => _,
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
                "tileloadd tmm6, [{inputs} + {short}*1]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tileloadd tmm5, [{weights} + {long}*1 + 64]",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "tileloadd tmm7, [{below} + {short}*1]",
                "tdpbf16ps tmm2, tmm7, tmm4",
                "tdpbf16ps tmm3, tmm7, tmm5",
                "add {weights}, 2048",
                "add {inputs}, 1024",
                "add {below}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {long}*1], tmm0",
                "tilestored [{sums} + {long}*1 + 64], tmm1",
                "tilestored [{second} + {long}*1], tmm2",
                "tilestored [{second} + {long}*1 + 64], tmm3",
                "tilerelease",
                shapes = in(reg) &raw const shapes,
                weights = inout(reg) weights.as_ptr() => _,
                inputs = inout(reg) above => _,
                below = inout(reg) above.wrapping_add(group) => _,
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
