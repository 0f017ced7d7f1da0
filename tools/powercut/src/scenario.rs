//! The scenarios: shared memory, the commands during which the power is cut, and what must be there
//! afterwards.
//!
//! Promise: the same scenario makes the same segments. Must never: decide what is right; that is in
//! `judge.rs`.

use crate::machine::Machine;
use crate::states::Shape;
use asmt_engine::format::Form;
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::perform;
use asmt_engine::progress::Control;
use asmt_kit::files::names;
use asmt_kit::text_of;
use asmt_shm::{Key, SegmentType};
use asmt_sim::output_of;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The mark in the log that stands for reported success.
pub const SUCCESS: &str = "success";
/// Name of the backup's directory in the file system.
pub const DIRECTORY: &str = "backup";

/// A command of asmt.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its operation.
    pub verb: Verb,
    /// The form of the backup.
    pub form: Form,
    /// Of which namespaces; none means all.
    pub names: &'static [&'static str],
    /// `--replace`.
    pub replaces: bool,
}

const BACKUP: Step = Step { verb: Verb::Backup, form: Form::Plain, names: &[], replaces: false };
const REPLACE: Step = Step { replaces: true, ..BACKUP };
const RESTORE: Step = Step { verb: Verb::Restore, ..BACKUP };
const RETIRE: Step = Step { verb: Verb::Retire, ..BACKUP };

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Namespaces in memory: the name, and options of the simulator.
    memory: &'static [(&'static str, &'static str)],
    /// Commands before the log begins. Their backups must be there in every state, unless they were
    /// retired.
    pub before: &'static [Step],
    /// These commands worked on other contents of the same segments. Then a state may have either.
    pub is_older: bool,
    /// Commands that are logged. Success is reported after the last one.
    pub steps: &'static [Step],
    /// An interrupted backup of the same namespaces is in the directory at the beginning.
    pub is_after_interruption: bool,
}

const INDEX: &str = "--stage-size 512KiB --base-size 16KiB --treex-size 40KiB";

