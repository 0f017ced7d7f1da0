//! The encoders make the same bytes at every level of SIMD and on every architecture: a file that
//! is written on one machine is the file that another one would have written.
//!
//! A test can only compare the levels of the machine that it runs on. So it also prints a line with
//! the sums of what each encoder makes of many inputs, for `npm run test:arch` to compare.

use crate::columns::{self, ColumnEncoder};
use crate::encode::{ChunkKind, encoder_of, max_encoded_bytes};
use crate::simd::SimdLevel;
use crate::tests::random;

/// Lengths around those of vectors, blocks and windows, and a long one.
const LENGTHS: [usize; 12] = [1, 63, 64, 65, 1000, 4095, 32_768, 65_535, 65_536, 65_600, 131_071, 400_000];

/// An input of a kind: zeros, noise, text, and tables of several widths.
fn input(kind: usize, length: usize) -> Vec<u8> {
    let state = &mut (1 + kind as u64 * 1000 + length as u64);
    let mut row = vec![0u8; [64, 5, 8, 16, 24, 128][kind % 6]];
    let (mut bytes, mut number) = (Vec::with_capacity(length + row.len()), 0u32);
    while bytes.len() < length {
        let noise = random(state);
        match kind {
            0 => row.fill(0),
            1 => row.fill_with(|| random(state)),
            2 => row.copy_from_slice(&b"a word, another one, and a third"[usize::from(noise) % 25..][..8]),
            _ => {
                number += u32::from(noise & 3);
                let places = row.len();
                row[..4].copy_from_slice(&number.to_le_bytes());
                row[places - 1] = noise & 7;
                row[places / 2] = if kind.is_multiple_of(2) { random(state) } else { 7 };
            }
        }
        bytes.extend_from_slice(&row);
    }
    bytes.truncate(length);
    bytes
}

/// Bytes of a stage that a server wrote.
fn stage() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/fixtures/server/arena-ce/full-stage-1MiB.bin");
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// CRC-32 and number of all bytes that an encoder makes.
#[derive(Default)]
struct Sum {
    crc32: crc32fast::Hasher,
    bytes: usize,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.crc32.update(bytes);
        self.bytes += bytes.len();
    }

    fn text(self) -> String {
        format!("{:08x} of {} bytes", self.crc32.finalize(), self.bytes)
    }
}

/// The sums of what each encoder makes of all inputs at this level.
fn sums(level: SimdLevel, inputs: &[Vec<u8>]) -> String {
    let [mut elements, mut other, mut by_columns, mut rows] = [(); 4].map(|()| Sum::default());
    let (mut encoder, mut column_encoder) = (encoder_of(level), ColumnEncoder::new(level));
    let mut output = Vec::new();
    for chunk in inputs {
        let length = chunk.len() as u64;
        output.resize(max_encoded_bytes(length).max(columns::max_encoded_bytes(length)) as usize, 0);
        for (sum, kind) in [(&mut elements, ChunkKind::Elements), (&mut other, ChunkKind::Other)] {
            let made = encoder.encode(chunk, kind, &mut output);
            sum.add(&output[..made]);
        }
        let made = column_encoder.encode(chunk, &mut output).length;
        by_columns.add(&output[..made]);
        let made = column_encoder.encode_rows(chunk, &mut output).length;
        rows.add(&output[..made]);
    }
    let texts = [("elements", elements), ("other", other), ("columns", by_columns), ("rows", rows)];
    texts.map(|(name, sum)| format!("{name} {}", sum.text())).join(", ")
}

#[test]
fn every_level_makes_the_same_bytes_of_many_inputs() {
    let mut inputs: Vec<_> = (0..12).flat_map(|kind| LENGTHS.map(|length| input(kind, length))).collect();
    inputs.push(stage());
    let all: Vec<_> = SimdLevel::available().into_iter().map(|level| (level.name(), sums(level, &inputs))).collect();
    for (name, sums) in &all {
        assert_eq!(sums, &all[0].1, "{name}");
    }
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    // `scripts/arch.mjs` looks for this line.
    println!("encoder sums: {} inputs: {} (levels: {})", inputs.len(), all[0].1, names.join(", "));
}
