//! Codecs alone: asmt's, and zlib at level 1, which ASMT 2.2.1 uses.
//!
//! Promise: everything that was encoded is decoded again and compared, so that no figure comes from
//! a codec that loses data.

use crate::{Figures, PIECE_BYTES, attach_all, pieces};
use asmt_codec::columns::{ColumnDecoder, ColumnEncoder};
use asmt_codec::decode::ChunkDecoder;
use asmt_codec::encode::{self, ChunkEncoder, ChunkKind};
use asmt_kit::text_of;
use asmt_kit::threads::in_parallel;
use serde_json::json;
use std::sync::Mutex;
use std::time::Instant;

/// A codec for chunks.
trait Codec: Send {
    fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> usize;
    fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String>;
}

/// The codec that backups are made with.
struct Ours {
    kind: ChunkKind,
    encoder: Box<dyn ChunkEncoder>,
    decoder: ChunkDecoder,
}

impl Codec for Ours {
    fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> usize {
        self.encoder.encode(chunk, self.kind, output)
    }

    fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.decoder.decode(encoded, output)
    }
}

/// The one by columns.
#[derive(Default)]
struct Columns {
    encoder: ColumnEncoder,
    decoder: ColumnDecoder,
}

impl Codec for Columns {
    fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> usize {
        self.encoder.encode(chunk, output).length
    }

    fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.decoder.decode(encoded, output)
    }
}

/// zlib itself, chunk by chunk, with its window emptied between them (a single stream is 0.1 %
/// smaller and no faster).
struct Zlib {
    compress: flate2::Compress,
    decompress: flate2::Decompress,
}

impl Codec for Zlib {
    fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> usize {
        self.compress.reset();
        let _ = self.compress.compress(chunk, output, flate2::FlushCompress::Finish);
        usize::try_from(self.compress.total_out()).unwrap_or(0)
    }

    fn decode(&mut self, encoded: &[u8], output: &mut [u8]) -> Result<(), String> {
        self.decompress.reset(false);
        let status = self.decompress.decompress(encoded, output, flate2::FlushDecompress::Finish);
        status.map(drop).map_err(text_of("cannot inflate", ""))
    }
}

/// The state of a worker: a codec, and a buffer for decoded data.
type Worker = Result<(Box<dyn Codec>, Vec<u8>), String>;

fn codec_named(name: &str) -> Result<Box<dyn Codec>, String> {
    let ours = |kind| Ours { kind, encoder: encode::encoder(), decoder: ChunkDecoder::default() };
    Ok(match name {
        "index" => Box::new(ours(ChunkKind::Elements)),
        "other" => Box::new(ours(ChunkKind::Other)),
        "columns" => Box::new(Columns::default()),
        "zlib-1" => Box::new(Zlib {
            compress: flate2::Compress::new(flate2::Compression::new(1), false),
            decompress: flate2::Decompress::new(false),
        }),
        other => return Err(format!("no codec {other:?}: index, other, columns, zlib-1")),
    })
}

/// Encodes and decodes data of the largest segments, at most `most_bytes` of it.
pub fn measure(name: &str, threads: usize, most_bytes: u64) -> Figures {
    codec_named(name)?;
    let segments = attach_all()?;
    let mut pieces = pieces(&segments)?;
    pieces.retain(|(_, range)| range.end - range.start == PIECE_BYTES);
    // The pieces come from the whole of an index, because its first elements are unlike its last
    // ones.
    let wanted = usize::try_from(most_bytes / PIECE_BYTES).unwrap_or(usize::MAX).clamp(1, pieces.len().max(1));
    let pieces: Vec<_> = pieces.iter().step_by(pieces.len().div_ceil(wanted).max(1)).collect();
    let bytes = pieces.len() as u64 * PIECE_BYTES;
    let room = encode::max_encoded_bytes(PIECE_BYTES) as usize + (64 << 10);
    let chunks: Vec<Mutex<(Vec<u8>, usize)>> = pieces.iter().map(|_| Mutex::new((vec![1; room], 0))).collect();
    let state = || -> Worker { codec_named(name).map(|codec| (codec, vec![1; PIECE_BYTES as usize])) };
    let source = |index: usize| segments[pieces[index].0].attachment.bytes(pieces[index].1.clone());
    let lock = |index: usize| chunks[index].lock().map_err(text_of("a worker panicked", ""));
    let encode = |state: &mut Worker, index: usize| {
        let (codec, _) = state.as_mut().map_err(|text| text.clone())?;
        let mut chunk = lock(index)?;
        chunk.1 = codec.encode(source(index), &mut chunk.0);
        Ok(())
    };
    let decode = |state: &mut Worker, index: usize| {
        let (codec, decoded) = state.as_mut().map_err(|text| text.clone())?;
        let chunk = lock(index)?;
        codec.decode(&chunk.0[..chunk.1], decoded)
    };
    let compare = |state: &mut Worker, index: usize| {
        decode(state, index)?;
        let is_same = state.as_ref().is_ok_and(|(_, decoded)| decoded == source(index));
        if is_same { Ok(()) } else { Err("what was decoded is not what was encoded".to_owned()) }
    };
    let timed = |work: &(dyn Fn(&mut Worker, usize) -> Result<(), String> + Sync)| {
        let since = Instant::now();
        in_parallel(threads, pieces.len(), state, work).map(|()| since.elapsed().as_secs_f64())
    };
    // The first round maps the pages into this process, and shows that nothing is lost.
    timed(&encode)?;
    timed(&compare)?;
    let (encode_seconds, decode_seconds) = (timed(&encode)?, timed(&decode)?);
    let encoded_bytes: usize = (0..pieces.len()).map(|index| lock(index).map(|chunk| chunk.1)).sum::<Result<_, _>>()?;
    Ok(json!({
        "bytes": bytes, "encoded_bytes": encoded_bytes,
        "encode_seconds": encode_seconds, "decode_seconds": decode_seconds, "seconds": encode_seconds,
    }))
}
