//! Files of another backup that are in the way of a backup.
//!
//! Promise: a message describes the other backup in terms that people know: namespace, date, used
//! or not. A hint names exactly the files of that backup, and names them for removal only if it was
//! retired. Must never: call the system.

use crate::error::{Code, Kind, NoteCode, Problem, Remark};
use crate::facts::directory::{FileRecord, Listing, ManifestRecord};
use crate::facts::server::Host;
use crate::format::mark::{Identity, UsageMark, is_used_name, used_name};
use crate::format::{
    Manifest, ManifestError, SET_ASIDE_PREFIX, instance_of_manifest_name, manifest_name, parse_file_name, rfc3339,
};
use crate::hints::shell_word;
use crate::layout::namespace::{Group, group};
use crate::plan::fates::Fate;
use crate::plan::staleness::{identity_of_files, is_of_host, may_be_of_server};
use crate::plan::titles::{title, title_of};
use crate::plan::{Fates, OldBackup, Plan, Request};
use asmt_shm::{Key, NamespaceName};
use std::collections::BTreeSet;

/// A backup in the directory.
struct Found<'l> {
    /// Its namespace, or a description if it has no name.
    title: String,
    /// Names of its files, including the manifest and the mark.
    files: Vec<&'l str>,
    made_ms: u64,
    has_manifest: bool,
    mark: Option<&'l UsageMark>,
    /// The host or container where it was made, if that is another server than this one.
    elsewhere: Option<String>,
    /// It was made on this host, as far as its manifest tells.
    is_of_host: bool,
}

/// The files that a backup takes the place of, and what is to become of them.
#[derive(Default)]
pub(super) struct Old {
    /// Files that are removed just before the new backup is published.
    pub(super) superseded: Vec<String>,
    /// Some of these are a backup, which stays good until then.
    pub(super) is_replacing: bool,
    /// Files of an outdated backup, which go first.
    pub(super) outdated: Vec<String>,
    /// When the backup was made that is current.
    pub(super) current_ms: Option<u64>,
}

/// Refuses if files of the same instance and nsid are in the directory, unless they are those of an
/// older backup of the same namespace that may be replaced. Returns these, and files that an
/// interrupted run had committed.
pub(super) fn check<T>(listing: &Listing, request: &Request, group: &Group, nsids: &BTreeSet<u8>, plan: &mut Plan<T>) -> Old {
    let (instance, own_title) = (group.instance, title_of(group));
    let own_manifest = group.name.as_ref().map(|name| manifest_name(instance, name));
    let is_ours = |name: &str| {
        Some(name) == own_manifest.as_deref()
            || parse_file_name(name).is_some_and(|(_, address, _)| address.instance == instance && nsids.contains(&address.nsid))
    };
    let files = listing.files.iter().map(|file| file.name.as_str());
    let manifests = listing.manifests.iter().map(|manifest| manifest.name.as_str());
    let unsafe_files = listing.problems.iter().map(|(name, _)| name.as_str());
    let there: BTreeSet<&str> = files.chain(manifests).chain(unsafe_files).filter(|name| is_ours(name)).collect();
    let (superseded, mut in_the_way): (BTreeSet<&str>, BTreeSet<&str>) =
        there.into_iter().partition(|name| listing.leftovers.superseded.contains(*name));
    let mut old = Old { superseded: superseded.into_iter().map(str::to_owned).collect(), ..Old::default() };
    if request.replace.is_some() {
        let unread = unread(listing, &in_the_way);
        if !unread.is_empty() {
            plan.refusals.extend(unread);
            return old;
        }
    }
    for found in backups_in(listing, instance, &request.host) {
        if !found.files.iter().any(|name| in_the_way.contains(name)) {
            continue;
        }
        let first = found.files.iter().find(|name| in_the_way.contains(*name)).copied().unwrap_or_default();
        in_the_way.retain(|name| !found.files.contains(name));
        let is_replaceable = request.replace.is_none() && found.title == own_title;
        let problem =
            Problem::new(Code::BackupExists, message(&found, listing, &own_title, first), hint(&found, listing, is_replaceable));
        match request.replace.as_ref().map(|fates| fate_of(&found, listing, group, fates)) {
            Some(Ok(fate)) => old.take(fate, &found, &own_title, plan),
            Some(Err(why)) => {
                let message = format!("{}; --replace does not apply: {why}", problem.message);
                plan.refusals.push(Problem { message, ..problem });
            }
            None => plan.refusals.push(problem),
        }
    }
    // A file that cannot be read belongs to no known backup.
    if let Some(first) = in_the_way.first() {
        plan.refuse(
            Code::BackupExists,
            format!(
                "{own_title}: the directory contains {} files of instance {instance} with the same nsid or name (the first is \
                 {first}); expected none",
                in_the_way.len()
            ),
            "use another directory; or find out what they are, and move them out of this one; do not remove anything that may \
             be needed",
        );
    }
    old
}

