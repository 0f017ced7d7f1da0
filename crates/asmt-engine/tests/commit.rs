//! The commit, watched from outside: the order in which names appear and disappear, the word that
//! is trusted last, and the state after a failure.
//!
//! Promise: real segments and a real directory, each test in an IPC namespace of its own. Must
//! never: ask the engine for the order of the steps; the order is written down here a second time.

use asmt_engine::error::{Code, Error};
use asmt_engine::format::journal::{Journal, JournalNamespace};
use asmt_engine::format::{Form, is_manifest_name, manifest_name};
use asmt_engine::look::{self, segments};
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::progress::{Control, Event};
use asmt_engine::store::Store;
use asmt_engine::work::commit;
use asmt_engine::work::copy_in::{self, NewSegment, Trusted, Untrusted, Withheld};
use asmt_engine::work::copy_out::{self, Unpublished};
use asmt_engine::work::instance::InstanceLock;
use asmt_engine::work::job::{Options, Temporaries};
use asmt_engine::work::note::Origin;
use asmt_engine::work::read_all;
use asmt_engine::{perform, plan};
use asmt_shm::sysv::{self, Access, Attachment};
use asmt_shm::{Key, NamespaceName};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    let request = Asked { threads: Some(1), ..machine::request(Verb::Backup, directory) };
    perform(&request.clone().into(), "asmt test", control).unwrap_or_else(|failure| panic!("{}", failure.error));
}

fn plan_request(form: Form) -> plan::Request {
    plan::Request {
        instance: 0,
        namespaces: None,
        form,
        require_manifest: false,
        replace: None,
        allow_volatile: true,
        allow_private_ipc: true,
        caller: asmt_engine::sys::process::own_caller(),
        host: asmt_engine::look::server::host().expect("a host"),
        page_bytes: sysv::page_bytes(),
    }
}

/// A backup of all there is, complete and not published.
fn stage(store: &Store, form: Form) -> Unpublished<'_> {
    let inventory = segments::take().expect("an inventory");
    stage_planned(store, &plan::backup(&inventory, &store.list().expect("a listing"), &plan_request(form)))
}

fn stage_planned<'s>(store: &'s Store, plan: &plan::Plan<plan::NamespaceBackup>) -> Unpublished<'s> {
    plan.check().expect("a plan");
    let host = look::server::host().expect("a host");
    let origin = Origin {
        tool: "asmt test".to_owned(),
        created_ms: 1,
        shmids: Default::default(),
        host,
        devices: BTreeMap::new(),
        configuration: None,
        earlier_uses: Vec::new(),
        settings: BTreeMap::new(),
        binary: None,
    };
    let run = asmt_engine::sys::process::own_run().expect("an id");
    copy_out::stage(Temporaries::new(store, &run), &plan.namespaces, &origin, OPTIONS, &Control::default()).expect("staged")
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

/// Makes a backup, and makes the directory look as if the run had died between the commits of the
/// two namespaces: "one" is there, and "data" still lacks its manifest. Returns the journal's name,
/// and the names of all files of "one".
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
    let journal = Journal { namespaces: vec![namespace("one", &one), namespace("data", &data)], ..Journal::default() };
    let name = format!(".asmt-run.{}-1-2-3", "0".repeat(32));
    fs::write(directory.join(&name), serde_json::to_string(&journal).expect("text")).expect("a journal");
    fs::remove_file(directory.join("asmt-manifest-0-data.json")).expect("removed");
    (name, one)
}

/// Watches names appear and disappear in a directory.
struct Watch(OwnedFd);

