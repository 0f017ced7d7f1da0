//! Reading segments out of files, chunk by chunk, checking each as it comes in: for restore, verify
//! and `-c`.
//!
//! Promise: a read succeeds only if every check that there is has passed; a gzip member is read to
//! its last byte, and its CRC-32, its length and the segment's size all agree; a decompression bomb
//! stops at the segment's size. (Bytes may be in their place before: nothing trusts them yet.) Must
//! never: call bytes good that were not checked, or believe a length in a file.

use crate::error::{Code, Error, Problem, Result};
use crate::format::journal::published_name;
use crate::format::{Chunk, Encoding, ManifestSegment, Span, Spans, chunk_count, chunk_range};
use crate::hints;
use crate::plan::{Contents, Source};
use crate::progress::Control;
use crate::store::{Buffer, InputFile, Store};
use crate::work::job::lock;
use crate::work::pages;
use asmt_codec::columns::ColumnDecoder;
use asmt_codec::crc::{self, RangeSum};
use asmt_codec::decode::ChunkDecoder;
use asmt_shm::sysv::Attachment;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at once of a stream that has no chunk table, of a run of zero chunks, and of a file
/// that has lost its holes.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// What a worker keeps to itself.
#[derive(Default)]
pub struct Scratch {
    pub(super) file: Buffer,
    pub(super) decoded: Vec<u8>,
    decoders: Decoders,
    zeros: Zeros,
}

/// One for each encoding.
#[derive(Default)]
struct Decoders {
    gzip: ChunkDecoder,
    columns: ColumnDecoder,
}

impl Decoders {
    /// Decodes a chunk of a compressed file into exactly `output`. The error says what was found.
    fn decode(&mut self, encoding: Encoding, encoded: &[u8], output: &mut [u8]) -> std::result::Result<(), String> {
        match encoding {
            Encoding::Columns => self.columns.decode(encoded, output),
            _ => self.gzip.decode(encoded, output),
        }
    }
}

/// The chunk that was found last to hold nothing but zeros.
#[derive(Default)]
struct Zeros {
    length: usize,
    crc32: u32,
    /// Its bytes in the file.
    encoded: Vec<u8>,
}

/// How a chunk gets into a segment.
pub enum Delivery<'s> {
    /// It is read straight into its place, before it is checked.
    InPlace(&'s Attachment),
    /// It is taken piece by piece, before it is checked.
    Unchecked,
    /// It is taken when it was checked.
    Checked,
}

/// Where the bytes of a segment go, in any order.
pub trait Sink {
    /// Takes bytes: their offset in the segment, and the bytes. Returns how many of them are data:
    /// not in pages of zeros.
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<u64>;

    /// How it takes this chunk: unchecked only where nobody trusts the segment yet.
    fn way(&self, _chunk: &Range<u64>) -> Delivery<'_> {
        Delivery::Checked
    }
}

/// For bytes that are only to be checked.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<u64> {
        Ok(pages::data_in(offset, bytes).map(|part| part.len() as u64).sum())
    }
}

/// What reading brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// CRC-32 of each chunk, from the first on.
    pub sums: Vec<u32>,
    /// Bytes of data: holes and pages of zeros left out.
    pub data_bytes: u64,
}

