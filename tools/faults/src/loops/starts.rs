//! A server that starts while a restore is at work: at each of its system calls, at once or spread
//! over several calls, with the restore going on or killed soon afterwards; and at random moments,
//! when both run.
//!
//! The server does what was seen of one. Where it trusts what it finds it attaches all, discards
//! base and treex, gives the stripes another random and takes their trusted bit, and keeps the rest
//! attached. Where it does not, it removes everything of the namespace and makes its own segments
//! under the same keys. What it uses then is never removed or changed by any run of asmt, neither
//! while it runs nor after it has crashed; and the restore ends by success or by a refusal.

use super::races::{segments, with_world, without_count};
use crate::calls::Call;
use crate::sys::memory_at;
use crate::tally::{Count, Tally};
use crate::tracer::{Action, Stepped};
use crate::world::{CHUNKS, Outcome, Program, SMALL, Scenario, TWO, World, names, perform_here, sums};
use asmt_engine::operations::report::Verb;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use asmt_shm::{Address, Key, SHUTDOWN_CLEAN, SHUTDOWN_OFFSET, SegmentType};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const INDEX: Scenario = Scenario { name: "start", verb: Verb::Restore, compress: false, check: false, threads: 1, shape: SMALL };
const TWO_INDEXES: Scenario = Scenario { name: "start-two", shape: TWO, ..INDEX };
const STRIPES: Scenario =
    Scenario { name: "start-stripes", shape: &["--no-index --stripes 3 --stripe-size 128KiB --stripe-fill 1"], ..INDEX };
const CHUNKS_RANDOM: Scenario = Scenario { name: "random-start", threads: 4, shape: CHUNKS, ..INDEX };
const SMALL_RANDOM: Scenario = Scenario { name: "random-start-stripes", threads: 4, shape: SMALL, ..INDEX };

/// How many calls of the restore lie between the three steps of a start: look, discard, take over.
const SPREADS: &[(usize, usize)] = &[(0, 0), (1, 0), (0, 1), (2, 1), (3, 5), (8, 2), (0, 13)];
/// How many calls after the start the restore is killed.
const KILLS: &[usize] = &[0, 1, 2, 3, 5, 8];
/// Calls before the first one of the commit that are tried as thoroughly as those of the commit.
const CALLS_BEFORE: usize = 12;

// Where a stripe's header says what a start changes; written down a second time.
const STRIPE_RANDOM_OFFSET: u64 = 48;
const STRIPE_FLAGS_OFFSET: u64 = 56;
const STRIPE_TRUSTED: u8 = 1;

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

/// The calls of a restore in which nothing fails, and the index of the first one of its commit: it
/// gives a segment its owner.
fn calls_and_commit(world: &World) -> (Vec<String>, usize) {
    const IPC_SET: u64 = 1;
    world.reset();
    let (mut calls, mut commit) = (Vec::new(), None);
    let outcome = world.run(Program::Driver, Vec::new(), &mut |call: &Call| {
        if call.number == libc::SYS_shmctl && call.arguments[1] == IPC_SET {
            commit.get_or_insert(calls.len());
        }
        calls.push(call.name());
        Action::Go
    });
    assert!(outcome.is_done, "a run in which nothing fails: {outcome:?}");
    (calls, commit.expect("a commit"))
}

fn at_each_call(world: &World, is_killed: bool, count: &mut Count, tally: &mut Tally<'_>) {
    let (calls, commit) = calls_and_commit(world);
    let first = commit.saturating_sub(CALLS_BEFORE);
    let mut number = 0;
    for (index, call) in calls.iter().enumerate() {
        // Before the commit a start at once is enough: nothing is trusted there however long it
        // takes.
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
                true => format!("{index}-{call}:killed-{later}-later"),
                false => format!("{index}-{call}:{}-{}", spread.0, spread.1),
            };
            if tally.tries(count, &label) {
                let (outcome, mut server) = start_at(world, index, spread, is_killed.then_some(later));
                let wrong = server.judge(world, &outcome);
                tally.tried(count, &label, &outcome.word(), &wrong);
            }
        }
    }
}

