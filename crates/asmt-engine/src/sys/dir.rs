//! Names in a directory.
//!
//! Promise: a directory that cannot be read to its end is a failed call.

use crate::error::{Error, Result};
use rustix::fs::{self, Mode, OFlags, RawDir};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

/// Names in a directory, sorted. Names that are not UTF-8 are nobody's we know.
///
/// Not `std::fs::read_dir`: that panics when the directory cannot be closed.
pub fn names_of(path: &Path) -> Result<Vec<String>> {
    names_at(fs::CWD, path, path)
}

/// As [`names_of`], relative to an open directory; `shown` is the path for messages.
pub fn names_at(directory: impl AsFd, path: &Path, shown: &Path) -> Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        fs::openat(directory, path, flags, Mode::empty()).map_err(|error| Error::io("open", shown.display(), error))?;
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| Error::io("read directory", shown.display(), error))?;
        if let Ok(name) = entry.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
