//! Whether a backup is still that of the node's devices: what was noted when it was made against what is found now.
//!
//! Pure. Promise: where devices can be asked, the answer is exact: at every open the server writes a new random into each
//! and takes back their trusted bit (public facts of the device header), so the same random with the bit set means that it
//! has not run since. Where they cannot, that is said, and a backup is refused that was restored in another boot, was
//! made on another host, or is older than signs of the server's life. Must never: call the system, or take a missing
//! answer for a good one.

use crate::configuration::Namespace;
use crate::error::{Code, Problem, Remark};
use crate::format::{Manifest, Noted, rfc3339};
use crate::plan::{NamespaceBackup, NamespaceRestore, Plan};
use crate::segment::NamespaceName;
use crate::store::Listing;
use crate::used::{Used, used_name};
use std::collections::{BTreeMap, BTreeSet};

/// How much later than a backup a sign of life must be: clocks are coarse, and a stopping server writes its last lines
/// while a backup may already begin.
pub const SLACK_MS: u64 = 10_000;

/// What a storage device or file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It starts with a header that is known.
    Header {
        /// Whose it is.
        namespace: Option<NamespaceName>,
        /// Written anew at each open.
        random: u64,
        /// Set at a clean stop, taken back at each open.
        is_trusted: bool,
    },
    /// It can be read, and starts with something else.
    NoHeader,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// A storage device or file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path as the configuration or the command line has it.
    pub path: String,
    /// What it says.
    pub state: DeviceState,
}

/// Something that only a server that runs writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// Its path.
    pub path: String,
    /// When it was last written, milliseconds since 1970.
    pub at_ms: u64,
}

/// What is known of a namespace besides its segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its devices and files.
    pub devices: Vec<Device>,
    /// What the configuration says of it.
    pub configured: Option<Namespace>,
}

/// Which machine it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Boot id of the kernel.
    pub boot_id: String,
}

/// What is found on this machine, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This machine.
    pub host: Host,
    /// Path of the configuration that was read; else why none was.
    pub configuration: Result<String, String>,
    /// Of the namespaces that are asked for.
    pub namespaces: BTreeMap<NamespaceName, NamespaceFacts>,
    /// Devices named on the command line that do not say whose they are.
    pub strays: Vec<Device>,
    /// What is odd about the configuration.
    pub oddities: Vec<String>,
    /// The latest sign of a server's life of each kind.
    pub signs: Vec<Sign>,
    /// Places of such signs that this user may not look at.
    pub unseen: Vec<String>,
    /// Whether the server keeps a checkpoint of the index by itself.
    pub has_index_checkpoint: bool,
    /// Whether a mark can be written into the backup's directory.
    pub is_markable: bool,
}

/// What a human has overridden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--force-stale`.
    pub stale: bool,
    /// `--force-host`.
    pub host: bool,
}

impl Overrides {
    /// Whether it takes back a refusal by this code.
    fn covers(self, code: Code) -> bool {
        match code {
            Code::BackupStale | Code::BackupUsed | Code::BackupRetired => self.stale,
            Code::DeviceUnreadable | Code::DeviceNotTrusted | Code::CannotMarkUsed => self.stale,
            Code::BackupForeignHost => self.host,
            _ => false,
        }
    }
}

/// What was noted when a backup was made.
struct Backup<'b> {
    /// When, milliseconds since 1970: of a manifest, else the latest change of a file.
    made_ms: u64,
    manifest: Option<&'b Manifest>,
}

/// By what it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// Devices were asked: whether it was restored before does not matter.
    Devices,
    /// There was none to ask, or nothing to compare with.
    Fallback,
}

/// The devices to note in the manifest of each namespace: those that say whose they are.
pub fn noted_devices(facts: &Facts, name: &NamespaceName) -> Vec<Noted> {
    let devices = facts.namespaces.get(name).map_or(&[][..], |namespace| &namespace.devices);
    devices
        .iter()
        .filter_map(|device| match &device.state {
            DeviceState::Header { namespace, random, is_trusted } if namespace.as_ref() == Some(name) => {
                Some(Noted { what: device.path.clone(), random: *random, is_trusted: *is_trusted })
            }
            _ => None,
        })
        .collect()
}

