//! Encoding chunks, and writing them to their file one behind the other.
//!
//! Promise: what is written is what was encoded, and where that was asked for, it is read back from
//! the disk and compared while other chunks are encoded. Must never: know where a chunk comes from.

use crate::error::{Code, Problem, Result};
use crate::format::{
    Chunk, Content, Encoding, FIRST_CHUNK_OFFSET, SECTOR_BYTES, chunk_kind, columns_front, gzip_front, gzip_tail, length_of,
};
use crate::store::{Buffer, OutputFile};
use crate::work::pool::{Places, Pool, Turn};
use crate::work::read_all::not_as_written;
use crate::work::written::{Sums, Written};
use asmt_codec::columns::{self, ColumnEncoder};
use asmt_codec::crc;
use asmt_codec::encode::{self, ChunkEncoder, ChunkKind};
use asmt_shm::SegmentType;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes that are written at once of chunks of zeros.
const ZEROS_WRITE_BYTES: usize = 1 << 20;

/// The order of a chunk's bytes in a file in columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Whatever makes it small.
    Best,
    /// As they are, so that the first ones can be read without the rest.
    Rows,
}

/// How a chunk is encoded, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkForm {
    /// Byte for byte.
    Plain,
    /// As ASMT does it.
    Gzip(ChunkKind),
    /// By columns.
    Columns(Layout),
}

impl ChunkForm {
    /// The form of a chunk that begins at an offset of a segment.
    pub fn of(encoding: Encoding, segment_type: SegmentType, start: u64) -> Self {
        match encoding {
            Encoding::Raw | Encoding::OwnRaw => Self::Plain,
            Encoding::Gzip => Self::Gzip(chunk_kind(segment_type)),
            // Whoever lists a backup reads the header off the beginning of the file.
            Encoding::Columns if segment_type.has_header() && start == 0 => Self::Columns(Layout::Rows),
            Encoding::Columns => Self::Columns(Layout::Best),
        }
    }
}

/// A chunk that was encoded.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    /// Bytes that it has now: whole sectors.
    length: usize,
    /// CRC-32 of these.
    encoded_crc32: u32,
    /// CRC-32 of the chunk itself.
    crc32: u32,
    /// What it decompresses to.
    content: Content,
}

impl Encoded {
    fn at(&self, offset: u64) -> Written {
        let length = u32::try_from(self.length).expect("a chunk grows by headers alone");
        let chunk = Chunk { offset, length, crc32: self.crc32 };
        Written { chunk, encoded_crc32: self.encoded_crc32, content: self.content }
    }
}

/// A chunk of zeros as it was encoded.
struct EncodedZeros {
    form: ChunkForm,
    chunk_bytes: usize,
    bytes: Vec<u8>,
    encoded: Encoded,
}

/// Encoders, and their buffers. Each worker has its own.
pub struct Encoder {
    gzip: Box<dyn ChunkEncoder>,
    columns: ColumnEncoder,
    output: Buffer,
    /// The chunk of zeros that was encoded last.
    zeros: Option<EncodedZeros>,
    /// That chunk, many times.
    repeated: Buffer,
    /// What was written, as the disk has it.
    read_back: Buffer,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            gzip: encode::encoder(),
            columns: ColumnEncoder::default(),
            output: Buffer::default(),
            zeros: None,
            repeated: Buffer::default(),
            read_back: Buffer::default(),
        }
    }
}

impl Encoder {
    /// Encodes a chunk into the output buffer.
    fn encode(&mut self, form: ChunkForm, bytes: &[u8], crc32: u32) -> Encoded {
        let chunk_bytes = bytes.len() as u64;
        let most = encode::max_encoded_bytes(chunk_bytes).max(columns::max_encoded_bytes(chunk_bytes));
        let output = self.output.aligned(usize::try_from(most + 2 * SECTOR_BYTES).unwrap_or(usize::MAX));
        let mut content = Content { bytes: chunk_bytes, crc32 };
        let made = match form {
            ChunkForm::Columns(layout) => {
                let encoded = match layout {
                    Layout::Best => self.columns.encode(bytes, output),
                    Layout::Rows => self.columns.encode_rows(bytes, output),
                };
                content = Content { bytes: encoded.content_bytes as u64, crc32: encoded.content_crc32 };
                encoded.length
            }
            ChunkForm::Gzip(kind) => self.gzip.encode(bytes, kind, output),
            ChunkForm::Plain => self.gzip.encode(bytes, ChunkKind::Other, output),
        };
        let length = encode::pad_to_multiple(output, made, SECTOR_BYTES as usize);
        Encoded { length, encoded_crc32: crc::of(&output[..length]), crc32, content }
    }

