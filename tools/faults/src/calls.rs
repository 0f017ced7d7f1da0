//! The system calls by name: the ones that count, their objects, and the words that a message must
//! have after a failure.
//!
//! Promise: a call that is not in the table counts like any other. Must never: leave out a call
//! that could change something.

use crate::sys::memory_at;
use asmt_engine::format::journal::published_name;

/// A system call that the engine is about to make.
pub struct Call {
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Calls for memory, threads and clocks of the runtime: they cannot fail, or they fail in no way
/// that a caller sees.
const HOUSEKEEPING: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_geteuid,
    libc::SYS_gettid,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_prctl,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

/// The place of a call's object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Object {
    /// The path in the argument with this index, relative to the descriptor before it.
    Path(usize),
    /// The descriptor in the first argument.
    Descriptor,
    /// The segment's id in the first argument, or a command about all segments.
    Segment,
    /// The segment's key in the first argument.
    Key,
    /// No object that a user would know.
    None,
}

/// Number, name, object, and the words of which a message must have one.
type Row = (i64, &'static str, Object, &'static [&'static str]);

const ROWS: &[Row] = &[
    (libc::SYS_openat, "openat", Object::Path(1), &["open", "create", "read", "write", "fsync"]),
    (libc::SYS_mkdirat, "mkdirat", Object::Path(1), &["mkdir", "create directory"]),
    (libc::SYS_unlinkat, "unlinkat", Object::Path(1), &["unlink"]),
    (libc::SYS_renameat, "renameat", Object::Path(3), &["rename"]),
    (libc::SYS_renameat2, "renameat2", Object::Path(3), &["rename"]),
    (libc::SYS_linkat, "linkat", Object::Path(3), &["link"]),
    (libc::SYS_faccessat, "faccessat", Object::Path(1), &["access", "write to directory"]),
    (libc::SYS_faccessat2, "faccessat2", Object::Path(1), &["access", "write to directory"]),
    (libc::SYS_newfstatat, "newfstatat", Object::Path(1), &["stat", "read directory"]),
    (libc::SYS_statx, "statx", Object::Path(1), &["stat"]),
    (libc::SYS_readlinkat, "readlinkat", Object::Path(1), &["readlink"]),
    (libc::SYS_name_to_handle_at, "name_to_handle_at", Object::Path(1), &["name_to_handle_at"]),
    (libc::SYS_fallocate, "fallocate", Object::Descriptor, &["fallocate"]),
    (libc::SYS_write, "write", Object::Descriptor, &["write"]),
    (libc::SYS_pwrite64, "pwrite64", Object::Descriptor, &["write"]),
    (libc::SYS_read, "read", Object::Descriptor, &["read"]),
    (libc::SYS_pread64, "pread64", Object::Descriptor, &["read"]),
    (libc::SYS_getdents64, "getdents64", Object::Descriptor, &["read directory"]),
    (libc::SYS_fsync, "fsync", Object::Descriptor, &["fsync"]),
    (libc::SYS_fdatasync, "fdatasync", Object::Descriptor, &["fdatasync"]),
    (libc::SYS_close, "close", Object::Descriptor, &["close"]),
    (libc::SYS_ftruncate, "ftruncate", Object::Descriptor, &["ftruncate"]),
    (libc::SYS_fchown, "fchown", Object::Descriptor, &["chown"]),
    (libc::SYS_fchmod, "fchmod", Object::Descriptor, &["chmod"]),
    (libc::SYS_fstat, "fstat", Object::Descriptor, &["stat"]),
    (libc::SYS_flock, "flock", Object::Descriptor, &["flock"]),
    (libc::SYS_lseek, "lseek", Object::Descriptor, &["lseek"]),
    (libc::SYS_fcntl, "fcntl", Object::Descriptor, &["fcntl"]),
    (libc::SYS_fadvise64, "fadvise64", Object::Descriptor, &["fadvise"]),
    (libc::SYS_fstatfs, "fstatfs", Object::Descriptor, &["statvfs", "statfs"]),
    (libc::SYS_shmget, "shmget", Object::Key, &["shmget", "create segment"]),
    (libc::SYS_shmat, "shmat", Object::Segment, &["shmat", "may not read"]),
    // Attaching reads the segment's state first: to a user both calls are one.
    (libc::SYS_shmctl, "shmctl", Object::Segment, &["shmctl", "shmat", "may not read"]),
    (libc::SYS_shmdt, "shmdt", Object::None, &["shmdt"]),
    (libc::SYS_mmap, "mmap", Object::None, &["mmap"]),
    (libc::SYS_mremap, "mremap", Object::None, &["mremap"]),
    (libc::SYS_madvise, "madvise", Object::None, &["madvise"]),
    (libc::SYS_mincore, "mincore", Object::None, &["mincore"]),
    (libc::SYS_clone3, "clone3", Object::None, &["thread"]),
    (libc::SYS_clone, "clone", Object::None, &["thread"]),
    (libc::SYS_prlimit64, "prlimit64", Object::None, &["limit"]),
    (libc::SYS_uname, "uname", Object::None, &["uname"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Object::Path(0), &["open", "read", "write", "fsync"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", Object::Path(0), &["mkdir", "create directory"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", Object::Path(0), &["unlink"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", Object::Path(0), &["readlink"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access", Object::Path(0), &["access"]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat", Object::Path(0), &["stat"]),
];

/// The calls at which no thread has to stop: those that do not count, except for the one that names
/// a thread, and the exec that starts the program.
pub fn unwatched() -> Vec<i64> {
    HOUSEKEEPING.iter().copied().filter(|number| *number != libc::SYS_prctl).chain([libc::SYS_execve]).collect()
}

/// Returns true if a call does not count.
pub fn is_housekeeping(number: i64) -> bool {
    HOUSEKEEPING.contains(&number)
}

/// Reads a NUL-terminated text from the memory of a stopped thread.
pub fn text_at(tid: i32, address: u64) -> Option<String> {
    let mut bytes = [0; 4096];
    let count = memory_at(tid, address, &mut bytes).ok()?;
    let end = bytes[..count].iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

impl Call {
    fn row(&self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.0 == self.number)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.row().map_or_else(|| format!("call {}", self.number), |row| row.1.to_owned())
    }

    /// The words of which a message about its failure must have one.
    pub fn words(&self) -> &'static [&'static str] {
        self.row().map_or(&[], |row| row.3)
    }

    /// Its object: the last part of a path, or a segment's key. `None` if a user would not know it.
    pub fn object(&self) -> Option<String> {
        let path = match self.row()?.2 {
            Object::Path(at) => text_at(self.tid, self.arguments[at]).filter(|path| !path.is_empty() && path != "."),
            Object::Key => return Some(format!("{:08x}", self.arguments[0] as u32)),
            Object::Segment => return self.segment(),
            Object::Descriptor => None,
            Object::None => return None,
        };
        let path = path.or_else(|| {
            // If the path is empty or ".", the object is the directory.
            let link = std::fs::read_link(format!("/proc/{}/fd/{}", self.pid, self.arguments[0] as i32)).ok()?;
            Some(link.to_str()?.trim_end_matches(" (deleted)").to_owned())
        })?;
        // A segment's file is named by its key, and a file without a final name by the name that it
        // will get.
        path.rsplit('/').next().map(|name| published_name(name.trim_start_matches("SYSV")).to_owned())
    }

    fn segment(&self) -> Option<String> {
        const IPC_INFO: u64 = 3;
        const SHM_STAT: u64 = 13;
        const SHM_INFO: u64 = 14;
        const SHM_STAT_ANY: u64 = 15;
        if self.number == libc::SYS_shmctl && [IPC_INFO, SHM_STAT, SHM_INFO, SHM_STAT_ANY].contains(&self.arguments[1]) {
            return Some("listing segments".to_owned());
        }
        asmt_shm::sysv::stat(self.arguments[0] as i32).ok().map(|stat| stat.key.to_string())
    }

    /// Returns true if the kernel can return an error for it. shmdt only refuses an address where
    /// nothing is attached.
    pub fn can_fail(&self) -> bool {
        self.number != libc::SYS_shmdt
    }

    /// Returns true if the call is done even if it fails: close always closes the descriptor.
    pub fn is_done_anyway(&self) -> bool {
        self.number == libc::SYS_close
    }

    /// Returns true if the call asks for a permission, and this error is an answer.
    pub fn is_answered_by(&self, errno: i32) -> bool {
        self.name().starts_with("faccessat") && [libc::EACCES, libc::EROFS].contains(&errno)
    }

    /// Returns true if it removes something: without it nothing can be cleaned up.
    pub fn is_removal(&self) -> bool {
        let is_removed = self.number == libc::SYS_shmctl && self.arguments[1] == 0;
        is_removed || self.name().starts_with("unlink")
    }

    /// The number of bytes that it moves, if it could move fewer.
    pub fn byte_count(&self) -> Option<u64> {
        [libc::SYS_read, libc::SYS_write, libc::SYS_pread64, libc::SYS_pwrite64]
            .contains(&self.number)
            .then_some(self.arguments[2])
            .filter(|count| *count > 1)
    }
}
