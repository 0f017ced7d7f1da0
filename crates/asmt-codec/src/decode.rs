//! Decoding: chunks of our own files, and the stream of any gzip member.
//!
//! Promise: a decoder returns exactly the bytes expected, or an error. Must never: trust a length
//! found in the data, or write past the output it was given.

use crate::inflate::Inflater;
use crate::simd::SimdLevel;
use crate::{GZIP_HEADER, WINDOW_BITS};
use zlib_rs::{Inflate, InflateFlush, Status};

/// Decodes chunks of our own files. One a thread.
pub struct ChunkDecoder {
    inflater: Inflater,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { inflater: Inflater::new(SimdLevel::best()) }
    }
}

impl ChunkDecoder {
    /// Decodes one chunk into exactly `output`. The error says what was found.
    pub fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.inflater.inflate(encoded, output).map_err(|text| format!("cannot be decompressed: {text}"))
    }
}

/// What a step of a [`MemberDecoder`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input used up.
    pub used: usize,
    /// Bytes of output made.
    pub made: usize,
    /// The deflate stream has ended; the trailer follows.
    pub is_end: bool,
}

/// Decodes the deflate stream of a gzip member piece by piece: for files with no chunk table.
pub struct MemberDecoder {
    inflate: Inflate,
}

impl MemberDecoder {
    /// Checks the gzip header in front of the stream.
    pub fn new(header: &[u8]) -> Result<Self, String> {
        let expected = &GZIP_HEADER[..4];
        if header.len() < GZIP_HEADER.len() || &header[..4] != expected {
            return Err(format!("its gzip header starts with {:02x?}, expected {expected:02x?}", &header[..header.len().min(4)]));
        }
        Ok(Self { inflate: Inflate::new(false, WINDOW_BITS) })
    }

    /// Inflates as far as input and output go.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, output, InflateFlush::NoFlush);
        let status = status.map_err(|error| format!("cannot be decompressed: {}", error.as_str()))?;
        Ok(Step {
            used: usize::try_from(self.inflate.total_in() - before.0).unwrap_or(usize::MAX),
            made: usize::try_from(self.inflate.total_out() - before.1).unwrap_or(usize::MAX),
            is_end: status == Status::StreamEnd,
        })
    }
}
