//! What a preflight says: the plans of a backup and of a restore, each refusal on a line of its
//! own, and what decides beside them whether a night ends with a warm restart.
//!
//! Pure. Promise: a line is ready only if that was found out; what cannot be told is unknown. The
//! refusals are those of the plans that `--analyze` makes. Must never: judge anew what a plan has
//! judged.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::caller::Caller;
use crate::facts::directory::Target;
use crate::facts::memory::{Inventory, Segment};
use crate::facts::server::Configuration;
use crate::facts::units::Systemd;
use crate::format::{Form, Manifest, ServerBinary};
use crate::layout::server_config::{DATA_SIZE, NamespaceConfig, Storage};
use crate::plan::left_out::keeps_its_index;
use crate::plan::room::{memory_left, memory_needed};
use crate::plan::{NamespaceBackup, NamespaceRestore, Plan, data_bytes, title, written};
use asmt_shm::{NamespaceName, SegmentType};
use std::collections::{BTreeMap, BTreeSet};

mod changed;
pub mod page;
mod stopped;
mod system;
mod words;

pub use page::{Answer, Check, NamespaceReadiness, Preflight, Topic};
pub use stopped::{Holder, Stopped, after_stop, stopped, trust_devices};
use words::{count, size, span};

/// How fast something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speed {
    /// So many bytes of data in so many microseconds, as a short try showed.
    Tried {
        /// Bytes.
        bytes: u64,
        /// Microseconds.
        elapsed_us: u64,
    },
    /// It was not tried. The reason.
    Untold(String),
}

/// What was found.
pub struct Facts<'f> {
    /// Instance.
    pub instance: u8,
    /// Namespaces that were asked for; `None` for all.
    pub names: Option<&'f [NamespaceName]>,
    /// The directory, if one was named.
    pub directory: Option<&'f str>,
    /// The form of the files of a backup.
    pub form: Form,
    /// Who asks.
    pub caller: &'f Caller,
    /// The server's configuration.
    pub configuration: &'f Configuration,
    /// The segments in memory.
    pub inventory: &'f Inventory,
    /// The segments after a clean stop, if a server holds them.
    pub stopped: Option<&'f Stopped>,
    /// The plan of a backup, if one is judged: as after a clean stop.
    pub backup: Option<&'f Plan<NamespaceBackup>>,
    /// The plan of a restore, if one is judged.
    pub restore: Option<&'f Plan<NamespaceRestore>>,
    /// Memory for the restore: as after a reboot, if that is how it was judged.
    pub restore_inventory: Option<&'f Inventory>,
    /// The segments that were backed up are still in memory.
    pub is_after_reboot: bool,
    /// The readable manifests of the instance in the directory.
    pub manifests: &'f [&'f Manifest],
    /// The target of a backup.
    pub target: Option<&'f Target>,
    /// Something that an interrupted backup has left goes before the next one.
    pub has_leftovers: bool,
    /// How fast the target was written to.
    pub writing: &'f Speed,
    /// How fast the backup was read.
    pub reading: &'f Speed,
    /// systemd.
    pub systemd: &'f Systemd,
    /// The server's program.
    pub binary: Option<&'f ServerBinary>,
}

