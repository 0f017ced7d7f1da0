//! A deflate encoder for tables: for data in which an element resembles the one a fixed distance
//! before it.
//!
//! It looks for two things alone: runs that equal what stands one, two or three strides before, and
//! runs of one byte; everything else is literals. One Huffman table a chunk, from a sample of it.
//! That makes the primary index (64-byte elements, half of them random digests and handles) as
//! small as a search for matches would, at ten times the speed. What is parsed is written token by
//! token, or packed, where the CPU looks up and merges codes of 64 bytes at once.
//!
//! Promise: what [`Stride::encode`] gives is one deflate block that is not the last, then a full
//! flush; the same bytes whatever the CPU. Must never: refer to bytes before the chunk, or write
//! past the output.

use crate::bits::{BITS_SHIFT, Bits, LENGTHS, LONGEST, MOST_BITS, SHORTEST, Writer, distance_symbol};
use crate::huffman;
use crate::simd::{Kernel, LANES, Lanes, PLANES, SimdLevel, WIDENED, WORDS};

/// Strides that are tried: elements of the primary index first (64 bytes), then words, handles and
/// b-tree nodes.
const STRIDES: [usize; 9] = [64, 8, 16, 5, 4, 24, 32, 128, 4096];
/// What a run can refer to: the byte before, and one, two and three strides before.
const REFERENCES: usize = 4;
/// Literals, the end, and lengths.
const SYMBOLS: usize = 286;
/// Symbol of the end of a block.
const END: usize = 256;
/// Bits of the longest code of these (deflate's own limit), and of a distance.
const MAX_CODE_BITS: usize = 15;
const MAX_DISTANCE_CODE_BITS: usize = 3;
/// Blocks of a sample that lie together, and how many are between their beginnings.
const SAMPLE_BLOCKS: usize = 32;
const SAMPLE_EVERY: usize = 1024;
/// How much more a symbol counts that was seen in the sample than one that was not.
const SEEN: u32 = 8;

/// A literal (0 to 255), or a run: see [`run_token`].
type Token = u16;
/// Tokens between those of two references.
const RUN: usize = 448;
/// A power of two, so that a token stays in a table's bounds by a mask.
const TOKENS: usize = 2048;
const _: () = assert!(END + RUN * REFERENCES <= TOKENS && LONGEST < RUN, "every token has its place");

/// The token of a run.
#[inline(always)]
const fn run_token(reference: usize, length: usize) -> usize {
    END.wrapping_add(RUN.wrapping_mul(reference)).wrapping_add(length)
}
/// Literals that are stored at once; those that are too many are overwritten by what follows.
const COPIED: usize = WIDENED;
/// Blocks that are parsed before their tokens are used.
const STEP: usize = 16;
/// Room for the tokens of a step: every byte a literal, a run that ends in it, and what is stored
/// too many.
const ROOM: usize = STEP * LANES + 1 + COPIED;
/// Most bytes a step can become.
const MOST_STEP_BYTES: usize = ROOM * 4;

/// How a chunk is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parse {
    stride: usize,
    /// Shortest run that is worth a match a stride back, which costs more bits than one of a single
    /// byte.
    least_run: usize,
}

/// A run that reached the end of its block and may go on in the next.
#[derive(Clone, Copy, Default)]
struct OpenRun {
    reference: usize,
    /// 0 for none.
    length: usize,
    /// Where in the chunk it begins.
    at: usize,
}

/// What becomes of a parsed chunk.
trait Sink {
    /// The `count` bytes of a chunk from `at` on are literals, which may be none.
    fn literals<L: Lanes>(&mut self, lanes: L, chunk: &[u8], at: usize, count: usize);

    /// A block is parsed; those of its bytes that are literals have a bit.
    fn end(&mut self, number: usize, literals: u64);

    /// A run begins at `at`. One that went on over blocks is told of when its end is known, before
    /// anything behind it.
    fn run(&mut self, at: usize, token: usize);
}

/// Tokens of a step.
struct Tokens {
    all: [Token; ROOM],
    count: usize,
}

