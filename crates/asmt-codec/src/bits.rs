//! Bits of a deflate stream, and what writes them.
//!
//! Promise: bits stand in the stream in the order in which they are put, the lowest first. Must
//! never: write past the output.

use crate::{FULL_FLUSH, huffman};
use std::sync::LazyLock;

/// Bits that can be put at once: with the 7 that may be kept back they are fewer than 64.
pub const MOST_BITS: u32 = 56;

/// Deflate's shortest and longest match.
pub const SHORTEST: usize = 3;
/// See above.
pub const LONGEST: usize = 258;

/// Where the bits begin in a [`Bits`].
pub const BITS_SHIFT: u32 = 8;

/// Bits as they go into the stream, lowest first, and how many: the number in the lowest byte, the
/// bits above it. (A shift by such a word looks at its lowest six bits alone, and adding two adds
/// their numbers.)
#[derive(Clone, Copy, Default)]
pub struct Bits(pub u64);

impl Bits {
    /// So many of these bits.
    pub fn new(bits: u32, count: u32) -> Self {
        Self((u64::from(bits) << BITS_SHIFT) | u64::from(count))
    }

    /// A symbol's code.
    pub fn of_code(code: huffman::Code) -> Self {
        Self::new(u32::from(code.bits), u32::from(code.length))
    }

    /// How many there are.
    #[inline(always)]
    pub fn count(self) -> u32 {
        (self.0 & 0xff) as u32
    }

    /// The bits alone.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0 >> BITS_SHIFT
    }

    /// These bits and, behind them, others: right if there are at most [`MOST_BITS`] of them.
    #[inline(always)]
    pub fn then(self, next: Self) -> Self {
        let bits = self.bits() | next.bits().wrapping_shl(self.0 as u32);
        Self((bits << BITS_SHIFT) | ((self.0 & 0xff) + (next.0 & 0xff)))
    }
}

/// A length's symbol, the number of its extra bits, and their value (RFC 1951, 3.2.5).
#[derive(Clone, Copy, Default)]
pub struct Symbol {
    /// The symbol.
    pub symbol: usize,
    /// Bits behind its code.
    pub extra_bits: u32,
    /// Their value.
    pub extra: u32,
}

/// The symbol of each length.
pub static LENGTHS: LazyLock<[Symbol; LONGEST + 1]> = LazyLock::new(|| {
    let mut table = [Symbol::default(); LONGEST + 1];
    let mut length = SHORTEST;
    for symbol in 257..285 {
        let extra_bits = if symbol < 265 { 0 } else { (symbol as u32 - 261) / 4 };
        for extra in 0..1 << extra_bits {
            if length < LONGEST {
                table[length] = Symbol { symbol, extra_bits, extra };
            }
            length += 1;
        }
    }
    table[LONGEST] = Symbol { symbol: 285, extra_bits: 0, extra: 0 };
    table
});

impl Symbol {
    /// Its extra bits as they go into the stream.
    pub fn extra(self) -> Bits {
        Bits::new(self.extra, self.extra_bits)
    }
}

/// A distance's symbol, the number of its extra bits, and their value (RFC 1951, 3.2.5).
pub fn distance_symbol(distance: usize) -> Symbol {
    let before = distance as u32 - 1;
    if before < 4 {
        return Symbol { symbol: before as usize, extra_bits: 0, extra: 0 };
    }
    let extra_bits = before.ilog2() - 1;
    let symbol = 2 * extra_bits + (before >> extra_bits);
    Symbol { symbol: symbol as usize, extra_bits, extra: before & ((1 << extra_bits) - 1) }
}

/// Writes bits. Between two calls fewer than eight are kept back.
pub struct Writer<'o> {
    /// Where to.
    pub output: &'o mut [u8],
    /// Bytes that are whole.
    pub at: usize,
    bits: u64,
    count: u32,
}

impl<'o> Writer<'o> {
    /// From the beginning of the output on.
    pub fn new(output: &'o mut [u8]) -> Self {
        Self { output, at: 0, bits: 0, count: 0 }
    }

    /// The same, moved out: to be kept in registers in a loop, and put back behind it.
    #[inline(always)]
    pub fn take(&mut self) -> Self {
        let output = std::mem::take(&mut self.output);
        Writer { output, ..*self }
    }

    /// At most [`MOST_BITS`]. (Eight bytes are stored, of which those count that are whole.)
    #[inline(always)]
    pub fn put_wide(&mut self, bits: u64, count: u32) {
        self.bits |= bits.wrapping_shl(self.count);
        self.count = self.count.wrapping_add(count);
        self.output[self.at..self.at + 8].copy_from_slice(&self.bits.to_le_bytes());
        self.at += (self.count >> 3) as usize;
        self.bits = self.bits.wrapping_shr(self.count & !7);
        self.count &= 7;
    }

    /// The same.
    #[inline(always)]
    pub fn put(&mut self, bits: Bits) {
        self.put_wide(bits.bits(), bits.count());
    }

    /// Ends on a whole byte, by an empty stored block. Gives the number of bytes written.
    pub fn flush(&mut self) -> usize {
        // Its header is three bits before the next whole byte.
        self.put(Bits::new(0, 3));
        self.put(Bits::new(0, (8 - self.count) % 8));
        let end = self.at + FULL_FLUSH.len() - 1;
        self.output[self.at..end].copy_from_slice(&FULL_FLUSH[1..]);
        self.at = end;
        end
    }
}
