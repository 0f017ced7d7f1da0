//! A machine with a server's segments, another one without, and a directory between them; and what
//! must hold of them whatever has happened to a run of asmt.
//!
//! Promise: everything is in namespaces of its own, and goes with this process. The judgement is
//! one for all loops: it looks at memory, directory and runtime directory, restores what is there,
//! and does the next run with no hand laid on. Must never: be told beforehand what to find, beyond
//! how the run has ended.

use crate::calls::Call;
use crate::sys::{self, Limit};
use crate::tracer::{self, Action, Ended};
use asmt_engine::error::Kind;
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::progress::Control;
use asmt_engine::{Failure, Request, perform};
use asmt_shm::{Header, SHUTDOWN_CLEAN};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is run, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in labels.
    pub name: &'static str,
    /// Operation.
    pub verb: Verb,
    /// The backup is compressed.
    pub compress: bool,
    /// `-c`.
    pub check: bool,
    /// Workers.
    pub threads: u16,
    /// Command lines of the simulator that make a server's segments; a namespace each.
    pub shape: &'static [&'static str],
}

/// Index, secondary index and data in segments that are small, because the first touch of memory is
/// slow.
pub const SMALL: &[&str] = &[
    "--stages 1 --stage-size 64KiB --treex-size 8192 --base-size 4096 --si-stages 1 --si-stage-size 64KiB --stripes 2 --stripe-size 128KiB --stripe-fill 1",
];
/// Two namespaces: each has a commit of its own.
pub const TWO: &[&str] = &[
    "--stages 1 --stage-size 64KiB --treex-size 8192 --base-size 4096",
    "--name other --nsid 2 --stages 1 --stage-size 64KiB --treex-size 8192 --base-size 4096 --seed 7",
];
/// Segments of several chunks, with holes in them.
pub const CHUNKS: &[&str] = &["--stages 2 --stage-size 9MiB --fill 0.05 --treex-size 8192 --base-size 4096"];

/// How asmt is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The engine alone, by this program itself: starts in a millisecond.
    Driver,
    /// The command line as users have it.
    Cli,
}

/// A failure as asmt tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// Kind, as it stands in JSON.
    pub kind: String,
    /// Code.
    pub code: String,
    /// What was found.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// How a run ended, and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By status or signal.
    pub ended: Ended,
    /// It said that it is done.
    pub is_done: bool,
    /// What it said was wrong; empty if it was ended before it could say so.
    pub problems: Vec<Told>,
    /// Everything it said.
    pub text: String,
    /// What it said on standard error.
    pub stderr: String,
}

impl Outcome {
    /// Ended by a signal, before it could say anything.
    pub fn is_killed(&self) -> bool {
        self.ended.signal.is_some()
    }

    /// In a word, for counting.
    pub fn word(&self) -> String {
        match (self.is_done, self.problems.first(), self.ended.signal) {
            (true, _, _) => "done".to_owned(),
            (_, Some(told), _) => told.kind.clone(),
            (_, None, Some(signal)) => format!("killed by {signal}"),
            (_, None, None) => "silent".to_owned(),
        }
    }
}

/// What may be found after a run: the rest follows from what it said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// A removal failed: what it was to remove may be left, if that was said.
    pub removal_failed: bool,
    /// Somebody else took the directory away when its commit had begun: what was done may be gone.
    pub directory_taken: bool,
    /// There was a whole backup before the run.
    pub has_backup: bool,
    /// A killed run came before it: what that has left may still be there.
    pub follows_kill: bool,
}

/// Machines and directories of a loop.
pub struct World {
    root: PathBuf,
    /// Where backups are put: a file system of its own, if one can be had.
    pub disk: PathBuf,
    /// The machine with the server's segments.
    server: File,
    /// A machine that has others' segments only.
    spare: File,
    scenario: Scenario,
    /// Every segment of the server's, as the simulator sums them; a namespace each.
    namespaces: Vec<BTreeSet<String>>,
    /// Others' segments on the spare machine.
    others: BTreeSet<String>,
    /// Names of a whole backup.
    whole: BTreeSet<String>,
}

