//! Shows a [`Disk`] as a file: a FUSE mount whose root is a regular file, to be used by a loop
//! device. It is dm-log-writes in user space.
//!
//! Promise: it handles one request after the other, and answers each when it is done, so that a
//! flush covers every write that was answered before it; nothing is cached between the loop device
//! and the disk. It ends when its input ends, also after its parent was killed.
//!
//! It is a process of its own, because a process that has a file system mounted on itself cannot be
//! killed while it waits for it.
//!
//! Each command is one line, and is answered by one or more lines, of which the last is `ok …` or
//! `error …`. The commands are those of [`Disk`]: `record`, `mark WORDS`, `end` (lists the log),
//! `state DURABLE ENTRY:FIRST:COUNT…` (returns its number), `keep`.

use crate::disk::{Disk, Entry, Kept};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const MAX_WRITE_BYTES: u32 = 128 << 10;
const IN_HEADER_BYTES: usize = 40;
// Opcodes of `<linux/fuse.h>`.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
/// A close.
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// `FOPEN_DIRECT_IO`: no page cache over this file.
const DIRECT_IO: u32 = 1;
/// `FUSE_BIG_WRITES`: more than a page at once.
const BIG_WRITES: u32 = 1 << 5;

/// Serves the image at `target` until standard input ends.
pub fn serve(image: &Path, target: &Path) -> io::Result<()> {
    let mut disk = Disk::new(File::open(image)?)?;
    // From here on, only this process needs the image.
    std::fs::remove_file(image)?;
    File::create(target)?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let options = format!("fd={},rootmode=100600,user_id=0,group_id=0\0", device.as_raw_fd());
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).map_err(io::Error::other)?;
    mount("asmt-powercut", target, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options)?;
    println!("ok {}", disk.size_bytes());
    let outcome = answer_all(&device, &mut disk);
    drop(device);
    let _ = unmount(target, UnmountFlags::DETACH);
    outcome
}

fn answer_all(device: &OwnedFd, disk: &mut Disk) -> io::Result<()> {
    let mut input = io::stdin();
    let mut pending = Vec::new();
    let mut request = vec![0; MAX_WRITE_BYTES as usize + 4096];
    loop {
        let (has_request, has_input) = {
            let mut ready = [PollFd::new(device, PollFlags::IN), PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            (!ready[0].revents().is_empty(), !ready[1].revents().is_empty())
        };
        if has_request {
            match rustix::io::read(device, &mut request) {
                Ok(length) => answer(device, disk, &request[..length])?,
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                // Unmounted.
                Err(Errno::NODEV) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        } else if has_input {
            // Commands wait for requests: a write that came before a command is logged before it.
            let mut bytes = [0; 65_536];
            let count = input.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            pending.extend_from_slice(&bytes[..count]);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let mut out = io::stdout().lock();
                match command(disk, String::from_utf8_lossy(&line).trim()) {
                    Ok(text) => writeln!(out, "{text}")?,
                    Err(error) => writeln!(out, "error {error}")?,
                }
                out.flush()?;
            }
        }
    }
}

fn command(disk: &mut Disk, line: &str) -> io::Result<String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "record" => disk.record(),
        "mark" => disk.mark(rest),
        "keep" => disk.keep(),
        "end" => {
            let lines = disk.end_recording().iter().map(|entry| match entry {
                Entry::Write { offset, bytes } => format!("write {offset} {}\n", bytes.len()),
                Entry::Flush => "flush\n".to_owned(),
                Entry::Mark(text) => format!("mark {text}\n"),
            });
            return Ok(lines.collect::<String>() + "ok");
        }
        "state" => {
            let unreadable = || io::Error::other(format!("cannot read {line:?}"));
            let mut words = rest.split(' ');
            let durable = words.next().and_then(|word| word.parse().ok()).ok_or_else(unreadable)?;
            let kept = words.map(|word| {
                let mut numbers = word.split(':').map(str::parse);
                match (numbers.next(), numbers.next(), numbers.next()) {
                    (Some(Ok(entry)), Some(Ok(first)), Some(Ok(count))) => Ok(Kept { entry, first, count }),
                    _ => Err(unreadable()),
                }
            });
            let kept = kept.collect::<io::Result<Vec<_>>>()?;
            return Ok(format!("ok {}", disk.lay_out(durable, &kept)?));
        }
        _ => return Err(io::Error::other(format!("no command {word:?}"))),
    }
    Ok("ok".to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Answers one request. The layouts are those of `<linux/fuse.h>`, little-endian on all machines on
/// which asmt runs.
fn answer(device: &OwnedFd, disk: &mut Disk, request: &[u8]) -> io::Result<()> {
    let (opcode, unique, body) = (u32_at(request, 4), u64_at(request, 8), request.get(IN_HEADER_BYTES..).unwrap_or_default());
    let outcome = match opcode {
        // An attribute is set only by a truncation of the file to its own size.
        GETATTR | SETATTR => Ok(attributes(disk)),
        OPEN => Ok(words(&[0, 0, DIRECT_IO, 0])),
        READ => disk.read(u64_at(body, 8), u32_at(body, 16) as usize),
        WRITE => {
            let length = u32_at(body, 16);
            match body.get(40..40 + length as usize) {
                Some(bytes) => disk.write(u64_at(body, 8), bytes).map(|()| words(&[length, 0])),
                None => Err(Errno::INVAL.into()),
            }
        }
        FSYNC => {
            disk.flush();
            Ok(Vec::new())
        }
        RELEASE | FLUSH => Ok(Vec::new()),
        INIT => Ok(words(&[7, 31, u32_at(body, 8), BIG_WRITES, 16 | 12 << 16, MAX_WRITE_BYTES, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        // They get no answer.
        FORGET | INTERRUPT | BATCH_FORGET => return Ok(()),
        _ => Err(Errno::NOSYS.into()),
    };
    let (error, payload) = match outcome {
        Ok(payload) => (0, payload),
        Err(error) => (-error.raw_os_error().unwrap_or(libc::EIO), Vec::new()),
    };
    let mut reply = words(&[16 + payload.len() as u32, error.cast_unsigned(), unique as u32, (unique >> 32) as u32]);
    reply.extend_from_slice(&payload);
    match rustix::io::write(device, &reply) {
        // The call that made the request was interrupted.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn attributes(disk: &Disk) -> Vec<u8> {
    let size = disk.size_bytes();
    let (low, high) = (size as u32, (size >> 32) as u32);
    let blocks = (size / 512) as u32;
    // How long the attributes are valid (s, ns, padding); inode, size, blocks, three times, their
    // nanoseconds, mode, links, owner, group, device, block size, flags.
    words(&[3600, 0, 0, 0, 1, 0, low, high, blocks, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0])
}
