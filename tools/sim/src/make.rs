//! Makes segments: those of a namespace, and foreign ones.
//!
//! Promise: if the command fails, the segments that it made are removed again.

use crate::fill::{self, BLOCK_ELEMENTS, Index};
use crate::layout::{self, DeviceHeader, ELEMENT_BYTES, Holds, NODE_BYTES, Place};
use crate::memory::named_key;
use crate::tiles::Piece;
use crate::{Outcome, say};
use asmt_kit::args::{Args, mode_of};
use asmt_kit::dice::Rng;
use asmt_kit::text_of;
use asmt_kit::threads::{cpu_count, in_parallel};
use asmt_shm::Key;
use asmt_shm::sysv::{self, Access, Attachment};
use std::io::Write;
use std::path::Path;

/// The future owner of a segment.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Owner; `None` for this process's user.
    pub uid: Option<u32>,
    /// Group; `None` for this process's.
    pub gid: Option<u32>,
    /// Mode.
    pub mode: u32,
}

/// Segments that this call has made; removed when dropped, unless they were kept.
#[derive(Default)]
pub struct Made(Vec<(i32, u64)>);

impl Made {
    /// Makes a segment at this place and attaches it.
    pub fn create_at(&mut self, place: Place, size_bytes: u64) -> Result<Attachment, String> {
        let key = place.key().ok_or_else(|| format!("{place:?} is out of range"))?;
        self.create(Key(key), size_bytes)
    }

    fn create(&mut self, key: Key, size_bytes: u64) -> Result<Attachment, String> {
        let shmid = sysv::create(key, size_bytes).map_err(text_of("cannot make", key))?;
        self.0.push((shmid, size_bytes));
        Attachment::new(shmid, Access::ReadWrite, 0).map_err(text_of("cannot attach", key))
    }

    /// Sets their owner, and keeps them; returns their number and their bytes.
    pub fn keep(mut self, owner: Owner) -> Result<(usize, u64), String> {
        for (shmid, _) in &self.0 {
            let stat = sysv::stat(*shmid).map_err(text_of("cannot look at", shmid))?;
            let (uid, gid) = (owner.uid.unwrap_or(stat.uid), owner.gid.unwrap_or(stat.gid));
            sysv::set_owner(*shmid, uid, gid, owner.mode).map_err(text_of("cannot give away", shmid))?;
        }
        let made = std::mem::take(&mut self.0);
        Ok((made.len(), made.iter().map(|(_, bytes)| bytes).sum()))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (shmid, _) in &self.0 {
            let _ = sysv::remove(*shmid);
        }
    }
}

/// The place of a namespace's segments.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Instance.
    pub instance: u32,
    /// nsid of the index.
    pub nsid: u32,
    /// nsid of the data.
    pub data_nsid: u32,
    /// Name.
    pub name: &'a str,
}

impl Target<'_> {
    /// Checks that the name fits its field.
    pub fn check(&self) -> Outcome {
        let most = layout::NAME_BYTES - 1;
        if self.name.len() > most {
            return Err(format!("the name has {} bytes, at most {most}", self.name.len()));
        }
        Ok(())
    }

    /// The place of one of its segments.
    pub fn place(&self, holds: Holds) -> Place {
        let nsid = if matches!(holds, Holds::Stripe(_)) { self.data_nsid } else { self.nsid };
        Place { instance: self.instance, nsid, holds }
    }
}

/// The fields of base beside its names.
pub struct BaseShape {
    /// Layout version.
    pub version: u32,
    /// Shutdown status.
    pub shutdown: u32,
    /// Bytes of a stage.
    pub stage_bytes: u64,
    /// Number of stages.
    pub stage_count: u32,
    /// Bytes of base itself.
    pub size_bytes: u64,
    /// Seed of the sets.
    pub seed: u64,
}

/// Makes a base.
pub fn make_base(made: &mut Made, target: &Target<'_>, shape: &BaseShape, allocated: u64) -> Outcome {
    let base = made.create_at(target.place(Holds::Base), shape.size_bytes)?;
    let stage_key = target.place(Holds::Stage(0)).key().ok_or("the key of the first stage is out of range")?;
    let header = layout::Base {
        version: shape.version,
        shutdown: shape.shutdown,
        name: target.name,
        stage_key,
        stage_bytes: shape.stage_bytes,
        allocated,
        stage_count: shape.stage_count,
    };
    store(&base, 0, &layout::base(&header));
    let mut rng = Rng::new(shape.seed, 0x5e75);
    for offset in (8192..32 << 10).step_by(80) {
        store(&base, offset, &rng.next().to_le_bytes()[..4]);
    }
    Ok(())
}