/// The files with these names that cannot be read because a call fails. Nobody can tell what may
/// become of their backup.
fn unread(listing: &Listing, names: &BTreeSet<&str>) -> Vec<Problem> {
    let is_unread = |(name, problem): &&(String, Problem)| problem.code.kind() == Kind::Failed && names.contains(name.as_str());
    listing.problems.iter().filter(is_unread).map(|(_, problem)| problem.clone()).collect()
}

/// What is to become of a backup in the way. The error says why it must not be replaced.
fn fate_of(found: &Found<'_>, listing: &Listing, group: &Group, fates: &Fates) -> Result<Fate, String> {
    if found.title != title_of(group) {
        return Err("it is that of another namespace".to_owned());
    }
    if let Some((_, problem)) = listing.problems.iter().find(|(name, _)| found.files.contains(&name.as_str())) {
        return Err(problem.message.clone());
    }
    let is_too_new = |record: &&ManifestRecord| matches!(record.manifest, Err(ManifestError::TooNew(_)));
    if listing.manifests.iter().filter(is_too_new).any(|record| found.files.contains(&record.name.as_str())) {
        return Err("a newer asmt made it".to_owned());
    }
    let known = group.name.as_ref().and_then(|name| fates.get(name));
    let unsure = OldBackup { fate: Fate::Unsure, is_spent: false };
    let OldBackup { fate, is_spent } = known.copied().unwrap_or(unsure);
    // A container that has taken the place of another one.
    let is_heir = found.is_of_host && is_spent;
    if found.elsewhere.is_some() && !is_heir {
        return Err("it belongs to another server".to_owned());
    }
    Ok(fate)
}

impl Old {
    /// Adds a backup that may be replaced.
    fn take<T>(&mut self, fate: Fate, found: &Found<'_>, own_title: &str, plan: &mut Plan<T>) {
        // What a mark says stays: other backups in the directory are judged by it, too.
        let files = found.files.iter().filter(|name| !is_used_name(name)).map(|name| (*name).to_owned());
        let made = rfc3339(found.made_ms);
        let remark = |code, text: &str| Remark::new(code, format!("{own_title}: the backup of {made} {text}"));
        match fate {
            Fate::Current => {
                self.current_ms = Some(found.made_ms);
                let text = "is there already, and the server has not run since: it stays, and no other one is made";
                plan.remarks.push(remark(NoteCode::AlreadyBackedUp, text));
            }
            Fate::Dead => {
                self.outdated.extend(files);
                plan.remarks.push(remark(NoteCode::OldFirst, "is outdated: it is removed before the new one is made"));
            }
            Fate::Unsure => {
                self.superseded.extend(files);
                self.is_replacing = true;
                let text = "stays until the new one is complete and takes its place";
                plan.remarks.push(remark(NoteCode::OldLast, text));
            }
            Fate::Overtaken => plan.refuse(
                Code::DeviceSetTorn,
                format!(
                    "{own_title}: the segments in memory are those of the backup of {made}, and a storage device or file shows \
                     that the server has run since, without them"
                ),
                "do not back them up, and do not restore that backup: leave the segments, and start the server where and how \
                 it last ran, so that it reads its devices; if the device does not belong to this server, name the right ones \
                 with --config or --device",
            ),
        }
    }
}

