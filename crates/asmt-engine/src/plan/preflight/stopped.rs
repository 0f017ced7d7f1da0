//! A running server, as it will be after a clean stop: what a backup would find then.
//!
//! Pure. A running server has discarded base and treex, and makes them anew at its stop. Promise:
//! only what a clean stop changes is changed here; what stands in the way of a backup beside that
//! still does. Must never: make a stopped or crashed server look clean.

use crate::facts::memory::{Creator, Inventory, Makers, Segment};
use crate::facts::server::{Configuration, DeviceState, Evidence};
use crate::format::Manifest;
use crate::plan::at_work::SERVER_COMMAND;
use crate::plan::fates::Fate;
use crate::plan::left_out::keeps_its_index;
use crate::plan::{Fates, Request};
use asmt_shm::{
    Address, BaseHeader, Header, KNOWN_BASE_VERSIONS, Key, NamespaceName, SHUTDOWN_CLEAN, STRIPE_TRUSTED, SegmentType,
    SiMetaHeader,
};
use std::collections::{BTreeMap, BTreeSet};

/// The process that has segments of an instance attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The server.
    Server {
        /// Its id.
        pid: u32,
    },
    /// One that cannot be seen from here: most likely the server, in another container.
    Unseen,
}

/// The state after a clean stop.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The process that has to be stopped first.
    pub holder: Holder,
    /// The segments after it.
    pub inventory: Inventory,
    /// nsids whose names nothing shows before the stop.
    pub unnamed: BTreeSet<u8>,
}

/// Which process holds the segments of an instance; `None` if none does, or one that is no server.
pub fn holder(inventory: &Inventory, instance: u8) -> Option<Holder> {
    let attached = || {
        let of_instance = inventory.segments.values().filter(|segment| segment.address.instance == instance);
        of_instance.filter(|segment| segment.stat.attached_count > 0)
    };
    let attachers = |segment: &Segment| inventory.attachers.get(&segment.stat.shmid).map_or(&[][..], Vec::as_slice);
    let server = attached().flat_map(attachers).find(|attacher| attacher.command == SERVER_COMMAND);
    let is_unseen = || attached().any(|segment| attachers(segment).is_empty());
    match server {
        Some(server) => Some(Holder::Server { pid: server.pid }),
        None => is_unseen().then_some(Holder::Unseen),
    }
}

/// The segments of an instance after a clean stop of its server; `None` if no server holds them.
pub fn stopped(inventory: &Inventory, instance: u8, configuration: &Configuration, manifests: &[&Manifest]) -> Option<Stopped> {
    let holder = holder(inventory, instance)?;
    let mut after = inventory.clone();
    let held: BTreeSet<Makers> = inventory
        .segments
        .values()
        .filter(|segment| segment.address.instance == instance && segment.stat.attached_count > 0)
        .map(Segment::makers)
        .collect();
    let is_its = |segment: &Segment| segment.address.instance == instance && held.contains(&segment.makers());
    for segment in after.segments.values_mut().filter(|segment| is_its(segment)) {
        let attachers = after.attachers.entry(segment.stat.shmid).or_default();
        attachers.retain(|attacher| attacher.command != SERVER_COMMAND);
        segment.stat.attached_count = attachers.len() as u64;
        if matches!(&segment.creator, Creator::Alive { command, .. } if command == SERVER_COMMAND) {
            segment.creator = Creator::Gone;
        }
        match &mut segment.header {
            Header::Base(base) => base.shutdown = SHUTDOWN_CLEAN,
            Header::Stripe(stripe) => stripe.flags |= STRIPE_TRUSTED,
            Header::SiMeta(_) | Header::None | Header::Unreadable => {}
        }
    }
    let mut by_nsid: BTreeMap<u8, Vec<Segment>> = BTreeMap::new();
    for segment in after.segments.values().filter(|segment| is_its(segment) && segment.address.segment_type.is_index()) {
        by_nsid.entry(segment.address.nsid).or_default().push(segment.clone());
    }
    let (names, unnamed) = names_of(&after, instance, &by_nsid, configuration, manifests);
    for (nsid, segments) in by_nsid {
        let Some(name) = names.get(&nsid) else { continue };
        complete(&mut after, &segments, name);
    }
    Some(Stopped { holder, inventory: after, unnamed })
}

