//! Plans of backups.
//!
//! Promise: the conditions on memory and directory that must hold before a backup writes anything.
//! Must never: touch a segment, a file or the clock.

use super::*;
use asmt_engine::facts::directory::{Target, Writable};
use asmt_engine::facts::memory::Attacher;
use asmt_engine::format::mark::{Identity, UsageMark, UseRecord};
use asmt_engine::format::{ManifestError, parse_file_name};
use asmt_engine::plan::fates::Fate;
use asmt_shm::MAX_SEGMENT_BYTES;

fn file_names(plan: &Plan<plan::NamespaceBackup>) -> Vec<String> {
    plan.namespaces.iter().flat_map(|namespace| &namespace.copies).map(plan::Copy::file_name).collect()
}

#[test]
fn each_segment_becomes_a_file_and_all_but_base_and_meta_may_be_compressed() {
    let found = memory(whole());
    let plan = plan::backup(&found, &empty(), &request());
    assert_eq!((refused(&plan), remarked(&plan)), (vec![], vec![]));
    let [namespace] = plan.namespaces.as_slice() else { panic!("one namespace: {:?}", plan.namespaces) };
    assert_eq!((namespace.instance, &namespace.name, namespace.nsid), (0, &name("test"), Some(1)));
    assert_eq!((namespace.base_version, namespace.superseded.as_slice()), (Some(12), &[] as &[String]));
    assert!(namespace.copies.iter().map(|copy| &copy.segment).eq(found.segments.values()));
    let keys = ["a2001000", "a2001100", "ad005000", "ad005001", "ae001000", "ae001001", "ae001100", "ae001101"];
    assert_eq!(file_names(&plan), keys.map(|key| format!("{key}.dat")));
    let compressed = file_names(&plan::backup(&found, &empty(), &Request { form: Form::Gzip, ..request() }));
    let plain = |key| ["a2001000", "ae001000"].contains(&key);
    assert_eq!(compressed, keys.map(|key| if plain(key) { format!("{key}.dat") } else { format!("{key}.dat.gz") }));
}

#[test]
fn what_was_hardly_used_is_written_plain_although_the_rest_is_compressed() {
    // Of 1,048,576 bytes: the number at which the zeros cost a twentieth of the data, and one byte
    // more.
    type Stage = (Option<u64>, u64, Option<bool>, bool);
    let cases: [Stage; 8] = [
        (None, 0, None, true),
        (Some(STAGE_BYTES), 0, None, true),
        (Some(20_560), 0, None, true),
        (Some(20_540), 0, None, false),
        (Some(0), 0, None, false),
        (Some(0), 20_560, Some(true), true),
        (Some(0), 4096, Some(true), false),
        // All of it will be read, including its holes.
        (Some(0), 4096, Some(false), true),
    ];
    for (resident_bytes, swapped_bytes, finds_all_holes, is_compressed) in cases {
        let mut found = memory(whole());
        found.finds_all_holes = finds_all_holes;
        let stage = segment(&mut found, STAGE);
        (stage.resident_bytes, stage.swapped_bytes) = (resident_bytes, swapped_bytes);
        let plan = plan::backup(&found, &empty(), &Request { form: Form::Gzip, ..request() });
        let name = if is_compressed { "ae001100.dat.gz" } else { "ae001100.dat" };
        assert!(file_names(&plan).iter().any(|file| file == name), "{resident_bytes:?} {swapped_bytes}");
        assert!(file_names(&plan).iter().any(|file| file == "ae001101.dat.gz"));
        let note = "written-plain: namespace 'test': 1 of 8 segments (the first is ae001100) are written uncompressed: almost \
            all of each was never used and would take more space compressed";
        let remarks: Vec<String> = remarked(&plan).into_iter().filter(|text| text.starts_with("written")).collect();
        assert_eq!(remarks, if is_compressed { vec![] } else { vec![note] });
        let asked_plain = plan::backup(&found, &empty(), &request());
        assert!(!remarked(&asked_plain).iter().any(|text| text.starts_with("written")), "nothing else was asked for");
    }
}

#[test]
fn data_without_an_index_has_no_nsid_and_no_version() {
    let plan = plan::backup(&memory(data("bar", 0, 5, 1)), &empty(), &request());
    let [namespace] = plan.namespaces.as_slice() else { panic!("one namespace: {plan:?}") };
    assert_eq!((namespace.nsid, namespace.base_version, namespace.copies.len()), (None, None, 1));
    assert!(plan.check().is_ok());
}

#[test]
fn only_what_a_clean_stop_leaves_is_backed_up() {
    let cases: &[Case<Inventory>] = &[
        (|_| {}, &[]),
        // Rights.
        (
            |found| {
                segment(found, META).is_denied = true;
                segment(found, META).header = Header::Unreadable;
            },
            &[
                "permission-denied: namespace 'test': segment a2001000 is owned by uid 0 with mode 0600, and uid 0 may not read it",
            ],
        ),
        // Base: version and shutdown status.
        (|found| base(&mut segment(found, BASE).header).version = 10, &[]),
        (
            |found| base(&mut segment(found, BASE).header).version = 9,
            &["unknown-version: namespace 'test': base has layout version 9, expected 10 to 12"],
        ),
        (
            |found| base(&mut segment(found, BASE).header).version = 13,
            &["unknown-version: namespace 'test': base has layout version 13, expected 10 to 12"],
        ),
        (
            |found| base(&mut segment(found, BASE).header).shutdown = 0,
            &["not-cleanly-shut-down: namespace 'test': base has shutdown status 0, expected 1 (clean)"],
        ),
        (
            |found| base(&mut segment(found, BASE).header).shutdown = 2,
            &["not-cleanly-shut-down: namespace 'test': base has shutdown status 2, expected 1 (clean)"],
        ),
        // Names.
        (
            |found| base(&mut segment(found, BASE).header).name = None,
            &["segment-invalid: nsid 1 (no name): segment ae001000 has no valid namespace name (1 to 31 bytes)"],
        ),
        (
            |found| stripe(&mut segment(found, STRIPE_1).header).name = None,
            &[
                "set-torn: namespace 'test': data stripe ad005000 counts 2 data stripes, found 1",
                "segment-invalid: stripe ad005001 (no name): segment ad005001 has no valid namespace name (1 to 31 bytes)",
            ],
        ),
        (
            |found| drop(found.segments.remove(&Key(BASE))),
            &["segments-incomplete: nsid 1 (no name): base (pi-base, low 000) is missing"],
        ),
        (
            |found| drop(found.segments.remove(&Key(STAGE_1))),
            &["segments-incomplete: namespace 'test': 1 of 2 primary stages counted by base missing, the first is stage 1 \
               (low 101)"],
        ),
        // Sizes.
        (|found| segment(found, BASE).stat.size_bytes = 2156, &[]),
        (
            |found| segment(found, BASE).stat.size_bytes = 2155,
            &["segment-invalid: namespace 'test': segment ae001000 has 2155 bytes, too few for a pi-base"],
        ),
        (
            |found| (segment(found, META).header, segment(found, META).stat.size_bytes) = (Header::Unreadable, 23),
            &["segment-invalid: namespace 'test': segment a2001000 has 23 bytes, too few for a si-meta"],
        ),
        (|found| segment(found, STAGE).stat.size_bytes = MAX_SEGMENT_BYTES, &[]),
        (
            |found| segment(found, STAGE).stat.size_bytes = MAX_SEGMENT_BYTES + 1,
            &["segment-invalid: namespace 'test': segment ae001100 has 17592186044417 bytes, expected at most 17592186044416"],
        ),
        // It is long enough for a header, and none could be read: it was removed in the meantime,
        // and nothing else is reported.
        (
            |found| segment(found, META).header = Header::Unreadable,
            &["segment-changed: namespace 'test': segment a2001000 (shmid 1) was removed while it was being read"],
        ),
        (
            |found| segment(found, BASE).header = Header::Unreadable,
            &["segment-changed: nsid 1 (no name): segment ae001000 (shmid 5) was removed while it was being read"],
        ),
        // Everything that is wrong is reported, one namespace after the other.
        (
            |found| {
                found.segments.extend(memory(index("other", 0, 2, 1)).segments);
                base(&mut segment(found, 0xae00_2000).header).shutdown = 0;
                base(&mut segment(found, BASE).header).version = 0;
                segment(found, TREEX).stat.size_bytes = 0;
            },
            &[
                "segment-invalid: namespace 'test': segment ae001001 has 0 bytes, too few for a pi-treex",
                "unknown-version: namespace 'test': base has layout version 0, expected 10 to 12",
                "not-cleanly-shut-down: namespace 'other': base has shutdown status 0, expected 1 (clean)",
            ],
        ),
    ];
    for (change, expected) in cases {
        let mut found = memory(whole());
        change(&mut found);
        assert_eq!(refused(&plan::backup(&found, &empty(), &request())), *expected);
    }
}