/// Judges what was found.
pub fn judge(facts: &Facts<'_>) -> Preflight {
    let mut checks = server(facts);
    let mut seen = BTreeSet::new();
    if let Some(plan) = facts.backup {
        checks.extend(refusals(facts, &plan.refusals, Topic::Backup, &mut seen));
        checks.extend(backup(facts, plan));
        checks.extend(notes(&plan.remarks, Topic::Backup, &mut seen));
    }
    if let Some(plan) = facts.restore {
        checks.extend(refusals(facts, &plan.refusals, Topic::Restore, &mut seen));
        checks.extend(restore(facts, plan));
        checks.extend(notes(&plan.remarks, Topic::Restore, &mut seen));
    }
    checks.extend(room(facts, &checks));
    checks.extend(memory(facts, &checks));
    checks.extend(rights(facts, &checks));
    let (time, backup_ms, restore_ms) = time(facts);
    checks.extend(time);
    let (of_system, times) = system::checks(facts.instance, facts.systemd, facts.backup.is_some(), backup_ms);
    checks.extend(of_system);
    checks.extend(stripe_sizes(facts));
    if facts.restore.is_some() && !facts.manifests.is_empty() {
        let has_refused = checks.iter().any(|check| check.code == Some(Code::SettingChanged));
        checks.extend(changed::since(facts.manifests, facts.configuration, facts.binary, has_refused));
    }
    let namespaces = namespaces(facts);
    for namespace in namespaces.iter().filter(|namespace| !namespace.why.is_empty()) {
        checks.push(Check::note(Topic::Applies, format!("{}: {}", title(&namespace.name, facts.instance), namespace.why)));
    }
    checks.sort_by_key(|check| check.topic);
    let is_ready = |check: &Check| matches!(check.answer, Answer::Ready | Answer::Note);
    let planned = facts.backup.filter(|plan| !plan.namespaces.is_empty());
    let restored = facts.restore.filter(|plan| !plan.namespaces.is_empty());
    Preflight {
        ready: checks.iter().all(is_ready),
        backup: facts.backup.is_some(),
        restore: facts.restore.is_some(),
        server_runs: facts.stopped.is_some(),
        after_reboot: facts.is_after_reboot,
        namespaces,
        checks,
        data_bytes: planned.map(|plan| data_bytes(&plan.namespaces)),
        free_bytes: facts.target.filter(|_| facts.backup.is_some()).and_then(|target| target.free_bytes),
        memory_bytes: restored.map(|plan| memory_needed(&plan.namespaces, |source| source.most_memory_bytes)),
        available_bytes: facts.restore_inventory.and_then(memory_left),
        backup_ms,
        restore_ms,
        stop_ms: times.stop_ms,
        reboot_ms: times.reboot_ms,
    }
}

/// The topic of a refusal.
fn topic_of(code: Code, of: Topic) -> Topic {
    match code {
        Code::DiskFull => Topic::Room,
        Code::NotEnoughMemory | Code::SystemLimit => Topic::Memory,
        Code::SettingChanged => Topic::Changed,
        Code::PermissionDenied
        | Code::WritableByOthers
        | Code::PathWritableByOthers
        | Code::ForeignSegments
        | Code::ModesNotKept => Topic::Rights,
        _ => of,
    }
}

/// The refusals of a plan; what both plans refuse is said once.
fn refusals(facts: &Facts<'_>, problems: &[Problem], of: Topic, seen: &mut BTreeSet<String>) -> Vec<Check> {
    // The name that was asked for may belong to an index whose name nothing shows yet.
    let is_unnamed = |problem: &Problem| {
        let is_missing = matches!(problem.code, Code::NamespaceMissing | Code::NothingFound) && problem.namespace.is_some();
        of == Topic::Backup && is_missing && facts.stopped.is_some_and(|stopped| !stopped.unnamed.is_empty())
    };
    let of_problem = |problem: &Problem| {
        let check = Check::of(topic_of(problem.code, of), problem);
        if is_unnamed(problem) { Check { answer: Answer::Unknown, ..check } } else { check }
    };
    problems.iter().filter(|problem| seen.insert(problem.message.clone())).map(of_problem).collect()
}

fn notes(remarks: &[Remark], of: Topic, seen: &mut BTreeSet<String>) -> Vec<Check> {
    // These have lines of their own.
    let is_said =
        |remark: &&Remark| matches!(remark.code, NoteCode::RoomUncertain | NoteCode::IndexPersists | NoteCode::IndexCheckpoint);
    let others = remarks.iter().filter(|remark| !is_said(remark)).filter(|remark| seen.insert(remark.message.clone()));
    others.map(|remark| Check::note(of, &remark.message)).collect()
}

