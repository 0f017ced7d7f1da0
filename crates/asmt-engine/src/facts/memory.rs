//! What is in shared memory, and how much memory can be had, as plain values: `look/segments.rs`
//! and `look/memory.rs` make them.

use crate::layout::namespace::{Group, group};
use asmt_shm::sysv::{Limits, SegmentStat};
use asmt_shm::{Address, Header, Key};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

/// What is there, at one moment. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the kernel believes can be had without swapping.
    pub available_bytes: Option<u64>,
    /// Largest segment that can be made, where `vm.overcommit_memory` is 0: memory and swap
    /// together.
    pub largest_bytes: Option<u64>,
    /// What may still be promised, where `vm.overcommit_memory` is 2. A segment counts with its
    /// full size.
    pub promisable_bytes: Option<u64>,
    /// The tightest limit of this process's cgroup and of those above it.
    pub cgroup: Option<CgroupLimit>,
}

/// The limit of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLimit {
    /// The file that says so.
    pub file: PathBuf,
    /// The limit.
    pub limit_bytes: u64,
    /// What of it is left, with all that can be reclaimed (the page cache).
    pub available_bytes: u64,
}

/// One segment of Aerospike's, as it stands in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the kernel says.
    pub stat: SegmentStat,
    /// What the key says.
    pub address: Address,
    /// Bytes resident; `None` where `/proc/sysvipc/shm` does not say.
    pub resident_bytes: Option<u64>,
    /// Bytes swapped out.
    pub swapped_bytes: u64,
    /// What its first bytes say.
    pub header: Header,
    /// Whether its first bytes could not be had for want of permission.
    pub is_denied: bool,
    /// Whether it was found to be in huge pages, which no server uses.
    pub is_huge: bool,
    /// What has become of the process that made it.
    pub creator: Creator,
}

/// What has become of the process that made a segment (`shm_cpid`): as long as it runs, another
/// asmt may be at work on it.
///
/// Whether a process began before the segment was made is not asked: only the wall clock says when
/// that was, and a clock that is set forward makes a process that is at work look younger than its
/// segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creator {
    /// It has ended, or it is this process, which makes nothing while it looks.
    Gone,
    /// A process with its id runs in this IPC namespace.
    Alive {
        /// Its id.
        pid: u32,
        /// Its name, as the kernel has it.
        command: String,
    },
    /// It may run where it cannot be seen from here: in another PID namespace, or hidden from this
    /// user.
    Unseen,
}

impl Segment {
    /// Its key.
    pub fn key(&self) -> Key {
        self.stat.key
    }

    /// Who has made it and whose it is. Both count: who makes a segment may give it to anybody.
    pub fn makers(&self) -> Makers {
        Makers::of([self.stat.creator_uid, self.stat.uid])
    }
}

/// The users who have made a segment or own it, apart from root: none for root's own.
///
/// What a restore by root has made and given away, and what its owner makes later, is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Makers(BTreeSet<u32>);

impl Makers {
    /// Of these users; root is none of them.
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

/// Who keeps this IPC namespace when asmt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The machine, a mount, or a process that asmt does not depend on; or one that may be that.
    Lasting,
    /// No more than a process that runs asmt, such as a shell.
    Ancestor {
        /// Its id.
        pid: u32,
        /// Its name.
        command: String,
    },
    /// Nobody: the namespace ends with asmt.
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

/// What there is, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Aerospike's segments, by key.
    pub segments: BTreeMap<Key, Segment>,
    /// Segments of others.
    pub foreign_count: u64,
    /// Who is attached, by segment id; only of attached segments, and only as far as `/proc` shows.
    pub attachers: HashMap<i32, Vec<Attacher>>,
    /// Of those who have made or attached segments of an instance, the ones that are asmt at work
    /// on it: instance and process id.
    pub asmts: HashSet<(u8, u32)>,
    /// Limits of the IPC namespace.
    pub limits: Option<Limits>,
    /// Memory that can be had.
    pub memory: Memory,
    /// `kernel.shm_rmid_forced` is set: a segment is destroyed as soon as nobody has it attached.
    pub is_rmid_forced: bool,
    /// Whether holes are found whatever is swapped out; `None` where no segment was looked into.
    pub finds_all_holes: Option<bool>,
    /// Whether the IPC namespace outlives this process; `None` where that was not looked at.
    pub keeper: Option<Keeper>,
}

impl Inventory {
    /// Groups segments by instance, namespace name and who has made them. Stripes are matched by
    /// the name in them, whatever their nsid; index segments by their base. What has no readable
    /// name stands in a group of its own.
    pub fn groups(&self) -> Vec<Group> {
        let makers: BTreeSet<Makers> = self.segments.values().map(Segment::makers).collect();
        let of = |makers: &Makers| {
            let own = self.segments.values().filter(|segment| segment.makers() == *makers);
            group(own.map(|segment| (segment.key(), segment.address, segment.header.name())))
        };
        let mut groups: Vec<Group> = makers.iter().flat_map(of).collect();
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
    /// Somebody who may be the server has it attached.
    Running,
    /// Another asmt is at work on it.
    AsmtAtWork,
    /// Not cleanly shut down.
    Unclean,
    /// Segments are missing, or there are too many.
    Incomplete,
    /// The data stripes are no set that a server would start with.
    Torn,
    /// This user may not read it.
    Unreadable,
    /// Of a layout version that is not known.
    UnknownVersion,
    /// Data stripes without an index.
    DataOnly,
}
