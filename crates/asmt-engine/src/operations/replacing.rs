//! `backup --replace`: what is to become of older backups in the directory.

use crate::error::{NoteCode, Result};
use crate::facts::directory::Listing;
use crate::operations::Operation;
use crate::operations::judged::Judged;
use crate::plan::fates::Fate;
use crate::plan::staleness::{self, Sighting};
use crate::plan::{self, Fates, NamespaceRestore, OldBackup};
use crate::store::{Lock, Store};
use crate::work::commit;
use crate::work::read_all::{self, Purpose};
use std::path::Path;

impl Operation<'_> {
    /// Completes what killed runs had decided: until then, only asmt finds these backups.
    pub(super) fn complete_decided(&self, path: &Path) -> Result<()> {
        let Some(store) = Store::open_if_there(path)? else { return Ok(()) };
        if !store.has_journals()? {
            return Ok(());
        }
        store.lock(Lock::Exclusive)?;
        let decided = store.list()?.leftovers.decided;
        if decided.is_empty() {
            return Ok(());
        }
        self.control.begin_changes()?;
        for decided in decided {
            store.try_abilities(&crate::sys::process::own_run()?, &[])?;
            commit::complete(&store, &decided.run, &decided.journal, self.control)?;
            let count = decided.staged.len();
            let text =
                format!("gave {count} files of a backup that was complete their names: the run that made it had been killed");
            self.control.note(NoteCode::Completed, text);
        }
        Ok(())
    }

    /// What is to become of the backups in the directory of the namespaces that are asked for. With
    /// `reads`, a backup is only called current if all of it can be read and is undamaged.
    pub(super) fn fates(&self, store: &Store, listing: &Listing, request: &plan::Request, reads: bool) -> Result<Fates> {
        let mut names = plan::names_in_backup(listing).remove(&request.instance).unwrap_or_default();
        names.retain(|name| request.namespaces.as_ref().is_none_or(|asked| asked.contains(name)));
        if names.is_empty() {
            return Ok(Fates::new());
        }
        let all = plan::Request { namespaces: Some(names.into_iter().collect()), ..request.clone() };
        let judged = self.judge_reading(store, listing, &all)?;
        let mut fates = Fates::new();
        for namespace in &judged.plan.namespaces {
            let mut fate = staleness::fate(namespace, listing, &judged.evidence, sighting(&judged, namespace, listing, request));
            if fate == Fate::Current && reads && !self.is_undamaged(store, namespace)? {
                fate = Fate::Unsure;
            }
            let is_spent = staleness::is_spent(namespace, listing, &judged.evidence);
            fates.insert(namespace.name.clone(), OldBackup { fate, is_spent });
        }
        Ok(fates)
    }

    /// Reads a backup from the disk, and compares it with its manifest.
    fn is_undamaged(&self, store: &Store, namespace: &NamespaceRestore) -> Result<bool> {
        let bytes = namespace.sources.iter().map(|source| source.size_bytes).sum();
        self.control.begin(crate::progress::Phase::Verify, bytes);
        let purpose = Purpose::VerifyFromDisk;
        let findings = read_all::read_all(store, &namespace.sources, &purpose, self.options.threads, self.control)?;
        Ok(findings.damages.is_empty())
    }
}

fn sighting(judged: &Judged, namespace: &NamespaceRestore, listing: &Listing, request: &plan::Request) -> Sighting {
    let alone = plan::Request { namespaces: Some(vec![namespace.name.clone()]), ..request.clone() };
    Sighting {
        is_whole: plan::verify(listing, &alone).check().is_ok(),
        is_in_memory: judged.is_kept_by_id(namespace, listing),
        has_served: judged.made_since(namespace, listing).is_some() || judged.stripes_differ(namespace, listing),
    }
}
