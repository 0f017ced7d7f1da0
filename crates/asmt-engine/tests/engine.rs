//! The engine as a whole, with real segments: each test is in an IPC namespace of its own, which
//! goes with its thread.

use asmt_engine::error::Code;
use asmt_engine::facts::caller::Caller;
use asmt_engine::facts::memory::{CgroupLimit, Memory};
use asmt_engine::format::Form;
use asmt_engine::look::segments;
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::{Report, Verb};
use asmt_engine::progress::Control;
use asmt_engine::{Failure, perform, plan, store};
use asmt_shm::Key;
use asmt_shm::sysv::{self, Access, Attachment};
use std::path::PathBuf;
use std::sync::Arc;

#[path = "engine/hostile.rs"]
mod hostile;
mod machine;

use machine::{Machine, on_own_machine, request};

impl Machine {
    fn sim(&self, line: &str) -> String {
        machine::sim(line)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn run(&self, request: &Asked) -> Result<Report, Failure> {
        perform(&request.clone().into(), "asmt test", &Control::default())
    }

    fn names(&self, name: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(name)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }
}

/// Root requests all of instance 0.
fn plan_request() -> plan::Request {
    plan::Request {
        instance: 0,
        namespaces: None,
        form: Form::Plain,
        require_manifest: false,
        replace: None,
        allow_volatile: false,
        allow_private_ipc: false,
        caller: Caller { uid: 0, groups: vec![0], capabilities: u64::MAX, unmapped_uid: None },
        host: asmt_engine::look::server::host().expect("a host"),
        page_bytes: 4096,
    }
}

fn code_of(outcome: Result<Report, Failure>) -> Code {
    outcome
        .map(|report| panic!("expected a failure, found {report:?}"))
        .unwrap_or_else(|failure: Failure| failure.error.first().code)
}

#[test]
fn every_shape_goes_through_and_back() {
    on_own_machine(|machine| {
        for (number, shape) in [
            "--stages 1 --stage-size 64KiB",
            "--stages 3 --stage-size 5MiB --fill 1",
            "--stages 2 --stage-size 12MiB --fill 0.3 --si-stages 2 --stripes 3",
            "--no-index --stripes 1 --stripe-size 4MiB --stripe-fill 1",
            "--stages 1 --stage-size 4198400 --fill 1 --stripes 2 --data-nsid 32 --nsid 9",
            "--stages 1 --base-size 4096 --treex-size 40000",
        ]
        .into_iter()
        .enumerate()
        {
            machine.sim(&format!("make {shape} --seed {number}"));
            let before = machine.sim("sum");
            for (compress, check) in [(false, false), (true, true)] {
                let directory = machine.path(&format!("{number}-{compress}"));
                let backup = Asked { compress, check, ..request(Verb::Backup, &directory) };
                let made = machine.run(&backup).unwrap_or_else(|failure| panic!("{shape}: {}", failure.error));
                // The sums of the report are those of the memory.
                for line in before.lines() {
                    let [key, _, crc32, ..] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                    let segment = made.segments.iter().find(|segment| segment.key == key).expect(key);
                    assert_eq!(segment.crc32.as_deref(), Some(crc32), "{shape}: {key}");
                }
                machine.run(&request(Verb::Verify, &directory)).unwrap_or_else(|failure| panic!("{shape}: {}", failure.error));
                machine.sim("remove");
                let restore = Asked { check, ..request(Verb::Restore, &directory) };
                machine.run(&restore).unwrap_or_else(|failure| panic!("{shape}: {}", failure.error));
                assert_eq!(machine.sim("sum"), before, "{shape}");
            }
            machine.sim("remove");
        }
    });
}

#[test]
fn a_stop_before_the_commit_leaves_nothing() {
    on_own_machine(|machine| {
        machine.sim("make --stages 2 --stage-size 24MiB --fill 1");
        let before = machine.sim("sum");
        // The operation is stopped as soon as each kind of event is seen; "" means before it
        // begins.
        for event in ["", "reserved", "wrote"] {
            let control = Arc::new(Control::default());
            let outcome = stopped_at(event, &control, &Asked { compress: true, ..request(Verb::Backup, &machine.path("b")) });
            assert_eq!(code_of(outcome), Code::Interrupted, "{event}");
            assert_eq!(machine.names("b"), Vec::<String>::new(), "{event}");
        }
        machine.run(&Asked { compress: true, ..request(Verb::Backup, &machine.path("b")) }).expect("a backup");
        machine.sim("remove");
        for event in ["", "filled"] {
            let control = Arc::new(Control::default());
            let outcome = stopped_at(event, &control, &Asked { threads: Some(1), ..request(Verb::Restore, &machine.path("b")) });
            assert_eq!(code_of(outcome), Code::Interrupted, "{event}");
            assert_eq!(machine.sim("sum"), "", "{event}");
        }
        machine.run(&request(Verb::Restore, &machine.path("b"))).expect("a restore");
        assert_eq!(machine.sim("sum"), before);
    });
}

#[test]
fn what_is_abandoned_changes_nothing() {
    on_own_machine(|machine| {
        machine.sim("make --stages 2 --stripes 2");
        machine.run(&request(Verb::Backup, &machine.path("b"))).expect("a backup");
        let (segments, names) = (machine.sim("sum"), machine.names("b"));
        let unchanged = |verb: Verb, directory: &str| {
            let control = Control::default();
            assert!(control.abandon(), "nothing has begun");
            let outcome = perform(&request(verb, &machine.path(directory)).into(), "asmt test", &control);
            assert_eq!(code_of(outcome), Code::Interrupted, "{verb:?} {directory}");
        };
        std::fs::create_dir(machine.path("empty")).expect("a directory");
        unchanged(Verb::Backup, "new");
        unchanged(Verb::Backup, "empty");
        unchanged(Verb::Retire, "b");
        assert!(!machine.path("new").exists());
        assert_eq!((machine.names("empty"), machine.names("b")), (Vec::new(), names.clone()));
        machine.sim("remove");
        unchanged(Verb::Restore, "b");
        assert_eq!((machine.sim("sum"), machine.names("b")), (String::new(), names));
        machine.run(&request(Verb::Restore, &machine.path("b"))).expect("a restore");
        assert_eq!(machine.sim("sum"), segments);
    });
}

/// Performs a request, and stops it when an event with that code is seen.
fn stopped_at(event: &str, control: &Arc<Control>, request: &Asked) -> Result<Report, Failure> {
    if event.is_empty() {
        control.stop();
    }
    let watcher = {
        let (control, event) = (Arc::clone(control), event.to_owned());
        std::thread::spawn(move || {
            while control.check_stop().is_ok() {
                if control.snapshot().events.iter().any(|seen| seen.code.as_str() == event) {
                    control.stop();
                }
                std::thread::yield_now();
            }
        })
    };
    let outcome = perform(&request.clone().into(), "asmt test", control);
    control.stop();
    watcher.join().expect("the watcher");
    outcome
}

#[test]
fn a_segment_that_is_attached_or_changed_meanwhile_fails_the_backup() {
    on_own_machine(|machine| {
        machine.sim("make --stages 1 --stage-size 32MiB --fill 1");
        let before = machine.sim("sum");
        let shmid = sysv::all_segments().expect("a list").iter().find(|stat| stat.key == Key(0xae00_1001)).expect("treex").shmid;
        for disturb in ["attach", "mode"] {
            let control = Control::default();
            let request = Asked { compress: true, threads: Some(1), ..request(Verb::Backup, &machine.path("b")) };
            let outcome = std::thread::scope(|scope| {
                let run = scope.spawn(|| perform(&request.clone().into(), "asmt test", &control));
                while !control.snapshot().events.iter().any(|event| event.code.as_str() == "reserved") {
                    assert!(!run.is_finished(), "it ended before it copied");
                    std::thread::yield_now();
                }
                let held = (disturb == "attach").then(|| Attachment::new(shmid, Access::ReadWrite, 0).expect("an attachment"));
                if disturb == "mode" {
                    sysv::set_owner(shmid, 0, 0, 0o600).expect("another mode");
                }
                let outcome = run.join().expect("no panic");
                drop(held);
                outcome
            });
            assert_eq!(code_of(outcome), Code::SegmentChanged, "{disturb}");
            assert_eq!(machine.names("b"), Vec::<String>::new(), "{disturb}");
        }
        assert_eq!(machine.sim("sum").replace(" 600 ", " 666 "), before);
    });
}

#[test]
fn a_plan_is_a_value() {
    on_own_machine(|machine| {
        machine.sim("make --stripes 2");
        machine.sim("make --name other --nsid 2 --shutdown 0");
        let found = segments::take().expect("an inventory");
        let request = plan::Request { form: Form::Gzip, ..plan_request() };
        let empty = asmt_engine::facts::directory::Listing::default();
        let (first, second) = (plan::backup(&found, &empty, &request), plan::backup(&found, &empty, &request));
        assert_eq!(first.namespaces, second.namespaces);
        assert_eq!(first.refusals, second.refusals);
        assert_eq!(first.refusals.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::NotCleanlyShutDown]);
        assert!(first.check().is_err());
        let names: Vec<String> =
            first.namespaces.iter().flat_map(|namespace| &namespace.copies).map(plan::Copy::file_name).collect();
        let expected =
            ["ad001000.dat.gz", "ad001001.dat.gz", "ae001000.dat", "ae001001.dat.gz", "ae001100.dat.gz", "ae001101.dat.gz"];
        assert_eq!(names[..6], expected);
    });
}