/// The backups of an instance in a directory, with and without a manifest.
fn backups_in<'l>(listing: &'l Listing, instance: u8, here: &Host) -> Vec<Found<'l>> {
    let of_keys =
        |keys: &BTreeSet<Key>| -> Vec<&FileRecord> { listing.files.iter().filter(|file| keys.contains(&file.key)).collect() };
    let mut found = Vec::new();
    let mut claimed: BTreeSet<Key> = BTreeSet::new();
    for record in &listing.manifests {
        let Some(manifest) = record.manifest.as_ref().ok().filter(|manifest| manifest.instance == instance) else { continue };
        let keys: BTreeSet<Key> = manifest.segments.iter().map(|segment| segment.key).collect();
        let mut files: Vec<&str> = of_keys(&keys).into_iter().map(|file| file.name.as_str()).collect();
        claimed.extend(keys);
        files.push(&record.name);
        let identity = Identity { made_ms: manifest.created_ms, boot_id: Some(manifest.boot_id.clone()), files: None };
        let mark = mark_of(listing, instance, Some(&manifest.namespace), &identity, &mut files);
        let title = title(&manifest.namespace, instance);
        let elsewhere = elsewhere(manifest, here);
        let (made_ms, is_of_host) = (manifest.created_ms, is_of_host(manifest, here));
        found.push(Found { title, files, made_ms, has_manifest: true, mark, elsewhere, is_of_host });
    }
    let loose = listing.files.iter().filter(|file| file.address.instance == instance && !claimed.contains(&file.key));
    for group in group(loose.map(|file| (file.key, file.address, file.header.name()))) {
        let records = of_keys(&group.keys.iter().copied().collect());
        let identity = identity_of_files(records.iter().copied());
        let mut files: Vec<&str> = records.iter().map(|file| file.name.as_str()).collect();
        // An unreadable manifest belongs to the files: without it they would pass for ASMT's.
        let is_its = |name: &str| match &group.name {
            Some(own) => name == manifest_name(instance, own),
            None => instance_of_manifest_name(name) == Some(instance),
        };
        let unreadable = listing.manifests.iter().filter(|record| record.manifest.is_err()).map(|record| record.name.as_str());
        let refused = listing.problems.iter().map(|(name, _)| name.as_str());
        files.extend(unreadable.chain(refused).filter(|name| is_its(name)));
        let mark = mark_of(listing, instance, group.name.as_ref(), &identity, &mut files);
        found.push(Found {
            title: title_of(&group),
            files,
            made_ms: identity.made_ms,
            has_manifest: false,
            mark,
            elsewhere: None,
            is_of_host: true,
        });
    }
    found
}

/// The other server to which a backup belongs; `None` if it may be this one's.
pub(super) fn elsewhere(manifest: &Manifest, here: &Host) -> Option<String> {
    if !is_of_host(manifest, here) {
        return Some(format!("host '{}'", manifest.host));
    }
    (!may_be_of_server(manifest, here)).then(|| "another IPC namespace (container) of this boot".to_owned())
}

/// The mark of this very backup. Its name is added to the backup's files.
fn mark_of<'l>(
    listing: &'l Listing,
    instance: u8,
    name: Option<&NamespaceName>,
    identity: &Identity,
    files: &mut Vec<&'l str>,
) -> Option<&'l UsageMark> {
    let own_name = used_name(instance, name?);
    let (mark_name, mark) = listing.marks.iter().find(|(name, _)| *name == own_name)?;
    let mark = mark.as_ref().ok().filter(|mark| mark.is_of(identity))?;
    files.push(mark_name);
    Some(mark)
}

/// The day of a time: people know a backup by its day.
fn day(ms: u64) -> String {
    rfc3339(ms).split('T').next().unwrap_or_default().to_owned()
}

