//! Keys and headers as a server writes them, as numbers and bytes to store.
//!
//! Promise: every fact is written down here a second time, from the notes on Aerospike's segments
//! and from bytes that a server wrote, so that every test finds a wrong fact in the engine's
//! reader. Such bytes are among the tests, so that both cannot be wrong in the same way. Must
//! never: use the engine's layout.

/// Bytes of an element of a primary index stage.
pub const ELEMENT_BYTES: u64 = 64;
/// Bytes of a node of a secondary index stage.
pub const NODE_BYTES: u64 = 4096;
/// Versions of a base that servers have written.
pub const BASE_VERSIONS: std::ops::RangeInclusive<u32> = 10..=12;

/// The contents of one of Aerospike's segments; stages and stripes with their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Primary index: name, versions, shutdown status, arena.
    Base,
    /// Primary index: roots of sprigs.
    Treex,
    /// Primary index: elements.
    Stage(u32),
    /// Secondary index: meta.
    SiMeta,
    /// Secondary index: nodes.
    SiStage(u32),
    /// Data.
    Stripe(u32),
}

/// The place of one of Aerospike's segments in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Instance, 0 to 15.
    pub instance: u32,
    /// Namespace id, 1 to 32.
    pub nsid: u32,
    /// Its contents.
    pub holds: Holds,
}

impl Place {
    /// The key: 8 bits for the type, 4 for the instance, 8 for the nsid, 12 for the number. `None`
    /// if a number is out of range.
    pub fn key(self) -> Option<u32> {
        let (kind, which) = match self.holds {
            Holds::Base => (0xae, 0),
            Holds::Treex => (0xae, 1),
            Holds::Stage(stage) => (0xae, stage.checked_add(0x100)?),
            Holds::SiMeta => (0xa2, 0),
            Holds::SiStage(stage) => (0xa2, stage.checked_add(0x100)?),
            Holds::Stripe(stripe) => (0xad, stripe),
        };
        let fits = which <= 0x8ff && self.instance < 16 && (1..=32).contains(&self.nsid);
        fits.then_some(kind << 24 | self.instance << 20 | self.nsid << 12 | which)
    }

    /// Reads a key. `None` if it is not Aerospike's.
    pub fn of(key: u32) -> Option<Self> {
        let which = key & 0xfff;
        let holds = match key >> 24 {
            0xae if which == 0 => Holds::Base,
            0xae if which == 1 => Holds::Treex,
            0xae => Holds::Stage(which.checked_sub(0x100)?),
            0xa2 if which == 0 => Holds::SiMeta,
            0xa2 => Holds::SiStage(which.checked_sub(0x100)?),
            0xad => Holds::Stripe(which),
            _ => return None,
        };
        let place = Self { instance: key >> 20 & 15, nsid: key >> 12 & 0xff, holds };
        (place.key() == Some(key)).then_some(place)
    }

    /// Returns true if it belongs to an index, and false if it belongs to the data.
    pub fn is_index(self) -> bool {
        !matches!(self.holds, Holds::Stripe(_))
    }
}

fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    bytes[offset..offset + field.len()].copy_from_slice(field);
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

/// A field of 32 bytes, up to its first NUL.
fn name_at(bytes: &[u8], offset: usize) -> String {
    let field = &bytes[offset..offset + NAME_BYTES];
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Bytes of the field of a namespace's name.
pub const NAME_BYTES: usize = 32;
/// Bytes of a base that are read and written here.
pub const BASE_BYTES: usize = 2156;

/// The header of a base.
pub struct Base<'a> {
    /// Layout version.
    pub version: u32,
    /// Shutdown status.
    pub shutdown: u32,
    /// Namespace.
    pub name: &'a str,
    /// Key of stage 0.
    pub stage_key: u32,
    /// Size of a stage, bytes.
    pub stage_bytes: u64,
    /// Elements ever handed out, over all stages.
    pub allocated: u64,
    /// Number of stages.
    pub stage_count: u32,
}

