//! The keys of Aerospike's segments: the instance, namespace, type and stage that a key stands for.
//!
//! Pure. Promise: a key counts as Aerospike's only if each of its fields is in range. Must never:
//! attach, read or open anything.

use std::fmt;

/// Highest instance number (`asd --instance N`); several `asd` can run on one host.
pub const MAX_INSTANCE: u8 = 15;
/// Lowest and highest namespace id; a namespace keeps its id across restarts.
pub const NSID_RANGE: std::ops::RangeInclusive<u8> = 1..=32;
/// `low` of the first arena stage of a primary or secondary index.
pub const FIRST_STAGE: u32 = 0x100;
/// `low` of the last arena stage, and the number of the last data stripe: there are 2,048 stages
/// and 2,304 stripes.
const LAST_LOW: u32 = 0x8ff;
/// Most arena stages of one index.
pub const MAX_STAGES: u32 = 2048;
/// Largest segment that is believed: eight times the largest stripe there can be. It bounds the
/// size of the tables of checksums.
pub const MAX_SEGMENT_BYTES: u64 = 16 << 40;

/// The contents of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentType {
    /// Primary index: namespace name, versions, shutdown status, arena, sets.
    PiBase,
    /// Primary index: root handle of every sprig of every partition.
    PiTreex,
    /// Primary index: arena stage of 64-byte elements.
    PiStage,
    /// Secondary index: meta.
    SiMeta,
    /// Secondary index: arena stage of 4096-byte b-tree nodes.
    SiStage,
    /// In-memory data: one stripe.
    DataStage,
}

impl SegmentType {
    /// The name that ASMT's listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::PiBase => "pi-base",
            Self::PiTreex => "pi-treex",
            Self::PiStage => "pi-stage",
            Self::SiMeta => "si-meta",
            Self::SiStage => "si-stage",
            Self::DataStage => "data-stage",
        }
    }

    /// Base and si-meta are small and are never compressed, so that they can be read with no
    /// decoder.
    pub fn may_be_compressed(self) -> bool {
        !matches!(self, Self::PiBase | Self::SiMeta)
    }

    /// Returns true if the segment belongs to the primary or secondary index, which is found by
    /// nsid, and false if it belongs to the data, which is found by name.
    pub fn is_index(self) -> bool {
        self != Self::DataStage
    }

    /// Returns true if its first bytes are a header that asmt reads.
    pub fn has_header(self) -> bool {
        matches!(self, Self::PiBase | Self::SiMeta | Self::DataStage)
    }
}

/// A System V key: `type` (8 bits), `inst` (4), `nsid` (8), `low` (12), from the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl Key {
    /// The key as the kernel takes it: keys of type `0xAE` are negative.
    pub fn as_raw(self) -> i32 {
        self.0.cast_signed()
    }

    /// The address that the key stands for, or `None` if the key is not one of Aerospike's: it has
    /// another type, nsid or low.
    pub fn address(self) -> Option<Address> {
        let low = self.0 & 0xfff;
        let nsid = ((self.0 >> 12) & 0xff) as u8;
        let instance = ((self.0 >> 20) & 0xf) as u8;
        if !NSID_RANGE.contains(&nsid) {
            return None;
        }
        let is_stage = (FIRST_STAGE..=LAST_LOW).contains(&low);
        let (segment_type, index) = match (self.0 >> 24, low) {
            (0xae, 0) => (SegmentType::PiBase, 0),
            (0xae, 1) => (SegmentType::PiTreex, 0),
            (0xae, _) if is_stage => (SegmentType::PiStage, low - FIRST_STAGE),
            (0xa2, 0) => (SegmentType::SiMeta, 0),
            (0xa2, _) if is_stage => (SegmentType::SiStage, low - FIRST_STAGE),
            // The key 0x001 of this type is stripe 1, not treex.
            (0xad, 0..=LAST_LOW) => (SegmentType::DataStage, low),
            _ => return None,
        };
        Some(Address { instance, nsid, segment_type, index: index as u16 })
    }

    /// Reads a key as it stands in a file name: exactly eight hex digits, upper or lower case.
    pub fn from_hex(text: &str) -> Option<Key> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u32::from_str_radix(text, 16).ok().map(Key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:08x})", self.0)
    }
}

/// The address that one of Aerospike's keys stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Instance, 0–15.
    pub instance: u8,
    /// Namespace id, 1–32.
    pub nsid: u8,
    /// The contents of the segment.
    pub segment_type: SegmentType,
    /// Stage or stripe number from 0; 0 for base, treex and meta.
    pub index: u16,
}

impl Address {
    /// The key of this address. `None` if a field is out of range.
    pub fn key(self) -> Option<Key> {
        let (kind, low) = match self.segment_type {
            SegmentType::PiBase => (0xae, 0),
            SegmentType::PiTreex => (0xae, 1),
            SegmentType::PiStage => (0xae, FIRST_STAGE + u32::from(self.index)),
            SegmentType::SiMeta => (0xa2, 0),
            SegmentType::SiStage => (0xa2, FIRST_STAGE + u32::from(self.index)),
            SegmentType::DataStage => (0xad, u32::from(self.index)),
        };
        // A number out of range would change another field of the key, or make the key none of
        // Aerospike's.
        let key = Key(kind << 24 | u32::from(self.instance) << 20 | u32::from(self.nsid) << 12 | low);
        (key.address() == Some(self)).then_some(key)
    }

    /// Stage or stripe number, where the type has one.
    pub fn stage(self) -> Option<u16> {
        match self.segment_type {
            SegmentType::PiStage | SegmentType::SiStage | SegmentType::DataStage => Some(self.index),
            SegmentType::PiBase | SegmentType::PiTreex | SegmentType::SiMeta => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_aerospikes_makes_its_address_and_back() {
        let mut count = 0;
        for kind in [0xaeu32, 0xa2, 0xad] {
            for instance in 0..16u32 {
                for nsid in 0..=255u32 {
                    for low in 0..0x1000u32 {
                        let key = Key(kind << 24 | instance << 20 | nsid << 12 | low);
                        if let Some(address) = key.address() {
                            assert_eq!(address.key(), Some(key));
                            count += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(FIRST_STAGE + MAX_STAGES, LAST_LOW + 1);
        // 16 instances × 32 nsids × (base, treex, 2048 stages; meta, 2048 stages; 2304 stripes)
        assert_eq!(count, 16 * 32 * (2 + 2048 + 1 + 2048 + 2304));
    }

    #[test]
    fn stripe_one_is_a_stripe_and_not_a_treex() {
        let address = Key(0xad00_7001).address().expect("an address");
        assert_eq!((address.segment_type, address.index), (SegmentType::DataStage, 1));
        let treex = Key(0xae00_1001).address().expect("an address");
        assert_eq!((treex.segment_type, treex.stage()), (SegmentType::PiTreex, None));
    }

    #[test]
    fn foreign_keys_have_no_address() {
        for key in [0, 0xae00_0000, 0xae02_1000, 0xae00_1002, 0xae00_10ff, 0xae00_1900, 0xa200_1001, 0xad00_1900, 0xaf00_1000] {
            assert_eq!(Key(key).address(), None, "{key:08x}");
        }
        let out_of_range = Address { instance: 16, nsid: 1, segment_type: SegmentType::PiBase, index: 0 };
        assert_eq!(out_of_range.key(), None);
        assert_eq!(Address { instance: 0, nsid: 1, segment_type: SegmentType::PiStage, index: 2048 }.key(), None);
        assert_eq!(Address { instance: 0, nsid: 33, segment_type: SegmentType::PiBase, index: 0 }.key(), None);
    }
}
