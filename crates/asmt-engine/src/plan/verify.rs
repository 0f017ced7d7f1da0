//! Plans the reading of a backup: what is there must be whole, committed and consistent.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::directory::{FileRecord, Interrupted, Listing};
use crate::format::journal::published_name;
use crate::format::mark::is_used_name;
use crate::format::{
    MANIFEST_VERSION, MAX_DEFLATE_RATIO, Manifest, ManifestError, ManifestSegment, manifest_name, parse_file_name,
};
use crate::hints::{self, shell_word};
use crate::layout::namespace::{Group, group, missing_or_extra};
use crate::plan::access::{FileAccess, Purpose, check_directory, check_files};
use crate::plan::checks::{Place, bears_name, check_base, choose, torn_set};
use crate::plan::titles::{title, title_of};
use crate::plan::{Contents, NamespaceRestore, Plan, Request, Source};
use asmt_shm::{Address, Header, Key, MAX_SEGMENT_BYTES, NamespaceName, SegmentType};
use std::collections::{BTreeMap, BTreeSet};

/// Plans the reading of a backup: what is there must be whole, committed and consistent.
pub fn verify(listing: &Listing, request: &Request) -> Plan<NamespaceRestore> {
    let mut plan = Plan::new();
    check_directory(listing, &request.caller, Purpose::Read, &mut plan.refusals);
    let in_instance = |file: &&FileRecord| file.address.instance == request.instance;
    let records: BTreeMap<Key, &FileRecord> = listing.files.iter().filter(in_instance).map(|file| (file.key, file)).collect();
    let manifests: Vec<&Manifest> = listing
        .manifests
        .iter()
        .filter_map(|record| record.manifest.as_ref().ok())
        .filter(|manifest| manifest.instance == request.instance)
        .collect();
    // A manifest claims its files; what no manifest claims is grouped by the names in the files.
    let claimed: BTreeSet<Key> = manifests.iter().flat_map(|manifest| &manifest.segments).map(|segment| segment.key).collect();
    let mut groups: Vec<Group> = manifests
        .iter()
        .map(|manifest| Group {
            instance: manifest.instance,
            name: Some(manifest.namespace.clone()),
            nsid: manifest.nsid,
            keys: manifest.segments.iter().map(|segment| segment.key).collect(),
        })
        .collect();
    let unclaimed = records.values().filter(|file| !claimed.contains(&file.key));
    for loose in group(unclaimed.map(|file| (file.key, file.address, file.header.name()))) {
        let owner = groups
            .iter()
            .find(|group| group.name == loose.name && loose.name.is_some() || loose.nsid.is_some() && group.nsid == loose.nsid);
        match owner {
            Some(owner) => plan.refusals.extend(loose.keys.iter().map(|key| {
                let name = &records[key].name;
                let message = format!("{}: {name} is not in its manifest", title_of(owner));
                Problem::new(Code::ExtraFile, message, hints::NOT_IN_MANIFEST).in_file(name)
            })),
            None => groups.push(loose),
        }
    }
    check_interrupted(listing, request, &groups, &mut plan);
    let others = listing.files.iter().filter(|file| file.address.instance != request.instance);
    groups.extend(group(others.map(|file| (file.key, file.address, file.header.name()))));
    let has_refused = plan.refusals.iter().any(|problem| !problem.code.is_about_access());
    if !has_refused || !groups.is_empty() {
        let directory = Directory { listing, records: &records, request };
        for group in choose(groups, request, false, &Place::Backup, &mut plan) {
            let manifest = manifests.iter().find(|manifest| Some(&manifest.namespace) == group.name.as_ref());
            match manifest {
                Some(manifest) => directory.with_manifest(manifest, &group, &mut plan),
                None => {
                    let own_name = group.name.as_ref().map(|name| manifest_name(group.instance, name));
                    // One that cannot be used, or not be read, is refused below; this is no backup
                    // of ASMT's then.
                    let there = listing.manifests.iter().map(|record| &record.name);
                    let is_asmts =
                        !there.chain(listing.problems.iter().map(|(name, _)| name)).any(|name| Some(name) == own_name.as_ref());
                    directory.without_manifest(&group, is_asmts, &mut plan);
                }
            }
        }
    }
    explain_set_aside(listing, &mut plan.refusals);
    check_other_files(listing, request, &mut plan);
    plan
}

