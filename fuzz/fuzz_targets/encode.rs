//! Any chunk becomes blocks that three decoders read back to it, and never more bytes than was
//! promised.
//!
//! The input describes a table, for a fuzzer makes no long ones: a width, a number of elements,
//! what is in each column, and places that are changed. Must never: make more than a few stored
//! blocks' worth, or a run shows little.

#![no_main]

use asmt_codec::encode::{ChunkKind, encoder, max_encoded_bytes};
use asmt_fuzz::{choice, decoded_by_us, decoded_by_zlib};
use libfuzzer_sys::fuzz_target;

/// A stored block's most bytes, a trial's bytes, and some.
const MOST_BYTES: usize = 80 << 10;

fn table(data: &[u8]) -> Option<Vec<u8>> {
    let (width, data) = choice(data)?;
    let (count, data) = choice(data)?;
    if width == 0 {
        return Some(data.to_vec());
    }
    let width = usize::from(width);
    // Few elements as often as many.
    let length = ((width * (usize::from(count) + 1)) << (count % 7)).min(MOST_BYTES);
    let (columns, changes) = data.split_at(width.min(data.len()));
    let mut state = columns.iter().fold(u64::from(count), |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut bytes = Vec::with_capacity(length);
    for at in 0..length {
        let (row, column) = (at / width, columns.get(at % width).copied().unwrap_or(0));
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 56) as u8;
        bytes.push(match column % 8 {
            0 => 0,
            1 => row as u8,
            2 => (row >> 8) as u8,
            3 => random,
            4 => column ^ (random & 3),
            5 if random < 8 => random,
            6 if at >= 2 * width => bytes[at - 2 * width],
            7 => random & random.rotate_left(3) & random.rotate_left(5),
            _ => column,
        });
    }
    for change in changes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) * 2 % length;
        let end = (at + usize::from(change[2])).min(length);
        bytes[at..end].fill(change[3]);
    }
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let Some(chunk) = table(data) else { return };
    for kind in [ChunkKind::Elements, ChunkKind::Other] {
        let most = max_encoded_bytes(chunk.len() as u64) as usize;
        let mut blocks = vec![0xa5; most];
        let made = encoder().encode(&chunk, kind, &mut blocks);
        assert!(made <= most, "{made} bytes, expected at most {most}");
        blocks.truncate(made);
        assert!(decoded_by_us(&blocks, chunk.len()).as_ref() == Ok(&chunk), "asmt reads it back");
        assert!(decoded_by_zlib(&blocks, chunk.len()).as_ref() == Some(&chunk), "zlib-rs reads it back");
        blocks.extend_from_slice(&asmt_codec::DEFLATE_END);
        let back = miniz_oxide::inflate::decompress_to_vec_with_limit(&blocks, chunk.len());
        assert!(back.is_ok_and(|back| back == chunk), "miniz_oxide reads it back");
    }
});
