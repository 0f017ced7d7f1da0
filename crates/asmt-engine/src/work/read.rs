//! Reading segments out of files, chunk by chunk, checking each as it comes in: for restore, verify
//! and `-c`.
//!
//! Promise: what is handed on has passed its check where there is one; a gzip member is read to its
//! last byte, and its CRC-32, its length and the segment's size all agree; a decompression bomb
//! stops at the segment's size. Must never: hand on bytes before they are checked, or believe a
//! length in a file.

use crate::error::{Code, Error, Problem, Result};
use crate::format::journal::published_name;
use crate::format::{
    ASMT_HEADER_BYTES, Chunk, Encoding, GZIP_TRAILER_BYTES, ManifestSegment, Span, Spans, chunk_count, chunk_range,
    combined_crc32, gzip_front, gzip_tail,
};
use crate::hints;
use crate::plan::{Contents, Source};
use crate::progress::Control;
use crate::store::{Buffer, InFile, Store};
use crate::work::pages;
use asmt_codec::crc::{self, RangeSum};
use asmt_codec::decode::{ChunkDecoder, MemberDecoder};
use asmt_codec::{DEFLATE_END, GZIP_HEADER};
use asmt_shm::sysv::Attachment;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes read at once of a stream that has no chunk table, of a run of zero chunks, and of a file
/// that has lost its holes.
const PIECE_BYTES: u64 = 1 << 20;

