//! `retire`: marks a backup as used; nothing of it is changed or removed.

use crate::operations::report::Report;
use crate::operations::{Failure, Operation, checked, targets, use_of};
use crate::store::{Lock, Store};
use crate::{error, look, plan};

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
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        let now = use_of(&look::server::host()?)?;
        let _lock = store.lock_marks()?;
        let marks = store.marks()?;
        self.control.begin_changes()?;
        for target in targets(&plan, &listing) {
            target.retire(&store, &marks, &now)?;
        }
        Ok(report)
    }
}
