//! System V calls and attachments.
//!
//! Promise: every call checks its result; an attachment is detached when it is dropped; a slice
//! never reaches past the segment. Must never: attach a segment that the caller has not named by
//! its id, or remove one by its key.
//!
//! libc has neither `SHM_STAT`, `SHM_INFO` and `SHM_STAT_ANY` nor their structures (see
//! `segment_stat.rs`). So the system calls are made directly, with any C library.

use crate::holes::DataFinder;
use crate::key::Key;
use crate::segment_stat::{KernelIpcInfo, KernelShmInfo, KernelShmid};
use crate::sync::lock;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

pub use crate::segment_stat::{LastHand, Limits, SegmentStat};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("asmt runs on 64-bit little-endian Linux: x86_64 and aarch64");

const IPC_CREAT: i32 = 0o1000;
const IPC_EXCL: i32 = 0o2000;
const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
const SHM_RDONLY: i32 = 0o10000;
/// Turns a raw system call's result into a `Result`.
fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `shmctl` for the commands that fill a [`KernelShmid`].
fn stat_call(id_or_index: i32, command: i32, stat: &mut KernelShmid) -> io::Result<i64> {
    // SAFETY: `stat` is a live, exclusively borrowed structure of the size the kernel fills for
    // these commands.
    check(unsafe { libc::syscall(libc::SYS_shmctl, id_or_index, command, std::ptr::from_mut(stat)) })
}

/// Every segment of this IPC namespace, in the kernel's order. Segments that vanish during the call
/// are left out.
///
/// Errors: those of `shmctl`. A kernel before 4.17 shows an unprivileged caller only the segments
/// that it may read.
pub fn all_segments() -> io::Result<Vec<SegmentStat>> {
    let mut info = KernelShmInfo::default();
    // SAFETY: `info` is a live, exclusively borrowed structure of the size that SHM_INFO fills.
    let highest = check(unsafe { libc::syscall(libc::SYS_shmctl, 0, SHM_INFO, std::ptr::from_mut(&mut info)) })?;
    let mut found = Vec::new();
    for index in 0..=i32::try_from(highest).unwrap_or(i32::MAX) {
        let mut stat = KernelShmid::default();
        let outcome = match stat_call(index, SHM_STAT_ANY, &mut stat) {
            // EINVAL means a free slot on a new kernel, or an unknown command on an old one.
            // SHM_STAT tells the two apart, but shows only the segments that the caller may read.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => match stat_call(index, SHM_STAT, &mut stat) {
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => continue,
                other => other,
            },
            // A refusal is returned as an error: a stripe that is missing from the list would not
            // be noticed.
            other => other,
        };
        match outcome {
            Ok(shmid) => found.push(SegmentStat::from_kernel(i32::try_from(shmid).unwrap_or(-1), &stat)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The kernel's description of the segment with this id.
///
/// Errors: `EINVAL` or `EIDRM` if it is gone, `EACCES` if it may not be read.
pub fn stat(shmid: i32) -> io::Result<SegmentStat> {
    let mut stat = KernelShmid::default();
    stat_call(shmid, IPC_STAT, &mut stat)?;
    Ok(SegmentStat::from_kernel(shmid, &stat))
}

/// The process that attached or detached the segment with this id last. It is not part of
/// [`SegmentStat`], because reading a segment's bytes changes it.
///
/// Errors: those of [`stat`].
pub fn last_hand(shmid: i32) -> io::Result<LastHand> {
    let mut stat = KernelShmid::default();
    stat_call(shmid, IPC_STAT, &mut stat)?;
    Ok(LastHand::from_kernel(&stat))
}

/// Returns true if a call failed because the segment with this id is gone.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIDRM))
}

/// Reads the limits of this IPC namespace, and how much of them is in use.
pub fn limits() -> io::Result<Limits> {
    let mut limits = KernelIpcInfo::default();
    // SAFETY: `limits` is a live, exclusively borrowed structure of the size that IPC_INFO fills.
    check(unsafe { libc::syscall(libc::SYS_shmctl, 0, IPC_INFO, std::ptr::from_mut(&mut limits)) })?;
    let mut info = KernelShmInfo::default();
    // SAFETY: `info` is a live, exclusively borrowed structure of the size that SHM_INFO fills.
    check(unsafe { libc::syscall(libc::SYS_shmctl, 0, SHM_INFO, std::ptr::from_mut(&mut info)) })?;
    Ok(Limits::from_kernel(&limits, &info))
}

/// Makes a segment that must not exist yet: mode 0600, all zeros, with no memory behind it. Returns
/// its id.
///
/// Errors: `EEXIST`, `ENOSPC` (shmmni or shmall), `EINVAL` (shmmax), `ENOMEM`.
pub fn create(key: Key, size_bytes: u64) -> io::Result<i32> {
    let flags = IPC_CREAT | IPC_EXCL | 0o600;
    // SAFETY: shmget takes three integers and accesses none of our memory.
    let shmid = check(unsafe { libc::syscall(libc::SYS_shmget, key.as_raw(), size_bytes, flags) })?;
    i32::try_from(shmid).map_err(io::Error::other)
}

/// Marks the segment with this id for removal; it goes when the last process detaches it.
pub fn remove(shmid: i32) -> io::Result<()> {
    // SAFETY: IPC_RMID takes no structure; the kernel does not read the null pointer.
    check(unsafe { libc::syscall(libc::SYS_shmctl, shmid, IPC_RMID, std::ptr::null_mut::<u8>()) })?;
    Ok(())
}

/// Sets the owner, group and mode of a segment. The caller must be its owner or creator, or have
/// `CAP_SYS_ADMIN`.
pub fn set_owner(shmid: i32, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let mut stat = KernelShmid::default();
    stat.perm.uid = uid;
    stat.perm.gid = gid;
    stat.perm.mode = mode & 0o777;
    stat_call(shmid, IPC_SET, &mut stat)?;
    Ok(())
}

/// Size of the longest handle that the kernel returns (`MAX_HANDLE_SZ`).
const MAX_HANDLE_BYTES: usize = 128;
/// Type of the handle of a namespace's file (`FILEID_NSFS`). The handle is the namespace's id,
/// which is used only once per boot.
const NAMESPACE_HANDLE: i32 = 0xf1;

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX_HANDLE_BYTES],
}

