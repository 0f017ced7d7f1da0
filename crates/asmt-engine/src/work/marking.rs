//! Marking: notes in a backup's directory that it is used or retired.
//!
//! Promise: a use is durable before a restore makes anything that a server could start with, so
//! that no later boot and no other container restores that backup without being told. Must never:
//! replace a mark that cannot be read by less than it said.

use crate::error::{Code, Error, Result};
use crate::format::mark::{Identity, Marks, UsageMark, UseRecord, used_name};
use crate::store::Store;
use asmt_shm::NamespaceName;

/// What is to be marked.
#[derive(Clone, Debug)]
pub struct MarkTarget {
    /// Instance.
    pub instance: u8,
    /// Namespace.
    pub name: NamespaceName,
    /// Which backup it is.
    pub identity: Identity,
}

impl MarkTarget {
    fn file_name(&self) -> String {
        used_name(self.instance, &self.name)
    }

    /// Whether a mark of this very backup says that the server has served on it.
    pub fn is_known_to_have_served(&self, marks: &Marks) -> bool {
        let own = marks.iter().find(|(name, _)| *name == self.file_name()).and_then(|(_, mark)| mark.as_ref().ok());
        own.is_some_and(|mark| mark.is_of(&self.identity) && mark.restores.iter().any(|used| used.has_served))
    }

    /// The mark of this very backup; a new one if there is none.
    ///
    /// Errors: `backup-used` if there is one that cannot be read: what it said must not be lost.
    fn mark(&self, marks: &Marks) -> Result<UsageMark> {
        match marks.iter().find(|(name, _)| *name == self.file_name()) {
            Some((_, Ok(used))) if used.is_of(&self.identity) => Ok(used.clone()),
            Some((name, Err(why))) => Err(Error::new(
                Code::BackupUsed,
                format!("{name}: {why}"),
                "look at the file; move it out of the directory only if you know that the backup was not used",
            )),
            _ => Ok(UsageMark::new(&self.identity)),
        }
    }

    /// Marks it as retired; if it is already, it stays as it is. Durable when it returns. `marks`
    /// were read under the lock of [`Store::lock_marks`], which is still held.
    pub fn retire(&self, store: &Store, marks: &Marks, now: &UseRecord) -> Result<()> {
        let mut used = self.mark(marks)?;
        if used.retired.is_none() {
            used.retired = Some(now.clone());
            store.replace(&self.file_name(), &used.to_text())?;
        }
        Ok(())
    }

    /// Marks it as restored from now on: the server may run on it as soon as this program has
    /// ended, whatever comes of the restore. Durable when it returns; never taken back. As
    /// [`Self::retire`] for `marks`.
    pub fn begin_restore(&self, store: &Store, marks: &Marks, now: &UseRecord) -> Result<()> {
        let mut used = self.mark(marks)?;
        used.add_restore(now.clone());
        store.replace(&self.file_name(), &used.to_text())
    }
}
