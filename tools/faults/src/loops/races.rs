//! Races: a server that attaches, writes, runs, removes or recreates segments at each system call
//! of the engine, or at random moments; ids that are used again; two asmt at once.
//!
//! A backup that was reported as done restores to exactly one state that was in memory, never to a
//! mixture. A restore that was reported as done is whole. Otherwise the restore leaves nothing that
//! a start would trust, and leaves the segments of others alone. At each call the race is decided,
//! because the engine waits while the other process acts. At random moments both run.

use super::{act_at, clean_calls};
use crate::driver::Told;
use crate::judge::Allowance;
use crate::tally::{Count, Tally};
use crate::world::{BACKUP, CHUNKS, Outcome, Program, Scenario, World, perform_here, sums};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use asmt_kit::files::names;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use asmt_shm::{Key, SHUTDOWN_CLEAN, SHUTDOWN_OFFSET, SegmentType};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const RESTORE: Scenario = Scenario { name: "restore", verb: Verb::Restore, ..BACKUP };
const BACKUP_THREADS: Scenario = Scenario { name: "backup-threads", threads: 4, shape: CHUNKS, ..BACKUP };
const RESTORE_THREADS: Scenario = Scenario { name: "restore-threads", threads: 4, shape: CHUNKS, ..RESTORE };

/// The acts of the other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Attaches all segments, and stays.
    Attach,
    /// Attaches all, stores a few bytes in each, detaches.
    Write,
    /// Does what a server does that starts and stops cleanly: base is not trusted while the rest
    /// changes.
    Serve,
    /// Removes all of them.
    Remove,
    /// Removes one.
    RemoveOne,
    /// Removes each segment, and makes it anew under its key, with other bytes.
    Recreate,
    /// The same, and each gets its old id.
    ReuseIds,
    /// Makes a base where there is none yet, as a starting server does.
    MakeBase,
    /// Does what a server does that finds no base that it trusts: removes all, and makes an empty
    /// base.
    ColdStart,
}

const ON_BACKUP: &[Act] = &[Act::Attach, Act::Write, Act::Serve, Act::Remove, Act::RemoveOne, Act::Recreate, Act::ReuseIds];
const ON_RESTORE: &[Act] = &[Act::Attach, Act::Write, Act::Remove, Act::RemoveOne, Act::Recreate, Act::MakeBase, Act::ColdStart];

/// Runs the loop.
pub fn run(scratch: &Path, place: &Path, tally: &mut Tally<'_>) {
    for (scenario, acts) in [(BACKUP, ON_BACKUP), (RESTORE, ON_RESTORE)] {
        for act in acts {
            let name = format!("races:{}-{act:?}", scenario.name);
            with_world(&name, scratch, place, scenario, tally, &mut |world, count, tally| {
                at_each_call(world, *act, count, tally)
            });
        }
    }
    for (first, second) in [(BACKUP, Verb::Backup), (BACKUP, Verb::Restore), (RESTORE, Verb::Restore), (RESTORE, Verb::Backup)] {
        let name = format!("races:two-{}-{second:?}", first.name);
        with_world(&name, scratch, place, first, tally, &mut |world, count, tally| two_at_once(world, second, count, tally));
    }
    for (scenario, acts) in [(BACKUP_THREADS, ON_BACKUP), (RESTORE_THREADS, ON_RESTORE)] {
        let name = format!("races:random-{}", scenario.name);
        with_world(&name, scratch, place, scenario, tally, &mut |world, count, tally| at_random(world, acts, count, tally));
    }
}

