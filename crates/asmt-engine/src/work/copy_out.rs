//! Copying segments into staged files: reserve, copy, look again, compare.
//!
//! Promise: nothing has a name that a reader takes for a backup before [`crate::work::commit`]
//! gives it one; what is not committed is removed when it is dropped. Space is reserved for
//! everything before a byte is copied. A segment is attached and a file open only while in work,
//! and memory does not grow with the data (but for 16 bytes a chunk, for the manifest). Must never:
//! write to a segment, or read a hole of one.

use crate::error::{Code, Error, NoteCode, Result};
use crate::facts::memory::Segment;
use crate::format::{CopyRun, FIRST_CHUNK_OFFSET, Manifest, ManifestSegment, Trace, chunk_range, length_of};
use crate::plan::{Copy, NamespaceBackup, Source};
use crate::progress::{Control, Phase};
use crate::store::{OutputFile, Store};
use crate::work::encoding::{ChunkForm, ChunkWriter, Encoder, write_around};
use crate::work::job::{Job, Open, Options, Temporaries, attach, changed, data_ranges, gone_or_failed, lock};
use crate::work::note::{Origin, manifest_of};
use crate::work::pool::{Places, Pool, Turn, Units};
use crate::work::read_all;
use crate::work::reserve::reserve;
use crate::work::written::Written;
use asmt_codec::crc::{self, RangeSum};
use asmt_shm::Key;
use asmt_shm::sysv::{self, LastHand};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A file that is complete and durable under its temporary name.
#[derive(Clone, Debug)]
pub struct UnpublishedFile {
    /// Key of its segment; `None` for a manifest.
    pub key: Option<Key>,
    /// The name it has.
    pub temporary: String,
    /// The name it is to get.
    pub name: String,
    /// Its inode.
    pub inode: u64,
    /// What it occupies on the disk; `None` where that is not known.
    pub allocated_bytes: Option<u64>,
}

/// A namespace whose files are complete and durable.
#[derive(Debug)]
pub struct UnpublishedNamespace {
    /// Files that this backup replaces; removed just before it is published.
    pub superseded: Vec<String>,
    /// These files are a backup, which stays good until this one has taken its place.
    pub is_replacing: bool,
    /// Its manifest, not yet written.
    pub manifest: Manifest,
    /// Its files, by key.
    pub files: Vec<UnpublishedFile>,
}

/// A backup that is complete and durable, and that nobody can see yet. Only
/// [`crate::work::commit::publish`] makes it one; dropped, it is gone.
pub struct Unpublished<'s> {
    /// Namespaces.
    pub namespaces: Vec<UnpublishedNamespace>,
    /// All temporary names, and the run that they are of.
    pub temporaries: Temporaries<'s>,
    /// Bytes of data that were copied; holes are not counted.
    pub data_bytes: u64,
    /// Bytes that were reserved.
    pub reserved_bytes: u64,
}

impl Unpublished<'_> {
    /// Notes what the server writes to in every manifest, as it is now.
    pub fn note_traces(&mut self, traces: &[Trace]) {
        for namespace in &mut self.namespaces {
            namespace.manifest.noted.traces = traces.to_vec();
        }
    }

    /// Notes in every manifest how long the copy took.
    pub fn note_run(&mut self, elapsed: Duration) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        for namespace in &mut self.namespaces {
            namespace.manifest.noted.run = Some(CopyRun { data_bytes: self.data_bytes, elapsed_ms });
        }
    }
}

/// What a worker keeps to itself.
#[derive(Default)]
struct Worker {
    encoder: Encoder,
    gathered: Vec<u8>,
}

/// Complete files that are not durable yet. One fsync makes all that was written before it durable
/// in most file systems, so that the next ones cost little: many small segments would take many
/// times as long with an fsync each at its end.
#[derive(Default)]
pub(super) struct Unsynced(Mutex<Vec<OutputFile>>);

/// Most files that are kept open for that.
const MOST_UNSYNCED: usize = 32;

impl Unsynced {
    pub(super) fn add(&self, file: OutputFile) -> Result<()> {
        let mut files = lock(&self.0);
        files.push(file);
        if files.len() < MOST_UNSYNCED {
            return Ok(());
        }
        let full = std::mem::take(&mut *files);
        drop(files);
        full.into_iter().try_for_each(OutputFile::sync)
    }

    pub(super) fn sync(self) -> Result<()> {
        let files = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        files.into_iter().try_for_each(OutputFile::sync)
    }
}

