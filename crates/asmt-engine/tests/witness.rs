//! Layout facts against bytes that other programs made.
//!
//! A constant that is typed once in the engine and once more in the simulator proves nothing: both may be wrong alike.
//! So each fact that the engine relies on is held here against bytes that neither of them made: what a real server wrote
//! (`__test__/fixtures/server`), and backups by ASMT 2.2.1 (`__test__/fixtures/golden`). Facts that no such bytes
//! show are listed in `docs/FORMAT.md`, "Facts with no outside witness".

use asmt_engine::segment::{
    HEADER_BYTES, NamespaceName, STRIPE_FLAGS_OFFSET, STRIPE_MAGIC, STRIPE_MIN_BYTES, STRIPE_TRUSTED, STRIPE_VERSION,
    StripeHeader,
};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures")
}

fn bytes_of(path: impl AsRef<Path>) -> Vec<u8> {
    let path = fixtures().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A case of the server's fixtures: directory, number of headers in it, and what each of them says.
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
            let expected = StripeHeader {
                magic: 0x4349_7472_7573_0322,
                version: 4,
                name: NamespaceName::new(written.name),
                device_count: written.device_count,
                random: written.random,
                flags: written.flags,
            };
            assert_eq!(StripeHeader::parse(&bytes), Some(expected), "{}", written.case);
            assert_eq!(bytes[..8], STRIPE_MAGIC.to_le_bytes(), "{}", written.case);
            assert_eq!(bytes[8..12], STRIPE_VERSION.to_le_bytes(), "{}", written.case);
        }
    }
}

#[test]
fn a_header_is_no_longer_than_its_flags() {
    let bytes = &headers_of("file-2-clean-stop")[0];
    let least = STRIPE_MIN_BYTES as usize;
    assert!(StripeHeader::parse(&bytes[..least]).is_some_and(|header| header.flags == 1));
    assert_eq!(StripeHeader::parse(&bytes[..least - 1]), None);
    assert_eq!(bytes.len(), HEADER_BYTES);
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

/// A device that no server has opened has no header.
#[test]
fn a_blank_device_has_no_magic() {
    for bytes in headers_of("blank") {
        assert!(StripeHeader::parse(&bytes).is_some_and(|header| header.magic != STRIPE_MAGIC && header.name.is_none()));
    }
}

/// ASMT took these stripes for Aerospike's, and gave them back unchanged.
#[test]
fn stripes_in_asmts_backups_start_like_a_servers() {
    for (file, name, device_count) in [
        ("raw-all/backup/ad105000.dat", "store", 2),
        ("raw-all/backup/ad105001.dat", "store", 2),
        ("raw-data-only/backup/ad007002.dat", "cache", 3),
    ] {
        let header = StripeHeader::parse(&bytes_of(format!("golden/{file}"))).expect("a header");
        let expected = StripeHeader {
            magic: STRIPE_MAGIC,
            version: STRIPE_VERSION,
            name: NamespaceName::new(name),
            device_count,
            random: 0x1122_3344_5566_7788,
            flags: STRIPE_TRUSTED,
        };
        assert_eq!(header, expected, "{file}");
    }
}
