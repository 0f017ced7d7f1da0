//! A backup directory: what is in it, reading from it, and staging files in it.
//!
//! Promise: the directory is opened once and everything is done relative to it; only regular files are read, and no
//! symbolic link is followed; files are 0600 from their creation; nothing is called part of a backup while it is
//! staged. Must never: remove the directory, or a file that asmt did not make.
//!
//! Names in the directory: `<key>.dat[.gz]` (ASMT's, and ours), `asmt-manifest-<instance>-<namespace>.json`,
//! `.asmt-tmp.<run>.<name>` (staged by a run), `.asmt-run.<run>` (its journal while it publishes) and the locks of
//! `store/lock.rs`. Neither ASMT 2.2.1 nor we take any of the last three for a backup. `<run>` names boot, process and its start, so that the leftovers of a
//! dead run are told from the work of a live one.

use crate::error::{Code, Error, Problem, Result};
use crate::facts::directory::{
    DirectoryRecord, FileRecord, Interrupted, Leftovers, Listing, ManifestRecord, MarkRecord, Owner, Target, Volatile, Writable,
};
use crate::format::journal::{JOURNAL_PREFIX, Journal, TEMPORARY_PREFIX, published_name};
use crate::format::mark::{Used, is_used_name};
use crate::format::run_id::RunId;
use crate::format::{
    ASMT_HEADER_BYTES, AsmtHeader, Encoding, Manifest, ManifestError, SECTOR_BYTES, is_manifest_name, manifest_name,
    parse_file_name,
};
use crate::hints;
use crate::progress::Control;
use crate::sys::dir::names_at;
use crate::sys::{fsync, procfs, tmpfiles};
use asmt_codec::GZIP_HEADER;
use asmt_codec::decode::MemberDecoder;
use asmt_shm::{Address, DataFinder, HEADER_BYTES, Header, Key};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

mod abilities;
mod above;
mod lock;

pub use lock::{LOCK_NAME, MARKS_LOCK_NAME, MarksLock};

/// Alignment of buffers, offsets and lengths for direct I/O. A device that asks for more gets buffered I/O.
const ALIGNMENT: usize = SECTOR_BYTES as usize;
/// Bytes that buffered writing may leave in the page cache: the node's memory is not for a backup.
const MAX_CACHED_BYTES: u64 = 64 << 20;
/// Largest manifest that is read: a chunk table for about 50 TiB.
const MAX_MANIFEST_BYTES: u64 = 512 << 20;
/// How long a run waits for another one that reads or writes marks.
const MARKS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Largest mark of use that is read.
const MAX_MARK_BYTES: u64 = 64 << 10;
/// Largest journal that is read: the names of ten times as many files as a namespace can have.
const MAX_JOURNAL_BYTES: u64 = 4 << 20;
/// File systems in memory: what is there is gone after a reboot. (One under an overlay is not seen.)
const VOLATILE_FILE_SYSTEMS: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
/// Directories in which a backup would stand among other things. A name in one of them will do.
const SYSTEM_DIRECTORIES: [&str; 12] =
    ["/", "/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var"];
/// An open backup directory.
pub struct Store {
    directory: OwnedFd,
    path: PathBuf,
    /// Whether its lock is held, and the file system keeps it.
    is_locked: AtomicBool,
    /// The file that is locked, where the directory itself will not do.
    lock_file: Mutex<Option<lock::LockFile>>,
    /// How files get their names here: an [`abilities::Naming`].
    naming: AtomicU8,
}

impl Drop for Store {
    fn drop(&mut self) {
        let held = std::mem::take(self.lock_file.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
        if let Some(held) = held {
            self.remove_lock(&held);
        }
    }
}

/// How a directory is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Readers: restore, verify.
    Shared,
    /// The one writer: backup.
    Exclusive,
}

