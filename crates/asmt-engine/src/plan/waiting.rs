//! What a backup waits for (`--wait`): a server that has not gone yet, and nothing else.

use crate::error::{Code, Problem};
use crate::facts::memory::{Creator, Inventory};
use crate::plan::SERVER_COMMAND;

/// Why a backup waits: somebody has the segments attached, or the server runs, with this process
/// id. `None` if neither is so, and where a wait would not help because something else is in the
/// way.
pub fn reason_to_wait(refusals: &[Problem], running: Option<u32>) -> Option<String> {
    if !refusals.iter().all(|refusal| goes_with_the_server(refusal.code)) {
        return None;
    }
    let attached = refusals.iter().find(|refusal| refusal.code == Code::SegmentAttached);
    let of_process = || running.map(|pid| format!("pid {pid} ({SERVER_COMMAND}) has not exited yet"));
    attached.map(|refusal| refusal.message.clone()).or_else(of_process)
}

/// The segments as they would be if nobody had them attached and the server had ended: what is
/// refused then is no matter of time.
pub fn as_if_let_go(inventory: &Inventory) -> Inventory {
    let mut inventory = inventory.clone();
    inventory.attachers.clear();
    for segment in inventory.segments.values_mut() {
        segment.stat.attached_count = 0;
        if matches!(&segment.creator, Creator::Alive { command, .. } if command == SERVER_COMMAND) {
            segment.creator = Creator::Gone;
        }
    }
    inventory
}

/// Whether a running server, or one that is shutting down, may be the reason for a refusal. What
/// only looks like it is refused once the server has gone.
fn goes_with_the_server(code: Code) -> bool {
    matches!(
        code,
        Code::SegmentAttached
            | Code::NotCleanlyShutDown
            | Code::SegmentsIncomplete
            | Code::SegmentInvalid
            | Code::SetTorn
            | Code::SegmentChanged
            | Code::DeviceNotTrusted
            | Code::DeviceSetTorn
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(codes: &[Code]) -> Vec<Problem> {
        codes.iter().map(|code| Problem::new(*code, code.as_str(), "")).collect()
    }

    #[test]
    fn a_server_that_runs_is_waited_for() {
        let found = refusals(&[Code::DeviceNotTrusted, Code::SegmentAttached, Code::NotCleanlyShutDown]);
        assert_eq!(reason_to_wait(&found, Some(7)).as_deref(), Some("segment-attached"));
        assert_eq!(reason_to_wait(&found, None).as_deref(), Some("segment-attached"));
    }

    #[test]
    fn a_server_that_has_let_its_segments_go_is_waited_for_until_it_ends() {
        let found = refusals(&[Code::DeviceNotTrusted]);
        assert_eq!(reason_to_wait(&found, Some(7)).as_deref(), Some("pid 7 (asd) has not exited yet"));
        assert_eq!(reason_to_wait(&[], Some(7)).as_deref(), Some("pid 7 (asd) has not exited yet"));
    }

    #[test]
    fn what_no_wait_mends_is_not_waited_for() {
        for code in [Code::DiskFull, Code::BackupExists, Code::ConfigUnreadable, Code::AnotherAsmt, Code::PermissionDenied] {
            assert!(reason_to_wait(&refusals(&[Code::SegmentAttached, code]), Some(7)).is_none(), "{code:?}");
        }
    }

    #[test]
    fn a_server_that_has_crashed_is_not_waited_for() {
        assert!(reason_to_wait(&refusals(&[Code::NotCleanlyShutDown, Code::DeviceNotTrusted]), None).is_none());
        assert!(reason_to_wait(&[], None).is_none());
    }
}
