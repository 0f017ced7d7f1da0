//! Plans a backup: the directory, the requested namespaces, and the room for their files.

use crate::error::{Code, Error, NoteCode, Problem, Remark, Result};
use crate::facts::directory::{FileRecord, Listing, Target, Volatile, Writable};
use crate::facts::memory::{Inventory, Keeper, Segment};
use crate::format::mark::is_used_name_of;
use crate::hints;
use crate::layout::namespace::Group;
use crate::plan::access::{Purpose, check_directory};
use crate::plan::checks::{Place, choose, segments_of};
use crate::plan::group::{STAY_STOPPED, has_unseen_holes};
use crate::plan::titles::title;
use crate::plan::{Copy, NamespaceBackup, Plan, Request, in_the_way, not_kept, strangers};
use asmt_shm::{Key, NamespaceName};
use std::collections::BTreeSet;

/// Plans a backup of the segments in memory to a directory.
pub fn backup(inventory: &Inventory, listing: &Listing, request: &Request) -> Plan<NamespaceBackup> {
    let mut plan = Plan::new();
    check_directory(listing, &request.caller, Purpose::Write, &mut plan.refusals);
    check_own(listing, &mut plan);
    check_durable(listing, request, &mut plan);
    // A file under a name that only asmt uses, but that asmt did not make, is neither used nor
    // removed.
    plan.refusals.extend(listing.problems.iter().filter(|(name, _)| name.starts_with('.')).map(|(_, problem)| problem.clone()));
    check_marks_readable(listing, request, &mut plan);
    if inventory.is_rmid_forced {
        plan.refusals.push(not_kept());
        return plan;
    }
    check_live(listing, &mut plan);
    let groups = inventory.groups();
    let is_denied = groups
        .iter()
        .filter(|group| group.instance == request.instance)
        .any(|group| segments_of(inventory, group).iter().any(|segment| segment.is_denied));
    let place = if inventory.keeper == Some(Keeper::Nobody) { Place::PrivateMemory } else { Place::Memory };
    let chosen = choose(groups.clone(), request, is_denied, &place, &mut plan);
    check_others(listing, request, &chosen, &mut plan);
    for (group, is_outranked) in strangers::set_aside(inventory, &groups, chosen, request, &mut plan) {
        plan.extend(strangers::plan_group(inventory, listing, request, &group, is_outranked));
    }
    let written: Vec<NamespaceBackup> = written(&plan.namespaces).cloned().collect();
    plan.remarks.extend(unseen_holes_remark(inventory, &written));
    if plan.namespaces.is_empty() || !written.is_empty() {
        check_target(listing, &mut plan);
    }
    plan
}

/// The namespaces that are written: not those of which a current backup is there.
pub fn written(namespaces: &[NamespaceBackup]) -> impl Iterator<Item = &NamespaceBackup> {
    namespaces.iter().filter(|namespace| namespace.current_ms.is_none())
}

/// Bytes of data that a backup copies, without holes. Compressed files need less.
pub fn data_bytes(namespaces: &[NamespaceBackup]) -> u64 {
    sum_of_data(namespaces, |_| true)
}

fn sum_of_data(namespaces: &[NamespaceBackup], counts: impl Fn(&Copy) -> bool) -> u64 {
    let copies = written(namespaces).flat_map(|namespace| &namespace.copies).filter(|copy| counts(copy));
    let data = |segment: &Segment| segment.resident_bytes.map_or(0, |resident| resident.saturating_add(segment.swapped_bytes));
    copies.map(|copy| data(&copy.segment)).fold(0, u64::saturating_add)
}

