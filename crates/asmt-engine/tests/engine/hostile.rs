//! Hostile input: the contents of a directory that was damaged, forged, or planted.
//!
//! The property for every input here: there is no panic; a failure has a fitting kind; no segment
//! is made; and a restore without an error brings back exactly the backup. Time and memory are
//! bounded for the run as a whole.

use super::{Machine, on_own_machine, request};
use asmt_engine::error::{Code, Kind};
use asmt_engine::format::{AsmtHeader, Form, Manifest, file_name, manifest_name, parse_file_name};
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_shm::{Header, NamespaceName, STRIPE_MAGIC, STRIPE_VERSION, SegmentType, sysv};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The peak of this process's own memory, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Most memory of all tests of this file together, with their own copies of small backups: far less
/// than files claim. An emulator's own memory counts as the test's: `ASMT_TEST_MOST_MIB` allows for
/// it.
fn most_bytes() -> u64 {
    std::env::var("ASMT_TEST_MOST_MIB").map_or(700, |text| text.parse().expect("a number")) << 20
}

/// The forms of a backup.
const FORMS: [Form; 3] = [Form::Plain, Form::Gzip, Form::Columns];

/// A small backup of a namespace that has everything, whose segments are gone.
struct Small<'m> {
    machine: &'m Machine,
    directory: PathBuf,
    /// Key, size and CRC-32 of each segment.
    before: String,
}

impl<'m> Small<'m> {
    fn new(machine: &'m Machine, form: Form) -> Self {
        machine.sim(
            "make --stages 1 --stage-size 4096 --fill 0.5 --treex-size 4096 --base-size 4096 --stripes 1 --stripe-size 4096",
        );
        let before = contents(&machine.sim("sum"));
        let directory = machine.path(match form {
            Form::Plain => "plain",
            Form::Gzip => "z",
            Form::Columns => "columns",
        });
        let (compress, columns) = (form == Form::Gzip, form == Form::Columns);
        machine.run(&Asked { compress, columns, ..request(Verb::Backup, &directory) }).expect("a backup");
        machine.sim("remove");
        Self { machine, directory, before }
    }

    fn without_manifest(self) -> Self {
        fs::remove_file(self.directory.join("asmt-manifest-0-test.json")).expect("removed");
        self
    }

    fn names(&self) -> Vec<String> {
        self.machine.names(self.directory.file_name().and_then(|name| name.to_str()).expect("a name"))
    }

    fn open(&self, name: &str) -> (File, Vec<u8>) {
        let path = self.directory.join(name);
        (OpenOptions::new().write(true).open(&path).expect("a file"), fs::read(&path).expect("its bytes"))
    }

    /// Returns true if it is refused with a fitting kind, and nothing is made.
    fn is_refused(&self, what: &str) -> bool {
        is_refused(self.machine, Verb::Verify, &self.directory, what)
    }

    /// Fails unless the changed backup is restored as it was, or refused with nothing made.
    fn assert_same_or_refused(&self, what: &str) {
        if !is_refused(self.machine, Verb::Restore, &self.directory, what) {
            assert_eq!(contents(&self.machine.sim("sum")), self.before, "{what}");
            self.machine.sim("remove");
        }
    }
}

/// Key, size and CRC-32 from the simulator's sums. Owners and modes do not come from the files.
fn contents(sums: &str) -> String {
    sums.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ") + "\n").collect()
}

fn is_refused(machine: &Machine, verb: Verb, directory: &Path, what: &str) -> bool {
    let Err(failure) = machine.run(&request(verb, directory)) else { return false };
    let problems = failure.error.problems();
    for problem in problems {
        assert!(
            matches!(problem.kind, Kind::Damaged | Kind::Stale | Kind::Usage | Kind::NothingToDo | Kind::NoRoom | Kind::Refused),
            "{what}: {problem:?}"
        );
        assert!(!problem.message.is_empty(), "{what}");
    }
    assert_eq!(sysv::all_segments().expect("a list").len(), 0, "{what}: {problems:?}");
    true
}

