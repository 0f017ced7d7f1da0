//! Locks of a backup directory: for work on it, and for writing its marks.
//!
//! Promise: a backup excludes every other run, and readers share the directory. A lock that keeps a
//! run out is held by root or by the directory's owner, because no other user can open the locked
//! file. Must never: wait for a lock that a stranger can hold, or leave a lock behind whose holder
//! has ended normally.
//!
//! If only its owner may open the directory (mode 0700, as asmt makes it), the lock is on the
//! directory itself. Everybody who may open a file can lock it, and hold that lock for ever. So if
//! others may open the directory, the lock is on asmt's own file in it, `.asmt-lock`, 0600, and a
//! lock on the directory itself keeps nobody out. The last holder removes the file. If the file
//! cannot be made because the file system is read-only, no backup is at work. A user who may not
//! open or make it is not the owner, and uses the lock of the directory. On a file system without
//! locks there are none.

use super::{Lock, MARKS_PATIENCE, Store, owner_of};
use crate::error::{Code, Error, Problem, Result};
use crate::format::journal::{LOCK_NAME, MARKS_LOCK_NAME};
use crate::format::{is_manifest_name, parse_file_name};
use crate::hints;
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Permission bits that let others open a directory or file.
const READABLE_BY_OTHERS: u32 = 0o044;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const ENTERABLE_BY_OTHERS: u32 = 0o011;

/// Number of times that a lock file is opened again because its last holder has just removed it.
const MOST_ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A lock file that is locked: see [`Store::lock`].
pub(super) struct LockFile {
    file: OwnedFd,
    name: &'static str,
    /// How it is held; `None` while it is only open.
    held: Option<Lock>,
}

/// The lock of the marks; released when dropped, if not before.
pub struct MarksLock<'s> {
    store: &'s Store,
    held: Held,
}

impl MarksLock<'_> {
    /// Releases it after work that came to this. Where the work has failed, a lock file that cannot
    /// be removed is told, too: nothing may be left behind in silence.
    pub fn release_after<T>(mut self, outcome: Result<T>) -> Result<T> {
        let Held::Own(lock) = std::mem::replace(&mut self.held, Held::Nothing) else { return outcome };
        match (outcome, self.store.remove_lock(&lock)) {
            (Err(error), Err(other)) => Err(error.and_while_cleaning_up(other)),
            (outcome, _) => outcome,
        }
    }
}

enum Held {
    /// Nothing is locked: the file system has no locks, or there is no lock file and none can be
    /// made.
    Nothing,
    /// A file of the backup.
    File { _file: OwnedFd },
    /// A file of its own.
    Own(LockFile),
}

impl Drop for MarksLock<'_> {
    fn drop(&mut self) {
        if let Held::Own(lock) = &self.held {
            // A file that stays does no harm: the next run uses it.
            let _ = self.store.remove_lock(lock);
        }
    }
}

/// What happens if a lock file is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfMissing {
    /// It is made.
    Make,
    /// It is left out.
    LeaveOut,
}

/// The outcome of one attempt to lock.
enum Attempt<T> {
    Locked(T),
    /// Another run holds it in a way that excludes this one.
    Busy,
    /// The file system has no locks.
    NoLocks,
}

/// The outcome of opening a lock file.
enum Opened {
    File(OwnedFd),
    /// It is missing, and is not made.
    Missing,
    /// It cannot be opened or made: for lack of permission, or because the file system is
    /// read-only.
    Denied {
        is_read_only: bool,
    },
}

impl Store {
    /// Locks the directory until the store is dropped.
    ///
    /// Errors: `another-asmt` if another run excludes this one; `unsafe-file` if the file with the
    /// name of the lock is not asmt's.
    pub fn lock(&self, lock: Lock) -> Result<()> {
        let stat = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        let mode = stat.st_mode;
        let is_open = mode & READABLE_BY_OTHERS != 0;
        // In a directory that others may write to, a file of that name may belong to anybody. Such
        // a directory is refused anyway, except for a verification.
        let has_file = mode & WRITABLE_BY_OTHERS == 0;
        let if_missing = if is_open { IfMissing::Make } else { IfMissing::LeaveOut };
        let opened = if has_file { self.lock_file(LOCK_NAME, lock, if_missing)? } else { None };
        let of_directory = try_lock(&self.directory, lock).map_err(|error| Error::io("flock", self.path.display(), error))?;
        let (is_locked, is_free) = match (opened, of_directory) {
            (Some(Attempt::Busy), _) => (false, false),
            (Some(Attempt::Locked(file)), of_directory) => {
                *self.lock_file.lock() = Some(file);
                (true, is_open || !matches!(of_directory, Attempt::Busy))
            }
            (Some(Attempt::NoLocks), _) | (None, Attempt::NoLocks) => (false, true),
            (None, Attempt::Locked(())) => (true, true),
            (None, Attempt::Busy) => (false, false),
        };
        self.is_locked.store(is_locked, Ordering::Relaxed);
        if is_free { Ok(()) } else { Err(self.another_asmt("is using")) }
    }

