//! Any bytes are a header or none: ASMT's of a compressed file, and Aerospike's of each type of
//! segment.

#![no_main]

use asmt_engine::format::AsmtHeader;
use asmt_shm::{Header, NamespaceName, SegmentType};
use libfuzzer_sys::fuzz_target;

const TYPES: [SegmentType; 6] = [
    SegmentType::PiBase,
    SegmentType::PiTreex,
    SegmentType::PiStage,
    SegmentType::SiMeta,
    SegmentType::SiStage,
    SegmentType::DataStage,
];

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = AsmtHeader::parse(data) {
        assert_eq!(AsmtHeader::parse(&header.to_bytes()), Ok(header));
    }
    // A fuzzer seldom makes long input: what there is, at the end of as many zeros as are missing.
    let padded = [vec![0; 2200usize.saturating_sub(data.len())], data.to_vec()].concat();
    for bytes in [data, &padded] {
        for segment_type in TYPES {
            let header = Header::parse(segment_type, bytes);
            let is_short = segment_type.has_header() && (bytes.len() as u64) < segment_type.min_bytes();
            assert_eq!(header == Header::Unreadable, is_short, "{segment_type:?} of {} bytes", bytes.len());
            assert_eq!(header == Header::None, !segment_type.has_header());
            if let Some(name) = header.name() {
                assert_eq!(NamespaceName::new(name.as_str()).as_ref(), Some(name));
            }
        }
    }
});
