//! Namespaces that belong to this process alone: shared memory, mounts and a host name that no
//! other process sees, and that go with the last process in them.
//!
//! Must never: move a thread to another IPC namespace while it has segments attached. (The callers
//! take care of that.)

use crate::mounts;
use crate::sys;
use std::fs::File;
use std::io;

/// Moves this thread, and the threads and processes that it starts, to a new IPC namespace.
///
/// Errors: the process is not root, not even of a user namespace.
pub fn unshare_ipc() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWIPC)
}

/// Moves this thread, and the threads and processes that it starts, to a new UTS namespace.
pub fn unshare_host_name() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWUTS)
}

/// Moves this thread, and the threads and processes that it starts, to a new mount namespace, whose
/// mounts are not passed on to others.
pub fn unshare_mounts() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    mounts::make_private()
}

/// Moves this thread to a new IPC namespace, and returns a file by which [`enter_ipc`] returns to
/// it.
pub fn new_ipc() -> io::Result<File> {
    unshare_ipc()?;
    File::open("/proc/thread-self/ns/ipc")
}

/// Moves this thread, and the threads and processes that it starts, to the IPC namespace of an open
/// `/proc/…/ns/ipc`.
pub fn enter_ipc(namespace: &File) -> io::Result<()> {
    sys::enter(namespace, libc::CLONE_NEWIPC)
}

/// Does some work on a thread with an empty IPC namespace, which is gone afterwards. If the thread
/// panics, so does the caller.
///
/// Errors: those of [`unshare_ipc`].
pub fn on_own_ipc<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let outcome = std::thread::scope(|scope| scope.spawn(|| unshare_ipc().map(|()| work())).join());
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
