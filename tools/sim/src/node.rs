//! One namespace of a node, in memory and on its devices, while a server starts it, stops it, or is
//! killed.
//!
//! Promise: it does what a server was seen to do, in the same order. Where a server was seen to
//! fail, it fails at the same step, with everything before that step done, which for base and treex
//! means that they are gone. Where nobody has seen what a server does (a set with a stripe missing,
//! untrusted stripes beside a trusted base), it does what costs most. Must never: touch another
//! namespace's segments.

use crate::device::{self, Start};
use crate::fill::{Index, STASH_ELEMENTS};
use crate::layout::{self, BASE_BYTES, BASE_VERSIONS, DeviceHeader, ELEMENT_BYTES, HEADER_BYTES, HEADER_VERSION, Holds, Place};
use crate::make::{BaseShape, Made, Owner, Row, Target, make_base, make_secondary, make_stages, make_stripes, make_treex, store};
use crate::memory::segments;
use crate::{Outcome, say};
use asmt_kit::args::Args;
use asmt_kit::text_of;
use asmt_kit::threads::cpu_count;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

/// The options that all three commands have.
struct Node {
    instance: u32,
    name: String,
    nsid: u32,
    /// nsid of the stripes, for the case that there are none yet.
    data_nsid: u32,
    /// Main devices.
    devices: Vec<PathBuf>,
    shadows: Vec<PathBuf>,
}

/// A segment of the namespace.
struct Found {
    stat: SegmentStat,
    place: Place,
}

impl Node {
    fn parse(args: &mut Args) -> Result<Self, String> {
        let mut paths = |option: &str| {
            let text = args.text(option).unwrap_or_default();
            text.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect::<Vec<_>>()
        };
        let (devices, shadows) = (paths("devices"), paths("shadows"));
        let nsid = args.number("nsid", 1)?;
        Ok(Self {
            instance: args.number("instance", 0)?,
            name: args.text("name").unwrap_or_else(|| "test".to_owned()),
            nsid,
            data_nsid: args.number("data-nsid", nsid)?,
            devices,
            shadows,
        })
    }

    /// Its segments, sorted by key: the index under its nsid, and the stripes with its name.
    fn segments(&self) -> Result<Vec<Found>, String> {
        let mut found = Vec::new();
        for stat in segments(Some(self.instance), false)? {
            let Some(place) = Place::of(stat.key.0) else { continue };
            let is_own = match place.holds {
                Holds::Stripe(_) => stripe_of(&stat)?.is_some_and(|header| header.name() == self.name),
                Holds::Base if place.nsid == self.nsid => {
                    let (.., name) = base_of(&stat)?;
                    if name != self.name {
                        return Err(format!("nsid {} is that of namespace '{name}': give another by --nsid", self.nsid));
                    }
                    true
                }
                Holds::Base if base_of(&stat)?.2 == self.name => {
                    return Err(format!("namespace '{}' has nsid {}: give that by --nsid", self.name, place.nsid));
                }
                _ => place.nsid == self.nsid,
            };
            if is_own {
                found.push(Found { stat, place });
            }
        }
        Ok(found)
    }

    fn title(&self) -> String {
        format!("namespace '{}' of instance {}", self.name, self.instance)
    }

    fn target(&self, found: &[Found]) -> Target<'_> {
        let seen = found.iter().find(|found| !found.place.is_index()).map(|found| found.place.nsid);
        Target { instance: self.instance, nsid: self.nsid, data_nsid: seen.unwrap_or(self.data_nsid), name: &self.name }
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.devices.iter().chain(&self.shadows)
    }
}

fn attach(stat: &SegmentStat, access: Access) -> Result<Attachment, String> {
    Attachment::new(stat.shmid, access, 0).map_err(text_of("cannot attach", stat.key))
}

/// Returns the header of a stripe; `None` if it has none.
fn stripe_of(stat: &SegmentStat) -> Result<Option<DeviceHeader>, String> {
    let mut bytes = [0; HEADER_BYTES];
    let segment = attach(stat, Access::ReadOnly)?;
    let length = bytes.len().min(usize::try_from(stat.size_bytes).unwrap_or(usize::MAX));
    bytes[..length].copy_from_slice(segment.bytes(0..length as u64));
    Ok(DeviceHeader::parse(&bytes))
}

