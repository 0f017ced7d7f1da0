//! What the encoder by columns makes and its decoder takes, judged by two other decoders and by a
//! plain reader of the format.

use super::*;
use crate::DEFLATE_END;
use crate::encode::pad_to_multiple;
use crate::reference::{STRICTER, columns_by_us, columns_by_zlib, columns_chunk};
use crate::simd::SimdLevel;
use crate::tests::{by_others, decoded, random, table, with_cases};
use proptest::prelude::*;
use std::time::Instant;

fn fixture() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/fixtures/server/arena-ce/full-stage-1MiB.bin");
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A table with columns of each kind.
fn every_kind(width: usize, length: usize) -> Vec<u8> {
    let state = &mut 5u64;
    let mut bytes = vec![0; length];
    let mut drift = 0u8;
    for (at, byte) in bytes.iter_mut().enumerate() {
        let (row, noise) = (at / width, random(state));
        *byte = match (at % width) % 11 {
            0 => noise,
            1 => 7,
            2 => noise & 1,
            3 => {
                drift = drift.wrapping_add(noise & 3);
                drift
            }
            4 if noise == 9 => 1,
            5 => (row >> 8) as u8,
            6 => noise & noise.rotate_left(3),
            7 => noise % 40,
            // One byte until late in the chunk.
            8 => u8::from(row > length / width / 2 && row % 1000 == 77),
            9 => (noise & 0x3f) * u8::from(row % 500 < 30),
            _ => 0,
        };
    }
    bytes
}

/// A chunk encoded and padded, and what the encoder said of it.
fn encoded(chunk: &[u8], unit: usize) -> (Vec<u8>, Encoded) {
    let most = max_encoded_bytes(chunk.len() as u64) as usize;
    let mut output = vec![0xa5; most + 3 * unit];
    let made = ColumnEncoder::default().encode(chunk, &mut output);
    assert!(made.length <= most, "{} of {most}", made.length);
    assert!(made.content_bytes as u64 <= max_content_bytes(chunk.len() as u64));
    let end = if unit > 1 { pad_to_multiple(&mut output, made.length, unit) } else { made.length };
    output.truncate(end);
    (output, made)
}

/// Gives how many bytes the chunk becomes.
fn assert_comes_back(chunk: &[u8]) -> usize {
    let (blocks, made) = encoded(chunk, 4096);
    for blocks in [&blocks[..], &blocks[..made.length]] {
        let back = columns_by_us(blocks, chunk.len()).unwrap_or_else(|text| panic!("{} bytes: {text}", chunk.len()));
        assert!(back == chunk, "{} bytes", chunk.len());
    }
    let stream = [&blocks[..], &DEFLATE_END].concat();
    for content in decoded(&stream, made.content_bytes) {
        assert_eq!((content.len(), crc32fast::hash(&content)), (made.content_bytes, made.content_crc32));
        assert!(columns_chunk(&content).as_deref() == Some(chunk));
    }
    made.length
}

/// Both know a chunk for what it is, or for none. Gives whether it is one.
fn assert_same_verdict(blocks: &[u8], length: usize) -> bool {
    let (ours, theirs) = (columns_by_us(blocks, length), columns_by_zlib(blocks, length));
    let is_chunk = ours.is_ok();
    match (ours, theirs) {
        (Err(text), None) => assert!(!text.is_empty()),
        (Err(text), Some(_)) => assert!(text.ends_with(STRICTER), "a plain reader accepts it: {text}"),
        (Ok(ours), theirs) => assert!(theirs == Some(ours), "a plain reader: {}", theirs.is_some()),
    }
    is_chunk
}

#[test]
fn each_thread_can_have_its_own() {
    fn assert_send<T: Send + Default>() {}
    assert_send::<ColumnEncoder>();
    assert_send::<ColumnDecoder>();
}

