//! A deflate decoder for whole chunks: all of the input and all of the room for the output are
//! there from the beginning.
//!
//! A chunk of the index is mostly literals of seven to ten bits, half of them random, and what
//! takes the time is that a code's place is known only when the length of the one before it is. So
//! the lengths of two codes are looked up at once ([`Codes::pairs`]): the length of the second
//! follows from its first bits alone, nearly always, as codes of one length lie together. What they
//! stand for is looked up beside that, where nothing waits for it.
//!
//! Promise: exactly the bytes that RFC 1951 says, to the last bit of the input and the last byte of
//! the output, or an error that says what was found. Stricter than zlib in one thing that no
//! encoder makes: a code of a single symbol is taken for distances alone. Must never: panic, run on
//! for ever or allocate (but for an error), whatever the input; believe a length or a distance.

use crate::huffman::{self, MAX_BITS};
use crate::simd::{Kernel, Lanes, SimdLevel};
use std::sync::LazyLock;

/// Most symbols a block can have codes for: literals, end, lengths; and distances (RFC 1951,
/// 3.2.7).
const MOST_SYMBOLS: usize = 286;
const MOST_DISTANCES: usize = 30;
/// Most lengths of codes that a block's header has.
pub const MOST_LENGTHS: usize = MOST_SYMBOLS + MOST_DISTANCES;
/// Symbols with a fixed code: two more than can occur.
const FIXED_SYMBOLS: usize = 288;
const FIXED_DISTANCES: usize = 32;
/// Symbol of the end of a block.
const END: usize = 256;
/// Bits that are looked up at once: of two codes' lengths, of a symbol, of a distance.
const PAIR_BITS: usize = 13;
const SYMBOL_BITS: usize = 11;
const DISTANCE_BITS: usize = 9;
/// Most bits of two codes that are taken at once: three times these are in the buffer after it was
/// filled.
const MOST_PAIR_BITS: u8 = 18;
/// Bits in the buffer after it was filled.
const FILLED_BITS: u32 = 56;
const _: () = assert!(3 * MOST_PAIR_BITS as u32 <= FILLED_BITS && SYMBOL_BITS <= MOST_PAIR_BITS as usize, "three steps at once");
const _: () = assert!(
    2 * MOST_PAIR_BITS as usize + 2 * SYMBOL_BITS <= 64 && 2 * MOST_PAIR_BITS as usize + PAIR_BITS <= 64,
    "the third step sees the bits that it looks at"
);
const _: () = assert!(MAX_BITS + 5 + MAX_BITS + 13 <= FILLED_BITS as usize, "a match is in the buffer after it was filled");

/// Bytes that are copied at once.
const COPIED: usize = 32;
const LONGEST: usize = 258;
/// Bytes that the fast loop may read and write in one turn: two fillings; three pairs or a literal
/// and the longest match, of which whole pieces are copied.
const FAST_INPUT: usize = 16;
const FAST_OUTPUT: usize = 8 + LONGEST + 2 * COPIED;

/// What a code stands for: in the lowest six bits, how many bits it and its extra bits take; from
/// bit 8, how many it takes alone; from bit 16, the length or distance that the extra bits are
/// added to, 0 for none; a literal has its value in the lowest eight bits. (A shift by such a word,
/// or by one shifted by eight, looks at its lowest six bits alone.)
type Entry = u32;
const CODE_SHIFT: u32 = 8;
const BASE_SHIFT: u32 = 16;
const COUNT_MASK: u32 = 0x3f;
const LENGTH_MASK: u32 = 0x1ff;
const DISTANCE_MASK: u32 = 0x7fff;
/// A symbol that is no literal: a length if it has a base, else the end, or one that means nothing.
const NO_LITERAL: Entry = 1 << 31;
const BLOCK_END: Entry = NO_LITERAL | (1 << 30);
/// Of symbols and of distances: the code is longer than what is looked up at once, or there is
/// none.
const LONG: Entry = NO_LITERAL;

