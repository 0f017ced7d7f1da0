//! The bytes of a backup: ASMT's 24-byte header, the gzip member around chunks, and the manifest. No I/O.
//!
//! Promise: what is written here is read back the same, and what is read is checked before it is believed: sizes are
//! claims, names are derived from keys. Must never: allocate by a number that a file holds.
//!
//! `docs/FORMAT.md` is this file for people; change both together. The header and names are ASMT 2.2.1's (observed);
//! the manifest is ours.

pub mod journal;
pub mod mark;
pub mod run_id;

use crate::layout::server_config::Setting;
use asmt_codec::encode::{ChunkKind, max_encoded_bytes};
use asmt_codec::{DEFLATE_END, GZIP_HEADER, crc};
use asmt_shm::{Address, Key, MAX_SEGMENT_BYTES, NamespaceName, SegmentType};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes in front of the gzip member of a `.dat.gz`.
pub const ASMT_HEADER_BYTES: usize = 24;
/// `ASMT`, as it stands in the file.
const ASMT_MAGIC: [u8; 4] = *b"ASMT";
/// Version of that header.
const ASMT_VERSION: u32 = 1;
/// CRC-32 and length mod 2^32 behind the deflate stream.
pub const GZIP_TRAILER_BYTES: usize = 8;
/// Bytes in front of the deflate stream of a `.dat.gz`.
pub const BEFORE_STREAM_BYTES: usize = ASMT_HEADER_BYTES + GZIP_HEADER.len();
/// Offset in bytes of the first chunk in a `.dat.gz` of ours; empty blocks fill what is before it.
pub const FIRST_CHUNK_OFFSET: u64 = SECTOR_BYTES;
/// Bytes behind the last chunk in a `.dat.gz` of ours.
pub const AFTER_CHUNKS_BYTES: u64 = (DEFLATE_END.len() + GZIP_TRAILER_BYTES) as u64;
/// What the chunks of a `.dat.gz` of ours are padded to with empty deflate blocks: they are written and read past the
/// page cache, which needs whole sectors.
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

/// How a segment stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `<key>.dat`: byte for byte.
    Raw,
    /// `<key>.dat.gz`: ASMT's 24-byte header, then one gzip member.
    Gzip,
}

impl Encoding {
    /// The word the manifest and listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
        }
    }
}

/// The name of the file that keeps a segment: the key in eight lower-case hex digits, `.dat`, and `.gz` if compressed.
pub fn file_name(key: Key, encoding: Encoding) -> String {
    match encoding {
        Encoding::Raw => format!("{key}.dat"),
        Encoding::Gzip => format!("{key}.dat.gz"),
    }
}

/// Reads a file name of a backup. `None` if it does not name a segment of Aerospike's: such a file is left alone.
/// Hex digits of either case are taken.
pub fn parse_file_name(name: &str) -> Option<(Key, Address, Encoding)> {
    let (digits, encoding) = match name.strip_suffix(".dat.gz") {
        Some(digits) => (digits, Encoding::Gzip),
        None => (name.strip_suffix(".dat")?, Encoding::Raw),
    };
    let key = Key::from_hex(digits)?;
    Some((key, key.address()?, encoding))
}

/// What the names of manifests begin with.
const MANIFEST_PREFIX: &str = "asmt-manifest-";

/// The file name of a namespace's manifest. ASMT ignores it: it is not `<8 hex>.dat[.gz]`.
///
/// Letters, digits, `_`, `-` and dots inside stand for themselves; every other byte is `%XX`, so that no name can
/// lead out of the directory.
pub fn manifest_name(instance: u8, namespace: &NamespaceName) -> String {
    namespace_file_name(MANIFEST_PREFIX, instance, namespace)
}

/// The name of a file that belongs to a namespace's backup and is no segment: `<prefix><instance>-<namespace>.json`.
pub fn namespace_file_name(prefix: &str, instance: u8, namespace: &NamespaceName) -> String {
    let mut name = format!("{prefix}{instance}-");
    for byte in namespace.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name + ".json"
}

/// Whether a file name is that of some namespace's manifest.
pub fn is_manifest_name(name: &str) -> bool {
    is_namespace_file(MANIFEST_PREFIX, name)
}

/// Whether a file name is of the form that [`namespace_file_name`] gives.
pub fn is_namespace_file(prefix: &str, name: &str) -> bool {
    name.starts_with(prefix) && name.ends_with(".json")
}

/// The instance that a manifest's name says it is of.
pub fn instance_of_manifest_name(name: &str) -> Option<u8> {
    name.strip_prefix(MANIFEST_PREFIX)?.split_once('-')?.0.parse().ok().filter(|instance| *instance <= asmt_shm::MAX_INSTANCE)
}

