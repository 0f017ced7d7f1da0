//! Segments of other users: any user may make a segment under any free key, and give it to any
//! user.
//!
//! Promise: segments of different users are never in one group; a stranger's segments are named in
//! a message, and stop only the namespace to which they claim to belong. Nothing that may be a
//! namespace by itself is left out. Must never: call the system.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::caller::Caller;
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Makers, Segment};
use crate::layout::namespace::Group;
use crate::plan::at_work::{AtWork, at_work};
use crate::plan::checks::segments_of;
use crate::plan::group::plan_group_backup;
use crate::plan::titles::title_of;
use crate::plan::{NamespaceBackup, NamespaceRestore, Plan, Request};
use std::collections::BTreeMap;

/// The trust in the makers of a group: root alone has most; of single users, the one with more
/// segments of the instance has more; several users have none.
type Standing = (u8, usize);

/// Chooses the groups to plan among the requested ones, and notes those that are left out. Returns
/// with each group whether there is a namespace of another user who has more trust.
pub(super) fn set_aside<T>(
    inventory: &Inventory,
    all: &[Group],
    chosen: Vec<Group>,
    request: &Request,
    plan: &mut Plan<T>,
) -> Vec<(Group, bool)> {
    let of_instance: Vec<&Group> = all.iter().filter(|group| group.instance == request.instance).collect();
    let makers_of = |group: &Group| makers(inventory, group);
    let mut counts: BTreeMap<Makers, usize> = BTreeMap::new();
    for group in &of_instance {
        *counts.entry(makers_of(group)).or_default() += group.keys.len();
    }
    let standing = |makers: &Makers| -> Standing {
        match makers.uids().len() {
            0 => (2, 0),
            1 => (1, counts.get(makers).copied().unwrap_or(0)),
            _ => (0, 0),
        }
    };
    let named: Vec<(&Group, Makers)> =
        of_instance.iter().filter(|group| group.name.is_some()).map(|group| (*group, makers_of(group))).collect();
    let is_outranked = |own: &Makers| named.iter().any(|(_, other)| standing(other) > standing(own));
    let mut kept = Vec::new();
    for group in chosen {
        let own = makers_of(&group);
        let namesake = named.iter().find(|(other, makers)| other.name == group.name && *makers != own);
        match namesake {
            _ if group.name.is_none() && is_outranked(&own) => plan.remarks.push(left_out(inventory, &group, &own)),
            Some((_, makers)) if makers.uids().is_empty() => plan.remarks.push(left_out(inventory, &group, &own)),
            // Nobody can know which of them is the server's, unless it is root's.
            Some((_, makers)) if !own.uids().is_empty() => plan.refusals.push(two_owners(&group, &own, makers)),
            _ => {
                let is_outranked = is_outranked(&own);
                kept.push((group, is_outranked));
            }
        }
    }
    // For a namespace that was requested by name, groups under the same nsid are reported.
    if request.namespaces.is_some() {
        let beside = of_instance.iter().filter(|group| {
            group.name.is_none() && is_outranked(&makers_of(group)) && kept.iter().any(|(kept, _)| is_beside(group, kept))
        });
        plan.remarks.extend(beside.map(|group| left_out(inventory, group, &makers_of(group))));
    }
    kept
}

/// Returns true if two groups have an nsid in common, of the index or of the data.
fn is_beside(one: &Group, other: &Group) -> bool {
    let places = |group: &Group| -> Vec<(bool, u8)> {
        let addresses = group.keys.iter().filter_map(|key| key.address());
        addresses.map(|address| (address.segment_type.is_index(), address.nsid)).collect()
    };
    let of_other = places(other);
    places(one).iter().any(|place| of_other.contains(place))
}

/// Plans the backup of a group. Data of a user with less trust than another, without an index and
/// without a set with which a server would start, does not stop the backup: it is left out.
pub(super) fn plan_group(
    inventory: &Inventory,
    listing: &Listing,
    request: &Request,
    group: &Group,
    is_outranked: bool,
) -> Plan<NamespaceBackup> {
    let mut own = Plan::new();
    plan_group_backup(inventory, listing, request, group, &mut own);
    let is_lone = group.nsid.is_none() && request.namespaces.is_none();
    if is_outranked && is_lone && !own.refusals.is_empty() {
        own = Plan::new();
        own.remarks.push(left_out(inventory, group, &makers(inventory, group)));
    }
    own
}

