//! What stands in treex, stages and stripes: bytes that look and compress like a server's.
//!
//! Promise: the same seed gives the same bytes, whatever the number of threads; what was never
//! handed out is never touched and stays a hole. Must never: promise that a server would take it
//! (nobody here has one to ask).
//!
//! A server hands elements out in stashes, one a thread, which fills it one record at a time. So
//! threads fill a *round* of stashes at once, and only those of the last round have elements that
//! were not used, or were freed and not used again.

use crate::layout::{ELEMENT_BYTES, NODE_BYTES, handle};
use crate::rng::Rng;

/// Elements that are made at once, with random numbers of their own.
pub const BLOCK_ELEMENTS: u64 = 16_384;
/// Elements that a thread is handed at once.
pub const STASH_ELEMENTS: u64 = 512;
/// Most threads of a server.
const MAX_THREADS: u64 = 64;
/// Mark of an element that is free.
const FREE: u32 = 0xff12_34ff;
/// Milliseconds since 2010 of the first write.
const FIRST_WRITE_MS: u64 = 533_699_229_000;
/// Writes in a millisecond.
const WRITES_A_MS: u64 = 51;
/// Seconds that records live; a third for ever.
const TIMES_TO_LIVE_S: [u64; 3] = [3600, 86_400, 864_000];

/// A primary index over all its stages.
pub struct Index {
    /// Seed.
    seed: u64,
    /// Elements of a stage.
    capacity: u64,
    /// Elements ever handed out: whole stashes, as far as stages go.
    allocated: u64,
    /// Threads, and so the number of stashes that are filled at once.
    threads: u64,
}

/// How far a stash was used.
struct Stash {
    /// Number of its first element.
    first: u64,
    /// Its elements; fewer than a whole one where stages end.
    length: u64,
    /// Elements that were used, from its front on.
    used: u64,
    /// Whether a thread still has it.
    is_open: bool,
}

impl Index {
    /// An index of stages with this many elements each, of which so many in all were handed out at
    /// least.
    pub fn new(seed: u64, capacity: u64, stage_count: u64, handed_out: u64) -> Self {
        let allocated = handed_out.next_multiple_of(STASH_ELEMENTS).min(capacity * stage_count);
        let threads = (allocated.div_ceil(STASH_ELEMENTS) / 8).clamp(1, MAX_THREADS);
        Self { seed, capacity, allocated, threads }
    }

    /// Elements of a stage.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Elements ever handed out, over all stages.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// The stash with this number.
    fn stash(&self, number: u64) -> Stash {
        let first = number * STASH_ELEMENTS;
        let length = STASH_ELEMENTS.min(self.allocated.saturating_sub(first));
        let count = self.allocated.div_ceil(STASH_ELEMENTS);
        let is_open = number + self.threads >= count;
        let used = if is_open { 1 + Rng::new(self.seed ^ 0x57a5, number).below(length) } else { length };
        Stash { first, length, used: used.min(length), is_open }
    }

    /// Elements `first..` of the index, as many as fit `block`.
    pub fn fill(&self, first: u64, mut block: &mut [u8]) {
        let mut rng = Rng::new(self.seed, first + 1);
        let mut element = first;
        while !block.is_empty() {
            // A stage of an odd size may end within a stash.
            let left = STASH_ELEMENTS - element % STASH_ELEMENTS;
            let (elements, rest) = block.split_at_mut(block.len().min((left * ELEMENT_BYTES) as usize));
            self.fill_stash(&mut rng, element / STASH_ELEMENTS, element % STASH_ELEMENTS, elements);
            element += left;
            block = rest;
        }
    }

    /// Elements of a stash, from its element `from` on.
    fn fill_stash(&self, rng: &mut Rng, number: u64, from: u64, elements: &mut [u8]) {
        let stash = self.stash(number);
        // What its thread takes next: what was freed last, and at last what was never used. The
        // last has none after it.
        let is_there = |index: u64| index < stash.length;
        let mut next_free = if is_there(stash.used) { handle(stash.first + stash.used, self.capacity) } else { 0 };
        for (index, element) in (from..).zip(elements.chunks_exact_mut(ELEMENT_BYTES as usize)) {
            element.fill(0);
            if number == 0 && index == 0 {
                // A handle of 0 leads nowhere: no record is ever put there.
                continue;
            }
            if index >= stash.used {
                let after = if is_there(index + 1) { handle(stash.first + index + 1, self.capacity) } else { 0 };
                free(element, after);
                continue;
            }
            // Threads take turns: a stash has one of so many writes.
            let write = number / self.threads * self.threads * STASH_ELEMENTS + index * self.threads + number % self.threads;
            self.record(rng, write, element);
            if stash.is_open && rng.below(8) == 0 {
                // A freed element keeps its digest, its times and its device; its record has no
                // generation and no place.
                element[45..54].fill(0);
                free(element, next_free);
                next_free = handle(stash.first + index, self.capacity);
            }
        }
    }