impl Watch {
    fn new(directory: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, directory, flags).expect("a watch");
        Self(inotify)
    }

    /// The events in order: `+` means that a name appeared, `-` that it disappeared. Staged files
    /// are left out, and this run is shown as `<run>`.
    fn seen(self) -> Vec<String> {
        let own = asmt_engine::sys::process::own_run().expect("an id").to_string();
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
    let of = |event: Event| (event.code.as_str() == "published").then_some(event.message);
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
            // It was never committed, and is swept before anything is copied.
            "-ad002000.dat",
            // From here on this run's journal accounts for the files that the dead run's journal
            // listed.
            "+.asmt-run.<run>",
            &format!("-{old_journal}"),
            // The files that the dead run had committed, in reverse order: stripes disappear before
            // the index, because nobody takes them beside an index.
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
        let journal = Store::journal_name(&asmt_engine::sys::process::own_run().expect("an id"));
        let manifest = manifest_name(0, &NamespaceName::new("one").expect("a name"));
        let taken = [&*journal, "ae001001.dat", "a2001000.dat", "ad002000.dat", &*manifest, "ae001000.dat"];
        for (number, name) in taken.into_iter().enumerate() {
            let directory = root.join(number.to_string());
            let store = Store::open_or_create(&directory, &Control::default()).expect("a directory");
            let staged = stage(&store, Form::Plain);
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
            let store = Store::open_or_create(&directory, &Control::default()).expect("a directory");
            let (staged, control) = (stage(&store, Form::Plain), Control::default());
            disturb(&directory, &away, &control);
            let error = commit::publish(staged, &[], &control).expect_err(name);
            assert_eq!((error.first().code, error.problems().len()), (code, 1), "{name}");
            assert_eq!(names(&left), Vec::<String>::new(), "{name}");
        }
    });
}

/// A backup of all there is, which takes the place of the one that is there.
fn stage_in_place(store: &Store, form: Form) -> Unpublished<'_> {
    let listing = store.list().expect("a listing");
    let request = plan::Request { replace: Some(plan::Fates::new()), ..plan_request(form) };
    stage_planned(store, &plan::backup(&segments::take().expect("an inventory"), &listing, &request))
}

#[test]
fn the_journal_decides_before_an_older_backup_goes() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let store = Store::open(&directory).expect("a directory");
        store.lock(asmt_engine::store::Lock::Exclusive).expect("a lock");
        let staged = stage_in_place(&store, Form::Gzip);
        let watch = Watch::new(&directory);
        commit::publish(staged, &[], &Control::default()).expect("published");
        let seen = watch.seen();
        let at = |event: &str| seen.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{event}: {seen:?}"));
        assert_eq!((at("+.asmt-run.<run>"), at("-.asmt-run.<run>")), (0, seen.len() - 1));
        // What commits the older ones goes first.
        let first: BTreeSet<&str> = seen[1..3].iter().map(String::as_str).collect();
        assert_eq!(first, BTreeSet::from(["-ae001000.dat", "-asmt-manifest-0-data.json"]));
        let last_gone = seen.iter().rposition(|event| event.starts_with("-a")).expect("a removal");
        assert!(at("+ae001001.dat.gz") > last_gone, "{seen:?}");
        // ASMT takes no stripes beside an index.
        assert!(at("-ad001000.dat") < at("-ae001101.dat"), "{seen:?}");
        assert_eq!(at("+ae001000.dat"), seen.len() - 2);
    });
}

