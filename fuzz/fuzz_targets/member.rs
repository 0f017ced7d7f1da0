//! Any gzip member comes to its end, to an error or to a stop, in steps of any size; what is read
//! is what miniz_oxide reads.

#![no_main]

use asmt_codec::GZIP_HEADER;
use asmt_codec::decode::MemberDecoder;
use asmt_engine::format::MAX_DEFLATE_RATIO;
use asmt_fuzz::{MOST_BYTES, choice, stream_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((sizes, data)) = choice(data) else { return };
    // Its header as it comes, or a right one.
    let (header, data) = if sizes < 16 { data.split_at(data.len().min(GZIP_HEADER.len())) } else { (&GZIP_HEADER[..], data) };
    let Ok(mut decoder) = MemberDecoder::new(header) else {
        assert!(header.len() < GZIP_HEADER.len() || header[..4] != GZIP_HEADER[..4]);
        return;
    };
    let mut stream = stream_of(data);
    if sizes & 1 == 0 {
        stream.extend_from_slice(&[3, 0]);
    }
    let (input_bytes, output_bytes) = (1usize << (sizes >> 1 & 7) << 2, 1usize << (sizes >> 4 & 15).min(14));
    let (mut output, mut all, mut at) = (vec![0; output_bytes], Vec::new(), 0);
    while all.len() < MOST_BYTES {
        let end = stream.len().min(at + input_bytes);
        let Ok(step) = decoder.step(&stream[at..end], &mut output) else { return };
        assert!(step.used <= end - at && step.made <= output.len(), "no more than it was given: {step:?}");
        at += step.used;
        all.extend_from_slice(&output[..step.made]);
        if step.is_end {
            assert!(all.len() as u64 <= at as u64 * MAX_DEFLATE_RATIO, "{} bytes out of {at}", all.len());
            let other = miniz_oxide::inflate::decompress_to_vec_with_limit(&stream[..at], all.len());
            assert!(other.map_or(true, |other| other == all), "miniz_oxide reads another");
            return;
        }
        if step.used + step.made == 0 {
            return;
        }
    }
});
