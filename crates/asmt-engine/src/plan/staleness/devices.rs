//! Storage devices as witnesses. They are exact, because the server writes a new random to each at
//! every start.

use super::{Finding, Judge, NotedDevice, named_of};
use crate::error::{Code, Problem};
use crate::facts::server::{Device, DeviceState, Medium};
use crate::format::{HeaderStamp, rfc3339};
use crate::hints;
use asmt_shm::NamespaceName;
use std::collections::BTreeSet;

/// The current state of a noted device.
enum Answer {
    Same,
    Random(u64),
    NotTrusted,
    Blank,
    Unknown,
    OtherNamespace(String),
    CannotBeAsked(String),
}

impl<'l> Judge<'l> {
    /// Collects the findings on devices: on those that were noted, and those that are named now.
    pub(super) fn ask_devices(&mut self) {
        self.check_noted();
        self.check_configured_now();
        self.check_stripes();
    }

    /// A server writes the same random to the stripes of a namespace in memory and to the devices
    /// behind them.
    fn check_stripes(&mut self) {
        for claim in &self.claims {
            let Some(random) = claim.stripe_random else { continue };
            let own = claim.noted().iter().filter(|noted| noted.namespace.is_none() && !noted.is_blank);
            if let Some(other) = own.into_iter().find(|noted| noted.random != random) {
                let text = format!(
                    "{}: {} had random {:016x} when it was backed up, but the data stripes had {random:016x}: they belong to \
                     two runs of the server",
                    self.title(claim.name),
                    other.what,
                    other.random
                );
                self.differs.insert(claim.name.clone());
                let problem = Problem::new(Code::BackupStale, text, self.stale_hint());
                self.found.push(Finding { name: claim.name.clone(), path: other.what.clone(), problem });
                continue;
            }
            // A device that another namespace's backup has noted with the same state may still be a
            // witness against this one.
            let is_another_run = |device: &&Device| {
                device.header().is_some_and(|header| header.name.as_ref() == Some(claim.name) && header.random != random)
            };
            let is_noted = |device: &Device| self.noted.iter().any(|known| known.is_own && known.noted.what == device.path);
            let is_told = |device: &Device| self.found.iter().any(|finding| finding.path == device.path);
            let mut others = self.evidence.devices.values().filter(|device| !is_noted(device) && !is_told(device));
            if let Some(device) = others.find(is_another_run) {
                let found = device.header().map_or(0, |header| header.random);
                let text = format!(
                    "{}: {} has random {found:016x}, but the data stripes of the backup have {random:016x}: the server has run \
                     since the backup",
                    self.title(claim.name),
                    device.path
                );
                let problem = Problem::new(Code::BackupStale, text, self.stale_hint());
                self.found.push(Finding { name: claim.name.clone(), path: device.path.clone(), problem });
            }
        }
    }

    /// Checks every noted device, whether the configuration names it or not.
    fn check_noted(&mut self) {
        for known in self.noted.clone() {
            let (path, answer) = self.resolve(&known);
            let NotedDevice { noted, name, made_ms, is_own, .. } = known;
            let title = self.title(&name);
            let made = rfc3339(made_ms);
            let ran = |what: String| {
                let text =
                    format!("{title}: {path} {what}: the server has run since the backup; restoring would roll back to {made}");
                Problem::new(Code::BackupStale, text, self.stale_hint())
            };
            let replaced = |what: String| {
                let text = format!("{title}: {path} {what}: it was replaced or wiped since the backup of {made}");
                Problem::new(Code::BackupStale, text, hints::DEVICE_REPLACED)
            };
            let has_run = matches!(answer, Answer::Random(_) | Answer::NotTrusted);
            let problem = match answer {
                Answer::Same => None,
                // A disk that was blank belongs to nobody yet: only a server's header on it is a
                // sign.
                Answer::Random(found) if noted.is_blank => {
                    Some(ran(format!("was blank, and now has a header with random {found:016x}")))
                }
                _ if noted.is_blank => None,
                Answer::Random(found) => Some(ran(format!("has random {found:016x}, expected {:016x}", noted.random))),
                Answer::NotTrusted => Some(ran("is not marked as trusted".to_owned())),
                Answer::Blank => Some(replaced("is blank".to_owned())),
                Answer::Unknown => Some(replaced("has no known header".to_owned())),
                Answer::OtherNamespace(other) => Some(replaced(format!("belongs to namespace '{other}'"))),
                Answer::CannotBeAsked(why) => Some(Problem::new(
                    Code::DeviceUnreadable,
                    format!("{title}: {path} cannot be checked to see whether the server has run since the backup: it {why}"),
                    hints::DEVICE_UNREADABLE,
                )),
            };
            let found_on = self.evidence.devices.values().find(|device| device.path == path).and_then(|device| device.medium);
            match problem {
                // A copy of a disk in a file has the same header.
                None if noted.is_file || !is_own || found_on != Some(Medium::Device) => {}
                None if noted.is_blank || !noted.is_trusted => {}
                None => {
                    self.same.insert(name);
                }
                Some(problem) => {
                    let is_exact = found_on == Some(Medium::Device) && !noted.is_file;
                    self.has_moved_on |= is_exact && problem.code == Code::BackupStale;
                    self.has_run |= has_run && !is_exact;
                    self.device_has_run |= has_run && is_exact;
                    self.differs.insert(name.clone());
                    self.found.push(Finding { name, path: path.clone(), problem });
                }
            }
        }
    }