/// Returns the version, shutdown status and name of a base.
fn base_of(stat: &SegmentStat) -> Result<(u32, u32, String), String> {
    let segment = attach(stat, Access::ReadOnly)?;
    let mut bytes = [0; BASE_BYTES];
    let length = bytes.len().min(usize::try_from(stat.size_bytes).unwrap_or(usize::MAX));
    bytes[..length].copy_from_slice(segment.bytes(0..length as u64));
    Ok(layout::parse_base(&bytes))
}

fn remove(found: &Found) -> Outcome {
    sysv::remove(found.stat.shmid).map_err(text_of("cannot remove", found.stat.key))
}

/// Fails if another process has a segment attached: a server could not remove it then, and does not
/// start.
fn check_free(found: &[Found]) -> Outcome {
    match found.iter().find(|found| found.stat.attached_count > 0) {
        Some(found) => Err(format!("segment {} is attached by another process", found.stat.key)),
        None => Ok(()),
    }
}

/// Sizes of the segments that a cold start makes where there were none.
struct Sizes {
    has_index: bool,
    stage_bytes: u64,
    stripes: Row,
}

/// Does what a starting server does.
pub fn start(mut args: Args, out: &mut dyn Write) -> Outcome {
    let node = Node::parse(&mut args)?;
    let sizes = Sizes {
        has_index: !args.flag("no-index"),
        stage_bytes: args.size("stage-size", 1 << 20)?,
        stripes: Row { count: args.number("stripes", 0)?, size_bytes: args.size("stripe-size", 1 << 20)?, fill: 0.0 },
    };
    let random = args.get("random", None, |text| text.parse().ok().filter(|random| *random != 0).map(Some))?;
    args.end()?;
    node.target(&[]).check()?;
    let random = random.map_or_else(new_random, Ok)?;
    let found = node.segments()?;
    check_free(&found)?;
    let is_warm = discard_base(&found)?;
    let found: Vec<Found> = found.into_iter().filter(|found| !matches!(found.place.holds, Holds::Base | Holds::Treex)).collect();
    let does_not_start = |why: String| format!("{} does not start: {why}", node.title());
    let headers = device_headers(&node).map_err(&does_not_start)?;
    let stripes = stripe_headers(&found)?;
    let is_trusted = headers.iter().flatten().chain(stripes.iter().flatten()).all(DeviceHeader::is_trusted);
    // If all devices are blank, an index leads to records that do not exist.
    let has_records = headers.is_empty() || headers.iter().any(Option::is_some);
    let is_warm = is_warm && is_trusted && has_records;
    if is_warm {
        check_stripes(&node, &stripes, headers.iter().flatten().next()).map_err(does_not_start)?;
        open_stripes(&found, random)?;
    } else {
        make_anew(&node, &found, &sizes, random)?;
    }
    open_devices(&node, &headers, &node.segments()?, random)?;
    let how = if is_warm { "warm" } else { "cold" };
    say(out, format_args!("{} started {how}, random {random:016x}", node.title()))
}

fn new_random() -> Result<u64, String> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(text_of("cannot read", "/dev/urandom"))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// Removes base and treex, whatever they contain. Returns true if base may be trusted and both are
/// there.
fn discard_base(found: &[Found]) -> Result<bool, String> {
    let of = |holds: Holds| found.iter().find(|found| found.place.holds == holds);
    let (base, treex) = (of(Holds::Base), of(Holds::Treex));
    let mut is_trusted = false;
    if let Some(base) = base {
        let (version, shutdown, _) = base_of(&base.stat)?;
        is_trusted = BASE_VERSIONS.contains(&version) && shutdown == 1 && treex.is_some();
        remove(base)?;
    }
    treex.map_or(Ok(()), remove)?;
    Ok(is_trusted)
}

