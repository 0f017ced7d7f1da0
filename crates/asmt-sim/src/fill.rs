//! What stands in treex, stages and stripes: bytes that look and compress like a server's.
//!
//! Promise: the same seed gives the same bytes, whatever the number of threads; what was never allocated is never
//! touched and stays a hole. Must never: promise that a server would take it (nobody here has one to ask).

use crate::layout::{ELEMENT_BYTES, NODE_BYTES, handle};
use crate::rng::Rng;

/// Elements that are made at once, with random numbers of their own.
pub const BLOCK_ELEMENTS: u64 = 16_384;
/// Mark of an element that was freed.
const FREED: u32 = 0xff12_34ff;
/// Milliseconds since 2010 of the oldest record.
const OLDEST_UPDATE_MS: u64 = 0x6f_0000_0000;

/// A primary index over all its stages.
pub struct Index {
    /// Seed.
    pub seed: u64,
    /// Elements of a stage.
    pub capacity: u64,
    /// Elements ever allocated.
    pub allocated: u64,
}

impl Index {
    /// Elements `first..` of the index, as many as fit `block`; `first` is a multiple of [`BLOCK_ELEMENTS`].
    pub fn fill(&self, first: u64, block: &mut [u8]) {
        let mut rng = Rng::new(self.seed, first / BLOCK_ELEMENTS + 1);
        for (index, element) in (first..).zip(block.chunks_exact_mut(ELEMENT_BYTES as usize)) {
            self.element(&mut rng, index, element);
        }
    }

    fn element(&self, rng: &mut Rng, index: u64, element: &mut [u8]) {
        element.fill(0);
        let bits = rng.next();
        // Tree id 0 or 1, colour: one byte with few values.
        element[3] = ((bits & 1) << 6) as u8;
        for at in [4, 12, 20] {
            element[at..at + 8].copy_from_slice(&rng.next().to_le_bytes());
        }
        // Half of all nodes of a tree have no child on a side; children are allocated after their parents.
        for (at, has_child) in [(24, bits >> 8 & 1 == 0), (29, bits >> 16 & 1 == 0)] {
            let child = if has_child {
                handle(index + 1 + rng.below(self.allocated.saturating_sub(index).max(1)), self.capacity)
            } else {
                [0; 5]
            };
            element[at..at + 5].copy_from_slice(&child);
        }
        element[34..36].copy_from_slice(&((bits >> 24 & 7) as u16).to_le_bytes());
        let void_time = if bits >> 28 & 1 == 0 { 0x1a00_0000 + (rng.next() as u32 & 0xff_ffff) } else { 0 };
        element[36..40].copy_from_slice(&void_time.to_le_bytes());
        let updated = OLDEST_UPDATE_MS + index * 1500 + (bits >> 32 & 0xfff);
        element[40..45].copy_from_slice(&updated.to_le_bytes()[..5]);
        element[45..47].copy_from_slice(&(1 + (bits >> 44 & 3) as u16).to_le_bytes());
        // 37 bits of place on the device, 19 of size (a few blocks), 7 of device.
        let place = index * 15 + (rng.next() & 0x3fff);
        let rblocks = (place & 0x1f_ffff_ffff) | (8 + (bits >> 52 & 15)) << 37 | 1 << 56;
        element[47..55].copy_from_slice(&rblocks.to_le_bytes());
        element[55] = 2;
        if bits >> 56 & 0x3f == 0 {
            // One in 64 is free: its mark in front, the next free one behind, the rest as it was in life.
            element[..4].copy_from_slice(&FREED.to_le_bytes());
            element[56..].copy_from_slice(&rng.below(self.allocated).to_le_bytes());
        }
    }

    /// Root handles of sprigs: an eighth of them empty.
    pub fn treex(&self, bytes: &mut [u8]) {
        let mut rng = Rng::new(self.seed, 0);
        for sprig in bytes.chunks_exact_mut(5) {
            if rng.below(8) != 0 && self.allocated > 0 {
                // Roots are among the first elements of their sprig.
                sprig.copy_from_slice(&handle(rng.below(self.allocated.min(1 << 16)), self.capacity));
            }
        }
    }
}

/// One node of a secondary index: its keys ascending, then the handles they lead to.
pub fn node(seed: u64, stage: u64, number: u64, bytes: &mut [u8]) {
    let mut rng = Rng::new(seed ^ 0x51, stage << 32 | number);
    let half = NODE_BYTES as usize / 2;
    let mut key = rng.below(1 << 20);
    for slot in bytes[..half].chunks_exact_mut(8) {
        key += rng.below(900);
        slot.copy_from_slice(&key.to_le_bytes());
    }
    for slot in bytes[half..].chunks_exact_mut(8) {
        slot[..5].copy_from_slice(&(rng.next() & 0x3_0fff_ffff).to_le_bytes()[..5]);
    }
}

/// Records of a stripe: digest, some text, some numbers.
pub fn records(seed: u64, stripe: u64, block: u64, bytes: &mut [u8]) {
    let mut rng = Rng::new(seed ^ 0xad, stripe << 40 | block);
    for record in bytes.chunks_mut(256) {
        for (at, byte) in record.iter_mut().enumerate() {
            *byte = match at {
                0..20 => (rng.next() >> 56) as u8,
                20..84 => b"session_id=user_name=last_seen=0000;"[at % 36],
                84..128 => b'0' + (rng.next() >> 60) as u8 % 10,
                _ => 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_same_whoever_makes_them() {
        let index = Index { seed: 7, capacity: 1 << 20, allocated: 1 << 20 };
        let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        index.fill(BLOCK_ELEMENTS, &mut one);
        index.fill(0, &mut two);
        assert_ne!(one, two);
        index.fill(BLOCK_ELEMENTS, &mut two);
        assert_eq!(one, two);
    }

    #[test]
    fn about_one_element_in_sixty_four_is_free() {
        let index = Index { seed: 1, capacity: 1 << 20, allocated: 1 << 20 };
        let mut block = vec![0; (BLOCK_ELEMENTS * ELEMENT_BYTES) as usize];
        index.fill(0, &mut block);
        let freed = block.chunks_exact(64).filter(|element| element[..4] == FREED.to_le_bytes()).count();
        assert!((164..=328).contains(&freed), "{freed} of 16,384: expected 1 to 2 %");
    }
}
