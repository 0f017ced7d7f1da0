//! `export`: from a backup of any form to one that ASMT restores.

use crate::error::{Code, Error, Problem, Result};
use crate::facts::directory::Listing;
use crate::facts::memory::Inventory;
use crate::facts::server::Evidence;
use crate::format::{Manifest, mark};
use crate::look::segments;
use crate::operations::judged::Judged;
use crate::operations::report::{Report, Verb};
use crate::operations::{Failure, Operation, check_unchanged, checked};
use crate::plan::{self, NamespaceRestore, Plan};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use crate::work::export::{self, Original};
use crate::work::job::Temporaries;
use crate::work::{commit, instance};
use std::path::Path;

impl Operation<'_> {
    pub(super) fn export(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        let from = Store::open_backup(&self.directory()?)?;
        from.lock(Lock::Shared)?;
        let listing = from.list()?;
        let path = self.request.output.clone().ok_or_else(|| Error::new(Code::Bug, "no second directory was given", ""))?;
        // Looked at before the directory is made: what is refused leaves no trace.
        let (plan, evidence) = self.export_plan(&listing, &Self::target_of(&path)?)?;
        let mut report = self.new_report().with_restore_plan(&plan.namespaces);
        report.output = Some(path.display().to_string());
        let report = checked(&plan, report)?;
        if self.request.analyze {
            return Ok(report);
        }
        let store = Store::open_or_create(&path, self.control)?;
        store.lock(Lock::Exclusive)?;
        let target = Listing { target: Some(store.target()?), ..store.list()? };
        let mut again = Plan { namespaces: plan.namespaces.clone(), refusals: Vec::new(), remarks: Vec::new() };
        plan::export::export(&target, &request, &mut again);
        again.check()?;
        self.control.remark(&plan.remarks);
        self.control.begin_changes()?;
        let originals = originals(&plan.namespaces, &listing, &target)?;
        let takes_places = originals.iter().any(|original| !original.superseded.is_empty());
        let old_journals = store.sweep(&target.leftovers, takes_places)?;
        let temporaries = Temporaries::new(&store, &crate::sys::process::own_run()?);
        let form = (&*originals, request.form);
        self.expect_passes(None, report.total_bytes);
        let staged = export::stage(&from, temporaries, form, self.options, self.control).map_err(|error| Failure {
            error: error.of_namespaces(|file| plan::owner_among(&plan.namespaces, file)),
            report: Some(Box::new(report.clone())),
        })?;
        let mut report = report.with_staged(&staged.namespaces);
        report.data_bytes = Some(staged.data_bytes);
        // Writing takes its time. Marks come before the files: what was used must not look unused
        // for a moment.
        let now = self.evidence(request.instance, &listing.manifests_of(request.instance), None);
        let checked = now.and_then(|now| check_unchanged(&evidence, &now, Verb::Export));
        // No restore begins from the one directory while the other one becomes a backup.
        let marks_lock = checked.and_then(|()| if from.is_writable()? { from.lock_marks().map(Some) } else { Ok(None) });
        let marks_lock = marks_lock.map_err(|error| staged.temporaries.clean_up_after(error))?;
        let published = match copy_marks(&from, request.instance, &store) {
            Err(error) => Err(staged.temporaries.clean_up_after(error)),
            Ok(marks) => commit::publish(staged, &old_journals, self.control).map_err(|error| {
                match store.remove_all(marks.iter().map(String::as_str)) {
                    Ok(()) => error,
                    Err(other) => error.and_while_cleaning_up(other),
                }
            }),
        };
        match marks_lock {
            Some(lock) => lock.release_after(published)?,
            None => published?,
        }
        Ok(report)
    }

    /// What is at the path that is written to.
    fn target_of(path: &Path) -> Result<Listing> {
        match Store::open_if_there(path)? {
            Some(store) => Ok(Listing { target: Some(store.target()?), ..store.list()? }),
            None => Store::look(path),
        }
    }

    /// The plan of reading the backup, with why it must not be written there. A backup that a
    /// restore would refuse as outdated is not exported: ASMT would restore it without a question.
    fn export_plan(&self, listing: &Listing, target: &Listing) -> Result<(Plan<NamespaceRestore>, Evidence)> {
        let request = self.plan_request();
        let plan = plan::verify(listing, &request);
        let mut inventory = segments::take()?;
        plan::leave_out_strangers(&mut inventory, &plan.namespaces, &request.caller);
        // Nothing is marked in the directory that is read: it need not be writable.
        let (verdict, evidence) = self.verdict(&plan.namespaces, request.instance, None, listing)?;
        let restored = instance::restored_segments(request.instance)?;
        let mut judged = Judged { plan, inventory, evidence, verdict, restored };
        judged.judge_memory(listing, self.overrides());
        let mut plan = judged.combined();
        let is_used = |namespace: &&NamespaceRestore| {
            let is_there = namespace.sources.iter().any(|source| judged.inventory.segments.contains_key(&source.key));
            is_there && !judged.is_kept(namespace, listing) && !judged.is_restored(namespace, listing)
        };
        if plan.refusals.is_empty() && !judged.verdict.is_proven && !self.request.force_stale {
            plan.refusals.extend(
                judged.plan.namespaces.iter().filter(is_used).map(|namespace| used_in_memory(&judged.inventory, namespace)),
            );
        }
        plan::export::export(target, &request, &mut plan);
        let unreadable = listing.marks.iter().filter(|(name, _)| mark::is_used_name_of(request.instance, name));
        let unreadable = unreadable.filter_map(|(name, mark)| Some(unreadable_mark(name, mark.as_ref().err()?)));
        plan.refusals.extend(unreadable);
        Ok((plan, judged.evidence))
    }
}

