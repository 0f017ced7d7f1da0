//! Plans an export: a backup that can be read, and that no start has outdated, into a directory
//! where there is none.

use crate::error::{Code, NoteCode, Remark};
use crate::facts::directory::Listing;
use crate::format::{Form, instance_of_manifest_name, manifest_name, parse_file_name};
use crate::hints;
use crate::plan::access::{Purpose, check_directory};
use crate::plan::backup::{check_durable, check_live, check_own, check_writable};
use crate::plan::titles::title;
use crate::plan::{Contents, NamespaceRestore, Plan, Request};

/// Adds to the plan of reading a backup why it cannot be written to this directory.
pub fn export(target: &Listing, request: &Request, plan: &mut Plan<NamespaceRestore>) {
    check_directory(target, &request.caller, Purpose::Write, &mut plan.refusals);
    check_own(target, plan);
    check_durable(target, request, plan);
    check_live(target, plan);
    check_empty(target, request.instance, plan);
    let without: Vec<String> = plan
        .namespaces
        .iter()
        .filter(|namespace| namespace.sources.iter().any(|source| !matches!(source.contents, Contents::Chunks(_))))
        .map(|namespace| title(&namespace.name, namespace.instance))
        .collect();
    for title in without {
        plan.refuse(
            Code::ManifestRequired,
            format!("{title}: the backup has no manifest: ASMT made it, and restores it as it is"),
            "to keep it elsewhere, copy the directory (cp -a)",
        );
    }
    check_room(target, request.form, plan);
}

/// Names of the files that a killed run had committed of a namespace, and that its export replaces.
pub fn superseded(target: &Listing, namespace: &NamespaceRestore) -> Vec<String> {
    let manifest = manifest_name(namespace.instance, &namespace.name);
    let is_of = |name: &&String| {
        let key = parse_file_name(name).map(|(key, ..)| key);
        manifest == **name || namespace.sources.iter().any(|source| Some(source.key) == key)
    };
    target.leftovers.superseded.iter().filter(is_of).cloned().collect()
}

/// Refuses a directory that has a backup of the instance, or part of one: what is exported would
/// pass for part of it. Marks alone are those of an export that was killed, and so are files that
/// it had committed of a namespace.
fn check_empty(target: &Listing, instance: u8, plan: &mut Plan<NamespaceRestore>) {
    let replaced: Vec<String> = plan.namespaces.iter().flat_map(|namespace| superseded(target, namespace)).collect();
    let files = target.files.iter().filter(|file| file.address.instance == instance).map(|file| &file.name);
    let manifests = target.manifests.iter().map(|record| &record.name);
    let manifests = manifests.filter(|name| instance_of_manifest_name(name).is_none_or(|of| of == instance));
    let mut there = files.chain(manifests).chain(target.problems.iter().map(|(name, _)| name));
    let Some(first) = there.find(|name| !replaced.contains(name)) else { return };
    let path = target.directory.as_ref().map_or("the directory", |directory| &directory.path);
    plan.refuse(
        Code::BackupExists,
        format!("{path} contains {first}; expected a directory without a backup of the instance"),
        "name another directory: asmt creates it",
    );
}

/// Refuses a directory that cannot be written to, or has no room.
fn check_room(target: &Listing, form: Form, plan: &mut Plan<NamespaceRestore>) {
    let Some(target) = &target.target else { return };
    check_writable(target, plan);
    let needed = data_bytes(&plan.namespaces);
    let free_bytes = target.free_bytes.unwrap_or(u64::MAX);
    if needed <= free_bytes {
        return;
    }
    let path = &target.path;
    if form == Form::Plain {
        let text = format!("no room in {path}: the files need at least {needed} bytes, and {free_bytes} are free");
        plan.refuse(Code::DiskFull, text, hints::NO_ROOM);
    } else {
        plan.remarks.push(Remark::new(NoteCode::RoomUncertain, super::backup::room_uncertain(path, free_bytes, needed)));
    }
}

/// Bytes of data in these namespaces, as far as their manifests tell.
pub fn data_bytes(namespaces: &[NamespaceRestore]) -> u64 {
    let sources = namespaces.iter().flat_map(|namespace| &namespace.sources);
    let data = |contents: &Contents| match contents {
        Contents::Chunks(segment) => segment.data_bytes.unwrap_or_else(|| segment.size_bytes - segment.zero_bytes()),
        Contents::Plain | Contents::Stream { .. } => 0,
    };
    sources.map(|source| data(&source.contents)).fold(0, u64::saturating_add)
}
