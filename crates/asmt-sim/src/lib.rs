//! Makes, sums and removes segments like Aerospike's: what stands in for a server in tests, demo and benchmark.
//!
//! Promise: a command that fails leaves nothing of what it made. Must never: be shipped to users, or remove a segment
//! that is not Aerospike's unless its key was named.

pub mod args;
mod fill;
mod layout;
pub mod rng;

use args::{Args, bytes_of, key_of, mode_of};
use asmt_engine::segment::{Address, Key, SegmentType};
use asmt_engine::sysv::{self, Access, Attachment, SegmentStat};
use fill::{BLOCK_ELEMENTS, Index};
use layout::{ELEMENT_BYTES, NODE_BYTES};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const USAGE: &str = "\
asmt-sim: makes, sums and removes segments like Aerospike's

  make     [--instance 0] [--nsid 1] [--name test] [--version 12] [--shutdown 1] [--no-index]
           [--stages 2] [--stage-size 1MiB] [--fill 0.6] [--treex-size 192KiB] [--base-size 64KiB]
           [--si-stages 0] [--si-stage-size 1MiB] [--si-fill 0.4]
           [--stripes 0] [--stripe-size 1MiB] [--stripe-fill 0.2] [--data-nsid NSID] [--untrusted]
           [--uid U] [--gid G] [--mode 666] [--seed 1] [--threads N]
  foreign  --key K [--size 1MiB] [--mode 600] [--seed 1]
  sum      [--instance N] [--all] [--sparse] [--resident]   key, size, crc32, uid, gid, mode, attach count
           (sparse: does not touch holes; resident: nor does it, and says how many bytes are data)
  remove   [--instance N] [--nsid N] [--key K]      as by a reboot; without options every one of Aerospike's
  hold     [--key K] [--read-only]                  attaches it (or all) until its input ends
  device   --path P [--name test] [--random 1] [--untrusted] [--size 64KiB]   a storage file, or the start of a device
  open     --path P                                 as a starting server does: another random, no longer trusted
  close    --path P                                 as a clean stop does: trusted
  poke     --key K --offset N --hex 00ff
  peek     --key K --offset N --length N
";

/// What a command comes to.
pub type Outcome = Result<(), String>;

/// Runs one command line (without the program's name); what it says goes to `out`. Errors are texts for people.
pub fn run(words: &[String], out: &mut dyn Write) -> Outcome {
    let Some((command, rest)) = words.split_first() else {
        return Err(format!("a command is needed\n\n{USAGE}"));
    };
    if ["help", "--help"].contains(&command.as_str()) {
        return say(out, USAGE.trim_end());
    }
    let args = Args::parse(rest, &["no-index", "untrusted", "resident", "sparse", "all", "read-only"])?;
    match command.as_str() {
        "make" => make(args, out),
        "foreign" => foreign(args, out),
        "sum" => sum(args, out),
        "remove" => remove(args, out),
        "hold" => hold(args, out),
        "device" => device(args),
        "open" => header_of(args, |header| {
            header.random = rng::Rng::new(header.random, 0x0be).next();
            header.is_trusted = false;
        }),
        "close" => header_of(args, |header| header.is_trusted = true),
        "poke" => poke(args),
        "peek" => peek(args, out),
        other => Err(format!("no command {other:?}: try --help")),
    }
}

fn say(out: &mut dyn Write, text: impl std::fmt::Display) -> Outcome {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| format!("cannot write: {error}"))
}

