//! What has changed since a backup, and decides whether the server's next start is a warm one; and
//! the size of data stripes.
//!
//! Pure. Promise: what is not known on one side is said to be unknown.

use crate::facts::server::Configuration;
use crate::format::{Manifest, ServerBinary};
use crate::layout::server_config::{DATA_SIZE, INDEX_STAGE_SIZE, NamespaceConfig, Setting, TREE_SPRIGS};
use crate::plan::left_out::keeps_its_index;
use crate::plan::preflight::page::{Check, Topic};
use crate::plan::preflight::words::size;
use asmt_shm::NamespaceName;
use std::collections::BTreeSet;

/// How a server rounds the size of a stripe is not known; a block that it writes at once has as
/// many bytes.
const ROUNDING_BYTES: u64 = 8 << 20;

/// What has changed since the backups of an instance. `has_refused`: a changed setting or device is
/// a refusal already.
pub fn since(
    manifests: &[&Manifest],
    configuration: &Configuration,
    binary: Option<&ServerBinary>,
    has_refused: bool,
) -> Vec<Check> {
    let mut checks = vec![server(manifests, binary)];
    let Configuration::Read { path, config } = configuration else {
        let text = "no configuration was read: whether its settings, devices and namespaces have changed is unknown";
        checks.push(Check::note(Topic::Changed, text));
        return checks;
    };
    let mut changed = Vec::new();
    for manifest in manifests {
        let Some(configured) = config.namespaces.get(&manifest.namespace) else {
            let text =
                format!("{path} has no namespace '{}': the server leaves what is restored of it unused", manifest.namespace);
            checks.push(Check::note(Topic::Changed, text));
            continue;
        };
        changed.extend(settings(manifest, configured, path));
    }
    let there: BTreeSet<&NamespaceName> = manifests.iter().map(|manifest| &manifest.namespace).collect();
    let added = config.namespaces.iter().filter(|(name, namespace)| !keeps_its_index(namespace) && !there.contains(*name));
    let added: Vec<&str> = added.map(|(name, _)| name.as_str()).collect();
    if !added.is_empty() {
        let text =
            format!("{path} has namespaces that are not in the backup, and that the server cold-starts: {}", added.join(", "));
        checks.push(Check::note(Topic::Changed, text));
    }
    if changed.is_empty() && !has_refused {
        let is_noted = manifests.iter().any(|manifest| !manifest.noted.settings.is_empty());
        let devices = manifests.iter().flat_map(|manifest| &manifest.noted.devices);
        let count = devices.filter(|device| device.is_configured && device.namespace.is_none()).count();
        let settings = if is_noted {
            format!("{DATA_SIZE}, {TREE_SPRIGS} and {INDEX_STAGE_SIZE} are as they were noted")
        } else {
            "no settings were noted in the backup, so a change of them is unknown".to_owned()
        };
        let text = match count {
            0 => settings,
            _ => format!("{settings}; its {count} storage devices are configured as they were"),
        };
        checks.push(if is_noted { Check::ready(Topic::Changed, text) } else { Check::note(Topic::Changed, text) });
    }
    checks.extend(changed);
    checks
}

/// Compares the server's program.
fn server(manifests: &[&Manifest], now: Option<&ServerBinary>) -> Check {
    let noted = manifests.iter().find_map(|manifest| manifest.noted.binary.as_ref());
    let named = |binary: &ServerBinary| match &binary.package {
        Some(package) => format!("{} ({package})", binary.path),
        None => format!("{} ({} bytes)", binary.path, binary.size),
    };
    match (noted, now) {
        (None, _) => Check::note(Topic::Changed, "the server's program was not noted in the backup: a change of it is unknown"),
        (Some(noted), None) => {
            let text = format!("the server's program was {}, and is not found here: a change of it is unknown", named(noted));
            Check::unknown(Topic::Changed, text, "install the version of the server that was backed up, or run asmt where it is")
        }
        (Some(noted), Some(now)) if noted == now => {
            Check::ready(Topic::Changed, format!("the server's program is the same: {}", named(now)))
        }
        (Some(noted), Some(now)) => {
            let text = format!(
                "the server's program has changed: {} was {} when the backup was made; whether the new one takes over an index \
                 of the old one is unknown",
                named(now),
                named(noted)
            );
            let hint = "read the release notes of the new version: if it asks for a cold start, start the server without a \
                        restore; otherwise restore, and if the server then cold-starts, nothing is lost beside time";
            Check::unknown(Topic::Changed, text, hint)
        }
    }
}

/// Settings that were changed and for which a restore is not refused.
fn settings(manifest: &Manifest, configured: &NamespaceConfig, path: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    for name in [DATA_SIZE, TREE_SPRIGS, INDEX_STAGE_SIZE] {
        let (noted, now) = (manifest.noted.settings.get(name), configured.settings.get(name));
        // The size of a stage is noted since the time of the copy is.
        let was_looked_for = manifest.noted.configuration.is_some() && (name != INDEX_STAGE_SIZE || manifest.noted.run.is_some());
        let is_same = match (noted, now) {
            (Some(noted), Some(now)) => noted.text == now.text || noted.value.is_some() && noted.value == now.value,
            (None, None) => true,
            (None, Some(_)) => !was_looked_for,
            (Some(_), None) => false,
        };
        // A refusal has the others already.
        let is_refused =
            name != INDEX_STAGE_SIZE && noted.and_then(|noted| noted.value).zip(now.and_then(|now| now.value)).is_some();
        if is_same || is_refused {
            continue;
        }
        let shown = |setting: Option<&Setting>| setting.map_or("not set".to_owned(), |setting| setting.text.clone());
        let text = format!(
            "namespace '{}': {name} is {} in {path}, and was {} when the backup was made: whether a start takes over the index \
             then is unknown",
            manifest.namespace,
            shown(now),
            shown(noted)
        );
        checks.push(Check::unknown(Topic::Changed, text, format!("set it back: {name} as it was ({})", shown(noted))));
    }
    checks
}

/// Compares the stripes of a namespace, by their sizes, with `data-size`.
pub fn stripe_size(name: &NamespaceName, stripes: &[u64], setting: &Setting, path: &str) -> Check {
    let (count, sum) = (stripes.len() as u64, stripes.iter().copied().fold(0, u64::saturating_add));
    let found = format!("namespace '{name}': {count} stripes have {} together, and {DATA_SIZE} is {}", size(sum), setting.text);
    match setting.value {
        Some(value) if value == sum => Check::ready(Topic::StripeSize, found),
        Some(value) if sum.abs_diff(value) < count * ROUNDING_BYTES => {
            let text = format!("{found}: whether the difference is only rounding is unknown");
            Check::unknown(
                Topic::StripeSize,
                text,
                format!("make sure that {DATA_SIZE} in {path} is what the server was started with"),
            )
        }
        Some(_) => {
            let text = format!("{found}: a server crashes at its start if its stripes have another size");
            let hint = format!("set {DATA_SIZE} in {path} back to the value with which the server was started");
            Check::not_ready(Topic::StripeSize, text, hint)
        }
        None => {
            let text = format!("{found}, which is not understood: whether they agree is unknown");
            Check::unknown(Topic::StripeSize, text, format!("set {DATA_SIZE} in {path} once, as a number with K, M, G or T"))
        }
    }
}
