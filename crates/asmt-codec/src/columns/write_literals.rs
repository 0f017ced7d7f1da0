//! Parts that are one block of literals, written.
//!
//! Counting bytes would take longer than writing their codes. So bytes of which a sample has seen
//! few are counted by comparing with each of these, and bytes of which it has seen many are counted
//! in a fourth of the part, with a code for every byte.
//!
//! Promise: the same bytes whatever the CPU. Must never: believe a sample: a byte that it has not
//! seen has its code all the same.

use super::blocks::{END, MOST_LITERAL_BITS, SYMBOLS, write_codes};
use super::sample::Values;
use crate::bits::{Bits, Writer};
use crate::huffman;
use crate::simd::{Kernel, LANES, Lanes, PACKED_BITS, SimdLevel, WORDS};

const _: () = assert!(MOST_LITERAL_BITS <= PACKED_BITS as usize, "the longest code can be packed");
/// Room for a header, the end, and what is stored beyond it.
const SPARE_BYTES: usize = 1024;
/// Of so many bytes as these, one block of [`LANES`] is counted where bytes of all values are.
const COUNTED_EVERY: usize = 4 * LANES;
/// Parts of fewer bytes are counted whole.
const FEWEST_SAMPLED: usize = 16 << 10;
/// Literals that the portable way puts at once.
const AT_ONCE: usize = 5;
const _: () = assert!(AT_ONCE * MOST_LITERAL_BITS <= crate::bits::MOST_BITS as usize, "they can be put at once");

/// Writes such parts. It keeps room for one.
pub struct LiteralWriter {
    way: SimdLevel,
    room: Vec<u8>,
}

impl LiteralWriter {
    /// One that works in this way.
    pub fn new(way: SimdLevel) -> Self {
        Self { way, room: Vec::new() }
    }

    /// Writes a part. Gives its blocks; `None` if they are as many bytes as `most` or more.
    pub fn write(&mut self, content: &[u8], values: &Values, most: usize) -> Option<&[u8]> {
        let frequencies = frequencies(content, values, self.way);
        let lengths = huffman::lengths(&frequencies, MOST_LITERAL_BITS);
        let (mut bits, mut counted) = (0, 0);
        for (count, length) in frequencies[..END].iter().zip(&lengths) {
            bits += u64::from(*count) * u64::from(*length);
            counted += u64::from(*count);
        }
        if bits / 8 * content.len() as u64 / counted.max(1) >= most as u64 {
            return None;
        }
        let needed = content.len() * MOST_LITERAL_BITS / 8 + SPARE_BYTES;
        if self.room.len() < needed {
            self.room.resize(needed, 0);
        }
        let codes: Vec<Bits> = huffman::each_code(&lengths).map(Bits::of_code).collect();
        let mut writer = Writer::new(&mut self.room);
        write_codes(&mut writer, &lengths, &[0]);
        if self.way.packs() {
            self.way.run(Pack { content, table: &packed(&codes), writer: &mut writer });
        } else {
            self.way.run(Put { content, codes: &codes, writer: &mut writer });
        }
        writer.put(codes[END]);
        let end = writer.flush();
        (end < most).then(|| &self.room[..end])
    }
}

/// How often each byte is there, and the end; of some kinds of parts in proportion only, but never
/// none if it is there.
fn frequencies(content: &[u8], values: &Values, way: SimdLevel) -> [u32; SYMBOLS] {
    let mut frequencies = [0; SYMBOLS];
    match values {
        Values::Few(few) if way.compares() => {
            way.run(CountFew { content, few, frequencies: &mut frequencies });
            if frequencies.iter().sum::<u32>() as usize != content.len() {
                count([content].into_iter(), &mut frequencies);
            }
        }
        Values::Many if content.len() >= FEWEST_SAMPLED => {
            count(content.chunks(COUNTED_EVERY).map(|part| &part[..part.len().min(LANES)]), &mut frequencies);
            // Those that were not seen have a code, too.
            frequencies[..END].iter_mut().for_each(|count| *count = 2 * *count + 1);
        }
        _ => count([content].into_iter(), &mut frequencies),
    }
    frequencies[END] = 1;
    frequencies
}