/// Runs `body` with a world of a scenario, if its states are asked for.
pub(super) fn with_world(
    name: &str,
    scratch: &Path,
    place: &Path,
    scenario: Scenario,
    tally: &mut Tally<'_>,
    body: &mut dyn FnMut(&World, &mut Count, &mut Tally<'_>),
) {
    if tally.wants(name) && tally.options.wants_verb(scenario.verb) {
        let mut count = tally.begin(name);
        body(&World::new(scratch, place, scenario), &mut count, tally);
        tally.finish(count);
    }
}

fn at_each_call(world: &World, act: Act, count: &mut Count, tally: &mut Tally<'_>) {
    let calls = clean_calls(world, Program::Driver);
    let step = if tally.options.is_short { 67 } else { 1 };
    for (index, point) in calls.iter().enumerate().skip(step / 3).step_by(step) {
        let label = format!("{index}-{}", point.name);
        if tally.tries(count, &label) {
            let mut other = Other::new(world);
            let outcome = act_at(world, point, &mut || other.act(act, index));
            let wrong = other.judge(world, &outcome);
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}

/// Both run; the other process acts after a random time.
fn at_random(world: &World, acts: &[Act], count: &mut Count, tally: &mut Tally<'_>) {
    world.reset();
    let since = Instant::now();
    let outcome = world.run_free(&mut |_| {});
    assert!(outcome.is_done, "a run in which nothing fails: {outcome:?}");
    let most_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let rounds: u64 = if tally.options.is_short { 14 } else { 1400 };
    for seed in 0..rounds {
        let act = acts[seed as usize % acts.len()];
        let label = format!("seed-{seed}-{act:?}");
        if tally.tries(count, &label) {
            // Any spread will do: a multiplicative hash of the seed.
            let delay = Duration::from_micros((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % most_us);
            let mut other = Other::new(world);
            let outcome = world.run_free(&mut |has_ended| {
                let begin = Instant::now();
                while begin.elapsed() < delay {
                    std::hint::spin_loop();
                }
                other.act(act, seed as usize);
                other.was_over = has_ended() || ON_RESTORE.contains(&act) && is_trusted();
            });
            let wrong = other.judge(world, &outcome);
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}

/// Segments of the scenario's instance and namespaces. (Those of others have nsid 3.)
pub(super) fn segments() -> Vec<SegmentStat> {
    let all = sysv::all_segments().expect("segments");
    all.into_iter().filter(|stat| stat.key.address().is_some_and(|address| address.nsid != 3)).collect()
}

/// Returns true if base has its final owner and mode.
fn has_final_owner(stats: &[SegmentStat]) -> bool {
    stats.iter().any(|stat| stat.key == base_key() && stat.mode != 0o600)
}

fn base_key() -> Key {
    Key(0xae00_1000)
}

/// Returns true if base is there and trusted.
fn is_trusted() -> bool {
    let base = segments().into_iter().find(|stat| stat.key == base_key());
    base.and_then(|stat| Attachment::new(stat.shmid, Access::ReadOnly, 0).ok())
        .is_some_and(|base| base.bytes(SHUTDOWN_OFFSET as u64..SHUTDOWN_OFFSET as u64 + 4) == SHUTDOWN_CLEAN.to_le_bytes())
}

/// Stores a few bytes at the end of each segment that has no header. Only a server changes a
/// segment with a header, and it changes the header as well.
fn stamp(stats: &[SegmentStat], word: [u8; 8]) {
    for stat in stats.iter().filter(|stat| stat.key.address().is_some_and(|address| !address.segment_type.has_header())) {
        if let Ok(segment) = Attachment::new(stat.shmid, Access::ReadWrite, 0) {
            let end = segment.size_bytes();
            segment.exclusive(end - 8..end).copy_from_slice(&word);
        }
    }
}

/// Does what a server does from its start to its clean stop: it discards base and treex, gives the
/// stripes a new random, changes stages and stripes, and makes treex and base anew, base last.
fn serve(stats: &[SegmentStat]) {
    const STRIPE_RANDOM_OFFSET: u64 = 48;
    let of = |wanted: SegmentType| {
        stats.iter().filter(move |stat| stat.key.address().is_some_and(|address| address.segment_type == wanted))
    };
    for stat in of(SegmentType::DataStage) {
        if let Ok(stripe) = Attachment::new(stat.shmid, Access::ReadWrite, 0) {
            stripe.exclusive(STRIPE_RANDOM_OFFSET..STRIPE_RANDOM_OFFSET + 8).copy_from_slice(b"at start");
            stripe.exclusive(stat.size_bytes - 8..stat.size_bytes).copy_from_slice(b"served!!");
        }
    }
    stamp(stats, *b"served!!");
    of(SegmentType::PiTreex).chain(of(SegmentType::PiBase)).for_each(|stat| drop(make_anew(stat, false)));
}

/// Removes a segment and makes another one under its key, with its bytes except for the last ones.
/// With `same_id` it gets the old id, unless another process has that segment attached. Returns the
/// new id.
fn make_anew(stat: &SegmentStat, same_id: bool) -> std::io::Result<i32> {
    let bytes = Attachment::new(stat.shmid, Access::ReadOnly, 0)?.bytes(0..stat.size_bytes).to_vec();
    sysv::remove(stat.shmid)?;
    if same_id {
        std::fs::write("/proc/sys/kernel/shm_next_id", stat.shmid.to_string())?;
    }
    let shmid = sysv::create(stat.key, stat.size_bytes).or_else(|_| sysv::create(stat.key, stat.size_bytes))?;
    let segment = Attachment::new(shmid, Access::ReadWrite, 0)?;
    segment.exclusive(0..stat.size_bytes).copy_from_slice(&bytes);
    segment.exclusive(stat.size_bytes - 8..stat.size_bytes).copy_from_slice(b"anew....");
    sysv::set_owner(shmid, stat.uid, stat.gid, stat.mode)?;
    Ok(shmid)
}

/// Sums without the attach count, which is not part of the state.
fn state() -> BTreeSet<String> {
    sums().into_iter().map(|line| without_count(&line)).collect()
}

/// A line of sums without its attach count.
pub(super) fn without_count(line: &str) -> String {
    line.rsplit_once(' ').map_or(line, |(state, _)| state).to_owned()
}

/// Returns true if it failed after the first word that a start would trust. From then on nothing is
/// removed.
fn is_past_return(outcome: &Outcome) -> bool {
    let first = outcome.problems.first();
    first.is_some_and(|told| told.code == "segment-changed" && told.hint.starts_with("asmt removed nothing"))
}

/// Returns true if it reported that it left a segment that another process has attached.
fn is_told_to_stay(outcome: &Outcome) -> bool {
    outcome.problems.iter().any(|told| told.message.ends_with(" was not removed: another process has it attached"))
}

/// The other process: the segments that it holds, and those that it has made.
struct Other {
    held: Vec<Attachment>,
    /// Ids of the segments that it held until the run had ended.
    attached: Vec<i32>,
    made: Vec<i32>,
    before: BTreeSet<String>,
    act: Option<Act>,
    /// After it had acted, the run had ended, or base was trusted. That may have been before the
    /// act was complete.
    was_over: bool,
    /// Base was trusted when it acted.
    was_trusted: bool,
    /// Segments had got their owner when it acted. Between the last check of each segment and the
    /// trust in base there are a few calls.
    had_begun: bool,
}

impl Other {
    fn new(world: &World) -> Self {
        world.reset();
        let before = world.server_sums().iter().map(|line| without_count(line)).collect();
        Self {
            held: Vec::new(),
            attached: Vec::new(),
            made: Vec::new(),
            before,
            act: None,
            was_over: false,
            was_trusted: false,
            had_begun: false,
        }
    }

    fn act(&mut self, act: Act, number: usize) {
        self.act = Some(act);
        let stats = segments();
        self.had_begun = has_final_owner(&stats);
        // The other process must not look into base on the machine with the server's segments: that
        // would be an act in itself.
        self.was_trusted = ON_RESTORE.contains(&act) && self.had_begun && is_trusted();
        match act {
            Act::Attach => {
                let attach =
                    |stat: &SegmentStat| Attachment::new(stat.shmid, Access::ReadWrite, 0).map(|held| (stat.shmid, held));
                (self.attached, self.held) = stats.iter().filter_map(|stat| attach(stat).ok()).unzip();
            }
            Act::Write => stamp(&stats, *b"written!"),
            Act::Serve => serve(&stats),
            Act::Remove => stats.iter().for_each(|stat| drop(sysv::remove(stat.shmid))),
            Act::RemoveOne => {
                if let Some(stat) = stats.get(number % stats.len().max(1)) {
                    drop(sysv::remove(stat.shmid));
                }
            }
            Act::Recreate | Act::ReuseIds => {
                // Another process does it, as a server would.
                let word = if act == Act::ReuseIds { "same-ids" } else { "new-ids" };
                let done = Command::new("/proc/self/exe").args(["recreate", word]).output().expect("to start");
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                let old: Vec<i32> = stats.iter().map(|stat| stat.shmid).collect();
                let is_new = |stat: &SegmentStat| act == Act::ReuseIds || !old.contains(&stat.shmid);
                self.made = segments().iter().filter(|stat| is_new(stat)).map(|stat| stat.shmid).collect();
            }
            Act::MakeBase => self.made.extend(sysv::create(base_key(), 4096)),
            Act::ColdStart => {
                stats.iter().for_each(|stat| drop(sysv::remove(stat.shmid)));
                self.made.extend(sysv::create(base_key(), 4096));
            }
        }
    }

    fn judge(mut self, world: &World, outcome: &Outcome) -> Vec<String> {
        self.held.clear();
        let mut wrong = Vec::new();
        if outcome.word() == "silent" || outcome.word() == "bug" || outcome.ended.is_endless {
            wrong.push(format!("it ended by {:?}: {}", outcome.ended, outcome.text));
        }
        if outcome.word() == "damaged" {
            wrong.push(format!("it takes what the other has done for damage of the backup: {}", outcome.text));
        }
        match world.scenario().verb {
            Verb::Restore => self.judge_restore(world, outcome, &mut wrong),
            _ => self.judge_backup(world, outcome, &mut wrong),
        }
        wrong
    }

    fn judge_backup(&self, world: &World, outcome: &Outcome, wrong: &mut Vec<String>) {
        world.enter_server();
        let after = state();
        let (restored, found) = world.restore_elsewhere();
        let found: BTreeSet<String> = found.iter().map(|line| without_count(line)).collect();
        let left = names(&world.directory());
        match (outcome.is_done, restored) {
            (true, Ok(())) if found == self.before || found == after => {}
            (true, Ok(())) => {
                wrong.push(format!("what it saved never was in memory: {:?}", found.difference(&self.before).collect::<Vec<_>>()))
            }
            (true, Err(failure)) => wrong.push(format!("it is done, and cannot be restored: {}", failure.error)),
            (false, Ok(())) => wrong.push("it failed, and there is a backup".to_owned()),
            (false, Err(_)) if left.is_empty() => {}
            (false, Err(_)) => wrong.push(format!("it failed, and left {left:?}")),
        }
        // In any case, the next run succeeds if the server is left alone.
        world.remake_server();
        if !outcome.is_done
            && let Err(failure) = perform_here(Verb::Backup, &world.directory(), Form::Plain)
        {
            wrong.push(format!("the next backup fails: {}", failure.error));
        }
        world.enter_server();
    }

    fn judge_restore(&self, world: &World, outcome: &Outcome, wrong: &mut Vec<String>) {
        world.enter_spare();
        let all = state();
        let others: BTreeSet<String> = world.others().iter().map(|line| without_count(line)).collect();
        if !others.is_subset(&all) {
            wrong.push("segments that are neither's have changed".to_owned());
        }
        let found: BTreeSet<String> = all.difference(&others).cloned().collect();
        let there: Vec<SegmentStat> = segments();
        if outcome.is_done {
            // Once base was trusted, the other process may have changed segments that belong to it
            // by then.
            if found != self.before && !self.may_be_his(&found, &there) {
                wrong.push(format!("it is done, and there is {found:?}"));
            }
        } else {
            let is_not_made = |stat: &&SegmentStat| !self.made.contains(&stat.shmid);
            let left: Vec<&SegmentStat> = there.iter().filter(is_not_made).collect();
            let may_stay = (self.had_begun || self.was_over) && is_past_return(outcome)
                || left.iter().all(|stat| self.may_have_attached(stat)) && is_told_to_stay(outcome);
            if !left.is_empty() && !may_stay {
                wrong.push(format!("it failed, and left {left:?}: {}", outcome.text));
            }
            // A segment that was left because the other process had it attached can be removed by
            // the next restore.
            if !left.is_empty() && is_told_to_stay(outcome) {
                if let Err(failure) = perform_here(Verb::Restore, &world.directory(), Form::Plain) {
                    wrong.push(format!("the restore after that fails: {}", failure.error));
                }
            } else if is_trusted() && !self.was_trusted && !may_stay {
                wrong.push(format!("it failed, and a start would trust what is there: {found:?}"));
            }
        }
        let gone = self.made.iter().filter(|shmid| !there.iter().any(|stat| stat.shmid == **shmid)).count();
        if gone > 0 {
            wrong.push(format!("{gone} segments that the other has made are gone"));
        }
        world.reset();
        if let Err(failure) = perform_here(Verb::Restore, &world.directory(), Form::Plain) {
            wrong.push(format!("the next restore fails: {}", failure.error));
        }
    }

    /// Returns true if the other process may have had a segment attached when the restore ended.
    fn may_have_attached(&self, stat: &SegmentStat) -> bool {
        self.act == Some(Act::Write) || self.attached.contains(&stat.shmid)
    }

    /// Returns true if the restore had been completed, or was about to be, when the other process
    /// acted. If both ran, the end of the restore may lie within the act: then each segment is as
    /// it was restored, or belongs to the other process.
    fn may_be_his(&self, found: &BTreeSet<String>, there: &[SegmentStat]) -> bool {
        let is_write = self.act == Some(Act::Write);
        let made_keys: Vec<String> =
            there.iter().filter(|stat| self.made.contains(&stat.shmid)).map(|stat| stat.key.to_string()).collect();
        let is_of_either = |line: &String| self.before.contains(line) || made_keys.iter().any(|key| line.starts_with(key));
        self.was_trusted || self.had_begun && is_write || self.was_over && (is_write || found.iter().all(is_of_either))
    }
}

/// Performs another operation from begin to end at each call of the first: one of them succeeds,
/// and the other is refused.
fn two_at_once(world: &World, second: Verb, count: &mut Count, tally: &mut Tally<'_>) {
    let calls = clean_calls(world, Program::Driver);
    let first = world.scenario().verb;
    let step = if tally.options.is_short { 71 } else { 1 };
    for (index, point) in calls.iter().enumerate().skip(step / 3).step_by(step) {
        let label = format!("{index}-{}", point.name);
        if !tally.tries(count, &label) {
            continue;
        }
        world.reset();
        let mut result = None;
        let elsewhere = world.disk.join("elsewhere");
        let _ = std::fs::remove_dir_all(&elsewhere);
        // If a restore comes first, only segments of others can be backed up.
        let directory = if first == second || second == Verb::Restore { world.directory() } else { elsewhere.clone() };
        let outcome = act_at(world, point, &mut || result = Some(perform_here(second, &directory, Form::Plain)));
        let mut wrong = Vec::new();
        let others_only =
            |names: &BTreeSet<String>| names.iter().all(|name| !name.starts_with("ae001") && !name.starts_with("ad001"));
        let (mut is_done, mut said) = (outcome.is_done, outcome.clone());
        match &result {
            Some(Ok(())) if first == second && outcome.is_done => wrong.push("both are done".to_owned()),
            Some(Ok(())) if first == second => is_done = true,
            Some(Ok(())) if first == Verb::Restore && others_only(&names(&elsewhere)) => {}
            // The first operation was just done, or had not begun.
            Some(Ok(())) if first == Verb::Restore && outcome.is_done && names(&elsewhere).is_superset(world.whole()) => {}
            Some(Ok(())) => wrong.push(format!("a {second:?} in the middle of a {first:?} is done")),
            Some(Err(failure)) => {
                // The first operation is at work, has not begun, or has just made the segments or
                // files that are in the way.
                let known =
                    ["another-asmt", "segments-exist", "backup-exists", "directory-missing", "no-backup", "nothing-found"];
                let code = failure.error.first().code.as_str();
                let is_half_made = code == "backup-incomplete" && second == Verb::Restore;
                // The first is at its very last calls: what it was about is done.
                let is_over = code == "already-in-memory" && second == Verb::Restore;
                if !known.contains(&code) && !is_half_made && !is_over {
                    wrong.push(format!("the second is refused by {}", failure.error));
                }
            }
            None => {}
        }
        if !is_done {
            wrong.push(format!("neither is done: {}", outcome.text));
        }
        let is_seconds = is_done && !outcome.is_done;
        // It came late, and found that everything is done, or that nothing is there yet.
        let is_late = |told: &Told| told.kind == "refused" || told.code == "already-in-memory";
        if is_seconds && !outcome.problems.first().is_some_and(is_late) {
            wrong.push(format!("the first was not refused: {}", outcome.text));
        }
        // The result belongs to one of them, and is judged as if the first had made it.
        said.is_done = is_done;
        wrong.extend(world.judge(&said, Allowance::default()));
        tally.tried(count, &label, if is_seconds { "the second's" } else { "the first's" }, &wrong);
    }
}

/// Recreates each segment of this namespace, in a process of its own, as a server would. A segment
/// that is gone by then is skipped.
pub fn recreate(how: &str) -> ExitCode {
    for stat in segments() {
        let _ = make_anew(&stat, how == "same-ids");
    }
    ExitCode::SUCCESS
}
