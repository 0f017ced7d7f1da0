//! The segments in shared memory: every one of Aerospike's in this IPC namespace, with header and
//! residency.
//!
//! Promise: foreign segments are counted, and never attached, read or touched. Of Aerospike's
//! segments only base, si-meta and stripes are read, for microseconds, read-only, and only if there
//! is a page of memory to read. Must never: write, attach a segment whose key is not Aerospike's,
//! or attach one that the kernel would destroy when it is detached (`kernel.shm_rmid_forced`).

use crate::error::{Error, Result};
use crate::facts::memory::{Attacher, Creator, Inventory, Segment, State};
use crate::layout::namespace::Group;
use crate::look::memory;
use crate::sys::process;
use crate::sys::procfs::{self, Process};
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use asmt_shm::{Address, BASE_MIN_BYTES, HEADER_BYTES, Header, SegmentType};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Most bytes of the page in which a segment ends.
const MOST_PAGE_BYTES: u64 = 64 << 10;

/// Reads the state of this IPC namespace.
///
/// Errors: failed calls. Segments that vanish during the call are left out.
pub fn take() -> Result<Inventory> {
    let stats = sysv::all_segments().map_err(|error| Error::io("shmctl", "(listing segments)", error))?;
    let pages = resident_and_swapped()?;
    let mut inventory = Inventory {
        limits: Some(sysv::limits().map_err(|error| Error::io("shmctl", "(listing segments and their limits)", error))?),
        memory: memory::take()?,
        is_rmid_forced: procfs::text_if_there("/proc/sys/kernel/shm_rmid_forced")?.is_some_and(|text| text.trim() != "0"),
        ..Inventory::default()
    };
    let mut creators: HashMap<i32, Creator> = HashMap::new();
    for stat in stats {
        // A segment that was removed while attached has lost its key: no process can find it any
        // more.
        let Some(address) = stat.key.address().filter(|_| !stat.is_removed) else {
            inventory.foreign_count += 1;
            continue;
        };
        // For huge pages the kernel shows more bytes than there are.
        let most = stat.size_bytes.saturating_add(MOST_PAGE_BYTES);
        let (resident_bytes, swapped_bytes) =
            pages.get(&stat.shmid).map_or((None, 0), |&(rss, swap)| (Some(rss.min(most)), swap));
        let found = if inventory.is_rmid_forced && stat.attached_count == 0 {
            // Ours would be the last attachment, and the segment would go with it.
            Start::Header(Header::Unreadable)
        } else {
            read_header(&stat, address, resident_bytes, swapped_bytes, &mut inventory.finds_all_holes)?
        };
        let creator = match creators.get(&stat.creator_pid) {
            Some(known) => known.clone(),
            None => creators.entry(stat.creator_pid).insert_entry(creator(stat.creator_pid)?).get().clone(),
        };
        let (is_denied, is_huge) = (found == Start::Denied, found == Start::Huge);
        let header = if let Start::Header(header) = found { header } else { Header::Unreadable };
        let segment = Segment { address, resident_bytes, swapped_bytes, header, is_denied, is_huge, creator, stat };
        inventory.segments.insert(segment.key(), segment);
    }
    let attached: HashSet<i32> =
        inventory.segments.values().filter(|s| s.stat.attached_count > 0).map(|s| s.stat.shmid).collect();
    if !attached.is_empty() {
        inventory.attachers = attachers(&attached);
    }
    inventory.asmts = asmts(&inventory)?;
    Ok(inventory)
}

/// Finds out which of the processes that make or attach segments are asmt.
pub(crate) fn asmts(inventory: &Inventory) -> Result<HashSet<(u8, u32)>> {
    let mut found = HashSet::new();
    let mut seen = HashSet::new();
    for segment in inventory.segments.values() {
        for pid in pids_with(inventory, segment) {
            let instance = segment.address.instance;
            if seen.insert((instance, pid)) && process::is_at_work(pid, instance)? {
                found.insert((instance, pid));
            }
        }
    }
    Ok(found)
}

/// Processes that have a segment attached, or that made it and have not ended yet, as far as they
/// are seen.
fn pids_with(inventory: &Inventory, segment: &Segment) -> impl Iterator<Item = u32> {
    let attachers = inventory.attachers.get(&segment.stat.shmid).into_iter().flatten().map(|attacher| attacher.pid);
    let creator = if let Creator::Alive { pid, .. } = segment.creator { Some(pid) } else { None };
    attachers.chain(creator)
}

