//! A segment in the manifest: its line, and what must be true of it.
//!
//! Promise: what is read is checked before it is believed. Must never: allocate by a number that a
//! file holds.

use crate::format::chunks::{CHUNK_SIZES, Chunk, chunk_count, chunk_range, combined_crc32, zero_bytes};
use crate::format::frame::{AFTER_CHUNKS_BYTES, Content, FIRST_CHUNK_OFFSET, SECTOR_BYTES, columns_front, gzip_front, gzip_tail};
use crate::format::manifest_line::{ManifestError, damaged, json_line, line_of};
use crate::format::names::{Encoding, file_name};
use asmt_codec::crc;
use asmt_shm::{Address, Key, MAX_SEGMENT_BYTES};
use serde::{Deserialize, Serialize};

/// One segment in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSegment {
    /// Key; type, stage and file name follow from it.
    pub key: Key,
    /// What the key says.
    pub address: Address,
    /// Size of the segment, bytes.
    pub size_bytes: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// How it stands in its file.
    pub encoding: Encoding,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// CRC-32 of the whole segment.
    pub crc32: u32,
    /// Bytes of a chunk; the last one may be shorter.
    pub chunk_bytes: u32,
    /// One entry for each chunk, in order.
    pub chunks: Vec<Chunk>,
    /// CRC-32 of each chunk's bytes in the file, by chunk: of compressed files. Empty where the
    /// file is plain, and in backups made before this was noted.
    pub encoded_sums: Vec<u32>,
    /// What the gzip member of a file in columns decompresses to; `None` for other encodings.
    pub columns_content: Option<Content>,
    /// Runs of chunks that hold nothing but zeros: first, count; ascending, apart. In a plain file
    /// they are holes.
    pub zero_chunks: Vec<(u64, u64)>,
    /// Bytes that were data when the segment was copied: its size without its holes. `None` in
    /// backups made before this was noted.
    pub data_bytes: Option<u64>,
}

impl ManifestSegment {
    /// Name of the file, from the key.
    pub fn file_name(&self) -> String {
        file_name(self.key, self.encoding)
    }

    /// What stands in front of the first chunk in the file: nothing if the file is plain.
    pub fn front(&self) -> Vec<u8> {
        match self.encoding {
            Encoding::Raw | Encoding::OwnRaw => Vec::new(),
            Encoding::Gzip => gzip_front(self.size_bytes, self.crc32).to_vec(),
            Encoding::Columns => columns_front(self.size_bytes, self.crc32).to_vec(),
        }
    }

    /// What stands behind the last chunk in the file: nothing if the file is plain.
    pub fn tail(&self) -> Vec<u8> {
        let segment = Content { bytes: self.size_bytes, crc32: self.crc32 };
        match self.encoding {
            Encoding::Raw | Encoding::OwnRaw => Vec::new(),
            Encoding::Gzip | Encoding::Columns => gzip_tail(self.columns_content.unwrap_or(segment)).to_vec(),
        }
    }

    /// Bytes of the segment in chunks that hold nothing but zeros.
    pub fn zero_bytes(&self) -> u64 {
        zero_bytes(self.size_bytes, self.chunk_bytes, &self.zero_chunks)
    }

    /// Most data that a file with the data noted here may hold: a file system keeps holes by the
    /// block, and may write out the zeros between two pieces of data that are close to each other.
    /// `None` where the data was not noted.
    pub fn most_data_bytes(&self) -> Option<u64> {
        self.data_bytes.map(|data| data + data / 16 + (64 << 10))
    }

    /// The segment's line in the manifest.
    pub fn to_line(&self) -> String {
        json_line(&SegmentLine {
            key: self.key.to_string(),
            r#type: self.address.segment_type.name().to_owned(),
            stage: self.address.stage(),
            size: self.size_bytes,
            uid: self.uid,
            gid: self.gid,
            mode: format!("{:04o}", self.mode),
            file: self.file_name(),
            encoding: self.encoding.name().to_owned(),
            file_size: self.file_bytes,
            crc32: format!("{:08x}", self.crc32),
            chunk_size: self.chunk_bytes,
            chunks: self.chunks.clone(),
            encoded_crc32: self.encoded_sums.clone(),
            content: self.columns_content.map(|content| (content.bytes, content.crc32)),
            zero_chunks: self.zero_chunks.clone(),
            data_size: self.data_bytes,
        })
    }
}

