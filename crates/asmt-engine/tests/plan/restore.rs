//! Plans of restores and of verifications.
//!
//! Promise: the conditions on a backup, and on memory, that must hold before a segment is made.
//! Must never: touch a segment, a file or the clock.

use super::*;
use asmt_engine::facts::memory::{Attacher, CgroupLimit, Memory};
use asmt_engine::format::ManifestError;
use asmt_engine::plan::{Contents, NamespaceRestore, Source, UndecidedRoom};
use asmt_shm::MAX_SEGMENT_BYTES;
use asmt_shm::sysv::Limits;

const NONE: [&str; 0] = [];

/// The planned namespaces, each as `instance name: files`, with the first key and the number of the
/// files.
fn planned(plan: &Plan<NamespaceRestore>) -> Vec<String> {
    let shown = |namespace: &NamespaceRestore| {
        let first = namespace.sources.first().map_or("-", |source| &source.file);
        format!("{} {}: {} from {first}", namespace.instance, namespace.name, namespace.sources.len())
    };
    plan.namespaces.iter().map(shown).collect()
}

fn source(plan: &Plan<NamespaceRestore>, key: u32) -> &Source {
    let mut sources = plan.namespaces.iter().flat_map(|namespace| &namespace.sources);
    sources.find(|source| source.key == Key(key)).expect("a source")
}

fn manifest(listing: &mut Listing) -> &mut Manifest {
    listing.manifests[0].manifest.as_mut().expect("a manifest")
}

fn claim(listing: &mut Listing, key: u32) -> &mut ManifestSegment {
    manifest(listing).segments.iter_mut().find(|segment| segment.key == Key(key)).expect("a segment")
}

fn remove(listing: &mut Listing, key: u32) {
    listing.files.retain(|file| file.key != Key(key));
}

fn instance(instance: u8) -> Request {
    Request { instance, ..request() }
}

#[test]
fn a_manifest_says_what_each_file_is_to_become() {
    let mut listing = committed("test", 0, whole());
    for key in [BASE, STAGE] {
        (claim(&mut listing, key).uid, claim(&mut listing, key).gid) = (7, 8);
    }
    let plan = plan::verify(&listing, &request());
    assert_eq!((refused(&plan), remarked(&plan)), (vec![], vec![]));
    assert_eq!(planned(&plan), ["0 test: 8 from a2001000.dat"]);
    let namespace = &plan.namespaces[0];
    assert_eq!((namespace.nsid, namespace.base_version, namespace.created_ms), (Some(1), Some(12), Some(1000)));
    let expected = Source {
        key: Key(STAGE),
        address: Key(STAGE).address().expect("an address"),
        size_bytes: STAGE_BYTES,
        uid: 7,
        gid: 8,
        mode: 0o666,
        file: "ae001100.dat.gz".to_owned(),
        file_bytes: 10_000,
        encoding: Encoding::Gzip,
        contents: Contents::Chunks(claim(&mut listing, STAGE).clone()),
        allocated_bytes: 12_288,
        least_memory_bytes: 10_000,
        most_memory_bytes: STAGE_BYTES,
    };
    assert_eq!(*source(&plan, STAGE), expected);
    let expected = Source {
        key: Key(BASE),
        address: Key(BASE).address().expect("an address"),
        size_bytes: 65_536,
        file: "ae001000.dat".to_owned(),
        file_bytes: 65_536,
        encoding: Encoding::Raw,
        contents: Contents::Chunks(claim(&mut listing, BASE).clone()),
        allocated_bytes: 65_536,
        least_memory_bytes: 65_536,
        most_memory_bytes: 65_536,
        ..expected
    };
    assert_eq!(*source(&plan, BASE), expected);
}

#[test]
fn without_a_manifest_files_speak_for_themselves() {
    let mut listing = directory(whole());
    for key in [BASE, STAGE] {
        (file(&mut listing, key).uid, file(&mut listing, key).gid) = (7, 8);
    }
    let plan = plan::verify(&listing, &request());
    assert_eq!(refused(&plan), NONE);
    let text = "no-manifest: namespace 'test': made by ASMT, without a manifest: 2 of 8 files are uncompressed and cannot be \
        checked for damage";
    assert_eq!(remarked(&plan), [text]);
    assert_eq!(planned(&plan), ["0 test: 8 from a2001000.dat"]);
    let namespace = &plan.namespaces[0];
    assert_eq!((namespace.nsid, namespace.base_version, namespace.created_ms), (Some(1), Some(12), None));
    let expected = Source {
        key: Key(STAGE),
        address: Key(STAGE).address().expect("an address"),
        size_bytes: STAGE_BYTES,
        uid: 7,
        gid: 8,
        mode: 0o600,
        file: "ae001100.dat.gz".to_owned(),
        file_bytes: 10_000,
        encoding: Encoding::Gzip,
        contents: Contents::Stream { crc32: 0xc0ff_ee00 },
        allocated_bytes: 12_288,
        least_memory_bytes: 12_288,
        most_memory_bytes: STAGE_BYTES,
    };
    assert_eq!(*source(&plan, STAGE), expected);
    let base = source(&plan, BASE);
    assert_eq!((&base.contents, base.encoding, base.size_bytes), (&Contents::Plain, Encoding::Raw, 65_536));
    assert_eq!((base.least_memory_bytes, base.most_memory_bytes), (0, 65_536), "it may hold nothing but zeros");
    // Another namespace's manifest does not belong to this one.
    let beside = plan::verify(&both(listing.clone(), committed("other", 0, index("other", 0, 2, 1))), &request());
    assert_eq!((remarked(&beside), refused(&beside)), (owned(&[text]), vec![]));
    let required = plan::verify(&listing, &Request { require_manifest: true, ..request() });
    assert_eq!(
        refused(&required),
        ["manifest-required: namespace 'test': there is no manifest, but --require-manifest was given"]
    );
    let required = plan::verify(&committed("test", 0, whole()), &Request { require_manifest: true, ..request() });
    assert_eq!(refused(&required), NONE);
}

