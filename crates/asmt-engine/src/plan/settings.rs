//! The server's settings that a start compares with the segments, and the places where the server
//! will look for its data.
//!
//! Pure. Promise: a restore is refused if such a setting is known to have changed since the backup.
//! Must never: refuse because of a setting that is unknown on either side.

use crate::error::{Code, Problem};
use crate::facts::directory::Listing;
use crate::facts::server::{Configuration, Device, Evidence};
use crate::format::{HeaderStamp, Manifest};
use crate::layout::server_config::{DATA_SIZE, NamespaceConfig, Setting, TREE_SPRIGS};
use crate::plan::NamespaceRestore;
use crate::plan::left_out::keeps_its_index;
use crate::plan::titles::title;
use asmt_shm::NamespaceName;
use std::collections::BTreeMap;

/// Settings by name.
type Settings = BTreeMap<String, Setting>;

/// The settings to note, for each configured namespace.
pub fn configured(configuration: &Configuration) -> BTreeMap<NamespaceName, Settings> {
    let namespaces = configuration.config().into_iter().flat_map(|config| &config.namespaces);
    namespaces.map(|(name, namespace)| (name.clone(), namespace.settings.clone())).collect()
}

/// Refusals of a restore after which the server would not start, or would not use the restored
/// segments.
pub fn changed(namespaces: &[NamespaceRestore], listing: &Listing, evidence: &Evidence) -> Vec<Problem> {
    let Configuration::Read { path, config } = &evidence.configuration else { return Vec::new() };
    let mut problems = Vec::new();
    for namespace in namespaces {
        let manifests = listing.manifests_of(namespace.instance);
        let Some(manifest) = manifests.iter().find(|manifest| manifest.namespace == namespace.name) else { continue };
        let configured = config.namespaces.get(&namespace.name);
        problems.extend(moved(namespace, manifest, configured, path, evidence));
        let Some(configured) = configured else { continue };
        let has = |is_index: bool| namespace.sources.iter().any(|source| source.address.segment_type.is_index() == is_index);
        for (name, is_compared, why) in [
            (DATA_SIZE, has(false), "the server crashes at startup if data stripes have a different size"),
            (TREE_SPRIGS, has(true), "the server does not reuse an index with a different number"),
        ] {
            let pair = manifest.noted.settings.get(name).zip(configured.settings.get(name)).filter(|_| is_compared);
            let Some((noted, now)) = pair.filter(|(noted, now)| differ(noted, now)) else { continue };
            let message = format!(
                "{}: {name} is {} in {path}, but was {} when the backup was made; expected the same: {why}",
                title(&namespace.name, namespace.instance),
                now.text,
                noted.text
            );
            let hint = format!(
                "set {name} back to {} in {path}, then try again; or start the server without a restore, which is a cold start: \
                 records that are not on a storage device or file are then lost, and a namespace that is in memory only starts \
                 empty",
                noted.text
            );
            problems.push(Problem::new(Code::SettingChanged, message, hint));
        }
    }
    problems
}

/// The reason why the server would look for the data of a namespace in another place than at the
/// time of the backup: an index of one device is useless for another one.
fn moved(
    namespace: &NamespaceRestore,
    manifest: &Manifest,
    configured: Option<&NamespaceConfig>,
    path: &str,
    evidence: &Evidence,
) -> Option<Problem> {
    let title = title(&namespace.name, namespace.instance);
    let hint = format!(
        "if {path} is not the configuration of this server, name the right one with --config; if its storage was changed on \
         purpose, do not restore this backup: start the server without a restore"
    );
    let refused = |what: String| Some(Problem::new(Code::SettingChanged, format!("{title}: {what}"), hint.clone()));
    let noted = || manifest.noted.devices.iter().filter(|noted| noted.namespace.is_none() && noted.is_configured);
    // Devices of the command line stand for configured ones; and another file may belong to another
    // server.
    let is_same_file = manifest.noted.configuration.as_deref() == Some(path);
    if !evidence.named.is_empty() || !is_same_file || noted().next().is_none() {
        return None;
    }
    // A server without such a namespace leaves its segments and devices alone.
    let configured = configured?;
    let has_index = namespace.sources.iter().any(|source| source.address.segment_type.is_index());
    if has_index && keeps_its_index(configured) {
        return refused(format!(
            "{path} now keeps its index outside shared memory (index-type flash or pmem), but did not when the backup was made"
        ));
    }
    let mut paths: Vec<&str> = configured.devices.iter().flat_map(|line| line.paths()).collect();
    let mut lost: Vec<&HeaderStamp> = Vec::new();
    for noted in noted() {
        match paths.iter().position(|path| is_same(noted, path, evidence)) {
            Some(at) => drop(paths.remove(at)),
            None => lost.push(noted),
        }
    }
    // The devices of a set have the same header: each stands in for one.
    lost.retain(|noted| {
        let at = paths.iter().position(|path| says_same(noted, path, evidence));
        at.map(|at| paths.remove(at)).is_none()
    });
    let lost = lost.first()?;
    refused(format!("{path} does not name its storage device {}, but did when the backup was made", lost.what))
}

/// Returns true if a configured path leads to a noted device: by its name, or by the ids of the
/// disk.
fn is_same(noted: &HeaderStamp, path: &str, evidence: &Evidence) -> bool {
    let Some(device) = evidence.devices.get(path) else { return noted.what == path };
    let unique = |path: &str| evidence.devices.get(path).and_then(|device| device.unique);
    noted.what == path
        || device.ids.iter().any(|id| noted.ids.contains(id))
        || unique(&noted.what).is_some_and(|there| device.unique == Some(there))
}

/// Returns true if the header behind a configured path is that of a noted device.
fn says_same(noted: &HeaderStamp, path: &str, evidence: &Evidence) -> bool {
    let header = evidence.devices.get(path).and_then(Device::header);
    header.is_some_and(|header| header.random == noted.random && !noted.is_blank)
}

/// Returns true if two settings are known to be different. A value that is written in two ways is
/// the same.
fn differ(noted: &Setting, now: &Setting) -> bool {
    noted.value.zip(now.value).is_some_and(|(noted, now)| noted != now)
}
