//! The judgement of docs/STALENESS.md on evidence that is written by hand: each witness beside the
//! nearest one that shows nothing.

use asmt_engine::error::{Code, Problem};
use asmt_engine::facts::directory::{FileRecord, Listing, ManifestRecord, Owner};
use asmt_engine::facts::server::{
    ComparedTrace, Configuration, Device, DeviceState, Evidence, Host, Medium, ServiceHistory, ServiceStart, TraceChange,
};
use asmt_engine::format::mark::{Identity, UsageMark, UseRecord};
use asmt_engine::format::{Encoding, HeaderStamp, Manifest, ServerFingerprint, Trace, TraceState};
use asmt_engine::layout::server_config::{self, ServerConfig};
use asmt_engine::plan::fates::Fate;
use asmt_engine::plan::staleness::{Overrides, SLACK_MS, Sighting, Verdict, fate, is_spent, judge_backup, judge_restore};
use asmt_engine::plan::{Contents, NamespaceBackup, NamespaceRestore, Plan, Source};
use asmt_shm::{Header, Key, NamespaceName, StripeHeader};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MADE_MS: u64 = 1_000_000;
const NOW_MS: u64 = 2_000_000;
const BACKUP_BOOT: &str = "00000000-0000-0000-0000-00000000000b";
const BOOT: &str = "00000000-0000-0000-0000-000000000001";
const OTHER_BOOT: &str = "00000000-0000-0000-0000-000000000002";

fn name(text: &str) -> NamespaceName {
    NamespaceName::new(text).expect("a name")
}

/// A header of a set of two of namespace 'test', made from the bytes that a server left at a clean
/// stop.
fn header(of: &str, random: u64, is_trusted: bool) -> DeviceState {
    let bytes = include_bytes!("../../../__test__/fixtures/server/file-2-clean-stop/test-a.dat.head");
    let stopped = StripeHeader::parse(bytes).expect("a header");
    DeviceState::Header(StripeHeader { name: NamespaceName::new(of), random, flags: u32::from(is_trusted), ..stopped })
}

fn device(path: &str, number: u64, state: DeviceState) -> Device {
    Device { path: path.to_owned(), medium: Some(Medium::Device), unique: Some((0, number)), ids: Vec::new(), state }
}

fn noted(what: &str, random: u64) -> HeaderStamp {
    HeaderStamp { what: what.to_owned(), random, is_trusted: true, ..HeaderStamp::default() }
}

fn config(text: &str) -> ServerConfig {
    server_config::parse(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused:?}"))
}

const TWO_DEVICES: &str = "namespace test {\n storage-engine device {\n device /dev/a\n device /dev/b\n }\n}\n";
const IN_MEMORY: &str = "namespace test {\n storage-engine memory {\n data-size 1G\n }\n}\n";

fn manifest(of: &str, devices: Vec<HeaderStamp>) -> Manifest {
    Manifest {
        tool: "asmt 0.1.0".to_owned(),
        created_ms: MADE_MS,
        host: "node1".to_owned(),
        boot_id: BACKUP_BOOT.to_owned(),
        instance: 0,
        namespace: name(of),
        nsid: Some(1),
        base_version: Some(12),
        noted: ServerFingerprint {
            machine_id: Some("m1".to_owned()),
            devices,
            ipc_namespace: Some("id:b".to_owned()),
            monotonic_ms: Some(5000),
            configuration: Some("/etc/aerospike/aerospike.conf".to_owned()),
            ..ServerFingerprint::default()
        },
        segments: Vec::new(),
    }
}