/// Of a pair: no literal, or there are two, not one. Below that, the bits that they take.
const OTHER: u8 = 1 << 7;
const TWO: u8 = 1 << 6;
/// In place of a code's length: what begins so is not known to be a literal, or of what length.
const UNKNOWN: u8 = u8::MAX;

fn entry(base: u32, code_bits: u8, extra_bits: u32) -> Entry {
    (base << BASE_SHIFT) | (u32::from(code_bits) << CODE_SHIFT) | (u32::from(code_bits) + extra_bits)
}

/// What symbols mean: RFC 1951, 3.2.5.
fn symbol_entry(symbol: usize, code_bits: u8) -> Entry {
    let number = symbol as u32;
    match symbol {
        0..END => (u32::from(code_bits) << CODE_SHIFT) | number,
        END => BLOCK_END | entry(0, code_bits, 0),
        257..265 => NO_LITERAL | entry(number - 254, code_bits, 0),
        265..285 => {
            let extra_bits = (number - 261) / 4;
            NO_LITERAL | entry((((number - 261) % 4 + 4) << extra_bits) + 3, code_bits, extra_bits)
        }
        285 => NO_LITERAL | entry(LONGEST as u32, code_bits, 0),
        _ => NO_LITERAL | entry(0, code_bits, 0),
    }
}

fn distance_entry(symbol: usize, code_bits: u8) -> Entry {
    let number = symbol as u32;
    match symbol {
        0..4 => entry(number + 1, code_bits, 0),
        4..MOST_DISTANCES => {
            let extra_bits = number / 2 - 1;
            entry(((number % 2 + 2) << extra_bits) + 1, code_bits, extra_bits)
        }
        _ => NO_LITERAL | entry(0, code_bits, 0),
    }
}

/// Bits that an entry's code takes, and with its extra bits.
#[inline(always)]
fn code_bits(entry: Entry) -> u32 {
    (entry >> CODE_SHIFT) & COUNT_MASK
}

#[inline(always)]
fn all_bits(entry: Entry) -> u32 {
    entry & COUNT_MASK
}

/// What the extra bits add to an entry's base. `bits` begin with its code.
#[inline(always)]
fn extra(entry: Entry, bits: u64) -> usize {
    (bits & !u64::MAX.wrapping_shl(entry)).wrapping_shr(entry >> CODE_SHIFT) as usize
}

#[inline(always)]
fn base(entry: Entry, mask: u32) -> usize {
    ((entry >> BASE_SHIFT) & mask) as usize
}

/// Codes that are longer than what is looked up at once, by length: how many there are, and their
/// symbols in order.
struct Long<const SYMBOLS: usize> {
    counts: [u16; MAX_BITS + 1],
    sorted: [u16; SYMBOLS],
}

impl<const SYMBOLS: usize> Long<SYMBOLS> {
    const fn new() -> Self {
        Self { counts: [0; MAX_BITS + 1], sorted: [0; SYMBOLS] }
    }

