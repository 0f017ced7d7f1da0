//! A restore that was planned, with the evidence, and what both come to.

use crate::error::{Code, Error, NoteCode, Problem, Remark};
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Segment};
use crate::facts::server::Evidence;
use crate::format;
use crate::format::mark::{self, UseRecord};
use crate::operations::use_of;
use crate::plan::staleness::{self, Overrides, Verdict};
use crate::plan::{self, NamespaceRestore, Plan, Source};
use crate::work::instance::Restored;
use asmt_shm::{Header, NamespaceName, SHUTDOWN_CLEAN, STRIPE_MAGIC};
use std::collections::BTreeSet;

/// A restore as it was planned, with the evidence and what it comes to.
pub struct Judged {
    pub(super) plan: Plan<NamespaceRestore>,
    pub(super) inventory: Inventory,
    pub(super) evidence: Evidence,
    pub(super) verdict: Verdict,
    /// Which segments restores have made here, as the runtime directory knows.
    pub(super) restored: Restored,
}

impl Judged {
    /// The plan with the verdict in it.
    pub(super) fn combined(&self) -> Plan<NamespaceRestore> {
        let mut plan = self.plan.clone();
        plan.refusals.extend(self.verdict.refusals.iter().cloned());
        plan.remarks.extend(self.verdict.remarks.iter().cloned());
        plan
    }

    /// Why there is nothing to restore: all of it is in memory, as it was backed up or as it was
    /// restored, and a start would take it.
    pub(super) fn already_in_memory(&self, listing: &Listing) -> Option<Error> {
        let is_there = |namespace: &NamespaceRestore| self.is_kept(namespace, listing) || self.is_restored(namespace, listing);
        if self.plan.namespaces.is_empty() || !self.plan.namespaces.iter().all(is_there) {
            return None;
        }
        let names: Vec<&NamespaceName> = self.plan.namespaces.iter().map(|namespace| &namespace.name).collect();
        Some(Error::new(
            Code::AlreadyInMemory,
            format!(
                "{} {} already in memory and clean: nothing needs restoring",
                plan::titles(&names, self.evidence.instance),
                if names.len() == 1 { "is" } else { "are" }
            ),
            "start the server without a restore",
        ))
    }

    /// Whether what is in memory of a namespace is what a restore has made here, and no server has
    /// touched since.
    pub(super) fn is_restored(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let is_made_here = |source: &Source, segment: &Segment| {
            let is_trusted = match &segment.header {
                Header::Stripe(stripe) => stripe.is_trusted(),
                _ => true,
            };
            is_trusted && self.restored.shmids.contains(&segment.stat.shmid) && segment.stat.size_bytes == source.size_bytes
        };
        self.holds_all(namespace, is_made_here) && !self.stripes_differ(namespace, listing)
    }

    /// Whether the segments of a namespace that were backed up are still in memory as they were, as
    /// far as can be seen: not made anew since. A restore that was begun by mistake must not make
    /// the backup look used.
    pub(super) fn is_kept(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let manifests = listing.manifests_of(self.evidence.instance);
        let is_same_place = |manifest: &&&format::Manifest| staleness::is_same_place(manifest, &self.evidence.host);
        let manifest = manifests.iter().find(|manifest| manifest.namespace == namespace.name).filter(is_same_place);
        let Some(manifest) = manifest else { return false };
        let is_it = |source: &Source, segment: &Segment| {
            let is_older = || segment.stat.changed_ms().is_some_and(|at_ms| at_ms <= manifest.created_ms);
            // Manifests of before ids were noted have the time alone.
            manifest.shmid_of(source.key).map_or_else(is_older, |shmid| shmid == segment.stat.shmid)
        };
        self.holds_all(namespace, is_it) && !self.stripes_differ(namespace, listing)
    }

    /// The same, where the ids of the segments were noted: times alone prove nothing.
    pub(super) fn is_kept_by_id(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let manifests = listing.manifests_of(self.evidence.instance);
        let manifest = manifests.iter().find(|manifest| manifest.namespace == namespace.name);
        let has_id = |source: &Source| manifest.is_some_and(|manifest| manifest.shmid_of(source.key).is_some());
        namespace.sources.iter().all(has_id) && self.is_kept(namespace, listing)
    }

    /// Whether every segment of a namespace is in memory, is the one that is meant, and is attached
    /// by nobody, with a base that a start would trust. A server that has run has made base anew.
    fn holds_all(&self, namespace: &NamespaceRestore, is_it: impl Fn(&Source, &Segment) -> bool) -> bool {
        namespace.sources.iter().all(|source| {
            self.inventory.segments.get(&source.key).is_some_and(|segment| {
                let is_clean = match &segment.header {
                    Header::Base(base) => base.shutdown == SHUTDOWN_CLEAN,
                    _ => true,
                };
                is_clean && segment.stat.attached_count == 0 && is_it(source, segment)
            })
        })
    }