    fn another_asmt(&self, what: &str) -> Error {
        Error::new(
            Code::AnotherAsmt,
            format!("another asmt {what} {}", self.path.display()),
            "wait until it has finished, then try again",
        )
    }

    /// Locks a lock file. `None` if there is none: then the directory's own lock decides.
    fn lock_file(&self, name: &'static str, lock: Lock, if_missing: IfMissing) -> Result<Option<Attempt<LockFile>>> {
        for _ in 0..MOST_ATTEMPTS {
            let file = match self.open_lock(name, if_missing)? {
                Opened::File(file) => file,
                Opened::Missing => return Ok(None),
                // Without a lock file no run is at work on such a directory, and none can begin
                // now.
                Opened::Denied { is_read_only: true } => return Ok(Some(Attempt::NoLocks)),
                Opened::Denied { is_read_only: false } => return Ok(None),
            };
            let file = LockFile { file, name, held: None };
            match self.try_lock_file(&file, lock, if_missing) {
                Ok(Attempt::Locked(true)) => return Ok(Some(Attempt::Locked(LockFile { held: Some(lock), ..file }))),
                // Its last holder has removed it: then it keeps nobody out, and another one is
                // made.
                Ok(Attempt::Locked(false)) => {}
                Ok(Attempt::Busy) => return Ok(Some(Attempt::Busy)),
                Ok(Attempt::NoLocks) => {
                    let _ = self.remove_lock(&file);
                    return Ok(Some(Attempt::NoLocks));
                }
                Err(error) if error.first().code == Code::UnsafeFile => return Err(error),
                // It may be this run that has made it.
                Err(error) => {
                    return Err(match self.remove_lock(&file) {
                        Ok(()) => error,
                        Err(other) => error.and_while_cleaning_up(other),
                    });
                }
            }
        }
        Ok(Some(Attempt::Busy))
    }