/// The line of a segment.
#[derive(Serialize, Deserialize)]
struct SegmentLine {
    key: String,
    r#type: String,
    stage: Option<u16>,
    size: u64,
    uid: u32,
    gid: u32,
    mode: String,
    file: String,
    encoding: String,
    file_size: u64,
    crc32: String,
    chunk_size: u32,
    chunks: Vec<Chunk>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    encoded_crc32: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<(u64, u32)>,
    #[serde(default)]
    zero_chunks: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_size: Option<u64>,
}

/// Reads a segment's line of the manifest of this instance and nsid, and checks it by itself:
/// types, stages and names against the key, sizes against the chunk table.
pub fn parse_segment(line: &str, instance: u8, nsid: Option<u8>) -> Result<ManifestSegment, ManifestError> {
    let claim: SegmentLine = line_of(line, "a segment's line")?;
    let key = Key::from_hex(&claim.key).ok_or_else(|| damaged(format!("{:?} is not a key", claim.key)))?;
    let wrong = |what: &str| damaged(format!("{key}: {what}"));
    let address = key.address().ok_or_else(|| wrong("not an Aerospike key"))?;
    if address.instance != instance {
        return Err(wrong(&format!("belongs to instance {}, expected {}", address.instance, instance)));
    }
    if address.segment_type.is_index() && Some(address.nsid) != nsid {
        return Err(wrong(&format!("has nsid {}, expected {:?}", address.nsid, nsid)));
    }
    let is_valid = |encoding: &Encoding| encoding.is_plain() || address.segment_type.may_be_compressed();
    let encoding = Encoding::named(&claim.encoding)
        .filter(is_valid)
        .ok_or_else(|| wrong(&format!("encoding {:?} is not valid for a {}", claim.encoding, address.segment_type.name())))?;
    if claim.file != file_name(key, encoding) || claim.r#type != address.segment_type.name() || claim.stage != address.stage() {
        return Err(wrong("its file name, type or stage does not follow from its key"));
    }
    let mode = u32::from_str_radix(&claim.mode, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| wrong(&format!("{:?} is not a mode", claim.mode)))?;
    let crc32 = u32::from_str_radix(&claim.crc32, 16).map_err(|_| wrong(&format!("{:?} is not a CRC-32", claim.crc32)))?;
    if claim.uid == u32::MAX || claim.gid == u32::MAX {
        return Err(wrong("its owner or group is 4294967295, which is not a valid id"));
    }
    let segment = ManifestSegment {
        key,
        address,
        size_bytes: claim.size,
        uid: claim.uid,
        gid: claim.gid,
        mode,
        encoding,
        file_bytes: claim.file_size,
        crc32,
        chunk_bytes: claim.chunk_size,
        chunks: claim.chunks,
        encoded_sums: claim.encoded_crc32,
        columns_content: claim.content.map(|(bytes, crc32)| Content { bytes, crc32 }),
        zero_chunks: claim.zero_chunks,
        data_bytes: claim.data_size,
    };
    check_chunks(&segment).map_err(|text| wrong(&text))?;
    Ok(segment)
}

