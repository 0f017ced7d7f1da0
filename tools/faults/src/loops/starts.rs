//! A server that starts while a restore is at work: at each of its system calls, at once or spread
//! over several calls, while the restore goes on or is killed soon afterwards; and at random
//! moments, while both run.
//!
//! No run of asmt ever removes or changes the segments that the server (`loops/server.rs`) uses,
//! neither while it runs nor after it has crashed. The restore ends with success or with a refusal.

use super::races::{segments, with_world};
use super::server::{STRIPE_FLAGS_OFFSET, Server, kind_of};
use super::{Point, calls_seen_by};
use crate::calls::Call;
use crate::sys::memory_at;
use crate::tally::{Count, Tally};
use crate::tracer::{Action, Shown, Stepped};
use crate::world::{CHUNKS, Old, Outcome, Program, SMALL, Scenario, TWO, World};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use asmt_shm::sysv::{Access, Attachment, SegmentStat};
use asmt_shm::{SHUTDOWN_OFFSET, SegmentType};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const INDEX: Scenario =
    Scenario { name: "start", verb: Verb::Restore, form: Form::Plain, check: false, threads: 1, shape: SMALL, old: Old::None };
const TWO_INDEXES: Scenario = Scenario { name: "start-two", shape: TWO, ..INDEX };
const STRIPES: Scenario =
    Scenario { name: "start-stripes", shape: &["--no-index --stripes 3 --stripe-size 128KiB --stripe-fill 1"], ..INDEX };
const CHUNKS_RANDOM: Scenario = Scenario { name: "random-start", threads: 4, shape: CHUNKS, ..INDEX };
const SMALL_RANDOM: Scenario = Scenario { name: "random-start-stripes", threads: 4, shape: SMALL, ..INDEX };

/// Numbers of calls of the restore between the three steps of a start: look, discard, take over.
const SPREADS: &[(usize, usize)] = &[(0, 0), (1, 0), (0, 1), (2, 1), (3, 5), (8, 2), (0, 13)];
/// Numbers of calls after the start at which the restore is killed.
const KILLS: &[usize] = &[0, 1, 2, 3, 5, 8];
/// Calls before the commit that are tried as thoroughly as those of the commit.
const CALLS_BEFORE: usize = 12;

/// Runs the loops.
pub fn run(scratch: &Path, place: &Path, tally: &mut Tally<'_>) {
    for scenario in [INDEX, TWO_INDEXES, STRIPES] {
        for is_killed in [false, true] {
            let name = format!("races:{}{}", scenario.name, if is_killed { "-kill" } else { "" });
            with_world(&name, scratch, place, scenario, tally, &mut |world, count, tally| {
                at_each_call(world, is_killed, count, tally)
            });
        }
    }
    for scenario in [INDEX, TWO_INDEXES, STRIPES] {
        let name = format!("races:{}-words", scenario.name);
        if !crate::is_real_root() {
            tally.skip(&name, "only root of the machine may look at segments without attaching them");
            continue;
        }
        with_world(&name, scratch, place, scenario, tally, &mut at_each_word);
    }
    for scenario in [CHUNKS_RANDOM, SMALL_RANDOM] {
        let name = format!("races:{}", scenario.name);
        with_world(&name, scratch, place, scenario, tally, &mut at_random);
    }
}

/// The calls of a restore without faults, and the index of the first one of its commit, which gives
/// a segment its owner.
fn calls_and_commit(world: &World) -> (Vec<Point>, usize) {
    const IPC_SET: u64 = 1;
    let (mut count, mut commit) = (0, None);
    let calls = calls_seen_by(world, Program::Driver, &mut |call| {
        if call.number == libc::SYS_shmctl && call.arguments[1] == IPC_SET {
            commit.get_or_insert(count);
        }
        count += 1;
    });
    (calls, commit.expect("a commit"))
}

