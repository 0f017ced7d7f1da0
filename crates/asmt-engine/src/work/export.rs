//! Writing a backup anew, in another form: from files to files, without shared memory.
//!
//! Promise: every chunk is checked before it is written, and what is written adds up to the same
//! segment. Nothing has a name that a reader takes for a backup before [`crate::work::commit`]
//! gives it one. Must never: change the backup that is read.

use crate::error::{Code, Error, NoteCode, Result};
use crate::format::{Encoding, FIRST_CHUNK_OFFSET, Form, Manifest, ManifestSegment, Spans, chunk_range, length_of};
use crate::plan::{NamespaceRestore, Source};
use crate::progress::{Control, Phase};
use crate::store::{Buffer, InputFile, OutputFile, Store};
use crate::work::copy_out::{Unpublished, UnpublishedFile, UnpublishedNamespace, Unsynced};
use crate::work::encoding::{ChunkForm, ChunkWriter, Encoder, write_around};
use crate::work::job::{Options, Temporaries, lock};
use crate::work::pages;
use crate::work::pool::{InWork, Places, Pool, Turn, Units};
use crate::work::read::{self, Reading, Scratch, Sink};
use crate::work::read_all;
use crate::work::written::{Sums, Written};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A namespace to write anew: what was planned for reading it, and its manifest.
pub struct Original<'p> {
    /// Its files.
    pub plan: &'p NamespaceRestore,
    /// Its manifest.
    pub manifest: &'p Manifest,
    /// Files that a killed export had committed of it, and that this one replaces.
    pub superseded: Vec<String>,
}

/// A segment on its way from one file to another.
struct Job<'p> {
    source: &'p Source,
    segment: &'p ManifestSegment,
    encoding: Encoding,
    temporary: String,
    spans: Spans,
    in_work: InWork<Open>,
    chunks: Mutex<Vec<Written>>,
    is_read_back: AtomicBool,
    /// Inode and size of the finished file.
    finished: Mutex<Option<(u64, u64)>>,
}

/// What is open while a segment is in work.
struct Open {
    input: InputFile,
    output: OutputFile,
    places: Places,
}

/// What a worker keeps to itself.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    encoder: Encoder,
    chunk: Buffer,
}

/// A chunk as it comes out of its file.
struct Gathering<'g> {
    start: u64,
    bytes: &'g mut [u8],
}

impl Sink for Gathering<'_> {
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<u64> {
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        read::Nowhere.take(offset, bytes)
    }
}

/// Writes namespaces of a directory to staged files of another one.
///
/// Errors: `content-damaged` and the like of what is read; `disk-full`; failed calls. Nothing is
/// left behind.
pub fn stage<'s>(
    from: &Store,
    temporaries: Temporaries<'s>,
    (originals, form): (&[Original<'_>], Form),
    options: Options,
    control: &Control,
) -> Result<Unpublished<'s>> {
    match stage_in(from, &temporaries, (originals, form), options, control) {
        Ok((namespaces, data_bytes)) => Ok(Unpublished { namespaces, temporaries, data_bytes, reserved_bytes: 0 }),
        Err(error) => Err(temporaries.clean_up_after(error)),
    }
}

