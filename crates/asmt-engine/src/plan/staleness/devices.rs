//! Storage devices as witnesses: exact, for the server writes a new random into each at every start.

use super::{Judge, NotedDevice, named_of};
use crate::error::{Code, Problem};
use crate::facts::server::{Device, DeviceState, Medium};
use crate::format::{Noted, rfc3339};
use crate::segment::NamespaceName;
use std::collections::BTreeSet;

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

impl<'l> Judge<'l> {
    /// Gathers what devices say: those that were noted, and those that are named now.
    pub(super) fn ask_devices(&mut self) {
        self.check_noted();
        self.check_configured_now();
    }

    /// Asks every noted device, whether or not the configuration names it.
    fn check_noted(&mut self) {
        for NotedDevice { noted, name, made_ms, is_own } in self.noted.clone() {
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
            let found_on = self.evidence.devices.values().find(|device| device.path == path).and_then(|device| device.medium);
            match problem {
                // A copy of a disk in a file says the same, too.
                None if noted.is_file || !is_own || found_on != Some(Medium::Device) => {}
                None => {
                    self.same.insert(name);
                }
                Some(problem) => {
                    self.has_moved_on |= problem.code == Code::BackupStale;
                    self.differs.insert(name.clone());
                    self.found.push((name, problem));
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
            self.noted.iter().any(|NotedDevice { noted: other, name: other_name, .. }| {
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
        let noted_paths: BTreeSet<&str> = self.noted.iter().map(|known| known.noted.what.as_str()).collect();
        let noted_things: BTreeSet<(u64, u64)> =
            self.noted.iter().filter_map(|known| self.evidence.devices.get(&known.noted.what)?.unique).collect();
        let mut found = Vec::new();
        for (name, path) in self.named_now() {
            let Some(device) = self.evidence.devices.get(&path) else { continue };
            let is_noted =
                noted_paths.contains(device.path.as_str()) || device.unique.is_some_and(|it| noted_things.contains(&it));
            if !is_noted {
                found.extend(self.check_new_device(&name, device).map(|problem| (name, problem)));
            }
        }
        self.found.extend(found);
    }

    /// Paths that are configured or named now, with the namespace they are for: of those that are asked for or noted.
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
        let title = format!("namespace '{name}'");
        let randoms: BTreeSet<u64> =
            self.noted.iter().filter(|known| known.name == *name).map(|known| known.noted.random).collect();
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
