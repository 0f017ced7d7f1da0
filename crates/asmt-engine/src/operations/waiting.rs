//! `backup --wait`: waits until the server has gone.

use crate::error::{NoteCode, Remark, Result};
use crate::look::in_use::{InUse, Servers};
use crate::operations::Operation;
use crate::plan;
use crate::progress::Phase;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time between two looks at who has the segments attached.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The least time between two plans: a plan attaches segments to read their headers.
const PLAN_EVERY: Duration = Duration::from_secs(1);

impl Operation<'_> {
    /// Waits until the server has ended and nothing that goes with it is in the way of a backup, at
    /// most as long as was asked for. What is in the way then is for the plan to refuse.
    ///
    /// Errors: failed calls, and a stop.
    pub(super) fn wait_for_server(&self, request: &plan::Request) -> Result<()> {
        let Some(limit) = self.request.wait_ms.map(Duration::from_millis) else { return Ok(()) };
        let since = Instant::now();
        let mut servers = Servers::default();
        let mut is_waiting = false;
        loop {
            let before = InUse::now(request.instance)?;
            let listing = self.listing_to_analyze()?;
            let request = &self.request_beside(None, &listing, request)?;
            let planned = self.plan_backup(&listing, request)?;
            servers.add(&planned.inventory, request.instance)?;
            let mut refusals = planned.plan.refusals;
            refusals.extend(plan::backup(&plan::as_if_let_go(&planned.inventory), &listing, request).refusals);
            let Some(reason) = plan::reason_to_wait(&refusals, servers.running()?) else { return Ok(()) };
            if !is_waiting {
                is_waiting = true;
                self.control.begin(Phase::Wait, 0);
                self.control.remark(&[Remark::new(NoteCode::Waiting, format!("{}: {reason}", title(limit)))]);
            }
            let planned_at = Instant::now();
            while planned_at.elapsed() < PLAN_EVERY || is_as_before(&before, &servers, request.instance)? {
                self.control.check_stop()?;
                self.control.step();
                if since.elapsed() >= limit {
                    let text = format!("waited {} s for the server to stop", limit.as_secs_f64());
                    self.control.remark(&[Remark::new(NoteCode::Waiting, text)]);
                    return Ok(());
                }
                sleep(LOOK_EVERY.min(limit.saturating_sub(since.elapsed())));
            }
        }
    }
}

/// Whether there is the same reason to wait as at the last plan.
fn is_as_before(before: &InUse, servers: &Servers, instance: u8) -> Result<bool> {
    Ok(InUse::now(instance)? == *before && (before.is_attached() || servers.running()?.is_some()))
}

/// `waiting for the server to stop`, and for how long.
fn title(limit: Duration) -> String {
    /// A longer time is none that anybody has typed.
    const MOST: Duration = Duration::from_secs(100 * 365 * 86_400);
    if limit >= MOST {
        return "waiting for the server to stop".to_owned();
    }
    format!("waiting at most {} s for the server to stop", limit.as_secs_f64())
}
