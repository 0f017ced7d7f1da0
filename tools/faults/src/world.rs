//! A machine with a server's segments, a machine without, and a directory between them; and runs of
//! asmt on them.
//!
//! Promise: everything is in namespaces of its own, and goes with this process. Must never: decide
//! what is right; that is in `judge.rs`.

use crate::calls::Call;
use crate::driver::{Said, Told};
use crate::sys::{self, Limit};
use crate::tracer::{self, Action, Ended, Setup, Shown};
use asmt_engine::format::Form;
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::progress::Control;
use asmt_engine::{Failure, Request, perform};
use asmt_kit::files::{self, names};
use asmt_kit::namespaces::{enter_ipc, new_ipc};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An operation, its options, and the segments on which it works.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in labels.
    pub name: &'static str,
    /// Operation.
    pub verb: Verb,
    /// The form of the backup that is written or read. An export reads one in columns.
    pub form: Form,
    /// `-c`.
    pub check: bool,
    /// Workers.
    pub threads: u16,
    /// Command lines of the simulator that make a server's segments, one per namespace.
    pub shape: &'static [&'static str],
    /// Backup: what is in the directory before. Where there is something, it is replaced.
    pub old: Old,
}

/// A plain backup into a directory in which there is none.
pub const BACKUP: Scenario =
    Scenario { name: "backup", verb: Verb::Backup, form: Form::Plain, check: false, threads: 1, shape: SMALL, old: Old::None };

/// An older backup of the same segments, in plain files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// None.
    None,
    /// One of which nobody can tell whether it is current: it has no manifest.
    Unsure,
    /// One that was retired.
    Retired,
}

/// Index, secondary index and data in small segments, because the first touch of memory is slow.
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

/// The program that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The engine alone, in this program: it starts in a millisecond.
    Driver,
    /// The command line as users have it.
    Cli,
}

/// The end of a run, and its report.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status or signal.
    pub ended: Ended,
    /// The run reported that it is done.
    pub is_done: bool,
    /// The problems that it reported; empty if it was killed before it could report any.
    pub problems: Vec<Told>,
    /// Everything that it printed.
    pub text: String,
    /// The text that it printed on standard error.
    pub stderr: String,
}

impl Outcome {
    /// Returns true if it was killed by a signal, before it could report anything.
    pub fn is_killed(&self) -> bool {
        self.ended.signal.is_some()
    }

    /// The end in one word, for counting.
    pub fn word(&self) -> String {
        match (self.is_done, self.problems.first(), self.ended.signal) {
            (true, _, _) => "done".to_owned(),
            (_, Some(told), _) => told.kind.clone(),
            (_, None, Some(signal)) => format!("killed by {signal}"),
            (_, None, None) => "silent".to_owned(),
        }
    }
}

/// Machines and directories of a loop.
pub struct World {
    root: PathBuf,
    /// The directory for backups: on a file system of its own, if there can be one.
    pub disk: PathBuf,
    /// The machine with the server's segments.
    server: RefCell<File>,
    /// A machine that has only segments of others.
    spare: File,
    scenario: Scenario,
    /// The server's segments, as the simulator sums them, one set per namespace.
    namespaces: Vec<BTreeSet<String>>,
    /// Segments of others on the spare machine.
    others: BTreeSet<String>,
    /// Names of a whole backup.
    whole: BTreeSet<String>,
    /// Names of the backup that an export reads.
    exported: BTreeSet<String>,
}

/// Segments as lines: key, size, CRC-32, owner, group, mode, attach count.
pub fn sums() -> BTreeSet<String> {
    sim("sum --all --sparse").lines().map(str::to_owned).collect()
}

/// Runs the simulator in this process's IPC namespace.
pub fn sim(line: &str) -> String {
    asmt_sim::output_of(line).unwrap_or_else(|error| panic!("asmt-sim {line}: {error}"))
}

/// Names in the directory of a backup, without the usage marks that restores leave.
pub fn backup_names(directory: &Path) -> BTreeSet<String> {
    names(directory).into_iter().filter(|name| !asmt_engine::format::mark::is_used_name(name)).collect()
}