/// How much data came out of a source's file so far.
#[derive(Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds some that was found at an offset of the segment.
    ///
    /// Errors: `content-damaged` where it is more than the manifest says, by which the memory was
    /// checked to suffice.
    pub fn add(&self, file: &InputFile, source: &Source, offset: u64, bytes: u64) -> Result<()> {
        let all = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Contents::Chunks(segment) = &source.contents else { return Ok(()) };
        match segment.most_data_bytes().filter(|most| all > *most) {
            Some(_) => {
                let said = segment.data_bytes.unwrap_or_default();
                Err(damaged(file, source, offset, &format!("{all} bytes of data so far, expected {said} in all")))
            }
            None => Ok(()),
        }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Damage in a file, at an offset: of which segment, and what is wrong.
pub(crate) fn damaged(file: &InputFile, source: &Source, offset: u64, text: &str) -> Error {
    let message = format!("{} at {offset} (segment {}): {text}", file.shown(), source.key);
    Problem::new(Code::ContentDamaged, message, hints::DAMAGED).in_file(published_name(&source.file)).at(offset).into()
}

/// Opens a source's file, and checks what is around its chunks.
pub fn open(store: &Store, source: &Source, from_disk: bool) -> Result<InputFile> {
    let file = store.read(&source.file, source.file_bytes, from_disk)?;
    if let (Contents::Chunks(segment), false) = (&source.contents, source.encoding.is_plain()) {
        let mut buffer = Buffer::default();
        let front = segment.front();
        if file.read(0, front.len(), &mut buffer)? != front {
            return Err(damaged(&file, source, 0, "its header does not match the manifest"));
        }
        let tail = segment.tail();
        let offset = segment.file_bytes - tail.len() as u64;
        if file.read(offset, tail.len(), &mut buffer)? != tail {
            return Err(damaged(&file, source, offset, "its end does not match the manifest"));
        }
    }
    Ok(file)
}

/// What workers take of a source at once; a stream is taken as a whole.
pub fn spans_of(source: &Source) -> Spans {
    match &source.contents {
        Contents::Chunks(segment) => Spans::new(segment.chunks.len() as u64, segment.chunk_bytes, &segment.zero_chunks),
        Contents::Plain => {
            let chunk_bytes = source.chunk_bytes();
            Spans::new(chunk_count(source.size_bytes, chunk_bytes), chunk_bytes, &[])
        }
        Contents::Stream { .. } => Spans::new(1, source.chunk_bytes(), &[]),
    }
}

/// The bytes of a segment that a span covers.
pub fn bytes_of(source: &Source, span: &Span) -> Range<u64> {
    let range = |chunk| chunk_range(source.size_bytes, source.chunk_bytes(), chunk);
    range(span.chunks.start).start..range(span.chunks.end - 1).end
}

/// Whether the holes of a segment are still holes of its plain file, as far as the manifest tells:
/// what copies files without knowing of holes makes zeros of them. Where they are not, what is read
/// must not all be stored.
pub fn keeps_holes(file: &InputFile, source: &Source) -> Result<bool> {
    let Contents::Chunks(segment) = &source.contents else { return Ok(false) };
    if !segment.encoding.is_plain() {
        return Ok(false);
    }
    let Some(most) = segment.most_data_bytes() else {
        // Not noted: then the first chunk of zeros stands for all holes.
        let first = segment.zero_chunks.first().map(|(first, _)| chunk_range(segment.size_bytes, segment.chunk_bytes, *first));
        return first.map_or(Ok(true), |first| Ok(file.next_data(first.start, first.end)?.is_none()));
    };
    let (mut position, mut found) = (0, 0);
    while most < segment.size_bytes && found <= most {
        let Some(data) = file.next_data(position, segment.size_bytes)? else { break };
        found += data.end - data.start;
        position = data.end;
    }
    Ok(found <= most)
}

/// A source that is being read: its open file, and where the bytes go.
pub struct Reading<'r> {
    /// Its file.
    pub file: &'r InputFile,
    /// What the plan says of it.
    pub source: &'r Source,
    /// What the worker keeps to itself.
    pub scratch: &'r mut Scratch,
    /// Stops it.
    pub control: &'r Control,
    /// Takes what was read.
    pub sink: &'r mut dyn Sink,
}

/// How much of a file is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every byte, and what it decodes to.
    Decoded,
    /// Every byte, as far as it is known what it must be.
    AsWritten,
    /// What is around the chunks: opening the file has checked that.
    Around,
}