#[test]
fn what_was_decided_is_a_backup_under_either_name() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let store = Store::open(&directory).expect("a directory");
        let old: Vec<(String, u64)> = with_inodes(&directory, &names(&directory));
        let staged = stage_in_place(&store, Form::Gzip);
        // A name that is taken, by something that cannot be removed, is found before the decision.
        fs::create_dir(directory.join("ae001100.dat.gz")).expect("a directory");
        let error = commit::publish(staged, &[], &Control::default()).expect_err("a taken name");
        assert_eq!(error.first().code, Code::BackupExists);
        fs::remove_dir(directory.join("ae001100.dat.gz")).expect("removed");
        assert_eq!(with_inodes(&directory, &names(&directory)), old, "nothing has changed");
        // Whatever has been done of it, the new one is read, and the older one is not.
        let run = asmt_engine::format::run_id::RunId::parse(&format!("{}-1-2-3", "0".repeat(32))).expect("a run");
        let staged = stage_in_place(&store, Form::Gzip);
        let own = staged.temporaries.run().to_string();
        std::mem::forget(staged);
        let mut new: Vec<(String, u64)> = Vec::new();
        for (name, inode) in with_inodes(&directory, &names(&directory)) {
            let Some(published) = name.strip_prefix(&format!(".asmt-tmp.{own}.")) else { continue };
            let temporary = format!(".asmt-tmp.{run}.{published}");
            fs::rename(directory.join(&name), directory.join(temporary)).expect("renamed");
            new.push((published.to_owned(), inode));
        }
        // Staged files have no manifest yet: that of the older backup, with other names, will do.
        let is_of = |namespace: &str, name: &str| match namespace {
            "one" => name.contains("001") || name.contains("-one"),
            _ => name.contains("002") || name.contains("-data"),
        };
        let of = |namespace: &str, files: &[(String, u64)]| JournalNamespace {
            namespace: namespace.to_owned(),
            files: files.iter().filter(|(name, _)| is_of(namespace, name)).cloned().collect(),
        };
        let both = |files: &[(String, u64)]| vec![of("one", files), of("data", files)];
        let journal = Journal { namespaces: both(&new), replaced: both(&old) };
        let text = serde_json::to_string(&journal).expect("text");
        fs::write(directory.join(Store::journal_name(&run)), text).expect("a journal");
        let listed = |store: &Store| {
            let listing = store.list().expect("a listing");
            let files: BTreeSet<String> = listing.files.iter().map(|file| file.name.clone()).collect();
            (files, listing.leftovers)
        };
        let expected: BTreeSet<String> = new.iter().map(|(name, _)| name.clone()).collect();
        let (files, leftovers) = listed(&store);
        assert_eq!(files, expected);
        assert_eq!((leftovers.sweep.len(), leftovers.decided.len(), leftovers.interrupted.len()), (0, 1, 0));
        for (name, _) in &new {
            assert!(
                store
                    .read(name, fs::metadata(directory.join(format!(".asmt-tmp.{run}.{name}"))).expect(name).len(), false)
                    .is_ok()
            );
        }
        commit::complete(&store, &run, &leftovers.decided[0].journal, &Control::default()).expect("completed");
        assert_eq!(with_inodes(&directory, &names(&directory)).into_iter().collect::<BTreeSet<_>>(), new.into_iter().collect());
        assert_eq!(listed(&store).1, Default::default());
    });
}

#[test]
fn what_somebody_has_put_in_the_place_of_a_decided_backup_is_theirs() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let store = Store::open(&directory).expect("a directory");
        let run = "0".repeat(32) + "-1-2-3";
        let write = |name: &str| {
            fs::write(directory.join(name), "new").expect("a file");
            fs::metadata(directory.join(name)).expect("a file").ino()
        };
        let staged = write(&format!(".asmt-tmp.{run}.ae001000.dat"));
        let of = |files| vec![JournalNamespace { namespace: "one".to_owned(), files }];
        let decide = |namespaces, replaced| {
            let text = serde_json::to_string(&Journal { namespaces, replaced }).expect("text");
            fs::write(directory.join(format!(".asmt-run.{run}")), text).expect("a journal");
            store.list().expect("a listing").leftovers
        };
        let base = fs::metadata(directory.join("ae001000.dat")).expect("a file").ino();
        let new = || vec![("ae001000.dat".to_owned(), staged)];
        let leftovers = decide(of(new()), of(vec![("ae001000.dat".to_owned(), base)]));
        assert_eq!((leftovers.decided.len(), leftovers.sweep.len()), (1, 0));
        // Another file has the name of the old base: a copy of some backup.
        let leftovers = decide(of(new()), of(vec![("ae001000.dat".to_owned(), base + 1_000_000)]));
        assert_eq!((leftovers.decided.len(), leftovers.sweep.len()), (0, 2));
        // No name leads to anything but a file of a backup.
        let odd = [new(), vec![("../ae001000.dat".to_owned(), 1), (".asmt-lock".to_owned(), 2)]].concat();
        let leftovers = decide(of(odd), of(vec![("ae001000.dat".to_owned(), base), ("secret".to_owned(), 3)]));
        let journal = &leftovers.decided[0].journal;
        assert_eq!((journal.namespaces[0].files.len(), journal.replaced[0].files.len()), (1, 1));
        // A file is nowhere: what is left of the rest is no backup.
        let more = [new(), vec![("ae00ffff.dat".to_owned(), 1), ("ae001100.dat".to_owned(), 2)]].concat();
        let leftovers = decide(of(more), of(vec![("ae001000.dat".to_owned(), base)]));
        assert_eq!((leftovers.decided.len(), leftovers.sweep.len()), (0, 2));
    });
}

