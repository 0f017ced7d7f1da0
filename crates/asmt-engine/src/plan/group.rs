//! The backup of one namespace: the faults of its segments in memory, and the encoding of each of
//! them.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::caller::Caller;
use crate::facts::directory::Listing;
use crate::facts::memory::{Creator, Inventory, Segment};
use crate::format::Form;
use crate::hints::RESTORE_AGAIN;
use crate::layout::namespace::{Group, missing_or_extra, stripes_of};
use crate::plan::at_work::{AtWork, Attached, NOBODY_UNSEEN, at_work, at_work_problem, attached_problem, serving_problem};
use crate::plan::checks::{Place, START_LOSES, bears_name, check_base, is_too_short, segments_of, torn_set};
use crate::plan::titles::{nameless_stripe, title_of};
use crate::plan::{Copy, NamespaceBackup, Plan, Request, in_the_way};
use asmt_shm::{Address, Header, MAX_SEGMENT_BYTES};
use std::collections::BTreeSet;

pub const STAY_STOPPED: &str = "make sure that the server stays stopped during a backup, then try again";

/// The reason why segments must not be touched, and so cannot be checked further.
fn untouchable(inventory: &Inventory, request: &Request, group: &Group, segments: &[&Segment]) -> Option<Problem> {
    let title = title_of(group);
    if let Some(denied) = segments.iter().find(|segment| segment.is_denied) {
        return Some(denied_problem(&title, denied, &request.caller));
    }
    if let Some(attached) = segments.iter().find(|segment| segment.stat.attached_count > 0) {
        return Some(attached_problem(inventory, &title, segments, attached, Attached::ToBackUp));
    }
    let makers = segments.first().map(|segment| segment.makers()).unwrap_or_default();
    if let Some(problem) = serving_problem(inventory, &title, group.instance, &makers, Attached::ToBackUp) {
        return Some(problem);
    }
    if let Some(huge) = segments.iter().find(|segment| segment.is_huge) {
        let text = format!("{title}: segment {} (shmid {}) is in huge pages (SHM_HUGETLB)", huge.key(), huge.stat.shmid);
        return Some(Problem::new(Code::SegmentInvalid, text, unknown_maker_hint(huge)));
    }
    // It is long enough for a header, but none could be read: it was removed after the listing.
    if let Some(gone) = segments.iter().find(|segment| segment.header == Header::Unreadable && !is_too_short(segment)) {
        let text = format!("{title}: segment {} (shmid {}) was removed while it was being read", gone.key(), gone.stat.shmid);
        return Some(Problem::new(Code::SegmentChanged, text, STAY_STOPPED));
    }
    None
}

pub fn plan_group_backup(
    inventory: &Inventory,
    listing: &Listing,
    request: &Request,
    group: &Group,
    plan: &mut Plan<NamespaceBackup>,
) {
    let segments = segments_of(inventory, group);
    let title = title_of(group);
    if let Some(problem) = untouchable(inventory, request, group, &segments) {
        plan.refuse_once(problem);
        return;
    }
    if let Some(segment) = segments.iter().find(|segment| !request.caller.can_give_to(segment.stat.uid, segment.stat.gid)) {
        plan.refuse(
            Code::PermissionDenied,
            format!(
                "{title}: segment {} is owned by uid {} and gid {}, and uid {} may not give its file to them: CAP_CHOWN is \
                 missing",
                segment.key(),
                segment.stat.uid,
                segment.stat.gid,
                request.caller.uid
            ),
            "run asmt as root, as the owner of the segments and in their group, or with CAP_CHOWN",
        );
    }
    let headers: Vec<(Address, &Header)> = segments.iter().map(|segment| (segment.address, &segment.header)).collect();
    let mut faults = faults_in_memory(group, &segments, &headers, &title);
    let base_version = if group.name.is_some() { check_base(&headers, &title, &Place::Memory, &mut faults) } else { None };
    if let Some(name) = &group.name {
        faults.extend(torn_set(&headers, name, true, &title, &Place::Memory));
    }
    // A stripe whose name may not be read may be the one that is missing in the set.
    let is_unread = |segment: &&Segment| {
        segment.is_denied && segment.address.instance == group.instance && !segment.address.segment_type.is_index()
    };
    let unread = inventory.segments.values().find(is_unread);
    if let Some(unread) = unread.filter(|_| faults.iter().any(|fault| fault.code == Code::SetTorn)) {
        plan.refuse_once(denied_problem(&nameless_stripe(unread.key(), group.instance), unread, &request.caller));
        return;
    }
    // A namespace that a restore is still making looks like this. So no hint says to remove it
    // while a process may be at work on it.
    match at_work(&segments) {
        AtWork::Process { pid, command } if !faults.is_empty() => {
            plan.refusals.push(at_work_problem(&title, segments.len(), pid, command));
            return;
        }
        AtWork::Unseen if !faults.is_empty() => faults.iter_mut().for_each(|fault| {
            fault.hint = format!("make sure first that {NOBODY_UNSEEN}; then: {}", fault.hint);
        }),
        _ => {}
    }
    plan.refusals.extend(faults);
    let Some(name) = &group.name else { return };
    let nsids: BTreeSet<u8> = segments.iter().map(|segment| segment.address.nsid).collect();
    let old = in_the_way::check(listing, request, group, &nsids, plan);
    let copies: Vec<Copy> = segments
        .iter()
        .map(|&segment| {
            let is_compressible = segment.address.segment_type.may_be_compressed()
                && (!zeros_outweigh_data(segment) || has_unseen_holes(inventory, segment));
            Copy { segment: segment.clone(), encoding: request.form.encoding(is_compressible) }
        })
        .collect();
    let is_written = old.current_ms.is_none();
    plan.remarks.extend(plain_remark(&copies, request.form, &title).filter(|_| is_written));
    plan.namespaces.push(NamespaceBackup {
        instance: group.instance,
        name: name.clone(),
        nsid: group.nsid,
        base_version,
        copies,
        superseded: old.superseded,
        is_replacing: old.is_replacing,
        outdated: old.outdated,
        current_ms: old.current_ms,
    });
}

