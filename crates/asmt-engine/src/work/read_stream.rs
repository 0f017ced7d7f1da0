//! Reading a gzip member that has no chunk table, as ASMT makes it: one stream, from its first byte
//! to its last.
//!
//! Promise: a decompression bomb stops at the size of the segment. Must never: believe a length in
//! the file.

use crate::error::Result;
use crate::format::{ASMT_HEADER_BYTES, Content, GZIP_TRAILER_BYTES, chunk_count, chunk_range, combined_crc32, gzip_tail};
use crate::plan::Source;
use crate::work::read::{Found, PIECE_BYTES, Reading, Sink, damaged};
use asmt_codec::decode::MemberDecoder;
use asmt_codec::{DEFLATE_END, GZIP_HEADER, crc};
use std::ops::Range;

impl Reading<'_> {
    /// Reads a whole gzip member that has no chunk table. Its check comes at its end, so here bytes
    /// are handed on before it: the caller must not trust any before this returns.
    pub(super) fn read_stream(&mut self, expected_crc32: u32) -> Result<Found> {
        let Self { file, source, control, .. } = *self;
        let damaged = |offset: u64, text: &str| damaged(file, source, offset, text);
        let start = ASMT_HEADER_BYTES as u64;
        let least = start + (GZIP_HEADER.len() + GZIP_TRAILER_BYTES) as u64;
        if file.file_bytes() < least {
            return Err(damaged(0, &format!("the file has {} bytes, expected at least {least}", file.file_bytes())));
        }
        let header = file.read(start, GZIP_HEADER.len(), &mut self.scratch.file)?;
        let mut decoder = MemberDecoder::new(header).map_err(|text| damaged(start, &text))?;
        let mut input_offset = start + GZIP_HEADER.len() as u64;
        let stream_end = file.file_bytes() - GZIP_TRAILER_BYTES as u64;
        let mut out = Unrolled::new(source, &mut self.scratch.decoded);
        let mut is_end = false;
        while !is_end {
            control.check_stop()?;
            let length = (stream_end - input_offset).min(PIECE_BYTES) as usize;
            if length == 0 {
                return Err(damaged(input_offset, "the stream does not end where the file does"));
            }
            let input = file.read(input_offset, length, &mut self.scratch.file)?;
            let mut used = 0;
            loop {
                let step = decoder.step(&input[used..], out.room()).map_err(|text| damaged(input_offset + used as u64, &text))?;
                used += step.used;
                if out.is_full() && step.made > 0 {
                    let text = format!("the stream goes on past the segment's {} bytes", source.size_bytes);
                    return Err(damaged(input_offset + used as u64, &text));
                }
                control.add_done(out.add(step.made, self.sink)?);
                is_end = step.is_end;
                if is_end || step.used + step.made == 0 {
                    break;
                }
            }
            if used == 0 && !is_end {
                return Err(damaged(input_offset, "the stream does not continue"));
            }
            input_offset += used as u64;
        }
        if !out.is_full() {
            let text = format!("the stream ends after {} bytes of the segment, expected {}", out.bytes(), source.size_bytes);
            return Err(damaged(input_offset, &text));
        }
        if input_offset != stream_end {
            return Err(damaged(input_offset, &format!("the stream ends here, expected at {stream_end}")));
        }
        let found = out.found;
        let crc32 = combined_crc32(source.size_bytes, source.chunk_bytes(), found.sums.iter().copied());
        if crc32 != expected_crc32 {
            return Err(damaged(0, &format!("CRC-32 {crc32:08x}, expected {expected_crc32:08x}")));
        }
        let trailer = &gzip_tail(Content { bytes: source.size_bytes, crc32 })[DEFLATE_END.len()..];
        if file.read(stream_end, GZIP_TRAILER_BYTES, &mut self.scratch.file)? != trailer {
            return Err(damaged(stream_end, "the gzip trailer does not match the segment"));
        }
        Ok(found)
    }
}

/// A segment that comes out of a stream, chunk by chunk.
struct Unrolled<'u> {
    source: &'u Source,
    /// The chunk that is being filled, and how much of it is.
    chunk: &'u mut Vec<u8>,
    made: usize,
    index: u64,
    count: u64,
    /// Room for one byte more than the segment has: a stream that fills it, too, is too long.
    beyond: [u8; 1],
    found: Found,
}

impl<'u> Unrolled<'u> {
    fn new(source: &'u Source, chunk: &'u mut Vec<u8>) -> Self {
        let count = chunk_count(source.size_bytes, source.chunk_bytes());
        let mut new = Self { source, chunk, made: 0, index: 0, count, beyond: [0], found: Found::default() };
        new.resize();
        new
    }

    fn range(&self) -> Range<u64> {
        chunk_range(self.source.size_bytes, self.source.chunk_bytes(), self.index)
    }

    fn resize(&mut self) {
        let range = self.range();
        self.chunk.resize((range.end - range.start) as usize, 0);
    }

    fn is_full(&self) -> bool {
        self.index == self.count
    }

    /// Bytes of the segment that have come.
    fn bytes(&self) -> u64 {
        u64::from(self.source.chunk_bytes()) * self.index + self.made as u64
    }

    fn room(&mut self) -> &mut [u8] {
        if self.index < self.count { &mut self.chunk[self.made..] } else { &mut self.beyond }
    }

    /// So many bytes have come into the room. Hands a chunk on that is full by now; returns its
    /// length, else 0.
    fn add(&mut self, made: usize, sink: &mut dyn Sink) -> Result<u64> {
        self.made += made;
        if self.is_full() || self.made < self.chunk.len() {
            return Ok(0);
        }
        self.found.sums.push(crc::of(self.chunk));
        self.found.data_bytes += sink.take(self.range().start, self.chunk)?;
        let length = std::mem::take(&mut self.made) as u64;
        self.index += 1;
        if !self.is_full() {
            self.resize();
        }
        Ok(length)
    }
}