/// Page size, in bytes, of the mapping that begins at `start`, read from the text of
/// `/proc/self/smaps`.
fn kernel_page_bytes(smaps: &str, start: u64) -> Option<u64> {
    let first = format!("{start:x}-");
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&first)).skip(1);
    let size = lines.find_map(|line| line.strip_prefix("KernelPageSize:"))?;
    size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The id of a namespace, read through its file in `/proc` and valid for the whole boot. `None` if
/// the kernel has no such handle (before 6.18), or if a container's rules forbid the call.
///
/// Errors: any other failure of the call. If it counted as a missing handle, this namespace would
/// look like another one.
pub fn namespace_handle(path: &str) -> io::Result<Option<Vec<u8>>> {
    let path = std::ffi::CString::new(path)?;
    let mut handle = FileHandle { bytes: MAX_HANDLE_BYTES as u32, kind: 0, handle: [0; MAX_HANDLE_BYTES] };
    let mut mount = 0i32;
    // SAFETY: the path is a C string, and both structures are live, exclusively borrowed and as
    // large as they say.
    let outcome = check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut(&mut mount),
            libc::AT_SYMLINK_FOLLOW,
        )
    });
    match outcome {
        Ok(_) if handle.kind == NAMESPACE_HANDLE => Ok(handle.handle.get(..handle.bytes as usize).map(<[u8]>::to_vec)),
        Ok(_) => Ok(None),
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM) => Ok(None),
            _ => Err(error),
        },
    }
}

/// How an attachment may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its bytes are read only.
    ReadOnly,
    /// Its bytes are read and written.
    ReadWrite,
}

/// The way to find the holes of an attached segment without touching them.
enum HoleFinder {
    /// The segment's own file, through `/proc/self/map_files`: exact.
    MapFile(DataFinder<File>),
    /// `mincore`: exact where nothing is swapped out.
    Mincore,
    /// Neither is available: everything counts as data.
    Blind,
}

