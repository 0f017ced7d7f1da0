//! What would be done: a pure value from inventory, listing and request, with every refusal and its reason.
//!
//! Promise: the same inputs give the same plan; a plan with a refusal cannot be executed; what `-a` prints is what the
//! executor gets. Must never: touch a file, a segment or the clock (no file system and no system calls in here).

use crate::error::{Code, Error, Problem, Remark, Result};
use crate::format::mark::{is_used_name, is_used_name_of};
use crate::format::{
    Encoding, MANIFEST_VERSION, MAX_DEFLATE_RATIO, Manifest, ManifestError, ManifestSegment, chunk_bytes_for, file_name,
    manifest_name, parse_file_name,
};
use crate::hints;
use crate::layout::sets::{self, Member};
use crate::look::segments::{Creator, Group, Inventory, Segment, group};
use crate::store::{FileRecord, Interrupted, Listing, Volatile, Writable, published_name};
use crate::sys::process::Caller;
use asmt_shm::{
    Address, FIRST_STAGE, Header, KNOWN_BASE_VERSIONS, Key, MAX_SEGMENT_BYTES, MAX_STAGES, NamespaceName, SHUTDOWN_CLEAN,
    SegmentType, StripeHeader,
};
use std::collections::{BTreeMap, BTreeSet};

mod access;
mod in_the_way;
pub mod left_out;
pub mod settings;
pub mod staleness;
mod strangers;

use access::{FileAccess, Use, check_directory, check_files};
pub use strangers::is_strangers;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Instance.
    pub instance: u8,
    /// Namespaces; `None` for all of the instance.
    pub namespaces: Option<Vec<NamespaceName>>,
    /// Backup: compress what may be compressed.
    pub compress: bool,
    /// Restore and verify: refuse what has no manifest.
    pub require_manifest: bool,
    /// Backup: go to a directory that a reboot empties, too.
    pub allow_volatile: bool,
    /// Restore: make segments where they seem to end with this process, too.
    pub allow_private_ipc: bool,
    /// Who asks, and what he may do.
    pub caller: Caller,
    /// Page size in bytes: limits count in pages.
    pub page_bytes: u64,
}

/// A plan, with what speaks against it.
#[derive(Clone, Debug)]
pub struct Plan<T> {
    /// What would be done, as far as it could be planned.
    pub namespaces: Vec<T>,
    /// Why it must not be done; empty if it may.
    pub refusals: Vec<Problem>,
    /// What the user should know.
    pub remarks: Vec<Remark>,
}

impl<T> Plan<T> {
    fn new() -> Self {
        Self { namespaces: Vec::new(), refusals: Vec::new(), remarks: Vec::new() }
    }

    fn refuse(&mut self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.refusals.push(Problem::new(code, message, hint));
    }

    /// Refuses, unless that is said already.
    fn refuse_once(&mut self, problem: Problem) {
        if !self.refusals.contains(&problem) {
            self.refusals.push(problem);
        }
    }

    /// Whether something of what was asked for is there, be it damaged.
    pub fn is_found(&self) -> bool {
        !self.refusals.iter().any(|problem| matches!(problem.code, Code::NothingFound | Code::NamespaceMissing))
    }

    /// Adds another plan to this one. What is of the directory, and so in both, is said once.
    pub fn extend(&mut self, other: Self) {
        self.namespaces.extend(other.namespaces);
        for refusal in other.refusals {
            if !self.refusals.contains(&refusal) {
                self.refusals.push(refusal);
            }
        }
        self.remarks.extend(other.remarks);
    }

    /// Fails with all refusals if there are any. A plan of nothing is a refusal that was forgotten.
    pub fn check(&self) -> Result<()> {
        if self.namespaces.is_empty() && self.refusals.is_empty() {
            return Err(Error::new(Code::Bug, "nothing was planned, and nothing refused", "please report it"));
        }
        Error::from_problems(self.refusals.clone()).map_or(Ok(()), Err)
    }
}

/// One segment to copy to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The segment as it was when it was planned; looked at again after copying.
    pub segment: Segment,
    /// How it will stand in its file.
    pub encoding: Encoding,
}

impl Copy {
    /// Name of its file.
    pub fn file_name(&self) -> String {
        file_name(self.segment.key(), self.encoding)
    }
}

/// One namespace to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceBackup {
    /// Instance.
    pub instance: u8,
    /// Name.
    pub name: NamespaceName,
    /// nsid of the index; `None` if there are only stripes.
    pub nsid: Option<u8>,
    /// Layout version of base; `None` if there are only stripes.
    pub base_version: Option<u32>,
    /// Segments, by key.
    pub copies: Vec<Copy>,
    /// Files of an interrupted run that this backup takes the place of; removed just before it is published.
    pub superseded: Vec<String>,
}

/// Where the bytes of a segment come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file of ours: chunks that can be read and checked one by one.
    Chunks(ManifestSegment),
    /// A plain file with no manifest: nothing to check it against.
    Plain,
    /// A compressed file with no manifest: one stream, checked by the CRC-32 of its header and its trailer.
    Stream {
        /// CRC-32 of the segment.
        crc32: u32,
    },
}

/// One file to bring back, or to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Key.
    pub key: Key,
    /// What the key says.
    pub address: Address,
    /// Size of the segment, bytes.
    pub size_bytes: u64,
    /// Owner the segment gets.
    pub uid: u32,
    /// Group the segment gets.
    pub gid: u32,
    /// Mode the segment gets.
    pub mode: u32,
    /// Name of the file.
    pub file: String,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// How it stands in the file.
    pub encoding: Encoding,
    /// How it is read and checked.
    pub contents: Contents,
    /// Bytes of the file that have blocks; the rest is holes.
    pub allocated_bytes: u64,
    /// Memory that it needs at least, bytes: what is known to be holes or zeros, or may be, does not count.
    pub least_memory_bytes: u64,
    /// Memory that it needs at most, bytes. Where it is more than the least, only reading the file tells: see
    /// [`undecided_room`].
    pub most_memory_bytes: u64,
}

impl Source {
    /// Bytes of a chunk of it.
    pub fn chunk_bytes(&self) -> u32 {
        match &self.contents {
            Contents::Chunks(segment) => segment.chunk_bytes,
            Contents::Plain | Contents::Stream { .. } => chunk_bytes_for(self.size_bytes),
        }
    }
}

/// One namespace to restore, or to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRestore {
    /// Instance.
    pub instance: u8,
    /// Name.
    pub name: NamespaceName,
    /// nsid of the index; `None` if there are only stripes.
    pub nsid: Option<u8>,
    /// Layout version of base; `None` if there are only stripes.
    pub base_version: Option<u32>,
    /// When it was made, milliseconds since 1970; `None` if there is no manifest.
    pub created_ms: Option<u64>,
    /// Files, by key.
    pub sources: Vec<Source>,
}

/// Names of namespaces by instance.
pub type Names = BTreeMap<u8, BTreeSet<NamespaceName>>;

/// Names of the namespaces in memory.
pub fn names_in_memory(inventory: &Inventory) -> Names {
    let mut names = Names::new();
    for group in inventory.groups() {
        names.entry(group.instance).or_default().extend(group.name);
    }
    names
}

/// Names of the namespaces in a backup directory, damaged ones too.
pub fn names_in_backup(listing: &Listing) -> Names {
    let mut names = Names::new();
    for manifest in listing.manifests.iter().filter_map(|record| record.manifest.as_ref().ok()) {
        names.entry(manifest.instance).or_default().insert(manifest.namespace.clone());
    }
    for file in &listing.files {
        names.entry(file.address.instance).or_default().extend(file.header.name().cloned());
    }
    names
}

