//! The forms of blocks that a part can have: stored, a run of one byte, and the header of a block
//! of literals alone ([`super::write_literals`]).
//!
//! Promise: every part begins and ends with a whole byte. Must never: refer to bytes before the
//! part.

use super::head::{STORED_BLOCK_BYTES, STORED_HEADER_BYTES};
use crate::bits::{Bits, LENGTHS, LONGEST, SHORTEST, Writer};
use crate::huffman;

/// Bits of the longest code of a literal: a table of one level has room for all, and several such
/// tables have room in the fastest cache. (With 11 bits an index gets a thousandth smaller, and its
/// decoder a tenth slower.)
pub const MOST_LITERAL_BITS: usize = 10;
/// The first three bits of a block that is not the last and brings its codes.
pub const CODED: u8 = 4;
/// Literals, and the end.
pub const SYMBOLS: usize = 257;
/// Symbol of the end.
pub const END: usize = 256;

/// Bytes of a part that is stored.
pub fn stored_bytes(content_bytes: usize) -> usize {
    content_bytes + content_bytes.div_ceil(STORED_BLOCK_BYTES) * STORED_HEADER_BYTES
}

/// Writes stored blocks to the beginning of `output`, which has room for them.
pub fn store(content: &[u8], output: &mut [u8]) {
    let mut rest = output;
    for block in content.chunks(STORED_BLOCK_BYTES) {
        let (place, behind) = rest.split_at_mut(STORED_HEADER_BYTES + block.len());
        stored_header(block.len(), place);
        place[STORED_HEADER_BYTES..].copy_from_slice(block);
        rest = behind;
    }
}

/// The lengths of the stored blocks that blocks begin with.
pub fn stored_lengths(blocks: &[u8]) -> impl Iterator<Item = usize> {
    let mut rest = blocks;
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_first_chunk::<STORED_HEADER_BYTES>()?;
        let [kind, low, high, ..] = *header;
        let length = u16::from_le_bytes([low, high]);
        let is_stored = kind == 0 && header[3..] == (!length).to_le_bytes() && usize::from(length) <= behind.len();
        rest = if is_stored { &behind[usize::from(length)..] } else { &[] };
        is_stored.then_some(usize::from(length))
    })
}

/// Whether blocks are nothing but stored ones of so many bytes.
pub fn is_stored(blocks: &[u8], content_bytes: usize) -> bool {
    let (count, bytes) = stored_lengths(blocks).fold((0, 0), |(count, bytes), length| (count + 1, bytes + length));
    bytes == content_bytes && blocks.len() == bytes + count * STORED_HEADER_BYTES
}

fn stored_header(length: usize, place: &mut [u8]) {
    let length = u16::try_from(length).expect("a stored block's length fits 16 bits");
    place[0] = 0;
    place[1..3].copy_from_slice(&length.to_le_bytes());
    place[3..STORED_HEADER_BYTES].copy_from_slice(&(!length).to_le_bytes());
}

/// How a run of one byte is encoded: a stored block of the first one to three bytes, then a block
/// of matches of distance 1, which is the same for every byte; behind it an empty stored block. So
/// a reader knows it by comparing.
#[derive(Default)]
pub struct Run {
    /// Bytes of the run that `blocks` are of.
    length: usize,
    /// With zero for the byte.
    blocks: Vec<u8>,
}

impl Run {
    /// Bytes of the stored block: what matches leave, and one that they refer to.
    fn stored(length: usize) -> usize {
        1 + Some((length - 1) % LONGEST).filter(|rest| *rest < SHORTEST).unwrap_or(0)
    }

