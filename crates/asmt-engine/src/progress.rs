//! The progress of an operation, its events, and the request to stop: the state that its caller may
//! share.
//!
//! Promise: cheap to read at any time from any thread. Must never: block the work, or hold events
//! without bound.

use crate::error::{Error, NoteCode, Remark, Result};
use crate::sync::Mutex;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// Most events that are kept for a caller who does not fetch them; older ones are dropped first.
const MAX_EVENTS: usize = 10_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Phase {
    /// Looking at what is there.
    Plan,
    /// Waiting until the server has gone.
    Wait,
    /// Reading files to see how much memory they will fill.
    Count,
    /// Reserving space.
    Reserve,
    /// Copying.
    Copy,
    /// Reading back and comparing.
    Check,
    /// Giving files their names, or segments their owners: can no longer be stopped.
    Publish,
    /// Reading a backup at rest.
    Verify,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Event {
    /// Stable code.
    pub code: NoteCode,
    /// What happened.
    pub message: String,
    /// A remark of the plan: it is for everybody who runs asmt, and not only with `-v`.
    pub is_remark: bool,
}

/// State of an operation at one moment.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Snapshot {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of segments done in this phase.
    pub done_bytes: u64,
    /// Bytes of segments in this phase; 0 while it is not known.
    pub total_bytes: u64,
    /// Time since the phase began.
    pub elapsed_ms: u64,
    /// Which of the passes over the data this is, from 1; 0 where it is none of them.
    pub pass: u32,
    /// How many passes over the data there are; 0 while it is not known.
    pub passes: u32,
    /// Bytes of the passes before this one.
    pub earlier_bytes: u64,
    /// Bytes of the passes after this one.
    pub later_bytes: u64,
    /// What happened since the last snapshot.
    pub events: Vec<Event>,
}

struct PhaseState {
    phase: Phase,
    since: Instant,
    total_bytes: u64,
    /// Passes over the data, each with its bytes.
    passes: Vec<(Phase, u64)>,
    /// How many passes were begun.
    begun: usize,
    events: Vec<Event>,
}

/// The operation has changed nothing yet, and may still be abandoned.
const LOOKING: u8 = 0;
/// The operation has begun to change something: the caller must wait for its end.
const CHANGING: u8 = 1;
/// The caller does not wait for the operation any more: it must not change anything.
const ABANDONED: u8 = 2;

/// The state that an operation shares with the caller who watches or stops it.
pub struct Control {
    stop: AtomicBool,
    /// [`LOOKING`] at first. The first call of [`Control::begin_changes`] or [`Control::abandon`]
    /// decides for good.
    changes: AtomicU8,
    done_bytes: AtomicU64,
    /// Grows while anything at all goes on.
    steps: AtomicU64,
    state: Mutex<PhaseState>,
}

impl Default for Control {
    fn default() -> Self {
        let state = PhaseState {
            phase: Phase::Plan,
            since: Instant::now(),
            total_bytes: 0,
            passes: Vec::new(),
            begun: 0,
            events: Vec::new(),
        };
        Self {
            stop: AtomicBool::new(false),
            changes: AtomicU8::new(LOOKING),
            done_bytes: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }
}

impl Control {
    /// Asks the operation to stop and clean up. After the commit has begun, it completes instead.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails if a stop was asked for.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Must be called before any change that outlives this process: of a directory, a file, a mark,
    /// a segment, a leftover. Locks do not count. It may be called again. It does not fail because
    /// of a stop: a restore that was stopped still notes in the directory that it was begun.
    ///
    /// Errors: `interrupted` if the operation was abandoned.
    pub fn begin_changes(&self) -> Result<()> {
        match self.changes.compare_exchange(LOOKING, CHANGING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(CHANGING) => Ok(()),
            Err(_) => Err(Error::interrupted()),
        }
    }

    /// Gives up the operation if a system call does not return. Returns true if the operation has
    /// changed nothing: then it never will, and the process may end. Returns false if it has begun
    /// to change something.
    pub fn abandon(&self) -> bool {
        self.stop();
        match self.changes.compare_exchange(LOOKING, ABANDONED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(ABANDONED) => true,
            Err(_) => false,
        }
    }

    /// Says which passes over the data are to come, each with its bytes. Those that are known
    /// already stay.
    pub fn expect_passes(&self, passes: &[(Phase, u64)]) {
        let mut state = self.state.lock();
        if state.passes.is_empty() {
            state.passes = passes.to_vec();
        }
    }

    /// Begins a phase of this many bytes.
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        let mut state = self.state.lock();
        self.done_bytes.store(0, Ordering::Relaxed);
        self.step();
        state.phase = phase;
        state.since = Instant::now();
        state.total_bytes = total_bytes;
        let begun = state.begun;
        if let Some(ahead) = state.passes.iter().skip(begun).position(|(pass, _)| *pass == phase) {
            state.begun = begun + ahead + 1;
        }
    }

