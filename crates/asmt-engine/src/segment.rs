//! What a segment is: its key, the headers it may carry, and the name of the file it is kept in.
//!
//! Pure: bytes and numbers in, values out. Promise: nothing is called Aerospike's unless every field of its key is
//! in range, and no header field is believed further than its bounds. Must never: attach, read or open anything.
//!
//! Layout facts come from the public Community Edition headers (8.1.2), from what a server was seen to write, and from the
//! observed behaviour of ASMT 2.2.1. `tests/witness.rs` holds them against bytes that other programs made; those that no
//! such bytes show are listed in `docs/FORMAT.md`. All integers are little-endian on x86-64 and aarch64 alike.

use std::fmt;

/// Highest instance number (`asd --instance N`); several `asd` can run on one host.
pub const MAX_INSTANCE: u8 = 15;
/// Lowest and highest namespace id; a namespace keeps its id across restarts.
pub const NSID_RANGE: std::ops::RangeInclusive<u8> = 1..=32;
/// `low` of the first arena stage of a primary or secondary index.
pub const FIRST_STAGE: u32 = 0x100;
/// `low` of the last arena stage, and the number of the last data stripe: 2,048 stages, 2,304 stripes.
const LAST_LOW: u32 = 0x8ff;
/// Most arena stages of an index.
pub const MAX_STAGES: u32 = 2048;
/// A namespace name is at most 31 bytes, NUL-padded to 32.
const NAME_FIELD_BYTES: usize = 32;

/// Layout versions of the base segment that are known; any other is refused.
pub const KNOWN_BASE_VERSIONS: std::ops::RangeInclusive<u32> = 10..=12;
/// Shutdown status that says "cleanly shut down, may be trusted".
pub const SHUTDOWN_CLEAN: u32 = 1;
/// Offset in bytes of the shutdown status in base: the last word a restore stores.
pub const SHUTDOWN_OFFSET: usize = 4;
/// Offset in bytes of the flags word of a data stripe; bit 0 says "trusted".
pub const STRIPE_FLAGS_OFFSET: usize = 56;
/// Bit of the stripe's flags word that says the stripe may be trusted.
pub const STRIPE_TRUSTED: u32 = 1;
/// First eight bytes of a data stripe, and of a storage device or file: `22 03 73 75 72 74 49 43`.
pub const STRIPE_MAGIC: u64 = 0x4349_7472_7573_0322;
/// Version of the header of a stripe or device; no other is known.
pub const STRIPE_VERSION: u32 = 4;

/// Largest segment that is believed: eight times the largest stripe there can be, and what tables of sums are bounded by.
pub const MAX_SEGMENT_BYTES: u64 = 16 << 40;

/// Bytes from the start of a segment that hold every header field read here (base is the longest: 2156).
pub const HEADER_BYTES: usize = 4096;
/// Smallest base that holds all fields that decide: version, shutdown status, name, stage count.
pub const BASE_MIN_BYTES: u64 = 2156;
/// Smallest secondary-index meta that holds its stage count.
pub const SI_META_MIN_BYTES: u64 = 24;
/// Smallest data stripe that holds its header.
pub const STRIPE_MIN_BYTES: u64 = 60;

/// What a segment holds.
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
    /// The name ASMT's listings use.
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

    /// Base and si-meta are small and are never compressed, so that they can be read with no decoder.
    pub fn may_be_compressed(self) -> bool {
        !matches!(self, Self::PiBase | Self::SiMeta)
    }

    /// Whether the segment belongs to the primary or secondary index (found by nsid) and not to the data (found by name).
    pub fn is_index(self) -> bool {
        self != Self::DataStage
    }

    /// Whether its first bytes are a header that is read.
    pub fn has_header(self) -> bool {
        matches!(self, Self::PiBase | Self::SiMeta | Self::DataStage)
    }

    /// Smallest size in bytes at which the segment can be what its key says.
    pub fn min_bytes(self) -> u64 {
        match self {
            Self::PiBase => BASE_MIN_BYTES,
            Self::SiMeta => SI_META_MIN_BYTES,
            Self::DataStage => STRIPE_MIN_BYTES,
            Self::PiTreex | Self::PiStage | Self::SiStage => 1,
        }
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

    /// What the key says, or `None` if it is not one of Aerospike's: another type, nsid or low.
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
            // 0x001 of this type is stripe 1, not treex.
            (0xad, 0..=LAST_LOW) => (SegmentType::DataStage, low),
            _ => return None,
        };
        Some(Address { instance, nsid, segment_type, index: index as u16 })
    }

    /// Reads a key as it stands in a file name: exactly eight hex digits, of either case.
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