/// The input of a case: a directory, a machine, and a request. The default is a backup that is
/// certainly current.
#[derive(Clone)]
struct Case {
    /// The requested namespaces.
    asked: Vec<(&'static str, u32)>,
    manifests: Vec<Manifest>,
    marks: Vec<(String, Result<UsageMark, String>)>,
    evidence: Evidence,
    overrides: Overrides,
}

impl Default for Case {
    fn default() -> Self {
        let devices = [device("/dev/a", 1, header("test", 7, true)), device("/dev/b", 2, header("test", 7, true))];
        Self {
            asked: vec![("test", 0xae00_1000)],
            manifests: vec![manifest("test", vec![noted("/dev/a", 7), noted("/dev/b", 7)])],
            marks: Vec::new(),
            evidence: Evidence {
                host: Host {
                    name: "node1".to_owned(),
                    machine_id: Some("m1".to_owned()),
                    boot_id: BOOT.to_owned(),
                    ipc_namespace: "id:1".to_owned(),
                    now_ms: NOW_MS,
                    monotonic_ms: 1000,
                },
                instance: 0,
                configuration: Configuration::Read { path: "aerospike.conf".to_owned(), config: config(TWO_DEVICES) },
                named: Vec::new(),
                devices: devices.into_iter().map(|device| (device.path.clone(), device)).collect(),
                traces: Vec::new(),
                compared: BTreeMap::new(),
                unseen: Vec::new(),
                service: ServiceHistory::default(),
                is_markable: true,
            },
            overrides: Overrides::default(),
        }
    }
}

impl Case {
    /// A namespace that exists in memory alone: nothing is exact.
    fn in_memory() -> Self {
        let mut case = Self { manifests: vec![manifest("test", Vec::new())], ..Self::default() };
        case.evidence.configuration = Configuration::Read { path: "aerospike.conf".to_owned(), config: config(IN_MEMORY) };
        case.evidence.devices.clear();
        case
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn state(self, path: &str, state: DeviceState) -> Self {
        self.with(|case| case.evidence.devices.get_mut(path).expect("a device").state = state)
    }

    /// A restore that was begun.
    fn used(self, of: &str, used: UseRecord) -> Self {
        self.with(|case| {
            let backup = case.manifests.iter().find(|manifest| manifest.namespace.as_str() == of);
            let boot_id = backup.map(|backup| backup.boot_id.clone());
            let mut mark = UsageMark::new(&Identity { made_ms: MADE_MS, boot_id, files: None });
            mark.restores.push(used);
            case.marks.push((format!("asmt-used-0-{of}.json"), Ok(mark)));
        })
    }

    fn trace(self, change: TraceChange) -> Self {
        self.with(|case| {
            let path = "/var/log/aerospike/aerospike.log".to_owned();
            for manifest in &mut case.manifests {
                manifest.noted.traces = vec![Trace { path: path.clone(), state: None }];
            }
            case.evidence.compared.insert(name("test"), vec![ComparedTrace { path, change }]);
        })
    }

    fn started(self, boot_id: &str, monotonic_ms: u64) -> Self {
        self.with(|case| {
            let boot_id = boot_id.replace('-', "");
            let start = ServiceStart { boot_id, monotonic_ms, source: "the journal", has_failed_early: false };
            case.evidence.service.starts.push(start);
        })
    }

    fn listing(&self) -> Listing {
        let record = |manifest: &Manifest| ManifestRecord {
            name: format!("asmt-manifest-0-{}.json", manifest.namespace),
            owner: Owner { uid: 0, mode: 0o600 },
            link_count: 1,
            manifest: Ok(manifest.clone()),
        };
        let file = |(_, key): &(&str, u32)| FileRecord {
            name: format!("{key:08x}.dat"),
            key: Key(*key),
            address: Key(*key).address().expect("an address"),
            encoding: Encoding::Raw,
            file_bytes: 4096,
            allocated_bytes: 4096,
            size_bytes: 4096,
            crc32: None,
            uid: 0,
            gid: 0,
            mode: 0o600,
            link_count: 1,
            modified_ms: MADE_MS,
            header: Header::None,
        };
        Listing {
            files: self.asked.iter().map(file).collect(),
            manifests: self.manifests.iter().map(record).collect(),
            marks: self.marks.clone(),
            ..Listing::default()
        }
    }

    fn asked(&self) -> Vec<NamespaceRestore> {
        let source = |key: u32| Source {
            key: Key(key),
            address: Key(key).address().expect("an address"),
            size_bytes: 4096,
            uid: 0,
            gid: 0,
            mode: 0o600,
            file: format!("{key:08x}.dat"),
            file_bytes: 4096,
            encoding: Encoding::Raw,
            contents: Contents::Plain,
            allocated_bytes: 0,
            least_memory_bytes: 0,
            most_memory_bytes: 0,
        };
        let restore = |(asked, key): &(&str, u32)| NamespaceRestore {
            instance: self.evidence.instance,
            name: name(asked),
            nsid: Some(1),
            base_version: Some(12),
            created_ms: (!self.manifests.is_empty()).then_some(MADE_MS),
            sources: vec![source(*key)],
        };
        self.asked.iter().map(restore).collect()
    }

    fn judge(&self) -> Verdict {
        judge_restore(&self.asked(), &self.listing(), &self.evidence, self.overrides)
    }

    /// What is to become of this backup, where a new one may replace it.
    fn fate(&self, found: Sighting) -> Fate {
        fate(&self.asked()[0], &self.listing(), &self.evidence, found)
    }

    /// The same boot and IPC namespace as those of the backup.
    fn at_once(self) -> Self {
        self.with(|case| {
            (case.evidence.host.boot_id, case.evidence.host.ipc_namespace) = (BACKUP_BOOT.to_owned(), "id:b".to_owned());
        })
    }

    fn codes(&self) -> Vec<Code> {
        self.judge().refusals.iter().map(|problem| problem.code).collect()
    }
}

fn used_in(boot_id: &str, ipc_namespace: Option<&str>) -> UseRecord {
    UseRecord {
        at_ms: MADE_MS + 1,
        host: "node1".to_owned(),
        boot_id: boot_id.to_owned(),
        ipc_namespace: ipc_namespace.map(str::to_owned),
        id: Some(format!("run-{boot_id}")),
        has_served: false,
        has_made: false,
        served_ms: None,
    }
}

fn check(table: Vec<(&str, Case, &[Code])>) {
    for (what, case, codes) in table {
        assert_eq!(case.codes(), codes, "{what}: {:?}", case.judge());
    }
}

#[test]
fn block_devices_that_answer_decide() {
    let fresh = Case::default();
    let verdict = fresh.judge();
    assert!(verdict.refusals.is_empty() && verdict.remarks.is_empty() && verdict.is_proven && !verdict.must_mark, "{verdict:?}");
    let unreadable = || DeviceState::Unreadable("is not there".to_owned());
    let add = |case: Case, state: DeviceState| {
        case.with(|case| {
            let text = TWO_DEVICES.replace("device /dev/b", "device /dev/b\n device /dev/c");
            case.evidence.configuration = Configuration::Read { path: "c".to_owned(), config: config(&text) };
            case.evidence.devices.insert("/dev/c".to_owned(), device("/dev/c", 3, state));
        })
    };
    check(vec![
        ("another random", Case::default().state("/dev/b", header("test", 8, true)), &[Code::BackupStale]),
        ("not trusted", Case::default().state("/dev/a", header("test", 7, false)), &[Code::BackupStale]),
        ("wiped", Case::default().state("/dev/a", DeviceState::Blank), &[Code::BackupStale]),
        ("something else", Case::default().state("/dev/a", DeviceState::Unknown), &[Code::BackupStale]),
        ("another namespace's", Case::default().state("/dev/a", header("other", 7, true)), &[Code::BackupStale]),
        ("cannot be read", Case::default().state("/dev/b", unreadable()), &[Code::DeviceUnreadable]),
        (
            "cannot be read, and the other one has moved on",
            Case::default().state("/dev/a", unreadable()).state("/dev/b", header("test", 8, false)),
            &[Code::DeviceUnreadable, Code::BackupStale],
        ),
        ("an added one that is blank", add(Case::default(), DeviceState::Blank), &[]),
        ("an added one of another set", add(Case::default(), header("test", 9, true)), &[Code::BackupStale]),
        ("an added one of another namespace", add(Case::default(), header("other", 7, true)), &[Code::BackupStale]),
        ("an added one with other data", add(Case::default(), DeviceState::Unknown), &[Code::BackupStale]),
        ("an added one that cannot be read", add(Case::default(), unreadable()), &[Code::DeviceUnreadable]),
        // Devices are more exact than any other witness.
        ("a log that changed", Case::default().trace(TraceChange::Changed), &[]),
        ("used in another boot", Case::default().used("test", used_in(OTHER_BOOT, None)), &[]),
        ("a start in the journal", Case::default().started(OTHER_BOOT, 1), &[]),
        ("cannot be marked", Case::default().with(|case| case.evidence.is_markable = false), &[]),
    ]);
}

#[test]
fn a_noted_device_is_asked_whatever_the_configuration_names() {
    let without = |text: &'static str| {
        move |case: &mut Case| case.evidence.configuration = Configuration::Read { path: "c".to_owned(), config: config(text) }
    };
    let none = |case: &mut Case| case.evidence.configuration = Configuration::NotThere("none".to_owned());
    let other = "namespace other {\n storage-engine memory {\n data-size 1G\n }\n}\n";
    for case in [Case::default().with(none), Case::default().with(without(IN_MEMORY)), Case::default().with(without(other))] {
        assert_eq!(case.codes(), []);
        assert!(case.judge().is_proven);
        assert_eq!(case.clone().state("/dev/a", header("test", 8, true)).codes(), [Code::BackupStale]);
        assert_eq!(case.state("/dev/a", DeviceState::Unreadable("is gone".to_owned())).codes(), [Code::DeviceUnreadable]);
    }
}

#[test]
fn a_device_that_moved_on_is_told_from_one_that_was_replaced() {
    let message = |case: Case| case.judge().refusals[0].message.clone();
    assert_eq!(
        message(Case::default().state("/dev/b", header("test", 8, true))),
        "namespace 'test': /dev/b has random 0000000000000008, expected 0000000000000007: the server has run since the backup; \
         restoring would roll back to 1970-01-01T00:16:40Z"
    );
    assert_eq!(
        message(Case::default().state("/dev/b", DeviceState::Blank)),
        "namespace 'test': /dev/b is blank: it was replaced or wiped since the backup of 1970-01-01T00:16:40Z"
    );
}

#[test]
fn names_of_devices_may_change_with_a_reboot() {
    let swap = |case: &mut Case| {
        // /dev/b has become /dev/c, and another namespace's disk is under its old name.
        case.evidence.devices.insert("/dev/c".to_owned(), device("/dev/c", 2, header("test", 7, true)));
        case.evidence.devices.insert("/dev/b".to_owned(), device("/dev/b", 9, header("other", 5, true)));
    };
    assert_eq!(Case::default().with(swap).codes(), []);
    // A second path to a disk that counts already is not a second disk.
    let alias = |case: &mut Case| {
        case.evidence.devices.insert("/dev/c".to_owned(), device("/dev/c", 1, header("test", 7, true)));
        case.evidence.devices.insert("/dev/b".to_owned(), device("/dev/b", 9, DeviceState::Unreadable("is gone".to_owned())));
    };
    assert_eq!(Case::default().with(alias).codes(), [Code::DeviceUnreadable]);
    let by_id = |random: u64| {
        move |case: &mut Case| {
            case.manifests[0].noted.devices[1].ids = vec!["wwid:b".to_owned()];
            case.evidence.devices.insert("/dev/b".to_owned(), device("/dev/b", 9, DeviceState::Blank));
            let moved = Device { ids: vec!["wwid:b".to_owned()], ..device("/dev/z", 2, header("test", random, true)) };
            case.evidence.devices.insert("/dev/z".to_owned(), moved);
        }
    };
    assert_eq!(Case::default().with(by_id(7)).codes(), []);
    let verdict = Case::default().with(by_id(8)).judge();
    assert!(verdict.refusals[0].message.contains("/dev/z has random 0000000000000008"), "{verdict:?}");
}

#[test]
fn a_copy_of_a_disk_in_a_file_is_no_proof() {
    let copied = |case: &mut Case| case.evidence.devices.get_mut("/dev/a").expect("a device").medium = Some(Medium::File);
    assert!(!Case::default().with(copied).with(|case| drop(case.manifests[0].noted.devices.pop())).judge().is_proven);
}

#[test]
fn a_storage_file_that_says_the_same_is_no_proof() {
    let file = |case: &mut Case| {
        for noted in &mut case.manifests[0].noted.devices {
            noted.is_file = true;
        }
        for device in case.evidence.devices.values_mut() {
            device.medium = Some(Medium::File);
        }
    };
    let verdict = Case::default().with(file).judge();
    assert!(verdict.refusals.is_empty() && !verdict.is_proven && verdict.must_mark, "{verdict:?}");
    assert!(verdict.remarks[0].message.contains("its storage is a file"), "{verdict:?}");
    check(vec![
        ("moved on", Case::default().with(file).state("/dev/a", header("test", 8, true)), &[Code::BackupStale]),
        ("used in another boot", Case::default().with(file).used("test", used_in(OTHER_BOOT, None)), &[Code::BackupUsed]),
        ("used here", Case::default().with(file).used("test", used_in(BOOT, Some("id:1"))), &[]),
        ("a log that changed", Case::default().with(file).trace(TraceChange::Changed), &[Code::BackupStale]),
    ]);
}

#[test]
fn without_a_proof_each_sign_refuses_and_its_neighbour_does_not() {
    let verdict = Case::in_memory().judge();
    assert!(verdict.refusals.is_empty() && verdict.must_mark && !verdict.is_proven, "{verdict:?}");
    assert_eq!(verdict.remarks.iter().map(|remark| remark.code.as_str()).collect::<Vec<_>>(), ["not-proven"], "once");
    let retired = |case: &mut Case| {
        let mut mark = UsageMark::new(&Identity { made_ms: MADE_MS, boot_id: Some(BACKUP_BOOT.to_owned()), files: None });
        mark.retired = Some(used_in(BOOT, None));
        case.marks.push(("asmt-used-0-test.json".to_owned(), Ok(mark)));
    };
    let unreadable = |case: &mut Case| case.marks.push(("asmt-used-0-test.json".to_owned(), Err("no mark".to_owned())));
    let served = UseRecord { has_served: true, ..used_in(BOOT, Some("id:1")) };
    let future = |case: &mut Case| case.manifests[0].created_ms = NOW_MS + SLACK_MS + 1;
    check(vec![
        ("used in this boot and IPC namespace", Case::in_memory().used("test", used_in(BOOT, Some("id:1"))), &[]),
        ("used in this boot, before IPC namespaces were noted", Case::in_memory().used("test", used_in(BOOT, None)), &[]),
        ("used in another IPC namespace", Case::in_memory().used("test", used_in(BOOT, Some("id:2"))), &[Code::BackupUsed]),
        ("used in another boot", Case::in_memory().used("test", used_in(OTHER_BOOT, Some("id:1"))), &[Code::BackupUsed]),
        ("used here, and served", Case::in_memory().used("test", served), &[Code::BackupUsed]),
        ("an earlier backup's mark", Case::in_memory().used("test", used_in(OTHER_BOOT, None)).with(future), &[]),
        ("retired", Case::in_memory().with(retired), &[Code::BackupRetired]),
        ("retired, and devices agree", Case::default().with(retired), &[Code::BackupRetired]),
        ("a mark that cannot be read", Case::in_memory().with(unreadable), &[Code::BackupUsed]),
        ("a log that changed", Case::in_memory().trace(TraceChange::Changed), &[Code::BackupStale]),
        ("the rest of the stop", Case::in_memory().trace(TraceChange::EndOfStop), &[]),
        ("a log that did not", Case::in_memory().trace(TraceChange::None), &[]),
        ("cannot be marked", Case::in_memory().with(|case| case.evidence.is_markable = false), &[Code::CannotMarkUsed]),
        ("dated in the future", Case::in_memory().with(future), &[]),
    ]);
    let message = Case::in_memory().with(future).judge().remarks[0].message.clone();
    assert!(message.contains("dated in the future"), "{message}");
}

#[test]
fn starts_of_the_service_count_from_the_backup_on() {
    let journal = |boots: &'static [&'static str]| {
        move |case: &mut Case| case.evidence.service.journal_boots = boots.iter().map(|boot| boot.replace('-', "")).collect()
    };
    let early = |case: &mut Case| case.evidence.service.starts[0].has_failed_early = true;
    let here = || used_in(BOOT, Some("id:1"));
    check(vec![
        ("before the backup", Case::in_memory().started(BACKUP_BOOT, 4999), &[]),
        ("after it, in the same boot", Case::in_memory().started(BACKUP_BOOT, 5001), &[Code::BackupStale]),
        ("in this boot", Case::in_memory().started(BOOT, 1), &[Code::BackupStale]),
        (
            "in a boot before the backup's",
            Case::in_memory().started(OTHER_BOOT, 1).with(journal(&[OTHER_BOOT, BACKUP_BOOT, BOOT])),
            &[],
        ),
        (
            "in a boot between",
            Case::in_memory().started(OTHER_BOOT, 1).with(journal(&[BACKUP_BOOT, OTHER_BOOT, BOOT])),
            &[Code::BackupStale, Code::CannotBeTold],
        ),
        ("a failure within seconds", Case::in_memory().started(BOOT, 1).with(early), &[Code::BackupStale]),
        ("the same, after a restore", Case::in_memory().used("test", here()).started(BOOT, 1).with(early), &[]),
    ]);
}

