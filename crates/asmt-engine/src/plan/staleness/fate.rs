//! What is to become of an older backup that a new one of the same namespace may replace.
//!
//! Pure. Promise: a backup is called dead only if something shows that the server has run since,
//! and current only if something proves that it has not. Must never: take doubt for either. What is
//! called dead is removed before there is another one, and where one is called current no other is
//! made.

use super::{Overrides, identity_of, judge_restore};
use crate::error::Code;
use crate::facts::directory::Listing;
use crate::facts::server::{Evidence, Host};
use crate::format::mark::used_name;
use crate::plan::NamespaceRestore;
use crate::plan::fates::Fate;

/// What was found of a backup beside what its manifest noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// It is complete, as far as names, sizes and headers of its files tell, and undamaged, as far
    /// as that was read.
    pub is_whole: bool,
    /// The very segments that were backed up are in memory, by their ids, clean and not attached.
    pub is_in_memory: bool,
    /// What is in memory shows that a server has run since.
    pub has_served: bool,
}

/// Decides what is to become of the backup of a namespace.
pub fn fate(namespace: &NamespaceRestore, listing: &Listing, evidence: &Evidence, found: Sighting) -> Fate {
    let asked = std::slice::from_ref(namespace);
    let verdict = judge_restore(asked, listing, evidence, Overrides::default());
    let own_name = used_name(namespace.instance, &namespace.name);
    let identity = identity_of(namespace, listing);
    let marks = || listing.marks.iter().filter(|(name, _)| *name == own_name).filter_map(|(_, mark)| mark.as_ref().ok());
    let own_mark = || marks().filter(|mark| mark.is_of(&identity));
    if own_mark().any(|mark| mark.retired.is_some()) {
        return Fate::Dead;
    }
    let has_manifest = namespace.created_ms.is_some();
    if verdict.is_proven {
        return if found.is_whole && verdict.refusals.is_empty() { Fate::Current } else { Fate::Unsure };
    }
    let has_run = verdict.device_has_run || verdict.has_run;
    if found.is_in_memory && has_run {
        return Fate::Overtaken;
    }
    // Without a manifest, nothing tells the segments that were backed up from those of a later run.
    let is_seen = has_manifest && (has_run || found.has_served);
    if is_seen || own_mark().any(|mark| mark.restores.iter().any(|used| used.has_served)) {
        return Fate::Dead;
    }
    // A restore that was begun here by mistake would make a restore of the next boot refuse it.
    let later = Evidence { host: Host { boot_id: NEXT_BOOT.to_owned(), ..evidence.host.clone() }, ..evidence.clone() };
    let next = judge_restore(asked, listing, &later, Overrides::default());
    // It need not be marked now.
    let is_accepted = || verdict.refusals.iter().chain(&next.refusals).all(|problem| problem.code == Code::CannotMarkUsed);
    if has_manifest && found.is_whole && found.is_in_memory && is_accepted() { Fate::Current } else { Fate::Unsure }
}

/// The id of a boot that is not this one.
const NEXT_BOOT: &str = "the next boot";

/// Returns true if a backup of this host is of no use any more to the container that made it: a
/// restore of it has made segments, here or in another container, it was retired, or a device that
/// it recorded shows that the server has run since. What is in memory here proves nothing of the
/// server of another container.
pub fn is_spent(namespace: &NamespaceRestore, listing: &Listing, evidence: &Evidence) -> bool {
    let own_name = used_name(namespace.instance, &namespace.name);
    let identity = identity_of(namespace, listing);
    let marks = listing.marks.iter().filter(|(name, _)| *name == own_name).filter_map(|(_, mark)| mark.as_ref().ok());
    let mut marks = marks.filter(|mark| mark.is_of(&identity));
    let is_marked = marks.any(|mark| mark.retired.is_some() || mark.restores.iter().any(|used| used.has_made));
    is_marked || judge_restore(std::slice::from_ref(namespace), listing, evidence, Overrides::default()).device_has_run
}
