//! `restore`: from files to shared memory.

use crate::error::{Code, Error, NoteCode, Remark, Result};
use crate::facts::directory::Listing;
use crate::facts::memory::Inventory;
use crate::facts::server::Evidence;
use crate::format::mark::UseRecord;
use crate::hints::STARTED_MEANWHILE;
use crate::look::{self, segments};
use crate::operations::judged::{Judged, finds_segments};
use crate::operations::report::{Report, Verb};
use crate::operations::{Failure, Operation, check_unchanged, checked, targets, use_of};
use crate::work::read_all;

use crate::plan::{self, NamespaceRestore, Plan, staleness};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use crate::work::instance::{self, InstanceLock};
use crate::work::job::Options;
use crate::work::marking::MarkTarget;
use crate::work::{commit, copy_in};
use std::collections::HashSet;

/// Fails if the server has written to something since the first look: it has been started.
pub fn check_silent(before: &Evidence, now: &Evidence) -> Result<()> {
    for trace in &before.traces {
        if now.unseen.contains(&trace.path) {
            return Err(Error::io("stat or open", &trace.path, std::io::Error::from_raw_os_error(libc::EACCES)));
        }
        let is_same = now.traces.iter().any(|other| other == trace);
        let is_there = now.traces.iter().any(|other| other.path == trace.path);
        if is_there && !is_same {
            return Err(Error::new(
                Code::BackupStale,
                format!("{} was written to while the node was restored", trace.path),
                STARTED_MEANWHILE,
            ));
        }
    }
    Ok(())
}

impl<'r> Operation<'r> {
    pub(super) fn is_restore_possible(&self, request: &plan::Request) -> Result<bool> {
        let store = Store::open(&self.directory()?)?;
        let listing = store.list()?;
        self.judge_restore(&store, &listing, request).map(|judged| judged.combined().check().is_ok())
    }

    pub(super) fn restore(&self) -> std::result::Result<Report, Failure> {
        let outcome = self.restore_all();
        outcome.map_err(|failure| self.with_possible(failure, |request| self.is_restore_possible(request)))
    }

    pub(super) fn restore_all(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let request = self.plan_request();
        let mut listing = store.list()?;
        let runtime = InstanceLock::lock(request.instance)?;
        if self.request.analyze {
            let leftovers = runtime.leftovers()?;
            let mut judged = self.judge_restore_without(&leftovers, &store, &listing, &request)?;
            if !leftovers.is_empty() {
                let text = format!("a killed restore left {} segments, which this restore would remove first", leftovers.len());
                judged.plan.remarks.push(Remark::new(NoteCode::Recovered, text));
            }
            self.check_needed(&judged, &listing)?;
            let plan = judged.combined();
            return checked(&plan, self.new_report().with_restore_plan(&plan.namespaces));
        }
        runtime.recover(self.control)?;
        let mut judged = match self.judge_restore(&store, &listing, &request) {
            Err(error) if error.first().code == Code::ConfigUnreadable => {
                return Err(self.mark_unjudged(&store, &listing, &request, error).into());
            }
            other => other?,
        };
        self.check_needed(&judged, &listing)?;
        self.mark_beginning(&store, &mut listing, &mut judged)?;
        let plan = judged.combined();
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        self.control.remark(&plan.remarks);
        self.control.begin_changes()?;
        self.expect_passes(None, report.total_bytes);
        let mut journal = runtime.begin_restore(&plan.namespaces)?;
        let threads = plan::threads_within(&judged.inventory, &plan.namespaces, self.options.threads);
        let options = Options { threads, ..self.options };
        let filled = copy_in::fill(&store, &plan.namespaces, &mut journal, options, self.control);
        let filled = filled.map_err(|error| Failure {
            error: error.of_namespaces(|file| plan::owner_among(&plan.namespaces, file)),
            report: Some(Box::new(report.clone())),
        })?;
        let mut report = report.with_sums(filled.sums().map(|(key, shmid, crc32)| (key, Some(shmid), crc32)));
        report.data_bytes = Some(filled.data_bytes);
        let manifests = listing.manifests_of(request.instance);
        // Once more, right before anything is trusted: filling takes its time.
        let now = self.evidence(request.instance, &manifests, None).and_then(|now| {
            check_unchanged(&judged.evidence, &now, Verb::Restore)?;
            if judged.verdict.is_proven { Ok(()) } else { check_silent(&judged.evidence, &now) }
        });
        match now {
            Ok(()) => commit::trust(filled, self.control)?,
            Err(error) => return Err(filled.clean_up_after(error).into()),
        }
        Ok(report)
    }