/// What a key of Aerospike's says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Instance, 0–15.
    pub instance: u8,
    /// Namespace id, 1–32.
    pub nsid: u8,
    /// What the segment holds.
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
        // A number that is out of range is another one in the key, or makes it none of Aerospike's.
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

/// A namespace's name: 1–31 bytes of UTF-8 with no control character and no comma.
///
/// The comma separates names on the command line; no server accepts one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// Checks a name as typed or as read from a manifest.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() < NAME_FIELD_BYTES;
        let clean = !text.chars().any(char::is_control);
        (fits && clean).then(|| Self(text.to_owned()))
    }

    /// Reads the 32-byte field of a header, up to its first NUL; with none it is no name.
    fn from_field(field: &[u8]) -> Option<Self> {
        let end = field.iter().position(|&b| b == 0)?;
        Self::new(std::str::from_utf8(&field[..end]).ok()?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn name_field_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    bytes.get(offset..offset + NAME_FIELD_BYTES)
}

/// The fields of base that decide whether a copy may be made or trusted, and one that informs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseHeader {
    /// Layout version, u32 at 0.
    pub version: u32,
    /// Shutdown status, u32 at 4; 1 is clean.
    pub shutdown: u32,
    /// Namespace name, char\[32\] at 1024; `None` if the field holds no valid name.
    pub name: Option<NamespaceName>,
    /// Size of a primary stage in bytes, u64 at 2088. Read out of public headers: it may only inform.
    pub stage_bytes: u64,
    /// Number of primary stages, u32 at 2152.
    pub stage_count: u32,
}

impl BaseHeader {
    /// Reads the first bytes of a base. `None` if fewer than [`BASE_MIN_BYTES`] are given.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            version: u32_at(bytes, 0)?,
            shutdown: u32_at(bytes, SHUTDOWN_OFFSET)?,
            name: NamespaceName::from_field(name_field_at(bytes, 1024)?),
            stage_bytes: u64_at(bytes, 2088)?,
            stage_count: u32_at(bytes, 2152)?,
        })
    }
}

/// The field of the secondary index' meta that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiMetaHeader {
    /// Number of secondary stages, u32 at 20.
    pub stage_count: u32,
}

impl SiMetaHeader {
    /// Reads the first bytes of a meta. `None` if fewer than [`SI_META_MIN_BYTES`] are given.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { stage_count: u32_at(bytes, 20)? })
    }
}

/// The header of a data stripe, and of a storage device or file, which has the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeHeader {
    /// Magic, u64 at 0; [`STRIPE_MAGIC`].
    pub magic: u64,
    /// Version, u32 at 8; [`STRIPE_VERSION`].
    pub version: u32,
    /// Namespace name, char\[32\] at 12; `None` if the field holds no valid name.
    pub name: Option<NamespaceName>,
    /// Number of stripes in the set, or of its main devices (shadows are not counted), u32 at 44.
    pub device_count: u32,
    /// Random id, the same in every member of a set, u64 at 48; a server stores another one at each start.
    pub random: u64,
    /// Flags, u32 at 56; bit 0 is "trusted".
    pub flags: u32,
}

impl StripeHeader {
    /// Returns true if its trusted bit is set: a clean stop sets it, and each start clears it.
    pub fn is_trusted(&self) -> bool {
        self.flags & STRIPE_TRUSTED != 0
    }

    /// Reads the first bytes of a stripe. `None` if fewer than [`STRIPE_MIN_BYTES`] are given.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            magic: u64_at(bytes, 0)?,
            version: u32_at(bytes, 8)?,
            name: NamespaceName::from_field(name_field_at(bytes, 12)?),
            device_count: u32_at(bytes, 44)?,
            random: u64_at(bytes, 48)?,
            flags: u32_at(bytes, STRIPE_FLAGS_OFFSET)?,
        })
    }
}

/// What the first bytes of a segment say, by what its key says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// Of a base.
    Base(BaseHeader),
    /// Of a secondary index' meta.
    SiMeta(SiMetaHeader),
    /// Of a data stripe.
    Stripe(StripeHeader),
    /// The segment has no header: treex and stages.
    None,
    /// The segment should have a header, and it is not there: too short, or its bytes could not be had.
    Unreadable,
}