/// What a worker keeps to itself.
#[derive(Default)]
pub struct Scratch {
    file: Buffer,
    decoded: Vec<u8>,
    decoder: ChunkDecoder,
    zeros: Zeros,
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
pub enum Way<'s> {
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
    fn way(&self, _chunk: &Range<u64>) -> Way<'_> {
        Way::Checked
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
    pub fn add(&self, file: &InFile, source: &Source, offset: u64, bytes: u64) -> Result<()> {
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
pub(crate) fn damaged(file: &InFile, source: &Source, offset: u64, text: &str) -> Error {
    let message = format!("{} at {offset} (segment {}): {text}", file.shown(), source.key);
    Problem::new(Code::ContentDamaged, message, hints::DAMAGED).in_file(published_name(&source.file)).at(offset).into()
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
pub fn keeps_holes(file: &InFile, source: &Source) -> Result<bool> {
    let Contents::Chunks(segment) = &source.contents else { return Ok(false) };
    if segment.encoding == Encoding::Gzip {
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

/// Reads a span of a source (all of a stream), checks it, and hands it on.
pub fn read_span(
    file: &InFile,
    source: &Source,
    span: &Span,
    scratch: &mut Scratch,
    control: &Control,
    sink: &mut dyn Sink,
) -> Result<Found> {
    match &source.contents {
        Contents::Stream { crc32 } => read_stream(file, source, *crc32, scratch, control, sink),
        Contents::Chunks(segment) if segment.encoding == Encoding::Gzip && span.is_zero => {
            read_zeros(file, source, segment, span, scratch, control)
        }
        Contents::Chunks(segment) if segment.encoding == Encoding::Gzip => {
            read_compressed(file, source, segment, span.chunks.start, scratch, sink)
        }
        Contents::Chunks(segment) => {
            let expected = |chunk: u64| segment.chunks.get(usize::try_from(chunk).ok()?).map(|chunk| chunk.crc32);
            read_plain(file, source, span, &expected, scratch, control, sink)
        }
        Contents::Plain => read_plain(file, source, span, &|_| None, scratch, control, sink),
    }
}

fn read_plain(
    file: &InFile,
    source: &Source,
    span: &Span,
    expected: &dyn Fn(u64) -> Option<u32>,
    scratch: &mut Scratch,
    control: &Control,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let whole = bytes_of(source, span);
    let are_holes = span.is_zero && file.next_data(whole.start, whole.end)?.is_none();
    let mut all = Found::default();
    // The sum of a chunk of holes, by its length.
    let mut zeros: Option<(u64, u32)> = None;
    for chunk in span.chunks.clone() {
        let range = chunk_range(source.size_bytes, source.chunk_bytes(), chunk);
        let parts = if are_holes { Vec::new() } else { data_ranges(file, &range)? };
        let crc32 = if parts.is_empty() {
            // Nothing to read, nor to gather: a file of holes alone takes no longer than its chunks
            // are many.
            let length = range.end - range.start;
            let known = zeros.filter(|(known, _)| *known == length);
            let (_, crc32) = *zeros.insert(known.unwrap_or_else(|| (length, crc::of_zeros(length))));
            check_crc(file, source, range.start, expected(chunk), crc32)?;
            crc32
        } else {
            control.check_stop()?;
            let (crc32, data_bytes) = read_parts(file, source, &range, &parts, expected(chunk), scratch, sink)?;
            if span.is_zero && data_bytes > 0 {
                return Err(damaged(file, source, range.start, "something else than the zeros that the manifest says are here"));
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
fn read_parts(
    file: &InFile,
    source: &Source,
    range: &Range<u64>,
    parts: &[Range<u64>],
    expected: Option<u32>,
    scratch: &mut Scratch,
    sink: &mut dyn Sink,
) -> Result<(u32, u64)> {
    let mut sum = RangeSum::new(range);
    let mut data_bytes = 0;
    match sink.way(range) {
        Way::InPlace(attachment) => {
            for part in parts {
                let mut memory = attachment.exclusive(part.clone());
                file.read_into(part.start, &mut memory)?;
                sum.add(part.start, &memory);
                data_bytes += part.end - part.start;
            }
        }
        Way::Unchecked => {
            for part in parts {
                let mut start = part.start;
                while start < part.end {
                    let end = part.end.min((start + 1).next_multiple_of(PIECE_BYTES));
                    let bytes = file.read(start, (end - start) as usize, &mut scratch.file)?;
                    sum.add(start, bytes);
                    data_bytes += sink.take(start, bytes)?;
                    start = end;
                }
            }
        }
        Way::Checked if parts == std::slice::from_ref(range) => {
            let bytes = file.read(range.start, (range.end - range.start) as usize, &mut scratch.file)?;
            sum.add(range.start, bytes);
            let crc32 = sum.finish();
            check_crc(file, source, range.start, expected, crc32)?;
            return Ok((crc32, sink.take(range.start, bytes)?));
        }
        Way::Checked => {
            // With holes: gathered first, so that nothing is handed on before all of the chunk is
            // checked.
            scratch.decoded.clear();
            scratch.decoded.resize((range.end - range.start) as usize, 0);
            let place = |part: &Range<u64>| (part.start - range.start) as usize..(part.end - range.start) as usize;
            for part in parts {
                let bytes = file.read(part.start, (part.end - part.start) as usize, &mut scratch.file)?;
                sum.add(part.start, bytes);
                scratch.decoded[place(part)].copy_from_slice(bytes);
            }
            let crc32 = sum.finish();
            check_crc(file, source, range.start, expected, crc32)?;
            for part in parts {
                data_bytes += sink.take(part.start, &scratch.decoded[place(part)])?;
            }
            return Ok((crc32, data_bytes));
        }
    }
    let crc32 = sum.finish();
    check_crc(file, source, range.start, expected, crc32)?;
    Ok((crc32, data_bytes))
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
    index: u64,
    scratch: &mut Scratch,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let chunk = segment.chunks[usize::try_from(index).unwrap_or(usize::MAX)];
    let range = chunk_range(segment.size_bytes, segment.chunk_bytes, index);
    let encoded = file.read(chunk.offset, chunk.length as usize, &mut scratch.file)?;
    scratch.decoded.resize(usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
    let outcome = scratch.decoder.decode(encoded, &mut scratch.decoded);
    outcome.map_err(|text| damaged(file, source, chunk.offset, &format!("from {} of the segment on {text}", range.start)))?;
    let crc32 = crc::of(&scratch.decoded);
    check_crc(file, source, chunk.offset, Some(chunk.crc32), crc32)?;
    Ok(Found { sums: vec![crc32], data_bytes: sink.take(range.start, &scratch.decoded)? })
}

/// Reads chunks that are said to hold nothing but zeros, many at once, and hands nothing on. One
/// chunk of zeros is like the other: only the first is decoded, and the others are compared with
/// it.
fn read_zeros(
    file: &InFile,
    source: &Source,
    segment: &ManifestSegment,
    span: &Span,
    scratch: &mut Scratch,
    control: &Control,
) -> Result<Found> {
    let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX);
    let mut left = &segment.chunks[index(span.chunks.start)..index(span.chunks.end)];
    let mut number = span.chunks.start;
    let mut sums = Vec::with_capacity(left.len());
    while let [first, ..] = left {
        control.check_stop()?;
        // One behind the other, as the manifest was checked to say: as many as fit, and one at
        // least.
        let fits = |chunk: &&Chunk| chunk.offset + u64::from(chunk.length) <= first.offset + PIECE_BYTES;
        let (now, later) = left.split_at(left.iter().take_while(fits).count().max(1));
        let length: u64 = now.iter().map(|chunk| u64::from(chunk.length)).sum();
        let mut encoded = &*file.read(first.offset, index(length), &mut scratch.file)?;
        for chunk in now {
            let own;
            (own, encoded) = encoded.split_at(chunk.length as usize);
            let range = chunk_range(segment.size_bytes, segment.chunk_bytes, number);
            let bytes = index(range.end - range.start);
            if (scratch.zeros.length, scratch.zeros.encoded.as_slice()) != (bytes, own) {
                scratch.decoded.resize(bytes, 0);
                let outcome = scratch.decoder.decode(own, &mut scratch.decoded);
                let damaged = |text: &str| damaged(file, source, chunk.offset, text);
                outcome.map_err(|text| damaged(&format!("from {} of the segment on {text}", range.start)))?;
                if !pages::is_zero(&scratch.decoded) {
                    return Err(damaged("something else than the zeros that the manifest says are here"));
                }
                scratch.zeros = Zeros { length: bytes, crc32: crc::of_zeros(bytes as u64), encoded: own.to_vec() };
            }
            check_crc(file, source, chunk.offset, Some(chunk.crc32), scratch.zeros.crc32)?;
            sums.push(scratch.zeros.crc32);
            number += 1;
        }
        left = later;
    }
    Ok(Found { sums, data_bytes: 0 })
}

/// Reads a whole gzip member that has no chunk table. Its check comes at its end, so here bytes are
/// handed on before it: the caller must not trust any before this returns.
fn read_stream(
    file: &InFile,
    source: &Source,
    expected_crc32: u32,
    scratch: &mut Scratch,
    control: &Control,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let damaged = |offset: u64, text: &str| damaged(file, source, offset, text);
    let chunk_bytes = source.chunk_bytes();
    let start = ASMT_HEADER_BYTES as u64;
    let least = start + (GZIP_HEADER.len() + GZIP_TRAILER_BYTES) as u64;
    if file.file_bytes() < least {
        return Err(damaged(0, &format!("the file has {} bytes, expected at least {least}", file.file_bytes())));
    }
    let header = file.read(start, GZIP_HEADER.len(), &mut scratch.file)?;
    let mut decoder = MemberDecoder::new(header).map_err(|text| damaged(start, &text))?;
    let mut input_offset = start + GZIP_HEADER.len() as u64;
    let stream_end = file.file_bytes() - GZIP_TRAILER_BYTES as u64;
    let (mut sums, mut data_bytes) = (Vec::new(), 0);
    let mut is_end = false;
    let mut chunk_index = 0;
    let count = chunk_count(source.size_bytes, chunk_bytes);
    let mut made = 0;
    let mut range = chunk_range(source.size_bytes, chunk_bytes, 0);
    scratch.decoded.resize((range.end - range.start) as usize, 0);
    while !is_end {
        control.check_stop()?;
        let length = (stream_end - input_offset).min(PIECE_BYTES) as usize;
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
                sums.push(crc::of(&scratch.decoded));
                data_bytes += sink.take(range.start, &scratch.decoded)?;
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
    let found = combined_crc32(source.size_bytes, chunk_bytes, sums.iter().copied());
    let trailer = gzip_tail(source.size_bytes, found);
    let trailer = &trailer[DEFLATE_END.len()..];
    if found != expected_crc32 {
        return Err(damaged(0, &format!("CRC-32 {found:08x}, expected {expected_crc32:08x}")));
    }
    if file.read(stream_end, GZIP_TRAILER_BYTES, &mut scratch.file)? != trailer {
        return Err(damaged(stream_end, "the gzip trailer does not match the segment"));
    }
    Ok(Found { sums, data_bytes })
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
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.is_empty() {
        all.resize(usize::try_from(chunk_count(source.size_bytes, source.chunk_bytes())).unwrap_or(usize::MAX), 0);
    }
    let first = usize::try_from(span.chunks.start).unwrap_or(usize::MAX);
    all[first..first + found.len()].copy_from_slice(found);
}
