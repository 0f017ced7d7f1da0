//! Reading segments out of files, chunk by chunk, checking each as it comes in: for restore, verify and `-c`.
//!
//! Promise: what is handed on has passed its check where there is one; a gzip member is read to its last byte, and its
//! CRC-32, its length and the segment's size all agree; a decompression bomb stops at the segment's size.
//! Must never: hand on bytes before they are checked, or believe a length in a file.

use crate::checksum::{self, RangeSum};
use crate::codec::{ChunkDecoder, MemberDecoder};
use crate::error::{Code, Error, Problem, Result};
use crate::format::{
    ASMT_HEADER_BYTES, DEFLATE_END, GZIP_HEADER, GZIP_TRAILER_BYTES, ManifestSegment, chunk_bytes_for, chunk_count, chunk_range,
};
use crate::plan::{Contents, Source, work_units};
use crate::pool::{InWork, Pool, Units};
use crate::progress::{Control, Phase};
use crate::segment::{Encoding, Key};
use crate::store::{Buffer, InFile, Store, published_name};
use crate::sysv::Attachment;
use crate::transfer::{gzip_front, gzip_tail};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes read at once of a stream that has no chunk table.
const STREAM_READ_BYTES: u64 = 1 << 20;

/// What a worker keeps to itself.
#[derive(Default)]
pub struct Scratch {
    file: Buffer,
    decoded: Vec<u8>,
    decoder: ChunkDecoder,
}

/// Where the bytes of a segment go, in any order.
pub trait Sink {
    /// Takes checked bytes: their offset in the segment, and the bytes.
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// The segment itself, if this chunk of it may be read into its place before it is checked: only where nobody trusts
    /// it yet. Otherwise it is read elsewhere, and then taken.
    fn place(&self, _chunk: &Range<u64>) -> Option<&Attachment> {
        None
    }

    /// So many bytes came into their place.
    fn placed(&self, _bytes: u64) {}
}

/// For bytes that are only to be checked.
struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Damage in a file, at an offset: of which segment, and what is wrong.
fn damaged(file: &InFile, source: &Source, offset: u64, text: &str) -> Error {
    let message = format!("{} at {offset} (segment {}): {text}", file.shown(), source.key);
    let hint =
        "the backup is damaged: use another one, or let the node cold-start, which empties a namespace that is in memory only";
    Problem::new(Code::ContentDamaged, message, hint).in_file(published_name(&source.file)).at(offset).into()
}

/// Bytes of a chunk of a source.
pub fn chunk_bytes_of(source: &Source) -> u32 {
    match &source.contents {
        Contents::Chunks(segment) => segment.chunk_bytes,
        Contents::Plain | Contents::Stream { .. } => chunk_bytes_for(source.size_bytes),
    }
}

/// Opens a source's file, and checks what is around its chunks.
pub fn open(store: &Store, source: &Source, from_disk: bool) -> Result<InFile> {
    let file = store.read(&source.file, source.file_bytes, from_disk)?;
    if let (Contents::Chunks(segment), Encoding::Gzip) = (&source.contents, source.encoding) {
        let mut buffer = Buffer::default();
        let front = gzip_front(segment.size_bytes, segment.crc32);
        if file.read(0, front.len(), &mut buffer)? != front {
            return Err(damaged(&file, source, 0, "its header is not that of the manifest"));
        }
        let tail = gzip_tail(segment.size_bytes, segment.crc32);
        let offset = segment.file_bytes - tail.len() as u64;
        if file.read(offset, tail.len(), &mut buffer)? != tail {
            return Err(damaged(&file, source, offset, "its end is not that of the manifest"));
        }
    }
    Ok(file)
}

/// Reads one unit of a source (a chunk; all of a stream), checks it, and hands it on. Gives the CRC-32 of each chunk
/// read, from the unit's first on.
pub fn read_unit(
    file: &InFile,
    source: &Source,
    unit: u64,
    scratch: &mut Scratch,
    control: &Control,
    sink: &mut dyn Sink,
) -> Result<Vec<u32>> {
    match &source.contents {
        Contents::Chunks(segment) => match segment.encoding {
            Encoding::Raw => {
                let expected = segment.chunks[usize::try_from(unit).unwrap_or(usize::MAX)].crc32;
                read_plain(file, source, segment.chunk_bytes, unit, Some(expected), scratch, sink).map(|crc32| vec![crc32])
            }
            Encoding::Gzip => read_compressed(file, source, segment, unit, scratch, sink).map(|crc32| vec![crc32]),
        },
        Contents::Plain => read_plain(file, source, chunk_bytes_of(source), unit, None, scratch, sink).map(|crc32| vec![crc32]),
        Contents::Stream { crc32 } => read_stream(file, source, *crc32, scratch, control, sink),
    }
}