    /// The element of the record that was written as this one.
    fn record(&self, rng: &mut Rng, write: u64, element: &mut [u8]) {
        let bits = rng.next();
        // The tree's id, and in a quarter of them the colour.
        element[3] = if bits & 3 == 0 { 0x41 } else { 1 };
        for at in [4, 12, 20] {
            element[at..at + 8].copy_from_slice(&rng.next().to_le_bytes());
        }
        // 44 % have no child on a side, and a third have none.
        for (at, shift) in [(24, 8), (29, 16)] {
            let child = if bits >> shift & 0xff < 0x71 { 0 } else { 1 + rng.below(self.allocated.saturating_sub(1)) };
            element[at..at + 5].copy_from_slice(&handle(child, self.capacity).to_le_bytes()[..5]);
        }
        element[34..36].copy_from_slice(&(1 + (bits >> 24 & 3) as u16).to_le_bytes());
        // One in eight was written again since: another time, another place. One in 16 was freed,
        // and is another record's.
        let (is_updated, is_reused) = (bits >> 26 & 7 == 0, bits >> 59 & 15 == 0);
        let later = if is_updated || is_reused { rng.below(self.allocated.saturating_sub(write)) } else { 0 };
        let last_write = write + later;
        let updated_ms = FIRST_WRITE_MS + last_write / WRITES_A_MS + (bits >> 29 & 1);
        let to_live_s = TIMES_TO_LIVE_S.get((bits >> 32 & 0xff) as usize / 56);
        let void_time_s = to_live_s.map_or(0, |to_live_s| updated_ms / 1000 + to_live_s);
        element[36..40].copy_from_slice(&((void_time_s as u32) << 2).to_le_bytes());
        element[40..45].copy_from_slice(&updated_ms.to_le_bytes()[..5]);
        let generation = if is_updated { 2 + u16::from(bits >> 40 & 15 == 0) } else { 1 };
        element[45..47].copy_from_slice(&generation.to_le_bytes());
        // 37 bits of place on the device, 19 of size, both in units of 16 bytes, and 7 of device:
        // one of two, of which one is a little ahead.
        let place = last_write * 17 / 2 + (bits >> 63) * 12_446 + (bits >> 44 & 0x3ff);
        let blocks = (place & 0x1f_ffff_ffff) | (5 + (bits >> 54 & 0x1f) * 3 / 4) << 37 | (bits >> 63) << 56;
        element[47..55].copy_from_slice(&blocks.to_le_bytes());
        element[55..].fill(0);
    }

    /// Root handles of sprigs: an eighth of them empty.
    pub fn treex(&self, bytes: &mut [u8]) {
        let mut rng = Rng::new(self.seed, 0);
        for sprig in bytes.chunks_exact_mut(5) {
            if rng.below(8) != 0 && self.allocated > 1 {
                // Roots are among the first elements of their sprig.
                let root = 1 + rng.below((self.allocated - 1).min(1 << 16));
                sprig.copy_from_slice(&handle(root, self.capacity).to_le_bytes()[..5]);
            }
        }
    }
}

