//! `verify`: reads a backup whole, and says whether a restore of it would be accepted.

use crate::error::{self, Code, Error, NoteCode, Problem};
use crate::facts::directory::Listing;
use crate::format;
use crate::operations::report::{Report, Restorability};
use crate::operations::{Failure, Operation, checked};
use crate::work::read_all::{self, Purpose};
use asmt_shm::NamespaceName;

use crate::plan::staleness::Verdict;
use crate::plan::{self, NamespaceRestore, Plan, Source};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use std::collections::BTreeSet;
impl<'r> Operation<'r> {
    pub(super) fn verify(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let listing = store.list()?;
        let mut plan = self.verify_plan(&listing);
        let instances: BTreeSet<u8> = plan.namespaces.iter().map(|namespace| namespace.instance).collect();
        let mut verdicts = Vec::new();
        for instance in instances {
            let of_instance: Vec<NamespaceRestore> =
                plan.namespaces.iter().filter(|namespace| namespace.instance == instance).cloned().collect();
            let verdict = match self.verdict(&of_instance, instance, Some(&store), &listing) {
                Ok((verdict, _)) => verdict,
                // It keeps a restore from being made, and not the backup from being read; but a
                // path that was typed is meant.
                Err(error) if error.first().code == Code::ConfigUnreadable && self.request.config.is_none() => {
                    Verdict { refusals: error.problems().to_vec(), ..Verdict::default() }
                }
                Err(error) => return Err(error.into()),
            };
            plan.remarks.extend(verdict.remarks.iter().filter(|remark| remark.code != NoteCode::NotProven).cloned());
            verdicts.push((instance, verdict));
        }
        let mut report = self.new_report().with_restore_plan(&plan.namespaces);
        let of_backup = plan.refusals.clone();
        report.restorability = Restorability::of(&verdicts, &of_backup);
        if self.request.restorable {
            plan.refusals.extend(verdicts.iter().flat_map(|(_, verdict)| verdict.refusals.iter().cloned()));
        }
        if self.request.analyze {
            return checked(&plan, report);
        }
        // What the plan found wrong does not keep the rest from being read: all of it is listed.
        let is_fatal = |problem: &Problem| match problem.kind {
            error::Kind::Damaged | error::Kind::Stale | error::Kind::Failed => false,
            _ => !problem.code.is_about_restoring(),
        };
        if plan.refusals.iter().any(is_fatal) {
            return checked(&plan, report);
        }
        self.control.remark(&plan.remarks);
        // Files that the plan refuses are not among these.
        let sources: Vec<Source> = plan.namespaces.iter().flat_map(|namespace| &namespace.sources).cloned().collect();
        self.control.begin(Phase::Verify, sources.iter().map(|source| source.size_bytes).sum());
        let purpose = if self.request.check { Purpose::VerifyFromDisk } else { Purpose::Verify };
        let mut findings = read_all::read_all(&store, &sources, &purpose, self.options.threads, self.control)?;
        for damage in &mut findings.damages {
            damage.name_namespace(|file| plan::owner_among(&plan.namespaces, file));
        }
        let mut report = report.with_sums(findings.sums.iter().map(|(key, crc32)| (*key, None, *crc32)));
        report.remarks.clone_from(&plan.remarks);
        report.data_bytes = Some(findings.data_bytes);
        let with_damages =
            |refusals: Vec<Problem>| refusals.into_iter().chain(findings.damages.iter().cloned()).collect::<Vec<_>>();
        report.restorability = Restorability::of(&verdicts, &with_damages(of_backup));
        let problems = with_damages(plan.refusals);
        match Error::from_problems(problems) {
            Some(error) => Err(Failure { error, report: Some(Box::new(report)) }),
            None => Ok(report),
        }
    }

    /// What there is to verify: of the instance asked for, or of every one in the directory.
    pub(super) fn verify_plan(&self, listing: &Listing) -> Plan<NamespaceRestore> {
        let request = self.plan_request();
        if self.request.instance.is_some() {
            return plan::verify(listing, &request);
        }
        let of_files = listing.files.iter().map(|file| file.address.instance);
        let of_manifests = listing.manifests.iter().filter_map(|record| format::instance_of_manifest_name(&record.name));
        let instances: BTreeSet<u8> = of_files.chain(of_manifests).collect();
        let has_name = |instance: u8, name: &NamespaceName| {
            plan::verify(listing, &plan::Request { instance, namespaces: Some(vec![name.clone()]), ..request.clone() }).is_found()
        };
        // A name that another instance has is not missing; one that none has is, and the first of
        // them says so.
        let is_nowhere = |name: &NamespaceName| !instances.iter().any(|instance| has_name(*instance, name));
        let mut all: Option<Plan<NamespaceRestore>> = None;
        for &instance in &instances {
            let of_instance = |name: &&NamespaceName| has_name(instance, name) || all.is_none() && is_nowhere(name);
            let is_there = request.namespaces.as_ref().is_none_or(|names| names.iter().any(|name| has_name(instance, name)));
            let namespaces =
                request.namespaces.as_ref().map(|names| names.iter().filter(of_instance).cloned().collect::<Vec<_>>());
            if !is_there {
                continue;
            }
            let plan = plan::verify(listing, &plan::Request { instance, namespaces, ..request.clone() });
            match &mut all {
                Some(all) => all.extend(plan),
                None => all = Some(plan),
            }
        }
        all.unwrap_or_else(|| plan::verify(listing, &request))
    }
}
