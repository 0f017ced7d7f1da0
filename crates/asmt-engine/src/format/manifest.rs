//! The manifest of a namespace's backup: what was copied, chunk by chunk, and what was noted beside
//! it.
//!
//! Promise: what is written is read back the same, and what is read is checked before it is
//! believed: sizes are claims, and names are derived from keys. Must never: allocate by a number
//! that a file holds.

use crate::format::chunks::{CHUNK_SIZES, Chunk, chunk_count, chunk_range, zero_bytes};
use crate::format::frame::{AFTER_CHUNKS_BYTES, FIRST_CHUNK_OFFSET, SECTOR_BYTES};
use crate::format::names::{Encoding, file_name};
use crate::format::rfc3339;
use crate::layout::server_config::Setting;
use asmt_codec::crc;
use asmt_shm::{Address, Key, MAX_SEGMENT_BYTES, NamespaceName, SegmentType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the manifest's format that this program writes, and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// What the first line of every manifest says it is.
pub const MANIFEST_FORMAT: &str = "asmt-manifest";

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
    /// One entry a chunk, in order.
    pub chunks: Vec<Chunk>,
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
}

/// What a storage device or a stripe said when its backup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderStamp {
    /// Path of a device or file; key of a stripe.
    pub what: String,
    /// Its random.
    pub random: u64,
    /// Whether it was marked as trusted.
    pub is_trusted: bool,
    /// Whose it is, if it is not of the manifest's own namespace: one server opens the devices of
    /// all of them.
    pub namespace: Option<NamespaceName>,
    /// Whether it is a regular file, whose header a power cut can set back.
    pub is_file: bool,
    /// Names that stay with the disk when its path changes.
    pub ids: Vec<String>,
    /// Whether it was blank: configured, and not used by a server yet. It has no random then.
    pub is_blank: bool,
    /// Whether the server's configuration named it for its namespace. Not noted in backups made
    /// before this was.
    pub is_configured: bool,
}

/// A file that a running server writes to: its log, or its metadata directory as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Path of the log, or of the `smd` directory.
    #[serde(rename = "of")]
    pub path: String,
    /// Its state; `None` where nothing is there.
    pub state: Option<TraceState>,
}

/// The state of such a file: two looks that find the same state have seen the same contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceState {
    /// Inode of a log; 0 for a directory.
    pub inode: u64,
    /// Bytes of a log; number of files in a directory.
    pub size: u64,
    /// Last change of the contents, nanoseconds since 1970; of a directory the latest of its files.
    /// Text in the file: it has more bits than a number of JavaScript's.
    #[serde(with = "as_text")]
    pub modified_ns: u64,
    /// CRC-32 of names, inodes, sizes and times of a directory's files; of an empty or missing log
    /// that of the files beside it that were rotated away; 0 for a log with something in it.
    #[serde(default)]
    pub digest: u32,
    /// Whether the log ends with the line that a server writes last at a clean stop.
    #[serde(default, rename = "finished")]
    pub is_finished: bool,
}

/// A number as text.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not a number")))
    }
}

/// What was noted beside the segments, to tell later whether the server has run since. Backups of
/// asmt 0.1 before it noted this have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFingerprint {
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Storage devices and files of every namespace of the instance.
    pub devices: Vec<HeaderStamp>,
    /// Data stripes.
    pub stripes: Vec<HeaderStamp>,
    /// What the server writes to.
    pub traces: Vec<Trace>,
    /// Identity of the IPC namespace.
    pub ipc_namespace: Option<String>,
    /// Time since boot (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: Option<u64>,
    /// Path of the configuration that was read; `None` if none was.
    pub configuration: Option<String>,
    /// Uses that marks in the directory told of when the backup was made: they are of earlier
    /// backups.
    pub earlier_uses: Vec<String>,
    /// Ids of the segments, in the order of their keys: within an IPC namespace they tell these
    /// from ones made later.
    pub shmids: Vec<i32>,
    /// Ids of the other segments of the instance, ascending: they were there already. `None` in
    /// backups made before this was noted.
    pub beside: Option<Vec<i32>>,
    /// Settings of the namespace that a start compares with its segments, by name.
    pub settings: BTreeMap<String, Setting>,
}

