//! Decides whether a backup is still that of the node: compares the notes from its making with the
//! current state.
//!
//! Pure: evidence in, a verdict with its reasons out. docs/STALENESS.md has the model: the question
//! is asked once for each server, every witness of any of its namespaces counts for all of them,
//! and each verdict names its witnesses. Promise: without an override, a backup is accepted only if
//! no witness speaks against it. Must never: call the system, or take a missing answer for a good
//! one.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::directory::{FileRecord, Listing};
use crate::facts::memory::Segment;
use crate::facts::server::{Configuration, Device, DeviceState, Evidence, Host};
use crate::format::mark::{Identity, UseRecord, is_used_name_of};
use crate::format::{HeaderStamp, Manifest, instance_of_manifest_name};
use crate::hints::{self, shell_word};
use crate::layout::server_config::{NamespaceConfig, Storage};
use crate::plan::{NamespaceRestore, settings, title, titles};
use asmt_shm::{Header, NamespaceName};
use std::collections::BTreeSet;

mod backup;
mod devices;
mod fate;
mod signs;

pub use backup::{judge_backup, noted_devices};
pub use fate::{Sighting, fate, is_spent};

/// Time by which a sign must be later than a backup, if only times can be compared: clocks are
/// coarse, and a stopping server writes its last lines while a backup may already begin.
pub const SLACK_MS: u64 = 10_000;

/// The decisions of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--force-stale`.
    pub stale: bool,
    /// `--force-host`.
    pub host: bool,
    /// `--require-proof`: not an override, but its opposite.
    pub require_proof: bool,
}

impl Overrides {
    /// The option that overrides a refusal with this code, if it is given.
    fn covering(self, code: Code) -> Option<&'static str> {
        match code {
            Code::BackupStale | Code::MadeSince | Code::BackupUsed | Code::BackupRetired | Code::CannotBeTold => {
                Some("--force-stale")
            }
            Code::DeviceUnreadable | Code::LogMissing | Code::DeviceNotTrusted | Code::CannotMarkUsed => Some("--force-stale"),
            Code::BackupForeignHost => Some("--force-host"),
            _ => None,
        }
        .filter(|option| if *option == "--force-host" { self.host } else { self.stale })
    }
}

/// The decision on a restore of one instance, with its reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The refusals; empty if the restore may be done.
    pub refusals: Vec<Problem>,
    /// Notes for the user.
    pub remarks: Vec<Remark>,
    /// A storage device of each namespace proves that the server has not run since.
    pub is_proven: bool,
    /// Before anything else is done, the directory must note that the server may run from now on:
    /// nothing else would show it after the next boot.
    pub must_mark: bool,
    /// A witness showed for certain that the server has run since, and may not show it again: a
    /// storage file, whose old header a power cut can bring back, or a device that is only named
    /// now.
    pub has_run: bool,
    /// A block device that was noted shows for certain that the server has run since: it has
    /// another random, or is not trusted.
    pub device_has_run: bool,
}

/// One namespace's backup, and its claims.
struct Claim<'l> {
    name: &'l NamespaceName,
    identity: Identity,
    manifest: Option<&'l Manifest>,
    has_stripes: bool,
    /// The random that the server wrote to its data stripes, and to the devices behind them, at its
    /// last start.
    stripe_random: Option<u64>,
}

impl Claim<'_> {
    fn noted(&self) -> &[HeaderStamp] {
        self.manifest.map_or(&[][..], |manifest| &manifest.noted.devices)
    }
}

/// The identity of a namespace's backup, for its mark.
pub fn identity_of(namespace: &NamespaceRestore, listing: &Listing) -> Identity {
    let manifest = manifest_of(namespace, listing);
    let keys: BTreeSet<_> = namespace.sources.iter().map(|source| source.key).collect();
    let files = || listing.files.iter().filter(|file| keys.contains(&file.key));
    match manifest {
        Some(manifest) => Identity { made_ms: manifest.created_ms, boot_id: Some(manifest.boot_id.clone()), files: None },
        None => identity_of_files(files()),
    }
}

/// The identity of a backup without a manifest.
pub fn identity_of_files<'f>(files: impl Iterator<Item = &'f FileRecord> + Clone) -> Identity {
    Identity { made_ms: files.clone().map(|file| file.modified_ms).max().unwrap_or(0), boot_id: None, files: Some(sum_of(files)) }
}

