//! The notes of a backup about itself: the manifest of each namespace.

use crate::error::{Code, Error, Result};
use crate::facts::server::Host;
use crate::format::{
    Chunk, Encoding, HeaderStamp, Manifest, ManifestSegment, ServerBinary, ServerFingerprint, chunk_range, length_of, zero_bytes,
};
use crate::layout::server_config::Setting;
use crate::plan::{Copy, NamespaceBackup};
use crate::work::job::{Job, lock};
use asmt_codec::crc;
use asmt_shm::{Header, Key, NamespaceName, SegmentType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;

/// The origin of a backup, for its manifest.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Tool and version.
    pub tool: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The host of the memory.
    pub host: Host,
    /// The storage devices and files of the server, for each namespace's manifest.
    pub devices: BTreeMap<NamespaceName, Vec<HeaderStamp>>,
    /// Path of the configuration that was read.
    pub configuration: Option<String>,
    /// Its settings that a start compares with segments, for each namespace.
    pub settings: BTreeMap<NamespaceName, BTreeMap<String, Setting>>,
    /// The server's program.
    pub binary: Option<ServerBinary>,
    /// Uses of earlier backups, from marks in the directory.
    pub earlier_uses: Vec<String>,
    /// Ids of all segments of the instance, of any namespace.
    pub shmids: BTreeSet<i32>,
}

/// Makes the manifest of a namespace whose segments were copied.
///
/// Errors: failed calls.
pub fn manifest_of(namespace: &NamespaceBackup, jobs: &[Job<'_>], origin: &Origin) -> Result<Manifest> {
    let by_key: HashMap<Key, &Job<'_>> = jobs.iter().map(|job| (job.copy.segment.key(), job)).collect();
    let segments = namespace.copies.iter().map(|copy| {
        let job = by_key[&copy.segment.key()];
        let stat = &copy.segment.stat;
        let (_, file_bytes) =
            lock(&job.finished).ok_or_else(|| Error::new(Code::Bug, format!("{} was not finished", copy.file_name()), ""))?;
        let sums = job.sums();
        let written = std::mem::take(&mut *lock(&job.chunks));
        let chunks: Vec<Chunk> = written.iter().map(|one| one.chunk).collect();
        let encoded_sums =
            if copy.encoding.is_plain() { Vec::new() } else { written.iter().map(|one| one.encoded_crc32).collect() };
        // Where data came to light only while it was copied, the chunk is none of zeros.
        let zero_chunks = runs_of_zeros(stat.size_bytes, job.chunk_bytes, &job.zero_chunks, &chunks);
        Ok(ManifestSegment {
            key: stat.key,
            address: copy.segment.address,
            size_bytes: stat.size_bytes,
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.mode,
            encoding: copy.encoding,
            file_bytes,
            crc32: sums.crc32,
            chunk_bytes: job.chunk_bytes,
            chunks,
            encoded_sums,
            columns_content: (copy.encoding == Encoding::Columns).then_some(sums.content),
            // Of data that is zeros the manifest says that it is zeros.
            data_bytes: Some(
                job.data_bytes
                    .load(Ordering::Relaxed)
                    .min(stat.size_bytes - zero_bytes(stat.size_bytes, job.chunk_bytes, &zero_chunks)),
            ),
            zero_chunks,
        })
    });
    Ok(Manifest {
        tool: origin.tool.clone(),
        created_ms: origin.created_ms,
        host: origin.host.name.clone(),
        boot_id: origin.host.boot_id.clone(),
        instance: namespace.instance,
        namespace: namespace.name.clone(),
        nsid: namespace
            .nsid
            .filter(|_| namespace.copies.iter().any(|copy| copy.segment.address.segment_type != SegmentType::DataStage)),
        base_version: namespace.base_version,
        noted: ServerFingerprint {
            machine_id: origin.host.machine_id.clone(),
            devices: origin.devices.get(&namespace.name).cloned().unwrap_or_default(),
            stripes: namespace.copies.iter().filter_map(noted_stripe).collect(),
            // Noted last: see [`Unpublished::note_traces`].
            traces: Vec::new(),
            ipc_namespace: Some(origin.host.ipc_namespace.clone()),
            monotonic_ms: Some(origin.host.monotonic_ms),
            configuration: origin.configuration.clone(),
            earlier_uses: origin.earlier_uses.clone(),
            shmids: namespace.copies.iter().map(|copy| copy.segment.stat.shmid).collect(),
            beside: Some(beside(&origin.shmids, namespace)),
            settings: origin.settings.get(&namespace.name).cloned().unwrap_or_default(),
            binary: origin.binary.clone(),
            // Noted last: see [`Unpublished::note_run`].
            run: None,
        },
        segments: segments.collect::<Result<_>>()?,
    })
}

/// Ids of the instance's segments that do not belong to the namespace.
pub fn beside(all: &BTreeSet<i32>, namespace: &NamespaceBackup) -> Vec<i32> {
    let own: BTreeSet<i32> = namespace.copies.iter().map(|copy| copy.segment.stat.shmid).collect();
    all.difference(&own).copied().collect()
}

/// Runs of chunks (first, count) without those whose CRC-32 is not that of zeros.
pub fn runs_of_zeros(size_bytes: u64, chunk_bytes: u32, runs: &[(u64, u64)], chunks: &[Chunk]) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    let of_whole = crc::of_zeros(u64::from(chunk_bytes));
    for index in runs.iter().flat_map(|&(first, count)| first..first + count) {
        let length = u64::from(length_of(&chunk_range(size_bytes, chunk_bytes, index)));
        let zeros = if length == u64::from(chunk_bytes) { of_whole } else { crc::of_zeros(length) };
        if chunks[usize::try_from(index).unwrap_or(usize::MAX)].crc32 != zeros {
            continue;
        }
        match found.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => found.push((index, 1)),
        }
    }
    found
}

/// The header of a data stripe when it was copied; `None` for any other segment.
pub fn noted_stripe(copy: &Copy) -> Option<HeaderStamp> {
    let Header::Stripe(stripe) = &copy.segment.header else { return None };
    Some(HeaderStamp {
        what: copy.segment.key().to_string(),
        random: stripe.random,
        is_trusted: stripe.is_trusted(),
        ..HeaderStamp::default()
    })
}
