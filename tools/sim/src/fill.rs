//! The contents of treex, stages and stripes: bytes that look and compress like a server's.
//!
//! Promise: the same seed gives the same bytes, whatever the number of threads; elements that were
//! never handed out are never touched and stay a hole. Must never: promise that a server would
//! accept the bytes (there is none here to try).
//!
//! A server hands out elements in stashes, one per thread, which the thread fills one record at a
//! time. So threads fill a *round* of stashes at once, and only the stashes of the last round have
//! elements that were not used, or were freed and not used again.

use crate::layout::{ELEMENT_BYTES, NODE_BYTES, handle};
use crate::tiles::Piece;
use asmt_kit::dice::Rng;

/// Elements that are made at once, with their own random numbers.
pub const BLOCK_ELEMENTS: u64 = 16_384;
/// Elements that a thread gets at once.
pub const STASH_ELEMENTS: u64 = 512;
/// Most threads of a server.
const MAX_THREADS: u64 = 64;
/// Mark of a free element.
const FREE: u32 = 0xff12_34ff;
/// Units of 16 bytes that a device's header takes.
const HEADER_UNITS: u64 = (8 << 20) / 16;
/// Milliseconds since 2010 of the first write.
const FIRST_WRITE_MS: u64 = 533_699_225_175;
/// Writes in a millisecond.
const WRITES_A_MS: u64 = 60;
/// Seconds that records live; 0: for ever, as every one does that was updated.
const TIMES_TO_LIVE_S: [u64; 4] = [0, 3600, 86_400, 864_000];

/// A primary index over all its stages.
pub struct Index {
    /// Seed.
    seed: u64,
    /// Elements of a stage.
    capacity: u64,
    /// Elements ever handed out: whole stashes, up to the end of the stages.
    allocated: u64,
    /// Threads, and so the number of stashes that are filled at once.
    threads: u64,
    /// Elements of a server that are repeated instead of made.
    piece: Option<Piece>,
}

/// A stash, and how much of it was used.
struct Stash {
    /// Number of its first element.
    first: u64,
    /// Number of its elements; less than a whole stash at the end of the stages.
    length: u64,
    /// Number of elements that were used, from its front on.
    used: u64,
    /// A thread still has it.
    is_open: bool,
}

impl Index {
    /// An index of stages with `capacity` elements each, of which at least `handed_out` in all were
    /// handed out.
    pub fn new(seed: u64, capacity: u64, stage_count: u64, handed_out: u64) -> Self {
        let allocated = handed_out.next_multiple_of(STASH_ELEMENTS).min(capacity * stage_count);
        let threads = (allocated.div_ceil(STASH_ELEMENTS) / 8).clamp(1, MAX_THREADS);
        Self { seed, capacity, allocated, threads, piece: None }
    }

    /// The same, with a server's own elements repeated in it.
    pub fn of_piece(self, piece: Option<Piece>) -> Self {
        Self { piece, ..self }
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
        if let Some(piece) = &self.piece {
            return piece.fill(self.seed, first, block);
        }
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

    /// Fills elements of a stash, from its element `from` on.
    fn fill_stash(&self, rng: &mut Rng, number: u64, from: u64, elements: &mut [u8]) {
        let stash = self.stash(number);
        // The element that its thread takes next: first the ones that were freed, the last of them
        // first, and then those that were never used. The last element has none after it.
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
            // Threads take turns: of each round of writes, a stash has one.
            let write = number / self.threads * self.threads * STASH_ELEMENTS + index * self.threads + number % self.threads;
            self.record(rng, write, element);
            if stash.is_open && rng.below(8) == 0 {
                // A freed element keeps its digest, its times and its device; generation and place
                // of its record are cleared.
                element[45..54].fill(0);
                free(element, next_free);
                next_free = handle(stash.first + index, self.capacity);
            }
        }
    }