impl Reading<'_> {
    /// Reads a span as deep as asked. A file is decoded where nothing tells its bytes.
    pub fn read_span_to(&mut self, depth: Depth, span: &Span) -> Result<Found> {
        let source = self.source;
        match (&source.contents, depth) {
            (Contents::Chunks(segment), Depth::Around) => Ok(known(segment, span)),
            (Contents::Chunks(segment), Depth::AsWritten) if !segment.encoded_sums.is_empty() => self.read_encoded(segment, span),
            _ => self.read_span(span),
        }
    }

    /// Reads chunks of a compressed file, many at once where they are small, and compares their
    /// bytes with the CRC-32s of what was written.
    fn read_encoded(&mut self, segment: &ManifestSegment, span: &Span) -> Result<Found> {
        let Self { file, source, control, .. } = *self;
        let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX);
        let numbers = index(span.chunks.start)..index(span.chunks.end);
        let mut left: Vec<(&Chunk, u32)> =
            segment.chunks[numbers.clone()].iter().zip(segment.encoded_sums[numbers].iter().copied()).collect();
        while let [(first, _), ..] = left[..] {
            control.check_stop()?;
            let later = left.split_off(count_at_once(left.iter().map(|(chunk, _)| *chunk)));
            let length: usize = left.iter().map(|(chunk, _)| chunk.length as usize).sum();
            let mut read = &*file.read(first.offset, length, &mut self.scratch.file)?;
            for (chunk, expected) in left {
                let own;
                (own, read) = read.split_at(chunk.length as usize);
                check_crc(file, source, chunk.offset, Some(expected), crc::of(own))?;
            }
            left = later;
        }
        Ok(known(segment, span))
    }

    /// Reads a span of the source (all of a stream), checks it, and hands it on.
    pub fn read_span(&mut self, span: &Span) -> Result<Found> {
        let source = self.source;
        match &source.contents {
            Contents::Stream { crc32 } => self.read_stream(*crc32),
            Contents::Chunks(segment) if !segment.encoding.is_plain() && span.is_zero => self.read_zeros(segment, span),
            Contents::Chunks(segment) if !segment.encoding.is_plain() => self.read_compressed(segment, span.chunks.start),
            Contents::Chunks(segment) => {
                let expected = |chunk: u64| segment.chunks.get(usize::try_from(chunk).ok()?).map(|chunk| chunk.crc32);
                self.read_plain(span, &expected)
            }
            Contents::Plain => self.read_plain(span, &|_| None),
        }
    }

    fn read_plain(&mut self, span: &Span, expected: &dyn Fn(u64) -> Option<u32>) -> Result<Found> {
        let Self { file, source, .. } = *self;
        let whole = bytes_of(source, span);
        let are_holes = span.is_zero && file.next_data(whole.start, whole.end)?.is_none();
        let mut all = Found::default();
        // The sum of a chunk of holes, by its length.
        let mut zeros: Option<(u64, u32)> = None;
        for chunk in span.chunks.clone() {
            let range = chunk_range(source.size_bytes, source.chunk_bytes(), chunk);
            let parts = if are_holes { Vec::new() } else { data_ranges(file, &range)? };
            let crc32 = if parts.is_empty() {
                // Nothing to read, nor to gather: a file of holes alone takes no longer than its
                // chunks are many.
                let length = range.end - range.start;
                let known = zeros.filter(|(known, _)| *known == length);
                let (_, crc32) = *zeros.insert(known.unwrap_or_else(|| (length, crc::of_zeros(length))));
                check_crc(file, source, range.start, expected(chunk), crc32)?;
                crc32
            } else {
                self.control.check_stop()?;
                let (crc32, data_bytes) = self.read_parts(&range, &parts, expected(chunk))?;
                if span.is_zero && data_bytes > 0 {
                    return Err(damaged(file, source, range.start, "something other than the zeros listed in the manifest"));
                }
                all.data_bytes += data_bytes;
                crc32
            };
            all.sums.push(crc32);
        }
        Ok(all)
    }

    /// Reads a chunk of a plain file that has data in these parts. Returns its CRC-32, and how many
    /// bytes are data.
    fn read_parts(&mut self, range: &Range<u64>, parts: &[Range<u64>], expected: Option<u32>) -> Result<(u32, u64)> {
        let Self { file, source, .. } = *self;
        let mut sum = RangeSum::new(range);
        let mut data_bytes = 0;
        match self.sink.way(range) {
            Delivery::InPlace(attachment) => {
                for part in parts {
                    let mut memory = attachment.exclusive(part.clone());
                    file.read_into(part.start, &mut memory)?;
                    sum.add(part.start, &memory);
                    data_bytes += part.end - part.start;
                }
            }
            Delivery::Unchecked => {
                for part in parts {
                    let mut start = part.start;
                    while start < part.end {
                        let end = part.end.min((start + 1).next_multiple_of(PIECE_BYTES));
                        let bytes = file.read(start, (end - start) as usize, &mut self.scratch.file)?;
                        sum.add(start, bytes);
                        data_bytes += self.sink.take(start, bytes)?;
                        start = end;
                    }
                }
            }
            Delivery::Checked if parts == std::slice::from_ref(range) => {
                let bytes = file.read(range.start, (range.end - range.start) as usize, &mut self.scratch.file)?;
                sum.add(range.start, bytes);
                let crc32 = sum.finish();
                check_crc(file, source, range.start, expected, crc32)?;
                return Ok((crc32, self.sink.take(range.start, bytes)?));
            }
            Delivery::Checked => {
                // With holes: gathered first, so that nothing is handed on before all of the chunk
                // is checked.
                self.scratch.decoded.clear();
                self.scratch.decoded.resize((range.end - range.start) as usize, 0);
                let place = |part: &Range<u64>| (part.start - range.start) as usize..(part.end - range.start) as usize;
                for part in parts {
                    let bytes = file.read(part.start, (part.end - part.start) as usize, &mut self.scratch.file)?;
                    sum.add(part.start, bytes);
                    self.scratch.decoded[place(part)].copy_from_slice(bytes);
                }
                let crc32 = sum.finish();
                check_crc(file, source, range.start, expected, crc32)?;
                for part in parts {
                    data_bytes += self.sink.take(part.start, &self.scratch.decoded[place(part)])?;
                }
                return Ok((crc32, data_bytes));
            }
        }
        let crc32 = sum.finish();
        check_crc(file, source, range.start, expected, crc32)?;
        Ok((crc32, data_bytes))
    }

    fn read_compressed(&mut self, segment: &ManifestSegment, index: u64) -> Result<Found> {
        let Self { file, source, .. } = *self;
        let chunk = segment.chunks[usize::try_from(index).unwrap_or(usize::MAX)];
        let range = chunk_range(segment.size_bytes, segment.chunk_bytes, index);
        let encoded = file.read(chunk.offset, chunk.length as usize, &mut self.scratch.file)?;
        self.scratch.decoded.resize(usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
        let outcome = self.scratch.decoders.decode(segment.encoding, encoded, &mut self.scratch.decoded);
        outcome.map_err(|text| damaged(file, source, chunk.offset, &format!("from {} of the segment on {text}", range.start)))?;
        let crc32 = crc::of(&self.scratch.decoded);
        check_crc(file, source, chunk.offset, Some(chunk.crc32), crc32)?;
        Ok(Found { sums: vec![crc32], data_bytes: self.sink.take(range.start, &self.scratch.decoded)? })
    }

    /// Reads chunks that are said to hold nothing but zeros, many at once, and hands nothing on.
    /// One chunk of zeros is like the other: only the first is decoded, and the others are compared
    /// with it.
    fn read_zeros(&mut self, segment: &ManifestSegment, span: &Span) -> Result<Found> {
        let Self { file, source, control, .. } = *self;
        let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX);
        let mut left = &segment.chunks[index(span.chunks.start)..index(span.chunks.end)];
        let mut number = span.chunks.start;
        let mut sums = Vec::with_capacity(left.len());
        while let [first, ..] = left {
            control.check_stop()?;
            let (now, later) = left.split_at(count_at_once(left.iter()));
            let length: u64 = now.iter().map(|chunk| u64::from(chunk.length)).sum();
            let mut encoded = &*file.read(first.offset, index(length), &mut self.scratch.file)?;
            for chunk in now {
                let own;
                (own, encoded) = encoded.split_at(chunk.length as usize);
                let range = chunk_range(segment.size_bytes, segment.chunk_bytes, number);
                let bytes = index(range.end - range.start);
                if (self.scratch.zeros.length, self.scratch.zeros.encoded.as_slice()) != (bytes, own) {
                    self.scratch.decoded.resize(bytes, 0);
                    let outcome = self.scratch.decoders.decode(segment.encoding, own, &mut self.scratch.decoded);
                    let damaged = |text: &str| damaged(file, source, chunk.offset, text);
                    outcome.map_err(|text| damaged(&format!("from {} of the segment on {text}", range.start)))?;
                    if !pages::is_zero(&self.scratch.decoded) {
                        return Err(damaged("something other than the zeros listed in the manifest"));
                    }
                    self.scratch.zeros = Zeros { length: bytes, crc32: crc::of_zeros(bytes as u64), encoded: own.to_vec() };
                }
                check_crc(file, source, chunk.offset, Some(chunk.crc32), self.scratch.zeros.crc32)?;
                sums.push(self.scratch.zeros.crc32);
                number += 1;
            }
            left = later;
        }
        Ok(Found { sums, data_bytes: 0 })
    }
}

