//! Deflate, by chunks: every chunk is a row of deflate blocks that stands alone and ends on a full flush, so that
//! chunks made side by side, put one behind the other, are one stream.
//!
//! Promise: an encoder never makes more than [`max_encoded_bytes`]; a decoder gives exactly the bytes expected or an
//! error. Must never: trust a length found in the data, or write past the output it was given.

use crate::format::{AFTER_CHUNKS_BYTES, DEFLATE_END, FIRST_CHUNK_OFFSET, GZIP_HEADER, chunk_count, chunk_range};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

/// Fastest level whose Huffman codes fit the data; level 1 has fixed codes, and makes random digests longer.
const LEVEL: i32 = 2;
/// Base-2 logarithm of deflate's window.
const WINDOW_BITS: u8 = 15;
/// Most bytes of a stored block.
const STORED_BLOCK_BYTES: usize = 65_535;
/// Header of a stored block: type, padding, length, length's complement.
const STORED_HEADER_BYTES: usize = 5;
/// An empty stored block: what a full flush ends with.
const FULL_FLUSH: [u8; STORED_HEADER_BYTES] = [0, 0, 0, 0xff, 0xff];

/// Most bytes a chunk of this many bytes can become: all of it stored, and the flush.
pub fn max_encoded_bytes(chunk_bytes: u64) -> u64 {
    chunk_bytes + (chunk_bytes.div_ceil(STORED_BLOCK_BYTES as u64) + 1) * STORED_HEADER_BYTES as u64
}

/// Most bytes the compressed file of a segment can have if every chunk is data.
pub fn max_file_bytes(segment_bytes: u64, chunk_bytes: u32) -> u64 {
    let chunks = (0..chunk_count(segment_bytes, chunk_bytes)).map(|index| {
        let range = chunk_range(segment_bytes, chunk_bytes, index);
        max_encoded_bytes(range.end - range.start)
    });
    FIRST_CHUNK_OFFSET + chunks.sum::<u64>() + AFTER_CHUNKS_BYTES
}

/// Makes a chunk's deflate blocks. One a thread.
pub trait ChunkEncoder: Send {
    /// Replaces `output` by the chunk's blocks: not final, byte-aligned, ended by a full flush, with no reference to
    /// bytes before the chunk, and of at most [`max_encoded_bytes`].
    fn encode(&mut self, chunk: &[u8], output: &mut Vec<u8>);
}

/// The encoder in use.
pub fn encoder() -> Box<dyn ChunkEncoder> {
    Box::new(GeneralEncoder { deflate: Deflate::new(LEVEL, false, WINDOW_BITS) })
}

/// A general deflate encoder (zlib-rs), with stored blocks where it would make the data longer.
struct GeneralEncoder {
    deflate: Deflate,
}

impl ChunkEncoder for GeneralEncoder {
    fn encode(&mut self, chunk: &[u8], output: &mut Vec<u8>) {
        let room = usize::try_from(max_encoded_bytes(chunk.len() as u64)).unwrap_or(usize::MAX);
        output.resize(room, 0);
        self.deflate.reset();
        let outcome = self.deflate.compress(chunk, output, DeflateFlush::FullFlush);
        let made = usize::try_from(self.deflate.total_out()).unwrap_or(room);
        // With room left behind it the flush is complete; else the data would get longer, and is stored as it is.
        if outcome.is_ok() && self.deflate.total_in() == chunk.len() as u64 && made < room {
            output.truncate(made);
        } else {
            store(chunk, output);
        }
    }
}

/// Makes stored blocks: the data as it is.
fn store(chunk: &[u8], output: &mut Vec<u8>) {
    output.clear();
    for block in chunk.chunks(STORED_BLOCK_BYTES) {
        let length = u16::try_from(block.len()).expect("a stored block's length fits 16 bits");
        output.push(0);
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(&(!length).to_le_bytes());
        output.extend_from_slice(block);
    }
    output.extend_from_slice(&FULL_FLUSH);
}

/// Decodes chunks of our own files. One a thread.
pub struct ChunkDecoder {
    inflate: Inflate,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { inflate: Inflate::new(false, WINDOW_BITS) }
    }
}