/// Copies namespaces into staged files of a directory.
///
/// Errors: `disk-full` before anything is copied; `segment-changed`; failed calls. Nothing is left
/// behind.
pub fn stage<'s>(
    temporaries: Temporaries<'s>,
    namespaces: &[NamespaceBackup],
    origin: &Origin,
    options: Options,
    control: &Control,
) -> Result<Unpublished<'s>> {
    match stage_in(&temporaries, namespaces, origin, options, control) {
        Ok((namespaces, data_bytes, reserved_bytes)) => Ok(Unpublished { namespaces, temporaries, data_bytes, reserved_bytes }),
        Err(error) => Err(temporaries.clean_up_after(error)),
    }
}

/// Gives what was staged, the bytes of data in it, and the bytes that were reserved.
fn stage_in(
    temporaries: &Temporaries<'_>,
    namespaces: &[NamespaceBackup],
    origin: &Origin,
    options: Options,
    control: &Control,
) -> Result<(Vec<UnpublishedNamespace>, u64, u64)> {
    let store = temporaries.store();
    let copies: Vec<&Copy> = namespaces.iter().flat_map(|namespace| &namespace.copies).collect();
    let owners: BTreeSet<(u32, u32)> = copies.iter().map(|copy| (copy.segment.stat.uid, copy.segment.stat.gid)).collect();
    store.try_abilities(temporaries.run(), &owners.into_iter().collect::<Vec<_>>())?;
    let (jobs, reserved_bytes) = reserve(temporaries, &copies, options, control)?;
    let data_bytes = copy_all(store, &jobs, options, control)?;
    let manifests = namespaces.iter().map(|namespace| manifest_of(namespace, &jobs, origin)).collect::<Result<Vec<_>>>()?;
    if options.check {
        let sources: Vec<Source> =
            manifests.iter().flat_map(|manifest| &manifest.segments).map(|segment| staged_source(segment, &jobs)).collect();
        let is_read_back = |job: &&Job<'_>| job.is_read_back.load(Ordering::Relaxed);
        let read_back = jobs.iter().filter(is_read_back).map(|job| job.copy.segment.key()).collect();
        read_all::compare_with_disk(store, &sources, &read_back, options.threads, control)?;
    }
    for copy in &copies {
        look_again(copy)?;
    }
    let by_residency: Vec<&Segment> =
        jobs.iter().filter(|job| job.is_by_residency.load(Ordering::Relaxed)).map(|job| &job.copy.segment).collect();
    if !by_residency.is_empty() {
        check_resident(&by_residency, &crate::look::segments::swapped()?)?;
    }
    let by_key: HashMap<Key, &Job<'_>> = jobs.iter().map(|job| (job.copy.segment.key(), job)).collect();
    let staged = namespaces.iter().zip(manifests).map(|(namespace, manifest)| {
        let files = namespace.copies.iter().map(|copy| {
            let job = by_key[&copy.segment.key()];
            let inode = lock(&job.finished).map_or(0, |(inode, _)| inode);
            UnpublishedFile {
                key: Some(copy.segment.key()),
                temporary: job.temporary.clone(),
                name: copy.file_name(),
                inode,
                allocated_bytes: store.allocated_bytes(&job.temporary),
            }
        });
        let (superseded, is_replacing) = (namespace.superseded.clone(), namespace.is_replacing);
        UnpublishedNamespace { superseded, is_replacing, manifest, files: files.collect() }
    });
    Ok((staged.collect(), data_bytes, reserved_bytes))
}

/// Fails if another process has attached or detached a segment since this one did: it may have
/// written to it, though it is gone again. Checked before every attach and detach of ours and once
/// at the end, so no other process is missed, whatever PID namespace it is in. To be called only
/// when this process has attached the segment once.
///
/// Segments with a header are judged by that, see [`look_again`]: a list that another asmt makes
/// looks into it.
fn check_untouched(copy: &Copy) -> Result<()> {
    if copy.segment.address.segment_type.has_header() {
        return Ok(());
    }
    match sysv::last_hand(copy.segment.stat.shmid).map_err(|error| gone_or_failed(copy, "shmctl(IPC_STAT)", error))? {
        LastHand::Process(pid) if pid == std::process::id() => Ok(()),
        other => Err(changed(copy, &other.to_string())),
    }
}

/// A segment and its file, for copying.
fn open(store: &Store, job: &Job<'_>) -> Result<Open> {
    check_untouched(job.copy)?;
    let mut attachment = attach(job.copy)?;
    job.is_by_residency.fetch_or(attachment.tells_holes_by_residency(), Ordering::Relaxed);
    attachment.expect_data(job.data_found.clone());
    Ok(Open { attachment, file: store.reopen(&job.temporary, &job.copy.file_name())?, places: Places::new(FIRST_CHUNK_OFFSET) })
}