    /// Fails where there is nothing to restore.
    pub(super) fn check_needed(&self, judged: &Judged, listing: &Listing) -> std::result::Result<(), Failure> {
        let Some(error) = judged.already_in_memory(listing) else { return Ok(()) };
        let report = self.new_report().with_restore_plan(&judged.plan.namespaces);
        Err(Failure { error, report: Some(Box::new(report)) })
    }

    pub(super) fn judge_restore(&self, store: &Store, listing: &Listing, request: &plan::Request) -> Result<Judged> {
        self.judge_restore_without(&HashSet::new(), store, listing, request)
    }

    /// Judges whether the server has run since a backup was made, whether or not it could be
    /// restored.
    pub(super) fn judge_reading(&self, store: &Store, listing: &Listing, request: &plan::Request) -> Result<Judged> {
        let mut inventory = segments::take()?;
        let plan = plan::restore(listing, &inventory, request);
        plan::leave_out_strangers(&mut inventory, &plan.namespaces, &request.caller);
        let (verdict, evidence) = self.verdict(&plan.namespaces, request.instance, Some(store), listing)?;
        let restored = instance::restored_segments(request.instance)?;
        Ok(Judged { plan, inventory, evidence, verdict, restored })
    }

    /// Judges a restore as if the segments with some ids were not there.
    pub(super) fn judge_restore_without(
        &self,
        leftovers: &HashSet<i32>,
        store: &Store,
        listing: &Listing,
        request: &plan::Request,
    ) -> Result<Judged> {
        let mut inventory = segments::take()?;
        inventory.leave_out(leftovers, request.page_bytes);
        inventory.keeper = Some(look::keeper::keeper()?);
        let mut plan = plan::restore(listing, &inventory, request);
        plan::leave_out_strangers(&mut inventory, &plan.namespaces, &request.caller);
        let (verdict, evidence) = self.verdict(&plan.namespaces, request.instance, Some(store), listing)?;
        if request.namespaces.is_none() {
            let names = plan::names_in_backup(listing);
            plan.remarks.extend(plan::left_out::remarks(&names, request.instance, &evidence.configuration, "in the directory"));
        }
        if verdict.refusals.is_empty() {
            self.count_what_fills(store, &inventory, &mut plan)?;
        }
        let restored = instance::restored_segments(request.instance)?;
        let mut judged = Judged { plan, inventory, evidence, verdict, restored };
        judged.judge_memory(listing, self.overrides());
        Ok(judged)
    }

    /// Reads files where nothing less tells whether there is memory for what they fill.
    pub(super) fn count_what_fills(&self, store: &Store, inventory: &Inventory, plan: &mut Plan<NamespaceRestore>) -> Result<()> {
        let Some(room) = plan::undecided_room(inventory, plan) else { return Ok(()) };
        let message = format!(
            "memory may not suffice for all {} bytes of {} files: they are read to find out how much of that is data",
            room.sources.iter().map(|source| source.size_bytes).sum::<u64>(),
            room.sources.len()
        );
        self.control.note(NoteCode::Counting, message);
        if self.request.verb == Verb::Restore && !self.request.analyze {
            let sources = plan.namespaces.iter().flat_map(|namespace| &namespace.sources);
            self.expect_passes(Some(Phase::Count), sources.map(|source| source.size_bytes).sum());
        }
        let threads = plan::threads_within(inventory, &plan.namespaces, self.options.threads);
        let counted = read_all::count_data(store, &room.sources, room.most_bytes, threads, self.control)?;
        plan::decide_room(inventory, plan, &counted);
        self.control.begin(Phase::Plan, 0);
        Ok(())
    }

