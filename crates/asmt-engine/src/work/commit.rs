//! The few ordered steps that commit staged work.
//!
//! Promise: a backup appears with one rename, that of base (without base, that of the manifest),
//! when everything that it needs is durable; where it takes the place of an older one, with the
//! journal that says so, and not a moment without either; a restored namespace is trusted after one
//! store, that of base's shutdown word. A kill or a power cut between two steps leaves nothing that
//! a start, a restore or ASMT would trust. Must never: retry an fsync, go on after one has failed,
//! or remove a segment after the first word that a start would trust.

use crate::error::{Error, NoteCode, Result};
use crate::format::journal::{Journal, JournalNamespace, temporary_name};
use crate::format::parse_file_name;
use crate::format::run_id::RunId;
use crate::plan::publishing_rank;
use crate::progress::{Control, Phase};
use crate::store::Store;
use crate::work::copy_in::{NewSegment, Untrusted, Withheld};
use crate::work::copy_out::{Unpublished, UnpublishedFile, UnpublishedNamespace};
use crate::work::job::Temporaries;
use asmt_shm::{Address, Key, SegmentType};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Publishes a staged backup, and removes the journals of dead runs that accounted for the files
/// that it replaces. On an error nothing of it is left.
pub fn publish(staged: Unpublished<'_>, old_journals: &[String], control: &Control) -> Result<()> {
    publish_staged(&staged, old_journals, control).map_err(|error| staged.temporaries.clean_up_after(error))
}

fn publish_staged(staged: &Unpublished<'_>, old_journals: &[String], control: &Control) -> Result<()> {
    let store = staged.temporaries.store();
    control.check_stop()?;
    control.begin(Phase::Publish, 0);
    let ordered = write_manifests(staged)?;
    let superseded = superseded(staged)?;
    if staged.namespaces.iter().any(|namespace| namespace.is_replacing) {
        return replace(staged, &ordered, superseded, old_journals, control);
    }
    let journal = write_journal(staged, &ordered, &superseded)?;
    let mut published = Vec::new();
    let outcome = store
        .remove_all(old_journals.iter().map(String::as_str))
        .and_then(|()| remove_superseded(store, &superseded))
        .and_then(|()| publish_files(staged, &ordered, &mut published, control));
    match outcome {
        Ok(()) => {
            // If it stays, it is only a leftover: everything that it lists is committed.
            if let Err(error) = store.remove_all(std::iter::once(journal.as_str())) {
                control.note(NoteCode::JournalLeft, format!("the journal could not be removed: {error}"));
            }
            Ok(())
        }
        Err(error) => Err(undo(&staged.temporaries, &journal, &published, &superseded, error)),
    }
}

/// Puts a staged backup in the place of older ones. The older ones are good until the journal is
/// durable, and the new one is from then on: a reader of the journal finds each file under one of
/// its two names. A failure before that leaves the older ones, and one after it the new one.
fn replace(
    staged: &Unpublished<'_>,
    ordered: &[Ordered],
    superseded: Vec<JournalNamespace>,
    old_journals: &[String],
    control: &Control,
) -> Result<()> {
    let temporaries = &staged.temporaries;
    let store = temporaries.store();
    let journal = Journal { namespaces: ordered.iter().map(Ordered::accounted).collect(), replaced: superseded };
    // What decides must not be durable before the names that it decides about.
    store.sync("the names of staged files")?;
    store.check_place()?;
    check_names_free(store, &journal)?;
    let (temporary, name) = write_journal_file(temporaries, &journal)?;
    store.publish(&temporary, &name)?;
    let staged_names = temporaries.keep();
    let decided = store
        .sync("the journal, which decides")
        .and_then(|()| store.check_alive(&name))
        .and_then(|()| store.remove_all(old_journals.iter().map(String::as_str)));
    if let Err(error) = decided {
        // Nothing of the older ones was touched. If this is not undone, the next run finds either.
        let undone = store
            .remove_all(std::iter::once(name.as_str()))
            .and_then(|()| store.remove_all(staged_names.iter().map(String::as_str)));
        return Err(match undone {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        });
    }
    complete(store, temporaries.run(), &journal, control).map_err(|error| error.with_hint(DECIDED))
}