impl Tokens {
    const fn new() -> Self {
        Self { all: [0; ROOM], count: 0 }
    }

    fn as_slice(&self) -> &[Token] {
        &self.all[..self.count]
    }
}

impl Sink for Tokens {
    /// Behind them there are [`COPIED`] bytes more.
    #[inline(always)]
    fn literals<L: Lanes>(&mut self, lanes: L, chunk: &[u8], at: usize, count: usize) {
        let bytes = &chunk[at..];
        let mut done = 0;
        // Once for nearly all: how many there are must not steer the program, as nobody could guess
        // it.
        loop {
            let source: &[u8; COPIED] = bytes[done..done + COPIED].first_chunk().expect("a slice of this length");
            let at = self.count + done;
            lanes.widen(source, self.all[at..at + COPIED].first_chunk_mut().expect("a slice of this length"));
            done += COPIED;
            if done >= count {
                break;
            }
        }
        self.count = self.count.wrapping_add(count);
    }

    #[inline(always)]
    fn end(&mut self, _: usize, _: u64) {}

    #[inline(always)]
    fn run(&mut self, _: usize, token: usize) {
        self.all[self.count] = token as Token;
        self.count = self.count.wrapping_add(1);
    }
}

/// Bits of `mask` that are in a run of at least `least` (3 or 4) ones.
#[inline(always)]
fn in_runs(mask: u64, least: usize) -> u64 {
    let pairs = mask & (mask >> 1);
    let starts = if least == 4 { pairs & (pairs >> 2) } else { pairs & (mask >> 2) };
    let spread = starts | (starts << 1) | (starts << 2);
    if least == 4 { spread | (starts << 3) } else { spread }
}

/// Ones from the lowest bit on.
#[inline(always)]
fn ones(mask: u64) -> usize {
    (!mask).trailing_zeros() as usize
}

#[inline(always)]
fn block(chunk: &[u8], at: usize) -> &[u8; LANES] {
    chunk[at..at + LANES].first_chunk().expect("a slice of this length")
}

#[inline(always)]
fn block_mut(bytes: &mut [u8], at: usize) -> &mut [u8; LANES] {
    bytes[at..at + LANES].first_chunk_mut().expect("a slice of this length")
}

/// Number of blocks of a chunk that are parsed: behind each there are bytes enough to store
/// literals at once.
fn block_count(chunk: &[u8]) -> usize {
    chunk.len().saturating_sub(COPIED) / LANES
}

impl Parse {
    /// Bytes between a run and what it refers to.
    fn distance(self, reference: usize) -> usize {
        if reference == 0 { 1 } else { reference * self.stride }
    }

