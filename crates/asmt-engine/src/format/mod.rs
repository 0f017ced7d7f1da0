//! Format: every byte and every file name of a backup. `docs/FORMAT.md` is this folder for people;
//! change both together.
//!
//! Invariant: format does no I/O. What is written here is read back the same, and what is read is
//! checked before it is believed: sizes are claims, names are derived from keys. The header and the
//! names of files are ASMT 2.2.1's (observed); the manifest, marks and journals are asmt's own.

mod chunks;
mod frame;
pub mod journal;
mod manifest;
mod manifest_line;
mod manifest_segment;
pub mod mark;
mod names;
pub mod run_id;
mod time;

pub use chunks::{
    Chunk, Span, Spans, chunk_bytes_for, chunk_count, chunk_kind, chunk_range, combined_crc32, length_of, max_file_bytes,
    zero_bytes,
};
#[cfg(any(test, feature = "testing"))]
pub use frame::{AFTER_CHUNKS_BYTES, BEFORE_STREAM_BYTES};
pub use frame::{
    ASMT_HEADER_BYTES, AsmtHeader, COLUMNS_HEADER_BYTES, ColumnsHeader, Content, FIRST_CHUNK_OFFSET, GZIP_TRAILER_BYTES,
    MAX_DEFLATE_RATIO, SECTOR_BYTES, columns_front, gzip_front, gzip_tail,
};
pub use manifest::{CopyRun, HeaderStamp, MANIFEST_VERSION, Manifest, ServerBinary, ServerFingerprint, Trace, TraceState};
pub use manifest_line::ManifestError;
pub use manifest_segment::ManifestSegment;
pub use names::{
    Encoding, Form, SET_ASIDE_PREFIX, file_name, instance_of_manifest_name, is_backup_name, is_manifest_name, manifest_name,
    parse_file_name,
};
#[cfg(feature = "testing")]
pub use names::{is_namespace_file, namespace_file_name};
pub use time::rfc3339;