    /// A segment in memory that shows that a server has run since a namespace was backed up: of any
    /// namespace of the instance, for one server makes them all. What restores have made here shows
    /// nothing, nor what was there already when the backup was made.
    pub(super) fn made_since(&self, namespace: &NamespaceRestore, listing: &Listing) -> Option<&Segment> {
        let host = &self.evidence.host;
        let manifests = listing.manifests_of(self.evidence.instance);
        let is_same_place = |manifest: &&&format::Manifest| staleness::is_same_place(manifest, host);
        // What another asmt is at work on is no server's.
        if self.plan.refusals.iter().any(|problem| problem.code == Code::AnotherAsmt) {
            return None;
        }
        let own = manifests.iter().find(|manifest| manifest.namespace == namespace.name).filter(is_same_place);
        let made_ms = own.map(|manifest| manifest.created_ms);
        let was_there = |segment: &&Segment, name: Option<&NamespaceName>| {
            let of_name = |manifest: &&&format::Manifest| Some(&manifest.namespace) == name && !manifest.noted.shmids.is_empty();
            // Where its ids were noted, they tell; times are those of clocks, to the second.
            if let Some(manifest) = manifests.iter().filter(is_same_place).find(of_name) {
                return manifest.shmid_of(segment.key()) == Some(segment.stat.shmid);
            }
            if let Some(beside) = own.and_then(|manifest| manifest.noted.beside.as_ref()) {
                return beside.binary_search(&segment.stat.shmid).is_ok();
            }
            made_ms.zip(segment.stat.changed_ms()).is_some_and(|(made_ms, at_ms)| at_ms <= made_ms)
        };
        // Of a restore under another runtime directory, its mark is all that is known.
        let is_restored = |segment: &&Segment, name: Option<&NamespaceName>| {
            self.restored.shmids.contains(&segment.stat.shmid) || name.is_some_and(|name| self.was_made_elsewhere(name, listing))
        };
        let of_instance = self.inventory.groups().into_iter().filter(|group| group.instance == self.evidence.instance);
        of_instance
            .flat_map(|group| {
                // Without its base, an index is known by its nsid; what is not filled yet, by its
                // keys.
                let is_its = |manifest: &&&format::Manifest| {
                    let has_nsid = group.nsid.is_some() && manifest.nsid == group.nsid;
                    has_nsid || group.keys.iter().all(|key| manifest.segments.iter().any(|segment| segment.key == *key))
                };
                let by_manifest = || manifests.iter().find(is_its).map(|manifest| manifest.namespace.clone());
                let name = group.name.clone().or_else(by_manifest);
                group.keys.into_iter().map(move |key| (key, name.clone()))
            })
            .filter_map(|(key, name)| Some((self.inventory.segments.get(&key)?, name)))
            .find(|(segment, name)| !was_there(segment, name.as_ref()) && !is_restored(segment, name.as_ref()))
            .map(|(segment, _)| segment)
    }

    /// A use of the backup of a namespace by the server, as far as it shows now: in memory, or on a
    /// storage device or file.
    pub(super) fn seen_served(&self, namespace: &NamespaceRestore, listing: &Listing) -> crate::error::Result<Option<UseRecord>> {
        let has_run = self.verdict.has_run;
        let made_since = self.made_since(namespace, listing);
        let has_served = has_run || made_since.is_some() || self.stripes_differ(namespace, listing);
        let served_ms = made_since.filter(|_| !has_run).and_then(|segment| segment.stat.changed_ms());
        Ok(if has_served { Some(UseRecord { has_served, served_ms, ..use_of(&self.evidence.host)? }) } else { None })
    }

    /// The same, where it is certain that what shows it is not what was backed up: without a
    /// manifest, only what came into memory later than the files.
    pub(super) fn seen_served_since(
        &self,
        namespace: &NamespaceRestore,
        listing: &Listing,
    ) -> crate::error::Result<Option<UseRecord>> {
        let made_ms = staleness::identity_of(namespace, listing).made_ms;
        let is_later = |segment: &Segment| {
            let is_of_instance = segment.address.instance == namespace.instance;
            let is_restored = self.restored.shmids.contains(&segment.stat.shmid);
            is_of_instance && !is_restored && segment.stat.changed_ms().is_none_or(|at_ms| at_ms > made_ms)
        };
        let is_certain = self.verdict.has_run || self.stripes_differ(namespace, listing);
        let counts = namespace.created_ms.is_some() || is_certain || self.inventory.segments.values().any(is_later);
        if counts { self.seen_served(namespace, listing) } else { Ok(None) }
    }