#[test]
fn every_truncation_of_every_file_is_refused() {
    on_own_machine(|machine| {
        for form in FORMS {
            let small = Small::new(machine, form);
            let mut count = 0;
            for name in small.names() {
                let (file, whole) = small.open(&name);
                for length in (0..whole.len()).rev() {
                    file.set_len(length as u64).expect("cut");
                    let what = format!("{name} cut to {length}");
                    assert!(small.is_refused(&what), "{what}");
                    if length % 97 == 0 {
                        assert!(is_refused(machine, Verb::Restore, &small.directory, &what), "{what}");
                    }
                    count += 1;
                }
                file.write_all_at(&whole, 0).expect("whole again");
            }
            assert!(count > 16_000, "{count}");
            small.assert_same_or_refused("whole");
        }
    });
}

#[test]
fn files_in_columns_are_refused_without_their_manifest() {
    on_own_machine(|machine| {
        let small = Small::new(machine, Form::Columns).without_manifest();
        assert!(small.is_refused("no manifest"));
        for verb in [Verb::Verify, Verb::Restore] {
            let failure = machine.run(&request(verb, &small.directory)).expect_err("a refusal");
            assert_eq!(failure.error.first().code, Code::BackupIncomplete, "{}", failure.error);
        }
    });
}

#[test]
fn every_truncation_of_a_compressed_file_without_a_manifest_is_refused() {
    on_own_machine(|machine| {
        let small = Small::new(machine, Form::Gzip).without_manifest();
        for name in small.names().iter().filter(|name| name.ends_with(".gz")) {
            let (file, whole) = small.open(name);
            for length in (0..whole.len()).rev() {
                file.set_len(length as u64).expect("cut");
                assert!(small.is_refused(&format!("{name} cut to {length}")), "{name} cut to {length}");
            }
            file.write_all_at(&whole, 0).expect("whole again");
        }
        small.assert_same_or_refused("whole");
    });
}

/// In the ends of a file, and in the manifest, every bit is flipped; elsewhere one bit of each
/// byte.
const END_BYTES: usize = 96;

#[test]
fn every_flipped_bit_is_refused_or_means_the_same() {
    on_own_machine(|machine| {
        let cases = [(Form::Plain, true), (Form::Gzip, true), (Form::Gzip, false), (Form::Columns, true)];
        for (form, has_manifest) in cases {
            let small = Small::new(machine, form);
            let small = if has_manifest { small } else { small.without_manifest() };
            let (mut count, mut harmless) = (0, 0);
            for name in small.names() {
                let is_checked = has_manifest || name.ends_with(".gz");
                let (file, whole) = small.open(&name);
                let is_end = |at: usize| at < END_BYTES || at + END_BYTES >= whole.len() || name.ends_with(".json");
                for at in 0..whole.len() {
                    for bit in (0..8).filter(|bit| is_end(at) || *bit == at % 8) {
                        file.write_all_at(&[whole[at] ^ 1 << bit], at as u64).expect("flipped");
                        let what = format!("bit {bit} of byte {at} of {name} ({form:?}, {has_manifest})");
                        let is_refused = small.is_refused(&what);
                        count += 1;
                        if !is_refused && is_checked {
                            // Bits that no decoder looks at (of empty blocks, mostly), and matches
                            // at another distance that stand for the same bytes.
                            assert!(name.ends_with(".gz") || name.ends_with(".col"), "{what}");
                            harmless += 1;
                            small.assert_same_or_refused(&what);
                        }
                    }
                    file.write_all_at(&whole[at..=at], at as u64).expect("flipped back");
                }
            }
            assert!(count > 20_000 && harmless < count / 10, "{count} {harmless}");
            small.assert_same_or_refused("whole");
            fs::remove_dir_all(&small.directory).expect("removed");
        }
    });
}

/// A manifest with changed lines and a valid checksum, as a forger would write it.
fn sealed(lines: &[String]) -> String {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("{body}{{\"end\":true,\"crc32\":\"{:08x}\"}}\n", crc32fast::hash(body.as_bytes()))
}

/// The places of JSON values in a line: numbers, and texts that are values.
fn values_of(line: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'"' => {
                at += 1 + line[at + 1..].find('"').expect("an end") + 1;
                if bytes.get(at) != Some(&b':') {
                    found.push(start..at);
                }
            }
            b'0'..=b'9' => {
                while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
                found.push(start..at);
            }
            _ => at += 1,
        }
    }
    found
}

const HOSTILE_VALUES: [&str; 24] = [
    "0",
    "1",
    "-1",
    "255",
    "4095",
    "4097",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e300",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"../../../../etc/passwd\"",
    "\"ad001000\"",
    "\"\\u0000\\u001b[2J\"",
];

