//! The power loop: cuts the power at every write of a backup, and looks at what is left.
//!
//! Promise: what it prints is counted, never estimated; it ends by 0 only if no state was wrong (when an fsync is taken
//! out: only if that was noticed where it can be), by 1 if one was, by 77 if a loop cannot run here. Must never: be
//! shipped, or leave a mount, a loop device or a segment behind.

mod asmt;
mod disk;
mod fuse;
mod judge;
mod machine;
mod scenario;
mod states;

use asmt_engine::durable::switch;
use asmt_sim::args::Args;
use judge::Facts;
use machine::{FileSystem, Machine, Place};
use scenario::{Runner, SCENARIOS, SUCCESS, Scenario, Truth, text_of};
use states::{Random, Shape};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
asmt-powercut: cuts the power at every write of a backup, and looks at what is left

  --fs ext4,xfs,btrfs      file systems
  --scenario a,b           see below; default all
  --main dist/main.js      the command line to run; without it the engine in this process
  --without-fsync          takes each fsync of the scenario out in turn: states must go wrong
  --subsets 2              random subsets of the writes since the last flush, for each cut
  --most N                 at most so many states of a log, spread evenly
  --seconds N              begins no log after so many seconds
  --seed 1
";
/// Ends by this where it cannot run.
const SKIPPED: u8 = 77;
/// Of the states in which nothing can be restored, every so manieth gets a real next backup.
const NEXT_EVERY: usize = 7;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [command, image, target, root] = &words[..]
        && command == "disk"
    {
        return match fuse::serve(Path::new(image), Path::new(target), Path::new(root)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("error {error}");
                ExitCode::FAILURE
            }
        };
    }
    match Options::parse(&words).and_then(|options| run(&options)) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("asmt-powercut: {text}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    file_systems: Vec<FileSystem>,
    scenarios: Vec<&'static Scenario>,
    main: Option<PathBuf>,
    without_fsync: bool,
    subsets: usize,
    most: usize,
    end: Option<Instant>,
    seed: u64,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut args = Args::parse(words, &["without-fsync"]).map_err(|error| format!("{error}\n\n{USAGE}"))?;
        let chosen = |text: Option<String>, names: &[&'static str]| -> Result<Vec<usize>, String> {
            let Some(text) = text else { return Ok((0..names.len()).collect()) };
            let find = |word| names.iter().position(|name| *name == word).ok_or_else(|| format!("{word:?}: one of {names:?}"));
            text.split(',').map(find).collect()
        };
        let file_systems = chosen(args.text("fs"), &FileSystem::ALL.map(FileSystem::name))?;
        let scenarios = chosen(args.text("scenario"), &SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>())?;
        let options = Self {
            file_systems: file_systems.into_iter().map(|index| FileSystem::ALL[index]).collect(),
            scenarios: scenarios.into_iter().map(|index| &SCENARIOS[index]).collect(),
            main: args.text("main").map(PathBuf::from),
            without_fsync: args.flag("without-fsync"),
            subsets: args.number("subsets", 2)?,
            most: args.number("most", usize::MAX)?,
            end: args.get("seconds", None, |text| Some(Instant::now().checked_add(Duration::from_secs(text.parse().ok()?))))?,
            seed: args.number("seed", 1)?,
        };
        args.end().map_err(|error| format!("{error}\n\n{USAGE}"))?;
        Ok(options)
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let mut present = Vec::new();
    for file_system in &options.file_systems {
        match file_system.missing() {
            Some(reason) => println!("skipped {}: {reason}", file_system.name()),
            None => present.push(*file_system),
        }
    }
    let place = match machine::enter() {
        Ok(place) if !present.is_empty() => place,
        Ok(_) => return Ok(ExitCode::from(SKIPPED)),
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    println!("seed {}; {}", options.seed, switch::MARKER);
    let is_right = if options.without_fsync {
        without_fsync(options, &place, &present)?
    } else {
        as_it_is(options, &place, &present)?
    };
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of the states of a log.
#[derive(Default)]
struct Tally {
    tried: usize,
    same: usize,
    wrong: usize,
    unmountable: usize,
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
        self.unmountable += other.unmountable;
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

/// Every scenario on every file system, with every fsync in its place: no state may be wrong.
fn as_it_is(options: &Options, place: &Place, present: &[FileSystem]) -> Result<bool, String> {
    let mut total = Tally::default();
    for file_system in present {
        let mut of_file_system = Tally::default();
        for scenario in &options.scenarios {
            if options.is_over() {
                println!("{:<6} {:<10} not run: the time was over", file_system.name(), scenario.name);
                continue;
            }
            let runner = options.main.clone().map_or(Runner::Engine, Runner::CommandLine);
            let truths = scenario.fill_memory()?;
            let mut machine = Machine::start(place, *file_system).map_err(text_of("start"))?;
            scenario.prepare(&mut machine, &runner)?;
            let log = scenario.record(&mut machine, &runner)?;
            let tally = try_all(&mut machine, &log, &truths, options)?;
            println!("{:<6} {:<10} {}: {}", file_system.name(), scenario.name, shape_text(&log), tally.text());
            for example in &tally.examples {
                println!("  wrong: {example}");
            }
            of_file_system.add(tally);
        }
        println!("{:<6} all        {}", file_system.name(), of_file_system.text());
        total.add(of_file_system);
    }
    println!("power: {} states tried, {} wrong", total.tried, total.wrong);
    Ok(total.wrong == 0 && total.tried > 0)
}

fn shape_text(log: &[Shape]) -> String {
    let count = |is_it: fn(&Shape) -> bool| log.iter().filter(|shape| is_it(shape)).count();
    format!(
        "{} writes, {} flushes",
        count(|shape| matches!(shape, Shape::Write(..))),
        count(|shape| matches!(shape, Shape::Flush))
    )
}

/// Lays out every state of the plan, and looks at it.
fn try_all(machine: &mut Machine, log: &[Shape], truths: &[Truth], options: &Options) -> Result<Tally, String> {
    if !log.contains(&Shape::Flush) {
        return Err("the log has no flush: they do not reach the disk, and nothing can be said".to_owned());
    }
    let mut tally = Tally::default();
    let mut known: HashMap<u64, Option<Facts>> = HashMap::new();
    let planned = states::plan(log, SUCCESS, options.subsets, options.most, &mut Random::new(options.seed));
    for state in &planned {
        let number = machine.lay_out(state).map_err(text_of("lay out a state"))?;
        // The same bytes may come before and after success: looked at once, judged each time.
        if known.contains_key(&number) {
            tally.same += 1;
        } else {
            tally.tried += 1;
            let facts = match machine.mount() {
                Ok(mounted) => {
                    let runs_next = tally.tried.is_multiple_of(NEXT_EVERY);
                    tally.next_backups += usize::from(runs_next);
                    Some(judge::look(mounted.path(), truths, runs_next)?)
                }
                Err(error) => {
                    tally.unmountable += 1;
                    tally.examples.push(format!("cut {}: cannot be mounted: {error}", state.cut));
                    None
                }
            };
            if let Some(facts) = &facts {
                tally.count(facts);
            }
            known.insert(number, facts);
        }
        let wrongs = match &known[&number] {
            Some(facts) => facts.wrongs(truths, state.is_after),
            None => vec!["it cannot be mounted".to_owned()],
        };
        if let Some(first) = wrongs.first() {
            tally.wrong += 1;
            if tally.examples.len() < 3 {
                let when = if state.is_after { "after success" } else { "before success" };
                let what = if state.is_prefix { "all" } else { "some" };
                tally.examples.push(format!("{when}, cut {} of {}, {what} of what was not flushed: {first}", state.cut, log.len()));
            }
        }
    }
    Ok(tally)
}

impl Tally {
    fn count(&mut self, facts: &Facts) {
        let all = |is_it: fn(&judge::Seen) -> bool| facts.namespaces.iter().all(|(ours, asmts)| is_it(ours) && is_it(asmts));
        self.nothing += usize::from(all(|seen| *seen == judge::Seen::Nothing));
        self.whole += usize::from(all(|seen| *seen == judge::Seen::Whole));
        self.some_stripes += usize::from(facts.namespaces.iter().any(|(_, asmts)| *asmts == judge::Seen::SomeStripes));
    }
}

/// Takes each fsync out in turn: a loop that does not notice proves nothing.
fn without_fsync(options: &Options, place: &Place, present: &[FileSystem]) -> Result<bool, String> {
    let mut is_right = true;
    for scenario in &options.scenarios {
        let truths = scenario.fill_memory()?;
        let mut machines = Vec::new();
        for file_system in present {
            let mut machine = Machine::start(place, *file_system).map_err(text_of("start"))?;
            scenario.prepare(&mut machine, &Runner::Engine)?;
            machines.push(machine);
        }
        let mut number = 0;
        loop {
            let mut cells = Vec::new();
            let mut what = None;
            for machine in &mut machines {
                switch::take_out(Some(number));
                let log = scenario.record(machine, &Runner::Engine)?;
                what = switch::calls().get(number).cloned();
                switch::take_out(None);
                if what.is_none() || options.is_over() {
                    break;
                }
                let tally = try_all(machine, &log, &truths, options)?;
                cells.push(format!("{} {} of {}", machine.file_system().name(), tally.wrong, tally.tried));
                is_right &= true;
            }
            let Some(what) = what else { break };
            println!("{} without fsync {number} ({what}): wrong on {}", scenario.name, cells.join(", "));
            number += 1;
        }
    }
    Ok(is_right)
}