/// Where nothing is found because a backup was moved aside, says where it is.
fn explain_set_aside(listing: &Listing, refusals: &mut [Problem]) {
    let (Some(directory), Some(last)) = (&listing.directory, listing.set_aside.last()) else { return };
    for refusal in refusals.iter_mut().filter(|problem| problem.code == Code::NothingFound) {
        let path = directory.path.trim_end_matches('/');
        refusal.message = format!("{}; a backup was moved from here to {}", refusal.message, listing.set_aside.join(", "));
        refusal.hint = format!(
            "{}; use the backup that was moved only if the server has not run since it was made: give its directory, {}",
            refusal.hint,
            shell_word(&format!("{path}/{last}"))
        );
    }
}

/// Refuses where an interrupted backup, or one still at work, is what was asked for.
pub fn check_interrupted(listing: &Listing, request: &Request, groups: &[Group], plan: &mut Plan<NamespaceRestore>) {
    for run in &listing.leftovers.live {
        plan.refuse(
            Code::AnotherAsmt,
            format!("another asmt (pid {}) is using the directory", run.pid),
            "wait until it has finished",
        );
    }
    let is_asked = |found: &Interrupted| {
        let is_named =
            request.namespaces.as_ref().is_none_or(|names| names.iter().any(|asked| asked.as_str() == found.namespace));
        found.instance == request.instance && is_named
    };
    for found in listing.leftovers.interrupted.iter().filter(|found| is_asked(found)) {
        plan.refuse(
            Code::BackupIncomplete,
            format!(
                "the backup or export of {} was interrupted before it was committed",
                title(&found.namespace, found.instance)
            ),
            hints::INTERRUPTED,
        );
    }
    let has_refused = plan.refusals.iter().any(|problem| !problem.code.is_about_access());
    let is_of_backup = |name: &&String| !is_used_name(published_name(name));
    let left: Vec<&String> = listing.leftovers.sweep.iter().filter(is_of_backup).collect();
    if let Some(first) = left.first().filter(|_| groups.is_empty() && !has_refused) {
        plan.refuse(
            Code::BackupIncomplete,
            format!(
                "the directory contains {} files of a backup or export that was interrupted before it was committed, and no other \
                 backup; the first is {first} (ls -A shows hidden files)",
                left.len()
            ),
            hints::INTERRUPTED,
        );
    }
}

/// Refuses for files that bear the name of a segment or manifest of this instance and cannot be
/// read as such.
pub fn check_other_files(listing: &Listing, request: &Request, plan: &mut Plan<NamespaceRestore>) {
    let manifest_prefix = format!("asmt-manifest-{}-", request.instance);
    let is_asked_manifest = |name: &str| match &request.namespaces {
        None => name.starts_with(&manifest_prefix),
        Some(names) => names.iter().any(|asked| manifest_name(request.instance, asked) == name),
    };
    for record in &listing.manifests {
        let Err(error) = &record.manifest else { continue };
        if !is_asked_manifest(&record.name) {
            continue;
        }
        let problem = match error {
            ManifestError::TooNew(version) => Problem::new(
                Code::ManifestTooNew,
                format!("{} has format version {version}, expected at most {MANIFEST_VERSION}", record.name),
                "use the asmt that made this backup, or a newer one",
            ),
            ManifestError::Damaged(text) => {
                Problem::new(Code::ManifestDamaged, format!("{} is damaged: {text}", record.name), hints::UNCHECKED)
            }
        };
        plan.refusals.push(problem.in_file(&record.name));
    }
    let is_asked = |name: &NamespaceName| request.namespaces.as_ref().is_none_or(|names| names.contains(name));
    for (name, problem) in &listing.problems {
        let of_instance = parse_file_name(name).is_some_and(|(_, address, _)| address.instance == request.instance);
        let owner = owner_of(listing, name);
        if of_instance && owner.is_none_or(is_asked) || is_asked_manifest(name) {
            let problem = stray(listing, name).unwrap_or_else(|| problem.clone());
            plan.refusals.push(match owner {
                Some(owner) => problem.of(owner),
                None => problem,
            });
        }
    }
}

/// Manifests that can be read, of an instance.
fn readable(listing: &Listing, instance: u8) -> impl Iterator<Item = &Manifest> {
    let manifests = listing.manifests.iter().filter_map(|record| record.manifest.as_ref().ok());
    manifests.filter(move |manifest| manifest.instance == instance)
}

