//! Compares facts about the layout with bytes that other programs made.
//!
//! A constant that stands once in the engine and once in the simulator proves nothing: both may be
//! wrong in the same way. So each fact on which the engine relies is compared with bytes that
//! neither of them made: those that a real server wrote (`__test__/fixtures/server`), and backups
//! by ASMT 2.2.1 (`__test__/fixtures/golden`). Facts that no such bytes show are listed in
//! `docs/FORMAT.md`, "Facts with no outside witness".
//!
//! `npm run test:mutants -- --file segment` changes each line and each number of `key.rs` and
//! `header.rs` in asmt-shm, and runs these tests alone.

use asmt_codec::GZIP_HEADER;
use asmt_codec::decode::ChunkDecoder;
use asmt_codec::encode::{ChunkKind, encoder, max_encoded_bytes};
use asmt_engine::format::{
    ASMT_HEADER_BYTES, AsmtHeader, BEFORE_STREAM_BYTES, Encoding, GZIP_TRAILER_BYTES, file_name, parse_file_name,
};
use asmt_shm::{
    Address, BASE_MIN_BYTES, BaseHeader, HEADER_BYTES, Header, KNOWN_BASE_VERSIONS, Key, MAX_SEGMENT_BYTES, NSID_RANGE,
    NamespaceName, SHUTDOWN_CLEAN, SHUTDOWN_OFFSET, SI_META_MIN_BYTES, STRIPE_FLAGS_OFFSET, STRIPE_MAGIC, STRIPE_MIN_BYTES,
    STRIPE_TRUSTED, STRIPE_VERSION, SegmentType, SiMetaHeader, StripeHeader,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures")
}

