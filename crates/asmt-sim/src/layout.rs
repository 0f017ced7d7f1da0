//! Headers as Aerospike leaves them, as bytes to store.
//!
//! Promise: offsets are written down here a second time, from the public Community Edition headers and from observed
//! backups, so that a wrong offset in the engine's reader is found by every test. Must never: use the engine's reader.

/// Elements of a primary index stage, bytes each.
pub const ELEMENT_BYTES: u64 = 64;
/// Nodes of a secondary index stage, bytes each.
pub const NODE_BYTES: u64 = 4096;

fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    bytes[offset..offset + field.len()].copy_from_slice(field);
}

/// What the header of a base says.
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
    /// Elements ever allocated, over all stages.
    pub allocated: u64,
    /// Number of stages.
    pub stage_count: u32,
}

/// The first bytes of a base: 2156 of them mean something, the rest of the segment is sets and zeros.
pub fn base(header: &Base<'_>) -> Vec<u8> {
    let capacity = header.stage_bytes / ELEMENT_BYTES;
    let mut bytes = vec![0; 2156];
    put(&mut bytes, 0, &header.version.to_le_bytes());
    put(&mut bytes, 4, &header.shutdown.to_le_bytes());
    put(&mut bytes, 1024, header.name.as_bytes());
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

/// The first bytes of a secondary index' meta: one index, so many stages.
pub fn si_meta(stage_count: u32) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    put(&mut bytes, 0, &1u32.to_le_bytes());
    put(&mut bytes, 20, &stage_count.to_le_bytes());
    bytes
}

/// Bytes of the header of a data stripe or storage device.
pub const STRIPE_BYTES: usize = 60;
const STRIPE_MAGIC: u64 = 0x4349_7472_7573_0322;

/// Name, random and trusted bit of the header of a stripe or device; `None` if it is none.
pub fn parse_stripe(bytes: &[u8; STRIPE_BYTES]) -> Option<(String, u64, bool)> {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let name = bytes[12..44].split(|byte| *byte == 0).next().unwrap_or_default();
    (word(0) == STRIPE_MAGIC).then(|| (String::from_utf8_lossy(name).into_owned(), word(48), bytes[56] & 1 == 1))
}

/// The header of a data stripe or storage device.
pub fn stripe(name: &str, stripe_count: u32, random: u64, is_trusted: bool) -> Vec<u8> {
    let mut bytes = vec![0; STRIPE_BYTES];
    put(&mut bytes, 0, &STRIPE_MAGIC.to_le_bytes());
    put(&mut bytes, 8, &4u32.to_le_bytes());
    put(&mut bytes, 12, name.as_bytes());
    put(&mut bytes, 44, &stripe_count.to_le_bytes());
    put(&mut bytes, 48, &random.to_le_bytes());
    put(&mut bytes, 56, &u32::from(is_trusted).to_le_bytes());
    bytes
}

/// A handle of an element: stage and number in it, in 40 bits.
pub fn handle(element: u64, capacity: u64) -> [u8; 5] {
    let handle = ((element / capacity) << 28) | (element % capacity);
    let bytes = handle.to_le_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a base that the real tool has saved: two stages of 1 MiB, the second in use up to element 6,553.
    #[test]
    fn a_base_is_that_of_a_server() {
        let bytes = base(&Base {
            version: 12,
            shutdown: 1,
            name: "test",
            stage_key: 0xae00_1100,
            stage_bytes: 1 << 20,
            allocated: 16_384 + 6553,
            stage_count: 2,
        });
        assert_eq!(bytes[2064..2076], [0x00, 0x11, 0x00, 0xae, 0x40, 0, 0, 0, 0x00, 0x40, 0, 0]);
        assert_eq!(bytes[2104..2112], [1, 0, 0, 0, 0x99, 0x19, 0, 0]);
        assert_eq!(&bytes[1024..1030], b"test\0\0");
    }

    #[test]
    fn a_device_is_read_as_it_was_written() {
        let bytes = stripe("test", 1, u64::MAX, true);
        assert_eq!(bytes.first_chunk().and_then(parse_stripe), Some(("test".to_owned(), u64::MAX, true)));
        assert_eq!(parse_stripe(&[0; STRIPE_BYTES]), None);
    }

    #[test]
    fn a_handle_is_stage_and_element() {
        assert_eq!(handle(5, 16), [5, 0, 0, 0, 0]);
        assert_eq!(handle(16 * 3 + 7, 16), [7, 0, 0, 0x30, 0]);
    }
}
