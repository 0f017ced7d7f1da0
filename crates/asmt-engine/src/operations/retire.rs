//! `retire`: marks a backup as used; nothing of it is changed or removed.

use crate::error::{self, NoteCode, Remark};
use crate::look;
use crate::operations::report::Report;
use crate::operations::{Failure, Operation, checked, targets, use_of};
use crate::plan::{self, staleness};
use crate::store::{Lock, Store};

impl<'r> Operation<'r> {
    /// Marks a backup as used, whatever its state: nothing of it is changed or removed.
    pub(super) fn retire(&self) -> std::result::Result<Report, Failure> {
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let mut plan = plan::verify(&listing, &self.plan_request());
        // What is damaged may be retired, too, as long as it is known what it is of.
        if !plan.namespaces.is_empty() {
            plan.refusals.retain(|problem| problem.kind != error::Kind::Damaged);
        }
        plan.remarks.clear();
        for manifest in listing.manifests_of(self.request.instance.unwrap_or(0)) {
            let is_asked = plan.namespaces.iter().any(|namespace| namespace.name == manifest.namespace);
            if is_asked && !staleness::is_of_host(manifest, &self.host) {
                let text = format!(
                    "{}: the backup was made on host '{}'",
                    plan::title(&manifest.namespace, manifest.instance),
                    manifest.host
                );
                plan.remarks.push(Remark::new(NoteCode::OtherHost, text));
            }
        }
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        let now = use_of(&look::server::host()?)?;
        store.with_marks_locked(|| {
            let marks = store.marks()?;
            self.control.begin_changes()?;
            targets(&plan, &listing).iter().try_for_each(|target| target.retire(&store, &marks, &now))
        })?;
        Ok(report)
    }
}
