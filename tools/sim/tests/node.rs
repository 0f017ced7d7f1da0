//! A node's life in the simulator, step by step, compared with what a server was seen to do.
//!
//! Needs root, or to be root of a user namespace: each test has an IPC namespace of its own.

use asmt_engine::facts::memory::{Inventory, State};
use asmt_engine::look::segments;
use asmt_kit::files::Scratch;
use asmt_kit::namespaces::on_own_ipc;
use asmt_shm::{Key, StripeHeader};
use asmt_sim::output_of;
use std::path::Path;

const BASE: Key = Key(0xae00_1000);
const TREEX: Key = Key(0xae00_1001);

/// A machine that belongs to the test: an IPC namespace and a directory.
struct Machine(Scratch);

fn on_own_machine(test: impl FnOnce(&Machine) + Send) {
    on_own_ipc(|| test(&Machine(Scratch::new("sim-node")))).expect("a new IPC namespace needs root");
}

impl Machine {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Two main devices and a shadow of a namespace that was shut down cleanly, and the options
    /// that name them.
    fn devices(&self) -> String {
        let [a, b, shadow] = ["a", "b", "shadow"].map(|name| self.path(name));
        for path in [&a, &b, &shadow] {
            sim(&format!("device --path {path} --devices 2 --random 7"));
        }
        format!("--devices {a},{b} --shadows {shadow}")
    }

    /// Random, flags and number of each device.
    fn headers(&self) -> Vec<(u64, u32, u32)> {
        ["a", "b", "shadow"].map(|name| header(Path::new(&self.path(name)))).to_vec()
    }
}

fn header(path: &Path) -> (u64, u32, u32) {
    let header = StripeHeader::parse(&std::fs::read(path).expect("a device")).expect("a header");
    (header.random, header.flags, header.device_count)
}

