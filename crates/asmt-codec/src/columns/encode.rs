//! The encoder of chunks by columns.
//!
//! Promise: never more bytes than [`max_encoded_bytes`]; the same bytes whatever the CPU. Must
//! never: believe that a chunk is what its segment's type says.

use super::blocks::{self, Run};
use super::head::{self, MOST_PARTS, PLAIN_PART_BYTES, Part, max_encoded_bytes};
use super::sample::{Column, Kind, Sample, Values};
use super::transpose;
use super::write_literals::LiteralWriter;
use crate::crc;
use crate::encode::{self, GeneralEncoder, try_both};
use crate::simd::SimdLevel;
use crate::stride::Stride;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of its blocks.
    pub length: usize,
    /// Bytes that they decompress to.
    pub content_bytes: usize,
    /// CRC-32 of what they decompress to.
    pub content_crc32: u32,
}

/// Encodes chunks by columns. One a thread; it keeps room for a chunk.
pub struct ColumnEncoder {
    way: SimdLevel,
    general: GeneralEncoder,
    /// The chunk, transposed.
    columns: Vec<u8>,
    differences: Vec<u8>,
    scratch: Vec<u8>,
    literals: LiteralWriter,
    run: Run,
    parts: Vec<Part>,
}

impl Default for ColumnEncoder {
    fn default() -> Self {
        Self::new(SimdLevel::best())
    }
}

/// Widths that are tried: elements of the primary index first, then handles and words.
const WIDTHS: [usize; 8] = [64, 5, 8, 16, 4, 24, 32, 128];
/// Room that the encoder by strides wants beyond what it makes.
const STRIDE_ROOM: usize = 64 << 10;

/// How a chunk is encoded.
enum Plan {
    /// By columns.
    Columns(Sample),
    /// Not transposed, as the primary index was before there were columns.
    Stride(Stride),
    /// Not transposed, by the general encoder.
    General,
    /// As it is.
    Store,
}

/// How bytes of one column or several are encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Run(u8),
    Store,
    Runs,
    Literals { values: Values, is_differences: bool },
}

impl ColumnEncoder {
    /// One that works in this way.
    pub(crate) fn new(way: SimdLevel) -> Self {
        Self {
            way,
            general: GeneralEncoder::default(),
            columns: Vec::new(),
            differences: Vec::new(),
            scratch: Vec::new(),
            literals: LiteralWriter::new(way),
            run: Run::default(),
            parts: Vec::new(),
        }
    }

    /// Encodes a chunk of at most 16 MiB to the beginning of `output`, which has
    /// [`max_encoded_bytes`] at least.
    pub fn encode(&mut self, chunk: &[u8], output: &mut [u8]) -> Encoded {
        let room = usize::try_from(max_encoded_bytes(chunk.len() as u64)).expect("a chunk fits memory");
        let output = &mut output[..room];
        let plan = self.plan(chunk);
        let by_columns = if let Plan::Columns(sample) = &plan { self.by_columns(chunk, sample, output) } else { None };
        let (length, crc32) = by_columns.unwrap_or_else(|| self.by_parts(chunk, &plan, output));
        self.encoded(chunk, length, crc32, output)
    }

    /// Encodes a chunk with nothing transposed, so that its first bytes can be decoded without the
    /// rest; otherwise as [`Self::encode`].
    pub fn encode_rows(&mut self, chunk: &[u8], output: &mut [u8]) -> Encoded {
        let plan = self.plan_rows(chunk).0;
        let (length, crc32) = self.by_parts(chunk, &plan, output);
        self.encoded(chunk, length, crc32, output)
    }

    /// What became of a chunk: `length` bytes of output, with the CRC-32 of its bytes in their new
    /// order.
    fn encoded(&self, chunk: &[u8], length: usize, crc32: u32, output: &[u8]) -> Encoded {
        let head = &output[head::STORED_HEADER_BYTES..head::head_bytes(self.parts.len())];
        let content_crc32 = crc::combine([(head.len() as u64, crc::of(head)), (chunk.len() as u64, crc32)].into_iter());
        Encoded { length, content_bytes: head.len() + chunk.len(), content_crc32 }
    }

