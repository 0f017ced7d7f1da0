//! Reads and writes of a backup directory in all its states: misleading names, leftovers of dead
//! runs, file systems with missing abilities.
//!
//! Promise: real files in a directory of the test; the engine's answers are compared with the
//! kernel's. Must never: need a segment, or leave anything mounted.

use asmt_codec::GZIP_HEADER;
use asmt_engine::error::{Code, Problem};
use asmt_engine::facts::directory::{Interrupted, Leftovers, Volatile};
use asmt_engine::format::journal::{Journal, JournalNamespace, published_name};
use asmt_engine::format::mark::{Identity, UsageMark};
use asmt_engine::format::run_id::RunId;
use asmt_engine::format::{AsmtHeader, Chunk, Encoding, Manifest, ManifestError, ManifestSegment, ServerFingerprint};
use asmt_engine::progress::Control;
use asmt_engine::store::{Buffer, InputFile, LOCK_NAME, Lock, MARKS_LOCK_NAME, Store};
use asmt_engine::sys::dir::names_of;
use asmt_kit::namespaces::unshare_mounts;
use asmt_shm::{Header, Key, NamespaceName};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, mknodat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

const SECTOR: usize = 4096;

/// A test's directory, which is removed with it.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("asmt-store-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0).expect("a directory")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> u64 {
        fs::write(self.path(name), bytes).expect(name);
        fs::metadata(self.path(name)).expect(name).ino()
    }

    fn names(&self) -> Vec<String> {
        names_of(&self.0).expect("names")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn code_of<T>(outcome: asmt_engine::error::Result<T>) -> Option<Code> {
    outcome.err().map(|error| error.first().code)
}

/// Runs on a thread without capabilities, whatever its user id is.
fn without_capabilities<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        // Version 3 of the structures, this thread, and no capability at all.
        let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
        // SAFETY: both arrays have the sizes that the call requires, and outlive it.
        let outcome = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
        test()
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs with a file system of this type at a path, which nobody else sees. Needs root, or to be
/// root of a user namespace.
fn with_mounted<T: Send>(kind: &str, options: &str, path: &Path, test: impl FnOnce() -> T + Send) -> T {
    let text = |text: &OsStr| CString::new(text.as_bytes()).expect("text");
    let (kind, options, path) = (text(kind.as_ref()), text(options.as_ref()), text(path.as_ref()));
    let run = || {
        unshare_mounts().expect("a mount namespace needs root");
        // SAFETY: all pointers are to text that outlives the call.
        let outcome = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(outcome, 0, "mounting needs root: {}", std::io::Error::last_os_error());
        test()
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The flags of the descriptors that this process has open for a file or directory, as the kernel
/// shows them.
fn open_flags(path: &Path) -> Vec<OFlags> {
    let path = fs::canonicalize(path).expect("a path");
    let is_of_path = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|target| target == path);
    let flags = |entry: fs::DirEntry| {
        let info = fs::read_to_string(Path::new("/proc/thread-self/fdinfo").join(entry.file_name())).expect("a descriptor");
        let text = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        // The flag that the kernel adds by itself does not count.
        OFlags::from_bits_retain(u32::from_str_radix(text, 8).expect("octal")) - OFlags::from_bits_retain(0o100_000)
    };
    let open = fs::read_dir("/proc/thread-self/fd").expect("descriptors").flatten();
    open.filter(is_of_path).map(flags).collect()
}

/// Returns true if a file can be opened for direct I/O on this file system.
fn has_direct_io(path: &Path) -> bool {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).is_ok()
}

/// Returns true if a file's first byte is in the page cache; `None` if the file system does not
/// tell.
fn is_cached(path: &Path) -> Option<bool> {
    let file = File::open(path).expect("a file");
    match preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT) {
        Ok(count) => Some(count == 1),
        Err(Errno::AGAIN) => Some(false),
        Err(Errno::OPNOTSUPP) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The number of the call on every architecture but alpha; libc does not have it for all.
const CACHESTAT: libc::c_long = 451;

/// Pages of a file that wait in the page cache to be written; `None` before Linux 6.5.
fn dirty_pages(path: &Path) -> Option<u64> {
    let (file, whole, mut found) = (File::open(path).expect("a file"), [0_u64; 2], [0_u64; 5]);
    // SAFETY: both arrays have the sizes that the call requires, and outlive it.
    let outcome = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), whole.as_ptr(), found.as_mut_ptr(), 0) };
    (outcome == 0).then_some(found[1])
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// A file as ASMT writes it: its header, and a gzip member.
fn compressed(contents: &[u8]) -> Vec<u8> {
    let header = AsmtHeader { size_bytes: contents.len() as u64, crc32: crc32fast::hash(contents) }.to_bytes();
    [&header[..], &GZIP_HEADER, &miniz_oxide::deflate::compress_to_vec(contents, 1), &[0; 8]].concat()
}

fn stripe(length: usize) -> Vec<u8> {
    let mut bytes = noise(length);
    bytes[..60].fill(0);
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &0x4349_7475_7273_0322_u64.to_le_bytes());
    put(12, b"test");
    put(44, &2_u32.to_le_bytes());
    put(48, &7_u64.to_le_bytes());
    bytes
}

fn manifest(namespace: &str) -> String {
    let contents = [7; SECTOR];
    let (key, crc32) = (Key(0xae00_1100), crc32fast::hash(&contents));
    let segment = ManifestSegment {
        key,
        address: key.address().expect("a stage"),
        size_bytes: SECTOR as u64,
        uid: 0,
        gid: 0,
        mode: 0o600,
        encoding: Encoding::Raw,
        file_bytes: SECTOR as u64,
        crc32,
        chunk_bytes: 4 << 20,
        chunks: vec![Chunk { offset: 0, length: SECTOR as u32, crc32 }],
        encoded_sums: Vec::new(),
        columns_content: None,
        zero_chunks: Vec::new(),
        data_bytes: None,
    };
    let manifest = Manifest {
        tool: "asmt test".to_owned(),
        created_ms: 1,
        host: "node1".to_owned(),
        boot_id: "b".to_owned(),
        instance: 0,
        namespace: NamespaceName::new(namespace).expect("a name"),
        nsid: Some(1),
        base_version: None,
        noted: ServerFingerprint::default(),
        segments: vec![segment],
    };
    manifest.to_text()
}

// What is in a directory