fn text_of(what: &str, key: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> String {
    let what = format!("{what} {key}");
    move |error| format!("{what}: {error}")
}

/// Segments that this call has made; removed when dropped, unless they are to stay.
#[derive(Default)]
struct Made(Vec<(i32, u64)>);

impl Made {
    fn create(&mut self, key: Key, size_bytes: u64) -> Result<Attachment, String> {
        let shmid = sysv::create(key, size_bytes).map_err(text_of("cannot make", key))?;
        self.0.push((shmid, size_bytes));
        Attachment::new(shmid, Access::ReadWrite, 0).map_err(text_of("cannot attach", key))
    }

    fn keep(mut self, uid: Option<u32>, gid: Option<u32>, mode: u32, out: &mut dyn Write) -> Outcome {
        for (shmid, _) in &self.0 {
            let stat = sysv::stat(*shmid).map_err(text_of("cannot look at", shmid))?;
            sysv::set_owner(*shmid, uid.unwrap_or(stat.uid), gid.unwrap_or(stat.gid), mode)
                .map_err(text_of("cannot give away", shmid))?;
        }
        let bytes: u64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        let count = self.0.len();
        self.0.clear();
        say(out, format_args!("made {count} segments, {bytes} bytes"))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (shmid, _) in &self.0 {
            let _ = sysv::remove(*shmid);
        }
    }
}

/// Does blocks `0..count` on several threads; a thread keeps one buffer.
fn in_parallel(threads: usize, count: u64, buffer_bytes: usize, work: impl Fn(u64, &mut [u8]) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut buffer = vec![0; buffer_bytes];
                loop {
                    let block = next.fetch_add(1, Ordering::Relaxed);
                    if block >= count {
                        break;
                    }
                    buffer.fill(0);
                    work(block, &mut buffer);
                }
            });
        }
    });
}

fn key_at(instance: u8, nsid: u8, segment_type: SegmentType, index: u16) -> Result<Key, String> {
    let address = Address { instance, nsid, segment_type, index };
    address.key().ok_or_else(|| format!("{address:?} is out of range"))
}

fn fraction(text: &str) -> Option<f64> {
    text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
}

/// A part of a number.
fn part_of(whole: u64, fraction: f64) -> u64 {
    (whole as f64 * fraction) as u64
}

fn make(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (instance, nsid): (u8, u8) = (args.number("instance", 0)?, args.number("nsid", 1)?);
    let name = args.text("name").unwrap_or_else(|| "test".to_owned());
    if name.len() > 31 {
        return Err(format!("the name has {} bytes, at most 31", name.len()));
    }
    let (version, shutdown) = (args.number("version", 12)?, args.number("shutdown", 1)?);
    let has_index = !args.flag("no-index");
    let (stages, stage_bytes): (u16, u64) = (args.number("stages", 2)?, args.size("stage-size", 1 << 20)?);
    let fill = args.get("fill", 0.6, fraction)?;
    let (treex_bytes, base_bytes) = (args.size("treex-size", 192 << 10)?, args.size("base-size", 64 << 10)?);
    let (si_stages, si_stage_bytes): (u16, u64) = (args.number("si-stages", 0)?, args.size("si-stage-size", 1 << 20)?);
    let si_fill = args.get("si-fill", 0.4, fraction)?;
    let (stripes, stripe_bytes): (u16, u64) = (args.number("stripes", 0)?, args.size("stripe-size", 1 << 20)?);
    let stripe_fill = args.get("stripe-fill", 0.2, fraction)?;
    let data_nsid = args.number("data-nsid", nsid)?;
    let is_trusted = !args.flag("untrusted");
    let (uid, gid) =
        (args.get("uid", None, |text| text.parse().ok().map(Some))?, args.get("gid", None, |text| text.parse().ok().map(Some))?);
    let mode = args.get("mode", 0o666, mode_of)?;
    let seed = args.number("seed", 1)?;
    let threads = args.number("threads", std::thread::available_parallelism().map_or(1, std::num::NonZero::get))?;
    args.end()?;

    let mut made = Made::default();
    if has_index {
        let capacity = stage_bytes / ELEMENT_BYTES;
        let index = Index { seed, capacity, allocated: part_of(capacity * u64::from(stages), fill) };
        let base = made.create(key_at(instance, nsid, SegmentType::PiBase, 0)?, base_bytes)?;
        let stage_key = key_at(instance, nsid, SegmentType::PiStage, 0)?.0;
        let header = layout::Base {
            version,
            shutdown,
            name: &name,
            stage_key,
            stage_bytes,
            allocated: index.allocated,
            stage_count: u32::from(stages),
        };
        store(&base, 0, &layout::base(&header));
        make_sets(&base, seed);
        let treex = made.create(key_at(instance, nsid, SegmentType::PiTreex, 0)?, treex_bytes)?;
        let mut roots = vec![0; usize::try_from(treex_bytes).map_err(|error| error.to_string())?];
        index.treex(&mut roots);
        store(&treex, 0, &roots);
        make_stages(&mut made, instance, nsid, stages, stage_bytes, &index, threads)?;
    }
    if si_stages > 0 {
        let meta = made.create(key_at(instance, nsid, SegmentType::SiMeta, 0)?, 1 << 20)?;
        store(&meta, 0, &layout::si_meta(u32::from(si_stages)));
        store(&meta, 4096, b"idx_age");
        let nodes = part_of(si_stage_bytes / NODE_BYTES * u64::from(si_stages), si_fill);
        let a_stage = si_stage_bytes / NODE_BYTES;
        for stage in 0..si_stages {
            let segment = made.create(key_at(instance, nsid, SegmentType::SiStage, stage)?, si_stage_bytes)?;
            let count = nodes.saturating_sub(u64::from(stage) * a_stage).min(a_stage);
            in_parallel(threads, count, NODE_BYTES as usize, |number, node| {
                fill::node(seed, u64::from(stage), number, node);
                store(&segment, number * NODE_BYTES, node);
            });
        }
    }
    for stripe in 0..stripes {
        let segment = made.create(key_at(instance, data_nsid, SegmentType::DataStage, stripe)?, stripe_bytes)?;
        let random = rng::Rng::new(seed, 0xfeed).next();
        store(&segment, 0, &layout::stripe(&name, u32::from(stripes), random, is_trusted));
        let block_bytes = 64 << 10;
        // The first 64 KiB are the header's; the rest is used from the front.
        let blocks = part_of(stripe_bytes.saturating_sub(block_bytes) / block_bytes, stripe_fill);
        in_parallel(threads, blocks, block_bytes as usize, |block, records| {
            fill::records(seed, u64::from(stripe), block, records);
            store(&segment, (block + 1) * block_bytes, records);
        });
    }
    made.keep(uid, gid, mode, out)
}

