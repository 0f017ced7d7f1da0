//! CRC-32, and deflate by chunks: a chunk becomes a row of blocks that stands alone, so that chunks
//! can be encoded and decoded side by side, and all of them together are one stream that any gunzip
//! reads.
//!
//! The second of two fences around `unsafe` (the other one is `asmt-shm`): only [`simd`] holds any.
//! Invariant: no I/O, and no knowledge of segments or files: bytes in, bytes out.

mod bits;
pub mod columns;
pub mod crc;
pub mod decode;
pub mod encode;
mod huffman;
mod inflate;
#[cfg(any(test, feature = "testing"))]
pub mod reference;
#[cfg(test)]
mod same_bytes;
pub mod simd;
mod stride;
#[cfg(test)]
mod tests;

/// The gzip header that is written: deflate, no name, no time, "fastest", Unix; the same as ASMT's.
pub const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// A last, empty deflate block with fixed codes: what ends a row of chunks that each end on a full
/// flush.
pub const DEFLATE_END: [u8; 2] = [0x03, 0x00];
/// An empty stored block: what a full flush ends with.
const FULL_FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];
/// Base-2 logarithm of deflate's window.
const WINDOW_BITS: u8 = 15;