/// Runs a restore and starts a server at the call with this index, spread over the calls after it;
/// kills the restore so many calls later, if it is to be killed. A start that the restore does not
/// live to see ends after it.
fn start_at(world: &World, index: usize, spread: (usize, usize), killed_later: Option<usize>) -> (Outcome, Server) {
    let mut server = Server::new(world);
    let steps = [index, index + spread.0, index + spread.0 + spread.1];
    let mut at = 0;
    let outcome = world.run(Program::Driver, Vec::new(), &mut |_| {
        steps.iter().filter(|step| **step == at).for_each(|_| server.step());
        at += 1;
        if killed_later.is_some_and(|later| at > index + later) { Action::Signal(libc::SIGKILL) } else { Action::Go }
    });
    server.was_over = at <= steps[1];
    while !server.is_up() {
        server.step();
    }
    (outcome, server)
}

/// What is done between two words of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// Nothing: it is only looked at, at each instruction.
    Look,
    /// The restore is killed, and a server starts.
    Kill,
    /// A server starts, and the restore goes on.
    Start,
}

/// Between the words that make segments trusted there is no system call. So the restore is stopped
/// at each instruction from the last call before them on; and when so many of them are stored,
/// something is done.
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

/// Runs a restore by single instructions while it stores its words, and does something when so many
/// are stored. Gives what was wrong with their order.
fn step_at(world: &World, stored: usize, between: Between, server: &mut Server) -> (Outcome, Vec<String>) {
    let seen = RefCell::new((false, Vec::new()));
    let server = RefCell::new(server);
    let outcome = world.run(Program::Driver, Vec::new(), &mut |call: &Call| {
        if !is_commit_line(call) {
            return Action::Go;
        }
        // All have been looked at by now: that somebody has them attached for a moment does not
        // matter any more.
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

/// Whether a call writes the line of the journal after which the words are stored.
fn is_commit_line(call: &Call) -> bool {
    const LINE: &[u8] = b"commit\n";
    let mut bytes = [0; LINE.len()];
    call.number == libc::SYS_write
        && call.arguments[2] == LINE.len() as u64
        && memory_at(call.tid, call.arguments[1], &mut bytes).is_ok_and(|count| bytes[..count] == *LINE)
}

/// The words by which a start decides, of each base and stripe.
struct Words(Vec<Word>);

struct Word {
    stat: SegmentStat,
    /// The segment's memory, without it being attached.
    file: File,
}

impl Words {
    fn of(stats: &[SegmentStat]) -> Self {
        let has_word = |stat: &&SegmentStat| [SegmentType::PiBase, SegmentType::DataStage].contains(&kind_of(stat));
        let words = stats.iter().filter(has_word);
        Self(words.map(|stat| Word { stat: stat.clone(), file: file_of(stat.shmid) }).collect())
    }

    /// Which of them are stored, and what is wrong with that: a base is trusted after all stripes
    /// of its namespace.
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

/// The memory of a segment as a file, which stays open when it is not attached any more.
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
            // Any spread will do: a multiplicative hash of the seed. Most of them near the end,
            // where the commit is.
            let hash = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let delay_us = if seed % 4 == 0 { hash % all_us } else { all_us - all_us / 3 + hash % (all_us / 3) };
            let mut server = Server::new(world);
            let outcome = world.run_free(&mut |has_ended| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_micros(delay_us) {
                    std::hint::spin_loop();
                }
                server.step();
                // The first look at an end may come before it, and the discarding after it.
                server.step();
                server.was_over = has_ended();
                server.step();
            });
            let wrong = server.judge(world, &outcome);
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}

/// What a server has found in a namespace, and so how it starts.
enum Finding {
    /// It trusts these: they are attached.
    Trusted(Vec<Used>),
    /// It trusts nothing: it makes all anew.
    Nothing,
    /// It could not attach what it trusts: it has not started.
    Failed,
}

/// A segment that a server uses.
struct Used {
    stat: SegmentStat,
    attachment: Attachment,
}

/// A segment that a server uses, as it must be found again.
struct Live {
    stat: SegmentStat,
    hash: u64,
}

/// A server that is starting, or runs.
struct Server {
    /// How far it has come.
    steps: usize,
    /// What it has found, by nsid.
    findings: Vec<(u8, Finding)>,
    used: Vec<Used>,
    live: Vec<Live>,
    /// What was backed up, without attach counts.
    before: BTreeSet<String>,
    /// The restore had ended when it discarded what it found.
    was_over: bool,
    /// All was trusted when it discarded what it had not trusted.
    was_trusted: bool,
}

fn kind_of(stat: &SegmentStat) -> SegmentType {
    stat.key.address().expect("an address").segment_type
}

fn in_namespace(nsid: u8) -> Vec<SegmentStat> {
    segments().into_iter().filter(|stat| stat.key.address().is_some_and(|address| address.nsid == nsid)).collect()
}

/// Whether a start trusts what there is: by base, and where there is none by all of the stripes.
fn is_trusted(stats: &[SegmentStat]) -> bool {
    let is_base = |stat: &&SegmentStat| kind_of(stat) == SegmentType::PiBase;
    let has_index = stats.iter().any(|stat| kind_of(stat) != SegmentType::DataStage);
    let bytes_at = |stat: &SegmentStat, offset: u64| {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).ok()?;
        attachment.bytes(offset..offset + 4).try_into().ok().map(u32::from_le_bytes)
    };
    match stats.iter().find(is_base) {
        Some(base) => bytes_at(base, SHUTDOWN_OFFSET as u64) == Some(SHUTDOWN_CLEAN),
        None if has_index || stats.is_empty() => false,
        None => stats
            .iter()
            .all(|stat| bytes_at(stat, STRIPE_FLAGS_OFFSET).is_some_and(|flags| flags & u32::from(STRIPE_TRUSTED) != 0)),
    }
}

/// A hash of all of a segment's bytes.
fn hash_of(attachment: &Attachment) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(attachment.bytes(0..attachment.size_bytes()));
    hasher.finish()
}

