//! The world of one sequence: a machine, its servers, directories with backups, and the knowledge
//! of an observer who sees everything.
//!
//! Must never: learn anything from what asmt reports. Only the usage marks that have appeared are
//! read, from the directory.

use crate::asmt::Naming;
use crate::disk::{Disk, Head, Medium};
use crate::machine::{Host, Machine, Where};
use crate::memory::{Place, Sums};
use crate::server::{Logging, Memory, Moment, Namespace, Server, Slot, Way};
use crate::tally::Counts;
use asmt_kit::dice::{Dice, Rng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The log file of the packages' configuration.
pub const DEFAULT_LOG: &str = "/var/log/aerospike/aerospike.log";

/// A backup of a namespace, and the facts about its making.
#[derive(Clone)]
pub struct Backup {
    /// Instance.
    pub instance: u8,
    /// Index of the namespace in its server.
    pub namespace: usize,
    /// Number of the event.
    pub event: usize,
    /// Number of times that the namespace had been opened.
    pub epoch: usize,
    /// The segments in memory.
    pub sums: Sums,
    /// The place where it was made.
    pub here: Where,
    /// Host name.
    pub host: String,
    /// Disks that asmt knew, with their headers; of all namespaces.
    pub noted: Vec<(usize, Head)>,
    /// asmt could see the log.
    pub sees_log: bool,
    /// asmt could see the metadata directory.
    pub sees_metadata: bool,
    /// Version of the metadata.
    pub metadata_version: usize,
    /// Random of its stripes.
    pub stripes: Option<u64>,
    /// Time of its making, seconds since 1970.
    pub made_s: i64,
    /// It has no manifest, like the backups that ASMT makes.
    pub is_asmts: bool,
    /// It was retired.
    pub is_retired: bool,
}

/// A restore that was begun, after which a mark appeared.
#[derive(Clone, Copy)]
pub struct Used {
    /// Number of the event.
    pub event: usize,
    /// Instance.
    pub instance: u8,
    /// The place.
    pub here: Where,
}

/// An attempt to restore.
#[derive(Clone, Copy)]
pub struct Attempt {
    /// Number of the event.
    pub event: usize,
    /// Instance.
    pub instance: u8,
    /// The place.
    pub here: Where,
    /// There were segments in memory.
    pub saw_memory: bool,
    /// There were segments in memory that a server had made since the backup.
    pub saw_run: bool,
    /// A mark appeared.
    pub is_marked: bool,
    /// It was killed, perhaps before it could leave a mark.
    pub is_killed: bool,
}

/// A directory for backups.
pub struct Vault {
    /// Its path.
    pub path: PathBuf,
    /// Backups in it.
    pub backups: Vec<Backup>,
    /// Uses that its marks have ever recorded.
    pub uses: Vec<Used>,
    /// Attempts to restore from it.
    pub attempts: Vec<Attempt>,
    /// Events of retirements.
    pub retirements: Vec<usize>,
    seen_marks: BTreeSet<String>,
}

impl Vault {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            backups: Vec::new(),
            uses: Vec::new(),
            attempts: Vec::new(),
            retirements: Vec::new(),
            seen_marks: BTreeSet::new(),
        }
    }

    /// Backups of an instance, of all namespaces or of one.
    pub fn of(&self, instance: u8, namespace: Option<usize>) -> Vec<&Backup> {
        let is_of = |backup: &&Backup| backup.instance == instance && namespace.is_none_or(|at| at == backup.namespace);
        self.backups.iter().filter(is_of).collect()
    }

    /// Looks for new marks. Returns true if there are some.
    pub fn look_for_marks(&mut self, event: usize, here: Where) -> bool {
        let mut has_new = false;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix("asmt-used-") else { continue };
            let instance = rest.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            let mark: Value =
                fs::read_to_string(entry.path()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            for restore in mark["restores"].as_array().into_iter().flatten() {
                let id = format!("{name} {} {}", restore["id"], restore["at_ms"]);
                if self.seen_marks.insert(id) {
                    self.uses.push(Used { event, instance, here });
                    has_new = true;
                }
            }
        }
        has_new
    }

    /// Moves away its backups of these namespaces; marks may stay.
    pub fn clear(&mut self, instance: u8, namespaces: &[(usize, String)], keeps_marks: bool) {
        let is_gone = |backup: &Backup| backup.instance == instance && namespaces.iter().any(|(at, _)| *at == backup.namespace);
        let keys: BTreeSet<String> = self
            .backups
            .iter()
            .filter(|backup| is_gone(backup))
            .flat_map(|backup| backup.sums.keys())
            .map(|key| format!("{key:08x}"))
            .collect();
        self.backups.retain(|backup| !is_gone(backup));
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_segment = name.get(..8).is_some_and(|key| keys.contains(key));
            let is_named = |prefix: &str| namespaces.iter().any(|(_, own)| name == format!("{prefix}{instance}-{own}.json"));
            if is_segment || is_named("asmt-manifest-") || is_named("asmt-used-") && !keeps_marks {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
}

/// Everything that belongs to a sequence.
pub struct World<'h> {
    /// The set-up for all sequences.
    pub host: &'h Host,
    /// The machine.
    pub machine: Machine,
    /// Decisions.
    pub dice: Dice,
    /// Servers, one per instance.
    pub servers: Vec<Server>,
    /// Directories.
    pub vaults: Vec<Vault>,
    /// Number of the event.
    pub event: usize,
    /// Event of the last clean stop, by server.
    pub stopped: Vec<usize>,
    /// Segments that asmt's last hint names.
    pub hinted: Vec<i32>,
    /// The story of the sequence, in words.
    pub story: Vec<String>,
    /// Every way in which an outcome was wrong.
    pub wrong: Vec<String>,
    /// The reason why a restore was accepted though the server has run, if no witness shows that it
    /// has.
    pub not_told: Option<String>,
    /// Counts over all sequences so far.
    pub counts: &'h mut Counts,
}

