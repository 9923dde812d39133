use super::*;
use crate::integers::GroupScales;
use crate::{add_bias, gate, gelu};

fn number(i: usize) -> f32 {
    (i * 7919 % 1009) as f32 / 1009.0 - 0.5
}

/// Weights of a byte each, all of scale 1/128.
fn bytes(count: usize, inputs: usize) -> Quantized {
    let scales = GroupScales { large: vec![0x2000; count / 32], small: Vec::new() };
    let values = (0..count).map(|i| (i * 37 % 251) as u8 as i8).collect();
    Quantized { values, nibbles: false, scales, offsets: None, inputs, group: 32 }
}

#[test]
fn products_agree_with_plain_loops_for_any_sizes() {
    for (rows, inputs, outputs) in
        [(1, 8_usize, 5), (3, 33, 100), (40, 7, 64), (300, 64, 70), (33, 1100, 33), (5, 353, 70), (19, 320, 70)]
    {
        for kind in ["wide", "half", "whole"] {
            if kind == "whole" && !inputs.is_multiple_of(integers::STEP) {
                continue;
            }
            let mut weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
            let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
            // What the product is of: tiles round their inputs.
            let mut read = input.clone();
            let halves: Vec<u16> = weights.iter().map(|w| (w.to_bits() >> 16) as u16).collect();
            let packed = match kind {
                "half" => {
                    weights.iter_mut().zip(&halves).for_each(|(w, half)| *w = f32::from_bits(u32::from(*half) << 16));
                    if matrix_unit::uses_bf16(inputs) {
                        read.iter_mut().for_each(|x| *x = f32::from_bits(u32::from(bf16::nearest(*x)) << 16));
                    }
                    PackedMatrix::from_bf16(&halves, inputs)
                }
                "whole" => {
                    let quantized = bytes(weights.len(), inputs);
                    weights.iter_mut().zip(&quantized.values).for_each(|(weight, value)| *weight = f32::from(*value) / 128.0);
                    PackedMatrix::from_quantized(&quantized)
                }
                _ => PackedMatrix::from_f32(&weights, inputs),
            };
            let width = outputs + 3;
            for (accumulate, before) in [(Accumulate::Overwrite, 0.0), (Accumulate::Add, 2.0)] {
                let mut output = vec![2.0; rows * width];
                let parallelism =
                    if accumulate == Accumulate::Overwrite { Parallelism::Pool } else { Parallelism::CallingThread };
                let target = Target { values: &mut output, width, column: 2, accumulate };
                packed.multiply(&Activations::new(&input, inputs, parallelism), target);
                for (i, got) in output.iter().enumerate() {
                    let (row, column) = (i / width, i % width);
                    let expected = if (2..2 + outputs).contains(&column) {
                        let product = |k: usize| f64::from(read[row * inputs + k] * weights[(column - 2) * inputs + k]);
                        before + (0..inputs).map(product).sum::<f64>()
                    } else {
                        2.0
                    };
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error < if kind == "whole" { 2e-4 } else { 1e-4 } * expected.abs().max(1.0),
                        "{kind}, row {row}, column {column} of {rows}x{inputs}x{outputs}: {got} for {expected}"
                    );
                }
            }
            let mut row = vec![0.0; inputs];
            packed.row(outputs - 1, &mut row);
            assert_eq!(row, weights[(outputs - 1) * inputs..], "the last output's weights");
        }
    }
}