    /// The same, but for segments of namespaces that have no backup in the directory: another asmt
    /// may have restored these from elsewhere, and what is noted is never taken back.
    pub(super) fn seen_served_here(
        &self,
        namespace: &NamespaceRestore,
        listing: &Listing,
    ) -> crate::error::Result<Option<UseRecord>> {
        let names = plan::names_in_backup(listing).remove(&self.evidence.instance).unwrap_or_default();
        let groups = self.inventory.groups();
        let is_here = |segment: &Segment| {
            let group = groups.iter().find(|group| group.keys.contains(&segment.key()));
            group.is_none_or(|group| group.name.as_ref().is_none_or(|name| names.contains(name)))
        };
        let is_certain = self.verdict.has_run || self.stripes_differ(namespace, listing);
        let counts = is_certain || self.made_since(namespace, listing).is_some_and(is_here);
        if counts { self.seen_served(namespace, listing) } else { Ok(None) }
    }

    /// Whether a restore of a namespace that was begun in this boot and IPC namespace went on to
    /// make segments, and this runtime directory does not know which.
    fn was_made_elsewhere(&self, name: &NamespaceName, listing: &Listing) -> bool {
        let (host, own_name) = (&self.evidence.host, mark::used_name(self.evidence.instance, name));
        let marks = listing.marks.iter().filter(|(name, _)| *name == own_name).filter_map(|(_, mark)| mark.as_ref().ok());
        let mut uses = marks.flat_map(|mark| &mark.restores);
        uses.any(|used| {
            let is_known = self.restored.runs.iter().any(|run| used.id().starts_with(&format!("{run}-")));
            used.has_made && used.is_in(&host.boot_id, &host.ipc_namespace) && !is_known
        })
    }

    /// Adds to the verdict what is in memory: a server's segments refuse a restore beside them, and
    /// where they are in its way they are not named for removal.
    pub(super) fn judge_memory(&mut self, listing: &Listing, overrides: Overrides) {
        if self.verdict.is_proven {
            return;
        }
        for namespace in &self.plan.namespaces.clone() {
            let made_since = self.made_since(namespace, listing).cloned();
            let has_run = |problem: &Problem| {
                matches!(problem.code, Code::BackupStale | Code::MadeSince) && problem.namespace.as_ref() == Some(&namespace.name)
            };
            let has_run = self.verdict.refusals.iter().any(has_run);
            if made_since.is_none() && !self.stripes_differ(namespace, listing) && !has_run {
                continue;
            }
            let hint = plan::served_hint(&self.inventory, namespace);
            let mut is_in_the_way = false;
            for refusal in &mut self.plan.refusals {
                let is_its = refusal.namespace.as_ref() == Some(&namespace.name);
                is_in_the_way |= refusal.code == Code::SegmentAttached && is_its;
                if refusal.code == Code::SegmentsExist && is_its {
                    is_in_the_way = true;
                    refusal.hint.clone_from(&hint);
                }
            }
            if let Some(segment) = made_since.filter(|_| !is_in_the_way) {
                let problem = staleness::made_since_problem(&namespace.name, &segment);
                if overrides.stale {
                    let text = format!("OVERRIDDEN BY --force-stale: {}", problem.message);
                    self.verdict.remarks.push(Remark::new(NoteCode::Overridden, text));
                } else {
                    self.verdict.refusals.push(problem);
                }
            }
        }
    }

    /// Whether stripes of a namespace are in memory, and of another set than those of the backup.
    pub(super) fn stripes_differ(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let keys: BTreeSet<_> = namespace.sources.iter().map(|source| source.key).collect();
        // One that is not filled yet has no header: a killed restore has made it, or another one is
        // at work.
        let random_of = |header: &Header| match header {
            Header::Stripe(stripe) if stripe.magic == STRIPE_MAGIC => Some(stripe.random),
            _ => None,
        };
        listing.files.iter().filter(|file| keys.contains(&file.key)).any(|file| {
            let in_memory = self.inventory.segments.get(&file.key).and_then(|segment| random_of(&segment.header));
            in_memory.zip(random_of(&file.header)).is_some_and(|(now, backed_up)| now != backed_up)
        })
    }
}

/// Whether segments of what is to be restored are in memory.
pub fn finds_segments(plan: &Plan<NamespaceRestore>) -> bool {
    let is_of_segments = |code| matches!(code, Code::SegmentsExist | Code::SegmentAttached | Code::AnotherAsmt);
    plan.refusals.iter().any(|problem| is_of_segments(problem.code))
}