/// Refuses a directory that cannot be written to, or that has no room for the files that certainly
/// come.
pub fn check_target(listing: &Listing, plan: &mut Plan<NamespaceBackup>) {
    let Some(target) = &listing.target else { return };
    let path = &target.path;
    check_writable(target, plan);
    // What something is compressed to shows when it is.
    let needed = sum_of_data(&plan.namespaces, |copy| copy.encoding.is_plain());
    let most = data_bytes(&plan.namespaces);
    let are_free = match plan.namespaces.iter().find(|namespace| namespace.is_replacing) {
        Some(_) => "are free while the older backup is there, which stays until the new one is complete",
        None => "are free",
    };
    let free_bytes = target.free_bytes.unwrap_or(u64::MAX).saturating_add(freed_bytes(listing, &plan.namespaces));
    // What an interrupted backup has left goes first.
    if most <= free_bytes || !listing.leftovers.sweep.is_empty() {
        return;
    }
    if needed <= free_bytes {
        let text = room_uncertain(path, free_bytes, most);
        plan.remarks.push(Remark::new(NoteCode::RoomUncertain, text));
    } else {
        plan.refuse(
            Code::DiskFull,
            format!("no room in {path}: the files need at least {needed} bytes, and {free_bytes} {are_free}"),
            hints::NO_ROOM,
        );
    }
}

/// Bytes that are free once outdated backups are gone. A file with another name elsewhere stays.
fn freed_bytes(listing: &Listing, namespaces: &[NamespaceBackup]) -> u64 {
    let outdated = || namespaces.iter().flat_map(|namespace| &namespace.outdated);
    let is_freed = |file: &&FileRecord| file.link_count == 1 && outdated().any(|name| *name == file.name);
    listing.files.iter().filter(is_freed).map(|file| file.allocated_bytes).fold(0, u64::saturating_add)
}

/// Refuses a directory that cannot be written to.
pub fn check_writable<T>(target: &Target, plan: &mut Plan<T>) {
    let path = &target.path;
    match target.writable {
        Writable::Yes => {}
        Writable::Denied => plan.refuse(
            Code::PermissionDenied,
            format!("no permission to write to directory {path}"),
            "run asmt as root, or as the directory's owner",
        ),
        Writable::ReadOnlyFileSystem => plan.refuse(
            Code::PermissionDenied,
            format!("{path} is on a file system that is mounted read-only"),
            "choose another directory, or remount the file system read-write (findmnt shows it, and dmesg may show why it is \
             read-only)",
        ),
    }
}

/// A remark: only writing the files shows whether they fit.
pub fn room_uncertain(path: &str, free_bytes: u64, data_bytes: u64) -> String {
    format!(
        "{path} has {free_bytes} bytes free, and there are {data_bytes} bytes of data to compress: whether they fit is known only \
         once they are written; if they do not, nothing is left behind"
    )
}

/// Refuses a directory with another server's backup of the same instance: the uses of one would
/// count for the other.
fn check_others(listing: &Listing, request: &Request, chosen: &[Group], plan: &mut Plan<NamespaceBackup>) {
    // A backup that is in the way of this one is refused for that reason.
    let is_chosen = |name: &NamespaceName| chosen.iter().any(|group| group.name.as_ref() == Some(name));
    for manifest in listing.manifests_of(request.instance).into_iter().filter(|manifest| !is_chosen(&manifest.namespace)) {
        let Some(of) = in_the_way::elsewhere(manifest, &request.host) else { continue };
        let path = listing.directory.as_ref().map_or("the directory", |directory| &directory.path);
        plan.refuse_once(Problem::new(
            Code::BackupExists,
            format!("{path} contains a backup of {} from {of}", title(&manifest.namespace, manifest.instance)),
            "use a separate directory for this server: later, nothing would tell which backup belongs to which server; if the \
             other server is gone for good, you can move its backup away first",
        ));
    }
}

/// Refuses a directory with an unreadable usage mark: no restore from it would be accepted.
pub fn check_marks_readable(listing: &Listing, request: &Request, plan: &mut Plan<NamespaceBackup>) {
    for (name, mark) in listing.marks.iter().filter(|(name, _)| is_used_name_of(request.instance, name)) {
        if let Err(why) = mark {
            let hint = "a restore of this backup would be refused because of this mark: use another directory; leave the mark \
                where it is as long as a backup in this directory may still be restored, because without the mark that backup \
                would look unused";
            plan.refuse(Code::BackupExists, format!("{name} cannot be read as a usage mark: {why}"), hint);
        }
    }
}