    /// Parses one block of a chunk.
    #[expect(clippy::too_many_arguments, reason = "the loop's own state: measured, and kept in registers")]
    #[inline(always)]
    fn block<L: Lanes, S: Sink>(self, lanes: L, chunk: &[u8], number: usize, open: &mut OpenRun, sink: &mut S) {
        let at = number * LANES;
        let bytes = block(chunk, at);
        let mut same = [0; REFERENCES];
        for (reference, same) in same.iter_mut().enumerate() {
            let distance = self.distance(reference);
            *same = if at >= distance { lanes.equal(bytes, block(chunk, at - distance)) } else { 0 };
        }
        let mut runs = in_runs(same[0], SHORTEST);
        same[1..].iter().for_each(|same| runs |= in_runs(*same, self.least_run));
        let mut position = 0;
        if open.length > 0 {
            let more = ones(same[open.reference]).min(LONGEST - open.length);
            if more == LANES {
                open.length += LANES;
                sink.end(number, 0);
                return;
            }
            sink.run(open.at, run_token(open.reference, open.length + more));
            open.length = 0;
            position = more;
            runs &= u64::MAX << position;
        }
        let mut literals = !runs & (u64::MAX << position);
        // Inverted, so that shifts bring in what ends no run; none is longer than what is left of
        // the block.
        let differing = same.map(|same| !same);
        // Nothing here can overflow; to check it all the same would cost a tenth. And branches,
        // though many are not foreseen: without them each block, and each run, would have to wait
        // for the one before it.
        while runs != 0 {
            let start = runs.trailing_zeros() as usize;
            // The first row of ones carries out of itself.
            let carried = runs.wrapping_add(runs & runs.wrapping_neg());
            // The longest; of two of one length the nearer, whose distance takes fewer bits.
            let key = |reference: usize| {
                let length = (differing[reference] >> start).trailing_zeros() as usize;
                length.wrapping_mul(REFERENCES).wrapping_add(REFERENCES - 1 - reference)
            };
            let best = key(0).max(key(1)).max(key(2).max(key(3)));
            let (length, reference) = (best / REFERENCES, REFERENCES - 1 - best % REFERENCES);
            let length = length.min(LANES.wrapping_sub(start));
            let end = start.wrapping_add(length);
            let least = if reference == 0 { SHORTEST } else { self.least_run };
            if length < least {
                // What is left of a run after another one took its beginning: literals.
                let rest = cut(runs, start.wrapping_add(length.max(1)));
                literals |= runs & !rest;
                runs = rest;
                continue;
            }
            sink.literals(lanes, chunk, at.wrapping_add(position), start.wrapping_sub(position));
            if end == LANES {
                *open = OpenRun { reference, length, at: at.wrapping_add(start) };
                sink.end(number, literals);
                return;
            }
            sink.run(at.wrapping_add(start), run_token(reference, length));
            // Most rows are one run: what is behind is then known without waiting for its length.
            runs = if end == carried.trailing_zeros() as usize { runs & carried } else { cut(runs, end) };
            position = end;
        }
        sink.literals(lanes, chunk, at.wrapping_add(position), LANES.wrapping_sub(position));
        sink.end(number, literals);
    }
}

/// The bits of `mask` from a place on. Not inlined, so that it stays behind a branch: chosen
/// without one it would be waited for.
#[cold]
#[inline(never)]
fn cut(mask: u64, from: usize) -> u64 {
    if from < LANES { mask & (u64::MAX << from) } else { 0 }
}

/// Bytes a step parses.
const STEP_BYTES: usize = STEP * LANES;
/// Bits a lane holds at most: no code has more.
const LANE_BITS: u32 = MAX_CODE_BITS as u32;
/// Lanes a run is stored in: those it needs, which are no more than the bytes of the shortest, and
/// one to make it a word.
const RUN_LANES: usize = 4;

/// The bits of a run as lanes: low bytes, high bytes and numbers of bits, as [`Lanes::gather`]
/// takes them.
#[derive(Clone, Copy, Default)]
struct RunLanes {
    planes: [[u8; RUN_LANES]; PLANES],
    /// A bit for each lane that is needed.
    needed: u32,
}

impl RunLanes {
    fn new(bits: Bits) -> Self {
        let mut lanes = Self::default();
        for lane in 0..bits.count().div_ceil(LANE_BITS) {
            let part = bits.bits() >> (lane * LANE_BITS) & ((1 << LANE_BITS) - 1);
            let count = (bits.count() - lane * LANE_BITS).min(LANE_BITS);
            let lane = lane as usize;
            [lanes.planes[0][lane], lanes.planes[1][lane], lanes.planes[2][lane]] = [part as u8, (part >> 8) as u8, count as u8];
            lanes.needed |= 1 << lane;
        }
        lanes
    }
}

/// What packing looks up: the code of each byte by planes, and of each token as lanes.
struct PackTable {
    codes: [[u8; 256]; PLANES],
    runs: [RunLanes; TOKENS],
}

/// A step as it is packed: a lane for each byte, of which those are taken that are literals or that
/// runs were put into.
struct Packed {
    literals: [u64; STEP],
    runs: [u64; STEP],
    /// Where runs are put, at their beginnings.
    sparse: [[u8; STEP_BYTES + RUN_LANES]; PLANES],
    /// All that are taken, one behind the other.
    dense: [[u8; STEP_BYTES + LANES]; PLANES],
}