/// Those of the namespaces that a request is for that could be planned if the others were left out. `is_possible` plans
/// for some of them. Empty if that is none or all of them: then there is nothing to choose.
pub fn possible_alone(
    names: &BTreeSet<NamespaceName>,
    request: &Request,
    is_possible: impl Fn(&Request) -> bool,
) -> Vec<NamespaceName> {
    let is_asked = |name: &&NamespaceName| request.namespaces.as_ref().is_none_or(|asked| asked.contains(name));
    let asked: Vec<&NamespaceName> = names.iter().filter(is_asked).collect();
    let with = |names: Vec<NamespaceName>| Request { namespaces: Some(names), ..request.clone() };
    let alone: Vec<NamespaceName> =
        asked.iter().filter(|name| is_possible(&with(vec![(**name).clone()]))).map(|name| (*name).clone()).collect();
    // What each could have for itself, such as memory, they may not have together.
    if alone.is_empty() || !is_possible(&with(alone.clone())) { Vec::new() } else { alone }
}

/// Plans a backup of what is in memory into a directory.
pub fn backup(inventory: &Inventory, listing: &Listing, request: &Request) -> Plan<NamespaceBackup> {
    let mut plan = Plan::new();
    check_directory(listing, &request.caller, Use::Write, &mut plan.refusals);
    check_own(listing, &mut plan);
    check_durable(listing, request, &mut plan);
    // Whatever is planted under a name that only asmt gives is nobody's: it is neither used nor removed.
    plan.refusals.extend(listing.problems.iter().filter(|(name, _)| name.starts_with('.')).map(|(_, problem)| problem.clone()));
    check_marks_readable(listing, request, &mut plan);
    if inventory.is_rmid_forced {
        plan.refusals.push(not_kept());
        return plan;
    }
    for run in &listing.leftovers.live {
        plan.refuse(
            Code::AnotherAsmt,
            format!("another asmt (pid {}) is at work in the directory", run.pid),
            "wait for it to end, or use another directory",
        );
    }
    let groups = inventory.groups();
    let is_denied = groups
        .iter()
        .filter(|group| group.instance == request.instance)
        .any(|group| segments_of(inventory, group).iter().any(|segment| segment.is_denied));
    let place = if inventory.outlives_caller == Some(false) { Place::PrivateMemory } else { Place::Memory };
    let chosen = choose(groups.clone(), request, is_denied, &place, &mut plan);
    for (group, is_outranked) in strangers::set_aside(inventory, &groups, chosen, request, &mut plan) {
        strangers::plan_group(inventory, listing, request, &group, is_outranked, &mut plan);
    }
    plan.remarks.extend(unseen_holes_remark(inventory, &plan.namespaces));
    check_target(listing, &mut plan);
    plan
}

/// Bytes that a backup needs at least: what is not holes, whatever it is compressed to.
pub fn least_file_bytes(namespaces: &[NamespaceBackup]) -> u64 {
    let segments = namespaces.iter().flat_map(|namespace| &namespace.copies).map(|copy| &copy.segment);
    let data = |segment: &Segment| segment.resident_bytes.map_or(0, |resident| resident.saturating_add(segment.swapped_bytes));
    segments.map(data).fold(0, u64::saturating_add)
}

/// Refuses a directory that cannot be written to, or has no room for what must be in it.
fn check_target(listing: &Listing, plan: &mut Plan<NamespaceBackup>) {
    let Some(target) = &listing.target else { return };
    let path = &target.path;
    match target.writable {
        Writable::Yes => {}
        Writable::Denied => plan.refuse(
            Code::PermissionDenied,
            format!("no permission to write in directory {path}"),
            "run it as root, or as the directory's owner",
        ),
        Writable::ReadOnlyFileSystem => plan.refuse(
            Code::PermissionDenied,
            format!("{path} is on a file system that is mounted read-only"),
            "choose another directory, or mount it for writing (see findmnt, and dmesg for why it is read-only)",
        ),
    }
    let needed = least_file_bytes(&plan.namespaces);
    // What an interrupted backup has left goes first.
    let free_bytes = target.free_bytes.unwrap_or(u64::MAX);
    if needed > free_bytes && listing.leftovers.sweep.is_empty() {
        plan.refuse(
            Code::DiskFull,
            format!("no room in {path}: at least {needed} bytes are needed for all files, and {free_bytes} are free"),
            hints::NO_ROOM,
        );
    }
}

/// Refuses where a mark of use in the directory cannot be read: no restore from it would be accepted.
fn check_marks_readable(listing: &Listing, request: &Request, plan: &mut Plan<NamespaceBackup>) {
    for (name, mark) in listing.marks.iter().filter(|(name, _)| is_used_name_of(request.instance, name)) {
        if let Err(why) = mark {
            let hint = "a restore of this backup would be refused for it: use another directory; leave the mark where it is as long \
                        as a backup in this one may still be restored, for without it that would look unused";
            plan.refuse(Code::BackupExists, format!("{name} cannot be read as a mark of use: {why}"), hint);
        }
    }
}

/// What a list should say of the machine.
pub fn list_remarks(inventory: &Inventory) -> Vec<Remark> {
    let problem = inventory.is_rmid_forced.then(not_kept);
    problem.map(|problem| Remark::new("segments-not-kept", problem.message)).into_iter().collect()
}

/// Why nothing can be done where the kernel destroys segments that nobody has attached: a backup finds none, a look at one
/// destroys it, and what a restore makes is gone at once.
pub fn not_kept() -> Problem {
    Problem::new(
        Code::SegmentsNotKept,
        "kernel.shm_rmid_forced is 1, expected 0: the kernel destroys each segment as soon as no process has it attached",
        "set it to 0 while the server still runs, or before a restore, and see that no boot sets it again (/etc/sysctl.d): sysctl \
         -w kernel.shm_rmid_forced=0",
    )
}

/// Where holes cannot be told from what is swapped out, all is read as data, and becomes memory.
fn unseen_holes_remark(inventory: &Inventory, namespaces: &[NamespaceBackup]) -> Option<Remark> {
    let segments = namespaces.iter().flat_map(|namespace| &namespace.copies).map(|copy| &copy.segment);
    let swapped: Vec<&Segment> = segments.filter(|segment| segment.swapped_bytes > 0).collect();
    let bytes: u64 = swapped.iter().map(|segment| segment.stat.size_bytes).sum();
    let text = format!(
        "CAP_CHECKPOINT_RESTORE is missing, so that holes of the {} segments that are partly swapped out cannot be seen: all of their \
         {bytes} bytes will be read and become resident",
        swapped.len()
    );
    let is_unseen = swapped.iter().any(|segment| has_unseen_holes(inventory, segment));
    is_unseen.then(|| Remark::new("holes-unseen", text))
}

/// Refuses a directory of the system's, where a backup would stand among other things.
fn check_own(listing: &Listing, plan: &mut Plan<NamespaceBackup>) {
    let Some(directory) = listing.directory.as_ref().filter(|directory| directory.is_systems) else { return };
    plan.refuse(
        Code::SystemDirectory,
        format!("{} is a directory of the system's, with other things in it; expected one of the backup's own", directory.path),
        "name a directory for backups alone, such as /var/lib/asmt: asmt makes it",
    );
}