#[test]
fn what_is_outdated_is_accounted_for_while_it_is_removed() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let store = Store::open(&directory).expect("a directory");
        let run = asmt_engine::sys::process::own_run().expect("an id");
        store.try_abilities(&run, &[]).expect("a way to name files");
        let (one, data): (Vec<String>, Vec<String>) =
            names(&directory).into_iter().partition(|name| name.contains("001") || name.contains("-one"));
        let watch = Watch::new(&directory);
        commit::remove_outdated(&Temporaries::new(&store, &run), &[("one".to_owned(), one)]).expect("removed");
        let expected = [
            "+.asmt-run.<run>",
            "-ae001000.dat",
            "-asmt-manifest-0-one.json",
            "-ad001000.dat",
            "-ad001001.dat",
            "-a2001000.dat",
            "-a2001100.dat",
            "-ae001100.dat",
            "-ae001101.dat",
            "-ae001001.dat",
            "-.asmt-run.<run>",
        ];
        assert_eq!(watch.seen(), expected);
        assert_eq!(names(&directory), data);
    });
}

/// Publishes a backup that replaces the one that [`leave_half_a_commit`] has left, and that cannot
/// be completed.
fn fail_to_take_its_place(directory: &Path, old_journals: &[String]) {
    let store = Store::open(directory).expect("a directory");
    let leftovers = store.list().expect("a listing").leftovers;
    assert_eq!(store.sweep(&leftovers, true).expect("swept"), leftovers.sweep[leftovers.sweep.len() - 1..]);
    let staged = stage(&store, Form::Gzip);
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
        // A journal that cannot be removed comes first, before the older files.
        fs::create_dir(root.join("no-journal")).expect("a directory");
        fail_to_take_its_place(root, &["no-journal".to_owned()]);
        let journal = Store::journal_name(&asmt_engine::sys::process::own_run().expect("an id"));
        let text = fs::read_to_string(root.join(&journal)).expect("a journal");
        one.extend([old_journal, journal, "no-journal".to_owned(), "ad001000.dat.gz".to_owned()]);
        one.sort_unstable();
        assert_eq!(names(root), one);
        // The files to be removed stand before the files to be published; both lists end with the
        // file that commits.
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

/// Fills segments from a backup, and passes them on before they are trusted. If they are forgotten,
/// the journal is that of a run that has died.
fn filled<T>(directory: &Path, then: impl FnOnce(Untrusted<'_>, &Control) -> T) -> T {
    let store = Store::open(directory).expect("a directory");
    let runtime = InstanceLock::lock(0).expect("a lock");
    // A restore does the same: an earlier test that failed may have left a journal of a namespace
    // with the same number.
    runtime.recover(&Control::default()).expect("recovered");
    let inventory = segments::take().expect("an inventory");
    let plan = plan::restore(&store.list().expect("a listing"), &inventory, &plan_request(Form::Plain));
    plan.check().expect("a plan");
    let mut journal = runtime.begin_restore(&plan.namespaces).expect("a journal");
    let control = Control::default();
    let filled = copy_in::fill(&store, &plan.namespaces, &mut journal, OPTIONS, &control).expect("filled");
    then(filled, &control)
}

/// Restores, and disturbs the segments before they are trusted.
fn trust(directory: &Path, disturb: impl FnOnce(&Control) -> Option<Attachment>) -> Result<(), Error> {
    filled(directory, |filled, control| {
        let _held = disturb(control);
        commit::trust(filled, control)
    })
}

/// The words that a commit stores, each with its segment attached, in the order in which they are
/// stored.
fn words_of(filled: &Untrusted<'_>) -> Vec<Withheld> {
    let word = |segment: &NewSegment| segment.attach_withheld().expect("an attachment");
    filled.segments_by_rank().filter_map(word).collect()
}

fn shmid_of(key: u32) -> i32 {
    let stat = sysv::all_segments().expect("a list").into_iter().find(|stat| stat.key == Key(key));
    stat.unwrap_or_else(|| panic!("no segment {key:08x}")).shmid
}

/// Key, size and contents of the segments in memory.
fn memory() -> String {
    let contents = |line: &str| line.split(' ').take(3).collect::<Vec<_>>().join(" ") + "\n";
    sim("sum").lines().map(contents).collect()
}

/// The same without the segments that a starting server discards.
fn without_discarded(memory: &str) -> String {
    let is_kept = |line: &&str| !line.starts_with("ae001000") && !line.starts_with("ae001001");
    memory.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

fn journals() -> Vec<String> {
    let directory = std::env::var_os("ASMT_RUNTIME_DIR").map_or_else(|| "/run/asmt".into(), PathBuf::from);
    let of_this_namespace = format!("restore-ipc-{}-", asmt_engine::sys::procfs::namespace("ipc").expect("a namespace"));
    names(&directory).into_iter().filter(|name| name.starts_with(&of_this_namespace)).collect()
}

fn recover() -> Vec<String> {
    let control = Control::default();
    InstanceLock::lock(0).expect("a lock").recover(&control).expect("recovered");
    control.snapshot().events.into_iter().map(|event| event.message).collect()
}

#[test]
fn restored_segments_count_all_or_none() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let before = sim("sum");
        let stop = |control: &Control| {
            control.stop();
            None
        };
        sim("remove");
        assert_eq!(trust(&directory, stop).expect_err("stopped").first().code, Code::Interrupted);
        assert_eq!((sim("sum").as_str(), journals().len()), ("", 0));
        trust(&directory, |_| None).expect("a restore");
        assert_eq!((sim("sum"), journals().len()), (before, 0));
    });
}

