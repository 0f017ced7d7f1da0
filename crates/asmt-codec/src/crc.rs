//! CRC-32 of ranges with holes, which are counted and not read, and of parts put together.
//!
//! Promise: the sum over a range with holes is that of its bytes. Must never: read a hole.

use std::ops::Range;

/// CRC-32 of bytes.
pub fn of(bytes: &[u8]) -> u32 {
    if cfg!(feature = "without-checksums") { 0 } else { crc32fast::hash(bytes) }
}

/// CRC-32 of so many zeros, in logarithmic time.
pub fn of_zeros(bytes: u64) -> u32 {
    // Doubling: the sum of 2n zeros is that of n zeros, put behind itself.
    let mut sum = crc32fast::Hasher::new();
    let mut power = crc32fast::Hasher::new();
    power.update(&[0]);
    let mut left = bytes;
    while left > 0 {
        if left & 1 == 1 {
            sum.combine(&power);
        }
        let twin = power.clone();
        power.combine(&twin);
        left >>= 1;
    }
    sum.finalize()
}

/// A CRC-32 over a range, fed with its data in order; what is left out counts as zeros.
pub struct RangeSum {
    hasher: crc32fast::Hasher,
    position: u64,
    end: u64,
}

impl RangeSum {
    /// Over these bytes.
    pub fn new(range: &Range<u64>) -> Self {
        Self { hasher: crc32fast::Hasher::new(), position: range.start, end: range.end }
    }

    fn zeros_to(&mut self, position: u64) {
        let zeros = position - self.position;
        if zeros > 0 {
            self.hasher.combine(&crc32fast::Hasher::new_with_initial_len(of_zeros(zeros), zeros));
            self.position = position;
        }
    }

    /// Adds bytes at an offset at or after what was added before.
    pub fn add(&mut self, offset: u64, bytes: &[u8]) {
        if cfg!(feature = "without-checksums") {
            return;
        }
        self.zeros_to(offset);
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
    }

    /// The sum over the whole range.
    pub fn finish(mut self) -> u32 {
        self.zeros_to(self.end);
        self.hasher.finalize()
    }
}

/// CRC-32 of parts put one behind the other: (bytes, CRC-32) of each, in order.
pub fn combine(parts: impl Iterator<Item = (u64, u32)>) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for (bytes, crc32) in parts {
        sum.combine(&crc32fast::Hasher::new_with_initial_len(crc32, bytes));
    }
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_add_up() {
        for bytes in [0, 1, 2, 3, 4095, 4096, 65_537] {
            assert_eq!(of_zeros(bytes), crc32fast::hash(&vec![0; bytes as usize]), "{bytes} zeros");
        }
    }

    #[test]
    fn holes_count_as_zeros() {
        let mut bytes = vec![0u8; 10_000];
        bytes[100..200].fill(7);
        bytes[5000..5001].fill(9);
        let mut sum = RangeSum::new(&(50..9000));
        sum.add(100, &bytes[100..200]);
        sum.add(5000, &bytes[5000..5001]);
        assert_eq!(sum.finish(), crc32fast::hash(&bytes[50..9000]));
        let parts = bytes.chunks(4096).map(|part| (part.len() as u64, crc32fast::hash(part)));
        assert_eq!(combine(parts), crc32fast::hash(&bytes));
    }
}
