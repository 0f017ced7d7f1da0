//! Fault loop: each system call of the engine fails, the 1st, the 2nd, the 3rd and so on, until a
//! run has no more calls: once, and from then on.
//!
//! After each failure there must be: an exit of the right kind, a message that names call and
//! object, nothing that a reader or a start would accept or trust, no leftovers, unchanged
//! segments, and a next run that succeeds. A failure that does no harm may be ignored: then
//! everything must be right. "From then on" means this call and all later ones with its name.

use super::{Point, clean_calls};
use crate::calls::Call;
use crate::judge::Allowance;
use crate::tally::Tally;
use crate::tracer::Action;
use crate::world::{BACKUP, CHUNKS, Old, Outcome, Program, Scenario, TWO, World};
use asmt_engine::format::Form;
use asmt_engine::format::journal::MARKS_LOCK_NAME;
use asmt_engine::operations::report::Verb;
use std::path::Path;

const ERRNOS: &[(&str, i32)] = &[
    ("EIO", libc::EIO),
    ("ENOSPC", libc::ENOSPC),
    ("EINTR", libc::EINTR),
    ("EACCES", libc::EACCES),
    ("EMFILE", libc::EMFILE),
    ("ENOMEM", libc::ENOMEM),
    ("EROFS", libc::EROFS),
    ("EDQUOT", libc::EDQUOT),
];

/// A read or write of fewer bytes than requested: no error, but as surprising as one.
const SHORT: (&str, i32) = ("short", 0);

/// Number of EINTRs "from then on". No kernel returns them without end, because each needs a
/// signal.
const MOST_INTERRUPTIONS: usize = 100;

const SCENARIOS: &[Scenario] = &[
    BACKUP,
    Scenario { name: "backup-columns-c", form: Form::Columns, check: true, ..BACKUP },
    Scenario { name: "backup-two", shape: TWO, ..BACKUP },
    Scenario { name: "backup-z-threads", form: Form::Gzip, threads: 4, shape: CHUNKS, ..BACKUP },
    Scenario { name: "replace", old: Old::Unsure, ..BACKUP },
    Scenario { name: "replace-z-two", form: Form::Gzip, shape: TWO, old: Old::Unsure, ..BACKUP },
    Scenario { name: "replace-retired", old: Old::Retired, ..BACKUP },
    Scenario { name: "export-z", verb: Verb::Export, form: Form::Gzip, ..BACKUP },
    Scenario { name: "export-two", verb: Verb::Export, check: true, shape: TWO, ..BACKUP },
    Scenario { name: "restore", verb: Verb::Restore, ..BACKUP },
    Scenario { name: "restore-zc", verb: Verb::Restore, form: Form::Gzip, check: true, ..BACKUP },
    Scenario { name: "restore-two", verb: Verb::Restore, shape: TWO, ..BACKUP },
    Scenario { name: "restore-threads", verb: Verb::Restore, check: true, threads: 4, shape: CHUNKS, ..BACKUP },
    Scenario { name: "verify-c", verb: Verb::Verify, check: true, ..BACKUP },
    Scenario { name: "verify-columns", verb: Verb::Verify, form: Form::Columns, ..BACKUP },
    Scenario { name: "list", verb: Verb::List, ..BACKUP },
];

/// Scenarios that differ from another one in a few calls.
pub const VARIANTS: &[&str] = &["replace-z-two", "replace-retired"];

/// Scenarios that are tried through the command line, too: a run takes a fifth of a second there.
const THROUGH_CLI: &[&str] = &["backup-columns-c", "replace", "export-z", "restore", "verify-c", "list"];

/// The faults of a run.
#[derive(Default)]
struct Fault {
    /// Of each call that failed: its name, the words of which a message must have one, and its
    /// object.
    calls: Vec<(String, &'static [&'static str], Option<String>)>,
    hit_removal: bool,
    /// The error answered the question of the call.
    is_answer: bool,
}

/// Runs the loop.
pub fn run(scratch: &Path, tally: &mut Tally<'_>) {
    let disk = super::disk(scratch, "syscalls", 64);
    for scenario in SCENARIOS.iter().filter(|scenario| tally.options.wants_verb(scenario.verb)) {
        let name = format!("syscalls:{}", scenario.name);
        if tally.wants(&name) {
            let world = World::new(scratch, &disk, *scenario);
            each_call(&name, &world, tally);
        }
    }
    for scenario in SCENARIOS.iter().filter(|scenario| tally.options.wants_verb(scenario.verb)) {
        let name = format!("syscalls:{}-cli", scenario.name);
        if THROUGH_CLI.contains(&scenario.name) && tally.wants(&name) {
            if !crate::main_js().exists() {
                tally.skip(&name, "the command line is not built");
                continue;
            }
            let world = World::new(scratch, &disk, *scenario);
            each_call_through_cli(&name, &world, tally);
        }
    }
}

/// Lets each call fail once, with the errors taking turns, through the command line: checks exit
/// status and standard error.
fn each_call_through_cli(name: &str, world: &World, tally: &mut Tally<'_>) {
    let mut count = tally.begin(name);
    let calls = clean_calls(world, Program::Cli);
    let step = if tally.options.is_short { 37 } else { 1 };
    for (index, point) in calls.iter().enumerate().step_by(step) {
        let (errno_name, errno) = ERRNOS[index % ERRNOS.len()];
        let label = format!("{index}-{}:{errno_name}", point.name);
        if tally.tries(&mut count, &label) {
            world.reset();
            let (outcome, fault) = fail(world, Program::Cli, point, errno, false);
            let mut wrong = world.judge(&outcome, Allowance { removal_failed: fault.hit_removal, ..Allowance::default() });
            wrong.extend(misreported(&outcome, &fault, errno));
            wrong.extend(badly_ended(&outcome));
            tally.tried(&mut count, &label, &outcome.word(), &wrong);
        }
    }
    tally.finish(count);
}

