//! The commit, watched from outside: which name appears and goes when, and what is left where it fails.
//!
//! Promise: real segments and a real directory, each test in an IPC namespace of its own. Must never: ask the engine in
//! which order things have to be; the order stands here a second time.

use asmt_engine::error::{Code, Error};
use asmt_engine::format::{is_manifest_name, manifest_name};
use asmt_engine::progress::{Control, Event};
use asmt_engine::report::Verb;
use asmt_engine::run::{Caller, RunId};
use asmt_engine::runtime::Runtime;
use asmt_engine::segment::NamespaceName;
use asmt_engine::store::{Journal, JournalNamespace, Store};
use asmt_engine::sysv::{self, Access, Attachment};
use asmt_engine::transfer::{self, Options, Origin, Staged};
use asmt_engine::{Request, commit, fill, inventory, look, perform, plan};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

mod machine;

use machine::sim;

const OPTIONS: Options = Options { threads: 1, check: false };
/// A namespace of every type of segment, and one of stripes alone.
const SIZES: &str = "--stage-size 64KiB --base-size 4096 --treex-size 4096 --si-stage-size 64KiB --stripe-size 64KiB";

/// Runs a test on a machine with these two namespaces, in its directory.
fn on_own_machine(test: impl FnOnce(&Path) + Send + 'static) {
    machine::on_own_machine(|machine| {
        sim(&format!("make --name one --nsid 1 --stages 2 --si-stages 1 --stripes 2 {SIZES}"));
        sim(&format!("make --name data --nsid 2 --no-index --stripes 1 {SIZES}"));
        test(&machine.directory);
    });
}

fn backup(directory: &Path, control: &Control) {
    let request = Request { threads: Some(1), ..machine::request(Verb::Backup, directory) };
    perform(&request, "asmt test", control).unwrap_or_else(|failure| panic!("{}", failure.error));
}

fn plan_request(compress: bool) -> plan::Request {
    plan::Request {
        instance: 0,
        namespaces: None,
        compress,
        require_manifest: false,
        allow_volatile: true,
        caller: Caller::own(),
        page_bytes: sysv::page_bytes(),
    }
}

/// A backup of all there is, complete and not published.
fn stage(store: &Store, compress: bool) -> Staged<'_> {
    let inventory = inventory::take().expect("an inventory");
    let plan = plan::backup(&inventory, &store.list().expect("a listing"), &plan_request(compress));
    plan.check().expect("a plan");
    let host = look::server::host().expect("a host");
    let origin = Origin {
        tool: "asmt test".to_owned(),
        created_ms: 1,
        host,
        devices: BTreeMap::new(),
        configuration: None,
        earlier_uses: Vec::new(),
    };
    let run = RunId::own().expect("an id");
    transfer::stage(store, &run, &plan.namespaces, &origin, OPTIONS, &Control::default()).expect("staged")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn with_inodes(directory: &Path, names: &[String]) -> Vec<(String, u64)> {
    let inode_of = |name: &String| fs::metadata(directory.join(name)).expect("a file").ino();
    names.iter().map(|name| (name.clone(), inode_of(name))).collect()
}

/// Makes a backup, and what is in the directory look as if the run that made it had died between the commits of the two
/// namespaces: "one" is there, and "data" still lacks its manifest. Gives the journal's name, and that of every file of
/// "one".
fn leave_half_a_commit(directory: &Path) -> (String, Vec<String>) {
    backup(directory, &Control::default());
    let is_of_one = |name: &String| name.contains("001") || name.contains("-one");
    let (mut one, mut data): (Vec<String>, Vec<String>) = names(directory).into_iter().partition(is_of_one);
    one.sort_by_key(|name| (name.starts_with("ae001000"), is_manifest_name(name)));
    data.sort_by_key(|name| is_manifest_name(name));
    let namespace = |namespace: &str, names: &[String]| JournalNamespace {
        namespace: namespace.to_owned(),
        files: with_inodes(directory, names),
    };
    let journal = Journal { namespaces: vec![namespace("one", &one), namespace("data", &data)] };
    let name = format!(".asmt-run.{}-1-2-3", "0".repeat(32));
    fs::write(directory.join(&name), serde_json::to_string(&journal).expect("text")).expect("a journal");
    fs::remove_file(directory.join("asmt-manifest-0-data.json")).expect("removed");
    (name, one)
}

/// Sees names come and go in a directory.
struct Watch(OwnedFd);

