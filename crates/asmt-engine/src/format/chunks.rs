//! Chunks: how a segment is cut into pieces that are copied, encoded and checked by themselves.

use crate::format::SECTOR_BYTES;
use asmt_codec::crc;
use asmt_codec::encode::{ChunkKind, max_encoded_bytes};
use asmt_shm::SegmentType;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Chunk sizes a manifest may name: powers of two in this range. Each worker has buffers of this
/// size.
pub const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 4096..=(16 << 20);

/// Bytes of a chunk, for a segment of this size: 4 MiB, and 16 MiB above 64 GiB so that tables stay
/// small.
pub fn chunk_bytes_for(segment_bytes: u64) -> u32 {
    if segment_bytes <= 64 << 30 { 4 << 20 } else { 16 << 20 }
}

/// Number of chunks of a segment.
pub fn chunk_count(segment_bytes: u64, chunk_bytes: u32) -> u64 {
    segment_bytes.div_ceil(u64::from(chunk_bytes))
}

/// Where a chunk stands in its file, and what it must add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u32)", into = "(u64, u32, u32)")]
pub struct Chunk {
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Bytes in the file.
    pub length: u32,
    /// CRC-32 of the chunk's bytes in the segment (not of the compressed ones).
    pub crc32: u32,
}

impl From<(u64, u32, u32)> for Chunk {
    fn from((offset, length, crc32): (u64, u32, u32)) -> Self {
        Self { offset, length, crc32 }
    }
}

impl From<Chunk> for (u64, u32, u32) {
    fn from(chunk: Chunk) -> Self {
        (chunk.offset, chunk.length, chunk.crc32)
    }
}

/// Bytes of a segment in runs of chunks (first, count).
pub fn zero_bytes(segment_bytes: u64, chunk_bytes: u32, zero_chunks: &[(u64, u64)]) -> u64 {
    let bytes_of = |&(first, count): &(u64, u64)| {
        let start = chunk_range(segment_bytes, chunk_bytes, first).start;
        segment_bytes.min(start + count * u64::from(chunk_bytes)) - start
    };
    zero_chunks.iter().map(bytes_of).sum()
}

/// Bytes of a segment in chunks of zeros that a worker takes at once.
pub const SPAN_BYTES: u64 = 1 << 30;

/// What a worker takes of a segment: a chunk, or a run of chunks that hold nothing but zeros. There
/// may be a thousand times as many of these, and each is small in its file: one by one they would
/// cost more than the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    count: u64,
    /// The spans of zeros: number of the span, and its chunks.
    zeros: Vec<(u64, Range<u64>)>,
}

/// Chunks of a [`Spans`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Their numbers.
    pub chunks: Range<u64>,
    /// They are said to hold nothing but zeros.
    pub is_zero: bool,
}