/// Reads the headers of main devices and shadows; `None` for a blank device. Fails where a server
/// would not start.
fn device_headers(node: &Node) -> Result<Vec<Option<DeviceHeader>>, String> {
    let mut headers: Vec<Option<DeviceHeader>> = Vec::new();
    for path in node.paths() {
        let shown = path.display();
        let header = match device::read(path)? {
            Start::Blank => None,
            Start::Unknown => return Err(format!("{shown} is not blank, and has no header")),
            Start::Header(header) => Some(header),
        };
        if let Some(header) = &header {
            if header.version != HEADER_VERSION {
                return Err(format!("{shown} has version {}, expected {HEADER_VERSION}", header.version));
            }
            if header.name() != node.name {
                return Err(format!("{shown} belongs to namespace '{}'", header.name()));
            }
            if headers.iter().flatten().any(|other| other.random != header.random) {
                return Err(format!("{shown} is of another set: its random is {:016x}", header.random));
            }
        }
        headers.push(header);
    }
    Ok(headers)
}

fn stripe_headers(found: &[Found]) -> Result<Vec<Option<DeviceHeader>>, String> {
    let stripes = found.iter().filter(|found| !found.place.is_index());
    stripes.map(|stripe| stripe_of(&stripe.stat)).collect()
}

/// Fails if the stripes that a warm start finds are no set, or do not belong to the set of the
/// devices.
fn check_stripes(node: &Node, stripes: &[Option<DeviceHeader>], device: Option<&DeviceHeader>) -> Outcome {
    for header in stripes.iter().flatten() {
        if header.version != HEADER_VERSION {
            return Err(format!("a stripe has version {}, expected {HEADER_VERSION}", header.version));
        }
        if header.device_count as usize != stripes.len() {
            return Err(format!("{} stripes are there, and one counts {}", stripes.len(), header.device_count));
        }
        let others = stripes.iter().flatten().chain(device.filter(|_| node.devices.is_empty()));
        if let Some(other) = others.into_iter().find(|other| other.random != header.random) {
            return Err(format!("stripes belong to two sets: {:016x} and {:016x}", header.random, other.random));
        }
    }
    Ok(())
}

/// Stores a new random in each stripe, and clears its trusted bit.
fn open_stripes(found: &[Found], random: u64) -> Outcome {
    for_each_stripe(found, |header| {
        header.random = random;
        header.set_trusted(false);
    })
}

fn for_each_stripe(found: &[Found], change: impl Fn(&mut DeviceHeader)) -> Outcome {
    for stripe in found.iter().filter(|found| !found.place.is_index()) {
        let mut header = stripe_of(&stripe.stat)?.ok_or_else(|| format!("stripe {} has no header", stripe.stat.key))?;
        change(&mut header);
        store(&attach(&stripe.stat, Access::ReadWrite)?, 0, &header.to_bytes());
    }
    Ok(())
}

/// A cold start: removes all segments of the namespace, and makes as few as a server has in the
/// beginning.
fn make_anew(node: &Node, found: &[Found], sizes: &Sizes, random: u64) -> Outcome {
    let target = node.target(found);
    found.iter().try_for_each(remove)?;
    let size_of = |holds: Holds| found.iter().find(|found| found.place.holds == holds).map(|found| found.stat.size_bytes);
    let stage_bytes = size_of(Holds::Stage(0)).unwrap_or(sizes.stage_bytes);
    let had_stripes = found.iter().filter(|found| !found.place.is_index()).count() as u32;
    let stripes = Row {
        count: if had_stripes > 0 { had_stripes } else { sizes.stripes.count },
        size_bytes: size_of(Holds::Stripe(0)).unwrap_or(sizes.stripes.size_bytes),
        fill: 0.0,
    };
    let mut made = Made::default();
    if sizes.has_index {
        let index = Index::new(random, stage_bytes / ELEMENT_BYTES, 1, STASH_ELEMENTS);
        make_stages(&mut made, &target, 1, stage_bytes, &index, 1)?;
    }
    if let Some(si_stage_bytes) = size_of(Holds::SiStage(0)) {
        let row = Row { count: 1, size_bytes: si_stage_bytes, fill: 0.01 };
        make_secondary(&mut made, &target, row, random, 1)?;
    }
    let header = DeviceHeader::new(node.name.as_bytes(), stripes.count, random, false);
    make_stripes(&mut made, &target, stripes, &header, random, cpu_count())?;
    made.keep(owner_of(found)).map(drop)
}

/// Returns the owner of the namespace's segments.
fn owner_of(found: &[Found]) -> Owner {
    match found.first() {
        Some(Found { stat, .. }) => Owner { uid: Some(stat.uid), gid: Some(stat.gid), mode: stat.mode },
        None => Owner { uid: None, gid: None, mode: 0o666 },
    }
}

