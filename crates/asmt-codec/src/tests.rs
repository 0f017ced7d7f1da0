//! What an encoder makes and a decoder takes, judged by two other decoders.

use crate::decode::{ChunkDecoder, MemberDecoder};
use crate::encode::{LONGER_FLUSH, store, *};
use crate::reference::{STRICTER, decoded_by_us, decoded_by_zlib};
use crate::simd::SimdLevel;
use crate::stride::Stride;
use crate::{DEFLATE_END, FULL_FLUSH, GZIP_HEADER, WINDOW_BITS};
use proptest::prelude::*;
use zlib_rs::{Deflate, DeflateFlush};

const SECTOR_BYTES: usize = 4096;

/// So many random cases, or as few as `ASMT_TEST_CASES` says: an emulator is some ten times slower.
pub(crate) fn with_cases(most: u32) -> ProptestConfig {
    let limit = std::env::var("ASMT_TEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: most.min(limit.unwrap_or(most)), failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn random(state: &mut u64) -> u8 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 56) as u8
}

fn samples() -> Vec<Vec<u8>> {
    let state = &mut 1u64;
    let noise: Vec<u8> = (0..200_000).map(|_| random(state)).collect();
    let elements: Vec<u8> = (0..100_000).map(|i| if i % 64 < 20 { random(state) } else { (i % 64) as u8 }).collect();
    let text = b"a general encoder finds what is far apart; ".repeat(3000);
    vec![vec![], vec![7], vec![0; 65_535], vec![0; 65_536], vec![0; 4 << 20], noise[..65_535].to_vec(), noise, elements, text]
}

fn room_for(chunk: &[u8]) -> Vec<u8> {
    vec![0xa5; max_encoded_bytes(chunk.len() as u64) as usize + 2 * SECTOR_BYTES]
}

fn encoded(chunk: &[u8], kind: ChunkKind) -> Vec<u8> {
    let mut output = room_for(chunk);
    let made = encoder().encode(chunk, kind, &mut output);
    output.truncate(made);
    output
}

/// What two decoders that know nothing of each other, or of chunks, make of a stream.
pub(crate) fn decoded(stream: &[u8], length: usize) -> [Vec<u8>; 2] {
    let (mut decoder, mut all, mut part, mut at) =
        (MemberDecoder::new(&GZIP_HEADER).expect("a header"), Vec::new(), vec![0; 1000], 0);
    loop {
        let step = decoder.step(&stream[at..], &mut part).expect("a stream");
        at += step.used;
        all.extend_from_slice(&part[..step.made]);
        if step.is_end || step.used + step.made == 0 {
            assert!(step.is_end && at == stream.len(), "at {at} of {}", stream.len());
            break;
        }
    }
    [all, miniz_oxide::inflate::decompress_to_vec_with_limit(stream, length).expect("a stream")]
}

/// Both know a chunk for what it is, or for none. Gives whether it is one.
fn assert_same_verdict(encoded: &[u8], length: usize) -> bool {
    let (ours, theirs) = (decoded_by_us(encoded, length), decoded_by_zlib(encoded, length));
    let is_chunk = ours.is_ok();
    match (ours, theirs) {
        (Err(text), None) => assert!(!text.is_empty()),
        (Err(text), Some(_)) => assert_eq!(text, STRICTER, "zlib-rs accepts {encoded:02x?}"),
        (Ok(ours), theirs) => assert!(theirs == Some(ours), "zlib-rs: {} for {encoded:02x?}", theirs.is_some()),
    }
    is_chunk
}

const STRATEGIES: [zlib_rs::Strategy; 5] = [
    zlib_rs::Strategy::Default,
    zlib_rs::Strategy::Filtered,
    zlib_rs::Strategy::HuffmanOnly,
    zlib_rs::Strategy::Rle,
    zlib_rs::Strategy::Fixed,
];

/// Flushed blocks of every level and strategy of two general encoders.
pub(crate) fn by_others(chunk: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (level, strategy) in (0..=9).flat_map(|level| STRATEGIES.map(|strategy| (level, strategy))) {
        let config = zlib_rs::DeflateConfig { level, strategy, window_bits: -i32::from(WINDOW_BITS), ..Default::default() };
        let mut output = vec![0; 2 * chunk.len() + 1000];
        let mut deflate = Deflate::new_with_config(config);
        deflate.compress(chunk, &mut output, DeflateFlush::FullFlush).expect("room");
        assert_eq!(deflate.total_in(), chunk.len() as u64);
        output.truncate(deflate.total_out() as usize);
        all.push(output);
    }
    for (level, strategy) in (0..=10).flat_map(|level| (0..5).map(move |strategy| (level, strategy))) {
        use miniz_oxide::deflate::core;
        let flags = core::create_comp_flags_from_zip_params(level, -i32::from(WINDOW_BITS), strategy);
        let mut output = Vec::new();
        let put = |bytes: &[u8]| {
            output.extend_from_slice(bytes);
            true
        };
        core::compress_to_output(&mut core::CompressorOxide::new(flags), chunk, core::TDEFLFlush::Full, put);
        all.push(output);
    }
    all
}

fn assert_comes_back(chunk: &[u8], blocks: &[u8]) {
    assert!(blocks.len() as u64 <= max_encoded_bytes(chunk.len() as u64), "{} of {}", blocks.len(), chunk.len());
    assert!(blocks.ends_with(&FULL_FLUSH[1..]));
    let mut back = vec![0xa5; chunk.len()];
    ChunkDecoder::default().decode(blocks, &mut back).expect("a chunk");
    assert!(back == chunk, "{} bytes", chunk.len());
    let stream = [blocks, &DEFLATE_END].concat();
    assert!(decoded(&stream, chunk.len()).iter().all(|all| all == chunk));
}

#[test]
fn chunks_come_back_alone_and_as_one_stream() {
    let (mut stream, mut all) = (Vec::new(), Vec::new());
    for (sample, kind) in
        samples().into_iter().flat_map(|sample| [(sample.clone(), ChunkKind::Elements), (sample, ChunkKind::Other)])
    {
        let blocks = encoded(&sample, kind);
        assert_comes_back(&sample, &blocks);
        stream.extend_from_slice(&blocks);
        all.extend_from_slice(&sample);
    }
    stream.extend_from_slice(&DEFLATE_END);
    assert!(decoded(&stream, all.len()).iter().all(|found| *found == all));
}

/// Data as it may come: elements of any width with fields that stay, grow, change or are random,
/// and runs.
pub(crate) fn table() -> impl Strategy<Value = Vec<u8>> {
    let field = (1usize..40, 0u8..6, any::<u8>());
    (prop::collection::vec(field, 1..8), 1usize..400, any::<u64>(), 0usize..70).prop_map(|(fields, count, seed, tail)| {
        let state = &mut (seed | 1);
        let mut bytes = Vec::new();
        for element in 0..count {
            for (width, kind, value) in &fields {
                for at in 0..*width {
                    bytes.push(match kind {
                        0 => *value,
                        1 => random(state),
                        2 => (element >> (8 * at.min(7))) as u8,
                        3 => random(state) & 1,
                        4 => {
                            if random(state) < 8 {
                                random(state)
                            } else {
                                *value
                            }
                        }
                        _ => {
                            if element % 7 < 3 {
                                0
                            } else {
                                random(state)
                            }
                        }
                    });
                }
            }
        }
        bytes.extend((0..tail).map(|_| random(state)));
        bytes
    })
}

/// A small chunk for each type of block, with runs and matches at all kinds of distances.
fn small_chunks() -> Vec<(Vec<u8>, usize)> {
    let state = &mut 9u64;
    let mut bytes: Vec<u8> = (0..120).map(|_| random(state) % 12).collect();
    for distance in [1, 2, 3, 5, 7, 8, 9, 31, 32, 33, 64] {
        (0..20).for_each(|_| bytes.push(bytes[bytes.len() - distance]));
        bytes.push(random(state));
    }
    bytes.extend([4; 300]);
    let dynamic = by_others(&bytes).swap_remove(6 * STRATEGIES.len());
    let fixed = by_others(&bytes[..90]).swap_remove(6 * STRATEGIES.len() + 4);
    let mut stored = vec![0; 200];
    let made = store(&bytes[..60], &mut stored);
    stored.truncate(made);
    let by_stride = encoded(&bytes, ChunkKind::Elements);
    let padded = [&fixed[..], &LONGER_FLUSH, &FULL_FLUSH].concat();
    vec![(dynamic, bytes.len()), (fixed, 90), (stored, 60), (by_stride, bytes.len()), (padded, 90)]
}

#[test]
fn every_prefix_of_a_chunk_is_judged_as_by_zlib() {
    for (chunk, length) in small_chunks() {
        assert!(assert_same_verdict(&chunk, length));
        for end in 0..chunk.len() {
            // Without its last blocks, if they are empty, it is a chunk, too.
            assert_same_verdict(&chunk[..end], length);
        }
    }
}

/// Found by fuzzing: a literal, an end, and five bits of a block with codes, which take up whatever
/// is put behind them.
#[test]
fn a_chunk_cut_within_a_header_is_none_for_zlib_either() {
    assert!(!assert_same_verdict(&[0x3a, 0x0a, 0x20], 1));
}

#[test]
fn every_bit_changed_is_judged_as_by_zlib() {
    for (mut chunk, length) in small_chunks() {
        let mut chunks = 0;
        for bit in 0..8 * chunk.len() {
            chunk[bit / 8] ^= 1 << (bit % 8);
            chunks += u32::from(assert_same_verdict(&chunk, length));
            chunk[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(chunks > 0, "some changes are of literals alone");
    }
}

#[test]
fn matches_of_every_distance_and_length_come_back() {
    let state = &mut 11u64;
    let mut bytes: Vec<u8> = (0..300).map(|_| random(state)).collect();
    for distance in (1..80).chain([255, 256, 257, 4096, 32_767, 32_768]) {
        for length in (3..40).chain([63, 64, 65, 127, 257, 258]) {
            let distance = distance.min(bytes.len());
            (0..length).for_each(|_| bytes.push(bytes[bytes.len() - distance]));
            bytes.push(random(state));
        }
    }
    for blocks in by_others(&bytes) {
        assert!(decoded_by_us(&blocks, bytes.len()).as_ref() == Ok(&bytes));
    }
}

#[test]
fn codes_that_are_none_are_refused_with_what_they_are() {
    /// Bits as they go into the stream: values, and how many bits of each.
    fn chunk(fields: &[(u32, u32)]) -> Vec<u8> {
        let bits = fields.iter().flat_map(|(value, count)| (0..*count).map(move |bit| (value >> bit & 1) as u8));
        let mut bits: Vec<u8> = bits.collect();
        bits.resize(bits.len().next_multiple_of(8) + 800, 0);
        bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }
    let dynamic = |symbols: u32, distances: u32, lengths: &[u32]| {
        let mut fields = vec![(0, 1), (2, 2), (symbols - 257, 5), (distances - 1, 5), (15, 4)];
        fields.extend(lengths.iter().map(|length| (*length, 3)));
        fields
    };
    // By the header's order 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15.
    let zero_or_one = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let bits = |ones: &[usize], count: usize| (0..count).map(|at| (u32::from(ones.contains(&at)), 1)).collect::<Vec<_>>();
    let of = |ones: &[usize]| [dynamic(257, 1, &zero_or_one), bits(ones, 258)].concat();
    let repeat = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long_zeros = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases = [
        (chunk(&[(1, 1), (1, 2)]), "a block that ends the stream"),
        (chunk(&[(0, 1), (3, 2)]), "a block of type 3"),
        (chunk(&[(0, 1), (0, 2), (0, 5), (5, 16), (5, 16)]), "0x0005, its complement 0x0005"),
        (chunk(&[(0, 1), (0, 2), (0, 5), (60_000, 16), (5535, 16)]), "a stored block of 60000 bytes"),
        (chunk(&[(0, 1), (1, 2), (0x63, 8)]), "an invalid symbol code"),
        // The first length of three, distance 1, at the beginning.
        (chunk(&[(0, 1), (1, 2), (0b100_0000, 7), (0, 5)]), "a distance of 1 after 0 bytes"),
        (chunk(&dynamic(287, 1, &[0; 19])), "for 287 symbols"),
        (chunk(&dynamic(257, 31, &[0; 19])), "31 distances"),
        (chunk(&dynamic(257, 1, &[0; 19])), "for lengths takes 0 of"),
        (chunk(&dynamic(257, 1, &[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), "for lengths takes 49152 of"),
        (chunk(&[dynamic(257, 1, &repeat), vec![(1, 1)]].concat()), "first code length repeats"),
        (chunk(&[dynamic(257, 1, &long_zeros), vec![(1, 1), (127, 7), (1, 1), (127, 7)]].concat()), "276 code lengths"),
        (chunk(&of(&[0, 1])), "no code for its end"),
        (chunk(&of(&[256])), STRICTER),
        (chunk(&of(&[0, 1, 256])), "for literals takes 49152 of"),
    ];
    for (chunk, expected) in cases {
        let text = decoded_by_us(&chunk, 5000).expect_err(expected);
        assert!(text.contains(expected), "{text:?}, expected {expected:?}");
        assert_same_verdict(&chunk, 5000);
    }
}

proptest! {
    #![proptest_config(with_cases(300))]

    #[test]
    fn any_table_comes_back(bytes in table(), is_elements in any::<bool>()) {
        let kind = if is_elements { ChunkKind::Elements } else { ChunkKind::Other };
        assert_comes_back(&bytes, &encoded(&bytes, kind));
    }

    #[test]
    fn by_stride_any_table_comes_back_and_every_way_gives_the_same_bytes(bytes in table()) {
        let mut found: Vec<Option<Vec<u8>>> = Vec::new();
        for (way, packs) in SimdLevel::available().into_iter().flat_map(|way| [(way, false), (way, true)]) {
            // Room for the worst, so that nothing is left to another encoder.
            let mut output = vec![0xa5; 2 * bytes.len() + (64 << 10)];
            let made = Stride::plan(&bytes, way).encode_by(&bytes, &mut output, way, packs).expect("room enough");
            output.truncate(made);
            assert!(found.iter().all(|other| other.as_ref() == Some(&output)), "{}", way.name());
            let mut back = vec![0xa5; bytes.len()];
            ChunkDecoder::default().decode(&output, &mut back).expect("a chunk");
            assert!(back == bytes);
            let stream = [&output[..], &DEFLATE_END].concat();
            assert!(decoded(&stream, bytes.len()).iter().all(|all| *all == bytes));
            found.push(Some(output));
        }
    }

    #[test]
    fn noise_is_judged_as_by_zlib(noise in prop::collection::vec(any::<u8>(), 0..600), kind in 0u8..3, length in 0usize..2000) {
        // Each type of block alike often.
        let mut chunk = noise;
        chunk.iter_mut().take(1).for_each(|byte| *byte = (*byte & !7) | (kind << 1));
        assert_same_verdict(&chunk, length);
    }

    #[test]
    fn a_chunk_with_bytes_changed_is_judged_as_by_zlib(
        bytes in table(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut blocks = encoded(&bytes, ChunkKind::Other);
        for (at, byte) in changes {
            let at = at.index(blocks.len());
            blocks[at] = byte;
        }
        assert_same_verdict(&blocks, bytes.len());
    }

    #[test]
    fn a_chunk_with_a_bit_changed_is_another_or_an_error(bytes in table(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut blocks = encoded(&bytes, ChunkKind::Elements);
        let at = at.index(blocks.len());
        blocks[at] ^= 1 << bit;
        let mut back = vec![0xa5; bytes.len()];
        // Whatever comes out is within its bounds, and told by the chunk's CRC-32 where it is
        // another.
        if ChunkDecoder::default().decode(&blocks, &mut back).is_ok() && back != bytes {
            prop_assert_ne!(crc32fast::hash(&back), crc32fast::hash(&bytes));
        }
    }
}

proptest! {
    #![proptest_config(with_cases(30))]

    #[test]
    fn any_table_comes_back_from_other_encoders(bytes in table()) {
        for blocks in by_others(&bytes) {
            prop_assert!(assert_same_verdict(&blocks, bytes.len()));
            prop_assert!(decoded_by_us(&blocks, bytes.len()).as_ref() == Ok(&bytes));
        }
    }
}

#[test]
fn what_suits_whom_is_found_out() {
    let samples = samples();
    let state = &mut 5u64;
    // Elements of an index, as a whole chunk has them: tables come out smaller than by the general
    // encoder's trial.
    let elements: Vec<u8> = (0..1 << 20).map(|i| if i % 64 < 24 { random(state) } else { (i % 64) as u8 }).collect();
    assert!(encoded(&elements, ChunkKind::Elements).len() < elements.len() / 2);
    // Text is not a table: left to the encoder for tables it would hardly get smaller.
    assert!(encoded(&samples[8], ChunkKind::Other).len() < samples[8].len() / 50);
    assert!(encoded(&vec![0; 4 << 20], ChunkKind::Elements).len() < 8 << 10, "zeros cost almost nothing");
}

#[test]
fn blocks_are_padded_to_sectors_whatever_their_length() {
    for length in 0..5000 {
        let mut bytes = vec![0xa5; 16 << 10];
        let end = pad_to_multiple(&mut bytes, length, SECTOR_BYTES);
        assert!(end.is_multiple_of(4096) && end >= length && end < length + 8192, "{length}");
        bytes.truncate(end);
        let mut empty = [];
        ChunkDecoder::default().decode(&bytes[length..], &mut empty).unwrap_or_else(|text| panic!("{length}: {text}"));
    }
}

#[test]
fn a_chunk_of_another_length_is_refused() {
    let (mut decoder, encoded) = (ChunkDecoder::default(), encoded(&samples()[7], ChunkKind::Elements));
    for length in [0, 99_999, 100_001] {
        assert!(decoder.decode(&encoded, &mut vec![0; length]).is_err(), "{length} bytes");
    }
    let mut ended = encoded.clone();
    ended.extend_from_slice(&DEFLATE_END);
    assert!(decoder.decode(&ended, &mut vec![0; 100_000]).is_err(), "an end within");
    assert!(decoder.decode(&encoded[..encoded.len() - 1], &mut vec![0; 100_000]).is_err(), "cut short");
    assert!(decoder.decode(&encoded, &mut vec![0; 100_000]).is_ok(), "usable after errors");
}

#[test]
fn no_more_is_made_where_there_is_more_room() {
    // Codes for these bytes would be longer than they are, by less than the room.
    let noise = &samples()[6];
    let mut output = vec![0; 2 * noise.len()];
    let made = encoder().encode(noise, ChunkKind::Elements, &mut output);
    assert!(made as u64 <= max_encoded_bytes(noise.len() as u64), "{made} of {}", noise.len());
}

#[test]
fn noise_is_stored_and_grows_by_headers_alone() {
    let noise = &samples()[6];
    assert_eq!(encoded(noise, ChunkKind::Other).len() as u64, max_encoded_bytes(noise.len() as u64));
    assert_eq!(max_encoded_bytes(65_536), 65_536 + 15);
}