fn make_sets(base: &Attachment, seed: u64) {
    let mut rng = rng::Rng::new(seed, 0x5e75);
    let mut offset = 8192;
    while offset + 4 <= base.size_bytes() && offset < 32 << 10 {
        store(base, offset, &rng.next().to_le_bytes()[..4]);
        offset += 80;
    }
}

fn make_stages(made: &mut Made, instance: u8, nsid: u8, stages: u16, stage_bytes: u64, index: &Index, threads: usize) -> Outcome {
    for stage in 0..stages {
        let segment = made.create(key_at(instance, nsid, SegmentType::PiStage, stage)?, stage_bytes)?;
        let first = u64::from(stage) * index.capacity;
        let elements = index.allocated.saturating_sub(first).min(index.capacity);
        in_parallel(threads, elements.div_ceil(BLOCK_ELEMENTS), (BLOCK_ELEMENTS * ELEMENT_BYTES) as usize, |block, bytes| {
            let from = block * BLOCK_ELEMENTS;
            let count = (elements - from).min(BLOCK_ELEMENTS) * ELEMENT_BYTES;
            let bytes = &mut bytes[..count as usize];
            index.fill(first + from, bytes);
            store(&segment, from * ELEMENT_BYTES, bytes);
        });
    }
    Ok(())
}

