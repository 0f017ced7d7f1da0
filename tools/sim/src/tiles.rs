//! A piece of a real server's full stage, repeated over the stages: the benchmark's shape `real`.
//!
//! Promise: what kind of record each is stays the piece's (with which children, of which colour,
//! updated or not, size, set, generation). Each repetition has digests, children, times and places
//! of its own, so that no encoder finds in one what it has seen in another. Must never: use what
//! the simulator believes of a server where the piece can be asked.

use crate::layout::{ELEMENT_BYTES, handle};
use asmt_kit::dice::Rng;
use std::path::Path;

/// Elements of a stash: a thread's, one after the other.
const STASH_ELEMENTS: u64 = 512;
/// Elements that the server's 64 threads fill side by side.
const ROUND_ELEMENTS: u64 = 64 * STASH_ELEMENTS;
/// Milliseconds that a round took, in the middle of what was seen (490 to 640).
const ROUND_MS: u64 = 560;
/// Units of 16 bytes that a round took on each of two devices.
const ROUND_UNITS: u64 = 300_000;
/// Milliseconds, and units, by which threads are apart at most.
const THREADS_APART: (u64, u64) = (24, 4096);

/// A piece of a full stage.
pub struct Piece {
    /// Elements.
    elements: Vec<u8>,
    /// Elements of a stage of that server: a power of two.
    capacity: u64,
    /// The largest number of an element that a handle of the piece leads to, counted over stages.
    last_child: u64,
}

impl Piece {
    /// Reads a file of elements of 64 bytes, none of which is free.
    pub fn read(path: &Path) -> Result<Self, String> {
        let elements = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::new(elements).map_err(|text| format!("{}: {text}", path.display()))
    }

    fn new(elements: Vec<u8>) -> Result<Self, String> {
        if elements.is_empty() || !(elements.len() as u64).is_multiple_of(ELEMENT_BYTES) {
            return Err(format!("has {} bytes, expected whole elements of {ELEMENT_BYTES}", elements.len()));
        }
        if let Some(number) = elements.chunks_exact(ELEMENT_BYTES as usize).position(|element| element[45..47] == [0; 2]) {
            return Err(format!("element {number} is no record, expected those of a full stage"));
        }
        let children = || elements.chunks_exact(ELEMENT_BYTES as usize).flat_map(|it| [number(&it[24..29]), number(&it[29..34])]);
        let capacity = (children().map(|child| child & 0xfff_ffff).max().unwrap_or(0) + 1).next_power_of_two();
        let last_child = children().map(|child| (child >> 28) * capacity + (child & 0xfff_ffff)).max().unwrap_or(0);
        Ok(Self { elements, capacity, last_child })
    }

    /// Elements `first..` of an index, as many as fit `block`. The first of all is left zero: no
    /// server uses it.
    pub fn fill(&self, seed: u64, first: u64, block: &mut [u8]) {
        let length = self.elements.len() as u64 / ELEMENT_BYTES;
        for (number, element) in (first..).zip(block.chunks_exact_mut(ELEMENT_BYTES as usize)) {
            if number == 0 {
                element.fill(0);
                continue;
            }
            let from = ((number % length) * ELEMENT_BYTES) as usize;
            element.copy_from_slice(&self.elements[from..from + ELEMENT_BYTES as usize]);
            let rounds = (number - number % length) / ROUND_ELEMENTS;
            self.renew(seed, number, rounds, element);
        }
    }

    /// Makes an element of the piece the one with this number, so many rounds of stashes later.
    fn renew(&self, seed: u64, element_number: u64, rounds: u64, element: &mut [u8]) {
        let mut rng = Rng::new(seed ^ 0x7e11, element_number);
        for at in [4, 12] {
            element[at..at + 8].copy_from_slice(&rng.next().to_le_bytes());
        }
        element[20..24].copy_from_slice(&rng.next().to_le_bytes()[..4]);
        for at in [24, 29] {
            if element[at..at + 5] != [0; 5] {
                let child = handle(1 + rng.below(self.last_child), self.capacity);
                element[at..at + 5].copy_from_slice(&child.to_le_bytes()[..5]);
            }
        }
        let mut thread = Rng::new(seed ^ 0x7a5c, element_number / STASH_ELEMENTS);
        let updated_ms = number(&element[40..45]);
        let later_ms = updated_ms + rounds * ROUND_MS + thread.below(THREADS_APART.0);
        element[40..45].copy_from_slice(&later_ms.to_le_bytes()[..5]);
        let void_time = number(&element[36..40]);
        if void_time >> 2 != 0 {
            // Two bits of flags, then seconds: as far from the update as it was.
            let void_time = void_time + ((later_ms / 1000 - updated_ms / 1000) << 2);
            element[36..40].copy_from_slice(&(void_time as u32).to_le_bytes());
        }
        let blocks = number(&element[47..55]);
        let place = (blocks & PLACE) + rounds * ROUND_UNITS + thread.below(THREADS_APART.1);
        element[47..55].copy_from_slice(&(blocks & !PLACE | place & PLACE).to_le_bytes());
    }
}

