//! Whether a backup is still that of the node: what was noted when it was made against what is found now.
//!
//! Pure: evidence in, a verdict with its reasons out. docs/STALENESS.md has the model: the question is asked once for
//! each server, every witness of any of its namespaces speaks for all of them, and each verdict names its witnesses.
//! Promise: a backup is accepted without an override only where no witness speaks against it. Must never: call the
//! system, or take a missing answer for a good one.

use crate::error::{Code, Problem, Remark};
use crate::facts::server::{
    Configuration, Device, DeviceState, Evidence, Host, Medium, SERVER_UNIT, ServiceStart, TraceChange, hex_of,
};
use crate::format::{Manifest, Noted, rfc3339};
use crate::layout::server_config::{NamespaceConfig, Storage};
use crate::layout::sets;
use crate::plan::{NamespaceBackup, NamespaceRestore, Plan};
use crate::segment::{NamespaceName, STRIPE_TRUSTED, StripeHeader};
use crate::store::{FileRecord, Listing};
use crate::used::{Identity, Use, is_used_name_of, used_name};
use std::collections::BTreeSet;

/// How much later than a backup a sign must be where only times can be compared: clocks are coarse, and a stopping
/// server writes its last lines while a backup may already begin.
pub const SLACK_MS: u64 = 10_000;

/// What a human has decided.
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
    /// The option that takes back a refusal by this code, if it is given.
    fn covering(self, code: Code) -> Option<&'static str> {
        match code {
            Code::BackupStale | Code::BackupUsed | Code::BackupRetired | Code::CannotBeTold => Some("--force-stale"),
            Code::DeviceUnreadable | Code::DeviceNotTrusted | Code::CannotMarkUsed => Some("--force-stale"),
            Code::BackupForeignHost => Some("--force-host"),
            _ => None,
        }
        .filter(|option| if *option == "--force-host" { self.host } else { self.stale })
    }
}

/// Whether a restore of one instance would be accepted, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it must not be done; empty if it may.
    pub refusals: Vec<Problem>,
    /// What the user should know.
    pub remarks: Vec<Remark>,
    /// Whether a storage device of each namespace proves that the server has not run since.
    pub is_proven: bool,
    /// Whether the directory must note, before anything else is done, that the server may run from now on: nothing
    /// else would tell a later boot.
    pub must_mark: bool,
}

/// One namespace's backup, with what it claims.
struct Claim<'l> {
    name: &'l NamespaceName,
    identity: Identity,
    manifest: Option<&'l Manifest>,
    has_stripes: bool,
}

impl Claim<'_> {
    fn noted(&self) -> &[Noted] {
        self.manifest.map_or(&[][..], |manifest| &manifest.noted.devices)
    }
}

/// What a noted device says now.
enum Answer {
    Same,
    Random(u64),
    NotTrusted,
    Blank,
    Unknown,
    OtherNamespace(String),
    CannotBeAsked(String),
}

/// What identifies a namespace's backup for its mark.
pub fn identity_of(namespace: &NamespaceRestore, listing: &Listing) -> Identity {
    let manifest = manifest_of(namespace, listing);
    let keys: BTreeSet<_> = namespace.sources.iter().map(|source| source.key).collect();
    let files = || listing.files.iter().filter(|file| keys.contains(&file.key));
    match manifest {
        Some(manifest) => Identity { made_ms: manifest.created_ms, boot_id: Some(manifest.boot_id.clone()), files: None },
        None => Identity {
            made_ms: files().map(|file| file.modified_ms).max().unwrap_or(0),
            boot_id: None,
            files: Some(sum_of(files())),
        },
    }
}

/// A sum of names, sizes and times of files, so that a backup without a manifest is known again whatever the clock says.
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
    let mut manifests = manifests_of(listing, namespace.instance).into_iter();
    manifests.find(|manifest| manifest.namespace == namespace.name)
}

/// The manifests of an instance in a directory, readable ones alone.
pub fn manifests_of(listing: &Listing, instance: u8) -> Vec<&Manifest> {
    let readable = listing.manifests.iter().filter_map(|record| record.manifest.as_ref().ok());
    readable.filter(|manifest| manifest.instance == instance).collect()
}

/// The ids of uses that marks of an instance tell of: they are older than a backup that is made now.
pub fn uses_in(listing: &Listing, instance: u8) -> Vec<String> {
    let marks = listing.marks.iter().filter(|(name, _)| is_used_name_of(instance, name));
    marks.filter_map(|(_, mark)| mark.as_ref().ok()).flat_map(|mark| mark.uses().map(Use::id)).collect()
}

/// The devices to note in the manifest of a namespace: every one that has a header, of each namespace of the server.
pub fn noted_devices(evidence: &Evidence, own: &NamespaceName) -> Vec<Noted> {
    let mut seen = BTreeSet::new();
    let devices = evidence.devices.values().filter(|device| device.unique.is_none_or(|unique| seen.insert(unique)));
    let noted = devices.filter_map(|device| {
        let header = device.header()?;
        let name = header.name.clone()?;
        // Of another namespace only what can be a witness: its server may have failed for that one.
        (name == *own || device.is_trusted()).then(|| Noted {
            what: device.path.clone(),
            random: header.random,
            is_trusted: device.is_trusted(),
            namespace: Some(name).filter(|name| name != own),
            is_file: device.medium != Some(Medium::Device),
            ids: device.ids.clone(),
        })
    });
    noted.collect()
}

