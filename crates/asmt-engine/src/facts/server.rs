//! What tells whether the server has run since a backup: the evidence, as values.
//!
//! Pure. Each witness of docs/STALENESS.md is one type here. Must never: call the system, or judge
//! (`plan::staleness` does).

use crate::format::Trace;
use crate::layout::server_config::ServerConfig;
use asmt_shm::{NamespaceName, STRIPE_MAGIC, StripeHeader};
use std::collections::BTreeMap;

/// The unit that the server's packages install.
pub const SERVER_UNIT: &str = "aerospike.service";

/// A boot id as the journal writes it: without hyphens.
pub fn hex_of(boot_id: &str) -> String {
    boot_id.chars().filter(char::is_ascii_hexdigit).collect()
}

/// Which machine, boot and IPC namespace this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// `/etc/machine-id`; `None` where there is none yet.
    pub machine_id: Option<String>,
    /// Boot id of the kernel.
    pub boot_id: String,
    /// Identity of the IPC namespace, as far as the kernel tells; another one for each container.
    pub ipc_namespace: String,
    /// Time of day, milliseconds since 1970.
    pub now_ms: u64,
    /// Time since boot without suspend (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: u64,
}

/// What holds a storage header: they differ in what a power cut can do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A block device: the server opens it O_DIRECT | O_DSYNC, so what it has written stays.
    Device,
    /// A regular file: the server does not fsync it, so a power cut can bring back an old header.
    File,
}

/// What a storage device or file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It starts with a header of the server's.
    Header(StripeHeader),
    /// Its first bytes are zeros: no server has used it.
    Blank,
    /// It starts with something else.
    Unknown,
    /// It cannot be read, and why.
    Unreadable(String),
}

impl DeviceState {
    /// What these first bytes say.
    pub fn of(bytes: &[u8]) -> Self {
        match StripeHeader::parse(bytes) {
            Some(header) if header.magic == STRIPE_MAGIC => Self::Header(header),
            _ if bytes.iter().all(|byte| *byte == 0) => Self::Blank,
            _ => Self::Unknown,
        }
    }
}

/// A storage device or file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path under which it was asked.
    pub path: String,
    /// What kind of file it is; `None` where it could not be opened.
    pub medium: Option<Medium>,
    /// Device number, or file system and inode: two paths with the same one lead to the same thing.
    pub unique: Option<(u64, u64)>,
    /// Names that stay with the disk when its path changes: by-id links, partition UUID, serial
    /// number.
    pub ids: Vec<String>,
    /// What its first bytes say.
    pub state: DeviceState,
}

impl Device {
    /// Its header, if it has one.
    pub fn header(&self) -> Option<&StripeHeader> {
        match &self.state {
            DeviceState::Header(header) => Some(header),
            DeviceState::Blank | DeviceState::Unknown | DeviceState::Unreadable(_) => None,
        }
    }

    /// Whether it is marked as trusted: the server was stopped cleanly.
    pub fn is_trusted(&self) -> bool {
        self.header().is_some_and(StripeHeader::is_trusted)
    }
}

/// The server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// It was read.
    Read {
        /// Its path.
        path: String,
        /// What it says.
        config: ServerConfig,
    },
    /// None was named, and none is where the packages put it; the text says where it was looked
    /// for.
    NotThere(String),
}

impl Configuration {
    /// What it says, if it was read.
    pub fn config(&self) -> Option<&ServerConfig> {
        match self {
            Self::Read { config, .. } => Some(config),
            Self::NotThere(_) => None,
        }
    }
}

/// A log as it is now, seen from how it was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceChange {
    /// Same contents, or renamed and compressed by a rotation with nothing added.
    None,
    /// Only the rest of the stop that the backup was made after was added.
    EndOfStop,
    /// Something was written, or it cannot be told what became of it.
    Changed,
    /// Nothing is there any more, nor beside it: no server does that.
    Gone,
}

/// A trace that a backup noted, compared with what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedTrace {
    /// Path, as noted.
    pub path: String,
    /// What has become of it.
    pub change: TraceChange,
}

/// A boot, or a start of the service, that something has kept a record of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStart {
    /// Boot id, 32 hex digits.
    pub boot_id: String,
    /// Time since that boot (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: u64,
    /// Who says so, for messages: `systemd`, `the journal`.
    pub source: &'static str,
    /// Whether the unit failed within seconds of this start.
    pub has_failed_early: bool,
}

/// What systemd, its journal and the login records know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceHistory {
    /// Starts of the server's unit, in no particular order.
    pub starts: Vec<ServiceStart>,
    /// Boot ids that the journal has, oldest first; empty where there is no journal.
    pub journal_boots: Vec<String>,
    /// Times of boots in the login records, milliseconds since 1970, oldest first.
    pub login_boots_ms: Vec<u64>,
    /// What could not be asked, and why.
    pub unseen: Vec<String>,
}

/// Everything that was found on this machine, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// This machine.
    pub host: Host,
    /// Which server it is about.
    pub instance: u8,
    /// Its configuration.
    pub configuration: Configuration,
    /// Paths of `--device`, in order.
    pub named: Vec<String>,
    /// Every device that was asked, by the path under which it was asked.
    pub devices: BTreeMap<String, Device>,
    /// What the server writes to, as it is now.
    pub traces: Vec<Trace>,
    /// What a backup noted of that, compared with now; by the namespace of the backup.
    pub compared: BTreeMap<NamespaceName, Vec<ComparedTrace>>,
    /// Places that this user may not look at.
    pub unseen: Vec<String>,
    /// What systemd and its journal know; empty where they were not asked.
    pub service: ServiceHistory,
    /// Whether a mark can be written into the backup's directory.
    pub is_markable: bool,
}
