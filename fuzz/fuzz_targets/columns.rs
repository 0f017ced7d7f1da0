//! Any chunk becomes a chunk by columns that asmt and a plain reader read back, and never more
//! bytes than was promised; with bytes changed, or any bytes instead, both say the same.
//!
//! The input describes a table and changes, or is the blocks themselves. Must never: take a length
//! from it without a bound.

#![no_main]

use asmt_codec::DEFLATE_END;
use asmt_codec::columns::{ColumnEncoder, max_content_bytes, max_encoded_bytes};
use asmt_codec::reference::{STRICTER, columns_by_us, columns_by_zlib, columns_chunk};
use asmt_fuzz::{choice, table};
use libfuzzer_sys::fuzz_target;

/// Most bytes of a chunk whose length the input tells.
const MOST_BYTES: usize = 64 << 10;

fn assert_same_verdict(blocks: &[u8], length: usize) {
    match (columns_by_us(blocks, length), columns_by_zlib(blocks, length)) {
        (Err(text), None) => assert!(!text.is_empty()),
        (Err(text), Some(_)) => assert!(text.ends_with(STRICTER), "a plain reader accepts it: {text}"),
        (Ok(ours), theirs) => assert!(theirs.as_ref() == Some(&ours), "a plain reader: {}", theirs.is_some()),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = choice(data) else { return };
    if how >= 192 {
        // The length is where it stands in the head.
        let length = data.get(5..9).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        assert_same_verdict(data, (length as usize).min(MOST_BYTES));
        return;
    }
    let changes = usize::from(how % 4).min(data.len() / 3);
    let (changes, data) = data.split_at(3 * changes);
    let Some(chunk) = table(data) else { return };
    let most = max_encoded_bytes(chunk.len() as u64) as usize;
    let mut blocks = vec![0xa5; most];
    let made = ColumnEncoder::default().encode(&chunk, &mut blocks);
    assert!(made.length <= most, "{} bytes, expected at most {most}", made.length);
    assert!(made.content_bytes as u64 <= max_content_bytes(chunk.len() as u64));
    blocks.truncate(made.length);
    assert!(columns_by_us(&blocks, chunk.len()).as_ref() == Ok(&chunk), "asmt reads it back");
    let stream = [&blocks[..], &DEFLATE_END].concat();
    let content = miniz_oxide::inflate::decompress_to_vec_with_limit(&stream, made.content_bytes).expect("a stream");
    assert_eq!((content.len(), crc32fast::hash(&content)), (made.content_bytes, made.content_crc32));
    assert!(columns_chunk(&content).as_ref() == Some(&chunk), "a plain reader reads it back");
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % blocks.len();
        blocks[at] ^= change[2];
    }
    assert_same_verdict(&blocks, chunk.len());
});