    /// Of codes that are not over-subscribed.
    fn set(&mut self, lengths: &[u8]) {
        self.counts = [0; MAX_BITS + 1];
        lengths.iter().for_each(|length| self.counts[usize::from(*length)] += 1);
        self.counts[0] = 0;
        let mut at = [0; MAX_BITS + 2];
        (0..=MAX_BITS).for_each(|length| at[length + 1] = at[length] + usize::from(self.counts[length]));
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            self.sorted[at[usize::from(*length)]] = symbol as u16;
            at[usize::from(*length)] += 1;
        }
    }

    /// The symbol whose code the bits begin with, and its length.
    fn find(&self, mut bits: u64) -> Option<(usize, u8)> {
        let (mut code, mut first, mut before) = (0, 0, 0);
        for (length, count) in (1..).zip(&self.counts[1..]) {
            let count = usize::from(*count);
            code |= (bits & 1) as usize;
            bits >>= 1;
            if code < first + count {
                return Some((usize::from(self.sorted[before + code - first]), length));
            }
            before += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// The codes of a block.
struct Codes {
    /// By the next bits: how many bits one or two literals there take, if it is literals.
    pairs: [u8; 1 << PAIR_BITS],
    symbols: [Entry; 1 << SYMBOL_BITS],
    distances: [Entry; 1 << DISTANCE_BITS],
    long_symbols: Long<FIXED_SYMBOLS>,
    long_distances: Long<FIXED_DISTANCES>,
}

/// The codes of blocks that bring none (RFC 1951, 3.2.6).
static FIXED: LazyLock<Box<Codes>> = LazyLock::new(|| {
    let mut lengths = [8; FIXED_SYMBOLS];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    let mut codes = Codes::new();
    codes.set(&lengths, &[5; FIXED_DISTANCES]);
    codes
});

/// How much of the room for codes these lengths take: [`ALL_CODES`] is all of it.
fn taken(lengths: &[u8]) -> u32 {
    lengths.iter().filter(|length| **length > 0).map(|length| ALL_CODES >> length).sum()
}

const ALL_CODES: u32 = 1 << MAX_BITS;

/// Puts the entry of each code of at most `entries.len()`'s bits to wherever the bits looked up
/// begin with it.
fn fill(entries: &mut [Entry], lengths: &[u8], entry_of: impl Fn(usize, u8) -> Entry) {
    entries.fill(LONG);
    for (symbol, code) in huffman::each_code(lengths).enumerate().filter(|(_, code)| code.length > 0) {
        let found = entry_of(symbol, code.length);
        // None if the code is longer than what is looked up.
        if entries.len() >> code.length > 0 {
            entries[usize::from(code.bits)..].iter_mut().step_by(1 << code.length).for_each(|entry| *entry = found);
        }
    }
}

impl Codes {
    fn new() -> Box<Self> {
        Box::new(Self {
            pairs: [0; 1 << PAIR_BITS],
            symbols: [LONG; 1 << SYMBOL_BITS],
            distances: [LONG; 1 << DISTANCE_BITS],
            long_symbols: Long::new(),
            long_distances: Long::new(),
        })
    }

    /// Makes the tables for codes that are not over-subscribed.
    fn set(&mut self, lengths: &[u8], distance_lengths: &[u8]) {
        fill(&mut self.symbols, lengths, symbol_entry);
        fill(&mut self.distances, distance_lengths, distance_entry);
        self.long_symbols.set(lengths);
        self.long_distances.set(distance_lengths);
        self.set_pairs();
    }

    fn set_pairs(&mut self) {
        // By a number of bits and their value: the length of all that begins so. From the longest
        // to the shortest.
        let mut known = [UNKNOWN; 2 << SYMBOL_BITS];
        for (known, entry) in known[1 << SYMBOL_BITS..].iter_mut().zip(&self.symbols) {
            *known = if entry & NO_LITERAL == 0 { code_bits(*entry) as u8 } else { UNKNOWN };
        }
        for bits in (0..SYMBOL_BITS).rev() {
            let (shorter, longer) = known.split_at_mut(2 << bits);
            let (zero, one) = longer[..2 << bits].split_at(1 << bits);
            for ((known, zero), one) in shorter[1 << bits..].iter_mut().zip(zero).zip(one) {
                *known = if zero == one { *zero } else { UNKNOWN };
            }
        }
        for (bits, pair) in self.pairs.iter_mut().enumerate() {
            let first = self.symbols[bits % (1 << SYMBOL_BITS)];
            if first & NO_LITERAL != 0 {
                *pair = OTHER;
                continue;
            }
            let length = code_bits(first) as usize;
            // As many bits of the second are seen.
            let seen = (PAIR_BITS - length).min(SYMBOL_BITS);
            let second = known[(1 << seen) | ((bits >> length) & ((1 << seen) - 1))];
            let both = (length as u8).saturating_add(second);
            *pair = if both <= MOST_PAIR_BITS { both | TWO } else { length as u8 };
        }
    }

    /// The entry of the symbol that the bits begin with; [`LONG`] if they begin with no code.
    fn symbol(&self, bits: u64) -> Entry {
        match self.symbols[bits as usize % (1 << SYMBOL_BITS)] {
            LONG => self.long_symbols.find(bits).map_or(LONG, |(symbol, length)| symbol_entry(symbol, length)),
            entry => entry,
        }
    }

    fn distance(&self, bits: u64) -> Entry {
        match self.distances[bits as usize % (1 << DISTANCE_BITS)] {
            LONG => self.long_distances.find(bits).map_or(LONG, |(symbol, length)| distance_entry(symbol, length)),
            entry => entry,
        }
    }
}

/// The input as bits. Above the `count` that are reckoned with there may be more in the buffer:
/// those that follow.
#[derive(Clone, Copy)]
pub struct Bits<'i> {
    input: &'i [u8],
    /// Bytes of the input whose bits are reckoned with.
    at: usize,
    buffer: u64,
    count: u32,
}

impl<'i> Bits<'i> {
    /// From the first bit of the input on.
    pub fn new(input: &'i [u8]) -> Self {
        Self { input, at: 0, buffer: 0, count: 0 }
    }

    /// Bits that were taken.
    pub fn taken(&self) -> usize {
        8 * self.at - self.count as usize
    }

    /// Fills the buffer to [`FILLED_BITS`] at least. Eight bytes of input must be left.
    #[inline(always)]
    fn fill_fast(&mut self) {
        let word = u64::from_le_bytes(*self.input[self.at..self.at + 8].first_chunk().expect("a slice of this length"));
        self.buffer |= word.wrapping_shl(self.count);
        // There are at most 63: whole bytes are added until there are 56 at least.
        self.at = self.at.wrapping_add((63u32.wrapping_sub(self.count) >> 3) as usize);
        self.count |= FILLED_BITS;
    }

    /// Drops bits. They must be there.
    #[inline(always)]
    fn skip_fast(&mut self, count: u32) {
        self.buffer = self.buffer.wrapping_shr(count);
        self.count = self.count.wrapping_sub(count);
    }

    /// Fills the buffer as far as there is input.
    fn fill(&mut self) {
        while self.count < FILLED_BITS
            && let Some(byte) = self.input.get(self.at)
        {
            self.buffer |= u64::from(*byte) << self.count;
            self.count += 8;
            self.at += 1;
        }
    }

    /// As above, of a pair.
    #[inline(always)]
    fn skip_pair(&mut self, pair: u8) {
        // The shift looks at the lowest six bits alone.
        self.buffer = self.buffer.wrapping_shr(u32::from(pair));
        self.count = self.count.wrapping_sub(u32::from(pair) & COUNT_MASK);
    }

    /// Drops bits that were looked at, if the input has them.
    fn skip(&mut self, count: u32) -> Result<(), String> {
        if count > self.count {
            return Err(format!("its {} bytes end within a block", self.input.len()));
        }
        self.skip_fast(count);
        Ok(())
    }

    /// Takes at most 32 bits.
    pub fn take(&mut self, count: u32) -> Result<u32, String> {
        self.fill();
        let bits = self.buffer & ((1 << count) - 1);
        self.skip(count)?;
        Ok(bits as u32)
    }

    fn is_at_end(&self) -> bool {
        self.at == self.input.len() && self.count == 0
    }

    /// Bytes from the next whole one on; the buffer is given back.
    fn take_bytes(&mut self, count: impl FnOnce(&mut Self) -> Result<usize, String>) -> Result<&[u8], String> {
        self.skip(self.count % 8)?;
        let count = count(self)?;
        let from = self.at - (self.count / 8) as usize;
        (self.buffer, self.count) = (0, 0);
        let left = self.input.len() - from;
        if count > left {
            return Err(format!("a stored block of {count} bytes, but {left} are left"));
        }
        self.at = from + count;
        Ok(&self.input[from..from + count])
    }
}

/// A decoder; it can be used for one chunk after the other.
pub struct Inflater {
    way: SimdLevel,
    /// Of the block in work, if it brings its own.
    codes: Box<Codes>,
}

impl Inflater {
    /// One that works in this way.
    pub fn new(way: SimdLevel) -> Self {
        Self { way, codes: Codes::new() }
    }

    /// Decodes blocks, none of which is the last of a stream, into exactly `output`. The error says
    /// what was found.
    pub fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), String> {
        let mut work = Work { bits: Bits::new(input), output, at: 0 };
        while !work.bits.is_at_end() {
            if work.bits.take(1)? == 1 {
                return Err("it has a block that ends the stream".to_owned());
            }
            match work.bits.take(2)? {
                0 => work.stored()?,
                1 => work.block(&FIXED, self.way)?,
                2 => {
                    work.read_codes(&mut self.codes)?;
                    work.block(&self.codes, self.way)?;
                }
                other => return Err(format!("it has a block of type {other}, expected 0, 1 or 2")),
            }
        }
        let (found, expected) = (work.at, work.output.len());
        if found == expected { Ok(()) } else { Err(format!("it decompresses to {found} bytes, expected {expected}")) }
    }
}

