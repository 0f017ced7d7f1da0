//! Checks that are the same for segments in memory and for files of a backup; only the reasons and
//! next steps differ.

use crate::error::{Code, Problem};
use crate::facts::memory::{Inventory, Segment};
use crate::hints;
use crate::layout::namespace::{Group, stripes_of, torn_stripes};
use crate::plan::titles::title;
use crate::plan::{Plan, Request};
use asmt_shm::{Address, Header, KNOWN_BASE_VERSIONS, NamespaceName, SHUTDOWN_CLEAN, SegmentType};
use std::collections::BTreeMap;

/// The place that was searched. The same findings have other reasons and next steps in another
/// place.
pub enum Place {
    Memory,
    /// An IPC namespace in which asmt is alone.
    PrivateMemory,
    Backup,
}

/// Returns the requested groups; refuses if one is missing.
pub fn choose<T>(groups: Vec<Group>, request: &Request, is_denied: bool, place: &Place, plan: &mut Plan<T>) -> Vec<Group> {
    let (place, hint) = match place {
        Place::Memory => ("in shared memory", "check the name (-n) and the instance (-i); asmt list shows what exists"),
        Place::PrivateMemory => (
            "in shared memory: asmt is alone in its IPC namespace",
            "run asmt in the server's IPC namespace: without PrivateIPC= in its unit, or in the server's container",
        ),
        Place::Backup => ("in the directory", "check the directory, the name (-n) and the instance (-i)"),
    };
    let there = shown(&groups);
    let of_instance: Vec<Group> = groups.into_iter().filter(|group| group.instance == request.instance).collect();
    let Some(names) = &request.namespaces else {
        if of_instance.is_empty() {
            plan.refuse(Code::NothingFound, format!("nothing of instance {} is {place}; found: {there}", request.instance), hint);
        }
        return of_instance;
    };
    let chosen: Vec<Group> =
        of_instance.into_iter().filter(|group| group.name.as_ref().is_some_and(|name| names.contains(name))).collect();
    for name in names.iter().filter(|name| !chosen.iter().any(|group| group.name.as_ref() == Some(name))) {
        if is_denied {
            plan.refuse(
                Code::PermissionDenied,
                format!(
                    "{} was not found, but there are segments whose names this user may not read",
                    title(name, request.instance)
                ),
                "run asmt as root, or as the owner of the segments",
            );
            continue;
        }
        let code = if chosen.is_empty() { Code::NothingFound } else { Code::NamespaceMissing };
        let text = format!("namespace '{name}' of instance {} is not {place}; found: {there}", request.instance);
        plan.refusals.push(Problem::new(code, text, hint).of(name));
    }
    chosen
}

/// The groups in a few words: `test, bar (instance 0), cache (instance 2)`.
pub fn shown(groups: &[Group]) -> String {
    let mut by_instance: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for group in groups {
        let name = group.name.as_ref().map_or_else(|| "segments without a name".to_owned(), ToString::to_string);
        by_instance.entry(group.instance).or_default().push(name);
    }
    let texts: Vec<String> =
        by_instance.iter().map(|(instance, names)| format!("{} (instance {instance})", names.join(", "))).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

pub fn segments_of<'a>(inventory: &'a Inventory, group: &Group) -> Vec<&'a Segment> {
    group.keys.iter().filter_map(|key| inventory.segments.get(key)).collect()
}

/// Returns true if it is shorter than the type that its key names.
pub fn is_too_short(segment: &Segment) -> bool {
    segment.stat.size_bytes < segment.address.segment_type.min_bytes()
}

/// Returns true if a segment's header has a field for the namespace's name.
pub fn bears_name(address: Address) -> bool {
    matches!(address.segment_type, SegmentType::PiBase | SegmentType::DataStage)
}

/// A warning before a start: such a server finds nothing that it would take for its data.
pub const START_LOSES: &str = " (this is a cold start: records that are in memory only are lost; if there are any, leave the \
    segments as they are, and ask Aerospike support first)";

/// Checks version and shutdown status of base. Returns the version.
pub fn check_base(headers: &[(Address, &Header)], title: &str, place: &Place, refusals: &mut Vec<Problem>) -> Option<u32> {
    let base = headers.iter().find_map(|(_, header)| if let Header::Base(base) = header { Some(base) } else { None })?;
    if !KNOWN_BASE_VERSIONS.contains(&base.version) {
        let code = match place {
            Place::Memory | Place::PrivateMemory => Code::UnknownVersion,
            Place::Backup => Code::BackupUnknownVersion,
        };
        let (first, last) = (KNOWN_BASE_VERSIONS.start(), KNOWN_BASE_VERSIONS.end());
        let newer = "this version of asmt does not support this version of the server: look for a newer asmt";
        // A restore that was killed before it had filled base leaves version 0.
        let hint = match code {
            Code::UnknownVersion if base.version == 0 => format!("{}: {newer}", hints::RESTORE_AGAIN),
            _ => newer.to_owned(),
        };
        let text = format!("{title}: base has layout version {}, expected {first} to {last}", base.version);
        refusals.push(Problem::new(code, text, hint));
    }
    if base.shutdown != SHUTDOWN_CLEAN {
        let start_loses = if stripes_of(headers).is_empty() { "" } else { START_LOSES };
        let (code, hint) = match place {
            Place::Memory | Place::PrivateMemory => (
                Code::NotCleanlyShutDown,
                format!(
                    "{} start the server, stop it cleanly and wait until asd has exited, then back up{start_loses}; after a \
                     crash there is nothing to save",
                    hints::RESTORE_AGAIN
                ),
            ),
            Place::Backup => (Code::BackupNotClean, hints::BACKUP_NOT_CLEAN.to_owned()),
        };
        refusals.push(Problem::new(
            code,
            format!("{title}: base has shutdown status {}, expected {SHUTDOWN_CLEAN} (clean)", base.shutdown),
            hint,
        ));
    }
    Some(base.version)
}

/// Returns the reasons why a server would not start with a set of stripes.
pub fn torn_set(headers: &[(Address, &Header)], name: &NamespaceName, is_all: bool, title: &str, place: &Place) -> Vec<Problem> {
    // Both have the same reason: when a server starts, such a set is lost, unless its data is also
    // on a disk.
    let (code, hint) = match place {
        Place::Memory | Place::PrivateMemory => (
            Code::SetTorn,
            format!(
                "a server would not start with these stripes, or would discard them: {}, if all records are also on storage \
                 devices or files, start the server, stop it cleanly, then back up; if records are in memory only, leave these \
                 segments as they are, because a start loses their contents, and ask Aerospike support",
                hints::RESTORE_AGAIN
            ),
        ),
        Place::Backup => (Code::BackupSetTorn, hints::BACKUP_TORN.to_owned()),
    };
    let torn = torn_stripes(headers, name, is_all);
    torn.into_iter().map(|text| Problem::new(code, format!("{title}: {text}"), hint.as_str())).collect()
}
