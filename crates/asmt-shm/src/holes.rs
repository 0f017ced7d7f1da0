//! Where a file holds data and where it has holes.
//!
//! Promise: whatever may be data is found; a file system that knows no holes shows all as data.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// Finds where a file holds data, and remembers the range found last.
///
/// The kernel looks for the end of a range page by page, however far it is: asked anew for each
/// chunk of a dense segment, it would walk over the whole of it as many times as it has chunks.
pub struct DataFinder<F> {
    file: F,
    found: Mutex<Range<u64>>,
}

impl<F: AsFd> DataFinder<F> {
    /// For an open file.
    pub fn new(file: F) -> Self {
        Self { file, found: Mutex::default() }
    }

    /// Takes a range for the one found last.
    pub fn expect(&mut self, range: Range<u64>) {
        self.found = Mutex::new(range);
    }

    /// The range found last.
    pub fn found(&self) -> Range<u64> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// The next range that may hold data at or after `from` and before `to`; `None` if there are
    /// only holes.
    ///
    /// Errors: what `lseek` gives. A file system that knows no holes shows all as data.
    pub fn next_data(&self, from: u64, to: u64) -> io::Result<Option<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        if from >= to {
            return Ok(None);
        }
        // Held while the kernel looks: whoever comes meanwhile most often wants the same range.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.contains(&from) {
            // Not a shared file position: SEEK_DATA and SEEK_HOLE take absolute offsets and only
            // return their finding (the position they leave behind is never used).
            let start = match seek(&self.file, SeekFrom::Data(from)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            // What lies behind `to` was not asked for, and may be far away.
            if start >= to {
                return Ok(None);
            }
            *found = start..seek(&self.file, SeekFrom::Hole(start))?;
        }
        Ok((found.start < to).then(|| found.start.max(from)..found.end.min(to)))
    }
}
