//! What was found of the path of a backup directory, as plain values.
//!
//! Invariant: nothing here calls the system; `store/above.rs` looks, `plan.rs` judges.

use crate::error::Problem;
use crate::format::mark::UsageMark;
use crate::format::run_id::RunId;
use crate::format::{Encoding, Manifest, ManifestError};
use asmt_shm::{Address, Header, Key};
use std::collections::BTreeSet;
use std::path::PathBuf;
/// A directory above the backup directory, or one that holds a symbolic link on its path; or such a
/// link itself. Whoever may change it can put another directory at the path. What is root's and no
/// one else may write is not among the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Its path, for messages.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Permission bits, with the sticky bit.
    pub mode: u32,
    /// What it is.
    pub kind: StepKind,
}

/// What stands at a step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A directory.
    Directory,
    /// A symbolic link: its owner may exchange it where others may write in its directory.
    Link {
        /// Others than root and the link's owner may write in its directory, which is sticky.
        is_in_shared: bool,
    },
}

/// The directory itself: who may write in it, and whether it outlives a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// Its path, for messages.
    pub path: String,
    /// Owner and permission bits; `None` where a backup would make it, 0700 and the caller's own.
    pub owner: Option<Owner>,
    /// Whether it has the sticky bit: many users write there.
    pub is_sticky: bool,
    /// Why it is empty after a reboot, if it is.
    pub volatile: Option<Volatile>,
    /// Whether it is one of the system's, with other things in it and no backup.
    pub is_systems: bool,
    /// The directories by which its path is reached, as far as others than root may change them.
    pub above: Vec<PathStep>,
}

/// Why a directory is empty after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volatile {
    /// Its file system is in memory: the name of that.
    InMemory(&'static str),
    /// This configuration of systemd-tmpfiles has it emptied at boot.
    EmptiedAtBoot(PathBuf),
}

/// Who may do what with a directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: u32,
    /// Permission bits. Where there is an access control list, the group's are what it allows at
    /// most.
    pub mode: u32,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its name as it stands in the directory (ASMT's may be of another case).
    pub name: String,
    /// Key of the segment.
    pub key: Key,
    /// What the key says.
    pub address: Address,
    /// How the segment stands in it.
    pub encoding: Encoding,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Bytes of the file that have blocks; the rest is holes.
    pub allocated_bytes: u64,
    /// Size of the segment, bytes, as file size or header claim it.
    pub size_bytes: u64,
    /// CRC-32 of the segment as the header of a compressed file claims it.
    pub crc32: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// How many names it has, here and elsewhere.
    pub link_count: u64,
    /// When it was last written, milliseconds since 1970.
    pub modified_ms: u64,
    /// What the segment's first bytes say.
    pub header: Header,
}

/// A manifest found, or why it was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its name in the directory.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// How many names it has, here and elsewhere.
    pub link_count: u64,
    /// What it says.
    pub manifest: std::result::Result<Manifest, ManifestError>,
}

/// What is in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The directory itself; `None` where it was not looked at.
    pub directory: Option<DirectoryRecord>,
    /// Files of segments, by name. Those of an interrupted backup that never was committed are not
    /// among them.
    pub files: Vec<FileRecord>,
    /// Manifests, by name.
    pub manifests: Vec<ManifestRecord>,
    /// Marks of use, by name, or why one cannot be read.
    pub marks: Vec<MarkRecord>,
    /// Files that bear a name of asmt's or ASMT's and cannot or must not be read: the name, and
    /// why.
    pub problems: Vec<(String, Problem)>,
    /// What interrupted backups left.
    pub leftovers: Leftovers,
    /// Whether something is in the directory that bears no name of asmt's or ASMT's.
    pub has_other_names: bool,
    /// What a backup could write here; `None` where nobody asked.
    pub target: Option<Target>,
}

impl Listing {
    /// The manifests of an instance, readable ones alone.
    pub fn manifests_of(&self, instance: u8) -> Vec<&Manifest> {
        let readable = self.manifests.iter().filter_map(|record| record.manifest.as_ref().ok());
        readable.filter(|manifest| manifest.instance == instance).collect()
    }
}

/// What a backup could write to a directory, or would have to make it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its path, for messages.
    pub path: String,
    /// Whether files can be made in it.
    pub writable: Writable,
    /// Bytes that this user can still have of its file system; `None` where that does not say.
    pub free_bytes: Option<u64>,
}

/// Whether files can be made in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// As far as permissions and the mount say.
    Yes,
    /// This user may not.
    Denied,
    /// Its file system is mounted read-only.
    ReadOnlyFileSystem,
}

/// What dead runs of asmt left in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files to remove, in this order: nothing that a reader would take for a backup without what
    /// was removed before.
    pub sweep: Vec<String>,
    /// Names under which files of a run stand that had committed some of its namespaces, but not
    /// all: the run never reported success, so the next backup of these namespaces takes their
    /// place.
    pub superseded: BTreeSet<String>,
    /// Namespaces whose backup was interrupted before its commit.
    pub interrupted: Vec<Interrupted>,
    /// Runs that are still at work here.
    pub live: Vec<RunId>,
}

/// A namespace whose backup was interrupted before its commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interrupted {
    /// Instance, as the names of its files say.
    pub instance: u8,
    /// Name, as in the journal.
    pub namespace: String,
}

/// A mark of use: its name, and what it says or why it cannot be read.
pub type MarkRecord = (String, std::result::Result<UsageMark, String>);