#[test]
fn chunks_of_every_length_come_back() {
    for length in (1..300).chain((300..5000).step_by(97)) {
        for width in [1, 5, 64] {
            assert_comes_back(&every_kind(width, length));
        }
    }
    assert_comes_back(&[]);
}

#[test]
fn chunks_of_every_width_come_back() {
    for width in [1, 2, 3, 4, 5, 7, 8, 16, 20, 24, 31, 32, 63, 64, 65, 100, 128, 256, 4096] {
        for length in [width * 16 + 1, 70_000, 300_001] {
            assert_comes_back(&every_kind(width, length));
        }
    }
}

#[test]
fn every_way_makes_the_same_bytes() {
    for chunk in [every_kind(64, 300_000), every_kind(64, 5000), every_kind(5, 20_000), fixture(), vec![3; 9000]] {
        let encoded = |way| {
            let mut output = vec![0xa5; max_encoded_bytes(chunk.len() as u64) as usize];
            let made = ColumnEncoder::new(way).encode(&chunk, &mut output);
            output.truncate(made.length);
            (output, made)
        };
        let all: Vec<_> = SimdLevel::available().into_iter().map(encoded).collect();
        assert!(all.iter().all(|other| *other == all[0]), "{} bytes", chunk.len());
    }
}

#[test]
fn an_index_becomes_half_as_long() {
    let index = fixture();
    for (length, percent) in [(index.len(), 49), (256 << 10, 50), (64 << 10, 52), (100_000, 52)] {
        let made = assert_comes_back(&index[..length]);
        assert!(made < length / 100 * percent, "{made} of {length}");
    }
    // There are too few for that: by the encoder by strides.
    assert!(assert_comes_back(&index[..4096]) < 4096 / 100 * 66);
}

#[test]
fn zeros_cost_almost_nothing_and_noise_little_more_than_itself() {
    assert!(assert_comes_back(&vec![0; 4 << 20]) < 8 << 10);
    let state = &mut 3u64;
    for length in [1, 4096, 65_536, 1 << 20, (4 << 20) + 5, (16 << 20) - 1] {
        let noise: Vec<u8> = (0..length).map(|_| random(state)).collect();
        let made = assert_comes_back(&noise);
        assert!(made <= length + length / 10_000 + 40, "{made} of {length}");
    }
}

#[test]
fn what_is_no_table_is_left_to_another_encoder() {
    let text = b"a general encoder finds what is far apart; ".repeat(30_000);
    assert!(assert_comes_back(&text) < text.len() / 50);
    let mut sparse = vec![0; 1 << 20];
    let state = &mut 8u64;
    (0..1000).for_each(|at| sparse[at * 1031 + usize::from(random(state))] = random(state));
    assert!(assert_comes_back(&sparse) < sparse.len() / 100);
}

#[test]
fn chunks_one_behind_the_other_are_one_stream() {
    let (mut stream, mut contents) = (Vec::new(), Vec::new());
    for chunk in [every_kind(64, 70_000), vec![0; 65_536], fixture(), every_kind(5, 4097), every_kind(1, 12)] {
        let (blocks, made) = encoded(&chunk, 4096);
        stream.extend_from_slice(&blocks);
        contents.push((chunk, made));
    }
    stream.extend_from_slice(&DEFLATE_END);
    let bytes = contents.iter().map(|(_, made)| made.content_bytes).sum();
    for all in decoded(&stream, bytes) {
        let mut rest = &all[..];
        for (chunk, made) in &contents {
            let (content, behind) = rest.split_at(made.content_bytes);
            assert_eq!(crc32fast::hash(content), made.content_crc32);
            assert!(columns_chunk(content).as_ref() == Some(chunk));
            rest = behind;
        }
    }
}

/// Small chunks with parts of every form.
fn small() -> Vec<(Vec<u8>, Vec<u8>)> {
    let chunks = [every_kind(64, 6000), every_kind(8, 3000), every_kind(5, 2001), b"text and text ".repeat(40), vec![3; 5000]];
    chunks.into_iter().map(|chunk| (encoded(&chunk, 1).0, chunk)).collect()
}

