//! The plainest reader of files that are only looked at, and the plainest making of memory: direct
//! reads in pieces of 4 MiB into ordinary memory, and pages of a fresh segment.
//!
//! Promise: what `backup -c` and `verify` have to read is read, past the page cache. Must never:
//! check, decode or compute anything: this is what the disk and the memory can do.

use crate::{Figures, PIECE_BYTES, figures};
use asmt_kit::text_of;
use asmt_kit::threads::in_parallel;
use asmt_shm::sysv::{self, Access, Attachment};
use asmt_shm::{DataFinder, Key};
use rustix::fs::{self, Mode, OFlags};
use std::path::Path;
use std::time::Instant;

/// A key that is nobody's.
const KEY: Key = Key(0x7e00_ffff);
/// What direct I/O wants memory to be aligned to, at most.
const ALIGNMENT: usize = 4096;

/// Reads the data of every file of a directory, each thread into one buffer of its own.
pub fn scan(directory: &Path, threads: usize) -> Figures {
    let entries = std::fs::read_dir(directory).map_err(text_of("cannot list", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    let since = Instant::now();
    let (mut files, mut pieces) = (Vec::new(), Vec::new());
    for (number, path) in paths.iter().enumerate() {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = fs::open(path, flags, Mode::empty()).map_err(text_of("cannot open", path.display()))?;
        let size_bytes = fs::fstat(&file).map_err(text_of("cannot stat", path.display()))?.st_size.cast_unsigned();
        let (mut position, file) = (0, DataFinder::new(file));
        while let Some(data) = file.next_data(position, size_bytes).map_err(text_of("cannot find data of", path.display()))? {
            position = data.end;
            let starts = data.clone().step_by(PIECE_BYTES as usize);
            pieces.extend(starts.map(|start| (number, start..data.end.min(start + PIECE_BYTES))));
        }
        files.push(file);
    }
    let buffer = || vec![1; PIECE_BYTES as usize + ALIGNMENT];
    let work = |buffer: &mut Vec<u8>, index: usize| {
        let (number, range) = &pieces[index];
        let length = (range.end - range.start) as usize;
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        // Whole sectors are asked for, also where the file ends within one.
        let room = &mut buffer[start..start + length.next_multiple_of(ALIGNMENT)];
        let read = rustix::io::pread(files[*number].file(), room, range.start).map_err(text_of("cannot read", range.start))?;
        if read == length { Ok(()) } else { Err(format!("read {read} of {length} bytes")) }
    };
    in_parallel(threads, pieces.len(), buffer, work)?;
    Ok(figures(pieces.iter().map(|(_, range)| range.end - range.start).sum(), since))
}

/// Makes the memory of so many bytes of a fresh segment.
pub fn fresh(threads: usize, bytes: u64) -> Figures {
    let shmid = sysv::create(KEY, bytes).map_err(text_of("cannot make", KEY))?;
    let attached = Attachment::new(shmid, Access::ReadWrite, 0).map_err(text_of("cannot attach", shmid));
    // It goes when it is detached, whatever happens before.
    sysv::remove(shmid).map_err(text_of("cannot remove", shmid))?;
    let segment = attached?;
    let make = |(): &mut (), index: usize| {
        let start = index as u64 * PIECE_BYTES;
        drop(segment.exclusive(start..bytes.min(start + PIECE_BYTES)));
        Ok(())
    };
    let since = Instant::now();
    in_parallel(threads, usize::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(usize::MAX), || (), make)?;
    Ok(figures(bytes, since))
}
