//! The abilities of a backup directory's file system: they are tried with an empty file before
//! anything is copied.
//!
//! Promise: a file system is refused before a byte is copied if it does not keep the mode or owner
//! of a file, so that others could read it, or if it cannot name a file without replacing another.
//! Must never: leave the file behind, or take a failed call for a missing ability.

use super::{Owner, Store, TEMPORARY_PREFIX, owner_of};
use crate::error::{Code, Error, Result};
use crate::format::run_id::RunId;
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// The way in which a file gets its final name, which must be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Naming {
    /// A rename that never replaces a file.
    NoReplace = 0,
    /// A link, which never replaces a file either, and the removal of the first name.
    Link = 1,
    /// A rename after a check that the name is free: only under the lock of the directory, and if
    /// no other user may write to it.
    Checked = 2,
}

impl Naming {
    pub(super) fn of(number: u8) -> Self {
        match number {
            1 => Self::Link,
            2 => Self::Checked,
            _ => Self::NoReplace,
        }
    }
}

/// Permission bits that let group or others access a directory in any way.
const ANY_OF_OTHERS: u32 = 0o077;
const PRIVATE: u32 = 0o600;

impl Store {
    /// Tries the abilities that a backup needs: that files keep their mode and owner (`owners` are
    /// those of the segments), and that they can be named without replacing a file.
    ///
    /// Errors: `modes-not-kept`, `names-not-safe`; failed calls. Nothing is left behind.
    pub fn try_abilities(&self, run: &RunId, owners: &[(u32, u32)]) -> Result<()> {
        let (first, second) = (format!("{TEMPORARY_PREFIX}{run}.probe"), format!("{TEMPORARY_PREFIX}{run}.probe2"));
        let tried = self.try_with(&first, &second, owners);
        // If the rename succeeded, only one of the two names is left.
        let is_renamed = matches!(tried, Ok(Naming::NoReplace | Naming::Link));
        let left = if is_renamed { &[&second][..] } else { &[&first, &second] };
        let removed = left.iter().try_for_each(|name| self.remove_if_there(name));
        match (tried, removed) {
            (Ok(naming), Ok(())) => {
                self.naming.store(naming as u8, Ordering::Relaxed);
                Ok(())
            }
            (Err(error), Ok(())) => Err(error),
            (Ok(_), Err(error)) => Err(error.leaving_something()),
            (Err(error), Err(other)) => Err(error.and_while_cleaning_up(other)),
        }
    }

    fn try_with(&self, first: &str, second: &str, owners: &[(u32, u32)]) -> Result<Naming> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, first, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io("create", self.shown(first), error))?;
        self.check_kept(&file, first, owners)?;
        self.naming_of(first, second)
    }

    /// Fails if others could read a file that only root and the segments' owner may read.
    fn check_kept(&self, file: &OwnedFd, name: &str, owners: &[(u32, u32)]) -> Result<()> {
        let stat_of = |file: &OwnedFd| fs::fstat(file).map_err(|error| Error::io("fstat", self.shown(name), error));
        let own_uid = rustix::process::geteuid().as_raw();
        let created = stat_of(file)?;
        let mut lacks = lack(owner_of(&created), own_uid);
        let (mut uid, mut gid) = (created.st_uid, created.st_gid);
        for owner in owners {
            if *owner == (uid, gid) {
                continue;
            }
            let (wanted_uid, wanted_gid) = (rustix::process::Uid::from_raw(owner.0), rustix::process::Gid::from_raw(owner.1));
            match fs::fchown(file, Some(wanted_uid), Some(wanted_gid)) {
                Ok(()) => {}
                // The caller was checked for the right to give files away, so it is the file system
                // that refuses.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return Err(
                        self.not_kept(&format!("does not allow a file to be given to uid {} and gid {}", owner.0, owner.1))
                    );
                }
                Err(error) => return Err(Error::io("chown", self.shown(name), error)),
            }
            let given = stat_of(file)?;
            (uid, gid) = (given.st_uid, given.st_gid);
            lacks = lacks.or_else(|| lack(owner_of(&given), owner.0));
        }
        let Some(lack) = lacks else { return Ok(()) };
        // If no other user may enter the directory, it does not matter: the manifest has owners and
        // modes.
        let directory = stat_of(&self.directory)?;
        if directory.st_mode & ANY_OF_OTHERS == 0 { Ok(()) } else { Err(self.not_kept(&lack)) }
    }

    fn not_kept(&self, lack: &str) -> Error {
        Error::new(
            Code::ModesNotKept,
            format!("the file system of {} {lack}", self.path.display()),
            "choose a directory on a file system that keeps owners and modes (ext4, xfs); or, if the segments are owned by \
             root, mount this one so that only its owner may enter it (mount options such as umask=0077)",
        )
    }

    /// Finds a way to name a file without replacing another one.
    fn naming_of(&self, first: &str, second: &str) -> Result<Naming> {
        let directory = &self.directory;
        match fs::renameat_with(directory, first, directory, second, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Naming::NoReplace),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Error::io("rename", self.shown(second), error)),
        }
        match fs::linkat(directory, first, directory, second, AtFlags::empty()) {
            Ok(()) => {
                fs::unlinkat(directory, first, AtFlags::empty())
                    .map_err(|error| Error::io("unlink", self.shown(first), error))?;
                let there = fs::statat(directory, second, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| Error::io("stat", self.shown(second), error))?;
                // A file system that still counts the removed name has cached it: a reader would
                // see two names.
                if there.st_nlink == 1 {
                    return Ok(Naming::Link);
                }
            }
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
            Err(error) => return Err(Error::io("link", self.shown(second), error)),
        }
        if self.is_locked.load(Ordering::Relaxed) {
            return Ok(Naming::Checked);
        }
        Err(Error::new(
            Code::NamesNotSafe,
            format!(
                "the file system of {} supports no rename without replacement, no links and no locks; expected one of them",
                self.path.display()
            ),
            "choose a directory on another file system",
        ))
    }

    fn remove_if_there(&self, name: &str) -> Result<()> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("unlink", self.shown(name), error)),
        }
    }

    /// The error for a final name that somebody else has taken.
    pub fn name_taken(&self, name: &str) -> Error {
        Error::new(
            Code::BackupExists,
            format!("{} was created while the backup was made", self.shown(name)),
            "find out what else writes to this directory",
        )
    }

    /// Gives a staged file its final name, which must be free.
    pub fn publish(&self, temporary: &str, name: &str) -> Result<()> {
        let directory = &self.directory;
        let named = match Naming::of(self.naming.load(Ordering::Relaxed)) {
            Naming::NoReplace => fs::renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE),
            Naming::Link => match fs::linkat(directory, temporary, directory, name, AtFlags::empty()) {
                Ok(()) => fs::unlinkat(directory, temporary, AtFlags::empty()),
                other => other,
            },
            Naming::Checked => match self.inode_of(name)? {
                Some(_) => Err(Errno::EXIST),
                None => fs::renameat(directory, temporary, directory, name),
            },
        };
        match named {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(self.name_taken(name)),
            Err(error) => Err(Error::io("rename", self.shown(name), error)),
        }
    }
}

/// Describes the difference between the file that was made and the one that was requested, if
/// others may read it because of that.
fn lack(found: Owner, uid: u32) -> Option<String> {
    if found.mode & ANY_OF_OTHERS != 0 {
        return Some(format!("gives a file of mode {PRIVATE:04o} the mode {:04o}, so others may read it", found.mode));
    }
    (found.uid != uid).then(|| format!("gives a file of uid {uid} to uid {}, who may then read it", found.uid))
}