    /// Writes the element of the record with this number.
    fn record(&self, rng: &mut Rng, write: u64, element: &mut [u8]) {
        let bits = rng.next();
        for at in [4, 12, 20] {
            element[at..at + 8].copy_from_slice(&rng.next().to_le_bytes());
        }
        // One in eight was written again since: another time, another place. One in 16 was freed,
        // and is another record's.
        let (is_updated, is_reused) = (bits & 0xff < 33, bits >> 8 & 0xff < 17);
        let last_write = if is_updated || is_reused { self.later_write(rng, write) } else { write };
        self.children(rng, if is_reused { last_write } else { write }, element);
        element[34..36].copy_from_slice(&(1 + (bits >> 16 & 3) as u16).to_le_bytes());
        let jitter_ms = u64::from(bits >> 18 & 15 == 0);
        let updated_ms = FIRST_WRITE_MS + last_write / WRITES_A_MS + jitter_ms;
        let to_live_s = if is_updated { 0 } else { TIMES_TO_LIVE_S[(bits >> 22 & 3) as usize] };
        let void_time_s = if to_live_s == 0 { 0 } else { updated_ms / 1000 + to_live_s };
        element[36..40].copy_from_slice(&((void_time_s as u32) << 2).to_le_bytes());
        element[40..45].copy_from_slice(&updated_ms.to_le_bytes()[..5]);
        let generation = if is_updated { 2 + u16::from(bits >> 30 & 15 == 0) + u16::from(bits >> 30 & 0xff == 0) } else { 1 };
        element[45..47].copy_from_slice(&generation.to_le_bytes());
        // 37 bits of place on the device, 19 of size, both in units of 16 bytes, and 7 of device:
        // one of two, of which one is a little ahead, now more and now less.
        let device = bits >> 63;
        let ahead = 4096 + ((last_write >> 13).wrapping_mul(0x9e37_79b9) >> 7 & 0x1fff);
        let place = HEADER_UNITS + last_write * 75 / 8 + device * ahead + (bits >> 38 & 0xff);
        let size = 5 + (bits >> 46 & 0xff) * 24 / 256;
        let blocks = (place & 0x1f_ffff_ffff) | size << 37 | device << 56;
        element[47..55].copy_from_slice(&blocks.to_le_bytes());
        element[55..].fill(0);
    }

    /// The last write to a record that was written again. The more records there are, the less
    /// often an update finds this one: the logarithm of that write's number is uniform, once a part
    /// of all writes is added, for what is new is rarely found.
    fn later_write(&self, rng: &mut Rng, write: u64) -> u64 {
        let offset = 1 + self.allocated / 24;
        let (low, high) = (logarithm(write + offset), logarithm(self.allocated.max(write + 1) + offset));
        power(low + rng.below(high - low)).saturating_sub(offset).max(write)
    }