#[test]
fn what_looks_like_a_restore_at_work_is_no_fault_of_the_segments() {
    type Change = fn(&mut Inventory);
    const STRAY_6: &str = "no known version of the server creates such a segment, but a newer one may: leave it, and name the \
        other namespaces with -n; only if you created it yourself, and no server needs it, remove it with: ipcrm -m 6";
    const AGAIN: &str = "if a restore was started and the server has not served since, run that restore again; otherwise";
    let unfilled = format!("{AGAIN}: {}", STRAY_6.replace("ipcrm -m 6", "ipcrm -m 5"));
    let without_base = format!(
        "only a server that was shut down cleanly leaves all segments: {AGAIN} start the server and stop it cleanly, then back up"
    );
    let untrusted = format!(
        "{AGAIN} start the server, stop it cleanly and wait until asd has exited, then back up (this is a cold start: records \
         that are in memory only are lost; if there are any, leave the segments as they are, and ask Aerospike support first); \
         after a crash there is nothing to save"
    );
    // Before base is filled, before it is made, and before it is trusted; and a state that no
    // restore makes.
    let changes: [(Change, &str, &str); 4] = [
        (|found| base(&mut segment(found, BASE).header).name = None, "nsid 1 (no name)", &unfilled),
        (|found| drop(found.segments.remove(&Key(BASE))), "nsid 1 (no name)", &without_base),
        (|found| base(&mut segment(found, BASE).header).shutdown = 0, "namespace 'test'", &untrusted),
        (|found| segment(found, TREEX).stat.size_bytes = 0, "namespace 'test'", STRAY_6),
    ];
    let hints = |found: &Inventory| {
        let refusals = plan::backup(found, &empty(), &request()).refusals;
        refusals.into_iter().map(|problem| problem.hint).collect::<Vec<_>>()
    };
    for (change, title, hint) in changes {
        let mut found = memory(whole());
        change(&mut found);
        assert_eq!(hints(&found), [hint]);
        let unseen = "make sure first that no asmt or server that cannot be seen from here (in another container) is using it; \
            then: ";
        segment(&mut found, STAGE).creator = Creator::Unseen;
        assert_eq!(hints(&found), [format!("{unseen}{hint}")]);
        // A segment whose own creator is not seen is not named either.
        for key in [BASE, TREEX].iter().filter(|key| found.segments.contains_key(&Key(**key))).collect::<Vec<_>>() {
            segment(&mut found, *key).creator = Creator::Unseen;
        }
        assert!(hints(&found).iter().all(|hint| !hint.contains("ipcrm")), "{:?}", hints(&found));
        // The server's own stop must be awaited as always.
        segment(&mut found, STAGE).creator = Creator::Alive { pid: 9, command: "asd".to_owned() };
        assert!(!refused(&plan::backup(&found, &empty(), &request()))[0].starts_with("another-asmt"));
        segment(&mut found, STAGE).creator = Creator::Alive { pid: 7, command: "node".to_owned() };
        let at_work = refused(&plan::backup(&found, &empty(), &request()));
        assert!(
            at_work[0].starts_with(&format!("another-asmt: {title}: ")) && at_work[0].contains("pid 7 (node)"),
            "{at_work:?}"
        );
        assert!(at_work[1..].iter().all(|text| !text.contains(title)), "{at_work:?}");
    }
    // A whole namespace is backed up, whichever process has made it.
    for creator in [Creator::Unseen, Creator::Alive { pid: 7, command: "node".to_owned() }] {
        let mut found = memory(whole());
        found.segments.values_mut().for_each(|segment| segment.creator = creator.clone());
        assert_eq!(refused(&plan::backup(&found, &empty(), &request())), [] as [&str; 0]);
    }
}

#[test]
fn nothing_is_planned_of_what_may_not_be_read_or_is_attached() {
    for change in [(|segment| segment.is_denied = true) as fn(&mut Segment), |segment| segment.stat.attached_count = 1] {
        let mut found = memory([whole(), index("other", 0, 2, 1)].concat());
        change(segment(&mut found, STRIPE));
        let plan = plan::backup(&found, &empty(), &request());
        assert_eq!(plan.refusals.len(), 1, "{:?}", plan.refusals);
        assert_eq!(plan.namespaces.iter().map(|namespace| namespace.name.as_str()).collect::<Vec<_>>(), ["other"]);
    }
}

#[test]
fn who_has_segments_attached_is_named_and_tells_the_next_step() {
    let attacher = |pid, command: &str| Attacher { pid, command: command.to_owned() };
    let server = "the server is running: stop it (systemctl stop aerospike), wait until asd has exited, then try again";
    let cases = [
        (
            vec![],
            "a process that cannot be seen from here",
            "find the process that has it attached (as root, also in other containers: grep -l SYSVae001000 /proc/[0-9]*/maps); \
             if it is a server, stop it cleanly, otherwise wait until it has exited; then try again",
        ),
        (
            vec![(BASE, attacher(7, "gdb"))],
            "pid 7 (gdb)",
            "wait until that process has exited, then try again; if it is the server under another name, stop it cleanly, and \
             do not kill it",
        ),
        (vec![(BASE, attacher(9, "asd")), (TREEX, attacher(9, "asd"))], "pid 9 (asd)", server),
        (vec![(BASE, attacher(9, "asd")), (TREEX, attacher(7, "gdb"))], "pid 7 (gdb), pid 9 (asd)", server),
    ];
    for (attachers, by, hint) in cases {
        let mut found = memory(whole());
        for key in [TREEX, BASE] {
            segment(&mut found, key).stat.attached_count = 2;
        }
        for (key, attacher) in attachers {
            let shmid = segment(&mut found, key).stat.shmid;
            found.attachers.entry(shmid).or_default().push(attacher);
        }
        let plan = plan::backup(&found, &empty(), &request());
        let expected = format!(
            "segment-attached: namespace 'test': 2 of 8 segments attached (the first is ae001000), expected none; \
                attached by {by}"
        );
        assert_eq!(refused(&plan), [expected]);
        assert_eq!(plan.refusals[0].hint, hint);
    }
}

