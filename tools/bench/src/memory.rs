//! The limits of memory and CPU without a disk: copying, and CRC-32.
//!
//! Promise: all memory was touched before the clock runs.

use crate::{Figures, attach_all, figures, pieces};
use asmt_kit::threads::in_parallel;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes that each thread copies in a round: more than any cache holds.
const COPIED_BYTES: usize = 256 << 20;

/// Copies this number of bytes on each thread.
pub fn copy(threads: usize, bytes: u64) -> Figures {
    let started = std::sync::Barrier::new(threads.max(1) + 1);
    let rounds = bytes.div_ceil(COPIED_BYTES as u64);
    let worker = || {
        let (from, mut to) = (vec![1u8; COPIED_BYTES], vec![2u8; COPIED_BYTES]);
        started.wait();
        for _ in 0..rounds {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
    };
    let since = std::thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| drop(scope.spawn(worker)));
        started.wait();
        Instant::now()
    });
    Ok(figures(rounds * COPIED_BYTES as u64 * threads.max(1) as u64, since))
}

/// CRC-32 of the segments, in pieces.
pub fn crc32(threads: usize) -> Figures {
    let segments = attach_all()?;
    let pieces = pieces(&segments)?;
    let sums = AtomicU64::new(0);
    let sum = |(): &mut (), index: usize| {
        let (number, range) = &pieces[index];
        let crc32 = crc32fast::hash(segments[*number].attachment.bytes(range.clone()));
        sums.fetch_add(u64::from(crc32), Ordering::Relaxed);
        Ok(())
    };
    // The first round maps the pages into this process.
    in_parallel(threads, pieces.len(), || (), sum)?;
    let since = Instant::now();
    in_parallel(threads, pieces.len(), || (), sum)?;
    let bytes = pieces.iter().map(|(_, range)| range.end - range.start).sum();
    black_box(sums);
    Ok(figures(bytes, since))
}