/// A chunk in work.
struct Work<'i, 'o> {
    bits: Bits<'i>,
    output: &'o mut [u8],
    /// Bytes made.
    at: usize,
}

impl Work<'_, '_> {
    /// Room for so many bytes more.
    fn room(&self, count: usize) -> Result<(), String> {
        let (made, expected) = (self.at + count, self.output.len());
        if made <= expected { Ok(()) } else { Err(format!("it decompresses to {made} bytes or more, expected {expected}")) }
    }

    fn stored(&mut self) -> Result<(), String> {
        let bytes = self.bits.take_bytes(|bits| {
            let (length, complement) = (bits.take(16)?, bits.take(16)?);
            if length ^ complement != 0xffff {
                return Err(format!("a stored block's length is {length:#06x}, its complement {complement:#06x}"));
            }
            Ok(length as usize)
        })?;
        let count = bytes.len();
        let (made, expected) = (self.at + count, self.output.len());
        let room = self.output.get_mut(self.at..made);
        let room = room.ok_or_else(|| format!("it decompresses to {made} bytes or more, expected {expected}"))?;
        room.copy_from_slice(bytes);
        self.at = made;
        Ok(())
    }

    /// Reads the header of a block that brings its codes (RFC 1951, 3.2.7).
    fn read_codes(&mut self, codes: &mut Codes) -> Result<(), String> {
        let mut all = [0; MOST_LENGTHS];
        let (lengths, distance_lengths) = read_lengths(&mut self.bits, &mut all)?;
        codes.set(lengths, distance_lengths);
        Ok(())
    }