#[test]
fn what_the_machine_is_set_to_is_weighed_before_anything_is_done() {
    on_own_machine(|machine| {
        machine.sim("make --stages 2 --stage-size 1048576 --fill 1");
        let directory = machine.path("b");
        machine.run(&request(Verb::Backup, &directory)).expect("a backup");
        let mut swapped = segments::take().expect("an inventory");
        let request = plan_request();
        swapped.segments.values_mut().for_each(|segment| segment.swapped_bytes = 4096);
        for (finds_all_holes, count) in [(Some(true), 0), (None, 0), (Some(false), 1)] {
            swapped.finds_all_holes = finds_all_holes;
            let plan = plan::backup(&swapped, &asmt_engine::facts::directory::Listing::default(), &request);
            let found: Vec<&str> = plan.remarks.iter().map(|remark| remark.message.as_str()).collect();
            assert_eq!(found.len(), count, "{found:?}");
            assert!(
                found.iter().all(|text| text.contains("CAP_CHECKPOINT_RESTORE is missing") && text.contains("2359296 bytes"))
            );
        }
        machine.sim("remove");
        let empty = segments::take().expect("an inventory");
        let listing = store::Store::open(&directory).and_then(|store| store.list()).expect("a listing");
        // All of it is committed; less is filled, because treex and base have holes.
        let promised = 2 * 1048576 + 196_608 + 65_536;
        let needed: u64 =
            plan::restore(&listing, &empty, &request).namespaces[0].sources.iter().map(|s| s.least_memory_bytes).sum();
        assert!(needed < promised && needed >= 2 * 1048576);
        let cgroup = |available_bytes| Some(CgroupLimit { file: "/x/memory.max".into(), limit_bytes: 1 << 40, available_bytes });
        let plenty = Memory {
            available_bytes: Some(needed),
            largest_bytes: Some(1048576),
            promisable_bytes: Some(promised),
            cgroup: cgroup(needed),
        };
        let cases = [
            (plenty.clone(), ""),
            (Memory::default(), ""),
            (Memory { available_bytes: Some(needed - 1), ..plenty.clone() }, "bytes of memory are available, expected at least"),
            (Memory { largest_bytes: Some(1_048_575), ..plenty.clone() }, "segment ae00110"),
            (Memory { promisable_bytes: Some(promised - 1), ..plenty.clone() }, "vm.overcommit_memory is 2"),
            (Memory { cgroup: cgroup(needed - 1), ..plenty.clone() }, "/x/memory.max is 1099511627776, of which"),
        ];
        for (memory, expected) in cases {
            let plan = plan::restore(&listing, &asmt_engine::facts::memory::Inventory { memory, ..empty.clone() }, &request);
            match plan.refusals.as_slice() {
                [] => assert_eq!(expected, ""),
                [problem] => {
                    assert!(!expected.is_empty() && problem.message.contains(expected), "{expected}: {problem:?}");
                    assert!(problem.code == Code::NotEnoughMemory && !problem.hint.is_empty());
                }
                more => panic!("{expected}: {more:?}"),
            }
        }
    });
}