    /// Counts bytes as done.
    pub fn add_done(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.step();
    }

    /// Says that something goes on, where no bytes are counted.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that stays the same only while nothing goes on.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Notes an event.
    pub fn note(&self, code: NoteCode, message: impl Into<String>) {
        self.push(Event { code, message: message.into(), is_remark: false });
    }

    /// Notes remarks of a plan that is about to be executed: they must be seen before that, and not
    /// only in the report.
    pub fn remark(&self, remarks: &[Remark]) {
        for Remark { code, message } in remarks {
            self.push(Event { code: *code, message: message.clone(), is_remark: true });
        }
    }

    fn push(&self, event: Event) {
        self.step();
        let mut state = self.state.lock();
        if state.events.len() >= MAX_EVENTS {
            state.events.drain(..MAX_EVENTS / 2);
        }
        state.events.push(event);
    }

    /// Returns the current state, and hands over the events.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state.lock();
        let events = std::mem::take(&mut state.events);
        self.state_of(&state, events)
    }

    /// Returns the current state without the events, which stay for [`Control::snapshot`].
    pub fn look(&self) -> Snapshot {
        self.state_of(&self.state.lock(), Vec::new())
    }

    fn state_of(&self, state: &PhaseState, events: Vec<Event>) -> Snapshot {
        let is_pass = state.begun > 0 && state.passes[state.begun - 1].0 == state.phase;
        let sum = |passes: &[(Phase, u64)]| passes.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        let (earlier, later) = state.passes.split_at(state.begun);
        let earlier = if is_pass { &earlier[..state.begun - 1] } else { earlier };
        Snapshot {
            phase: state.phase,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: state.total_bytes,
            elapsed_ms: u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            pass: if is_pass { u32::try_from(state.begun).unwrap_or(u32::MAX) } else { 0 },
            passes: u32::try_from(state.passes.len()).unwrap_or(u32::MAX),
            earlier_bytes: sum(earlier),
            later_bytes: sum(later),
            events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn what_is_abandoned_never_begins_to_change_anything() {
        let control = Control::default();
        assert!(control.abandon() && control.abandon());
        assert_eq!(control.begin_changes().expect_err("abandoned").first().code, Code::Interrupted);
    }

    #[test]
    fn passes_are_counted_and_those_that_do_not_come_are_passed_over() {
        let control = Control::default();
        control.expect_passes(&[(Phase::Count, 10), (Phase::Copy, 10), (Phase::Check, 10)]);
        control.expect_passes(&[(Phase::Copy, 99)]);
        let numbers = || {
            let seen = control.look();
            (seen.pass, seen.passes, seen.earlier_bytes, seen.later_bytes)
        };
        assert_eq!(numbers(), (0, 3, 0, 30));
        control.begin(Phase::Count, 10);
        assert_eq!(numbers(), (1, 3, 0, 20));
        control.begin(Phase::Reserve, 7);
        assert_eq!(numbers(), (0, 3, 10, 20));
        control.begin(Phase::Check, 10);
        assert_eq!(numbers(), (3, 3, 20, 0));
        control.begin(Phase::Publish, 0);
        assert_eq!(numbers(), (0, 3, 30, 0));
    }

    #[test]
    fn a_look_leaves_the_events_and_each_thing_that_goes_on_is_a_step() {
        let control = Control::default();
        control.note(NoteCode::Swept, "swept");
        assert!(control.look().events.is_empty());
        assert_eq!(control.snapshot().events.len(), 1);
        let before = control.steps();
        assert_eq!(control.steps(), before);
        control.add_done(0);
        control.begin(Phase::Copy, 1);
        assert_eq!(control.steps(), before + 2);
    }

    #[test]
    fn what_has_begun_to_change_something_is_not_abandoned() {
        let control = Control::default();
        control.begin_changes().expect("nobody has stopped it");
        control.begin_changes().expect("it has begun already");
        assert!(!control.abandon());
        control.begin_changes().expect("it goes on to its end");
        assert_eq!(control.check_stop().expect_err("stopped").first().code, Code::Interrupted);
    }

    #[test]
    fn of_a_change_and_an_abandoning_at_once_one_wins() {
        for _ in 0..2000 {
            let control = Control::default();
            let (has_begun, is_abandoned) = std::thread::scope(|scope| {
                let begins = scope.spawn(|| control.begin_changes().is_ok());
                (control.abandon(), begins.join().expect("no panic"))
            });
            assert!(has_begun != is_abandoned);
        }
    }
}
