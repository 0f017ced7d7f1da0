//! `backup`: from shared memory to files.

use crate::error::{NoteCode, Result};
use crate::facts;
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Keeper};
use crate::facts::server::Evidence;
use crate::format::run_id::RunId;
use crate::look::{self, segments};
use crate::operations::report::{Report, Verb};
use crate::operations::{Failure, Operation, check_unchanged, checked, targets};
use crate::plan::{self, NamespaceBackup, Plan, staleness};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use crate::work::instance::InstanceLock;
use crate::work::job::Temporaries;
use crate::work::note::Origin;
use crate::work::{commit, copy_out};
use std::path::Path;
use std::time::Instant;

/// A backup as it was planned, with what it was planned from.
pub(super) struct Planned {
    pub(super) plan: Plan<NamespaceBackup>,
    pub(super) evidence: Evidence,
    pub(super) inventory: Inventory,
}

impl Operation<'_> {
    pub(super) fn backup(&self) -> std::result::Result<Report, Failure> {
        let outcome = self.backup_all();
        outcome.map_err(|failure| self.with_possible(failure, |request| self.is_backup_possible(request)))
    }

    pub(super) fn is_backup_possible(&self, request: &plan::Request) -> Result<bool> {
        let listing = self.listing_to_analyze()?;
        self.plan_backup_beside(None, &listing, request).map(|planned| planned.plan.check().is_ok())
    }

    pub(super) fn backup_all(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        if !self.request.analyze {
            let since = Instant::now();
            self.wait_for_server(&request)?;
            self.waited.set(since.elapsed());
            self.control.begin(Phase::Plan, 0);
        }
        // First, or another asmt's attachments would be taken for a server's.
        let _runtime = InstanceLock::lock(request.instance)?;
        if self.request.analyze {
            let listing = self.listing_to_analyze()?;
            let Planned { plan, .. } = self.plan_backup_beside(None, &listing, &request)?;
            let mut report = self.new_report().with_backup_plan(&plan.namespaces);
            report.reserve_bytes = Some(plan::data_bytes(&plan.namespaces));
            report.free_bytes = listing.target.and_then(|target| target.free_bytes);
            return checked(&plan, report);
        }
        let path = self.directory()?;
        self.complete_decided(&path)?;
        // Looked at before the directory is made: what must not be backed up, or not there, leaves
        // no trace.
        let mut look = Store::look(&path)?;
        if self.request.replace {
            // How much room there is shows when it is known what an older backup leaves.
            look.target.iter_mut().for_each(|target| target.free_bytes = None);
        }
        let Planned { plan: before, .. } = self.plan_backup(&look, &request)?;
        if let Err(failure) = checked(&before, self.new_report().with_backup_plan(&before.namespaces)) {
            self.mark_outlived_at(&path);
            return Err(failure);
        }
        let store = Store::open_or_create(&path, self.control)?;
        store.lock(Lock::Exclusive)?;
        let mut listing = Listing { target: Some(store.target()?), ..store.list()? };
        self.mark_outlived(&store, &mut listing)?;
        let mut planned = self.plan_backup_beside(Some(&store), &listing, &request)?;
        let plan = &mut planned.plan;
        let report = checked(plan, self.new_report().with_backup_plan(&plan.namespaces))?;
        plan::check_same(&before.namespaces, &plan.namespaces)?;
        self.control.remark(&plan.remarks);
        plan.namespaces.retain(|namespace| namespace.current_ms.is_none());
        if plan.namespaces.is_empty() && listing.leftovers.sweep.is_empty() {
            return Ok(report);
        }
        self.control.begin_changes()?;
        let takes_places = plan.namespaces.iter().any(|namespace| !namespace.superseded.is_empty());
        let old_journals = store.sweep(&listing.leftovers, takes_places)?;
        if !listing.leftovers.sweep.is_empty() {
            self.control
                .note(NoteCode::Swept, format!("removed {} files left by an interrupted backup", listing.leftovers.sweep.len()));
        }
        if planned.plan.namespaces.is_empty() {
            return Ok(report);
        }
        self.expect_passes(None, report.total_bytes);
        let run = crate::sys::process::own_run()?;
        self.remove_outdated(&store, &run, &planned.plan.namespaces)?;
        let origin = self.origin(&planned, &listing);
        let Planned { plan, evidence, .. } = planned;
        let since = Instant::now();
        let mut staged = copy_out::stage(Temporaries::new(&store, &run), &plan.namespaces, &origin, self.options, self.control)?;
        let copied_in = since.elapsed();
        let now = self.evidence_for_backup(&listing, request.instance)?;
        check_unchanged(&evidence, &now, Verb::Backup)?;
        // As late as can be: a server writes its last lines when its segments are complete already.
        staged.note_traces(&now.traces);
        staged.note_run(copied_in);
        let mut report = report.with_staged(&staged.namespaces);
        report.data_bytes = Some(staged.data_bytes);
        report.reserve_bytes = Some(staged.reserved_bytes);
        commit::publish(staged, &old_journals, self.control)?;
        Ok(report)
    }

    /// Removes the backups that are outdated, before anything is written.
    fn remove_outdated(&self, store: &Store, run: &RunId, namespaces: &[NamespaceBackup]) -> Result<()> {
        let outdated = namespaces.iter().filter(|namespace| !namespace.outdated.is_empty());
        let outdated: Vec<(String, Vec<String>)> =
            outdated.map(|namespace| (namespace.name.to_string(), namespace.outdated.clone())).collect();
        if outdated.is_empty() {
            return Ok(());
        }
        store.try_abilities(run, &[])?;
        commit::remove_outdated(&Temporaries::new(store, run), &outdated)?;
        let count: usize = outdated.iter().map(|(_, files)| files.len()).sum();
        self.control.note(NoteCode::OldFirst, format!("removed {count} files of outdated backups"));
        Ok(())
    }

    /// As [`Self::mark_outlived`], where the backup is refused already: what fails here changes
    /// nothing of that.
    fn mark_outlived_at(&self, path: &Path) {
        let Ok(store) = Store::open(path) else { return };
        let marked = store.list().and_then(|mut listing| self.mark_outlived(&store, &mut listing));
        if let Err(error) = marked.as_ref().map_err(|error| error.first()) {
            self.control.note(NoteCode::NotMarked, format!("older backups in the directory were not checked: {}", error.message));
        }
    }

    /// Marks backups of this server in the directory where memory or a storage file shows now that
    /// it has run since: after a reboot nothing may show that any more, and beside another backup
    /// they would pass for what belongs to it.
    fn mark_outlived(&self, store: &Store, listing: &mut Listing) -> Result<()> {
        let request = self.plan_request();
        let here = &self.host;
        let mut names = plan::names_in_backup(listing).remove(&request.instance).unwrap_or_default();
        // One of another container is left alone, unless a namespace of its name shows that this
        // one has taken its place.
        let in_memory = plan::names_in_memory(&segments::take()?).remove(&request.instance).unwrap_or_default();
        for manifest in listing.manifests_of(request.instance) {
            let is_replaced = staleness::is_of_host(manifest, here) && in_memory.contains(&manifest.namespace);
            if !staleness::may_be_of_server(manifest, here) && !is_replaced {
                names.remove(&manifest.namespace);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let all = plan::Request { namespaces: Some(names.into_iter().collect()), ..request };
        let judged = self.judge_reading(store, listing, &all)?;
        let targets = targets(&judged.plan, listing);
        let seen = judged.plan.namespaces.iter().map(|namespace| judged.seen_served_since(namespace, listing));
        let seen = seen.collect::<Result<Vec<_>>>()?;
        if seen.iter().all(Option::is_none) {
            return Ok(());
        }
        self.control.begin_changes()?;
        store.with_marks_locked(|| {
            listing.marks = store.marks()?;
            for (target, used) in targets.iter().zip(seen).filter_map(|(target, used)| Some((target, used?))) {
                if target.is_known_to_have_served(&listing.marks) {
                    continue;
                }
                target.begin_restore(store, &listing.marks, &used)?;
                let text = format!(
                    "{}: the server has run since its backup in this directory was made; that backup was marked as used",
                    plan::title(&target.name, target.instance)
                );
                self.control.note(NoteCode::Outlived, text);
            }
            listing.marks = store.marks()?;
            Ok(())
        })
    }

    /// What a backup would find in its directory; nothing where none is named.
    pub(super) fn listing_to_analyze(&self) -> Result<Listing> {
        let Some(path) = &self.request.directory else { return Ok(Listing::default()) };
        // A backup would make it.
        let Some(store) = Store::open_if_there(path)? else { return Store::look(path) };
        store.lock(Lock::Shared)?;
        Ok(Listing { target: Some(store.target()?), ..store.list()? })
    }

    /// Plans a backup beside what is in the directory. Without `store`, nothing is read of that but
    /// what the listing has.
    fn plan_backup_beside(&self, store: Option<&Store>, listing: &Listing, request: &plan::Request) -> Result<Planned> {
        self.plan_backup(listing, &self.request_beside(store, listing, request)?)
    }

    /// The request, with what is to become of older backups. Without `store`, nothing is read of
    /// them but what the listing has.
    pub(super) fn request_beside(
        &self,
        store: Option<&Store>,
        listing: &Listing,
        request: &plan::Request,
    ) -> Result<plan::Request> {
        if request.replace.is_none() || self.request.directory.is_none() {
            return Ok(request.clone());
        }
        let fates = match store {
            Some(store) => self.fates(store, listing, request, self.request.check)?,
            None => match Store::open_if_there(&self.directory()?)? {
                Some(store) => self.fates(&store, listing, request, false)?,
                None => plan::Fates::new(),
            },
        };
        Ok(plan::Request { replace: Some(fates), ..request.clone() })
    }

    pub(super) fn plan_backup(&self, listing: &Listing, request: &plan::Request) -> Result<Planned> {
        let mut inventory = segments::take()?;
        if inventory.segments.is_empty() {
            inventory.keeper = Some(look::keeper::keeper()?);
        }
        let evidence = self.evidence_for_backup(listing, request.instance)?;
        Ok(self.plan_backup_of(inventory, evidence, listing, request))
    }

    /// Plans the backup of an inventory, whether or not it is that of this moment.
    pub(super) fn plan_backup_of(
        &self,
        inventory: Inventory,
        evidence: Evidence,
        listing: &Listing,
        request: &plan::Request,
    ) -> Planned {
        let mut plan = plan::backup(&inventory, listing, request);
        staleness::judge_backup(&mut plan, &evidence, self.overrides());
        if inventory.keeper != Some(Keeper::Nobody) {
            plan::left_out::explain_nothing(&mut plan.refusals, request.namespaces.as_deref(), &evidence.configuration);
        }
        if request.namespaces.is_none() {
            let names = plan::names_in_memory(&inventory);
            let mut remarks = plan::left_out::remarks(&names, request.instance, &evidence.configuration, "in shared memory");
            // What may not be read may be what is configured.
            let is_denied = inventory.segments.values().any(|segment| segment.is_denied);
            remarks.retain(|remark| !is_denied || remark.code != NoteCode::NamespaceLeftOut);
            plan.remarks.extend(remarks);
        }
        Planned { plan, evidence, inventory }
    }

    /// What a backup can note. Devices that earlier backups of this server in the directory have
    /// noted count, too: this one may be made without the configuration that names them.
    pub(super) fn evidence_for_backup(&self, listing: &Listing, instance: u8) -> Result<Evidence> {
        let mut earlier = listing.manifests_of(instance);
        earlier.retain(|manifest| staleness::is_of_host(manifest, &self.host));
        // What is in memory is lost with the reboot, unless that is not to come before the restore.
        self.evidence_of(instance, &earlier, None, !self.request.allow_volatile)
    }

    fn origin(&self, planned: &Planned, listing: &Listing) -> Origin {
        let Planned { plan, evidence, inventory } = planned;
        let of_instance = inventory.segments.values().filter(|segment| segment.address.instance == evidence.instance);
        let shmids = of_instance.map(|segment| segment.stat.shmid).collect();
        let names = plan.namespaces.iter().map(|namespace| &namespace.name);
        let devices = names.map(|name| (name.clone(), staleness::noted_devices(evidence, name))).collect();
        Origin {
            tool: self.tool.to_owned(),
            created_ms: evidence.host.now_ms,
            host: evidence.host.clone(),
            devices,
            configuration: match &evidence.configuration {
                facts::server::Configuration::Read { path, .. } => Some(path.clone()),
                facts::server::Configuration::NotThere(_) => None,
            },
            settings: plan::settings::configured(&evidence.configuration),
            binary: look::units::server_binary(),
            earlier_uses: staleness::uses_in(listing, evidence.instance),
            shmids,
        }
    }
}
