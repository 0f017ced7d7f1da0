//! By what the decoder of chunks is judged: zlib-rs, and itself in every way that the CPU has.
//!
//! Promise: knows nothing of how the decoder works. Must never: be part of the program: this
//! crate's tests are built with it, and the fuzz targets by its feature `testing`.

use crate::inflate::Inflater;
use crate::simd::SimdLevel;
use crate::{DEFLATE_END, WINDOW_BITS};
use zlib_rs::{Inflate, InflateFlush, Status};

/// What zlib-rs makes of a chunk: blocks that end where the chunk does, and nothing else.
pub fn decoded_by_zlib(blocks: &[u8], length: usize) -> Option<Vec<u8>> {
    /// Two blocks that end a stream. One alone may by chance be the rest of a block that was cut
    /// short.
    const ENDS: [&[u8]; 2] = [&DEFLATE_END, &[1, 0, 0, 0xff, 0xff]];
    let [one, other] = ENDS.map(|end| {
        let (mut inflate, mut back) = (Inflate::new(false, WINDOW_BITS), vec![0; length]);
        let stream = [blocks, end].concat();
        let mut is_end = false;
        // Once more than there is to do, to get beyond the last byte of output.
        for _ in 0..2 {
            let (used, made) = (inflate.total_in() as usize, inflate.total_out() as usize);
            let status = inflate.decompress(&stream[used..], &mut back[made..], InflateFlush::NoFlush);
            is_end = status.ok()? == Status::StreamEnd;
        }
        // Input that is used up is no end: the header of another block may have taken it.
        (is_end && (inflate.total_in(), inflate.total_out()) == (stream.len() as u64, length as u64)).then_some(back)
    });
    if one == other { one } else { None }
}

/// What the decoder makes of a chunk in each way that this machine has; all must agree, also on
/// what is wrong.
pub fn decoded_by_us(blocks: &[u8], length: usize) -> Result<Vec<u8>, String> {
    let mut all = SimdLevel::available().into_iter().map(|way| {
        let mut back = vec![0xa5; length];
        Inflater::new(way).inflate(blocks, &mut back).map(|()| back)
    });
    let first = all.next().expect("a portable way");
    assert!(all.all(|other| other == first), "the ways disagree");
    first
}