#[test]
fn a_file_is_listed_as_the_kernel_and_its_first_bytes_show_it() {
    let root = Root::new();
    let (small, large) = (stripe(60), stripe(300_000));
    let files = [
        // ASMT's names may be in another case, and stay as they are.
        ("AE001100.dat", noise(5000), 5000, false),
        ("ad001000.dat", large.clone(), 300_000, true),
        ("ad001001.dat.gz", compressed(&small), 60, true),
        ("ad001002.dat.gz", compressed(&large), 300_000, true),
        ("ae001101.dat.gz", compressed(&large), 300_000, false),
    ];
    for (name, bytes, ..) in &files {
        root.write(name, bytes);
        let file = File::options().write(true).open(root.path(name)).expect(name);
        file.set_permissions(Permissions::from_mode(0o4640)).expect(name);
        file.set_modified(UNIX_EPOCH + Duration::from_micros(1_234_567_891_234)).expect(name);
    }
    root.write("readme.txt", "nobody's");
    fs::write(root.0.join(OsStr::from_bytes(b"ad\xff\xff1000.dat")), "no text").expect("a file");
    let store = root.store();
    let listing = store.list().expect("a listing");
    assert_eq!(listing, store.list().expect("a listing"), "each look begins at the beginning");
    assert_eq!((&listing.problems, &listing.manifests, &listing.marks), (&vec![], &vec![], &vec![]));
    assert_eq!(listing.files.len(), files.len());
    for (name, bytes, size_bytes, has_header) in files {
        let found = listing.files.iter().find(|file| file.name == name).expect(name);
        let metadata = fs::metadata(root.path(name)).expect(name);
        assert_eq!(found.key.to_string(), name[..8].to_lowercase());
        assert_eq!(Some(found.address), found.key.address());
        assert_eq!((found.file_bytes, found.size_bytes), (bytes.len() as u64, size_bytes), "{name}");
        assert_eq!(found.allocated_bytes, metadata.blocks() * 512, "{name}");
        assert_eq!((found.uid, found.gid, found.mode), (metadata.uid(), metadata.gid(), 0o640), "{name}");
        assert_eq!(found.modified_ms, 1_234_567_891, "{name}");
        let is_gzip = name.ends_with(".gz");
        assert_eq!(found.encoding == Encoding::Gzip, is_gzip, "{name}");
        let contents = if size_bytes == 60 { &small } else { &large };
        assert_eq!(found.crc32, is_gzip.then(|| crc32fast::hash(contents)), "{name}");
        match &found.header {
            Header::Stripe(stripe) => assert!(has_header && stripe.random == 7 && stripe.device_count == 2, "{name}"),
            other => assert!(!has_header && *other == Header::None, "{name}: {other:?}"),
        }
    }
}

