//! Commands on shared memory: sums, removes, holds and changes segments.
//!
//! Must never: remove a segment that is not Aerospike's unless its key was named.

use crate::layout::Place;
use crate::{Outcome, say};
use asmt_kit::args::{Args, bytes_of, key_of};
use asmt_kit::text_of;
use asmt_shm::Key;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use std::io::{Read, Write};

/// The key that `--key` names.
pub fn named_key(args: &mut Args) -> Result<Key, String> {
    args.get("key", None, |text| key_of(text).map(Some))?.map(Key).ok_or_else(|| "--key is needed".to_owned())
}

/// Aerospike's segments, of one instance if it is given, and all others too if `all` is set; sorted
/// by key.
pub fn segments(instance: Option<u32>, all: bool) -> Result<Vec<SegmentStat>, String> {
    let mut found = sysv::all_segments().map_err(|error| format!("cannot list segments: {error}"))?;
    found.retain(|stat| match Place::of(stat.key.0) {
        Some(place) => instance.is_none_or(|instance| instance == place.instance),
        None => all,
    });
    found.sort_by_key(|stat| stat.key);
    Ok(found)
}

fn segment_of(key: Key) -> Result<SegmentStat, String> {
    segments(None, true)?.into_iter().find(|stat| stat.key == key).ok_or_else(|| format!("no segment {key}"))
}

/// Prints size, checksum and owner of each segment.
pub fn sum(mut args: Args, out: &mut dyn Write) -> Outcome {
    let instance = args.get("instance", None, |text| text.parse().ok().map(Some))?;
    let (all, resident) = (args.flag("all"), args.flag("resident"));
    let is_sparse = args.flag("sparse") || resident;
    args.end()?;
    for stat in segments(instance, all)? {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).map_err(text_of("cannot attach", stat.key))?;
        // Every byte is read. asmt's way of finding holes is not relied on, because it is among the
        // things that are tested.
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

/// Computes the CRC-32 without touching holes, and returns it with the number of bytes that are not
/// holes.
fn sum_of_data(attachment: &Attachment) -> std::io::Result<(u32, u64)> {
    let size_bytes = attachment.size_bytes();
    let (mut hasher, mut position, mut data_bytes) = (crc32fast::Hasher::new(), 0, 0);
    while position < size_bytes {
        let data = attachment.next_data(position, size_bytes)?;
        let hole_end = data.as_ref().map_or(size_bytes, |data| data.start);
        hasher.combine(&sum_of_zeros(hole_end - position));
        position = hole_end;
        if let Some(data) = data {
            hasher.update(attachment.bytes(data.clone()));
            data_bytes += data.end - data.start;
            position = data.end;
        }
    }
    Ok((hasher.finalize(), data_bytes))
}

/// CRC-32 of so many zeros, put together from those of powers of two: a hole may have terabytes.
fn sum_of_zeros(count: u64) -> crc32fast::Hasher {
    let (mut sum, mut power) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
    power.update(&[0]);
    let bits = u64::BITS - count.leading_zeros();
    for bit in 0..bits {
        if count >> bit & 1 == 1 {
            sum.combine(&power);
        }
        if bit + 1 < bits {
            power.combine(&power.clone());
        }
    }
    sum
}

/// Removes segments.
pub fn remove(mut args: Args, out: &mut dyn Write) -> Outcome {
    let instance = args.get("instance", None, |text| text.parse().ok().map(Some))?;
    let nsid: Option<u32> = args.get("nsid", None, |text| text.parse().ok().map(Some))?;
    let key = args.get("key", None, |text| key_of(text).map(Some))?.map(Key);
    args.end()?;
    let mut count = 0;
    for stat in segments(instance, key.is_some())? {
        let is_meant = key.is_none_or(|key| key == stat.key)
            && nsid.is_none_or(|nsid| Place::of(stat.key.0).is_some_and(|place| place.nsid == nsid));
        if is_meant {
            sysv::remove(stat.shmid).map_err(text_of("cannot remove", stat.key))?;
            count += 1;
        }
    }
    say(out, format_args!("removed {count} segments"))
}

/// Attaches segments until standard input ends.
pub fn hold(mut args: Args, out: &mut dyn Write) -> Outcome {
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

/// Changes bytes of a segment.
pub fn poke(mut args: Args) -> Outcome {
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

/// Prints bytes of a segment.
pub fn peek(mut args: Args, out: &mut dyn Write) -> Outcome {
    let (key, offset, length) = (named_key(&mut args)?, args.size("offset", 0)?, args.size("length", 16)?);
    args.end()?;
    let segment = Attachment::new(segment_of(key)?.shmid, Access::ReadOnly, 0).map_err(text_of("cannot attach", key))?;
    let end = offset.checked_add(length).filter(|end| *end <= segment.size_bytes()).ok_or("past the end of the segment")?;
    let hex: String = segment.bytes(offset..end).iter().map(|byte| format!("{byte:02x}")).collect();
    say(out, hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_zeros_is_that_of_so_many_bytes() {
        for count in [0, 1, 2, 3, 4095, 4096, 1_000_003] {
            let expected = crc32fast::hash(&vec![0; count]);
            assert_eq!(sum_of_zeros(count as u64).finalize(), expected, "{count}");
            let mut after_data = crc32fast::Hasher::new();
            after_data.update(b"data");
            after_data.combine(&sum_of_zeros(count as u64));
            assert_eq!(after_data.finalize(), crc32fast::hash(&[&b"data"[..], &vec![0; count]].concat()), "{count}");
        }
    }
}