/// Added to the seeds of what an older backup has.
const OLDER: usize = 100;

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "plain",
        memory: &[("test", "--stages 3 --si-stages 1 --si-stage-size 256KiB --stripes 2 --stripe-size 256KiB")],
        before: &[],
        is_older: false,
        steps: &[BACKUP],
        is_after_interruption: false,
    },
    Scenario {
        name: "compressed",
        memory: &[("test", "--stages 3 --si-stages 1 --si-stage-size 256KiB --stripes 2 --stripe-size 256KiB")],
        before: &[],
        is_older: false,
        steps: &[Step { form: Form::Gzip, ..BACKUP }],
        is_after_interruption: false,
    },
    Scenario {
        name: "columns",
        memory: &[("test", "--stages 3 --si-stages 1 --si-stage-size 256KiB --stripes 2 --stripe-size 256KiB")],
        before: &[],
        is_older: false,
        steps: &[Step { form: Form::Columns, ..BACKUP }],
        is_after_interruption: false,
    },
    Scenario {
        name: "several",
        memory: &[
            ("one", "--nsid 1 --stages 2 --stripes 2 --stripe-size 256KiB"),
            ("two", "--nsid 2 --stages 1 --stripes 2 --stripe-size 256KiB --data-nsid 9"),
            ("data", "--nsid 3 --no-index --stripes 3 --stripe-size 256KiB"),
        ],
        before: &[],
        is_older: false,
        steps: &[BACKUP],
        is_after_interruption: false,
    },
    Scenario {
        name: "stripes",
        memory: &[("data", "--nsid 1 --no-index --stripes 8 --stripe-size 256KiB")],
        before: &[],
        is_older: false,
        steps: &[BACKUP],
        is_after_interruption: false,
    },
    Scenario {
        name: "beside",
        memory: &[("old", "--nsid 1 --stages 1"), ("new", "--nsid 2 --stages 2")],
        before: &[Step { names: &["old"], ..BACKUP }],
        is_older: false,
        steps: &[Step { names: &["new"], ..BACKUP }],
        is_after_interruption: false,
    },
    Scenario {
        name: "again",
        memory: &[("test", "--stages 2 --si-stages 1 --si-stage-size 256KiB")],
        before: &[],
        is_older: false,
        steps: &[BACKUP],
        is_after_interruption: true,
    },
    Scenario {
        name: "superseded",
        memory: &[("one", "--nsid 1 --stages 1"), ("data", "--nsid 2 --no-index --stripes 2 --stripe-size 64KiB")],
        before: &[],
        is_older: false,
        steps: &[BACKUP],
        is_after_interruption: true,
    },
    Scenario {
        name: "restored",
        memory: &[("test", "--stages 1")],
        before: &[BACKUP],
        is_older: false,
        steps: &[RESTORE],
        is_after_interruption: false,
    },
    Scenario {
        name: "retired",
        memory: &[("test", "--stages 1")],
        before: &[BACKUP],
        is_older: false,
        steps: &[RETIRE],
        is_after_interruption: false,
    },
    // Segments that come from a restore, as far as is known: nobody can tell whether a server has
    // run since the older backup.
    Scenario {
        name: "replaced",
        memory: &[("one", "--nsid 1 --stages 2 --si-stages 1 --si-stage-size 256KiB"), ("two", "--nsid 2 --stages 1")],
        before: &[BACKUP, RESTORE],
        is_older: true,
        steps: &[REPLACE],
        is_after_interruption: false,
    },
    Scenario {
        name: "replaced-z",
        memory: &[("one", "--nsid 1 --stages 2"), ("two", "--nsid 2 --stages 1")],
        before: &[BACKUP, RESTORE],
        is_older: true,
        steps: &[Step { form: Form::Gzip, ..REPLACE }],
        is_after_interruption: false,
    },
    Scenario {
        name: "outdated",
        memory: &[
            ("test", "--nsid 1 --stages 1 --stripes 2 --stripe-size 64KiB"),
            ("data", "--nsid 2 --no-index --stripes 2 --stripe-size 64KiB"),
        ],
        before: &[BACKUP, RETIRE],
        is_older: true,
        steps: &[REPLACE],
        is_after_interruption: false,
    },
];

/// A namespace in memory.
pub struct Truth {
    /// Its name.
    pub name: &'static str,
    /// Its segments, each as the simulator sums it: key, size, CRC-32, owner, group, mode.
    pub segments: BTreeMap<Key, String>,
    /// The same in the backup that is replaced, if there is one.
    pub older: Option<BTreeMap<Key, String>>,
    /// It was backed up before the log begins.
    pub is_standing: bool,
    /// The mark that its backup must have after success was reported: restored or retired.
    pub mark: Option<Verb>,
    /// Whether ASMT can find its backup: not if that is in columns.
    pub is_for_asmt: bool,
}

impl Truth {
    /// Returns true if its index and its stripes have the same nsid, from which ASMT knows that
    /// they belong together.
    pub fn has_index_at_nsid_of_stripes(&self) -> bool {
        let addresses = || self.segments.keys().filter_map(|key| key.address());
        let nsid = addresses().find(|address| !address.segment_type.is_index()).map(|address| address.nsid);
        addresses().any(|address| address.segment_type.is_index() && Some(address.nsid) == nsid)
    }
}

/// The way to run commands.
pub enum Runner {
    /// The real command line.
    CommandLine(PathBuf),
    /// The engine in this process, which allows to take out an fsync.
    Engine,
}

/// Sums of all segments in this namespace of shared memory.
pub fn sums() -> Result<BTreeMap<Key, String>, String> {
    let mut sums = BTreeMap::new();
    for line in output_of("sum --sparse")?.lines() {
        // The last word is the attach count.
        let (text, _) = line.rsplit_once(' ').ok_or_else(|| format!("no sum: {line:?}"))?;
        let key = line.get(..8).and_then(Key::from_hex).ok_or_else(|| format!("no key: {line:?}"))?;
        sums.insert(key, text.to_owned());
    }
    Ok(sums)
}