impl Store {
    /// Opens a directory that must be there.
    ///
    /// Errors: `directory-missing`, `not-a-directory`, `permission-denied`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, OFlags::empty())
    }

    /// Opens the directory of a backup to read it. Where it is missing, and the one above it is there, nobody has made a
    /// backup there: that is told apart from a file system that is not mounted, or a path that was mistyped.
    ///
    /// Errors: as of [`Self::open`], and `no-backup`.
    pub fn open_backup(path: &Path) -> Result<Self> {
        Self::open(path).map_err(|error| {
            // A link that leads nowhere is there.
            let is_gone = || fs::lstat(path).is_err_and(|error| error == Errno::NOENT) && Self::open(parent_of(path)).is_ok();
            if error.first().code != Code::DirectoryMissing || !is_gone() {
                return error;
            }
            Error::new(
                Code::NoBackup,
                format!("no backup is there: no such directory: {}", path.display()),
                "if a backup was made, check the path, and that its file system is mounted; if none was, there is nothing to do",
            )
        })
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
            }),
            Err(Errno::NOENT) => Err(Error::new(
                Code::DirectoryMissing,
                format!("no such directory: {}", path.display()),
                "check the path, and that its file system is mounted",
            )),
            Err(Errno::NOTDIR) => Err(Error::new(
                Code::NotADirectory,
                format!("not a directory: {}", path.display()),
                "name the directory of the backup",
            )),
            Err(Errno::ACCESS) => Err(Error::new(
                Code::PermissionDenied,
                format!("no permission to read directory {}", path.display()),
                "run it as root, or as the directory's owner",
            )),
            Err(error) => Err(Error::io("open", path.display(), error)),
        }
    }

    /// Looks where a backup to this path would go, and makes nothing: at the directory, or at the one above it.
    ///
    /// Errors: as of [`Self::open`], but for a directory that is not there.
    pub fn look(path: &Path) -> Result<Listing> {
        let (directory, target) = match Self::open(path) {
            Ok(store) => (store.record()?, store.target()?),
            Err(error) if error.first().code == Code::DirectoryMissing => {
                let store = match Self::open(parent_of(path)) {
                    Err(error) if error.first().code == Code::DirectoryMissing => return Err(nothing_above(path)),
                    other => other?,
                };
                let (parent, above) = (store.record_of(path.file_name())?, above::steps(None, path)?);
                let directory = DirectoryRecord { path: path.display().to_string(), owner: None, above, ..parent };
                (directory, store.target()?)
            }
            Err(error) => return Err(error),
        };
        Ok(Listing { directory: Some(directory), target: Some(target), ..Listing::default() })
    }

    /// Looks at what a backup could write in the directory.
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

    /// Opens a directory, making it (mode 0700) if it is missing. Its parent must be there. Its own entry is durable.
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
                format!("no permission to write in directory {}", path.display()),
                "run it as root, or as the directory's owner",
            )),
            // Whatever else it is, the first file will say so.
            _ => Ok(store),
        }
    }

    /// Makes a directory and opens it; opens it, too, if somebody else was faster.
    fn make_directory(path: &Path) -> Result<Self> {
        // What was made here is no link, and must not have become one: whoever can put one there chooses where this goes.
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
                    format!("no permission to make directory {}", path.display()),
                    "run it as root, or make the directory for this user first",
                ));
            }
            Err(Errno::NOTDIR) => {
                return Err(Error::new(
                    Code::NotADirectory,
                    format!("not a directory: above {}", path.display()),
                    "check the path",
                ));
            }
            Err(error) => return Err(Error::io("mkdir", path.display(), error)),
        }
        Self::open_as(path, more)
    }

    /// Makes the directory's own entry durable: also if it was there, for a run that was killed may have made it.
    fn sync_parent(&self) -> Result<()> {
        match fs::openat(&self.directory, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => fsync::directory(parent, "the directory itself, in its parent")
                .map_err(|error| Error::io("fsync", self.path.join("..").display(), error)),
            // Made by somebody who may do more than this caller.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(Error::io("open", self.path.join("..").display(), error)),
        }
    }

    /// Looks at the directory itself.
    pub fn record(&self) -> Result<DirectoryRecord> {
        self.record_of(None)
    }

    /// Looks at the directory, or at where one of this name would be in it.
    fn record_of(&self, name: Option<&OsStr>) -> Result<DirectoryRecord> {
        let stat = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        let system = fs::fstatfs(&self.directory).map_err(|error| Error::io("statfs", self.path.display(), error))?;
        // A signed number in some places.
        let kind = system.f_type as u64 & 0xffff_ffff;
        Ok(DirectoryRecord {
            path: self.path.display().to_string(),
            owner: Some(owner_of(&stat)),
            is_sticky: stat.st_mode & 0o1000 != 0,
            volatile: match VOLATILE_FILE_SYSTEMS.iter().find(|(known, _)| *known == kind) {
                Some((_, name)) => Some(Volatile::InMemory(name)),
                None => {
                    let place = self.real_path()?;
                    tmpfiles::emptied_by(&name.map_or(place.clone(), |name| place.join(name)))?.map(Volatile::EmptiedAtBoot)
                }
            },
            is_systems: name.is_none() && self.is_systems()?,
            above: above::steps(Some(&self.directory), &self.path)?,
        })
    }

    /// Whether it is one of the system's directories, with other things in it and no backup.
    fn is_systems(&self) -> Result<bool> {
        let place = self.real_path()?;
        if !SYSTEM_DIRECTORIES.iter().any(|known| place == Path::new(known)) {
            return Ok(false);
        }
        let names = self.names()?;
        let is_of_backup = |name: &String| parse_file_name(name).is_some() || is_manifest_name(name);
        // A disk of its own, mounted there, has this and nothing else.
        let is_other = |name: &String| !is_own_name(name) && name != "lost+found";
        Ok(!names.iter().any(is_of_backup) && names.iter().any(is_other))
    }

    /// Its path without links, as the kernel knows it.
    fn real_path(&self) -> Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        std::fs::read_link(&link).map_err(|error| procfs::failed("readlink", Path::new(&link), error))
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Names in the directory, as of [`names_of`].
    fn names(&self) -> Result<Vec<String>> {
        // A descriptor of its own, so that listing twice starts at the beginning twice.
        names_at(&self.directory, Path::new("."), &self.path)
    }

    /// Looks at what is in the directory: names, owners, sizes, headers, manifests. Reads no data.
    ///
    /// Errors: failed system calls. What is wrong with single files is in [`Listing::problems`].
    pub fn list(&self) -> Result<Listing> {
        let names = self.names()?;
        let mut listing = Listing { directory: Some(self.record()?), ..Listing::default() };
        listing.leftovers = self.leftovers(&names, &mut listing.problems)?;
        let swept: BTreeSet<&str> = listing.leftovers.sweep.iter().map(String::as_str).collect();
        let mut files: BTreeMap<Key, FileRecord> = BTreeMap::new();
        for name in names.iter().filter(|name| !swept.contains(name.as_str())) {
            if let Some((key, address, encoding)) = parse_file_name(name) {
                match listed(name, self.file_record(name, key, address, encoding))? {
                    Ok(record) => {
                        if let Some(other) = files.get(&key) {
                            let message =
                                format!("{} and {name} are both of segment {key}, expected one", self.shown(&other.name));
                            let problem = Problem::new(Code::ExtraFile, message, hints::TWICE);
                            listing.problems.push((name.clone(), problem.in_file(name)));
                        }
                        files.insert(key, record);
                    }
                    Err(problem) => listing.problems.push((name.clone(), problem)),
                }
            } else if is_manifest_name(name) {
                match listed(name, self.read_manifest(name))? {
                    Ok(manifest) => listing.manifests.push(manifest),
                    Err(problem) => listing.problems.push((name.clone(), problem)),
                }
            } else if !is_own_name(name) {
                listing.has_other_names = true;
            }
        }
        listing.marks = self.marks_among(&names)?;
        listing.files = files.into_values().collect();
        Ok(listing)
    }

    /// Reads every mark of use again. Only under [`Self::lock_marks`] do they stay as they are read.
    ///
    /// Errors: failed calls.
    pub fn marks(&self) -> Result<Vec<MarkRecord>> {
        self.marks_among(&self.names()?)
    }

    fn marks_among(&self, names: &[String]) -> Result<Vec<MarkRecord>> {
        let mut marks = Vec::new();
        for name in names.iter().filter(|name| is_used_name(name)) {
            let mark = match self.read_text(name, MAX_MARK_BYTES) {
                Ok(Ok(found)) if found.is_open_elsewhere() => Err(found.why_open()),
                Ok(Ok(found)) => found.text.ok_or_else(|| "it is no text".to_owned()).and_then(|text| Used::parse(&text)),
                Ok(Err(problem)) => Err(problem.message),
                // It was listed, and is gone: what it said is not known.
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => Err("it went away".to_owned()),
                Err(error) => return Err(error),
            };
            marks.push((name.clone(), mark));
        }
        Ok(marks)
    }

    fn file_record(
        &self,
        name: &str,
        key: Key,
        address: Address,
        encoding: Encoding,
    ) -> Result<std::result::Result<FileRecord, Problem>> {
        let file = match self.open_file(name)? {
            Ok(file) => file,
            Err(problem) => return Ok(Err(problem)),
        };
        let stat = fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        let file_bytes = stat.st_size.cast_unsigned();
        let needs_header = address.segment_type.has_header();
        let mut record = FileRecord {
            name: name.to_owned(),
            key,
            address,
            encoding,
            file_bytes,
            allocated_bytes: stat.st_blocks.cast_unsigned().saturating_mul(512),
            size_bytes: file_bytes,
            crc32: None,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o777,
            link_count: link_count(&stat),
            modified_ms: modified_ms(&stat),
            header: Header::None,
        };
        let wanted = match (encoding, needs_header) {
            (Encoding::Raw, false) => 0,
            (Encoding::Raw, true) => HEADER_BYTES,
            (Encoding::Gzip, false) => ASMT_HEADER_BYTES,
            // Enough compressed bytes for the first few decoded ones, whoever compressed them.
            (Encoding::Gzip, true) => 256 << 10,
        };
        let mut bytes = vec![0; wanted.min(usize::try_from(file_bytes).unwrap_or(wanted))];
        let read =
            read_at_most(file.as_fd(), 0, &mut bytes, false).map_err(|error| Error::io("read", self.shown(name), error))?;
        bytes.truncate(read);
        if encoding == Encoding::Raw {
            record.header = Header::parse(address.segment_type, &bytes);
            return Ok(Ok(record));
        }
        match AsmtHeader::parse(&bytes) {
            Ok(header) => {
                record.size_bytes = header.size_bytes;
                record.crc32 = Some(header.crc32);
            }
            Err(text) => {
                let message = format!("{} at 0 (segment {key}): {text}", self.shown(name));
                let hint = hints::DAMAGED;
                return Ok(Err(Problem::new(Code::ContentDamaged, message, hint).in_file(name).at(0)));
            }
        }
        if needs_header {
            let mut start = vec![0; HEADER_BYTES.min(usize::try_from(record.size_bytes).unwrap_or(HEADER_BYTES))];
            let made = inflate_start(&bytes[ASMT_HEADER_BYTES..], &mut start);
            record.header = Header::parse(address.segment_type, &start[..made]);
        }
        Ok(Ok(record))
    }

    fn unsafe_file(&self, name: &str, what: &str) -> Problem {
        let message = format!("{} is {what}, expected a regular file", self.shown(name));
        Problem::new(Code::UnsafeFile, message, hints::NOT_REGULAR).in_file(name)
    }

    /// Opens a file for reading if it is a regular file. The inner error says what it is instead.
    ///
    /// It may have other names, in directories that others may enter, as hard-linked generations of a backup have:
    /// what can be done by another name is decided by the file's own owner and mode, which the plan judges.
    fn open_file(&self, name: &str) -> Result<std::result::Result<OwnedFd, Problem>> {
        let unsafe_file = |what: &str| Ok(Err(self.unsafe_file(name, what)));
        // Not blocking: opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(&self.directory, name, flags, Mode::empty()) {
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

    /// The inner error says why a file that bears a manifest's name must not be read.
    fn read_manifest(&self, name: &str) -> Result<std::result::Result<ManifestRecord, Problem>> {
        let Text { text, owner, link_count } = match self.read_text(name, MAX_MANIFEST_BYTES)? {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        };
        let manifest = match text {
            Some(text) => Manifest::parse(&text),
            None => Err(ManifestError::Damaged(format!("it is no JSON of at most {MAX_MANIFEST_BYTES} bytes"))),
        };
        // A manifest renamed to another namespace's is not that namespace's.
        let manifest = manifest.and_then(|manifest| {
            let own_name = manifest_name(manifest.instance, &manifest.namespace);
            if own_name == name { Ok(manifest) } else { Err(ManifestError::Damaged(format!("it is of {own_name}"))) }
        });
        Ok(Ok(ManifestRecord { name: name.to_owned(), owner, link_count, manifest }))
    }

    /// Text of a file of JSON, and whose it is; no text if it is longer, not UTF-8, or does not begin like JSON.
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

    /// Finds what dead runs left, and live ones. What is no file under such a name is not asmt's, and not swept.
    fn leftovers(&self, names: &[String], problems: &mut Vec<(String, Problem)>) -> Result<Leftovers> {
        let (own, is_locked) = (crate::sys::process::own_run()?, self.is_locked.load(Ordering::Relaxed));
        let mut leftovers = Leftovers::default();
        let mut temporaries = Vec::new();
        let mut journals = Vec::new();
        for name in names {
            let run = match (name.strip_prefix(TEMPORARY_PREFIX), name.strip_prefix(JOURNAL_PREFIX)) {
                (Some(rest), _) => rest.split_once('.').and_then(|(run, _)| RunId::parse(run)),
                (_, Some(run)) => RunId::parse(run),
                _ => None,
            };
            let Some(run) = run else { continue };
            let is_file = match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
                // Gone since it was listed.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(Error::io("stat", self.shown(name), error)),
            };
            let is_of_mark = is_used_name(published_name(name));
            if crate::sys::process::is_other_and_may_live(&run, &own, is_locked)? {
                // Who writes a mark is not at work on the files.
                if !is_of_mark && !leftovers.live.contains(&run) {
                    leftovers.live.push(run);
                }
            } else if !is_file {
                let mut problem = self.unsafe_file(name, "no regular file");
                hints::NOT_OURS.clone_into(&mut problem.hint);
                problems.push((name.clone(), problem));
            } else if name.starts_with(JOURNAL_PREFIX) {
                journals.push(name);
            } else {
                temporaries.push(name.clone());
            }
        }
        for name in &journals {
            let found = self.read_text(name, MAX_JOURNAL_BYTES)?.ok().filter(|found| !found.is_open_elsewhere());
            let text = found.and_then(|found| found.text);
            // A journal is renamed into place when it is whole; one that cannot be read is not ours.
            let Some(journal) = text.and_then(|text| serde_json::from_str::<Journal>(&text).ok()) else { continue };
            self.judge_journal(&journal, &mut leftovers)?;
        }
        // Journals last: while one is there, what it lists can still be swept by the next run.
        leftovers.sweep.extend(temporaries);
        leftovers.sweep.extend(journals.into_iter().cloned());
        Ok(leftovers)
    }

    /// Decides what becomes of the files that a dead run had begun to publish.
    ///
    /// The last file of a namespace commits it. Where another one stands under that name, somebody has put a backup there
    /// since, for instance with `cp`: then nothing of that namespace is the dead run's, whatever its inode, which may have
    /// been used again.
    fn judge_journal(&self, journal: &Journal, leftovers: &mut Leftovers) -> Result<()> {
        let mut committed = BTreeSet::new();
        let mut uncommitted = BTreeSet::new();
        let mut published = Vec::new();
        for namespace in &journal.namespaces {
            // The names are claims: only those that a backup can have are looked at.
            let is_of_backup = |name: &str| parse_file_name(name).is_some() || is_manifest_name(name);
            let mut there = Vec::new();
            let mut is_committed = false;
            let mut is_replaced = false;
            for (index, (name, inode)) in namespace.files.iter().enumerate().filter(|(_, (name, _))| is_of_backup(name)) {
                let is_last = index + 1 == namespace.files.len();
                match self.inode_of(name)? {
                    Some(found) if found == *inode => {
                        there.push(name.clone());
                        is_committed = is_last;
                    }
                    Some(_) => is_replaced = is_last,
                    None => {}
                }
            }
            if is_committed {
                committed.insert(&namespace.namespace);
                published.push(there);
            } else if !is_replaced {
                uncommitted.insert((namespace.instance(), &namespace.namespace));
                leftovers.sweep.extend(there.into_iter().rev());
            }
        }
        uncommitted.retain(|(_, name)| !committed.contains(name));
        if !uncommitted.is_empty() {
            leftovers.superseded.extend(published.into_iter().flatten());
        }
        leftovers.interrupted.extend(
            uncommitted
                .into_iter()
                .filter_map(|(instance, name)| Some(Interrupted { instance: instance?, namespace: name.clone() })),
        );
        Ok(())
    }

    /// Inode of a name, itself and not what a link leads to; `None` if it is not there.
    pub fn inode_of(&self, name: &str) -> Result<Option<u64>> {
        match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("stat", self.shown(name), error)),
        }
    }

    /// Removes names, in order; one that is gone already is no error. Durable when it returns.
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

    /// Removes what dead runs left: journals only when what they account for is gone for good. Where this run takes the
    /// place of what such a run had committed, they stay until its own journal accounts for that; gives their names.
    pub fn sweep(&self, leftovers: &Leftovers, takes_places: bool) -> Result<Vec<String>> {
        let (journals, files): (Vec<&str>, Vec<&str>) =
            leftovers.sweep.iter().map(String::as_str).partition(|name| name.starts_with(JOURNAL_PREFIX));
        self.remove_all(files.into_iter())?;
        if takes_places {
            return Ok(journals.into_iter().map(str::to_owned).collect());
        }
        self.remove_all(journals.into_iter()).map(|()| Vec::new())
    }

    /// Makes the directory's entries durable; `what` says which ones are meant.
    pub fn sync(&self, what: &str) -> Result<()> {
        fsync::directory(&self.directory, what).map_err(|error| Error::io("fsync", self.path.display(), error))
    }

    /// Fails if the file system has died: a file of the directory is asked, for a directory's own fsync may not say so.
    pub fn check_alive(&self, name: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::openat(&self.directory, name, flags, Mode::empty()) {
            // It was given to the segments' owner, and is closed to others. A manifest is the caller's own: it will answer.
            Err(Errno::ACCESS) => return Ok(()),
            other => other.map_err(|error| Error::io("open", self.shown(name), error))?,
        };
        fsync::ask(file).map_err(|error| Error::io("fsync", self.shown(name), error))
    }

    /// Whether files can be made in it, as far as permissions and the mount say.
    ///
    /// Errors: failed calls.
    pub fn is_writable(&self) -> Result<bool> {
        Ok(self.target()?.writable == Writable::Yes)
    }

    /// Makes a small file that is no part of a backup, or puts it in the place of what it said before; 0600, and durable
    /// when it returns. There is the whole old text or the whole new one, whatever fails. The caller holds
    /// [`Self::lock_marks`]: what is there of others' temporaries for this name, dead runs have left.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let temporary = format!("{TEMPORARY_PREFIX}{}.{name}", crate::sys::process::own_run()?);
        let names = self.names()?;
        let of_dead = names.iter().filter(|found| found.starts_with(TEMPORARY_PREFIX) && published_name(found) == name);
        self.remove_all(of_dead.map(String::as_str))?;
        let file = self.make(temporary.clone(), name)?;
        let placed = file.write(0, text.as_bytes()).and_then(|()| file.sync()).and_then(|()| {
            fs::renameat(&self.directory, &temporary, &self.directory, name)
                .map_err(|error| Error::io("rename", self.shown(name), error))
        });
        if let Err(error) = placed {
            return Err(match self.remove_all(std::iter::once(temporary.as_str())) {
                Ok(()) => error,
                Err(other) => error.and_while_cleaning_up(other),
            });
        }
        self.sync("a mark")?;
        self.check_alive(name)
    }

    /// Fails if the path leads elsewhere by now: what was written would not be where it is looked for.
    pub fn check_place(&self) -> Result<()> {
        let own = fs::fstat(&self.directory).map_err(|error| Error::io("fstat", self.path.display(), error))?;
        match fs::stat(&self.path) {
            Ok(there) if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Error::new(
                Code::DirectoryMoved,
                format!("{} was removed, renamed or replaced while the backup was made", self.path.display()),
                "find out who else works on this directory, then run it again",
            )),
            Err(error) => Err(Error::io("stat", self.path.display(), error)),
        }
    }

    /// Bytes this user can still have of the file system; `None` where it does not say, as a ramfs.
    pub fn free_bytes(&self) -> Result<Option<u64>> {
        let stat = fs::fstatvfs(&self.directory).map_err(|error| Error::io("statvfs", self.path.display(), error))?;
        let blocks = if rustix::process::geteuid().is_root() { stat.f_bfree } else { stat.f_bavail };
        Ok((stat.f_blocks > 0).then(|| blocks.saturating_mul(stat.f_frsize)))
    }

    /// What a file occupies on the disk, for a report: `None` where the file system does not say.
    pub fn allocated_bytes(&self, name: &str) -> Option<u64> {
        let stat = fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(stat.st_blocks.cast_unsigned().saturating_mul(512))
    }

    /// Makes a file to stage under a temporary name: empty, 0600, for this run alone.
    pub fn create(&self, run: &RunId, name: &str) -> Result<StagedFile> {
        self.make(format!("{TEMPORARY_PREFIX}{run}.{name}"), name)
    }

    /// Makes a file under a name that nothing may have yet: empty, and 0600.
    fn make(&self, temporary: String, name: &str) -> Result<StagedFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io("create", self.shown(&temporary), error))?;
        Ok(StagedFile::new(file, self.shown(&temporary), temporary, name, false))
    }

    /// Opens a staged file again, for writing: past the page cache where the file system does that.
    pub fn reopen(&self, temporary: &str, name: &str) -> Result<StagedFile> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, temporary, flags, Mode::empty())
            .map_err(|error| Error::io("open", self.shown(temporary), error))?;
        let is_direct = make_direct(&file);
        Ok(StagedFile::new(file, self.shown(temporary), temporary.to_owned(), name, is_direct))
    }

    /// Name of the journal of a run.
    pub fn journal_name(run: &RunId) -> String {
        format!("{JOURNAL_PREFIX}{run}")
    }

    /// Opens a file of a backup, or a staged one, for reading.
    ///
    /// `expected_bytes` is the size it must have. It is read past the page cache where the file system does that;
    /// [`InFile::is_from_disk`] says so. `from_disk` asks to do what can be done where it does not.
    pub fn read(&self, name: &str, expected_bytes: u64, from_disk: bool) -> Result<InFile> {
        let file = self.open_file(name)?.map_err(Error::from)?;
        let stat = fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        let file_bytes = stat.st_size.cast_unsigned();
        if file_bytes != expected_bytes {
            return Err(Error::new(
                Code::WrongSize,
                format!("{} has {file_bytes} bytes, expected {expected_bytes}", self.shown(name)),
                hints::DAMAGED,
            ));
        }
        let is_direct = make_direct(&file);
        if from_disk && !is_direct {
            // The next best: ask the kernel to drop what it has. It may keep it.
            let _ = fs::fadvise(&file, 0, None, fs::Advice::DontNeed);
        }
        Ok(InFile { file: DataFinder::new(file), shown: self.shown(name), file_bytes, is_direct: AtomicBool::new(is_direct) })
    }
}