/// Refuses a directory that the reboot empties, unless that is what is wanted.
fn check_durable(listing: &Listing, request: &Request, plan: &mut Plan<NamespaceBackup>) {
    let Some((path, reason)) = listing.directory.as_ref().and_then(|found| Some((&found.path, found.volatile.as_ref()?))) else {
        return;
    };
    let (message, expected) = match reason {
        Volatile::InMemory(kind) => {
            (format!("{path} is on a {kind}, which is in memory and empty after a reboot"), "one on a disk")
        }
        Volatile::EmptiedAtBoot(file) => {
            (format!("{path} is emptied at boot: {} says so (tmpfiles.d)", file.display()), "one that is kept")
        }
    };
    if request.allow_volatile {
        plan.remarks.push(Remark::new("volatile-directory", message));
    } else {
        let hint = "choose a directory on a disk that no boot empties, such as /var/lib/asmt; add --allow-volatile only if it is restored \
             before any reboot";
        plan.refuse(Code::VolatileDirectory, format!("{message}; expected {expected}"), hint);
    }
}

/// Fails if two looks have not found the same segments. A listing is not made at one moment: where segments are made anew
/// meanwhile it may show some of them only, and of a namespace that has data alone nothing says how many there must be.
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
            format!("segment {key} (shmid {shmid}) came or went between two looks at shared memory"),
            STAY_STOPPED,
        )),
    }
}

const STAY_STOPPED: &str = "make sure that the server stays stopped during a backup, then run it again";

/// Where something was looked for: the same findings have other reasons and next steps.
enum Place {
    Memory,
    /// An IPC namespace that nobody but asmt is in.
    PrivateMemory,
    Backup,
}

/// The groups that were asked for; refuses where one is not there.
fn choose<T>(groups: Vec<Group>, request: &Request, is_denied: bool, place: &Place, plan: &mut Plan<T>) -> Vec<Group> {
    let (place, hint) = match place {
        Place::Memory => ("in shared memory", "check the name (-n) and the instance (-i); see what there is with: asmt list"),
        Place::PrivateMemory => (
            "in shared memory: asmt is alone in its IPC namespace",
            "run asmt in the IPC namespace of the server: without PrivateIPC= in its unit, or in the server's container",
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
                format!("{} was not found, and there are segments whose name may not be read", title(name, request.instance)),
                "run it as root, or as the owner of the segments",
            );
            continue;
        }
        let code = if chosen.is_empty() { Code::NothingFound } else { Code::NamespaceMissing };
        let text = format!("namespace '{name}' of instance {} is not {place}; found: {there}", request.instance);
        plan.refusals.push(Problem::new(code, text, hint).of(name));
    }
    chosen
}

/// What there is, in a few words: `test, bar (instance 0), cache (instance 2)`.
fn shown(groups: &[Group]) -> String {
    let mut by_instance: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for group in groups {
        let name = group.name.as_ref().map_or_else(|| "segments without a name".to_owned(), ToString::to_string);
        by_instance.entry(group.instance).or_default().push(name);
    }
    let texts: Vec<String> =
        by_instance.iter().map(|(instance, names)| format!("{} (instance {instance})", names.join(", "))).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn segments_of<'a>(inventory: &'a Inventory, group: &Group) -> Vec<&'a Segment> {
    group.keys.iter().filter_map(|key| inventory.segments.get(key)).collect()
}

fn plan_group_backup(
    inventory: &Inventory,
    listing: &Listing,
    request: &Request,
    group: &Group,
    plan: &mut Plan<NamespaceBackup>,
) {
    let segments = segments_of(inventory, group);
    let title = title_of(group);
    if let Some(denied) = segments.iter().find(|segment| segment.is_denied) {
        plan.refuse_once(denied_problem(&title, denied, &request.caller));
        return;
    }
    if let Some(attached) = segments.iter().find(|segment| segment.stat.attached_count > 0) {
        plan.refusals.push(attached_problem(inventory, &title, &segments, attached, Attached::ToBackUp));
        return;
    }
    if let Some(huge) = segments.iter().find(|segment| segment.is_huge) {
        let text = format!("{title}: segment {} (shmid {}) is in huge pages (SHM_HUGETLB)", huge.key(), huge.stat.shmid);
        plan.refuse(Code::SegmentInvalid, text, unknown_maker_hint(huge));
        return;
    }
    // Long enough for its header, and with none to read: it went between the listing and the look into it.
    if let Some(gone) = segments.iter().find(|segment| segment.header == Header::Unreadable && !is_too_short(segment)) {
        plan.refuse(
            Code::SegmentChanged,
            format!("{title}: segment {} (shmid {}) went away while it was looked at", gone.key(), gone.stat.shmid),
            STAY_STOPPED,
        );
        return;
    }
    if let Some(segment) = segments.iter().find(|segment| !request.caller.can_give_to(segment.stat.uid, segment.stat.gid)) {
        plan.refuse(
            Code::PermissionDenied,
            format!(
                "{title}: segment {} belongs to uid {} and gid {}, and uid {} may not give its file to them: CAP_CHOWN is missing",
                segment.key(),
                segment.stat.uid,
                segment.stat.gid,
                request.caller.uid
            ),
            "run it as root, as the owner of the segments and in their group, or with CAP_CHOWN",
        );
    }
    let headers: Vec<(Address, &Header)> = segments.iter().map(|segment| (segment.address, &segment.header)).collect();
    let mut faults = faults_in_memory(group, &segments, &headers, &title);
    let base_version = if group.name.is_some() { check_base(&headers, &title, &Place::Memory, &mut faults) } else { None };
    if let Some(name) = &group.name {
        check_stripes(&headers, name, true, &title, &Place::Memory, &mut faults);
    }
    // A stripe whose name may not be read may be the one that the set lacks.
    let is_unread = |segment: &&Segment| {
        segment.is_denied && segment.address.instance == group.instance && !segment.address.segment_type.is_index()
    };
    let unread = inventory.segments.values().find(is_unread);
    if let Some(unread) = unread.filter(|_| faults.iter().any(|fault| fault.code == Code::SetTorn)) {
        plan.refuse_once(denied_problem(&nameless_stripe(unread.key(), group.instance), unread, &request.caller));
        return;
    }
    // What a restore is still making looks like this: nothing is done about it as long as one may be at work.
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
    let own_manifest = manifest_name(group.instance, name);
    let superseded = in_the_way::check(listing, group.instance, &nsids, &own_manifest, &title, plan);
    let copies: Vec<Copy> = segments
        .iter()
        .map(|&segment| {
            let compress = request.compress
                && segment.address.segment_type.may_be_compressed()
                && (!zeros_outweigh_data(segment) || has_unseen_holes(inventory, segment));
            Copy { segment: segment.clone(), encoding: if compress { Encoding::Gzip } else { Encoding::Raw } }
        })
        .collect();
    plan.remarks.extend(request.compress.then(|| plain_remark(&copies, &title)).flatten());
    plan.namespaces.push(NamespaceBackup {
        instance: group.instance,
        name: name.clone(),
        nsid: group.nsid,
        base_version,
        copies,
        superseded,
    });
}

/// How many zeros deflate to one byte.
const ZEROS_A_BYTE: u64 = 1000;
/// Compressed zeros may cost one part in so many of the data.
const DATA_A_ZERO_BYTE: u64 = 20;

/// Whether what a segment never held, which costs nothing in a plain file, would cost more than a twentieth of its data in a
/// compressed one: then that could be larger than the data, and takes longer to read and write.
fn zeros_outweigh_data(segment: &Segment) -> bool {
    let Some(resident_bytes) = segment.resident_bytes else { return false };
    let data_bytes = resident_bytes.saturating_add(segment.swapped_bytes);
    segment.stat.size_bytes.saturating_sub(data_bytes) / ZEROS_A_BYTE > data_bytes / DATA_A_ZERO_BYTE
}

