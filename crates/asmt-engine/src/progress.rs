//! How far an operation has come, what happened on the way, and the request to stop: what its
//! caller may share.
//!
//! Promise: cheap to read at any time from any thread. Must never: block the work, or hold events
//! without bound.

use crate::error::{Error, NoteCode, Remark, Result};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most events kept for a caller who does not fetch them; older ones are dropped first.
const MAX_EVENTS: usize = 10_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Phase {
    /// Looking at what is there.
    Plan,
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
    /// What happened since the last snapshot.
    pub events: Vec<Event>,
}

struct PhaseState {
    phase: Phase,
    since: Instant,
    total_bytes: u64,
    events: Vec<Event>,
}

/// The operation has changed nothing yet, and may still be abandoned.
const LOOKING: u8 = 0;
/// The operation has begun to change something: whoever waits for it waits for its end.
const CHANGING: u8 = 1;
/// Nobody waits for the operation any more: it must not change anything.
const ABANDONED: u8 = 2;

/// Shared between an operation and whoever watches or stops it.
pub struct Control {
    stop: AtomicBool,
    /// [`LOOKING`] at first; the first of [`Control::begin_changes`] and [`Control::abandon`]
    /// decides for good.
    changes: AtomicU8,
    done_bytes: AtomicU64,
    state: Mutex<PhaseState>,
}

impl Default for Control {
    fn default() -> Self {
        let state = PhaseState { phase: Phase::Plan, since: Instant::now(), total_bytes: 0, events: Vec::new() };
        Self {
            stop: AtomicBool::new(false),
            changes: AtomicU8::new(LOOKING),
            done_bytes: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }
}

impl Control {
    /// Asks the operation to stop and clean up. Before its commit it will; after that it completes.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails if a stop was asked for.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Must be called before anything is changed that outlives this process: a directory, a file, a
    /// mark, a segment, a leftover. Locks do not count. May be called again. A stop alone does not
    /// make it fail: a restore that was stopped still notes in the directory that it was begun.
    ///
    /// Errors: `interrupted` if the operation was abandoned.
    pub fn begin_changes(&self) -> Result<()> {
        match self.changes.compare_exchange(LOOKING, CHANGING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(CHANGING) => Ok(()),
            Err(_) => Err(Error::interrupted()),
        }
    }

    /// Gives the operation up, where a system call does not come back: returns true if it has
    /// changed nothing, and from then on it never will, so that the process may end. Returns false
    /// if it has begun to change something.
    pub fn abandon(&self) -> bool {
        self.stop();
        match self.changes.compare_exchange(LOOKING, ABANDONED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(ABANDONED) => true,
            Err(_) => false,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PhaseState> {
        // The state is plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase of this many bytes.
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        let mut state = self.state();
        self.done_bytes.store(0, Ordering::Relaxed);
        state.phase = phase;
        state.since = Instant::now();
        state.total_bytes = total_bytes;
    }

    /// Counts bytes as done.
    pub fn add_done(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes something that happened.
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
        let mut state = self.state();
        if state.events.len() >= MAX_EVENTS {
            state.events.drain(..MAX_EVENTS / 2);
        }
        state.events.push(event);
    }

    /// The state now; hands over the events.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        Snapshot {
            phase: state.phase,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: state.total_bytes,
            elapsed_ms: u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            events: std::mem::take(&mut state.events),
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
