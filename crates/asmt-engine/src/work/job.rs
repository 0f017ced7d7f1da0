//! The copying of one segment to its file: what workers share of it, and the segment's attachment.

use crate::error::{Code, Error, Result};
use crate::format::Spans;
use crate::format::run_id::RunId;
use crate::plan::Copy;
use crate::store::{OutputFile, Store};
use crate::work::pool::{InWork, Places};
use crate::work::written::{Sums, Written};
use asmt_shm::sysv::{self, Access, Attachment};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Temporary names in a directory; removed when dropped, unless they were kept.
pub struct Temporaries<'s> {
    store: &'s Store,
    run: RunId,
    names: Mutex<Vec<String>>,
}

impl<'s> Temporaries<'s> {
    /// None yet.
    pub fn new(store: &'s Store, run: &RunId) -> Self {
        Self { store, run: run.clone(), names: Mutex::new(Vec::new()) }
    }

    /// Makes a file to stage, and remembers it.
    pub fn create(&self, name: &str) -> Result<OutputFile> {
        let file = self.store.create(&self.run, name)?;
        self.lock().push(file.temporary().to_owned());
        Ok(file)
    }

    /// Whose they are.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The directory.
    pub fn store(&self) -> &'s Store {
        self.store
    }

    /// Lets go of what is still there, which stays. Returns the names.
    pub fn keep(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }

    /// Removes what is still there.
    pub fn remove(&self) -> Result<()> {
        let names = self.keep();
        self.store.remove_all(names.iter().map(String::as_str))
    }

    /// Removes what is still there because of an error, and adds to it what went wrong with that.
    pub fn clean_up_after(&self, error: Error) -> Error {
        match self.remove() {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        lock(&self.names)
    }
}

impl Drop for Temporaries<'_> {
    fn drop(&mut self) {
        // Only on the way out of a panic is there something left; the next run sweeps what stays.
        let _ = self.remove();
    }
}

/// A segment on its way into its file.
pub struct Job<'p> {
    pub(super) copy: &'p Copy,
    pub(super) temporary: String,
    pub(super) chunk_bytes: u32,
    pub(super) zero_chunks: Vec<(u64, u64)>,
    pub(super) spans: Spans,
    /// Bytes of data that were copied.
    pub(super) data_bytes: AtomicU64,
    /// Holes were told by what is resident, at least once.
    pub(super) is_by_residency: AtomicBool,
    /// A range of the segment that was found to be data.
    pub(super) data_found: std::ops::Range<u64>,
    pub(super) in_work: InWork<Open>,
    pub(super) chunks: Mutex<Vec<Written>>,
    /// Every chunk was read back from the disk when it was written, and was as written.
    pub(super) is_read_back: AtomicBool,
    /// Inode and size of the finished file.
    pub(super) finished: Mutex<Option<(u64, u64)>>,
}

impl Job<'_> {
    /// What the file adds up to, once all chunks are written.
    pub(super) fn sums(&self) -> Sums {
        Sums::of(self.copy.segment.stat.size_bytes, self.chunk_bytes, &lock(&self.chunks))
    }
}

/// A mutex, whoever panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Attaches a segment to read it. It must still be the one that was planned.
pub fn attach(copy: &Copy) -> Result<Attachment> {
    let segment = &copy.segment;
    let attachment = Attachment::new(segment.stat.shmid, Access::ReadOnly, segment.swapped_bytes)
        .map_err(|error| gone_or_failed(copy, "shmat", error))?;
    if attachment.size_bytes() != segment.stat.size_bytes {
        return Err(changed(copy, &format!("it has {} bytes, expected {}", attachment.size_bytes(), segment.stat.size_bytes)));
    }
    Ok(attachment)
}

/// The error of a segment that is not what it was.
pub fn changed(copy: &Copy, what: &str) -> Error {
    Error::new(
        Code::SegmentChanged,
        format!("segment {} changed while it was copied: {what}", copy.segment.key()),
        "make sure that the server stays stopped during a backup, then try again",
    )
}

/// A call on a segment has failed: because it is gone, or otherwise.
pub fn gone_or_failed(copy: &Copy, call: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::Unsupported {
        let (key, shmid) = (copy.segment.key(), copy.segment.stat.shmid);
        return Error::new(
            Code::SegmentInvalid,
            format!("segment {key} (shmid {shmid}) cannot be copied: {error}"),
            "no known version of the server creates such a segment: leave it, or find out what created it (ipcs -m -p)",
        );
    }
    if sysv::is_gone(&error) { changed(copy, "it is gone") } else { Error::io(call, copy.segment.key(), error) }
}

/// The data in a range, hole after hole.
pub fn data_ranges(attachment: &Attachment, range: &std::ops::Range<u64>) -> std::io::Result<Vec<std::ops::Range<u64>>> {
    let mut found = Vec::new();
    let mut position = range.start;
    while let Some(data) = attachment.next_data(position, range.end)? {
        position = data.end;
        found.push(data);
    }
    Ok(found)
}

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads.
    pub threads: usize,
    /// Read every file back from the disk and compare.
    pub check: bool,
}

/// What is open while a segment is in work.
pub struct Open {
    pub(super) attachment: Attachment,
    pub(super) file: OutputFile,
    pub(super) places: Places,
}
