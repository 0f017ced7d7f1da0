//! A backup directory: its contents, reading from it, and staging files in it.
//!
//! Promise: the directory is opened once, and everything is done relative to it; only regular files
//! are read, and no symbolic link is followed; files have mode 0600 from their creation; a staged
//! file is not part of a backup. Must never: remove the directory, or a file that asmt did not
//! make.
//!
//! Names in the directory: `<key>.dat[.gz]` (ASMT's, and ours),
//! `asmt-manifest-<instance>-<namespace>.json`, `.asmt-tmp.<run>.<name>` (staged by a run),
//! `.asmt-run.<run>` (its journal while it publishes) and the locks of `store/lock.rs`. Neither
//! ASMT 2.2.1 nor asmt takes any of the last three for a backup. `<run>` stands for boot, process
//! and its start, so that a dead run's leftovers can be told from a live run's work.

use crate::error::{Code, Error, Problem, Result};
use crate::facts::directory::{Owner, Writable};
use crate::format::journal::TEMPORARY_PREFIX;
use crate::hints;
use crate::store::direct::read_at_most;
use crate::store::entries::{Text, link_count, owner_of};
use crate::sync::Mutex;
use crate::sys::dir::names_at;
use crate::sys::fsync;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8};

mod abilities;
mod above;
mod direct;
mod entries;
mod input;
mod leftovers;
mod listing;
mod lock;
mod output;
mod place;
mod probe;

#[cfg(feature = "testing")]
pub use crate::format::journal::{LOCK_NAME, MARKS_LOCK_NAME};
pub use direct::Buffer;
#[cfg(feature = "testing")]
pub use entries::modified_ms;
pub use input::InputFile;
pub use output::OutputFile;
pub use probe::Rate;

/// Time that a run waits for another one that reads or writes marks.
const MARKS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// An open backup directory.
pub struct Store {
    directory: OwnedFd,
    path: PathBuf,
    /// Its lock is held, and the file system keeps it.
    is_locked: AtomicBool,
    /// The locked file, if the directory itself cannot be locked.
    lock_file: Mutex<Option<lock::LockFile>>,
    /// The way in which files get their names here: an [`abilities::Naming`].
    naming: AtomicU8,
    /// Files of a backup that a dead run had decided and not named, as the last listing found them:
    /// final name and temporary name.
    staged: Mutex<BTreeMap<String, String>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        let held = std::mem::take(self.lock_file.get_mut());
        if let Some(held) = held {
            // A file that stays does no harm: the next run uses it.
            let _ = self.remove_lock(&held);
        }
    }
}

/// The kind of a lock on a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Readers: restore, verify.
    Shared,
    /// The one writer: backup.
    Exclusive,
}