fn read_plain(
    file: &InFile,
    source: &Source,
    chunk_bytes: u32,
    unit: u64,
    expected: Option<u32>,
    scratch: &mut Scratch,
    sink: &mut dyn Sink,
) -> Result<u32> {
    let range = chunk_range(source.size_bytes, chunk_bytes, unit);
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let whole = std::slice::from_ref(&range);
    let parts = data_ranges(file, &range)?;
    // Without anything to check it against the file is another tool's, with zeros for holes, which are to stay holes.
    if let Some(attachment) = sink.place(&range).filter(|_| expected.is_some()) {
        let mut sum = RangeSum::new(&range);
        for part in parts {
            let mut memory = attachment.exclusive(part.clone());
            file.read_into(part.start, &mut memory)?;
            sum.add(part.start, &memory);
            sink.placed(part.end - part.start);
        }
        let crc32 = sum.finish();
        check_crc(file, source, range.start, expected, crc32)?;
        return Ok(crc32);
    }
    if parts.is_empty() {
        // Nothing to read, nor to gather: a file of holes alone takes no longer than its chunks are many.
        let crc32 = RangeSum::new(&range).finish();
        check_crc(file, source, range.start, expected, crc32)?;
        return Ok(crc32);
    }
    if parts == whole {
        let bytes = file.read(range.start, length, &mut scratch.file)?;
        let crc32 = checksum::of(bytes);
        check_crc(file, source, range.start, expected, crc32)?;
        sink.take(range.start, bytes)?;
        return Ok(crc32);
    }
    // With holes: gathered first, so that nothing is handed on before all of the chunk is checked.
    scratch.decoded.clear();
    scratch.decoded.resize(length, 0);
    let mut sum = RangeSum::new(&range);
    for part in &parts {
        let bytes = file.read(part.start, usize::try_from(part.end - part.start).unwrap_or(usize::MAX), &mut scratch.file)?;
        sum.add(part.start, bytes);
        let at = (part.start - range.start) as usize;
        scratch.decoded[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let crc32 = sum.finish();
    check_crc(file, source, range.start, expected, crc32)?;
    for part in parts {
        let at = (part.start - range.start) as usize;
        sink.take(part.start, &scratch.decoded[at..at + (part.end - part.start) as usize])?;
    }
    Ok(crc32)
}

fn data_ranges(file: &InFile, range: &Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut position = range.start;
    while let Some(data) = file.next_data(position, range.end)? {
        position = data.end;
        found.push(data);
    }
    Ok(found)
}

fn check_crc(file: &InFile, source: &Source, offset: u64, expected: Option<u32>, found: u32) -> Result<()> {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(damaged(file, source, offset, &format!("CRC-32 {found:08x}, expected {expected:08x}"))),
        None => Ok(()),
    }
}

fn read_compressed(
    file: &InFile,
    source: &Source,
    segment: &ManifestSegment,
    unit: u64,
    scratch: &mut Scratch,
    sink: &mut dyn Sink,
) -> Result<u32> {
    let chunk = segment.chunks[usize::try_from(unit).unwrap_or(usize::MAX)];
    let range = chunk_range(segment.size_bytes, segment.chunk_bytes, unit);
    let encoded = file.read(chunk.offset, chunk.length as usize, &mut scratch.file)?;
    scratch.decoded.resize(usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
    let outcome = scratch.decoder.decode(encoded, &mut scratch.decoded);
    outcome.map_err(|text| damaged(file, source, chunk.offset, &format!("from {} of the segment on {text}", range.start)))?;
    let crc32 = checksum::of(&scratch.decoded);
    check_crc(file, source, chunk.offset, Some(chunk.crc32), crc32)?;
    sink.take(range.start, &scratch.decoded)?;
    Ok(crc32)
}

/// Reads a whole gzip member that has no chunk table. Its check comes at its end, so here bytes are handed on before
/// it: the caller must not trust any before this returns.
fn read_stream(
    file: &InFile,
    source: &Source,
    expected_crc32: u32,
    scratch: &mut Scratch,
    control: &Control,
    sink: &mut dyn Sink,
) -> Result<Vec<u32>> {
    let damaged = |offset: u64, text: &str| damaged(file, source, offset, text);
    let chunk_bytes = chunk_bytes_of(source);
    let start = ASMT_HEADER_BYTES as u64;
    let least = start + (GZIP_HEADER.len() + GZIP_TRAILER_BYTES) as u64;
    if file.file_bytes() < least {
        return Err(damaged(0, &format!("the file has {} bytes, expected at least {least}", file.file_bytes())));
    }
    let header = file.read(start, GZIP_HEADER.len(), &mut scratch.file)?;
    let mut decoder = MemberDecoder::new(header).map_err(|text| damaged(start, &text))?;
    let mut input_offset = start + GZIP_HEADER.len() as u64;
    let stream_end = file.file_bytes() - GZIP_TRAILER_BYTES as u64;
    let mut sums = Vec::new();
    let mut is_end = false;
    let mut chunk_index = 0;
    let count = chunk_count(source.size_bytes, chunk_bytes);
    let mut made = 0;
    let mut range = chunk_range(source.size_bytes, chunk_bytes, 0);
    scratch.decoded.resize((range.end - range.start) as usize, 0);
    while !is_end {
        control.check_stop()?;
        let length = (stream_end - input_offset).min(STREAM_READ_BYTES) as usize;
        if length == 0 {
            return Err(damaged(input_offset, "the stream does not end where the file does"));
        }
        let input = file.read(input_offset, length, &mut scratch.file)?;
        let mut used = 0;
        loop {
            // One byte more than the segment has: a stream that fills it too is too long.
            let mut beyond = [0];
            let target = if chunk_index < count { &mut scratch.decoded[made..] } else { &mut beyond[..] };
            let step = decoder.step(&input[used..], target).map_err(|text| damaged(input_offset + used as u64, &text))?;
            used += step.used;
            if chunk_index == count && step.made > 0 {
                let text = format!("the stream goes on past the segment's {} bytes", source.size_bytes);
                return Err(damaged(input_offset + used as u64, &text));
            }
            made += step.made;
            if chunk_index < count && made == scratch.decoded.len() {
                sums.push(checksum::of(&scratch.decoded));
                sink.take(range.start, &scratch.decoded)?;
                control.add_done(made as u64);
                chunk_index += 1;
                made = 0;
                if chunk_index < count {
                    range = chunk_range(source.size_bytes, chunk_bytes, chunk_index);
                    scratch.decoded.resize((range.end - range.start) as usize, 0);
                }
            }
            is_end = step.is_end;
            if is_end || step.used + step.made == 0 {
                break;
            }
        }
        if used == 0 && !is_end {
            return Err(damaged(input_offset, "the stream does not go on"));
        }
        input_offset += used as u64;
    }
    if chunk_index < count {
        let found = u64::from(chunk_bytes) * chunk_index + made as u64;
        let text = format!("the stream ends after {found} bytes of the segment, expected {}", source.size_bytes);
        return Err(damaged(input_offset, &text));
    }
    if input_offset != stream_end {
        return Err(damaged(input_offset, &format!("the stream ends here, expected at {stream_end}")));
    }
    let found = checksum::combine(source.size_bytes, chunk_bytes, sums.iter().copied());
    let trailer = gzip_tail(source.size_bytes, found);
    let trailer = &trailer[DEFLATE_END.len()..];
    if found != expected_crc32 {
        return Err(damaged(0, &format!("CRC-32 {found:08x}, expected {expected_crc32:08x}")));
    }
    if file.read(stream_end, GZIP_TRAILER_BYTES, &mut scratch.file)? != trailer {
        return Err(damaged(stream_end, "the gzip trailer does not match the segment"));
    }
    Ok(sums)
}

/// Number of units of each source.
pub fn units_of(sources: &[Source]) -> Units {
    Units::new(sources.iter().map(work_units))
}

/// Bytes of a segment that a unit covers, as far as progress is counted by unit (a stream counts its own).
pub fn unit_bytes(source: &Source, unit: u64) -> u64 {
    match source.contents {
        Contents::Stream { .. } => 0,
        _ => {
            let range = chunk_range(source.size_bytes, chunk_bytes_of(source), unit);
            range.end - range.start
        }
    }
}

/// Reads staged files back from the disk and compares them with what was copied.
pub fn compare_with_disk(store: &Store, sources: &[Source], threads: usize, control: &Control) -> Result<()> {
    control.begin(Phase::Check, sources.iter().map(|source| source.size_bytes).sum());
    let found = read_all(store, sources, threads, control, true)?;
    if !found.is_from_disk {
        control.note(
            "page-cache",
            "this file system has no direct I/O: files were read back after asking the kernel to drop them from memory",
        );
    }
    Error::from_problems(
        found
            .damages
            .into_iter()
            .map(|problem| Problem {
                kind: Code::CompareFailed.kind(),
                code: Code::CompareFailed,
                message: format!("reading back: {}", problem.message),
                hint: "do not trust this disk: look at the kernel's log, and choose another directory".to_owned(),
                ..problem
            })
            .collect(),
    )
    .map_or(Ok(()), Err)
}

/// What reading everything brought.
pub struct Findings {
    /// All that is damaged or cannot be read, by file and offset; of more than can be listed, how many more.
    pub damages: Vec<Problem>,
    /// CRC-32 of each segment that was read whole.
    pub sums: HashMap<Key, u32>,
    /// Whether all reads went past the page cache, as far as asked.
    pub is_from_disk: bool,
}

/// Most damages listed; a disk that has lost everything would fill the memory.
const MAX_DAMAGES: usize = 1000;

/// Damage as it is found, by workers in any order.
#[derive(Default)]
struct Damages {
    listed: Vec<Problem>,
    /// Keys of segments that were not read whole.
    keys: HashSet<Key>,
    unlisted_count: u64,
}

impl Damages {
    fn add(&mut self, source: &Source, error: Error) {
        self.keys.insert(source.key);
        for problem in error.in_file(published_name(&source.file)).problems() {
            if self.listed.len() < MAX_DAMAGES {
                self.listed.push(problem.clone());
            } else {
                self.unlisted_count += 1;
            }
        }
    }

    /// As people read it: in the order of files and offsets.
    fn sorted(mut self) -> Vec<Problem> {
        self.listed.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        if self.unlisted_count > 0 {
            let message = format!("and {} more places are damaged, which are not listed", self.unlisted_count);
            self.listed.push(Problem::new(Code::ContentDamaged, message, ""));
        }
        self.listed
    }
}

/// Reads every chunk of every source and checks it. What is wrong with one file is collected, and the rest is still read.
pub fn read_all(store: &Store, sources: &[Source], threads: usize, control: &Control, from_disk: bool) -> Result<Findings> {
    let units = units_of(sources);
    let in_work: Vec<InWork<Option<InFile>>> = sources.iter().map(|source| InWork::new(work_units(source))).collect();
    let damages = Mutex::new(Damages::default());
    let is_from_disk = AtomicBool::new(true);
    let sums: Vec<Mutex<Vec<u32>>> = sources.iter().map(|_| Mutex::new(Vec::new())).collect();
    let add = |source: &Source, error| damages.lock().unwrap_or_else(PoisonError::into_inner).add(source, error);
    Pool::run(control, threads, units.count(), Scratch::default, |_, scratch, unit| {
        let (index, unit) = units.locate(unit);
        let source = &sources[index];
        // A file that cannot be opened is reported once, by the worker that tried; its other chunks are passed over.
        let file = in_work[index].enter(|| match open(store, source, from_disk) {
            Err(error) if error.is_of_one_file() => {
                add(source, error);
                Ok(None)
            }
            other => other.map(Some),
        })?;
        if let Some(file) = file.as_ref() {
            match read_unit(file, source, unit, scratch, control, &mut Nowhere) {
                Ok(found) => put_sums(&sums[index], source, unit, &found),
                Err(error) if error.is_of_one_file() => add(source, error),
                Err(error) => return Err(error),
            }
        }
        control.add_done(unit_bytes(source, unit));
        if let Some(Some(file)) = in_work[index].leave(file) {
            is_from_disk.fetch_and(file.is_from_disk(), Ordering::Relaxed);
            control.note("read", format!("read {}", published_name(&source.file)));
        }
        Ok(())
    })?;
    let damages = damages.into_inner().unwrap_or_else(PoisonError::into_inner);
    let whole = sources.iter().zip(sums).filter(|(source, _)| !damages.keys.contains(&source.key));
    let sums = whole.map(|(source, sums)| {
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        (source.key, checksum::combine(source.size_bytes, chunk_bytes_of(source), sums.into_iter()))
    });
    Ok(Findings { sums: sums.collect(), damages: damages.sorted(), is_from_disk: is_from_disk.into_inner() })
}

/// Keeps the CRC-32 of a unit's chunks among those of the segment.
pub fn put_sums(all: &Mutex<Vec<u32>>, source: &Source, unit: u64, found: &[u32]) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.is_empty() {
        all.resize(usize::try_from(chunk_count(source.size_bytes, chunk_bytes_of(source))).unwrap_or(usize::MAX), 0);
    }
    let first = usize::try_from(unit).unwrap_or(usize::MAX);
    all[first..first + found.len()].copy_from_slice(found);
}
