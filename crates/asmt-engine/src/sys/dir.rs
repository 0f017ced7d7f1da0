//! Directories: the names in them, and the file systems on which they are.
//!
//! Promise: a directory that cannot be read to its end is a failed call.

use crate::error::{Error, Result};
use rustix::fs::{self, Mode, OFlags, RawDir};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

/// File systems in memory, whose contents are gone after a reboot. (One below an overlay is not
/// seen.)
const VOLATILE_FILE_SYSTEMS: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Returns the name of a file system in memory, by the type that `statfs` shows (a signed number in
/// some places).
pub fn is_in_memory(kind: u64) -> Option<&'static str> {
    VOLATILE_FILE_SYSTEMS.iter().find(|(known, _)| *known == kind & 0xffff_ffff).map(|(_, name)| *name)
}

/// Returns the names in a directory, sorted. Names that are not UTF-8 are left out: they belong to
/// neither asmt nor ASMT.
///
/// Not `std::fs::read_dir`: that panics when the directory cannot be closed.
pub fn names_of(path: &Path) -> Result<Vec<String>> {
    names_at(fs::CWD, path, path)
}

/// Does the same as [`names_of`] relative to an open directory; `shown` is the path for messages.
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