impl Server {
    fn new(world: &World) -> Self {
        world.reset();
        Self {
            steps: 0,
            findings: Vec::new(),
            used: Vec::new(),
            live: Vec::new(),
            before: world.server_sums().iter().map(|line| without_count(line)).collect(),
            was_over: false,
            was_trusted: false,
        }
    }

    fn is_up(&self) -> bool {
        self.steps == 3
    }

    /// Its next step.
    fn step(&mut self) {
        match self.steps {
            0 => self.look(),
            1 => self.discard(),
            2 => self.take_over(),
            _ => return,
        }
        self.steps += 1;
    }

    /// Looks at each namespace, and attaches what it trusts.
    fn look(&mut self) {
        for nsid in [1, 2] {
            let stats = in_namespace(nsid);
            let finding = if is_trusted(&stats) {
                let attach = |stat: &SegmentStat| {
                    Some(Used { stat: stat.clone(), attachment: Attachment::new(stat.shmid, Access::ReadWrite, 0).ok()? })
                };
                stats.iter().map(attach).collect::<Option<Vec<_>>>().map_or(Finding::Failed, Finding::Trusted)
            } else {
                Finding::Nothing
            };
            self.findings.push((nsid, finding));
        }
    }

    /// Discards base and treex where it trusts them, and everything where it does not.
    fn discard(&mut self) {
        for (nsid, finding) in &mut self.findings {
            match finding {
                Finding::Trusted(used) => {
                    let is_discarded = |used: &Used| matches!(kind_of(&used.stat), SegmentType::PiBase | SegmentType::PiTreex);
                    for gone in used.extract_if(.., |used| is_discarded(used)) {
                        let _ = sysv::remove(gone.stat.shmid);
                    }
                }
                Finding::Nothing => {
                    let stats = in_namespace(*nsid);
                    self.was_trusted |= is_trusted(&stats);
                    stats.iter().for_each(|stat| drop(sysv::remove(stat.shmid)));
                }
                Finding::Failed => {}
            }
        }
    }

    /// Marks the stripes as in use, or makes segments of its own; from here on it runs.
    fn take_over(&mut self) {
        for (nsid, finding) in std::mem::take(&mut self.findings) {
            match finding {
                Finding::Trusted(used) => {
                    for stripe in used.iter().filter(|used| kind_of(&used.stat) == SegmentType::DataStage) {
                        store_header(&stripe.attachment);
                    }
                    self.used.extend(used);
                }
                // One server serves all namespaces: where there was none, it makes none.
                Finding::Nothing if self.before.iter().any(|line| is_of_nsid(line, nsid)) => {
                    let keys: Vec<Key> = [
                        (SegmentType::PiStage, 0),
                        (SegmentType::SiStage, 0),
                        (SegmentType::DataStage, 0),
                        (SegmentType::DataStage, 1),
                    ]
                    .into_iter()
                    .filter_map(|(segment_type, index)| Address { instance: 0, nsid, segment_type, index }.key())
                    .collect();
                    self.used.extend(keys.into_iter().map(make));
                }
                Finding::Nothing | Finding::Failed => {}
            }
        }
        self.live = self.used.iter().map(|used| Live { stat: used.stat.clone(), hash: hash_of(&used.attachment) }).collect();
    }