    /// The current state of a noted device: of the disk with its id, otherwise of the disk at its
    /// path, otherwise of another disk that stands in for it.
    ///
    /// If the disk at the noted path belongs to this namespace and shows that the server has run,
    /// it is believed, even if there is a copy of the noted disk elsewhere.
    fn resolve(&self, known: &NotedDevice<'l>) -> (String, Answer) {
        let answer = |device: &Device| (device.path.clone(), answer_of(device, known.noted, &known.name));
        if let Some(device) = self.identified(known) {
            return answer(device);
        }
        let at_path = self.evidence.devices.get(&known.noted.what);
        let (path, said) = at_path
            .filter(|device| !self.is_of_another(device, known))
            .map_or_else(|| (known.noted.what.clone(), Answer::CannotBeAsked("was not found".to_owned())), answer);
        if matches!(said, Answer::Same | Answer::Random(_) | Answer::NotTrusted) {
            return (path, said);
        }
        match self.swapped(known) {
            Some(device) => (device.path.clone(), Answer::Same),
            None => (path, said),
        }
    }

    /// The disk of a noted device, found by its id.
    fn identified(&self, known: &NotedDevice<'_>) -> Option<&'l Device> {
        let has_id = |device: &&Device| device.ids.iter().any(|id| known.ids.contains(&id.as_str()));
        if let Some(at_path) = self.evidence.devices.get(&known.noted.what).filter(has_id) {
            return Some(at_path);
        }
        let mut found = self.evidence.devices.values().filter(has_id);
        let first = found.next()?;
        // Two paths of one disk have the same state. If two disks share the id, it identifies
        // neither.
        found.all(|other| other.state == first.state).then_some(first)
    }

    /// Returns true if a device is the disk of another noted device.
    fn is_of_another(&self, device: &Device, known: &NotedDevice<'_>) -> bool {
        self.noted.iter().any(|other| {
            let is_same_disk = other.noted.what == known.noted.what || other.ids.iter().any(|id| known.ids.contains(id));
            !is_same_disk && device.ids.iter().any(|id| other.ids.contains(&id.as_str()))
        })
    }

    /// Names of devices change with a reboot. A device under a name that was not noted, or that was
    /// noted for another device, stands in for the noted one if it has the same state and is not a
    /// second name of a disk that counts already.
    fn swapped(&self, known: &NotedDevice<'_>) -> Option<&'l Device> {
        let is_taken = |device: &Device| {
            self.noted.iter().filter(|other| other.noted.what != known.noted.what).any(|other| {
                let says_same = |device: &Device| matches!(answer_of(device, other.noted, &other.name), Answer::Same);
                let is_at_its_path = other.noted.what == device.path && says_same(device);
                let there = self.evidence.devices.get(&other.noted.what);
                let is_same_thing = there.is_some_and(|there| there.unique == device.unique && says_same(there));
                is_at_its_path || is_same_thing
            })
        };
        let says_same = |device: &Device| matches!(answer_of(device, known.noted, &known.name), Answer::Same);
        let mut devices = self.evidence.devices.values();
        devices.find(|device| says_same(device) && !self.is_of_another(device, known) && !is_taken(device))
    }

    /// Checks devices that the configuration or the command line names now and that were not noted:
    /// another set, or a namespace that was moved.
    fn check_configured_now(&mut self) {
        let noted_paths: BTreeSet<&str> = self.noted.iter().map(|known| known.noted.what.as_str()).collect();
        let noted_things: BTreeSet<(u64, u64)> =
            self.noted.iter().filter_map(|known| self.evidence.devices.get(&known.noted.what)?.unique).collect();
        let mut found = Vec::new();
        for (name, path) in self.named_now() {
            let Some(device) = self.evidence.devices.get(&path) else { continue };
            let is_noted =
                noted_paths.contains(device.path.as_str()) || device.unique.is_some_and(|it| noted_things.contains(&it));
            if !is_noted {
                let problem = self.check_new_device(&name, device);
                found.extend(problem.map(|problem| Finding { name, path: device.path.clone(), problem }));
            }
        }
        // No mark says so: whoever has named another server's devices must be able to name the
        // right ones.
        self.found.extend(found);
    }

    /// Paths that are configured or named now, each with its namespace: for the namespaces that are
    /// requested or noted.
    fn named_now(&self) -> Vec<(NamespaceName, String)> {
        let known: BTreeSet<&NamespaceName> =
            self.claims.iter().map(|claim| claim.name).chain(self.noted.iter().map(|known| &known.name)).collect();
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
        let title = self.title(name);
        let of_devices = self.noted.iter().filter(|known| known.name == *name && !known.noted.is_blank);
        // A server writes the same random to the stripes of a namespace in memory and to the
        // devices behind them.
        let of_stripes = self.claims.iter().filter(|claim| claim.name == name).filter_map(|claim| claim.stripe_random);
        let randoms: BTreeSet<u64> = of_devices.map(|known| known.noted.random).chain(of_stripes).collect();
        let had_none = self
            .claims
            .iter()
            .any(|claim| claim.name == name && claim.manifest.is_some_and(|manifest| manifest.noted.configuration.is_some()));
        let stale = |what: String| {
            let text = format!("{title}: {} is named now, was not recorded in the backup, and {what}", device.path);
            let hint = format!("make sure that --config or --device names this server's devices; if so: {}", self.stale_hint());
            Some(Problem::new(Code::BackupStale, text, hint))
        };
        match &device.state {
            DeviceState::Blank => None,
            DeviceState::Unknown => stale("contains something other than a server's data".to_owned()),
            DeviceState::Unreadable(why) => Some(Problem::new(
                Code::DeviceUnreadable,
                format!(
                    "{title}: {} cannot be checked to see whether the server has run since the backup: it {why}",
                    device.path
                ),
                hints::DEVICE_UNREADABLE,
            )),
            DeviceState::Header(header) if header.name.as_ref() != Some(name) => {
                let other = header.name.as_ref().map_or("?", NamespaceName::as_str);
                stale(format!("belongs to namespace '{other}'"))
            }
            // A backup is made after a clean stop, which leaves every device trusted. That is known
            // of any backup.
            DeviceState::Header(_) if !device.is_trusted() => {
                stale("is not marked as trusted: the server has run since".to_owned())
            }
            DeviceState::Header(header) if !randoms.is_empty() && !randoms.contains(&header.random) => {
                stale(format!("has random {:016x}, which belongs to another set: the server has run since", header.random))
            }
            DeviceState::Header(_) if randoms.is_empty() && had_none => {
                stale("has been used by a server: the namespace had no such device when it was backed up".to_owned())
            }
            DeviceState::Header(_) => None,
        }
    }
}

fn answer_of(device: &Device, noted: &HeaderStamp, name: &NamespaceName) -> Answer {
    match &device.state {
        DeviceState::Blank if noted.is_blank => Answer::Same,
        DeviceState::Header(header) if noted.is_blank => Answer::Random(header.random),
        DeviceState::Unreadable(why) => Answer::CannotBeAsked(why.clone()),
        DeviceState::Blank => Answer::Blank,
        DeviceState::Unknown => Answer::Unknown,
        DeviceState::Header(header) if header.name.as_ref() != Some(name) => {
            Answer::OtherNamespace(header.name.as_ref().map_or("?", NamespaceName::as_str).to_owned())
        }
        DeviceState::Header(header) if header.random != noted.random => Answer::Random(header.random),
        // A device of another namespace that was not trusted when it was noted is unchanged if its
        // random is.
        DeviceState::Header(_) if !device.is_trusted() && (noted.is_trusted || noted.namespace.is_none()) => Answer::NotTrusted,
        DeviceState::Header(_) => Answer::Same,
    }
}