#[test]
fn a_file_must_become_its_segments_owners() {
    let mut found = memory(whole());
    for segment in found.segments.values_mut() {
        (segment.stat.uid, segment.stat.gid) = (7, 7);
    }
    let plan = |found: &Inventory, request: &Request| plan::backup(found, &Listing::default(), request);
    assert_eq!(refused(&plan(&found, &user())), [] as [&str; 0]);
    segment(&mut found, STAGE).stat.gid = 8;
    let plan_of_user = plan(&found, &user());
    assert_eq!(
        refused(&plan_of_user),
        [
            "permission-denied: namespace 'test': segment ae001100 is owned by uid 7 and gid 8, and uid 7 may not give its file to \
            them: CAP_CHOWN is missing"
        ]
    );
    // It is planned all the same, so that other faults are reported, too.
    assert_eq!(plan_of_user.namespaces.len(), 1);
    assert_eq!(refused(&plan(&found, &request())), [] as [&str; 0]);
}

#[test]
fn what_was_asked_for_is_chosen_and_what_is_not_there_is_refused() {
    let all = || memory([whole(), index("other", 0, 2, 1), index("test", 3, 1, 1), data("bar", 3, 4, 1)].concat());
    let of_instance = |instance| Request { instance, ..request() };
    let there = "found: test, other (instance 0), bar, test (instance 3)";
    let cases: [(Inventory, Request, &[&str], Vec<String>); _] = [
        (all(), request(), &["0 test", "0 other"], vec![]),
        (all(), of_instance(3), &["3 bar", "3 test"], vec![]),
        (all(), named(&["other"]), &["0 other"], vec![]),
        (all(), named(&["other", "test"]), &["0 test", "0 other"], vec![]),
        (
            all(),
            named(&["other", "bar"]),
            &["0 other"],
            vec![format!("namespace-missing: namespace 'bar' of instance 0 is not in shared memory; {there}")],
        ),
        (
            all(),
            named(&["bar", "baz"]),
            &[],
            ["bar", "baz"]
                .map(|asked| format!("nothing-found: namespace '{asked}' of instance 0 is not in shared memory; {there}"))
                .to_vec(),
        ),
        (all(), of_instance(1), &[], vec![format!("nothing-found: nothing of instance 1 is in shared memory; {there}")]),
        (
            memory(vec![(STAGE, Header::None)]),
            named(&["test"]),
            &[],
            vec![
                "nothing-found: namespace 'test' of instance 0 is not in shared memory; found: segments without a name \
                 (instance 0)"
                    .to_owned(),
            ],
        ),
        (
            memory(vec![]),
            request(),
            &[],
            vec!["nothing-found: nothing of instance 0 is in shared memory; found: nothing".to_owned()],
        ),
    ];
    for (found, request, chosen, expected) in cases {
        let plan = plan::backup(&found, &empty(), &request);
        let names: Vec<String> =
            plan.namespaces.iter().map(|namespace| format!("{} {}", namespace.instance, namespace.name)).collect();
        assert_eq!((names.as_slice(), refused(&plan)), (owned(chosen).as_slice(), expected), "{request:?}");
        let is_hinted = |problem: &Problem| problem.hint.ends_with("asmt list shows what exists");
        assert!(plan.refusals.iter().all(is_hinted));
    }
}

/// Nor is the set called torn, with another hint: neither if it is requested by name, nor with
/// everything.
#[test]
fn a_stripe_that_may_not_be_read_is_not_called_missing() {
    let mut found = memory(whole());
    segment(&mut found, STRIPE_1).is_denied = true;
    segment(&mut found, STRIPE_1).header = Header::Unreadable;
    segment(&mut found, BASE).creator = Creator::Alive { pid: 7, command: "maker".to_owned() };
    let expected = "permission-denied: stripe ad005001 (no name): segment ad005001 is owned by uid 0 with mode 0600, and uid 0 \
        may not read it";
    for namespaces in [None, Some(vec![name("test")])] {
        let plan = plan::backup(&found, &Listing::default(), &Request { namespaces, ..request() });
        assert_eq!(refused(&plan), [expected]);
    }
    // A stripe of another instance does not belong to this namespace.
    let mut other = memory(whole());
    other.segments.remove(&Key(STRIPE_1));
    other.segments.extend(memory(data("bar", 1, 5, 1)).segments);
    segment(&mut other, 0xad10_5000).is_denied = true;
    let plan = plan::backup(&other, &Listing::default(), &request());
    assert!(refused(&plan)[0].starts_with("set-torn"), "{:?}", refused(&plan));
}

#[test]
fn a_name_that_may_stand_where_nothing_may_be_read_is_not_called_missing() {
    // Of the own instance, and of another one, in which it would not be chosen.
    for (key, expected) in [
        (STRIPE, "permission-denied: namespace 'bar' was not found, but there are segments whose names this user may not read"),
        (
            0xad10_5000,
            "nothing-found: namespace 'bar' of instance 0 is not in shared memory; found: test (instance 0), segments without \
             a name (instance 1)",
        ),
    ] {
        let mut found = memory([index("test", 0, 1, 1), vec![(key, Header::Unreadable)]].concat());
        segment(&mut found, key).is_denied = true;
        let all = plan::backup(&found, &empty(), &named(&["bar", "test"]));
        assert_eq!(refused(&all), [expected.replace("nothing-found", "namespace-missing")]);
        assert_eq!(all.namespaces.len(), 1);
        assert_eq!(refused(&plan::backup(&found, &empty(), &named(&["bar"]))), [expected]);
    }
}

#[test]
fn an_index_is_whole_or_what_is_missing_or_too_much_is_said() {
    /// Adds segments that have no header.
    fn add(made: &mut Vec<NewSegment>, keys: impl IntoIterator<Item = u32>) {
        made.extend(keys.into_iter().map(|key| (key, Header::None)));
    }
    fn without(made: &mut Vec<NewSegment>, keys: &[u32]) {
        made.retain(|(key, _)| !keys.contains(key));
    }
    fn header(made: &mut [NewSegment], wanted: u32) -> &mut Header {
        &mut made.iter_mut().find(|(key, _)| *key == wanted).expect("a segment").1
    }
    let cases: &[Case<Vec<NewSegment>>] = &[
        (|_| {}, &[]),
        // Data is never counted, whatever its header has.
        (|made| *made = data("test", 0, 1, 2).split_off(1), &[]),
        (|made| without(made, &[STRIPE]), &[]),
        (|made| without(made, &[META, SI_STAGE]), &[]),
        (|made| add(made, [0xae00_2001, 0xa200_3100]), &["its index exists under nsids {1, 2, 3}, expected one"]),
        // Without base nothing is known about the stages.
        (|made| without(made, &[BASE, STAGE]), &["base (pi-base, low 000) is missing"]),
        (|made| without(made, &[TREEX]), &["treex (pi-treex, low 001) is missing"]),
        (
            |made| without(made, &[BASE, TREEX, META, SI_STAGE, STRIPE, STRIPE_1]),
            &["base (pi-base, low 000) is missing", "treex (pi-treex, low 001) is missing"],
        ),
        // Primary stages, counted by base.
        (|made| without(made, &[STAGE]), &["1 of 2 primary stages counted by base missing, the first is stage 0 (low 100)"]),
        (
            |made| without(made, &[STAGE, STAGE_1]),
            &["2 of 2 primary stages counted by base missing, the first is stage 0 (low 100); all are 0 to 1"],
        ),
        (
            |made| {
                base(header(made, BASE)).stage_count = 9;
                add(made, [STAGE + 3, STAGE + 7]);
            },
            &["5 of 9 primary stages counted by base missing, the first is stage 2 (low 102); all are 2, 4 to 6, 8"],
        ),
        (|made| add(made, [STAGE + 2]), &["1 primary stages more than the 2 counted by base, the first is stage 2 (low 102)"]),
        (
            |made| add(made, [STAGE + 2, STAGE + 4, STAGE + 0x7ff]),
            &["3 primary stages more than the 2 counted by base, the first is stage 2 (low 102); all are 2, 4, 2047"],
        ),
        (
            |made| {
                without(made, &[STAGE_1]);
                add(made, [STAGE + 2]);
            },
            &[
                "1 of 2 primary stages counted by base missing, the first is stage 1 (low 101)",
                "1 primary stages more than the 2 counted by base, the first is stage 2 (low 102)",
            ],
        ),
        (
            |made| {
                base(header(made, BASE)).stage_count = 2048;
                add(made, STAGE + 2..STAGE + 2048);
            },
            &[],
        ),
        (
            |made| {
                base(header(made, BASE)).stage_count = 2049;
                add(made, STAGE + 2..STAGE + 2048);
            },
            &["base counts 2049 primary stages, expected at most 2048"],
        ),
        (
            |made| base(header(made, BASE)).stage_count = 0,
            &["2 primary stages more than the 0 counted by base, the first is stage 0 (low 100); all are 0 to 1"],
        ),
        // Secondary stages, counted by si-meta.
        (|made| without(made, &[META]), &["there are secondary stages, but si-meta (low 000) is missing"]),
        (
            |made| without(made, &[SI_STAGE]),
            &["1 of 1 secondary stages counted by si-meta missing, the first is stage 0 (low 100)"],
        ),
        (
            |made| {
                meta(header(made, META)).stage_count = 0;
                without(made, &[SI_STAGE]);
            },
            &["si-meta counts 0 secondary stages, expected at least 1"],
        ),
        (
            |made| add(made, [SI_STAGE + 1]),
            &["1 secondary stages more than the 1 counted by si-meta, the first is stage 1 (low 101)"],
        ),
    ];
    for (change, expected) in cases {
        let mut made = whole();
        change(&mut made);
        let headers: Vec<_> = made.iter().map(|(key, header)| (Key(*key).address().expect("an address"), header)).collect();
        assert_eq!(asmt_engine::layout::namespace::missing_or_extra(&headers), *expected);
    }
}

