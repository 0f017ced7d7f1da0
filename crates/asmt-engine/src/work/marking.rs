//! Marks in a backup's directory that it is used or retired.
//!
//! Promise: a use is durable before a restore makes anything with which a server could start, so
//! that a later boot, or another container, cannot restore that backup unknowingly. Must never:
//! overwrite an unreadable mark.

use crate::error::{Code, Error, Result};
use crate::format::mark::{Identity, Marks, UsageMark, UseRecord, used_name};
use crate::store::Store;
use asmt_shm::NamespaceName;

/// The backup to be marked.
#[derive(Clone, Debug)]
pub struct MarkTarget {
    /// Instance.
    pub instance: u8,
    /// Namespace.
    pub name: NamespaceName,
    /// The identity of the backup.
    pub identity: Identity,
}

impl MarkTarget {
    fn file_name(&self) -> String {
        used_name(self.instance, &self.name)
    }

    /// Returns true if a mark of this very backup shows that the server has served on it.
    pub fn is_known_to_have_served(&self, marks: &Marks) -> bool {
        let own = marks.iter().find(|(name, _)| *name == self.file_name()).and_then(|(_, mark)| mark.as_ref().ok());
        own.is_some_and(|mark| mark.is_of(&self.identity) && mark.restores.iter().any(|used| used.has_served))
    }

    /// The mark of this very backup, or a new one.
    ///
    /// Errors: `backup-used` if there is one that cannot be read, because its contents must not be
    /// lost.
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

    /// Marks the backup as retired. A backup that is already retired keeps its mark. Durable when
    /// this returns. `marks` were read under the lock of [`Store::lock_marks`], which is still
    /// held.
    pub fn retire(&self, store: &Store, marks: &Marks, now: &UseRecord) -> Result<()> {
        let mut used = self.mark(marks)?;
        if used.retired.is_none() {
            used.retired = Some(now.clone());
            store.replace(&self.file_name(), &used.to_text())?;
        }
        Ok(())
    }

    /// Marks the backup as restored from now on: the server may run on it as soon as this program
    /// has ended, whatever the outcome of the restore. Durable when this returns; never taken back.
    /// For `marks` see [`Self::retire`].
    pub fn begin_restore(&self, store: &Store, marks: &Marks, now: &UseRecord) -> Result<()> {
        let mut used = self.mark(marks)?;
        used.add_restore(now.clone());
        store.replace(&self.file_name(), &used.to_text())
    }
}