#[test]
fn what_somebody_has_attached_before_the_commit_is_neither_trusted_nor_removed() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let before = sim("sum");
        sim("remove");
        // A segment of each type, with a withheld word and without.
        for key in [0xae00_1000, 0xad00_2000, 0xae00_1100, 0xa200_1000] {
            let attach = |_: &Control| Some(Attachment::new(shmid_of(key), Access::ReadOnly, 0).expect("an attachment"));
            let error = trust(&directory, attach).expect_err("attached");
            let expected = [
                format!("segment {key:08x} changed while it was restored: it is attached 1 times, expected 0"),
                format!("and while cleaning up: segment {key:08x} was not removed: another process has it attached"),
            ]
            .map(|text| {
                text.replace(
                    "attached 1 times, expected 0",
                    match key {
                        // It is attached by the commit itself, too.
                        0xae00_1000 | 0xad00_2000 => "attached 2 times, expected 1",
                        _ => "attached 1 times, expected 0",
                    },
                )
            });
            assert_eq!(error.problems().iter().map(|problem| &problem.message).collect::<Vec<_>>(), expected.each_ref());
            assert!(error.problems()[1].hint.contains("the next run removes it"), "{error}");
            let left = sim("sum");
            assert!(left.starts_with(&format!("{key:08x} ")) && left.lines().count() == 1, "{left}");
            assert_eq!(journals().len(), 1, "what is left is accounted for");
            assert_eq!(recover(), [format!("removed 1 segments left by a killed restore (pid {})", std::process::id())]);
            assert_eq!((sim("sum").as_str(), journals().len()), ("", 0));
        }
        trust(&directory, |_| None).expect("a restore");
        assert_eq!(sim("sum"), before);
    });
}