/// Segments as lines: key, size, CRC-32, owner, group, mode, attach count.
pub fn sums() -> BTreeSet<String> {
    sim("sum --all --sparse").lines().map(str::to_owned).collect()
}

/// Runs the simulator in this process's IPC namespace.
pub fn sim(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut out = Vec::new();
    asmt_sim::run(&words, &mut out).unwrap_or_else(|error| panic!("asmt-sim {line}: {error}"));
    String::from_utf8(out).expect("text")
}

/// Names in a directory; none if it is not there.
pub fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Names in the directory of a backup, but for the marks of its use: a restore leaves one.
pub fn backup_names(directory: &Path) -> BTreeSet<String> {
    names(directory).into_iter().filter(|name| !asmt_engine::format::mark::is_used_name(name)).collect()
}

/// A new IPC namespace, which this process is in afterwards.
fn new_machine() -> File {
    sys::unshare_ipc().expect("an IPC namespace of its own: run it as root, or in a user namespace");
    File::open("/proc/thread-self/ns/ipc").expect("its name")
}

/// A request as the binding reads it.
fn request(verb: Verb, directory: &Path, compress: bool, check: bool, threads: u16) -> Request {
    let asked = Asked { directory: Some(directory.to_owned()), instance: Some(0), compress, check, ..Asked::new(verb) };
    Asked { threads: Some(threads), allow_volatile: true, allow_private_ipc: true, ..asked }.into()
}

/// Does an operation in this process: one thread, nothing fails.
pub fn perform_here(verb: Verb, directory: &Path, compress: bool) -> Result<(), Failure> {
    perform(&request(verb, directory, compress, false, 1), "asmt faults", &Control::default()).map(drop)
}

impl World {
    /// Makes the machines, with the scenario's segments on one of them; for a restore, a backup
    /// too.
    pub fn new(root: &Path, disk: &Path, scenario: Scenario) -> Self {
        let spare = new_machine();
        sim("foreign --key 4711 --size 8192");
        sim("make --name third --instance 1 --nsid 3 --stages 1 --stage-size 64KiB --treex-size 8192 --base-size 4096 --seed 9");
        let others = sums();
        let server = new_machine();
        let mut namespaces = Vec::new();
        let mut before = BTreeSet::new();
        let owner = if crate::is_real_root() { " --uid 12345 --gid 12346 --mode 640" } else { "" };
        for line in scenario.shape {
            sim(&format!("make {line}{owner}"));
            let all = sums();
            namespaces.push(all.difference(&before).cloned().collect());
            before = all;
        }
        let mut world = Self {
            root: root.to_owned(),
            disk: disk.to_owned(),
            server,
            spare,
            scenario,
            namespaces,
            others,
            whole: BTreeSet::new(),
        };
        world.clear();
        perform_here(Verb::Backup, &world.directory(), scenario.compress)
            .unwrap_or_else(|failure| panic!("no backup can be made: {}", failure.error));
        world.whole = names(&world.directory());
        if scenario.verb == Verb::Restore && scenario.compress {
            // So that both is tried: a mark that is made, and one that is there.
            world.enter_spare();
            perform_here(Verb::Restore, &world.directory(), false)
                .unwrap_or_else(|failure| panic!("no restore: {}", failure.error));
        }
        world.reset();
        world
    }

    /// What is run.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The directory of the backup.
    pub fn directory(&self) -> PathBuf {
        self.disk.join("b")
    }

    /// Names of a whole backup.
    pub fn whole(&self) -> &BTreeSet<String> {
        &self.whole
    }

    /// Whether there is a whole backup.
    pub fn has_whole_backup(&self) -> bool {
        self.whole.is_subset(&names(&self.directory()))
    }