/// The kinds of storage that a namespace can have.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Devices,
    ShadowedDevices,
    Files,
    Memory,
    ShadowedMemory(Medium),
}

impl<'h> World<'h> {
    /// The world that belongs to a seed.
    pub fn new(host: &'h Host, nodes: &[PathBuf], seed: u64, counts: &'h mut Counts) -> Self {
        let mut dice = Dice::new(Rng::new(seed, 0x5e9));
        let machine = Machine::new(host, seed, &mut dice);
        let directory = host.root.join("world");
        for place in [directory.as_path(), Path::new("/var/log/aerospike")] {
            let _ = fs::remove_dir_all(place);
        }
        fs::create_dir_all(&directory).expect("a directory");
        let vault_count = if dice.chance(25) { 2 } else { 1 };
        let vaults = (0..vault_count).map(|number| Vault::new(directory.join(format!("backup-{number}")))).collect();
        let mut world = Self {
            host,
            machine,
            dice,
            servers: Vec::new(),
            vaults,
            event: 0,
            stopped: Vec::new(),
            hinted: Vec::new(),
            story: Vec::new(),
            wrong: Vec::new(),
            not_told: None,
            counts,
        };
        let mut nodes = nodes.to_vec();
        let server_count = if world.dice.chance(12) { 2 } else { 1 };
        for instance in 0..server_count {
            world.add_server(instance, &directory.join(format!("server-{instance}")), &mut nodes);
        }
        world
    }

