//! Making things durable: the one place that calls fsync.
//!
//! Promise: when a call returns without an error, its object is on stable storage, as far as kernel
//! and device keep their word. Must never: retry. An error is final: the kernel may have dropped
//! what it could not write, and a second call would report success for it.
//!
//! With the feature `fault-switches` a test may take one of these calls out, to see that its loop
//! notices: see `switch`. No release has it.

use rustix::fs;
use rustix::io::Errno;
use std::os::fd::AsFd;
#[cfg(not(feature = "fault-switches"))]
use std::os::fd::BorrowedFd;

/// Makes a file's contents, size and owner durable. `what` is the file's name, for tests.
pub fn file(file: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(file.as_fd(), what) { Ok(()) } else { fs::fsync(file) }
}

/// Makes the entries of a directory durable. `what` tells which ones are meant, for tests.
pub fn directory(directory: impl AsFd, what: &str) -> Result<(), Errno> {
    if is_taken_out(directory.as_fd(), what) { Ok(()) } else { fs::fsync(directory) }
}

/// Checks by a file that is durable already whether its file system still works. After xfs has shut
/// itself down, an fsync of a directory reports success without an effect (seen on Linux 6.18), but
/// an fsync of a file fails.
pub fn ask(file: impl AsFd) -> Result<(), Errno> {
    fs::fsync(file)
}

/// Writes contents out, so that the page cache can drop them. A later [`file()`] does the rest.
pub fn contents(file: impl AsFd) -> Result<(), Errno> {
    fs::fdatasync(file)
}

#[cfg(not(feature = "fault-switches"))]
fn is_taken_out(_file: BorrowedFd<'_>, _what: &str) -> bool {
    false
}

/// Returns true if a test simulates a file system without direct I/O.
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
    use crate::sync::Mutex;
    use rustix::fs::{FileType, fstat};
    use std::os::fd::BorrowedFd;

    /// The mark of a build with this switch: a release must not have these bytes.
    pub const MARKER: &str = "asmt-fault-switches: built for tests, an fsync can be taken out";

    /// A call that is about to be made.
    #[derive(Clone, Debug)]
    pub struct Call {
        /// Its purpose.
        pub what: String,
        /// Inode of the file or directory that it makes durable.
        pub inode: u64,
        /// The inode is that of a directory.
        pub is_directory: bool,
        /// The call is taken out.
        pub is_taken_out: bool,
    }

    /// A function that gets each call before it is made.
    pub type Watcher = Box<dyn FnMut(&Call) + Send>;

    struct State {
        taken_out: Option<usize>,
        direct_io: DirectIo,
        calls: usize,
        watcher: Option<Watcher>,
    }

    static STATE: Mutex<State> = Mutex::new(State { taken_out: None, direct_io: DirectIo::AsIs, calls: 0, watcher: None });

    /// Direct I/O in a test.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum DirectIo {
        /// As the file system has it.
        AsIs,
        /// As on a file system that has none.
        Off,
    }

    /// From here on: takes out the call of this number (from 0), and shows every call to the
    /// watcher.
    pub fn set(taken_out: Option<usize>, direct_io: DirectIo, watcher: Option<Watcher>) {
        *STATE.lock() = State { taken_out, direct_io, calls: 0, watcher };
    }

    /// Returns true if a test simulates a file system without direct I/O.
    pub fn is_direct_io_off() -> bool {
        STATE.lock().direct_io == DirectIo::Off
    }

    pub(super) fn is_taken_out(file: BorrowedFd<'_>, what: &str) -> bool {
        let mut state = STATE.lock();
        let is_taken_out = state.taken_out == Some(state.calls);
        state.calls += 1;
        if let (Some(watcher), Ok(stat)) = (&mut state.watcher, fstat(file)) {
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            watcher(&Call { what: what.to_owned(), inode: stat.st_ino, is_directory, is_taken_out });
        }
        is_taken_out
    }
}