/// The namespace that a file belongs to, as far as manifests and headers tell.
fn owner_of<'l>(listing: &'l Listing, name: &str) -> Option<&'l NamespaceName> {
    let (key, address, _) = parse_file_name(name)?;
    let is_claimed = |manifest: &&Manifest| manifest.segments.iter().any(|segment| segment.key == key);
    let has_nsid = |manifest: &&Manifest| address.segment_type.is_index() && manifest.nsid == Some(address.nsid);
    let manifests = || readable(listing, address.instance);
    if let Some(manifest) = manifests().find(is_claimed).or_else(|| manifests().find(has_nsid)) {
        return Some(&manifest.namespace);
    }
    let own = listing.files.iter().find(|file| file.name == name).and_then(|file| file.header.name());
    let is_base = |file: &&FileRecord| {
        let of_base = Address { segment_type: SegmentType::PiBase, index: 0, ..address };
        address.segment_type.is_index() && file.address == of_base
    };
    own.or_else(|| listing.files.iter().find(is_base)?.header.name())
}

/// A file in the other form of a segment whose own file is there: somebody has compressed or
/// unpacked that.
fn stray(listing: &Listing, name: &str) -> Option<Problem> {
    let (key, address, encoding) = parse_file_name(name)?;
    let mut segments = readable(listing, address.instance).flat_map(|manifest| &manifest.segments);
    let own = segments.find(|segment| segment.key == key && segment.encoding != encoding)?.file_name();
    let is_there = listing.files.iter().any(|file| file.name == own);
    let hint = format!("move {name} out of the directory, and keep it: the manifest names {own}");
    let text = format!("{name} and {own} are both files of segment {key}, expected only the second");
    is_there.then(|| Problem::new(Code::ExtraFile, text, hint).in_file(name))
}

/// What the namespaces of a directory share while each is planned.
struct Directory<'l> {
    listing: &'l Listing,
    /// Files of the instance.
    records: &'l BTreeMap<Key, &'l FileRecord>,
    request: &'l Request,
}