/// Version of the manifest's format that this program writes, and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;
/// What the first line of every manifest says it is.
const MANIFEST_FORMAT: &str = "asmt-manifest";
/// Chunk sizes a manifest may name: powers of two in this range. Each worker has buffers of this size.
const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 4096..=(16 << 20);

/// Bytes of a chunk, for a segment of this size: 4 MiB, and 16 MiB above 64 GiB so that tables stay small.
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
    /// Runs of chunks that hold nothing but zeros: first, count; ascending, apart. In a plain file they are holes.
    pub zero_chunks: Vec<(u64, u64)>,
    /// Bytes that were data when the segment was copied: its size without its holes. `None` in backups made before this
    /// was noted.
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

    /// Most data that a file with the data noted here may hold: a file system keeps holes by the block, and may write out
    /// the zeros between two pieces of data that are close to each other. `None` where the data was not noted.
    pub fn most_data_bytes(&self) -> Option<u64> {
        self.data_bytes.map(|data| data + data / 16 + (64 << 10))
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
const SPAN_BYTES: u64 = 1 << 30;

/// What a worker takes of a segment: a chunk, or a run of chunks that hold nothing but zeros. There may be a thousand times
/// as many of these, and each is small in its file: one by one they would cost more than the data.
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

/// What a storage device or a stripe said when its backup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Path of a device or file; key of a stripe.
    pub what: String,
    /// Its random.
    pub random: u64,
    /// Whether it was marked as trusted.
    pub is_trusted: bool,
    /// Whose it is, if it is not of the manifest's own namespace: one server opens the devices of all of them.
    pub namespace: Option<NamespaceName>,
    /// Whether it is a regular file, whose header a power cut can set back.
    pub is_file: bool,
    /// Names that stay with the disk when its path changes.
    pub ids: Vec<String>,
    /// Whether it was blank: configured, and not used by a server yet. It has no random then.
    pub is_blank: bool,
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
    /// Last change of the contents, nanoseconds since 1970; of a directory the latest of its files. Text in the
    /// file: it has more bits than a number of JavaScript's.
    #[serde(with = "as_text")]
    pub modified_ns: u64,
    /// CRC-32 of names, inodes, sizes and times of a directory's files; of an empty or missing log that of the files
    /// beside it that were rotated away; 0 for a log with something in it.
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
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")))
    }
}

/// What was noted beside the segments, to tell later whether the server has run since. Backups of asmt 0.1 before it
/// noted this have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Storage devices and files of every namespace of the instance.
    pub devices: Vec<Noted>,
    /// Data stripes.
    pub stripes: Vec<Noted>,
    /// What the server writes to.
    pub traces: Vec<Trace>,
    /// Identity of the IPC namespace.
    pub ipc_namespace: Option<String>,
    /// Time since boot (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: Option<u64>,
    /// Path of the configuration that was read; `None` if none was.
    pub configuration: Option<String>,
    /// Uses that marks in the directory told of when the backup was made: they are of earlier backups.
    pub earlier_uses: Vec<String>,
    /// Ids of the segments, in the order of their keys: within an IPC namespace they tell these from ones made later.
    pub shmids: Vec<i32>,
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
    pub noted: Surroundings,
    /// Segments, by key; base included.
    pub segments: Vec<ManifestSegment>,
}

/// First line of the file.
#[derive(Serialize, Deserialize)]
struct HeadLine {
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, Setting>,
    segment_count: u64,
}

/// A device or stripe in the first line. The random is text: it has 64 bits, and JavaScript's numbers have 53.
#[derive(Serialize, Deserialize)]
struct NotedLine {
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
}

impl NotedLine {
    fn new(noted: &Noted) -> Self {
        Self {
            what: noted.what.clone(),
            random: format!("{:016x}", noted.random),
            trusted: noted.is_trusted,
            namespace: noted.namespace.as_ref().map(ToString::to_string),
            file: noted.is_file,
            ids: noted.ids.clone(),
            blank: noted.is_blank,
        }
    }

    fn read(self) -> Result<Noted, ManifestError> {
        let is_hex = self.random.len() == 16 && self.random.bytes().all(|byte| byte.is_ascii_hexdigit());
        let random = Some(&self.random).filter(|_| is_hex).and_then(|text| u64::from_str_radix(text, 16).ok());
        let random = random.ok_or_else(|| damaged(format!("{:?} is no random of {}", self.random, self.what)))?;
        let name = |text: String| NamespaceName::new(&text).ok_or_else(|| damaged(format!("{text:?} is no namespace name")));
        let namespace = self.namespace.map(name).transpose()?;
        let (is_trusted, is_file, is_blank) = (self.trusted, self.file, self.blank);
        Ok(Noted { what: self.what, random, is_trusted, namespace, is_file, ids: self.ids, is_blank })
    }
}

/// What is read of the first line before anything else.
#[derive(Deserialize)]
struct FormatLine {
    format: String,
    version: u32,
}

