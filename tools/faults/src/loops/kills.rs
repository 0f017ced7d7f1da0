//! Kill loop: SIGKILL at each system call of the engine; and SIGINT, SIGTERM, SIGHUP and SIGPIPE at
//! each, after which it cleans up.
//!
//! After a kill, there is everything or nothing that a reader or a start would accept, and the next
//! run succeeds without manual cleanup. The other signals go through the command line, because Node
//! handles them: the signal is answered, and the run either ends with its exit status and leaves
//! nothing, or completes because it had begun to commit. SIGPIPE, and a reader that goes away,
//! neither stop nor undo a run.
//!
//! Runs are also killed twice: while they clean up after a failure, or while they sweep the
//! leftovers of an earlier kill. And a call of a run that sweeps fails.

use super::Point;
use super::syscalls::VARIANTS;
use crate::calls::Call;
use crate::judge::Allowance;
use crate::tally::{Count, Tally};
use crate::tracer::{Action, Shown};
use crate::world::{BACKUP, CHUNKS, Old, Outcome, Program, Scenario, TWO, World};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use std::path::Path;

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
    Scenario { name: "restore-c", verb: Verb::Restore, check: true, ..BACKUP },
    Scenario { name: "restore-two", verb: Verb::Restore, form: Form::Gzip, shape: TWO, ..BACKUP },
    Scenario { name: "restore-threads", verb: Verb::Restore, check: true, threads: 4, shape: CHUNKS, ..BACKUP },
    Scenario { name: "verify", verb: Verb::Verify, ..BACKUP },
];

/// Signals that Node handles, and the exit status of a run that they stop; `None` for one that
/// stops nothing.
const SIGNALS: &[(&str, i32, Option<i32>)] = &[
    ("INT", libc::SIGINT, Some(130)),
    ("TERM", libc::SIGTERM, Some(143)),
    ("HUP", libc::SIGHUP, Some(129)),
    ("PIPE", libc::SIGPIPE, None),
];

/// Runs the loop.
pub fn run(scratch: &Path, tally: &mut Tally<'_>) {
    let disk = super::disk(scratch, "kills", 64);
    for scenario in SCENARIOS.iter().filter(|scenario| tally.options.wants_verb(scenario.verb)) {
        let names = ["KILL", "twice", "signals"].map(|what| format!("kills:{}-{what}", scenario.name));
        if !names.iter().any(|name| tally.wants(name)) {
            continue;
        }
        let world = World::new(scratch, &disk, *scenario);
        let calls = super::clean_calls(&world, Program::Driver);
        if tally.wants(&names[0]) {
            kill_at_each(&names[0], &world, &calls, tally);
        }
        if scenario.verb != Verb::Verify && scenario.threads == 1 && tally.wants(&names[1]) {
            kill_twice(&names[1], &world, &calls, tally);
        }
        if !scenario.name.ends_with("two") && scenario.threads == 1 && tally.wants(&names[2]) {
            signal_at_each(&names[2], &world, tally);
        }
    }
}

fn kill_at_each(name: &str, world: &World, calls: &[Point], tally: &mut Tally<'_>) {
    let mut count = tally.begin(name);
    for (index, point) in calls.iter().enumerate() {
        let label = format!("{index}-{}", point.name);
        // With `--short`: calls that change something, and a few of those that change nothing,
        // which are all that verify has.
        let is_turn = !tally.options.is_short || is_changing(&point.name) || index % 40 == 0;
        if !is_turn || !tally.tries(&mut count, &label) {
            continue;
        }
        world.reset();
        let (outcome, _) = kill_at(world, point);
        let wrong = world.judge(&outcome, Allowance::default());
        tally.tried(&mut count, &label, &outcome.word(), &wrong);
    }
    tally.finish(count);
}

/// Runs until this call, and kills the run there. Returns true with the outcome if it reached that
/// call.
fn kill_at(world: &World, point: &Point) -> (Outcome, bool) {
    let mut seen = 0;
    let outcome = world.run(Program::Driver, point.shown, &mut |_| {
        seen += 1;
        if seen == point.before + 1 { Action::Signal(libc::SIGKILL) } else { Action::Go }
    });
    (outcome, seen > point.before)
}

