//! Storage devices and files, each with the first 4096 bytes that a server writes.
//!
//! Promise: a header is one that a server wrote, with name, count, random and flags changed. A
//! block device is written as a server does it (O_DIRECT | O_DSYNC), so its header stays. A file is
//! not fsynced, so a power cut may bring back any header since the last one that reached the disk.
//! Must never: detach a loop device that this process has not attached.

use asmt_kit::dice::Dice;
use asmt_kit::mounts::LoopDevice;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The server wrote these: see the README beside them.
const OF_FILE: &[u8] = include_bytes!("../../../__test__/fixtures/server/file-2-clean-stop/test-a.dat.head");
const OF_DEVICE: &[u8] = include_bytes!("../../../__test__/fixtures/server/dev-2-clean-stop/loop0.head");
const OF_STRIPE: &[u8] = include_bytes!("../../../__test__/fixtures/server/memory-only-stripe-running/stripe-0.head");

/// Bytes of a header.
pub const HEAD_BYTES: usize = 4096;
const DISK_BYTES: u64 = 1 << 20;

/// A header, aligned for direct I/O.
#[repr(align(4096))]
#[derive(Clone, PartialEq, Eq)]
pub struct Block(pub [u8; HEAD_BYTES]);

/// The medium that holds a header.
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
    /// Random id: another one after each open.
    pub random: u64,
    /// The server was stopped cleanly.
    pub is_trusted: bool,
}

/// Returns the bytes of a header.
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

/// Reads the header from these bytes; `None` if they are blank.
pub fn head_of(bytes: &[u8]) -> Option<Head> {
    let random = u64::from_le_bytes(bytes[48..56].try_into().expect("eight bytes"));
    (bytes[..8] == OF_FILE[..8]).then_some(Head { random, is_trusted: bytes[56] & 1 == 1 })
}

/// A storage device or file.
pub struct Disk {
    /// Its medium.
    pub medium: Medium,
    /// The device node or the file itself, not a link to it.
    pub node: PathBuf,
    /// The headers that were written since the last one that surely reached the disk, after that
    /// one.
    unsettled: Vec<Block>,
}

impl Disk {
    /// A blank device or file.
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

    /// Reads its header; `None` if it is blank.
    pub fn head(&self) -> Option<Head> {
        head_of(&self.read().0)
    }

    /// Stores a header.
    pub fn write(&mut self, block: &Block) {
        let written = self.open(true).write_all_at(&block.0, 0);
        written.unwrap_or_else(|error| panic!("{}: {error}", self.node.display()));
        self.unsettled.push(block.clone());
    }

    /// Makes it blank, as if it was wiped or replaced by a new one.
    pub fn wipe(&mut self) {
        self.write(&Block([0; HEAD_BYTES]));
        self.settle();
    }

    /// Everything reaches the disk.
    pub fn settle(&mut self) {
        self.unsettled.drain(..self.unsettled.len().saturating_sub(1));
    }

    /// The power is cut: a file may have an old header afterwards. Returns true if it has.
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

/// Loop devices that one sequence after the other uses.
pub struct Pool {
    devices: Vec<LoopDevice>,
}

impl Pool {
    /// Attaches up to `count` loop devices; none if the system allows none. They go with this
    /// process, however it ends.
    pub fn new(directory: &Path, count: usize) -> Self {
        // Two processes that run side by side have files with the same path, each in a mount
        // namespace of its own: asmt must not take one disk for the other.
        let devices = (0..count).map_while(|number| attach(&directory.join(format!("disk-{number}"))).ok());
        Self { devices: devices.collect() }
    }

    /// Device nodes, all different.
    pub fn nodes(&self) -> Vec<PathBuf> {
        self.devices.iter().map(|device| device.path().to_owned()).collect()
    }
}

fn attach(backing: &Path) -> io::Result<LoopDevice> {
    File::create(backing)?.set_len(DISK_BYTES)?;
    LoopDevice::new(backing)
}

/// Makes a link, in place of what is there.
pub fn link(path: &Path, to: &Path) {
    let _ = fs::remove_file(path);
    std::os::unix::fs::symlink(to, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