/// Adds to the plan of a backup what speaks against it, and what a restore will not be able to ask.
pub fn judge_backup(plan: &mut Plan<NamespaceBackup>, facts: &Facts, overrides: Overrides) {
    let mut found = Vec::new();
    for namespace in &plan.namespaces {
        let name = &namespace.name;
        let title = format!("namespace '{name}'");
        let Some(known) = facts.namespaces.get(name) else { continue };
        plan.remarks.extend(own_means(known, facts, &title));
        if known.devices.is_empty()
            && let Some(why) = why_none(known, facts)
        {
            let text = format!(
                "{title}: its devices are not noted: {why}; whether this backup is stale will be told by less (--config, --device)"
            );
            plan.remarks.push(Remark::new("devices-not-noted", text));
        }
        for device in &known.devices {
            match &device.state {
                DeviceState::Header { namespace: Some(other), .. } if other != name => plan.remarks.push(not_noted(
                    &title,
                    device,
                    &format!("it is of namespace '{other}': is the configuration that of the server that ran?"),
                )),
                DeviceState::Header { is_trusted: false, .. } => found.push(Problem::new(
                    Code::DeviceNotTrusted,
                    format!("{title}: {} is not marked as trusted: the server was not cleanly shut down for it", device.path),
                    "a restore would be refused: start the server, stop it cleanly and wait until asd has gone, then back up",
                )),
                DeviceState::Header { .. } => {}
                DeviceState::NoHeader => plan.remarks.push(not_noted(&title, device, "it has no header that is known")),
                DeviceState::Unreadable(why) => plan.remarks.push(not_noted(&title, device, why)),
            }
        }
    }
    common(plan, facts, found, overrides);
}

fn not_noted(title: &str, device: &Device, why: &str) -> Remark {
    Remark::new("device-not-noted", format!("{title}: {} is not noted: {why}", device.path))
}

/// Adds to the plan of a restore what speaks against it. Gives the namespaces for which it must be possible to mark the
/// backup as used, before anything is trusted: nothing else would tell the next boot.
pub fn judge_restore(
    plan: &mut Plan<NamespaceRestore>,
    listing: &Listing,
    facts: &Facts,
    overrides: Overrides,
) -> BTreeSet<NamespaceName> {
    let mut found = Vec::new();
    let mut must_mark = BTreeSet::new();
    for namespace in &plan.namespaces {
        let title = format!("namespace '{}'", namespace.name);
        let none = NamespaceFacts::default();
        let known = facts.namespaces.get(&namespace.name).unwrap_or(&none);
        let backup = backup_of(namespace, listing);
        let mark = mark_of(namespace, listing, &backup);
        plan.remarks.extend(own_means(known, facts, &title));
        found.extend(check_host(&backup, &facts.host, &title));
        let (basis, stale) = check_devices(&backup, &namespace.name, known, &title);
        found.extend(stale);
        check_mark(mark.as_ref(), basis, &facts.host, &title, &mut found);
        if basis == Basis::Fallback {
            let why = why_none(known, facts).unwrap_or_else(|| {
                if known.devices.is_empty() { "it has no storage device" } else { "the backup does not note any" }.to_owned()
            });
            plan.remarks.push(Remark::new(
                "devices-not-asked",
                format!("{title}: devices could not be asked whether the server has run since the backup: {why}; went by the backup's mark, the host, and files that the server writes"),
            ));
            if !facts.unseen.is_empty() {
                let places = facts.unseen.join(", ");
                let text = format!(
                    "{title}: whether the server has written to {places} since the backup was not seen: permission denied"
                );
                plan.remarks.push(Remark::new("signs-not-seen", text));
            }
            found.extend(check_signs(&backup, facts, &title));
            if !facts.is_markable {
                found.push(Problem::new(
                    Code::CannotMarkUsed,
                    format!(
                        "{title}: the backup cannot be marked as used: its directory cannot be written to, and no device tells"
                    ),
                    "make the directory writable or copy it (cp -a), or let devices be asked (--config, --device)",
                ));
            }
            if !overrides.stale {
                must_mark.insert(namespace.name.clone());
            }
        }
    }
    common(plan, facts, found, overrides);
    must_mark
}

/// A verification refuses nothing for that: it says what a restore of an instance would refuse.
pub fn judge_verify(plan: &mut Plan<NamespaceRestore>, instance: u8, listing: &Listing, facts: &Facts) {
    let of_instance = plan.namespaces.iter().filter(|namespace| namespace.instance == instance);
    let mut as_restore = Plan { namespaces: of_instance.cloned().collect(), refusals: Vec::new(), remarks: Vec::new() };
    judge_restore(&mut as_restore, listing, facts, Overrides::default());
    for problem in as_restore.refusals {
        plan.remarks.push(Remark::new(problem.code.as_str(), format!("a restore here would be refused: {}", problem.message)));
    }
}