/// After copying: the segment must be the same one, unchanged, with nobody attached, and its header
/// as it was: a server that has run since has made base anew, and stored another random in every
/// stripe.
fn look_again(copy: &Copy) -> Result<()> {
    let before = &copy.segment.stat;
    let now = sysv::stat(before.shmid).map_err(|error| gone_or_failed(copy, "shmctl(IPC_STAT)", error))?;
    if now.attached_count > 0 {
        return Err(changed(copy, &format!("it is attached {} times, expected 0", now.attached_count)));
    }
    if now != *before {
        return Err(changed(copy, "its key, size, owner, mode or change time is different"));
    }
    check_untouched(copy)?;
    if crate::look::segments::header_again(&copy.segment)? != copy.segment.header {
        return Err(changed(copy, "its header is different"));
    }
    Ok(())
}

/// Fails if pages of a segment were swapped out while its holes were told by what is resident: data
/// may have passed for a hole. What was swapped out then still is: nobody has it attached, and what
/// passed for a hole was not read.
fn check_resident(by_residency: &[&Segment], swapped: &HashSet<i32>) -> Result<()> {
    by_residency.iter().find(|segment| swapped.contains(&segment.stat.shmid)).map_or(Ok(()), |segment| {
        Err(Error::new(
            Code::SegmentSwapped,
            format!(
                "memory of segment {} was swapped out while it was copied, and cannot be distinguished from holes",
                segment.key()
            ),
            "try again: segments that are then swapped out are read in full; with CAP_CHECKPOINT_RESTORE (as root), holes can \
             be distinguished",
        ))
    })
}

/// Copies every chunk. Gives the number of bytes that were data.
fn copy_all(store: &Store, jobs: &[Job<'_>], options: Options, control: &Control) -> Result<u64> {
    let units = Units::new(jobs.iter().map(|job| job.spans.count()));
    control.begin(Phase::Copy, jobs.iter().map(|job| job.copy.segment.stat.size_bytes).sum());
    let unsynced = Unsynced::default();
    Pool::run(control, options.threads, units.count(), Worker::default, |pool, worker, unit| {
        let (job_index, unit) = units.locate(unit);
        let job = &jobs[job_index];
        let open = job.in_work.enter(|| open(store, job))?;
        control.add_done(Writing { job, open: &open, pool, worker, unit, check: options.check }.copy_span()?);
        match job.in_work.leave(open) {
            Some(open) => unsynced.add(finish(job, open, control)?),
            None => Ok(()),
        }
    })?;
    unsynced.sync()?;
    Ok(jobs.iter().map(|job| job.data_bytes.load(Ordering::Relaxed)).sum())
}

/// What a worker takes at once: a chunk, or a run of chunks that had no data when space was
/// reserved.
struct Writing<'w, 'p> {
    job: &'w Job<'p>,
    open: &'w Open,
    pool: &'w Pool<'w>,
    worker: &'w mut Worker,
    unit: u64,
    /// Read back what was encoded.
    check: bool,
}

impl Writing<'_, '_> {
    /// Copies it, and keeps what became of its chunks. Returns how many bytes of the segment it is.
    fn copy_span(mut self) -> Result<u64> {
        let Self { job, open, .. } = self;
        let span = job.spans.get(self.unit);
        let range_of = |chunk: u64| chunk_range(open.attachment.size_bytes(), job.chunk_bytes, chunk);
        let whole = range_of(span.chunks.start).start..range_of(span.chunks.end - 1).end;
        let no_data = |error| Error::io("lseek", job.copy.segment.key(), error);
        let is_zero = span.is_zero && open.attachment.next_data(whole.start, whole.end).map_err(no_data)?.is_none();
        let ranges: Vec<Range<u64>> = span.chunks.clone().map(range_of).collect();
        let form_of = |range: &Range<u64>| ChunkForm::of(job.copy.encoding, job.copy.segment.address.segment_type, range.start);
        let mut chunks = Vec::with_capacity(ranges.len());
        if is_zero && !job.copy.encoding.is_plain() {
            chunks = self.writer().write_run(&ranges, form_of)?;
        } else {
            for range in &ranges {
                let data = if is_zero { Vec::new() } else { data_ranges(&open.attachment, range).map_err(no_data)? };
                job.data_bytes.fetch_add(data.iter().map(|part| part.end - part.start).sum(), Ordering::Relaxed);
                let turn = if range.end == whole.end { Turn::Passed } else { Turn::Kept };
                chunks.push(match form_of(range) {
                    ChunkForm::Plain => copy_plain(open, range, &data)?,
                    form if data.is_empty() => self.writer().write_zeros(form, turn, length_of(range) as usize)?,
                    form => self.copy_compressed(form, turn, range, &data)?,
                });
            }
        }
        let first = usize::try_from(span.chunks.start).unwrap_or(usize::MAX);
        lock(&job.chunks)[first..first + chunks.len()].copy_from_slice(&chunks);
        Ok(whole.end - whole.start)
    }

    fn writer(&mut self) -> ChunkWriter<'_> {
        self.writer_and_gathered().0
    }

    fn writer_and_gathered(&mut self) -> (ChunkWriter<'_>, &mut Vec<u8>) {
        let Open { file, places, .. } = self.open;
        let is_read_back = self.check.then_some(&self.job.is_read_back);
        let Worker { encoder, gathered } = &mut *self.worker;
        (ChunkWriter { file, places, pool: self.pool, unit: self.unit, encoder, is_read_back }, gathered)
    }

    fn copy_compressed(&mut self, form: ChunkForm, turn: Turn, range: &Range<u64>, data: &[Range<u64>]) -> Result<Written> {
        let attachment = &self.open.attachment;
        let (mut writer, gathered) = self.writer_and_gathered();
        if data == std::slice::from_ref(range) {
            let bytes = attachment.bytes(range.clone());
            return writer.write(form, turn, bytes, crc::of(bytes));
        }
        // The encoder needs the chunk in one piece, and its holes must not be touched where they
        // are.
        gathered.clear();
        gathered.resize(length_of(range) as usize, 0);
        for part in data {
            let at = (part.start - range.start) as usize;
            let bytes = attachment.bytes(part.clone());
            gathered[at..at + bytes.len()].copy_from_slice(bytes);
        }
        writer.write(form, turn, gathered, crc::of(gathered))
    }
}