/// Writes a header with the new random to each main device and shadow.
fn open_devices(node: &Node, headers: &[Option<DeviceHeader>], found: &[Found], random: u64) -> Outcome {
    // Shadows are not counted. If stripes have shadows, the stripes are the main devices.
    let stripe_count = found.iter().filter(|found| !found.place.is_index()).count();
    let mains = [node.devices.len(), stripe_count, node.shadows.len()].into_iter().find(|count| *count > 0).unwrap_or(0);
    for (path, header) in node.paths().zip(headers) {
        let fresh = || DeviceHeader::new(node.name.as_bytes(), 0, random, false);
        let mut header = header.clone().unwrap_or_else(fresh);
        (header.random, header.device_count) = (random, mains as u32);
        header.set_trusted(false);
        device::write(path, &header)?;
    }
    Ok(())
}

/// Does what a server does that is shut down cleanly: treex, then the trusted bits, and base last.
pub fn stop(mut args: Args, out: &mut dyn Write) -> Outcome {
    let node = Node::parse(&mut args)?;
    let (version, size_bytes) = (args.number("version", 12)?, args.size("base-size", 64 << 10)?);
    let (treex_bytes, seed) = (args.size("treex-size", 192 << 10)?, args.number("seed", 1)?);
    args.end()?;
    node.target(&[]).check()?;
    let found = node.segments()?;
    check_runs(&node, &found)?;
    check_free(&found)?;
    let (target, owner) = (node.target(&found), owner_of(&found));
    let stages: Vec<&Found> = found.iter().filter(|found| matches!(found.place.holds, Holds::Stage(_))).collect();
    let mut base = None;
    if let Some(last) = stages.last() {
        let (stage_bytes, count) = (last.stat.size_bytes, stages.len() as u64);
        let capacity = stage_bytes / ELEMENT_BYTES;
        let handed_out = (count - 1) * capacity + end_of_data(&last.stat)?.div_ceil(ELEMENT_BYTES);
        let index = Index::new(seed, capacity, count, handed_out);
        let mut made = Made::default();
        make_treex(&mut made, &target, treex_bytes, &index)?;
        made.keep(owner)?;
        let shape = BaseShape { version, shutdown: 1, stage_bytes, stage_count: count as u32, size_bytes, seed };
        base = Some((shape, index.allocated()));
    }
    for path in node.paths() {
        let Start::Header(mut header) = device::read(path)? else { return Err(format!("{} has no header", path.display())) };
        header.set_trusted(true);
        device::write(path, &header)?;
    }
    for_each_stripe(&found, |header| header.set_trusted(true))?;
    if let Some((shape, allocated)) = base {
        let mut made = Made::default();
        make_base(&mut made, &target, &shape, allocated)?;
        made.keep(owner)?;
    }
    say(out, format_args!("{} stopped", node.title()))
}

/// Returns the end of the data of a segment, in bytes.
fn end_of_data(stat: &SegmentStat) -> Result<u64, String> {
    let segment = attach(stat, Access::ReadOnly)?;
    let mut end = 0;
    while let Some(data) = segment.next_data(end, stat.size_bytes).map_err(text_of("cannot read", stat.key))? {
        end = data.end;
    }
    Ok(end)
}

/// Fails if the namespace does not run: a running server has discarded base.
fn check_runs(node: &Node, found: &[Found]) -> Outcome {
    if let Some(base) = found.iter().find(|found| found.place.holds == Holds::Base) {
        return Err(format!("{} does not run: its base {} is there", node.title(), base.stat.key));
    }
    if found.is_empty() && node.paths().next().is_none() {
        return Err(format!("{} has nothing: neither segments nor devices", node.title()));
    }
    Ok(())
}

/// Does what a server does that is killed: it detaches, and nothing else changes.
pub fn crash(mut args: Args, out: &mut dyn Write) -> Outcome {
    let node = Node::parse(&mut args)?;
    args.end()?;
    let found = node.segments()?;
    check_runs(&node, &found)?;
    say(out, format_args!("{} crashed: its {} segments stay", node.title(), found.len()))
}