fn message(found: &Found<'_>, listing: &Listing, own_title: &str, first: &str) -> String {
    let path = listing.directory.as_ref().map_or("the directory", |directory| &directory.path);
    let state = match found.mark {
        Some(UsageMark { retired: Some(retired), .. }) => format!("retired on {}", day(retired.at_ms)),
        Some(mark) if mark.restores.iter().any(|used| used.has_served) => "the server has run since".to_owned(),
        Some(mark) => mark
            .restores
            .last()
            .map_or_else(|| "not restored yet".to_owned(), |last| format!("a restore was started on {}", day(last.at_ms))),
        None => "not restored yet".to_owned(),
    };
    let manifest = if found.has_manifest { "" } else { ", without a manifest" };
    let for_whom = if found.title == own_title { String::new() } else { format!("{own_title}: ") };
    let nsid = if found.title == own_title { "" } else { " under the same nsid" };
    let elsewhere = found.elsewhere.as_ref().map_or(String::new(), |of| format!(" from {of}"));
    format!(
        "{for_whom}{path} already contains a backup of {}{elsewhere}{nsid} ({}, {state}{manifest}): {} files, the first is {first}",
        found.title,
        day(found.made_ms),
        found.files.len()
    )
}

/// A hint how to move a backup. It must be moved as a whole: the rest would be taken for another
/// backup.
fn hint(found: &Found<'_>, listing: &Listing, is_replaceable: bool) -> String {
    let Some(directory) = &listing.directory else { return "use another directory".to_owned() };
    if found.elsewhere.is_some() {
        return "the backup belongs to another server: leave it where it is, and use a separate directory for this server; if \
            the other server is gone for good, you can move its backup away first"
            .to_owned();
    }
    let path = shell_word(directory.path.trim_end_matches('/'));
    let files = patterns(&found.files).into_iter().map(|pattern| format!("{path}/{pattern}")).collect::<Vec<_>>().join(" ");
    // The name has the time to the second, because another backup of the same day may have been
    // moved there already.
    let place = format!("{path}/{SET_ASIDE_PREFIX}{}", rfc3339(found.made_ms).replace(['-', ':'], ""));
    let move_it = format!("mkdir -p -m 0700 {place} && mv {files} {place}");
    let replace_it = if is_replaceable {
        "add --replace, which keeps it until the new one is complete, unless it is outdated; or "
    } else {
        ""
    };
    match found.mark {
        Some(UsageMark { retired: Some(_), .. }) => {
            format!(
                "{replace_it}use another directory, or move it away: {move_it}; or, because it is retired, remove exactly its \
                 files: rm {files}"
            )
        }
        Some(mark) if !mark.restores.is_empty() => {
            format!("{replace_it}use another directory, or move it away: {move_it}; keep it there until the new backup is made")
        }
        _ => format!(
            "{replace_it}use another directory, or move it away: {move_it}; it has not been restored yet: do not remove it"
        ),
    }
}

/// Shell patterns that match exactly these files of a backup, because stages and stripes are many.
fn patterns(files: &[&str]) -> Vec<String> {
    /// Digits of a key for type, instance and nsid. The other three are the number of a stage or
    /// stripe.
    const PREFIX: usize = 5;
    let mut patterns: Vec<String> = Vec::new();
    for file in files {
        let pattern = match (parse_file_name(file), file.get(..PREFIX), file.get(8..)) {
            (Some(_), Some(prefix), Some(suffix)) => format!("{prefix}???{suffix}"),
            _ => shell_word(file),
        };
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_each_kind_of_file_once_and_as_it_is_written() {
        let files = ["ad005000.dat.gz", "ad005001.dat.gz", "ae001000.dat", "ae001100.dat.gz", "AE001101.dat.gz"];
        let others = ["asmt-manifest-0-test.json", "asmt-used-0-a b.json"];
        assert_eq!(
            patterns(&[files.as_slice(), others.as_slice()].concat()),
            [
                "ad005???.dat.gz",
                "ae001???.dat",
                "ae001???.dat.gz",
                "AE001???.dat.gz",
                "asmt-manifest-0-test.json",
                "'asmt-used-0-a b.json'"
            ]
        );
    }
}
