//! Storage devices and files, by the first 4096 bytes of each, as a server writes them.
//!
//! Promise: a header is what a server wrote, with name, count, random and flags changed. A block
//! device is written as the server does it (O_DIRECT | O_DSYNC), so what is written stays; a file
//! is not fsynced, so a power cut may bring back any header since it was last on the disk. Must
//! never: detach a loop device that this process has not attached.

use crate::dice::Dice;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Written by a server: see the README beside it.
const OF_FILE: &[u8] = include_bytes!("../../../__test__/fixtures/server/file-2-clean-stop/test-a.dat.head");
const OF_DEVICE: &[u8] = include_bytes!("../../../__test__/fixtures/server/dev-2-clean-stop/loop0.head");
const OF_STRIPE: &[u8] = include_bytes!("../../../__test__/fixtures/server/memory-only-stripe-running/stripe-0.head");

/// Bytes that are read and written: a header.
pub const HEAD_BYTES: usize = 4096;
const DISK_BYTES: u64 = 1 << 20;

/// A header, at an address that direct I/O takes.
#[repr(align(4096))]
#[derive(Clone, PartialEq, Eq)]
pub struct Block(pub [u8; HEAD_BYTES]);

/// What holds a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A block device.
    Block,
    /// A storage file.
    File,
    /// A stripe in memory.
    Stripe,
}

/// The part of a header that tells one run of a server from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Another one after each open.
    pub random: u64,
    /// The server was stopped cleanly.
    pub is_trusted: bool,
}

/// The bytes of a header.
pub fn head_block(medium: Medium, name: &str, count: u32, head: Head) -> Block {
    let source = match medium {
        Medium::Block => OF_DEVICE,
        Medium::File => OF_FILE,
        Medium::Stripe => OF_STRIPE,
    };
    let mut bytes = [0; HEAD_BYTES];
    bytes.copy_from_slice(source);
    bytes[12..44].fill(0);
    bytes[12..12 + name.len()].copy_from_slice(name.as_bytes());
    bytes[44..48].copy_from_slice(&count.to_le_bytes());
    bytes[48..56].copy_from_slice(&head.random.to_le_bytes());
    bytes[56] = bytes[56] & !1 | u8::from(head.is_trusted);
    Block(bytes)
}

/// The header in these bytes; none if they are blank.
pub fn head_of(bytes: &[u8]) -> Option<Head> {
    let random = u64::from_le_bytes(bytes[48..56].try_into().expect("eight bytes"));
    (bytes[..8] == OF_FILE[..8]).then_some(Head { random, is_trusted: bytes[56] & 1 == 1 })
}

/// A storage device or file.
pub struct Disk {
    /// What it is.
    pub medium: Medium,
    /// The device node or the file itself, not a link to it.
    pub node: PathBuf,
    /// What was written since it was last known to be on the disk, with that before it.
    unsettled: Vec<Block>,
}

impl Disk {
    /// A blank one.
    pub fn blank(medium: Medium, node: PathBuf) -> Self {
        if medium == Medium::File {
            let made = File::create(&node).and_then(|file| file.set_len(DISK_BYTES));
            made.unwrap_or_else(|error| panic!("{}: {error}", node.display()));
        }
        let mut disk = Self { medium, node, unsettled: Vec::new() };
        disk.write(&Block([0; HEAD_BYTES]));
        disk.settle();
        disk
    }

    fn open(&self, is_writing: bool) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(is_writing);
        if self.medium == Medium::Block {
            options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        }
        options.open(&self.node).unwrap_or_else(|error| panic!("{}: {error}", self.node.display()))
    }

    fn read(&self) -> Block {
        let mut block = Block([0; HEAD_BYTES]);
        let read = self.open(false).read_exact_at(&mut block.0, 0);
        read.unwrap_or_else(|error| panic!("{}: {error}", self.node.display()));
        block
    }

    /// Its header; none if it is blank.
    pub fn head(&self) -> Option<Head> {
        head_of(&self.read().0)
    }

    /// Stores a header.
    pub fn write(&mut self, block: &Block) {
        let written = self.open(true).write_all_at(&block.0, 0);
        written.unwrap_or_else(|error| panic!("{}: {error}", self.node.display()));
        self.unsettled.push(block.clone());
    }

    /// As if it was wiped, or replaced by a new one.
    pub fn wipe(&mut self) {
        self.write(&Block([0; HEAD_BYTES]));
        self.settle();
    }

    /// All of it has come to the disk.
    pub fn settle(&mut self) {
        self.unsettled.drain(..self.unsettled.len().saturating_sub(1));
    }

    /// Power goes: a file may have an old header afterwards. Returns true if it has.
    pub fn lose_power(&mut self, dice: &mut Dice, brings_back: bool) -> bool {
        if self.medium != Medium::File || !brings_back || self.unsettled.len() < 2 {
            self.settle();
            return false;
        }
        let at = dice.below(self.unsettled.len() - 1);
        self.unsettled.truncate(at + 1);
        let old = self.unsettled[at].clone();
        self.write(&old);
        self.settle();
        true
    }
}

/// Loop devices that sequences share one after the other.
pub struct Pool {
    devices: Vec<(PathBuf, File)>,
}

impl Pool {
    /// Attaches so many loop devices; none where the system allows none. Each goes with this
    /// process, however it ends.
    pub fn new(directory: &Path, count: usize) -> Self {
        // Two processes that run side by side have files of the same path, each in a mount
        // namespace of its own: asmt must not take one's disk for the other's.
        let devices = (0..count).map_while(|number| attach(&directory.join(format!("disk-{number}"))).ok());
        Self { devices: devices.collect() }
    }

    /// Device nodes, all different.
    pub fn nodes(&self) -> Vec<PathBuf> {
        self.devices.iter().map(|(node, _)| node.clone()).collect()
    }
}

fn attach(backing: &Path) -> io::Result<(PathBuf, File)> {
    File::create(backing)?.set_len(DISK_BYTES)?;
    let done = Command::new("losetup").args(["--find", "--show"]).arg(backing).output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    let node = PathBuf::from(String::from_utf8_lossy(&done.stdout).trim());
    let file = File::open(&node)?;
    // As long as somebody has it open, this only makes it go with the last one who has.
    let detached = Command::new("losetup").arg("--detach").arg(&node).status()?;
    if detached.success() { Ok((node, file)) } else { Err(io::Error::other("losetup --detach failed")) }
}

/// Makes a link, in the place of what was there.
pub fn link(path: &Path, to: &Path) {
    let _ = fs::remove_file(path);
    std::os::unix::fs::symlink(to, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