#[test]
fn a_forged_manifest_is_refused_or_means_the_same() {
    on_own_machine(|machine| {
        for form in FORMS {
            let small = Small::new(machine, form);
            let path = small.directory.join("asmt-manifest-0-test.json");
            let whole = fs::read_to_string(&path).expect("a manifest");
            let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            lines.pop();
            assert_eq!(sealed(&lines), whole);
            let mut count = 0;
            let mut tried = |what: &str, lines: &[String]| {
                fs::write(&path, sealed(lines)).expect("written");
                small.assert_same_or_refused(what);
                count += 1;
            };
            for number in 0..lines.len() {
                for place in values_of(&lines[number]) {
                    for value in HOSTILE_VALUES {
                        let mut changed = lines.clone();
                        changed[number].replace_range(place.clone(), value);
                        tried(&format!("{value} at {place:?} of line {number}"), &changed);
                    }
                }
                let mut changed = lines.clone();
                changed.insert(number, lines[number].clone());
                tried(&format!("line {number} twice"), &changed);
                changed = lines.clone();
                changed.remove(number);
                tried(&format!("no line {number}"), &changed);
                changed = lines.clone();
                changed.swap(number, lines.len() - 1);
                tried(&format!("line {number} and the last one swapped"), &changed);
                changed = lines.clone();
                changed.insert(number, String::new());
                tried(&format!("an empty line before {number}"), &changed);
            }
            let deep = "[".repeat(200_000);
            tried("nested deeply", &[deep.clone(), deep]);
            // Every segment with the key of another one: wrong types, and two segments with one
            // key.
            for (number, other) in (1..lines.len()).flat_map(|a| (1..lines.len()).map(move |b| (a, b))) {
                let mut changed = lines.clone();
                let key = |line: &str| line[8..16].to_owned();
                changed[number] = lines[number].replace(&key(&lines[number]), &key(&lines[other]));
                tried(&format!("line {number} with the key of line {other}"), &changed);
            }
            assert!(count > 1500, "{count}");
            fs::write(&path, whole).expect("whole again");
            small.assert_same_or_refused("whole");
            fs::remove_dir_all(&small.directory).expect("removed");
        }
        assert!(peak_bytes() < most_bytes(), "{}", peak_bytes());
    });
}

#[test]
fn sizes_that_files_claim_decide_neither_time_nor_memory() {
    on_own_machine(|machine| {
        let sizes = [
            0,
            1,
            4095,
            1 << 32,
            (1 << 44) - 1,
            1 << 44,
            (1 << 44) + 1,
            1 << 53,
            i64::MAX as u64,
            1 << 63,
            u64::MAX - 4096,
            u64::MAX,
        ];
        let small = Small::new(machine, Form::Gzip).without_manifest();
        for name in small.names().iter().filter(|name| name.ends_with(".gz")) {
            let (file, whole) = small.open(name);
            for size_bytes in sizes {
                for crc32 in [0, u32::MAX] {
                    file.write_all_at(&AsmtHeader { size_bytes, crc32 }.to_bytes(), 0).expect("written");
                    assert!(small.is_refused(&format!("{name} of {size_bytes} bytes")));
                    assert!(is_refused(machine, Verb::Restore, &small.directory, name));
                }
                // A file that is large enough for the claim to be true, and consists of a hole.
                file.set_len(1 << 40).expect("grown");
                assert!(small.is_refused(&format!("{name}, sparse, of {size_bytes} bytes")));
                file.set_len(whole.len() as u64).expect("cut");
            }
            file.write_all_at(&whole, 0).expect("whole again");
        }
        small.assert_same_or_refused("whole");
        // A manifest, and a journal of a dead run, that are large and empty.
        let dead = format!("{}-1-2-3", "0".repeat(32));
        for name in ["asmt-manifest-0-test.json".to_owned(), format!(".asmt-run.{dead}")] {
            let path = small.directory.join(&name);
            for (length, first) in [(512 << 20, &b"\0"[..]), ((512 << 20) + 1, b"{"), (1 << 43, b"{"), (2, b"{")] {
                let file = File::create(&path).expect("a file");
                file.write_all_at(first, 0).expect("written");
                file.set_len(length).expect("grown");
                let is_refused = small.is_refused(&format!("{name} of {length} bytes"));
                assert_eq!(is_refused, name.ends_with(".json"), "{name}");
            }
            fs::remove_file(&path).expect("removed");
        }
        assert!(peak_bytes() < most_bytes(), "{}", peak_bytes());
    });
}