#[test]
fn a_header_that_cannot_be_inflated_is_unreadable() {
    let root = Root::new();
    let whole = compressed(&stripe(5000));
    let broken = [&whole[..34], &[7; 100]].concat();
    for (what, bytes) in [("no member", &whole[..24]), ("another member", &[&whole[..24], b"PK"].concat()), ("broken", &broken)] {
        root.write("ad001000.dat.gz", bytes);
        let listing = root.store().list().expect("a listing");
        assert_eq!(listing.files.iter().map(|file| &file.header).collect::<Vec<_>>(), [&Header::Unreadable], "{what}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_of_that_file_alone() {
    type Make = fn(&Path);
    let cases: [(&str, Code, &str, Make); 6] = [
        ("ae001100.dat", Code::UnsafeFile, "is a symbolic link", |path| {
            fs::write(path.with_extension("txt"), "elsewhere").expect("a file");
            symlink(path.with_extension("txt"), path).expect("a link");
        }),
        ("ae001100.dat.gz", Code::UnsafeFile, "is a directory", |path| fs::create_dir(path).expect("a directory")),
        ("asmt-manifest-0-test.json", Code::UnsafeFile, "is a FIFO or device", |path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
        }),
        ("ae001000.dat", Code::UnsafeFile, "is a socket or device", |path| {
            mknodat(CWD, path, FileType::Socket, Mode::RUSR, 0).expect("a socket");
        }),
        ("ae001001.dat.gz", Code::ContentDamaged, "at 0 (segment ae001001): its header has 3 bytes", |path| {
            fs::write(path, "ASM").expect("a file");
        }),
        ("ae001001.dat", Code::PermissionDenied, "permission denied", |path| {
            fs::write(path, "closed").expect("a file");
            fs::set_permissions(path, Permissions::from_mode(0o000)).expect("a mode");
        }),
    ];
    for (name, code, text, make) in cases {
        let root = Root::new();
        make(&root.path(name));
        root.write("ad001000.dat", stripe(60));
        let listing = without_capabilities(|| root.store().list()).expect("a listing");
        assert_eq!(listing.files.iter().map(|file| &*file.name).collect::<Vec<_>>(), ["ad001000.dat"], "{text}");
        let [(of, problem)] = listing.problems.as_slice() else { panic!("{text}: {:?}", listing.problems) };
        assert_eq!((&**of, problem.code, problem.file.as_deref()), (name, code, Some(name)), "{problem:?}");
        assert!(problem.message.contains(text) && problem.message.contains(&*root.path(name).to_string_lossy()), "{problem:?}");
        // It is not opened for reading either; whether its contents are damaged is not checked
        // here.
        let read = without_capabilities(|| code_of(root.store().read(name, 3, false)));
        assert_eq!(read, Some(code).filter(|code| *code != Code::ContentDamaged), "{text}");
    }
}

#[test]
fn other_names_of_a_file_are_counted_and_not_judged() {
    let root = Root::new();
    for (name, bytes) in [("ae001100.dat", noise(SECTOR)), ("asmt-manifest-0-test.json", manifest("test").into_bytes())] {
        root.write(name, bytes);
        fs::hard_link(root.path(name), root.path(&format!("{name}.daily"))).expect("a link");
    }
    let listing = root.store().list().expect("a listing");
    assert_eq!((listing.files[0].link_count, listing.manifests[0].link_count, &listing.problems), (2, 2, &vec![]));
    assert!(listing.has_other_names);
    root.store().read("ae001100.dat", SECTOR as u64, false).expect("it is read");
}

#[test]
fn a_backup_that_was_moved_aside_is_looked_for_where_there_is_no_other() {
    let root = Root::new();
    let names = ["old-20261130T010203Z", "old-20261201T010203Z", "old-empty", "older"];
    for name in names {
        fs::create_dir(root.path(name)).expect("a directory");
    }
    for name in [names[0], names[1], names[3]] {
        root.write(&format!("{name}/ae001100.dat"), noise(SECTOR));
    }
    root.write("old-file", b"text");
    symlink(root.path(names[0]), root.path("old-link")).expect("a link");
    assert_eq!(root.store().list().expect("a listing").set_aside, names[..2]);
    root.write("ae001000.dat", noise(SECTOR));
    assert!(root.store().list().expect("a listing").set_aside.is_empty());
}

#[test]
fn a_mark_or_journal_that_others_may_write_by_another_name_says_nothing() {
    let used = serde_json::to_string(&UsageMark::new(&Identity { made_ms: 7, boot_id: None, files: None })).expect("text");
    let name = "asmt-used-0-test.json";
    for (mode, link, is_read) in [(0o600, false, true), (0o666, false, true), (0o644, true, true), (0o666, true, false)] {
        let root = Root::new();
        root.write(name, &used);
        let stage = root.write("ae001100.dat", noise(SECTOR));
        journal(&root, DEAD, &[("half", &[("ae001100.dat", stage), ("ae001000.dat", 1)])]);
        let journal = format!(".asmt-run.{DEAD}");
        for name in [name, &journal] {
            fs::set_permissions(root.path(name), Permissions::from_mode(mode)).expect("a mode");
            if link {
                fs::hard_link(root.path(name), root.path(&format!("{name}.other"))).expect("a link");
            }
        }
        let listing = root.store().list().expect("a listing");
        assert_eq!(listing.marks[0].1.is_ok(), is_read, "{mode:o} {link}: {:?}", listing.marks);
        assert_eq!(listing.leftovers.sweep.contains(&"ae001100.dat".to_owned()), is_read, "{mode:o} {link}");
    }
}

#[test]
fn two_files_of_one_segment_are_one_too_many() {
    let root = Root::new();
    root.write("AE001100.dat", noise(4096));
    root.write("ae001100.dat.gz", compressed(&noise(4096)));
    let listing = root.store().list().expect("a listing");
    let problems: Vec<(&str, Code)> = listing.problems.iter().map(|(name, problem)| (&**name, problem.code)).collect();
    assert_eq!(problems, [("ae001100.dat.gz", Code::ExtraFile)]);
}

#[test]
fn a_manifest_is_taken_under_its_own_name_alone() {
    let root = Root::new();
    let name = "asmt-manifest-0-test.json";
    let cases = [
        (manifest("test"), None),
        (manifest("other"), Some("it belongs to asmt-manifest-0-other.json")),
        (String::new(), Some("its first line: EOF")),
        ("no JSON".to_owned(), Some("it is not JSON of at most")),
    ];
    for (text, expected) in cases {
        root.write(name, &text);
        fs::set_permissions(root.path(name), Permissions::from_mode(0o4640)).expect("a mode");
        let listing = root.store().list().expect("a listing");
        let [found] = listing.manifests.as_slice() else { panic!("{:?}", listing.manifests) };
        assert_eq!((&*found.name, found.owner.mode), (name, 0o640));
        assert_eq!(found.owner.uid, fs::metadata(root.path(name)).expect("a file").uid());
        match (&found.manifest, expected) {
            (Ok(manifest), None) => assert_eq!(manifest.namespace.as_str(), "test"),
            (Err(ManifestError::Damaged(why)), Some(expected)) => assert!(why.starts_with(expected), "{why}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}

#[test]
fn a_mark_is_read_up_to_its_greatest_size() {
    let root = Root::new();
    let used = UsageMark::new(&Identity { made_ms: 7, boot_id: None, files: None });
    let text = serde_json::to_string(&used).expect("text");
    let padded = |length: usize| text.clone() + &" ".repeat(length - text.len());
    let cases = [
        (text.clone().into_bytes(), Ok(used.clone())),
        (padded(64 << 10).into_bytes(), Ok(used.clone())),
        (padded((64 << 10) + 1).into_bytes(), Err("it is not text")),
        (b"{\xff}".to_vec(), Err("it is not text")),
        (Vec::new(), Err("it is not a usage mark")),
    ];
    for (bytes, expected) in cases {
        root.write("asmt-used-0-test.json", &bytes);
        let marks = root.store().list().expect("a listing").marks;
        let [(_, found)] = marks.as_slice() else { panic!("{marks:?}") };
        match (found, &expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            _ => panic!("{} bytes: {found:?}, expected {expected:?}", bytes.len()),
        }
    }
    fs::remove_file(root.path("asmt-used-0-test.json")).expect("removed");
    symlink("/etc/passwd", root.path("asmt-used-0-test.json")).expect("a link");
    let marks = root.store().list().expect("a listing").marks;
    assert!(marks[0].1.as_ref().is_err_and(|why| why.contains("a symbolic link")), "{marks:?}");
}

// What runs left

const DEAD: &str = "00000000000000000000000000000000-1-2-3";

fn journal(root: &Root, run: &str, namespaces: &[(&str, &[(&str, u64)])]) {
    let namespace = |(name, files): &(&str, &[(&str, u64)])| JournalNamespace {
        namespace: (*name).to_owned(),
        files: files.iter().map(|(name, inode)| ((*name).to_owned(), *inode)).collect(),
    };
    let journal = Journal { namespaces: namespaces.iter().map(namespace).collect(), ..Journal::default() };
    root.write(&format!(".asmt-run.{run}"), serde_json::to_string(&journal).expect("text"));
}

#[test]
fn a_backup_that_was_put_in_the_place_of_a_dead_runs_is_not_swept() {
    let root = Root::new();
    let file = |name: &str| root.write(name, noise(SECTOR));
    let (stage, base) = (file("ae002100.dat"), file("ae002000.dat"));
    let manifest = root.write("asmt-manifest-0-half.json", manifest("half"));
    // The inodes of the first files were used again; that of the committing file was not.
    let files: &[_] = &[("ae002100.dat", stage), ("asmt-manifest-0-half.json", manifest), ("ae002000.dat", base + 1000)];
    journal(&root, DEAD, &[("half", files)]);
    let listing = root.store().list().expect("a listing");
    let own = format!(".asmt-run.{DEAD}");
    assert_eq!(listing.leftovers, Leftovers { sweep: vec![own], ..Leftovers::default() });
    assert_eq!((listing.files.len(), listing.manifests.len()), (2, 1));
}

#[test]
fn files_of_a_dead_run_are_told_by_its_journal_and_their_inodes() {
    let root = Root::new();
    let file = |name: &str| root.write(name, noise(SECTOR));
    let (stage, base) = (file("ae001100.dat"), file("ae001000.dat"));
    let (first, second, third, others) = (file("ae002101.dat"), file("ae002100.dat"), file("ae002102.dat"), file("ae002103.dat"));
    let manifest = root.write("asmt-manifest-0-half.json", manifest("half"));
    let (secret, staged) = (file("secret"), file(&format!(".asmt-tmp.{DEAD}.ae002001.dat")));
    let done: &[_] = &[("ae001100.dat", stage), ("ae001000.dat", base)];
    let half: &[_] = &[
        ("ae002001.dat", staged),
        ("ae002101.dat", first),
        ("ae002100.dat", second),
        ("secret", secret),
        ("ae002103.dat", others + 1000),
        ("asmt-manifest-0-half.json", manifest),
        ("ae002000.dat", third),
    ];
    journal(&root, DEAD, &[("done", done), ("half", half)]);
    let leftovers = root.store().list().expect("a listing").leftovers;
    let temporary = format!(".asmt-tmp.{DEAD}.ae002001.dat");
    let own = format!(".asmt-run.{DEAD}");
    // Files that vouch for others are removed first, and those that account for others last.
    let expected = ["asmt-manifest-0-half.json", "ae002100.dat", "ae002101.dat", &*temporary, &*own];
    assert_eq!(leftovers.sweep, expected);
    let interrupted = Interrupted { instance: 0, namespace: "half".to_owned() };
    assert_eq!(leftovers.interrupted, [interrupted]);
    assert_eq!(leftovers.superseded.iter().collect::<Vec<_>>(), ["ae001000.dat", "ae001100.dat"]);
    assert_eq!(leftovers.live, []);
    // A file that is swept is not listed as a file of a backup, and the others are.
    let listing = root.store().list().expect("a listing");
    let files: Vec<&str> = listing.files.iter().map(|file| &*file.name).collect();
    let expected = ["ae001000.dat", "ae001100.dat", "ae002102.dat", "ae002103.dat"];
    assert_eq!((files, listing.manifests.len()), (expected.to_vec(), 0));
    // If everything that it lists is committed, only the journal is a leftover.
    journal(&root, DEAD, &[("done", done)]);
    let leftovers = root.store().list().expect("a listing").leftovers;
    assert_eq!(leftovers, Leftovers { sweep: vec![temporary, own], ..Leftovers::default() });
}

#[test]
fn whose_run_may_live_is_let_be() {
    let root = Root::new();
    let own = asmt_engine::sys::process::own_run().expect("an id").to_string();
    // A run of another PID namespace, of which nobody here can see whether it is alive.
    let mut parts: Vec<&str> = own.split('-').collect();
    parts[1] = "1";
    let elsewhere = parts.join("-");
    for run in [&*own, &elsewhere, DEAD, "nonsense"] {
        root.write(&format!(".asmt-tmp.{run}.ae001000.dat"), "");
        root.write(&format!(".asmt-run.{run}"), "no journal");
    }
    root.write(&format!(".asmt-tmp.{DEAD}"), "of no name");
    let of = |runs: &[&str]| {
        let mut temporaries: Vec<String> = runs.iter().map(|run| format!(".asmt-tmp.{run}.ae001000.dat")).collect();
        let mut journals: Vec<String> = runs.iter().map(|run| format!(".asmt-run.{run}")).collect();
        temporaries.sort_unstable();
        journals.sort_unstable();
        [temporaries, journals].concat()
    };
    let store = root.store();
    let leftovers = store.list().expect("a listing").leftovers;
    assert_eq!(leftovers.sweep, of(&[DEAD, &own]));
    assert_eq!(leftovers.live.iter().map(RunId::to_string).collect::<Vec<_>>(), [&*elsewhere], "once");
    // The holder of the lock knows that all others have ended.
    store.lock(Lock::Exclusive).expect("the lock");
    let leftovers = store.list().expect("a listing").leftovers;
    assert_eq!((leftovers.sweep, leftovers.live), (of(&[DEAD, &elsewhere, &own]), vec![]));
}

#[test]
fn what_is_no_file_is_not_swept() {
    let root = Root::new();
    let name = format!(".asmt-tmp.{DEAD}.ae001000.dat");
    symlink("/etc/passwd", root.path(&name)).expect("a link");
    let listing = root.store().list().expect("a listing");
    assert_eq!(listing.leftovers, Leftovers::default());
    let problems: Vec<(&str, Code)> = listing.problems.iter().map(|(name, problem)| (&**name, problem.code)).collect();
    assert_eq!(problems, [(&*name, Code::UnsafeFile)]);
}

#[test]
fn a_sweep_leaves_journals_where_something_takes_the_place_of_what_they_account_for() {
    let journals = [".asmt-run.1", ".asmt-run.2"];
    let sweep = ["ae001100.dat", ".asmt-run.1", "gone", ".asmt-run.2"].map(str::to_owned).to_vec();
    let leftovers = Leftovers { sweep, ..Leftovers::default() };
    for (takes_places, left) in [(true, &journals[..]), (false, &[])] {
        let root = Root::new();
        for name in ["ae001100.dat", "other", ".asmt-run.1", ".asmt-run.2"] {
            root.write(name, "");
        }
        assert_eq!(root.store().sweep(&leftovers, takes_places).expect("swept"), left);
        let mut expected: Vec<&str> = left.to_vec();
        expected.push("other");
        assert_eq!(root.names()[2..], expected, "beside . and ..");
    }
}

#[test]
fn a_removal_that_fails_ends_it() {
    let root = Root::new();
    root.write("last", "");
    fs::create_dir(root.path("no-file")).expect("a directory");
    let error = root.store().remove_all(["gone", "no-file", "last"].into_iter()).expect_err("a directory");
    assert!(error.first().message.starts_with("unlink ") && root.path("last").exists(), "{error}");
}

// The directory itself

#[test]
fn a_look_makes_nothing_and_sees_the_file_system_that_a_backup_would_go_to() {
    let root = Root::new();
    let (made, file) = (root.path("made"), root.path("file"));
    fs::create_dir(&made).expect("a directory");
    fs::set_permissions(&made, Permissions::from_mode(0o4750)).expect("a mode");
    root.write("file", "");
    let of = |path: &Path| Store::look(path).map(|listing| listing.directory);
    let own = of(&made).expect("a look").expect("a directory");
    assert_eq!((own.path.clone(), own.owner.map(|owner| owner.mode)), (made.display().to_string(), Some(0o750)));
    assert_eq!(own.owner.map(|owner| owner.uid), Some(fs::metadata(&made).expect("a directory").uid()));
    let missing = of(&made.join("missing")).expect("a look").expect("a directory above");
    assert_eq!((missing.path, missing.owner, missing.volatile), (format!("{}/missing", own.path), None, own.volatile));
    assert!(!made.join("missing").exists());
    assert_eq!(code_of(of(&made.join("missing/too"))), Some(Code::DirectoryMissing));
    assert!(of(Path::new("missing")).expect("a look").is_some(), "in the working directory");
    assert_eq!(code_of(of(&file)), Some(Code::NotADirectory));
    assert_eq!(of(Path::new("/proc/self")).expect("a look").expect("a directory").volatile, None);
    for kind in ["tmpfs", "ramfs"] {
        let looks = with_mounted(kind, "", &made, || [of(&made), of(&made.join("missing"))]);
        let volatile = looks.map(|look| look.expect("a look").expect("a directory").volatile);
        let expected = Some(Volatile::InMemory(kind));
        assert_eq!(volatile, [expected.clone(), expected]);
    }
    let listing = root.store().list().expect("a listing");
    assert_eq!(listing.directory, Store::look(&root.0).expect("a look").directory);
}

#[test]
fn a_directory_is_opened_or_made_or_it_is_said_why_not() {
    let root = Root::new();
    let at = |name: &str| root.path(name);
    root.write("file", "");
    for (name, mode) in [("closed", 0o000), ("read-only", 0o500)] {
        fs::create_dir(at(name)).expect("a directory");
        fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("a mode");
    }
    symlink(&root.0, at("link")).expect("a link");
    let cases = [
        ("missing", Some(Code::DirectoryMissing), None),
        ("missing/too", Some(Code::DirectoryMissing), None),
        ("above/too", Some(Code::DirectoryMissing), Some(Code::DirectoryMissing)),
        ("file", Some(Code::NotADirectory), Some(Code::NotADirectory)),
        ("file/too", Some(Code::NotADirectory), Some(Code::NotADirectory)),
        ("closed", Some(Code::PermissionDenied), Some(Code::PermissionDenied)),
        ("read-only", None, Some(Code::PermissionDenied)),
        ("read-only/too", Some(Code::DirectoryMissing), Some(Code::PermissionDenied)),
        ("link", None, None),
    ];
    for (name, opened, made) in cases {
        without_capabilities(|| {
            assert_eq!(code_of(Store::open(&at(name))), opened, "{name}");
            assert_eq!(code_of(Store::open_or_create(&at(name), &Control::default())), made, "{name}");
        });
    }
    assert_eq!(fs::metadata(at("missing")).expect("made").mode() & 0o7777, 0o700);
    without_capabilities(|| {
        for (name, is_writable) in [("missing", true), ("read-only", false)] {
            assert_eq!(Store::open(&at(name)).expect(name).is_writable().expect(name), is_writable, "{name}");
        }
    });
    let store = root.store();
    assert_eq!(store.path(), root.0);
    assert!(open_flags(&root.0).iter().all(|flags| flags.contains(OFlags::CLOEXEC)), "nobody inherits it");
}

#[test]
fn writers_are_alone_and_readers_are_not() {
    use Lock::{Exclusive, Shared};
    let root = Root::new();
    for (first, second, is_free) in
        [(Shared, Shared, true), (Shared, Exclusive, false), (Exclusive, Shared, false), (Exclusive, Exclusive, false)]
    {
        let holder = root.store();
        holder.lock(first).expect("a lock");
        let outcome = code_of(root.store().lock(second));
        assert_eq!(outcome, (!is_free).then_some(Code::AnotherAsmt), "{first:?} {second:?}");
    }
    root.store().lock(Exclusive).expect("all are gone with their stores");
}

/// Runs as a user without rights here; only root can do that.
fn as_nobody<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65_534;
    let run = || {
        // SAFETY: plain numbers, and no groups; past the C library it changes this thread alone.
        let mut outcome = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) };
        // SAFETY: as above.
        outcome |= unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
        // SAFETY: as above.
        outcome |= unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(outcome, 0, "needs root: {}", std::io::Error::last_os_error());
        test()
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Opens a directory or file and holds a lock on it, as everybody can who may open it.
fn hold(path: &Path, operation: FlockOperation) -> Option<File> {
    let file = File::open(path).ok()?;
    flock(&file, operation).ok().map(|()| file)
}

#[test]
fn a_lock_that_anybody_can_hold_keeps_nobody_out_and_one_of_asmts_does() {
    use Lock::{Exclusive, Shared};
    for mode in [0o755, 0o744, 0o750] {
        let root = Root::new();
        fs::set_permissions(&root.0, Permissions::from_mode(mode)).expect("a mode");
        for lock in [Shared, Exclusive] {
            for strangers in [FlockOperation::NonBlockingLockShared, FlockOperation::NonBlockingLockExclusive] {
                let _held = hold(&root.0, strangers).expect("a lock");
                root.store().lock(lock).expect("nobody keeps it out");
            }
        }
        assert_eq!(root.names()[2..], [] as [&str; 0], "no lock is left behind");
        for (first, second, is_free) in
            [(Shared, Shared, true), (Shared, Exclusive, false), (Exclusive, Shared, false), (Exclusive, Exclusive, false)]
        {
            let holder = root.store();
            holder.lock(first).expect("a lock");
            let file = root.path(LOCK_NAME);
            assert_eq!(fs::metadata(&file).expect("a lock").mode() & 0o7777, 0o600);
            assert_eq!(code_of(root.store().lock(second)), (!is_free).then_some(Code::AnotherAsmt), "{first:?} {second:?}");
            // The mode may change while the lock is held.
            fs::set_permissions(&root.0, Permissions::from_mode(0o700)).expect("a mode");
            assert_eq!(code_of(root.store().lock(second)), (!is_free).then_some(Code::AnotherAsmt), "{first:?} {second:?}");
            fs::set_permissions(&root.0, Permissions::from_mode(mode)).expect("a mode");
            assert!(file.exists(), "it is held");
        }
        assert_eq!(root.names()[2..], [] as [&str; 0]);
        // A leftover of a killed run is used, and then removed.
        root.write(LOCK_NAME, "");
        root.store().lock(Exclusive).expect("a lock");
        assert_eq!(root.names()[2..], [] as [&str; 0]);
    }
}

#[test]
fn who_may_only_read_the_directory_cannot_keep_its_owner_out() {
    let root = Root::new();
    // Root can open its own files in any case, so only other users show the difference.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    fs::set_permissions(&root.0, Permissions::from_mode(0o755)).expect("a mode");
    let verifier = as_nobody(|| {
        let store = root.store();
        store.lock(Lock::Shared).map(|()| store)
    });
    let verifier = verifier.expect("he may read it");
    let owner = root.store();
    owner.lock(Lock::Exclusive).expect("nobody keeps it out");
    let denied = as_nobody(|| hold(&root.path(LOCK_NAME), FlockOperation::NonBlockingLockShared).is_none());
    assert!(denied, "the lock is closed to others");
    let second = as_nobody(|| code_of(root.store().lock(Lock::Shared)));
    assert_eq!(second, None, "two readers without the lock share the directory's");
    drop((verifier, owner));
    let owner = root.store();
    owner.lock(Lock::Exclusive).expect("a lock");
    assert_eq!(as_nobody(|| code_of(root.store().lock(Lock::Shared))), Some(Code::AnotherAsmt), "a backup is at work");
}

#[test]
fn what_is_no_file_in_the_place_of_the_lock_is_refused_and_never_waited_for() {
    let root = Root::new();
    fs::set_permissions(&root.0, Permissions::from_mode(0o755)).expect("a mode");
    let plants: [fn(&Path); 3] = [
        |path| symlink("/etc/passwd", path).expect("a link"),
        |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO"),
        |path| fs::create_dir(path).expect("a directory"),
    ];
    for plant in plants {
        plant(&root.path(LOCK_NAME));
        assert_eq!(code_of(root.store().lock(Lock::Exclusive)), Some(Code::UnsafeFile));
        let _ = fs::remove_file(root.path(LOCK_NAME)).or_else(|_| fs::remove_dir(root.path(LOCK_NAME)));
    }
}

#[test]
fn a_read_only_file_system_is_read_whoever_holds_the_directory() {
    let root = Root::new();
    with_mounted("tmpfs", "mode=0755", &root.0, || {
        root.write("ae001100.dat", noise(SECTOR));
        let path = CString::new(root.0.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the text outlives the call; the other pointers may be null.
        let outcome = unsafe {
            libc::mount(std::ptr::null(), path.as_ptr(), std::ptr::null(), libc::MS_REMOUNT | libc::MS_RDONLY, std::ptr::null())
        };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
        let _held = hold(&root.0, FlockOperation::NonBlockingLockExclusive).expect("a lock");
        root.store().lock(Lock::Shared).expect("nobody can be at work here");
        drop(root.store().lock_marks().expect("nothing to write, nothing to lock"));
    });
}

#[test]
fn marks_are_locked_by_what_others_cannot_open() {
    let root = Root::new();
    fs::set_permissions(&root.0, Permissions::from_mode(0o755)).expect("a mode");
    root.write("asmt-manifest-0-a.json", manifest("a"));
    root.write("ae001100.dat", noise(SECTOR));
    let mode = |name: &str, mode| fs::set_permissions(root.path(name), Permissions::from_mode(mode)).expect("a mode");
    let is_held = |name: &str| hold(&root.path(name), FlockOperation::NonBlockingLockExclusive).is_none();
    mode("asmt-manifest-0-a.json", 0o600);
    mode("ae001100.dat", 0o600);
    let store = root.store();
    let held = store.lock_marks().expect("a lock");
    assert!(is_held("asmt-manifest-0-a.json"));
    drop(held);
    // Any user could hold these for ever.
    mode("asmt-manifest-0-a.json", 0o644);
    let held = store.lock_marks().expect("a lock");
    assert!(is_held("ae001100.dat") && !is_held("asmt-manifest-0-a.json"));
    drop(held);
    mode("ae001100.dat", 0o640);
    let strangers: Vec<_> = ["asmt-manifest-0-a.json", "ae001100.dat"]
        .map(|name| hold(&root.path(name), FlockOperation::NonBlockingLockExclusive).expect("a lock"))
        .into();
    let held = store.lock_marks().expect("a lock");
    assert!(is_held(MARKS_LOCK_NAME));
    assert_eq!(fs::metadata(root.path(MARKS_LOCK_NAME)).expect("a lock").mode() & 0o7777, 0o600);
    drop((held, strangers));
    assert!(!root.path(MARKS_LOCK_NAME).exists(), "no lock is left behind");
    // In a directory that nobody else may enter, any file will do.
    fs::set_permissions(&root.0, Permissions::from_mode(0o700)).expect("a mode");
    let _held = store.lock_marks().expect("a lock");
    assert!(is_held("asmt-manifest-0-a.json"));
}

#[test]
fn who_can_exchange_a_directory_on_the_path_is_found_as_the_kernel_resolves_it() {
    let root = Root::new();
    let (open, sticky, backup) = (root.path("open"), root.path("sticky"), root.path("open/b"));
    for path in [&open, &sticky, &backup] {
        fs::create_dir(path).expect("a directory");
    }
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    mode(&open, 0o775);
    mode(&sticky, 0o1777);
    symlink(&backup, sticky.join("link")).expect("a link");
    symlink("../sticky/link", root.path("far")).expect("a link");
    let root_text = root.0.display().to_string();
    let of = |path: &Path| {
        let listing = Store::look(path).expect("a look");
        let above = listing.directory.expect("a directory").above.into_iter();
        let of_test = above.filter(|step| step.path.starts_with(&format!("{root_text}/")));
        let mut steps: Vec<(String, u32)> =
            of_test.map(|step| (step.path[root_text.len()..].to_owned(), step.mode & 0o1777)).collect();
        steps.sort();
        steps
    };
    let step = |path: &str, mode| (path.to_owned(), mode);
    assert_eq!(of(&backup), [step("/open", 0o775)]);
    assert_eq!(of(&open.join("missing")), [step("/open", 0o775)], "where it would be made");
    assert_eq!(of(&sticky.join("../open/b")), [step("/open", 0o775), step("/sticky", 0o1777)]);
    let linked = [step("/open", 0o775), step("/sticky", 0o1777), step("/sticky/link", 0o777)];
    assert_eq!(of(&sticky.join("link")), linked);
    assert_eq!(of(&root.path("open/../sticky/../sticky/link/.")), linked);
    mode(&open, 0o755);
    assert_eq!(of(&backup), []);
    symlink("loop", root.path("loop")).expect("a link");
    assert!(Store::look(&root.path("loop")).is_err());
}

#[test]
fn a_directory_that_was_moved_is_not_taken_for_the_one_at_its_path() {
    let root = Root::new();
    let (path, away) = (root.path("b"), root.path("away"));
    let store = Store::open_or_create(&path, &Control::default()).expect("a directory");
    store.check_place().expect("where it was");
    fs::rename(&path, &away).expect("moved");
    assert_eq!(code_of(store.check_place()), Some(Code::DirectoryMoved));
    fs::create_dir(&path).expect("another");
    assert_eq!(code_of(store.check_place()), Some(Code::DirectoryMoved));
    fs::remove_dir(&path).expect("removed");
    symlink(&away, &path).expect("a link");
    store.check_place().expect("it leads there again");
}

#[test]
fn names_are_listed_sorted_and_a_file_has_none() {
    let root = Root::new();
    for name in ["b", "a", "c"] {
        root.write(name, "");
    }
    assert_eq!(root.names(), [".", "..", "a", "b", "c"]);
    let error = names_of(&root.path("a")).expect_err("a file");
    assert!(error.first().message.starts_with("open "), "{error}");
}

#[test]
fn room_is_what_the_file_system_says() {
    let root = Root::new();
    let free = with_mounted("tmpfs", "size=1m", &root.0, || {
        root.write("file", vec![7; 256 << 10]);
        root.store().free_bytes()
    });
    assert_eq!(free.expect("a number"), Some(768 << 10));
}

// Files that get their names

#[test]
fn a_staged_file_is_closed_to_others_and_never_replaces_one() {
    let root = Root::new();
    let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
    assert_eq!(Store::journal_name(&run), format!(".asmt-run.{run}"));
    let file = store.create(&run, "ae001000.dat").expect("a file");
    let temporary = file.temporary().to_owned();
    assert_eq!((file.name(), &*temporary), ("ae001000.dat", &*format!(".asmt-tmp.{run}.ae001000.dat")));
    for (name, published) in [(&*temporary, "ae001000.dat"), ("ae001000.dat", "ae001000.dat"), (".asmt-tmp.x", ".asmt-tmp.x")] {
        assert_eq!(published_name(name), published);
    }
    assert_eq!(fs::metadata(root.path(&temporary)).expect("a file").mode() & 0o7777, 0o600);
    assert!(open_flags(&root.path(&temporary)).iter().all(|flags| flags.contains(OFlags::CLOEXEC)), "nobody inherits it");
    assert!(store.create(&run, "ae001000.dat").is_err(), "it is there");
    assert_eq!(store.inode_of(&temporary).expect("a look"), Some(fs::metadata(root.path(&temporary)).expect("a file").ino()));
    assert_eq!(store.inode_of("ae001000.dat").expect("a look"), None);
    root.write("ae001000.dat", "somebody else's");
    assert_eq!(code_of(store.publish(&temporary, "ae001000.dat")), Some(Code::BackupExists));
    assert_eq!(fs::read(root.path("ae001000.dat")).expect("a file"), b"somebody else's");
    store.publish(&temporary, "ae001001.dat").expect("a free name");
    assert_eq!(root.names()[2..], ["ae001000.dat", "ae001001.dat"]);
    store.check_alive("ae001001.dat").expect("it lives");
    symlink(root.path("ae001001.dat"), root.path("link")).expect("a link");
    assert!(store.check_alive("link").is_err() && store.check_alive("missing").is_err());
    fs::set_permissions(root.path("ae001001.dat"), Permissions::from_mode(0o000)).expect("closed");
    without_capabilities(|| root.store().check_alive("ae001001.dat")).expect("given away: another file will answer");
}

#[test]
fn what_a_file_system_can_do_is_tried_and_nothing_is_left() {
    let root = Root::new();
    let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
    store.try_abilities(&run, &[]).expect("it keeps modes and has a rename that replaces nothing");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    store.try_abilities(&run, &[(uid, gid)]).expect("its own");
    let given = without_capabilities(|| store.try_abilities(&run, &[(uid, gid), (uid + 1, gid)]));
    let error = given.expect_err("nobody gives it away");
    assert_eq!(error.first().code, Code::ModesNotKept, "{error}");
    assert_eq!(root.names()[2..], [] as [&str; 0]);
    // A name that is taken keeps its owner.
    root.write("ae001000.dat", "somebody else's");
    let file = store.create(&run, "ae001000.dat").expect("a file");
    assert_eq!(code_of(store.publish(file.temporary(), "ae001000.dat")), Some(Code::BackupExists));
}

#[test]
fn a_small_file_is_replaced_as_a_whole() {
    let root = Root::new();
    let store = root.store();
    // A leftover of a killed run.
    root.write(&format!(".asmt-tmp.{}-1-2-3.mark", "0".repeat(32)), "half");
    for text in ["one", "another"] {
        store.replace("mark", text).expect("replaced");
        assert_eq!(fs::read_to_string(root.path("mark")).expect("a file"), text);
        assert_eq!(fs::metadata(root.path("mark")).expect("a file").mode() & 0o7777, 0o600);
        assert_eq!(root.names()[2..], ["mark"]);
    }
    fs::create_dir(root.path("directory")).expect("a directory");
    store.replace("directory", "text").expect_err("it cannot be one");
    assert_eq!(root.names()[2..], ["directory", "mark"]);
}

#[test]
fn a_finished_file_is_cut_to_size_and_given_to_its_owner() {
    let root = Root::new();
    let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
    let file = store.create(&run, "ae001000.dat").expect("a file");
    file.write(0, &noise(SECTOR)).expect("written");
    let path = root.path(file.temporary());
    let own = fs::metadata(&path).expect("a file");
    without_capabilities(|| {
        assert_eq!(file.finish(100, Some((own.uid(), own.gid()))).expect("its own"), own.ino());
        // The owner must be another user, who may be unknown to this user namespace.
        let error = file.finish(100, Some((own.uid() + 1, own.gid()))).expect_err("nobody gives it away");
        assert!(error.first().message.starts_with("chown "), "{error}");
    });
    assert_eq!(file.finish(100, None).expect("finished"), own.ino());
    assert_eq!(fs::read(&path).expect("a file"), noise(100));
}

// Bytes

/// Memory that begins at a sector.
fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.aligned(bytes.len()).copy_from_slice(bytes);
    buffer
}

/// Runs on the file system of the test's own directory, on one without direct I/O, and on one that
/// may have it but does not report its alignment.
fn on_each_file_system(test: impl Fn(&Root) + Sync) {
    test(&Root::new());
    for kind in ["ramfs", "tmpfs"] {
        let root = Root::new();
        with_mounted(kind, "", &root.0, || test(&root));
    }
}

#[test]
fn a_buffer_is_aligned_and_made_once() {
    let mut buffer = Buffer::default();
    for length in [1, SECTOR, SECTOR + 1, 100_000] {
        let memory = buffer.aligned(length);
        assert_eq!((memory.len(), memory.as_ptr() as usize % SECTOR), (length, 0));
        memory.fill(length as u8);
        assert!(buffer.aligned(length).iter().all(|byte| *byte == length as u8), "{length}");
        assert!(buffer.aligned(1)[0] == length as u8, "{length}");
    }
}

#[test]
fn what_is_written_past_the_page_cache_is_what_was_given_and_stays_past_it() {
    on_each_file_system(|root| {
        let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
        for (offset, length) in [(0, SECTOR), (0, 5), (SECTOR, 3 * SECTOR), (2 * SECTOR, 5000), (SECTOR, 0)] {
            let temporary = store.create(&run, "ae001000.dat").expect("a file").temporary().to_owned();
            let path = root.path(&temporary);
            let file = store.reopen(&temporary, "ae001000.dat").expect("a file");
            assert_eq!((file.temporary(), file.name()), (&*temporary, "ae001000.dat"));
            file.write(offset as u64, aligned(&noise(length)).aligned(length)).expect("written");
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let expected = if has_direct_io(&path) { flags | OFlags::DIRECT } else { flags };
            assert_eq!(open_flags(&path), [expected], "{offset} {length}");
            file.finish((offset + length) as u64, None).expect("finished");
            assert!(fs::read(&path).expect("a file") == [vec![0; offset], noise(length)].concat(), "{offset} {length}");
            file.sync().expect("durable");
            store.remove_all(std::iter::once(&*temporary)).expect("removed");
        }
    });
}

#[test]
fn what_the_device_cannot_take_directly_goes_through_the_page_cache() {
    let root = Root::new();
    let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
    let temporary = store.create(&run, "ae001000.dat").expect("a file").temporary().to_owned();
    let file = store.reopen(&temporary, "ae001000.dat").expect("a file");
    let mut buffer = aligned(&[0; 2 * SECTOR]);
    let odd = &mut buffer.aligned(SECTOR + 1)[1..];
    odd.copy_from_slice(&noise(SECTOR));
    file.write(0, odd).expect("written");
    file.write(SECTOR as u64, &[7; 5]).expect("written");
    assert!(fs::read(root.path(&temporary)).expect("a file")[..SECTOR + 5] == [noise(SECTOR), vec![7; 5]].concat());
    odd.fill(0);
    let read = store.read(&temporary, fs::metadata(root.path(&temporary)).expect("a file").len(), false).expect("a file");
    read.read_into(0, odd).expect("read");
    assert!(*odd == noise(SECTOR));
    let is_direct = open_flags(&root.path(&temporary)).iter().any(|flags| flags.contains(OFlags::DIRECT));
    // If memory need not be aligned, there is no fallback.
    assert_eq!(is_direct, read.is_from_disk());
}

#[test]
fn a_disk_that_is_full_says_so_and_is_not_written_to_elsewhere() {
    let root = Root::new();
    with_mounted("tmpfs", "size=64k", &root.0, || {
        let file = root.store().create(&asmt_engine::sys::process::own_run().expect("an id"), "ae001000.dat").expect("a file");
        assert_eq!(code_of(file.reserve(0, 128 << 10)), Some(Code::DiskFull));
        // Half of it is written; the rest of the bytes does not go to the place of the first ones.
        assert_eq!(code_of(file.write(0, &noise(128 << 10))), Some(Code::DiskFull));
        assert!(fs::read(root.path(file.temporary())).expect("a file") == noise(64 << 10));
    });
}

/// A limit on the size of files ends a write at that size. It applies to a whole process, so the
/// test has its own.
#[test]
fn a_direct_write_that_ends_within_a_sector_has_failed() {
    const IS_LIMITED: &str = "ASMT_TEST_IS_LIMITED";
    if std::env::var_os(IS_LIMITED).is_none() {
        let name = std::thread::current().name().expect("a test's name").to_owned();
        let mut limited = Command::new(std::env::current_exe().expect("this test"));
        let set_limit = || {
            let limit = libc::rlimit { rlim_cur: 6144, rlim_max: 6144 };
            // SAFETY: the structure outlives the call.
            let outcome = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
            // SAFETY: this requests an error in place of a signal; no handler runs.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec two system calls are made, and nothing is allocated.
        let done = unsafe { limited.args(["--exact", &name]).env(IS_LIMITED, "1").pre_exec(set_limit) }.output().expect("a run");
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let root = Root::new();
    let (store, run) = (root.store(), asmt_engine::sys::process::own_run().expect("an id"));
    let temporary = store.create(&run, "ae001000.dat").expect("a file").temporary().to_owned();
    let file = store.reopen(&temporary, "ae001000.dat").expect("a file");
    let outcome = code_of(file.write(0, aligned(&noise(2 * SECTOR)).aligned(2 * SECTOR)));
    let is_direct = open_flags(&root.path(&temporary)).iter().any(|flags| flags.contains(OFlags::DIRECT));
    // Through the page cache, the write continues where it ended, and gets the error of the limit.
    assert_eq!(outcome, Some(if is_direct { Code::SystemCall } else { Code::SystemLimit }));
}

#[test]
fn what_was_reserved_has_its_blocks() {
    on_each_file_system(|root| {
        let file = root.store().create(&asmt_engine::sys::process::own_run().expect("an id"), "ae001000.dat").expect("a file");
        let can_reserve = root.store().record().expect("a record").volatile != Some(Volatile::InMemory("ramfs"));
        assert!(file.reserve(0, 0).expect("nothing"));
        assert_eq!(file.reserve(SECTOR as u64, 1 << 20).expect("an answer"), can_reserve);
        let blocks = fs::metadata(root.path(file.temporary())).expect("a file").blocks();
        assert_eq!(blocks * 512 >= 1 << 20, can_reserve);
    });
}

#[test]
fn no_more_than_64_mib_wait_in_the_nodes_memory_to_be_written() {
    let root = Root::new();
    root.write("probe", "waits");
    if dirty_pages(&root.path("probe")).is_none_or(|pages| pages == 0) {
        // An old kernel, or a file system that has no place to write to.
        return;
    }
    let file = root.store().create(&asmt_engine::sys::process::own_run().expect("an id"), "ae001000.dat").expect("a file");
    let (path, piece) = (root.path(file.temporary()), vec![7; 1 << 20]);
    // The same megabyte again and again: only the number of written bytes counts.
    for number in 1..=130 {
        file.write(0, &piece).expect("written");
        assert_eq!(dirty_pages(&path) == Some(0), number % 64 == 0, "{number} MiB");
    }
}

/// A file of a backup with this length, open, and its path.
fn file_of(root: &Root, length: usize) -> (InputFile, PathBuf) {
    root.write("ae001100.dat", noise(length));
    let path = root.path("ae001100.dat");
    // Data that is not written yet would stay in the page cache.
    File::open(&path).expect("a file").sync_all().expect("durable");
    (root.store().read("ae001100.dat", length as u64, false).expect("a file"), path)
}

#[test]
fn bytes_are_read_wherever_they_stand_and_past_the_page_cache() {
    on_each_file_system(|root| {
        let ((file, path), contents) = (file_of(root, 30_000), noise(30_000));
        assert_eq!((file.file_bytes(), file.shown()), (30_000, &*path.display().to_string()));
        let mut buffer = Buffer::default();
        for offset in [0, 1, 4095, SECTOR, 5000, 3 * SECTOR] {
            for length in [0, 1, 100, SECTOR, 5000, 12_288] {
                let found = file.read(offset as u64, length, &mut buffer).expect("read");
                assert!(*found == contents[offset..offset + length], "{offset} {length}");
                if offset % SECTOR == 0 {
                    let memory = buffer.aligned(length);
                    memory.fill(0);
                    file.read_into(offset as u64, memory).expect("read");
                    assert!(*memory == contents[offset..offset + length], "{offset} {length}");
                }
            }
        }
        let whole = buffer.aligned(30_000);
        file.read_into(0, whole).expect("read");
        assert!(*whole == contents, "up to its odd end");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_direct = has_direct_io(&path);
        // The flag that opening needed because of FIFOs means nothing for a regular file, and is
        // dropped with the first change of flags.
        assert_eq!(open_flags(&path), [flags | if is_direct { OFlags::DIRECT } else { OFlags::NONBLOCK }]);
        assert_eq!(file.is_from_disk(), is_direct);
    });
}

#[test]
fn what_was_read_does_not_stay_in_the_nodes_memory() {
    let root = Root::new();
    let (file, path) = file_of(&root, 2 * SECTOR);
    let mut buffer = Buffer::default();
    // The memory is not aligned: from here on, reads go through the page cache.
    let odd = &mut buffer.aligned(2 * SECTOR + 1)[1..];
    // The kernel drops the pages that it can at that moment: sooner or later it drops these.
    let is_let_go = (0..1000).any(|_| {
        file.read_into(0, odd).expect("read");
        assert!(*odd == noise(2 * SECTOR));
        is_cached(&path) == Some(false)
    });
    let is_in_memory = root.store().record().expect("a record").volatile.is_some();
    assert!(is_let_go || file.is_from_disk() || is_in_memory);
}

#[test]
fn a_file_that_ends_too_early_is_of_the_wrong_size_and_it_is_said_where() {
    on_each_file_system(|root| {
        let (file, _) = file_of(root, 10_000);
        assert_eq!(code_of(root.store().read("ae001100.dat", 9_999, false)), Some(Code::WrongSize));
        let mut buffer = Buffer::default();
        for (offset, length, end) in [(9000, 1001, 10_000), (8192 + 1500, 400, 10_000), (12_288, 10, 12_288), (0, 16_384, 10_000)]
        {
            let error = file.read(offset, length, &mut buffer).expect_err("it ends before");
            let Problem { code, offset: at, message, .. } = error.first();
            assert_eq!((*code, *at), (Code::WrongSize, Some(end)), "{message}");
            assert!(message.contains(&format!("ends at {end}, expected 10000 bytes")), "{message}");
        }
        let error = file.read_into(0, buffer.aligned(10_001)).expect_err("it ends before");
        assert_eq!(error.first().code, Code::WrongSize);
    });
}

/// Files of sysfs claim a page, and end after a few bytes, like a disk that fails in the middle.
#[test]
fn a_read_that_ends_before_the_file_does_is_a_failed_one() {
    let store = Store::open(Path::new("/sys/kernel")).expect("sysfs");
    let file = store.read("fscaps", SECTOR as u64, true).expect("a file");
    let error = file.read(0, SECTOR, &mut Buffer::default()).expect_err("it ends before");
    assert_eq!(error.first().code, Code::SystemCall);
    assert!(error.first().message.ends_with("fscaps at 0: input/output error"), "{error}");
}

#[test]
fn data_is_found_between_holes_and_where_a_file_system_cannot_tell_all_is_data() {
    let root = Root::new();
    let file = root.store().create(&asmt_engine::sys::process::own_run().expect("an id"), "ae001100.dat").expect("a file");
    file.write(1 << 20, &[7; SECTOR]).expect("written");
    file.finish(4 << 20, None).expect("finished");
    let file = root.store().read(file.temporary(), 4 << 20, false).expect("a file");
    let found = file.next_data(0, 4 << 20).expect("a look").expect("data");
    assert!(found.start > 0 && found.start <= 1 << 20 && found.end >= (1 << 20) + SECTOR as u64, "{found:?}");
    assert_eq!(file.next_data(found.end, 4 << 20).expect("a look"), None);
    // Files of procfs do not know holes.
    let file = Store::open(Path::new("/proc")).and_then(|store| store.read("version", 0, false)).expect("a file");
    for (from, to, expected) in [(0, 10, Some(0..10)), (3, 10, Some(3..10)), (10, 10, None), (11, 10, None)] {
        assert_eq!(file.next_data(from, to).expect("a look"), expected);
    }
}