#[test]
fn more_than_one_boot_cannot_be_told() {
    let logins = |times: &'static [u64]| move |case: &mut Case| case.evidence.service.login_boots_ms = times.to_vec();
    let journal = |boots: &'static [&'static str]| {
        move |case: &mut Case| case.evidence.service.journal_boots = boots.iter().map(|boot| boot.replace('-', "")).collect()
    };
    check(vec![
        ("one boot", Case::in_memory().with(logins(&[1, MADE_MS + 1])), &[]),
        ("two boots", Case::in_memory().with(logins(&[MADE_MS + 1, MADE_MS + 2])), &[Code::CannotBeTold]),
        ("one boot, in the journal", Case::in_memory().with(journal(&[BACKUP_BOOT, BOOT])), &[]),
        ("two boots, in the journal", Case::in_memory().with(journal(&[BACKUP_BOOT, OTHER_BOOT, BOOT])), &[Code::CannotBeTold]),
        ("with devices", Case::default().with(logins(&[MADE_MS + 1, MADE_MS + 2])), &[]),
        (
            "in the boot of the backup",
            Case::in_memory().with(logins(&[MADE_MS + 1, MADE_MS + 2])).with(|case| case.manifests[0].boot_id = BOOT.to_owned()),
            &[],
        ),
    ]);
}

