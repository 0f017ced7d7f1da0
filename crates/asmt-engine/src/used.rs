//! The mark that a backup was used, in its directory beside the manifest: `asmt-used-<instance>-<namespace>.json`.
//!
//! Promise: it is durable before a restored segment is trusted, so that no later boot can restore that backup without
//! being told; it only grows, and names the backup that it is of. ASMT ignores it. Must never: be what a restore of the
//! same boot fails for (a start may fail and be repeated), or replace a mark that cannot be read by less than it said.

use crate::error::{Code, Error, Remark, Result};
use crate::format::{is_namespace_file, namespace_file_name};
use crate::segment::NamespaceName;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const FORMAT: &str = "asmt-used";
const VERSION: u32 = 1;
const PREFIX: &str = "asmt-used-";
/// Restores that are kept: the first ones of them, and the latest.
const MAX_RESTORES: usize = 32;

/// When and where a backup was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Host name.
    pub host: String,
    /// Boot id.
    pub boot_id: String,
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    format: String,
    version: u32,
    /// When the backup was made, milliseconds since 1970.
    pub backup_ms: u64,
    /// Boot that it was made in; null where it has no manifest.
    pub backup_boot_id: Option<String>,
    /// When it was retired.
    pub retired: Option<Use>,
    /// Restores; one entry a boot.
    pub restores: Vec<Use>,
}

/// The file name of a namespace's mark.
pub fn used_name(instance: u8, namespace: &NamespaceName) -> String {
    namespace_file_name(PREFIX, instance, namespace)
}

/// Whether a file name is that of some namespace's mark.
pub fn is_used_name(name: &str) -> bool {
    is_namespace_file(PREFIX, name)
}

impl Used {
    /// A mark that says nothing yet, of a backup.
    pub fn new(backup_ms: u64, backup_boot_id: Option<String>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, backup_ms, backup_boot_id, retired: None, restores: Vec::new() }
    }

    /// Reads a mark. The error says what was found and expected.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let used: Self = serde_json::from_str(text).map_err(|error| format!("it is no mark: {error}"))?;
        if used.format != FORMAT || used.version > VERSION {
            return Err(format!("it is {:?} of version {}, expected {FORMAT:?} of at most {VERSION}", used.format, used.version));
        }
        Ok(used)
    }

    fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain structures always serialise") + "\n"
    }

    /// Whether it is of the backup that was made then, in that boot. A backup with no manifest is known by the time of
    /// its files alone: it is another one if they are later than all that the mark tells.
    pub fn is_of(&self, backup_ms: u64, backup_boot_id: Option<&str>) -> bool {
        match backup_boot_id {
            Some(boot_id) => self.backup_boot_id.as_deref() == Some(boot_id) && self.backup_ms == backup_ms,
            None => self.restores.iter().chain(&self.retired).any(|used| backup_ms <= used.at_ms),
        }
    }

    /// Adds a restore; a boot's later ones take the place of its first.
    fn add_restore(&mut self, restore: Use) {
        self.restores.retain(|earlier| earlier.boot_id != restore.boot_id);
        self.restores.truncate(MAX_RESTORES - 1);
        self.restores.push(restore);
    }
}

/// What is to be marked.
pub struct Target {
    /// Instance.
    pub instance: u8,
    /// Namespace.
    pub name: NamespaceName,
    /// When its backup was made, milliseconds since 1970.
    pub backup_ms: u64,
    /// Boot that it was made in.
    pub backup_boot_id: Option<String>,
    /// Its mark as it is.
    pub earlier: Option<std::result::Result<Used, String>>,
}

impl Target {
    fn file_name(&self) -> String {
        used_name(self.instance, &self.name)
    }

    /// The mark of this very backup; a new one if there is none.
    ///
    /// Errors: `backup-used` if there is one that cannot be read: what it said must not be lost.
    fn mark(&self) -> Result<Used> {
        match &self.earlier {
            Some(Ok(used)) if used.is_of(self.backup_ms, self.backup_boot_id.as_deref()) => Ok(used.clone()),
            Some(Err(why)) => Err(Error::new(
                Code::BackupUsed,
                format!("{}: {why}", self.file_name()),
                "look at the file; remove it only if you know that the backup was not used",
            )),
            _ => Ok(Used::new(self.backup_ms, self.backup_boot_id.clone())),
        }
    }

