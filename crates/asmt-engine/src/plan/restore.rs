//! Plans a restore: a readable backup, nothing in its way in memory, and room for it.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::caller::Caller;
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Keeper, Makers, Segment};
use crate::layout::namespace::{missing_or_extra, stripes_of, torn_stripes};
use crate::plan::at_work::{AtWork, Attached, NOBODY_UNSEEN, at_work, at_work_problem, attached_problem, serving_problem};
use crate::plan::checks::START_LOSES;
use crate::plan::room::check_room;
use crate::plan::strangers::{self, is_strangers};
use crate::plan::titles::title;
use crate::plan::verify::verify;
use crate::plan::{NamespaceRestore, Plan, Request, not_kept};
use asmt_shm::{Address, Header, Key, NamespaceName, SHUTDOWN_CLEAN};
use std::collections::BTreeSet;

/// Plans a restore from a directory into memory.
pub fn restore(listing: &Listing, inventory: &Inventory, request: &Request) -> Plan<NamespaceRestore> {
    let mut plan = verify(listing, request);
    plan.refusals.extend(inventory.is_rmid_forced.then(not_kept));
    check_outlives(inventory, request, &mut plan);
    for namespace in plan.namespaces.clone() {
        let mut in_the_way = Vec::new();
        check_nothing_in_memory(inventory, &namespace, &request.caller, &mut in_the_way);
        plan.refusals.extend(in_the_way.into_iter().map(|problem| problem.of(&namespace.name)));
    }
    check_room(inventory, &plan.namespaces, request.page_bytes, &mut plan.refusals);
    plan
}

/// Refuses if the segments would be gone as soon as this process ends.
pub fn check_outlives(inventory: &Inventory, request: &Request, plan: &mut Plan<NamespaceRestore>) {
    match &inventory.keeper {
        Some(Keeper::Nobody) => {}
        Some(Keeper::Ancestor { pid, command }) => {
            let text = format!(
                "only pid {pid} ({command}), an ancestor of asmt, keeps this IPC namespace alive: the restored segments are \
                 lost when that process exits"
            );
            plan.remarks.push(Remark::new(NoteCode::PrivateIpcNamespace, text));
            return;
        }
        Some(Keeper::Lasting) | None => return,
    }
    if request.allow_private_ipc {
        plan.remarks.push(Remark::new(NoteCode::PrivateIpcNamespace, PRIVATE_IPC));
    } else {
        plan.refuse(
            Code::PrivateIpcNamespace,
            format!("{PRIVATE_IPC}: the restored segments would then be lost"),
            "run asmt in the server's IPC namespace: without PrivateIPC= in its unit, or in the server's container; only if a \
             process that cannot be seen from here (such as the pause container of a pod) keeps the namespace alive, add \
             --allow-private-ipc",
        );
    }
}

pub const PRIVATE_IPC: &str = "asmt is alone in its IPC namespace, which ends when asmt exits";

/// The segments of a namespace that are in memory: found by key, by nsid, or by name.
fn in_the_way<'i>(inventory: &'i Inventory, namespace: &NamespaceRestore) -> Vec<&'i Segment> {
    let wanted: BTreeSet<(bool, u8)> =
        namespace.sources.iter().map(|source| (source.address.segment_type.is_index(), source.address.nsid)).collect();
    let named: BTreeSet<Key> = inventory
        .groups()
        .into_iter()
        .filter(|group| group.instance == namespace.instance && group.name.as_ref() == Some(&namespace.name))
        .flat_map(|group| group.keys)
        .collect();
    inventory
        .segments
        .values()
        .filter(|segment| segment.address.instance == namespace.instance)
        .filter(|segment| {
            wanted.contains(&(segment.address.segment_type.is_index(), segment.address.nsid)) || named.contains(&segment.key())
        })
        .collect()
}