impl Watch {
    fn new(directory: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, directory, flags).expect("a watch");
        Self(inotify)
    }

    /// What happened, in order: `+` a name came, `-` it went; without names of staged files, and this run's is `<run>`.
    fn seen(self) -> Vec<String> {
        let own = RunId::own().expect("an id").to_string();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.0, &mut buffer);
        let mut seen = Vec::new();
        while let Ok(event) = events.next() {
            let sign = if event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) { '+' } else { '-' };
            let name = event.file_name().expect("a name").to_str().expect("text").replace(&own, "<run>");
            if !name.starts_with(".asmt-tmp.") {
                seen.push(format!("{sign}{name}"));
            }
        }
        seen
    }
}

fn published(control: &Control) -> Vec<String> {
    let of = |event: Event| (event.code == "published").then_some(event.message);
    control.snapshot().events.into_iter().filter_map(of).collect()
}

#[test]
fn what_commits_goes_first_and_comes_last() {
    on_own_machine(|root| {
        let directory = root.join("b");
        let (old_journal, _) = leave_half_a_commit(&directory);
        let (watch, control) = (Watch::new(&directory), Control::default());
        backup(&directory, &control);
        let expected = [
            // Never was committed: swept before anything is copied.
            "-ad002000.dat",
            // From here on this run's journal accounts for what the dead one's did.
            "+.asmt-run.<run>",
            &format!("-{old_journal}"),
            // What the dead run had committed, as it came but backwards: stripes go before the index beside which nobody
            // takes them.
            "-ae001000.dat",
            "-asmt-manifest-0-one.json",
            "-ad001000.dat",
            "-ad001001.dat",
            "-a2001000.dat",
            "-a2001100.dat",
            "-ae001100.dat",
            "-ae001101.dat",
            "-ae001001.dat",
            // Each group for all namespaces, the index first.
            "+ae001001.dat",
            "+ae001101.dat",
            "+ae001100.dat",
            "+a2001100.dat",
            "+a2001000.dat",
            "+ad001001.dat",
            "+ad001000.dat",
            "+ad002000.dat",
            "+asmt-manifest-0-one.json",
            "+asmt-manifest-0-data.json",
            "+ae001000.dat",
            "-.asmt-run.<run>",
        ];
        assert_eq!(watch.seen(), expected);
        let expected = [
            "published files of indexes: 5",
            "published stripes: 3",
            "published manifests: 2",
            "published base, which commits: 1",
        ];
        assert_eq!(published(&control), expected);
    });
}

#[test]
fn a_group_without_files_is_not_told_of() {
    on_own_machine(|root| {
        sim("remove");
        sim(&format!("make --name data --nsid 2 --no-index --stripes 1 {SIZES}"));
        let control = Control::default();
        backup(&root.join("b"), &control);
        assert_eq!(published(&control), ["published stripes: 1", "published manifests: 1"]);
    });
}

#[test]
fn a_name_taken_meanwhile_is_left_alone_and_nothing_is_left_beside_it() {
    on_own_machine(|root| {
        let journal = Store::journal_name(&RunId::own().expect("an id"));
        let manifest = manifest_name(0, &NamespaceName::new("one").expect("a name"));
        let taken = [&*journal, "ae001001.dat", "a2001000.dat", "ad002000.dat", &*manifest, "ae001000.dat"];
        for (number, name) in taken.into_iter().enumerate() {
            let directory = root.join(number.to_string());
            let store = Store::open_or_create(&directory).expect("a directory");
            let staged = stage(&store, false);
            fs::write(directory.join(name), "somebody else's").expect("a file");
            let error = commit::publish(staged, &[], &Control::default()).expect_err(name);
            assert_eq!((error.first().code, error.problems().len()), (Code::BackupExists, 1), "{name}");
            assert_eq!(names(&directory), [name]);
            assert_eq!(fs::read(directory.join(name)).expect(name), b"somebody else's");
        }
    });
}

#[test]
fn nothing_is_published_after_a_stop_or_into_a_directory_that_has_moved() {
    on_own_machine(|root| {
        let away = root.join("away");
        let stop: fn(&Path, &Path, &Control) = |_, _, control| control.stop();
        let rename: fn(&Path, &Path, &Control) = |directory, away, _| fs::rename(directory, away).expect("moved");
        for (name, disturb, code, left) in
            [("stopped", stop, Code::Interrupted, root.join("stopped")), ("moved", rename, Code::DirectoryMoved, away.clone())]
        {
            let directory = root.join(name);
            let store = Store::open_or_create(&directory).expect("a directory");
            let (staged, control) = (stage(&store, false), Control::default());
            disturb(&directory, &away, &control);
            let error = commit::publish(staged, &[], &control).expect_err(name);
            assert_eq!((error.first().code, error.problems().len()), (code, 1), "{name}");
            assert_eq!(names(&left), Vec::<String>::new(), "{name}");
        }
    });
}