    /// Marks it as retired; if it is already, it stays as it is. Durable when it returns.
    pub fn retire(&self, store: &Store, now: &Use) -> Result<()> {
        let mut used = self.mark()?;
        if used.retired.is_none() {
            used.retired = Some(now.clone());
            store.replace(&self.file_name(), &used.to_text())?;
        }
        Ok(())
    }

    /// Marks it as restored. Durable when it returns.
    fn restored(&self, store: &Store, now: &Use) -> Result<()> {
        let mut used = self.mark()?;
        used.add_restore(now.clone());
        store.replace(&self.file_name(), &used.to_text())
    }

    /// Takes back [`Self::restored`]: nothing was trusted after all.
    fn take_back(&self, store: &Store) -> Result<()> {
        match &self.earlier {
            Some(Ok(used)) => store.replace(&self.file_name(), &used.to_text()),
            // It never was replaced.
            Some(Err(_)) => Ok(()),
            None => store.remove_all(std::iter::once(self.file_name().as_str())),
        }
    }
}

/// Marks that a restore has set before its commit.
pub struct Marked<'s> {
    store: &'s Store,
    targets: Vec<Target>,
}

impl<'s> Marked<'s> {
    /// Sets them. What must be marked and cannot is an error, and nothing is marked then; the rest is remarked on.
    pub fn restored(
        store: &'s Store,
        targets: Vec<Target>,
        must_mark: &BTreeSet<NamespaceName>,
        now: &Use,
        remarks: &mut Vec<Remark>,
    ) -> Result<Self> {
        let mut marked = Self { store, targets: Vec::new() };
        for target in targets {
            let outcome = target.restored(store, now);
            let name = target.name.clone();
            // Also one that failed: it may be there, and not durable.
            marked.targets.push(target);
            match outcome {
                Ok(()) => {}
                Err(error) if must_mark.contains(&name) => return Err(marked.take_back(error)),
                Err(error) => remarks.push(Remark::new(
                    "not-marked",
                    format!("namespace '{name}': the backup is not marked as used: {}", error.first().message),
                )),
            }
        }
        Ok(marked)
    }

    /// Takes them back: nothing is trusted after all. Gives the error, with what more went wrong.
    pub fn take_back(self, error: Error) -> Error {
        self.targets.iter().fold(error, |error, target| match target.take_back(self.store) {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_at(at_ms: u64, boot_id: &str) -> Use {
        Use { at_ms, host: "node1".to_owned(), boot_id: boot_id.to_owned() }
    }

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_taken_for_one() {
        let mut used = Used::new(7, Some("b".to_owned()));
        used.add_restore(used_at(8, "b1"));
        used.retired = Some(used_at(9, "b2"));
        let text = used.to_text();
        assert_eq!(Used::parse(&text), Ok(used));
        for end in 0..text.len() - 2 {
            assert!(Used::parse(&text[..end]).is_err(), "cut to {end}");
        }
        assert!(Used::parse(&text.replace("\"version\":1", "\"version\":2")).is_err());
        assert!(Used::parse(&text.replace("asmt-used", "asmt-xxxx")).is_err());
    }

    #[test]
    fn a_mark_is_of_one_backup() {
        let mut used = Used::new(7, Some("b".to_owned()));
        used.add_restore(used_at(100, "b1"));
        for (backup_ms, boot, is_of) in [
            (7, Some("b"), true),
            (8, Some("b"), false),
            (7, Some("c"), false),
            // With no manifest: files that are not later than the use.
            (100, None, true),
            (101, None, false),
        ] {
            assert_eq!(used.is_of(backup_ms, boot), is_of, "{backup_ms} {boot:?}");
        }
    }

    #[test]
    fn a_boot_counts_once_and_the_first_ones_stay() {
        let mut used = Used::new(7, None);
        for (at_ms, boot) in [(1, "a"), (2, "b"), (3, "a")] {
            used.add_restore(used_at(at_ms, boot));
        }
        assert_eq!(used.restores, [used_at(2, "b"), used_at(3, "a")]);
        for boot in 0..100 {
            used.add_restore(used_at(boot, &boot.to_string()));
        }
        assert_eq!((used.restores.len(), &used.restores[0], used.restores[31].at_ms), (32, &used_at(2, "b"), 99));
    }

    #[test]
    fn its_name_is_no_segments_and_no_manifests() {
        let name = used_name(3, &NamespaceName::new("../x").expect("a name"));
        assert_eq!(name, "asmt-used-3-..%2Fx.json");
        assert!(is_used_name(&name) && !crate::format::is_manifest_name(&name));
        assert_eq!(crate::segment::parse_file_name(&name), None);
    }
}