    /// Where asmt keeps locks and journals.
    pub fn runtime(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Goes to the machine with the server's segments.
    pub fn enter_server(&self) {
        sys::enter_ipc(&self.server).expect("to enter the namespace");
    }

    /// Goes to the machine without.
    pub fn enter_spare(&self) {
        sys::enter_ipc(&self.spare).expect("to enter the namespace");
    }

    /// Goes to the machine that the scenario's operation works on.
    pub fn enter(&self) {
        match self.scenario.verb {
            Verb::Restore | Verb::Verify | Verb::Retire => self.enter_spare(),
            Verb::Backup | Verb::List => self.enter_server(),
        }
    }

    /// Every segment of the server's.
    pub fn server_sums(&self) -> BTreeSet<String> {
        self.namespaces.iter().flatten().cloned().collect()
    }

    /// Segments that others have on the spare machine.
    pub fn others(&self) -> &BTreeSet<String> {
        &self.others
    }

    /// Makes the server's segments anew, whatever has become of them.
    pub fn remake_server(&self) {
        self.enter_server();
        sim("remove");
        let owner = if crate::is_real_root() { " --uid 12345 --gid 12346 --mode 640" } else { "" };
        for line in self.scenario.shape {
            sim(&format!("make {line}{owner}"));
        }
    }

    /// Removes what is on the disk.
    pub fn empty(&self) {
        self.clear();
    }

    fn clear(&self) {
        for name in names(&self.disk).iter().filter(|name| *name != "lost+found" && *name != "ballast") {
            let path = self.disk.join(name);
            let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
        }
    }

    /// Back to where a run begins.
    pub fn reset(&self) {
        self.enter_spare();
        remove_all_but(&self.others);
        for name in names(&self.runtime()).iter().filter(|name| !name.ends_with(".lock")) {
            let _ = fs::remove_file(self.runtime().join(name));
        }
        let needs_backup = matches!(self.scenario.verb, Verb::Restore | Verb::Verify);
        if !needs_backup {
            self.clear();
        } else if backup_names(&self.directory()) != self.whole {
            self.clear();
            self.enter_server();
            perform_here(Verb::Backup, &self.directory(), self.scenario.compress).expect("a backup");
        } else if !self.scenario.compress {
            let is_mark = |name: &String| asmt_engine::format::mark::is_used_name(name);
            for mark in names(&self.directory()).into_iter().filter(is_mark) {
                fs::remove_file(self.directory().join(mark)).expect("a mark");
            }
        }
        self.enter();
    }

    /// The command that is run.
    pub fn command(&self, program: Program) -> Command {
        let Scenario { verb, compress, check, threads, .. } = self.scenario;
        let directory = self.directory();
        match program {
            Program::Driver => {
                let mut command = Command::new("/proc/self/exe");
                let text = serde_json::to_string(&request(verb, &directory, compress, check, threads));
                command.arg("drive").arg(text.expect("plain structures always serialise"));
                command.env("RUST_BACKTRACE", "0");
                command
            }
            Program::Cli => {
                let mut command = Command::new("node");
                command.arg(crate::main_js()).arg(match verb {
                    Verb::List => "list",
                    Verb::Backup => "backup",
                    Verb::Restore => "restore",
                    Verb::Verify => "verify",
                    Verb::Retire => "retire",
                });
                command.args(check.then_some("-c")).args((compress && verb == Verb::Backup).then_some("-z"));
                command.arg("--json");
                if verb != Verb::List {
                    command.arg(format!("-t{threads}"));
                    command.args((verb == Verb::Backup).then_some("--allow-volatile")).arg(directory);
                }
                command
            }
        }
    }

    /// Where what it says on standard error is collected.
    pub fn stderr_path(&self) -> PathBuf {
        self.root.join("stderr")
    }

    /// Runs it, and shows each call of the engine to `hook`.
    pub fn run<'a>(&self, program: Program, limits: Vec<Limit>, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> Outcome {
        let stderr = self.stderr_path();
        let mut command = self.command(program);
        // A pipe, for it is to say what is wrong when it may write no file; what it says there is
        // short.
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        command.stdout(writer).stderr(File::create(&stderr).expect("a file"));
        let ended = tracer::run(&mut command, limits, hook).unwrap_or_else(|error| panic!("cannot trace: {error}"));
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        outcome_of(ended, &text, &stderr)
    }