/// What is the same for all namespaces of a plan; and what of it all is overridden.
fn common<T>(plan: &mut Plan<T>, facts: &Facts, mut found: Vec<Problem>, overrides: Overrides) {
    if let Ok(path) = &facts.configuration {
        let remarks = facts.oddities.iter().map(|text| Remark::new("configuration", format!("{path}: {text}")));
        plan.remarks.extend(remarks);
    }
    if !plan.namespaces.is_empty() {
        found.extend(facts.strays.iter().map(|device| {
            let why = match &device.state {
                DeviceState::Unreadable(why) => why,
                _ => "it has no header that is known, and does not say whose it is",
            };
            Problem::new(Code::DeviceUnreadable, format!("{}: {why}", device.path), "check what --device names")
        }));
    }
    for problem in found {
        if overrides.covers(problem.code) {
            let option = if problem.code == Code::BackupForeignHost { "--force-host" } else { "--force-stale" };
            plan.remarks.push(Remark::new("overridden", format!("OVERRIDDEN BY {option}: {}", problem.message)));
        } else {
            plan.refusals.push(problem);
        }
    }
}

/// What the server has of its own for the same purpose.
fn own_means(known: &NamespaceFacts, facts: &Facts, title: &str) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let Some(configured) = &known.configured else { return remarks };
    for (which, kind) in [("index-type", &configured.index_type), ("sindex-type", &configured.sindex_type)] {
        if let Some(kind) = kind.as_deref().filter(|kind| matches!(*kind, "pmem" | "flash")) {
            let text = format!("{title}: {which} is {kind}: that index persists by itself and is not in shared memory");
            remarks.push(Remark::new("index-persists", text));
        }
    }
    if facts.has_index_checkpoint || configured.has_index_checkpoint {
        let text = format!("{title}: the server is configured to keep a checkpoint of its index by itself");
        remarks.push(Remark::new("index-checkpoint", text));
    }
    remarks
}

/// Why there is no device to ask; `None` where the namespace is configured to have none.
fn why_none(known: &NamespaceFacts, facts: &Facts) -> Option<String> {
    if !known.devices.is_empty() {
        return None;
    }
    match &facts.configuration {
        Err(why) => Some(why.clone()),
        Ok(path) if known.configured.is_none() => Some(format!("{path} names no such namespace")),
        Ok(_) => None,
    }
}

fn backup_of<'b>(namespace: &NamespaceRestore, listing: &'b Listing) -> Backup<'b> {
    let manifest = listing
        .manifests
        .iter()
        .filter_map(|record| record.manifest.as_ref().ok())
        .find(|manifest| manifest.instance == namespace.instance && manifest.namespace == namespace.name);
    let files = || namespace.sources.iter().map(|source| source.key).collect::<BTreeSet<_>>();
    let made_ms = manifest.map_or_else(
        || {
            let keys = files();
            let times = listing.files.iter().filter(|file| keys.contains(&file.key)).map(|file| file.modified_ms);
            times.max().unwrap_or(0)
        },
        |manifest| manifest.created_ms,
    );
    Backup { made_ms, manifest }
}

/// What identifies a namespace's backup for its mark: when it was made and, with a manifest, the boot it was made in.
pub fn identity_of(namespace: &NamespaceRestore, listing: &Listing) -> (u64, Option<String>) {
    let backup = backup_of(namespace, listing);
    (backup.made_ms, backup.manifest.map(|manifest| manifest.boot_id.clone()))
}

/// The mark of this backup, or why it cannot be read. One of an earlier backup under the same name does not count.
fn mark_of(namespace: &NamespaceRestore, listing: &Listing, backup: &Backup<'_>) -> Option<Result<Used, String>> {
    let name = used_name(namespace.instance, &namespace.name);
    let (_, mark) = listing.marks.iter().find(|(found, _)| *found == name)?;
    let is_of_this = |used: &Used| used.is_of(backup.made_ms, backup.manifest.map(|manifest| manifest.boot_id.as_str()));
    match mark {
        Ok(used) => is_of_this(used).then(|| Ok(used.clone())),
        Err(why) => Some(Err(format!("{name}: {why}"))),
    }
}