/// The random in the data stripes of a backup. It is the same in all of them: otherwise the set is
/// refused as torn.
fn stripe_random_of(namespace: &NamespaceRestore, listing: &Listing) -> Option<u64> {
    let keys: BTreeSet<_> = namespace.sources.iter().map(|source| source.key).collect();
    listing.files.iter().filter(|file| keys.contains(&file.key)).find_map(|file| match &file.header {
        Header::Stripe(stripe) => Some(stripe.random),
        _ => None,
    })
}

/// A checksum of names, sizes and times of files, by which a backup without a manifest is
/// recognised, whatever the clock shows.
fn sum_of<'f>(files: impl Iterator<Item = &'f FileRecord>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    let mut count = 0;
    for file in files {
        hasher.update(file.name.as_bytes());
        for number in [0, file.file_bytes, file.modified_ms] {
            hasher.update(&number.to_le_bytes());
        }
        count += 1;
    }
    format!("{count}-{:08x}", hasher.finalize())
}

fn manifest_of<'l>(namespace: &NamespaceRestore, listing: &'l Listing) -> Option<&'l Manifest> {
    let mut manifests = listing.manifests_of(namespace.instance).into_iter();
    manifests.find(|manifest| manifest.namespace == namespace.name)
}

/// The ids of uses in the marks of an instance. They are older than a backup that is made now.
pub fn uses_in(listing: &Listing, instance: u8) -> Vec<String> {
    let marks = listing.marks.iter().filter(|(name, _)| is_used_name_of(instance, name));
    marks.filter_map(|(_, mark)| mark.as_ref().ok()).flat_map(|mark| mark.uses().map(UseRecord::id)).collect()
}

/// The devices of the command line whose header names this namespace.
fn named_of<'e>(evidence: &'e Evidence, name: &NamespaceName) -> Vec<&'e Device> {
    let mut seen = BTreeSet::new();
    let devices = evidence.named.iter().filter_map(|path| evidence.devices.get(path));
    let is_of = |device: &&Device| device.header().is_some_and(|header| header.name.as_ref() == Some(name));
    devices.filter(is_of).filter(|device| device.unique.is_none_or(|unique| seen.insert(unique))).collect()
}

/// Devices of the command line whose header names no namespace.
fn strays(evidence: &Evidence) -> Vec<Problem> {
    let devices = evidence.named.iter().filter_map(|path| evidence.devices.get(path));
    let strays = devices.filter(|device| device.header().is_none_or(|header| header.name.is_none()));
    let problem = |device: &Device| {
        let why = match &device.state {
            DeviceState::Unreadable(why) => why.as_str(),
            _ => "has no header that names its namespace",
        };
        Problem::new(Code::DeviceUnreadable, format!("{} {why}", device.path), "check the paths given with --device")
    };
    strays.map(problem).collect()
}

/// Oddities of a configuration that could be understood.
fn configuration_remarks(evidence: &Evidence) -> Vec<Remark> {
    let Configuration::Read { path, config } = &evidence.configuration else { return Vec::new() };
    config.remarks.iter().map(|text| Remark::new(NoteCode::Configuration, format!("{path}: {text}"))).collect()
}

/// Remarks on the server's own means for the same purpose.
fn own_means(name: &NamespaceName, configured: Option<&NamespaceConfig>, evidence: &Evidence) -> Vec<Remark> {
    let Some(configured) = configured else { return Vec::new() };
    let title = title(name, evidence.instance);
    let mut remarks = Vec::new();
    for (which, kind) in [("index-type", &configured.index_type), ("sindex-type", &configured.sindex_type)] {
        if let Some(kind) = kind.as_deref().filter(|kind| matches!(*kind, "pmem" | "flash")) {
            let text = format!("{title}: {which} is {kind}: that index is persistent and is not in shared memory");
            remarks.push(Remark::new(NoteCode::IndexPersists, text));
        }
    }
    let is_global = evidence.configuration.config().is_some_and(|config| config.has_index_checkpoint);
    if is_global || configured.has_index_checkpoint {
        let text = format!("{title}: the server is configured to keep its own checkpoint of the index");
        remarks.push(Remark::new(NoteCode::IndexCheckpoint, text));
    }
    remarks
}