#[test]
fn stripes_that_a_server_would_not_start_with_are_refused_in_memory_and_in_a_backup() {
    fn take(found: &mut Inventory, key: u32) -> Segment {
        found.segments.remove(&Key(key)).expect("a segment")
    }
    /// Moves a segment to another key, in place of the one there.
    fn move_to(found: &mut Inventory, from: u32, to: u32) {
        let mut moved = take(found, from);
        (moved.stat.key, moved.address) = (Key(to), Key(to).address().expect("an address"));
        found.segments.insert(Key(to), moved);
    }
    let cases: &[Case<Inventory>] = &[
        (|_| {}, &[]),
        // A namespace with no data in memory.
        (|found| found.segments.retain(|_, segment| segment.address.segment_type.is_index()), &[]),
        // Only the first bit means that it is trusted.
        (|found| stripe(&mut segment(found, STRIPE_1).header).flags = 3, &[]),
        (|found| drop(take(found, STRIPE_1)), &["data stripe ad005000 counts 2 data stripes, found 1"]),
        (|found| drop(take(found, STRIPE)), &["data stripe ad005001 counts 2 data stripes, found 1", "missing data stripes: 0"]),
        (|found| move_to(found, STRIPE_1, STRIPE_1 + 2), &["missing data stripes: 1 to 2"]),
        (|found| move_to(found, STRIPE_1, STRIPE_1 + 0x1000), &["its data stripes exist under nsids {5, 6}, expected one"]),
        (
            |found| stripe(&mut segment(found, STRIPE_1).header).device_count = 3,
            &["data stripe ad005001 counts 3 data stripes, found 2"],
        ),
        (
            |found| stripe(&mut segment(found, STRIPE_1).header).random = 8,
            &["data stripes belong to two sets: ad005000 has random 0000000000000007, ad005001 has random 0000000000000008"],
        ),
        (
            |found| [STRIPE, STRIPE_1].map(|key| stripe(&mut segment(found, key).header).random = 0).into_iter().collect(),
            &["data stripe ad005000 has random 0: no server has opened it (2 of 2 data stripes)"],
        ),
        (
            |found| stripe(&mut segment(found, STRIPE_1).header).flags = 2,
            &["data stripe ad005001 is not marked as trusted: the server did not stop cleanly"],
        ),
        (
            |found| stripe(&mut segment(found, STRIPE).header).version = 5,
            &["data stripe ad005000 has header version 5, expected 4"],
        ),
        // The two bytes that were once swapped here.
        (
            |found| stripe(&mut segment(found, STRIPE).header).magic = 0x4349_7475_7273_0322,
            &["data stripe ad005000 starts with 4349747572730322, expected 4349747275730322"],
        ),
    ];
    for (change, expected) in cases {
        let mut found = memory(whole());
        change(&mut found);
        let with = |code: &str| expected.iter().map(|text| format!("{code}: namespace 'test': {text}")).collect::<Vec<_>>();
        let plan = plan::backup(&found, &empty(), &request());
        assert_eq!(refused(&plan), with("set-torn"));
        for problem in &plan.refusals {
            assert_eq!(problem.kind, Kind::Refused);
            assert!(problem.hint.contains("if records are in memory only, leave these segments as they are"), "{}", problem.hint);
        }
        // The same holds for a backup of ours and for one of ASMT's.
        let files: Vec<NewSegment> = found.segments.into_iter().map(|(key, segment)| (key.0, segment.header)).collect();
        for listing in [committed("test", 0, files.clone()), directory(files)] {
            for plan in [plan::verify(&listing, &request()), plan::restore(&listing, &memory(vec![]), &request())] {
                assert_eq!(refused(&plan), with("backup-set-torn"));
                for problem in &plan.refusals {
                    assert_eq!(problem.kind, Kind::Damaged);
                    assert!(problem.hint.contains("do not restore them"), "{}", problem.hint);
                }
            }
        }
    }
}

/// A stripe of another namespace belongs to another set: one set lacks it, and the other has it
/// alone.
#[test]
fn a_stripe_of_another_namespace_is_not_one_of_the_set() {
    let mut made = whole();
    let (_, header) = made.iter_mut().find(|(key, _)| *key == STRIPE_1).expect("a stripe");
    stripe(header).name = NamespaceName::new("other");
    let torn = [
        "namespace 'test': data stripe ad005000 counts 2 data stripes, found 1",
        "namespace 'other': data stripe ad005001 counts 2 data stripes, found 1",
        "namespace 'other': missing data stripes: 0",
    ];
    let with = |code: &str| torn.map(|text| format!("{code}: {text}")).to_vec();
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts
    };
    assert_eq!(sorted(refused(&plan::backup(&memory(made.clone()), &empty(), &request()))), sorted(with("set-torn")));
    assert_eq!(sorted(refused(&plan::verify(&directory(made.clone()), &request()))), sorted(with("backup-set-torn")));
    // A manifest names the namespace of a file: another one is damage, and the set cannot be
    // checked further.
    assert_eq!(
        refused(&plan::verify(&committed("test", 0, made), &request())),
        ["content-damaged: namespace 'test': ad005001.dat.gz belongs to namespace 'other', expected 'test'"]
    );
}