/// The manifest of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Tool and version that wrote it.
    pub tool: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// Host name.
    pub host: String,
    /// Boot id of the kernel whose memory was copied.
    pub boot_id: String,
    /// Instance.
    pub instance: u8,
    /// Namespace.
    pub namespace: NamespaceName,
    /// nsid of the index; `None` if there are only stripes.
    pub nsid: Option<u8>,
    /// Layout version of base; `None` if there are only stripes.
    pub base_version: Option<u32>,
    /// What was noted beside the segments.
    pub noted: ServerFingerprint,
    /// Segments, by key; base included.
    pub segments: Vec<ManifestSegment>,
}

/// First line of the file.
#[derive(Serialize, Deserialize)]
pub struct HeadLine {
    format: String,
    version: u32,
    tool: String,
    created: String,
    created_ms: u64,
    host: String,
    boot_id: String,
    instance: u8,
    namespace: String,
    nsid: Option<u8>,
    base_version: Option<u32>,
    #[serde(default)]
    machine_id: Option<String>,
    #[serde(default)]
    devices: Vec<NotedLine>,
    #[serde(default)]
    stripes: Vec<NotedLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    traces: Vec<Trace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipc_namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monotonic_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier_uses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shmids: Vec<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beside: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, Setting>,
    segment_count: u64,
}

/// A device or stripe in the first line. The random is text: it has 64 bits, and JavaScript's
/// numbers have 53.
#[derive(Serialize, Deserialize)]
pub struct NotedLine {
    /// Path of a device, key of a stripe.
    #[serde(rename = "of")]
    what: String,
    random: String,
    trusted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    file: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    blank: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    configured: bool,
}

impl NotedLine {
    fn new(noted: &HeaderStamp) -> Self {
        Self {
            what: noted.what.clone(),
            random: format!("{:016x}", noted.random),
            trusted: noted.is_trusted,
            namespace: noted.namespace.as_ref().map(ToString::to_string),
            file: noted.is_file,
            ids: noted.ids.clone(),
            blank: noted.is_blank,
            configured: noted.is_configured,
        }
    }

    fn read(self) -> Result<HeaderStamp, ManifestError> {
        let is_hex = self.random.len() == 16 && self.random.bytes().all(|byte| byte.is_ascii_hexdigit());
        let random = Some(&self.random).filter(|_| is_hex).and_then(|text| u64::from_str_radix(text, 16).ok());
        let random = random.ok_or_else(|| damaged(format!("{:?} is not a valid random for {}", self.random, self.what)))?;
        let name =
            |text: String| NamespaceName::new(&text).ok_or_else(|| damaged(format!("{text:?} is not a valid namespace name")));
        let namespace = self.namespace.map(name).transpose()?;
        let (is_trusted, is_file, is_blank, is_configured) = (self.trusted, self.file, self.blank, self.configured);
        Ok(HeaderStamp { what: self.what, random, is_trusted, namespace, is_file, ids: self.ids, is_blank, is_configured })
    }
}

/// What is read of the first line before anything else.
#[derive(Deserialize)]
pub struct FormatLine {
    format: String,
    version: u32,
}

/// A line a segment.
#[derive(Serialize, Deserialize)]
pub struct SegmentLine {
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
    #[serde(default)]
    zero_chunks: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_size: Option<u64>,
}

/// Last line: the checksum of all bytes before it.
#[derive(Serialize, Deserialize)]
pub struct EndLine {
    end: bool,
    crc32: String,
}

/// Why a manifest was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// Its format has this version, and this program reads up to [`MANIFEST_VERSION`].
    TooNew(u32),
    /// Anything else; the text says what was found and expected.
    Damaged(String),
}

pub fn damaged(text: impl Into<String>) -> ManifestError {
    ManifestError::Damaged(text.into())
}

pub fn line_of<'a, T: Deserialize<'a>>(line: &'a str, what: &str) -> Result<T, ManifestError> {
    serde_json::from_str(line).map_err(|error| damaged(format!("{what}: {error}")))
}

