//! The directories that lead to a path, as the kernel resolves it, and who may exchange their
//! entries.
//!
//! Promise: every directory in which a name of the path is looked up is checked, also those that
//! hold a symbolic link, and all that are above the open directory, up to the root. Those that
//! others than root may change are returned. Must never: open any of them for reading.

use crate::error::{Error, Result};
use crate::facts::directory::{PathStep, StepKind};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on one path: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Most directories above one: more than the longest path can have.
const MAX_DEPTH: usize = 4096;
/// Permission bits that let others than the owner write, and the bit that restricts them there.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Collects steps, each directory once.
struct Steps {
    seen: HashSet<(u64, u64)>,
    steps: Vec<PathStep>,
}

/// The directories above an open directory, and those by which `path` leads to it. `directory` is
/// `None` if there is nothing at the path yet: then the walk ends at the directory above.
///
/// Errors: failed calls.
pub(super) fn steps(directory: Option<&OwnedFd>, path: &Path) -> Result<Vec<PathStep>> {
    let mut found = Steps { seen: HashSet::new(), steps: Vec::new() };
    let start = if path.is_absolute() { Path::new("/") } else { Path::new(".") };
    let start = open(fs::CWD, start).map_err(|error| Error::io("open", start.display(), error))?;
    found.walk(start, path)?;
    if let Some(directory) = directory {
        found.climb(directory)?;
    }
    Ok(found.steps)
}

impl Steps {
    /// Resolves a path as the kernel does, one name at a time.
    fn walk(&mut self, mut at: OwnedFd, path: &Path) -> Result<()> {
        let mut left = names_of(path);
        let mut link_count = 0;
        self.climb(&at)?;
        while let Some(name) = left.pop() {
            self.add(&at)?;
            let fail = |call: &'static str, error: Errno| Error::io(call, Path::new(&name).display(), error);
            let stat = match fs::statat(&at, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // A backup makes the missing directory, or opening it fails later.
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                Err(error) => return Err(fail("stat", error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    link_count += 1;
                    if link_count > MAX_LINKS {
                        return Err(Error::io("open", path.display(), Errno::LOOP));
                    }
                    self.add_link(&at, &name, &stat)?;
                    let target = fs::readlinkat(&at, &name, Vec::new()).map_err(|error| fail("readlink", error))?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        at = open(fs::CWD, Path::new("/")).map_err(|error| Error::io("open", "/", error))?;
                    }
                    left.extend(names_of(&target));
                }
                FileType::Directory => {
                    at = open(&at, Path::new(&name)).map_err(|error| fail("open", error))?;
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// All directories above an open one, up to the root.
    fn climb(&mut self, directory: &OwnedFd) -> Result<()> {
        let mut at = directory.try_clone().map_err(|error| Error::io("fcntl", shown(directory).display(), error))?;
        for _ in 0..MAX_DEPTH {
            let above = open(&at, Path::new("..")).map_err(|error| Error::io("open", shown(&at).join("..").display(), error))?;
            let (below, now) = (stat_of(&at)?, stat_of(&above)?);
            if (below.st_dev, below.st_ino) == (now.st_dev, now.st_ino) {
                break;
            }
            self.add(&above)?;
            at = above;
        }
        Ok(())
    }

    fn add(&mut self, directory: &OwnedFd) -> Result<()> {
        let stat = stat_of(directory)?;
        // A directory that belongs to root, and that only root may write to, is left out.
        let is_open = stat.st_uid != 0 || stat.st_mode & WRITABLE_BY_OTHERS != 0;
        if self.seen.insert((stat.st_dev, stat.st_ino)) && is_open {
            let path = shown(directory).display().to_string();
            self.steps.push(PathStep { path, uid: stat.st_uid, mode: stat.st_mode & 0o1777, kind: StepKind::Directory });
        }
        Ok(())
    }

    fn add_link(&mut self, holder: &OwnedFd, name: &std::ffi::OsStr, stat: &Stat) -> Result<()> {
        let mode = stat_of(holder)?.st_mode;
        let is_in_shared = mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY != 0;
        let path = shown(holder).join(name).display().to_string();
        self.steps.push(PathStep { path, uid: stat.st_uid, mode: stat.st_mode & 0o777, kind: StepKind::Link { is_in_shared } });
        Ok(())
    }
}

/// The names of a path, last one first.
fn names_of(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Opens a directory only to look up names in it.
fn open(at: impl AsFd, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, path, flags, Mode::empty())
}

fn stat_of(directory: &OwnedFd) -> Result<Stat> {
    fs::fstat(directory).map_err(|error| Error::io("fstat", shown(directory).display(), error))
}

/// The path of an open directory, as the kernel shows it.
fn shown(directory: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
    fs::readlinkat(fs::CWD, &path, Vec::new()).map_or_else(
        |_| PathBuf::from("a directory above it"),
        |target| PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes())),
    )
}
