//! The state of a backup directory and of its path, as plain values.
//!
//! Invariant: nothing here calls the system; `store/above.rs` looks, `plan.rs` judges.

use crate::error::Problem;
use crate::format::journal::Journal;
use crate::format::mark::UsageMark;
use crate::format::run_id::RunId;
use crate::format::{Encoding, Manifest, ManifestError};
use asmt_shm::{Address, Header, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
/// A directory above the backup directory, a directory that holds a symbolic link on its path, or
/// such a link itself. Whoever may change it can put another directory at the path. A step that
/// belongs to root, and that only root may write to, is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Its path, for messages.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Permission bits, with the sticky bit.
    pub mode: u32,
    /// Its kind.
    pub kind: StepKind,
}

/// The kind of a step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A directory.
    Directory,
    /// A symbolic link: its owner can exchange it if others may write to its directory.
    Link {
        /// Other users than root and the link's owner may write to its directory, which is sticky.
        is_in_shared: bool,
    },
}

/// The directory itself: who may write to it, and whether it survives a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// Its path, for messages.
    pub path: String,
    /// Owner and permission bits; `None` if a backup would make the directory, with mode 0700 and
    /// owned by the caller.
    pub owner: Option<Owner>,
    /// It has the sticky bit: many users write to it.
    pub is_sticky: bool,
    /// The reason why it is empty after a reboot, if it is.
    pub volatile: Option<Volatile>,
    /// It is one of the system's directories, with other things in it and no backup.
    pub is_systems: bool,
    /// The directories that lead to it and that others than root may change.
    pub above: Vec<PathStep>,
}

/// The reason why a directory is empty after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volatile {
    /// Its file system is in memory. The name of the file system.
    InMemory(&'static str),
    /// systemd-tmpfiles empties it at boot, by this configuration file.
    EmptiedAtBoot(PathBuf),
}

/// The owner and the permissions of a directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: u32,
    /// Permission bits. With an access control list, the group's bits are the most that the list
    /// allows.
    pub mode: u32,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its name in the directory. (A name of ASMT's may be in another case.)
    pub name: String,
    /// Key of the segment.
    pub key: Key,
    /// The address that the key stands for.
    pub address: Address,
    /// The encoding of the segment in the file.
    pub encoding: Encoding,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Bytes of the file that have blocks; the rest is holes.
    pub allocated_bytes: u64,
    /// Size of the segment in bytes, as the file size or the header claims.
    pub size_bytes: u64,
    /// CRC-32 of the segment, as the header of a compressed file claims.
    pub crc32: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Number of its names, here and elsewhere.
    pub link_count: u64,
    /// Time of its last change, milliseconds since 1970.
    pub modified_ms: u64,
    /// The header in the first bytes of the segment.
    pub header: Header,
}

/// A manifest, or the reason why it was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its name in the directory.
    pub name: String,
    /// Its owner and permissions.
    pub owner: Owner,
    /// Number of its names, here and elsewhere.
    pub link_count: u64,
    /// Its contents.
    pub manifest: std::result::Result<Manifest, ManifestError>,
}

/// The contents of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The directory itself; `None` if it was not looked at.
    pub directory: Option<DirectoryRecord>,
    /// Files of segments, sorted by name. Files of an interrupted backup that was never committed
    /// are left out.
    pub files: Vec<FileRecord>,
    /// Manifests, sorted by name.
    pub manifests: Vec<ManifestRecord>,
    /// Usage marks, sorted by name. If one cannot be read, the reason.
    pub marks: Vec<MarkRecord>,
    /// Files that have a name of asmt's or ASMT's and cannot or must not be read: the name and the
    /// reason.
    pub problems: Vec<(String, Problem)>,
    /// The leftovers of interrupted backups.
    pub leftovers: Leftovers,
    /// The directory has a name that is neither asmt's nor ASMT's.
    pub has_other_names: bool,
    /// Directories in it into which a hint has moved a backup, sorted by name. They are looked for
    /// only where the directory itself has no backup.
    pub set_aside: Vec<String>,
    /// The target of a backup; `None` if nobody asked for it.
    pub target: Option<Target>,
}

impl Listing {
    /// The readable manifests of an instance.
    pub fn manifests_of(&self, instance: u8) -> Vec<&Manifest> {
        let readable = self.manifests.iter().filter_map(|record| record.manifest.as_ref().ok());
        readable.filter(|manifest| manifest.instance == instance).collect()
    }
}

/// A directory as the target of a backup, or the directory in which the target would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its path, for messages.
    pub path: String,
    /// Files can be made in it, or not.
    pub writable: Writable,
    /// Bytes that this user can still use on its file system; `None` if the file system does not
    /// say.
    pub free_bytes: Option<u64>,
}

/// The answer whether files can be made in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// They can, by permissions and mount.
    Yes,
    /// This user has no permission.
    Denied,
    /// Its file system is mounted read-only.
    ReadOnlyFileSystem,
}

/// The leftovers of dead runs of asmt in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files to remove, in this order: at no point would a reader take the rest for a backup.
    pub sweep: Vec<String>,
    /// Names of files of a run that had committed some of its namespaces, but not all. The run
    /// never reported success, so the next backup of these namespaces replaces them.
    pub superseded: BTreeSet<String>,
    /// Namespaces whose backup was interrupted before its commit.
    pub interrupted: Vec<Interrupted>,
    /// Backups that a run had decided to put in the place of older ones, and that do not have all
    /// of their names yet. They are read as if they had.
    pub decided: Vec<Decided>,
    /// Runs that are still at work here.
    pub live: Vec<RunId>,
}

/// What a dead run had decided, and not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The run.
    pub run: RunId,
    /// Its journal, without the namespaces whose names somebody else has taken since.
    pub journal: Journal,
    /// Files that have no final name yet: final name and temporary name.
    pub staged: BTreeMap<String, String>,
    /// Files of the older backups that are still there.
    pub replaced: BTreeSet<String>,
}

/// A namespace whose backup was interrupted before its commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interrupted {
    /// Instance, from the names of its files.
    pub instance: u8,
    /// Name, from the journal.
    pub namespace: String,
}

/// A usage mark: its name, and its contents or the reason why it cannot be read.
pub type MarkRecord = (String, std::result::Result<UsageMark, String>);