/// Splits the findings into refusals, and remarks on those that are overridden: each overridden
/// check is reported.
fn split(found: Vec<Problem>, overrides: Overrides) -> (Vec<Problem>, Vec<Remark>) {
    let (mut refusals, mut remarks) = (Vec::new(), Vec::new());
    for problem in found {
        match overrides.covering(problem.code) {
            Some(option) => {
                remarks.push(Remark::new(NoteCode::Overridden, format!("OVERRIDDEN BY {option}: {}", problem.message)));
            }
            None if refusals.contains(&problem) => {}
            None => refusals.push(problem),
        }
    }
    (refusals, remarks)
}

/// Proof by storage devices that no server has run since a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It is there, or a device that would give it must be awaited: signs do not count.
    Given,
    /// Signs decide.
    Missing,
}

/// Judges a restore of namespaces of one instance.
pub fn judge_restore(asked: &[NamespaceRestore], listing: &Listing, evidence: &Evidence, overrides: Overrides) -> Verdict {
    let mut judge = Judge::new(asked, listing, evidence);
    judge.ask_devices();
    let proven: BTreeSet<&NamespaceName> =
        judge.claims.iter().map(|claim| claim.name).filter(|name| judge.is_proven(name)).collect();
    let unproven: Vec<&Claim<'_>> = judge.claims.iter().filter(|claim| !proven.contains(claim.name)).collect();
    // If each namespace has its own proof, the devices of others do not count: its server may have
    // run without them.
    let speaks = |name: &NamespaceName| !unproven.is_empty() || judge.claims.iter().any(|claim| claim.name == name);
    let of_devices = judge.found.iter().filter(|finding| speaks(&finding.name)).map(|finding| &finding.problem);
    let mut found: Vec<Problem> = of_devices.cloned().collect();
    // Every later restore checks the noted devices again, but a device that is named now may not be
    // named then.
    let has_moved_on = judge.has_moved_on && !found.is_empty();
    let has_run = judge.has_run && !found.is_empty();
    let device_has_run = judge.device_has_run && !found.is_empty();
    // If a device that could prove it does not answer, that comes first: with an answer, marks and
    // signs would not count.
    let waits = |claim: &Claim<'_>| !overrides.stale && judge.waits_for_device(claim);
    let mut remarks: Vec<Remark> = Vec::new();
    for claim in &judge.claims {
        let configured = evidence.configuration.config().and_then(|config| config.namespaces.get(claim.name));
        remarks.extend(own_means(claim.name, configured, evidence));
        let proof = |is_given| if is_given { Proof::Given } else { Proof::Missing };
        let is_proven = proven.contains(claim.name);
        judge.check_host(claim, proof(is_proven), &mut found, &mut remarks);
        judge.check_marks(claim, proof(is_proven || waits(claim)), &mut found);
    }
    for claim in unproven.iter().filter(|claim| !waits(claim)) {
        judge.check_manifests(claim, &mut found);
        judge.check_traces(claim, &mut found);
        judge.check_service(claim, &mut found);
        judge.check_boots(claim, &mut found);
    }
    found.extend(strays(evidence));
    let must_mark = !unproven.is_empty() && !has_moved_on;
    if must_mark && !evidence.is_markable {
        found.push(Problem::new(
            Code::CannotMarkUsed,
            format!(
                "{}: the backup cannot be marked as used: its directory is not writable, and no storage device can show that it \
                 was used",
                judge.names(&unproven)
            ),
            "make the directory writable; or let asmt check the storage devices (--config, --device); or copy the directory (cp \
             -a), and use only the copy from then on: the original would not record the use",
        ));
    }
    remarks.extend(configuration_remarks(evidence));
    let (mut refusals, overridden) = split(found, overrides);
    refusals.extend(settings::changed(asked, listing, evidence));
    if !unproven.is_empty() && overrides.require_proof {
        let hint = "start the server without a restore, or omit --require-proof if the other checks are enough";
        refusals.push(Problem::new(Code::NotProven, judge.not_proven(&unproven), hint));
    } else if !unproven.is_empty() && refusals.is_empty() {
        // If it is refused anyway, no warning is needed.
        remarks.push(Remark::new(NoteCode::NotProven, judge.not_proven(&unproven)));
    }
    remarks.extend(overridden);
    let is_proven = unproven.is_empty() && !judge.claims.is_empty();
    Verdict { refusals, remarks, is_proven, must_mark, has_run, device_has_run }
}

