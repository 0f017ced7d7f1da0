//! What an operation found or did, as data for people and scripts. Sizes in bytes, times in
//! milliseconds.
//!
//! Promise: fields keep their names and meaning; what is not known is null. Must never: compute
//! anything new.

use crate::error::{Problem, Remark};
use crate::facts::memory::{Inventory, Segment, State};
use crate::format::ManifestSegment;
use crate::look::segments;
use crate::plan::preflight::Preflight;
use crate::plan::staleness::Verdict;
use crate::plan::{NamespaceBackup, NamespaceRestore, Source};
use crate::work::copy_out::UnpublishedNamespace;
use asmt_shm::{Address, Header, Key};
use serde::Serialize;
use std::collections::HashMap;

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Verb {
    /// List what is in shared memory.
    List,
    /// Copy segments to a directory.
    Backup,
    /// Bring segments back from a directory.
    Restore,
    /// Check a backup at rest.
    Verify,
    /// Mark a backup as used.
    Retire,
    /// Write a backup anew, in a form that ASMT restores.
    Export,
    /// Say what would stand in the way of a backup or a restore.
    Preflight,
}

/// A namespace.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct NamespaceReport {
    /// Instance.
    pub instance: u8,
    /// Name; null for index segments without a readable base.
    pub name: Option<String>,
    /// nsid of the index; null if there are only stripes.
    pub nsid: Option<u8>,
    /// nsid of the stripes, if there are any.
    pub data_nsid: Option<u8>,
    /// Layout version of base.
    pub base_version: Option<u32>,
    /// How the server left it: listings only.
    pub state: Option<State>,
    /// Number of segments.
    pub segment_count: usize,
    /// Size of all of them.
    pub size_bytes: u64,
    /// Of these in memory; null where only files are known.
    pub resident_bytes: Option<u64>,
    /// Of these swapped out.
    pub swapped_bytes: u64,
    /// Size of all files: what they hold, holes included.
    pub file_bytes: Option<u64>,
    /// What all files occupy on the disk: their allocated blocks. Null where it is not known.
    pub allocated_bytes: Option<u64>,
    /// Whether the backup has a manifest; null where there is no backup yet.
    pub has_manifest: Option<bool>,
    /// When the backup was made, milliseconds since 1970.
    pub created_ms: Option<u64>,
}

/// A segment.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SegmentReport {
    /// Key, eight hex digits.
    pub key: String,
    /// Id; null where it is only in a file.
    pub shmid: Option<i32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, four octal digits.
    pub mode: String,
    /// Times attached; null where it is only in a file.
    pub attached_count: Option<u64>,
    /// Size.
    pub size_bytes: u64,
    /// Of this in memory.
    pub resident_bytes: Option<u64>,
    /// Instance.
    pub instance: u8,
    /// nsid.
    pub nsid: u8,
    /// Namespace.
    pub namespace: Option<String>,
    /// What it holds, as ASMT names it.
    pub r#type: &'static str,
    /// Stage or stripe number, where the type has one.
    pub stage: Option<u16>,
    /// File name.
    pub file: Option<String>,
    /// `raw` or `gzip`.
    pub encoding: Option<&'static str>,
    /// Size of the file, holes included.
    pub file_bytes: Option<u64>,
    /// What the file occupies on the disk: its allocated blocks. Null where it is not known.
    pub allocated_bytes: Option<u64>,
    /// CRC-32, eight hex digits, where it was computed.
    pub crc32: Option<String>,
}

/// What was found or done.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Report {
    /// Which operation.
    pub verb: Verb,
    /// Directory; null for a list.
    pub directory: Option<String>,
    /// Directory that is written to; exports only.
    pub output: Option<String>,
    /// Nothing was done: it was only looked what would be.
    pub analyze: bool,
    /// Namespaces.
    pub namespaces: Vec<NamespaceReport>,
    /// Namespaces whose backup in the directory is current, so that no other one was made; backups
    /// that replace older ones only.
    pub current: Vec<NamespaceReport>,
    /// Segments, by key.
    pub segments: Vec<SegmentReport>,
    /// What the user should know.
    pub remarks: Vec<Remark>,
    /// Size of all segments.
    pub total_bytes: u64,
    /// Of this data, whatever form it has in files; holes, and pages of zeros that a restore leaves
    /// untouched, are left out. Null where nothing was read or written.
    pub data_bytes: Option<u64>,
    /// Disk space reserved, at worst needed; of an analysis what is needed at least. Backups only.
    pub reserve_bytes: Option<u64>,
    /// Disk space that is free in the directory; analysed backups only.
    pub free_bytes: Option<u64>,
    /// Where others are refused: names of the namespaces that this could be done with, all of them
    /// at once.
    pub possible: Vec<String>,
    /// Whether a restore here would be accepted, one entry for each instance; verifications only.
    pub restorability: Vec<Restorability>,
    /// What would stand in the way; preflights only.
    pub preflight: Option<Preflight>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Whether a restore of an instance would be accepted, apart from what is in memory now.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Restorability {
    /// Instance.
    pub instance: u8,
    /// It would be accepted.
    pub accepted: bool,
    /// A storage device of each namespace proves that the server has not run since the backup.
    pub proven: bool,
    /// Why it would be refused, the weightiest reason first; empty if it would be accepted.
    pub reasons: Vec<Problem>,
}