impl Packed {
    const fn new() -> Self {
        Self {
            literals: [0; STEP],
            runs: [0; STEP],
            sparse: [[0; STEP_BYTES + RUN_LANES]; PLANES],
            dense: [[0; STEP_BYTES + LANES]; PLANES],
        }
    }
}

/// Puts what a step parses to where it is packed.
struct Packing<'p> {
    packed: &'p mut Packed,
    table: &'p PackTable,
    /// Where the step begins.
    base: usize,
    /// The token of the run that began before the step and ends in it; 0, which is none of a run,
    /// if there is none.
    before: usize,
}

impl Sink for Packing<'_> {
    #[inline(always)]
    fn literals<L: Lanes>(&mut self, _: L, _: &[u8], _: usize, _: usize) {}

    #[inline(always)]
    fn end(&mut self, number: usize, literals: u64) {
        self.packed.literals[number % STEP] = literals;
    }

    #[inline(always)]
    fn run(&mut self, at: usize, token: usize) {
        let at = at.wrapping_sub(self.base);
        if at >= STEP_BYTES {
            self.before = token;
            return;
        }
        let run = &self.table.runs[token % TOKENS];
        for (sparse, run) in self.packed.sparse.iter_mut().zip(&run.planes) {
            sparse[at..at + RUN_LANES].copy_from_slice(run);
        }
        self.packed.runs[at / LANES] |= u64::from(run.needed) << (at % LANES);
    }
}

/// Everything that is needed to write a chunk.
pub struct Stride {
    parse: Parse,
    lengths: Vec<u8>,
    distance_lengths: Vec<u8>,
    /// The bits of each token.
    table: Box<[Bits; TOKENS]>,
    end: Bits,
    estimated_bytes: usize,
}

impl Stride {
    /// Finds the stride and the table that suit a chunk, from a sample of it.
    pub fn plan(chunk: &[u8], way: SimdLevel) -> Self {
        way.run(Plan(chunk))
    }

    /// From how often each token was seen in a sample.
    fn new(parse: Parse, seen: &[u32; TOKENS], sampled_bytes: usize, chunk_bytes: usize) -> Self {
        // Every symbol gets a code: the sample has not seen everything.
        let mut frequencies = [1; SYMBOLS];
        let mut distances = vec![0; distance_symbol(parse.distance(REFERENCES - 1)).symbol + 1];
        (frequencies.iter_mut().zip(&seen[..END])).for_each(|(frequency, seen)| *frequency += SEEN * seen);
        for reference in 0..REFERENCES {
            let runs = &seen[run_token(reference, 0)..][..=LONGEST];
            (LENGTHS.iter().zip(runs)).for_each(|(length, seen)| frequencies[length.symbol] += SEEN * seen);
            distances[distance_symbol(parse.distance(reference)).symbol] += 1 + SEEN * runs.iter().sum::<u32>();
        }
        frequencies[END] = 1;
        let lengths = huffman::lengths(&frequencies, MAX_CODE_BITS);
        let distance_lengths = huffman::lengths(&distances, MAX_DISTANCE_CODE_BITS);
        let (codes, distance_codes) = (huffman::codes(&lengths), huffman::codes(&distance_lengths));
        let mut table = Box::new([Bits::default(); TOKENS]);
        (table.iter_mut().zip(&codes[..END])).for_each(|(bits, code)| *bits = Bits::of_code(*code));
        for reference in 0..REFERENCES {
            let distance = distance_symbol(parse.distance(reference));
            let distance = Bits::of_code(distance_codes[distance.symbol]).then(distance.extra());
            for (length, symbol) in LENGTHS.iter().enumerate().skip(SHORTEST) {
                let length_bits = Bits::of_code(codes[symbol.symbol]).then(symbol.extra());
                table[run_token(reference, length)] = length_bits.then(distance);
            }
        }
        let bits: u64 = table.iter().zip(seen).map(|(bits, seen)| u64::from(bits.count()) * u64::from(*seen)).sum();
        let estimated = u128::from(bits / 8) * chunk_bytes as u128 / sampled_bytes.max(1) as u128;
        let estimated_bytes = usize::try_from(estimated).unwrap_or(usize::MAX);
        Self { parse, lengths, distance_lengths, table, end: Bits::of_code(codes[END]), estimated_bytes }
    }

