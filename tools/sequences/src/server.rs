//! A server of one instance, which starts, fails to start, runs, stops and is killed.
//!
//! Promise: it does what a server was seen to do, according to docs/STALENESS.md, in that order.
//! For each of its namespaces it knows how often it was opened, by which the oracle decides. Must
//! never: write to a device that it does not open.

use crate::asd::Asd;
use crate::disk::{Disk, Head, Medium, head_block, link};
use crate::log::{LAST_WORDS, ServerLog};
use crate::memory::{self, Place, Sums};
use asmt_kit::dice::Dice;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A configured device: a path that leads to a disk.
pub struct Slot {
    /// The path in the configuration.
    pub path: PathBuf,
    /// Index in [`Server::disks`].
    pub disk: usize,
    /// The path is a link to the disk.
    pub is_link: bool,
    /// Nothing is at the path for now.
    pub is_away: bool,
}

/// The segments of a namespace in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// None.
    None,
    /// All of them, and a start would trust them.
    Complete(Sums),
    /// Some of them, or all of them while the server runs.
    Partial,
    /// The leftovers of a killed restore, which the next one removes.
    Leftover,
}

/// A namespace of a server.
pub struct Namespace {
    /// Name and key.
    pub place: Place,
    /// Stripes in memory; 0 if the data is on devices.
    pub stripe_count: u32,
    /// The main devices, each on a line of its own.
    pub mains: Vec<Slot>,
    /// The shadows beside them.
    pub shadows: Vec<Slot>,
    /// The configuration has it.
    pub is_configured: bool,
    /// Number of times that it was opened: an earlier backup differs from the current headers of
    /// its devices.
    pub epoch: usize,
    /// Its segments in memory.
    pub memory: Memory,
}

impl Namespace {
    /// All its devices.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.mains.iter().chain(&self.shadows)
    }

    /// The number of main devices in a header. Where the data is in memory, these are the stripes.
    fn device_count(&self) -> u32 {
        if self.stripe_count > 0 { self.stripe_count } else { self.mains.len() as u32 }
    }

    /// Looks at memory again, because another process has removed or made segments.
    pub fn look(&mut self) {
        let found = memory::sums(&self.place);
        let is_same = matches!(&self.memory, Memory::Complete(sums) if *sums == found);
        if found.is_empty() {
            self.memory = Memory::None;
        } else if !is_same && self.memory != Memory::Leftover {
            self.memory = Memory::Partial;
        }
    }
}

/// The place to which a server logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// A file.
    File,
    /// The console, which asmt does not read.
    Console,
}

/// The way in which the operator usually names the configuration to asmt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `--config`.
    Option,
    /// `ASMT_CONFIG`.
    Variable,
    /// Not at all.
    Nothing,
    /// `--device` for each device.
    Devices,
}

/// The end of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It runs.
    Runs,
    /// It failed before it opened this namespace.
    FailedAt(usize),
}

/// A server.
pub struct Server {
    /// Instance.
    pub instance: u8,
    /// Its configuration.
    pub config: PathBuf,
    /// The directory in which its `smd` directory is.
    pub work: PathBuf,
    /// The way in which its operator names its configuration to asmt.
    pub way: Way,
    /// The place to which it logs.
    pub logging: Logging,
    /// Its log.
    pub log: ServerLog,
    /// Namespaces, in the order in which they are opened.
    pub namespaces: Vec<Namespace>,
    /// Disks of all namespaces.
    pub disks: Vec<Disk>,
    /// Its process while it runs.
    process: Option<Asd>,
    /// The last line of its stop is not written yet.
    pub owes_last_words: bool,
    /// The configuration has a line that the server refuses.
    pub is_config_bad: bool,
    /// Number of times that its metadata was changed.
    pub metadata_version: usize,
    /// Event of the last opening of any namespace.
    pub opened: usize,
}

/// The moment of an event.
#[derive(Clone, Copy)]
pub struct Moment {
    /// Number of the event.
    pub event: usize,
    /// Time of day, seconds since 1970.
    pub now_s: i64,
}

impl Server {
    /// A server that was never started.
    pub fn new(instance: u8, directory: &Path, (logging, log): (Logging, PathBuf), way: Way) -> Self {
        let work = directory.join("work");
        fs::create_dir_all(work.join("smd")).expect("a directory");
        Self {
            instance,
            config: directory.join("aerospike.conf"),
            work,
            way,
            logging,
            log: ServerLog::new(log),
            namespaces: Vec::new(),
            disks: Vec::new(),
            process: None,
            owes_last_words: false,
            is_config_bad: false,
            metadata_version: 0,
            opened: 0,
        }
    }