    /// Decodes a block behind its header.
    fn block(&mut self, codes: &Codes, way: SimdLevel) -> Result<(), String> {
        loop {
            way.run(Fast { work: self, codes });
            // What the fast loop leaves: ends, long codes, errors.
            self.bits.fill();
            let entry = codes.symbol(self.bits.buffer);
            if entry & NO_LITERAL == 0 {
                self.bits.skip(code_bits(entry))?;
                self.room(1)?;
                self.output[self.at] = entry as u8;
                self.at += 1;
                continue;
            }
            let length = base(entry, LENGTH_MASK) + extra(entry, self.bits.buffer);
            self.bits.skip(all_bits(entry))?;
            if entry & BLOCK_END == BLOCK_END {
                return Ok(());
            }
            if base(entry, LENGTH_MASK) == 0 {
                return Err(format!("it has an invalid symbol code after {} bytes of output", self.at));
            }
            self.bits.fill();
            let entry = codes.distance(self.bits.buffer);
            let distance = base(entry, DISTANCE_MASK) + extra(entry, self.bits.buffer);
            self.bits.skip(all_bits(entry))?;
            if base(entry, DISTANCE_MASK) == 0 {
                return Err(format!("it has an invalid distance code after {} bytes of output", self.at));
            }
            if distance > self.at {
                return Err(format!("it has a distance of {distance} after {} bytes of output", self.at));
            }
            self.room(length)?;
            for at in self.at..self.at + length {
                self.output[at] = self.output[at - distance];
            }
            self.at += length;
        }
    }
}

