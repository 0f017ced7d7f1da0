//! The directory itself: its kind, whether a backup may be made in it, and its creation.

use crate::error::{Code, Error, Result};
use crate::facts::directory::{DirectoryRecord, Listing, Target, Volatile, Writable};
use crate::format::is_backup_name;
use crate::progress::Control;
use crate::store::entries::{is_own_name, owner_of};
use crate::store::{Store, above};
use crate::sys::dir::is_in_memory;
use crate::sys::{fsync, procfs, tmpfiles};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Directories in which a backup would stand among other things. A subdirectory of one of them is
/// allowed.
const SYSTEM_DIRECTORIES: [&str; 24] = [
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var",
    "/var/backups",
    "/var/cache",
    "/var/lib",
    "/var/lib/aerospike",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/local",
    "/var/log",
    "/var/opt",
    "/var/spool",
    "/var/tmp",
    "/opt/aerospike",
];
/// Directories that belong to the system with everything below them.
const SYSTEM_TREES: [&str; 11] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr", "/var/lib/dpkg"];

/// The error for a backup that cannot make its directory.
pub fn nothing_above(path: &Path) -> Error {
    Error::new(
        Code::DirectoryMissing,
        format!("cannot create directory {}: its parent directory does not exist", path.display()),
        "first make sure that its file system is mounted: files below an unmounted mount point are hidden later; then create \
         the parent directory",
    )
}

