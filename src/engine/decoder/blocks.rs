//! The block formats of GGUF files, taken apart into integers of a byte and a scale and offset for each group of them.

use candle_core::quantized::GgmlDType;

use crate::engine::kernels::Bytes;

/// Blocks of K formats hold this many values.
const LARGE: usize = 256;

/// Blocks of the older formats hold this many.
const SMALL: usize = 32;

/// How a format's blocks are laid out.
struct Format {
    /// Bytes of a block.
    bytes: usize,
    /// Values of a block.
    values: usize,
    /// Values that share a scale and an offset.
    group: usize,
    unpack: fn(&[u8], &mut Block<'_>),
}

/// Where the parts of one block go.
struct Block<'a> {
    values: &'a mut [i8],
    scales: &'a mut [f32],
    offsets: &'a mut [f32],
}

/// Takes rows of `inputs` values apart; none where the format is not supported.
pub(super) fn unpack(dtype: GgmlDType, bytes: &[u8], inputs: usize) -> Option<Bytes> {
    let small = |bytes, unpack| Format { bytes, values: SMALL, group: SMALL, unpack };
    let large = |bytes, group, unpack| Format { bytes, values: LARGE, group, unpack };
    let format = match dtype {
        GgmlDType::Q4_0 => small(18, q4_0),
        GgmlDType::Q4_1 => small(20, q4_1),
        GgmlDType::Q5_0 => small(22, q5_0),
        GgmlDType::Q5_1 => small(24, q5_1),
        GgmlDType::Q8_0 => small(34, q8_0),
        GgmlDType::Q4K => large(144, 32, q4_k),
        GgmlDType::Q5K => large(176, 32, q5_k),
        GgmlDType::Q6K => large(210, 16, q6_k),
        _ => return None,
    };
    let blocks = bytes.len() / format.bytes;
    let (count, groups) = (blocks * format.values, format.values / format.group);
    let mut rows = Bytes {
        values: vec![0; count],
        scales: vec![0.0; blocks * groups],
        offsets: vec![0.0; blocks * groups],
        inputs,
        group: format.group,
    };
    let parts = rows.values.chunks_exact_mut(format.values);
    let parts = parts.zip(rows.scales.chunks_exact_mut(groups)).zip(rows.offsets.chunks_exact_mut(groups));
    for (bytes, ((values, scales), offsets)) in bytes.chunks_exact(format.bytes).zip(parts) {
        (format.unpack)(bytes, &mut Block { values, scales, offsets });
    }
    Some(rows)
}

/// The f16 number at `place`.
fn number(bytes: &[u8], place: usize) -> f32 {
    half::f16::from_le_bytes([bytes[place], bytes[place + 1]]).to_f32()
}

/// Low halves of bytes, then the high ones, each with the bit of `high` for its place as the fifth.
fn halves(low: &[u8], high: u32, centre: i8, values: &mut [i8]) {
    for (i, byte) in low.iter().enumerate() {
        let bit = |i: usize| (high.checked_shr(i as u32).unwrap_or(0) as u8 & 1) << 4;
        values[i] = (byte & 15 | bit(i)) as i8 - centre;
        values[i + low.len()] = (byte >> 4 | bit(i + low.len())) as i8 - centre;
    }
}

fn q4_0(bytes: &[u8], block: &mut Block<'_>) {
    block.scales[0] = number(bytes, 0);
    halves(&bytes[2..], 0, 8, block.values);
}

fn q4_1(bytes: &[u8], block: &mut Block<'_>) {
    (block.scales[0], block.offsets[0]) = (number(bytes, 0), number(bytes, 2));
    halves(&bytes[4..], 0, 0, block.values);
}

fn q5_0(bytes: &[u8], block: &mut Block<'_>) {
    block.scales[0] = number(bytes, 0);
    halves(&bytes[6..], u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]), 16, block.values);
}

fn q5_1(bytes: &[u8], block: &mut Block<'_>) {
    (block.scales[0], block.offsets[0]) = (number(bytes, 0), number(bytes, 2));
    halves(&bytes[8..], u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]), 0, block.values);
}

fn q8_0(bytes: &[u8], block: &mut Block<'_>) {
    block.scales[0] = number(bytes, 0);
    block.values.iter_mut().zip(&bytes[2..]).for_each(|(value, byte)| *value = *byte as i8);
}

/// The scales and minima of eight groups, six bits each, in twelve bytes.
fn six_bits(bytes: &[u8], block: &mut Block<'_>) {
    let (scale, least, packed) = (number(bytes, 0), number(bytes, 2), &bytes[4..16]);
    for i in 0..8 {
        let (own, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4)
        };
        block.scales[i] = scale * f32::from(own);
        block.offsets[i] = -least * f32::from(minimum);
    }
}

fn q4_k(bytes: &[u8], block: &mut Block<'_>) {
    six_bits(bytes, block);
    for (low, values) in bytes[16..].chunks_exact(32).zip(block.values.chunks_exact_mut(64)) {
        halves(low, 0, 0, values);
    }
}

fn q5_k(bytes: &[u8], block: &mut Block<'_>) {
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

fn q6_k(bytes: &[u8], block: &mut Block<'_>) {
    let scale = number(bytes, 208);
    for (place, own) in block.scales.iter_mut().zip(&bytes[192..208]) {
        *place = scale * f32::from(*own as i8);
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
            for (i, expected) in expected.iter().enumerate() {
                let group = i / rows.group;
                let got = f32::from(rows.values[i]) * rows.scales[group] + rows.offsets[group];
                let error = (got - expected).abs() / expected.abs().max(1e-6);
                assert!(error < 1e-4, "{dtype:?}, value {i}: expected {expected}, got {got}");
            }
        }
    }
}