/// A line a segment.
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
    #[serde(default)]
    zero_chunks: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_size: Option<u64>,
}

/// Last line: the checksum of all bytes before it.
#[derive(Serialize, Deserialize)]
struct EndLine {
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

fn damaged(text: impl Into<String>) -> ManifestError {
    ManifestError::Damaged(text.into())
}

fn line_of<'a, T: Deserialize<'a>>(line: &'a str, what: &str) -> Result<T, ManifestError> {
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

    /// Reads a manifest and checks it as far as it can be checked by itself: its own checksum, every key against the
    /// instance and nsid, types, stages and names against keys, sizes against chunk tables.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let first = text.lines().next().unwrap_or_default();
        let format: FormatLine = line_of(first, "its first line")?;
        if format.format != MANIFEST_FORMAT {
            return Err(damaged(format!("it calls itself {:?}, expected {MANIFEST_FORMAT:?}", format.format)));
        }
        if format.version > MANIFEST_VERSION {
            return Err(ManifestError::TooNew(format.version));
        }
        let body_bytes = text.strip_suffix('\n').and_then(|t| t.rfind('\n')).map(|at| at + 1);
        let (body, last) = text.split_at(body_bytes.ok_or_else(|| damaged("it is cut short"))?);
        let end: EndLine = line_of(last, "its last line (is it cut short?)")?;
        let crc32 = format!("{:08x}", crc32fast::hash(body.as_bytes()));
        if !end.end || end.crc32 != crc32 {
            return Err(damaged(format!("its checksum is {crc32}, expected {}", end.crc32)));
        }
        let mut lines = body.lines();
        let head: HeadLine = line_of(lines.next().unwrap_or_default(), "its first line")?;
        let namespace =
            NamespaceName::new(&head.namespace).ok_or_else(|| damaged(format!("{:?} is no namespace name", head.namespace)))?;
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
        let noted = Surroundings {
            machine_id: head.machine_id,
            devices: read(head.devices)?,
            stripes: read(head.stripes)?,
            traces: head.traces,
            ipc_namespace: head.ipc_namespace,
            monotonic_ms: head.monotonic_ms,
            configuration: head.configuration,
            earlier_uses: head.earlier_uses,
            shmids: head.shmids,
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

fn parse_segment(line: &str, head: &HeadLine) -> Result<ManifestSegment, ManifestError> {
    let claim: SegmentLine = line_of(line, "a segment's line")?;
    let key = Key::from_hex(&claim.key).ok_or_else(|| damaged(format!("{:?} is no key", claim.key)))?;
    let wrong = |what: &str| damaged(format!("{key}: {what}"));
    let address = key.address().ok_or_else(|| wrong("not a key of Aerospike's"))?;
    if address.instance != head.instance {
        return Err(wrong(&format!("is of instance {}, expected {}", address.instance, head.instance)));
    }
    if address.segment_type.is_index() && Some(address.nsid) != head.nsid {
        return Err(wrong(&format!("is of nsid {}, expected {:?}", address.nsid, head.nsid)));
    }
    let encoding = match claim.encoding.as_str() {
        "raw" => Encoding::Raw,
        "gzip" if address.segment_type.may_be_compressed() => Encoding::Gzip,
        other => return Err(wrong(&format!("encoding {other:?} is not known for a {}", address.segment_type.name()))),
    };
    if claim.file != file_name(key, encoding) || claim.r#type != address.segment_type.name() || claim.stage != address.stage() {
        return Err(wrong("its file name, type or stage does not follow from its key"));
    }
    let mode = u32::from_str_radix(&claim.mode, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| wrong(&format!("{:?} is no mode", claim.mode)))?;
    let crc32 = u32::from_str_radix(&claim.crc32, 16).map_err(|_| wrong(&format!("{:?} is no CRC-32", claim.crc32)))?;
    if claim.uid == u32::MAX || claim.gid == u32::MAX {
        return Err(wrong("its owner or group is 4294967295, which is none"));
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

/// Checks a chunk table against the sizes: every byte of the segment in one chunk, every chunk in the file, in order.
fn check_chunks(segment: &ManifestSegment) -> Result<(), String> {
    if !segment.chunk_bytes.is_power_of_two() || !CHUNK_SIZES.contains(&segment.chunk_bytes) {
        return Err(format!(
            "chunk size {} is no power of two from {} to {}",
            segment.chunk_bytes,
            CHUNK_SIZES.start(),
            CHUNK_SIZES.end()
        ));
    }
    let sizes = segment.address.segment_type.min_bytes()..=MAX_SEGMENT_BYTES;
    if !sizes.contains(&segment.size_bytes) {
        return Err(format!(
            "size {} is not from {} to {}, as that of a {} is",
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
            // Stored blocks cost 5 bytes a 64 KiB, and there is padding; half as much again is generous and still bounded.
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

/// Checks what a segment's line says of zeros: they need not be read, and what is data decides how much memory is needed.
fn check_zeros(segment: &ManifestSegment) -> Result<(), String> {
    let of_whole = crc::of_zeros(u64::from(segment.chunk_bytes));
    for index in segment.zero_chunks.iter().flat_map(|&(first, count)| first..first + count) {
        let range = chunk_range(segment.size_bytes, segment.chunk_bytes, index);
        let bytes = range.end - range.start;
        let zeros = if bytes == u64::from(segment.chunk_bytes) { of_whole } else { crc::of_zeros(bytes) };
        let found = usize::try_from(index).ok().and_then(|index| segment.chunks.get(index)).map(|chunk| chunk.crc32);
        if found != Some(zeros) {
            return Err(format!(
                "chunk {index} is said to hold zeros and has CRC-32 {:08x}, expected {zeros:08x}",
                found.unwrap_or_default()
            ));
        }
    }
    let most = segment.size_bytes - segment.zero_bytes();
    match segment.data_bytes {
        Some(data) if data > most => Err(format!("{data} bytes of it are said to be data, expected at most {most}")),
        _ => Ok(()),
    }
}

/// The bytes of a segment that a chunk covers.
pub fn chunk_range(segment_bytes: u64, chunk_bytes: u32, index: u64) -> Range<u64> {
    let start = index * u64::from(chunk_bytes);
    start..segment_bytes.min(start + u64::from(chunk_bytes))
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

fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structures always serialise") + "\n"
}

/// A time as people write it, UTC, to the second; the last one there is for what a lie in a file may claim.
pub fn rfc3339(unix_ms: u64) -> String {
    let second = i64::try_from(unix_ms / 1000).ok().and_then(|second| Timestamp::from_second(second).ok());
    second.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_keys_and_nothing_else() {
        let (key, address, encoding) = parse_file_name("AE30210a.dat.gz").expect("a segment's file");
        assert_eq!((key, encoding), (Key(0xae30_210a), Encoding::Gzip));
        assert_eq!((address.instance, address.nsid, address.index), (3, 2, 10));
        assert_eq!(file_name(key, encoding), "ae30210a.dat.gz");
        for name in [
            "ae001000",
            "ae001000.dat.gz.tmp",
            "+e001000.dat",
            " ae001000.dat",
            "ae00100.dat",
            "ae0010000.dat",
            "ff001000.dat",
            "ae001000.DAT",
            ".dat",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

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
            noted: Surroundings {
                machine_id: Some("m".to_owned()),
                devices: vec![
                    Noted { what: "/dev/nvme0n1".to_owned(), random: u64::MAX - 1, is_trusted: true, ..Noted::default() },
                    Noted {
                        what: "/srv/other.dat".to_owned(),
                        random: 7,
                        is_trusted: true,
                        namespace: NamespaceName::new("other"),
                        is_file: true,
                        ids: vec!["/dev/disk/by-id/x".to_owned()],
                        is_blank: true,
                    },
                ],
                stripes: vec![Noted { what: "ad005001".to_owned(), ..Noted::default() }],
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
        assert_eq!(old, Manifest { noted: Surroundings::default(), ..manifest() });
    }

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
    fn a_manifests_name_stays_in_the_directory_and_is_no_segments() {
        let name = |text: &str| manifest_name(3, &NamespaceName::new(text).expect("a name"));
        assert_eq!(name("test"), "asmt-manifest-3-test.json");
        assert_eq!(name("../x"), "asmt-manifest-3-..%2Fx.json");
        assert!(is_manifest_name(&name("test")));
        for other in ["asmt-manifest-3-test", "x-3-test.json", "asmt-manifest-3-test.json.dat", ""] {
            assert!(!is_manifest_name(other), "{other}");
        }
        assert_eq!(parse_file_name(&name("test")), None);
    }

    #[test]
    fn a_manifests_name_says_of_which_instance_it_is() {
        for (name, instance) in [
            ("asmt-manifest-3-test.json", Some(3)),
            ("asmt-manifest-0-a-b.json", Some(0)),
            ("asmt-manifest-15-test.json", Some(asmt_shm::MAX_INSTANCE)),
            ("asmt-manifest-16-test.json", None),
            ("asmt-manifest--1-test.json", None),
            ("asmt-manifest-3", None),
            ("asmt-used-3-test.json", None),
        ] {
            assert_eq!(instance_of_manifest_name(name), instance, "{name}");
        }
    }

    #[test]
    fn a_compressed_files_parts_stand_where_the_document_says() {
        assert_eq!((BEFORE_STREAM_BYTES, FIRST_CHUNK_OFFSET, AFTER_CHUNKS_BYTES), (34, 4096, 10));
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

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-30T22:00:00Z");
    }
}