/// If the file of a stripe is missing or unreadable, that is reported, and not that the set lacks a
/// stripe. Two sets are still two sets.
#[test]
fn a_set_is_not_counted_where_files_cannot_be_read() {
    let mut made = [whole(), data("test", 0, 5, 3).split_off(2)].concat();
    made.iter_mut().filter(|(key, _)| (STRIPE..STRIPE + 3).contains(key)).for_each(|(_, header)| {
        stripe(header).device_count = 3;
    });
    let torn = "backup-set-torn: namespace 'test': data stripes belong to two sets: ad005000 has random 0000000000000007, \
        ad005002 has random 0000000000000008";
    for (random, torn) in [(7, None), (8, Some(torn.to_owned()))] {
        let (_, last) = made.last_mut().expect("a stripe");
        stripe(last).random = random;
        let without = |mut listing: Listing| {
            listing.files.retain(|file| file.key != Key(STRIPE_1));
            listing
        };
        let missing = "backup-incomplete: namespace 'test': ad005001.dat.gz is missing".to_owned();
        let expected: Vec<String> = [Some(missing), torn.clone()].into_iter().flatten().collect();
        assert_eq!(refused(&plan::verify(&without(committed("test", 0, made.clone())), &request())), expected);
        let listing = Listing { problems: vec![unreadable("ad005001.dat.gz")], ..without(directory(made.clone())) };
        let expected: Vec<String> = torn.into_iter().chain(["unsafe-file: ad005001.dat.gz is a directory".to_owned()]).collect();
        assert_eq!(refused(&plan::verify(&listing, &request())), expected);
    }
}

/// The cost of a start is mentioned if there are stripes.
#[test]
fn a_hint_to_start_the_server_says_what_that_loses() {
    let lost = " (this is a cold start: records that are in memory only are lost; ";
    for (made, is_said) in [(whole(), true), (index("test", 0, 1, 2), false)] {
        let mut found = memory(made);
        base(&mut segment(&mut found, BASE).header).shutdown = 0;
        found.segments.remove(&Key(STAGE_1));
        let plan = plan::backup(&found, &empty(), &request());
        let codes: Vec<Code> = plan.refusals.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::SegmentsIncomplete, Code::NotCleanlyShutDown]);
        assert!(plan.refusals.iter().all(|problem| problem.hint.contains(lost) == is_said), "{:?}", plan.refusals);
    }
}

#[test]
fn nothing_of_the_same_instance_and_nsid_or_name_may_stand_in_the_directory() {
    /// Any file with a name of asmt's or ASMT's: a file of a segment, a manifest, or an unreadable
    /// one.
    fn put(listing: &mut Listing, file: &str) {
        match parse_file_name(file) {
            Some((key, ..)) => {
                let mut record = directory(vec![(key.0, Header::None)]).files.remove(0);
                file.clone_into(&mut record.name);
                listing.files.push(record);
            }
            None => {
                let mut record = committed("test", 0, whole()).manifests.remove(0);
                file.clone_into(&mut record.name);
                listing.manifests.push(record);
            }
        }
    }
    let unknown = |count: u32, first: &str| {
        format!(
            "backup-exists: namespace 'test': the directory contains {count} files of instance 0 with the same nsid or name \
             (the first is {first}); expected none"
        )
    };
    let nameless = |nsid: u8, rest: &str| {
        format!(
            "backup-exists: namespace 'test': /b already contains a backup of nsid {nsid} (no name) under the same nsid (1970-01-01, not \
             restored yet, without a manifest): {rest}"
        )
    };
    let own = "backup-exists: /b already contains a backup of namespace 'test' (1970-01-01, not restored yet): 1 files, the first is \
               asmt-manifest-0-test.json";
    let cases: [(&[&str], Vec<String>, Vec<String>); _] = [
        (&["asmt-manifest-0-other.json", "ae002000.dat", "ae101000.dat", "ad006000.dat"], vec![], vec![]),
        (&["asmt-manifest-0-test.json"], vec![own.to_owned()], vec![unknown(1, "asmt-manifest-0-test.json")]),
        (
            &["AE001000.dat", "ae0018ff.dat.gz"],
            vec![nameless(1, "2 files, the first is AE001000.dat")],
            vec![unknown(2, "AE001000.dat")],
        ),
        // The nsid of the stripes counts, too.
        (&["ae005100.dat"], vec![nameless(5, "1 files, the first is ae005100.dat")], vec![unknown(1, "ae005100.dat")]),
    ];
    for (files, of_a_backup, expected) in cases {
        let mut listing = empty();
        files.iter().for_each(|file| put(&mut listing, file));
        assert_eq!(refused(&plan::backup(&memory(whole()), &listing, &request())), of_a_backup, "{files:?}");
        // An unreadable file is there, too.
        let problems = files.iter().map(|file| unreadable(file)).collect();
        let plan = plan::backup(&memory(whole()), &Listing { problems, ..empty() }, &request());
        assert_eq!(refused(&plan), expected, "{files:?}");
    }
}

#[test]
fn what_an_interrupted_run_had_committed_is_superseded() {
    let mut listing = committed("test", 0, whole());
    let names: Vec<String> = listing.files.iter().map(|file| file.name.clone()).collect();
    listing.leftovers.superseded =
        names.iter().cloned().chain(["asmt-manifest-0-test.json", "ae002000.dat"].map(str::to_owned)).collect();
    let plan = plan::backup(&memory(whole()), &listing, &request());
    assert_eq!(refused(&plan), [] as [&str; 0]);
    // Sorted, and only files that exist.
    assert_eq!(plan.namespaces[0].superseded, [names.as_slice(), &["asmt-manifest-0-test.json".to_owned()]].concat());
    listing.leftovers.superseded.remove("ad005000.dat.gz");
    let plan = plan::backup(&memory(whole()), &listing, &request());
    let expected = "backup-exists: /b already contains a backup of namespace 'test' (1970-01-01, not restored yet): 9 files, the \
                    first is ad005000.dat.gz";
    assert_eq!(refused(&plan), [expected]);
}

/// A request that may replace a backup of 'test' of which this is known.
fn replacing(fate: Fate) -> Request {
    let old = plan::OldBackup { fate, is_spent: false };
    Request { replace: Some(plan::Fates::from([(name("test"), old)])), ..request() }
}

fn with_free_bytes(listing: Listing, free_bytes: u64) -> Listing {
    let target = Target { path: "/b".to_owned(), writable: Writable::Yes, free_bytes: Some(free_bytes) };
    Listing { target: Some(target), ..listing }
}

#[test]
fn an_older_backup_goes_first_or_last_or_stays() {
    let listing = both(committed("test", 0, whole()), committed("other", 0, index("other", 0, 2, 1)));
    let own = committed("test", 0, whole());
    let files =
        own.files.iter().map(|file| file.name.clone()).chain(["asmt-manifest-0-test.json".to_owned()]).collect::<Vec<_>>();
    let text = "namespace 'test': the backup of 1970-01-01T00:00:01Z";
    let plan_with = |request: &Request| {
        let plan = plan::backup(&memory(whole()), &listing, request);
        assert_eq!(refused(&plan), [] as [&str; 0]);
        plan
    };
    let plan = plan_with(&replacing(Fate::Dead));
    let [namespace] = plan.namespaces.as_slice() else { panic!("one namespace") };
    assert_eq!((&namespace.outdated, namespace.superseded.len(), namespace.is_replacing), (&files, 0, false));
    assert_eq!(remarked(&plan), [format!("old-first: {text} is outdated: it is removed before the new one is made")]);
    let last = [format!("old-last: {text} stays until the new one is complete and takes its place")];
    // One of which nothing is known is unsure.
    let unknown = Request { replace: Some(plan::Fates::new()), ..request() };
    for request in [replacing(Fate::Unsure), unknown] {
        let plan = plan_with(&request);
        let [namespace] = plan.namespaces.as_slice() else { panic!("one namespace") };
        assert_eq!((&namespace.superseded, namespace.outdated.len(), namespace.is_replacing), (&files, 0, true));
        assert_eq!(remarked(&plan), last);
    }
    let plan = plan_with(&replacing(Fate::Current));
    assert_eq!((plan.namespaces[0].current_ms, plan::data_bytes(&plan.namespaces)), (Some(1000), 0));
    let stays = "is there already, and the server has not run since: it stays, and no other one is made";
    assert_eq!(remarked(&plan), [format!("already-backed-up: {text} {stays}")]);
    let plan = plan::backup(&memory(whole()), &listing, &replacing(Fate::Overtaken));
    assert_eq!(plan.refusals.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::DeviceSetTorn]);
    // The mark stays: it speaks of other backups, too.
    let mut marked = listing.clone();
    let mark = UsageMark::new(&Identity { made_ms: 1000, boot_id: Some("boot".to_owned()), files: None });
    marked.marks.push(("asmt-used-0-test.json".to_owned(), Ok(mark)));
    assert_eq!(plan::backup(&memory(whole()), &marked, &replacing(Fate::Dead)).namespaces[0].outdated, files);
}