fn stage_in(
    from: &Store,
    temporaries: &Temporaries<'_>,
    (originals, form): (&[Original<'_>], Form),
    options: Options,
    control: &Control,
) -> Result<(Vec<UnpublishedNamespace>, u64)> {
    let store = temporaries.store();
    let sources = || originals.iter().flat_map(|original| &original.plan.sources);
    let owners: BTreeSet<(u32, u32)> = sources().map(|source| (source.uid, source.gid)).collect();
    store.try_abilities(temporaries.run(), &owners.into_iter().collect::<Vec<_>>())?;
    let segments = originals.iter().flat_map(|original| &original.manifest.segments);
    let jobs: Vec<Job<'_>> =
        sources().zip(segments).map(|(source, segment)| job(temporaries, source, segment, form)).collect::<Result<_>>()?;
    let data_bytes = write_all(from, store, &jobs, options, control)?;
    let mut left = jobs.iter();
    let namespaces = originals.iter().map(|original| {
        let (segments, files): (Vec<_>, Vec<_>) =
            left.by_ref().take(original.manifest.segments.len()).map(|job| (job.written(), job.file(store))).unzip();
        let mut manifest = Manifest { segments, ..original.manifest.clone() };
        // That was how long the backup took.
        manifest.noted.run = None;
        UnpublishedNamespace { superseded: original.superseded.clone(), is_replacing: false, manifest, files }
    });
    let namespaces: Vec<UnpublishedNamespace> = namespaces.collect();
    if options.check {
        let staged = namespaces.iter().flat_map(|namespace| namespace.manifest.segments.iter().zip(&namespace.files));
        let sources: Vec<Source> = staged.map(|(segment, file)| Source::of_segment(segment, file.temporary.clone())).collect();
        let is_read_back = |job: &&Job<'_>| job.is_read_back.load(Ordering::Relaxed);
        let read_back = jobs.iter().filter(is_read_back).map(|job| job.source.key).collect();
        read_all::compare_with_disk(store, &sources, &read_back, options.threads, control)?;
    }
    Ok((namespaces, data_bytes))
}

fn job<'p>(temporaries: &Temporaries<'_>, source: &'p Source, segment: &'p ManifestSegment, form: Form) -> Result<Job<'p>> {
    // What was written plain in a compressed backup is mostly holes.
    let is_compressible = segment.address.segment_type.may_be_compressed()
        && (!segment.encoding.is_plain() || form == Form::Gzip && !is_mostly_holes(segment));
    let encoding = form.encoding(is_compressible);
    let file = temporaries.create(&crate::format::file_name(segment.key, encoding))?;
    let spans = read::spans_of(source);
    Ok(Job {
        source,
        segment,
        encoding,
        temporary: file.temporary().to_owned(),
        in_work: InWork::new(spans.count()),
        spans,
        chunks: Mutex::new(vec![Written::NOTHING; segment.chunks.len()]),
        is_read_back: AtomicBool::new(!encoding.is_plain()),
        finished: Mutex::new(None),
    })
}

/// Whether compressed holes would take more than a twentieth of the data, as for a backup.
fn is_mostly_holes(segment: &ManifestSegment) -> bool {
    let data_bytes = segment.data_bytes.unwrap_or_else(|| segment.size_bytes - segment.zero_bytes());
    crate::plan::do_zeros_outweigh(segment.size_bytes - data_bytes.min(segment.size_bytes), data_bytes)
}

/// Writes every chunk. Returns the number of bytes that were data.
fn write_all(from: &Store, to: &Store, jobs: &[Job<'_>], options: Options, control: &Control) -> Result<u64> {
    let units = Units::new(jobs.iter().map(|job| job.spans.count()));
    control.begin(Phase::Copy, jobs.iter().map(|job| job.segment.size_bytes).sum());
    let unsynced = Unsynced::default();
    let data_bytes = AtomicU64::new(0);
    Pool::run(control, options.threads, units.count(), Worker::default, |pool, worker, unit| {
        let (index, unit) = units.locate(unit);
        let job = &jobs[index];
        let open = job.in_work.enter(|| job.open(from, to))?;
        let (bytes, data) = Writing { job, open: &open, pool, worker, unit, options, control }.write_span()?;
        data_bytes.fetch_add(data, Ordering::Relaxed);
        control.add_done(bytes);
        match job.in_work.leave(open) {
            Some(open) => unsynced.add(job.finish(open, control)?),
            None => Ok(()),
        }
    })?;
    unsynced.sync()?;
    Ok(data_bytes.into_inner())
}

impl Job<'_> {
    fn open(&self, from: &Store, to: &Store) -> Result<Open> {
        let input = read::open(from, self.source, false)?;
        let output = to.reopen(&self.temporary, &crate::format::file_name(self.source.key, self.encoding))?;
        Ok(Open { input, output, places: Places::new(FIRST_CHUNK_OFFSET) })
    }

    fn sums(&self) -> Sums {
        Sums::of(self.segment.size_bytes, self.segment.chunk_bytes, &lock(&self.chunks))
    }

    /// The last chunk is written: completes the file.
    fn finish(&self, open: Open, control: &Control) -> Result<OutputFile> {
        let (sums, file) = (self.sums(), open.output);
        if sums.crc32 != self.segment.crc32 {
            let text = format!("{} was written with CRC-32 {:08x}, expected {:08x}", file.name(), sums.crc32, self.segment.crc32);
            return Err(Error::new(Code::Bug, text, "please report it; nothing was left behind"));
        }
        let file_bytes = write_around(&file, self.encoding, &open.places, &sums)?;
        let inode = file.finish(file_bytes, Some((self.source.uid, self.source.gid)))?;
        *lock(&self.finished) = Some((inode, file_bytes));
        control.note(NoteCode::Wrote, format!("wrote {}: {file_bytes} bytes, crc32 {:08x}", file.name(), sums.crc32));
        Ok(file)
    }

    /// The segment's entry in the new manifest.
    fn written(&self) -> ManifestSegment {
        let (sums, chunks) = (self.sums(), lock(&self.chunks));
        let is_plain = self.encoding.is_plain();
        ManifestSegment {
            encoding: self.encoding,
            file_bytes: lock(&self.finished).map_or(0, |(_, bytes)| bytes),
            chunks: chunks.iter().map(|one| one.chunk).collect(),
            encoded_sums: if is_plain { Vec::new() } else { chunks.iter().map(|one| one.encoded_crc32).collect() },
            columns_content: (self.encoding == Encoding::Columns).then_some(sums.content),
            ..self.segment.clone()
        }
    }

    fn file(&self, store: &Store) -> UnpublishedFile {
        UnpublishedFile {
            key: Some(self.source.key),
            temporary: self.temporary.clone(),
            name: crate::format::file_name(self.source.key, self.encoding),
            inode: lock(&self.finished).map_or(0, |(inode, _)| inode),
            allocated_bytes: store.allocated_bytes(&self.temporary),
        }
    }
}