/// Makes a treex.
pub fn make_treex(made: &mut Made, target: &Target<'_>, size_bytes: u64, index: &Index) -> Outcome {
    let treex = made.create_at(target.place(Holds::Treex), size_bytes)?;
    let mut roots = vec![0; usize::try_from(size_bytes).map_err(|error| error.to_string())?];
    index.treex(&mut roots);
    store(&treex, 0, &roots);
    Ok(())
}

/// Makes stages of the primary index.
pub fn make_stages(
    made: &mut Made,
    target: &Target<'_>,
    stages: u32,
    stage_bytes: u64,
    index: &Index,
    threads: usize,
) -> Outcome {
    for stage in 0..stages {
        let segment = made.create_at(target.place(Holds::Stage(stage)), stage_bytes)?;
        let first = u64::from(stage) * index.capacity();
        let elements = index.allocated().saturating_sub(first).min(index.capacity());
        make_blocks(threads, elements.div_ceil(BLOCK_ELEMENTS), (BLOCK_ELEMENTS * ELEMENT_BYTES) as usize, |block, bytes| {
            let from = block * BLOCK_ELEMENTS;
            let count = (elements - from).min(BLOCK_ELEMENTS) * ELEMENT_BYTES;
            let bytes = &mut bytes[..count as usize];
            index.fill(first + from, bytes);
            store(&segment, from * ELEMENT_BYTES, bytes);
        })?;
    }
    Ok(())
}

/// The size of a number of like segments, and how full they are.
#[derive(Clone, Copy)]
pub struct Row {
    /// How many.
    pub count: u32,
    /// Bytes each.
    pub size_bytes: u64,
    /// Part of the bytes that is used.
    pub fill: f64,
}

/// Makes a secondary index: its meta and its stages.
pub fn make_secondary(made: &mut Made, target: &Target<'_>, row: Row, seed: u64, threads: usize) -> Outcome {
    let meta = made.create_at(target.place(Holds::SiMeta), 1 << 20)?;
    store(&meta, 0, &layout::si_meta(row.count));
    store(&meta, 4096, b"idx_age");
    let a_stage = row.size_bytes / NODE_BYTES;
    let nodes = part_of(a_stage * u64::from(row.count), row.fill);
    for stage in 0..row.count {
        let segment = made.create_at(target.place(Holds::SiStage(stage)), row.size_bytes)?;
        let count = nodes.saturating_sub(u64::from(stage) * a_stage).min(a_stage);
        make_blocks(threads, count, NODE_BYTES as usize, |number, node| {
            fill::node(seed, u64::from(stage), number, node);
            store(&segment, number * NODE_BYTES, node);
        })?;
    }
    Ok(())
}

/// Makes stripes, each with this header.
pub fn make_stripes(made: &mut Made, target: &Target<'_>, row: Row, header: &DeviceHeader, seed: u64, threads: usize) -> Outcome {
    for stripe in 0..row.count {
        let segment = made.create_at(target.place(Holds::Stripe(stripe)), row.size_bytes)?;
        store(&segment, 0, &header.to_bytes());
        let block_bytes = 64 << 10;
        // The first 64 KiB belong to the header; the rest is used from the front.
        let blocks = part_of(row.size_bytes.saturating_sub(block_bytes) / block_bytes, row.fill);
        make_blocks(threads, blocks, block_bytes as usize, |block, records| {
            fill::records(seed, u64::from(stripe), block, records);
            store(&segment, (block + 1) * block_bytes, records);
        })?;
    }
    Ok(())
}

/// Makes blocks `0..count` on several threads, each in a buffer of zeros.
fn make_blocks(threads: usize, count: u64, block_bytes: usize, make: impl Fn(u64, &mut [u8]) + Sync) -> Outcome {
    let count = usize::try_from(count).map_err(|error| error.to_string())?;
    in_parallel(
        threads,
        count,
        || vec![0; block_bytes],
        |buffer, block| {
            buffer.fill(0);
            make(block as u64, buffer);
            Ok(())
        },
    )
}