/// Runs with EIO at this call. Returns true with the outcome if the run reached that call.
fn fail_at(world: &World, point: &Point) -> (Outcome, bool) {
    let mut seen = 0;
    let outcome = world.run(Program::Driver, point.shown, &mut |call: &Call| {
        seen += 1;
        if seen <= point.before {
            return Action::Go;
        }
        Action::Last(Box::new(if call.can_fail() { Action::Fail(libc::EIO) } else { Action::Go }))
    });
    (outcome, seen > point.before)
}

/// Tries three kinds of runs: one that fails with EIO at one call, and is killed at each call after
/// it; one that is killed, where the next run, which has to sweep, is killed at each call; and the
/// same with EIO at each call of the next run.
fn kill_twice(name: &str, world: &World, calls: &[Point], tally: &mut Tally<'_>) {
    let mut count = tally.begin(name);
    let chosen: Vec<usize> = (0..calls.len()).filter(|index| is_changing(&calls[*index].name)).collect();
    let (calls_a_step, later_a_step) = match (tally.options.is_short, VARIANTS.contains(&world.scenario().name)) {
        (true, _) => (29, 23),
        (false, true) => (19, 17),
        (false, false) => (11, 7),
    };
    for index in chosen.iter().copied().step_by(calls_a_step) {
        for first in ["fails", "killed", "killed-fails"] {
            for second in (0..).step_by(later_a_step) {
                let label = format!("{index}-{}-{first}:{second}", calls[index].name);
                if !tally.tries(&mut count, &label) {
                    if second > calls.len() {
                        break;
                    }
                    continue;
                }
                world.reset();
                let mut allowance = Allowance::default();
                let (outcome, is_reached) = if first == "fails" {
                    let (outcome, is_reached, removal_failed) = fail_and_kill(world, index, second);
                    allowance.removal_failed = removal_failed;
                    (outcome, is_reached)
                } else {
                    kill_at(world, &calls[index]);
                    allowance = Allowance {
                        has_backup: world.has_whole_backup(),
                        follows_kill: true,
                        removal_failed: first == "killed-fails",
                        ..allowance
                    };
                    world.enter();
                    let second = Point::nth(second);
                    if first == "killed" { kill_at(world, &second) } else { fail_at(world, &second) }
                };
                let wrong = world.judge(&outcome, allowance);
                tally.tried(&mut count, &label, &outcome.word(), &wrong);
                if !is_reached {
                    break;
                }
            }
        }
    }
    tally.finish(count);
}

/// Returns true for calls that begin another state on disk or in the IPC namespace. A kill at any
/// other call is the same as one at the next of these.
fn is_changing(name: &str) -> bool {
    const CHANGING: &[&str] = &[
        "mkdir",
        "mkdirat",
        "fallocate",
        "ftruncate",
        "fchown",
        "write",
        "pwrite64",
        "fsync",
        "renameat",
        "renameat2",
        "unlink",
        "unlinkat",
        "shmget",
        "shmdt",
    ];
    CHANGING.contains(&name)
}

/// The call with this index fails, and `later` calls after it the run is killed. Returns, with the
/// outcome, whether it came to that, and whether the call was to remove something.
fn fail_and_kill(world: &World, index: usize, later: usize) -> (Outcome, bool, bool) {
    let (mut at, mut removal_failed) = (0_usize, false);
    let outcome = world.run(Program::Driver, Shown::All, &mut |call: &Call| {
        at += 1;
        match at.checked_sub(index + 1) {
            Some(0) if call.can_fail() => {
                removal_failed = call.is_removal();
                Action::Fail(libc::EIO)
            }
            Some(passed) if passed == later + 1 => Action::Signal(libc::SIGKILL),
            _ => Action::Go,
        }
    });
    (outcome, at > index + later + 1, removal_failed)
}

