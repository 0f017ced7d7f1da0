//! What was written to the files of a backup.

use crate::format::{Chunk, Content, combined_crc32};
use asmt_codec::crc;

/// A chunk that was written to its file.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Its place, and what it must add up to.
    pub chunk: Chunk,
    /// CRC-32 of its bytes in the file.
    pub encoded_crc32: u32,
    /// What it decompresses to; of a plain file, its bytes.
    pub content: Content,
}

impl Written {
    /// Stands for a chunk that is not written yet.
    pub const NOTHING: Self =
        Self { chunk: Chunk { offset: 0, length: 0, crc32: 0 }, encoded_crc32: 0, content: Content { bytes: 0, crc32: 0 } };

    /// A chunk of a plain file: at its own offset, byte for byte.
    pub fn plain(offset: u64, length: u32, crc32: u32) -> Self {
        let content = Content { bytes: u64::from(length), crc32 };
        Self { chunk: Chunk { offset, length, crc32 }, encoded_crc32: crc32, content }
    }
}

/// What a finished file adds up to.
#[derive(Clone, Copy, Debug)]
pub struct Sums {
    /// Size of the segment, bytes.
    pub size_bytes: u64,
    /// CRC-32 of the segment.
    pub crc32: u32,
    /// What the file decompresses to.
    pub content: Content,
}

impl Sums {
    /// Of a segment whose chunks these are.
    pub fn of(size_bytes: u64, chunk_bytes: u32, chunks: &[Written]) -> Self {
        let crc32 = combined_crc32(size_bytes, chunk_bytes, chunks.iter().map(|one| one.chunk.crc32));
        let parts = || chunks.iter().map(|one| (one.content.bytes, one.content.crc32));
        let content = Content { bytes: parts().map(|(bytes, _)| bytes).sum(), crc32: crc::combine(parts()) };
        Self { size_bytes, crc32, content }
    }
}