#[test]
fn products_of_rounded_rows_are_those_of_the_rows() {
    if !matrix_unit::uses_bf16(BF16_MIN_INPUTS) {
        eprintln!("this processor does not multiply bf16: no rows are rounded here");
        return;
    }
    for (rows, inputs, outputs) in [(1, 320, 32), (37, 352, 96), (70, 2208, 64)] {
        let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
        let bias: Vec<f32> = (0..outputs).map(|i| number(i + 9)).collect();
        let packed = PackedMatrix::from_f32_rounded(&weights, inputs);
        let mut expected = vec![0.0; rows * outputs];
        let target = Target { values: &mut expected, width: outputs, column: 0, accumulate: Accumulate::Overwrite };
        packed.multiply(&Activations::new(&input, inputs, Parallelism::Pool), target);
        let mut tiles = Tiles::default();
        tiles.reserve(rows, inputs / STEP);
        input.chunks(inputs).enumerate().for_each(|(row, values)| tiles.round(row, values));
        let mut got = vec![f32::NAN; rows * outputs];
        packed.multiply_tiled(&tiles, &mut got);
        assert_eq!(got, expected, "{rows} rows of {inputs} inputs");
        for (function, error) in [(ActivationFunction::Identity, 1e-6), (ActivationFunction::Gelu, 1e-4)] {
            let mut output = Tiles::new(rows, outputs);
            packed.multiply_rounded(&tiles, &bias, function, &mut output);
            let mut expected = expected.clone();
            match function {
                ActivationFunction::Identity => add_bias(&mut expected, &bias),
                ActivationFunction::Gelu => gelu(&mut expected, &bias),
            }
            for (row, expected) in expected.chunks(outputs).enumerate() {
                for (got, expected) in output.row(row).iter().zip(expected) {
                    assert!((got - expected).abs() <= expected.abs() / 200.0 + error, "{function:?}: {got} for {expected}");
                }
            }
        }
    }
}

#[test]
fn gated_products_are_those_of_the_rows() {
    if !matrix_unit::uses_bf16(BF16_MIN_INPUTS) {
        eprintln!("this processor does not multiply bf16: nothing is gated as it is rounded here");
        return;
    }
    let (rows, inputs, inner) = (77, 352, 96);
    let weights = |seed: usize| (0..inputs * inner).map(|i| 8.0 * number(i + seed)).collect::<Vec<_>>();
    let [gates, values] = [0, 11].map(|seed| PackedMatrix::from_f32_rounded(&weights(seed), inputs));
    let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
    let input = Activations::new(&input, inputs, Parallelism::Pool);
    let product = |matrix: &PackedMatrix, input: &Activations<'_>| {
        let mut values = vec![0.0; rows * matrix.outputs()];
        let target = Target { values: &mut values, width: matrix.outputs(), column: 0, accumulate: Accumulate::Overwrite };
        matrix.multiply(input, target);
        values
    };
    let wide = [&gates, &values].map(|matrix| product(matrix, &input));
    let mut expected = vec![0.0; rows * inner];
    let both: Vec<f32> = wide[0].chunks(inner).zip(wide[1].chunks(inner)).flat_map(|(a, b)| [a, b].concat()).collect();
    gate(&both, &mut expected, inner);
    let gated = gates.gate(&values, &input);
    for (row, expected) in expected.chunks(inner).enumerate() {
        for (got, expected) in gated.tiles().row(row).iter().zip(expected) {
            assert!((got - expected).abs() <= expected.abs() / 200.0 + 1e-6, "row {row}: {got} for {expected}");
        }
    }
}

#[test]
fn a_row_comes_to_the_same_bits_whatever_rows_are_beside_it() {
    let (rows, inputs, outputs) = (37, 352, 70);
    let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
    let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
    let whole = PackedMatrix::from_quantized(&bytes(weights.len(), inputs));
    for packed in [PackedMatrix::from_f32(&weights, inputs), PackedMatrix::from_f32_rounded(&weights, inputs), whole] {
        let product = |input: &[f32]| {
            let mut values = vec![0.0; input.len() / inputs * outputs];
            let target = Target { values: &mut values, width: outputs, column: 0, accumulate: Accumulate::Overwrite };
            packed.multiply(&Activations::new(input, inputs, Parallelism::Pool), target);
            values
        };
        let together = product(&input);
        for (row, input) in input.chunks_exact(inputs).enumerate() {
            let alone: Vec<u32> = product(input).into_iter().map(f32::to_bits).collect();
            let beside: Vec<u32> = together[row * outputs..][..outputs].iter().map(|value| value.to_bits()).collect();
            assert_eq!(alone, beside, "row {row}");
        }
    }
}