    /// About how many bytes the chunk will become.
    pub fn estimated_bytes(&self) -> usize {
        self.estimated_bytes
    }

    /// Encodes the chunk that was planned, to the beginning of `output`. Gives the number of bytes;
    /// `None` if there was not room for them.
    pub fn encode(&self, chunk: &[u8], output: &mut [u8], way: SimdLevel) -> Option<usize> {
        self.encode_by(chunk, output, way, way.packs())
    }

    /// By packing or by tokens, which gives the same.
    pub(crate) fn encode_by(&self, chunk: &[u8], output: &mut [u8], way: SimdLevel, packs: bool) -> Option<usize> {
        // The header and the end take less than a step may.
        let most = output.len().checked_sub(3 * MOST_STEP_BYTES)?;
        let mut writer = Writer::new(output);
        let mut tokens = Tokens::new();
        let mut packed = Packed::new();
        let pack_table = packs.then(|| self.pack_table());
        let mut open = OpenRun::default();
        self.write_header(&mut writer);
        let count = block_count(chunk);
        for first in (0..count).step_by(STEP) {
            if writer.at > most {
                return None;
            }
            let blocks = first..count.min(first + STEP);
            let (parse, open) = (self.parse, &mut open);
            if let Some(pack_table) = &pack_table {
                let (writer, table) = (&mut writer, &self.table);
                way.run(PackStep { parse, chunk, blocks, open, packed: &mut packed, pack_table, writer, table });
            } else {
                tokens.count = 0;
                way.run(ParseStep { parse, chunk, blocks, open, tokens: &mut tokens });
                way.run(WriteStep { writer: &mut writer, table: &self.table, tokens: tokens.as_slice() });
            }
        }
        if open.length > 0 {
            writer.put(self.table[run_token(open.reference, open.length)]);
        }
        for byte in &chunk[count * LANES..] {
            writer.put(self.table[usize::from(*byte)]);
        }
        writer.put(self.end);
        Some(writer.flush())
    }

    fn pack_table(&self) -> Box<PackTable> {
        let mut pack = Box::new(PackTable { codes: [[0; 256]; PLANES], runs: [RunLanes::default(); TOKENS] });
        for (byte, bits) in self.table[..END].iter().enumerate() {
            let lanes = RunLanes::new(*bits);
            (pack.codes.iter_mut().zip(lanes.planes)).for_each(|(codes, plane)| codes[byte] = plane[0]);
        }
        (pack.runs.iter_mut().zip(self.table.iter())).for_each(|(run, bits)| *run = RunLanes::new(*bits));
        pack
    }

    /// The header of the block: type and both tables (RFC 1951, 3.2.7).
    fn write_header(&self, writer: &mut Writer<'_>) {
        let all: Vec<u8> = self.lengths.iter().chain(&self.distance_lengths).copied().collect();
        let mut frequencies = [0; huffman::LENGTH_ORDER.len()];
        all.iter().for_each(|length| frequencies[usize::from(*length)] += 1);
        let lengths = huffman::lengths(&frequencies, 7);
        let codes = huffman::codes(&lengths);
        let mut put = |bits: usize, count: u32| writer.put(Bits::new(bits as u32, count));
        // Not the last block; with tables of its own.
        put(0, 1);
        put(2, 2);
        put(self.lengths.len() - 257, 5);
        put(self.distance_lengths.len() - 1, 5);
        put(huffman::LENGTH_ORDER.len() - 4, 4);
        for symbol in huffman::LENGTH_ORDER {
            put(usize::from(lengths[symbol]), 3);
        }
        for length in all {
            writer.put(Bits::of_code(codes[usize::from(length)]));
        }
    }
}

struct Plan<'c>(&'c [u8]);