/// When a file was last written, milliseconds since 1970.
pub fn modified_ms(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000).saturating_add(stat.st_mtime_nsec / 1_000_000)
}

/// Why a backup cannot make its directory.
fn nothing_above(path: &Path) -> Error {
    Error::new(
        Code::DirectoryMissing,
        format!("cannot make directory {}: the directory above it is not there", path.display()),
        "see first that its file system is mounted: what goes below the place of a mount cannot be seen later; then make it",
    )
}

/// The directory above a path.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a small file says, and who may write it.
struct Text {
    /// `None` where it is none.
    text: Option<String>,
    owner: Owner,
    link_count: u64,
}

impl Text {
    /// Whether others may write to it by another name, wherever that is.
    fn is_open_elsewhere(&self) -> bool {
        let is_trusted = self.owner.uid == 0 || self.owner.uid == rustix::process::geteuid().as_raw();
        self.link_count > 1 && !(is_trusted && self.owner.mode & 0o022 == 0)
    }

    fn why_open(&self) -> String {
        let Owner { uid, mode } = self.owner;
        format!("it has {} links, uid {uid} and mode {mode:04o}, so that others may write to it", self.link_count)
    }
}

/// The count has another type on some architectures.
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
pub(crate) fn link_count(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_nlink).unwrap_or(u64::MAX)
}