/// Whether all of a segment will be read as data, holes and all.
fn has_unseen_holes(inventory: &Inventory, segment: &Segment) -> bool {
    inventory.finds_all_holes == Some(false) && segment.swapped_bytes > 0
}

/// What is written plain although compressed files were asked for.
fn plain_remark(copies: &[Copy], title: &str) -> Option<Remark> {
    let is_plain = |copy: &&Copy| copy.encoding == Encoding::Raw && copy.segment.address.segment_type.may_be_compressed();
    let plain: Vec<&Copy> = copies.iter().filter(is_plain).collect();
    let first = plain.first()?;
    let text = format!(
        "{title}: {} of {} segments, the first is {}, are written plain: nearly all of each was never used, and would take \
         more room compressed",
        plain.len(),
        copies.len(),
        first.segment.key()
    );
    Some(Remark::new("written-plain", text))
}

/// What is wrong with the segments of a namespace in memory, but for what base says.
fn faults_in_memory(group: &Group, segments: &[&Segment], headers: &[(Address, &Header)], title: &str) -> Vec<Problem> {
    let mut faults = Vec::new();
    let start_loses = if stripes_of(headers).is_empty() { "" } else { START_LOSES };
    for text in missing_or_extra(headers) {
        let hint = "only a server that was shut down cleanly leaves all segments: if a backup was restored and the server has not \
                    served since, restore that again; else start it and stop it cleanly, then back up";
        faults.push(Problem::new(Code::SegmentsIncomplete, format!("{title}: {text}"), format!("{hint}{start_loses}")));
    }
    if group.name.is_none() {
        // Only with its base there, or as a stripe, can it lack nothing but the name.
        if let Some(nameless) = segments.iter().find(|segment| bears_name(segment.address)) {
            faults.push(Problem::new(
                Code::SegmentInvalid,
                format!("{title}: segment {} holds no name of 1 to 31 bytes of text", nameless.key()),
                unknown_maker_hint(nameless),
            ));
        }
        return faults;
    }
    for segment in segments.iter().filter(|segment| is_too_short(segment)) {
        faults.push(Problem::new(
            Code::SegmentInvalid,
            format!(
                "{title}: segment {} has {} bytes, fewer than a {} has",
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

/// What to do about a segment that no server is known to make. Only where its maker has ended is it named for removal.
fn unknown_maker_hint(segment: &Segment) -> String {
    let leave =
        "no server that is known makes such a segment, but a newer one may: leave it, and name the other namespaces with -n";
    match segment.creator {
        Creator::Gone => format!(
            "{leave}; only if you made it yourself, and no server needs it, remove it with: ipcrm -m {}",
            segment.stat.shmid
        ),
        Creator::Alive { .. } | Creator::Unseen => format!("{leave}, or find out who made it (ipcs -m -p)"),
    }
}

/// Who may be at work on segments that nobody has attached.
enum AtWork<'s> {
    /// All who made them have ended.
    Nobody,
    /// The server made some of them, and runs.
    Server { pid: u32 },
    /// Another process made some of them, and runs: another asmt, most likely.
    Process { pid: u32, command: &'s str },
    /// Who made them cannot be seen from here.
    Unseen,
}

/// The name of the server's processes.
const SERVER_COMMAND: &str = "asd";

/// Judges who may be at work on segments, by who has made them.
fn at_work<'s>(segments: &[&'s Segment]) -> AtWork<'s> {
    let mut found = AtWork::Nobody;
    for segment in segments {
        match (&segment.creator, &found) {
            (Creator::Alive { pid, command }, _) if command != SERVER_COMMAND => return AtWork::Process { pid: *pid, command },
            (Creator::Alive { pid, .. }, _) => found = AtWork::Server { pid: *pid },
            (Creator::Unseen, AtWork::Nobody) => found = AtWork::Unseen,
            _ => {}
        }
    }
    found
}

const NOBODY_UNSEEN: &str = "no asmt and no server is at work on it where it cannot be seen from here (in other containers)";

fn at_work_problem(title: &str, count: usize, pid: u32, command: &str) -> Problem {
    Problem::new(
        Code::AnotherAsmt,
        format!(
            "{title}: {count} segments of it are in memory, and the process that made them still runs: pid {pid} ({command}), \
             another asmt, as it seems"
        ),
        "wait for it to end, then run it again; if it is neither asmt nor the server, its id was used again: find out what made \
         the segments (ipcs -m -p)",
    )
}

/// Whether it is too short for what its key says it is.
fn is_too_short(segment: &Segment) -> bool {
    segment.stat.size_bytes < segment.address.segment_type.min_bytes()
}

/// Whether a segment's header has a field for the namespace's name.
fn bears_name(address: Address) -> bool {
    matches!(address.segment_type, SegmentType::PiBase | SegmentType::DataStage)
}

/// What a namespace is called in messages; the instance is named where it is not 0.
pub fn title(name: impl std::fmt::Display, instance: u8) -> String {
    format!("namespace '{name}'{}", of_instance(instance))
}

/// The same of several.
pub fn titles(names: &[&NamespaceName], instance: u8) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    format!("namespace {}{}", quoted.join(", "), of_instance(instance))
}

/// ` of instance 2`; nothing for instance 0.
fn of_instance(instance: u8) -> String {
    if instance == 0 { String::new() } else { format!(" of instance {instance}") }
}

fn title_of(group: &Group) -> String {
    let of_instance = of_instance(group.instance);
    match (&group.name, group.nsid) {
        (Some(name), _) => title(name, group.instance),
        (None, Some(nsid)) => format!("nsid {nsid} (no name){of_instance}"),
        (None, None) => nameless_stripe(group.keys[0], group.instance),
    }
}

fn nameless_stripe(key: Key, instance: u8) -> String {
    format!("stripe {key} (no name in it){}", of_instance(instance))
}

/// Why a segment cannot be backed up that the caller may not read.
fn denied_problem(title: &str, denied: &Segment, caller: &Caller) -> Problem {
    Problem::new(
        Code::PermissionDenied,
        format!(
            "{title}: segment {} belongs to uid {} with mode {:04o}, and uid {} may not read it",
            denied.key(),
            denied.stat.uid,
            denied.stat.mode,
            caller.uid
        ),
        "run it as root, or as the owner of the segments; any other user needs CAP_IPC_OWNER and CAP_CHOWN",
    )
}

/// Why it matters that segments are attached: what is right for a backup would roll a node back that runs already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    /// They are to be backed up.
    ToBackUp,
    /// They are where others are to be restored.
    InTheWay,
}