impl Directory<'_> {
    /// Plans a namespace by its manifest.
    fn with_manifest(&self, manifest: &Manifest, group: &Group, plan: &mut Plan<NamespaceRestore>) {
        let Self { listing, records, request } = *self;
        let title = title_of(group);
        let own = listing.manifests.iter().filter(|record| record.manifest.as_ref() == Ok(manifest));
        let files = manifest.segments.iter().filter_map(|segment| {
            let record = records.get(&segment.key)?;
            Some(FileAccess::of_file(record, segment.uid))
        });
        let all = own.map(FileAccess::of_manifest).chain(files);
        check_files(listing, &title, &request.caller, all, &mut plan.refusals);
        // What is there and cannot be read is refused for that.
        let unreadable: BTreeSet<Key> =
            listing.problems.iter().filter_map(|(name, _)| parse_file_name(name)).map(|(key, ..)| key).collect();
        let (mut sources, mut headers, mut sound) = (Vec::new(), Vec::new(), Vec::new());
        for segment in &manifest.segments {
            let file = segment.file_name();
            let damage = |code, text: String| Problem::new(code, format!("{title}: {text}"), hints::DAMAGED).in_file(&file);
            let Some(record) = records.get(&segment.key) else {
                if unreadable.contains(&segment.key) {
                    continue;
                }
                let mut problem = damage(Code::BackupIncomplete, format!("{file} is missing"));
                if segment.address.segment_type == SegmentType::PiBase {
                    hints::WITHOUT_BASE.clone_into(&mut problem.hint);
                }
                plan.refusals.push(problem);
                continue;
            };
            if record.encoding != segment.encoding {
                let mut problem = damage(Code::ExtraFile, format!("found {}, expected {file}", record.name));
                hints::OTHER_ENCODING.clone_into(&mut problem.hint);
                plan.refusals.push(problem);
                continue;
            }
            headers.push((segment.address, &record.header));
            let wrong = unlike_manifest(manifest, segment, record, &title);
            if !wrong.is_empty() {
                plan.refusals.extend(wrong);
                continue;
            }
            sound.push((segment.address, &record.header));
            sources.push(source_of_segment(segment, record));
        }
        if headers.len() == manifest.segments.len() {
            for text in missing_or_extra(&headers) {
                plan.refuse(Code::BackupIncomplete, format!("{title}: {text}"), hints::DAMAGED);
            }
        }
        let base_version = check_base(&headers, &title, &Place::Backup, &mut plan.refusals);
        let is_all = sound.len() == manifest.segments.len();
        plan.refusals.extend(torn_set(&sound, &manifest.namespace, is_all, &title, &Place::Backup));
        plan.namespaces.push(NamespaceRestore {
            instance: manifest.instance,
            name: manifest.namespace.clone(),
            nsid: manifest.nsid,
            base_version,
            created_ms: Some(manifest.created_ms),
            sources,
        });
    }

    /// Plans a namespace without a manifest: ASMT's, unless its manifest is there and cannot be
    /// used.
    fn without_manifest(&self, group: &Group, is_asmts: bool, plan: &mut Plan<NamespaceRestore>) {
        let Self { listing, records, request } = *self;
        let title = title_of(group);
        let files: Vec<&FileRecord> = group.keys.iter().map(|key| records[key]).collect();
        // A file's owner is the segment's here, and may write to it.
        let owned = files.iter().map(|file| FileAccess::of_file(file, file.uid));
        check_files(listing, &title, &request.caller, owned, &mut plan.refusals);
        if let Some(own) = files.iter().find(|file| !file.encoding.is_asmts()) {
            // What cannot be read is refused for that, and may be the manifest.
            if is_asmts && listing.problems.is_empty() {
                let text =
                    format!("{title}: {} is a file of a form that only asmt has, and there is no manifest for it", own.name);
                plan.refusals.push(Problem::new(Code::BackupIncomplete, text, hints::INCOMPLETE).in_file(&own.name));
            }
            return;
        }
        if request.require_manifest && is_asmts {
            plan.refuse(
                Code::ManifestRequired,
                format!("{title}: there is no manifest, but --require-manifest was given"),
                "omit --require-manifest to restore a backup made by ASMT, whose uncompressed files cannot be checked",
            );
        }
        let headers: Vec<(Address, &Header)> = files.iter().map(|file| (file.address, &file.header)).collect();
        // What is there and cannot be read is refused for that, and is not missing.
        let is_unreadable =
            |(name, _): &(String, _)| parse_file_name(name).is_some_and(|(_, address, _)| address.instance == group.instance);
        let is_all = !listing.problems.iter().any(is_unreadable);
        let missing = if is_all { missing_or_extra(&headers) } else { Vec::new() };
        for text in missing {
            plan.refuse(Code::BackupIncomplete, format!("{title}: {text}"), hints::INCOMPLETE);
        }
        let Some(name) = &group.name else {
            if let Some(nameless) = files.iter().find(|file| bears_name(file.address)) {
                plan.refuse(Code::ContentDamaged, format!("{title}: {} has no namespace name", nameless.name), hints::DAMAGED);
            }
            return;
        };
        let wrong = files.iter().filter_map(|file| Some((file.key, wrong_size(file, &title)?)));
        let (ill_sized, wrong): (BTreeSet<Key>, Vec<Problem>) = wrong.unzip();
        plan.refusals.extend(wrong);
        let base_version = check_base(&headers, &title, &Place::Backup, &mut plan.refusals);
        plan.refusals.extend(torn_set(&headers, name, is_all, &title, &Place::Backup));
        let plain_count = files.iter().filter(|file| file.encoding.is_plain()).count();
        plan.remarks.extend(stage_size_remark(&files, &title));
        if is_asmts {
            let text = format!(
                "{title}: made by ASMT, without a manifest: {plain_count} of {} files are uncompressed and cannot be checked for \
             damage",
                files.len()
            );
            plan.remarks.push(Remark::new(NoteCode::NoManifest, text));
        }
        let sources = files.iter().filter(|file| !ill_sized.contains(&file.key)).map(|file| source_of_file(file));
        plan.namespaces.push(NamespaceRestore {
            instance: group.instance,
            name: name.clone(),
            nsid: group.nsid,
            base_version,
            created_ms: None,
            sources: sources.collect(),
        });
    }
}

/// Memory that a segment of a manifest needs, at least and at most.
pub fn memory_of(segment: &ManifestSegment, record: &FileRecord) -> (u64, u64) {
    let without_zeros = segment.size_bytes.saturating_sub(segment.zero_bytes());
    match (segment.data_bytes, segment.most_data_bytes(), segment.encoding.is_plain()) {
        // What is read straight into its place is what the file has, if that is not much more than
        // the segment had.
        (Some(data), Some(most), true) if record.allocated_bytes <= most => {
            let needed = data.max(record.allocated_bytes).min(without_zeros);
            (needed, needed)
        }
        (Some(data), ..) => (data.min(without_zeros), data.min(without_zeros)),
        // Not noted. A plain file keeps holes that are smaller than a chunk, too.
        (None, _, true) => {
            let needed = without_zeros.min(record.allocated_bytes);
            (needed, needed)
        }
        (None, _, false) => (without_zeros.min(segment.file_bytes), without_zeros),
    }
}