impl Kernel for Plan<'_> {
    type Output = Stride;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Stride {
        let chunk = self.0;
        let count = block_count(chunk);
        // Short rows of blocks all over the chunk; all of it where it is short.
        let every = if count > 4 * SAMPLE_EVERY { SAMPLE_EVERY } else { SAMPLE_BLOCKS };
        let rows = || {
            (0..count).step_by(every).map(|first| {
                // Not at even distances: what repeats in the data would be met at the same place
                // each time.
                let room = every.min(count - first).saturating_sub(SAMPLE_BLOCKS) as u64;
                let shift = (first as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let first = first + ((shift * (room + 1)) >> 24) as usize;
                first..count.min(first + SAMPLE_BLOCKS)
            })
        };
        let sampled_bytes = rows().map(|row| row.len() * LANES).sum();
        let stride = best_stride(lanes, chunk, rows());
        let mut tokens = Tokens::new();
        // Not by a closure: that would not be compiled for the CPU.
        let mut best: Option<Stride> = None;
        for least_run in [SHORTEST, SHORTEST + 1] {
            let parse = Parse { stride, least_run };
            let mut seen = [0; TOKENS];
            for row in rows() {
                let mut open = OpenRun::default();
                tokens.count = 0;
                for (number, parsed) in row.zip(1..) {
                    parse.block(lanes, chunk, number, &mut open, &mut tokens);
                    if parsed % STEP == 0 {
                        tokens.as_slice().iter().for_each(|token| seen[usize::from(*token)] += 1);
                        tokens.count = 0;
                    }
                }
                tokens.as_slice().iter().for_each(|token| seen[usize::from(*token)] += 1);
            }
            let planned = Stride::new(parse, &seen, sampled_bytes, chunk.len());
            if best.as_ref().is_none_or(|best| planned.estimated_bytes <= best.estimated_bytes) {
                best = Some(planned);
            }
        }
        best.expect("two were planned")
    }
}

/// The stride at which most is saved by runs.
#[inline(always)]
fn best_stride<L: Lanes>(lanes: L, chunk: &[u8], rows: impl Iterator<Item = std::ops::Range<usize>>) -> usize {
    /// About what a literal and a match take, in bits, the match without its distance.
    const BITS: i64 = 6;
    let mut gains = [0; STRIDES.len()];
    let match_bits = STRIDES.map(|stride| BITS + i64::from(distance_symbol(stride).extra_bits));
    for number in rows.flat_map(|row| row.step_by(4)) {
        let at = number * LANES;
        for ((gain, stride), match_bits) in gains.iter_mut().zip(STRIDES).zip(match_bits) {
            if at >= stride {
                let runs = in_runs(lanes.equal(block(chunk, at), block(chunk, at - stride)), SHORTEST + 1);
                let matches = i64::from((runs & !(runs << 1)).count_ones());
                *gain += BITS * i64::from(runs.count_ones()) - matches * match_bits;
            }
        }
    }
    let best = (0..STRIDES.len()).rev().max_by_key(|index| gains[*index]).unwrap_or(0);
    STRIDES[best]
}

/// Parses a step of a chunk: blocks `first..` into tokens.
struct ParseStep<'e> {
    parse: Parse,
    chunk: &'e [u8],
    blocks: std::ops::Range<usize>,
    open: &'e mut OpenRun,
    tokens: &'e mut Tokens,
}

impl Kernel for ParseStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Copied, to be kept in registers.
        let (parse, mut open) = (self.parse, *self.open);
        for number in self.blocks {
            parse.block(lanes, self.chunk, number, &mut open, self.tokens);
        }
        *self.open = open;
    }
}

/// Writes tokens as bits.
struct WriteStep<'e, 'o> {
    writer: &'e mut Writer<'o>,
    table: &'e [Bits; TOKENS],
    tokens: &'e [Token],
}

