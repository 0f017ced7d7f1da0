//! Making things durable: the one place that calls fsync.
//!
//! Promise: when a call returns without an error, what it names is on stable storage, as far as
//! kernel and device keep their word. Must never: retry. An error is final: the kernel may have
//! dropped what it could not write, and a second call would report success for it.
//!
//! With the feature `fault-switches` a test may take one of these calls out, to see that its loop
//! notices: see [`switch`]. No release has it.

use rustix::fs;
use rustix::io::Errno;
use std::os::fd::AsFd;
#[cfg(not(feature = "fault-switches"))]
use std::os::fd::BorrowedFd;

/// Makes a file's contents, size and owner durable. `what` says which file it is.
pub fn file(file: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(file.as_fd(), what) { Ok(()) } else { fs::fsync(file) }
}

/// Makes the entries of a directory durable. `what` says which ones are meant.
pub fn directory(directory: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(directory.as_fd(), what) { Ok(()) } else { fs::fsync(directory) }
}

/// Asks a file that is durable already whether its file system still lives. xfs, once it has shut
/// itself down, calls an fsync of a directory done that is not (seen on Linux 6.18); an fsync of a
/// file fails there.
pub fn ask(file: impl AsFd) -> Result<(), Errno> {
    fs::fsync(file)
}

/// Has contents written, so that the page cache may let go of them. What it does not do, a later
/// [`file()`] does.
pub fn contents(file: impl AsFd) -> Result<(), Errno> {
    fs::fdatasync(file)
}

#[cfg(not(feature = "fault-switches"))]
fn is_taken_out(_file: BorrowedFd<'_>, _what: &str) -> bool {
    false
}

/// Whether a test stands for a file system that has no direct I/O.
#[cfg(not(feature = "fault-switches"))]
pub fn is_direct_io_off() -> bool {
    false
}

#[cfg(feature = "fault-switches")]
pub use switch::is_direct_io_off;
#[cfg(feature = "fault-switches")]
use switch::is_taken_out;

/// Takes one call out, and lets a test watch all of them.
#[cfg(feature = "fault-switches")]
pub mod switch {
    use rustix::fs::{FileType, fstat};
    use std::os::fd::BorrowedFd;
    use std::sync::{Mutex, PoisonError};

    /// What tells a build with this switch from one without: a release must not hold these bytes.
    pub const MARKER: &str = "asmt-fault-switches: built for tests, an fsync can be taken out";

    /// A call that is about to be made.
    #[derive(Clone, Debug)]
    pub struct Call {
        /// What it is for.
        pub what: String,
        /// Inode that it makes durable.
        pub inode: u64,
        /// Whether that is a directory.
        pub is_directory: bool,
        /// Whether it is taken out.
        pub is_taken_out: bool,
    }

    /// Is told of a call before it is made.
    pub type Watcher = Box<dyn FnMut(&Call) + Send>;

    struct State {
        taken_out: Option<usize>,
        is_direct_io_off: bool,
        calls: usize,
        watcher: Option<Watcher>,
    }

    static STATE: Mutex<State> = Mutex::new(State { taken_out: None, is_direct_io_off: false, calls: 0, watcher: None });

    /// From here on: takes the call of this number (from 0) out, and does as if no file system had
    /// direct I/O.
    pub fn set(taken_out: Option<usize>, is_direct_io_off: bool, watcher: Option<Watcher>) {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State { taken_out, is_direct_io_off, calls: 0, watcher };
    }

    /// Whether a test stands for a file system that has no direct I/O.
    pub fn is_direct_io_off() -> bool {
        STATE.lock().unwrap_or_else(PoisonError::into_inner).is_direct_io_off
    }

    pub(super) fn is_taken_out(file: BorrowedFd<'_>, what: &str) -> bool {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken_out = state.taken_out == Some(state.calls);
        state.calls += 1;
        if let (Some(watcher), Ok(stat)) = (&mut state.watcher, fstat(file)) {
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            watcher(&Call { what: what.to_owned(), inode: stat.st_ino, is_directory, is_taken_out });
        }
        is_taken_out
    }
}
