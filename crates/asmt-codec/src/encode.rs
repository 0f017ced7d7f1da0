//! Encoding: every chunk becomes a row of deflate blocks that stands alone and ends on a full
//! flush, so that chunks made side by side, put one behind the other, are one stream.
//!
//! Promise: an encoder never makes more than [`max_encoded_bytes`]. Must never: write past the
//! output it was given.

use crate::simd::SimdLevel;
use crate::stride::Stride;
use crate::{FULL_FLUSH, WINDOW_BITS};
use zlib_rs::{Deflate, DeflateFlush};

/// Fastest level whose Huffman codes fit the data; level 1 has fixed codes, and makes random
/// digests longer.
const LEVEL: i32 = 2;
/// Most bytes of a stored block.
const STORED_BLOCK_BYTES: usize = 65_535;
/// Header of a stored block: type, padding, length, length's complement.
const STORED_HEADER_BYTES: usize = 5;
/// An empty block with fixed codes, and an empty stored one: a byte longer than that.
pub(crate) const LONGER_FLUSH: [u8; STORED_HEADER_BYTES + 1] = [2, 0, 0, 0, 0xff, 0xff];

/// Most bytes a chunk of this many bytes can become: all of it stored, and the flush.
pub fn max_encoded_bytes(chunk_bytes: u64) -> u64 {
    chunk_bytes + (chunk_bytes.div_ceil(STORED_BLOCK_BYTES as u64) + 1) * STORED_HEADER_BYTES as u64
}

/// Fills a row of blocks up with empty ones, to a multiple of `unit` bytes (32 at least). `length`
/// bytes of `buffer` are taken; returns how many are then: at most two units more.
pub fn pad_to_multiple(buffer: &mut [u8], length: usize, unit: usize) -> usize {
    let mut end = length.next_multiple_of(unit);
    // Made of fives and sixes, and not every number is.
    while end - length < (end - length) % STORED_HEADER_BYTES * LONGER_FLUSH.len() {
        end += unit;
    }
    fill_with_empty_blocks(&mut buffer[length..end]);
    end
}

/// Fills bytes with empty blocks. Their number must be one that fives and sixes add up to, as any
/// from 20 on is.
pub fn fill_with_empty_blocks(bytes: &mut [u8]) {
    let longer = bytes.len() % STORED_HEADER_BYTES;
    let (front, back) = bytes.split_at_mut(longer * LONGER_FLUSH.len());
    front.chunks_exact_mut(LONGER_FLUSH.len()).for_each(|block| block.copy_from_slice(&LONGER_FLUSH));
    back.chunks_exact_mut(FULL_FLUSH.len()).for_each(|block| block.copy_from_slice(&FULL_FLUSH));
}

/// What a chunk holds, as far as its segment's type tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// 64-byte elements of the primary index.
    Elements,
    /// Anything else.
    Other,
}

/// Makes a chunk's deflate blocks. One a thread.
pub trait ChunkEncoder: Send {
    /// Puts the chunk's blocks to the beginning of `output`, which has [`max_encoded_bytes`] at
    /// least: not final, byte-aligned, ended by a full flush, with no reference to bytes before the
    /// chunk. Gives how many bytes they are.
    fn encode(&mut self, chunk: &[u8], kind: ChunkKind, output: &mut [u8]) -> usize;
}

/// The encoder in use.
pub fn encoder() -> Box<dyn ChunkEncoder> {
    encoder_of(SimdLevel::best())
}

/// The same, working in this way.
pub(crate) fn encoder_of(way: SimdLevel) -> Box<dyn ChunkEncoder> {
    Box::new(AdaptiveEncoder { way, general: GeneralEncoder::default(), tried: Vec::new() })
}

/// The encoder for tables, or a general one where that makes a chunk smaller by more than it costs.
struct AdaptiveEncoder {
    way: SimdLevel,
    general: GeneralEncoder,
    tried: Vec<u8>,
}

/// Bytes of a chunk that the general encoder is tried on.
const TRIED_BYTES: usize = 64 << 10;

impl ChunkEncoder for AdaptiveEncoder {
    fn encode(&mut self, chunk: &[u8], kind: ChunkKind, output: &mut [u8]) -> usize {
        let plan = Stride::plan(chunk, self.way);
        // Elements are known to suit the one encoder, unless they are something else than we
        // believe.
        let is_known = kind == ChunkKind::Elements && plan.estimated_bytes() < chunk.len() / 4 * 3;
        let by_stride =
            if is_known || !self.is_general_better(&plan, chunk) { plan.encode(chunk, output, self.way) } else { None };
        // In more room it could make more.
        let by_stride = by_stride.filter(|made| *made as u64 <= max_encoded_bytes(chunk.len() as u64));
        by_stride.or_else(|| self.general.encode(chunk, output)).unwrap_or_else(|| store(chunk, output))
    }
}

impl AdaptiveEncoder {
    /// Whether the general encoder, which is about ten times slower, saves an eighth of what the
    /// other makes.
    fn is_general_better(&mut self, plan: &Stride, chunk: &[u8]) -> bool {
        let (by_stride, by_general) = try_both(plan, &mut self.general, chunk, &mut self.tried, self.way);
        by_general < by_stride / 8 * 7
    }
}

/// What a part from the middle of a chunk becomes by each encoder, in proportion to the chunk; the
/// chunk's bytes if it does not get shorter.
pub(crate) fn try_both(
    plan: &Stride,
    general: &mut GeneralEncoder,
    chunk: &[u8],
    room: &mut Vec<u8>,
    way: SimdLevel,
) -> (usize, usize) {
    let middle = (chunk.len() / 2).saturating_sub(TRIED_BYTES / 2);
    let part = &chunk[middle..chunk.len().min(middle + TRIED_BYTES)];
    room.resize(2 * TRIED_BYTES, 0);
    let by_stride = plan.encode(part, room, way).unwrap_or(part.len());
    let by_general = general.encode(part, room).unwrap_or(part.len());
    let whole = |made: usize| (made as u64 * chunk.len() as u64 / part.len().max(1) as u64) as usize;
    (whole(by_stride), whole(by_general))
}

/// A general deflate encoder (zlib-rs).
pub(crate) struct GeneralEncoder {
    deflate: Deflate,
}

impl Default for GeneralEncoder {
    fn default() -> Self {
        Self { deflate: Deflate::new(LEVEL, false, WINDOW_BITS) }
    }
}

impl GeneralEncoder {
    /// `None` if the chunk would get longer.
    pub(crate) fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> Option<usize> {
        let room = output.len().min(usize::try_from(max_encoded_bytes(chunk.len() as u64)).unwrap_or(usize::MAX));
        self.deflate.reset();
        self.deflate.compress(chunk, &mut output[..room], DeflateFlush::FullFlush).ok()?;
        let made = usize::try_from(self.deflate.total_out()).ok()?;
        // With room left behind it the flush is complete.
        (self.deflate.total_in() == chunk.len() as u64 && made < room).then_some(made)
    }
}

/// Makes stored blocks: the data as it is.
pub(crate) fn store(chunk: &[u8], output: &mut [u8]) -> usize {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        output[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for block in chunk.chunks(STORED_BLOCK_BYTES) {
        let length = u16::try_from(block.len()).expect("a stored block's length fits 16 bits");
        put(&[0]);
        put(&length.to_le_bytes());
        put(&(!length).to_le_bytes());
        put(block);
    }
    put(&FULL_FLUSH);
    at
}