    /// What asmt has done to segments that the server uses, or used until it crashed.
    fn harm(&self, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for Live { stat, hash } in &self.live {
            let is_there = sysv::stat(stat.shmid).is_ok_and(|now| !now.is_removed && now.key == stat.key);
            let now = Attachment::new(stat.shmid, Access::ReadOnly, 0).map(|attachment| hash_of(&attachment));
            if !is_there {
                wrong.push(format!("{when}: segment {} that the server uses was removed", stat.key));
            } else if now.ok() != Some(*hash) {
                wrong.push(format!("{when}: segment {} that the server uses has changed", stat.key));
            }
        }
        wrong
    }

    fn judge(&mut self, world: &World, outcome: &Outcome) -> Vec<String> {
        world.enter_spare();
        let mut wrong = self.harm("after the restore");
        let all = sums().iter().map(|line| without_count(line)).collect::<BTreeSet<_>>();
        let others: BTreeSet<String> = world.others().iter().map(|line| without_count(line)).collect();
        if !others.is_subset(&all) {
            wrong.push("segments that are neither's have changed".to_owned());
        }
        if outcome.ended.is_endless || !["done", "refused"].contains(&outcome.word().as_str()) && !outcome.is_killed() {
            wrong.push(format!("it ended by {:?}: {}", outcome.ended, outcome.text));
        }
        let is_live = |stat: &SegmentStat| self.live.iter().any(|live| live.stat.shmid == stat.shmid);
        let left: Vec<String> = segments().iter().filter(|stat| !is_live(stat)).map(|stat| stat.key.to_string()).collect();
        let is_server_cold = self.live.iter().any(|live| live.stat.creator_pid.cast_unsigned() == std::process::id());
        if outcome.is_done && is_server_cold && !self.was_trusted && !self.was_over {
            wrong.push("it is done, and the server has removed it before it was".to_owned());
        }
        if !outcome.is_killed() && !left.is_empty() {
            wrong.push(format!("beside what the server uses there are {left:?}"));
        }
        let is_marked = names(&world.directory()).iter().any(|name| asmt_engine::format::mark::is_used_name(name));
        if !self.live.is_empty() && !is_server_cold && !is_marked {
            wrong.push("the server uses what was restored, and the backup is not marked as used".to_owned());
        }
        // Not while the server runs, and not after it has crashed: it has served since.
        for when in ["the next restore beside the server", "the next restore after the server's crash"] {
            if !self.live.is_empty() {
                match perform_here(Verb::Restore, &world.directory(), false) {
                    Ok(()) => wrong.push(format!("{when} is done")),
                    Err(failure) => {
                        let codes = ["segments-exist", "segment-attached", "backup-used"];
                        if !codes.contains(&failure.error.first().code.as_str()) {
                            wrong.push(format!("{when} fails by {}", failure.error));
                        }
                    }
                }
                wrong.extend(self.harm(when));
            }
            self.used.clear();
        }
        world.reset();
        if let Err(failure) = perform_here(Verb::Restore, &world.directory(), false) {
            wrong.push(format!("the next restore on an empty machine fails: {}", failure.error));
        }
        wrong
    }
}

/// What a start stores in a stripe's header: another random, not trusted.
fn store_header(stripe: &Attachment) {
    stripe.exclusive(STRIPE_RANDOM_OFFSET..STRIPE_RANDOM_OFFSET + 8).copy_from_slice(b"at start");
    stripe.exclusive(STRIPE_FLAGS_OFFSET..STRIPE_FLAGS_OFFSET + 4).fill(0);
}

/// Makes a segment of the server's own. What a restore has made there since the server looked goes.
fn make(key: Key) -> Used {
    const SIZE_BYTES: u64 = 128 << 10;
    let shmid = loop {
        match sysv::create(key, SIZE_BYTES) {
            Ok(shmid) => break shmid,
            Err(_) => {
                segments().iter().filter(|stat| stat.key == key).for_each(|stat| drop(sysv::remove(stat.shmid)));
            }
        }
    };
    let attachment = Attachment::new(shmid, Access::ReadWrite, 0).expect("an attachment");
    attachment.exclusive(SIZE_BYTES - 8..SIZE_BYTES).copy_from_slice(b"its own!");
    Used { stat: sysv::stat(shmid).expect("a segment"), attachment }
}

fn is_of_nsid(line: &str, nsid: u8) -> bool {
    let key = line.split(' ').next().and_then(|text| u32::from_str_radix(text, 16).ok()).map(Key);
    key.and_then(Key::address).is_some_and(|address| address.nsid == nsid)
}
