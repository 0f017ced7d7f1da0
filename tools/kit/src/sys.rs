//! Calls of the kernel and of the runtime that need `unsafe`: namespaces, loop devices, the
//! environment. With `sys.rs` of the fault loops, the fence of the tools' `unsafe`.
//!
//! Must never: change anything beyond this process, its namespaces and its own loop devices.

use libc::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const BLKFLSBUF: libc::c_ulong = 0x1261;
/// `LO_FLAGS_AUTOCLEAR`.
const AUTOCLEAR: u32 = 4;
/// `struct loop_config`: descriptor, block size, `struct loop_info64` (flags at 52 of it), eight
/// reserved words.
const CONFIG_BYTES: usize = 4 + 4 + 232 + 64;
const FLAGS_AT: usize = 8 + 52;

/// Turns a C result into a `Result`.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Moves this thread, and the threads and processes that it starts, to new namespaces of the kinds
/// in `flags` (`CLONE_NEW…`).
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Moves this thread, and the threads and processes that it starts, to the namespace of this kind
/// that an open file in `/proc/…/ns` stands for.
pub(crate) fn enter(namespace: &File, kind: c_int) -> io::Result<()> {
    // SAFETY: takes an open descriptor and flags only.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }).map(drop)
}

/// Sets a variable of this process's environment. Call it before there is a second thread.
pub fn set_variable(name: &str, value: &Path) {
    // SAFETY: there is one thread, so nobody else reads the environment.
    unsafe { std::env::set_var(name, value) };
}

/// The node of a loop device that is free at this moment.
pub(crate) fn free_loop_device(control: &File) -> io::Result<PathBuf> {
    // SAFETY: takes no argument, returns a number.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
    Ok(PathBuf::from(format!("/dev/loop{number}")))
}

/// Attaches a file to a loop device, until the device's last user is gone.
pub(crate) fn attach_loop_device(device: &File, backing: &File) -> io::Result<()> {
    let mut config = [0u8; CONFIG_BYTES];
    config[..4].copy_from_slice(&backing.as_raw_fd().to_ne_bytes());
    config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
    // SAFETY: reads as many bytes as the structure has.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) }).map(drop)
}

/// Writes out and drops the kernel's cache of a block device.
pub(crate) fn flush_buffers(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF as _, 0) }).map(drop)
}