#[test]
fn room_is_counted_with_what_goes_first_and_without_what_goes_last() {
    let mut found = memory(whole());
    for segment in found.segments.values_mut() {
        segment.resident_bytes = Some(8192);
    }
    let needed = 8 * 8192;
    let allocated: u64 = committed("test", 0, whole()).files.iter().map(|file| file.allocated_bytes).sum();
    assert!(allocated > needed, "so that nothing else need be free");
    let plan_with = |free_bytes, change: fn(&mut Listing), fate| {
        let mut listing = with_free_bytes(committed("test", 0, whole()), free_bytes);
        change(&mut listing);
        refused(&plan::backup(&found, &listing, &replacing(fate)))
    };
    let full = |free_bytes, what: &str| {
        vec![format!("disk-full: no room in /b: the files need at least {needed} bytes, and {free_bytes} {what}")]
    };
    let linked: fn(&mut Listing) = |listing| listing.files.iter_mut().for_each(|file| file.link_count = 2);
    let last = "are free while the older backup is there, which stays until the new one is complete";
    assert_eq!(plan_with(0, |_| {}, Fate::Dead), Vec::<String>::new());
    // A file with another name elsewhere stays where it is.
    assert_eq!(plan_with(0, linked, Fate::Dead), full(0, "are free"));
    assert_eq!(plan_with(needed - 1, |_| {}, Fate::Unsure), full(needed - 1, last));
    assert_eq!(plan_with(needed, |_| {}, Fate::Unsure), Vec::<String>::new());
    // Nothing is written.
    let denied: fn(&mut Listing) = |listing| listing.target.as_mut().expect("a target").writable = Writable::ReadOnlyFileSystem;
    assert_eq!(plan_with(0, denied, Fate::Current), Vec::<String>::new());
    assert_eq!(plan_with(1 << 30, denied, Fate::Unsure).len(), 1);
}

#[test]
fn only_what_is_known_to_be_this_namespaces_is_replaced() {
    let of = |listing: &Listing, request: &Request| {
        let plan = plan::backup(&memory(whole()), listing, request);
        let refusals = refused(&plan);
        let [refusal] = refusals.as_slice() else { panic!("one refusal: {refusals:?}") };
        refusal.split("; --replace does not apply: ").nth(1).unwrap_or_default().to_owned()
    };
    let dead = || replacing(Fate::Dead);
    let under_its_nsid = committed("new", 0, index("new", 0, 1, 1));
    assert_eq!(of(&under_its_nsid, &dead()), "it is that of another namespace");
    let mut doubled = committed("test", 0, whole());
    doubled.problems.push(unreadable("ae001100.dat.gz"));
    assert_eq!(of(&doubled, &dead()), "ae001100.dat.gz is a directory");
    // What cannot be read is reported by itself.
    for code in [Code::SystemCall, Code::PermissionDenied] {
        let mut unread = committed("test", 0, whole());
        unread.files.remove(0);
        unread.problems.push((unread.manifests[0].name.clone(), Problem::new(code, "read asmt-manifest: failed", "a hint")));
        let plan = plan::backup(&memory(whole()), &unread, &dead());
        assert_eq!(refused(&plan), [format!("{}: read asmt-manifest: failed", code.as_str())]);
    }
    let mut newer = committed("test", 0, whole());
    newer.manifests[0].manifest = Err(ManifestError::TooNew(99));
    assert_eq!(of(&newer, &dead()), "a newer asmt made it");
    let elsewhere = |change: fn(&mut Manifest)| {
        let mut listing = committed("test", 0, whole());
        change(listing.manifests[0].manifest.as_mut().expect("a manifest"));
        listing
    };
    let other_host = elsewhere(|manifest| manifest.host = "other".to_owned());
    let container = elsewhere(|manifest| {
        manifest.boot_id = String::new();
        manifest.noted.ipc_namespace = Some("id:7".to_owned());
    });
    let heir = |fate| {
        let old = plan::OldBackup { fate, is_spent: true };
        Request { replace: Some(plan::Fates::from([(name("test"), old)])), ..request() }
    };
    for (listing, request) in
        [(&other_host, dead()), (&other_host, heir(Fate::Dead)), (&container, dead()), (&container, replacing(Fate::Unsure))]
    {
        assert_eq!(of(listing, &request), "it belongs to another server");
    }
    // What this container was restored from is its own; what is used up is of no use to another.
    for request in [heir(Fate::Dead), heir(Fate::Unsure), heir(Fate::Current)] {
        assert_eq!(refused(&plan::backup(&memory(whole()), &container, &request)), [] as [&str; 0]);
    }
    // One without a manifest, or with a damaged one, is replaced.
    let mut damaged = committed("test", 0, whole());
    damaged.manifests[0].manifest = Err(ManifestError::Damaged("it is empty".to_owned()));
    for listing in [directory(whole()), damaged] {
        let plan = plan::backup(&memory(whole()), &listing, &replacing(Fate::Unsure));
        assert_eq!(refused(&plan), [] as [&str; 0]);
        assert_eq!(plan.namespaces[0].superseded.len(), listing.files.len() + listing.manifests.len());
    }
}

