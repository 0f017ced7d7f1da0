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

    /// Begins a phase of this many bytes.
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        let mut state = self.state.lock();
        self.done_bytes.store(0, Ordering::Relaxed);
        state.phase = phase;
        state.since = Instant::now();
        state.total_bytes = total_bytes;
    }

    /// Counts bytes as done.
    pub fn add_done(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
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
        let mut state = self.state.lock();
        if state.events.len() >= MAX_EVENTS {
            state.events.drain(..MAX_EVENTS / 2);
        }
        state.events.push(event);
    }

    /// Returns the current state, and hands over the events.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state.lock();
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