/// Whether the server runs, and what that means.
fn server(facts: &Facts<'_>) -> Vec<Check> {
    let of_instance = || facts.inventory.segments.values().filter(|segment| segment.address.instance == facts.instance);
    let Some(stopped) = facts.stopped else {
        return vec![if of_instance().next().is_none() {
            Check::note(Topic::Server, format!("nothing of instance {} is in shared memory", facts.instance))
        } else if of_instance().all(|segment| segment.stat.attached_count == 0) {
            Check::ready(Topic::Server, "no process has its segments attached")
        } else {
            Check::note(Topic::Server, "another process than the server has its segments attached")
        }];
    };
    let who = match stopped.holder {
        Holder::Server { pid } => format!("it runs (pid {pid})"),
        Holder::Unseen => "a process that cannot be seen from here has its segments attached, most likely the server".to_owned(),
    };
    let text = if facts.backup.is_some() {
        format!("{who}: it must be stopped first. What is said of a backup is for the time after a clean stop")
    } else {
        who
    };
    let mut checks = vec![Check::note(Topic::Server, text)];
    if !stopped.unnamed.is_empty() {
        let nsids: Vec<String> = stopped.unnamed.iter().map(ToString::to_string).collect();
        let of_unnamed = || of_instance().filter(|segment| is_unnamed(segment, stopped));
        let allocated = of_unnamed().map(|segment| segment.stat.size_bytes).fold(0, u64::saturating_add);
        let resident = of_unnamed().filter_map(|segment| segment.resident_bytes).fold(0, u64::saturating_add);
        let text = format!(
            "the names of nsid {} stand in memory only after the stop; together they have {}, of which {} resident",
            nsids.join(", "),
            size(allocated),
            size(resident)
        );
        checks.push(Check::note(Topic::Server, text));
    }
    checks
}

fn is_unnamed(segment: &Segment, stopped: &Stopped) -> bool {
    segment.address.segment_type.is_index() && stopped.unnamed.contains(&segment.address.nsid)
}

fn segments_of(segments: usize, namespaces: usize) -> String {
    format!("{} of {}", count(segments, "segment"), count(namespaces, "namespace"))
}

fn backup(facts: &Facts<'_>, plan: &Plan<NamespaceBackup>) -> Option<Check> {
    if facts.directory.is_none() {
        let text = "no directory was named: its state, its room and the time of a backup are unknown";
        return Some(Check::unknown(Topic::Backup, text, "name the directory: asmt preflight backup DIR"));
    }
    let is_refused = !plan.refusals.is_empty();
    let made = || written(&plan.namespaces);
    if made().next().is_none() && !plan.namespaces.is_empty() {
        let text = "the backup that is there is current: no other one would be made";
        return (!is_refused).then(|| Check::ready(Topic::Backup, text));
    }
    let number = made().map(|namespace| namespace.copies.len()).sum::<usize>();
    let when = if facts.stopped.is_some() { " after a clean stop" } else { "" };
    let what = segments_of(number, made().count());
    let text = format!("{what} would be backed up{when}");
    (!is_refused && number > 0).then(|| Check::ready(Topic::Backup, text))
}

fn restore(facts: &Facts<'_>, plan: &Plan<NamespaceRestore>) -> Option<Check> {
    let number = plan.namespaces.iter().map(|namespace| namespace.sources.len()).sum::<usize>();
    let what = segments_of(number, plan.namespaces.len());
    let text = if facts.is_after_reboot {
        format!("{what} would be restored after a reboot; until then they are in memory and clean, and nothing needs restoring")
    } else {
        format!("{what} would be restored")
    };
    (plan.refusals.is_empty() && number > 0).then(|| Check::ready(Topic::Restore, text))
}

/// Whether a topic has a refusal already.
fn has_refusal(checks: &[Check], topic: Topic) -> bool {
    checks.iter().any(|check| check.topic == topic && check.answer != Answer::Note)
}

fn room(facts: &Facts<'_>, checks: &[Check]) -> Option<Check> {
    let plan = facts.backup.filter(|plan| written(&plan.namespaces).next().is_some() && !has_refusal(checks, Topic::Room))?;
    let target = facts.target?;
    let needed = data_bytes(&plan.namespaces);
    let Some(free) = target.free_bytes else {
        let text = format!("the file system of {} does not say how much is free", target.path);
        return Some(Check::unknown(Topic::Room, text, "choose a directory on another file system"));
    };
    let found = format!("{} of data, and {} free at {}", size(needed), size(free), target.path);
    if needed <= free {
        return Some(Check::ready(Topic::Room, found));
    }
    let (why, hint) = if facts.has_leftovers {
        ("what an interrupted backup has left there is removed first, so whether they fit is unknown", "make room there")
    } else {
        ("whether they fit when they are compressed is known only once they are written", "make room there for all of it")
    };
    Some(Check::unknown(Topic::Room, format!("{found}: {why}"), format!("{hint}, or choose another directory")))
}

