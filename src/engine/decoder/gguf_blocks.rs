//! The block formats of GGUF files: blocks are unpacked into integers with a scale and an offset for each group of them.

use candle_core::quantized::GgmlDType;

use tidemill_kernels::{GroupScales, Quantized};

/// Blocks of K formats hold this many values.
const LARGE: usize = 256;

/// Blocks of the older formats hold this many.
const SMALL: usize = 32;

/// How a format's blocks are laid out.
struct BlockFormat {
    /// Bytes of a block.
    bytes: usize,
    /// Values of a block, which share a scale, or one of its factors.
    values: usize,
    /// Values that share a scale and an offset.
    group: usize,
    /// Whether values are from 0 to 15.
    nibbles: bool,
    /// Whether scales have a factor for each group.
    factors: bool,
    offsets: Offsets,
    unpack: fn(&[u8], &mut BlockParts<'_>),
}

/// What is added to each group's values.
#[derive(PartialEq)]
enum Offsets {
    None,
    /// A number a block.
    Plain,
    /// A number a block, with a factor for each group.
    Factors,
}

/// Where the parts of one block go.
struct BlockParts<'a> {
    values: &'a mut [i8],
    scale: &'a mut u16,
    /// A factor of the scale for each group, where the format has any.
    factors: &'a mut [i8],
    offset: &'a mut u16,
    /// As the factors of the scale.
    offset_factors: &'a mut [i8],
}

/// Unpacks rows of `inputs` values; none if the format is not supported.
pub(super) fn unpack(dtype: GgmlDType, bytes: &[u8], inputs: usize) -> Option<Quantized> {
    use Offsets::{Factors, None as Never, Plain};
    let small = |bytes, nibbles, offsets, unpack| BlockFormat {
        bytes,
        values: SMALL,
        group: SMALL,
        nibbles,
        factors: false,
        offsets,
        unpack,
    };
    let large = |bytes, group, nibbles, offsets, unpack| BlockFormat {
        bytes,
        values: LARGE,
        group,
        nibbles,
        factors: true,
        offsets,
        unpack,
    };
    let format = match dtype {
        GgmlDType::Q4_0 => small(18, true, Factors, q4_0),
        GgmlDType::Q4_1 => small(20, true, Plain, q4_1),
        GgmlDType::Q5_0 => small(22, false, Never, q5_0),
        GgmlDType::Q5_1 => small(24, false, Plain, q5_1),
        GgmlDType::Q8_0 => small(34, false, Never, q8_0),
        GgmlDType::Q4K => large(144, 32, true, Factors, q4_k),
        GgmlDType::Q5K => large(176, 32, false, Factors, q5_k),
        GgmlDType::Q6K => large(210, 16, false, Never, q6_k),
        _ => return None,
    };
    let blocks = bytes.len() / format.bytes;
    let groups = format.values / format.group;
    let mut values = vec![0; blocks * format.values];
    let measures = |factors| GroupScales { large: vec![0; blocks], small: vec![0; if factors { blocks * groups } else { 0 }] };
    let (mut scales, mut offsets) = (measures(format.factors), measures(format.offsets == Factors));
    for (i, bytes) in bytes.chunks_exact(format.bytes).enumerate() {
        let mut block = BlockParts {
            values: &mut values[i * format.values..][..format.values],
            scale: &mut scales.large[i],
            factors: if format.factors { &mut scales.small[i * groups..][..groups] } else { &mut [] },
            offset: &mut offsets.large[i],
            offset_factors: if format.offsets == Factors { &mut offsets.small[i * groups..][..groups] } else { &mut [] },
        };
        (format.unpack)(bytes, &mut block);
    }
    let offsets = (format.offsets != Never).then_some(offsets);
    Some(Quantized { values, nibbles: format.nibbles, scales, offsets, inputs, group: format.group })
}

/// The bits of the f16 number at `place`.
fn number(bytes: &[u8], place: usize) -> u16 {
    u16::from_le_bytes([bytes[place], bytes[place + 1]])
}

/// The sign of a number of f16.
const SIGN: u16 = 0x8000;

/// Unpacks the low halves of all bytes, then the high ones. Each value gets its bit of `high` as the fifth.
fn halves(low: &[u8], high: u32, centre: i8, values: &mut [i8]) {
    for (i, byte) in low.iter().enumerate() {
        let bit = |i: usize| (high.checked_shr(i as u32).unwrap_or(0) as u8 & 1) << 4;
        values[i] = (byte & 15 | bit(i)) as i8 - centre;
        values[i + low.len()] = (byte >> 4 | bit(i + low.len())) as i8 - centre;
    }
}

