//! What the targets share: streams that reach beyond a block's header, and other decoders to be
//! judged by.
//!
//! Promise: the same input gives the same stream. Must never: take a length from the input without
//! a bound, or a fuzzer finds nothing but its own memory's end.

use asmt_codec::DEFLATE_END;

pub use asmt_codec::reference::{decoded_by_us, decoded_by_zlib};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Strategy};

/// Most bytes that a stream is decoded to.
pub const MOST_BYTES: usize = 1 << 20;

const WINDOW_BITS: u8 = 15;

const STRATEGIES: [Strategy; 5] = [Strategy::Default, Strategy::Filtered, Strategy::HuffmanOnly, Strategy::Rle, Strategy::Fixed];

/// The first byte and the rest; `None` if there is no byte.
pub fn choice(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// Deflate blocks of the input: its bytes as they are, or what zlib-rs makes of them at a level and
/// by a strategy of its first byte's, with up to three bytes changed. Without that no fuzzer gets
/// past the header of a block with codes.
pub fn stream_of(data: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = choice(data) else { return Vec::new() };
    if how < 64 {
        return rest.to_vec();
    }
    let strategy = STRATEGIES[usize::from(how) % STRATEGIES.len()];
    let count = usize::from(how / 5 % 4).min(rest.len() / 3);
    let (changes, plain) = rest.split_at(3 * count);
    let config =
        DeflateConfig { level: i32::from(how % 9) + 1, strategy, window_bits: -i32::from(WINDOW_BITS), ..Default::default() };
    let mut stream = vec![0; 2 * plain.len() + 1000];
    let mut deflate = Deflate::new_with_config(config);
    deflate.compress(plain, &mut stream, DeflateFlush::FullFlush).expect("room");
    assert_eq!(deflate.total_in(), plain.len() as u64, "room for all of it");
    stream.truncate(deflate.total_out() as usize);
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % stream.len();
        stream[at] ^= change[2];
    }
    stream
}

/// How many bytes a row of blocks makes, as a third decoder tells; `None` if it takes it for none.
pub fn length_of(blocks: &[u8]) -> Option<usize> {
    let stream = [blocks, &DEFLATE_END].concat();
    miniz_oxide::inflate::decompress_to_vec_with_limit(&stream, MOST_BYTES).ok().map(|bytes| bytes.len())
}

/// A stored block's most bytes, a trial's bytes, and some.
const MOST_TABLE_BYTES: usize = 80 << 10;

/// A table that the input describes, for a fuzzer makes no long ones: a width, a number of
/// elements, what is in each column, and places that are changed.
pub fn table(data: &[u8]) -> Option<Vec<u8>> {
    let (width, data) = choice(data)?;
    let (count, data) = choice(data)?;
    if width == 0 {
        return Some(data.to_vec());
    }
    let width = usize::from(width);
    // Few elements as often as many.
    let length = ((width * (usize::from(count) + 1)) << (count % 7)).min(MOST_TABLE_BYTES);
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
