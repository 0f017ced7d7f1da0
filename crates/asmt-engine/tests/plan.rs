//! Plans as values: the plan, the refusals and the remarks for a given memory, directory and
//! request.
//!
//! Promise: every refusal of a plan is here with its code and its text, next to the nearest case
//! that is not refused. Must never: touch a segment, a file or the clock. Everything that a plan
//! reads is made up here.

// A table of cases is one function, whatever its length.
#![allow(clippy::too_many_lines)]

use asmt_engine::error::{Code, Kind, NoteCode, Problem, Remark};
use asmt_engine::facts::caller::Caller;
use asmt_engine::facts::directory::{
    DirectoryRecord, FileRecord, Interrupted, Listing, ManifestRecord, Owner, PathStep, StepKind, Volatile,
};
use asmt_engine::facts::memory::{Creator, Inventory, Segment};
use asmt_engine::facts::server::Host;
use asmt_engine::format::run_id::RunId;
use asmt_engine::format::{
    Chunk, Encoding, Form, Manifest, ManifestSegment, ServerFingerprint, chunk_count, file_name, manifest_name,
};
use asmt_engine::plan::{self, Plan, Request};
use asmt_shm::sysv::SegmentStat;
use asmt_shm::{BaseHeader, Header, Key, NamespaceName, STRIPE_MAGIC, STRIPE_VERSION, SegmentType, SiMetaHeader, StripeHeader};

#[path = "plan/backup.rs"]
mod backup;
#[path = "plan/restore.rs"]
mod restore;
#[path = "plan/settings.rs"]
mod settings;

/// A change to the input of a plan, and the resulting refusals or remarks, each as `code: message`.
type Case<T> = (fn(&mut T), &'static [&'static str]);
/// A segment, or a file of one: its key and its header.
type NewSegment = (u32, Header);

// The segments of `whole`.
const META: u32 = 0xa200_1000;
const SI_STAGE: u32 = 0xa200_1100;
const STRIPE: u32 = 0xad00_5000;
const STRIPE_1: u32 = 0xad00_5001;
const BASE: u32 = 0xae00_1000;
const TREEX: u32 = 0xae00_1001;
const STAGE: u32 = 0xae00_1100;
const STAGE_1: u32 = 0xae00_1101;

const STAGE_BYTES: u64 = 1 << 20;

fn name(text: &str) -> NamespaceName {
    NamespaceName::new(text).expect("a name")
}

/// A primary index: base, treex and stages.
fn index(text: &str, instance: u32, nsid: u32, stage_count: u32) -> Vec<NewSegment> {
    let first = 0xae00_0000 | instance << 20 | nsid << 12;
    let base = BaseHeader { version: 12, shutdown: 1, name: NamespaceName::new(text), stage_bytes: STAGE_BYTES, stage_count };
    let stages = (0..stage_count).map(|stage| (first + 0x100 + stage, Header::None));
    [(first, Header::Base(base)), (first + 1, Header::None)].into_iter().chain(stages).collect()
}

/// The stripes of data in memory.
fn data(text: &str, instance: u32, nsid: u32, device_count: u32) -> Vec<NewSegment> {
    let (magic, version, name) = (STRIPE_MAGIC, STRIPE_VERSION, NamespaceName::new(text));
    let header = StripeHeader { magic, version, name, device_count, random: 7, flags: 1 };
    let first = 0xad00_0000 | instance << 20 | nsid << 12;
    (0..device_count).map(|stripe| (first + stripe, Header::Stripe(header.clone()))).collect()
}

/// A namespace 'test' with segments of all types: the index under nsid 1, its stripes under nsid 5.
fn whole() -> Vec<NewSegment> {
    let mut made = index("test", 0, 1, 2);
    made.extend([(META, Header::SiMeta(SiMetaHeader { stage_count: 1 })), (SI_STAGE, Header::None)]);
    made.extend(data("test", 0, 5, 2));
    made
}