fn memory(facts: &Facts<'_>, checks: &[Check]) -> Option<Check> {
    let plan = facts.restore.filter(|plan| !plan.namespaces.is_empty() && !has_refusal(checks, Topic::Memory))?;
    let inventory = facts.restore_inventory?;
    let most = memory_needed(&plan.namespaces, |source| source.most_memory_bytes);
    let when = if facts.is_after_reboot { " after a reboot" } else { "" };
    Some(match memory_left(inventory) {
        None => {
            let text = format!("a restore needs {}; how much memory is available is unknown", size(most));
            Check::unknown(Topic::Memory, text, "look at MemAvailable in /proc/meminfo")
        }
        Some(left) if most <= left => {
            Check::ready(Topic::Memory, format!("a restore needs {}, and {} are available{when}", size(most), size(left)))
        }
        Some(left) => {
            let text = format!(
                "a restore needs up to {}, and {} are available{when}: whether it fits is unknown",
                size(most),
                size(left)
            );
            Check::unknown(Topic::Memory, text, "free memory before the restore; asmt restore -a reads the files to tell exactly")
        }
    })
}

fn rights(facts: &Facts<'_>, checks: &[Check]) -> Option<Check> {
    if has_refusal(checks, Topic::Rights) {
        return None;
    }
    let uid = facts.caller.uid;
    // A plan that was not made has looked at no right.
    let is_planned = facts.backup.is_none_or(|plan| !plan.namespaces.is_empty())
        && facts.restore.is_none_or(|plan| !plan.namespaces.is_empty());
    if !is_planned {
        return None;
    }
    let may = match (facts.backup.is_some(), facts.restore.is_some()) {
        (true, false) if facts.directory.is_none() => "may read the segments",
        (true, false) => "may read the segments, and write to the directory",
        (false, _) => "may read the backup, which nobody else may change",
        (true, true) => "may read the segments and the backup, and write to the directory",
    };
    Some(Check::ready(Topic::Rights, format!("uid {uid} {may}")))
}

/// How long a backup and a restore take.
fn time(facts: &Facts<'_>) -> (Vec<Check>, Option<u64>, Option<u64>) {
    let mut checks = Vec::new();
    let mut add = |verb: &str, bytes: u64, speed: &Speed, is_plain: bool| {
        let noted = facts.manifests.iter().find(|manifest| form_of(manifest) == facts.form || verb == "restore");
        let noted = noted.and_then(|manifest| manifest.noted.run).filter(|run| run.data_bytes >= 1 << 20 && run.elapsed_ms > 0);
        let per = |data: u64, us: u64| u128::from(bytes).saturating_mul(u128::from(us)) / u128::from(data.max(1)) / 1000;
        let (ms, how) = match (speed, noted) {
            // What a whole backup took says more than a moment.
            (_, Some(run)) if verb == "backup" => (
                per(run.data_bytes, run.elapsed_ms.saturating_mul(1000)),
                format!("the last one here took {} for {}", span(run.elapsed_ms), size(run.data_bytes)),
            ),
            (Speed::Tried { bytes: tried, elapsed_us }, _) if is_plain => {
                let second = u128::from(*tried).saturating_mul(1_000_000) / u128::from((*elapsed_us).max(1));
                let done = if verb == "backup" { "written" } else { "read" };
                (
                    per(*tried, *elapsed_us),
                    format!("a short try has {done} {}/s", size(u64::try_from(second).unwrap_or(u64::MAX))),
                )
            }
            (_, Some(run)) => (
                per(run.data_bytes, run.elapsed_ms.saturating_mul(1000)),
                format!("if it is as fast as the backup, which took {} for {}", span(run.elapsed_ms), size(run.data_bytes)),
            ),
            (Speed::Tried { .. }, None) => {
                let how = if verb == "backup" { "compresses" } else { "decompresses" };
                checks.push(Check::note(Topic::Time, format!("{verb}: unknown: how fast it {how} was not tried")));
                return None;
            }
            (Speed::Untold(why), None) => {
                checks.push(Check::note(Topic::Time, format!("{verb}: unknown: {why}")));
                return None;
            }
        };
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        checks.push(Check::ready(Topic::Time, format!("{verb}: about {} for {} of data ({how})", span(ms), size(bytes))));
        Some(ms)
    };
    let of_backup = facts.backup.filter(|plan| written(&plan.namespaces).next().is_some() && facts.directory.is_some());
    let backup_ms =
        of_backup.and_then(|plan| add("backup", data_bytes(&plan.namespaces), facts.writing, facts.form == Form::Plain));
    let of_restore = facts.restore.filter(|plan| !plan.namespaces.is_empty());
    let restore_ms = of_restore.and_then(|plan| {
        let most = memory_needed(&plan.namespaces, |source| source.most_memory_bytes);
        let is_plain = plan.namespaces.iter().flat_map(|namespace| &namespace.sources).any(|source| source.encoding.is_plain());
        let is_compressed = facts.manifests.iter().any(|manifest| form_of(manifest) != Form::Plain);
        add("restore", most, facts.reading, is_plain && !is_compressed)
    });
    (checks, backup_ms, restore_ms)
}