/// Fails if somebody has put a file under a name that the new backup needs.
fn check_names_free(store: &Store, journal: &Journal) -> Result<()> {
    let replaced: BTreeSet<(&str, u64)> =
        journal.replaced.iter().flat_map(|old| &old.files).map(|(name, inode)| (name.as_str(), *inode)).collect();
    for (name, _) in journal.namespaces.iter().flat_map(|namespace| &namespace.files) {
        if store.inode_of(name)?.is_some_and(|found| !replaced.contains(&(name.as_str(), found))) {
            return Err(store.name_taken(name));
        }
    }
    Ok(())
}

/// The next step where a backup was decided and could not be completed.
const DECIDED: &str = "the new backup is whole, and asmt restores it (ASMT does not find it yet): the next asmt backup into this \
    directory gives its files their names";

/// Completes what a journal has decided: removes what is left of the older backups, and gives the
/// files of the new one their names. Can be repeated.
///
/// Errors: failed calls; the journal stays, and what it says holds.
pub fn complete(store: &Store, run: &RunId, journal: &Journal, control: &Control) -> Result<()> {
    remove_accounted(store, &journal.replaced)?;
    for (group, what) in (0..).zip(GROUPS) {
        let files = journal.namespaces.iter().flat_map(|namespace| &namespace.files);
        let mut count = 0;
        for (name, inode) in files.filter(|(name, _)| group_of(parse_file_name(name).map(|(_, address, _)| address)) == group) {
            if store.inode_of(name)? != Some(*inode) {
                store.publish(&temporary_name(run, name), name)?;
            }
            count += 1;
        }
        if count > 0 {
            store.sync(what)?;
            control.note(NoteCode::Published, format!("published {what}: {count}"));
        }
    }
    let name = Store::journal_name(run);
    store.check_alive(&name)?;
    // If it stays, it is only a leftover: everything that it lists has its name.
    if let Err(error) = store.remove_all(std::iter::once(name.as_str())) {
        control.note(NoteCode::JournalLeft, format!("the journal could not be removed: {error}"));
    }
    Ok(())
}

/// Removes backups that no restore must use, before anything takes their place. Their files that
/// commit them go first. A journal accounts for the rest, so that a run that ends in between leaves
/// nothing that passes for a backup.
///
/// Errors: failed calls; what is left of them is removed by the next run.
pub fn remove_outdated(temporaries: &Temporaries<'_>, outdated: &[(String, Vec<String>)]) -> Result<()> {
    let store = temporaries.store();
    let accounted = |(namespace, names): &(String, Vec<String>)| accounted_for(store, namespace.clone(), names.clone());
    let namespaces = outdated.iter().map(accounted).collect::<Result<Vec<_>>>()?;
    let journal = Journal { namespaces, ..Journal::default() };
    let name = publish_journal(temporaries, &journal).map_err(|error| temporaries.clean_up_after(error))?;
    remove_accounted(store, &journal.namespaces)
        .and_then(|()| store.remove_all(std::iter::once(name.as_str())))
        .map_err(Error::leaving_something)
}

/// Removes files that a durable journal accounts for, as far as they are still there: first those
/// that commit a backup, as they would mislead most; then manifests and stripes; then the rest of
/// the indexes, beside which ASMT takes no stripes.
fn remove_accounted(store: &Store, namespaces: &[JournalNamespace]) -> Result<()> {
    let rank_of = |namespace: &JournalNamespace, name: &String| {
        let is_last = namespace.files.last().is_some_and(|(last, _)| last == name);
        match (is_last, group_of(parse_file_name(name).map(|(_, address, _)| address))) {
            (true, _) => 0,
            (false, 0) => 2,
            (false, _) => 1,
        }
    };
    for rank in 0..3 {
        let mut names = Vec::new();
        for namespace in namespaces {
            for (name, inode) in namespace.files.iter().rev().filter(|(name, _)| rank_of(namespace, name) == rank) {
                if store.inode_of(name)? == Some(*inode) {
                    names.push(name.as_str());
                }
            }
        }
        store.remove_all(names.into_iter())?;
    }
    Ok(())
}

/// Takes back the published files, the last first: base goes before the files that it vouches for.
fn undo(
    temporaries: &Temporaries<'_>,
    journal: &str,
    published: &[&str],
    superseded: &[JournalNamespace],
    error: Error,
) -> Error {
    let store = temporaries.store();
    let removed = store.remove_all(published.iter().rev().copied());
    // The journal stays as long as one of its files does: the next run sweeps both.
    let is_left = |(name, inode): &(String, u64)| !matches!(store.inode_of(name), Ok(found) if found != Some(*inode));
    let needs_journal = superseded.iter().flat_map(|namespace| &namespace.files).any(is_left);
    let cleaned = removed.and_then(|()| temporaries.remove()).and_then(|()| match needs_journal {
        true => Ok(()),
        false => store.remove_all(std::iter::once(journal)),
    });
    match cleaned {
        Ok(()) => error,
        Err(other) => error.and_while_cleaning_up(other),
    }
}