/// A backup that is in the way a month later is described, and named for removal only if it was
/// retired.
#[test]
fn a_backup_in_the_way_is_named_with_its_date_and_use_and_its_files_exactly() {
    const DAY_MS: u64 = 86_400_000;
    type Change = fn(&mut UsageMark);
    let used = |at_ms| UseRecord { at_ms, host: "host".to_owned(), boot_id: "b1".to_owned(), ..UseRecord::default() };
    let of = |made: Vec<NewSegment>, path: &str, change: Option<Change>| {
        let mut listing = committed("test", 0, made);
        path.clone_into(&mut listing.directory.as_mut().expect("a directory").path);
        if let Some(change) = change {
            let mut mark = UsageMark::new(&Identity { made_ms: 1000, boot_id: Some("boot".to_owned()), files: None });
            change(&mut mark);
            listing.marks.push(("asmt-used-0-test.json".to_owned(), Ok(mark)));
        }
        let mut refusals = plan::backup(&memory(whole()), &listing, &request()).refusals;
        assert_eq!((refusals.len(), refusals[0].code), (1, Code::BackupExists));
        let problem = refusals.remove(0);
        (problem.message, problem.hint)
    };
    let files = "/b/a2001???.dat /b/a2001???.dat.gz /b/ad005???.dat.gz /b/ae001???.dat /b/ae001???.dat.gz \
                 /b/asmt-manifest-0-test.json";
    let move_it = |files: &str| {
        format!(
            "add --replace, which keeps it until the new one is complete, unless it is outdated; or use another directory, or move \
             it away: mkdir -p -m 0700 /b/old-19700101T000001Z && mv {files} /b/old-19700101T000001Z"
        )
    };
    let exists = |state: &str, count: u8| {
        format!(
            "/b already contains a backup of namespace 'test' (1970-01-01, {state}): {count} files, the first is a2001000.dat"
        )
    };
    let with_mark = format!("{files} /b/asmt-used-0-test.json");
    assert_eq!(
        of(whole(), "/b", None),
        (exists("not restored yet", 9), move_it(files) + "; it has not been restored yet: do not remove it")
    );
    let restored: Change = |mark| mark.restores.push(UseRecord { at_ms: 31 * DAY_MS, ..UseRecord::default() });
    assert_eq!(
        of(whole(), "/b", Some(restored)),
        (exists("a restore was started on 1970-02-01", 10), move_it(&with_mark) + "; keep it there until the new backup is made")
    );
    let retired: Change = |mark| mark.retired = Some(UseRecord { at_ms: 32 * DAY_MS, ..UseRecord::default() });
    assert_eq!(
        of(whole(), "/b", Some(retired)),
        (
            exists("retired on 1970-02-02", 10),
            format!("{}; or, because it is retired, remove exactly its files: rm {with_mark}", move_it(&with_mark))
        )
    );
    // A mark of another backup does not count for this one.
    let other: Change = |mark| (mark.backup_ms, mark.retired) = (7, Some(UseRecord::default()));
    assert_eq!(of(whole(), "/b", Some(other)).0, exists("not restored yet", 9));
    // A path is one word for a shell, and the root gets no double slash.
    assert!(of(whole(), "/a b", None).1.contains("mkdir -p -m 0700 '/a b'/old-19700101T000001Z && mv '/a b'/a2001???.dat "));
    // Another namespace under the same nsid is named, and moved as a whole.
    let mut listing = committed("other", 0, [index("other", 0, 1, 1), data("other", 0, 9, 1)].concat());
    listing.marks.push(("asmt-used-0-other.json".to_owned(), Err("it is not a usage mark".to_owned())));
    let plan = plan::backup(&memory(index("test", 0, 1, 1)), &listing, &request());
    let exist = plan.refusals.iter().find(|problem| problem.message.contains("contains a backup")).expect("a refusal");
    assert!(exist.message.starts_with(
        "namespace 'test': /b already contains a backup of namespace 'other' under the same nsid (1970-01-01, not restored yet): 5 files"
    ));
    assert!(exist.hint.contains(" /b/ad009???.dat.gz ") && !exist.hint.contains("rm "), "{}", exist.hint);
    // ASMT's backup is known by its times.
    let mut listing = directory(whole());
    listing.files.iter_mut().for_each(|file| file.modified_ms = 40 * DAY_MS);
    let mut mark = UsageMark::new(&Identity { made_ms: 40 * DAY_MS, boot_id: None, files: None });
    mark.retired = Some(used(50 * DAY_MS));
    listing.marks.push(("asmt-used-0-test.json".to_owned(), Ok(mark)));
    let found = refused(&plan::backup(&memory(whole()), &listing, &request()));
    let asmts = "backup-exists: /b already contains a backup of namespace 'test' (1970-02-10, retired on 1970-02-20, without a manifest): \
                 9 files, the first is a2001000.dat";
    assert_eq!(found, [asmts]);
}

#[test]
fn a_directory_of_the_systems_is_no_place_for_a_backup() {
    let mut listing = empty();
    listing.directory.as_mut().expect("a directory").is_systems = true;
    let text = "system-directory: /b is a system directory, with other files in it; expected a directory for backups only";
    assert_eq!(refused(&plan::backup(&memory(whole()), &listing, &request())), [text]);
    // A backup that is there already can be restored.
    let mut listing = committed("test", 0, whole());
    listing.directory.as_mut().expect("a directory").is_systems = true;
    assert_eq!(refused(&plan::restore(&listing, &memory(vec![]), &request())), [] as [&str; 0]);
}

/// The unit is that of instance 0: for another one it would stop the wrong server.
#[test]
fn the_server_of_another_instance_is_named_and_not_stopped_by_the_unit() {
    let mut found = memory(index("test", 2, 1, 1));
    segment(&mut found, 0xae20_1000).stat.attached_count = 1;
    let shmid = segment(&mut found, 0xae20_1000).stat.shmid;
    found.attachers.entry(shmid).or_default().push(Attacher { pid: 9, command: "asd".to_owned() });
    let plan = plan::backup(&found, &empty(), &Request { instance: 2, ..request() });
    let text = "segment-attached: namespace 'test' of instance 2: 1 of 3 segments attached (the first is ae201000), expected \
        none; attached by pid 9 (asd)";
    assert_eq!(refused(&plan), [text]);
    assert!(plan.refusals[0].hint.starts_with("the server of instance 2 is running: stop that server and no other"));
    // A nameless one, too.
    let mut found = memory(index("test", 2, 1, 1));
    base(&mut segment(&mut found, 0xae20_1000).header).name = None;
    let plan = plan::backup(&found, &empty(), &Request { instance: 2, ..request() });
    assert!(refused(&plan)[0].starts_with("segment-invalid: nsid 1 (no name) of instance 2: "), "{:?}", refused(&plan));
}

#[test]
fn a_backup_refuses_the_work_of_another_run_and_planted_names() {
    let mut listing = empty();
    listing.leftovers.live.push(live_run());
    let plan = plan::backup(&memory(whole()), &listing, &request());
    assert_eq!(refused(&plan), ["another-asmt: another asmt (pid 42) is using the directory"]);
    // Names that only asmt uses begin with a dot; a backup does not report files of other
    // namespaces.
    let listing = Listing { problems: vec![unreadable(".asmt-run.x"), unreadable("ae002000.dat")], ..empty() };
    assert_eq!(refused(&plan::backup(&memory(whole()), &listing, &request())), ["unsafe-file: .asmt-run.x is a directory"]);
}

#[test]
fn a_file_system_in_memory_is_used_only_where_it_is_meant() {
    let mut listing = empty();
    listing.directory.as_mut().expect("a directory").volatile = Some(Volatile::InMemory("tmpfs"));
    let plan = plan::backup(&memory(whole()), &listing, &request());
    assert_eq!(
        refused(&plan),
        ["volatile-directory: /b is on a tmpfs, which is in memory and is empty after a reboot; expected a directory on a disk"]
    );
    let plan = plan::backup(&memory(whole()), &listing, &Request { allow_volatile: true, ..request() });
    assert_eq!(refused(&plan), [] as [&str; 0]);
    assert_eq!(remarked(&plan), ["volatile-directory: /b is on a tmpfs, which is in memory and is empty after a reboot"]);
}

#[test]
fn where_the_kernel_destroys_what_is_not_attached_nothing_is_planned() {
    let text = "kernel.shm_rmid_forced is 1, expected 0: the kernel destroys each segment as soon as no process has it attached";
    let mut found = memory(whole());
    assert!(plan::list_remarks(&found).is_empty());
    found.is_rmid_forced = true;
    let plan = plan::backup(&found, &empty(), &request());
    assert_eq!(refused(&plan), [format!("segments-not-kept: {text}")]);
    assert!(plan.namespaces.is_empty());
    assert_eq!(plan::list_remarks(&found), [Remark::new(NoteCode::SegmentsNotKept, text)]);
    let restored =
        plan::restore(&committed("test", 0, whole()), &Inventory { is_rmid_forced: true, ..memory(vec![]) }, &request());
    assert_eq!(refused(&restored), [format!("segments-not-kept: {text}")]);
}

#[test]
fn holes_that_cannot_be_told_from_what_is_swapped_out_are_remarked() {
    for (finds_all_holes, swapped, expected) in [
        (Some(false), &[STAGE, BASE] as &[u32], true),
        (Some(false), &[], false),
        (Some(true), &[STAGE, BASE], false),
        (None, &[STAGE, BASE], false),
    ] {
        let mut found = Inventory { finds_all_holes, ..memory(whole()) };
        swapped.iter().for_each(|key| segment(&mut found, *key).swapped_bytes = 4096);
        let text = "holes-unseen: CAP_CHECKPOINT_RESTORE is missing, so asmt cannot see the holes in the 2 segments that are \
            partly swapped out: all of their 1114112 bytes will be read and become resident";
        let expected: &[&str] = if expected { &[text] } else { &[] };
        assert_eq!(remarked(&plan::backup(&found, &empty(), &request())), expected, "{finds_all_holes:?}, {swapped:?}");
    }
}