#[test]
fn what_was_taken_or_stored_before_the_commit_is_seen_and_nothing_is_left() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        sim("remove");
        let poke = |line: &'static str| {
            move |_: &Control| {
                sim(line);
                None
            }
        };
        type Disturb = Box<dyn FnOnce(&Control) -> Option<Attachment>>;
        let cases: [(Disturb, &str); 5] = [
            (Box::new(poke("remove --key ae001001")), "segment ae001001 changed while it was restored: it is gone"),
            (Box::new(poke("remove --key ad001001")), "segment ad001001 changed while it was restored: it is gone"),
            (
                Box::new(poke("poke --key ae001000 --offset 4 --hex 01000000")),
                "segment ae001000 changed while it was restored: another process changed its shutdown status or flags",
            ),
            (
                Box::new(poke("poke --key ad001000 --offset 56 --hex 03000000")),
                "segment ad001000 changed while it was restored: another process changed its shutdown status or flags",
            ),
            (
                // It was removed, but exists as long as it is attached.
                Box::new(|_| {
                    let held = Attachment::new(shmid_of(0xa200_1100), Access::ReadOnly, 0).expect("an attachment");
                    sim("remove --key a2001100");
                    Some(held)
                }),
                "segment a2001100 changed while it was restored: it was removed",
            ),
        ];
        for (disturb, expected) in cases {
            let error = trust(&directory, disturb).expect_err(expected);
            assert_eq!((error.first().code, error.first().message.as_str()), (Code::SegmentChanged, expected));
            assert_eq!((error.problems().len(), sim("sum").as_str(), journals().len()), (1, "", 0), "{expected}");
        }
    });
}

#[test]
fn once_a_start_may_trust_the_segments_nothing_is_removed() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let before = memory();
        sim("remove");
        let discard = |_: &Trusted<'_>| drop((sim("remove --key ae001000"), sim("remove --key ae001001")));
        let outcome = filled(&directory, |filled, control| {
            let words = words_of(&filled);
            let trusted = filled.trust(words);
            // As a server does when it has found them, before the restore checks a last time.
            discard(&trusted);
            trusted.let_go(control)
        });
        let error = outcome.expect_err("base is gone");
        let message = "2 of 9 segments were removed while the restore was committing, the first is ae001001: a server seems to \
                       have started";
        assert_eq!((error.first().code, error.first().message.as_str()), (Code::SegmentChanged, message));
        assert!(error.first().hint.contains("if the server is running, leave it running"), "{error}");
        assert_eq!((memory(), journals().len()), (without_discarded(&before), 0));
        // Nor while a panic unwinds.
        sim("remove");
        filled(&directory, |filled, _| {
            let words = words_of(&filled);
            drop(filled.trust(words));
        });
        assert_eq!(memory(), before);
        assert_eq!(recover().len(), 2);
        assert_eq!((memory(), journals().len()), (before.clone(), 0));
        // An attached segment is no loss: a server attaches it.
        sim("remove");
        filled(&directory, |filled, control| {
            let words = words_of(&filled);
            let trusted = filled.trust(words);
            let _held = Attachment::new(shmid_of(0xae00_1100), Access::ReadWrite, 0).expect("an attachment");
            trusted.let_go(control)
        })
        .expect("a restore");
        assert_eq!(memory(), before);
    });
}