impl Restorability {
    /// Of the verdicts on each instance, and of what is wrong with the backup itself.
    pub fn of(verdicts: &[(u8, Verdict)], problems: &[Problem]) -> Vec<Self> {
        let one = |(instance, verdict): &(u8, Verdict)| {
            let mut reasons: Vec<Problem> = verdict.refusals.clone();
            let concerns = |problem: &&Problem| problem.instance().is_none_or(|other| other == *instance);
            let others = problems.iter().filter(concerns).filter(|problem| !verdict.refusals.contains(problem));
            reasons.extend(others.cloned());
            reasons.sort_by_key(|problem| problem.kind);
            Self { instance: *instance, accepted: reasons.is_empty(), proven: verdict.is_proven, reasons }
        };
        verdicts.iter().map(one).collect()
    }
}

impl Report {
    /// One with nothing in it.
    pub fn new(verb: Verb, directory: Option<String>, analyze: bool) -> Self {
        Self {
            verb,
            directory,
            output: None,
            analyze,
            namespaces: Vec::new(),
            current: Vec::new(),
            segments: Vec::new(),
            remarks: Vec::new(),
            total_bytes: 0,
            data_bytes: None,
            reserve_bytes: None,
            free_bytes: None,
            possible: Vec::new(),
            restorability: Vec::new(),
            preflight: None,
            elapsed_ms: 0,
        }
    }

    fn finish(mut self) -> Self {
        self.segments.sort_by(|a, b| a.key.cmp(&b.key));
        self.total_bytes = self.segments.iter().map(|segment| segment.size_bytes).sum();
        self
    }

    /// What is in memory, as far as an instance and names do not narrow it down.
    pub fn with_inventory(
        mut self,
        inventory: &Inventory,
        instance: Option<u8>,
        names: Option<&[asmt_shm::NamespaceName]>,
    ) -> Self {
        for group in inventory.groups() {
            let is_named = names.is_none_or(|names| group.name.as_ref().is_some_and(|name| names.contains(name)));
            if !is_named || instance.is_some_and(|instance| instance != group.instance) {
                continue;
            }
            let segments: Vec<&Segment> = group.keys.iter().filter_map(|key| inventory.segments.get(key)).collect();
            let name = group.name.as_ref().map(ToString::to_string);
            self.namespaces.push(NamespaceReport {
                base_version: segments
                    .iter()
                    .find_map(|segment| if let Header::Base(base) = &segment.header { Some(base.version) } else { None }),
                state: Some(segments::state(inventory, &group)),
                ..namespace_of_segments(group.instance, name.clone(), group.nsid, &segments)
            });
            self.segments.extend(segments.into_iter().map(|segment| segment_in_memory(segment, name.clone())));
        }
        self.finish()
    }

    /// What a backup would copy.
    pub fn with_backup_plan(mut self, namespaces: &[NamespaceBackup]) -> Self {
        for namespace in namespaces {
            let segments: Vec<&Segment> = namespace.copies.iter().map(|copy| &copy.segment).collect();
            let name = Some(namespace.name.to_string());
            let report = NamespaceReport {
                base_version: namespace.base_version,
                ..namespace_of_segments(namespace.instance, name.clone(), namespace.nsid, &segments)
            };
            if namespace.current_ms.is_some() {
                let (has_manifest, created_ms) = (Some(true), namespace.current_ms);
                self.current.push(NamespaceReport { has_manifest, created_ms, ..report });
                continue;
            }
            self.namespaces.push(report);
            self.segments.extend(namespace.copies.iter().map(|copy| SegmentReport {
                file: Some(copy.file_name()),
                encoding: Some(copy.encoding.name()),
                ..segment_in_memory(&copy.segment, name.clone())
            }));
        }
        self.finish()
    }

    /// What a backup has copied: files and sums, from the manifests, and what the files occupy.
    pub fn with_staged(mut self, staged: &[UnpublishedNamespace]) -> Self {
        for (report, UnpublishedNamespace { manifest, files, .. }) in self.namespaces.iter_mut().zip(staged) {
            report.file_bytes = Some(manifest.segments.iter().map(|segment| segment.file_bytes).sum());
            report.allocated_bytes = files.iter().map(|file| file.allocated_bytes).sum();
            report.has_manifest = Some(true);
            report.created_ms = Some(manifest.created_ms);
        }
        let allocated: HashMap<Key, Option<u64>> = staged
            .iter()
            .flat_map(|namespace| &namespace.files)
            .filter_map(|file| Some((file.key?, file.allocated_bytes)))
            .collect();
        let by_key: HashMap<String, &ManifestSegment> = staged
            .iter()
            .flat_map(|namespace| &namespace.manifest.segments)
            .map(|segment| (segment.key.to_string(), segment))
            .collect();
        for report in &mut self.segments {
            if let Some(segment) = by_key.get(&report.key) {
                report.file_bytes = Some(segment.file_bytes);
                report.allocated_bytes = allocated.get(&segment.key).copied().flatten();
                report.crc32 = Some(format!("{:08x}", segment.crc32));
            }
        }
        self
    }

