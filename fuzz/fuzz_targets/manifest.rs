//! Any text is a manifest or an error; what a manifest says is within its bounds, and is read back
//! the same.
//!
//! A checksum in its last line keeps nearly everything else out: it is made to fit, so that what is
//! behind it is reached.

#![no_main]

use asmt_engine::format::{
    Manifest, Spans, chunk_count, chunk_range, instance_of_manifest_name, is_manifest_name, manifest_name, parse_file_name,
};
use libfuzzer_sys::fuzz_target;

fn judge(text: &str) {
    let Ok(manifest) = Manifest::parse(text) else { return };
    assert_eq!(Manifest::parse(&manifest.to_text()).as_ref(), Ok(&manifest), "read back");
    let name = manifest_name(manifest.instance, &manifest.namespace);
    assert!(is_manifest_name(&name) && instance_of_manifest_name(&name) == Some(manifest.instance), "{name}");
    for segment in &manifest.segments {
        assert_eq!(parse_file_name(&segment.file_name()), Some((segment.key, segment.address, segment.encoding)));
        assert_eq!(chunk_count(segment.size_bytes, segment.chunk_bytes), segment.chunks.len() as u64);
        for (index, chunk) in (0..).zip(&segment.chunks) {
            let range = chunk_range(segment.size_bytes, segment.chunk_bytes, index);
            assert!(range.start < range.end && range.end <= segment.size_bytes, "{range:?}");
            assert!(chunk.offset + u64::from(chunk.length) <= segment.file_bytes, "{chunk:?}");
        }
        let spans = Spans::new(segment.chunks.len() as u64, segment.chunk_bytes, &segment.zero_chunks);
        let mut next = 0;
        for span in (0..spans.count()).map(|index| spans.get(index)) {
            assert!(span.chunks.start == next && span.chunks.end > next, "{span:?}");
            next = span.chunks.end;
        }
        assert_eq!(next, segment.chunks.len() as u64, "{:?}", segment.zero_chunks);
        assert!(segment.data_bytes.is_none_or(|data| data <= segment.size_bytes - segment.zero_bytes()));
    }
}

fuzz_target!(|text: &str| {
    judge(text);
    let crc32 = crc32fast::hash(text.as_bytes());
    judge(&format!("{text}{{\"end\":true,\"crc32\":\"{crc32:08x}\"}}\n"));
});