fn check_host(backup: &Backup<'_>, here: &Host, title: &str) -> Option<Problem> {
    let manifest = backup.manifest?;
    let (is_same, there, found) = match (&manifest.noted.machine_id, &here.machine_id) {
        (Some(there), Some(found)) => (there == found, format!(", machine id {there}"), format!(", machine id {found}")),
        _ => (manifest.host == here.name, String::new(), String::new()),
    };
    (!is_same).then(|| {
        Problem::new(
            Code::BackupForeignHost,
            format!("{title}: the backup is of host '{}'{there}; expected '{}'{found}", manifest.host, here.name),
            "use the backup of this host; only where this host has taken over the other one's devices: --force-host",
        )
    })
}

const STALE_HINT: &str =
    "do not restore it: start the server as it is, it cold-starts and reads its devices (--force-stale restores all the same)";

/// Asks the devices. What they say is exact as soon as there is one that was noted.
fn check_devices(backup: &Backup<'_>, name: &NamespaceName, known: &NamespaceFacts, title: &str) -> (Basis, Vec<Problem>) {
    let mut found = Vec::new();
    let noted = backup.manifest.map_or(&[][..], |manifest| &manifest.noted.devices);
    let made = rfc3339(backup.made_ms);
    let stale = |path: &str, what: &str| {
        Problem::new(
            Code::BackupStale,
            format!("{title}: {path} {what}: the server has run since the backup; restoring would roll back to {made}"),
            STALE_HINT,
        )
    };
    let of_this = |device: &&Device| matches!(&device.state, DeviceState::Header { namespace: Some(other), .. } if other == name);
    if noted.is_empty() {
        // A backup is of a clean stop, which leaves every device trusted: that much is known of any backup.
        let untrusted = known.devices.iter().filter(of_this).find(|device| !is_trusted(device));
        found.extend(untrusted.map(|device| stale(&device.path, "is not marked as trusted")));
        return (if untrusted.is_some() { Basis::Devices } else { Basis::Fallback }, found);
    }
    // One that is configured to have none now, and had some, is not that which was backed up.
    if known.devices.is_empty() && known.configured.is_none() {
        return (Basis::Fallback, found);
    }
    let randoms: BTreeSet<u64> = noted.iter().map(|noted| noted.random).collect();
    let mut same_count = 0;
    for device in &known.devices {
        let before = noted.iter().find(|noted| noted.what == device.path);
        match &device.state {
            DeviceState::Unreadable(why) => found.push(Problem::new(
                Code::DeviceUnreadable,
                format!("{title}: {} cannot be asked whether the server has run since the backup: {why}", device.path),
                "see to it that the device is there and may be read, then run it again; --force-stale goes without asking",
            )),
            DeviceState::NoHeader if before.is_none() => {}
            DeviceState::NoHeader => found.push(stale(&device.path, "has no header any more, or not one that is known")),
            DeviceState::Header { namespace, .. } if namespace.as_ref() != Some(name) => {
                let other = namespace.as_ref().map_or("?", NamespaceName::as_str);
                found.push(stale(&device.path, &format!("is of namespace '{other}'")));
            }
            // A path may lead to another device of the set after a reboot; all of them have what was noted.
            DeviceState::Header { random, .. } if !randoms.contains(random) => {
                let expected = before.or(noted.first()).map_or(0, |noted| noted.random);
                found.push(stale(&device.path, &format!("has random {random:016x}, expected {expected:016x}")));
            }
            DeviceState::Header { is_trusted: false, .. } => found.push(stale(&device.path, "is not marked as trusted")),
            DeviceState::Header { .. } => same_count += 1,
        }
    }
    if found.is_empty() && same_count < noted.len() {
        let paths: BTreeSet<&str> = known.devices.iter().map(|device| device.path.as_str()).collect();
        let missing = noted.iter().find(|noted| !paths.contains(noted.what.as_str())).map_or("?", |noted| &noted.what);
        found.push(Problem::new(
            Code::BackupStale,
            format!(
                "{title}: {} devices were noted in the backup, and {same_count} are there now: {missing} is not among them",
                noted.len()
            ),
            "is it the configuration that the server ran with? name all devices (--config, --device), or --force-stale",
        ));
    }
    (Basis::Devices, found)
}

fn is_trusted(device: &Device) -> bool {
    matches!(device.state, DeviceState::Header { is_trusted: true, .. })
}

