//! What would be done: a pure value from inventory, listing and request, with every refusal and its
//! reason.
//!
//! Promise: the same inputs give the same plan; a plan with a refusal cannot be executed; what `-a`
//! prints is what the executor gets. Must never: touch a file, a segment or the clock (no file
//! system and no system calls in here).

use crate::error::{Code, Error, NoteCode, Problem, Remark, Result};
use crate::facts::caller::Caller;
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Segment};
use crate::facts::server::Host;
use crate::format::{Encoding, Form, ManifestSegment, chunk_bytes_for, file_name};
use asmt_shm::{Address, Key, NamespaceName, SegmentType};
use std::collections::{BTreeMap, BTreeSet};

mod access;
mod at_work;
mod backup;
mod checks;
pub mod export;
pub mod fates;
mod group;
mod in_the_way;
pub mod left_out;
pub mod preflight;
mod restore;
mod room;
pub mod settings;
pub mod staleness;
mod strangers;
mod titles;
mod verify;
mod waiting;

pub use at_work::SERVER_COMMAND;
pub use backup::{backup, check_same, data_bytes, written};
pub use fates::{Fates, OldBackup};
pub use group::do_zeros_outweigh;
pub use restore::{restore, served_hint};
#[cfg(feature = "testing")]
pub use room::UndecidedRoom;
pub use room::{decide_room, threads_within, undecided_room};
pub use strangers::leave_out_strangers;
pub use titles::{title, titles};
pub use verify::verify;
pub use waiting::{as_if_let_go, reason_to_wait};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Instance.
    pub instance: u8,
    /// Namespaces; `None` for all of the instance.
    pub namespaces: Option<Vec<NamespaceName>>,
    /// Backup: the form of the files.
    pub form: Form,
    /// Restore and verify: refuse what has no manifest.
    pub require_manifest: bool,
    /// Backup: what is to become of older backups of the same namespaces, by name; one that is not
    /// named here is unsure. `None` if none must be there.
    pub replace: Option<Fates>,
    /// Backup: go to a directory that a reboot empties, too.
    pub allow_volatile: bool,
    /// Restore: make segments where they seem to end with this process, too.
    pub allow_private_ipc: bool,
    /// Who asks, and what he may do.
    pub caller: Caller,
    /// This host: a backup of another one is not ours to move.
    pub host: Host,
    /// Page size in bytes: limits count in pages.
    pub page_bytes: u64,
}

/// A plan, with what speaks against it.
#[derive(Clone, Debug)]
pub struct Plan<T> {
    /// What would be done, as far as it could be planned.
    pub namespaces: Vec<T>,
    /// Why it must not be done; empty if it may.
    pub refusals: Vec<Problem>,
    /// What the user should know.
    pub remarks: Vec<Remark>,
}

impl<T> Plan<T> {
    fn new() -> Self {
        Self { namespaces: Vec::new(), refusals: Vec::new(), remarks: Vec::new() }
    }

    fn refuse(&mut self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.refusals.push(Problem::new(code, message, hint));
    }

    /// Refuses, unless that is said already.
    fn refuse_once(&mut self, problem: Problem) {
        if !self.refusals.contains(&problem) {
            self.refusals.push(problem);
        }
    }

    /// Whether something of what was asked for is there, be it damaged.
    pub fn is_found(&self) -> bool {
        !self.refusals.iter().any(|problem| matches!(problem.code, Code::NothingFound | Code::NamespaceMissing))
    }

    /// Adds another plan to this one. What is of the directory, and so in both, is said once.
    pub fn extend(&mut self, other: Self) {
        self.namespaces.extend(other.namespaces);
        for refusal in other.refusals {
            if !self.refusals.contains(&refusal) {
                self.refusals.push(refusal);
            }
        }
        self.remarks.extend(other.remarks);
    }