/// Publishes a backup that takes the place of what [`leave_half_a_commit`] has left, and that cannot be completed.
fn fail_to_take_its_place(directory: &Path, old_journals: &[String]) {
    let store = Store::open(directory).expect("a directory");
    let leftovers = store.list().expect("a listing").leftovers;
    assert_eq!(store.sweep(&leftovers, true).expect("swept"), leftovers.sweep[leftovers.sweep.len() - 1..]);
    let staged = stage(&store, true);
    fs::write(directory.join("ad001000.dat.gz"), "somebody else's").expect("a file");
    commit::publish(staged, old_journals, &Control::default()).expect_err("a failure");
}

#[test]
fn a_journal_goes_when_all_that_it_accounts_for_is_gone() {
    on_own_machine(|root| {
        let (old_journal, _) = leave_half_a_commit(root);
        fail_to_take_its_place(root, &[old_journal]);
        assert_eq!(names(root), ["ad001000.dat.gz"]);
    });
}

#[test]
fn a_journal_stays_as_long_as_a_dead_runs_file_that_it_accounts_for() {
    on_own_machine(|root| {
        let (old_journal, mut one) = leave_half_a_commit(root);
        let mut old = with_inodes(root, &one);
        // What cannot be removed is before what is older.
        fs::create_dir(root.join("no-journal")).expect("a directory");
        fail_to_take_its_place(root, &["no-journal".to_owned()]);
        let journal = Store::journal_name(&RunId::own().expect("an id"));
        let text = fs::read_to_string(root.join(&journal)).expect("a journal");
        one.extend([old_journal, journal, "no-journal".to_owned(), "ad001000.dat.gz".to_owned()]);
        one.sort_unstable();
        assert_eq!(names(root), one);
        // What is to go stands in it before what is to come; both end with what commits.
        let mut found: Journal = serde_json::from_str(&text).expect("a journal");
        let last =
            |namespace: &JournalNamespace| (namespace.namespace.clone(), namespace.files.last().cloned().expect("files").0);
        let expected = [("one", "ae001000.dat"), ("one", "ae001000.dat"), ("data", "asmt-manifest-0-data.json")];
        assert_eq!(
            found.namespaces.iter().map(last).collect::<Vec<_>>(),
            expected.map(|(name, last)| (name.to_owned(), last.to_owned()))
        );
        found.namespaces[0].files.sort_unstable();
        old.sort_unstable();
        assert_eq!(found.namespaces[0].files, old);
    });
}

/// Segments made from a backup, in the hands of a test before they are trusted; then what came of it.
fn trust(directory: &Path, disturb: impl FnOnce(&Control) -> Option<Attachment>) -> Result<(), Error> {
    let store = Store::open(directory).expect("a directory");
    let runtime = Runtime::lock(0).expect("a lock");
    let inventory = inventory::take().expect("an inventory");
    let plan = plan::restore(&store.list().expect("a listing"), &inventory, &plan_request(false));
    plan.check().expect("a plan");
    let mut journal = runtime.begin_restore(&plan.namespaces).expect("a journal");
    let control = Control::default();
    let filled = fill::fill(&store, &plan.namespaces, &mut journal, OPTIONS, &control).expect("filled");
    let held = disturb(&control);
    let outcome = commit::trust(filled, &control);
    drop(held);
    outcome
}

#[test]
fn restored_segments_count_all_or_none() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let before = sim("sum");
        let attach = |_: &Control| {
            let shmid = sysv::all_segments().expect("a list").first().expect("a segment").shmid;
            Some(Attachment::new(shmid, Access::ReadWrite, 0).expect("an attachment"))
        };
        let stop = |control: &Control| {
            control.stop();
            None
        };
        sim("remove");
        assert_eq!(trust(&directory, attach).expect_err("attached").first().code, Code::SegmentChanged);
        assert_eq!(sim("sum"), "");
        assert_eq!(trust(&directory, stop).expect_err("stopped").first().code, Code::Interrupted);
        assert_eq!(sim("sum"), "");
        trust(&directory, |_| None).expect("a restore");
        assert_eq!(sim("sum"), before);
    });
}