/// What a worker takes at once: a chunk, or a run of chunks of zeros.
struct Writing<'w, 'p> {
    job: &'w Job<'p>,
    open: &'w Open,
    pool: &'w Pool<'w>,
    worker: &'w mut Worker,
    unit: u64,
    options: Options,
    control: &'w Control,
}

impl Writing<'_, '_> {
    /// Reads it, checks it, and writes it. Returns how many bytes of the segment it is, and how
    /// many of them are data.
    fn write_span(self) -> Result<(u64, u64)> {
        let Self { job, open, pool, worker, unit, options, control } = self;
        let Worker { scratch, encoder, chunk } = worker;
        let segment = job.segment;
        let span = job.spans.get(unit);
        let ranges: Vec<Range<u64>> =
            span.chunks.clone().map(|index| chunk_range(segment.size_bytes, segment.chunk_bytes, index)).collect();
        let whole = read::bytes_of(job.source, &span);
        let is_read_back = options.check.then_some(&job.is_read_back);
        let mut writer = ChunkWriter { file: &open.output, places: &open.places, pool, unit, encoder, is_read_back };
        let form_of = |range: &Range<u64>| ChunkForm::of(job.encoding, segment.address.segment_type, range.start);
        let (file, source) = (&open.input, job.source);
        let (chunks, data_bytes) = if span.is_zero {
            let found = Reading { file, source, scratch, control, sink: &mut read::Nowhere }.read_span(&span)?;
            let plain = |(range, crc32): (&Range<u64>, u32)| Written::plain(range.start, length_of(range), crc32);
            match job.encoding.is_plain() {
                true => (ranges.iter().zip(found.sums).map(plain).collect(), 0),
                false => (writer.write_run(&ranges, form_of)?, 0),
            }
        } else {
            let bytes = chunk.aligned(length_of(&whole) as usize);
            bytes.fill(0);
            let mut sink = Gathering { start: whole.start, bytes };
            let found = Reading { file, source, scratch, control, sink: &mut sink }.read_span(&span)?;
            let (bytes, crc32) = (sink.bytes, found.sums.first().copied().unwrap_or_default());
            let written = match form_of(&whole) {
                ChunkForm::Plain => {
                    // Pages of zeros stay holes.
                    for part in pages::data_in(whole.start, bytes) {
                        open.output.write(whole.start + part.start as u64, &bytes[part])?;
                    }
                    Written::plain(whole.start, length_of(&whole), crc32)
                }
                form if pages::is_zero(bytes) => writer.write_zeros(form, Turn::Passed, bytes.len())?,
                form => writer.write(form, Turn::Passed, bytes, crc32)?,
            };
            (vec![written], found.data_bytes)
        };
        let first = usize::try_from(span.chunks.start).unwrap_or(usize::MAX);
        lock(&job.chunks)[first..first + chunks.len()].copy_from_slice(&chunks);
        Ok((whole.end - whole.start, data_bytes))
    }
}
