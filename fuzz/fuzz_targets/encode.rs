//! Any chunk becomes blocks that three decoders read back to it, and never more bytes than was
//! promised.
//!
//! The input describes a table. Must never: make more than a few stored blocks' worth, or a run
//! shows little.

#![no_main]

use asmt_codec::encode::{ChunkKind, encoder, max_encoded_bytes};
use asmt_fuzz::{decoded_by_us, decoded_by_zlib, table};
use libfuzzer_sys::fuzz_target;

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