#[test]
fn a_segment_that_comes_or_goes_between_two_looks_fails_the_backup() {
    let planned = |found: &Inventory| plan::backup(found, &empty(), &request()).namespaces;
    let before = memory(whole());
    let cases: &[Case<Inventory>] = &[
        // Other changes are checked after copying.
        (|found| segment(found, STAGE).stat.mode = 0o666, &[]),
        (
            |found| segment(found, STAGE).stat.shmid = 99,
            &["segment ae001100 (shmid 7) appeared or disappeared between two readings of shared memory"],
        ),
        (
            |found| drop(found.segments.remove(&Key(STRIPE_1))),
            &["segment ad005001 (shmid 4) appeared or disappeared between two readings of shared memory"],
        ),
    ];
    for (change, expected) in cases {
        let mut now = before.clone();
        change(&mut now);
        for (one, other) in [(&before, &now), (&now, &before)] {
            let outcome = plan::check_same(&planned(one), &planned(other));
            let found: Vec<String> = outcome.err().into_iter().map(|error| error.first().message.clone()).collect();
            assert_eq!(found, *expected);
        }
    }
}

#[test]
fn what_somebody_else_has_made_is_named_and_stops_nothing_but_what_it_claims_to_be_of() {
    type Change = fn(&mut Inventory);
    fn add(found: &mut Inventory, made: Vec<NewSegment>, maker: u32, uid: u32) {
        let keys: Vec<u32> = made.iter().map(|(key, _)| *key).collect();
        let mut others = memory(made);
        others.segments.values_mut().zip(90..).for_each(|(segment, shmid)| segment.stat.shmid = shmid);
        give(&mut others, &keys, maker, uid);
        found.segments.extend(others.segments);
    }
    let left = |made_by: &str, title: &str| {
        format!(
            "foreign-segments: left out, because created by {made_by}; {title} does not belong to a namespace of the server, which runs as another user"
        )
    };
    let nsid_1 = "nsid 1 (no name)";
    let without_index = || [index("test", 0, 1, 2), data("test", 0, 5, 2)].concat();
    // The server is root, or uid 7; the stranger is uid 8.
    /// The planted segments; the namespaces that are planned all the same; remarks and refusals.
    type Planted<'a> = (Change, &'a [&'a str], Vec<String>, Vec<String>);
    let cases: [Planted<'_>; _] = [
        (|_| {}, &["test"], vec![], vec![]),
        // Planted beside the index, and given to root or to the server.
        (|found| add(found, vec![(SI_STAGE + 7, Header::None)], 8, 8), &["test"], vec![left("uid 8: a2001107 (shmid 90)", nsid_1)], vec![]),
        (|found| add(found, vec![(SI_STAGE + 7, Header::None)], 8, 0), &["test"], vec![left("uid 8: a2001107 (shmid 90)", nsid_1)], vec![]),
        (
            |found| add(found, vec![(SI_STAGE + 7, Header::None)], 8, 7),
            &["test"],
            vec![left("uid 7 and uid 8: a2001107 (shmid 90)", nsid_1)],
            vec![],
        ),
        (
            |found| add(found, vec![(META, Header::SiMeta(SiMetaHeader { stage_count: 1 })), (SI_STAGE, Header::None)], 8, 8),
            &["test"],
            vec![left("uid 8: a2001000 (shmid 90), a2001100 (shmid 91)", nsid_1)],
            vec![],
        ),
        // Alone, attached or not, of any nsid.
        (
            |found| {
                add(found, vec![(0xae00_9100, Header::None)], 8, 8);
                segment(found, 0xae00_9100).stat.attached_count = 1;
            },
            &["test"],
            vec![left("uid 8: ae009100 (shmid 90)", "nsid 9 (no name)")],
            vec![],
        ),
        // A stripe with the server's name, or with another one.
        (|found| add(found, data("test", 0, 9, 1), 8, 8), &["test"], vec![], vec![]),
        (
            |found| add(found, data("cache", 0, 9, 2).split_off(1), 8, 8),
            &["test"],
            vec![left("uid 8: ad009001 (shmid 90)", "namespace 'cache'")],
            vec![],
        ),
        // A whole group may be a namespace by itself, and so may one that has a base.
        (|found| add(found, index("other", 0, 9, 1), 8, 8), &["test", "other"], vec![], vec![]),
        (
            |found| add(found, index("other", 0, 9, 1).split_off(1), 8, 8),
            &["test"],
            vec![left("uid 8: ae009001 (shmid 90), ae009100 (shmid 91)", "nsid 9 (no name)")],
            vec![],
        ),
        (
            |found| {
                let base = index("other", 0, 9, 1).into_iter().take(1);
                add(found, base.collect(), 8, 8);
            },
            &["test", "other"],
            vec![],
            vec![
                "segments-incomplete: namespace 'other': treex (pi-treex, low 001) is missing".to_owned(),
                "segments-incomplete: namespace 'other': 1 of 1 primary stages counted by base missing, the first is stage 0 (low \
                 100)"
                    .to_owned(),
            ],
        ),
    ];
    let two_owners = |own: &str, other: &str| {
        format!(
            "foreign-segments: namespace 'test': segments under this name were created by {own}, and others by {other}; \
             expected one owner"
        )
    };
    for (change, chosen, remarks, refusals) in cases {
        for server in [0, 7] {
            let mut found = memory(without_index());
            let keys: Vec<u32> = found.segments.keys().map(|key| key.0).collect();
            // Restored by root and given to the server; base was made by the server itself.
            give(&mut found, &keys, 0, server);
            give(&mut found, &[BASE, TREEX], server, server);
            change(&mut found);
            let plan = plan::backup(&found, &empty(), &request());
            let names: Vec<&str> = plan.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
            let has_namesake = found.segments.contains_key(&Key(0xad00_9000));
            if has_namesake && server == 7 {
                // Nobody can know which of them is the server's. The rest can be backed up by name.
                assert_eq!(refused(&plan), [two_owners("uid 7", "uid 8"), two_owners("uid 8", "uid 7")]);
                continue;
            }
            let remarks =
                if has_namesake { vec![left("uid 8: ad009000 (shmid 90)", "namespace 'test'")] } else { remarks.clone() };
            assert_eq!((names, remarked(&plan), refused(&plan)), (chosen.to_vec(), remarks, refusals.clone()), "{server}");
            let named = plan::backup(&found, &empty(), &named(&["test"]));
            assert_eq!(refused(&named), [] as [&str; 0], "{server}");
            assert_eq!(named.namespaces[0].copies.len(), 6, "what a stranger has planted is not among them");
        }
    }
}

#[test]
fn a_base_that_somebody_else_has_made_vouches_for_nothing() {
    // The server has crashed, so its base is gone, and a stranger makes one that fits.
    for (server, maker, uid) in [(0, 8, 8), (0, 8, 0), (7, 8, 8), (7, 8, 7)] {
        let mut found = memory(index("test", 0, 1, 2));
        let keys: Vec<u32> = found.segments.keys().map(|key| key.0).collect();
        give(&mut found, &keys, server, server);
        give(&mut found, &[BASE], maker, uid);
        for request in [request(), named(&["test"])] {
            let plan = plan::backup(&found, &empty(), &request);
            assert!(plan.check().is_err(), "{server} {maker} {uid}: {plan:?}");
        }
    }
}
