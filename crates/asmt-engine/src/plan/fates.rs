//! What a backup does with older ones in its directory, as plain values.

use asmt_shm::NamespaceName;
use std::collections::BTreeMap;

/// What is to become of an older backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has run since, or the backup was retired: it may go before the new one is made.
    Dead,
    /// It is proven that the server has not run since: it is as good as a new one.
    Current,
    /// The segments in memory are those of the backup, and the server has run since, without them:
    /// a backup of them would be of no use, and could pass for a current one.
    Overtaken,
    /// It cannot be told: it stays good until the new one has taken its place.
    Unsure,
}

/// What is to become of older backups, by the names of their namespaces.
pub type Fates = BTreeMap<NamespaceName, OldBackup>;

/// An older backup that a new one may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldBackup {
    /// What is to become of it.
    pub fate: Fate,
    /// It is of no use any more to whoever made it, wherever that was on this host.
    pub is_spent: bool,
}
