//! Products in whole numbers in plain loops, for processors without the instructions of the other files.

use super::layout::{ByteLine, widen};
use super::{IntegerBlock, PANEL, QUAD, QUADS, ROWS, STEP};

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    let IntegerBlock { weights, lanes, .. } = block;
    let layout = weights.layout;
    let mut wide = [[0_i16; QUAD * PANEL]; QUADS];
    sums[..rows].iter_mut().for_each(|sums| sums.fill(0.0));
    let mut steps = block.inputs.chunks_exact(lanes).zip(block.scales.chunks_exact(lanes));
    for span in weights.lines.chunks_exact(layout.span()) {
        for (lines, (inputs, places)) in span[layout.before()..].chunks_exact(layout.step()).zip(&mut steps) {
            let (values, small) = lines.split_at(layout.values());
            let small = |second: usize| &small[0].0.as_chunks().0[second];
            unpack(values, layout.nibbles, &mut wide);
            let offsets = layout.offsets.then(|| widen(&span[1], layout.offset_factors.then(|| small(1))));
            for group in 0..STEP / layout.group {
                let scales = widen(&span[0], layout.factors.then(|| small(group)));
                let quads = group * layout.group / QUAD..(group + 1) * layout.group / QUAD;
                for ((inputs, place), sums) in inputs.iter().zip(places).zip(&mut sums[..rows]) {
                    let mut dots = [0_i32; PANEL];
                    for quad in quads.clone() {
                        let x: [i32; QUAD] = std::array::from_fn(|i| i32::from(inputs.value(quad * QUAD + i)));
                        for (dot, weights) in dots.iter_mut().zip(wide[quad].as_chunks::<QUAD>().0) {
                            *dot += x.iter().zip(weights).map(|(x, weight)| x * i32::from(*weight)).sum::<i32>();
                        }
                    }
                    for ((sum, dot), scale) in sums.iter_mut().zip(&dots).zip(&scales) {
                        *sum = (*dot as f32 * scale).mul_add(place.scale, *sum);
                    }
                }
            }
            for (place, sums) in places.iter().zip(&mut sums[..rows]) {
                for (sum, offset) in sums.iter_mut().zip(offsets.iter().flatten()) {
                    *sum = offset.mul_add(place.whole, *sum);
                }
            }
        }
    }
}

/// The values of a step in 16 bits: by four inputs, those of each output.
fn unpack(lines: &[ByteLine], nibbles: bool, wide: &mut [[i16; QUAD * PANEL]; QUADS]) {
    let size = QUAD * PANEL / 2;
    for (half, lines) in lines.chunks_exact(lines.len() / 2).enumerate() {
        for (quad, wide) in wide.iter_mut().enumerate() {
            let wide = &mut wide[half * size..][..size];
            if nibbles {
                let shift = quad % 2 * 4;
                wide.iter_mut().zip(&lines[quad / 2].0).for_each(|(wide, value)| *wide = i16::from(value >> shift & 15));
            } else {
                wide.iter_mut().zip(&lines[quad].0).for_each(|(wide, value)| *wide = i16::from(value.cast_signed()));
            }
        }
    }
}
