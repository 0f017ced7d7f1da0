//! Finds out whether this IPC namespace, and with it every segment, outlives asmt.
//!
//! Promise: the answer is "no" only if no other holder was seen: no other process in the namespace,
//! except for an init that only waits for asmt, and no mount of it. Must never: take something that
//! cannot be looked into for proof that there is no holder.

use crate::error::{Error, Result};
use crate::facts::memory::Keeper;
use crate::sys::dir;
use crate::sys::procfs::{self, Process};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode of the first IPC namespace, which is the machine's own (`PROC_IPC_INIT_INO` of
/// linux/proc_ns.h).
const FIRST_NAMESPACE: u64 = 0xefff_ffff;
/// Inode of the first PID namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Programs that start a container and end as soon as the program that they wait for does.
const MERE_INITS: [&str; 5] = ["tini", "docker-init", "dumb-init", "catatonit", "podman-init"];

/// The holder of the IPC namespace after this process has ended. A process in another PID namespace
/// cannot be seen: the holder of a pod, for instance.
///
/// Errors: failed calls.
pub fn keeper() -> Result<Keeper> {
    let (own, pid_namespace) = (procfs::namespace("ipc")?, procfs::namespace("pid")?);
    if own == FIRST_NAMESPACE || is_mounted(&procfs::text("/proc/self/mountinfo")?, own) {
        return Ok(Keeper::Lasting);
    }
    let mut kept_by = Keeper::Nobody;
    // The machine's init, which may be hidden even from root, is in the first namespace.
    let is_init = |pid: &u32| *pid == 1 && pid_namespace == FIRST_PID_NAMESPACE;
    for pid in dir::names_of(Path::new("/proc"))?.iter().filter_map(|name| name.parse::<u32>().ok()) {
        if pid == std::process::id() || is_init(&pid) || !may_keep(pid, own)? {
            continue;
        }
        match procfs::process(pid)? {
            // A shell or a timer that runs asmt ends with it. But the first process of a container
            // may become the server.
            Process::Seen(stat) if pid != 1 && is_ancestor(pid)? => {
                kept_by = Keeper::Ancestor { pid, command: stat.command };
            }
            _ => return Ok(Keeper::Lasting),
        }
    }
    Ok(kept_by)
}

/// Returns true if a process is the parent of this one, or an ancestor of that.
fn is_ancestor(pid: u32) -> Result<bool> {
    let mut child = std::process::id();
    while child > 1 {
        let Some(parent) = procfs::parent_of(child)? else { return Ok(false) };
        if parent == pid {
            return Ok(true);
        }
        child = parent;
    }
    Ok(false)
}

/// Returns true if a process is in the namespace, or may be, and is more than an init.
fn may_keep(pid: u32, namespace: u64) -> Result<bool> {
    let path = format!("/proc/{pid}/ns/ipc");
    match fs::metadata(&path) {
        Ok(metadata) if metadata.ino() != namespace => Ok(false),
        Ok(_) => match procfs::process(pid)? {
            Process::Gone => Ok(false),
            Process::Hidden => Ok(true),
            Process::Seen(stat) => Ok(!MERE_INITS.contains(&stat.command.as_str())),
        },
        // It has ended in the meantime, or is a thread of the kernel, which has no such file.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        // It belongs to another user, and may be in the namespace.
        Err(error) if procfs::is_unseen(&error) => Ok(true),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}

/// Returns true if the text of `/proc/self/mountinfo` has a mount of this namespace: `... nsfs
/// nsfs`, with the root `ipc:[4711]`.
fn is_mounted(mounts: &str, namespace: u64) -> bool {
    let root = format!("ipc:[{namespace}]");
    mounts.lines().any(|line| line.split(' ').nth(3) == Some(root.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_mounted_is_kept() {
        let mounts = "22 1 0:4 ipc:[4026532281] /run/ipc rw shared:1 - nsfs nsfs rw\n23 1 0:5 / /proc rw - proc proc rw\n";
        assert!(is_mounted(mounts, 4_026_532_281) && !is_mounted(mounts, 4_026_532_282) && !is_mounted("", 1));
    }
}