/// Whether a name in a backup directory is asmt's, but of no segment and no manifest.
fn is_own_name(name: &str) -> bool {
    let is_of_run = name.starts_with(TEMPORARY_PREFIX) || name.starts_with(JOURNAL_PREFIX);
    is_of_run || is_used_name(name) || matches!(name, "." | ".." | LOCK_NAME | MARKS_LOCK_NAME)
}

fn owner_of(stat: &fs::Stat) -> Owner {
    Owner { uid: stat.st_uid, mode: stat.st_mode & 0o777 }
}

/// What is wrong with one file is a finding, so that the others are looked at, too; anything else is a failure.
fn listed<T>(name: &str, outcome: Result<std::result::Result<T, Problem>>) -> Result<std::result::Result<T, Problem>> {
    match outcome {
        Err(error) if error.is_of_one_file() => Ok(Err(error.first().clone().in_file(name))),
        other => other,
    }
}

/// Asks for I/O past the page cache, if sectors of [`ALIGNMENT`] suit the file. Gives whether it will be.
fn make_direct(file: &OwnedFd) -> bool {
    let asked = fs::StatxFlags::DIOALIGN;
    let suits = match fs::statx(file, "", AtFlags::EMPTY_PATH, asked) {
        // A kernel before 6.1 or a file system does not say; then the first read or write does.
        // 0 says not at all, and nothing is a multiple of it.
        Ok(stat) if stat.stx_mask & asked.bits() != 0 => [stat.stx_dio_mem_align, stat.stx_dio_offset_align]
            .iter()
            .all(|alignment| ALIGNMENT.is_multiple_of(*alignment as usize)),
        _ => true,
    };
    suits && !fsync::is_direct_io_off() && set_direct(file, true).is_ok()
}