fn at_each_call(world: &World, is_killed: bool, count: &mut Count, tally: &mut Tally<'_>) {
    let (calls, commit) = calls_and_commit(world);
    let first = commit.saturating_sub(CALLS_BEFORE);
    let mut number = 0;
    for (index, point) in calls.iter().enumerate() {
        // Before the commit, a start at once is enough: nothing is trusted there, however long the
        // start takes.
        let is_near = index >= first;
        let spreads = &SPREADS[..if is_near && !is_killed { SPREADS.len() } else { 1 }];
        let kills = &KILLS[..if is_near { KILLS.len() } else { 1 }];
        let ways = spreads.iter().flat_map(|spread| kills.iter().map(move |later| (*spread, *later)));
        for (spread, later) in ways.filter(|(_, later)| is_killed || *later == 0) {
            number += 1;
            if tally.options.is_short && number % 23 != 7 {
                continue;
            }
            let label = match is_killed {
                true => format!("{index}-{}:killed-{later}-later", point.name),
                false => format!("{index}-{}:{}-{}", point.name, spread.0, spread.1),
            };
            if tally.tries(count, &label) {
                // Later calls count only where something happens at them.
                let is_at_once = spread == (0, 0) && later == 0;
                let point = if is_at_once { point.clone() } else { Point::nth(index) };
                let (outcome, mut server) = start_at(world, &point, spread, is_killed.then_some(later));
                let wrong = server.judge(world, &outcome);
                tally.tried(count, &label, &outcome.word(), &wrong);
            }
        }
    }
}

/// Runs a restore, and starts a server at this call, with its steps spread over the calls after it.
/// Kills the restore `killed_later` calls later. If the restore is killed before the server has
/// started, the server goes on afterwards.
fn start_at(world: &World, point: &Point, spread: (usize, usize), killed_later: Option<usize>) -> (Outcome, Server) {
    let mut server = Server::new(world);
    let first = point.before;
    let steps = [first, first + spread.0, first + spread.0 + spread.1];
    let mut at = 0;
    let outcome = world.run(Program::Driver, point.shown, &mut |_| {
        steps.iter().filter(|step| **step == at).for_each(|_| server.step());
        at += 1;
        match killed_later {
            Some(later) if at > first + later => Action::Signal(libc::SIGKILL),
            None if at > steps[2] => Action::Last(Box::new(Action::Go)),
            _ => Action::Go,
        }
    });
    server.was_over = at <= steps[1];
    while !server.is_up() {
        server.step();
    }
    (outcome, server)
}

/// What happens between two words of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// Nothing: the words are only read, at each instruction.
    Look,
    /// The restore is killed, and a server starts.
    Kill,
    /// A server starts, and the restore goes on.
    Start,
}

/// There is no system call between the words that make segments trusted. So the restore is stopped
/// at each instruction from the last call before them on. When a given number of words are stored,
/// `between` happens.
fn at_each_word(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    let words = {
        world.enter_server();
        Words::of(&segments()).0.len()
    };
    for between in [Between::Look, Between::Kill, Between::Start] {
        for stored in 0..=words {
            if between == Between::Look && stored < words {
                continue;
            }
            let label = format!("{stored}-{between:?}");
            if tally.tries(count, &label) {
                let mut server = Server::new(world);
                let (outcome, mut wrong) = step_at(world, stored, between, &mut server);
                if between == Between::Look {
                    wrong.extend((!outcome.is_done).then(|| format!("it is not done: {}", outcome.text)));
                } else {
                    wrong.extend(server.judge(world, &outcome));
                }
                tally.tried(count, &label, &outcome.word(), &wrong);
            }
        }
    }
}

/// Runs a restore by single instructions while it stores its words, and lets `between` happen when
/// `stored` of them are stored. Returns every way in which their order was wrong.
fn step_at(world: &World, stored: usize, between: Between, server: &mut Server) -> (Outcome, Vec<String>) {
    let seen = RefCell::new((false, Vec::new()));
    let server = RefCell::new(server);
    let outcome = world.run(Program::Driver, Shown::All, &mut |call: &Call| {
        if !is_commit_line(call) {
            return Action::Go;
        }
        // All segments have been checked by now: that this process attaches them for a moment does
        // not matter any more.
        let words = Words::of(&segments());
        Action::Step(Box::new({
            let (seen, server) = (&seen, &server);
            move || {
                let mut seen = seen.borrow_mut();
                if seen.0 {
                    // The server may have changed them since.
                    return Stepped::Go;
                }
                let (is_stored, why) = words.look();
                seen.1.extend(why);
                if is_stored.iter().filter(|is_stored| **is_stored).count() < stored {
                    return Stepped::Go;
                }
                seen.0 = true;
                match between {
                    Between::Look => {}
                    Between::Kill => return Stepped::Kill,
                    Between::Start => (0..3).for_each(|_| server.borrow_mut().step()),
                }
                Stepped::Go
            }
        }))
    });
    let mut server = server.borrow_mut();
    while !server.is_up() {
        server.step();
    }
    drop(server);
    let (is_reached, mut wrong) = seen.into_inner();
    wrong.dedup();
    if !is_reached {
        wrong.push(format!("so many words were never stored between two calls: {stored}"));
    }
    (outcome, wrong)
}