    /// Encodes a chunk of zeros into the output buffer. One is like the other: each form and length
    /// is encoded once.
    fn encode_zeros(&mut self, form: ChunkForm, chunk_bytes: usize) -> Encoded {
        if let Some(zeros) = self.zeros.as_ref().filter(|zeros| (zeros.form, zeros.chunk_bytes) == (form, chunk_bytes)) {
            self.output.aligned(zeros.bytes.len()).copy_from_slice(&zeros.bytes);
            return zeros.encoded;
        }
        let encoded = self.encode(form, &vec![0; chunk_bytes], crc::of_zeros(chunk_bytes as u64));
        let bytes = self.output.aligned(encoded.length).to_vec();
        self.zeros = Some(EncodedZeros { form, chunk_bytes, bytes, encoded });
        encoded
    }
}

/// The compressed file of a segment, as the worker of one of its units writes to it.
pub struct ChunkWriter<'w> {
    /// The file.
    pub file: &'w OutputFile,
    /// Where its chunks go.
    pub places: &'w Places,
    /// The workers.
    pub pool: &'w Pool<'w>,
    /// Number of the unit among those of the segment.
    pub unit: u64,
    /// The worker's encoders.
    pub encoder: &'w mut Encoder,
    /// What to clear if chunks cannot be read back from the disk; `None` to not read them back.
    pub is_read_back: Option<&'w AtomicBool>,
}

impl ChunkWriter<'_> {
    /// Encodes and writes a chunk.
    ///
    /// Errors: `compare-failed`; failed calls.
    pub fn write(&mut self, form: ChunkForm, turn: Turn, bytes: &[u8], crc32: u32) -> Result<Written> {
        let encoded = self.encoder.encode(form, bytes, crc32);
        self.put(&encoded, turn)
    }

    /// Encodes and writes a chunk of zeros.
    ///
    /// Errors: as of [`Self::write`].
    pub fn write_zeros(&mut self, form: ChunkForm, turn: Turn, chunk_bytes: usize) -> Result<Written> {
        let encoded = self.encoder.encode_zeros(form, chunk_bytes);
        self.put(&encoded, turn)
    }

    fn put(&mut self, encoded: &Encoded, turn: Turn) -> Result<Written> {
        let offset = self.places.place(self.pool, self.unit, encoded.length as u64, turn)?;
        self.file.write(offset, self.encoder.output.aligned(encoded.length))?;
        let written = encoded.at(offset);
        self.compare(&[written])?;
        Ok(written)
    }

    /// Writes a run of chunks of zeros, one behind the other: all alike, but for the first and the
    /// last one of a segment. Each kind is encoded once, and written many at a time.
    ///
    /// Errors: as of [`Self::write`].
    pub fn write_run(&mut self, ranges: &[Range<u64>], form_of: impl Fn(&Range<u64>) -> ChunkForm) -> Result<Vec<Written>> {
        let mut chunks = Vec::with_capacity(ranges.len());
        let kind_of = |range: &Range<u64>| (length_of(range), form_of(range));
        let groups: Vec<_> = ranges.chunk_by(|one, other| kind_of(one) == kind_of(other)).collect();
        for (index, alike) in groups.iter().enumerate() {
            let (chunk_bytes, form) = kind_of(&alike[0]);
            let one = self.encoder.encode_zeros(form, chunk_bytes as usize);
            let turn = if index + 1 == groups.len() { Turn::Passed } else { Turn::Kept };
            let mut offset = self.places.place(self.pool, self.unit, (one.length * alike.len()) as u64, turn)?;
            let most = (ZEROS_WRITE_BYTES / one.length).clamp(1, alike.len());
            let Encoder { output, repeated, .. } = &mut *self.encoder;
            let all = repeated.aligned(most * one.length);
            all.chunks_exact_mut(one.length).for_each(|again| again.copy_from_slice(output.aligned(one.length)));
            for some in alike.chunks(most) {
                self.file.write(offset, self.encoder.repeated.aligned(some.len() * one.length))?;
                let first = chunks.len();
                chunks.extend((0..some.len() as u64).map(|number| one.at(offset + number * one.length as u64)));
                self.compare(&chunks[first..])?;
                offset += (some.len() * one.length) as u64;
            }
        }
        Ok(chunks)
    }

    /// Reads chunks back that were written one behind the other, if that was asked for. While other
    /// workers encode, the disk has time for it.
    fn compare(&mut self, chunks: &[Written]) -> Result<()> {
        let (Some(is_read_back), [first, ..]) = (self.is_read_back, chunks) else { return Ok(()) };
        let bytes: usize = chunks.iter().map(|one| one.chunk.length as usize).sum();
        let Some(mut read) = self.file.read_back(first.chunk.offset, bytes, &mut self.encoder.read_back)? else {
            is_read_back.store(false, Ordering::Relaxed);
            return Ok(());
        };
        for one in chunks {
            let own;
            (own, read) = read.split_at(one.chunk.length as usize);
            let found = crc::of(own);
            if found != one.encoded_crc32 {
                let (name, offset) = (self.file.name(), one.chunk.offset);
                let text = format!("{name} at {offset}: CRC-32 {found:08x}, expected {:08x}", one.encoded_crc32);
                return Err(not_as_written(Problem::new(Code::CompareFailed, text, "").in_file(name).at(offset)).into());
            }
        }
        Ok(())
    }
}