impl Header {
    /// Reads the header that a segment of this type must have from its first [`HEADER_BYTES`] bytes (or all, if shorter).
    pub fn parse(segment_type: SegmentType, bytes: &[u8]) -> Self {
        let found = match segment_type {
            SegmentType::PiBase => BaseHeader::parse(bytes).map(Self::Base),
            SegmentType::SiMeta => SiMetaHeader::parse(bytes).map(Self::SiMeta),
            SegmentType::DataStage => StripeHeader::parse(bytes).map(Self::Stripe),
            SegmentType::PiTreex | SegmentType::PiStage | SegmentType::SiStage => Some(Self::None),
        };
        found.unwrap_or(Self::Unreadable)
    }

    /// The namespace's name, where this kind of header has one.
    pub fn name(&self) -> Option<&NamespaceName> {
        match self {
            Self::Base(base) => base.name.as_ref(),
            Self::Stripe(stripe) => stripe.name.as_ref(),
            Self::SiMeta(_) | Self::None | Self::Unreadable => None,
        }
    }
}

/// How a segment stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `<key>.dat`: byte for byte.
    Raw,
    /// `<key>.dat.gz`: ASMT's 24-byte header, then one gzip member.
    Gzip,
}

impl Encoding {
    /// The word the manifest and listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
        }
    }
}

/// The name of the file that keeps a segment: the key in eight lower-case hex digits, `.dat`, and `.gz` if compressed.
pub fn file_name(key: Key, encoding: Encoding) -> String {
    match encoding {
        Encoding::Raw => format!("{key}.dat"),
        Encoding::Gzip => format!("{key}.dat.gz"),
    }
}

/// Reads a file name of a backup. `None` if it does not name a segment of Aerospike's: such a file is left alone.
/// Hex digits of either case are taken.
pub fn parse_file_name(name: &str) -> Option<(Key, Address, Encoding)> {
    let (digits, encoding) = match name.strip_suffix(".dat.gz") {
        Some(digits) => (digits, Encoding::Gzip),
        None => (name.strip_suffix(".dat")?, Encoding::Raw),
    };
    let key = Key::from_hex(digits)?;
    Some((key, key.address()?, encoding))
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

    #[test]
    fn file_names_are_keys_and_nothing_else() {
        let (key, address, encoding) = parse_file_name("AE30210a.dat.gz").expect("a segment's file");
        assert_eq!((key, encoding), (Key(0xae30_210a), Encoding::Gzip));
        assert_eq!((address.instance, address.nsid, address.index), (3, 2, 10));
        assert_eq!(file_name(key, encoding), "ae30210a.dat.gz");
        for name in [
            "ae001000",
            "ae001000.dat.gz.tmp",
            "+e001000.dat",
            " ae001000.dat",
            "ae00100.dat",
            "ae0010000.dat",
            "ff001000.dat",
            "ae001000.DAT",
            ".dat",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_one_to_thirty_one_clean_bytes() {
        assert!(NamespaceName::new(&"n".repeat(31)).is_some());
        for bad in ["", &"n".repeat(32), "a\nb", "\u{1b}[2J"] {
            assert_eq!(NamespaceName::new(bad), None, "{bad:?}");
        }
        for odd in ["a,b", "a b", "a/b", "..", "ä"] {
            assert_eq!(NamespaceName::new(odd).expect("a name").as_str(), odd);
        }
        let mut field = [0u8; 32];
        field[..4].copy_from_slice(b"test");
        assert_eq!(NamespaceName::from_field(&field).expect("a name").as_str(), "test");
        field[9] = b'x';
        assert_eq!(NamespaceName::from_field(&field).expect("up to the first NUL").as_str(), "test");
        assert_eq!(NamespaceName::from_field(&[b'n'; 32]), None, "not terminated");
    }

    #[test]
    fn headers_that_are_cut_short_are_unreadable() {
        assert_eq!(Header::parse(SegmentType::PiBase, &[0; 2155]), Header::Unreadable);
        assert!(matches!(Header::parse(SegmentType::PiBase, &[0; 2156]), Header::Base(_)));
        assert_eq!(Header::parse(SegmentType::SiMeta, &[0; 23]), Header::Unreadable);
        assert_eq!(Header::parse(SegmentType::DataStage, &[0; 59]), Header::Unreadable);
        assert_eq!(Header::parse(SegmentType::PiTreex, &[]), Header::None);
    }
}