fn set_direct(file: &OwnedFd, direct: bool) -> std::result::Result<(), Errno> {
    let flags = fs::fcntl_getfl(file)? & !OFlags::NONBLOCK;
    fs::fcntl_setfl(file, if direct { flags | OFlags::DIRECT } else { flags & !OFlags::DIRECT })
}

/// Inflates the first bytes of a gzip member; gives how many it could.
fn inflate_start(member: &[u8], output: &mut [u8]) -> usize {
    let Ok(mut decoder) = MemberDecoder::new(member) else { return 0 };
    // One step goes as far as what is there of either: a failure in it makes nothing of what came before trustworthy.
    decoder.step(&member[GZIP_HEADER.len()..], output).map_or(0, |step| step.made)
}

/// Reads until the buffer is full or the file ends.
fn read_at_most(file: BorrowedFd<'_>, offset: u64, buffer: &mut [u8], is_direct: bool) -> std::result::Result<usize, Errno> {
    let mut done = 0;
    // Past the page cache a read can only go on at a sector; within one, the file has ended.
    while done < buffer.len() && !(is_direct && done % ALIGNMENT != 0) {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A file that is being staged: it has no name that a reader takes for a backup.
pub struct StagedFile {
    file: OwnedFd,
    shown: String,
    temporary: String,
    name: String,
    /// Whether writes go past the page cache.
    is_direct: AtomicBool,
    /// Bytes written through the page cache since it was last emptied.
    cached_bytes: AtomicU64,
}

impl StagedFile {
    fn new(file: OwnedFd, shown: String, temporary: String, name: &str, is_direct: bool) -> Self {
        let (is_direct, cached_bytes) = (AtomicBool::new(is_direct), AtomicU64::new(0));
        Self { file, shown, temporary, name: name.to_owned(), is_direct, cached_bytes }
    }

    /// Its temporary name.
    pub fn temporary(&self) -> &str {
        &self.temporary
    }

    /// Its final name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reserves blocks for a range. False if the file system cannot reserve.
    ///
    /// Errors: `disk-full`, and other failures of `fallocate`.
    pub fn reserve(&self, offset: u64, bytes: u64) -> Result<bool> {
        if bytes == 0 {
            return Ok(true);
        }
        loop {
            match fs::fallocate(&self.file, FallocateFlags::empty(), offset, bytes) {
                Ok(()) => return Ok(true),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("fallocate", &self.shown, error)),
            }
        }
    }

    /// Writes all bytes at an offset, which is one of a sector; the memory is aligned. An odd end is filled up with zeros
    /// to a whole sector: [`Self::finish`] cuts what is too much.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if !self.is_direct.load(Ordering::Relaxed) {
            return self.write_cached(offset, bytes);
        }
        let (whole, odd) = bytes.split_at(bytes.len() - bytes.len() % ALIGNMENT);
        let mut end = Buffer::default();
        let outcome = self.write_at(offset, whole).and_then(|()| {
            if odd.is_empty() {
                return Ok(());
            }
            let sector = end.aligned(ALIGNMENT);
            sector[..odd.len()].copy_from_slice(odd);
            sector[odd.len()..].fill(0);
            self.write_at(offset + whole.len() as u64, sector)
        });
        match outcome {
            // It was opened for direct I/O, and still the file system does not do it.
            Err(Errno::INVAL) => {
                set_direct(&self.file, false).map_err(|error| Error::io("fcntl", &self.shown, error))?;
                self.is_direct.store(false, Ordering::Relaxed);
                self.write_cached(offset, bytes)
            }
            other => other.map_err(|error| Error::io("write", &self.shown, error)),
        }
    }

    /// Writes through the page cache, and empties that of what was written now and then.
    fn write_cached(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_at(offset, bytes).map_err(|error| Error::io("write", &self.shown, error))?;
        let length = bytes.len() as u64;
        let before = self.cached_bytes.fetch_add(length, Ordering::Relaxed);
        if before / MAX_CACHED_BYTES != (before + length) / MAX_CACHED_BYTES {
            fsync::contents(&self.file).map_err(|error| Error::io("fdatasync", &self.shown, error))?;
            let _ = fs::fadvise(&self.file, 0, None, fs::Advice::DontNeed);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::result::Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[done..], offset + done as u64) {
                // A device that takes nothing and says nothing.
                Ok(0) => return Err(Errno::IO),
                // Past the page cache the next write must begin at a sector, too.
                Ok(count) if self.is_direct.load(Ordering::Relaxed) => {
                    done += Some(count - count % ALIGNMENT).filter(|whole| *whole > 0).ok_or(Errno::IO)?;
                }
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets size, owner and group. Gives the inode.
    pub fn finish(&self, size_bytes: u64, owner: Option<(u32, u32)>) -> Result<u64> {
        fs::ftruncate(&self.file, size_bytes).map_err(|error| Error::io("ftruncate", &self.shown, error))?;
        let stat = fs::fstat(&self.file).map_err(|error| Error::io("fstat", &self.shown, error))?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (stat.st_uid, stat.st_gid)) {
            let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
            fs::fchown(&self.file, Some(uid), Some(gid)).map_err(|error| Error::io("chown", &self.shown, error))?;
        }
        Ok(stat.st_ino)
    }

    /// Makes all of it durable. On the descriptor that wrote, which is told of every error.
    pub fn sync(self) -> Result<()> {
        fsync::file(&self.file, &self.name).map_err(|error| Error::io("fsync", &self.shown, error))
    }
}

