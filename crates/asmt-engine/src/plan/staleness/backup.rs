//! A backup, judged in advance: what a restore could not accept is refused when it is made.
//!
//! Pure. Every device of the server is noted: it opens all of them at each start, so each is a witness for all of its
//! namespaces.

use super::{Overrides, configuration_remarks, named_of, own_means, split, strays};
use crate::error::{Code, Problem, Remark};
use crate::facts::server::{Configuration, Device, DeviceState, Evidence, Medium};
use crate::format::Noted;
use crate::layout::server_config::{NamespaceConfig, Storage};
use crate::layout::sets;
use crate::plan::{NamespaceBackup, Plan};
use crate::segment::{NamespaceName, STRIPE_TRUSTED, StripeHeader};
use std::collections::BTreeSet;

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
        // Behind a namespace in memory stand as many devices as it has; what their headers count then is not known.
        let is_in_memory = is_configured && configured.is_some_and(|configured| configured.storage == Storage::Memory);
        let counted = match (is_in_memory, is_configured) {
            (true, _) => Counted::Unknown,
            (false, true) => Counted::Mains,
            (false, false) => Counted::MainsAndPerhapsShadows,
        };
        problems.extend(set_problems(&title, name, &main_members, &all_members, counted));
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

/// How the devices at hand compare with the number in their headers, which counts main devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// They are the main devices.
    Mains,
    /// They were named by hand: there may be as many shadow devices among them.
    MainsAndPerhapsShadows,
    /// It is not known.
    Unknown,
}

/// What is wrong with a set of storage devices in itself.
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
    if let Some((_, first)) = mains.first().filter(|_| faults.is_empty() && counted != Counted::Unknown) {
        let (expected, found) = (first.device_count as usize, mains.len());
        let most = if counted == Counted::Mains { expected } else { expected.saturating_mul(2) };
        if found < expected || found > most {
            faults.push(format!("{found} storage devices are there, and their headers count {expected}"));
        }
    }
    problems.extend(faults.into_iter().map(|fault| Problem::new(Code::DeviceSetTorn, format!("{title}: {fault}"), STORAGE_HINT)));
    problems
}

/// Why no device of a namespace is known; `None` where it is configured to have none.
fn why_not_noted(name: &NamespaceName, configured: Option<&NamespaceConfig>, evidence: &Evidence) -> Option<String> {
    match (&evidence.configuration, configured) {
        (Configuration::NotThere(why), _) => Some(why.clone()),
        (Configuration::Read { path, .. }, None) => Some(format!("{path} names no namespace '{name}'")),
        (Configuration::Read { .. }, Some(_)) => None,
    }
}
