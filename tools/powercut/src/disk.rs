//! A disk with a volatile cache: it logs every write, and can lay out any state that a power cut
//! could have left.
//!
//! Promise: a state is the base, everything up to a flush, and any part of the later writes; the
//! writes of a mount to a state are forgotten with it. Must never: change the image from which it
//! was made.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Size of a block, which is written whole or not at all. (It is the block size of every file
/// system here; smaller sectors are whole within it.)
pub const BLOCK_BYTES: usize = 4096;

type Block = Arc<[u8; BLOCK_BYTES]>;
type Layer = HashMap<u64, Block>;

/// An event of the disk.
pub enum Entry {
    /// Bytes were written.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Everything before was made durable.
    Flush,
    /// A word from the caller.
    Mark(String),
}

/// A range of a logged write, in blocks that it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Number of the entry.
    pub entry: usize,
    /// First block of the write that is kept, from 0.
    pub first: usize,
    /// Number of blocks.
    pub count: usize,
}

/// The disk.
pub struct Disk {
    image: File,
    size_bytes: u64,
    /// Blocks that differ from the image.
    base: Layer,
    log: Vec<Entry>,
    is_recording: bool,
    /// Entries that are in `durable`.
    durable_count: usize,
    durable: Layer,
    durable_hash: u64,
    kept: Layer,
    scratch: Layer,
}

