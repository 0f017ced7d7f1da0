//! Files of a backup that are read.

use crate::error::{Code, Error, Problem, Result};
use crate::format::SECTOR_BYTES;
use crate::hints;
use crate::store::Store;
use crate::store::direct::{ALIGNMENT, Buffer, make_direct, read_at_most, set_direct};
use asmt_shm::DataFinder;

use rustix::fs;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file of a backup, open for reading.
pub struct InputFile {
    file: DataFinder<OwnedFd>,
    shown: String,
    file_bytes: u64,
    is_direct: AtomicBool,
}

impl InputFile {
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
            // A file system with no such call, which is asked only where there is something to
            // find: everything is data.
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

    /// Reads exactly so many bytes as the memory has, which is aligned as `offset` is: both at a
    /// sector.
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
                // The file goes on, and still no whole sector came: the device has failed in the
                // middle of it.
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

impl Store {
    /// Opens a file of a backup, or a staged one, for reading.
    ///
    /// `expected_bytes` is the size it must have. It is read past the page cache where the file
    /// system does that; [`InputFile::is_from_disk`] says so. `from_disk` asks to do what can be
    /// done where it does not.
    pub fn read(&self, name: &str, expected_bytes: u64, from_disk: bool) -> Result<InputFile> {
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
        Ok(InputFile { file: DataFinder::new(file), shown: self.shown(name), file_bytes, is_direct: AtomicBool::new(is_direct) })
    }
}