#[test]
fn the_memory_needed_at_least_leaves_out_what_is_known_to_be_holes_or_zeros() {
    let plan = |change: fn(&mut Listing)| {
        let mut listing = committed("test", 0, whole());
        change(&mut listing);
        plan::verify(&listing, &request())
    };
    // Three of four chunks of 256 KiB are zeros: the tighter bound is either that or the size of
    // the compressed file.
    let zeros = plan(|listing| claim(listing, STAGE).zero_chunks = vec![(0, 1), (2, 2)]);
    assert_eq!(source(&zeros, STAGE).least_memory_bytes, 10_000);
    let zeros = plan(|listing| {
        claim(listing, STAGE).zero_chunks = vec![(0, 1), (2, 2)];
        claim(listing, STAGE).file_bytes = 300_000;
        file(listing, STAGE).file_bytes = 300_000;
    });
    assert_eq!(source(&zeros, STAGE).least_memory_bytes, STAGE_BYTES - 3 * (1 << 18));
    let zeros = plan(|listing| {
        claim(listing, BASE).chunk_bytes = 4096;
        claim(listing, BASE).zero_chunks = vec![(1, 15)];
    });
    assert_eq!(source(&zeros, BASE).least_memory_bytes, 4096);
    // The holes of a plain file count, however small they are.
    let holes = plan(|listing| file(listing, BASE).allocated_bytes = 512);
    assert_eq!(source(&holes, BASE).least_memory_bytes, 512);
}

#[test]
fn where_data_was_noted_that_is_the_memory_needed_whatever_the_file_has_become() {
    let needed = |data_bytes: u64, allocated_bytes: u64, key: u32| {
        let mut listing = committed("test", 0, whole());
        claim(&mut listing, key).data_bytes = Some(data_bytes);
        file(&mut listing, key).allocated_bytes = allocated_bytes;
        let plan = plan::verify(&listing, &request());
        let source = source(&plan, key);
        assert_eq!(source.least_memory_bytes, source.most_memory_bytes);
        source.least_memory_bytes
    };
    assert_eq!(needed(500_000, 12_288, STAGE), 500_000, "compressed");
    // With its holes, with a few blocks more, and with none: 65,536 bytes and a sixteenth more are
    // tolerated.
    let base = |data_bytes, allocated_bytes| needed(data_bytes, allocated_bytes, BASE);
    assert_eq!((base(4096, 4096), base(4096, 8192), base(0, 65_536)), (4096, 8192, 65_536));
    let stage = |data_bytes, allocated_bytes| {
        let mut listing = committed("test", 0, whole());
        let claim = claim(&mut listing, STAGE);
        (claim.encoding, claim.file_bytes, claim.data_bytes) = (Encoding::Raw, STAGE_BYTES, Some(data_bytes));
        let file = file(&mut listing, STAGE);
        (file.encoding, file.name, file.crc32) = (Encoding::Raw, "ae001100.dat".to_owned(), None);
        (file.file_bytes, file.allocated_bytes) = (STAGE_BYTES, allocated_bytes);
        source(&plan::verify(&listing, &request()), STAGE).least_memory_bytes
    };
    assert_eq!((stage(40_960, 109_056), stage(40_960, 109_568), stage(40_960, STAGE_BYTES)), (109_056, 40_960, 40_960));
}

#[test]
fn there_are_no_more_threads_than_memory_has_buffers_for() {
    let plan = plan::verify(&committed("test", 0, whole()), &request());
    let filled: u64 = plan.namespaces[0].sources.iter().map(|source| source.least_memory_bytes).sum();
    let threads = |left: Option<u64>| {
        let memory = Memory { available_bytes: left.map(|left| filled + left), ..Memory::default() };
        plan::threads_within(&Inventory { memory, ..Inventory::default() }, &plan.namespaces, 12)
    };
    // Two buffers of a chunk of 256 KiB each.
    assert_eq!([None, Some(12 << 19), Some((12 << 19) - 1), Some(1 << 19), Some(0)].map(threads), [12, 12, 11, 1, 1]);
}