/// Checks a chunk table against the sizes: every byte of the segment in one chunk, every chunk in
/// the file, in order.
pub fn check_chunks(segment: &ManifestSegment) -> Result<(), String> {
    if !segment.chunk_bytes.is_power_of_two() || !CHUNK_SIZES.contains(&segment.chunk_bytes) {
        return Err(format!(
            "chunk size {} is not a power of two from {} to {}",
            segment.chunk_bytes,
            CHUNK_SIZES.start(),
            CHUNK_SIZES.end()
        ));
    }
    let sizes = segment.address.segment_type.min_bytes()..=MAX_SEGMENT_BYTES;
    if !sizes.contains(&segment.size_bytes) {
        return Err(format!(
            "size {} is not from {} to {}, as required for a {}",
            segment.size_bytes,
            sizes.start(),
            sizes.end(),
            segment.address.segment_type.name()
        ));
    }
    let expected = chunk_count(segment.size_bytes, segment.chunk_bytes);
    if segment.chunks.len() as u64 != expected {
        return Err(format!("it has {} chunks, expected {expected}", segment.chunks.len()));
    }
    let is_plain = segment.encoding.is_plain();
    if !segment.encoded_sums.is_empty() && (is_plain || segment.encoded_sums.len() as u64 != expected) {
        return Err(format!("it has {} CRC-32s of encoded chunks", segment.encoded_sums.len()));
    }
    if segment.columns_content.is_some() != (segment.encoding == Encoding::Columns) {
        return Err("only a file in columns has, and needs, the size and CRC-32 of its content".to_owned());
    }
    let mut offset = if is_plain { 0 } else { FIRST_CHUNK_OFFSET };
    for (index, chunk) in segment.chunks.iter().enumerate() {
        let bytes = chunk_range(segment.size_bytes, segment.chunk_bytes, index as u64).end
            - chunk_range(segment.size_bytes, segment.chunk_bytes, index as u64).start;
        // Stored blocks cost 5 bytes per 64 KiB, and there is padding; half as much again is
        // generous and still bounded.
        let length_fits = match is_plain {
            true => u64::from(chunk.length) == bytes,
            false => chunk.length > 0 && u64::from(chunk.length) <= bytes + bytes / 2 + 4 * SECTOR_BYTES,
        };
        if chunk.offset != offset || !length_fits {
            return Err(format!(
                "chunk {index} is at {}+{}, expected at {offset} and of a length that fits {bytes} bytes",
                chunk.offset, chunk.length
            ));
        }
        offset += u64::from(chunk.length);
    }
    let file_bytes = if is_plain { offset } else { offset + AFTER_CHUNKS_BYTES };
    if segment.file_bytes != file_bytes {
        return Err(format!("its file has {} bytes, expected {file_bytes}", segment.file_bytes));
    }
    let crc32 = combined_crc32(segment.size_bytes, segment.chunk_bytes, segment.chunks.iter().map(|chunk| chunk.crc32));
    if crc32 != segment.crc32 {
        return Err(format!("its chunks add up to CRC-32 {crc32:08x}, expected {:08x}", segment.crc32));
    }
    let mut after = 0;
    for &(first, count) in &segment.zero_chunks {
        let end = first.checked_add(count).filter(|end| first >= after && count > 0 && *end <= expected);
        after = end.ok_or_else(|| format!("its run of zero chunks {first}+{count} does not fit"))?;
    }
    check_zeros(segment)
}

/// Checks what a segment's line says of zeros: they need not be read, and what is data decides how
/// much memory is needed.
pub fn check_zeros(segment: &ManifestSegment) -> Result<(), String> {
    let of_whole = crc::of_zeros(u64::from(segment.chunk_bytes));
    for index in segment.zero_chunks.iter().flat_map(|&(first, count)| first..first + count) {
        let range = chunk_range(segment.size_bytes, segment.chunk_bytes, index);
        let bytes = range.end - range.start;
        let zeros = if bytes == u64::from(segment.chunk_bytes) { of_whole } else { crc::of_zeros(bytes) };
        let found = usize::try_from(index).ok().and_then(|index| segment.chunks.get(index)).map(|chunk| chunk.crc32);
        if found != Some(zeros) {
            return Err(format!(
                "chunk {index} is listed as zeros but has CRC-32 {:08x}, expected {zeros:08x}",
                found.unwrap_or_default()
            ));
        }
    }
    let most = segment.size_bytes - segment.zero_bytes();
    match segment.data_bytes {
        Some(data) if data > most => Err(format!("it lists {data} bytes of data, expected at most {most}")),
        _ => Ok(()),
    }
}