/// Moves this process to a new IPC namespace.
fn new_machine() -> File {
    new_ipc().expect("an IPC namespace of its own: run it as root, or in a user namespace")
}

/// A request as the binding reads it.
fn request(verb: Verb, directory: &Path, form: Form, check: bool, threads: u16) -> Request {
    asked(verb, directory, form, check, threads).into()
}

/// Copies a directory as it is, with owners and times.
fn copy(from: &Path, to: &Path) {
    files::run(Command::new("cp").arg("-a").arg(from).arg(to)).unwrap_or_else(|error| panic!("{error}"));
}

fn asked(verb: Verb, directory: &Path, form: Form, check: bool, threads: u16) -> Asked {
    let (compress, columns) = (form == Form::Gzip, form == Form::Columns);
    let asked = Asked { directory: Some(directory.to_owned()), instance: Some(0), compress, columns, check, ..Asked::new(verb) };
    Asked { threads: Some(threads), allow_volatile: true, allow_private_ipc: true, ..asked }
}

/// Does an operation in this process: one thread, nothing fails.
pub fn perform_here(verb: Verb, directory: &Path, form: Form) -> Result<(), Failure> {
    perform(&request(verb, directory, form, false, 1), "asmt faults", &Control::default()).map(drop)
}

impl World {
    /// Makes the machines, with the scenario's segments on one of them, and for a restore a backup,
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
            server: RefCell::new(server),
            spare,
            scenario,
            namespaces,
            others,
            whole: BTreeSet::new(),
            exported: BTreeSet::new(),
        };
        world.clear();
        if scenario.verb == Verb::Export {
            perform_here(Verb::Backup, &world.exported_directory(), Form::Columns)
                .unwrap_or_else(|failure| panic!("no backup can be made: {}", failure.error));
            world.exported = names(&world.exported_directory());
            world.enter_spare();
            world.write_here().unwrap_or_else(|failure| panic!("no export: {}", failure.error));
        } else {
            perform_here(Verb::Backup, &world.directory(), scenario.form)
                .unwrap_or_else(|failure| panic!("no backup can be made: {}", failure.error));
        }
        world.whole = names(&world.directory());
        if scenario.old != Old::None {
            world.make_old();
        }
        if scenario.verb == Verb::Restore && scenario.form != Form::Plain {
            // So that both is tried: a mark that is made, and one that is there.
            world.enter_spare();
            perform_here(Verb::Restore, &world.directory(), Form::Plain)
                .unwrap_or_else(|failure| panic!("no restore: {}", failure.error));
        }
        world.reset();
        world
    }

    /// Makes the older backup, and keeps it where no run finds it.
    fn make_old(&self) {
        let directory = self.directory();
        self.clear();
        let must = |verb| perform_here(verb, &directory, Form::Plain).unwrap_or_else(|failure| panic!("{}", failure.error));
        must(Verb::Backup);
        match self.scenario.old {
            Old::Retired => must(Verb::Retire),
            // As ASMT leaves it: each file has the mode of its segment.
            _ => names(&directory).iter().map(|name| (name, directory.join(name))).for_each(|(name, path)| {
                if asmt_engine::format::is_manifest_name(name) {
                    fs::remove_file(path).expect("to remove a manifest");
                } else if crate::is_real_root() {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("to change a mode");
                }
            }),
        }
        let _ = fs::remove_dir_all(self.old_directory());
        copy(&directory, &self.old_directory());
    }

    /// The older backup, as it is before each run.
    pub fn old_directory(&self) -> PathBuf {
        self.root.join("old")
    }

    /// The scenario.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The directory of the backup.
    pub fn directory(&self) -> PathBuf {
        self.disk.join("b")
    }

    /// The directory of the backup that an export reads.
    pub fn exported_directory(&self) -> PathBuf {
        self.disk.join("exported")
    }

    /// Names of the backup that an export reads; none for any other operation.
    pub fn exported(&self) -> &BTreeSet<String> {
        &self.exported
    }

    /// The request of the scenario.
    fn request(&self) -> Request {
        let Scenario { verb, form, check, threads, .. } = self.scenario;
        if verb != Verb::Export {
            let replace = self.scenario.old != Old::None;
            return Asked { replace, ..asked(verb, &self.directory(), form, check, threads) }.into();
        }
        Asked { output: Some(self.directory()), ..asked(verb, &self.exported_directory(), form, check, threads) }.into()
    }

    /// Makes the scenario's backup in this process, or exports it: nothing fails.
    pub fn write_here(&self) -> Result<(), Failure> {
        perform(&self.request(), "asmt faults", &Control::default()).map(drop)
    }

    /// Names of a whole backup.
    pub fn whole(&self) -> &BTreeSet<String> {
        &self.whole
    }

    /// Returns true if there is a whole backup.
    pub fn has_whole_backup(&self) -> bool {
        self.whole.is_subset(&names(&self.directory()))
    }

    /// The directory in which asmt keeps locks and journals.
    pub fn runtime(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Moves this process to the machine with the server's segments.
    pub fn enter_server(&self) {
        enter_ipc(&self.server.borrow()).expect("to enter the namespace");
    }

    /// Moves this process to the machine without them.
    pub fn enter_spare(&self) {
        enter_ipc(&self.spare).expect("to enter the namespace");
    }

    /// Moves this process to the machine on which the scenario's operation works.
    pub fn enter(&self) {
        match self.scenario.verb {
            Verb::Restore | Verb::Verify | Verb::Retire | Verb::Export => self.enter_spare(),
            Verb::Backup | Verb::List | Verb::Preflight => self.enter_server(),
        }
    }

    /// The server's segments, as the simulator sums them, one set per namespace.
    pub fn namespaces(&self) -> &[BTreeSet<String>] {
        &self.namespaces
    }

    /// All of the server's segments.
    pub fn server_sums(&self) -> BTreeSet<String> {
        self.namespaces.iter().flatten().cloned().collect()
    }

    /// Segments of others on the spare machine.
    pub fn others(&self) -> &BTreeSet<String> {
        &self.others
    }

    /// Makes the server's segments anew, whatever has become of them, on another machine: on the
    /// same one they would get other ids, and asmt would make more calls to find them.
    pub fn remake_server(&self) {
        *self.server.borrow_mut() = new_machine();
        let owner = if crate::is_real_root() { " --uid 12345 --gid 12346 --mode 640" } else { "" };
        for line in self.scenario.shape {
            sim(&format!("make {line}{owner}"));
        }
    }

    /// Removes everything from the disk.
    pub fn empty(&self) {
        self.clear();
    }

    fn clear(&self) {
        let is_kept = |name: &String| {
            let is_exported = name == "exported" && names(&self.exported_directory()) == self.exported;
            is_exported || ["lost+found", "ballast"].contains(&name.as_str())
        };
        for name in names(&self.disk).iter().filter(|name| !is_kept(name)) {
            let path = self.disk.join(name);
            let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
        }
    }

    /// Brings back the state in which a run begins.
    pub fn reset(&self) {
        self.enter_spare();
        remove_all_but(&self.others);
        for name in names(&self.runtime()).iter().filter(|name| !name.ends_with(".lock")) {
            let _ = fs::remove_file(self.runtime().join(name));
        }
        let needs_backup = matches!(self.scenario.verb, Verb::Restore | Verb::Verify);
        if !needs_backup {
            self.clear();
            if self.scenario.old != Old::None {
                copy(&self.old_directory(), &self.directory());
            }
        } else if backup_names(&self.directory()) != self.whole {
            self.clear();
            self.enter_server();
            perform_here(Verb::Backup, &self.directory(), self.scenario.form).expect("a backup");
        } else if self.scenario.form == Form::Plain {
            let is_mark = |name: &String| asmt_engine::format::mark::is_used_name(name);
            for mark in names(&self.directory()).into_iter().filter(is_mark) {
                fs::remove_file(self.directory().join(mark)).expect("a mark");
            }
        }
        if self.scenario.verb == Verb::Export && !self.exported_directory().exists() {
            self.enter_server();
            perform_here(Verb::Backup, &self.exported_directory(), Form::Columns).expect("a backup");
        }
        let read = if self.scenario.verb == Verb::Export { self.exported_directory() } else { self.directory() };
        if needs_backup || self.scenario.verb == Verb::Export {
            // What an earlier run has read would look like data in the holes of a file, and a run
            // would make other calls than the one before.
            for name in names(&read) {
                sys::forget(&File::open(read.join(name)).expect("a file"));
            }
        }
        self.enter();
    }

    /// The command of the scenario.
    pub fn command(&self, program: Program) -> Command {
        let Scenario { verb, form, check, threads, .. } = self.scenario;
        match program {
            Program::Driver => {
                let mut command = Command::new("/proc/self/exe");
                let text = serde_json::to_string(&self.request());
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
                    Verb::Export => "export",
                    Verb::Preflight => "preflight",
                });
                let of_form = match form {
                    Form::Plain => None,
                    Form::Gzip => Some("-z"),
                    Form::Columns => Some("-Z"),
                };
                command.args(check.then_some("-c")).args(of_form.filter(|_| [Verb::Backup, Verb::Export].contains(&verb)));
                command.args((self.scenario.old != Old::None).then_some("--replace"));
                command.arg("--json");
                if verb != Verb::List {
                    command.arg(format!("-t{threads}"));
                    command.args([Verb::Backup, Verb::Export].contains(&verb).then_some("--allow-volatile"));
                    command.args((verb == Verb::Export).then(|| self.exported_directory())).arg(self.directory());
                }
                command
            }
        }
    }

    /// The file that collects standard error.
    pub fn stderr_path(&self) -> PathBuf {
        self.root.join("stderr")
    }

    /// Runs the command, and shows calls of the engine to `hook`.
    pub fn run<'a>(&self, program: Program, shown: Shown, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> Outcome {
        self.run_as(program, Setup { limits: Vec::new(), shown, is_filtered: program == Program::Driver }, hook)
    }

    /// Runs the engine with a limit, and without stops.
    pub fn run_limited(&self, limit: Limit) -> Outcome {
        let setup = Setup { limits: vec![limit], shown: Shown::Nothing, is_filtered: true };
        self.run_as(Program::Driver, setup, &mut |_| Action::Go)
    }

    fn run_as<'a>(&self, program: Program, setup: Setup, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> Outcome {
        let stderr = self.stderr_path();
        let mut command = self.command(program);
        // A pipe, because the run must be able to report a failure when it may write no file. Its
        // output is short.
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        command.stdout(writer).stderr(File::create(&stderr).expect("a file"));
        let ended = tracer::run(&mut command, setup, hook).unwrap_or_else(|error| panic!("cannot trace: {error}"));
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        outcome_of(ended, &text, &stderr)
    }

    /// Runs the command without stopping at its calls, and calls `meanwhile`, which may ask whether
    /// the run has ended.
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

    /// Restores on the spare machine, returns the segments that appeared there, and removes them.
    pub fn restore_elsewhere(&self) -> (Result<(), Failure>, BTreeSet<String>) {
        self.enter_spare();
        let outcome = perform_here(Verb::Restore, &self.directory(), Form::Plain);
        let found = sums();
        remove_all_but(&self.others);
        (outcome, found.difference(&self.others).cloned().collect())
    }
}

/// Reads the report of a run.
fn outcome_of(ended: Ended, text: &str, stderr: &Path) -> Outcome {
    let complaint = fs::read_to_string(stderr).unwrap_or_default();
    let (is_done, problems) = match text.lines().last().and_then(Said::read) {
        Some(said) => (said.ok, said.problems()),
        None => (false, Vec::new()),
    };
    let told: Vec<String> = problems.iter().map(|told| format!("{}: {}", told.code, told.message)).collect();
    Outcome { ended, is_done, problems, text: format!("{} {}", told.join("; "), complaint.trim()), stderr: complaint }
}

/// Removes every segment of this namespace that is not in this set.
pub fn remove_all_but(others: &BTreeSet<String>) {
    for stat in asmt_shm::sysv::all_segments().expect("segments") {
        let key = stat.key.to_string();
        if !others.iter().any(|line| line.starts_with(&key)) {
            let _ = asmt_shm::sysv::remove(stat.shmid);
        }
    }
}