/// Namespace 'b', which has no device, beside 'test', which has.
fn beside(devices_of_b: Vec<HeaderStamp>) -> Case {
    Case::default().with(|case| {
        case.manifests.push(manifest("b", devices_of_b));
        case.asked = vec![("b", 0xae00_2000)];
    })
}

#[test]
fn the_witnesses_of_one_namespace_speak_for_all_of_its_server() {
    let moved = |case: Case| case.state("/dev/a", header("test", 8, true));
    let of_a = || HeaderStamp { namespace: Some(name("test")), ..noted("/dev/a", 7) };
    check(vec![
        ("nothing has moved", beside(Vec::new()), &[]),
        ("the other namespace's device has moved on", moved(beside(Vec::new())), &[Code::BackupStale]),
        ("it was noted with this one", moved(beside(vec![of_a()])), &[Code::BackupStale]),
        (
            "the other's backup is an older one",
            moved(beside(Vec::new())).with(|case| case.manifests[0].created_ms = MADE_MS - 1),
            &[],
        ),
        (
            "the other one was restored in an earlier boot",
            beside(Vec::new()).used("test", used_in(OTHER_BOOT, None)),
            &[Code::BackupUsed],
        ),
        (
            "it was, before this one was backed up",
            beside(Vec::new())
                .used("test", used_in(OTHER_BOOT, None))
                .with(|case| case.manifests[1].noted.earlier_uses = vec![format!("run-{OTHER_BOOT}")]),
            &[],
        ),
        (
            "another instance's mark",
            beside(Vec::new()).used("test", used_in(OTHER_BOOT, None)).with(|case| {
                case.marks[0].0 = "asmt-used-1-test.json".to_owned();
            }),
            &[],
        ),
    ]);
    // Notes of b's later manifest about a's device prove nothing for an older backup of a, such as
    // one of ASMT's.
    let older = beside(vec![of_a()]).with(|case| {
        case.manifests.remove(0);
        case.asked = vec![("test", 0xae00_1000)];
    });
    assert!(!older.judge().is_proven && older.judge().must_mark, "{:?}", older.judge());
    assert_eq!(older.used("test", used_in(OTHER_BOOT, None)).codes(), [Code::BackupUsed]);
    assert!(!beside(vec![of_a()]).judge().is_proven, "a configuration without the other namespace leaves its device alone");
    // With a proof of its own, the other namespace's device does not count: its server may have run
    // without it.
    let own = |case: Case| {
        case.with(|case| {
            case.manifests[1].noted.devices.push(noted("/dev/own", 5));
            case.evidence.devices.insert("/dev/own".to_owned(), device("/dev/own", 8, header("b", 5, true)));
        })
    };
    assert_eq!(own(moved(beside(Vec::new()))).codes(), []);
}

