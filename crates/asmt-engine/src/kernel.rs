//! What the kernel says in files: of itself, of this process, of a control group.
//!
//! Promise: a file that cannot be read is a failed call that names it. Must never: give a default in the place of an answer:
//! a limit that was not seen is not kept, and who is not known to be another is taken for oneself.

use crate::error::{Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Text of a file; bytes that are no UTF-8 (of a path in it) are replaced.
///
/// Errors: failed calls, also where there is no such file.
pub fn text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As [`text`]; `None` where there is no such file: another kernel, or none of this kind in a container.
///
/// Errors: failed calls.
pub fn text_if_there(path: impl AsRef<Path>) -> Result<Option<String>> {
    text_unless(path.as_ref(), &[ErrorKind::NotFound])
}

/// As [`text_if_there`]; `None` also where this user may not see it. Only for what is of use, and not needed.
///
/// Errors: failed calls.
pub fn text_if_visible(path: impl AsRef<Path>) -> Result<Option<String>> {
    text_unless(path.as_ref(), &[ErrorKind::NotFound, ErrorKind::PermissionDenied])
}

fn text_unless(path: &Path, allowed: &[ErrorKind]) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if allowed.contains(&error.kind()) => Ok(None),
        Err(error) => Err(Error::io("read", path.display(), error)),
    }
}

/// Which namespace of a kind (`ipc`, `pid`, `user`) this process is in: the inode that stands for it.
///
/// Errors: failed calls.
pub fn namespace(kind: &str) -> Result<u64> {
    let path = format!("/proc/thread-self/ns/{kind}");
    fs::metadata(&path).map(|metadata| metadata.ino()).map_err(|error| Error::io("stat", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_an_error_that_names_it_or_nothing_where_that_is_allowed() {
        assert!(text("/proc/self/stat").expect("a file").contains(&std::process::id().to_string()));
        let error = text("/proc/self/no-such-file").expect_err("no file");
        assert!(error.first().message.contains("/proc/self/no-such-file"), "{error}");
        assert_eq!(text_if_there("/proc/self/no-such-file").expect("no error"), None);
        // A directory is there, and cannot be read.
        assert!(text_if_there("/proc/self/ns").expect_err("a directory").first().message.contains("/proc/self/ns"));
        assert!(namespace("ipc").expect("one") > 0);
        assert!(namespace("none").expect_err("no such kind").first().message.contains("/ns/none"));
    }
}
