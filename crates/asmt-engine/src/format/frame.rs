//! What stands around the chunks of a compressed file: headers, and the end of the gzip member.
//!
//! The header of a `.dat.gz` is ASMT 2.2.1's, as observed; a test reads files that ASMT has made.
//! That of a `.dat.col` is asmt's own, and stands in the extra field of the gzip header.

use asmt_codec::{DEFLATE_END, GZIP_HEADER, encode};

/// Bytes in front of the gzip member of a `.dat.gz`.
pub const ASMT_HEADER_BYTES: usize = 24;

/// `ASMT`, as it stands in the file.
pub const ASMT_MAGIC: [u8; 4] = *b"ASMT";

/// Version of that header.
pub const ASMT_VERSION: u32 = 1;

/// CRC-32 and length mod 2^32 behind the deflate stream.
pub const GZIP_TRAILER_BYTES: usize = 8;

/// Bytes in front of the deflate stream of a `.dat.gz`.
#[cfg(any(test, feature = "testing"))]
pub const BEFORE_STREAM_BYTES: usize = ASMT_HEADER_BYTES + GZIP_HEADER.len();

/// Offset in bytes of the first chunk in a `.dat.gz` of ours; empty blocks fill what is before it.
pub const FIRST_CHUNK_OFFSET: u64 = SECTOR_BYTES;

/// Bytes behind the last chunk in a `.dat.gz` of ours.
pub const AFTER_CHUNKS_BYTES: u64 = (DEFLATE_END.len() + GZIP_TRAILER_BYTES) as u64;

/// What the chunks of a `.dat.gz` of ours are padded to with empty deflate blocks: they are written
/// and read past the page cache, which needs whole sectors.
pub const SECTOR_BYTES: u64 = 4096;

/// Deflate cannot shrink more than this; a header that claims more is a lie (or a bomb).
pub const MAX_DEFLATE_RATIO: u64 = 1032;

/// ASMT's header of a compressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsmtHeader {
    /// Size of the segment in bytes; a claim.
    pub size_bytes: u64,
    /// CRC-32 of the segment.
    pub crc32: u32,
}

impl AsmtHeader {
    /// The header as it stands in the file.
    pub fn to_bytes(self) -> [u8; ASMT_HEADER_BYTES] {
        let mut bytes = [0; ASMT_HEADER_BYTES];
        bytes[..4].copy_from_slice(&ASMT_MAGIC);
        bytes[4..8].copy_from_slice(&ASMT_VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&u64::from(self.crc32).to_le_bytes());
        bytes
    }

    /// Reads a header. The error says what was found and what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; ASMT_HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| format!("its header has {} bytes, expected {ASMT_HEADER_BYTES}", bytes.len()))?;
        let mut magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        // The reversed order is accepted too, as ASMT does.
        if magic == *b"TMSA" {
            magic.reverse();
        }
        if magic != ASMT_MAGIC {
            return Err(format!("it starts with {:02x?}, expected \"ASMT\"", &bytes[..4]));
        }
        let word = |at: usize| {
            u64::from_le_bytes([
                bytes[at],
                bytes[at + 1],
                bytes[at + 2],
                bytes[at + 3],
                bytes[at + 4],
                bytes[at + 5],
                bytes[at + 6],
                bytes[at + 7],
            ])
        };
        let version = (word(4) & 0xffff_ffff) as u32;
        if version != ASMT_VERSION {
            return Err(format!("its header has version {version}, expected {ASMT_VERSION}"));
        }
        let crc32 = u32::try_from(word(16)).map_err(|_| format!("its header's CRC-32 is {:#x}, more than 32 bits", word(16)))?;
        Ok(Self { size_bytes: word(8), crc32 })
    }
}

/// Version of the header of a `.dat.col` that this program writes, and the only one that it reads.
pub const COLUMNS_VERSION: u32 = 1;

/// Bytes in front of the deflate stream of a `.dat.col`: a gzip header with an extra field.
pub const COLUMNS_HEADER_BYTES: usize = 36;

/// The gzip header up to that: deflate, with an extra field of 24 bytes, whose only subfield is
/// `AS` and has 20 bytes.
const COLUMNS_START: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 4, 3, 24, 0, b'A', b'S', 20, 0];

/// The header of a file in columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnsHeader {
    /// Size of the segment in bytes; a claim.
    pub size_bytes: u64,
    /// CRC-32 of the segment.
    pub crc32: u32,
}