    /// How a chunk is best encoded.
    fn plan(&mut self, chunk: &[u8]) -> Plan {
        let is_known = |sample: &Sample| sample.is_mostly_noise(chunk.len()) || sample.estimated_bytes < chunk.len() / 256;
        let mut best: Option<Sample> = None;
        for width in WIDTHS {
            let sample = Sample::new(chunk, width, self.way);
            let is_better = |sample: &Sample| best.as_ref().is_none_or(|best| sample.estimated_bytes < best.estimated_bytes);
            best = sample.filter(is_better).or(best);
            if width == WIDTHS[0] && best.as_ref().is_some_and(is_known) {
                break;
            }
        }
        if let Some(sample) = best.take_if(|best| is_known(best)) {
            return Plan::Columns(sample);
        }
        let (plain, bytes) = self.plan_rows(chunk);
        match best {
            Some(best) if best.estimated_bytes < bytes => Plan::Columns(best),
            _ => plain,
        }
    }

    /// How a chunk is best encoded with nothing transposed, and about how many bytes it has then.
    fn plan_rows(&mut self, chunk: &[u8]) -> (Plan, usize) {
        let stride = Stride::plan(chunk, self.way);
        let (by_stride, by_general) = try_both(&stride, &mut self.general, chunk, &mut self.scratch, self.way);
        // The general encoder is about ten times slower.
        let (plain, bytes) =
            if by_general < by_stride / 8 * 7 { (Plan::General, by_general) } else { (Plan::Stride(stride), by_stride) };
        if bytes < chunk.len() { (plain, bytes) } else { (Plan::Store, chunk.len()) }
    }

    /// Gives the number of bytes, and the CRC-32 of the chunk's bytes transposed; `None` if there
    /// is not room for them.
    fn by_columns(&mut self, chunk: &[u8], sample: &Sample, output: &mut [u8]) -> Option<(usize, u32)> {
        self.columns.resize(chunk.len(), 0);
        let mut known: Vec<Option<u8>> = sample.columns.iter().map(|column| column.constant()).collect();
        transpose::to_columns(chunk, sample.width, &mut known, &mut self.columns, self.way);
        let rows = chunk.len() / sample.width;
        let mut ways: Vec<(Way, usize)> = Vec::with_capacity(sample.width + 1);
        for (column, known) in sample.columns.iter().zip(known) {
            add(&mut ways, way_of(column, known), rows);
        }
        add(&mut ways, Way::Store, chunk.len() % sample.width);
        if ways.len() > MOST_PARTS {
            return None;
        }
        let (mut end, mut at) = (head::head_bytes(ways.len()), 0);
        let mut sum = crc::RangeSum::new(&(0..chunk.len() as u64));
        self.parts.clear();
        for (way, length) in ways {
            let is_differences = matches!(way, Way::Literals { is_differences: true, .. });
            let place = output.get_mut(end..)?;
            let encoded_bytes = self.part(at..at + length, &way, place, &mut sum)?;
            self.parts.push(Part { encoded_bytes, content_bytes: length, is_differences });
            (end, at) = (end + encoded_bytes, at + length);
        }
        head::write(output, chunk.len(), sample.width, &self.parts);
        Some((end, sum.finish()))
    }

    /// Encodes a part of the transposed bytes to the beginning of `output`, and adds its content to
    /// the sum. Gives the number of bytes.
    fn part(&mut self, range: std::ops::Range<usize>, way: &Way, output: &mut [u8], sum: &mut crc::RangeSum) -> Option<usize> {
        let offset = range.start as u64;
        if let Way::Run(byte) = way {
            return self.run_part(*byte, range, output, sum);
        }
        let mut content = &self.columns[range];
        if let Way::Literals { is_differences: true, .. } = way {
            differences(content, &mut self.differences);
            content = &self.differences;
        }
        sum.add(offset, content);
        let stored = blocks::stored_bytes(content.len());
        let made = match way {
            Way::Literals { values, .. } => self.literals.write(content, values, stored),
            Way::Runs => {
                self.scratch.resize(stored + STRIDE_ROOM, 0);
                let plan = Stride::plan(content, self.way);
                let made = plan.encode(content, &mut self.scratch, self.way);
                made.filter(|made| *made < stored).map(|made| &self.scratch[..made])
            }
            Way::Store | Way::Run(_) => None,
        };
        let encoded_bytes = made.map_or(stored, <[u8]>::len);
        let place = output.get_mut(..encoded_bytes)?;
        match made {
            Some(made) => place.copy_from_slice(made),
            None => blocks::store(content, place),
        }
        Some(encoded_bytes)
    }

