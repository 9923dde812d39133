//! Products in whole numbers against f64, and all ways to compute them against each other.

use super::*;

fn numbers(count: usize, seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9) + count as u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The bits in f16 of a number that f16 holds, from 2^-14 on.
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let half = (bits >> 16 & 0x8000) | ((bits >> 13 & 0x3_ffff).wrapping_sub(112 << 10) & 0x7fff);
    assert_eq!(single(half as u16), number, "a number of f16");
    half as u16
}

#[derive(Debug, Clone, Copy)]
struct Form {
    nibbles: bool,
    group: usize,
    /// Groups that share a scale, the factors being their own; 0 for none.
    several: usize,
    offsets: bool,
}

/// Those of Q8_0, Q6_K, Q5_1, Q4_0, Q4_1, Q4_K and Q5_K.
const FORMS: [Form; 7] = [
    Form { nibbles: false, group: 32, several: 0, offsets: false },
    Form { nibbles: false, group: 16, several: 16, offsets: false },
    Form { nibbles: false, group: 32, several: 0, offsets: true },
    Form { nibbles: true, group: 32, several: 1, offsets: true },
    Form { nibbles: true, group: 32, several: 0, offsets: true },
    Form { nibbles: true, group: 32, several: 8, offsets: true },
    Form { nibbles: false, group: 32, several: 8, offsets: true },
];

/// Random weights and what they are in f32.
fn weights(form: Form, inputs: usize, outputs: usize) -> (Quantized, Vec<f32>) {
    let Form { nibbles, group, several, offsets } = form;
    let mut next = numbers(inputs, outputs as u32);
    let groups = inputs * outputs / group;
    let mut measures = || GroupScales {
        large: (0..groups / several.max(1)).map(|_| half((next() * 100.0).round() / 1024.0 + 0.25)).collect(),
        small: (0..if several > 0 { groups } else { 0 }).map(|_| (next() * 63.0) as i8).collect(),
    };
    let (scales, offsets) = (measures(), offsets.then(measures));
    let values: Vec<i8> =
        (0..inputs * outputs).map(|_| if nibbles { (next() * 8.0 + 8.0) as i8 } else { (next() * 128.0) as i8 }).collect();
    let wide = values.iter().enumerate().map(|(i, value)| {
        let offset = offsets.as_ref().map_or(0.0, |offsets| offsets.at(i / group));
        f32::from(*value) * scales.at(i / group) + offset
    });
    let wide = wide.collect();
    (Quantized { values, nibbles, scales, offsets, inputs, group }, wide)
}

fn levels(input: &[f32], depth: usize) -> QuantizedRows {
    let mut levels = QuantizedRows::new(input.len() / depth, depth);
    levels.blocks().zip(input.chunks(ROWS * depth)).for_each(|(places, rows)| round(rows, depth, places));
    levels
}

/// The sums of all rows with the outputs of the panel `index`, computed by `multiply`.
fn sums(
    panels: &QuantizedPanels,
    depth: usize,
    input: &[f32],
    index: usize,
    multiply: impl Fn(IntegerBlock<'_>, usize, &mut [[f32; PANEL]; ROWS]),
) -> Vec<[f32; PANEL]> {
    let levels = levels(input, depth);
    let (mut block, mut all) = ([[f32::NAN; PANEL]; ROWS], Vec::new());
    let rows = input.len() / depth;
    for first in (0..rows).step_by(ROWS) {
        let (inputs, count) = levels.block(first / ROWS, panels.weights(index));
        multiply(inputs, count, &mut block);
        all.extend_from_slice(&block[..count]);
    }
    all
}

#[test]
fn products_agree_with_plain_loops_for_any_form_and_size() {
    for form in FORMS {
        for (rows, inputs, outputs) in [(1, 256, 5), (3, 512, 33), (19, 768, 64)] {
            let (quantized, wide) = weights(form, inputs, outputs);
            let panels = QuantizedPanels::new(&quantized);
            let mut next = numbers(rows, 3);
            let input: Vec<f32> = (0..rows * inputs).map(|i| next() * [0.01, 1.0, 40.0][i / STEP % 3]).collect();
            for output in 0..outputs {
                let mut row = vec![0.0; inputs];
                panels.row(output / PANEL, output % PANEL, &mut row);
                assert_eq!(row, wide[output * inputs..][..inputs], "{form:?}: the weights of output {output} of {outputs}");
            }
            for index in 0..outputs.div_ceil(PANEL) {
                let got = sums(&panels, inputs, &input, index, multiply);
                for (row, got) in got.iter().enumerate() {
                    for (i, got) in got.iter().enumerate().take(outputs - index * PANEL) {
                        let weights = &wide[(index * PANEL + i) * inputs..][..inputs];
                        let products = input[row * inputs..].iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let (exact, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                        let error = (f64::from(*got) - exact).abs() / size;
                        assert!(error < 1e-5, "{form:?}, row {row} of {rows}, output {i}: {got} for {exact}, off by {error:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_way_to_compute_gives_the_same_bits() {
    for form in FORMS {
        for rows in 1..=ROWS + 1 {
            let panels = QuantizedPanels::new(&weights(form, 512, 40).0);
            let mut next = numbers(rows, 7);
            let input: Vec<f32> = (0..rows * 512).map(|_| next()).collect();
            let bits = |sums: Vec<[f32; PANEL]>| sums.iter().flatten().map(|sum| sum.to_bits()).collect::<Vec<_>>();
            let expected = bits(sums(&panels, 512, &input, 1, plain::multiply));
            assert_eq!(
                bits(sums(&panels, 512, &input, 1, multiply)),
                expected,
                "{form:?}, {rows} rows: the way of this processor"
            );
            #[cfg(target_arch = "x86_64")]
            if avx2::available() {
                assert_eq!(bits(sums(&panels, 512, &input, 1, avx2::multiply)), expected, "{form:?}, {rows} rows: 256 bits");
            }
            #[cfg(target_arch = "x86_64")]
            if vectors::available() {
                assert_eq!(bits(sums(&panels, 512, &input, 1, vectors::multiply)), expected, "{form:?}, {rows} rows: 512 bits");
            }
            let alone = input.chunks_exact(512).flat_map(|row| bits(sums(&panels, 512, row, 1, multiply)));
            assert_eq!(alone.collect::<Vec<_>>(), expected, "{form:?}: each of {rows} rows alone");
        }
    }
}

#[test]
fn numbers_of_f16_are_widened_exactly() {
    for bits in 0..=u16::MAX {
        let (got, exact) = (single(bits), half::f16::from_bits(bits).to_f32());
        assert!(got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(), "{bits:#06x}: expected {exact}, got {got}");
    }
}
