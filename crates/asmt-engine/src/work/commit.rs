//! The few ordered steps that commit staged work.
//!
//! Promise: a backup appears with one rename, that of base (without base, that of the manifest),
//! when everything that it needs is durable; a restored namespace is trusted after one store, that
//! of base's shutdown word. A kill or a power cut between two steps leaves nothing that a start, a
//! restore or ASMT would trust. Must never: retry an fsync, go on after one has failed, or remove a
//! segment after the first word that a start would trust.

use crate::error::{Error, NoteCode, Result};
use crate::format::journal::{Journal, JournalNamespace};
use crate::format::parse_file_name;
use crate::plan::publishing_rank;
use crate::progress::{Control, Phase};
use crate::store::Store;
use crate::work::copy_in::{NewSegment, Untrusted, Withheld};
use crate::work::copy_out::{Unpublished, UnpublishedFile, UnpublishedNamespace};
use crate::work::job::Temporaries;
use asmt_shm::{Address, Key, SegmentType};
use std::cmp::Reverse;

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

/// Files that dead runs had committed and that this run replaces, in the order of their
/// publication.
fn superseded(staged: &Unpublished<'_>) -> Result<Vec<JournalNamespace>> {
    let store = staged.temporaries.store();
    let of = |namespace: &UnpublishedNamespace| {
        let mut names = namespace.superseded.clone();
        names.sort_by_key(|name| rank(parse_file_name(name).map(|(_, address, _)| address)));
        let with_inode = |name: String| Ok(store.inode_of(&name)?.map(|inode| (name, inode)));
        let files = names.into_iter().map(with_inode).filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        Ok(JournalNamespace { namespace: namespace.manifest.namespace.to_string(), files })
    };
    staged.namespaces.iter().filter(|namespace| !namespace.superseded.is_empty()).map(of).collect()
}

/// Writes the journal: the files that are about to get their names, so that a later run can tell
/// what a dead one had published, and the files that are about to be removed, so that it can tell
/// what is left of them.
fn write_journal(staged: &Unpublished<'_>, ordered: &[Ordered], superseded: &[JournalNamespace]) -> Result<String> {
    let store = staged.temporaries.store();
    let namespaces = ordered.iter().map(|namespace| JournalNamespace {
        namespace: namespace.namespace.clone(),
        files: namespace.files.iter().map(|file| (file.name.clone(), file.inode)).collect(),
    });
    let text = serde_json::to_string(&Journal { namespaces: superseded.iter().cloned().chain(namespaces).collect() })
        .map_err(|error| Error::io("serialise", "the journal", std::io::Error::from(error)))?;
    let file = staged.temporaries.create("journal")?;
    file.write(0, text.as_bytes())?;
    file.finish(text.len() as u64, None)?;
    let name = Store::journal_name(staged.temporaries.run());
    let temporary = file.temporary().to_owned();
    // A journal that is empty after a power cut would not account for its files.
    file.sync()?;
    store.publish(&temporary, &name)?;
    // One fsync for the names of the journal and of all staged files: from here on, each name has
    // its inode for good.
    match store.sync("the names of staged files, and the journal") {
        Ok(()) => Ok(name),
        Err(error) => Err(undo(&staged.temporaries, &name, &[], &[], error)),
    }
}

/// Removes the files that this backup replaces, one after the other, and the commit file first: it
/// would mislead most.
fn remove_superseded(store: &Store, superseded: &[JournalNamespace]) -> Result<()> {
    let mut names = superseded.iter().flat_map(|namespace| namespace.files.iter().rev());
    names.try_for_each(|(name, _)| store.remove_all(std::iter::once(name.as_str())))
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
    let group_of = |file: &UnpublishedFile| match file.key.and_then(Key::address) {
        Some(address) if address.segment_type == SegmentType::PiBase => 3,
        Some(address) if address.segment_type.is_index() => 0,
        // Stripes come after the index. Beside an index without base, ASMT refuses stripes that it
        // would accept alone.
        Some(_) => 1,
        None => 2,
    };
    // All namespaces of the run are published together, so that their commits follow each other
    // closely.
    for (group, what) in (0..).zip(["files of indexes", "stripes", "manifests", "base, which commits"]) {
        let files = ordered.iter().flat_map(|namespace| &namespace.files).filter(|file| group_of(file) == group);
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