/// Counts bytes of parts. In turns in four tables, as to count the same byte again would have to
/// wait for the one before.
fn count<'c>(parts: impl Iterator<Item = &'c [u8]>, frequencies: &mut [u32; SYMBOLS]) {
    // No part has more than 2^32 bytes.
    let mut tables = [[0u32; 256]; 4];
    for part in parts {
        let (fours, rest) = part.as_chunks::<4>();
        for four in fours {
            for (table, byte) in tables.iter_mut().zip(four) {
                table[usize::from(*byte)] = table[usize::from(*byte)].wrapping_add(1);
            }
        }
        rest.iter().for_each(|byte| tables[0][usize::from(*byte)] += 1);
    }
    for (byte, frequency) in frequencies[..END].iter_mut().enumerate() {
        *frequency = tables.iter().map(|table| table[byte]).sum::<u32>();
    }
}

/// Counts bytes of these values.
struct CountFew<'c> {
    content: &'c [u8],
    few: &'c [u8],
    frequencies: &'c mut [u32; SYMBOLS],
}

impl Kernel for CountFew<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (blocks, rest) = self.content.as_chunks::<LANES>();
        for value in self.few {
            let (all, mut count) = ([*value; LANES], 0);
            for block in blocks {
                count += lanes.equal(block, &all).count_ones();
            }
            self.frequencies[usize::from(*value)] = count + rest.iter().filter(|byte| *byte == value).count() as u32;
        }
    }
}

/// Codes as [`Lanes::pack`] takes them.
fn packed(codes: &[Bits]) -> [[u8; 256]; 2] {
    let mut table = [[0; 256]; 2];
    for (byte, code) in codes[..END].iter().enumerate() {
        let entry = code.bits() as u16 | (code.count() as u16) << PACKED_BITS;
        [table[0][byte], table[1][byte]] = entry.to_le_bytes();
    }
    table
}

/// Writes the codes of all bytes, many looked up at once.
struct Pack<'p, 'o> {
    content: &'p [u8],
    table: &'p [[u8; 256]; 2],
    writer: &'p mut Writer<'o>,
}

impl Kernel for Pack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut writer = self.writer.take();
        let (mut words, mut counts) = ([0; WORDS], [0; WORDS]);
        let (blocks, rest) = self.content.as_chunks::<LANES>();
        for block in blocks {
            let made = lanes.pack(self.table, block, &mut words, &mut counts);
            for (word, count) in words[..WORDS / 2].iter().zip(&counts) {
                writer.put_wide(*word, *count as u32);
            }
            if made > WORDS / 2 {
                for (word, count) in words[WORDS / 2..].iter().zip(&counts[WORDS / 2..]) {
                    writer.put_wide(*word, *count as u32);
                }
            }
        }
        let [low, high] = self.table;
        for byte in rest {
            let code = u16::from_le_bytes([low[usize::from(*byte)], high[usize::from(*byte)]]);
            writer.put(Bits::new(u32::from(code & ((1 << PACKED_BITS) - 1)), u32::from(code >> PACKED_BITS)));
        }
        *self.writer = writer;
    }
}

/// Writes the codes of all bytes, looked up one by one.
struct Put<'p, 'o> {
    content: &'p [u8],
    codes: &'p [Bits],
    writer: &'p mut Writer<'o>,
}

impl Kernel for Put<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let codes: &[Bits; 256] = self.codes.first_chunk().expect("a code for each byte");
        let mut writer = self.writer.take();
        let (groups, rest) = self.content.as_chunks::<AT_ONCE>();
        for group in groups {
            let (mut word, mut count) = (0, 0u32);
            for byte in group {
                let code = codes[usize::from(*byte)];
                word |= code.bits().wrapping_shl(count);
                count = count.wrapping_add(code.count());
            }
            writer.put_wide(word, count);
        }
        rest.iter().for_each(|byte| writer.put(codes[usize::from(*byte)]));
        *self.writer = writer;
    }
}