/// Adds to the plan of a backup what speaks against it: what a restore could not accept is refused now.
pub fn judge_backup(plan: &mut Plan<NamespaceBackup>, evidence: &Evidence, overrides: Overrides) {
    let mut found = Vec::new();
    for namespace in &plan.namespaces {
        let name = &namespace.name;
        let configured = evidence.configuration.config().and_then(|config| config.namespaces.get(name));
        plan.remarks.extend(own_means(name, configured, evidence));
        let (problems, remark) = check_storage(name, configured, evidence);
        found.extend(problems);
        plan.remarks.extend(remark);
    }
    plan.remarks.extend(configuration_remarks(evidence));
    if !plan.namespaces.is_empty() {
        found.extend(strays(evidence));
    }
    let (refusals, overridden) = split(found, overrides);
    plan.refusals.extend(refusals);
    plan.remarks.extend(overridden);
}

/// Checks the storage of a namespace that is backed up: all of it must be noted, and be a set that a server starts with.
fn check_storage(
    name: &NamespaceName,
    configured: Option<&NamespaceConfig>,
    evidence: &Evidence,
) -> (Vec<Problem>, Option<Remark>) {
    let title = format!("namespace '{name}'");
    let named: Vec<&Device> = named_of(evidence, name);
    let is_configured = named.is_empty();
    let lines = configured.filter(|_| is_configured).map_or(&[][..], |configured| &configured.devices);
    let device = |path: &String| evidence.devices.get(path);
    let mains: Vec<&Device> =
        if is_configured { lines.iter().filter_map(|line| device(&line.main)).collect() } else { named.clone() };
    let shadows: Vec<&Device> = lines.iter().filter_map(|line| line.shadow.as_ref()).filter_map(device).collect();
    let mut problems = Vec::new();
    for device in mains.iter().chain(&shadows) {
        let problem = |code, what: String| Problem::new(code, format!("{title}: {} {what}", device.path), STORAGE_HINT);
        match &device.state {
            DeviceState::Unreadable(why) => problems
                .push(problem(Code::DeviceUnreadable, format!("{why}: a restore could not tell whether this backup is current"))),
            DeviceState::Unknown => {
                problems.push(problem(
                    Code::DeviceSetTorn,
                    "is not blank, and does not start with a header that is known".to_owned(),
                ));
            }
            DeviceState::Header(_) | DeviceState::Blank => {}
        }
    }
    let members = |devices: &[&Device]| -> Vec<(String, StripeHeader)> {
        devices.iter().filter_map(|device| Some((device.path.clone(), device.header()?.clone()))).collect()
    };
    let (main_members, all_members) = (members(&mains), members(&[mains.clone(), shadows].concat()));
    let is_all_blank = !lines.is_empty() && mains.iter().all(|device| device.state == DeviceState::Blank);
    if is_all_blank {
        let text = format!("{title}: {} and all its other configured devices are blank: no server has used them", mains[0].path);
        problems.push(Problem::new(Code::DeviceSetTorn, text, STORAGE_HINT));
    }
    if problems.is_empty() && !all_members.is_empty() {
        problems.extend(set_problems(&title, name, &main_members, &all_members, is_configured));
    }
    let remark = all_members.is_empty().then(|| why_not_noted(name, configured, evidence)).flatten().map(|why| {
        let text = format!(
            "{title}: its storage devices were not recorded ({why}); a later restore cannot be sure that this backup is current: \
             name the configuration (--config FILE) or the devices (--device PATH)"
        );
        Remark::new("devices-not-noted", text)
    });
    (problems, remark)
}

const STORAGE_HINT: &str = "make sure that the configuration is that of the server that ran, and that every device is there and \
    readable; name others with --config or --device";

/// What is wrong with a set of storage devices in itself.
fn set_problems(
    title: &str,
    name: &NamespaceName,
    mains: &[(String, StripeHeader)],
    all: &[(String, StripeHeader)],
    is_configured: bool,
) -> Vec<Problem> {
    let trusted_first = |(_, header): &&(String, StripeHeader)| header.flags & STRIPE_TRUSTED == 0;
    let mut problems = Vec::new();
    if let Some((path, _)) = all.iter().find(trusted_first) {
        problems.push(Problem::new(
            Code::DeviceNotTrusted,
            format!("{title}: {path} is not marked as trusted: the server was not cleanly shut down for it"),
            "a restore would be refused: start the server, stop it cleanly and wait until asd has gone, then back up",
        ));
    }
    let as_trusted: Vec<(String, StripeHeader)> = all
        .iter()
        .map(|(path, header)| {
            let flags = header.flags | STRIPE_TRUSTED;
            (path.clone(), StripeHeader { flags, ..header.clone() })
        })
        .collect();
    let members: Vec<sets::Member<'_>> =
        as_trusted.iter().map(|(path, header)| sets::Member { shown: path.clone(), header }).collect();
    let mut faults = sets::faults("storage device", &members, name, None);
    // Which of the devices that were named by hand are shadows is not known: there may be as many of them again.
    if let (true, Some((_, first))) = (faults.is_empty(), mains.first()) {
        let (expected, found) = (first.device_count as usize, mains.len());
        let most = if is_configured { expected } else { expected.saturating_mul(2) };
        if found < expected || found > most {
            faults.push(format!("{found} storage devices are there, and their headers count {expected}"));
        }
    }
    problems.extend(faults.into_iter().map(|fault| Problem::new(Code::DeviceSetTorn, format!("{title}: {fault}"), STORAGE_HINT)));
    problems
}