#[test]
fn a_bomb_stops_at_the_segments_size() {
    on_own_machine(|machine| {
        let small = Small::new(machine, Form::Gzip).without_manifest();
        let name = small.names().into_iter().find(|name| name.starts_with("ae001100")).expect("a stage");
        let (file, whole) = small.open(&name);
        // 64 MiB of zeros in 64 KiB: the best that deflate can do.
        let bomb = miniz_oxide::deflate::compress_to_vec(&vec![0; 64 << 20], 9);
        for size_bytes in [1, 4096, 1 << 20, (64 << 20) - 1, (64 << 20) + 1] {
            let header = AsmtHeader { size_bytes, crc32: 0 }.to_bytes();
            let bytes = [&header[..], &whole[24..34], &bomb, &[0; 8]].concat();
            file.set_len(0).expect("cut");
            file.write_all_at(&bytes, 0).expect("written");
            let failure = machine.run(&request(Verb::Restore, &small.directory)).expect_err("a bomb");
            let problem = failure.error.first();
            assert_eq!((problem.code, problem.file.as_deref()), (Code::ContentDamaged, Some(&*name)), "{problem:?}");
            assert!(problem.message.contains("the stream "), "{problem:?}");
            assert_eq!(machine.sim("sum"), "");
        }
        assert!(peak_bytes() < most_bytes(), "{}", peak_bytes());
    });
}

/// A file under a name of a segment's, with a header of odd fields.
#[derive(Clone, Debug)]
struct Odd {
    name: String,
    bytes: Vec<u8>,
    length: u64,
    mode: u32,
}

fn odd_file() -> impl Strategy<Value = Odd> {
    let kind = prop::sample::select(vec![0xaeu32, 0xa2, 0xad]);
    let low = prop::sample::select(vec![0u32, 1, 2, 0x100, 0x101, 0x8ff]);
    let key =
        (kind, 0u32..2, 1u32..3, low).prop_map(|(kind, instance, nsid, low)| kind << 24 | instance << 20 | nsid << 12 | low);
    let number = prop::sample::select(vec![0u32, 1, 2, 9, 10, 12, 13, 2048, 2049, i32::MAX as u32, u32::MAX]);
    let name = prop::sample::select(vec!["test", "other", "", "\u{1b}[2J", "n23456789-123456789-123456789-12"]);
    let size = prop::sample::select(vec![0u64, 1, 24, 60, 2156, 4096, 5000, 1 << 30, 1 << 63, u64::MAX]);
    let length = prop::sample::select(vec![0u64, 1, 23, 24, 60, 2156, 4096, 4096, 4096, 1 << 20, 1 << 33]);
    let more = prop::collection::vec(any::<u8>(), 0..64);
    // Otherwise hardly any stripe would be one with which a server starts.
    let is_whole = prop::bool::weighted(0.95);
    (key, prop::collection::vec(number, 6), name, (any::<bool>(), any::<bool>(), is_whole), size, length, more).prop_map(
        |(key, numbers, name, (is_upper, is_gzip, is_whole), size_bytes, length, more)| {
            // The only one of its set.
            let key = if key >> 24 == 0xad && is_whole { key & !0xfff } else { key };
            let mut bytes = vec![0; 4096];
            let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
            for (at, number) in [0, 4, 20, 44, 56, 2152].into_iter().zip(&numbers) {
                put(at, &number.to_le_bytes());
            }
            put(if key >> 24 == 0xad { 12 } else { 1024 }, name.as_bytes());
            if key >> 24 == 0xad && is_whole {
                put(0, &STRIPE_MAGIC.to_le_bytes());
                put(8, &STRIPE_VERSION.to_le_bytes());
                for (at, number) in [(44, 1u32), (48, 7), (56, 1)] {
                    put(at, &number.to_le_bytes());
                }
            }
            put(3000, &more);
            let digits = if is_upper { format!("{key:08X}") } else { format!("{key:08x}") };
            if is_gzip {
                let header = AsmtHeader { size_bytes, crc32: crc32fast::hash(&bytes) }.to_bytes();
                let stream = miniz_oxide::deflate::compress_to_vec(&bytes, 1);
                let trailer = [crc32fast::hash(&bytes).to_le_bytes(), 4096u32.to_le_bytes()].concat();
                bytes = [&header[..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3], &stream, &trailer].concat();
            }
            let length = if is_gzip && length == 4096 { bytes.len() as u64 } else { length };
            Odd { name: digits + if is_gzip { ".dat.gz" } else { ".dat" }, bytes, length, mode: 0o600 }
        },
    )
}

