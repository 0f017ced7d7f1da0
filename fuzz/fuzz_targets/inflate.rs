//! Any bytes are a chunk for our decoder if they are one for zlib-rs, with the same content; what
//! ours alone refuses is what `inflate.rs` says it does.

#![no_main]

use asmt_codec::reference::STRICTER;
use asmt_fuzz::{choice, decoded_by_us, decoded_by_zlib, length_of, stream_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, data)) = choice(data) else { return };
    let blocks = stream_of(data);
    // The right length mostly; else one beside it, or any.
    let right = length_of(&blocks).unwrap_or(usize::from(length) * 8);
    let length = match length {
        0 => right + 1,
        1 => right.saturating_sub(1),
        2..32 => usize::from(length) * 64,
        _ => right,
    };
    match (decoded_by_us(&blocks, length), decoded_by_zlib(&blocks, length)) {
        (Err(text), None) => assert!(!text.is_empty()),
        (Err(text), Some(_)) => assert_eq!(text, STRICTER, "zlib-rs accepts it"),
        (Ok(ours), theirs) => assert!(theirs.as_ref() == Some(&ours), "zlib-rs: {}", theirs.is_some()),
    }
});