impl Spans {
    /// Of a segment's chunks, with runs of zero chunks (first, count) that ascend and lie apart.
    pub fn new(chunk_count: u64, chunk_bytes: u32, zero_chunks: &[(u64, u64)]) -> Self {
        let most = SPAN_BYTES / u64::from(chunk_bytes);
        let (mut zeros, mut merged) = (Vec::new(), 0);
        for &(first, count) in zero_chunks {
            let end = first + count;
            let mut start = first;
            while start < end {
                let next = end.min(start + most);
                zeros.push((start - merged, start..next));
                merged += next - start - 1;
                start = next;
            }
        }
        Self { count: chunk_count - merged, zeros }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The span with this number.
    pub fn get(&self, index: u64) -> Span {
        let after = self.zeros.partition_point(|(number, _)| *number <= index);
        let chunk = match self.zeros[..after].last() {
            Some((number, chunks)) if *number == index => return Span { chunks: chunks.clone(), is_zero: true },
            Some((number, chunks)) => chunks.end + (index - number - 1),
            None => index,
        };
        Span { chunks: chunk..chunk + 1, is_zero: false }
    }
}

/// The bytes of a segment that a chunk covers.
pub fn chunk_range(segment_bytes: u64, chunk_bytes: u32, index: u64) -> Range<u64> {
    let start = index * u64::from(chunk_bytes);
    start..segment_bytes.min(start + u64::from(chunk_bytes))
}

/// Bytes of a range that is no longer than a chunk.
pub fn length_of(range: &Range<u64>) -> u32 {
    u32::try_from(range.end - range.start).expect("a chunk is at most 16 MiB")
}

/// Most bytes the compressed file of a segment can have if every chunk is data.
pub fn max_file_bytes(segment_bytes: u64, chunk_bytes: u32) -> u64 {
    let chunks = (0..chunk_count(segment_bytes, chunk_bytes)).map(|index| {
        let range = chunk_range(segment_bytes, chunk_bytes, index);
        max_encoded_bytes(range.end - range.start) + 2 * SECTOR_BYTES
    });
    2 * SECTOR_BYTES + chunks.sum::<u64>()
}

/// CRC-32 of a segment from those of its chunks.
pub fn combined_crc32(segment_bytes: u64, chunk_bytes: u32, chunk_sums: impl Iterator<Item = u32>) -> u32 {
    let lengths = (0..chunk_count(segment_bytes, chunk_bytes)).map(|index| {
        let range = chunk_range(segment_bytes, chunk_bytes, index);
        range.end - range.start
    });
    crc::combine(lengths.zip(chunk_sums))
}

/// What a chunk of a segment holds.
pub fn chunk_kind(segment_type: SegmentType) -> ChunkKind {
    if segment_type == SegmentType::PiStage { ChunkKind::Elements } else { ChunkKind::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zero_chunks_are_taken_at_once_and_all_others_one_by_one() {
        let taken = |count, chunk_bytes, zero_chunks: &[(u64, u64)]| {
            let spans = Spans::new(count, chunk_bytes, zero_chunks);
            let all: Vec<Span> = (0..spans.count()).map(|index| spans.get(index)).collect();
            all.into_iter().map(|span| (span.chunks.start, span.chunks.end, span.is_zero)).collect::<Vec<_>>()
        };
        assert_eq!(taken(3, 4096, &[]), [(0, 1, false), (1, 2, false), (2, 3, false)]);
        let expected = [(0, 1, false), (1, 3, true), (3, 4, false), (4, 5, false), (5, 9, true), (9, 10, false)];
        assert_eq!(taken(10, 4096, &[(1, 2), (5, 4)]), expected);
        assert_eq!(taken(2, 4096, &[(0, 1)]), [(0, 1, true), (1, 2, false)]);
        // Not more than a worker should take alone.
        let expected = [(0, 1, false), (1, 65, true), (65, 129, true), (129, 131, true), (131, 132, false)];
        assert_eq!(taken(132, 16 << 20, &[(1, 130)]), expected);
    }

    #[test]
    fn zeros_are_counted_to_the_end_of_the_segment() {
        assert_eq!(zero_bytes(10_000, 4096, &[(0, 1), (2, 1)]), 4096 + 1808);
        assert_eq!(zero_bytes(10_000, 4096, &[]), 0);
    }

    #[test]
    fn chunks_cover_a_segment_and_are_larger_for_large_ones() {
        const GIB: u64 = 1 << 30;
        for (segment_bytes, chunk_bytes) in [(1, 4 << 20), (64 * GIB, 4 << 20), (64 * GIB + 1, 16 << 20), (u64::MAX, 16 << 20)] {
            assert_eq!(chunk_bytes_for(segment_bytes), chunk_bytes, "{segment_bytes}");
        }
        assert_eq!((chunk_count(8192, 4096), chunk_count(8193, 4096)), (2, 3));
        let ranges: Vec<_> = (0..3).map(|index| chunk_range(10_000, 4096, index)).collect();
        assert_eq!(ranges, [0..4096, 4096..8192, 8192..10_000]);
    }
}
