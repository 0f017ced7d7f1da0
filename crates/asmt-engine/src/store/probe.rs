//! A short write to the target of a backup, and a short read of a backup, to tell how long the
//! whole would take.
//!
//! Promise: what is written never has a name that stays. It is a file without a name, or one under
//! a name that the next backup sweeps, which is removed before the first byte is written; so it
//! goes with its descriptor, however the process ends. It takes at most a sixteenth of the free
//! space. Must never: touch another file.

use crate::error::{Error, Result};
use crate::format::journal::TEMPORARY_PREFIX;
use crate::progress::Control;
use crate::store::Store;
use crate::store::direct::{Buffer, make_direct, set_direct};
use crate::store::place::parent_of;
use crate::sys::fsync;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes of a probe, and most time.
const MOST_BYTES: u64 = 64 << 20;
const MOST_TIME: Duration = Duration::from_millis(700);
/// Bytes of one write or read.
const PIECE_BYTES: usize = 4 << 20;
/// Part of the free space that a probe may take.
const PART_OF_FREE: u64 = 16;

/// How much was written or read in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes.
    pub bytes: u64,
    /// Microseconds; at least 1.
    pub elapsed_us: u64,
}

impl Rate {
    fn since(bytes: u64, began: Instant) -> Option<Self> {
        let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        (bytes > 0).then_some(Self { bytes, elapsed_us })
    }
}

impl Store {
    /// Opens the directory of a backup, or the one above it, in which a backup would make it. The
    /// second value tells which: true for the directory itself.
    ///
    /// Errors: those of [`Self::open`].
    pub fn open_or_above(path: &Path) -> Result<(Self, bool)> {
        match Self::open_if_there(path)? {
            Some(store) => Ok((store, true)),
            None => Ok((Self::open(parent_of(path))?, false)),
        }
    }

    /// Writes for a moment to the directory, which need not be locked. `None` if there is too
    /// little room, or if a file without a name cannot be made and no name `may_be_swept` here.
    ///
    /// Errors: failed calls.
    pub fn probe_write(&self, may_be_swept: bool, control: &Control) -> Result<Option<Rate>> {
        let most = self.free_bytes()?.map_or(MOST_BYTES, |free| (free / PART_OF_FREE).min(MOST_BYTES));
        let most = most - most % PIECE_BYTES as u64;
        let fail = |error| Error::io("write", self.shown("a file without a name"), error);
        let Some(file) = (if most == 0 { None } else { self.nameless(may_be_swept, control)? }) else { return Ok(None) };
        let is_direct = make_direct(&file);
        let mut buffer = Buffer::default();
        let piece = buffer.aligned(PIECE_BYTES);
        // Not zeros: some file systems write none.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let began = Instant::now();
        let mut done = 0;
        while done < most && began.elapsed() < MOST_TIME {
            match rustix::io::pwrite(&file, piece, done) {
                Ok(0) => return Err(fail(Errno::IO)),
                Ok(count) => done += count as u64,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if is_direct && done == 0 => {
                    set_direct(&file, false).map_err(fail)?;
                }
                // Somebody else has filled the rest.
                Err(Errno::NOSPC | Errno::DQUOT) => return Ok(None),
                Err(error) => return Err(fail(error)),
            }
            control.check_stop()?;
        }
        match fsync::contents(&file) {
            Ok(()) => Ok(Rate::since(done, began)),
            Err(Errno::NOSPC | Errno::DQUOT) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// A file that no name leads to.
    fn nameless(&self, may_be_swept: bool, control: &Control) -> Result<Option<OwnedFd>> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fail = |error| Error::io("create", self.shown("a file without a name"), error);
        match fs::openat(&self.directory, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Some(file)),
            // The file system, or the kernel, has no such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) if may_be_swept => {}
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
        control.begin_changes()?;
        let name = format!("{TEMPORARY_PREFIX}{}.probe", crate::sys::process::own_run()?);
        let file = fs::openat(&self.directory, &name, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode);
        let file = file.map_err(fail)?;
        match fs::unlinkat(&self.directory, &name, AtFlags::empty()) {
            Ok(()) => Ok(Some(file)),
            Err(error) => Err(Error::io("unlink", self.shown(&name), error)),
        }
    }

    /// Reads for a moment from a file of a backup, past the page cache. `None` where the file
    /// system does not do that: what comes from memory tells nothing.
    ///
    /// Errors: failed calls.
    pub fn probe_read(&self, name: &str, file_bytes: u64, control: &Control) -> Result<Option<Rate>> {
        let file = self.read(name, file_bytes, true)?;
        let most = file_bytes.min(MOST_BYTES);
        let mut buffer = Buffer::default();
        let began = Instant::now();
        let (mut done, mut count_read) = (0, 0);
        while done < most && began.elapsed() < MOST_TIME {
            // Holes are not read by a restore either.
            let Some(data) = file.next_data(done, most)? else { break };
            let count = (data.end - data.start).min(PIECE_BYTES as u64);
            file.read(data.start, usize::try_from(count).unwrap_or(PIECE_BYTES), &mut buffer)?;
            done = data.start + count;
            count_read += count;
            control.check_stop()?;
        }
        Ok(if file.is_from_disk() { Rate::since(count_read, began) } else { None })
    }
}