impl Manifest {
    /// The manifest as it stands in its file.
    pub fn to_text(&self) -> String {
        let head = HeadLine {
            format: MANIFEST_FORMAT.to_owned(),
            version: MANIFEST_VERSION,
            tool: self.tool.clone(),
            created: rfc3339(self.created_ms),
            created_ms: self.created_ms,
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            instance: self.instance,
            namespace: self.namespace.as_str().to_owned(),
            nsid: self.nsid,
            base_version: self.base_version,
            machine_id: self.noted.machine_id.clone(),
            devices: self.noted.devices.iter().map(NotedLine::new).collect(),
            stripes: self.noted.stripes.iter().map(NotedLine::new).collect(),
            traces: self.noted.traces.clone(),
            ipc_namespace: self.noted.ipc_namespace.clone(),
            monotonic_ms: self.noted.monotonic_ms,
            configuration: self.noted.configuration.clone(),
            earlier_uses: self.noted.earlier_uses.clone(),
            shmids: self.noted.shmids.clone(),
            beside: self.noted.beside.clone(),
            settings: self.noted.settings.clone(),
            segment_count: self.segments.len() as u64,
        };
        let mut text = json_line(&head);
        for segment in &self.segments {
            text.push_str(&json_line(&SegmentLine {
                key: segment.key.to_string(),
                r#type: segment.address.segment_type.name().to_owned(),
                stage: segment.address.stage(),
                size: segment.size_bytes,
                uid: segment.uid,
                gid: segment.gid,
                mode: format!("{:04o}", segment.mode),
                file: segment.file_name(),
                encoding: segment.encoding.name().to_owned(),
                file_size: segment.file_bytes,
                crc32: format!("{:08x}", segment.crc32),
                chunk_size: segment.chunk_bytes,
                chunks: segment.chunks.clone(),
                zero_chunks: segment.zero_chunks.clone(),
                data_size: segment.data_bytes,
            }));
        }
        let crc32 = format!("{:08x}", crc32fast::hash(text.as_bytes()));
        text + &json_line(&EndLine { end: true, crc32 })
    }

    /// Reads a manifest and checks it as far as it can be checked by itself: its own checksum,
    /// every key against the instance and nsid, types, stages and names against keys, sizes against
    /// chunk tables.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let first = text.lines().next().unwrap_or_default();
        let format: FormatLine = line_of(first, "its first line")?;
        if format.format != MANIFEST_FORMAT {
            return Err(damaged(format!("its format is {:?}, expected {MANIFEST_FORMAT:?}", format.format)));
        }
        if format.version > MANIFEST_VERSION {
            return Err(ManifestError::TooNew(format.version));
        }
        let body_bytes = text.strip_suffix('\n').and_then(|t| t.rfind('\n')).map(|at| at + 1);
        let (body, last) = text.split_at(body_bytes.ok_or_else(|| damaged("it is truncated"))?);
        let end: EndLine = line_of(last, "its last line (is it truncated?)")?;
        let crc32 = format!("{:08x}", crc32fast::hash(body.as_bytes()));
        if !end.end || end.crc32 != crc32 {
            return Err(damaged(format!("its checksum is {crc32}, expected {}", end.crc32)));
        }
        let mut lines = body.lines();
        let head: HeadLine = line_of(lines.next().unwrap_or_default(), "its first line")?;
        let namespace = NamespaceName::new(&head.namespace)
            .ok_or_else(|| damaged(format!("{:?} is not a valid namespace name", head.namespace)))?;
        let segments = lines.map(|line| parse_segment(line, &head)).collect::<Result<Vec<_>, _>>()?;
        if segments.len() as u64 != head.segment_count {
            return Err(damaged(format!("it lists {} segments, expected {}", segments.len(), head.segment_count)));
        }
        if segments.is_empty() {
            return Err(damaged("it lists no segments"));
        }
        if !segments.is_sorted_by(|a, b| a.key < b.key) {
            return Err(damaged("its segments are not in ascending order of keys"));
        }
        let read = |lines: Vec<NotedLine>| lines.into_iter().map(NotedLine::read).collect::<Result<Vec<_>, _>>();
        let noted = ServerFingerprint {
            machine_id: head.machine_id,
            devices: read(head.devices)?,
            stripes: read(head.stripes)?,
            traces: head.traces,
            ipc_namespace: head.ipc_namespace,
            monotonic_ms: head.monotonic_ms,
            configuration: head.configuration,
            earlier_uses: head.earlier_uses,
            shmids: head.shmids,
            beside: head.beside,
            settings: head.settings,
        };
        Ok(Self {
            tool: head.tool,
            created_ms: head.created_ms,
            host: head.host,
            boot_id: head.boot_id,
            instance: head.instance,
            namespace,
            nsid: head.nsid,
            base_version: head.base_version,
            noted,
            segments,
        })
    }

    /// Id that a segment had when it was backed up, if that was noted.
    pub fn shmid_of(&self, key: Key) -> Option<i32> {
        let index = self.segments.binary_search_by_key(&key, |segment| segment.key).ok()?;
        self.noted.shmids.get(index).copied()
    }

    /// Whether a base is among its segments: then base, and else the manifest, commits the backup.
    pub fn has_base(&self) -> bool {
        self.segments.iter().any(|segment| segment.address.segment_type == SegmentType::PiBase)
    }
}

