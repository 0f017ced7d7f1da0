//! For tests: what a real server wrote, and how alike elements are.

use std::io::Write;

/// A file of the arena that a real server had.
pub fn fixture(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/server/arena-ce").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bits of entropy of each column of 64 bytes, of a value made of two elements in a row.
pub fn entropies(elements: &[u8], value: impl Fn(&[u8], usize) -> u8) -> Vec<f64> {
    let of = |column: usize| {
        let mut counts = [0u32; 256];
        let count = elements.len() / 64 - 1;
        elements.windows(128).step_by(64).for_each(|two| counts[usize::from(value(two, column))] += 1);
        let bits = |count_of_value: &u32| f64::from(*count_of_value) / count as f64;
        counts.iter().filter(|count| **count > 0).map(bits).map(|share| -share * share.log2()).sum()
    };
    (0..64).map(of).collect()
}

/// What zlib makes of them, in percent of their size.
pub fn deflated_percent(elements: &[u8], level: u32) -> f64 {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(elements).expect("stored in memory");
    100.0 * encoder.finish().expect("stored in memory").len() as f64 / elements.len() as f64
}