    /// What a restore would bring back, or a verification read.
    pub fn with_restore_plan(mut self, namespaces: &[NamespaceRestore]) -> Self {
        for namespace in namespaces {
            let addresses = || namespace.sources.iter().map(|source| source.address);
            self.namespaces.push(NamespaceReport {
                instance: namespace.instance,
                name: Some(namespace.name.to_string()),
                nsid: namespace.nsid,
                data_nsid: data_nsid(addresses()),
                base_version: namespace.base_version,
                state: None,
                segment_count: namespace.sources.len(),
                size_bytes: namespace.sources.iter().map(|source| source.size_bytes).sum(),
                resident_bytes: None,
                swapped_bytes: 0,
                file_bytes: Some(namespace.sources.iter().map(|source| source.file_bytes).sum()),
                allocated_bytes: Some(namespace.sources.iter().map(|source| source.allocated_bytes).sum()),
                has_manifest: Some(namespace.created_ms.is_some()),
                created_ms: namespace.created_ms,
            });
            self.segments.extend(namespace.sources.iter().map(|source| segment_in_file(source, namespace.name.to_string())));
        }
        self.finish()
    }

    /// CRC-32 of segments, and their ids where they have one.
    pub fn with_sums(mut self, sums: impl Iterator<Item = (Key, Option<i32>, u32)>) -> Self {
        let by_key: HashMap<String, (Option<i32>, u32)> =
            sums.map(|(key, shmid, crc32)| (key.to_string(), (shmid, crc32))).collect();
        for segment in &mut self.segments {
            if let Some((shmid, crc32)) = by_key.get(&segment.key) {
                segment.shmid = *shmid;
                segment.attached_count = shmid.map(|_| 0);
                segment.crc32 = Some(format!("{crc32:08x}"));
            }
        }
        self
    }
}

fn data_nsid(mut addresses: impl Iterator<Item = Address>) -> Option<u8> {
    addresses.find(|address| !address.segment_type.is_index()).map(|address| address.nsid)
}

fn namespace_of_segments(instance: u8, name: Option<String>, nsid: Option<u8>, segments: &[&Segment]) -> NamespaceReport {
    NamespaceReport {
        instance,
        name,
        nsid,
        data_nsid: data_nsid(segments.iter().map(|segment| segment.address)),
        base_version: None,
        state: None,
        segment_count: segments.len(),
        size_bytes: segments.iter().map(|segment| segment.stat.size_bytes).sum(),
        resident_bytes: segments.iter().map(|segment| segment.resident_bytes).sum(),
        swapped_bytes: segments.iter().map(|segment| segment.swapped_bytes).sum(),
        file_bytes: None,
        allocated_bytes: None,
        has_manifest: None,
        created_ms: None,
    }
}

fn segment_in_memory(segment: &Segment, namespace: Option<String>) -> SegmentReport {
    let stat = &segment.stat;
    SegmentReport {
        shmid: Some(stat.shmid),
        attached_count: Some(stat.attached_count),
        resident_bytes: segment.resident_bytes,
        ..segment_of(stat.key, segment.address, (stat.uid, stat.gid, stat.mode), stat.size_bytes, namespace)
    }
}

fn segment_in_file(source: &Source, namespace: String) -> SegmentReport {
    SegmentReport {
        file: Some(source.file.clone()),
        encoding: Some(source.encoding.name()),
        file_bytes: Some(source.file_bytes),
        allocated_bytes: Some(source.allocated_bytes),
        ..segment_of(source.key, source.address, (source.uid, source.gid, source.mode), source.size_bytes, Some(namespace))
    }
}

fn segment_of(
    key: Key,
    address: Address,
    (uid, gid, mode): (u32, u32, u32),
    size_bytes: u64,
    namespace: Option<String>,
) -> SegmentReport {
    SegmentReport {
        key: key.to_string(),
        shmid: None,
        uid,
        gid,
        mode: format!("{mode:04o}"),
        attached_count: None,
        size_bytes,
        resident_bytes: None,
        instance: address.instance,
        nsid: address.nsid,
        namespace,
        r#type: address.segment_type.name(),
        stage: address.stage(),
        file: None,
        encoding: None,
        file_bytes: None,
        allocated_bytes: None,
        crc32: None,
    }
}