/// A noted device, and the manifest that noted it.
#[derive(Clone)]
struct NotedDevice<'l> {
    noted: &'l HeaderStamp,
    /// Ids of its disk that were noted for no other disk.
    ids: Vec<&'l str>,
    /// Its namespace.
    name: NamespaceName,
    /// Time of the note, milliseconds since 1970.
    made_ms: u64,
    /// The namespace's own manifest noted it. A device that another namespace's manifest noted
    /// later can show that the server has run since, but not that it has not run since this backup.
    is_own: bool,
}

/// A finding on a device that speaks against a restore.
struct Finding {
    /// The namespace of the device.
    name: NamespaceName,
    /// Path of the device.
    path: String,
    problem: Problem,
}

/// The judge of one restore.
struct Judge<'l> {
    listing: &'l Listing,
    evidence: &'l Evidence,
    instance: u8,
    claims: Vec<Claim<'l>>,
    /// Noted devices of every manifest that counts for a requested namespace, each once.
    noted: Vec<NotedDevice<'l>>,
    /// Namespaces with a noted block device whose state is the same, and namespaces with a noted
    /// device whose state is not.
    same: BTreeSet<NamespaceName>,
    differs: BTreeSet<NamespaceName>,
    /// A noted block device shows that the server has run.
    has_moved_on: bool,
    /// A witness shows it that may not show it again.
    has_run: bool,
    /// A noted block device shows a start of the server, and not only that it was replaced.
    device_has_run: bool,
    /// The findings on devices that speak against a restore.
    found: Vec<Finding>,
}

impl<'l> Judge<'l> {
    fn new(asked: &'l [NamespaceRestore], listing: &'l Listing, evidence: &'l Evidence) -> Self {
        let claims: Vec<Claim<'l>> = asked
            .iter()
            .map(|namespace| Claim {
                name: &namespace.name,
                identity: identity_of(namespace, listing),
                manifest: manifest_of(namespace, listing),
                // If files are damaged, the manifest still shows it.
                has_stripes: namespace.sources.iter().any(|source| !source.address.segment_type.is_index())
                    || manifest_of(namespace, listing)
                        .is_some_and(|manifest| manifest.segments.iter().any(|segment| !segment.address.segment_type.is_index())),
                stripe_random: stripe_random_of(namespace, listing),
            })
            .collect();
        let instance = asked.first().map_or(evidence.instance, |namespace| namespace.instance);
        let earliest = claims.iter().map(|claim| claim.identity.made_ms).min().unwrap_or(0);
        let is_asked = |manifest: &Manifest| claims.iter().any(|claim| claim.name == &manifest.namespace);
        let mut noted: Vec<NotedDevice<'_>> = Vec::new();
        for manifest in listing.manifests_of(instance) {
            // If a device that was noted before a backup differs now, it may have changed before
            // that backup was made.
            if !is_asked(manifest) && manifest.created_ms < earliest {
                continue;
            }
            for device in &manifest.noted.devices {
                let is_own = device.namespace.is_none();
                let is_known =
                    |known: &&mut NotedDevice<'_>| known.noted.what == device.what && known.noted.random == device.random;
                if let Some(known) = noted.iter_mut().find(is_known) {
                    known.is_own |= is_own;
                    continue;
                }
                let name = device.namespace.clone().unwrap_or_else(|| manifest.namespace.clone());
                let others = || manifest.noted.devices.iter().filter(|other| other.what != device.what);
                let is_unique = |id: &&String| !others().any(|other| other.ids.contains(id));
                let ids = device.ids.iter().filter(is_unique).map(String::as_str).collect();
                noted.push(NotedDevice { noted: device, ids, name, made_ms: manifest.created_ms, is_own });
            }
        }
        let (same, differs) = (BTreeSet::new(), BTreeSet::new());
        let found = Vec::new();
        let (has_moved_on, has_run, device_has_run) = (false, false, false);
        Self { listing, evidence, instance, claims, noted, same, differs, has_moved_on, has_run, device_has_run, found }
    }