/// Returns the first bytes of a base; the rest of the segment is sets and zeros.
pub fn base(header: &Base<'_>) -> Vec<u8> {
    let capacity = header.stage_bytes / ELEMENT_BYTES;
    let mut bytes = vec![0; BASE_BYTES];
    put(&mut bytes, 0, &header.version.to_le_bytes());
    put(&mut bytes, 4, &header.shutdown.to_le_bytes());
    put(&mut bytes, 1024, header.name.as_bytes());
    // The arena begins at 2048.
    put(&mut bytes, 2064, &header.stage_key.to_le_bytes());
    put(&mut bytes, 2068, &(ELEMENT_BYTES as u32).to_le_bytes());
    put(&mut bytes, 2072, &(capacity as u32).to_le_bytes());
    put(&mut bytes, 2088, &header.stage_bytes.to_le_bytes());
    let last = header.allocated.saturating_sub(1) / capacity.max(1);
    put(&mut bytes, 2104, &(last as u32).to_le_bytes());
    put(&mut bytes, 2108, &((header.allocated - last * capacity) as u32).to_le_bytes());
    put(&mut bytes, 2152, &header.stage_count.to_le_bytes());
    bytes
}

/// Returns the version, shutdown status and name of a base, from its first [`BASE_BYTES`].
pub fn parse_base(bytes: &[u8]) -> (u32, u32, String) {
    (u32_at(bytes, 0), u32_at(bytes, 4), name_at(bytes, 1024))
}

/// Returns the first bytes of a secondary index's meta: one index, with this number of stages.
pub fn si_meta(stage_count: u32) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    put(&mut bytes, 0, &1u32.to_le_bytes());
    put(&mut bytes, 20, &stage_count.to_le_bytes());
    bytes
}

/// Bytes of the header of a data stripe or storage device that are read and written; the rest of it
/// is zeros.
pub const HEADER_BYTES: usize = 64;
/// Version of that header.
pub const HEADER_VERSION: u32 = 4;
const HEADER_MAGIC: [u8; 8] = [0x22, 0x03, 0x73, 0x75, 0x72, 0x74, 0x49, 0x43];
/// Flag: shut down cleanly.
const TRUSTED: u32 = 1;

/// The header of a data stripe; a storage device or file has the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceHeader {
    /// Version; [`HEADER_VERSION`].
    pub version: u32,
    /// The field of the namespace's name, with all its bytes.
    pub name: [u8; NAME_BYTES],
    /// Stripes of the set, or its main devices.
    pub device_count: u32,
    /// Random id, the same in every member of the set.
    pub random: u64,
    /// Flags; bit 0 is "trusted".
    pub flags: u32,
    /// Write block size, bytes.
    pub write_block_bytes: u32,
}

impl DeviceHeader {
    /// Makes the header of a set that was shut down cleanly, or not. A name that is too long is cut
    /// off.
    pub fn new(name: &[u8], device_count: u32, random: u64, is_trusted: bool) -> Self {
        let mut field = [0; NAME_BYTES];
        field.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        let flags = if is_trusted { TRUSTED } else { 0 };
        Self { version: HEADER_VERSION, name: field, device_count, random, flags, write_block_bytes: 8 << 20 }
    }

    /// Reads the first bytes of a device. `None` if it has no header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&bytes[12..44]);
        let random = u64::from(u32_at(bytes, 48)) | u64::from(u32_at(bytes, 52)) << 32;
        (bytes[..8] == HEADER_MAGIC).then(|| Self {
            version: u32_at(bytes, 8),
            name,
            device_count: u32_at(bytes, 44),
            random,
            flags: u32_at(bytes, 56),
            write_block_bytes: u32_at(bytes, 60),
        })
    }

    /// Returns the header as it stands on its device.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, &HEADER_MAGIC);
        put(&mut bytes, 8, &self.version.to_le_bytes());
        put(&mut bytes, 12, &self.name);
        put(&mut bytes, 44, &self.device_count.to_le_bytes());
        put(&mut bytes, 48, &self.random.to_le_bytes());
        put(&mut bytes, 56, &self.flags.to_le_bytes());
        put(&mut bytes, 60, &self.write_block_bytes.to_le_bytes());
        bytes
    }

    /// The namespace.
    pub fn name(&self) -> String {
        name_at(&self.name, 0)
    }

    /// Returns true if it was shut down cleanly.
    pub fn is_trusted(&self) -> bool {
        self.flags & TRUSTED != 0
    }

    /// Sets or clears the trusted bit.
    pub fn set_trusted(&mut self, is_trusted: bool) {
        self.flags = if is_trusted { self.flags | TRUSTED } else { self.flags & !TRUSTED };
    }
}