/// The directory above a path.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Store {
    /// Looks at the place of a backup without making anything: at the directory, or at the one
    /// above it.
    ///
    /// Errors: those of [`Self::open`], except for a missing directory.
    pub fn look(path: &Path) -> Result<Listing> {
        let (directory, target) = match Self::open_if_there(path)? {
            Some(store) => (store.record()?, store.target()?),
            None => {
                let store = Self::open_if_there(parent_of(path))?.ok_or_else(|| nothing_above(path))?;
                let (parent, above) = (store.record_of(path.file_name())?, above::steps(None, path)?);
                let directory = DirectoryRecord { path: path.display().to_string(), owner: None, above, ..parent };
                (directory, store.target()?)
            }
        };
        Ok(Listing { directory: Some(directory), target: Some(target), ..Listing::default() })
    }

    /// Finds out what a backup could write to the directory.
    ///
    /// Errors: failed calls.
    pub fn target(&self) -> Result<Target> {
        let writable = match fs::accessat(&self.directory, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Writable::Yes,
            Err(Errno::ACCESS | Errno::PERM) => Writable::Denied,
            Err(Errno::ROFS) => Writable::ReadOnlyFileSystem,
            Err(error) => return Err(Error::io("access", self.path.display(), error)),
        };
        Ok(Target { path: self.path.display().to_string(), writable, free_bytes: self.free_bytes()? })
    }

    /// Opens a directory, and makes it (mode 0700) if it is missing. Its parent must exist. Its own
    /// entry is durable.
    pub fn open_or_create(path: &Path, control: &Control) -> Result<Self> {
        let store = match Self::open(path) {
            Ok(store) => store,
            Err(_) => {
                control.begin_changes()?;
                Self::make_directory(path)?
            }
        };
        store.sync_parent()?;
        match fs::accessat(&store.directory, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS) {
            Err(Errno::ACCESS) => Err(Error::new(
                Code::PermissionDenied,
                format!("no permission to write to directory {}", path.display()),
                "run asmt as root, or as the directory's owner",
            )),
            // The first file will show what else is wrong.
            _ => Ok(store),
        }
    }

    /// Makes a directory and opens it; also opens it if another process was faster.
    pub(super) fn make_directory(path: &Path) -> Result<Self> {
        // A directory that was made here is no link, and must not have become one: otherwise
        // another user would choose where the backup goes.
        let mut more = OFlags::NOFOLLOW;
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => more = OFlags::empty(),
            Err(Errno::NOENT) => {
                return Err(nothing_above(path));
            }
            Err(Errno::ACCESS) => {
                return Err(Error::new(
                    Code::PermissionDenied,
                    format!("no permission to create directory {}", path.display()),
                    "run asmt as root, or create the directory for this user first",
                ));
            }
            Err(Errno::NOTDIR) => {
                return Err(Error::new(
                    Code::NotADirectory,
                    format!("not a directory: a parent of {}", path.display()),
                    "check the path",
                ));
            }
            Err(error) => return Err(Error::io("mkdir", path.display(), error)),
        }
        Self::open_as(path, more)
    }

    /// Makes the directory's own entry durable, also if it existed: a killed run may have made it.
    pub(super) fn sync_parent(&self) -> Result<()> {
        match fs::openat(&self.directory, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => fsync::directory(parent, "the directory itself, in its parent")
                .map_err(|error| Error::io("fsync", self.path.join("..").display(), error)),
            // A user with more rights than this caller made it.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(Error::io("open", self.path.join("..").display(), error)),
        }
    }

    /// The facts about the directory itself.
    pub fn record(&self) -> Result<DirectoryRecord> {
        self.record_of(None)
    }

    /// The facts about the directory, or about a directory of this name in it that does not exist
    /// yet.
    pub(super) fn record_of(&self, name: Option<&OsStr>) -> Result<DirectoryRecord> {
        let stat = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        let system = fs::fstatfs(&self.directory).map_err(|error| Error::io("statfs", self.path.display(), error))?;
        Ok(DirectoryRecord {
            path: self.path.display().to_string(),
            owner: Some(owner_of(&stat)),
            is_sticky: stat.st_mode & 0o1000 != 0,
            volatile: match is_in_memory(system.f_type as u64) {
                Some(name) => Some(Volatile::InMemory(name)),
                None => {
                    let place = self.real_path()?;
                    tmpfiles::emptied_by(&name.map_or(place.clone(), |name| place.join(name)))?.map(Volatile::EmptiedAtBoot)
                }
            },
            is_systems: name.is_none() && self.is_systems()?,
            above: above::steps(Some(&self.directory), &self.path)?,
        })
    }

    /// Returns true if it is one of the system's directories, with other things in it and no
    /// backup.
    pub(super) fn is_systems(&self) -> Result<bool> {
        let place = self.real_path()?;
        let is_known = SYSTEM_DIRECTORIES.iter().any(|known| place == Path::new(known));
        if !is_known && !SYSTEM_TREES.iter().any(|known| place.starts_with(known)) {
            return Ok(false);
        }
        let names = self.names()?;
        // A disk of its own that is mounted there has this and nothing else.
        let is_other = |name: &String| !is_own_name(name) && name != "lost+found";
        Ok(!names.iter().any(|name| is_backup_name(name)) && names.iter().any(is_other))
    }

    /// Its path without links, as the kernel shows it.
    pub(super) fn real_path(&self) -> Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        std::fs::read_link(&link).map_err(|error| procfs::failed("readlink", Path::new(&link), error))
    }
}

impl Store {
    /// Opens the directory of a backup for reading. If it is missing and the one above it is there,
    /// no backup was made there. That is told apart from a file system that is not mounted, and
    /// from a mistyped path.
    ///
    /// Errors: those of [`Self::open`], and `no-backup`.
    pub fn open_backup(path: &Path) -> Result<Self> {
        Self::open(path).map_err(|error| {
            // There is a link that leads nowhere.
            let is_gone = || fs::lstat(path).is_err_and(|error| error == Errno::NOENT) && Self::open(parent_of(path)).is_ok();
            if error.first().code != Code::DirectoryMissing || !is_gone() {
                return error;
            }
            Error::new(
                Code::NoBackup,
                format!("no backup found: no such directory: {}", path.display()),
                "if a backup was made, check the path, and make sure that its file system is mounted; if none was, there is \
                 nothing to do",
            )
        })
    }
}
