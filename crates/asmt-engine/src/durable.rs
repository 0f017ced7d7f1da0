//! Making things durable: the one place that calls fsync.
//!
//! Promise: when a call returns without an error, what it names is on stable storage, as far as kernel and device keep
//! their word. Must never: retry. An error is final: the kernel may have dropped what it could not write, and a second
//! call would report success for it.
//!
//! With the feature `fault-switches` a test may take one of these calls out, to see that its loop notices: see
//! [`switch`]. No release has it.

use rustix::fs;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Makes a file's contents, size and owner durable. `what` says which file it is.
pub fn file(file: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(what) { Ok(()) } else { fs::fsync(file) }
}

/// Makes the entries of a directory durable. `what` says which ones are meant.
pub fn directory(directory: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(what) { Ok(()) } else { fs::fsync(directory) }
}

/// Has contents written, so that the page cache may let go of them. What it does not do, a later [`file`] does.
pub fn contents(file: impl AsFd) -> Result<(), Errno> {
    fs::fdatasync(file)
}

#[cfg(not(feature = "fault-switches"))]
fn is_taken_out(_what: &str) -> bool {
    false
}

#[cfg(feature = "fault-switches")]
use switch::is_taken_out;

/// Takes one call out, for tests of tests.
#[cfg(feature = "fault-switches")]
pub mod switch {
    use std::sync::{Mutex, PoisonError};

    /// What tells a build with this switch from one without: a release must not hold these bytes.
    pub const MARKER: &str = "asmt-fault-switches: built for tests, an fsync can be taken out";

    struct State {
        calls: Vec<String>,
        taken_out: Option<usize>,
    }

    static STATE: Mutex<State> = Mutex::new(State { calls: Vec::new(), taken_out: None });

    /// Begins to count again, and takes the call of this number (from 0) out; `None` takes out none.
    pub fn take_out(number: Option<usize>) {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State { calls: Vec::new(), taken_out: number };
    }

    /// What each call since then was for.
    pub fn calls() -> Vec<String> {
        STATE.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }

    pub(super) fn is_taken_out(what: &str) -> bool {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push(what.to_owned());
        state.taken_out == Some(state.calls.len() - 1)
    }
}