    /// Returns true if it runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn process(&mut self) -> &mut Asd {
        self.process.as_mut().expect("a server that runs")
    }

    /// The configured namespaces.
    pub fn configured(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.iter().filter(|namespace| namespace.is_configured)
    }

    /// The disk to which a configured path leads.
    pub fn disk(&self, slot: &Slot) -> &Disk {
        &self.disks[slot.disk]
    }

    /// Makes the configured paths lead to their disks.
    pub fn write_links(&self) {
        for slot in self.namespaces.iter().flat_map(Namespace::slots) {
            if slot.is_link && slot.is_away {
                let _ = fs::remove_file(&slot.path);
            } else if slot.is_link {
                link(&slot.path, &self.disk(slot).node);
            }
        }
    }

    /// Writes the current configuration.
    pub fn write_config(&self) {
        let mut text = format!("# made for a test\nservice {{\n\twork-directory {}\n}}\n", self.work.display());
        if self.is_config_bad {
            text = text.replace("service {", "service {{");
        }
        match self.logging {
            Logging::Console => text.push_str("logging {\n\tconsole {\n\t\tcontext any info\n\t}\n}\n"),
            Logging::File => {
                let path = self.log.path().display();
                let _ = write!(text, "logging {{\n\tfile {path} {{\n\t\tcontext any info\n\t}}\n}}\n");
            }
        }
        for namespace in self.configured() {
            let engine = if namespace.stripe_count > 0 { "memory" } else { "device" };
            let _ = write!(text, "namespace {} {{\n\tstorage-engine {engine} {{\n", namespace.place.name);
            for (at, main) in namespace.mains.iter().enumerate() {
                let word = if self.disk(main).medium == Medium::File { "file" } else { "device" };
                let shadow = namespace.shadows.get(at).map_or(String::new(), |shadow| format!(" {}", shadow.path.display()));
                let _ = writeln!(text, "\t\t{word} {}{shadow}", main.path.display());
            }
            if namespace.mains.is_empty() {
                text.push_str("\t\tdata-size 512M\n");
            }
            text.push_str("\t}\n}\n");
        }
        fs::write(&self.config, text).expect("a configuration");
    }

    fn log(&mut self, moment: Moment, text: &str) {
        if self.logging == Logging::File {
            self.log.write(moment.event, moment.now_s, text);
        }
    }

    /// Removes base and treex of all namespaces, as a start does first. Returns the ones that could
    /// be trusted.
    fn discard_bases(&mut self) -> Vec<bool> {
        let mut trusted = Vec::new();
        for namespace in &mut self.namespaces {
            let is_trusted = namespace.is_configured && memory::is_index_trusted(&namespace.place);
            trusted.push(is_trusted && matches!(namespace.memory, Memory::Complete(_)));
            if namespace.is_configured {
                memory::discard_base(&namespace.place);
                namespace.look();
            }
        }
        trusted
    }

    /// Exchanges the names of two devices of a namespace.
    pub fn swap(&mut self, at: usize, other: usize) {
        let mains = &mut self.namespaces[at].mains;
        let (first, second) = (mains[0].disk, mains[other].disk);
        if mains[0].is_link != mains[other].is_link || self.disks[first].medium == Medium::Block && !mains[0].is_link {
            return;
        }
        if self.disks[first].medium == Medium::File {
            let (one, two) = (self.disks[first].node.clone(), self.disks[second].node.clone());
            let between = one.with_extension("between");
            for (from, to) in [(&one, &between), (&two, &one), (&between, &two)] {
                fs::rename(from, to).expect("renamed");
            }
            (self.disks[first].node, self.disks[second].node) = (two, one);
        }
        (mains[0].disk, mains[other].disk) = (second, first);
        self.write_links();
    }

    /// Takes the first device of a namespace away, or brings it back. Returns false if it has none.
    pub fn set_away(&mut self, at: usize, is_away: bool) -> bool {
        let Some(slot) = self.namespaces[at].mains.first_mut().filter(|slot| slot.is_away != is_away) else { return false };
        let disk = &mut self.disks[slot.disk];
        if disk.medium == Medium::Block && !slot.is_link {
            return false;
        }
        slot.is_away = is_away;
        if disk.medium == Medium::File {
            let to = if is_away { slot.path.with_extension("away") } else { slot.path.clone() };
            fs::rename(&disk.node, &to).expect("renamed");
            disk.node = to;
        }
        self.write_links();
        true
    }

    /// Returns true if a device of any namespace is not at its path.
    pub fn has_away(&self) -> bool {
        self.namespaces.iter().flat_map(Namespace::slots).any(|slot| slot.is_away)
    }

    /// Starts and fails at a bad line: base and treex have been discarded by then, and no device is
    /// opened.
    pub fn fail_early(&mut self, moment: Moment) {
        self.log(moment, "<><><><><><><><><><>  Aerospike Enterprise Edition build 8.1.2.0  <><><><><><><><><><>");
        self.log(moment, "CRITICAL (config): line 7 :: unknown config parameter name");
        self.discard_bases();
    }

    /// Starts.
    pub fn start(&mut self, moment: Moment, dice: &mut Dice) -> Started {
        self.log(moment, "<><><><><><><><><><>  Aerospike Enterprise Edition build 8.1.2.0  <><><><><><><><><><>");
        let trusted = self.discard_bases();
        self.process = Some(Asd::start());
        for (at, is_trusted) in trusted.into_iter().enumerate() {
            if self.namespaces[at].is_configured && !self.open(at, is_trusted, moment, dice) {
                self.log(moment, "CRITICAL (drv_ssd): unable to open device");
                self.process = None;
                return Started::FailedAt(at);
            }
        }
        self.log(moment, "service ready: soon there will be cake!");
        if dice.chance(30) {
            self.metadata_version += 1;
            fs::write(self.work.join("smd/sindex.smd"), format!("[{}]\n", self.metadata_version)).expect("metadata");
            crate::log::set_time(&self.work.join("smd/sindex.smd"), moment.now_s);
        }
        let places: Vec<Place> = self.configured().map(|namespace| namespace.place.clone()).collect();
        places.iter().for_each(|place| self.process().attach(place));
        Started::Runs
    }

    /// Opens a namespace: warm if that is possible, otherwise cold. Returns false if a server would
    /// not start.
    fn open(&mut self, at: usize, may_be_warm: bool, moment: Moment, dice: &mut Dice) -> bool {
        let namespace = &self.namespaces[at];
        if namespace.slots().any(|slot| !slot.path.exists()) {
            return false;
        }
        let heads: Vec<Option<Head>> = namespace.slots().map(|slot| self.disk(slot).head()).collect();
        let mut randoms: Vec<u64> = heads.iter().flatten().map(|head| head.random).collect();
        randoms.dedup();
        if randoms.len() > 1 {
            return false;
        }
        let all = heads.iter().copied().chain(memory::stripe_heads(&namespace.place));
        let is_warm = may_be_warm && all.clone().all(|head| head.is_some_and(|head| head.is_trusted));
        let head = Head { random: dice.bits(), is_trusted: false };
        let (place, count, seed) = (namespace.place.clone(), namespace.device_count(), dice.bits());
        if is_warm {
            memory::change_stage(&place, seed);
            memory::set_stripe_heads(&place, count, head);
        } else {
            memory::remove(&place);
            let stripe_count = namespace.stripe_count;
            self.process().make(&place, stripe_count, head, seed);
        }
        self.set_heads(at, head);
        let namespace = &mut self.namespaces[at];
        namespace.memory = Memory::Partial;
        namespace.epoch += 1;
        self.opened = moment.event;
        true
    }

    fn set_heads(&mut self, at: usize, head: Head) {
        let namespace = &self.namespaces[at];
        let (name, count) = (namespace.place.name.clone(), namespace.device_count());
        let disks: Vec<usize> = namespace.slots().map(|slot| slot.disk).collect();
        for disk in disks {
            let block = head_block(self.disks[disk].medium, &name, count, head);
            self.disks[disk].write(&block);
        }
    }

    /// Stops cleanly. The last line may come later, long after the segments are complete.
    pub fn stop(&mut self, moment: Moment, is_late: bool, dice: &mut Dice) {
        self.log(moment, "shutting down");
        for at in 0..self.namespaces.len() {
            if !self.namespaces[at].is_configured {
                continue;
            }
            let namespace = &self.namespaces[at];
            let (place, count) = (namespace.place.clone(), namespace.device_count());
            let random = namespace
                .slots()
                .next()
                .map(|slot| self.disk(slot).head())
                .or_else(|| memory::stripe_heads(&place).first().copied());
            if let Some(Some(head)) = random {
                let head = Head { is_trusted: true, ..head };
                self.set_heads(at, head);
                memory::set_stripe_heads(&place, count, head);
            }
            self.process().close(&place, dice.bits());
            self.namespaces[at].memory = Memory::Complete(memory::sums(&place));
        }
        self.process = None;
        self.owes_last_words = is_late;
        if !is_late {
            self.log(moment, LAST_WORDS);
        }
    }

    /// Writes the last line of a stop, if it is still missing. It belongs to the event of the stop.
    pub fn finish_stop(&mut self, moment: Moment, stopped: usize) {
        if std::mem::take(&mut self.owes_last_words) {
            self.log(Moment { event: stopped, ..moment }, LAST_WORDS);
        }
    }

    /// The server is killed.
    pub fn crash(&mut self) {
        self.process = None;
    }

    /// Everything that it has written reaches its disks.
    pub fn settle(&mut self) {
        self.log.settle();
        self.disks.iter_mut().for_each(Disk::settle);
    }

    /// The power is cut. Returns true if a file has an old header afterwards.
    pub fn lose_power(&mut self, event: usize, dice: &mut Dice) -> bool {
        self.crash();
        let brings_back = dice.chance(60);
        self.owes_last_words = false;
        if self.logging == Logging::File {
            self.log.lose_power(event, dice);
        }
        let mut is_back = false;
        for disk in &mut self.disks {
            is_back |= disk.lose_power(dice, brings_back);
        }
        is_back
    }

    /// Memory is gone, or is in another IPC namespace.
    pub fn forget_memory(&mut self) {
        self.crash();
        self.namespaces.iter_mut().for_each(|namespace| namespace.memory = Memory::None);
    }

    /// Looks at memory again.
    pub fn look(&mut self) {
        self.namespaces.iter_mut().for_each(Namespace::look);
    }
}
