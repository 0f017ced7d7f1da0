//! `backup`: from shared memory to files.

use crate::error::{Code, Result};
use crate::facts;
use crate::facts::directory::Listing;
use crate::facts::server::Evidence;
use crate::look::{self, segments};
use crate::operations::report::{Report, Verb};
use crate::operations::{Failure, Operation, check_unchanged, checked};
use crate::plan::{self, NamespaceBackup, Plan, staleness};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use crate::work::commit;
use crate::work::copy_out::{self, Origin};
use crate::work::instance::Runtime;

impl<'r> Operation<'r> {
    pub(super) fn backup(&self) -> std::result::Result<Report, Failure> {
        let outcome = self.backup_all();
        outcome.map_err(|failure| self.with_possible(failure, |request| self.is_backup_possible(request)))
    }

    pub(super) fn is_backup_possible(&self, request: &plan::Request) -> Result<bool> {
        self.plan_backup(&self.listing_to_analyze()?, request).map(|(plan, _)| plan.check().is_ok())
    }

    pub(super) fn backup_all(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        // First, or another asmt's attachments would be taken for a server's.
        let _runtime = Runtime::lock(request.instance)?;
        if self.request.analyze {
            let listing = self.listing_to_analyze()?;
            let (plan, _) = self.plan_backup(&listing, &request)?;
            let mut report = self.new_report().with_backup_plan(&plan.namespaces);
            report.reserve_bytes = Some(plan::least_file_bytes(&plan.namespaces));
            report.free_bytes = listing.target.and_then(|target| target.free_bytes);
            return checked(&plan, report);
        }
        let path = self.directory()?;
        // Looked at before the directory is made: what must not be backed up, or not there, leaves no trace.
        let (before, _) = self.plan_backup(&Store::look(&path)?, &request)?;
        checked(&before, self.new_report().with_backup_plan(&before.namespaces))?;
        let store = Store::open_or_create(&path, self.control)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let (plan, evidence) = self.plan_backup(&listing, &request)?;
        let report = checked(&plan, self.new_report().with_backup_plan(&plan.namespaces))?;
        plan::check_same(&before.namespaces, &plan.namespaces)?;
        self.control.remark(&plan.remarks);
        self.control.begin_changes()?;
        let takes_places = plan.namespaces.iter().any(|namespace| !namespace.superseded.is_empty());
        let old_journals = store.sweep(&listing.leftovers, takes_places)?;
        if !listing.leftovers.sweep.is_empty() {
            self.control
                .note("swept", format!("removed {} files that an interrupted backup had left", listing.leftovers.sweep.len()));
        }
        let run = crate::sys::process::own_run()?;
        let origin = self.origin(&plan, &evidence, &listing);
        let mut staged = copy_out::stage(&store, &run, &plan.namespaces, &origin, self.options, self.control)?;
        let now = self.evidence_for_backup(&listing, request.instance)?;
        check_unchanged(&evidence, &now, Verb::Backup)?;
        // As late as can be: a server writes its last lines when its segments are complete already.
        staged.note_traces(&now.traces);
        let mut report = report.with_staged(&staged.namespaces);
        report.data_bytes = Some(staged.data_bytes);
        report.reserve_bytes = Some(staged.reserved_bytes);
        commit::publish(staged, &old_journals, self.control)?;
        Ok(report)
    }

    /// What a backup would find in its directory; nothing where none is named.
    pub(super) fn listing_to_analyze(&self) -> Result<Listing> {
        let Some(path) = &self.request.directory else { return Ok(Listing::default()) };
        match Store::open(path) {
            Ok(store) => {
                store.lock(Lock::Shared)?;
                Ok(Listing { target: Some(store.target()?), ..store.list()? })
            }
            // A backup would make it.
            Err(error) if error.first().code == Code::DirectoryMissing => Store::look(path),
            Err(error) => Err(error),
        }
    }

    pub(super) fn plan_backup(&self, listing: &Listing, request: &plan::Request) -> Result<(Plan<NamespaceBackup>, Evidence)> {
        let mut inventory = segments::take()?;
        if inventory.segments.is_empty() {
            inventory.outlives_caller = Some(look::keeper::outlives_caller()?);
        }
        let mut plan = plan::backup(&inventory, listing, request);
        let evidence = self.evidence_for_backup(listing, request.instance)?;
        staleness::judge_backup(&mut plan, &evidence, self.overrides());
        if inventory.outlives_caller != Some(false) {
            plan::left_out::explain_nothing(&mut plan.refusals, request.namespaces.as_deref(), &evidence.configuration);
        }
        if request.namespaces.is_none() {
            let names = plan::names_in_memory(&inventory);
            plan.remarks.extend(plan::left_out::remarks(&names, request.instance, &evidence.configuration, "in shared memory"));
        }
        Ok((plan, evidence))
    }

    /// What a backup can note. Devices that earlier backups of this server in the directory have noted count, too: this one
    /// may be made without the configuration that names them.
    pub(super) fn evidence_for_backup(&self, listing: &Listing, instance: u8) -> Result<Evidence> {
        let here = look::server::host()?;
        let mut earlier = staleness::manifests_of(listing, instance);
        earlier.retain(|manifest| manifest.host == here.name && manifest.noted.machine_id == here.machine_id);
        self.evidence(instance, &earlier, None)
    }

    pub(super) fn origin(&self, plan: &Plan<NamespaceBackup>, evidence: &Evidence, listing: &Listing) -> Origin {
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
            earlier_uses: staleness::uses_in(listing, evidence.instance),
        }
    }
}