#[test]
fn what_a_killed_restore_has_made_is_removed_until_it_was_about_to_be_trusted() {
    on_own_machine(|root| {
        let directory = root.join("b");
        backup(&directory, &Control::default());
        let before = memory();
        let pid = std::process::id();
        // A killed run forgets its work.
        sim("remove");
        filled(&directory, |filled, _| std::mem::forget(filled));
        assert_eq!(journals().len(), 1);
        let removed = |count: u32| format!("removed {count} segments left by a killed restore (pid {pid})");
        assert_eq!(recover(), [removed(9)]);
        assert_eq!((sim("sum").as_str(), journals().len()), ("", 0));
        let stay = |count: u32, why: &str| {
            format!(
                "a restore (pid {pid}) was killed, and its {count} segments were not \
            removed: {why}"
            )
        };
        let begun = "it had begun to complete them, and a server may have used them since";
        // They are about to be trusted: nobody can know whether a start has seen them in this
        // state.
        filled(&directory, |mut filled, _| {
            filled.note_commit().expect("a line");
            std::mem::forget(filled);
        });
        assert_eq!(recover(), [stay(1, begun), stay(8, begun)]);
        assert_eq!((sim("sum").lines().count(), journals().len()), (9, 0));
        // Trusted.
        sim("remove");
        let kill_when_trusted = || {
            filled(&directory, |mut filled, _| {
                filled.note_commit().expect("a line");
                let words = words_of(&filled);
                std::mem::forget(filled.trust(words));
            });
        };
        kill_when_trusted();
        // The words are still attached: a process that is killed detaches.
        let complete = "it had completed them";
        assert_eq!(recover(), [stay(1, complete), stay(8, complete)]);
        assert_eq!((sim("sum").lines().count(), journals().len()), (9, 0));
        // They are trusted and used: the server has discarded base and treex, and crashed.
        sim("remove");
        kill_when_trusted();
        sim("remove --key ae001000");
        sim("remove --key ae001001");
        assert_eq!(recover(), [stay(1, complete), stay(6, begun)]);
        assert_eq!((sim("sum").lines().count(), journals().len()), (7, 0));
        assert_eq!(without_discarded(&before).lines().count(), 7);
    });
}

#[test]
fn base_is_trusted_when_everything_else_is() {
    const STRIPES: u32 = 128;
    on_own_machine(|root| {
        let directory = root.join("b");
        sim("remove");
        // Storing this many words takes so long that a reader who looks all the time sees base
        // without the rest, if base comes too early.
        sim(&format!("make --name many --stages 1 --base-size 4096 --treex-size 4096 --stripes {STRIPES} --stripe-size 4096"));
        backup(&directory, &Control::default());
        for _ in 0..5 {
            sim("remove");
            filled(&directory, |filled, control| {
                // The segment must not be attached while it is read, because the commit would find
                // that.
                let Some(base) = View::of(shmid_of(0xae00_1000)) else {
                    assert!(!is_real_root(), "root of the machine may open them");
                    return;
                };
                let stripe = |stripe: u32| View::of(shmid_of(0xad00_1000 + stripe)).expect("its file");
                let stripes: Vec<View> = (0..STRIPES).map(stripe).collect();
                let is_over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let looking = scope.spawn(|| {
                        while base.word(4) == 0 && !is_over.load(Ordering::Relaxed) {}
                        // Both ends first, because one of them is stored last.
                        let ends = [&stripes[0], &stripes[STRIPES as usize - 1]].map(|stripe| stripe.word(56));
                        (ends, stripes.iter().filter(|stripe| stripe.word(56) == 1).count())
                    });
                    let outcome = commit::trust(filled, control);
                    is_over.store(true, Ordering::Relaxed);
                    assert_eq!(looking.join().expect("no panic"), ([1, 1], STRIPES as usize));
                    outcome.expect("a restore");
                });
            });
        }
    });
}