fn size_of(kind: SegmentType) -> u64 {
    match kind {
        SegmentType::PiBase => 65_536,
        SegmentType::SiMeta => 4096,
        SegmentType::PiTreex => 196_608,
        SegmentType::PiStage | SegmentType::SiStage | SegmentType::DataStage => STAGE_BYTES,
    }
}

/// A memory with these segments, all owned by root and not attached; their ids are 1, 2, … by key.
fn memory(made: Vec<NewSegment>) -> Inventory {
    let mut inventory = Inventory::default();
    for (key, header) in made {
        let address = Key(key).address().expect("a key of Aerospike's");
        let stat = SegmentStat {
            key: Key(key),
            shmid: 0,
            size_bytes: size_of(address.segment_type),
            uid: 0,
            gid: 0,
            creator_uid: 0,
            mode: 0o600,
            attached_count: 0,
            creator_pid: 1,
            changed_at_s: 0,
            is_removed: false,
        };
        let segment = Segment {
            stat,
            address,
            resident_bytes: None,
            swapped_bytes: 0,
            header,
            is_denied: false,
            is_huge: false,
            creator: Creator::Gone,
        };
        inventory.segments.insert(Key(key), segment);
    }
    for (segment, shmid) in inventory.segments.values_mut().zip(1..) {
        segment.stat.shmid = shmid;
    }
    inventory
}

/// An empty directory /b, owned by root, mode 0700.
fn empty() -> Listing {
    let owner = Some(Owner { uid: 0, mode: 0o700 });
    Listing {
        directory: Some(DirectoryRecord {
            path: "/b".to_owned(),
            owner,
            is_sticky: false,
            volatile: None,
            is_systems: false,
            above: Vec::new(),
        }),
        ..Listing::default()
    }
}

/// A directory with a file for each of these segments: base and si-meta plain, the rest compressed
/// to 10,000 bytes.
fn directory(made: Vec<NewSegment>) -> Listing {
    let mut listing = empty();
    for (key, header) in made {
        let address = Key(key).address().expect("a key of Aerospike's");
        let size_bytes = size_of(address.segment_type);
        let is_plain = !address.segment_type.may_be_compressed();
        let encoding = if is_plain { Encoding::Raw } else { Encoding::Gzip };
        listing.files.push(FileRecord {
            name: file_name(Key(key), encoding),
            key: Key(key),
            address,
            encoding,
            file_bytes: if is_plain { size_bytes } else { 10_000 },
            allocated_bytes: if is_plain { size_bytes } else { 12_288 },
            size_bytes,
            crc32: (!is_plain).then_some(0xc0ff_ee00),
            uid: 0,
            gid: 0,
            mode: 0o600,
            link_count: 1,
            modified_ms: 0,
            header,
        });
    }
    listing.files.sort_by_key(|file| file.key);
    listing
}

/// The same with a manifest, which claims all of them.
fn committed(text: &str, instance: u8, made: Vec<NewSegment>) -> Listing {
    const CHUNK_BYTES: u32 = 1 << 18;
    let mut listing = directory(made);
    let segments = listing.files.iter().map(|file| ManifestSegment {
        key: file.key,
        address: file.address,
        size_bytes: file.size_bytes,
        uid: file.uid,
        gid: file.gid,
        mode: 0o666,
        encoding: file.encoding,
        file_bytes: file.file_bytes,
        crc32: file.crc32.unwrap_or(0xc0ff_ee00),
        chunk_bytes: CHUNK_BYTES,
        chunks: vec![Chunk { offset: 0, length: 1, crc32: 0 }; chunk_count(file.size_bytes, CHUNK_BYTES) as usize],
        encoded_sums: Vec::new(),
        columns_content: None,
        zero_chunks: Vec::new(),
        data_bytes: None,
    });
    let is_index = |file: &&FileRecord| file.address.segment_type.is_index();
    let manifest = Manifest {
        tool: "asmt".to_owned(),
        created_ms: 1000,
        host: "host".to_owned(),
        boot_id: "boot".to_owned(),
        instance,
        namespace: name(text),
        nsid: listing.files.iter().find(is_index).map(|file| file.address.nsid),
        base_version: Some(12),
        noted: ServerFingerprint::default(),
        segments: segments.collect(),
    };
    let owner = Owner { uid: 0, mode: 0o600 };
    listing.manifests.push(ManifestRecord {
        name: manifest_name(instance, &name(text)),
        owner,
        link_count: 1,
        manifest: Ok(manifest),
    });
    listing
}