fn attached_problem(inventory: &Inventory, title: &str, segments: &[&Segment], first: &Segment, attached: Attached) -> Problem {
    let count = segments.iter().filter(|segment| segment.stat.attached_count > 0).count();
    let mut holders: Vec<String> = segments
        .iter()
        .filter_map(|segment| inventory.attachers.get(&segment.stat.shmid))
        .flatten()
        .map(|attacher| format!("pid {} ({})", attacher.pid, attacher.command))
        .collect();
    holders.sort_unstable();
    holders.dedup();
    let is_server = segments
        .iter()
        .filter_map(|segment| inventory.attachers.get(&segment.stat.shmid))
        .flatten()
        .any(|attacher| attacher.command == SERVER_COMMAND);
    let by = if holders.is_empty() { "a process that cannot be seen from here".to_owned() } else { holders.join(", ") };
    let find = format!("find who has it (as root, also in other containers: grep -l SYSV{} /proc/[0-9]*/maps)", first.key());
    let hint = match (attached, is_server, holders.is_empty()) {
        (Attached::ToBackUp, true, _) => stop_the_server(first.address.instance),
        (Attached::ToBackUp, false, true) => {
            format!("{find}; if it is a server, stop it cleanly, else wait until it has ended; then run it again")
        }
        (Attached::ToBackUp, false, false) => "wait until that process has ended, then run it again; if it is the server under \
                                               another name, stop it cleanly, and do not kill it"
            .to_owned(),
        (Attached::InTheWay, true, _) => {
            "the server is running with them: nothing needs restoring, leave it as it is (a restore \
                                          would roll it back)"
                .to_owned()
        }
        (Attached::InTheWay, false, true) => format!(
            "{find}; if it is a server, leave it as it is: nothing needs restoring; else wait until it has ended, then run it again"
        ),
        (Attached::InTheWay, false, false) => {
            "if that process is the server under another name, leave it as it is: nothing needs \
                                               restoring; else wait until it has ended, then run it again"
                .to_owned()
        }
    };
    Problem::new(
        Code::SegmentAttached,
        format!("{title}: {count} of {} segments attached ({} first), expected none; by {by}", segments.len(), first.key()),
        hint,
    )
}

/// The unit is that of instance 0: of another one it would stop the wrong server.
fn stop_the_server(instance: u8) -> String {
    if instance == 0 {
        return "the server is running: stop it (systemctl stop aerospike), wait until asd has gone, then run it again"
            .to_owned();
    }
    format!(
        "the server of instance {instance} is running: stop that one and no other, wait until its asd has gone, then run it again"
    )
}

/// What the operator must know before a start: such a server has nothing that it would take for its data.
const START_LOSES: &str = " (that start is a cold one: records that are in memory only are lost; if there are such, leave the \
    segments as they are, and ask Aerospike's support first)";

/// Checks version and shutdown status of base; gives the version.
fn check_base(headers: &[(Address, &Header)], title: &str, place: &Place, refusals: &mut Vec<Problem>) -> Option<u32> {
    let base = headers.iter().find_map(|(_, header)| if let Header::Base(base) = header { Some(base) } else { None })?;
    if !KNOWN_BASE_VERSIONS.contains(&base.version) {
        let code = match place {
            Place::Memory | Place::PrivateMemory => Code::UnknownVersion,
            Place::Backup => Code::BackupUnknownVersion,
        };
        let (first, last) = (KNOWN_BASE_VERSIONS.start(), KNOWN_BASE_VERSIONS.end());
        refusals.push(Problem::new(
            code,
            format!("{title}: base has layout version {}, expected {first} to {last}", base.version),
            "this server is newer (or older) than this asmt knows: look for a newer asmt",
        ));
    }
    if base.shutdown != SHUTDOWN_CLEAN {
        let start_loses = if stripes_of(headers).is_empty() { "" } else { START_LOSES };
        let (code, hint) = match place {
            Place::Memory | Place::PrivateMemory => (
                Code::NotCleanlyShutDown,
                format!(
                    "start the server, stop it cleanly and wait until asd has gone, then back up{start_loses}; after a crash \
                         there is nothing to save"
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

/// What a namespace lacks, or has too many of; empty if it is whole. Stripes are a set of their own: see [`torn_stripes`].
pub fn missing_or_extra(headers: &[(Address, &Header)]) -> Vec<String> {
    let mut found = Vec::new();
    let of = |wanted: SegmentType| headers.iter().filter(move |(address, _)| address.segment_type == wanted);
    let nsids: BTreeSet<u8> =
        headers.iter().filter(|(address, _)| address.segment_type.is_index()).map(|(address, _)| address.nsid).collect();
    if nsids.is_empty() {
        return found;
    }
    if nsids.len() > 1 {
        found.push(format!("its index is there under nsids {nsids:?}, expected one"));
        return found;
    }
    if of(SegmentType::PiBase).count() == 0 {
        found.push("base (pi-base, low 000) is missing".to_owned());
    }
    if of(SegmentType::PiTreex).count() == 0 {
        found.push("treex (pi-treex, low 001) is missing".to_owned());
    }
    let base_count = of(SegmentType::PiBase)
        .find_map(|(_, header)| if let Header::Base(base) = header { Some(base.stage_count) } else { None });
    check_stages("primary", "base", of(SegmentType::PiStage).map(|(address, _)| address.index), base_count, &mut found);
    let meta = of(SegmentType::SiMeta).next();
    let si_count = meta.and_then(|(_, header)| if let Header::SiMeta(meta) = header { Some(meta.stage_count) } else { None });
    if meta.is_none() && of(SegmentType::SiStage).count() > 0 {
        found.push("there are secondary stages, and si-meta (low 000) is missing".to_owned());
    } else if si_count == Some(0) {
        found.push("si-meta counts 0 secondary stages, expected at least 1".to_owned());
    }
    check_stages("secondary", "si-meta", of(SegmentType::SiStage).map(|(address, _)| address.index), si_count, &mut found);
    found
}

/// Stages must be 0 to count − 1, each once.
fn check_stages(which: &str, counted_by: &str, stages: impl Iterator<Item = u16>, count: Option<u32>, found: &mut Vec<String>) {
    let Some(count) = count else { return };
    let there: BTreeSet<u32> = stages.map(u32::from).collect();
    let missing: Vec<u32> = (0..count.min(MAX_STAGES)).filter(|stage| !there.contains(stage)).collect();
    let extra: Vec<u32> = there.iter().copied().filter(|stage| *stage >= count).collect();
    if let Some(first) = missing.first() {
        found.push(format!(
            "{} of {count} {which} stages counted by {counted_by} missing, the first is stage {first} (low {:03x}){}",
            missing.len(),
            FIRST_STAGE + first,
            all_of(&missing)
        ));
    }
    if count > MAX_STAGES {
        found.push(format!("{counted_by} counts {count} {which} stages, expected at most {MAX_STAGES}"));
    }
    if let Some(first) = extra.first() {
        found.push(format!(
            "{} {which} stages more than the {count} counted by {counted_by}, the first is stage {first} (low {:03x}){}",
            extra.len(),
            FIRST_STAGE + first,
            all_of(&extra)
        ));
    }
}

/// Ascending numbers, where they are more than one: `; all are 0, 2 to 5`.
fn all_of(numbers: &[u32]) -> String {
    if numbers.len() > 1 { format!("; all are {}", sets::runs(numbers)) } else { String::new() }
}

/// The stripes among these headers.
fn stripes_of<'h>(headers: &[(Address, &'h Header)]) -> Vec<(Address, &'h StripeHeader)> {
    let stripe = |(address, header): &(Address, &'h Header)| match header {
        Header::Stripe(stripe) => Some((*address, stripe)),
        _ => None,
    };
    headers.iter().filter_map(stripe).collect()
}

/// Why the stripes of a namespace are no set that a server would start with; empty if they are whole, or there are none.
/// `is_all` says that every stripe there is stands among them, so that their number counts.
pub fn torn_stripes(headers: &[(Address, &Header)], name: &NamespaceName, is_all: bool) -> Vec<String> {
    let stripes = stripes_of(headers);
    let shown = |address: Address| address.key().map_or_else(|| format!("{address:?}"), |key| key.to_string());
    let members: Vec<Member<'_>> = stripes.iter().map(|(address, header)| Member { shown: shown(*address), header }).collect();
    let count = u32::try_from(stripes.len()).ok().filter(|_| is_all);
    let mut found = sets::faults("data stripe", &members, name, count);
    let nsids: BTreeSet<u8> = stripes.iter().map(|(address, _)| address.nsid).collect();
    let missing = sets::missing_numbers(&stripes.iter().map(|(address, _)| address.index).collect());
    if nsids.len() > 1 {
        found.push(format!("its data stripes are there under nsids {nsids:?}, expected one"));
    } else if is_all && !missing.is_empty() {
        found.push(format!("data stripes that are missing: {missing}"));
    }
    found
}

/// Refuses a set of stripes that a server would not start with.
fn check_stripes(
    headers: &[(Address, &Header)],
    name: &NamespaceName,
    is_all: bool,
    title: &str,
    place: &Place,
    refusals: &mut Vec<Problem>,
) {
    // What happens to such a set when a server starts is the reason for both: it is lost, unless it is on a disk, too.
    let (code, hint) = match place {
        Place::Memory | Place::PrivateMemory => (
            Code::SetTorn,
            "a server would not start with these stripes, or would discard them: if all records are on storage devices or files, \
             too, start the server, stop it cleanly, then back up; if they are in memory only, keep these segments as they are, \
             for a start loses what is in them, and ask Aerospike's support",
        ),
        Place::Backup => (Code::BackupSetTorn, hints::BACKUP_TORN),
    };
    let torn = torn_stripes(headers, name, is_all);
    refusals.extend(torn.into_iter().map(|text| Problem::new(code, format!("{title}: {text}"), hint)));
}

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

/// Refuses where the segments would be gone as soon as this process ends.
fn check_outlives(inventory: &Inventory, request: &Request, plan: &mut Plan<NamespaceRestore>) {
    if inventory.outlives_caller != Some(false) {
        return;
    }
    if request.allow_private_ipc {
        plan.remarks.push(Remark::new("private-ipc-namespace", PRIVATE_IPC));
    } else {
        plan.refuse(
            Code::PrivateIpcNamespace,
            format!("{PRIVATE_IPC}: what is restored would be gone then"),
            "run asmt in the IPC namespace of the server: without PrivateIPC= in its unit, or in the server's container; only \
             where something that cannot be seen from here keeps the namespace (the holder of a pod), add --allow-private-ipc",
        );
    }
}

const PRIVATE_IPC: &str = "asmt is alone in its IPC namespace, which ends with it";

/// Plans the reading of a backup: what is there must be whole, committed and consistent.
pub fn verify(listing: &Listing, request: &Request) -> Plan<NamespaceRestore> {
    let mut plan = Plan::new();
    check_directory(listing, &request.caller, Use::Read, &mut plan.refusals);
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
        for group in choose(groups, request, false, &Place::Backup, &mut plan) {
            let manifest = manifests.iter().find(|manifest| Some(&manifest.namespace) == group.name.as_ref());
            match manifest {
                Some(manifest) => plan_from_manifest(manifest, &records, &group, listing, request, &mut plan),
                None => {
                    let own_name = group.name.as_ref().map(|name| manifest_name(group.instance, name));
                    // One that cannot be used, or not be read, is refused below; this is no backup of ASMT's then.
                    let there = listing.manifests.iter().map(|record| &record.name);
                    let is_asmts =
                        !there.chain(listing.problems.iter().map(|(name, _)| name)).any(|name| Some(name) == own_name.as_ref());
                    plan_without_manifest(&records, &group, listing, request, is_asmts, &mut plan);
                }
            }
        }
    }
    check_other_files(listing, request, &mut plan);
    plan
}

/// Refuses where an interrupted backup, or one still at work, is what was asked for.
fn check_interrupted(listing: &Listing, request: &Request, groups: &[Group], plan: &mut Plan<NamespaceRestore>) {
    for run in &listing.leftovers.live {
        plan.refuse(
            Code::AnotherAsmt,
            format!("another asmt (pid {}) is at work in the directory", run.pid),
            "wait for it to end",
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
            format!("the backup of {} was interrupted before it was committed", title(&found.namespace, found.instance)),
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
                "the directory holds {} files of a backup that was interrupted before it was committed, and no other; the first \
                 is {first} (ls -A shows hidden ones)",
                left.len()
            ),
            hints::INTERRUPTED,
        );
    }
}