/// A request of the engine.
pub fn request(verb: Verb, directory: &Path, names: &[&str]) -> Asked {
    Asked {
        directory: Some(directory.to_owned()),
        instance: Some(0),
        namespaces: (!names.is_empty()).then(|| names.iter().map(|name| (*name).to_owned()).collect()),
        // One thread: the calls come in the same order each time.
        threads: Some(1),
        allow_volatile: true,
        allow_private_ipc: true,
        ..Asked::new(verb)
    }
}

impl Step {
    /// Runs it.
    pub fn run(&self, runner: &Runner, directory: &Path) -> Result<(), String> {
        if self.verb == Verb::Restore {
            output_of("remove")?;
        }
        match runner {
            Runner::Engine => {
                let (compress, columns) = (self.form == Form::Gzip, self.form == Form::Columns);
                let replace = self.replaces;
                let request = Asked { compress, columns, replace, ..request(self.verb, directory, self.names) };
                perform(&request.into(), "asmt powercut", &Control::default())
                    .map(drop)
                    .map_err(|failure| failure.error.to_string())
            }
            Runner::CommandLine(main) => {
                let mut command = Command::new("node");
                command.arg(main).arg(match self.verb {
                    Verb::Restore => "restore",
                    Verb::Retire => "retire",
                    _ => "backup",
                });
                command.args(match self.form {
                    Form::Plain => None,
                    Form::Gzip => Some("-z"),
                    Form::Columns => Some("-Z"),
                });
                command.args(self.replaces.then_some("--replace"));
                if !self.names.is_empty() {
                    command.arg("-n").arg(self.names.join(","));
                }
                let done = command.arg(directory).output().map_err(|error| format!("node: {error}"))?;
                let text = String::from_utf8_lossy(&done.stderr);
                if done.status.success() { Ok(()) } else { Err(format!("{command:?}: {}\n{text}", done.status)) }
            }
        }
    }
}

impl Scenario {
    /// Makes the segments, in place of those that are there.
    pub fn fill_memory(&self) -> Result<Vec<Truth>, String> {
        let older = if self.is_older { self.make_segments(OLDER)?.into_iter().map(Some).collect() } else { Vec::new() };
        let older = older.into_iter().chain(std::iter::repeat(None));
        let mut truths = Vec::new();
        for (((name, _), segments), older) in self.memory.iter().zip(self.make_segments(0)?).zip(older) {
            let is_of_it = |step: &&Step| step.names.is_empty() || step.names.contains(name);
            let is_retired = self.before.iter().filter(is_of_it).any(|step| step.verb == Verb::Retire);
            let is_standing = self.before.iter().any(|step| is_of_it(&step)) && !is_retired;
            let mark = self.steps.iter().map(|step| step.verb).find(|verb| *verb != Verb::Backup);
            let is_for_asmt = self.steps.iter().all(|step| step.form != Form::Columns);
            truths.push(Truth { name, segments, older, is_standing, mark, is_for_asmt });
        }
        Ok(truths)
    }

    /// Makes the segments, and returns those of each namespace. The first seed decides what is in
    /// them.
    fn make_segments(&self, seed: usize) -> Result<Vec<BTreeMap<Key, String>>, String> {
        output_of("remove")?;
        let mut all = BTreeMap::new();
        let mut made = Vec::new();
        for (number, (name, words)) in self.memory.iter().enumerate() {
            output_of(&format!("make --name {name} --seed {} {INDEX} {words}", seed + number + 1))?;
            let segments: BTreeMap<Key, String> = sums()?.into_iter().filter(|(key, _)| !all.contains_key(key)).collect();
            all.extend(segments.clone());
            made.push(segments);
        }
        Ok(made)
    }