#[test]
fn any_set_of_odd_files_is_refused_or_comes_back_as_it_is() {
    on_own_machine(|machine| {
        let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let (number, restored) = (Cell::new(0), Cell::new(0));
        let outcome = runner.run(&prop::collection::vec(odd_file(), 0..7), |files| {
            number.set(number.get() + 1);
            let directory = machine.path(&format!("odd-{}", number.get()));
            fs::create_dir(&directory).expect("a directory");
            let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
            for Odd { name, bytes, length, mode } in &files {
                let file = OpenOptions::new().write(true).create(true).truncate(true).mode(*mode).open(directory.join(name));
                let file = file.expect("a file");
                file.write_all_at(bytes, 0).expect("written");
                file.set_len(*length).expect("its length");
                if let Some((key, _, asmt_engine::format::Encoding::Raw)) = parse_file_name(name) {
                    sizes.insert(key.0, *length);
                }
            }
            for instance in [0, 1] {
                let of = |verb| Asked { instance: Some(instance), ..request(verb, &directory) };
                let verified = machine.run(&of(Verb::Verify));
                let outcome = machine.run(&of(Verb::Restore));
                let made = sysv::all_segments().expect("a list");
                match &outcome {
                    Ok(report) => {
                        restored.set(restored.get() + 1);
                        assert!(verified.is_ok(), "{files:?}");
                        assert_eq!(made.len(), report.segments.len(), "{files:?}");
                        for stat in &made {
                            assert!(sizes.get(&stat.key.0).is_none_or(|size| *size == stat.size_bytes), "{files:?}");
                        }
                        machine.sim("remove");
                    }
                    Err(failure) => {
                        let kind = failure.error.first().kind;
                        assert!(
                            matches!(kind, Kind::Damaged | Kind::Stale | Kind::NothingToDo | Kind::NoRoom | Kind::Refused),
                            "{files:?}: {}",
                            failure.error
                        );
                        assert_eq!(made.len(), 0, "{files:?}: {}", failure.error);
                    }
                }
            }
            fs::remove_dir_all(&directory).expect("removed");
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
        let (number, restored) = (number.get(), restored.get());
        assert!(number >= 1500 && restored > 10, "{number} {restored}: the files are too odd to show anything");
        assert!(peak_bytes() < most_bytes(), "{}", peak_bytes());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_name_is_a_segments_or_is_not(name in "[.a-fA-F0-9 +datgz/\\x00é-]{0,20}|[aA][eEdD2][0-9a-f]{6}\\.dat(\\.gz)?") {
        if let Some((key, address, encoding)) = parse_file_name(&name) {
            prop_assert_eq!(file_name(key, encoding), name.to_lowercase());
            prop_assert_eq!(address.key(), Some(key));
        }
    }

    #[test]
    fn any_namespaces_manifest_stays_in_the_directory(name in "\\PC{0,31}", instance in 0u8..16) {
        if let Some(name) = NamespaceName::new(&name) {
            let file = manifest_name(instance, &name);
            prop_assert!(!file.contains('/') && file.len() < 255 && parse_file_name(&file).is_none());
        }
    }

    #[test]
    fn any_bytes_are_a_header_or_are_not(bytes in prop::collection::vec(any::<u8>(), 0..4200)) {
        for kind in [SegmentType::PiBase, SegmentType::PiTreex, SegmentType::PiStage, SegmentType::SiMeta, SegmentType::SiStage, SegmentType::DataStage] {
            let header = Header::parse(kind, &bytes);
            prop_assert_eq!(header == Header::Unreadable, (bytes.len() as u64) < kind.min_bytes() && kind.has_header());
        }
        prop_assert!(AsmtHeader::parse(&bytes).is_err() || bytes.starts_with(b"ASMT") || bytes.starts_with(b"TMSA"));
    }

    #[test]
    fn any_text_is_a_manifest_or_is_not(text in "(\\{\"format\":\"asmt-manifest\",\"version\":[0-9]{1,11}[^\n]{0,40}\n?){0,3}\\PC{0,100}\n?") {
        prop_assert!(Manifest::parse(&text).is_err());
    }
}
