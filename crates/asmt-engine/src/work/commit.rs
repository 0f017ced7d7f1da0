//! The few ordered steps that make staged work count.
//!
//! Promise: a backup appears with one rename, that of base (with no base, that of the manifest),
//! when everything it needs is durable; a restored namespace is trusted with one store, that of
//! base's shutdown word. A kill or a power cut between two steps leaves nothing that a start, a
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

/// Publishes a staged backup, and removes the journals of dead runs that accounted for what it
/// takes the place of. On an error nothing of it is left.
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
            // Only a leftover if it stays: everything that it lists is committed.
            if let Err(error) = store.remove_all(std::iter::once(journal.as_str())) {
                control.note(NoteCode::JournalLeft, format!("the journal could not be removed: {error}"));
            }
            Ok(())
        }
        Err(error) => Err(undo(&staged.temporaries, &journal, &published, &superseded, error)),
    }
}

/// Takes back what was published, the last first: base goes before what it vouches for.
fn undo(
    temporaries: &Temporaries<'_>,
    journal: &str,
    published: &[&str],
    superseded: &[JournalNamespace],
    error: Error,
) -> Error {
    let store = temporaries.store();
    let removed = store.remove_all(published.iter().rev().copied());
    // The journal stays as long as a file does that it accounts for: the next run sweeps both.
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

/// Files of a namespace, in the order in which they are published: manifest next to last, base
/// last.
struct Ordered {
    namespace: String,
    files: Vec<UnpublishedFile>,
}

fn write_manifests(staged: &Unpublished<'_>) -> Result<Vec<Ordered>> {
    let mut all = Vec::new();
    for namespace in &staged.namespaces {
        let name = crate::format::manifest_name(namespace.plan.instance, &namespace.plan.name);
        let text = namespace.manifest.to_text();
        let file = staged.temporaries.create(&name)?;
        file.write(0, text.as_bytes())?;
        let inode = file.finish(text.len() as u64, None)?;
        let mut files = namespace.files.clone();
        files.push(UnpublishedFile { key: None, temporary: file.temporary().to_owned(), name, inode, allocated_bytes: None });
        file.sync()?;
        files.sort_by_key(|file| rank(file.key.and_then(Key::address)));
        all.push(Ordered { namespace: namespace.plan.name.to_string(), files });
    }
    Ok(all)
}

/// Segments' files by [`publishing_rank`], the manifest (which is at no address) between the
/// stripes and base.
fn rank(address: Option<Address>) -> ((u8, u8), Reverse<u16>) {
    match address {
        None => ((4, 1), Reverse(0)),
        Some(address) => {
            let (rank, index) = publishing_rank(address);
            ((rank, 0), index)
        }
    }
}

/// What dead runs had committed and this one takes the place of, in the order in which it was
/// published.
fn superseded(staged: &Unpublished<'_>) -> Result<Vec<JournalNamespace>> {
    let store = staged.temporaries.store();
    let of = |namespace: &UnpublishedNamespace| {
        let mut names = namespace.plan.superseded.clone();
        names.sort_by_key(|name| rank(parse_file_name(name).map(|(_, address, _)| address)));
        let with_inode = |name: String| Ok(store.inode_of(&name)?.map(|inode| (name, inode)));
        let files = names.into_iter().map(with_inode).filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        Ok(JournalNamespace { namespace: namespace.plan.name.to_string(), files })
    };
    staged.namespaces.iter().filter(|namespace| !namespace.plan.superseded.is_empty()).map(of).collect()
}

/// Writes down what is about to get which name, so that a later run can tell what a dead one had
/// published; and what is about to go, so that it can tell what a dead one had not removed yet.
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
    // A journal that came back empty would not account for the files that it was to list.
    file.sync()?;
    store.publish(&temporary, &name)?;
    // One fsync for the names of the journal and of all staged files: from here on each has its
    // inode for good.
    match store.sync("the names of staged files, and the journal") {
        Ok(()) => Ok(name),
        Err(error) => Err(undo(&staged.temporaries, &name, &[], &[], error)),
    }
}

/// Removes what this run takes the place of, one after the other and what commits it first: it
/// would mislead most.
fn remove_superseded(store: &Store, superseded: &[JournalNamespace]) -> Result<()> {
    let mut names = superseded.iter().flat_map(|namespace| namespace.files.iter().rev());
    names.try_for_each(|(name, _)| store.remove_all(std::iter::once(name.as_str())))
}

/// The renames. Each group is durable before the next begins: whoever sees base finds all the rest.
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
        // After the index: beside that, and without base, ASMT refuses stripes that it would take
        // if they stood alone.
        Some(_) => 1,
        None => 2,
    };
    // All namespaces of the run together, so that their commits follow each other closely.
    for (group, what) in (0..).zip(["files of indexes", "stripes", "manifests", "base, which commits"]) {
        let files = ordered.iter().flat_map(|namespace| &namespace.files).filter(|file| group_of(file) == group);
        let mut count = 0;
        // Up to the last moment: the base that is about to get its name is what makes it a backup.
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

/// Makes restored segments count. What can fail comes first: then the withheld words are stored,
/// base's shutdown word last of all, with no system call between them. A start may trust the
/// segments from the first of these words on, so nothing is removed after it, whatever is seen.
///
/// Errors: before the first word is stored everything in [`Code`] that a failed restore has, and
/// nothing of the segments is left; after it `segment-changed` alone, and all of them that are
/// there stay. A stop is honoured before it.
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

/// Everything of the commit that can fail: owners and modes, the attachments by which the words are
/// stored, a last look at every segment, and the line in the journal, in this order. Gives the
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
    // Somebody else may have taken one of them away, or be at work on it: then the rest is not to
    // be trusted.
    for (segment, withheld) in &attached {
        segment.check_alone(withheld.as_ref())?;
    }
    control.check_stop()?;
    let words = attached.into_iter().filter_map(|(_, withheld)| withheld).collect();
    // Last of all: what fails after it would be left, for no later run removes what this line is
    // about.
    filled.note_commit()?;
    Ok(words)
}