/// Stores bytes as far as the segment goes.
fn store(segment: &Attachment, offset: u64, bytes: &[u8]) {
    let room = segment.size_bytes().saturating_sub(offset);
    let (offset, length) = (offset.min(segment.size_bytes()), bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
    segment.exclusive(offset..offset + length as u64).copy_from_slice(&bytes[..length]);
}

fn named_key(args: &mut Args) -> Result<Key, String> {
    args.get("key", None, |text| key_of(text).map(Some))?.map(Key).ok_or_else(|| "--key is needed".to_owned())
}

fn foreign(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (key, size_bytes) = (named_key(&mut args)?, args.size("size", 1 << 20)?);
    let (mode, seed) = (args.get("mode", 0o600, mode_of)?, args.number("seed", 1)?);
    args.end()?;
    let mut made = Made::default();
    let segment = made.create(key, size_bytes)?;
    let mut rng = rng::Rng::new(seed, u64::from(key.0));
    let block: Vec<u8> = (0..8192).flat_map(|_| rng.next().to_le_bytes()).collect();
    for offset in (0..size_bytes).step_by(block.len()) {
        store(&segment, offset, &block);
    }
    made.keep(None, None, mode, out)
}

/// Segments that are Aerospike's, of an instance if one is given, by key.
fn segments(instance: Option<u8>, all: bool) -> Result<Vec<SegmentStat>, String> {
    let mut found = sysv::all_segments().map_err(|error| format!("cannot list segments: {error}"))?;
    found.retain(|stat| match stat.key.address() {
        Some(address) => instance.is_none_or(|instance| instance == address.instance),
        None => all,
    });
    found.sort_by_key(|stat| stat.key);
    Ok(found)
}

fn segment_of(key: Key) -> Result<SegmentStat, String> {
    segments(None, true)?.into_iter().find(|stat| stat.key == key).ok_or_else(|| format!("no segment {key}"))
}

fn sum(mut args: Args, out: &mut dyn Write) -> Outcome {
    let instance = args.get("instance", None, |text| text.parse().ok().map(Some))?;
    let (all, resident) = (args.flag("all"), args.flag("resident"));
    let is_sparse = args.flag("sparse") || resident;
    args.end()?;
    for stat in segments(instance, all)? {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).map_err(text_of("cannot attach", stat.key))?;
        // Every byte is read, and asmt's way of finding holes is not relied on: it is among what is tested.
        let (crc32, data_bytes) = match is_sparse {
            false => (crc32fast::hash(attachment.bytes(0..stat.size_bytes)), stat.size_bytes),
            true => sum_of_data(&attachment).map_err(text_of("cannot read", stat.key))?,
        };
        let tail = if resident { format!(" {data_bytes}") } else { String::new() };
        let line = format!(
            "{} {} {:08x} {} {} {:o} {}{tail}",
            stat.key, stat.size_bytes, crc32, stat.uid, stat.gid, stat.mode, stat.attached_count
        );
        say(out, line)?;
    }
    Ok(())
}

/// CRC-32 without touching holes, and how many bytes are not holes.
fn sum_of_data(attachment: &Attachment) -> std::io::Result<(u32, u64)> {
    let size_bytes = attachment.size_bytes();
    let (mut hasher, mut position, mut data_bytes) = (crc32fast::Hasher::new(), 0, 0);
    let zeros = vec![0; 1 << 20];
    while position < size_bytes {
        let data = attachment.next_data(position, size_bytes)?;
        let hole_end = data.as_ref().map_or(size_bytes, |data| data.start);
        while position < hole_end {
            let count = (hole_end - position).min(zeros.len() as u64);
            hasher.update(&zeros[..count as usize]);
            position += count;
        }
        if let Some(data) = data {
            hasher.update(attachment.bytes(data.clone()));
            data_bytes += data.end - data.start;
            position = data.end;
        }
    }
    Ok((hasher.finalize(), data_bytes))
}

fn remove(mut args: Args, out: &mut dyn Write) -> Outcome {
    let instance = args.get("instance", None, |text| text.parse().ok().map(Some))?;
    let nsid: Option<u8> = args.get("nsid", None, |text| text.parse().ok().map(Some))?;
    let key = args.get("key", None, |text| key_of(text).map(Some))?.map(Key);
    args.end()?;
    let mut count = 0;
    for stat in segments(instance, key.is_some())? {
        let is_meant = key.is_none_or(|key| key == stat.key)
            && nsid.is_none_or(|nsid| stat.key.address().is_some_and(|address| address.nsid == nsid));
        if is_meant {
            sysv::remove(stat.shmid).map_err(text_of("cannot remove", stat.key))?;
            count += 1;
        }
    }
    say(out, format_args!("removed {count} segments"))
}