    /// The same for a part that is nothing but this byte, and that was not transposed.
    fn run_part(&mut self, byte: u8, range: std::ops::Range<usize>, output: &mut [u8], sum: &mut crc::RangeSum) -> Option<usize> {
        const PIECE_BYTES: usize = 4096;
        let piece = [byte; PIECE_BYTES];
        for at in range.clone().step_by(PIECE_BYTES) {
            sum.add(at as u64, &piece[..PIECE_BYTES.min(range.end - at)]);
        }
        let stored = blocks::stored_bytes(range.len());
        let made = self.run.encode(byte, range.len());
        if made.len() < stored {
            output.get_mut(..made.len())?.copy_from_slice(made);
            return Some(made.len());
        }
        self.scratch.clear();
        self.scratch.resize(range.len(), byte);
        blocks::store(&self.scratch, output.get_mut(..stored)?);
        Some(stored)
    }

    /// The same with nothing transposed.
    fn by_parts(&mut self, chunk: &[u8], plan: &Plan, output: &mut [u8]) -> (usize, u32) {
        let mut end = head::head_bytes(chunk.len().div_ceil(PLAIN_PART_BYTES));
        self.parts.clear();
        for part in chunk.chunks(PLAIN_PART_BYTES) {
            // The encoder by strides wants more room than it uses.
            let room = usize::try_from(encode::max_encoded_bytes(part.len() as u64)).expect("a part fits memory");
            self.scratch.resize(room + STRIDE_ROOM, 0);
            let made = match plan {
                Plan::Stride(stride) => stride.encode(part, &mut self.scratch, self.way),
                Plan::General => self.general.encode(part, &mut self.scratch),
                Plan::Columns(_) | Plan::Store => None,
            };
            let place = &mut output[end..];
            let encoded_bytes = if let Some(made) = made.filter(|made| *made <= room) {
                place[..made].copy_from_slice(&self.scratch[..made]);
                made
            } else {
                encode::store(part, place)
            };
            end += encoded_bytes;
            self.parts.push(Part { encoded_bytes, content_bytes: part.len(), is_differences: false });
        }
        head::write(output, chunk.len(), 1, &self.parts);
        (end, crc::of(chunk))
    }
}

/// How a column is encoded; `known` is the one byte that it has if that is so.
fn way_of(column: &Column, known: Option<u8>) -> Way {
    let values = || column.values.clone();
    match (column.kind, known) {
        (_, Some(byte)) => Way::Run(byte),
        (Kind::Constant | Kind::Runs, _) => Way::Runs,
        (Kind::Noise, _) => Way::Store,
        (Kind::Skewed, _) => Way::Literals { values: values(), is_differences: false },
        (Kind::Drifting, _) => Way::Literals { values: values(), is_differences: true },
    }
}

/// Adds bytes that are encoded in this way; with those before them, if that is one run or one row
/// of stored blocks.
fn add(ways: &mut Vec<(Way, usize)>, way: Way, length: usize) {
    match ways.last_mut() {
        _ if length == 0 => {}
        Some((last, total)) if *last == way && matches!(way, Way::Run(_) | Way::Store) => *total += length,
        _ => ways.push((way, length)),
    }
}

/// The first byte, and the differences of neighbours.
fn differences(bytes: &[u8], differences: &mut Vec<u8>) {
    differences.clear();
    differences.extend_from_slice(&bytes[..1]);
    differences.extend(bytes[1..].iter().zip(bytes).map(|(byte, before)| byte.wrapping_sub(*before)));
}