    /// Fails with all refusals if there are any. A plan of nothing is a refusal that was forgotten.
    pub fn check(&self) -> Result<()> {
        if self.namespaces.is_empty() && self.refusals.is_empty() {
            return Err(Error::new(Code::Bug, "nothing was planned, and nothing refused", "please report it"));
        }
        Error::from_problems(self.refusals.clone()).map_or(Ok(()), Err)
    }
}

/// One segment to copy to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The segment as it was when it was planned; looked at again after copying.
    pub segment: Segment,
    /// How it will stand in its file.
    pub encoding: Encoding,
}

impl Copy {
    /// Name of its file.
    pub fn file_name(&self) -> String {
        file_name(self.segment.key(), self.encoding)
    }
}

/// One namespace to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceBackup {
    /// Instance.
    pub instance: u8,
    /// Name.
    pub name: NamespaceName,
    /// nsid of the index; `None` if there are only stripes.
    pub nsid: Option<u8>,
    /// Layout version of base; `None` if there are only stripes.
    pub base_version: Option<u32>,
    /// Segments, by key.
    pub copies: Vec<Copy>,
    /// Files that this backup takes the place of: of an interrupted run, or of an older backup;
    /// removed just before it is published.
    pub superseded: Vec<String>,
    /// These files are those of an older backup, which stays good until this one has taken its
    /// place.
    pub is_replacing: bool,
    /// Files of an outdated backup, which are removed before this one is made.
    pub outdated: Vec<String>,
    /// When the backup was made that is there, and current: nothing is to be done. Milliseconds
    /// since 1970.
    pub current_ms: Option<u64>,
}

/// Where the bytes of a segment come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file of ours: chunks that can be read and checked one by one.
    Chunks(ManifestSegment),
    /// A plain file with no manifest: nothing to check it against.
    Plain,
    /// A compressed file with no manifest: one stream, checked by the CRC-32 of its header and its
    /// trailer.
    Stream {
        /// CRC-32 of the segment.
        crc32: u32,
    },
}

/// One file to bring back, or to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Key.
    pub key: Key,
    /// What the key says.
    pub address: Address,
    /// Size of the segment, bytes.
    pub size_bytes: u64,
    /// Owner the segment gets.
    pub uid: u32,
    /// Group the segment gets.
    pub gid: u32,
    /// Mode the segment gets.
    pub mode: u32,
    /// Name of the file.
    pub file: String,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// How it stands in the file.
    pub encoding: Encoding,
    /// How it is read and checked.
    pub contents: Contents,
    /// Bytes of the file that have blocks; the rest is holes.
    pub allocated_bytes: u64,
    /// Memory that it needs at least, bytes: what is known to be holes or zeros, or may be, does
    /// not count.
    pub least_memory_bytes: u64,
    /// Memory that it needs at most, bytes. Where it is more than the least, only reading the file
    /// tells: see [`undecided_room`].
    pub most_memory_bytes: u64,
}

impl Source {
    /// The source of a segment that a manifest describes, in this file. What only the file on the
    /// disk tells, its blocks and the memory that it needs, is 0.
    pub fn of_segment(segment: &ManifestSegment, file: String) -> Self {
        Self {
            key: segment.key,
            address: segment.address,
            size_bytes: segment.size_bytes,
            uid: segment.uid,
            gid: segment.gid,
            mode: segment.mode,
            file,
            file_bytes: segment.file_bytes,
            encoding: segment.encoding,
            contents: Contents::Chunks(segment.clone()),
            allocated_bytes: 0,
            least_memory_bytes: 0,
            most_memory_bytes: 0,
        }
    }

    /// Bytes of a chunk of it.
    pub fn chunk_bytes(&self) -> u32 {
        match &self.contents {
            Contents::Chunks(segment) => segment.chunk_bytes,
            Contents::Plain | Contents::Stream { .. } => chunk_bytes_for(self.size_bytes),
        }
    }
}

/// One namespace to restore, or to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRestore {
    /// Instance.
    pub instance: u8,
    /// Name.
    pub name: NamespaceName,
    /// nsid of the index; `None` if there are only stripes.
    pub nsid: Option<u8>,
    /// Layout version of base; `None` if there are only stripes.
    pub base_version: Option<u32>,
    /// When it was made, milliseconds since 1970; `None` if there is no manifest.
    pub created_ms: Option<u64>,
    /// Files, by key.
    pub sources: Vec<Source>,
}