    /// Runs it without looking at its calls; does something else meanwhile, which may ask whether
    /// it has ended.
    pub fn run_free(&self, meanwhile: &mut dyn FnMut(&mut dyn FnMut() -> bool)) -> Outcome {
        let stderr = self.stderr_path();
        let mut command = self.command(Program::Driver);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&stderr).expect("a file"));
        sys::prepare_free(&mut command);
        let mut child = command.spawn().expect("to start");
        meanwhile(&mut || child.try_wait().expect("to be asked").is_some());
        let done = child.wait_with_output().expect("its end");
        let ended = Ended { status: done.status.code(), signal: done.status.signal(), is_endless: false };
        outcome_of(ended, &String::from_utf8_lossy(&done.stdout), &stderr)
    }

    /// Judges what a run has left; gives every way in which it is wrong. Leaves the world to be
    /// reset.
    pub fn judge(&self, outcome: &Outcome, allowance: Allowance) -> Vec<String> {
        let mut wrong = Wrong(Vec::new());
        wrong.unless(!outcome.ended.is_endless, || "it did not end".to_owned());
        wrong
            .unless(outcome.word() != "silent", || format!("it ended by {:?} and said nothing: {}", outcome.ended, outcome.text));
        wrong.unless(!outcome.problems.iter().any(|told| told.kind == "bug"), || {
            format!("it called itself a bug: {}", outcome.text)
        });
        match self.scenario.verb {
            Verb::Backup => self.judge_backup(outcome, allowance, &mut wrong),
            Verb::Restore => self.judge_restore(outcome, allowance, &mut wrong),
            Verb::Verify | Verb::List | Verb::Retire => self.judge_reading(outcome, &mut wrong),
        }
        // What a restore that has ended has made is kept on record.
        let is_kept = |name: &String| name.ends_with(".lock") || name.starts_with("restored-");
        let journals: Vec<String> = names(&self.runtime()).into_iter().filter(|name| !is_kept(name)).collect();
        wrong.unless(journals.is_empty(), || format!("left in the runtime directory: {journals:?}"));
        wrong.0
    }

    fn judge_backup(&self, outcome: &Outcome, allowance: Allowance, wrong: &mut Wrong) {
        self.enter_server();
        wrong.same("the server's segments", &sums(), &self.server_sums());
        let left = names(&self.directory());
        let is_whole = self.whole.is_subset(&left);
        if outcome.is_done {
            wrong.unless(is_whole || allowance.directory_taken, || format!("it said that it is done, and there is {left:?}"));
        } else if !outcome.is_killed() && !left.is_empty() && !allowance.has_backup && !allowance.follows_kill {
            wrong.unless(allowance.removal_failed, || format!("it failed, and left {left:?}"));
            wrong.unless(is_told(outcome), || format!("it left {left:?}, and did not say so: {}", outcome.text));
        }
        // What our restore takes, on a machine that knows nothing.
        let (restored, found) = self.restore_elsewhere();
        match &restored {
            Ok(()) => {
                let is_namespaces = self.namespaces.iter().all(|all| all.is_subset(&found) || all.is_disjoint(&found));
                let is_only = found.is_subset(&self.server_sums());
                wrong.unless(is_namespaces && is_only && !found.is_empty(), || {
                    format!("what is there was restored, and is not what was in memory: {found:?}")
                });
                wrong.unless(!outcome.is_done || found == self.server_sums(), || format!("not all came back: {found:?}"));
                let may_be = outcome.is_done || outcome.is_killed() || allowance.removal_failed || allowance.has_backup;
                wrong.unless(may_be, || "it failed, and there is a backup".to_owned());
            }
            Err(failure) => {
                wrong.unless(!outcome.is_done || allowance.directory_taken, || {
                    format!("it is done, and cannot be restored: {}", failure.error)
                });
                wrong.unless(found.is_empty(), || format!("a refused restore left {found:?}"));
                let kinds = [Kind::Damaged, Kind::Usage, Kind::NothingToDo];
                wrong.unless(kinds.contains(&failure.error.first().kind), || format!("restore refuses by {}", failure.error));
                // ASMT takes what has base: so where base is, all must be.
                let bases = left.iter().filter(|name| name.starts_with("ae") && name.ends_with("000.dat")).count();
                let is_partial = bases > 0 && bases < self.namespaces.len();
                wrong.unless(bases == 0 || is_partial, || format!("base is there, and restore refuses: {}", failure.error));
            }
        }
        // The next run, with no hand laid on.
        self.enter_server();
        match perform_here(Verb::Backup, &self.directory(), self.scenario.compress) {
            Ok(()) => {
                wrong.unless(!is_whole, || "a whole backup was replaced by the next".to_owned());
                wrong.same("names after the next backup", &backup_names(&self.directory()), &self.whole);
            }
            Err(failure) => {
                let is_exists = failure.error.problems().iter().all(|problem| problem.code.as_str() == "backup-exists");
                wrong.unless(is_whole && is_exists, || format!("the next backup fails: {}", failure.error));
            }
        }
        let (restored, found) = self.restore_elsewhere();
        if let Err(failure) = restored {
            wrong.0.push(format!("the next backup cannot be restored: {}", failure.error));
        }
        wrong.same("what the next backup brings back", &found, &self.server_sums());
        self.enter_server();
        wrong.same("the server's segments after the next backup", &sums(), &self.server_sums());
    }

    /// Restores on the spare machine, gives what came there, and takes it away again.
    pub fn restore_elsewhere(&self) -> (Result<(), Failure>, BTreeSet<String>) {
        self.enter_spare();
        let outcome = perform_here(Verb::Restore, &self.directory(), false);
        let found = sums();
        remove_all_but(&self.others);
        (outcome, found.difference(&self.others).cloned().collect())
    }

    fn judge_restore(&self, outcome: &Outcome, allowance: Allowance, wrong: &mut Wrong) {
        self.enter_spare();
        let found = sums();
        wrong.unless(self.others.is_subset(&found), || format!("others' segments have changed: {found:?}"));
        let made: BTreeSet<String> = found.difference(&self.others).cloned().collect();
        let expected = self.server_sums();
        if outcome.is_done {
            wrong.same("what it said it has restored", &made, &expected);
            let is_marked = names(&self.directory()).iter().any(|name| asmt_engine::format::mark::is_used_name(name));
            wrong.unless(is_marked, || "it said that it is done, and the backup is not marked as used".to_owned());
        } else if !outcome.is_killed() && !made.is_empty() && !allowance.follows_kill {
            wrong.unless(allowance.removal_failed, || format!("it failed, and left {made:?}"));
            wrong.unless(is_told(outcome), || format!("it left segments, and did not say so: {}", outcome.text));
        }
        for name in trusted_names() {
            let whole = self.namespaces.iter().any(|all| all.is_subset(&made) && all.iter().any(|line| is_base_of(line, &name)));
            wrong.unless(whole, || format!("a start would trust namespace '{name}', and there is {made:?}"));
        }
        if !outcome.is_killed() && !allowance.follows_kill && !allowance.removal_failed {
            wrong.same("names of the backup", &backup_names(&self.directory()), &self.whole);
        }
        let is_complete = made == expected;
        match perform_here(Verb::Restore, &self.directory(), false) {
            Ok(()) => wrong.unless(!outcome.is_done, || "it was restored once more over what was there".to_owned()),
            Err(failure) => {
                let is_exists = failure
                    .error
                    .problems()
                    .iter()
                    .all(|problem| matches!(problem.code.as_str(), "segments-exist" | "already-in-memory"));
                // Of several namespaces some may be complete: they are in the way like any other.
                let is_in_the_way = is_exists && self.namespaces.iter().any(|all| all.is_subset(&made));
                wrong.unless(is_in_the_way || is_complete && is_exists, || format!("the next restore fails: {}", failure.error));
                if is_in_the_way && !is_complete {
                    remove_all_but(&self.others);
                    let again = perform_here(Verb::Restore, &self.directory(), false);
                    wrong.unless(again.is_ok(), || "the restore after that fails".to_owned());
                }
            }
        }
        let made: BTreeSet<String> = sums().difference(&self.others).cloned().collect();
        wrong.same("what the next restore makes", &made, &expected);
        wrong.same("names of the backup after the next restore", &backup_names(&self.directory()), &self.whole);
    }

    fn judge_reading(&self, outcome: &Outcome, wrong: &mut Wrong) {
        let _ = outcome;
        self.enter_server();
        wrong.same("the server's segments", &sums(), &self.server_sums());
        self.enter_spare();
        wrong.same("others' segments", &sums(), &self.others);
        if self.scenario.verb == Verb::Verify {
            wrong.same("names of the backup", &backup_names(&self.directory()), &self.whole);
            let again = perform_here(Verb::Verify, &self.directory(), false);
            wrong.unless(again.is_ok(), || "the next verify fails".to_owned());
        }
    }
}