/// Refuses for files that bear the name of a segment or manifest of this instance and cannot be read as such.
fn check_other_files(listing: &Listing, request: &Request, plan: &mut Plan<NamespaceRestore>) {
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
    for (name, problem) in &listing.problems {
        let of_instance = parse_file_name(name).is_some_and(|(_, address, _)| address.instance == request.instance);
        if of_instance || is_asked_manifest(name) {
            plan.refusals.push(problem.clone());
        }
    }
}

fn plan_from_manifest(
    manifest: &Manifest,
    records: &BTreeMap<Key, &FileRecord>,
    group: &Group,
    listing: &Listing,
    request: &Request,
    plan: &mut Plan<NamespaceRestore>,
) {
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
        let problems_before = plan.refusals.len();
        if record.file_bytes != segment.file_bytes {
            let text = format!("{file} has {} bytes, expected {}", record.file_bytes, segment.file_bytes);
            plan.refusals.push(damage(Code::WrongSize, text).at(record.file_bytes.min(segment.file_bytes)));
        }
        if record.size_bytes != segment.size_bytes && record.encoding == Encoding::Gzip
            || record.crc32.is_some_and(|crc32| crc32 != segment.crc32)
        {
            let text = format!(
                "the header of {file} says {} bytes and CRC-32 {:08x}, expected {} and {:08x}",
                record.size_bytes,
                record.crc32.unwrap_or(0),
                segment.size_bytes,
                segment.crc32
            );
            plan.refusals.push(damage(Code::ContentDamaged, text).at(0));
        }
        if record.header.name().is_some_and(|name| *name != manifest.namespace) || record.header == Header::Unreadable {
            let found = record.header.name().map_or("?", NamespaceName::as_str);
            let text = format!("{file} is of namespace '{found}', expected '{}'", manifest.namespace);
            plan.refusals.push(damage(Code::ContentDamaged, text));
        }
        if plan.refusals.len() > problems_before {
            continue;
        }
        sound.push((segment.address, &record.header));
        let (least_memory_bytes, most_memory_bytes) = memory_of(segment, record);
        sources.push(Source {
            key: segment.key,
            address: segment.address,
            size_bytes: segment.size_bytes,
            uid: segment.uid,
            gid: segment.gid,
            mode: segment.mode,
            file: record.name.clone(),
            file_bytes: segment.file_bytes,
            encoding: segment.encoding,
            contents: Contents::Chunks(segment.clone()),
            allocated_bytes: record.allocated_bytes,
            least_memory_bytes,
            most_memory_bytes,
        });
    }
    if headers.len() == manifest.segments.len() {
        for text in missing_or_extra(&headers) {
            plan.refuse(Code::BackupIncomplete, format!("{title}: {text}"), hints::DAMAGED);
        }
    }
    let base_version = check_base(&headers, &title, &Place::Backup, &mut plan.refusals);
    let is_all = sound.len() == manifest.segments.len();
    check_stripes(&sound, &manifest.namespace, is_all, &title, &Place::Backup, &mut plan.refusals);
    plan.namespaces.push(NamespaceRestore {
        instance: manifest.instance,
        name: manifest.namespace.clone(),
        nsid: manifest.nsid,
        base_version,
        created_ms: Some(manifest.created_ms),
        sources,
    });
}

