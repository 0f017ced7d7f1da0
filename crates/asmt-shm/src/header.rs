//! The headers that segments begin with, and the name of a namespace in them.
//!
//! Pure. Promise: every header field is checked against its bounds before it is believed. Must
//! never: attach, read or open anything.
//!
//! The facts about the layout come from the public Community Edition headers (8.1.2), from bytes
//! that a server wrote, and from the observed behaviour of ASMT 2.2.1. The engine's
//! `tests/witness.rs` compares them with bytes that other programs made. `docs/FORMAT.md` lists the
//! facts that no such bytes show. All integers are little-endian, on x86-64 and on aarch64.

use crate::key::SegmentType;
use std::fmt;

/// A namespace name is at most 31 bytes, NUL-padded to 32.
const NAME_FIELD_BYTES: usize = 32;

/// The known layout versions of the base segment; any other version is refused.
pub const KNOWN_BASE_VERSIONS: std::ops::RangeInclusive<u32> = 10..=12;
/// The shutdown status "cleanly shut down, may be trusted".
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

/// Bytes from the start of a segment that hold every header field read here (base is the longest:
/// 2156).
pub const HEADER_BYTES: usize = 4096;
/// Smallest base that holds all fields that are checked: version, shutdown status, name, stage
/// count.
pub const BASE_MIN_BYTES: u64 = 2156;
/// Smallest secondary-index meta that holds its stage count.
pub const SI_META_MIN_BYTES: u64 = 24;
/// Smallest data stripe that holds its header.
pub const STRIPE_MIN_BYTES: u64 = 60;

impl SegmentType {
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

/// The fields of base that decide whether a copy may be made or trusted, and one for information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseHeader {
    /// Layout version, u32 at 0.
    pub version: u32,
    /// Shutdown status, u32 at 4; 1 is clean.
    pub shutdown: u32,
    /// Namespace name, char\[32\] at 1024; `None` if the field holds no valid name.
    pub name: Option<NamespaceName>,
    /// Size of a primary stage in bytes, u64 at 2088. Known from public headers alone, so it is for
    /// information only.
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

/// The field of the secondary index's meta that is checked.
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

/// The header of a data stripe; a storage device or file has the same one.
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
    /// Random id, the same in every member of a set, u64 at 48; a server stores another one at each
    /// start.
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

/// The header in the first bytes of a segment, by the type that its key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// Of a base.
    Base(BaseHeader),
    /// Of a secondary index's meta.
    SiMeta(SiMetaHeader),
    /// Of a data stripe.
    Stripe(StripeHeader),
    /// The segment has no header: treex and stages.
    None,
    /// The segment should have a header, but is too short, or its bytes could not be read.
    Unreadable,
}

impl Header {
    /// Reads the header that a segment of this type must have from its first [`HEADER_BYTES`] bytes
    /// (or all, if shorter).
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

#[cfg(test)]
mod tests {
    use super::*;

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