/// A retired backup is never used. One that was restored may be restored again in the same boot; in another the server
/// may have run on it, which devices tell, and nothing else.
fn check_mark(mark: Option<&Result<Used, String>>, basis: Basis, here: &Host, title: &str, found: &mut Vec<Problem>) {
    let used_hint = "do not restore it: start the server as it is; --force-stale only if you know that it has not run since";
    match mark {
        None => {}
        Some(Err(why)) => found.push(Problem::new(
            Code::BackupUsed,
            format!("{title}: whether the backup was used cannot be told: {why}"),
            used_hint,
        )),
        Some(Ok(used)) => {
            if let Some(retired) = &used.retired {
                found.push(Problem::new(
                    Code::BackupRetired,
                    format!("{title}: the backup was retired on {} at {}", retired.host, rfc3339(retired.at_ms)),
                    used_hint,
                ));
            }
            let earlier = used.restores.iter().find(|restore| restore.boot_id != here.boot_id);
            if let Some(earlier) = earlier.filter(|_| basis == Basis::Fallback) {
                found.push(Problem::new(
                    Code::BackupUsed,
                    format!(
                        "{title}: the backup was restored on {} at {}, in another boot: the server may have run since",
                        earlier.host,
                        rfc3339(earlier.at_ms)
                    ),
                    used_hint,
                ));
            }
        }
    }
}