    /// Runs the commands that come before the log, with the segments that they work on.
    pub fn run_before(&self, runner: &Runner, directory: &Path) -> Result<(), String> {
        let run = || self.before.iter().try_for_each(|step| step.run(runner, directory));
        if !self.is_older {
            return run();
        }
        self.make_segments(OLDER)?;
        run()?;
        // So that the restore may have made the segments that come now.
        let runtime = std::env::var_os("ASMT_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
        for name in names(&runtime).iter().filter(|name| name.starts_with("restored-")) {
            std::fs::remove_file(runtime.join(name)).map_err(text_of("cannot remove", name))?;
        }
        self.make_segments(0).map(drop)
    }

    /// Brings the disk to the state in which the log begins.
    pub fn prepare(&self, machine: &mut Machine, runner: &Runner) -> Result<(), String> {
        if !self.before.is_empty() {
            let mounted = machine.mount().map_err(text_of("cannot mount", ""))?;
            self.run_before(runner, &mounted.path().join(DIRECTORY))?;
            drop(mounted);
            machine.keep().map_err(text_of("cannot keep", ""))?;
        }
        if self.is_after_interruption {
            let log = self.record(machine, runner)?;
            self.interrupt(machine, &log)?;
        }
        Ok(())
    }

    /// Leaves the disk in a state in which the backup is half published.
    fn interrupt(&self, machine: &mut Machine, log: &[Shape]) -> Result<(), String> {
        let states = crate::states::plan(log, SUCCESS, 0, usize::MAX, &mut crate::states::dice_of(0));
        for state in states.iter().filter(|state| state.is_prefix && !state.is_after) {
            machine.lay_out(state).map_err(text_of("cannot lay out a state", ""))?;
            let mounted = machine.mount().map_err(text_of("cannot mount", ""))?;
            if is_half_published(names(&mounted.path().join(DIRECTORY)).iter()) {
                make_another_runs(&mounted.path().join(DIRECTORY)).map_err(text_of("cannot rename", ""))?;
                drop(mounted);
                return machine.keep().map_err(text_of("cannot keep", ""));
            }
        }
        Err(NEVER_HALF_PUBLISHED.to_owned())
    }

    /// Runs the commands on the mounted disk, and returns the log.
    pub fn record(&self, machine: &mut Machine, runner: &Runner) -> Result<Vec<Shape>, String> {
        machine.record().map_err(text_of("cannot record", ""))?;
        let mounted = machine.mount().map_err(text_of("cannot mount", ""))?;
        for step in self.steps {
            step.run(runner, &mounted.path().join(DIRECTORY))?;
        }
        machine.mark(SUCCESS).map_err(text_of("cannot mark", ""))?;
        drop(mounted);
        machine.end_recording().map_err(text_of("cannot end the log", ""))
    }
}

/// Renames the files that this process has left as if a dead process had left them: the engine
/// tells runs apart by their process.
pub fn make_another_runs(directory: &Path) -> std::io::Result<()> {
    let own = asmt_engine::sys::process::own_run().map_err(std::io::Error::other)?.to_string();
    for entry in std::fs::read_dir(directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains(&own) {
            continue;
        }
        // The last part of the id is the start of the process. With one more digit, it is that of
        // no living process.
        let mut others = (1..).map(|digits| directory.join(name.replace(&own, &format!("{own}{digits}"))));
        if let Some(other) = others.find(|other| !other.exists()) {
            std::fs::rename(entry.path(), other)?;
        }
    }
    Ok(())
}

/// The error if [`is_half_published`] never holds.
pub const NEVER_HALF_PUBLISHED: &str = "there is no state with manifests published, and no base";

/// Returns true if manifests have their names, and no base has: then the namespaces without base
/// are committed, and no others.
pub fn is_half_published<'n>(mut names: impl Iterator<Item = &'n String> + Clone) -> bool {
    let is_base = |name: &String| {
        let address = asmt_engine::format::parse_file_name(name).map(|(_, address, _)| address);
        address.is_some_and(|address| address.segment_type == SegmentType::PiBase)
    };
    names.clone().any(|name| asmt_engine::format::is_manifest_name(name)) && !names.any(is_base)
}