#[test]
fn where_memory_decides_by_what_files_hold_they_are_to_be_read() {
    let listing = directory(whole());
    let left = |available_bytes: u64, cgroup_bytes: u64| {
        let limit = |available_bytes| CgroupLimit { file: "/x/memory.max".into(), limit_bytes: u64::MAX, available_bytes };
        let memory = Memory { available_bytes: Some(available_bytes), cgroup: Some(limit(cgroup_bytes)), ..Memory::default() };
        Inventory { memory, ..Inventory::default() }
    };
    let plan = plan::restore(&listing, &Inventory::default(), &request());
    let (least, most) = (6 * 12_288, plan.namespaces[0].sources.iter().map(|source| source.size_bytes).sum::<u64>());
    let keys = |room: Option<UndecidedRoom>| room.map(|room| (room.sources.len(), room.most_bytes));
    assert_eq!(keys(plan::undecided_room(&Inventory::default(), &plan)), None, "no bound is known");
    for (inventory, expected) in [
        (left(most, most), None),
        (left(most - 1, u64::MAX), Some((8, most - 1))),
        (left(u64::MAX, most - 1), Some((8, most - 1))),
    ] {
        let plan = plan::restore(&listing, &inventory, &request());
        assert_eq!(refused(&plan), NONE);
        assert_eq!(keys(plan::undecided_room(&inventory, &plan)), expected);
    }
    // A file is not read if the result is certain: the restore does not fit, or is refused for
    // another reason.
    let inventory = left(least - 1, u64::MAX);
    let refusal = plan::restore(&listing, &inventory, &request());
    assert_eq!(
        refused(&refusal),
        [format!("not-enough-memory: {} bytes of memory are available, expected at least {least}", least - 1)]
    );
    assert_eq!(plan::undecided_room(&inventory, &refusal), None);
    // The bytes that were read decide, to the byte.
    let inventory = left(1_000_000, u64::MAX);
    for (filled, expected) in [(1_000_000, None), (1_000_001, Some(1_000_001))] {
        let mut plan = plan.clone();
        let counted = plan.namespaces[0].sources.iter().map(|source| (source.key, 0)).chain([(Key(STAGE), filled)]).collect();
        plan::decide_room(&inventory, &mut plan, &counted);
        let text = |needed| format!("not-enough-memory: 1000000 bytes of memory are available, expected at least {needed}");
        assert_eq!(refused(&plan), expected.map(text).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn files_that_are_not_those_of_their_manifest_are_refused_and_not_read() {
    // The files that are still to be read, and the refusals.
    type Damage = (fn(&mut Listing), usize, &'static [&'static str]);
    let cases: &[Damage] = &[
        (|_| {}, 8, &[]),
        (|listing| remove(listing, STAGE), 7, &["backup-incomplete: namespace 'test': ae001100.dat.gz is missing"]),
        // An unreadable file is not missing.
        (
            |listing| {
                remove(listing, STAGE);
                listing.problems.push(unreadable("ae001100.dat.gz"));
            },
            7,
            &["unsafe-file: ae001100.dat.gz is a directory"],
        ),
        (
            |listing| {
                file(listing, STAGE).encoding = Encoding::Raw;
                "ae001100.dat".clone_into(&mut file(listing, STAGE).name);
            },
            7,
            &["extra-file: namespace 'test': found ae001100.dat, expected ae001100.dat.gz"],
        ),
        (
            |listing| file(listing, STAGE).file_bytes = 9999,
            7,
            &["wrong-size: namespace 'test': ae001100.dat.gz has 9999 bytes, expected 10000"],
        ),
        // The size of a plain file is that of its segment, so it is reported once.
        (
            |listing| (file(listing, BASE).file_bytes, file(listing, BASE).size_bytes) = (65_537, 65_537),
            7,
            &["wrong-size: namespace 'test': ae001000.dat has 65537 bytes, expected 65536"],
        ),
        (
            |listing| file(listing, STAGE).size_bytes = 9,
            7,
            &["content-damaged: namespace 'test': the header of ae001100.dat.gz says 9 bytes and CRC-32 c0ffee00, expected \
               1048576 and c0ffee00"],
        ),
        (
            |listing| file(listing, STAGE).crc32 = Some(9),
            7,
            &["content-damaged: namespace 'test': the header of ae001100.dat.gz says 1048576 bytes and CRC-32 00000009, \
               expected 1048576 and c0ffee00"],
        ),
        (
            |listing| base(&mut file(listing, BASE).header).name = Some(name("other")),
            7,
            &["content-damaged: namespace 'test': ae001000.dat belongs to namespace 'other', expected 'test'"],
        ),
        (
            |listing| file(listing, STRIPE).header = Header::Unreadable,
            7,
            &["content-damaged: namespace 'test': ad005000.dat.gz belongs to namespace '?', expected 'test'"],
        ),
        // Everything that is wrong with a file is reported, for all files.
        (
            |listing| {
                (file(listing, STAGE).file_bytes, file(listing, STAGE).crc32) = (10_001, Some(0));
                remove(listing, STAGE_1);
            },
            6,
            &[
                "wrong-size: namespace 'test': ae001100.dat.gz has 10001 bytes, expected 10000",
                "content-damaged: namespace 'test': the header of ae001100.dat.gz says 1048576 bytes and CRC-32 00000000, \
                 expected 1048576 and c0ffee00",
                "backup-incomplete: namespace 'test': ae001101.dat.gz is missing",
            ],
        ),
        // The manifest itself may lack a segment, but that is reported only if no file of it is
        // missing.
        (
            |listing| base(&mut file(listing, BASE).header).stage_count = 3,
            8,
            &["backup-incomplete: namespace 'test': 1 of 3 primary stages counted by base missing, the first is stage 2 \
               (low 102)"],
        ),
        (
            |listing| {
                base(&mut file(listing, BASE).header).stage_count = 3;
                remove(listing, STAGE_1);
            },
            7,
            &["backup-incomplete: namespace 'test': ae001101.dat.gz is missing"],
        ),
        (
            |listing| base(&mut file(listing, BASE).header).version = 13,
            8,
            &["backup-unknown-version: namespace 'test': base has layout version 13, expected 10 to 12"],
        ),
        (
            |listing| base(&mut file(listing, BASE).header).shutdown = 0,
            8,
            &["backup-not-clean: namespace 'test': base has shutdown status 0, expected 1 (clean)"],
        ),
    ];
    for (change, count, expected) in cases {
        let mut listing = committed("test", 0, whole());
        change(&mut listing);
        let plan = plan::verify(&listing, &request());
        assert_eq!((plan.namespaces[0].sources.len(), refused(&plan)), (*count, owned(expected)));
    }
}

#[test]
fn damage_is_said_with_its_place_and_the_next_step() {
    let first = |change: fn(&mut Listing)| {
        let mut listing = committed("test", 0, whole());
        change(&mut listing);
        plan::verify(&listing, &request()).refusals.remove(0)
    };
    let place = |problem: &Problem| (problem.file.clone(), problem.segment.clone(), problem.offset);
    let stage = (Some("ae001100.dat.gz".to_owned()), Some("ae001100".to_owned()));
    let damaged = "the backup is damaged: while the segments that were backed up are still in memory (asmt list), make a \
         new backup with --replace -c; else restore another copy of this same backup, if there is one (an older backup is stale); \
        otherwise let the namespace cold-start, which empties a namespace that is in memory only";
    for (bytes, offset) in [(9999, 9999), (10_001, 10_000)] {
        let mut listing = committed("test", 0, whole());
        file(&mut listing, STAGE).file_bytes = bytes;
        let problem = plan::verify(&listing, &request()).refusals.remove(0);
        assert_eq!(place(&problem), (stage.0.clone(), stage.1.clone(), Some(offset)));
        assert_eq!(problem.hint, damaged);
    }
    let problem = first(|listing| file(listing, STAGE).crc32 = Some(9));
    assert_eq!(place(&problem), (stage.0.clone(), stage.1.clone(), Some(0)));
    let problem = first(|listing| remove(listing, STAGE));
    assert_eq!((place(&problem), problem.hint.as_str()), ((stage.0, stage.1, None), damaged));
    let problem = first(|listing| remove(listing, BASE));
    assert_eq!(
        problem.hint,
        "without base, either the backup was never committed or base was removed: it cannot be used in this state; \
         while the segments that were backed up are still in memory (asmt list), make a new backup with --replace -c; else \
         restore another copy of this same backup, if there is one (an older backup is stale); otherwise let the namespace \
         cold-start, which empties a namespace that is in memory only"
    );
    let problem = first(|listing| file(listing, STAGE).encoding = Encoding::Raw);
    assert_eq!(
        problem.hint,
        "the file is not the one in the manifest: if the expected file is elsewhere, put it back, and move the other one out of \
         the directory; otherwise while the segments that were backed up are still in memory (asmt list), make a \
         new backup with --replace -c; else restore another copy of this same backup, if there is one (an older backup is stale); \
         otherwise let the namespace cold-start, which empties a namespace that is in memory only"
    );
}

#[test]
fn without_a_manifest_what_is_incomplete_or_cannot_be_is_refused() {
    let cases: &[Case<Listing>] = &[
        (|_| {}, &[]),
        (
            |listing| remove(listing, STAGE),
            &["backup-incomplete: namespace 'test': 1 of 2 primary stages counted by base missing, the first is stage 0 \
               (low 100)"],
        ),
        // An unreadable file may be the missing one, if it belongs to this instance.
        (
            |listing| {
                remove(listing, STAGE);
                listing.problems.push(unreadable("ae001100.dat.gz"));
            },
            &["unsafe-file: ae001100.dat.gz is a directory"],
        ),
        (
            |listing| {
                remove(listing, STAGE);
                listing.problems.push(unreadable("ae101100.dat.gz"));
            },
            &["backup-incomplete: namespace 'test': 1 of 2 primary stages counted by base missing, the first is stage 0 \
               (low 100)"],
        ),
        (|listing| remove(listing, BASE), &["backup-incomplete: nsid 1 (no name): base (pi-base, low 000) is missing"]),
        (
            |listing| base(&mut file(listing, BASE).header).name = None,
            &["content-damaged: nsid 1 (no name): ae001000.dat has no namespace name"],
        ),
        (
            |listing| stripe(&mut file(listing, STRIPE_1).header).name = None,
            &[
                "backup-set-torn: namespace 'test': data stripe ad005000 counts 2 data stripes, found 1",
                "content-damaged: stripe ad005001 (no name): ad005001.dat.gz has no namespace name",
            ],
        ),
        // Sizes that a segment cannot have, or that a file cannot hold.
        (|listing| file(listing, BASE).size_bytes = 2156, &[]),
        (
            |listing| file(listing, BASE).size_bytes = 2155,
            &["wrong-size: namespace 'test': ae001000.dat (65536 bytes) says its segment has 2155 bytes, expected 2156 to \
               17592186044416"],
        ),
        (|listing| file(listing, BASE).size_bytes = MAX_SEGMENT_BYTES, &[]),
        (
            |listing| file(listing, BASE).size_bytes = MAX_SEGMENT_BYTES + 1,
            &["wrong-size: namespace 'test': ae001000.dat (65536 bytes) says its segment has 17592186044417 bytes, expected \
               2156 to 17592186044416"],
        ),
        (|listing| file(listing, STAGE).size_bytes = 10_320_000, &[]),
        (
            |listing| file(listing, STAGE).size_bytes = 10_320_001,
            &["wrong-size: namespace 'test': ae001100.dat.gz (10000 bytes) says its segment has 10320001 bytes, expected 1 \
               to 10320000"],
        ),
        (
            |listing| (file(listing, STAGE).file_bytes, file(listing, STAGE).size_bytes) = (u64::MAX, MAX_SEGMENT_BYTES + 1),
            &["wrong-size: namespace 'test': ae001100.dat.gz (18446744073709551615 bytes) says its segment has \
               17592186044417 bytes, expected 1 to 17592186044416"],
        ),
        // Base.
        (
            |listing| {
                base(&mut file(listing, BASE).header).version = 9;
                base(&mut file(listing, BASE).header).shutdown = 0;
            },
            &[
                "backup-unknown-version: namespace 'test': base has layout version 9, expected 10 to 12",
                "backup-not-clean: namespace 'test': base has shutdown status 0, expected 1 (clean)",
            ],
        ),
    ];
    for (change, expected) in cases {
        let mut listing = directory(whole());
        change(&mut listing);
        let plan = plan::verify(&listing, &request());
        assert_eq!(refused(&plan), *expected);
        // A file with an impossible header is not read.
        let is_refused = |file: &str| plan.refusals.iter().any(|problem| problem.file.as_deref() == Some(file));
        assert!(plan.namespaces.iter().flat_map(|namespace| &namespace.sources).all(|source| !is_refused(&source.file)));
    }
}

#[test]
fn without_a_manifest_a_stage_of_another_size_than_base_says_is_remarked() {
    let cases: &[Case<Listing>] = &[
        (|_| {}, &[]),
        (
            |listing| file(listing, STAGE_1).size_bytes = 4096,
            &["stage-size: namespace 'test': the stage in ae001101.dat.gz has 4096 bytes, but base says 1048576: is it \
                truncated?"],
        ),
        // Secondary stages have another size, and if base has no size there is nothing to compare.
        (|listing| file(listing, SI_STAGE).size_bytes = 4096, &[]),
        (|listing| base(&mut file(listing, BASE).header).stage_bytes = 0, &[]),
    ];
    for (change, expected) in cases {
        let mut listing = directory(whole());
        change(&mut listing);
        let mut remarks = remarked(&plan::verify(&listing, &request()));
        remarks.retain(|remark| !remark.starts_with("no-manifest"));
        assert_eq!(remarks, *expected);
    }
}

#[test]
fn files_that_others_may_have_written_are_refused_where_others_may_enter() {
    fn mode(listing: &mut Listing, mode: u32) {
        listing.directory.as_mut().expect("a directory").owner = Some(Owner { uid: 0, mode });
    }
    fn open(first: &str, count: u32) -> Vec<String> {
        vec![format!(
            "writable-by-others: namespace 'test': others may have written to {count} of its files, the first is {first}, \
             because they may enter the directory"
        )]
    }
    type Access = (fn(&mut Listing), Vec<String>);
    // In any case, with a manifest or without one. Uid 7 asks.
    let of_any: &[Access] = &[
        (|listing| mode(listing, 0o711), vec![]),
        (
            |listing| {
                mode(listing, 0o711);
                file(listing, STAGE).mode = 0o644;
                file(listing, STAGE).uid = 7;
            },
            vec![],
        ),
        (
            |listing| {
                mode(listing, 0o711);
                file(listing, STAGE).mode = 0o602;
                file(listing, STRIPE).mode = 0o666;
            },
            open("ad005000.dat.gz (uid 0, mode 0666)", 2),
        ),
        (
            |listing| {
                mode(listing, 0o710);
                file(listing, STAGE).mode = 0o620;
            },
            open("ae001100.dat.gz (uid 0, mode 0620)", 1),
        ),
        // Nobody else may enter: the mode is that of the segment. To list names does not mean to
        // enter.
        (|listing| file(listing, STAGE).mode = 0o666, vec![]),
        (
            |listing| {
                mode(listing, 0o744);
                file(listing, STAGE).mode = 0o666;
            },
            vec![],
        ),
        (
            |listing| {
                listing.directory = None;
                file(listing, STAGE).mode = 0o666;
            },
            vec![],
        ),
    ];
    for (change, expected) in of_any {
        for mut listing in [committed("test", 0, whole()), directory(whole())] {
            change(&mut listing);
            let plan = plan::verify(&listing, &user());
            assert_eq!(refused(&plan), *expected);
            let is_hinted =
                |problem: &Problem| problem.hint == "if you are sure that nobody has: chmod 0700 /b" && problem.file.is_some();
            assert!(plan.refusals.iter().all(is_hinted));
        }
    }
    // Root, the caller and the segment's owner may have written it. Without a manifest, the
    // segment's owner is that of the file.
    let mut plain = directory(whole());
    mode(&mut plain, 0o711);
    file(&mut plain, STAGE).uid = 8;
    assert_eq!(refused(&plan::verify(&plain, &user())), NONE);
    let of_manifest: &[Access] = &[
        (|listing| file(listing, STAGE).uid = 8, open("ae001100.dat.gz (uid 8, mode 0600)", 1)),
        (
            |listing| {
                file(listing, STAGE).uid = 8;
                claim(listing, STAGE).uid = 8;
            },
            vec![],
        ),
        (
            |listing| listing.manifests[0].owner = Owner { uid: 0, mode: 0o666 },
            open("asmt-manifest-0-test.json (uid 0, mode 0666)", 1),
        ),
        (
            |listing| listing.manifests[0].owner = Owner { uid: 8, mode: 0o600 },
            open("asmt-manifest-0-test.json (uid 8, mode 0600)", 1),
        ),
        (|listing| listing.manifests[0].owner = Owner { uid: 7, mode: 0o600 }, vec![]),
        // Files of another namespace are not reported if it was not requested.
        (|listing| listing.manifests[1].owner = Owner { uid: 8, mode: 0o666 }, vec![]),
    ];
    for (change, expected) in of_manifest {
        let mut listing = both(committed("test", 0, whole()), committed("other", 0, index("other", 0, 2, 1)));
        mode(&mut listing, 0o711);
        change(&mut listing);
        let request = Request { namespaces: Some(vec![name("test")]), ..user() };
        assert_eq!(refused(&plan::verify(&listing, &request)), *expected);
    }
}

#[test]
fn what_was_asked_for_is_chosen_from_a_directory_of_several_backups() {
    let listing = || {
        let of_instance_0 = both(committed("test", 0, whole()), directory(index("other", 0, 2, 1)));
        both(of_instance_0, both(committed("test", 3, index("test", 3, 1, 1)), directory(data("bar", 3, 4, 2))))
    };
    let (test, other) = ("0 test: 8 from a2001000.dat", "0 other: 3 from ae002000.dat");
    let there = "found: test, other (instance 0), bar, test (instance 3)";
    let there_of_3 = "found: test, other (instance 0), test, bar (instance 3)";
    let cases: [(Listing, Request, &[&str], Vec<String>); _] = [
        (listing(), request(), &[test, other], vec![]),
        (listing(), instance(3), &["3 test: 3 from ae301000.dat", "3 bar: 2 from ad304000.dat.gz"], vec![]),
        (listing(), named(&["other"]), &[other], vec![]),
        (listing(), named(&["test"]), &[test], vec![]),
        (
            listing(),
            named(&["test", "bar"]),
            &[test],
            vec![format!("namespace-missing: namespace 'bar' of instance 0 is not in the directory; {there}")],
        ),
        (
            listing(),
            Request { namespaces: Some(vec![name("other")]), ..instance(3) },
            &[],
            vec![format!("nothing-found: namespace 'other' of instance 3 is not in the directory; {there_of_3}")],
        ),
        (listing(), instance(1), &[], vec![format!("nothing-found: nothing of instance 1 is in the directory; {there}")]),
        (empty(), request(), &[], vec!["nothing-found: nothing of instance 0 is in the directory; found: nothing".to_owned()]),
    ];
    for (listing, request, chosen, expected) in cases {
        let plan = plan::verify(&listing, &request);
        assert_eq!((planned(&plan), refused(&plan)), (owned(chosen), expected), "{request:?}");
        let is_hinted = |problem: &Problem| problem.hint == "check the directory, the name (-n) and the instance (-i)";
        assert!(plan.refusals.iter().all(is_hinted));
    }
}

#[test]
fn a_backup_that_was_moved_aside_is_named_where_nothing_is_found() {
    let listing = Listing { set_aside: vec!["old-1".to_owned(), "old-2 b".to_owned()], ..empty() };
    let plan = plan::verify(&listing, &request());
    let expected = "nothing-found: nothing of instance 0 is in the directory; found: nothing; a backup was moved from here to \
        old-1, old-2 b";
    assert_eq!(refused(&plan), [expected]);
    let hint = "check the directory, the name (-n) and the instance (-i); use the backup that was moved only if the server has \
        not run since it was made: give its directory, '/b/old-2 b'";
    assert_eq!(plan.refusals[0].hint, hint);
}

#[test]
fn a_file_of_a_committed_namespace_that_its_manifest_does_not_claim_is_refused() {
    let extra = |file: &str, owner: &str| format!("extra-file: namespace '{owner}': {file} is not in its manifest");
    let (test, bar) = ("0 test: 8 from a2001000.dat", "0 bar: 1 from ad006000.dat.gz");
    let cases = [
        // By nsid, by name, or both.
        (vec![(STAGE + 2, Header::None)], vec![test, bar], vec![extra("ae001102.dat.gz", "test")]),
        (data("test", 0, 9, 2), vec![test, bar], vec![extra("ad009000.dat.gz", "test"), extra("ad009001.dat.gz", "test")]),
        (data("bar", 0, 6, 2).split_off(1), vec![test, bar], vec![extra("ad006001.dat.gz", "bar")]),
        // Neither: a separate backup, also if both have only data and so no nsid.
        (index("other", 0, 2, 1), vec![test, bar, "0 other: 3 from ae002000.dat"], vec![]),
        (data("other", 0, 1, 1), vec![test, bar, "0 other: 1 from ad001000.dat.gz"], vec![]),
        // Two groups without a name do not belong together.
        (
            vec![(0xae00_2000, Header::Unreadable), (0xad00_7000, Header::Unreadable)],
            vec![test, bar],
            vec![
                "content-damaged: stripe ad007000 (no name): ad007000.dat.gz has no namespace name".to_owned(),
                "backup-incomplete: nsid 2 (no name): treex (pi-treex, low 001) is missing".to_owned(),
                "content-damaged: nsid 2 (no name): ae002000.dat has no namespace name".to_owned(),
            ],
        ),
    ];
    for (more, chosen, expected) in cases {
        let committed = both(committed("test", 0, whole()), committed("bar", 0, data("bar", 0, 6, 1)));
        let plan = plan::verify(&both(committed, directory(more)), &request());
        assert_eq!((planned(&plan), refused(&plan)), (owned(&chosen), expected));
    }
}

#[test]
fn a_backup_that_is_at_work_or_was_interrupted_cannot_be_used() {
    let run = |listing: &mut Listing| listing.leftovers.live.push(live_run());
    let left = |instance: u8| vec![Interrupted { instance, namespace: "other".to_owned() }];
    let interrupted = |listing: &mut Listing| listing.leftovers.interrupted = left(0);
    let of_another_instance = |listing: &mut Listing| listing.leftovers.interrupted = left(1);
    let sweep = |listing: &mut Listing| listing.leftovers.sweep = vec!["ae002000.dat".to_owned(), "ae002001.dat".to_owned()];
    let open =
        |listing: &mut Listing| listing.directory.as_mut().expect("a directory").owner = Some(Owner { uid: 0, mode: 0o777 });
    let at_work = "another-asmt: another asmt (pid 42) is using the directory";
    let cut = "backup-incomplete: the backup or export of namespace 'other' was interrupted before it was committed";
    let swept = "backup-incomplete: the directory contains 2 files of a backup or export that was interrupted before it was \
        committed, and no other backup; the first is ae002000.dat (ls -A shows hidden files)";
    let writable = "writable-by-others: /b has mode 0777: users other than its owner may write to it; expected 0700";
    let nothing = "nothing-found: nothing of instance 0 is in the directory; found: nothing";
    let test = "nothing-found: namespace 'test' of instance 0 is not in the directory; found: nothing";
    // The refusals in a directory with a whole backup of 'test', and in one with nothing else.
    type Left<'a> = (&'a [&'a dyn Fn(&mut Listing)], Request, &'a [&'a str], &'a [&'a str]);
    let cases: [Left; _] = [
        (&[], request(), &[], &[nothing]),
        (&[&run], request(), &[at_work], &[at_work]),
        (&[&interrupted], request(), &[cut], &[cut]),
        (&[&interrupted], named(&["test"]), &[], &[test]),
        (&[&of_another_instance], request(), &[], &[nothing]),
        (&[&sweep], request(), &[], &[swept]),
        (&[&sweep, &run], request(), &[at_work], &[at_work]),
        (&[&sweep, &interrupted], request(), &[cut], &[cut]),
        // That others may write there is not the reason why nothing was found.
        (&[&open], request(), &[writable], &[writable, nothing]),
        (&[&open, &sweep], request(), &[writable], &[writable, swept]),
    ];
    for (changes, request, with_test, alone) in cases {
        for (mut listing, chosen, expected) in
            [(committed("test", 0, whole()), &["0 test: 8 from a2001000.dat"] as &[&str], with_test), (empty(), &[], alone)]
        {
            changes.iter().for_each(|change| change(&mut listing));
            let plan = plan::verify(&listing, &request);
            assert_eq!((planned(&plan), refused(&plan)), (owned(chosen), owned(expected)));
        }
    }
}

#[test]
fn a_manifest_that_cannot_be_used_leaves_no_backup_of_asmts() {
    let listing = |change: &dyn Fn(&mut Listing)| {
        let mut listing = both(committed("test", 0, whole()), committed("other", 0, index("other", 0, 2, 1)));
        change(&mut listing);
        listing
    };
    let error = |error: ManifestError| move |listing: &mut Listing| listing.manifests[0].manifest = Err(error.clone());
    let cases = [
        (
            listing(&error(ManifestError::TooNew(3))),
            "manifest-too-new: asmt-manifest-0-test.json has format version 3, expected at most 2",
            "use the asmt that made this backup, or a newer one",
        ),
        (
            listing(&error(ManifestError::Damaged("no end".to_owned()))),
            "manifest-damaged: asmt-manifest-0-test.json is damaged: no end",
            "the backup cannot be checked: while the segments that were backed up are still in memory (asmt list), make a \
         new backup with --replace -c; else restore another copy of this same backup, if there is one (an older backup is \
             stale); otherwise let the namespace cold-start, which empties a namespace that is in memory only",
        ),
        (
            listing(&|listing| {
                listing.manifests.remove(0);
                listing.problems.push(unreadable("asmt-manifest-0-test.json"));
            }),
            "unsafe-file: asmt-manifest-0-test.json is a directory",
            "remove it",
        ),
    ];
    for (listing, expected, hint) in cases {
        for request in [request(), named(&["test"]), Request { require_manifest: true, ..request() }] {
            let plan = plan::verify(&listing, &request);
            // It is not reported that there is no manifest.
            assert_eq!((refused(&plan), remarked(&plan)), (owned(&[expected]), vec![]), "{request:?}");
            assert_eq!(
                (plan.refusals[0].hint.as_str(), plan.refusals[0].file.as_deref()),
                (hint, Some("asmt-manifest-0-test.json"))
            );
        }
        // A request for another namespace or instance does not report it.
        assert_eq!(refused(&plan::verify(&listing, &named(&["other"]))), NONE);
        let listing = both(listing, committed("test", 1, index("test", 1, 1, 1)));
        assert_eq!(refused(&plan::verify(&listing, &instance(1))), NONE);
    }
}

#[test]
fn what_cannot_be_read_is_refused_where_it_may_be_what_was_asked_for() {
    let with = |names: &[&str]| {
        let problems = names.iter().map(|file| unreadable(file)).collect();
        Listing { problems, ..both(committed("test", 0, whole()), committed("test", 1, index("test", 1, 1, 1))) }
    };
    let names = ["ae002000.dat", "ae102000.dat", "asmt-manifest-0-other.json", "asmt-manifest-1-test.json", ".asmt-run.x"];
    for (request, expected) in [
        // A file may belong to any namespace of its instance, a manifest belongs to one.
        (request(), &["ae002000.dat", "asmt-manifest-0-other.json"] as &[&str]),
        (named(&["test"]), &["ae002000.dat"]),
        (instance(1), &["ae102000.dat", "asmt-manifest-1-test.json"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|file| format!("unsafe-file: {file} is a directory")).collect();
        assert_eq!(refused(&plan::verify(&with(&names), &request)), expected, "{request:?}");
    }
}

#[test]
fn nothing_of_the_namespace_may_be_in_memory() {
    let exist = |count: u32, first: &str| {
        vec![format!(
            "segments-exist: namespace 'test': {count} of its segments are in memory, the first is {first}; expected none"
        )]
    };
    let cases = [
        (vec![], vec![]),
        // By key, by nsid of the index or of the data, or by name.
        (vec![(STAGE, Header::None)], exist(1, "ae001100 (shmid 1)")),
        (vec![(STAGE + 9, Header::None)], exist(1, "ae001109 (shmid 1)")),
        (data("other", 0, 5, 1), exist(1, "ad005000 (shmid 1)")),
        (data("test", 0, 9, 2), exist(2, "ad009000 (shmid 1)")),
        (index("test", 0, 9, 2), exist(4, "ae009000 (shmid 1)")),
        // Another namespace or instance is not in the way. Nor is data if the index has that nsid,
        // nor the reverse.
        (index("other", 0, 2, 2), vec![]),
        ([index("test", 1, 1, 2), data("test", 1, 5, 2)].concat(), vec![]),
        (data("other", 0, 1, 1), vec![]),
        (index("other", 0, 5, 1), vec![]),
    ];
    let listing = committed("test", 0, whole());
    for (made, expected) in cases {
        let plan = plan::restore(&listing, &memory(made), &request());
        assert_eq!(refused(&plan), expected);
        assert_eq!(planned(&plan), ["0 test: 8 from a2001000.dat"]);
    }
    let mut found = memory([whole(), index("other", 0, 2, 1)].concat());
    segment(&mut found, TREEX).stat.attached_count = 1;
    let text = "segment-attached: namespace 'test': 1 of 8 segments attached (the first is ae001001), expected none; attached \
        by a process that cannot be seen from here";
    assert_eq!(refused(&plan::restore(&listing, &found, &request())), [text]);
}

/// A running server needs no restore: stopping it for one would roll it back.
#[test]
fn no_hint_stops_a_server_that_runs_in_the_place_of_a_restore() {
    let attacher = |command: &str| Attacher { pid: 9, command: command.to_owned() };
    let hint = |attacher: Option<Attacher>| {
        let mut found = memory(whole());
        segment(&mut found, TREEX).stat.attached_count = 1;
        let shmid = segment(&mut found, TREEX).stat.shmid;
        found.attachers.entry(shmid).or_default().extend(attacher);
        let plan = plan::restore(&committed("test", 0, whole()), &found, &request());
        assert_eq!(plan.refusals.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::SegmentAttached]);
        plan.refusals[0].hint.clone()
    };
    assert_eq!(
        hint(Some(attacher("asd"))),
        "the server is running with these segments: nothing needs restoring, leave it running (a restore would roll it back)"
    );
    for other in [hint(Some(attacher("gdb"))), hint(None)] {
        assert!(other.contains("leave it running: nothing needs restoring; otherwise wait until it has exited"), "{other}");
        assert!(!other.contains("stop"), "{other}");
    }
    // After a crash, a start loses data that is in memory alone.
    let loses = |made: Vec<NewSegment>, shutdown: u32| {
        let mut found = memory(made.clone());
        base(&mut segment(&mut found, BASE).header).shutdown = shutdown;
        let plan = plan::restore(&committed("test", 0, made), &found, &request());
        plan.refusals[0].hint.contains("records that are in memory only are lost")
    };
    assert!(loses(whole(), 0) && !loses(whole(), 1) && !loses(index("test", 0, 1, 2), 0));
}

#[test]
fn segments_are_named_for_removal_only_where_nobody_may_be_at_work_on_them() {
    type Creators<'c> = &'c [(u32, Creator)];
    let alive = |pid, command: &str| Creator::Alive { pid, command: command.to_owned() };
    let made_by = |creators: Creators<'_>| {
        let mut found = memory(whole());
        for (key, creator) in creators {
            segment(&mut found, *key).creator = creator.clone();
        }
        let problem = plan::restore(&committed("test", 0, whole()), &found, &request()).refusals.remove(0);
        (format!("{}: {}", problem.code.as_str(), problem.message), problem.hint)
    };
    let exist =
        "segments-exist: namespace 'test': 8 of its segments are in memory, the first is a2001000 (shmid 1); expected none";
    let at_work = "another-asmt: namespace 'test': 8 of its segments are in memory, and the process that created them is still \
        running: pid 7 (node), apparently another asmt";
    let start_it = "start the server without a restore if it was shut down cleanly, or if it has served since this backup was \
        made or restored; ";
    let gone = format!(
        "{start_it}only if it has not served since, remove exactly these segments, then try again: ipcrm -m 1 -m 2 -m 3 -m 4 -m \
         5 -m 6 -m 7 -m 8"
    );
    let unseen = format!(
        "{start_it}otherwise make sure first that no asmt or server that cannot be seen from here (in another container) is using \
         it, then list the segments with: ipcs -m -p"
    );
    let wait = "wait until it has finished, then try again; if it is neither asmt nor the server, its process id was reused: \
        find out what created the segments (ipcs -m -p)";
    let server = "leave them, nothing needs restoring: if the server is running, leave it running; if it is stopping, wait \
        until it has exited, then start it";
    let by_unseen = format!("{exist}; the process that created them cannot be seen from here");
    let by_server = format!("{exist}; the server that created them is still running (pid 9)");
    let cases: [(Creators<'_>, &str, &str); 7] = [
        (&[], exist, &gone),
        (&[(STAGE, Creator::Unseen)], &by_unseen, &unseen),
        (&[(STRIPE, alive(7, "node"))], at_work, wait),
        (&[(STRIPE, alive(9, "asd"))], &by_server, server),
        // The segment that is hardest to remove decides.
        (&[(STAGE, Creator::Unseen), (STRIPE, alive(9, "asd"))], &by_server, server),
        (&[(META, alive(9, "asd")), (STAGE, Creator::Unseen)], &by_server, server),
        (&[(META, alive(9, "asd")), (STAGE, Creator::Unseen), (BASE, alive(7, "node"))], at_work, wait),
    ];
    for (creators, message, hint) in cases {
        assert_eq!(made_by(creators), (message.to_owned(), hint.to_owned()), "{creators:?}");
    }
}

#[test]
fn what_certainly_does_not_fit_is_refused() {
    // 4 segments of 65,536, 196,608, 1,048,577 and 1,048,576 bytes: 577 pages. At least 36,864
    // bytes are filled, because base may hold nothing but zeros.
    let mut listing = directory(index("test", 0, 1, 2));
    file(&mut listing, STAGE).size_bytes = STAGE_BYTES + 1;
    const PROMISED: u64 = 577 * 4096;
    const NEEDED: u64 = 36_864;
    fn limits(found: &mut Inventory) -> &mut Limits {
        found.limits.as_mut().expect("limits")
    }
    let cases: &[Case<Inventory>] = &[
        (|_| {}, &[]),
        (|found| (found.limits, found.memory) = (None, Memory::default()), &[]),
        (|found| limits(found).max_segment_bytes -= 1, &["system-limit: kernel.shmmax is 1048576, expected at least 1048577"]),
        (|found| limits(found).segment_count += 1, &["system-limit: kernel.shmmni is 14, expected at least 15"]),
        (|found| limits(found).total_pages += 1, &["system-limit: kernel.shmall is 677, expected at least 678"]),
        (
            |found| found.memory.available_bytes = Some(NEEDED - 1),
            &["not-enough-memory: 36863 bytes of memory are available, expected at least 36864"],
        ),
        (
            |found| found.memory.cgroup.as_mut().expect("a limit").available_bytes -= 1,
            &["not-enough-memory: /x/memory.max is 1000000, of which 36863 are left; expected at least 36864: segments count \
                against the limit of the process that fills them"],
        ),
        (
            |found| found.memory.promisable_bytes = Some(PROMISED - 1),
            &["not-enough-memory: vm.overcommit_memory is 2, and 2363391 bytes can still be committed; expected 2363392, the \
                full size of all segments"],
        ),
        (
            |found| found.memory.largest_bytes = Some(STAGE_BYTES),
            &["not-enough-memory: segment ae001100 has 1048577 bytes, more than the 1048576 of memory and swap, and \
               vm.overcommit_memory is 0"],
        ),
    ];
    for (change, expected) in cases {
        let cgroup = CgroupLimit { file: "/x/memory.max".into(), limit_bytes: 1_000_000, available_bytes: NEEDED };
        let mut found = Inventory {
            limits: Some(Limits {
                max_segment_bytes: STAGE_BYTES + 1,
                max_segment_count: 14,
                max_total_pages: 677,
                segment_count: 10,
                total_pages: 100,
            }),
            memory: Memory {
                available_bytes: Some(NEEDED),
                largest_bytes: Some(STAGE_BYTES + 1),
                promisable_bytes: Some(PROMISED),
                cgroup: Some(cgroup),
            },
            ..memory(vec![])
        };
        change(&mut found);
        assert_eq!(refused(&plan::restore(&listing, &found, &request())), *expected);
    }
}

#[test]
fn files_are_published_from_what_is_refused_without_base_to_base() {
    let mut addresses: Vec<_> = whole().iter().map(|(key, _)| Key(*key).address().expect("an address")).collect();
    addresses.sort_by_key(|address| plan::publishing_rank(*address));
    let keys: Vec<Key> = addresses.iter().map(|address| address.key().expect("a key")).collect();
    assert_eq!(keys, [TREEX, STAGE_1, STAGE, SI_STAGE, META, STRIPE_1, STRIPE, BASE].map(Key));
}

#[test]
fn strangers_segments_in_the_way_are_named_with_their_maker() {
    let listing = committed("test", 0, whole());
    let text = |count: u32, first: &str, attached: &str| {
        format!(
            "foreign-segments: namespace 'test': {count} segments in its way were created by uid 8, the first is {first}{attached}; \
             expected none: the segments of the backup belong to uid 0"
        )
    };
    let plan = |change: fn(&mut Inventory)| {
        let mut found = memory(vec![(STAGE, Header::None), (STRIPE_1, Header::Unreadable)]);
        give(&mut found, &[STAGE, STRIPE_1], 8, 0);
        change(&mut found);
        let plan = plan::restore(&listing, &found, &request());
        (refused(&plan), plan.refusals.into_iter().map(|problem| problem.hint).collect::<Vec<_>>())
    };
    let remove = "remove exactly these segments, then try again: ipcrm -m 1 -m 2";
    let (found, hints) = plan(|_| {});
    assert_eq!(found, [text(2, "ad005001 (shmid 1)", "")]);
    assert_eq!(hints, [format!("if the server does not run as uid 8 now, {remove}")]);
    let asked =
        format!("find out what uid 8 uses them for (ipcs -m -p); if it is neither the server nor a running asmt, {remove}");
    for creator in [Creator::Unseen, Creator::Alive { pid: 9, command: "asd".to_owned() }] {
        let mut found = memory(vec![(STAGE, Header::None), (STRIPE_1, Header::Unreadable)]);
        give(&mut found, &[STAGE, STRIPE_1], 8, 8);
        segment(&mut found, STAGE).creator = creator;
        assert_eq!(plan::restore(&listing, &found, &request()).refusals[0].hint, asked);
    }
    let (found, hints) = plan(|found| segment(found, STAGE).stat.attached_count = 1);
    assert_eq!(found, [text(2, "ad005001 (shmid 1)", ", attached by a process that cannot be seen from here")]);
    assert_eq!(hints, [asked]);
    // Beside the server's own segments, each is reported, with its own hint.
    let (found, hints) = plan(|found| give(found, &[STAGE], 0, 0));
    assert!(
        found[0] == text(1, "ad005001 (shmid 1)", "")
            && found[1].starts_with("segments-exist: namespace 'test': 1 of its segments")
    );
    assert!(hints[0].ends_with("ipcrm -m 1") && hints[1].ends_with("ipcrm -m 2"), "{hints:?}");
    // Segments of the caller, and of the backup's owner, are not strangers'.
    let (found, _) = plan(|found| give(found, &[STAGE, STRIPE_1], 0, 8));
    assert!(found[0].starts_with("segments-exist"), "{found:?}");
}

#[test]
fn another_name_of_a_file_counts_where_others_may_write_by_it() {
    type Change = fn(&mut Listing);
    let writable = |file: &str, uid: u32, mode: &str| {
        format!(
            "writable-by-others: namespace 'test': others may have written to 1 of its files, the first is {file} (uid {uid}, \
             mode {mode}), through another name of it: it has 2 links"
        )
    };
    let cases: [(Change, Option<String>); 6] = [
        (|listing| listing.files.iter_mut().for_each(|file| file.link_count = 3), None),
        (|listing| listing.manifests[0].link_count = 2, None),
        (|listing| (file(listing, STAGE).link_count, file(listing, STAGE).mode) = (2, 0o644), None),
        (
            |listing| (file(listing, STAGE).link_count, file(listing, STAGE).mode) = (2, 0o620),
            Some(writable("ae001100.dat.gz", 0, "0620")),
        ),
        (
            |listing| (file(listing, STAGE).link_count, file(listing, STAGE).uid) = (2, 8),
            Some(writable("ae001100.dat.gz", 8, "0600")),
        ),
        (
            |listing| (listing.manifests[0].link_count, listing.manifests[0].owner.uid) = (2, 8),
            Some(writable("asmt-manifest-0-test.json", 8, "0600")),
        ),
    ];
    for (change, expected) in cases {
        let mut listing = committed("test", 0, whole());
        change(&mut listing);
        let plan = plan::verify(&listing, &request());
        assert_eq!(refused(&plan), expected.into_iter().collect::<Vec<_>>());
        let hint = "if you are sure that nobody has: copy the backup, so that each file has one name, and use the copy: cp -a \
             --no-preserve=links /b NEW";
        assert!(plan.refusals.iter().all(|problem| problem.hint == hint), "{:?}", plan.refusals);
    }
}
