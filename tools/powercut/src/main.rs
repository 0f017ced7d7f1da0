//! The power loop: cuts the power at every write of a backup, and judges the state that is left.
//!
//! Promise: every number that it prints was counted, not estimated. Exit status 0 means that no
//! state was wrong (with an fsync taken out: that this was noticed where it can be), 1 that one
//! was, 77 that a loop cannot run here. Must never: be shipped, or leave a mount, a loop device or
//! a segment behind.

#![forbid(unsafe_code)]

mod asmt;
mod disk;
mod fuse;
mod judge;
mod machine;
mod model;
mod scenario;
mod states;

use asmt_engine::sys::fsync::switch::{self, DirectIo};
use asmt_kit::args::{self, Args, Tool};
use asmt_kit::{SKIPPED, text_of};
use judge::Facts;
use machine::{FileSystem, Machine, Place};
use scenario::{Runner, SCENARIOS, SUCCESS, Scenario, Truth};
use states::Shape;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
asmt-powercut: cuts the power at every write of a backup, and looks at what is left

  --on posix,ext4,xfs,btrfs  file systems; posix is a model of the weakest one
  --scenario a,b             default all
  --main dist/main.js        the command line to run; without it the engine in this process
  --no-direct-io             as on a file system that has none; the engine in this process
  --without-fsync            takes each fsync of the scenario out in turn: states must go wrong
  --subsets 2                random subsets of the writes since the last flush, for each cut
  --most N                   at most so many states of a log (not of the model), spread evenly
  --seconds N                begins nothing more after so many seconds
  --seed 1
";
const TOOL: Tool<'_> = Tool { program: "asmt-powercut", usage: USAGE, flags: &["without-fsync", "no-direct-io"] };
/// Of the states from which nothing can be restored, one in this number gets a real next backup.
const NEXT_EVERY: usize = 7;