/// Copies the marks of an instance as they are now: each tells of a use of its server, whatever
/// namespaces are exported. Returns their names; on an error none of them is left.
fn copy_marks(from: &Store, instance: u8, store: &Store) -> Result<Vec<String>> {
    let marks = from.marks()?;
    store.with_marks_locked(|| {
        let mut copied = Vec::new();
        for (name, mark) in marks.iter().filter(|(name, _)| mark::is_used_name_of(instance, name)) {
            let outcome = match mark {
                Ok(mark) => store.replace(name, &mark.to_text()),
                Err(why) => Err(unreadable_mark(name, why).into()),
            };
            copied.push(name.clone());
            if let Err(error) = outcome {
                return Err(match store.remove_all(copied.iter().map(String::as_str)) {
                    Ok(()) => error,
                    Err(other) => error.and_while_cleaning_up(other),
                });
            }
        }
        Ok(copied)
    })
}

/// Why a backup is not exported whose segments a server has in memory, or has changed there.
fn used_in_memory(inventory: &Inventory, namespace: &NamespaceRestore) -> Problem {
    let title = plan::title(&namespace.name, namespace.instance);
    let text = format!("{title}: its segments are in memory, and not as they were backed up or restored: a server has used them");
    Problem::new(Code::MadeSince, text, plan::served_hint(inventory, namespace))
}

/// Why a backup is not exported whose mark of use cannot be read: what is exported would look
/// unused.
fn unreadable_mark(name: &str, why: &str) -> Problem {
    Problem::new(
        Code::BackupUsed,
        format!("{name} cannot be read as a usage mark, and cannot be copied: {why}"),
        "restore this backup itself if you are sure that the server has not run since (--force-stale)",
    )
}

/// The namespaces of a plan, with their manifests.
fn originals<'l>(namespaces: &'l [NamespaceRestore], listing: &'l Listing, target: &Listing) -> Result<Vec<Original<'l>>> {
    let manifest_of = |plan: &'l NamespaceRestore| -> Result<Original<'l>> {
        let manifests: Vec<&'l Manifest> = listing.manifests_of(plan.instance);
        let manifest = manifests.into_iter().find(|manifest| manifest.namespace == plan.name);
        let manifest = manifest.ok_or_else(|| Error::new(Code::Bug, format!("no manifest of {}", plan.name), ""))?;
        Ok(Original { plan, manifest, superseded: plan::export::superseded(target, plan) })
    };
    namespaces.iter().map(manifest_of).collect()
}
