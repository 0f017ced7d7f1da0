//! Chunks of tables by columns: the bytes of an element that stand at one place of it, from all
//! elements of a chunk, are put together, and each such column is encoded for what it is.
//!
//! The primary index has elements of 64 bytes. A third of their columns is random, and another
//! third never changes. Of the rest, some drift, and of all others nothing but the frequencies of
//! bytes helps: a search for matches would only cost time.
//!
//! # Format
//!
//! An encoded chunk is a row of deflate blocks, none of which is the last of a stream and none of
//! which refers to anything before the chunk. All that it decompresses to is its *content*: a head,
//! then the chunk's bytes, transposed. All numbers are little-endian. The head is one stored block
//! (`00`, u16 length, u16 its complement) at the very beginning:
//!
//! ```text
//! offset  size
//! 0       4     bytes of the chunk
//! 4       2     width of an element in bytes, 1 at least; 1: nothing is transposed
//! 6       2     number of parts
//! 8       8 × parts, of each:
//!         4       bytes of its blocks; bit 31: in place of each byte but the first there is its
//!                 difference to the one before it (mod 256)
//!         4       bytes that they decompress to
//! ```
//!
//! With `rows` = bytes of the chunk / width, byte `column` of element `row` is at
//! `column × rows + row`; bytes behind the last whole element follow as they are. All parts, one
//! behind the other, are these bytes. The encoder makes a part of each column, or of several
//! neighbours that are alike, but a reader takes any. The blocks of a part begin and end with a
//! whole byte and refer to nothing before the part, so that a reader can decode several parts side
//! by side. Behind the last part there may be empty blocks.
//!
//! How the blocks of a part are made is free. Three forms are read faster than others, and no
//! reader depends on them: stored blocks; a run of one byte (`Run` in `blocks.rs`); and one block
//! of literals whose codes have at most 10 bits, with an empty stored block behind it.

mod blocks;
mod decode;
mod encode;
mod head;
mod read_literals;
mod sample;
#[cfg(test)]
mod tests;
mod transpose;
mod write_literals;

pub use decode::ColumnDecoder;
pub use encode::{ColumnEncoder, Encoded};
pub use head::{MAX_HEAD_BYTES, head_bytes_in, max_content_bytes, max_encoded_bytes};