/// Writes what is around the chunks of a compressed file, and nothing to a plain one. Returns the
/// size of the file in bytes.
///
/// Errors: failed calls.
pub fn write_around(file: &OutputFile, encoding: Encoding, places: &Places, sums: &Sums) -> Result<u64> {
    let front = match encoding {
        Encoding::Raw | Encoding::OwnRaw => return Ok(sums.size_bytes),
        Encoding::Gzip => gzip_front(sums.size_bytes, sums.crc32),
        Encoding::Columns => columns_front(sums.size_bytes, sums.crc32),
    };
    let tail = gzip_tail(sums.content);
    file.write(places.end(), &tail)?;
    let mut buffer = Buffer::default();
    let aligned = buffer.aligned(FIRST_CHUNK_OFFSET as usize);
    aligned.copy_from_slice(&front);
    file.write(0, aligned)?;
    Ok(places.end() + tail.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Control;
    use crate::store::Store;
    use asmt_kit::files::Scratch;

    #[test]
    fn a_chunk_that_the_disk_has_otherwise_is_noticed_when_it_is_written() {
        let scratch = Scratch::new("encoding");
        let store = Store::open(scratch.path()).expect("a directory");
        let run = crate::sys::process::own_run().expect("an id");
        let temporary = store.create(&run, "ae001100.dat.gz").expect("a file").temporary().to_owned();
        let file = store.reopen(&temporary, "ae001100.dat.gz").expect("the file");
        let (places, is_read_back) = (Places::new(FIRST_CHUNK_OFFSET), AtomicBool::new(true));
        let control = Control::default();
        Pool::run(&control, 1, 1, Encoder::default, |pool, encoder, unit| {
            let is_read_back = Some(&is_read_back);
            let mut writer = ChunkWriter { file: &file, places: &places, pool, unit, encoder, is_read_back };
            let bytes: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
            let form = ChunkForm::Columns(Layout::Best);
            let written = writer.write(form, Turn::Kept, &bytes, crc::of(&bytes))?;
            let zeros = writer.write_run(&[0..1 << 20, 1 << 20..2 << 20, 2 << 20..3 << 20], |_| form)?;
            writer.compare(&zeros)?;
            let disk = std::fs::OpenOptions::new().write(true).open(scratch.path().join(&temporary)).expect("the file");
            std::os::unix::fs::FileExt::write_all_at(&disk, &[0xa5; 3], written.chunk.offset + 1000).expect("written");
            disk.sync_all().expect("on the disk");
            // A file system without direct I/O is read when all is written.
            if is_read_back.is_some_and(|is| is.load(Ordering::Relaxed)) {
                let error = writer.compare(&[written]).expect_err("another chunk");
                assert_eq!((error.first().code, error.first().offset), (Code::CompareFailed, Some(written.chunk.offset)));
                writer.compare(&zeros).expect("these are as they were");
            }
            Ok(())
        })
        .expect("no error");
    }
}
