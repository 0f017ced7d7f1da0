//! Temporary directories, the names in a directory, and programs that work on files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A new directory for temporary files, which is removed with all that is in it when this value is
/// dropped. What is mounted in it is unmounted before.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a directory with `name` in its name.
    ///
    /// Panics if none can be made.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("asmt-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        crate::mounts::detach_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The names in a directory; none if it cannot be read.
pub fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Runs a program to its end.
///
/// Errors: it cannot be started, or fails; then the error is what it printed on standard error.
pub fn run(command: &mut Command) -> io::Result<()> {
    let done = command.output().map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?}: {}: {text}", done.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mounts, namespaces};

    #[test]
    fn a_scratch_directory_goes_with_what_is_mounted_in_it() {
        let path = std::thread::spawn(|| {
            let scratch = Scratch::new("kit");
            // Only root may mount.
            let is_mounting = namespaces::unshare_mounts().is_ok();
            for name in ["outer", "outer/inner"].iter().filter(|_| is_mounting) {
                let target = scratch.path().join(name);
                std::fs::create_dir(&target).expect("a directory");
                mounts::tmpfs(&target, c"").expect("a file system in memory");
            }
            std::fs::write(scratch.path().join("file"), "text").expect("a file");
            scratch.path().to_owned()
        });
        let path = path.join().expect("no panic");
        assert!(!path.exists(), "{} is left", path.display());
    }
}