/// How a file differs from what its manifest says of it.
fn unlike_manifest(manifest: &Manifest, segment: &ManifestSegment, record: &FileRecord, title: &str) -> Vec<Problem> {
    let file = segment.file_name();
    let damage = |code, text: String| Problem::new(code, format!("{title}: {text}"), hints::DAMAGED).in_file(&file);
    let mut found = Vec::new();
    if record.file_bytes != segment.file_bytes {
        let text = format!("{file} has {} bytes, expected {}", record.file_bytes, segment.file_bytes);
        found.push(damage(Code::WrongSize, text).at(record.file_bytes.min(segment.file_bytes)));
    }
    if record.size_bytes != segment.size_bytes && !record.encoding.is_plain()
        || record.crc32.is_some_and(|crc32| crc32 != segment.crc32)
    {
        let text = format!(
            "the header of {file} says {} bytes and CRC-32 {:08x}, expected {} and {:08x}",
            record.size_bytes,
            record.crc32.unwrap_or(0),
            segment.size_bytes,
            segment.crc32
        );
        found.push(damage(Code::ContentDamaged, text).at(0));
    }
    if record.header.name().is_some_and(|name| *name != manifest.namespace) || record.header == Header::Unreadable {
        let name = record.header.name().map_or("?", NamespaceName::as_str);
        let text = format!("{file} belongs to namespace '{name}', expected '{}'", manifest.namespace);
        found.push(damage(Code::ContentDamaged, text));
    }
    found
}

fn source_of_segment(segment: &ManifestSegment, record: &FileRecord) -> Source {
    let (least_memory_bytes, most_memory_bytes) = memory_of(segment, record);
    Source {
        allocated_bytes: record.allocated_bytes,
        least_memory_bytes,
        most_memory_bytes,
        ..Source::of_segment(segment, record.name.clone())
    }
}

/// Why the size that a file without a manifest claims for its segment cannot be right.
fn wrong_size(file: &FileRecord, title: &str) -> Option<Problem> {
    let least = file.address.segment_type.min_bytes();
    // A deflate stream cannot grow more: a header that says so lies, and its size must not be
    // believed.
    let most = if !file.encoding.is_plain() { file.file_bytes.saturating_mul(MAX_DEFLATE_RATIO) } else { u64::MAX };
    let most = most.min(MAX_SEGMENT_BYTES);
    let message = format!(
        "{title}: {} ({} bytes) says its segment has {} bytes, expected {least} to {most}",
        file.name, file.file_bytes, file.size_bytes
    );
    let is_wrong = file.size_bytes < least || file.size_bytes > most;
    is_wrong.then(|| Problem::new(Code::WrongSize, message, hints::DAMAGED).in_file(&file.name))
}

fn source_of_file(file: &FileRecord) -> Source {
    Source {
        key: file.key,
        address: file.address,
        size_bytes: file.size_bytes,
        uid: file.uid,
        gid: file.gid,
        mode: file.mode,
        file: file.name.clone(),
        file_bytes: file.file_bytes,
        encoding: file.encoding,
        contents: file.crc32.map_or(Contents::Plain, |crc32| Contents::Stream { crc32 }),
        allocated_bytes: file.allocated_bytes,
        // ASMT writes zeros for what a segment never held, which compress to next to nothing.
        least_memory_bytes: if file.encoding.is_plain() { 0 } else { file.size_bytes.min(file.allocated_bytes) },
        most_memory_bytes: file.size_bytes,
    }
}

/// Without a manifest a plain file's size is all that tells the size of its segment. Base says what
/// a stage has; that field decides nothing, but a file that was cut short would be restored in
/// silence.
pub fn stage_size_remark(files: &[&FileRecord], title: &str) -> Option<Remark> {
    let expected =
        files.iter().find_map(|file| if let Header::Base(base) = &file.header { Some(base.stage_bytes) } else { None })?;
    let odd = files
        .iter()
        .find(|file| file.address.segment_type == SegmentType::PiStage && file.size_bytes != expected && expected > 0)?;
    let text =
        format!("{title}: the stage in {} has {} bytes, but base says {expected}: is it truncated?", odd.name, odd.size_bytes);
    Some(Remark::new(NoteCode::StageSize, text))
}