/// The 37 bits of a record's place.
const PLACE: u64 = (1 << 37) - 1;

/// Up to eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{deflated_percent, entropies, fixture};

    const TILES: usize = 5;

    fn piece_and_tiles() -> (Vec<u8>, Vec<u8>) {
        let server = fixture("full-stage-1MiB.bin");
        let mut tiles = vec![0; TILES * server.len()];
        Piece::new(server.clone()).expect("a piece").fill(7, 0, &mut tiles);
        (server, tiles)
    }

    /// Each repetition is as the piece: in each column, alone and against the element before, and
    /// in what general encoders make of it.
    #[test]
    fn repetitions_are_like_the_piece() {
        let (server, tiles) = piece_and_tiles();
        for tile in tiles.chunks_exact(server.len()) {
            let alone = |two: &[u8], column: usize| two[64 + column];
            let difference = |two: &[u8], column: usize| two[64 + column].wrapping_sub(two[column]);
            for value in [alone as fn(&[u8], usize) -> u8, difference] {
                for (column, (found, expected)) in entropies(tile, value).iter().zip(entropies(&server, value)).enumerate() {
                    // A piece may be within one second or within two, and the like for each byte.
                    let most = if (36..45).contains(&column) { 0.7 } else { 0.25 };
                    assert!((found - expected).abs() < most, "byte {column}: {found:.2} bits, the piece's {expected:.2}");
                }
            }
            for level in [1, 6] {
                let (found, expected) = (deflated_percent(tile, level), deflated_percent(&server, level));
                assert!((found - expected).abs() < 0.2, "level {level}: {found:.2} %, the piece's {expected:.2} %");
            }
        }
    }

    #[test]
    fn repetitions_have_nothing_in_common_but_what_all_records_have() {
        let (server, tiles) = piece_and_tiles();
        let tiles: Vec<&[u8]> = tiles.chunks_exact(server.len()).collect();
        let pairs = (0..TILES).flat_map(|one| (0..one).map(move |two| (one, two)));
        for (one, two) in pairs {
            // Digest, last update and place, and the children of those that have any.
            for (fields, most) in [(4..24, 0.001), (40..45, 0.2), (47..55, 0.001), (24..34, 0.4)] {
                let elements = || tiles[one].chunks_exact(64).zip(tiles[two].chunks_exact(64));
                let same = elements().filter(|(one, two)| one[fields.clone()] == two[fields.clone()]).count();
                let part = same as f64 / (server.len() / 64) as f64;
                assert!(part < most, "bytes {fields:?} of {one} and {two}: {part}");
            }
        }
    }

    /// What a server computes from another field still is what it would compute.
    #[test]
    fn records_stay_whole() {
        let (server, tiles) = piece_and_tiles();
        let lives = |element: &[u8]| (number(&element[36..40]) >> 2).saturating_sub(number(&element[40..45]) / 1000);
        for (number, element) in tiles.chunks_exact(64).enumerate().skip(1) {
            let from = &server[number * 64 % server.len()..][..64];
            assert_eq!(lives(element), lives(from), "{number}");
            for kept in [0..4, 34..36, 45..47, 52..64] {
                assert_eq!(element[kept.clone()], from[kept.clone()], "{number}: {kept:?}");
            }
            for child in [24..29, 29..34] {
                assert_eq!(element[child.clone()] == [0; 5], from[child] == [0; 5], "{number}");
            }
        }
        assert_eq!(tiles[..64], [0; 64], "no record is ever put into element 0");
    }

    #[test]
    fn blocks_are_the_same_whoever_makes_them() {
        let (server, tiles) = piece_and_tiles();
        let mut block = vec![0; 1000 * 64];
        Piece::new(server).expect("a piece").fill(7, 20_011, &mut block);
        assert_eq!(block, tiles[20_011 * 64..21_011 * 64]);
    }

    #[test]
    fn what_is_no_piece_of_a_full_stage_is_refused() {
        for (bytes, text) in
            [(vec![1; 65], "expected whole elements"), (Vec::new(), "expected whole"), (vec![0; 64], "no record")]
        {
            assert!(Piece::new(bytes).err().is_some_and(|found| found.contains(text)), "{text}");
        }
    }
}