/// Two directories in one.
fn both(mut one: Listing, other: Listing) -> Listing {
    one.files.extend(other.files);
    one.manifests.extend(other.manifests);
    one
}

/// Root requests all of instance 0.
fn request() -> Request {
    Request {
        instance: 0,
        namespaces: None,
        form: Form::Plain,
        require_manifest: false,
        replace: None,
        allow_volatile: false,
        allow_private_ipc: false,
        caller: Caller { uid: 0, groups: vec![0], capabilities: u64::MAX, unmapped_uid: None },
        host: Host { name: "host".to_owned(), ..Host::default() },
        page_bytes: 4096,
    }
}

fn named(names: &[&str]) -> Request {
    Request { namespaces: Some(names.iter().map(|text| name(text)).collect()), ..request() }
}

/// Uid 7, who is only in group 7 and has no capabilities.
fn user() -> Request {
    Request { caller: Caller { uid: 7, groups: vec![7], capabilities: 0, unmapped_uid: None }, ..request() }
}

fn segment(memory: &mut Inventory, key: u32) -> &mut Segment {
    memory.segments.get_mut(&Key(key)).expect("a segment")
}

fn file(listing: &mut Listing, key: u32) -> &mut FileRecord {
    listing.files.iter_mut().find(|file| file.key == Key(key)).expect("a file")
}

fn base(header: &mut Header) -> &mut BaseHeader {
    if let Header::Base(base) = header { base } else { panic!("not of a base: {header:?}") }
}

fn meta(header: &mut Header) -> &mut SiMetaHeader {
    if let Header::SiMeta(meta) = header { meta } else { panic!("not of a meta: {header:?}") }
}

fn stripe(header: &mut Header) -> &mut StripeHeader {
    if let Header::Stripe(stripe) = header { stripe } else { panic!("not of a stripe: {header:?}") }
}

/// A file that exists and cannot be read.
fn unreadable(file: &str) -> (String, Problem) {
    (file.to_owned(), Problem::new(Code::UnsafeFile, format!("{file} is a directory"), "remove it").in_file(file))
}

fn live_run() -> RunId {
    RunId::parse(&format!("{}-1-42-3", "0".repeat(32))).expect("a run's id")
}

/// The refusals, each as `code: message`. Every refusal has a next step.
fn refused<T>(plan: &Plan<T>) -> Vec<String> {
    assert!(plan.refusals.iter().all(|problem| !problem.hint.is_empty()), "{:?}", plan.refusals);
    plan.refusals.iter().map(|problem| format!("{}: {}", problem.code.as_str(), problem.message)).collect()
}