fn signal_at_each(name: &str, world: &World, tally: &mut Tally<'_>) {
    let mut count = tally.begin(name);
    if !crate::main_js().exists() {
        tally.skip(name, "the command line is not built");
        return;
    }
    let calls = super::clean_calls(world, Program::Cli);
    for (number, (signal_name, signal, status)) in SIGNALS.iter().enumerate() {
        for (index, point) in calls.iter().enumerate() {
            // The signals take turns: each call gets one of them.
            let is_turn = index % 4 == number && (!tally.options.is_short || index % 60 < 4);
            let label = format!("{index}-{}:{signal_name}", point.name);
            if !is_turn || !tally.tries(&mut count, &label) {
                continue;
            }
            world.reset();
            let (outcome, made) = signal_at(world, index, *signal, status.is_some());
            let mut wrong = world.judge(&outcome, Allowance::default());
            if made > index {
                wrong.extend(misanswered(&outcome, signal_name, *status, made == index + 1));
            } else if !outcome.is_done {
                wrong.push(format!("without a signal, it ended by {:?}: {}", outcome.ended, outcome.text));
            }
            tally.tried(&mut count, &label, &outcome.word(), &wrong);
        }
    }
    if !tally.options.is_short {
        reader_goes_away(world, tally, &mut count);
    }
    tally.finish(count);
}

/// Sends a signal at the call with this index. If the signal is answered, the run goes on after the
/// answer. Returns the number of calls with the outcome: a run may make a few fewer than the one
/// before, as it finds pages in a cache or not.
fn signal_at(world: &World, index: usize, signal: i32, is_answered: bool) -> (Outcome, usize) {
    let (mut at, stderr) = (0, world.stderr_path());
    let outcome = world.run(Program::Cli, Shown::All, &mut |_| {
        at += 1;
        if at != index + 1 {
            return Action::Go;
        }
        if !is_answered {
            return Action::Signal(signal);
        }
        let stderr = stderr.clone();
        Action::SignalAndHold(
            signal,
            Box::new(move || std::fs::read_to_string(&stderr).is_ok_and(|text| text.contains("stopping and cleaning up\n"))),
        )
    });
    (outcome, at)
}

/// Checks the answer to a signal. At the engine's last call, which its thread makes when all is
/// done, there may be nothing left to stop.
fn misanswered(outcome: &Outcome, signal: &str, stopped: Option<i32>, is_last_call: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = if outcome.is_done { Some(0) } else { stopped };
    // When Node ends, it resets its signal handlers.
    let may_be_over = is_last_call && outcome.is_done;
    let is_ended_by_it = may_be_over && outcome.is_killed();
    if (outcome.ended.status != expected || expected.is_none()) && !is_ended_by_it {
        wrong.push(format!("SIG{signal}: it ended by {:?}, expected {expected:?}: {}", outcome.ended, outcome.text));
    }
    if stopped.is_some() && !may_be_over && !outcome.text.contains(&format!("asmt: SIG{signal}: stopping and cleaning up")) {
        wrong.push(format!("SIG{signal} was not answered: {}", outcome.text));
    }
    if !outcome.is_done && !outcome.problems.iter().all(|told| told.kind == "interrupted") {
        wrong.push(format!("it does not say that it was interrupted: {}", outcome.text));
    }
    wrong
}

/// Runs with no reader: both streams are pipes whose other end is closed.
fn reader_goes_away(world: &World, tally: &Tally<'_>, count: &mut Count) {
    if !tally.tries(count, "reader") {
        return;
    }
    world.reset();
    let mut command = world.command(Program::Cli);
    command.arg("-v").stdin(std::process::Stdio::null());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("to start");
    drop((child.stdout.take(), child.stderr.take()));
    let status = child.wait().expect("its end");
    let ended = crate::tracer::Ended { status: status.code(), signal: None, is_endless: false };
    let outcome = Outcome { is_done: status.success(), ended, problems: Vec::new(), text: String::new(), stderr: String::new() };
    let mut wrong = world.judge(&outcome, Allowance::default());
    if !status.success() {
        wrong.push(format!("with no reader it ended by {status}"));
    }
    tally.tried(count, "reader", &outcome.word(), &wrong);
}