/// Name and title of the namespace that a file is of.
pub fn owner_among(namespaces: &[NamespaceRestore], file: &str) -> Option<(NamespaceName, String)> {
    let is_its = |namespace: &&NamespaceRestore| namespace.sources.iter().any(|source| source.file == file);
    let owner = namespaces.iter().find(is_its)?;
    Some((owner.name.clone(), title(&owner.name, owner.instance)))
}

/// Names of namespaces by instance.
pub type Names = BTreeMap<u8, BTreeSet<NamespaceName>>;

/// Names of the namespaces in memory.
pub fn names_in_memory(inventory: &Inventory) -> Names {
    let mut names = Names::new();
    for group in inventory.groups() {
        names.entry(group.instance).or_default().extend(group.name);
    }
    names
}

/// Names of the namespaces in a backup directory, damaged ones too.
pub fn names_in_backup(listing: &Listing) -> Names {
    let mut names = Names::new();
    for manifest in listing.manifests.iter().filter_map(|record| record.manifest.as_ref().ok()) {
        names.entry(manifest.instance).or_default().insert(manifest.namespace.clone());
    }
    for file in &listing.files {
        names.entry(file.address.instance).or_default().extend(file.header.name().cloned());
    }
    names
}

/// Those of the namespaces that a request is for that could be planned if the others were left out.
/// `is_possible` plans for some of them. Empty if that is none or all of them: then there is
/// nothing to choose.
pub fn possible_alone(
    names: &BTreeSet<NamespaceName>,
    request: &Request,
    is_possible: impl Fn(&Request) -> bool,
) -> Vec<NamespaceName> {
    let is_asked = |name: &&NamespaceName| request.namespaces.as_ref().is_none_or(|asked| asked.contains(name));
    let asked: Vec<&NamespaceName> = names.iter().filter(is_asked).collect();
    let with = |names: Vec<NamespaceName>| Request { namespaces: Some(names), ..request.clone() };
    let alone: Vec<NamespaceName> =
        asked.iter().filter(|name| is_possible(&with(vec![(**name).clone()]))).map(|name| (*name).clone()).collect();
    // What each could have for itself, such as memory, they may not have together.
    if alone.is_empty() || !is_possible(&with(alone.clone())) { Vec::new() } else { alone }
}

/// What a list should say of the machine.
pub fn list_remarks(inventory: &Inventory) -> Vec<Remark> {
    let problem = inventory.is_rmid_forced.then(not_kept);
    problem.map(|problem| Remark::new(NoteCode::SegmentsNotKept, problem.message)).into_iter().collect()
}

/// Why nothing can be done where the kernel destroys segments that nobody has attached: a backup
/// finds none, a look at one destroys it, and what a restore makes is gone at once.
pub fn not_kept() -> Problem {
    Problem::new(
        Code::SegmentsNotKept,
        "kernel.shm_rmid_forced is 1, expected 0: the kernel destroys each segment as soon as no process has it attached",
        "set it to 0 while the server is still running, or before a restore, and make sure that it is not set again at boot \
         (/etc/sysctl.d): sysctl -w kernel.shm_rmid_forced=0",
    )
}

/// The order in which a namespace's files are published: what ASMT refuses without base first,
/// stripes after it, and base last of all. (The manifest goes between; with no base it is last.)
pub fn publishing_rank(address: Address) -> (u8, std::cmp::Reverse<u16>) {
    let rank = match address.segment_type {
        SegmentType::PiTreex => 0,
        SegmentType::PiStage => 1,
        SegmentType::SiStage => 2,
        SegmentType::SiMeta => 3,
        SegmentType::DataStage => 4,
        SegmentType::PiBase => 5,
    };
    (rank, std::cmp::Reverse(address.index))
}
