//! By what the decoders of chunks are judged: zlib-rs, a plain reader of columns, and themselves in
//! every way that the CPU has.
//!
//! Promise: knows nothing of how the decoders work. Must never: be part of the program: this
//! crate's tests are built with it, and the fuzz targets by its feature `testing`.

use crate::columns::ColumnDecoder;
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
    by_every_way(length, |way, back| Inflater::new(way).inflate(blocks, back))
}

/// The same of a chunk by columns.
pub fn columns_by_us(blocks: &[u8], length: usize) -> Result<Vec<u8>, String> {
    by_every_way(length, |way, back| ColumnDecoder::new(way).decode(blocks, back))
}

fn by_every_way(length: usize, decode: impl Fn(SimdLevel, &mut [u8]) -> Result<(), String>) -> Result<Vec<u8>, String> {
    let mut all = SimdLevel::available().into_iter().map(|way| {
        let mut back = vec![0xa5; length];
        decode(way, &mut back).map(|()| back)
    });
    let first = all.next().expect("a portable way");
    assert!(all.all(|other| other == first), "the ways disagree");
    first
}

/// What is refused by us alone, although zlib-rs takes it: see `inflate.rs`.
pub const STRICTER: &str = "a block's code for literals takes 16384 of 32768 codes, expected all";

/// Takes bytes from the front of others.
fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The head of a content by columns: bytes of the chunk, width, and of each part what its first
/// word is, and its bytes of content.
type Head = (usize, usize, Vec<(usize, usize)>);

fn columns_head(content: &mut &[u8]) -> Option<Head> {
    let (size, width, count) = (number(take(content, 4)?), number(take(content, 2)?), number(take(content, 2)?));
    let parts = (0..count).map(|_| Some((number(take(content, 4)?), number(take(content, 4)?)))).collect::<Option<_>>()?;
    Some((size, width, parts))
}

/// The chunk of a content by columns, as the format says; `None` if it is not one.
pub fn columns_chunk(mut content: &[u8]) -> Option<Vec<u8>> {
    let (size, width, parts) = columns_head(&mut content)?;
    let mut all = Vec::new();
    for (word, length) in parts {
        let mut before = 0u8;
        for byte in take(&mut content, length)? {
            before = if word >> 31 == 1 { before.wrapping_add(*byte) } else { *byte };
            all.push(before);
        }
    }
    let rows = size.checked_div(width)?;
    let source = |at: usize| if at < rows * width { at % width * rows + at / width } else { at };
    (all.len() == size && content.is_empty()).then(|| (0..size).map(|at| all[source(at)]).collect())
}

/// What a plain reader makes of the blocks of a chunk by columns: part by part, by zlib-rs.
pub fn columns_by_zlib(blocks: &[u8], length: usize) -> Option<Vec<u8>> {
    let (mut rest, mut content) = (blocks, Vec::new());
    let header = take(&mut rest, 5)?;
    let (head_bytes, complement) = (number(&header[1..3]), number(&header[3..5]));
    let head = take(&mut rest, head_bytes).filter(|_| header[0] == 0 && head_bytes ^ complement == 0xffff)?;
    content.extend_from_slice(head);
    let mut entries = head;
    let (size, _, parts) = columns_head(&mut entries)?;
    if size != length || !entries.is_empty() || parts.iter().map(|part| part.1).sum::<usize>() != size {
        return None;
    }
    for (word, length) in parts {
        content.extend(decoded_by_zlib(take(&mut rest, word & 0x7fff_ffff)?, length)?);
    }
    decoded_by_zlib(rest, 0)?;
    columns_chunk(&content)
}