/// An attached segment, which is detached when this value is dropped.
pub struct Attachment {
    base: NonNull<u8>,
    size_bytes: u64,
    access: Access,
    holes: HoleFinder,
    /// The segment's own file may be written.
    may_write_file: bool,
    /// Ranges that are held exclusively: see [`Exclusive`].
    taken: Mutex<Vec<Range<u64>>>,
}

/// Bytes of an attached segment that one thread holds for itself, to fill them.
pub struct Exclusive<'a> {
    attachment: &'a Attachment,
    range: Range<u64>,
}

// SAFETY: the mapping belongs to the process, not to a thread; all methods take offsets and check
// them against the size.
unsafe impl Send for Attachment {}
// SAFETY: as above; writers keep to disjoint ranges (see `take`), and readers only read segments
// that nobody writes.
unsafe impl Sync for Attachment {}

impl Attachment {
    /// Attaches the segment with this id. `swapped_bytes` is the number from `/proc/sysvipc/shm`:
    /// if pages are swapped out, `mincore` would report them as holes.
    ///
    /// Errors: `EACCES` (not the owner), `EINVAL`/`EIDRM` (gone), `ENOMEM` (address space,
    /// RLIMIT_AS); [`io::ErrorKind::Unsupported`] for a segment in huge pages.
    pub fn new(shmid: i32, access: Access, swapped_bytes: u64) -> io::Result<Self> {
        let mut attachment = Self::without_holes(shmid, access)?;
        if attachment.is_in_huge_pages()? {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is in huge pages (SHM_HUGETLB)"));
        }
        attachment.may_write_file = access == Access::ReadWrite && !is_file_size_limited();
        attachment.holes = attachment.find_holes_with(swapped_bytes);
        Ok(attachment)
    }