pub fn parse_segment(line: &str, head: &HeadLine) -> Result<ManifestSegment, ManifestError> {
    let claim: SegmentLine = line_of(line, "a segment's line")?;
    let key = Key::from_hex(&claim.key).ok_or_else(|| damaged(format!("{:?} is not a key", claim.key)))?;
    let wrong = |what: &str| damaged(format!("{key}: {what}"));
    let address = key.address().ok_or_else(|| wrong("not an Aerospike key"))?;
    if address.instance != head.instance {
        return Err(wrong(&format!("belongs to instance {}, expected {}", address.instance, head.instance)));
    }
    if address.segment_type.is_index() && Some(address.nsid) != head.nsid {
        return Err(wrong(&format!("has nsid {}, expected {:?}", address.nsid, head.nsid)));
    }
    let encoding = match claim.encoding.as_str() {
        "raw" => Encoding::Raw,
        "gzip" if address.segment_type.may_be_compressed() => Encoding::Gzip,
        other => return Err(wrong(&format!("encoding {other:?} is not valid for a {}", address.segment_type.name()))),
    };
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
    let mut offset = match segment.encoding {
        Encoding::Raw => 0,
        Encoding::Gzip => FIRST_CHUNK_OFFSET,
    };
    let mut crc32 = crc32fast::Hasher::new();
    for (index, chunk) in segment.chunks.iter().enumerate() {
        let bytes = chunk_range(segment.size_bytes, segment.chunk_bytes, index as u64).end
            - chunk_range(segment.size_bytes, segment.chunk_bytes, index as u64).start;
        let length_fits = match segment.encoding {
            Encoding::Raw => u64::from(chunk.length) == bytes,
            // Stored blocks cost 5 bytes a 64 KiB, and there is padding; half as much again is
            // generous and still bounded.
            Encoding::Gzip => chunk.length > 0 && u64::from(chunk.length) <= bytes + bytes / 2 + 4 * SECTOR_BYTES,
        };
        if chunk.offset != offset || !length_fits {
            return Err(format!(
                "chunk {index} is at {}+{}, expected at {offset} and of a length that fits {bytes} bytes",
                chunk.offset, chunk.length
            ));
        }
        offset += u64::from(chunk.length);
        crc32.combine(&crc32fast::Hasher::new_with_initial_len(chunk.crc32, bytes));
    }
    let file_bytes = match segment.encoding {
        Encoding::Raw => offset,
        Encoding::Gzip => offset + AFTER_CHUNKS_BYTES,
    };
    if segment.file_bytes != file_bytes {
        return Err(format!("its file has {} bytes, expected {file_bytes}", segment.file_bytes));
    }
    let crc32 = crc32.finalize();
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

pub fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structures always serialise") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(key: u32, size_bytes: u64, encoding: Encoding) -> ManifestSegment {
        segment_in_chunks(key, size_bytes, encoding, 4096)
    }

    fn segment_in_chunks(key: u32, size_bytes: u64, encoding: Encoding, chunk_bytes: u32) -> ManifestSegment {
        let key = Key(key);
        let mut offset = if encoding == Encoding::Gzip { FIRST_CHUNK_OFFSET } else { 0 };
        let mut crc32 = crc32fast::Hasher::new();
        let mut chunks = Vec::new();
        for index in 0..chunk_count(size_bytes, chunk_bytes) {
            let range = chunk_range(size_bytes, chunk_bytes, index);
            let length = if encoding == Encoding::Gzip { 100 } else { (range.end - range.start) as u32 };
            let crc32_of = |index: u64| if index == 0 { crc::of_zeros(range.end - range.start) } else { 7 + index as u32 };
            let chunk = Chunk { offset, length, crc32: crc32_of(index) };
            crc32.combine(&crc32fast::Hasher::new_with_initial_len(chunk.crc32, range.end - range.start));
            offset += u64::from(length);
            chunks.push(chunk);
        }
        let file_bytes = if encoding == Encoding::Gzip { offset + AFTER_CHUNKS_BYTES } else { offset };
        ManifestSegment {
            key,
            address: key.address().expect("an address"),
            size_bytes,
            uid: 1,
            gid: 2,
            mode: 0o640,
            encoding,
            file_bytes,
            crc32: crc32.finalize(),
            chunk_bytes,
            chunks,
            zero_chunks: vec![(0, 1)],
            data_bytes: Some(0),
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            tool: "asmt 0.1.0".to_owned(),
            created_ms: 1_782_864_000_000,
            host: "node1".to_owned(),
            boot_id: "b".to_owned(),
            instance: 0,
            namespace: NamespaceName::new("test").expect("a name"),
            nsid: Some(1),
            base_version: Some(12),
            noted: ServerFingerprint {
                machine_id: Some("m".to_owned()),
                devices: vec![
                    HeaderStamp {
                        what: "/dev/nvme0n1".to_owned(),
                        random: u64::MAX - 1,
                        is_trusted: true,
                        ..HeaderStamp::default()
                    },
                    HeaderStamp {
                        what: "/srv/other.dat".to_owned(),
                        random: 7,
                        is_trusted: true,
                        namespace: NamespaceName::new("other"),
                        is_file: true,
                        ids: vec!["/dev/disk/by-id/x".to_owned()],
                        is_blank: true,
                        is_configured: true,
                    },
                ],
                stripes: vec![HeaderStamp { what: "ad005001".to_owned(), ..HeaderStamp::default() }],
                traces: vec![
                    Trace { path: "/opt/aerospike/smd".to_owned(), state: None },
                    Trace {
                        path: "/var/log/aerospike/aerospike.log".to_owned(),
                        state: Some(TraceState { inode: 7, size: 8, modified_ns: u64::MAX, digest: 0, is_finished: true }),
                    },
                ],
                ipc_namespace: Some("id:07".to_owned()),
                monotonic_ms: Some(1),
                configuration: Some("/etc/aerospike/aerospike.conf".to_owned()),
                earlier_uses: vec!["r".to_owned()],
                shmids: vec![3, 32_770],
                beside: Some(vec![5]),
                settings: [
                    ("data-size".to_owned(), Setting { text: "4G".to_owned(), value: Some(4 << 30) }),
                    ("partition-tree-sprigs".to_owned(), Setting { text: "?".to_owned(), value: None }),
                ]
                .into(),
            },
            segments: vec![
                segment(0xad00_5001, 8192, Encoding::Gzip),
                segment(0xae00_1000, 65_536, Encoding::Raw),
                segment(0xae00_1100, 10_000, Encoding::Gzip),
            ],
        }
    }

    /// The text with a change, and a checksum that fits again: what a forger would write.
    fn forged(from: &str, to: &str) -> String {
        let text = manifest().to_text();
        assert!(text.contains(from), "{from} is not in {text}");
        let text = text.replacen(from, to, 1);
        let body = &text[..text.trim_end().rfind('\n').expect("lines") + 1];
        format!("{body}{{\"end\":true,\"crc32\":\"{:08x}\"}}\n", crc32fast::hash(body.as_bytes()))
    }

    #[test]
    fn a_manifest_is_read_back_as_it_was_written() {
        let text = manifest().to_text();
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        assert!(text.contains("\"created\":\"2026-07-01T00:00:00Z\""), "{text}");
        assert!(manifest().has_base());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let text = manifest().to_text();
        for end in 0..text.len() {
            assert!(Manifest::parse(&text[..end]).is_err(), "cut to {end}");
        }
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("ASCII stays ASCII");
                assert!(Manifest::parse(&changed).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_forged_manifest_is_not_believed() {
        for (from, to) in [
            ("\"key\":\"ad005001\"", "\"key\":\"ad105001\""),
            ("\"key\":\"ae001000\"", "\"key\":\"ae002000\""),
            ("\"file\":\"ae001000.dat\"", "\"file\":\"../../passwd\""),
            ("\"stage\":0", "\"stage\":1"),
            ("\"size\":65536", "\"size\":18446744073709551615"),
            ("\"size\":10000", "\"size\":20000"),
            ("\"mode\":\"0640\"", "\"mode\":\"4755\""),
            ("\"uid\":1", "\"uid\":4294967295"),
            ("\"gid\":2", "\"gid\":4294967295"),
            ("\"type\":\"pi-base\"", "\"type\":\"pi-treex\""),
            ("\"chunk_size\":4096", "\"chunk_size\":33554432"),
            ("\"chunk_size\":4096", "\"chunk_size\":0"),
            ("\"chunk_size\":4096", "\"chunk_size\":2147483648"),
            ("\"zero_chunks\":[[0,1]]", "\"zero_chunks\":[[0,18446744073709551615]]"),
            ("\"zero_chunks\":[[0,1]]", "\"zero_chunks\":[[1,1],[1,1]]"),
            ("[4096,100,", "[0,100,"),
            ("\"segment_count\":3", "\"segment_count\":4"),
            ("\"namespace\":\"test\"", "\"namespace\":\"te\\u0007st\""),
            ("\"encoding\":\"raw\"", "\"encoding\":\"gzip\""),
            ("\"file_size\":65536", "\"file_size\":65537"),
            ("\"random\":\"fffffffffffffffe\"", "\"random\":\"1fffffffffffffffe\""),
            ("\"random\":\"fffffffffffffffe\"", "\"random\":\"+ffffffffffffffe\""),
        ] {
            let outcome = Manifest::parse(&forged(from, to));
            assert!(matches!(outcome, Err(ManifestError::Damaged(_))), "{to}: {outcome:?}");
        }
        assert_eq!(Manifest::parse(&forged("\"version\":1", "\"version\":2")), Err(ManifestError::TooNew(2)));
    }

    /// A compressed segment of one chunk with this length in its file.
    fn compressed_to(length: u32) -> ManifestSegment {
        let mut segment = segment(0xae00_1100, 4096, Encoding::Gzip);
        segment.chunks[0].length = length;
        segment.file_bytes = FIRST_CHUNK_OFFSET + u64::from(length) + AFTER_CHUNKS_BYTES;
        segment
    }

    #[test]
    fn a_manifest_that_agrees_with_itself_must_be_true_of_a_backup_too() {
        type Change = fn(&mut Manifest);
        let lies: &[(&str, Change)] = &[
            ("no segments", |lie| lie.segments.clear()),
            ("a segment twice", |lie| lie.segments.insert(1, lie.segments[1].clone())),
            ("segments in another order", |lie| lie.segments.swap(0, 1)),
            ("a compressed base", |lie| lie.segments[1] = segment(0xae00_1000, 65_536, Encoding::Gzip)),
            ("chunks of no power of two", |lie| lie.segments[2] = segment_in_chunks(0xae00_1100, 10_000, Encoding::Raw, 5000)),
            ("chunks too small", |lie| lie.segments[2] = segment_in_chunks(0xae00_1100, 10_000, Encoding::Raw, 2048)),
            ("chunks too large", |lie| lie.segments[2] = segment_in_chunks(0xae00_1100, 10_000, Encoding::Raw, 32 << 20)),
            ("a segment too small for its type", |lie| lie.segments[1] = segment(0xae00_1000, 100, Encoding::Raw)),
            ("a chunk of nothing", |lie| lie.segments[2] = compressed_to(0)),
            ("a chunk that grew too much", |lie| lie.segments[2] = compressed_to(4096 + 2048 + 4 * 4096 + 1)),
            ("a chunk of nothing before others", |lie| {
                lie.segments[2].chunks[0].length = 0;
                lie.segments[2].chunks.iter_mut().skip(1).for_each(|chunk| chunk.offset -= 100);
                lie.segments[2].file_bytes -= 100;
            }),
            ("sums of chunks that are not the segment's", |lie| lie.segments[2].crc32 ^= 1),
            ("a run of no zero chunks", |lie| lie.segments[2].zero_chunks = vec![(0, 0)]),
            ("zero chunks past the last", |lie| lie.segments[2].zero_chunks = vec![(0, 4)]),
            ("zero chunks that are something else", |lie| lie.segments[2].zero_chunks = vec![(0, 2)]),
            ("more data than there is room for", |lie| lie.segments[2].data_bytes = Some(10_000 - 4096 + 1)),
            ("zero chunks before those before", |lie| lie.segments[2].zero_chunks = vec![(1, 1), (0, 1)]),
        ];
        for (what, change) in lies {
            let mut lie = manifest();
            change(&mut lie);
            let outcome = Manifest::parse(&lie.to_text());
            assert!(matches!(outcome, Err(ManifestError::Damaged(_))), "{what}: {outcome:?}");
        }
        for (what, segment) in [
            ("the largest growth that is thought of", compressed_to(4096 + 2048 + 4 * 4096)),
            ("as much data as there may be", {
                ManifestSegment { data_bytes: Some(10_000 - 4096), ..segment(0xae00_1100, 10_000, Encoding::Gzip) }
            }),
            ("the smallest chunks", segment(0xae00_1100, 10_000, Encoding::Raw)),
            ("the largest chunks", segment_in_chunks(0xae00_1100, 10_000, Encoding::Raw, 16 << 20)),
        ] {
            let mut truth = manifest();
            truth.segments[2] = segment;
            assert_eq!(Manifest::parse(&truth.to_text()), Ok(truth), "{what}");
        }
    }

    #[test]
    fn a_manifest_without_its_end_is_cut_short_whatever_its_checksum_says() {
        let text = manifest().to_text().replace("\"end\":true", "\"end\":false");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Damaged(_))));
    }

    #[test]
    fn what_commits_a_backup_is_base_or_where_there_is_none_the_manifest() {
        assert!(manifest().has_base());
        let stripes = Manifest { segments: vec![segment(0xad00_5001, 8192, Encoding::Gzip)], ..manifest() };
        assert!(!stripes.has_base());
    }

    #[test]
    fn unknown_fields_of_the_same_version_are_let_be() {
        assert!(Manifest::parse(&forged("\"host\":", "\"colour\":[],\"host\":")).is_ok());
    }

    #[test]
    fn a_manifest_of_before_data_was_noted_is_read_and_written_the_same() {
        let mut old = manifest();
        old.segments.iter_mut().for_each(|segment| segment.data_bytes = None);
        assert!(!old.to_text().contains("data_size"));
        assert_eq!(Manifest::parse(&old.to_text()), Ok(old));
    }

    #[test]
    fn a_manifest_of_before_devices_were_noted_is_read() {
        let text = manifest().to_text();
        let from = text.find("\"machine_id\"").expect("the field");
        let to = text.find("\"segment_count\"").expect("the field after it");
        let old = Manifest::parse(&forged(&text[from..to], "")).expect("an old manifest");
        assert_eq!(old, Manifest { noted: ServerFingerprint::default(), ..manifest() });
    }
}