#[test]
fn another_hosts_backup_is_told_by_machine_id_and_name_unless_devices_are_exact() {
    let of = |case: Case, machine_id: Option<&str>, host: &str| {
        case.with(|case| {
            case.manifests[0].noted.machine_id = machine_id.map(str::to_owned);
            host.clone_into(&mut case.manifests[0].host);
        })
    };
    for (machine_id, host, is_same) in [
        (Some("m1"), "node1", true),
        (Some("m1"), "node2", false),
        (Some("m2"), "node1", false),
        (None, "node1", true),
        (None, "node2", false),
    ] {
        let expected = if is_same { vec![] } else { vec![Code::BackupForeignHost] };
        assert_eq!(of(Case::in_memory(), machine_id, host).codes(), expected, "{machine_id:?} {host}");
        let exact = of(Case::default(), machine_id, host).judge();
        assert!(exact.refusals.is_empty());
        assert_eq!(exact.remarks.iter().any(|remark| remark.message.contains(host)), !is_same, "{exact:?}");
    }
    let forced = of(Case::in_memory(), Some("m2"), "node2").with(|case| case.overrides.host = true).judge();
    assert!(forced.refusals.is_empty());
    assert!(forced.remarks.iter().any(|remark| remark.message.starts_with("OVERRIDDEN BY --force-host: ")), "{forced:?}");
}

