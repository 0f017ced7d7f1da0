//! Random sequences of events on a node, with an oracle that knows whether its server has run since
//! a backup. For tests alone; `npm run test:sequences` builds and starts it.
//!
//! Promise: the same seed gives the same sequence. A wrong sequence is printed whole, with the seed
//! that tries it again, and makes the exit status 1. It leaves nothing behind: mounts, loop
//! devices, host name and IPC namespaces go with the process.

#![forbid(unsafe_code)]

mod asd;
mod asmt;
mod disk;
mod events;
mod log;
mod machine;
mod memory;
mod oracle;
mod runs;
mod server;
mod tally;
mod world;

use asmt_kit::SKIPPED;
use asmt_kit::args::{self, Args, Tool};
use disk::Pool;
use events::{Ask, Event};
use machine::Host;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tally::Counts;
use world::World;

const USAGE: &str = "\
asmt-sequences: random sequences of events on a node, and whether a stale backup is ever restored

  --count N      so many sequences (default 10000)
  --seed S       the first seed (default 1)
  --seconds T    ends after so long
  --part I/N     the I-th of N parts
  --only SEED    this sequence alone, told from begin to end
  --forced       every restore is forced: stale ones must then be found wrong
";
/// The mount point of the sequences' file system, for this process alone: a directory that every
/// Linux has.
const ROOT: &str = "/mnt";
/// Enough devices for two servers with two namespaces and two devices each.
const LOOP_DEVICES: usize = 8;
/// Most seeds that are printed per kind.
const MOST_SEEDS: u64 = 3;
/// Most wrong sequences that are printed.
const MOST_TOLD: u64 = 50;

#[derive(Debug)]
struct Options {
    count: u64,
    seed: u64,
    limit: Option<Duration>,
    part: (u64, u64),
    only: Option<u64>,
    is_forced: bool,
}

impl Options {
    fn parse(args: &mut Args) -> Result<Self, String> {
        Ok(Self {
            count: args.number("count", 10_000)?,
            seed: args.number("seed", 1)?,
            limit: args.seconds("seconds")?,
            part: args.part("part")?.unwrap_or((0, 1)),
            only: args.get("only", None, |text| text.parse().ok().map(Some))?,
            is_forced: args.flag("forced"),
        })
    }
}

fn main() -> ExitCode {
    let words = args::words();
    if let [command, request] = &words[..]
        && command == "drive"
    {
        return asmt_faults::driver::drive(request);
    }
    if words == [asd::WORD] {
        return asd::serve();
    }
    let tool = Tool { program: "asmt-sequences", usage: USAGE, flags: &["forced"] };
    tool.run(&words, Options::parse, run)
}

/// The library that shows another time to a process; it is part of Debian's package `faketime`.
fn clock_library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let files = places.chain([PathBuf::from("/usr/lib")]).map(|place| place.join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists())
}

fn run(options: &Options) -> ExitCode {
    let host = match Host::set_up(Path::new(ROOT), clock_library()) {
        Ok(host) => Host { is_forced: options.is_forced, ..host },
        Err(error) => {
            println!("# note: skipped: {error}");
            return ExitCode::from(SKIPPED);
        }
    };
    let pool = Pool::new(&host.root, LOOP_DEVICES);
    let mut counts = Counts::default();
    let since = Instant::now();
    let (part, parts) = options.part;
    let seeds: Vec<u64> = match options.only {
        Some(seed) => vec![seed],
        None => (options.seed..options.seed + options.count).filter(|seed| seed % parts == part).collect(),
    };
    for seed in seeds {
        if options.limit.is_some_and(|limit| since.elapsed() > limit) {
            break;
        }
        try_one(&host, &pool, seed, options.only.is_some(), &mut counts);
    }
    finish(&host, &pool, &counts);
    drop(pool);
    ExitCode::from(u8::from(counts.wrong > 0 || counts.sequences == 0))
}