/// The form of a backup, by its files.
fn form_of(manifest: &Manifest) -> Form {
    use crate::format::Encoding;
    let has = |encoding| manifest.segments.iter().any(|segment| segment.encoding == encoding);
    match (has(Encoding::Columns) || has(Encoding::OwnRaw), has(Encoding::Gzip)) {
        (true, _) => Form::Columns,
        (false, true) => Form::Gzip,
        (false, false) => Form::Plain,
    }
}

/// The sizes of the stripes of each namespace: in memory, or else in the backup.
fn stripe_sizes(facts: &Facts<'_>) -> Vec<Check> {
    let Configuration::Read { path, config } = facts.configuration else { return Vec::new() };
    let mut stripes: BTreeMap<&NamespaceName, Vec<u64>> = BTreeMap::new();
    for source in facts.restore.iter().flat_map(|plan| &plan.namespaces) {
        let of_data = source.sources.iter().filter(|source| source.address.segment_type == SegmentType::DataStage);
        stripes.insert(&source.name, of_data.map(|source| source.size_bytes).collect());
    }
    let mut in_memory: BTreeMap<&NamespaceName, Vec<u64>> = BTreeMap::new();
    for segment in facts.inventory.segments.values().filter(|segment| segment.address.instance == facts.instance) {
        if let Some(name) = segment.header.name().filter(|_| segment.address.segment_type == SegmentType::DataStage) {
            in_memory.entry(name).or_default().push(segment.stat.size_bytes);
        }
    }
    stripes.extend(in_memory);
    stripes.retain(|name, sizes| !sizes.is_empty() && is_asked(facts, name));
    let of_name = |(name, sizes): (&NamespaceName, Vec<u64>)| {
        let setting = config.namespaces.get(name)?.settings.get(DATA_SIZE)?;
        Some(changed::stripe_size(name, &sizes, setting, path))
    };
    stripes.into_iter().filter_map(of_name).collect()
}

fn is_asked(facts: &Facts<'_>, name: &NamespaceName) -> bool {
    facts.names.is_none_or(|names| names.contains(name))
}

