//! The kernel's structures that describe segments, and the values that are made from them.
//!
//! Pure. libc does not have all of these structures, and its `ipc_perm` differs between glibc and
//! musl. So the kernel's own 64-bit ones (`include/uapi/asm-generic/{ipcbuf,shmbuf}.h`) are
//! declared here: the same bytes whatever the C library.

use crate::key::Key;
use std::fmt;

/// Flag in the mode of a segment that was removed while attached: the segment goes when the last
/// process detaches it.
const SHM_DEST: u32 = 0o1000;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct KernelPerm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub pad: u16,
    pub unused: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct KernelShmid {
    pub perm: KernelPerm,
    pub segsz: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: i32,
    pub lpid: i32,
    pub nattch: u64,
    pub unused: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct KernelShmInfo {
    pub(crate) used_ids: i32,
    pub(crate) total_pages: u64,
    pub(crate) resident_pages: u64,
    pub(crate) swapped_pages: u64,
    pub(crate) swap_attempts: u64,
    pub(crate) swap_successes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct KernelIpcInfo {
    pub shmmax: u64,
    pub shmmin: u64,
    pub shmmni: u64,
    pub shmseg: u64,
    pub shmall: u64,
    pub unused: [u64; 4],
}

const _: () = assert!(size_of::<KernelPerm>() == 48);
const _: () = assert!(size_of::<KernelShmid>() == 112);
const _: () = assert!(size_of::<KernelShmInfo>() == 48);
const _: () = assert!(size_of::<KernelIpcInfo>() == 72);

/// The kernel's description of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its key. Another segment may get the key later.
    pub key: Key,
    /// Its id. Ids are reused, but not soon.
    pub shmid: i32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// User who made it.
    pub creator_uid: u32,
    /// Permission bits, nine of them.
    pub mode: u32,
    /// Number of times that it is attached, by any process.
    pub attached_count: u64,
    /// Process that made it.
    pub creator_pid: i32,
    /// Last change of owner or mode, or creation, in seconds since 1970.
    pub changed_at_s: i64,
    /// It was removed, and exists only until all processes have detached it.
    pub is_removed: bool,
}

impl SegmentStat {
    /// Last change of owner or mode, or creation, in milliseconds since 1970, to the second; `None`
    /// for a time before that.
    pub fn changed_ms(&self) -> Option<u64> {
        u64::try_from(self.changed_at_s).ok().map(|at| at.saturating_mul(1000))
    }

    pub(crate) fn from_kernel(shmid: i32, stat: &KernelShmid) -> Self {
        Self {
            key: Key(stat.perm.key.cast_unsigned()),
            shmid,
            size_bytes: stat.segsz,
            uid: stat.perm.uid,
            gid: stat.perm.gid,
            creator_uid: stat.perm.cuid,
            mode: stat.perm.mode & 0o777,
            attached_count: stat.nattch,
            creator_pid: stat.cpid,
            changed_at_s: stat.ctime,
            is_removed: stat.perm.mode & SHM_DEST != 0,
        }
    }
}

/// The process that attached or detached a segment last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastHand {
    /// None: it was never attached.
    Nobody,
    /// A process of this PID namespace, by its id.
    Process(u32),
    /// A process of a PID namespace that cannot be seen from here.
    Unseen,
}

impl fmt::Display for LastHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "nobody had it attached"),
            Self::Process(pid) => write!(f, "another process (pid {pid}) had it attached"),
            Self::Unseen => write!(f, "a process that cannot be seen from here (in another PID namespace) had it attached"),
        }
    }
}

impl LastHand {
    /// `shm_lpid` is 0 before the first attach, and also for a process that cannot be seen.
    /// `shm_atime` is 0 only before the first attach (shmget(2)).
    pub(crate) fn from_kernel(stat: &KernelShmid) -> Self {
        match u32::try_from(stat.lpid) {
            Ok(pid) if pid > 0 => Self::Process(pid),
            _ if stat.atime == 0 => Self::Nobody,
            _ => Self::Unseen,
        }
    }
}

/// The limits of this IPC namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest segment, in bytes (`kernel.shmmax`).
    pub max_segment_bytes: u64,
    /// Number of segments in all (`kernel.shmmni`).
    pub max_segment_count: u64,
    /// Pages of all segments together (`kernel.shmall`).
    pub max_total_pages: u64,
    /// Number of segments now.
    pub segment_count: u64,
    /// Pages of these segments.
    pub total_pages: u64,
}

impl Limits {
    pub(crate) fn from_kernel(limits: &KernelIpcInfo, info: &KernelShmInfo) -> Self {
        Self {
            max_segment_bytes: limits.shmmax,
            max_segment_count: limits.shmmni,
            max_total_pages: limits.shmall,
            segment_count: u64::try_from(info.used_ids).unwrap_or(0),
            total_pages: info.total_pages,
        }
    }
}