/// The latest sign of the server's life that is later than the backup.
fn check_signs(backup: &Backup<'_>, facts: &Facts, title: &str) -> Option<Problem> {
    let sign = facts.signs.iter().max_by_key(|sign| sign.at_ms)?;
    let made_ms = backup.made_ms;
    (sign.at_ms > made_ms.saturating_add(SLACK_MS)).then(|| {
        Problem::new(
            Code::BackupStale,
            format!(
                "{title}: {} was written at {}, after the backup of {}: the server seems to have run since",
                sign.path,
                rfc3339(sign.at_ms),
                rfc3339(made_ms)
            ),
            STALE_HINT,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Surroundings;
    use crate::plan::{Contents, Source};
    use crate::segment::{Encoding, Header, Key};
    use crate::store::{FileRecord, ManifestRecord, Owner};
    use crate::used::Use;
    use proptest::prelude::*;

    const MADE_MS: u64 = 1_000_000;
    const KEY: Key = Key(0xae00_1000);

    fn name(text: &str) -> NamespaceName {
        NamespaceName::new(text).expect("a name")
    }

    fn noted(what: &str, random: u64) -> Noted {
        Noted { what: what.to_owned(), random, is_trusted: true }
    }

    fn device(path: &str, state: DeviceState) -> Device {
        Device { path: path.to_owned(), state }
    }

    fn header(random: u64, is_trusted: bool) -> DeviceState {
        DeviceState::Header { namespace: Some(name("test")), random, is_trusted }
    }

    fn manifest(devices: Vec<Noted>) -> Manifest {
        Manifest {
            tool: "asmt 0.1.0".to_owned(),
            created_ms: MADE_MS,
            host: "node1".to_owned(),
            boot_id: "boot-of-backup".to_owned(),
            instance: 0,
            namespace: name("test"),
            nsid: Some(1),
            base_version: Some(12),
            noted: Surroundings { machine_id: Some("m1".to_owned()), devices, stripes: Vec::new() },
            segments: Vec::new(),
        }
    }

    /// What is tried: a backup, a machine, and what was asked for. The default is a backup that is fresh for sure.
    #[derive(Clone)]
    struct Case {
        manifest: Option<Manifest>,
        mark: Option<Result<Used, String>>,
        facts: Facts,
        overrides: Overrides,
    }

    impl Default for Case {
        fn default() -> Self {
            let devices = vec![device("/dev/a", header(7, true)), device("/dev/b", header(7, true))];
            let namespace = NamespaceFacts { devices, configured: Some(Namespace::default()) };
            Self {
                manifest: Some(manifest(vec![noted("/dev/a", 7), noted("/dev/b", 7)])),
                mark: None,
                facts: Facts {
                    host: Host { name: "node1".to_owned(), machine_id: Some("m1".to_owned()), boot_id: "boot-now".to_owned() },
                    configuration: Ok("/etc/aerospike/aerospike.conf".to_owned()),
                    namespaces: BTreeMap::from([(name("test"), namespace)]),
                    strays: Vec::new(),
                    oddities: Vec::new(),
                    signs: Vec::new(),
                    unseen: Vec::new(),
                    has_index_checkpoint: false,
                    is_markable: true,
                },
                overrides: Overrides::default(),
            }
        }
    }

    impl Case {
        /// No configuration can be read.
        fn blind() -> Self {
            let mut case = Self::default();
            case.facts.configuration = Err("aerospike.conf is not there".to_owned());
            case.facts.namespaces = BTreeMap::from([(name("test"), NamespaceFacts::default())]);
            case
        }

        fn devices(&mut self) -> &mut Vec<Device> {
            &mut self.facts.namespaces.get_mut(&name("test")).expect("the namespace").devices
        }

        fn restored_in(mut self, boot_id: &str) -> Self {
            let (backup_ms, boot) = (MADE_MS, self.manifest.as_ref().map(|manifest| manifest.boot_id.clone()));
            let mut used = Used::new(backup_ms, boot);
            used.restores.push(Use { at_ms: MADE_MS + 1, host: "node1".to_owned(), boot_id: boot_id.to_owned() });
            self.mark = Some(Ok(used));
            self
        }

        fn sign_at(mut self, at_ms: u64) -> Self {
            self.facts.signs.push(Sign { path: "/opt/aerospike/smd/x.smd".to_owned(), at_ms });
            self
        }

        fn judge(&self) -> (Plan<NamespaceRestore>, bool) {
            let address = KEY.address().expect("an address");
            let source = Source {
                key: KEY,
                address,
                size_bytes: 4096,
                uid: 0,
                gid: 0,
                mode: 0o600,
                file: "ae001000.dat".to_owned(),
                file_bytes: 4096,
                encoding: Encoding::Raw,
                contents: Contents::Plain,
                least_memory_bytes: 0,
            };
            let file = FileRecord {
                name: source.file.clone(),
                key: KEY,
                address,
                encoding: Encoding::Raw,
                file_bytes: 4096,
                allocated_bytes: 4096,
                size_bytes: 4096,
                crc32: None,
                uid: 0,
                gid: 0,
                mode: 0o600,
                modified_ms: MADE_MS,
                header: Header::None,
            };
            let owner = Owner { uid: 0, mode: 0o600 };
            let file_name = "asmt-manifest-0-test.json".to_owned();
            let record = |manifest| ManifestRecord { name: file_name, owner, manifest: Ok(manifest) };
            let listing = Listing {
                files: vec![file],
                manifests: self.manifest.clone().map(record).into_iter().collect(),
                marks: self.mark.clone().map(|mark| ("asmt-used-0-test.json".to_owned(), mark)).into_iter().collect(),
                ..Listing::default()
            };
            let namespace = NamespaceRestore {
                instance: 0,
                name: name("test"),
                nsid: Some(1),
                base_version: Some(12),
                created_ms: self.manifest.as_ref().map(|manifest| manifest.created_ms),
                sources: vec![source],
            };
            let mut plan = Plan { namespaces: vec![namespace], refusals: Vec::new(), remarks: Vec::new() };
            let must_mark = judge_restore(&mut plan, &listing, &self.facts, self.overrides);
            (plan, must_mark.contains(&name("test")))
        }

        fn codes(&self) -> Vec<Code> {
            self.judge().0.refusals.iter().map(|problem| problem.code).collect()
        }
    }

    fn with(change: impl Fn(&mut Case)) -> Case {
        let mut case = Case::default();
        change(&mut case);
        case
    }

    fn blind_with(change: impl Fn(&mut Case)) -> Case {
        let mut case = Case::blind();
        change(&mut case);
        case
    }

    #[test]
    fn devices_that_answer_decide() {
        let none: [Code; 0] = [];
        let fresh = Case::default();
        assert_eq!(fresh.codes(), none);
        assert!(fresh.judge().0.remarks.is_empty() && !fresh.judge().1);
        let table: Vec<(&str, Case, Vec<Code>)> = vec![
            ("another random", with(|case| case.devices()[1].state = header(8, true)), vec![Code::BackupStale]),
            ("not trusted", with(|case| case.devices()[0].state = header(7, false)), vec![Code::BackupStale]),
            ("wiped", with(|case| case.devices()[0].state = DeviceState::NoHeader), vec![Code::BackupStale]),
            (
                "another's",
                with(|case| {
                    case.devices()[0].state = DeviceState::Header { namespace: Some(name("other")), random: 7, is_trusted: true };
                }),
                vec![Code::BackupStale],
            ),
            ("gone from the configuration", with(|case| drop(case.devices().pop())), vec![Code::BackupStale]),
            ("all gone from it", with(|case| case.devices().clear()), vec![Code::BackupStale]),
            (
                "cannot be read",
                with(|case| case.devices()[1].state = DeviceState::Unreadable("is not there".to_owned())),
                vec![Code::DeviceUnreadable],
            ),
            (
                "cannot be read, and the other one has changed",
                with(|case| {
                    case.devices()[0].state = DeviceState::Unreadable("is not there".to_owned());
                    case.devices()[1].state = header(8, false);
                }),
                vec![Code::DeviceUnreadable, Code::BackupStale],
            ),
            // A device may have another name after a reboot, and a new one may have been added.
            ("renamed", with(|case| case.devices()[1].path = "/dev/z".to_owned()), vec![]),
            ("one more, never used", with(|case| case.devices().push(device("/dev/c", DeviceState::NoHeader))), vec![]),
            (
                "one more, of another set",
                with(|case| case.devices().push(device("/dev/c", header(9, true)))),
                vec![Code::BackupStale],
            ),
            // Whatever else there is, they know better.
            ("signs of life", Case::default().sign_at(u64::MAX), vec![]),
            ("restored in another boot", Case::default().restored_in("boot-before"), vec![]),
            ("cannot be marked", with(|case| case.facts.is_markable = false), vec![]),
        ];
        for (what, case, codes) in table {
            assert_eq!(case.codes(), codes, "{what}");
        }
    }

    #[test]
    fn a_stale_device_is_named_with_what_a_restore_would_roll_back_to() {
        let (plan, _) = with(|case| case.devices()[1].state = header(8, true)).judge();
        assert_eq!(
            plan.refusals[0].message,
            "namespace 'test': /dev/b has random 0000000000000008, expected 0000000000000007: the server has run since the \
             backup; restoring would roll back to 1970-01-01T00:16:40Z"
        );
    }

    #[test]
    fn without_devices_it_is_said_and_told_by_less() {
        let (plan, must_mark) = Case::blind().judge();
        assert!(plan.refusals.is_empty() && must_mark);
        assert_eq!(plan.remarks.iter().map(|remark| remark.code).collect::<Vec<_>>(), ["devices-not-asked"]);
        assert!(plan.remarks[0].message.contains("aerospike.conf is not there"), "{:?}", plan.remarks);
        let (plan, _) = blind_with(|case| case.facts.unseen.push("/opt/aerospike/smd".to_owned())).judge();
        assert_eq!(plan.remarks.iter().map(|remark| remark.code).collect::<Vec<_>>(), ["devices-not-asked", "signs-not-seen"]);
        assert!(plan.remarks[1].message.contains("/opt/aerospike/smd"), "{:?}", plan.remarks);
        let retired = |case: &mut Case| {
            let mut used = Used::new(MADE_MS, case.manifest.as_ref().map(|manifest| manifest.boot_id.clone()));
            used.retired = Some(Use { at_ms: MADE_MS, host: "node1".to_owned(), boot_id: "boot-now".to_owned() });
            case.mark = Some(Ok(used));
        };
        let table: Vec<(&str, Case, Vec<Code>)> = vec![
            ("restored in this boot", Case::blind().restored_in("boot-now"), vec![]),
            ("restored in another", Case::blind().restored_in("boot-before"), vec![Code::BackupUsed]),
            ("retired", blind_with(retired), vec![Code::BackupRetired]),
            ("retired, and devices agree", with(retired), vec![Code::BackupRetired]),
            ("an unreadable mark", blind_with(|case| case.mark = Some(Err("no mark".to_owned()))), vec![Code::BackupUsed]),
            (
                "another backup's mark",
                blind_with(|case| case.manifest.as_mut().expect("one").created_ms += 1).restored_in("boot-before"),
                vec![],
            ),
            ("just written", Case::blind().sign_at(MADE_MS + SLACK_MS), vec![]),
            ("written later", Case::blind().sign_at(MADE_MS + SLACK_MS + 1), vec![Code::BackupStale]),
            ("a served restore", Case::blind().restored_in("boot-now").sign_at(MADE_MS + 60_000), vec![Code::BackupStale]),
            ("cannot be marked", blind_with(|case| case.facts.is_markable = false), vec![Code::CannotMarkUsed]),
            (
                "a namespace that is not configured",
                blind_with(|case| case.facts.configuration = Ok("aerospike.conf".to_owned())),
                vec![],
            ),
        ];
        for (what, case, codes) in table {
            assert_eq!(case.codes(), codes, "{what}");
        }
    }

    #[test]
    fn a_backup_that_notes_no_devices_is_still_stale_if_one_is_not_trusted() {
        for manifest in [None, Some(manifest(Vec::new()))] {
            let of = |state: DeviceState| {
                with(|case| {
                    case.manifest.clone_from(&manifest);
                    case.devices()[0].state = state.clone();
                })
            };
            assert_eq!(of(header(7, true)).codes(), []);
            assert!(of(header(7, true)).judge().1, "it must be marked");
            assert_eq!(of(header(7, false)).codes(), [Code::BackupStale]);
            assert_eq!(of(DeviceState::NoHeader).codes(), []);
            assert_eq!(of(header(7, true)).sign_at(MADE_MS + 60_000).codes(), [Code::BackupStale]);
            assert_eq!(of(header(7, true)).restored_in("boot-before").codes(), [Code::BackupUsed]);
        }
    }

    #[test]
    fn another_hosts_backup_is_told_by_machine_id_else_by_name() {
        let of = |machine_id: Option<&str>, host: &str| {
            with(|case| {
                let manifest = case.manifest.as_mut().expect("one");
                manifest.noted.machine_id = machine_id.map(str::to_owned);
                manifest.host = host.to_owned();
            })
        };
        for (machine_id, host, is_same) in
            [(Some("m1"), "renamed", true), (Some("m2"), "node1", false), (None, "node1", true), (None, "node2", false)]
        {
            let expected = if is_same { vec![] } else { vec![Code::BackupForeignHost] };
            assert_eq!(of(machine_id, host).codes(), expected, "{machine_id:?} {host}");
        }
        let mut forced = of(Some("m2"), "node2");
        forced.overrides.host = true;
        let (plan, _) = forced.judge();
        assert!(plan.refusals.is_empty());
        assert!(plan.remarks[0].message.starts_with("OVERRIDDEN BY --force-host: namespace 'test': "), "{:?}", plan.remarks);
    }

    #[test]
    fn a_device_that_does_not_say_whose_it_is_was_named_by_mistake() {
        let case = with(|case| case.facts.strays.push(device("/dev/x", DeviceState::NoHeader)));
        assert_eq!(case.codes(), [Code::DeviceUnreadable]);
    }

    #[test]
    fn what_the_server_does_by_itself_is_remarked_on() {
        let case = with(|case| {
            let facts = case.facts.namespaces.get_mut(&name("test")).expect("one");
            facts.configured = Some(Namespace {
                index_type: Some("flash".to_owned()),
                sindex_type: Some("shmem".to_owned()),
                has_index_checkpoint: true,
                devices: Vec::new(),
            });
            case.facts.oddities.push("1 blocks are not closed".to_owned());
        });
        let codes: Vec<&str> = case.judge().0.remarks.iter().map(|remark| remark.code).collect();
        assert_eq!(codes, ["index-persists", "index-checkpoint", "configuration"]);
    }

    fn state() -> impl Strategy<Value = DeviceState> {
        prop_oneof![
            4 => (6..9u64, any::<bool>()).prop_map(|(random, is_trusted)| header(random, is_trusted)),
            1 => Just(DeviceState::NoHeader),
            1 => Just(DeviceState::Unreadable("is not there".to_owned())),
        ]
    }

    proptest! {
        /// Nothing but two devices that say what was noted is taken for fresh by what devices say; an override takes back
        /// every refusal, and says each.
        #[test]
        fn only_the_noted_state_is_fresh(states in proptest::collection::vec(state(), 0..4)) {
            let mut case = with(|case| {
                *case.devices() = states.iter().enumerate()
                    .map(|(number, state)| device(&format!("/dev/{}", char::from(b'a' + number as u8)), state.clone()))
                    .collect();
            });
            let same = states.iter().filter(|state| **state == header(7, true)).count();
            let is_new = |(number, state): (usize, &DeviceState)| number >= 2 && *state == DeviceState::NoHeader;
            let new = states.iter().enumerate().filter(|found| is_new(*found)).count();
            let refusals = case.judge().0.refusals;
            prop_assert_eq!(refusals.is_empty(), same >= 2 && same + new == states.len(), "{:?}", states);
            case.overrides.stale = true;
            let (plan, must_mark) = case.judge();
            prop_assert!(plan.refusals.is_empty() && !must_mark);
            let said = plan.remarks.iter().filter(|remark| remark.code == "overridden").count();
            prop_assert_eq!(said, refusals.len());
        }
    }
}