    /// Attaches as [`Self::new`] does, but all bytes count as data, and it takes no file
    /// descriptor: thousands of segments can be attached at once.
    ///
    /// Errors: those of [`Self::new`]; `ENOMEM` also if the process has too many mappings
    /// (`vm.max_map_count`).
    pub fn without_holes(shmid: i32, access: Access) -> io::Result<Self> {
        let size_bytes = stat(shmid)?.size_bytes;
        let flags = match access {
            Access::ReadOnly => SHM_RDONLY,
            Access::ReadWrite => 0,
        };
        // SAFETY: with a null address the kernel picks a free range, so it replaces none of our
        // mappings.
        let address = check(unsafe { libc::syscall(libc::SYS_shmat, shmid, std::ptr::null::<u8>(), flags) })?;
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(address.cast_unsigned() as usize))
            .ok_or_else(|| io::Error::other("shmat gave a null address"))?;
        Ok(Self { base, size_bytes, access, holes: HoleFinder::Blind, may_write_file: false, taken: Mutex::default() })
    }

    /// Returns true if the segment was made with `SHM_HUGETLB`. No server makes such a segment.
    /// Reading one of its holes takes a page from a pool that may be empty, which ends in SIGBUS;
    /// and `mincore` reports all of it as a hole.
    fn is_in_huge_pages(&self) -> io::Result<bool> {
        let start = self.base.as_ptr() as u64;
        if self.size_bytes <= page_bytes() {
            // Other memory may lie behind a segment of one page, and the call below would empty it.
            // A segment in huge pages is mapped to the end of such a page, whatever its size.
            let own = format!("/proc/self/map_files/{start:x}-{:x}", start + page_bytes());
            return if std::fs::symlink_metadata(own).is_ok() { Ok(false) } else { self.has_huge_pages_by_smaps() };
        }
        // SAFETY: the segment has more than one page, so this address is in it.
        let second = unsafe { self.base.as_ptr().add(page_bytes() as usize) }.cast();
        // The kernel cannot drop half of a huge page. For any other page, this mapping forgets its
        // page table entry, which is empty so far; the segment keeps its bytes. SAFETY:
        // `MADV_DONTNEED` of a shared mapping changes no byte.
        let outcome = unsafe { libc::madvise(second, page_bytes() as usize, libc::MADV_DONTNEED) };
        if outcome == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Ok(false);
        }
        // The kernel refuses locked memory, too.
        self.has_huge_pages_by_smaps()
    }

    fn has_huge_pages_by_smaps(&self) -> io::Result<bool> {
        let maps = std::fs::read_to_string("/proc/self/smaps")?;
        Ok(kernel_page_bytes(&maps, self.base.as_ptr() as u64) != Some(page_bytes()))
    }

    fn find_holes_with(&self, swapped_bytes: u64) -> HoleFinder {
        let start = self.base.as_ptr() as u64;
        let end = start + self.size_bytes.next_multiple_of(page_bytes());
        let file = format!("/proc/self/map_files/{start:x}-{end:x}");
        if let Ok(file) = File::options().read(true).write(self.may_write_file).open(file) {
            return HoleFinder::MapFile(DataFinder::new(file));
        }
        // To a caller who may only read a file, mincore may report everything as resident. That is
        // the safe side: nothing is taken for a hole. (For a segment it reports the truth to
        // everybody, because its inode is open to all. Seen on Linux 6.18.)
        if swapped_bytes == 0 { HoleFinder::Mincore } else { HoleFinder::Blind }
    }

    /// Returns true if holes are found exactly, even with pages swapped out. This needs
    /// `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` of the machine, not of a user namespace.
    pub fn finds_all_holes(&self) -> bool {
        matches!(self.holes, HoleFinder::MapFile(_))
    }

    /// Returns true if holes are found by the pages that are resident, which is right only as long
    /// as no page of the segment is swapped out.
    pub fn tells_holes_by_residency(&self) -> bool {
        matches!(self.holes, HoleFinder::Mincore)
    }

    /// Size of the segment in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn check_range(&self, offset: u64, length: usize) {
        let end = offset.checked_add(length as u64);
        assert!(
            end.is_some_and(|end| end <= self.size_bytes),
            "range {offset}+{length} is past the segment's {} bytes",
            self.size_bytes
        );
    }

    /// Bytes of the segment. Reading a hole through this slice makes the kernel allocate it: call
    /// [`Self::next_data`] first.
    ///
    /// Panics if the range reaches past the segment.
    pub fn bytes(&self, range: Range<u64>) -> &[u8] {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        self.check_range(range.start, length);
        self.populate(&range, libc::MADV_POPULATE_READ);
        // SAFETY: the range was checked to be in the segment.
        let start = unsafe { self.base.as_ptr().add(range.start as usize) };
        // SAFETY: the range is mapped and readable as long as `self` lives. Another process could
        // write to it. The plan refuses attached segments, and the backup checks again afterwards,
        // so a copy of such bytes is never kept.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// Bytes of the segment to fill, held by the caller alone until it drops them. All of their
    /// memory is allocated at once: page by page, at the first touch, would take several times as
    /// long.
    ///
    /// Panics if the range reaches past the segment, if another holder has bytes of it, or if the
    /// attachment is read-only.
    pub fn exclusive(&self, range: Range<u64>) -> Exclusive<'_> {
        let exclusive = self.take(range);
        self.populate(&exclusive.range, libc::MADV_POPULATE_WRITE);
        exclusive
    }

    /// Takes the range as [`Self::exclusive`] does, but allocates no memory.
    fn take(&self, range: Range<u64>) -> Exclusive<'_> {
        assert_eq!(self.access, Access::ReadWrite, "attached read-only");
        self.check_range(range.start, usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX));
        let mut taken = lock(&self.taken);
        assert!(
            taken.iter().all(|other| other.end <= range.start || range.end <= other.start),
            "bytes {range:?} are in somebody else's hands"
        );
        taken.push(range.clone());
        Exclusive { attachment: self, range }
    }

    /// Stores bytes that no other holder may have.
    ///
    /// They go through the segment's own file if it is available: the kernel then makes pages with
    /// these bytes in them. Otherwise it makes pages of zeros and maps them, and the bytes are
    /// overwritten, which takes twice as long.
    ///
    /// Errors: `ENOMEM`, `ENOSPC` if there is no memory for them. Panics as [`Self::exclusive`]
    /// does.
    pub fn store(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut memory = self.take(offset..offset + bytes.len() as u64);
        let mut done = 0;
        if let Some(file) = self.writable_file() {
            while done < bytes.len() {
                match rustix::io::pwrite(file, &bytes[done..], offset + done as u64) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if done < bytes.len() {
            self.populate(&(offset + done as u64..memory.range.end), libc::MADV_POPULATE_WRITE);
            memory[done..].copy_from_slice(&bytes[done..]);
        }
        Ok(())
    }

    fn writable_file(&self) -> Option<&File> {
        match &self.holes {
            HoleFinder::MapFile(finder) if self.may_write_file => Some(finder.file()),
            _ => None,
        }
    }

    /// Allocates the memory of the whole pages in a range. Best effort: the rest is allocated when
    /// it is touched.
    fn populate(&self, range: &Range<u64>, how: i32) {
        let start = range.start.next_multiple_of(page_bytes());
        let length = (range.end - range.end % page_bytes()).saturating_sub(start);
        if length > 0 {
            // SAFETY: the caller has checked that the range is in the segment.
            let address = unsafe { self.base.as_ptr().add(start as usize) };
            // SAFETY: populating changes no byte; the range is mapped, writable, and held by the
            // caller alone.
            let _ = unsafe { libc::madvise(address.cast(), length as usize, how) };
        }
    }

    /// Stores one aligned word in one piece, after everything that was stored before it. It makes
    /// no system call.
    ///
    /// Panics if the word is not aligned, reaches past the segment, or the attachment is read-only.
    pub fn store_word(&self, offset: usize, word: u32) {
        self.word(offset).store(word.to_le(), Ordering::SeqCst);
    }

    /// Returns true if one aligned word is `expected`. It changes nothing, but maps the word's page
    /// for writing: storing the word later needs no more memory.
    ///
    /// Panics as [`Self::store_word`] does.
    pub fn is_word(&self, offset: usize, expected: u32) -> bool {
        // Not a load: only a store maps the page for writing. It stores the word that is there
        // already.
        let expected = expected.to_le();
        self.word(offset).compare_exchange(expected, expected, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert_eq!(self.access, Access::ReadWrite, "attached read-only");
        assert_eq!(offset % 4, 0, "a word is aligned");
        self.check_range(offset as u64, 4);
        // SAFETY: the range was checked to be in the segment.
        let target = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: `target` is mapped writable, and aligned, because the mapping starts at a page;
        // it is only accessed atomically here.
        unsafe { AtomicU32::from_ptr(target.cast()) }
    }

    /// The next range that may hold data at or after `from` and before `to`; `None` if there are
    /// only holes. Bytes outside of these ranges are zeros and need not be read. A range has whole
    /// pages, clipped to `from..to`.
    ///
    /// Errors: those of `lseek` or `mincore`.
    pub fn next_data(&self, from: u64, to: u64) -> io::Result<Option<Range<u64>>> {
        let to = to.min(self.size_bytes);
        if from >= to {
            return Ok(None);
        }
        match &self.holes {
            HoleFinder::MapFile(finder) => finder.next_data(from, to),
            HoleFinder::Mincore => self.next_resident(from, to),
            HoleFinder::Blind => Ok(Some(from..to)),
        }
    }

    /// The range of data that [`Self::next_data`] found last, to be passed to [`Self::expect_data`]
    /// of a later attachment.
    pub fn data_found(&self) -> Range<u64> {
        if let HoleFinder::MapFile(finder) = &self.holes { finder.found() } else { 0..0 }
    }

    /// Takes this range, which an earlier attachment has found, for data without checking it.
    pub fn expect_data(&mut self, range: Range<u64>) {
        if let HoleFinder::MapFile(finder) = &mut self.holes {
            finder.expect(range);
        }
    }

    fn next_resident(&self, from: u64, to: u64) -> io::Result<Option<Range<u64>>> {
        let page = page_bytes();
        let mut pages = [0u8; 4096];
        let mut data_start = None;
        let mut position = from - from % page;
        while position < to {
            let length = (to - position).min(page * pages.len() as u64);
            // SAFETY: the caller has clipped the range to the segment.
            let start = unsafe { self.base.as_ptr().add(position as usize) };
            // SAFETY: the range is mapped; the kernel fills one byte per page, and `pages` has room
            // for `length` of them.
            check(i64::from(unsafe { libc::mincore(start.cast(), length as usize, pages.as_mut_ptr()) }))?;
            for (index, state) in pages[..length.div_ceil(page) as usize].iter().enumerate() {
                let page_start = position + index as u64 * page;
                match (state & 1 != 0, data_start) {
                    (true, None) => data_start = Some(page_start.max(from)),
                    (false, Some(start)) => return Ok(Some(start..page_start)),
                    _ => {}
                }
            }
            position += length;
        }
        Ok(data_start.map(|start| start..to))
    }
}

impl Deref for Exclusive<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.attachment.bytes(self.range.clone())
    }
}