impl Disk {
    /// A disk with the contents of the image.
    pub fn new(image: File) -> io::Result<Self> {
        let size_bytes = image.metadata()?.len();
        Ok(Self {
            image,
            size_bytes,
            base: Layer::new(),
            log: Vec::new(),
            is_recording: false,
            durable_count: 0,
            durable: Layer::new(),
            durable_hash: 0,
            kept: Layer::new(),
            scratch: Layer::new(),
        })
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn block(&self, number: u64) -> io::Result<Block> {
        let found = [&self.scratch, &self.kept, &self.durable, &self.base].into_iter().find_map(|layer| layer.get(&number));
        if let Some(block) = found {
            return Ok(Arc::clone(block));
        }
        let mut bytes = [0; BLOCK_BYTES];
        let mut done = 0;
        while done < BLOCK_BYTES {
            match self.image.read_at(&mut bytes[done..], number * BLOCK_BYTES as u64 + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(Arc::new(bytes))
    }

    /// Reads the current contents.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = offset.saturating_add(length as u64).min(self.size_bytes);
        let mut bytes = Vec::with_capacity(length);
        let mut position = offset;
        while position < end {
            let block = self.block(position / BLOCK_BYTES as u64)?;
            let from = (position % BLOCK_BYTES as u64) as usize;
            let to = BLOCK_BYTES.min(from + (end - position) as usize);
            bytes.extend_from_slice(&block[from..to]);
            position += (to - from) as u64;
        }
        Ok(bytes)
    }

    /// The blocks that a write touches, with their contents after it.
    fn blocks_after(&self, offset: u64, bytes: &[u8], first: usize, count: usize) -> io::Result<Vec<(u64, Block)>> {
        let start = offset / BLOCK_BYTES as u64;
        let mut changed = Vec::new();
        for index in first..(first + count).min(blocks_of(offset, bytes.len())) {
            let number = start + index as u64;
            let block_offset = number * BLOCK_BYTES as u64;
            let from = block_offset.max(offset);
            let to = (block_offset + BLOCK_BYTES as u64).min(offset + bytes.len() as u64);
            let mut block = self.block(number)?;
            let target = Arc::make_mut(&mut block);
            target[(from - block_offset) as usize..(to - block_offset) as usize]
                .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            changed.push((number, block));
        }
        Ok(changed)
    }

    /// Writes, and logs the write while recording.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size_bytes) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let changed = self.blocks_after(offset, bytes, 0, usize::MAX)?;
        self.scratch.extend(changed);
        if self.is_recording {
            self.log.push(Entry::Write { offset, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    /// Logs a flush.
    pub fn flush(&mut self) {
        if self.is_recording {
            self.log.push(Entry::Flush);
        }
    }

    /// Notes a word in the log.
    pub fn mark(&mut self, text: &str) {
        if self.is_recording {
            self.log.push(Entry::Mark(text.to_owned()));
        }
    }

    /// Makes the current contents the base, and clears the log.
    pub fn keep(&mut self) {
        for layer in [std::mem::take(&mut self.durable), std::mem::take(&mut self.kept), std::mem::take(&mut self.scratch)] {
            self.base.extend(layer);
        }
        self.log.clear();
        (self.durable_count, self.durable_hash, self.is_recording) = (0, 0, false);
    }

    /// Begins to log, from the base; discards a state and an earlier log.
    pub fn record(&mut self) {
        (self.durable, self.kept, self.scratch) = (Layer::new(), Layer::new(), Layer::new());
        self.keep();
        self.is_recording = true;
    }

    /// Ends the recording, discards its writes, and returns their log.
    pub fn end_recording(&mut self) -> &[Entry] {
        self.is_recording = false;
        self.scratch.clear();
        &self.log
    }

    /// Lays out a state: everything of the first `durable_count` entries, and parts of later ones.
    /// Returns a number that differs for two different states of a log. `durable_count` must not
    /// decrease while the log is the same.
    pub fn lay_out(&mut self, durable_count: usize, kept: &[Kept]) -> io::Result<u64> {
        if durable_count < self.durable_count || durable_count > self.log.len() {
            return Err(io::Error::other(format!("state {durable_count} comes after {}", self.durable_count)));
        }
        self.scratch.clear();
        self.kept.clear();
        let log = std::mem::take(&mut self.log);
        let outcome = self.apply(&log, durable_count, kept);
        self.log = log;
        outcome
    }

    fn apply(&mut self, log: &[Entry], durable_count: usize, kept: &[Kept]) -> io::Result<u64> {
        for entry in &log[self.durable_count..durable_count] {
            if let Entry::Write { offset, bytes } = entry {
                for (number, block) in self.blocks_after(*offset, bytes, 0, usize::MAX)? {
                    self.durable_hash ^= hash_of(number, &block);
                    if let Some(old) = self.durable.insert(number, block) {
                        self.durable_hash ^= hash_of(number, &old);
                    }
                }
            }
        }
        self.durable_count = durable_count;
        for part in kept {
            if let Some(Entry::Write { offset, bytes }) = log.get(part.entry) {
                let changed = self.blocks_after(*offset, bytes, part.first, part.count)?;
                self.kept.extend(changed);
            }
        }
        let over = self.kept.iter().map(|(number, block)| {
            hash_of(*number, block) ^ self.durable.get(number).map_or(0, |durable| hash_of(*number, durable))
        });
        Ok(over.fold(self.durable_hash, |sum, hash| sum ^ hash))
    }
}

/// Number of blocks that a write touches.
pub fn blocks_of(offset: u64, length: usize) -> usize {
    ((offset % BLOCK_BYTES as u64) as usize + length).div_ceil(BLOCK_BYTES)
}

fn hash_of(number: u64, block: &Block) -> u64 {
    let mut hasher = DefaultHasher::new();
    (number, &block[..]).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use asmt_kit::files::Scratch;

    fn disk() -> Disk {
        let scratch = Scratch::new("powercut-disk");
        let image = File::options().read(true).write(true).create_new(true).open(scratch.path().join("image")).expect("a file");
        image.set_len(8 * BLOCK_BYTES as u64).expect("a size");
        Disk::new(image).expect("a disk")
    }

    fn first_bytes(disk: &Disk) -> Vec<u8> {
        (0..4).map(|block| disk.read(block * BLOCK_BYTES as u64, 1).expect("a byte")[0]).collect()
    }

    #[test]
    fn a_state_is_what_was_flushed_and_what_is_kept() {
        let mut disk = disk();
        disk.record();
        disk.write(0, &[1; 2 * BLOCK_BYTES]).expect("write 0");
        disk.flush();
        disk.write(BLOCK_BYTES as u64, &[2; 3 * BLOCK_BYTES]).expect("write 2");
        disk.mark("end");
        assert_eq!(first_bytes(&disk), [1, 2, 2, 2]);
        assert_eq!(disk.end_recording().len(), 4);
        assert_eq!(first_bytes(&disk), [0; 4]);
        let none = disk.lay_out(0, &[]).expect("a state");
        let torn = disk.lay_out(0, &[Kept { entry: 0, first: 1, count: 1 }]).expect("a state");
        assert_eq!(first_bytes(&disk), [0, 1, 0, 0]);
        let flushed = disk.lay_out(2, &[]).expect("a state");
        assert_eq!(first_bytes(&disk), [1, 1, 0, 0]);
        let late = disk.lay_out(2, &[Kept { entry: 2, first: 0, count: 2 }]).expect("a state");
        assert_eq!(first_bytes(&disk), [1, 2, 2, 0]);
        assert_eq!([none, torn, flushed, late].iter().collect::<std::collections::HashSet<_>>().len(), 4);
        // The writes of a mount are forgotten. The same state has the same number, in whatever way
        // it was laid out.
        disk.write(0, &[9; BLOCK_BYTES]).expect("a write of a mount");
        assert_eq!(
            disk.lay_out(3, &[]).expect("a state"),
            disk.lay_out(3, &[Kept { entry: 2, first: 0, count: 9 }]).expect("one")
        );
        assert_eq!(first_bytes(&disk), [1, 2, 2, 2]);
        assert!(disk.lay_out(2, &[]).is_err(), "it does not go back");
    }

    #[test]
    fn parts_of_a_block_are_written_too() {
        let mut disk = disk();
        disk.write(4090, &[7; 12]).expect("over an edge");
        assert_eq!(disk.read(4088, 16).expect("bytes"), [0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
        assert_eq!((blocks_of(4090, 12), blocks_of(0, 4096), blocks_of(512, 512)), (2, 1, 1));
        assert!(disk.write(8 * BLOCK_BYTES as u64 - 1, &[0; 2]).is_err(), "past the end");
        disk.keep();
        assert_eq!(disk.read(4090, 1).expect("a byte"), [7]);
    }
}