/// The devices of the command line whose header names this namespace.
fn named_of<'e>(evidence: &'e Evidence, name: &NamespaceName) -> Vec<&'e Device> {
    let mut seen = BTreeSet::new();
    let devices = evidence.named.iter().filter_map(|path| evidence.devices.get(path));
    let is_of = |device: &&Device| device.header().is_some_and(|header| header.name.as_ref() == Some(name));
    devices.filter(is_of).filter(|device| device.unique.is_none_or(|unique| seen.insert(unique))).collect()
}

/// Why no device of a namespace is known; `None` where it is configured to have none.
fn why_not_noted(name: &NamespaceName, configured: Option<&NamespaceConfig>, evidence: &Evidence) -> Option<String> {
    match (&evidence.configuration, configured) {
        (Configuration::NotThere(why), _) => Some(why.clone()),
        (Configuration::Read { path, .. }, None) => Some(format!("{path} names no namespace '{name}'")),
        (Configuration::Read { .. }, Some(_)) => None,
    }
}

/// Devices of the command line that do not say whose they are.
fn strays(evidence: &Evidence) -> Vec<Problem> {
    let devices = evidence.named.iter().filter_map(|path| evidence.devices.get(path));
    let strays = devices.filter(|device| device.header().is_none_or(|header| header.name.is_none()));
    let problem = |device: &Device| {
        let why = match &device.state {
            DeviceState::Unreadable(why) => why.as_str(),
            _ => "has no header that is known, and does not say whose it is",
        };
        Problem::new(Code::DeviceUnreadable, format!("{} {why}", device.path), "check what --device names")
    };
    strays.map(problem).collect()
}

/// What is odd about the configuration, and does not keep it from being understood.
fn configuration_remarks(evidence: &Evidence) -> Vec<Remark> {
    let Configuration::Read { path, config } = &evidence.configuration else { return Vec::new() };
    config.remarks.iter().map(|text| Remark::new("configuration", format!("{path}: {text}"))).collect()
}

/// What the server has of its own for the same purpose.
fn own_means(name: &NamespaceName, configured: Option<&NamespaceConfig>, evidence: &Evidence) -> Vec<Remark> {
    let Some(configured) = configured else { return Vec::new() };
    let title = format!("namespace '{name}'");
    let mut remarks = Vec::new();
    for (which, kind) in [("index-type", &configured.index_type), ("sindex-type", &configured.sindex_type)] {
        if let Some(kind) = kind.as_deref().filter(|kind| matches!(*kind, "pmem" | "flash")) {
            let text = format!("{title}: {which} is {kind}: that index persists by itself and is not in shared memory");
            remarks.push(Remark::new("index-persists", text));
        }
    }
    let is_global = evidence.configuration.config().is_some_and(|config| config.has_index_checkpoint);
    if is_global || configured.has_index_checkpoint {
        let text = format!("{title}: the server is configured to keep a checkpoint of its index by itself");
        remarks.push(Remark::new("index-checkpoint", text));
    }
    remarks
}

/// Splits what was found into what stands, and remarks on what is overridden: each check is printed.
fn split(found: Vec<Problem>, overrides: Overrides) -> (Vec<Problem>, Vec<Remark>) {
    let (mut refusals, mut remarks) = (Vec::new(), Vec::new());
    for problem in found {
        match overrides.covering(problem.code) {
            Some(option) => {
                remarks.push(Remark::new("overridden", format!("OVERRIDDEN BY {option}: {}", problem.message)));
            }
            None if refusals.contains(&problem) => {}
            None => refusals.push(problem),
        }
    }
    (refusals, remarks)
}