fn bytes_of(path: impl AsRef<Path>) -> Vec<u8> {
    let path = fixtures().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text_of(path: impl AsRef<Path>) -> String {
    String::from_utf8(bytes_of(path)).expect("text")
}

// ---- Bytes of a real server ----

/// A case of the server's fixtures: a directory, the number of headers in it, and the fields of
/// each.
struct Written {
    case: &'static str,
    files: usize,
    name: &'static str,
    device_count: u32,
    random: u64,
    flags: u32,
}

/// The table of the server's README.
const WRITTEN: [Written; 6] = [
    Written {
        case: "file-1-first-start-running",
        files: 2,
        name: "test",
        device_count: 2,
        random: 0x396d_4308_dcc6_16a6,
        flags: 0,
    },
    Written { case: "file-2-clean-stop", files: 2, name: "test", device_count: 2, random: 0x396d_4308_dcc6_16a6, flags: 1 },
    Written {
        case: "file-3-second-start-running",
        files: 2,
        name: "test",
        device_count: 2,
        random: 0xc27e_ffd7_4132_b9e7,
        flags: 0,
    },
    Written { case: "file-4-sigkill", files: 2, name: "test", device_count: 2, random: 0xc27e_ffd7_4132_b9e7, flags: 0 },
    Written { case: "dev-2-clean-stop", files: 4, name: "test", device_count: 2, random: 0xcb72_fbc2_9b57_ae6c, flags: 1 },
    Written {
        case: "memory-only-stripe-running",
        files: 1,
        name: "memonly",
        device_count: 8,
        random: 0x659f_cd5d_b09c_8444,
        flags: 0,
    },
];

/// Bytes of each header of a case.
fn headers_of(case: &str) -> Vec<Vec<u8>> {
    let directory = fixtures().join("server").join(case);
    let found = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    found.map(|entry| bytes_of(entry.expect("an entry").path())).collect()
}

#[test]
fn headers_of_a_servers_devices_and_stripes_say_what_is_known_of_them() {
    for written in &WRITTEN {
        let found = headers_of(written.case);
        assert_eq!(found.len(), written.files, "{}", written.case);
        for bytes in found {
            let header = StripeHeader::parse(&bytes).expect("a header");
            let expected = StripeHeader {
                magic: 0x4349_7472_7573_0322,
                version: 4,
                name: NamespaceName::new(written.name),
                device_count: written.device_count,
                random: written.random,
                flags: written.flags,
            };
            assert_eq!(header, expected, "{}", written.case);
            assert_eq!(header.is_trusted(), written.flags == 1, "{}", written.case);
            assert_eq!(bytes[..8], STRIPE_MAGIC.to_le_bytes(), "{}", written.case);
            assert_eq!(bytes[8..12], STRIPE_VERSION.to_le_bytes(), "{}", written.case);
            assert_eq!(bytes.len(), HEADER_BYTES);
        }
    }
}

/// A clean stop changes one bit of a header, and nothing else.
#[test]
fn the_trusted_bit_is_what_a_clean_stop_changes() {
    let read = |case: &str| bytes_of(format!("server/{case}/test-a.dat.head"));
    let (running, stopped) = (read("file-1-first-start-running"), read("file-2-clean-stop"));
    let changed: Vec<usize> = (0..running.len()).filter(|at| running[*at] != stopped[*at]).collect();
    assert_eq!(changed, [STRIPE_FLAGS_OFFSET]);
    assert_eq!(u32::from(running[STRIPE_FLAGS_OFFSET] ^ stopped[STRIPE_FLAGS_OFFSET]), STRIPE_TRUSTED);
}

/// A start changes the random and the flags, and nothing else.
#[test]
fn the_random_is_what_a_start_changes() {
    let read = |case: &str| bytes_of(format!("server/{case}/test-a.dat.head"));
    let (stopped, started) = (read("file-2-clean-stop"), read("file-3-second-start-running"));
    let changed: BTreeSet<usize> = (0..stopped.len()).filter(|at| stopped[*at] != started[*at]).collect();
    let fields = (48..56).chain([STRIPE_FLAGS_OFFSET]);
    assert_eq!(changed, fields.collect());
}

/// A device that no server has opened has no header.
#[test]
fn a_blank_device_has_no_magic() {
    for bytes in headers_of("blank") {
        assert!(StripeHeader::parse(&bytes).is_some_and(|header| header.magic != STRIPE_MAGIC && header.name.is_none()));
    }
}

/// The offset and the size that the compiler gave to a field of a structure, as `layout.txt` prints
/// them.
fn field(name: &str) -> (usize, usize) {
    let text = text_of("server/layout.txt");
    let wanted = format!("offsetof({name}) ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap_or_else(|| panic!("{wanted}"));
    let (offset, size) = line.trim().split_once(" (size ").expect("an offset and a size");
    (offset.parse().expect("a number"), size.trim_end_matches(')').parse().expect("a number"))
}

/// A number that `layout.txt` prints.
fn number(name: &str) -> u64 {
    let text = text_of("server/layout.txt");
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let shown = found.unwrap_or_else(|| panic!("{name}")).trim();
    let number = shown.strip_prefix("0x").map_or_else(|| shown.parse(), |hex| u64::from_str_radix(hex, 16));
    number.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The public headers, compiled: each field of a device's header is read at its offset and with its
/// width. No server wrote a name that fills the 32 bytes of its field.
#[test]
fn a_devices_header_is_as_the_public_headers_lay_it_out() {
    assert_eq!(number("(uint64_t)DRV_HEADER_MAGIC"), STRIPE_MAGIC);
    assert_eq!(number("DRV_VERSION"), u64::from(STRIPE_VERSION));
    assert_eq!(number("DRV_HEADER_FLAG_TRUSTED"), u64::from(STRIPE_TRUSTED));
    let flags = field("drv_prefix, flags");
    assert_eq!(flags, (STRIPE_FLAGS_OFFSET, 4));
    let least = (flags.0 + flags.1) as u64;
    assert_eq!((STRIPE_MIN_BYTES, SegmentType::DataStage.min_bytes()), (least, least));
    // Each byte of a field has a value of its own.
    let mut bytes = vec![0; least as usize];
    for name in ["magic", "version", "n_devices", "random", "flags"] {
        let (at, size) = field(&format!("drv_prefix, {name}"));
        (at..at + size).zip(at as u8 + 1..).for_each(|(at, value)| bytes[at] = value);
    }
    let (at, size) = field("drv_prefix, namespace");
    bytes[at..at + size].fill(b'n');
    bytes[at + size - 1] = 0;
    let expected = StripeHeader {
        magic: 0x0807_0605_0403_0201,
        version: 0x0c0b_0a09,
        name: NamespaceName::new(&"n".repeat(31)),
        device_count: 0x302f_2e2d,
        random: 0x3837_3635_3433_3231,
        flags: 0x3c3b_3a39,
    };
    assert_eq!(StripeHeader::parse(&bytes), Some(expected.clone()));
    assert!(expected.name.is_some());
    // A name of 32 bytes does not end within the field.
    bytes[at + size - 1] = b'n';
    assert_eq!(StripeHeader::parse(&bytes).and_then(|header| header.name), None);
    assert_eq!(NamespaceName::new(&"n".repeat(size)), None);
    bytes.truncate(least as usize - 1);
    assert_eq!(StripeHeader::parse(&bytes), None);
    assert_eq!(Header::parse(SegmentType::DataStage, &bytes), Header::Unreadable);
}

/// The offset of the primary index's arena in base. ASMT uses the stage count at 2152, and the
/// compiler puts it 104 bytes into the arena.
const ARENA_OFFSET: usize = 2048;

/// Base contains the structure of the arena, and the arena of a running server is at hand.
#[test]
fn base_holds_the_arena_of_a_server() {
    let arena = bytes_of("server/arena-ce/arena-struct.bin");
    assert_eq!(arena.len() as u64, number("sizeof(cf_arenax)"));
    let mut base = bytes_of("golden/raw-index/backup/ae001000.dat");
    base[ARENA_OFFSET..ARENA_OFFSET + arena.len()].copy_from_slice(&arena);
    let header = BaseHeader::parse(&base).expect("a header");
    assert_eq!((header.stage_count, header.stage_bytes), (1, number("CF_ARENAX_MIN_STAGE_SIZE")));
    // Each byte of a field has a value of its own.
    for (name, first) in [("cf_arenax, stage_size", 0x11), ("cf_arenax, stage_count", 0x21)] {
        let (at, size) = field(name);
        (ARENA_OFFSET + at..ARENA_OFFSET + at + size).zip(first..).for_each(|(at, value): (usize, u8)| base[at] = value);
    }
    let header = BaseHeader::parse(&base).expect("a header");
    assert_eq!((header.stage_count, header.stage_bytes), (0x2423_2221, 0x1817_1615_1413_1211));
    let (at, size) = field("cf_arenax, stage_count");
    let least = ARENA_OFFSET + at + size;
    assert_eq!((BASE_MIN_BYTES, SegmentType::PiBase.min_bytes()), (least as u64, least as u64));
    assert!(matches!(Header::parse(SegmentType::PiBase, &base[..least]), Header::Base(_)));
    assert_eq!(Header::parse(SegmentType::PiBase, &base[..least - 1]), Header::Unreadable);
}

/// The encoder is made for elements of 64 bytes: those of a server must have that length, and suit
/// it.
#[test]
fn a_servers_elements_suit_the_encoder_and_come_back_from_it() {
    let stage = bytes_of("server/arena-ce/full-stage-1MiB.bin");
    assert_eq!(number("sizeof(as_index)"), 64);
    // Byte 3 has the tree's id, the colour and one flag, and bytes 44 to 46 have the high byte of a
    // time and a generation.
    for element in stage.chunks_exact(64) {
        assert_eq!((element[..3].iter().max(), element[44], element[46]), (Some(&0), 0x7c, 0));
    }
    let mut encoded = vec![0; max_encoded_bytes(stage.len() as u64) as usize];
    let length = encoder().encode(&stage, ChunkKind::Elements, &mut encoded);
    assert!(length < stage.len() / 100 * 64, "{length} of {} bytes", stage.len());
    let mut back = vec![0; stage.len()];
    ChunkDecoder::default().decode(&encoded[..length], &mut back).expect("decoded");
    assert!(back == stage, "what comes back differs");
}

// ---- Backups by ASMT ----

/// A backup by ASMT, and the facts about it in its README.
struct Saved {
    folder: &'static str,
    instance: u8,
    namespace: &'static str,
    /// nsid of the index and layout version of its base.
    index: Option<(u8, u32)>,
    /// nsid of the stripes.
    data_nsid: u8,
    stages: u16,
    si_stages: u16,
    stripes: u16,
}

#[rustfmt::skip]
const SAVED: [Saved; 5] = [
    Saved { folder: "raw-index", instance: 0, namespace: "test", index: Some((1, 12)), data_nsid: 1, stages: 2, si_stages: 0, stripes: 0 },
    Saved { folder: "gz-index", instance: 0, namespace: "test", index: Some((1, 12)), data_nsid: 1, stages: 2, si_stages: 0, stripes: 0 },
    Saved { folder: "gz-crc-all", instance: 3, namespace: "bar", index: Some((2, 11)), data_nsid: 2, stages: 3, si_stages: 2, stripes: 8 },
    Saved { folder: "raw-all", instance: 1, namespace: "store", index: Some((32, 10)), data_nsid: 5, stages: 1, si_stages: 1, stripes: 2 },
    Saved { folder: "raw-data-only", instance: 0, namespace: "cache", index: None, data_nsid: 7, stages: 0, si_stages: 0, stripes: 3 },
];

impl Saved {
    /// The segments that must be there.
    fn addresses(&self) -> BTreeSet<Address> {
        let at = |nsid: u8, segment_type: SegmentType| {
            move |index: u16| Address { instance: self.instance, nsid, segment_type, index }
        };
        let mut expected: BTreeSet<Address> = (0..self.stripes).map(at(self.data_nsid, SegmentType::DataStage)).collect();
        if let Some((nsid, _)) = self.index {
            expected.extend([at(nsid, SegmentType::PiBase)(0), at(nsid, SegmentType::PiTreex)(0)]);
            expected.extend((0..self.stages).map(at(nsid, SegmentType::PiStage)));
            expected.extend((0..self.si_stages.min(1)).map(at(nsid, SegmentType::SiMeta)));
            expected.extend((0..self.si_stages).map(at(nsid, SegmentType::SiStage)));
        }
        expected
    }

    /// Its files: name, and bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let directory = fixtures().join("golden").join(self.folder).join("backup");
        let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        names.map(|name| (name.clone(), bytes_of(directory.join(name)))).collect()
    }

    /// The segments in shared memory: the line of each, by key.
    fn segments(&self) -> BTreeMap<String, Vec<String>> {
        let text = text_of(format!("golden/{}/segments.txt", self.folder));
        let fields = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        fields.map(|fields| (fields[0].clone(), fields)).collect()
    }

    /// Its segments: the address of each key, and the bytes of the segment.
    fn contents(&self) -> BTreeMap<Address, Vec<u8>> {
        let read = |(name, bytes): (String, Vec<u8>)| {
            let (_, address, encoding) = parse_file_name(&name).expect("a segment's file");
            let bytes = match encoding {
                Encoding::Raw => bytes,
                Encoding::Gzip => miniz_oxide::inflate::decompress_to_vec(&bytes[34..bytes.len() - 8]).expect("deflate"),
                Encoding::OwnRaw | Encoding::Columns => panic!("ASMT has no such files"),
            };
            (address, bytes)
        };
        self.files().into_iter().map(read).collect()
    }
}

/// ASMT names a file by its key, and accepts no other name: keys, file names, instance, nsid,
/// types, stages and stripes.
#[test]
fn files_of_asmts_backups_are_what_their_names_say() {
    for saved in &SAVED {
        let files = saved.files();
        let parsed = files.keys().map(|name| parse_file_name(name).unwrap_or_else(|| panic!("{name}")));
        let found: BTreeMap<Key, (Address, Encoding)> = parsed.map(|(key, address, how)| (key, (address, how))).collect();
        let addresses: BTreeSet<Address> = found.values().map(|(address, _)| *address).collect();
        assert_eq!(addresses, saved.addresses(), "{}", saved.folder);
        let names: BTreeSet<String> = found.iter().map(|(key, (_, encoding))| file_name(*key, *encoding)).collect();
        assert_eq!(names, files.keys().cloned().collect(), "{}", saved.folder);
        for (key, (address, _)) in &found {
            assert_eq!(address.key(), Some(*key), "{}", saved.folder);
        }
        // The keys that the kernel showed.
        let shown: BTreeSet<String> = found.keys().map(Key::to_string).collect();
        assert_eq!(shown, saved.segments().into_keys().collect(), "{}", saved.folder);
        for key in &shown {
            let read = Key::from_hex(key).expect("a key");
            assert_eq!((read.to_string(), format!("{read:?}")), (key.clone(), format!("Key({key})")));
            assert_eq!(format!("{:08x}", read.as_raw()), *key, "as the kernel takes it");
            assert_eq!(Key::from_hex(&key[1..]), None, "a digit is missing");
        }
    }
}

/// Types with a header in their first bytes are recognised by its contents.
#[test]
fn headers_in_asmts_backups_say_what_is_known_of_them() {
    for saved in &SAVED {
        let contents = saved.contents();
        let name = NamespaceName::new(saved.namespace).expect("a name");
        assert_eq!((name.as_str(), name.to_string()), (saved.namespace, saved.namespace.to_owned()));
        assert_eq!(format!("{name:?}"), format!("{:?}", saved.namespace));
        let stage_bytes = contents.iter().find(|(address, _)| address.segment_type == SegmentType::PiStage);
        for (address, bytes) in &contents {
            let what = format!("{} {address:?}", saved.folder);
            let header = Header::parse(address.segment_type, bytes);
            let numbered = matches!(address.segment_type, SegmentType::PiStage | SegmentType::SiStage | SegmentType::DataStage);
            assert_eq!(address.stage(), numbered.then_some(address.index), "{what}");
            let (expected, shown) = match address.segment_type {
                SegmentType::PiBase => {
                    let base = BaseHeader {
                        version: saved.index.expect("an index").1,
                        shutdown: SHUTDOWN_CLEAN,
                        name: Some(name.clone()),
                        stage_bytes: stage_bytes.expect("a stage").1.len() as u64,
                        stage_count: u32::from(saved.stages),
                    };
                    (Header::Base(base), Some(&name))
                }
                SegmentType::SiMeta => (Header::SiMeta(SiMetaHeader { stage_count: u32::from(saved.si_stages) }), None),
                SegmentType::DataStage => {
                    let stripe = StripeHeader {
                        magic: STRIPE_MAGIC,
                        version: STRIPE_VERSION,
                        name: Some(name.clone()),
                        device_count: u32::from(saved.stripes),
                        random: 0x1122_3344_5566_7788,
                        flags: STRIPE_TRUSTED,
                    };
                    (Header::Stripe(stripe), Some(&name))
                }
                SegmentType::PiTreex | SegmentType::PiStage | SegmentType::SiStage => (Header::None, None),
            };
            assert_eq!(header, expected, "{what}");
            assert_eq!(header.name(), shown, "{what}");
            assert_eq!(address.segment_type.has_header(), expected != Header::None, "{what}");
            assert_eq!(address.segment_type.is_index(), address.segment_type != SegmentType::DataStage, "{what}");
            let least = address.segment_type.min_bytes();
            assert!((1..=MAX_SEGMENT_BYTES).contains(&(bytes.len() as u64)) && least <= bytes.len() as u64, "{what}");
            // Nothing is read of a segment without a header: it may have any size.
            assert_eq!(least == 1, expected == Header::None, "{what}");
        }
    }
}

/// ASMT refuses to restore a base with another word at this offset.
#[test]
fn a_base_that_asmt_takes_has_its_shutdown_status_where_it_is_read() {
    let words = SAVED.iter().filter(|saved| saved.index.is_some()).map(|saved| {
        let contents = saved.contents();
        let base = contents.iter().find(|(address, _)| address.segment_type == SegmentType::PiBase).expect("a base").1.clone();
        u32::from_le_bytes(base[SHUTDOWN_OFFSET..SHUTDOWN_OFFSET + 4].try_into().expect("four bytes"))
    });
    assert_eq!(words.collect::<Vec<_>>(), [SHUTDOWN_CLEAN; 4]);
}

#[test]
fn a_meta_is_no_shorter_than_its_stage_count() {
    let bytes = bytes_of("golden/raw-all/backup/a2120000.dat");
    let least = (0..bytes.len()).find(|length| SiMetaHeader::parse(&bytes[..*length]).is_some()).expect("a header");
    assert_eq!((SI_META_MIN_BYTES, SegmentType::SiMeta.min_bytes()), (least as u64, least as u64));
    assert_eq!(SiMetaHeader::parse(&bytes[..least]), Some(SiMetaHeader { stage_count: 1 }));
    assert_eq!(Header::parse(SegmentType::SiMeta, &bytes[..least - 1]), Header::Unreadable);
    // The count is the last field that is read.
    let other: Vec<u8> = bytes[..least - 4].iter().copied().chain([0x41, 0x42, 0x43, 0x44]).collect();
    assert_eq!(SiMetaHeader::parse(&other), Some(SiMetaHeader { stage_count: 0x4443_4241 }));
}

/// The versions and nsids that were seen are the known ones, and there are no others.
#[test]
fn versions_and_nsids_that_are_known_have_been_seen() {
    let seen = |found: Vec<u32>| (*found.iter().min().expect("one"), *found.iter().max().expect("one"));
    let versions = seen(SAVED.iter().filter_map(|saved| Some(saved.index?.1)).collect());
    assert_eq!((*KNOWN_BASE_VERSIONS.start(), *KNOWN_BASE_VERSIONS.end()), versions);
    let nsids = seen(
        SAVED
            .iter()
            .flat_map(|saved| [saved.index.map(|index| index.0), Some(saved.data_nsid)])
            .flatten()
            .map(u32::from)
            .collect(),
    );
    assert_eq!((u32::from(*NSID_RANGE.start()), u32::from(*NSID_RANGE.end())), nsids);
}

/// A compressed file by ASMT: its header has size and CRC-32 of the segment, and one gzip member
/// follows.
#[test]
fn a_compressed_file_of_asmts_is_as_ours() {
    for saved in SAVED.iter().filter(|saved| saved.folder.starts_with("gz")) {
        let segments = saved.segments();
        for (name, bytes) in saved.files() {
            let (key, address, encoding) = parse_file_name(&name).expect("a segment's file");
            let may_be = address.segment_type.may_be_compressed();
            assert_eq!(encoding, if may_be { Encoding::Gzip } else { Encoding::Raw }, "ASMT compresses all that may be: {name}");
            if encoding == Encoding::Raw {
                continue;
            }
            let segment = &segments[&key.to_string()];
            let size_bytes: u64 = segment[1].parse().expect("a size");
            let crc32 = u32::from_str_radix(&segment[2], 16).expect("a CRC-32");
            let header = AsmtHeader { size_bytes, crc32 };
            assert_eq!(AsmtHeader::parse(&bytes), Ok(header), "{name}");
            assert_eq!(bytes[..ASMT_HEADER_BYTES], header.to_bytes(), "{name}");
            assert_eq!(bytes[ASMT_HEADER_BYTES..BEFORE_STREAM_BYTES], GZIP_HEADER, "{name}");
            let (stream, trailer) = bytes[BEFORE_STREAM_BYTES..].split_at(bytes.len() - BEFORE_STREAM_BYTES - GZIP_TRAILER_BYTES);
            assert_eq!(trailer[..4], crc32.to_le_bytes(), "{name}");
            assert_eq!(trailer[4..], (size_bytes as u32).to_le_bytes(), "{name}");
            let contents = miniz_oxide::inflate::decompress_to_vec(stream).expect("deflate");
            assert_eq!((contents.len() as u64, crc32fast::hash(&contents)), (size_bytes, crc32), "{name}");
        }
    }
}