fn main() -> ExitCode {
    let words = args::words();
    // The helpers that it starts: see `machine.rs`.
    let helping = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["disk", image, target] => Some(fuse::serve(Path::new(image), Path::new(target))),
        ["sweep", root] => Some(machine::sweep(Path::new(root))),
        _ => None,
    };
    if let Some(outcome) = helping {
        return outcome.map_or_else(
            |error| {
                // There may be no reader any more.
                let _ = writeln!(std::io::stdout(), "error {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    TOOL.run(&words, Options::parse, |options| run(options).unwrap_or_else(|text| args::failure(TOOL.program, text)))
}

/// The ground for a backup.
#[derive(Clone, Copy)]
enum Ground {
    /// The weakest file system that POSIX allows.
    Posix,
    /// A real one.
    Real(FileSystem),
}

impl Ground {
    const ALL: [Self; 4] =
        [Self::Posix, Self::Real(FileSystem::Ext4), Self::Real(FileSystem::Xfs), Self::Real(FileSystem::Btrfs)];

    fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Real(file_system) => file_system.name(),
        }
    }
}

struct Options {
    grounds: Vec<Ground>,
    scenarios: Vec<&'static Scenario>,
    main: Option<PathBuf>,
    direct_io: DirectIo,
    without_fsync: bool,
    subsets: usize,
    most: usize,
    end: Option<Instant>,
    seed: u64,
}

impl Options {
    fn parse(args: &mut Args) -> Result<Self, String> {
        let chosen = |text: Option<String>, names: &[&'static str]| -> Result<Vec<usize>, String> {
            let Some(text) = text else { return Ok((0..names.len()).collect()) };
            let find = |word| names.iter().position(|name| *name == word).ok_or_else(|| format!("{word:?}: one of {names:?}"));
            text.split(',').map(find).collect()
        };
        let grounds = chosen(args.text("on"), &Ground::ALL.map(Ground::name))?;
        let scenarios = chosen(args.text("scenario"), &SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>())?;
        let limit = args.seconds("seconds")?;
        Ok(Self {
            grounds: grounds.into_iter().map(|index| Ground::ALL[index]).collect(),
            scenarios: scenarios.into_iter().map(|index| &SCENARIOS[index]).collect(),
            main: args.text("main").map(PathBuf::from),
            direct_io: if args.flag("no-direct-io") { DirectIo::Off } else { DirectIo::AsIs },
            without_fsync: args.flag("without-fsync"),
            subsets: args.number("subsets", 2)?,
            most: args.number("most", usize::MAX)?,
            end: limit.and_then(|limit| Instant::now().checked_add(limit)),
            seed: args.number("seed", 1)?,
        })
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let mut grounds = Vec::new();
    for ground in &options.grounds {
        match ground {
            Ground::Real(file_system) if file_system.missing().is_some() => {
                println!("skipped {}: {}", ground.name(), file_system.missing().unwrap_or_default());
            }
            present => grounds.push(*present),
        }
    }
    if grounds.is_empty() {
        return Ok(ExitCode::from(SKIPPED));
    }
    let place = match machine::enter() {
        Ok(place) => place,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    println!("seed {}; {}", options.seed, switch::MARKER);
    let is_right =
        if options.without_fsync { without_fsync(options, &place, &grounds)? } else { as_it_is(options, &place, &grounds)? };
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts of the states of a log.
#[derive(Default)]
struct Tally {
    tried: usize,
    same: usize,
    wrong: usize,
    nothing: usize,
    whole: usize,
    some_stripes: usize,
    next_backups: usize,
    examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.same += other.same;
        self.wrong += other.wrong;
        self.nothing += other.nothing;
        self.whole += other.whole;
        self.some_stripes += other.some_stripes;
        self.next_backups += other.next_backups;
    }

    fn text(&self) -> String {
        format!(
            "{} states tried, {} wrong (nothing there in {}, all whole in {}; stripes alone for ASMT in {}; {} next backups run; {} \
             the same as another)",
            self.tried, self.wrong, self.nothing, self.whole, self.some_stripes, self.next_backups, self.same
        )
    }
}

/// Tries every scenario on every file system, with every fsync in place: no state may be wrong.
fn as_it_is(options: &Options, place: &Place, grounds: &[Ground]) -> Result<bool, String> {
    let mut total = Tally::default();
    for ground in grounds {
        let mut of_ground = Tally::default();
        for scenario in &options.scenarios {
            if options.is_over() {
                println!("{:<6} {:<10} not run: the time was over", ground.name(), scenario.name);
                continue;
            }
            let truths = scenario.fill_memory()?;
            let (shape, tally) = match ground {
                Ground::Posix => {
                    let root = place.directory().map_err(text_of("cannot make a directory", ""))?;
                    let watched = model::watch(scenario, &root, None)?;
                    let tally = try_model(&root, &watched, &truths, options)?;
                    std::fs::remove_dir_all(&root).map_err(text_of("cannot remove a directory", ""))?;
                    (format!("{} fsyncs", watched.calls().len()), tally)
                }
                Ground::Real(file_system) => {
                    let runner = options.main.clone().map_or(Runner::Engine, Runner::CommandLine);
                    let mut machine = Machine::start(place, *file_system).map_err(text_of("cannot start", ""))?;
                    scenario.prepare(&mut machine, &runner)?;
                    switch::set(None, options.direct_io, None);
                    let log = scenario.record(&mut machine, &runner)?;
                    switch::set(None, DirectIo::AsIs, None);
                    (shape_text(&log), try_all(&mut machine, &log, &truths, options)?)
                }
            };
            println!("{:<6} {:<10} {shape}: {}", ground.name(), scenario.name, tally.text());
            for example in &tally.examples {
                println!("  wrong: {example}");
            }
            of_ground.add(tally);
        }
        println!("{:<6} all        {}", ground.name(), of_ground.text());
        total.add(of_ground);
    }
    println!("power: {} states tried, {} wrong", total.tried, total.wrong);
    Ok(total.wrong == 0 && total.tried > 0)
}

/// Tries the states that the weakest file system could leave.
fn try_model(root: &Path, watched: &model::Watched, truths: &[Truth], options: &Options) -> Result<Tally, String> {
    let mut tally = Tally::default();
    watched.each_state(options.subsets, &mut states::dice_of(options.seed), &mut |state: model::State| {
        state.lay_out(root).map_err(text_of("cannot lay out a state", ""))?;
        tally.tried += 1;
        let facts = tally.look(root, truths)?;
        let wrongs = facts.wrongs(truths, state.is_after);
        tally.judge(&wrongs, state.is_after, || format!("{} of {} fsyncs done", state.before_call, watched.calls().len()));
        Ok::<(), String>(())
    })?;
    Ok(tally)
}

fn shape_text(log: &[Shape]) -> String {
    let count = |is_it: fn(&Shape) -> bool| log.iter().filter(|shape| is_it(shape)).count();
    format!(
        "{} writes, {} flushes",
        count(|shape| matches!(shape, Shape::Write(..))),
        count(|shape| matches!(shape, Shape::Flush))
    )
}

/// Lays out every state of the plan, and judges it.
fn try_all(machine: &mut Machine, log: &[Shape], truths: &[Truth], options: &Options) -> Result<Tally, String> {
    if !log.contains(&Shape::Flush) {
        return Err("the log has no flush: they do not reach the disk, and nothing can be said".to_owned());
    }
    let mut tally = Tally::default();
    let mut known: HashMap<u64, Result<Facts, String>> = HashMap::new();
    let mut judged = HashSet::new();
    let planned = states::plan(log, SUCCESS, options.subsets, options.most, &mut states::dice_of(options.seed));
    for state in &planned {
        let number = machine.lay_out(state).map_err(text_of("cannot lay out a state", ""))?;
        // The same bytes may be there before and after success: they are examined once, and judged
        // for both.
        if !judged.insert((number, state.is_after)) {
            tally.same += 1;
            continue;
        }
        tally.tried += 1;
        let facts = match known.entry(number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(match machine.mount() {
                Ok(mounted) => Ok(tally.look(mounted.path(), truths)?),
                Err(error) => Err(format!("it cannot be mounted: {error}")),
            }),
        };
        let wrongs = facts.as_ref().map_or_else(|error| vec![error.clone()], |facts| facts.wrongs(truths, state.is_after));
        tally.judge(&wrongs, state.is_after, || {
            let what = if state.is_prefix { "all" } else { "some" };
            format!("cut {} of {}, {what} of what was not flushed", state.cut, log.len())
        });
    }
    Ok(tally)
}

impl Tally {
    /// Examines a state, and counts what it finds.
    fn look(&mut self, root: &Path, truths: &[Truth]) -> Result<Facts, String> {
        let runs_next = self.tried.is_multiple_of(NEXT_EVERY);
        let facts = judge::look(root, truths, runs_next)?;
        self.next_backups += usize::from(facts.has_run_next);
        self.count(&facts);
        Ok(facts)
    }

    /// Counts a wrong state, and keeps the first examples from before success and from after it.
    fn judge(&mut self, wrongs: &[String], is_after: bool, state: impl FnOnce() -> String) {
        let Some(first) = wrongs.first() else { return };
        self.wrong += 1;
        let when = if is_after { "after success" } else { "before success" };
        if self.examples.iter().filter(|example| example.starts_with(when)).count() < 2 {
            self.examples.push(format!("{when}, {}: {first}", state()));
        }
    }

    fn count(&mut self, facts: &Facts) {
        let all = |is_it: fn(&judge::Seen) -> bool| facts.namespaces.iter().all(|(ours, asmts)| is_it(ours) && is_it(asmts));
        self.nothing += usize::from(all(|seen| *seen == judge::Seen::Nothing));
        self.whole += usize::from(all(|seen| *seen == judge::Seen::Whole));
        self.some_stripes += usize::from(facts.namespaces.iter().any(|(_, asmts)| *asmts == judge::Seen::SomeStripes));
    }
}

/// Takes out each fsync in turn: a loop that does not notice it proves nothing. Real file systems
/// are tried with direct I/O and without.
fn without_fsync(options: &Options, place: &Place, grounds: &[Ground]) -> Result<bool, String> {
    let mut taken_out = 0;
    // Sorted by purpose: an fsync that is covered by another one in one scenario is needed in
    // another scenario.
    let mut noticed: BTreeMap<String, bool> = BTreeMap::new();
    for scenario in &options.scenarios {
        let truths = scenario.fill_memory()?;
        let mut machines = Vec::new();
        for ground in grounds {
            if let Ground::Real(file_system) = ground {
                let mut machine = Machine::start(place, *file_system).map_err(text_of("cannot start", ""))?;
                scenario.prepare(&mut machine, &Runner::Engine)?;
                machines.push(machine);
            }
        }
        for number in 0.. {
            if options.is_over() {
                println!("{}: fsync {number} and later not taken out: the time was over", scenario.name);
                break;
            }
            // The run is watched in any case, because that shows the purpose of the call.
            let root = place.directory().map_err(text_of("cannot make a directory", ""))?;
            let watched = model::watch(scenario, &root, Some(number))?;
            let Some(what) = watched.calls().get(number).map(|what| (*what).to_owned()) else { break };
            let mut cells = Vec::new();
            if grounds.iter().any(|ground| matches!(ground, Ground::Posix)) {
                cells.push(("posix".to_owned(), try_model(&root, &watched, &truths, options)?));
            }
            std::fs::remove_dir_all(&root).map_err(text_of("cannot remove a directory", ""))?;
            for machine in &mut machines {
                for (direct_io, how) in [(DirectIo::AsIs, ""), (DirectIo::Off, " buffered")] {
                    switch::set(Some(number), direct_io, None);
                    let log = scenario.record(machine, &Runner::Engine)?;
                    switch::set(None, DirectIo::AsIs, None);
                    cells.push((format!("{}{how}", machine.file_system().name()), try_all(machine, &log, &truths, options)?));
                }
            }
            taken_out += 1;
            *noticed.entry(what.clone()).or_default() |= cells.iter().any(|(_, tally)| tally.wrong > 0);
            let cells: Vec<String> =
                cells.iter().map(|(name, tally)| format!("{name} {} of {}", tally.wrong, tally.tried)).collect();
            println!("{:<10} {number:>2} {what}: wrong on {}", scenario.name, cells.join(", "));
        }
    }
    let unnoticed: Vec<&str> = noticed.iter().filter(|(_, is_noticed)| !**is_noticed).map(|(what, _)| what.as_str()).collect();
    let of_these = if unnoticed.is_empty() { "none".to_owned() } else { unnoticed.join(", ") };
    println!("power: {taken_out} times an fsync was taken out, for {} things; not noticed anywhere: {of_these}", noticed.len());
    Ok(taken_out > 0 && unnoticed.is_empty())
}
