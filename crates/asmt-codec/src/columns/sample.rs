//! What the columns of a chunk are like, from a sample of its rows, for any width.
//!
//! Promise: costs no more than a small share of the chunk. Must never: be believed where it
//! matters: a column that looks constant is compared to its end.

use super::blocks;
use super::transpose;
use crate::simd::SimdLevel;
use std::sync::LazyLock;

/// Rows that are looked at together, and most of all that are looked at.
const RUN: usize = 32;
const MOST_ROWS: usize = 1024;
/// Fewer rows are no table.
const FEWEST_ROWS: usize = 16;
/// Values of a column that are few, and that are many.
const FEW: usize = 12;
const MANY: usize = 96;
/// Bits of a byte that differences must save.
const LEAST_GAIN: f32 = 0.4;

/// What a column is, as far as the sample tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One byte.
    Constant,
    /// No code makes it shorter.
    Noise,
    /// Some bytes are more frequent than others.
    Skewed,
    /// The same of the differences of neighbours, which makes it shorter.
    Drifting,
    /// Nearly every byte is the same as the one before it.
    Runs,
}

/// Which bytes a column has, as far as the sample tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// These few.
    Few(Vec<u8>),
    /// A number of them.
    Some,
    /// So many that it may have any.
    Many,
}

/// A column as the sample shows it.
pub struct Column {
    /// What it is.
    pub kind: Kind,
    /// Which bytes it has; of their differences if it is drifting.
    pub values: Values,
    /// About how many bytes it becomes.
    estimated_bytes: usize,
}

/// A chunk seen with a width.
pub struct Sample {
    /// Bytes of an element.
    pub width: usize,
    /// Its columns.
    pub columns: Vec<Column>,
    /// About how many bytes the chunk becomes.
    pub estimated_bytes: usize,
    /// Of these, those of columns of noise.
    pub noise_bytes: usize,
}

/// n × log2 n.
static N_LOG_N: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..=MOST_ROWS).map(|n| if n == 0 { 0.0 } else { n as f32 * (n as f32).log2() }).collect());

/// How often each byte was seen.
struct Counts([u16; 256]);

impl Counts {
    fn of(bytes: &[u8]) -> Self {
        let mut tables = [[0u16; 256]; 2];
        let (pairs, rest) = bytes.as_chunks::<2>();
        for pair in pairs {
            (tables.iter_mut().zip(pair)).for_each(|(table, byte)| table[usize::from(*byte)] += 1);
        }
        rest.iter().for_each(|byte| tables[0][usize::from(*byte)] += 1);
        Self(std::array::from_fn(|byte| tables[0][byte] + tables[1][byte]))
    }

    fn distinct(&self) -> usize {
        self.0.iter().filter(|count| **count > 0).count()
    }

    fn values(&self) -> Values {
        match self.distinct() {
            ..=FEW => Values::Few((0..=u8::MAX).filter(|byte| self.0[usize::from(*byte)] > 0).collect()),
            MANY.. => Values::Many,
            _ => Values::Some,
        }
    }

    /// Bits of information in a byte, of `count` in all.
    fn entropy(&self, count: usize) -> f32 {
        let n_log_n = &N_LOG_N[..];
        let sum: f32 = self.0.iter().map(|count| n_log_n[usize::from(*count)]).sum();
        // A sample has less information than what it is of (Miller and Madow).
        let missing = (self.distinct() as f32 - 1.0) / (2.0 * std::f32::consts::LN_2 * count as f32);
        ((n_log_n[count] - sum) / count as f32 + missing).min(8.0)
    }
}

impl Column {
    /// Its byte, if it has but one.
    pub fn constant(&self) -> Option<u8> {
        match (self.kind, &self.values) {
            (Kind::Constant, Values::Few(few)) => few.first().copied(),
            _ => None,
        }
    }

    /// Of a column of `rows` bytes, by a sample of it. `differences` is room for as many bytes.
    fn new(sample: &[u8], differences: &mut [u8], rows: usize) -> Self {
        let count = sample.len();
        let stored = blocks::stored_bytes(rows);
        if sample.iter().fold(0, |all, byte| all | (byte ^ sample[0])) == 0 {
            let estimated_bytes = (rows / 1032 + 32).min(stored);
            return Self { kind: Kind::Constant, values: Values::Few(vec![sample[0]]), estimated_bytes };
        }
        let plain = Counts::of(sample);
        let (mut kind, mut values, mut bits) = (Kind::Skewed, plain.values(), plain.entropy(count));
        for (runs, differences) in sample.chunks(RUN).zip(differences.chunks_mut(RUN)) {
            differences[0] = 0;
            let pairs = runs[1..].iter().zip(runs);
            differences[1..].iter_mut().zip(pairs).for_each(|(to, (byte, before))| *to = byte.wrapping_sub(*before));
        }
        let same = differences.iter().filter(|difference| **difference == 0).count();
        if !matches!(values, Values::Few(_)) {
            let seen = Counts::of(differences);
            let bits_of_differences = seen.entropy(count);
            if bits_of_differences < bits - LEAST_GAIN {
                (kind, values, bits) = (Kind::Drifting, seen.values(), bits_of_differences);
            }
        }
        // A table costs about as much; a code has a bit at least, and a run a byte and a half.
        let mut estimated_bytes = (bits.max(1.0) * rows as f32 / 8.0) as usize + 40;
        let by_runs = (count - same) * rows / count * 3 / 2 + 60;
        if same >= count / 8 * 7 && by_runs < estimated_bytes {
            (kind, estimated_bytes) = (Kind::Runs, by_runs);
        }
        if estimated_bytes >= stored - stored / 32 {
            (kind, estimated_bytes) = (Kind::Noise, stored);
        }
        Self { kind, values, estimated_bytes }
    }
}

impl Sample {
    /// `None` if there are too few rows.
    pub fn new(chunk: &[u8], width: usize, way: SimdLevel) -> Option<Self> {
        let rows = chunk.len() / width;
        if rows < FEWEST_ROWS {
            return None;
        }
        // All of them if they are not too many; else runs of them from all over.
        let taken = rows.min(MOST_ROWS);
        let mut sampled = Vec::with_capacity(taken * width);
        let runs = taken.div_ceil(RUN);
        for run in 0..runs {
            let count = RUN.min(taken - run * RUN);
            let first = if taken == rows { run * RUN } else { run * (rows - RUN) / (runs - 1) };
            sampled.extend_from_slice(&chunk[first * width..(first + count) * width]);
        }
        let mut columns = vec![0; sampled.len()];
        transpose::to_columns(&sampled, width, &mut vec![None; width], &mut columns, way);
        let mut differences = vec![0; taken];
        let columns = columns.chunks_exact(taken).map(|column| Column::new(column, &mut differences, rows));
        let columns: Vec<Column> = columns.collect();
        let estimated_bytes = columns.iter().map(|column| column.estimated_bytes).sum::<usize>() + chunk.len() % width;
        let noise = columns.iter().filter(|column| column.kind == Kind::Noise);
        let noise_bytes = noise.map(|column| column.estimated_bytes).sum();
        Some(Self { width, columns, estimated_bytes, noise_bytes })
    }

    /// Whether noise is most of what is left, so that no other encoder finds much.
    pub fn is_mostly_noise(&self, chunk_bytes: usize) -> bool {
        self.estimated_bytes < chunk_bytes / 4 * 3 && self.estimated_bytes / 3 * 2 < self.noise_bytes
    }
}