    /// Makes the blocks for a run of so many bytes, 1 at least.
    fn set(&mut self, length: usize) {
        if length == self.length {
            return;
        }
        self.length = length;
        let stored = Self::stored(length);
        let (longest, rest) = ((length - stored) / LONGEST, (length - stored) % LONGEST);
        self.blocks.clear();
        self.blocks.resize(STORED_HEADER_BYTES + stored + longest.div_ceil(4) + 64, 0);
        stored_header(stored, &mut self.blocks);
        let mut writer = Writer::new(&mut self.blocks[STORED_HEADER_BYTES + stored..]);
        // The longest match takes one bit, the other one and the end take two.
        let mut lengths = [0; 286];
        let rest_symbol = LENGTHS[rest];
        (lengths[285], lengths[END]) = (1, 1);
        if rest > 0 {
            (lengths[END], lengths[rest_symbol.symbol]) = (2, 2);
        }
        let codes = huffman::codes(&lengths);
        write_codes(&mut writer, &lengths, &[1]);
        let distance = Bits::new(0, 1);
        if rest > 0 {
            writer.put(Bits::of_code(codes[rest_symbol.symbol]).then(rest_symbol.extra()).then(distance));
        }
        let one = Bits::of_code(codes[285]).then(distance);
        (0..longest).for_each(|_| writer.put(one));
        writer.put(Bits::of_code(codes[END]));
        let end = writer.flush();
        self.blocks.truncate(STORED_HEADER_BYTES + stored + end);
    }

    /// The blocks of a run of so many bytes, 1 at least.
    pub fn encode(&mut self, byte: u8, length: usize) -> &[u8] {
        self.set(length);
        self.blocks[STORED_HEADER_BYTES..][..Self::stored(length)].fill(byte);
        &self.blocks
    }

    /// The byte of which these blocks make a run of so many, if they do in this form.
    pub fn decode(&mut self, blocks: &[u8], length: usize) -> Option<u8> {
        let byte = *blocks.get(STORED_HEADER_BYTES)?;
        // What is longer is no such run, and need not be compared.
        (length > 0 && blocks.len() <= length / 512 + 64 && self.encode(byte, length) == blocks).then_some(byte)
    }
}

/// The header of a block that is not the last, with these codes (RFC 1951, 3.2.7). There are
/// [`SYMBOLS`] lengths at least.
pub fn write_codes(writer: &mut Writer<'_>, lengths: &[u8], distance_lengths: &[u8]) {
    /// A code length, or one that repeats, with its extra bits.
    type Step = (u8, Bits);
    let mut steps: Vec<Step> = Vec::with_capacity(lengths.len() + distance_lengths.len());
    let all: Vec<u8> = lengths.iter().chain(distance_lengths).copied().collect();
    for row in all.chunk_by(|a, b| a == b) {
        let (length, mut left) = (row[0], row.len());
        if length > 0 {
            steps.push((length, Bits::default()));
            left -= 1;
        }
        while left > 0 {
            let (symbol, count, extra) = match (length, left) {
                (0, 11..) => (18, left.min(138), (left.min(138) - 11, 7)),
                (0, 3..) => (17, left, (left - 3, 3)),
                (1.., 3..) => (16, left.min(6), (left.min(6) - 3, 2)),
                _ => (length, 1, (0, 0)),
            };
            steps.push((symbol, Bits::new(extra.0 as u32, extra.1)));
            left -= count;
        }
    }
    let mut frequencies = [0; huffman::LENGTH_ORDER.len()];
    steps.iter().for_each(|(symbol, _)| frequencies[usize::from(*symbol)] += 1);
    let step_lengths = huffman::lengths(&frequencies, 7);
    let step_codes = huffman::codes(&step_lengths);
    let count = huffman::LENGTH_ORDER.iter().rposition(|symbol| step_lengths[*symbol] > 0).map_or(4, |last| 4.max(last + 1));
    let mut put = |bits: usize, count: u32| writer.put(Bits::new(bits as u32, count));
    put(usize::from(CODED), 3);
    put(lengths.len() - SYMBOLS, 5);
    put(distance_lengths.len() - 1, 5);
    put(count - 4, 4);
    for symbol in &huffman::LENGTH_ORDER[..count] {
        put(usize::from(step_lengths[*symbol]), 3);
    }
    for (symbol, extra) in steps {
        writer.put(Bits::of_code(step_codes[usize::from(symbol)]).then(extra));
    }
}
