//! Parts that are one block of literals, decoded side by side.
//!
//! What takes the time is that a code's place is known only when the length of the one before it
//! is. So several parts are decoded in turns: none of them waits for another. And as many literals
//! as fit are looked up at once: of the columns of an index half have codes of two bits or three.
//!
//! Promise: what is decoded here is what [`crate::inflate`] makes of it; whatever is another form,
//! or wrong, is left to that one. Must never: write beyond a part, or take what it has not seen
//! whole.

use super::blocks::{CODED, END, MOST_LITERAL_BITS, SYMBOLS};
use crate::huffman::{self, Code};
use crate::inflate::{Bits, MOST_LENGTHS, read_lengths};
use crate::simd::{Kernel, Lanes, SimdLevel};
use std::ops::Range;

/// Parts that are decoded side by side.
const SIDE_BY_SIDE: usize = 4;
/// Codes that are looked up in a turn of a part: with the seven bits before a whole byte they are
/// in a word, of which the highest bit is taken.
const LOOKUPS: usize = 5;
const _: () = assert!(LOOKUPS * MOST_LITERAL_BITS + 7 < 64, "a turn is in a word");
/// Literals that are looked up at once, at most, and the bytes that are stored for them.
const MOST_LITERALS: usize = 3;
const STORED_BYTES: usize = 4;
/// Bytes that a turn makes at most, and those that it may store.
const TURN_BYTES: usize = LOOKUPS * MOST_LITERALS;
const WINDOW: usize = TURN_BYTES + STORED_BYTES;
/// Bytes of input that a turn takes at most, and that it reads.
const TURN_INPUT: usize = 7;
const READ_BYTES: usize = 8;
/// Fewer turns than these are not worth it.
const FEWEST_TURNS: usize = 4;

/// By the next bits: the literals there, from the lowest bits to the highest: how many bits they
/// take (6 bits; 0 if it is the end), up to three literals, how many they are. (A shift by such a
/// word looks at its lowest six bits alone.)
type Entry = u32;
type Table = [Entry; 1 << MOST_LITERAL_BITS];
const LITERALS_SHIFT: u32 = 6;
const COUNT_SHIFT: u32 = 30;
const BITS_MASK: u32 = 0x3f;

/// A part: its blocks in the chunk, and its bytes in the chunk's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its blocks.
    pub blocks: Range<usize>,
    /// What they make.
    pub content: Range<usize>,
}

/// A part in work.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// Bits of the input that were taken.
    bit: usize,
    /// Bytes of the content that are made, and where the part ends.
    at: usize,
    end: usize,
}

/// A decoder of such parts; it can be used for one chunk after the other.
pub struct Literals {
    way: SimdLevel,
    tables: Box<[Table; SIDE_BY_SIDE]>,
    /// Of one literal each, for the table in the making.
    single: Box<Table>,
}

/// What there is of each part in work.
struct Slot {
    job: Job,
    stream: Stream,
    end_code: Code,
    /// It got nowhere: there is its end, or it is wrong.
    is_stuck: bool,
}

impl Literals {
    /// One that works in this way.
    pub fn new(way: SimdLevel) -> Self {
        let tables = vec![[0; 1 << MOST_LITERAL_BITS]; SIDE_BY_SIDE].into_boxed_slice();
        let tables = tables.try_into().unwrap_or_else(|_| unreachable!("as many as were made"));
        Self { way, tables, single: Box::new([0; 1 << MOST_LITERAL_BITS]) }
    }