/// Returns true if a call writes the line of the journal after which the words are stored.
fn is_commit_line(call: &Call) -> bool {
    const LINE: &[u8] = b"commit\n";
    let mut bytes = [0; LINE.len()];
    call.number == libc::SYS_write
        && call.arguments[2] == LINE.len() as u64
        && memory_at(call.tid, call.arguments[1], &mut bytes).is_ok_and(|count| bytes[..count] == *LINE)
}

/// The word of each base and stripe by which a start decides.
struct Words(Vec<Word>);

struct Word {
    stat: SegmentStat,
    /// The segment's memory. It is not attached.
    file: File,
}

impl Words {
    fn of(stats: &[SegmentStat]) -> Self {
        let has_word = |stat: &&SegmentStat| [SegmentType::PiBase, SegmentType::DataStage].contains(&kind_of(stat));
        let words = stats.iter().filter(has_word);
        Self(words.map(|stat| Word { stat: stat.clone(), file: file_of(stat.shmid) }).collect())
    }

    /// Returns which of them are stored, and an error if a base is trusted before all stripes of
    /// its namespace are.
    fn look(&self) -> (Vec<bool>, Option<String>) {
        let is_base = |word: &Word| kind_of(&word.stat) == SegmentType::PiBase;
        let is_stored = |word: &Word| {
            let offset = if is_base(word) { SHUTDOWN_OFFSET as u64 } else { STRIPE_FLAGS_OFFSET };
            let mut bytes = [0; 4];
            word.file.read_exact_at(&mut bytes, offset).expect("a word");
            bytes != [0; 4]
        };
        let stored: Vec<bool> = self.0.iter().map(is_stored).collect();
        let of = |wanted: bool| self.0.iter().zip(&stored).filter(move |(word, _)| is_base(word) == wanted);
        let is_early = of(true).any(|(_, is_stored)| *is_stored) && of(false).any(|(_, is_stored)| !*is_stored);
        (stored, is_early.then(|| "a base was trusted before all stripes were".to_owned()))
    }
}

/// The memory of a segment as a file, which stays open after the segment is detached.
fn file_of(shmid: i32) -> File {
    let _attachment = Attachment::new(shmid, Access::ReadOnly, 0).expect("an attachment");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("mappings");
    let line = maps.lines().find(|line| line.split_whitespace().nth(4) == Some(&shmid.to_string()) && line.contains("/SYSV"));
    let range = line.and_then(|line| line.split_whitespace().next()).expect("a mapping");
    File::open(format!("/proc/self/map_files/{range}")).expect("its file")
}

/// Both run; the server starts after a random time.
fn at_random(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    world.reset();
    let since = Instant::now();
    let outcome = world.run_free(&mut |_| {});
    assert!(outcome.is_done, "a run in which nothing fails: {outcome:?}");
    let all_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let rounds: u64 = if tally.options.is_short { 12 } else { 1200 };
    for seed in 0..rounds {
        let label = format!("seed-{seed}");
        if tally.tries(count, &label) {
            // Any spread will do: a multiplicative hash of the seed. Most of the moments are near
            // the end, where the commit is.
            let hash = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let delay_us = if seed % 4 == 0 { hash % all_us } else { all_us - all_us / 3 + hash % (all_us / 3) };
            let mut server = Server::new(world);
            let outcome = world.run_free(&mut |has_ended| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_micros(delay_us) {
                    std::hint::spin_loop();
                }
                server.step();
                // The server may look at the end of the restore before it comes, and discard after
                // it.
                server.step();
                server.was_over = has_ended();
                server.step();
            });
            let wrong = server.judge(world, &outcome);
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}