impl DerefMut for Exclusive<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let length = (self.range.end - self.range.start) as usize;
        // SAFETY: the range was checked to be in the segment when this was made.
        let start = unsafe { self.attachment.base.as_ptr().add(self.range.start as usize) };
        // SAFETY: the range is mapped writable as long as the attachment lives, and no other
        // `Exclusive` overlaps it.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.attachment.taken);
        taken.retain(|range| *range != self.range);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: `base` came from shmat, and no slice of it outlives `self`. The call can only
        // fail for a wrong address.
        unsafe { libc::syscall(libc::SYS_shmdt, self.base.as_ptr()) };
    }
}

/// Returns true if a limit on the size of files is set. The kernel applies it also to segments that
/// are written as files, and sends a signal that ends the process.
fn is_file_size_limited() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some()
}

/// Size of a memory page in bytes: 4096, and on some aarch64 kernels 16384 or 65536.
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment that belongs to the test, under a key that is not Aerospike's; removed when
    /// dropped.
    struct Scratch(i32);

    impl Scratch {
        fn new(low: u32, size_bytes: u64) -> Self {
            // 0x7E… is foreign to Aerospike; the process id keeps parallel test processes apart.
            let key = Key(0x7e00_0000 | (std::process::id() & 0xffff) << 8 | low);
            Self(create(key, size_bytes).expect("a scratch segment"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            remove(self.0).expect("to remove the scratch segment");
        }
    }

    fn data_ranges(attachment: &Attachment) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(range) = attachment.next_data(from, attachment.size_bytes()).expect("ranges") {
            from = range.end;
            ranges.push(range);
        }
        ranges
    }

    #[test]
    fn a_new_segment_is_private_sized_and_listed() {
        let scratch = Scratch::new(1, 10_000);
        let stat = stat(scratch.0).expect("stat");
        assert_eq!((stat.size_bytes, stat.mode, stat.attached_count, stat.is_removed), (10_000, 0o600, 0, false));
        assert_eq!(stat.creator_pid, i32::try_from(std::process::id()).expect("a pid"));
        assert!(all_segments().expect("segments").iter().any(|s| s.shmid == scratch.0 && s.key == stat.key));
        assert_eq!(create(stat.key, 10_000).expect_err("exclusive").raw_os_error(), Some(libc::EEXIST));
        set_owner(scratch.0, stat.uid, stat.gid, 0o640).expect("set");
        assert_eq!(super::stat(scratch.0).expect("stat").mode, 0o640);
    }

    #[test]
    fn holes_are_found_and_not_made_resident() {
        let page = page_bytes();
        let scratch = Scratch::new(2, 64 * page);
        let attachment = Attachment::new(scratch.0, Access::ReadWrite, 0).expect("attach");
        assert_eq!(data_ranges(&attachment), []);
        attachment.exclusive(5 * page + 7..5 * page + 8).fill(7);
        attachment.exclusive(63 * page..63 * page + 1).fill(7);
        let expected = vec![5 * page..6 * page, 63 * page..64 * page];
        assert_eq!(data_ranges(&attachment), expected);
        let mut by_mincore = Attachment::new(scratch.0, Access::ReadWrite, 0).expect("attach");
        by_mincore.holes = HoleFinder::Mincore;
        assert_eq!(data_ranges(&by_mincore), expected);
        assert_eq!(by_mincore.next_data(5 * page + 9, 5 * page + 11).expect("range"), Some(5 * page + 9..5 * page + 11));
        let mut blind = Attachment::new(scratch.0, Access::ReadOnly, 0).expect("attach");
        blind.holes = HoleFinder::Blind;
        assert_eq!(data_ranges(&blind), vec![0..64 * page]);
    }

    #[test]
    fn attaching_a_segment_of_one_page_leaves_the_memory_behind_it_alone() {
        let page = page_bytes() as usize;
        let scratch = Scratch::new(6, 4096);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // The kernel places a new mapping below the one before it, so each segment stands in front
        // of such a page.
        let neighbours = (0..64).map(|_| {
            // SAFETY: with a null address the kernel picks a free range.
            let address = unsafe { libc::mmap(std::ptr::null_mut(), page, protection, flags, -1, 0) };
            assert_ne!(address, libc::MAP_FAILED);
            // SAFETY: the page was just mapped, for writing.
            unsafe { address.cast::<u8>().write_bytes(7, page) };
            (address, Attachment::new(scratch.0, Access::ReadOnly, 0).expect("attach"))
        });
        let neighbours: Vec<_> = neighbours.collect();
        let is_behind = |(address, attachment): &&(*mut libc::c_void, Attachment)| {
            attachment.base.as_ptr() as usize + page == *address as usize
        };
        assert!(neighbours.iter().any(|neighbour| is_behind(&neighbour)), "none stands where it was meant to");
        for (address, attachment) in neighbours {
            drop(attachment);
            // SAFETY: the page is mapped, and only this test knows it.
            let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), page) };
            assert!(bytes.iter().all(|byte| *byte == 7));
            // SAFETY: as above; its bytes are not used afterwards.
            unsafe { libc::munmap(address, page) };
        }
    }

    #[test]
    fn words_and_bytes_come_back() {
        let scratch = Scratch::new(3, 5000);
        let attachment = Attachment::new(scratch.0, Access::ReadWrite, 0).expect("attach");
        attachment.store(4996, &[1, 2, 3, 4]).expect("to store");
        attachment.exclusive(4000..4004).copy_from_slice(&[5, 6, 7, 8]);
        attachment.store(4002, &[9]).expect("to store");
        assert_eq!(attachment.bytes(4000..4004), [5, 6, 9, 8]);
        attachment.store_word(4, 0x0403_0201);
        assert_eq!(attachment.bytes(4996..5000), attachment.bytes(4..8));
        assert_eq!(stat(scratch.0).expect("stat").attached_count, 1);
        drop(attachment);
        assert_eq!(stat(scratch.0).expect("stat").attached_count, 0);
    }

    #[test]
    fn bytes_are_held_by_one_holder_at_a_time() {
        let page = page_bytes();
        let scratch = Scratch::new(5, 8 * page);
        let attachment = Attachment::new(scratch.0, Access::ReadWrite, 0).expect("attach");
        let mut first = attachment.exclusive(0..page + 1);
        first[page as usize] = 7;
        let second = attachment.exclusive(page + 1..3 * page);
        let third = || attachment.exclusive(2 * page..4 * page);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(third)).is_err());
        drop((first, second));
        assert_eq!(third().len() as u64, 2 * page);
        assert_eq!(attachment.bytes(page..page + 2), [7, 0]);
        assert_eq!(data_ranges(&attachment), vec![0..4 * page], "nothing else was made");
    }

    #[test]
    #[should_panic(expected = "past the segment")]
    fn a_range_past_the_segment_is_never_given() {
        let scratch = Scratch::new(4, 4096);
        Attachment::new(scratch.0, Access::ReadOnly, 0).expect("attach").bytes(4095..4097);
    }

    #[test]
    fn limits_are_those_of_the_kernel() {
        let shmmni: u64 = std::fs::read_to_string("/proc/sys/kernel/shmmni").expect("shmmni").trim().parse().expect("a number");
        assert_eq!(limits().expect("limits").max_segment_count, shmmni);
    }
}