/// How many of these chunks are read at once: as many as fit into a piece, and at least one. They
/// lie one behind the other, as the manifest was checked to say.
fn count_at_once<'c>(mut chunks: impl Iterator<Item = &'c Chunk>) -> usize {
    let Some(first) = chunks.next() else { return 0 };
    1 + chunks.take_while(|chunk| chunk.offset + u64::from(chunk.length) <= first.offset + PIECE_BYTES).count()
}

/// What a manifest says of a span, for one that is not decoded.
fn known(segment: &ManifestSegment, span: &Span) -> Found {
    let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX);
    let chunks = &segment.chunks[index(span.chunks.start)..index(span.chunks.end)];
    Found { sums: chunks.iter().map(|chunk| chunk.crc32).collect(), data_bytes: 0 }
}

fn check_crc(file: &InputFile, source: &Source, offset: u64, expected: Option<u32>, found: u32) -> Result<()> {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(damaged(file, source, offset, &format!("CRC-32 {found:08x}, expected {expected:08x}"))),
        None => Ok(()),
    }
}

fn data_ranges(file: &InputFile, range: &Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut position = range.start;
    while let Some(data) = file.next_data(position, range.end)? {
        position = data.end;
        found.push(data);
    }
    Ok(found)
}

/// Bytes of a segment that a span covers, as far as progress is counted by span (a stream counts
/// its own).
pub fn done_bytes(source: &Source, span: &Span) -> u64 {
    match source.contents {
        Contents::Stream { .. } => 0,
        _ => {
            let range = bytes_of(source, span);
            range.end - range.start
        }
    }
}

/// Keeps the CRC-32 of a span's chunks among those of the segment.
pub fn put_sums(all: &Mutex<Vec<u32>>, source: &Source, span: &Span, found: &[u32]) {
    let mut all = lock(all);
    if all.is_empty() {
        all.resize(usize::try_from(chunk_count(source.size_bytes, source.chunk_bytes())).unwrap_or(usize::MAX), 0);
    }
    let first = usize::try_from(span.chunks.start).unwrap_or(usize::MAX);
    all[first..first + found.len()].copy_from_slice(found);
}
