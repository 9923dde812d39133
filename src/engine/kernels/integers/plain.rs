//! Sums of products in plain loops, for processors without the instructions of the other files.

use super::{Block, PAIRS, PANEL, ROWS, STEP, size};

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: Block<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    let Block { weights, lanes, .. } = block;
    let mut pairs = [[0_i16; 2 * PANEL]; PAIRS];
    let pairs = &mut pairs[..weights.group / 2];
    sums[..rows].iter_mut().for_each(|sums| sums.fill(0.0));
    for (group, values) in weights.values.chunks_exact(size(weights.group, weights.nibbles)).enumerate() {
        widen(values, weights.nibbles, pairs);
        let (step, first) = (group * weights.group / STEP, group * weights.group % STEP / 2);
        for (row, sums) in sums[..rows].iter_mut().enumerate() {
            let place = step * lanes + row;
            let mut dots = [0_i32; PANEL];
            for (x, pair) in block.pairs[place * PAIRS + first..].iter().zip(&*pairs) {
                let (x, y) = (i32::from(*x as u16 as i16), i32::from((*x >> 16) as u16 as i16));
                for (dot, [even, odd]) in dots.iter_mut().zip(pair.as_chunks().0) {
                    *dot += x * i32::from(*even) + y * i32::from(*odd);
                }
            }
            for ((sum, dot), scale) in sums.iter_mut().zip(&dots).zip(&weights.scales[group]) {
                *sum = (*dot as f32 * scale).mul_add(block.scales[place], *sum);
            }
            if let Some(offsets) = weights.offsets.get(group) {
                let whole = block.scales[place] * block.sums[place];
                sums.iter_mut().zip(offsets).for_each(|(sum, offset)| *sum = offset.mul_add(whole, *sum));
            }
        }
    }
}

/// The values of a group in 16 bits, pair by pair.
fn widen(values: &[u8], nibbles: bool, pairs: &mut [[i16; 2 * PANEL]]) {
    if nibbles {
        for (words, pairs) in values.as_chunks::<{ 4 * PANEL }>().0.iter().zip(pairs.as_chunks_mut::<4>().0) {
            for (i, word) in words.as_chunks().0.iter().enumerate() {
                let word = u16::from_le_bytes(*word);
                pairs.iter_mut().enumerate().for_each(|(nibble, pair)| pair[i] = (word >> (4 * nibble) & 15).cast_signed());
            }
        }
    } else {
        for (values, pair) in values.as_chunks::<{ 2 * PANEL }>().0.iter().zip(pairs) {
            pair.iter_mut().zip(values).for_each(|(wide, value)| *wide = i16::from(value.cast_signed()));
        }
    }
}