/// Number of zeros that are compressed to one byte.
pub const ZEROS_A_BYTE: u64 = 1000;

/// Compressed zeros may cost one part in this number of the data.
pub const DATA_A_ZERO_BYTE: u64 = 20;

/// Returns true if the bytes that a segment never held, which cost nothing in a plain file, would
/// cost more than a twentieth of its data in a compressed one. Such a file could be larger than the
/// data, and would take longer to write and read.
pub fn zeros_outweigh_data(segment: &Segment) -> bool {
    let Some(resident_bytes) = segment.resident_bytes else { return false };
    let data_bytes = resident_bytes.saturating_add(segment.swapped_bytes);
    do_zeros_outweigh(segment.stat.size_bytes.saturating_sub(data_bytes), data_bytes)
}

/// Whether so many bytes of zeros, compressed, take more than a twentieth of so many bytes of data.
pub fn do_zeros_outweigh(zero_bytes: u64, data_bytes: u64) -> bool {
    zero_bytes / ZEROS_A_BYTE > data_bytes / DATA_A_ZERO_BYTE
}

/// Returns true if all of a segment will be read as data, including its holes.
pub fn has_unseen_holes(inventory: &Inventory, segment: &Segment) -> bool {
    inventory.finds_all_holes == Some(false) && segment.swapped_bytes > 0
}

/// What is written plain although compressed files were asked for.
pub fn plain_remark(copies: &[Copy], form: Form, title: &str) -> Option<Remark> {
    let is_plain = |copy: &&Copy| copy.encoding.is_plain() && copy.segment.address.segment_type.may_be_compressed();
    if form == Form::Plain {
        return None;
    }
    let plain: Vec<&Copy> = copies.iter().filter(is_plain).collect();
    let first = plain.first()?;
    let text = format!(
        "{title}: {} of {} segments (the first is {}) are written uncompressed: almost all of each was never used and would \
         take more space compressed",
        plain.len(),
        copies.len(),
        first.segment.key()
    );
    Some(Remark::new(NoteCode::WrittenPlain, text))
}

/// The faults of the segments of a namespace in memory, apart from those that base shows.
pub fn faults_in_memory(group: &Group, segments: &[&Segment], headers: &[(Address, &Header)], title: &str) -> Vec<Problem> {
    let mut faults = Vec::new();
    let start_loses = if stripes_of(headers).is_empty() { "" } else { START_LOSES };
    for text in missing_or_extra(headers) {
        let hint = format!(
            "only a server that was shut down cleanly leaves all segments: {RESTORE_AGAIN} start the server and stop it cleanly, \
             then back up{start_loses}"
        );
        faults.push(Problem::new(Code::SegmentsIncomplete, format!("{title}: {text}"), hint));
    }
    if group.name.is_none() {
        // If its base is there, or if it is a stripe, it can be complete except for its name.
        if let Some(nameless) = segments.iter().find(|segment| bears_name(segment.address)) {
            faults.push(Problem::new(
                Code::SegmentInvalid,
                format!("{title}: segment {} has no valid namespace name (1 to 31 bytes)", nameless.key()),
                // A restore that was killed before it had filled the segment leaves this, too.
                format!("{RESTORE_AGAIN}: {}", unknown_maker_hint(nameless)),
            ));
        }
        return faults;
    }
    for segment in segments.iter().filter(|segment| is_too_short(segment)) {
        faults.push(Problem::new(
            Code::SegmentInvalid,
            format!(
                "{title}: segment {} has {} bytes, too few for a {}",
                segment.key(),
                segment.stat.size_bytes,
                segment.address.segment_type.name()
            ),
            unknown_maker_hint(segment),
        ));
    }
    for segment in segments.iter().filter(|segment| segment.stat.size_bytes > MAX_SEGMENT_BYTES) {
        faults.push(Problem::new(
            Code::SegmentInvalid,
            format!(
                "{title}: segment {} has {} bytes, expected at most {MAX_SEGMENT_BYTES}",
                segment.key(),
                segment.stat.size_bytes
            ),
            "look for a newer asmt",
        ));
    }
    faults
}

/// The hint for a segment that was probably not made by a server. It is named for removal only if
/// its creator has ended.
pub fn unknown_maker_hint(segment: &Segment) -> String {
    let leave = "no known version of the server creates such a segment, but a newer one may: leave it, and name the other \
                 namespaces with -n";
    match segment.creator {
        Creator::Gone => format!(
            "{leave}; only if you created it yourself, and no server needs it, remove it with: ipcrm -m {}",
            segment.stat.shmid
        ),
        Creator::Alive { .. } | Creator::Unseen => format!("{leave}, or find out what created it (ipcs -m -p)"),
    }
}

/// The refusal for a segment that the caller may not read.
pub fn denied_problem(title: &str, denied: &Segment, caller: &Caller) -> Problem {
    Problem::new(
        Code::PermissionDenied,
        format!(
            "{title}: segment {} is owned by uid {} with mode {:04o}, and uid {} may not read it",
            denied.key(),
            denied.stat.uid,
            denied.stat.mode,
            caller.uid
        ),
        "run asmt as root, or as the owner of the segments; any other user needs CAP_IPC_OWNER and CAP_CHOWN",
    )
}
