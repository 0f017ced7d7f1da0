//! Judges a backup in advance: it is refused if a restore could not accept it.
//!
//! Pure. Every device of the server is noted. The server opens all of them at each start, so each
//! is a witness for all of its namespaces.

use super::{Overrides, configuration_remarks, named_of, own_means, split, strays};
use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::server::{Configuration, Device, DeviceState, Evidence, Medium};
use crate::format::HeaderStamp;
use crate::layout::server_config::{NamespaceConfig, Storage};
use crate::layout::sets;
use crate::plan::{NamespaceBackup, Plan, title};
use asmt_shm::{Header, NamespaceName, STRIPE_TRUSTED, StripeHeader};
use std::collections::{BTreeMap, BTreeSet};

/// The devices to note in the manifest of a namespace: all that have a header, of each namespace of
/// the server, and those that are configured and blank, where a header would show that a server has
/// run.
pub fn noted_devices(evidence: &Evidence, own: &NamespaceName) -> Vec<HeaderStamp> {
    let mut seen = BTreeSet::new();
    let devices = evidence.devices.values().filter(|device| device.unique.is_none_or(|unique| seen.insert(unique)));
    let noted = devices.filter_map(|device| {
        let (name, random) = match &device.state {
            DeviceState::Header(header) => (header.name.clone()?, header.random),
            DeviceState::Blank => (configured_for(evidence, device)?.clone(), 0),
            DeviceState::Unknown | DeviceState::Unreadable(_) => return None,
        };
        Some(HeaderStamp {
            what: device.path.clone(),
            random,
            is_trusted: device.is_trusted(),
            namespace: Some(name).filter(|name| name != own),
            is_file: device.medium != Some(Medium::Device),
            ids: device.ids.clone(),
            is_blank: device.state == DeviceState::Blank,
            is_configured: configured_for(evidence, device).is_some(),
        })
    });
    noted.collect()
}

/// The namespace for which a device is configured.
fn configured_for<'e>(evidence: &'e Evidence, device: &Device) -> Option<&'e NamespaceName> {
    let mut namespaces = evidence.configuration.config()?.namespaces.iter();
    let has =
        |configured: &NamespaceConfig| configured.devices.iter().flat_map(|line| line.paths()).any(|path| path == device.path);
    namespaces.find(|(_, configured)| has(configured)).map(|(name, _)| name)
}

/// Adds refusals to the plan of a backup that a restore could not accept.
pub fn judge_backup(plan: &mut Plan<NamespaceBackup>, evidence: &Evidence, overrides: Overrides) {
    let mut found = Vec::new();
    for namespace in &plan.namespaces {
        let name = &namespace.name;
        let configured = evidence.configuration.config().and_then(|config| config.namespaces.get(name));
        plan.remarks.extend(own_means(name, configured, evidence));
        let (problems, remark) = check_storage(namespace, configured, evidence);
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

/// Checks the storage of a namespace that is backed up: all of it must be noted, and must be a set
/// with which a server starts.
fn check_storage(
    namespace: &NamespaceBackup,
    configured: Option<&NamespaceConfig>,
    evidence: &Evidence,
) -> (Vec<Problem>, Option<Remark>) {
    let name = &namespace.name;
    let title = title(name, namespace.instance);
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
            DeviceState::Unreadable(why) => problems.push(problem(
                Code::DeviceUnreadable,
                format!("{why}: a restore could not determine whether this backup is current"),
            )),
            DeviceState::Unknown => {
                problems.push(problem(Code::DeviceSetTorn, "is not blank, and does not start with a known header".to_owned()));
            }
            DeviceState::Header(_) | DeviceState::Blank => {}
        }
    }
    let members = |devices: &[&Device]| -> Vec<(String, StripeHeader)> {
        devices.iter().filter_map(|device| Some((device.path.clone(), device.header()?.clone()))).collect()
    };
    let (main_members, all_members) = (members(&mains), members(&[mains.clone(), shadows.clone()].concat()));
    let is_all_blank = !lines.is_empty() && mains.iter().all(|device| device.state == DeviceState::Blank);
    if is_all_blank {
        let text = format!("{title}: {} and all its other configured devices are blank: no server has used them", mains[0].path);
        problems.push(Problem::new(Code::DeviceSetTorn, text, STORAGE_HINT));
    }
    if problems.is_empty() && !all_members.is_empty() {
        // A namespace in memory has its devices as shadows. The number in their headers is then
        // unknown.
        let is_in_memory = is_configured && configured.is_some_and(|configured| configured.storage == Storage::Memory);
        let counted = match (is_in_memory, is_configured) {
            (true, _) => Counted::Unknown,
            (false, true) => Counted::Mains,
            (false, false) => Counted::MainsAndPerhapsShadows,
        };
        problems.extend(set_problems(&title, name, &main_members, &all_members, counted));
        problems.extend(other_run_problem(&title, namespace, &all_members));
    }
    problems.extend(named_twice(&title, &[mains.clone(), shadows.clone()].concat()));
    let remark = all_members.is_empty().then(|| why_not_noted(name, configured, evidence)).flatten().map(|why| {
        let text = format!(
            "{title}: its storage devices were not recorded ({why}); a later restore cannot be sure that this backup is current: \
             name the configuration (--config FILE) or the devices (--device PATH)"
        );
        Remark::new(NoteCode::DevicesNotNoted, text)
    });
    (problems, remark)
}