fn q4_0(bytes: &[u8], block: &mut BlockParts<'_>) {
    // The offset is minus eight times the scale.
    (*block.scale, *block.offset, block.offset_factors[0]) = (number(bytes, 0), number(bytes, 0), -8);
    halves(&bytes[2..], 0, 0, block.values);
}

fn q4_1(bytes: &[u8], block: &mut BlockParts<'_>) {
    (*block.scale, *block.offset) = (number(bytes, 0), number(bytes, 2));
    halves(&bytes[4..], 0, 0, block.values);
}

fn q5_0(bytes: &[u8], block: &mut BlockParts<'_>) {
    *block.scale = number(bytes, 0);
    halves(&bytes[6..], u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]), 16, block.values);
}

fn q5_1(bytes: &[u8], block: &mut BlockParts<'_>) {
    (*block.scale, *block.offset) = (number(bytes, 0), number(bytes, 2));
    halves(&bytes[8..], u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]), 0, block.values);
}

fn q8_0(bytes: &[u8], block: &mut BlockParts<'_>) {
    *block.scale = number(bytes, 0);
    block.values.iter_mut().zip(&bytes[2..]).for_each(|(value, byte)| *value = *byte as i8);
}

/// The scales and minima of eight groups, six bits each, in twelve bytes.
fn six_bits(bytes: &[u8], block: &mut BlockParts<'_>) {
    (*block.scale, *block.offset) = (number(bytes, 0), number(bytes, 2) ^ SIGN);
    let packed = &bytes[4..16];
    for i in 0..8 {
        let (own, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4)
        };
        block.factors[i] = own.cast_signed();
        block.offset_factors[i] = minimum.cast_signed();
    }
}

fn q4_k(bytes: &[u8], block: &mut BlockParts<'_>) {
    six_bits(bytes, block);
    for (low, values) in bytes[16..].chunks_exact(32).zip(block.values.chunks_exact_mut(64)) {
        halves(low, 0, 0, values);
    }
}

fn q5_k(bytes: &[u8], block: &mut BlockParts<'_>) {
    six_bits(bytes, block);
    let fifth = &bytes[16..48];
    for (pair, (low, values)) in bytes[48..].chunks_exact(32).zip(block.values.chunks_exact_mut(64)).enumerate() {
        halves(low, 0, 0, values);
        for (i, byte) in fifth.iter().enumerate() {
            values[i] |= ((byte >> (2 * pair) & 1) << 4) as i8;
            values[i + 32] |= ((byte >> (2 * pair + 1) & 1) << 4) as i8;
        }
    }
}

fn q6_k(bytes: &[u8], block: &mut BlockParts<'_>) {
    *block.scale = number(bytes, 208);
    for (place, own) in block.factors.iter_mut().zip(&bytes[192..208]) {
        *place = own.cast_signed();
    }
    for (part, values) in block.values.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&bytes[part * 64..][..64], &bytes[128 + part * 32..][..32]);
        for i in 0..32 {
            let upper = |quarter: usize| (high[i] >> (2 * quarter) & 3) << 4;
            let lower = [low[i] & 15, low[i + 32] & 15, low[i] >> 4, low[i + 32] >> 4];
            for (quarter, lower) in lower.into_iter().enumerate() {
                values[quarter * 32 + i] = (lower | upper(quarter)) as i8 - 32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::Device;
    use candle_core::quantized::{QStorage, QTensor};

    use super::*;

    #[test]
    fn every_format_comes_apart_into_what_candle_makes_of_it() {
        use GgmlDType::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
            let inputs = 2 * LARGE;
            let bytes: Vec<u8> = (0..3 * inputs / dtype.block_size() * dtype.type_size())
                // Scales are f16 anywhere in a block: no byte may make one infinite.
                .map(|i| (i * 7919 % 251) as u8 & 0b1011_1011)
                .collect();
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
            let tensor = QTensor::new(storage, (3, inputs)).unwrap();
            let expected: Vec<f32> = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let rows = unpack(dtype, &bytes, inputs).unwrap();
            assert!(!rows.nibbles || rows.values.iter().all(|value| (0..16).contains(value)), "{dtype:?}: values of four bits");
            for (i, expected) in expected.iter().enumerate() {
                let group = i / rows.group;
                let offset = rows.offsets.as_ref().map_or(0.0, |offsets| offsets.at(group));
                let got = f32::from(rows.values[i]) * rows.scales.at(group) + offset;
                let error = (got - expected).abs() / expected.abs().max(1e-6);
                assert!(error < 1e-4, "{dtype:?}, value {i}: expected {expected}, got {got}");
            }
        }
    }
}
