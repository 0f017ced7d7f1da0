//! Mounts, and loop devices to mount.
//!
//! Promise: a loop device goes with its last user, however this process ends. Must never: be used
//! outside a mount namespace of one's own ([`crate::namespaces::unshare_mounts`]).

use crate::sys;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Keeps mounts and unmounts of this namespace from other ones.
pub(crate) fn make_private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Mounts an empty file system in memory; `options` are those of tmpfs, separated by commas.
pub fn tmpfs(target: &Path, options: &CStr) -> io::Result<()> {
    Ok(mount("asmt-kit", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)?)
}

/// Mounts a file or directory over another one.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount_bind(source, target)?)
}

/// Returns true if something is mounted at this path.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

/// Unmounts everything that is mounted below a directory, the last mount first.
pub(crate) fn detach_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let targets: Vec<&Path> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new).collect();
    for target in targets.into_iter().rev().filter(|target| target.starts_with(directory)) {
        // One that stays keeps its directory, and no other.
        let _ = unmount(target, UnmountFlags::DETACH);
    }
}

/// A file as a block device.
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Attaches a file to a free loop device.
    ///
    /// Errors: the system has no loop devices, or does not allow them.
    pub fn new(backing: &Path) -> io::Result<Self> {
        let read_write = |path: &Path| File::options().read(true).write(true).open(path);
        let backing = read_write(backing)?;
        let control = read_write(Path::new("/dev/loop-control"))?;
        loop {
            let path = sys::free_loop_device(&control)?;
            let device = read_write(&path)?;
            match sys::attach_loop_device(&device, &backing) {
                Ok(()) => return Ok(Self { path, device }),
                // Another process was quicker.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes out and drops the kernel's cache of the device.
    pub fn forget(&self) -> io::Result<()> {
        sys::flush_buffers(&self.device)
    }
}