#[test]
fn every_prefix_is_refused() {
    for (blocks, chunk) in small() {
        for end in 0..blocks.len() {
            assert!(columns_by_us(&blocks[..end], chunk.len()).is_err(), "{end} of {}", blocks.len());
        }
    }
}

#[test]
fn every_bit_changed_is_judged_as_by_a_plain_reader() {
    for (mut blocks, chunk) in small() {
        let mut chunks = 0;
        for bit in 0..8 * blocks.len() {
            blocks[bit / 8] ^= 1 << (bit % 8);
            chunks += u32::from(assert_same_verdict(&blocks, chunk.len()));
            blocks[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(chunks > 0, "some changes are of bytes alone");
    }
}

#[test]
fn only_empty_blocks_may_follow() {
    let mut decoder = ColumnDecoder::default();
    for (blocks, chunk) in small() {
        let mut back = vec![0; chunk.len()];
        for behind in [&DEFLATE_END[..], &[0], &[0, 1, 0, 0xfe, 0xff, 7], &blocks] {
            assert!(decoder.decode(&[&blocks[..], behind].concat(), &mut back).is_err(), "{behind:02x?}");
        }
        for length in [chunk.len() - 1, chunk.len() + 1, 0] {
            assert!(decoder.decode(&blocks, &mut vec![0; length]).is_err());
        }
        decoder.decode(&blocks, &mut back).expect("usable after errors");
        assert!(back == chunk);
    }
}

#[test]
fn heads_that_are_none_are_refused_with_what_they_are() {
    let good = |size: u32, width: u16, parts: &[(u32, u32)], blocks: &[u8]| {
        let mut head = [&size.to_le_bytes()[..], &width.to_le_bytes(), &(parts.len() as u16).to_le_bytes()].concat();
        parts.iter().for_each(|(bytes, content)| head.extend([bytes.to_le_bytes(), content.to_le_bytes()].concat()));
        let length = head.len() as u16;
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &head, blocks].concat()
    };
    let stored = [0, 2, 0, 0xfd, 0xff, 8, 9];
    assert_eq!(columns_by_us(&good(2, 64, &[(7, 2)], &stored), 2), Ok(vec![8, 9]));
    assert_eq!(columns_by_us(&good(0, 64, &[], &[]), 0), Ok(vec![]));
    let mut wrong_count = good(2, 1, &[(7, 2)], &stored);
    wrong_count[11] = 2;
    let cases = [
        (vec![], "it does not begin with a stored block"),
        (vec![1, 0, 0, 0xff, 0xff], "it does not begin with a stored block"),
        (vec![0, 8, 0, 0xff, 0xff], "its head's length is 0x0008, its complement 0xffff"),
        (vec![0, 8, 0, 0xf7, 0xff, 1, 2, 3], "a head of 8 bytes"),
        (vec![0, 7, 0, 0xf8, 0xff, 1, 2, 3, 4, 5, 6, 7], "a head of 7 bytes"),
        (good(3, 1, &[(7, 2)], &stored), "it is a chunk of 3 bytes, expected 2"),
        (good(2, 0, &[(7, 2)], &stored), "it has elements of 0 bytes"),
        (wrong_count, "8 bytes of head for 2 parts"),
        (good(2, 1, &[(8, 2)], &stored), "a part of 8 bytes that makes 2, but 7 and 2 are left"),
        (good(2, 1, &[(7, u32::MAX)], &stored), "that makes 4294967295, but 7 and 2 are left"),
        (good(2, 1, &[(0x7fff_ffff, 2)], &stored), "a part of 2147483647 bytes"),
        (good(2, 1, &[(7, 1)], &stored), "its parts make 1 bytes, expected 2"),
        (good(2, 1, &[(5, 2)], &stored), "a stored block of 2 bytes, but 0 are left"),
    ];
    for (blocks, expected) in cases {
        let text = columns_by_us(&blocks, 2).expect_err(expected);
        assert!(text.contains(expected), "{text:?}, expected {expected:?}");
        assert!(columns_by_zlib(&blocks, 2).is_none());
    }
}

/// A chunk that our encoder would not make: parts of any lengths, encoded in any way.
fn foreign_chunk() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let part = (1usize..3000, 0u8..6, any::<u8>(), any::<bool>());
    let width = prop::sample::select(vec![1usize, 2, 5, 63, 64, 64, 64, 64, 65, 500]);
    (prop::collection::vec(part, 1..12), width, any::<u64>(), any::<bool>()).prop_map(|(parts, width, seed, is_even)| {
        let state = &mut (seed | 1);
        let (mut blocks, mut entries, mut size) = (Vec::new(), Vec::new(), 0);
        // Either whole columns, or whatever the parts are.
        let total: usize = parts.iter().map(|part| part.0).sum();
        let rows = (total / 64 / 64 + 1) * 64;
        for (length, how, byte, is_differences) in parts {
            let length = if is_even { rows * (1 + length % 9) } else { length };
            let content: Vec<u8> = (0..length)
                .map(|_| match how {
                    0 | 1 => byte,
                    2 => random(state),
                    _ => random(state) & random(state),
                })
                .collect();
            let start = blocks.len();
            match how {
                0 => blocks.extend_from_slice(blocks::Run::default().encode(byte, length)),
                1 | 2 => content.chunks(1 + usize::from(byte) * 5).for_each(|part| {
                    let at = blocks.len();
                    blocks.resize(at + blocks::stored_bytes(part.len()), 0);
                    blocks::store(part, &mut blocks[at..]);
                }),
                3 => {
                    let mut writer = write_literals::LiteralWriter::new(SimdLevel::best());
                    blocks.extend_from_slice(writer.write(&content, &sample::Values::Some, usize::MAX).expect("room"));
                }
                _ => {
                    let mut all = by_others(&content);
                    blocks.extend(all.swap_remove(usize::from(byte) % all.len()));
                }
            }
            let word = (blocks.len() - start) as u32 | u32::from(is_differences) << 31;
            entries.push([word.to_le_bytes(), (length as u32).to_le_bytes()].concat());
            size += length;
        }
        let (count, entries) = (entries.len() as u16, entries.concat());
        let head = [&(size as u32).to_le_bytes()[..], &(width as u16).to_le_bytes(), &count.to_le_bytes(), &entries].concat();
        let length = head.len() as u16;
        ([&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &head, &blocks].concat(), size)
    })
}

