//! The facts about one entry of a directory.

use crate::facts::directory::Owner;
use crate::format::journal::{JOURNAL_PREFIX, LOCK_NAME, MARKS_LOCK_NAME, TEMPORARY_PREFIX};
use crate::format::mark::is_used_name;
use rustix::fs;

/// The time of the last change of a file, milliseconds since 1970.
pub fn modified_ms(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000).saturating_add(stat.st_mtime_nsec / 1_000_000)
}

/// The contents of a small file, and its owner.
pub struct Text {
    /// `None` if it is not a text.
    pub(super) text: Option<String>,
    pub(super) owner: Owner,
    pub(super) link_count: u64,
}

impl Text {
    /// Returns true if others may write to it, perhaps by another name in another directory.
    pub(super) fn is_open_elsewhere(&self) -> bool {
        let is_trusted = self.owner.uid == 0 || self.owner.uid == rustix::process::geteuid().as_raw();
        self.link_count > 1 && !(is_trusted && self.owner.mode & 0o022 == 0)
    }

    pub(super) fn why_open(&self) -> String {
        let Owner { uid, mode } = self.owner;
        format!("it has {} links, uid {uid} and mode {mode:04o}, so others may write to it", self.link_count)
    }
}

/// On some architectures the count has another type.
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
pub fn link_count(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_nlink).unwrap_or(u64::MAX)
}

/// Returns true if a name in a backup directory is one of asmt's, but of no segment and no
/// manifest.
pub fn is_own_name(name: &str) -> bool {
    let is_of_run = name.starts_with(TEMPORARY_PREFIX) || name.starts_with(JOURNAL_PREFIX);
    is_of_run || is_used_name(name) || matches!(name, "." | ".." | LOCK_NAME | MARKS_LOCK_NAME)
}

pub fn owner_of(stat: &fs::Stat) -> Owner {
    Owner { uid: stat.st_uid, mode: stat.st_mode & 0o777 }
}