/// Checks exit status and standard error. The statuses of docs/REFERENCE.md are written down here a
/// second time.
fn badly_ended(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    if outcome.is_killed() {
        return wrong;
    }
    let expected = match outcome.problems.first().map(|told| told.kind.as_str()) {
        None => 0,
        Some("failed") => 1,
        Some("no-room") => 6,
        Some(_) => 3,
    };
    if outcome.ended.status != Some(expected) {
        wrong.push(format!("it ended by {:?}, expected status {expected}", outcome.ended));
    }
    for told in &outcome.problems {
        if !outcome.stderr.contains(&told.message) || !outcome.stderr.contains(&format!("HINT: {}", told.hint)) {
            wrong.push(format!("standard error does not say {:?} with its hint: {}", told.message, outcome.stderr));
        }
    }
    wrong
}

fn each_call(name: &str, world: &World, tally: &mut Tally<'_>) {
    let mut count = tally.begin(name);
    let calls = clean_calls(world, Program::Driver);
    let errnos: Vec<&(&str, i32)> = ERRNOS.iter().chain([&SHORT]).collect();
    for (number, (errno_name, errno)) in errnos.iter().enumerate() {
        for (mode, is_on) in [("once", false), ("on", true)] {
            for (index, point) in calls.iter().enumerate() {
                let is_moving = ["read", "write", "pread64", "pwrite64"].contains(&point.name.as_str());
                // With `--short`: every fourth call once, with the errors taking turns. Variants:
                // each call once.
                let turn = 2 * number + usize::from(is_on);
                let is_turn = match (tally.options.is_short, VARIANTS.contains(&world.scenario().name)) {
                    (true, _) => index % 72 == 4 * turn,
                    (false, true) => index % 18 == turn,
                    (false, false) => true,
                };
                if *errno == 0 && !is_moving || !is_turn {
                    continue;
                }
                let label = format!("{index}-{}:{errno_name}:{mode}", point.name);
                if tally.tries(&mut count, &label) {
                    world.reset();
                    let (outcome, fault) = fail(world, Program::Driver, point, *errno, is_on);
                    let mut wrong =
                        world.judge(&outcome, Allowance { removal_failed: fault.hit_removal, ..Allowance::default() });
                    wrong.extend(misreported(&outcome, &fault, *errno));
                    tally.tried(&mut count, &label, &outcome.word(), &wrong);
                }
            }
        }
    }
    tally.finish(count);
}

/// Runs with the fault at this call.
fn fail(world: &World, program: Program, point: &Point, errno: i32, is_on: bool) -> (Outcome, Fault) {
    let (mut fault, mut seen, mut number) = (Fault::default(), 0, None);
    let mut hook = |call: &Call| {
        let is_first = seen == point.before;
        seen += 1;
        if is_first {
            number = Some(call.number);
        }
        let is_again = is_on && number == Some(call.number) && (errno != libc::EINTR || fault.calls.len() < MOST_INTERRUPTIONS);
        if !is_first && !is_again || !call.can_fail() {
            return Action::Go;
        }
        fault.calls.push((call.name(), call.words(), call.object()));
        fault.is_answer |= call.is_answered_by(errno);
        let action = match (errno, call.byte_count()) {
            (0, Some(bytes)) => Action::Shorten(shorter(bytes)),
            (0, None) => Action::Go,
            _ => {
                // A removal is done when it is durable, and the state of a segment or a lock file
                // is read before it is removed: such a call that fails again belongs to the
                // clean-up.
                let is_again = fault.calls.len() > 1;
                let is_of_lock = fault.calls.last().is_some_and(|(_, _, object)| object.as_deref() == Some(MARKS_LOCK_NAME));
                let belongs = is_of_lock || ["fsync", "shmctl"].contains(&call.name().as_str());
                fault.hit_removal |= call.is_removal() || is_again && belongs;
                if call.is_done_anyway() { Action::FailAfter(errno) } else { Action::Fail(errno) }
            }
        };
        // Stopping at each call is what a state costs.
        if is_on { action } else { Action::Last(Box::new(action)) }
    };
    let outcome = world.run(program, point.shown, &mut hook);
    (outcome, fault)
}

/// Returns fewer bytes, in whole sectors if possible.
fn shorter(bytes: u64) -> u64 {
    let half = bytes / 2;
    if half >= 4096 { half - half % 4096 } else { half.max(1) }
}

/// Checks the report of a failed run.
fn misreported(outcome: &Outcome, fault: &Fault, errno: i32) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(first) = outcome.problems.first().filter(|_| !outcome.is_done) else { return wrong };
    let is_refusal = first.kind == "refused" || first.code == "permission-denied";
    if fault.is_answer && is_refusal && !first.hint.is_empty() {
        return wrong;
    }
    let expected = match errno {
        libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE => "no-room",
        _ => "failed",
    };
    if first.kind != expected {
        wrong.push(format!("it failed as '{}', expected '{expected}': {}", first.kind, outcome.text));
    }
    let says = |word: &str| outcome.problems.iter().any(|told| told.message.contains(word));
    let is_named = |(_, words, object): &(String, &[&str], Option<String>)| {
        words.iter().any(|word| says(word)) && object.as_ref().is_none_or(|object| says(object))
    };
    if !fault.calls.iter().any(is_named) {
        let mut calls: Vec<String> = fault.calls.iter().map(|(name, _, object)| format!("{name} {object:?}")).collect();
        calls.dedup();
        wrong.push(format!("the message names none of {calls:?}: {}", outcome.text));
    }
    if first.hint.is_empty() {
        wrong.push("there is no hint".to_owned());
    }
    wrong
}
