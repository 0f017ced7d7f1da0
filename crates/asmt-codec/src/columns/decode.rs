//! The decoder of chunks by columns.
//!
//! Promise: exactly the chunk's bytes, or an error. Must never: panic, believe a length, or
//! allocate more than a chunk.

use super::blocks::{self, Run};
use super::head::{self, Part};
use super::read_literals::{Job, Literals};
use super::transpose::{self, From, Piece};
use crate::inflate::Inflater;
use crate::simd::{Kernel, LANES, Lanes, SimdLevel};
use std::ops::Range;

/// Decodes chunks by columns. One a thread; it keeps room for a chunk.
pub struct ColumnDecoder {
    way: SimdLevel,
    inflater: Inflater,
    literals: Literals,
    run: Run,
    /// The chunk, transposed: as much of it as is not in place somewhere else.
    columns: Vec<u8>,
    parts: Vec<Part>,
    jobs: Vec<Job>,
    /// Where the transposed bytes are, in order.
    pieces: Vec<Piece>,
}

impl Default for ColumnDecoder {
    fn default() -> Self {
        Self::new(SimdLevel::best())
    }
}

impl ColumnDecoder {
    /// One that works in this way.
    pub(crate) fn new(way: SimdLevel) -> Self {
        Self {
            way,
            inflater: Inflater::new(way),
            literals: Literals::new(way),
            run: Run::default(),
            columns: Vec::new(),
            parts: Vec::new(),
            jobs: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Decodes a chunk into exactly `output`. Behind its parts there may be empty blocks. The error
    /// says what was found.
    pub fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.chunk(encoded, output).map_err(|text| format!("cannot be decompressed: {text}"))
    }

    fn chunk(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        let (width, head_bytes) = head::read(encoded, output.len(), &mut self.parts)?;
        let encoded = &encoded[head_bytes..];
        if width == 1 {
            return self.parts(encoded, output, None);
        }
        let mut columns = std::mem::take(&mut self.columns);
        if columns.len() < output.len() {
            columns.resize(output.len(), 0);
        }
        let content = &mut columns[..output.len()];
        // Only rows of this width are made from where the bytes are.
        let rows = Some(output.len() / width).filter(|rows| width == LANES && *rows > 0);
        let done = self.parts(encoded, content, rows);
        match (&done, rows) {
            (Ok(()), Some(_)) => transpose::pieces_to_rows([encoded, content], &self.pieces, output, self.way),
            (Ok(()), None) => transpose::to_rows(content, width, output),
            (Err(_), _) => {}
        }
        self.columns = columns;
        done
    }

    /// Decodes all parts into `content`; with a number of bytes in a column only those parts that
    /// are not in place already, and notes where each is.
    fn parts(&mut self, encoded: &[u8], content: &mut [u8], rows: Option<usize>) -> Result<(), String> {
        let (mut block, mut at) = (0, 0);
        self.jobs.clear();
        self.pieces.clear();
        for part in &self.parts {
            let job = Job { blocks: block..block + part.encoded_bytes, content: at..at + part.content_bytes };
            (block, at) = (job.blocks.end, job.content.end);
            let blocks = &encoded[job.blocks.clone()];
            let piece = Piece { at: job.content.start, length: part.content_bytes, from: From::Content };
            let target = &mut content[job.content.clone()];
            // Whole columns of one byte, and stored bytes that stay as they are, need no copy.
            let is_whole = |rows: usize| {
                let Range { start, end } = job.content;
                start.is_multiple_of(rows) && end.is_multiple_of(rows) && end <= rows * LANES
            };
            if blocks.first().is_some_and(|first| first & 7 == blocks::CODED) {
                self.jobs.push(job);
            } else if let Some(byte) = self.run.decode(blocks, target.len()) {
                if !part.is_differences && rows.is_some_and(is_whole) {
                    self.pieces.push(Piece { from: From::Byte(byte), ..piece });
                    continue;
                }
                target.fill(byte);
            } else if rows.is_some() && !part.is_differences && blocks::is_stored(blocks, target.len()) {
                let (mut from, mut place) = (job.blocks.start, piece.at);
                for length in blocks::stored_lengths(blocks) {
                    from += head::STORED_HEADER_BYTES;
                    self.pieces.push(Piece { at: place, length, from: From::Encoded(from) });
                    (from, place) = (from + length, place + length);
                }
                continue;
            } else {
                self.inflater.inflate(blocks, target)?;
            }
            self.pieces.push(piece);
        }
        self.literals.decode(encoded, content, &mut self.jobs);
        for job in self.jobs.drain(..) {
            self.inflater.inflate(&encoded[job.blocks], &mut content[job.content])?;
        }
        let mut rest = content;
        for part in &self.parts {
            let (own, behind) = rest.split_at_mut(part.content_bytes);
            rest = behind;
            if part.is_differences {
                self.way.run(Sums(own));
            }
        }
        self.inflater.inflate(&encoded[block..], &mut [])
    }
}

/// Puts bytes in place of their differences.
struct Sums<'d>(&'d mut [u8]);

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut sum = 0;
        let (blocks, rest) = self.0.as_chunks_mut();
        for block in blocks {
            sum = lanes.sums(block, sum);
        }
        for byte in rest {
            sum = byte.wrapping_add(sum);
            *byte = sum;
        }
    }
}