/// A file of a backup, open for reading.
pub struct InFile {
    file: DataFinder<OwnedFd>,
    shown: String,
    file_bytes: u64,
    is_direct: AtomicBool,
}

impl InFile {
    /// Size in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Its path, for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether reads go past the page cache.
    pub fn is_from_disk(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    /// The next range that may hold data; the rest of `from..to` is holes, which read as zeros.
    pub fn next_data(&self, from: u64, to: u64) -> Result<Option<std::ops::Range<u64>>> {
        match self.file.next_data(from, to) {
            Ok(range) => Ok(range),
            // A file system with no such call, which is asked only where there is something to find: everything is data.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Some(from..to)),
            Err(error) => Err(Error::io("lseek", &self.shown, error)),
        }
    }

    /// Reads exactly these bytes.
    ///
    /// Errors: `wrong-size` if the file ends before; failed reads, with the offset.
    pub fn read<'b>(&self, offset: u64, length: usize, buffer: &'b mut Buffer) -> Result<&'b mut [u8]> {
        let skipped = (offset % SECTOR_BYTES) as usize;
        let whole = (skipped + length).next_multiple_of(ALIGNMENT);
        let target = buffer.aligned(whole);
        self.read_sectors(offset - skipped as u64, target, skipped + length)?;
        Ok(&mut target[skipped..skipped + length])
    }

    /// Reads exactly so many bytes as the memory has, which is aligned as `offset` is: both at a sector.
    ///
    /// Errors: as of [`Self::read`].
    pub fn read_into(&self, offset: u64, memory: &mut [u8]) -> Result<()> {
        let (whole, odd) = memory.split_at_mut(memory.len() - memory.len() % ALIGNMENT);
        let length = whole.len();
        self.read_sectors(offset, whole, length)?;
        if !odd.is_empty() {
            odd.copy_from_slice(self.read(offset + length as u64, odd.len(), &mut Buffer::default())?);
        }
        Ok(())
    }

    /// Reads whole sectors, of which so many bytes are needed: the file may end in the last one.
    fn read_sectors(&self, offset: u64, target: &mut [u8], needed: usize) -> Result<()> {
        let fail = |error| Error::io("read", format!("{} at {offset}", self.shown), error);
        let read = match read_at_most(self.file.file().as_fd(), offset, target, self.is_from_disk()) {
            // It was opened for direct I/O, and still the file system does not do it.
            Err(Errno::INVAL) if self.is_from_disk() => {
                set_direct(self.file.file(), false).map_err(fail)?;
                self.is_direct.store(false, Ordering::Relaxed);
                read_at_most(self.file.file().as_fd(), offset, target, false).map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        if !self.is_from_disk() {
            // What was read is not read again: it need not stay in the node's memory.
            let length = std::num::NonZero::new(read as u64);
            let _ = length.map(|length| fs::fadvise(self.file.file(), offset, Some(length), fs::Advice::DontNeed));
        }
        if read < needed {
            let stat = fs::fstat(self.file.file()).map_err(|error| Error::io("fstat", &self.shown, error))?;
            if stat.st_size.cast_unsigned() > offset + read as u64 {
                // The file goes on, and still no whole sector came: the device has failed in the middle of it.
                return Err(fail(Errno::IO));
            }
            let end = offset + read as u64;
            let message = format!("{} ends at {end}, expected {} bytes", self.shown, self.file_bytes);
            let hint = hints::DAMAGED;
            return Err(Problem::new(Code::WrongSize, message, hint).at(end).into());
        }
        Ok(())
    }
}

/// Memory to read into, aligned for direct I/O. Grows to the largest read and stays so.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// `length` bytes, aligned, with whatever they held before.
    pub fn aligned(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + ALIGNMENT {
            // Nothing to keep: not resized, so that nothing is copied.
            self.0 = vec![0; length + ALIGNMENT];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        &mut self.0[start..start + length]
    }
}
