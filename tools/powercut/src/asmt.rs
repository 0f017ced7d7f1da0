//! The segments that ASMT 2.2.1 would restore from a directory, by the rules that it was observed
//! to follow. Pure.
//!
//! Promise: where a rule is not known, it accepts, so that ASMT would not take a state that passes
//! here for more than it is. Must never: look at a manifest, a checksum or anything else that ASMT
//! does not look at.

use asmt_engine::format::{Encoding, parse_file_name};
use asmt_shm::{Address, Key, SegmentType};
use std::collections::BTreeMap;

/// A backup that ASMT would restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The segments that it would make, with their contents.
    pub segments: BTreeMap<Key, Vec<u8>>,
    /// Base is among them. Without it, these are stripes that stand on their own.
    pub has_base: bool,
}

/// The segments that `asmt -r -i INSTANCE -n NAMESPACE` would restore from these files; `None` if
/// it would refuse or find nothing.
pub fn acceptable(files: &BTreeMap<String, Vec<u8>>, instance: u8, namespace: &str) -> Option<Accepted> {
    let mut segments: BTreeMap<Key, (Address, Vec<u8>)> = BTreeMap::new();
    for (name, bytes) in files {
        let Some((key, address, encoding)) = parse_file_name(name) else { continue };
        if address.instance == instance {
            let contents = match encoding {
                Encoding::Raw => Some(bytes.clone()),
                Encoding::Gzip => decoded(bytes),
                // It takes no file of such a name.
                Encoding::OwnRaw | Encoding::Columns => None,
            };
            if let Some(contents) = contents {
                segments.insert(key, (address, contents));
            }
        }
    }
    let of_type = |segment_type: SegmentType| segments.values().filter(move |(address, _)| address.segment_type == segment_type);
    let bases: Vec<&(Address, Vec<u8>)> =
        of_type(SegmentType::PiBase).filter(|(_, bytes)| name_at(bytes, 1024) == Some(namespace.as_bytes())).collect();
    let stripes = of_type(SegmentType::DataStage).filter(|(_, bytes)| name_at(bytes, 12) == Some(namespace.as_bytes()));
    let stripe_keys: Vec<Key> = stripes.filter_map(|(address, _)| address.key()).collect();
    let nsid = match bases[..] {
        [] => {
            // It refuses if there are index segments of the same nsid without a base. It cannot
            // know that those of another nsid belong to this namespace.
            let is_orphaned = |key: &Key| {
                let nsid = segments[key].0.nsid;
                segments.values().any(|(address, _)| address.segment_type != SegmentType::DataStage && address.nsid == nsid)
            };
            if stripe_keys.is_empty() || stripe_keys.iter().any(is_orphaned) {
                return None;
            }
            None
        }
        [(address, bytes)] => {
            let of_index = |segment_type: SegmentType| {
                let stages = of_type(segment_type).filter(|(other, _)| other.nsid == address.nsid);
                stages.map(|(address, _)| address.index).collect::<Vec<_>>()
            };
            let are_complete = |stages: &[u16], count: u32| {
                stages.len() as u64 == u64::from(count) && stages.iter().enumerate().all(|(at, stage)| at == usize::from(*stage))
            };
            let meta_bytes = of_type(SegmentType::SiMeta).find(|(other, _)| other.nsid == address.nsid).map(|(_, bytes)| bytes);
            let si_stages = of_index(SegmentType::SiStage);
            let has_index = matches!(word_at(bytes, 0)?, 10..=12)
                && word_at(bytes, 4)? == 1
                && of_index(SegmentType::PiTreex).len() == 1
                && are_complete(&of_index(SegmentType::PiStage), word_at(bytes, 2152)?);
            let has_si = match meta_bytes {
                Some(meta) => !si_stages.is_empty() && are_complete(&si_stages, word_at(meta, 20)?),
                None => si_stages.is_empty(),
            };
            if !(has_index && has_si) {
                return None;
            }
            Some(address.nsid)
        }
        _ => return None,
    };
    let is_taken = |key: &Key, address: &Address| {
        stripe_keys.contains(key) || (address.segment_type != SegmentType::DataStage && Some(address.nsid) == nsid)
    };
    let taken = segments.into_iter().filter(|(key, (address, _))| is_taken(key, address));
    Some(Accepted { segments: taken.map(|(key, (_, bytes))| (key, bytes)).collect(), has_base: nsid.is_some() })
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn name_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    bytes.get(at..at + 32).and_then(|field| field.split(|byte| *byte == 0).next())
}