impl Kernel for WriteStep<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        // Moved out, to be kept in registers.
        let mut writer = self.writer.take();
        let bits_of = |token: Token| self.table[usize::from(token) % TOKENS].0;
        // Bits and their number apart, as neither has room for the other here: right for up to 64
        // bits.
        let pair = |a: u64, b: u64| ((a >> BITS_SHIFT) | (b >> BITS_SHIFT).wrapping_shl(a as u32), (a & 0xff) + (b & 0xff));
        let (fours, rest) = self.tokens.as_chunks::<4>();
        for four in fours {
            let [a, b, c, d] = four.map(bits_of);
            let (front, back) = (pair(a, b), pair(c, d));
            let count = (front.1 + back.1) as u32;
            if count <= MOST_BITS {
                writer.put_wide(front.0 | back.0.wrapping_shl(front.1 as u32), count);
            } else {
                // Long runs, one by one: two may be too much at once.
                [a, b, c, d].into_iter().for_each(|bits| writer.put(Bits(bits)));
            }
        }
        rest.iter().for_each(|token| writer.put(Bits(bits_of(*token))));
        *self.writer = writer;
    }
}

/// Parses a step of a chunk and writes it, with no tokens for literals: the codes of all bytes are
/// looked up at once.
struct PackStep<'e, 'o> {
    parse: Parse,
    chunk: &'e [u8],
    blocks: std::ops::Range<usize>,
    open: &'e mut OpenRun,
    packed: &'e mut Packed,
    pack_table: &'e PackTable,
    writer: &'e mut Writer<'o>,
    table: &'e [Bits; TOKENS],
}

impl Kernel for PackStep<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (parse, mut open, packed) = (self.parse, *self.open, self.packed);
        let base = self.blocks.start * LANES;
        let count = self.blocks.len();
        packed.literals = [0; STEP];
        packed.runs = [0; STEP];
        let mut sink = Packing { packed, table: self.pack_table, base, before: 0 };
        for number in self.blocks {
            parse.block(lanes, self.chunk, number, &mut open, &mut sink);
        }
        *self.open = open;
        let before = sink.before;
        // Moved out, to be kept in registers.
        let mut writer = self.writer.take();
        if before != 0 {
            writer.put(self.table[before % TOKENS]);
        }
        // Not before all are parsed: what was stored a moment ago piece by piece cannot be loaded
        // at once.
        let mut end = 0;
        for number in 0..count {
            let (literals, runs) = (packed.literals[number % STEP], packed.runs[number % STEP]);
            let [low, high, lengths] = &packed.sparse;
            let sparse = [block(low, number * LANES), block(high, number * LANES), block(lengths, number * LANES)];
            let [low, high, lengths] = &mut packed.dense;
            let dense = [block_mut(low, end), block_mut(high, end), block_mut(lengths, end)];
            lanes.gather(&self.pack_table.codes, block(self.chunk, base + number * LANES), literals, sparse, runs, dense);
            end += (literals | runs).count_ones() as usize;
        }
        for plane in &mut packed.dense {
            *block_mut(plane, end) = [0; LANES];
        }
        for at in (0..end).step_by(LANES) {
            let [low, high, lengths] = &packed.dense;
            let (mut words, mut counts) = ([0; WORDS], [0; WORDS]);
            lanes.merge([block(low, at), block(high, at), block(lengths, at)], &mut words, &mut counts);
            for (word, count) in words.iter().zip(&counts) {
                if *count <= MOST_BITS {
                    writer.put_wide(*word, *count);
                } else {
                    // Four of the longest codes: in two parts, as they are too much at once.
                    writer.put_wide(*word & u64::from(u32::MAX), u32::BITS);
                    writer.put_wide(*word >> u32::BITS, *count - u32::BITS);
                }
            }
        }
        *self.writer = writer;
    }
}