const STORAGE_HINT: &str = "make sure that this is the configuration of the server that ran, and that every device exists and \
    is readable; name another configuration or other devices with --config or --device";

/// A server writes the same random to the data stripes of a namespace in memory and to the devices
/// behind them.
fn other_run_problem(title: &str, namespace: &NamespaceBackup, devices: &[(String, StripeHeader)]) -> Option<Problem> {
    let stripe = namespace.copies.iter().find_map(|copy| match &copy.segment.header {
        Header::Stripe(stripe) => Some((copy.segment.key(), stripe.random)),
        _ => None,
    });
    let (key, random) = stripe?;
    let (path, other) = devices.iter().find(|(_, header)| header.random != random)?;
    let text = format!(
        "{title}: {path} has random {:016x}, but data stripe {key} in memory has {random:016x}; expected the same: the server \
         has run on that device without these segments",
        other.random
    );
    let hint = "if the device does not belong to this server, name the right devices with --config or --device; if it does, \
        these segments are not from the server's last run: do not back them up, leave them, and start the server where and how \
        it last ran, so that it reads its devices";
    Some(Problem::new(Code::DeviceSetTorn, text, hint))
}

/// One disk under two configured names counts twice, and a server would open it twice.
fn named_twice(title: &str, devices: &[&Device]) -> Option<Problem> {
    let mut seen: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for device in devices {
        let Some(unique) = device.unique else { continue };
        if let Some(other) = seen.insert(unique, &device.path).filter(|other| *other != device.path) {
            let text = format!("{title}: {other} and {} are the same device", device.path);
            return Some(Problem::new(Code::DeviceSetTorn, text, STORAGE_HINT));
        }
    }
    None
}

/// The relation between the devices at hand and the number of main devices in their headers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// They are the main devices.
    Mains,
    /// They were named on the command line: there may be as many shadow devices among them.
    MainsAndPerhapsShadows,
    /// The relation is unknown.
    Unknown,
}

/// The faults of a set of storage devices.
fn set_problems(
    title: &str,
    name: &NamespaceName,
    mains: &[(String, StripeHeader)],
    all: &[(String, StripeHeader)],
    counted: Counted,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some((path, _)) = all.iter().find(|(_, header)| !header.is_trusted()) {
        problems.push(Problem::new(
            Code::DeviceNotTrusted,
            format!("{title}: {path} is not marked as trusted: the server did not close it cleanly"),
            "a restore would be refused: start the server, stop it cleanly and wait until asd has exited, then back up",
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
    if let Some((_, first)) = mains.first().filter(|_| faults.is_empty() && counted != Counted::Unknown) {
        let (expected, found) = (first.device_count as usize, mains.len());
        let most = if counted == Counted::Mains { expected } else { expected.saturating_mul(2) };
        if found < expected || found > most {
            faults.push(format!("the headers of its storage devices count {expected} of them, found {found}"));
        }
    }
    problems.extend(faults.into_iter().map(|fault| Problem::new(Code::DeviceSetTorn, format!("{title}: {fault}"), STORAGE_HINT)));
    problems
}

/// The reason why no device of a namespace is known; `None` if it is configured to have none.
fn why_not_noted(name: &NamespaceName, configured: Option<&NamespaceConfig>, evidence: &Evidence) -> Option<String> {
    match (&evidence.configuration, configured) {
        (Configuration::NotThere(why), _) => Some(why.clone()),
        (Configuration::Read { path, .. }, None) => Some(format!("{path} does not name namespace '{name}'")),
        (Configuration::Read { .. }, Some(_)) => None,
    }
}