proptest! {
    #![proptest_config(with_cases(200))]

    #[test]
    fn any_table_comes_back(bytes in table()) {
        assert_comes_back(&bytes);
    }

    #[test]
    fn any_parts_are_read_as_by_a_plain_reader(
        (mut blocks, length) in foreign_chunk(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        prop_assert!(assert_same_verdict(&blocks, length));
        for (at, byte) in changes {
            let at = at.index(blocks.len());
            blocks[at] = byte;
        }
        assert_same_verdict(&blocks, length);
    }

    #[test]
    fn a_chunk_with_bytes_changed_is_judged_as_by_a_plain_reader(
        bytes in table(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_head in any::<bool>(),
    ) {
        let (mut blocks, _) = encoded(&bytes, 1);
        for (at, byte) in changes {
            let at = at.index(if is_head { blocks.len().min(40) } else { blocks.len() });
            blocks[at] = byte;
        }
        assert_same_verdict(&blocks, bytes.len());
    }
}

/// MiB in a second of the work on a chunk, each measured in turns with the others.
fn rates(chunk_bytes: usize, seconds: &mut [Vec<f64>]) -> Vec<f64> {
    let rate = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        chunk_bytes as f64 / f64::from(1 << 20) / seconds[seconds.len() / 2]
    };
    seconds.iter_mut().map(rate).collect()
}

/// Figures of this codec beside those of the other one, in turns, so that what else the machine
/// does meets both. `ASMT_CODEC_FILE` names a file of elements; without it, it is the fixture.
#[test]
#[ignore = "a measurement: cargo test --release -p asmt-codec -- --ignored --nocapture beside"]
fn speed_beside_the_other_codec() {
    const CHUNK_BYTES: usize = 4 << 20;
    const ROUNDS: usize = 15;
    let file = std::env::var("ASMT_CODEC_FILE").map_or_else(|_| fixture(), |path| std::fs::read(path).expect("a file"));
    let bytes: Vec<u8> = file.iter().copied().cycle().take(file.len().next_multiple_of(CHUNK_BYTES)).collect();
    let (mut old_encoder, mut old_decoder) = (crate::encode::encoder(), crate::decode::ChunkDecoder::default());
    let (mut encoder, mut decoder) = (ColumnEncoder::default(), ColumnDecoder::default());
    let mut rooms = [(); 2].map(|()| vec![1; CHUNK_BYTES + (1 << 20)]);
    let (mut back, mut made, mut seconds) = (vec![1; CHUNK_BYTES], [0; 2], [const { Vec::new() }; 4]);
    let mut sizes = [0; 2];
    for _ in 0..ROUNDS {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let mut timed = |kind: usize, work: &mut dyn FnMut()| {
                let since = Instant::now();
                work();
                seconds[kind].push(since.elapsed().as_secs_f64());
            };
            let [old, new] = &mut rooms;
            timed(0, &mut || made[0] = old_encoder.encode(chunk, crate::encode::ChunkKind::Elements, old));
            timed(1, &mut || made[1] = encoder.encode(chunk, new).length);
            timed(2, &mut || old_decoder.decode(&old[..made[0]], &mut back).expect("a chunk"));
            assert!(back == *chunk);
            timed(3, &mut || decoder.decode(&new[..made[1]], &mut back).expect("a chunk"));
            assert!(back == *chunk);
            sizes = [sizes[0] + made[0], sizes[1] + made[1]];
        }
    }
    let rates = rates(CHUNK_BYTES, &mut seconds);
    let percent = sizes.map(|size| size as f64 / (ROUNDS * bytes.len()) as f64 * 100.0);
    println!("index: {:.2} %, encode {:.0} MiB/s, decode {:.0} MiB/s", percent[0], rates[0], rates[2]);
    println!("columns: {:.2} %, encode {:.0} MiB/s, decode {:.0} MiB/s", percent[1], rates[1], rates[3]);
    println!("ratios: encode {:.2}, decode {:.2}", rates[1] / rates[0], rates[3] / rates[2]);
}

