//! Texts for error numbers of the system.
//!
//! Promise: the same text for the same number, whichever C library asmt was built with: a message
//! that somebody searches for, or compares, is the same everywhere. They are glibc's texts in lower
//! case.

/// The text for an error number; `None` if it is not a common one.
pub fn text(errno: i32) -> Option<&'static str> {
    TEXTS.iter().find(|(number, _)| *number == errno).map(|(_, text)| *text)
}

/// Numbers that calls of files, devices, memory and processes return.
const TEXTS: [(i32, &str); 50] = [
    (libc::EPERM, "operation not permitted"),
    (libc::ENOENT, "no such file or directory"),
    (libc::ESRCH, "no such process"),
    (libc::EINTR, "interrupted system call"),
    (libc::EIO, "input/output error"),
    (libc::ENXIO, "no such device or address"),
    (libc::E2BIG, "argument list too long"),
    (libc::ENOEXEC, "exec format error"),
    (libc::EBADF, "bad file descriptor"),
    (libc::ECHILD, "no child processes"),
    (libc::EAGAIN, "resource temporarily unavailable"),
    (libc::ENOMEM, "cannot allocate memory"),
    (libc::EACCES, "permission denied"),
    (libc::EFAULT, "bad address"),
    (libc::EBUSY, "device or resource busy"),
    (libc::EEXIST, "file exists"),
    (libc::EXDEV, "invalid cross-device link"),
    (libc::ENODEV, "no such device"),
    (libc::ENOTDIR, "not a directory"),
    (libc::EISDIR, "is a directory"),
    (libc::EINVAL, "invalid argument"),
    (libc::ENFILE, "too many open files in system"),
    (libc::EMFILE, "too many open files"),
    (libc::ENOTTY, "inappropriate ioctl for device"),
    (libc::ETXTBSY, "text file busy"),
    (libc::EFBIG, "file too large"),
    (libc::ENOSPC, "no space left on device"),
    (libc::ESPIPE, "illegal seek"),
    (libc::EROFS, "read-only file system"),
    (libc::EMLINK, "too many links"),
    (libc::EPIPE, "broken pipe"),
    (libc::ERANGE, "numerical result out of range"),
    (libc::EDEADLK, "resource deadlock avoided"),
    (libc::ENAMETOOLONG, "file name too long"),
    (libc::ENOLCK, "no locks available"),
    (libc::ENOSYS, "function not implemented"),
    (libc::ENOTEMPTY, "directory not empty"),
    (libc::ELOOP, "too many levels of symbolic links"),
    (libc::EIDRM, "identifier removed"),
    (libc::ENODATA, "no data available"),
    (libc::EOVERFLOW, "value too large for defined data type"),
    (libc::EUCLEAN, "structure needs cleaning"),
    (libc::EOPNOTSUPP, "operation not supported"),
    (libc::ENOTCONN, "transport endpoint is not connected"),
    (libc::ETIMEDOUT, "connection timed out"),
    (libc::ECONNREFUSED, "connection refused"),
    (libc::ESTALE, "stale file handle"),
    (libc::EREMOTEIO, "remote i/o error"),
    (libc::EDQUOT, "disk quota exceeded"),
    (libc::ENOMEDIUM, "no medium found"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_common_errors_do_not_depend_on_the_c_library() {
        // musl says "I/O error", "No file descriptors available" and "Resource busy".
        assert_eq!(text(libc::EIO), Some("input/output error"));
        assert_eq!(text(libc::EMFILE), Some("too many open files"));
        assert_eq!(text(libc::EBUSY), Some("device or resource busy"));
        assert_eq!(text(0), None);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_texts_are_those_of_glibc() {
        for (number, text) in TEXTS {
            let theirs = std::io::Error::from_raw_os_error(number).to_string().to_lowercase();
            assert_eq!(theirs, format!("{text} (os error {number})"));
        }
    }

    #[test]
    fn every_number_has_one_text() {
        let numbers: std::collections::BTreeSet<_> = TEXTS.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), TEXTS.len());
    }
}