/// The files of a namespace in the order of their publication: the manifest is next to last, and
/// base is last.
struct Ordered {
    namespace: String,
    files: Vec<UnpublishedFile>,
}

impl Ordered {
    fn accounted(&self) -> JournalNamespace {
        JournalNamespace {
            namespace: self.namespace.clone(),
            files: self.files.iter().map(|file| (file.name.clone(), file.inode)).collect(),
        }
    }
}

fn write_manifests(staged: &Unpublished<'_>) -> Result<Vec<Ordered>> {
    let mut all = Vec::new();
    for namespace in &staged.namespaces {
        let name = crate::format::manifest_name(namespace.manifest.instance, &namespace.manifest.namespace);
        let text = namespace.manifest.to_text();
        let file = staged.temporaries.create(&name)?;
        file.write(0, text.as_bytes())?;
        let inode = file.finish(text.len() as u64, None)?;
        let mut files = namespace.files.clone();
        files.push(UnpublishedFile { key: None, temporary: file.temporary().to_owned(), name, inode, allocated_bytes: None });
        file.sync()?;
        files.sort_by_key(|file| rank(file.key.and_then(Key::address)));
        all.push(Ordered { namespace: namespace.manifest.namespace.to_string(), files });
    }
    Ok(all)
}

/// The rank of a file in that order: segments' files by [`publishing_rank`], and the manifest,
/// which has no address, between the stripes and base.
fn rank(address: Option<Address>) -> ((u8, u8), Reverse<u16>) {
    match address {
        None => ((4, 1), Reverse(0)),
        Some(address) => {
            let (rank, index) = publishing_rank(address);
            ((rank, 0), index)
        }
    }
}

/// Files of a backup, in the order of their publication, with their inodes.
fn accounted_for(store: &Store, namespace: String, mut names: Vec<String>) -> Result<JournalNamespace> {
    names.sort_by_key(|name| rank(parse_file_name(name).map(|(_, address, _)| address)));
    let with_inode = |name: String| Ok(store.inode_of(&name)?.map(|inode| (name, inode)));
    let files = names.into_iter().map(with_inode).filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
    Ok(JournalNamespace { namespace, files })
}

/// Files that this run replaces, in the order of their publication.
fn superseded(staged: &Unpublished<'_>) -> Result<Vec<JournalNamespace>> {
    let store = staged.temporaries.store();
    let of = |namespace: &UnpublishedNamespace| {
        accounted_for(store, namespace.manifest.namespace.to_string(), namespace.superseded.clone())
    };
    staged.namespaces.iter().filter(|namespace| !namespace.superseded.is_empty()).map(of).collect()
}

/// Writes the journal: the files that are about to get their names, so that a later run can tell
/// what a dead one had published, and the files that are about to be removed, so that it can tell
/// what is left of them.
fn write_journal(staged: &Unpublished<'_>, ordered: &[Ordered], superseded: &[JournalNamespace]) -> Result<String> {
    let namespaces = superseded.iter().cloned().chain(ordered.iter().map(Ordered::accounted)).collect();
    publish_journal(&staged.temporaries, &Journal { namespaces, ..Journal::default() })
}

/// Writes a journal that decides nothing, and returns its name.
fn publish_journal(temporaries: &Temporaries<'_>, journal: &Journal) -> Result<String> {
    let store = temporaries.store();
    let (temporary, name) = write_journal_file(temporaries, journal)?;
    store.publish(&temporary, &name)?;
    // One fsync for the names of the journal and of all staged files: from here on, each name has
    // its inode for good.
    match store.sync("the names of staged files, and the journal") {
        Ok(()) => Ok(name),
        Err(error) => Err(undo(temporaries, &name, &[], &[], error)),
    }
}