/// The contents of a compressed file, as ASMT's reader decodes them: the first gzip member as far
/// as it goes, then zeros; length and checksum are not checked. `None` if the header is not ASMT's.
fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_asmts = matches!(bytes.get(..4), Some(b"ASMT" | b"TMSA")) && word_at(bytes, 4)? == 1;
    let size = u64::from(word_at(bytes, 8)?) | u64::from(word_at(bytes, 12)?) << 32;
    // No segment of these tests is larger: a larger size was never written.
    let size = usize::try_from(size).ok().filter(|size| is_asmts && *size <= 64 << 20)?;
    let stream = bytes.get(34..).unwrap_or_default();
    let mut contents = miniz_oxide::inflate::decompress_to_vec_with_limit(stream, size).unwrap_or_else(|partial| partial.output);
    contents.resize(size, 0);
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "ae001000.dat";

    fn base(version: u32, shutdown: u32, stages: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        bytes[4..8].copy_from_slice(&shutdown.to_le_bytes());
        bytes[1024..1028].copy_from_slice(b"test");
        bytes[2152..2156].copy_from_slice(&stages.to_le_bytes());
        bytes
    }

    fn stripe(name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[12..12 + name.len()].copy_from_slice(name);
        bytes
    }

    fn meta(stages: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[20..24].copy_from_slice(&stages.to_le_bytes());
        bytes
    }

    fn whole() -> BTreeMap<String, Vec<u8>> {
        [
            (BASE, base(12, 1, 2)),
            ("ae001001.dat", vec![1; 64]),
            ("ae001100.dat", vec![2; 64]),
            ("AE001101.dat", vec![3; 64]),
            ("a2001000.dat", meta(1)),
            ("a2001100.dat", vec![4; 64]),
            ("ad002000.dat", stripe(b"test")),
            ("ad003001.dat", stripe(b"other")),
            ("asmt-manifest-0-test.json", vec![5]),
        ]
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
    }

    fn keys(accepted: &Accepted) -> Vec<u32> {
        accepted.segments.keys().map(|key| key.0).collect()
    }

    #[test]
    fn a_whole_namespace_is_taken_with_the_stripes_of_its_name() {
        let accepted = acceptable(&whole(), 0, "test").expect("a backup");
        assert!(accepted.has_base);
        let expected = [0xa200_1000, 0xa200_1100, 0xad00_2000, 0xae00_1000, 0xae00_1001, 0xae00_1100, 0xae00_1101];
        assert_eq!(keys(&accepted), expected);
        assert_eq!((acceptable(&whole(), 1, "test"), acceptable(&whole(), 0, "tes")), (None, None));
    }

    #[test]
    fn what_it_checks_makes_it_refuse() {
        let without = |name: &str| {
            let mut files = whole();
            files.remove(name).expect(name);
            acceptable(&files, 0, "test")
        };
        for name in ["ae001001.dat", "ae001100.dat", "AE001101.dat", "a2001000.dat", "a2001100.dat"] {
            assert_eq!(without(name), None, "{name}");
        }
        // A missing stripe is not among the things that it checks.
        assert_eq!(without("ad002000.dat").map(|accepted| accepted.segments.len()), Some(6));
        for damaged in [base(9, 1, 2), base(13, 1, 2), base(12, 0, 2), base(12, 1, 3), vec![0; 4096], Vec::new()] {
            let mut files = whole();
            files.insert(BASE.to_owned(), damaged);
            assert_eq!(acceptable(&files, 0, "test").filter(|accepted| accepted.has_base), None);
        }
        let mut files = whole();
        files.insert("a2001000.dat".to_owned(), meta(2));
        assert_eq!(acceptable(&files, 0, "test"), None);
    }

    #[test]
    fn stripes_stand_on_their_own_unless_an_index_without_base_is_beside_them() {
        let accepted = acceptable(&whole(), 0, "other").expect("stripes");
        assert_eq!((accepted.has_base, keys(&accepted)), (false, vec![0xad00_3001]));
        let mut files = whole();
        files.remove(BASE);
        // The index has nsid 1 and its stripes have nsid 2: nothing shows that they belong
        // together.
        assert_eq!(acceptable(&files, 0, "test").map(|accepted| keys(&accepted)), Some(vec![0xad00_2000]));
        files.insert("ad001001.dat".to_owned(), stripe(b"test"));
        assert_eq!(acceptable(&files, 0, "test"), None);
    }

    #[test]
    fn a_compressed_file_is_taken_as_far_as_it_goes() {
        let contents = vec![7; 100_000];
        let mut file = b"ASMT\x01\0\0\0".to_vec();
        file.extend(100_000u64.to_le_bytes());
        file.extend([0; 8]);
        file.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3]);
        file.extend(miniz_oxide::deflate::compress_to_vec(&contents, 1));
        assert_eq!(decoded(&file), Some(contents.clone()));
        let cut = decoded(&file[..file.len() / 2]).expect("it is not refused");
        assert_eq!(cut.len(), 100_000);
        assert_ne!(cut, contents);
        assert_eq!((decoded(&file[..12]), decoded(b"ASMX")), (None, None));
        assert_eq!(decoded(&vec![0; file.len()]), None);
    }
}
