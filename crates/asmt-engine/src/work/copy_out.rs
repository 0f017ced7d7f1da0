//! Copying segments into staged files: reserve, copy, look again, compare.
//!
//! Promise: nothing has a name that a reader takes for a backup before [`crate::work::commit`] gives it one; what is not
//! committed is removed when it is dropped. Space is reserved for everything before a byte is copied. A segment is
//! attached and a file open only while in work, and memory does not grow with the data (but for 16 bytes a chunk, for
//! the manifest). Must never: write to a segment, or read a hole of one.

use crate::error::{Code, Error, Result};
use crate::facts::memory::Segment;
use crate::facts::server::Host;
use crate::format::run_id::RunId;
use crate::format::{
    AsmtHeader, BEFORE_STREAM_BYTES, Chunk, Encoding, FIRST_CHUNK_OFFSET, Manifest, ManifestSegment, Noted, SECTOR_BYTES, Spans,
    Surroundings, Trace, chunk_bytes_for, chunk_count, chunk_kind, chunk_range, combined_crc32, max_file_bytes, zero_bytes,
};
use crate::layout::server_config::Setting;
use crate::plan::{Contents, Copy, NamespaceBackup, Source};
use crate::progress::{Control, Phase};
use crate::store::{Buffer, StagedFile, Store};
use crate::work::pool::{InWork, Places, Pool, Turn, Units};
use crate::work::read;
use asmt_codec::crc::{self, RangeSum};
use asmt_codec::encode::{self, ChunkEncoder, ChunkKind};
use asmt_codec::{DEFLATE_END, GZIP_HEADER};
use asmt_shm::sysv::{self, Access, Attachment, LastHand};
use asmt_shm::{Header, Key, NamespaceName, SegmentType};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Who makes a backup, and where: what the manifest says of it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Tool and version.
    pub tool: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Whose memory it is.
    pub host: Host,
    /// The storage devices and files of the server, for each namespace's manifest.
    pub devices: BTreeMap<NamespaceName, Vec<Noted>>,
    /// Path of the configuration that was read.
    pub configuration: Option<String>,
    /// Its settings that a start compares with segments, for each namespace.
    pub settings: BTreeMap<NamespaceName, BTreeMap<String, Setting>>,
    /// Uses that marks in the directory tell of: of earlier backups.
    pub earlier_uses: Vec<String>,
}

/// A file that is complete and durable under its temporary name.
#[derive(Clone, Debug)]
pub struct StagedName {
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
pub struct StagedNamespace {
    /// What was planned.
    pub plan: NamespaceBackup,
    /// Its manifest, not yet written.
    pub manifest: Manifest,
    /// Its files, by key.
    pub files: Vec<StagedName>,
}

/// Temporary names in a directory; removed when dropped, unless they were kept.
pub struct Temporaries<'s> {
    store: &'s Store,
    names: Mutex<Vec<String>>,
}

impl<'s> Temporaries<'s> {
    /// None yet.
    pub fn new(store: &'s Store) -> Self {
        Self { store, names: Mutex::new(Vec::new()) }
    }

    /// Makes a file to stage, and remembers it.
    pub fn create(&self, run: &RunId, name: &str) -> Result<StagedFile> {
        let file = self.store.create(run, name)?;
        self.lock().push(file.temporary().to_owned());
        Ok(file)
    }

    /// The directory.
    pub fn store(&self) -> &'s Store {
        self.store
    }

    /// Removes what is still there.
    pub fn remove(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.lock());
        self.store.remove_all(names.iter().map(String::as_str))
    }

    /// Removes what is still there because of an error, and adds to it what went wrong with that.
    pub fn clean_up_after(&self, error: Error) -> Error {
        match self.remove() {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Temporaries<'_> {
    fn drop(&mut self) {
        // Only on the way out of a panic is there something left; the next run sweeps what stays.
        let _ = self.remove();
    }
}

/// A backup that is complete and durable, and that nobody can see yet. Only [`crate::work::commit::publish`] makes it one;
/// dropped, it is gone.
pub struct Staged<'s> {
    /// The run.
    pub run: RunId,
    /// Namespaces.
    pub namespaces: Vec<StagedNamespace>,
    /// All temporary names.
    pub temporaries: Temporaries<'s>,
    /// Bytes of data that were copied; holes are not counted.
    pub data_bytes: u64,
    /// Bytes that were reserved.
    pub reserved_bytes: u64,
}

