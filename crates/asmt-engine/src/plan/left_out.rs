//! Namespaces that an operation on all namespaces of an instance does not cover, although a user
//! may expect it.
//!
//! Pure.

use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::server::Configuration;
use crate::layout::server_config::{NamespaceConfig, Storage};
use asmt_shm::NamespaceName;
use std::collections::{BTreeMap, BTreeSet};

/// Remarks on namespaces of other instances, and on those that are configured but missing. `there`
/// has every namespace by instance, and `place` is the place in words: `in shared memory`.
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
            "instance {other} ({}) is also {place}, but is left out: it needs a separate run with -i {other}",
            listed(names)
        );
        Remark::new(NoteCode::InstanceLeftOut, text)
    });
    let configured = configuration.config().into_iter().flat_map(|config| &config.namespaces);
    let missing: BTreeSet<NamespaceName> = configured
        .filter(|(name, namespace)| !keeps_its_index(namespace) && !own.contains(*name))
        .map(|(name, _)| name.clone())
        .collect();
    let of_missing = (!missing.is_empty()).then(|| {
        let text = format!("configured but not {place}, and therefore left out: {} (instance {instance})", listed(&missing));
        Remark::new(NoteCode::NamespaceLeftOut, text)
    });
    of_others.chain(of_missing).collect()
}

/// If the requested namespaces have nothing in shared memory because they need no backup, says that
/// instead of suggesting a wrong name. `names` are the requested ones; `None` means all.
pub fn explain_nothing(refusals: &mut [Problem], names: Option<&[NamespaceName]>, configuration: &Configuration) {
    let Configuration::Read { path, config } = configuration else { return };
    let needs_nothing = |name: &NamespaceName| config.namespaces.get(name).is_some_and(persists);
    for refusal in refusals.iter_mut().filter(|problem| matches!(problem.code, Code::NothingFound | Code::NamespaceMissing)) {
        let about: BTreeSet<NamespaceName> = match names {
            Some(_) => refusal.namespace.iter().cloned().collect(),
            None => config.namespaces.keys().cloned().collect(),
        };
        if about.is_empty() || !about.iter().all(needs_nothing) {
            continue;
        }
        refusal.message = format!(
            "{}; {path} configures {} with a persistent index (index-type flash or pmem) and no data in memory",
            refusal.message,
            listed(&about)
        );
        let rest = if names.is_some() { "leave it out of -n" } else { "just reboot" };
        refusal.hint = format!(
            "there is nothing to back up: {rest}; if that is not the configuration of this server, name the right one with --config"
        );
    }
}

/// Returns true if all of a namespace survives a reboot without a backup.
fn persists(namespace: &NamespaceConfig) -> bool {
    keeps_its_index(namespace) && !matches!(namespace.storage, Storage::Memory | Storage::Unspecified)
}

/// Returns true if the index of a namespace survives a reboot without a backup.
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
                "instance 2 (bar, cache) is also in shared memory, but is left out: it needs a separate run with -i 2",
                "configured but not in shared memory, and therefore left out: gone (instance 0)",
            ]
        );
        // If nothing of the instance is there, that is an error, and not a remark.
        assert_eq!(remarks(&there, 1, &configuration, "in shared memory"), []);
        let nowhere = Configuration::NotThere("/etc/a.conf".to_owned());
        assert_eq!(remarks(&BTreeMap::from([(0, set(&["test"]))]), 0, &nowhere, "in the directory"), []);
    }

    #[test]
    fn what_persists_by_itself_is_nothing_to_back_up() {
        const FLASH: &str = "namespace flash {\nindex-type flash {\n}\nstorage-engine device {\ndevice /a\n}\n}\n";
        const PMEM: &str = "namespace pmem {\nindex-type pmem {\n}\nstorage-engine device {\ndevice /b\n}\n}\n";
        const IN_MEMORY: &str = "namespace data {\nindex-type flash {\n}\nstorage-engine memory {\ndata-size 1G\n}\n}\n";
        const SHMEM: &str = "namespace shmem {\nstorage-engine device {\ndevice /c\n}\n}\n";
        let of_all = "nothing of instance 0 is in shared memory; found: nothing";
        let of_flash = "namespace 'flash' of instance 0 is not in shared memory; found: shmem (instance 0)";
        let names = |name: &str| Some(vec![NamespaceName::new(name).expect("a name")]);
        for (text, asked, message, explained) in [
            ([FLASH, PMEM].concat(), None, of_all, Some("flash, pmem")),
            ([FLASH, SHMEM].concat(), None, of_all, None),
            ([FLASH, IN_MEMORY].concat(), None, of_all, None),
            ("namespace a {\nindex-type flash {\n}\n}\n".to_owned(), None, of_all, None),
            ([FLASH, SHMEM].concat(), names("flash"), of_flash, Some("flash")),
            ([FLASH, SHMEM].concat(), names("shmem"), of_flash, None),
            (SHMEM.to_owned(), names("flash"), of_flash, None),
        ] {
            let config = server_config::parse(text.as_bytes()).expect("a configuration");
            let configuration = Configuration::Read { path: "/etc/a.conf".to_owned(), config };
            for code in [Code::NothingFound, Code::NamespaceMissing, Code::SegmentAttached] {
                let mut refusals = [Problem::new(code, message, "check the name")];
                refusals[0].namespace = asked.as_ref().map(|names| names[0].clone());
                let before = refusals.clone();
                explain_nothing(&mut refusals, asked.as_deref(), &configuration);
                match explained.filter(|_| code != Code::SegmentAttached) {
                    Some(names) => {
                        let expected = format!("{message}; /etc/a.conf configures {names} with a persistent index");
                        assert!(refusals[0].message.starts_with(&expected), "{refusals:?}");
                        assert!(refusals[0].hint.starts_with("there is nothing to back up"), "{refusals:?}");
                    }
                    None => assert_eq!(refusals, before, "{text}"),
                }
            }
        }
    }
}