    /// Notes in the directory that a restore was begun whose configuration cannot be understood:
    /// the server may be started with another one. Gives the error of the configuration, with what
    /// more went wrong.
    pub(super) fn mark_unjudged(&self, store: &Store, listing: &Listing, request: &plan::Request, error: Error) -> Error {
        let marked = look::server::host().and_then(|host| {
            let plan = plan::restore(listing, &segments::take()?, request);
            let manifests = listing.manifests_of(request.instance);
            let is_here = |namespace: &NamespaceRestore| {
                let manifest = manifests.iter().find(|manifest| manifest.namespace == namespace.name);
                manifest.is_some_and(|manifest| staleness::is_same_place(manifest, &host))
            };
            if finds_segments(&plan) && plan.namespaces.iter().all(is_here) {
                // Nothing has been lost yet: see [`Judged::is_kept`].
                return Ok(());
            }
            let now = use_of(&host)?;
            self.control.begin_changes()?;
            store.with_marks_locked(|| {
                let marks = store.marks()?;
                targets(&plan, listing).iter().try_for_each(|target| target.begin_restore(store, &marks, &now))
            })
        });
        match marked {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        }
    }

    /// Notes in the directory, before anything else is done, that the server may run from now on,
    /// whatever comes of this restore: it may be refused or killed, and the server started. Where a
    /// storage device tells, that is not needed.
    ///
    /// Marks are read again under their lock, and judged again: another restore may have noted
    /// itself meanwhile.
    pub(super) fn mark_beginning(&self, store: &Store, listing: &mut Listing, judged: &mut Judged) -> Result<()> {
        let targets = targets(&judged.plan, listing);
        // In an IPC namespace that ends with asmt no server starts.
        let is_private = judged.plan.refusals.iter().any(|problem| problem.code == Code::PrivateIpcNamespace);
        if targets.is_empty() || is_private {
            return Ok(());
        }
        store.with_marks_locked(|| self.mark_beginning_locked(store, listing, judged, &targets))
    }

    fn mark_beginning_locked(
        &self,
        store: &Store,
        listing: &mut Listing,
        judged: &mut Judged,
        targets: &[MarkTarget],
    ) -> Result<()> {
        listing.marks = store.marks()?;
        judged.verdict = staleness::judge_restore(&judged.plan.namespaces, listing, &judged.evidence, self.overrides());
        judged.judge_memory(listing, self.overrides());
        let is_refused = judged.combined().check().is_err();
        // What another host's server does is told by its own marks; nothing of it was used here.
        let is_foreign = judged.verdict.refusals.iter().any(|problem| problem.code == Code::BackupForeignHost);
        if is_refused && (is_foreign || !judged.verdict.must_mark && !judged.verdict.has_run) {
            return Ok(());
        }
        let now = use_of(&judged.evidence.host)?;
        self.control.begin_changes()?;
        for (target, namespace) in targets.iter().zip(judged.plan.namespaces.clone()) {
            if judged.is_kept(&namespace, listing) {
                continue;
            }
            let seen = judged.seen_served_here(&namespace, listing)?.unwrap_or_else(|| now.clone());
            let now = UseRecord { has_made: !is_refused, ..seen };
            let Err(error) = target.begin_restore(store, &listing.marks, &now) else { continue };
            if judged.verdict.must_mark && !is_refused && !self.request.force_stale {
                return Err(error);
            }
            let title = plan::title(&target.name, target.instance);
            let text = format!("{title}: this restore is not recorded in the directory: {}", error.first().message);
            judged.plan.remarks.push(Remark::new(NoteCode::NotMarked, text));
        }
        Ok(())
    }
}