#[test]
fn a_proof_can_be_asked_for_and_no_override_takes_that_back() {
    let prove = |case: Case| case.with(|case| case.overrides.require_proof = true);
    assert_eq!(prove(Case::default()).codes(), []);
    assert_eq!(prove(Case::in_memory()).codes(), [Code::NotProven]);
    assert_eq!(prove(Case::in_memory()).with(|case| case.overrides.stale = true).codes(), [Code::NotProven]);
}

#[test]
fn a_backup_without_a_manifest_is_judged_by_times_and_by_its_files() {
    let asmts = || Case::in_memory().with(|case| case.manifests.clear());
    let written = |case: Case, at_ms: u64| {
        case.with(|case| {
            let state = TraceState { inode: 7, size: 1, modified_ns: at_ms * 1_000_000, digest: 0, is_finished: false };
            case.evidence.traces.push(Trace { path: "/log".to_owned(), state: Some(state) });
        })
    };
    let untrusted = |case: &mut Case| {
        case.evidence.configuration = Configuration::Read { path: "c".to_owned(), config: config(TWO_DEVICES) };
        for (path, number, is_trusted) in [("/dev/a", 1, true), ("/dev/b", 2, false)] {
            case.evidence.devices.insert(path.to_owned(), device(path, number, header("test", 7, is_trusted)));
        }
    };
    check(vec![
        ("nothing", asmts(), &[]),
        ("just written", written(asmts(), MADE_MS + SLACK_MS), &[]),
        ("written later", written(asmts(), MADE_MS + SLACK_MS + 1), &[Code::BackupStale]),
        ("used in another boot", asmts().used("test", used_in(OTHER_BOOT, None)), &[Code::BackupUsed]),
        ("a device that is not trusted", asmts().with(untrusted), &[Code::BackupStale]),
    ]);
}

#[test]
fn what_is_stale_and_lives_in_memory_alone_has_a_hint_that_says_what_is_lost_either_way() {
    let hint = |case: Case| case.trace(TraceChange::Changed).judge().refusals[0].hint.clone();
    let in_memory = hint(Case::in_memory());
    for text in ["without a restore, the server starts empty", "--force-stale DIR brings back", "is lost"] {
        assert!(in_memory.contains(text), "{in_memory}");
    }
    let on_devices = Case::default().state("/dev/a", header("test", 8, true)).judge().refusals[0].hint.clone();
    assert!(on_devices.contains("it cold-starts and reads its devices"), "{on_devices}");
}

/// The user does exactly what a hint says, perhaps for everything that is restored together.
#[test]
fn a_hint_overrides_nothing_that_it_is_not_about() {
    let hint = |case: Case| case.judge().refusals[0].hint.clone();
    // A configuration, then or now, shows whether a namespace has devices.
    let unknown = |is_noted: bool| {
        Case::in_memory().trace(TraceChange::Changed).with(|case| {
            case.asked = vec![("test", 0xad00_1000)];
            case.evidence.configuration = Configuration::NotThere("none".to_owned());
            case.manifests[0].noted.configuration = Some("c".to_owned()).filter(|_| is_noted);
        })
    };
    assert!(hint(unknown(true)).starts_with("namespace 'test' is in memory only: "), "{}", hint(unknown(true)));
    let text = "namespace 'test' seems to be in memory only (if it has storage devices or files, do not restore it, and start \
        the server without a restore): ";
    assert!(hint(unknown(false)).starts_with(text), "{}", hint(unknown(false)));
    // Beside a namespace on devices, the override is only for the other one.
    let both = Case::default().state("/dev/a", header("test", 8, true)).with(|case| {
        case.asked.push(("cache", 0xae00_2000));
        case.manifests.push(manifest("cache", Vec::new()));
        let both = format!("{TWO_DEVICES}{}", IN_MEMORY.replace("test", "cache"));
        case.evidence.configuration = Configuration::Read { path: "c".to_owned(), config: config(&both) };
    });
    let text = hint(both);
    assert!(text.starts_with("namespace 'cache' is in memory only"), "{text}");
    assert!(text.contains("-n cache --force-stale") && text.contains("; do not restore namespace 'test' with it"), "{text}");
    // A device that is not the noted one, and a device that does not answer.
    let blank = hint(Case::default().state("/dev/a", DeviceState::Blank));
    assert!(blank.starts_with("make sure that it is the device that the server used"), "{blank}");
    let unreadable = hint(Case::default().state("/dev/a", DeviceState::Unreadable("is not there".to_owned())));
    assert!(unreadable.ends_with("only if you know that the server has not run since the backup"), "{unreadable}");
}