    /// Children and colour of an element: as in a red-black tree of a sprig that has 5.3 records on
    /// average, filled evenly. What came early is rather an inner node, what came late a leaf.
    fn children(&self, rng: &mut Rng, write: u64, element: &mut [u8]) {
        // All in parts of 65,536. The curves are those of 40,000 such trees.
        let age = (write << 16) / self.allocated.max(1);
        let curve = |at_first: u64, linear: u64, square: u64| at_first + ((age * linear) >> 16) + ((age * age * square) >> 32);
        let no_child = curve(20_971, 1_311, 34_734);
        let one_child = curve(28_836, 3_932, 24_248).saturating_sub(no_child);
        let kind = rng.next() & 0xffff;
        let has_left = kind >= no_child + one_child;
        let has_right = kind >= no_child && !(no_child + one_child..no_child + 2 * one_child).contains(&kind);
        for (at, is_there) in [(24, has_left), (29, has_right)] {
            let child = if is_there { 1 + rng.below(self.allocated.saturating_sub(1)) } else { 0 };
            element[at..at + 5].copy_from_slice(&handle(child, self.capacity).to_le_bytes()[..5]);
        }
        // A red one has no child or two.
        let red = match (has_left, has_right) {
            (false, false) => 30_147 + age / 2,
            (true, true) => 12_452,
            _ => 0,
        };
        element[3] = if rng.next() & 0xffff < red { 0x41 } else { 1 };
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

/// The logarithm to base 2 of a number (of 1 for 0), in units of 2^-32. Between powers of two it is
/// a straight line, so that it is the same on every machine.
fn logarithm(number: u64) -> u64 {
    let whole = u64::from(number.max(1).ilog2());
    let part = ((u128::from(number.max(1)) << 32) >> whole) as u64 - (1 << 32);
    whole << 32 | part
}

/// What has this logarithm.
fn power(logarithm: u64) -> u64 {
    let part = u128::from(logarithm & 0xffff_ffff | 1 << 32);
    ((part << (logarithm >> 32)) >> 32) as u64
}

/// Marks an element as free, and says which one is free after it.
fn free(element: &mut [u8], next_free: u64) {
    element[..4].copy_from_slice(&FREE.to_le_bytes());
    element[56..].copy_from_slice(&next_free.to_le_bytes());
}

/// Writes one node of a secondary index: ascending keys, then the handles to which they lead.
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

/// Writes the records of a stripe: a digest, some text, some numbers.
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
    use crate::witness::{deflated_percent, entropies, fixture};

    fn is_free(element: &[u8]) -> bool {
        element[..4] == FREE.to_le_bytes()
    }

    /// An index like the one of the server whose full stage is a fixture: three stages of 128 MiB,
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

    /// As many elements as the fixture has, from the same part of such an index.
    fn like_the_fixture(server: &[u8]) -> Vec<u8> {
        let mut ours = vec![0; server.len()];
        like_the_servers().fill(16 * BLOCK_ELEMENTS, &mut ours);
        ours
    }

    /// A full stage is like a server's, column by column, alone and compared with the element
    /// before.
    #[test]
    fn elements_of_a_full_stage_are_like_a_servers() {
        let server = fixture("full-stage-1MiB.bin");
        let ours = like_the_fixture(&server);
        let alone = |two: &[u8], column: usize| two[64 + column];
        let difference = |two: &[u8], column: usize| two[64 + column].wrapping_sub(two[column]);
        for (what, value, tolerance) in
            [("alone", alone as fn(&[u8], usize) -> u8, 0.3), ("against the one before", difference, 0.55)]
        {
            let (found, expected) = (entropies(&ours, value), entropies(&server, value));
            for (column, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let is_like = (found - expected).abs() <= tolerance && (*found == 0.0) == (*expected == 0.0);
                assert!(is_like, "byte {column}, {what}: {found:.2} bits, a server's {expected:.2}");
            }
            let (found, expected) = (found.iter().sum::<f64>(), expected.iter().sum::<f64>());
            assert!((found - expected).abs() < 0.01 * expected, "all columns {what}: {found:.1} bits, a server's {expected:.1}");
        }
        let share = |elements: &[u8], is_of: fn(&[u8]) -> bool| {
            elements.chunks_exact(64).filter(|element| is_of(element)).count() as f64 / (elements.len() / 64) as f64
        };
        let kinds: [fn(&[u8]) -> bool; 8] = [
            is_free,
            |element| element[24..29] == [0; 5],
            |element| element[24..34] == [0; 10],
            |element| (element[24..29] == [0; 5]) != (element[29..34] == [0; 5]),
            |element| element[3] & 0x40 != 0 && element[24..34] == [0; 10],
            |element| element[36..40] == [0; 4],
            |element| element[45] > 1,
            |element| element[45] > 1 && element[36..40] == [0; 4],
        ];
        for (number, is_of) in kinds.into_iter().enumerate() {
            let (found, expected) = (share(&ours, is_of), share(&server, is_of));
            assert!((found - expected).abs() < 0.02, "kind {number}: {found}, a server's {expected}");
        }
    }

    /// What a general encoder makes of them: within half a percent of their size.
    #[test]
    fn elements_of_a_full_stage_are_as_compressible_as_a_servers() {
        let server = fixture("full-stage-1MiB.bin");
        let ours = like_the_fixture(&server);
        for level in [1, 6] {
            let (found, expected) = (deflated_percent(&ours, level), deflated_percent(&server, level));
            assert!((found - expected).abs() < 0.5, "level {level}: {found:.2} %, a server's {expected:.2} %");
        }
    }

    #[test]
    fn later_writes_are_later_and_the_rarer_the_later() {
        let numbers = [1, 2, 3, 7, 8, 1000, 5_600_000, (1 << 39) + 12_345];
        let is_close = |number: u64| power(logarithm(number)).abs_diff(number) <= number >> 31;
        assert!(numbers.into_iter().all(is_close) && logarithm(0) == 0);
        let (index, mut rng) = (like_the_servers(), Rng::new(7, 7));
        let writes: Vec<u64> = (0..4096).map(|_| index.later_write(&mut rng, 100_000)).collect();
        assert!(writes.iter().all(|write| (100_000..=index.allocated).contains(write)));
        let early = writes.iter().filter(|write| **write < index.allocated / 4).count();
        assert!((2000..3000).contains(&early), "{early}");
        assert_eq!(index.later_write(&mut rng, index.allocated), index.allocated);
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
        // Of eight stashes the last one is open: its thread's list leads through the elements that
        // were freed and those that were never used.
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
            // A server's freed element has a digest, a set and times, but neither generation nor
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