    fn add_server(&mut self, instance: u8, directory: &Path, nodes: &mut Vec<PathBuf>) {
        let dice = &mut self.dice;
        fs::create_dir_all(directory).expect("a directory");
        let own_log = directory.join("log/aerospike.log");
        let default_log = if instance == 0 { PathBuf::from(DEFAULT_LOG) } else { own_log.clone() };
        let logging = dice.pick(vec![
            (40, (Logging::File, own_log.clone())),
            (15, (Logging::File, default_log)),
            (45, (Logging::Console, own_log)),
        ]);
        let way = dice.pick(vec![(45, Way::Option), (25, Way::Variable), (12, Way::Nothing), (18, Way::Devices)]);
        let mut server = Server::new(instance, directory, logging.expect("one"), way.expect("one"));
        let count = if dice.chance(45) { 2 } else { 1 };
        for at in 0..count {
            let shadow = if dice.chance(70) { Medium::Block } else { Medium::File };
            let kind = dice.pick(vec![
                (30, Kind::Devices),
                (8, Kind::ShadowedDevices),
                (25, Kind::Files),
                (22, Kind::Memory),
                (15, Kind::ShadowedMemory(shadow)),
            ]);
            let names = if instance == 0 || dice.chance(50) { ["test", "bar"] } else { ["other", "last"] };
            let place = Place { instance, nsid: at + 1, name: names[usize::from(at)].to_owned() };
            add_namespace(&mut server, directory, place, kind.expect("one"), nodes, dice);
        }
        server.write_links();
        server.write_config();
        self.servers.push(server);
        self.stopped.push(0);
    }

    /// The current moment.
    pub fn moment(&self) -> Moment {
        Moment { event: self.event, now_s: self.machine.now_s() }
    }

    /// The way in which asmt gets to know a server's configuration.
    pub fn naming(&self, server: usize, way: Way) -> Naming {
        let server = &self.servers[server];
        match way {
            Way::Option => Naming::Option(server.config.clone()),
            Way::Variable => Naming::Variable(server.config.clone()),
            Way::Nothing => Naming::Nothing,
            Way::Devices => {
                let there = server.configured().flat_map(Namespace::slots).filter(|slot| !slot.is_away);
                Naming::Devices(there.map(|slot| slot.path.clone()).collect())
            }
        }
    }

    /// Looks at memory again.
    pub fn look(&mut self) {
        self.servers.iter_mut().for_each(Server::look);
    }

    /// Memory is gone, or out of reach.
    pub fn forget_memory(&mut self) {
        self.servers.iter_mut().for_each(Server::forget_memory);
    }
}

fn add_namespace(server: &mut Server, directory: &Path, place: Place, kind: Kind, nodes: &mut Vec<PathBuf>, dice: &mut Dice) {
    let (main_count, shadow_count, medium) = match kind {
        Kind::Devices => (1 + usize::from(dice.chance(40)), 0, Medium::Block),
        Kind::ShadowedDevices => (1, 1, Medium::Block),
        Kind::Files => (1 + usize::from(dice.chance(50)), 0, Medium::File),
        Kind::Memory => (0, 0, Medium::File),
        Kind::ShadowedMemory(medium) => (1 + usize::from(dice.chance(40)), 0, medium),
    };
    // Without enough loop devices, files take their place.
    let medium = if nodes.len() < main_count + shadow_count { Medium::File } else { medium };
    let mut slot = |role: &str, number: usize| {
        let path = directory.join(format!("{}-{role}-{number}", place.name));
        let (path, node) = match medium {
            // A link, so that names can be exchanged; sometimes the node itself.
            Medium::Block => {
                let node = nodes.pop().expect("enough");
                (if dice.chance(85) { path } else { node.clone() }, node)
            }
            Medium::File | Medium::Stripe => (path.clone(), path),
        };
        let is_link = path != node;
        server.disks.push(Disk::blank(medium, node));
        Slot { path, disk: server.disks.len() - 1, is_link, is_away: false }
    };
    let mains: Vec<Slot> = (0..main_count).map(|number| slot("main", number)).collect();
    let shadows: Vec<Slot> = (0..shadow_count).map(|number| slot("shadow", number)).collect();
    let stripe_count = match kind {
        Kind::Memory => 2,
        Kind::ShadowedMemory(_) => main_count as u32,
        Kind::Devices | Kind::ShadowedDevices | Kind::Files => 0,
    };
    let is_configured = true;
    server.namespaces.push(Namespace { place, stripe_count, mains, shadows, is_configured, epoch: 0, memory: Memory::None });
}
