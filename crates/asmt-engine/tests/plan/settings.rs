//! Settings that a start compares with the segments in memory: changed since the backup, or not.

use super::*;
use asmt_engine::facts::server::{Configuration, Evidence, ServiceHistory};
use asmt_engine::layout::server_config;
use std::collections::BTreeMap;

/// A configuration of namespace 'test'.
fn configuration(in_namespace: &str, in_memory: &str) -> Configuration {
    let text = format!("namespace test {{\n{in_namespace}\nstorage-engine memory {{\n{in_memory}\n}}\n}}\n");
    let config = server_config::parse(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused}"));
    Configuration::Read { path: "/etc/a.conf".to_owned(), config }
}

fn evidence(configuration: &Configuration) -> Evidence {
    Evidence {
        host: Host::default(),
        instance: 0,
        configuration: configuration.clone(),
        named: Vec::new(),
        devices: BTreeMap::new(),
        traces: Vec::new(),
        compared: BTreeMap::new(),
        unseen: Vec::new(),
        service: ServiceHistory::default(),
        is_markable: true,
    }
}

/// The refusals if a backup of these segments was made with one configuration and is restored with
/// another.
fn changed(made: Vec<NewSegment>, before: &Configuration, now: &Configuration) -> Vec<String> {
    let mut listing = committed("test", 0, made);
    let manifest = listing.manifests[0].manifest.as_mut().expect("a manifest");
    manifest.noted.settings = plan::settings::configured(before).remove(&name("test")).unwrap_or_default();
    let plan = plan::verify(&listing, &request());
    assert_eq!(plan.namespaces.len(), 1);
    let problems = plan::settings::changed(&plan.namespaces, &listing, &evidence(now));
    assert!(problems.iter().all(|problem| problem.kind == Kind::Refused && problem.hint.contains(" back to ")), "{problems:?}");
    problems.iter().map(|problem| format!("{}: {}", problem.code.as_str(), problem.message)).collect()
}

#[test]
fn another_data_size_is_refused_where_there_are_stripes() {
    let refused = "setting-changed: namespace 'test': data-size is 8G in /etc/a.conf, but was 4G when the backup was made; \
        expected the same: the server crashes at startup if data stripes have a different size";
    for (before, now, expected) in [
        ("data-size 4G", "data-size 8G", &[refused][..]),
        ("data-size 4G", "data-size 4G", &[]),
        // The same, written in another way.
        ("data-size 4G", "data-size 4096m", &[]),
        // Not known on one side.
        ("data-size 4G", "", &[]),
        ("", "data-size 8G", &[]),
        ("data-size 4G", "data-size 8GB", &[]),
        ("data-size 4G", "data-size 8G\ndata-size 4G", &[]),
    ] {
        let (before, now) = (configuration("", before), configuration("", now));
        assert_eq!(changed(whole(), &before, &now), expected);
        assert_eq!(changed(data("test", 0, 5, 2), &before, &now), expected);
        assert_eq!(changed(index("test", 0, 1, 2), &before, &now), [""; 0], "no stripes");
        assert_eq!(changed(whole(), &before, &Configuration::NotThere("nowhere".to_owned())), [""; 0]);
    }
}

#[test]
fn another_number_of_sprigs_is_refused_where_there_is_an_index() {
    let refused = "setting-changed: namespace 'test': partition-tree-sprigs is 512 in /etc/a.conf, but was 256 when the backup \
        was made; expected the same: the server does not reuse an index with a different number";
    for (before, now, expected) in [
        ("partition-tree-sprigs 256", "partition-tree-sprigs 512", &[refused][..]),
        ("partition-tree-sprigs 1024", "partition-tree-sprigs 1K", &[]),
        // The server's value without a configured one is unknown.
        ("", "partition-tree-sprigs 512", &[]),
        ("partition-tree-sprigs 256", "", &[]),
    ] {
        let (before, now) = (configuration(before, ""), configuration(now, ""));
        assert_eq!(changed(whole(), &before, &now), expected);
        assert_eq!(changed(index("test", 0, 1, 2), &before, &now), expected);
        assert_eq!(changed(data("test", 0, 5, 2), &before, &now), [""; 0], "no index");
    }
}

#[test]
fn settings_of_another_namespace_say_nothing() {
    let mut listing = committed("test", 0, whole());
    let manifest = listing.manifests[0].manifest.as_mut().expect("a manifest");
    manifest.noted.settings =
        plan::settings::configured(&configuration("", "data-size 4G")).remove(&name("test")).expect("settings");
    let namespaces = plan::verify(&listing, &request()).namespaces;
    let config =
        server_config::parse(b"namespace other {\nstorage-engine memory {\ndata-size 8G\n}\n}\n").expect("a configuration");
    let now = Configuration::Read { path: "/etc/a.conf".to_owned(), config };
    assert_eq!(plan::settings::changed(&namespaces, &listing, &evidence(&now)), []);
}