/// Makes the segments of a namespace.
pub fn make(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (instance, nsid) = (args.number("instance", 0)?, args.number("nsid", 1)?);
    let name = args.text("name").unwrap_or_else(|| "test".to_owned());
    let target = Target { instance, nsid, data_nsid: args.number("data-nsid", nsid)?, name: &name };
    target.check()?;
    let has_index = !args.flag("no-index");
    let seed = args.number("seed", 1)?;
    let shape = BaseShape {
        version: args.number("version", 12)?,
        shutdown: args.number("shutdown", 1)?,
        stage_bytes: args.size("stage-size", 1 << 20)?,
        stage_count: args.number("stages", 2)?,
        size_bytes: args.size("base-size", 64 << 10)?,
        seed,
    };
    let fill = args.get("fill", 0.6, fraction)?;
    let piece = args.text("elements").map(|path| Piece::read(Path::new(&path))).transpose()?;
    let treex_bytes = args.size("treex-size", 192 << 10)?;
    let mut row = |what: &str, fill: f64| -> Result<Row, String> {
        let count = args.number(&format!("{what}s"), 0)?;
        let size_bytes = args.size(&format!("{what}-size"), 1 << 20)?;
        Ok(Row { count, size_bytes, fill: args.get(&format!("{}-fill", what.trim_end_matches("-stage")), fill, fraction)? })
    };
    let (secondary, stripes) = (row("si-stage", 0.4)?, row("stripe", 0.2)?);
    let is_trusted = !args.flag("untrusted");
    let id = |text: &str| text.parse().ok().map(Some);
    let owner =
        Owner { uid: args.get("uid", None, id)?, gid: args.get("gid", None, id)?, mode: args.get("mode", 0o666, mode_of)? };
    let threads = args.number("threads", cpu_count())?;
    args.end()?;

    let mut made = Made::default();
    if has_index {
        let (capacity, stages) = (shape.stage_bytes / ELEMENT_BYTES, u64::from(shape.stage_count));
        let index = Index::new(seed, capacity, stages, part_of(capacity * stages, fill)).of_piece(piece);
        make_base(&mut made, &target, &shape, index.allocated())?;
        make_treex(&mut made, &target, treex_bytes, &index)?;
        make_stages(&mut made, &target, shape.stage_count, shape.stage_bytes, &index, threads)?;
    }
    if secondary.count > 0 {
        make_secondary(&mut made, &target, secondary, seed, threads)?;
    }
    let header = DeviceHeader::new(name.as_bytes(), stripes.count, Rng::new(seed, 0xfeed).next(), is_trusted);
    make_stripes(&mut made, &target, stripes, &header, seed, threads)?;
    let (count, bytes) = made.keep(owner)?;
    say(out, format_args!("made {count} segments, {bytes} bytes"))
}

fn fraction(text: &str) -> Option<f64> {
    text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
}

/// A part of a number.
fn part_of(whole: u64, fraction: f64) -> u64 {
    (whole as f64 * fraction) as u64
}

/// Stores bytes up to the end of the segment.
pub fn store(segment: &Attachment, offset: u64, bytes: &[u8]) {
    let room = segment.size_bytes().saturating_sub(offset);
    let (offset, length) = (offset.min(segment.size_bytes()), bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
    segment.exclusive(offset..offset + length as u64).copy_from_slice(&bytes[..length]);
}

/// Makes segments that are not Aerospike's, with keys that follow on each other.
pub fn foreign(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (first, count, size_bytes) = (named_key(&mut args)?, args.number("count", 1)?, args.size("size", 1 << 20)?);
    let (mode, seed) = (args.get("mode", 0o600, mode_of)?, args.number("seed", 1)?);
    args.end()?;
    let mut made = Made::default();
    for number in 0..count {
        let key = Key(first.0.checked_add(number).ok_or("--count: there are not so many keys")?);
        let segment = made.create(key, size_bytes)?;
        let mut rng = Rng::new(seed, u64::from(key.0));
        let block: Vec<u8> = (0..8192).flat_map(|_| rng.next().to_le_bytes()).collect();
        for offset in (0..size_bytes).step_by(block.len()) {
            store(&segment, offset, &block);
        }
    }
    let (count, bytes) = made.keep(Owner { uid: None, gid: None, mode })?;
    say(out, format_args!("made {count} segments, {bytes} bytes"))
}
