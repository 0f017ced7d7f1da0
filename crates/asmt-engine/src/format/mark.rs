//! The mark that a backup was used, in its directory beside the manifest:
//! `asmt-used-<instance>-<namespace>.json`.
//!
//! Promise: a use is durable before a restore makes anything that a server could start with, so
//! that no later boot and no other container restores that backup without being told; a mark only
//! grows while it is of the same backup, and nothing is ever taken back. ASMT ignores it. Must
//! never: be what a restore of the same boot and IPC namespace fails for (a start may fail and be
//! repeated), or replace a mark that cannot be read by less than it said.

use crate::format::names::{is_namespace_file, namespace_file_name};
use asmt_shm::NamespaceName;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "asmt-used";
const VERSION: u32 = 1;
const PREFIX: &str = "asmt-used-";
/// Restores that are kept: the first ones of them, and the latest.
const MAX_RESTORES: usize = 32;

/// When and where a backup was used, or a restore of it was begun: from then on the server may have
/// run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseRecord {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Host name.
    pub host: String,
    /// Boot id.
    pub boot_id: String,
    /// Identity of the IPC namespace; `None` in marks that were written before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc_namespace: Option<String>,
    /// Names this use and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether a later restore found in memory what a server had made of it: then it has served.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_served: bool,
    /// When the server had made what was found, milliseconds since 1970; `None` where that is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_ms: Option<u64>,
    /// Whether it went on to make segments: what is in memory then may be its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_made: bool,
}

impl UseRecord {
    /// A text that no other use has.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("{}-{}", self.boot_id, self.at_ms))
    }

    /// Whether it was in this boot and, as far as is known, in this IPC namespace.
    pub fn is_in(&self, boot_id: &str, ipc_namespace: &str) -> bool {
        self.boot_id == boot_id && self.ipc_namespace.as_deref().is_none_or(|noted| noted == ipc_namespace)
    }
}

/// What tells one backup of a namespace from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// When it was made, milliseconds since 1970: as its manifest says, else the latest change of a
    /// file.
    pub made_ms: u64,
    /// Boot that it was made in; `None` where there is no manifest.
    pub boot_id: Option<String>,
    /// Where there is no manifest: a sum of names, sizes and times of its files.
    pub files: Option<String>,
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageMark {
    format: String,
    version: u32,
    /// When the backup was made, milliseconds since 1970.
    pub backup_ms: u64,
    /// Boot that it was made in; null where it has no manifest.
    pub backup_boot_id: Option<String>,
    /// Where it has no manifest: a sum of names, sizes and times of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_files: Option<String>,
    /// When it was retired.
    pub retired: Option<UseRecord>,
    /// Restores that were begun; one entry for each boot and IPC namespace.
    pub restores: Vec<UseRecord>,
}

/// The file name of a namespace's mark.
pub fn used_name(instance: u8, namespace: &NamespaceName) -> String {
    namespace_file_name(PREFIX, instance, namespace)
}

/// Whether a file name is that of some namespace's mark.
pub fn is_used_name(name: &str) -> bool {
    is_namespace_file(PREFIX, name)
}

/// Whether a file name is that of a mark of this instance.
pub fn is_used_name_of(instance: u8, name: &str) -> bool {
    is_used_name(name) && name.starts_with(&format!("{PREFIX}{instance}-"))
}

impl UsageMark {
    /// A mark that says nothing yet, of a backup.
    pub fn new(identity: &Identity) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            backup_ms: identity.made_ms,
            backup_boot_id: identity.boot_id.clone(),
            backup_files: identity.files.clone(),
            retired: None,
            restores: Vec::new(),
        }
    }

    /// Reads a mark. The error says what was found and expected.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let used: Self = serde_json::from_str(text).map_err(|error| format!("it is not a usage mark: {error}"))?;
        if used.format != FORMAT || used.version > VERSION {
            return Err(format!(
                "it has format {:?} version {}, expected {FORMAT:?} version {VERSION} at most",
                used.format, used.version
            ));
        }
        Ok(used)
    }

    /// The mark as it stands in its file.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain structures always serialise") + "\n"
    }

    /// Every use that it tells of.
    pub fn uses(&self) -> impl Iterator<Item = &UseRecord> {
        self.restores.iter().chain(&self.retired)
    }

    /// Whether it is of this backup. One with no manifest is known by its files; and where these
    /// were copied with other times, it is another one only if they are later than all that the
    /// mark tells.
    pub fn is_of(&self, identity: &Identity) -> bool {
        match &identity.boot_id {
            Some(boot_id) => self.backup_boot_id.as_ref() == Some(boot_id) && self.backup_ms == identity.made_ms,
            None => {
                let has_same_files = identity.files.is_some() && self.backup_files == identity.files;
                has_same_files || self.uses().any(|used| identity.made_ms <= used.at_ms)
            }
        }
    }

    /// Adds a restore; the later ones of a boot and IPC namespace take the place of the first,
    /// those that made segments and those that did not apart: a backup may have been made in
    /// between.
    pub fn add_restore(&mut self, mut restore: UseRecord) {
        let is_same = |earlier: &UseRecord| {
            (&earlier.boot_id, &earlier.ipc_namespace, earlier.has_made)
                == (&restore.boot_id, &restore.ipc_namespace, restore.has_made)
        };
        let served: Vec<Option<u64>> = self
            .restores
            .iter()
            .filter(|earlier| is_same(earlier) && earlier.has_served)
            .map(|earlier| earlier.served_ms)
            .collect();
        self.restores.retain(|earlier| !is_same(earlier));
        if restore.has_served || !served.is_empty() {
            let own = restore.has_served.then_some(restore.served_ms);
            // The latest of them; if one is not known, it may be any time.
            let latest = served.into_iter().chain(own).try_fold(0, |latest, at_ms| at_ms.map(|at_ms| at_ms.max(latest)));
            (restore.has_served, restore.served_ms) = (true, latest);
        }
        self.restores.truncate(MAX_RESTORES - 1);
        self.restores.push(restore);
    }
}