/// Reads the header of a block that brings its codes, behind its type (RFC 1951, 3.2.7). Gives the
/// lengths of the codes of symbols, of which there are at least [`END`] + 1, and of distances. Both
/// are complete; a code for distances may also be of one, or none.
pub fn read_lengths<'a>(bits: &mut Bits<'_>, all: &'a mut [u8; MOST_LENGTHS]) -> Result<(&'a [u8], &'a [u8]), String> {
    let (symbols, distances) = (bits.take(5)? as usize + 257, bits.take(5)? as usize + 1);
    let count = bits.take(4)? as usize + 4;
    if symbols > MOST_SYMBOLS || distances > MOST_DISTANCES {
        let most = format!("at most {MOST_SYMBOLS} and {MOST_DISTANCES}");
        return Err(format!("a block has codes for {symbols} symbols and {distances} distances, expected {most}"));
    }
    let mut code_lengths = [0; huffman::LENGTH_ORDER.len()];
    for symbol in &huffman::LENGTH_ORDER[..count] {
        code_lengths[*symbol] = bits.take(3)? as u8;
    }
    complete(&code_lengths, "lengths")?;
    let mut entries = [LONG; 1 << LENGTH_CODE_BITS];
    fill(&mut entries, &code_lengths, |symbol, bits| (u32::from(bits) << CODE_SHIFT) | symbol as u32);
    let all = &mut all[..symbols + distances];
    let mut at = 0;
    while at < all.len() {
        bits.fill();
        let entry = entries[bits.buffer as usize % entries.len()];
        bits.skip(code_bits(entry))?;
        let (count, length) = match entry & 0xff {
            length @ 0..16 => (1, length as u8),
            16 if at == 0 => return Err("a block's first code length repeats one before it".to_owned()),
            16 => (3 + bits.take(2)? as usize, all[at - 1]),
            17 => (3 + bits.take(3)? as usize, 0),
            _ => (11 + bits.take(7)? as usize, 0),
        };
        let (end, most) = (at + count, all.len());
        all.get_mut(at..end).ok_or_else(|| format!("a block has {end} code lengths, expected {most}"))?.fill(length);
        at = end;
    }
    let (lengths, distance_lengths) = all.split_at(symbols);
    if lengths[END] == 0 {
        return Err("a block has no code for its end".to_owned());
    }
    complete(lengths, "literals")?;
    // A code for one distance takes one bit, and leaves the other unused; without matches there
    // is none.
    if !matches!((taken(distance_lengths), distance_lengths.iter().max()), (0, _) | (SINGLE_CODE, Some(1))) {
        complete(distance_lengths, "distances")?;
    }
    Ok((lengths, distance_lengths))
}

/// Bits of the longest code of a length, and what a code of a single bit takes of all.
const LENGTH_CODE_BITS: usize = 7;
const SINGLE_CODE: u32 = ALL_CODES / 2;

fn complete(lengths: &[u8], what: &str) -> Result<(), String> {
    match taken(lengths) {
        ALL_CODES => Ok(()),
        taken => Err(format!("a block's code for {what} takes {taken} of {ALL_CODES} codes, expected all")),
    }
}

/// The loop for nearly everything: as long as there is input and room enough not to look at either
/// for each symbol. It stops in front of what it leaves to others.
struct Fast<'w, 'i, 'o> {
    work: &'w mut Work<'i, 'o>,
    codes: &'w Codes,
}

