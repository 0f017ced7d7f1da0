//! `list`: what is in shared memory.

use crate::look::segments;
use crate::operations::report::Report;
use crate::operations::{Failure, Operation};
use crate::plan;

impl<'r> Operation<'r> {
    pub(super) fn list(&self) -> std::result::Result<Report, Failure> {
        let inventory = segments::take()?;
        let mut report = self.new_report().with_inventory(&inventory, self.request.instance, self.names.as_deref());
        report.remarks = plan::list_remarks(&inventory);
        Ok(report)
    }
}