/// Judges a restore of namespaces of one instance.
pub fn judge_restore(asked: &[NamespaceRestore], listing: &Listing, evidence: &Evidence, overrides: Overrides) -> Verdict {
    let mut judge = Judge::new(asked, listing, evidence);
    judge.check_noted();
    judge.check_configured_now();
    let proven: BTreeSet<&NamespaceName> =
        judge.claims.iter().map(|claim| claim.name).filter(|name| judge.is_proven(name)).collect();
    let unproven: Vec<&Claim<'_>> = judge.claims.iter().filter(|claim| !proven.contains(claim.name)).collect();
    let mut found = judge.found.clone();
    let mut remarks: Vec<Remark> = Vec::new();
    for claim in &judge.claims {
        let configured = evidence.configuration.config().and_then(|config| config.namespaces.get(claim.name));
        remarks.extend(own_means(claim.name, configured, evidence));
        judge.check_host(claim, proven.contains(claim.name), &mut found, &mut remarks);
        judge.check_marks(claim, proven.contains(claim.name), &mut found);
    }
    for claim in &unproven {
        judge.check_traces(claim, &mut found);
        judge.check_service(claim, &mut found);
        judge.check_boots(claim, &mut found);
    }
    found.extend(strays(evidence));
    let must_mark = !unproven.is_empty() && !judge.has_moved_on;
    if must_mark && !evidence.is_markable {
        found.push(Problem::new(
            Code::CannotMarkUsed,
            format!(
                "{}: the backup cannot be marked as used: its directory cannot be written to, and no device tells",
                names(&unproven)
            ),
            "make the directory writable or copy it (cp -a), or let devices be asked (--config, --device)",
        ));
    }
    remarks.extend(configuration_remarks(evidence));
    let (mut refusals, overridden) = split(found, overrides);
    if !unproven.is_empty() && overrides.require_proof {
        let hint = "start the server as it is, or leave --require-proof out if the signs that were checked are enough";
        refusals.push(Problem::new(Code::NotProven, judge.not_proven(&unproven), hint));
    } else if !unproven.is_empty() && refusals.is_empty() {
        // Where it is refused anyway, there is nothing to be warned of.
        remarks.push(Remark::new("not-proven", judge.not_proven(&unproven)));
    }
    remarks.extend(overridden);
    let is_proven = unproven.is_empty() && !judge.claims.is_empty();
    Verdict { refusals, remarks, is_proven, must_mark }
}

