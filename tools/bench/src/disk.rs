//! The plainest writer and reader: direct I/O in pieces of 4 MiB, from and to shared memory, with
//! one queue for all threads.
//!
//! Promise: the same bytes that asmt writes and reads, durable when the clock stops. Must never:
//! check, compress or compute anything: this shows what the disk and the memory can do.

use crate::{Figures, attach_all, data_ranges, figures, pieces};
use asmt_kit::text_of;
use asmt_kit::threads::in_parallel;
use asmt_shm::sysv::{self, Access, Attachment};
use asmt_shm::{DataFinder, Key};
use rustix::fs::{self, FallocateFlags, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

/// Keys that belong to nobody: of the segments that are read into.
const FIRST_KEY: u32 = 0x7e00_0000;

/// Writes every segment to a file that is named by its key.
pub fn write(directory: &Path, threads: usize, keep: bool) -> Figures {
    let segments = attach_all()?;
    let pieces = pieces(&segments)?;
    let bytes = pieces.iter().map(|(_, range)| range.end - range.start).sum();
    let since = Instant::now();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
    let open = |name: &str| fs::open(directory.join(name), flags, Mode::RUSR | Mode::WUSR).map_err(text_of("cannot make", name));
    let files: Vec<OwnedFd> = segments.iter().map(|segment| open(&segment.name)).collect::<Result<_, _>>()?;
    for (number, range) in &pieces {
        let length = range.end - range.start;
        fs::fallocate(&files[*number], FallocateFlags::empty(), range.start, length).map_err(text_of("cannot reserve", ""))?;
    }
    let work = |(): &mut (), index: usize| {
        let (number, range) = &pieces[index];
        let bytes = segments[*number].attachment.bytes(range.clone());
        let written = rustix::io::pwrite(&files[*number], bytes, range.start).map_err(text_of("cannot write", range.start))?;
        if written == bytes.len() { Ok(()) } else { Err(format!("wrote {written} of {} bytes", bytes.len())) }
    };
    in_parallel(threads, pieces.len(), || (), work)?;
    for (file, segment) in files.iter().zip(&segments) {
        fs::ftruncate(file, segment.attachment.size_bytes()).map_err(text_of("cannot size", &segment.name))?;
        fs::fsync(file).map_err(text_of("cannot fsync", &segment.name))?;
    }
    let opened = fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.and_then(fs::fsync).map_err(text_of("cannot fsync", directory.display()))?;
    let figures = figures(bytes, since);
    if !keep {
        segments.iter().for_each(|segment| {
            let _ = fs::unlink(directory.join(&segment.name));
        });
    }
    Ok(figures)
}

/// Segments that are read into; gone when dropped.
struct Fresh(Vec<(i32, Attachment)>);

impl Drop for Fresh {
    fn drop(&mut self) {
        for (shmid, _) in &self.0 {
            let _ = sysv::remove(*shmid);
        }
    }
}

/// Reads the data of every file of a directory into a fresh segment.
pub fn read(directory: &Path, threads: usize) -> Figures {
    let entries = std::fs::read_dir(directory).map_err(text_of("cannot list", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    let mut fresh = Fresh(Vec::new());
    let since = Instant::now();
    let (mut files, mut pieces) = (Vec::new(), Vec::new());
    for (number, path) in paths.iter().enumerate() {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = fs::open(path, flags, Mode::empty()).map_err(text_of("cannot open", path.display()))?;
        let size_bytes = fs::fstat(&file).map_err(text_of("cannot stat", path.display()))?.st_size.cast_unsigned();
        let file = DataFinder::new(file);
        let ranges = data_ranges(|position| file.next_data(position, size_bytes));
        let ranges = ranges.map_err(text_of("cannot find data of", path.display()))?;
        pieces.extend(ranges.into_iter().map(|range| (number, range)));
        let shmid = sysv::create(Key(FIRST_KEY + number as u32), size_bytes)
            .map_err(text_of("cannot make a segment for", path.display()))?;
        let attachment = Attachment::new(shmid, Access::ReadWrite, 0);
        fresh.0.push((shmid, attachment.map_err(text_of("cannot attach", shmid))?));
        files.push(file);
    }
    let work = |(): &mut (), index: usize| {
        let (number, range) = &pieces[index];
        // The memory is allocated at once, which is faster than page by page during the read.
        let mut memory = fresh.0[*number].1.exclusive(range.clone());
        let read =
            rustix::io::pread(files[*number].file(), &mut *memory, range.start).map_err(text_of("cannot read", range.start))?;
        if read == memory.len() { Ok(()) } else { Err(format!("read {read} of {} bytes", memory.len())) }
    };
    in_parallel(threads, pieces.len(), || (), work)?;
    Ok(figures(pieces.iter().map(|(_, range)| range.end - range.start).sum(), since))
}
