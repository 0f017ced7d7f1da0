//! Direct I/O: reading and writing past the page cache, in whole sectors.

use crate::format::SECTOR_BYTES;
use crate::sys::fsync;
use rustix::fs::{self, AtFlags, OFlags};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Alignment of buffers, offsets and lengths for direct I/O. A device that needs more gets buffered
/// I/O.
pub const ALIGNMENT: usize = SECTOR_BYTES as usize;

/// Requests I/O past the page cache, if sectors of [`ALIGNMENT`] suit the file. Returns true if it
/// will be done.
pub fn make_direct(file: &OwnedFd) -> bool {
    let asked = fs::StatxFlags::DIOALIGN;
    let suits = match fs::statx(file, "", AtFlags::EMPTY_PATH, asked) {
        // A kernel before 6.1, or a file system, may not say; then the first read or write shows
        // it. The value 0 means that there is no direct I/O, and nothing is a multiple of it.
        Ok(stat) if stat.stx_mask & asked.bits() != 0 => [stat.stx_dio_mem_align, stat.stx_dio_offset_align]
            .iter()
            .all(|alignment| ALIGNMENT.is_multiple_of(*alignment as usize)),
        _ => true,
    };
    suits && !fsync::is_direct_io_off() && set_direct(file, true).is_ok()
}

pub fn set_direct(file: &OwnedFd, direct: bool) -> std::result::Result<(), Errno> {
    let flags = fs::fcntl_getfl(file)? & !OFlags::NONBLOCK;
    fs::fcntl_setfl(file, if direct { flags | OFlags::DIRECT } else { flags & !OFlags::DIRECT })
}

/// Reads until the buffer is full or the file ends.
pub fn read_at_most(file: BorrowedFd<'_>, offset: u64, buffer: &mut [u8], is_direct: bool) -> std::result::Result<usize, Errno> {
    let mut done = 0;
    // Past the page cache, a read can only go on at a sector; within a sector the file has ended.
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

/// Memory to read into, aligned for direct I/O. It grows to the largest read, and keeps that size.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Returns `length` bytes, aligned, with any contents.
    pub fn aligned(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + ALIGNMENT {
            // It is replaced and not resized, because there is nothing to copy.
            self.0 = vec![0; length + ALIGNMENT];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        &mut self.0[start..start + length]
    }
}