/// Finds the process that made a segment.
pub(crate) fn creator(pid: i32) -> Result<Creator> {
    // The id 0 stands for a process of a PID namespace that cannot be seen from here.
    let Some(pid) = u32::try_from(pid).ok().filter(|pid| *pid > 0) else { return Ok(Creator::Unseen) };
    if pid == std::process::id() {
        return Ok(Creator::Gone);
    }
    let command = match procfs::process(pid)? {
        Process::Gone => return Ok(Creator::Gone),
        Process::Hidden => return Ok(Creator::Unseen),
        Process::Seen(stat) => stat.command,
    };
    let (own, theirs) = ("/proc/thread-self/ns/ipc", format!("/proc/{pid}/ns/ipc"));
    let own = fs::read_link(own).map_err(|error| Error::io("readlink", own, error))?;
    match fs::read_link(&theirs) {
        // Another process has that id by now: the creator of a segment is in this IPC namespace.
        Ok(namespace) if namespace != own => Ok(Creator::Gone),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Creator::Gone),
        // The kernel does not show it for another user's process.
        Err(error) if !procfs::is_unseen(&error) => Err(Error::io("readlink", theirs, error)),
        _ => Ok(Creator::Alive { pid, command }),
    }
}

/// Reads the header of a known segment once more.
pub fn header_again(segment: &Segment) -> Result<Header> {
    let found = read_header(&segment.stat, segment.address, segment.resident_bytes, segment.swapped_bytes, &mut None)?;
    match found {
        Start::Header(header) => Ok(header),
        Start::Denied | Start::Huge => Err(Error::io("shmat", segment.key(), std::io::Error::from_raw_os_error(libc::EACCES))),
    }
}

/// The first bytes of a segment.
#[derive(PartialEq, Eq)]
enum Start {
    Header(Header),
    /// Permission is missing.
    Denied,
    /// It is in huge pages.
    Huge,
}

/// Reads the header of a segment that must have one.
fn read_header(
    stat: &SegmentStat,
    address: Address,
    resident_bytes: Option<u64>,
    swapped_bytes: u64,
    finds_all_holes: &mut Option<bool>,
) -> Result<Start> {
    if !address.segment_type.has_header() {
        return Ok(Start::Header(Header::None));
    }
    let zeros = [0; HEADER_BYTES];
    let length = HEADER_BYTES.min(usize::try_from(stat.size_bytes).unwrap_or(HEADER_BYTES));
    // Nothing was ever stored: reading would make the kernel allocate a page of zeros.
    if resident_bytes == Some(0) && swapped_bytes == 0 {
        return Ok(Start::Header(Header::parse(address.segment_type, &zeros[..length])));
    }
    match Attachment::new(stat.shmid, Access::ReadOnly, swapped_bytes) {
        Ok(attachment) => {
            *finds_all_holes = Some(attachment.finds_all_holes());
            let length = length.min(usize::try_from(attachment.size_bytes()).unwrap_or(length));
            let has_data = attachment.next_data(0, length as u64).map_err(|error| Error::io("lseek", stat.key, error))?;
            let bytes = if has_data.is_some() { attachment.bytes(0..length as u64) } else { &zeros[..length] };
            Ok(Start::Header(Header::parse(address.segment_type, bytes)))
        }
        // It was removed after the listing.
        Err(error) if sysv::is_gone(&error) => Ok(Start::Header(Header::Unreadable)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Start::Huge),
        Err(error) => match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Ok(Start::Denied),
            _ => Err(Error::io("shmat", stat.key, error)),
        },
    }
}

/// Ids of the segments that have pages swapped out now.
///
/// Errors: failed calls.
pub fn swapped() -> Result<HashSet<i32>> {
    Ok(resident_and_swapped()?.into_iter().filter(|(_, (_, swapped_bytes))| *swapped_bytes > 0).map(|(shmid, _)| shmid).collect())
}

/// Resident and swapped bytes by segment id, from `/proc/sysvipc/shm`; empty if the kernel does not
/// show them.
fn resident_and_swapped() -> Result<HashMap<i32, (u64, u64)>> {
    let text = procfs::text("/proc/sysvipc/shm")?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let column = |name: &str| names.iter().position(|found| *found == name);
    let (Some(id), Some(rss), Some(swap)) = (column("shmid"), column("rss"), column("swap")) else {
        return Ok(HashMap::new());
    };
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((fields.get(id)?.parse().ok()?, (fields.get(rss)?.parse().ok()?, fields.get(swap)?.parse().ok()?)))
    };
    Ok(lines.filter_map(of_line).collect())
}

