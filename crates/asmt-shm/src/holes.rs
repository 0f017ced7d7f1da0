//! The ranges of a file that hold data, and its holes.
//!
//! Promise: everything that may be data is found; a file system that knows no holes reports all as
//! data.

use crate::sync::lock;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Mutex;

/// Finds the ranges of a file that hold data, and remembers the last one.
///
/// The kernel looks for the end of a range page by page, however far it is. If each chunk of a
/// dense segment asked again, the kernel would walk over the whole segment once per chunk.
pub struct DataFinder<F> {
    file: F,
    found: Mutex<Range<u64>>,
}

impl<F: AsFd> DataFinder<F> {
    /// For an open file.
    pub fn new(file: F) -> Self {
        Self { file, found: Mutex::default() }
    }

    /// Takes a range for the one that was found last.
    pub fn expect(&mut self, range: Range<u64>) {
        self.found = Mutex::new(range);
    }

    /// The range that was found last.
    pub fn found(&self) -> Range<u64> {
        lock(&self.found).clone()
    }

    /// The file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// The next range that may hold data at or after `from` and before `to`; `None` if there are
    /// only holes.
    ///
    /// Errors: those of `lseek`. A file system that knows no holes reports all as data.
    pub fn next_data(&self, from: u64, to: u64) -> io::Result<Option<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        if from >= to {
            return Ok(None);
        }
        // Held while the kernel looks: another thread that comes now most often wants the same
        // range.
        let mut found = lock(&self.found);
        if !found.contains(&from) {
            // No file position is shared: SEEK_DATA and SEEK_HOLE take absolute offsets, and the
            // position that they leave behind is never used.
            let start = match seek(&self.file, SeekFrom::Data(from)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            // Data behind `to` was not asked for, and may be far away.
            if start >= to {
                return Ok(None);
            }
            *found = start..seek(&self.file, SeekFrom::Hole(start))?;
        }
        Ok((found.start < to).then(|| found.start.max(from)..found.end.min(to)))
    }
}