/// Returns the handle of an element: its stage, and its number in it, in 40 bits.
pub fn handle(element: u64, capacity: u64) -> u64 {
    ((element / capacity) << 28) | (element % capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(path: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures").join(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn a_header_is_that_of_a_server_but_for_name_random_and_flags() {
        for path in [
            "file-1-first-start-running/test-a.dat.head",
            "file-2-clean-stop/test-b.dat.head",
            "dev-2-clean-stop/loop3.head",
            "memory-only-stripe-running/stripe-0.head",
        ] {
            let written = fixture(&format!("server/{path}"));
            let (head, rest) = written.split_first_chunk().expect("a header");
            let found = DeviceHeader::parse(head).expect("a server's");
            let ours = DeviceHeader::new(found.name().as_bytes(), found.device_count, found.random, found.is_trusted());
            assert_eq!((ours.to_bytes(), &ours), (*head, &found), "{path}");
            assert!(rest.iter().all(|byte| *byte == 0), "{path}");
        }
        assert_eq!(fixture("server/blank/fresh.head").first_chunk().and_then(DeviceHeader::parse), None);
    }

    /// The arena of a server with one stage, of which 64 stashes were handed out. (The index is in
    /// ordinary memory, so its stages have no key.)
    #[test]
    fn the_arena_of_a_base_is_that_of_a_server() {
        let header = Base {
            version: 12,
            shutdown: 1,
            name: "test",
            stage_key: 0,
            stage_bytes: 128 << 20,
            allocated: 32_768,
            stage_count: 1,
        };
        let (ours, arena) = (base(&header), fixture("server/arena-ce/arena-struct.bin"));
        for field in [16..32, 40..48, 56..64, 104..108] {
            assert_eq!(ours[2048 + field.start..2048 + field.end], arena[field.clone()], "{field:?}");
        }
    }

    #[test]
    fn keys_and_headers_are_those_in_asmts_backups() {
        for (key, instance, nsid, holds) in [
            ("ae302000", 3, 2, Holds::Base),
            ("ae302001", 3, 2, Holds::Treex),
            ("ae302102", 3, 2, Holds::Stage(2)),
            ("a2302000", 3, 2, Holds::SiMeta),
            ("a2302101", 3, 2, Holds::SiStage(1)),
            ("ad302001", 3, 2, Holds::Stripe(1)),
            ("ad105000", 1, 5, Holds::Stripe(0)),
            ("ae120000", 1, 32, Holds::Base),
        ] {
            let segments = fixture(if instance == 3 { "golden/gz-crc-all/segments.txt" } else { "golden/raw-all/segments.txt" });
            assert!(String::from_utf8_lossy(&segments).contains(key), "{key}");
            let (number, place) = (u32::from_str_radix(key, 16).expect("hex"), Place { instance, nsid, holds });
            assert_eq!((Place::of(number), place.key()), (Some(place), Some(number)), "{key}");
        }
        for key in [0xae00_0000, 0xae02_1000, 0xae00_1002, 0xa200_1001, 0xad00_1900, 0xaf00_1000] {
            assert_eq!(Place::of(key), None, "{key:08x}");
        }
        let saved = fixture("golden/raw-all/backup/ae120000.dat");
        assert_eq!(parse_base(&saved), (10, 1, "store".to_owned()));
        let header = Base {
            version: 10,
            shutdown: 1,
            name: "store",
            stage_key: 0xae12_0100,
            stage_bytes: 1 << 20,
            allocated: 0,
            stage_count: 1,
        };
        let ours = base(&header);
        for field in [0..8, 1024..1056, 2064..2076, 2088..2096, 2152..2156] {
            assert_eq!(ours[field.clone()], saved[field.clone()], "{field:?}");
        }
        assert_eq!(si_meta(1)[20..], fixture("golden/raw-all/backup/a2120000.dat")[20..24]);
    }

    #[test]
    fn a_handle_is_stage_and_element() {
        assert_eq!((handle(5, 16), handle(16 * 3 + 7, 16)), (5, 0x3000_0007));
    }
}