/// Writes a journal, durably, and returns its temporary name and the one that it is to get.
fn write_journal_file(temporaries: &Temporaries<'_>, journal: &Journal) -> Result<(String, String)> {
    let text =
        serde_json::to_string(journal).map_err(|error| Error::io("serialise", "the journal", std::io::Error::from(error)))?;
    let file = temporaries.create("journal")?;
    file.write(0, text.as_bytes())?;
    file.finish(text.len() as u64, None)?;
    let temporary = file.temporary().to_owned();
    // A journal that is empty after a power cut would not account for its files.
    file.sync()?;
    Ok((temporary, Store::journal_name(temporaries.run())))
}

/// Removes the files that this backup replaces, one after the other, and the commit file first: it
/// would mislead most.
fn remove_superseded(store: &Store, superseded: &[JournalNamespace]) -> Result<()> {
    let mut names = superseded.iter().flat_map(|namespace| namespace.files.iter().rev());
    names.try_for_each(|(name, _)| store.remove_all(std::iter::once(name.as_str())))
}

/// The groups in which files are published.
const GROUPS: [&str; 4] = ["files of indexes", "stripes", "manifests", "base, which commits"];

/// The group of a file of a segment, or of a manifest, which has no address.
fn group_of(address: Option<Address>) -> usize {
    match address {
        Some(address) if address.segment_type == SegmentType::PiBase => 3,
        Some(address) if address.segment_type.is_index() => 0,
        // Stripes come after the index. Beside an index without base, ASMT refuses stripes that it
        // would accept alone.
        Some(_) => 1,
        None => 2,
    }
}

/// Renames the files. Each group is durable before the next begins: a reader who sees base finds
/// all the rest.
fn publish_files<'f>(
    staged: &Unpublished<'_>,
    ordered: &'f [Ordered],
    published: &mut Vec<&'f str>,
    control: &Control,
) -> Result<()> {
    let store = staged.temporaries.store();
    let is_of = |file: &&UnpublishedFile, group| group_of(file.key.and_then(Key::address)) == group;
    // All namespaces of the run are published together, so that their commits follow each other
    // closely.
    for (group, what) in (0..).zip(GROUPS) {
        let files = ordered.iter().flat_map(|namespace| &namespace.files).filter(|file| is_of(file, group));
        let mut count = 0;
        // Checked at the last moment: the next rename, that of base, makes it a backup.
        store.check_place()?;
        for file in files {
            store.publish(&file.temporary, &file.name)?;
            published.push(&file.name);
            count += 1;
        }
        if count > 0 {
            store.sync(what)?;
            if let Some(last) = published.last() {
                store.check_alive(last)?;
            }
            control.note(NoteCode::Published, format!("published {what}: {count}"));
        }
    }
    Ok(())
}

/// Commits restored segments. Everything that can fail comes first. Then the withheld words are
/// stored, base's shutdown word last, with no system call between them. From the first of these
/// words on, a start may trust the segments, so nothing is removed after it, in any case.
///
/// Errors: before the first word is stored, any [`Code`] of a failed restore, and no segment is
/// left; after it only `segment-changed`, and the segments stay. A stop is honoured before that
/// word.
///
/// [`Code`]: crate::error::Code
pub fn trust(mut filled: Untrusted<'_>, control: &Control) -> Result<()> {
    let words = match prepare(&mut filled, control) {
        Ok(words) => words,
        Err(error) => return Err(filled.clean_up_after(error)),
    };
    // The point of no return.
    let trusted = filled.trust(words);
    trusted.let_go(control)?;
    control.note(NoteCode::Trusted, "all segments are in place; the server may start");
    Ok(())
}

/// Does everything of the commit that can fail, in this order: owners and modes, the attachments
/// for storing the words, a last check of every segment, and the line in the journal. Returns the
/// words in the order in which they are to be stored.
fn prepare(filled: &mut Untrusted<'_>, control: &Control) -> Result<Vec<Withheld>> {
    control.check_stop()?;
    control.begin(Phase::Publish, 0);
    filled.segments().try_for_each(NewSegment::give_to_owner)?;
    let mut attached = Vec::new();
    for segment in filled.segments_by_rank() {
        control.check_stop()?;
        attached.push((segment, segment.attach_withheld()?));
    }
    // Another process may have removed one of them, or may be at work on it: then the others must
    // not be trusted.
    for (segment, withheld) in &attached {
        segment.check_alone(withheld.as_ref())?;
    }
    control.check_stop()?;
    let words = attached.into_iter().filter_map(|(_, withheld)| withheld).collect();
    // This comes last: after a later failure the segments would stay, because no later run removes
    // the segments of a journal with this line.
    filled.note_commit()?;
    Ok(words)
}