/// Refuses if segments of the namespace are in memory.
pub fn check_nothing_in_memory(
    inventory: &Inventory,
    namespace: &NamespaceRestore,
    caller: &Caller,
    refusals: &mut Vec<Problem>,
) {
    let in_the_way = in_the_way(inventory, namespace);
    let title = title(&namespace.name, namespace.instance);
    let (strangers, in_the_way): (Vec<&Segment>, Vec<&Segment>) =
        in_the_way.into_iter().partition(|segment| is_strangers(segment, std::slice::from_ref(namespace), caller));
    refusals.extend(strangers::in_the_way(inventory, &title, namespace, &strangers));
    let Some(first) = in_the_way.first() else {
        let own = Makers::of(namespace.sources.iter().map(|source| source.uid));
        refusals.extend(serving_problem(inventory, &title, namespace.instance, &own, Attached::InTheWay));
        return;
    };
    if let Some(attached) = in_the_way.iter().find(|segment| segment.stat.attached_count > 0) {
        refusals.push(attached_problem(inventory, &title, &in_the_way, attached, Attached::InTheWay));
        return;
    }
    refusals.push(segments_exist(&title, &namespace.name, &in_the_way, first));
}

/// The hint for segments in the way of a restore where the server has run since the backup.
pub fn served_hint(inventory: &Inventory, namespace: &NamespaceRestore) -> String {
    let segments = in_the_way(inventory, namespace);
    let headers: Vec<(Address, &Header)> = segments.iter().map(|segment| (segment.address, &segment.header)).collect();
    if is_warm(&headers, &namespace.name) {
        return "the server has created or used them since this backup was made: nothing needs restoring, start the server \
                without a restore"
            .to_owned();
    }
    format!(
        "the server has run since this backup was made: do not restore it; a clean stop does not leave segments like these, \
         and a start discards them: start the server without a restore{}",
        if stripes_of(&headers).is_empty() { "" } else { START_LOSES }
    )
}

/// Whether a start would take the segments of a namespace, as far as their headers tell.
fn is_warm(headers: &[(Address, &Header)], name: &NamespaceName) -> bool {
    let is_clean = |(_, header): &(Address, &Header)| matches!(header, Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN);
    let is_whole = missing_or_extra(headers).is_empty() && torn_stripes(headers, name, true).is_empty();
    is_whole && (headers.iter().any(is_clean) || stripes_of(headers).is_empty())
}

/// The refusal of a restore because of segments in memory. A hint names them for removal only if no
/// process is at work on them; the operator must know whether the server has served with them.
pub fn segments_exist(title: &str, name: &NamespaceName, in_the_way: &[&Segment], first: &Segment) -> Problem {
    let headers: Vec<(Address, &Header)> = in_the_way.iter().map(|segment| (segment.address, &segment.header)).collect();
    let loses = if stripes_of(&headers).is_empty() { "" } else { START_LOSES };
    // An incomplete namespace was never shut down cleanly in this state: a start discards it.
    let start_as_it_is = if is_warm(&headers, name) {
        "start the server without a restore if it was shut down cleanly, or if it has served since this backup was made or \
         restored"
            .to_owned()
    } else {
        format!(
            "a clean stop does not leave segments like these, and a start discards them: start the server without a restore \
             only if it has served since this backup was made or restored{loses}"
        )
    };
    let (by, hint) = match at_work(in_the_way) {
        AtWork::Process { pid, command } => return at_work_problem(title, in_the_way.len(), pid, command),
        AtWork::Server { pid } => (
            format!("; the server that created them is still running (pid {pid})"),
            "leave them, nothing needs restoring: if the server is running, leave it running; if it is stopping, wait until it \
             has exited, then start it"
                .to_owned(),
        ),
        AtWork::Unseen => (
            "; the process that created them cannot be seen from here".to_owned(),
            format!("{start_as_it_is}; otherwise make sure first that {NOBODY_UNSEEN}, then list the segments with: ipcs -m -p"),
        ),
        AtWork::Nobody => {
            let ids: String = in_the_way.iter().map(|segment| format!(" -m {}", segment.stat.shmid)).collect();
            (
                String::new(),
                format!(
                    "{start_as_it_is}; only if it has not served since, remove exactly these segments, then try again: ipcrm{ids}"
                ),
            )
        }
    };
    Problem::new(
        Code::SegmentsExist,
        format!(
            "{title}: {} of its segments are in memory, the first is {} (shmid {}); expected none{by}",
            in_the_way.len(),
            first.key(),
            first.stat.shmid
        ),
        hint,
    )
}
