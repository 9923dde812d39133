//! Allocates blocks of the key-value cache and counts their holders.

/// Counts the holders of every block. A block with several holders is only read, never written.
pub(super) struct BlockAllocator {
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl BlockAllocator {
    pub(super) fn new(count: usize) -> Self {
        // The lowest number is taken first, so that caches that grow on use stay small.
        Self { holders: vec![0; count], free: (0..count as u32).rev().collect() }
    }

    /// The total number of blocks.
    pub(super) fn count(&self) -> usize {
        self.holders.len()
    }

    /// Blocks without a holder.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free block, which then has one holder.
    pub(super) fn take(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.holders[block as usize] = 1;
        Some(block)
    }

    pub(super) fn share(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} is shared while it is free");
        *holders += 1;
    }

    /// Removes a holder. Removing the last one frees the block.
    pub(super) fn release(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} is released while it is free");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }

    /// The number of holders of the block.
    pub(super) fn holders(&self, block: u32) -> u32 {
        self.holders[block as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_are_neither_lost_nor_given_twice(steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>()), 0..400)) {
            let mut blocks = BlockAllocator::new(12);
            let mut held: Vec<u32> = Vec::new();
            for (action, index) in steps {
                match action {
                    0 => match blocks.take() {
                        Some(block) => {
                            prop_assert!(!held.contains(&block), "block {} has a holder and was given away", block);
                            held.push(block);
                        }
                        None => prop_assert!((0..12).all(|block| held.contains(&block)), "a free block was not given"),
                    },
                    1 if !held.is_empty() => {
                        let block = *index.get(&held);
                        blocks.share(block);
                        held.push(block);
                    }
                    2 if !held.is_empty() => {
                        let block = held.swap_remove(index.index(held.len()));
                        blocks.release(block);
                    }
                    _ => {}
                }
                let mut distinct = held.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(blocks.free(), 12 - distinct.len());
                for block in distinct {
                    prop_assert_eq!(blocks.holders(block) as usize, held.iter().filter(|other| **other == block).count());
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "released while it is free")]
    fn a_block_released_twice_is_found() {
        let mut blocks = BlockAllocator::new(1);
        let block = blocks.take().unwrap();
        blocks.release(block);
        blocks.release(block);
    }
}