/// Reads what a run has said.
fn outcome_of(ended: Ended, text: &str, stderr: &Path) -> Outcome {
    #[derive(Deserialize)]
    struct Said {
        ok: bool,
        error: Option<Problems>,
    }
    #[derive(Deserialize)]
    struct Problems {
        problems: Vec<Told>,
    }
    let said: Option<Said> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let complaint = fs::read_to_string(stderr).unwrap_or_default();
    let (is_done, problems) = match said {
        Some(said) => (said.ok, said.error.map(|error| error.problems).unwrap_or_default()),
        None => (false, Vec::new()),
    };
    let told: Vec<String> = problems.iter().map(|told| format!("{}: {}", told.code, told.message)).collect();
    Outcome { ended, is_done, problems, text: format!("{} {}", told.join("; "), complaint.trim()), stderr: complaint }
}

fn is_told(outcome: &Outcome) -> bool {
    outcome.problems.iter().any(|told| told.message.contains("while cleaning up"))
}

/// Removes every segment of this namespace that is not among those.
fn remove_all_but(others: &BTreeSet<String>) {
    for stat in asmt_shm::sysv::all_segments().expect("segments") {
        let key = stat.key.to_string();
        if !others.iter().any(|line| line.starts_with(&key)) {
            let _ = asmt_shm::sysv::remove(stat.shmid);
        }
    }
}

/// Namespaces with an index that a start would trust, others' left out.
fn trusted_names() -> Vec<String> {
    let inventory = asmt_engine::look::segments::take().expect("an inventory");
    let trusted = inventory.segments.values().filter_map(|segment| match &segment.header {
        Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN && segment.address.nsid != 3 => Some(format!("{}", segment.key())),
        _ => None,
    });
    trusted.collect()
}

fn is_base_of(line: &str, key: &str) -> bool {
    line.starts_with(key)
}

struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(text());
        }
    }

    fn same(&mut self, what: &str, found: &BTreeSet<String>, expected: &BTreeSet<String>) {
        self.unless(found == expected, || {
            let (more, fewer): (Vec<_>, Vec<_>) = (found.difference(expected).collect(), expected.difference(found).collect());
            format!("{what}: unexpected {more:?}, missing {fewer:?}")
        });
    }
}