/// Tries a sequence, and prints it if it is wrong, or if that was asked for.
fn try_one(host: &Host, pool: &Pool, seed: u64, is_told: bool, counts: &mut Counts) {
    let mut world = World::new(host, &pool.nodes(), seed, counts);
    let kinds = describe(&world);
    let count = 4 + world.dice.below(11);
    let begin = if world.dice.chance(85) { vec![Event::Start(0), Event::Stop(0, false)] } else { Vec::new() };
    let mut begin = begin.into_iter();
    while world.event < count && world.wrong.is_empty() && world.not_told.is_none() {
        let event = begin.next().unwrap_or_else(|| world.draw());
        world.happen(&event);
    }
    end_with_restore(&mut world);
    let World { event, story, wrong, not_told, counts, .. } = world;
    counts.sequences += 1;
    counts.events += event as u64;
    counts.not_told += u64::from(not_told.is_some());
    if let Some(why) = &not_told {
        let name = format!("not told apart: {why}");
        if counts.others.get(&name).is_none_or(|count| *count < MOST_SEEDS) {
            println!("# {name}: --only {seed}");
        }
        counts.add(name);
    }
    counts.wrong += u64::from(!wrong.is_empty());
    for text in &wrong {
        counts.add(format!("wrong: {}", text.split(&[':', '('][..]).next().unwrap_or_default()));
    }
    if is_told || !wrong.is_empty() && counts.wrong <= MOST_TOLD {
        println!("# {}: --only {seed}", if wrong.is_empty() { "sequence" } else { "wrong" });
        kinds.iter().chain(&story).for_each(|text| println!("#   {text}"));
        wrong.iter().for_each(|text| println!("#   WRONG {text}"));
        not_told.iter().for_each(|text| println!("#   not told apart: {text}"));
    }
}

/// In the end, a backup is restored if there is one. If memory is in its way, in most sequences the
/// machine is booted first.
fn end_with_restore(world: &mut World<'_>) {
    let with_backup = (0..world.servers.len()).find_map(|server| {
        let instance = world.servers[server].instance;
        let vaults: Vec<usize> =
            (0..world.vaults.len()).filter(|vault| !world.vaults[*vault].of(instance, None).is_empty()).collect();
        (!vaults.is_empty()).then_some((server, vaults))
    });
    let Some((server, vaults)) = with_backup else { return };
    let is_over = |world: &World<'_>| !world.wrong.is_empty() || world.not_told.is_some();
    if is_over(world) {
        return;
    }
    if world.has_segments_of(server) || world.servers[server].is_running() {
        let event = world.dice.pick(vec![
            (60, Event::Boot(false)),
            (15, Event::Container),
            (15, Event::PowerCut),
            (10, Event::RemoveAll),
        ]);
        world.happen(&event.expect("one"));
    }
    let vault = vaults[world.dice.below(vaults.len())];
    let way = Some(world.servers[server].way);
    world.happen(&Event::Restore(Ask { server, vault, namespace: None, way, require_proof: false }, None));
}

/// Describes the beginning of a sequence.
fn describe(world: &World<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &world.servers {
        let log = server.log.path();
        let log = if server.logging == server::Logging::Console { Path::new("console") } else { log };
        lines.push(format!("server of instance {}: configuration: {:?}, logs to {}", server.instance, server.way, log.display()));
        for namespace in &server.namespaces {
            let disk = |slot: &server::Slot| {
                let disk = server.disk(slot);
                format!("{:?} {} -> {}", disk.medium, slot.path.display(), disk.node.display())
            };
            let disks: Vec<String> = namespace.slots().map(disk).collect();
            lines.push(format!("  namespace {}: {} stripes, {}", namespace.place.name, namespace.stripe_count, disks.join(", ")));
        }
    }
    let recorded = if world.machine.is_recording { "recorded" } else { "not recorded" };
    lines.push(format!("boots are {recorded}"));
    lines
}

fn finish(host: &Host, pool: &Pool, counts: &Counts) {
    for (name, count) in &counts.others {
        println!("# {count:>7} {name}");
    }
    if host.clock_library.is_none() {
        println!("# note: events of the clock are left out: there is no libfaketime");
    }
    if pool.nodes().len() < LOOP_DEVICES {
        println!("# note: {} loop devices: files take the place of the others", pool.nodes().len());
    }
    let Counts { sequences, events, wrong, not_told, .. } = counts;
    let right = if *wrong == 0 && *sequences > 0 { "ok" } else { "not ok" };
    println!("{right} 1 - sequences: {sequences} sequences, {events} events, {wrong} wrong, {not_told} not told apart");
    println!("1..1");
}