/// The first page of a segment, which is read without attaching the segment.
struct View(*const AtomicU32);

// SAFETY: it is only read, atomically.
unsafe impl Sync for View {}

impl View {
    /// `None` if only root of the machine may open a segment's file, and this process is not.
    fn of(shmid: i32) -> Option<Self> {
        let _attachment = Attachment::new(shmid, Access::ReadOnly, 0).expect("an attachment");
        let maps = fs::read_to_string("/proc/self/maps").expect("mappings");
        let is_its = |line: &&str| line.split_whitespace().nth(4) == Some(&shmid.to_string()) && line.contains("/SYSV");
        let range = maps.lines().find(is_its).and_then(|line| line.split_whitespace().next()).expect("a mapping");
        let file = File::open(format!("/proc/self/map_files/{range}")).ok()?;
        let (null, none) = (std::ptr::null_mut(), 0);
        // SAFETY: the kernel picks a free range; the mapping is as long as a page.
        let page = unsafe { libc::mmap(null, 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), none) };
        assert_ne!(page, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Some(Self(page.cast()))
    }

    fn word(&self, offset: usize) -> u32 {
        // SAFETY: the word is in the page.
        let word = unsafe { self.0.add(offset / 4) };
        // SAFETY: the page is mapped as long as this lives, and the word is aligned.
        unsafe { &*word }.load(Ordering::SeqCst)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and there is no reference into it.
        unsafe { libc::munmap(self.0.cast_mut().cast(), 4096) };
    }
}

fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("a map");
    map.split_whitespace().nth(2) == Some("4294967295")
}

/// Whatever has become of a file since it was written, a byte of a chunk or of what is around the
/// chunks: it is not what was encoded. Files whose chunks were compared as they were written are
/// compared around them.
#[test]
fn what_is_read_back_otherwise_than_it_was_written_is_no_backup() {
    on_own_machine(|root| {
        for form in [Form::Plain, Form::Gzip, Form::Columns] {
            let directory = root.join(format!("{form:?}"));
            fs::create_dir(&directory).expect("a directory");
            let store = Store::open(&directory).expect("the directory");
            let staged = stage(&store, form);
            let pairs = || staged.namespaces.iter().flat_map(|one| one.manifest.segments.iter().zip(&one.files));
            let sources: Vec<plan::Source> =
                pairs().map(|(segment, file)| plan::Source::of_segment(segment, file.temporary.clone())).collect();
            let code = |read_back: &BTreeSet<Key>| {
                let compared = read_all::compare_with_disk(&store, &sources, read_back, 1, &Control::default());
                compared.err().map(|error| (error.first().code, error.first().file.clone()))
            };
            let all: BTreeSet<Key> = sources.iter().map(|source| source.key).collect();
            assert_eq!((code(&BTreeSet::new()), code(&all)), (None, None), "{form:?}");
            for (segment, file) in pairs() {
                let path = directory.join(&file.temporary);
                let whole = fs::read(&path).expect("its bytes");
                let last = whole.len() as u64 - 1;
                let first_chunk = segment.chunks[0].offset + 20;
                for (at, is_around) in [(first_chunk, false), (0, true), (last, true)] {
                    let mut changed = whole.clone();
                    changed[usize::try_from(at).expect("an offset")] ^= 0x10;
                    fs::write(&path, changed).expect("written");
                    let expected = Some((Code::CompareFailed, Some(file.name.clone())));
                    assert_eq!(code(&BTreeSet::new()), expected, "{form:?} {} {at}", file.name);
                    if is_around && !segment.encoding.is_plain() {
                        assert_eq!(code(&all), expected, "{form:?} {} {at}", file.name);
                    }
                }
                fs::write(&path, whole).expect("whole again");
            }
            assert_eq!(code(&BTreeSet::new()), None, "{form:?}");
        }
    });
}
