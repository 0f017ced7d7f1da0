//! How far an operation has come, what happened on the way, and the request to stop: what its caller may share.
//!
//! Promise: cheap to read at any time from any thread. Must never: block the work, or hold events without bound.

use crate::error::{Error, Result};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most events kept for a caller who does not fetch them; older ones are dropped first.
const MAX_EVENTS: usize = 10_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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
pub struct Event {
    /// Stable code.
    pub code: &'static str,
    /// What happened.
    pub message: String,
}

/// State of an operation at one moment.
#[derive(Clone, Debug, Serialize)]
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

/// Shared between an operation and whoever watches or stops it.
pub struct Control {
    stop: AtomicBool,
    done_bytes: AtomicU64,
    state: Mutex<PhaseState>,
}

impl Default for Control {
    fn default() -> Self {
        let state = PhaseState { phase: Phase::Plan, since: Instant::now(), total_bytes: 0, events: Vec::new() };
        Self { stop: AtomicBool::new(false), done_bytes: AtomicU64::new(0), state: Mutex::new(state) }
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
    pub fn note(&self, code: &'static str, message: impl Into<String>) {
        let mut state = self.state();
        if state.events.len() >= MAX_EVENTS {
            state.events.drain(..MAX_EVENTS / 2);
        }
        state.events.push(Event { code, message: message.into() });
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