impl Staged<'_> {
    /// Notes what the server writes to in every manifest, as it is now.
    pub fn note_traces(&mut self, traces: &[Trace]) {
        for namespace in &mut self.namespaces {
            namespace.manifest.noted.traces = traces.to_vec();
        }
    }
}

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads.
    pub threads: usize,
    /// Read every file back from the disk and compare.
    pub check: bool,
}

/// A segment on its way into its file.
struct Job<'p> {
    copy: &'p Copy,
    temporary: String,
    chunk_bytes: u32,
    zero_chunks: Vec<(u64, u64)>,
    spans: Spans,
    /// Bytes of data that were copied.
    data_bytes: AtomicU64,
    /// Holes were told by what is resident, at least once.
    is_by_residency: AtomicBool,
    /// A range of the segment that was found to be data.
    data_found: std::ops::Range<u64>,
    in_work: InWork<Open>,
    chunks: Mutex<Vec<Chunk>>,
    /// Inode and size of the finished file.
    finished: Mutex<Option<(u64, u64)>>,
}

/// What is open while a segment is in work.
struct Open {
    attachment: Attachment,
    file: StagedFile,
    places: Places,
}

/// What a worker keeps to itself.
struct Worker {
    encoder: Box<dyn ChunkEncoder>,
    encoded: Buffer,
    gathered: Vec<u8>,
    /// A chunk of zeros of this kind and length, as it was encoded last.
    zeros: Option<(ChunkKind, usize, Vec<u8>)>,
    /// That chunk, many times.
    repeated: Buffer,
}

/// Complete files that are not durable yet. One fsync makes all that was written before it durable in most file systems,
/// so that the next ones cost little: many small segments would take many times as long with an fsync each at its end.
#[derive(Default)]
struct Unsynced(Mutex<Vec<StagedFile>>);

/// Most files that are kept open for that.
const MOST_UNSYNCED: usize = 32;

impl Unsynced {
    fn add(&self, file: StagedFile) -> Result<()> {
        let mut files = lock(&self.0);
        files.push(file);
        if files.len() < MOST_UNSYNCED {
            return Ok(());
        }
        let full = std::mem::take(&mut *files);
        drop(files);
        full.into_iter().try_for_each(StagedFile::sync)
    }

    fn sync(self) -> Result<()> {
        let files = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        files.into_iter().try_for_each(StagedFile::sync)
    }
}

/// Copies namespaces into staged files of a directory.
///
/// Errors: `disk-full` before anything is copied; `segment-changed`; failed calls. Nothing is left behind.
pub fn stage<'s>(
    store: &'s Store,
    run: &RunId,
    namespaces: &[NamespaceBackup],
    origin: &Origin,
    options: Options,
    control: &Control,
) -> Result<Staged<'s>> {
    let temporaries = Temporaries::new(store);
    match stage_in(&temporaries, run, namespaces, origin, options, control) {
        Ok((namespaces, data_bytes, reserved_bytes)) => {
            Ok(Staged { run: run.clone(), namespaces, temporaries, data_bytes, reserved_bytes })
        }
        Err(error) => Err(temporaries.clean_up_after(error)),
    }
}