    /// Decodes parts of a chunk. Those that are left are of another form, or wrong.
    pub fn decode(&mut self, encoded: &[u8], content: &mut [u8], jobs: &mut Vec<Job>) {
        // The longest first, so that the last ones end together.
        jobs.sort_by_key(|job| job.blocks.len());
        let mut left = Vec::new();
        let mut slots: Vec<Slot> = Vec::with_capacity(SIDE_BY_SIDE);
        loop {
            while slots.len() < SIDE_BY_SIDE
                && let Some(job) = jobs.pop()
            {
                match self.begin(slots.len(), encoded, &job) {
                    Some((bit, end_code)) => {
                        let stream = Stream { bit, at: job.content.start, end: job.content.end };
                        slots.push(Slot { job, stream, end_code, is_stuck: false });
                    }
                    None => left.push(job),
                }
            }
            if slots.is_empty() {
                break;
            }
            self.turns(encoded, content, &mut slots);
            // Those that have come to their end, and those that do not get there.
            for index in (0..slots.len()).rev() {
                if turns(&slots[index].stream, encoded) >= FEWEST_TURNS && !slots[index].is_stuck {
                    continue;
                }
                let mut slot = slots.swap_remove(index);
                if !finish(&self.tables[index], encoded, content, &mut slot) {
                    left.push(slot.job);
                }
                self.tables.swap(index, slots.len());
            }
        }
        *jobs = left;
    }

    /// Reads the header of a part and makes its table. Gives the bits that it takes and the code of
    /// the end; `None` if it is not of this form.
    fn begin(&mut self, slot: usize, encoded: &[u8], job: &Job) -> Option<(usize, Code)> {
        let mut bits = Bits::new(&encoded[job.blocks.clone()]);
        if bits.take(3).ok()? != u32::from(CODED) {
            return None;
        }
        let mut all = [0; MOST_LENGTHS];
        let (lengths, _) = read_lengths(&mut bits, &mut all).ok()?;
        let (literals, others) = lengths.split_at(SYMBOLS);
        let is_too_long = |length: &u8| usize::from(*length) > MOST_LITERAL_BITS;
        if others.iter().any(|length| *length > 0) || literals.iter().any(is_too_long) {
            return None;
        }
        let end_code = self.set_table(slot, literals);
        Some((8 * job.blocks.start + bits.taken(), end_code))
    }

    /// Makes the table of complete codes. Gives that of the end.
    fn set_table(&mut self, slot: usize, lengths: &[u8]) -> Code {
        let (table, single) = (&mut self.tables[slot], &mut self.single);
        let (mut end_code, mut shortest) = (Code::default(), MOST_LITERAL_BITS);
        for (symbol, code) in huffman::each_code(lengths).enumerate().filter(|(_, code)| code.length > 0) {
            let length = usize::from(code.length);
            let mut entry = (1 << COUNT_SHIFT) | (symbol as u32) << LITERALS_SHIFT | length as u32;
            if symbol == END {
                (entry, end_code) = (0, code);
            } else {
                shortest = shortest.min(length);
            }
            single[usize::from(code.bits)..].iter_mut().step_by(1 << length).for_each(|place| *place = entry);
        }
        table.copy_from_slice(&single[..]);
        let most = (MOST_LITERAL_BITS / shortest).min(MOST_LITERALS);
        self.way.run(Join { single, table, most });
        end_code
    }

    /// As many turns of each part as are safe for all.
    fn turns(&mut self, encoded: &[u8], content: &mut [u8], slots: &mut [Slot]) {
        let count = slots.iter().map(|slot| turns(&slot.stream, encoded)).min().unwrap_or(0);
        if count < FEWEST_TURNS {
            return;
        }
        let mut streams = [Stream::default(); SIDE_BY_SIDE];
        streams.iter_mut().zip(slots.iter()).for_each(|(stream, slot)| *stream = slot.stream);
        let all = &mut streams[..slots.len()];
        self.way.run(Turns { tables: &self.tables, encoded, content, count, streams: all });
        for (slot, stream) in slots.iter_mut().zip(streams) {
            slot.is_stuck = stream.bit == slot.stream.bit;
            slot.stream = stream;
        }
    }
}

