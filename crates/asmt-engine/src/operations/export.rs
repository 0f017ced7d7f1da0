//! `export`: from a backup of any form to one that ASMT restores.

use crate::error::{Code, Error, Problem, Result};
use crate::facts::directory::Listing;
use crate::format::{Manifest, mark};
use crate::operations::report::Report;
use crate::operations::{Failure, Operation, checked};
use crate::plan::{self, NamespaceRestore, Plan};
use crate::progress::Phase;
use crate::store::{Lock, Store};
use crate::work::commit;
use crate::work::export::{self, Original};
use crate::work::job::Temporaries;
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
        let plan = self.export_plan(&from, &listing, &Self::target_of(&path)?)?;
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
        let old_journals = store.sweep(&target.leftovers, false)?;
        let originals = originals(&plan.namespaces, &listing)?;
        let temporaries = Temporaries::new(&store, &crate::sys::process::own_run()?);
        let form = (&*originals, request.form);
        let staged = export::stage(&from, temporaries, form, self.options, self.control).map_err(|error| Failure {
            error: error.of_namespaces(|file| plan::owner_among(&plan.namespaces, file)),
            report: Some(Box::new(report.clone())),
        })?;
        let mut report = report.with_staged(&staged.namespaces);
        report.data_bytes = Some(staged.data_bytes);
        // Before the files: what was used must not look unused for a moment.
        if let Err(error) = self.copy_marks(&listing, &plan.namespaces, &store) {
            return Err(staged.temporaries.clean_up_after(error).into());
        }
        commit::publish(staged, &old_journals, self.control)?;
        Ok(report)
    }

    /// What is at the path that is written to.
    fn target_of(path: &Path) -> Result<Listing> {
        match Store::open(path) {
            Ok(store) => Ok(Listing { target: Some(store.target()?), ..store.list()? }),
            Err(error) if error.first().code == Code::DirectoryMissing => Store::look(path),
            Err(error) => Err(error),
        }
    }

    /// The plan of reading the backup, with why it must not be written there. A backup that a
    /// restore would refuse as outdated is not exported: ASMT would restore it without a question.
    fn export_plan(&self, from: &Store, listing: &Listing, target: &Listing) -> Result<Plan<NamespaceRestore>> {
        let request = self.plan_request();
        let mut plan = plan::verify(listing, &request);
        let (verdict, _) = self.verdict(&plan.namespaces, request.instance, from, listing)?;
        plan.refusals.extend(verdict.refusals);
        plan.remarks.extend(verdict.remarks);
        plan::export::export(target, &request, &mut plan);
        let unreadable = listing.marks.iter().filter(|(name, _)| mark::is_used_name_of(request.instance, name));
        let unreadable = unreadable.filter_map(|(name, mark)| Some(unreadable_mark(name, mark.as_ref().err()?)));
        plan.refusals.extend(unreadable);
        Ok(plan)
    }

    /// Copies the marks that tell of uses: the backup is the same one.
    fn copy_marks(&self, listing: &Listing, namespaces: &[NamespaceRestore], store: &Store) -> Result<()> {
        let _lock = store.lock_marks()?;
        for namespace in namespaces {
            let name = mark::used_name(namespace.instance, &namespace.name);
            match listing.marks.iter().find(|(found, _)| *found == name) {
                None => {}
                Some((_, Ok(mark))) => store.replace(&name, &mark.to_text())?,
                Some((_, Err(why))) => return Err(unreadable_mark(&name, why).into()),
            }
        }
        Ok(())
    }
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
fn originals<'l>(namespaces: &'l [NamespaceRestore], listing: &'l Listing) -> Result<Vec<Original<'l>>> {
    let manifest_of = |plan: &'l NamespaceRestore| -> Result<Original<'l>> {
        let manifests: Vec<&'l Manifest> = listing.manifests_of(plan.instance);
        let manifest = manifests.into_iter().find(|manifest| manifest.namespace == plan.name);
        let manifest = manifest.ok_or_else(|| Error::new(Code::Bug, format!("no manifest of {}", plan.name), ""))?;
        Ok(Original { plan, manifest })
    };
    namespaces.iter().map(manifest_of).collect()
}