#[test]
fn the_instance_is_named_where_it_is_not_0() {
    let case = Case::default().state("/dev/a", header("test", 8, true)).with(|case| {
        case.evidence.instance = 2;
        case.asked = vec![("test", 0xae20_1000)];
        case.manifests[0].instance = 2;
    });
    let text = case.judge().refusals[0].message.clone();
    assert!(text.starts_with("namespace 'test' of instance 2: /dev/a has random "), "{text}");
}

#[test]
fn an_older_backup_is_dead_or_current_only_where_that_is_shown() {
    const NOTHING: Sighting = Sighting { is_whole: false, is_in_memory: false, has_served: false };
    const WHOLE: Sighting = Sighting { is_whole: true, ..NOTHING };
    const KEPT: Sighting = Sighting { is_in_memory: true, ..WHOLE };
    const SERVED: Sighting = Sighting { has_served: true, ..WHOLE };
    let moved_on = || Case::default().state("/dev/a", header("test", 8, true));
    let retired = |case: Case| {
        case.used("test", used_in(BOOT, None)).with(|case| {
            let (_, mark) = case.marks.last_mut().expect("a mark");
            let mark = mark.as_mut().expect("a readable mark");
            mark.retired = mark.restores.pop();
        })
    };
    let served = |case: Case| case.used("test", UseRecord { has_served: true, ..used_in(BOOT, None) });
    let asmts = |case: Case| case.with(|case| case.manifests.clear());
    let in_memory = Case::in_memory;
    for (what, case, found, expected) in [
        // Devices decide.
        ("the same", Case::default(), WHOLE, Fate::Current),
        ("the same, whatever is in memory", Case::default(), SERVED, Fate::Current),
        ("the same, and not whole", Case::default(), NOTHING, Fate::Unsure),
        ("the same, and retired", retired(Case::default()), WHOLE, Fate::Dead),
        ("another random", moved_on(), WHOLE, Fate::Dead),
        ("another random, and damaged", moved_on(), NOTHING, Fate::Dead),
        ("not trusted", Case::default().state("/dev/a", header("test", 7, false)), WHOLE, Fate::Dead),
        ("another random, without these segments", moved_on(), KEPT, Fate::Overtaken),
        // A device that was replaced does not show that the server has run.
        ("blank", Case::default().state("/dev/a", DeviceState::Blank), WHOLE, Fate::Unsure),
        ("another namespace's", Case::default().state("/dev/a", header("other", 7, true)), WHOLE, Fate::Unsure),
        ("unreadable", Case::default().state("/dev/a", DeviceState::Unreadable("is gone".to_owned())), WHOLE, Fate::Unsure),
        // Memory.
        ("the same segments", in_memory().at_once(), KEPT, Fate::Current),
        ("the same segments, and not whole", in_memory().at_once(), Sighting { is_whole: false, ..KEPT }, Fate::Unsure),
        ("others", in_memory().at_once(), WHOLE, Fate::Unsure),
        ("a server's", in_memory(), SERVED, Fate::Dead),
        ("a server's, beside a backup of ASMT's", asmts(in_memory()), SERVED, Fate::Unsure),
        ("the same segments, and no manifest", asmts(in_memory()), KEPT, Fate::Unsure),
        // Marks.
        ("retired", retired(in_memory()), WHOLE, Fate::Dead),
        ("a server was seen on it", served(in_memory()), WHOLE, Fate::Dead),
        ("restored in this boot", in_memory().used("test", used_in(BOOT, Some("id:1"))), WHOLE, Fate::Unsure),
        ("restored in another boot", in_memory().used("test", used_in(OTHER_BOOT, None)), WHOLE, Fate::Unsure),
        (
            "the same segments, and a restore that the next boot counts",
            in_memory().at_once().used("test", used_in(BACKUP_BOOT, Some("id:b"))),
            KEPT,
            Fate::Unsure,
        ),
        // Signs are no proof.
        ("a log has changed", in_memory().trace(TraceChange::Changed), WHOLE, Fate::Unsure),
        ("a log has changed, the same segments", in_memory().at_once().trace(TraceChange::Changed), KEPT, Fate::Unsure),
        ("a start is known", in_memory().started(BOOT, 500), WHOLE, Fate::Unsure),
        (
            "the same segments, and a directory that takes no mark",
            in_memory().at_once().with(|case| case.evidence.is_markable = false),
            KEPT,
            Fate::Current,
        ),
        (
            "another host's",
            in_memory().at_once().with(|case| case.evidence.host.machine_id = Some("m2".to_owned())),
            KEPT,
            Fate::Unsure,
        ),
    ] {
        assert_eq!(case.fate(found), expected, "{what}");
    }
}