/// Who has these segments attached, as far as `/proc` shows: processes of this IPC namespace that
/// may be looked into.
pub(crate) fn attachers(shmids: &HashSet<i32>) -> HashMap<i32, Vec<Attacher>> {
    let mut found: HashMap<i32, Vec<Attacher>> = HashMap::new();
    let own_namespace = fs::read_link("/proc/thread-self/ns/ipc").ok();
    let Ok(processes) = crate::sys::dir::names_of(Path::new("/proc")) else { return found };
    for pid in processes.iter().filter_map(|name| name.parse::<u32>().ok()) {
        if pid == std::process::id() || fs::read_link(format!("/proc/{pid}/ns/ipc")).ok() != own_namespace {
            continue;
        }
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let held: BTreeSet<i32> = maps.lines().filter_map(shmid_of_mapping).filter(|id| shmids.contains(id)).collect();
        if held.is_empty() {
            continue;
        }
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        for shmid in held {
            found.entry(shmid).or_default().push(Attacher { pid, command: command.clone() });
        }
    }
    found
}

/// Returns the segment id of a line of `/proc/PID/maps`, if the line is of a System V segment: the
/// inode is the id.
fn shmid_of_mapping(line: &str) -> Option<i32> {
    let mut fields = line.split_whitespace();
    let inode = fields.nth(4)?;
    fields.next()?.starts_with("/SYSV").then(|| inode.parse().ok())?
}

/// The state in which the server left a namespace, by base, as listings show it.
pub fn state(inventory: &Inventory, group: &Group) -> State {
    let segments: Vec<&Segment> = group.keys.iter().filter_map(|key| inventory.segments.get(key)).collect();
    let is_asmt = |pid: u32| inventory.asmts.contains(&(group.instance, pid));
    // A process that is attached, and is not known to be asmt, may be the server.
    let is_held = |segment: &&Segment| {
        let attachers = inventory.attachers.get(&segment.stat.shmid).map_or(&[][..], Vec::as_slice);
        let asmt_count = attachers.iter().filter(|attacher| is_asmt(attacher.pid)).count();
        segment.stat.attached_count > asmt_count as u64
    };
    if segments.iter().any(is_held) {
        return State::Running;
    }
    if segments.iter().any(|segment| pids_with(inventory, segment).any(is_asmt)) {
        return State::AsmtAtWork;
    }
    if segments.iter().any(|segment| segment.is_denied) {
        return State::Unreadable;
    }
    let base = segments.iter().find(|segment| segment.address.segment_type == SegmentType::PiBase);
    let headers = headers_of(&segments);
    let is_torn =
        || group.name.as_ref().is_some_and(|name| !crate::layout::namespace::torn_stripes(&headers, name, true).is_empty());
    match base.map(|base| &base.header) {
        None if group.nsid.is_some() || group.name.is_none() => State::Incomplete,
        None if is_torn() => State::Torn,
        None => State::DataOnly,
        Some(Header::Base(base)) if !asmt_shm::KNOWN_BASE_VERSIONS.contains(&base.version) => State::UnknownVersion,
        Some(Header::Base(base)) if base.shutdown != asmt_shm::SHUTDOWN_CLEAN => State::Unclean,
        Some(Header::Base(_)) if !crate::layout::namespace::missing_or_extra(&headers).is_empty() => State::Incomplete,
        Some(Header::Base(_)) if is_torn() => State::Torn,
        Some(Header::Base(_)) => State::Clean,
        Some(_) => State::Incomplete,
    }
}

fn headers_of<'a>(segments: &[&'a Segment]) -> Vec<(Address, &'a Header)> {
    segments.iter().map(|segment| (segment.address, &segment.header)).collect()
}

const _: () = assert!(BASE_MIN_BYTES as usize <= HEADER_BYTES, "one read holds every header");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_segments_are_told_from_others() {
        assert_eq!(shmid_of_mapping("7f0-7f1 rw-s 00000000 00:01 42 /SYSVae001000 (deleted)"), Some(42));
        assert_eq!(shmid_of_mapping("7f0-7f1 r-xp 00000000 08:01 42 /usr/lib/libc.so"), None);
        assert_eq!(shmid_of_mapping("7f0-7f1 rw-p 00000000 00:00 0"), None);
    }
}
