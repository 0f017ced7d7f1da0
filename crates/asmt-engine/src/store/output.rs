//! Files that are written: until they are published, they have no name that a reader takes for a
//! backup.

use crate::error::{Error, Result};
use crate::format::journal::{JOURNAL_PREFIX, TEMPORARY_PREFIX, published_name, temporary_name};
use crate::format::run_id::RunId;
use crate::store::Store;
use crate::store::direct::{ALIGNMENT, Buffer, make_direct, read_at_most, set_direct};

use crate::sys::fsync;
use rustix::fs::{self, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most bytes that buffered writing leaves in the page cache: the node's memory is not for a
/// backup.
pub const MAX_CACHED_BYTES: u64 = 64 << 20;

/// A file that is being staged: it has no name that a reader takes for a backup.
pub struct OutputFile {
    file: OwnedFd,
    shown: String,
    temporary: String,
    name: String,
    /// Writes go past the page cache.
    is_direct: AtomicBool,
    /// Bytes that were written through the page cache since it was last emptied.
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

    /// Reserves blocks for a range. Returns false if the file system cannot reserve.
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

    /// Writes all bytes at the offset of a sector; the memory is aligned. An odd end is filled up
    /// with zeros to a whole sector, and [`Self::finish`] cuts it off.
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
            // It was opened for direct I/O, but the file system does not support it.
            Err(Errno::INVAL) => {
                set_direct(&self.file, false).map_err(|error| Error::io("fcntl", &self.shown, error))?;
                self.is_direct.store(false, Ordering::Relaxed);
                self.write_cached(offset, bytes)
            }
            other => other.map_err(|error| Error::io("write", &self.shown, error)),
        }
    }

    /// Writes through the page cache, and from time to time empties it of the written bytes.
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

    /// Reads back whole sectors that were written, past the page cache. `None` if the file system
    /// does no direct I/O: what is read then comes from memory and proves nothing.
    ///
    /// Errors: failed reads, also those that end early.
    pub fn read_back<'b>(&self, offset: u64, bytes: usize, buffer: &'b mut Buffer) -> Result<Option<&'b [u8]>> {
        if !self.is_direct.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let fail = |error| Error::io("read", format!("{} at {offset}", self.shown), error);
        let target = buffer.aligned(bytes);
        match read_at_most(self.file.as_fd(), offset, target, true) {
            Ok(read) if read == bytes => Ok(Some(target)),
            Ok(_) => Err(fail(Errno::IO)),
            // It takes direct writes and no direct reads.
            Err(Errno::INVAL) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::result::Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[done..], offset + done as u64) {
                // The device accepts nothing and reports no error.
                Ok(0) => return Err(Errno::IO),
                // Past the page cache, the next write must also begin at a sector.
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

    /// Sets size, owner and group. Returns the inode.
    pub fn finish(&self, size_bytes: u64, owner: Option<(u32, u32)>) -> Result<u64> {
        fs::ftruncate(&self.file, size_bytes).map_err(|error| Error::io("ftruncate", &self.shown, error))?;
        let stat = fs::fstat(&self.file).map_err(|error| Error::io("fstat", &self.shown, error))?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (stat.st_uid, stat.st_gid)) {
            let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
            fs::fchown(&self.file, Some(uid), Some(gid)).map_err(|error| Error::io("chown", &self.shown, error))?;
        }
        Ok(stat.st_ino)
    }

    /// Makes all of it durable, by the descriptor that wrote it, to which every error is reported.
    pub fn sync(self) -> Result<()> {
        fsync::file(&self.file, &self.name).map_err(|error| Error::io("fsync", &self.shown, error))
    }
}

impl Store {
    /// Atomically writes or replaces a small file that is not part of a backup, 0600. It is durable
    /// when this returns; after any failure there is the whole old text or the whole new one. The
    /// caller holds [`Self::lock_marks`]: temporary files of others for this name are leftovers of
    /// dead runs.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let temporary = temporary_name(&crate::sys::process::own_run()?, name);
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

    /// Makes a file to stage, under a temporary name: empty, 0600, for this run alone.
    pub fn create(&self, run: &RunId, name: &str) -> Result<OutputFile> {
        let temporary = temporary_name(run, name);
        self.make(temporary.clone(), name, &temporary)
    }

    /// Makes a file under a name that must be free: empty, 0600. Messages show the name `meant`.
    fn make(&self, temporary: String, name: &str, meant: &str) -> Result<OutputFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io("create", self.shown(meant), error))?;
        Ok(OutputFile::new(file, self.shown(&temporary), temporary, name, false))
    }

    /// Opens a staged file again, to write and read back: past the page cache where the file system
    /// does that.
    pub fn reopen(&self, temporary: &str, name: &str) -> Result<OutputFile> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, temporary, flags, Mode::empty())
            .map_err(|error| Error::io("open", self.shown(temporary), error))?;
        let is_direct = make_direct(&file);
        Ok(OutputFile::new(file, self.shown(temporary), temporary.to_owned(), name, is_direct))
    }

    /// The name of the journal of a run.
    pub fn journal_name(run: &RunId) -> String {
        format!("{JOURNAL_PREFIX}{run}")
    }
}
