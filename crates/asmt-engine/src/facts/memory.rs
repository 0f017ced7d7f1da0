//! The segments in shared memory, and the memory that is available, as plain values.
//! `look/segments.rs` and `look/memory.rs` make them.

use crate::layout::namespace::{Group, group};
use asmt_shm::sysv::{Limits, SegmentStat};
use asmt_shm::{Address, Header, Key};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

/// The memory that is available at one moment, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The kernel's estimate of what is available without swapping.
    pub available_bytes: Option<u64>,
    /// Largest segment that can be made with `vm.overcommit_memory` 0: memory and swap together.
    pub largest_bytes: Option<u64>,
    /// Bytes that can still be committed with `vm.overcommit_memory` 2. A segment counts with its
    /// full size.
    pub promisable_bytes: Option<u64>,
    /// The tightest limit of this process's cgroup and of those above it.
    pub cgroup: Option<CgroupLimit>,
}

/// The limit of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLimit {
    /// The file that has the limit.
    pub file: PathBuf,
    /// The limit.
    pub limit_bytes: u64,
    /// The part of it that is left, including all that can be reclaimed (the page cache).
    pub available_bytes: u64,
}

/// One of Aerospike's segments in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The kernel's description of it.
    pub stat: SegmentStat,
    /// The address that its key stands for.
    pub address: Address,
    /// Resident bytes; `None` if `/proc/sysvipc/shm` does not show them.
    pub resident_bytes: Option<u64>,
    /// Bytes swapped out.
    pub swapped_bytes: u64,
    /// The header in its first bytes.
    pub header: Header,
    /// Its first bytes could not be read for lack of permission.
    pub is_denied: bool,
    /// It is in huge pages, which no server uses.
    pub is_huge: bool,
    /// The process that made it.
    pub creator: Creator,
}

/// The process that made a segment (`shm_cpid`). As long as it runs, it may be an asmt that is at
/// work on the segment.
///
/// The start of the process is not compared with the creation of the segment. Only the wall clock
/// tells when a segment was made; if that is set forward, a process that is at work would look
/// younger than its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creator {
    /// It has ended, or it is this process, which makes no segment while it looks.
    Gone,
    /// A process with its id runs in this IPC namespace.
    Alive {
        /// Its id.
        pid: u32,
        /// Its name, as the kernel has it.
        command: String,
    },
    /// It may run, but cannot be seen from here: it is in another PID namespace, or hidden from
    /// this user.
    Unseen,
}

impl Segment {
    /// Its key.
    pub fn key(&self) -> Key {
        self.stat.key
    }

    /// The users who made it and own it. Both count, because a creator can give a segment to
    /// anyone.
    pub fn makers(&self) -> Makers {
        Makers::of([self.stat.creator_uid, self.stat.uid])
    }
}

/// The users who made or own a segment, apart from root: none for root's own.
///
/// A restore by root that gives segments away, and a later server of their owner, are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Makers(BTreeSet<u32>);

impl Makers {
    /// The makers with these user ids; root is left out.
    pub fn of(uids: impl IntoIterator<Item = u32>) -> Self {
        Self(uids.into_iter().filter(|uid| *uid != 0).collect())
    }

    /// Their user ids.
    pub fn uids(&self) -> &BTreeSet<u32> {
        &self.0
    }
}

impl fmt::Display for Makers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("root");
        }
        let uids: Vec<String> = self.0.iter().map(|uid| format!("uid {uid}")).collect();
        f.write_str(&uids.join(" and "))
    }
}

/// The holder of this IPC namespace after asmt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The machine, a mount, or a process that does not depend on asmt; or one that may be such a
    /// process.
    Lasting,
    /// Only a process that runs asmt, such as a shell.
    Ancestor {
        /// Its id.
        pid: u32,
        /// Its name.
        command: String,
    },
    /// None: the namespace ends with asmt.
    Nobody,
}

/// A process that has a segment attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attacher {
    /// Process id.
    pub pid: u32,
    /// Its name; `asd` is the server.
    pub command: String,
}

/// The segments at one moment.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Aerospike's segments, by key.
    pub segments: BTreeMap<Key, Segment>,
    /// Number of segments that are not Aerospike's.
    pub foreign_count: u64,
    /// The processes that are attached, by segment id: only for attached segments, and only as far
    /// as `/proc` shows them.
    pub attachers: HashMap<i32, Vec<Attacher>>,
    /// The asmts at work on an instance, among those that made or attached its segments: instance
    /// and process id.
    pub asmts: HashSet<(u8, u32)>,
    /// Limits of the IPC namespace.
    pub limits: Option<Limits>,
    /// Memory that is available.
    pub memory: Memory,
    /// `kernel.shm_rmid_forced` is set: a segment is destroyed as soon as no process has it
    /// attached.
    pub is_rmid_forced: bool,
    /// Holes are found even with pages swapped out; `None` if no segment was attached.
    pub finds_all_holes: Option<bool>,
    /// The holder of the IPC namespace; `None` if that was not checked.
    pub keeper: Option<Keeper>,
}

impl Inventory {
    /// Leaves out segments as if they had been removed: their memory is available then, and they
    /// count against no limit.
    pub fn leave_out(&mut self, shmids: &HashSet<i32>, page_bytes: u64) {
        let (gone, left) =
            std::mem::take(&mut self.segments).into_iter().partition(|(_, segment)| shmids.contains(&segment.stat.shmid));
        self.segments = left;
        for segment in BTreeMap::<Key, Segment>::into_values(gone) {
            let resident_bytes = segment.resident_bytes.unwrap_or(0);
            let memory = &mut self.memory;
            memory.available_bytes = memory.available_bytes.map(|bytes| bytes.saturating_add(resident_bytes));
            memory.promisable_bytes = memory.promisable_bytes.map(|bytes| bytes.saturating_add(segment.stat.size_bytes));
            if let Some(limits) = &mut self.limits {
                limits.segment_count = limits.segment_count.saturating_sub(1);
                limits.total_pages = limits.total_pages.saturating_sub(segment.stat.size_bytes.div_ceil(page_bytes));
            }
        }
    }

    /// Groups segments by instance, namespace name and makers. A stripe is matched by the name in
    /// it, whatever its nsid, and an index segment by its base. Segments without a readable name
    /// form a group of their own.
    pub fn groups(&self) -> Vec<Group> {
        // One pass, whoever has made them: thousands of segments may have thousands of makers.
        let mut of_makers: BTreeMap<Makers, Vec<&Segment>> = BTreeMap::new();
        for segment in self.segments.values() {
            of_makers.entry(segment.makers()).or_default().push(segment);
        }
        let grouped =
            |own: &Vec<&Segment>| group(own.iter().map(|segment| (segment.key(), segment.address, segment.header.name())));
        let mut groups: Vec<Group> = of_makers.values().flat_map(grouped).collect();
        groups.sort_by_key(|group| (group.instance, group.keys[0]));
        groups
    }
}

/// How a server left a namespace in memory, for a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum State {
    /// Cleanly shut down, and whole.
    Clean,
    /// A process that may be the server has it attached.
    Running,
    /// Another asmt is at work on it.
    AsmtAtWork,
    /// Not cleanly shut down.
    Unclean,
    /// Segments are missing, or there are too many.
    Incomplete,
    /// The data stripes are not a set with which a server would start.
    Torn,
    /// This user may not read it.
    Unreadable,
    /// It has an unknown layout version.
    UnknownVersion,
    /// Data stripes without an index.
    DataOnly,
}
