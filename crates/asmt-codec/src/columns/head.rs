//! The head of an encoded chunk: its parts, and where each of them is.
//!
//! Promise: what is read is a head that fits the chunk: its parts have the bytes that are there,
//! and make exactly those of the chunk. Must never: believe a number that it has not compared.

use crate::encode;

/// Bytes of the head of a stored block.
pub const STORED_HEADER_BYTES: usize = 5;
/// Most bytes of a stored block.
pub const STORED_BLOCK_BYTES: usize = 65_535;
/// Bytes of the head in front of its parts, and of each part.
const FIXED_BYTES: usize = 8;
const PART_BYTES: usize = 8;
/// Most parts that an encoder makes. (A head has room for 8190.)
pub const MOST_PARTS: usize = 1024;
/// Bytes of a part that is not a column: whole stored blocks.
pub const PLAIN_PART_BYTES: usize = 16 * STORED_BLOCK_BYTES;
/// Mark of a part of differences.
const DIFFERENCES: u32 = 1 << 31;

/// A part of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of its blocks.
    pub encoded_bytes: usize,
    /// Bytes that they decompress to.
    pub content_bytes: usize,
    /// Each byte but the first is the difference to the one before it.
    pub is_differences: bool,
}

/// Most bytes that a chunk of this many bytes can become.
pub fn max_encoded_bytes(chunk_bytes: u64) -> u64 {
    let parts = chunk_bytes.div_ceil(PLAIN_PART_BYTES as u64);
    let last = chunk_bytes - parts.saturating_sub(1) * PLAIN_PART_BYTES as u64;
    let each = encode::max_encoded_bytes(PLAIN_PART_BYTES as u64);
    head_bytes(0) as u64
        + parts * PART_BYTES as u64
        + parts.saturating_sub(1) * each
        + if parts > 0 { encode::max_encoded_bytes(last) } else { 0 }
}

/// Most bytes that what was made of a chunk of this many bytes can decompress to.
pub fn max_content_bytes(chunk_bytes: u64) -> u64 {
    chunk_bytes + content_bytes(MOST_PARTS) as u64
}

/// Bytes of the head in front of a chunk's own bytes, from the beginning of the chunk's content;
/// `None` if that is too short to tell.
pub fn head_bytes_in(content: &[u8]) -> Option<usize> {
    let count = content.get(6..FIXED_BYTES)?;
    Some(content_bytes(usize::from(u16::from_le_bytes([count[0], count[1]]))))
}

/// Most bytes of a head that an encoder makes.
pub const MAX_HEAD_BYTES: usize = FIXED_BYTES + PART_BYTES * MOST_PARTS;

/// Bytes of the head's content.
pub fn content_bytes(parts: usize) -> usize {
    FIXED_BYTES + PART_BYTES * parts
}

/// Bytes of the whole head.
pub fn head_bytes(parts: usize) -> usize {
    STORED_HEADER_BYTES + content_bytes(parts)
}

/// Writes a head to the beginning of `output`, which has room for it.
pub fn write(output: &mut [u8], chunk_bytes: usize, width: usize, parts: &[Part]) {
    let number = |value: usize| u32::try_from(value).expect("a chunk is no longer than 2 GiB").to_le_bytes();
    let short = |value: usize| u16::try_from(value).expect("a head fits a stored block");
    let (header, content) = output[..head_bytes(parts.len())].split_at_mut(STORED_HEADER_BYTES);
    let length = short(content.len());
    header[0] = 0;
    header[1..3].copy_from_slice(&length.to_le_bytes());
    header[3..].copy_from_slice(&(!length).to_le_bytes());
    content[..4].copy_from_slice(&number(chunk_bytes));
    content[4..6].copy_from_slice(&short(width).to_le_bytes());
    content[6..8].copy_from_slice(&short(parts.len()).to_le_bytes());
    for (place, part) in content[FIXED_BYTES..].chunks_exact_mut(PART_BYTES).zip(parts) {
        place[..4].copy_from_slice(&number(part.encoded_bytes));
        place[3] |= u8::from(part.is_differences) << 7;
        place[4..].copy_from_slice(&number(part.content_bytes));
    }
}

/// Reads the head of a chunk of `chunk_bytes`, into `parts`. Gives the width, and how many bytes
/// the head is.
pub fn read(encoded: &[u8], chunk_bytes: usize, parts: &mut Vec<Part>) -> Result<(usize, usize), String> {
    let short = |at: usize| encoded.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let (Some(0), Some(length), Some(complement)) = (encoded.first(), short(1), short(3)) else {
        return Err("it does not begin with a stored block".to_owned());
    };
    if length ^ complement != u16::MAX {
        return Err(format!("its head's length is {length:#06x}, its complement {complement:#06x}"));
    }
    let content = encoded[STORED_HEADER_BYTES..].get(..usize::from(length));
    let content = content.filter(|content| content.len() >= FIXED_BYTES);
    let (fixed, entries) = content.ok_or_else(|| format!("a head of {length} bytes"))?.split_at(FIXED_BYTES);
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (width, count) = (u16::from_le_bytes([fixed[4], fixed[5]]), u16::from_le_bytes([fixed[6], fixed[7]]));
    if number(fixed) as usize != chunk_bytes {
        return Err(format!("it is a chunk of {} bytes, expected {chunk_bytes}", number(fixed)));
    }
    if width == 0 || entries.len() != usize::from(count) * PART_BYTES {
        return Err(format!("it has elements of {width} bytes, and {} bytes of head for {count} parts", entries.len()));
    }
    let head_bytes = STORED_HEADER_BYTES + FIXED_BYTES + entries.len();
    let (mut encoded_left, mut content_left) = (encoded.len() - head_bytes, chunk_bytes);
    parts.clear();
    for entry in entries.chunks_exact(PART_BYTES) {
        let (first, content_bytes) = (number(entry), number(&entry[4..]) as usize);
        let (encoded_bytes, is_differences) = ((first & !DIFFERENCES) as usize, first & DIFFERENCES != 0);
        if encoded_bytes > encoded_left || content_bytes > content_left {
            let left = format!("{encoded_left} and {content_left} are left");
            return Err(format!("a part of {encoded_bytes} bytes that makes {content_bytes}, but {left}"));
        }
        encoded_left -= encoded_bytes;
        content_left -= content_bytes;
        parts.push(Part { encoded_bytes, content_bytes, is_differences });
    }
    if content_left > 0 {
        return Err(format!("its parts make {} bytes, expected {chunk_bytes}", chunk_bytes - content_left));
    }
    Ok((usize::from(width), head_bytes))
}