/// Each namespace that is in memory, in the backup or configured.
fn namespaces(facts: &Facts<'_>) -> Vec<NamespaceReadiness> {
    let inventory = facts.stopped.map_or(facts.inventory, |stopped| &stopped.inventory);
    let groups: Vec<_> = inventory.groups().into_iter().filter(|group| group.instance == facts.instance).collect();
    let mut names: BTreeSet<NamespaceName> = groups.iter().filter_map(|group| group.name.clone()).collect();
    names.extend(facts.configuration.config().into_iter().flat_map(|config| config.namespaces.keys().cloned()));
    names.extend(facts.restore.iter().flat_map(|plan| &plan.namespaces).map(|namespace| namespace.name.clone()));
    names.extend(facts.manifests.iter().filter(|_| facts.restore.is_some()).map(|manifest| manifest.namespace.clone()));
    names.retain(|name| is_asked(facts, name));
    let row = |name: &NamespaceName| {
        // Segments that have only just been thought up do not count.
        let segments: Vec<&Segment> = groups
            .iter()
            .filter(|group| group.name.as_ref() == Some(name))
            .flat_map(|group| &group.keys)
            .filter_map(|key| facts.inventory.segments.get(key))
            .collect();
        let in_backup = facts.restore.and_then(|plan| plan.namespaces.iter().find(|namespace| namespace.name == *name));
        let is_there = !segments.is_empty() || in_backup.is_some();
        let (applies, why) = applies(facts.configuration, name, is_there);
        let is_uncertain = facts.stopped.is_some_and(|stopped| segments.iter().any(|segment| is_unnamed(segment, stopped)));
        let sum = |of: fn(&Segment) -> u64| segments.iter().map(|segment| of(segment)).fold(0, u64::saturating_add);
        let is_resident_known = segments.iter().all(|segment| segment.resident_bytes.is_some());
        let is_in_memory = !segments.is_empty() && !is_uncertain;
        let file_sizes = in_backup.filter(|_| segments.is_empty());
        let is_refused = |problems: &[Problem]| problems.iter().any(|problem| is_about(problem, name, facts.instance));
        NamespaceReadiness {
            name: name.to_string(),
            applies,
            why,
            backup: facts
                .backup
                .filter(|_| !segments.is_empty())
                .map(|plan| plan.namespaces.iter().any(|namespace| namespace.name == *name) && !is_refused(&plan.refusals)),
            restore: facts.restore.filter(|_| in_backup.is_some()).map(|plan| !is_refused(&plan.refusals)),
            allocated_bytes: is_in_memory
                .then(|| sum(|segment| segment.stat.size_bytes))
                .or_else(|| file_sizes.map(|found| found.sources.iter().map(|source| source.size_bytes).sum())),
            resident_bytes: (is_in_memory && is_resident_known).then(|| sum(|segment| segment.resident_bytes.unwrap_or(0))),
        }
    };
    let mut rows: Vec<NamespaceReadiness> = names.iter().map(row).collect();
    let nameless = groups.iter().filter(|group| group.name.is_none() && facts.names.is_none());
    rows.extend(nameless.map(|group| {
        let segments = || group.keys.iter().filter_map(|key| facts.inventory.segments.get(key));
        let nsid = segments().next().map_or(0, |segment| segment.address.nsid);
        NamespaceReadiness {
            name: format!("(nsid {nsid}, no name)"),
            applies: true,
            why: String::new(),
            // Without a name, there is no backup.
            backup: facts.backup.map(|_| false),
            restore: None,
            allocated_bytes: Some(segments().map(|segment| segment.stat.size_bytes).sum()),
            resident_bytes: segments().map(|segment| segment.resident_bytes).sum(),
        }
    }));
    rows
}

/// Whether a refusal keeps a namespace from being backed up or restored: it is about the namespace,
/// or about no other one.
fn is_about(problem: &Problem, name: &NamespaceName, instance: u8) -> bool {
    let is_named = |text: &str| problem.message.starts_with(text);
    match &problem.namespace {
        Some(other) => other == name,
        None => !is_named("namespace '") || is_named(&title(name, instance)),
    }
}

/// Whether asmt applies to a namespace, and what there is to say about it.
fn applies(configuration: &Configuration, name: &NamespaceName, is_there: bool) -> (bool, String) {
    let Some(config) = configuration.config() else { return (is_there, String::new()) };
    let Some(namespace) = config.namespaces.get(name) else {
        return (is_there, "it is not in the server's configuration".to_owned());
    };
    let kind = namespace.index_type.as_deref().unwrap_or("shmem");
    let is_in_memory = namespace.storage == Storage::Memory;
    if keeps_its_index(namespace) {
        let index = format!("its index is on {kind} and persists by itself");
        return match (is_there, is_in_memory) {
            (true, _) => (true, format!("{index}; asmt applies to its data in memory only")),
            (false, true) => (false, format!("{index}, and nothing of its data is in shared memory")),
            (false, false) => (false, index),
        };
    }
    let has_checkpoint = config.has_index_checkpoint || namespace.has_index_checkpoint;
    if has_checkpoint {
        let text = "the server is configured to keep its own checkpoint of the index: use that, or asmt, and not both";
        return (is_there && is_in_memory, text.to_owned());
    }
    if !is_there {
        let what = if namespace.storage == Storage::Device { "its data is on devices, and " } else { "" };
        return (false, format!("{what}nothing with its name is in shared memory"));
    }
    (true, only_copy(namespace))
}

fn only_copy(namespace: &NamespaceConfig) -> String {
    let is_only = namespace.storage == Storage::Memory && namespace.devices.is_empty();
    if is_only { "its data is in memory alone: the backup is the only copy across a reboot".to_owned() } else { String::new() }
}