/// Names of namespaces, for a message.
fn names(claims: &[&Claim<'_>]) -> String {
    let quoted: Vec<String> = claims.iter().map(|claim| format!("'{}'", claim.name)).collect();
    format!("namespace {}", quoted.join(", "))
}

/// The judging of one restore.
struct Judge<'l> {
    listing: &'l Listing,
    evidence: &'l Evidence,
    instance: u8,
    claims: Vec<Claim<'l>>,
    /// Noted devices of every manifest that speaks for a namespace that is asked for, each once, with when it was noted.
    noted: Vec<(&'l Noted, NamespaceName, u64)>,
    /// Namespaces with a noted block device that says the same, and with a noted device that does not.
    same: BTreeSet<NamespaceName>,
    differs: BTreeSet<NamespaceName>,
    /// An exact witness says that the server has run.
    has_moved_on: bool,
    found: Vec<Problem>,
}

impl<'l> Judge<'l> {
    fn new(asked: &'l [NamespaceRestore], listing: &'l Listing, evidence: &'l Evidence) -> Self {
        let claims: Vec<Claim<'l>> = asked
            .iter()
            .map(|namespace| Claim {
                name: &namespace.name,
                identity: identity_of(namespace, listing),
                manifest: manifest_of(namespace, listing),
                has_stripes: namespace.sources.iter().any(|source| !source.address.segment_type.is_index()),
            })
            .collect();
        let instance = asked.first().map_or(evidence.instance, |namespace| namespace.instance);
        let earliest = claims.iter().map(|claim| claim.identity.made_ms).min().unwrap_or(0);
        let is_asked = |manifest: &Manifest| claims.iter().any(|claim| claim.name == &manifest.namespace);
        let mut noted: Vec<(&Noted, NamespaceName, u64)> = Vec::new();
        for manifest in manifests_of(listing, instance) {
            // What was noted before a backup and differs now may have changed before that backup was made.
            if !is_asked(manifest) && manifest.created_ms < earliest {
                continue;
            }
            for device in &manifest.noted.devices {
                let name = device.namespace.clone().unwrap_or_else(|| manifest.namespace.clone());
                if !noted.iter().any(|(other, ..)| other.what == device.what && other.random == device.random) {
                    noted.push((device, name, manifest.created_ms));
                }
            }
        }
        let (same, differs) = (BTreeSet::new(), BTreeSet::new());
        Self { listing, evidence, instance, claims, noted, same, differs, has_moved_on: false, found: Vec::new() }
    }

    /// Whether a block device of the namespace proves that the server has not run since.
    fn is_proven(&self, name: &NamespaceName) -> bool {
        self.same.contains(name) && !self.differs.contains(name)
    }

    /// Asks every noted device, whether or not the configuration names it.
    fn check_noted(&mut self) {
        for (noted, name, made_ms) in self.noted.clone() {
            let (path, answer) = self.resolve(noted, &name);
            let title = format!("namespace '{name}'");
            let made = rfc3339(made_ms);
            let ran = |what: String| {
                let text =
                    format!("{title}: {path} {what}: the server has run since the backup; restoring would roll back to {made}");
                Problem::new(Code::BackupStale, text, self.stale_hint())
            };
            let replaced = |what: String| {
                let text = format!("{title}: {path} {what}: it was replaced or wiped since the backup of {made}");
                Problem::new(Code::BackupStale, text, self.stale_hint())
            };
            let problem = match answer {
                Answer::Same => None,
                Answer::Random(found) => Some(ran(format!("has random {found:016x}, expected {:016x}", noted.random))),
                Answer::NotTrusted => Some(ran("is not marked as trusted".to_owned())),
                Answer::Blank => Some(replaced("is blank".to_owned())),
                Answer::Unknown => Some(replaced("has no header that is known".to_owned())),
                Answer::OtherNamespace(other) => Some(replaced(format!("is of namespace '{other}'"))),
                Answer::CannotBeAsked(why) => Some(Problem::new(
                    Code::DeviceUnreadable,
                    format!("{title}: {path} cannot be asked whether the server has run since the backup: it {why}"),
                    "make sure that the device is there and readable, then run it again; --force-stale goes without asking",
                )),
            };
            match problem {
                None if noted.is_file => {}
                None => {
                    self.same.insert(name);
                }
                Some(problem) => {
                    self.has_moved_on |= problem.code == Code::BackupStale;
                    self.differs.insert(name);
                    self.found.push(problem);
                }
            }
        }
    }

    /// What a noted device says: at its path, else by what stays with the disk, else as another one of its set.
    fn resolve(&self, noted: &Noted, name: &NamespaceName) -> (String, Answer) {
        let at_path = self.evidence.devices.get(&noted.what);
        let by_id = || {
            let devices = self.evidence.devices.values();
            devices.into_iter().find(|device| device.ids.iter().any(|id| noted.ids.contains(id)))
        };
        let says_same = |device: &Device| matches!(answer_of(device, noted, name), Answer::Same);
        let found = at_path.filter(|device| says_same(device)).or_else(by_id).or(at_path);
        match found {
            Some(device) if says_same(device) => (device.path.clone(), Answer::Same),
            other => match self.swapped(noted, name) {
                Some(device) => (device.path.clone(), Answer::Same),
                None => other.map_or_else(
                    || (noted.what.clone(), Answer::CannotBeAsked("was not asked".to_owned())),
                    |device| (device.path.clone(), answer_of(device, noted, name)),
                ),
            },
        }
    }

    /// Names of devices change with a reboot: a device under a name that was not noted, or that was noted for another
    /// one, stands in for the noted one if it says the same and is no second name of a disk that counts already.
    fn swapped(&self, noted: &Noted, name: &NamespaceName) -> Option<&'l Device> {
        let is_taken = |device: &Device| {
            self.noted.iter().any(|(other, other_name, _)| {
                let is_at_its_path = other.what == device.path && matches!(answer_of(device, other, other_name), Answer::Same);
                let is_its_disk = device.ids.iter().any(|id| other.ids.contains(id));
                let is_same_file = self.evidence.devices.get(&other.what).is_some_and(|there| {
                    there.unique == device.unique && matches!(answer_of(there, other, other_name), Answer::Same)
                });
                other.what != noted.what && (is_at_its_path || is_its_disk || is_same_file)
            })
        };
        let mut devices = self.evidence.devices.values();
        devices.find(|device| matches!(answer_of(device, noted, name), Answer::Same) && !is_taken(device))
    }

    /// What the configuration or the command line names now and was not noted: another set, or a namespace that moved.
    fn check_configured_now(&mut self) {
        let noted_paths: BTreeSet<&str> = self.noted.iter().map(|(noted, ..)| noted.what.as_str()).collect();
        let noted_things: BTreeSet<(u64, u64)> =
            self.noted.iter().filter_map(|(noted, ..)| self.evidence.devices.get(&noted.what)?.unique).collect();
        let mut found = Vec::new();
        for (name, path) in self.named_now() {
            let Some(device) = self.evidence.devices.get(&path) else { continue };
            let is_noted =
                noted_paths.contains(device.path.as_str()) || device.unique.is_some_and(|it| noted_things.contains(&it));
            if !is_noted {
                found.extend(self.check_new_device(&name, device));
            }
        }
        self.has_moved_on |= found.iter().any(|problem| problem.code == Code::BackupStale);
        self.found.extend(found);
    }

    /// Paths that are configured or named now, with the namespace they are for: of those that are asked for or noted.
    fn named_now(&self) -> Vec<(NamespaceName, String)> {
        let known: BTreeSet<&NamespaceName> =
            self.claims.iter().map(|claim| claim.name).chain(self.noted.iter().map(|(_, name, _)| name)).collect();
        let mut paths = Vec::new();
        for (name, configured) in self.evidence.configuration.config().iter().flat_map(|config| &config.namespaces) {
            if known.contains(name) && named_of(self.evidence, name).is_empty() {
                let lines = configured.devices.iter().flat_map(|line| std::iter::once(&line.main).chain(&line.shadow));
                paths.extend(lines.map(|path| (name.clone(), path.clone())));
            }
        }
        for path in &self.evidence.named {
            let header = self.evidence.devices.get(path).and_then(Device::header);
            if let Some(name) = header.and_then(|header| header.name.clone()).filter(|name| known.contains(name)) {
                paths.push((name, path.clone()));
            }
        }
        paths
    }

    fn check_new_device(&self, name: &NamespaceName, device: &Device) -> Option<Problem> {
        let title = format!("namespace '{name}'");
        let randoms: BTreeSet<u64> =
            self.noted.iter().filter(|(_, other, _)| other == name).map(|(noted, ..)| noted.random).collect();
        let had_none = self
            .claims
            .iter()
            .any(|claim| claim.name == name && claim.manifest.is_some_and(|manifest| manifest.noted.configuration.is_some()));
        let stale = |what: String| {
            let text = format!("{title}: {} is named now, was not noted in the backup, and {what}", device.path);
            Some(Problem::new(Code::BackupStale, text, self.stale_hint()))
        };
        match &device.state {
            DeviceState::Blank => None,
            DeviceState::Unknown => stale("holds something else than a server's data".to_owned()),
            DeviceState::Unreadable(why) => Some(Problem::new(
                Code::DeviceUnreadable,
                format!("{title}: {} cannot be asked whether the server has run since the backup: it {why}", device.path),
                "make sure that the device is there and readable, then run it again; --force-stale goes without asking",
            )),
            DeviceState::Header(header) if header.name.as_ref() != Some(name) => {
                let other = header.name.as_ref().map_or("?", NamespaceName::as_str);
                stale(format!("is of namespace '{other}'"))
            }
            // A backup is of a clean stop, which leaves every device trusted: that much is known of any backup.
            DeviceState::Header(_) if !device.is_trusted() => {
                stale("is not marked as trusted: the server has run since".to_owned())
            }
            DeviceState::Header(header) if !randoms.is_empty() && !randoms.contains(&header.random) => {
                stale(format!("has random {:016x}, which is of another set: the server has run since", header.random))
            }
            DeviceState::Header(_) if randoms.is_empty() && had_none => {
                stale("has been used by a server: the namespace had no such device when it was backed up".to_owned())
            }
            DeviceState::Header(_) => None,
        }
    }

    /// Another host's backup: by machine id and host name, for clones of one image have one machine id.
    fn check_host(&self, claim: &Claim<'_>, is_proven: bool, found: &mut Vec<Problem>, remarks: &mut Vec<Remark>) {
        let Some(manifest) = claim.manifest else { return };
        let here = &self.evidence.host;
        let has_same_id = match (&manifest.noted.machine_id, &here.machine_id) {
            (Some(there), Some(found)) => there == found,
            _ => true,
        };
        if has_same_id && manifest.host == here.name {
            return;
        }
        let id = |id: &Option<String>| id.as_ref().map_or(String::new(), |id| format!(", machine id {id}"));
        let text = format!(
            "the backup is of host '{}'{}; this is '{}'{}",
            manifest.host,
            id(&manifest.noted.machine_id),
            here.name,
            id(&here.machine_id)
        );
        if is_proven {
            let remark = Remark::new("other-host", format!("{text}: taken for this node's, as its storage devices are the same"));
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
            return;
        }
        found.push(Problem::new(
            Code::BackupForeignHost,
            text,
            "use the backup of this host; only where this host is the same under another name, or has taken over the other one's \
             devices: --force-host",
        ));
    }

    /// Marks of any namespace of the instance. A retired backup is never used; one that was used may be used again in the
    /// same boot and IPC namespace, for a start may fail; elsewhere the server may have run on it, which devices tell.
    fn check_marks(&self, claim: &Claim<'_>, is_proven: bool, found: &mut Vec<Problem>) {
        let own_name = used_name(self.instance, claim.name);
        for (mark_name, mark) in self.listing.marks.iter().filter(|(name, _)| is_used_name_of(self.instance, name)) {
            let is_own = *mark_name == own_name;
            let title = if is_own { format!("namespace '{}'", claim.name) } else { format!("{mark_name} (of this server)") };
            let mark = match mark {
                Ok(mark) => mark,
                Err(_) if !is_own && is_proven => continue,
                Err(why) => {
                    let text = format!("{title}: whether the backup was used cannot be told: {mark_name}: {why}");
                    found.push(Problem::new(Code::BackupUsed, text, self.used_hint()));
                    continue;
                }
            };
            if is_own && !mark.is_of(&claim.identity) {
                continue;
            }
            let speaks = |used: &&Use| is_own || self.is_later(claim, used);
            if let Some(retired) = mark.retired.iter().find(speaks).filter(|_| is_own || !is_proven) {
                let text = format!("{title}: the backup was retired on {} at {}", retired.host, rfc3339(retired.at_ms));
                found.push(Problem::new(Code::BackupRetired, text, self.used_hint()));
            }
            if is_proven {
                continue;
            }
            let here = &self.evidence.host;
            let is_elsewhere = |used: &&Use| used.has_served || !used.is_in(&here.boot_id, &here.ipc_namespace);
            if let Some(earlier) = mark.restores.iter().filter(speaks).find(is_elsewhere) {
                let place = match (earlier.has_served, earlier.boot_id == here.boot_id) {
                    (true, _) => "and the server has run on it since",
                    (false, true) => "in another IPC namespace (container): the server may have run since",
                    (false, false) => "in another boot: the server may have run since",
                };
                let at = rfc3339(earlier.at_ms);
                let text = format!("{title}: a restore of the backup was begun on {} at {at}, {place}", earlier.host);
                found.push(Problem::new(Code::BackupUsed, text, self.used_hint()));
            }
        }
    }

    /// Whether a use that another namespace's mark tells of came after this backup was made.
    fn is_later(&self, claim: &Claim<'_>, used: &Use) -> bool {
        match claim.manifest {
            Some(manifest) if manifest.noted.ipc_namespace.is_some() => !manifest.noted.earlier_uses.contains(&used.id()),
            _ => used.at_ms >= claim.identity.made_ms || claim.identity.made_ms > self.evidence.host.now_ms,
        }
    }

    /// What the server writes to: compared with how it was noted, or where nothing was noted by its times.
    fn check_traces(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let made = rfc3339(claim.identity.made_ms);
        if claim.manifest.is_some_and(|manifest| !manifest.noted.traces.is_empty()) {
            let compared = self.evidence.compared.get(claim.name).into_iter().flatten();
            for trace in compared.filter(|trace| trace.change == TraceChange::Changed) {
                let text = format!("{} has changed since the backup of {made}: the server seems to have run", trace.path);
                found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
            }
            return;
        }
        let written = self.evidence.traces.iter().filter_map(|trace| {
            let state = trace.state.as_ref().filter(|state| state.size > 0)?;
            Some((&trace.path, state.modified_ns / 1_000_000))
        });
        if let Some((path, at_ms)) = written.max_by_key(|(_, at_ms)| *at_ms)
            && at_ms > claim.identity.made_ms.saturating_add(SLACK_MS)
        {
            let text =
                format!("{path} was written at {}, after the backup of {made}: the server seems to have run", rfc3339(at_ms));
            found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
        }
    }

    /// Starts of the server's unit after the backup.
    fn check_service(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let history = &self.evidence.service;
        let here = hex_of(&self.evidence.host.boot_id);
        let is_used_here = self.is_used_here();
        let forgiven: Vec<u64> = history
            .starts
            .iter()
            .filter(|start| is_used_here && start.boot_id == here && start.has_failed_early)
            .map(|start| start.monotonic_ms)
            .collect();
        let is_forgiven =
            |start: &ServiceStart| start.boot_id == here && forgiven.iter().any(|at| at.abs_diff(start.monotonic_ms) < 2000);
        let counts = |start: &&ServiceStart| self.is_after_backup(claim, start) && !is_forgiven(start);
        if let Some(start) = history.starts.iter().find(counts) {
            let boot = if start.boot_id == here { "in this boot" } else { "in an earlier boot" };
            let text = format!(
                "{} knows of a start of {} {boot}, after the backup of {}: the server has run",
                start.source,
                SERVER_UNIT,
                rfc3339(claim.identity.made_ms)
            );
            found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
        }
    }

    fn is_after_backup(&self, claim: &Claim<'_>, start: &ServiceStart) -> bool {
        let Some(manifest) = claim.manifest else {
            // When in which boot it was made is not known: what ran in this boot ran after the reboot it was made for.
            return start.boot_id == hex_of(&self.evidence.host.boot_id);
        };
        let made_in = hex_of(&manifest.boot_id);
        if start.boot_id == made_in {
            return manifest.noted.monotonic_ms.is_some_and(|at| start.monotonic_ms > at);
        }
        let place = |boot: &str| self.evidence.service.journal_boots.iter().position(|found| found == boot);
        match (place(&made_in), place(&start.boot_id)) {
            (Some(made_in), Some(started_in)) => started_in > made_in,
            // The journal begins after the boot of the backup, or is of this boot alone.
            _ => true,
        }
    }

    /// Whether a restore was begun in this boot and IPC namespace.
    fn is_used_here(&self) -> bool {
        let here = &self.evidence.host;
        let marks = self.listing.marks.iter().filter(|(name, _)| is_used_name_of(self.instance, name));
        let mut uses = marks.filter_map(|(_, mark)| mark.as_ref().ok()).flat_map(|mark| &mark.restores);
        uses.any(|used| used.is_in(&here.boot_id, &here.ipc_namespace))
    }

    /// More than one boot since the backup: in one of them the server may have run, and nobody saw it.
    fn check_boots(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let history = &self.evidence.service;
        let here = hex_of(&self.evidence.host.boot_id);
        let made_in = claim.manifest.map(|manifest| hex_of(&manifest.boot_id));
        if made_in.as_ref() == Some(&here) {
            return;
        }
        let place = |boot: &str| history.journal_boots.iter().position(|found| found == boot);
        let by_journal = made_in.as_deref().and_then(place).zip(place(&here)).map(|(from, to)| to.saturating_sub(from));
        let made_ms = claim.identity.made_ms;
        let by_logins = history.login_boots_ms.iter().filter(|at_ms| **at_ms > made_ms).count();
        let (count, source) = match by_journal {
            Some(count) if count >= by_logins => (count, "the journal"),
            _ => (by_logins, "the login records"),
        };
        if count > 1 {
            let text = format!(
                "the machine was booted {count} times since the backup of {} ({source}), expected once: whether the server has run in \
                 between cannot be told",
                rfc3339(made_ms)
            );
            found.push(Problem::new(Code::CannotBeTold, text, self.used_hint()));
        }
    }

    /// What is said where no device proves that the server has not run.
    fn not_proven(&self, unproven: &[&Claim<'_>]) -> String {
        let why: BTreeSet<String> = unproven.iter().map(|claim| self.why_not_proven(claim)).collect();
        let why: Vec<String> = why.into_iter().collect();
        let here = &self.evidence.host;
        let mut notes = Vec::new();
        if unproven.iter().any(|claim| claim.identity.made_ms > here.now_ms.saturating_add(SLACK_MS)) {
            notes.push("the backup is dated in the future, so that times prove nothing".to_owned());
        }
        let is_same = |claim: &Claim<'_>| claim.manifest.is_some_and(|manifest| is_same_place(manifest, here));
        if unproven.iter().any(|claim| is_same(claim)) && !self.is_used_here() {
            notes.push("its segments were removed in the same boot, which a starting server also does".to_owned());
        }
        let unseen: Vec<&str> = self.evidence.unseen.iter().chain(&self.evidence.service.unseen).map(String::as_str).collect();
        if !unseen.is_empty() {
            notes.push(format!("not seen: {}", unseen.join(", ")));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("; {}", notes.join("; ")) };
        format!(
            "{}: there is no proof that the server has not run since the backup ({}){notes}; only marks, the host and signs of the \
             server's life were checked",
            names(unproven),
            why.join("; ")
        )
    }

    fn why_not_proven(&self, claim: &Claim<'_>) -> String {
        let own: Vec<&Noted> = claim.noted().iter().filter(|noted| noted.namespace.is_none()).collect();
        if own.iter().any(|noted| noted.is_file) {
            return "its storage is a file, whose header a power cut can set back".to_owned();
        }
        if !own.is_empty() {
            return "its devices do not say the same".to_owned();
        }
        match claim.manifest {
            None => "ASMT notes no storage devices".to_owned(),
            Some(manifest) if manifest.noted.configuration.is_some() => "it has no storage device".to_owned(),
            Some(_) => "the backup has noted no storage device of it".to_owned(),
        }
    }

    /// What to do instead of a restore of what is stale. A namespace that lives in memory alone starts empty: both ways
    /// something is lost, and the operator must know what.
    fn stale_hint(&self) -> String {
        let in_memory = self.claims.iter().filter(|claim| self.is_memory_only(claim)).collect::<Vec<_>>();
        if in_memory.is_empty() {
            return "do not restore it: start the server as it is, it cold-starts and reads its devices (--force-stale restores all the \
                    same)"
                .to_owned();
        }
        format!(
            "{} lives in memory alone: a start without a restore is empty, and the data comes back from other nodes or from a backup of \
             data (asrestore); --force-stale brings back what was there at the time of this backup, and all that was written or deleted \
             later is lost",
            names(&in_memory)
        )
    }

    fn used_hint(&self) -> String {
        let in_memory = self.claims.iter().any(|claim| self.is_memory_only(claim));
        if in_memory {
            return self.stale_hint();
        }
        "do not restore it: start the server as it is; --force-stale only if you know that it has not run since".to_owned()
    }

    fn is_memory_only(&self, claim: &Claim<'_>) -> bool {
        let configured = self.evidence.configuration.config().and_then(|config| config.namespaces.get(claim.name));
        match configured {
            Some(configured) => configured.storage == Storage::Memory && configured.devices.is_empty(),
            None => claim.has_stripes && claim.noted().iter().all(|noted| noted.namespace.is_some()),
        }
    }
}

fn answer_of(device: &Device, noted: &Noted, name: &NamespaceName) -> Answer {
    match &device.state {
        DeviceState::Unreadable(why) => Answer::CannotBeAsked(why.clone()),
        DeviceState::Blank => Answer::Blank,
        DeviceState::Unknown => Answer::Unknown,
        DeviceState::Header(header) if header.name.as_ref() != Some(name) => {
            Answer::OtherNamespace(header.name.as_ref().map_or("?", NamespaceName::as_str).to_owned())
        }
        DeviceState::Header(header) if header.random != noted.random => Answer::Random(header.random),
        DeviceState::Header(_) if !device.is_trusted() => Answer::NotTrusted,
        DeviceState::Header(_) => Answer::Same,
    }
}

/// Whether a backup was made in this boot and IPC namespace.
pub fn is_same_place(manifest: &Manifest, here: &Host) -> bool {
    manifest.boot_id == here.boot_id && manifest.noted.ipc_namespace.as_ref() == Some(&here.ipc_namespace)
}