/// Puts up to so many literals into an entry, as far as their codes are seen there.
struct Join<'t> {
    single: &'t Table,
    table: &'t mut Table,
    most: usize,
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for before in 1..self.most as u32 {
            for (bits, entry) in (0u32..).zip(self.table.iter_mut()) {
                let next = self.single[bits.wrapping_shr(*entry) as usize % self.single.len()];
                let all_bits = (*entry & BITS_MASK).wrapping_add(next & BITS_MASK);
                // Both are literals, and the first ones are as many as they can be.
                let is_seen = (*entry >> COUNT_SHIFT == before) & (next != 0) & (all_bits <= MOST_LITERAL_BITS as u32);
                let literal = (next >> LITERALS_SHIFT & 0xff).wrapping_shl(8 * before + LITERALS_SHIFT);
                let joined = (*entry & !BITS_MASK).wrapping_add(1 << COUNT_SHIFT) | literal | all_bits;
                *entry = if is_seen { joined } else { *entry };
            }
        }
    }
}

/// Turns that a part can take and stay within its bounds and those of the input.
fn turns(stream: &Stream, encoded: &[u8]) -> usize {
    let room = stream.end.saturating_sub(stream.at + WINDOW) / TURN_BYTES;
    room.min(encoded.len().saturating_sub(stream.bit / 8 + READ_BYTES) / TURN_INPUT)
}

/// Decodes the rest of a part. False if it is not what it should be.
fn finish(table: &Table, encoded: &[u8], content: &mut [u8], slot: &mut Slot) -> bool {
    let Slot { job, stream: Stream { bit, at, .. }, end_code, .. } = slot;
    let peek = |bit: usize| {
        let mut word = [0; READ_BYTES];
        let bytes = &encoded[(bit / 8).min(job.blocks.end)..job.blocks.end];
        let count = bytes.len().min(READ_BYTES);
        word[..count].copy_from_slice(&bytes[..count]);
        u64::from_le_bytes(word) >> (bit % 8)
    };
    while *at < job.content.end {
        let entry = table[peek(*bit) as usize % table.len()];
        let count = (entry >> COUNT_SHIFT) as usize;
        if count == 0 || *at + count > job.content.end {
            return false;
        }
        let literals = (entry >> LITERALS_SHIFT).to_le_bytes();
        content[*at..*at + count].copy_from_slice(&literals[..count]);
        *at += count;
        *bit += (entry & BITS_MASK) as usize;
    }
    let end_bits = peek(*bit);
    // The end, and an empty stored block up to the last byte.
    *bit += usize::from(end_code.length);
    let tail = (*bit + 3).next_multiple_of(8);
    end_bits & ((1 << end_code.length) - 1) == u64::from(end_code.bits)
        && tail / 8 + 4 == job.blocks.end
        && peek(*bit) == 0xffff_0000 << (tail - *bit)
}

/// Turns of parts.
struct Turns<'t> {
    tables: &'t [Table; SIDE_BY_SIDE],
    encoded: &'t [u8],
    content: &'t mut [u8],
    count: usize,
    streams: &'t mut [Stream],
}

impl Kernel for Turns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for _ in 0..self.count {
            for (stream, table) in self.streams.iter_mut().zip(self.tables) {
                let (byte, mut at) = (stream.bit / 8, stream.at);
                let word = u64::from_le_bytes(*self.encoded[byte..byte + READ_BYTES].first_chunk().expect("eight bytes"));
                // The highest bit counts what is taken.
                let mut bits = (word >> (stream.bit % 8)) | 1 << 63;
                let window: &mut [u8; WINDOW] = self.content[at..at + WINDOW].first_chunk_mut().expect("a slice of this length");
                let mut made = 0;
                for _ in 0..LOOKUPS {
                    let entry = table[bits as usize % table.len()];
                    let place = made % (WINDOW - STORED_BYTES + 1);
                    window[place..place + STORED_BYTES].copy_from_slice(&(entry >> LITERALS_SHIFT).to_le_bytes());
                    made = made.wrapping_add((entry >> COUNT_SHIFT) as usize);
                    bits = bits.wrapping_shr(entry);
                }
                at = at.wrapping_add(made);
                stream.at = at;
                stream.bit = stream.bit.wrapping_add(bits.leading_zeros() as usize);
            }
        }
    }
}