fn sim(line: &str) -> String {
    output_of(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn memory() -> Inventory {
    segments::take().expect("a look")
}

/// The id of each segment.
fn ids() -> Vec<(Key, i32)> {
    memory().segments.values().map(|segment| (segment.key(), segment.stat.shmid)).collect()
}

fn state() -> State {
    let memory = memory();
    segments::state(&memory, &memory.groups()[0])
}

/// Random and flags of each stripe.
fn stripes() -> Vec<(u64, u32)> {
    let of = |header: &asmt_shm::Header| match header {
        asmt_shm::Header::Stripe(stripe) => Some((stripe.random, stripe.flags)),
        _ => None,
    };
    memory().segments.values().filter_map(|segment| of(&segment.header)).collect()
}

#[test]
fn a_warm_start_discards_base_and_treex_and_a_clean_stop_makes_them_anew() {
    on_own_machine(|machine| {
        let devices = machine.devices();
        sim("make --stripes 2 --si-stages 1 --data-nsid 5");
        // Stripes of the devices' set, as a stop leaves them.
        for key in ["ad005000", "ad005001"] {
            sim(&format!("poke --key {key} --offset 48 --hex 0700000000000000"));
        }
        let before = ids();
        let started = sim(&format!("start {devices} --random 9"));
        assert!(started.contains("started warm, random 0000000000000009"), "{started}");
        let is_kept = |(key, _): &&(Key, i32)| ![BASE, TREEX].contains(key);
        assert_eq!(ids(), before.iter().filter(is_kept).copied().collect::<Vec<_>>());
        assert_eq!(machine.headers(), [(9, 0, 2); 3]);
        assert_eq!(stripes(), [(9, 0); 2]);
        let running = (ids(), machine.headers());
        sim(&format!("crash {devices}"));
        assert_eq!((ids(), machine.headers()), running, "killed and running look the same");
        sim(&format!("stop {devices}"));
        assert_eq!(machine.headers(), [(9, 1, 2); 3], "a stop does not change the random");
        assert_eq!((stripes(), state()), (vec![(9, 1); 2], State::Clean));
        assert_eq!(ids().iter().filter(is_kept).copied().collect::<Vec<_>>(), running.0);
        for command in ["stop", "crash"] {
            assert!(output_of(&format!("{command} {devices}")).is_err_and(|error| error.contains("does not run")), "{command}");
        }
        // A second start stores another random.
        assert!(sim(&format!("start {devices}")).contains("warm"));
        assert!(machine.headers().iter().all(|header| *header == machine.headers()[0] && ![7, 9].contains(&header.0)));
    });
}

#[test]
fn without_a_trusted_base_all_is_made_anew() {
    on_own_machine(|machine| {
        let devices = machine.devices();
        sim("make --stages 3 --si-stages 2 --stripes 2 --uid 1234 --gid 2345 --mode 640");
        sim("make --name other --nsid 2 --stripes 1 --data-nsid 2");
        let others = ids().into_iter().filter(|(key, _)| key.0 >> 12 & 0xff == 2).collect::<Vec<_>>();
        sim("poke --key ae001000 --offset 4 --hex 00");
        let old = ids();
        let started = sim(&format!("start {devices} --random 9"));
        assert!(started.contains("started cold"), "{started}");
        let keys = |found: &[(Key, i32)]| found.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>();
        let own: Vec<_> = ids().into_iter().filter(|found| !others.contains(found)).collect();
        assert_eq!(keys(&own), ["a2001000", "a2001100", "ad001000", "ad001001", "ae001100"]);
        assert!(own.iter().all(|found| !old.contains(found)), "none is what it was");
        assert!(others.iter().all(|found| ids().contains(found)), "another namespace's stay");
        let memory = memory();
        assert!(own.iter().all(|(key, _)| (memory.segments[key].stat.uid, memory.segments[key].stat.mode) == (1234, 0o640)));
        assert_eq!(machine.headers(), [(9, 0, 2); 3]);
        sim(&format!("stop {devices}"));
        assert_eq!(state(), State::Clean);
    });
}

/// A server that is killed leaves neither base nor treex. A server that finds stripes that were not
/// shut down cleanly starts empty.
#[test]
fn what_was_killed_starts_cold_and_a_namespace_in_memory_alone_starts_empty() {
    on_own_machine(|machine| {
        sim("start --stripes 2 --no-index");
        sim("crash");
        sim("remove");
        sim("make --stripes 2 --untrusted");
        let full = sim("peek --key ad001000 --offset 65536 --length 16");
        assert!(sim("start").contains("cold"));
        assert_ne!(sim("peek --key ad001000 --offset 65536 --length 16"), full);
        sim("stop");
        assert!(sim("start").contains("warm"));
        sim("crash");
        assert!(sim("start").contains("cold"));
        // All devices are blank: an index would lead to nothing.
        sim("stop");
        std::fs::write(machine.path("blank"), [0; 8192]).expect("written");
        assert!(sim(&format!("start --devices {}", machine.path("blank"))).contains("cold"));
        assert_eq!(header(Path::new(&machine.path("blank"))).1, 0);
    });
}

#[test]
fn a_server_that_does_not_start_has_burnt_base_and_treex_and_nothing_else() {
    on_own_machine(|machine| {
        let devices = machine.devices();
        let path = machine.path("b");
        for (spoil, why) in [
            (format!("device --path {path} --devices 2 --random 8"), "is of another set"),
            (format!("device --path {path} --devices 2 --random 7 --name other"), "belongs to namespace 'other'"),
            (format!("device --path {path} --devices 2 --random 7 --version 5"), "has version 5, expected 4"),
            ("poke --key ad001001 --offset 48 --hex ff".to_owned(), "stripes belong to two sets"),
            ("remove --key ad001001".to_owned(), "1 stripes are there, and one counts 2"),
            ("poke --key ad001001 --offset 8 --hex 05".to_owned(), "a stripe has version 5"),
        ] {
            machine.devices();
            sim("make --stripes 2");
            sim(&spoil);
            let (before, headers) = (ids(), machine.headers());
            let error = output_of(&format!("start {devices}")).expect_err(&spoil);
            assert!(error.contains("does not start") && error.contains(why), "{spoil}: {error}");
            let expected: Vec<_> = before.into_iter().filter(|(key, _)| ![BASE, TREEX].contains(key)).collect();
            assert_eq!((ids(), machine.headers()), (expected, headers), "{spoil}");
            sim("remove");
        }
        // A device that is not blank, but has no header.
        std::fs::write(&path, [7; 4096]).expect("written");
        sim("make");
        assert!(output_of(&format!("start {devices}")).is_err_and(|error| error.contains("is not blank")));
    });
}

#[test]
fn where_another_process_has_a_segment_attached_nothing_is_changed() {
    on_own_machine(|machine| {
        let devices = machine.devices();
        sim("make");
        let (before, headers) = (ids(), machine.headers());
        let held = asmt_shm::sysv::Attachment::new(before[0].1, asmt_shm::sysv::Access::ReadOnly, 0).expect("attached");
        let error = output_of(&format!("start {devices}")).expect_err("attached");
        assert!(error.contains("is attached by another process"), "{error}");
        assert_eq!((ids(), machine.headers()), (before, headers));
        drop(held);
        sim(&format!("start {devices}"));
        // An nsid belongs to one namespace.
        sim(&format!("stop {devices}"));
        for (options, why) in [("--name other", "nsid 1 is that of namespace 'test'"), ("--nsid 2", "has nsid 1")] {
            assert!(output_of(&format!("start {options}")).is_err_and(|error| error.contains(why)), "{options}");
        }
        assert!(output_of("start --random 0").is_err(), "no server has that");
    });
}