impl Kernel for Fast<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { work, codes } = self;
        let (Some(last_input), Some(last_output)) =
            (work.bits.input.len().checked_sub(FAST_INPUT), work.output.len().checked_sub(FAST_OUTPUT))
        else {
            return;
        };
        // Copied, to be kept in registers.
        let (mut bits, mut at) = (work.bits, work.at);
        let output = &mut *work.output;
        // Nothing here can overflow: counts of bits as the constants' assertions say, and places as
        // the loop's condition.
        'turns: while bits.at <= last_input && at <= last_output {
            bits.fill_fast();
            let entry = 'no_literal: {
                macro_rules! step {
                    () => {
                        let pair = codes.pairs[bits.buffer as usize % (1 << PAIR_BITS)];
                        let first = codes.symbols[bits.buffer as usize % (1 << SYMBOL_BITS)];
                        if pair >= OTHER {
                            break 'no_literal first;
                        }
                        // Stored in any case, and overwritten if the pair does not take it.
                        let behind = bits.buffer.wrapping_shr(first >> CODE_SHIFT);
                        let second = codes.symbols[behind as usize % (1 << SYMBOL_BITS)];
                        let both = u16::from(first as u8) | ((second as u16) << 8);
                        output[at..at + 2].copy_from_slice(&both.to_le_bytes());
                        at = at.wrapping_add(1 + usize::from(pair >> TWO.trailing_zeros()));
                        bits.skip_pair(pair);
                    };
                }
                step!();
                step!();
                step!();
                continue 'turns;
            };
            bits.fill_fast();
            let length = base(entry, LENGTH_MASK).wrapping_add(extra(entry, bits.buffer));
            let behind = bits.buffer.wrapping_shr(entry);
            let further = codes.distances[behind as usize % (1 << DISTANCE_BITS)];
            let distance = base(further, DISTANCE_MASK).wrapping_add(extra(further, behind));
            if base(entry, LENGTH_MASK) == 0 || base(further, DISTANCE_MASK) == 0 || distance > at {
                break;
            }
            bits.buffer = behind.wrapping_shr(further);
            bits.count = bits.count.wrapping_sub(all_bits(entry).wrapping_add(all_bits(further)));
            copy(output, at, distance, length);
            at = at.wrapping_add(length);
        }
        (work.bits, work.at) = (bits, at);
    }
}

/// Copies a match. May write up to [`COPIED`] bytes more than `length`, for which there must be
/// room.
#[inline(always)]
fn copy(output: &mut [u8], at: usize, distance: usize, length: usize) {
    let end = at.wrapping_add(length);
    let from = at.wrapping_sub(distance);
    if distance >= COPIED || distance == 1 {
        // A run of one byte or a piece from before: no branch for what nobody could guess.
        let (is_run, byte) = (&IS_RUN[usize::from(distance == 1)], output[from]);
        // Of a run nothing else is needed, and what was stored just now would have to be waited
        // for.
        let earlier = if distance == 1 { 0 } else { from };
        let mut piece: [u8; COPIED] = *output[earlier..earlier + COPIED].first_chunk().expect("a slice of this length");
        piece.iter_mut().zip(is_run).for_each(|(at, is_run)| *at = (byte & is_run) | (*at & !is_run));
        output[at..at + COPIED].copy_from_slice(&piece);
        let mut done = at.wrapping_add(COPIED);
        while done < end {
            if distance > 1 {
                let from = done.wrapping_sub(distance);
                piece = *output[from..from + COPIED].first_chunk().expect("a slice of this length");
            }
            output[done..done + COPIED].copy_from_slice(&piece);
            done = done.wrapping_add(COPIED);
        }
        return;
    }
    let mut word = u64::from_le_bytes(*output[from..from + 8].first_chunk().expect("a slice of this length"));
    let mut done = at;
    if distance < 8 {
        // The same word again and again, as many whole distances further as are in it.
        word = (word & !u64::MAX.wrapping_shl(8 * distance as u32)).wrapping_mul(REPEATED[distance]);
        let step = 8 - 8 % distance;
        while done < end {
            output[done..done + 8].copy_from_slice(&word.to_le_bytes());
            done = done.wrapping_add(step);
        }
        return;
    }
    while done < end {
        let from = done.wrapping_sub(distance);
        word = u64::from_le_bytes(*output[from..from + 8].first_chunk().expect("a slice of this length"));
        output[done..done + 8].copy_from_slice(&word.to_le_bytes());
        done = done.wrapping_add(8);
    }
}

/// Masks from memory: by a comparison the compiler would make a branch of it.
static IS_RUN: [[u8; COPIED]; 2] = [[0; COPIED], [u8::MAX; COPIED]];

/// By a number of bytes: what repeats a word of so many in eight.
const REPEATED: [u64; 8] = {
    let mut all = [0u64; 8];
    let mut bytes = 1;
    while bytes < 8 {
        let mut at = 0;
        while at < 8 {
            all[bytes] |= 1 << (8 * at);
            at += bytes;
        }
        bytes += 1;
    }
    all
};