fn remarked<T>(plan: &Plan<T>) -> Vec<String> {
    plan.remarks.iter().map(|remark| format!("{}: {}", remark.code.as_str(), remark.message)).collect()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_plan_with_a_refusal_or_of_nothing_cannot_be_executed() {
    let problem = |code| Problem::new(code, "found", "do");
    let plan = |namespaces, refusals| Plan::<u8> { namespaces, refusals, remarks: Vec::new() };
    let codes = |plan: &Plan<u8>| plan.check().map_err(|error| error.problems().iter().map(|p| p.code).collect::<Vec<_>>());
    assert_eq!(codes(&plan(vec![1], vec![])), Ok(()));
    assert_eq!(codes(&plan(vec![], vec![])), Err(vec![Code::Bug]));
    assert_eq!(codes(&plan(vec![], vec![problem(Code::NothingFound)])), Err(vec![Code::NothingFound]));
    let two = plan(vec![1], vec![problem(Code::SegmentAttached), problem(Code::WrongSize)]);
    assert_eq!(codes(&two), Err(vec![Code::WrongSize, Code::SegmentAttached]), "the weightiest first");
    assert_eq!(two.refusals[1].kind, Kind::Damaged);
}

#[test]
fn what_is_damaged_is_found_and_what_is_missing_is_not() {
    let with = |code| Plan::<u8> {
        namespaces: vec![],
        refusals: vec![Problem::new(Code::WritableByOthers, "", ""), Problem::new(code, "", "")],
        remarks: vec![],
    };
    assert!(Plan::<u8> { namespaces: vec![1], refusals: vec![], remarks: vec![] }.is_found());
    assert!(with(Code::ManifestDamaged).is_found());
    assert!(!with(Code::NothingFound).is_found() && !with(Code::NamespaceMissing).is_found());
}

#[test]
fn a_refusal_that_two_plans_share_is_said_once() {
    let plan = |namespace, own| Plan {
        namespaces: vec![namespace],
        refusals: vec![Problem::new(Code::AnotherAsmt, "of the directory", ""), Problem::new(Code::WrongSize, own, "")],
        remarks: vec![Remark::new(NoteCode::Counting, own)],
    };
    let mut joined = plan(1, "a");
    joined.extend(plan(2, "b"));
    assert_eq!(joined.namespaces, [1, 2]);
    assert_eq!(
        joined.refusals.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(),
        ["of the directory", "a", "b"]
    );
    assert_eq!(joined.remarks.iter().map(|remark| remark.message.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

/// Gives a segment to a user, who may have got it from another one.
fn give(memory: &mut Inventory, keys: &[u32], maker: u32, uid: u32) {
    for key in keys {
        let stat = &mut segment(memory, *key).stat;
        (stat.creator_uid, stat.uid, stat.gid) = (maker, uid, uid);
    }
}

#[test]
fn the_directories_above_are_judged_as_sshd_judges_them() {
    let directory = |path: &str, uid, mode| PathStep { path: path.to_owned(), uid, mode, kind: StepKind::Directory };
    let link = |uid, is_in_shared| PathStep { path: "/x/l".to_owned(), uid, mode: 0o777, kind: StepKind::Link { is_in_shared } };
    let text = |rest: &str| vec![format!("path-writable-by-others: /b is reached through {rest}")];
    let foreign = "directory /x, which is owned by uid 8, who can replace its contents; expected root or uid 7";
    let open = |mode: &str| {
        text(&format!(
            "directory /x, which has mode {mode}: users other than its owner can replace its contents; expected 0755, or the \
             sticky bit"
        ))
    };
    let cases = [
        (directory("/x", 7, 0o755), vec![]),
        (directory("/tmp", 0, 0o1777), vec![]),
        (directory("/x", 7, 0o1777), vec![]),
        (directory("/x", 8, 0o700), text(foreign)),
        (directory("/x", 8, 0o1777), text(foreign)),
        (directory("/x", 0, 0o775), open("0775")),
        (directory("/x", 7, 0o757), open("0757")),
        (link(8, false), vec![]),
        (link(0, true), vec![]),
        (link(7, true), vec![]),
        (link(8, true), text("the link /x/l, which is owned by uid 8, who can replace it; expected root or uid 7")),
        // Root of the machine, seen from a user namespace.
        (directory("/x", 9, 0o755), vec![]),
    ];
    let caller = Caller { capabilities: 1, unmapped_uid: Some(9), ..user().caller };
    let request = Request { caller, ..request() };
    for (step, expected) in cases {
        let with = |mut listing: Listing| {
            listing.directory.as_mut().expect("a directory").above = vec![step.clone()];
            listing
        };
        for refusals in [
            plan::backup(&memory(whole()), &with(empty()), &request).refusals,
            plan::verify(&with(committed("test", 0, whole())), &request).refusals,
        ] {
            let hints: String = refusals.iter().map(|problem| &*problem.hint).collect();
            assert!(!hints.contains("chmod") && !hints.contains("chown"), "{hints}");
            let plan = Plan::<u8> { namespaces: vec![], refusals, remarks: vec![] };
            assert_eq!(refused(&plan), expected, "{step:?}");
        }
    }
    assert!(Code::PathWritableByOthers.is_about_restoring(), "verify goes on to read");
}

#[test]
fn a_hint_changes_no_directory_that_may_hold_more_than_the_backup() {
    type Change = fn(&mut Listing);
    let hints = |listing: &Listing| {
        let verified = plan::verify(listing, &request()).refusals;
        verified.into_iter().map(|problem| problem.hint).collect::<Vec<_>>()
    };
    let open = |mode: u32, change: Change| {
        let mut listing = committed("test", 0, whole());
        listing.directory.as_mut().expect("a directory").owner = Some(Owner { uid: 0, mode });
        file(&mut listing, STAGE).mode = 0o666;
        change(&mut listing);
        hints(&listing)
    };
    let changes: [(Change, bool); 3] = [
        (|_| {}, true),
        (|listing| listing.has_other_names = true, false),
        (|listing| listing.directory.as_mut().expect("a directory").is_sticky = true, false),
    ];
    for (change, is_changed) in changes {
        for (mode, command) in [(0o775, "chmod go-w /b"), (0o755, "chmod 0700 /b")] {
            let hints = open(mode, change);
            assert_eq!(hints[0].contains(command), is_changed, "{hints:?}");
            assert!(is_changed || hints.iter().all(|hint| !hint.contains("chmod") && hint.contains("mkdir -m 0700 NEW")));
        }
    }
    // A backup can be put elsewhere.
    let mut listing = empty();
    listing.directory.as_mut().expect("a directory").owner = Some(Owner { uid: 8, mode: 0o777 });
    for problem in plan::backup(&memory(whole()), &listing, &request()).refusals {
        assert!(problem.hint.starts_with("choose another directory"), "{}", problem.hint);
    }
}

#[test]
fn nobody_but_root_and_the_caller_may_write_in_the_directory() {
    let mode =
        |mode| format!("writable-by-others: /b has mode {mode}: users other than its owner may write to it; expected 0700");
    let foreign = "writable-by-others: /b is owned by uid 8, who could replace its contents; expected root or uid 7".to_owned();
    let cases = [
        (Some(Owner { uid: 0, mode: 0o700 }), vec![]),
        (Some(Owner { uid: 7, mode: 0o755 }), vec![]),
        (Some(Owner { uid: 8, mode: 0o700 }), vec![foreign.clone()]),
        (Some(Owner { uid: 7, mode: 0o720 }), vec![mode("0720")]),
        (Some(Owner { uid: 0, mode: 0o702 }), vec![mode("0702")]),
        (Some(Owner { uid: 8, mode: 0o777 }), vec![foreign, mode("0777")]),
        // A backup would make it.
        (None, vec![]),
    ];
    // The caller may give files to root, so that there is no other refusal.
    let request = Request { caller: Caller { capabilities: 1, ..user().caller }, ..request() };
    for (owner, expected) in cases {
        let own = |mut listing: Listing| {
            listing.directory.as_mut().expect("a directory").owner = owner;
            listing
        };
        assert_eq!(refused(&plan::backup(&memory(whole()), &own(empty()), &request)), expected, "{owner:?}");
        assert_eq!(refused(&plan::verify(&own(committed("test", 0, whole())), &request)), expected, "{owner:?}");
        assert_eq!(refused(&plan::verify(&own(directory(whole())), &request)), expected, "{owner:?}");
    }
    assert_eq!(refused(&plan::verify(&Listing { directory: None, ..directory(whole()) }, &request)), [] as [&str; 0]);
}