/// The beginning of a chunk in rows is read without the rest of it, whatever the chunk holds.
#[test]
fn the_first_bytes_of_a_chunk_in_rows_follow_its_head() {
    let state = &mut 9u64;
    for chunk in [fixture(), every_kind(64, 70_000), vec![0; 1 << 20], (0..300_000).map(|_| random(state)).collect()] {
        let most = max_encoded_bytes(chunk.len() as u64) as usize;
        let mut output = vec![0xa5; most];
        let made = ColumnEncoder::default().encode_rows(&chunk, &mut output);
        let mut back = vec![1; chunk.len()];
        ColumnDecoder::default().decode(&output[..made.length], &mut back).expect("its own chunk");
        assert!(back == chunk);
        let mut decoder = crate::decode::MemberDecoder::new(&crate::GZIP_HEADER).expect("a header");
        let mut start = vec![0; 4096 + MAX_HEAD_BYTES];
        let step = decoder.step(&output[..made.length.min(200 << 10)], &mut start).expect("a beginning");
        let head_bytes = head_bytes_in(&start[..step.made]).expect("a head");
        assert!(head_bytes <= MAX_HEAD_BYTES);
        assert_eq!(start[head_bytes..head_bytes + 4096], chunk[..4096]);
        assert_eq!(head_bytes_in(&start[..7]), None);
    }
}
