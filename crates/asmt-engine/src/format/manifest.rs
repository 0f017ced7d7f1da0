//! The manifest of a namespace's backup: what was copied, chunk by chunk, and what was noted beside
//! it.
//!
//! Promise: what is written is read back the same, and what is read is checked before it is
//! believed: sizes are claims, and names are derived from keys. Must never: allocate by a number
//! that a file holds.

use crate::format::manifest_line::{ManifestError, damaged, json_line, line_of};
use crate::format::manifest_segment::{ManifestSegment, parse_segment};
use crate::format::rfc3339;
use crate::layout::server_config::Setting;
use asmt_shm::{Key, NamespaceName, SegmentType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest version of the manifest's format that this program reads. It writes the oldest that
/// says all there is: 1, and 2 for files in columns, which a reader of 1 does not know.
pub const MANIFEST_VERSION: u32 = 2;

/// What the first line of every manifest says it is.
pub const MANIFEST_FORMAT: &str = "asmt-manifest";

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

/// The server's program, as it was when a backup was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerBinary {
    /// Path.
    #[serde(rename = "of")]
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// Last change of its contents, nanoseconds since 1970: text, as in [`TraceState`].
    #[serde(with = "as_text")]
    pub modified_ns: u64,
    /// Name and version of the package that it came with; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// How long it took to copy the segments of a backup, of all its namespaces together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRun {
    /// Bytes of data; holes are not counted.
    pub data_bytes: u64,
    /// Milliseconds, until all of it was durable.
    pub elapsed_ms: u64,
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
    /// The server's program; `None` if it was not found, and in backups made before it was noted.
    pub binary: Option<ServerBinary>,
    /// How long the copy took. `None` in exports, and in backups made before it was noted.
    pub run: Option<CopyRun>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<ServerBinary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<CopyRun>,
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

/// Last line: the checksum of all bytes before it.
#[derive(Serialize, Deserialize)]
pub struct EndLine {
    end: bool,
    crc32: String,
}

impl Manifest {
    /// The manifest as it stands in its file.
    pub fn to_text(&self) -> String {
        let head = HeadLine {
            format: MANIFEST_FORMAT.to_owned(),
            version: self.version(),
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
            server: self.noted.binary.clone(),
            run: self.noted.run,
            segment_count: self.segments.len() as u64,
        };
        let mut text = json_line(&head);
        for segment in &self.segments {
            text.push_str(&segment.to_line());
        }
        let crc32 = format!("{:08x}", crc32fast::hash(text.as_bytes()));
        text + &json_line(&EndLine { end: true, crc32 })
    }

    /// The oldest version of the format that says all there is.
    fn version(&self) -> u32 {
        if self.segments.iter().all(|segment| segment.encoding.is_asmts()) { 1 } else { 2 }
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
        let segments = lines.map(|line| parse_segment(line, head.instance, head.nsid)).collect::<Result<Vec<_>, _>>()?;
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
            binary: head.server,
            run: head.run,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{AFTER_CHUNKS_BYTES, Chunk, Content, Encoding, FIRST_CHUNK_OFFSET, chunk_count, chunk_range};
    use asmt_codec::crc;

    fn segment(key: u32, size_bytes: u64, encoding: Encoding) -> ManifestSegment {
        segment_in_chunks(key, size_bytes, encoding, 4096)
    }

    fn segment_in_chunks(key: u32, size_bytes: u64, encoding: Encoding, chunk_bytes: u32) -> ManifestSegment {
        let key = Key(key);
        let mut offset = if encoding.is_plain() { 0 } else { FIRST_CHUNK_OFFSET };
        let mut crc32 = crc32fast::Hasher::new();
        let mut chunks = Vec::new();
        for index in 0..chunk_count(size_bytes, chunk_bytes) {
            let range = chunk_range(size_bytes, chunk_bytes, index);
            let length = if encoding.is_plain() { (range.end - range.start) as u32 } else { 100 };
            let crc32_of = |index: u64| if index == 0 { crc::of_zeros(range.end - range.start) } else { 7 + index as u32 };
            let chunk = Chunk { offset, length, crc32: crc32_of(index) };
            crc32.combine(&crc32fast::Hasher::new_with_initial_len(chunk.crc32, range.end - range.start));
            offset += u64::from(length);
            chunks.push(chunk);
        }
        let file_bytes = if encoding.is_plain() { offset } else { offset + AFTER_CHUNKS_BYTES };
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
            encoded_sums: if encoding.is_plain() { Vec::new() } else { vec![9; chunks.len()] },
            columns_content: (encoding == Encoding::Columns).then_some(Content { bytes: size_bytes + 12, crc32: 11 }),
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
                binary: Some(ServerBinary {
                    path: "/usr/bin/asd".to_owned(),
                    size: 9,
                    modified_ns: u64::MAX,
                    package: Some("aerospike-server-enterprise 8.1.2.0-1".to_owned()),
                }),
                run: Some(CopyRun { data_bytes: 5, elapsed_ms: 6 }),
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
        assert_eq!(Manifest::parse(&forged("\"version\":1", "\"version\":3")), Err(ManifestError::TooNew(3)));
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
            ("sums of encoded chunks of a plain file", |lie| lie.segments[1].encoded_sums = vec![0; 16]),
            ("a sum of an encoded chunk too few", |lie| {
                lie.segments[2] = ManifestSegment { encoded_sums: vec![0; 2], ..segment(0xae00_1100, 10_000, Encoding::Gzip) };
            }),
            ("columns without the size of the content", |lie| {
                lie.segments[2] = ManifestSegment { columns_content: None, ..segment(0xae00_1100, 10_000, Encoding::Columns) };
            }),
            ("the size of the content of a plain file", |lie| {
                lie.segments[2].columns_content = Some(Content { bytes: 10_000, crc32: 0 });
            }),
            ("a base in columns", |lie| lie.segments[1] = segment(0xae00_1000, 65_536, Encoding::Columns)),
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
            ("a file in columns", segment(0xae00_1100, 10_000, Encoding::Columns)),
            ("a plain file beside files in columns", segment(0xae00_1100, 10_000, Encoding::OwnRaw)),
            ("no sums of encoded chunks", {
                ManifestSegment { encoded_sums: Vec::new(), ..segment(0xae00_1100, 10_000, Encoding::Gzip) }
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
    fn only_files_in_columns_need_a_newer_reader() {
        let with = |encoding| {
            let mut manifest = manifest();
            manifest.segments[2] = segment(0xae00_1100, 10_000, encoding);
            manifest.to_text()
        };
        for encoding in Encoding::ALL {
            let version = if encoding.is_asmts() { 1 } else { 2 };
            assert!(with(encoding).contains(&format!("\"version\":{version},")), "{encoding:?}");
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
    fn a_manifest_of_before_the_server_was_noted_is_read_and_written_the_same() {
        let mut old = manifest();
        assert_eq!(Manifest::parse(&old.to_text()).as_ref(), Ok(&old));
        (old.noted.binary, old.noted.run) = (None, None);
        let text = old.to_text();
        assert!(!text.contains("\"server\"") && !text.contains("\"run\""));
        assert_eq!(Manifest::parse(&text), Ok(old));
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