    /// The name of a namespace in messages.
    fn title(&self, name: &NamespaceName) -> String {
        title(name, self.instance)
    }

    /// The names of several namespaces in messages.
    fn names(&self, claims: &[&Claim<'_>]) -> String {
        titles(&claims.iter().map(|claim| claim.name).collect::<Vec<_>>(), self.instance)
    }

    /// Returns true if a block device of the namespace proves that the server has not run since.
    fn is_proven(&self, name: &NamespaceName) -> bool {
        self.same.contains(name) && !self.differs.contains(name)
    }

    /// Returns true if the proof for a namespace is missing only because a block device of its own
    /// does not answer.
    fn waits_for_device(&self, claim: &Claim<'_>) -> bool {
        let of_name = || self.found.iter().filter(|finding| finding.name == *claim.name);
        let has_disk = claim.noted().iter().any(|noted| noted.namespace.is_none() && !noted.is_file && !noted.is_blank);
        has_disk && of_name().next().is_some() && of_name().all(|finding| finding.problem.code == Code::DeviceUnreadable)
    }

    /// The text for a restore without a device that proves that the server has not run.
    fn not_proven(&self, unproven: &[&Claim<'_>]) -> String {
        let why: BTreeSet<String> = unproven.iter().map(|claim| self.why_not_proven(claim)).collect();
        let why: Vec<String> = why.into_iter().collect();
        let here = &self.evidence.host;
        let mut notes = Vec::new();
        if unproven.iter().any(|claim| claim.identity.made_ms > here.now_ms.saturating_add(SLACK_MS)) {
            notes.push("the backup is dated in the future, so times prove nothing".to_owned());
        }
        let is_same = |claim: &Claim<'_>| claim.manifest.is_some_and(|manifest| is_same_place(manifest, here));
        if unproven.iter().any(|claim| is_same(claim)) && !self.is_used_here() {
            notes.push("it was made during this boot, in which a starting server may have discarded its segments".to_owned());
        }
        let damaged = self
            .listing
            .manifests
            .iter()
            .filter(|record| record.manifest.is_err() && instance_of_manifest_name(&record.name) == Some(self.instance));
        notes.extend(
            damaged.map(|record| format!("{} is damaged: the devices and files recorded in it were not checked", record.name)),
        );
        let unseen: Vec<&str> = self.evidence.unseen.iter().chain(&self.evidence.service.unseen).map(String::as_str).collect();
        if !unseen.is_empty() {
            notes.push(format!("could not be checked: {}", unseen.join(", ")));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("; {}", notes.join("; ")) };
        format!(
            "{}: there is no proof that the server has not run since the backup ({}){notes}; only usage marks, the host and \
             traces of server activity were checked",
            self.names(unproven),
            why.join("; ")
        )
    }

    fn why_not_proven(&self, claim: &Claim<'_>) -> String {
        let own: Vec<&HeaderStamp> = claim.noted().iter().filter(|noted| noted.namespace.is_none()).collect();
        if own.iter().any(|noted| noted.is_file) {
            return "its storage is a file, whose header a power failure can set back".to_owned();
        }
        if !own.is_empty() {
            return "its devices do not agree".to_owned();
        }
        match claim.manifest {
            None => "ASMT does not record storage devices".to_owned(),
            Some(manifest) if manifest.noted.configuration.is_some() => "it has no storage device".to_owned(),
            Some(_) => "the backup recorded no storage device for it".to_owned(),
        }
    }

    /// The hint for a stale backup. A namespace that exists in memory alone starts empty: something
    /// is lost in any case, and the operator must know what.
    fn stale_hint(&self) -> String {
        let (in_memory, others): (Vec<&Claim<'_>>, Vec<&Claim<'_>>) =
            self.claims.iter().partition(|claim| self.is_memory_only(claim));
        if in_memory.is_empty() {
            return hints::STALE.to_owned();
        }
        let lives = if in_memory.iter().all(|claim| self.is_configured(claim)) {
            "is in memory only"
        } else {
            "seems to be in memory only (if it has storage devices or files, do not restore it, and start the server without a \
             restore)"
        };
        // An override applies to everything that is restored with it.
        let (alone, not_others) = if others.is_empty() {
            (String::new(), String::new())
        } else {
            let names: Vec<&str> = in_memory.iter().map(|claim| claim.name.as_str()).collect();
            let reads = if others.iter().all(|claim| self.is_configured(claim)) { " and reads its devices" } else { "" };
            let not_others = format!("; do not restore {} with it, which cold-starts{reads}", self.names(&others));
            (format!("-n {} ", shell_word(&names.join(","))), not_others)
        };
        let instance = if self.instance == 0 { String::new() } else { format!("-i {} ", self.instance) };
        let directory = self.listing.directory.as_ref().map_or("DIR".to_owned(), |directory| shell_word(&directory.path));
        format!(
            "{} {lives}: without a restore, the server starts empty, and the data comes back from other nodes or from a data \
             backup (asrestore); asmt restore {instance}{alone}--force-stale {directory} brings back the data as of this \
             backup, and everything written or deleted since then is lost{not_others}",
            self.names(&in_memory)
        )
    }

    fn used_hint(&self) -> String {
        let in_memory = self.claims.iter().any(|claim| self.is_memory_only(claim));
        if in_memory {
            return self.stale_hint();
        }
        hints::USED.to_owned()
    }

    /// Returns true if the storage of a namespace is configured, or was when the namespace was
    /// backed up.
    fn is_configured(&self, claim: &Claim<'_>) -> bool {
        let is_now = self.evidence.configuration.config().is_some_and(|config| config.namespaces.contains_key(claim.name));
        is_now || claim.manifest.is_some_and(|manifest| manifest.noted.configuration.is_some())
    }

    fn is_memory_only(&self, claim: &Claim<'_>) -> bool {
        let configured = self.evidence.configuration.config().and_then(|config| config.namespaces.get(claim.name));
        match configured {
            Some(configured) => configured.storage == Storage::Memory && configured.devices.is_empty(),
            None => claim.has_stripes && claim.noted().iter().all(|noted| noted.namespace.is_some()),
        }
    }
}

/// The refusal of a restore beside a server's segments.
pub fn made_since_problem(name: &NamespaceName, segment: &Segment) -> Problem {
    Problem::new(
        Code::MadeSince,
        format!(
            "{}: segment {} (shmid {}) in memory was created after the backup, but not by a known restore: the server seems to \
             have run since",
            title(name, segment.address.instance),
            segment.key(),
            segment.stat.shmid
        ),
        "do not restore it: start the server without a restore; use --force-stale only if you know that no server created that \
         segment, but ASMT or an asmt with another runtime directory did",
    )
}

/// Returns true if a backup may be of the server that is backed up here: not of another host, nor
/// of another IPC namespace of this boot, in which another server runs.
pub fn may_be_of_server(manifest: &Manifest, here: &Host) -> bool {
    let is_of_container = manifest.boot_id == here.boot_id
        && manifest.noted.ipc_namespace.as_ref().is_some_and(|noted| *noted != here.ipc_namespace);
    is_of_host(manifest, here) && !is_of_container
}

/// Returns true if a backup was made on this host, by its name and machine id.
///
/// A name that was not set yet, or that has a domain now, belongs to the same machine. With another
/// machine id, or another name, the host is another one: clones of one image have one machine id.
pub fn is_of_host(manifest: &Manifest, here: &Host) -> bool {
    let has_same_id = match (&manifest.noted.machine_id, &here.machine_id) {
        (Some(there), Some(found)) => there == found,
        // Without a machine id, the name decides.
        _ => return manifest.host == here.name,
    };
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let is_unset = |name: &str| matches!(name, "localhost" | "localhost.localdomain" | "(none)");
    let has_same_name = first(&manifest.host) == first(&here.name);
    has_same_id && (has_same_name || is_unset(&here.name) || is_unset(&manifest.host))
}

/// Returns true if a backup was made in this boot and IPC namespace.
pub fn is_same_place(manifest: &Manifest, here: &Host) -> bool {
    manifest.boot_id == here.boot_id && manifest.noted.ipc_namespace.as_ref() == Some(&here.ipc_namespace)
}
