//! The leftovers of dead runs in the directory, and their removal.

use crate::error::{Error, Problem, Result};
use crate::facts::directory::{Decided, Interrupted, Leftovers};
use crate::format::is_backup_name;
use crate::format::journal::{JOURNAL_PREFIX, Journal, JournalNamespace, TEMPORARY_PREFIX, published_name, temporary_name};
use crate::format::mark::is_used_name;
use crate::format::run_id::RunId;
use crate::hints;
use crate::store::Store;
use crate::sys::process::{Unseen, is_other_and_may_live, own_run};
use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Largest journal that is read: the names of ten times as many files as a namespace can have.
pub const MAX_JOURNAL_BYTES: u64 = 4 << 20;

impl Store {
    /// Finds the leftovers of dead runs, and the live runs. Something other than a file under such
    /// a name is not asmt's, and is not swept.
    pub(super) fn leftovers(&self, names: &[String], problems: &mut Vec<(String, Problem)>) -> Result<Leftovers> {
        let own = own_run()?;
        let unseen = if self.is_locked.load(Ordering::Relaxed) { Unseen::HasEnded } else { Unseen::MayLive };
        let mut leftovers = Leftovers::default();
        let mut temporaries = Vec::new();
        let mut journals = Vec::new();
        for name in names {
            let run = match (name.strip_prefix(TEMPORARY_PREFIX), name.strip_prefix(JOURNAL_PREFIX)) {
                (Some(rest), _) => rest.split_once('.').and_then(|(run, _)| RunId::parse(run)),
                (_, Some(run)) => RunId::parse(run),
                _ => None,
            };
            let Some(run) = run else { continue };
            let is_file = match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
                // It was removed after the listing.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(Error::io("stat", self.shown(name), error)),
            };
            let is_of_mark = is_used_name(published_name(name));
            if is_other_and_may_live(&run, &own, unseen)? {
                // A run that writes a mark is not at work on the files.
                if !is_of_mark && !leftovers.live.contains(&run) {
                    leftovers.live.push(run);
                }
            } else if !is_file {
                let mut problem = self.unsafe_file(name, "not a regular file");
                hints::NOT_OURS.clone_into(&mut problem.hint);
                problems.push((name.clone(), problem));
            } else if name.starts_with(JOURNAL_PREFIX) {
                journals.push(name);
            } else {
                temporaries.push(name.clone());
            }
        }
        for name in &journals {
            let found = self.read_text(name, MAX_JOURNAL_BYTES)?.ok().filter(|found| !found.is_open_elsewhere());
            let text = found.and_then(|found| found.text);
            // A journal is renamed into place when it is complete; one that cannot be read is not
            // ours.
            let Some(journal) = text.and_then(|text| serde_json::from_str::<Journal>(&text).ok()) else { continue };
            match name.strip_prefix(JOURNAL_PREFIX).and_then(RunId::parse).filter(|_| journal.is_decision()) {
                Some(run) => self.judge_decision(run, journal, &mut leftovers)?,
                None => self.judge_journal(&journal, &mut leftovers)?,
            }
        }
        let is_decided = |name: &String| {
            leftovers.decided.iter().any(|decided| {
                Self::journal_name(&decided.run) == *name || decided.staged.values().any(|temporary| temporary == name)
            })
        };
        temporaries.retain(|name| !is_decided(name));
        journals.retain(|name| !is_decided(name));
        // Journals come last: while one is there, the next run can still sweep the files that it
        // lists.
        leftovers.sweep.extend(temporaries);
        leftovers.sweep.extend(journals.into_iter().cloned());
        Ok(leftovers)
    }

    /// Returns true if a run has left a journal, or is publishing.
    pub fn has_journals(&self) -> Result<bool> {
        Ok(self.names()?.iter().any(|name| name.starts_with(JOURNAL_PREFIX)))
    }

    /// Decides what happens to the files that a dead run had begun to publish.
    ///
    /// The last file of a namespace commits it. If another file has that name, somebody has put a
    /// backup there since, for instance with `cp`. Then nothing of that namespace belongs to the
    /// dead run, whatever the inode, which may have been reused.
    pub(super) fn judge_journal(&self, journal: &Journal, leftovers: &mut Leftovers) -> Result<()> {
        let mut committed = BTreeSet::new();
        let mut uncommitted = BTreeSet::new();
        let mut published = Vec::new();
        for namespace in &journal.namespaces {
            // The names are only claims: names that a backup cannot have are ignored.
            let mut there = Vec::new();
            let mut is_committed = false;
            let mut is_replaced = false;
            for (index, (name, inode)) in namespace.files.iter().enumerate().filter(|(_, (name, _))| is_backup_name(name)) {
                let is_last = index + 1 == namespace.files.len();
                match self.inode_of(name)? {
                    Some(found) if found == *inode => {
                        there.push(name.clone());
                        is_committed = is_last;
                    }
                    Some(_) => is_replaced = is_last,
                    None => {}
                }
            }
            if is_committed {
                committed.insert(&namespace.namespace);
                published.push(there);
            } else if !is_replaced {
                uncommitted.insert((namespace.instance(), &namespace.namespace));
                leftovers.sweep.extend(there.into_iter().rev());
            }
        }
        uncommitted.retain(|(_, name)| !committed.contains(name));
        if !uncommitted.is_empty() {
            leftovers.superseded.extend(published.into_iter().flatten());
        }
        leftovers.interrupted.extend(
            uncommitted
                .into_iter()
                .filter_map(|(instance, name)| Some(Interrupted { instance: instance?, namespace: name.clone() })),
        );
        Ok(())
    }

    /// Decides what happens to what a dead run had decided. A namespace of which a file is missing,
    /// or has a name that somebody else has taken since, is no backup any more.
    pub(super) fn judge_decision(&self, run: RunId, mut journal: Journal, leftovers: &mut Leftovers) -> Result<()> {
        // The names are only claims, as in any other journal.
        for namespace in journal.namespaces.iter_mut().chain(&mut journal.replaced) {
            namespace.files.retain(|(name, _)| is_backup_name(name));
        }
        let mut decided = Decided { run, journal: Journal::default(), staged: BTreeMap::new(), replaced: BTreeSet::new() };
        for namespace in journal.namespaces {
            let of_name = |other: &&JournalNamespace| other.namespace == namespace.namespace;
            let replaced: Vec<JournalNamespace> = journal.replaced.iter().filter(of_name).cloned().collect();
            let is_replaced = |name: &str, found: u64| {
                replaced.iter().flat_map(|old| &old.files).any(|(old, inode)| old == name && *inode == found)
            };
            let (mut staged, mut published) = (BTreeMap::new(), Vec::new());
            let (mut is_whole, mut is_taken) = (true, false);
            for (name, inode) in &namespace.files {
                let temporary = temporary_name(&decided.run, name);
                let found = self.inode_of(name)?;
                is_taken |= found.is_some_and(|found| found != *inode && !is_replaced(name, found));
                if found == Some(*inode) {
                    published.push(name.clone());
                } else if self.inode_of(&temporary)? == Some(*inode) {
                    staged.insert(name.clone(), temporary);
                } else {
                    is_whole = false;
                }
            }
            if is_taken || !is_whole {
                // Where nothing is staged, it was complete once. Where a name was taken, nobody can
                // tell whose the others are.
                let is_torn = !is_taken && !staged.is_empty();
                leftovers.sweep.extend(published.into_iter().rev().filter(|_| is_torn));
                continue;
            }
            for (name, inode) in replaced.iter().flat_map(|old| &old.files) {
                if self.inode_of(name)? == Some(*inode) {
                    decided.replaced.insert(name.clone());
                }
            }
            decided.staged.extend(staged);
            decided.journal.replaced.extend(replaced);
            decided.journal.namespaces.push(namespace);
        }
        if !decided.staged.is_empty() {
            leftovers.decided.push(decided);
        }
        Ok(())
    }

    /// Removes the leftovers of dead runs. A journal is only removed when the files that it lists
    /// are gone for good. If `takes_places` says that this run replaces what such a run had
    /// committed, the journals stay until the own journal accounts for these files. Returns the
    /// names of the journals that stay.
    pub fn sweep(&self, leftovers: &Leftovers, takes_places: bool) -> Result<Vec<String>> {
        let (journals, files): (Vec<&str>, Vec<&str>) =
            leftovers.sweep.iter().map(String::as_str).partition(|name| name.starts_with(JOURNAL_PREFIX));
        self.remove_all(files.into_iter())?;
        if takes_places {
            return Ok(journals.into_iter().map(str::to_owned).collect());
        }
        self.remove_all(journals.into_iter()).map(|()| Vec::new())
    }
}