impl ColumnsHeader {
    /// The header as it stands in the file: version, size, CRC-32, and four zeros.
    pub fn to_bytes(self) -> [u8; COLUMNS_HEADER_BYTES] {
        let mut bytes = [0; COLUMNS_HEADER_BYTES];
        bytes[..16].copy_from_slice(&COLUMNS_START);
        bytes[16..20].copy_from_slice(&COLUMNS_VERSION.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.crc32.to_le_bytes());
        bytes
    }

    /// Reads a header. The error says what was found and what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; COLUMNS_HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| format!("its header has {} bytes, expected {COLUMNS_HEADER_BYTES}", bytes.len()))?;
        if bytes[..16] != COLUMNS_START {
            return Err(format!("it starts with {:02x?}, expected {COLUMNS_START:02x?}", &bytes[..16]));
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if (word(16), word(32)) != (COLUMNS_VERSION, 0) {
            return Err(format!("its header has version {}, expected {COLUMNS_VERSION}", word(16)));
        }
        Ok(Self { size_bytes: u64::from(word(20)) | u64::from(word(24)) << 32, crc32: word(28) })
    }
}

/// What a gzip member decompresses to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub bytes: u64,
    /// CRC-32 of them.
    pub crc32: u32,
}

/// What stands in front of the first chunk of a `.dat.gz`: ASMT's header, that of the gzip member,
/// and empty blocks.
pub fn gzip_front(size_bytes: u64, crc32: u32) -> [u8; SECTOR_BYTES as usize] {
    front_of(&[&AsmtHeader { size_bytes, crc32 }.to_bytes()[..], &GZIP_HEADER].concat())
}

/// What stands in front of the first chunk of a `.dat.col`: its header, and empty blocks.
pub fn columns_front(size_bytes: u64, crc32: u32) -> [u8; SECTOR_BYTES as usize] {
    front_of(&ColumnsHeader { size_bytes, crc32 }.to_bytes())
}

fn front_of(header: &[u8]) -> [u8; SECTOR_BYTES as usize] {
    let mut front = [0; SECTOR_BYTES as usize];
    let (headers, blocks) = front.split_at_mut(header.len());
    headers.copy_from_slice(header);
    encode::fill_with_empty_blocks(blocks);
    front
}

/// What stands behind the last chunk: the end of the deflate stream, and CRC-32 and length mod 2^32
/// of what it decompresses to.
pub fn gzip_tail(content: Content) -> [u8; AFTER_CHUNKS_BYTES as usize] {
    let mut tail = [0; AFTER_CHUNKS_BYTES as usize];
    tail[..2].copy_from_slice(&DEFLATE_END);
    tail[2..6].copy_from_slice(&content.crc32.to_le_bytes());
    tail[6..].copy_from_slice(&((content.bytes & 0xffff_ffff) as u32).to_le_bytes());
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asmts_header_is_read_and_written() {
        let header = AsmtHeader { size_bytes: 0x30000, crc32: 0x6486_4e8a };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [0x41, 0x53, 0x4d, 0x54, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0x8a, 0x4e, 0x86, 0x64, 0, 0, 0, 0]);
        assert_eq!(AsmtHeader::parse(&bytes), Ok(header));
        let mut reversed = bytes;
        reversed[..4].reverse();
        assert_eq!(AsmtHeader::parse(&reversed), Ok(header));
        for at in [0, 4, 20] {
            let mut wrong = bytes;
            wrong[at] ^= 0x40;
            assert!(AsmtHeader::parse(&wrong).is_err(), "byte {at}");
        }
        assert!(AsmtHeader::parse(&bytes[..23]).is_err());
    }

    #[test]
    fn the_header_of_a_file_in_columns_is_read_and_written() {
        let header = ColumnsHeader { size_bytes: 0x12_0000_3000, crc32: 0x6486_4e8a };
        let bytes = header.to_bytes();
        assert_eq!(ColumnsHeader::parse(&bytes), Ok(header));
        // The deflate stream starts where gzip's own rules say: 10 bytes, the length of the extra
        // field, and the field.
        assert_eq!(10 + 2 + usize::from(u16::from_le_bytes([bytes[10], bytes[11]])), COLUMNS_HEADER_BYTES);
        for at in (0..20).chain(32..36) {
            let mut wrong = bytes;
            wrong[at] ^= 0x40;
            assert!(ColumnsHeader::parse(&wrong).is_err(), "byte {at}");
        }
        assert!(ColumnsHeader::parse(&bytes[..35]).is_err());
    }

    #[test]
    fn a_compressed_files_parts_stand_where_the_document_says() {
        assert_eq!((BEFORE_STREAM_BYTES, FIRST_CHUNK_OFFSET, AFTER_CHUNKS_BYTES), (34, 4096, 10));
    }
}
