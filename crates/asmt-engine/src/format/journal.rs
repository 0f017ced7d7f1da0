//! The journal of a run that publishes a backup, and the hidden names that runs give to files.

use crate::format::names::{instance_of_manifest_name, parse_file_name};
use crate::format::run_id::RunId;
use serde::{Deserialize, Serialize};

/// What the names of files begin with that a run has not published: `.asmt-tmp.<run>.<name>`.
pub const TEMPORARY_PREFIX: &str = ".asmt-tmp.";

/// What the names of journals begin with: `.asmt-run.<run>`.
pub const JOURNAL_PREFIX: &str = ".asmt-run.";

/// What a run is about to publish, and what of a dead run's it takes the place of: written before
/// the first rename, removed after the last.
///
/// A journal that names a whole backup in `replaced` decides: as soon as it is durable, its
/// `namespaces` are the backup, under whichever of their two names each file is, and what is left
/// of `replaced` is not. Whoever finds such a journal of a dead run reads it so, and the next
/// backup completes it. Any other journal decides nothing: its namespaces are committed one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// A namespace each; two of the same name where one takes the place of the other.
    pub namespaces: Vec<JournalNamespace>,
    /// The files of the older backup of each namespace whose place is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<JournalNamespace>,
}

impl Journal {
    /// Returns true if the journal itself commits what it lists.
    pub fn is_decision(&self) -> bool {
        !self.replaced.is_empty()
    }
}

/// The files of one namespace, in the order in which they are published: the last one commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalNamespace {
    /// Its name.
    pub namespace: String,
    /// Final name and inode of each file; the inode tells our file from another under the same
    /// name.
    pub files: Vec<(String, u64)>,
}

impl JournalNamespace {
    /// Instance of the namespace; `None` if no file of a backup is listed.
    pub fn instance(&self) -> Option<u8> {
        self.files.iter().find_map(|(name, _)| instance_of(name))
    }
}

/// Instance that the name of a file of a backup stands for.
pub fn instance_of(name: &str) -> Option<u8> {
    parse_file_name(name).map(|(_, address, _)| address.instance).or_else(|| instance_of_manifest_name(name))
}

/// The name of a staged file of a run.
pub fn temporary_name(run: &RunId, name: &str) -> String {
    format!("{TEMPORARY_PREFIX}{run}.{name}")
}

/// The name under which a staged file is published; any other name is its own.
pub fn published_name(name: &str) -> &str {
    let parts = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.split_once('.'));
    parts.map_or(name, |(_run, published)| published)
}

/// Name of the lock of a directory that others may open.
pub const LOCK_NAME: &str = ".asmt-lock";

/// Name of the lock of its marks, where no file of the backup will do.
pub const MARKS_LOCK_NAME: &str = ".asmt-lock-marks";