fn copy_plain(open: &Open, range: &Range<u64>, data: &[Range<u64>]) -> Result<Written> {
    let mut sum = RangeSum::new(range);
    for part in data {
        let bytes = open.attachment.bytes(part.clone());
        sum.add(part.start, bytes);
        open.file.write(part.start, bytes)?;
    }
    Ok(Written::plain(range.start, length_of(range), sum.finish()))
}

/// The last chunk is done: completes the file. Gives it to be made durable.
pub(crate) fn finish(job: &Job<'_>, open: Open, control: &Control) -> Result<OutputFile> {
    check_untouched(job.copy)?;
    let stat = &job.copy.segment.stat;
    let (sums, file) = (job.sums(), open.file);
    let file_bytes = write_around(&file, job.copy.encoding, &open.places, &sums)?;
    let inode = file.finish(file_bytes, Some((stat.uid, stat.gid)))?;
    *lock(&job.finished) = Some((inode, file_bytes));
    control.note(
        NoteCode::Wrote,
        format!("wrote {}: {file_bytes} bytes of {}, crc32 {:08x}", file.name(), stat.size_bytes, sums.crc32),
    );
    Ok(file)
}

/// A staged file as something to read and check.
fn staged_source(segment: &ManifestSegment, jobs: &[Job<'_>]) -> Source {
    let job = jobs.iter().find(|job| job.copy.segment.key() == segment.key);
    Source::of_segment(segment, job.map_or_else(|| segment.file_name(), |job| job.temporary.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::memory::Creator;
    use asmt_shm::Header;

    #[test]
    fn a_segment_that_was_swapped_out_under_a_look_at_its_pages_fails_the_backup() {
        let key = Key(0xae00_1000);
        let stat = sysv::SegmentStat {
            shmid: 7,
            key,
            size_bytes: 4096,
            uid: 0,
            gid: 0,
            mode: 0o600,
            attached_count: 0,
            creator_uid: 0,
            creator_pid: 1,
            changed_at_s: 0,
            is_removed: false,
        };
        let address = key.address().expect("an address");
        let segment = Segment {
            stat,
            address,
            resident_bytes: Some(0),
            swapped_bytes: 0,
            header: Header::None,
            is_denied: false,
            is_huge: false,
            creator: Creator::Gone,
        };
        assert!(check_resident(&[&segment], &HashSet::from([8])).is_ok());
        assert!(check_resident(&[], &HashSet::from([7])).is_ok(), "told exactly");
        let error = check_resident(&[&segment], &HashSet::from([7, 8])).expect_err("lost");
        assert_eq!(error.first().code, Code::SegmentSwapped);
        assert!(error.first().message.contains("ae001000"), "{error}");
    }
}