/// Marks an element as free, and says which one is free after it.
fn free(element: &mut [u8], next_free: u64) {
    element[..4].copy_from_slice(&FREE.to_le_bytes());
    element[56..].copy_from_slice(&next_free.to_le_bytes());
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

    fn fixture(path: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/server/arena-ce").join(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn is_free(element: &[u8]) -> bool {
        element[..4] == FREE.to_le_bytes()
    }

    /// An index of the form of the server's whose full stage is a fixture: three stages of 128 MiB,
    /// 5.6 million elements.
    fn like_the_servers() -> Index {
        Index::new(7, 2 << 20, 3, 5_600_000)
    }

    #[test]
    fn blocks_are_the_same_whoever_makes_them() {
        let index = Index::new(7, 1 << 20, 1, 1 << 20);
        let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        index.fill(BLOCK_ELEMENTS, &mut one);
        index.fill(0, &mut two);
        assert_ne!(one, two);
        index.fill(BLOCK_ELEMENTS, &mut two);
        assert_eq!(one, two);
    }

    /// Bits of entropy of each column of 64 bytes.
    fn entropies(elements: &[u8], value: impl Fn(&[u8], usize) -> u8) -> Vec<f64> {
        let of = |column: usize| {
            let mut counts = [0u32; 256];
            let count = elements.len() / 64 - 1;
            elements.windows(128).step_by(64).for_each(|two| counts[usize::from(value(two, column))] += 1);
            let bits = |count_of_value: &u32| f64::from(*count_of_value) / count as f64;
            counts.iter().filter(|count| **count > 0).map(bits).map(|share| -share * share.log2()).sum()
        };
        (0..64).map(of).collect()
    }

    /// A stage that is full: alike column by column, alone and against the element before.
    #[test]
    fn elements_of_a_full_stage_are_like_a_servers() {
        let server = fixture("full-stage-1MiB.bin");
        let mut ours = vec![0; server.len()];
        like_the_servers().fill(64 * BLOCK_ELEMENTS, &mut ours);
        let alone = |two: &[u8], column: usize| two[64 + column];
        let difference = |two: &[u8], column: usize| two[64 + column].wrapping_sub(two[column]);
        for (what, value, tolerance) in
            [("alone", alone as fn(&[u8], usize) -> u8, 0.75), ("against the one before", difference, 1.0)]
        {
            let (found, expected) = (entropies(&ours, value), entropies(&server, value));
            for (column, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let is_like = (found - expected).abs() <= tolerance && (*found == 0.0) == (*expected == 0.0);
                assert!(is_like, "byte {column}, {what}: {found:.2} bits, a server's {expected:.2}");
            }
        }
        let share = |elements: &[u8], is_of: fn(&[u8]) -> bool| {
            elements.chunks_exact(64).filter(|element| is_of(element)).count() as f64 / (elements.len() / 64) as f64
        };
        let kinds: [fn(&[u8]) -> bool; 4] =
            [is_free, |element| element[24..29] == [0; 5], |element| element[36..40] == [0; 4], |element| element[45] > 1];
        for is_of in kinds {
            let (found, expected) = (share(&ours, is_of), share(&server, is_of));
            assert!((found - expected).abs() < 0.03, "{found} and {expected}");
        }
    }

    /// The front of a stage whose threads have filled little of their first stashes.
    #[test]
    fn free_elements_are_like_a_servers() {
        let server = fixture("stage0.head");
        let (unused, never_used) = (&server[..64], &server[63 * 64..]);
        let freed = &server[64..128];
        let index = Index::new(1, 1 << 20, 1, 4096);
        let mut ours = vec![0; 4096 * 64];
        index.fill(0, &mut ours);
        let element = |number: u64| &ours[number as usize * 64..][..64];
        assert_eq!(element(0), unused, "no record is ever put into element 0");
        // Of eight stashes the last is open: its thread's list leads through what was freed and
        // what was never used.
        let open = index.stash(7);
        assert!(open.is_open && !index.stash(6).is_open && open.used < open.length);
        let mut list = vec![open.first + open.used];
        let next = |number: u64| u64::from_le_bytes(element(number)[56..].try_into().expect("eight bytes"));
        while let Some(after) = list.last().map(|last| next(*last)).filter(|after| *after != 0) {
            list.push(after);
        }
        assert_eq!(list, (open.first + open.used..open.first + open.length).collect::<Vec<_>>());
        for number in list {
            let mut expected = never_used.to_vec();
            expected[56..].copy_from_slice(&next(number).to_le_bytes());
            assert_eq!(element(number), expected, "{number}");
        }
        let in_front: Vec<u64> = (1..open.first + open.used).filter(|number| is_free(element(*number))).collect();
        assert!(!in_front.is_empty() && in_front.iter().all(|number| *number >= open.first), "{in_front:?}");
        assert_eq!(next(in_front[0]), open.first + open.used);
        in_front.windows(2).for_each(|two| assert_eq!(next(two[1]), two[0]));
        for number in in_front {
            // What a server's freed element has: a digest, a set, times; neither generation nor
            // place.
            let ours = element(number);
            for fields in [45..54, 55..56] {
                assert!(freed[fields.clone()].iter().chain(&ours[fields.clone()]).all(|byte| *byte == 0), "{fields:?}");
            }
            for fields in [0..4, 4..24, 34..35, 40..45] {
                assert!(freed[fields.clone()].iter().any(|byte| *byte != 0) && ours[fields].iter().any(|byte| *byte != 0));
            }
        }
    }

    #[test]
    fn stashes_are_whole_as_far_as_stages_go() {
        for (capacity, stages, handed_out, allocated) in
            [(64, 1, 32, 64), (1024, 2, 1025, 1536), (65_600, 1, 65_600, 65_600), (64, 1, 0, 0)]
        {
            let index = Index::new(1, capacity, stages, handed_out);
            assert_eq!(index.allocated(), allocated);
            let mut block = vec![0; (allocated.min(BLOCK_ELEMENTS) * 64) as usize];
            index.fill(0, &mut block);
            index.treex(&mut [0; 100]);
        }
    }
}
