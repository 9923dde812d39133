//! The same tokens give the same logits, whatever is read beside them and however they are cut.

use super::fixture::{FAMILIES, assert_close, ids, random, read, read_at_once, to_f64};
use crate::decoder::{BLOCK_TOKENS, Decoder, StepRow, WantedLogits};

/// The very same bits: every sum of a row is taken in an order of its own, whatever stands beside it.
const NOTHING: f64 = 0.0;

#[test]
fn chunks_of_any_size_agree() {
    let ids = ids(75, 5, 90);
    for family in FAMILIES {
        let decoder = random(family).decoder();
        let whole = to_f64(&read_at_once(&decoder, &ids));
        for chunk in [1, 7, 32, 74] {
            // Blocks in no order, so that a block's number says nothing about its place.
            let mut cache = decoder.cache(5).unwrap();
            let logits = read(&decoder, &mut cache, &ids, chunk, &[4, 0, 2]);
            assert_close(&format!("{family} in chunks of {chunk}"), &logits, &whole, NOTHING);
        }
    }
}

/// The logits of the last tokens of `sequences`, read together in the order of `order`, each behind its first half.
fn together(decoder: &Decoder, sequences: &[Vec<u32>], order: &[usize]) -> Vec<Vec<f32>> {
    let blocks = |i: usize| -> Vec<u32> { (0..3).map(|block| (block * sequences.len() + i) as u32).collect() };
    let tables: Vec<Vec<u32>> = (0..sequences.len()).map(blocks).collect();
    let mut cache = decoder.cache(3 * sequences.len()).unwrap();
    let halves = order.iter().map(|i| {
        let ids = &sequences[*i];
        StepRow { ids: &ids[..ids.len() / 2], past: 0, blocks: &tables[*i], wanted: WantedLogits::None }
    });
    let halves: Vec<StepRow<'_>> = halves.filter(|row| !row.ids.is_empty()).collect();
    assert_eq!(decoder.forward(&mut cache, &halves).unwrap().rows(), 0, "nobody wanted logits");
    let rest = order.iter().map(|i| {
        let (ids, past) = (&sequences[*i], sequences[*i].len() / 2);
        StepRow { ids: &ids[past..], past, blocks: &tables[*i], wanted: WantedLogits::Last }
    });
    let logits = decoder.forward(&mut cache, &rest.collect::<Vec<_>>()).unwrap();
    let mut rows = vec![Vec::new(); order.len()];
    order.iter().enumerate().for_each(|(row, i)| rows[*i] = logits.row_ref(row).to_vec());
    rows
}

#[test]
fn rows_read_together_agree_with_rows_read_alone_in_any_order() {
    let sequences: Vec<Vec<u32>> =
        [1, 2, 31, 32, 33, 64, 65, 90, 5, 17].iter().enumerate().map(|(seed, count)| ids(*count, seed as u64, 90)).collect();
    for family in FAMILIES {
        let decoder = random(family).decoder();
        let alone = |ids: &Vec<u32>| read_at_once(&decoder, ids).pop().unwrap();
        let alone = to_f64(&sequences.iter().map(alone).collect::<Vec<_>>());
        assert_close(
            &format!("{family} together"),
            &together(&decoder, &sequences, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            &alone,
            NOTHING,
        );
        assert_close(
            &format!("{family} permuted"),
            &together(&decoder, &sequences, &[7, 3, 9, 0, 5, 1, 8, 2, 6, 4]),
            &alone,
            NOTHING,
        );
    }
}

#[test]
fn rows_that_share_a_prefix_agree_with_full_reading() {
    let decoder = random("mistral").decoder();
    let prefix = ids(50, 1, 90);
    let endings: Vec<Vec<u32>> = (2..5).map(|seed| ids(9 + seed as usize, seed, 90)).collect();
    let mut cache = decoder.cache(10).unwrap();
    let row = StepRow { ids: &prefix, past: 0, blocks: &[7, 3], wanted: WantedLogits::None };
    decoder.forward(&mut cache, &[row]).unwrap();
    // The first block is shared; the second, which is half full, is copied for each row.
    let tables = [[7, 0], [7, 9], [7, 5]];
    for table in &tables {
        cache.copy_block(3, table[1]);
    }
    let rows: Vec<StepRow<'_>> = endings
        .iter()
        .zip(&tables)
        .map(|(ids, blocks)| StepRow { ids, past: prefix.len(), blocks, wanted: WantedLogits::Last })
        .collect();
    let logits = decoder.forward(&mut cache, &rows).unwrap();
    for (i, ending) in endings.iter().enumerate() {
        let full = read_at_once(&decoder, &[prefix.clone(), ending.clone()].concat()).pop().unwrap();
        assert_close(&format!("ending {i}"), &[logits.row_ref(i).to_vec()], &to_f64(&[full]), NOTHING);
    }
}

#[test]
fn what_another_sequence_left_in_a_block_is_never_seen() {
    let decoder = random("qwen2").decoder();
    let ids = ids(40, 9, 90);
    let mut cache = decoder.cache(2).unwrap();
    let fresh = to_f64(&read(&decoder, &mut cache, &ids, 40, &[0, 1]));
    cache.layers.iter_mut().flatten().for_each(|head| {
        for slot in 0..BLOCK_TOKENS {
            for block in 0..2 {
                head.store(block, slot, &[f32::NAN; 10], &[f32::NAN; 10]);
            }
        }
    });
    assert_close("over not-a-number", &read(&decoder, &mut cache, &ids, 7, &[0, 1]), &fresh, NOTHING);
}
