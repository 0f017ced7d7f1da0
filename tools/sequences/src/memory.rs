//! Segments of this IPC namespace: makes them as a server does, and sums them.
//!
//! The layout is that of docs/FORMAT.md and of the fixtures that a server wrote. Nothing here
//! relies on the engine's layout.

use crate::disk::{HEAD_BYTES, Head, Medium, head_block, head_of};
use asmt_kit::dice::Rng;
use asmt_shm::Key;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const BASE_BYTES: u64 = 4096;
const TREEX_BYTES: u64 = 4096;
const STAGE_BYTES: u64 = 16 << 10;
const STRIPE_BYTES: u64 = 16 << 10;
const ELEMENT_BYTES: u64 = 64;
const INDEX: u32 = 0xae;
const DATA: u32 = 0xad;
const BASE: u32 = 0;
const TREEX: u32 = 1;
const STAGE: u32 = 0x100;

/// The place of a namespace's segments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Instance.
    pub instance: u8,
    /// Namespace id.
    pub nsid: u8,
    /// Name.
    pub name: String,
}

/// Size, checksum, owner and mode of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    size_bytes: u64,
    crc32: u32,
    owner: (u32, u32, u32),
}

impl Sum {
    /// The same sum with another mode.
    pub fn with_mode(self, mode: u32) -> Self {
        Self { owner: (self.owner.0, self.owner.1, mode), ..self }
    }
}

/// Sums by key.
pub type Sums = BTreeMap<u32, Sum>;

fn key(kind: u32, place: &Place, low: u32) -> u32 {
    kind << 24 | u32::from(place.instance) << 20 | u32::from(place.nsid) << 12 | low
}

fn is_of(place: &Place, key: u32) -> bool {
    (key >> 12) & 0xfff == u32::from(place.instance) << 8 | u32::from(place.nsid) && matches!(key >> 24, INDEX | DATA)
}

/// Segments of a namespace.
fn segments(place: &Place) -> Vec<SegmentStat> {
    let mut all = sysv::all_segments().expect("segments");
    all.retain(|stat| is_of(place, stat.key.0));
    all
}

fn attach(stat: &SegmentStat) -> Attachment {
    Attachment::new(stat.shmid, Access::ReadWrite, 0).expect("to attach")
}

/// Sums of all segments of a namespace.
pub fn sums(place: &Place) -> Sums {
    let sum = |stat: &SegmentStat| {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).expect("to attach");
        let crc32 = crc32fast::hash(attachment.bytes(0..stat.size_bytes));
        (stat.key.0, Sum { size_bytes: stat.size_bytes, crc32, owner: (stat.uid, stat.gid, stat.mode) })
    };
    segments(place).iter().map(sum).collect()
}

/// Ids of all segments here, with their keys.
pub fn ids() -> BTreeMap<i32, u32> {
    sysv::all_segments().expect("segments").iter().map(|stat| (stat.shmid, stat.key.0)).collect()
}

/// Removes a segment, if it is there.
pub fn remove_id(shmid: i32) {
    let _ = sysv::remove(shmid);
}

/// Removes every segment here.
pub fn remove_all() {
    ids().keys().for_each(|shmid| remove_id(*shmid));
}

/// Removes every segment of a namespace.
pub fn remove(place: &Place) {
    segments(place).iter().for_each(|stat| remove_id(stat.shmid));
}

/// Attaches every segment of a namespace, as a running server does.
pub fn attach_all(place: &Place) -> Vec<Attachment> {
    segments(place).iter().map(attach).collect()
}

fn make(key: u32, size_bytes: u64, parts: &[(u64, &[u8])]) {
    let shmid = sysv::create(Key(key), size_bytes).unwrap_or_else(|error| panic!("segment {key:08x}: {error}"));
    let stat = sysv::stat(shmid).expect("its state");
    sysv::set_owner(shmid, stat.uid, stat.gid, 0o666).expect("its mode");
    let attachment = attach(&stat);
    for (offset, bytes) in parts {
        attachment.store(*offset, bytes).expect("memory");
    }
}

fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed, 0x401e);
    (0..bytes / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
}

/// Returns true if a start would trust the index: base is there and marked as clean, and treex is
/// there.
pub fn is_index_trusted(place: &Place) -> bool {
    let all = segments(place);
    let find = |low: u32| all.iter().find(|stat| stat.key.0 == key(INDEX, place, low));
    let is_clean = |stat: &SegmentStat| attach(stat).bytes(4..8) == 1_u32.to_le_bytes();
    find(TREEX).is_some() && find(BASE).is_some_and(is_clean)
}

/// Removes base and treex, as every start does.
pub fn discard_base(place: &Place) {
    for stat in segments(place) {
        if [BASE, TREEX].map(|low| key(INDEX, place, low)).contains(&stat.key.0) {
            remove_id(stat.shmid);
        }
    }
}

/// Makes a namespace's first stage, and its stripes with their header.
pub fn make_anew(place: &Place, stripe_count: u32, head: Head, seed: u64) {
    make(key(INDEX, place, STAGE), STAGE_BYTES, &[(0, &noise(seed, STAGE_BYTES / 2))]);
    for stripe in 0..stripe_count {
        let block = head_block(Medium::Stripe, &place.name, stripe_count, head);
        let records = noise(seed ^ u64::from(stripe + 1), 4096);
        make(key(DATA, place, stripe), STRIPE_BYTES, &[(0, &block.0), (HEAD_BYTES as u64, &records)]);
    }
}

/// Changes bytes in a stage, as a run does.
pub fn change_stage(place: &Place, seed: u64) {
    for stat in segments(place).iter().filter(|stat| stat.key.0 == key(INDEX, place, STAGE)) {
        attach(stat).store(256, &noise(seed, 512)).expect("memory");
    }
}

/// Headers of the stripes.
pub fn stripe_heads(place: &Place) -> Vec<Option<Head>> {
    let all = segments(place);
    let stripes = all.iter().filter(|stat| stat.key.0 >> 24 == DATA);
    stripes.map(|stat| head_of(attach(stat).bytes(0..HEAD_BYTES as u64))).collect()
}

/// Changes the header of each stripe.
pub fn set_stripe_heads(place: &Place, count: u32, head: Head) {
    for stat in segments(place).iter().filter(|stat| stat.key.0 >> 24 == DATA) {
        attach(stat).store(0, &head_block(Medium::Stripe, &place.name, count, head).0).expect("memory");
    }
}

/// Makes treex, then a base that may be trusted: the end of a clean stop.
pub fn make_base(place: &Place, seed: u64) {
    make(key(INDEX, place, TREEX), TREEX_BYTES, &[(0, &noise(seed, TREEX_BYTES))]);
    let used = (STAGE_BYTES / 2 / ELEMENT_BYTES) as u32;
    let words: [(u64, u32); 8] = [
        (0, 12),
        (4, 1),
        (2064, key(INDEX, place, STAGE)),
        (2068, ELEMENT_BYTES as u32),
        (2072, (STAGE_BYTES / ELEMENT_BYTES) as u32),
        (2088, STAGE_BYTES as u32),
        (2108, used),
        (2152, 1),
    ];
    let bytes = words.map(|(offset, word)| (offset, word.to_le_bytes()));
    let mut parts: Vec<(u64, &[u8])> = bytes.iter().map(|(offset, word)| (*offset, &word[..])).collect();
    parts.push((1024, place.name.as_bytes()));
    make(key(INDEX, place, BASE), BASE_BYTES, &parts);
}