fn hold(mut args: Args, out: &mut dyn Write) -> Outcome {
    let key = args.get("key", None, |text| key_of(text).map(Some))?.map(Key);
    let access = if args.flag("read-only") { Access::ReadOnly } else { Access::ReadWrite };
    args.end()?;
    let chosen = match key {
        Some(key) => vec![segment_of(key)?],
        None => segments(None, false)?,
    };
    let mut held = Vec::new();
    for stat in chosen {
        held.push(Attachment::new(stat.shmid, access, 0).map_err(text_of("cannot attach", stat.key))?);
        say(out, format_args!("holding {} {} pid {}", stat.key, stat.shmid, std::process::id()))?;
    }
    say(out, "ready")?;
    let mut ignored = Vec::new();
    std::io::stdin().read_to_end(&mut ignored).map_err(|error| error.to_string())?;
    drop(held);
    Ok(())
}

/// A storage device's header; a stripe's has the same form.
struct DeviceHeader {
    name: String,
    random: u64,
    is_trusted: bool,
}

fn named_path(args: &mut Args) -> Result<PathBuf, String> {
    args.text("path").map(PathBuf::from).ok_or_else(|| "--path is needed".to_owned())
}

fn write_header(path: &Path, header: &DeviceHeader) -> Outcome {
    let bytes = layout::stripe(&header.name, 1, header.random, header.is_trusted);
    let file = OpenOptions::new().write(true).open(path).map_err(text_of("cannot open", path.display()))?;
    file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).map_err(text_of("cannot write", path.display()))
}

fn device(mut args: Args) -> Outcome {
    let path = named_path(&mut args)?;
    let (random, size_bytes) = (args.number("random", 1)?, args.size("size", 64 << 10)?);
    let name = args.text("name").unwrap_or_else(|| "test".to_owned());
    let is_trusted = !args.flag("untrusted");
    args.end()?;
    if !path.exists() {
        let made = File::create(&path).and_then(|file| file.set_len(size_bytes));
        made.map_err(text_of("cannot make", path.display()))?;
    }
    write_header(&path, &DeviceHeader { name, random, is_trusted })
}

/// Changes the header of a device, which it must have.
fn header_of(mut args: Args, change: impl Fn(&mut DeviceHeader)) -> Outcome {
    let path = named_path(&mut args)?;
    args.end()?;
    let mut bytes = [0; layout::STRIPE_BYTES];
    let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, 0));
    read.map_err(text_of("cannot read", path.display()))?;
    let (name, random, is_trusted) = layout::parse_stripe(&bytes).ok_or_else(|| format!("{} has no header", path.display()))?;
    let mut header = DeviceHeader { name, random, is_trusted };
    change(&mut header);
    write_header(&path, &header)
}

fn poke(mut args: Args) -> Outcome {
    let (key, offset) = (named_key(&mut args)?, args.size("offset", 0)?);
    let bytes = args.get("hex", None, |text| bytes_of(text).map(Some))?.ok_or("--hex is needed")?;
    args.end()?;
    let segment = Attachment::new(segment_of(key)?.shmid, Access::ReadWrite, 0).map_err(text_of("cannot attach", key))?;
    if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > segment.size_bytes()) {
        return Err(format!("{offset}+{} is past the segment's {} bytes", bytes.len(), segment.size_bytes()));
    }
    segment.exclusive(offset..offset + bytes.len() as u64).copy_from_slice(&bytes);
    Ok(())
}

fn peek(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (key, offset, length) = (named_key(&mut args)?, args.size("offset", 0)?, args.size("length", 16)?);
    args.end()?;
    let segment = Attachment::new(segment_of(key)?.shmid, Access::ReadOnly, 0).map_err(text_of("cannot attach", key))?;
    let end = offset.checked_add(length).filter(|end| *end <= segment.size_bytes()).ok_or("past the end of the segment")?;
    let hex: String = segment.bytes(offset..end).iter().map(|byte| format!("{byte:02x}")).collect();
    say(out, hex)
}
