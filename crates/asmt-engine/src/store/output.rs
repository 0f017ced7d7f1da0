//! Files that are written: they have no name that a reader takes for a backup until they are
//! published.

use crate::error::{Error, Result};
use crate::format::journal::{JOURNAL_PREFIX, TEMPORARY_PREFIX, published_name};
use crate::format::run_id::RunId;
use crate::store::Store;
use crate::store::direct::{ALIGNMENT, Buffer, make_direct, set_direct};

use crate::sys::fsync;
use rustix::fs::{self, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that buffered writing may leave in the page cache: the node's memory is not for a backup.
pub const MAX_CACHED_BYTES: u64 = 64 << 20;

/// A file that is being staged: it has no name that a reader takes for a backup.
pub struct OutputFile {
    file: OwnedFd,
    shown: String,
    temporary: String,
    name: String,
    /// Whether writes go past the page cache.
    is_direct: AtomicBool,
    /// Bytes written through the page cache since it was last emptied.
    cached_bytes: AtomicU64,
}

impl OutputFile {
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

    /// Writes all bytes at an offset, which is one of a sector; the memory is aligned. An odd end
    /// is filled up with zeros to a whole sector: [`Self::finish`] cuts what is too much.
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

impl Store {
    /// Makes a small file that is no part of a backup, or puts it in the place of what it said
    /// before; 0600, and durable when it returns. There is the whole old text or the whole new one,
    /// whatever fails. The caller holds [`Self::lock_marks`]: what is there of others' temporaries
    /// for this name, dead runs have left.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let temporary = format!("{TEMPORARY_PREFIX}{}.{name}", crate::sys::process::own_run()?);
        let names = self.names()?;
        let of_dead = names.iter().filter(|found| found.starts_with(TEMPORARY_PREFIX) && published_name(found) == name);
        self.remove_all(of_dead.map(String::as_str))?;
        let file = self.make(temporary.clone(), name, name)?;
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

    /// Makes a file to stage under a temporary name: empty, 0600, for this run alone.
    pub fn create(&self, run: &RunId, name: &str) -> Result<OutputFile> {
        let temporary = format!("{TEMPORARY_PREFIX}{run}.{name}");
        self.make(temporary.clone(), name, &temporary)
    }

    /// Makes a file under a name that nothing may have yet: empty, and 0600. Messages say what is
    /// `meant`.
    fn make(&self, temporary: String, name: &str, meant: &str) -> Result<OutputFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io("create", self.shown(meant), error))?;
        Ok(OutputFile::new(file, self.shown(&temporary), temporary, name, false))
    }

    /// Opens a staged file again, for writing: past the page cache where the file system does that.
    pub fn reopen(&self, temporary: &str, name: &str) -> Result<OutputFile> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, temporary, flags, Mode::empty())
            .map_err(|error| Error::io("open", self.shown(temporary), error))?;
        let is_direct = make_direct(&file);
        Ok(OutputFile::new(file, self.shown(temporary), temporary.to_owned(), name, is_direct))
    }

    /// Name of the journal of a run.
    pub fn journal_name(run: &RunId) -> String {
        format!("{JOURNAL_PREFIX}{run}")
    }
}