/// The names of indexes without a base, and the nsids for which they are not certain.
fn names_of(
    after: &Inventory,
    instance: u8,
    by_nsid: &BTreeMap<u8, Vec<Segment>>,
    configuration: &Configuration,
    manifests: &[&Manifest],
) -> (BTreeMap<u8, NamespaceName>, BTreeSet<u8>) {
    let of_instance = || after.segments.values().filter(|segment| segment.address.instance == instance);
    let is_base = |segment: &&Segment| segment.address.segment_type == SegmentType::PiBase;
    let mut names: BTreeMap<u8, NamespaceName> = BTreeMap::new();
    for base in of_instance().filter(is_base) {
        names.extend(base.header.name().map(|name| (base.address.nsid, name.clone())));
    }
    let mut open: BTreeSet<u8> = by_nsid.keys().copied().filter(|nsid| !names.contains_key(nsid)).collect();
    let of_stripes = of_instance().filter(|segment| !segment.address.segment_type.is_index());
    let of_stripes = of_stripes.filter_map(|stripe| Some((stripe.address.nsid, stripe.header.name()?.clone())));
    let of_manifests = manifests.iter().filter_map(|manifest| Some((manifest.nsid?, manifest.namespace.clone())));
    for (nsid, name) in of_stripes.chain(of_manifests) {
        if open.contains(&nsid) && !names.values().any(|other| *other == name) {
            open.remove(&nsid);
            names.insert(nsid, name);
        }
    }
    let configured = configuration.config().into_iter().flat_map(|config| &config.namespaces);
    let left: Vec<&NamespaceName> = configured
        .filter(|(name, namespace)| !keeps_its_index(namespace) && !names.values().any(|other| other == *name))
        .map(|(name, _)| name)
        .collect();
    let is_all = left.len() == open.len();
    let is_certain = is_all && open.len() == 1;
    for (index, nsid) in open.iter().enumerate() {
        // Together they are all that is left, so what holds for all of them holds for each.
        let name = if is_all { left.get(index).map(|name| (*name).clone()) } else { NamespaceName::new(&format!("nsid {nsid}")) };
        names.extend(name.map(|name| (*nsid, name)));
    }
    (names, if is_certain { BTreeSet::new() } else { open })
}

/// Adds what a clean stop makes for an index: base, treex and the counts of stages.
fn complete(after: &mut Inventory, segments: &[Segment], name: &NamespaceName) {
    let count = |wanted: SegmentType| {
        let of_type = segments.iter().filter(|segment| segment.address.segment_type == wanted);
        u32::try_from(of_type.count()).unwrap_or(u32::MAX)
    };
    let Some(first) = segments.first() else { return };
    let mut make = |segment_type: SegmentType, low: u32, header: Header| {
        let kind = if segment_type == SegmentType::SiMeta { 0xa2 } else { 0xae };
        let Address { instance, nsid, .. } = first.address;
        let key = Key(kind << 24 | u32::from(instance) << 20 | u32::from(nsid) << 12 | low);
        let Some(address) = key.address() else { return };
        if let Some(there) = after.segments.get_mut(&key) {
            if matches!(there.header, Header::SiMeta(_)) {
                there.header = header;
            }
            return;
        }
        let mut stat = first.stat.clone();
        (stat.key, stat.shmid, stat.attached_count, stat.size_bytes) = (key, -1, 0, segment_type.min_bytes());
        let made = Segment {
            stat,
            address,
            resident_bytes: Some(0),
            swapped_bytes: 0,
            header,
            is_denied: false,
            is_huge: false,
            creator: Creator::Gone,
        };
        after.segments.insert(key, made);
    };
    let stage_count = count(SegmentType::PiStage);
    if stage_count > 0 {
        let base = BaseHeader {
            version: *KNOWN_BASE_VERSIONS.end(),
            shutdown: SHUTDOWN_CLEAN,
            name: Some(name.clone()),
            stage_bytes: 0,
            stage_count,
        };
        make(SegmentType::PiBase, 0, Header::Base(base));
        make(SegmentType::PiTreex, 1, Header::None);
    }
    let si_count = count(SegmentType::SiStage);
    if si_count > 0 {
        make(SegmentType::SiMeta, 0, Header::SiMeta(SiMetaHeader { stage_count: si_count }));
    }
}

/// A request that may replace older backups, after a clean stop. A server that runs now writes
/// until then: a backup that is current now, or seems to be overtaken, may be neither by then.
pub fn after_stop(mut request: Request) -> Request {
    for old in request.replace.iter_mut().flat_map(Fates::values_mut) {
        if matches!(old.fate, Fate::Current | Fate::Overtaken) {
            old.fate = Fate::Unsure;
        }
    }
    request
}

/// The devices after a clean stop: it marks them as trusted, and leaves their random.
pub fn trust_devices(evidence: &mut Evidence) {
    for device in evidence.devices.values_mut() {
        if let DeviceState::Header(header) = &mut device.state {
            header.flags |= STRIPE_TRUSTED;
        }
    }
}