/// Memory that a segment of a manifest needs, at least and at most.
fn memory_of(segment: &ManifestSegment, record: &FileRecord) -> (u64, u64) {
    let without_zeros = segment.size_bytes.saturating_sub(segment.zero_bytes());
    match (segment.data_bytes, segment.most_data_bytes(), segment.encoding) {
        // What is read straight into its place is what the file has, if that is not much more than the segment had.
        (Some(data), Some(most), Encoding::Raw) if record.allocated_bytes <= most => {
            let needed = data.max(record.allocated_bytes).min(without_zeros);
            (needed, needed)
        }
        (Some(data), ..) => (data.min(without_zeros), data.min(without_zeros)),
        // Not noted. A plain file keeps holes that are smaller than a chunk, too.
        (None, _, Encoding::Raw) => {
            let needed = without_zeros.min(record.allocated_bytes);
            (needed, needed)
        }
        (None, _, Encoding::Gzip) => (without_zeros.min(segment.file_bytes), without_zeros),
    }
}

fn plan_without_manifest(
    records: &BTreeMap<Key, &FileRecord>,
    group: &Group,
    listing: &Listing,
    request: &Request,
    is_asmts: bool,
    plan: &mut Plan<NamespaceRestore>,
) {
    let title = title_of(group);
    let files: Vec<&FileRecord> = group.keys.iter().map(|key| records[key]).collect();
    // A file's owner is the segment's here, and may write to it.
    let owned = files.iter().map(|file| FileAccess::of_file(file, file.uid));
    check_files(listing, &title, &request.caller, owned, &mut plan.refusals);
    if request.require_manifest && is_asmts {
        plan.refuse(
            Code::ManifestRequired,
            format!("{title}: there is no manifest, and --require-manifest was given"),
            "leave it out to restore a backup of ASMT's, whose plain files cannot be checked",
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
            plan.refuse(Code::ContentDamaged, format!("{title}: {} holds no namespace name", nameless.name), hints::DAMAGED);
        }
        return;
    };
    let mut readable = Vec::new();
    for file in &files {
        let least = file.address.segment_type.min_bytes();
        // A deflate stream cannot grow more: a header that says so lies, and its size must not be believed.
        let most = if file.encoding == Encoding::Gzip { file.file_bytes.saturating_mul(MAX_DEFLATE_RATIO) } else { u64::MAX };
        let most = most.min(MAX_SEGMENT_BYTES);
        if file.size_bytes < least || file.size_bytes > most {
            let message = format!(
                "{title}: {} ({} bytes) says its segment has {} bytes, expected {least} to {most}",
                file.name, file.file_bytes, file.size_bytes
            );
            plan.refusals.push(Problem::new(Code::WrongSize, message, hints::DAMAGED).in_file(&file.name));
        } else {
            readable.push(file);
        }
    }
    let base_version = check_base(&headers, &title, &Place::Backup, &mut plan.refusals);
    check_stripes(&headers, name, is_all, &title, &Place::Backup, &mut plan.refusals);
    let plain_count = files.iter().filter(|file| file.encoding == Encoding::Raw).count();
    plan.remarks.extend(stage_size_remark(&files, &title));
    if is_asmts {
        let text = format!(
            "{title}: made by ASMT, with no manifest: {plain_count} of {} files are plain and cannot be checked for damage",
            files.len()
        );
        plan.remarks.push(Remark::new("no-manifest", text));
    }
    let sources = readable.iter().map(|file| Source {
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
        least_memory_bytes: if file.encoding == Encoding::Raw { 0 } else { file.size_bytes.min(file.allocated_bytes) },
        most_memory_bytes: file.size_bytes,
    });
    plan.namespaces.push(NamespaceRestore {
        instance: group.instance,
        name: name.clone(),
        nsid: group.nsid,
        base_version,
        created_ms: None,
        sources: sources.collect(),
    });
}

/// Without a manifest a plain file's size is all that tells the size of its segment. Base says what a stage has; that
/// field decides nothing, but a file that was cut short would be restored in silence.
fn stage_size_remark(files: &[&FileRecord], title: &str) -> Option<Remark> {
    let expected =
        files.iter().find_map(|file| if let Header::Base(base) = &file.header { Some(base.stage_bytes) } else { None })?;
    let odd = files
        .iter()
        .find(|file| file.address.segment_type == SegmentType::PiStage && file.size_bytes != expected && expected > 0)?;
    let text =
        format!("{title}: the stage in {} has {} bytes, and base says {expected}: is it cut short?", odd.name, odd.size_bytes);
    Some(Remark::new("stage-size", text))
}

/// Refuses if segments of the namespace are in memory: by key, by nsid, or by name.
fn check_nothing_in_memory(inventory: &Inventory, namespace: &NamespaceRestore, caller: &Caller, refusals: &mut Vec<Problem>) {
    let wanted: BTreeSet<(bool, u8)> =
        namespace.sources.iter().map(|source| (source.address.segment_type.is_index(), source.address.nsid)).collect();
    let named: BTreeSet<Key> = inventory
        .groups()
        .into_iter()
        .filter(|group| group.instance == namespace.instance && group.name.as_ref() == Some(&namespace.name))
        .flat_map(|group| group.keys)
        .collect();
    let in_the_way: Vec<&Segment> = inventory
        .segments
        .values()
        .filter(|segment| segment.address.instance == namespace.instance)
        .filter(|segment| {
            wanted.contains(&(segment.address.segment_type.is_index(), segment.address.nsid)) || named.contains(&segment.key())
        })
        .collect();
    let title = title(&namespace.name, namespace.instance);
    let (strangers, in_the_way): (Vec<&Segment>, Vec<&Segment>) =
        in_the_way.into_iter().partition(|segment| is_strangers(segment, std::slice::from_ref(namespace), caller));
    refusals.extend(strangers::in_the_way(inventory, &title, namespace, &strangers));
    let Some(first) = in_the_way.first() else { return };
    if let Some(attached) = in_the_way.iter().find(|segment| segment.stat.attached_count > 0) {
        refusals.push(attached_problem(inventory, &title, &in_the_way, attached, Attached::InTheWay));
        return;
    }
    refusals.push(segments_exist(&title, &in_the_way, first));
}

/// What to do about segments in the way that a server has made or used since the backup.
pub const SERVED_HINT: &str = "the server has made or used them since this backup was made: nothing needs restoring, start the \
    server as it is";

/// Why segments in memory keep a restore from being done. They are named for removal only where nobody is at work on them; and
/// whether the server has served with them is for the operator to say.
fn segments_exist(title: &str, in_the_way: &[&Segment], first: &Segment) -> Problem {
    let headers: Vec<(Address, &Header)> = in_the_way.iter().map(|segment| (segment.address, &segment.header)).collect();
    let is_clean = |(_, header): &(Address, &Header)| matches!(header, Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN);
    let is_warm = headers.iter().any(is_clean) || stripes_of(&headers).is_empty();
    let loses = if is_warm { "" } else { START_LOSES };
    let start_as_it_is = format!(
        "start the server as it is if it was shut down cleanly, or if it has served since this backup was made or restored{loses}"
    );
    let (by, hint) = match at_work(in_the_way) {
        AtWork::Process { pid, command } => return at_work_problem(title, in_the_way.len(), pid, command),
        AtWork::Server { pid } => (
            format!("; the server that made them still runs (pid {pid})"),
            "leave them, nothing needs restoring: if the server runs, leave it as it is; if it is being stopped, wait until it has \
             gone, then start it"
                .to_owned(),
        ),
        AtWork::Unseen => (
            "; the process that made them cannot be seen from here".to_owned(),
            format!("{start_as_it_is}; else make sure first that {NOBODY_UNSEEN}, then see what there is with: ipcs -m -p"),
        ),
        AtWork::Nobody => {
            let ids: String = in_the_way.iter().map(|segment| format!(" -m {}", segment.stat.shmid)).collect();
            (
                String::new(),
                format!("{start_as_it_is}; only if it has not served since, remove exactly these, then run it again: ipcrm{ids}"),
            )
        }
    };
    Problem::new(
        Code::SegmentsExist,
        format!(
            "{title}: {} segments of it are in memory, the first is {} (shmid {}); expected none{by}",
            in_the_way.len(),
            first.key(),
            first.stat.shmid
        ),
        hint,
    )
}