// A length, its extra bits, a distance and those of the farthest one: 3 × 4096.
const _: () = assert!(MAX_CODE_BITS + 5 + MAX_DISTANCE_CODE_BITS + 12 <= MOST_BITS as usize, "a run can be put at once");
const _: () = assert!(LANE_BITS as usize * LANES / WORDS <= 64, "lanes that are merged are a word");
const _: () = assert!(MAX_CODE_BITS + 5 + MAX_DISTANCE_CODE_BITS + 12 <= SHORTEST * LANE_BITS as usize, "a run has its lanes");

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of the longest codes one behind the other are more bits than can be put at once.
    #[test]
    fn long_runs_far_back_one_behind_the_other_come_back() {
        let stride = 4096;
        let mut state = 3u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as usize
        };
        let mut chunk: Vec<u8> = (0..3 * stride).map(|_| random() as u8).collect();
        while chunk.len() < 60 * stride {
            let (length, strides) = (131 + random() % 127, 2 + random() % 2);
            (0..length).for_each(|_| chunk.push(chunk[chunk.len() - strides * stride]));
        }
        // As if the sample had seen literals alone, so that every length has one of the longest
        // codes.
        let mut seen = [0; TOKENS];
        seen[..END].fill(1 << 20);
        let plan = Stride::new(Parse { stride, least_run: SHORTEST }, &seen, chunk.len(), chunk.len());
        let longest = plan.table.iter().map(|bits| bits.count()).max().expect("a table");
        assert!(2 * longest > MOST_BITS, "{longest} bits are no test");
        assert_comes_back_by_every_way(&plan, &chunk);
    }

    /// By tokens and packed, with the same bytes.
    fn assert_comes_back_by_every_way(plan: &Stride, chunk: &[u8]) {
        let mut expected = None;
        for (way, packs) in SimdLevel::available().into_iter().flat_map(|way| [(way, false), (way, true)]) {
            let mut output = vec![0; 2 * chunk.len() + 4 * MOST_STEP_BYTES];
            let made = plan.encode_by(chunk, &mut output, way, packs).expect("room");
            output.truncate(made);
            let mut back = vec![0; chunk.len()];
            crate::decode::ChunkDecoder::default().decode(&output, &mut back).expect("a chunk");
            assert!(back == chunk, "{way:?}, {packs}");
            assert!(*expected.get_or_insert_with(|| output.clone()) == output, "{way:?}, {packs}");
        }
    }

    #[test]
    fn runs_come_back_wherever_they_begin_and_end() {
        let mut state = 9u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        // Over borders of blocks and steps, up to one, and about as long as the longest match.
        for length in [3, 4, 5, 61, 62, 63, 64, 65, 66, 127, 128, 129, 255, 256, 257, 258, 259, 260, 516, 517, 1023, 1024, 1025] {
            for (from, stride) in
                [0, 1, 2, 3, 60, 61, 62, 63, 64].into_iter().flat_map(|from| [(from, 0), (from, 64), (from, 4096)])
            {
                let mut chunk: Vec<u8> = (0..8192 + from).map(|_| random()).collect();
                for _ in 0..4 {
                    let run = chunk.len();
                    (0..length).for_each(|_| chunk.push(if stride == 0 { 7 } else { chunk[chunk.len() - stride] }));
                    let border = chunk.len().next_multiple_of(LANES) + from;
                    (run..border + 5).skip(length).for_each(|_| chunk.push(random()));
                }
                let seen = [1; TOKENS];
                let parse = Parse { stride: stride.max(64), least_run: SHORTEST + length % 2 };
                assert_comes_back_by_every_way(&Stride::new(parse, &seen, chunk.len(), chunk.len()), &chunk);
            }
        }
    }

    /// Four literals of the longest codes are more bits than can be put at once.
    #[test]
    fn the_longest_codes_come_back_side_by_side() {
        let mut seen = [0; TOKENS];
        (seen[..16].iter_mut().zip(0..)).for_each(|(seen, rank)| *seen = 1 << (20 - rank));
        let chunk: Vec<u8> = (0..40_000usize).map(|at| (at * 91 % 240 + 16) as u8).collect();
        let plan = Stride::new(Parse { stride: 4096, least_run: SHORTEST }, &seen, chunk.len(), chunk.len());
        let longest = plan.lengths[16..END].iter().max().expect("a code");
        assert!(4 * u32::from(*longest) > MOST_BITS, "{longest} bits are no test");
        assert_comes_back_by_every_way(&plan, &chunk);
    }
}
