//! What an operation on all namespaces of an instance does not cover, though somebody may expect it to.
//!
//! Pure.

use crate::error::Remark;
use crate::facts::server::Configuration;
use crate::layout::server_config::NamespaceConfig;
use crate::segment::NamespaceName;
use std::collections::{BTreeMap, BTreeSet};

/// Remarks on namespaces of other instances, and on those that are configured and not there. `there` is every namespace
/// by instance, `place` says where: `in shared memory`.
pub fn remarks(
    there: &BTreeMap<u8, BTreeSet<NamespaceName>>,
    instance: u8,
    configuration: &Configuration,
    place: &str,
) -> Vec<Remark> {
    let Some(own) = there.get(&instance) else { return Vec::new() };
    let others = there.iter().filter(|(other, _)| **other != instance);
    let of_others = others.map(|(other, names)| {
        let text = format!(
            "instance {other} ({}) is {place}, too, and is left out: it needs a run of its own, with -i {other}",
            listed(names)
        );
        Remark::new("instance-left-out", text)
    });
    let configured = configuration.config().into_iter().flat_map(|config| &config.namespaces);
    let missing: BTreeSet<NamespaceName> = configured
        .filter(|(name, namespace)| !keeps_its_index(namespace) && !own.contains(*name))
        .map(|(name, _)| name.clone())
        .collect();
    let of_missing = (!missing.is_empty()).then(|| {
        let text = format!("configured, but not {place}, and so left out: {} (instance {instance})", listed(&missing));
        Remark::new("namespace-left-out", text)
    });
    of_others.chain(of_missing).collect()
}

/// Whether the index of a namespace outlives a reboot by itself.
pub fn keeps_its_index(namespace: &NamespaceConfig) -> bool {
    matches!(namespace.index_type.as_deref(), Some("flash" | "pmem"))
}

fn listed(names: &BTreeSet<NamespaceName>) -> String {
    names.iter().map(NamespaceName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::server_config;

    #[test]
    fn other_instances_and_configured_namespaces_are_named() {
        let set = |names: &[&str]| names.iter().map(|name| NamespaceName::new(name).expect("a name")).collect::<BTreeSet<_>>();
        let text = "namespace test {\n}\nnamespace gone {\n}\nnamespace flash {\nindex-type flash {\nmount /mnt\n}\n}\n";
        let config = server_config::parse(text.as_bytes()).expect("a configuration");
        let configuration = Configuration::Read { path: "/etc/a.conf".to_owned(), config };
        let there = BTreeMap::from([(0, set(&["test"])), (2, set(&["cache", "bar"]))]);
        let found = remarks(&there, 0, &configuration, "in shared memory");
        let texts: Vec<&str> = found.iter().map(|remark| &*remark.message).collect();
        assert_eq!(
            texts,
            [
                "instance 2 (bar, cache) is in shared memory, too, and is left out: it needs a run of its own, with -i 2",
                "configured, but not in shared memory, and so left out: gone (instance 0)",
            ]
        );
        // Where nothing of the instance is there, that is an error, and not left out.
        assert_eq!(remarks(&there, 1, &configuration, "in shared memory"), []);
        let nowhere = Configuration::NotThere("/etc/a.conf".to_owned());
        assert_eq!(remarks(&BTreeMap::from([(0, set(&["test"]))]), 0, &nowhere, "in the directory"), []);
    }
}