/// Marks as they are in a directory: name, and what it says or why it cannot be read.
pub type Marks = [(String, std::result::Result<UsageMark, String>)];

#[cfg(test)]
mod tests {
    use super::*;

    fn used_at(at_ms: u64, boot_id: &str) -> UseRecord {
        UseRecord { at_ms, host: "node1".to_owned(), boot_id: boot_id.to_owned(), ..UseRecord::default() }
    }

    fn made(made_ms: u64, boot_id: Option<&str>, files: Option<&str>) -> Identity {
        Identity { made_ms, boot_id: boot_id.map(str::to_owned), files: files.map(str::to_owned) }
    }

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_taken_for_one() {
        let mut used = UsageMark::new(&made(7, Some("b"), None));
        used.add_restore(UseRecord { ipc_namespace: Some("id:7".to_owned()), id: Some("r".to_owned()), ..used_at(8, "b1") });
        used.retired = Some(used_at(9, "b2"));
        let text = used.to_text();
        assert_eq!(UsageMark::parse(&text), Ok(used));
        for end in 0..text.len() - 2 {
            assert!(UsageMark::parse(&text[..end]).is_err(), "cut to {end}");
        }
        assert!(UsageMark::parse(&text.replace("\"version\":1", "\"version\":2")).is_err());
        assert!(UsageMark::parse(&text.replace("asmt-used", "asmt-xxxx")).is_err());
    }

    #[test]
    fn a_mark_of_before_ipc_namespaces_were_noted_is_read() {
        let text = r#"{"format":"asmt-used","version":1,"backup_ms":7,"backup_boot_id":"b","retired":null,"restores":[{"at_ms":8,"host":"h","boot_id":"b1"}]}"#;
        let used = UsageMark::parse(text).expect("a mark");
        assert!(used.restores[0].is_in("b1", "id:7") && !used.restores[0].is_in("b2", "id:7"));
        assert_eq!(used.restores[0].id(), "b1-8");
    }

    #[test]
    fn a_mark_is_of_one_backup() {
        let mut used = UsageMark::new(&made(7, Some("b"), Some("f")));
        used.add_restore(used_at(100, "b1"));
        for (identity, is_of) in [
            (made(7, Some("b"), None), true),
            (made(8, Some("b"), None), false),
            (made(7, Some("c"), None), false),
            // With no manifest: the very files, or such that are not later than the use.
            (made(100, None, None), true),
            (made(101, None, None), false),
            (made(101, None, Some("g")), false),
            (made(u64::MAX, None, Some("f")), true),
        ] {
            assert_eq!(used.is_of(&identity), is_of, "{identity:?}");
        }
    }

    #[test]
    fn a_boot_and_ipc_namespace_counts_once_and_the_first_ones_stay() {
        let mut used = UsageMark::new(&made(7, None, None));
        for (at_ms, boot) in [(1, "a"), (2, "b"), (3, "a")] {
            used.add_restore(used_at(at_ms, boot));
        }
        assert_eq!(used.restores, [used_at(2, "b"), used_at(3, "a")]);
        let in_container = UseRecord { ipc_namespace: Some("id:1".to_owned()), ..used_at(4, "a") };
        used.add_restore(in_container.clone());
        assert_eq!(used.restores.len(), 3, "another IPC namespace of the same boot is another use");
        used.restores[2].has_served = true;
        used.add_restore(in_container);
        assert!(used.restores[2].has_served, "what was seen stays");
        for boot in 0..100 {
            used.add_restore(used_at(boot, &boot.to_string()));
        }
        assert_eq!((used.restores.len(), &used.restores[0], used.restores[31].at_ms), (32, &used_at(2, "b"), 99));
    }

    #[test]
    fn its_name_is_no_segments_and_no_manifests() {
        let name = used_name(3, &NamespaceName::new("../x").expect("a name"));
        assert_eq!(name, "asmt-used-3-..%2Fx.json");
        assert!(is_used_name(&name) && !crate::format::is_manifest_name(&name));
        assert!(is_used_name_of(3, &name) && !is_used_name_of(0, &name) && !is_used_name_of(30, &name));
        assert_eq!(crate::format::parse_file_name(&name), None);
    }
}