impl Store {
    /// Opens a directory, which must exist.
    ///
    /// Errors: `directory-missing`, `not-a-directory`, `permission-denied`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, OFlags::empty())
    }

    /// Opens a directory; `None` if it does not exist. Any other failure is one: what cannot be
    /// looked at must not be taken for what is not there.
    ///
    /// Errors: those of [`Self::open`], except for a missing directory.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if error.first().code == Code::DirectoryMissing => Ok(None),
            other => other.map(Some),
        }
    }

    fn open_as(path: &Path, more: OFlags) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
        match fs::open(path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self {
                directory,
                path: path.to_owned(),
                is_locked: AtomicBool::new(false),
                lock_file: Mutex::new(None),
                naming: AtomicU8::new(0),
                staged: Mutex::new(BTreeMap::new()),
            }),
            Err(Errno::NOENT) => Err(Error::new(
                Code::DirectoryMissing,
                format!("no such directory: {}", path.display()),
                "check the path, and make sure that its file system is mounted",
            )),
            Err(Errno::NOTDIR) => Err(Error::new(
                Code::NotADirectory,
                format!("not a directory: {}", path.display()),
                "name the directory of the backup",
            )),
            Err(Errno::ACCESS) => Err(Error::new(
                Code::PermissionDenied,
                format!("no permission to read directory {}", path.display()),
                "run asmt as root, or as the directory's owner",
            )),
            Err(error) => Err(Error::io("open", path.display(), error)),
        }
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// The names in the directory: see [`names_of`].
    fn names(&self) -> Result<Vec<String>> {
        // Each listing has its own descriptor, so that it starts at the beginning.
        names_at(&self.directory, Path::new("."), &self.path)
    }

    fn unsafe_file(&self, name: &str, what: &str) -> Problem {
        let message = format!("{} is {what}, expected a regular file", self.shown(name));
        Problem::new(Code::UnsafeFile, message, hints::NOT_REGULAR).in_file(name)
    }

    /// Opens a file for reading if it is a regular file. The inner error tells what it is instead.
    ///
    /// It may have other names, in directories that others may enter, like the files of hard-linked
    /// backups. What can be done by another name depends on the file's own owner and mode, which
    /// the plan judges.
    fn open_file(&self, name: &str) -> Result<std::result::Result<OwnedFd, Problem>> {
        let unsafe_file = |what: &str| Ok(Err(self.unsafe_file(name, what)));
        // The open must not block: a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let staged = self.staged.lock().get(name).cloned();
        let file = match fs::openat(&self.directory, staged.as_deref().unwrap_or(name), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP) => return unsafe_file("a symbolic link"),
            Err(Errno::NXIO | Errno::NODEV) => return unsafe_file("a socket or device"),
            Err(error) => return Err(Error::io("open", self.shown(name), error)),
        };
        let stat = fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Ok(file)),
            FileType::Directory => unsafe_file("a directory"),
            _ => unsafe_file("a FIFO or device"),
        }
    }

    /// The text of a JSON file, and its owner. There is no text if the file is longer, not UTF-8,
    /// or does not begin like JSON.
    fn read_text(&self, name: &str, most_bytes: u64) -> Result<std::result::Result<Text, Problem>> {
        let file = match self.open_file(name)? {
            Ok(file) => file,
            Err(problem) => return Ok(Err(problem)),
        };
        let stat = fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        let (owner, link_count) = (owner_of(&stat), link_count(&stat));
        let fail = |error| Error::io("read", self.shown(name), error);
        let mut first = [0];
        let begins = read_at_most(file.as_fd(), 0, &mut first, false).map_err(fail)? == 0 || first == *b"{";
        let length = stat.st_size.cast_unsigned();
        if length > most_bytes || !begins {
            return Ok(Ok(Text { text: None, owner, link_count }));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = read_at_most(file.as_fd(), 0, &mut bytes, false).map_err(fail)?;
        bytes.truncate(read);
        Ok(Ok(Text { text: String::from_utf8(bytes).ok(), owner, link_count }))
    }

    /// The inode of a name itself, not of the target of a link; `None` if it is not there.
    pub fn inode_of(&self, name: &str) -> Result<Option<u64>> {
        match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("stat", self.shown(name), error)),
        }
    }

    /// Removes names, in order. A name that is already gone is no error. Durable when it returns.
    pub fn remove_all<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut has_removed = false;
        for name in names {
            match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) => has_removed = true,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("unlink", self.shown(name), error)),
            }
        }
        if has_removed { self.sync("removals") } else { Ok(()) }
    }

    /// Makes the directory's entries durable; `what` tells which ones are meant.
    pub fn sync(&self, what: &str) -> Result<()> {
        fsync::directory(&self.directory, what).map_err(|error| Error::io("fsync", self.path.display(), error))
    }

    /// Fails if the file system has died. It checks a file of the directory, because the
    /// directory's own fsync may not report it.
    pub fn check_alive(&self, name: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::openat(&self.directory, name, flags, Mode::empty()) {
            // It was given to the segments' owner, and is closed to others. The check of a
            // manifest, which the caller owns, will show it.
            Err(Errno::ACCESS) => return Ok(()),
            other => other.map_err(|error| Error::io("open", self.shown(name), error))?,
        };
        fsync::ask(file).map_err(|error| Error::io("fsync", self.shown(name), error))
    }

    /// Returns true if files can be made in it, by permissions and mount.
    ///
    /// Errors: failed calls.
    pub fn is_writable(&self) -> Result<bool> {
        Ok(self.target()?.writable == Writable::Yes)
    }

    /// Fails if the path leads to another directory by now: the backup would not be where it is
    /// looked for.
    pub fn check_place(&self) -> Result<()> {
        let own = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        match fs::stat(&self.path) {
            Ok(there) if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Error::new(
                Code::DirectoryMoved,
                format!("{} was removed, renamed or replaced while the backup was made", self.path.display()),
                "find out what else is using this directory, then try again",
            )),
            Err(error) => Err(Error::io("stat", self.path.display(), error)),
        }
    }

    /// Bytes that this user can still use on the file system; `None` if it does not say, like a
    /// ramfs.
    pub fn free_bytes(&self) -> Result<Option<u64>> {
        let stat = fs::fstatvfs(&self.directory).map_err(|error| Error::io("statvfs", self.path.display(), error))?;
        let blocks = if rustix::process::geteuid().is_root() { stat.f_bfree } else { stat.f_bavail };
        Ok((stat.f_blocks > 0).then(|| blocks.saturating_mul(stat.f_frsize)))
    }

    /// Bytes that a file occupies on the disk, for a report; `None` if the file system does not
    /// say.
    pub fn allocated_bytes(&self, name: &str) -> Option<u64> {
        let stat = fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(stat.st_blocks.cast_unsigned().saturating_mul(512))
    }
}