impl ChunkDecoder {
    /// Decodes one chunk into exactly `output`. The error says what was found.
    pub fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.inflate.reset(false);
        // The end block behind the chunk shows that the chunk itself ended where it should, on a byte and in no block.
        for part in [encoded, &DEFLATE_END] {
            let mut used = 0;
            loop {
                let before = (self.inflate.total_in(), self.inflate.total_out());
                let made = usize::try_from(before.1).unwrap_or(usize::MAX);
                let status = self.inflate.decompress(&part[used..], &mut output[made..], InflateFlush::NoFlush);
                let status = status.map_err(|error| format!("cannot be inflated: {}", error.as_str()))?;
                used += usize::try_from(self.inflate.total_in() - before.0).unwrap_or(usize::MAX);
                if status == Status::StreamEnd || before == (self.inflate.total_in(), self.inflate.total_out()) {
                    break;
                }
                if used == part.len() {
                    break;
                }
            }
        }
        let expected = (encoded.len() as u64 + DEFLATE_END.len() as u64, output.len() as u64);
        let found = (self.inflate.total_in(), self.inflate.total_out());
        if found == expected {
            Ok(())
        } else {
            Err(format!("inflates to {} bytes of {} read, expected {} of {}", found.1, found.0, expected.1, expected.0))
        }
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
        let status = status.map_err(|error| format!("cannot be inflated: {}", error.as_str()))?;
        Ok(Step {
            used: usize::try_from(self.inflate.total_in() - before.0).unwrap_or(usize::MAX),
            made: usize::try_from(self.inflate.total_out() - before.1).unwrap_or(usize::MAX),
            is_end: status == Status::StreamEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Vec<u8>> {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..200_000).map(|_| random()).collect();
        let elements: Vec<u8> = (0..100_000).map(|i| if i % 64 < 20 { random() } else { (i % 64) as u8 }).collect();
        vec![vec![], vec![7], vec![0; 65_535], vec![0; 65_536], vec![0; 4 << 20], noise[..65_535].to_vec(), noise, elements]
    }

    /// The member around chunks, as a reader without our chunk table sees it.
    fn inflate_all(stream: &[u8]) -> (Vec<u8>, bool) {
        let mut decoder = MemberDecoder::new(&GZIP_HEADER).expect("a header");
        let (mut at, mut all, mut part) = (0, Vec::new(), vec![0; 1000]);
        loop {
            let step = decoder.step(&stream[at..], &mut part).expect("a stream");
            at += step.used;
            all.extend_from_slice(&part[..step.made]);
            if step.is_end || step.used + step.made == 0 {
                return (all, step.is_end && at == stream.len());
            }
        }
    }

    #[test]
    fn chunks_come_back_alone_and_as_one_stream() {
        let (mut stream, mut all, mut encoded) = (Vec::new(), Vec::new(), Vec::new());
        let (mut encoder, mut decoder) = (encoder(), ChunkDecoder::default());
        for sample in samples() {
            encoder.encode(&sample, &mut encoded);
            assert!(encoded.len() as u64 <= max_encoded_bytes(sample.len() as u64));
            assert!(encoded.ends_with(&[0, 0, 0xff, 0xff]));
            let mut back = vec![0xa5; sample.len()];
            decoder.decode(&encoded, &mut back).expect("a chunk");
            assert!(back == sample, "{} bytes", sample.len());
            stream.extend_from_slice(&encoded);
            all.extend_from_slice(&sample);
        }
        stream.extend_from_slice(&DEFLATE_END);
        assert!(inflate_all(&stream) == (all, true));
    }

    #[test]
    fn a_chunk_of_another_length_is_refused() {
        let (mut encoder, mut decoder, mut encoded) = (encoder(), ChunkDecoder::default(), Vec::new());
        encoder.encode(&samples()[7], &mut encoded);
        for length in [0, 99_999, 100_001] {
            assert!(decoder.decode(&encoded, &mut vec![0; length]).is_err(), "{length} bytes");
        }
        let mut ended = encoded.clone();
        ended.extend_from_slice(&DEFLATE_END);
        assert!(decoder.decode(&ended, &mut vec![0; 100_000]).is_err(), "an end within");
        assert!(decoder.decode(&encoded[..encoded.len() - 1], &mut vec![0; 100_000]).is_err(), "cut short");
        assert!(decoder.decode(&encoded, &mut vec![0; 100_000]).is_ok(), "usable after errors");
    }

    #[test]
    fn noise_is_stored_and_grows_by_headers_alone() {
        let (noise, mut encoded) = (&samples()[6], Vec::new());
        encoder().encode(noise, &mut encoded);
        assert!(encoded.len() as u64 <= max_encoded_bytes(noise.len() as u64), "{}", encoded.len());
        assert_eq!(max_encoded_bytes(65_536), 65_536 + 15);
    }
}