fn makers(inventory: &Inventory, group: &Group) -> Makers {
    segments_of(inventory, group).first().map(|segment| segment.makers()).unwrap_or_default()
}

/// Most segments that a remark lists.
const MOST_LISTED: usize = 8;

fn left_out(inventory: &Inventory, group: &Group, makers: &Makers) -> Remark {
    let segments = segments_of(inventory, group);
    let listed = segments.iter().take(MOST_LISTED).map(|segment| format!("{} (shmid {})", segment.key(), segment.stat.shmid));
    let listed = listed.collect::<Vec<_>>().join(", ");
    let more = segments.len().saturating_sub(MOST_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!(
        "left out, because created by {makers}: {listed}{more}; {} does not belong to a namespace of the server, which runs as \
         another user",
        title_of(group)
    );
    Remark::new(NoteCode::ForeignSegments, text)
}

fn two_owners(group: &Group, own: &Makers, other: &Makers) -> Problem {
    Problem::new(
        Code::ForeignSegments,
        format!("{}: segments under this name were created by {own}, and others by {other}; expected one owner", title_of(group)),
        "find out which of them belong to the server (asmt list -v shows owners); remove the others only if you know that no \
         server needs them; you can name other namespaces with -n",
    )
}

/// Leaves out of what is in memory what strangers have made: nobody's segments but the server's and
/// asmt's own tell anything of the server.
pub fn leave_out_strangers(inventory: &mut Inventory, namespaces: &[NamespaceRestore], caller: &Caller) {
    inventory.segments.retain(|_, segment| !is_strangers(segment, namespaces, caller));
}

/// Returns true if a segment was made by a user other than root, the caller, and the owner of the
/// backup. Its owner does not count, because its maker can give it away.
pub fn is_strangers(segment: &Segment, namespaces: &[NamespaceRestore], caller: &Caller) -> bool {
    let maker = segment.stat.creator_uid;
    let is_owner = || namespaces.iter().flat_map(|namespace| &namespace.sources).any(|source| source.uid == maker);
    maker != 0 && maker != caller.uid && !is_owner()
}

/// The refusal of a restore because of strangers' segments.
pub(super) fn in_the_way(
    inventory: &Inventory,
    title: &str,
    namespace: &NamespaceRestore,
    strangers: &[&Segment],
) -> Option<Problem> {
    let first = strangers.first()?;
    let uid = first.stat.creator_uid;
    let ids: String = strangers.iter().map(|segment| format!(" -m {}", segment.stat.shmid)).collect();
    let owner = namespace.sources.first().map_or(0, |source| source.uid);
    let is_attached = strangers.iter().any(|segment| segment.stat.attached_count > 0);
    let attachers = || strangers.iter().filter_map(|segment| inventory.attachers.get(&segment.stat.shmid)).flatten();
    let by: Vec<String> = attachers().map(|attacher| format!("pid {} ({})", attacher.pid, attacher.command)).collect();
    let attached = match (is_attached, by.is_empty()) {
        (false, _) => String::new(),
        (true, true) => ", attached by a process that cannot be seen from here".to_owned(),
        (true, false) => format!(", attached by {}", by.join(", ")),
    };
    let remove = format!("remove exactly these segments, then try again: ipcrm{ids}");
    let hint = match at_work(strangers) {
        AtWork::Nobody if !is_attached => format!("if the server does not run as uid {uid} now, {remove}"),
        _ => format!(
            "find out what uid {uid} uses them for (ipcs -m -p); if it is neither the server nor a running asmt, {remove}"
        ),
    };
    Some(Problem::new(
        Code::ForeignSegments,
        format!(
            "{title}: {} segments in its way were created by uid {uid}, the first is {} (shmid {}){attached}; expected none: \
             the segments of the backup belong to uid {owner}",
            strangers.len(),
            first.key(),
            first.stat.shmid
        ),
        hint,
    ))
}