/// Gives what was staged, the bytes of data in it, and the bytes that were reserved.
fn stage_in(
    temporaries: &Temporaries<'_>,
    run: &RunId,
    namespaces: &[NamespaceBackup],
    origin: &Origin,
    options: Options,
    control: &Control,
) -> Result<(Vec<StagedNamespace>, u64, u64)> {
    let store = temporaries.store();
    let copies: Vec<&Copy> = namespaces.iter().flat_map(|namespace| &namespace.copies).collect();
    let owners: BTreeSet<(u32, u32)> = copies.iter().map(|copy| (copy.segment.stat.uid, copy.segment.stat.gid)).collect();
    store.try_abilities(run, &owners.into_iter().collect::<Vec<_>>())?;
    let (jobs, reserved_bytes) = reserve(temporaries, run, &copies, options, control)?;
    let data_bytes = copy_all(store, &jobs, options, control)?;
    let manifests = namespaces.iter().map(|namespace| manifest_of(namespace, &jobs, origin)).collect::<Result<Vec<_>>>()?;
    if options.check {
        let sources: Vec<Source> =
            manifests.iter().flat_map(|manifest| &manifest.segments).map(|segment| staged_source(segment, &jobs)).collect();
        read::compare_with_disk(store, &sources, options.threads, control)?;
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
            StagedName {
                key: Some(copy.segment.key()),
                temporary: job.temporary.clone(),
                name: copy.file_name(),
                inode,
                allocated_bytes: store.allocated_bytes(&job.temporary),
            }
        });
        StagedNamespace { plan: namespace.clone(), manifest, files: files.collect() }
    });
    Ok((staged.collect(), data_bytes, reserved_bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Attaches a segment to read it. It must still be the one that was planned.
fn attach(copy: &Copy) -> Result<Attachment> {
    let segment = &copy.segment;
    let attachment = Attachment::new(segment.stat.shmid, Access::ReadOnly, segment.swapped_bytes)
        .map_err(|error| gone_or_failed(copy, "shmat", error))?;
    if attachment.size_bytes() != segment.stat.size_bytes {
        return Err(changed(copy, &format!("it has {} bytes, expected {}", attachment.size_bytes(), segment.stat.size_bytes)));
    }
    Ok(attachment)
}

fn changed(copy: &Copy, what: &str) -> Error {
    Error::new(
        Code::SegmentChanged,
        format!("segment {} changed while it was copied: {what}", copy.segment.key()),
        "make sure that the server stays stopped during a backup, then run it again",
    )
}

/// A call on a segment has failed: because it is gone, or otherwise.
fn gone_or_failed(copy: &Copy, call: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::Unsupported {
        let (key, shmid) = (copy.segment.key(), copy.segment.stat.shmid);
        return Error::new(
            Code::SegmentInvalid,
            format!("segment {key} (shmid {shmid}) cannot be copied: {error}"),
            "no server that is known makes such a segment: leave it, or find out who made it (ipcs -m -p)",
        );
    }
    if sysv::is_gone(&error) { changed(copy, "it is gone") } else { Error::io(call, copy.segment.key(), error) }
}

/// Fails if another process has attached or detached a segment since this one did: it may have written to it, though it is
/// gone again. Checked before every attach and detach of ours and once at the end, so no other process is missed, whatever
/// PID namespace it is in. To be called only when this process has attached the segment once.
///
/// Segments with a header are judged by that, see [`look_again`]: a list that another asmt makes looks into it.
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

/// After copying: the segment must be the same one, unchanged, with nobody attached, and its header as it was: a server
/// that has run since has made base anew, and stored another random in every stripe.
fn look_again(copy: &Copy) -> Result<()> {
    let before = &copy.segment.stat;
    let now = sysv::stat(before.shmid).map_err(|error| gone_or_failed(copy, "shmctl(IPC_STAT)", error))?;
    if now.attached_count > 0 {
        return Err(changed(copy, &format!("it is attached {} times, expected 0", now.attached_count)));
    }
    if now != *before {
        return Err(changed(copy, "its key, size, owner, mode or change time is another"));
    }
    check_untouched(copy)?;
    if crate::look::segments::header_again(&copy.segment)? != copy.segment.header {
        return Err(changed(copy, "its header is another"));
    }
    Ok(())
}

/// Fails if pages of a segment were swapped out while its holes were told by what is resident: data may have passed for a
/// hole. What was swapped out then still is: nobody has it attached, and what passed for a hole was not read.
fn check_resident(by_residency: &[&Segment], swapped: &HashSet<i32>) -> Result<()> {
    by_residency.iter().find(|segment| swapped.contains(&segment.stat.shmid)).map_or(Ok(()), |segment| {
        Err(Error::new(
            Code::SegmentSwapped,
            format!("memory of segment {} was swapped out while it was copied, and cannot be told from holes", segment.key()),
            "run it again: what is swapped out by then is read whole; with CAP_CHECKPOINT_RESTORE (as root) holes are told from it",
        ))
    })
}

/// Holes smaller than this are reserved with the data around them: the number of calls stays bounded.
const MERGED_GAP_BYTES: u64 = 256 << 10;

/// Finds holes, makes the files and reserves their space: for compressed ones as much as they can need at worst. Gives the
/// jobs in the order of `copies`, and how many bytes were reserved.
fn reserve<'p>(
    temporaries: &Temporaries<'_>,
    run: &RunId,
    copies: &[&'p Copy],
    options: Options,
    control: &Control,
) -> Result<(Vec<Job<'p>>, u64)> {
    control.begin(Phase::Reserve, copies.iter().map(|copy| copy.segment.stat.size_bytes).sum());
    let jobs: Vec<Mutex<Option<Job<'p>>>> = copies.iter().map(|_| Mutex::new(None)).collect();
    let reserved_bytes = AtomicU64::new(0);
    Pool::run(
        control,
        options.threads,
        copies.len() as u64,
        || (),
        |_, (), unit| {
            let index = usize::try_from(unit).unwrap_or(usize::MAX);
            let (job, reserved) = reserve_one(temporaries, run, copies[index], control)
                .map_err(|error| no_room(error, temporaries.store(), copies, control))?;
            reserved_bytes.fetch_add(reserved, Ordering::Relaxed);
            *lock(&jobs[index]) = Some(job);
            Ok(())
        },
    )?;
    let jobs = jobs.into_iter().filter_map(|job| job.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let (jobs, reserved_bytes) = (jobs.collect::<Vec<_>>(), reserved_bytes.into_inner());
    control.note("reserved", format!("reserved {reserved_bytes} bytes for {} files", jobs.len()));
    Ok((jobs, reserved_bytes))
}

/// Gives the job, and how many bytes were reserved for it.
fn reserve_one<'p>(temporaries: &Temporaries<'_>, run: &RunId, copy: &'p Copy, control: &Control) -> Result<(Job<'p>, u64)> {
    let size_bytes = copy.segment.stat.size_bytes;
    let chunk_bytes = chunk_bytes_for(size_bytes);
    let attachment = attach(copy)?;
    let file = temporaries.create(run, &copy.file_name())?;
    let (mut is_reserved, mut reserved_bytes) = (true, 0);
    let mut reserve = |range: std::ops::Range<u64>| {
        if is_reserved {
            let length = range.end - range.start;
            is_reserved = file.reserve(range.start, length)?;
            reserved_bytes += if is_reserved { length } else { 0 };
        }
        Ok(())
    };
    let zero_chunks = match copy.encoding {
        Encoding::Raw => survey(copy.segment.key(), &attachment, chunk_bytes, &mut reserve)?,
        Encoding::Gzip => {
            let zero_chunks = survey(copy.segment.key(), &attachment, chunk_bytes, &mut |_| Ok(()))?;
            reserve(0..worst_compressed_bytes(size_bytes, chunk_bytes, &zero_chunks))?;
            zero_chunks
        }
    };
    if !is_reserved {
        control.note("not-reserved", format!("{}: the file system cannot reserve space", file.name()));
    }
    control.add_done(size_bytes);
    let count = chunk_count(size_bytes, chunk_bytes);
    let spans = Spans::new(count, chunk_bytes, &zero_chunks);
    let job = Job {
        copy,
        temporary: file.temporary().to_owned(),
        chunk_bytes,
        zero_chunks,
        data_bytes: AtomicU64::new(0),
        is_by_residency: AtomicBool::new(attachment.tells_holes_by_residency()),
        data_found: attachment.data_found(),
        in_work: InWork::new(spans.count()),
        spans,
        chunks: Mutex::new(vec![Chunk { offset: 0, length: 0, crc32: 0 }; usize::try_from(count).unwrap_or(usize::MAX)]),
        finished: Mutex::new(None),
    };
    Ok((job, reserved_bytes))
}

/// Says how much room there is and how much is needed, where that is what was wrong.
fn no_room(error: Error, store: &Store, copies: &[&Copy], control: &Control) -> Error {
    if error.first().code != Code::DiskFull {
        return error;
    }
    let needed: u64 = copies
        .iter()
        .map(|copy| copy.segment.resident_bytes.unwrap_or(copy.segment.stat.size_bytes) + copy.segment.swapped_bytes)
        .sum();
    let free = store.free_bytes().ok().flatten().map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
    control.note("no-room", format!("{needed} bytes needed, {free} free with what was reserved so far"));
    Error::new(
        Code::DiskFull,
        format!(
            "no room in {}: about {needed} bytes are needed for all files, and {free} were left when the reservation failed; {}",
            store.path().display(),
            error.first().message
        ),
        format!("{}; nothing was copied", crate::hints::NO_ROOM),
    )
}

/// Walks over the data of a segment without touching its holes. Calls `on_data` for each range of data, those that lie
/// close together as one, and gives the runs of chunks with no data in them: first, count.
fn survey(
    key: Key,
    attachment: &Attachment,
    chunk_bytes: u32,
    on_data: &mut dyn FnMut(std::ops::Range<u64>) -> Result<()>,
) -> Result<Vec<(u64, u64)>> {
    let size_bytes = attachment.size_bytes();
    let mut zero_runs = Vec::new();
    let (mut position, mut next_chunk) = (0, 0);
    let mut pending: Option<std::ops::Range<u64>> = None;
    loop {
        let data = attachment.next_data(position, size_bytes).map_err(|error| Error::io("lseek", key, error))?;
        let data_chunk = data.as_ref().map_or(chunk_count(size_bytes, chunk_bytes), |data| data.start / u64::from(chunk_bytes));
        if data_chunk > next_chunk {
            zero_runs.push((next_chunk, data_chunk - next_chunk));
        }
        let Some(data) = data else { break };
        next_chunk = next_chunk.max(data.end.div_ceil(u64::from(chunk_bytes)));
        position = data.end;
        pending = match pending {
            Some(last) if data.start - last.end < MERGED_GAP_BYTES => Some(last.start..data.end),
            Some(last) => {
                on_data(last)?;
                Some(data)
            }
            None => Some(data),
        };
    }
    pending.map_or(Ok(()), on_data)?;
    Ok(zero_runs)
}

/// How much a compressed file needs at worst; a chunk of zeros deflates to about a thousandth, and is counted with a
/// hundredth.
fn worst_compressed_bytes(size_bytes: u64, chunk_bytes: u32, zero_chunks: &[(u64, u64)]) -> u64 {
    let zero_bytes = zero_bytes(size_bytes, chunk_bytes, zero_chunks);
    max_file_bytes(size_bytes, chunk_bytes) - zero_bytes + zero_bytes / 100
}

/// Copies every chunk. Gives the number of bytes that were data.
fn copy_all(store: &Store, jobs: &[Job<'_>], options: Options, control: &Control) -> Result<u64> {
    let units = Units::new(jobs.iter().map(|job| job.spans.count()));
    control.begin(Phase::Copy, jobs.iter().map(|job| job.copy.segment.stat.size_bytes).sum());
    let unsynced = Unsynced::default();
    let worker = || Worker {
        encoder: encode::encoder(),
        encoded: Buffer::default(),
        gathered: Vec::new(),
        zeros: None,
        repeated: Buffer::default(),
    };
    Pool::run(control, options.threads, units.count(), worker, |pool, worker, unit| {
        let (job_index, unit) = units.locate(unit);
        let job = &jobs[job_index];
        let open = job.in_work.enter(|| open(store, job))?;
        copy_span(job, &open, pool, worker, unit, control)?;
        match job.in_work.leave(open) {
            Some(open) => unsynced.add(finish(job, open, control)?),
            None => Ok(()),
        }
    })?;
    unsynced.sync()?;
    Ok(jobs.iter().map(|job| job.data_bytes.load(Ordering::Relaxed)).sum())
}

/// Copies what a worker takes at once: a chunk, or a run of chunks that had no data when space was reserved.
fn copy_span(job: &Job<'_>, open: &Open, pool: &Pool<'_>, worker: &mut Worker, unit: u64, control: &Control) -> Result<()> {
    let span = job.spans.get(unit);
    let range_of = |chunk: u64| chunk_range(open.attachment.size_bytes(), job.chunk_bytes, chunk);
    let whole = range_of(span.chunks.start).start..range_of(span.chunks.end - 1).end;
    let no_data = |error| Error::io("lseek", job.copy.segment.key(), error);
    let is_zero = span.is_zero && open.attachment.next_data(whole.start, whole.end).map_err(no_data)?.is_none();
    let kind = chunk_kind(job.copy.segment.address.segment_type);
    let ranges: Vec<std::ops::Range<u64>> = span.chunks.clone().map(range_of).collect();
    let mut chunks = Vec::with_capacity(ranges.len());
    if is_zero && job.copy.encoding == Encoding::Gzip {
        chunks = copy_zeros(open, pool, worker, kind, unit, &ranges)?;
    } else {
        for range in &ranges {
            let data = if is_zero { Vec::new() } else { data_ranges(&open.attachment, range).map_err(no_data)? };
            job.data_bytes.fetch_add(data.iter().map(|part| part.end - part.start).sum(), Ordering::Relaxed);
            let turn = if range.end == whole.end { Turn::Passed } else { Turn::Kept };
            chunks.push(match job.copy.encoding {
                Encoding::Raw => copy_plain(open, range, &data)?,
                Encoding::Gzip => copy_compressed(open, pool, worker, kind, (unit, turn), range, &data)?,
            });
        }
    }
    let first = usize::try_from(span.chunks.start).unwrap_or(usize::MAX);
    lock(&job.chunks)[first..first + chunks.len()].copy_from_slice(&chunks);
    control.add_done(whole.end - whole.start);
    Ok(())
}

/// The data in a range, hole after hole.
pub fn data_ranges(attachment: &Attachment, range: &std::ops::Range<u64>) -> std::io::Result<Vec<std::ops::Range<u64>>> {
    let mut found = Vec::new();
    let mut position = range.start;
    while let Some(data) = attachment.next_data(position, range.end)? {
        position = data.end;
        found.push(data);
    }
    Ok(found)
}

fn copy_plain(open: &Open, range: &std::ops::Range<u64>, data: &[std::ops::Range<u64>]) -> Result<Chunk> {
    let mut sum = RangeSum::new(range);
    for part in data {
        let bytes = open.attachment.bytes(part.clone());
        sum.add(part.start, bytes);
        open.file.write(part.start, bytes)?;
    }
    Ok(Chunk { offset: range.start, length: length_of(range), crc32: sum.finish() })
}

fn length_of(range: &std::ops::Range<u64>) -> u32 {
    u32::try_from(range.end - range.start).expect("a chunk is at most 16 MiB")
}

fn copy_compressed(
    open: &Open,
    pool: &Pool<'_>,
    worker: &mut Worker,
    kind: ChunkKind,
    (unit, turn): (u64, Turn),
    range: &std::ops::Range<u64>,
    data: &[std::ops::Range<u64>],
) -> Result<Chunk> {
    let (length, crc32) = encode_chunk(open, worker, kind, range, data);
    let offset = open.places.place(pool, unit, length as u64, turn)?;
    open.file.write(offset, worker.encoded.aligned(length))?;
    Ok(Chunk { offset, length: encoded_length(length), crc32 })
}

fn encoded_length(length: usize) -> u32 {
    u32::try_from(length).expect("a chunk grows by headers alone")
}

/// Most bytes that are written at once of chunks of zeros.
const ZEROS_WRITE_BYTES: usize = 1 << 20;

/// Copies chunks that have no data, one behind the other. They are all alike, but for the length of a segment's last one:
/// encoded once, and written many at a time.
fn copy_zeros(
    open: &Open,
    pool: &Pool<'_>,
    worker: &mut Worker,
    kind: ChunkKind,
    unit: u64,
    ranges: &[std::ops::Range<u64>],
) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::with_capacity(ranges.len());
    let groups: Vec<_> = ranges.chunk_by(|one, other| length_of(one) == length_of(other)).collect();
    for (index, alike) in groups.iter().enumerate() {
        let (length, crc32) = encode_chunk(open, worker, kind, &alike[0], &[]);
        let turn = if index + 1 == groups.len() { Turn::Passed } else { Turn::Kept };
        let mut offset = open.places.place(pool, unit, (length * alike.len()) as u64, turn)?;
        let most = (ZEROS_WRITE_BYTES / length).clamp(1, alike.len());
        let repeated = worker.repeated.aligned(most * length);
        repeated.chunks_exact_mut(length).for_each(|one| one.copy_from_slice(worker.encoded.aligned(length)));
        for some in alike.chunks(most) {
            open.file.write(offset, &repeated[..some.len() * length])?;
            chunks.extend((0..some.len() as u64).map(|number| Chunk {
                offset: offset + number * length as u64,
                length: encoded_length(length),
                crc32,
            }));
            offset += (some.len() * length) as u64;
        }
    }
    Ok(chunks)
}

/// Encodes a chunk to the beginning of the worker's buffer. Gives the bytes there, whole sectors, and the chunk's CRC-32.
fn encode_chunk(
    open: &Open,
    worker: &mut Worker,
    kind: ChunkKind,
    range: &std::ops::Range<u64>,
    data: &[std::ops::Range<u64>],
) -> (usize, u32) {
    let chunk_bytes = length_of(range) as usize;
    // One chunk of zeros is like the other: encoded once.
    let is_known = |zeros: &&(ChunkKind, usize, Vec<u8>)| data.is_empty() && (zeros.0, zeros.1) == (kind, chunk_bytes);
    if let Some((_, _, zeros)) = worker.zeros.as_ref().filter(is_known) {
        worker.encoded.aligned(zeros.len()).copy_from_slice(zeros);
        return (zeros.len(), crc::of_zeros(chunk_bytes as u64));
    }
    let bytes = if data == std::slice::from_ref(range) {
        open.attachment.bytes(range.clone())
    } else {
        // The encoder needs the chunk in one piece, and its holes must not be touched where they are.
        worker.gathered.clear();
        worker.gathered.resize(chunk_bytes, 0);
        for part in data {
            let at = (part.start - range.start) as usize;
            let bytes = open.attachment.bytes(part.clone());
            worker.gathered[at..at + bytes.len()].copy_from_slice(bytes);
        }
        &worker.gathered
    };
    let crc32 = if data.is_empty() { crc::of_zeros(bytes.len() as u64) } else { crc::of(bytes) };
    let room = encode::max_encoded_bytes(bytes.len() as u64) + 2 * SECTOR_BYTES;
    let encoded = worker.encoded.aligned(usize::try_from(room).unwrap_or(usize::MAX));
    let made = worker.encoder.encode(bytes, kind, encoded);
    let length = encode::pad_to_multiple(encoded, made, SECTOR_BYTES as usize);
    if data.is_empty() {
        worker.zeros = Some((kind, chunk_bytes, encoded[..length].to_vec()));
    }
    (length, crc32)
}

/// The last chunk is done: completes the file. Gives it to be made durable.
fn finish(job: &Job<'_>, open: Open, control: &Control) -> Result<StagedFile> {
    check_untouched(job.copy)?;
    let stat = &job.copy.segment.stat;
    let crc32 = combined_crc32(stat.size_bytes, job.chunk_bytes, lock(&job.chunks).iter().map(|chunk| chunk.crc32));
    let file = open.file;
    let file_bytes = match job.copy.encoding {
        Encoding::Raw => stat.size_bytes,
        Encoding::Gzip => {
            let end = open.places.end();
            let tail = gzip_tail(stat.size_bytes, crc32);
            file.write(end, &tail)?;
            let mut front = Buffer::default();
            let front = front.aligned(SECTOR_BYTES as usize);
            front.copy_from_slice(&gzip_front(stat.size_bytes, crc32));
            file.write(0, front)?;
            end + tail.len() as u64
        }
    };
    let inode = file.finish(file_bytes, Some((stat.uid, stat.gid)))?;
    *lock(&job.finished) = Some((inode, file_bytes));
    control.note("wrote", format!("wrote {}: {file_bytes} bytes of {}, crc32 {crc32:08x}", file.name(), stat.size_bytes));
    Ok(file)
}

/// What stands in front of the first chunk: ASMT's header, that of the gzip member, and empty blocks.
pub fn gzip_front(size_bytes: u64, crc32: u32) -> [u8; SECTOR_BYTES as usize] {
    let mut front = [0; SECTOR_BYTES as usize];
    let (headers, blocks) = front.split_at_mut(BEFORE_STREAM_BYTES);
    headers.copy_from_slice(&[&AsmtHeader { size_bytes, crc32 }.to_bytes()[..], &GZIP_HEADER].concat());
    encode::fill_with_empty_blocks(blocks);
    front
}

/// What stands behind the last chunk: the end of the deflate stream, CRC-32, and length mod 2^32.
pub fn gzip_tail(size_bytes: u64, crc32: u32) -> Vec<u8> {
    let length = (size_bytes & 0xffff_ffff) as u32;
    [&DEFLATE_END[..], &crc32.to_le_bytes(), &length.to_le_bytes()].concat()
}

fn manifest_of(namespace: &NamespaceBackup, jobs: &[Job<'_>], origin: &Origin) -> Result<Manifest> {
    let by_key: HashMap<Key, &Job<'_>> = jobs.iter().map(|job| (job.copy.segment.key(), job)).collect();
    let segments = namespace.copies.iter().map(|copy| {
        let job = by_key[&copy.segment.key()];
        let stat = &copy.segment.stat;
        let (_, file_bytes) =
            lock(&job.finished).ok_or_else(|| Error::new(Code::Bug, format!("{} was not finished", copy.file_name()), ""))?;
        let chunks = std::mem::take(&mut *lock(&job.chunks));
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
            crc32: combined_crc32(stat.size_bytes, job.chunk_bytes, chunks.iter().map(|chunk| chunk.crc32)),
            chunk_bytes: job.chunk_bytes,
            chunks,
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
        noted: Surroundings {
            machine_id: origin.host.machine_id.clone(),
            devices: origin.devices.get(&namespace.name).cloned().unwrap_or_default(),
            stripes: namespace.copies.iter().filter_map(noted_stripe).collect(),
            // Noted last of all, by [`Staged::note_traces`].
            traces: Vec::new(),
            ipc_namespace: Some(origin.host.ipc_namespace.clone()),
            monotonic_ms: Some(origin.host.monotonic_ms),
            configuration: origin.configuration.clone(),
            earlier_uses: origin.earlier_uses.clone(),
            shmids: namespace.copies.iter().map(|copy| copy.segment.stat.shmid).collect(),
            settings: origin.settings.get(&namespace.name).cloned().unwrap_or_default(),
        },
        segments: segments.collect::<Result<_>>()?,
    })
}

/// What is left of runs of chunks (first, count), without those that have another CRC-32 than zeros.
fn runs_of_zeros(size_bytes: u64, chunk_bytes: u32, runs: &[(u64, u64)], chunks: &[Chunk]) -> Vec<(u64, u64)> {
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

fn noted_stripe(copy: &Copy) -> Option<Noted> {
    let Header::Stripe(stripe) = &copy.segment.header else { return None };
    Some(Noted {
        what: copy.segment.key().to_string(),
        random: stripe.random,
        is_trusted: stripe.is_trusted(),
        ..Noted::default()
    })
}

/// A staged file as something to read and check.
fn staged_source(segment: &ManifestSegment, jobs: &[Job<'_>]) -> Source {
    let job = jobs.iter().find(|job| job.copy.segment.key() == segment.key);
    Source {
        key: segment.key,
        address: segment.address,
        size_bytes: segment.size_bytes,
        uid: segment.uid,
        gid: segment.gid,
        mode: segment.mode,
        file: job.map_or_else(|| segment.file_name(), |job| job.temporary.clone()),
        file_bytes: segment.file_bytes,
        encoding: segment.encoding,
        contents: Contents::Chunks(segment.clone()),
        allocated_bytes: 0,
        least_memory_bytes: 0,
        most_memory_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::memory::Creator;

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