/// Refuses what certainly does not fit: limits of the IPC namespace, and memory.
fn check_room(inventory: &Inventory, namespaces: &[NamespaceRestore], page_bytes: u64, refusals: &mut Vec<Problem>) {
    let sources = || namespaces.iter().flat_map(|namespace| &namespace.sources);
    let mut limit = |name: &str, found: u64, needed: u64| {
        if needed > found {
            refusals.push(Problem::new(
                Code::SystemLimit,
                format!("kernel.{name} is {found}, expected at least {needed}"),
                format!("raise it: sysctl -w kernel.{name}={needed}"),
            ));
        }
    };
    if let Some(limits) = inventory.limits {
        let count = sources().count() as u64;
        let largest = sources().map(|source| source.size_bytes).max().unwrap_or(0);
        let pages = sources().map(|source| source.size_bytes.div_ceil(page_bytes)).fold(0, u64::saturating_add);
        limit("shmmax", limits.max_segment_bytes, largest);
        limit("shmmni", limits.max_segment_count, limits.segment_count + count);
        limit("shmall", limits.max_total_pages, limits.total_pages.saturating_add(pages));
    }
    check_memory(inventory, namespaces, refusals);
    let mut no_memory = |message: String, hint: &str| refusals.push(Problem::new(Code::NotEnoughMemory, message, hint));
    let memory = &inventory.memory;
    let promised = sources().map(|source| source.size_bytes.next_multiple_of(page_bytes)).fold(0, u64::saturating_add);
    if let Some(left) = memory.promisable_bytes.filter(|left| *left < promised) {
        no_memory(
            format!(
                "vm.overcommit_memory is 2, and {left} bytes can be promised; expected {promised}, the full size of all segments"
            ),
            "raise vm.overcommit_ratio or vm.overcommit_kbytes, or set vm.overcommit_memory to 0",
        );
    }
    let largest = sources().max_by_key(|source| source.size_bytes);
    if let Some((source, most)) = largest.zip(memory.largest_bytes).filter(|(source, most)| source.size_bytes > *most) {
        no_memory(
            format!(
                "segment {} has {} bytes, more than the {most} of memory and swap, and vm.overcommit_memory is 0",
                source.key, source.size_bytes
            ),
            "set vm.overcommit_memory to 1 while it is restored: sysctl -w vm.overcommit_memory=1",
        );
    }
}

/// Refuses where memory does not suffice for what files fill at least.
fn check_memory(inventory: &Inventory, namespaces: &[NamespaceRestore], refusals: &mut Vec<Problem>) {
    let memory = &inventory.memory;
    let needed = memory_needed(namespaces, |source| source.least_memory_bytes);
    let mut no_memory = |message: String, hint: &str| refusals.push(Problem::new(Code::NotEnoughMemory, message, hint));
    if let Some(available) = memory.available_bytes.filter(|available| *available < needed) {
        no_memory(
            format!("{available} bytes of memory are available, expected at least {needed}"),
            "free memory, or name fewer namespaces with -n: the server cold-starts the others",
        );
    }
    if let Some(limit) = memory.cgroup.as_ref().filter(|limit| limit.available_bytes < needed) {
        no_memory(
            format!(
                "{} is {}, of which {} are left; expected at least {needed}: segments count where they are filled",
                limit.file.display(),
                limit.limit_bytes,
                limit.available_bytes
            ),
            "raise that limit (in a unit: MemoryMax=, MemoryHigh=; of a container: --memory), or run asmt outside of it",
        );
    }
}

fn memory_needed(namespaces: &[NamespaceRestore], of_source: impl Fn(&Source) -> u64) -> u64 {
    namespaces.iter().flat_map(|namespace| &namespace.sources).map(of_source).fold(0, u64::saturating_add)
}

/// Memory that can be had here, as far as anything says.
fn memory_left(inventory: &Inventory) -> Option<u64> {
    let memory = &inventory.memory;
    memory.available_bytes.into_iter().chain(memory.cgroup.as_ref().map(|limit| limit.available_bytes)).min()
}

/// Threads of a restore, of so many that were asked for: fewer where memory is so short that their buffers, beside what the
/// files fill, could exceed it.
pub fn threads_within(inventory: &Inventory, namespaces: &[NamespaceRestore], threads: usize) -> usize {
    let Some(left) = memory_left(inventory) else { return threads };
    let sources = namespaces.iter().flat_map(|namespace| &namespace.sources);
    // A chunk as it stands in its file, and decoded.
    let buffers = sources.map(|source| 2 * source.size_bytes.min(u64::from(source.chunk_bytes()))).max().unwrap_or(0);
    let left = left.saturating_sub(memory_needed(namespaces, |source| source.least_memory_bytes));
    let most = left.checked_div(buffers).and_then(|most| usize::try_from(most).ok()).unwrap_or(threads);
    threads.min(most.max(1))
}

/// Files of which only reading them tells whether there is memory for what they fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedRoom {
    /// The files.
    pub sources: Vec<Source>,
    /// What they may fill, all together.
    pub most_bytes: u64,
}

/// Whether a restore that nothing else speaks against fits into memory only if some of its files hold little enough data:
/// another tool's may have zeros where the segment had holes, and a stream does not say what it holds.
pub fn undecided_room(inventory: &Inventory, plan: &Plan<NamespaceRestore>) -> Option<UndecidedRoom> {
    let left = memory_left(inventory)?;
    if !plan.refusals.is_empty() || memory_needed(&plan.namespaces, |source| source.most_memory_bytes) <= left {
        return None;
    }
    let (open, known): (Vec<&Source>, Vec<&Source>) = plan
        .namespaces
        .iter()
        .flat_map(|namespace| &namespace.sources)
        .partition(|source| source.least_memory_bytes < source.most_memory_bytes);
    let known = known.into_iter().map(|source| source.least_memory_bytes).fold(0, u64::saturating_add);
    Some(UndecidedRoom { sources: open.into_iter().cloned().collect(), most_bytes: left.saturating_sub(known) })
}

/// Decides, now that it is known what files fill.
pub fn decide_room(inventory: &Inventory, plan: &mut Plan<NamespaceRestore>, counted: &BTreeMap<Key, u64>) {
    for source in plan.namespaces.iter_mut().flat_map(|namespace| &mut namespace.sources) {
        if let Some(bytes) = counted.get(&source.key) {
            source.least_memory_bytes = *bytes;
            source.most_memory_bytes = *bytes;
        }
    }
    check_memory(inventory, &plan.namespaces, &mut plan.refusals);
}

/// The order in which a namespace's files are published: what ASMT refuses without base first, stripes after it, and
/// base last of all. (The manifest goes between; with no base it is last.)
pub fn publishing_rank(address: Address) -> (u8, std::cmp::Reverse<u16>) {
    let rank = match address.segment_type {
        SegmentType::PiTreex => 0,
        SegmentType::PiStage => 1,
        SegmentType::SiStage => 2,
        SegmentType::SiMeta => 3,
        SegmentType::DataStage => 4,
        SegmentType::PiBase => 5,
    };
    (rank, std::cmp::Reverse(address.index))
}
