//! Settings of the server that a start compares with the segments that it finds.
//!
//! Pure. Promise: a restore is refused where such a setting is known to be another one than at the
//! backup. Must never: refuse for a setting that is not known on either side.

use crate::error::{Code, Problem};
use crate::facts::directory::Listing;
use crate::facts::server::Configuration;
use crate::layout::server_config::{DATA_SIZE, Setting, TREE_SPRIGS};
use crate::plan::NamespaceRestore;
use crate::plan::staleness::manifests_of;
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

/// Refusals of a restore after which the server would not start, or not with what was restored.
pub fn changed(namespaces: &[NamespaceRestore], listing: &Listing, configuration: &Configuration) -> Vec<Problem> {
    let Configuration::Read { path, config } = configuration else { return Vec::new() };
    let mut problems = Vec::new();
    for namespace in namespaces {
        let manifests = manifests_of(listing, namespace.instance);
        let Some(manifest) = manifests.iter().find(|manifest| manifest.namespace == namespace.name) else { continue };
        let Some(configured) = config.namespaces.get(&namespace.name) else { continue };
        let has = |is_index: bool| namespace.sources.iter().any(|source| source.address.segment_type.is_index() == is_index);
        for (name, is_compared, why) in [
            (DATA_SIZE, has(false), "the server crashes at its start on data stripes of another size"),
            (TREE_SPRIGS, has(true), "the server does not take over an index with another number"),
        ] {
            let pair = manifest.noted.settings.get(name).zip(configured.settings.get(name)).filter(|_| is_compared);
            let Some((noted, now)) = pair.filter(|(noted, now)| differ(noted, now)) else { continue };
            let message = format!(
                "{}: {name} is {} in {path}, and was {} when the backup was made; expected the same: {why}",
                title(&namespace.name, namespace.instance),
                now.text,
                noted.text
            );
            let hint = format!(
                "set {name} back to {} in {path}, then run it again; or start the server without a restore, which is a cold \
                 start: records that are on no storage device or file are lost then, and a namespace in memory only starts empty",
                noted.text
            );
            problems.push(Problem::new(Code::SettingChanged, message, hint));
        }
    }
    problems
}

/// Whether two settings are known to be different. One that is written in two ways is the same.
fn differ(noted: &Setting, now: &Setting) -> bool {
    noted.value.zip(now.value).is_some_and(|(noted, now)| noted != now)
}