#[test]
fn a_backup_is_spent_by_a_restore_anywhere_on_the_host_and_by_its_devices() {
    let used = || Case::in_memory().used("test", UseRecord { has_made: true, ..used_in(BOOT, Some("id:1")) });
    let is = |case: Case| is_spent(&case.asked()[0], &case.listing(), &case.evidence);
    assert!(is(used()));
    assert!(!is(Case::in_memory()), "what is in memory may be another server's");
    assert!(is(used().with(|case| case.evidence.host.ipc_namespace = "id:2".to_owned())), "another container");
    assert!(is(used().with(|case| case.evidence.host.boot_id = OTHER_BOOT.to_owned())), "another boot");
    assert!(!is(Case::in_memory().used("test", used_in(BOOT, Some("id:1")))), "a restore that made nothing");
}

fn judged_backup(case: &Case) -> (Vec<Problem>, Vec<String>) {
    let namespace = NamespaceBackup {
        instance: 0,
        name: name("test"),
        nsid: Some(1),
        base_version: Some(12),
        copies: Vec::new(),
        superseded: Vec::new(),
        is_replacing: false,
        outdated: Vec::new(),
        current_ms: None,
    };
    let mut plan = Plan { namespaces: vec![namespace], refusals: Vec::new(), remarks: Vec::new() };
    judge_backup(&mut plan, &case.evidence, case.overrides);
    (plan.refusals, plan.remarks.iter().map(|remark| remark.code.as_str().to_owned()).collect())
}

#[test]
fn a_backup_that_could_not_be_restored_is_refused_when_it_is_made() {
    let of = |case: Case| judged_backup(&case).0.iter().map(|problem| problem.code).collect::<Vec<_>>();
    let unreadable = || DeviceState::Unreadable("is not there".to_owned());
    assert_eq!(of(Case::default()), []);
    for (what, case, codes) in [
        ("cannot be read", Case::default().state("/dev/a", unreadable()), vec![Code::DeviceUnreadable]),
        ("not trusted", Case::default().state("/dev/a", header("test", 7, false)), vec![Code::DeviceNotTrusted]),
        ("two sets", Case::default().state("/dev/a", header("test", 8, true)), vec![Code::DeviceSetTorn]),
        ("another namespace's", Case::default().state("/dev/a", header("other", 7, true)), vec![Code::DeviceSetTorn]),
        ("something else", Case::default().state("/dev/a", DeviceState::Unknown), vec![Code::DeviceSetTorn]),
        ("one of two is blank", Case::default().state("/dev/a", DeviceState::Blank), vec![Code::DeviceSetTorn]),
        (
            "all are blank",
            Case::default().state("/dev/a", DeviceState::Blank).state("/dev/b", DeviceState::Blank),
            vec![Code::DeviceSetTorn],
        ),
        (
            "one of a set of two is named",
            Case::default().with(|case| case.evidence.named = vec!["/dev/a".to_owned()]),
            vec![Code::DeviceSetTorn],
        ),
    ] {
        assert_eq!(of(case.clone()), codes, "{what}");
        let forced = of(case.with(|case| case.overrides.stale = true));
        let torn: Vec<Code> = codes.into_iter().filter(|code| *code == Code::DeviceSetTorn).collect();
        assert_eq!(forced, torn, "{what}: what is torn is not overridden");
    }
    let (refusals, remarks) = judged_backup(&Case::in_memory());
    assert!(refusals.is_empty() && remarks.is_empty(), "{remarks:?}");
    let blind = Case::default().with(|case| {
        case.evidence.configuration = Configuration::NotThere("none".to_owned());
        case.evidence.devices.clear();
    });
    assert_eq!(judged_backup(&blind), (vec![], vec!["devices-not-noted".to_owned()]));
}

fn state() -> impl Strategy<Value = DeviceState> {
    prop_oneof![
        4 => (6..9u64, any::<bool>()).prop_map(|(random, is_trusted)| header("test", random, is_trusted)),
        1 => Just(DeviceState::Blank),
        1 => Just(DeviceState::Unknown),
        1 => Just(DeviceState::Unreadable("is not there".to_owned())),
    ]
}

proptest! {
    /// Only the noted state of every noted device is a proof. An override takes back every refusal
    /// except for torn sets, and each is reported.
    #[test]
    fn only_the_noted_state_is_a_proof(a in state(), b in state()) {
        let case = Case::default().state("/dev/a", a.clone()).state("/dev/b", b.clone());
        let is_same = |state: &DeviceState| *state == header("test", 7, true);
        let verdict = case.judge();
        prop_assert_eq!(verdict.is_proven, is_same(&a) && is_same(&b));
        prop_assert_eq!(verdict.refusals.is_empty(), is_same(&a) && is_same(&b), "{:?}", verdict);
        let forced = case.with(|case| case.overrides.stale = true).judge();
        prop_assert!(forced.refusals.is_empty());
        let printed = forced.remarks.iter().filter(|remark| remark.code.as_str() == "overridden").count();
        prop_assert_eq!(printed, verdict.refusals.len());
    }
}