    /// Locks an open lock file. Returns true if it still has its name.
    fn try_lock_file(&self, lock: &LockFile, how: Lock, if_missing: IfMissing) -> Result<Attempt<bool>> {
        let LockFile { file, name, .. } = lock;
        let stat = fs::fstat(file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.not_a_lock(name, "not a regular file"));
        }
        if if_missing == IfMissing::Make && stat.st_uid == rustix::process::geteuid().as_raw() {
            self.give_to_owner(file, &stat)?;
        }
        Ok(match try_lock(file, how).map_err(|error| Error::io("flock", self.shown(name), error))? {
            Attempt::Locked(()) => Attempt::Locked(self.is_at(file, name)?),
            Attempt::Busy => Attempt::Busy,
            Attempt::NoLocks => Attempt::NoLocks,
        })
    }

    fn open_lock(&self, name: &str, if_missing: IfMissing) -> Result<Opened> {
        let is_made = if_missing == IfMissing::Make;
        // The open must not block: a FIFO in its place would wait.
        let common = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| fs::openat(&self.directory, name, common | flags, Mode::RUSR | Mode::WUSR);
        // It is opened for writing, because network file systems refuse an exclusive lock on a file
        // that is open for reading only.
        let made = if is_made { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDWR };
        let file = match open(made) {
            // It may exist already: a reader's lock only needs to read it.
            Err(Errno::ROFS) => match open(OFlags::RDONLY) {
                Err(Errno::NOENT) => return Ok(if is_made { Opened::Denied { is_read_only: true } } else { Opened::Missing }),
                other => other,
            },
            other => other,
        };
        let file = match file {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Opened::Missing),
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Opened::Denied { is_read_only: false }),
            Err(Errno::LOOP) => return Err(self.not_a_lock(name, "a symbolic link")),
            Err(Errno::NXIO | Errno::NODEV | Errno::ISDIR) => return Err(self.not_a_lock(name, "not a regular file")),
            Err(error) => return Err(Error::io("open", self.shown(name), error)),
        };
        Ok(Opened::File(file))
    }

    /// Gives a lock to the directory's owner, who may work here as root may, and must be able to
    /// open it. If that is not possible, the owner uses the lock of the directory.
    fn give_to_owner(&self, file: &OwnedFd, stat: &fs::Stat) -> Result<()> {
        let directory = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        if directory.st_uid != stat.st_uid {
            let _ = fs::fchown(file, Some(rustix::process::Uid::from_raw(directory.st_uid)), None);
        }
        Ok(())
    }

    fn not_a_lock(&self, name: &str, what: &str) -> Error {
        let message = format!("{} is {what}, expected the lock file of asmt, a regular file", self.shown(name));
        Problem::new(Code::UnsafeFile, message, hints::NOT_OURS).in_file(name).into()
    }

    /// Returns true if an open file still has this name.
    fn is_at(&self, file: &OwnedFd, name: &str) -> Result<bool> {
        let own = fs::fstat(file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::io("stat", self.shown(name), error)),
        }
    }

    /// Removes a lock file, if nobody else holds it.
    ///
    /// Errors: failed calls. A file that stays does no harm: the next run uses it.
    pub(super) fn remove_lock(&self, lock: &LockFile) -> Result<()> {
        let LockFile { file, name, held } = lock;
        let is_own = match held {
            // Nobody else removes or replaces it while it is held like that: it goes even if it can
            // no longer be looked at.
            Some(Lock::Exclusive) => self.is_at(file, name).unwrap_or(true),
            Some(Lock::Shared) | None => {
                let attempt = try_lock(file, Lock::Exclusive).map_err(|error| Error::io("flock", self.shown(name), error))?;
                !matches!(attempt, Attempt::Busy) && self.is_at(file, name)?
            }
        };
        if is_own {
            fs::unlinkat(&self.directory, *name, AtFlags::empty())
                .map_err(|error| Error::io("unlink", self.shown(name), error))?;
        }
        Ok(())
    }

    /// Locks the marks of the directory for this run alone, while they are read and written. That
    /// takes milliseconds, and is possible while a restore or verification holds its shared lock.
    ///
    /// The lock is on the first manifest that others cannot open, or without one on the first such
    /// segment file. This file stays while a run holds the directory's own lock, and every run
    /// chooses the same one. Without such a file, the lock is on a file of its own.
    ///
    /// Errors: `another-asmt` if another run does not release it; failed calls.
    pub fn lock_marks(&self) -> Result<MarksLock<'_>> {
        let since = Instant::now();
        loop {
            match self.try_lock_marks()? {
                Attempt::Locked(held) => return Ok(MarksLock { store: self, held }),
                Attempt::NoLocks => return Ok(MarksLock { store: self, held: Held::Nothing }),
                Attempt::Busy if since.elapsed() < MARKS_PATIENCE => std::thread::sleep(PAUSE),
                Attempt::Busy => return Err(self.another_asmt("is updating the usage marks in")),
            }
        }
    }

    /// Does something while the marks are locked: see [`Self::lock_marks`].
    ///
    /// Errors: those of the lock and of the work.
    pub fn with_marks_locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let lock = self.lock_marks()?;
        lock.release_after(work())
    }

    fn try_lock_marks(&self) -> Result<Attempt<Held>> {
        if let Some((name, file)) = self.file_for_marks()? {
            let attempt = try_lock(&file, Lock::Exclusive).map_err(|error| Error::io("flock", self.shown(&name), error))?;
            return Ok(match attempt {
                Attempt::Locked(()) => Attempt::Locked(Held::File { _file: file }),
                Attempt::Busy => Attempt::Busy,
                Attempt::NoLocks => Attempt::NoLocks,
            });
        }
        Ok(match self.lock_file(MARKS_LOCK_NAME, Lock::Exclusive, IfMissing::Make)? {
            Some(Attempt::Locked(lock)) => Attempt::Locked(Held::Own(lock)),
            Some(Attempt::Busy) => Attempt::Busy,
            // If no file can be made, no mark can be written either.
            Some(Attempt::NoLocks) | None => Attempt::NoLocks,
        })
    }

    /// The file of the backup that is locked for its marks: the first one that only its owner, who
    /// is root or the directory's owner, can open.
    fn file_for_marks(&self) -> Result<Option<(String, OwnedFd)>> {
        let stat = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        let directory = owner_of(&stat);
        let is_entered = directory.mode & ENTERABLE_BY_OTHERS != 0;
        let names = self.names()?;
        let manifests = names.iter().filter(|name| is_manifest_name(name));
        for name in manifests.chain(names.iter().filter(|name| parse_file_name(name).is_some())) {
            let Ok(file) = self.open_file(name)? else { continue };
            let owner = owner_of(&fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?);
            let is_closed = owner.mode & (READABLE_BY_OTHERS | WRITABLE_BY_OTHERS) == 0;
            if !is_entered || is_closed && (owner.uid == 0 || owner.uid == directory.uid) {
                return Ok(Some((name.clone(), file)));
            }
        }
        Ok(None)
    }
}

fn try_lock(file: impl AsFd, lock: Lock) -> std::result::Result<Attempt<()>, Errno> {
    let operation = match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        return match fs::flock(&file, operation) {
            Ok(()) => Ok(Attempt::Locked(())),
            Err(Errno::WOULDBLOCK) => Ok(Attempt::Busy),
            Err(Errno::INTR) => continue,
            // Some network file systems have no locks. Then a run's name still tells whether it is
            // alive, if its process can be seen.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL) => Ok(Attempt::NoLocks),
            Err(error) => Err(error),
        };
    }
}