/// If holes cannot be told from pages that are swapped out, everything is read as data, and becomes
/// resident.
pub fn unseen_holes_remark(inventory: &Inventory, namespaces: &[NamespaceBackup]) -> Option<Remark> {
    let segments = namespaces.iter().flat_map(|namespace| &namespace.copies).map(|copy| &copy.segment);
    let swapped: Vec<&Segment> = segments.filter(|segment| segment.swapped_bytes > 0).collect();
    let bytes: u64 = swapped.iter().map(|segment| segment.stat.size_bytes).sum();
    let text = format!(
        "CAP_CHECKPOINT_RESTORE is missing, so asmt cannot see the holes in the {} segments that are partly swapped out: all of \
         their {bytes} bytes will be read and become resident",
        swapped.len()
    );
    let is_unseen = swapped.iter().any(|segment| has_unseen_holes(inventory, segment));
    is_unseen.then(|| Remark::new(NoteCode::HolesUnseen, text))
}

/// Refuses a directory in which another run is at work.
pub fn check_live<T>(listing: &Listing, plan: &mut Plan<T>) {
    for run in &listing.leftovers.live {
        plan.refuse(
            Code::AnotherAsmt,
            format!("another asmt (pid {}) is using the directory", run.pid),
            "wait until it has finished, or use another directory",
        );
    }
}

/// Refuses a directory of the system's, where a backup would stand among other things.
pub fn check_own<T>(listing: &Listing, plan: &mut Plan<T>) {
    let Some(directory) = listing.directory.as_ref().filter(|directory| directory.is_systems) else { return };
    plan.refuse(
        Code::SystemDirectory,
        format!("{} is a system directory, with other files in it; expected a directory for backups only", directory.path),
        "name a directory for backups only, such as /var/lib/asmt: asmt creates it",
    );
}

/// Refuses a directory that the reboot empties, unless that is what is wanted.
pub fn check_durable<T>(listing: &Listing, request: &Request, plan: &mut Plan<T>) {
    let Some((path, reason)) = listing.directory.as_ref().and_then(|found| Some((&found.path, found.volatile.as_ref()?))) else {
        return;
    };
    let (message, expected) = match reason {
        Volatile::InMemory(kind) => {
            (format!("{path} is on a {kind}, which is in memory and is empty after a reboot"), "a directory on a disk")
        }
        Volatile::EmptiedAtBoot(file) => {
            (format!("{path} is emptied at boot, as configured in {} (tmpfiles.d)", file.display()), "a directory that is kept")
        }
    };
    if request.allow_volatile {
        plan.remarks.push(Remark::new(NoteCode::VolatileDirectory, message));
    } else {
        let hint = "choose a directory on a disk that no boot empties, such as /var/lib/asmt; add --allow-volatile only if the \
            backup will be restored before the next reboot";
        plan.refuse(Code::VolatileDirectory, format!("{message}; expected {expected}"), hint);
    }
}

/// Fails if two inventories do not have the same segments. The kernel does not list all segments at
/// one moment: while segments are recreated, the list may have only some of them. For a namespace
/// that has only data, nothing shows how many there must be.
pub fn check_same(before: &[NamespaceBackup], now: &[NamespaceBackup]) -> Result<()> {
    let ids = |namespaces: &[NamespaceBackup]| -> BTreeSet<(Key, i32)> {
        let copies = namespaces.iter().flat_map(|namespace| &namespace.copies);
        copies.map(|copy| (copy.segment.key(), copy.segment.stat.shmid)).collect()
    };
    let (before, now) = (ids(before), ids(now));
    match before.symmetric_difference(&now).next() {
        None => Ok(()),
        Some((key, shmid)) => Err(Error::new(
            Code::SegmentChanged,
            format!("segment {key} (shmid {shmid}) appeared or disappeared between two readings of shared memory"),
            STAY_STOPPED,
        )),
    }
}
